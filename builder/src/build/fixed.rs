//! Whether a fixed output is the one that was promised.

use std::collections::BTreeMap;
use std::path::Path;

use data_encoding::BASE64;
use kiln_model::derivation::{Derivation, Output};
use kiln_model::name::{Name, Variable};
use kiln_model::rewrite::Rewrites;
use kiln_model::store_path::Method;

use super::{BuildError, io};
use crate::nix::content_digest;
use crate::store::Draft;

/// Holds what a fixed output's build made against its digest; the inner error is the build's own fault.
pub(super) fn hold(
    derivation: &Derivation,
    drafts: &BTreeMap<Variable, Draft>,
) -> Result<Result<(), String>, BuildError> {
    for (name, output) in &derivation.outputs {
        let Output::Fixed { method, algorithm, digest, .. } = output else { continue };
        let Some((_, draft)) = drafts.iter().find(|(made, _)| made.as_str() == name.as_str()) else { continue };
        if let Some(reference) = draft.references().first() {
            return Ok(Err(format!(
                "output {name} has a fixed digest and names {reference}: it may name no store path"
            )));
        }
        let tree = draft.path();
        if *method == Method::Flat
            && let Err(message) = is_flat(name, tree)?
        {
            return Ok(Err(message));
        }
        let found = content_digest(tree, *method, *algorithm, &Rewrites::default())?;
        if found != *digest {
            let spelled = |digest: &[u8]| format!("{algorithm}-{}", BASE64.encode(digest));
            return Ok(Err(format!(
                "output {name} is {}, and its derivation says {}: either the source has changed or the digest is wrong",
                spelled(&found),
                spelled(digest)
            )));
        }
    }
    Ok(Ok(()))
}

/// Whether a flat digest can be taken of `tree`; the inner error is the build's own fault.
pub(super) fn is_flat(name: &Name, tree: &Path) -> Result<Result<(), String>, BuildError> {
    let metadata = tree.symlink_metadata().map_err(io("looking at", tree))?;
    let executable = std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o100 != 0;
    if !metadata.is_file() || executable {
        return Ok(Err(format!("output {name} has a flat digest: expected a file that is not executable")));
    }
    Ok(Ok(()))
}
