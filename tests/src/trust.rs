//! A policy of two of three operators, their keys, and evidence that they sign: what gates and verifiers are tried with.

use std::fs;
use std::path::PathBuf;

use kiln_model::canonical;
use kiln_model::digest::Digest;
use kiln_model::envelope::Envelope;
use kiln_model::key::SecretKey;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::ground::{self, Ground};

/// The time of all of it.
pub const NOW: &str = "2026-11-22T12:00:00Z";

/// The directory with policy, keys and evidence.
#[derive(Debug)]
pub struct Trust {
    place: TempDir,
}

fn key(operator: u8) -> SecretKey {
    SecretKey::ed25519(&[operator; 32])
}

fn id(operator: u8) -> String {
    format!("https://rb{operator}.example.org/kiln/sandboxed")
}

fn digests(digest: Digest) -> Value {
    json!({ "sha256": digest.to_string() })
}

impl Trust {
    /// With a policy for artifacts whose package URL matches `pattern`.
    pub fn of(pattern: &str) -> Self {
        let trust = Self { place: ground::directory(Ground::Disk) };
        for directory in ["keys", "evidence"] {
            fs::create_dir(trust.at(directory)).unwrap();
        }
        let mut policy = format!(
            "schema = 1\n[artifact]\nmatch = \"{pattern}\"\nresource_uri = \"https://dl.example.org/{{name}}\"\n\
             [threshold]\nidentical = 2\n[provenance]\nexternal_parameters = {{ recipe = \"*\", target = \"*\" }}\n\
             [log]\nrequire_inclusion = false\n"
        );
        for operator in 1..=3 {
            let public = key(operator).public();
            fs::write(trust.at(&format!("keys/{operator}.pub")), public.to_pem()).unwrap();
            policy += &format!(
                "[[rebuilder]]\nid = \"{}\"\noperator = \"org-{operator}\"\nkeys = [\"sha256:{}\"]\nvalid = [\"2026-01-01\", \"2027-01-01\"]\n",
                id(operator),
                public.id()
            );
        }
        fs::write(trust.at("policy.toml"), policy).unwrap();
        trust
    }

    /// A path in the directory.
    pub fn at(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    /// The arguments of `kiln verify` and `kiln gate` that mean it.
    pub fn arguments(&self) -> Vec<String> {
        let path = |name: &str| self.at(name).display().to_string();
        let words = ["--policy".into(), path("policy.toml"), "--evidence".into(), path("evidence")];
        words.into_iter().chain(["--now".into(), NOW.into()]).collect()
    }

    /// An operator says that it built the thing with this digest, and calls it so.
    pub fn built(&self, operator: u8, name: &str, uri: Option<&str>, digest: Digest) {
        let other = |text: &str| digests(Digest::of(text));
        let mut subject = json!({ "name": name, "digest": digests(digest) });
        if let Some(uri) = uri {
            subject["uri"] = uri.into();
        }
        let statement = json!({
            "_type": "https://in-toto.io/Statement/v1",
            "subject": [subject],
            "predicateType": "https://slsa.dev/provenance/v1",
            "predicate": {
                "buildDefinition": {
                    "buildType": "https://kiln.build/build/v1",
                    "externalParameters": { "recipe": "git+https://example.org/r@refs/tags/v1#recipe.toml", "target": "out" },
                    "internalParameters": { "signer": "separate", "system": "x86_64-linux" },
                    "resolvedDependencies": [{ "uri": "pkg:deb/debian/gcc-12@12.2.0-14?arch=amd64", "digest": other("gcc") }],
                },
                "runDetails": {
                    "builder": { "id": id(operator), "version": { "kiln": "0.1.0" } },
                    "metadata": { "invocationId": "1", "startedOn": "2026-11-21T10:00:00Z", "finishedOn": "2026-11-21T10:01:00Z" },
                    "byproducts": [{ "name": "build.log", "digest": other("log") }, { "name": "manifest.json", "digest": other("m") }],
                },
            },
        });
        self.sign(operator, &format!("built-{operator}-{name}"), &statement);
    }

    /// An operator says that it built something else than this.
    pub fn differs(&self, operator: u8, name: &str, uri: &str, digest: Digest) {
        let other = |text: &str| digests(Digest::of(text));
        let statement = json!({
            "_type": "https://in-toto.io/Statement/v1",
            "subject": [{ "name": name, "digest": digests(digest) }],
            "predicateType": "https://kiln.build/rebuild-comparison/v1",
            "predicate": {
                "rebuilder": { "id": id(operator) }, "recipe": { "uri": "git+https://example.org/r", "digest": other("r") },
                "outcome": "built", "result": "DIFFERENT", "expected": { "uri": uri, "digest": digests(digest) },
                "produced": [{ "name": name, "digest": other("something else") }], "provenance": { "digest": other("p") },
                "normalisers": [], "attempts": 1, "flaky": false, "finishedOn": "2026-11-21T10:02:00Z",
            },
        });
        self.sign(operator, &format!("differs-{operator}-{name}"), &statement);
    }

    fn sign(&self, operator: u8, name: &str, statement: &Value) {
        let envelope = Envelope::sign(canonical::print(statement).unwrap(), &key(operator)).canonical();
        fs::write(self.at("evidence").join(format!("{name}.json")), envelope).unwrap();
    }
}

/// Provenance of `hello.bin`, whose bytes are `hello`, by the rebuilder `id`.
pub fn provenance(id: &str) -> Value {
    let digests = |text: &str| json!({ "sha256": Digest::of(text).to_string() });
    json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{ "name": "hello.bin", "digest": digests("hello") }],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": "https://kiln.build/build/v1",
                "externalParameters": { "recipe": "git+https://example.org/r@refs/tags/v1#recipe.toml", "target": "hello" },
                "internalParameters": { "signer": "separate" },
                "resolvedDependencies": [{ "uri": "pkg:deb/debian/gcc-12@12.2.0-14?arch=amd64", "digest": digests("gcc") }],
            },
            "runDetails": {
                "builder": { "id": id, "version": { "kiln": "0.1.0" } },
                "metadata": { "startedOn": "2026-11-21T10:00:00Z", "finishedOn": "2026-11-21T10:01:00Z" },
                "byproducts": [{ "name": "build.log", "digest": digests("log") }, { "name": "manifest.json", "digest": digests("m") }],
            },
        },
    })
}
