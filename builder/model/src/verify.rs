//! The verifier: from files and keys to a decision, by the algorithm of docs/attestation.md.
//!
//! Pure. The caller hashes the artifact, reads evidence, and says what time it is; no byte comes from anywhere else. A
//! [`Verifier`] judges each candidate by itself ([`Verifier::judge`], in any order, on any thread), [`Evidence`] holds what
//! remains, and [`Verifier::decide`] decides on one artifact. [`verify`] does all three. Whatever is missing, unknown or
//! contradicted fails closed: ignoring evidence can cost a yes and never give one.

mod admit;
mod candidate;
mod check;
mod decide;
mod decision;
mod evidence;
mod fact;
mod foreign;
mod inclusion;
mod issue;
mod observe;
mod oss_rebuild;
mod provenance;
#[cfg(feature = "rego")]
mod rego;
mod sbom;
mod supplement;
#[cfg(test)]
mod tests;
mod time;
mod vote;
mod vulnerability;

use std::collections::BTreeMap;

use crate::envelope::EnvelopeId;
use crate::key::{KeyId, Prepared, PublicKey, prepared};
use crate::log::LogPolicy;
use crate::outcome::Moment;
use crate::policy::{Inclusion, Policy, Rebuilder};

pub use admit::Admission;
pub use candidate::{Candidate, Source};
pub use check::{Check, Code, Status, Text};
pub use decide::MOST_STATEMENTS;
pub use decision::{Achieved, Answer, Artifact, Decision, Said};
pub use evidence::Evidence;
pub use fact::{Built, Claim, Compared, Fact, Judged, Speaker, Subject};
pub use foreign::Clearsigned;
pub use inclusion::{Growth, Pinned};
pub use issue::{IssueError, Issuer, summary};
pub use observe::observe;
pub use vulnerability::Feed;

/// Proofs of an envelope that were found apart from it.
pub type Proofs<'a> = dyn Fn(EnvelopeId) -> Vec<Vec<u8>> + Sync + 'a;

/// What a verifier goes by.
pub struct Given<'a> {
    /// The rules.
    pub policy: &'a Policy,
    /// Public keys; those that the policy does not name count for nothing.
    pub keys: &'a [PublicKey],
    /// Logs and witnesses that are believed.
    pub log: Option<&'a LogPolicy>,
    /// The newest checkpoints that were seen before, by origin.
    pub pinned: &'a BTreeMap<String, Pinned>,
    /// Shows that logs grew since then.
    pub growth: &'a Growth<'a>,
    /// Proofs that were found apart from their envelopes.
    pub proofs: &'a Proofs<'a>,
    /// Advisories, if there are any.
    pub feed: Option<&'a Feed>,
    /// The time.
    pub now: Moment,
}

/// A policy that is ready to judge.
pub struct Verifier<'a> {
    policy: &'a Policy,
    keys: BTreeMap<KeyId, (Prepared, Speaker)>,
    /// Other programs' ids of the same keys.
    other_ids: BTreeMap<KeyId, KeyId>,
    logs: Option<inclusion::Logs<'a>>,
    proofs: &'a Proofs<'a>,
    feed: Option<&'a Feed>,
    keeps_statements: bool,
    licences: provenance::Known,
    now: Moment,
}

/// Why a policy cannot judge here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifierError {
    /// Nothing could be verified.
    #[error("none of the {named} keys that the policy names is there: give a directory with their PEM files (--keys)")]
    NoKeys {
        /// How many the policy names.
        named: usize,
    },
    /// Too few could be.
    #[error("threshold.identical is {wanted}, and only {there} operators have keys that are there; missing: {}", missing.join(", "))]
    TooFewKeys {
        /// Operators that must agree.
        wanted: u32,
        /// Operators with a key that is there.
        there: usize,
        /// Fingerprints of keys that are not.
        missing: Vec<String>,
    },
    /// A log is asked for, and none is believed.
    #[error(
        "log.require_inclusion needs logs to believe: {file:?} is not there; write it, or set require_inclusion to false"
    )]
    NoLogPolicy {
        /// What the policy names.
        file: String,
    },
    /// An age of what has no time.
    #[error(
        "log.checkpoint_max_age_hours is {hours}, but the log policy says `quorum none`: a checkpoint without witnesses has no time; name a quorum, or leave the age out"
    )]
    NoQuorum {
        /// As given.
        hours: u32,
    },
}

