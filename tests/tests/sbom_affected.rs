//! `kiln affected`: whatever has it in its closure is found, and what cannot be looked into is not called unaffected.

use std::path::Path;

use kiln_tests::ground::{self, Ground};
use kiln_tests::recipe::Made;
use kiln_tests::run::Kiln;
use kiln_tests::schema::fits;
use serde_json::{Value, json};

fn affected(kiln: &Kiln, what: &str, code: i32) -> Value {
    let document = kiln.run(["affected", "--json", what]).exits(code).json();
    fits("affected", &document);
    document
}

fn derivations(document: &Value) -> Vec<&str> {
    document["builds"].as_array().unwrap().iter().map(|build| build["derivation"].as_str().unwrap()).collect()
}

/// Two recipes, the second of which is built from the first, in a store of their own.
fn chain() -> (Kiln, Made, Made, Vec<Value>) {
    let kiln = Kiln::fresh(Ground::Disk);
    let first = Made::new(r#"mkdir "$out"; echo first >"$out/first""#);
    let second = Made::new(r#"cp "$other/first" "$out""#);
    let path = first.path().display();
    second.edit("recipe.toml", "\n[environment]", &format!("[inputs.other]\nrecipe = \"{path}\"\n\n[environment]"));
    // The lock was made without this input; outputs of other recipes are not in locks, but in what a lock is of.
    let recipe = kiln_model::recipe::Recipe::parse(&second.read("recipe.toml")).unwrap();
    let mut lock = kiln_model::lock::Lock::parse(&second.read("recipe.lock")).unwrap();
    lock.pins = recipe.pins();
    second.write("recipe.lock", &lock.print());
    let outcomes = vec![kiln.build_one(first.path()), kiln.build_one(second.path())];
    (kiln, first, second, outcomes)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

#[test]
fn packages_files_and_advisories_are_found_in_every_build_that_has_them() {
    if !ground::has_files("packages_files_and_advisories_are_found_in_every_build_that_has_them") {
        return;
    }
    let (kiln, first, _second, outcomes) = chain();
    let both = [text(&outcomes[0]["derivation"]), text(&outcomes[1]["derivation"])];
    let mut sorted = both;
    sorted.sort_unstable();

    assert_eq!(derivations(&affected(&kiln, "pkg:deb/debian/bash", 1)), sorted);
    assert_eq!(derivations(&affected(&kiln, "pkg:deb/debian/bash@0.1", 0)), [""; 0]);
    let lock = kiln_model::lock::Lock::parse(&first.read("recipe.lock")).unwrap();
    let bash = lock.environment.packages.iter().find(|package| package.name == "bash").unwrap();
    let document = affected(&kiln, &bash.sha256.to_string(), 1);
    assert_eq!(derivations(&document), sorted);
    assert!(text(&document["builds"][0]["because"][0]).contains("package bash"), "{document:#}");

    let place = ground::directory(Ground::Disk);
    let advisory = place.path().join("advisory.json");
    let write = |fixed: &str| {
        let text = json!({"id": "CVE-2026-1", "affected": [{"package": {"ecosystem": "Debian:12", "name": "bash"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": fixed}]}]}]});
        std::fs::write(&advisory, text.to_string()).unwrap();
    };
    write("99");
    assert_eq!(derivations(&affected(&kiln, &advisory.display().to_string(), 1)), sorted);
    write("0.1");
    assert_eq!(derivations(&affected(&kiln, &advisory.display().to_string(), 0)), [""; 0]);
    write("no version");
    assert!(!affected(&kiln, &advisory.display().to_string(), 4)["undetermined"].as_array().unwrap().is_empty());
}

#[test]
fn what_was_built_from_something_affected_is_affected() {
    if !ground::has_files("what_was_built_from_something_affected_is_affected") {
        return;
    }
    let (kiln, first, _second, outcomes) = chain();
    let drv = std::fs::read(kiln.store().join(text(&outcomes[0]["derivation"]).trim_start_matches('/'))).unwrap();
    let document = affected(&kiln, &kiln_model::digest::Digest::of(drv).to_string(), 1);
    assert_eq!(document["builds"].as_array().unwrap().len(), 2, "{document:#}");
    let built_from =
        document["builds"].as_array().unwrap().iter().flat_map(|build| build["because"].as_array().unwrap());
    assert!(built_from.into_iter().any(|because| text(because).starts_with("built from")), "{document:#}");

    // Provenance that somebody published of something built from the first one's output.
    let nar = kiln_model::digest::NarHash::new("0".repeat(64).parse().unwrap());
    let made: kiln_model::digest::NarHash = text(&outcomes[0]["outputs"]["out"]["nar_hash"]).parse().unwrap();
    let statement = json!({"_type": "https://in-toto.io/Statement/v1", "subject": [{"name": "third", "digest": {"sha256": nar.digest()}}],
        "predicateType": "https://slsa.dev/provenance/v1", "predicate": {"buildDefinition": {"resolvedDependencies":
        [{"uri": "pkg:generic/made@1", "digest": {"sha256": made.digest()}}]}, "runDetails": {"builder": {"id": "https://rb.example.org"}}}});
    let evidence = ground::directory(Ground::Disk);
    let encoded = data_encoding::BASE64.encode(statement.to_string().as_bytes());
    std::fs::write(evidence.path().join("a.intoto.jsonl"), format!("{{\"payload\":\"{encoded}\"}}\n")).unwrap();
    let digest = kiln_model::digest::Digest::of(
        std::fs::read(kiln.store().join(text(&outcomes[0]["derivation"]).trim_start_matches('/'))).unwrap(),
    );
    let ran = kiln
        .run(["affected", "--json", &digest.to_string(), "--evidence", &evidence.path().display().to_string()])
        .exits(1);
    let document = ran.json();
    assert_eq!(document["published"][0]["subjects"], json!(["third"]), "{document:#}");
    drop(first);
}

#[test]
fn what_cannot_be_looked_into_is_undetermined_and_what_is_no_question_is_refused() {
    if !ground::has_files("what_cannot_be_looked_into_is_undetermined_and_what_is_no_question_is_refused") {
        return;
    }
    let (kiln, _first, _second, _) = chain();
    affected(&kiln, &"0".repeat(64), 4);
    let environments = kiln.store().join("environments");
    for entry in std::fs::read_dir(&environments).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "json") {
            std::fs::remove_file(path).unwrap();
        }
    }
    let document = affected(&kiln, "pkg:deb/debian/bash", 4);
    assert_eq!(document["undetermined"].as_array().unwrap().len(), 2, "{document:#}");
    kiln.run(["affected", "curl"]).exits(2).says(&["none of these"]);
    let broken = ground::directory(Ground::Disk);
    let file: &Path = &broken.path().join("x.json");
    std::fs::write(file, r#"{"id":"a","id":"b"}"#).unwrap();
    kiln.run(["affected".as_ref(), file.as_os_str()]).exits(2).says(&["x.json", "twice"]);
}
