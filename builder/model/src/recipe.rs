//! A recipe: what an author wrote.
//!
//! [`Recipe::parse`] is the only way to one. It refuses unknown fields (naming the nearest known one and the line),
//! checks the licence as an SPDX expression, names as Nix takes them, and that every input says exactly one origin.
//! It knows nothing of digests that are not in the text: those are the lock's.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::name::{Name, Variable};
use crate::sbom::Party;

/// The only schema there is.
pub const SCHEMA: u32 = 1;

/// A parsed and checked recipe.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Recipe {
    /// Version of this format; [`SCHEMA`].
    pub schema: u32,
    /// Name of what is built; with the version it names the store path.
    pub name: Name,
    /// Version of what is built.
    pub version: Name,
    /// SPDX licence expression.
    pub license: String,
    /// One line for people.
    #[serde(default)]
    pub description: Option<String>,
    /// Who wrote the recipe, `Name <address>`: the author of what is said of its builds. Part of no build's identity.
    #[serde(default)]
    pub maintainer: Option<String>,
    /// Inputs by the variable under which the script finds them.
    #[serde(default)]
    pub inputs: BTreeMap<Variable, Input>,
    /// The root file system that the script runs in.
    pub environment: Environment,
    /// The build itself.
    pub build: Build,
    /// Files that are compared and published as files, by output: glob patterns relative to the output.
    #[serde(default)]
    pub artifacts: BTreeMap<Variable, Vec<String>>,
    /// Bounds on a build; not part of its identity.
    #[serde(default)]
    pub limits: Limits,
}

/// Where an input comes from. In the file each is told by its first field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "RawInput")]
pub enum Input {
    /// A source package of the environment's archive, all its files in one directory.
    DebianSource {
        /// Name of the source package.
        name: String,
        /// Exact version; the highest of the environment's suites if absent.
        version: Option<String>,
    },
    /// A file at an address, pinned by the author.
    Url {
        /// The address.
        url: String,
        /// Digest of the file.
        sha256: Digest,
        /// Name under which the file is found; the last part of the address if absent.
        file: Option<String>,
    },
    /// A release on the Python package index.
    Pypi {
        /// Project name.
        project: String,
        /// Exact version.
        version: String,
        /// Which of its files.
        file: PypiFile,
    },
    /// A commit of a git repository: its tree, without the history.
    Git {
        /// The repository.
        git: String,
        /// The commit, 40 hexadecimal digits.
        rev: String,
    },
    /// A file or directory beside the recipe.
    Path {
        /// Relative to the recipe's directory.
        path: String,
    },
    /// An output of another recipe.
    Recipe {
        /// That recipe's directory, relative to this one's.
        recipe: String,
        /// Which output.
        output: Variable,
    },
}

/// Which file of a Python release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PypiFile {
    /// The source distribution.
    Sdist,
    /// The wheel that runs on any machine (`py3-none-any`).
    Wheel,
}

/// The root file system of a build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Environment {
    /// Packages of a Debian archive.
    pub debian: Debian,
}

/// A Debian environment: suites and the packages asked for; the lock has the closure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Debian {
    /// Suites in order of preference at equal versions. One whose name ends in `-security` belongs to the archive
    /// `debian-security`, every other to `debian`.
    #[serde(rename = "suite", deserialize_with = "one_or_many")]
    pub suites: Vec<String>,
    /// Architecture; `amd64` if absent.
    #[serde(default = "amd64")]
    pub architecture: String,
    /// Packages, each as a dependency (`gcc`, `perl (>= 5.36)`); essential ones are always there.
    #[serde(default)]
    pub packages: Vec<String>,
    /// Source packages whose build dependencies are wanted too.
    #[serde(default)]
    pub build_dependencies_of: Vec<String>,
}

/// The build step.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Build {
    /// Names of the outputs, each a variable that holds a path the script must make.
    #[serde(default = "just_out")]
    pub outputs: BTreeSet<Variable>,
    /// Run by the environment's `/bin/sh -e` in an empty directory.
    pub script: String,
    /// Variables of the script. A variation never overrides what stands here.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// `SOURCE_DATE_EPOCH`, seconds since 1970; not set if absent.
    #[serde(default)]
    pub source_date_epoch: Option<u64>,
    /// Which users and groups have names.
    #[serde(default)]
    pub accounts: Accounts,
}

/// Which users and groups have names in a build. Ids other than its own are nobody's there, whatever they are called.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Accounts {
    /// Those of every build of Nix's: root, the build's own, nobody.
    #[default]
    Build,
    /// Those of the environment's own `/etc/passwd` and `/etc/group`, and after them of a build's what has another name.
    Environment,
}

