//! Writes a canonical tree below a name that does not exist yet: whoever walks a tree or reads an archive tells it what comes.

use std::ffi::CStr;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{self, AtFlags, Mode, OFlags, Timespec, Timestamps};
use rustix::io::Errno;

use super::copy::open_directory;
use super::error::{StoreError, failed};
use super::fingerprint::StatHasher;

/// Every time in a canonical tree: one second past the epoch, as in Nix's store.
pub(super) const CANONICAL_TIMES: Timestamps = Timestamps {
    last_access: Timespec { tv_sec: 1, tv_nsec: 0 },
    last_modification: Timespec { tv_sec: 1, tv_nsec: 0 },
};

/// Where the copy goes: a name that does not exist yet in a directory of the store's own.
pub(super) struct Destination<'a> {
    pub(super) directory: BorrowedFd<'a>,
    pub(super) name: &'a CStr,
    pub(super) shown: PathBuf,
}

/// Writes the tree.
pub(super) struct Writer<'a> {
    destination: Destination<'a>,
    open: Vec<OwnedFd>,
    pub(super) stats: StatHasher,
}

impl<'a> Writer<'a> {
    pub(super) fn new(destination: Destination<'a>) -> Self {
        Self { destination, open: Vec::new(), stats: StatHasher::default() }
    }

    pub(super) fn shown(&self) -> PathBuf {
        self.destination.shown.clone()
    }

    /// The directory that is being filled, and the name of `name` in it: the root has a name of the store's choice.
    fn place<'n>(&'n self, name: &'n CStr) -> (BorrowedFd<'n>, &'n CStr) {
        match self.open.last() {
            Some(directory) => (directory.as_fd(), name),
            None => (self.destination.directory, self.destination.name),
        }
    }

    pub(super) fn start_directory(&mut self, name: &CStr) -> Result<(), StoreError> {
        let (parent, name) = self.place(name);
        let failed = || failed::<Errno>("creating a directory in", &self.destination.shown);
        fs::mkdirat(parent, name, Mode::from_raw_mode(0o755)).map_err(failed())?;
        let directory = open_directory(parent, name).map_err(failed())?;
        self.open.push(directory);
        Ok(())
    }

    pub(super) fn end_directory(&mut self) -> Result<(), StoreError> {
        let directory = self.open.pop().expect("a directory ends after it started");
        let shown = &self.destination.shown;
        if self.open.is_empty() {
            // The caller's umask does not matter: what is moved must be ours to write.
            return fs::fchmod(&directory, Mode::from_raw_mode(0o755)).map_err(failed("changing the mode of", shown));
        }
        fs::fchmod(&directory, Mode::from_raw_mode(0o555)).map_err(failed("changing the mode of", shown))?;
        fs::futimens(&directory, &CANONICAL_TIMES).map_err(failed("changing the time of", shown))?;
        let stat = fs::fstat(&directory).map_err(failed("looking at", shown))?;
        self.stats.add(&stat);
        Ok(())
    }

    pub(super) fn start_file(&self, name: &CStr) -> Result<OwnedFd, StoreError> {
        let (parent, name) = self.place(name);
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        fs::openat(parent, name, flags, Mode::from_raw_mode(0o600))
            .map_err(failed("creating a file in", &self.destination.shown))
    }

    pub(super) fn end_file(&mut self, file: &OwnedFd, mode: u32) -> Result<(), StoreError> {
        let shown = &self.destination.shown;
        fs::fchmod(file, Mode::from_raw_mode(mode)).map_err(failed("changing the mode of", shown))?;
        fs::futimens(file, &CANONICAL_TIMES).map_err(failed("changing the time of", shown))?;
        if !self.open.is_empty() {
            self.stats.add(&fs::fstat(file).map_err(failed("looking at", shown))?);
        }
        Ok(())
    }

    pub(super) fn symlink(&mut self, name: &CStr, target: &CStr) -> Result<(), StoreError> {
        let (parent, name) = self.place(name);
        let failed = || failed::<Errno>("creating a link in", &self.destination.shown);
        fs::symlinkat(target, parent, name).map_err(failed())?;
        fs::utimensat(parent, name, &CANONICAL_TIMES, AtFlags::SYMLINK_NOFOLLOW).map_err(failed())?;
        let stat = fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed())?;
        if !self.open.is_empty() {
            self.stats.add(&stat);
        }
        Ok(())
    }
}

pub(super) fn write_all(file: &OwnedFd, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match rustix::io::write(file, bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
