//! Proofs: that an entry is in a log, that a log only grew; and the file that carries one (C2SP's tlog-proof).
//!
//! Checked as RFC 9162 says it (2.1.3.2, 2.1.4.2). A proof has exactly the hashes that index and size ask for: one too many or too
//! few is refused as one that is wrong. An `extra` line of the file is nobody's word and is not kept.

use std::fmt::Write as _;

use data_encoding::BASE64;

use super::tree::{empty_root, leaf_hash, node_hash};
use super::{LogError, SignedNote, decimal};
use crate::digest::Digest;
use crate::format::base64;

/// The first line of the file.
const HEADER: &str = "c2sp.org/tlog-proof@v1";
/// Hashes of the longest proof: one for each level of a tree of 2^63 entries.
const MOST_HASHES: usize = 63;
/// Bytes of the largest file: a note, 63 hashes, a line of extra data.
pub const MOST_BYTES: usize = super::note::MOST_BYTES + 16 * 1024;

/// A proof that an entry is in a log, with the checkpoint that it leads to. Nothing about it is checked yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// Which entry of the log.
    pub index: u64,
    /// From the leaf's sibling upward.
    pub hashes: Vec<Digest>,
    /// What the log, and witnesses, signed.
    pub checkpoint: SignedNote,
}

impl Proof {
    /// Reads a `.tlog-proof`.
    pub fn parse(bytes: &[u8]) -> Result<Self, LogError> {
        let refused = |field, expected| LogError::Proof { field, expected };
        if bytes.len() > MOST_BYTES {
            return Err(LogError::TooLong { what: "a proof", most: MOST_BYTES, bytes: bytes.len() });
        }
        let text = std::str::from_utf8(bytes).map_err(|_| refused("text", "UTF-8"))?;
        let end = "an empty line before the checkpoint";
        let (head, note) = text.split_once("\n\n").ok_or(refused("end of hashes", end))?;
        let mut lines = head.split('\n').peekable();
        if lines.next() != Some(HEADER) {
            return Err(refused("first line", HEADER));
        }
        if let Some(extra) = lines.next_if(|line| line.starts_with("extra ")) {
            base64::decode(&extra.as_bytes()["extra ".len()..]).ok_or_else(|| refused("extra", "base64"))?;
        }
        let index = lines.next().and_then(|line| decimal(line.strip_prefix("index ")?));
        let index = index.ok_or(refused("index", "`index` and a decimal number"))?;
        let hashes: Vec<Digest> = lines
            .map(|line| digest(line).ok_or(refused("hash", "32 bytes in base64, one hash a line")))
            .collect::<Result<_, _>>()?;
        if hashes.len() > MOST_HASHES {
            return Err(refused("hashes", "at most 63"));
        }
        Ok(Self { index, hashes, checkpoint: SignedNote::parse(note.as_bytes())? })
    }

    /// As a `.tlog-proof`.
    pub fn print(&self) -> String {
        let mut text = format!("{HEADER}\nindex {}\n", self.index);
        for hash in &self.hashes {
            writeln!(text, "{}", BASE64.encode(hash.as_bytes())).expect("strings grow");
        }
        text.push('\n');
        text.push_str(&self.checkpoint.print());
        text
    }
}

/// A digest in base64.
pub(super) fn digest(text: &str) -> Option<Digest> {
    let bytes = base64::decode(text.as_bytes())?;
    Some(Digest::from_bytes(bytes.try_into().ok()?))
}

/// Checks that the entry with `leaf` as its hash is number `index` of the tree of `size` entries under `root`.
pub fn included(index: u64, size: u64, leaf: Digest, root: Digest, proof: &[Digest]) -> Result<(), LogError> {
    let refused = LogError::NotIncluded { index, size };
    if index >= size {
        return Err(refused);
    }
    let (mut at, mut last, mut hash) = (index, size - 1, leaf);
    for other in proof {
        if last == 0 {
            return Err(refused);
        }
        if at & 1 == 1 || at == last {
            hash = node_hash(other, &hash);
            // A last node without a sibling goes up as it is.
            while at & 1 == 0 && at != 0 {
                at >>= 1;
                last >>= 1;
            }
        } else {
            hash = node_hash(&hash, other);
        }
        at >>= 1;
        last >>= 1;
    }
    if last == 0 && hash == root { Ok(()) } else { Err(refused) }
}

