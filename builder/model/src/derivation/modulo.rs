//! Modulo hashes: what stands for a derivation in those that depend on it.
//!
//! Two recipes for the same fixed bytes do not change what depends on them.

use std::collections::{BTreeMap, BTreeSet};

use data_encoding::HEXLOWER;

use super::print::Outputs;
use super::{Derivation, DerivationError, Output};
use crate::digest::Digest;
use crate::name::Name;
use crate::store_path::{Method, StorePath};

/// What stands for a derivation in those that depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Modulo {
    /// This digest.
    Known(Digest),
    /// Nothing that a path could follow from yet, because an output floats, here or further up. Nix 2.8 still names its
    /// realisations by this digest.
    Deferred(Digest),
}

impl Modulo {
    /// The digest.
    pub fn digest(self) -> Digest {
        match self {
            Self::Known(digest) | Self::Deferred(digest) => digest,
        }
    }
}

/// Says the modulo hashes of input derivations. Answers must not change while a derivation is looked at.
pub trait Modulos {
    /// The modulo hash of the derivation at `path`, if it is known.
    fn modulo(&self, path: &StorePath) -> Option<Modulo>;
}

impl Modulos for BTreeMap<StorePath, Modulo> {
    fn modulo(&self, path: &StorePath) -> Option<Modulo> {
        self.get(path).copied()
    }
}

impl Derivation {
    /// The derivation's own modulo hash.
    pub fn modulo(&self, inputs: &dyn Modulos) -> Result<Modulo, DerivationError> {
        for output in self.outputs.values() {
            match output {
                Output::Fixed { path, method, algorithm, digest } => {
                    let prefix = match method {
                        Method::Flat => "",
                        Method::Recursive => "r:",
                    };
                    let hex = HEXLOWER.encode(digest);
                    let text = format!("fixed:out:{prefix}{algorithm}:{hex}:{path}");
                    return Ok(Modulo::Known(Digest::of(text)));
                }
                Output::Floating { .. } | Output::Deferred => {
                    return Ok(Modulo::Deferred(self.digest_with(inputs, Outputs::Shown)?.digest()));
                }
                Output::InputAddressed(_) => {}
            }
        }
        self.digest_with(inputs, Outputs::Shown)
    }

    /// What Nix 2.8 names the realisations of this derivation by: its digest with the outputs masked, known or not.
    pub fn realisation_digest(&self, inputs: &dyn Modulos) -> Result<Digest, DerivationError> {
        let modulo = if self.is_fixed() { self.modulo(inputs)? } else { self.digest_with(inputs, Outputs::Masked)? };
        Ok(modulo.digest())
    }

    /// Each output's path as it follows from the derivation; `None` where it is not known before the build.
    pub fn output_paths(&self, inputs: &dyn Modulos) -> Result<BTreeMap<Name, Option<StorePath>>, DerivationError> {
        let mut masked = None;
        self.outputs
            .iter()
            .map(|(name, output)| {
                let path = match output {
                    Output::Fixed { path, .. } => Some(path.clone()),
                    Output::Floating { .. } => None,
                    Output::InputAddressed(_) | Output::Deferred => {
                        let digest = match masked {
                            Some(digest) => digest,
                            None => *masked.insert(self.digest_with(inputs, Outputs::Masked)?),
                        };
                        match digest {
                            Modulo::Known(digest) => Some(
                                StorePath::output(&digest, name, &self.name)
                                    .map_err(|source| DerivationError::StorePath { name: self.name.clone(), source })?,
                            ),
                            Modulo::Deferred(_) => None,
                        }
                    }
                };
                Ok((name.clone(), path))
            })
            .collect()
    }

    fn digest_with(&self, inputs: &dyn Modulos, shown: Outputs) -> Result<Modulo, DerivationError> {
        // Inputs of equal hash merge; a map of the hex digests also sorts them again.
        let mut named: BTreeMap<String, BTreeSet<Name>> = BTreeMap::new();
        let mut as_known: fn(Digest) -> Modulo = Modulo::Known;
        for (path, outputs) in &self.input_derivations {
            let modulo = inputs.modulo(path).ok_or_else(|| DerivationError::UnknownInput { path: path.clone() })?;
            if let Modulo::Deferred(_) = modulo {
                as_known = Modulo::Deferred;
            }
            named.entry(modulo.digest().to_string()).or_default().extend(outputs.iter().cloned());
        }
        Ok(as_known(Digest::of(self.print_with(&named, shown))))
    }
}
