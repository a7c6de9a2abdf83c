//! Votes: what each operator says of the artifact, and the verdict over them. Steps 10 and 11, and section 6.
//!
//! A vote for identity is a valid provenance whose subject is the artifact; a comparison alone is none. Every DIFFERENT of an
//! operator stands, whatever it says later. Operators are counted, never keys, ids or statements.

use std::collections::BTreeMap;

use super::Verifier;
use super::check::{Check, Code, Status};
use super::evidence::Evidence;
use super::fact::{Built, Claim, Compared, Fact};
use crate::envelope::EnvelopeId;
use crate::outcome::Moment;
use crate::policy::Flaky;
use crate::statement::{ComparisonResult, DigestSet};
use crate::verdict::Verdict;

/// What one statement, or a provenance with its comparison, says of the artifact.
#[derive(Debug, Clone, Copy)]
pub(super) struct Vote<'a> {
    pub(super) says: ComparisonResult,
    pub(super) rebuilder: usize,
    /// The statement that says it.
    pub(super) fact: &'a Fact,
    /// The provenance, where there was something built.
    pub(super) provenance: Option<(&'a Fact, &'a Built)>,
    /// What was made, of those that differ.
    pub(super) compared: Option<&'a Compared>,
    time: Moment,
}

/// All that one operator says.
#[derive(Debug)]
pub(super) struct Ballot<'a> {
    pub(super) operator: &'a str,
    /// What counts: a disagreement if there is one, else the latest.
    pub(super) vote: Vote<'a>,
    /// All its disagreements.
    pub(super) dissent: Vec<Vote<'a>>,
}

