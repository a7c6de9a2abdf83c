//! A root file system from pinned packages: the environment of a build.
//!
//! Two steps, as the lock has them: a base layer, unpacked and configured, and on a copy of it the rest. The same
//! packages give the same tree, byte for byte as a NAR sees it, on every machine, whoever runs kiln and whenever.
//! No privilege is needed and nothing of the host gets in. It reads packages whose digests were checked
//! by `fetch`, and knows neither mirrors nor where the store keeps trees.

use std::io;
use std::path::{Path, PathBuf};

use kiln_model::lock::LockedPackage;
use kiln_sandbox::{PlanError, SetupError};

use crate::exit::Kind;

mod configure;
mod database;
pub(crate) mod deb;
mod idle;
mod inside;
mod kept;
mod normalise;
mod package;
mod tree;
mod unpack;

pub use configure::{Call, Inside};
pub use deb::{ControlFile, Deb, DebError, Entry, EntryKind, Executable};
pub use inside::Sandboxed;
pub use kept::Kept;

use configure::Epoch;
use tree::{MERGED, Tree};
use unpack::Installed;

/// A package and where its bytes are.
#[derive(Debug, Clone)]
pub struct Package<'a> {
    /// What the lock says of it.
    pub locked: &'a LockedPackage,
    /// The `.deb`, whose digest was checked.
    pub file: PathBuf,
}

/// What assembling needs besides packages.
#[derive(Clone, Copy)]
pub struct Assembler<'a> {
    /// Runs the packages' scripts.
    pub inside: &'a dyn Inside,
    /// Seconds since 1970: what scripts and files take for the time. Part of what the lock fixes: the date of a suite.
    pub epoch: i64,
    /// Where packages are kept decoded, if they are.
    pub kept: Option<&'a Kept>,
}

