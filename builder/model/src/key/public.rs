//! The half of a key that others know.
//!
//! Read from SubjectPublicKeyInfo and nothing looser: each kind has exactly one encoding here, so that one key has one
//! [`KeyId`]. In PEM one more is read, rebuilderd's, which becomes that one. Ed25519 is verified strictly (no points of small
//! order); of ECDSA both signatures that fit are taken.

use std::fmt;

use data_encoding::{BASE64, HEXLOWER};
use ed25519_dalek as ed25519;
use p256::ecdsa;
use p256::ecdsa::signature::Verifier as _;
use p256::elliptic_curve::sec1::ToEncodedPoint as _;

use super::{Algorithm, KeyError, KeyId};
use crate::digest::Digest;

/// RFC 8410, 4: what stands before the 32 bytes.
const ED25519: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// The same with parameters that RFC 8410, 3 says must be absent: in-toto's Rust crate writes them, and so rebuilderd.
const ED25519_WITH_NULL: [u8; 14] =
    [0x30, 0x2c, 0x30, 0x07, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x05, 0x00, 0x03, 0x21, 0x00];

/// RFC 5480, 2: what stands before the 65 bytes of an uncompressed point of P-256.
const P256: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

const LABEL: &str = "PUBLIC KEY";

/// A key that others know.
#[derive(Clone, PartialEq, Eq)]
pub enum PublicKey {
    /// Ed25519.
    Ed25519(ed25519::VerifyingKey),
    /// ECDSA over P-256 with SHA-256.
    P256(ecdsa::VerifyingKey),
}

/// A signature is not this key's over these bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the signature is not this key's over these bytes")]
pub struct BadSignature;

impl PublicKey {
    /// The key of 32 bytes.
    pub fn from_ed25519(bytes: &[u8; 32]) -> Result<Self, KeyError> {
        match ed25519::VerifyingKey::from_bytes(bytes) {
            Ok(key) if !key.is_weak() => Ok(Self::Ed25519(key)),
            Ok(_) | Err(_) => Err(KeyError::NotAKey { algorithm: Algorithm::Ed25519 }),
        }
    }

    /// The key at an uncompressed point of P-256: 0x04 and 64 bytes.
    pub fn from_p256(point: &[u8]) -> Result<Self, KeyError> {
        let wrong = KeyError::NotAKey { algorithm: Algorithm::P256 };
        match (point.len(), point.first()) {
            (65, Some(4)) => ecdsa::VerifyingKey::from_sec1_bytes(point).map(Self::P256).map_err(|_| wrong),
            _ => Err(wrong),
        }
    }

    /// The key from its SubjectPublicKeyInfo in DER.
    pub fn from_spki(der: &[u8]) -> Result<Self, KeyError> {
        match der.strip_prefix(&ED25519) {
            Some(key) => Self::from_ed25519_slice(key),
            None => Self::from_p256(der.strip_prefix(&P256).ok_or(KeyError::Kind)?),
        }
    }

    fn from_ed25519_slice(key: &[u8]) -> Result<Self, KeyError> {
        let key = key.try_into().map_err(|_| KeyError::NotAKey { algorithm: Algorithm::Ed25519 })?;
        Self::from_ed25519(key)
    }

    /// The SubjectPublicKeyInfo in DER: 44 bytes, or 91.
    pub fn spki(&self) -> Vec<u8> {
        match self {
            Self::Ed25519(key) => [&ED25519[..], key.as_bytes()].concat(),
            Self::P256(_) => [&P256[..], &self.bytes()].concat(),
        }
    }

