//! A derivation file and all derivations that it needs, as nodes of a graph.
//!
//! A file is what its name says or is refused: its text gives its path, and its output paths follow from its text and from
//! the derivations it names. What kiln does not build is refused here, before anything is built.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use kiln_model::derivation::Derivation;
use kiln_model::name::Variable;
use kiln_model::store_path::StorePath;

use super::{GraphError, Loading, Node, Origin};
use crate::store::Store;

/// The largest derivation that is read, in bytes. The largest of nixpkgs have some hundred kilobytes.
const LARGEST: u64 = 64 << 20;

/// Derivations that are read but not yet nodes, by path.
type Read = BTreeMap<StorePath, (PathBuf, Derivation)>;

/// The node of the derivation in `file`.
pub(super) fn visit(loading: &mut Loading, file: &Path, store: &Store) -> Result<usize, GraphError> {
    let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let bad_name = || GraphError::DerivationName { path: file.to_path_buf() };
    let path = StorePath::from_base_name(name).map_err(|_| bad_name())?;
    // A logical path is one in kiln's own store, wherever that lies.
    let logical = file.to_str() == Some(&path.to_string());
    let place = if logical { store.physical(&path) } else { file.to_path_buf() };
    let beside = place.parent().unwrap_or(Path::new(".")).to_path_buf();

    let mut read = Read::new();
    let mut open = vec![(path.clone(), place, None)];
    while let Some((path, place, needed_by)) = open.pop() {
        if read.contains_key(&path) || loading.derivations.contains_key(&path) {
            continue;
        }
        let shown = if place.starts_with(store.root()) { PathBuf::from(path.to_string()) } else { place.clone() };
        let bytes = match bytes_of(&place) {
            Ok(bytes) => bytes,
            Err(source) => {
                return Err(match needed_by {
                    Some(needed_by) if source.kind() == std::io::ErrorKind::NotFound => {
                        GraphError::NoDerivation { path, needed_by }
                    }
                    _ => GraphError::Read { path: shown, source },
                });
            }
        };
        let derivation = Derivation::parse_at(&path, &bytes)
            .map_err(|source| GraphError::Derivation { path: shown.clone(), source })?;
        for needed in derivation.input_derivations.keys() {
            let in_store = store.physical(needed);
            let place = if in_store.exists() { in_store } else { beside.join(needed.base_name()) };
            open.push((needed.clone(), place, Some(shown.clone())));
        }
        read.insert(path, (shown, derivation));
    }
    for path in in_order(&read) {
        let Some((shown, derivation)) = read.remove(&path) else { continue };
        add(loading, path, shown, derivation)?;
    }
    Ok(loading.derivations[&path])
}

fn bytes_of(place: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(place)?.take(LARGEST).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Each after what it needs: there is no circle, because a path is a digest of what it names. Iterative, because a chain of
/// derivations may be as long as it likes.
fn in_order(read: &Read) -> Vec<StorePath> {
    let mut ordered = Vec::new();
    let mut entered: BTreeSet<&StorePath> = BTreeSet::new();
    for start in read.keys() {
        let mut open: Vec<(&StorePath, Vec<&StorePath>)> = Vec::new();
        let mut next = Some(start);
        loop {
            if let Some(path) = next.take().filter(|path| entered.insert(path)) {
                let needs = read.get(path).map(|(_, derivation)| derivation.input_derivations.keys());
                open.push((path, needs.into_iter().flatten().collect()));
            }
            let Some((_, needs)) = open.last_mut() else { break };
            next = needs.pop();
            if next.is_none() {
                ordered.extend(open.pop().map(|(path, _)| path.clone()));
            }
        }
    }
    ordered
}

fn add(loading: &mut Loading, path: StorePath, shown: PathBuf, derivation: Derivation) -> Result<(), GraphError> {
    let refuse = |source| GraphError::Derivation { path: shown.clone(), source };
    derivation.check(&loading.modulos).map_err(refuse)?;
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
