//! Python wheels: from a published one to the plan of its rebuild.
//!
//! The reference says who wrote it and when; the index has its sdist and the program that wrote it. `reference` and `sdist` read
//! the two, `index` and `requirements` choose what the build needs as it was when the reference was uploaded, and `recipe` writes
//! down what is then built like any other recipe. Nothing here looks at what a rebuild gave.

mod archive;
mod index;
mod recipe;
mod reference;
mod requirements;
mod sdist;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use jiff::Timestamp;
use kiln_model::digest::{Digest, NarHash};
use kiln_model::format::dist_info::DistInfoError;
use kiln_model::format::pyproject::PyprojectError;
use kiln_model::format::record::RecordError;
use kiln_model::lock::{Lock, LockedFile, LockedInput};
use kiln_model::lower;
use kiln_model::name::Variable;
use kiln_model::report::{EnvironmentKind, Missing, Rebuilt, Report};
use kiln_model::wheel::file_name::{Fit, Machine, WheelNameError};
use kiln_model::wheel::times::{Because, Epoch};
use kiln_model::wheel::{Backend, WheelName};
use pep440_rs::Version;
use sha2::{Digest as _, Sha256};

pub use archive::ArchiveError;

use self::index::{Index, Offered, OfferedKind};
use self::recipe::Facts;
use self::reference::Reference;
use self::requirements::{Chosen, Resolver};
use self::sdist::Sdist;
use super::plan::{Draft, Plan, PlannedFile, PlannedPlace};
use super::rebuilding::{Planned, RebuildError, Rebuilding, missing_pin};
use super::target::Target;
use crate::exit::Kind;
use crate::fetch::FetchError;
use crate::fetch::listing::normalised;
use crate::pin::recipe::{Pinning, Scope};
use crate::recipe_dir::RecipeDir;

/// Logical name of where wheels are published.
const ORIGIN: &str = "pypi";

/// Suites whose CPython and C library are known, in the order in which a wheel's machine is looked for.
const SUITES: [(&str, u32, u32); 3] = [("bookworm", 11, 36), ("trixie", 13, 41), ("bullseye", 9, 31)];

/// What every build of a wheel has: CPython as its publishers had it, whole, and the files of time zones.
const PACKAGES: &[&str] = &["python3", "python3-distutils", "tzdata"];
/// The same where CPython has no distutils any more.
const PACKAGES_LATER: &[&str] = &["python3", "tzdata"];
/// Besides, for a wheel with machine code.
const COMPILER: &[&str] = &["build-essential", "python3-dev"];

/// How often a build backend may name more requirements.
const ASKS: usize = 3;

/// Exit status of the driver when the backend names requirements that are not there.
const UNMET: i32 = 75;
/// What the driver writes before each of them.
const REQUIRES: &str = "kiln-requires: ";

