//! What this store remembers of environments beside their trees: which packages made them, and their files, so that one
//! that comes out otherwise can be told file by file.
//!
//! Both are conveniences beside a digest: they are checked against nothing and decide nothing.

use std::fs::File;
use std::path::{Path, PathBuf};

use kiln_model::digest::{Digest, NarHash};
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

    /// The environment that a layer with this provenance became when it was last assembled here. A hint: the environment
    /// itself is found, and held against its digest, by that.
    pub fn assembly(&self, provenance: &Digest) -> Result<Option<NarHash>, StoreError> {
        let path = self.assembly_path(provenance);
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok(text.trim_end().parse().ok()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed("reading", &path)(error)),
        }
    }

    /// Remembers what [`Store::assembly`] says.
    pub fn keep_assembly(&self, provenance: &Digest, nar_hash: &NarHash) -> Result<(), StoreError> {
        durable::write(&self.session, &self.assembly_path(provenance), format!("{nar_hash}\n").as_bytes())
    }

    fn assembly_path(&self, provenance: &Digest) -> PathBuf {
        self.layout.environments().join(format!("{provenance}.assembly"))
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
