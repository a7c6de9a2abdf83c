//! A policy: whom a consumer believes, how many of them must agree, and on what.
//!
//! [`Policy::parse`] is the only way to one. It refuses unknown members and every policy that could never let anything
//! pass, naming the field, what was expected and what to do; so a refusal later is about evidence, never about a slip in
//! the file. Knows neither keys (only their fingerprints) nor files: `verify` holds evidence against it.

mod document;
mod error;
mod licence;
mod load;
mod pattern;
mod rebuilder;
#[cfg(feature = "rego")]
pub mod rego;
mod starter;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use crate::digest::Digest;
use crate::key::{KeyId, TrustBundle};

pub use error::{Field, PolicyError};
pub use licence::{LicenceError, Licences, Unknown};
pub use pattern::{Pattern, PatternError};
pub use rebuilder::{Form, Rebuilder, SvidTrust, Validity, Verifier};
pub use starter::{Logged, Observed, starter};

/// The only schema there is.
pub const SCHEMA: u32 = 1;

/// The build type that is allowed unless a policy names others.
pub const BUILD_TYPE: &str = "https://kiln.build/build/v1";

/// The highest level of SLSA's build track.
pub const HIGHEST_BUILD_LEVEL: u8 = 3;

/// A parsed and checked policy.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// Of the file's bytes, as a summary names the policy.
    pub digest: Digest,
    /// Which artifacts it is for.
    pub artifact: Artifact,
    /// How many must agree.
    pub threshold: Threshold,
    /// Whose rebuilds count.
    pub rebuilders: Vec<Rebuilder>,
    /// Whose summaries count.
    pub verifiers: Vec<Verifier>,
    /// What their provenance must say.
    pub provenance: Provenance,
    /// What may go into a build.
    pub inputs: Inputs,
    /// What must stand in a transparency log.
    pub log: Log,
    /// Whether a bill of materials is asked for.
    pub sbom: Sbom,
    /// How bad a known vulnerability may be.
    pub vulns: Vulns,
    /// What monitors of builds must say.
    pub runtime: Runtime,
    /// Files with further rules, which can only deny.
    pub rego_modules: Vec<String>,
    /// Whether a refusal can be overridden.
    pub break_glass: BreakGlass,
}

/// Which artifacts a policy is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artifact {
    /// Their purls.
    pub pattern: Pattern,
    /// Where a consumer fetches one, with `{name}` and `{version}`.
    pub resource_uri: String,
}

/// How many must agree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Threshold {
    /// Distinct operators.
    pub identical: u32,
    /// Whether equality after normalisers counts.
    pub equivalents: Equivalents,
    /// What a dissenting operator causes.
    pub on_dissent: OnDissent,
    /// Whether votes of rebuilders count whose own attempts disagreed.
    pub flaky: Flaky,
    /// Envelopes that count for nothing, by their ids.
    pub disregard: BTreeSet<Digest>,
    /// How different those who agree must be.
    pub independence: Independence,
}

/// Whether equality after named normalisers counts towards a threshold. It is never shown as identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Equivalents {
    /// No.
    Ignored,
    /// Yes.
    Counted,
}

/// Whether votes of flaky builds count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaky {
    /// No.
    Refused,
    /// Yes.
    Allowed,
}

/// What a dissenting operator causes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnDissent {
    /// A veto.
    Deny,
    /// A warning.
    Warn,
    /// A veto, unless those who agree are more than one more than those who do not.
    Outvote,
}

/// How different those who agree must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Independence {
    /// Distinct operators.
    pub operators: u32,
    /// Distinct versions of the tool that built.
    pub tool_versions: u32,
    /// Distinct pairs of architecture and kernel.
    pub architectures_or_os: u32,
}

/// What provenance must say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provenance {
    /// Allowed build types.
    pub build_types: BTreeSet<String>,
    /// Pattern of each external parameter; `parameters.<name>` for the caller's own.
    pub external_parameters: BTreeMap<String, Pattern>,
    /// What a parameter causes that has no pattern.
    pub unknown_parameters: Unknown,
    /// Lowest level of SLSA's build track.
    pub min_level: u8,
    /// Oldest age; no limit if absent.
    pub max_age_days: Option<u32>,
}

