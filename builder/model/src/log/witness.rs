//! Cosignatures: what a witness says of a log, and when (C2SP's tlog-cosignature, type 0x04).
//!
//! A witness signs that this is the largest tree it has seen of this origin at that time. [`cosign`] holds a checkpoint against
//! the last one that the witness signed and signs nothing that does not extend it; the caller keeps the new one, on disk,
//! before anybody sees the signature.

use super::checkpoint::Checkpoint;
use super::note::{NoteKind, NoteSignature, NoteSigner, SignedNote, Vkey};
use super::{LogError, proof};
use crate::digest::Digest;

/// What is signed.
pub(super) fn message(text: &str, time: u64) -> String {
    format!("cosignature/v1\ntime {time}\n{text}")
}

/// Cosigns `note`, which must be signed by `log` and extend what the witness saw `last`, as `proof` shows.
pub fn cosign(
    signer: &NoteSigner,
    log: &Vkey,
    note: &SignedNote,
    last: Option<(u64, Digest)>,
    proof: &[Digest],
    time: u64,
) -> Result<NoteSignature, LogError> {
    if signer.vkey().kind() != NoteKind::Witness {
        return Err(LogError::Vkey { vkey: signer.vkey().to_string(), expected: "a witness's key" });
    }
    let checkpoint = signed_by(log, note)?;
    let last = last.unwrap_or((0, super::tree::empty_root()));
    proof::consistent(last, (checkpoint.size, checkpoint.root), proof)?;
    if time == 0 || time > i64::MAX as u64 {
        return Err(LogError::Note { field: "time of a cosignature", expected: "seconds since 1970, below 2^63" });
    }
    Ok(signer.sign_at(note.text(), time))
}

/// The checkpoint that `log` signed.
pub fn signed_by(log: &Vkey, note: &SignedNote) -> Result<Checkpoint, LogError> {
    let checkpoint = Checkpoint::parse(note.text())?;
    if checkpoint.origin != log.name() {
        return Err(LogError::UnknownLog { origin: checkpoint.origin, known: vec![log.name().into()] });
    }
    match log.kind() == NoteKind::Log && !note.verified_by(log)?.is_empty() {
        true => Ok(checkpoint),
        false => Err(LogError::Unsigned { name: log.name().into() }),
    }
}

/// The times at which `witness` cosigned `note`; none if it did not.
pub fn times(witness: &Vkey, note: &SignedNote) -> Result<Vec<u64>, LogError> {
    let signatures = note.verified_by(witness)?;
    Ok(signatures.into_iter().filter_map(NoteSignature::timestamped).map(|(time, _)| time).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::samples::{checkpoint, log, note, witness};
    use crate::log::tree::leaf_hash;
    use crate::log::tree::tests::{tiles, tree};

    #[test]
    fn a_witness_signs_what_extends_the_last_checkpoint_and_nothing_else() {
        let (log, tiles) = (log(), tiles(300));
        let proof = tree(&tiles, 300).consistency(257).unwrap();
        let (old, new) = (checkpoint(257), note(300, &[]));
        let last = Some((257, old.root));
        let cosigned = cosign(&witness(1), log.vkey(), &new, last, &proof, 1_700_000_000).unwrap();
        let mut whole = new.clone();
        whole.add(cosigned);
        assert_eq!(times(witness(1).vkey(), &whole), Ok(vec![1_700_000_000]));
        assert_eq!(times(witness(2).vkey(), &whole), Ok(vec![]));

        let refusal = |last, proof: &[Digest]| cosign(&witness(1), log.vkey(), &new, last, proof, 1).unwrap_err();
        assert_eq!(refusal(last, &[]), LogError::Inconsistent { old: 257, new: 300 });
        assert_eq!(refusal(Some((300, leaf_hash(b"x"))), &[]), LogError::Forked { size: 300 });
        assert_eq!(refusal(Some((301, leaf_hash(b"x"))), &[]), LogError::Shrunk { old: 301, new: 300 });
        assert!(cosign(&witness(1), log.vkey(), &new, last, &proof, 0).is_err());
    }

    #[test]
    fn what_the_log_did_not_sign_is_not_cosigned() {
        let (log, new) = (log(), note(300, &[]));
        let altered = SignedNote::parse(new.print().replace("\n300\n", "\n301\n").as_bytes()).unwrap();
        assert!(matches!(signed_by(log.vkey(), &altered), Err(LogError::BadSignature { .. })));
        assert!(matches!(signed_by(witness(1).vkey(), &new), Err(LogError::UnknownLog { .. })));
        let unsigned = SignedNote::new(new.text().into()).unwrap();
        assert!(matches!(signed_by(log.vkey(), &unsigned), Err(LogError::Unsigned { .. })));
        assert!(cosign(&log, log.vkey(), &new, None, &[], 1).is_err());
    }

    #[test]
    fn the_time_is_signed() {
        let note = note(3, &[(1, 1000)]);
        let line = note.signatures()[1].to_string();
        let encoded = line.rsplit_once(' ').unwrap().1;
        let mut bytes = data_encoding::BASE64.decode(encoded.as_bytes()).unwrap();
        bytes[11] ^= 1;
        let text = note.print().replace(encoded, &data_encoding::BASE64.encode(&bytes));
        let altered = SignedNote::parse(text.as_bytes()).unwrap();
        assert!(matches!(times(witness(1).vkey(), &altered), Err(LogError::BadSignature { .. })));
    }
}
