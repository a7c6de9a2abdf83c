//! One file of one release on a Python package index: its sdist, or the wheel that runs on any machine.
//!
//! The first configured index that lists the project is believed about what belongs to it, so that a private name cannot be
//! taken over on a public index further down. The digest is the index's; a file without one is refused. A yanked file
//! is pinned, since the author asked for exactly this version, and reported.

use std::str::FromStr;

use kiln_model::digest::NarHash;
use kiln_model::lock::{LockedFile, LockedInput};
use kiln_model::recipe::PypiFile;
use pep440_rs::Version;

use super::PinnedFiles;
use crate::exit::Kind;
use crate::fetch::listing::{self, Listed, project_and_version};
use crate::fetch::{Archive, Archives, FetchError, Wanted};

/// The most that is read of a project's listing; the largest known are some tens of megabytes.
const LISTING: u64 = 64 << 20;

/// A pinned file of a release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PypiPin {
    /// Normalised project name.
    pub project: String,
    /// Version as the recipe wrote it.
    pub version: String,
    /// Why the file was yanked, if it was; the reason may be empty.
    pub yanked: Option<String>,
    /// The file.
    pub files: PinnedFiles,
}

/// Why a release cannot be pinned.
#[derive(Debug, thiserror::Error)]
pub enum PypiError {
    /// Not a version (PEP 440).
    #[error("{project}=={version}: {version:?} is not a version; write one such as \"3.7\"")]
    Version {
        /// The project.
        project: String,
        /// As the recipe wrote it.
        version: String,
    },
    /// The listing cannot be had.
    #[error("reading what the index has of {project}")]
    Listing {
        /// The project.
        project: String,
        /// Why.
        source: FetchError,
    },
    /// The listing cannot be understood.
    #[error("what the index has of {project} {what}")]
    NoListing {
        /// The project.
        project: String,
        /// What is wrong.
        what: String,
    },
    /// The index has no such file.
    #[error("the index has no {kind} of {project} {version}; it has {there}")]
    Absent {
        /// The project.
        project: String,
        /// As the recipe wrote it.
        version: String,
        /// Which file was wanted.
        kind: &'static str,
        /// What there is instead.
        there: String,
    },
    /// The index gives no SHA-256 for the file.
    #[error("the index gives no sha256 for {file}; write it as url = \"…\" with its sha256 instead")]
    NoDigest {
        /// The file.
        file: String,
    },
    /// The file cannot be had.
    #[error("fetching {file}")]
    Fetch {
        /// The file.
        file: String,
        /// Why.
        source: FetchError,
    },
    /// The fetched file cannot be read back.
    #[error("reading {file} from the cache of files")]
    Cache {
        /// The file.
        file: String,
        /// Why.
        source: std::io::Error,
    },
}

impl PypiError {
    /// What sort of failure it is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Version { .. } | Self::Absent { .. } | Self::NoDigest { .. } => Kind::BadInput,
            Self::Listing { source, .. } | Self::Fetch { source, .. } => source.kind(),
            Self::NoListing { .. } | Self::Cache { .. } => Kind::Host,
        }
    }
}

/// Pins a file of exactly this version.
pub fn pin(archives: &dyn Archives, project: &str, version: &str, file: PypiFile) -> Result<PypiPin, PypiError> {
    let project = listing::normalised(project);
    let exact = Version::from_str(version)
        .map_err(|_| PypiError::Version { project: project.clone(), version: version.into() })?;
    let bytes = archives
        .unpinned(&Archive::Pypi, &project, LISTING)
        .map_err(|source| PypiError::Listing { project: project.clone(), source })?;
    let listed = listing::parse(&bytes).map_err(|what| PypiError::NoListing { project: project.clone(), what })?;
    let Some(found) = chosen(&listed, &project, &exact, file) else {
        return Err(PypiError::Absent {
            there: instead(&listed, &project, &exact),
            project,
            version: version.into(),
            kind: match file {
                PypiFile::Sdist => "sdist",
                PypiFile::Wheel => "wheel for any machine (py3-none-any)",
            },
        });
    };
    let sha256 = found.sha256.ok_or_else(|| PypiError::NoDigest { file: found.name.clone() })?;
    let wanted = Wanted { archive: Archive::Pypi, path: found.name.clone(), size: found.size, sha256 };
    let paths = archives.pinned(&[wanted]).map_err(|source| PypiError::Fetch { file: found.name.clone(), source })?;
    let path = paths.into_iter().next().expect("one path for each file wanted");
    let size = std::fs::metadata(&path).map_err(|source| PypiError::Cache { file: found.name.clone(), source })?.len();
    let locked = vec![LockedFile { path: found.name.clone(), size, sha256 }];
    let files = PinnedFiles { locked, at: vec![(found.name.clone(), path)] };
    Ok(PypiPin { project, version: version.into(), yanked: found.yanked.clone(), files })
}

/// What to fetch for a locked file.
pub fn wanted(file: &LockedFile) -> Wanted {
    Wanted { archive: Archive::Pypi, path: file.path.clone(), size: Some(file.size), sha256: file.sha256 }
}

