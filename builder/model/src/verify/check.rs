//! One check: what was looked at, what was required, what was found, and what to do about it.
//!
//! A decision is its list of checks; its exit code follows from their weights alone. Texts are for people, codes for programs:
//! a code is never renamed.

use std::borrow::Cow;

use serde::Serialize;

use crate::envelope::EnvelopeId;

/// A text that mostly is known beforehand.
pub type Text = Cow<'static, str>;

/// What was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Code {
    /// An envelope is one.
    Envelope,
    /// A signature by a key of the policy holds.
    Signature,
    /// An envelope hashes to its file's name.
    FileName,
    /// A bundle's parts agree with each other.
    Bundle,
    /// A payload is a statement.
    Statement,
    /// Key and id stand together in the policy.
    Pair,
    /// A form of evidence is one that the policy accepts from its key.
    Form,
    /// A statement stands in a log.
    Inclusion,
    /// Logs only grew since they were last seen, and are the same for all.
    Log,
    /// A checkpoint is fresh.
    CheckpointAge,
    /// No time lies ahead of now.
    Clock,
    /// A key was valid when it signed.
    Validity,
    /// A key was not revoked when it signed.
    Revocation,
    /// A statement is fresh.
    Age,
    /// The artifact is one that the policy is for.
    Artifact,
    /// A statement is about the artifact.
    Subject,
    /// A build type is allowed.
    BuildType,
    /// What was asked to be built is what the policy expects.
    ExternalParameters,
    /// A level is reached.
    Level,
    /// A build shows its log and its files.
    Byproducts,
    /// Inputs have digests.
    InputDigest,
    /// Inputs come from where they may.
    InputUri,
    /// No denied digest went in.
    DeniedDigest,
    /// Inputs come under terms that are allowed.
    Licence,
    /// A comparison and its provenance agree.
    Comparison,
    /// A rebuilder's own attempts agree.
    Flaky,
    /// Statements that count for nothing by the policy's word.
    Disregarded,
    /// There is evidence, and not too much of it.
    Evidence,
    /// Enough operators agree.
    Threshold,
    /// Those who agree are different enough.
    Independence,
    /// Nobody says otherwise.
    Dissent,
    /// Another verifier's summary.
    Summary,
    /// Sources were judged by who keeps them.
    SourceSummary,
    /// There is a bill of materials.
    Sbom,
    /// Known vulnerabilities.
    Vulnerability,
    /// What monitors saw.
    Runtime,
    /// Further rules.
    Rego,
}

/// How a check ended, from best to worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// It holds.
    Passed,
    /// It holds, and there is something to know.
    Noted,
    /// A statement counts for nothing because of it; what that means, the threshold says.
    NotCounted,
    /// Evidence is missing.
    Insufficient,
    /// An explicit no.
    Denied,
    /// Cryptography contradicts what was presented.
    Tampered,
}

/// One check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was looked at.
    pub code: Code,
    /// How it ended.
    pub status: Status,
    /// Where: a member of a statement or of the policy.
    pub field: Text,
    /// What was required.
    pub expected: Text,
    /// What was found.
    pub got: Text,
    /// What to do, unless it holds.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub way_out: Text,
    /// The envelope that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub envelope: Option<EnvelopeId>,
    /// Where that was found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
}

impl Check {
    /// A check that ended with `status`.
    pub fn new(
        code: Code,
        status: Status,
        field: impl Into<Text>,
        expected: impl Into<Text>,
        got: impl Into<Text>,
        way_out: impl Into<Text>,
    ) -> Self {
        let (field, expected, got, way_out) = (field.into(), expected.into(), got.into(), way_out.into());
        Self { code, status, field, expected, got, way_out, envelope: None, source: None }
    }

    /// A check that holds.
    pub fn passed(code: Code, field: &'static str, expected: impl Into<Text>, got: impl Into<Text>) -> Self {
        Self::new(code, Status::Passed, field, expected, got, "")
    }

    /// The same, about an envelope.
    pub fn about(self, envelope: EnvelopeId, source: String) -> Self {
        Self { envelope: Some(envelope), source: Some(source), ..self }
    }

    /// The same, found there.
    pub fn found_in(self, source: String) -> Self {
        Self { source: Some(source), ..self }
    }
}

impl Code {
    /// The word in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Envelope => "envelope",
            Self::Signature => "signature",
            Self::FileName => "file-name",
            Self::Bundle => "bundle",
            Self::Statement => "statement",
            Self::Pair => "pair",
            Self::Form => "form",
            Self::Inclusion => "inclusion",
            Self::Log => "log",
            Self::CheckpointAge => "checkpoint-age",
            Self::Clock => "clock",
            Self::Validity => "validity",
            Self::Revocation => "revocation",
            Self::Age => "age",
            Self::Artifact => "artifact",
            Self::Subject => "subject",
            Self::BuildType => "build-type",
            Self::ExternalParameters => "external-parameters",
            Self::Level => "level",
            Self::Byproducts => "byproducts",
            Self::InputDigest => "input-digest",
            Self::InputUri => "input-uri",
            Self::DeniedDigest => "denied-digest",
            Self::Licence => "licence",
            Self::Comparison => "comparison",
            Self::Flaky => "flaky",
            Self::Disregarded => "disregarded",
            Self::Evidence => "evidence",
            Self::Threshold => "threshold",
            Self::Independence => "independence",
            Self::Dissent => "dissent",
            Self::Summary => "summary",
            Self::SourceSummary => "source-summary",
            Self::Sbom => "sbom",
            Self::Vulnerability => "vulnerability",
            Self::Runtime => "runtime",
            Self::Rego => "rego",
        }
    }
}

impl Status {
    /// The word in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Noted => "noted",
            Self::NotCounted => "not counted",
            Self::Insufficient => "insufficient",
            Self::Denied => "denied",
            Self::Tampered => "tampered",
        }
    }
}
