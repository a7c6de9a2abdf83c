//! What of a built recipe is published: outputs, derivations, and everything these name.

use std::collections::BTreeSet;

use kiln_model::lower;
use kiln_model::store_path::StorePath;

use crate::build::graph::{Graph, Node, Origin};
use crate::exit::Kind;
use crate::store::{Digests, Store, StoreError, Trust};

/// Why a recipe cannot be published.
#[derive(Debug, thiserror::Error)]
pub enum RecipesError {
    /// Nothing to publish yet.
    #[error("{recipe} is not built, or its environment is gone: run `kiln build {recipe}` first")]
    NotBuilt {
        /// The recipe.
        recipe: String,
    },
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl RecipesError {
    /// Who has to act on it.
    pub fn kind(&self) -> Kind {
        match self {
            Self::NotBuilt { .. } => Kind::BadInput,
            Self::Store(error) => error.kind(),
        }
    }
}

/// Derivations and outputs of all recipes of `graph`, which must be built. Environments are made valid paths, as the derivations
/// name them.
pub fn paths_of(store: &Store, graph: &Graph) -> Result<BTreeSet<StorePath>, RecipesError> {
    let mut paths = BTreeSet::new();
    for node in &graph.nodes {
        let not_built = || RecipesError::NotBuilt { recipe: node.shown.display().to_string() };
        let outputs = outputs_of(store, node)?.ok_or_else(not_built)?;
        if let Origin::Recipe(locked) = &node.origin {
            if store.path_info(&locked.environment)?.is_none() {
                let hash = &locked.lock.environment.nar_hash;
                let place = store.environment(hash, Trust::Fingerprint)?.ok_or_else(not_built)?;
                store.add_tree(&lower::environment_name(&locked.recipe.recipe), &place, Digests::Nar)?;
            }
            store.hold(&BTreeSet::from([locked.environment.clone()]))?;
            for path in locked.inputs.values() {
                if store.path_info(path)?.is_none() {
                    return Err(not_built());
                }
            }
        }
        paths.insert(store.add_derivation(&node.derivation.name, &node.derivation.print())?);
        paths.extend(outputs);
    }
    Ok(paths)
}

/// Where the outputs of `node` are, those that float included, if all are valid.
fn outputs_of(store: &Store, node: &Node) -> Result<Option<BTreeSet<StorePath>>, StoreError> {
    let mut outputs = BTreeSet::new();
    for (name, output) in &node.derivation.outputs {
        let path = match output.path() {
            Some(path) => store.path_info(path)?.map(|info| info.path),
            None => store.realisation(&node.path, name)?.map(|realisation| realisation.path),
        };
        let Some(path) = path else { return Ok(None) };
        outputs.insert(path);
    }
    store.hold(&outputs)?;
    Ok(Some(outputs))
}
