//! A small world: rebuilders with keys from fixed seeds, their statements, a policy, and a verifier over them.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::canonical;
use crate::digest::Digest;
use crate::envelope::Envelope;
use crate::key::{PublicKey, SecretKey};
use crate::log::LogPolicy;
use crate::outcome::Moment;
use crate::policy::Policy;
use crate::statement::DigestSet;
use crate::verify::{
    Artifact, Candidate, Check, Code, Decision, Evidence, Given, Pinned, Source, Status, Verifier, verify,
};

pub(super) const NOW: &str = "2026-11-22T12:00:00Z";
pub(super) const RECIPE: &str = "git+https://example.org/r@refs/tags/v1#recipes/hello/recipe.toml";

/// Number `n` of the rebuilders: its key, id and operator.
pub(super) fn key(n: u8) -> SecretKey {
    SecretKey::ed25519(&[n; 32])
}

pub(super) fn id(n: u8) -> String {
    format!("https://rb{n}.example.org/kiln/sandboxed")
}

/// The published artifact.
pub(super) fn artifact() -> Artifact {
    let digest = DigestSet::of(Digest::of("hello")).with("sha512", "5".repeat(128));
    Artifact { name: "hello.nar".into(), digest, purl: None }
}

pub(super) fn digests(text: &str) -> Value {
    json!({ "sha256": Digest::of(text).to_string() })
}

/// Provenance of rebuilder `n` for the bytes `made`.
pub(super) fn provenance(n: u8, made: &str) -> Value {
    json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{ "name": "hello.nar", "digest": digests(made) }],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": "https://kiln.build/build/v1",
                "externalParameters": { "recipe": RECIPE, "target": "hello" },
                "internalParameters": {
                    "signer": "separate", "system": "x86_64-linux", "host": { "arch": "x86_64", "kernel": "6.1" },
                },
                "resolvedDependencies": [
                    { "uri": "git+https://example.org/r@refs/tags/v1", "digest": { "gitCommit": "a".repeat(40) },
                      "annotations": { "license": "MIT" } },
                    { "uri": "pkg:deb/debian/gcc-12@12.2.0-14?arch=amd64", "digest": digests("gcc"),
                      "annotations": { "license": "GPL-3.0-or-later" } },
                ],
            },
            "runDetails": {
                "builder": { "id": id(n), "version": { "kiln": "0.1.0" } },
                "metadata": { "invocationId": "1", "startedOn": "2026-11-21T10:00:00Z", "finishedOn": "2026-11-21T10:01:00Z" },
                "byproducts": [
                    { "name": "build.log", "digest": digests("log") },
                    { "name": "manifest.json", "digest": digests("manifest") },
                ],
            },
        },
    })
}

/// A comparison by rebuilder `n` of what it made with the artifact.
pub(super) fn comparison(n: u8, result: &str, made: &str, provenance: &str) -> Value {
    let mut predicate = json!({
        "rebuilder": { "id": id(n) },
        "recipe": { "uri": RECIPE, "digest": digests("recipe") },
        "outcome": "built",
        "result": result,
        "expected": { "uri": "pkg:generic/hello@1.0", "digest": digests("hello") },
        "produced": [{ "name": "hello.nar", "digest": digests(made) }],
        "provenance": { "digest": { "sha256": provenance } },
        "normalisers": [], "attempts": 1, "flaky": false,
        "finishedOn": "2026-11-21T10:02:00Z",
    });
    if result == "EQUIVALENT" {
        predicate["normalisers"] = json!([{ "name": "gzip-header", "version": "1", "digest": digests("kiln") }]);
        predicate["normalisedDigest"] = digests("normal");
    }
    if result == "BUILD_FAILED" || result == "NOT_ATTEMPTED" {
        let object = predicate.as_object_mut().unwrap();
        object.retain(|name, _| !["produced", "provenance", "expected"].contains(&name.as_str()));
        predicate["outcome"] = if result == "BUILD_FAILED" { "failed".into() } else { "unavailable".into() };
        predicate["reason"] = "it said no".into();
    }
    json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{ "name": "hello.nar", "digest": digests("hello") }],
        "predicateType": "https://kiln.build/rebuild-comparison/v1",
        "predicate": predicate,
    })
}

pub(super) fn signed(n: u8, statement: &Value) -> Vec<u8> {
    Envelope::sign(canonical::print(statement).unwrap(), &key(n)).canonical()
}

pub(super) fn envelope_id(bytes: &[u8]) -> String {
    Envelope::parse(bytes).unwrap().id().to_string()
}

/// Rebuilder `n` built the artifact.
pub(super) fn identical(n: u8) -> Vec<u8> {
    signed(n, &provenance(n, "hello"))
}

/// Rebuilder `n` built something else, and says so.
pub(super) fn different(n: u8) -> Vec<u8> {
    let made = signed(n, &provenance(n, "other"));
    signed(n, &comparison(n, "DIFFERENT", "other", &envelope_id(&made)))
}

/// A statement of `kind` about the artifact.
pub(super) fn other(kind: &str, predicate: Value) -> Value {
    json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{ "name": "hello.nar", "digest": digests("hello") }],
        "predicateType": kind,
        "predicate": predicate,
    })
}

