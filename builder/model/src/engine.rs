//! The contract of an engine: who hands out jobs, and keeps what comes back.
//!
//! Two traits, because the two sides hold different powers: a coordinator has an [`Engine`], each rebuilder a [`Desk`]. An
//! engine is not trusted with what is true, only with not losing it: jobs and answers are documents that it keeps as they
//! are and never opens, and whoever reads one checks its signature. Leases are not exclusive, results are: nothing may rest on two
//! workers not having the same job. The embedded engine is in `kiln`; every engine passes the same tests (`kiln-tests`).
//! Nothing here knows a clock, a disk or a network.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::digest::{Digest, DigestError};
use crate::outcome::Status;

/// How often one rebuilder is offered a job. The last offer is to end the job, not to build it.
pub const DELIVERIES: u32 = 5;

/// Identity of a job: the digest of its payload, whoever signed it and however urgent it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct JobId(Digest);

/// Name of a rebuilder: one token of `[a-z0-9-]`, at most 32 of them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rebuilder(String);

/// What a job has to be built on: `x86_64-linux`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Platform(String);

/// Why a text is no name of a rebuilder or platform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{found:?} is no name of a {what}: expected 1 to 32 of a-z, 0-9, {more}")]
pub struct TokenError {
    /// As given.
    pub found: String,
    /// What it was to name.
    pub what: &'static str,
    /// Which other characters would do.
    pub more: &'static str,
}

/// Which of several waiting jobs is offered first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// Before the others.
    High,
    /// In turn.
    #[default]
    Normal,
    /// When nothing else waits, and now and then anyway.
    Low,
}

/// One thing to be built once by each of the rebuilders that are invited.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// What to build it on.
    pub platform: Platform,
    /// Who is to build it.
    pub rebuilders: BTreeSet<Rebuilder>,
    payload: Vec<u8>,
}

/// What a rebuilder answers to a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The job.
    pub job: JobId,
    /// How the build ended.
    pub status: Status,
    /// What it made: digests by name. These and the status decide whether two answers are the same.
    pub outputs: BTreeMap<String, Digest>,
    /// The answer itself: a signed statement, where rebuilders are independent.
    pub document: Vec<u8>,
}

/// Whether a job was new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Enqueued {
    /// It was.
    New,
    /// A job with this id is retained already, and stays as it is.
    Known,
}

/// A place in the sequence of records; the default is before the first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cursor(pub u64);

/// Something that a coordinator has to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// A rebuilder's answer: the first, and the only one that counts.
    Result {
        /// Whose.
        rebuilder: Rebuilder,
        /// What it says.
        answer: Answer,
    },
    /// A rebuilder has contradicted itself.
    Conflict {
        /// Whose.
        rebuilder: Rebuilder,
        /// The later answer.
        answer: Answer,
    },
    /// A job has ended for a rebuilder without being built.
    DeadLetter {
        /// Whose.
        rebuilder: Rebuilder,
        /// The job.
        job: JobId,
        /// Why.
        why: String,
    },
}

/// What waits where.
pub type Depth = BTreeMap<(Rebuilder, Priority), Queue>;

/// Jobs of one rebuilder and priority that have not ended well.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Queue {
    /// Could be claimed.
    pub waiting: u64,
    /// Claimed.
    pub leased: u64,
    /// Put back for a while.
    pub parked: u64,
    /// Ended without being built.
    pub dead: u64,
}

/// A worker's temporary claim on a job.
#[derive(Debug, PartialEq, Eq)]
pub struct Lease {
    /// The job.
    pub job: Job,
    /// The how manieth offer this is, counted from 1. At [`DELIVERIES`] the job is not to be built but ended.
    pub delivery: u32,
    /// What the engine knows it by.
    pub token: u64,
}

/// Proof that a job has an answer that is kept; without one, a lease cannot be closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reported {
    job: JobId,
    how: How,
}

/// What became of a reported answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum How {
    /// It is kept.
    Stored,
    /// One that says the same was kept before; that one stays.
    Same,
    /// One that says otherwise was kept before: that one, which stays. The new one is kept as a conflict.
    Conflict(Box<Answer>),
}

