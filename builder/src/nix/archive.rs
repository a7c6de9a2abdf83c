//! One archive of a cache, restored and held against its narinfo: size and digest of the file, size and digest of what it
//! decompresses to, the content address if nobody signed it. What is compressed is never believed for its size.

use std::cell::RefCell;
use std::io::{self, BufRead, BufReader, Read};
use std::rc::Rc;

use kiln_model::digest::Digest;
use kiln_model::format::nar::NarError;
use kiln_model::format::narinfo::{Compression, NarInfo};
use kiln_model::store_path::spelled;
use sha2::{Digest as _, Sha256};

use super::address::contents_address;
use super::cache::{Body, Cache};
use super::error::CacheError;
use super::substitute::Trusted;
use crate::store::{Restored, Store, StoreError, TreeLimits};

/// The most memory that decompressing may take: what xz's largest preset needs.
const MOST_MEMORY: u64 = 96 << 20;

/// The largest window of zstd that is taken, as a power of two: 128 MiB is what the format's command takes without being told.
const LARGEST_WINDOW: u32 = 27;

/// Fetches what `info` describes and holds it against everything that is said of it.
pub(super) fn restore(
    store: &Store,
    cache: &Cache<'_>,
    info: &NarInfo,
    trusted: &Trusted,
) -> Result<Restored, CacheError> {
    let field = |field, expected: String, found: String| CacheError::Field {
        cache: cache.shown().into(),
        path: info.path.clone(),
        field,
        expected,
        found,
    };
    let body = cache.open(&info.url)?.ok_or_else(|| CacheError::NoArchive {
        cache: cache.shown().into(),
        path: info.path.clone(),
        url: info.url.clone(),
    })?;
    if let (Some(expected), Some(found)) = (info.file_size, body.size)
        && expected != found
    {
        return Err(field("FileSize", expected.to_string(), found.to_string()));
    }
    let seen = Rc::new(RefCell::new(Seen::default()));
    // No compression that is read makes more of an archive than an eighth and a little.
    let most = info.file_size.unwrap_or_else(|| info.nar_size.saturating_add(info.nar_size / 8 + 65_536));
    let mut file = Counted { reader: body, digest: Sha256::new(), limit: most, seen: Rc::clone(&seen) };
    let restored = decompressed(&mut file, info, &seen, |nar| {
        store.restore(nar, TreeLimits { bytes: info.nar_size, ..TreeLimits::default() })
    });
    // Whatever went wrong inside, other bytes than announced are what matters, if the rest can be had.
    let drained = io::copy(&mut file, &mut io::sink());
    let found = Digest::from_bytes(file.digest.finalize().into());
    let seen = seen.borrow_mut().take();
    match (seen.fault, &drained) {
        (Some(Fault::Reading(error)), _) => return Err(cache.unread(&info.url, error)),
        (Some(Fault::TooLong), _) if info.file_size.is_some() => {
            return Err(field("FileSize", most.to_string(), "more".into()));
        }
        (Some(Fault::NarTooLong), _) if info.file_hash.is_none_or(|expected| expected == found) => {
            return Err(field("NarSize", info.nar_size.to_string(), "more".into()));
        }
        _ => {}
    }
    if let Some(expected) = info.file_size.filter(|expected| *expected != seen.bytes) {
        return Err(field("FileSize", expected.to_string(), seen.bytes.to_string()));
    }
    if let Some(expected) = info.file_hash.filter(|expected| *expected != found) {
        return Err(field("FileHash", spelled(&expected), spelled(&found)));
    }
    let restored = restored.map_err(|error| match error {
        StoreError::Nar(NarError::Io(source)) => CacheError::Compressed {
            cache: cache.shown().into(),
            path: info.path.clone(),
            compression: info.compression,
            source,
        },
        StoreError::Nar(source) => CacheError::Archive { cache: cache.shown().into(), path: info.path.clone(), source },
        other => other.into(),
    })?;
    if restored.nar_size() != info.nar_size {
        return Err(field("NarSize", info.nar_size.to_string(), restored.nar_size().to_string()));
    }
    if restored.nar_hash() != info.nar_hash {
        return Err(field("NarHash", info.nar_hash.to_string(), restored.nar_hash().to_string()));
    }
    match trusted {
        Trusted::Signed(_) => {}
        Trusted::Addressed => {
            let address = info.address.as_ref().expect("what is trusted for its address has one");
            let found = contents_address(restored.place(), (&info.path, &info.references), address)
                .map_err(|source| CacheError::Dump { path: info.path.clone(), source })?;
            if found != *address {
                return Err(field("CA", address.to_string(), found.to_string()));
            }
        }
    }
    Ok(restored)
}

