//! Writes that are on the disk when they are done: all of a file or nothing, under its name or not at all.
//!
//! A file is written under a private name, synced, renamed, and its directory is synced: rename(2) is atomic, but neither
//! it nor the bytes are on the disk before fsync(2) of the file and of the directory ("Calling fsync() does not necessarily
//! ensure that the entry in the directory containing the file has also reached disk", fsync(2)). This is for what must not
//! wait for the end of a turn (`turn`), which is the cheaper way: roots, and what ends validity. Whole trees are synced by one
//! syncfs(2) instead of an fsync per file: a tree of 20 000 files would otherwise be 20 000 commits of the journal.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::error::{StoreError, failed};
use super::session::Session;

/// A file under a private name, gone when dropped unless it was renamed.
pub(super) struct Unnamed {
    path: PathBuf,
    file: File,
}

impl Unnamed {
    pub(super) fn of(session: &Session, bytes: &[u8]) -> Result<Self, StoreError> {
        let path = session.private_name();
        let file = File::create_new(&path).map_err(failed("creating", &path))?;
        let mut unnamed = Self { path, file };
        let readable = std::fs::Permissions::from_mode(0o444);
        let written = unnamed.file.write_all(bytes).and_then(|()| unnamed.file.set_permissions(readable));
        written.map_err(failed("writing", &unnamed.path))?;
        Ok(unnamed)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Unnamed {
    fn drop(&mut self) {
        // Nothing is there if it was renamed; what cannot be removed goes with the session.
        std::fs::remove_file(&self.path).ok();
    }
}

/// Writes `bytes` as `path`, replacing what is there. On return they are on the disk.
pub(super) fn write(session: &Session, path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let unnamed = Unnamed::of(session, bytes)?;
    unnamed.file.sync_all().map_err(failed("syncing", unnamed.path()))?;
    rename(unnamed.path(), path)
}

/// Renames and syncs the directory that now has the name.
pub(super) fn rename(from: &Path, to: &Path) -> Result<(), StoreError> {
    std::fs::rename(from, to).map_err(failed("renaming to", to))?;
    sync_parent(to)
}

/// Removes a file, if it is there, and syncs its directory.
pub(super) fn remove(path: &Path) -> Result<(), StoreError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        removed => {
            removed.map_err(failed("removing", path))?;
            sync_parent(path)
        }
    }
}

fn sync_parent(path: &Path) -> Result<(), StoreError> {
    let parent = path.parent().expect("paths of the store have a parent");
    File::open(parent).and_then(|directory| directory.sync_all()).map_err(failed("syncing", parent))
}

/// Syncs everything on the store's file system.
pub(super) fn sync_all(root: &Path) -> Result<(), StoreError> {
    let directory = File::open(root).map_err(failed("opening", root))?;
    rustix::fs::syncfs(&directory).map_err(failed("syncing", root))
}
