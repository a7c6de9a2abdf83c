//! Who a sandbox is outside: the caller, or for root a leased user that owns nothing else.
//!
//! A slot may also hold a range of further ids, for [`crate::Ids::Range`].
//!
//! Root's sandboxes never run as the host's root. Two sandboxes never share a leased user while both run, so neither
//! can signal, trace or open the other's processes and files. Trees are handed over and taken back by descriptor and
//! without following symlinks, since their content is the payload's.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use kiln_launcher::owner;
use rustix::fs::{FlockOperation, Gid, Uid};
use rustix::io::Errno;

use crate::error::{Refusal, SetupError};
use crate::id_range::{self, COUNT, IdRange};
use crate::reclaim;

/// First of root's outer ids. systemd's table of uid ranges leaves 1 879 048 192 to 2 147 483 647 to no one.
const FIRST: u32 = 2_070_478_848;
/// First where the former are not mapped, as in a container with 65 536 ids.
const FIRST_IN_CONTAINER: u32 = 30_000;
/// How many sandboxes root can run at once.
const SLOTS: u32 = 256;
/// First of root's ranges where /etc/subuid gives it none: the next whole one after the slots.
const FIRST_RANGE: u32 = FIRST + COUNT;
/// How many of those there are.
const RANGES: u32 = 64;

