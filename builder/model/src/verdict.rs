//! The judgement over many outcomes, and a reference if there is one.
//!
//! [`judge`] is a pure function of a multiset: neither the order of outcomes nor who made them matters. Nothing that was
//! not seen counts in favour: what did not end, or has no companion, is at best inconclusive.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::outcome::{Outcome, Status};

/// What is said of one artifact, or of all. Ordered from best to worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// All agree, and with the reference if there is one.
    Reproduced,
    /// All agree, but only after named normalisers.
    Equivalent,
    /// Too little was seen.
    Inconclusive,
    /// No build ended well.
    Failed,
    /// Builds disagree with each other: the build is nondeterministic.
    Diverged,
    /// Builds agree with each other and not with the reference.
    UpstreamDiffers,
}

/// Whether equality after normalisers is enough for the one who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accept {
    /// Only the same bytes.
    Identical,
    /// Also [`Verdict::Equivalent`].
    Equivalent,
}

/// Who took part in a judgement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// One machine: nobody independent has confirmed it.
    Local,
}

impl Verdict {
    /// The word in JSON and in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reproduced => "reproduced",
            Self::Equivalent => "equivalent",
            Self::Inconclusive => "inconclusive",
            Self::Failed => "failed",
            Self::Diverged => "diverged",
            Self::UpstreamDiffers => "upstream-differs",
        }
    }

    /// The process's exit code (ARCHITECTURE.md, the command line).
    pub fn exit_code(self, accept: Accept) -> u8 {
        match (self, accept) {
            (Self::Reproduced, _) | (Self::Equivalent, Accept::Equivalent) => 0,
            (Self::Equivalent, Accept::Identical) | (Self::Diverged | Self::UpstreamDiffers, _) => 1,
            (Self::Inconclusive, _) => 4,
            (Self::Failed, _) => 5,
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What is compared: an output as a whole, or a file that is published as a file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(tag = "kind", content = "name", rename_all = "kebab-case")]
pub enum Subject {
    /// An output, by its NAR.
    Output(String),
    /// A file, by its bytes.
    File(String),
}

impl Subject {
    /// The name without its kind.
    pub fn name(&self) -> &str {
        match self {
            Self::Output(name) | Self::File(name) => name,
        }
    }
}

/// The digests of one subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity {
    /// Of the bytes as they are.
    pub exact: Digest,
    /// Of the bytes after the normalisers that all parties applied; absent if none was.
    pub normalised: Option<Digest>,
}

/// One outcome, as far as judging needs it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Seen {
    /// It was built.
    Built(BTreeMap<Subject, Identity>),
    /// The build itself failed.
    Failed,
    /// It ran into its deadline or a limit: whether it would have built is not known.
    Unfinished,
    /// It never ran.
    Unavailable,
}

impl From<&Outcome> for Seen {
    fn from(outcome: &Outcome) -> Self {
        match (outcome.status, outcome.limit) {
            (Status::Built, _) => {
                let identity = |exact| Identity { exact, normalised: None };
                let outputs = outcome
                    .outputs
                    .iter()
                    .map(|(n, o)| (Subject::Output(n.to_string()), identity(o.nar_hash.digest())));
                let files = outcome.artifacts.iter().map(|(n, a)| (Subject::File(n.clone()), identity(a.sha256)));
                Self::Built(outputs.chain(files).collect())
            }
            (Status::Failed, None) => Self::Failed,
            (Status::Failed, Some(_)) | (Status::TimedOut, _) => Self::Unfinished,
            (Status::Unavailable, _) => Self::Unavailable,
        }
    }
}

/// What the outcomes are held against.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reference {
    /// Nothing but each other.
    None,
    /// A published artifact that could not be had.
    Unavailable,
    /// What was published. Subjects that it does not name are judged among builds only.
    Published(BTreeMap<Subject, Identity>),
}

/// A verdict and what it is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement {
    /// The worst of all.
    pub verdict: Verdict,
    /// Of each subject.
    pub subjects: BTreeMap<Subject, Verdict>,
}

/// Judges outcomes of one derivation. Any order of `seen` gives the same judgement.
pub fn judge(seen: &[Seen], reference: &Reference) -> Judgement {
    let built: Vec<&BTreeMap<Subject, Identity>> = seen
        .iter()
        .filter_map(|s| match s {
            Seen::Built(subjects) => Some(subjects),
            Seen::Failed | Seen::Unfinished | Seen::Unavailable => None,
        })
        .collect();
    // What all subjects share, whatever their bytes.
    let common = if built.is_empty() {
        let ran = seen.iter().any(|s| matches!(s, Seen::Failed | Seen::Unfinished));
        if ran { Verdict::Failed } else { Verdict::Inconclusive }
    } else if seen.contains(&Seen::Failed) {
        Verdict::Diverged
    } else if seen.contains(&Seen::Unfinished) || *reference == Reference::Unavailable {
        Verdict::Inconclusive
    } else {
        Verdict::Reproduced
    };

    let nothing = BTreeMap::new();
    let published = match reference {
        Reference::Published(subjects) => subjects,
        Reference::None | Reference::Unavailable => &nothing,
    };
    let names: BTreeSet<&Subject> = built.iter().flat_map(|b| b.keys()).chain(published.keys()).collect();
    let subjects: BTreeMap<Subject, Verdict> = names
        .into_iter()
        .filter_map(|subject| {
            let copies: Vec<Option<&Identity>> = built.iter().map(|b| b.get(subject)).collect();
            let own = match published.get(subject) {
                Some(wanted) => Some(against(wanted, &copies)),
                // A lone build beside a reference is judged by what was published, and nothing else of it was.
                None if !published.is_empty() && copies.len() < 2 => None,
                None => Some(among(&copies)),
            };
            own.map(|verdict| (subject.clone(), verdict.max(common)))
        })
        .collect();
    let nothing_judged = if subjects.is_empty() { common.max(Verdict::Inconclusive) } else { common };
    let verdict = subjects.values().copied().fold(nothing_judged, Verdict::max);
    Judgement { verdict, subjects }
}

/// How far copies agree with each other.
fn agreement(copies: &[Option<&Identity>]) -> Verdict {
    let exact: BTreeSet<_> = copies.iter().map(|c| c.map(|i| i.exact)).collect();
    if exact.len() <= 1 {
        return Verdict::Reproduced;
    }
    // A missing copy, or one without a normalised digest, is equal to nothing.
    let normalised: Option<BTreeSet<_>> = copies.iter().map(|c| c.and_then(|i| i.normalised)).collect();
    match normalised {
        Some(set) if set.len() == 1 => Verdict::Equivalent,
        Some(_) | None => Verdict::Diverged,
    }
}

fn among(copies: &[Option<&Identity>]) -> Verdict {
    if copies.len() < 2 { Verdict::Inconclusive } else { agreement(copies) }
}

fn against(wanted: &Identity, copies: &[Option<&Identity>]) -> Verdict {
    let [Some(first), ..] = copies else {
        return match (copies, agreement(copies)) {
            ([] | [_], _) => Verdict::Inconclusive,
            (_, Verdict::Reproduced) => Verdict::UpstreamDiffers,
            (_, other) => other,
        };
    };
    match agreement(copies) {
        Verdict::Diverged => Verdict::Diverged,
        Verdict::Reproduced if first.exact == wanted.exact => Verdict::Reproduced,
        _ if wanted.normalised.is_some() && first.normalised == wanted.normalised => Verdict::Equivalent,
        _ if copies.len() < 2 => Verdict::Inconclusive,
        _ => Verdict::UpstreamDiffers,
    }
}
