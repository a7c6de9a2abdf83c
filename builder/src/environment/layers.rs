//! The two layers of a lock, made or found in the store.
//!
//! A layer whose digest the lock has is taken from the store's materialised environments; otherwise it is made in a
//! private directory, digested, held against the lock, and only then moved into its place. So nothing half made and
//! nothing that the lock does not name is ever found there.

use std::ffi::CString;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use kiln_model::digest::NarHash;
use kiln_model::lock::{Layer, LockedEnvironment};
use kiln_model::tree::{Manifest, differences};

use super::{Assembler, EnvironmentError, Package};
use crate::store::{Digests, Origin, Source, Store, TreeLimits};

/// How many differing files an error names.
const NAMED: usize = 20;

/// An environment in the store.
#[derive(Debug, Clone)]
pub struct Assembled {
    /// Where it lies, to be mounted as `/`: 0644 or 0755, one fixed time.
    pub tree: PathBuf,
    /// Its digest.
    pub nar_hash: NarHash,
    /// Digest of its base layer.
    pub base: NarHash,
    /// What is in it; `None` if it was in the store already.
    pub manifest: Option<Manifest>,
}

/// What a layer must come out as.
#[derive(Debug, Clone, Copy, Default)]
pub struct Expected<'a> {
    /// Digest of the base layer, from the lock; `None` while the lock is being made.
    pub base: Option<NarHash>,
    /// Digest of the whole, from the lock; `None` while the lock is being made.
    pub nar_hash: Option<NarHash>,
    /// What whoever made the lock found in the whole, if known: names the files that differ.
    pub manifest: Option<&'a Manifest>,
}

impl From<&LockedEnvironment> for Expected<'static> {
    fn from(locked: &LockedEnvironment) -> Self {
        Self { base: Some(locked.base), nar_hash: Some(locked.nar_hash), manifest: None }
    }
}

struct Made {
    tree: PathBuf,
    nar_hash: NarHash,
    manifest: Option<Manifest>,
}

impl Assembler<'_> {
    /// The environment of `packages` in `store`: found there, or made, checked and added. It is held for this store
    /// session. Idempotent; several processes may do it at once, and the first one's tree stays.
    pub fn assemble(
        &self,
        store: &Store,
        packages: &[Package<'_>],
        expected: Expected<'_>,
    ) -> Result<Assembled, EnvironmentError> {
        let of = |layer| packages.iter().filter(move |package| package.locked.layer == layer).cloned();
        let (below, above): (Vec<_>, Vec<_>) = (of(Layer::Base).collect(), of(Layer::Delta).collect());
        if let (Some(nar_hash), Some(base)) = (expected.nar_hash, expected.base)
            && let Some(tree) = store.environment(&nar_hash, self.trust)?
        {
            return Ok(Assembled { tree, nar_hash, base, manifest: None });
        }
        let manifest = expected.manifest.filter(|_| above.is_empty());
        let expected_base = Expected { base: expected.base, nar_hash: expected.base, manifest };
        let base = self.layer(store, Layer::Base, expected_base, |into| self.base(&below, into))?;
        let whole = match above.is_empty() {
            true => Made { tree: base.tree, nar_hash: base.nar_hash, manifest: base.manifest },
            false => self.layer(store, Layer::Delta, expected, |into| self.delta(&base.tree, &above, into))?,
        };
        if let Some(expected) = expected.nar_hash.filter(|expected| *expected != whole.nar_hash) {
            // Only without a delta: the lock then gives one tree two digests.
            let found = whole.nar_hash;
            return Err(EnvironmentError::Mismatch { layer: "environment", expected, found, files: Vec::new() });
        }
        Ok(Assembled { tree: whole.tree, nar_hash: whole.nar_hash, base: base.nar_hash, manifest: whole.manifest })
    }

    fn layer(
        &self,
        store: &Store,
        layer: Layer,
        expected: Expected<'_>,
        make: impl FnOnce(&Path) -> Result<(), EnvironmentError>,
    ) -> Result<Made, EnvironmentError> {
        if let Some(nar_hash) = expected.nar_hash
            && let Some(tree) = store.environment(&nar_hash, self.trust)?
        {
            return Ok(Made { tree, nar_hash, manifest: None });
        }
        let private = store.private_dir()?;
        let made = private.path().join("root");
        make(&made)?;
        let (nar_hash, manifest) = digest(private.path(), &made)?;
        if let Some(wanted) = expected.nar_hash.filter(|wanted| *wanted != nar_hash) {
            let layer = match layer {
                Layer::Base => "base layer",
                Layer::Delta => "environment",
            };
            let differing = match (expected.manifest, &manifest) {
                (Some(reference), Some(manifest)) => differences(reference, manifest),
                _ => Vec::new(),
            };
            let files = differing.iter().take(NAMED).map(|difference| difference.path.to_string()).collect();
            return Err(EnvironmentError::Mismatch { layer, expected: wanted, found: nar_hash, files });
        }
        Ok(Made { tree: store.add_environment(&nar_hash, &made)?, nar_hash, manifest })
    }
}

fn digest(directory: &Path, tree: &Path) -> Result<(NarHash, Option<Manifest>), EnvironmentError> {
    let held =
        std::fs::File::open(directory).map_err(|source| EnvironmentError::Read { path: directory.into(), source })?;
    let name = CString::from(c"root");
    let source = Source { directory: held.as_fd(), name: &name, shown: tree, origin: Origin::Given };
    let (nar_hash, _, manifest) = Store::digest_tree(source, Digests::NarAndFiles, TreeLimits::default())?;
    Ok((nar_hash, manifest))
}
