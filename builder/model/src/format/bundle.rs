//! Sigstore's bundle, version 0.3: an envelope, a hint to its key, and proofs that it was logged, in one file.
//!
//! Written as the strictest of its readers wants it: numbers as texts, no time stamps, exactly one signature whose keyid is the
//! hint, and at least one inclusion proof. Read no less strictly; messages without an envelope and entries of other
//! kinds are refused by name. A certificate in place of the hint is an X.509-SVID; such a bundle may come before any log. What
//! it carries of the log is compared with what envelope and key give, and never believed.

use std::borrow::Cow;

use data_encoding::BASE64;

use super::base64;
use crate::canonical::{self, CanonicalError, Limits};
use crate::digest::Digest;
use crate::envelope::{Envelope, EnvelopeError};
use crate::key::{KeyId, PublicKey, Svid, SvidError};
use crate::log::{Checkpoint, Entry, KIND, LogError, Proof, SignedNote};

mod spelled;

use spelled::{
    Chain, Dsse, DsseSignature, Hint, KindVersion, LogId, Material, RawBytes, Spelled, SpelledEntry, SpelledNote,
    SpelledProof, zero,
};

/// Its media type.
pub const MEDIA_TYPE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
/// Bytes and depth of the largest bundle: an envelope and what proves it.
pub const LIMITS: Limits = Limits { bytes: Limits::ENVELOPE.bytes + (1 << 20), depth: Limits::ENVELOPE.depth };

/// Log entries that one bundle may have.
const MOST_ENTRIES: usize = 8;

/// An envelope with what shows that it was logged. Nothing about it is checked but its form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bundle {
    /// The envelope, with one signature.
    pub envelope: Envelope,
    /// Which key is said to have signed it.
    pub hint: KeyId,
    /// The certificates that are said to vouch for that key, if a policy is not to name it.
    pub svid: Option<Svid>,
    /// Where it is said to be logged, at least once.
    pub entries: Vec<Logged>,
}

/// One log's proof.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logged {
    /// SHA-256 of the log's name, the type of its key and the key: all 32 bytes.
    pub log: Digest,
    /// The proof of inclusion.
    pub proof: Proof,
    /// The entry, as the log is said to have it.
    pub canonicalized_body: Vec<u8>,
}

/// Why a text is no bundle, or one that contradicts itself.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// Not strict JSON, or of another form.
    #[error(
        "reading a Sigstore bundle (an envelope with a public key's hint and log entries is expected; message signatures are not read)"
    )]
    Json {
        /// What is wrong.
        #[source]
        source: CanonicalError,
    },
    /// Another version, or something else.
    #[error("mediaType {found:?} of a bundle: expected {MEDIA_TYPE:?}")]
    MediaType {
        /// As given.
        found: String,
    },
    /// Something that is not as it must be.
    #[error("{field} of a bundle: expected {expected}")]
    Field {
        /// Which.
        field: &'static str,
        /// What belongs there.
        expected: &'static str,
    },
    /// An envelope that is none.
    #[error("dsseEnvelope of a bundle")]
    Envelope {
        /// What is wrong.
        #[source]
        source: EnvelopeError,
    },
    /// Certificates that are no SVID.
    #[error("verificationMaterial of a bundle")]
    Svid {
        /// What is wrong.
        #[source]
        source: SvidError,
    },
    /// A checkpoint or proof that is none.
    #[error("inclusionProof of a bundle")]
    Log {
        /// What is wrong.
        #[source]
        source: LogError,
    },
    /// Two fields that state the same thing differently.
    #[error("{field} of a bundle is not what {other} says: one of them was altered")]
    Disagree {
        /// One.
        field: &'static str,
        /// The other.
        other: &'static str,
    },
}

impl BundleError {
    /// Whether the bundle contradicts itself or the key, so that something was altered.
    pub fn is_contradiction(&self) -> bool {
        matches!(self, Self::Disagree { .. })
    }
}

impl Bundle {
    /// A bundle of an envelope that `key` signed; it must have that one signature.
    pub fn new(envelope: Envelope, key: &PublicKey, entries: Vec<Logged>) -> Result<Self, BundleError> {
        let hint = key.id();
        let refused = |field, expected| BundleError::Field { field, expected };
        if !(1..=MOST_ENTRIES).contains(&entries.len()) {
            return Err(refused("tlogEntries", "one to eight: without any, clients refuse it"));
        }
        match envelope.signatures() {
            [one] if one.keyid.as_ref().is_none_or(|keyid| *keyid == hint.to_string()) => {
                Ok(Self { envelope, hint, svid: None, entries })
            }
            [_] => Err(BundleError::Disagree { field: "hint", other: "keyid" }),
            _ => Err(refused("signatures", "exactly one")),
        }
    }

