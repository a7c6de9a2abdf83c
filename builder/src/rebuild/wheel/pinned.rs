//! What the build of a wheel is made from, as a lock has it: the environment with CPython, the sdist, and the wheels of the
//! build requirements.

use std::collections::BTreeMap;
use std::path::Path;

use kiln_model::digest::{Digest, NarHash};
use kiln_model::lock::{Lock, LockedFile, LockedInput};
use kiln_model::lower;
use kiln_model::name;
use kiln_model::wheel::file_name::Machine;
use kiln_model::wheel::{Backend, WheelName};

use super::WheelError;
use super::index::{self, Offered, OfferedKind};
use super::published::size_of;
use super::recipe;
use super::requirements::Chosen;
use super::sdist::Sdist;
use crate::pin::recipe::{Pinning, Scope};
use crate::rebuild::rebuilding::{RebuildError, Rebuilding};
use crate::rebuild::target::Target;
use crate::recipe_dir::RecipeDir;

/// What every build of a wheel has: CPython as its publishers had it, whole, and the files of time zones.
const PACKAGES: &[&str] = &["python3", "python3-distutils", "tzdata"];
/// The same where CPython has no distutils any more.
const PACKAGES_LATER: &[&str] = &["python3", "tzdata"];
/// Besides, for a wheel with machine code.
const COMPILER: &[&str] = &["build-essential", "python3-dev"];

/// Besides, where a build requirement has machine code: the libraries that every `manylinux` wheel may count on (PEP 600)
/// and that python3 does not bring along.
const LIBRARIES: &[&str] = &["libstdc++6"];

/// What the environment of wheel `name` has, if it is built with `chosen`.
pub(super) fn packages(
    rebuilding: &Rebuilding<'_, '_>,
    machine: &Machine,
    name: &WheelName,
    chosen: &BTreeMap<String, Chosen>,
) -> Vec<String> {
    let is_code = |chosen: &Chosen| matches!(&chosen.offered.kind, OfferedKind::Wheel(name) if !name.is_pure());
    let base = if machine.minor < 12 { PACKAGES } else { PACKAGES_LATER };
    let further = match name.is_pure() {
        false => COMPILER,
        true if chosen.values().any(is_code) => LIBRARIES,
        true => &[],
    };
    let mut packages: Vec<String> = base.iter().chain(further).map(|name| name.to_string()).collect();
    packages.extend(
        rebuilding.settings.packages.iter().filter(|name| !packages.contains(name)).cloned().collect::<Vec<_>>(),
    );
    packages
}

/// What the build needs, and who says so.
pub(super) fn wishes(
    rebuilding: &Rebuilding<'_, '_>,
    backend: Option<&Backend>,
    sdist: &Sdist,
    asked: &[String],
) -> Vec<(String, String)> {
    let mut wishes: Vec<(String, String)> = Vec::new();
    let recorded = backend.map(Backend::requirements).unwrap_or_default();
    wishes.extend(recorded.into_iter().map(|text| ("the reference's WHEEL".to_string(), text)));
    wishes.extend(sdist.system.requires.iter().map(|text| ("the sdist's build-system".to_string(), text.clone())));
    wishes.extend(asked.iter().map(|text| ("the build backend's hook".to_string(), text.clone())));
    let pins = rebuilding.settings.pins.iter();
    // A bound brings its own operator.
    let requirement = |(name, version): (&String, &String)| match version.starts_with('<') {
        true => format!("{name}{version}"),
        false => format!("{name}=={version}"),
    };
    wishes.extend(pins.map(|pin| ("--pin".to_string(), requirement(pin))));
    wishes
}

/// The lock of an environment with CPython. One that was made before is taken as it is: which revision of it a wheel is built
/// by hardly shows in the wheel, and what is locked can be had.
pub(super) fn environment(
    rebuilding: &Rebuilding<'_, '_>,
    target: &Target,
    suites: &[String],
    packages: &[String],
) -> Result<Lock, RebuildError> {
    let builder = rebuilding.builder;
    let text = recipe::environment(suites, packages);
    // One for each list of packages; most wheels share one.
    let further = match [PACKAGES, PACKAGES_LATER].iter().any(|base| *base == packages) {
        true => String::new(),
        false => format!("-{}", &Digest::of(packages.join(" ").as_bytes()).to_string()[..12]),
    };
    let name = name::sanitised(&format!("python-{}{further}", suites.join("-")));
    let directory = builder.store.root().join("rebuilds").join(name.as_str());
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
pub(super) fn input(
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
