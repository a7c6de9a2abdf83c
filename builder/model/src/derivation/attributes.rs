//! Structured attributes: the files that a builder finds them in.
//!
//! They are the one variable `__json`. How Nix prints them again, and which of them a shell can have, is the crate
//! nix-derivation's knowledge; it reads the derivation's text for it, so that what it refuses is refused here too.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::Value;

use super::{Derivation, DerivationError};
use crate::contract::rewritten;
use crate::name::Name;
use crate::store_path::StorePath;

/// The variable that holds them all.
const JSON: &[u8] = b"__json";

/// The attribute from which others are computed.
const GRAPH: &str = "exportReferencesGraph";

/// Attributes in the order in which Nix prints them.
type Object = BTreeMap<String, Value>;

/// What lies in the build directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attributes {
    /// `.attrs.json`: all of them, with the outputs' paths.
    pub json: Vec<u8>,
    /// `.attrs.sh`: those that a shell can have.
    pub shell: Vec<u8>,
}

impl Derivation {
    /// The files of the derivation's structured attributes, if it has them, where its outputs are built at `outputs`. What is
    /// in `computed` is added, or takes the place of the attribute of that name.
    pub fn attributes(
        &self,
        outputs: &BTreeMap<Name, StorePath>,
        computed: &BTreeMap<String, Value>,
    ) -> Result<Option<Attributes>, DerivationError> {
        let Some(json) = self.environment.get(JSON) else { return Ok(None) };
        let refused = |reason: String| DerivationError::Attributes { reason };
        let mut given = Cow::Borrowed(self);
        let mut kept = None;
        if !computed.is_empty() || memchr::memmem::find(json, GRAPH.as_bytes()).is_some() {
            let mut object: Object = serde_json::from_slice(json).map_err(|error| refused(error.to_string()))?;
            object.extend(computed.iter().map(|(name, value)| (name.clone(), value.clone())));
            // The crate refuses the name whose meaning is computed here.
            kept = object.remove(GRAPH).map(|value| (free_name(&object), value));
            object.extend(kept.clone());
            let json = serde_json::to_vec(&object).expect("keys are strings");
            given.to_mut().environment.insert(JSON.into(), json);
        }
        let theirs = nix_derivation::Derivation::from_aterm_bytes(&given.print(), self.name.as_str())
            .map_err(|error| refused(error.to_string()))?;
        let outputs = outputs.iter().map(|(name, path)| (name.to_string(), path.to_upstream())).collect();
        let files = theirs
            .structured_attrs_files_with_output_paths(&outputs)
            .map_err(|error| refused(error.to_string()))?
            .ok_or_else(|| refused("__json is not an object".into()))?;
        let Some((name, value)) = kept else {
            return Ok(Some(Attributes { json: files.json, shell: files.shell }));
        };
        let mut object: Object = serde_json::from_slice(&files.json).map_err(|error| refused(error.to_string()))?;
        object.remove(&name);
        object.insert(GRAPH.into(), value);
        let json = serde_json::to_vec(&object).expect("keys are strings");
        let (from, to) = (format!("declare -A {name}="), format!("declare -A {GRAPH}="));
        Ok(Some(Attributes { json, shell: rewritten(files.shell, &[(from, to)]) }))
    }
}

/// A name that no attribute has, and that sorts where the one sorts that it stands for.
fn free_name(object: &Object) -> String {
    let mut name = format!("{GRAPH}_");
    while object.contains_key(&name) {
        name.push('_');
    }
    name
}
