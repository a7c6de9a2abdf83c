//! Why the rebuild of a wheel cannot be planned.
//!
//! What is merely not to be had ([`WheelError::Missing`]) makes a rebuild inconclusive, as does a program that is not known;
//! everything else is somebody's file that is not what it must be, named with what is wrong.

use std::path::PathBuf;

use kiln_model::format::dist_info::DistInfoError;
use kiln_model::format::pyproject::PyprojectError;
use kiln_model::format::record::RecordError;
use kiln_model::report::Missing;
use kiln_model::wheel::file_name::WheelNameError;

use super::archive::ArchiveError;
use super::published::suites_known;
use crate::exit::Kind;
use crate::fetch::FetchError;

/// Why the rebuild of a wheel cannot be planned.
#[derive(Debug, thiserror::Error)]
pub enum WheelError {
    /// Not a wheel's file name.
    #[error(transparent)]
    Name(#[from] WheelNameError),
    /// Not a version (PEP 440).
    #[error("{text:?} is not a version; write one such as 3.7")]
    Version {
        /// As given.
        text: String,
    },
    /// A wheel or sdist is no sound archive.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// A member that every wheel has.
    #[error("{} is no wheel: it has no {member}", file.display())]
    Lacks {
        /// The wheel.
        file: PathBuf,
        /// The member.
        member: &'static str,
    },
    /// Two wheels in one.
    #[error("{} is no wheel: it has both {first} and {second}", file.display())]
    Twice {
        /// The wheel.
        file: PathBuf,
        /// One directory.
        first: String,
        /// Another.
        second: String,
    },
    /// A member of `.dist-info` is not what it must be.
    #[error("in {}, {member}", file.display())]
    DistInfo {
        /// The wheel.
        file: PathBuf,
        /// The member.
        member: String,
        /// What is wrong.
        source: DistInfoError,
    },
    /// Its `RECORD` is none.
    #[error("in RECORD of {}", file.display())]
    Record {
        /// The wheel.
        file: PathBuf,
        /// What is wrong.
        source: RecordError,
    },
    /// Its `RECORD` does not describe it.
    #[error("RECORD of {} does not describe it: {}", file.display(), violations.join("; "))]
    RecordLies {
        /// The wheel.
        file: PathBuf,
        /// What is not so; the first few.
        violations: Vec<String>,
    },
    /// Its metadata are of another project than its name.
    #[error("{} says in METADATA that it is {found:?}", file.display())]
    OtherName {
        /// The wheel.
        file: PathBuf,
        /// What it says.
        found: String,
    },
    /// No member has a time.
    #[error("{}: no member, or not RECORD, has a time that there is", file.display())]
    NoTimes {
        /// The wheel.
        file: PathBuf,
    },
    /// An sdist that cannot be unpacked safely.
    #[error("sdist {file} {what}")]
    Sdist {
        /// Its file name.
        file: String,
        /// What is wrong.
        what: String,
    },
    /// Its `pyproject.toml` is none.
    #[error("in pyproject.toml of sdist {file}")]
    Pyproject {
        /// The sdist's file name.
        file: String,
        /// What is wrong.
        source: PyprojectError,
    },
    /// Nothing in it says how it is built.
    #[error("sdist {file} has no build backend: neither a [build-system] in pyproject.toml nor a setup.py")]
    NoBackend {
        /// Its file name.
        file: String,
    },
    /// Not a requirement.
    #[error("requirement {requirement:?} of {by}: {what}")]
    Requirement {
        /// Who has it.
        by: String,
        /// As written.
        requirement: String,
        /// What is wrong.
        what: String,
    },
    /// Requirements that exclude each other whatever is chosen.
    #[error("build requirements did not settle after {rounds} rounds; pin some with --pin NAME=VERSION")]
    Unsettled {
        /// Rounds tried.
        rounds: usize,
    },
    /// A suite that is not known for its CPython.
    #[error("suite {suite:?}: kiln knows which CPython {} have", suites_known())]
    Suite {
        /// The suite.
        suite: String,
    },
    /// A project's listing cannot be had.
    #[error("reading what the index has of {project}")]
    Listing {
        /// The project.
        project: String,
        /// Why.
        source: FetchError,
    },
    /// A project's listing cannot be understood.
    #[error("what the index has of {project} {what}")]
    NoListing {
        /// The project.
        project: String,
        /// What is wrong.
        what: String,
    },
    /// A file cannot be had.
    #[error("fetching {file}")]
    Fetch {
        /// The file.
        file: String,
        /// Why.
        source: FetchError,
    },
    /// Something is on no index: the rebuild is inconclusive.
    #[error("{}", .0.iter().map(|missing| missing.what.as_str()).collect::<Vec<_>>().join(", "))]
    Missing(Vec<Missing>),
}

impl WheelError {
    /// What sort of error it is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Archive(e) => e.kind(),
            Self::Listing { source, .. } | Self::Fetch { source, .. } => source.kind(),
            Self::NoListing { .. } => Kind::Host,
            Self::Missing(_) => Kind::Inconclusive,
            Self::Name(_)
            | Self::Version { .. }
            | Self::Lacks { .. }
            | Self::Twice { .. }
            | Self::DistInfo { .. }
            | Self::Record { .. }
            | Self::RecordLies { .. }
            | Self::OtherName { .. }
            | Self::NoTimes { .. }
            | Self::Sdist { .. }
            | Self::Pyproject { .. }
            | Self::NoBackend { .. }
            | Self::Requirement { .. }
            | Self::Unsettled { .. }
            | Self::Suite { .. } => Kind::BadInput,
        }
    }
}
