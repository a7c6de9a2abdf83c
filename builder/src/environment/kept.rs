//! Packages kept decoded, so that the cost of xz is paid once.
//!
//! The kept form of a package is a `.deb` again, with `data.tar.zst` (a fast level, with checksum) for its `data.tar.xz`: one
//! reader serves both. It lies under the digest of the original, appears by rename, and may be deleted at any time.

use std::fs::File;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::PathBuf;

use kiln_model::digest::Digest;

use super::EnvironmentError;
use super::deb::Deb;

/// Bytes of a member header, ar(5).
const HEADER: u64 = 60;

/// Compressing goes on while xz is decoded, on the same processors: a third less work than level 1 for a quarter more disk.
const LEVEL: i32 = -3;

/// A directory of kept packages.
#[derive(Debug, Clone)]
pub struct Kept {
    directory: PathBuf,
    scratch: PathBuf,
}

/// A package that is to be kept while it is unpacked.
#[derive(Debug)]
pub(super) struct Keep {
    directory: PathBuf,
    scratch: PathBuf,
    path: PathBuf,
}

impl Kept {
    /// Packages kept in `directory`, which is made when the first is. They are written in `scratch`, a directory on the
    /// same file system that somebody clears should this process be killed.
    pub fn new(directory: impl Into<PathBuf>, scratch: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into(), scratch: scratch.into() }
    }

    /// The kept form of the package with this digest.
    pub(super) fn find(&self, digest: &Digest) -> Option<PathBuf> {
        let path = self.path(digest);
        path.is_file().then_some(path)
    }

    pub(super) fn keep(&self, digest: Digest) -> Keep {
        Keep { directory: self.directory.clone(), scratch: self.scratch.clone(), path: self.path(&digest) }
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.directory.join(format!("{digest}.deb"))
    }
}

impl Keep {
    /// Runs `decode`, which copies the decoded `data.tar` of `deb`, and keeps the copy if it succeeded.
    pub(super) fn record(
        &self,
        deb: &Deb,
        decode: impl FnOnce(&mut dyn Write) -> Result<(), EnvironmentError>,
    ) -> Result<(), EnvironmentError> {
        let failed = |source| EnvironmentError::Keep { path: self.path.clone(), source };
        std::fs::create_dir_all(&self.directory).map_err(failed)?;
        let file = tempfile::NamedTempFile::new_in(&self.scratch).map_err(failed)?;
        let head = deb.head()?;
        let start = head.len() as u64 + HEADER;
        let mut encoder = self.begin(file.as_file(), &head).map_err(failed)?;
        decode(&mut encoder)?;
        let end = |encoder: zstd::Encoder<'_, BufWriter<&File>>| -> io::Result<()> {
            let mut writer = encoder.finish()?;
            writer.flush()?;
            let mut file = writer.into_inner().map_err(|e| e.into_error())?;
            let size = file.stream_position()? - start;
            if size % 2 == 1 {
                file.write_all(b"\n")?;
            }
            file.seek(SeekFrom::Start(start - HEADER))?;
            file.write_all(format!("{:<48}{size:<10}`\n", "data.tar.zst").as_bytes())
        };
        end(encoder).map_err(failed)?;
        file.persist(&self.path).map_err(|e| failed(e.error)).map(drop)
    }

    fn begin<'f>(&self, mut file: &'f File, head: &[u8]) -> io::Result<zstd::Encoder<'static, BufWriter<&'f File>>> {
        file.write_all(head)?;
        file.write_all(&[b' '; HEADER as usize])?;
        let mut encoder = zstd::Encoder::new(BufWriter::with_capacity(128 << 10, file), LEVEL)?;
        encoder.include_checksum(true)?;
        Ok(encoder)
    }
}