/// Why an engine did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// There is no room; nothing that was accepted is dropped. May be retried.
    #[error("the engine is full: {what}")]
    Full {
        /// Which limit was met.
        what: String,
    },
    /// The engine cannot be asked now. May be retried.
    #[error("reaching the engine")]
    Unreachable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// It will not do this.
    #[error("the engine refuses: {why}")]
    Refused {
        /// Why.
        why: String,
    },
    /// A document that is larger than it keeps.
    #[error("a document of {size} bytes is more than the {limit} that the engine takes")]
    TooLarge {
        /// The bound.
        limit: u64,
        /// As it is.
        size: u64,
    },
    /// Another version of the engine's server or files than this kiln can use.
    #[error("the engine is of version {found}, this kiln needs {needed}")]
    Version {
        /// What is there.
        found: String,
        /// What would do.
        needed: String,
    },
    /// A setting that the server did not keep.
    #[error("the engine did not keep its setting {field}")]
    NotKept {
        /// Which.
        field: String,
    },
    /// What it kept is not what it was given.
    #[error("the engine's {what} is corrupt: {why}")]
    Corrupt {
        /// Which file or message.
        what: String,
        /// What is wrong with it.
        why: String,
    },
}

/// The coordinator's side.
pub trait Engine {
    /// Keeps a job. On return it survives a crash. Idempotent by [`Job::id`] for as long as the job is retained; first
    /// offers of one priority come in the order of enqueueing. [`EngineError::Full`] and [`EngineError::Unreachable`] may be
    /// retried.
    fn enqueue(&self, job: &Job, priority: Priority) -> Result<Enqueued, EngineError>;

    /// Records after `after`, in the order in which they were made. Reading changes nothing. May be retried.
    fn records(&self, after: Cursor) -> Result<Vec<(Cursor, Record)>, EngineError>;

    /// What waits, for each rebuilder that has a job. May be retried.
    fn depth(&self) -> Result<Depth, EngineError>;

    /// Frees the room of a job, ended or not; answers to it stay. Idempotent: of a job that is not there nothing is said. It
    /// may be enqueued again, and is then new. May be retried.
    fn retire(&self, job: &JobId) -> Result<(), EngineError>;
}

/// One rebuilder's side, opened with that rebuilder's credentials. Several workers may share one.
pub trait Desk {
    /// The next job for one of `platforms`, or none after `wait`. Counted as an offer even if the caller dies at once. The lease
    /// ends by itself, by the engine's clock. May be retried.
    fn claim(&self, platforms: &BTreeSet<Platform>, wait: Duration) -> Result<Option<Lease>, EngineError>;

    /// Begins the lease anew. Does not say whether it still held. May be retried.
    fn extend(&self, lease: &Lease) -> Result<(), EngineError>;

    /// The answer of this rebuilder that is kept. May be retried.
    fn stored(&self, job: &JobId) -> Result<Option<Answer>, EngineError>;

    /// Keeps an answer, with a lease or without. On return it survives a crash, and nothing removes it. Of several, however
    /// they race, the first is kept; one that says otherwise becomes a conflict. Idempotent, may be retried.
    fn report(&self, answer: &Answer) -> Result<Reported, EngineError>;

    /// Ends the job for this rebuilder, whoever holds the lease by now. Idempotent, may be retried.
    fn close(&self, lease: &Lease, proof: &Reported) -> Result<(), EngineError>;

    /// Gives the job back: it is not offered before `after`. The offer counts. May be retried.
    fn put_back(&self, lease: &Lease, after: Duration) -> Result<(), EngineError>;

    /// Ends the job for this rebuilder for good and leaves a dead letter. Idempotent, may be retried.
    fn bury(&self, lease: &Lease, proof: &Reported, why: &str) -> Result<(), EngineError>;
}

