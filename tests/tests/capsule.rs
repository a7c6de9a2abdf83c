//! `kiln rebuild ATTESTATION` and `kiln capsule create ATTESTATION`: from what somebody signed to an answer of one's own, in one
//! command and another store. A statement is a stranger's: what it lacks is named, and nothing that it says leads elsewhere.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use data_encoding::BASE64;
use kiln_model::digest::Digest;
use kiln_model::envelope::Envelope;
use kiln_model::key::SecretKey;
use kiln_model::statement::{DigestSet, Predicate, Provenance, Statement};
use kiln_tests::derivation;
use kiln_tests::ground::{self, Ground};
use kiln_tests::recipe::Made;
use kiln_tests::run::{Kiln, Ran};
use kiln_tests::schema::fits;
use serde_json::{Value, json};
use tempfile::TempDir;

const SAME: &str = r#"mkdir "$out"; echo same >"$out/file""#;

/// A recipe that was built, and what its builder signed of it.
struct Attested {
    made: Made,
    place: TempDir,
    /// The provenance.
    file: PathBuf,
}

impl Attested {
    fn new(script: &str, more: &[&str]) -> Self {
        let made = Made::new(script);
        Kiln::warm().build_one(made.path());
        Self::of(made, more)
    }

    fn of(made: Made, more: &[&str]) -> Self {
        let place = ground::directory(Ground::Disk);
        let kiln = Kiln::warm();
        let at = |name: &str| place.path().join(name).display().to_string();
        kiln.run(["key", "generate", "--output", &at("key")]).succeeded();
        let recipe = made.path().display().to_string();
        let (key, output) = (at("key"), at("att"));
        let words = ["attest", "--json", &recipe, "--key", &key, "--builder-id", "https://rb1.example.org/kiln"];
        let told = kiln.run(words.iter().chain(&["--output", &output]).chain(more)).succeeded().json();
        let file = PathBuf::from(told["statements"][0]["file"].as_str().unwrap());
        Self { made, place, file }
    }

    fn statement(&self) -> Statement {
        let envelope = Envelope::parse(&std::fs::read(&self.file).unwrap()).unwrap();
        Statement::parse(envelope.payload()).unwrap()
    }

    /// The same with a change, signed by somebody else.
    fn changed(&self, name: &str, change: impl FnOnce(&mut Statement)) -> PathBuf {
        let mut statement = self.statement();
        change(&mut statement);
        self.signed(name, &statement.print().unwrap())
    }

    /// The same with a change to its provenance.
    fn with(&self, name: &str, change: impl FnOnce(&mut Provenance)) -> PathBuf {
        self.changed(name, |statement| {
            let Predicate::Provenance(provenance) = &mut statement.predicate else { panic!("{statement:?}") };
            change(provenance);
        })
    }

    fn signed(&self, name: &str, payload: &[u8]) -> PathBuf {
        let path = self.place.path().join(name);
        let envelope = Envelope::sign(payload.to_vec(), &SecretKey::ed25519(&[7; 32]));
        std::fs::write(&path, envelope.canonical()).unwrap();
        path
    }
}

fn rebuild(kiln: &Kiln, file: &Path) -> Ran {
    kiln.run(["rebuild".as_ref(), "--json".as_ref(), file.as_os_str()])
}

/// A kiln that has nothing and can fetch nothing.
fn stranger() -> Kiln {
    let kiln = Kiln::fresh(Ground::Disk);
    kiln.mirrors(&["/nonexistent"]);
    kiln
}

