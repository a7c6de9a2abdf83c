//! What `kiln verify` and `kiln gate` share: a policy, keys and evidence are loaded once, and any number of artifacts is decided
//! on.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use kiln_model::envelope::EnvelopeId;
use kiln_model::outcome::Moment;
use kiln_model::policy::Policy;
use kiln_model::verify::{Answer, Artifact, Decision, Evidence, Given, Verifier};
use rayon::prelude::*;

use super::Failure;
use super::rules::Rules;
use super::verify::{self, EvidenceSaid, PolicySaid};
use crate::evidence::{self, Certificates, Limits, Pins, Shelf};
use crate::exit::Kind;

/// By what is decided.
pub(super) struct Judging<'a> {
    /// The policy's file.
    pub(super) policy: &'a Path,
    /// Evidence.
    pub(super) evidence: &'a [PathBuf],
    /// Public keys, unless they lie beside the policy.
    pub(super) keys: Option<&'a Path>,
    /// The time, unless it is this host's.
    pub(super) now: Option<Moment>,
    /// Advisories.
    pub(super) osv: Option<&'a Path>,
}

/// A policy and evidence that are loaded.
pub(super) struct Bench<'a> {
    verifier: &'a Verifier<'a>,
    rules: &'a Rules,
    /// By what is decided.
    pub(super) policy: &'a Policy,
    file: &'a Path,
    files: usize,
    /// All facts.
    pub(super) evidence: &'a Evidence,
    /// The time that is taken for now.
    pub(super) now: Moment,
}

impl Judging<'_> {
    /// Loads everything and calls `ask`, whose answer gives the exit code. Checkpoints are pinned after a yes.
    pub(super) fn judge(&self, ask: impl FnOnce(&Bench<'_>) -> Result<Answer, Failure>) -> Result<u8, Failure> {
        let (policy, log) = verify::load(self.policy)?;
        let beside = |name: &str| self.policy.parent().unwrap_or(Path::new("")).join(name);
        // Where authorities vouch for all keys there need be none.
        let needs_keys = !policy.keys().is_empty() || policy.rebuilders.iter().any(|one| !one.openpgp.is_empty());
        let directory = self.keys.map(Path::to_owned).or_else(|| needs_keys.then(|| beside("keys")));
        let keys = directory.as_deref().map(evidence::keys).transpose()?.unwrap_or_default();
        let pins = policy.log.pinned_checkpoint.as_deref().map(|name| Pins::open(&beside(name))).transpose()?;
        let now = self.now.map_or_else(verify::clock, Ok)?;
        let feed = self.osv.map(verify::feed).transpose()?;
        let rules = Rules::load(&policy, &beside, now)?;
        let certificates = match &directory {
            Some(directory) => Certificates::read(directory, now)
                .with_context(|| format!("OpenPGP certificates in {}", directory.display()))
                .map_err(|error| Failure { kind: Kind::BadInput, error })?,
            None => Certificates::none(now),
        };
        let shelf = Shelf::open(self.evidence, Limits::default())?.trusting(certificates);
        let none = BTreeMap::new();
        let given = Given {
            policy: &policy,
            keys: &keys,
            log: log.as_ref(),
            pinned: pins.as_ref().map_or(&none, |pins| &pins.checkpoints),
            growth: &|origin, old, new| shelf.growth(origin, old, new),
            proofs: &|id: EnvelopeId| shelf.proofs(id),
            feed: feed.as_ref(),
            now,
        };
        let verifier = Verifier::new(&given)
            .with_context(|| format!("policy {}", self.policy.display()))
            .map_err(|error| Failure { kind: Kind::BadInput, error })?;
        let evidence = shelf.read(&verifier)?;
        let bench = Bench {
            verifier: &verifier,
            rules: &rules,
            policy: &policy,
            file: self.policy,
            files: shelf.len(),
            evidence: &evidence,
            now,
        };
        let answer = ask(&bench)?;
        // A million small pieces, and the process is about to end.
        std::mem::forget(evidence);
        if answer == Answer::Allowed
            && let Some(pins) = &pins
        {
            pins.advance(&verifier.newest_checkpoints())?;
        }
        Ok(answer.exit_code())
    }
}

impl Bench<'_> {
    /// Decides on each artifact, on all processors.
    pub(super) fn decide(&self, artifacts: &[Artifact]) -> Vec<Decision> {
        let decide = |artifact: &Artifact| {
            let mut decision = self.verifier.decide(artifact, self.evidence);
            self.rules.judge(self.verifier, &mut decision, self.evidence);
            decision
        };
        artifacts.par_iter().map(decide).collect()
    }

    /// What is said of the policy.
    pub(super) fn policy_said(&self) -> PolicySaid<'_> {
        PolicySaid {
            file: self.file.display().to_string(),
            sha256: self.policy.digest,
            missing_keys: self.verifier.missing_keys().iter().map(|key| format!("sha256:{key}")).collect(),
            operators: self.policy.operators().into_iter().collect(),
        }
    }

    /// What is said of the evidence.
    pub(super) fn evidence_said(&self) -> EvidenceSaid<'_> {
        verify::said(self.evidence, self.files)
    }
}

/// The gravest of several answers; yes, if there is none.
pub(super) fn gravest(answers: impl Iterator<Item = Answer>) -> Answer {
    answers.max_by_key(|answer| answer.weight()).unwrap_or(Answer::Allowed)
}
