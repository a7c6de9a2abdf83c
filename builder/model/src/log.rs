//! Transparency logs: tiles, trees, proofs, checkpoints, witnesses, and who of them is believed.
//!
//! A log is files that anyone can serve: entries and hashes in tiles (C2SP's tlog-tiles), and a checkpoint that log and witnesses
//! signed. What is here reads, makes and checks all of it from bytes; it knows no files, no network and no clock. Nothing is
//! believed but what leads to a checkpoint that a [`LogPolicy`] believes.

mod checkpoint;
mod entry;
mod error;
pub mod note;
pub mod policy;
pub mod proof;
#[cfg(test)]
pub(crate) mod samples;
pub mod tile;
pub mod tree;
pub mod witness;

pub use checkpoint::{Checkpoint, check_origin};
pub use entry::{Entry, KIND};
pub use error::{LogError, Weight};
pub use note::{NoteKind, NoteSignature, NoteSigner, SignedNote, Vkey};
pub use policy::{Believed, Included, LogPolicy};
pub use proof::{Proof, consistent, included};

/// A decimal number without leading zeros.
pub(crate) fn decimal(text: &str) -> Option<u64> {
    let plain = text == "0"
        || (text.starts_with(|c: char| ('1'..='9').contains(&c)) && text.bytes().all(|b| b.is_ascii_digit()));
    if plain { text.parse().ok() } else { None }
}