/// Checks that the tree `new`, its size and root, begins with the entries of the tree `old`.
pub fn consistent(old: (u64, Digest), new: (u64, Digest), proof: &[Digest]) -> Result<(), LogError> {
    let refused = LogError::Inconsistent { old: old.0, new: new.0 };
    if new.0 < old.0 {
        return Err(LogError::Shrunk { old: old.0, new: new.0 });
    }
    if [old, new].iter().any(|(size, root)| *size == 0 && *root != empty_root()) {
        return Err(refused);
    }
    if old.0 == new.0 || old.0 == 0 {
        return match proof.is_empty() && (old.0 == 0 || old.1 == new.1) {
            true => Ok(()),
            false if old.0 == new.0 => Err(LogError::Forked { size: old.0 }),
            false => Err(refused),
        };
    }
    let (mut at, mut last) = (old.0 - 1, new.0 - 1);
    while at & 1 == 1 {
        at >>= 1;
        last >>= 1;
    }
    // A whole tree of 2^k entries is itself the first node.
    let (first, rest) = match old.0.is_power_of_two() {
        true => (old.1, proof),
        false => proof.split_first().map(|(first, rest)| (*first, rest)).ok_or(refused.clone())?,
    };
    let (mut before, mut after) = (first, first);
    for other in rest {
        if last == 0 {
            return Err(refused);
        }
        if at & 1 == 1 || at == last {
            before = node_hash(other, &before);
            after = node_hash(other, &after);
            while at & 1 == 0 && at != 0 {
                at >>= 1;
                last >>= 1;
            }
        } else {
            after = node_hash(&after, other);
        }
        at >>= 1;
        last >>= 1;
    }
    if last == 0 && before == old.1 && after == new.1 { Ok(()) } else { Err(refused) }
}

