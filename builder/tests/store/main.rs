//! The store's promises: nothing half-valid, nothing lost, nothing taken that should not be.

#![expect(clippy::unwrap_used, reason = "a scene that cannot be set up fails its test")]

mod collection;
mod integrity;
mod outputs;
mod places;
mod power;
mod random_trees;
mod refusals;
mod trees;

use std::collections::BTreeSet;
use std::ffi::CString;
use std::fs::{self, File};
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use kiln::store::{Origin, Refusal, Source, Store, StoreError, Taken, TreeError, TreeLimits};
use kiln_model::digest::Digest;
use kiln_model::name::Name;
use kiln_model::store_path::StorePath;

struct Scene {
    directory: tempfile::TempDir,
}

impl Scene {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    fn root(&self) -> PathBuf {
        self.directory.path().join("store")
    }

    fn open(&self) -> Store {
        Store::open(&self.root()).unwrap()
    }

    /// An empty directory for a build to leave things in.
    fn output(&self, name: &str) -> PathBuf {
        let path = self.directory.path().join(name);
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    fn tree(&self, name: &str) -> PathBuf {
        let path = self.output(name);
        fs::create_dir(path.join("bin")).unwrap();
        fs::write(path.join("bin/run"), b"#!/bin/sh\n").unwrap();
        fs::set_permissions(path.join("bin/run"), fs::Permissions::from_mode(0o700)).unwrap();
        fs::write(path.join("data"), vec![b'x'; 700_000]).unwrap();
        symlink("bin/run", path.join("link")).unwrap();
        path
    }
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn path(text: &str) -> StorePath {
    text.parse().unwrap()
}

fn output_path() -> StorePath {
    path("/nix/store/1ncm7wbm5d286vjcmdnyqwwkndbl28s6-hello")
}

fn derivation() -> StorePath {
    path("/nix/store/bj7a77xyh1gjmfa2618lflmq0im8bl0s-hello.drv")
}

fn take(store: &Store, tree: &Path) -> Result<Taken, StoreError> {
    take_with(store, tree, &BTreeSet::new(), TreeLimits::default())
}

fn take_with(
    store: &Store,
    tree: &Path,
    candidates: &BTreeSet<StorePath>,
    limits: TreeLimits,
) -> Result<Taken, StoreError> {
    let directory = File::open(tree.parent().unwrap()).unwrap();
    let base = CString::new(tree.file_name().unwrap().as_bytes()).unwrap();
    let source = Source { directory: directory.as_fd(), name: &base, shown: tree, origin: Origin::Built };
    store.take_output(source, candidates, limits)
}

fn refusal(result: Result<Taken, StoreError>) -> (String, Refusal) {
    match result {
        Err(StoreError::Tree(TreeError::Refused { entry, what })) => (entry.to_string(), what),
        other => panic!("{other:?}"),
    }
}

fn outcome(derivation: &StorePath, taken: &Taken) -> Vec<u8> {
    format!(
        r#"{{"status":"built","derivation":"{derivation}","outputs":{{"out":{{"path":"{}","nar_hash":"{}"}}}}}}"#,
        output_path(),
        taken.nar_hash
    )
    .into_bytes()
}

/// The crate's own digest of a tree on disk.
fn crate_digest(path: &Path) -> (u64, Digest) {
    let hash = nix_archive::nar::hash_path(path, nix_archive::nar::CaseHack::Disabled).unwrap();
    (hash.size, Digest::from_bytes(hash.sha256))
}

fn leftovers(store: &Store) -> Vec<PathBuf> {
    fs::read_dir(store.root().join("tmp")).unwrap().map(|entry| entry.unwrap().path()).collect()
}
