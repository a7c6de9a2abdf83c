//! What is told of many outcomes: the verdict, what differs, why, and what was varied.
//!
//! A [`Report`] is one JSON document (docs/report.schema.json), and everything that is shown as text or HTML is in it:
//! a renderer adds layout, never facts. [`Report::of`] judges; differences come from the caller, who has the trees.

pub mod comparison;
pub mod detail;
pub mod difference;
pub mod rebuilt;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::cause::Setting;
use crate::normalise::Normaliser;
use crate::outcome::{EntryPath, Outcome, schema_field};
use crate::variation::observed::Effects;
use crate::variation::{Factor, Label};
use crate::verdict::{self, Accept, Identity, Reference, Scope, Seen, Subject, Verdict};

pub use comparison::{Comparison, Side, SideKind};
pub use detail::{Aspect, Detail, Equivalence, Line};
pub use difference::{Content, Difference, Differences, Excerpt, Kind};
pub use rebuilt::{EnvironmentKind, Explained, Missing, Rebuilt, Tried, VersionDiffers};

/// The only schema there is.
pub const SCHEMA: &str = "kiln/report/v1";

/// The schema of [`Reports`].
pub const REPORTS_SCHEMA: &str = "kiln/reports/v1";

/// What is told of one target.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`SCHEMA`].
    #[serde(with = "schema")]
    pub schema: (),
    /// The worst of all subjects.
    pub verdict: Verdict,
    /// Who took part.
    pub scope: Scope,
    /// What was built or compared, in words: `hello 2.10`, a file name.
    pub title: String,
    /// The recipe's file as the user named it, if it came from one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipe: Option<String>,
    /// Store path of the derivation, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub derivation: Option<String>,
    /// What was judged, one by one.
    pub subjects: Vec<Judged>,
    /// What was published, if there is anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<Published>,
    /// What was seen; the control first.
    pub outcomes: Vec<Outcome>,
    /// Names of what else was compared: artifacts that were given, a reference. Numbered after the outcomes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sides: Vec<String>,
    /// What differs between the control and one other outcome.
    #[serde(flatten)]
    pub differences: Differences,
    /// What made it differ.
    pub causes: Vec<Cause>,
    /// What was varied in at least one build, and what in none.
    pub factors: Effects,
    /// What is told of a rebuild besides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rebuild: Option<Rebuilt>,
}

/// The verdict on one subject, with the digest that each outcome has for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Judged {
    /// What it is.
    #[serde(flatten)]
    pub subject: Subject,
    /// What is said of it.
    pub verdict: Verdict,
    /// Its digest in each of the report's outcomes, spelled as they spell it; null where it is not.
    pub digests: Vec<Option<String>>,
    /// The published digest, if it was published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// Its digest after normalisers in each of the report's outcomes. Empty if none was applied to any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub normalised: Vec<Option<String>>,
    /// The published one's digest after the same normalisers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference_normalised: Option<String>,
    /// The normalisers that were needed, each with its version: `elf-build-id/1`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub normalisers: Vec<Normaliser>,
}

/// Where the reference came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    /// Where it was looked for.
    pub origin: String,
    /// Whether it was found.
    pub available: bool,
}

/// How sure a cause is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Confidence {
    /// A rebuild with this factor alone shows it, and one without it does not.
    Proven,
    /// Each side has its own value of the factor at the place that differs.
    Likely,
    /// One side has a value, or a well-known field, at the place that differs.
    Suspected,
}

/// What made builds differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cause {
    /// Its name.
    pub label: Label,
    /// The factor that shows it, if one does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub factor: Option<Factor>,
    /// How sure that is.
    pub confidence: Confidence,
    /// Output and path of a file that shows it.
    pub output: String,
    /// Path in that output.
    pub path: EntryPath,
    /// What was found, for people.
    pub evidence: String,
    /// The setting of another build that would prove it, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub setting: Option<Setting>,
}

/// Several reports in one document.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reports {
    /// [`REPORTS_SCHEMA`].
    #[serde(with = "reports_schema")]
    pub schema: (),
    /// One for each target, in the order asked for.
    pub reports: Vec<Report>,
}

schema_field!(schema, SCHEMA);
schema_field!(reports_schema, REPORTS_SCHEMA);

/// What a report is about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct About {
    /// What was built or compared, in words.
    pub title: String,
    /// The recipe's file as the user named it.
    pub recipe: Option<String>,
    /// Store path of the derivation.
    pub derivation: Option<String>,
    /// Where a reference was looked for.
    pub origin: Option<String>,
}

