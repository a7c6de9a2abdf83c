//! Digests of one thing by algorithm: in-toto's DigestSet.
//!
//! in-toto lets two sets match when any algorithm does. Here they match when SHA-256 does *and* every other known algorithm that
//! both have ([`DigestSet::matches`]): neither a weak algorithm nor a forgotten one decides. Algorithms we do not know are kept
//! and never relied on.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;

/// SHA-256 of bytes.
pub const SHA256: &str = "sha256";
/// SHA-512 of bytes.
pub const SHA512: &str = "sha512";
/// A commit of git.
pub const GIT_COMMIT: &str = "gitCommit";
/// A tree of git.
pub const GIT_TREE: &str = "gitTree";
/// A blob of git.
pub const GIT_BLOB: &str = "gitBlob";
/// Go's `dirhash`: of trees that hold regular files only.
pub const DIR_HASH: &str = "dirHash";

/// Known algorithms, and how many hexadecimal digits each has: git's are of SHA-1 or SHA-256.
const KNOWN: [(&str, &[usize]); 6] = [
    (SHA256, &[64]),
    (SHA512, &[128]),
    (GIT_COMMIT, &[40, 64]),
    (GIT_TREE, &[40, 64]),
    (GIT_BLOB, &[40, 64]),
    (DIR_HASH, &[64]),
];

/// Digests by algorithm.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DigestSet(pub BTreeMap<String, String>);

/// How two sets compare.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Match {
    /// SHA-256 is the same, and all other known algorithms that both have.
    Same,
    /// A known algorithm says that these are different bytes.
    Differs {
        /// Which.
        algorithm: &'static str,
    },
    /// One has no SHA-256.
    Incomparable,
}

/// A digest that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{algorithm} is {found:?}: expected {} hexadecimal digits in lower case", .expected.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or "))]
pub struct DigestSetError {
    /// The algorithm.
    pub algorithm: &'static str,
    /// What stands there.
    pub found: String,
    /// How many digits there should be.
    pub expected: &'static [usize],
}

impl DigestSet {
    /// The set of one SHA-256.
    pub fn of(digest: Digest) -> Self {
        Self::default().with(SHA256, digest.to_string())
    }

    /// With one more digest.
    pub fn with(mut self, algorithm: &str, digest: String) -> Self {
        self.0.insert(algorithm.into(), digest);
        self
    }

    /// The SHA-256.
    pub fn sha256(&self) -> Option<Digest> {
        self.0.get(SHA256)?.parse().ok()
    }

    /// Whether it has a digest by `algorithm`.
    pub fn contains(&self, algorithm: &str) -> bool {
        self.0.contains_key(algorithm)
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether both are of the same bytes.
    pub fn matches(&self, other: &Self) -> Match {
        for (algorithm, _) in KNOWN {
            if let (Some(mine), Some(theirs)) = (self.0.get(algorithm), other.0.get(algorithm))
                && mine != theirs
            {
                return Match::Differs { algorithm };
            }
        }
        match self.contains(SHA256) && other.contains(SHA256) {
            true => Match::Same,
            false => Match::Incomparable,
        }
    }

    /// Known algorithms have digests of their length, in lower-case hex.
    pub fn sound(&self) -> Result<(), DigestSetError> {
        self.0.iter().try_for_each(|(algorithm, found)| sound(algorithm, found))
    }
}

/// Whether `found` is one that `algorithm` makes, if that is known.
pub(super) fn sound(algorithm: &str, found: &str) -> Result<(), DigestSetError> {
    let hex = |text: &str| text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    match KNOWN.into_iter().find(|(known, _)| *known == algorithm) {
        Some((algorithm, expected)) if !(expected.contains(&found.len()) && hex(found)) => {
            Err(DigestSetError { algorithm, found: found.to_owned(), expected })
        }
        Some(_) | None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(digests: &[(&str, &str)]) -> DigestSet {
        DigestSet(digests.iter().map(|(a, d)| ((*a).to_owned(), (*d).to_owned())).collect())
    }

    #[test]
    fn all_known_algorithms_of_both_must_match_and_sha256_must_be_there() {
        let whole = set(&[("sha256", "aa"), ("sha512", "bb"), ("md5", "cc")]);
        for (other, expected) in [
            (set(&[("sha256", "aa")]), Match::Same),
            (set(&[("sha256", "aa"), ("sha512", "bb")]), Match::Same),
            (set(&[("sha256", "aa"), ("md5", "00")]), Match::Same),
            (set(&[("sha256", "00"), ("sha512", "bb")]), Match::Differs { algorithm: "sha256" }),
            (set(&[("sha256", "aa"), ("sha512", "00")]), Match::Differs { algorithm: "sha512" }),
            (set(&[("sha512", "bb"), ("md5", "cc")]), Match::Incomparable),
            (set(&[("md5", "cc")]), Match::Incomparable),
            (set(&[]), Match::Incomparable),
        ] {
            assert_eq!(whole.matches(&other), expected, "{other:?}");
            assert_eq!(other.matches(&whole), expected, "{other:?}");
        }
    }

    #[test]
    fn digests_in_capitals_or_of_another_length_are_refused() {
        let sha256 = Digest::of("x").to_string();
        assert_eq!(set(&[("sha256", &sha256), ("anything", "goes"), ("gitTree", &sha256[..40])]).sound(), Ok(()));
        for (algorithm, bad) in [
            ("sha256", sha256.to_uppercase()),
            ("sha256", sha256[1..].to_owned()),
            ("sha256", format!("sha256:{sha256}")),
            ("sha512", sha256.clone()),
            ("gitCommit", "0".repeat(41)),
            ("gitBlob", String::new()),
            ("dirHash", format!("h1:{}", &sha256[3..])),
        ] {
            assert_eq!(set(&[(algorithm, &bad)]).sound().unwrap_err().algorithm, algorithm, "{bad}");
        }
    }
}
