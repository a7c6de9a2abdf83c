//! SLSA provenance v1: how one builder made its subjects.
//!
//! [`Provenance`] holds what anybody's build says; what ours says is decided in [`build`]. A builder's id is its word alone:
//! which level, if any, it stands for is what a policy grants to the pair of it and a key.

mod brief;
pub mod build;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Descriptor, StatementError, digest_set, time};
use crate::outcome::Moment;

pub(crate) use brief::{Brief, Input};
pub use build::{BUILD_TYPE, External, Signer};

/// Its `predicateType`; the same for all of SLSA 1.
pub const TYPE: &str = "https://slsa.dev/provenance/v1";

/// How subjects were built.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Provenance {
    /// What went in.
    pub build_definition: BuildDefinition,
    /// Who ran it, and when.
    pub run_details: RunDetails,
}

/// What went into a build.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BuildDefinition {
    /// What the parameters mean.
    pub build_type: String,
    /// What whoever asked for the build could choose. All members are kept, for each is a demand on the verifier.
    #[serde(default)]
    pub external_parameters: BTreeMap<String, Value>,
    /// What the builder chose.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub internal_parameters: BTreeMap<String, Value>,
    /// Every input.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resolved_dependencies: Vec<Descriptor>,
}

/// Who ran a build, and when.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RunDetails {
    /// Who.
    pub builder: Builder,
    /// When.
    #[serde(default, skip_serializing_if = "Metadata::is_empty")]
    pub metadata: Metadata,
    /// What came out besides the subjects.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub byproducts: Vec<Descriptor>,
}

/// Who built.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Builder {
    /// The rebuilder's URI, one per mode of trust.
    pub id: String,
    /// Versions of its parts.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub version: BTreeMap<String, String>,
    /// The parts themselves.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub builder_dependencies: Vec<Descriptor>,
}

/// When a build ran, by its builder's clock.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Metadata {
    /// Which of all runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invocation_id: Option<String>,
    /// When it began.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "time::maybe")]
    pub started_on: Option<Moment>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "time::maybe")]
    pub finished_on: Option<Moment>,
}

impl Metadata {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl Provenance {
    /// What must hold whoever wrote it.
    pub(super) fn sound(&self) -> Result<(), StatementError> {
        let dependencies = self.build_definition.resolved_dependencies.iter();
        let lists = [
            ("resolvedDependencies", dependencies.collect::<Vec<_>>()),
            ("byproducts", self.run_details.byproducts.iter().collect()),
            ("builderDependencies", self.run_details.builder.builder_dependencies.iter().collect()),
        ];
        for (list, descriptors) in lists {
            for (index, descriptor) in descriptors.into_iter().enumerate() {
                descriptor.sound(&format!("{list} {index}"))?;
            }
        }
        Ok(())
    }

    /// What must hold besides if we write it.
    pub(super) fn writable(&self) -> Result<(), StatementError> {
        let wrong = |field, rule: String| Err(StatementError::Rule { field, rule });
        let definition = &self.build_definition;
        if definition.build_type == BUILD_TYPE {
            if let Some(name) = definition.unknown_parameters().first() {
                return wrong("externalParameters", format!("{name} is no member of the build type {BUILD_TYPE}"));
            }
            definition
                .external()
                .map_err(|source| StatementError::Rule { field: "externalParameters", rule: source })?;
            if definition.signer().is_none() {
                return wrong("internalParameters.signer", "expected separate or same".into());
            }
        }
        for dependency in &definition.resolved_dependencies {
            if !dependency.digest.contains(digest_set::SHA256) && !dependency.digest.contains(digest_set::GIT_COMMIT) {
                return wrong("resolvedDependencies", format!("{} has no digest", dependency.named()));
            }
        }
        let id = &self.run_details.builder.id;
        if !is_uri(id) {
            return wrong(
                "builder.id",
                format!("{id:?} is no URI: expected one such as https://rebuilder.example/kiln"),
            );
        }
        match (self.run_details.metadata.started_on, self.run_details.metadata.finished_on) {
            (Some(started), Some(finished)) if finished < started => {
                wrong("metadata.finishedOn", format!("{finished} is before {started}, when it began"))
            }
            _ => Ok(()),
        }
    }
}

impl BuildDefinition {
    /// Names of external parameters that our build type does not have.
    pub fn unknown_parameters(&self) -> BTreeSet<&str> {
        self.external_parameters.keys().map(String::as_str).filter(|name| !build::MEMBERS.contains(name)).collect()
    }

