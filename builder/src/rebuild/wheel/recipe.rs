//! The recipe of one wheel: an environment with CPython, the sdist and the wheels of its build requirements as inputs, and a
//! script that calls the backend's hook.
//!
//! The same facts give the same text, and nothing in it names an index. What is quoted for the shell was checked to be
//! quotable when it was read.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use kiln_model::name;
use kiln_model::wheel::times::Epoch;

/// Calls the hook; run by the environment's Python.
const DRIVE: &str = include_str!("drive.py");

/// What a recipe is made of.
pub(super) struct Facts<'a> {
    /// Normalised project.
    pub(super) project: &'a str,
    /// Its version.
    pub(super) version: &'a str,
    /// Suites of the environment.
    pub(super) suites: &'a [String],
    /// Packages of the environment.
    pub(super) packages: &'a [String],
    /// The sdist's file name and its directory.
    pub(super) sdist: (&'a str, &'a str),
    /// Object with the hooks.
    pub(super) backend: &'a str,
    /// Directories of the source to find it in.
    pub(super) backend_path: &'a [String],
    /// Build requirements: project to version and file name.
    pub(super) requirements: &'a BTreeMap<String, (String, String)>,
    /// Requirements that the hook is known to name.
    pub(super) known: &'a [String],
    /// `SOURCE_DATE_EPOCH`.
    pub(super) epoch: Epoch,
    /// `TZ`.
    pub(super) zone: &'a str,
}

/// The variable of the sdist.
pub(super) const SOURCE: &str = "src";

/// The variable of a build requirement.
pub(super) fn variable(project: &str) -> String {
    let plain: String = project.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    format!("wheel_{plain}")
}

/// The text of the recipe that has the environment alone.
pub(super) fn environment(suites: &[String], packages: &[String]) -> String {
    let text = Toml(String::from("schema = 1\n"));
    text.field("name", "python").field("version", "1").field("license", "CC0-1.0").environment(suites, packages).0
        + "\n[build]\nscript = \"true\"\n"
}

/// The text of `recipe.toml`.
pub(super) fn text(facts: &Facts<'_>) -> String {
    let mut text = Toml(String::from("# Written by `kiln rebuild`.\nschema = 1\n"))
        .field("name", name::sanitised(facts.project).as_str())
        .field("version", name::sanitised(facts.version).as_str())
        .field("license", "LicenseRef-as-published")
        .environment(facts.suites, facts.packages);
    let mut input = |variable: &str, project: &str, version: &str, file: &str| {
        text.0.push_str(&format!("\n[inputs.{variable}]\n"));
        let release = format!("{project}=={version}");
        text = Toml(std::mem::take(&mut text.0)).field("pypi", &release).field("file", file);
    };
    input(SOURCE, facts.project, facts.version, "sdist");
    for (project, (version, _)) in facts.requirements {
        input(&variable(project), project, version, "wheel");
    }
    text.0.push_str("\n[build]\n");
    let mut text = text.field("script", &script(facts));
    if let Epoch::At(epoch) = facts.epoch {
        let _ = writeln!(text.0, "source-date-epoch = {epoch}");
    }
    text.0.push_str("\n[build.env]\n");
    let mut text = text.field("TZ", facts.zone);
    text.0.push_str("\n[artifacts]\nout = [\"*.whl\"]\n");
    text.0
}

