//! Decompression within bounds: a stream that expands beyond all measure is named, not followed.

use std::io::{self, BufRead as _, BufReader, Read};
use std::sync::atomic::{AtomicU64, Ordering};

use kiln_model::format::stream::Stream;

use super::blob::{Blob, Keep};
use super::limits::Limits;

/// What the xz decoder may allocate: `xz -9` needs 65 MiB.
const XZ_MEMORY: u64 = 70 << 20;

/// The largest window that a Zstandard stream may ask for, as a power of two: 64 MiB, for both sides at once.
const ZSTD_WINDOW: u32 = 26;

/// Why something was not unpacked.
#[derive(Debug)]
pub(super) enum Stop {
    /// It is broken, or beyond a bound.
    Unread(String),
    /// There was no room for it.
    Spill(io::Error),
}

/// Bytes that one side may still unpack.
#[derive(Debug)]
pub(super) struct Budget(AtomicU64);

impl Budget {
    pub(super) fn new(bytes: u64) -> Self {
        Self(AtomicU64::new(bytes))
    }

    fn take(&self, bytes: u64) -> bool {
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(bytes)).is_ok()
    }
}

/// Unpacks a stream.
pub(super) fn stream(blob: &Blob, kind: Stream, limits: &Limits, budget: &Budget) -> Result<Blob, Stop> {
    let source = BufReader::with_capacity(64 << 10, blob.reader());
    let broken = |e: io::Error| Stop::Unread(format!("the {} stream is broken: {e}", kind.as_str()));
    match kind {
        Stream::Gzip => drain(flate2::bufread::MultiGzDecoder::new(source), blob.len(), kind.as_str(), limits, budget),
        Stream::Bzip2 => drain(bzip2::bufread::MultiBzDecoder::new(source), blob.len(), kind.as_str(), limits, budget),
        Stream::Xz => {
            let decoder = liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY, liblzma::stream::CONCATENATED);
            let decoder = decoder.map_err(|e| broken(io::Error::other(e)))?;
            drain(liblzma::bufread::XzDecoder::new_stream(source, decoder), blob.len(), kind.as_str(), limits, budget)
        }
        Stream::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(source).map_err(broken)?;
            decoder.window_log_max(ZSTD_WINDOW).map_err(broken)?;
            drain(decoder, blob.len(), kind.as_str(), limits, budget)
        }
    }
}

/// Unpacks a file that is one stream and nothing else: no second member with a header of its own, no bytes after it.
pub(super) fn single(blob: &Blob, kind: Stream, limits: &Limits, budget: &Budget) -> Result<Blob, Stop> {
    let mut source = BufReader::with_capacity(64 << 10, blob.reader());
    let broken = |e: io::Error| Stop::Unread(format!("the {} stream is broken: {e}", kind.as_str()));
    let (packed, what) = (blob.len(), kind.as_str());
    let unpacked = match kind {
        Stream::Gzip => drain(flate2::bufread::GzDecoder::new(&mut source), packed, what, limits, budget),
        Stream::Bzip2 => drain(bzip2::bufread::BzDecoder::new(&mut source), packed, what, limits, budget),
        Stream::Xz => {
            let decoder = liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY, 0);
            let decoder = decoder.map_err(|e| broken(io::Error::other(e)))?;
            drain(liblzma::bufread::XzDecoder::new_stream(&mut source, decoder), packed, what, limits, budget)
        }
        Stream::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(&mut source).map_err(broken)?.single_frame();
            decoder.window_log_max(ZSTD_WINDOW).map_err(broken)?;
            drain(decoder, packed, what, limits, budget)
        }
    }?;
    match source.fill_buf() {
        Ok([]) => Ok(unpacked),
        Ok(_) => Err(Stop::Unread(format!("bytes follow the first {what} stream"))),
        Err(e) => Err(broken(e)),
    }
}

/// Unpacks `size` bytes of raw deflate, as a member of a zip has them.
pub(super) fn deflate(blob: &Blob, size: u64, limits: &Limits, budget: &Budget) -> Result<Blob, Stop> {
    let source = BufReader::with_capacity(64 << 10, blob.reader());
    let decoder = flate2::bufread::DeflateDecoder::new(source).take(size.saturating_add(1));
    let unpacked = drain(decoder, blob.len(), "deflate", limits, budget)?;
    if unpacked.len() == size {
        Ok(unpacked)
    } else {
        Err(Stop::Unread(format!("it unpacks to {} bytes and not to the {size} of its header", unpacked.len())))
    }
}

/// Unpacks a zlib stream that is in memory: the pixels of an image, a section of debug information.
pub(super) fn zlib(bytes: &[u8], limits: &Limits, budget: &Budget) -> Result<Blob, Stop> {
    drain(flate2::bufread::ZlibDecoder::new(bytes), bytes.len() as u64, "zlib", limits, budget)
}