impl Report {
    /// Judges `outcomes` (the control first) against `reference`, with what the caller found to differ. Causes are those
    /// that the differing bytes give away.
    pub fn of(about: About, outcomes: Vec<Outcome>, reference: &Reference, differences: Differences) -> Self {
        let seen: Vec<Seen> = outcomes.iter().map(Seen::from).collect();
        let judgement = verdict::judge(&seen, reference);
        let published = |subject: &Subject| match reference {
            Reference::Published(subjects) => subjects.get(subject),
            Reference::None | Reference::Unavailable => None,
        };
        let copies = |subject: &Subject, spell: &dyn Fn(&Identity) -> Option<String>| -> Vec<Option<String>> {
            let one = |seen: &Seen| match seen {
                Seen::Built(subjects) => subjects.get(subject).and_then(spell),
                Seen::Failed | Seen::Unfinished | Seen::Unavailable => None,
            };
            seen.iter().map(one).collect()
        };
        let judged = |(subject, &verdict): (&Subject, &Verdict)| {
            let normalised = copies(subject, &|i| i.normalised.map(|digest| digest.to_string()));
            let reference = published(subject);
            Judged {
                subject: subject.clone(),
                verdict,
                digests: copies(subject, &|i| Some(spelled(subject, i))),
                reference: reference.map(|i| spelled(subject, i)),
                normalised: if normalised.iter().any(Option::is_some) { normalised } else { Vec::new() },
                reference_normalised: reference.and_then(|i| i.normalised).map(|digest| digest.to_string()),
                normalisers: normalisers(subject, &outcomes),
            }
        };
        let subjects = judgement.subjects.iter().map(judged).collect();
        let factors = over_all(&outcomes);
        let mut causes = crate::variation::suspect::causes(&outcomes, &differences);
        // What the bytes of known conditions show is better evidence than what artifacts show by themselves.
        let others = crate::cause::recognise(&differences);
        let unknown: Vec<Cause> = others.into_iter().filter(|o| causes.iter().all(|c| c.label != o.label)).collect();
        causes.extend(unknown);
        Self {
            schema: (),
            verdict: judgement.verdict,
            scope: Scope::Local,
            title: about.title,
            recipe: about.recipe,
            derivation: about.derivation,
            subjects,
            reference: about
                .origin
                .map(|origin| Published { origin, available: matches!(reference, Reference::Published(_)) }),
            outcomes,
            sides: Vec::new(),
            differences,
            causes,
            factors,
            rebuild: None,
        }
    }

    /// The report of two artifacts that were held against each other, without any build.
    pub fn comparing(comparison: Comparison) -> Self {
        let Comparison { verdict, sides, normalisers, differences } = comparison;
        let [first, second] = &sides;
        let names = sides.iter().map(|s| s.name.clone()).collect();
        let title = format!("{} and {}", first.name, second.name);
        let digests = sides.iter().map(|s| s.sha256.map(|d| d.to_string())).collect();
        let subject = match first.kind {
            SideKind::Directory => Subject::Output(title.clone()),
            SideKind::File | SideKind::Symlink => Subject::File(title.clone()),
        };
        let causes = crate::cause::recognise(&differences);
        Self {
            schema: (),
            verdict,
            scope: Scope::Local,
            title,
            recipe: None,
            derivation: None,
            subjects: vec![Judged {
                subject,
                verdict,
                digests,
                reference: None,
                normalised: Vec::new(),
                reference_normalised: None,
                normalisers,
            }],
            reference: None,
            outcomes: Vec::new(),
            sides: names,
            differences,
            causes,
            factors: Effects::default(),
            rebuild: None,
        }
    }

    /// Whether it is of artifacts alone, and of no build.
    pub fn is_comparison(&self) -> bool {
        self.outcomes.is_empty() && self.sides.len() == 2
    }

    /// The process's exit code.
    pub fn exit_code(&self, accept: Accept) -> u8 {
        self.verdict.exit_code(accept)
    }
}

impl Reports {
    /// The document of these reports.
    pub fn new(reports: Vec<Report>) -> Self {
        Self { schema: (), reports }
    }

    /// The exit code of the worst verdict; 0 if there is no report.
    pub fn exit_code(&self, accept: Accept) -> u8 {
        self.reports.iter().map(|r| r.verdict).max().map_or(0, |worst| worst.exit_code(accept))
    }
}

/// An output's digest is that of a NAR, a file's that of its bytes; their spellings tell them apart.
fn spelled(subject: &Subject, identity: &Identity) -> String {
    match subject {
        Subject::Output(_) => crate::digest::NarHash::new(identity.exact).to_string(),
        Subject::File(_) => identity.exact.to_string(),
    }
}

/// The normalisers that were applied to a file, in any outcome.
fn normalisers(subject: &Subject, outcomes: &[Outcome]) -> Vec<Normaliser> {
    let Subject::File(name) = subject else { return Vec::new() };
    let applied = outcomes.iter().filter_map(|outcome| outcome.held_against(name)?.1.normalised.as_ref());
    let named: BTreeSet<Normaliser> = applied.flat_map(|normalised| &normalised.normalisers).copied().collect();
    named.into_iter().collect()
}

