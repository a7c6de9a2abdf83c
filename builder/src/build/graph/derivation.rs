//! A derivation file and all derivations that it needs, as nodes of a graph. What kiln does not build is refused here,
//! before anything is built.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use kiln_model::derivation::Derivation;
use kiln_model::name::Variable;
use kiln_model::store_path::StorePath;

use super::{GraphError, Loading, Node, Origin};
use crate::nix::{Derivations, DerivationsError, Substituter};
use crate::store::Store;

/// The node of the derivation in `file`, or at that path of the store.
pub(super) fn visit(
    loading: &mut Loading,
    file: &Path,
    store: &Store,
    caches: Option<&Substituter<'_>>,
) -> Result<usize, GraphError> {
    let mut read = Derivations::of(store).asking(caches);
    let wanted = match file.to_str().and_then(|text| text.parse::<StorePath>().ok()) {
        Some(path) => read.read(&path).map(|_| path)?,
        None => read.read_file(file)?,
    };
    read.keep_brought()?;
    for (path, derivation) in read.into_order() {
        if !loading.derivations.contains_key(&path) {
            let shown = if path == wanted { file.to_path_buf() } else { PathBuf::from(path.to_string()) };
            add(loading, path, shown, derivation)?;
        }
    }
    Ok(loading.derivations[&wanted])
}

fn add(loading: &mut Loading, path: StorePath, shown: PathBuf, derivation: Derivation) -> Result<(), GraphError> {
    let refuse = |source| DerivationsError::Derivation { shown: shown.display().to_string(), source };
    let modulo = derivation.modulo(&loading.modulos).map_err(refuse)?;
    derivation.refuse_unsupported().map_err(|source| GraphError::Unsupported { path: shown.clone(), source })?;
    let mut outputs = BTreeMap::new();
    for (name, output) in &derivation.outputs {
        let unsupported = |what| {
            let source =
                kiln_model::contract::ContractError::Unsupported { attribute: format!("outputs.{name}"), what };
            GraphError::Unsupported { path: shown.clone(), source }
        };
        let variable: Variable =
            name.as_str().parse().map_err(|_| unsupported("expected a name of letters, digits and underscores"))?;
        outputs.extend(output.path().map(|path| (variable, path.clone())));
    }
    let needs = derivation.input_derivations.keys().map(|needed| loading.derivations[needed]).collect();
    let needs_one_that_floats = || {
        derivation.input_derivations.iter().any(|(needed, used)| {
            let made = &loading.graph.nodes[loading.derivations[needed]].derivation.outputs;
            used.iter().any(|output| made.get(output).is_none_or(|output| output.path().is_none()))
        })
    };
    let resolved_by = match derivation.floats() || needs_one_that_floats() {
        true => Some(derivation.realisation_digest(&loading.modulos).map_err(refuse)?),
        false => None,
    };
    loading.modulos.insert(path.clone(), modulo);
    loading.push(Node { shown, origin: Origin::Derivation, derivation, path, outputs, resolved_by, needs });
    Ok(())
}
