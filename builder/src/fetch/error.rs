//! Why bytes could not be had, file by file and mirror by mirror.
//!
//! Tells *tampered* (every mirror that had the file had other bytes) from *missing*: they are different alarms and leave
//! kiln with different exit codes. Names mirrors by where they are configured, never by address: an error's text may end
//! up in a report. Addresses go out as events.

use crate::exit::Kind;
use std::fmt;
use std::io;
use std::path::PathBuf;

use kiln_model::digest::Digest;

use super::Archive;

/// Why bytes could not be had.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// No mirror has some of the files, or none answered.
    #[error("{}", Listing { files, of: *of, what: "on no configured mirror" })]
    Missing {
        /// Every file that could not be had.
        files: Vec<Unfetched>,
        /// How many were wanted.
        of: usize,
    },
    /// For at least one file every mirror that had it had other bytes.
    #[error("{}", Listing { files, of: *of, what: "not what the lock says on any mirror" })]
    Tampered {
        /// Every file that could not be had, the merely missing ones too.
        files: Vec<Unfetched>,
        /// How many were wanted.
        of: usize,
    },
    /// A path that no archive has.
    #[error("path {path:?} in archive {archive}: {expected}")]
    BadPath {
        /// As it was wanted.
        archive: Archive,
        /// As it was wanted.
        path: String,
        /// What a path looks like.
        expected: &'static str,
    },
    /// The cache of files could not be read or written.
    #[error("{act} {}", path.display())]
    Cache {
        /// What was being done.
        act: &'static str,
        /// To which file or directory.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The settings of kiln or of a client cannot be used.
    #[error("{0}")]
    Settings(String),
}

/// A file that could not be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfetched {
    /// As it was wanted.
    pub archive: Archive,
    /// As it was wanted.
    pub path: String,
    /// As it was wanted; none if the digest was not known yet.
    pub sha256: Option<Digest>,
    /// Each mirror asked, in order.
    pub tries: Vec<Try>,
}

/// One mirror's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Try {
    /// The mirror by where it is configured: `apt sources, entry 1`, `offline directory "debs"`.
    pub mirror: String,
    /// Why its answer was no good.
    pub refusal: Refusal,
}

/// Why a mirror's answer was no good.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The mirror says that it has no such file.
    #[error("{0}")]
    Absent(String),
    /// Another answer than the file.
    #[error("answered {0}")]
    Status(u16),
    /// Other bytes: another length.
    #[error("has {found} bytes, expected {expected}")]
    WrongSize {
        /// Bytes announced or read; one that never ended counts as more than expected.
        found: u64,
        /// Bytes in the lock.
        expected: u64,
    },
    /// Other bytes of the right length.
    #[error("has other bytes (sha256 {0})")]
    WrongDigest(Digest),
    /// More than a file of unknown size may have.
    #[error("is larger than {0} bytes")]
    TooLarge(u64),
    /// The connection ended early.
    #[error("ended after {0} bytes")]
    CutShort(u64),
    /// Nothing, or next to nothing, arrived for as long as kiln waits.
    #[error("stalled after {0} bytes")]
    Stalled(u64),
    /// Redirected too often, away from https, or to something that is no web address.
    #[error("{0}")]
    Redirect(String),
    /// No connection, or one that broke.
    #[error("{0}")]
    Network(String),
    /// The mirror is a network address and kiln is offline.
    #[error("not asked: offline")]
    Offline,
    /// The mirror could not be read or understood.
    #[error("{0}")]
    Unreadable(String),
}

impl Refusal {
    /// The mirror had a file of that name, with other bytes.
    fn is_other_bytes(&self) -> bool {
        matches!(self, Self::WrongSize { .. } | Self::WrongDigest(_))
    }

    /// Asking the same mirror again may help.
    pub(super) fn may_pass(&self) -> bool {
        match self {
            Self::CutShort(_) | Self::Stalled(_) | Self::Network(_) => true,
            Self::Status(status) => *status == 408 || *status == 429 || *status >= 500,
            Self::Absent(_)
            | Self::WrongSize { .. }
            | Self::WrongDigest(_)
            | Self::TooLarge(_)
            | Self::Redirect(_)
            | Self::Offline
            | Self::Unreadable(_) => false,
        }
    }
}

impl Unfetched {
    /// At least one mirror had other bytes under this name.
    pub fn is_tampered(&self) -> bool {
        self.tries.iter().any(|t| t.refusal.is_other_bytes())
    }
}

impl FetchError {
    /// Sorts files that could not be had into the two alarms.
    pub(super) fn of(files: Vec<Unfetched>, of: usize) -> Self {
        if files.iter().any(Unfetched::is_tampered) {
            Self::Tampered { files, of }
        } else {
            Self::Missing { files, of }
        }
    }

    /// What sort of failure it is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Tampered { .. } => Kind::Tampered,
            Self::BadPath { .. } | Self::Settings(_) => Kind::BadInput,
            Self::Missing { .. } | Self::Cache { .. } => Kind::Host,
        }
    }

    /// Every mirror answered, and each said that it has no such file: asking for another name may make sense.
    pub fn is_absent(&self) -> bool {
        let absent = |t: &Try| matches!(t.refusal, Refusal::Absent(_));
        matches!(self, Self::Missing { files, .. }
            if files.iter().all(|f| !f.tries.is_empty() && f.tries.iter().all(absent)))
    }
}

impl FetchError {
    /// No file was had, and no mirror could have it: each said that it has no such file, or was not to be asked.
    pub fn is_nowhere(&self) -> bool {
        let no = |t: &Try| matches!(t.refusal, Refusal::Absent(_) | Refusal::Offline);
        matches!(self, Self::Missing { files, .. } if files.iter().all(|f| f.tries.iter().all(no)))
    }
}

struct Listing<'a> {
    files: &'a [Unfetched],
    of: usize,
    what: &'static str,
}

impl fmt::Display for Listing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.of {
            1 => write!(f, "the file is {}", self.what)?,
            of => write!(
                f,
                "{} of {of} files {} {}",
                self.files.len(),
                if self.files.len() == 1 { "is" } else { "are" },
                self.what
            )?,
        }
        for file in self.files {
            write!(f, "\n  {}", file.path)?;
            if let Some(sha256) = file.sha256 {
                write!(f, "  (sha256 {sha256})")?;
            }
            let width = file.tries.iter().map(|t| t.mirror.chars().count()).max().unwrap_or(0);
            for Try { mirror, refusal } in &file.tries {
                write!(f, "\n    {mirror:width$}  {refusal}")?;
            }
            if file.tries.is_empty() {
                write!(f, "\n    no mirror of {} is configured", file.archive)?;
            }
        }
        let mut archives: Vec<&str> = self.files.iter().map(|u| u.archive.key()).collect();
        archives.sort_unstable();
        archives.dedup();
        write!(
            f,
            "\n  add a mirror or an offline directory to {} under [mirrors] in kiln's configuration",
            archives.join(", ")
        )
    }
}
