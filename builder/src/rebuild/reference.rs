//! Builds, and holds what came out against what was published.
//!
//! One build is enough to agree with a publisher. Before anything is said against one it is built a second time, under
//! the same conditions: builds that disagree with each other prove nothing about anybody else. What is published is a
//! list of files with their digests; their bytes are read only to say how they differ.

use std::collections::BTreeMap;
use std::path::PathBuf;

use kiln_model::digest::Digest;
use kiln_model::outcome::{Artifact, Normalised, Outcome, Status};
use kiln_model::report::{About, Comparison, Differences, Explained, Missing, Rebuilt, Report};
use kiln_model::variation::Conditions;
use kiln_model::verdict::{self, Identity, Reference, Seen, Subject, Verdict};

use super::{CheckError, differences};
use crate::build::graph::Graph;
use crate::build::{BuildError, Builder};
use crate::diff;
use crate::event::{self, Level};
use crate::fetch::{FetchError, Unfetched};
use crate::store::StoreError;

/// A published file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Published {
    /// Its name; the artifact of a build of the same name is held against it, or its [`Counterpart`].
    pub name: String,
    /// Digest of its bytes.
    pub sha256: Digest,
    /// Where its bytes are, digest checked, if they could be had.
    pub file: Option<PathBuf>,
}

/// One rebuild: what is built, and what it is held against.
pub struct Held<'a> {
    /// What was built, in words.
    pub title: String,
    /// Logical name of where the reference was published: an archive's, an index's; never a host's.
    pub origin: String,
    /// Holds the node.
    pub graph: &'a Graph,
    /// What is built.
    pub node: usize,
    /// What it is built under.
    pub conditions: Conditions,
    /// What was published.
    pub published: &'a [Published],
    /// Which artifact is to be held against a published file, if none has its name.
    pub counterpart: Counterpart,
    /// Whether a build that does not agree is done again.
    pub again: Again,
}

/// The name, among the artifacts of a build, of the one that the published file of the first name was made from.
pub type Counterpart = fn(&str, &BTreeMap<String, Artifact>) -> Option<String>;

/// Whether a build that does not agree with what was published is done again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Again {
    /// It is: nothing is said against a publisher on the word of one build.
    Yes,
    /// It is not: what matters is whether it agrees.
    No,
}

/// What the published files are called among a report's sides.
const SIDE: &str = "published";

impl Held<'_> {
    /// Builds once, and once more if the first build does not agree with what was published, and judges. What differs between
    /// a build and the published files is in the report, with the causes that it gives away.
    pub fn judged(&self, builder: &Builder<'_>, rebuilt: Rebuilt) -> Result<Report, CheckError> {
        builder.needs(self.graph, self.node)?;
        let node = &self.graph.nodes[self.node];
        let provided = builder.provide(self.graph, self.node)?;
        let once = || -> Result<Outcome, BuildError> {
            let run = builder.run(node, &provided, &self.conditions, &|| ())?;
            if run.outcome.status == Status::Built {
                builder.register(node, &provided, &run)?;
            }
            let mut outcome = run.outcome;
            self.note_counterparts(&mut outcome);
            Ok(outcome)
        };
        event::say(builder.events, Level::Note, format!("building {}", self.title));
        let mut compared = Compared::default();
        let mut outcomes = vec![once()?];
        compared.add(builder, &mut outcomes[0], self.published)?;
        let verdict = |outcomes: &[Outcome], reference: &Reference| {
            let seen: Vec<Seen> = outcomes.iter().map(Seen::from).collect();
            verdict::judge(&seen, reference).verdict
        };
        let disagrees = verdict(&outcomes, &compared.reference(self.published)) == Verdict::Inconclusive;
        if self.again == Again::Yes && outcomes[0].status == Status::Built && disagrees {
            let text = format!("building {} again: it is not what was published", self.title);
            event::say(builder.events, Level::Note, text);
            let mut second = once()?;
            compared.add(builder, &mut second, self.published)?;
            outcomes.push(second);
        }
        let mut found = differences(builder, &outcomes)?;
        compared.place(outcomes.len(), &mut found);
        let about = About {
            title: self.title.clone(),
            recipe: node.recipe().map(|_| node.shown.join("recipe.toml").display().to_string()),
            derivation: Some(node.path.to_string()),
            origin: Some(self.origin.clone()),
        };
        let mut report = Report::of(about, outcomes, &compared.reference(self.published), found);
        if !compared.comparisons.is_empty() {
            report.sides = vec![SIDE.into()];
        }
        let differs = matches!(report.verdict, Verdict::UpstreamDiffers | Verdict::Equivalent | Verdict::Diverged);
        let explained = if differs && !report.causes.is_empty() { Explained::Suspected } else { Explained::No };
        report.rebuild = Some(Rebuilt { explained, ..rebuilt });
        Ok(report)
    }

    /// Notes in the artifact that a published file of another name was made from which file that is.
    fn note_counterparts(&self, outcome: &mut Outcome) {
        for Published { name, .. } in self.published {
            if !outcome.artifacts.contains_key(name)
                && let Some(made) = (self.counterpart)(name, &outcome.artifacts)
                && let Some(artifact) = outcome.artifacts.get_mut(&made)
            {
                artifact.held_against = Some(name.clone());
            }
        }
    }
}