    /// A bundle of an envelope that the key of `svid` signed. Its entries may come later.
    pub fn with_svid(envelope: Envelope, svid: Svid, entries: Vec<Logged>) -> Result<Self, BundleError> {
        let hint = svid.key().id();
        match envelope.signatures() {
            [one] if one.keyid.as_ref().is_none_or(|keyid| *keyid == hint.to_string()) => {
                Ok(Self { envelope, hint, svid: Some(svid), entries })
            }
            [_] => Err(BundleError::Disagree { field: "certificate", other: "keyid" }),
            _ => Err(BundleError::Field { field: "signatures", expected: "exactly one" }),
        }
    }

    /// Reads a bundle.
    pub fn parse(bytes: &[u8]) -> Result<Self, BundleError> {
        let refused = |field, expected| BundleError::Field { field, expected };
        let wrong = |source| BundleError::Json { source };
        canonical::check(bytes, LIMITS).map_err(wrong)?;
        let spelled: Spelled<'_> =
            serde_json::from_slice(bytes).map_err(|source| wrong(CanonicalError::Form { source }))?;
        if spelled.media_type != MEDIA_TYPE {
            return Err(BundleError::MediaType { found: spelled.media_type.into() });
        }
        let [signature] = &spelled.dsse_envelope.signatures[..] else {
            return Err(refused("signatures", "exactly one"));
        };
        let material = &spelled.verification_material;
        let (hint, svid) = match (&material.public_key, &material.certificate, &material.x509_certificate_chain) {
            (Some(Hint { hint }), None, None) => {
                if signature.keyid.is_empty() {
                    return Err(refused("keyid", "the hint, for a key without a certificate"));
                }
                if signature.keyid != *hint {
                    return Err(BundleError::Disagree { field: "hint", other: "keyid" });
                }
                (KeyId::from_hint(hint).ok_or(refused("hint", "the SHA-256 of the key's SPKI in base64"))?, None)
            }
            (None, Some(one), None) => svid(std::slice::from_ref(one), &signature.keyid)?,
            (None, None, Some(chain)) => svid(&chain.certificates, &signature.keyid)?,
            _ => {
                let expected = "one of publicKey, certificate and x509CertificateChain";
                return Err(refused("verificationMaterial", expected));
            }
        };
        let envelope = serde_json::to_vec(&spelled.dsse_envelope).expect("texts are JSON");
        let envelope = Envelope::parse(&envelope).map_err(|source| BundleError::Envelope { source })?;
        let entries = spelled.verification_material.tlog_entries;
        if entries.len() > MOST_ENTRIES || (entries.is_empty() && svid.is_none()) {
            return Err(refused("tlogEntries", "one to eight"));
        }
        let entries = entries.into_iter().map(Logged::of).collect::<Result<_, _>>()?;
        Ok(Self { envelope, hint, svid, entries })
    }

    /// As a file: canonical JSON.
    pub fn print(&self) -> Vec<u8> {
        let hint = self.hint.hint();
        let signature = &self.envelope.signatures()[0];
        let spelled = Spelled {
            media_type: MEDIA_TYPE.into(),
            verification_material: Material {
                public_key: self.svid.is_none().then(|| Hint { hint: hint.as_str().into() }),
                certificate: certificate(self.svid.as_ref()),
                x509_certificate_chain: chain(self.svid.as_ref()),
                tlog_entries: self.entries.iter().map(Logged::spelled).collect(),
            },
            dsse_envelope: Dsse {
                payload: BASE64.encode(self.envelope.payload()).into(),
                payload_type: self.envelope.payload_type().into(),
                signatures: vec![DsseSignature {
                    sig: BASE64.encode(&signature.sig).into(),
                    keyid: if self.svid.is_none() { hint.as_str().into() } else { "".into() },
                }],
            },
        };
        canonical::print(&spelled).expect("texts have a canonical form")
    }

