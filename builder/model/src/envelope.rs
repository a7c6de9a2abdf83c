//! DSSE 1.0.2: a signature over bytes and what they are, and nothing over how they are spelled.
//!
//! What is signed is [`pae`] of the decoded payload; it is verified *before* it is parsed, and [`Verified`], which only
//! [`Envelope::verified_by`] makes, parses those same bytes. A keyid says which key to try and proves nothing. kiln writes one
//! signature into an envelope and reads up to [`SIGNATURES`]. Who may be believed is [`crate::policy`]'s business.

mod plain;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::canonical::{self, CanonicalError, Limits};
use crate::digest::{Digest, serde_as_text};
use crate::format::base64;
use crate::key::{BadSignature, KeyId, PublicKey, SecretKey};
use crate::statement::{Payload, Statement, StatementError};

/// What every payload of ours is: an in-toto statement.
pub const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";

/// Signatures in one envelope.
pub const SIGNATURES: usize = 16;

/// The bytes that are signed: "pre-authentication encoding".
pub fn pae(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let mut out = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len()).into_bytes();
    out.extend_from_slice(payload);
    out
}

/// SHA-256 of an envelope's canonical form: its name in files, links and logs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EnvelopeId(Digest);

/// A payload and its signatures, none of them verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    payload: Arc<Vec<u8>>,
    payload_type: String,
    signatures: Vec<Signature>,
}

/// One signature and whose it is said to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    /// The key's id in hex, or whatever stands there. A hint.
    pub keyid: Option<String>,
    /// The bytes.
    pub sig: Vec<u8>,
}

/// A payload that a key has signed. Made by [`Envelope::verified_by`] alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    payload: Arc<Vec<u8>>,
    payload_type: String,
    key: KeyId,
    envelope: EnvelopeId,
}

/// Why an envelope is not taken, or not believed.
#[derive(Debug, thiserror::Error)]
pub enum EnvelopeError {
    /// Not strict JSON, or of another form.
    #[error("reading an envelope")]
    Json {
        /// What is wrong.
        #[source]
        source: CanonicalError,
    },
    /// Not base64 in either alphabet, or with bits that say nothing and are not zero.
    #[error("{field} of an envelope: expected base64, standard or URL-safe, with padding")]
    Base64 {
        /// Which.
        field: &'static str,
    },
    /// No signature.
    #[error("the envelope has no signature")]
    Unsigned,
    /// Too many signatures.
    #[error("the envelope has {found} signatures: at most {SIGNATURES} are read")]
    TooMany {
        /// How many.
        found: usize,
    },
    /// Two signatures with one keyid.
    #[error("the envelope has two signatures with the keyid {keyid}")]
    SameKey {
        /// The id.
        keyid: String,
    },
    /// A signature that names the key and is not its.
    #[error("the envelope names the key {key} and is not signed by it: it was tampered with")]
    Tampered {
        /// The key.
        key: KeyId,
    },
    /// No signature is the key's.
    #[error("no signature of the envelope is by the key {key}")]
    NotSignedBy {
        /// The key.
        key: KeyId,
    },
}

/// As it is in a file. What else stands there is ignored, as DSSE asks.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spelled<'a> {
    #[serde(borrow)]
    payload: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    payload_type: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    signatures: Vec<SpelledSignature<'a>>,
}

#[derive(Serialize, Deserialize)]
struct SpelledSignature<'a> {
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    keyid: Option<std::borrow::Cow<'a, str>>,
    #[serde(borrow)]
    sig: std::borrow::Cow<'a, str>,
}

impl Envelope {
    /// Signs an in-toto statement.
    pub fn sign(payload: Vec<u8>, key: &SecretKey) -> Self {
        let signature =
            Signature { keyid: Some(key.public().id().to_string()), sig: key.sign(&pae(PAYLOAD_TYPE, &payload)) };
        Self { payload: payload.into(), payload_type: PAYLOAD_TYPE.into(), signatures: vec![signature] }
    }

    /// An envelope of these parts, which may be anybody's.
    pub fn new(payload: Vec<u8>, payload_type: String, signatures: Vec<Signature>) -> Result<Self, EnvelopeError> {
        match signatures.len() {
            0 => return Err(EnvelopeError::Unsigned),
            found if found > SIGNATURES => return Err(EnvelopeError::TooMany { found }),
            _ => {}
        }
        let mut signatures = signatures;
        let mut ids = BTreeSet::new();
        for signature in &mut signatures {
            // Sigstore's bundles have the same digest in base64; one envelope is to have one id.
            if let Some(id) = signature.keyid.as_deref().and_then(KeyId::from_hint) {
                signature.keyid = Some(id.to_string());
            }
            signature.keyid.take_if(|id| id.is_empty());
            if let Some(keyid) = &signature.keyid
                && !ids.insert(keyid.clone())
            {
                return Err(EnvelopeError::SameKey { keyid: keyid.clone() });
            }
        }
        Ok(Self { payload: payload.into(), payload_type, signatures })
    }

