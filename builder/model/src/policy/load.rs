//! From a policy's document to the policy: every rule that its members must keep, alone and together.
//!
//! A rule is either about one value (what it may be) or about what can be met at all: a demand that the named rebuilders
//! could never fulfil is refused here, not found out when an artifact is to be let in.

use std::collections::{BTreeMap, BTreeSet};

use super::document::{self, Document};
use super::licence::{self, Licences};
use super::{
    Artifact, BreakGlass, Equivalents, Flaky, Form, Inclusion, Independence, Inputs, Log, OnDissent, Policy,
    PolicyError, Provenance, Rebuilder, Runtime, RuntimeEvent, SCHEMA, Sbom, SbomProfile, SvidTrust, Threshold,
    Unknown, Validity, Verifier, Vulns,
};
use crate::digest::Digest;
use crate::key::SpiffeId;

mod keys;
mod value;

use keys::Keys;
use value::{build_level, field, is_hex, moment, needed, numbered, pattern, source_level, uri, word};

type Loaded<T> = Result<T, PolicyError>;

/// Algorithms whose digests a policy can deny, with the number of their hexadecimal digits.
const ALGORITHMS: [(&str, usize); 8] = [
    ("sha256", 64),
    ("sha512", 128),
    ("sha1", 40),
    ("md5", 32),
    ("gitCommit", 40),
    ("gitTree", 40),
    ("gitBlob", 40),
    ("dirHash", 64),
];

/// Names of external parameters beside those of the caller.
const PLACEHOLDERS: [&str; 2] = ["name", "version"];

pub(super) fn policy(document: Document, digest: Digest) -> Loaded<Policy> {
    if document.schema != SCHEMA {
        return Err(PolicyError::Schema { found: document.schema });
    }
    let mut keys = Keys::default();
    let rebuilders = rebuilders(document.rebuilders, &mut keys)?;
    let verifiers = numbered(document.verifiers, |number, verifier| self::verifier(number, verifier, &mut keys))?;
    let threshold = threshold(document.threshold)?;
    let provenance = provenance(document.provenance)?;
    let inputs = inputs(document.inputs)?;
    reachable(&rebuilders, &threshold, &provenance)?;
    if let Some(level) = inputs.source_vsa_min
        && !verifiers.iter().any(|verifier| verifier.max_source_level >= level)
    {
        return Err(PolicyError::Contradiction {
            field: field("inputs.source_vsa_min"),
            found: format!("SLSA_SOURCE_LEVEL_{level}"),
            other: "every verifier's max_level".into(),
            way_out: "name a [[verifier]] whose max_level reaches it",
        });
    }
    Ok(Policy {
        digest,
        artifact: artifact(document.artifact)?,
        threshold,
        rebuilders,
        verifiers,
        provenance,
        inputs,
        log: log(document.log)?,
        sbom: Sbom {
            needed: needed(document.sbom.required),
            profile: word(
                "sbom.profile",
                document.sbom.profile,
                &[("ntia", SbomProfile::Ntia), ("fsct3-min", SbomProfile::Fsct3Min), ("bsi", SbomProfile::Bsi)],
                "a profile; write \"ntia\", \"fsct3-min\" or \"bsi\"",
            )?,
        },
        vulns: vulns(document.vulns, &mut keys)?,
        runtime: Runtime {
            needed: needed(document.runtime.required),
            deny_events: numbered(document.runtime.deny_events, |number, event| {
                let kinds = [RuntimeEvent::Process, RuntimeEvent::Network, RuntimeEvent::FileAccess];
                let words = kinds.map(|kind| (kind.as_str(), kind));
                let what = "a kind of event; write \"process\", \"network\" or \"fileAccess\"";
                word(&format!("runtime.deny_events[{number}]"), event, &words, what)
            })?
            .into_iter()
            .collect(),
        },
        rego_modules: document.rego.modules,
        break_glass: if document.break_glass.allowed { BreakGlass::Allowed } else { BreakGlass::Forbidden },
    })
}