/// A factor was varied if it was in at least one build; the reason is the first build's otherwise.
fn over_all(outcomes: &[Outcome]) -> Effects {
    let mut all = Effects::default();
    for effects in outcomes.iter().filter_map(|o| o.conditions.as_ref()?.effects.as_ref()) {
        for (factor, change) in &effects.varied {
            all.varied.entry(*factor).or_insert_with(|| change.clone());
        }
        for (factor, reason) in &effects.not_varied {
            all.not_varied.entry(*factor).or_insert_with(|| reason.clone());
        }
    }
    let varied: &BTreeMap<_, _> = &all.varied;
    all.not_varied.retain(|factor, _| !varied.contains_key(factor));
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;
    use crate::outcome::samples;
    use crate::verdict::judge;

    fn differences() -> Differences {
        let [first, second] = [samples::control(), samples::varied()].map(|o| o.outputs.into_values().next());
        let (root, entry) = (EntryPath::default(), |o: Option<crate::outcome::Output>| {
            o.and_then(|o| o.manifest.entry(EntryPath::default()).cloned())
        });
        let (first, second) = (entry(first), entry(second));
        let content = Content {
            offset: 0,
            differing_bytes: 9,
            excerpt_offset: 0,
            first: Excerpt::new(*b"localhost"),
            second: Excerpt::new(*b"another-hostname"),
        };
        Differences {
            differences: vec![Difference {
                between: [0, 1],
                output: "out".parse().unwrap(),
                path: root,
                kind: Kind::of(first.as_ref(), second.as_ref()).unwrap(),
                first,
                second,
                content: Some(content),
                details: Vec::new(),
                details_left_out: 0,
                equivalence: None,
            }],
            differences_left_out: 0,
        }
    }

    fn diverged() -> Report {
        let about = About { title: "hello 2.10".into(), ..About::default() };
        Report::of(about, vec![samples::control(), samples::varied()], &Reference::None, differences())
    }

    #[test]
    fn a_divergence_is_judged_shown_and_explained() {
        let report = diverged();
        assert_eq!((report.verdict, report.exit_code(Accept::Equivalent)), (Verdict::Diverged, 1));
        assert_eq!(report.subjects.len(), 1);
        assert!(report.subjects[0].digests.iter().all(|d| d.as_ref().is_some_and(|d| d.starts_with("sha256-"))));
        let cause = &report.causes[0];
        assert_eq!((cause.label, cause.factor), (Label::Host, Some(Factor::Hostname)));
        assert!(report.factors.varied.contains_key(&Factor::Hostname));
        assert!(report.factors.not_varied.contains_key(&Factor::Locale));
    }

    #[test]
    fn the_canonical_bytes_do_not_move_and_parse_back() {
        let report = diverged();
        let json = serde_json::to_string(&report).unwrap();
        assert_eq!(Digest::of(&json).to_string(), "83984d8937a40b0da7ac767e7fc2a3126e2193fd8a55268055f2cb5510025709");
        assert_eq!(serde_json::from_str::<Report>(&json).unwrap(), report);
        assert!(serde_json::from_str::<Report>(&json.replace(SCHEMA, "kiln/report/v2")).is_err());
    }

    #[test]
    fn a_factor_is_listed_once_over_all_outcomes() {
        let mut second = samples::varied();
        if let Some(effects) = second.conditions.as_mut().and_then(|ran| ran.effects.as_mut()) {
            let change = effects.varied.remove(&Factor::Hostname).unwrap();
            effects.not_varied.insert(Factor::Hostname, crate::variation::NotVaried::NotProbed);
            effects.not_varied.remove(&Factor::Locale);
            effects.varied.insert(Factor::Locale, change);
        }
        let all = over_all(&[samples::control(), samples::varied(), second]);
        assert!(all.varied.contains_key(&Factor::Hostname) && all.varied.contains_key(&Factor::Locale));
        assert!(all.varied.keys().all(|factor| !all.not_varied.contains_key(factor)));
        assert_eq!(all.varied.len() + all.not_varied.len(), Factor::ALL.len());
    }

    #[test]
    fn the_worst_report_decides_the_exit_code() {
        let good = || {
            let about = About::default();
            Report::of(about, vec![samples::control(), samples::control()], &Reference::None, Differences::default())
        };
        assert_eq!(Reports::new(vec![good(), good()]).exit_code(Accept::Identical), 0);
        assert_eq!(Reports::new(vec![diverged(), good()]).exit_code(Accept::Identical), 1);
    }

    #[test]
    fn a_reference_is_shown_beside_what_was_built() {
        let seen = Seen::from(&samples::control());
        let Seen::Built(published) = seen else { panic!("built") };
        let reference = Reference::Published(published);
        let about = About { origin: Some("debian".into()), ..About::default() };
        let report = Report::of(about, vec![samples::control()], &reference, Differences::default());
        assert_eq!(report.verdict, Verdict::Reproduced);
        assert_eq!(report.subjects[0].reference, report.subjects[0].digests[0]);
        assert_eq!(report.reference, Some(Published { origin: "debian".into(), available: true }));
        assert_eq!(judge(&[Seen::from(&samples::failed())], &reference).verdict, Verdict::Failed);
    }
}