fn drain(mut from: impl Read, packed: u64, what: &str, limits: &Limits, budget: &Budget) -> Result<Blob, Stop> {
    let mut keep = Keep::new(limits.kept);
    let mut buffer = vec![0; 64 << 10];
    let most = limits.free.max(packed.saturating_mul(limits.ratio));
    let mut unpacked = 0_u64;
    loop {
        let read = match from.read(&mut buffer) {
            Ok(0) => return Ok(keep.done()),
            Ok(read) => read,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(Stop::Unread(format!("the {what} stream is broken after {unpacked} bytes: {e}"))),
        };
        unpacked += read as u64;
        if unpacked > most {
            let ratio = limits.ratio;
            return Err(Stop::Unread(format!("{packed} bytes of {what} expand more than {ratio}-fold: not unpacked")));
        }
        if !budget.take(read as u64) {
            let bound = limits.unpacked;
            return Err(Stop::Unread(format!("all of it unpacks to more than {bound} bytes: not unpacked further")));
        }
        keep.push(&buffer[..read]).map_err(Stop::Spill)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn packed(bytes: &[u8], kind: Stream) -> Blob {
        let packed = match kind {
            Stream::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
                encoder.write_all(bytes).unwrap();
                encoder.finish().unwrap()
            }
            Stream::Xz => {
                let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 6);
                encoder.write_all(bytes).unwrap();
                encoder.finish().unwrap()
            }
            Stream::Zstd => zstd::encode_all(bytes, 3).unwrap(),
            Stream::Bzip2 => {
                let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::best());
                encoder.write_all(bytes).unwrap();
                encoder.finish().unwrap()
            }
        };
        Blob::of_bytes(packed)
    }

    fn unpacked(blob: &Blob, kind: Stream, limits: &Limits) -> Result<Vec<u8>, String> {
        match stream(blob, kind, limits, &Budget::new(limits.unpacked)) {
            Ok(blob) => Ok(blob.bytes().unwrap().into_owned()),
            Err(Stop::Unread(why)) => Err(why),
            Err(Stop::Spill(e)) => panic!("{e}"),
        }
    }

    const ALL: [Stream; 4] = [Stream::Gzip, Stream::Xz, Stream::Zstd, Stream::Bzip2];

    #[test]
    fn every_stream_is_unpacked_also_beyond_memory() {
        let bytes: Vec<u8> = (0..300_000_u32).flat_map(|i| (i % 1000).to_le_bytes()).collect();
        let limits = Limits { kept: 1000, ..Limits::default() };
        for kind in ALL {
            assert_eq!(unpacked(&packed(&bytes, kind), kind, &limits).unwrap(), bytes, "{kind:?}");
        }
    }

    #[test]
    fn a_bomb_is_named_and_not_followed() {
        let bytes = vec![0; 4 << 20];
        for kind in ALL {
            let limits = Limits { free: 1 << 20, ratio: 20, ..Limits::default() };
            let why = unpacked(&packed(&bytes, kind), kind, &limits).unwrap_err();
            assert!(why.contains("expand more than 20-fold"), "{why}");
            let limits = Limits { unpacked: 1 << 20, ..Limits::default() };
            assert!(unpacked(&packed(&bytes, kind), kind, &limits).unwrap_err().contains("more than 1048576 bytes"));
        }
    }

    #[test]
    fn a_stream_that_was_cut_short_is_broken() {
        for kind in ALL {
            let whole = packed(b"some text that is long enough to be cut", kind);
            let cut = whole.slice(0, whole.len() - 6).unwrap();
            assert!(unpacked(&cut, kind, &Limits::default()).unwrap_err().contains("broken"), "{kind:?}");
        }
    }

    #[test]
    fn one_stream_and_nothing_else_is_a_stricter_reading() {
        let limits = Limits::default();
        let read = |blob: &Blob, kind| single(blob, kind, &limits, &Budget::new(limits.unpacked));
        for kind in ALL {
            let one = packed(b"text", kind);
            assert_eq!(read(&one, kind).unwrap().bytes().unwrap().as_ref(), b"text", "{kind:?}");
            let bytes = one.bytes().unwrap();
            for more in [bytes.as_ref(), b"trailing bytes"] {
                let two = Blob::of_bytes([bytes.as_ref(), more].concat());
                assert!(matches!(read(&two, kind), Err(Stop::Unread(why)) if why.contains("follow")), "{kind:?}");
            }
        }
    }

    #[test]
    fn a_member_of_a_zip_must_have_its_size() {
        let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(b"contents").unwrap();
        let blob = Blob::of_bytes(encoder.finish().unwrap());
        let limits = Limits::default();
        let read = |size| deflate(&blob, size, &limits, &Budget::new(limits.unpacked));
        assert_eq!(read(8).unwrap().bytes().unwrap().as_ref(), b"contents");
        assert!(matches!(read(7), Err(Stop::Unread(_))) && matches!(read(9), Err(Stop::Unread(_))));
    }
}
