//! One target from its name to its report: a plan is made, then carried out.
//!
//! Planning looks into indices and pins; what it cannot find makes the rebuild inconclusive, not an error. Carrying out reads
//! the plan's directory alone, so that repeating it needs no index.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use jiff::Timestamp;
use kiln_model::cause::{Setting, SettingName};
use kiln_model::outcome::{EntryPath, Status};
use kiln_model::report::{Cause, Confidence, Explained, Missing, Rebuilt, Report, Tried};
use kiln_model::variation::{Conditions, Label};
use kiln_model::verdict::Verdict;

use super::left::Left;
use super::plan::Plan;
use super::record::RecordError;
use super::reference::{self, Again, Held, Published};
use super::setting::Settings;
use super::target::Target;
use super::wheel::{self, WheelError};
use super::{CheckError, debian};
use crate::build::graph::{Graph, GraphError};
use crate::build::{BuildError, Builder};
use crate::event::{self, Level};
use crate::exit::Kind;
use crate::fetch::{FetchError, Network};
use crate::pin::PinError;
use crate::pin::debian::{Freshness, Indices};
use crate::recipe_dir::RecipeDirError;
use crate::store::StoreError;

/// What rebuilds are made with.
#[derive(Clone)]
pub struct Rebuilding<'a, 'b> {
    /// Store, archives and sandbox.
    pub builder: &'a Builder<'b>,
    /// What time it is.
    pub clock: Timestamp,
    /// Keyrings that sign indices.
    pub keyrings: Vec<PathBuf>,
    /// Whether an old index will do.
    pub freshness: Freshness,
    /// Whether `git` may use the network.
    pub network: Network,
    /// Suites in order of preference; the host's if empty.
    pub suites: Vec<String>,
    /// How it is done.
    pub settings: Settings,
    /// What is done about causes that are recognised.
    pub causes: Causes,
    /// Where lock, derivation, artifacts and report are left besides.
    pub output: Option<PathBuf>,
    /// The indices, once they are read: clones share them, so that many rebuilds read and check them once.
    pub indices: SharedIndices,
}

/// Indices that several rebuilds read once.
pub type SharedIndices = Arc<Mutex<Option<Arc<Indices>>>>;

/// What is done about causes that are recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Causes {
    /// They are told.
    Told,
    /// The settings that they suggest are built with.
    Tried,
}

/// What planning came to.
pub enum Planned {
    /// The plan's directory.
    At(PathBuf),
    /// Something is missing.
    Inconclusive(Box<Report>),
}

