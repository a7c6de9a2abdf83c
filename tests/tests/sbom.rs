//! `kiln sbom`: the same bill from every store, and other people's checkers take it.
//!
//! The checkers are programs of Python packages (cyclonedx-python-lib, spdx-tools, ntia-conformance-checker); they lie beside the
//! Python that `KILN_TEST_PYTHON` names, else in target/kiln-tests-python, where scripts/setup --test puts them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use kiln_tests::ground::{self, Ground};
use kiln_tests::recipe::{self, Made};
use kiln_tests::run::{Kiln, Ran};
use serde_json::Value;

const FORMATS: [&str; 3] = ["cyclonedx", "spdx", "spdx3"];

/// A program of the checkers; `None` notes that `test` cannot run here.
fn checker(test: &str, program: &str) -> Option<PathBuf> {
    let own = std::env::var_os("KILN_TEST_PYTHON").map(PathBuf::from);
    let python = own.unwrap_or_else(|| ground::repository().join("target/kiln-tests-python/bin/python3"));
    let path = python.with_file_name(program);
    (path.is_file() || ground::skipped(test, &format!("no {program}; scripts/setup --test installs it")))
        .then_some(path)
}

fn bill(kiln: &Kiln, recipe: &Path, format: &str) -> String {
    kiln.run(["sbom".as_ref(), recipe.as_os_str(), "--format".as_ref(), format.as_ref()]).succeeded().stdout
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

/// A recipe with inputs of the cheapest kind and outputs of both kinds.
fn made() -> Made {
    let made = Made::with("env = { LEVEL = \"2\" }", r#"mkdir "$out"; echo one >"$out/one"; echo two >"$out/two""#);
    made.edit("recipe.toml", "\n[environment]", "maintainer = \"Ada Byron <ada@example.org>\"\n\n[environment]");
    made.write("recipe.toml", &format!("{}\n[artifacts]\nout = [\"one\"]\n", made.read("recipe.toml")));
    made
}

#[test]
fn the_same_build_gives_the_same_bill_in_another_store_at_another_time() {
    if !ground::has_files("the_same_build_gives_the_same_bill_in_another_store_at_another_time") {
        return;
    }
    let made = made();
    let (warm, fresh) = (Kiln::warm(), Kiln::fresh(Ground::Disk));
    for kiln in [&warm, &fresh] {
        kiln.build_one(made.path());
    }
    for format in FORMATS {
        let first = bill(&warm, made.path(), format);
        assert_eq!(first, bill(&warm, made.path(), format), "{format}, twice");
        assert_eq!(first, bill(&fresh, made.path(), format), "{format}, in another store");
        let told = warm.run(["sbom", "--run-details", "--format", format, &made.path().display().to_string()]);
        let told = told.succeeded().stdout;
        assert_ne!(first, told, "{format} with run details");
    }
}

#[test]
fn a_bill_holds_every_package_of_the_lock_with_its_digest_and_what_was_made() {
    if !ground::has_files("a_bill_holds_every_package_of_the_lock_with_its_digest_and_what_was_made") {
        return;
    }
    let made = made();
    let kiln = Kiln::warm();
    let outcome = kiln.build_one(made.path());
    let bill = json(&bill(&kiln, made.path(), "cyclonedx"));
    let lock = kiln_model::lock::Lock::parse(&made.read("recipe.lock")).unwrap();
    let locked: BTreeSet<(String, String)> =
        lock.environment.packages.iter().map(|p| (p.name.clone(), p.sha256.to_string())).collect();
    let text = |value: &Value| value.as_str().unwrap().to_string();
    let components = bill["components"].as_array().unwrap();
    let listed: BTreeSet<(String, String)> =
        components.iter().map(|one| (text(&one["name"]), text(&one["hashes"][0]["content"]))).collect();
    assert_eq!(listed, locked);
    for one in components {
        assert!(one["licenses"][0]["expression"].is_string(), "{one:#}");
        assert!(text(&one["purl"]).starts_with("pkg:deb/debian/"), "{one:#}");
    }
    let outputs = bill["metadata"]["component"]["components"].as_array().unwrap();
    assert_eq!(text(&outputs[1]["name"]), "one");
    assert_eq!(outputs[1]["hashes"][0]["content"], outcome["artifacts"]["one"]["sha256"]);
    assert_eq!(bill["metadata"]["authors"][0]["email"], "ada@example.org");
    let (derivation, output) = (text(&outcome["derivation"]), text(&outcome["outputs"]["out"]["path"]));
    for named in [derivation, output] {
        let other = json(&kiln.run(["sbom", &named]).succeeded().stdout);
        assert_eq!(other["components"].as_array().unwrap().len(), components.len(), "by {named}");
    }
}

#[test]
fn what_is_not_built_has_no_bill() {
    if !ground::has_files("what_is_not_built_has_no_bill") {
        return;
    }
    let made = made();
    let ran =
        Kiln::warm().run(["sbom".as_ref(), made.path().as_os_str()]).exits(2).says(&["is not built", "kiln build"]);
    assert_eq!(ran.stdout, "");
    Kiln::warm()
        .run(["sbom", "/nix/store/00000000000000000000000000000000-nothing"])
        .exits(2)
        .says(&["is not in the store"]);
}

/// Files with the bills of recipes of several kinds.
fn bills(recipes: &[&str], format: &str, place: &Path) -> Vec<PathBuf> {
    let kiln = Kiln::warm();
    let write = |name: &&str| {
        let file = place.join(format!("{name}.{format}.json"));
        kiln.build_one(&recipe::shipped(name));
        let recipe = recipe::shipped(name);
        let output = ["--output".as_ref(), file.as_os_str()];
        kiln.run(["sbom".as_ref(), recipe.as_os_str(), "--format".as_ref(), format.as_ref()].into_iter().chain(output))
            .succeeded();
        file
    };
    recipes.iter().map(write).collect()
}

const RECIPES: [&str; 4] = ["greeting", "handbook", "idna", "wheels"];

const VALIDATE: &str = "
import sys
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(open(sys.argv[1]).read())
print(error) if error else None
sys.exit(1 if error else 0)
";

#[test]
fn cyclonedx_s_own_library_takes_a_bill_strictly_and_refuses_a_broken_one() {
    let test = "cyclonedx_s_own_library_takes_a_bill_strictly_and_refuses_a_broken_one";
    let Some(python) = ground::has_files(test).then(|| checker(test, "python3")).flatten() else { return };
    let validate = |file: &Path| {
        let mut command = Command::new(&python);
        command.args(["-c", VALIDATE]).arg(file);
        Ran::of(command)
    };
    let place = ground::directory(Ground::Disk);
    for file in bills(&RECIPES, "cyclonedx", place.path()) {
        validate(&file).succeeded();
        let text = std::fs::read_to_string(&file).unwrap();
        let broken = place.path().join("broken.json");
        std::fs::write(&broken, text.replacen("\"alg\": \"SHA-256\"", "\"alg\": \"SHA-257\"", 1)).unwrap();
        validate(&broken).exits(1);
    }
}

#[test]
fn spdx_tools_and_the_ntia_checker_take_a_bill_and_refuse_a_broken_one() {
    let test = "spdx_tools_and_the_ntia_checker_take_a_bill_and_refuse_a_broken_one";
    let there = ground::has_files(test);
    let (Some(spdx), Some(ntia)) =
        (there.then(|| checker(test, "pyspdxtools")).flatten(), checker(test, "ntia-checker"))
    else {
        return;
    };
    let parse = |file: &Path| {
        let mut command = Command::new(&spdx);
        command.arg("-i").arg(file);
        Ran::of(command)
    };
    let check = |arguments: &[&str], file: &Path| {
        let mut command = Command::new(&ntia);
        command.arg("-q").args(arguments).arg(file);
        Ran::of(command)
    };
    let place = ground::directory(Ground::Disk);
    for file in bills(&RECIPES, "spdx", place.path()) {
        parse(&file).succeeded();
        check(&[], &file).succeeded();
    }
    for file in bills(&RECIPES, "spdx3", place.path()) {
        check(&["--sbom-spec", "spdx3"], &file).succeeded();
    }
    let text = std::fs::read_to_string(place.path().join("handbook.spdx.json")).unwrap();
    let broken = place.path().join("broken.json");
    std::fs::write(
        &broken,
        text.replacen("\"licenseDeclared\": \"Apache-2.0\"", "\"licenseDeclared\": \"Apatchy\"", 1),
    )
    .unwrap();
    assert_ne!(parse(&broken).code(), Some(0));
    std::fs::write(&broken, text.replacen("\"supplier\":", "\"comment\":", 1)).unwrap();
    assert_ne!(check(&[], &broken).code(), Some(0));
}
