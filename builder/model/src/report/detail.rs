//! What differs inside a file: one aspect at one place, for people and for programs.
//!
//! A place leads through containers from the outside in: `data.tar.xz!usr/bin/x!.text`. What a comparison had no room for
//! is counted, never dropped in silence, and what it could not look into is a detail of its own ([`Aspect::Unread`]).
//! Texts are bounded where they are made ([`shortened`]), so that no artifact can make a report large.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Content;
use crate::digest::Digest;
use crate::normalise::Normaliser;

/// Characters of a value that are kept.
const VALUE: usize = 240;

/// One aspect of one place that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Detail {
    /// Where: names from the outside in, joined by `!`. Empty for the file as a whole.
    pub place: String,
    /// What sort of difference it is.
    pub kind: Aspect,
    /// It in a sentence.
    pub says: String,
    /// What the first side has, if it can be shown as a value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first: Option<String>,
    /// What the second side has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub second: Option<String>,
    /// Lines around the differences of two texts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lines: Vec<Line>,
    /// How many more lines differ than are shown.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub lines_left_out: u64,
    /// The first place where bytes differ; offsets are those of the innermost member or section.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<Content>,
    /// Seconds by which times of the second side are later, if it is the same for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shift: Option<i64>,
    /// The normaliser that would make it go away, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub normaliser: Option<Normaliser>,
}

/// What sort of difference a detail is, the most telling first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Aspect {
    /// A value that has a name: a field of a control file, a key of a JSON document, a chunk of an image.
    Value,
    /// Lines of a text.
    Text,
    /// A printable text in a binary file.
    String,
    /// The second side lacks a member.
    OnlyInFirst,
    /// The first side lacks a member.
    OnlyInSecond,
    /// A member is a file here, a directory or a link there.
    Type,
    /// A link's target.
    Target,
    /// A dynamic symbol, or one of the symbol table.
    Symbol,
    /// What debug information says of compiler and directory.
    DebugInfo,
    /// A section, by its presence, size or contents.
    Section,
    /// A note.
    Note,
    /// Bytes that nothing more is known of.
    Content,
    /// The order of members or entries.
    Order,
    /// A time.
    Time,
    /// Permissions.
    Mode,
    /// User or group.
    Owner,
    /// Compression: method, level, header.
    Compression,
    /// Another field of a container's header.
    Header,
    /// The build id of an executable: follows from everything that was linked.
    BuildId,
    /// The name or checksum of a file with debug information: follows from the build id.
    DebugLink,
    /// A list of checksums: follows from the members.
    Checksum,
    /// Something that could not be looked into, and why.
    Unread,
}

/// One line of an excerpt of two texts. A line with both numbers stands in both.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// Its number in the first text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first: Option<u64>,
    /// Its number in the second text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub second: Option<u64>,
    /// The line without its end.
    pub text: String,
}

/// Equality after normalisers: weaker than identity, and never shown as it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Equivalence {
    /// Those that were needed, each of them; without any one of them the two differ.
    pub normalisers: Vec<Normaliser>,
    /// The digest that both have after them.
    pub normalised: Digest,
}

impl Detail {
    /// A detail that is a sentence.
    pub fn new(place: impl Into<String>, kind: Aspect, says: impl Into<String>) -> Self {
        Self {
            place: place.into(),
            kind,
            says: shortened(&says.into()),
            first: None,
            second: None,
            lines: Vec::new(),
            lines_left_out: 0,
            content: None,
            shift: None,
            normaliser: None,
        }
    }

    /// With the value that each side has.
    pub fn between(mut self, first: impl AsRef<str>, second: impl AsRef<str>) -> Self {
        self.first = Some(shortened(first.as_ref()));
        self.second = Some(shortened(second.as_ref()));
        self
    }

    /// With the normaliser that it falls under.
    pub fn under(mut self, normaliser: Normaliser) -> Self {
        self.normaliser = Some(normaliser);
        self
    }

    /// With the bytes that differ.
    pub fn showing(mut self, content: Option<Content>) -> Self {
        self.content = content;
        self
    }
}

impl Aspect {
    /// The word in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Value => "value",
            Self::Text => "text",
            Self::String => "string",
            Self::OnlyInFirst => "only-in-first",
            Self::OnlyInSecond => "only-in-second",
            Self::Type => "type",
            Self::Target => "target",
            Self::Symbol => "symbol",
            Self::DebugInfo => "debug-info",
            Self::Section => "section",
            Self::Note => "note",
            Self::Content => "content",
            Self::Order => "order",
            Self::Time => "time",
            Self::Mode => "mode",
            Self::Owner => "owner",
            Self::Compression => "compression",
            Self::Header => "header",
            Self::BuildId => "build-id",
            Self::DebugLink => "debug-link",
            Self::Checksum => "checksum",
            Self::Unread => "unread",
        }
    }
}

impl fmt::Display for Aspect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// `text` with its middle left out, and said so, if it is long.
pub fn shortened(text: &str) -> String {
    let length = text.chars().count();
    if length <= VALUE {
        return text.to_owned();
    }
    let begin: String = text.chars().take(VALUE * 3 / 4).collect();
    let end: String = text.chars().skip(length - VALUE / 4).collect();
    format!("{begin}[… {} characters …]{end}", length - VALUE * 3 / 4 - VALUE / 4)
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_detail_is_written_with_what_it_has_and_read_back() {
        let plain = Detail::new("data.tar.xz!usr/bin/x!.text", Aspect::Section, "2 bytes differ");
        assert_eq!(
            serde_json::to_string(&plain).unwrap(),
            r#"{"place":"data.tar.xz!usr/bin/x!.text","kind":"section","says":"2 bytes differ"}"#
        );
        let full = plain.clone().between("a", "b").under(Normaliser::ElfBuildId);
        let json = serde_json::to_string(&full).unwrap();
        assert!(json.ends_with(r#""first":"a","second":"b","normaliser":"elf-build-id/1"}"#), "{json}");
        assert_eq!(serde_json::from_str::<Detail>(&json).unwrap(), full);
    }

    #[test]
    fn a_word_is_the_same_in_json_and_in_text() {
        for aspect in [Aspect::Value, Aspect::OnlyInFirst, Aspect::DebugInfo, Aspect::BuildId, Aspect::Unread] {
            assert_eq!(serde_json::to_value(aspect).unwrap(), aspect.as_str());
        }
    }

    #[test]
    fn a_long_value_says_how_much_of_it_is_missing() {
        let short = shortened(&"ä".repeat(1000));
        assert!(short.chars().count() < 300 && short.contains("[… 760 characters …]"), "{short}");
        assert_eq!(shortened("short"), "short");
    }
}
