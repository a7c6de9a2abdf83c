//! What a failed build left, kept for a person to enter (`--keep-failed`).

use std::path::PathBuf;

use kiln_model::store_path::StorePath;

use super::error::{StoreError, failed};
use super::session::remove_tree;
use super::{PrivateDir, Store};

impl Store {
    /// Where the build directory of the last kept failure of `derivation` is, or would be.
    pub fn kept_failure(&self, derivation: &StorePath) -> PathBuf {
        self.failed_builds().join(derivation.base_name())
    }

    pub(super) fn failed_builds(&self) -> PathBuf {
        self.root().join("failed")
    }

    /// Moves the private directory of a failed build of `derivation` to a place where it stays until the next one or
    /// `kiln store gc`. Not synced: after a crash of the machine it may be gone.
    pub fn keep_failed(&self, private: &PrivateDir, derivation: &StorePath) -> Result<PathBuf, StoreError> {
        use std::os::unix::fs::DirBuilderExt as _;
        let place = self.kept_failure(derivation);
        let parent = self.failed_builds();
        // 0700: what a build left may be writable by all (CVE-2024-38531, CVE-2025-52992).
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&parent).map_err(failed("creating", &parent))?;
        remove_tree(&place)?;
        std::fs::rename(private.path(), &place).map_err(failed("keeping", private.path()))?;
        Ok(place)
    }
}