impl Verifier<'_> {
    /// What every operator says, with the reasons why other statements do not count.
    pub(super) fn ballots<'a>(
        &'a self,
        artifact: &DigestSet,
        about: &[&'a Fact],
        evidence: &'a Evidence,
        checks: &mut Vec<Check>,
    ) -> Vec<Ballot<'a>> {
        let mut votes = Vec::new();
        let mut flaky: Vec<EnvelopeId> = Vec::new();
        for &fact in about {
            let Claim::Compared(compared) = &fact.claim else { continue };
            if !fact.failures.is_empty() {
                checks.extend(fact.failures.iter().cloned());
                continue;
            }
            match self.compared(artifact, fact, compared, evidence) {
                Ok(vote) => votes.extend(vote),
                Err(check) => {
                    if check.code == Code::Flaky {
                        flaky.extend(compared.provenance);
                    }
                    checks.push(fact.said(check));
                }
            }
        }
        for &fact in about {
            let Claim::Built(built) = &fact.claim else { continue };
            checks.extend(fact.failures.iter().cloned());
            if fact.failures.is_empty() && !flaky.contains(&fact.id) {
                votes.push(Vote {
                    says: ComparisonResult::Identical,
                    rebuilder: built.rebuilder,
                    fact,
                    provenance: Some((fact, built)),
                    compared: None,
                    time: built.finished.or(fact.existed).unwrap_or(Moment::from_unix(0)),
                });
            }
        }
        let mut operators: BTreeMap<&str, Vec<Vote<'a>>> = BTreeMap::new();
        for vote in votes {
            operators.entry(&self.policy.rebuilders[vote.rebuilder].operator).or_default().push(vote);
        }
        let ballot = |(operator, mut votes): (&'a str, Vec<Vote<'a>>)| {
            // Who did not try has said nothing about the bytes: that takes no earlier word back.
            votes.sort_by_key(|vote| (vote.says != ComparisonResult::NotAttempted, vote.time, vote.fact.id));
            let dissent: Vec<Vote<'a>> =
                votes.iter().filter(|vote| vote.says == ComparisonResult::Different).copied().collect();
            let vote = dissent.last().or(votes.last()).copied()?;
            Some(Ballot { operator, vote, dissent })
        };
        operators.into_iter().filter_map(ballot).collect()
    }

    /// The vote of a comparison, if it is one: identity is the provenance's own.
    fn compared<'a>(
        &self,
        artifact: &DigestSet,
        fact: &'a Fact,
        compared: &'a Compared,
        evidence: &'a Evidence,
    ) -> Result<Option<Vote<'a>>, Check> {
        let linked = match (compared.provenance, compared.made) {
            (Some(id), _) => evidence.fact(id),
            (None, Some(made)) => {
                let near = evidence.near(&DigestSet::of(made)).into_iter();
                let own = near.filter(|other| other.key == fact.key && matches!(other.claim, Claim::Built(_)));
                own.min_by_key(|other| other.failures.len())
            }
            (None, None) => None,
        };
        let built = linked.and_then(|fact| match &fact.claim {
            Claim::Built(built) => Some((fact, &**built)),
            Claim::Compared(_) | Claim::Judged(_) | Claim::Other { .. } => None,
        });
        let vote = Vote {
            says: compared.result,
            rebuilder: compared.rebuilder,
            fact,
            provenance: built,
            compared: Some(compared),
            time: compared.finished,
        };
        match compared.result {
            // Counted however little it comes with: to lose a disagreement would make a yes of a no.
            ComparisonResult::Different | ComparisonResult::BuildFailed | ComparisonResult::NotAttempted => {
                return Ok(Some(vote));
            }
            ComparisonResult::Identical | ComparisonResult::Equivalent => {}
        }
        let refused = |code, field: &'static str, expected: &'static str, got: String, way_out: &'static str| {
            Err(Check::new(code, Status::NotCounted, field, expected, got, way_out))
        };
        if compared.flaky && self.policy.threshold.flaky == Flaky::Refused {
            return refused(
                Code::Flaky,
                "flaky",
                "attempts of the rebuilder that agree with each other",
                "they do not".into(),
                "the build is nondeterministic there: mend it, or set threshold.allow_flaky",
            );
        }
        let Some((linked, built)) = built else {
            let got =
                compared.provenance.map_or("no link".into(), |id| format!("{id}, which is not among the evidence"));
            let way_out = "give the provenance as evidence, too";
            return refused(Code::Comparison, "provenance.digest", "the rebuilder's own provenance", got, way_out);
        };
        if built.rebuilder != compared.rebuilder || linked.key != fact.key {
            return refused(
                Code::Comparison,
                "provenance.digest",
                "provenance by the same key and builder id",
                format!("that of {}", self.policy.rebuilders[built.rebuilder].id),
                "a rebuilder compares what it built itself",
            );
        }
        let made = |subject| linked.subjects.iter().any(|other| other.same(subject));
        let is_artifact = linked.is_about(artifact);
        let agrees =
            compared.produced.iter().all(made) && is_artifact == (compared.result == ComparisonResult::Identical);
        if !agrees {
            return refused(
                Code::Comparison,
                "produced",
                "what the provenance says was made",
                format!("{} of other bytes", compared.result.as_str()),
                "comparison and provenance contradict each other; ask the rebuilder",
            );
        }
        if !linked.failures.is_empty() {
            let got = linked.failures[0].code.as_str();
            let way_out = "see the check of that provenance";
            return refused(Code::Comparison, "provenance.digest", "provenance that counts", got.into(), way_out);
        }
        match compared.result {
            ComparisonResult::Equivalent => Ok(Some(vote)),
            ComparisonResult::Identical
            | ComparisonResult::Different
            | ComparisonResult::BuildFailed
            | ComparisonResult::NotAttempted => Ok(None),
        }
    }
}

/// The verdict over operators: section 6, the first rule that fits.
pub(super) fn verdict(ballots: &[Ballot<'_>]) -> Verdict {
    use ComparisonResult::{BuildFailed, Different, Equivalent, Identical, NotAttempted};
    let count = |wanted: &[ComparisonResult]| ballots.iter().filter(|b| wanted.contains(&b.vote.says)).count();
    let (identical, equivalent, different) = (count(&[Identical]), count(&[Equivalent]), count(&[Different]));
    let built = identical + equivalent + different;
    debug_assert_eq!(built + count(&[BuildFailed, NotAttempted]), ballots.len());
    if built < 2 {
        return if built == 0 && count(&[BuildFailed]) >= 2 { Verdict::Failed } else { Verdict::Inconclusive };
    }
    if identical == built {
        return Verdict::Reproduced;
    }
    if different == 0 {
        return Verdict::Equivalent;
    }
    let mut produced = ballots.iter().flat_map(|ballot| &ballot.dissent).map(|vote| {
        let mut digests: Vec<_> = vote.compared.iter().flat_map(|c| c.produced.iter().map(|s| s.sha256)).collect();
        digests.sort_unstable();
        digests
    });
    let first = produced.next().unwrap_or_default();
    if different == built && !first.is_empty() && produced.all(|digests| digests == first) {
        return Verdict::UpstreamDiffers;
    }
    Verdict::Diverged
}