/// What was seen of a file while others read it.
#[derive(Debug, Default)]
struct Seen {
    bytes: u64,
    fault: Option<Fault>,
}

/// What ended the reading, apart from the bytes themselves.
#[derive(Debug)]
enum Fault {
    /// The cache.
    Reading(io::Error),
    /// More compressed bytes than there may be.
    TooLong,
    /// More bytes decompressed than there may be.
    NarTooLong,
}

impl Seen {
    fn take(&mut self) -> Self {
        std::mem::take(self)
    }
}

/// Hashes and counts a file as it is fetched, up to a limit.
struct Counted {
    reader: Body,
    digest: Sha256,
    limit: u64,
    seen: Rc<RefCell<Seen>>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut seen = self.seen.borrow_mut();
        if matches!(seen.fault, Some(Fault::Reading(_) | Fault::TooLong)) {
            return Err(io::Error::other("the file could not be read to its end"));
        }
        match self.reader.read(buffer) {
            Ok(count) => {
                seen.bytes += count as u64;
                if seen.bytes > self.limit {
                    seen.fault = Some(Fault::TooLong);
                    return Err(io::Error::other("the file is longer than announced"));
                }
                self.digest.update(&buffer[..count]);
                Ok(count)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(error),
            Err(error) => {
                seen.fault = Some(Fault::Reading(error));
                Err(io::Error::other("the file could not be read"))
            }
        }
    }
}

/// Ends what decompresses to more than it should: a bomb is not unpacked.
struct Bounded<R> {
    reader: R,
    left: u64,
    seen: Rc<RefCell<Seen>>,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        match self.left.checked_sub(count as u64) {
            Some(left) => {
                self.left = left;
                Ok(count)
            }
            None => {
                self.seen.borrow_mut().fault.get_or_insert(Fault::NarTooLong);
                Err(io::Error::other("it decompresses to more than its narinfo says"))
            }
        }
    }
}

/// What `file`, compressed with xz, decompresses to, in bounded memory. All streams in it, to its end.
pub fn decoder_of_xz<R: BufRead>(file: R) -> io::Result<impl Read> {
    let stream = liblzma::stream::Stream::new_stream_decoder(MOST_MEMORY, liblzma::stream::CONCATENATED)?;
    Ok(liblzma::bufread::XzDecoder::new_stream(file, stream))
}

/// Calls `read` with the archive in `file`. Decoders read on after the first frame, so that bytes after the archive are seen.
fn decompressed<T>(
    file: &mut Counted,
    info: &NarInfo,
    seen: &Rc<RefCell<Seen>>,
    read: impl FnOnce(&mut dyn Read) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let bad = |error: io::Error| StoreError::Nar(NarError::Io(error));
    let file = BufReader::with_capacity(128 << 10, file);
    let decoder: Box<dyn Read + '_> = match info.compression {
        Compression::None => Box::new(file),
        Compression::Zstd => {
            let mut decoder = zstd::Decoder::with_buffer(file).map_err(bad)?;
            decoder.window_log_max(LARGEST_WINDOW).map_err(bad)?;
            Box::new(decoder)
        }
        Compression::Xz => Box::new(decoder_of_xz(file).map_err(bad)?),
        Compression::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(file)),
        Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(file)),
    };
    read(&mut Bounded { reader: decoder, left: info.nar_size, seen: Rc::clone(seen) })
}
