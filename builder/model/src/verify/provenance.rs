//! What a policy asks of provenance, whatever the artifact. Step 9 of the algorithm, and the levels of section 14.
//!
//! What lacks makes a build count for nothing; what is denied by name is kept apart, for it denies the artifact.

use std::collections::{BTreeMap, HashMap};
use std::sync::RwLock;

use serde_json::Value;

use super::check::{Check, Code, Status};
use super::fact::{Built, flat};
use crate::policy::{LicenceError, Licences, Pattern, Policy, Unknown};
use crate::statement::provenance::{BUILD_TYPE, Signer};
use crate::statement::{Descriptor, Provenance};

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
pub(super) fn judge(provenance: &Provenance, rebuilder: usize, policy: &Policy, known: &Known) -> (Built, Vec<Check>) {
    let mut failures = Vec::new();
    let definition = &provenance.build_definition;
    let rules = &policy.provenance;
    if !rules.build_types.contains(&definition.build_type) {
        failures.push(Check::new(
            Code::BuildType,
            Status::NotCounted,
            "buildType",
            rules.build_types.iter().cloned().collect::<Vec<_>>().join(" or "),
            definition.build_type.clone(),
            "add it to provenance.build_types if you know what its parameters mean",
        ));
    }
    let unexpected = parameters(&definition.external_parameters, policy, &mut failures);
    let ours = definition.build_type == BUILD_TYPE;
    let mut level = policy.rebuilders[rebuilder].max_slsa_level;
    if ours && definition.signer() != Some(Signer::Separate) {
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
    let byproducts = &provenance.run_details.byproducts;
    let mut shown = byproducts.iter().filter(|b| b.digest.sha256().is_some()).filter_map(|b| b.name.as_deref());
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
    for (number, input) in definition.resolved_dependencies.iter().enumerate() {
        self::input((number, input), policy, known, &mut failures, &mut denials);
    }
    let internal = &definition.internal_parameters;
    let host = internal.get("host").and_then(Value::as_object);
    let of_host = |name: &str| host.and_then(|host| host.get(name)).and_then(Value::as_str);
    let system = internal.get("system").and_then(Value::as_str);
    let built = Built {
        rebuilder,
        level,
        finished: provenance.run_details.metadata.finished_on,
        tool: versions(&provenance.run_details.builder.version).into(),
        platform: [of_host("arch").or(of_host("machine")).or(system), of_host("kernel")]
            .map(Option::unwrap_or_default)
            .join(" ")
            .trim()
            .into(),
        denials,
        sources: match policy.inputs.source_vsa_min {
            Some(_) => sources(&definition.resolved_dependencies),
            None => Vec::new(),
        },
        inputs: match policy.vulns.judges() {
            true => super::fact::purls(definition.resolved_dependencies.iter()).into_vec(),
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
fn input(
    (number, input): (usize, &Descriptor),
    policy: &Policy,
    known: &Known,
    failures: &mut Vec<Check>,
    denials: &mut Vec<Check>,
) {
    let rules = &policy.inputs;
    let named = || input.uri.clone().or_else(|| input.name.clone()).unwrap_or_else(|| format!("number {number}"));
    let field = |member: &str| format!("resolvedDependencies[{number}].{member}");
    let digests = &input.digest;
    if rules.undigested == Unknown::Denied && !digests.contains("sha256") && !digests.contains("gitCommit") {
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
        if digests.0.get(algorithm) == Some(hex) {
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
    if rules.licences.judges() {
        let licence = input.annotations.get("license").and_then(Value::as_str);
        if let Err(error) = known.judge(licence, &rules.licences) {
            denials.push(Check::new(
                Code::Licence,
                Status::Denied,
                field("annotations.license"),
                "terms that inputs.licences allows",
                format!("{}: {error}", named()),
                "build it from another input, or change inputs.licences",
            ));
        }
    }
}

/// Where sources are kept, and which revision it is.
fn sources(inputs: &[Descriptor]) -> Vec<(Box<str>, Box<str>)> {
    let revision = |input: &Descriptor| {
        let (uri, commit) = (input.uri.as_deref()?, input.digest.0.get("gitCommit")?);
        Some((uri.into(), commit.as_str().into()))
    };
    inputs.iter().filter_map(revision).collect()
}

/// Tools with their versions, as one word.
fn versions(versions: &BTreeMap<String, String>) -> String {
    versions.iter().map(|(name, version)| format!("{name} {version}")).collect::<Vec<_>>().join(", ")
}
