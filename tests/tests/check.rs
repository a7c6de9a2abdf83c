//! `kiln check`: shipped recipes are reproduced, the zoo diverges where its factor was varied, and the file is named.

use std::collections::{BTreeMap, BTreeSet};

use kiln_model::variation::Factor;
use kiln_tests::ground;
use kiln_tests::recipe::{self, Made};
use kiln_tests::run::{Kiln, Ran};
use serde_json::Value;

fn check(kiln: &Kiln, path: &std::path::Path) -> Ran {
    kiln.run(["check".as_ref(), "--json".as_ref(), path.as_os_str()])
}

fn varied(report: &Value) -> BTreeSet<String> {
    report["factors"]["varied"].as_object().expect("factors are told").keys().cloned().collect()
}

/// The recipes whose environments are prepared for this user; all of them, unless `KILN_TEST_RECIPES` lists fewer.
fn chosen(all: Vec<String>) -> Vec<String> {
    match std::env::var("KILN_TEST_RECIPES") {
        Err(_) => all,
        Ok(list) => {
            let wanted: BTreeSet<&str> = list.split_whitespace().collect();
            all.into_iter()
                .filter(|name| wanted.contains(name.as_str()) || wanted.contains(&*format!("zoo/{name}")))
                .collect()
        }
    }
}

#[track_caller]
fn reproduced(name: &str) -> Value {
    let report = check(&Kiln::warm(), &recipe::shipped(name)).succeeded().json();
    assert_eq!(report["schema"], "kiln/report/v1");
    assert_eq!(report["verdict"], "reproduced", "{name}: {:#}", report["differences"]);
    let outcomes = report["outcomes"].as_array().unwrap();
    assert!(outcomes.len() >= 2, "{name}: one build proves nothing");
    assert!(outcomes.iter().all(|o| o["cached"] == false), "{name}: a cached build is no second one");
    for output in outcomes[0]["outputs"].as_object().unwrap().keys() {
        let digests: BTreeSet<&str> =
            outcomes.iter().map(|o| o["outputs"][output]["nar_hash"].as_str().unwrap()).collect();
        assert_eq!(digests.len(), 1, "{name}: {output}");
    }
    // What was varied must be worth the word.
    let varied = varied(&report);
    for factor in ["build-path", "hostname", "umask", "time-zone", "home", "environment", "time", "user-name", "uid"] {
        assert!(varied.contains(factor), "{name}: {factor} was not varied: {:#}", report["factors"]);
    }
    report
}

#[test]
fn hello_is_reproduced_to_what_the_readme_shows() {
    if !ground::has_files("hello_is_reproduced_to_what_the_readme_shows") {
        return;
    }
    let report = reproduced("hello");
    let readme = std::fs::read_to_string(ground::repository().join("README.md")).unwrap();
    let outcome = &report["outcomes"][0];
    let shown =
        [&outcome["derivation"], &outcome["outputs"]["out"]["nar_hash"], &outcome["artifacts"]["hello"]["sha256"]];
    for value in shown.map(|value| value.as_str().expect("a text").trim_start_matches("sha256:")) {
        assert!(readme.contains(value), "README.md shows another than {value}");
    }
}

#[test]
fn every_other_shipped_recipe_is_reproduced() {
    if !ground::has_files("every_other_shipped_recipe_is_reproduced") {
        return;
    }
    let names = chosen(recipe::reproducible());
    assert!(!names.is_empty());
    for name in names.iter().filter(|name| *name != "hello") {
        reproduced(name);
    }
}

/// Labels of the zoo's true causes, by name.
fn labels() -> BTreeMap<String, BTreeSet<String>> {
    let table = std::fs::read_to_string(recipe::shipped("zoo/zoo.tsv")).unwrap();
    table
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            let columns: Vec<&str> = line.split('\t').collect();
            (columns[0].to_string(), columns[1].split(',').map(str::to_string).collect())
        })
        .collect()
}

/// One needs another processor, the other luck.
const EXEMPT: [&str; 2] = ["march_native", "make_j_race"];

