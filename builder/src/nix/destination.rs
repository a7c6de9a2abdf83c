//! Where a binary cache is written to: a directory, or an address that takes PUT.
//!
//! Each file is there whole or not at all, and once a call returns it is there. A directory is locked while it is written to. A
//! server cannot be: of two publishers who sign the same path at the same moment one may undo the other's signature, and
//! publishing again adds it. What is sent lies below the store's private names meanwhile.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use kiln_model::format::cache_info::{self, CacheInfo};
use rustix::fs::{FlockOperation, flock};
use tempfile::NamedTempFile;
use url::Url;

use super::cache::Cache;
use super::error::CacheError;
use crate::fetch::{Address, AddressError, Presence, Refusal, Upload, Web};
use crate::store::{PrivateDir, Store};

/// The priority of caches that kiln makes: asked before those that say nothing.
const PRIORITY: u32 = 30;
/// What temporary files' names begin with.
const TEMPORARY: &str = ".tmp-";
/// Where archives are.
const ARCHIVES: &str = "nar";
/// Where realisations are.
const REALISATIONS: &str = "realisations";

/// A place for a cache.
pub struct Destination<'w> {
    shown: String,
    place: Place<'w>,
}

enum Place<'w> {
    Directory(PathBuf),
    Web { web: &'w Web, base: Url },
}

/// A cache that is being written.
pub(super) struct Writing<'a> {
    shown: &'a str,
    by: By<'a>,
}

enum By<'a> {
    Rename {
        directory: &'a Path,
        /// Keeps other publishers away: two of them would each write a narinfo with only their own signature.
        _lock: File,
    },
    Put {
        web: &'a Web,
        base: &'a Url,
        cache: Cache<'a>,
        drafts: PrivateDir,
    },
}

impl<'w> Destination<'w> {
    /// What `address` means: a directory, `file://…`, `http://…` or `https://…`.
    pub fn at(address: &Path, web: &'w Web) -> Result<Self, CacheError> {
        let shown = address.display().to_string();
        match Address::of(address) {
            Ok(Address::Directory(directory)) => Ok(Self { shown, place: Place::Directory(directory) }),
            Ok(Address::Web(base)) => Ok(Self { shown, place: Place::Web { web, base } }),
            Err(AddressError::Form) => Err(CacheError::Address { address: shown }),
            Err(AddressError::Scheme { scheme }) => Err(CacheError::Scheme { scheme }),
            Err(AddressError::Parameters) => Err(CacheError::Parameters { address: shown }),
            Err(AddressError::Secret { host }) => Err(CacheError::Secret { host }),
        }
    }

    /// Whether it takes time to get there, so that more should be under way at once.
    pub(super) fn is_remote(&self) -> bool {
        matches!(self.place, Place::Web { .. })
    }

    /// What errors call it.
    pub(super) fn shown(&self) -> &str {
        &self.shown
    }

    /// Makes it a cache, unless it is one.
    pub(super) fn open(&self, store: &Store) -> Result<Writing<'_>, CacheError> {
        let by = match &self.place {
            Place::Directory(directory) => By::Rename { directory, _lock: prepared(directory)? },
            Place::Web { web, base } => {
                By::Put { web, base, cache: Cache::at(&self.shown, web)?, drafts: store.private_dir()? }
            }
        };
        let writing = Writing { shown: &self.shown, by };
        match writing.read("nix-cache-info", cache_info::MOST_BYTES)? {
            Some(bytes) => {
                CacheInfo::parse(&bytes).map_err(|source| CacheError::Info { cache: self.shown.clone(), source })?;
            }
            None => writing.write("nix-cache-info", CacheInfo { priority: PRIORITY }.print().as_bytes())?,
        }
        Ok(writing)
    }
}

