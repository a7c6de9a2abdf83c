//! Checkpoints: how many entries a log has and which root, signed (C2SP's tlog-checkpoint).
//!
//! Exactly three lines: origin, size, root. Extension lines are legal elsewhere and refused here: what no monitor can audit is
//! not to be relied on. The name of the log's key is its origin.

use data_encoding::BASE64;

use super::note::{NoteKind, NoteSigner, SignedNote, is_name};
use super::tree::empty_root;
use super::{LogError, decimal, proof, tile};
use crate::digest::Digest;

/// Bytes of the longest origin.
const MOST_ORIGIN_BYTES: usize = 255;

/// The state of a log.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Checkpoint {
    /// Which log: an address without scheme, by convention.
    pub origin: String,
    /// How many entries it has.
    pub size: u64,
    /// The root of the tree over them.
    pub root: Digest,
}

impl Checkpoint {
    /// Reads the text of a note.
    pub fn parse(text: &str) -> Result<Self, LogError> {
        let refused = |field, expected| LogError::Checkpoint { field, expected };
        let lines: Vec<&str> =
            text.strip_suffix('\n').ok_or(refused("text", "lines, the last one ended"))?.split('\n').collect();
        let [origin, size, root] = lines[..] else {
            return Err(refused("text", "three lines: origin, size, root"));
        };
        check_origin(origin)?;
        let size = decimal(size).filter(|size| *size <= tile::MOST_ENTRIES);
        let size = size.ok_or(refused("size", "a decimal number below 2^63"))?;
        let root = proof::digest(root).ok_or(refused("root", "32 bytes in base64"))?;
        if size == 0 && root != empty_root() {
            return Err(refused("root", "that of no entries, since the size is 0"));
        }
        Ok(Self { origin: origin.into(), size, root })
    }

    /// The text of its note.
    pub fn print(&self) -> String {
        format!("{}\n{}\n{}\n", self.origin, self.size, BASE64.encode(self.root.as_bytes()))
    }

    /// Its note, signed by the log. The caller has made sure that it extends all that this key ever signed.
    pub fn sign(&self, signer: &NoteSigner) -> Result<SignedNote, LogError> {
        check_origin(&self.origin)?;
        if signer.vkey().kind() != NoteKind::Log || signer.vkey().name() != self.origin {
            return Err(LogError::Checkpoint { field: "key", expected: "a log's key with the origin as its name" });
        }
        let mut note = SignedNote::new(self.print())?;
        note.add(signer.sign(note.text()));
        Ok(note)
    }
}

/// Whether a log may be called that, by kiln's stricter rule: it is the name of a key, too.
pub fn check_origin(origin: &str) -> Result<(), LogError> {
    match is_name(origin) && origin.len() <= MOST_ORIGIN_BYTES {
        true => Ok(()),
        false => {
            Err(LogError::Checkpoint { field: "origin", expected: "an address without scheme, blanks and plus signs" })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::samples::{checkpoint, log, witness};

    #[test]
    fn a_checkpoint_parses_back_and_is_signed_by_the_log_that_it_names() {
        let checkpoint = checkpoint(300);
        assert_eq!(Checkpoint::parse(&checkpoint.print()), Ok(checkpoint.clone()));
        let note = checkpoint.sign(&log()).unwrap();
        assert_eq!(note.verified_by(log().vkey()).unwrap().len(), 1);
        let other = Checkpoint { origin: "elsewhere.example".into(), ..checkpoint.clone() };
        assert!(other.sign(&log()).is_err());
        assert!(Checkpoint { origin: witness(1).vkey().name().into(), ..checkpoint }.sign(&witness(1)).is_err());
    }

    #[test]
    fn the_example_of_the_specification_is_read() {
        let text = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n";
        let checkpoint = Checkpoint::parse(text).unwrap();
        assert_eq!((checkpoint.size, checkpoint.print()), (20_852_163, text.into()));
    }

    #[test]
    fn another_form_is_refused() {
        let root = "CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=";
        for text in [
            String::new(),
            format!("origin\n5\n{root}"),
            format!("origin\n05\n{root}\n"),
            format!("origin\n+5\n{root}\n"),
            format!("origin\n\n{root}\n"),
            format!("origin\n9223372036854775808\n{root}\n"),
            format!("origin\n0\n{root}\n"),
            format!("\n5\n{root}\n"),
            format!("ori gin\n5\n{root}\n"),
            format!("{}\n5\n{root}\n", "o".repeat(256)),
            format!("origin\n5\n{root}\nextension\n"),
            format!("origin\n5\n{root}\n\n"),
            "origin\n5\nAAAA\n".into(),
            format!("origin\n5\n{}\n", root.replace("2I=", "2J=")),
        ] {
            assert!(Checkpoint::parse(&text).is_err(), "{text:?}");
        }
    }
}
