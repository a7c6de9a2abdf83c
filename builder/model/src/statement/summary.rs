//! SLSA's verification summary v1: what a verifier found, for those who trust it to have looked.
//!
//! [`Summary::print`](super::Statement::print) refuses what a verifier must never sign: two levels of one track, a level of its
//! own under SLSA's name, a pass without inputs. [`Level::reproduced`] exists only for two operators or more. There is no field
//! for `verifier.version`: strict readers refuse it, so the version stands in the id.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use super::provenance::is_uri;
use super::{Descriptor, DigestSet, StatementError, time};
use crate::digest::Digest;
use crate::envelope::EnvelopeId;
use crate::outcome::Moment;

/// Its `predicateType`.
pub const TYPE: &str = "https://slsa.dev/verification_summary/v1";

/// The version of SLSA whose levels are meant.
pub const SLSA: &str = "1.2";

const REPRODUCED: &str = "SLSA_BUILD_REPRODUCED";
const FAILED: &str = "FAILED";

/// What a verifier found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// Who looked.
    pub verifier: Verifier,
    /// When, by its clock.
    #[serde(with = "time")]
    pub time_verified: Moment,
    /// Where the subject is expected to be fetched from.
    pub resource_uri: String,
    /// By what rules.
    pub policy: Descriptor,
    /// All that was looked at.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub input_attestations: Vec<Descriptor>,
    /// Whether the rules hold.
    pub verification_result: VerificationResult,
    /// What the subject is worth.
    pub verified_levels: Vec<String>,
    /// How many of its dependencies have which level. Present only if all were judged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dependency_levels: Option<BTreeMap<String, u64>>,
    /// The version of SLSA whose levels are meant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slsa_version: Option<String>,
}

/// Who looked. What else is said of it is not read, and never written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verifier {
    /// Its URI; ours end in `@` and the version of kiln.
    pub id: String,
}

/// Whether rules hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum VerificationResult {
    /// They do.
    Passed,
    /// They do not.
    Failed,
}

/// What a subject is worth.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Level(String);

impl Level {
    /// A level of SLSA's build track: 0 to 3.
    pub fn build(level: u8) -> Option<Self> {
        (level <= 3).then(|| Self(format!("SLSA_BUILD_LEVEL_{level}")))
    }

    /// That these operators, each by itself, built the same bytes. None for fewer than two: SLSA's rule.
    pub fn reproduced(operators: &BTreeSet<String>) -> Option<Self> {
        (operators.len() >= 2).then(|| Self(REPRODUCED.into()))
    }

    /// A level of our own: `KILN_REPRODUCED_2_OF_3`. None in SLSA's name, or if it is no word.
    pub fn own(name: &str) -> Option<Self> {
        let word = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
        let good = !name.is_empty() && name.chars().all(word) && !name.starts_with("SLSA_") && name != FAILED;
        good.then(|| Self(name.into()))
    }

    /// The word in a summary.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a verifier knows when it is done.
#[derive(Debug, Clone)]
pub struct Found {
    /// URI of the verifier, without its version.
    pub verifier: String,
    /// Version of kiln.
    pub version: String,
    /// The time it was given.
    pub now: Moment,
    /// Where the subject is expected to be fetched from.
    pub resource_uri: String,
    /// Where the policy is.
    pub policy_uri: String,
    /// The policy's bytes.
    pub policy: Digest,
    /// Every envelope that was used, and where it is.
    pub inputs: BTreeMap<EnvelopeId, String>,
    /// Levels if the rules hold; none if they do not.
    pub levels: Option<BTreeSet<Level>>,
}

impl Summary {
    /// The summary of what was found.
    pub fn new(found: Found) -> Result<Self, StatementError> {
        let input = |(id, uri): (EnvelopeId, String)| Descriptor::of(DigestSet::of(id.digest())).at(uri);
        let summary = Self {
            verifier: Verifier { id: format!("{}@{}", found.verifier, found.version) },
            time_verified: found.now,
            resource_uri: found.resource_uri,
            policy: Descriptor::of(DigestSet::of(found.policy)).at(found.policy_uri),
            input_attestations: found.inputs.into_iter().map(input).collect(),
            verification_result: match found.levels {
                Some(_) => VerificationResult::Passed,
                None => VerificationResult::Failed,
            },
            verified_levels: match found.levels {
                Some(levels) => levels.into_iter().map(|level| level.0).collect(),
                None => vec![FAILED.into()],
            },
            dependency_levels: None,
            slsa_version: Some(SLSA.into()),
        };
        summary.writable()?;
        Ok(summary)
    }

    /// The verifier's URI without the version behind `@`.
    pub fn verifier(&self) -> &str {
        self.verifier.id.rsplit_once('@').map_or(&self.verifier.id, |(uri, _)| uri)
    }

    /// What must hold whoever wrote it.
    pub(super) fn sound(&self) -> Result<(), StatementError> {
        self.policy.sound("policy")?;
        for (index, input) in self.input_attestations.iter().enumerate() {
            input.sound(&format!("inputAttestations {index}"))?;
        }
        Ok(())
    }

