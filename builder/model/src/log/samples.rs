//! Keys and logs of tests.

use super::tree::tests::tiles;
use super::tree::{Growth, Tree};
use super::{Checkpoint, Entry, LogError, NoteKind, NoteSigner, Proof, SignedNote};
use crate::envelope::Envelope;
use crate::key::SecretKey;

pub(crate) const ORIGIN: &str = "log.example.org/rebuild";

pub(crate) fn log() -> NoteSigner {
    NoteSigner::new(ORIGIN, NoteKind::Log, SecretKey::ed25519(&[1; 32])).unwrap()
}

pub(crate) fn witness(number: u8) -> NoteSigner {
    let name = format!("w{number}.example.org");
    NoteSigner::new(&name, NoteKind::Witness, SecretKey::ed25519(&[10 + number; 32])).unwrap()
}

/// The state of a log of `size` small entries.
pub(crate) fn checkpoint(size: u64) -> Checkpoint {
    let tiles = tiles(size);
    let root = super::tree::tests::tree(&tiles, size).root().unwrap();
    Checkpoint { origin: ORIGIN.into(), size, root }
}

/// The same, signed, and cosigned by witnesses at these times.
pub(crate) fn note(size: u64, cosigned: &[(u8, u64)]) -> SignedNote {
    let mut note = checkpoint(size).sign(&log()).unwrap();
    for (number, time) in cosigned {
        note.add(super::witness::cosign(&witness(*number), log().vkey(), &note, None, &[], *time).unwrap());
    }
    note
}

/// An envelope's entry in a log of three, and the proof.
pub(crate) fn logged(envelope: &Envelope, key: &SecretKey, cosigned: &[(u8, u64)]) -> (Entry, Proof) {
    let entry = Entry::of(envelope, &key.public()).unwrap();
    let mut growth = Growth::of(0, |_| Err(LogError::Beyond { size: 0 })).unwrap();
    for bytes in [&b"first"[..], entry.as_bytes(), b"last"] {
        growth.push(bytes, |_, _| Ok::<_, LogError>(())).unwrap();
    }
    let tiles: std::collections::BTreeMap<_, _> = growth.partial().collect();
    let mut tree = Tree::new(3, |tile| Ok::<_, LogError>(tiles[&tile].clone()));
    let mut note = Checkpoint { origin: ORIGIN.into(), size: 3, root: tree.root().unwrap() }.sign(&log()).unwrap();
    for (number, time) in cosigned {
        note.add(super::witness::cosign(&witness(*number), log().vkey(), &note, None, &[], *time).unwrap());
    }
    let proof = Proof { index: 1, hashes: tree.inclusion(1).unwrap(), checkpoint: note };
    (entry, proof)
}
