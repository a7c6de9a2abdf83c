//! Advisories in the Open Source Vulnerability format: which versions of which packages are affected, and how badly.
//!
//! [`Advisory::judge`] holds a package against one, by Debian's order of versions or Python's. What cannot be compared (a
//! version that is none, a range in an order that kiln does not have) is [`Judged::Unknown`] and never "not affected". Debian's
//! advisories speak of *source* packages. Unknown members are ignored, as the schema asks of readers. Knows no clock: how old
//! a feed may be is the caller's question.
//! Reference: <https://ossf.github.io/osv-schema/>, "Evaluation".

use std::cmp::Ordering;
use std::str::FromStr as _;

use serde::{Deserialize, Deserializer};

use crate::canonical::{self, CanonicalError, Limits};
use crate::debian::version::Version;

/// More than any such file has: those with a list of all versions have some megabytes.
pub const LIMITS: Limits = Limits { bytes: 16 << 20, depth: 64 };

/// One advisory.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Advisory {
    /// Its id: `CVE-…`, `DSA-…`, `PYSEC-…`, `GHSA-…`.
    pub id: String,
    /// Other ids of the same.
    #[serde(default, deserialize_with = "list")]
    pub aliases: Vec<String>,
    /// Ids that this one comes from, as distributions' advisories name them.
    #[serde(default, deserialize_with = "list")]
    pub upstream: Vec<String>,
    /// When it was last changed, RFC 3339.
    #[serde(default)]
    pub modified: Option<String>,
    /// When it was taken back, RFC 3339.
    #[serde(default)]
    pub withdrawn: Option<String>,
    /// One line for people.
    #[serde(default)]
    pub summary: Option<String>,
    /// How bad it is.
    #[serde(default, deserialize_with = "list")]
    pub severity: Vec<Severity>,
    /// What it is about.
    #[serde(default, deserialize_with = "list")]
    pub affected: Vec<Affected>,
}

/// A severity, as a vector.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Severity {
    /// `CVSS_V2`, `CVSS_V3`, `CVSS_V4`, and others that kiln does not compute.
    #[serde(rename = "type")]
    pub kind: String,
    /// The vector.
    pub score: String,
}

/// Versions of one package.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Affected {
    /// Which; absent where only commits are named.
    #[serde(default)]
    pub package: Option<Package>,
    /// Severity for this package.
    #[serde(default, deserialize_with = "list")]
    pub severity: Vec<Severity>,
    /// Ranges of versions.
    #[serde(default, deserialize_with = "list")]
    pub ranges: Vec<Range>,
    /// Versions one by one.
    #[serde(default, deserialize_with = "list")]
    pub versions: Vec<String>,
}

/// A package as advisories name it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Package {
    /// `Debian:12`, `PyPI`…
    pub ecosystem: String,
    /// Its name there.
    pub name: String,
}

/// A range of versions.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Range {
    /// `ECOSYSTEM`, `SEMVER` or `GIT`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Where it begins and ends.
    #[serde(default, deserialize_with = "list")]
    pub events: Vec<Event>,
}

/// A version at which something changes: one member of the four.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
pub struct Event {
    /// From here on affected; `0` is before every version.
    pub introduced: Option<String>,
    /// From here on not affected.
    pub fixed: Option<String>,
    /// After this not affected.
    pub last_affected: Option<String>,
    /// From here on not looked at.
    pub limit: Option<String>,
}

/// An ecosystem whose order of versions kiln has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ecosystem<'a> {
    /// Debian, of that release (`12`); of any if that is not known.
    Debian {
        /// The release.
        release: Option<&'a str>,
    },
    /// The Python package index.
    Pypi,
}

/// What is held against an advisory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subject<'a> {
    /// Where its name is one.
    pub ecosystem: Ecosystem<'a>,
    /// The source package, or the project.
    pub name: &'a str,
    /// The source package's version, or the release's.
    pub version: &'a str,
}

/// Whether a package is affected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judged {
    /// It is.
    Affected,
    /// The advisory is of other packages, or other versions; or it was withdrawn.
    NotAffected,
    /// It may be.
    Unknown {
        /// What could not be compared.
        why: String,
    },
}

/// Why a file is no advisory.
#[derive(Debug, thiserror::Error)]
pub enum OsvError {
    /// Not JSON of this schema.
    #[error("not an OSV advisory")]
    Json(#[from] CanonicalError),
    /// Its id is none.
    #[error("id is {found:?}: expected a word such as CVE-2024-0001")]
    Id {
        /// The text.
        found: String,
    },
}

impl Advisory {
    /// An advisory from a file.
    pub fn parse(bytes: &[u8]) -> Result<Self, OsvError> {
        let advisory: Self = canonical::parse(bytes, LIMITS)?;
        if advisory.id.is_empty() || advisory.id.len() > 200 || !advisory.id.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(OsvError::Id { found: advisory.id.chars().take(80).collect() });
        }
        Ok(advisory)
    }