    /// The entry that envelope and `key` give, if all that the bundle says of it is that. The signature is checked by
    /// [`Envelope::verified_by`], the proofs by [`crate::log::LogPolicy::judge`].
    pub fn entry(&self, key: &PublicKey) -> Result<Entry, BundleError> {
        if self.hint != key.id() {
            return Err(BundleError::Disagree { field: "hint", other: "the key" });
        }
        let entry = Entry::of(&self.envelope, key).map_err(|source| BundleError::Log { source })?;
        match self.entries.iter().all(|logged| logged.canonicalized_body == entry.as_bytes()) {
            true => Ok(entry),
            false => Err(BundleError::Disagree { field: "canonicalizedBody", other: "the envelope" }),
        }
    }
}

/// The key and the SVID that certificates make; a keyid, if there is one, is that key's.
fn svid(certificates: &[RawBytes<'_>], keyid: &str) -> Result<(KeyId, Option<Svid>), BundleError> {
    let wrong = BundleError::Field { field: "rawBytes", expected: "a certificate in base64" };
    let der = certificates.iter().map(|one| base64::decode(one.raw_bytes.as_bytes()));
    let der = der.collect::<Option<Vec<_>>>().ok_or(wrong)?;
    let svid = Svid::parse(der).map_err(|source| BundleError::Svid { source })?;
    let id = svid.key().id();
    if !keyid.is_empty() && KeyId::from_hint(keyid) != Some(id) && keyid != id.to_string() {
        return Err(BundleError::Disagree { field: "certificate", other: "keyid" });
    }
    Ok((id, Some(svid)))
}

/// A leaf alone.
fn certificate(svid: Option<&Svid>) -> Option<RawBytes<'static>> {
    match svid?.chain() {
        [leaf] => Some(RawBytes { raw_bytes: BASE64.encode(leaf).into() }),
        _ => None,
    }
}

/// A leaf with authorities between it and those that are trusted.
fn chain(svid: Option<&Svid>) -> Option<Chain<'static>> {
    match svid?.chain() {
        [_] => None,
        all => Some(Chain {
            certificates: all.iter().map(|der| RawBytes { raw_bytes: BASE64.encode(der).into() }).collect(),
        }),
    }
}

impl Logged {
    fn of(spelled: SpelledEntry<'_>) -> Result<Self, BundleError> {
        let refused = |field, expected| BundleError::Field { field, expected };
        let wrong = |source| BundleError::Log { source };
        if (&*spelled.kind_version.kind, &*spelled.kind_version.version) != KIND {
            return Err(refused("kindVersion", "hashedrekord 0.0.2: no other kind of entry is read"));
        }
        if spelled.integrated_time != "0" {
            return Err(refused("integratedTime", "\"0\": only witnesses say when"));
        }
        let digest = |field, text: &str| {
            bytes(text)
                .and_then(|bytes| bytes.try_into().ok())
                .map(Digest::from_bytes)
                .ok_or(refused(field, "32 bytes in base64"))
        };
        let number = |field, text: &str| crate::log::decimal(text).ok_or(refused(field, "a decimal number as a text"));
        let proof = spelled.inclusion_proof;
        let index = number("logIndex", &spelled.log_index)?;
        if number("logIndex", &proof.log_index)? != index {
            return Err(BundleError::Disagree { field: "logIndex", other: "that of the inclusion proof" });
        }
        if proof.hashes.len() > 63 {
            return Err(refused("hashes", "at most 63"));
        }
        let hashes = proof.hashes.iter().map(|hash| digest("hashes", hash)).collect::<Result<_, _>>()?;
        let note = SignedNote::parse(proof.checkpoint.envelope.as_bytes()).map_err(wrong)?;
        let checkpoint = Checkpoint::parse(note.text()).map_err(wrong)?;
        if number("treeSize", &proof.tree_size)? != checkpoint.size {
            return Err(BundleError::Disagree { field: "treeSize", other: "the checkpoint" });
        }
        if digest("rootHash", &proof.root_hash)? != checkpoint.root {
            return Err(BundleError::Disagree { field: "rootHash", other: "the checkpoint" });
        }
        Ok(Self {
            log: digest("keyId", &spelled.log_id.key_id)?,
            proof: Proof { index, hashes, checkpoint: note },
            canonicalized_body: bytes(&spelled.canonicalized_body).ok_or(refused("canonicalizedBody", "base64"))?,
        })
    }

