//! A decision about one artifact: whether a policy lets it in, by which checks, and what was reached of what is asked.
//!
//! The exit code is a function of the checks' weights: contradiction by cryptography before an explicit no before missing
//! evidence. A verdict is about bytes and no policy changes it; a decision is about trust.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::check::{Check, Status};
use crate::envelope::EnvelopeId;
use crate::outcome::Moment;
use crate::statement::summary::Level;
use crate::statement::{ComparisonResult, DigestSet};
use crate::verdict::Verdict;

/// What is to be decided on. The caller has hashed it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Artifact {
    /// As the caller named it.
    pub name: String,
    /// Its digests, SHA-256 among them.
    pub digest: DigestSet,
    /// Its purl, if the caller knows it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub purl: Option<String>,
}

/// How it was decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// The policy lets it in.
    Allowed,
    /// An explicit no.
    Denied,
    /// Too little evidence.
    Insufficient,
    /// What was presented contradicts itself.
    Tampered,
}

/// What was required of one thing, and what was reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Achieved {
    /// Of what.
    pub what: &'static str,
    /// What the policy asks for.
    pub required: String,
    /// What there is.
    pub achieved: String,
    /// Whether that is enough.
    pub holds: bool,
}

/// What one operator says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Said {
    /// Who.
    pub operator: String,
    /// By the builder id of its statement.
    pub rebuilder: String,
    /// What.
    pub says: ComparisonResult,
    /// Whether that counts towards the threshold.
    pub counts: bool,
    /// The level of SLSA's build track that the policy grants, if something was built.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub level: Option<u8>,
    /// Which version of the tool built.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool: Option<String>,
    /// On which architecture and kernel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
    /// Normalisers that an equality rests on.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub normalisers: Vec<String>,
    /// When witnesses saw it, at the latest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub witnessed: Option<Moment>,
    /// The statement.
    pub envelope: EnvelopeId,
    /// Where that was found.
    pub source: String,
}

/// A decision.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Decision {
    /// What it is about.
    pub artifact: Artifact,
    /// Whether it is let in.
    pub answer: Answer,
    /// The process's exit code for it.
    pub exit: u8,
    /// What all operators together say of the bytes.
    pub verdict: Verdict,
    /// Required and reached.
    pub achieved: Vec<Achieved>,
    /// Operator by operator.
    pub operators: Vec<Said>,
    /// Every check, the worst first.
    pub checks: Vec<Check>,
    /// Levels, if it is let in.
    #[serde(serialize_with = "words", skip_serializing_if = "BTreeSet::is_empty")]
    pub levels: BTreeSet<Level>,
    /// Every envelope that was used, and where it is.
    pub inputs: BTreeMap<EnvelopeId, String>,
}

impl Answer {
    /// The answer that checks add up to.
    pub(super) fn of(checks: &[Check]) -> Self {
        match checks.iter().map(|check| check.status).max() {
            Some(Status::Tampered) => Self::Tampered,
            Some(Status::Denied) => Self::Denied,
            Some(Status::Insufficient) => Self::Insufficient,
            Some(Status::Passed | Status::Noted | Status::NotCounted) | None => Self::Allowed,
        }
    }

    /// The process's exit code (ARCHITECTURE.md).
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Allowed => 0,
            Self::Denied => 1,
            Self::Insufficient => 4,
            Self::Tampered => 6,
        }
    }

    /// The word in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Denied => "denied",
            Self::Insufficient => "insufficient",
            Self::Tampered => "tampered",
        }
    }

    /// How grave it is: of several, the gravest gives the exit code.
    pub fn weight(self) -> u8 {
        match self {
            Self::Allowed => 0,
            Self::Insufficient => 1,
            Self::Denied => 2,
            Self::Tampered => 3,
        }
    }
}

impl Decision {
    /// Adds a check of further rules. It can make a yes a no and never the reverse.
    pub fn add(&mut self, check: Check) {
        self.checks.push(check);
        self.settle();
    }

    /// Sorts the checks and makes the answer follow from them.
    pub(super) fn settle(&mut self) {
        self.checks.sort_by_key(|check| std::cmp::Reverse(check.status));
        self.answer = Answer::of(&self.checks);
        self.exit = self.answer.exit_code();
        if self.answer != Answer::Allowed {
            self.levels.clear();
        }
    }
}

fn words<S: serde::Serializer>(levels: &BTreeSet<Level>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(levels.iter().map(Level::as_str))
}
