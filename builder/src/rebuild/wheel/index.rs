//! What the package index has of a project: releases, each file with its digest and the moment it was uploaded.
//!
//! The first configured index that lists the project is believed, as everywhere in kiln. A listing says what exists now; what
//! was uploaded after a given moment is hidden here, so that requirements are resolved as they were then.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::str::FromStr;

use jiff::Timestamp;
use kiln_model::report::Missing;
use kiln_model::wheel::WheelName;
use kiln_model::wheel::file_name::Machine;
use pep440_rs::{Version, VersionSpecifiers};

use super::WheelError;
use super::sdist::Format;
use crate::fetch::listing::{self, Listed};
use crate::fetch::{Archive, Archives, Wanted};
use crate::rebuild::reference;

/// The most that is read of a project's listing; the largest known are some tens of megabytes.
const LISTING: u64 = 64 << 20;

/// A file of a release.
#[derive(Debug, Clone)]
pub(super) struct Offered {
    /// As the index lists it.
    pub(super) listed: Listed,
    /// Which release it belongs to.
    pub(super) version: Version,
    /// When it was uploaded, if the index says so.
    pub(super) uploaded: Option<Timestamp>,
    /// What it is.
    pub(super) kind: OfferedKind,
}

/// What a file of a release is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum OfferedKind {
    /// A source distribution that kiln unpacks.
    Sdist,
    /// A wheel.
    Wheel(WheelName),
}

/// Reads listings, each once.
pub(super) struct Index<'a> {
    archives: &'a dyn Archives,
    pages: RefCell<BTreeMap<String, Rc<Vec<Offered>>>>,
}

impl<'a> Index<'a> {
    /// Over `archives`.
    pub(super) fn new(archives: &'a dyn Archives) -> Self {
        Self { archives, pages: RefCell::default() }
    }

    /// The files of `project`, a normalised name, in the index's order. A project that is nowhere is missing, and so is an
    /// index that is not to be asked.
    pub(super) fn project(&self, project: &str) -> Result<Rc<Vec<Offered>>, WheelError> {
        if let Some(page) = self.pages.borrow().get(project) {
            return Ok(Rc::clone(page));
        }
        let bytes =
            self.archives.unpinned(&Archive::Pypi, project, LISTING).map_err(|error| {
                match reference::nowhere(&error) {
                    Some(files) => {
                        WheelError::Missing(files.iter().map(|file| reference::missing("project", file)).collect())
                    }
                    None => WheelError::Listing { project: project.into(), source: error },
                }
            })?;
        let listed = listing::parse(&bytes).map_err(|what| WheelError::NoListing { project: project.into(), what })?;
        let page = Rc::new(listed.into_iter().filter_map(|listed| offered(project, listed)).collect::<Vec<_>>());
        self.pages.borrow_mut().insert(project.into(), Rc::clone(&page));
        Ok(page)
    }

    /// The file at its place in the cache, its digest checked.
    pub(super) fn fetched(&self, what: &str, offered: &Offered) -> Result<std::path::PathBuf, WheelError> {
        let wanted = wanted(offered)?;
        match self.archives.pinned(&[wanted]) {
            Ok(paths) => Ok(paths.into_iter().next().expect("one path for each file wanted")),
            Err(error) => Err(match reference::nowhere(&error) {
                Some(files) => WheelError::Missing(files.iter().map(|file| reference::missing(what, file)).collect()),
                None => WheelError::Fetch { file: offered.listed.name.clone(), source: error },
            }),
        }
    }
}

impl Offered {
    /// Whether it is for the machine's Python, as far as the index says.
    pub(super) fn suits(&self, machine: &Machine) -> bool {
        self.listed.requires_python.as_ref().is_none_or(|text| is_for(text, machine))
    }

    /// Whether an installer takes it where nobody asked for its version (PEP 440, PEP 592).
    pub(super) fn is_taken_unasked(&self, machine: &Machine) -> bool {
        !self.version.any_prerelease() && self.listed.yanked.is_none() && self.suits(machine)
    }
}

/// Whether `text`, a set of specifiers, has the machine's Python. What cannot be read excludes nobody, as in pip.
pub(super) fn is_for(text: &str, machine: &Machine) -> bool {
    let python = Version::new([3, u64::from(machine.minor), 99]);
    VersionSpecifiers::from_str(text).map_or(true, |specifiers| specifiers.contains(&python))
}

/// What to fetch for an offered file. One without a digest is as good as none.
pub(super) fn wanted(offered: &Offered) -> Result<Wanted, WheelError> {
    let Listed { name, size, sha256, .. } = &offered.listed;
    match sha256 {
        Some(sha256) => Ok(Wanted { archive: Archive::Pypi, path: name.clone(), size: *size, sha256: *sha256 }),
        None => {
            let tries = vec!["the index gives no sha256 for it".to_string()];
            Err(WheelError::Missing(vec![Missing { what: format!("digest of {name}"), tries }]))
        }
    }
}

fn offered(project: &str, listed: Listed) -> Option<Offered> {
    let (of, version) = listing::project_and_version(&listed.name)?;
    if of != project {
        return None;
    }
    let version = Version::from_str(version).ok()?;
    let kind = match listed.name.parse::<WheelName>() {
        Ok(name) => OfferedKind::Wheel(name),
        Err(_) => Format::of(&listed.name).map(|_| OfferedKind::Sdist)?,
    };
    let uploaded = listed.uploaded.as_ref().and_then(|text| text.parse().ok());
    Some(Offered { version, uploaded, kind, listed })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unasked_nobody_is_given_a_pre_release_a_yanked_one_or_one_for_another_python() {
        let machine = Machine { minor: 11, architecture: "x86_64".into(), glibc: 36 };
        let taken = |version: &str, yanked: Option<&str>, python: Option<&str>| {
            let listed = Listed {
                name: format!("a-{version}-py3-none-any.whl"),
                url: String::new(),
                sha256: None,
                size: None,
                yanked: yanked.map(str::to_string),
                uploaded: None,
                requires_python: python.map(str::to_string),
            };
            offered("a", listed).unwrap().is_taken_unasked(&machine)
        };
        assert!(taken("1.0", None, None));
        assert!(taken("1.0", None, Some(">=3.11")));
        assert!(taken("1.0", None, Some("whatever")), "as in pip");
        assert!(!taken("1.0rc1", None, None));
        assert!(!taken("1.0.dev1", None, None));
        assert!(!taken("1.0", Some(""), None));
        assert!(!taken("1.0", None, Some(">=3.12")));
    }
}
