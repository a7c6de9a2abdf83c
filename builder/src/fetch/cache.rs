//! The store's cache of files: `files/<sha256>`, read-only, whole and checked or not there.
//!
//! A file is written as `tmp/<sha256>.part`, hashed while it arrives, synced, made 0444 and renamed. The part is locked
//! (flock(2)), so that two threads or processes that want the same file fetch it once, and it stays behind when a transfer
//! breaks, so that the next one goes on where it ended. A cached file is hashed again each time it is asked for.

use std::fs::{DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use kiln_model::digest::Digest;
use rustix::fs::OFlags;
use sha2::{Digest as _, Sha256};

use super::FetchError;

/// Bytes hashed or copied at once.
pub(super) const CHUNK: usize = 256 * 1024;

/// The directory of checked files and that of unfinished ones.
pub(super) struct Cache {
    files: PathBuf,
    parts: PathBuf,
}

/// A file that is being written, locked.
pub(super) struct Part {
    file: File,
    path: PathBuf,
    hasher: Sha256,
    length: u64,
    whole: PathBuf,
}

/// What is in the cache under a digest.
pub(super) enum Entry {
    /// The file, checked.
    Whole(PathBuf),
    /// Nothing yet; perhaps the beginning.
    Part(Part),
}

fn failed<'a>(act: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> FetchError + 'a {
    move |source| FetchError::Cache { act, path: path.into(), source }
}

impl Cache {
    pub(super) fn open(store: &Path) -> Result<Self, FetchError> {
        let cache = Self { files: store.join("files"), parts: store.join("tmp") };
        for (directory, mode) in [(&cache.files, 0o755), (&cache.parts, 0o700)] {
            let mut builder = DirBuilder::new();
            builder.recursive(true).mode(mode).create(directory).map_err(failed("creating", directory))?;
        }
        Ok(cache)
    }

    /// The file with this digest, or the part to write it to. Waits while another process writes the same file; `waits` is
    /// called once before.
    pub(super) fn entry(&self, sha256: &Digest, waits: impl FnOnce()) -> Result<Entry, FetchError> {
        if let Some(path) = self.whole(sha256)? {
            return Ok(Entry::Whole(path));
        }
        let part = self.part(sha256, waits)?;
        // Whoever held the lock may have finished the file.
        match self.whole(sha256)? {
            Some(path) => {
                part.discard()?;
                Ok(Entry::Whole(path))
            }
            None => Ok(Entry::Part(part)),
        }
    }

    /// The cached file if its bytes are right. One whose bytes are not is removed: it can only be fetched again.
    fn whole(&self, sha256: &Digest) -> Result<Option<PathBuf>, FetchError> {
        let path = self.files.join(sha256.to_string());
        let mut file = match OpenOptions::new().read(true).custom_flags(OFlags::NOFOLLOW.bits() as i32).open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(failed("reading", &path)(e)),
        };
        let mut hasher = Sha256::new();
        read_into(&mut file, &mut hasher).map_err(failed("reading", &path))?;
        if Digest::from_bytes(hasher.finalize().into()) == *sha256 {
            return Ok(Some(path));
        }
        std::fs::remove_file(&path).map_err(failed("removing damaged", &path))?;
        Ok(None)
    }

    /// An empty part for a file whose digest is not known; it never becomes a cached file. Two that want the same address wait
    /// for each other.
    pub(super) fn scratch(&self, address: &str, waits: impl FnOnce()) -> Result<Part, FetchError> {
        let mut part = self.part(&Digest::of(format!("address {address}")), waits)?;
        part.restart()?;
        Ok(part)
    }

    fn part(&self, sha256: &Digest, waits: impl FnOnce()) -> Result<Part, FetchError> {
        let path = self.parts.join(format!("{sha256}.part"));
        let mut waits = Some(waits);
        let mut sealed = 0;
        loop {
            let opened = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .custom_flags(OFlags::NOFOLLOW.bits() as i32)
                .open(&path);
            let file = match opened {
                // Twice: it may be renamed and wanted again in between.
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied && sealed < 2 => {
                    sealed += 1;
                    unseal(&path)?;
                    continue;
                }
                opened => opened.map_err(failed("creating", &path))?,
            };
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    if let Some(waits) = waits.take() {
                        waits();
                    }
                    file.lock().map_err(failed("locking", &path))?;
                }
                Err(TryLockError::Error(e)) => return Err(failed("locking", &path)(e)),
            }
            // The one who held the lock may have renamed or removed what was locked.
            let held = file.metadata().map_err(failed("reading", &path))?;
            if std::fs::symlink_metadata(&path).is_ok_and(|m| (m.dev(), m.ino()) == (held.dev(), held.ino())) {
                let whole = self.files.join(sha256.to_string());
                let mut part = Part { file, path, hasher: Sha256::new(), length: 0, whole };
                part.length = read_into(&mut part.file, &mut part.hasher).map_err(failed("reading", &part.path))?;
                return Ok(part);
            }
        }
    }
}