/// Why a rebuild could not be done. What is merely not to be had is a report instead.
#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    /// Something could not be pinned.
    #[error("pinning {target}")]
    Pin {
        /// What was asked for.
        target: String,
        /// Why.
        source: Box<PinError>,
    },
    /// Building or comparing.
    #[error(transparent)]
    Check(#[from] CheckError),
    /// A wheel, or what it is rebuilt from.
    #[error(transparent)]
    Wheel(#[from] WheelError),
    /// The recipe that was made.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// Reading or writing the recipe that was made.
    #[error(transparent)]
    Recipe(#[from] RecipeDirError),
    /// A published file could not be had.
    #[error("fetching what was published")]
    Fetch(#[from] FetchError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The record of a build.
    #[error("writing the record of the build")]
    Record(#[from] RecordError),
    /// A Debian target that cannot be planned.
    #[error(transparent)]
    Debian(#[from] debian::DebianError),
    /// A kind of target that this kiln does not rebuild.
    #[error("{target}: this kiln does not rebuild this kind of target")]
    Unsupported {
        /// What was asked for.
        target: String,
    },
    /// A plan that is none.
    #[error("{}: {what}", path.display())]
    Plan {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// A file could not be read or written.
    #[error("{act} {}", path.display())]
    Io {
        /// What was tried.
        act: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl From<BuildError> for RebuildError {
    fn from(error: BuildError) -> Self {
        Self::Check(error.into())
    }
}

impl RebuildError {
    /// What sort of error it is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Pin { source, .. } => source.kind(),
            Self::Check(e) => e.kind(),
            Self::Wheel(e) => e.kind(),
            Self::Graph(e) => e.kind(),
            Self::Recipe(e) => e.kind(),
            Self::Fetch(e) => e.kind(),
            Self::Store(e) => e.kind(),
            Self::Debian(e) => e.kind(),
            Self::Record(_) => Kind::Host,
            Self::Plan { .. } | Self::Unsupported { .. } => Kind::BadInput,
            Self::Io { .. } => Kind::Host,
        }
    }
}

impl Rebuilding<'_, '_> {
    /// Rebuilds `target`.
    pub fn rebuild(&self, target: &Target) -> Result<Report, RebuildError> {
        let mut report = self.planned_and_carried_out(target, Again::Yes)?;
        if self.causes == Causes::Tried {
            self.try_causes(target, &mut report)?;
        }
        Ok(report)
    }

    /// Builds with the settings that the causes in `report` suggest, until one has all published bytes, and adds what that came
    /// to. The verdict stays: it is that of the settings asked for.
    fn try_causes(&self, target: &Target, report: &mut Report) -> Result<(), RebuildError> {
        let suggested: BTreeSet<&Setting> = report.causes.iter().filter_map(|cause| cause.setting.as_ref()).collect();
        let mut tries: Vec<Settings> = suggested.iter().filter_map(|setting| self.settings.with(setting)).collect();
        if tries.len() > 1 {
            let all = |settings: Settings, setting: &&Setting| settings.with(setting).unwrap_or(settings);
            tries.push(suggested.iter().fold(self.settings.clone(), all));
        }
        let target = match target {
            Target::Earlier(_) => match report.rebuild.as_ref().and_then(|rebuilt| rebuilt.target.parse().ok()) {
                Some(target) => target,
                None => return Ok(()),
            },
            target => target.clone(),
        };
        let mut tried = Vec::new();
        for settings in tries {
            let text = format!("building {} with {settings}", report.title);
            event::say(self.builder.events, Level::Note, text);
            let other = Rebuilding {
                settings,
                causes: Causes::Told,
                keyrings: self.keyrings.clone(),
                output: None,
                suites: self.suites.clone(),
                indices: Arc::clone(&self.indices),
                ..*self
            };
            let came_to = other.tried(&target);
            let proves = came_to.verdict == Verdict::Reproduced;
            tried.push(came_to);
            if proves {
                for cause in &mut report.causes {
                    let told = cause
                        .setting
                        .as_ref()
                        .is_some_and(|s| self.settings.with(s).is_some_and(|s| s == other.settings));
                    if told {
                        cause.confidence = Confidence::Proven;
                    }
                }
                break;
            }
        }
        if let Some(rebuilt) = &mut report.rebuild {
            if tried.iter().any(|tried| tried.verdict == Verdict::Reproduced) {
                rebuilt.explained = Explained::Proved;
            }
            rebuilt.tried.extend(tried);
        }
        Ok(())
    }

    /// What these settings come to; an error is told as one, since the rebuild that was asked for has its report already.
    fn tried(&self, target: &Target) -> Tried {
        let report = self.planned_and_carried_out(target, Again::No);
        let setting = self.settings.to_string();
        match report {
            Ok(report) => {
                let missing = report.rebuild.iter().flat_map(|rebuilt| &rebuilt.missing).map(|m| m.what.clone());
                let missing: Vec<String> = missing.collect();
                Tried {
                    setting,
                    verdict: report.verdict,
                    subjects: report.subjects.iter().map(|s| (s.subject.name().to_string(), s.verdict)).collect(),
                    derivation: report.derivation,
                    error: (!missing.is_empty()).then(|| missing.join("; ")),
                }
            }
            Err(error) => Tried {
                setting,
                verdict: Verdict::Inconclusive,
                subjects: BTreeMap::new(),
                derivation: None,
                error: Some(chain(&error)),
            },
        }
    }

    fn planned_and_carried_out(&self, target: &Target, again: Again) -> Result<Report, RebuildError> {
        if let Target::Pypi { .. } | Target::Wheel(_) = target {
            return self.wheel(target, again);
        }
        match self.planned(target)? {
            Planned::At(directory) => self.carried_out(&directory, again),
            Planned::Inconclusive(report) => Ok(*report),
        }
    }

    /// Makes the plan of `target`.
    pub fn planned(&self, target: &Target) -> Result<Planned, RebuildError> {
        match target {
            Target::Debian { .. } | Target::Dsc(_) | Target::Deb(_) | Target::Buildinfo(_) => {
                debian::plan(self, target)
            }
            Target::Pypi { .. } | Target::Wheel(_) => wheel::plan(self, target, &[]),
            Target::Earlier(directory) => Ok(Planned::At(directory.clone())),
        }
    }

    /// Builds by the plan in `directory`, and judges.
    pub fn carried_out(&self, directory: &Path, again: Again) -> Result<Report, RebuildError> {
        let plan = Plan::open(directory)?;
        let graph = Graph::load(&[directory.to_path_buf()], self.builder.store)?;
        let node = graph.wanted[0];
        let published = match self.published(&plan, directory)? {
            Ok(published) => published,
            Err(missing) => return Ok(inconclusive(&plan, missing)),
        };
        let conditions = Conditions {
            hostname: "builder".into(),
            user_name: "builder".into(),
            ..Conditions::control(self.builder.settings.cores)
        };
        let held = Held {
            title: plan.title.clone(),
            origin: plan.origin.clone(),
            graph: &graph,
            node,
            conditions,
            published: &published,
            counterpart: if plan.origin == wheel::ORIGIN { wheel::counterpart } else { |_, _| None },
            again,
        };
        let mut report = held.judged(self.builder, plan.rebuilt())?;
        if plan.origin == wheel::ORIGIN {
            wheel::explain(self, directory, &published, &mut report)?;
        }
        let others: Vec<&String> = report.outcomes.iter().take(1).flat_map(|o| o.artifacts.keys()).collect();
        let installer =
            others.into_iter().filter(|name| name.ends_with(".udeb") && !plan.published.contains_key(*name));
        let installer: Vec<&str> = installer.map(String::as_str).collect();
        if let (false, Some(rebuilt)) = (installer.is_empty(), &mut report.rebuild) {
            let names = installer.join(", ");
            rebuilt
                .notes
                .push(format!("not held against anything: {names}: kiln does not read the installer's indices"));
        }
        if let Some(cause) = expired_certificate(&plan, &report) {
            report.causes.push(cause);
            if let Some(rebuilt) = &mut report.rebuild {
                rebuilt.explained = Explained::Suspected;
            }
        }
        if let Some(output) = &self.output {
            Left { builder: self.builder, directory, plan: &plan, graph: &graph, node }.leave(&report, output)?;
        }
        Ok(report)
    }

    /// The published files; what is nowhere is the inner error.
    fn published(&self, plan: &Plan, directory: &Path) -> Result<Result<Vec<Published>, Vec<Missing>>, RebuildError> {
        let (mut published, mut wanted, mut wanted_for) = (Vec::new(), Vec::new(), Vec::new());
        for (name, file) in &plan.published {
            let beside = Plan::beside(directory, name);
            if let (None, Some(one)) = (&beside, file.wanted()) {
                wanted.push(one);
                wanted_for.push(published.len());
            }
            published.push(Published { name: name.clone(), sha256: file.sha256, file: beside });
        }
        match self.builder.archives.pinned(&wanted) {
            Ok(files) => {
                for (at, file) in wanted_for.into_iter().zip(files) {
                    published[at].file = Some(file);
                }
                Ok(Ok(published))
            }
            Err(error) => match reference::nowhere(&error) {
                Some(files) => Ok(Err(files.iter().map(|file| reference::missing("reference", file)).collect())),
                None => Err(error.into()),
            },
        }
    }
}

/// The report of a plan that cannot be carried out.
fn inconclusive(plan: &Plan, missing: Vec<Missing>) -> Report {
    let rebuilt = Rebuilt { missing, ..plan.rebuilt() };
    reference::inconclusive(plan.title.clone(), plan.origin.clone(), rebuilt)
}

/// What is missing, if that is why pinning failed: files that no mirror has, a version that no index has.
pub fn missing_pin(error: &PinError) -> Option<Vec<Missing>> {
    let nothing = Vec::new;
    match error {
        PinError::Build(error) => match &**error {
            BuildError::Fetch(error) => {
                let files = reference::nowhere(error)?;
                Some(files.iter().map(|file| reference::missing("file", file)).collect())
            }
            _ => None,
        },
        PinError::Debian(error @ crate::pin::debian::PinError::UnknownSource { .. }) => {
            Some(vec![Missing { what: error.to_string(), tries: nothing() }])
        }
        _ => None,
    }
}

/// The clock, if the build failed because a certificate of the source has expired since it was published.
fn expired_certificate(plan: &Plan, report: &Report) -> Option<Cause> {
    const SAYS: &str = "certificate has expired";
    let failed = report.outcomes.first().filter(|outcome| outcome.status == Status::Failed)?;
    let line = failed.failure.as_ref()?.log_tail.lines().find(|line| line.contains(SAYS))?.trim().to_string();
    let epoch = plan.debian.as_ref().and_then(|build| Timestamp::from_second(build.epoch?).ok());
    Some(Cause {
        label: Label::Time,
        factor: None,
        confidence: Confidence::Likely,
        output: "out".into(),
        path: EntryPath::default(),
        evidence: format!("expired-certificate: the build's log says {line:?}; it built when the source was published"),
        setting: epoch.map(|date| Setting::new(SettingName::Clock, date.strftime("%Y-%m-%d").to_string())),
    })
}

/// An error and what it came from, on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        text.push_str(&format!(": {source}"));
        cause = source.source();
    }
    text
}