    /// What must hold besides if we write it.
    pub(super) fn writable(&self) -> Result<(), StatementError> {
        let rule = |field, holds: bool, rule: &str| match holds {
            true => Ok(()),
            false => Err(StatementError::Rule { field, rule: rule.into() }),
        };
        self.sound()?;
        rule("verifier.id", is_uri(&self.verifier.id), "a URI is required")?;
        rule("resourceUri", is_uri(&self.resource_uri), "a URI is required")?;
        rule(
            "policy",
            self.policy.digest.sha256().is_some() && self.policy.uri.is_some(),
            "uri and sha256 are required",
        )?;
        let input = |d: &Descriptor| d.digest.sha256().is_some() && d.uri.is_some();
        rule("inputAttestations", self.input_attestations.iter().all(input), "uri and sha256 are required of each")?;
        let levels = &self.verified_levels;
        let failed = levels.as_slice() == [FAILED];
        match self.verification_result {
            VerificationResult::Failed => return rule("verifiedLevels", failed, "a failure has the one level FAILED"),
            VerificationResult::Passed => {
                rule("inputAttestations", !self.input_attestations.is_empty(), "a pass names what it rests on")?;
                rule("verifiedLevels", !levels.is_empty(), "a pass has at least one level")?;
                rule("verifiedLevels", !levels.iter().any(|level| level == FAILED), "a pass has not the level FAILED")?;
            }
        }
        let mut tracks = BTreeSet::new();
        for level in levels {
            let track = match level.strip_prefix("SLSA_") {
                None => level,
                Some(_) if level == REPRODUCED => level,
                Some(rest) => match rest.split_once("_LEVEL_") {
                    Some((track @ "BUILD", "0" | "1" | "2" | "3")) => track,
                    Some((track @ "SOURCE", "0" | "1" | "2" | "3" | "4")) => track,
                    _ => return rule("verifiedLevels", false, "names that begin with SLSA_ are SLSA's"),
                },
            };
            rule("verifiedLevels", tracks.insert(track), "one level for each track")?;
        }
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::samples::built;
    use super::super::{Predicate, Statement};
    use super::*;

    fn operators(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn found() -> Found {
        let levels = [
            Level::build(3).unwrap(),
            Level::reproduced(&operators(&["a", "b"])).unwrap(),
            Level::own("KILN_REPRODUCED_2_OF_3").unwrap(),
        ];
        Found {
            verifier: "https://verifier.example.org/kiln".into(),
            version: "0.1.0".into(),
            now: Moment::from_unix(1_795_255_260),
            resource_uri: "https://dl.example.org/hello".into(),
            policy_uri: "https://verifier.example.org/hello.toml".into(),
            policy: Digest::of("policy"),
            inputs: [(EnvelopeId::new(Digest::of("a")), "a.json".into())].into(),
            levels: Some(levels.into()),
        }
    }

    pub(in crate::statement) fn passed() -> Summary {
        Summary::new(found()).unwrap()
    }

    #[test]
    fn a_pass_and_a_failure_are_written_and_read_back() {
        for found in [found(), Found { levels: None, inputs: BTreeMap::new(), ..found() }] {
            let summary = Summary::new(found).unwrap();
            assert_eq!(summary.verifier(), "https://verifier.example.org/kiln");
            let statement = Statement { predicate: Predicate::Summary(Box::new(summary)), ..built() };
            let bytes = statement.print().unwrap();
            assert_eq!(Statement::parse(&bytes).unwrap(), statement);
            assert!(
                !String::from_utf8(bytes).unwrap().contains("\"version\""),
                "strict readers refuse verifier.version"
            );
        }
    }

    #[test]
    fn two_levels_of_one_track_or_names_of_slsa_are_never_written() {
        let with = |levels: &[&str]| {
            let mut summary = Summary::new(found()).unwrap();
            summary.verified_levels = levels.iter().map(|level| (*level).to_owned()).collect();
            Statement { predicate: Predicate::Summary(Box::new(summary)), ..built() }.print()
        };
        assert!(with(&["SLSA_BUILD_LEVEL_3", "SLSA_SOURCE_LEVEL_1", "SLSA_BUILD_REPRODUCED"]).is_ok());
        for bad in [
            &["SLSA_BUILD_LEVEL_3", "SLSA_BUILD_LEVEL_2"][..],
            &["SLSA_BUILD_LEVEL_4"],
            &["SLSA_BEST_LEVEL_1"],
            &["SLSA_REPRODUCED"],
            &["A", "A"],
            &["FAILED"],
            &["A", "FAILED"],
            &[],
        ] {
            assert!(matches!(with(bad), Err(StatementError::Rule { field: "verifiedLevels", .. })), "{bad:?}");
        }
    }

    #[test]
    fn levels_that_nobody_may_claim_do_not_exist() {
        assert_eq!(Level::build(4), None);
        assert_eq!(Level::reproduced(&operators(&["a"])), None);
        for bad in ["SLSA_BUILD_LEVEL_3", "SLSA_X", "FAILED", "", "a b", "x"] {
            assert_eq!(Level::own(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_pass_that_rests_on_nothing_is_never_written() {
        let nothing = Summary::new(Found { inputs: BTreeMap::new(), ..found() });
        assert!(matches!(nothing, Err(StatementError::Rule { field: "inputAttestations", .. })));
        let nowhere = Summary::new(Found { resource_uri: "hello".into(), ..found() });
        assert!(matches!(nowhere, Err(StatementError::Rule { field: "resourceUri", .. })));
    }
}