#[test]
fn a_stranger_with_an_empty_store_builds_what_was_attested_and_says_whether_it_is_the_same() {
    let name = "a_stranger_with_an_empty_store_builds_what_was_attested_and_says_whether_it_is_the_same";
    if !ground::has_files(name) {
        return;
    }
    let attested = Attested::new(SAME, &[]);
    // Nothing but the statement and the mirrors.
    drop(std::fs::remove_dir_all(attested.made.path()));
    let kiln = Kiln::fresh(Ground::Disk);
    let ran = rebuild(&kiln, &attested.file).succeeded().says(&["0 missing"]);
    let report = ran.json();
    fits("report", &report);
    assert_eq!(report["verdict"], "reproduced");
    assert_eq!(report["outcomes"].as_array().unwrap().len(), 1);
    assert_eq!(report["subjects"][0]["reference"], report["subjects"][0]["digests"][0]);

    // Another digest than what comes out: two builds of our own agree on that, before anybody is accused.
    let lie = attested.changed("lie.json", |statement| {
        statement.subject[0].digest = DigestSet::of(Digest::of("what they would have us run"));
    });
    let report = rebuild(&kiln, &lie).exits(1).says(&["0 fetched, 0 missing", "not what was attested"]).json();
    fits("report", &report);
    assert_eq!(report["verdict"], "upstream-differs");
    assert_eq!(report["outcomes"].as_array().unwrap().len(), 2);

    // Both in one file, and lines of other kinds: a report for each of ours.
    let both = attested.place.path().join("both.jsonl");
    let lines = [std::fs::read(&attested.file).unwrap(), b"{}".to_vec(), std::fs::read(&lie).unwrap()];
    std::fs::write(&both, lines.join(&b'\n')).unwrap();
    let reports = rebuild(&kiln, &both).exits(1).json();
    let verdicts: Vec<&Value> = reports["reports"].as_array().unwrap().iter().map(|one| &one["verdict"]).collect();
    assert_eq!(verdicts, ["reproduced", "upstream-differs"]);

    // The answer can be signed in turn.
    let at = |name: &str| attested.place.path().join(name).display().to_string();
    std::fs::write(attested.place.path().join("report.json"), report.to_string()).unwrap();
    let words =
        ["attest", "--json", &at("report.json"), "--key", &at("key"), "--builder-id", "https://rb2.example.org/k"];
    let told = kiln.run(words.iter().chain(&["--output", &at("answer")])).succeeded().json();
    let results: Vec<&str> =
        told["statements"].as_array().unwrap().iter().filter_map(|one| one["result"].as_str()).collect();
    assert_eq!(results, ["DIFFERENT", "DIFFERENT"]);
}

#[test]
fn inputs_that_are_nowhere_are_named_before_anything_is_built() {
    if !ground::has_files("inputs_that_are_nowhere_are_named_before_anything_is_built") {
        return;
    }
    let attested = Attested::new(SAME, &[]);
    let missing = |kiln: &Kiln| -> Vec<String> {
        let report = rebuild(kiln, &attested.file).exits(4).json();
        fits("report", &report);
        assert_eq!(report["verdict"], "inconclusive");
        assert_eq!(report["outcomes"], json!([]));
        let missing = report["rebuild"]["missing"].as_array().unwrap();
        assert!(missing.iter().all(|one| !one["tries"].as_array().unwrap().is_empty()));
        missing.iter().map(|one| one["what"].as_str().unwrap().to_owned()).collect()
    };
    let lock = attested.made.read("recipe.lock");
    let all = missing(&stranger());
    assert_eq!(all.len(), lock.matches(".deb\"").count(), "{all:#?}");

    // A mirror that has all but one.
    let mirror = ground::directory(Ground::Disk);
    for file in std::fs::read_dir(ground::files()).unwrap() {
        let file = file.unwrap();
        if !file.file_name().to_string_lossy().starts_with("base-files_") {
            std::os::unix::fs::symlink(file.path().canonicalize().unwrap(), mirror.path().join(file.file_name()))
                .unwrap();
        }
    }
    let kiln = Kiln::fresh(Ground::Disk);
    kiln.mirrors(&[&mirror.path().display().to_string()]);
    let one = missing(&kiln);
    assert!(one.len() == 1 && one[0].contains("base-files_"), "{one:#?}");
    let capsule = attested.place.path().join("x.capsule").display().to_string();
    let create = ["capsule", "create", attested.file.to_str().unwrap(), "-o", &capsule];
    kiln.run(create).exits(4).says(&["base-files_"]);
    assert!(!Path::new(&capsule).exists());
}

#[test]
fn a_capsule_of_an_attestation_is_rebuilt_without_a_network_and_held_against_the_statement() {
    let name = "a_capsule_of_an_attestation_is_rebuilt_without_a_network_and_held_against_the_statement";
    if !ground::has_files(name) {
        return;
    }
    let attested = Attested::new(SAME, &[]);
    let lie = attested.changed("lie.json", |statement| {
        statement.subject[0].digest = DigestSet::of(Digest::of("other"));
    });
    let pack = |from: &Path, name: &str| {
        let file = attested.place.path().join(name);
        let words = ["capsule".as_ref(), "create".as_ref(), "--json".as_ref(), from.as_os_str(), "--output".as_ref()];
        let told = Kiln::warm().run(words.into_iter().chain([file.as_os_str()])).succeeded().json();
        fits("capsule-created", &told);
        file
    };
    let (capsule, again, lying) =
        (pack(&attested.file, "a.capsule"), pack(&attested.file, "b.capsule"), pack(&lie, "lie.capsule"));
    assert_eq!(std::fs::read(&capsule).unwrap(), std::fs::read(&again).unwrap());
    let kiln = stranger();
    let report = rebuild(&kiln, &capsule).succeeded().json();
    fits("report", &report);
    assert_eq!(report["verdict"], "reproduced");
    assert_eq!(report["outcomes"].as_array().unwrap().len(), 1);
    assert_eq!(rebuild(&kiln, &lying).exits(1).json()["verdict"], "upstream-differs");
}