fn script(facts: &Facts<'_>) -> String {
    let (sdist, directory) = facts.sdist;
    // The user's site is the one place in which wheels can be installed that Python looks into by itself, in children too.
    let mut script = String::from(
        "export PYTHONUSERBASE=\"$PWD/user\" PYTHONDONTWRITEBYTECODE=1\nexport PATH=\"$PYTHONUSERBASE/bin:$PATH\"\n\
         cat >drive.py <<'kiln-end-of-drive'\n",
    );
    script.push_str(DRIVE);
    script.push_str("kiln-end-of-drive\nexec python3 drive.py \\\n");
    let _ = writeln!(
        script,
        "  \"${SOURCE}\"/{} {} {} {} \\",
        quoted(sdist),
        quoted(directory),
        quoted(facts.backend),
        quoted(&facts.backend_path.join(","))
    );
    for (project, (_, file)) in facts.requirements {
        let _ = writeln!(script, "  \"${}\"/{} \\", variable(project), quoted(file));
    }
    let known: Vec<String> = facts.known.iter().map(|requirement| quoted(requirement)).collect();
    let _ = writeln!(script, "  -- {}", known.join(" "));
    script
}

/// A word of sh, whatever is in it.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// A TOML text that grows.
struct Toml(String);

impl Toml {
    fn field(mut self, key: &str, value: &str) -> Self {
        let _ = writeln!(self.0, "{key} = {}", toml::Value::from(value));
        self
    }

    fn environment(mut self, suites: &[String], packages: &[String]) -> Self {
        let list = |words: Vec<toml::Value>| toml::Value::Array(words);
        let suites = list(suites.iter().map(|suite| suite.as_str().into()).collect());
        let packages = list(packages.iter().map(|package| package.as_str().into()).collect());
        let _ = writeln!(self.0, "\n[environment]\ndebian = {{ suite = {suites}, packages = {packages} }}");
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiln_model::recipe::{Input, Recipe};

    fn facts<'a>(
        requirements: &'a BTreeMap<String, (String, String)>,
        [suites, packages]: [&'a [String]; 2],
    ) -> Facts<'a> {
        Facts {
            project: "more-itertools",
            version: "11.2.1",
            suites,
            packages,
            sdist: ("more_itertools-11.2.1.tar.gz", "more_itertools-11.2.1"),
            backend: "flit_core.buildapi",
            backend_path: &[],
            requirements,
            known: &[],
            epoch: Epoch::Unset,
            zone: "UTC",
        }
    }

    #[test]
    fn the_text_is_a_recipe_with_every_requirement_as_an_input() {
        let wheel = ("4.1.0".to_string(), "flit_core-4.1.0-py3-none-any.whl".to_string());
        let (requirements, suites) = (BTreeMap::from([("flit-core".to_string(), wheel)]), ["bookworm".to_string()]);
        let packages = ["python3".to_string(), "tzdata".to_string()];
        let recipe = Recipe::parse(&text(&facts(&requirements, [&suites, &packages]))).unwrap();
        let inputs: Vec<&str> = recipe.inputs.keys().map(|key| key.as_str()).collect();
        assert_eq!(inputs, ["src", "wheel_flit_core"]);
        assert!(matches!(&recipe.inputs.values().next(), Some(Input::Pypi { version, .. }) if version == "11.2.1"));
        assert!(recipe.build.script.contains("\"$wheel_flit_core\"/'flit_core-4.1.0-py3-none-any.whl'"));
        assert_eq!((recipe.build.source_date_epoch, recipe.build.env["TZ"].as_str()), (None, "UTC"));
        let at = Facts { epoch: Epoch::At(7), zone: "<-05>5", ..facts(&requirements, [&suites, &packages]) };
        let recipe = Recipe::parse(&text(&at)).unwrap();
        assert_eq!((recipe.build.source_date_epoch, recipe.build.env["TZ"].as_str()), (Some(7), "<-05>5"));
    }

    #[test]
    fn an_environment_alone_is_a_recipe() {
        let recipe = Recipe::parse(&environment(&["bookworm".into()], &["python3".into()])).unwrap();
        assert_eq!(recipe.environment.debian.packages, ["python3"]);
    }

    #[test]
    fn words_of_the_script_cannot_end_their_quotes() {
        assert_eq!(quoted("a'b $c"), "'a'\\''b $c'");
        assert!(!DRIVE.contains("kiln-end-of-drive"));
    }
}
