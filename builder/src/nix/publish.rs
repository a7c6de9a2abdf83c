//! Store → binary cache in a directory.
//!
//! One pass per path: NAR, digest, compression, digest, temporary file, rename. A narinfo comes after its archive and after
//! the narinfos of all that its path names, so that a cache never offers what it cannot give; each file is there whole or not
//! at all. Publishing again writes nothing, and what a killed run left is gone on with. Several rebuilders may publish into one
//! cache: each adds its signature where all agree, and is refused where they do not.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::num::NonZeroUsize;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use kiln_model::digest::{Digest, NarHash};
use kiln_model::format::cache_info::CacheInfo;
use kiln_model::format::narinfo::{Compression, NarInfo, file_name};
use kiln_model::format::signature::SecretKey;
use kiln_model::store_path::{StorePath, spelled};
use rustix::fs::{FlockOperation, flock};
use sha2::{Digest as _, Sha256};
use tempfile::NamedTempFile;

use super::dump::{DumpError, dump};
use super::error::CacheError;
use super::order::{made_in_order, references_first};
use crate::store::{PathInfo, Store, StoreError};

/// zstd's own default: Nix's caches are written with it, too.
const ZSTD_LEVEL: i32 = 3;
/// xz's own default.
const XZ_LEVEL: u32 = 6;
/// An archive of this size is compressed by several threads itself; smaller ones side by side.
const LARGE: u64 = 32 << 20;
/// The priority of caches that kiln makes: asked before those that say nothing.
const PRIORITY: u32 = 30;
/// What temporary files' names begin with.
const TEMPORARY: &str = ".tmp-";

/// Writes a binary cache.
#[derive(Debug)]
pub struct Publisher<'a> {
    /// What is published.
    pub store: &'a Store,
    /// Where to.
    pub directory: &'a Path,
    /// Who signs; nobody if empty.
    pub keys: &'a [SecretKey],
    /// How archives are compressed.
    pub compression: Compression,
    /// How many at once.
    pub parallel: NonZeroUsize,
}

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Published {
    /// Paths that the cache did not have.
    pub added: usize,
    /// Paths that got a signature.
    pub signed: usize,
    /// Paths that were there as they are.
    pub kept: usize,
    /// Bytes of archives before compression.
    pub nar_bytes: u64,
    /// Bytes of archives after.
    pub file_bytes: u64,
}

/// What one path needs.
enum Work {
    /// Its archive was written; this is its narinfo.
    Added(NarInfo),
    /// There already, but for a signature.
    Signed(NarInfo),
    /// Nothing.
    Kept,
}

