//! From a recipe to its lock: the one step that may look outside.
//!
//! Each kind of input has a module that finds its bytes, says what the lock says about them, and leaves them as files or as a
//! tree for the store to add. NAR digests are the store's to compute: a lock's entry is complete once that is known.

use std::path::PathBuf;

use kiln_model::lock::LockedFile;
use kiln_model::name::Variable;

use crate::build::BuildError;
use crate::exit::Kind;

pub mod debian;
pub mod git;
pub mod path;
pub mod pypi;
pub mod recipe;
pub mod url;

pub use recipe::{Pinning, Scope};

/// Why a recipe could not be pinned.
#[derive(Debug, thiserror::Error)]
pub enum PinError {
    /// The archive's suites, sources or packages.
    #[error(transparent)]
    Debian(#[from] debian::PinError),
    /// A file at an address.
    #[error(transparent)]
    Url(#[from] url::UrlError),
    /// A Python release.
    #[error(transparent)]
    Pypi(#[from] pypi::PypiError),
    /// A git commit.
    #[error(transparent)]
    Git(#[from] git::GitError),
    /// A tree beside the recipe.
    #[error(transparent)]
    Path(#[from] path::PathError),
    /// Fetching, storing, or assembling the environment.
    #[error(transparent)]
    Build(#[from] Box<BuildError>),
    /// There is no lock whose other parts could be left alone.
    #[error("{} has no complete lock yet: run `kiln lock` without --only first", recipe.display())]
    NothingToKeep {
        /// The recipe as the user named it.
        recipe: PathBuf,
    },
    /// `--only` names no input.
    #[error("inputs.{input}: the recipe has no such input; it has {}", if there.is_empty() { "none".into() } else { there.join(", ") })]
    NoSuchInput {
        /// What was asked for.
        input: Variable,
        /// What there is.
        there: Vec<String>,
    },
    /// `--only` names an output of another recipe.
    #[error("inputs.{input} is another recipe's output and has no lock of its own: run `kiln lock` on that recipe")]
    RecipeInput {
        /// The input.
        input: Variable,
    },
}

impl From<BuildError> for PinError {
    fn from(error: BuildError) -> Self {
        Self::Build(Box::new(error))
    }
}

impl PinError {
    /// What sort of error it is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Debian(e) => e.kind(),
            Self::Url(e) => e.kind(),
            Self::Pypi(e) => e.kind(),
            Self::Git(e) => e.kind(),
            Self::Path(e) => e.kind(),
            Self::Build(e) => e.kind(),
            Self::NothingToKeep { .. } | Self::NoSuchInput { .. } | Self::RecipeInput { .. } => Kind::BadInput,
        }
    }
}

/// Files of an input, fetched and checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PinnedFiles {
    /// As the lock lists them, sorted by path.
    pub locked: Vec<LockedFile>,
    /// The name that each has in the input's directory, and where its bytes are in the store's cache.
    pub at: Vec<(String, PathBuf)>,
}

/// A tree that is to be added to the store; removed when this is dropped.
#[derive(Debug)]
pub struct PinnedTree {
    directory: tempfile::TempDir,
}

impl PinnedTree {
    /// A private directory below the store's `tmp`, in which [`PinnedTree::root`] is yet to be made.
    fn below(tmp: &std::path::Path) -> std::io::Result<Self> {
        std::fs::create_dir_all(tmp)?;
        Ok(Self { directory: tempfile::Builder::new().prefix("pin-").tempdir_in(tmp)? })
    }

    /// The tree's root: a directory, or for a path input perhaps a file.
    pub fn root(&self) -> PathBuf {
        self.directory.path().join("tree")
    }
}
