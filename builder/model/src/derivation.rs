//! A derivation: recipe, lock and platform closed into one build. Its store path is its id.
//!
//! Bytes, paths and digests are Nix's. [`Derivation::parse`] takes only what [`Derivation::print`]
//! would write, so that the bytes can be had back from the value; what may be bytes in Nix (builder, arguments,
//! variables) is bytes here. [`Derivation::close`] makes a new one. Where other derivations must be known, the caller
//! says their [`Modulo`] hashes; this module reads nothing.

use std::collections::{BTreeMap, BTreeSet};

use crate::format::aterm::AtermError;
use crate::name::{Name, NameError};
use crate::store_path::{Algorithm, Method, StorePath, StorePathError, content_address};

mod attributes;
mod modulo;
mod parse;
mod print;
mod resolve;
mod show;

pub use attributes::Attributes;
pub use modulo::{Modulo, Modulos};
pub use resolve::Realised;

/// A derivation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Derivation {
    /// The name, which is not in the text but in the path: `NAME.drv`.
    pub name: Name,
    /// What it makes, by name.
    pub outputs: BTreeMap<Name, Output>,
    /// Derivations it needs outputs of, and which.
    pub input_derivations: BTreeMap<StorePath, BTreeSet<Name>>,
    /// Store paths it needs.
    pub input_sources: BTreeSet<StorePath>,
    /// Where it can be built: `x86_64-linux`.
    pub system: String,
    /// The program.
    pub builder: Vec<u8>,
    /// Its arguments, without the name of the program.
    pub arguments: Vec<Vec<u8>>,
    /// Its variables.
    pub environment: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// One output of a derivation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// The path follows from the derivation.
    InputAddressed(StorePath),
    /// The contents are known beforehand.
    Fixed {
        /// Follows from the digest.
        path: StorePath,
        /// What is hashed.
        method: Method,
        /// With which algorithm.
        algorithm: Algorithm,
        /// To which digest.
        digest: Vec<u8>,
    },
    /// The path follows from the contents, once built.
    Floating {
        /// What is hashed.
        method: Method,
        /// With which algorithm.
        algorithm: Algorithm,
    },
    /// Input-addressed, but an input floats: the path is known once that is built.
    Deferred,
}

/// What a new input-addressed derivation is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parts {
    /// Its name.
    pub name: Name,
    /// Names of its outputs.
    pub outputs: BTreeSet<Name>,
    /// Derivations it needs outputs of, and which.
    pub input_derivations: BTreeMap<StorePath, BTreeSet<Name>>,
    /// Store paths it needs.
    pub input_sources: BTreeSet<StorePath>,
    /// Where it can be built.
    pub system: String,
    /// The program.
    pub builder: Vec<u8>,
    /// Its arguments, without the name of the program.
    pub arguments: Vec<Vec<u8>>,
    /// Its variables, without those named like an output: these are filled in.
    pub environment: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// A derivation with everything that follows from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closed {
    /// The derivation, output paths filled in.
    pub derivation: Derivation,
    /// Its own path, its id.
    pub path: StorePath,
    /// Its text.
    pub bytes: Vec<u8>,
    /// What stands for it in those that depend on it.
    pub modulo: Modulo,
}

