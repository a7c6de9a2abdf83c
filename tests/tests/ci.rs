//! The files for others' CI: their steps are taken from the YAML and run, so that they say what kiln does.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use kiln_model::envelope::Envelope;
use kiln_tests::ground::{self, Ground};
use kiln_tests::recipe::Made;
use kiln_tests::run::{Kiln, Ran};
use serde_json::Value;
use tempfile::TempDir;

/// A working directory with a recipe and a key.
struct Runner {
    place: TempDir,
    kiln: Kiln,
    recipe: Made,
    python: PathBuf,
}

type Words = BTreeMap<String, String>;

impl Runner {
    fn new(test: &str, recipe: impl FnOnce() -> Made) -> Option<Self> {
        if !ground::has_files(test) {
            return None;
        }
        let own = std::env::var_os("KILN_TEST_PYTHON").map(PathBuf::from);
        let python = own.unwrap_or_else(|| ground::repository().join("target/kiln-tests-python/bin/python3"));
        if !python.is_file() {
            ground::skipped(test, "no reader of YAML; scripts/setup --test installs it");
            return None;
        }
        let runner = Self { place: ground::directory(Ground::Disk), kiln: Kiln::warm(), recipe: recipe(), python };
        let key = runner.at("secret key").display().to_string();
        runner.kiln.run(["key", "generate", "--output", &key]).succeeded();
        Some(runner)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    fn yaml(&self, path: &str) -> Value {
        let mut read = Command::new(&self.python);
        read.args(["-I", "-c", "import json, sys, yaml; print(json.dumps(yaml.safe_load(open(sys.argv[1]))))"]);
        read.arg(ground::repository().join(path));
        Ran::of(read).succeeded().json()
    }

    /// As both runners start their shells.
    fn shell(&self, script: &str, variables: &Words) -> Ran {
        let mut bash = Command::new("bash");
        bash.args(["--noprofile", "--norc", "-eo", "pipefail", "-c", script]).env_clear();
        bash.env("PATH", std::env::var_os("PATH").unwrap()).env("HOME", self.kiln.home());
        bash.env("KILN_STORE", self.kiln.store()).envs(variables).current_dir(self.place.path());
        Ran::of(bash)
    }

    /// What the statements in `output` say, by kind.
    fn statements(&self, output: &str) -> Vec<String> {
        let mut results = Vec::new();
        for entry in fs::read_dir(self.at(output).join("attested")).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "json") {
                results.push(said(&path));
            }
        }
        results.sort_unstable();
        results
    }
}

/// The result of a comparison, or the kind of another statement.
fn said(path: &Path) -> String {
    let envelope: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    Envelope::parse(&fs::read(path).unwrap()).unwrap();
    let payload = envelope["payload"].as_str().unwrap();
    let statement: Value = serde_json::from_slice(&data_encoding::BASE64.decode(payload.as_bytes()).unwrap()).unwrap();
    let kind = statement["predicateType"].as_str().unwrap();
    statement["predicate"]["result"].as_str().unwrap_or(kind).to_owned()
}

/// The composite action, run step by step with these inputs. The exit code of the first step that fails.
fn github(runner: &Runner, given: &[(&str, &str)]) -> (Option<i32>, String) {
    let action = runner.yaml("ci/github/action.yml");
    assert_eq!(action["runs"]["using"], "composite");
    let mut inputs = Words::new();
    for (name, input) in action["inputs"].as_object().unwrap() {
        let value = given.iter().find(|(given, _)| given == name).map(|(_, value)| *value);
        let value = value.or(input["default"].as_str()).unwrap_or_else(|| panic!("input {name} is required"));
        assert_ne!((input["required"] == true, input.get("default").is_some()), (true, true), "{name}");
        inputs.insert(format!("inputs.{name}"), value.into());
    }
    assert!(given.iter().all(|(name, _)| inputs.contains_key(&format!("inputs.{name}"))));
    let (mut known, mut failed, mut told) = (inputs, None, String::new());
    let mut kept = false;
    for step in action["runs"]["steps"].as_array().unwrap() {
        let Some(script) = step["run"].as_str() else {
            assert_eq!(
                (&step["if"], step["uses"].as_str().map(|uses| uses.split_once('@').unwrap().0)),
                (&"always()".into(), Some("actions/upload-artifact"))
            );
            assert_eq!(step["with"]["path"], "${{ inputs.output }}");
            kept = true;
            continue;
        };
        if failed.is_some() {
            continue;
        }
        // What callers give comes in variables alone: it must not be taken for script.
        assert!(step["shell"] == "bash" && !script.contains("${{"), "{step:#}");
        let output = runner.at("github-output");
        fs::write(&output, "").unwrap();
        let mut variables = Words::from([("GITHUB_OUTPUT".to_owned(), output.display().to_string())]);
        for (name, value) in step["env"].as_object().unwrap() {
            let expression = value.as_str().unwrap().strip_prefix("${{ ").and_then(|rest| rest.strip_suffix(" }}"));
            variables
                .insert(name.clone(), known[expression.unwrap_or_else(|| panic!("{value} is no expression"))].clone());
        }
        let ran = runner.shell(script, &variables);
        told += &format!("{}{}", ran.stdout, ran.stderr);
        if ran.code() != Some(0) {
            failed = Some(ran.code());
        }
        for line in fs::read_to_string(&output).unwrap().lines() {
            let (name, value) = line.split_once('=').unwrap();
            known.insert(format!("steps.{}.outputs.{name}", step["id"].as_str().unwrap()), value.into());
        }
    }
    assert!(kept);
    let value = action["outputs"]["code"]["value"].as_str().unwrap();
    assert!(known.contains_key(value.trim_start_matches("${{ ").trim_end_matches(" }}")), "{value}");
    (failed.unwrap_or(Some(0)), told)
}

