//! `kiln build FILE.drv`: derivations that a real Nix wrote come out as they did there, and bad ones are refused by name.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use kiln_model::format::export::{self, Trailer};
use kiln_model::store_path::StorePath;
use kiln_tests::derivation::{BUILDER, vector as derivation, vectors, with_builder};
use kiln_tests::ground::{self, Ground};
use kiln_tests::run::{Kiln, Ran};

/// A store that has the builder and the sources. `None`, and the test is counted as skipped, where the host's busybox is
/// another one.
fn with_sources(test: &str) -> Option<Kiln> {
    let kiln = with_builder(test)?;
    let made = ground::directory(Ground::Disk);
    let nar = "cw4n04b4xc2cwlgw6nb0fix8njwa7qw7-srcdir";
    let tree = made.path().join("srcdir");
    let bytes = fs::read(vectors().join(format!("nar/{nar}.nar"))).unwrap();
    nix_archive::nar::restore(&bytes, &tree, nix_archive::nar::CaseHack::Disabled).unwrap();
    let added = kiln.run(["store", "add", tree.to_str().unwrap()]).succeeded();
    assert_eq!(added.stdout.trim(), format!("/nix/store/{nar}"));
    let text = made.path().join("src.txt");
    fs::write(&text, "source file\n").unwrap();
    kiln.run(["store", "add", text.to_str().unwrap()]).succeeded();
    let imported = import(&kiln, TEXT, &fs::read(vectors().join(format!("nar/{TEXT}.nar"))).unwrap());
    assert_eq!(imported.succeeded().stdout.trim(), format!("/nix/store/{TEXT}"));
    Some(kiln)
}

/// What `builtins.toFile` wrote: a text that names the builder.
const TEXT: &str = "2qmnrg1m3y0kz4gnvhx57gziszp66jrj-text-src";

/// Imports an archive as what lies at `base` and names the builder.
fn import(kiln: &Kiln, base: &str, nar: &[u8]) -> Ran {
    let path: StorePath = format!("/nix/store/{base}").parse().unwrap();
    let trailer = Trailer { path, references: [BUILDER.parse().unwrap()].into(), deriver: None };
    let stream = [&export::print_another()[..], nar, &trailer.print(), &export::print_end()].concat();
    let made = ground::directory(Ground::Disk);
    let file = made.path().join("stream");
    fs::write(&file, stream).unwrap();
    let mut command = kiln.command(["store", "import"]);
    command.stdin(fs::File::open(&file).unwrap());
    Ran::of(command)
}

#[test]
fn every_derivation_that_nix_built_comes_out_with_nixs_digest() {
    let Some(kiln) = with_sources("every_derivation_that_nix_built_comes_out_with_nixs_digest") else { return };
    let table = fs::read_to_string(vectors().join("built.tsv")).unwrap();
    let mut expected: BTreeMap<&str, BTreeMap<&str, &str>> = BTreeMap::new();
    for line in table.lines().skip(1) {
        let [derivation, output, nar_hash] = line.split('\t').collect::<Vec<_>>()[..] else { panic!("{line}") };
        expected.entry(derivation).or_default().insert(output, nar_hash);
    }
    // Too large to be kept here.
    expected.retain(|derivation, _| !derivation.ends_with("-long-args.drv"));
    assert_eq!(expected.len(), 31);
    let files: Vec<PathBuf> =
        expected.keys().map(|path| vectors().join("drv").join(Path::new(path).file_name().unwrap())).collect();
    let outcomes = kiln.build(&files.iter().map(PathBuf::as_path).collect::<Vec<_>>());
    assert_eq!(outcomes.len(), expected.len());
    for outcome in &outcomes {
        let derivation = outcome["derivation"].as_str().unwrap();
        for (output, nar_hash) in &expected[derivation] {
            assert_eq!(outcome["outputs"][output]["nar_hash"], **nar_hash, "{output} of {derivation}");
        }
    }
    kiln.verified();
    let again = kiln.build(&files.iter().map(PathBuf::as_path).collect::<Vec<_>>());
    assert!(again.iter().all(|outcome| outcome["cached"] == true));
}

#[test]
fn a_text_that_an_expression_wrote_lies_where_its_bytes_and_what_it_names_say() {
    let test = "a_text_that_an_expression_wrote_lies_where_its_bytes_and_what_it_names_say";
    let Some(kiln) = with_sources(test) else { return };
    let info = kiln.run(["--json", "store", "info", &format!("/nix/store/{TEXT}")]).succeeded().json();
    assert_eq!(info["path"]["ca"], "text:sha256:02zb5ckl0k3jjvhx6417nnl2wyml7rdglpy8mywfbaygxrgbvcww");
    assert_eq!(info["path"]["references"], serde_json::json!([BUILDER]));
    let outcome = kiln.build_one(&derivation("tofile"));
    let written = fs::read(kiln.store().join("nix/store").join(TEXT)).unwrap();
    let out = outcome["outputs"]["out"]["path"].as_str().unwrap();
    assert_eq!(fs::read(kiln.store().join(out.trim_start_matches('/'))).unwrap(), written);
    assert!(outcome["inputs"][format!("/nix/store/{TEXT}")].is_string());
    // Other bytes at that path are some tree that somebody trusts: nothing follows from them.
    let Some(other) = with_builder(test) else { return };
    let nar = fs::read(vectors().join(format!("nar/{TEXT}.nar"))).unwrap();
    let at = nar.windows(4).position(|window| window == b"text").map_or(nar.len() - 40, |at| at);
    let altered = [&nar[..at], &[nar[at] ^ 1], &nar[at + 1..]].concat();
    import(&other, TEXT, &altered).succeeded();
    let info = other.run(["--json", "store", "info", &format!("/nix/store/{TEXT}")]).succeeded().json();
    assert_eq!(info["path"]["ca"], serde_json::Value::Null);
}