impl Publisher<'_> {
    /// Publishes `paths` and all that they name.
    pub fn publish(&self, paths: &BTreeSet<StorePath>) -> Result<Published, CacheError> {
        self.store.hold(paths)?;
        let closure = self.store.closure(paths)?;
        self.store.hold(&closure.keys().cloned().collect())?;
        let _lock = self.prepare()?;
        let references = closure.iter().map(|(path, info)| (path.clone(), info.references.clone())).collect();
        let ordered = references_first(&references).map_err(|path| CacheError::Circle { path: path.clone() })?;
        let mut published = Published::default();
        made_in_order(
            ordered.len(),
            self.parallel,
            |index| self.work(&closure[ordered[index]]),
            |_, work| {
                let (info, count) = match work {
                    Work::Kept => {
                        published.kept += 1;
                        return Ok(());
                    }
                    Work::Signed(info) => (info, &mut published.signed),
                    Work::Added(info) => {
                        published.nar_bytes += info.nar_size;
                        published.file_bytes += info.file_size.unwrap_or(0);
                        (info, &mut published.added)
                    }
                };
                *count += 1;
                self.write(&file_name(&info.path), info.print().as_bytes())
            },
        )?;
        for directory in [self.directory.to_owned(), self.nar_directory()] {
            File::open(&directory).and_then(|open| open.sync_all()).map_err(failed("syncing", &directory))?;
        }
        Ok(published)
    }

    fn nar_directory(&self) -> PathBuf {
        self.directory.join("nar")
    }

    /// Makes the directory a cache, and keeps other publishers away until the lock is dropped: two of them would each write
    /// a narinfo with only their own signature.
    fn prepare(&self) -> Result<File, CacheError> {
        let nar = self.nar_directory();
        fs::create_dir_all(&nar).map_err(failed("creating", &nar))?;
        let path = self.directory.join(".kiln-lock");
        let lock = File::options().create(true).truncate(false).write(true).open(&path);
        let lock = lock.map_err(failed("opening", &path))?;
        while let Err(error) = flock(&lock, FlockOperation::LockExclusive) {
            if error != rustix::io::Errno::INTR {
                return Err(failed("locking", &path)(error.into()));
            }
        }
        for directory in [self.directory, &nar] {
            for entry in fs::read_dir(directory).map_err(failed("listing", directory))? {
                let entry = entry.map_err(failed("listing", directory))?;
                if entry.file_name().to_str().is_some_and(|name| name.starts_with(TEMPORARY)) {
                    fs::remove_file(entry.path()).map_err(failed("removing", &entry.path()))?;
                }
            }
        }
        let info = self.directory.join("nix-cache-info");
        match fs::read(&info) {
            Ok(bytes) => {
                let cache = self.shown();
                CacheInfo::parse(&bytes).map_err(|source| CacheError::Info { cache, source })?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.write("nix-cache-info", CacheInfo { priority: PRIORITY }.print().as_bytes())?;
            }
            Err(error) => return Err(failed("reading", &info)(error)),
        }
        Ok(lock)
    }

    fn shown(&self) -> String {
        self.directory.display().to_string()
    }

    fn work(&self, info: &PathInfo) -> Result<Work, CacheError> {
        let path = self.directory.join(file_name(&info.path));
        match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed("reading", &path)(error)),
            Ok(bytes) => {
                let there = NarInfo::parse(&bytes).map_err(|source| CacheError::NarInfo {
                    cache: self.shown(),
                    path: info.path.clone(),
                    source,
                })?;
                if there.nar_hash != info.nar_hash {
                    return Err(CacheError::Disagree {
                        cache: self.shown(),
                        path: info.path.clone(),
                        ours: info.nar_hash.to_string(),
                        theirs: there.nar_hash.to_string(),
                    });
                }
                let archive = self.directory.join(&there.url).metadata();
                let whole = archive.is_ok_and(|archive| there.file_size.is_none_or(|size| size == archive.len()));
                if whole && there.references == info.references && there.nar_size == info.nar_size {
                    let mut signed = there.clone();
                    self.keys.iter().for_each(|key| signed.sign(key));
                    return Ok(if signed == there { Work::Kept } else { Work::Signed(signed) });
                }
            }
        }
        self.archive(info).map(Work::Added)
    }

    /// Writes the archive, and says what its narinfo is.
    fn archive(&self, info: &PathInfo) -> Result<NarInfo, CacheError> {
        let directory = self.nar_directory();
        let temporary = temporary_in(&directory)?;
        let place = self.store.physical(&info.path);
        let dumped = |source| match source {
            DumpError::Write(error) => failed("writing", &directory)(error),
            source => CacheError::Dump { path: info.path.clone(), source },
        };
        let mut file = Hashing::new(temporary.as_file());
        let (nar_hash, nar_size) = {
            let mut encoder = self.encoder(&mut file, info.nar_size).map_err(failed("writing", &directory))?;
            let mut nar = Hashing::new(&mut encoder);
            {
                let mut buffered = BufWriter::with_capacity(256 << 10, &mut nar);
                dump(&place, &mut buffered).map_err(dumped)?;
                buffered.flush().map_err(failed("writing", &directory))?;
            }
            let digested = (NarHash::new(nar.digest()), nar.size);
            encoder.finish().map_err(failed("writing", &directory))?;
            digested
        };
        if (nar_hash, nar_size) != (info.nar_hash, info.nar_size) {
            return Err(StoreError::Tampered { path: place, expected: info.nar_hash, found: nar_hash }.into());
        }
        let (file_hash, file_size) = (file.digest(), file.size);
        let name = spelled(&file_hash);
        let name = name.strip_prefix("sha256:").expect("how a digest is spelled");
        let url = format!("nar/{name}.nar{}", self.compression.suffix());
        persist(temporary, &self.directory.join(&url))?;
        let mut narinfo = NarInfo {
            path: info.path.clone(),
            url,
            compression: self.compression,
            file_hash: Some(file_hash),
            file_size: Some(file_size),
            nar_hash,
            nar_size,
            references: info.references.clone(),
            deriver: info.deriver.clone(),
            signatures: info.signatures.iter().cloned().collect(),
            address: info.ca.as_deref().and_then(|address| address.parse().ok()),
        };
        self.keys.iter().for_each(|key| narinfo.sign(key));
        Ok(narinfo)
    }

    fn encoder<'f>(&self, file: &'f mut Hashing<&File>, nar_size: u64) -> io::Result<Encoder<'f>> {
        Ok(match self.compression {
            Compression::None => Encoder::None(Box::new(file)),
            Compression::Zstd => {
                let mut encoder = zstd::Encoder::new(Box::new(file) as Box<dyn Write + 'f>, ZSTD_LEVEL)?;
                encoder.include_checksum(true)?;
                if nar_size >= LARGE {
                    encoder.multithread(u32::try_from(self.parallel.get()).unwrap_or(u32::MAX))?;
                }
                Encoder::Zstd(encoder)
            }
            Compression::Xz => Encoder::Xz(liblzma::write::XzEncoder::new(Box::new(file), XZ_LEVEL)),
            Compression::Bzip2 => {
                Encoder::Bzip2(bzip2::write::BzEncoder::new(Box::new(file), bzip2::Compression::best()))
            }
            Compression::Gzip => {
                Encoder::Gzip(flate2::write::GzEncoder::new(Box::new(file), flate2::Compression::default()))
            }
        })
    }

    /// Replaces a file of the cache: the old one or the new one is there, whole.
    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), CacheError> {
        let path = self.directory.join(name);
        let mut temporary = temporary_in(self.directory)?;
        temporary.write_all(bytes).map_err(failed("writing", &path))?;
        persist(temporary, &path)
    }
}

