//! One build as SLSA provenance: every field from the store's record, the lock, or the signer itself.

use std::collections::BTreeMap;

use data_encoding::BASE64;
use kiln_model::digest::Digest;
use kiln_model::format::capsule::Place;
use kiln_model::outcome::{Moment, Outcome};
use kiln_model::statement::provenance::{
    BUILD_TYPE, BuildDefinition, Builder, External, Metadata, Provenance, RunDetails, build,
};
use kiln_model::statement::{Descriptor, DigestSet, Predicate};
use serde_json::{Map, Value, json};

use super::{Built, Recorded, SignError, Signer, Texts, Written, dependencies, digests};
use crate::build::graph::Node;
use crate::capsule;

/// Bytes of recipes and locks in one statement: in base64 twice, a quarter of what an envelope may have.
const MOST_CARRIED: usize = 512 << 10;

impl Signer<'_> {
    pub(super) fn provenance(&self, of: Built<'_>, recorded: &Recorded, name: &str) -> Result<Written, SignError> {
        let (node, outcome) = (of.node(), &recorded.outcome);
        let subject = digests::subjects(self.store, outcome)?;
        let recipe = dependencies::recipe(node, &self.published)?;
        let mut dependencies = dependencies::all(node, outcome, &recipe, &self.published)?;
        dependencies::license(&mut dependencies, self.store, of, outcome);
        let external = External {
            recipe: recipe.uri.clone(),
            target: outcome.outputs.keys().map(ToString::to_string).collect::<Vec<_>>().join(","),
            parameters: self.published.parameters.clone(),
        };
        let provenance = Provenance {
            build_definition: BuildDefinition {
                build_type: BUILD_TYPE.into(),
                external_parameters: members(&external),
                internal_parameters: self.internal(node, outcome),
                resolved_dependencies: dependencies,
            },
            run_details: RunDetails {
                builder: Builder {
                    id: self.builder.clone(),
                    version: [("kiln".to_owned(), outcome.host.kiln.clone())].into(),
                    builder_dependencies: vec![self.program()],
                },
                metadata: Metadata {
                    invocation_id: Some(recorded.id.clone()),
                    started_on: Some(outcome.started),
                    finished_on: Some(finished(outcome)),
                },
                byproducts: byproducts(node, outcome).into_iter().chain(self.texts(of)).collect(),
            },
        };
        self.sign(subject, Predicate::Provenance(Box::new(provenance)), format!("{name}.provenance"))
    }

    /// Recipe and lock (or the derivation that was given), and those of what it needs, as they are: whoever reads the
    /// statement can build again. What is too long to be carried, or does not lie so that others could take it up, is named
    /// by its digest alone.
    fn texts(&self, of: Built<'_>) -> Vec<Descriptor> {
        let texts = match self.texts {
            Texts::Carried => capsule::texts::Texts::carried(of.graph, of.index),
            Texts::LeftOut => None,
        };
        let size = |texts: &BTreeMap<Place, Vec<u8>>| texts.values().map(Vec::len).sum::<usize>();
        let carried = texts.filter(|texts| size(texts) <= MOST_CARRIED).unwrap_or_default();
        let descriptor = |(place, text): (Place, Vec<u8>)| {
            let one = Descriptor::of(DigestSet::of(Digest::of(&text))).named_as(place.to_string());
            Descriptor { content: Some(BASE64.encode(&text)), ..one.being("text/plain") }
        };
        carried.into_iter().map(descriptor).collect()
    }

    /// The program that signs, which says of which version the building one was.
    pub(super) fn program(&self) -> Descriptor {
        let version = concat!("pkg:generic/kiln@", env!("CARGO_PKG_VERSION"));
        Descriptor::of(DigestSet::of(self.kiln)).named_as("kiln").at(version).noting("role", "signer")
    }

    fn internal(&self, node: &Node, outcome: &Outcome) -> BTreeMap<String, Value> {
        let epoch = node.derivation.environment.get(&b"SOURCE_DATE_EPOCH"[..]);
        let varied = outcome.conditions.as_ref().and_then(|ran| ran.effects.as_ref()).map(|effects| &effects.varied);
        let varied = varied.into_iter().flatten().map(|(factor, change)| {
            let word = serde_json::to_value(factor).ok().and_then(|word| word.as_str().map(str::to_owned));
            (word.unwrap_or_default(), Value::from(change.varied.clone()))
        });
        let mut internal: BTreeMap<String, Value> = [
            ("derivation", Value::from(outcome.derivation.clone())),
            ("system", Value::from(node.derivation.system.clone())),
            ("sandbox", sandbox(outcome)),
            ("host", plain(json!(outcome.host))),
            ("variation", Value::Object(varied.collect())),
            (build::SIGNER, json!(self.separation)),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        if let Some(epoch) = epoch {
            internal.insert("sourceDateEpoch".into(), String::from_utf8_lossy(epoch).into_owned().into());
        }
        internal
    }
}

/// The isolation that was reached, and what the builder saw of itself.
fn sandbox(outcome: &Outcome) -> Value {
    let mut sandbox: Map<String, Value> =
        outcome.isolation.iter().map(|(name, value)| (name.clone(), plain(value.clone()))).collect();
    if let Some(ran) = &outcome.conditions {
        sandbox.insert("conditions".into(), plain(json!(ran.settings)));
    }
    Value::Object(sandbox)
}

/// Numbers as strings: other readers have doubles.
fn plain(value: Value) -> Value {
    match value {
        Value::Number(number) => Value::String(number.to_string()),
        Value::Array(items) => Value::Array(items.into_iter().map(plain).collect()),
        Value::Object(members) => {
            Value::Object(members.into_iter().map(|(name, value)| (name, plain(value))).collect())
        }
        Value::Null | Value::Bool(_) | Value::String(_) => value,
    }
}

/// The first whole second after the build.
pub(super) fn finished(outcome: &Outcome) -> Moment {
    let seconds = outcome.seconds.as_secs() + u64::from(outcome.seconds.subsec_nanos() > 0);
    Moment::from_unix(outcome.started.unix().saturating_add(seconds))
}

fn byproducts(node: &Node, outcome: &Outcome) -> Vec<Descriptor> {
    let log = outcome.log.as_ref().map(log);
    let manifest = |(name, output): (&kiln_model::name::Variable, &kiln_model::outcome::Output)| {
        let digest = DigestSet::of(output.manifest.digest());
        Descriptor::of(digest).named_as(format!("{name}.manifest.json")).being("application/json")
    };
    let derivation = DigestSet::of(Digest::of(node.derivation.print()));
    let derivation = Descriptor::of(derivation).named_as(node.path.base_name());
    log.into_iter().chain(outcome.outputs.iter().map(manifest)).chain([derivation]).collect()
}

pub(super) fn log(log: &kiln_model::outcome::Log) -> Descriptor {
    Descriptor::of(DigestSet::of(log.sha256)).named_as("build.log").being("text/plain")
}

fn members(value: &impl serde::Serialize) -> BTreeMap<String, Value> {
    match json!(value) {
        Value::Object(members) => members.into_iter().collect(),
        _ => BTreeMap::new(),
    }
}
