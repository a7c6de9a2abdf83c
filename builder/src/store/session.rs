//! What one process has in a store while it runs: private names, and paths it needs.
//!
//! A session is a file that its owner keeps locked (flock(2), released by the kernel however the process ends). Private
//! names carry the session's name, so that what a killed process left is told from what a running one needs. Paths that
//! the session holds are lines of the file: garbage collection reads those of living sessions. Other lines say what of
//! that which the session made is on the disk (`turn`).

use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock};

use rustix::fs::{AtFlags, FileType, FlockOperation, Mode, OFlags, flock};

use super::copy::{open_directory, sorted_names};
use super::error::{StoreError, failed};
use super::layout::Layout;
use super::turn::{Turn, Unsynced};

/// What the name of a session's file starts with until it is locked.
const NEWBORN: char = '.';

/// A running process's stake in the store.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) layout: Layout,
    pub(super) name: String,
    pub(super) file: File,
    pub(super) turn: RwLock<Turn>,
    next: AtomicU64,
}

/// A session whose process ended without ending it. Nobody else sees it as dead while this is held.
pub(super) struct Dead {
    path: PathBuf,
    _lock: File,
    /// What it made and never saw on the disk.
    pub(super) unsynced: Option<Unsynced>,
}

/// A directory of mode 0700 on the store's file system, removed with all that is in it when dropped.
#[derive(Debug)]
pub struct PrivateDir {
    path: PathBuf,
    /// Keeps the session's lock, and so the name, for as long as the directory is used.
    _session: Arc<Session>,
}

impl Session {
    /// Starts a session.
    pub(super) fn start(layout: &Layout) -> Result<Self, StoreError> {
        let directory = layout.sessions();
        loop {
            let (file, newborn) = tempfile::Builder::new()
                .prefix(&NEWBORN.to_string())
                .rand_bytes(16)
                .make_in(&directory, |path| {
                    OpenOptions::new().create_new(true).append(true).read(true).mode(0o600).open(path)
                })
                .and_then(|file| file.keep().map_err(|error| error.error))
                .map_err(failed("creating a session in", &directory))?;
            while let Err(error) = flock(&file, FlockOperation::LockExclusive) {
                if error != rustix::io::Errno::INTR {
                    return Err(failed("locking", &newborn)(error));
                }
            }
            // Its name says that it lives only once it is locked. Before that, another process may have taken it for a
            // dead one's and removed it.
            let name = newborn.file_name().and_then(|name| name.to_str()).expect("random names are ASCII");
            let name = name.trim_start_matches(NEWBORN).to_owned();
            match std::fs::rename(&newborn, directory.join(&name)) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                renamed => {
                    renamed.map_err(failed("renaming", &newborn))?;
                    let (layout, turn, next) = (layout.clone(), RwLock::default(), AtomicU64::new(0));
                    return Ok(Self { layout, name, file, turn, next });
                }
            }
        }
    }

    /// A path below the store's `tmp` that nobody else uses. Nothing is created.
    pub(super) fn private_name(&self) -> PathBuf {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.layout.tmp().join(format!("{}.{number}", self.name))
    }

    /// A private directory.
    pub(super) fn private_dir(self: &Arc<Self>) -> Result<PrivateDir, StoreError> {
        let path = self.private_name();
        std::fs::DirBuilder::new().mode(0o700).create(&path).map_err(failed("creating", &path))?;
        Ok(PrivateDir { path, _session: Arc::clone(self) })
    }

    /// Adds a line to what the session holds.
    pub(super) fn hold(&self, line: &str) -> Result<(), StoreError> {
        // One write: lines of threads do not mix (O_APPEND, write(2)).
        (&self.file).write_all(format!("{line}\n").as_bytes()).map_err(failed("writing", &self.layout.sessions()))
    }

    /// What living sessions hold, this one included.
    pub(super) fn held(layout: &Layout) -> Result<Vec<String>, StoreError> {
        let mut held = Vec::new();
        for path in entries(&layout.sessions())? {
            if lock_of_dead(&path)?.is_none() {
                match std::fs::read_to_string(&path) {
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                    text => held.extend(text.map_err(failed("reading", &path))?.lines().map(str::to_owned)),
                }
            }
        }
        Ok(held)
    }

    /// Sessions whose processes are gone. Those that never got their name had nothing, and are removed at once.
    pub(super) fn dead(&self) -> Result<Vec<Dead>, StoreError> {
        let mut dead = Vec::new();
        for path in entries(&self.layout.sessions())? {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if name == self.name {
                continue;
            }
            let Some(mut lock) = lock_of_dead(&path)? else { continue };
            if name.starts_with(NEWBORN) {
                std::fs::remove_file(&path).or_else(ignore_missing).map_err(failed("removing", &path))?;
                continue;
            }
            let mut text = Vec::new();
            lock.read_to_end(&mut text).map_err(failed("reading", &path))?;
            let unsynced = Unsynced::of(name, &String::from_utf8_lossy(&text));
            dead.push(Dead { path, _lock: lock, unsynced });
        }
        Ok(dead)
    }
}

