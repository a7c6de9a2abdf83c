//! Debian targets: from a name or a file to the plan of a rebuild.
//!
//! Sources, references and the environment come from the signed indices of some suites, whoever mirrors them. What the indices or
//! the mirrors do not have makes the rebuild inconclusive and is named; a file on the command line that is broken or does not
//! hold what it says is an error.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use kiln_model::debian::build::{self, Scope, SourceBuild, SourceInput};
use kiln_model::outcome::EntryPath;
use kiln_model::report::{Cause, Confidence, Missing, Rebuilt};

use kiln_model::cause::{Setting, SettingName};
use kiln_model::variation::Label;

use super::plan::{Draft, Plan, PlannedFile, PlannedPlace};
use super::rebuilding::{Planned, RebuildError, Rebuilding, missing_pin};
use super::record::DebianBuild;
use super::reference;
use super::setting::{Changelog, Tests};
use super::source::{self, Root};
use super::target::Target;
use crate::environment::DebError;
use crate::event::{self, Level};
use crate::exit::Kind;
use crate::pin;
use crate::pin::Pinning;
use crate::pin::debian::{Binary, Indices};

mod choose;
mod gather;
mod given;
mod recorded;
mod wish;

use choose::Chosen;
use gather::Had;
pub use given::GivenError;
use wish::{SourceFrom, Wish};

/// The architecture that is built for.
const ARCHITECTURE: &str = "amd64";
/// The logical archive, as reports name where references are from.
const ORIGIN: &str = "debian";
/// The directory of a plan that holds a source which was given.
const BESIDE: &str = "source";

/// Why a Debian target cannot be planned.
#[derive(Debug, thiserror::Error)]
pub enum DebianError {
    /// No suites were named, and this host does not say which it is of.
    #[error("this host names no Debian suite: say --suite NAME, once for each")]
    NoSuite,
    /// The files of a source cannot be read.
    #[error("reading the source of {title}")]
    Source {
        /// Name and version.
        title: String,
        /// Why not.
        source: std::io::Error,
    },
    /// A published package cannot be read.
    #[error(transparent)]
    Deb(#[from] DebError),
    /// A published package whose changelog is none.
    #[error("{file}: no changelog with the entry of a binary-only rebuild")]
    NoEntry {
        /// The package's file.
        file: String,
    },
    /// The environment has what the source does not go with.
    #[error("{title}: its Build-Conflicts name {package}, which its build dependencies bring")]
    Conflict {
        /// Name and version.
        title: String,
        /// The package.
        package: String,
    },
    /// A file on the command line.
    #[error(transparent)]
    Given(#[from] GivenError),
}

impl DebianError {
    /// What sort of error it is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::NoSuite | Self::Conflict { .. } => Kind::BadInput,
            Self::Source { .. } | Self::Deb(DebError::Read { .. }) => Kind::Host,
            // What is read was published, and has the digest that was signed or given.
            Self::Deb(_) | Self::NoEntry { .. } => Kind::BadInput,
            Self::Given(error) => error.kind(),
        }
    }
}

/// The one target that stands for each of `targets` and for all others that mean the same build: the source with its version,
/// and which of its packages was named. What no index knows is left as it is.
pub(crate) fn canonical(
    rebuilding: &Rebuilding<'_, '_>,
    targets: &BTreeSet<Target>,
) -> Result<BTreeMap<Target, Canonical>, RebuildError> {
    let named = |target: &Target| match target {
        Target::Debian { name, version } => Some((target.clone(), name.clone(), version.clone())),
        _ => None,
    };
    let named: Vec<(Target, String, Option<String>)> = targets.iter().filter_map(named).collect();
    let Some((first, _, _)) = named.first() else { return Ok(BTreeMap::new()) };
    let planning = Planning { rebuilding, target: first };
    let Ok(indices) = planning.indices()? else { return Ok(BTreeMap::new()) };
    let names: BTreeSet<&str> = named.iter().map(|(_, name, _)| name.as_str()).collect();
    let known = indices.published_of(&names).map_err(|e| planning.pin_error(e.into()))?;
    let mut found = BTreeMap::new();
    for (target, name, version) in named {
        let Some(published) = known.sources.get(&name).and_then(|source| known.published.get(source)) else {
            continue;
        };
        let version = match choose::choose(&name, published, version.as_deref()) {
            Chosen::Source(version) => version,
            Chosen::BinaryOnly(source, number) => match version {
                Some(version) => version,
                // By the source's version another build would be meant.
                None => choose::rebuilt(published, &source, number).unwrap_or(source),
            },
            // Said when it is its turn.
            Chosen::Nothing(_) => continue,
        };
        let package = (name != published.name).then_some(name);
        let target_of = Target::Debian { name: published.name.clone(), version: Some(version) };
        found.insert(target, Canonical { target: target_of, package });
    }
    Ok(found)
}