fn temporary_in(directory: &Path) -> Result<NamedTempFile, CacheError> {
    tempfile::Builder::new().prefix(TEMPORARY).tempfile_in(directory).map_err(failed("creating a file in", directory))
}

fn persist(temporary: NamedTempFile, path: &Path) -> Result<(), CacheError> {
    let written = temporary
        .as_file()
        .set_permissions(fs::Permissions::from_mode(0o644))
        .and_then(|()| temporary.as_file().sync_all());
    written.map_err(failed("writing", path))?;
    temporary.persist(path).map_err(|error| failed("writing", path)(error.error))?;
    Ok(())
}

fn failed(act: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CacheError {
    let path = path.to_owned();
    move |source| CacheError::Io { act, path, source }
}

/// Compresses what is written.
enum Encoder<'f> {
    None(Box<dyn Write + 'f>),
    Zstd(zstd::Encoder<'static, Box<dyn Write + 'f>>),
    Xz(liblzma::write::XzEncoder<Box<dyn Write + 'f>>),
    Bzip2(bzip2::write::BzEncoder<Box<dyn Write + 'f>>),
    Gzip(flate2::write::GzEncoder<Box<dyn Write + 'f>>),
}

impl Encoder<'_> {
    fn finish(self) -> io::Result<()> {
        match self {
            Self::None(mut writer) => writer.flush(),
            Self::Zstd(encoder) => encoder.finish()?.flush(),
            Self::Xz(encoder) => encoder.finish()?.flush(),
            Self::Bzip2(encoder) => encoder.finish()?.flush(),
            Self::Gzip(encoder) => encoder.finish()?.flush(),
        }
    }

    fn writer(&mut self) -> &mut dyn Write {
        match self {
            Self::None(writer) => writer,
            Self::Zstd(encoder) => encoder,
            Self::Xz(encoder) => encoder,
            Self::Bzip2(encoder) => encoder,
            Self::Gzip(encoder) => encoder,
        }
    }
}

impl Write for Encoder<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writer().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer().flush()
    }
}

/// Hashes what is written.
struct Hashing<W> {
    writer: W,
    digest: Sha256,
    size: u64,
}

impl<W> Hashing<W> {
    fn new(writer: W) -> Self {
        Self { writer, digest: Sha256::new(), size: 0 }
    }

    fn digest(&self) -> Digest {
        Digest::from_bytes(self.digest.clone().finalize().into())
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.writer.write(bytes)?;
        self.digest.update(&bytes[..count]);
        self.size += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}
