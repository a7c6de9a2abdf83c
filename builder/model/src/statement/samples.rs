//! Statements as tests hold them.

use serde_json::json;

use super::comparison::{ComparisonResult, DifferencesFound, Rebuilder};
use super::provenance::{BUILD_TYPE, BuildDefinition, Builder, Metadata, RunDetails};
use super::{Comparison, Descriptor, DigestSet, Predicate, Provenance, Statement};
use crate::digest::Digest;
use crate::outcome::{Moment, Status};

pub(crate) fn digest(of: &str) -> DigestSet {
    DigestSet::of(Digest::of(of))
}

pub(crate) fn provenance() -> Provenance {
    let members = |value: serde_json::Value| serde_json::from_value(value).unwrap();
    Provenance {
        build_definition: BuildDefinition {
            build_type: BUILD_TYPE.into(),
            external_parameters: members(
                json!({"recipe": "git+https://example.org/r@refs/tags/v1#recipes/hello/recipe.toml", "target": "out"}),
            ),
            internal_parameters: members(
                json!({"derivation": "/nix/store/x-hello.drv", "signer": "separate", "system": "x86_64-linux"}),
            ),
            resolved_dependencies: vec![
                Descriptor::of(DigestSet::default().with("gitCommit", "a".repeat(40)))
                    .at("git+https://example.org/r@refs/tags/v1"),
                Descriptor::of(digest("gcc"))
                    .at("pkg:deb/debian/gcc-12@12.2.0-14?arch=amd64")
                    .noting("license", "GPL-3.0-or-later"),
            ],
        },
        run_details: RunDetails {
            builder: Builder {
                id: "https://rb1.example.org/kiln/sandboxed".into(),
                version: [("kiln".to_owned(), "0.1.0".to_owned())].into(),
                builder_dependencies: vec![Descriptor::of(digest("kiln")).named_as("kiln")],
            },
            metadata: Metadata {
                invocation_id: Some("018f".into()),
                started_on: Some(Moment::from_unix(1_795_255_200)),
                finished_on: Some(Moment::from_unix(1_795_255_260)),
            },
            byproducts: vec![Descriptor::of(digest("log")).named_as("build.log")],
        },
    }
}

pub(crate) fn built() -> Statement {
    Statement {
        subject: vec![Descriptor::of(digest("hello")).named_as("hello.nar").being("application/x-nix-nar")],
        predicate: Predicate::Provenance(Box::new(provenance())),
    }
}

pub(crate) fn comparison() -> Comparison {
    Comparison {
        rebuilder: Rebuilder { id: "https://rb1.example.org/kiln/sandboxed".into() },
        recipe: Descriptor::of(digest("recipe")).at("git+https://example.org/r@refs/tags/v1#recipes/hello/recipe.toml"),
        outcome: Status::Built,
        result: ComparisonResult::Different,
        expected: Some(Descriptor::of(digest("published")).at("pkg:deb/debian/hello@2.10-3?arch=amd64")),
        produced: vec![Descriptor::of(digest("hello")).named_as("hello_2.10-3_amd64.deb")],
        provenance: Some(Descriptor::of(digest("envelope"))),
        normalisers: vec![],
        normalised_digest: None,
        differences: Some(DifferencesFound {
            digest: digest("report"),
            summary: vec!["usr/bin/hello: .note.gnu.build-id".into()],
            ..DifferencesFound::default()
        }),
        reason: None,
        log: None,
        attempts: 2,
        flaky: false,
        finished_on: Moment::from_unix(1_795_255_260),
    }
}

pub(crate) fn compared(comparison: Comparison) -> Statement {
    Statement {
        subject: vec![Descriptor::of(digest("published")).named_as("hello_2.10-3_amd64.deb")],
        predicate: Predicate::Comparison(Box::new(comparison)),
    }
}
