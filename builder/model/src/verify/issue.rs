//! A decision as a summary that others can rely on: SLSA's VSA. Step 13.
//!
//! Issued for refusals as well. It names every envelope that was used; the rules on levels are the statement's own.

use super::decision::{Answer, Artifact, Decision};
use crate::outcome::Moment;
use crate::policy::Policy;
use crate::statement::summary::Found;
use crate::statement::{Descriptor, Predicate, Statement, StatementError, Summary};

/// Who issues a summary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issuer {
    /// The verifier's URI, without a version.
    pub verifier: String,
    /// Version of kiln.
    pub version: String,
    /// Where the policy is.
    pub policy_uri: String,
}

/// Why no summary is issued.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// The address has a place for a version that nobody knows.
    #[error("artifact.resource_uri {uri:?} asks for a {{version}} that is not known: say --purl, with a version")]
    Version {
        /// The policy's.
        uri: String,
    },
    /// A decision that a summary cannot express.
    #[error("the decision on {artifact} has no summary")]
    Statement {
        /// Which.
        artifact: String,
        /// Why.
        #[source]
        source: StatementError,
    },
}

/// The statement that says what was decided.
pub fn summary(decision: &Decision, policy: &Policy, issuer: &Issuer, now: Moment) -> Result<Statement, IssueError> {
    let artifact = &decision.artifact;
    let wrong = |source| IssueError::Statement { artifact: artifact.name.clone(), source };
    let summary = Summary::new(Found {
        verifier: issuer.verifier.clone(),
        version: issuer.version.clone(),
        now,
        resource_uri: resource(artifact, policy)?,
        policy_uri: issuer.policy_uri.clone(),
        policy: policy.digest,
        inputs: decision.inputs.clone(),
        levels: (decision.answer == Answer::Allowed).then(|| decision.levels.clone()),
    })
    .map_err(wrong)?;
    let name = artifact.name.rsplit('/').next().unwrap_or(&artifact.name);
    let subject = Descriptor::of(artifact.digest.clone()).named_as(name);
    Ok(Statement { subject: vec![subject], predicate: Predicate::Summary(Box::new(summary)) })
}

/// Where the consumer is expected to fetch the artifact.
fn resource(artifact: &Artifact, policy: &Policy) -> Result<String, IssueError> {
    let uri = &policy.artifact.resource_uri;
    let name = artifact.name.rsplit('/').next().unwrap_or(&artifact.name);
    let purl = artifact.purl.as_deref().and_then(|purl| purl.parse::<crate::format::purl::Purl>().ok());
    let expanded = uri.replace("{name}", name);
    match purl.as_ref().and_then(|purl| purl.version()) {
        Some(version) => Ok(expanded.replace("{version}", version)),
        None if expanded.contains("{version}") => Err(IssueError::Version { uri: uri.clone() }),
        None => Ok(expanded),
    }
}