/// What may go into a build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inputs {
    /// Whether one may come without a digest.
    pub undigested: Unknown,
    /// Where they may come from.
    pub allow_uri: Vec<Pattern>,
    /// Digests that no input and no artifact may have, as (algorithm, lower-case hex).
    pub deny_digests: BTreeSet<(String, String)>,
    /// Under which terms.
    pub licences: Licences,
    /// Lowest level of SLSA's source track that a summary must give to sources.
    pub source_vsa_min: Option<u8>,
}

/// What must stand in a transparency log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// File with logs, witnesses and quorum, relative to the policy; absent if none is named.
    pub policy_file: Option<String>,
    /// Whether statements count that stand in no log.
    pub inclusion: Inclusion,
    /// Oldest age of a checkpoint's cosignatures; no limit if absent.
    pub checkpoint_max_age_hours: Option<u32>,
    /// Directory that remembers the newest checkpoint of each log, relative to the policy.
    pub pinned_checkpoint: Option<String>,
}

/// Whether statements count that stand in no log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inclusion {
    /// No.
    Required,
    /// Yes; a proof that is there is judged all the same.
    Optional,
}

/// Whether a bill of materials is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sbom {
    /// Whether nothing passes without.
    pub needed: Needed,
    /// What it must contain.
    pub profile: SbomProfile,
}

/// Whether something is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needed {
    /// Nothing passes without.
    Required,
    /// Judged if it is there.
    Optional,
}

/// Which minimum a bill of materials must meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SbomProfile {
    /// The NTIA's minimum elements.
    Ntia,
    /// CISA's framing, third edition, minimum expected.
    Fsct3Min,
    /// The BSI's TR-03183.
    Bsi,
}

/// How bad a known vulnerability may be.
#[derive(Debug, Clone, PartialEq)]
pub struct Vulns {
    /// Highest CVSS score that passes.
    pub max_cvss: f64,
    /// Fingerprints of the keys whose VEX documents are believed.
    pub vex_authors: BTreeSet<KeyId>,
    /// Oldest age of the advisories.
    pub feed_max_age_days: u32,
}

/// What monitors of builds must say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Runtime {
    /// Whether nothing passes without a trace.
    pub needed: Needed,
    /// Kinds of events that a trace must not have.
    pub deny_events: BTreeSet<RuntimeEvent>,
}

/// A kind of event in a runtime trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RuntimeEvent {
    /// A process was started.
    Process,
    /// The network was used.
    Network,
    /// A file was opened.
    FileAccess,
}

/// Whether a refusal can be overridden.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakGlass {
    /// By nobody.
    Forbidden,
    /// By whoever gives a reason, which is shown; the decision stays what it is.
    Allowed,
}

impl Policy {
    /// A policy from the text of its file.
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        let document = toml::from_str(text).map_err(|error| PolicyError::syntax(text, &error))?;
        load::policy(document, Digest::of(text))
    }

    /// Reads the trust bundles that the policy names, each by `read`.
    pub fn trust<E>(&mut self, mut read: impl FnMut(&str) -> Result<TrustBundle, E>) -> Result<(), E> {
        for trust in self.rebuilders.iter_mut().filter_map(|rebuilder| rebuilder.svid.as_mut()) {
            trust.bundle = Some(read(&trust.file)?);
        }
        Ok(())
    }

    /// Distinct operators whose rebuilds could count.
    pub fn operators(&self) -> BTreeSet<&str> {
        self.rebuilders.iter().map(|rebuilder| rebuilder.operator.as_str()).collect()
    }

    /// Every key that the policy names, whatever for.
    pub fn keys(&self) -> BTreeSet<KeyId> {
        let rebuilders = self.rebuilders.iter().flat_map(|rebuilder| &rebuilder.keys);
        let verifiers = self.verifiers.iter().flat_map(|verifier| &verifier.keys);
        rebuilders.chain(verifiers).chain(&self.vulns.vex_authors).copied().collect()
    }
}

impl Vulns {
    /// Whether any score is too high.
    pub fn judges(&self) -> bool {
        self.max_cvss < 10.0
    }
}

impl RuntimeEvent {
    /// The word in policies and traces.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Network => "network",
            Self::FileAccess => "fileAccess",
        }
    }
}

impl SbomProfile {
    /// The word in policies.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ntia => "ntia",
            Self::Fsct3Min => "fsct3-min",
            Self::Bsi => "bsi",
        }
    }
}