/// Makes a part writable again that was sealed and not renamed: after its owner, if it lives, is done with it.
fn unseal(path: &Path) -> Result<(), FetchError> {
    let opened = OpenOptions::new().read(true).custom_flags(OFlags::NOFOLLOW.bits() as i32).open(path);
    let file = match opened {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        opened => opened.map_err(failed("opening", path))?,
    };
    file.lock().map_err(failed("locking", path))?;
    let held = file.metadata().map_err(failed("reading", path))?;
    if std::fs::symlink_metadata(path).is_ok_and(|m| (m.dev(), m.ino()) == (held.dev(), held.ino())) {
        file.set_permissions(Permissions::from_mode(0o600)).map_err(failed("changing the mode of", path))?;
    }
    Ok(())
}

/// Hashes the rest of `file`; how many bytes that were.
fn read_into(file: &mut File, hasher: &mut Sha256) -> io::Result<u64> {
    let mut buffer = vec![0; CHUNK];
    let mut length = 0;
    loop {
        let read = match file.read(&mut buffer) {
            Ok(0) => return Ok(length),
            Ok(read) => read,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        };
        hasher.update(&buffer[..read]);
        length += read as u64;
    }
}

impl Part {
    /// Where it lies.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes so far.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// Digest of the bytes so far.
    pub(super) fn digest(&self) -> Digest {
        Digest::from_bytes(self.hasher.clone().finalize().into())
    }

    /// Forgets the bytes so far.
    pub(super) fn restart(&mut self) -> Result<(), FetchError> {
        let emptied = self.file.set_len(0).and_then(|()| self.file.seek(SeekFrom::Start(0)));
        emptied.map_err(failed("writing", &self.path))?;
        self.hasher = Sha256::new();
        self.length = 0;
        Ok(())
    }

    /// Appends bytes.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), FetchError> {
        self.file.write_all(bytes).map_err(failed("writing", &self.path))?;
        self.hasher.update(bytes);
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// Makes the part the cached file. Its digest was checked by the caller; this is the invariant of the whole cache.
    pub(super) fn finish(self, sha256: &Digest) -> Result<PathBuf, FetchError> {
        assert_eq!(self.digest(), *sha256, "only checked bytes enter the cache of files");
        self.file
            .set_permissions(Permissions::from_mode(0o444))
            .and_then(|()| self.file.sync_all())
            .map_err(failed("syncing", &self.path))?;
        std::fs::rename(&self.path, &self.whole).map_err(failed("renaming to", &self.whole))?;
        let directory = self.whole.parent().expect("a file in the cache has a directory");
        File::open(directory).and_then(|d| d.sync_all()).map_err(failed("syncing", directory))?;
        Ok(self.whole)
    }

    /// Removes the part.
    pub(super) fn discard(self) -> Result<(), FetchError> {
        std::fs::remove_file(&self.path).map_err(failed("removing", &self.path))
    }
}