#[test]
fn the_zoo_diverges_where_its_factor_was_varied_and_the_file_is_named() {
    if !ground::has_files("the_zoo_diverges_where_its_factor_was_varied_and_the_file_is_named") {
        return;
    }
    let labels = labels();
    let names = chosen(recipe::zoo());
    assert!(!names.is_empty());
    let mut wrong = Vec::new();
    let mut not_varied = Vec::new();
    for name in &names {
        let ran = check(&Kiln::warm(), &recipe::shipped("zoo").join(name));
        let report = ran.json();
        let varied = varied(&report);
        let causes = &labels[name];
        // Randomness is new in every build; the others differ if a factor that shows them was varied.
        let expected = causes.contains("RANDOM")
            || Factor::ALL.iter().any(|factor| {
                varied.contains(factor.as_str()) && factor.labels().iter().any(|label| causes.contains(label.as_str()))
            });
        if !expected {
            not_varied.push(name.as_str());
            continue;
        }
        let differences = report["differences"].as_array().unwrap();
        let named = differences.iter().any(|d| d["output"] == "out" && d["path"] == "" && d["kind"] == "content");
        let told = (ran.code(), report["verdict"].as_str().unwrap_or("none"), named);
        if told != (Some(1), "diverged", true) && !EXEMPT.contains(&name.as_str()) {
            wrong.push(format!("{name}: {told:?}, {:#}", report["factors"]));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), names.len(), wrong.join("\n"));
    assert!(not_varied.iter().all(|name| EXEMPT.contains(name)), "nothing was varied that shows {not_varied:?}");
}

#[test]
fn every_zoo_entry_is_in_the_table_and_has_a_recipe() {
    let table: BTreeSet<String> = labels().into_keys().collect();
    let shipped: BTreeSet<String> = recipe::zoo().into_iter().collect();
    assert_eq!(table, shipped);
}

#[test]
fn the_report_names_each_differing_file_and_only_those() {
    if !ground::has_files("the_report_names_each_differing_file_and_only_those") {
        return;
    }
    let made = Made::new(
        r#"mkdir -p "$out/etc"; umask >"$out/etc/umask"; cat /proc/sys/kernel/random/uuid >"$out/id"; echo same >"$out/same""#,
    );
    let report = check(&Kiln::warm(), made.path()).exits(1).json();
    assert_eq!(report["verdict"], "diverged");
    let named: BTreeSet<&str> =
        report["differences"].as_array().unwrap().iter().map(|d| d["path"].as_str().unwrap()).collect();
    assert_eq!(named, BTreeSet::from(["etc/umask", "id"]));
    let causes = report["causes"].as_array().unwrap();
    let of = |path: &str| {
        causes.iter().filter(|c| c["path"] == path).map(|c| c["label"].as_str().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(of("etc/umask"), ["UMASK"], "{causes:#?}");
}

#[test]
fn a_build_that_fails_under_one_condition_only_has_diverged() {
    if !ground::has_files("a_build_that_fails_under_one_condition_only_has_diverged") {
        return;
    }
    let made = Made::new(r#"test "$(umask)" = 0022; echo x >"$out""#);
    let report = check(&Kiln::warm(), made.path()).exits(1).json();
    assert_eq!(report["verdict"], "diverged");
}

#[test]
fn a_build_that_fails_always_has_failed() {
    if !ground::has_files("a_build_that_fails_always_has_failed") {
        return;
    }
    let report = check(&Kiln::warm(), Made::new("echo no; exit 3").path()).exits(5).json();
    assert_eq!(report["verdict"], "failed");
}

#[test]
fn what_the_recipe_fixes_is_not_called_varied() {
    if !ground::has_files("what_the_recipe_fixes_is_not_called_varied") {
        return;
    }
    let made = Made::with(r#"env = { TZ = "UTC" }"#, r#"date -d @0 >"$out""#);
    let report = check(&Kiln::warm(), made.path()).succeeded().json();
    assert_eq!(report["verdict"], "reproduced");
    assert!(!varied(&report).contains("time-zone"));
    assert!(report["factors"]["not_varied"].get("time-zone").is_some(), "{:#}", report["factors"]);
}
