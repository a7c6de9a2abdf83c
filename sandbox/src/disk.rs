//! How much a sandbox's writable directories hold, looked at while the payload changes them.
//!
//! Walks by descriptor, follows nothing, leaves the file system never, and takes as gone what vanishes on the way. Its
//! memory grows with the number of directories that are entered at once, not with the number of files.
//!
//! # Limits
//! Not seen: what the payload hides from its own user (a directory without rights) and files that it deleted but keeps
//! open. Those are bounded by size of file × open files × processes only.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::plan::Plan;

/// What was counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Held {
    /// Bytes of blocks in use, so that a hole counts nothing.
    bytes: u64,
    /// Files and directories.
    inodes: u64,
}

impl std::ops::Add for Held {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { bytes: self.bytes.saturating_add(other.bytes), inodes: self.inodes.saturating_add(other.inodes) }
    }
}

/// The bound on the writable directories.
#[derive(Debug)]
pub(crate) struct Disk {
    directories: Vec<PathBuf>,
    most: Option<Held>,
}

impl Disk {
    /// Counts what is there already, if there is a bound.
    pub(crate) fn new(plan: &Plan) -> Self {
        let mut disk = Self { directories: plan.writable.clone(), most: None };
        let (bytes, inodes) = (plan.limits.disk_bytes, plan.limits.disk_inodes);
        if bytes.is_some() || inodes.is_some() {
            let before = disk.held(&|_| false);
            disk.most = Some(Held {
                bytes: bytes.map_or(u64::MAX, |bytes| before.bytes.saturating_add(bytes)),
                inodes: inodes.map_or(u64::MAX, |inodes| before.inodes.saturating_add(inodes)),
            });
        }
        disk
    }

    /// Whether there is a bound.
    pub(crate) fn is_bounded(&self) -> bool {
        self.most.is_some()
    }

    /// Whether more is there now.
    pub(crate) fn is_exceeded(&self) -> bool {
        self.most.is_some_and(|most| {
            let beyond = |held: Held| held.bytes > most.bytes || held.inodes > most.inodes;
            beyond(self.held(&beyond))
        })
    }

    fn held(&self, enough: &dyn Fn(Held) -> bool) -> Held {
        let mut sum = Held::default();
        for directory in &self.directories {
            let held = held(directory, &|held| enough(sum + held));
            sum = sum + held;
        }
        sum
    }
}

/// A walk goes no deeper: every level keeps a descriptor.
const DEEPEST: usize = 512;

/// Counts what is below `top`, at most until `enough` says so.
fn held(top: &Path, enough: &dyn Fn(Held) -> bool) -> Held {
    let mut held = Held::default();
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let Ok(first) = rustix::fs::openat(CWD, top, flags, Mode::empty()).and_then(Level::enter) else {
        return held;
    };
    let device = first.device;
    let mut levels = vec![first];
    while let Some(level) = levels.last_mut() {
        let Some(entry) = level.entries.read() else {
            levels.pop();
            continue;
        };
        // An error ends this directory: it was removed, or is the payload's to break.
        let Ok(entry) = entry else {
            levels.pop();
            continue;
        };
        let name: CString = entry.file_name().to_owned();
        if name.as_c_str() == c"." || name.as_c_str() == c".." {
            continue;
        }
        let Ok(stat) = rustix::fs::statat(level.directory.as_fd(), &name, AtFlags::SYMLINK_NOFOLLOW) else {
            continue;
        };
        held.inodes += 1;
        // A file with several names counts for each of them as its share.
        let directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        let names = if directory { 1 } else { stat.st_nlink.max(1) };
        held.bytes += (stat.st_blocks as u64 * 512) / names;
        if enough(held) {
            return held;
        }
        let enters = directory && stat.st_dev == device && levels.len() < DEEPEST;
        if enters
            && let Some(level) = levels.last()
            && let Ok(below) = rustix::fs::openat(level.directory.as_fd(), &name, flags, Mode::empty())
            && let Ok(below) = Level::enter(below)
        {
            levels.push(below);
        }
    }
    held
}

struct Level {
    directory: OwnedFd,
    entries: Dir,
    device: u64,
}

impl Level {
    fn enter(directory: OwnedFd) -> Result<Self, Errno> {
        let device = rustix::fs::fstat(&directory)?.st_dev;
        Ok(Self { entries: Dir::read_from(&directory)?, directory, device })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_and_inodes_are_counted_and_holes_and_links_out_are_not() {
        let directory = tempfile::TempDir::new().expect("a directory");
        let (tree, outside) = (directory.path().join("tree"), directory.path().join("outside"));
        std::fs::create_dir_all(tree.join("a/b")).expect("made");
        std::fs::write(&outside, vec![1; 1 << 20]).expect("written");
        std::fs::write(tree.join("a/b/file"), vec![1; 100_000]).expect("written");
        std::fs::hard_link(tree.join("a/b/file"), tree.join("again")).expect("linked");
        std::os::unix::fs::symlink(&outside, tree.join("link")).expect("linked");
        let hole = std::fs::File::create(tree.join("hole")).expect("made");
        hole.set_len(1 << 40).expect("a hole");
        let found = held(&tree, &|_| false);
        assert_eq!(found.inodes, 6);
        assert!((98_304..400_000).contains(&found.bytes), "{found:?}");
        assert_eq!(held(&tree, &|held| held.inodes == 2).inodes, 2);
        assert_eq!(held(&directory.path().join("missing"), &|_| false), Held::default());
    }
}
