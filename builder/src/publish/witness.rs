//! A witness: cosigns what extends the last checkpoint that it saw of a log.
//!
//! What it saw is on the disk before anybody gets the signature, and is locked from the moment it is read: two trees of one size are
//! never both cosigned, whoever crashes or runs twice. The first checkpoint of a log is taken as it is.

use std::fs;
use std::path::{Path, PathBuf};

use kiln_model::digest::Digest;
use kiln_model::log::note::MOST_BYTES as MOST_NOTE_BYTES;
use kiln_model::log::tree::Tree;
use kiln_model::log::{Checkpoint, NoteSignature, NoteSigner, SignedNote, Vkey, witness};

use super::error::{PublishError, failed, of};
use super::layout;
use super::place::{Directory, kept, locked, read};
use super::writer::tile_bytes;

/// A witness and what it has seen.
#[derive(Debug)]
pub struct Witness {
    root: PathBuf,
    signer: NoteSigner,
}

impl Witness {
    /// The witness whose key is `signer`, with what it has seen in the directory `state`.
    pub fn open(state: &Path, signer: NoteSigner) -> Result<Self, PublishError> {
        fs::create_dir_all(state).map_err(failed("creating", state))?;
        Ok(Self { root: state.into(), signer })
    }

    /// Its public key.
    pub fn vkey(&self) -> &Vkey {
        self.signer.vkey()
    }

    /// Cosigns the checkpoint of a log: of a directory with its tiles, or a file, which will do for a log that was not seen before or
    /// did not grow.
    pub fn cosign(&self, log: &Vkey, at: &Path, time: u64) -> Result<NoteSignature, PublishError> {
        let (file, tiles) = match at.is_dir() {
            true => (at.join(layout::CHECKPOINT), Some(Directory::reading(at))),
            false => (at.to_owned(), None),
        };
        let shown = file.display().to_string();
        let bytes = read(&file, MOST_NOTE_BYTES)?.ok_or_else(|| PublishError::Missing { file: shown.clone() })?;
        let note = SignedNote::parse(&bytes).map_err(of(shown.clone()))?;
        let now = witness::signed_by(log, &note).map_err(of(shown.clone()))?;

        // A file's name: what a log calls itself may have slashes.
        let own = self.root.join(Digest::of(log.to_string()).to_string());
        fs::create_dir_all(&own).map_err(failed("creating", &own))?;
        let _lock = locked(&own.join("lock"))?;
        let path = own.join("checkpoint");
        let last = match read(&path, MOST_NOTE_BYTES)? {
            None => None,
            Some(bytes) => {
                let last = SignedNote::parse(&bytes).and_then(|note| witness::signed_by(log, &note));
                Some(last.map_err(|error| PublishError::State { path, what: error.to_string() })?)
            }
        };
        let proof = match (&last, &tiles) {
            (Some(last), Some(tiles)) if last.size <= now.size => {
                Tree::new(now.size, |tile| tile_bytes(tiles, tile)).consistency(last.size)?
            }
            (Some(Checkpoint { size, .. }), None) if *size > 0 && *size < now.size => {
                return Err(PublishError::Missing {
                    file: format!("the tiles beside {shown}, which show that the log only grew,"),
                });
            }
            _ => Vec::new(),
        };
        let last = last.map(|last| (last.size, last.root));
        let signature = witness::cosign(&self.signer, log, &note, last, &proof, time).map_err(of(shown))?;
        kept(&own, "checkpoint", note.print().as_bytes())?;
        Ok(signature)
    }
}
