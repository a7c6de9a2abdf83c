//! Bytes from mirrors and caches: the only module that connects to anybody (`nix` also listens, if asked to).
//!
//! A lock says what is wanted, by archive, path, size and digest; where it comes from is the user's configuration
//! (ARCHITECTURE.md, decision 1). Nothing that is returned has another digest than asked for.
//!
//! Mirrors, in the order in which they are asked: kiln's configuration ([`crate::config`]), apt's sources ([`apt`]), pip's
//! indices ([`pip`]), for an input with an address of its own that address. No host is compiled in. Proxies and
//! credentials are the host's: the environment's, apt's, netrc's.

use std::fmt;
use std::path::{Path, PathBuf};

use kiln_model::digest::Digest;

pub mod address;
pub mod apt;
mod cache;
mod credentials;
mod error;
mod fetcher;
mod host;
mod http;
pub mod listing;
mod mirror;
pub mod pip;
mod route;
mod transfer;
mod upload;
mod web;

#[cfg(test)]
mod promises;
#[cfg(test)]
mod server;

pub use address::{Address, AddressError};
pub use error::{FetchError, Refusal, Try, Unfetched};
pub use fetcher::{Dated, Fetcher, Network, Policy};
pub use host::Host;
pub use mirror::{Mirror, Mirrors, Origin, Place};
pub use upload::{Condition, Found, Presence, Tag, Taken, Upload};
pub use web::{Stream, Web};

/// A logical archive: what a path in a lock is relative to. Which mirrors serve it is configuration.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Archive {
    /// A Debian archive by its logical name: `debian`, `debian-security`.
    Debian(String),
    /// The Python package index; paths are file names (files) or normalised project names (listings).
    Pypi,
    /// No archive: the path is a whole address that the recipe's author wrote.
    Address,
}

/// A file whose digest is known.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Wanted {
    /// Where its path is relative to.
    pub archive: Archive,
    /// Path in the archive.
    pub path: String,
    /// Bytes, where the lock says so.
    pub size: Option<u64>,
    /// Digest of the bytes.
    pub sha256: Digest,
}

/// Says what is wrong with a file, if it is not the one that is wanted.
pub type Judge<'a> = dyn FnMut(&Path) -> Result<(), String> + 'a;

/// Reads archives. `pin` and `environment` are written against this role.
///
/// All methods may be called from several threads, are idempotent, and retry what may be retried themselves: an error
/// is final for this run.
pub trait Archives: Sync {
    /// The files, digests checked, as paths of read-only regular files in the store's cache of files, in the order asked
    /// for. All are tried before the first failure is reported, so that the error can list every missing file.
    fn pinned(&self, wanted: &[Wanted]) -> Result<Vec<PathBuf>, FetchError>;

    /// The file at `address`, from the first place whose bytes `judge` takes: for files that are pinned by something else than
    /// the SHA-256 of their bytes. What `judge` refuses counts as other bytes than wanted; it sees a file that is gone afterwards.
    fn judged(&self, address: &str, judge: &mut Judge<'_>) -> Result<(), FetchError>;

    /// The bytes of a file whose digest is not known yet (a signed index, a project's listing), at most `limit` of them.
    /// For `pin` only; what it returns is not trusted until a signature or a person says so.
    fn unpinned(&self, archive: &Archive, path: &str, limit: u64) -> Result<Vec<u8>, FetchError>;
}

impl Archive {
    /// Its key under `[mirrors]` in kiln's configuration.
    pub fn key(&self) -> &str {
        match self {
            Self::Debian(name) => name,
            Self::Pypi => "pypi",
            Self::Address => "url",
        }
    }
}

impl fmt::Display for Archive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.key())
    }
}