#[test]
fn a_derivation_is_added_only_where_its_text_says_that_it_lies() {
    let kiln = Kiln::fresh(Ground::Tmpfs);
    let file = derivation("tofile");
    let added = kiln.run(["derivation".as_ref(), "add".as_ref(), file.as_os_str()]).succeeded();
    let base = file.file_name().unwrap().to_str().unwrap();
    assert_eq!(added.stdout.trim_end(), format!("/nix/store/{base}"));
    let info = kiln.run(["--json", "store", "info", added.stdout.trim_end()]).succeeded().json();
    assert_eq!(info["path"]["references"], serde_json::json!([format!("/nix/store/{TEXT}"), BUILDER]));
    assert!(info["path"]["ca"].as_str().unwrap().starts_with("text:sha256:"));

    let made = ground::directory(Ground::Disk);
    let fresh = Kiln::fresh(Ground::Tmpfs);
    let refused = |name: &str, text: &str, said: &str| {
        let moved = made.path().join(name);
        fs::write(&moved, text).unwrap();
        fresh
            .run(["derivation".as_ref(), "add".as_ref(), moved.as_os_str()])
            .exits(6)
            .says(&[said, "the file was altered"]);
        fs::remove_file(&moved).unwrap();
    };
    let text = fs::read_to_string(&file).unwrap();
    // Of other bytes, of another hash, of another source: each would lie elsewhere.
    refused(base, &text.replacen("busybox cp", "busybox mv", 1), "tofile.drv");
    refused(&format!("{}-tofile.drv", "0".repeat(32)), &text, &format!("/nix/store/{base}"));
    refused(base, &text.replace(TEXT, &TEXT.replace("text-src", "text-sru")), "tofile.drv");
    assert_eq!(fresh.run(["store", "ls"]).succeeded().stdout, "");
}

#[test]
fn a_derivation_that_makes_no_output_has_failed_and_says_which() {
    let Some(kiln) = with_builder("a_derivation_that_makes_no_output_has_failed_and_says_which") else { return };
    let file = derivation("empty-args");
    kiln.run(["build", file.to_str().unwrap()]).exits(5).says(&["output out: /nix/store/", "-empty-args was not made"]);
}

#[test]
fn a_derivation_is_checked_like_a_recipe() {
    let Some(kiln) = with_builder("a_derivation_is_checked_like_a_recipe") else { return };
    let multi = derivation("multi");
    let report = kiln.run(["--json", "check", multi.to_str().unwrap()]).succeeded().json();
    assert_eq!(report["verdict"], "reproduced");
    assert_eq!(report["title"], "multi");
    // It writes down what it sees of its sandbox, its host name among that.
    let envdefaults = derivation("envdefaults");
    let report = kiln.run(["--json", "check", envdefaults.to_str().unwrap()]).exits(1).json();
    assert_eq!(report["verdict"], "diverged");
}

#[test]
fn a_derivation_without_an_environment_has_no_shell_to_enter() {
    let Some(kiln) = with_builder("a_derivation_without_an_environment_has_no_shell_to_enter") else { return };
    kiln.run(["shell", derivation("ia-simple").to_str().unwrap(), "--", "true"])
        .exits(2)
        .says(&["enters no environment"]);
}

#[test]
fn what_a_derivation_needs_must_be_there() {
    let kiln = Kiln::fresh(Ground::Tmpfs);
    let alone = ground::directory(Ground::Disk);
    let file = derivation("ia-b");
    kiln.run(["build", file.to_str().unwrap()]).exits(2).says(&[BUILDER, "is not in the store"]);
    let moved = alone.path().join(file.file_name().unwrap());
    fs::copy(&file, &moved).unwrap();
    kiln.run(["build", moved.to_str().unwrap()])
        .exits(2)
        .says(&["ia-simple.drv", "neither in the store nor beside the file"]);
}

#[test]
fn an_altered_derivation_is_refused_and_nothing_is_built() {
    let kiln = Kiln::fresh(Ground::Tmpfs);
    let made = ground::directory(Ground::Disk);
    let file = derivation("ia-simple");
    let altered = made.path().join(file.file_name().unwrap());
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&altered, text.replacen("x86_64-linux", "x86_64-linuy", 1)).unwrap();
    kiln.run(["build", altered.to_str().unwrap()]).exits(6).says(&["the file was altered"]);
    fs::write(&altered, &text[..text.len() / 2]).unwrap();
    kiln.run(["build", altered.to_str().unwrap()]).exits(2).says(&["ia-simple.drv"]);
    let renamed = made.path().join("no-hash.drv");
    fs::copy(&file, &renamed).unwrap();
    // The name is part of what its outputs' paths follow from.
    kiln.run(["build", renamed.to_str().unwrap()]).exits(6).says(&["the file was altered"]);
    kiln.run(["build", made.path().join("a".repeat(32) + "-gone.drv").to_str().unwrap()]).exits(2).says(&["gone.drv"]);
}
