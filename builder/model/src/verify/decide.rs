//! The decision over one artifact. Steps 8, 11 and 14 of the algorithm: threshold, independence, dissent, levels.
//!
//! The verdict comes from what operators say; what a policy makes of it is the decision, and stands beside it.

use std::collections::{BTreeMap, BTreeSet};

use super::Verifier;
use super::check::{Check, Code, Status};
use super::decision::{Achieved, Answer, Artifact, Decision, Said};
use super::evidence::Evidence;
use super::fact::{Claim, Fact};
use super::vote::{self, Ballot};
use crate::envelope::EnvelopeId;
use crate::policy::{Equivalents, OnDissent};
use crate::statement::ComparisonResult;
use crate::statement::summary::Level;
use crate::verdict::Verdict;

/// Statements about one artifact that are looked at; more is a flood.
pub const MOST_STATEMENTS: usize = 10_000;

/// Contradictions that a decision lists; all are counted.
const LISTED: usize = 10;

impl Verifier<'_> {
    /// Decides on `artifact` by the evidence.
    pub fn decide(&self, artifact: &Artifact, evidence: &Evidence) -> Decision {
        let mut checks: Vec<Check> = evidence.tampered.iter().take(LISTED).cloned().collect();
        if evidence.tampered_count > LISTED {
            checks.push(Check::new(
                Code::Evidence,
                Status::Tampered,
                "evidence",
                "nothing that cryptography contradicts",
                format!("{} statements in all that it contradicts", evidence.tampered_count),
                "find out who altered them; fetch the evidence again, from elsewhere",
            ));
        }
        self.artifact(artifact, &mut checks);
        let about = self.about(artifact, evidence, &mut checks);
        let ballots = self.ballots(&artifact.digest, &about, evidence, &mut checks);
        let agreeing = self.agreeing(&ballots);
        let mut achieved = Vec::new();
        self.threshold(&ballots, &agreeing, &mut checks, &mut achieved);
        let independent = self.independence(&agreeing, &mut checks, &mut achieved);
        self.dissent(&ballots, agreeing.len(), &mut checks, &mut achieved);
        for (_, built) in agreeing.iter().filter_map(|ballot| ballot.vote.provenance) {
            checks.extend(built.denials.iter().cloned());
        }
        self.supplements(artifact, &about, &agreeing, evidence, &mut checks, &mut achieved);
        checks.dedup();

        let level = self.level(&agreeing);
        let reached = level.map_or("none".into(), |level| format!("SLSA_BUILD_LEVEL_{level}"));
        let minimum = self.policy.provenance.min_level;
        achieved.push(Achieved {
            what: "build level",
            required: format!("SLSA_BUILD_LEVEL_{minimum}"),
            achieved: reached,
            holds: level.unwrap_or(0) >= minimum,
        });
        let mut decision = Decision {
            artifact: artifact.clone(),
            answer: Answer::Allowed,
            exit: 0,
            verdict: vote::verdict(&ballots),
            achieved,
            operators: ballots.iter().map(|ballot| self.said(ballot)).collect(),
            levels: self.levels(&agreeing, &ballots, level, independent),
            inputs: self.inputs(&ballots, &about),
            checks,
        };
        decision.settle();
        decision
    }

    /// Whether the policy is for this artifact at all.
    fn artifact(&self, artifact: &Artifact, checks: &mut Vec<Check>) {
        let pattern = &self.policy.artifact.pattern;
        if let Some(purl) = &artifact.purl {
            let status = if pattern.matches(purl) { Status::Passed } else { Status::Denied };
            let way_out = if status == Status::Passed { "" } else { "take the policy that is for this artifact" };
            let check =
                Check::new(Code::Artifact, status, "artifact.match", pattern.to_string(), purl.clone(), way_out);
            checks.push(check);
        }
        for (algorithm, hex) in &self.policy.inputs.deny_digests {
            if artifact.digest.0.get(algorithm) == Some(hex) {
                checks.push(Check::new(
                    Code::DeniedDigest,
                    Status::Denied,
                    "inputs.deny_digests",
                    "no denied digest",
                    format!("the artifact is {algorithm}:{hex}"),
                    "do not use it; whoever denied it knows why",
                ));
            }
        }
    }

    /// Facts about the artifact: all known digests say so.
    fn about<'a>(&self, artifact: &Artifact, evidence: &'a Evidence, checks: &mut Vec<Check>) -> Vec<&'a Fact> {
        let near = evidence.near(&artifact.digest);
        if near.len() > MOST_STATEMENTS {
            checks.push(Check::new(
                Code::Evidence,
                Status::Insufficient,
                "evidence",
                format!("at most {MOST_STATEMENTS} statements about one artifact"),
                near.len().to_string(),
                "find out who floods it; give less evidence",
            ));
            return Vec::new();
        }
        let mut about = Vec::with_capacity(near.len());
        for fact in near {
            let pattern = &self.policy.artifact.pattern;
            let disagrees = matches!(&fact.claim, Claim::Compared(c) if c.result == ComparisonResult::Different);
            if !fact.is_about(&artifact.digest) {
                checks.push(fact.said(Check::new(
                    Code::Subject,
                    Status::NotCounted,
                    "subject.digest",
                    "all known algorithms to match the artifact",
                    "sha256 matches, another does not",
                    "the statement is about other bytes, or wrong; ask its rebuilder",
                )));
            } else if !disagrees && !fact.purls.is_empty() && !fact.purls.iter().any(|purl| pattern.matches(purl)) {
                checks.push(fact.said(Check::new(
                    Code::Artifact,
                    Status::NotCounted,
                    "artifact.match",
                    pattern.to_string(),
                    fact.purls.join(", "),
                    "the statement is about another package; take the policy that is for it",
                )));
            } else {
                about.push(fact);
            }
        }
        if about.is_empty() {
            let others = match evidence.len() + evidence.refused_count + evidence.ignored_count {
                0 => "none at all".to_owned(),
                _ => format!(
                    "none ({} statements about other things, {} that count for nothing, {} files or lines that are none)",
                    evidence.len(),
                    evidence.refused_count,
                    evidence.ignored_count
                ),
            };
            checks.push(Check::new(
                Code::Evidence,
                Status::Insufficient,
                "subject.digest",
                artifact.digest.sha256().map_or_else(String::new, |digest| format!("statements about sha256:{digest}")),
                others,
                "fetch what rebuilders say of it (kiln evidence pull), or check that this is the artifact you mean",
            ));
        }
        about
    }

    /// Those whose word counts towards the threshold.
    fn agreeing<'b, 'a>(&self, ballots: &'b [Ballot<'a>]) -> Vec<&'b Ballot<'a>> {
        let counts = |ballot: &&Ballot<'_>| self.counts(ballot.vote.says);
        ballots.iter().filter(counts).collect()
    }

    fn counts(&self, says: ComparisonResult) -> bool {
        match says {
            ComparisonResult::Identical => true,
            ComparisonResult::Equivalent => self.policy.threshold.equivalents == Equivalents::Counted,
            ComparisonResult::Different | ComparisonResult::BuildFailed | ComparisonResult::NotAttempted => false,
        }
    }

    fn threshold(
        &self,
        ballots: &[Ballot<'_>],
        agreeing: &[&Ballot<'_>],
        checks: &mut Vec<Check>,
        achieved: &mut Vec<Achieved>,
    ) {
        let required = self.policy.threshold.identical as usize;
        let holds = agreeing.len() >= required;
        let names =
            |ballots: &[&Ballot<'_>]| ballots.iter().map(|ballot| ballot.operator).collect::<Vec<_>>().join(", ");
        let what = match self.policy.threshold.equivalents {
            Equivalents::Counted => "operators that agree, after normalisers too",
            Equivalents::Ignored => "operators that built the same bytes",
        };
        let got = if agreeing.is_empty() { "0".into() } else { format!("{} ({})", agreeing.len(), names(agreeing)) };
        achieved.push(Achieved { what, required: required.to_string(), achieved: got.clone(), holds });
        if holds {
            checks.push(Check::passed(Code::Threshold, "threshold.identical", format!("{required} {what}"), got));
            return;
        }
        let silent: Vec<&str> =
            self.policy.operators().into_iter().filter(|name| !ballots.iter().any(|b| b.operator == *name)).collect();
        let way_out = match silent.is_empty() {
            true => "see what else the operators say".to_owned(),
            false => format!(
                "nothing that counts was found by {}; see which of their statements do not, and why",
                silent.join(", ")
            ),
        };
        let expected = format!("{required} {what}");
        checks.push(Check::new(Code::Threshold, Status::Insufficient, "threshold.identical", expected, got, way_out));
    }

    /// How different those are who agree. Returns whether it is enough.
    fn independence(&self, agreeing: &[&Ballot<'_>], checks: &mut Vec<Check>, achieved: &mut Vec<Achieved>) -> bool {
        let demands = self.policy.threshold.independence;
        let distinct = |of: fn(&super::fact::Built) -> &str| -> BTreeSet<&str> {
            agreeing
                .iter()
                .filter_map(|b| b.vote.provenance)
                .map(|(_, built)| of(built))
                .filter(|w| !w.is_empty())
                .collect()
        };
        let operators: BTreeSet<&str> = agreeing.iter().map(|ballot| ballot.operator).collect();
        let rows = [
            ("distinct operators", "threshold.min_independence.operators", demands.operators, operators),
            (
                "distinct tool versions",
                "threshold.min_independence.tool_versions",
                demands.tool_versions,
                distinct(|b| &b.tool),
            ),
            (
                "distinct platforms",
                "threshold.min_independence.architectures_or_os",
                demands.architectures_or_os,
                distinct(|b| &b.platform),
            ),
        ];
        let mut all = true;
        for (what, field, required, found) in rows {
            let holds = found.len() >= required as usize;
            all &= holds;
            let got = match found.is_empty() {
                true => "0".to_owned(),
                false => format!("{} ({})", found.len(), found.into_iter().collect::<Vec<_>>().join("; ")),
            };
            achieved.push(Achieved { what, required: required.to_string(), achieved: got.clone(), holds });
            if !holds {
                checks.push(Check::new(
                    Code::Independence,
                    Status::Insufficient,
                    field,
                    format!("{required} {what} among those who agree"),
                    got,
                    "find rebuilders that are less alike, or ask for less",
                ));
            }
        }
        all
    }

    fn dissent(&self, ballots: &[Ballot<'_>], agreeing: usize, checks: &mut Vec<Check>, achieved: &mut Vec<Achieved>) {
        let dissenting = ballots.iter().filter(|ballot| !ballot.dissent.is_empty()).count();
        let (status, rule) = match self.policy.threshold.on_dissent {
            OnDissent::Deny => (Status::Denied, "none".to_owned()),
            OnDissent::Warn => (Status::Noted, "shown only".to_owned()),
            OnDissent::Outvote if agreeing > dissenting + 1 => (Status::Noted, format!("fewer than {}", agreeing - 1)),
            OnDissent::Outvote => (Status::Denied, "fewer than those who agree, by two".to_owned()),
        };
        let holds = dissenting == 0 || status == Status::Noted;
        achieved.push(Achieved {
            what: "operators that dissent",
            required: rule,
            achieved: dissenting.to_string(),
            holds,
        });
        for vote in ballots.iter().flat_map(|ballot| &ballot.dissent) {
            let produced = vote.compared.iter().flat_map(|c| c.produced.iter()).filter_map(|s| s.sha256);
            let produced: Vec<String> = produced.map(|digest| format!("sha256:{digest}")).collect();
            checks.push(vote.fact.said(Check::new(
                Code::Dissent,
                status,
                "threshold.on_dissent",
                "the same bytes from every operator",
                format!(
                    "{} says DIFFERENT and built {}",
                    self.policy.rebuilders[vote.rebuilder].operator,
                    if produced.is_empty() { "what it does not say".into() } else { produced.join(", ") }
                ),
                "find out why; when it is explained, name the envelope in threshold.disregard",
            )));
        }
    }

    /// The level that the required number of operators reach, by identity.
    fn level(&self, agreeing: &[&Ballot<'_>]) -> Option<u8> {
        let identical = agreeing.iter().filter(|ballot| ballot.vote.says == ComparisonResult::Identical);
        let mut levels: Vec<u8> = identical.filter_map(|b| b.vote.provenance).map(|(_, built)| built.level).collect();
        levels.sort_unstable_by(|a, b| b.cmp(a));
        levels.get(self.policy.threshold.identical as usize - 1).or(levels.last()).copied()
    }

    fn levels(
        &self,
        agreeing: &[&Ballot<'_>],
        ballots: &[Ballot<'_>],
        level: Option<u8>,
        independent: bool,
    ) -> BTreeSet<Level> {
        let identical: BTreeSet<String> = agreeing
            .iter()
            .filter(|ballot| ballot.vote.says == ComparisonResult::Identical)
            .map(|ballot| ballot.operator.to_owned())
            .collect();
        let mut levels: BTreeSet<Level> = level.and_then(Level::build).into_iter().collect();
        let all = self.policy.operators().len();
        let enough = identical.len() >= self.policy.threshold.identical as usize;
        let (word, count) = if enough { ("REPRODUCED", identical.len()) } else { ("EQUIVALENT", agreeing.len()) };
        levels.extend(Level::own(&format!("KILN_{word}_{count}_OF_{all}")));
        let agreed = vote::verdict(ballots) == Verdict::Reproduced && ballots.iter().all(|b| b.dissent.is_empty());
        // SLSA asks each of them for provenance: a link or a signature of a cache is none.
        let with = |ballot: &Ballot<'_>| ballot.vote.provenance.is_some_and(|(_, built)| built.form.is_none());
        let proven = agreeing.iter().all(|ballot| with(ballot));
        if enough && independent && agreed && proven {
            levels.extend(Level::reproduced(&identical));
        }
        levels
    }

    fn said(&self, ballot: &Ballot<'_>) -> Said {
        let vote = &ballot.vote;
        let built = vote.provenance.map(|(_, built)| built);
        Said {
            operator: ballot.operator.to_owned(),
            rebuilder: self.policy.rebuilders[vote.rebuilder].id.clone(),
            says: vote.says,
            counts: self.counts(vote.says),
            level: built.map(|built| built.level),
            tool: built.map(|built| built.tool.to_string()),
            platform: built.map(|built| built.platform.to_string()),
            normalisers: vote.compared.iter().flat_map(|c| c.normalisers.iter().map(ToString::to_string)).collect(),
            witnessed: vote.fact.existed,
            envelope: vote.fact.id,
            source: vote.fact.source.to_string(),
        }
    }

    /// Every envelope that something rests on: all that count, for or against.
    fn inputs(&self, ballots: &[Ballot<'_>], about: &[&Fact]) -> BTreeMap<EnvelopeId, String> {
        let linked = ballots.iter().filter_map(|ballot| ballot.vote.provenance).map(|(fact, _)| fact);
        let counted = about.iter().copied().filter(|fact| fact.failures.is_empty());
        counted.chain(linked).map(|fact| (fact.id, fact.source.file.to_string())).collect()
    }
}
