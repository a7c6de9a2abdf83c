//! Keys and signatures as Nix's caches have them: `NAME:BASE64`, Ed25519 over a fingerprint.
//!
//! A secret key is its name and 64 bytes, seed and public half; a public key is its name and 32 bytes. The name says which key to
//! try and proves nothing. Ed25519 is deterministic: signing again gives the same line. Keys are made elsewhere, because making one
//! takes randomness.

use std::fmt;
use std::str::FromStr;

use data_encoding::BASE64;
use ed25519_dalek::{Signer as _, SigningKey, VerifyingKey};

use super::base64;

/// A key that others know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey {
    name: String,
    key: VerifyingKey,
}

/// A key that nobody else may know; not shown by `Debug`.
pub struct SecretKey {
    name: String,
    key: SigningKey,
}

/// Who signed, and the signature's bytes. Nothing about it is checked yet.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Signature {
    name: String,
    bytes: [u8; 64],
}

/// Why a text is no key or signature.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// No name, or one that cannot be in a line.
    #[error("expected NAME:BASE64, where NAME is not empty and has neither blanks nor colons")]
    Name,
    /// Not base64, or too short or too long.
    #[error("{name}: expected {expected} bytes in base64 after the colon")]
    Length {
        /// The name of the key.
        name: String,
        /// How many.
        expected: usize,
    },
    /// Bytes that are no point of the curve, or halves that do not belong together.
    #[error("{name}: not an Ed25519 key")]
    NotAKey {
        /// The name of the key.
        name: String,
    },
}

/// Why nobody trusted vouches for something.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Untrusted {
    /// There are no signatures.
    #[error("it has no signature")]
    Unsigned,
    /// Only signatures by keys that are not trusted.
    #[error("no trusted key signed it, only {}", names.join(", "))]
    UnknownKeys {
        /// Theirs.
        names: Vec<String>,
    },
    /// A signature that is none.
    #[error("its signature {line:?} is malformed")]
    Malformed {
        /// As given.
        line: String,
        /// What is wrong.
        source: KeyError,
    },
    /// A signature under a trusted name that does not fit.
    #[error("its signature by {name} does not hold: it was altered, or another key has the same name")]
    Wrong {
        /// The key's name.
        name: String,
    },
}

/// Says which of `keys` signed `text`. One that holds is enough, whatever the others are.
pub fn signer<'k>(keys: &'k [PublicKey], text: &[u8], lines: &[String]) -> Result<&'k PublicKey, Untrusted> {
    let mut refusal = None;
    let mut unknown = Vec::new();
    for line in lines {
        match line.parse::<Signature>() {
            Err(source) => {
                refusal.get_or_insert(Untrusted::Malformed { line: line.clone(), source });
            }
            Ok(signature) => {
                let mut named = keys.iter().filter(|key| key.name == signature.name).peekable();
                if named.peek().is_none() {
                    unknown.push(signature.name.clone());
                } else if let Some(key) = named.find(|key| key.verifies(text, &signature)) {
                    return Ok(key);
                } else {
                    refusal = Some(Untrusted::Wrong { name: signature.name });
                }
            }
        }
    }
    Err(match refusal {
        Some(refusal) => refusal,
        None if unknown.is_empty() => Untrusted::Unsigned,
        None => Untrusted::UnknownKeys { names: unknown },
    })
}

impl PublicKey {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether `signature` is this key's over `text`.
    pub fn verifies(&self, text: &[u8], signature: &Signature) -> bool {
        // Strict: libsodium, which Nix verifies with, refuses points of small order, too.
        signature.name == self.name
            && self.key.verify_strict(text, &ed25519_dalek::Signature::from_bytes(&signature.bytes)).is_ok()
    }
}

impl SecretKey {
    /// A key from 32 random bytes.
    pub fn from_seed(name: &str, seed: &[u8; 32]) -> Result<Self, KeyError> {
        Ok(Self { name: checked(name)?, key: SigningKey::from_bytes(seed) })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Signs `text`.
    pub fn sign(&self, text: &[u8]) -> Signature {
        Signature { name: self.name.clone(), bytes: self.key.sign(text).to_bytes() }
    }

    /// The half that others may know.
    pub fn public(&self) -> PublicKey {
        PublicKey { name: self.name.clone(), key: self.key.verifying_key() }
    }

    /// As Nix's key files have it: the one way to see it.
    pub fn reveal(&self) -> String {
        format!("{}:{}", self.name, BASE64.encode(&self.key.to_keypair_bytes()))
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SecretKey").field(&self.name).finish()
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.name, BASE64.encode(self.key.as_bytes()))
    }
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.name, BASE64.encode(&self.bytes))
    }
}