impl Assembler<'_> {
    /// Makes a tree of the packages of a base layer at `into`, which does not exist yet.
    pub fn base(&self, packages: &[Package<'_>], into: &Path) -> Result<(), EnvironmentError> {
        let tree = Unfinished::create(into, self.epoch)?;
        let mut cursor = tree.tree.cursor();
        for link in MERGED {
            let path = format!("usr/{link}");
            cursor
                .make_directory(path.as_bytes())
                .and_then(|()| cursor.make_symlink(link.as_bytes(), path.as_bytes()))
                .map_err(|e| EnvironmentError::write(&tree.tree, link.as_bytes(), e))?;
        }
        database::create(&tree.tree)?;
        self.add(&tree.tree, packages, &Installed::default())?;
        tree.finish();
        Ok(())
    }

    /// Makes a copy of the tree `base` at `into`, which does not exist yet, and adds packages to it.
    pub fn delta(&self, base: &Path, packages: &[Package<'_>], into: &Path) -> Result<(), EnvironmentError> {
        let tree = Unfinished::create(into, self.epoch)?;
        normalise::copy(base, &tree.tree)?;
        let installed = database::read(&tree.tree)?;
        self.add(&tree.tree, packages, &installed)?;
        tree.finish();
        Ok(())
    }

    fn add(&self, tree: &Tree, packages: &[Package<'_>], installed: &Installed) -> Result<(), EnvironmentError> {
        let epoch = Epoch(self.epoch);
        let layer = unpack::unpack(tree, packages, installed, self.kept)?;
        database::record(tree, installed, &layer)?;
        normalise::add_mount_points(tree)?;
        let mut calls = configure::preinsts(&layer.packages, epoch);
        calls.extend(configure::configure(&layer.packages, epoch));
        let aside = idle::set_aside(tree)?;
        self.inside.run(tree.path(), &calls)?;
        aside.put_back(tree)?;
        database::check_configured(tree)?;
        normalise::normalise(tree)
    }
}

/// A tree that is removed again unless it is finished.
struct Unfinished {
    tree: Tree,
    finished: Finished,
}

#[derive(PartialEq, Eq)]
enum Finished {
    Yes,
    No,
}

impl Unfinished {
    fn create(path: &Path, epoch: i64) -> Result<Self, EnvironmentError> {
        let failed = |source| EnvironmentError::Write { path: path.into(), source };
        std::fs::create_dir(path).map_err(failed)?;
        let tree = Tree::open(path, epoch).map_err(failed)?;
        Ok(Self { tree, finished: Finished::No })
    }

    fn finish(mut self) {
        self.finished = Finished::Yes;
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if self.finished == Finished::No {
            // Best effort: the error that led here is the one to be told.
            let _ = std::fs::remove_dir_all(self.tree.path());
        }
    }
}

/// Why an environment cannot be assembled.
#[derive(Debug, thiserror::Error)]
pub enum EnvironmentError {
    /// A package is no sound `.deb`.
    #[error(transparent)]
    Deb(#[from] DebError),
    /// A package's control files are not what they must be.
    #[error("control files of {}: {violation}", path.display())]
    Control {
        /// The package.
        path: PathBuf,
        /// Field, expected and found.
        violation: String,
    },
    /// Two packages own a path and neither replaces the other.
    #[error("/{} is in both {first} and {second}, and neither replaces the other; lock only one of them", path.display())]
    Conflict {
        /// The path, relative to the root.
        path: PathBuf,
        /// One package.
        first: String,
        /// The other.
        second: String,
    },
    /// An entry of a package cannot be put into the tree.
    #[error("unpacking /{} of package {package}", path.display())]
    Unpack {
        /// The package.
        package: String,
        /// The path, relative to the root.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The database in a base layer is not dpkg's.
    #[error("dpkg's database {}: {violation}", path.display())]
    Database {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        violation: String,
    },
    /// A script of a package, or dpkg, failed inside.
    #[error("{act}: {end}; its last words:\n{log}")]
    Script {
        /// What was done, to which package.
        act: String,
        /// How it ended.
        end: String,
        /// The end of its output.
        log: String,
    },
    /// The sandbox for the scripts could not be had.
    #[error("running the packages' scripts")]
    Sandbox(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The host could not read a file.
    #[error("reading {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the host said.
        #[source]
        source: io::Error,
    },
    /// The host could not write a file.
    #[error("writing {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the host said.
        #[source]
        source: io::Error,
    },
    /// A package could not be kept decoded.
    #[error("keeping {}", path.display())]
    Keep {
        /// Where.
        path: PathBuf,
        /// What the host said.
        #[source]
        source: io::Error,
    },
}

/// Whether this host cannot isolate, or is known to forbid it.
fn forbidden(error: &(dyn std::error::Error + Send + Sync + 'static)) -> bool {
    matches!(error.downcast_ref(), Some(PlanError::Host(_)))
        || matches!(error.downcast_ref(), Some(SetupError::Forbidden { .. }))
}

impl EnvironmentError {
    /// What sort of error it is. A package whose digest is the locked one and that is no sound package was locked so:
    /// whoever served it first meant harm or was harmed.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Deb(DebError::Read { .. } | DebError::Copy { .. }) => Kind::Host,
            Self::Deb(_) | Self::Control { .. } => Kind::Tampered,
            Self::Conflict { .. } | Self::Script { .. } => Kind::BuildFailed,
            Self::Sandbox(source) if forbidden(&**source) => Kind::CannotIsolate,
            Self::Sandbox(_)
            | Self::Database { .. }
            | Self::Unpack { .. }
            | Self::Read { .. }
            | Self::Write { .. }
            | Self::Keep { .. } => Kind::Host,
        }
    }

    fn read(tree: &Tree, path: &[u8], source: io::Error) -> Self {
        Self::Read { path: tree.path().join(unpack::display(path)), source }
    }

    fn write(tree: &Tree, path: &[u8], source: io::Error) -> Self {
        Self::Write { path: tree.path().join(unpack::display(path)), source }
    }

    fn unpack(package: &str, path: &[u8], source: io::Error) -> Self {
        Self::Unpack { package: package.into(), path: unpack::display(path), source }
    }
}
