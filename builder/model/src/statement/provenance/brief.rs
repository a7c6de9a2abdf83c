//! Provenance in brief: what decides whether it counts, borrowed from the payload.
//!
//! A verifier reads the statements of a world of packages, and keeps next to nothing of each; owning it all would cost more than
//! the rest of the reading. What [`super::Provenance`] is held to, this is held to (a test holds one against the other); what
//! it leaves out decides nothing.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;

use super::{Builder, Metadata, Signer};
use crate::canonical::{Item, Text};
use crate::statement::StatementError;
use crate::statement::descriptor;
use crate::statement::digest_set::{self, DigestSetError};

/// How subjects were built.
#[derive(Debug)]
pub(crate) struct Brief<'t> {
    pub(crate) build_type: String,
    pub(crate) external_parameters: BTreeMap<String, Value>,
    pub(crate) resolved_dependencies: Vec<Input<'t>>,
    pub(crate) builder: Builder,
    pub(crate) metadata: Metadata,
    pub(crate) byproducts: Vec<Input<'t>>,
    pub(crate) signer: Option<Signer>,
    /// Architecture (or system) and kernel.
    pub(crate) platform: [Option<String>; 2],
}

/// Something that went in, or came out beside the subjects.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Input<'t> {
    #[serde(borrow, default)]
    pub(crate) name: Option<Text<'t>>,
    #[serde(borrow, default)]
    pub(crate) uri: Option<Text<'t>>,
    #[serde(borrow, default)]
    pub(crate) digest: Digests<'t>,
    #[serde(borrow, default)]
    content: Option<Text<'t>>,
    #[serde(borrow, default, rename = "downloadLocation")]
    _download_location: Option<Text<'t>>,
    #[serde(borrow, default, rename = "mediaType")]
    _media_type: Option<Text<'t>>,
    #[serde(borrow, default)]
    annotations: Annotations<'t>,
}

/// Digests by algorithm, of which nearly all have one.
#[derive(Debug, Default)]
pub(crate) struct Digests<'t> {
    first: Option<(Text<'t>, Text<'t>)>,
    more: Vec<(Text<'t>, Text<'t>)>,
}

/// The one annotation that is looked at.
#[derive(Debug, Default)]
struct Annotations<'t> {
    license: Option<Text<'t>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Read<'t> {
    #[serde(borrow)]
    build_definition: Definition<'t>,
    #[serde(borrow)]
    run_details: Details<'t>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Definition<'t> {
    build_type: String,
    #[serde(default)]
    external_parameters: BTreeMap<String, Value>,
    #[serde(default, rename = "internalParameters")]
    _internal_parameters: AnyObject,
    #[serde(borrow, default)]
    resolved_dependencies: Vec<Input<'t>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Details<'t> {
    builder: Builder,
    #[serde(default)]
    metadata: Metadata,
    #[serde(borrow, default)]
    byproducts: Vec<Input<'t>>,
}

/// An object of which single members are looked at elsewhere.
#[derive(Default)]
struct AnyObject;

impl<'t> Brief<'t> {
    /// Reads a predicate, and holds it to what must hold whoever wrote it.
    pub(crate) fn read(predicate: Item<'_, 't>) -> Result<Self, StatementError> {
        let read: Read<'t> = predicate.read().map_err(|source| StatementError::Json { source })?;
        let internal = predicate.member("buildDefinition").and_then(|d| d.member("internalParameters"));
        let inside = |name: &str| internal.and_then(|internal| internal.member(name));
        let text = |item: Option<Item<'_, 't>>| item.and_then(Item::text).map(str::to_owned);
        let of_host = |name: &str| text(inside("host").and_then(|host| host.member(name)));
        let brief = Self {
            signer: inside(super::build::SIGNER).and_then(|word| word.read().ok()),
            platform: [
                of_host("arch").or_else(|| of_host("machine")).or_else(|| text(inside("system"))),
                of_host("kernel"),
            ],
            build_type: read.build_definition.build_type,
            external_parameters: read.build_definition.external_parameters,
            resolved_dependencies: read.build_definition.resolved_dependencies,
            builder: read.run_details.builder,
            metadata: read.run_details.metadata,
            byproducts: read.run_details.byproducts,
        };
        brief.sound()?;
        Ok(brief)
    }

    fn sound(&self) -> Result<(), StatementError> {
        for (list, inputs) in [("resolvedDependencies", &self.resolved_dependencies), ("byproducts", &self.byproducts)]
        {
            for (index, input) in inputs.iter().enumerate() {
                let of = || format!("{list} {index}");
                let says = input.uri.is_some() || !input.digest.is_empty() || input.content.is_some();
                descriptor::sound(says.then_some(()), input.digest.sound(), of)?;
            }
        }
        for (index, part) in self.builder.builder_dependencies.iter().enumerate() {
            part.sound(&format!("builderDependencies {index}"))?;
        }
        Ok(())
    }
}

impl Input<'_> {
    /// Under which terms it comes, if that is said.
    pub(crate) fn licence(&self) -> Option<&str> {
        self.annotations.license.as_deref()
    }
}

impl Digests<'_> {
    /// The digest by `algorithm`.
    pub(crate) fn by(&self, algorithm: &str) -> Option<&str> {
        self.pairs().find(|(known, _)| *known == algorithm).map(|(_, hex)| hex)
    }

    fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.first.iter().chain(&self.more).map(|(algorithm, hex)| (&**algorithm, &**hex))
    }

    fn sound(&self) -> Result<(), DigestSetError> {
        self.pairs().try_for_each(|(algorithm, hex)| digest_set::sound(algorithm, hex))
    }
}

