//! What is told of many rebuilds: each target with what became of it, counted by verdict.
//!
//! A [`Campaign`] is one JSON document (docs/campaign.schema.json). It has of each target what a table shows; the report of
//! one has the rest. What was not attempted is named as such, never counted in favour of anything.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::cause::Setting;
use crate::outcome::{schema_field, seconds};
use crate::report::{Confidence, EnvironmentKind, Explained, Report};
use crate::variation::Label;
use crate::verdict::{Accept, Scope, Subject, Verdict};

/// The only schema there is.
pub const SCHEMA: &str = "kiln/campaign/v1";

/// What is told of many rebuilds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Campaign {
    /// [`SCHEMA`].
    #[serde(with = "schema")]
    pub schema: (),
    /// The worst of all; what was not attempted counts as inconclusive.
    pub verdict: Verdict,
    /// Who took part.
    pub scope: Scope,
    /// Version of the kiln that did it.
    pub kiln: String,
    /// Targets by what became of them.
    pub counts: Counts,
    /// Their artifacts, as far as there are verdicts on them.
    pub artifacts: Counts,
    /// One for each target, in the order asked for.
    pub targets: Vec<Entry>,
}

/// How many came to what.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// By verdict. All of them, so that what is none is seen.
    pub verdicts: BTreeMap<Verdict, u64>,
    /// Neither built nor looked for.
    pub not_attempted: u64,
}

/// One target.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// As it would be asked for again: `debian:hello=2.10-3`.
    pub target: String,
    /// Its settings in words: `default`, `build-options=notrimdch`.
    pub settings: String,
    /// How it was asked for; several may mean one target.
    pub asked: Vec<Asked>,
    /// What became of it, if it was attempted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished: Option<Finished>,
    /// Why it was not, otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_attempted: Option<Withheld>,
    /// Whether it was done by an earlier run, and not again.
    pub earlier: bool,
    /// Directory of its report, relative to the campaign's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory: Option<String>,
}

/// How a target was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// The words.
    pub target: String,
    /// The line of its file, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u64>,
    /// The binary package that was named, if it is not all of the source's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub package: Option<String>,
    /// The verdict that the file expects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected: Option<Verdict>,
    /// The verdict on what was named, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
}

/// What became of a target: of its report what a table needs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finished {
    /// The judgement.
    pub verdict: Verdict,
    /// In words: `hello 2.10-3`.
    pub title: String,
    /// Which environment it was built in, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<EnvironmentKind>,
    /// Whether it is known why bytes differ.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub explained: Option<Explained>,
    /// Why bytes differ, as far as it is known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<Reason>,
    /// Each artifact.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub artifacts: Vec<JudgedArtifact>,
    /// What could not be had, if that is why nothing was judged.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<String>,
    /// What went wrong, if there is no report.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Trouble>,
    /// Builds that ran.
    pub builds: u64,
    /// How long it took, from its plan to its report.
    #[serde(with = "seconds")]
    pub seconds: Duration,
}

/// A cause without its evidence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// Its name.
    pub label: Label,
    /// How sure it is.
    pub confidence: Confidence,
    /// The setting that shows it, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub setting: Option<Setting>,
}

/// An artifact and what is said of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JudgedArtifact {
    /// Its file's name.
    pub name: String,
    /// The judgement.
    pub verdict: Verdict,
}

/// An error, where a report should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    /// What sort of error it is.
    pub kind: TroubleKind,
    /// The chain of causes on one line.
    pub text: String,
}

/// What sort of error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TroubleKind {
    /// The target or its file is not what it must be.
    BadInput,
    /// A digest or signature does not hold.
    Tampered,
    /// Something that it needs could not be built.
    BuildFailed,
    /// This host or the network failed: another run tries it again.
    Host,
    /// Builds of it ended this process, again and again.
    Poisoned,
}

/// Why a target was not attempted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Withheld {
    /// The time of the campaign was over.
    TimeLimit,
    /// The disk was as full as it may be.
    DiskLimit,
    /// Another one had failed, and that was to end it.
    FailFast,
    /// Its turn has not come.
    NotYet,
}

schema_field!(schema, SCHEMA);

impl Campaign {
    /// The document of these targets.
    pub fn new(kiln: &str, targets: Vec<Entry>) -> Self {
        let (mut counts, mut artifacts) = (Counts::none(), Counts::none());
        let mut worst = Verdict::Reproduced;
        for entry in &targets {
            worst = worst.max(entry.verdict().unwrap_or(Verdict::Inconclusive));
            match &entry.finished {
                Some(finished) => {
                    counts.add(finished.verdict);
                    finished.artifacts.iter().for_each(|artifact| artifacts.add(artifact.verdict));
                }
                None => counts.not_attempted += 1,
            }
        }
        Self { schema: (), verdict: worst, scope: Scope::Local, kiln: kiln.into(), counts, artifacts, targets }
    }

