//! A Debian source package as a recipe: built as official builders do, so far as that reaches the bytes.
//!
//! Pure: what the source, its changelog and the settings say goes in, the text of a `recipe.toml` comes out. The build
//! path, the locale, the user and the tools are those of the archive's builders; the clock is today's, the epoch that of
//! the newest changelog entry. Anything else that is asked for is a line of the text, and so part of the build's identity.
//!
//! `$out` holds the packages and dpkg's own `.buildinfo`, without the date of the build: an output does not tell the clock.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::version::Version;
use crate::name;

/// Where official builders unpack a source, below their build directory.
pub const PLACE: &str = "reproducible-path";
/// The user that official builders run as, and where that user has no home.
const USER: [(&str, &str); 4] =
    [("HOME", "/nonexistent"), ("LOGNAME", "builder"), ("SHELL", "/bin/sh"), ("USER", "builder")];
/// Official builders find games, too.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/usr/games";
/// What a derivation's builder is told and a package's build is not.
const HIDDEN: &str =
    "NIX_STORE NIX_BUILD_CORES NIX_BUILD_TOP NIX_LOG_FD TMPDIR TEMPDIR TMP TEMP TERM name system builder out src";

/// How a pretended root is had. Where one id is all there is, a real chown(2) fails with EINVAL, which fakeroot does not forgive;
/// it need not try (fakeroot(1)).
const FAKEROOT: &str = "env FAKEROOTDONTTRYCHOWN=1 fakeroot";

/// What is built, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceBuild {
    /// The source package.
    pub name: String,
    /// Its version.
    pub version: String,
    /// File name of its `.dsc`.
    pub dsc: String,
    /// Where its files are.
    pub input: SourceInput,
    /// Suites of the environment, in order of preference.
    pub suites: Vec<String>,
    /// Architecture of the environment.
    pub architecture: String,
    /// Packages that the environment has besides what the source asks for, each as a dependency.
    pub packages: BTreeSet<String>,
    /// Seconds since 1970 that the build takes for its date.
    pub epoch: Option<i64>,
    /// Words of `DEB_BUILD_OPTIONS` besides `parallel=N`.
    pub options: BTreeSet<String>,
    /// Further variables.
    pub variables: BTreeMap<String, String>,
    /// Entry that is put before the changelog: that of a binary-only rebuild.
    pub entry: Option<String>,
    /// Which of its packages are made.
    pub scope: Scope,
    /// Directory below the build directory that the source is unpacked to.
    pub place: String,
}

/// Which of a source's packages are made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// All.
    #[default]
    All,
    /// Those of an architecture.
    Dependent,
    /// Those of all architectures.
    Independent,
}

impl Scope {
    fn option(self) -> &'static str {
        match self {
            Self::All => "-b",
            Self::Dependent => "-B",
            Self::Independent => "-A",
        }
    }
}

/// Where a source's files are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceInput {
    /// In the archive, by its indices.
    Archive,
    /// Beside the recipe, in this directory; what it needs is in [`SourceBuild::packages`].
    Beside(String),
}

/// The directory that a source is unpacked to where official builders do it: name and upstream version.
pub fn place(name: &str, version: &str) -> String {
    format!("{PLACE}/{name}-{}", upstream(version))
}

/// A version without epoch and revision.
fn upstream(version: &str) -> &str {
    let version = without_epoch(version);
    version.rsplit_once('-').map_or(version, |(upstream, _)| upstream)
}

/// A version as file names have it.
pub fn without_epoch(version: &str) -> &str {
    version.split_once(':').map_or(version, |(_, rest)| rest)
}

/// The file name of a binary package.
pub fn deb_name(name: &str, version: &str, architecture: &str) -> String {
    format!("{name}_{}_{architecture}.deb", without_epoch(version))
}

/// Whether a version is that of a binary-only rebuild of `source`'s (`+bN`, Policy 5.6.12 in Developers' Reference 5.10.2.1).
pub fn is_binary_only(version: &str, source: &str) -> bool {
    binary_only(version).is_some_and(|(before, _)| binary_only(source).is_none() && Version::parse(before).is_ok())
}

/// A version before `+bN`, and N.
pub fn binary_only(version: &str) -> Option<(&str, u32)> {
    let (before, number) = version.rsplit_once("+b")?;
    let digits = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
    Some((before, digits.then(|| number.parse().ok())??))
}