impl<'de: 't, 't> Deserialize<'de> for Digests<'t> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = Digests<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("digests by algorithm")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut digests = Digests { first: map.next_entry()?, more: Vec::new() };
                while let Some(entry) = map.next_entry()? {
                    digests.more.push(entry);
                }
                Ok(digests)
            }
        }
        deserializer.deserialize_map(Pairs)
    }
}

impl<'de: 't, 't> Deserialize<'de> for Annotations<'t> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct License;
        impl<'de> Visitor<'de> for License {
            type Value = Annotations<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("annotations by name")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut annotations = Annotations::default();
                while let Some(key) = map.next_key::<Text<'de>>()? {
                    if &*key == "license" {
                        annotations.license = map.next_value::<TextOrOther<'de>>()?.0;
                    } else {
                        map.next_value::<IgnoredAny>()?;
                    }
                }
                Ok(annotations)
            }
        }
        deserializer.deserialize_map(License)
    }
}

/// A text, or something else that is none.
struct TextOrOther<'t>(Option<Text<'t>>);

impl<'de> Deserialize<'de> for TextOrOther<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Of a document every value can be asked for twice; a refusal of what is no text costs nothing.
        Ok(Self(Text::deserialize(deserializer).ok()))
    }
}

impl<'de> Deserialize<'de> for AnyObject {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = AnyObject;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(AnyObject)
            }
        }
        deserializer.deserialize_map(Object)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::statement::samples::built;
    use crate::statement::{Payload, Predicate, Statement};

    /// Holds the brief reading of a statement against the whole one. Returns whether it was taken.
    fn agree(statement: &Value) -> bool {
        let text = statement.to_string();
        let whole = Statement::parse(text.as_bytes());
        let payload = Payload::read(text.as_bytes()).unwrap();
        let brief = payload.provenance();
        let (whole, (subject, brief)) = match (whole, brief) {
            (Ok(whole), Ok(brief)) => (whole, brief),
            (whole, brief) => {
                assert!(whole.is_err() && brief.is_err(), "{text}: {whole:?} {brief:?}");
                return false;
            }
        };
        assert_eq!(subject, whole.subject);
        let Predicate::Provenance(whole) = whole.predicate else { panic!("{text}") };
        let definition = &whole.build_definition;
        assert_eq!(brief.build_type, definition.build_type);
        assert_eq!(brief.external_parameters, definition.external_parameters);
        assert_eq!(brief.signer, definition.signer());
        assert_eq!(brief.builder, whole.run_details.builder);
        assert_eq!(brief.metadata, whole.run_details.metadata);
        for (brief, whole) in [
            (&brief.resolved_dependencies, &definition.resolved_dependencies),
            (&brief.byproducts, &whole.run_details.byproducts),
        ] {
            assert_eq!(brief.len(), whole.len());
            for (brief, whole) in brief.iter().zip(whole) {
                assert_eq!(
                    (brief.name.as_deref(), brief.uri.as_deref()),
                    (whole.name.as_deref(), whole.uri.as_deref())
                );
                assert_eq!(brief.licence(), whole.annotations.get("license").and_then(Value::as_str));
                let pairs: BTreeMap<String, String> =
                    brief.digest.pairs().map(|(a, hex)| (a.to_owned(), hex.to_owned())).collect();
                assert_eq!(pairs, whole.digest.0);
            }
        }
        true
    }

    /// `statement` with another value at this place, which may be new in its object.
    fn with(statement: &Value, at: &str, value: Value) -> Value {
        let mut statement = statement.clone();
        let (parent, last) = at.rsplit_once('/').unwrap();
        match statement.pointer_mut(parent).unwrap() {
            Value::Array(values) => values[last.parse::<usize>().unwrap()] = value,
            parent => parent[last] = value,
        }
        statement
    }

    #[test]
    fn the_brief_reading_takes_and_refuses_what_the_whole_one_does() {
        let good = serde_json::from_slice::<Value>(&built().print().unwrap()).unwrap();
        assert!(agree(&good));
        let taken = [
            ("/predicate/buildDefinition/resolvedDependencies/0/annotations", json!({"license": 5, "a": [{}]})),
            (
                "/predicate/buildDefinition/resolvedDependencies/0/digest",
                json!({"sha1": "x", "gitCommit": "0".repeat(40)}),
            ),
            ("/predicate/buildDefinition/internalParameters", json!({"host": "x", "signer": ["separate"]})),
            ("/predicate/buildDefinition/internalParameters", json!({"signer": "none", "host": {"arch": null}})),
            ("/predicate/runDetails/byproducts", json!([])),
        ];
        for (at, value) in taken {
            assert!(agree(&with(&good, at, value)), "{at}");
        }
        let refused = [
            ("/subject", json!([])),
            ("/subject/0/digest", json!({"sha1": "0"})),
            ("/predicate", json!([])),
            ("/predicate/buildDefinition", json!(null)),
            ("/predicate/buildDefinition/buildType", json!(1)),
            ("/predicate/buildDefinition/externalParameters", json!([])),
            ("/predicate/buildDefinition/internalParameters", json!([])),
            ("/predicate/buildDefinition/internalParameters", json!(null)),
            ("/predicate/buildDefinition/resolvedDependencies", json!({})),
            ("/predicate/buildDefinition/resolvedDependencies/0", json!({})),
            ("/predicate/buildDefinition/resolvedDependencies/0", json!({"name": "n", "mediaType": "m"})),
            ("/predicate/buildDefinition/resolvedDependencies/0/digest", json!({"sha256": "AB"})),
            ("/predicate/buildDefinition/resolvedDependencies/0/digest", json!({"sha1": "0", "sha512": "0"})),
            ("/predicate/buildDefinition/resolvedDependencies/0/digest", json!({"sha1": 0})),
            ("/predicate/buildDefinition/resolvedDependencies/0/digest", json!(null)),
            ("/predicate/buildDefinition/resolvedDependencies/0/uri", json!(["x"])),
            ("/predicate/buildDefinition/resolvedDependencies/0/annotations", json!(null)),
            ("/predicate/runDetails/builder", json!({})),
            ("/predicate/runDetails/metadata/finishedOn", json!("yesterday")),
            ("/predicate/runDetails/byproducts/0/digest/sha256", json!("x")),
        ];
        for (at, value) in refused {
            assert!(!agree(&with(&good, at, value)), "{at}");
        }
        assert!(!agree(&with(&good, "/predicate/runDetails/builder/builderDependencies", json!([{}]))));
    }

    proptest! {
        #[test]
        fn whatever_one_member_becomes_both_readings_agree(which in any::<usize>(), to in 0_usize..7) {
            let statement = serde_json::from_slice::<Value>(&built().print().unwrap()).unwrap();
            let mut members = Vec::new();
            paths(&statement["predicate"], "/predicate".into(), &mut members);
            members.pop();
            let at = &members[which % members.len()];
            let values = [json!(null), json!(1), json!("x"), json!([]), json!({}), json!(["a"]), json!({"sha256": "0".repeat(64)})];
            agree(&with(&statement, at, values[to].clone()));
        }
    }

    fn paths(value: &Value, at: String, out: &mut Vec<String>) {
        let next: Vec<(String, &Value)> = match value {
            Value::Object(members) => members.iter().map(|(key, value)| (key.clone(), value)).collect(),
            Value::Array(values) => values.iter().enumerate().map(|(n, value)| (n.to_string(), value)).collect(),
            _ => Vec::new(),
        };
        for (name, value) in next {
            paths(value, format!("{at}/{}", name.replace('~', "~0").replace('/', "~1")), out);
        }
        out.push(at);
    }
}