    /// The process's exit code: the worst verdict's, but what does not hold is never folded into another.
    pub fn exit_code(&self, accept: Accept) -> u8 {
        /// A digest, signature or proof does not hold (ARCHITECTURE.md, the command line).
        const TAMPERED: u8 = 6;
        let tampered = |entry: &Entry| entry.trouble().is_some_and(|trouble| trouble.kind == TroubleKind::Tampered);
        match self.targets.iter().any(tampered) {
            true => TAMPERED,
            false => self.verdict.exit_code(accept),
        }
    }

    /// What was asked for and expected to come out otherwise.
    pub fn unexpected(&self) -> impl Iterator<Item = &Asked> {
        let asked = self.targets.iter().flat_map(|entry| &entry.asked);
        asked.filter(|asked| asked.expected.is_some() && asked.verdict.is_some() && asked.expected != asked.verdict)
    }

    /// How much of what was asked for came with an expectation, and has a verdict.
    pub fn expected(&self) -> usize {
        let asked = self.targets.iter().flat_map(|entry| &entry.asked);
        asked.filter(|asked| asked.expected.is_some() && asked.verdict.is_some()).count()
    }
}

impl Counts {
    fn none() -> Self {
        use Verdict::{Diverged, Equivalent, Failed, Inconclusive, Reproduced, UpstreamDiffers};
        let all = [Reproduced, Equivalent, Inconclusive, Failed, Diverged, UpstreamDiffers];
        Self { verdicts: all.map(|verdict| (verdict, 0)).into(), not_attempted: 0 }
    }

    fn add(&mut self, verdict: Verdict) {
        *self.verdicts.entry(verdict).or_default() += 1;
    }
}

impl Entry {
    /// Notes what became of it, for all who asked.
    pub fn finish(&mut self, finished: Option<Finished>) {
        for asked in &mut self.asked {
            asked.verdict = finished.as_ref().map(|finished| finished.verdict_on(asked.package.as_deref()));
        }
        self.finished = finished;
    }

    /// The verdict, if there is one.
    pub fn verdict(&self) -> Option<Verdict> {
        self.finished.as_ref().map(|finished| finished.verdict)
    }

    /// The error in place of a report, if there is one.
    pub fn trouble(&self) -> Option<&Trouble> {
        self.finished.as_ref().and_then(|finished| finished.error.as_ref())
    }
}

impl Finished {
    /// Of `report`, what a table needs.
    pub fn of(report: &Report, took: Duration) -> Self {
        let rebuilt = report.rebuild.as_ref();
        let mut causes: Vec<Reason> = Vec::new();
        for cause in &report.causes {
            let reason = Reason { label: cause.label, confidence: cause.confidence, setting: cause.setting.clone() };
            match causes.iter_mut().find(|known| known.label == reason.label) {
                // Of several that show it the surest counts.
                Some(known) if reason.confidence < known.confidence => *known = reason,
                Some(_) => {}
                None => causes.push(reason),
            }
        }
        let judged = report.subjects.iter().filter_map(|judged| match &judged.subject {
            Subject::File(name) if judged.reference.is_some() => {
                Some(JudgedArtifact { name: name.clone(), verdict: judged.verdict })
            }
            Subject::File(_) | Subject::Output(_) => None,
        });
        Self {
            verdict: report.verdict,
            title: report.title.clone(),
            environment: rebuilt.filter(|_| !report.outcomes.is_empty()).map(|rebuilt| rebuilt.environment),
            explained: rebuilt.filter(|_| report.verdict > Verdict::Reproduced).map(|rebuilt| rebuilt.explained),
            causes,
            artifacts: judged.collect(),
            missing: rebuilt.iter().flat_map(|rebuilt| &rebuilt.missing).map(|missing| missing.what.clone()).collect(),
            error: None,
            builds: report.outcomes.len() as u64,
            seconds: took,
        }
    }

