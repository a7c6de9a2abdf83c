//! How outcomes of a report compare with what was published, or else with the control: one fact for each pair.

use kiln_model::digest::{Digest, NarHash};
use kiln_model::envelope::EnvelopeId;
use kiln_model::format::purl::Purl;
use kiln_model::outcome::{Moment, Outcome, Status};
use kiln_model::report::{Judged, Report};
use kiln_model::statement::comparison::{
    Comparison, ComparisonResult, DifferencesFound, NormaliserUsed, Rebuilder, SUMMARY,
};
use kiln_model::statement::{Descriptor, DigestSet, Predicate};
use kiln_model::verdict::Subject;
use kiln_model::wheel::WheelName;

use super::provenance::{finished, log};
use super::{Recorded, SignError, Signer, Written, dependencies};
use crate::build::graph::Node;

/// All that one comparison says.
pub(super) struct Facts<'a> {
    node: &'a Node,
    outcome: &'a Outcome,
    /// What it is held against, and what it is: `None` without a reference.
    reference: Option<(Descriptor, Held)>,
    provenance: Option<EnvelopeId>,
    attempts: u64,
    flaky: bool,
}

/// What was built in place of a reference.
struct Held {
    result: ComparisonResult,
    produced: Vec<Descriptor>,
    normalisers: Vec<NormaliserUsed>,
    normalised: Option<Digest>,
    differences: Option<DifferencesFound>,
}

impl<'a> Facts<'a> {
    /// Of an outcome that nothing was held against.
    pub(super) fn alone(node: &'a Node, recorded: &'a Recorded) -> Self {
        let outcome = &recorded.outcome;
        Self { node, outcome, reference: None, provenance: None, attempts: 1, flaky: false }
    }
}

/// Every comparison that `report` holds, with a name. `seen` are its outcomes as recorded, each with its provenance.
pub(super) fn facts<'a>(
    node: &'a Node,
    report: &'a Report,
    seen: &'a [(Recorded, Option<EnvelopeId>)],
    whole: Digest,
) -> Vec<(Facts<'a>, String)> {
    let ran = |one: &&(Recorded, Option<EnvelopeId>)| one.0.outcome.status != Status::Unavailable;
    let attempts = seen.iter().filter(ran).count() as u64;
    let mut all = Vec::new();
    let mut first_failure = true;
    for (index, (recorded, provenance)) in seen.iter().enumerate() {
        let outcome = &recorded.outcome;
        let base = |reference, flaky| Facts { node, outcome, reference, provenance: *provenance, attempts, flaky };
        let numbered = |name: &str| if index == 0 { name.to_owned() } else { format!("{name}.{}", index + 1) };
        let mut any = false;
        for judged in &report.subjects {
            let control = report.reference.is_none() && index > 0 && seen[0].0.outcome.status == Status::Built;
            let expected = match (&judged.reference, control) {
                (Some(text), _) => reference(report, &judged.subject, text),
                (None, true) => judged.digests[0].as_deref().and_then(|text| controlled(&judged.subject, text)),
                (None, false) => None,
            };
            let Some(expected) = expected else { continue };
            any = true;
            let held = held(report, judged, index, outcome, &expected, whole);
            let distinct: std::collections::BTreeSet<_> = judged.digests.iter().flatten().collect();
            all.push((base(Some((expected, held)), distinct.len() > 1), numbered(judged.subject.name())));
        }
        if !any && outcome.status != Status::Built && first_failure {
            all.push((base(None, false), numbered("derivation")));
            first_failure = false;
        }
    }
    all
}

/// A published artifact.
fn reference(report: &Report, subject: &Subject, digest: &str) -> Option<Descriptor> {
    let one = Descriptor::of(DigestSet::of(exact(digest)?)).named_as(called(subject));
    let target = report.rebuild.as_ref().map(|rebuilt| rebuilt.target.as_str());
    Some(match package(subject.name(), target) {
        Some(purl) => one.at(purl.to_string()),
        None => one,
    })
}

