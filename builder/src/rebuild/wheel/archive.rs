//! A zip file on disk, read strictly: a wheel, or an sdist of the old kind.
//!
//! Everything that could be seen differently by two readers is refused before any member is read (`kiln_model::format::zip`),
//! and so is what would unpack to far more than it is. Memory is bounded by the directory and by what the caller asks for.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use flate2::Crc;
use flate2::read::DeflateDecoder;
use kiln_model::digest::Digest;
use kiln_model::format::zip::{self, END_LENGTH, End, FLAG_DESCRIPTOR, LOCAL_LENGTH, Local, Record, ZipError};
use kiln_model::wheel::members::{self, Member, MembersError, Method};
use sha2::{Digest as _, Sha256};

use crate::exit::Kind;

/// Bytes at the end of a file that have the end record, with the longest comment.
const TAIL: u64 = END_LENGTH as u64 + 65_535;
/// Bytes that may describe a member after its data.
const DESCRIPTION: u64 = 16;
/// Bytes of a directory of as many members with long names.
const LARGEST_DIRECTORY: u64 = 64 << 20;
/// Bytes that all members together may have.
const LARGEST: u64 = 4 << 30;
/// Archives below this may be packed as tightly as they like.
const HARMLESS: u64 = 256 << 20;
/// How many times its size an archive may unpack to. Text packs to a tenth.
const TIGHTEST: u64 = 100;

/// An archive whose directory was read and believed.
#[derive(Debug)]
pub(super) struct Archive {
    file: File,
    path: PathBuf,
    /// Each member and where its data begins.
    members: Vec<(Member, u64)>,
}

/// Why an archive cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// It cannot be read.
    #[error("reading {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is no archive that is believed.
    #[error("in {}", path.display())]
    Zip {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: ZipError,
    },
    /// Its members are not believed.
    #[error("in {}", path.display())]
    Members {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: MembersError,
    },
    /// A member is not what the directory says.
    #[error("in {}: member {member:?} {what}", path.display())]
    Member {
        /// The file.
        path: PathBuf,
        /// The member.
        member: String,
        /// What is wrong.
        what: String,
    },
    /// It would unpack to too much.
    #[error("{} would unpack to {unpacked} bytes from {packed}: refused as a bomb", path.display())]
    Bomb {
        /// The file.
        path: PathBuf,
        /// Its bytes.
        packed: u64,
        /// What its directory says that its members have.
        unpacked: u64,
    },
}

impl ArchiveError {
    /// What sort of error it is.
    pub fn kind(&self) -> Kind {
        match self {
            // Files that kiln fetched are there; one that is not was named by the user.
            Self::Read { source, .. } if source.kind() == io::ErrorKind::NotFound => Kind::BadInput,
            Self::Read { .. } => Kind::Host,
            Self::Zip { .. } | Self::Members { .. } | Self::Member { .. } | Self::Bomb { .. } => Kind::BadInput,
        }
    }
}

impl Archive {
    /// Opens the archive at `path`.
    pub(super) fn open(path: &Path) -> Result<Self, ArchiveError> {
        let read = |source| ArchiveError::Read { path: path.into(), source };
        let refuse = |source| ArchiveError::Zip { path: path.into(), source };
        let file = File::open(path).map_err(read)?;
        let length = file.metadata().map_err(read)?.len();
        let bytes = |offset: u64, size: u64| -> Result<Vec<u8>, ArchiveError> {
            let mut bytes = vec![0; usize::try_from(size).expect("bounded by the callers")];
            file.read_exact_at(&mut bytes, offset).map_err(read)?;
            Ok(bytes)
        };
        let tail = length.min(TAIL);
        let end = End::find(&bytes(length - tail, tail)?, length).map_err(refuse)?;
        let directory = u64::from(end.offset);
        if u64::from(end.size) > LARGEST_DIRECTORY {
            return Err(ArchiveError::Bomb { path: path.into(), packed: length, unpacked: end.size.into() });
        }
        let records = zip::directory(&bytes(directory, end.size.into())?, directory, end.members).map_err(refuse)?;
        let unbelieved = |source| ArchiveError::Members { path: path.into(), source };
        let members = members::members(&records).map_err(unbelieved)?;
        let mut placed = Vec::new();
        let mut spans = Vec::new();
        for (record, member) in records.iter().zip(members) {
            let at = u64::from(record.offset);
            let header =
                bytes(at.min(length), (length - at.min(length)).min((LOCAL_LENGTH + record.name.len()) as u64))?;
            let local = Local::parse(&header, at).map_err(refuse)?;
            if let Err(what) = local.agrees(record, &header[LOCAL_LENGTH..]) {
                let what = format!("has two headers that disagree about its {what}");
                return Err(ArchiveError::Member { path: path.into(), member: member.name, what });
            }
            let before = LOCAL_LENGTH as u64 + u64::from(local.name_length) + u64::from(local.extra_length);
            let after = at + before + member.packed;
            let described =
                described(record, &bytes(after.min(length), (length - after.min(length)).min(DESCRIPTION))?);
            let Some(described) = described else {
                let what = "has no description after it, or another".into();
                return Err(ArchiveError::Member { path: path.into(), member: member.name, what });
            };
            spans.push((at, before + member.packed + described));
            placed.push((member, at + before));
        }
        let spans = placed.iter().zip(spans).map(|((member, _), (at, size))| (member.name.as_str(), at, size));
        members::contiguous(spans.collect(), directory).map_err(unbelieved)?;
        let unpacked: u64 = placed.iter().map(|(member, _)| member.size).sum();
        if unpacked > LARGEST || unpacked > HARMLESS && unpacked / TIGHTEST > length {
            return Err(ArchiveError::Bomb { path: path.into(), packed: length, unpacked });
        }
        Ok(Self { file, path: path.into(), members: placed })
    }

