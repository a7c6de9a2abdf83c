//! Why the store could not do something, and whose business that is.

use std::io;
use std::path::{Path, PathBuf};

use crate::exit::Kind;
use kiln_model::derivation::DerivationError;
use kiln_model::digest::{Digest, NarHash};
use kiln_model::format::nar::NarError;
use kiln_model::store_path::StorePath;
use kiln_model::tree::EntryPath;

/// Why the store could not do something.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A call to the system failed.
    #[error("{act} {}", path.display())]
    Io {
        /// What was tried.
        act: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// No space left.
    #[error("no space left for {}: run `kiln store gc`, or set KILN_STORE to a larger file system", path.display())]
    Full {
        /// What was being written.
        path: PathBuf,
        /// The system's words.
        source: io::Error,
    },
    /// The store cannot be written.
    #[error("the store is read-only at {}: set KILN_STORE to a directory that can be written", path.display())]
    ReadOnly {
        /// What was being written.
        path: PathBuf,
        /// The system's words.
        source: io::Error,
    },
    /// A newer kiln made the store.
    #[error("the store {} has schema {found}, this kiln knows up to {known}: use a newer kiln, or another store", path.display())]
    NewerSchema {
        /// The store.
        path: PathBuf,
        /// What it says.
        found: u32,
        /// What is known.
        known: u32,
    },
    /// A file of the store's own that does not parse.
    #[error("{} is damaged ({reason}): remove it, then run `kiln store verify --rebuild-index`", path.display())]
    Damaged {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The index failed.
    #[error("the store's index")]
    Index(#[from] rusqlite::Error),
    /// Not in the store.
    #[error("{path} is not in the store")]
    NotValid {
        /// What was asked for.
        path: StorePath,
    },
    /// A tree of another digest than recorded.
    #[error("{}: its NAR hash is {found}, expected {expected}: it was altered on disk; run `kiln store verify`", path.display())]
    Tampered {
        /// The tree.
        path: PathBuf,
        /// As recorded.
        expected: NarHash,
        /// As it is.
        found: NarHash,
    },
    /// A file of another digest than asked for.
    #[error("{what}: its sha256 is {found}, expected {expected}")]
    WrongFile {
        /// Which file.
        what: String,
        /// As asked for.
        expected: Digest,
        /// As it is.
        found: Digest,
    },
    /// An outcome that the store cannot file.
    #[error("not an outcome: {0}")]
    Outcome(String),
    /// A derivation that is not one.
    #[error("adding a derivation")]
    Derivation(#[from] DerivationError),
    /// An archive that is not one, or is not taken.
    #[error(transparent)]
    Nar(#[from] NarError),
    /// A tree that is not taken.
    #[error(transparent)]
    Tree(#[from] TreeError),
}

/// Why a tree is not taken into the store.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// Nothing is there.
    #[error("{} was not made", path.display())]
    Missing {
        /// What should be there.
        path: PathBuf,
    },
    /// An entry that a NAR cannot hold, or that must not leave a sandbox.
    #[error("{entry:?} is {what}: only regular files, directories and symbolic links are taken")]
    Refused {
        /// Path relative to the tree's root; empty for the root itself.
        entry: EntryPath,
        /// What it is.
        what: Refusal,
    },
    /// A name that would change with the tree's path, and with it the place among its siblings.
    #[error(
        "{entry:?} is named after an output of its own build, whose path follows from the contents: name it otherwise"
    )]
    OwnName {
        /// Path relative to the tree's root.
        entry: EntryPath,
    },
    /// Something wrote to it meanwhile.
    #[error("{entry:?} changed while it was read")]
    Changed {
        /// Path relative to the tree's root.
        entry: EntryPath,
    },
    /// More than the limit.
    #[error("the tree holds more than {limit} {what}")]
    TooLarge {
        /// EntryPath or entries.
        what: &'static str,
        /// How many are taken.
        limit: u64,
    },
    /// Reading it failed.
    #[error("reading {entry:?}")]
    Read {
        /// Path relative to the tree's root.
        entry: EntryPath,
        /// Why.
        source: io::Error,
    },
}

/// What an entry is that is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
    /// A character or block device.
    Device,
    /// Character device 0:0, overlayfs' mark of a deleted file.
    Whiteout,
    /// A file with the set-user-id or set-group-id bit.
    SetId,
    /// A file or directory with attributes in the `security` namespace, such as capabilities.
    SecurityAttribute,
    /// Below more directories than a NAR may nest.
    TooDeep,
    /// On another file system than the tree's root.
    OtherFileSystem,
    /// A root that others may write.
    WritableRoot,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Fifo => "a named pipe",
            Self::Socket => "a socket",
            Self::Device => "a device",
            Self::Whiteout => "an overlay's whiteout",
            Self::SetId => "set-user-id or set-group-id",
            Self::SecurityAttribute => "marked with a security attribute",
            Self::TooDeep => "nested deeper than 64 levels",
            Self::OtherFileSystem => "on another file system",
            Self::WritableRoot => "writable by group or others",
        })
    }
}

impl StoreError {
    /// Who has to act on it.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Io { .. } | Self::Full { .. } | Self::ReadOnly { .. } | Self::Index(_) | Self::Damaged { .. } => {
                Kind::Host
            }
            Self::Tampered { .. } | Self::WrongFile { .. } => Kind::Tampered,
            Self::Derivation(error) if error.is_tampering() => Kind::Tampered,
            Self::Tree(TreeError::Read { .. }) | Self::Nar(NarError::Io(_)) => Kind::Host,
            Self::NewerSchema { .. }
            | Self::NotValid { .. }
            | Self::Outcome(_)
            | Self::Derivation(_)
            | Self::Nar(_)
            | Self::Tree(
                TreeError::Missing { .. }
                | TreeError::Refused { .. }
                | TreeError::OwnName { .. }
                | TreeError::Changed { .. }
                | TreeError::TooLarge { .. },
            ) => Kind::BadInput,
        }
    }
}

/// Turns an error of the system into a [`StoreError`] that says what was tried on what.
pub(super) fn failed<E: Into<io::Error>>(act: &'static str, path: &Path) -> impl FnOnce(E) -> StoreError {
    let path = path.to_owned();
    move |error| {
        let source: io::Error = error.into();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StoreError::Full { path, source },
            io::ErrorKind::ReadOnlyFilesystem => StoreError::ReadOnly { path, source },
            _ => StoreError::Io { act, path, source },
        }
    }
}