/// What this rebuilder's own unvaried build made.
fn controlled(subject: &Subject, digest: &str) -> Option<Descriptor> {
    let one = Descriptor::of(DigestSet::of(exact(digest)?)).named_as(called(subject));
    Some(one.noting("reference", "control"))
}

/// A name as provenance has it.
fn called(subject: &Subject) -> String {
    match subject {
        Subject::Output(name) => format!("{name}.nar"),
        Subject::File(name) => name.clone(),
    }
}

/// The digest of either spelling.
fn exact(text: &str) -> Option<Digest> {
    text.parse::<NarHash>().map(|hash| hash.digest()).or_else(|_| text.parse()).ok()
}

/// Which package a published file is.
fn package(file: &str, target: Option<&str>) -> Option<Purl> {
    if let Ok(wheel) = file.parse::<WheelName>() {
        return Purl::pypi(&wheel.distribution, &wheel.version).ok()?.with("file_name", file).ok();
    }
    let mut parts = file.strip_suffix(".deb").or_else(|| file.strip_suffix(".udeb"))?.split('_');
    let (name, version, arch) = (parts.next()?, parts.next()?, parts.next()?);
    // A file's name leaves out the epoch; what was asked for has it.
    let asked = target.and_then(|target| target.split_once('=')).map(|(_, asked)| asked);
    let whole = asked.filter(|asked| asked.split_once(':').is_some_and(|(_, rest)| rest == version));
    Purl::deb("debian", name, whole.unwrap_or(version), arch).ok()
}

fn held(
    report: &Report,
    judged: &Judged,
    index: usize,
    outcome: &Outcome,
    expected: &Descriptor,
    whole: Digest,
) -> Held {
    let mut held = Held {
        result: ComparisonResult::Different,
        produced: Vec::new(),
        normalisers: Vec::new(),
        normalised: None,
        differences: None,
    };
    match outcome.status {
        Status::Built => {}
        Status::Failed | Status::TimedOut => return Held { result: ComparisonResult::BuildFailed, ..held },
        Status::Unavailable => return Held { result: ComparisonResult::NotAttempted, ..held },
    }
    let digest = judged.digests.get(index).and_then(Option::as_deref).and_then(exact);
    held.produced = match digest {
        Some(digest) => {
            // Under the name that the build gave it.
            let name = called(&judged.subject);
            let name = outcome.held_against(&name).map_or(name.clone(), |(made, _)| made.clone());
            vec![Descriptor::of(DigestSet::of(digest)).named_as(name)]
        }
        // It was not made at all: what was is said instead.
        None => made(outcome),
    };
    if digest.is_some() && digest == expected.digest.sha256() {
        return Held { result: ComparisonResult::Identical, ..held };
    }
    let normalised = |at: Option<&Option<String>>| at.and_then(Option::as_deref).and_then(exact);
    let theirs = match (&judged.reference, judged.reference_normalised.as_deref()) {
        (Some(_), theirs) => theirs.and_then(exact),
        (None, _) => normalised(judged.normalised.first()),
    };
    let ours = normalised(judged.normalised.get(index));
    if ours.is_some() && ours == theirs && !judged.normalisers.is_empty() {
        held.result = ComparisonResult::Equivalent;
        held.normalised = ours;
        let used = |normaliser: &kiln_model::normalise::Normaliser| {
            let (name, version) = normaliser.as_str().split_once('/').unwrap_or((normaliser.as_str(), ""));
            NormaliserUsed { name: name.into(), version: version.into(), digest: DigestSet::default() }
        };
        held.normalisers = judged.normalisers.iter().map(used).collect();
    }
    let lines = report.differences.differences.iter().filter(|difference| difference.between.contains(&index));
    let line = |difference: &kiln_model::report::Difference| match difference.path.as_bytes() {
        [] => difference.output.to_string(),
        _ => format!("{}/{}", difference.output, difference.path),
    };
    let mut summary: Vec<String> = lines.map(line).collect();
    summary.dedup();
    summary.truncate(SUMMARY);
    held.differences = Some(DifferencesFound { uri: None, digest: DigestSet::of(whole), summary });
    held
}

