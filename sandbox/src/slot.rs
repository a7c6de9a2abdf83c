//! Who a sandbox is outside: the caller, or for root a leased user that owns nothing else.
//!
//! Root's sandboxes never run as the host's root. Two sandboxes never share a leased user while both run, so neither
//! can signal, trace or open the other's processes and files. Trees are handed over and taken back by descriptor and
//! without following symlinks, since their content is the payload's.

use std::ffi::{CString, OsString};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dir, FileType, FlockOperation, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;

/// First of root's outer ids. systemd's table of uid ranges leaves 1 879 048 192 to 2 147 483 647 to no one.
const FIRST: u32 = 2_070_478_848;
/// First where the former are not mapped, as in a container with 65 536 ids.
const FIRST_IN_CONTAINER: u32 = 30_000;
/// How many sandboxes root can run at once.
const SLOTS: u32 = 256;

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
}

impl Slot {
    /// A user's own identity, or for root one that no other kiln holds; `directory` keeps the lock files then.
    pub fn lease(directory: &Path) -> Result<Self, SlotError> {
        let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
        if !uid.is_root() {
            return Ok(Self { uid: uid.as_raw(), gid: gid.as_raw(), lock: None });
        }
        let map = |file| std::fs::read_to_string(file).unwrap_or_default();
        let (uids, gids) = (map("/proc/self/uid_map"), map("/proc/self/gid_map"));
        let first = [FIRST, FIRST_IN_CONTAINER]
            .into_iter()
            .find(|&first| mapped(&uids, first) && mapped(&gids, first))
            .ok_or(SlotError::NoIds)?;
        let failed = |path: &Path, error: io::Error| SlotError::Lock { path: path.to_owned(), error };
        std::fs::create_dir_all(directory).map_err(|error| failed(directory, error))?;
        for number in 0..SLOTS {
            let path = directory.join(format!("slot-{number}"));
            let lock = File::options()
                .create(true)
                .truncate(false)
                .write(true)
                .open(&path)
                .map_err(|error| failed(&path, error))?;
            match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {
                    return Ok(Self { uid: first + number, gid: first + number, lock: Some(lock) });
                }
                Err(Errno::WOULDBLOCK) => {}
                Err(errno) => return Err(failed(&path, errno.into())),
            }
        }
        Err(SlotError::Full { directory: directory.to_owned() })
    }

    /// The host's user id of the payload.
    pub fn uid(&self) -> u32 {
        self.uid
    }

    /// The host's group id of the payload.
    pub fn gid(&self) -> u32 {
        self.gid
    }

    /// Makes the slot the owner of a tree, before a payload may write to it. For a user nothing is to be done.
    pub fn adopt_tree(&self, directory: &Path) -> Result<(), SlotError> {
        self.give(directory, self.uid, self.gid)
    }

    /// Makes the caller the owner again, after the sandbox has ended. For a user nothing is to be done.
    pub fn reclaim_tree(&self, directory: &Path) -> Result<(), SlotError> {
        self.give(directory, 0, 0)
    }

    fn give(&self, directory: &Path, uid: u32, gid: u32) -> Result<(), SlotError> {
        if self.lock.is_none() {
            return Ok(());
        }
        change_owner(directory, Uid::from_raw(uid), Gid::from_raw(gid))
            .map_err(|(path, errno)| SlotError::Owner { path, error: errno.into() })
    }
}

/// Whether a map of /proc covers all slots from `first` on: lines of (inside, outside, count).
fn mapped(map: &str, first: u32) -> bool {
    map.lines().any(|line| {
        let mut numbers = line.split_whitespace().map(|number| number.parse::<u64>().unwrap_or(0));
        let (inside, _, count) = (numbers.next(), numbers.next(), numbers.next());
        let (inside, count) = (inside.unwrap_or(0), count.unwrap_or(0));
        inside <= u64::from(first) && u64::from(first + SLOTS) <= inside + count
    })
}

/// A directory on the way: its identity, to be checked when coming back up, and what is left to enter.
struct Level {
    identity: (u64, u64),
    name: CString,
    left: Vec<CString>,
}

/// Walks without recursion and with two descriptors, however deep the payload made it.
fn change_owner(top: &Path, uid: Uid, gid: Gid) -> Result<(), (PathBuf, Errno)> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let whole = |errno| (top.to_owned(), errno);
    let mut at = rustix::fs::openat(CWD, top, flags, Mode::empty()).map_err(whole)?;
    rustix::fs::fchown(&at, Some(uid), Some(gid)).map_err(whole)?;
    let mut levels: Vec<Level> = Vec::new();
    let mut level = enter(&at, CString::default(), uid, gid).map_err(|(name, errno)| (top.join(name), errno))?;
    loop {
        let here = |levels: &[Level], level: &Level| {
            let mut path = top.to_owned();
            for name in levels.iter().map(|level| &level.name).chain([&level.name]) {
                path.push(OsString::from_vec(name.to_bytes().to_vec()));
            }
            path
        };
        if let Some(name) = level.left.pop() {
            let below =
                rustix::fs::openat(&at, &name, flags, Mode::empty()).map_err(|errno| (here(&levels, &level), errno))?;
            let next =
                enter(&below, name, uid, gid).map_err(|(name, errno)| (here(&levels, &level).join(name), errno))?;
            levels.push(std::mem::replace(&mut level, next));
            at = below;
        } else if let Some(above) = levels.pop() {
            let up =
                rustix::fs::openat(&at, c"..", flags, Mode::empty()).map_err(|errno| (here(&levels, &above), errno))?;
            // Nobody can have moved it, since the payload does not run; if somebody did, stop.
            if identity(&up).map_err(|errno| (here(&levels, &above), errno))? != above.identity {
                return Err((here(&levels, &above), Errno::STALE));
            }
            at = up;
            level = above;
        } else {
            return Ok(());
        }
    }
}

fn enter(at: &OwnedFd, name: CString, uid: Uid, gid: Gid) -> Result<Level, (PathBuf, Errno)> {
    let mut left = Vec::new();
    let failed = |errno| (PathBuf::new(), errno);
    let mut entries = Dir::read_from(at).map_err(failed)?;
    while let Some(entry) = entries.read() {
        let entry = entry.map_err(failed)?;
        let child = entry.file_name();
        if child == c"." || child == c".." {
            continue;
        }
        let named = |errno| (PathBuf::from(OsString::from_vec(child.to_bytes().to_vec())), errno);
        rustix::fs::chownat(at, child, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW).map_err(named)?;
        let kind = match entry.file_type() {
            FileType::Unknown => {
                let stat = rustix::fs::statat(at, child, AtFlags::SYMLINK_NOFOLLOW).map_err(named)?;
                FileType::from_raw_mode(stat.st_mode)
            }
            known => known,
        };
        if kind == FileType::Directory {
            left.push(child.to_owned());
        }
    }
    Ok(Level { identity: identity(at).map_err(failed)?, name, left })
}

fn identity(at: &OwnedFd) -> Result<(u64, u64), Errno> {
    rustix::fs::fstat(at).map(|stat| (stat.st_dev, stat.st_ino))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_need_ids_that_are_all_mapped() {
        assert!(mapped("         0          0 4294967295\n", FIRST));
        let container = "0 100000 65536\n";
        assert!(!mapped(container, FIRST));
        assert!(mapped(container, FIRST_IN_CONTAINER));
        assert!(!mapped("0 1000 1\n", FIRST_IN_CONTAINER));
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
