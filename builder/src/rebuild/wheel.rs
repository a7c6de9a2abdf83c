//! Python wheels: from a published one to the plan of its rebuild.
//!
//! The reference says who wrote it and when; the index has its sdist and the program that wrote it. `published` finds the one,
//! `reference` and `sdist` read the two, `index` and `requirements` choose what the build needs as it was when the reference was
//! uploaded, `pinned` locks it, `recipe` writes down what is then built like any other recipe, and `explain` says why bytes
//! differ. What is planned never depends on what a rebuild gave.

mod archive;
mod error;
mod explain;
mod index;
mod pinned;
mod published;
mod recipe;
mod reference;
mod requirements;
mod sdist;

#[cfg(test)]
mod samples;

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use kiln_model::lock::Lock;
use kiln_model::name::Variable;
use kiln_model::outcome::Artifact;
use kiln_model::report::{EnvironmentKind, Missing, Rebuilt, Report};
use kiln_model::wheel::times::{Because, Epoch};
use kiln_model::wheel::{Backend, WheelName};

pub use archive::ArchiveError;
pub use error::WheelError;
pub(super) use explain::explain;

use self::index::{Index, Offered, OfferedKind};
use self::published::Place;
use self::recipe::Facts;
use self::reference::Reference;
use self::requirements::{Chosen, Resolver};
use self::sdist::Sdist;
use super::plan::{Draft, Plan, PlannedFile, PlannedPlace};
use super::rebuilding::{Planned, RebuildError, Rebuilding, missing_pin};
use super::reference::Again;
use super::target::Target;
use crate::fetch::listing::normalised;
use crate::recipe_dir::RecipeDir;

/// Logical name of where wheels are published.
pub(super) const ORIGIN: &str = "pypi";

/// How often a build backend may name more requirements.
const ASKS: usize = 3;

/// Exit status of the driver when the backend names requirements that are not there.
const UNMET: i32 = 75;
/// What the driver writes before each of them.
const REQUIRES: &str = "kiln-requires: ";
/// The plan of a rebuild of `target`; `asked` are requirements that the build backend is known to name.
pub(super) fn plan(
    rebuilding: &Rebuilding<'_, '_>,
    target: &Target,
    asked: &[String],
) -> Result<Planned, RebuildError> {
    match planned(rebuilding, target, asked) {
        Err(RebuildError::Wheel(WheelError::Missing(missing))) => {
            let rebuilt = Rebuilt { missing, settings: rebuilding.settings.told(), ..Rebuilt::new(target.to_string()) };
            let report = super::reference::inconclusive(target.to_string(), ORIGIN.into(), rebuilt);
            Ok(Planned::Inconclusive(Box::new(report)))
        }
        Err(RebuildError::Pin { target: name, source }) => match missing_pin(&source) {
            Some(missing) => {
                let rebuilt = Rebuilt { missing, ..Rebuilt::new(target.to_string()) };
                let report = super::reference::inconclusive(target.to_string(), ORIGIN.into(), rebuilt);
                Ok(Planned::Inconclusive(Box::new(report)))
            }
            None => Err(RebuildError::Pin { target: name, source }),
        },
        other => other,
    }
}

/// Requirements that the build backend asked for and that were not there, if that is why a build failed.
fn asked(report: &Report) -> Option<Vec<String>> {
    let failure = report.outcomes.first()?.failure.as_ref()?;
    let named = failure.log_tail.lines().filter_map(|line| line.strip_prefix(REQUIRES));
    let named: Vec<String> = named.map(str::to_string).collect();
    (failure.exit == Some(UNMET) && !named.is_empty()).then_some(named)
}

impl Rebuilding<'_, '_> {
    /// Rebuilds a wheel. What its backend asks for on the way is pinned, and the build begun anew.
    pub(super) fn wheel(&self, target: &Target, again: Again) -> Result<Report, RebuildError> {
        let mut known: BTreeSet<String> = BTreeSet::new();
        loop {
            let asked_before: Vec<String> = known.iter().cloned().collect();
            let directory = match plan(self, target, &asked_before)? {
                Planned::At(directory) => directory,
                Planned::Inconclusive(report) => return Ok(*report),
            };
            let report = self.carried_out(&directory, again)?;
            match asked(&report) {
                Some(more) if known.len() < ASKS && !more.iter().all(|r| known.contains(r)) => known.extend(more),
                Some(_) | None => return Ok(report),
            }
        }
    }
}

