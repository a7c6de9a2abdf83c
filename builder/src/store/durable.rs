//! Writes that survive a crash: all of a file or nothing, under its name or not at all.
//!
//! A file is written under a private name, synced, renamed, and its directory is synced: rename(2) is atomic, but neither
//! it nor the bytes are on the disk before fsync(2) of the file and of the directory ("Calling fsync() does not necessarily
//! ensure that the entry in the directory containing the file has also reached disk", fsync(2)). Whole trees are synced by
//! one syncfs(2) instead of an fsync per file: a tree of 20 000 files would otherwise be 20 000 commits of the journal.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::error::{StoreError, failed};
use super::session::Session;

/// Writes `bytes` as `path`, replacing what is there. On return they are on the disk.
pub(super) fn write(session: &Session, path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let temporary = session.private_name();
    let written = (|| {
        let mut file = File::create_new(&temporary).map_err(failed("creating", &temporary))?;
        file.write_all(bytes).map_err(failed("writing", &temporary))?;
        file.set_permissions(std::fs::Permissions::from_mode(0o444)).map_err(failed("writing", &temporary))?;
        file.sync_all().map_err(failed("syncing", &temporary))?;
        rename(&temporary, path)
    })();
    if written.is_err() {
        // The error that matters is the first one; a leftover goes with the session.
        std::fs::remove_file(&temporary).ok();
    }
    written
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