#[test]
fn what_a_statement_lacks_is_named_and_can_be_had_from_elsewhere() {
    if !ground::has_files("what_a_statement_lacks_is_named_and_can_be_had_from_elsewhere") {
        return;
    }
    let bare = Attested::new(SAME, &["--without-recipe"]);
    let kiln = Kiln::warm();
    rebuild(&stranger(), &bare.file).exits(2).says(&["no derivation, among its byproducts", "--recipe"]);
    // Who built it has the derivation in the store.
    assert_eq!(rebuild(&kiln, &bare.file).succeeded().json()["verdict"], "reproduced");
    let with = |recipe: &Path| {
        let words = ["rebuild".as_ref(), "--json".as_ref(), bare.file.as_os_str(), "--recipe".as_ref()];
        kiln.run(words.into_iter().chain([recipe.as_os_str()]))
    };
    assert_eq!(with(bare.made.path()).succeeded().json()["verdict"], "reproduced");
    let other = Made::new("echo other >\"$out\"");
    with(other.path()).exits(6).says(&["is said to be of /nix/store/"]);
    kiln.run(["rebuild", "debian:hello", "--recipe", "/tmp"]).exits(2).says(&["expected an attestation"]);

    let one = Attested::new(SAME, &[]);
    let refused = |file: PathBuf, code, says: &[&str]| drop(rebuild(&kiln, &file).exits(code).says(says));
    refused(one.with("a.json", |p| p.build_definition.build_type = "https://example.org/x".into()), 2, &["buildType"]);
    let derivation = |p: &mut Provenance| drop(p.build_definition.internal_parameters.remove("derivation"));
    refused(one.with("b.json", derivation), 2, &["internalParameters.derivation is missing"]);
    let summary = one.changed("c.json", |statement| {
        statement.predicate = Predicate::Other { kind: "https://example.org/x".into(), value: json!({}) };
    });
    refused(summary, 2, &["https://example.org/x", "names no inputs"]);
    for (name, bytes) in [("d.json", &b"{}"[..]), ("e.json", b""), ("f.jsonl", b"\n"), ("g.json", b"\xff\x00")] {
        let path = one.place.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        refused(path, 2, &["is no attestation"]);
    }
    let two = one.place.path().join("two.jsonl");
    std::fs::write(&two, [std::fs::read(&one.file).unwrap(), std::fs::read(&bare.file).unwrap()].join(&b'\n')).unwrap();
    refused(two, 2, &["about several builds"]);
}

#[test]
fn a_statement_that_contradicts_itself_or_leads_elsewhere_is_refused_before_anything_is_built() {
    let name = "a_statement_that_contradicts_itself_or_leads_elsewhere_is_refused_before_anything_is_built";
    if !ground::has_files(name) {
        return;
    }
    let one = Attested::new(SAME, &[]);
    let kiln = Kiln::warm();
    let refused = |file: PathBuf, code, says: &[&str]| drop(rebuild(&kiln, &file).exits(code).says(says));
    /// Changes a text that is carried, digest and all.
    fn edit(provenance: &mut Provenance, file: &str, change: impl FnOnce(String) -> String) {
        let text = provenance.run_details.byproducts.iter_mut();
        let text = text.into_iter().find(|one| one.name.as_deref() == Some(file)).unwrap();
        let old = String::from_utf8(BASE64.decode(text.content.as_ref().unwrap().as_bytes()).unwrap()).unwrap();
        let new = change(old);
        text.digest = DigestSet::of(Digest::of(&new));
        text.content = Some(BASE64.encode(new.as_bytes()));
    }
    let (recipe, lock) = ("recipes/recipe.toml", "recipes/recipe.lock");

    let evil = one.with("a.json", |p| edit(p, recipe, |text| text.replace("echo same", "echo evil")));
    refused(evil, 6, &["is said to be of"]);
    let bytes = one.with("b.json", |p| {
        let text = p.run_details.byproducts.iter_mut().find(|one| one.name.as_deref() == Some(recipe)).unwrap();
        text.content = Some(BASE64.encode(b"schema = 1"));
    });
    refused(bytes, 6, &["content of recipes/recipe.toml", "contradicts itself"]);
    let hidden = one.with("c.json", |p| {
        let inputs = &mut p.build_definition.resolved_dependencies;
        inputs.retain(|one| one.name.as_deref().is_none_or(|name| !name.starts_with("base-files_")));
    });
    refused(hidden, 6, &["resolvedDependencies does not name", "base-files_"]);

    // Recipes of this host, and directories of it, are nobody else's business.
    let neighbour = Made::new(SAME);
    let place = neighbour.path().display().to_string();
    for other in [format!("../../../../../../../..{place}"), place.clone(), "../made".into()] {
        let names = one.with("d.json", |p| {
            edit(p, recipe, |text| {
                text.replacen("[environment]", &format!("[inputs]\ndep = {{ recipe = {other:?} }}\n\n[environment]"), 1)
            });
        });
        refused(names, 2, &["inputs.dep of recipes/recipe.toml", "which is not in it"]);
    }
    for name in ["recipes/../../recipe.toml", "/recipes/recipe.toml", "recipes/a/../recipe.toml"] {
        let elsewhere = one.with("e.json", |p| {
            for text in &mut p.run_details.byproducts {
                if text.name.as_deref() == Some(recipe) {
                    text.name = Some(name.into());
                }
            }
        });
        // No such name is known, so it is no recipe at all.
        refused(elsewhere, 2, &["it has no recipe.toml"]);
    }
    let bad = one.with("f.json", |p| edit(p, lock, |text| text.replacen("path = \"pool/", "path = \"../pool/", 1)));
    let ran = rebuild(&stranger(), &bad);
    assert!(matches!(ran.code(), Some(2 | 6)), "{}", ran.stderr);
    assert_eq!(std::fs::read_dir(neighbour.path()).unwrap().count(), 2);
}

