//! OSS-Rebuild's two statements, both in the form of provenance: what was rebuilt, and that it equals what was published.
//!
//! `Rebuild@v0.1` is about the rebuilt bytes: a build, at level 0, since the policy knows none of its parameters.
//! `ArtifactEquivalence@v0.1` is about the published ones, *which its signer has not built*: read as provenance it would say
//! that. It counts as EQUIVALENT, or as IDENTICAL if the digests say so themselves, and only beside the `Rebuild@v0.1` of the same
//! key. Which normalisers ran it does not say.

use serde_json::Value;

use super::check::{Check, Code, Status};
use super::fact::{Built, Compared, Subject};
use crate::digest::Digest;
use crate::outcome::Moment;
use crate::policy::Form;
use crate::statement::provenance::Brief;
use crate::statement::{ComparisonResult, Descriptor, DigestSet};

/// The build type of a rebuild.
pub(super) const REBUILD: &str = "https://docs.oss-rebuild.dev/builds/Rebuild@v0.1";

/// That of the statement that two artifacts are equal.
pub(super) const EQUIVALENCE: &str = "https://docs.oss-rebuild.dev/builds/ArtifactEquivalence@v0.1";

/// What stands in place of names of normalisers.
const UNNAMED: &str = "oss-rebuild/not named";

/// The build that a `Rebuild@v0.1` tells of.
pub(super) fn built(provenance: &Brief<'_>, rebuilder: usize) -> Built {
    Built {
        rebuilder,
        form: Some(Form::OssRebuild),
        level: 0,
        finished: provenance.metadata.finished_on,
        tool: super::provenance::versions(&provenance.builder.version).into(),
        platform: "".into(),
        denials: Vec::new(),
        sources: Vec::new(),
        inputs: Vec::new(),
    }
}

/// The comparison that an `ArtifactEquivalence@v0.1` tells of, if all its parts fit.
pub(super) fn compared(provenance: &Brief<'_>, subjects: &[Descriptor], rebuilder: usize) -> Result<Compared, Check> {
    let parameters = &provenance.external_parameters;
    if let Some(name) = parameters.keys().find(|name| !["candidate", "target"].contains(&name.as_str())) {
        return Err(unlike(format!("externalParameters.{name}"), "candidate and target, and nothing else"));
    }
    let digest = |parameter: &str| -> Option<Digest> {
        let name = parameters.get(parameter).and_then(Value::as_str)?;
        let mut named = provenance.resolved_dependencies.iter().filter(|input| input.name.as_deref() == Some(name));
        let (one, None) = (named.next()?, named.next()) else { return None };
        one.digest.by("sha256")?.parse().ok()
    };
    let dependency = "the name of one resolved dependency with a sha256";
    let candidate = digest("candidate").ok_or_else(|| unlike("externalParameters.candidate".into(), dependency))?;
    let target = digest("target").ok_or_else(|| unlike("externalParameters.target".into(), dependency))?;
    if subjects.iter().any(|subject| subject.digest.sha256() != Some(target)) {
        return Err(unlike("subject".into(), "the target, and nothing else"));
    }
    let stabilized = |name: &str| name.starts_with("stabilized/");
    let mut normalised = provenance.byproducts.iter().filter(|b| b.name.as_deref().is_some_and(stabilized));
    let normalised = normalised.next().and_then(|b| b.digest.by("sha256")?.parse().ok());
    let result = if candidate == target { ComparisonResult::Identical } else { ComparisonResult::Equivalent };
    if result == ComparisonResult::Equivalent && normalised.is_none() {
        return Err(unlike("byproducts".into(), "stabilized/FILE with a sha256: what both are equal to"));
    }
    Ok(Compared {
        rebuilder,
        result,
        provenance: None,
        made: Some(candidate),
        produced: Box::new([Subject::of(&DigestSet::of(candidate))]),
        normalised,
        normalisers: Box::new([UNNAMED.into()]),
        flaky: false,
        finished: provenance.metadata.finished_on.unwrap_or(Moment::from_unix(0)),
    })
}

fn unlike(field: String, expected: &'static str) -> Check {
    let way_out = "it does not say what such statements say; ask who signed it";
    Check::new(Code::Comparison, Status::NotCounted, field, expected, "something else", way_out)
}
