//! Derivation → outcome: builds run in sandboxes, in the order that they need each other.
//!
//! `graph` reads recipes and lowers them, `provide` brings inputs and environments into the store, `sandbox` says what a
//! build's sandbox is, `run` is one build, `plan` says what has to be built at all, and [`Builder::realise`] takes from the
//! store and from caches what is there and builds the rest in parallel. Outcomes are values, failed builds included; errors are what this host could not do.

mod ahead;
pub mod artifact;
mod enter;
mod fetched;
mod fixed;
mod float;
pub mod graph;
pub mod host;
mod plan;
pub mod provide;
pub mod run;
pub mod sandbox;
pub mod schedule;
mod transcript;

use std::num::{NonZeroU32, NonZeroUsize};
use std::path::{Path, PathBuf};

use kiln_model::contract::ContractError;
use kiln_model::derivation::DerivationError;
use kiln_model::store_path::StorePath;
use kiln_sandbox::{BadSpec, Host, Launcher, PlanError, Refusal, SetupError, SlotError};

use crate::environment::EnvironmentError;
use crate::event::Events;
use crate::exit::Kind;
use crate::fetch::{Archives, FetchError, Network};
use crate::nix::{CacheError, Substituter};
use crate::store::{Store, StoreError};

pub use float::{Placed, Resolved, Target};
pub use run::{KeepFailed, Run};
pub use schedule::Realised;

/// What builds are made with. Shared by all threads.
pub struct Builder<'a> {
    /// Where everything is kept.
    pub store: &'a Store,
    /// Where bytes come from.
    pub archives: &'a dyn Archives,
    /// Where outputs may be had that others built; none if everything is to be built here.
    pub caches: Option<&'a Substituter<'a>>,
    /// Starts sandboxes.
    pub launcher: &'a Launcher,
    /// What this kernel offers.
    pub host: &'a Host,
    /// Who is told of progress.
    pub events: Events<'a>,
    /// How builds are run.
    pub settings: Settings,
}

/// How builds are run.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Builds at once.
    pub jobs: NonZeroUsize,
    /// `NIX_BUILD_CORES` of an unvaried build: configuration, never this host's count.
    pub cores: NonZeroU32,
    /// Bytes that all processes of a build may use together; a host that cannot hold them to it is refused. Without, it is
    /// three quarters of the host's where a control group of version 2 can be had.
    pub memory: Option<u64>,
    /// Whether what a failed build left stays.
    pub keep_failed: KeepFailed,
    /// Whether bytes of inputs are read before each use.
    pub inputs: Inputs,
    /// Whether programs that bring inputs may use the network.
    pub network: Network,
    /// Where a build's log is also written while it runs.
    pub echo: Option<&'static std::io::Stderr>,
}

/// How inputs are verified on use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inputs {
    /// By the stat fingerprint recorded when the digest was taken.
    Fingerprint,
    /// By reading every byte.
    Bytes,
}