impl SourceBuild {
    /// The text of the recipe.
    pub fn recipe(&self) -> String {
        let mut text =
            String::from("# Made by `kiln rebuild`: a published source package, built as official builders do.\n");
        let line = |text: &mut String, key: &str, value: &str| text.push_str(&format!("{key} = {}\n", quoted(value)));
        text.push_str("schema = 1\n");
        line(&mut text, "name", name::sanitised(&self.name).as_str());
        line(&mut text, "version", name::sanitised(&self.version).as_str());
        line(&mut text, "license", "LicenseRef-debian-copyright");
        line(&mut text, "description", &format!("Debian's source package {} {}", self.name, self.version));
        text.push_str("\n[inputs.src]\n");
        match &self.input {
            SourceInput::Archive => {
                line(&mut text, "debian-source", &self.name);
                line(&mut text, "version", &self.version);
            }
            SourceInput::Beside(path) => line(&mut text, "path", path),
        }
        text.push_str("\n[environment.debian]\n");
        let _ = writeln!(text, "suite = {}", list(&self.suites));
        line(&mut text, "architecture", &self.architecture);
        let _ = writeln!(text, "packages = {}", list(&self.packages));
        if self.input == SourceInput::Archive {
            let _ = writeln!(text, "build-dependencies-of = {}", list([&self.name]));
        }
        text.push_str("\n[build]\n");
        if let Some(epoch) = self.epoch.and_then(|epoch| u64::try_from(epoch).ok()) {
            text.push_str("# The date of the newest entry of the changelog.\n");
            let _ = writeln!(text, "source-date-epoch = {epoch}");
        }
        text.push_str("accounts = \"environment\"\n");
        let _ = writeln!(text, "script = '''\n{}'''", self.script());
        text.push_str("\n[build.env]\n");
        let mut variables: BTreeMap<&str, &str> = USER.into_iter().chain([("PATH", PATH)]).collect();
        if let Some(entry) = &self.entry {
            variables.insert("kiln_changelog_entry", entry);
        }
        variables.extend(self.variables.iter().map(|(key, value)| (key.as_str(), value.as_str())));
        for (key, value) in variables {
            line(&mut text, key, value);
        }
        text.push_str("\n[artifacts]\nout = [\"*_*\"]\n");
        text
    }

    fn script(&self) -> String {
        let place = shell(&self.place);
        let dsc = shell(&self.dsc);
        let mut script = format!(
            "top=$PWD\ntree=\"$top\"/{place}\nmkdir -p \"${{tree%/*}}\"\ncd \"${{tree%/*}}\"\n\
             dpkg-source -x \"$src\"/{dsc} \"$tree\"\ncd \"$tree\"\n"
        );
        if self.entry.is_some() {
            script.push_str(
                "{ printf '%s\\n' \"$kiln_changelog_entry\"; cat debian/changelog; } > ../changelog.with-entry\n\
                 cat ../changelog.with-entry > debian/changelog\nrm ../changelog.with-entry\n",
            );
        }
        let scope = self.scope.option();
        let options: Vec<&str> = self.options.iter().map(String::as_str).collect();
        let options = options.iter().fold(String::new(), |all, word| format!("{all} {word}"));
        let _ = writeln!(script, "DEB_BUILD_OPTIONS=\"parallel=$NIX_BUILD_CORES{options}\"\nexport DEB_BUILD_OPTIONS");
        let hidden: String = HIDDEN.split(' ').chain(["kiln_changelog_entry"]).map(|v| format!(" -u {v}")).collect();
        let _ = writeln!(script, "env{hidden} \\\n  dpkg-buildpackage -us -uc {scope} -r'{FAKEROOT}'");
        script.push_str(
            "mkdir \"$out\"\nfor file in ../*.deb ../*.udeb ../*.buildinfo; do\n  \
             if [ -f \"$file\" ]; then cp \"$file\" \"$out\"/; fi\ndone\n\
             # An output does not tell the clock.\nsed -i '/^Build-Date: /d' \"$out\"/*.buildinfo\n",
        );
        script
    }
}

/// Text that every shell takes as one word: versions and names have nothing that needs quoting, and what does is quoted.
fn shell(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"+-._/:=%@".contains(&b);
    match !text.is_empty() && text.bytes().all(plain) {
        true => text.into(),
        false => format!("'{}'", text.replace('\'', "'\\''")),
    }
}

