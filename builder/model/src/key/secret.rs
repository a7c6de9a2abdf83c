//! The half of a key that nobody else may know.
//!
//! Read from and written to PKCS#8 in PEM, under a passphrase if the file has one (PBES2; scrypt when written). Never shown by
//! `Debug`; [`SecretKey::to_pem`] is the one way to see it, and its text is wiped when it is dropped.

use std::fmt;

use ed25519_dalek as ed25519;
use ed25519_dalek::Signer as _;
use p256::ecdsa;
use pkcs8::der::zeroize::Zeroizing;
use pkcs8::der::{Decode as _, pem};
use pkcs8::pkcs5::{pbes2, scrypt};
use pkcs8::{EncryptedPrivateKeyInfo, ObjectIdentifier, PrivateKeyInfo};

use super::{Algorithm, KeyError, PublicKey};

const PLAIN: &str = "PRIVATE KEY";
const ENCRYPTED: &str = "ENCRYPTED PRIVATE KEY";

/// RFC 8410, 7: what stands before the 32 bytes of the seed, in the version that every reader has.
const ED25519: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

/// RFC 8410, 3.
const ED25519_OID: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");

/// 16 MiB: openssl refuses to spend more than 32 in all (EVP_PBE_scrypt(3)).
const SCRYPT_LOG_N: u8 = 14;

/// A key that nobody else may know.
pub struct SecretKey(Half);

enum Half {
    Ed25519(ed25519::SigningKey),
    P256(ecdsa::SigningKey),
}

/// What a key's file is encrypted with. The random parts come from the caller.
pub struct Passphrase<'a> {
    /// The passphrase.
    pub words: &'a str,
    /// 16 random bytes.
    pub salt: [u8; 16],
    /// 16 more.
    pub iv: [u8; 16],
}

impl SecretKey {
    /// The Ed25519 key of 32 random bytes.
    pub fn ed25519(seed: &[u8; 32]) -> Self {
        Self(Half::Ed25519(ed25519::SigningKey::from_bytes(seed)))
    }

    /// The P-256 key of a random number. Few of 2^32 are none: make another then.
    pub fn p256(scalar: &[u8; 32]) -> Result<Self, KeyError> {
        let key =
            ecdsa::SigningKey::from_slice(scalar).map_err(|_| KeyError::NotAKey { algorithm: Algorithm::P256 })?;
        Ok(Self(Half::P256(key)))
    }

    /// The key from a PEM file, decrypted with `passphrase` if it is encrypted.
    pub fn from_pem(text: &str, passphrase: Option<&str>) -> Result<Self, KeyError> {
        let (label, der) = pem::decode_vec(text.trim_start().as_bytes()).map_err(|_| KeyError::Pem { label: PLAIN })?;
        let der = Zeroizing::new(der);
        match label {
            PLAIN => Self::from_pkcs8(&der),
            ENCRYPTED => {
                let words = passphrase.ok_or(KeyError::Encrypted)?;
                let sealed = EncryptedPrivateKeyInfo::from_der(&der).map_err(|_| KeyError::Pkcs8)?;
                let der = sealed.decrypt(words).map_err(|_| KeyError::Passphrase)?;
                Self::from_pkcs8(der.as_bytes())
            }
            _ => Err(KeyError::Pem { label: PLAIN }),
        }
    }

    fn from_pkcs8(der: &[u8]) -> Result<Self, KeyError> {
        if let Ok(info) = PrivateKeyInfo::from_der(der)
            && info.algorithm.oid == ED25519_OID
        {
            // RFC 8410, 7: an octet string in the octet string.
            let seed = info.private_key.strip_prefix(&[0x04, 0x20]).and_then(|seed| seed.try_into().ok());
            return seed.map(Self::ed25519).ok_or(KeyError::Pkcs8);
        }
        let key = <p256::SecretKey as pkcs8::DecodePrivateKey>::from_pkcs8_der(der).map_err(|_| KeyError::Pkcs8)?;
        Ok(Self(Half::P256(key.into())))
    }

    fn pkcs8(&self) -> Zeroizing<Vec<u8>> {
        match &self.0 {
            Half::Ed25519(key) => Zeroizing::new([&ED25519[..], key.as_bytes()].concat()),
            Half::P256(key) => {
                let key = p256::SecretKey::from(key.as_nonzero_scalar());
                let der = pkcs8::EncodePrivateKey::to_pkcs8_der(&key).expect("a key that exists has an encoding");
                Zeroizing::new(der.as_bytes().to_vec())
            }
        }
    }

