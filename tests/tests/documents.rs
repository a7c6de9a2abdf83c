//! What `--json` prints is what docs/*.schema.json says, in success and in failure.

use kiln_tests::ground;
use kiln_tests::recipe::{self, Made};
use kiln_tests::run::Kiln;
use serde_json::Value;

fn schema(name: &str) -> Value {
    let path = ground::repository().join("docs").join(format!("{name}.schema.json"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).unwrap()
}

/// Holds `document` against the schema that it names.
#[track_caller]
fn valid(document: &Value) {
    let named = document["schema"].as_str().expect("every document has a schema field");
    let file = match named {
        "kiln/builds/v1" => "builds",
        "kiln/outcome/v1" => "outcome",
        "kiln/report/v1" | "kiln/reports/v1" => "report",
        other => panic!("{other} is described nowhere in docs/"),
    };
    let registry =
        jsonschema::Registry::new().add("urn:kiln:schema:outcome:v1", schema("outcome")).unwrap().prepare().unwrap();
    let root = schema(file);
    let validator = jsonschema::options().with_registry(&registry).build(&root).unwrap();
    let errors: Vec<String> = validator.iter_errors(document).map(|e| format!("{}: {e}", e.instance_path())).collect();
    assert!(errors.is_empty(), "{named}:\n{}\n{document:#}", errors.join("\n"));
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
fn a_page_is_written_beside_the_report_and_needs_no_network() {
    if !ground::has_files("a_page_is_written_beside_the_report_and_needs_no_network") {
        return;
    }
    let dir = ground::directory(ground::Ground::Disk);
    let page = dir.path().join("report.html");
    let recipe = recipe::shipped("zoo/tar_umask");
    Kiln::warm().run(["check".as_ref(), "--html".as_ref(), page.as_os_str(), recipe.as_os_str()]).exits(1);
    let html = std::fs::read_to_string(&page).unwrap();
    assert!(html.contains("diverged") && html.contains("umask"));
    for outside in ["<script", "<link", "src=\"http", "@import"] {
        assert!(!html.contains(outside), "the page has {outside:?}");
    }
}
