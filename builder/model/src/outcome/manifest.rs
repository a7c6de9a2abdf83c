//! What is in an output, file by file: enough for two machines to name what differs without shipping it.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::digest::{Digest, serde_as_text};

/// Every entry of a tree, by path. The root's path is empty: an output may be a single file.
///
/// In JSON a list of entries, each with its `path`, sorted by the paths' bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Manifest(BTreeMap<EntryPath, Entry>);

/// One entry, as a NAR tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Entry {
    /// A regular file.
    File {
        /// Whether its owner may execute it.
        executable: bool,
        /// Bytes.
        size: u64,
        /// Digest of the bytes.
        sha256: Digest,
    },
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink {
        /// Where it points; spelled as a path is.
        target: EntryPath,
    },
}

impl Entry {
    /// The word in JSON and in reports.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::File { .. } => "file",
            Self::Directory => "directory",
            Self::Symlink { .. } => "symlink",
        }
    }
}

/// The bytes of a path, as text: UTF-8 as it is, except that control characters, other bytes and the backslash are written
/// `\xHH`. Any bytes without NUL can be written, and in one way only.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
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

impl Manifest {
    /// The entry at `path`.
    pub fn entry(&self, path: &EntryPath) -> Option<&Entry> {
        self.0.get(path)
    }

    /// Adds an entry; returns the one that was there.
    pub fn insert(&mut self, path: EntryPath, entry: Entry) -> Option<Entry> {
        self.0.insert(path, entry)
    }

    /// Entries in the order of their paths' bytes.
    pub fn iter(&self) -> impl Iterator<Item = (&EntryPath, &Entry)> {
        self.0.iter()
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none, not even a root.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<(EntryPath, Entry)> for Manifest {
    fn from_iter<I: IntoIterator<Item = (EntryPath, Entry)>>(entries: I) -> Self {
        Self(entries.into_iter().collect())
    }
}

impl Serialize for Manifest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Line<'a> {
            path: &'a EntryPath,
            #[serde(flatten)]
            entry: &'a Entry,
        }
        serializer.collect_seq(self.0.iter().map(|(path, entry)| Line { path, entry }))
    }
}

impl<'de> Deserialize<'de> for Manifest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Line {
            path: EntryPath,
            #[serde(flatten)]
            entry: Entry,
        }
        let mut manifest = Self::default();
        for Line { path, entry } in Vec::<Line>::deserialize(deserializer)? {
            if manifest.0.last_key_value().is_some_and(|(last, _)| *last >= path) {
                return Err(de::Error::custom(format!("manifest entry {path} is out of order or there twice")));
            }
            manifest.insert(path, entry);
        }
        Ok(manifest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample() -> Manifest {
        let file = Entry::File { executable: true, size: 3, sha256: Digest::of("abc") };
        Manifest::from_iter([
            (EntryPath::default(), Entry::Directory),
            (EntryPath::from_bytes(*b"bin"), file.clone()),
            (EntryPath::from_bytes(*b"caf\xe9\n\\"), file),
            (EntryPath::from_bytes(*b"link"), Entry::Symlink { target: EntryPath::from_bytes(*b"../x") }),
        ])
    }

    #[test]
    fn a_manifest_is_a_sorted_list_with_odd_bytes_spelled_out() {
        let json = serde_json::to_string(&sample()).unwrap();
        let sha256 = Digest::of("abc");
        assert_eq!(
            json,
            format!(
                r#"[{{"path":"","kind":"directory"}},{{"path":"bin","kind":"file","executable":true,"size":3,"sha256":"{sha256}"}},{{"path":"caf\\xe9\\x0a\\x5c","kind":"file","executable":true,"size":3,"sha256":"{sha256}"}},{{"path":"link","kind":"symlink","target":"../x"}}]"#
            )
        );
        assert_eq!(serde_json::from_str::<Manifest>(&json).unwrap(), sample());
    }

    #[test]
    fn an_unsorted_or_doubled_manifest_is_refused() {
        for bad in [
            r#"[{"path":"b","kind":"directory"},{"path":"a","kind":"directory"}]"#,
            r#"[{"path":"a","kind":"directory"},{"path":"a","kind":"directory"}]"#,
            r#"[{"path":"a","kind":"fifo"}]"#,
        ] {
            assert!(serde_json::from_str::<Manifest>(bad).is_err(), "{bad}");
        }
    }

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
