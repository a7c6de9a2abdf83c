//! Who owns the files of a tree that a payload wrote: changed by descriptor, without following symlinks.
//!
//! The tree's content is the payload's: it may be deeper than names or descriptors reach. Nobody else changes it meanwhile.

use std::ffi::{CString, OsString};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;

/// A directory on the way: its identity, to be checked when coming back up, and what is left to enter.
struct Level {
    identity: (u64, u64),
    name: CString,
    left: Vec<CString>,
}

/// Makes `uid` and `gid` the owners of a directory and all below it, or says where that failed.
///
/// Walks without recursion and with two descriptors, however deep the payload made it.
pub fn change(top: &Path, uid: Uid, gid: Gid) -> Result<(), (PathBuf, Errno)> {
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
