//! What a log's writer must not forget: what it signed last, and what it was doing. Outside the tree, which anybody may have.
//!
//! Each file is the old or the new one, whole, and on the disk when a call returns. One writer has it at a time.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use kiln_model::log::note;
use kiln_model::log::{Checkpoint, SignedNote, Vkey, witness};

use super::error::{PublishError, failed};
use super::journal::Journal;
use super::place::{kept, locked, read, sync};

/// Bytes of the largest journal: a batch has bounds of its own.
const MOST_JOURNAL_BYTES: usize = 1 << 30;

/// A directory of state, locked.
#[derive(Debug)]
pub(super) struct State {
    root: PathBuf,
    _lock: File,
}

impl State {
    /// Opens it, once nobody else has it.
    pub(super) fn open(root: &Path) -> Result<Self, PublishError> {
        fs::create_dir_all(root).map_err(failed("creating", root))?;
        let lock = locked(&root.join("lock"))?;
        Ok(Self { root: root.into(), _lock: lock })
    }

    pub(super) fn path(&self) -> &Path {
        &self.root
    }

    /// What was signed last.
    pub(super) fn signed(&self, log: &Vkey) -> Result<Option<(Checkpoint, SignedNote)>, PublishError> {
        let path = self.root.join("checkpoint");
        let Some(bytes) = read(&path, note::MOST_BYTES)? else { return Ok(None) };
        let parsed = SignedNote::parse(&bytes).and_then(|note| Ok((witness::signed_by(log, &note)?, note)));
        parsed.map(Some).map_err(|error| PublishError::State { path, what: error.to_string() })
    }

    pub(super) fn sign(&self, note: &SignedNote) -> Result<(), PublishError> {
        self.write("checkpoint", note.print().as_bytes())
    }

    /// What was begun and perhaps not ended.
    pub(super) fn journal(&self) -> Result<Option<Journal>, PublishError> {
        let path = self.root.join("journal");
        let Some(bytes) = read(&path, MOST_JOURNAL_BYTES)? else { return Ok(None) };
        Journal::parse(&bytes).map(Some).map_err(|what| PublishError::State { path, what })
    }

    pub(super) fn begin(&self, journal: &Journal) -> Result<(), PublishError> {
        self.write("journal", &journal.print())
    }

    /// Forgets what was begun: it has ended.
    pub(super) fn end(&self) -> Result<(), PublishError> {
        let path = self.root.join("journal");
        fs::remove_file(&path).map_err(failed("removing", &path))?;
        sync(&self.root)
    }

    /// How many entries have proofs with all the cosignatures that they will get.
    pub(super) fn proved(&self) -> Result<u64, PublishError> {
        let path = self.root.join("proved");
        let text = read(&path, 20)?.map(|bytes| String::from_utf8_lossy(&bytes).trim_end().to_owned());
        text.map_or(Ok(0), |text| {
            text.parse().map_err(|_| PublishError::State { path, what: "expected a number".into() })
        })
    }

    pub(super) fn prove(&self, entries: u64) -> Result<(), PublishError> {
        self.write("proved", entries.to_string().as_bytes())
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), PublishError> {
        kept(&self.root, name, bytes)
    }
}
