//! Bytes that a comparison looks at: a range of a file, or of what was unpacked from one.
//!
//! A member of a container that is not compressed is a range of its container, so walking into one copies nothing. What
//! was unpacked stays in memory while it is small, and lies in an unnamed temporary file once it is not.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use kiln_model::digest::Digest;
use sha2::{Digest as _, Sha256};

/// Bytes read at a time.
const CHUNK: usize = 128 << 10;

/// A range of bytes. Cloning shares them.
#[derive(Debug, Clone)]
pub(super) struct Blob {
    source: Source,
    start: u64,
    len: u64,
}

#[derive(Debug, Clone)]
enum Source {
    Memory(Arc<Vec<u8>>),
    File(Arc<File>),
}

impl Blob {
    /// All of a file.
    pub(super) fn of_file(file: File) -> io::Result<Self> {
        let len = file.metadata()?.len();
        Ok(Self { source: Source::File(Arc::new(file)), start: 0, len })
    }

    /// Bytes in memory.
    pub(super) fn of_bytes(bytes: Vec<u8>) -> Self {
        let len = bytes.len() as u64;
        Self { source: Source::Memory(Arc::new(bytes)), start: 0, len }
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Part of it; `None` if it does not reach that far.
    pub(super) fn slice(&self, start: u64, len: u64) -> Option<Self> {
        let end = start.checked_add(len)?;
        (end <= self.len).then(|| Self { source: self.source.clone(), start: self.start + start, len })
    }

    /// Reads at `offset`; less than asked for only at the end.
    pub(super) fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.len.saturating_sub(offset)).unwrap_or(usize::MAX);
        let wanted = buffer.len().min(left);
        if wanted == 0 {
            return Ok(0);
        }
        let buffer = &mut buffer[..wanted];
        match &self.source {
            Source::Memory(bytes) => {
                let from = usize::try_from(self.start + offset).map_err(io::Error::other)?;
                buffer.copy_from_slice(&bytes[from..from + wanted]);
            }
            // A file that shrank since it was opened is an error, never a shorter file.
            Source::File(file) => file.read_exact_at(buffer, self.start + offset)?,
        }
        Ok(wanted)
    }

    /// Up to `most` bytes from its beginning.
    pub(super) fn head(&self, most: usize) -> io::Result<Vec<u8>> {
        let mut head = vec![0; most.min(usize::try_from(self.len).unwrap_or(usize::MAX))];
        self.read_at(0, &mut head)?;
        Ok(head)
    }

    /// All of it. The caller has looked at its length.
    pub(super) fn bytes(&self) -> io::Result<Cow<'_, [u8]>> {
        let len = usize::try_from(self.len).map_err(io::Error::other)?;
        match &self.source {
            Source::Memory(bytes) => {
                let from = usize::try_from(self.start).map_err(io::Error::other)?;
                Ok(Cow::Borrowed(&bytes[from..from + len]))
            }
            Source::File(_) => self.head(len).map(Cow::Owned),
        }
    }

    /// A reader of all of it.
    pub(super) fn reader(&self) -> Reader<'_> {
        Reader { blob: self, at: 0 }
    }

    /// Whether both have the same bytes.
    pub(super) fn equals(&self, other: &Self) -> io::Result<bool> {
        if self.len != other.len {
            return Ok(false);
        }
        if let (Source::Memory(_), Source::Memory(_)) = (&self.source, &other.source) {
            return Ok(self.bytes()? == other.bytes()?);
        }
        let chunk = CHUNK.min(usize::try_from(self.len).unwrap_or(CHUNK));
        let (mut ours, mut theirs) = (vec![0; chunk], vec![0; chunk]);
        let mut at = 0;
        while at < self.len {
            let read = self.read_at(at, &mut ours)?;
            other.read_at(at, &mut theirs[..read])?;
            if ours[..read] != theirs[..read] {
                return Ok(false);
            }
            at += read as u64;
        }
        Ok(true)
    }

    /// The digest of its bytes.
    pub(super) fn digest(&self) -> io::Result<Digest> {
        let mut hasher = Sha256::new();
        let mut buffer = vec![0; CHUNK.min(usize::try_from(self.len).unwrap_or(CHUNK))];
        let mut at = 0;
        while at < self.len {
            let read = self.read_at(at, &mut buffer)?;
            hasher.update(&buffer[..read]);
            at += read as u64;
        }
        Ok(Digest::from_bytes(hasher.finalize().into()))
    }
}

