//! Who is alive: a file that an open engine keeps locked. The kernel drops the lock however its process ends (flock(2)).

use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use kiln_model::engine::EngineError;
use rustix::fs::{FlockOperation, flock};

use super::failed;

/// An engine that is open, as others see it.
pub(super) struct Presence {
    directory: PathBuf,
    name: String,
    /// Holds the lock.
    _file: File,
}

impl Presence {
    /// Says that an engine is open, and forgets those that died.
    pub(super) fn announce(directory: &Path) -> Result<Self, EngineError> {
        let presence = loop {
            let (file, path) = tempfile::Builder::new()
                .prefix("open-")
                .rand_bytes(12)
                .tempfile_in(directory)
                .and_then(|file| file.keep().map_err(|error| error.error))
                .map_err(failed("creating a file in", directory))?;
            while let Err(error) = flock(&file, FlockOperation::LockExclusive) {
                if error != rustix::io::Errno::INTR {
                    return Err(failed("locking", &path)(error.into()));
                }
            }
            // Before it was locked, another may have taken it for a dead one's and removed it.
            let links = file.metadata().map_err(failed("reading", &path))?.nlink();
            if links > 0 {
                let name = path.file_name().and_then(|name| name.to_str()).expect("random names are ASCII").to_owned();
                break Self { directory: directory.into(), name, _file: file };
            }
        };
        for entry in std::fs::read_dir(directory).map_err(failed("listing", directory))? {
            let entry = entry.map_err(failed("listing", directory))?;
            if let Some(name) = entry.file_name().to_str() {
                presence.lives(name)?;
            }
        }
        Ok(presence)
    }

    /// What others know it by.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Whether the engine that goes by `name` is open still; what a dead one left is removed.
    pub(super) fn lives(&self, name: &str) -> Result<bool, EngineError> {
        if name == self.name {
            return Ok(true);
        }
        let path = self.directory.join(name);
        let file = match File::open(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
            file => file.map_err(failed("opening", &path))?,
        };
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(true),
            Err(error) => Err(failed("locking", &path)(error.into())),
            Ok(()) => {
                // Another may have removed it first.
                std::fs::remove_file(&path).ok();
                Ok(false)
            }
        }
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        // What stays is removed by the next one.
        std::fs::remove_file(self.directory.join(&self.name)).ok();
    }
}
