//! Why a capsule was not made, or not taken.

use std::io;
use std::path::{Path, PathBuf};

use kiln_model::digest::Digest;
use kiln_model::format::capsule;
use kiln_model::store_path::{ContentAddress, StorePath};

use crate::build::BuildError;
use crate::build::graph::GraphError;
use crate::exit::Kind;
use crate::nix::DumpError;
use crate::rebuild::CheckError;
use crate::store::StoreError;

/// Why a capsule was not made, or not taken.
#[derive(Debug, thiserror::Error)]
pub enum CapsuleError {
    /// The file cannot be read or written.
    #[error("{act} {}", path.display())]
    Io {
        /// What was tried.
        act: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Not a capsule, or not a whole one.
    #[error("{} is no whole capsule: {violation}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        violation: String,
    },
    /// Its table is none.
    #[error("in {}", path.display())]
    Table {
        /// The file.
        path: PathBuf,
        /// Why.
        source: capsule::CapsuleError,
    },
    /// More than its size can honestly hold.
    #[error("{} would unpack to {unpacked} bytes, more than {ratio} times its size: expected a capsule that kiln made", path.display())]
    Bomb {
        /// The file.
        path: PathBuf,
        /// What its table says.
        unpacked: u64,
        /// The bound.
        ratio: u64,
    },
    /// A member is not what the table says.
    #[error("{member} in {} is not what its table says: expected sha256 {expected}, found {found}", path.display())]
    Digest {
        /// The file.
        path: PathBuf,
        /// The member.
        member: String,
        /// The table's digest.
        expected: Digest,
        /// What it is.
        found: Digest,
    },
    /// Recipe and lock do not make the derivation that it is said to be of.
    #[error("{} is said to be of {expected}, and what it holds makes {found}", path.display())]
    Derivation {
        /// The file.
        path: PathBuf,
        /// What the table or the outcome says.
        expected: String,
        /// What recipe and lock make.
        found: String,
    },
    /// Something that the build needs is neither in it nor in the store.
    #[error("{} cannot be rebuilt from: {} of what it needs are neither in it nor in the store: {}", path.display(), missing.len(), named(missing))]
    Incomplete {
        /// The file.
        path: PathBuf,
        /// What.
        missing: Vec<String>,
    },
    /// Not a signed statement.
    #[error("{} is no attestation: {why}; expected an envelope (DSSE), a Sigstore bundle, or lines of them", path.display())]
    NoStatement {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A fact that it takes to build again.
    #[error("nothing can be rebuilt from {}: {what}", path.display())]
    Lacks {
        /// The file.
        path: PathBuf,
        /// What is missing.
        what: String,
    },
    /// A statement that says two things.
    #[error("{} contradicts itself: {what}", path.display())]
    Contradiction {
        /// The file.
        path: PathBuf,
        /// In what.
        what: String,
    },
    /// What was built could not be compared.
    #[error(transparent)]
    Compared(Box<CheckError>),
    /// A path that only whoever made it could vouch for.
    #[error(
        "{target} needs {path}, which has no content address: whoever gets the capsule could not tell whether it is what it \
         should be. Name the derivation that makes it as an input, or publish it signed: `kiln publish --nix-cache`"
    )]
    Unaddressed {
        /// What is packed.
        target: String,
        /// What it needs.
        path: StorePath,
    },
    /// A tree that does not lie where the table says.
    #[error("{source_path} in {} is not what its path says: expected {expected}, found {found}", path.display())]
    Address {
        /// The file.
        path: PathBuf,
        /// Where the tree should lie.
        source_path: StorePath,
        /// Its content address.
        expected: ContentAddress,
        /// That of what is there.
        found: ContentAddress,
    },
    /// Nothing was built yet.
    #[error("{target} is not built: run `kiln build {target}` first")]
    NotBuilt {
        /// The recipe.
        target: String,
    },
    /// Recipes that need each other over links or names that a capsule cannot keep.
    #[error("{recipe} lies or is named so that a capsule cannot keep it: {why}")]
    Place {
        /// The recipe's directory.
        recipe: PathBuf,
        /// Why.
        why: &'static str,
    },
    /// A tree cannot be read.
    #[error(transparent)]
    Dump(#[from] DumpError),
    /// Something it needs cannot be had, or the build cannot be run.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// Its recipes make no derivation.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl CapsuleError {
    /// What sort of error it is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Io { act: "opening", .. }
            | Self::Malformed { .. }
            | Self::Table { source: capsule::CapsuleError::Json(_), .. }
            | Self::Bomb { .. }
            | Self::NoStatement { .. }
            | Self::Lacks { .. }
            | Self::Unaddressed { .. }
            | Self::NotBuilt { .. }
            | Self::Place { .. } => Kind::BadInput,
            Self::Table {
                source: capsule::CapsuleError::Digest { .. } | capsule::CapsuleError::Address { .. },
                ..
            }
            | Self::Address { .. }
            | Self::Digest { .. }
            | Self::Contradiction { .. }
            | Self::Derivation { .. } => Kind::Tampered,
            Self::Compared(error) => error.kind(),
            Self::Table { .. } => Kind::BadInput,
            Self::Incomplete { .. } => Kind::Inconclusive,
            Self::Io { .. } | Self::Dump(_) => Kind::Host,
            Self::Build(error) => error.kind(),
            Self::Graph(error) => error.kind(),
            Self::Store(error) => error.kind(),
        }
    }
}

/// How many missing things an error names.
const NAMED: usize = 10;

fn named(missing: &[String]) -> String {
    let mut text = missing.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
    if missing.len() > NAMED {
        text.push_str(", …");
    }
    text
}

/// Says which act on which file failed.
pub(super) fn io(act: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CapsuleError {
    let path = path.to_path_buf();
    move |source| CapsuleError::Io { act, path, source }
}
