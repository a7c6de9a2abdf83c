//! The facts of a bill of materials, gathered from a recipe, its lock, the environment and what the store knows of a build.
//!
//! What is gathered is what every rebuilder of the same derivation finds: no path of this host, no time, no mirror. Packages
//! are those that the environment's own database lists, held against the lock; licences are what their copyright files say.
//! Printing is `kiln_model::format`'s. Nothing here is fetched or built: what is not in the store is an error that says so.

pub mod affected;
mod inputs;
mod packages;
mod published;
mod root;

use std::collections::BTreeMap;
use std::path::PathBuf;

use kiln_model::digest::Digest;
use kiln_model::format::control::ControlError;
use kiln_model::format::purl::{Purl, PurlError};
use kiln_model::lower;
use kiln_model::outcome::{Moment, Outcome, Status};
use kiln_model::sbom::{Build, Component, Kind as ComponentKind, Licence, Party, RunDetails, Sbom};

use crate::build::graph::{Graph, Locked, Node, Origin};
use crate::exit::Kind;
use crate::store::{Store, StoreError, Trust};

pub use packages::{Installed, installed};
pub use root::Root;

/// Why no bill can be written.
#[derive(Debug, thiserror::Error)]
pub enum SbomError {
    /// The build did not make anything.
    #[error("{target} was not built ({status}): there is nothing to list")]
    NotBuilt {
        /// The recipe or derivation.
        target: String,
        /// How it ended.
        status: &'static str,
    },
    /// The environment is not there to be read.
    #[error(
        "the environment of {target} is not in the store any more: run `kiln shell {target}` once, which assembles it again"
    )]
    NoEnvironment {
        /// The recipe or derivation.
        target: String,
    },
    /// A file of the environment cannot be read.
    #[error("reading /{path} of the environment")]
    Read {
        /// Which.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// A directory of evidence cannot be read.
    #[error("reading {path}")]
    Evidence {
        /// Which file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// dpkg's status cannot be read.
    #[error("dpkg's status in the environment")]
    Status(#[from] ControlError),
    /// The lock and the environment do not have the same packages.
    #[error("{package} is in the {present} of {target} and not in its {absent}")]
    Packages {
        /// The recipe.
        target: String,
        /// The package.
        package: String,
        /// Where it is.
        present: &'static str,
        /// Where it is not.
        absent: &'static str,
    },
    /// A name that no package URL can hold.
    #[error(transparent)]
    Purl(#[from] PurlError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl SbomError {
    /// What sort of error it is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::NotBuilt { .. } | Self::NoEnvironment { .. } | Self::Purl(_) => Kind::BadInput,
            Self::Packages { .. } | Self::Status(_) => Kind::Tampered,
            Self::Read { .. } | Self::Evidence { .. } => Kind::Host,
            Self::Store(error) => error.kind(),
        }
    }
}

/// Whether what one machine saw goes into the bill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Run {
    /// It does: the bill is this machine's own.
    Told,
    /// It does not: every rebuilder writes the same bill.
    LeftOut,
}

/// The bill of node `index` of `graph`, whose build had this outcome.
pub fn gather(
    store: &Store,
    graph: &Graph,
    index: usize,
    outcome: &Outcome,
    run: Run,
    trust: Trust,
) -> Result<Sbom, SbomError> {
    let node = &graph.nodes[index];
    let target = || node.shown.display().to_string();
    if outcome.status != Status::Built {
        return Err(SbomError::NotBuilt { target: target(), status: outcome.status.as_str() });
    }
    let locked = locked(node);
    let author = author(node);
    let product = product(node, &author)?;
    let outputs = outputs(outcome, &product);
    let (mut packages, mut depends) = (Vec::new(), BTreeMap::new());
    let environment = environment(store, node, outcome, trust)?;
    if let Some((_, root)) = &environment {
        (packages, depends) = packages::gather(root, locked.map(|locked| &locked.lock), &target)?;
    }
    let (inputs, files) = inputs::gather(store, graph, node, outcome, &author)?;
    depends.extend(files);
    let moment = moment(node);
    let finished = outcome.started.unix().saturating_add(outcome.seconds.as_secs());
    // Without a log nothing ran here.
    let run = (run == Run::Told && outcome.log.is_some())
        .then(|| RunDetails { started: outcome.started, finished: Moment::from_unix(finished) });
    Ok(Sbom {
        product,
        outputs,
        inputs,
        packages,
        depends,
        build: build(node, environment.map(|(nar_hash, _)| nar_hash)),
        author,
        moment,
        kiln: env!("CARGO_PKG_VERSION").into(),
        run,
    })
}

