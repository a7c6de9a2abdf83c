//! Stat fingerprints: whether a tree was touched since its digest was taken, without reading it.
//!
//! An ordinary user owns the store's files, so read-only modes guard against accidents only.
//! A change of bytes changes ctime, which no call sets; moving the store to another disk changes inodes, too, and
//! then the bytes are read again. This catches accidents and carelessness, not an owner who means harm:
//! `--paranoid` and `kiln store verify` read the bytes.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use kiln_model::digest::Digest;
use rustix::fs::{self, AtFlags, FileType, Stat};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::copy::{open_directory, sorted_names};

/// How a tree looked when its digest was taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fingerprint {
    /// Device of the root.
    pub device: u64,
    /// Inode of the root.
    pub inode: u64,
    /// Size of the root as stat(2) tells it.
    pub size: i64,
    /// Modification time of the root, in seconds and nanoseconds.
    pub mtime: (i64, i64),
    /// Change time of the root, in seconds and nanoseconds.
    pub ctime: (i64, i64),
    /// Digest over the stats of all entries below the root.
    pub entries: Digest,
}

/// Takes stats in the order of the NAR, a directory after what is in it, the root not at all.
#[derive(Default)]
pub(super) struct StatHasher(Sha256);

impl StatHasher {
    pub(super) fn add(&mut self, stat: &Stat) {
        let ((mtime, mtime_nanos), (ctime, ctime_nanos)) = times(stat);
        for number in [i64::from(stat.st_mode), stat.st_size, mtime, mtime_nanos, ctime, ctime_nanos] {
            self.0.update(number.to_le_bytes());
        }
        self.0.update(stat.st_ino.to_le_bytes());
    }

    /// The fingerprint, with the root as it is now.
    pub(super) fn finish(self, directory: BorrowedFd<'_>, name: &CStr) -> Result<Fingerprint, Errno> {
        let root = fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let (mtime, ctime) = times(&root);
        Ok(Fingerprint {
            device: root.st_dev,
            inode: root.st_ino,
            size: root.st_size,
            mtime,
            ctime,
            entries: Digest::from_bytes(self.0.finalize().into()),
        })
    }
}

fn times(stat: &Stat) -> ((i64, i64), (i64, i64)) {
    // Below a second, so any width of these fields fits; the width differs between architectures.
    let nanos = |nanos| i64::try_from(nanos).expect("less than a second");
    ((stat.st_mtime, nanos(stat.st_mtime_nsec)), (stat.st_ctime, nanos(stat.st_ctime_nsec)))
}

/// The fingerprint of the tree called `name` as it is now.
pub(super) fn fingerprint(directory: BorrowedFd<'_>, name: &CStr) -> Result<Fingerprint, Errno> {
    let mut stats = StatHasher::default();
    let mut levels: Vec<(OwnedFd, std::vec::IntoIter<_>)> = Vec::new();
    let enter = |parent: BorrowedFd<'_>, name: &CStr| -> Result<_, Errno> {
        let directory = open_directory(parent, name)?;
        let names = sorted_names(&directory)?.into_iter();
        Ok((directory, names))
    };
    let root = fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
    if FileType::from_raw_mode(root.st_mode) == FileType::Directory {
        levels.push(enter(directory, name)?);
    }
    while let Some((open, names)) = levels.last_mut() {
        if let Some(name) = names.next() {
            let stat = fs::statat(open.as_fd(), &name, AtFlags::SYMLINK_NOFOLLOW)?;
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                let level = enter(open.as_fd(), &name)?;
                levels.push(level);
            } else {
                stats.add(&stat);
            }
        } else {
            let stat = fs::fstat(&*open)?;
            levels.pop();
            if !levels.is_empty() {
                stats.add(&stat);
            }
        }
    }
    stats.finish(directory, name)
}
