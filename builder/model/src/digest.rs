//! SHA-256 digests and their spellings.
//!
//! [`Digest`] is a bare SHA-256, spelled in lower-case hex: files, packages, logs. [`NarHash`] is the SHA-256 of a tree's
//! NAR, spelled as SRI (`sha256-…=`), so that the two can never be mistaken for each other in a lock or an outcome.

use std::fmt;
use std::str::FromStr;

use data_encoding::{BASE64, HEXLOWER, HEXLOWER_PERMISSIVE};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::Digest as _;

/// A SHA-256 digest of some bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

/// The SHA-256 digest of the NAR of a file system tree.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NarHash(Digest);

/// Why a text is not a digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// Not 64 hexadecimal digits, with or without `sha256:`.
    #[error("expected 64 hexadecimal digits of a SHA-256, found {found:?}")]
    NotHex {
        /// The text as given.
        found: String,
    },
    /// Not `sha256-` and 44 characters of base64.
    #[error("expected an SRI digest (sha256-… in base64), found {found:?}")]
    NotSri {
        /// The text as given.
        found: String,
    },
}

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: impl AsRef<[u8]>) -> Self {
        Self(sha2::Sha256::digest(bytes).into())
    }

    /// A digest from its 32 bytes, as a hasher returns them.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl NarHash {
    /// Says that `digest` is that of a NAR.
    pub fn new(digest: Digest) -> Self {
        Self(digest)
    }

    /// The digest without its meaning.
    pub fn digest(&self) -> Digest {
        self.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    /// Accepts `sha256:HEX` and `HEX`, in either case.
    fn from_str(text: &str) -> Result<Self, DigestError> {
        let hex = text.strip_prefix("sha256:").unwrap_or(text);
        HEXLOWER_PERMISSIVE
            .decode(hex.as_bytes())
            .ok()
            .and_then(|bytes| <[u8; 32]>::try_from(bytes).ok())
            .map(Self)
            .ok_or_else(|| DigestError::NotHex { found: text.into() })
    }
}

impl fmt::Display for NarHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256-{}", BASE64.encode(&self.0.0))
    }
}

impl fmt::Debug for NarHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NarHash({self})")
    }
}

impl FromStr for NarHash {
    type Err = DigestError;

    /// Accepts the SRI spelling only.
    fn from_str(text: &str) -> Result<Self, DigestError> {
        text.strip_prefix("sha256-")
            .and_then(|base64| crate::format::base64::decode(base64.as_bytes()))
            .and_then(|bytes| <[u8; 32]>::try_from(bytes).ok())
            .map(|bytes| Self(Digest(bytes)))
            .ok_or_else(|| DigestError::NotSri { found: text.into() })
    }
}

macro_rules! serde_as_text {
    ($type:ty) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(de::Error::custom)
            }
        }
    };
}
pub(crate) use serde_as_text;

serde_as_text!(Digest);
serde_as_text!(NarHash);

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn the_digest_of_nothing_is_the_published_one() {
        assert_eq!(Digest::of(b"").to_string(), EMPTY);
        assert_eq!(NarHash::new(Digest::of(b"")).to_string(), "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=");
    }

    #[test]
    fn both_spellings_parse_back() {
        let digest = Digest::of(b"kiln");
        assert_eq!(digest.to_string().parse(), Ok(digest));
        assert_eq!(format!("sha256:{digest}").parse(), Ok(digest));
        let nar = NarHash::new(digest);
        assert_eq!(nar.to_string().parse(), Ok(nar));
    }

    #[test]
    fn a_short_digest_or_the_other_spelling_is_refused() {
        assert!("e3b0".parse::<Digest>().is_err());
        assert!(EMPTY.parse::<NarHash>().is_err());
        assert!("sha256-47DEQpj8HBSa".parse::<NarHash>().is_err());
        assert!("sha512:00".parse::<Digest>().is_err());
    }
}
