//! A derivation that floats, or needs one that does, made into one that can be built.
//!
//! Nix's `Derivation::tryResolve`: what inputs turned out to be becomes part of the text, so two derivations that differ
//! only in how their inputs were made resolve to the same.

use std::collections::{BTreeMap, BTreeSet};

use super::{Closed, Derivation, DerivationError, Output};
use crate::contract::rewritten;
use crate::name::Name;
use crate::store_path::{StorePath, upstream_placeholder};

/// Says where an output of a derivation is, if it was built.
pub type Realised<'a> = dyn Fn(&StorePath, &Name) -> Option<StorePath> + 'a;

impl Derivation {
    /// Whether a path of its own is not known before the build.
    pub fn floats(&self) -> bool {
        self.outputs.values().any(|output| output.path().is_none())
    }

    /// The derivation that is built in place of this one: the inputs by the paths that `realised` says, no input
    /// derivations, and paths for the outputs that were deferred. Outputs that float still do.
    pub fn resolve(&self, realised: &Realised<'_>) -> Result<Closed, DerivationError> {
        let mut input_sources = self.input_sources.clone();
        let mut replacements = Vec::new();
        for (derivation, outputs) in &self.input_derivations {
            for output in outputs {
                let not_realised =
                    || DerivationError::NotRealised { derivation: derivation.clone(), output: output.clone() };
                let path = realised(derivation, output).ok_or_else(not_realised)?;
                let placeholder = upstream_placeholder(derivation, output)
                    .map_err(|source| DerivationError::StorePath { name: self.name.clone(), source })?;
                replacements.push((placeholder, path.to_string()));
                input_sources.insert(path);
            }
        }
        let replaced = |bytes: &Vec<u8>| rewritten(bytes.clone(), &replacements);
        let mut environment = BTreeMap::new();
        for (key, value) in &self.environment {
            // Should two names become one, the first stays, as in Nix's map.
            environment.entry(replaced(key)).or_insert_with(|| replaced(value));
        }
        let mut derivation = Self {
            name: self.name.clone(),
            outputs: self.outputs.clone(),
            input_derivations: BTreeMap::new(),
            input_sources,
            system: self.system.clone(),
            builder: replaced(&self.builder),
            arguments: self.arguments.iter().map(replaced).collect(),
            environment,
        };
        let none: BTreeMap<StorePath, super::Modulo> = BTreeMap::new();
        let deferred: BTreeSet<Name> = self
            .outputs
            .iter()
            .filter(|(_, output)| matches!(output, Output::Deferred))
            .map(|(name, _)| name.clone())
            .collect();
        if !deferred.is_empty() {
            for (output, path) in derivation.output_paths(&none)? {
                let Some(path) = path.filter(|_| deferred.contains(&output)) else { continue };
                derivation.environment.insert(output.as_str().into(), path.to_string().into_bytes());
                derivation.outputs.insert(output, Output::InputAddressed(path));
            }
        }
        let bytes = derivation.print();
        let path = derivation.path_of(&bytes)?;
        let modulo = derivation.modulo(&none)?;
        Ok(Closed { derivation, path, bytes, modulo })
    }
}