    /// As `openssl` writes it: the one way to see it.
    pub fn to_pem(&self, passphrase: Option<&Passphrase<'_>>) -> Zeroizing<String> {
        let der = self.pkcs8();
        let (label, der) = match passphrase {
            None => (PLAIN, der),
            Some(Passphrase { words, salt, iv }) => {
                let effort = scrypt::Params::new(SCRYPT_LOG_N, 8, 1, 32).expect("parameters within scrypt's bounds");
                let how =
                    pbes2::Parameters::scrypt_aes256cbc(effort, salt, iv).expect("parameters within PBES2's bounds");
                let info = PrivateKeyInfo::from_der(&der).expect("written above");
                let sealed = info.encrypt_with_params(how, words).expect("a key of this size is encrypted");
                (ENCRYPTED, Zeroizing::new(sealed.as_bytes().to_vec()))
            }
        };
        Zeroizing::new(pem::encode_string(label, pem::LineEnding::LF, &der).expect("a key of this size fits into PEM"))
    }

    /// Signs `message`: 64 bytes, or ECDSA's pair in DER with the lower of its halves.
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        match &self.0 {
            Half::Ed25519(key) => key.sign(message).to_bytes().to_vec(),
            Half::P256(key) => {
                let signature: ecdsa::Signature = p256::ecdsa::signature::Signer::sign(key, message);
                signature.normalize_s().unwrap_or(signature).to_der().as_bytes().to_vec()
            }
        }
    }

    /// The half that others may know.
    pub fn public(&self) -> PublicKey {
        match &self.0 {
            Half::Ed25519(key) => PublicKey::Ed25519(key.verifying_key()),
            Half::P256(key) => PublicKey::P256(*key.verifying_key()),
        }
    }

    /// The seed of an Ed25519 key: to write it in another program's format.
    pub fn seed(&self) -> Option<Zeroizing<[u8; 32]>> {
        match &self.0 {
            Half::Ed25519(key) => Some(Zeroizing::new(key.to_bytes())),
            Half::P256(_) => None,
        }
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SecretKey").field(&self.public()).finish()
    }
}

#[cfg(test)]
pub(crate) mod samples {
    use super::*;

    pub(crate) fn ed25519(seed: u8) -> SecretKey {
        SecretKey::ed25519(&[seed; 32])
    }

    pub(crate) fn p256(seed: u8) -> SecretKey {
        SecretKey::p256(&[seed; 32]).unwrap()
    }
}

#[cfg(test)]
mod tests {
    use super::samples::{ed25519, p256};
    use super::*;

    #[test]
    fn a_key_is_read_back_from_its_file_with_a_passphrase_and_without() {
        for key in [ed25519(1), p256(1)] {
            let again = SecretKey::from_pem(&key.to_pem(None), None).unwrap();
            assert_eq!(again.public(), key.public());
            let passphrase = Passphrase { words: "open", salt: [1; 16], iv: [2; 16] };
            let sealed = key.to_pem(Some(&passphrase));
            assert_eq!(SecretKey::from_pem(&sealed, Some("open")).unwrap().public(), key.public());
            assert_eq!(SecretKey::from_pem(&sealed, None).unwrap_err(), KeyError::Encrypted);
            assert_eq!(SecretKey::from_pem(&sealed, Some("shut")).unwrap_err(), KeyError::Passphrase);
        }
    }

    #[test]
    fn signing_again_gives_the_same_bytes_and_debug_shows_no_secret() {
        for key in [ed25519(1), p256(1)] {
            assert_eq!(key.sign(b"m"), key.sign(b"m"));
            let hex: String = key.seed().map(|s| format!("{:?}", &s[..])).unwrap_or_else(|| "[1, 1".into());
            assert!(!format!("{key:?}").contains(&hex));
        }
    }

    #[test]
    fn impossible_numbers_and_other_files_are_refused() {
        assert!(SecretKey::p256(&[0; 32]).is_err());
        assert!(SecretKey::p256(&[0xff; 32]).is_err());
        let pem = ed25519(1).to_pem(None);
        assert_eq!(SecretKey::from_pem("", None).unwrap_err(), KeyError::Pem { label: PLAIN });
        assert_eq!(
            SecretKey::from_pem(&ed25519(1).public().to_pem(), None).unwrap_err(),
            KeyError::Pem { label: PLAIN }
        );
        assert!(SecretKey::from_pem(&pem.replace("PRIVATE", "RSA PRIVATE"), None).is_err());
        // An X25519 key has the same shape and another identifier (RFC 8410, 3).
        let x25519 = pem::encode_string(PLAIN, pem::LineEnding::LF, &{
            let mut der = ed25519(1).pkcs8().to_vec();
            der[11] = 0x6e;
            der
        });
        assert_eq!(SecretKey::from_pem(&x25519.unwrap(), None).unwrap_err(), KeyError::Pkcs8);
    }
}
