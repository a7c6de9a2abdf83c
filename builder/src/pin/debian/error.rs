//! Why an environment of Debian packages cannot be pinned.

use jiff::Timestamp;
use kiln_model::debian::resolve::ResolveError;
use kiln_model::debian::universe::UniverseError;
use kiln_model::debian::version::VersionError;
use kiln_model::format::packages::IndexError;
use kiln_model::format::release::ReleaseError;

use super::{KeyringError, SeenError, SignatureError};
use crate::exit::Kind;
use crate::fetch::FetchError;

/// Why pinning failed.
#[derive(Debug, thiserror::Error)]
pub enum PinError {
    /// A name that cannot be a suite's.
    #[error("suite {found:?}: expected a name such as \"bookworm\" or \"bookworm-security\"")]
    SuiteName {
        /// As in the recipe.
        found: String,
    },
    /// The same suite twice.
    #[error("suite {name} is named twice; leave one out")]
    SuiteTwice {
        /// As in the recipe.
        name: String,
    },
    /// No mirror has it.
    #[error("suite {suite} is in no mirror of archive {archive}; check its name, or add a mirror that has it")]
    UnknownSuite {
        /// Logical archive.
        archive: &'static str,
        /// As in the recipe.
        suite: String,
        /// What the mirrors said.
        source: FetchError,
    },
    /// The suite has no such architecture.
    #[error("suite {suite} has no architecture {found:?}; it has {}", there.join(", "))]
    UnknownArchitecture {
        /// The suite.
        suite: String,
        /// As in the recipe.
        found: String,
        /// What its Release lists.
        there: Vec<String>,
    },
    /// The suite has no such component.
    #[error("suite {suite} has no component {found:?}; it has {}", there.join(", "))]
    UnknownComponent {
        /// The suite.
        suite: String,
        /// What was looked for.
        found: String,
        /// What its Release lists.
        there: Vec<String>,
    },
    /// An index that the signed index does not name.
    #[error("suite {suite}: its signed index lists no {index}, in any compression kiln reads (xz, gz, none)")]
    NoIndex {
        /// The suite.
        suite: String,
        /// Path without its ending.
        index: String,
    },
    /// Keyrings that cannot be used.
    #[error(transparent)]
    Keyring(#[from] KeyringError),
    /// A signed index that no trusted key vouches for.
    #[error("{file} is not believed; use another mirror, or name the keyring of the archive you mean (--keyring FILE)")]
    Untrusted {
        /// Path in the archive.
        file: String,
        /// Why not.
        source: SignatureError,
    },
    /// A signed index that cannot be read.
    #[error("reading {file}")]
    Release {
        /// Path in the archive.
        file: String,
        /// Why not.
        source: ReleaseError,
    },
    /// The index of another suite.
    #[error(
        "{file}: expected suite {expected}, found Codename: {codename}, Suite: {suite}; the mirror serves another suite"
    )]
    WrongName {
        /// Path in the archive.
        file: String,
        /// The suite that was asked for.
        expected: String,
        /// What the text says.
        codename: String,
        /// What the text says.
        suite: String,
    },
    /// A date that is none.
    #[error("{file}: {field}: expected a date such as \"Sat, 11 Jul 2026 10:16:37 UTC\", found {found:?}")]
    NotADate {
        /// Path in the archive.
        file: String,
        /// Which field.
        field: &'static str,
        /// What stands there.
        found: String,
    },
    /// Dated after now.
    #[error("{file}: Date: {date} is in the future, it is {clock} here; set this machine's clock")]
    FromTheFuture {
        /// Path in the archive.
        file: String,
        /// Its date.
        date: Timestamp,
        /// Our time.
        clock: Timestamp,
    },
    /// Its time is over.
    #[error(
        "{file}: Valid-Until: {until} is over, it is {clock}; use a mirror that is up to date, or allow expired indices to pin the past"
    )]
    Expired {
        /// Path in the archive.
        file: String,
        /// Until when.
        until: Timestamp,
        /// Our time.
        clock: Timestamp,
    },
    /// Older than one that was seen.
    #[error(
        "{file}: Date: {date} is older than {newest}, which was seen before; use a mirror that is up to date, or allow expired indices to pin the past"
    )]
    Older {
        /// Path in the archive.
        file: String,
        /// Its date.
        date: Timestamp,
        /// The newest one seen.
        newest: Timestamp,
    },
    /// Bytes could not be had.
    #[error("fetching {what}")]
    Fetch {
        /// What for.
        what: String,
        /// Why not.
        source: FetchError,
    },
    /// An index that cannot be decompressed.
    #[error("decompressing {file}")]
    Unreadable {
        /// Path in the archive.
        file: String,
        /// Why not.
        source: std::io::Error,
    },
    /// An index of another length than was signed.
    #[error("{file}: expected {expected} bytes decompressed, found {found}")]
    WrongLength {
        /// Path in the archive.
        file: String,
        /// As signed.
        expected: u64,
        /// As found.
        found: u64,
    },
    /// An index that cannot be read.
    #[error("reading {file}")]
    Index {
        /// Path in the archive.
        file: String,
        /// Why not.
        source: IndexError,
    },
    /// An index whose packages cannot be.
    #[error("reading {file}")]
    Universe {
        /// Path in the archive.
        file: String,
        /// Why not.
        source: Box<UniverseError>,
    },
    /// A source package that no suite has.
    #[error("no suite has source {wanted}; {}", if there.is_empty() { "check its name".into() } else { format!("there is {}", there.join(", ")) })]
    UnknownSource {
        /// Name, and version if one was asked for.
        wanted: String,
        /// Its versions that there are.
        there: Vec<String>,
    },
    /// A version that is none.
    #[error("source {name}: version")]
    Version {
        /// The source.
        name: String,
        /// Why not.
        source: VersionError,
    },
    /// No environment fulfils the recipe.
    #[error("resolving the environment")]
    Resolve {
        /// Why not.
        source: Box<ResolveError>,
    },
    /// The state of dates seen.
    #[error(transparent)]
    Seen(#[from] SeenError),
}

impl PinError {
    /// What sort of failure it is; each has its exit code.
    pub fn kind(&self) -> Kind {
        match self {
            Self::SuiteName { .. }
            | Self::SuiteTwice { .. }
            | Self::UnknownSuite { .. }
            | Self::UnknownArchitecture { .. }
            | Self::UnknownComponent { .. }
            | Self::NoIndex { .. }
            | Self::Release { .. }
            | Self::NotADate { .. }
            | Self::Expired { .. }
            | Self::Unreadable { .. }
            | Self::WrongLength { .. }
            | Self::Index { .. }
            | Self::Universe { .. }
            | Self::UnknownSource { .. }
            | Self::Version { .. }
            | Self::Resolve { .. } => Kind::BadInput,
            Self::Untrusted { .. } | Self::WrongName { .. } | Self::Older { .. } => Kind::Tampered,
            Self::FromTheFuture { .. } | Self::Seen(_) | Self::Keyring(KeyringError::Read { .. }) => Kind::Host,
            Self::Keyring(KeyringError::NotOpenPgp { .. } | KeyringError::Empty { .. }) => Kind::BadInput,
            Self::Fetch { source, .. } => source.kind(),
        }
    }
}