/// No outer identity, or a tree could not change hands.
#[derive(Debug, thiserror::Error)]
pub enum SlotError {
    /// A lock file cannot be used.
    #[error("locking sandbox slot {path}", path = .path.display())]
    Lock {
        /// The lock file or its directory.
        path: PathBuf,
        /// Why.
        #[source]
        error: io::Error,
    },
    /// Every slot is taken.
    #[error("all {SLOTS} sandbox slots in {directory} are in use; wait for other builds", directory = .directory.display())]
    Full {
        /// Where the lock files are.
        directory: PathBuf,
    },
    /// No user id is free to become a slot.
    #[error("no user ids from {FIRST} or {FIRST_IN_CONTAINER} on are mapped here; kiln as root needs {SLOTS} of them")]
    NoIds,
    /// Every range of root's is taken.
    #[error(
        "all {count} ranges of ids for sandboxes are in use; wait for others, or give root more (`usermod --add-subuids`)"
    )]
    NoRange {
        /// How many there are.
        count: u32,
    },
    /// There is no range of ids.
    #[error(transparent)]
    Range(#[from] Refusal),
    /// What a sandbox with a range left could not be taken back.
    #[error("taking back files of a range of ids")]
    Reclaim(#[source] SetupError),
    /// A tree could not change hands.
    #[error("changing the owner of {path}", path = .path.display())]
    Owner {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        #[source]
        error: io::Error,
    },
}

/// One outer identity, held until dropped.
#[derive(Debug)]
pub struct Slot {
    uid: u32,
    gid: u32,
    lock: Option<File>,
    range: Option<IdRange>,
}

impl Slot {
    /// A user's own identity, or for root one that no other kiln holds; `directory` keeps the lock files then.
    pub fn lease(directory: &Path) -> Result<Self, SlotError> {
        let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
        if !uid.is_root() {
            return Ok(Self { uid: uid.as_raw(), gid: gid.as_raw(), lock: None, range: None });
        }
        let (uids, gids) = own_maps();
        let covered = |first: u32| mapped(&uids, first, SLOTS) && mapped(&gids, first, SLOTS);
        let first = [FIRST, FIRST_IN_CONTAINER].into_iter().find(|&first| covered(first)).ok_or(SlotError::NoIds)?;
        match lock_one(directory, "slot", SLOTS)? {
            Some((number, lock)) => {
                Ok(Self { uid: first + number, gid: first + number, lock: Some(lock), range: None })
            }
            None => Err(SlotError::Full { directory: directory.to_owned() }),
        }
    }

    /// The same with a range of ids for [`crate::Ids::Range`]: of /etc/subuid and /etc/subgid, or for root, if they give it
    /// none, of ids that nobody has.
    pub fn lease_range(directory: &Path) -> Result<Self, SlotError> {
        let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
        if !uid.is_root() {
            let (uid, gid) = (uid.as_raw(), gid.as_raw());
            return Ok(Self { uid, gid, lock: None, range: Some(IdRange::of_user(uid, gid)?) });
        }
        let (first_uid, first_gid, count) = root_s_ranges()?;
        match lock_one(directory, "range", count)? {
            Some((number, lock)) => {
                let (uid, gid) = (first_uid + number * COUNT, first_gid + number * COUNT);
                Ok(Self { uid, gid, lock: Some(lock), range: Some(IdRange::of_root(uid, gid)) })
            }
            None => Err(SlotError::NoRange { count }),
        }
    }

    /// The range that it holds.
    pub(crate) fn range(&self) -> Option<&IdRange> {
        self.range.as_ref()
    }

    /// Whether a user of the host is one of its range, and not the slot's own.
    pub fn has_in_range(&self, uid: u32) -> bool {
        self.range.as_ref().is_some_and(|range| range.uids.hold(uid))
    }

    /// The same of a group.
    pub fn has_group_in_range(&self, gid: u32) -> bool {
        self.range.as_ref().is_some_and(|range| range.gids.hold(gid))
    }

    /// The host's user id of the payload.
    pub fn uid(&self) -> u32 {
        self.uid
    }

    /// The host's group id of the payload.
    pub fn gid(&self) -> u32 {
        self.gid
    }

    /// Makes the slot the owner of a tree, before a payload may write to it. For a user, who is the slot, nothing is to be
    /// done.
    pub fn adopt_tree(&self, directory: &Path) -> Result<(), SlotError> {
        self.give(directory, self.uid, self.gid)
    }

    /// Makes the caller the owner again of all that is there, after the sandbox has ended. For a user that concerns files of
    /// the slot's range, if it has one; else nothing is to be done.
    pub fn reclaim_tree(&self, directory: &Path) -> Result<(), SlotError> {
        match (&self.range, &self.lock) {
            (Some(range), None) => reclaim::tree(range, directory).map_err(SlotError::Reclaim),
            (Some(_) | None, _) => self.give(directory, 0, 0),
        }
    }

    fn give(&self, directory: &Path, uid: u32, gid: u32) -> Result<(), SlotError> {
        if self.lock.is_none() {
            return Ok(());
        }
        owner::change(directory, Uid::from_raw(uid), Gid::from_raw(gid))
            .map_err(|(path, errno)| SlotError::Owner { path, error: errno.into() })
    }
}

/// The caller's own maps, of users and of groups.
fn own_maps() -> (String, String) {
    let map = |file| std::fs::read_to_string(file).unwrap_or_default();
    (map("/proc/self/uid_map"), map("/proc/self/gid_map"))
}

/// Root's ranges: first user, first group, how many there are one after the other.
fn root_s_ranges() -> Result<(u32, u32, u32), SlotError> {
    let (uids, gids) = own_maps();
    let given = |file| id_range::ranges(&std::fs::read_to_string(file).unwrap_or_default(), "root", 0);
    let (users, groups) = (given("/etc/subuid"), given("/etc/subgid"));
    let (first_uid, first_gid, count) = if users.is_empty() && groups.is_empty() {
        (FIRST_RANGE, FIRST_RANGE, RANGES)
    } else {
        let whole = |ranges: &[(u32, u32)], file, option| {
            let found = ranges.iter().find(|(_, count)| *count >= COUNT).copied();
            found.ok_or_else(|| id_range::no_line(file, option, "root", COUNT))
        };
        let (uid, users) = whole(&users, "/etc/subuid", "--add-subuids")?;
        let (gid, groups) = whole(&groups, "/etc/subgid", "--add-subgids")?;
        (uid, gid, users.min(groups) / COUNT)
    };
    if !mapped(&uids, first_uid, count * COUNT) || !mapped(&gids, first_gid, count * COUNT) {
        return Err(SlotError::Range(Refusal {
            missing: format!("ids {first_uid} to {} here", u64::from(first_uid) + u64::from(count * COUNT) - 1),
            why: "root's ranges of ids are not mapped in this container".into(),
            remedy: "map more ids into the container, or give its root some of those that are mapped: \
                     `usermod --add-subuids FIRST-LAST --add-subgids FIRST-LAST root`, 65536 of them"
                .into(),
        }));
    }
    Ok((first_uid, first_gid, count))
}

/// Takes the first lock file that nobody has, of so many.
fn lock_one(directory: &Path, name: &str, count: u32) -> Result<Option<(u32, File)>, SlotError> {
    let failed = |path: &Path, error: io::Error| SlotError::Lock { path: path.to_owned(), error };
    std::fs::create_dir_all(directory).map_err(|error| failed(directory, error))?;
    for number in 0..count {
        let path = directory.join(format!("{name}-{number}"));
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(|error| failed(&path, error))?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(Some((number, lock))),
            Err(Errno::WOULDBLOCK) => {}
            Err(errno) => return Err(failed(&path, errno.into())),
        }
    }
    Ok(None)
}

