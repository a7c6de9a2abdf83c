//! What is in a container: its members in their order, with all that its headers say of them.
//!
//! Nothing is copied: contents are ranges of the container, or unpacked when they are asked for. A name is bytes and is
//! never used as a path. What a container says that is no member's is kept apart ([`Listing::around`]).

mod ar;
mod tar;
mod zip;

use std::io;

use kiln_model::digest::Digest;
use kiln_model::normalise::Normaliser;

use super::blob::Blob;

pub(super) use ar::list as ar;
pub(super) use tar::list as tar;
pub(super) use zip::list as zip;

/// What is in a container.
#[derive(Debug)]
pub(super) struct Listing {
    /// What it is called.
    pub(super) what: &'static str,
    /// All of it.
    pub(super) bytes: Blob,
    /// Its members in their order.
    pub(super) members: Vec<Member>,
    /// What makes two readers disagree about it: duplicate names, bytes around the records, headers that disagree.
    pub(super) unsound: Vec<String>,
    /// What it says that is no member's, by name.
    pub(super) around: Vec<(&'static str, String)>,
    /// The normaliser that forgets the order of members.
    pub(super) order: Option<Normaliser>,
    /// The normaliser that forgets times, owners and modes.
    pub(super) metadata: Option<Normaliser>,
}

/// A member.
#[derive(Debug, Clone)]
pub(super) struct Member {
    /// Its name.
    pub(super) name: Vec<u8>,
    /// What it is.
    pub(super) kind: MemberKind,
    /// Seconds since 1970, if that is what the container keeps; local time counted as if it were UTC for a zip.
    pub(super) time: Option<i64>,
    /// Permissions.
    pub(super) mode: Option<u32>,
    /// User and group.
    pub(super) owner: Option<String>,
    /// Anything else that its headers say, by name.
    pub(super) header: Vec<(&'static str, String)>,
    /// How it is packed, if members are packed one by one.
    pub(super) method: Option<String>,
    /// Digest of its headers as they stand, without what follows from the length of its contents; a tar's only.
    pub(super) raw: Option<Digest>,
    /// What it holds.
    pub(super) contents: Contents,
}

/// What a member is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum MemberKind {
    /// A file.
    File,
    /// A directory.
    Directory,
    /// A link to this.
    Symlink(Vec<u8>),
    /// Another name of this member.
    HardLink(Vec<u8>),
    /// Anything else, in words.
    Other(String),
}

impl MemberKind {
    pub(super) fn word(&self) -> &str {
        match self {
            Self::File => "file",
            Self::Directory => "directory",
            Self::Symlink(_) => "symbolic link",
            Self::HardLink(_) => "hard link",
            Self::Other(word) => word,
        }
    }
}

/// What a member holds.
#[derive(Debug, Clone)]
pub(super) enum Contents {
    /// These bytes.
    Plain(Blob),
    /// These bytes, with a CRC-32.
    Stored {
        /// The bytes.
        blob: Blob,
        /// Their CRC-32, as the header has it.
        crc: u32,
    },
    /// These bytes, packed with deflate.
    Deflated {
        /// Packed.
        blob: Blob,
        /// Bytes when unpacked.
        size: u64,
        /// CRC-32 of what is unpacked.
        crc: u32,
    },
    /// Packed in a way that kiln does not unpack.
    Opaque(Blob),
}

/// Why a container could not be listed.
#[derive(Debug)]
pub(super) enum ListError {
    /// It is none, or a broken one.
    Broken(String),
    /// The host could not read it.
    Read(io::Error),
}

impl From<io::Error> for ListError {
    fn from(error: io::Error) -> Self {
        Self::Read(error)
    }
}

fn broken(why: impl ToString) -> ListError {
    ListError::Broken(why.to_string())
}

/// Names that stand more than once, as reasons not to trust a listing.
fn duplicates(members: &[Member], unsound: &mut Vec<String>) {
    let mut names: Vec<&[u8]> = members.iter().map(|m| m.name.as_slice()).collect();
    names.sort_unstable();
    let mut twice: Vec<&[u8]> = names.windows(2).filter(|w| w[0] == w[1]).map(|w| w[0]).collect();
    twice.dedup();
    if let Some(first) = twice.first() {
        let name = String::from_utf8_lossy(first);
        let others = if twice.len() > 1 { format!(" and {} others", twice.len() - 1) } else { String::new() };
        unsound.push(format!("member {name:?}{others} stands there more than once"));
    }
}

#[cfg(test)]
pub(super) mod tests {
    pub(in crate::diff) use super::tar::tests::made as tar;
}