/// Reads a blob from its beginning.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    blob: &'a Blob,
    at: u64,
}

impl Read for Reader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.blob.read_at(self.at, buffer)?;
        self.at += read as u64;
        Ok(read)
    }
}

impl Seek for Reader<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.blob.len.checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        self.at = at.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}

/// Takes what is unpacked: in memory up to a bound, in a temporary file beyond it.
#[derive(Debug)]
pub(super) struct Keep {
    memory: Vec<u8>,
    file: Option<File>,
    len: u64,
    bound: usize,
}

impl Keep {
    /// With `bound` bytes in memory.
    pub(super) fn new(bound: u64) -> Self {
        Self { memory: Vec::new(), file: None, len: 0, bound: usize::try_from(bound).unwrap_or(usize::MAX) }
    }

    /// Adds bytes.
    pub(super) fn push(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.len += bytes.len() as u64;
        if let Some(file) = &mut self.file {
            return file.write_all(bytes);
        }
        self.memory.extend_from_slice(bytes);
        if self.memory.len() > self.bound {
            let mut file = tempfile::tempfile()?;
            file.write_all(&self.memory)?;
            self.memory = Vec::new();
            self.file = Some(file);
        }
        Ok(())
    }

    /// All that was added.
    pub(super) fn done(self) -> Blob {
        match self.file {
            Some(file) => Blob { source: Source::File(Arc::new(file)), start: 0, len: self.len },
            None => Blob::of_bytes(self.memory),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(bytes: &[u8], bound: u64) -> Blob {
        let mut keep = Keep::new(bound);
        bytes.chunks(7).for_each(|chunk| keep.push(chunk).unwrap());
        keep.done()
    }

    #[test]
    fn what_lies_in_a_file_reads_as_what_lies_in_memory() {
        let bytes: Vec<u8> = (0..CHUNK * 2 + 5).map(|i| (i % 249) as u8).collect();
        let (memory, file) = (kept(&bytes, 1 << 30), kept(&bytes, 100));
        assert!(matches!((&memory.source, &file.source), (Source::Memory(_), Source::File(_))));
        assert!(memory.equals(&file).unwrap() && file.equals(&memory).unwrap());
        assert_eq!((memory.digest().unwrap(), file.digest().unwrap()), (Digest::of(&bytes), Digest::of(&bytes)));
        let (a, b) = (memory.slice(10, 20).unwrap(), file.slice(10, 20).unwrap());
        assert_eq!((a.bytes().unwrap(), b.bytes().unwrap()), ((&bytes[10..30]).into(), (&bytes[10..30]).into()));
        let mut all = Vec::new();
        file.reader().read_to_end(&mut all).unwrap();
        assert_eq!(all, bytes);
        assert_eq!(memory.slice(5, 5).unwrap().read_at(u64::MAX, &mut [0; 4]).unwrap(), 0);
        assert!(file.slice(bytes.len() as u64, 1).is_none() && file.slice(u64::MAX, 2).is_none());
    }

    #[test]
    fn one_byte_makes_two_blobs_differ() {
        let bytes = vec![1; CHUNK + 1];
        let mut other = bytes.clone();
        other[CHUNK] = 2;
        assert!(!kept(&bytes, 10).equals(&kept(&other, 10)).unwrap());
        assert!(!kept(&bytes, 10).equals(&kept(&bytes[1..], 10)).unwrap());
        assert!(kept(b"", 10).equals(&kept(b"", 10)).unwrap());
    }
}