    /// The envelope from JSON, in whatever spelling DSSE allows.
    pub fn parse(bytes: &[u8]) -> Result<Self, EnvelopeError> {
        Self::named(bytes).map(|(envelope, _)| envelope)
    }

    /// The same, with its id where that costs nothing more than a digest of `bytes`.
    pub(crate) fn named(bytes: &[u8]) -> Result<(Self, Option<EnvelopeId>), EnvelopeError> {
        match plain::parse(bytes) {
            Some((envelope, id)) => Ok((envelope, Some(id))),
            None => Self::spelled(bytes).map(|envelope| (envelope, None)),
        }
    }

    fn spelled(bytes: &[u8]) -> Result<Self, EnvelopeError> {
        let wrong = |source| EnvelopeError::Json { source };
        canonical::check(bytes, Limits::ENVELOPE).map_err(wrong)?;
        let spelled: Spelled<'_> =
            serde_json::from_slice(bytes).map_err(|source| wrong(CanonicalError::Form { source }))?;
        if spelled.signatures.len() > SIGNATURES {
            return Err(EnvelopeError::TooMany { found: spelled.signatures.len() });
        }
        let signature = |signature: SpelledSignature<'_>| {
            let sig = base64::decode_either(signature.sig.as_bytes()).ok_or(EnvelopeError::Base64 { field: "sig" })?;
            Ok(Signature { keyid: signature.keyid.map(Into::into), sig })
        };
        let signatures = spelled.signatures.into_iter().map(signature).collect::<Result<_, _>>()?;
        let payload =
            base64::decode_either(spelled.payload.as_bytes()).ok_or(EnvelopeError::Base64 { field: "payload" })?;
        Self::new(payload, spelled.payload_type.into(), signatures)
    }

    /// The canonical form: RFC 8785, hexadecimal keyid, standard base64.
    pub fn canonical(&self) -> Vec<u8> {
        let signature = |signature: &Signature| SpelledSignature {
            keyid: signature.keyid.clone().map(Into::into),
            sig: base64::encode(&signature.sig).into(),
        };
        let spelled = Spelled {
            payload: base64::encode(&self.payload).into(),
            payload_type: self.payload_type.as_str().into(),
            signatures: self.signatures.iter().map(signature).collect(),
        };
        canonical::print(&spelled).expect("strings have a canonical form")
    }

    /// Its name.
    pub fn id(&self) -> EnvelopeId {
        EnvelopeId(Digest::of(self.canonical()))
    }

    /// What was signed, decoded.
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// What the payload is said to be. Signed as well.
    pub fn payload_type(&self) -> &str {
        &self.payload_type
    }

    /// The signatures, at least one.
    pub fn signatures(&self) -> &[Signature] {
        &self.signatures
    }

    /// Whether a signature names the key `id`.
    pub fn names(&self, id: KeyId) -> bool {
        let id = id.to_string();
        self.signatures.iter().any(|signature| signature.keyid.as_ref() == Some(&id))
    }

    /// The payload, if `key` signed it. A signature that names the key and is not its spoils the envelope, whatever the others
    /// are.
    pub fn verified_by(&self, key: &PublicKey) -> Result<Verified, EnvelopeError> {
        self.verified_as(|message, sig| key.verify(message, sig), key.id(), || self.id())
    }

    /// The same where the ids of key and envelope are known already: making the canonical form costs a third of a verification.
    pub(crate) fn verified_as(
        &self,
        verify: impl Fn(&[u8], &[u8]) -> Result<(), BadSignature>,
        id: KeyId,
        envelope: impl FnOnce() -> EnvelopeId,
    ) -> Result<Verified, EnvelopeError> {
        let message = pae(&self.payload_type, &self.payload);
        let holds = |signature: &Signature| verify(&message, &signature.sig).is_ok();
        let hex = id.to_string();
        let named = self.signatures.iter().find(|signature| signature.keyid.as_ref() == Some(&hex));
        match named {
            Some(signature) if holds(signature) => {}
            Some(_) => return Err(EnvelopeError::Tampered { key: id }),
            None if self.signatures.iter().any(holds) => {}
            None => return Err(EnvelopeError::NotSignedBy { key: id }),
        }
        Ok(Verified {
            payload: Arc::clone(&self.payload),
            payload_type: self.payload_type.clone(),
            key: id,
            envelope: envelope(),
        })
    }
}

