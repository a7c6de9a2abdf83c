//! A key's identity: SHA-256 of its SubjectPublicKeyInfo.
//!
//! One digest, three spellings: lower-case hex (DSSE), `sha256:` and hex (policies), standard base64 (Sigstore's `hint`).

use std::fmt;
use std::str::FromStr;

use data_encoding::BASE64;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::digest::{Digest, DigestError, serde_as_text};
use crate::format::base64;

/// SHA-256 of a SubjectPublicKeyInfo in DER.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(Digest);

impl KeyId {
    /// The id that is this digest.
    pub fn new(digest: Digest) -> Self {
        Self(digest)
    }

    /// The digest.
    pub fn digest(&self) -> Digest {
        self.0
    }

    /// As Sigstore's bundles have it: base64.
    pub fn hint(&self) -> String {
        BASE64.encode(self.0.as_bytes())
    }

    /// The id from [`KeyId::hint`].
    pub fn from_hint(text: &str) -> Option<Self> {
        let bytes = base64::decode(text.as_bytes())?;
        Some(Self(Digest::from_bytes(bytes.try_into().ok()?)))
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({self})")
    }
}

impl FromStr for KeyId {
    type Err = DigestError;

    /// Accepts `sha256:HEX` and `HEX`, in either case.
    fn from_str(text: &str) -> Result<Self, DigestError> {
        text.parse().map(Self)
    }
}

serde_as_text!(KeyId);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_three_spellings_are_of_one_id() {
        let id = KeyId::new(Digest::of("key"));
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(format!("sha256:{id}").parse(), Ok(id));
        assert_eq!(KeyId::from_hint(&id.hint()), Some(id));
        assert_eq!(serde_json::to_string(&id).unwrap(), format!("\"{id}\""));
    }

    #[test]
    fn a_hint_of_another_length_is_none() {
        assert_eq!(KeyId::from_hint(&BASE64.encode(&[0; 31])), None);
        assert_eq!(KeyId::from_hint("x"), None);
    }
}
