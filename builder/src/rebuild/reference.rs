//! Builds, and holds what came out against what was published.
//!
//! One build is enough to agree with a publisher. Before anything is said against one it is built a second time, under
//! the same conditions: builds that disagree with each other prove nothing about anybody else. What is published is a
//! list of files with their digests; their bytes are read only to say how they differ.

use std::path::PathBuf;

use kiln_model::digest::Digest;
use kiln_model::outcome::{Artifact, Outcome, Status};
use kiln_model::report::{About, Differences, Missing, Rebuilt, Report};
use kiln_model::variation::Conditions;
use kiln_model::verdict::{self, Identity, Reference, Seen, Subject, Verdict};

use super::{CheckError, differences};
use crate::build::graph::Graph;
use crate::build::{BuildError, Builder};
use crate::event::{self, Level};
use crate::fetch::{FetchError, Unfetched};
use crate::store::StoreError;

/// A published file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Published {
    /// Its name; the artifact of a build of the same name is held against it.
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
}

impl Held<'_> {
    /// Builds once, and once more if the first build does not agree with what was published, and judges. Differences in the
    /// report are those between the two builds.
    pub fn judged(&self, builder: &Builder<'_>, rebuilt: Rebuilt) -> Result<Report, CheckError> {
        builder.needs(self.graph, self.node)?;
        let node = &self.graph.nodes[self.node];
        let provided = builder.provide(self.graph, self.node)?;
        let reference = self.reference();
        let once = || -> Result<Outcome, BuildError> {
            let run = builder.run(node, &provided, &self.conditions, &|| ())?;
            if run.outcome.status == Status::Built {
                builder.register(node, &provided, &run)?;
            }
            Ok(run.outcome)
        };
        event::say(builder.events, Level::Note, format!("building {}", self.title));
        let mut outcomes = vec![once()?];
        let verdict = |outcomes: &[Outcome]| {
            let seen: Vec<Seen> = outcomes.iter().map(Seen::from).collect();
            verdict::judge(&seen, &reference).verdict
        };
        if outcomes[0].status == Status::Built && verdict(&outcomes) == Verdict::Inconclusive {
            event::say(
                builder.events,
                Level::Note,
                format!("building {} again: it is not what was published", self.title),
            );
            outcomes.push(once()?);
        }
        let found = differences(builder, &outcomes)?;
        let about = About {
            title: self.title.clone(),
            recipe: node.recipe().map(|_| node.shown.join("recipe.toml").display().to_string()),
            derivation: Some(node.path.to_string()),
            origin: Some(self.origin.clone()),
        };
        let mut report = Report::of(about, outcomes, &reference, found);
        report.rebuild = Some(rebuilt);
        Ok(report)
    }

    fn reference(&self) -> Reference {
        let identity = |published: &Published| Identity { exact: published.sha256, normalised: None };
        let all = self.published.iter().map(|p| (Subject::File(p.name.clone()), identity(p)));
        Reference::Published(all.collect())
    }
}

/// The report of a rebuild for which something could not be had: nothing was built, and `rebuilt` says what is missing.
pub fn inconclusive(title: String, origin: String, rebuilt: Rebuilt) -> Report {
    let about = About { title, origin: Some(origin), ..About::default() };
    let mut report = Report::of(about, Vec::new(), &Reference::Unavailable, Differences::default());
    report.rebuild = Some(rebuilt);
    report
}

/// Where the bytes of an artifact are.
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
