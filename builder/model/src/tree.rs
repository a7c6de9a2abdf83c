//! The manifest of a tree: what is in it, entry by entry.
//!
//! Two machines that disagree can name the differing files by their manifests alone. A manifest holds exactly what a NAR
//! holds, with each file's contents replaced by size and SHA-256: equal manifests mean equal NARs. Paths are bytes; in
//! JSON a byte that is not part of valid UTF-8 is written `\xHH`, and so are control characters and the backslash: one spelling per path.

mod path;

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::digest::Digest;

pub use path::{EntryPath, EntryPathError};

/// One entry of a tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum Entry {
    /// A regular file.
    File {
        /// Bytes.
        size: u64,
        /// Digest of the bytes.
        sha256: Digest,
        /// Whether its owner may execute it.
        executable: bool,
    },
    /// A directory; what is in it are entries of their own.
    Directory,
    /// A symbolic link.
    Symlink {
        /// What it holds.
        target: EntryPath,
    },
}

/// What is in a tree, by path relative to its root; the root itself has the empty path.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Manifest(BTreeMap<EntryPath, Entry>);

/// How two trees differ at one path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// Where.
    pub path: EntryPath,
    /// How.
    #[serde(flatten)]
    pub change: Change,
}

/// What differs; `left` is the first tree given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "kebab-case")]
pub enum Change {
    /// Only the first tree has it.
    OnlyLeft {
        /// What it has.
        left: Entry,
    },
    /// Only the second tree has it.
    OnlyRight {
        /// What it has.
        right: Entry,
    },
    /// One is a file, directory or link, the other is another of these.
    Kind {
        /// In the first tree.
        left: Entry,
        /// In the second.
        right: Entry,
    },
    /// Both are files with other bytes.
    Contents {
        /// In the first tree.
        left: Entry,
        /// In the second.
        right: Entry,
    },
    /// Both are files, one may be executed.
    Executable {
        /// In the first tree.
        left: bool,
        /// In the second.
        right: bool,
    },
    /// Both are links to something else.
    Target {
        /// In the first tree.
        left: EntryPath,
        /// In the second.
        right: EntryPath,
    },
}

/// Why this is not a manifest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// Not JSON of the right shape.
    #[error("not a manifest: {0}")]
    Syntax(String),
    /// Entries out of order, or twice.
    #[error("the entry {path} is out of order, or there twice")]
    Order {
        /// Which.
        path: EntryPath,
    },
    /// An entry whose parent is not a directory of the manifest.
    #[error("the entry {path} is not inside a directory of the manifest")]
    Orphan {
        /// Which.
        path: EntryPath,
    },
    /// Not how a manifest is written.
    #[error("not canonical: printing the manifest does not give these bytes back")]
    NotCanonical,
}

/// One line of the JSON form.
#[derive(Serialize, Deserialize)]
struct Line {
    path: EntryPath,
    #[serde(flatten)]
    entry: Entry,
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

impl Manifest {
    /// A manifest of entries; each must lie inside a directory that is an entry, too, except the root.
    pub fn new(entries: impl IntoIterator<Item = (EntryPath, Entry)>) -> Result<Self, ManifestError> {
        let mut map = BTreeMap::new();
        for (path, entry) in entries {
            if map.contains_key(&path) {
                return Err(ManifestError::Order { path });
            }
            map.insert(path, entry);
        }
        for path in map.keys() {
            let inside = path.parent().is_none_or(|parent| matches!(map.get(parent), Some(Entry::Directory)));
            if !inside {
                return Err(ManifestError::Orphan { path: path.clone() });
            }
        }
        Ok(Self(map))
    }

    /// Parses what [`Manifest::print`] writes, and nothing else.
    pub fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        let manifest: Self = serde_json::from_slice(bytes).map_err(|error| ManifestError::Syntax(error.to_string()))?;
        if manifest.print() == bytes { Ok(manifest) } else { Err(ManifestError::NotCanonical) }
    }

    /// Compact JSON, entries sorted by the bytes of their path.
    pub fn print(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a manifest has string keys only")
    }

    /// The digest of the printed form.
    pub fn digest(&self) -> Digest {
        Digest::of(self.print())
    }

    /// Entries sorted by the bytes of their path.
    pub fn entries(&self) -> impl Iterator<Item = (&EntryPath, &Entry)> {
        self.0.iter()
    }

    /// The entry at a path.
    pub fn entry(&self, path: impl AsRef<[u8]>) -> Option<&Entry> {
        self.0.get(path.as_ref())
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is nothing, not even a root.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Serialize for Manifest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(|(path, entry)| Line { path: path.clone(), entry: entry.clone() }))
    }
}

impl<'de> Deserialize<'de> for Manifest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let lines = Vec::<Line>::deserialize(deserializer)?;
        if let Some(pair) = lines.windows(2).find(|pair| pair[0].path >= pair[1].path) {
            return Err(de::Error::custom(ManifestError::Order { path: pair[1].path.clone() }));
        }
        Self::new(lines.into_iter().map(|line| (line.path, line.entry))).map_err(de::Error::custom)
    }
}