fn planned(rebuilding: &Rebuilding<'_, '_>, target: &Target, asked: &[String]) -> Result<Planned, RebuildError> {
    let builder = rebuilding.builder;
    let index = Index::new(builder.archives);
    let found = match target {
        Target::Pypi { project, version } => {
            published::on_index(rebuilding, &index, &normalised(project), version.as_deref())?
        }
        Target::Wheel(path) => published::on_disk(rebuilding, &index, path)?,
        other => return Err(RebuildError::Unsupported { target: other.to_string() }),
    };
    let project = normalised(&found.name.distribution);
    let version = found.name.version.clone();
    let reference = Reference::open(&found.path, &found.name)?;
    let exact = published::version_of(&version)?;
    let page = index.project(&project)?;
    let of_version = |offered: &&Offered| offered.version == exact && offered.kind == OfferedKind::Sdist;
    let offered = page.iter().filter(of_version).min_by_key(|o| !o.listed.name.ends_with(".tar.gz"));
    let Some(offered) = offered else {
        let missing =
            Missing { what: format!("sdist of {project} {version}"), tries: vec![published::files_of(&page, &exact)] };
        return Err(WheelError::Missing(vec![missing]).into());
    };
    let sdist_path = index.fetched("sdist", offered)?;
    let sdist = Sdist::open(&sdist_path, &offered.listed.name)?;
    let writer = Writer::of(&reference, &project, &sdist)?;

    let Place { suites, machine } = &found.place;
    let until = found.uploaded.or(offered.uploaded);
    let wishes = pinned::wishes(rebuilding, writer.on_the_index(), &sdist, asked);
    let chosen = Resolver { index: &index, machine, until }.resolve(&wishes)?;
    let packages = pinned::packages(rebuilding, machine, &found.name, &chosen);
    let environment = pinned::environment(rebuilding, target, suites, &packages)?;

    let (epoch, because) = reference.epoch;
    let zone = rebuilding.settings.time_zone.clone().unwrap_or_else(|| "UTC".into());
    let requirements = chosen
        .values()
        .map(|c| (c.project.clone(), (c.offered.version.to_string(), c.offered.listed.name.clone())))
        .collect();
    let text = recipe::text(&Facts {
        project: &project,
        version: &version,
        suites,
        packages: &packages,
        sdist: (&offered.listed.name, &sdist.directory),
        backend: &sdist.system.backend,
        backend_path: &sdist.system.backend_path,
        requirements: &requirements,
        known: asked,
        epoch: rebuilding.settings.epoch.unwrap_or(epoch),
        zone: &zone,
    });
    let draft = Draft::new(builder.store.root())?;
    draft.write("recipe.toml", text.as_bytes())?;
    let recipe = RecipeDir::open(draft.path())?;
    let mut inputs = BTreeMap::new();
    let source = pinned::input(rebuilding, &project, &version, offered, &sdist_path)?;
    inputs.insert(variable(recipe::SOURCE), source);
    for Chosen { project, offered, file } in chosen.values() {
        let locked = pinned::input(rebuilding, project, &offered.version.to_string(), offered, file)?;
        inputs.insert(variable(&recipe::variable(project)), locked);
    }
    recipe.write_lock(&Lock { pins: recipe.recipe.pins(), inputs, ..environment })?;

    let mut plan = Plan::new(target.to_string(), format!("{project} {version}"), ORIGIN);
    plan.settings = rebuilding.settings.told();
    // Which program wrote it is all that a reference records, and for a pure wheel all that there is.
    let on_the_index = writer.on_the_index().map(Backend::project);
    let all = chosen.keys().all(|project| Some(project.as_str()) == on_the_index);
    plan.environment = match all && found.name.is_pure() {
        true => EnvironmentKind::Recorded,
        false => EnvironmentKind::Current,
    };
    plan.notes = notes(&writer, epoch, because, until, &chosen);
    if !found.name.is_pure() && rebuilding.settings.packages.is_empty() {
        // No sdist says which, and an extension may do without a library that it does not find.
        plan.notes
            .push("compiled with CPython's headers alone; --package NAME adds a library's, such as libffi-dev".into());
    }
    let at = found.listed.then(|| PlannedPlace { archive: ORIGIN.into(), path: found.file_name.clone() });
    if !found.listed {
        draft.keep_beside(&found.file_name, &found.path)?;
    }
    let file = PlannedFile { sha256: found.sha256, size: Some(found.size), at };
    plan.published.insert(found.file_name, file);
    Ok(Planned::At(draft.finished(&plan)?))
}