fn made(outcome: &Outcome) -> Vec<Descriptor> {
    let output = |(name, output): (&kiln_model::name::Variable, &kiln_model::outcome::Output)| {
        Descriptor::of(DigestSet::of(output.nar_hash.digest())).named_as(format!("{name}.nar"))
    };
    let artifact = |(name, artifact): (&String, &kiln_model::outcome::Artifact)| {
        Descriptor::of(DigestSet::of(artifact.sha256)).named_as(name)
    };
    outcome.outputs.iter().map(output).chain(outcome.artifacts.iter().map(artifact)).collect()
}

impl Signer<'_> {
    pub(super) fn comparison(&self, facts: &Facts<'_>, name: String) -> Result<Written, SignError> {
        let Facts { node, outcome, .. } = facts;
        let recipe = dependencies::recipe(node, &self.published)?;
        let mut recipe = recipe.descriptor;
        recipe.annotations.clear();
        let built = outcome.status == Status::Built;
        let reason = (!built).then(|| {
            let said = outcome.failure.as_ref().map(|failure| failure.message.clone()).filter(|text| !text.is_empty());
            said.unwrap_or_else(|| format!("the build {}", outcome.status.as_str()))
        });
        // What never ran has no time of its own.
        let finished_on = if outcome.started == Moment::from_unix(0) { self.now } else { finished(outcome) };
        let mut one = Comparison {
            rebuilder: Rebuilder { id: self.builder.clone() },
            recipe,
            outcome: outcome.status,
            result: match outcome.status {
                Status::Unavailable => ComparisonResult::NotAttempted,
                Status::Built | Status::Failed | Status::TimedOut => ComparisonResult::BuildFailed,
            },
            expected: None,
            produced: Vec::new(),
            provenance: facts.provenance.map(|id| Descriptor::of(DigestSet::of(id.digest()))),
            normalisers: Vec::new(),
            normalised_digest: None,
            differences: None,
            reason,
            log: outcome.log.as_ref().filter(|_| !built).map(log),
            attempts: facts.attempts,
            flaky: facts.flaky,
            finished_on,
        };
        let subject = match &facts.reference {
            None => {
                let digest = DigestSet::of(Digest::of(node.derivation.print()));
                Descriptor::of(digest).named_as(node.path.base_name())
            }
            Some((expected, held)) => {
                one.result = held.result;
                one.expected = Some(expected.clone());
                one.produced.clone_from(&held.produced);
                one.normalisers.clone_from(&held.normalisers);
                for normaliser in &mut one.normalisers {
                    normaliser.digest = DigestSet::of(self.kiln);
                }
                one.normalised_digest = held.normalised.map(DigestSet::of);
                one.differences.clone_from(&held.differences);
                Descriptor { annotations: Default::default(), ..expected.clone() }
            }
        };
        self.sign(vec![subject], Predicate::Comparison(Box::new(one)), name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_published_file_is_told_as_its_package_with_the_epoch_that_was_asked_for() {
        let purl = |file, target| package(file, target).map(|purl| purl.to_string());
        let hello = purl("hello_2.10-3_amd64.deb", Some("debian:hello=2.10-3"));
        assert_eq!(hello.as_deref(), Some("pkg:deb/debian/hello@2.10-3?arch=amd64"));
        let epoch = purl("bc_1.07-3_amd64.deb", Some("debian:bc=2:1.07-3"));
        assert_eq!(epoch.as_deref(), Some("pkg:deb/debian/bc@2:1.07-3?arch=amd64"));
        let wheel = purl("idna-3.7-py3-none-any.whl", None);
        assert_eq!(wheel.as_deref(), Some("pkg:pypi/idna@3.7?file_name=idna-3.7-py3-none-any.whl"));
        assert_eq!(purl("hello.tar.gz", None), None);
    }
}