/// Whether a map of /proc covers `count` ids from `first` on: lines of (inside, outside, count).
fn mapped(map: &str, first: u32, wanted: u32) -> bool {
    map.lines().any(|line| {
        let mut numbers = line.split_whitespace().map(|number| number.parse::<u64>().unwrap_or(0));
        let (inside, _, count) = (numbers.next(), numbers.next(), numbers.next());
        let (inside, count) = (inside.unwrap_or(0), count.unwrap_or(0));
        inside <= u64::from(first) && u64::from(first) + u64::from(wanted) <= inside + count
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{CWD, Mode, OFlags};

    #[test]
    fn slots_need_ids_that_are_all_mapped() {
        assert!(mapped("         0          0 4294967295\n", FIRST, SLOTS));
        assert!(mapped("         0          0 4294967295\n", FIRST_RANGE, RANGES * COUNT));
        let container = "0 100000 65536\n";
        assert!(!mapped(container, FIRST, SLOTS));
        assert!(mapped(container, FIRST_IN_CONTAINER, SLOTS) && !mapped(container, FIRST_IN_CONTAINER, COUNT));
        assert!(!mapped("0 1000 1\n", FIRST_IN_CONTAINER, SLOTS));
    }

    #[test]
    fn root_s_slots_are_distinct_while_held_and_never_root() {
        let directory = tempfile::TempDir::new().expect("a directory");
        let first = Slot::lease(directory.path()).expect("free");
        let second = Slot::lease(directory.path()).expect("free");
        assert_ne!(first.uid(), 0);
        if rustix::process::geteuid().is_root() {
            assert_ne!(first.uid(), second.uid());
            let held = first.uid();
            drop(first);
            assert_eq!(Slot::lease(directory.path()).expect("free again").uid(), held);
        } else {
            assert_eq!(first.uid(), second.uid());
        }
    }

    #[test]
    fn a_tree_changes_hands_without_following_links_however_deep_it_is() {
        use std::os::unix::fs::MetadataExt;
        let directory = tempfile::TempDir::new().expect("a directory");
        let (canary, tree) = (directory.path().join("canary"), directory.path().join("tree"));
        std::fs::write(&canary, "").expect("written");
        std::fs::create_dir(&tree).expect("made");
        std::os::unix::fs::symlink(&canary, tree.join("link")).expect("made");
        std::fs::create_dir(tree.join("sibling")).expect("made");
        std::fs::write(tree.join("sibling/file"), "").expect("written");
        // Deeper than PATH_MAX allows by name, and than descriptors would allow one by one.
        let mut at = rustix::fs::openat(CWD, &tree, OFlags::RDONLY, Mode::empty()).expect("opened");
        for _ in 0..3000 {
            rustix::fs::mkdirat(&at, c"d", Mode::from_raw_mode(0o755)).expect("made");
            at = rustix::fs::openat(&at, c"d", OFlags::RDONLY, Mode::empty()).expect("opened");
        }
        let slot = Slot::lease(&directory.path().join("slots")).expect("free");
        slot.adopt_tree(&tree).expect("given");
        let owner = |path: &Path| std::fs::symlink_metadata(path).expect("there").uid();
        assert_eq!(owner(&tree.join("sibling/file")), slot.uid());
        assert_eq!(owner(&tree.join("link")), slot.uid());
        assert_eq!(rustix::fs::fstat(&at).expect("there").st_uid, slot.uid());
        let caller = rustix::process::geteuid().as_raw();
        assert_eq!(owner(&canary), caller);
        slot.reclaim_tree(&tree).expect("taken back");
        assert_eq!(owner(&tree.join("sibling/file")), caller);
        assert_eq!(rustix::fs::fstat(&at).expect("there").st_uid, caller);
    }
}
