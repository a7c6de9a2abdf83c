//! Our build type: what the parameters of a kiln build mean (docs/attestation.md).
//!
//! `externalParameters` are what whoever asked for the build chose, and only that: the recipe, which of its outputs, and
//! parameters by name. Digests of it all are among the resolved dependencies.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The `buildType`.
pub const BUILD_TYPE: &str = "https://kiln.build/build/v1";

/// All members that `externalParameters` may have.
pub(super) const MEMBERS: [&str; 3] = ["recipe", "target", "parameters"];

/// The internal parameter that says where the signing key was.
pub const SIGNER: &str = "signer";

/// What whoever asked for a build chose.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct External {
    /// The recipe: `git+https://…@REF#PATH`, or a purl.
    pub recipe: String,
    /// Which output.
    pub target: String,
    /// Values that were given, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub parameters: BTreeMap<String, String>,
}

/// Where the signing key was while the build ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Signer {
    /// Out of its reach: in a process that runs no recipe's code, under another uid or on another host.
    Separate,
    /// Not known to be.
    Same,
}
