//! Advisory locks between processes and threads that share a store.
//!
//! flock(2): released by the kernel however the holder ends, and by description, so that two threads exclude each other
//! like two processes. A lock file stays where it is: unlinking one is what makes such locks racy.

use std::fs::File;
use std::path::Path;

use kiln_model::digest::Digest;
use kiln_model::store_path::StorePath;
use rustix::fs::{FlockOperation, flock};

use super::Store;
use super::error::{StoreError, failed};

/// Held until dropped.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    pub(super) fn take(path: &Path, operation: FlockOperation) -> Result<Self, StoreError> {
        let file = open(path)?;
        loop {
            match flock(&file, operation) {
                Err(rustix::io::Errno::INTR) => {}
                locked => return locked.map(|()| Self { _file: file }).map_err(failed("locking", path)),
            }
        }
    }
}

fn open(path: &Path) -> Result<File, StoreError> {
    File::options().create(true).truncate(false).write(true).open(path).map_err(failed("opening", path))
}

impl Store {
    /// Waits until nobody else makes `path`, and keeps others from it until the lock is dropped.
    pub fn lock_path(&self, path: &StorePath) -> Result<Lock, StoreError> {
        self.lock_name(path.base_name())
    }

    /// Waits until nobody else builds the derivation at `path`. Another lock than [`Store::lock_path`]'s, which is taken
    /// to register the derivation itself while this one is held.
    pub fn lock_build(&self, path: &StorePath) -> Result<Lock, StoreError> {
        self.lock_name(&format!("{}.build", path.base_name()))
    }

    /// Waits until nobody else assembles an environment's layer with this provenance.
    pub fn lock_assembly(&self, provenance: &Digest) -> Result<Lock, StoreError> {
        self.lock_name(&format!("{provenance}.assembly"))
    }

    /// As [`Store::lock_path`], but `None` at once if another has the lock.
    pub fn try_lock_path(&self, path: &StorePath) -> Result<Option<Lock>, StoreError> {
        let name = self.layout.locks().join(path.base_name());
        let file = open(&name)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Lock { _file: file })),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(failed("locking", &name)(error)),
        }
    }

    pub(super) fn lock_name(&self, name: &str) -> Result<Lock, StoreError> {
        Lock::take(&self.layout.locks().join(name), FlockOperation::LockExclusive)
    }

    /// While held, garbage collection neither decides nor starts.
    pub(super) fn share_with_gc(&self) -> Result<Lock, StoreError> {
        Lock::take(&self.layout.locks().join("gc"), FlockOperation::LockShared)
    }

    pub(super) fn exclude_for_gc(&self) -> Result<Lock, StoreError> {
        Lock::take(&self.layout.locks().join("gc"), FlockOperation::LockExclusive)
    }
}