impl PypiPin {
    /// The lock's entry.
    pub fn locked(&self, nar_hash: NarHash) -> LockedInput {
        LockedInput::Pypi {
            project: self.project.clone(),
            version: self.version.clone(),
            nar_hash,
            files: self.files.locked.clone(),
        }
    }
}

fn is_of(listed: &Listed, project: &str, version: &Version) -> bool {
    project_and_version(&listed.name)
        .is_some_and(|(p, v)| p == project && Version::from_str(v).is_ok_and(|v| v == *version))
}

fn chosen<'l>(listed: &'l [Listed], project: &str, version: &Version, file: PypiFile) -> Option<&'l Listed> {
    let of_version = listed.iter().filter(|l| is_of(l, project, version));
    match file {
        // `.tar.gz` is the one format of sdists since PEP 527; older releases may have a zip only.
        PypiFile::Sdist => of_version
            .filter(|l| !l.name.ends_with(".whl"))
            .min_by_key(|l| (!l.name.ends_with(".tar.gz"), !l.name.ends_with(".zip"), l.name.clone())),
        // The highest build number wins, as for pip (PEP 427).
        PypiFile::Wheel => {
            of_version.filter_map(|l| Some((wheel_build(&l.name)?, l))).max_by_key(|(b, _)| b.clone()).map(|(_, l)| l)
        }
    }
}

/// The build number of a wheel that runs on any machine with Python 3.
fn wheel_build(name: &str) -> Option<(u64, String)> {
    let parts: Vec<&str> = name.strip_suffix(".whl")?.split('-').collect();
    let (build, tags) = match parts.len() {
        5 => ("", &parts[2..]),
        6 => (parts[2], &parts[3..]),
        _ => return None,
    };
    let any = tags[0].split('.').any(|tag| tag == "py3") && tags[1] == "none" && tags[2] == "any";
    let digits = build.bytes().take_while(u8::is_ascii_digit).count();
    any.then(|| (build[..digits].parse().unwrap_or(0), build[digits..].to_string()))
}

/// What a message offers instead: the version's other files, or other versions.
fn instead(listed: &[Listed], project: &str, version: &Version) -> String {
    let files: Vec<&str> = listed.iter().filter(|l| is_of(l, project, version)).map(|l| l.name.as_str()).collect();
    if !files.is_empty() {
        return files.join(", ");
    }
    let mut versions: Vec<Version> = listed
        .iter()
        .filter_map(|l| project_and_version(&l.name).filter(|(p, _)| p == project))
        .filter_map(|(_, v)| Version::from_str(v).ok())
        .collect();
    versions.sort();
    versions.dedup();
    match versions.len() {
        0 => "no release at all".into(),
        all => {
            let newest: Vec<String> = versions.iter().rev().take(8).map(Version::to_string).collect();
            format!("{} versions, the newest {}", all, newest.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(names: &[&str]) -> Vec<Listed> {
        let entry = |name: &&str| Listed {
            name: name.to_string(),
            url: String::new(),
            sha256: None,
            size: None,
            yanked: None,
            uploaded: None,
            requires_python: None,
        };
        names.iter().map(entry).collect()
    }

    fn choose(names: &[&str], version: &str, file: PypiFile) -> Option<String> {
        chosen(&listed(names), "foo-bar", &version.parse().unwrap(), file).map(|l| l.name.clone())
    }

    #[test]
    fn exactly_the_version_is_chosen_however_it_is_spelled() {
        let names =
            ["foo_bar-1.0.tar.gz", "foo-bar-1.0.1.tar.gz", "Foo.Bar-1.1rc1.zip", "foo_bar-1.0-py3-none-any.whl"];
        assert_eq!(choose(&names, "1.0.0", PypiFile::Sdist).as_deref(), Some("foo_bar-1.0.tar.gz"));
        assert_eq!(choose(&names, "1.1.rc1", PypiFile::Sdist).as_deref(), Some("Foo.Bar-1.1rc1.zip"));
        assert_eq!(choose(&names, "1.1", PypiFile::Sdist), None);
        assert_eq!(
            instead(&listed(&names), "foo-bar", &"2".parse().unwrap()),
            "3 versions, the newest 1.1rc1, 1.0.1, 1.0"
        );
    }

    #[test]
    fn only_a_wheel_for_any_machine_will_do() {
        let names = [
            "foo_bar-1-cp312-cp312-linux_x86_64.whl",
            "foo_bar-1-py2.py3-none-any.whl",
            "foo_bar-1-2-py3-none-any.whl",
            "foo_bar-1-py2-none-any.whl",
        ];
        assert_eq!(choose(&names, "1", PypiFile::Wheel).as_deref(), Some("foo_bar-1-2-py3-none-any.whl"));
        assert_eq!(choose(&names[..1], "1", PypiFile::Wheel), None);
        assert_eq!(choose(&names[3..], "1", PypiFile::Wheel), None);
    }

    #[test]
    fn a_tarball_is_taken_before_a_zip_and_another_project_never() {
        assert_eq!(
            choose(&["foo-bar-1.zip", "foo-bar-1.tar.gz", "foo-bar-1.tar.bz2"], "1", PypiFile::Sdist).as_deref(),
            Some("foo-bar-1.tar.gz")
        );
        assert_eq!(choose(&["foo-bar-baz-1.tar.gz"], "1", PypiFile::Sdist), None);
    }
}