    /// Of a target that came to no report.
    pub fn trouble(title: &str, kind: TroubleKind, text: String, took: Duration) -> Self {
        let verdict = match kind {
            TroubleKind::BuildFailed => Verdict::Failed,
            TroubleKind::BadInput | TroubleKind::Tampered | TroubleKind::Host | TroubleKind::Poisoned => {
                Verdict::Inconclusive
            }
        };
        Self {
            verdict,
            title: title.into(),
            environment: None,
            explained: None,
            causes: Vec::new(),
            artifacts: Vec::new(),
            missing: Vec::new(),
            error: Some(Trouble { kind, text }),
            builds: 0,
            seconds: took,
        }
    }

    /// The verdict on the binary package of this name, or on all of it without one.
    pub fn verdict_on(&self, package: Option<&str>) -> Verdict {
        let Some(package) = package else { return self.verdict };
        let is_it = |artifact: &&JudgedArtifact| {
            artifact.name.split_once('_').is_some_and(|(name, _)| name == package) && artifact.name.ends_with("deb")
        };
        self.artifacts.iter().filter(is_it).map(|artifact| artifact.verdict).max().unwrap_or(self.verdict)
    }
}

impl Withheld {
    /// In words.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TimeLimit => "budget: time limit",
            Self::DiskLimit => "budget: disk limit",
            Self::FailFast => "fail fast",
            Self::NotYet => "not yet",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;

    fn finished(verdict: Verdict) -> Finished {
        let mut finished = Finished::trouble("hello 2.10-3", TroubleKind::Host, "x".into(), Duration::from_secs(1));
        (finished.verdict, finished.error) = (verdict, None);
        finished.artifacts = [("hello_2.10-3_amd64.deb", verdict), ("hello-doc_2.10-3_all.deb", Verdict::Reproduced)]
            .map(|(name, verdict)| JudgedArtifact { name: name.into(), verdict })
            .into();
        finished
    }

    fn entry(finished: Option<Finished>) -> Entry {
        let asked = Asked {
            target: "debian:hello".into(),
            line: Some(3),
            package: Some("hello".into()),
            expected: Some(Verdict::Reproduced),
            verdict: finished.as_ref().map(|finished| finished.verdict_on(Some("hello"))),
        };
        Entry {
            target: "debian:hello=2.10-3".into(),
            settings: "default".into(),
            asked: vec![asked],
            not_attempted: finished.is_none().then_some(Withheld::TimeLimit),
            finished,
            earlier: false,
            directory: None,
        }
    }

    #[test]
    fn the_worst_decides_and_what_was_not_attempted_is_never_yes() {
        let code = |entries: Vec<Entry>| Campaign::new("0.1.0", entries).exit_code(Accept::Identical);
        let one = |verdict| entry(Some(finished(verdict)));
        assert_eq!(code(vec![one(Verdict::Reproduced)]), 0);
        assert_eq!(code(vec![one(Verdict::Reproduced), entry(None)]), 4);
        assert_eq!(code(vec![entry(None), one(Verdict::UpstreamDiffers), one(Verdict::Failed)]), 1);
        let campaign = Campaign::new("0.1.0", vec![one(Verdict::Equivalent)]);
        assert_eq!((campaign.exit_code(Accept::Identical), campaign.exit_code(Accept::Equivalent)), (1, 0));
        let tampered = Finished::trouble("a", TroubleKind::Tampered, "a digest".into(), Duration::ZERO);
        assert_eq!(code(vec![one(Verdict::UpstreamDiffers), entry(Some(tampered))]), 6);
    }

    #[test]
    fn a_verdict_is_expected_of_the_package_that_was_named() {
        let finished = finished(Verdict::UpstreamDiffers);
        assert_eq!(finished.verdict_on(Some("hello-doc")), Verdict::Reproduced);
        assert_eq!(finished.verdict_on(Some("hello")), Verdict::UpstreamDiffers);
        assert_eq!(finished.verdict_on(None), Verdict::UpstreamDiffers);
        let campaign = Campaign::new("0.1.0", vec![entry(Some(finished)), entry(None)]);
        assert_eq!((campaign.unexpected().count(), campaign.expected()), (1, 1));
    }

    #[test]
    fn the_bytes_of_the_document_do_not_move_and_parse_back() {
        let campaign = Campaign::new("0.1.0", vec![entry(Some(finished(Verdict::Equivalent))), entry(None)]);
        let json = serde_json::to_string(&campaign).unwrap();
        assert_eq!(serde_json::from_str::<Campaign>(&json).unwrap(), campaign);
        assert_eq!(Digest::of(&json).to_string(), "b9c2d692f45174fbb1635acdfe0d163936092263bcceab60f2331b12ffb5a3f3");
        assert!(serde_json::from_str::<Campaign>(&json.replace("campaign/v1", "campaign/v2")).is_err());
    }
}