    /// All its names, its own first.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        std::iter::once(&self.id).chain(&self.aliases).chain(&self.upstream).map(String::as_str)
    }

    /// The highest score of CVSS, of whichever version, that it or a package of it bears; `None` if none can be computed.
    pub fn score(&self) -> Option<f64> {
        let all = self.severity.iter().chain(self.affected.iter().flat_map(|affected| &affected.severity));
        let scores = all.filter_map(|severity| Some(cvss::Cvss::from_str(&severity.score).ok()?.score()));
        scores.max_by(f64::total_cmp)
    }

    /// Whether `subject` is affected.
    pub fn judge(&self, subject: &Subject<'_>) -> Judged {
        if self.withdrawn.is_some() {
            return Judged::NotAffected;
        }
        let mut judged = Judged::NotAffected;
        for affected in &self.affected {
            let about = affected.package.as_ref().is_some_and(|package| subject.is_named(package));
            match if about { affected.judge(subject) } else { Judged::NotAffected } {
                Judged::Affected => return Judged::Affected,
                Judged::NotAffected => {}
                unknown @ Judged::Unknown { .. } => judged = unknown,
            }
        }
        judged
    }
}

impl Subject<'_> {
    fn is_named(&self, package: &Package) -> bool {
        let (ecosystem, release) = match package.ecosystem.split_once(':') {
            Some((ecosystem, release)) => (ecosystem, Some(release)),
            None => (package.ecosystem.as_str(), None),
        };
        match self.ecosystem {
            Ecosystem::Debian { release: ours } => {
                let same = ours.zip(release).is_none_or(|(ours, theirs)| ours == theirs);
                ecosystem == "Debian" && same && package.name == self.name
            }
            Ecosystem::Pypi => ecosystem == "PyPI" && normalised(&package.name) == normalised(self.name),
        }
    }

    /// How our version compares to `other`; `None` if one of them is no version.
    fn compare(&self, other: &str) -> Option<Ordering> {
        match self.ecosystem {
            Ecosystem::Debian { .. } => Some(Version::parse(self.version).ok()?.cmp(&Version::parse(other).ok()?)),
            Ecosystem::Pypi => {
                let parse = |text: &str| pep440_rs::Version::from_str(text).ok();
                Some(parse(self.version)?.cmp(&parse(other)?))
            }
        }
    }
}

/// PEP 503: runs of `-`, `_` and `.` are one hyphen.
fn normalised(project: &str) -> String {
    let words = project.split(['-', '_', '.']).filter(|word| !word.is_empty());
    words.map(str::to_ascii_lowercase).collect::<Vec<_>>().join("-")
}

impl Affected {
    fn judge(&self, subject: &Subject<'_>) -> Judged {
        let mut judged = Judged::NotAffected;
        let listed =
            self.versions.iter().any(|one| one == subject.version || subject.compare(one) == Some(Ordering::Equal));
        if listed {
            return Judged::Affected;
        }
        for range in &self.ranges {
            match range.kind.as_str() {
                "ECOSYSTEM" => match range.holds(subject) {
                    Some(true) => return Judged::Affected,
                    Some(false) => {}
                    None => judged = Judged::Unknown { why: format!("{} or a bound is no version", subject.version) },
                },
                // Beside other ranges or a list, commits say the same again.
                "GIT" if self.ranges.len() > 1 || !self.versions.is_empty() => {}
                other => judged = Judged::Unknown { why: format!("a range of type {other}") },
            }
        }
        if self.ranges.is_empty() && self.versions.is_empty() {
            judged = Judged::Unknown { why: "no versions are given".into() };
        }
        judged
    }
}

impl Range {
    /// Whether the version is in it; `None` if that cannot be said.
    fn holds(&self, subject: &Subject<'_>) -> Option<bool> {
        // What the latest event at or before the version says holds. At one and the same version the worse is believed.
        let (mut latest, mut affected): (Option<&str>, bool) = (None, false);
        let mut limits = None;
        for event in &self.events {
            let (at, begins, from) = match (&event.introduced, &event.fixed, &event.last_affected, &event.limit) {
                (Some(at), None, None, None) => (at, true, at == "0" || subject.compare(at)? != Ordering::Less),
                (None, Some(at), None, None) => (at, false, subject.compare(at)? != Ordering::Less),
                (None, None, Some(at), None) => (at, false, subject.compare(at)? == Ordering::Greater),
                (None, None, None, Some(at)) => {
                    let within = at == "*" || subject.compare(at)? == Ordering::Less;
                    limits = Some(limits == Some(true) || within);
                    continue;
                }
                _ => return None,
            };
            if !from {
                continue;
            }
            let later = match latest {
                None => Ordering::Greater,
                Some(latest) => subject.order(at, latest)?,
            };
            match later {
                Ordering::Greater => (latest, affected) = (Some(at.as_str()), begins),
                Ordering::Equal => affected |= begins,
                Ordering::Less => {}
            }
        }
        Some(affected && limits != Some(false))
    }
}

