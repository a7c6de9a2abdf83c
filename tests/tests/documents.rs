//! What `--json` prints is what docs/*.schema.json says, in success and in failure.

use std::collections::BTreeSet;
use std::fs;

use kiln_tests::ground::{self, Ground};
use kiln_tests::recipe::{self, Made};
use kiln_tests::run::{Kiln, Ran};
use kiln_tests::schema::fits;
use serde_json::Value;

/// Holds `document` against the schema that it names.
#[track_caller]
fn valid(document: &Value) {
    let named = document["schema"].as_str().expect("every document has a schema field");
    let file = match named {
        "kiln/builds/v1" => "builds",
        "kiln/outcome/v1" => "outcome",
        "kiln/report/v1" | "kiln/reports/v1" => "report",
        "kiln/store/v1" => "store",
        "kiln/published/v1" => "published",
        "kiln/locks/v1" => "locks",
        "kiln/attested/v1" => "attested",
        other => panic!("{other} is described nowhere in docs/"),
    };
    fits(file, document);
}

fn document(arguments: &[&str], made: &Made) -> Value {
    let path = made.path().display().to_string();
    Kiln::warm().run(arguments.iter().copied().chain(["--json", &path])).json()
}

#[test]
fn a_build_prints_outcomes_that_fit_their_schema() {
    if !ground::has_files("a_build_prints_outcomes_that_fit_their_schema") {
        return;
    }
    let odd = Made::new(r#"mkdir "$out"; touch "$out/$(printf '\377\t')"; ln -s x "$out/link""#);
    valid(&document(&["build"], &odd));
    valid(&document(&["build"], &odd));
    let failing = document(&["build"], &Made::new("printf 'no\\377'; exit 1"));
    assert_eq!(failing["builds"][0]["status"], "failed");
    valid(&failing);
}

#[test]
fn what_was_signed_is_told_as_its_schema_says() {
    if !ground::has_files("what_was_signed_is_told_as_its_schema_says") {
        return;
    }
    let (kiln, made) = (Kiln::warm(), Made::new("echo made > $out"));
    let place = ground::directory(Ground::Disk);
    let [key, output] = ["key", "out"].map(|name| place.path().join(name).display().to_string());
    let path = made.path().display().to_string();
    kiln.run(["build", &path]).succeeded();
    kiln.run(["key", "generate", "--output", &key]).succeeded();
    let builder = "https://rb1.example.org/kiln/sandboxed";
    valid(&kiln.run(["attest", &path, "--key", &key, "--builder-id", builder, "--output", &output, "--json"]).json());
}

#[test]
fn a_check_prints_a_report_that_fits_its_schema() {
    if !ground::has_files("a_check_prints_a_report_that_fits_its_schema") {
        return;
    }
    valid(&document(&["check"], &Made::new(r#"echo same >"$out""#)));
    valid(&document(&["check"], &Made::new(r#"mkdir "$out"; umask >"$out/a"; touch "$out/$(id -u)""#)));
    valid(&document(&["check"], &Made::new("exit 1")));
}

#[test]
fn a_check_of_several_recipes_prints_one_document_with_their_reports() {
    if !ground::has_files("a_check_of_several_recipes_prints_one_document_with_their_reports") {
        return;
    }
    let (same, other) = (Made::new(r#"echo same >"$out""#), Made::new(r#"umask >"$out""#));
    let paths = [same.path().as_os_str(), other.path().as_os_str()];
    let ran = Kiln::warm().run(["check".as_ref(), "--json".as_ref()].into_iter().chain(paths)).exits(1);
    let document = ran.json();
    valid(&document);
    let verdicts: Vec<&str> =
        document["reports"].as_array().unwrap().iter().map(|r| r["verdict"].as_str().unwrap()).collect();
    assert_eq!(verdicts, ["reproduced", "diverged"]);
}

#[test]
fn whatever_is_asked_of_the_store_is_answered_in_a_document_that_fits_its_schema() {
    let kiln = Kiln::fresh(Ground::Disk);
    let made = ground::directory(Ground::Disk);
    let file = made.path().join("file");
    fs::write(&file, "bytes\n").unwrap();
    let asked = |words: &[&str]| {
        let document = kiln.run(["--json", "store"].iter().chain(words)).json();
        valid(&document);
        document
    };
    let added = asked(&["add", file.to_str().unwrap()]);
    let path = added["path"]["path"].as_str().unwrap();
    assert_eq!(asked(&["info", path]), added);
    assert_eq!(asked(&["ls"])["paths"], serde_json::json!([added["path"]]));
    assert!(asked(&["where", path])["where"].as_str().unwrap().ends_with(path));
    assert_eq!(asked(&["query", "closure", path])["paths"], serde_json::json!([path]));
    for question in ["references", "referrers", "deriver"] {
        assert_eq!(asked(&["query", question, path])["paths"], serde_json::json!([]));
    }
    assert_eq!(asked(&["query", "roots"])["paths"], serde_json::json!([]));
    assert_eq!(asked(&["verify"])["verified"]["problems"], serde_json::json!([]));

    // Out of the store and into another one: by a cache, and by a stream.
    let secret = made.path().join("key");
    let words = ["key".as_ref(), "generate".as_ref(), "a-1".as_ref(), "--output".as_ref(), secret.as_os_str()];
    let public = kiln.run(words).succeeded().stdout;
    let cache = made.path().join("cache").display().to_string();
    let key = secret.display().to_string();
    let publish =
        || kiln.run(["publish", "--json", "--nix-cache", "--to", &cache, "--key", &key, path]).succeeded().json();
    let (first, second) = (publish(), publish());
    valid(&first);
    valid(&second);
    assert_eq!((&first["added"], &second["kept"]), (&1.into(), &1.into()));
    let other = Kiln::fresh(Ground::Disk);
    let words =
        ["--json", "store", "substitute", "--substituters", &cache, "--trusted-public-keys", public.trim_end(), path];
    let brought = other.run(words).succeeded().json();
    valid(&brought);
    assert_eq!(brought["paths"][0]["substituted"], serde_json::json!({ "from": cache, "signed_by": "a-1" }));
    let stream = made.path().join("stream");
    fs::write(&stream, kiln.command(["store", "export", path]).output().unwrap().stdout).unwrap();
    let third = Kiln::fresh(Ground::Disk);
    let mut command = third.command(["--json", "store", "import"]);
    command.stdin(fs::File::open(&stream).unwrap());
    let imported = Ran::of(command).succeeded().json();
    valid(&imported);
    assert_eq!(imported["paths"][0]["path"], path);

    let tree = other.store().join(path.trim_start_matches('/'));
    std::process::Command::new("chmod").arg("u+w").arg(&tree).status().unwrap();
    fs::write(&tree, "other\n").unwrap();
    let verified = other.run(["--json", "store", "verify"]).exits(6).json();
    valid(&verified);
    assert_eq!(verified["verified"]["problems"].as_array().unwrap().len(), 1);
    assert_eq!(asked(&["gc"])["collected"]["paths"], serde_json::json!([path]));
}

#[test]
fn what_lock_changed_is_told_in_a_document_that_fits_its_schema() {
    if !ground::has_files("what_lock_changed_is_told_in_a_document_that_fits_its_schema") {
        return;
    }
    let recipe = Made::copy("greeting");
    let path = recipe.path().display().to_string();
    let lock = |more: &[&str]| {
        let ran =
            Kiln::warm().run(["lock", "--json", "--only", "src"].iter().chain(more).copied().chain([path.as_str()]));
        let document = ran.json();
        valid(&document);
        (ran.code(), document["changed"].as_array().unwrap().len())
    };
    assert_eq!(lock(&[]), (Some(0), 0));
    recipe.write("src/more", "a file more\n");
    assert_eq!(lock(&["--check"]), (Some(1), 1));
    assert_eq!(lock(&[]), (Some(0), 1));
    assert_eq!(lock(&["--check"]), (Some(0), 0));
}

#[test]
fn every_document_that_kiln_prints_has_a_schema() {
    let mut named = BTreeSet::new();
    let mut open = ["builder/src", "builder/model/src"].map(|path| ground::repository().join(path)).to_vec();
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            named.extend(text.split("\"kiln/").skip(1).filter_map(|rest| {
                let (name, version) = rest.split('"').next()?.split_once('/')?;
                (version == "v1").then(|| name.to_owned())
            }));
        }
    }
    assert!(named.len() >= 9, "{named:?}");
    let described: Vec<String> = fs::read_dir(ground::repository().join("docs"))
        .unwrap()
        .map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap_or_default())
        .collect();
    for name in named {
        let schema = format!("\"kiln/{name}/v1\"");
        assert!(described.iter().any(|text| text.contains(&schema)), "{schema} is described nowhere in docs/");
    }
}

#[test]
fn a_page_is_written_beside_the_report_and_needs_no_network() {
    if !ground::has_files("a_page_is_written_beside_the_report_and_needs_no_network") {
        return;
    }
    let dir = ground::directory(Ground::Disk);
    let page = dir.path().join("report.html");
    let recipe = recipe::shipped("zoo/tar_umask");
    Kiln::warm().run(["check".as_ref(), "--html".as_ref(), page.as_os_str(), recipe.as_os_str()]).exits(1);
    let html = std::fs::read_to_string(&page).unwrap();
    assert!(html.contains("diverged") && html.contains("umask"));
    for outside in ["<script", "<link", "src=\"http", "@import"] {
        assert!(!html.contains(outside), "the page has {outside:?}");
    }
}
