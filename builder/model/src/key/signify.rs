//! OpenBSD's signify: the same public key as minisign's, and signatures over the bare file.
//!
//! Nothing separates such a signature from one made for another purpose: only a key that signs nothing else may make them.

use data_encoding::BASE64;

use super::minisign::{bytes_of, number};
use super::{BadSignature, KeyError, PublicKey, SecretKey};
use crate::format::base64;

const KIND: &[u8; 2] = b"Ed";

/// The public key's file.
pub fn public(key: &PublicKey) -> Result<String, KeyError> {
    let text = BASE64.encode(&[&KIND[..], &number(key), &bytes_of(key, "signify")?].concat());
    Ok(format!("untrusted comment: kiln public key\n{text}\n"))
}

/// A detached signature over `message`.
pub fn sign(key: &SecretKey, message: &[u8]) -> Result<String, KeyError> {
    let public = key.public();
    bytes_of(&public, "signify")?;
    let text = BASE64.encode(&[&KIND[..], &number(&public), &key.sign(message)].concat());
    Ok(format!("untrusted comment: signature by kiln\n{text}\n"))
}

/// Checks a detached signature of `key` over `message`.
pub fn verify(key: &PublicKey, message: &[u8], signature: &str) -> Result<(), BadSignature> {
    let line = signature.lines().nth(1).ok_or(BadSignature)?;
    let bytes = base64::decode(line.as_bytes()).ok_or(BadSignature)?;
    match (bytes.get(..2), bytes.get(10..)) {
        (Some(kind), Some(signature)) if kind == KIND => key.verify(message, signature),
        _ => Err(BadSignature),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::minisign;
    use crate::key::secret::samples::{ed25519, p256};

    #[test]
    fn a_signature_holds_for_message_and_key_alone() {
        let key = ed25519(1);
        let signature = sign(&key, b"message").unwrap();
        assert_eq!(verify(&key.public(), b"message", &signature), Ok(()));
        assert_eq!(verify(&key.public(), b"massage", &signature), Err(BadSignature));
        assert_eq!(verify(&ed25519(2).public(), b"message", &signature), Err(BadSignature));
        assert_eq!(verify(&key.public(), b"message", "untrusted comment: x\nRWQ=\n"), Err(BadSignature));
        assert_eq!(verify(&key.public(), b"message", ""), Err(BadSignature));
    }

    #[test]
    fn the_public_key_is_minisigns_and_other_kinds_are_refused() {
        let key = ed25519(1).public();
        assert_eq!(minisign::parse_public(&public(&key).unwrap()).unwrap().0, key);
        assert!(matches!(public(&p256(1).public()), Err(KeyError::NoSuchKind { .. })));
        assert!(matches!(sign(&p256(1), b""), Err(KeyError::NoSuchKind { .. })));
    }
}