impl Verified {
    /// The bytes that were signed.
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// Who signed them.
    pub fn key(&self) -> KeyId {
        self.key
    }

    /// The envelope they came in.
    pub fn envelope(&self) -> EnvelopeId {
        self.envelope
    }

    /// What they say.
    pub fn statement(&self) -> Result<Statement, StatementError> {
        self.read()?.statement()
    }

    /// The same, read once and not yet understood.
    pub(crate) fn read(&self) -> Result<Payload<'_>, StatementError> {
        if self.payload_type != PAYLOAD_TYPE {
            return Err(StatementError::PayloadType { found: self.payload_type.clone() });
        }
        Payload::read(&self.payload)
    }
}

impl EnvelopeId {
    /// The id that is this digest.
    pub fn new(digest: Digest) -> Self {
        Self(digest)
    }

    /// The digest.
    pub fn digest(&self) -> Digest {
        self.0
    }
}

impl fmt::Display for EnvelopeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for EnvelopeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EnvelopeId({self})")
    }
}

impl std::str::FromStr for EnvelopeId {
    type Err = crate::digest::DigestError;

    /// Accepts `sha256:HEX` and `HEX`, in either case.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

use serde::{Deserializer, Serializer, de};
serde_as_text!(EnvelopeId);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::secret::samples::{ed25519, p256};
    use data_encoding::{BASE64, BASE64URL};
    use proptest::prelude::*;
    use serde_json::{Value, json};

    const ED25519: &str = "c4b3b3a649f60c2783f2854860e336408f71ce4f5ed9c9e04c9fb787748f95b4";
    const P256: &str = "6c939890a4ba283f7d7620e1a7617735394860003d52fcff553376191106a40b";

    fn envelope() -> Envelope {
        Envelope::sign(b"{\"_type\":\"?\"}".to_vec(), &ed25519(1))
    }

    fn changed(change: impl FnOnce(&mut Value)) -> Result<Envelope, EnvelopeError> {
        let mut value: Value = serde_json::from_slice(&envelope().canonical()).unwrap();
        change(&mut value);
        Envelope::parse(value.to_string().as_bytes())
    }

    #[test]
    fn the_encoding_that_is_signed_is_the_specifications() {
        // DSSE, protocol.md, "Test vectors".
        assert_eq!(
            pae("http://example.com/HelloWorld", b"hello world"),
            b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
        );
        assert_eq!(pae("", b""), b"DSSEv1 0  0 ");
    }

    #[test]
    fn an_envelope_is_read_back_from_its_canonical_form_and_its_bytes_do_not_move() {
        for (key, expected) in [(ed25519(1), ED25519), (p256(1), P256)] {
            let envelope = Envelope::sign(b"{}".to_vec(), &key);
            let bytes = envelope.canonical();
            assert_eq!(Envelope::parse(&bytes).unwrap(), envelope);
            assert_eq!(envelope.id().digest(), Digest::of(&bytes));
            assert_eq!(envelope.id().to_string(), expected, "{}", String::from_utf8_lossy(&bytes));
        }
    }

    #[test]
    fn every_spelling_that_dsse_allows_is_one_envelope() {
        let key = ed25519(1).public();
        let other = changed(|e| {
            let url_safe = |text: &Value| BASE64URL.encode(&BASE64.decode(text.as_str().unwrap().as_bytes()).unwrap());
            e["payload"] = url_safe(&e["payload"]).into();
            e["signatures"][0]["sig"] = url_safe(&e["signatures"][0]["sig"]).into();
            e["signatures"][0]["keyid"] = key.id().hint().into();
            e["unknown"] = json!([1.5]);
        });
        assert_eq!(other.unwrap().id(), envelope().id());
    }

    #[test]
    fn a_signature_holds_for_payload_type_and_key_alone() {
        let key = ed25519(1).public();
        let verified = envelope().verified_by(&key).unwrap();
        assert_eq!(
            (verified.payload(), verified.key(), verified.envelope()),
            (envelope().payload(), key.id(), envelope().id())
        );
        for tampered in [
            changed(|e| e["payload"] = BASE64.encode(b"{}").into()),
            changed(|e| e["payloadType"] = "application/json".into()),
            changed(|e| e["signatures"][0]["sig"] = BASE64.encode(&[0; 64]).into()),
        ] {
            assert!(matches!(tampered.unwrap().verified_by(&key), Err(EnvelopeError::Tampered { .. })));
        }
        let stranger = envelope().verified_by(&ed25519(2).public());
        assert!(matches!(stranger, Err(EnvelopeError::NotSignedBy { .. })));
    }