impl Job {
    /// A job for `rebuilders`; `payload` is what it says, in one canonical form.
    pub fn new(payload: Vec<u8>, platform: Platform, rebuilders: BTreeSet<Rebuilder>) -> Self {
        Self { platform, rebuilders, payload }
    }

    /// What it says.
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// Its identity.
    pub fn id(&self) -> JobId {
        JobId(Digest::of(&self.payload))
    }
}

impl Answer {
    /// Whether it says the same: bytes of documents differ by their dates alone, and are not looked at.
    pub fn agrees_with(&self, other: &Self) -> bool {
        (self.job, self.status, &self.outputs) == (other.job, other.status, &other.outputs)
    }

    /// What tells it from other answers to the same job.
    pub fn distinction(&self) -> Digest {
        let mut text = format!("{}\n", self.status.as_str());
        for (name, digest) in &self.outputs {
            text.push_str(&format!("{digest} {}\n", name.escape_debug()));
        }
        Digest::of(text)
    }
}

impl Reported {
    /// For engines: what became of an answer to `job`, once that is on the disk.
    pub fn by_engine(job: JobId, how: How) -> Self {
        Self { job, how }
    }

    /// The job.
    pub fn job(&self) -> JobId {
        self.job
    }

    /// What became of it.
    pub fn how(&self) -> &How {
        &self.how
    }
}

impl Priority {
    /// All, the most urgent first.
    pub const ALL: [Self; 3] = [Self::High, Self::Normal, Self::Low];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::High => "high",
            Self::Normal => "normal",
            Self::Low => "low",
        }
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for JobId {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        text.parse().map(Self)
    }
}

fn token(text: &str, what: &'static str, others: &'static [u8], more: &'static str) -> Result<String, TokenError> {
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || others.contains(&b);
    match (1..=32).contains(&text.len()) && text.bytes().all(fits) {
        true => Ok(text.into()),
        false => Err(TokenError { found: text.into(), what, more }),
    }
}

macro_rules! token {
    ($type:ty, $what:literal, $others:literal, $more:literal) => {
        impl $type {
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $type {
            type Err = TokenError;

            fn from_str(text: &str) -> Result<Self, TokenError> {
                token(text, $what, $others, $more).map(Self)
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

token!(Rebuilder, "rebuilder", b"-", "-");
token!(Platform, "platform", b"-_", "- and _");

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: Status, digest: &str) -> Answer {
        let job = Job::new(b"{}".to_vec(), "x86_64-linux".parse().unwrap(), BTreeSet::new()).id();
        Answer { job, status, outputs: BTreeMap::from([("out".into(), Digest::of(digest))]), document: Vec::new() }
    }

    #[test]
    fn a_job_is_known_by_its_payload_alone() {
        let job = |platform: &str| Job::new(b"{}".to_vec(), platform.parse().unwrap(), BTreeSet::new());
        assert_eq!(job("x86_64-linux").id(), job("aarch64-linux").id());
        assert_eq!(
            job("x86_64-linux").id().to_string(),
            "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
        );
        assert_eq!(job("x86_64-linux").id().to_string().parse(), Ok(job("x86_64-linux").id()));
    }

    #[test]
    fn answers_agree_by_what_was_seen_and_not_by_their_documents() {
        let one = answer(Status::Built, "a");
        let signed_later = Answer { document: b"another date".to_vec(), ..one.clone() };
        assert!(one.agrees_with(&signed_later) && one.distinction() == signed_later.distinction());
        for other in [answer(Status::Built, "b"), answer(Status::Failed, "a")] {
            assert!(!one.agrees_with(&other) && one.distinction() != other.distinction());
        }
    }

    #[test]
    fn names_that_could_be_a_path_or_a_wildcard_are_refused() {
        assert!("rb-1".parse::<Rebuilder>().is_ok() && "x86_64-linux".parse::<Platform>().is_ok());
        for bad in ["", "..", "a/b", "a.b", "*", ">", "RB", "a b", "a_b", &"a".repeat(33)] {
            let error = bad.parse::<Rebuilder>().unwrap_err();
            assert!(error.to_string().contains("rebuilder"), "{error}");
        }
    }
}
