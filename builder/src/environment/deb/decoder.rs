//! The bytes of a compressed member, bounded: what a package may make of our memory and disk.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};

/// What the xz decoder may allocate: `xz -9` needs 65 MiB.
const XZ_MEMORY: u64 = 80 << 20;

pub(super) type Source = BufReader<io::Take<File>>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compression {
    None,
    Gzip,
    Xz,
    Zstd,
    Bzip2,
}

impl Compression {
    pub(super) fn of(suffix: &str) -> Option<Self> {
        match suffix {
            "" => Some(Self::None),
            ".gz" => Some(Self::Gzip),
            ".xz" => Some(Self::Xz),
            ".zst" => Some(Self::Zstd),
            ".bz2" => Some(Self::Bzip2),
            _ => None,
        }
    }
}

pub(super) enum Decoder {
    None(Source),
    Gzip(flate2::bufread::GzDecoder<Source>),
    Xz(liblzma::bufread::XzDecoder<Source>),
    Zstd(zstd::stream::read::Decoder<'static, Source>),
    Bzip2(bzip2::bufread::BzDecoder<Source>),
}

impl Decoder {
    pub(super) fn new(source: Source, compression: Compression) -> io::Result<Self> {
        Ok(match compression {
            Compression::None => Self::None(source),
            Compression::Gzip => Self::Gzip(flate2::bufread::GzDecoder::new(source)),
            Compression::Xz => {
                // The whole file was held against a SHA-256 before, and what comes out goes into another: a CRC between
                // the two finds nothing more, and costs a tenth of decoding.
                let stream = liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY, liblzma::stream::IGNORE_CHECK)
                    .map_err(io::Error::other)?;
                Self::Xz(liblzma::bufread::XzDecoder::new_stream(source, stream))
            }
            Compression::Zstd => Self::Zstd(zstd::stream::read::Decoder::with_buffer(source)?.single_frame()),
            Compression::Bzip2 => Self::Bzip2(bzip2::bufread::BzDecoder::new(source)),
        })
    }

    /// Whether the member ends where the compressed stream does.
    pub(super) fn is_exhausted(&mut self) -> io::Result<bool> {
        let source = match self {
            Self::None(source) => source,
            Self::Gzip(decoder) => decoder.get_mut(),
            Self::Xz(decoder) => decoder.get_mut(),
            Self::Zstd(decoder) => decoder.get_mut(),
            Self::Bzip2(decoder) => decoder.get_mut(),
        };
        Ok(source.fill_buf()?.is_empty())
    }
}

impl Read for Decoder {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::None(source) => source.read(into),
            Self::Gzip(decoder) => decoder.read(into),
            Self::Xz(decoder) => decoder.read(into),
            Self::Zstd(decoder) => decoder.read(into),
            Self::Bzip2(decoder) => decoder.read(into),
        }
    }
}

/// Counts, bounds and copies what is decoded.
pub(super) struct Bounded<'a> {
    pub(super) inner: Decoder,
    pub(super) copy: Option<&'a mut dyn Write>,
    pub(super) count: u64,
    pub(super) limit: u64,
}

#[derive(Debug, thiserror::Error)]
#[error("expands beyond its bound")]
pub(super) struct Overrun;

/// Not the package's fault.
#[derive(Debug, thiserror::Error)]
#[error("keeping a decoded copy")]
pub(super) struct Uncopied(#[source] pub(super) io::Error);

impl Read for Bounded<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(into)?;
        self.count += n as u64;
        if self.count > self.limit {
            return Err(io::Error::other(Overrun));
        }
        if let Some(copy) = &mut self.copy {
            copy.write_all(&into[..n]).map_err(|source| io::Error::other(Uncopied(source)))?;
        }
        Ok(n)
    }
}
