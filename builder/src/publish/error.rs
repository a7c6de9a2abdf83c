//! Why evidence is not published, pulled or believed to be whole.

use std::io;
use std::path::PathBuf;

use kiln_model::digest::Digest;
use kiln_model::envelope::EnvelopeError;
use kiln_model::log::{LogError, Weight};
use kiln_model::statement::StatementError;

use crate::exit::Kind;
use crate::fetch::Refusal;

/// Why evidence is not published, pulled or believed to be whole.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The host's.
    #[error("{act} {}", path.display())]
    Io {
        /// What was tried.
        act: &'static str,
        /// With what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file that is larger than any of its kind.
    #[error("{file} has more than {limit} bytes")]
    TooLarge {
        /// Which.
        file: String,
        /// How many it may have.
        limit: u64,
    },
    /// A name that should never have other bytes has.
    #[error(
        "{file} is there with other bytes, and may never change: the tree was altered, or another log was written into it"
    )]
    Changed {
        /// Which.
        file: String,
    },
    /// More than was asked for.
    #[error("{from} has more than {limit} files: raise --max-files if that is meant")]
    TooMany {
        /// Where.
        from: String,
        /// How many there may be.
        limit: u64,
    },
    /// Somebody else replaced a file meanwhile.
    #[error("{file} was replaced by somebody else: a log has one writer")]
    Conflict {
        /// Which.
        file: String,
    },
    /// A file that a whole tree has.
    #[error("{file} is missing")]
    Missing {
        /// Which.
        file: String,
    },
    /// Something of a log that is refused.
    #[error("{file}")]
    Log {
        /// Where.
        file: String,
        /// What is wrong.
        source: LogError,
    },
    /// What is written in one place is not what is written in another.
    #[error("{file} does not agree with {other}: one of them was altered")]
    Disagree {
        /// One.
        file: String,
        /// The other.
        other: String,
    },
    /// A tree that is not the one that was signed last.
    #[error("{tree} is at {found}, and what was signed last is {signed} (in {}): nothing is signed that could be a fork; restore the tree or the state, or begin a log with another origin", state.display())]
    Unknown {
        /// Where it is.
        tree: String,
        /// What it says.
        found: String,
        /// What the state says.
        signed: String,
        /// Where that is.
        state: PathBuf,
    },
    /// State that cannot be.
    #[error("{} is not what this log's writer wrote: {what}", path.display())]
    State {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// A file that is no envelope and no bundle.
    #[error("{file} is no evidence: expected a DSSE envelope, lines of them, or a Sigstore bundle")]
    NoEvidence {
        /// Which.
        file: String,
        /// What is wrong.
        source: EnvelopeError,
    },
    /// An envelope whose signature fails.
    #[error("{file}")]
    Envelope {
        /// Which.
        file: String,
        /// What is wrong.
        source: EnvelopeError,
    },
    /// An envelope that no given key signed.
    #[error("{file} is signed by none of the {keys} keys given: add the signer's public key with --keys")]
    NoKey {
        /// Which.
        file: String,
        /// How many there are.
        keys: usize,
    },
    /// An envelope with something else than a statement in it.
    #[error("{file} holds no statement that can be published")]
    Statement {
        /// Which.
        file: String,
        /// What is wrong.
        source: StatementError,
    },
    /// A file that is no key.
    #[error("{file} is no public key: expected {expected}")]
    Key {
        /// Which.
        file: String,
        /// What belongs there.
        expected: &'static str,
    },
    /// A server that does not give what it should have.
    #[error("fetching {file} from {from}")]
    Unreachable {
        /// From where.
        from: String,
        /// What.
        file: String,
        /// Why not.
        source: Refusal,
    },
    /// Nothing is known there of an artifact.
    #[error("{from} has no evidence for {artifact}")]
    NothingFor {
        /// From where.
        from: String,
        /// The artifact.
        artifact: Digest,
    },
    /// No address to pull from.
    #[error("{address:?} is no address: expected http://… or https://…, without name and password")]
    Address {
        /// As given.
        address: String,
    },
}

impl PublishError {
    /// What sort of error it is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Io { .. } => Kind::Host,
            Self::TooLarge { .. }
            | Self::TooMany { .. }
            | Self::NoEvidence { .. }
            | Self::NoKey { .. }
            | Self::Statement { .. }
            | Self::Key { .. }
            | Self::Address { .. } => Kind::BadInput,
            Self::Changed { .. }
            | Self::Unknown { .. }
            | Self::State { .. }
            | Self::Disagree { .. }
            | Self::Envelope { .. } => Kind::Tampered,
            Self::Conflict { .. } => Kind::Host,
            Self::Missing { .. } | Self::NothingFor { .. } => Kind::Inconclusive,
            Self::Log { source, .. } => match source.weight() {
                Weight::Malformed => Kind::BadInput,
                Weight::Contradicted => Kind::Tampered,
                Weight::Insufficient => Kind::Inconclusive,
            },
            Self::Unreachable { .. } => Kind::Host,
        }
    }
}

pub(super) fn failed(act: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> PublishError {
    let path = path.into();
    move |source| PublishError::Io { act, path, source }
}

/// Says of which file a refusal of the model is.
pub(super) fn of(file: impl Into<String>) -> impl FnOnce(LogError) -> PublishError {
    let file = file.into();
    move |source| PublishError::Log { file, source }
}
