//! Evidence from files: envelopes, bundles, lines of them, proofs and logs, below directories that anybody may have written.
//!
//! Nothing here decides; it reads what `kiln_model::verify` judges, on all processors, and keeps no file longer than its
//! judging takes. Limits are on files and bytes; a file that cannot be read, or a link that leads out, is an error that names
//! it, because evidence that is silently left out could be the one that says no. Opens no socket.

mod artifact;
mod keys;
mod lines;
mod openpgp;
mod pinned;
mod shelf;

use std::path::PathBuf;

use crate::exit::Kind;

pub use artifact::{ArtifactError, artifact, sums};
pub use keys::{KeysError, keys};
pub use openpgp::Certificates;
pub use pinned::{Pins, PinsError};
pub use shelf::Shelf;

/// Bounds on evidence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Files below all directories.
    pub files: usize,
    /// Bytes of one envelope or bundle; what is longer is listed as ignored.
    pub candidate: usize,
    /// Directories in each other.
    pub depth: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { files: 2_000_000, candidate: kiln_model::format::bundle::LIMITS.bytes, depth: 64 }
    }
}

/// Why evidence cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum EvidenceError {
    /// No such file, or no permission.
    #[error("reading evidence {}: it must be readable, for what it says could be a no", path.display())]
    Unreadable {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A link that leads out of the directory that was named.
    #[error("evidence {} is a link to {}, which is outside of what was given: name that file as evidence, or remove the link", path.display(), target.display())]
    Outside {
        /// The link.
        path: PathBuf,
        /// Where it leads.
        target: PathBuf,
    },
    /// More files than anybody looks through.
    #[error(
        "more than {limit} files of evidence: give the directories of the artifacts in question, or collect envelopes as lines of .jsonl files"
    )]
    TooMany {
        /// The limit.
        limit: usize,
    },
    /// Directories in directories.
    #[error("evidence {} lies deeper than {limit} directories", path.display())]
    TooDeep {
        /// The directory.
        path: PathBuf,
        /// The limit.
        limit: usize,
    },
}

impl EvidenceError {
    /// What sort of error it is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Unreadable { source, .. } if source.kind() == std::io::ErrorKind::NotFound => Kind::BadInput,
            Self::Unreadable { .. } => Kind::Host,
            Self::Outside { .. } | Self::TooMany { .. } | Self::TooDeep { .. } => Kind::BadInput,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floods_of_files_and_directories_in_directories_are_refused_by_name() {
        let place = tempfile::tempdir().unwrap();
        for n in 0..11 {
            std::fs::write(place.path().join(format!("{n}.json")), "{}").unwrap();
            std::fs::write(place.path().join(format!("{n}.txt")), "not looked at").unwrap();
        }
        let paths = [place.path().to_owned()];
        let limits = |files, depth| Limits { files, depth, ..Limits::default() };
        assert_eq!(Shelf::open(&paths, limits(11, 3)).unwrap().len(), 11);
        let error = Shelf::open(&paths, limits(10, 3)).unwrap_err();
        assert!(matches!(error, EvidenceError::TooMany { limit: 10 }), "{error}");
        std::fs::create_dir_all(place.path().join("a/b/c/d")).unwrap();
        let error = Shelf::open(&paths, limits(11, 3)).unwrap_err();
        assert!(error.to_string().contains("a/b/c/d"), "{error}");
    }
}