/// The inputs that have no default.
fn inputs(words: &[String; 3]) -> Vec<(&str, &str)> {
    let builder = ("builder-id", "https://ci.example.org/kiln");
    vec![("kiln", words[0].as_str()), ("recipes", &words[1]), ("key", &words[2]), builder]
}

fn words(runner: &Runner) -> [String; 3] {
    [ground::kiln(), runner.recipe.path().to_owned(), runner.at("secret key")].map(|path| path.display().to_string())
}

#[test]
fn the_action_checks_a_recipe_signs_what_it_saw_and_passes() {
    let name = "the_action_checks_a_recipe_signs_what_it_saw_and_passes";
    let Some(runner) = Runner::new(name, || Made::copy("greeting")) else { return };
    let words = words(&runner);
    let mut given = inputs(&words);
    given.push(("recipe-uri", "git+https://example.org/r@refs/tags/v1#recipes/greeting/recipe.toml"));
    let (code, told) = github(&runner, &given);
    assert_eq!(code, Some(0), "{told}");
    let said = runner.statements("kiln-output");
    assert!(said.contains(&"IDENTICAL".into()), "{said:?}");
    assert!(said.contains(&"https://slsa.dev/provenance/v1".into()), "{said:?}");
}

#[test]
fn the_action_signs_a_divergence_too_and_fails_then() {
    let name = "the_action_signs_a_divergence_too_and_fails_then";
    let Some(runner) = Runner::new(name, || Made::new(r#"umask >"$out""#)) else { return };
    let words = words(&runner);
    let mut given = inputs(&words);
    given.push(("output", "elsewhere"));
    let (code, told) = github(&runner, &given);
    assert_eq!(code, Some(1), "{told}");
    assert!(runner.statements("elsewhere").contains(&"DIFFERENT".into()), "{told}");
}

#[test]
fn the_action_signs_nothing_where_there_is_no_report() {
    let name = "the_action_signs_nothing_where_there_is_no_report";
    let Some(runner) = Runner::new(name, || Made::new("true")) else { return };
    let mut words = words(&runner);
    words[1].push_str("-absent");
    let (code, told) = github(&runner, &inputs(&words));
    assert_eq!(code, Some(2), "{told}");
    assert!(!runner.at("kiln-output/attested").exists());
}

#[test]
fn the_template_does_what_the_action_does() {
    let name = "the_template_does_what_the_action_does";
    let Some(runner) = Runner::new(name, || Made::new(r#"umask >"$out""#)) else { return };
    let template = runner.yaml("ci/gitlab/kiln.yml");
    let job = &template[".kiln"];
    assert_eq!((&job["artifacts"]["when"], &job["artifacts"]["paths"][0]), (&"always".into(), &"$KILN_OUTPUT".into()));
    let scripts: Vec<&str> = job["script"].as_array().unwrap().iter().map(|line| line.as_str().unwrap()).collect();
    let defaults = job["variables"].as_object().unwrap().iter();
    let mut variables: Words =
        defaults.map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned())).collect();
    let [kiln, recipes, key] = words(&runner);
    // As the runner leaves a variable of type "file".
    fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
    for (name, value) in [
        ("KILN", kiln),
        ("KILN_RECIPES", recipes),
        ("KILN_KEY", key),
        ("KILN_BUILDER_ID", "https://ci.example.org/k".into()),
    ] {
        variables.insert(name.into(), value);
    }
    let ran = runner.shell(&scripts.join("\n"), &variables);
    assert_eq!(ran.code(), Some(1), "{}{}", ran.stdout, ran.stderr);
    assert!(runner.statements("kiln-output").contains(&"DIFFERENT".into()), "{}", ran.stderr);
    variables.insert("KILN_RECIPES".into(), "absent".into());
    variables.insert("KILN_OUTPUT".into(), "second".into());
    assert_eq!(runner.shell(&scripts.join("\n"), &variables).code(), Some(2));
    assert!(!runner.at("second/attested").exists());
}