fn rebuilders(documents: Vec<document::Rebuilder>, keys: &mut Keys) -> Loaded<Vec<Rebuilder>> {
    if documents.is_empty() {
        return Err(PolicyError::NoRebuilder);
    }
    let mut first_of: BTreeMap<String, usize> = BTreeMap::new();
    numbered(documents, |number, document| {
        let place = format!("rebuilder[{number}]");
        let id = uri(&format!("{place}.id"), document.id)?;
        if let Some(&first) = first_of.get(&id) {
            return Err(PolicyError::IdTwice { field: field(&format!("{place}.id")), id, first });
        }
        first_of.insert(id.clone(), number);
        if document.operator.trim().is_empty() {
            return Err(PolicyError::Empty {
                field: field(&format!("{place}.operator")),
                way_out: "operators are what is counted; name who runs it",
            });
        }
        let svid = match document.svid_bundle.as_str() {
            "" => None,
            file if SpiffeId::parse(&id).is_ok() => Some(SvidTrust { file: file.to_owned(), bundle: None }),
            _ => {
                return Err(PolicyError::Value {
                    field: field(&format!("{place}.id")),
                    found: id,
                    expected: "spiffe://TRUST-DOMAIN/PATH, whom the authorities in svid_bundle vouch for",
                });
            }
        };
        let (named, openpgp) = match (&svid, document.keys.is_empty()) {
            (Some(_), true) => Default::default(),
            _ => keys.of_rebuilder(&format!("{place}.keys"), &document.keys)?,
        };
        Ok(Rebuilder {
            id,
            operator: document.operator.trim().to_owned(),
            keys: named,
            openpgp,
            svid,
            max_slsa_level: build_level(&format!("{place}.max_slsa_level"), document.max_slsa_level)?,
            validity: validity(&place, &document.valid, &document.revoked_after)?,
            accepts: forms(&format!("{place}.accepts"), document.accepts)?,
        })
    })
}

fn forms(place: &str, words: Vec<String>) -> Loaded<BTreeSet<Form>> {
    let expected = "in-toto-link, narinfo or oss-rebuild; provenance in envelopes needs no mention";
    let known = |number, found: String| {
        Form::named(&found).ok_or(PolicyError::Value { field: field(&format!("{place}[{number}]")), found, expected })
    };
    Ok(numbered(words, known)?.into_iter().collect())
}

fn validity(place: &str, valid: &[String], revoked_after: &str) -> Loaded<Validity> {
    let [from, until] = valid else {
        return Err(PolicyError::Value {
            field: field(&format!("{place}.valid")),
            found: valid.join(", "),
            expected: "two dates: the first day, and the day after the last",
        });
    };
    let (begin, end) = (moment(&format!("{place}.valid[0]"), from)?, moment(&format!("{place}.valid[1]"), until)?);
    if begin >= end {
        let field = field(&format!("{place}.valid"));
        return Err(PolicyError::Period { field, from: from.clone(), to: until.clone() });
    }
    let revoked_after = match revoked_after {
        "" => None,
        text => Some(moment(&format!("{place}.revoked_after"), text)?),
    };
    Ok(Validity { from: begin, until: end, revoked_after })
}

fn verifier(number: usize, document: document::Verifier, keys: &mut Keys) -> Loaded<Verifier> {
    let place = format!("verifier[{number}]");
    let id = uri(&format!("{place}.id"), document.id)?;
    // The host may have a user before it; a version follows the path.
    if id.rsplit('/').next().is_some_and(|last| last.contains('@')) {
        return Err(PolicyError::Value {
            field: field(&format!("{place}.id")),
            found: id,
            expected: "an id without its version; leave out the @ and what follows",
        });
    }
    Ok(Verifier {
        keys: keys.take(&format!("{place}.keys"), &document.keys)?,
        max_source_level: source_level(&format!("{place}.max_level"), &document.max_level)?,
        resource_uri: pattern(&format!("{place}.resource_uri"), &document.resource_uri)?,
        id,
    })
}

fn threshold(document: document::Threshold) -> Loaded<Threshold> {
    if document.identical == 0 {
        return Err(PolicyError::Value {
            field: field("threshold.identical"),
            found: "0".into(),
            expected: "at least 1: without a rebuilder that agrees nothing was verified",
        });
    }
    Ok(Threshold {
        identical: document.identical,
        equivalents: if document.equivalent_counts { Equivalents::Counted } else { Equivalents::Ignored },
        on_dissent: word(
            "threshold.on_dissent",
            document.on_dissent,
            &[("deny", OnDissent::Deny), ("warn", OnDissent::Warn), ("outvote", OnDissent::Outvote)],
            "a rule; write \"deny\", \"warn\" or \"outvote\"",
        )?,
        flaky: if document.allow_flaky { Flaky::Allowed } else { Flaky::Refused },
        disregard: numbered(document.disregard, |number, text| {
            let bare = text.strip_prefix("sha256:").unwrap_or(&text);
            let id = Some(bare).filter(|hex| is_hex(hex, 64)).and_then(|hex| hex.parse().ok());
            id.ok_or_else(|| PolicyError::Value {
                field: field(&format!("threshold.disregard[{number}]")),
                found: text,
                expected: "an envelope id: 64 lower-case hexadecimal digits, as reports show them",
            })
        })?
        .into_iter()
        .collect(),
        independence: Independence {
            operators: document.min_independence.operators,
            tool_versions: document.min_independence.tool_versions,
            architectures_or_os: document.min_independence.architectures_or_os,
        },
    })
}