impl FromStr for PublicKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let (name, bytes) = halves::<32>(text)?;
        match VerifyingKey::from_bytes(&bytes) {
            Ok(key) if !key.is_weak() => Ok(Self { name, key }),
            Ok(_) | Err(_) => Err(KeyError::NotAKey { name }),
        }
    }
}

impl FromStr for SecretKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let (name, bytes) = halves::<64>(text)?;
        match SigningKey::from_keypair_bytes(&bytes) {
            Ok(key) => Ok(Self { name, key }),
            Err(_) => Err(KeyError::NotAKey { name }),
        }
    }
}

impl FromStr for Signature {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let (name, bytes) = halves::<64>(text)?;
        Ok(Self { name, bytes })
    }
}

fn checked(name: &str) -> Result<String, KeyError> {
    let good = !name.is_empty() && name.chars().all(|c| c.is_ascii_graphic() && c != ':');
    if good { Ok(name.into()) } else { Err(KeyError::Name) }
}

fn halves<const N: usize>(text: &str) -> Result<(String, [u8; N]), KeyError> {
    let (name, encoded) = text.split_once(':').ok_or(KeyError::Name)?;
    let name = checked(name)?;
    let bytes = base64::decode(encoded.as_bytes()).and_then(|bytes| <[u8; N]>::try_from(bytes).ok());
    match bytes {
        Some(bytes) => Ok((name, bytes)),
        None => Err(KeyError::Length { name, expected: N }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str, seed: u8) -> SecretKey {
        SecretKey::from_seed(name, &[seed; 32]).unwrap()
    }

    #[test]
    fn keys_and_signatures_parse_back_and_a_secret_key_is_not_shown() {
        let secret = key("a-1", 1);
        let again: SecretKey = secret.reveal().parse().unwrap();
        assert_eq!(again.public(), secret.public());
        assert_eq!(secret.public().to_string().parse(), Ok(secret.public()));
        let signature = secret.sign(b"text");
        assert_eq!(signature.to_string().parse(), Ok(signature));
        assert_eq!(format!("{secret:?}"), "SecretKey(\"a-1\")");
    }

    #[test]
    fn one_good_signature_of_a_trusted_key_is_enough() {
        let (trusted, other) = (key("a-1", 1), key("b-1", 2));
        let lines = ["no".into(), other.sign(b"x").to_string(), trusted.sign(b"x").to_string()];
        assert_eq!(signer(&[trusted.public()], b"x", &lines).unwrap().name(), "a-1");
    }

    #[test]
    fn what_no_trusted_key_signed_is_refused_and_says_why() {
        let (trusted, namesake, other) = (key("a-1", 1), key("a-1", 3), key("b-1", 2));
        let keys = [trusted.public()];
        let refusal = |lines: &[String]| signer(&keys, b"x", lines).unwrap_err();
        assert_eq!(refusal(&[]), Untrusted::Unsigned);
        assert_eq!(refusal(&[other.sign(b"x").to_string()]), Untrusted::UnknownKeys { names: vec!["b-1".into()] });
        assert_eq!(refusal(&[namesake.sign(b"x").to_string()]), Untrusted::Wrong { name: "a-1".into() });
        assert_eq!(refusal(&[trusted.sign(b"y").to_string()]), Untrusted::Wrong { name: "a-1".into() });
        assert!(matches!(refusal(&["abc".into()]), Untrusted::Malformed { .. }));
        assert!(matches!(refusal(&["a-1:AAAA".into()]), Untrusted::Malformed { .. }));
    }

    #[test]
    fn names_that_cannot_be_in_a_line_are_refused() {
        for name in ["", "a b", "a:b", "a\n", "ä"] {
            assert_eq!(SecretKey::from_seed(name, &[0; 32]).unwrap_err(), KeyError::Name, "{name:?}");
        }
        assert!("a-1:".parse::<PublicKey>().is_err());
        assert!(format!("a-1:{}", BASE64.encode(&[0; 32])).parse::<PublicKey>().is_err());
    }
}
