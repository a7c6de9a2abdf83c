//! Structured attributes: the files that a builder finds them in.
//!
//! They are the one variable `__json`. How Nix prints them again, and which of them a shell can have, is the crate
//! nix-derivation's knowledge; it reads the derivation's text for it, so that what it refuses is refused here too.

use std::collections::BTreeMap;

use super::{Derivation, DerivationError};
use crate::name::Name;
use crate::store_path::StorePath;

/// What lies in the build directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attributes {
    /// `.attrs.json`: all of them, with the outputs' paths.
    pub json: Vec<u8>,
    /// `.attrs.sh`: those that a shell can have.
    pub shell: Vec<u8>,
}

impl Derivation {
    /// The files of the derivation's structured attributes, if it has them, where its outputs are built at `outputs`.
    pub fn attributes(&self, outputs: &BTreeMap<Name, StorePath>) -> Result<Option<Attributes>, DerivationError> {
        if !self.environment.contains_key(b"__json".as_slice()) {
            return Ok(None);
        }
        let refused = |reason: String| DerivationError::Attributes { reason };
        let theirs = nix_derivation::Derivation::from_aterm_bytes(&self.print(), self.name.as_str())
            .map_err(|error| refused(error.to_string()))?;
        let outputs = outputs.iter().map(|(name, path)| (name.to_string(), path.to_upstream())).collect();
        let files = theirs
            .structured_attrs_files_with_output_paths(&outputs)
            .map_err(|error| refused(error.to_string()))?
            .ok_or_else(|| refused("__json is not an object".into()))?;
        Ok(Some(Attributes { json: files.json, shell: files.shell }))
    }
}
