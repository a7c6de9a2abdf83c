//! Checkpoints that were seen before: one file a log, replaced whole by a newer one after a yes.
//!
//! The file is named after the origin's digest, since an origin may hold anything. What is remembered was believed when it was
//! written; it is not verified again.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use kiln_model::digest::Digest;
use kiln_model::log::{Checkpoint, LogError, SignedNote};
use kiln_model::verify::Pinned;

use crate::exit::Kind;

/// Checkpoints in a directory.
#[derive(Debug)]
pub struct Pins {
    directory: PathBuf,
    /// By origin.
    pub checkpoints: BTreeMap<String, Pinned>,
}

/// Why pins cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum PinsError {
    /// The directory or a file in it.
    #[error("pinned checkpoint {}", path.display())]
    File {
        /// The path.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Something that kiln has not written.
    #[error("pinned checkpoint {}: it was written by nobody's kiln; find out who changed it before you remove it", path.display())]
    Checkpoint {
        /// The path.
        path: PathBuf,
        /// Why.
        #[source]
        source: LogError,
    },
}

impl PinsError {
    /// What sort of error it is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::File { .. } => Kind::Host,
            Self::Checkpoint { .. } => Kind::BadInput,
        }
    }
}

impl Pins {
    /// Reads all pins of a directory; one that is not there has none.
    pub fn open(directory: &Path) -> Result<Self, PinsError> {
        let file = |path: &Path| {
            let path = path.to_owned();
            move |source| PinsError::File { path, source }
        };
        let mut checkpoints = BTreeMap::new();
        let entries = match fs::read_dir(directory) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            entries => Some(entries.map_err(file(directory))?),
        };
        for entry in entries.into_iter().flatten() {
            let path = entry.map_err(file(directory))?.path();
            if path.extension().is_none_or(|extension| extension != "checkpoint") {
                continue;
            }
            let bytes = fs::read(&path).map_err(file(&path))?;
            let parsed = SignedNote::parse(&bytes).and_then(|note| Checkpoint::parse(note.text()));
            let checkpoint = parsed.map_err(|source| PinsError::Checkpoint { path: path.clone(), source })?;
            checkpoints.insert(checkpoint.origin, Pinned { size: checkpoint.size, root: checkpoint.root });
        }
        Ok(Self { directory: directory.into(), checkpoints })
    }

    /// Remembers newer checkpoints; there is the old file or the new one, whole.
    pub fn advance(&self, newest: &BTreeMap<String, (Pinned, String)>) -> Result<(), PinsError> {
        for (origin, (pinned, note)) in newest {
            if self.checkpoints.get(origin).is_some_and(|old| old.size >= pinned.size) {
                continue;
            }
            let path = self.directory.join(format!("{}.checkpoint", Digest::of(origin)));
            let write = || -> std::io::Result<()> {
                fs::create_dir_all(&self.directory)?;
                let mut file = tempfile::NamedTempFile::new_in(&self.directory)?;
                file.write_all(note.as_bytes())?;
                file.as_file().sync_all()?;
                file.persist(&path)?;
                Ok(())
            };
            write().map_err(|source| PinsError::File { path: path.clone(), source })?;
        }
        Ok(())
    }
}
