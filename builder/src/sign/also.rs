//! The same facts for readers of other formats, each in an envelope of its own.
//!
//! `test-result/v0.1` of in-toto, OSS-Rebuild's `ArtifactEquivalence@v0.1`, and in-toto's links with the layout that counts them.
//! None of them says anything that provenance and comparison do not; disagreement is told where the format can tell it.

use std::collections::BTreeMap;

use kiln_model::canonical;
use kiln_model::envelope::{Envelope, PAYLOAD_TYPE, Signature, pae};
use kiln_model::key::{Algorithm, PublicKey, SecretKey};
use kiln_model::outcome::Moment;
use kiln_model::statement::provenance::{BuildDefinition, Builder, Metadata, Provenance, RunDetails};
use kiln_model::statement::{Comparison, ComparisonResult, Descriptor, Predicate};
use serde_json::{Value, json};

use super::{SignError, Signer, Written};

/// in-toto's predicate for tests.
pub const TEST_RESULT: &str = "https://in-toto.io/attestation/test-result/v0.1";
/// OSS-Rebuild's build type for "these two files are equivalent".
pub const ARTIFACT_EQUIVALENCE: &str = "https://docs.oss-rebuild.dev/builds/ArtifactEquivalence@v0.1";

/// The one step of a layout.
const STEP: &str = "rebuild";
/// The one test.
const TEST: &str = "bit-for-bit";

/// Another format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Format {
    /// in-toto's `test-result/v0.1`.
    TestResult,
    /// OSS-Rebuild's.
    OssRebuild,
    /// in-toto's links.
    Link,
}

impl Signer<'_> {
    /// The comparisons among `written` as test results: only those that something was built for.
    pub fn test_results(&self, written: &[Written]) -> Result<Vec<Written>, SignError> {
        let lock = written.iter().find_map(|one| match &one.statement.predicate {
            Predicate::Provenance(one) => {
                let inputs = &one.build_definition.resolved_dependencies;
                inputs.iter().find(|input| input.name.as_deref() == Some("recipe.lock")).cloned()
            }
            Predicate::Comparison(_) | Predicate::Summary(_) | Predicate::Other { .. } => None,
        });
        let mut results = Vec::new();
        for (one, comparison) in comparisons(written) {
            let (result, tests) = match comparison.result {
                ComparisonResult::Identical => ("PASSED", "passedTests"),
                ComparisonResult::Equivalent => ("WARNED", "warnedTests"),
                ComparisonResult::Different => ("FAILED", "failedTests"),
                ComparisonResult::BuildFailed | ComparisonResult::NotAttempted => continue,
            };
            let configuration = lock.as_ref().unwrap_or(&comparison.recipe);
            let value = json!({"result": result, "configuration": [configuration], tests: [TEST]});
            let predicate = Predicate::Other { kind: TEST_RESULT.into(), value };
            let name = one.name.replace(".comparison", ".test-result");
            results.push(self.sign(one.statement.subject.clone(), predicate, name)?);
        }
        Ok(results)
    }

    /// The agreements among `written` as OSS-Rebuild tells them.
    pub fn equivalences(&self, written: &[Written]) -> Result<Vec<Written>, SignError> {
        let mut results = Vec::new();
        for (one, comparison) in comparisons(written) {
            let agrees = matches!(comparison.result, ComparisonResult::Identical | ComparisonResult::Equivalent);
            let (Some(expected), Some(produced), true) = (&comparison.expected, comparison.produced.first(), agrees)
            else {
                continue;
            };
            let file = expected.name.clone().unwrap_or_default();
            let candidate = format!("rebuild/{file}");
            let target = expected.uri.clone().unwrap_or_else(|| file.clone());
            let stabilized = comparison.normalised_digest.clone().unwrap_or_else(|| expected.digest.clone());
            let external = [("candidate", candidate.as_str()), ("target", target.as_str())];
            let normalisers: Vec<Value> = comparison.normalisers.iter().map(|used| json!(used)).collect();
            let provenance = Provenance {
                build_definition: BuildDefinition {
                    build_type: ARTIFACT_EQUIVALENCE.into(),
                    external_parameters: external.map(|(name, value)| (name.to_owned(), Value::from(value))).into(),
                    internal_parameters: [("normalisers".to_owned(), Value::from(normalisers))].into(),
                    resolved_dependencies: vec![
                        Descriptor::of(produced.digest.clone()).named_as(candidate),
                        Descriptor::of(expected.digest.clone()).named_as(target),
                    ],
                },
                run_details: RunDetails {
                    builder: Builder {
                        id: self.builder.clone(),
                        version: BTreeMap::new(),
                        builder_dependencies: vec![],
                    },
                    metadata: Metadata { finished_on: Some(comparison.finished_on), ..Metadata::default() },
                    byproducts: vec![Descriptor::of(stabilized).named_as(format!("stabilized/{file}"))],
                },
            };
            let name = one.name.replace(".comparison", ".oss-rebuild");
            results.push(self.sign(
                one.statement.subject.clone(),
                Predicate::Provenance(Box::new(provenance)),
                name,
            )?);
        }
        Ok(results)
    }

    /// What the first provenance among `written` says was made, as a link of in-toto; with the file's name.
    pub fn link(&self, written: &[Written]) -> Option<(String, Envelope)> {
        let made = written.iter().find(|one| matches!(one.statement.predicate, Predicate::Provenance(_)))?;
        let product = |subject: &Descriptor| Some((subject.name.clone()?, json!({"sha256": subject.digest.sha256()?})));
        let products: BTreeMap<String, Value> = made.statement.subject.iter().filter_map(product).collect();
        let link = json!({"_type": "link", "name": STEP, "products": products, "materials": {}, "byproducts": {},
            "command": [], "environment": {}});
        let id = self.key.public().securesystemslib_id();
        Some((format!("{STEP}.{}.link", &id[..8]), signed(&link, self.key)))
    }
}