/// The same for an entry as it is logged.
pub(super) fn holds(proof: &Proof, entry: &[u8], size: u64, root: Digest) -> Result<(), LogError> {
    included(proof.index, size, leaf_hash(entry), root, &proof.hashes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::log::samples::note;
    use crate::log::tree::tests::{entry, tiles, tree};

    #[test]
    fn every_entry_of_small_logs_is_proved_and_no_other_place_or_root_is() {
        for size in 1..=40_u64 {
            let tiles = tiles(size);
            let mut tree = tree(&tiles, size);
            let root = tree.root().unwrap();
            for index in 0..size {
                let (leaf, proof) = (leaf_hash(&entry(index)), tree.inclusion(index).unwrap());
                assert_eq!(included(index, size, leaf, root, &proof), Ok(()));
                for other in (0..size + 2).filter(|other| *other != index) {
                    assert!(included(other, size, leaf, root, &proof).is_err(), "{index} as {other} of {size}");
                }
                let longer: Vec<Digest> = proof.iter().copied().chain([root]).collect();
                assert!(included(index, size, leaf, root, &longer).is_err());
                assert!(proof.is_empty() || included(index, size, leaf, root, &proof[1..]).is_err());
                assert!(included(index, size, leaf_hash(b"x"), root, &proof).is_err());
                assert!(included(index, size, leaf, leaf, &proof).is_err() || size == 1);
            }
        }
    }

    #[test]
    fn small_logs_only_grew_and_no_other_proof_says_so() {
        for size in 0..=40_u64 {
            let tiles = tiles(size);
            let mut tree = tree(&tiles, size);
            let new = (size, tree.root().unwrap());
            for old in 0..=size {
                let (before, proof) = ((old, tree.root_at(old).unwrap()), tree.consistency(old).unwrap());
                assert_eq!(consistent(before, new, &proof), Ok(()), "{old} of {size}");
                let longer: Vec<Digest> = proof.iter().copied().chain([new.1]).collect();
                assert!(consistent(before, new, &longer).is_err());
                assert!(proof.is_empty() || consistent(before, new, &proof[1..]).is_err());
                assert!(consistent((old, leaf_hash(b"x")), new, &proof).is_err(), "{old} of {size}");
                if old > 0 {
                    assert!(consistent(before, (size, leaf_hash(b"x")), &proof).is_err(), "{old} of {size}");
                }
                if old < size {
                    assert_eq!(consistent(new, before, &proof), Err(LogError::Shrunk { old: size, new: old }));
                }
            }
        }
    }

    #[test]
    fn a_proof_has_stable_bytes_parses_back_and_its_extra_line_is_not_kept() {
        let proof = Proof { index: 1, hashes: vec![leaf_hash(b"a"), leaf_hash(b"b")], checkpoint: note(3, &[]) };
        let text = proof.print();
        insta::assert_snapshot!(text);
        assert_eq!(Proof::parse(text.as_bytes()), Ok(proof.clone()));
        let extra = text.replacen("\nindex", "\nextra AAAA\nindex", 1);
        assert_eq!(Proof::parse(extra.as_bytes()), Ok(proof));
    }

    #[test]
    fn what_is_no_proof_is_refused() {
        let text = Proof { index: 1, hashes: vec![leaf_hash(b"a")], checkpoint: note(3, &[]) }.print();
        let hash = text.lines().nth(2).unwrap();
        for (from, to) in [
            ("@v1", "@v2"),
            ("index 1", "index 01"),
            ("index 1", "index -1"),
            ("index 1\n", ""),
            ("index", "extra A\nindex"),
            (hash, "AAAA"),
            (hash, &hash[1..]),
            (&format!("{hash}\n"), &format!("{hash}\n").repeat(64)),
            ("\n\nlog", "\nlog"),
            ("\n\n\u{2014}", "\n\u{2014}"),
        ] {
            let other = text.replacen(from, to, 1);
            assert_ne!(other, text);
            assert!(Proof::parse(other.as_bytes()).is_err(), "{other}");
        }
        assert!(Proof::parse(&vec![b'x'; MOST_BYTES + 1]).is_err());
        assert!(Proof::parse(b"\xff").is_err());
    }

    #[test]
    fn one_size_with_two_roots_is_a_fork() {
        let roots = [leaf_hash(b"a"), leaf_hash(b"b")];
        assert_eq!(consistent((1, roots[0]), (1, roots[1]), &[]), Err(LogError::Forked { size: 1 }));
    }

    proptest! {
        #[test]
        fn proofs_of_any_log_hold_and_break_with_any_bit(size in 1_u64..1_500, index: u64, old: u64, bit: usize) {
            let (index, old, tiles) = (index % size, old % (size + 1), tiles(size));
            let mut tree = tree(&tiles, size);
            let root = tree.root().unwrap();
            let flipped = |proof: &[Digest]| {
                let mut proof = proof.to_vec();
                let place = bit % (proof.len() * 256);
                let mut bytes = *proof[place / 256].as_bytes();
                bytes[place % 256 / 8] ^= 1 << (place % 8);
                proof[place / 256] = Digest::from_bytes(bytes);
                proof
            };
            let (leaf, proof) = (leaf_hash(&entry(index)), tree.inclusion(index).unwrap());
            prop_assert_eq!(included(index, size, leaf, root, &proof), Ok(()));
            if !proof.is_empty() {
                prop_assert!(included(index, size, leaf, root, &flipped(&proof)).is_err());
            }
            let (before, proof) = ((old, tree.root_at(old).unwrap()), tree.consistency(old).unwrap());
            prop_assert_eq!(consistent(before, (size, root), &proof), Ok(()));
            if !proof.is_empty() {
                prop_assert!(consistent(before, (size, root), &flipped(&proof)).is_err());
            }
        }
    }
}
