//! NAR: Nix's archive of a tree, with one byte sequence per tree.
//!
//! Printing is a few frames around each file's bytes, so that a caller can read a file straight into the buffer that is
//! hashed; a property test in `kiln` holds them against the crate nix-archive. Reading, which is where hostile bytes come
//! from, and the scan for references are that crate's, used in this module only, with [`Limits`] on what it does not bound.

use std::io::{self, Read};

pub use nix_archive::nar::ReferenceScanner;
use nix_archive::nar::{Error as CrateError, ReadEvent, ReferencePattern};

use crate::store_path::StorePath;

/// Directories nested deeper are refused, as Nix's current version and the crate do.
pub const MAX_DEPTH: usize = 64;

/// The longest name of an entry: `NAME_MAX`, limits.h(0p).
pub const MAX_ENTRY_NAME: usize = 255;

/// The longest link target: `PATH_MAX` less its NUL.
pub const MAX_TARGET: usize = 4095;

/// What a NAR may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Entries, directories included.
    pub entries: u64,
    /// Bytes of all files together.
    pub bytes: u64,
}

/// Why this is not a NAR, or not one that is taken.
#[derive(Debug, thiserror::Error)]
pub enum NarError {
    /// Not a NAR as Nix writes it.
    #[error("not a NAR: {0}")]
    Malformed(String),
    /// Nested too deeply.
    #[error("directories are nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
    /// A name that no file system takes.
    #[error("an entry's name has {length} bytes, expected at most {MAX_ENTRY_NAME}")]
    NameTooLong {
        /// Its length.
        length: usize,
    },
    /// A link target that no file system takes.
    #[error("a link's target is empty, longer than {MAX_TARGET} bytes, or contains NUL")]
    Target,
    /// More entries or bytes than the limit.
    #[error("the archive holds more than {limit} {what}")]
    TooLarge {
        /// Entries or bytes.
        what: &'static str,
        /// How many are taken.
        limit: u64,
    },
    /// The reader, or the visitor, failed.
    #[error("reading the archive")]
    Io(#[from] io::Error),
}

/// One step through an archive, in its order: a directory, its entries sorted by the bytes of their names, its end.
#[derive(Debug)]
pub enum Event<'a> {
    /// A directory starts. Only the root has no name.
    DirectoryStart {
        /// Its name.
        name: Option<&'a [u8]>,
    },
    /// The innermost directory ends.
    DirectoryEnd,
    /// A regular file.
    File {
        /// Its name.
        name: Option<&'a [u8]>,
        /// Whether it may be executed.
        executable: bool,
        /// Length of its contents.
        size: u64,
        /// Its contents; what is not read is skipped.
        contents: Contents<'a>,
    },
    /// A symbolic link.
    Symlink {
        /// Its name.
        name: Option<&'a [u8]>,
        /// What it holds.
        target: &'a [u8],
    },
}

/// The contents of one file, read once.
pub struct Contents<'a>(&'a mut dyn Read);

impl Read for Contents<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl std::fmt::Debug for Contents<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Contents")
    }
}