fn locked(node: &Node) -> Option<&Locked> {
    match &node.origin {
        Origin::Recipe(locked) => Some(locked),
        Origin::Derivation => None,
    }
}

/// Who wrote the recipe: its maintainer, or whoever that was.
fn author(node: &Node) -> Party {
    match node.recipe() {
        Some(recipe) => recipe
            .maintainer
            .as_deref()
            .and_then(Party::maintainer)
            .unwrap_or_else(|| Party::organization(&format!("authors of the recipe {}", recipe.name))),
        None => Party::organization(&format!("authors of the derivation {}", node.derivation.name)),
    }
}

fn product(node: &Node, author: &Party) -> Result<Component, SbomError> {
    let (name, version) = match node.recipe() {
        Some(recipe) => (recipe.name.as_str(), recipe.version.as_str().to_string()),
        // What has no version of its own is told by its id.
        None => (node.derivation.name.as_str(), node.path.hash_part().to_string()),
    };
    let mut product = Component::new("product", ComponentKind::Product, name, &version, author.clone());
    product.purl = Some(Purl::generic(name, &version)?);
    if let Some(recipe) = node.recipe() {
        product.licence = Licence::of_expression(&recipe.license);
        product.description = recipe.description.clone();
    }
    Ok(product)
}

/// Trees first, as NARs, then the files that are published as files.
fn outputs(outcome: &Outcome, product: &Component) -> Vec<Component> {
    let made = |id: String, kind, name: &str, sha256| {
        let mut one = Component::new(&id, kind, name, &product.version, product.supplier.clone());
        one.sha256 = Some(sha256);
        one.licence = product.licence.clone();
        one
    };
    let trees = outcome.outputs.iter().map(|(name, output)| {
        made(format!("output-{name}"), ComponentKind::Tree, &format!("{name}.nar"), output.nar_hash.digest())
    });
    let files = outcome
        .artifacts
        .iter()
        .map(|(name, artifact)| made(format!("artifact-{name}"), ComponentKind::File, name, artifact.sha256));
    trees.chain(files).collect()
}

fn build(node: &Node, environment: Option<kiln_model::digest::NarHash>) -> Build {
    let script = lower::entered(&node.derivation).map(|entered| String::from_utf8_lossy(entered.script).into_owned());
    let parameters = node.recipe().map(|recipe| recipe.build.env.clone()).unwrap_or_default();
    Build {
        derivation: node.path.to_string(),
        derivation_sha256: Digest::of(node.derivation.print()),
        script,
        parameters,
        recipe: locked(node)
            .and_then(|locked| std::fs::read(locked.recipe.dir.join("recipe.toml")).ok())
            .map(Digest::of),
        system: node.derivation.system.clone(),
        environment,
    }
}

/// The environment of `node`: its digest, and its files.
fn environment(
    store: &Store,
    node: &Node,
    outcome: &Outcome,
    trust: Trust,
) -> Result<Option<(kiln_model::digest::NarHash, Root)>, SbomError> {
    let Some(path) = node.environment() else { return Ok(None) };
    let missing = || SbomError::NoEnvironment { target: node.shown.display().to_string() };
    let known = store.path_info(&path)?.map(|info| info.nar_hash);
    let locked = locked(node).map(|locked| locked.lock.environment.nar_hash);
    let nar_hash = locked.or_else(|| outcome.inputs.get(&path.to_string()).copied()).or(known).ok_or_else(missing)?;
    let place: PathBuf = match store.environment(&nar_hash, trust)? {
        Some(place) => place,
        None if known == Some(nar_hash) => {
            store.check(&path, trust)?;
            store.physical(&path)
        }
        None => return Err(missing()),
    };
    Ok(Some((nar_hash, Root::open(&place).map_err(|source| SbomError::Read { path: String::new(), source })?)))
}

/// The time that all rebuilders agree on: what the build is told, else that of the newest index that its packages are from.
fn moment(node: &Node) -> Moment {
    let told = node.derivation.environment.get(&b"SOURCE_DATE_EPOCH"[..]);
    let told = told.and_then(|value| std::str::from_utf8(value).ok()?.parse().ok());
    let newest = || locked(node)?.lock.suites.iter().filter_map(|suite| suite.date.parse::<Moment>().ok()).max();
    told.map(Moment::from_unix).or_else(newest).unwrap_or(Moment::from_unix(0))
}
