//! A valid path → its archive, compressed, in a file.
//!
//! One pass: reading and compressing here, hashing on threads of its own. Large archives are compressed by several threads, in
//! pieces whose size does not follow from how many there are, so that a file's digest is the same whatever the machine.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::num::NonZeroUsize;
use std::path::Path;

use kiln_model::digest::{Digest, NarHash};
use kiln_model::format::narinfo::Compression;

use super::dump::{DumpError, dump};
use crate::store::{Digester, Digests};

/// zstd's own default: Nix's caches are written with it, too.
const ZSTD_LEVEL: i32 = 3;
/// xz's own default.
const XZ_LEVEL: u32 = 6;
/// An archive of this size is compressed by several threads itself; smaller ones side by side.
pub(super) const LARGE: u64 = 32 << 20;

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Archive {
    pub(super) nar_hash: NarHash,
    pub(super) nar_size: u64,
    pub(super) file_hash: Digest,
    pub(super) file_size: u64,
}

impl Archive {
    /// Writes the archive of `tree`, which is expected to have `nar_size` bytes, to `file`.
    pub(super) fn write(
        tree: &Path,
        nar_size: u64,
        compression: Compression,
        threads: NonZeroUsize,
        file: &File,
    ) -> Result<Self, DumpError> {
        let mut file = Hashing::new(file);
        let mut encoder = Encoder::new(&mut file, nar_size, compression, threads).map_err(DumpError::Write)?;
        let mut nar = Hashing::new(&mut encoder);
        {
            let mut buffered = BufWriter::with_capacity(256 << 10, &mut nar);
            dump(tree, &mut buffered)?;
            buffered.flush().map_err(DumpError::Write)?;
        }
        let (nar_hash, nar_size) = nar.finish();
        encoder.finish().map_err(DumpError::Write)?;
        let (file_hash, file_size) = file.finish();
        Ok(Self { nar_hash: NarHash::new(nar_hash), nar_size, file_hash, file_size })
    }
}

/// Compresses what is written.
enum Encoder<'f> {
    None(Box<dyn Write + 'f>),
    Zstd(zstd::Encoder<'static, Box<dyn Write + 'f>>),
    Xz(liblzma::write::XzEncoder<Box<dyn Write + 'f>>),
    Bzip2(bzip2::write::BzEncoder<Box<dyn Write + 'f>>),
    Gzip(flate2::write::GzEncoder<Box<dyn Write + 'f>>),
}

impl<'f> Encoder<'f> {
    fn new(
        file: &'f mut Hashing<&File>,
        nar_size: u64,
        compression: Compression,
        threads: NonZeroUsize,
    ) -> io::Result<Self> {
        let file: Box<dyn Write + 'f> = Box::new(file);
        Ok(match compression {
            Compression::None => Self::None(file),
            Compression::Zstd => {
                let mut encoder = zstd::Encoder::new(file, ZSTD_LEVEL)?;
                encoder.include_checksum(true)?;
                if nar_size >= LARGE {
                    encoder.multithread(u32::try_from(threads.get()).unwrap_or(u32::MAX))?;
                }
                Self::Zstd(encoder)
            }
            Compression::Xz => Self::Xz(liblzma::write::XzEncoder::new(file, XZ_LEVEL)),
            Compression::Bzip2 => Self::Bzip2(bzip2::write::BzEncoder::new(file, bzip2::Compression::best())),
            Compression::Gzip => Self::Gzip(flate2::write::GzEncoder::new(file, flate2::Compression::default())),
        })
    }

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
    digester: Digester,
}

impl<W> Hashing<W> {
    fn new(writer: W) -> Self {
        Self { writer, digester: Digester::new(Digests::Nar, None) }
    }

    fn finish(self) -> (Digest, u64) {
        let digested = self.digester.finish();
        (digested.nar_hash.digest(), digested.nar_size)
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.writer.write(bytes)?;
        self.digester.frame(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn a_large_archive_has_the_same_digest_on_any_number_of_processors() {
        let directory = tempfile::tempdir().unwrap();
        let tree = directory.path().join("tree");
        let line = |number: u32| format!("{number} {:x}\n", number.wrapping_mul(2_654_435_761)).into_bytes();
        std::fs::write(&tree, (0..3 << 20).flat_map(line).collect::<Vec<_>>()).unwrap();
        let size = tree.metadata().unwrap().len();
        assert!(size > LARGE);
        let archive = |threads, name: &str| {
            let file = File::create(directory.path().join(name)).unwrap();
            Archive::write(&tree, size, Compression::Zstd, NonZeroUsize::new(threads).unwrap(), &file).unwrap()
        };
        let one = archive(1, "one");
        assert_eq!(archive(3, "three"), one);
        let mut nar = Vec::new();
        let file = File::open(directory.path().join("three")).unwrap();
        assert_eq!(file.metadata().unwrap().len(), one.file_size);
        zstd::Decoder::new(file).unwrap().read_to_end(&mut nar).unwrap();
        assert_eq!((NarHash::new(Digest::of(&nar)), nar.len() as u64), (one.nar_hash, one.nar_size));
    }
}
