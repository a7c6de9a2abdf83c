//! What is logged of an envelope: a `hashedrekord` 0.0.2 leaf, as Rekor v2 and its clients have it.
//!
//! The digest of what was signed, the signature and the key; never the envelope. Whoever checks makes the leaf again from the
//! envelope and a key that they trust: one that comes along is compared, never believed.

use data_encoding::BASE64;
use serde::{Deserialize, Serialize};

use super::LogError;
use super::tile::MOST_ENTRY_BYTES;
use super::tree::leaf_hash;
use crate::canonical;
use crate::digest::Digest;
use crate::envelope::{Envelope, pae};
use crate::format::base64;
use crate::key::PublicKey;

/// Its kind, and the version of that.
pub const KIND: (&str, &str) = ("hashedrekord", "0.0.2");

/// An entry of a log, as its bundles have it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry(Vec<u8>);

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Leaf {
    api_version: String,
    kind: String,
    spec: Spec,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Spec {
    #[serde(rename = "hashedRekordV002")]
    record: Record,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    data: Data,
    signature: Signature,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Data {
    algorithm: String,
    digest: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Signature {
    content: String,
    verifier: Verifier,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Verifier {
    key_details: String,
    public_key: RawKey,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawKey {
    raw_bytes: String,
}

impl Entry {
    /// The leaf of an envelope that `key` signed. With several signatures it is that of the one which holds; a single one is
    /// not checked again here.
    pub fn of(envelope: &Envelope, key: &PublicKey) -> Result<Self, LogError> {
        let message = pae(envelope.payload_type(), envelope.payload());
        let signature = match envelope.signatures() {
            [one] => Some(one),
            several => several.iter().find(|signature| key.verify(&message, &signature.sig).is_ok()),
        };
        let signature = signature.ok_or_else(|| LogError::NothingToLog { key: key.id().to_string() })?;
        let leaf = Leaf {
            api_version: KIND.1.into(),
            kind: KIND.0.into(),
            spec: Spec {
                record: Record {
                    data: Data { algorithm: "SHA2_256".into(), digest: BASE64.encode(Digest::of(&message).as_bytes()) },
                    signature: Signature {
                        content: BASE64.encode(&signature.sig),
                        verifier: Verifier {
                            key_details: details(key).into(),
                            public_key: RawKey { raw_bytes: BASE64.encode(&key.spki()) },
                        },
                    },
                },
            },
        };
        let bytes = canonical::print(&leaf).expect("texts have a canonical form");
        Self::from_bytes(bytes)
    }

    /// Any bytes that fit into a log.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self, LogError> {
        match bytes.len() <= MOST_ENTRY_BYTES {
            true => Ok(Self(bytes)),
            false => Err(LogError::EntryTooLong { bytes: bytes.len() }),
        }
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Its hash in the tree.
    pub fn leaf_hash(&self) -> Digest {
        leaf_hash(&self.0)
    }

    /// The key that the leaf says to have signed, if this is a leaf of this kind.
    pub fn key(&self) -> Option<PublicKey> {
        let leaf: Leaf = serde_json::from_slice(&self.0).ok()?;
        let key = leaf.spec.record.signature.verifier.public_key.raw_bytes;
        PublicKey::from_spki(&base64::decode(key.as_bytes())?).ok()
    }
}

/// What Sigstore calls the key's algorithm.
fn details(key: &PublicKey) -> &'static str {
    match key.ed25519() {
        Some(_) => "PKIX_ED25519",
        None => "PKIX_ECDSA_P256_SHA_256",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::Signature as EnvelopeSignature;
    use crate::key::SecretKey;

    #[test]
    fn the_leaf_has_stable_bytes() {
        let ed25519 = SecretKey::ed25519(&[1; 32]);
        let entry = Entry::of(&Envelope::sign(b"{}".to_vec(), &ed25519), &ed25519.public()).unwrap();
        assert_eq!(entry.as_bytes().len(), 406);
        insta::assert_snapshot!(std::str::from_utf8(entry.as_bytes()).unwrap());
        let p256 = SecretKey::p256(&[7; 32]).unwrap();
        let entry = Entry::of(&Envelope::sign(b"{}".to_vec(), &p256), &p256.public()).unwrap();
        assert!((480..500).contains(&entry.as_bytes().len()));
        insta::assert_snapshot!(std::str::from_utf8(entry.as_bytes()).unwrap());
    }

    #[test]
    fn of_several_signatures_the_one_that_holds_is_logged() {
        let (ours, theirs) = (SecretKey::ed25519(&[1; 32]), SecretKey::ed25519(&[2; 32]));
        let one = Envelope::sign(b"{}".to_vec(), &ours);
        let other = Envelope::sign(b"{}".to_vec(), &theirs);
        let signatures: Vec<EnvelopeSignature> =
            [&other, &one].iter().map(|envelope| envelope.signatures()[0].clone()).collect();
        let both = Envelope::new(b"{}".to_vec(), one.payload_type().into(), signatures).unwrap();
        assert_eq!(Entry::of(&both, &ours.public()), Entry::of(&one, &ours.public()));
        assert_eq!(Entry::of(&both, &theirs.public()), Entry::of(&other, &theirs.public()));
        let stranger = SecretKey::ed25519(&[3; 32]).public();
        assert!(matches!(Entry::of(&both, &stranger), Err(LogError::NothingToLog { .. })));
    }

    #[test]
    fn an_entry_says_whose_it_is() {
        let key = SecretKey::ed25519(&[1; 32]);
        let envelope = Envelope::sign(b"{}".to_vec(), &key);
        let entry = Entry::of(&envelope, &key.public()).unwrap();
        assert_eq!(entry.key(), Some(key.public()));
        for bytes in [&b""[..], b"{}", b"\xff"] {
            assert_eq!(Entry::from_bytes(bytes.into()).unwrap().key(), None);
        }
    }

    #[test]
    fn a_signature_that_makes_the_entry_too_long_is_not_logged() {
        let key = SecretKey::ed25519(&[1; 32]).public();
        let signature = EnvelopeSignature { keyid: None, sig: vec![0; 50_000] };
        let envelope = Envelope::new(b"{}".to_vec(), "x".into(), vec![signature]).unwrap();
        assert!(matches!(Entry::of(&envelope, &key), Err(LogError::EntryTooLong { .. })));
        assert!(Entry::from_bytes(vec![0; 65_535]).is_ok() && Entry::from_bytes(vec![0; 65_536]).is_err());
    }
}