/// Why this is not a derivation, or not the one it claims to be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DerivationError {
    /// Not a term of the right shape.
    #[error("not a derivation as Nix writes it")]
    Syntax(#[from] AtermError),
    /// A term that Nix would have written otherwise.
    #[error("not canonical: {what} is out of order or given twice")]
    NotCanonical {
        /// Which part.
        what: &'static str,
    },
    /// A string that `execve` cannot carry.
    #[error("{what} contains a NUL byte, which no program can be given")]
    Nul {
        /// Which part.
        what: &'static str,
    },
    /// A string that must be text.
    #[error("{what} is not UTF-8")]
    NotText {
        /// Which part.
        what: &'static str,
    },
    /// A part that is not a store path.
    #[error("bad path in {what}")]
    Path {
        /// Which part.
        what: &'static str,
        /// Why not.
        #[source]
        source: StorePathError,
    },
    /// An output name that is not one.
    #[error("bad output name")]
    OutputName(#[source] NameError),
    /// Nothing to build.
    #[error("a derivation needs at least one output")]
    NoOutputs,
    /// A form of output that is not supported.
    #[error("output {output}: {what} is not supported")]
    Unsupported {
        /// Which output.
        output: Name,
        /// What it asks for.
        what: &'static str,
    },
    /// A fixed output beside others, or not called `out`.
    #[error("a fixed output must be the only one, and be called out")]
    FixedAmongOthers,
    /// An output that floats beside one that does not.
    #[error("output {output} floats and others of the derivation do not: either all do or none")]
    FloatingAmongOthers {
        /// One that floats.
        output: Name,
    },
    /// Hash algorithm, method or digest that make no sense.
    #[error("output {output}: bad content address {found:?}")]
    ContentAddress {
        /// Which output.
        output: Name,
        /// As given.
        found: String,
    },
    /// No modulo hash was given for an input derivation.
    #[error("the input derivation {path} is not known: it must be in the store, or beside the file")]
    UnknownInput {
        /// Which.
        path: StorePath,
    },
    /// An output of an input derivation that is needed and was not built.
    #[error("output {output} of {derivation} is needed and was not built: build it first")]
    NotRealised {
        /// The input derivation.
        derivation: StorePath,
        /// Which output.
        output: Name,
    },
    /// An output path that does not follow from the derivation.
    #[error("output {output} is {found} but the derivation's contents make it {expected}: the file was altered")]
    OutputPath {
        /// Which output.
        output: Name,
        /// As computed.
        expected: StorePath,
        /// As stated.
        found: StorePath,
    },
    /// The variable named like an output does not hold its path.
    #[error("variable {output} is {found:?}, expected the output's path {expected:?}")]
    OutputVariable {
        /// Which output.
        output: Name,
        /// Its path.
        expected: String,
        /// The variable's value, if there is one.
        found: Option<String>,
    },
    /// The bytes belong to another path.
    #[error("the contents of {found} are those of {expected}: the file was altered")]
    DerivationPath {
        /// As computed from the bytes.
        expected: StorePath,
        /// As asked for.
        found: StorePath,
    },
    /// A new derivation says itself what is filled in for it.
    #[error("variable {output} is the name of an output: it is filled in and cannot be set")]
    VariableIsOutput {
        /// Which.
        output: Name,
    },
    /// Structured attributes that are none.
    #[error("bad structured attributes: {reason}")]
    Attributes {
        /// What is wrong.
        reason: String,
    },
    /// A name too long once extended.
    #[error("no store path for {name}")]
    StorePath {
        /// The derivation.
        name: Name,
        /// Why not.
        #[source]
        source: StorePathError,
    },
}

impl DerivationError {
    /// Whether a digest does not hold, as opposed to a malformed text.
    pub fn is_tampering(&self) -> bool {
        matches!(self, Self::OutputPath { .. } | Self::DerivationPath { .. } | Self::OutputVariable { .. })
    }
}

impl Output {
    /// The path, where it is known before the build.
    pub fn path(&self) -> Option<&StorePath> {
        match self {
            Self::InputAddressed(path) | Self::Fixed { path, .. } => Some(path),
            Self::Floating { .. } | Self::Deferred => None,
        }
    }

    /// How a narinfo spells the content address of a fixed output.
    pub fn content_address(&self) -> Option<String> {
        match self {
            Self::Fixed { method, algorithm, digest, .. } => Some(content_address(*method, *algorithm, digest)),
            Self::InputAddressed(_) | Self::Floating { .. } | Self::Deferred => None,
        }
    }
}

impl Derivation {
    /// Closes `parts` into a derivation: computes its output paths, fills them in, and computes its own.
    pub fn close(parts: Parts, inputs: &dyn Modulos) -> Result<Closed, DerivationError> {
        if parts.outputs.is_empty() {
            return Err(DerivationError::NoOutputs);
        }
        let mut derivation = Self {
            name: parts.name,
            outputs: parts.outputs.into_iter().map(|output| (output, Output::Deferred)).collect(),
            input_derivations: parts.input_derivations,
            input_sources: parts.input_sources,
            system: parts.system,
            builder: parts.builder,
            arguments: parts.arguments,
            environment: parts.environment,
        };
        for output in derivation.outputs.keys() {
            if derivation.environment.insert(output.as_str().into(), Vec::new()).is_some() {
                return Err(DerivationError::VariableIsOutput { output: output.clone() });
            }
        }
        for (output, path) in derivation.output_paths(inputs)? {
            let Some(path) = path else { continue };
            derivation.environment.insert(output.as_str().into(), path.to_string().into_bytes());
            derivation.outputs.insert(output, Output::InputAddressed(path));
        }
        derivation.refuse_nul()?;
        let bytes = derivation.print();
        let path = derivation.path_of(&bytes)?;
        let modulo = derivation.modulo(inputs)?;
        Ok(Closed { derivation, path, bytes, modulo })
    }

    /// The derivation's own path.
    pub fn path(&self) -> Result<StorePath, DerivationError> {
        self.path_of(&self.print())
    }

    fn path_of(&self, bytes: &[u8]) -> Result<StorePath, DerivationError> {
        let references = self.input_sources.iter().chain(self.input_derivations.keys()).cloned().collect();
        StorePath::text(&format!("{}.drv", self.name), bytes, &references)
            .map_err(|source| DerivationError::StorePath { name: self.name.clone(), source })
    }

    /// Holds every stated output path, and the variable that repeats it, against what follows from the derivation.
    pub fn check(&self, inputs: &dyn Modulos) -> Result<(), DerivationError> {
        for (name, expected) in self.output_paths(inputs)? {
            let found = self.outputs[&name].path();
            if let (Some(expected), Some(found)) = (&expected, found)
                && expected != found
            {
                return Err(DerivationError::OutputPath {
                    output: name,
                    expected: expected.clone(),
                    found: found.clone(),
                });
            }
            let Some(expected) = expected.as_ref().or(found) else { continue };
            let value = self.environment.get(name.as_str().as_bytes());
            // With structured attributes the outputs are in `__json` too, and Nix still sets the variables.
            if value.is_none_or(|value| value != expected.to_string().as_bytes()) {
                return Err(DerivationError::OutputVariable {
                    output: name,
                    expected: expected.to_string(),
                    found: value.map(|value| String::from_utf8_lossy(value).into_owned()),
                });
            }
        }
        Ok(())
    }

    fn refuse_nul(&self) -> Result<(), DerivationError> {
        let refuse = |what, bytes: &[u8]| {
            if bytes.contains(&0) { Err(DerivationError::Nul { what }) } else { Ok(()) }
        };
        refuse("the system", self.system.as_bytes())?;
        refuse("the builder", &self.builder)?;
        self.arguments.iter().try_for_each(|argument| refuse("an argument", argument))?;
        self.environment.iter().try_for_each(|(key, value)| {
            refuse("the name of a variable", key)?;
            refuse("a variable", value)
        })
    }
}
