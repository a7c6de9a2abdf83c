//! Lists of the files of environments, so that one that comes out otherwise can be told file by file.
//!
//! A list is a convenience beside the digest that it belongs to: it is checked against nothing and decides nothing.

use std::fs::File;
use std::path::{Path, PathBuf};

use kiln_model::digest::NarHash;
use kiln_model::tree::Manifest;

use super::add::split;
use super::copy::{Origin, Source, TreeLimits};
use super::digester::Digests;
use super::error::{StoreError, failed};
use super::{Store, durable};
use std::os::fd::AsFd as _;

impl Store {
    /// Digest, NAR size and, if asked for, the entries of the directory at `path`, wherever it lies.
    pub fn digest_directory(
        &self,
        path: &Path,
        digests: Digests,
    ) -> Result<(NarHash, u64, Option<Manifest>), StoreError> {
        let (directory, name): (File, _) = split(path)?;
        let source = Source { directory: directory.as_fd(), name: &name, shown: path, origin: Origin::Given };
        Self::digest_tree(source, digests, TreeLimits::default())
    }

    /// Where the list of the environment with this digest is, or would be.
    pub fn manifest_path(&self, nar_hash: &NarHash) -> PathBuf {
        self.layout.environment(nar_hash).with_extension("manifest")
    }

    /// Keeps the list of an environment's files; it stays when the environment is collected.
    pub fn keep_manifest(&self, nar_hash: &NarHash, manifest: &Manifest) -> Result<(), StoreError> {
        durable::write(&self.session, &self.manifest_path(nar_hash), &manifest.print())
    }

    /// The list of an environment's files, if this store has ever assembled it; one that cannot be read counts as none.
    pub fn manifest(&self, nar_hash: &NarHash) -> Result<Option<Manifest>, StoreError> {
        let path = self.manifest_path(nar_hash);
        match std::fs::read(&path) {
            Ok(bytes) => Ok(Manifest::parse(&bytes).ok()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed("reading", &path)(error)),
        }
    }
}