    /// The members, in the directory's order.
    pub(super) fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().map(|(member, _)| member)
    }

    /// The bytes of a member of at most `most` of them; `None` if there is none of that name.
    pub(super) fn read(&self, name: &str, most: u64) -> Result<Option<Vec<u8>>, ArchiveError> {
        let Some((member, data)) = self.members.iter().find(|(member, _)| member.name == name) else { return Ok(None) };
        if member.size > most {
            return Err(self.member(member, format!("has {} bytes, expected at most {most}", member.size)));
        }
        let mut bytes = Vec::new();
        self.each(member, *data, &mut |part| bytes.extend_from_slice(part))?;
        Ok(Some(bytes))
    }

    /// Digest and size of every member that is a file, by name.
    pub(super) fn digests(&self) -> Result<BTreeMap<String, (Digest, u64)>, ArchiveError> {
        let mut digests = BTreeMap::new();
        for (member, data) in self.members.iter().filter(|(member, _)| !member.is_directory()) {
            let mut hasher = Sha256::new();
            self.each(member, *data, &mut |part| hasher.update(part))?;
            digests.insert(member.name.clone(), (Digest::from_bytes(hasher.finalize().into()), member.size));
        }
        Ok(digests)
    }

    fn member(&self, member: &Member, what: String) -> ArchiveError {
        ArchiveError::Member { path: self.path.clone(), member: member.name.clone(), what }
    }

    /// Hands a member's bytes to `take`, and checks their number and checksum. Nothing is handed on beyond what the directory
    /// says that there is.
    fn each(&self, member: &Member, data: u64, take: &mut dyn FnMut(&[u8])) -> Result<(), ArchiveError> {
        let packed = Span { file: &self.file, at: data, left: member.packed };
        let mut reader: Box<dyn Read> = match member.method {
            Method::Stored => Box::new(packed),
            Method::Deflated => Box::new(DeflateDecoder::new(packed)),
        };
        let (mut crc, mut size) = (Crc::new(), 0);
        let mut buffer = [0; 64 << 10];
        loop {
            let count = match reader.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(self.member(member, format!("cannot be unpacked: {error}"))),
            };
            size += count as u64;
            if size > member.size {
                return Err(self.member(member, format!("unpacks to more than its {} bytes", member.size)));
            }
            crc.update(&buffer[..count]);
            take(&buffer[..count]);
        }
        if size != member.size {
            return Err(self.member(member, format!("unpacks to {size} bytes, its header says {}", member.size)));
        }
        if crc.sum() != member.crc {
            let what = format!("has the checksum {:08x}, its header says {:08x}", crc.sum(), member.crc);
            return Err(self.member(member, what));
        }
        Ok(())
    }
}

/// How many of `bytes`, which follow a member's data, describe it; `None` if they must and do not.
fn described(record: &Record, bytes: &[u8]) -> Option<u64> {
    match record.flags & FLAG_DESCRIPTOR {
        0 => Some(0),
        _ => zip::descriptor(bytes, record).map(|count| count as u64),
    }
}

/// A part of a file.
struct Span<'a> {
    file: &'a File,
    at: u64,
    left: u64,
}

impl Read for Span<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.file.read_at(&mut buffer[..most], self.at)?;
        self.at += count as u64;
        self.left -= count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::{files, packed};
    use super::*;

    fn sound() -> Vec<u8> {
        let file = tempfile::NamedTempFile::new().unwrap();
        packed(file.path(), &files("a", "1", "flit 3.12.0", &[]));
        std::fs::read(file.path()).unwrap()
    }

    fn opened(bytes: &[u8]) -> Result<BTreeMap<String, (Digest, u64)>, ArchiveError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        Archive::open(file.path())?.digests()
    }

    #[test]
    fn members_are_read_and_bounded() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), sound()).unwrap();
        let archive = Archive::open(file.path()).unwrap();
        assert_eq!(archive.read("a/__init__.py", 5).unwrap().unwrap(), b"pass\n");
        assert!(archive.read("a/__init__.py", 4).unwrap_err().to_string().contains("at most 4"));
        assert_eq!(archive.read("b", 4).unwrap(), None);
        assert_eq!(archive.digests().unwrap()["a/__init__.py"], (Digest::of("pass\n"), 5));
    }

    #[test]
    fn every_cut_is_refused_and_never_panics() {
        let whole = sound();
        for length in 0..whole.len() {
            assert!(opened(&whole[..length]).is_err(), "{length}");
        }
        assert!(opened(&[&whole[..], b"\0"].concat()).is_err());
        assert!(opened(&[b"#!/bin/sh\n", &whole[..]].concat()).is_err());
    }

    #[test]
    fn changed_bytes_of_a_member_do_not_pass() {
        let whole = sound();
        let at = whole.windows(4).position(|bytes| bytes == b"PK\x01\x02").unwrap();
        // Data and headers; a flipped bit of a version or an attribute means nothing here.
        let refused = (0..at).filter(|&at| {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x10;
            opened(&bytes).is_err()
        });
        assert!(refused.count() * 10 > at * 9);
    }

    #[test]
    fn what_would_unpack_to_far_more_is_refused_unread() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut writer = ::zip::ZipWriter::new(File::create(file.path()).unwrap());
        let zeros = vec![0; 16 << 20];
        writer.start_file("zeros", ::zip::write::SimpleFileOptions::default()).unwrap();
        for _ in 0..17 {
            io::Write::write_all(&mut writer, &zeros).unwrap();
        }
        writer.finish().unwrap();
        let error = Archive::open(file.path()).unwrap_err();
        assert!(matches!(error, ArchiveError::Bomb { .. }), "{error}");
        assert_eq!(error.kind(), Kind::BadInput);
    }
}