/// Why the rebuild of a wheel cannot be planned.
#[derive(Debug, thiserror::Error)]
pub enum WheelError {
    /// Not a wheel's file name.
    #[error(transparent)]
    Name(#[from] WheelNameError),
    /// Not a version (PEP 440).
    #[error("{text:?} is not a version; write one such as 3.7")]
    Version {
        /// As given.
        text: String,
    },
    /// A wheel or sdist is no sound archive.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// A member that every wheel has.
    #[error("{} is no wheel: it has no {member}", file.display())]
    Lacks {
        /// The wheel.
        file: PathBuf,
        /// The member.
        member: &'static str,
    },
    /// Two wheels in one.
    #[error("{} is no wheel: it has both {first} and {second}", file.display())]
    Twice {
        /// The wheel.
        file: PathBuf,
        /// One directory.
        first: String,
        /// Another.
        second: String,
    },
    /// A member of `.dist-info` is not what it must be.
    #[error("in {}, {member}", file.display())]
    DistInfo {
        /// The wheel.
        file: PathBuf,
        /// The member.
        member: String,
        /// What is wrong.
        source: DistInfoError,
    },
    /// Its `RECORD` is none.
    #[error("in RECORD of {}", file.display())]
    Record {
        /// The wheel.
        file: PathBuf,
        /// What is wrong.
        source: RecordError,
    },
    /// Its `RECORD` does not describe it.
    #[error("RECORD of {} does not describe it: {}", file.display(), violations.join("; "))]
    RecordLies {
        /// The wheel.
        file: PathBuf,
        /// What is not so; the first few.
        violations: Vec<String>,
    },
    /// Its metadata are of another project than its name.
    #[error("{} says in METADATA that it is {found:?}", file.display())]
    OtherName {
        /// The wheel.
        file: PathBuf,
        /// What it says.
        found: String,
    },
    /// No member has a time.
    #[error("{}: no member, or not RECORD, has a time that there is", file.display())]
    NoTimes {
        /// The wheel.
        file: PathBuf,
    },
    /// An sdist that cannot be unpacked safely.
    #[error("sdist {file} {what}")]
    Sdist {
        /// Its file name.
        file: String,
        /// What is wrong.
        what: String,
    },
    /// Its `pyproject.toml` is none.
    #[error("in pyproject.toml of sdist {file}")]
    Pyproject {
        /// The sdist's file name.
        file: String,
        /// What is wrong.
        source: PyprojectError,
    },
    /// Nothing in it says how it is built.
    #[error("sdist {file} has no build backend: neither a [build-system] in pyproject.toml nor a setup.py")]
    NoBackend {
        /// Its file name.
        file: String,
    },
    /// Not a requirement.
    #[error("requirement {requirement:?} of {by}: {what}")]
    Requirement {
        /// Who has it.
        by: String,
        /// As written.
        requirement: String,
        /// What is wrong.
        what: String,
    },
    /// Requirements that exclude each other whatever is chosen.
    #[error("build requirements did not settle after {rounds} rounds; pin some with --pin NAME=VERSION")]
    Unsettled {
        /// Rounds tried.
        rounds: usize,
    },
    /// A suite that is not known for its CPython.
    #[error("suite {suite:?}: kiln knows which CPython {} have", SUITES.map(|(suite, ..)| suite).join(", "))]
    Suite {
        /// The suite.
        suite: String,
    },
    /// A project's listing cannot be had.
    #[error("reading what the index has of {project}")]
    Listing {
        /// The project.
        project: String,
        /// Why.
        source: FetchError,
    },
    /// A project's listing cannot be understood.
    #[error("what the index has of {project} {what}")]
    NoListing {
        /// The project.
        project: String,
        /// What is wrong.
        what: String,
    },
    /// A file cannot be had.
    #[error("fetching {file}")]
    Fetch {
        /// The file.
        file: String,
        /// Why.
        source: FetchError,
    },
    /// Something is on no index: the rebuild is inconclusive.
    #[error("{}", .0.iter().map(|missing| missing.what.as_str()).collect::<Vec<_>>().join(", "))]
    Missing(Vec<Missing>),
}

impl WheelError {
    /// What sort of error it is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Archive(e) => e.kind(),
            Self::Listing { source, .. } | Self::Fetch { source, .. } => source.kind(),
            Self::NoListing { .. } => Kind::Host,
            Self::Missing(_) => Kind::Inconclusive,
            Self::Name(_)
            | Self::Version { .. }
            | Self::Lacks { .. }
            | Self::Twice { .. }
            | Self::DistInfo { .. }
            | Self::Record { .. }
            | Self::RecordLies { .. }
            | Self::OtherName { .. }
            | Self::NoTimes { .. }
            | Self::Sdist { .. }
            | Self::Pyproject { .. }
            | Self::NoBackend { .. }
            | Self::Requirement { .. }
            | Self::Unsettled { .. }
            | Self::Suite { .. } => Kind::BadInput,
        }
    }
}

/// The machine that a wheel is rebuilt on.
struct Place {
    suites: Vec<String>,
    machine: Machine,
}

/// The wheel that a rebuild is held against.
struct Published {
    name: WheelName,
    file_name: String,
    path: PathBuf,
    sha256: Digest,
    size: u64,
    uploaded: Option<Timestamp>,
    /// Whether an index has it; one that was given is kept beside the plan.
    listed: bool,
    place: Place,
}

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
pub(super) fn asked(report: &Report) -> Option<Vec<String>> {
    let failure = report.outcomes.first()?.failure.as_ref()?;
    let named = failure.log_tail.lines().filter_map(|line| line.strip_prefix(REQUIRES));
    let named: Vec<String> = named.map(str::to_string).collect();
    (failure.exit == Some(UNMET) && !named.is_empty()).then_some(named)
}