impl Accounts {
    /// A passwd or group file of both, the environment's lines first.
    pub fn merged(environment: &[u8], build: &[u8]) -> Vec<u8> {
        let mut names = BTreeSet::new();
        let mut merged = Vec::new();
        for file in [environment, build] {
            for line in file.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                if names.insert(line.split(|byte| *byte == b':').next()) {
                    merged.extend_from_slice(line);
                    merged.push(b'\n');
                }
            }
        }
        merged
    }
}

/// Bounds on a build.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Limits {
    /// Wall clock, in seconds.
    #[serde(default)]
    pub deadline: Option<u64>,
    /// Bytes of log.
    #[serde(default)]
    pub log_bytes: Option<u64>,
}

/// Why a text is not a recipe. Lines count from 1.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{message}{}", line.map(|l| format!("line {l}: ")).unwrap_or_default(), nearest.as_ref().map(|n| format!("; did you mean {n:?}?")).unwrap_or_default())]
pub struct RecipeError {
    /// Where, if it is in one place.
    pub line: Option<usize>,
    /// What is wrong and what was expected.
    pub message: String,
    /// The known field nearest to an unknown one.
    pub nearest: Option<String>,
}

impl Recipe {
    /// A recipe from the text of a `recipe.toml`.
    pub fn parse(text: &str) -> Result<Self, RecipeError> {
        let recipe: Self = toml::from_str(text).map_err(|e| RecipeError::from_toml(text, &e))?;
        recipe.check().map_err(|message| RecipeError { line: None, message, nearest: None })?;
        Ok(recipe)
    }

    fn check(&self) -> Result<(), String> {
        if self.schema != SCHEMA {
            return Err(format!("schema {} is not known; this kiln reads schema {SCHEMA}", self.schema));
        }
        if let Err(e) = spdx::Expression::parse(&self.license) {
            return Err(format!(
                "license {:?} is not an SPDX expression ({}); write one such as \"GPL-3.0-or-later\"",
                self.license, e.reason
            ));
        }
        if let Some(maintainer) = &self.maintainer
            && (Party::maintainer(maintainer).is_none() || maintainer.contains(char::is_control))
        {
            return Err(format!("maintainer is {maintainer:?}; write one such as \"Ada Byron <ada@example.org>\""));
        }
        if self.build.outputs.is_empty() {
            return Err("build.outputs is empty; name at least one output, such as \"out\"".into());
        }
        for output in &self.build.outputs {
            if self.inputs.contains_key(output) {
                return Err(format!("{output} is both an input and an output; rename one"));
            }
            if self.build.env.contains_key(output.as_str()) {
                return Err(format!("build.env.{output} would hide the output of that name; rename one"));
            }
        }
        for name in self.inputs.keys() {
            if self.build.env.contains_key(name.as_str()) {
                return Err(format!("build.env.{name} would hide the input of that name; rename one"));
            }
        }
        for (key, value) in &self.build.env {
            if key.is_empty() || key.contains(['=', '\0']) || value.contains('\0') {
                return Err(format!("build.env.{key:?}: a variable's name has no '=' and neither part a NUL"));
            }
        }
        for output in self.artifacts.keys() {
            if !self.build.outputs.contains(output) {
                return Err(format!(
                    "artifacts.{output} names no output; build.outputs has {}",
                    list(&self.build.outputs)
                ));
            }
        }
        if self.environment.debian.suites.is_empty() {
            return Err("environment.debian.suite is empty; name a suite, such as \"bookworm\"".into());
        }
        Ok(())
    }

    /// The file's lines are 1-based; what a lock must match: a digest of the parts that pinning reads. A changed script
    /// leaves it alone.
    pub fn pins(&self) -> Digest {
        #[derive(Serialize)]
        struct Pinned<'a> {
            schema: u32,
            inputs: &'a BTreeMap<Variable, Input>,
            environment: &'a Environment,
        }
        let pinned = Pinned { schema: self.schema, inputs: &self.inputs, environment: &self.environment };
        Digest::of(serde_json::to_vec(&pinned).expect("strings and maps with string keys are always JSON"))
    }
}

fn list(names: &BTreeSet<Variable>) -> String {
    names.iter().map(Variable::as_str).collect::<Vec<_>>().join(", ")
}

