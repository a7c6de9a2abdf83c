//! What differs between two trees, entry by entry, with enough bytes to see it.

use std::fmt;

use data_encoding::HEXLOWER;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::detail::{Detail, Equivalence};
use crate::name::Variable;
use crate::outcome::{Entry, EntryPath};

/// Differences of a report, bounded.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Differences {
    /// Those that are listed, by output, then path.
    pub differences: Vec<Difference>,
    /// How many more there are.
    #[serde(default)]
    pub differences_left_out: u64,
}

/// One entry that differs between two outcomes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// The two that are compared, as indices into the report's outcomes, and after them into its other sides.
    pub between: [usize; 2],
    /// The output.
    pub output: Variable,
    /// Where in that output.
    pub path: EntryPath,
    /// What sort of difference it is.
    pub kind: Kind,
    /// The entry in the first outcome; null where it is not.
    pub first: Option<Entry>,
    /// The entry in the second outcome.
    pub second: Option<Entry>,
    /// The first place where two files' bytes differ, if both could be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<Content>,
    /// What differs inside the two files, the most telling first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub details: Vec<Detail>,
    /// How many more details there are.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub details_left_out: u64,
    /// The normalisers after which the two files are equal, if there are any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub equivalence: Option<Equivalence>,
}

impl Difference {
    /// A difference of which nothing more is known yet.
    pub fn new(between: [usize; 2], output: Variable, path: EntryPath, kind: Kind) -> Self {
        Self {
            between,
            output,
            path,
            kind,
            first: None,
            second: None,
            content: None,
            details: Vec::new(),
            details_left_out: 0,
            equivalence: None,
        }
    }
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// What sort of difference it is. The strongest, where there are several.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The second outcome lacks it.
    OnlyInFirst,
    /// The first outcome lacks it.
    OnlyInSecond,
    /// A file there, a directory or link here.
    Type,
    /// Two files with other bytes.
    Content,
    /// Two links that point elsewhere.
    Target,
    /// Two files with the same bytes, one of them executable.
    Executable,
}

impl Kind {
    /// How two entries at one path differ; `None` if they do not.
    pub fn of(first: Option<&Entry>, second: Option<&Entry>) -> Option<Self> {
        match (first, second) {
            (None, None) => None,
            (Some(_), None) => Some(Self::OnlyInFirst),
            (None, Some(_)) => Some(Self::OnlyInSecond),
            (Some(a), Some(b)) if a == b => None,
            (
                Some(Entry::File { size, sha256, .. }),
                Some(Entry::File { size: other_size, sha256: other_sha256, .. }),
            ) => Some(if (size, sha256) == (other_size, other_sha256) { Self::Executable } else { Self::Content }),
            (Some(Entry::Symlink { .. }), Some(Entry::Symlink { .. })) => Some(Self::Target),
            (Some(_), Some(_)) => Some(Self::Type),
        }
    }

    /// The word in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OnlyInFirst => "only-in-first",
            Self::OnlyInSecond => "only-in-second",
            Self::Type => "type",
            Self::Content => "content",
            Self::Target => "target",
            Self::Executable => "executable",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Where two files' bytes differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    /// Offset of the first byte that differs, or that only one file has.
    pub offset: u64,
    /// How many bytes differ within the shorter file's length.
    pub differing_bytes: u64,
    /// Where the excerpts begin: a little before `offset`.
    pub excerpt_offset: u64,
    /// Bytes of the first file from there.
    pub first: Excerpt,
    /// Bytes of the second file from there.
    pub second: Excerpt,
}

/// A few bytes of a file. In JSON `hex` and `text`; only `hex` is read back.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Excerpt(Vec<u8>);

impl Excerpt {
    /// These bytes.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into())
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Printable ASCII as it is, a dot for every other byte.
    pub fn text(&self) -> String {
        self.0.iter().map(|&b| if (0x20..0x7f).contains(&b) { char::from(b) } else { '.' }).collect()
    }
}

impl Serialize for Excerpt {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Both {
            hex: String,
            text: String,
        }
        Both { hex: HEXLOWER.encode(&self.0), text: self.text() }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Excerpt {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Hex {
            hex: String,
        }
        let Hex { hex } = Hex::deserialize(deserializer)?;
        HEXLOWER.decode(hex.as_bytes()).map(Self).map_err(|e| de::Error::custom(format!("excerpt {hex:?}: {e}")))
    }
}
