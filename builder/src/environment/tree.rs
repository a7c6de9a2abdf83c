//! Writing into a tree without ever leaving it.
//!
//! Each path is resolved by the kernel below the tree's own descriptor with `RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS`
//! (openat2(2)), so that no link, whoever made it and whenever, is followed. The only links that matter, those of a
//! merged `/usr`, are followed by name, in [`canonical`]. Everything is made 0644 or 0755; a file of a package has the time that
//! the package gives it, as dpkg has it, since builds copy files with their times; everything else has one fixed time.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Timespec, Timestamps};
use rustix::io::Errno;

use super::deb::Executable;

/// Top-level names that are links into `/usr` (Debian's merged `/usr`, amd64).
pub(super) const MERGED: [&str; 6] = ["bin", "lib", "lib32", "lib64", "libx32", "sbin"];

/// The path with the links of the merged `/usr` followed.
pub(super) fn canonical(path: &[u8]) -> Vec<u8> {
    let top = path.split(|b| *b == b'/').next().unwrap_or_default();
    match MERGED.iter().any(|link| link.as_bytes() == top) {
        true => [b"usr/", path].concat(),
        false => path.to_vec(),
    }
}

/// A directory that nothing is written outside of.
#[derive(Debug)]
pub(super) struct Tree {
    root: OwnedFd,
    path: PathBuf,
    time: Timestamps,
    /// When it was opened, by the clock that scripts will see.
    opened: i64,
}

fn at(seconds: i64) -> Timestamps {
    let moment = Timespec { tv_sec: seconds, tv_nsec: 0 };
    Timestamps { last_access: moment, last_modification: moment }
}

fn now() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.ok().and_then(|now| i64::try_from(now.as_secs()).ok()).unwrap_or(0)
}

/// Opens what lies in the tree and nothing else.
const INSIDE: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS);

impl Tree {
    /// The tree at `path`. What is made in it gets `seconds` since 1970 as its time.
    pub(super) fn open(path: &Path, seconds: i64) -> io::Result<Self> {
        let root = rustix::fs::openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Self { root, path: path.into(), time: at(seconds), opened: now() })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn time(&self) -> &Timestamps {
        &self.time
    }

    /// The time that an entry keeps which was last modified at `seconds`: that of its package, unless somebody has touched it
    /// since the tree was opened, or it is from after the tree's own time.
    pub(super) fn kept_time(&self, seconds: i64) -> Timestamps {
        let touched = (self.opened..=now()).contains(&seconds);
        match touched || seconds > self.time.last_modification.tv_sec {
            true => self.time.clone(),
            false => at(seconds),
        }
    }

    /// A cursor that remembers the directory of the last path: archives are sorted by directory.
    pub(super) fn cursor(&self) -> Cursor<'_> {
        Cursor { tree: self, last: None }
    }

    /// The bytes of a file; `None` if there is none.
    pub(super) fn read(&self, path: &str) -> io::Result<Option<Vec<u8>>> {
        match self.open_file(path.as_bytes()) {
            Ok(mut file) => {
                let mut bytes = Vec::new();
                file.read_to_end(&mut bytes)?;
                Ok(Some(bytes))
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// A regular file, for reading.
    pub(super) fn open_file(&self, path: &[u8]) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOFOLLOW;
        let fd = rustix::fs::openat2(&self.root, OsStr::from_bytes(path), flags, Mode::empty(), INSIDE)?;
        match FileType::from_raw_mode(rustix::fs::fstat(&fd)?.st_mode) {
            FileType::RegularFile => Ok(File::from(fd)),
            _ => Err(io::Error::other("is no regular file")),
        }
    }

    /// Makes or replaces a file, and its directories.
    pub(super) fn write(&self, path: &str, bytes: &[u8], executable: Executable) -> io::Result<()> {
        let mut cursor = self.cursor();
        let (directory, name) = split(path.as_bytes());
        cursor.make_directory(directory)?;
        match rustix::fs::unlinkat(cursor.directory(directory)?, OsStr::from_bytes(name), AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(e) => return Err(e.into()),
        }
        let own = self.time.last_modification.tv_sec;
        cursor.make_file(path.as_bytes(), executable, own, &mut { bytes }).map(drop)
    }

    /// A directory of the tree.
    pub(super) fn open_directory(&self, path: &[u8]) -> io::Result<OwnedFd> {
        let path = if path.is_empty() { b".".as_slice() } else { path };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(rustix::fs::openat2(&self.root, OsStr::from_bytes(path), flags, Mode::empty(), INSIDE)?)
    }
}

/// Makes entries of a tree; one per thread.
#[derive(Debug)]
pub(super) struct Cursor<'t> {
    tree: &'t Tree,
    last: Option<(Vec<u8>, OwnedFd)>,
}

