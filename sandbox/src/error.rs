//! Why a sandbox was refused, or could not be set up.

use std::io;
use std::path::PathBuf;

/// Why there is no plan. Nothing was started.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// No host can do that: the caller's to mend.
    #[error(transparent)]
    Spec(#[from] BadSpec),
    /// This host cannot.
    #[error(transparent)]
    Host(#[from] Refusal),
}

/// A [`crate::Spec`] that no host could satisfy: it contradicts itself, or says something that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} is {value}: {problem}; {remedy}")]
pub struct BadSpec {
    /// The field, by its path in the spec.
    pub field: String,
    /// What is there.
    pub value: String,
    /// Why that cannot be.
    pub problem: String,
    /// What to put there.
    pub remedy: String,
}

/// This host cannot do what the [`crate::Spec`] asks. Nothing was started.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this host cannot isolate the build: {missing} is missing ({why}); {remedy}")]
pub struct Refusal {
    /// What is not there.
    pub missing: String,
    /// Why it is needed, or how its absence was noticed.
    pub why: String,
    /// What the user can do.
    pub remedy: String,
}

/// A sandbox that was planned could not be set up, or was lost.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// A step of the plan failed. The payload has not run.
    #[error("sandbox step `{step}`{} failed", at(.path))]
    Step {
        /// The step, as the plan prints it.
        step: String,
        /// The host's source, or else the target inside, that it was busy with.
        path: Option<PathBuf>,
        /// The kernel's answer.
        #[source]
        error: io::Error,
    },
    /// The same, and this host is known to forbid it.
    #[error("{refusal}")]
    Forbidden {
        /// Why, and what lifts it.
        refusal: Box<Refusal>,
        /// The step, as the plan prints it.
        step: String,
        /// The kernel's answer.
        #[source]
        error: io::Error,
    },
    /// A source of the plan cannot be examined.
    #[error("looking at sandbox source {path}", path = .path.display())]
    Source {
        /// The source on the host.
        path: PathBuf,
        /// Why.
        #[source]
        error: io::Error,
    },
    /// A control group could not be made or limited.
    #[error("preparing control group {path}", path = .path.display())]
    Group {
        /// The group's directory or file.
        path: PathBuf,
        /// Why.
        #[source]
        error: io::Error,
    },
    /// A range of ids could not be mapped.
    #[error("mapping a range of ids: {act}: {told}")]
    Ids {
        /// The program that was run, or what else was done.
        act: String,
        /// What came of it.
        told: String,
    },
    /// The plan needs a range of ids, and the slot has one.
    #[error("the plan needs a range of ids: lease the slot with `Slot::lease_range`")]
    SlotWithoutRange,
    /// Talking to the launcher failed, or starting it.
    #[error("sandbox launcher: {act}")]
    Launcher {
        /// What kiln was doing.
        act: &'static str,
        /// Why it failed.
        #[source]
        error: io::Error,
    },
    /// The spec watches calls, and nobody took the door to answer them.
    #[error("watched calls need a supervisor: take the door before waiting")]
    Unsupervised,
    /// Pid 1 ended without a word: the kernel ran out of memory, or someone killed it.
    #[error("sandbox was killed from outside")]
    Lost,
}

impl SetupError {
    /// The kernel's error number, if one is behind it.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Step { error, .. }
            | Self::Forbidden { error, .. }
            | Self::Source { error, .. }
            | Self::Group { error, .. }
            | Self::Launcher { error, .. } => error.raw_os_error(),
            Self::Ids { .. } | Self::SlotWithoutRange | Self::Unsupervised | Self::Lost => None,
        }
    }
}

fn at(path: &Option<PathBuf>) -> String {
    path.as_ref().map(|path| format!(" at {}", path.display())).unwrap_or_default()
}