impl<'a> Verifier<'a> {
    /// A verifier, if the policy could let anything in with these keys and logs.
    pub fn new(given: &Given<'a>) -> Result<Self, VerifierError> {
        let policy = given.policy;
        let mut speakers: BTreeMap<KeyId, Speaker> = BTreeMap::new();
        for (number, rebuilder) in policy.rebuilders.iter().enumerate() {
            speakers.extend(rebuilder.keys.iter().map(|key| (*key, Speaker::Rebuilder(number))));
        }
        for (number, verifier) in policy.verifiers.iter().enumerate() {
            speakers.extend(verifier.keys.iter().map(|key| (*key, Speaker::Verifier(number))));
        }
        speakers.extend(policy.vulns.vex_authors.iter().map(|key| (*key, Speaker::VexAuthor)));
        let named = speakers.len();
        let known = given.keys.iter().filter_map(|key| speakers.get(&key.id()).map(|speaker| (key, *speaker)));
        let prepared = known.enumerate().map(|(number, (key, speaker))| {
            (key.id(), (Prepared::new(key.clone(), number < prepared::TABLES), speaker))
        });
        let keys: BTreeMap<KeyId, (Prepared, Speaker)> = prepared.collect();
        let vouched = |rebuilder: &Rebuilder| rebuilder.svid.as_ref().is_some_and(|svid| svid.bundle.is_some());
        // Whether the certificate of an OpenPGP key is there, its reader knows.
        let apart = |rebuilder: &Rebuilder| vouched(rebuilder) || !rebuilder.openpgp.is_empty();
        if keys.is_empty() && !policy.rebuilders.iter().any(apart) {
            return Err(VerifierError::NoKeys { named });
        }
        let able = policy.rebuilders.iter();
        let able = able.filter(|one| apart(one) || one.keys.iter().any(|key| keys.contains_key(key)));
        let there = able.map(|rebuilder| rebuilder.operator.as_str()).collect::<std::collections::BTreeSet<_>>().len();
        let wanted = policy.threshold.identical;
        if there < wanted as usize {
            let missing =
                speakers.keys().filter(|key| !keys.contains_key(key)).map(|key| format!("sha256:{key}")).collect();
            return Err(VerifierError::TooFewKeys { wanted, there, missing });
        }
        match (given.log, policy.log.checkpoint_max_age_hours) {
            (None, _) if policy.log.inclusion == Inclusion::Required => {
                let file = policy.log.policy_file.clone().unwrap_or_default();
                return Err(VerifierError::NoLogPolicy { file });
            }
            (Some(log), Some(hours)) if !log.has_quorum() => return Err(VerifierError::NoQuorum { hours }),
            (None | Some(_), _) => {}
        }
        let others = |(id, (key, _)): (&KeyId, &(Prepared, Speaker))| {
            let id = *id;
            let names = [key.key().securesystemslib_id(), key.key().rebuilderd_id()];
            names.into_iter().filter_map(move |name| Some((name.parse::<KeyId>().ok()?, id)))
        };
        Ok(Self {
            policy,
            other_ids: keys.iter().flat_map(others).collect(),
            keys,
            logs: given.log.map(|log| inclusion::Logs::new(log, given.pinned, given.growth)),
            proofs: given.proofs,
            feed: given.feed,
            keeps_statements: !policy.rego_modules.is_empty(),
            licences: provenance::Known::default(),
            now: given.now,
        })
    }

    /// The newest checkpoint of each log that was believed, with its note: what to pin after a yes.
    pub fn newest_checkpoints(&self) -> BTreeMap<String, (Pinned, String)> {
        self.logs.as_ref().map(inclusion::Logs::newest).unwrap_or_default()
    }

    /// Keys that the policy names and nobody gave.
    pub fn missing_keys(&self) -> Vec<KeyId> {
        self.policy.keys().into_iter().filter(|key| !self.keys.contains_key(key)).collect()
    }
}

/// Decides on one artifact by all candidates: the whole algorithm.
pub fn verify(artifact: &Artifact, candidates: &[Candidate<'_>], given: &Given<'_>) -> Result<Decision, VerifierError> {
    let verifier = Verifier::new(given)?;
    let mut evidence = Evidence::default();
    let mut admissions = Vec::new();
    for candidate in candidates {
        verifier.judge(candidate, &mut admissions);
        admissions.drain(..).for_each(|admission| evidence.add(admission));
    }
    Ok(verifier.decide(artifact, &evidence))
}
