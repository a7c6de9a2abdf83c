//! What is to be rebuilt, as it is named on the command line.
//!
//! A published package by archive and name, a file that stands for one, or the directory of an earlier rebuild. Parsing looks
//! at the text alone, never at a disk: whether the file is what its name says is found out when it is opened.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use kiln_model::debian::version::{Version, VersionError};

/// Something that was published, and can be rebuilt.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// `debian:NAME[=VERSION]`: a source or binary package of the archive.
    Debian {
        /// Its name.
        name: String,
        /// Its version, or that of its source; the highest if absent.
        version: Option<String>,
    },
    /// `FILE.dsc`: a source package on disk.
    Dsc(PathBuf),
    /// `FILE.deb`: a binary package on disk, which is the reference.
    Deb(PathBuf),
    /// `FILE.buildinfo`: what a builder recorded of a build.
    Buildinfo(PathBuf),
    /// `pypi:NAME[==VERSION]`: a release on the Python package index.
    Pypi {
        /// The project's name as given.
        project: String,
        /// Its version; the highest that is no pre-release if absent.
        version: Option<String>,
    },
    /// `FILE.whl`: a wheel on disk, which is the reference.
    Wheel(PathBuf),
    /// A directory that an earlier rebuild left: the same is done again, from what was pinned then.
    Earlier(PathBuf),
}

/// Why a text names nothing that can be rebuilt.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// None of the forms.
    #[error(
        "{found:?} names nothing that can be rebuilt: expected debian:NAME[=VERSION], pypi:NAME[==VERSION], or a file that \
         ends in .dsc, .deb, .buildinfo or .whl, or the directory of an earlier rebuild (with a slash in it)"
    )]
    NoForm {
        /// As given.
        found: String,
    },
    /// A name that no Debian package can have.
    #[error("{found:?} is not the name of a Debian package: expected lower case letters, digits and + - .")]
    PackageName {
        /// As given.
        found: String,
    },
    /// A version that none can have.
    #[error("in {found:?}")]
    Version {
        /// As given.
        found: String,
        /// Why not.
        source: VersionError,
    },
    /// No name, or no version after `==`.
    #[error("{found:?} names no release: expected pypi:NAME or pypi:NAME==VERSION")]
    NoRelease {
        /// As given.
        found: String,
    },
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        let found = || text.to_string();
        if let Some(rest) = text.strip_prefix("debian:") {
            return debian(rest, text);
        }
        if let Some(rest) = text.strip_prefix("pypi:") {
            let (project, version) = match rest.split_once("==") {
                Some((project, version)) => (project, Some(version)),
                None => (rest, None),
            };
            // PEP 508's names; what else stands there is a specifier of another kind.
            let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            if project.is_empty() || !project.chars().all(fits) || version == Some("") {
                return Err(TargetError::NoRelease { found: found() });
            }
            return Ok(Self::Pypi { project: project.into(), version: version.map(str::to_string) });
        }
        let path = PathBuf::from(text);
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("dsc") => Ok(Self::Dsc(path)),
            Some("deb") => Ok(Self::Deb(path)),
            Some("buildinfo") => Ok(Self::Buildinfo(path)),
            Some("whl") => Ok(Self::Wheel(path)),
            _ if text.contains('/') || matches!(text, "." | "..") => Ok(Self::Earlier(path)),
            _ => Err(TargetError::NoForm { found: found() }),
        }
    }
}

/// Whether a word can be the name of a Debian package, source or binary (Debian Policy 5.6.1).
pub fn is_package(name: &str) -> bool {
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"+-.".contains(&b);
    let begins = name.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric);
    name.len() >= 2 && begins && name.bytes().all(fits)
}

fn debian(rest: &str, text: &str) -> Result<Target, TargetError> {
    let (name, version) = match rest.split_once('=') {
        // `==` is how Python says it, and is not worth an error.
        Some((name, version)) => (name, Some(version.strip_prefix('=').unwrap_or(version))),
        None => (rest, None),
    };
    if !is_package(name) {
        return Err(TargetError::PackageName { found: name.into() });
    }
    if let Some(version) = version {
        Version::parse(version).map_err(|source| TargetError::Version { found: text.into(), source })?;
    }
    Ok(Target::Debian { name: name.into(), version: version.map(str::to_string) })
}

impl Target {
    /// The file or directory, if it is one.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Dsc(path) | Self::Deb(path) | Self::Buildinfo(path) | Self::Wheel(path) | Self::Earlier(path) => {
                Some(path)
            }
            Self::Debian { .. } | Self::Pypi { .. } => None,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Debian { name, version: None } => write!(f, "debian:{name}"),
            Self::Debian { name, version: Some(version) } => write!(f, "debian:{name}={version}"),
            Self::Pypi { project, version: None } => write!(f, "pypi:{project}"),
            Self::Pypi { project, version: Some(version) } => write!(f, "pypi:{project}=={version}"),
            Self::Dsc(path) | Self::Deb(path) | Self::Buildinfo(path) | Self::Wheel(path) | Self::Earlier(path) => {
                write!(f, "{}", path.display())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_told_by_its_spelling_and_prints_back_to_itself() {
        for text in [
            "debian:cowsay",
            "debian:libcap2=1:2.66-4+deb12u3+b1",
            "pypi:flask",
            "pypi:flask==3.0.0",
            "dir/hello_2.10-3.dsc",
            "hello_2.10-3_amd64.deb",
            "x.buildinfo",
            "flask-3.0.0-py3-none-any.whl",
            "./earlier",
        ] {
            let target: Target = text.parse().unwrap();
            assert_eq!(target.to_string(), text);
        }
        assert!(matches!("./earlier".parse(), Ok(Target::Earlier(_))));
    }

    #[test]
    fn what_names_nothing_is_refused_with_what_would() {
        assert!(matches!("cowsay".parse::<Target>(), Err(TargetError::NoForm { .. })));
        assert!(matches!("debian:Cow say".parse::<Target>(), Err(TargetError::PackageName { .. })));
        assert!(matches!("debian:".parse::<Target>(), Err(TargetError::PackageName { .. })));
        assert!(matches!("debian:cowsay=".parse::<Target>(), Err(TargetError::Version { .. })));
        assert!(matches!("debian:cowsay=1 2".parse::<Target>(), Err(TargetError::Version { .. })));
        for text in ["pypi:", "pypi:==1.0", "pypi:flask==", "pypi:flask>=1.0", "pypi:flask[async]==1.0"] {
            assert!(matches!(text.parse::<Target>(), Err(TargetError::NoRelease { .. })), "{text}");
        }
    }
}