impl RecipeError {
    /// `serde`'s message for an unknown field names it and the known ones between backticks; the nearest is offered.
    pub(crate) fn from_toml(text: &str, error: &toml::de::Error) -> Self {
        let line = error.span().map(|span| text[..span.start].matches('\n').count() + 1);
        let message = error.message().to_string();
        let quoted: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
        let nearest = match (message.starts_with("unknown field"), quoted.split_first()) {
            (true, Some((unknown, known))) => known
                .iter()
                .map(|k| (strsim::damerau_levenshtein(unknown, k), *k))
                .min()
                .filter(|(distance, _)| *distance <= 4)
                .map(|(_, k)| k.to_string()),
            _ => None,
        };
        Self { line, message, nearest }
    }
}

fn amd64() -> String {
    "amd64".into()
}

fn just_out() -> BTreeSet<Variable> {
    BTreeSet::from(["out".parse().expect("a variable")])
}

fn one_or_many<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "expected a suite or a list of suites")]
    enum Suites {
        One(String),
        Many(Vec<String>),
    }
    Ok(match Suites::deserialize(deserializer)? {
        Suites::One(suite) => vec![suite],
        Suites::Many(suites) => suites,
    })
}

/// An input as it stands in the file: all fields optional, so that the error can say which ones clash.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawInput {
    debian_source: Option<String>,
    version: Option<String>,
    url: Option<String>,
    sha256: Option<Digest>,
    file: Option<String>,
    pypi: Option<String>,
    git: Option<String>,
    rev: Option<String>,
    path: Option<String>,
    recipe: Option<String>,
    output: Option<Variable>,
}

impl TryFrom<RawInput> for Input {
    type Error = String;

