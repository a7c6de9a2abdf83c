//! minisign's spellings: a public key, and a detached signature with a comment that is signed, too.
//!
//! A file is signed by its BLAKE2b-512 (`ED`); the older form over the bare file (`Ed`) is read, not written. minisign gives a key
//! a random number; here it is the beginning of its [`KeyId`](super::KeyId), so that one key is always written the same way.

use blake2::{Blake2b512, Digest as _};
use data_encoding::BASE64;

use super::{Algorithm, BadSignature, KeyError, PublicKey, SecretKey};
use crate::format::base64;

/// Before a public key and a signature over the bare file.
const PLAIN: &[u8; 2] = b"Ed";
/// Before a signature over the file's digest.
const HASHED: &[u8; 2] = b"ED";

const COMMENT: &str = "untrusted comment: ";
const TRUSTED: &str = "trusted comment: ";

/// The number of a key.
pub(super) fn number(key: &PublicKey) -> [u8; 8] {
    let mut number = [0; 8];
    number.copy_from_slice(&key.id().digest().as_bytes()[..8]);
    number
}

pub(super) fn bytes_of(key: &PublicKey, format: &'static str) -> Result<[u8; 32], KeyError> {
    key.ed25519().ok_or(KeyError::NoSuchKind { format, algorithm: Algorithm::P256 })
}

/// The public key's file.
pub fn public(key: &PublicKey) -> Result<String, KeyError> {
    let bytes = bytes_of(key, "minisign")?;
    let number = number(key);
    let shown = u64::from_le_bytes(number);
    let text = BASE64.encode(&[&PLAIN[..], &number, &bytes].concat());
    Ok(format!("{COMMENT}minisign public key {shown:016X}\n{text}\n"))
}

/// The key of such a file, or of its second line alone; with the number that signatures name.
pub fn parse_public(text: &str) -> Result<(PublicKey, [u8; 8]), KeyError> {
    let wrong =
        KeyError::Form { expected: "a minisign or signify public key: a comment, then 56 characters of base64" };
    let line = text.lines().find(|line| !line.starts_with(COMMENT)).unwrap_or_default();
    let bytes = base64::decode(line.trim().as_bytes()).filter(|bytes| bytes.len() == 42).ok_or(wrong.clone())?;
    let (number, key) = (bytes[2..10].try_into(), bytes[10..].try_into());
    match (bytes.starts_with(PLAIN), number, key) {
        (true, Ok(number), Ok(key)) => Ok((PublicKey::from_ed25519(key)?, number)),
        _ => Err(wrong),
    }
}

/// A detached signature over `message`; `comment` is signed with it.
pub fn sign(key: &SecretKey, message: &[u8], comment: &str) -> Result<String, KeyError> {
    let public = key.public();
    bytes_of(&public, "minisign")?;
    if comment.chars().any(char::is_control) {
        return Err(KeyError::Form { expected: "a trusted comment in one line" });
    }
    let signature = key.sign(&Blake2b512::digest(message));
    let both = key.sign(&[&signature, comment.as_bytes()].concat());
    let first = BASE64.encode(&[&HASHED[..], &number(&public), &signature].concat());
    Ok(format!("{COMMENT}signature by kiln\n{first}\n{TRUSTED}{comment}\n{}\n", BASE64.encode(&both)))
}

/// Checks a detached signature of `key` over `message`, and returns its trusted comment.
pub fn verify<'s>(key: &PublicKey, message: &[u8], signature: &'s str) -> Result<&'s str, BadSignature> {
    let mut lines = signature.lines();
    let mut next = |prefix: &str| lines.next().and_then(|line| line.strip_prefix(prefix)).ok_or(BadSignature);
    let decoded = |text: &str| base64::decode(text.as_bytes()).ok_or(BadSignature);
    next(COMMENT)?;
    let first = decoded(next("")?)?;
    let comment = next(TRUSTED)?;
    let both = decoded(next("")?)?;
    let (how, signature) = (first.get(..2).ok_or(BadSignature)?, first.get(10..).ok_or(BadSignature)?);
    match how {
        _ if how == HASHED => key.verify(&Blake2b512::digest(message), signature)?,
        _ if how == PLAIN => key.verify(message, signature)?,
        _ => return Err(BadSignature),
    }
    key.verify(&[signature, comment.as_bytes()].concat(), &both)?;
    Ok(comment)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::secret::samples::{ed25519, p256};

    #[test]
    fn a_public_key_is_read_back_from_its_file_or_its_line() {
        let key = ed25519(1).public();
        let file = public(&key).unwrap();
        assert_eq!(parse_public(&file), Ok((key.clone(), number(&key))));
        assert_eq!(parse_public(file.lines().nth(1).unwrap()), Ok((key, number(&ed25519(1).public()))));
        for bad in ["", "untrusted comment: x\n", "untrusted comment: x\nRWQ=\n"] {
            assert!(parse_public(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_signature_holds_for_message_comment_and_key_alone() {
        let key = ed25519(1);
        let signature = sign(&key, b"message", "hello 1").unwrap();
        assert_eq!(verify(&key.public(), b"message", &signature), Ok("hello 1"));
        assert_eq!(verify(&key.public(), b"massage", &signature), Err(BadSignature));
        assert_eq!(verify(&key.public(), b"message", &signature.replace("hello 1", "hello 2")), Err(BadSignature));
        assert_eq!(verify(&ed25519(2).public(), b"message", &signature), Err(BadSignature));
        assert_eq!(verify(&key.public(), b"message", &signature[..100]), Err(BadSignature));
        assert_eq!(verify(&key.public(), b"message", ""), Err(BadSignature));
    }

    #[test]
    fn other_keys_and_comments_of_two_lines_are_refused() {
        assert!(matches!(public(&p256(1).public()), Err(KeyError::NoSuchKind { .. })));
        assert!(matches!(sign(&p256(1), b"", ""), Err(KeyError::NoSuchKind { .. })));
        assert!(matches!(sign(&ed25519(1), b"", "a\nb"), Err(KeyError::Form { .. })));
    }
}
