//! Why evidence is not published, pulled or believed to be whole.

use std::io;
use std::path::PathBuf;

use kiln_model::digest::Digest;
use kiln_model::envelope::EnvelopeError;
use kiln_model::key::SvidError;
use kiln_model::log::{LogError, Weight};
use kiln_model::statement::StatementError;

use crate::exit::Kind;
use crate::fetch::{AddressError, Refusal};

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
    /// Somebody else goes on from where this writer would.
    #[error("{file} in {tree} says that another batch comes after {size} entries: a log has one writer, with one state (here {}); if that other state is lost, publish again what it published, or begin a log with another origin", state.display())]
    Claimed {
        /// Where the tree is.
        tree: String,
        /// What says so.
        file: String,
        /// After how many entries.
        size: u64,
        /// This writer's state.
        state: PathBuf,
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
    /// An envelope whose signer's key only a certificate names.
    #[error(
        "{file} is signed by {id}, whose key a certificate names: say whose word for that is taken, with --svid-bundle"
    )]
    NoAuthority {
        /// Which.
        file: String,
        /// Whose key it is said to be.
        id: String,
    },
    /// A certificate for which nobody vouches now.
    #[error(
        "{file} is signed by a certificate that no trust bundle vouches for now: have statements logged while their certificates are valid"
    )]
    Certificate {
        /// Which.
        file: String,
        /// Why not.
        source: SvidError,
    },
    /// A file that is no trust bundle.
    #[error("{file} is no trust bundle")]
    TrustBundle {
        /// Which.
        file: String,
        /// What is wrong.
        source: SvidError,
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
    /// A server that gives nothing to this user, or does not say that it has nothing.
    #[error(
        "{from} answered {status} when asked for {file}: it wants other credentials than $NETRC or ~/.netrc has for it; where objects are \
         stored, they must allow to list, or what is absent cannot be told from what is forbidden"
    )]
    Unreadable {
        /// From where.
        from: String,
        /// What.
        file: String,
        /// What it answered.
        status: u16,
    },
    /// A server that takes no files, or none from this user.
    #[error(
        "{to} answered {status} when {file} was put there: it takes no uploads, or other credentials than $NETRC or ~/.netrc \
         has for it"
    )]
    Unwelcome {
        /// To where.
        to: String,
        /// What.
        file: String,
        /// What it answered.
        status: u16,
    },
    /// A file that could not be sent.
    #[error("putting {file} to {to}; publish again to go on from there")]
    NotTaken {
        /// To where.
        to: String,
        /// What.
        file: String,
        /// Why not.
        source: Refusal,
    },
    /// A server on which two writers could fork a log.
    #[error(
        "{to} {what}, tried on {file}: two writers could fork a log there; publish to a server that holds to If-None-Match and If-Match \
         (RFC 9110, 13.1), or to a directory, and copy that"
    )]
    Unconditional {
        /// Which.
        to: String,
        /// On what it was tried.
        file: String,
        /// What it does.
        what: &'static str,
    },
    /// No place for a log.
    #[error("{address} is no place for a log")]
    Place {
        /// Which, without credentials.
        address: String,
        /// Why not.
        source: AddressError,
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
            | Self::NoAuthority { .. }
            | Self::Certificate { .. }
            | Self::TrustBundle { .. }
            | Self::Statement { .. }
            | Self::Key { .. }
            | Self::Address { .. }
            | Self::Unconditional { .. }
            | Self::Place { .. } => Kind::BadInput,
            Self::Changed { .. }
            | Self::Unknown { .. }
            | Self::State { .. }
            | Self::Disagree { .. }
            | Self::Envelope { .. } => Kind::Tampered,
            Self::Conflict { .. } | Self::Claimed { .. } => Kind::Host,
            Self::Missing { .. } | Self::NothingFor { .. } => Kind::Inconclusive,
            Self::Log { source, .. } => match source.weight() {
                Weight::Malformed => Kind::BadInput,
                Weight::Contradicted => Kind::Tampered,
                Weight::Insufficient => Kind::Inconclusive,
            },
            Self::Unreachable { .. } | Self::Unreadable { .. } | Self::Unwelcome { .. } | Self::NotTaken { .. } => {
                Kind::Host
            }
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