impl Dead {
    /// Removes what it left behind under private names, and its own.
    pub(super) fn bury(self, layout: &Layout) -> Result<(), StoreError> {
        let name = self.path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        for leftover in entries(&layout.tmp())? {
            let owner = leftover.file_name().and_then(|name| name.to_str()).and_then(|name| name.split_once('.'));
            if owner.is_some_and(|(owner, _)| owner == name) {
                remove_tree(&leftover)?;
            }
        }
        // Last, so that an interruption leaves something to go on with.
        std::fs::remove_file(&self.path).or_else(ignore_missing).map_err(failed("removing", &self.path))
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // Nothing to be done about a failure: the next session ends the turn, and buries this one.
        if self.sync().is_ok() {
            std::fs::remove_file(self.layout.sessions().join(&self.name)).ok();
        }
    }
}

impl PrivateDir {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for PrivateDir {
    fn drop(&mut self) {
        // As for a session: the next one tries again.
        remove_tree(&self.path).ok();
    }
}

fn ignore_missing(error: std::io::Error) -> std::io::Result<()> {
    if error.kind() == std::io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

/// The lock of a session whose owner is gone; `None` if it lives, or if another process is burying it.
fn lock_of_dead(path: &Path) -> Result<Option<File>, StoreError> {
    let file = match File::open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        file => file.map_err(failed("opening", path))?,
    };
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        // One that ended in good order between the two calls has removed its name first.
        Ok(()) => Ok((file.metadata().map_err(failed("looking at", path))?.nlink() > 0).then_some(file)),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(failed("locking", path)(error)),
    }
}

fn entries(directory: &Path) -> Result<Vec<PathBuf>, StoreError> {
    std::fs::read_dir(directory)
        .and_then(|entries| entries.map(|entry| entry.map(|entry| entry.path())).collect())
        .map_err(failed("listing", directory))
}

/// Removes whatever `path` is, by descriptors, without following links; directories that their owner made unreadable or
/// unwritable are made neither first. Nothing there is success.
pub(super) fn remove_tree(path: &Path) -> Result<(), StoreError> {
    let failed = || failed::<rustix::io::Errno>("removing", path);
    let parent_path = path.parent().expect("paths of the store have a parent");
    let name = CString::new(path.file_name().expect("paths of the store have a name").as_bytes())
        .expect("paths from the system have no NUL");
    let parent = match File::open(parent_path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        parent => parent.map_err(super::error::failed("opening", parent_path))?,
    };
    let writable = Mode::from_raw_mode(0o700);
    let mut levels = Vec::new();
    let mut here: (std::os::fd::OwnedFd, Vec<CString>) = (parent.into(), vec![name]);
    loop {
        let Some(name) = here.1.last() else {
            let Some(above) = levels.pop() else { return Ok(()) };
            here = above;
            let emptied = here.1.pop().expect("it was entered by its name");
            rustix::fs::unlinkat(&here.0, &emptied, AtFlags::REMOVEDIR).map_err(failed())?;
            continue;
        };
        let stat = match rustix::fs::statat(&here.0, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(rustix::io::Errno::NOENT) => {
                here.1.pop();
                continue;
            }
            stat => stat.map_err(failed())?,
        };
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            if stat.st_mode & 0o700 != 0o700 {
                // By descriptor: should a link have taken its place since, that must not be followed. fchmod(2) refuses
                // one opened with O_PATH, but not its name in /proc.
                let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let found = rustix::fs::openat(&here.0, name, flags, Mode::empty()).map_err(failed())?;
                rustix::fs::chmod(format!("/proc/self/fd/{}", found.as_raw_fd()), writable).map_err(failed())?;
            }
            let directory = open_directory(&here.0, name).map_err(failed())?;
            let names = sorted_names(&directory).map_err(failed())?;
            levels.push(std::mem::replace(&mut here, (directory, names)));
        } else {
            rustix::fs::unlinkat(&here.0, name, AtFlags::empty()).map_err(failed())?;
            here.1.pop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_that_start_together_never_bury_each_other() {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::open(&directory.path().join("store")).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..100 {
                        let session = Arc::new(Session::start(&layout).unwrap());
                        assert!(session.dead().unwrap().is_empty());
                        let private = session.private_dir().unwrap();
                        assert!(private.path().is_dir());
                    }
                });
            }
        });
        assert_eq!(entries(&layout.sessions()).unwrap(), [] as [PathBuf; 0]);
    }
}
