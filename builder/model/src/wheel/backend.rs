//! Who wrote a wheel: the `Generator` of its `WHEEL`, and what must be installed so that the same program writes again.
//!
//! An unknown generator is nobody's fault: a wheel can be written by any program, and what cannot be had cannot be rebuilt.

/// A program that writes wheels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Program {
    /// flit, by its core.
    FlitCore,
    /// hatch, by its backend.
    Hatchling,
    /// poetry's core.
    PoetryCore,
    /// poetry itself, before its core was a package of its own.
    Poetry,
    /// setuptools 70.1 and later, which write wheels themselves.
    Setuptools,
    /// The package `wheel`, which setuptools called before.
    BdistWheel,
    /// pdm's backend.
    PdmBackend,
    /// pdm's backend under its former name.
    PdmPep517,
    /// uv's backend.
    UvBuild,
    /// meson's.
    MesonPython,
    /// scikit-build's.
    ScikitBuildCore,
    /// maturin: Rust.
    Maturin,
}

/// A program, at the version that wrote the reference.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Backend {
    /// Which.
    pub program: Program,
    /// Its version, as it wrote it.
    pub version: String,
}

/// Of each program: the first word of its `Generator`, and the project that is installed.
const PROGRAMS: [(Program, &str, &str); 13] = [
    (Program::FlitCore, "flit", "flit-core"),
    (Program::FlitCore, "flit_core", "flit-core"),
    (Program::Hatchling, "hatchling", "hatchling"),
    (Program::PoetryCore, "poetry-core", "poetry-core"),
    (Program::Poetry, "poetry", "poetry"),
    (Program::Setuptools, "setuptools", "setuptools"),
    (Program::BdistWheel, "bdist_wheel", "wheel"),
    (Program::PdmBackend, "pdm-backend", "pdm-backend"),
    (Program::PdmPep517, "pdm-pep517", "pdm-pep517"),
    (Program::UvBuild, "uv", "uv-build"),
    (Program::MesonPython, "meson", "meson-python"),
    (Program::ScikitBuildCore, "scikit-build-core", "scikit-build-core"),
    (Program::Maturin, "maturin", "maturin"),
];

impl Backend {
    /// The program that a `Generator` names: `flit 3.12.0`, `setuptools (84.0.0)`. `None` if it is not known, or
    /// says no version.
    pub fn of_generator(generator: &str) -> Option<Self> {
        let mut words = generator.split_whitespace();
        let (name, version) = (words.next()?, words.next()?);
        let version = version.strip_prefix('(').map_or(version, |rest| rest.trim_end_matches(')'));
        let plain = |c: char| c.is_ascii_alphanumeric() || "._+!-".contains(c);
        if !version.starts_with(|c: char| c.is_ascii_digit()) || !version.chars().all(plain) {
            return None;
        }
        let (program, ..) = PROGRAMS.iter().find(|(_, word, _)| *word == name)?;
        Some(Self { program: *program, version: version.into() })
    }

    /// Names that `Generator` is known to start with, for messages.
    pub fn known() -> Vec<&'static str> {
        PROGRAMS.iter().map(|(_, word, _)| *word).collect()
    }

    /// The normalised project that has the program.
    pub fn project(&self) -> &'static str {
        let found = PROGRAMS.iter().find(|(program, ..)| *program == self.program);
        found.expect("every program is in the table").2
    }

    /// Requirements (PEP 508) that bring exactly this program.
    pub fn requirements(&self) -> Vec<String> {
        let mut wanted = vec![format!("{}=={}", self.project(), self.version)];
        if self.program == Program::BdistWheel {
            // From 70.1 on setuptools has a command of that name of its own, which would write its own name.
            wanted.push("setuptools<70.1".into());
        }
        wanted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generators_name_program_and_version() {
        let of = |text: &str| Backend::of_generator(text).map(|b| b.requirements().join(", "));
        assert_eq!(of("flit 3.12.0").as_deref(), Some("flit-core==3.12.0"));
        assert_eq!(of("hatchling 1.32.0").as_deref(), Some("hatchling==1.32.0"));
        assert_eq!(of("setuptools (84.0.0)").as_deref(), Some("setuptools==84.0.0"));
        assert_eq!(of("bdist_wheel (0.42.0)").as_deref(), Some("wheel==0.42.0, setuptools<70.1"));
        assert_eq!(of("poetry-core 1.9.1").as_deref(), Some("poetry-core==1.9.1"));
        assert_eq!(of("setuptools (75.6.0.post20241203)").as_deref(), Some("setuptools==75.6.0.post20241203"));
    }

    #[test]
    fn an_unknown_program_or_no_version_is_none() {
        for text in ["", "flit", "mine 1.0", "flit latest", "flit (1;import os)", "setuptools ()", "flit 1@2"] {
            assert_eq!(Backend::of_generator(text), None, "{text}");
        }
    }
}