    /// The bytes of the key alone: 32, or the 65 of a point.
    pub fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Ed25519(key) => key.as_bytes().to_vec(),
            Self::P256(key) => key.as_affine().to_encoded_point(false).as_bytes().to_vec(),
        }
    }

    /// Its identity.
    pub fn id(&self) -> KeyId {
        KeyId::new(Digest::of(self.spki()))
    }

    /// Which kind it is.
    pub fn algorithm(&self) -> Algorithm {
        match self {
            Self::Ed25519(_) => Algorithm::Ed25519,
            Self::P256(_) => Algorithm::P256,
        }
    }

    /// The 32 bytes, if it is an Ed25519 key.
    pub fn ed25519(&self) -> Option<[u8; 32]> {
        match self {
            Self::Ed25519(key) => Some(key.to_bytes()),
            Self::P256(_) => None,
        }
    }

    /// The key from a PEM file, as `openssl pkey -pubout` or rebuilderd writes it.
    pub fn from_pem(text: &str) -> Result<Self, KeyError> {
        let wrong = KeyError::Pem { label: LABEL };
        match pkcs8::der::pem::decode_vec(text.trim_start().as_bytes()) {
            Ok((LABEL, der)) => match der.strip_prefix(&ED25519_WITH_NULL) {
                Some(key) => Self::from_ed25519_slice(key),
                None => Self::from_spki(&der),
            },
            Ok(_) | Err(_) => Err(wrong),
        }
    }

    /// As `openssl pkey -pubout` writes it.
    pub fn to_pem(&self) -> String {
        let mut text = format!("-----BEGIN {LABEL}-----\n");
        for line in BASE64.encode(&self.spki()).as_bytes().chunks(64) {
            text.extend(line.iter().map(|&byte| char::from(byte)));
            text.push('\n');
        }
        text + "-----END PUBLIC KEY-----\n"
    }

    /// Checks that `signature` is this key's over `message`: 64 bytes, or ECDSA's pair in DER.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), BadSignature> {
        match self {
            Self::Ed25519(key) => {
                let signature = ed25519::Signature::from_slice(signature).map_err(|_| BadSignature)?;
                key.verify_strict(message, &signature).map_err(|_| BadSignature)
            }
            Self::P256(key) => {
                let signature = ecdsa::Signature::from_der(signature).map_err(|_| BadSignature)?;
                key.verify(message, &signature).map_err(|_| BadSignature)
            }
        }
    }

    /// What securesystemslib and in-toto's layouts call this key: the digest of their own description of it.
    pub fn securesystemslib_id(&self) -> String {
        self.described("")
    }

    /// What in-toto's Rust crate calls this key, and so rebuilderd in its links: as older versions of securesystemslib did.
    pub fn rebuilderd_id(&self) -> String {
        self.described(r#""keyid_hash_algorithms":["sha256","sha512"],"#)
    }

    fn described(&self, first: &str) -> String {
        // OLPC canonical JSON: only quotes and backslashes are escaped, so the newlines of a PEM stand as they are.
        let (kind, scheme, public) = match self {
            Self::Ed25519(key) => ("ed25519", "ed25519", HEXLOWER.encode(key.as_bytes())),
            Self::P256(_) => ("ecdsa", "ecdsa-sha2-nistp256", self.to_pem()),
        };
        let description =
            format!(r#"{{{first}"keytype":"{kind}","keyval":{{"public":"{public}"}},"scheme":"{scheme}"}}"#);
        Digest::of(description).to_string()
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({}, {})", self.algorithm().as_str(), self.id())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::secret::samples::{ed25519, p256};

    #[test]
    fn a_key_has_one_encoding_and_is_read_back_from_it() {
        for (key, length) in [(ed25519(1).public(), 44), (p256(1).public(), 91)] {
            assert_eq!(key.spki().len(), length);
            assert_eq!(PublicKey::from_spki(&key.spki()), Ok(key.clone()));
            assert_eq!(PublicKey::from_pem(&key.to_pem()), Ok(key.clone()));
            assert_eq!(key.id().digest(), Digest::of(key.spki()));
        }
    }

    #[test]
    fn ids_do_not_move() {
        // The two ids of one key, checked against openssl and securesystemslib (tests/tests/attest.rs).
        assert_eq!(
            [ed25519(1).public(), p256(1).public()].map(|key| (key.id().to_string(), key.securesystemslib_id())),
            [
                (
                    "fd110d301d2f077de1414b8f99f441b1403fab207b2052fbd2c065e4ee8e7dc2",
                    "7ab6b86cb2c9684b0ddc10896153aa2595decf4d4327a5ff1a8ab7422c828b12"
                ),
                (
                    "f857ae4ed6e34e33761aea25caaee3fe54a15960fb92dcd63a375ab121deb2a9",
                    "e2e78b13c23ec1e89bb3f64689136e48f97a80f2c9ea24fd758f5f709d7ede42"
                ),
            ]
            .map(|(a, b)| (a.to_owned(), b.to_owned()))
        );
    }

    #[test]
    fn rebuilderd_calls_a_key_by_a_longer_description() {
        // Held against keyids in links that rebuilderd's instances signed.
        let key = ed25519(1).public();
        let description = format!(
            r#"{{"keyid_hash_algorithms":["sha256","sha512"],"keytype":"ed25519","keyval":{{"public":"{}"}},"scheme":"ed25519"}}"#,
            HEXLOWER.encode(&key.bytes())
        );
        assert_eq!(key.rebuilderd_id(), Digest::of(description).to_string());
        assert_ne!(key.rebuilderd_id(), key.securesystemslib_id());
    }

    #[test]
    fn other_encodings_and_weak_or_impossible_keys_are_refused() {
        let (ed, ec) = (ed25519(1).public(), p256(1).public());
        let mut longer = ed.spki();
        longer.push(0);
        assert!(PublicKey::from_spki(&longer).is_err());
        let compressed = ec.bytes();
        let compressed = [&[2 + (compressed[64] & 1)], &compressed[1..33]].concat();
        assert!(PublicKey::from_p256(&compressed).is_err(), "a second encoding of the same key");
        let mut off = ec.spki();
        off[90] ^= 1;
        assert_eq!(PublicKey::from_spki(&off), Err(KeyError::NotAKey { algorithm: Algorithm::P256 }));
        assert_eq!(PublicKey::from_ed25519(&[0; 32]), Err(KeyError::NotAKey { algorithm: Algorithm::Ed25519 }));
        assert_eq!(PublicKey::from_spki(b""), Err(KeyError::Kind));
        assert!(PublicKey::from_pem(&ed.to_pem().replace("PUBLIC", "EC")).is_err());
        assert!(PublicKey::from_pem("").is_err());
    }

    #[test]
    fn a_pem_with_null_parameters_as_rebuilderd_writes_it_is_the_same_key() {
        let key = ed25519(1).public();
        let der = [&ED25519_WITH_NULL[..], &key.bytes()].concat();
        let pem = format!("-----BEGIN {LABEL}-----\r\n{}\r\n-----END {LABEL}-----\r\n", BASE64.encode(&der));
        let read = PublicKey::from_pem(&pem).unwrap();
        assert_eq!((read.id(), read.to_pem()), (key.id(), key.to_pem()));
        assert_eq!(PublicKey::from_spki(&der), Err(KeyError::Kind), "in a certificate or a policy it has one form");
        let longer =
            format!("-----BEGIN {LABEL}-----\n{}\n-----END {LABEL}-----\n", BASE64.encode(&[&der[..], &[0]].concat()));
        assert!(PublicKey::from_pem(&longer).is_err());
    }

    #[test]
    fn a_signature_holds_for_its_key_and_bytes_alone() {
        for (secret, other) in [(ed25519(1), ed25519(2)), (p256(1), p256(2)), (ed25519(1), p256(1))] {
            let signature = secret.sign(b"message");
            assert_eq!(secret.public().verify(b"message", &signature), Ok(()));
            assert_eq!(secret.public().verify(b"massage", &signature), Err(BadSignature));
            assert_eq!(other.public().verify(b"message", &signature), Err(BadSignature));
            for cut in [0, 1, signature.len() - 1] {
                assert_eq!(secret.public().verify(b"message", &signature[..cut]), Err(BadSignature));
            }
            let mut longer = signature.clone();
            longer.push(0);
            assert_eq!(secret.public().verify(b"message", &longer), Err(BadSignature));
        }
    }

    #[test]
    fn the_other_half_of_ecdsas_signatures_is_read() {
        let key = p256(1);
        let low = ecdsa::Signature::from_der(&key.sign(b"message")).unwrap();
        assert!(low.normalize_s().is_none(), "what is written is low");
        let (r, s) = (low.r(), low.s());
        let high = ecdsa::Signature::from_scalars(*r, -*s).unwrap();
        assert_eq!(key.public().verify(b"message", high.to_der().as_bytes()), Ok(()));
    }
}
