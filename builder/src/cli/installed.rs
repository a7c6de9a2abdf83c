//! `kiln verify --installed`: which packages of a Debian host a policy would let in, a line each.

use std::collections::BTreeMap;
use std::path::Path;

use kiln_model::outcome::Moment;
use kiln_model::verify::{Answer, Artifact, Check, Decision, Status};
use serde::Serialize;

use super::judging::{self, Bench, Judging};
use super::verify::{EvidenceSaid, PolicySaid};
use super::{Failure, Session};
use crate::installed::{self, Called, Origin, Package};
use crate::render::decision::{self, Detail};

/// The JSON document.
#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    exit: u8,
    root: String,
    policy: PolicySaid<'a>,
    now: Moment,
    summary: Summary,
    packages: Vec<Told<'a>>,
    evidence: EvidenceSaid<'a>,
}

/// How many of each.
#[derive(Debug, Default, Serialize)]
struct Summary {
    packages: usize,
    answers: BTreeMap<&'static str, usize>,
    digests: BTreeMap<&'static str, usize>,
}

/// One package.
#[derive(Serialize)]
struct Told<'a> {
    name: &'a str,
    version: &'a str,
    architecture: &'a str,
    purl: String,
    /// Never by the bytes: see docs/integrations.md.
    link: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest_from: Option<Origin>,
    answer: Answer,
    exit: u8,
    decisions: Vec<&'a Decision>,
}

/// A package and the decisions on all that it may be.
struct Judged {
    package: Package,
    decisions: Vec<Decision>,
    answer: Answer,
}

pub(super) fn run(session: &Session, root: &Path, judging: &Judging<'_>, detail: Detail) -> Result<u8, Failure> {
    let mut packages = installed::packages(root)?;
    judging.judge(|bench| {
        Called::by(bench.evidence).complete(&mut packages);
        let judged = judge(bench, packages);
        let answer = judging::gravest(judged.iter().map(|one| one.answer));
        tell(session, root, bench, &judged, answer, detail)?;
        Ok(answer)
    })
}

fn judge(bench: &Bench<'_>, packages: Vec<Package>) -> Vec<Judged> {
    let artifacts: Vec<Artifact> = packages
        .iter()
        .flat_map(|package| {
            package.candidates.iter().map(|digest| Artifact {
                name: package.told(),
                digest: digest.clone(),
                purl: Some(package.purl.to_string()),
            })
        })
        .collect();
    let mut decisions = bench.decide(&artifacts).into_iter();
    packages
        .into_iter()
        .map(|package| {
            let decisions: Vec<Decision> = decisions.by_ref().take(package.candidates.len()).collect();
            let answer = match decisions.is_empty() {
                true => Answer::Insufficient,
                false => judging::gravest(decisions.iter().map(|decision| decision.answer)),
            };
            Judged { package, decisions, answer }
        })
        .collect()
}

fn tell(
    session: &Session,
    root: &Path,
    bench: &Bench<'_>,
    judged: &[Judged],
    answer: Answer,
    detail: Detail,
) -> Result<(), Failure> {
    let mut summary = Summary { packages: judged.len(), ..Summary::default() };
    for one in judged {
        *summary.answers.entry(one.answer.as_str()).or_default() += 1;
        *summary.digests.entry(from(one.package.origin)).or_default() += 1;
    }
    if session.json() {
        return session.print_json(&Document {
            schema: "kiln/installed/v1",
            exit: answer.exit_code(),
            root: root.display().to_string(),
            policy: bench.policy_said(),
            now: bench.now,
            summary,
            packages: judged.iter().map(Judged::told).collect(),
            evidence: bench.evidence_said(),
        });
    }
    let mut text = String::new();
    for one in judged {
        text.push_str(&one.line());
        if detail == Detail::Explain {
            let decisions = one.decisions.iter().map(|one| decision::decision(one, detail, session.colour()));
            text.extend(decisions);
        }
    }
    let counts = |counts: &BTreeMap<&'static str, usize>| {
        counts.iter().map(|(what, count)| format!("{count} {what}")).collect::<Vec<_>>().join(", ")
    };
    text.push_str(&format!("{} packages: {}\n", summary.packages, counts(&summary.answers)));
    text.push_str(&format!(
        "digests: {}; every package is linked to its digest by name and version only, the installed files were not looked at\n",
        counts(&summary.digests)
    ));
    session.print_text(&text)
}

/// Where a digest comes from, in words.
fn from(origin: Option<Origin>) -> &'static str {
    match origin {
        Some(Origin::AptLists) => "from apt's lists",
        Some(Origin::AptCache) => "from apt's cache",
        Some(Origin::Evidence) => "by what evidence calls so",
        None => "unknown",
    }
}

impl Judged {
    fn told(&self) -> Told<'_> {
        Told {
            name: &self.package.name,
            version: &self.package.version,
            architecture: &self.package.architecture,
            purl: self.package.purl.to_string(),
            link: "name",
            digest_from: self.package.origin,
            answer: self.answer,
            exit: self.answer.exit_code(),
            decisions: self.decisions.iter().collect(),
        }
    }

    fn line(&self) -> String {
        let worst = self.decisions.iter().max_by_key(|decision| decision.answer.weight());
        let why = match worst {
            None => "no digest: neither apt's lists nor its cache nor evidence has this version".to_owned(),
            Some(decision) => match decision.checks.iter().find(|check| decides(check, decision.answer)) {
                Some(check) => format!("{}: {}", check.code.as_str(), decision::plain(&check.got)),
                None => agreeing(decision),
            },
        };
        let by_evidence = match self.package.origin {
            Some(Origin::Evidence) => " [digest by what evidence calls so]",
            Some(Origin::AptLists | Origin::AptCache) | None => "",
        };
        format!("{:<12} {}: {why}{by_evidence}\n", self.answer.as_str(), decision::plain(&self.package.told()))
    }
}

/// Whether a check is one that an answer follows from.
fn decides(check: &Check, answer: Answer) -> bool {
    match answer {
        Answer::Allowed => false,
        Answer::Insufficient => check.status == Status::Insufficient,
        Answer::Denied => check.status == Status::Denied,
        Answer::Tampered => check.status == Status::Tampered,
    }
}

/// Those who agree.
fn agreeing(decision: &Decision) -> String {
    let names = decision.operators.iter().filter(|said| said.counts).map(|said| said.operator.as_str());
    decision::plain(&names.collect::<Vec<_>>().join(", "))
}