/// Whether those who are named could ever fulfil what is demanded.
fn reachable(rebuilders: &[Rebuilder], threshold: &Threshold, provenance: &Provenance) -> Loaded<()> {
    let all: BTreeSet<&str> = rebuilders.iter().map(|rebuilder| rebuilder.operator.as_str()).collect();
    let able: BTreeSet<&str> = rebuilders
        .iter()
        .filter(|rebuilder| rebuilder.max_slsa_level >= provenance.min_level && rebuilder.validity.is_ever())
        .map(|rebuilder| rebuilder.operator.as_str())
        .collect();
    let because = match all.len() - able.len() {
        0 => String::new(),
        fallen => format!(
            " (of {}, {fallen} with a max_slsa_level below provenance.min_level = {} or revoked from the start)",
            all.len(),
            provenance.min_level
        ),
    };
    let demands = [
        ("threshold.identical", threshold.identical),
        ("threshold.min_independence.operators", threshold.independence.operators),
        ("threshold.min_independence.tool_versions", threshold.independence.tool_versions),
        ("threshold.min_independence.architectures_or_os", threshold.independence.architectures_or_os),
    ];
    for (name, wanted) in demands {
        if wanted as usize > able.len() {
            return Err(PolicyError::Unreachable { field: field(name), wanted, there: able.len(), because });
        }
    }
    Ok(())
}

fn provenance(document: document::Provenance) -> Loaded<Provenance> {
    if document.build_types.is_empty() {
        return Err(PolicyError::Empty {
            field: field("provenance.build_types"),
            way_out: "no provenance could pass; leave it out, or name a build type",
        });
    }
    if document.external_parameters.is_empty() {
        return Err(PolicyError::Empty {
            field: field("provenance.external_parameters"),
            way_out: "it says what was to be built; name at least recipe with a pattern",
        });
    }
    let mut external_parameters = BTreeMap::new();
    for (name, text) in document.external_parameters {
        let place = format!("provenance.external_parameters.{name}");
        if name.strip_prefix("parameters.").is_some_and(str::is_empty) || name == "parameters" {
            return Err(PolicyError::Value {
                field: field(&place),
                found: name,
                expected: "the name of one parameter; write \"parameters.<name>\" for each of the caller's",
            });
        }
        external_parameters.insert(name, pattern(&place, &text)?);
    }
    Ok(Provenance {
        build_types: document.build_types.into_iter().collect(),
        external_parameters,
        unknown_parameters: if document.deny_unknown_parameters { Unknown::Denied } else { Unknown::Allowed },
        min_level: build_level("provenance.min_level", document.min_level)?,
        max_age_days: Some(document.max_age_days).filter(|days| *days > 0),
    })
}

