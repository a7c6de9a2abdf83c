//! Directories, lent to a sandbox for the time of one command.
//!
//! Root's sandboxes run as a user that owns nothing, so that user must own what it may write to; and a range of ids leaves
//! files of many owners. Only a tree that is wholly the caller's own is lent then: what changed hands could not be told from
//! what had another owner before. What a range left when kiln was killed is taken back first.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use kiln_sandbox::{Ids, Slot};
use rustix::fs::FlockOperation;
use rustix::io::Errno;

use super::CommandError;

/// Directories that a slot owns until they are taken back.
pub(super) struct Lent<'s> {
    slot: &'s Slot,
    trees: Vec<PathBuf>,
    /// Where there is a range: nobody else's may be in the same trees meanwhile, or one would take back the other's files.
    locks: BTreeMap<(u64, u64), File>,
}

impl<'s> Lent<'s> {
    /// Checks all before the first changes hands. For a user nothing is to be done.
    pub(super) fn lend<'p>(
        slot: &'s Slot,
        ids: Ids,
        trees: impl Iterator<Item = &'p Path>,
    ) -> Result<Self, CommandError> {
        let mut lent = Self { slot, trees: Vec::new(), locks: BTreeMap::new() };
        let trees: Vec<PathBuf> = trees.map(Path::to_owned).collect();
        match (rustix::process::geteuid().is_root(), ids) {
            (true, _) => trees.iter().try_for_each(|tree| check(tree))?,
            (false, Ids::Range) => {
                for tree in &trees {
                    lent.lock(tree)?;
                    if let Owners::OfRange = owners(tree, slot)? {
                        slot.reclaim_tree(tree)?;
                        owners(tree, slot)?;
                    }
                }
            }
            (false, Ids::One { .. } | Ids::FakeRoot) => return Ok(lent),
        }
        for tree in trees {
            lent.trees.push(tree.clone());
            slot.adopt_tree(&tree)?;
        }
        Ok(lent)
    }

    fn lock(&mut self, tree: &Path) -> Result<(), CommandError> {
        let unreadable = |error| CommandError::Source { path: tree.to_owned(), error };
        let directory = File::open(tree).map_err(unreadable)?;
        let found = directory.metadata().map_err(unreadable)?;
        let identity = (found.dev(), found.ino());
        if self.locks.contains_key(&identity) {
            return Ok(());
        }
        match rustix::fs::flock(&directory, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => drop(self.locks.insert(identity, directory)),
            Err(Errno::WOULDBLOCK) => {
                let why = "another sandbox with a range of ids uses it".to_owned();
                return Err(CommandError::NotWhollyOwn { path: tree.to_owned(), why });
            }
            Err(errno) => return Err(unreadable(errno.into())),
        }
        Ok(())
    }

    /// Gives them all back to the caller.
    pub(super) fn take_back(mut self) -> Result<(), CommandError> {
        std::mem::take(&mut self.trees).iter().try_for_each(|tree| Ok(self.slot.reclaim_tree(tree)?))
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        for tree in &self.trees {
            // Reached only on the way out with another error, which is the one to tell.
            let _ = self.slot.reclaim_tree(tree);
        }
    }
}

/// Whose files a user's tree holds, besides the user's own.
enum Owners {
    Nobody,
    OfRange,
}

/// Every file is the caller's own or of the slot's range, in the caller's own group or the range's, and no setuid program.
fn owners(top: &Path, slot: &Slot) -> Result<Owners, CommandError> {
    let refuse = |path: &Path, why: String| CommandError::NotWhollyOwn { path: path.to_owned(), why };
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let mut left = vec![top.to_owned()];
    while let Some(path) = left.pop() {
        let file = path.symlink_metadata().map_err(|error| CommandError::Source { path: path.clone(), error })?;
        if slot.has_in_range(file.uid()) || slot.has_group_in_range(file.gid()) {
            return Ok(Owners::OfRange);
        }
        if (file.uid(), file.gid()) != (uid, gid) {
            let why = format!("it belongs to {}:{}, and all of it must be of {uid}:{gid}", file.uid(), file.gid());
            return Err(refuse(&path, why));
        }
        if file.is_file() && file.mode() & 0o6000 != 0 {
            return Err(refuse(&path, "it is a setuid program".into()));
        }
        if file.is_dir() {
            let entries = path.read_dir().map_err(|error| CommandError::Source { path: path.clone(), error })?;
            left.extend(entries.flatten().map(|entry| entry.path()));
        }
    }
    Ok(Owners::Nobody)
}

/// Every file is root's own, has no other name, and is no setuid program: chown(2) would strip that.
fn check(top: &Path) -> Result<(), CommandError> {
    let refuse = |path: &Path, why: String| CommandError::NotLendable { path: path.to_owned(), why };
    if top.canonicalize().is_ok_and(|real| real == Path::new("/")) {
        return Err(refuse(top, "it is the host's root".into()));
    }
    let mut left = vec![top.to_owned()];
    while let Some(path) = left.pop() {
        let file = path.symlink_metadata().map_err(|error| CommandError::Source { path: path.clone(), error })?;
        if file.uid() != 0 {
            return Err(refuse(&path, format!("it belongs to user {}, and all of it must be root's", file.uid())));
        }
        if file.is_file() && (file.nlink() > 1 || file.mode() & 0o6000 != 0) {
            return Err(refuse(&path, "it has further hard links or is a setuid program".into()));
        }
        if file.is_dir() {
            let entries = path.read_dir().map_err(|error| CommandError::Source { path: path.clone(), error })?;
            left.extend(entries.flatten().map(|entry| entry.path()));
        }
    }
    Ok(())
}
