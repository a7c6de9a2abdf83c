//! What a policy asks of provenance, whatever the artifact. Step 9 of the algorithm, and the levels of section 14.
//!
//! What lacks makes a build count for nothing; what is denied by name is kept apart, for it denies the artifact.

use std::collections::{BTreeMap, HashMap};
use std::sync::RwLock;

use serde_json::Value;

use super::check::{Check, Code, Status};
use super::fact::{Built, flat};
use crate::policy::{LicenceError, Licences, Pattern, Policy, Unknown};
use crate::statement::provenance::{BUILD_TYPE, Brief, Input, Signer};

/// What builds of ours have beside their subjects: whoever copied another's result has them not. There is a manifest for each
/// output, whose name may stand before it.
const LOG: &str = "build.log";
const MANIFEST: &str = "manifest.json";

/// Licences that are remembered: strangers write them.
const MOST_LICENCES: usize = 4096;

/// The level of a build whose signer was within its reach.
const LEVEL_WITHOUT_SEPARATE_SIGNER: u8 = 2;

/// Licences that were judged before: a world of packages has few.
#[derive(Debug, Default)]
pub(super) struct Known(RwLock<HashMap<Option<Box<str>>, JudgedLicence>>);

type JudgedLicence = Result<(), LicenceError>;

impl Known {
    fn judge(&self, licence: Option<&str>, rules: &Licences) -> Result<(), LicenceError> {
        let key = licence.map(Box::from);
        if let Some(known) = self.0.read().expect("no thread panics with the lock").get(&key) {
            return known.clone();
        }
        let judged = rules.judge(licence);
        let mut known = self.0.write().expect("no thread panics with the lock");
        if known.len() < MOST_LICENCES {
            known.insert(key, judged.clone());
        }
        judged
    }
}

/// Judges the provenance of the rebuilder with this number.
pub(super) fn judge(provenance: &Brief<'_>, rebuilder: usize, policy: &Policy, known: &Known) -> (Built, Vec<Check>) {
    let mut failures = Vec::new();
    let rules = &policy.provenance;
    if !rules.build_types.contains(&provenance.build_type) {
        failures.push(Check::new(
            Code::BuildType,
            Status::NotCounted,
            "buildType",
            rules.build_types.iter().cloned().collect::<Vec<_>>().join(" or "),
            provenance.build_type.clone(),
            "add it to provenance.build_types if you know what its parameters mean",
        ));
    }
    let unexpected = parameters(&provenance.external_parameters, policy, &mut failures);
    let ours = provenance.build_type == BUILD_TYPE;
    let mut level = policy.rebuilders[rebuilder].max_slsa_level;
    if ours && provenance.signer != Some(Signer::Separate) {
        level = level.min(LEVEL_WITHOUT_SEPARATE_SIGNER);
    }
    if unexpected {
        level = 0;
    }
    if level < rules.min_level {
        failures.push(Check::new(
            Code::Level,
            Status::NotCounted,
            "provenance.min_level",
            format!("SLSA_BUILD_LEVEL_{}", rules.min_level),
            format!("SLSA_BUILD_LEVEL_{level}"),
            "it is what rebuilder.max_slsa_level grants, lowered where the signer was within reach of the build",
        ));
    }
    let byproducts = &provenance.byproducts;
    let mut shown = byproducts.iter().filter(|b| b.digest.by("sha256").is_some()).filter_map(|b| b.name.as_deref());
    let is_manifest = |name: &str| name.strip_suffix(MANIFEST).is_some_and(|of| of.is_empty() || of.ends_with('.'));
    if ours && !(shown.clone().any(|name| name == LOG) && shown.any(is_manifest)) {
        failures.push(Check::new(
            Code::Byproducts,
            Status::NotCounted,
            "byproducts",
            "build.log and a manifest.json, each with its sha256",
            byproducts.iter().filter_map(|b| b.name.as_deref()).collect::<Vec<_>>().join(", "),
            "whoever built it can show its log; ask the rebuilder for both",
        ));
    }
    let mut denials = Vec::new();
    let licences = &policy.inputs.licences;
    // Most inputs of a build come under few terms: what passed is not looked up again.
    let mut passed = None;
    for (number, input) in provenance.resolved_dependencies.iter().enumerate() {
        self::input((number, input), policy, &mut failures, &mut denials);
        if licences.judges() && passed != Some(input.licence()) {
            match known.judge(input.licence(), licences) {
                Ok(()) => passed = Some(input.licence()),
                Err(error) => denials.push(Check::new(
                    Code::Licence,
                    Status::Denied,
                    format!("resolvedDependencies[{number}].annotations.license"),
                    "terms that inputs.licences allows",
                    format!("{}: {error}", named(number, input)),
                    "build it from another input, or change inputs.licences",
                )),
            }
        }
    }
    let built = Built {
        rebuilder,
        form: None,
        level,
        finished: provenance.metadata.finished_on,
        tool: versions(&provenance.builder.version).into(),
        platform: provenance
            .platform
            .each_ref()
            .map(|word| word.as_deref().unwrap_or_default())
            .join(" ")
            .trim()
            .into(),
        denials,
        sources: match policy.inputs.source_vsa_min {
            Some(_) => sources(&provenance.resolved_dependencies),
            None => Vec::new(),
        },
        inputs: match policy.vulns.judges() {
            true => {
                let uris = provenance.resolved_dependencies.iter().filter_map(|input| input.uri.as_deref());
                uris.filter(|uri| uri.starts_with("pkg:")).map(Into::into).collect()
            }
            false => Vec::new(),
        },
    };
    (built, failures)
}