    fn spelled(&self) -> SpelledEntry<'_> {
        let index = Cow::from(self.proof.index.to_string());
        // What a note that is no checkpoint has in these places is refused when it is read.
        let (size, root) = match Checkpoint::parse(self.proof.checkpoint.text()) {
            Ok(checkpoint) => (checkpoint.size, BASE64.encode(checkpoint.root.as_bytes())),
            Err(_) => (0, String::new()),
        };
        SpelledEntry {
            log_index: index.clone(),
            log_id: LogId { key_id: BASE64.encode(self.log.as_bytes()).into() },
            kind_version: KindVersion { kind: KIND.0.into(), version: KIND.1.into() },
            integrated_time: zero(),
            inclusion_proof: SpelledProof {
                log_index: index,
                root_hash: root.into(),
                tree_size: size.to_string().into(),
                hashes: self.proof.hashes.iter().map(|hash| BASE64.encode(hash.as_bytes()).into()).collect(),
                checkpoint: SpelledNote { envelope: self.proof.checkpoint.print().into() },
            },
            canonicalized_body: BASE64.encode(&self.canonicalized_body).into(),
        }
    }
}

fn bytes(text: &str) -> Option<Vec<u8>> {
    base64::decode(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::key::SecretKey;
    use crate::log::samples::{log, logged};

    fn bundle(key: &SecretKey) -> Bundle {
        let envelope = Envelope::sign(b"{\"a\":1}".to_vec(), key);
        let (entry, proof) = logged(&envelope, key, &[(1, 50)]);
        let logged = Logged { log: log().vkey().long_id(), proof, canonicalized_body: entry.as_bytes().into() };
        Bundle::new(envelope, &key.public(), vec![logged]).unwrap()
    }

    fn changed(change: impl FnOnce(&mut Value)) -> Result<Bundle, BundleError> {
        let mut value: Value = serde_json::from_slice(&bundle(&SecretKey::ed25519(&[3; 32])).print()).unwrap();
        change(&mut value);
        Bundle::parse(value.to_string().as_bytes())
    }

    type Change = fn(&mut Value);

    #[test]
    fn bundles_of_both_kinds_of_key_have_stable_bytes_and_parse_back() {
        for key in [SecretKey::ed25519(&[3; 32]), SecretKey::p256(&[7; 32]).unwrap()] {
            let bundle = bundle(&key);
            let bytes = bundle.print();
            insta::assert_snapshot!(std::str::from_utf8(&bytes).unwrap());
            assert_eq!(Bundle::parse(&bytes).unwrap(), bundle);
            assert!(bundle.entry(&key.public()).is_ok());
        }
    }

    #[test]
    fn what_strict_clients_want_is_written() {
        let value: Value = serde_json::from_slice(&bundle(&SecretKey::ed25519(&[3; 32])).print()).unwrap();
        let material = &value["verificationMaterial"];
        let names = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        // No time stamps, not even an empty list of them; no promise.
        assert_eq!(names(material), ["publicKey", "tlogEntries"]);
        let entry = &material["tlogEntries"][0];
        let expected = ["canonicalizedBody", "inclusionProof", "integratedTime", "kindVersion", "logId", "logIndex"];
        assert_eq!(names(entry), expected);
        assert_eq!((&entry["logIndex"], &entry["integratedTime"]), (&json!("1"), &json!("0")));
        assert_eq!(entry["inclusionProof"]["treeSize"], json!("3"));
        assert_eq!(BASE64.decode(entry["logId"]["keyId"].as_str().unwrap().as_bytes()).unwrap().len(), 32);
        let signatures = value["dsseEnvelope"]["signatures"].as_array().unwrap();
        assert_eq!(signatures.len(), 1);
        assert_eq!(signatures[0]["keyid"], material["publicKey"]["hint"]);
    }

    #[test]
    fn what_is_missing_added_or_of_another_form_is_refused() {
        let entry = |value: &mut Value| value["verificationMaterial"]["tlogEntries"][0].take();
        let refusals: [(&str, Change); 19] = [
            ("another version", |v| v["mediaType"] = json!("application/vnd.dev.sigstore.bundle.v0.2+json")),
            ("no entry", |v| v["verificationMaterial"]["tlogEntries"] = json!([])),
            ("no entries", |v| drop(v["verificationMaterial"].as_object_mut().unwrap().remove("tlogEntries"))),
            ("time stamps", |v| v["verificationMaterial"]["timestampVerificationData"] = json!({})),
            ("a null", |v| v["verificationMaterial"]["timestampVerificationData"] = json!(null)),
            ("a certificate", |v| v["verificationMaterial"]["certificate"] = json!({"rawBytes": "AA=="})),
            ("a message", |v| v["messageSignature"] = json!({})),
            ("a number", |v| v["verificationMaterial"]["tlogEntries"][0]["logIndex"] = json!(1)),
            ("a time", |v| v["verificationMaterial"]["tlogEntries"][0]["integratedTime"] = json!("1")),
            ("a promise", |v| v["verificationMaterial"]["tlogEntries"][0]["inclusionPromise"] = json!({})),
            ("another kind", |v| v["verificationMaterial"]["tlogEntries"][0]["kindVersion"]["kind"] = json!("dsse")),
            ("a short id", |v| v["verificationMaterial"]["tlogEntries"][0]["logId"]["keyId"] = json!("AAAAAA==")),
            ("no proof", |v| {
                drop(v["verificationMaterial"]["tlogEntries"][0].as_object_mut().unwrap().remove("inclusionProof"))
            }),
            ("a short hash", |v| {
                v["verificationMaterial"]["tlogEntries"][0]["inclusionProof"]["hashes"][0] = json!("AAAA")
            }),
            ("no note", |v| {
                v["verificationMaterial"]["tlogEntries"][0]["inclusionProof"]["checkpoint"]["envelope"] = json!("x")
            }),
            ("two signatures", |v| {
                let one = v["dsseEnvelope"]["signatures"][0].clone();
                v["dsseEnvelope"]["signatures"].as_array_mut().unwrap().push(one);
            }),
            ("no signature", |v| v["dsseEnvelope"]["signatures"] = json!([])),
            ("no keyid", |v| drop(v["dsseEnvelope"]["signatures"][0].as_object_mut().unwrap().remove("keyid"))),
            ("a hint in hex", |v| {
                v["verificationMaterial"]["publicKey"]["hint"] = json!("00".repeat(32));
                v["dsseEnvelope"]["signatures"][0]["keyid"] = json!("00".repeat(32));
            }),
        ];
        for (what, change) in refusals {
            let refused = changed(change).map(drop).unwrap_err();
            assert!(!refused.is_contradiction(), "{what}: {refused}");
        }
        let many = changed(|v| {
            let one = entry(v);
            v["verificationMaterial"]["tlogEntries"] = vec![one; 9].into();
        });
        assert!(many.is_err());
        let text = String::from_utf8(bundle(&SecretKey::ed25519(&[3; 32])).print()).unwrap();
        assert!(Bundle::parse(text.replacen('{', "{\"mediaType\":\"x\",", 1).as_bytes()).is_err(), "a member twice");
        assert!(Bundle::parse(format!("{text}{}", " ".repeat(LIMITS.bytes)).as_bytes()).is_err());
    }

    #[test]
    fn what_states_one_thing_twice_and_differently_is_a_contradiction() {
        let contradictions: [(&str, Change); 4] = [
            ("hint", |v| v["verificationMaterial"]["publicKey"]["hint"] = json!(BASE64.encode(&[0; 32]))),
            ("index", |v| v["verificationMaterial"]["tlogEntries"][0]["logIndex"] = json!("2")),
            ("size", |v| v["verificationMaterial"]["tlogEntries"][0]["inclusionProof"]["treeSize"] = json!("4")),
            ("root", |v| {
                v["verificationMaterial"]["tlogEntries"][0]["inclusionProof"]["rootHash"] =
                    json!(BASE64.encode(&[0; 32]))
            }),
        ];
        for (what, change) in contradictions {
            assert!(changed(change).map(drop).unwrap_err().is_contradiction(), "{what}");
        }
    }

    #[test]
    fn the_entry_is_made_again_and_a_supplied_one_is_only_compared() {
        let key = SecretKey::ed25519(&[3; 32]).public();
        let other = changed(|v| {
            v["verificationMaterial"]["tlogEntries"][0]["canonicalizedBody"] = json!(BASE64.encode(b"{}"));
        });
        assert!(other.unwrap().entry(&key).unwrap_err().is_contradiction());
        let swapped = changed(|v| v["dsseEnvelope"]["payload"] = json!(BASE64.encode(b"{\"a\":2}")));
        assert!(swapped.unwrap().entry(&key).unwrap_err().is_contradiction());
        let stranger = SecretKey::ed25519(&[4; 32]).public();
        assert!(bundle(&SecretKey::ed25519(&[3; 32])).entry(&stranger).unwrap_err().is_contradiction());
    }
}