    /// The external parameters as our build type has them, or what is wrong with them.
    pub fn external(&self) -> Result<External, String> {
        let members = self.external_parameters.clone().into_iter().collect();
        serde_json::from_value(Value::Object(members)).map_err(|error| error.to_string())
    }

    /// Whether the signer was a process of its own, if it is said.
    pub fn signer(&self) -> Option<Signer> {
        let word = self.internal_parameters.get(build::SIGNER)?;
        serde_json::from_value(word.clone()).ok()
    }
}

/// A scheme, a colon and something that no blank or control character is in (RFC 3986, 3.1).
pub(super) fn is_uri(text: &str) -> bool {
    text.split_once(':').is_some_and(|(scheme, rest)| {
        scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
            && !rest.is_empty()
            && rest.chars().all(|c| !c.is_whitespace() && !c.is_control())
    })
}

#[cfg(test)]
mod tests {
    use super::super::samples::{built, provenance};
    use super::super::{DigestSet, Predicate, Statement};
    use super::*;
    use serde_json::json;

    fn refused(change: impl FnOnce(&mut Provenance)) -> &'static str {
        let mut one = provenance();
        change(&mut one);
        match (Statement { predicate: Predicate::Provenance(Box::new(one)), ..built() }).print() {
            Err(StatementError::Rule { field, .. }) => field,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_breaks_the_build_type_is_not_written() {
        let external = |name: &'static str, value: Value| {
            move |p: &mut Provenance| drop(p.build_definition.external_parameters.insert(name.into(), value))
        };
        assert_eq!(refused(external("digest", json!("x"))), "externalParameters");
        assert_eq!(refused(external("target", json!(1))), "externalParameters");
        assert_eq!(refused(external("parameters", json!({"jobs": 2}))), "externalParameters");
        assert_eq!(refused(|p| drop(p.build_definition.external_parameters.remove("recipe"))), "externalParameters");
        assert_eq!(
            refused(|p| drop(p.build_definition.internal_parameters.remove("signer"))),
            "internalParameters.signer"
        );
        assert_eq!(refused(|p| p.run_details.builder.id = "rb1".into()), "builder.id");
        assert_eq!(
            refused(|p| p.build_definition.resolved_dependencies[0].digest = DigestSet::default()),
            "resolvedDependencies"
        );
        assert_eq!(refused(|p| p.run_details.metadata.finished_on = Some(Moment::from_unix(0))), "metadata.finishedOn");
    }

    #[test]
    fn parameters_and_signer_are_read_as_the_build_type_has_them() {
        let one = provenance();
        assert_eq!(one.build_definition.external().unwrap().target, "out");
        assert_eq!(one.build_definition.signer(), Some(Signer::Separate));
        assert!(one.build_definition.unknown_parameters().is_empty());
    }

    #[test]
    fn a_uri_has_a_scheme_and_no_blanks() {
        for good in ["https://a", "spiffe://a/b", "git+https://a@b#c", "urn:x", "pkg:deb/debian/a@1"] {
            assert!(is_uri(good), "{good}");
        }
        for bad in ["", "a", ":a", "a:", "1a:b", "https://a b", "ä:b", "a:b\n"] {
            assert!(!is_uri(bad), "{bad:?}");
        }
    }
}
