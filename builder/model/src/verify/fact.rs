//! A fact: what is left of a statement once its envelope was verified and read. Small, for there are many.
//!
//! All that does not depend on the artifact is judged already: `failures` says why a fact counts for nothing.

use std::collections::BTreeMap;

use serde_json::Value;

use super::candidate::Source;
use super::check::Check;
use crate::digest::Digest;
use crate::envelope::EnvelopeId;
use crate::key::KeyId;
use crate::outcome::Moment;
use crate::policy::Form;
use crate::statement::{ComparisonResult, Descriptor, DigestSet, Match};

/// What is left of a statement.
#[derive(Debug, Clone, PartialEq)]
pub struct Fact {
    /// Its envelope.
    pub id: EnvelopeId,
    /// Where that was found.
    pub source: Source,
    /// Who signed it.
    pub key: KeyId,
    /// What it is about.
    pub subjects: Box<[Subject]>,
    /// Purls that it names as its subject.
    pub purls: Box<[Box<str>]>,
    /// When a log's witnesses say that it existed, at the latest.
    pub existed: Option<Moment>,
    /// Why it counts for nothing. Empty if it counts.
    pub failures: Vec<Check>,
    /// What it says.
    pub claim: Claim,
    /// All that it says, where further rules want to see it.
    pub whole: Option<Box<Value>>,
}

/// What a statement says.
#[derive(Debug, Clone, PartialEq)]
pub enum Claim {
    /// That a rebuilder made the subjects.
    Built(Box<Built>),
    /// How what it made compares with the subject.
    Compared(Box<Compared>),
    /// What another verifier found.
    Judged(Judged),
    /// A bill of materials, advisories, what a monitor saw: by whom, and the predicate.
    Other {
        /// Whose key it is.
        speaker: Speaker,
        /// `predicateType`.
        kind: Box<str>,
        /// `predicate`.
        value: Box<Value>,
    },
}

/// For what a key stands in the policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Speaker {
    /// Of the rebuilder with this number.
    Rebuilder(usize),
    /// Of the issuer of summaries with this number.
    Verifier(usize),
    /// Of an author of VEX documents.
    VexAuthor,
}

/// A build, as far as it matters.
#[derive(Debug, Clone, PartialEq)]
pub struct Built {
    /// Number of the rebuilder in the policy.
    pub rebuilder: usize,
    /// The form that says it, if that is no provenance of ours or of who says as much.
    pub form: Option<Form>,
    /// Level of SLSA's build track that the policy grants.
    pub level: u8,
    /// When it ended, by the builder's word.
    pub finished: Option<Moment>,
    /// Which version of the tool built.
    pub tool: Box<str>,
    /// On which architecture and kernel.
    pub platform: Box<str>,
    /// Inputs that are denied, whatever else holds.
    pub denials: Vec<Check>,
    /// Revisions of sources among its inputs, if the policy asks who keeps them.
    pub sources: Vec<(Box<str>, Box<str>)>,
    /// Inputs as purls, if advisories are to be held against them.
    pub inputs: Vec<Box<str>>,
}

/// A comparison, as far as it matters.
#[derive(Debug, Clone, PartialEq)]
pub struct Compared {
    /// Number of the rebuilder in the policy.
    pub rebuilder: usize,
    /// How it ended.
    pub result: ComparisonResult,
    /// The envelope of the provenance.
    pub provenance: Option<EnvelopeId>,
    /// The bytes whose provenance by the same key stands in for that link, where another form has none.
    pub made: Option<Digest>,
    /// What was made.
    pub produced: Box<[Subject]>,
    /// Digest after the normalisers.
    pub normalised: Option<Digest>,
    /// Their names and versions.
    pub normalisers: Box<[Box<str>]>,
    /// Whether its own attempts disagreed.
    pub flaky: bool,
    /// When it was known.
    pub finished: Moment,
}

/// Another verifier's summary, as far as it matters.
#[derive(Debug, Clone, PartialEq)]
pub struct Judged {
    /// Number of the verifier in the policy.
    pub verifier: usize,
    /// Whether its rules held.
    pub passed: bool,
    /// Level of SLSA's source track, capped by the policy.
    pub source_level: Option<u8>,
    /// What the subject is expected to be fetched from.
    pub resource: Box<str>,
    /// Revisions that it is about.
    pub revisions: Box<[Box<str>]>,
}

/// The digests of one subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// The one that everything has but a revision of sources.
    pub sha256: Option<Digest>,
    /// All, if there are others.
    rest: Option<Box<DigestSet>>,
}

impl Subject {
    pub(super) fn of(digests: &DigestSet) -> Self {
        let more = digests.0.len() > 1 || !digests.contains("sha256");
        Self { sha256: digests.sha256(), rest: more.then(|| Box::new(digests.clone())) }
    }

    /// Whether it is the thing with these digests: all known algorithms that both have must say so, SHA-256 among them.
    pub fn is(&self, artifact: &DigestSet) -> bool {
        match (&self.rest, self.sha256) {
            (Some(all), _) => all.matches(artifact) == Match::Same,
            (None, Some(sha256)) => artifact.sha256() == Some(sha256),
            (None, None) => false,
        }
    }

    /// Whether both are the same thing.
    pub fn same(&self, other: &Self) -> bool {
        match (&self.rest, &other.rest) {
            (Some(mine), Some(theirs)) => mine.matches(theirs) == Match::Same,
            (None, _) | (_, None) => self.sha256.is_some() && self.sha256 == other.sha256,
        }
    }
}

pub(super) fn subjects(descriptors: &[Descriptor]) -> Box<[Subject]> {
    descriptors.iter().map(|descriptor| Subject::of(&descriptor.digest)).collect()
}

pub(super) fn purls<'a>(descriptors: impl Iterator<Item = &'a Descriptor>) -> Box<[Box<str>]> {
    let uris = descriptors.filter_map(|descriptor| descriptor.uri.as_deref());
    uris.filter(|uri| uri.starts_with("pkg:")).map(Into::into).collect()
}

impl Fact {
    /// The rebuilder whose word it is.
    pub fn rebuilder(&self) -> Option<usize> {
        match &self.claim {
            Claim::Built(built) => Some(built.rebuilder),
            Claim::Compared(compared) => Some(compared.rebuilder),
            Claim::Other { speaker: Speaker::Rebuilder(number), .. } => Some(*number),
            Claim::Judged(_) | Claim::Other { .. } => None,
        }
    }

    /// Whether it is about the thing with these digests.
    pub fn is_about(&self, artifact: &DigestSet) -> bool {
        self.subjects.iter().any(|subject| subject.is(artifact))
    }

    /// `check`, said of this fact's envelope.
    pub(super) fn said(&self, check: Check) -> Check {
        check.about(self.id, self.source.to_string())
    }
}

/// External parameters as one level: members of objects by their path (`parameters.x`), what is no text as JSON.
pub(super) fn flat(parameters: &BTreeMap<String, Value>) -> Vec<(String, String)> {
    fn walk(path: String, value: &Value, out: &mut Vec<(String, String)>) {
        match value {
            Value::Object(members) => {
                for (name, value) in members {
                    walk(format!("{path}.{}", plain(name)), value, out);
                }
            }
            Value::String(text) => out.push((path, text.clone())),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => out.push((path, value.to_string())),
        }
    }
    // A name with a dot would be another's path.
    fn plain(name: &str) -> String {
        if name.contains('.') { format!("{name:?}") } else { name.to_owned() }
    }
    let mut out = Vec::new();
    for (name, value) in parameters {
        walk(plain(name), value, &mut out);
    }
    out
}