/// Walks an archive. Events before an error were of a malformed archive: what was made of them must be thrown away.
pub fn decode(
    reader: &mut dyn Read,
    limits: &Limits,
    mut visit: impl FnMut(Event<'_>) -> io::Result<()>,
) -> Result<(), NarError> {
    let (mut entries, mut bytes) = (0_u64, 0_u64);
    let mut refused = None;
    let walked = nix_archive::nar::decode_events_reader(reader, |event| {
        let step = || -> Result<(), NarError> {
            let (name, size) = match &event {
                ReadEvent::DirectoryStart { name } | ReadEvent::Symlink { name, .. } => (*name, 0),
                ReadEvent::Regular { name, contents, .. } => (*name, contents.size()),
                ReadEvent::DirectoryEnd { .. } => return Ok(visit(Event::DirectoryEnd)?),
            };
            let length = name.map_or(0, <[u8]>::len);
            if length > MAX_ENTRY_NAME {
                return Err(NarError::NameTooLong { length });
            }
            entries += 1;
            bytes = bytes.saturating_add(size);
            if entries > limits.entries {
                return Err(NarError::TooLarge { what: "entries", limit: limits.entries });
            }
            if bytes > limits.bytes {
                return Err(NarError::TooLarge { what: "bytes", limit: limits.bytes });
            }
            match event {
                ReadEvent::DirectoryStart { name } => visit(Event::DirectoryStart { name })?,
                ReadEvent::Symlink { name, target } => {
                    if target.is_empty() || target.len() > MAX_TARGET || target.contains(&0) {
                        return Err(NarError::Target);
                    }
                    visit(Event::Symlink { name, target })?;
                }
                ReadEvent::Regular { name, executable, mut contents } => {
                    visit(Event::File { name, executable, size, contents: Contents(&mut contents) })?;
                }
                ReadEvent::DirectoryEnd { .. } => {}
            }
            Ok(())
        };
        step().map_err(|error| {
            refused = Some(error);
            CrateError::Io(io::Error::other("refused by the visitor"))
        })
    });
    match (walked, refused) {
        (Ok(()), _) => Ok(()),
        (Err(_), Some(refused)) => Err(refused),
        (Err(CrateError::MaxDepth(_)), None) => Err(NarError::TooDeep),
        (Err(CrateError::Io(error)), None) => Err(NarError::Io(error)),
        (Err(other), None) => Err(NarError::Malformed(other.to_string())),
    }
}

/// Finds which of `candidates` are named in the bytes shown to it, by hash part; matches are indices.
pub fn reference_scanner<'a>(candidates: impl IntoIterator<Item = &'a StorePath>) -> ReferenceScanner {
    ReferencePattern::new(candidates.into_iter().map(StorePath::hash_part))
        .expect("the hash part of a StorePath is 32 characters of Nix's alphabet")
        .scanner()
}

/// The frames of an archive, appended to a buffer.
///
/// The caller keeps the grammar: [`frame::start`], then one node; in a directory, entries in byte order, each [`frame::entry`], node,
/// [`frame::entry_end`].
pub mod frame {
    /// The first bytes of any archive.
    pub fn start(out: &mut Vec<u8>) {
        string(out, b"nix-archive-1");
    }

    /// What precedes the node of an entry called `name`.
    pub fn entry(out: &mut Vec<u8>, name: &[u8]) {
        for text in [b"entry".as_slice(), b"(", b"name", name, b"node"] {
            string(out, text);
        }
    }

    /// What follows the node of an entry.
    pub fn entry_end(out: &mut Vec<u8>) {
        string(out, b")");
    }

    /// The start of a directory.
    pub fn directory(out: &mut Vec<u8>) {
        for text in [b"(".as_slice(), b"type", b"directory"] {
            string(out, text);
        }
    }

    /// The end of a directory.
    pub fn directory_end(out: &mut Vec<u8>) {
        string(out, b")");
    }

    /// A link.
    pub fn symlink(out: &mut Vec<u8>, target: &[u8]) {
        for text in [b"(".as_slice(), b"type", b"symlink", b"target", target, b")"] {
            string(out, text);
        }
    }

    /// What precedes the `size` bytes of a file that is not executable.
    pub fn file(out: &mut Vec<u8>, size: u64) {
        for text in [b"(".as_slice(), b"type", b"regular", b"contents"] {
            string(out, text);
        }
        out.extend(size.to_le_bytes());
    }

    /// What precedes the `size` bytes of an executable file.
    pub fn executable(out: &mut Vec<u8>, size: u64) {
        for text in [b"(".as_slice(), b"type", b"regular", b"executable", b"", b"contents"] {
            string(out, text);
        }
        out.extend(size.to_le_bytes());
    }

    /// What follows the `size` bytes of a file.
    pub fn file_end(out: &mut Vec<u8>, size: u64) {
        pad(out, size);
        string(out, b")");
    }

    fn string(out: &mut Vec<u8>, text: &[u8]) {
        out.extend((text.len() as u64).to_le_bytes());
        out.extend_from_slice(text);
        pad(out, text.len() as u64);
    }

    fn pad(out: &mut Vec<u8>, length: u64) {
        out.extend(std::iter::repeat_n(0, (8 - length % 8) as usize % 8));
    }
}
