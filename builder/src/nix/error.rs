//! Why a cache could not be read or written, and whose business that is.

use std::io;
use std::path::PathBuf;

use kiln_model::format::cache_info::CacheInfoError;
use kiln_model::format::nar::NarError;
use kiln_model::format::narinfo::{Compression, NarInfoError};
use kiln_model::format::realisation::RealisationError;
use kiln_model::format::signature::{KeyError, Untrusted};
use kiln_model::store_path::StorePath;

use super::dump::DumpError;
use crate::exit::Kind;
use crate::fetch::Refusal;
use crate::store::StoreError;

/// Why a cache could not be read or written. A cache is named by the address that the user gave it.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// Not an address of a cache.
    #[error("{address:?} is not a cache: expected a directory, or an address of file, http or https")]
    Address {
        /// As given.
        address: String,
    },
    /// A key that is none.
    #[error("reading the key {what}")]
    Key {
        /// Which.
        what: String,
        /// Why not.
        source: KeyError,
    },
    /// No answer.
    #[error("asking {cache} for {file}")]
    Unreachable {
        /// The cache.
        cache: String,
        /// Which of its files.
        file: String,
        /// Why not.
        source: Refusal,
    },
    /// A file cannot be read or written.
    #[error("{act} {}", path.display())]
    Io {
        /// What was tried.
        act: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// No cache, or one for another store.
    #[error("{cache}")]
    Info {
        /// The cache.
        cache: String,
        /// Why not.
        source: CacheInfoError,
    },
    /// No `nix-cache-info`.
    #[error("{cache} has no nix-cache-info: it is not a binary cache")]
    NotACache {
        /// The address.
        cache: String,
    },
    /// A narinfo that is none.
    #[error("{cache}: the narinfo of {path}")]
    NarInfo {
        /// The cache.
        cache: String,
        /// Of what.
        path: StorePath,
        /// What is wrong.
        source: NarInfoError,
    },
    /// A narinfo larger than any.
    #[error("{cache}: {file} is larger than {limit} bytes")]
    TooLarge {
        /// The cache.
        cache: String,
        /// Which file.
        file: String,
        /// The most it may have.
        limit: u64,
    },
    /// Nobody trusted vouches for it.
    #[error("{cache}: {path} is not trusted")]
    Untrusted {
        /// The cache.
        cache: String,
        /// What is not trusted.
        path: StorePath,
        /// Why not.
        source: Untrusted,
    },
    /// A field that does not hold.
    #[error("{cache}: {field} of {path} does not hold: expected {expected}, found {found}")]
    Field {
        /// The cache.
        cache: String,
        /// Of what.
        path: StorePath,
        /// Which field of its narinfo.
        field: &'static str,
        /// What should be.
        expected: String,
        /// What is.
        found: String,
    },
    /// A narinfo without its archive.
    #[error("{cache} has a narinfo of {path}, and not the archive {url} that it names")]
    NoArchive {
        /// The cache.
        cache: String,
        /// Of what.
        path: StorePath,
        /// Where it should be.
        url: String,
    },
    /// Bytes that do not decompress.
    #[error("{cache}: the archive of {path} is not {compression}")]
    Compressed {
        /// The cache.
        cache: String,
        /// Of what.
        path: StorePath,
        /// What its narinfo says.
        compression: Compression,
        /// What is wrong.
        source: io::Error,
    },
    /// Not an archive.
    #[error("{cache}: the archive of {path}")]
    Archive {
        /// The cache.
        cache: String,
        /// Of what.
        path: StorePath,
        /// What is wrong.
        source: NarError,
    },
    /// Paths that name each other.
    #[error("{path} and others name each other in a circle")]
    Circle {
        /// One of them.
        path: StorePath,
    },
    /// No cache has it.
    #[error("{path} is in none of {caches} caches")]
    Nowhere {
        /// What.
        path: StorePath,
        /// How many were asked.
        caches: usize,
    },
    /// The cache says something else of it.
    #[error(
        "the {what} of {of} is {ours} here and {theirs} in {cache}: two builds differ, or one was altered; compare before publishing"
    )]
    Disagree {
        /// The cache.
        cache: String,
        /// Of what: a path, or an output of a derivation.
        of: String,
        /// What of it.
        what: &'static str,
        /// The store's.
        ours: String,
        /// The cache's.
        theirs: String,
    },
    /// A realisation that is none.
    #[error("{cache}: the realisation {file}")]
    Realisation {
        /// The cache.
        cache: String,
        /// Which of its files.
        file: String,
        /// What is wrong.
        source: RealisationError,
    },
    /// No place to publish to.
    #[error(
        "publishing to {scheme}:// is not supported: publish to a directory, and copy that with a tool for {scheme}, \
         the files below nar first and those that end in .narinfo last"
    )]
    Scheme {
        /// What the address begins with.
        scheme: String,
    },
    /// An address with settings in it.
    #[error("{address:?} has parameters: leave them out, and say --compression and --key instead")]
    Parameters {
        /// As given.
        address: String,
    },
    /// An address with a password in it.
    #[error("the address of {host} holds credentials, which other users can see: write them into ~/.netrc instead")]
    Secret {
        /// Whose address.
        host: String,
    },
    /// A server that takes no files, or none from this user.
    #[error(
        "{cache} answered {status} when {file} was put there: it takes no uploads, or other credentials than $NETRC or \
         ~/.netrc has for it"
    )]
    Unwelcome {
        /// The cache.
        cache: String,
        /// Which file.
        file: String,
        /// What it answered.
        status: u16,
    },
    /// A file that could not be sent.
    #[error("putting {file} into {cache}")]
    NotTaken {
        /// The cache.
        cache: String,
        /// Which file.
        file: String,
        /// Why not.
        source: Refusal,
    },
    /// A tree of the store cannot be read.
    #[error("reading {path}")]
    Dump {
        /// Which.
        path: StorePath,
        /// Why.
        source: DumpError,
    },
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl CacheError {
    /// Who has to act on it.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Address { .. } | Self::Key { .. } | Self::Info { .. } | Self::NotACache { .. } => Kind::BadInput,
            Self::Scheme { .. } | Self::Parameters { .. } | Self::Secret { .. } => Kind::BadInput,
            Self::Unwelcome { .. } | Self::NotTaken { .. } => Kind::Host,
            Self::Disagree { .. } => Kind::Disagreement,
            Self::Unreachable { .. } | Self::Io { .. } | Self::Dump { .. } | Self::Nowhere { .. } => Kind::Host,
            Self::NoArchive { .. } => Kind::Host,
            Self::NarInfo { .. }
            | Self::TooLarge { .. }
            | Self::Untrusted { .. }
            | Self::Field { .. }
            | Self::Compressed { .. }
            | Self::Archive { .. }
            | Self::Circle { .. }
            | Self::Realisation { .. } => Kind::Tampered,
            Self::Store(error) => error.kind(),
        }
    }
}