/// The wheel of `made` that `published` was made from by giving it other tags, as auditwheel does for machine code: the only
/// one, if it is of the same release.
pub(super) fn counterpart(published: &str, made: &BTreeMap<String, Artifact>) -> Option<String> {
    let wanted: WheelName = published.parse().ok()?;
    let mut wheels = made.keys().filter_map(|name| Some((name, name.parse::<WheelName>().ok()?)));
    let (name, only) = wheels.next().filter(|_| wheels.next().is_none())?;
    let release = |name: &WheelName| Some((normalised(&name.distribution), published::version_of(&name.version).ok()?));
    (release(&only)? == release(&wanted)?).then(|| name.clone())
}

fn variable(text: &str) -> Variable {
    text.parse().expect("letters, digits and underscores, not starting with a digit")
}

/// What wrote the reference, and is to write again.
enum Writer {
    /// A program of the index, at the version that the reference records.
    Released(Backend),
    /// A program in the sdist itself (`backend-path` of PEP 517): its version is the source's, whatever the reference says.
    Own,
}

impl Writer {
    /// A backend that builds itself is not to be had before it is built; nor need one be known that its sdist brings along.
    fn of(reference: &Reference, project: &str, sdist: &Sdist) -> Result<Self, WheelError> {
        let brings_one = !sdist.system.backend_path.is_empty();
        match &reference.backend {
            Some(backend) if brings_one && backend.project() == project => Ok(Self::Own),
            Some(backend) => Ok(Self::Released(backend.clone())),
            None if brings_one => Ok(Self::Own),
            None => Err(WheelError::Missing(vec![unknown_generator(reference)])),
        }
    }

    fn on_the_index(&self) -> Option<&Backend> {
        match self {
            Self::Released(backend) => Some(backend),
            Self::Own => None,
        }
    }
}

fn unknown_generator(reference: &Reference) -> Missing {
    Missing {
        what: format!("the program that wrote {}: Generator {:?} is not known", reference.name, reference.generators),
        tries: vec![format!("kiln knows {}", Backend::known().join(", "))],
    }
}

fn notes(
    writer: &Writer,
    epoch: Epoch,
    because: Because,
    until: Option<Timestamp>,
    chosen: &BTreeMap<String, Chosen>,
) -> Vec<String> {
    let clock = match (epoch, because) {
        (Epoch::At(at), Because::OneTime) => {
            format!("SOURCE_DATE_EPOCH={at}: all members of the reference have that time")
        }
        (Epoch::At(at), _) => format!("SOURCE_DATE_EPOCH={at}: the latest of the times in the reference"),
        (Epoch::Unset, _) => "no SOURCE_DATE_EPOCH: RECORD has the time that flit gives it without one".into(),
    };
    let had: Vec<String> = chosen.values().map(|c| format!("{} {}", c.project, c.offered.version)).collect();
    let when = match until {
        Some(until) => format!("as the index was at {until}"),
        None => "as the index is now: it does not say when files were uploaded".into(),
    };
    let wrote = match writer {
        Writer::Released(backend) => format!("written by {} {}", backend.project(), backend.version),
        Writer::Own => "written by the build backend in its own source".into(),
    };
    match had.is_empty() {
        true => vec![clock, format!("{wrote}; built with nothing else")],
        false => vec![clock, format!("{wrote}; built with {}, {when}", had.join(", "))],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiln_model::digest::Digest;
    use kiln_model::outcome::EntryPath;

    #[test]
    fn the_counterpart_is_the_only_wheel_of_the_release_whatever_its_tags() {
        let artifact = |name: &str| Artifact {
            sha256: Digest::of(name),
            size: 1,
            output: "out".parse().unwrap(),
            path: EntryPath::from(name),
            normalised: None,
            held_against: None,
        };
        let found = |made: &[&str]| {
            let made = made.iter().map(|name| (name.to_string(), artifact(name))).collect();
            counterpart("a_b-1.0-cp311-cp311-manylinux_2_17_x86_64.whl", &made)
        };
        let ours = "A.b-1-cp311-cp311-linux_x86_64.whl";
        assert_eq!(found(&[ours, "log.txt"]).as_deref(), Some(ours));
        assert_eq!(found(&[ours, "a_b-1.0-py3-none-any.whl"]), None, "two of them");
        assert_eq!(found(&["a_b-1.1-cp311-cp311-linux_x86_64.whl"]), None, "another release");
        assert_eq!(found(&["c-1.0-cp311-cp311-linux_x86_64.whl"]), None, "another project");
        assert_eq!(found(&[]), None);
    }
}