/// Why a build could not be run. A build that ran and failed is an outcome instead.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An input could not be had.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// What a derivation says is to be fetched could not be.
    #[error("fetching the output of {target}")]
    FetchUrl {
        /// The derivation.
        target: String,
        /// Why.
        source: FetchError,
    },
    /// An environment could not be assembled.
    #[error("assembling the environment of {recipe}")]
    Environment {
        /// The recipe.
        recipe: String,
        /// Why.
        source: EnvironmentError,
    },
    /// What was assembled or brought in is not what the lock says.
    #[error("{what} of {recipe} is not what its lock says: expected {expected}, found {found}{}", detail.as_deref().unwrap_or_default())]
    Digest {
        /// The recipe.
        recipe: String,
        /// Which input, or the environment.
        what: String,
        /// The lock's digest.
        expected: String,
        /// What it is.
        found: String,
        /// Differing files, or what to do.
        detail: Option<String>,
    },
    /// A tree beside the recipe has changed since it was locked.
    #[error("inputs.{input} of {recipe} has changed since it was locked: run `kiln lock {recipe} --only {input}`")]
    PathChanged {
        /// The recipe.
        recipe: String,
        /// The input.
        input: String,
    },
    /// An input that only its own program can bring could not be had.
    #[error("bringing inputs.{input} of {recipe}")]
    Input {
        /// The recipe.
        recipe: String,
        /// The input.
        input: String,
        /// Why.
        source: Box<crate::pin::PinError>,
    },
    /// A derivation names a store path that is not here.
    #[error("{target} needs {path}, which is not in the store: import or substitute it first")]
    NoInput {
        /// The derivation.
        target: String,
        /// The path.
        path: StorePath,
    },
    /// A derivation asks for what a build cannot be given.
    #[error("in {target}")]
    Contract {
        /// The derivation.
        target: String,
        /// What it asks for.
        source: ContractError,
    },
    /// What a derivation that floats needs did not become what it says.
    #[error("resolving {target}")]
    Resolve {
        /// The derivation.
        target: String,
        /// Why.
        source: DerivationError,
    },
    /// A derivation that is built on an empty root.
    #[error("{target} enters no environment: there is no shell in its sandbox")]
    NoEnvironment {
        /// The derivation.
        target: String,
    },
    /// No failed build was kept.
    #[error("no failed build of {recipe} was kept: run `kiln build --keep-failed {recipe}` first")]
    NothingKept {
        /// The recipe.
        recipe: String,
    },
    /// Something that the target needs was not built.
    #[error("{needed} is needed by {target} and was not built: {message}")]
    Needs {
        /// The target's recipe.
        target: String,
        /// The recipe that failed.
        needed: String,
        /// How it failed.
        message: String,
    },
    /// A cache is wrong about something.
    #[error("substituting")]
    Substitute(#[from] CacheError),
    /// What was built cannot be read back.
    #[error(transparent)]
    Dump(#[from] crate::nix::DumpError),
    /// No sandbox can be what the derivation asks for.
    #[error("the sandbox that the derivation asks for cannot be")]
    Spec(#[from] BadSpec),
    /// This host cannot isolate.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The sandbox could not be set up.
    #[error("setting up the sandbox")]
    Setup(#[from] SetupError),
    /// No outer identity for a sandbox.
    #[error("preparing a sandbox's identity")]
    Slot(#[from] SlotError),
    /// A file of a build could not be made or read.
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

impl BuildError {
    /// What sort of error it is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Store(e) => e.kind(),
            Self::Fetch(e) => e.kind(),
            Self::FetchUrl { source, .. } => source.kind(),
            Self::Environment { source, .. } => source.kind(),
            Self::Digest { .. } => Kind::Tampered,
            Self::PathChanged { .. }
            | Self::NothingKept { .. }
            | Self::NoInput { .. }
            | Self::NoEnvironment { .. }
            | Self::Contract { .. }
            | Self::Resolve { .. }
            | Self::Spec(_) => Kind::BadInput,
            Self::Needs { .. } => Kind::BuildFailed,
            Self::Input { source, .. } => source.kind(),
            Self::Refused(_) | Self::Setup(SetupError::Forbidden { .. }) | Self::Slot(SlotError::Range(_)) => {
                Kind::CannotIsolate
            }
            Self::Substitute(error) => error.kind(),
            Self::Setup(_) | Self::Slot(_) | Self::Dump(_) | Self::Io { .. } => Kind::Host,
        }
    }
}

impl From<PlanError> for BuildError {
    fn from(error: PlanError) -> Self {
        match error {
            PlanError::Spec(bad) => Self::Spec(bad),
            PlanError::Host(refusal) => Self::Refused(refusal),
        }
    }
}

/// Says which act on which file failed.
fn io(act: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> BuildError {
    let path = path.to_path_buf();
    move |source| BuildError::Io { act, path, source }
}

/// Where root's sandbox identities are leased: one place for all stores, so that no two sandboxes share one.
pub fn slots() -> PathBuf {
    PathBuf::from("/run/kiln/slots")
}
