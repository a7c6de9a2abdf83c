//! What the files of a tree of evidence are called.
//!
//! `checkpoint`, `log.vkey` and `tile/…` are C2SP's. Envelopes are named by their ids, immutable; `att/index/…` has the ids of a log's
//! entries in the form of tiles, so that whoever walks the log finds the envelopes. Below `by-subject` is what can be made again. Writers
//! of a place without a lock agree below `claim` on who goes on from which size.

use kiln_model::digest::Digest;
use kiln_model::envelope::EnvelopeId;
use kiln_model::key::KeyId;
use kiln_model::log::tile::{Level, Tile};
use kiln_model::name;

/// What the log says, signed.
pub(super) const CHECKPOINT: &str = "checkpoint";
/// The log's key.
pub(super) const VKEY: &str = "log.vkey";
/// Whom to believe, as the publisher proposes it.
pub(super) const POLICY: &str = "policy/log.policy";
/// Bytes of the largest envelope.
pub(super) const MOST_ENVELOPE_BYTES: usize = kiln_model::canonical::Limits::ENVELOPE.bytes;

/// An envelope.
pub(super) fn envelope(id: EnvelopeId) -> String {
    let hex = id.to_string();
    format!("att/sha256/{}/{hex}.json", &hex[..2])
}

/// The ids of the envelopes of a bundle's entries, 32 bytes each.
pub(super) fn ids(bundle: Tile) -> String {
    debug_assert_eq!(bundle.level, Level::Entries);
    bundle.to_string().replacen("tile/entries/", "att/index/", 1)
}

/// An envelope together with the certificates of the key that signed it: a bundle, immutable.
pub(super) fn certified(id: EnvelopeId) -> String {
    let hex = id.to_string();
    format!("att/svid/{}/{hex}.sigstore.json", &hex[..2])
}

/// Its proof, by the first checkpoint that enough witnesses saw: a certificate is to be valid then.
pub(super) fn certified_proof(id: EnvelopeId) -> String {
    certified(id).replace(".sigstore.json", ".tlog-proof")
}

/// Says that statements by a key have certificates, so that nobody asks for those of all others.
pub(super) fn certified_key(id: KeyId) -> String {
    format!("keys/{id}.svid")
}

/// What it says.
pub(super) const CERTIFIED_KEY: &str = "statements by this key have certificates, below att/svid\n";

/// Says which batch comes after this many entries.
pub(super) fn claim(size: u64) -> String {
    format!("claim/{size}")
}

/// A public key.
pub(super) fn key(id: KeyId) -> String {
    format!("keys/{id}.pub")
}

/// What is known of an artifact.
pub(super) fn subject(artifact: Digest) -> String {
    format!("by-subject/sha256/{artifact}")
}

/// A file name that says whose evidence it is, whatever a statement calls it: no separators, no leading dot.
pub(super) fn file_name(subject: &str) -> String {
    let mut name = name::sanitised(subject).as_str().to_owned();
    // With what is appended, it stays within what file systems take.
    name.truncate(150);
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_specification_and_stay_in_the_tree() {
        let digest = Digest::of(b"");
        assert_eq!(
            envelope(EnvelopeId::new(digest)),
            "att/sha256/e3/e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855.json"
        );
        assert_eq!(ids("tile/entries/x001/007.p/9".parse().unwrap()), "att/index/x001/007.p/9");
        for (subject, expected) in [
            ("../../etc/passwd", "_.-..-etc-passwd"),
            ("hello_2.10-3_amd64.deb", "hello_2.10-3_amd64.deb"),
            ("", "unnamed"),
        ] {
            assert_eq!(file_name(subject), expected);
        }
        assert!(file_name(&"x".repeat(5000)).len() == 150);
    }
}