/// How `right` differs from `left`, sorted by path. A file may differ in contents and in the executable bit.
pub fn differences(left: &Manifest, right: &Manifest) -> Vec<Difference> {
    let mut found = Vec::new();
    let mut tell = |path: &EntryPath, change| found.push(Difference { path: path.clone(), change });
    let mut ours = left.0.iter().peekable();
    let mut theirs = right.0.iter().peekable();
    loop {
        let order = match (ours.peek(), theirs.peek()) {
            (None, None) => return found,
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (Some((a, _)), Some((b, _))) => a.cmp(b),
        };
        let ours = order.is_le().then(|| ours.next()).flatten();
        let theirs = order.is_ge().then(|| theirs.next()).flatten();
        match (ours, theirs) {
            (Some((path, left)), None) => tell(path, Change::OnlyLeft { left: left.clone() }),
            (None, Some((path, right))) => tell(path, Change::OnlyRight { right: right.clone() }),
            (Some((path, left)), Some((_, right))) => compare(left, right, |change| tell(path, change)),
            (None, None) => unreachable!("one side was peeked at"),
        }
    }
}

fn compare(left: &Entry, right: &Entry, mut tell: impl FnMut(Change)) {
    match (left, right) {
        (
            Entry::File { size, sha256, executable },
            Entry::File { size: other_size, sha256: other_sha256, executable: other_executable },
        ) => {
            if (size, sha256) != (other_size, other_sha256) {
                tell(Change::Contents { left: left.clone(), right: right.clone() });
            }
            if executable != other_executable {
                tell(Change::Executable { left: *executable, right: *other_executable });
            }
        }
        (Entry::Symlink { target }, Entry::Symlink { target: other }) => {
            if target != other {
                tell(Change::Target { left: target.clone(), right: other.clone() });
            }
        }
        (Entry::Directory, Entry::Directory) => {}
        (Entry::File { .. } | Entry::Symlink { .. } | Entry::Directory, _) => {
            tell(Change::Kind { left: left.clone(), right: right.clone() });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(contents: &str, executable: bool) -> Entry {
        Entry::File { size: contents.len() as u64, sha256: Digest::of(contents), executable }
    }

    fn manifest(entries: &[(&[u8], Entry)]) -> Manifest {
        let root = (EntryPath::default(), Entry::Directory);
        let entries = entries.iter().map(|(path, entry)| (EntryPath::from(*path), entry.clone()));
        Manifest::new(std::iter::once(root).chain(entries)).unwrap()
    }

    fn link(target: &[u8]) -> Entry {
        Entry::Symlink { target: target.into() }
    }

    #[test]
    fn the_encoding_of_a_manifest_is_stable() {
        let manifest = manifest(&[
            (b"bin", Entry::Directory),
            (b"bin/hello", file("hello", true)),
            (b"bin/\xffback\\slash", file("", false)),
            (b"link", link(b"../\xc3\x28")),
        ]);
        assert_eq!(
            String::from_utf8(manifest.print()).unwrap(),
            concat!(
                r#"[{"path":"","kind":"directory"},{"path":"bin","kind":"directory"},"#,
                r#"{"path":"bin/hello","kind":"file","size":5,"sha256":"2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824","executable":true},"#,
                r#"{"path":"bin/\\xffback\\x5cslash","kind":"file","size":0,"sha256":"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","executable":false},"#,
                r#"{"path":"link","kind":"symlink","target":"../\\xc3("}]"#,
            )
        );
        assert_eq!(Manifest::parse(&manifest.print()), Ok(manifest.clone()));
        assert_eq!(manifest.digest().to_string(), "9e8f32fd9637bbe781f49c3c0d9600a12eb74553eeda79526b94f4b60e41c71b");
    }

    #[test]
    fn a_manifest_that_would_be_written_otherwise_is_refused() {
        for bad in [
            r#"[{"path":"\\x41","kind":"directory"}]"#,
            r#"[{"path":"\\q","kind":"directory"}]"#,
            r#"[{"path":"b","kind":"directory"},{"path":"a","kind":"directory"}]"#,
            r#"[{"path":"a","kind":"directory"},{"path":"a","kind":"directory"}]"#,
            r#"[{"path":"","kind":"directory"},{"path":"a/b","kind":"directory"}]"#,
            r#"[ {"path":"","kind":"directory"}]"#,
            r#"[{"path":"","kind":"fifo"}]"#,
            r#"{}"#,
        ] {
            assert!(Manifest::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn each_way_to_differ_is_told_apart() {
        let left = manifest(&[
            (b"bit", file("x", false)),
            (b"bytes", file("x", false)),
            (b"gone", file("x", false)),
            (b"kind", link(b"x")),
            (b"link", link(b"x")),
            (b"same", file("x", true)),
        ]);
        let right = manifest(&[
            (b"bit", file("x", true)),
            (b"bytes", file("y", false)),
            (b"kind", Entry::Directory),
            (b"kind/new", file("x", false)),
            (b"link", link(b"y")),
            (b"same", file("x", true)),
        ]);
        let changes: Vec<_> = differences(&left, &right)
            .into_iter()
            .map(|difference| {
                let change = serde_json::to_value(&difference).unwrap()["change"].as_str().unwrap().to_owned();
                (difference.path.to_string(), change)
            })
            .collect();
        let expected = [
            ("bit", "executable"),
            ("bytes", "contents"),
            ("gone", "only-left"),
            ("kind", "kind"),
            ("kind/new", "only-right"),
            ("link", "target"),
        ];
        assert_eq!(changes, expected.map(|(path, change)| (path.to_owned(), change.to_owned())));
        assert_eq!(differences(&left, &left), []);
    }
}