fn inputs(document: document::Inputs) -> Loaded<Inputs> {
    if document.allow_uri.is_empty() {
        return Err(PolicyError::Empty {
            field: field("inputs.allow_uri"),
            way_out: "no input could pass; leave it out to allow all, or name patterns",
        });
    }
    let names = |place: &str, texts: Vec<String>| {
        numbered(texts, |number, text| {
            licence::canonical(&text).ok_or_else(|| PolicyError::Value {
                field: field(&format!("{place}[{number}]")),
                found: text,
                expected: "one SPDX licence, such as \"AGPL-3.0-only\"; name each on its own",
            })
        })
        .map(|names| names.into_iter().collect::<BTreeSet<_>>())
    };
    let allow = names("inputs.licences.allow", document.licences.allow)?;
    let deny = names("inputs.licences.deny", document.licences.deny)?;
    if let Some(both) = allow.intersection(&deny).next() {
        return Err(PolicyError::Contradiction {
            field: field("inputs.licences.allow"),
            found: both.clone(),
            other: format!("inputs.licences.deny, which has {both} too"),
            way_out: "take it out of one",
        });
    }
    Ok(Inputs {
        undigested: if document.require_digest { Unknown::Denied } else { Unknown::Allowed },
        allow_uri: numbered(document.allow_uri, |number, text| pattern(&format!("inputs.allow_uri[{number}]"), &text))?,
        deny_digests: numbered(document.deny_digests, |number, text| {
            let expected = "a digest: algorithm, colon and lower-case hexadecimal digits, such as sha256:…";
            let refused = || PolicyError::Value {
                field: field(&format!("inputs.deny_digests[{number}]")),
                found: text.clone(),
                expected,
            };
            let (algorithm, hex) = text.split_once(':').ok_or_else(refused)?;
            let known = ALGORITHMS.iter().any(|(name, digits)| *name == algorithm && is_hex(hex, *digits));
            if known { Ok((algorithm.to_owned(), hex.to_owned())) } else { Err(refused()) }
        })?
        .into_iter()
        .collect(),
        licences: Licences {
            allow,
            deny,
            unknown: word(
                "inputs.licences.unknown",
                document.licences.unknown,
                &[("deny", Unknown::Denied), ("allow", Unknown::Allowed)],
                "a rule; write \"deny\" or \"allow\"",
            )?,
        },
        source_vsa_min: match document.source_vsa_min.as_str() {
            "" => None,
            text => Some(source_level("inputs.source_vsa_min", text)?),
        },
    })
}

fn log(document: document::Log) -> Loaded<Log> {
    let inclusion = if document.require_inclusion { Inclusion::Required } else { Inclusion::Optional };
    if inclusion == Inclusion::Required && document.tlog_policy.is_empty() {
        return Err(PolicyError::Empty {
            field: field("log.tlog_policy"),
            way_out: "log.require_inclusion needs logs to believe; name a file with them, or set it to false",
        });
    }
    if inclusion == Inclusion::Optional && document.checkpoint_max_age_hours > 0 {
        return Err(PolicyError::Contradiction {
            field: field("log.checkpoint_max_age_hours"),
            found: document.checkpoint_max_age_hours.to_string(),
            other: "log.require_inclusion = false".into(),
            way_out: "a statement without a proof would have no age; require inclusion, or leave the age out",
        });
    }
    Ok(Log {
        policy_file: Some(document.tlog_policy).filter(|path| !path.is_empty()),
        inclusion,
        checkpoint_max_age_hours: Some(document.checkpoint_max_age_hours).filter(|hours| *hours > 0),
        pinned_checkpoint: Some(document.pinned_checkpoint).filter(|path| !path.is_empty()),
    })
}

fn vulns(document: document::Vulns, keys: &mut Keys) -> Loaded<Vulns> {
    if !(0.0..=10.0).contains(&document.max_cvss) {
        return Err(PolicyError::Value {
            field: field("vulns.max_cvss"),
            found: document.max_cvss.to_string(),
            expected: "a CVSS score; write 0.0 to 10.0, where 10.0 denies nothing",
        });
    }
    let vex_authors = match document.vex_authors.as_slice() {
        [] => BTreeSet::new(),
        texts => keys.take("vulns.vex_authors", texts)?,
    };
    Ok(Vulns { max_cvss: document.max_cvss, vex_authors, feed_max_age_days: document.feed_max_age_days })
}

fn artifact(document: document::Artifact) -> Loaded<Artifact> {
    if !document.pattern.starts_with("pkg:") && document.pattern != "*" {
        return Err(PolicyError::Value {
            field: field("artifact.match"),
            found: document.pattern,
            expected: "a pattern over purls, such as \"pkg:generic/hello@*\", or \"*\"",
        });
    }
    if document.resource_uri.is_empty() {
        return Err(PolicyError::Empty {
            field: field("artifact.resource_uri"),
            way_out: "say where a consumer fetches the artifact, with {name} and {version}",
        });
    }
    for part in document.resource_uri.split('{').skip(1) {
        let name = part.split_once('}').map(|(name, _)| name);
        if !name.is_some_and(|name| PLACEHOLDERS.contains(&name)) {
            return Err(PolicyError::Value {
                field: field("artifact.resource_uri"),
                found: document.resource_uri,
                expected: "an address whose only placeholders are {name} and {version}",
            });
        }
    }
    Ok(Artifact { pattern: pattern("artifact.match", &document.pattern)?, resource_uri: document.resource_uri })
}