#[test]
fn a_tree_beside_the_recipe_is_taken_from_the_store_or_from_where_the_user_says_never_from_where_the_statement_says() {
    let name = "a_tree_beside_the_recipe_is_taken_from_the_store_or_from_where_the_user_says_never_from_where_the_statement_says";
    if !ground::has_files(name) {
        return;
    }
    let made = Made::copy("greeting");
    let recipe = made.read("recipe.toml");
    if !recipe.contains("path = ") {
        panic!("recipes/greeting has no tree beside it any more: take another recipe\n{recipe}");
    }
    made.edit("recipe.toml", "script = '''", &format!("script = '''\n# {}", kiln_tests::recipe::nonce()));
    Kiln::warm().build_one(made.path());
    let attested = Attested::of(made, &[]);
    let kiln = stranger();
    let report = rebuild(&kiln, &attested.file).exits(4).json();
    let missing: BTreeMap<String, Value> = report["rebuild"]["missing"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| (one["what"].as_str().unwrap().to_owned(), one["tries"].clone()))
        .collect();
    let tree = missing.iter().find(|(what, _)| what.starts_with("inputs.")).expect("the tree is missing");
    assert!(tree.1[0].as_str().unwrap().contains("--recipe"), "{tree:?}");
    // Where the user has it, it is taken.
    let words = ["rebuild".as_ref(), "--json".as_ref(), attested.file.as_os_str(), "--recipe".as_ref()];
    let report = kiln.run(words.into_iter().chain([attested.made.path().as_os_str()])).exits(4).json();
    let missing = report["rebuild"]["missing"].as_array().unwrap();
    assert!(missing.iter().all(|one| !one["what"].as_str().unwrap().starts_with("inputs.")), "{missing:#?}");
}

#[test]
fn a_derivation_that_was_attested_is_built_again_where_its_sources_are() {
    let name = "a_derivation_that_was_attested_is_built_again_where_its_sources_are";
    let Some(kiln) = derivation::with_builder(name) else { return };
    let made = derivation::Made::default();
    let first = made.closed("first", &[], "echo one >\"$out\"");
    let second = made.closed("second", &[(&first, &["out"])], &format!("cat {} >\"$out\"", out(&first)));
    let file = made.file(&second.path);
    kiln.build_one(&file);
    let place = ground::directory(Ground::Tmpfs);
    let at = |name: &str| place.path().join(name).display().to_string();
    kiln.run(["key", "generate", "--output", &at("key")]).succeeded();
    let drv = file.display().to_string();
    let (key, output) = (at("key"), at("att"));
    let words =
        ["attest", "--json", &drv, "--key", &key, "--builder-id", "https://rb1.example.org/k", "--output", &output];
    let told = kiln.run(words).succeeded().json();
    let attestation = PathBuf::from(told["statements"][0]["file"].as_str().unwrap());
    drop(made);

    let other = derivation::with_builder(name).expect("it was there a moment ago");
    let report = rebuild(&other, &attestation).succeeded().json();
    fits("report", &report);
    assert_eq!(report["verdict"], "reproduced");
    let report = rebuild(&stranger(), &attestation).exits(4).json();
    let missing = report["rebuild"]["missing"].as_array().unwrap();
    assert!(missing[0]["what"].as_str().unwrap().contains(derivation::BUILDER), "{missing:?}");
    // A capsule of it has those sources.
    let capsule = at("x.capsule");
    other.run(["capsule", "create", attestation.to_str().unwrap(), "-o", &capsule]).succeeded();
    let report = rebuild(&stranger(), capsule.as_ref()).succeeded().json();
    assert_eq!(report["verdict"], "reproduced");
}

fn out(closed: &kiln_model::derivation::Closed) -> String {
    closed.derivation.outputs.values().next().unwrap().path().unwrap().to_string()
}