fn list<T: AsRef<str>>(words: impl IntoIterator<Item = T>) -> String {
    let words: Vec<String> = words.into_iter().map(|word| quoted(word.as_ref())).collect();
    format!("[{}]", words.join(", "))
}

/// A TOML string.
fn quoted(text: &str) -> String {
    toml::Value::String(text.into()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::{Input, Recipe};

    fn cowsay() -> SourceBuild {
        SourceBuild {
            name: "cowsay".into(),
            version: "1:3.03+dfsg2-8~x".into(),
            dsc: "cowsay_3.03+dfsg2-8~x.dsc".into(),
            input: SourceInput::Archive,
            suites: vec!["bookworm".into(), "bookworm-security".into()],
            architecture: "amd64".into(),
            packages: BTreeSet::from(["fakeroot".to_string(), "perl (= 5.36.0-7+deb12u3)".to_string()]),
            epoch: Some(1_589_200_000),
            options: BTreeSet::from(["notrimdch".to_string()]),
            variables: BTreeMap::new(),
            entry: None,
            scope: Scope::All,
            place: place("cowsay", "1:3.03+dfsg2-8~x"),
        }
    }

    #[test]
    fn the_recipe_of_a_source_is_a_recipe_and_says_what_was_asked_for() {
        let build = cowsay();
        let recipe = Recipe::parse(&build.recipe()).unwrap();
        assert_eq!((recipe.name.as_str(), recipe.version.as_str()), ("cowsay", "1-3.03+dfsg2-8-x"));
        assert_eq!(recipe.build.source_date_epoch, Some(1_589_200_000));
        assert!(recipe.build.script.contains("parallel=$NIX_BUILD_CORES notrimdch\""), "{}", recipe.build.script);
        assert!(recipe.build.script.contains("/reproducible-path/cowsay-3.03+dfsg2"));
        assert!(recipe.build.script.contains("dpkg-buildpackage -us -uc -b -r"));
        assert_eq!(recipe.environment.debian.build_dependencies_of, ["cowsay"]);
        let src = &recipe.inputs[&"src".parse().unwrap()];
        assert!(matches!(src, Input::DebianSource { version: Some(v), .. } if v == "1:3.03+dfsg2-8~x"));
        assert_eq!(recipe.build.env["HOME"], "/nonexistent");
    }

    #[test]
    fn a_binary_only_rebuild_has_the_entry_to_the_byte() {
        let entry =
            "cowsay (1) stable; urgency=low, binary-only=yes\n\n  * Rebuild for '''$x\"\\\n\n -- b <b@c>  Mon\n";
        let build = SourceBuild { entry: Some(entry.into()), scope: Scope::Dependent, ..cowsay() };
        let recipe = Recipe::parse(&build.recipe()).unwrap();
        assert_eq!(recipe.build.env["kiln_changelog_entry"], entry);
        assert!(recipe.build.script.contains("dpkg-buildpackage -us -uc -B -r"));
    }

    #[test]
    fn a_source_beside_the_recipe_brings_its_needs_itself() {
        let build = SourceBuild { input: SourceInput::Beside("source".into()), ..cowsay() };
        let recipe = Recipe::parse(&build.recipe()).unwrap();
        assert!(recipe.environment.debian.build_dependencies_of.is_empty());
        assert!(matches!(&recipe.inputs[&"src".parse().unwrap()], Input::Path { path } if path == "source"));
    }

    #[test]
    fn binary_only_versions_are_told_from_others() {
        assert!(is_binary_only("1:2.66-4+deb12u3+b1", "1:2.66-4+deb12u3"));
        assert!(is_binary_only("4:12.2.0-3+b2", "1.203"));
        assert!(!is_binary_only("1:2.66-4+deb12u3", "1:2.66-4+deb12u3"));
        assert!(!is_binary_only("2.10-3+b", "2.10-3") && !is_binary_only("1+b1", "1+b1"));
        assert_eq!(deb_name("a", "1:2+b1", "all"), "a_2+b1_all.deb");
        assert_eq!(place("native", "37~deb12u1"), "reproducible-path/native-37~deb12u1");
    }

    #[test]
    fn the_bytes_of_a_recipe_do_not_move() {
        let digest = crate::digest::Digest::of(cowsay().recipe()).to_string();
        assert_eq!(digest, "6e3cfc47524cbd7a0abf8077a5cc636bb01c2f023c884eb90cc6f88a37a248cd");
    }
}