impl Cursor<'_> {
    /// Makes a directory and those above it; one that exists already is left.
    pub(super) fn make_directory(&mut self, path: &[u8]) -> io::Result<()> {
        if path.is_empty() {
            return Ok(());
        }
        let (parent, name) = split(path);
        let made = match self.directory(parent) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                self.make_directory(parent)?;
                rustix::fs::mkdirat(self.directory(parent)?, OsStr::from_bytes(name), Mode::from(0o755))
            }
            other => rustix::fs::mkdirat(other?, OsStr::from_bytes(name), Mode::from(0o755)),
        };
        match made {
            // Mode and time of directories: `normalise`, once nothing is written into them any more.
            Ok(()) => Ok(()),
            Err(Errno::EXIST) => self.tree.open_directory(path).map(drop),
            Err(e) => Err(e.into()),
        }
    }

    /// Makes a file that is not there yet, last modified at `modified`, and returns its size.
    pub(super) fn make_file(
        &mut self,
        path: &[u8],
        executable: Executable,
        modified: i64,
        body: &mut dyn Read,
    ) -> io::Result<u64> {
        let (parent, name) = split(path);
        let mode = match executable {
            Executable::Yes => Mode::from(0o755),
            Executable::No => Mode::from(0o644),
        };
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = File::from(rustix::fs::openat(self.parent(parent)?, OsStr::from_bytes(name), flags, mode)?);
        let mut size = 0;
        // Large enough that most files are one read and one write; bounded per thread.
        let mut block = [0; 64 << 10];
        loop {
            let n = match body.read(&mut block) {
                Ok(0) => break,
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
            };
            file.write_all(&block[..n])?;
            size += n as u64;
        }
        // The caller's umask took part in openat(2).
        rustix::fs::fchmod(&file, mode)?;
        rustix::fs::futimens(&file, &at(modified))?;
        Ok(size)
    }

    /// Makes a symbolic link that is not there yet.
    pub(super) fn make_symlink(&mut self, path: &[u8], target: &[u8]) -> io::Result<()> {
        let (parent, name) = split(path);
        Ok(rustix::fs::symlinkat(OsStr::from_bytes(target), self.parent(parent)?, OsStr::from_bytes(name))?)
    }

    /// Sets when an entry that is no directory was last modified.
    pub(super) fn set_modified(&mut self, path: &[u8], modified: i64) -> io::Result<()> {
        let (parent, name) = split(path);
        let (parent, name) = (self.directory(parent)?, OsStr::from_bytes(name));
        Ok(rustix::fs::utimensat(parent, name, &at(modified), AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// Gives the file `target` another name.
    pub(super) fn make_hard_link(&mut self, path: &[u8], target: &[u8]) -> io::Result<()> {
        let (above, old) = split(target);
        let from = self.tree.open_directory(above)?;
        let (parent, name) = split(path);
        let into = self.parent(parent)?;
        Ok(rustix::fs::linkat(from, OsStr::from_bytes(old), into, OsStr::from_bytes(name), AtFlags::empty())?)
    }

    /// Renames within one directory, over what has the new name.
    pub(super) fn rename(&mut self, from: &[u8], to: &[u8]) -> io::Result<()> {
        let ((parent, old), (_, new)) = (split(from), split(to));
        let directory = self.directory(parent)?;
        Ok(rustix::fs::renameat(directory, OsStr::from_bytes(old), directory, OsStr::from_bytes(new))?)
    }

    /// Removes a file or link.
    pub(super) fn remove(&mut self, path: &[u8]) -> io::Result<()> {
        let (parent, name) = split(path);
        Ok(rustix::fs::unlinkat(self.directory(parent)?, OsStr::from_bytes(name), AtFlags::empty())?)
    }

    /// Makes a copy of an entry of another tree that is no directory.
    pub(super) fn copy_from(&mut self, from: &Tree, path: &[u8], kind: FileType) -> io::Result<()> {
        match kind {
            FileType::Symlink => {
                let (directory, name) = split(path);
                let target =
                    rustix::fs::readlinkat(from.open_directory(directory)?, OsStr::from_bytes(name), Vec::new())?;
                let stat = rustix::fs::statat(
                    from.open_directory(directory)?,
                    OsStr::from_bytes(name),
                    AtFlags::SYMLINK_NOFOLLOW,
                )?;
                self.make_symlink(path, target.to_bytes())?;
                self.set_modified(path, stat.st_mtime as i64)
            }
            FileType::RegularFile => {
                let mut file = from.open_file(path)?;
                let stat = rustix::fs::fstat(&file)?;
                let executable = if stat.st_mode & 0o100 == 0 { Executable::No } else { Executable::Yes };
                self.make_file(path, executable, stat.st_mtime as i64, &mut file).map(drop)
            }
            _ => Err(io::Error::other("is a pipe, socket or device, which no environment may hold")),
        }
    }

    fn parent(&mut self, path: &[u8]) -> io::Result<&OwnedFd> {
        if let Err(e) = self.directory(path) {
            match e.kind() {
                io::ErrorKind::NotFound => self.make_directory(path)?,
                _ => return Err(e),
            }
        }
        self.directory(path)
    }

    fn directory(&mut self, path: &[u8]) -> io::Result<&OwnedFd> {
        let known = self.last.as_ref().is_some_and(|(last, _)| last == path);
        if !known {
            self.last = Some((path.to_vec(), self.tree.open_directory(path)?));
        }
        Ok(&self.last.as_ref().expect("was set above").1)
    }
}

/// Directory and name.
pub(super) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|b| *b == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_links_of_a_merged_usr_are_followed_by_name() {
        assert_eq!(canonical(b"lib/x/y"), b"usr/lib/x/y");
        assert_eq!(canonical(b"bin"), b"usr/bin");
        assert_eq!(canonical(b"binary/x"), b"binary/x");
        assert_eq!(canonical(b""), b"");
    }

    #[test]
    fn a_time_is_kept_unless_somebody_touched_the_file_or_it_is_from_the_future() {
        let inside = tempfile::tempdir().unwrap();
        let tree = Tree::open(inside.path(), 1_000_000).unwrap();
        let kept = |seconds| tree.kept_time(seconds).last_modification.tv_sec;
        assert_eq!([kept(5), kept(1_000_000), kept(1_000_001), kept(now())], [5, 1_000_000, 1_000_000, 1_000_000]);
        // A clock that is behind the suite's date changes nothing.
        let tree = Tree::open(inside.path(), now() + 1000).unwrap();
        assert_eq!(tree.kept_time(now()).last_modification.tv_sec, tree.time.last_modification.tv_sec);
        assert_eq!(tree.kept_time(5).last_modification.tv_sec, 5);
    }

    #[test]
    fn nothing_is_written_through_a_link() {
        let outside = tempfile::tempdir().unwrap();
        let inside = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(outside.path(), inside.path().join("out")).unwrap();
        std::os::unix::fs::symlink(outside.path().join("file"), inside.path().join("link")).unwrap();
        let tree = Tree::open(inside.path(), 0).unwrap();
        let mut cursor = tree.cursor();
        assert!(cursor.make_file(b"out/file", Executable::No, 0, &mut b"x".as_slice()).is_err());
        assert!(cursor.make_file(b"link", Executable::No, 0, &mut b"x".as_slice()).is_err());
        assert!(cursor.make_directory(b"out/deep/er").is_err());
        assert!(cursor.make_symlink(b"out/link", b"x").is_err());
        assert!(tree.read("link").is_err());
        assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
    }
}
