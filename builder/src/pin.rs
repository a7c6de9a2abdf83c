//! From a recipe to its lock: the one step that may look outside.
//!
//! Each kind of input has a module that finds its bytes, says what the lock says about them, and leaves them as files or as a
//! tree for the store to add. NAR digests are the store's to compute: a lock's entry is complete once that is known.

use std::path::PathBuf;

use kiln_model::lock::LockedFile;

pub mod git;
pub mod path;
pub mod pypi;
pub mod url;

/// Files of an input, fetched and checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PinnedFiles {
    /// As the lock lists them, sorted by path.
    pub locked: Vec<LockedFile>,
    /// The name that each has in the input's directory, and where its bytes are in the store's cache.
    pub at: Vec<(String, PathBuf)>,
}

/// A tree that is to be added to the store; removed when this is dropped.
#[derive(Debug)]
pub struct PinnedTree {
    directory: tempfile::TempDir,
}

impl PinnedTree {
    /// A private directory below the store's `tmp`, in which [`PinnedTree::root`] is yet to be made.
    fn below(tmp: &std::path::Path) -> std::io::Result<Self> {
        std::fs::create_dir_all(tmp)?;
        Ok(Self { directory: tempfile::Builder::new().prefix("pin-").tempdir_in(tmp)? })
    }

    /// The tree's root: a directory, or for a path input perhaps a file.
    pub fn root(&self) -> PathBuf {
        self.directory.path().join("tree")
    }
}