impl Writing<'_> {
    /// A file of at most `limit` bytes, if it is there.
    pub(super) fn read(&self, file: &str, limit: u64) -> Result<Option<Vec<u8>>, CacheError> {
        match &self.by {
            By::Rename { directory, .. } => {
                let path = directory.join(file);
                match fs::read(&path) {
                    Ok(bytes) if bytes.len() as u64 > limit => {
                        Err(CacheError::TooLarge { cache: self.shown.into(), file: file.into(), limit })
                    }
                    Ok(bytes) => Ok(Some(bytes)),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                    Err(error) => Err(failed("reading", &path)(error)),
                }
            }
            By::Put { cache, .. } => cache.read(file, limit),
        }
    }

    /// Whether a file is there, of this size where one is said. A server that does not tell is believed to have it.
    pub(super) fn has(&self, file: &str, size: Option<u64>) -> Result<bool, CacheError> {
        Ok(match self.presence(file)? {
            Presence::Present(found) => found.zip(size).is_none_or(|(found, size)| found == size),
            Presence::Absent => false,
            Presence::Unknown => true,
        })
    }

    fn presence(&self, file: &str) -> Result<Presence, CacheError> {
        match &self.by {
            By::Rename { directory, .. } => Ok(match directory.join(file).metadata() {
                Ok(metadata) => Presence::Present(Some(metadata.len())),
                Err(_) => Presence::Absent,
            }),
            By::Put { web, base, .. } => {
                let unanswered =
                    |source| CacheError::Unreachable { cache: self.shown.into(), file: file.into(), source };
                web.presence(&self.url(base, file)?).map_err(unanswered)
            }
        }
    }

    /// A file that becomes one of the cache's by [`Writing::place`].
    pub(super) fn draft(&self) -> Result<NamedTempFile, CacheError> {
        match &self.by {
            By::Rename { directory, .. } => temporary_in(&directory.join(ARCHIVES)),
            By::Put { drafts, .. } => temporary_in(drafts.path()),
        }
    }

    /// Makes a draft the file called `file`.
    pub(super) fn place(&self, draft: NamedTempFile, file: &str, size: u64) -> Result<(), CacheError> {
        match &self.by {
            By::Rename { directory, .. } => persist(draft, &directory.join(file)),
            By::Put { .. } if self.presence(file)? == Presence::Present(Some(size)) => Ok(()),
            By::Put { .. } => self.send(file, Upload::File(draft.as_file())),
        }
    }

    /// Writes a small file, in place of one that may be there.
    pub(super) fn write(&self, file: &str, bytes: &[u8]) -> Result<(), CacheError> {
        match &self.by {
            By::Rename { directory, .. } => {
                let path = directory.join(file);
                let parent = path.parent().unwrap_or(directory);
                fs::create_dir_all(parent).map_err(failed("creating", parent))?;
                let mut draft = temporary_in(parent)?;
                draft.write_all(bytes).map_err(failed("writing", &path))?;
                persist(draft, &path)
            }
            By::Put { .. } => self.send(file, Upload::Bytes(bytes)),
        }
    }

    fn send(&self, file: &str, upload: Upload<'_>) -> Result<(), CacheError> {
        let By::Put { web, base, .. } = &self.by else { unreachable!("only servers are sent to") };
        let (cache, file_name) = (self.shown.to_owned(), file.to_owned());
        web.put(&self.url(base, file)?, kind_of(file), upload).map_err(|source| match source {
            Refusal::Status(status @ (401 | 403 | 405)) => CacheError::Unwelcome { cache, file: file_name, status },
            source => CacheError::NotTaken { cache, file: file_name, source },
        })
    }

    fn url(&self, base: &Url, file: &str) -> Result<Url, CacheError> {
        base.join(file).map_err(|_| CacheError::Address { address: self.shown.into() })
    }

    /// Waits until all is on the disk; servers see to that themselves.
    pub(super) fn finish(self) -> Result<(), CacheError> {
        let By::Rename { directory, .. } = self.by else { return Ok(()) };
        for directory in directories(directory) {
            File::open(&directory).and_then(|open| open.sync_all()).map_err(failed("syncing", &directory))?;
        }
        Ok(())
    }
}

/// As Nix calls them.
fn kind_of(file: &str) -> &'static str {
    match file.rsplit_once('.') {
        Some((_, "narinfo")) => "text/x-nix-narinfo",
        Some((_, "doi")) => "application/json",
        Some(_) => "application/x-nix-nar",
        None => "text/x-nix-cache-info",
    }
}

/// All directories of a cache that are there.
fn directories(cache: &Path) -> impl Iterator<Item = PathBuf> {
    let all = [cache.to_owned(), cache.join(ARCHIVES), cache.join(REALISATIONS)];
    all.into_iter().filter(|directory| directory.is_dir())
}

/// Makes a directory and removes what killed publishers left in it; its lock.
fn prepared(cache: &Path) -> Result<File, CacheError> {
    let archives = cache.join(ARCHIVES);
    fs::create_dir_all(&archives).map_err(failed("creating", &archives))?;
    let path = cache.join(".kiln-lock");
    let lock = File::options().create(true).truncate(false).write(true).open(&path);
    let lock = lock.map_err(failed("opening", &path))?;
    while let Err(error) = flock(&lock, FlockOperation::LockExclusive) {
        if error != rustix::io::Errno::INTR {
            return Err(failed("locking", &path)(error.into()));
        }
    }
    for directory in directories(cache) {
        for entry in fs::read_dir(&directory).map_err(failed("listing", &directory))? {
            let entry = entry.map_err(failed("listing", &directory))?;
            if entry.file_name().to_str().is_some_and(|name| name.starts_with(TEMPORARY)) {
                fs::remove_file(entry.path()).map_err(failed("removing", &entry.path()))?;
            }
        }
    }
    Ok(lock)
}

fn temporary_in(directory: &Path) -> Result<NamedTempFile, CacheError> {
    tempfile::Builder::new().prefix(TEMPORARY).tempfile_in(directory).map_err(failed("creating a file in", directory))
}

fn persist(draft: NamedTempFile, path: &Path) -> Result<(), CacheError> {
    let readable = fs::Permissions::from_mode(0o644);
    let written = draft.as_file().set_permissions(readable).and_then(|()| draft.as_file().sync_all());
    written.map_err(failed("writing", path))?;
    draft.persist(path).map_err(|error| failed("writing", path)(error.error))?;
    Ok(())
}

fn failed(act: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CacheError {
    let path = path.to_owned();
    move |source| CacheError::Io { act, path, source }
}