/// Artifacts held against the published files.
#[derive(Default)]
struct Compared {
    /// What the first build that has other bytes differs in, by file name.
    comparisons: BTreeMap<String, Placed>,
    /// Digests of published files after the normalisers that made them equal to what was built.
    normalised: BTreeMap<String, Digest>,
    /// What is known of pairs already: file name and digest of what was built.
    known: BTreeMap<(String, Digest), Option<Normalised>>,
}

/// A comparison, and where what was built is.
struct Placed {
    comparison: Comparison,
    artifact: Artifact,
}

impl Compared {
    /// Holds the artifacts of `outcome` against the published files, and notes in it what they are after normalisers.
    fn add(&mut self, builder: &Builder<'_>, outcome: &mut Outcome, published: &[Published]) -> Result<(), CheckError> {
        for published in published {
            let Some((made, artifact)) = outcome.held_against(&published.name) else { continue };
            let (made, artifact) = (made.clone(), artifact.clone());
            if artifact.sha256 == published.sha256 {
                continue;
            }
            let key = (published.name.clone(), artifact.sha256);
            let normalised = match self.known.get(&key) {
                Some(known) => known.clone(),
                None => {
                    let found = self.compare(builder, outcome, &artifact, published)?;
                    self.known.insert(key, found.clone());
                    found
                }
            };
            if let Some(artifact) = outcome.artifacts.get_mut(&made) {
                artifact.normalised = normalised;
            }
        }
        Ok(())
    }

    fn compare(
        &mut self,
        builder: &Builder<'_>,
        outcome: &Outcome,
        artifact: &Artifact,
        published: &Published,
    ) -> Result<Option<Normalised>, CheckError> {
        let ours = file_of(builder, outcome, artifact)?;
        let (Some(ours), Some(theirs)) = (ours, &published.file) else { return Ok(None) };
        let comparison = diff::compare(&ours, theirs, &diff::Options::default())?;
        let normalisers = comparison.normalisers.clone();
        let normalised = comparison.normalised().map(|sha256| Normalised { sha256, normalisers });
        if let Some(normalised) = &normalised {
            self.normalised.entry(published.name.clone()).or_insert(normalised.sha256);
        }
        let placed = Placed { comparison, artifact: artifact.clone() };
        self.comparisons.entry(published.name.clone()).or_insert(placed);
        Ok(normalised)
    }

    /// What was published, for judging.
    fn reference(&self, published: &[Published]) -> Reference {
        let one = |published: &Published| {
            let normalised = self.normalised.get(&published.name).copied();
            (Subject::File(published.name.clone()), Identity { exact: published.sha256, normalised })
        };
        Reference::Published(published.iter().map(one).collect())
    }

    /// Lists what differs from the published files, which are number `side` of the report.
    fn place(&self, side: usize, found: &mut Differences) {
        for Placed { comparison, artifact } in self.comparisons.values() {
            let placed = comparison.placed(&artifact.path, [0, side]);
            found.differences.extend(placed.into_iter().map(|mut difference| {
                difference.output = artifact.output.clone();
                difference
            }));
            found.differences_left_out += comparison.differences.differences_left_out;
        }
    }
}

/// The report of a rebuild for which something could not be had: nothing was built, and `rebuilt` says what is missing.
pub fn inconclusive(title: String, origin: String, rebuilt: Rebuilt) -> Report {
    let about = About { title, origin: Some(origin), ..About::default() };
    let mut report = Report::of(about, Vec::new(), &Reference::Unavailable, Differences::default());
    report.rebuild = Some(rebuilt);
    report
}

/// Where the bytes of an artifact are, if the store has them yet.
pub fn file_of(builder: &Builder<'_>, outcome: &Outcome, artifact: &Artifact) -> Result<Option<PathBuf>, StoreError> {
    let Some(output) = outcome.outputs.get(&artifact.output) else { return Ok(None) };
    let tree = builder.store.tree(&output.nar_hash)?;
    Ok(tree.map(|tree| tree.join(artifact.path.to_string())))
}

/// What a file that is nowhere is called in a report; `what` says what it is for.
pub fn missing(what: &str, file: &Unfetched) -> Missing {
    let digest = file.sha256.map(|sha256| format!(" (sha256 {sha256})")).unwrap_or_default();
    let mut tries: Vec<String> = file.tries.iter().map(|t| format!("{}: {}", t.mirror, t.refusal)).collect();
    if tries.is_empty() {
        tries.push(format!("no mirror of {} is configured", file.archive));
    }
    Missing { what: format!("{what}: {}{digest}", file.path), tries }
}

/// The files that no mirror has, if that is all that went wrong: then there is nothing to rebuild or to hold it against. A
/// mirror that could not be asked is another matter.
pub fn nowhere(error: &FetchError) -> Option<&[Unfetched]> {
    match error {
        FetchError::Missing { files, .. } if error.is_nowhere() => Some(files),
        FetchError::Missing { .. }
        | FetchError::Tampered { .. }
        | FetchError::BadPath { .. }
        | FetchError::Cache { .. }
        | FetchError::Settings(_) => None,
    }
}
