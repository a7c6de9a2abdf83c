//! A wheel's file name: `{distribution}-{version}[-{build}]-{python}-{abi}-{platform}.whl` (PEP 427), with compressed sets of
//! tags (PEP 425).
//!
//! Parsing refuses what a file name cannot be; which machine a wheel runs on is decided by its tags alone.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

/// The largest file name that any file system takes.
const LONGEST: usize = 255;

/// The parts of a wheel's file name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct WheelName {
    /// Project as the name spells it; not normalised.
    pub distribution: String,
    /// Version as the name spells it.
    pub version: String,
    /// Build number, if there is one; starts with a digit.
    pub build: Option<String>,
    /// Interpreters: `py3`, `cp311`.
    pub python: Vec<String>,
    /// Interfaces: `none`, `abi3`, `cp311`.
    pub abi: Vec<String>,
    /// Machines: `any`, `manylinux_2_17_x86_64`.
    pub platform: Vec<String>,
}

/// Why a text is not a wheel's file name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{found:?} is not a wheel's file name: {why}; expected NAME-VERSION-PYTHON-ABI-PLATFORM.whl")]
pub struct WheelNameError {
    /// The text as given.
    pub found: String,
    /// What is wrong with it.
    pub why: &'static str,
}

/// A machine with CPython, as far as tags speak of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// Minor version of CPython 3.
    pub minor: u32,
    /// Architecture as in tags: `x86_64`.
    pub architecture: String,
    /// Minor version of glibc 2.
    pub glibc: u32,
}

/// How well a wheel suits a machine; an installer takes the greatest, the most special one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fit {
    /// Runs anywhere.
    Anywhere,
    /// Runs on this machine under any Python.
    AnyPython,
    /// Compiled for any CPython from some version on.
    StableInterface,
    /// Compiled for this CPython and no other.
    Interpreter,
}

impl WheelName {
    /// Whether it runs on any machine.
    pub fn is_pure(&self) -> bool {
        self.abi.iter().any(|tag| tag == "none") && self.platform.iter().any(|tag| tag == "any")
    }

    /// Every single tag of the compressed sets, as `WHEEL` lists them.
    pub fn tags(&self) -> BTreeSet<String> {
        let mut tags = BTreeSet::new();
        for python in &self.python {
            for abi in &self.abi {
                tags.extend(self.platform.iter().map(|platform| format!("{python}-{abi}-{platform}")));
            }
        }
        tags
    }

    /// How well it suits `machine`; `None` if it does not run there.
    pub fn fit(&self, machine: &Machine) -> Option<Fit> {
        let own = format!("cp3{}", machine.minor);
        let has = |tags: &[String], wanted: &str| tags.iter().any(|tag| tag == wanted);
        let python3 = |tag: &String| tag == "py3" || minor(tag, "py3").is_some_and(|minor| minor <= machine.minor);
        if self.is_pure() {
            return self.python.iter().any(|tag| python3(tag) || *tag == own).then_some(Fit::Anywhere);
        }
        if !self.platform.iter().any(|tag| tag == "any" || runs_on(tag, machine)) {
            return None;
        }
        let earlier = |tag: &String| minor(tag, "cp3").is_some_and(|minor| minor <= machine.minor);
        if has(&self.python, &own) && (has(&self.abi, &own) || has(&self.abi, "none")) {
            return Some(Fit::Interpreter);
        }
        if has(&self.abi, "abi3") && self.python.iter().any(earlier) {
            return Some(Fit::StableInterface);
        }
        // Programs in wheels' clothing: any Python, one machine.
        (has(&self.abi, "none") && self.python.iter().any(python3)).then_some(Fit::AnyPython)
    }
}

fn minor(tag: &str, prefix: &str) -> Option<u32> {
    tag.strip_prefix(prefix)?.parse().ok()
}

/// `manylinux_2_X_ARCH` (PEP 600) and the names it had before; musl's are not asked for.
fn runs_on(platform: &str, machine: &Machine) -> bool {
    let Some(rest) = platform.strip_suffix(&machine.architecture).and_then(|p| p.strip_suffix('_')) else {
        return false;
    };
    match rest {
        "linux" | "manylinux1" | "manylinux2010" | "manylinux2014" => true,
        rest => minor(rest, "manylinux_2_").is_some_and(|minor| minor <= machine.glibc),
    }
}

impl FromStr for WheelName {
    type Err = WheelNameError;