fn comparisons(written: &[Written]) -> impl Iterator<Item = (&Written, &Comparison)> {
    written.iter().filter_map(|one| match &one.statement.predicate {
        Predicate::Comparison(comparison) => Some((one, &**comparison)),
        Predicate::Provenance(_) | Predicate::Summary(_) | Predicate::Other { .. } => None,
    })
}

/// The layout by which in-toto's own verifier takes what `threshold` of `rebuilders` made alike; signed by whoever relies on it.
pub fn layout(
    rebuilders: &[PublicKey],
    threshold: usize,
    products: &[String],
    expires: Moment,
    consumer: &SecretKey,
) -> Envelope {
    let described = |key: &PublicKey| {
        let id = key.securesystemslib_id();
        let (kind, scheme, public) = match key.algorithm() {
            Algorithm::Ed25519 => ("ed25519", "ed25519", data_encoding::HEXLOWER.encode(&key.bytes())),
            Algorithm::P256 => ("ecdsa", "ecdsa-sha2-nistp256", key.to_pem()),
        };
        let value = json!({"keyid": id, "keytype": kind, "scheme": scheme, "keyval": {"public": public}});
        (id, value)
    };
    let keys: BTreeMap<String, Value> = rebuilders.iter().map(described).collect();
    let mut rules: Vec<[&str; 2]> = products.iter().map(|product| ["CREATE", product.as_str()]).collect();
    rules.push(["DISALLOW", "*"]);
    let ids: Vec<&String> = keys.keys().collect();
    let step = json!({"_type": "step", "name": STEP, "threshold": threshold, "pubkeys": ids, "expected_command": [],
        "expected_materials": [], "expected_products": rules});
    let layout =
        json!({"_type": "layout", "expires": expires, "readme": "", "inspect": [], "keys": keys, "steps": [step]});
    signed(&layout, consumer)
}

/// in-toto's verifier matches keys strictly by securesystemslib's id.
fn signed(payload: &Value, key: &SecretKey) -> Envelope {
    let payload = canonical::print(payload).expect("strings and small numbers have a canonical form");
    let sig = key.sign(&pae(PAYLOAD_TYPE, &payload));
    let signature = Signature { keyid: Some(key.public().securesystemslib_id()), sig };
    Envelope::new(payload, PAYLOAD_TYPE.into(), vec![signature]).expect("one signature is a good number")
}
