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
use kiln_model::report::{EnvironmentKind, Missing, Rebuilt, Report};
use kiln_model::wheel::Backend;
use kiln_model::wheel::times::{Because, Epoch};

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
        Target::Pypi { project, version } => published::on_index(rebuilding, &index, &normalised(project), version)?,
        Target::Wheel(path) => published::on_disk(rebuilding, &index, path)?,
        other => return Err(RebuildError::Unsupported { target: other.to_string() }),
    };
    let project = normalised(&found.name.distribution);
    let version = found.name.version.clone();
    let reference = Reference::open(&found.path, &found.name)?;
    let Some(backend) = reference.backend.clone() else {
        return Err(WheelError::Missing(vec![unknown_generator(&reference)]).into());
    };
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

    let Place { suites, machine } = &found.place;
    let packages = pinned::packages(machine, &found.name);
    let environment = pinned::environment(rebuilding, target, suites, &packages)?;

    let until = found.uploaded.or(offered.uploaded);
    let wishes = pinned::wishes(rebuilding, &backend, &sdist, asked);
    let chosen = Resolver { index: &index, machine, until }.resolve(&wishes)?;

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
    plan.environment = match chosen.keys().all(|project| project == backend.project()) {
        // The program that wrote the reference is all that the reference records, and all that there is.
        true => EnvironmentKind::Recorded,
        false => EnvironmentKind::Current,
    };
    plan.notes = notes(&backend, epoch, because, until, &chosen);
    let at = found.listed.then(|| PlannedPlace { archive: ORIGIN.into(), path: found.file_name.clone() });
    if !found.listed {
        draft.keep_beside(&found.file_name, &found.path)?;
    }
    let file = PlannedFile { sha256: found.sha256, size: Some(found.size), at };
    plan.published.insert(found.file_name, file);
    Ok(Planned::At(draft.finished(&plan)?))
}

fn variable(text: &str) -> Variable {
    text.parse().expect("letters, digits and underscores, not starting with a digit")
}

fn unknown_generator(reference: &Reference) -> Missing {
    Missing {
        what: format!("the program that wrote {}: Generator {:?} is not known", reference.name, reference.generators),
        tries: vec![format!("kiln knows {}", Backend::known().join(", "))],
    }
}

fn notes(
    backend: &Backend,
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
    let wrote = format!("written by {} {}", backend.project(), backend.version);
    vec![clock, format!("{wrote}; built with {}, {when}", had.join(", "))]
}
