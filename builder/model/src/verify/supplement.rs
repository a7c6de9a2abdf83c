//! What else a policy may ask for: others' summaries, bills of materials, monitors of builds. Step 12 of the algorithm.
//!
//! None of it can make up for a rebuilder that is missing: each can only ask for more, or deny.

use serde_json::Value;

use super::Verifier;
use super::check::{Check, Code, Status};
use super::decision::{Achieved, Artifact};
use super::evidence::Evidence;
use super::fact::{Claim, Fact, Speaker};
use super::sbom;
use super::vote::Ballot;
use crate::policy::{Needed, RuntimeEvent};

const RUNTIME_TRACE: &str = "https://in-toto.io/attestation/runtime-trace/v0.1";

impl Verifier<'_> {
    pub(super) fn supplements(
        &self,
        artifact: &Artifact,
        about: &[&Fact],
        agreeing: &[&Ballot<'_>],
        evidence: &Evidence,
        checks: &mut Vec<Check>,
        achieved: &mut Vec<Achieved>,
    ) {
        for fact in about {
            if let Claim::Judged(judged) = &fact.claim
                && !judged.passed
            {
                checks.push(failed(fact, &self.policy.verifiers[judged.verifier].id));
            }
        }
        if let Some(level) = self.policy.inputs.source_vsa_min {
            self.sources(level, agreeing, evidence, checks, achieved);
        }
        self.bill(about, checks, achieved);
        self.runtime(about, checks, achieved);
        self.vulnerabilities(artifact, about, agreeing, checks, achieved);
    }

    /// Every revision of sources must have been judged by who keeps it.
    fn sources(
        &self,
        level: u8,
        agreeing: &[&Ballot<'_>],
        evidence: &Evidence,
        checks: &mut Vec<Check>,
        achieved: &mut Vec<Achieved>,
    ) {
        let mut lowest = None;
        for (fact, built) in agreeing.iter().filter_map(|ballot| ballot.vote.provenance) {
            for (uri, commit) in &built.sources {
                let mut best = 0;
                for summary in evidence.about_revision(commit) {
                    let Claim::Judged(judged) = &summary.claim else { continue };
                    if !is_of(uri, &judged.resource) {
                        continue;
                    }
                    if !judged.passed {
                        checks.push(failed(summary, &self.policy.verifiers[judged.verifier].id));
                    }
                    best = best.max(judged.source_level.unwrap_or(0));
                }
                lowest = Some(lowest.map_or(best, |lowest: u8| lowest.min(best)));
                if best < level {
                    checks.push(fact.said(Check::new(
                        Code::SourceSummary,
                        Status::Insufficient,
                        "inputs.source_vsa_min",
                        format!("SLSA_SOURCE_LEVEL_{level} for {uri} at {commit}"),
                        if best == 0 { "no summary that counts".into() } else { format!("SLSA_SOURCE_LEVEL_{best}") },
                        "give the summary of who keeps the sources as evidence",
                    )));
                }
            }
            if built.sources.is_empty() {
                lowest = Some(0);
                checks.push(fact.said(Check::new(
                    Code::SourceSummary,
                    Status::Insufficient,
                    "inputs.source_vsa_min",
                    "sources with a gitCommit",
                    "none among the inputs",
                    "sources without a revision cannot be judged; build from a revision",
                )));
            }
        }
        achieved.push(Achieved {
            what: "source level",
            required: format!("SLSA_SOURCE_LEVEL_{level}"),
            achieved: lowest.map_or("none".into(), |lowest| format!("SLSA_SOURCE_LEVEL_{lowest}")),
            holds: lowest.is_some_and(|lowest| lowest >= level),
        });
    }

    fn bill(&self, about: &[&Fact], checks: &mut Vec<Check>, achieved: &mut Vec<Achieved>) {
        if self.policy.sbom.needed == Needed::Optional {
            return;
        }
        let profile = self.policy.sbom.profile;
        let mut lacking = None;
        let bills = rebuilders(about).filter_map(|(fact, kind, value)| Some((fact, sbom::Form::of(kind)?, value)));
        let mut found = false;
        for (fact, form, value) in bills {
            match sbom::lacks(form, value, profile) {
                None => found = true,
                Some(lack) => lacking = Some((fact, lack)),
            }
        }
        achieved.push(Achieved {
            what: "bill of materials",
            required: profile.as_str().into(),
            achieved: if found { profile.as_str().into() } else { "none".into() },
            holds: found,
        });
        if found {
            return;
        }
        let expected = format!("a signed SBOM with all that {} asks for", profile.as_str());
        let way_out = "ask a rebuilder for one; kiln sbom writes it";
        let missing =
            |got: String| Check::new(Code::Sbom, Status::Insufficient, "sbom.required", expected, got, way_out);
        checks.push(match lacking {
            Some((fact, lack)) => fact.said(missing(lack)),
            None => missing("none".into()),
        });
    }

    fn runtime(&self, about: &[&Fact], checks: &mut Vec<Check>, achieved: &mut Vec<Achieved>) {
        let rules = &self.policy.runtime;
        let mut traces = 0;
        for (fact, _, trace) in rebuilders(about).filter(|(_, kind, _)| *kind == RUNTIME_TRACE) {
            traces += 1;
            for event in &rules.deny_events {
                let seen = events(trace, *event);
                if seen > 0 {
                    checks.push(fact.said(Check::new(
                        Code::Runtime,
                        Status::Denied,
                        "runtime.deny_events",
                        format!("no {} event", event.as_str()),
                        format!("{seen} seen by the monitor of the build"),
                        "look at the monitor's log: a sealed build does not do this",
                    )));
                }
            }
        }
        if rules.needed == Needed::Required {
            let holds = traces > 0;
            achieved.push(Achieved {
                what: "runtime trace",
                required: "1".into(),
                achieved: traces.to_string(),
                holds,
            });
            if !holds {
                checks.push(Check::new(
                    Code::Runtime,
                    Status::Insufficient,
                    "runtime.required",
                    "a runtime trace by a rebuilder",
                    "none",
                    "ask a rebuilder that monitors its builds",
                ));
            }
        }
    }
}

/// Predicates that rebuilders signed about the artifact, and that count.
fn rebuilders<'a>(about: &[&'a Fact]) -> impl Iterator<Item = (&'a Fact, &'a str, &'a Value)> {
    about.iter().copied().filter(|fact| fact.failures.is_empty()).filter_map(|fact| match &fact.claim {
        Claim::Other { speaker: Speaker::Rebuilder(_), kind, value } => Some((fact, &**kind, &**value)),
        Claim::Other { .. } | Claim::Built(_) | Claim::Compared(_) | Claim::Judged(_) => None,
    })
}

/// How many events of a kind a trace has.
fn events(trace: &Value, event: RuntimeEvent) -> usize {
    match trace.get("monitorLog").and_then(|log| log.get(event.as_str())) {
        Some(Value::Array(events)) => events.len(),
        Some(Value::Null) | None => 0,
        // Whatever else stands there is no empty list.
        Some(_) => 1,
    }
}

/// Whether an address with a revision behind `@` is the resource.
fn is_of(uri: &str, resource: &str) -> bool {
    uri == resource || uri.strip_prefix(resource).is_some_and(|rest| rest.starts_with('@') || rest.starts_with('#'))
}

fn failed(fact: &Fact, verifier: &str) -> Check {
    fact.said(Check::new(
        Code::Summary,
        Status::Denied,
        "verificationResult",
        "PASSED",
        format!("FAILED, by {verifier}"),
        "a verifier that the policy believes has refused it; ask why",
    ))
}