/// A target as all would say it who mean the same build.
pub(crate) struct Canonical {
    /// The source and its version.
    pub(crate) target: Target,
    /// The binary package that was named, if it is another name than the source's.
    pub(crate) package: Option<String>,
}

/// The plan of a Debian target.
pub(super) fn plan(rebuilding: &Rebuilding<'_, '_>, target: &Target) -> Result<Planned, RebuildError> {
    let planning = Planning { rebuilding, target };
    match target {
        Target::Debian { name, version } => planning.by_name(name, version.as_deref()),
        Target::Dsc(path) => planning.by_dsc(path),
        Target::Deb(path) => planning.by_deb(path),
        Target::Buildinfo(path) => planning.by_buildinfo(path),
        Target::Pypi { .. } | Target::Wheel(_) | Target::Earlier(_) => {
            Err(RebuildError::Unsupported { target: target.to_string() })
        }
    }
}

struct Planning<'a, 'b, 'c> {
    rebuilding: &'a Rebuilding<'b, 'c>,
    target: &'a Target,
}

impl Planning<'_, '_, '_> {
    fn by_name(&self, name: &str, named: Option<&str>) -> Result<Planned, RebuildError> {
        let indices = match self.indices()? {
            Ok(indices) => indices,
            Err(missing) => return Ok(self.inconclusive(name.into(), missing)),
        };
        let published = indices.published(name).map_err(|e| self.pin_error(e.into()))?;
        let asked = self.rebuilding.settings.changelog;
        let others = choose::versions(&published).skip(1);
        let older: Vec<String> =
            others.filter(|_| named.is_none()).map(|older| format!("debian:{name}={older}")).collect();
        let (version, changelog, number) = match choose::choose(name, &published, named) {
            Chosen::Source(version) => (version, asked, None),
            Chosen::BinaryOnly(version, number) => (version, Changelog::Binnmu, Some(number)),
            Chosen::Nothing(missing) => {
                let title = format!("{name} {}", named.unwrap_or_default());
                return Ok(self.inconclusive(title.trim_end().into(), missing));
            }
        };
        let title = format!("{} {version}", published.name);
        let Some(source) = published.sources.iter().find(|source| source.version == version) else {
            let what = format!("source {title} is in no index of {}", indices.suites().join(", "));
            return Ok(self.inconclusive(title, vec![Missing { what, tries: Vec::new() }]));
        };
        let of_version: Vec<&Binary> = published.binaries.iter().filter(|b| b.source_version == version).collect();
        let target = format!("debian:{}={version}", published.name);
        let mut wish = Wish::new(target, &published.name, &version, SourceFrom::Archive(source));
        if !older.is_empty() {
            wish.notes.push(format!("the newest of the versions that are published; there is {}", older.join(", ")));
        }
        if let (None, Some(number)) = (named, number) {
            wish.notes
                .push(format!("the archive serves nothing of it but binary-only rebuild {number}: that is rebuilt"));
        }
        match self.with_references(wish, &of_version, changelog, number)? {
            Ok(wish) => self.plan_of(&indices, wish),
            Err(missing) => {
                let evidence = missing.first().map(|missing| missing.what.clone()).unwrap_or_default();
                let mut planned = self.inconclusive(title, missing);
                let rebuilt = of_version.iter().find(|b| build::is_binary_only(&b.version, &b.source_version));
                if let (Planned::Inconclusive(report), Some(binary), Changelog::AsIs) =
                    (&mut planned, rebuilt, changelog)
                {
                    report.causes.push(Cause {
                        label: Label::BinNmu,
                        factor: None,
                        confidence: Confidence::Likely,
                        output: "out".into(),
                        path: EntryPath::from(planned_file(binary).0.as_str()),
                        evidence,
                        setting: Some(Setting::new(SettingName::Changelog, "binnmu")),
                    });
                }
                Ok(planned)
            }
        }
    }

    /// The wish with what is published of its source, and the entry of a binary-only rebuild if it is one.
    fn with_references<'w>(
        &self,
        mut wish: Wish<'w>,
        of_version: &[&Binary],
        changelog: Changelog,
        number: Option<u32>,
    ) -> Result<Had<Wish<'w>>, RebuildError> {
        let (references, others) = choose::references(of_version, changelog, number);
        let Some(first) = references.first() else {
            return Ok(Err(vec![choose::no_reference(&wish.title(), changelog, &others)]));
        };
        if !others.is_empty() {
            let how = match changelog {
                Changelog::AsIs => "binary-only rebuilds, which --changelog binnmu rebuilds",
                Changelog::Binnmu => "not of this binary-only rebuild",
            };
            wish.notes.push(format!("not held against anything: {}: {how}", choose::titles(&others)));
        }
        if changelog == Changelog::Binnmu {
            wish.target = format!("debian:{}={}", wish.name, first.version);
            wish.scope = Scope::Dependent;
            wish.entry = match self.published_entry(&references)? {
                Ok(entry) => Some(entry),
                Err(missing) => return Ok(Err(missing)),
            };
        }
        for binary in references {
            let (name, file) = planned_file(binary);
            wish.published.insert(name, (file, None));
        }
        Ok(Ok(wish))
    }

    /// Fetches source and references, reads what the source says, and pins the environment.
    fn plan_of(&self, indices: &Indices, wish: Wish<'_>) -> Result<Planned, RebuildError> {
        let settings = &self.rebuilding.settings;
        let title = wish.title();
        let files = match self.files(&wish)? {
            Ok(files) => files,
            Err(missing) => return Ok(self.inconclusive(title, missing)),
        };
        let says = source::read(&files).map_err(|source| DebianError::Source { title: title.clone(), source })?;
        let dsc = files.iter().map(|(name, _)| name).find(|name| name.ends_with(".dsc")).cloned().unwrap_or_default();
        let mut packages = wish.packages.clone();
        packages.extend(settings.pins.iter().map(|(name, version)| format!("{name} (= {version})")));
        packages.extend(settings.packages.iter().cloned());
        if says.root == Root::Pretended {
            packages.insert("fakeroot".into());
        }
        let mut options: BTreeSet<String> = wish.options.union(&settings.build_options).cloned().collect();
        if settings.tests == Tests::Skip {
            options.insert("nocheck".into());
        }
        let input = match &wish.source {
            SourceFrom::Archive(_) => SourceInput::Archive,
            SourceFrom::Files { depends, .. } => {
                packages.extend(depends.iter().cloned());
                SourceInput::Beside(BESIDE.into())
            }
        };
        let build = SourceBuild {
            place: wish.place.clone().unwrap_or_else(|| build::place(&wish.name, &wish.version)),
            dsc,
            input,
            suites: indices.suites().to_vec(),
            architecture: ARCHITECTURE.into(),
            packages,
            epoch: wish.epoch.or(wish.entry.as_ref().map(|(_, date)| *date)).or(says.date),
            options,
            variables: wish.variables.clone(),
            entry: wish.entry.as_ref().map(|(text, _)| text.clone()),
            scope: wish.scope,
            name: wish.name.clone(),
            version: wish.version.clone(),
        };
        let mut plan = Plan::new(wish.target.clone(), title, ORIGIN);
        plan.notes = wish.notes.clone();
        plan.settings = settings.told();
        if build.entry.is_some() {
            plan.settings.insert("changelog".into(), "binnmu".into());
        }
        let build_depends = match &wish.source {
            SourceFrom::Archive(source) => &source.build_depends,
            SourceFrom::Files { build_depends, .. } => build_depends,
        };
        plan.debian = Some(DebianBuild {
            source: build.name.clone(),
            version: build.version.clone(),
            place: build.place.clone(),
            build_depends: used(build_depends, build.scope),
            options: build.options.clone(),
            epoch: build.epoch,
            variables: build.variables.clone(),
            entry: build.entry.clone(),
        });
        plan.environment = wish.environment;
        plan.environment_differs = wish.differs.clone();
        plan.published = wish.published.iter().map(|(name, (file, _))| (name.clone(), file.clone())).collect();
        self.locked(&build, indices, plan, &wish, &files)
    }

    /// Locks the recipe of a build, and keeps it with its plan.
    fn locked(
        &self,
        build: &SourceBuild,
        indices: &Indices,
        plan: Plan,
        wish: &Wish<'_>,
        files: &[(String, PathBuf)],
    ) -> Result<Planned, RebuildError> {
        let rebuilding = self.rebuilding;
        let draft = Draft::new(rebuilding.builder.store.root())?;
        draft.write("recipe.toml", build.recipe().as_bytes())?;
        if let SourceFrom::Files { .. } = wish.source {
            files.iter().try_for_each(|(name, file)| draft.keep(BESIDE, name, file))?;
        }
        for (name, (_, here)) in &wish.published {
            if let Some(file) = here {
                draft.keep_beside(name, file)?;
            }
        }
        event::say(rebuilding.builder.events, Level::Note, format!("pinning the environment of {}", plan.title));
        let pinning = Pinning {
            builder: rebuilding.builder,
            clock: rebuilding.clock,
            keyrings: rebuilding.keyrings.clone(),
            freshness: rebuilding.freshness,
            network: rebuilding.network,
            indices: Some(indices),
        };
        match draft.locked(&pinning)? {
            Ok(lock) => {
                if let SourceFrom::Files { conflicts, .. } = &wish.source {
                    given::refuse_conflicts(&plan.title, conflicts, &lock)?;
                }
                Ok(Planned::At(draft.finished(&plan)?))
            }
            Err(error) => match missing_pin(&error) {
                Some(missing) => Ok(self.inconclusive(plan.title, missing)),
                None => Err(self.pin_error(error)),
            },
        }
    }

    fn pin_error(&self, error: pin::PinError) -> RebuildError {
        RebuildError::Pin { target: self.target.to_string(), source: Box::new(error) }
    }

    fn inconclusive(&self, title: String, missing: Vec<Missing>) -> Planned {
        let mut rebuilt = Rebuilt::new(self.target.to_string());
        rebuilt.settings = self.rebuilding.settings.told();
        rebuilt.missing = missing;
        Planned::Inconclusive(Box::new(reference::inconclusive(title, ORIGIN.into(), rebuilt)))
    }
}

/// The build dependencies that a build of this scope uses.
fn used([all, dependent, independent]: &[String; 3], scope: Scope) -> Vec<String> {
    let fields = match scope {
        Scope::All => vec![all, dependent, independent],
        Scope::Dependent => vec![all, dependent],
        Scope::Independent => vec![all, independent],
    };
    fields.into_iter().filter(|field| !field.is_empty()).cloned().collect()
}

/// A published package under the file name that its build gives it.
fn planned_file(binary: &Binary) -> (String, PlannedFile) {
    let name = build::deb_name(&binary.name, &binary.version, &binary.architecture);
    let at = PlannedPlace { archive: binary.archive.clone(), path: binary.file.path.clone() };
    (name, PlannedFile { sha256: binary.file.sha256, size: Some(binary.file.size), at: Some(at) })
}
