//! Nix's spellings of the same keys: `NAME:BASE64`. What is signed with them is [`crate::format::signature`]'s.

use super::minisign::bytes_of;
use super::{KeyError, PublicKey, SecretKey};
use crate::format::base64;
use crate::format::signature;

const FORMAT: &str = "a key in Nix's format: NAME:BASE64";

/// The public key's line.
pub fn public(key: &PublicKey, name: &str) -> Result<String, KeyError> {
    let text = data_encoding::BASE64.encode(&bytes_of(key, "Nix")?);
    let line = format!("{name}:{text}");
    line.parse::<signature::PublicKey>().map_err(|_| KeyError::Form { expected: FORMAT })?;
    Ok(line)
}

/// The key of such a line.
pub fn parse_public(line: &str) -> Result<PublicKey, KeyError> {
    let wrong = KeyError::Form { expected: FORMAT };
    let (_, text) = line.trim().split_once(':').ok_or(wrong.clone())?;
    let bytes = base64::decode(text.as_bytes()).and_then(|bytes| bytes.try_into().ok());
    PublicKey::from_ed25519(&bytes.ok_or(wrong)?)
}

/// The key of a secret key's file.
pub fn parse_secret(text: &str) -> Result<SecretKey, KeyError> {
    let wrong = KeyError::Form { expected: FORMAT };
    let (_, encoded) = text.trim().split_once(':').ok_or(wrong.clone())?;
    // Checked there: both halves belong together.
    text.trim().parse::<signature::SecretKey>().map_err(|_| wrong.clone())?;
    let bytes = base64::decode(encoded.as_bytes()).ok_or_else(|| wrong.clone())?;
    let seed = bytes.first_chunk::<32>().ok_or(wrong)?;
    Ok(SecretKey::ed25519(seed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::secret::samples::{ed25519, p256};

    #[test]
    fn keys_are_the_same_as_nixs() {
        let theirs = signature::SecretKey::from_seed("cache-1", &[1; 32]).unwrap();
        let ours = ed25519(1).public();
        assert_eq!(public(&ours, "cache-1").unwrap(), theirs.public().to_string());
        assert_eq!(parse_public(&theirs.public().to_string()), Ok(ours.clone()));
        assert_eq!(parse_secret(&theirs.reveal()).unwrap().public(), ours);
    }

    #[test]
    fn names_with_blanks_and_other_keys_are_refused() {
        assert!(public(&ed25519(1).public(), "a b").is_err());
        assert!(public(&p256(1).public(), "a").is_err());
        assert!(parse_public("a").is_err());
        let torn = signature::SecretKey::from_seed("a", &[1; 32]).unwrap().reveal().replacen("AQEB", "AgEB", 1);
        assert!(parse_secret(&torn).is_err());
    }
}