    fn try_from(raw: RawInput) -> Result<Self, String> {
        let origins: Vec<&str> = [
            ("debian-source", raw.debian_source.is_some()),
            ("url", raw.url.is_some()),
            ("pypi", raw.pypi.is_some()),
            ("git", raw.git.is_some()),
            ("path", raw.path.is_some()),
            ("recipe", raw.recipe.is_some()),
        ]
        .into_iter()
        .filter_map(|(name, there)| there.then_some(name))
        .collect();
        let [origin] = origins[..] else {
            return Err(format!(
                "expected exactly one of debian-source, url, pypi, git, path, recipe; found {}",
                if origins.is_empty() { "none".into() } else { origins.join(" and ") }
            ));
        };
        // The fields that go with each origin; any other is a slip that must not pass in silence.
        let allowed: &[&str] = match origin {
            "debian-source" => &["version"],
            "url" => &["sha256", "file"],
            "pypi" => &["file"],
            "git" => &["rev"],
            "path" => &[],
            _ => &["output"],
        };
        for (field, there) in [
            ("version", raw.version.is_some()),
            ("sha256", raw.sha256.is_some()),
            ("file", raw.file.is_some()),
            ("rev", raw.rev.is_some()),
            ("output", raw.output.is_some()),
        ] {
            if there && !allowed.contains(&field) {
                return Err(format!("{field} does not go with {origin}"));
            }
        }
        Ok(if let Some(name) = raw.debian_source {
            Self::DebianSource { name, version: raw.version }
        } else if let Some(url) = raw.url {
            let sha256 = raw.sha256.ok_or("url needs sha256, the digest of the file")?;
            Self::Url { url, sha256, file: raw.file }
        } else if let Some(pypi) = raw.pypi {
            let (project, version) = pypi
                .split_once("==")
                .ok_or_else(|| format!("pypi {pypi:?} pins no version; write \"{pypi}==VERSION\""))?;
            let file = match raw.file.as_deref() {
                None | Some("sdist") => PypiFile::Sdist,
                Some("wheel") => PypiFile::Wheel,
                Some(other) => return Err(format!("file is {other:?}; expected \"sdist\" or \"wheel\"")),
            };
            Self::Pypi { project: project.trim().into(), version: version.trim().into(), file }
        } else if let Some(git) = raw.git {
            let rev = raw.rev.ok_or("git needs rev, a commit of 40 hexadecimal digits")?;
            if rev.len() != 40 || !rev.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(format!("rev is {rev:?}; expected a commit of 40 hexadecimal digits, not a branch or tag"));
            }
            Self::Git { git, rev: rev.to_ascii_lowercase() }
        } else if let Some(path) = raw.path {
            Self::Path { path }
        } else {
            let recipe = raw.recipe.expect("one origin was found above");
            Self::Recipe { recipe, output: raw.output.unwrap_or_else(|| "out".parse().expect("a variable")) }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HELLO: &str = r#"
schema = 1
name = "hello"
version = "2.10"
license = "GPL-3.0-or-later"

[inputs.src]
debian-source = "hello"

[environment]
debian = { suite = "bookworm", packages = ["build-essential"] }

[build]
script = "true"
"#;

    #[test]
    fn users_of_an_environment_come_first_and_a_name_is_one() {
        let environment = b"root:*:0:0:root:/root:/bin/bash\nman:*:6:12:man:/var/cache/man:/bin/sh\n\nlast:*:7:7::/:";
        let build = b"root:x:0:0:Nix build user:/build:/noshell\nnixbld:x:1000:100::/build:/noshell\n";
        let merged = String::from_utf8(Accounts::merged(environment, build)).unwrap();
        let expected = "root:*:0:0:root:/root:/bin/bash\nman:*:6:12:man:/var/cache/man:/bin/sh\nlast:*:7:7::/:\n\
                        nixbld:x:1000:100::/build:/noshell\n";
        assert_eq!(merged, expected);
        assert_eq!(Accounts::merged(b"", build), build);
    }

    #[test]
    fn the_documentation_s_recipe_has_every_field_and_parses() {
        let text = include_str!("../../../docs/recipe.md");
        let example = text.split("```").nth(1).and_then(|text| text.strip_prefix("toml\n")).unwrap();
        let recipe = Recipe::parse(example).unwrap();
        assert_eq!(recipe.inputs.len(), 6, "one of each kind");
        // No `..`: whoever adds a field is led here.
        let Build { outputs, script, env, source_date_epoch, accounts } = &recipe.build;
        assert!(outputs.len() == 2 && !script.is_empty() && !env.is_empty() && source_date_epoch.is_some());
        assert_eq!((*accounts, recipe.artifacts.len()), (Accounts::Build, 1));
        let Debian { suites, architecture, packages, build_dependencies_of } = &recipe.environment.debian;
        assert_eq!((suites.len(), &architecture[..], packages.len(), build_dependencies_of.len()), (2, "amd64", 2, 1));
        let Limits { deadline, log_bytes } = recipe.limits;
        assert!(
            deadline.is_some() && log_bytes.is_some() && recipe.maintainer.is_some() && recipe.description.is_some()
        );
    }

    #[test]
    fn the_sketch_parses() {
        let recipe = Recipe::parse(HELLO).unwrap();
        assert_eq!(recipe.environment.debian.suites, ["bookworm"]);
        assert_eq!(recipe.build.outputs.len(), 1);
        assert!(matches!(&recipe.inputs[&"src".parse().unwrap()], Input::DebianSource { name, .. } if name == "hello"));
    }

    #[test]
    fn an_unknown_field_is_refused_with_its_line_and_the_nearest_known_one() {
        let error = Recipe::parse(&HELLO.replace("script =", "scirpt =")).unwrap_err();
        assert_eq!(error.nearest.as_deref(), Some("script"));
        assert_eq!(error.line, Some(14));
        assert!(Recipe::parse(&HELLO.replace("schema = 1", "schema = 2")).is_err());
    }

    #[test]
    fn a_changed_script_keeps_the_pins_and_a_changed_package_does_not() {
        let pins = Recipe::parse(HELLO).unwrap().pins();
        assert_eq!(pins, Recipe::parse(&HELLO.replace("\"true\"", "\"false\"")).unwrap().pins());
        assert_ne!(pins, Recipe::parse(&HELLO.replace("build-essential", "gcc")).unwrap().pins());
    }

    #[test]
    fn inputs_with_two_origins_or_stray_fields_are_refused() {
        for (with, says) in [
            ("debian-source = \"hello\"\nurl = \"x\"", "exactly one"),
            ("url = \"x\"", "needs sha256"),
            ("pypi = \"idna\"", "pins no version"),
            ("git = \"x\"\nrev = \"main\"", "not a branch"),
            ("path = \"x\"\nrev = \"main\"", "does not go with path"),
            ("version = \"1\"", "found none"),
        ] {
            let error = Recipe::parse(&HELLO.replace("debian-source = \"hello\"", with)).unwrap_err();
            assert!(error.message.contains(says), "{with}: {error}");
        }
    }

    #[test]
    fn a_maintainer_has_a_name_and_does_not_move_the_pins() {
        let with = |line: &str| Recipe::parse(&HELLO.replace("\n[inputs.src]", &format!("{line}\n\n[inputs.src]")));
        let recipe = with("maintainer = \"Ada <ada@example.org>\"").unwrap();
        assert_eq!(recipe.pins(), Recipe::parse(HELLO).unwrap().pins());
        assert!(with("maintainer = \"\"").is_err());
    }

    #[test]
    fn a_licence_that_is_no_spdx_expression_is_refused() {
        assert!(Recipe::parse(&HELLO.replace("GPL-3.0-or-later", "GPLish")).is_err());
    }
}