/// A policy of two of `operators`, the rebuilders with these numbers, without a log.
pub(super) fn policy_text(operators: &[u8]) -> String {
    let mut text = String::from(
        r#"
schema = 1
[artifact]
match = "pkg:generic/hello@*"
resource_uri = "https://dl.example.org/{name}"
[threshold]
identical = 2
[provenance]
external_parameters = { recipe = "git+https://example.org/r@refs/tags/v*", target = "*" }
[log]
require_inclusion = false
[inputs]
require_digest = true
"#,
    );
    for n in operators {
        text += &format!(
            "[[rebuilder]]\nid = \"{}\"\noperator = \"org-{n}\"\nkeys = [\"sha256:{}\"]\nmax_slsa_level = 3\nvalid = [\"2026-01-01\", \"2027-01-01\"]\n",
            id(*n),
            key(*n).public().id()
        );
    }
    text
}

/// Everything that a verifier is given.
#[derive(Clone)]
pub(super) struct World {
    pub(super) policy: String,
    pub(super) keys: Vec<PublicKey>,
    pub(super) log: Option<LogPolicy>,
    pub(super) pinned: BTreeMap<String, Pinned>,
    pub(super) growth: Option<Vec<Digest>>,
    pub(super) proofs: BTreeMap<String, Vec<u8>>,
    pub(super) now: Moment,
    pub(super) artifact: Artifact,
}

impl World {
    /// Three rebuilders of three operators, two of which must agree.
    pub(super) fn new() -> Self {
        Self {
            policy: policy_text(&[1, 2, 3]),
            keys: (1..=9).map(|n| key(n).public()).collect(),
            log: None,
            pinned: BTreeMap::new(),
            growth: None,
            proofs: BTreeMap::new(),
            now: NOW.parse().unwrap(),
            artifact: artifact(),
        }
    }

    /// The same with `from` replaced in the policy, which must be there.
    pub(super) fn with(mut self, from: &str, to: &str) -> Self {
        assert!(self.policy.contains(from), "{from}");
        self.policy = self.policy.replacen(from, to, 1);
        self
    }

    pub(super) fn decide(&self, candidates: &[Vec<u8>]) -> Decision {
        let named: Vec<(Vec<u8>, Option<String>)> = candidates.iter().map(|bytes| (bytes.clone(), None)).collect();
        self.decide_named(&named)
    }

    /// Holds the verifier without a log, and what became of all evidence, to `see`.
    pub(super) fn judged(&self, files: &[Vec<u8>], see: impl FnOnce(&Verifier<'_>, Evidence) -> Decision) -> Decision {
        let policy = Policy::parse(&self.policy).unwrap();
        let given = Given {
            policy: &policy,
            keys: &self.keys,
            log: None,
            pinned: &self.pinned,
            growth: &|_, _, _| None,
            proofs: &|_| Vec::new(),
            feed: None,
            now: self.now,
        };
        let verifier = Verifier::new(&given).unwrap();
        let mut admissions = Vec::new();
        for bytes in files {
            let source = Source { file: "evidence/0".into(), line: None };
            verifier.judge(&Candidate { source, bytes, named: None, proof: None }, &mut admissions);
        }
        let mut evidence = Evidence::default();
        admissions.into_iter().for_each(|admission| evidence.add(admission));
        see(&verifier, evidence)
    }

    /// The same as [`Self::decide`], some files named after an id.
    pub(super) fn decide_named(&self, candidates: &[(Vec<u8>, Option<String>)]) -> Decision {
        let policy = Policy::parse(&self.policy).unwrap_or_else(|error| panic!("{error}\n{}", self.policy));
        let growth = |_: &str, _: u64, _: u64| self.growth.clone();
        let proofs = |id: crate::envelope::EnvelopeId| self.proofs.get(&id.to_string()).cloned().into_iter().collect();
        let given = Given {
            policy: &policy,
            keys: &self.keys,
            log: self.log.as_ref(),
            pinned: &self.pinned,
            growth: &growth,
            proofs: &proofs,
            feed: None,
            now: self.now,
        };
        let candidates: Vec<Candidate<'_>> = candidates
            .iter()
            .enumerate()
            .map(|(number, (bytes, named))| Candidate {
                source: Source { file: format!("evidence/{number}.json").into(), line: None },
                bytes,
                named: named.as_ref().map(|id| id.parse().unwrap()),
                proof: None,
            })
            .collect();
        verify(&self.artifact, &candidates, &given).unwrap()
    }
}

/// The first check with this code that does not simply hold.
pub(super) fn complaint(decision: &Decision, code: Code) -> &Check {
    let found = decision.checks.iter().find(|check| check.code == code && check.status != Status::Passed);
    found.unwrap_or_else(|| panic!("no {code:?} in {:#?}", decision.checks))
}

/// Asserts exit code and cause of a refusal.
pub(super) fn refuses(decision: &Decision, exit: u8, code: Code) {
    assert_eq!(decision.exit, exit, "{:#?}", decision.checks);
    let check = complaint(decision, code);
    assert!(check.status == Status::Noted || !check.way_out.is_empty(), "{check:?}");
    assert!(decision.levels.is_empty());
}

/// Asserts that the policy lets the artifact in.
pub(super) fn passes(decision: &Decision) {
    assert_eq!(decision.exit, 0, "{:#?}", decision.checks);
    assert!(!decision.levels.is_empty());
}