impl Subject<'_> {
    /// How two bounds compare; `0` is before every version.
    fn order(&self, a: &str, b: &str) -> Option<Ordering> {
        match (a, b) {
            ("0", "0") => Some(Ordering::Equal),
            ("0", _) => Some(Ordering::Less),
            (_, "0") => Some(Ordering::Greater),
            (a, b) => Subject { version: a, ..*self }.compare(b),
        }
    }
}

/// A list; some writers put `null` for an empty one.
fn list<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn advisory(ecosystem: &str, name: &str, events: &str, versions: &str) -> Advisory {
        let text = format!(
            r#"{{"schema_version":"1.7.0","id":"CVE-2024-1","aliases":null,"severity":[{{"type":"CVSS_V3","score":"CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H"}},
            {{"type":"Ubuntu","score":"high"}}],"affected":[{{"package":{{"ecosystem":"{ecosystem}","name":"{name}","purl":"x"}},
            "ranges":[{{"type":"ECOSYSTEM","events":[{events}]}}],"versions":[{versions}]}}],"x":1}}"#
        );
        Advisory::parse(text.as_bytes()).unwrap()
    }

    fn debian<'a>(version: &'a str, release: Option<&'a str>) -> Subject<'a> {
        Subject { ecosystem: Ecosystem::Debian { release }, name: "curl", version }
    }

    #[test]
    fn ranges_are_read_in_debian_s_order() {
        let range = r#"{"introduced":"0"},{"fixed":"7.88.1-10+deb12u5"}"#;
        let one = advisory("Debian:12", "curl", range, "");
        for (version, affected) in [
            ("7.88.1-10+deb12u4", true),
            ("7.88.1-10+deb12u5", false),
            ("7.88.1-10+deb12u14", false),
            ("7.88.1~rc", true),
        ] {
            let expected = if affected { Judged::Affected } else { Judged::NotAffected };
            assert_eq!(one.judge(&debian(version, Some("12"))), expected, "{version}");
        }
        assert_eq!(one.judge(&debian("1", None)), Judged::Affected);
        assert_eq!(one.judge(&debian("1", Some("11"))), Judged::NotAffected);
        assert_eq!(one.judge(&Subject { name: "libcurl4", ..debian("1", None) }), Judged::NotAffected);
        assert_eq!(one.score(), Some(9.8));
    }

    #[test]
    fn events_may_come_in_any_order_and_several_ranges_of_versions() {
        let range = r#"{"fixed":"2"},{"introduced":"3"},{"introduced":"0"},{"last_affected":"4"}"#;
        let one = advisory("PyPI", "Some.Thing", range, "\"2.5\"");
        for (version, affected) in [
            ("1.9", true),
            ("2", false),
            ("2.0", false),
            ("2.5.0", true),
            ("3rc1", false),
            ("3", true),
            ("4.0", true),
            ("4.0.post1", false),
        ] {
            let subject = Subject { ecosystem: Ecosystem::Pypi, name: "some_thing", version };
            let expected = if affected { Judged::Affected } else { Judged::NotAffected };
            assert_eq!(one.judge(&subject), expected, "{version}");
        }
        let limited = advisory("PyPI", "a", r#"{"introduced":"0"},{"limit":"2"}"#, "");
        let at = |version| limited.judge(&Subject { ecosystem: Ecosystem::Pypi, name: "a", version });
        assert_eq!((at("1"), at("2")), (Judged::Affected, Judged::NotAffected));
    }

    #[test]
    fn what_cannot_be_compared_is_unknown_and_not_a_no() {
        let one = advisory("Debian", "curl", r#"{"introduced":"1"}"#, "");
        assert!(matches!(one.judge(&debian("no version", None)), Judged::Unknown { .. }));
        let odd = advisory("Debian", "curl", r#"{"introduced":"1","fixed":"2"}"#, "");
        assert!(matches!(odd.judge(&debian("1", None)), Judged::Unknown { .. }));
        let text = r#"{"id":"X","affected":[{"package":{"ecosystem":"Debian","name":"curl"},"ranges":[{"type":"GIT","events":[]}]}]}"#;
        assert!(matches!(Advisory::parse(text.as_bytes()).unwrap().judge(&debian("1", None)), Judged::Unknown { .. }));
        let withdrawn = Advisory { withdrawn: Some("2024-01-01T00:00:00Z".into()), ..one };
        assert_eq!(withdrawn.judge(&debian("1", None)), Judged::NotAffected);
    }

    #[test]
    fn what_is_no_advisory_is_refused() {
        for text in [
            "",
            "[]",
            "{}",
            r#"{"id":""}"#,
            r#"{"id":"a b"}"#,
            r#"{"id":"a","id":"b"}"#,
            r#"{"id":"a","affected":[{"ranges":3}]}"#,
        ] {
            assert!(Advisory::parse(text.as_bytes()).is_err(), "{text}");
        }
        assert!(Advisory::parse("[".repeat(100_000).as_bytes()).is_err());
    }
}
