//! Named, versioned normalisers: what may differ between two artifacts that are to be called equivalent.
//!
//! A normaliser forgets what it is named for and nothing else: never a member's name or content, unless that is its name.
//! Each is a pure function with its tests, in a file of its own; a changed rule is a new version. Input that is not sound
//! (duplicate members, bytes before or after the records, headers that disagree) is an error: no normaliser launders it.
//!
//! The normalised digest of an artifact under a set of normalisers is that of a tree of digests, made from the outside in
//! ([`node`]). It is a function of the bytes of one artifact and the set, so that machines that never met can compare it.

pub mod changelog;
pub mod elf_build_id;
pub mod node;
pub mod record;

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

macro_rules! normalisers {
    ($($(#[$doc:meta])* $variant:ident $text:literal $forgets:literal;)*) => {
        /// A normaliser with its version.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Normaliser {
            $($(#[$doc])* $variant,)*
        }

        impl Normaliser {
            /// All there are.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Name and version.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)*
                }
            }

            /// What it forgets, for people.
            pub fn forgets(self) -> &'static str {
                match self {
                    $(Self::$variant => $forgets,)*
                }
            }
        }
    };
}

normalisers! {
    /// Times, owners and modes in the headers of an `ar`.
    ArMembers "ar-members/1" "times, owners and modes of the members of an ar archive";
    /// Older entries of a Debian changelog.
    ChangelogTrimming "changelog-trimming/1" "entries that debhelper trims from a Debian changelog, its md5sums line, and the installed size";
    /// How a stream is compressed, but not what.
    Compression "compression/1" "level, block sizes and headers of gzip, xz, zstd and bzip2 streams";
    /// Build id and what points to detached debug information.
    ElfBuildId "elf-build-id/1" "build id and debug links of ELF files, and the checksums of those files";
    /// The header of a gzip stream.
    GzipHeader "gzip-header/1" "time, name, comment, system and level in the header of a gzip stream";
    /// Order of entries in a tar.
    TarOrder "tar-order/1" "the order of the entries of a tar archive";
    /// Order of lines in a wheel's `RECORD`.
    WheelRecordOrder "wheel-record-order/1" "the order of the lines of a wheel's RECORD";
    /// All that a zip says of its members besides names and contents.
    WheelZip "wheel-zip/1" "order, times, modes, system, compression and flags of the members of a zip archive";
}

impl Normaliser {
    /// Those that may make a verdict `equivalent` unless the caller says otherwise: all that forget no content. What
    /// [`Normaliser::ChangelogTrimming`] forgets is text that was shipped, so it must be asked for.
    pub fn of_verdicts() -> BTreeSet<Self> {
        Self::ALL.iter().copied().filter(|&n| n != Self::ChangelogTrimming).collect()
    }
}

impl fmt::Display for Normaliser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text that is no normaliser's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{found:?} is not a normaliser: expected one of {}", Normaliser::ALL.iter().map(|n| n.as_str()).collect::<Vec<_>>().join(", "))]
pub struct NormaliserError {
    /// The text as given.
    pub found: String,
}

impl FromStr for Normaliser {
    type Err = NormaliserError;

    fn from_str(text: &str) -> Result<Self, NormaliserError> {
        let named = Self::ALL.iter().copied().find(|n| n.as_str() == text);
        named.ok_or_else(|| NormaliserError { found: text.into() })
    }
}

impl Serialize for Normaliser {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Normaliser {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_normaliser_is_named_with_a_version_and_read_back() {
        for &normaliser in Normaliser::ALL {
            let (name, version) = normaliser.as_str().rsplit_once('/').unwrap();
            assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'-') && version.parse::<u32>().is_ok());
            assert_eq!(normaliser.as_str().parse(), Ok(normaliser));
        }
        assert!("elf-build-id".parse::<Normaliser>().is_err());
        assert!("elf-build-id/2".parse::<Normaliser>().is_err());
    }

    #[test]
    fn what_forgets_content_must_be_asked_for() {
        let usual = Normaliser::of_verdicts();
        assert!(!usual.contains(&Normaliser::ChangelogTrimming));
        assert_eq!(usual.len(), Normaliser::ALL.len() - 1);
    }
}