    #[test]
    fn a_keyid_is_a_hint_and_one_that_lies_about_our_key_is_tampering() {
        let (key, id) = (ed25519(1).public(), ed25519(2).public().id().to_string());
        for unhelpful in [json!(null), json!(""), json!("my key"), json!(id)] {
            assert!(changed(|e| e["signatures"][0]["keyid"] = unhelpful).unwrap().verified_by(&key).is_ok());
        }
        let lies = changed(|e| e["signatures"][0]["keyid"] = id.into()).unwrap();
        assert!(lies.names(ed25519(2).public().id()));
        assert!(matches!(lies.verified_by(&ed25519(2).public()), Err(EnvelopeError::Tampered { .. })));
    }

    #[test]
    fn none_too_many_or_equally_named_signatures_are_refused() {
        let mine = serde_json::from_slice::<Value>(&envelope().canonical()).unwrap()["signatures"][0].clone();
        let named = |n: usize| json!({"keyid": format!("{n}"), "sig": mine["sig"]});
        let with = |signatures: Vec<Value>| changed(|e| e["signatures"] = signatures.into());
        assert!(with((0..16).map(named).collect()).is_ok());
        assert!(matches!(with((0..17).map(named).collect()), Err(EnvelopeError::TooMany { found: 17 })));
        assert!(matches!(with(vec![]), Err(EnvelopeError::Unsigned)));
        assert!(matches!(with(vec![mine.clone(), mine.clone()]), Err(EnvelopeError::SameKey { .. })));
        let hint = json!({"keyid": ed25519(1).public().id().hint(), "sig": mine["sig"]});
        assert!(matches!(with(vec![mine.clone(), hint]), Err(EnvelopeError::SameKey { .. })));
        let both = with(vec![named(1), mine]).unwrap();
        assert!(both.verified_by(&ed25519(1).public()).is_ok());
    }

    #[test]
    fn what_is_not_strict_json_or_base64_is_refused() {
        let text = String::from_utf8(envelope().canonical()).unwrap();
        let twice = text.replacen("\"payload\":", "\"payload\":\"e30=\",\"payload\":", 1);
        assert!(matches!(Envelope::parse(twice.as_bytes()), Err(EnvelopeError::Json { .. })));
        let deep = text.replacen('{', &format!("{{\"x\":{}{},", "[".repeat(64), "]".repeat(64)), 1);
        assert!(matches!(Envelope::parse(deep.as_bytes()), Err(EnvelopeError::Json { .. })));
        let huge = format!("{text}{}", " ".repeat(4 << 20));
        assert!(matches!(Envelope::parse(huge.as_bytes()), Err(EnvelopeError::Json { .. })));
        assert!(matches!(changed(|e| e["payload"] = "e31=".into()), Err(EnvelopeError::Base64 { field: "payload" })));
        assert!(matches!(
            changed(|e| e["signatures"][0]["sig"] = "AB".into()),
            Err(EnvelopeError::Base64 { field: "sig" })
        ));
        assert!(changed(|e| drop(e.as_object_mut().unwrap().remove("payloadType"))).is_err());
    }

    proptest! {
        #[test]
        fn every_envelope_is_read_back_from_its_canonical_form(
            payload in proptest::collection::vec(any::<u8>(), 0..200),
            payload_type in ".{0,40}",
            sigs in proptest::collection::btree_map("[ -~]{0,70}", proptest::collection::vec(any::<u8>(), 0..80), 1..17),
        ) {
            let signatures = sigs.into_iter().map(|(keyid, sig)| Signature { keyid: Some(keyid), sig }).collect();
            let envelope = Envelope::new(payload, payload_type, signatures).unwrap();
            let again = Envelope::parse(&envelope.canonical()).unwrap();
            prop_assert_eq!(again.id(), envelope.id());
            prop_assert_eq!(again, envelope);
        }

        #[test]
        fn no_altered_byte_leaves_an_envelope_that_says_something_else(at in any::<proptest::sample::Index>(), byte in any::<u8>()) {
            let (whole, key) = (envelope(), ed25519(1).public());
            let mut bytes = whole.canonical();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            if let Ok(verified) = Envelope::parse(&bytes).and_then(|envelope| envelope.verified_by(&key)) {
                prop_assert_eq!(verified.payload(), whole.payload());
                prop_assert_eq!(&verified.payload_type, PAYLOAD_TYPE);
            }
        }
    }

    #[test]
    fn a_payload_of_another_type_is_no_statement() {
        let payload = b"{}".to_vec();
        let sig = ed25519(1).sign(&pae("application/json", &payload));
        let envelope = Envelope::new(payload, "application/json".into(), vec![Signature { keyid: None, sig }]).unwrap();
        let verified = envelope.verified_by(&ed25519(1).public()).unwrap();
        assert!(matches!(verified.statement(), Err(StatementError::PayloadType { .. })));
    }
}
