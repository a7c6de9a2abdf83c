//! The `Release` text of a suite: what it is called, when it was made, and the size and digest of every index.
//!
//! Only the signed text may be given to [`Release::parse`]. Dates stay text: this crate has no calendar.

use std::collections::BTreeMap;

use super::control::{ControlError, Stanzas};
use crate::digest::Digest;

/// A parsed Release text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release<'a> {
    /// `Codename`: `bookworm`.
    pub codename: Option<&'a str>,
    /// `Suite`: `oldstable`.
    pub suite: Option<&'a str>,
    /// `Date`, as in mail.
    pub date: &'a str,
    /// `Valid-Until`, as in mail.
    pub valid_until: Option<&'a str>,
    /// What there are indices for.
    pub architectures: Vec<&'a str>,
    /// What the archive is divided in.
    pub components: Vec<&'a str>,
    /// Whether indices are also found under their digest.
    pub by_hash: ByHash,
    /// Indices by path relative to the suite's directory.
    pub files: BTreeMap<&'a str, Listed>,
}

/// `Acquire-By-Hash`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ByHash {
    /// Indices are found under `by-hash/SHA256/` too.
    Yes,
    /// Under their own name only.
    No,
}

/// One index as listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listed {
    /// Bytes.
    pub size: u64,
    /// Digest.
    pub sha256: Digest,
}

/// Why a text is not a Release.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReleaseError {
    /// Not even a control file.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// A field that must be there is not.
    #[error("no field {field}")]
    Missing {
        /// Which.
        field: &'static str,
    },
    /// A line of the list of indices.
    #[error("line {line}: SHA256: expected digest, size and path, found {found:?}")]
    NotListed {
        /// Where, from 1.
        line: usize,
        /// The line.
        found: String,
    },
    /// One path twice with other bytes.
    #[error("line {line}: SHA256: {path} is listed twice, with different size or digest")]
    Ambiguous {
        /// The second time, from 1.
        line: usize,
        /// The path.
        path: String,
    },
    /// More than one stanza, or none.
    #[error("expected exactly one stanza")]
    NotOne,
}

impl<'a> Release<'a> {
    /// A Release from its signed text.
    pub fn parse(text: &'a str) -> Result<Self, ReleaseError> {
        let mut stanzas = Stanzas::new(text);
        let stanza = stanzas.next()?.ok_or(ReleaseError::NotOne)?.clone();
        if stanzas.next()?.is_some() {
            return Err(ReleaseError::NotOne);
        }
        let need = |field| stanza.value(field).ok_or(ReleaseError::Missing { field });
        let words =
            |field| -> Result<Vec<&'a str>, ReleaseError> { Ok(need(field)?.split_ascii_whitespace().collect()) };
        let mut files = BTreeMap::new();
        for (line, text) in stanza.field("SHA256").ok_or(ReleaseError::Missing { field: "SHA256" })?.lines() {
            let bad = || ReleaseError::NotListed { line, found: text.chars().take(120).collect() };
            let (sha256, size, path) = listed(text).ok_or_else(bad)?;
            let entry = Listed { size, sha256 };
            if files.insert(path, entry).is_some_and(|before| before != entry) {
                return Err(ReleaseError::Ambiguous { line, path: path.into() });
            }
        }
        Ok(Self {
            codename: stanza.value("Codename"),
            suite: stanza.value("Suite"),
            date: need("Date")?,
            valid_until: stanza.value("Valid-Until"),
            architectures: words("Architectures")?,
            components: words("Components")?,
            by_hash: match stanza.value("Acquire-By-Hash") {
                Some(value) if value.eq_ignore_ascii_case("yes") => ByHash::Yes,
                _ => ByHash::No,
            },
            files,
        })
    }
}

/// `DIGEST SIZE PATH`, as lists of indices and of source files have it.
pub(super) fn listed(line: &str) -> Option<(Digest, u64, &str)> {
    let mut words = line.split_ascii_whitespace();
    let (sha256, size, path) = (words.next()?, words.next()?, words.next()?);
    let plain = sha256.len() == 64 && size.bytes().all(|b| b.is_ascii_digit());
    let inside = !path.starts_with('/') && path.split('/').all(|part| !matches!(part, "" | "." | ".."));
    if words.next().is_some() || !plain || !inside {
        return None;
    }
    Some((sha256.parse().ok()?, size.parse().ok()?, path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text() -> String {
        let digest = Digest::of("x");
        format!(
            "Suite: oldstable\nCodename: bookworm\nDate: Sat, 11 Jul 2026 10:16:37 UTC\nAcquire-By-Hash: yes\n\
             Architectures: all amd64\nComponents: main contrib\nSHA256:\n {digest}  1 main/binary-amd64/Packages.xz\n"
        )
    }

    #[test]
    fn names_words_and_indices_are_read() {
        let text = text();
        let release = Release::parse(&text).unwrap();
        assert_eq!((release.codename, release.by_hash), (Some("bookworm"), ByHash::Yes));
        assert_eq!(release.components, ["main", "contrib"]);
        assert_eq!(release.files["main/binary-amd64/Packages.xz"], Listed { size: 1, sha256: Digest::of("x") });
    }

    #[test]
    fn missing_fields_ambiguous_paths_and_paths_that_climb_are_refused() {
        let good = text();
        assert_eq!(Release::parse(&good.replace("Date", "Data")), Err(ReleaseError::Missing { field: "Date" }));
        let twice = format!("{good} {} 1 main/binary-amd64/Packages.xz\n", Digest::of("y"));
        assert!(matches!(Release::parse(&twice), Err(ReleaseError::Ambiguous { line: 9, .. })));
        for path in ["../x", "/x", "a//b", "", "a b"] {
            let bad = good.replace("main/binary-amd64/Packages.xz", path);
            assert!(matches!(Release::parse(&bad), Err(ReleaseError::NotListed { line: 8, .. })), "{path}");
        }
        assert_eq!(Release::parse(&format!("{good}\nA: b\n")), Err(ReleaseError::NotOne));
    }
}
