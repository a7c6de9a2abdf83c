//! Bytes of a path as text: one spelling, safe to show, no byte lost.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::digest::serde_as_text;

/// The bytes of a path, as text: UTF-8 as it is, except that control characters, other bytes and the backslash are written
/// `\xHH`. Any bytes without NUL can be written, and in one way only.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryPath(Vec<u8>);

/// The text is not a path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{found:?} is not a path: expected bytes outside UTF-8, control characters and backslashes as \\xHH, and no NUL"
)]
pub struct EntryPathError {
    /// The text as given.
    pub found: String,
}

impl EntryPath {
    /// A path from its bytes, as the file system has them (which has no NUL in them).
    pub fn from_bytes(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into())
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// This path with one more component.
    pub fn join(&self, name: &[u8]) -> Self {
        let mut path = self.0.clone();
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name);
        Self(path)
    }

    /// The path of the directory that it lies in; none for the root.
    pub(super) fn parent(&self) -> Option<&[u8]> {
        match self.0.iter().rposition(|&byte| byte == b'/') {
            Some(slash) => Some(&self.0[..slash]),
            None if self.0.is_empty() => None,
            None => Some(b""),
        }
    }
}

impl From<&[u8]> for EntryPath {
    fn from(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }
}

impl From<&str> for EntryPath {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl Borrow<[u8]> for EntryPath {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl AsRef<[u8]> for EntryPath {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for EntryPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.to_string())
    }
}

impl fmt::Display for EntryPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            for c in chunk.valid().chars() {
                if c.is_control() || c == '\\' {
                    let mut buffer = [0; 4];
                    c.encode_utf8(&mut buffer).bytes().try_for_each(|byte| write!(f, "\\x{byte:02x}"))?;
                } else {
                    write!(f, "{c}")?;
                }
            }
            chunk.invalid().iter().try_for_each(|byte| write!(f, "\\x{byte:02x}"))?;
        }
        Ok(())
    }
}

impl FromStr for EntryPath {
    type Err = EntryPathError;

    fn from_str(text: &str) -> Result<Self, EntryPathError> {
        let refuse = || EntryPathError { found: text.into() };
        let mut bytes = Vec::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find('\\') {
            bytes.extend_from_slice(&rest.as_bytes()[..at]);
            let escape = rest.get(at..at + 4).and_then(|e| e.strip_prefix("\\x")).ok_or_else(refuse)?;
            bytes.push(u8::from_str_radix(escape, 16).map_err(|_| refuse())?);
            rest = &rest[at + 4..];
        }
        bytes.extend_from_slice(rest.as_bytes());
        let path = Self(bytes);
        if path.0.contains(&0) || path.to_string() != text { Err(refuse()) } else { Ok(path) }
    }
}

serde_as_text!(EntryPath);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_second_spelling_of_a_path_is_refused() {
        for bad in ["\\x41", "\\", "\\x4", "\\xE9", "\\x00", "\n", "\\x+1", "\\xc3\\xa9"] {
            assert!(bad.parse::<EntryPath>().is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_of_a_path_survive(bytes in proptest::collection::vec(1..=255_u8, 0..20)) {
            let path = EntryPath::from_bytes(bytes);
            prop_assert_eq!(path.to_string().parse(), Ok(path));
        }
    }
}