impl Rebuilding<'_, '_> {
    /// Rebuilds a wheel. What its backend asks for on the way is pinned, and the build begun anew.
    pub(super) fn wheel(&self, target: &Target) -> Result<Report, RebuildError> {
        let mut known: BTreeSet<String> = BTreeSet::new();
        loop {
            let asked_before: Vec<String> = known.iter().cloned().collect();
            let directory = match plan(self, target, &asked_before)? {
                Planned::At(directory) => directory,
                Planned::Inconclusive(report) => return Ok(*report),
            };
            let report = self.carried_out(&directory)?;
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
    let published = match target {
        Target::Pypi { project, version } => on_index(rebuilding, &index, &normalised(project), version)?,
        Target::Wheel(path) => on_disk(rebuilding, &index, path)?,
        other => return Err(RebuildError::Unsupported { target: other.to_string() }),
    };
    let project = normalised(&published.name.distribution);
    let version = published.name.version.clone();
    let reference = Reference::open(&published.path, &published.name)?;
    let Some(backend) = reference.backend.clone() else {
        return Err(WheelError::Missing(vec![unknown_generator(&reference)]).into());
    };
    let exact = version_of(&version)?;
    let page = index.project(&project)?;
    let of_version = |offered: &&Offered| offered.version == exact && offered.kind == OfferedKind::Sdist;
    let offered = page.iter().filter(of_version).min_by_key(|o| !o.listed.name.ends_with(".tar.gz"));
    let Some(offered) = offered else {
        let missing = Missing { what: format!("sdist of {project} {version}"), tries: vec![files_of(&page, &exact)] };
        return Err(WheelError::Missing(vec![missing]).into());
    };
    let sdist_path = index.fetched("sdist", offered)?;
    let sdist = Sdist::open(&sdist_path, &offered.listed.name)?;

    let Place { suites, machine } = &published.place;
    let packages = packages(machine, &published.name);
    let environment = environment(rebuilding, target, suites, &packages)?;

    let until = published.uploaded.or(offered.uploaded);
    let wishes = wishes(rebuilding, &backend, &sdist, asked);
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
    let source = input(rebuilding, &project, &version, offered, &sdist_path)?;
    inputs.insert(variable(recipe::SOURCE), source);
    for Chosen { project, offered, file } in chosen.values() {
        let locked = input(rebuilding, project, &offered.version.to_string(), offered, file)?;
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
    let at = published.listed.then(|| PlannedPlace { archive: ORIGIN.into(), path: published.file_name.clone() });
    if !published.listed {
        draft.keep_beside(&published.file_name, &published.path)?;
    }
    let file = PlannedFile { sha256: published.sha256, size: Some(published.size), at };
    plan.published.insert(published.file_name, file);
    Ok(Planned::At(draft.keep(&plan)?))
}

fn version_of(text: &str) -> Result<Version, WheelError> {
    Version::from_str(text).map_err(|_| WheelError::Version { text: text.into() })
}

fn variable(text: &str) -> Variable {
    text.parse().expect("letters, digits and underscores, not starting with a digit")
}

/// Machines to look for a wheel for: those of the suites that the user named, else of all that are known.
fn places(rebuilding: &Rebuilding<'_, '_>) -> Result<Vec<Place>, WheelError> {
    let place = |suites: Vec<String>, (_, minor, glibc): (&str, u32, u32)| Place {
        suites,
        machine: Machine { minor, architecture: "x86_64".into(), glibc },
    };
    let Some(first) = rebuilding.suites.first() else {
        return Ok(SUITES.iter().map(|known| place(vec![known.0.to_string()], *known)).collect());
    };
    let base = first.split('-').next().unwrap_or(first);
    match SUITES.iter().find(|(suite, ..)| *suite == base) {
        Some(known) => Ok(vec![place(rebuilding.suites.clone(), *known)]),
        None => Err(WheelError::Suite { suite: first.clone() }),
    }
}

fn packages(machine: &Machine, name: &WheelName) -> Vec<&'static str> {
    let mut packages = if machine.minor < 12 { PACKAGES } else { PACKAGES_LATER }.to_vec();
    if !name.is_pure() {
        packages.extend(COMPILER);
    }
    packages
}

/// The wheel of a release that suits best the first machine that any suits.
fn on_index(
    rebuilding: &Rebuilding<'_, '_>,
    index: &Index<'_>,
    project: &str,
    version: &str,
) -> Result<Published, WheelError> {
    let exact = version_of(version)?;
    let page = index.project(project)?;
    for place in places(rebuilding)? {
        let fit = |offered: &Offered| -> Option<Fit> {
            match &offered.kind {
                OfferedKind::Wheel(name) => name.fit(&place.machine),
                OfferedKind::Sdist => None,
            }
        };
        let of_version = |offered: &&Offered| offered.version == exact && fit(offered).is_some();
        // Of several builds the last counts, as for an installer; of equals any, but always the same one.
        let best = page.iter().filter(of_version).max_by_key(|o| (fit(o), o.uploaded, o.listed.name.clone()));
        if let Some(offered) = best
            && let OfferedKind::Wheel(name) = &offered.kind
        {
            let path = index.fetched("reference", offered)?;
            let wanted = index::wanted(offered)?;
            let size = size_of(&path)?;
            return Ok(Published {
                name: name.clone(),
                file_name: offered.listed.name.clone(),
                path,
                sha256: wanted.sha256,
                size,
                uploaded: offered.uploaded,
                listed: true,
                place,
            });
        }
    }
    let what =
        format!("wheel of {project} {version} for a machine that kiln has: x86-64, CPython of {}", suites(rebuilding));
    Err(WheelError::Missing(vec![Missing { what, tries: vec![files_of(&page, &exact)] }]))
}

fn suites(rebuilding: &Rebuilding<'_, '_>) -> String {
    match rebuilding.suites.is_empty() {
        true => SUITES.map(|(suite, ..)| suite).join(", "),
        false => rebuilding.suites.join(", "),
    }
}

/// A wheel that was given; its release on the index, if there is one, says when it was uploaded.
fn on_disk(rebuilding: &Rebuilding<'_, '_>, index: &Index<'_>, path: &Path) -> Result<Published, WheelError> {
    let file_name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_string();
    let name: WheelName = file_name.parse()?;
    let all = places(rebuilding)?;
    let place = all.into_iter().find(|place| name.fit(&place.machine).is_some());
    let Some(place) = place else {
        let what = format!("a machine that {file_name} runs on: kiln has x86-64, CPython of {}", suites(rebuilding));
        return Err(WheelError::Missing(vec![Missing { what, tries: Vec::new() }]));
    };
    // Its own soundness comes before anything that is fetched for it.
    Reference::open(path, &name)?;
    let (sha256, size) = digest_of(path)?;
    let page = index.project(&normalised(&name.distribution))?;
    let listed = page.iter().find(|offered| offered.listed.name == file_name);
    let same = listed.is_some_and(|offered| offered.listed.sha256 == Some(sha256));
    Ok(Published {
        uploaded: listed.and_then(|offered| offered.uploaded),
        name,
        file_name,
        path: path.into(),
        sha256,
        size,
        listed: same,
        place,
    })
}

fn size_of(path: &Path) -> Result<u64, ArchiveError> {
    let meta = std::fs::metadata(path).map_err(|source| ArchiveError::Read { path: path.into(), source })?;
    Ok(meta.len())
}

fn digest_of(path: &Path) -> Result<(Digest, u64), ArchiveError> {
    let read = |source| ArchiveError::Read { path: path.into(), source };
    let (mut hasher, mut size, mut buffer) = (Sha256::new(), 0, [0; 64 << 10]);
    let mut file = std::fs::File::open(path).map_err(read)?;
    loop {
        match file.read(&mut buffer).map_err(read)? {
            0 => break,
            count => {
                hasher.update(&buffer[..count]);
                size += count as u64;
            }
        }
    }
    Ok((Digest::from_bytes(hasher.finalize().into()), size))
}

/// What a version has on the index, for messages.
fn files_of(page: &[Offered], version: &Version) -> String {
    let files: Vec<&str> =
        page.iter().filter(|o| o.version == *version).map(|o| o.listed.name.as_str()).take(8).collect();
    match files.is_empty() {
        false => format!("the index has {}", files.join(", ")),
        true => {
            let versions: BTreeSet<&Version> = page.iter().map(|o| &o.version).collect();
            let newest: Vec<String> = versions.iter().rev().take(8).map(ToString::to_string).collect();
            format!("the index has no such version; the newest are {}", newest.join(", "))
        }
    }
}

fn unknown_generator(reference: &Reference) -> Missing {
    Missing {
        what: format!("the program that wrote {}: Generator {:?} is not known", reference.name, reference.generators),
        tries: vec![format!("kiln knows {}", Backend::known().join(", "))],
    }
}

/// What the build needs, and who says so.
fn wishes(
    rebuilding: &Rebuilding<'_, '_>,
    backend: &Backend,
    sdist: &Sdist,
    asked: &[String],
) -> Vec<(String, String)> {
    let mut wishes: Vec<(String, String)> = Vec::new();
    wishes.extend(backend.requirements().into_iter().map(|text| ("the reference's WHEEL".to_string(), text)));
    wishes.extend(sdist.system.requires.iter().map(|text| ("the sdist's build-system".to_string(), text.clone())));
    wishes.extend(asked.iter().map(|text| ("the build backend's hook".to_string(), text.clone())));
    let pins = rebuilding.settings.pins.iter();
    wishes.extend(pins.map(|(name, version)| ("--pin".to_string(), format!("{name}=={version}"))));
    wishes
}

/// The lock of an environment with CPython. One that was made before is taken as it is: which revision of it a wheel is built
/// by hardly shows in the wheel, and what is locked can be had.
fn environment(
    rebuilding: &Rebuilding<'_, '_>,
    target: &Target,
    suites: &[String],
    packages: &[&str],
) -> Result<Lock, RebuildError> {
    let builder = rebuilding.builder;
    let text = recipe::environment(suites, packages);
    let name = format!("python-{}", &Digest::of(&text).to_string()[..12]);
    let directory = builder.store.root().join("rebuilds").join(name);
    let io = |act| {
        let path = directory.clone();
        move |source| RebuildError::Io { act, path, source }
    };
    std::fs::create_dir_all(&directory).map_err(io("creating"))?;
    std::fs::write(directory.join("recipe.toml"), text).map_err(io("writing a recipe to"))?;
    let recipe = RecipeDir::open(&directory)?;
    if let Ok(Some(lock)) = recipe.lock_if_any()
        && lock.pins == recipe.recipe.pins()
        && builder.environment(&recipe.shown.display().to_string(), &lock).is_ok()
    {
        return Ok(lock);
    }
    let pinning = Pinning {
        builder,
        clock: rebuilding.clock,
        keyrings: rebuilding.keyrings.clone(),
        freshness: rebuilding.freshness,
        network: rebuilding.network,
        indices: None,
    };
    let pin = |source| RebuildError::Pin { target: target.to_string(), source: Box::new(source) };
    let lock = pinning.lock(&recipe, None, &Scope::Everything).map_err(pin)?;
    recipe.write_lock(&lock)?;
    Ok(lock)
}

/// A file of a release as an input: added to the store, so that its directory's digest is known.
fn input(
    rebuilding: &Rebuilding<'_, '_>,
    project: &str,
    version: &str,
    offered: &Offered,
    file: &Path,
) -> Result<LockedInput, RebuildError> {
    let wanted = index::wanted(offered)?;
    let locked = |nar_hash| LockedInput::Pypi {
        project: project.into(),
        version: version.into(),
        nar_hash,
        files: vec![LockedFile { path: wanted.path.clone(), size: 0, sha256: wanted.sha256 }],
    };
    let size = size_of(file).map_err(WheelError::from)?;
    let name = lower::input_name(&locked(NarHash::new(Digest::of(b""))));
    let added = rebuilding.builder.store.add_files(&name, &[(wanted.path.clone(), file.to_path_buf())])?;
    let LockedInput::Pypi { project, version, nar_hash, mut files } = locked(added.info.nar_hash) else {
        unreachable!("made right above as a Pypi input")
    };
    files[0].size = size;
    Ok(LockedInput::Pypi { project, version, nar_hash, files })
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