/// Judges the external parameters. Returns whether one stands there that the policy does not know.
fn parameters(found: &BTreeMap<String, Value>, policy: &Policy, failures: &mut Vec<Check>) -> bool {
    let rules = &policy.provenance;
    let found = flat(found);
    let mut unexpected = false;
    for (name, value) in &found {
        match rules.external_parameters.get(name) {
            Some(pattern) if pattern.matches(value) => {}
            Some(pattern) => failures.push(Check::new(
                Code::ExternalParameters,
                Status::NotCounted,
                format!("externalParameters.{name}"),
                pattern.to_string(),
                value.clone(),
                "something else was built; if that is what you want, widen provenance.external_parameters",
            )),
            None => {
                unexpected = true;
                if rules.unknown_parameters == Unknown::Denied {
                    failures.push(Check::new(
                        Code::ExternalParameters,
                        Status::NotCounted,
                        format!("externalParameters.{name}"),
                        "no such parameter",
                        value.clone(),
                        "it may change what is built; name it in provenance.external_parameters if it may be there",
                    ));
                }
            }
        }
    }
    for (name, pattern) in &rules.external_parameters {
        if !pattern.is_any() && !found.iter().any(|(other, _)| other == name) {
            failures.push(Check::new(
                Code::ExternalParameters,
                Status::NotCounted,
                format!("externalParameters.{name}"),
                pattern.to_string(),
                "nothing",
                "the statement does not say it; take it out of provenance.external_parameters if it need not",
            ));
        }
    }
    unexpected
}

/// Judges one input: what lacks, and what is denied.
fn input((number, input): (usize, &Input<'_>), policy: &Policy, failures: &mut Vec<Check>, denials: &mut Vec<Check>) {
    let rules = &policy.inputs;
    let named = || named(number, input);
    let field = |member: &str| format!("resolvedDependencies[{number}].{member}");
    let digests = &input.digest;
    if rules.undigested == Unknown::Denied && digests.by("sha256").is_none() && digests.by("gitCommit").is_none() {
        failures.push(Check::new(
            Code::InputDigest,
            Status::NotCounted,
            field("digest"),
            "a sha256 or gitCommit",
            format!("none for {}", named()),
            "an input without a digest could be anything; ask the rebuilder to pin it",
        ));
    }
    let any = rules.allow_uri.iter().any(Pattern::is_any);
    if !any && !input.uri.as_ref().is_some_and(|uri| rules.allow_uri.iter().any(|pattern| pattern.matches(uri))) {
        failures.push(Check::new(
            Code::InputUri,
            Status::NotCounted,
            field("uri"),
            rules.allow_uri.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or "),
            named(),
            "add its origin to inputs.allow_uri if you believe it",
        ));
    }
    for (algorithm, hex) in &rules.deny_digests {
        if digests.by(algorithm) == Some(hex) {
            denials.push(Check::new(
                Code::DeniedDigest,
                Status::Denied,
                field("digest"),
                "no input of inputs.deny_digests",
                format!("{} is {algorithm}:{hex}", named()),
                "build it from another input, or take the digest off the list",
            ));
        }
    }
}

/// A word for an input in messages.
fn named(number: usize, input: &Input<'_>) -> String {
    input.uri.as_deref().or(input.name.as_deref()).map_or_else(|| format!("number {number}"), str::to_owned)
}

/// Where sources are kept, and which revision it is.
fn sources(inputs: &[Input<'_>]) -> Vec<(Box<str>, Box<str>)> {
    let revision = |input: &Input<'_>| {
        let (uri, commit) = (input.uri.as_deref()?, input.digest.by("gitCommit")?);
        Some((uri.into(), commit.into()))
    };
    inputs.iter().filter_map(revision).collect()
}

/// Tools with their versions, as one word.
pub(super) fn versions(versions: &BTreeMap<String, String>) -> String {
    versions.iter().map(|(name, version)| format!("{name} {version}")).collect::<Vec<_>>().join(", ")
}