    fn from_str(text: &str) -> Result<Self, WheelNameError> {
        let refuse = |why| Err(WheelNameError { found: text.chars().take(LONGEST).collect(), why });
        if text.len() > LONGEST {
            return refuse("too long");
        }
        let Some(stem) = text.strip_suffix(".whl") else { return refuse("does not end in .whl") };
        let allowed = |c: char| c.is_alphanumeric() || "._-+!".contains(c);
        if !stem.chars().all(allowed) {
            return refuse("has characters other than letters, digits and . _ - + !");
        }
        let parts: Vec<&str> = stem.split('-').collect();
        if parts.iter().any(|part| part.is_empty()) {
            return refuse("has an empty part");
        }
        let (build, tags) = match parts.len() {
            5 => (None, &parts[2..]),
            6 => (Some(parts[2].to_string()), &parts[3..]),
            _ => return refuse("has not five or six parts"),
        };
        if build.as_ref().is_some_and(|build| !build.starts_with(|c: char| c.is_ascii_digit())) {
            return refuse("has a build number that does not start with a digit");
        }
        let set = |text: &str| text.split('.').map(str::to_string).collect::<Vec<_>>();
        let (python, abi, platform) = (set(tags[0]), set(tags[1]), set(tags[2]));
        if [&python, &abi, &platform].iter().any(|set| set.iter().any(String::is_empty)) {
            return refuse("has an empty tag");
        }
        Ok(Self { distribution: parts[0].into(), version: parts[1].into(), build, python, abi, platform })
    }
}

impl fmt::Display for WheelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.distribution, self.version)?;
        if let Some(build) = &self.build {
            write!(f, "-{build}")?;
        }
        write!(f, "-{}-{}-{}.whl", self.python.join("."), self.abi.join("."), self.platform.join("."))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn machine() -> Machine {
        Machine { minor: 11, architecture: "x86_64".into(), glibc: 36 }
    }

    fn fit(name: &str) -> Option<Fit> {
        name.parse::<WheelName>().unwrap().fit(&machine())
    }

    #[test]
    fn the_parts_are_told_apart_with_and_without_a_build_number() {
        let name: WheelName =
            "tomli-2.5.0-7a-cp311-cp311-manylinux2014_x86_64.manylinux_2_28_x86_64.whl".parse().unwrap();
        assert_eq!(
            (name.distribution.as_str(), name.version.as_str(), name.build.as_deref()),
            ("tomli", "2.5.0", Some("7a"))
        );
        assert_eq!(name.tags().len(), 2);
        assert!(!name.is_pure());
        let pure: WheelName = "six-1.17.0-py2.py3-none-any.whl".parse().unwrap();
        assert_eq!(pure.tags().into_iter().collect::<Vec<_>>(), ["py2-none-any", "py3-none-any"]);
        assert!(pure.is_pure());
    }

    #[test]
    fn what_is_no_file_name_of_a_wheel_is_refused() {
        for bad in [
            "idna-3.7.tar.gz",
            "idna.whl",
            "idna-3.7-py3-none.whl",
            "idna--3.7-py3-none-any.whl",
            "../idna-3.7-py3-none-any.whl",
            "idna-3.7-x-py3-none-any.whl",
            "idna-3.7-py3.-none-any.whl",
            "a-b-c-d-e-f-g.whl",
            "idna-3.7-py3-none-any.whl\n",
        ] {
            assert!(bad.parse::<WheelName>().is_err(), "{bad}");
        }
        assert!(format!("{}-1-py3-none-any.whl", "a".repeat(300)).parse::<WheelName>().is_err());
    }

    #[test]
    fn tags_decide_which_machine_a_wheel_runs_on() {
        assert_eq!(fit("a-1-py3-none-any.whl"), Some(Fit::Anywhere));
        assert_eq!(fit("a-1-py2.py3-none-any.whl"), Some(Fit::Anywhere));
        assert_eq!(fit("a-1-py2-none-any.whl"), None);
        assert_eq!(fit("a-1-py312-none-any.whl"), None);
        assert_eq!(fit("a-1-cp311-cp311-manylinux_2_17_x86_64.whl"), Some(Fit::Interpreter));
        assert_eq!(fit("a-1-cp311-cp311-manylinux_2_38_x86_64.whl"), None);
        assert_eq!(fit("a-1-cp311-cp311-musllinux_1_2_x86_64.whl"), None);
        assert_eq!(fit("a-1-cp311-cp311-manylinux2014_aarch64.whl"), None);
        assert_eq!(fit("a-1-cp312-cp312-manylinux2014_x86_64.whl"), None);
        assert_eq!(fit("a-1-cp38-abi3-manylinux2014_x86_64.whl"), Some(Fit::StableInterface));
        assert_eq!(fit("a-1-cp312-abi3-manylinux2014_x86_64.whl"), None);
        assert_eq!(fit("a-1-py3-none-manylinux_2_17_x86_64.whl"), Some(Fit::AnyPython));
        assert_eq!(fit("a-1-py3-none-win_amd64.whl"), None);
        assert!(Fit::Interpreter > Fit::StableInterface && Fit::AnyPython > Fit::Anywhere);
    }

    proptest! {
        #[test]
        fn a_printed_name_parses_back(
            distribution in "[A-Za-z][A-Za-z0-9_.]{0,8}", version in "[0-9][0-9a-z.+!]{0,6}",
            build in proptest::option::of("[0-9][0-9a-z]{0,3}"),
            tags in proptest::collection::vec("[a-z][a-z0-9_]{0,6}", 3),
        ) {
            let set = |at: usize| vec![tags[at].clone(), "x".to_string()];
            let name = WheelName { distribution, version, build, python: set(0), abi: set(1), platform: set(2) };
            prop_assert_eq!(name.to_string().parse::<WheelName>(), Ok(name));
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,40}") {
            let _ = text.parse::<WheelName>();
        }
    }
}
