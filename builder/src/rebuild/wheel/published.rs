//! The wheel that a rebuild is held against: found on the index or given, and the machine it was made for.
//!
//! Of a release's wheels the one counts that an installer would take there: the most special. Which machines there are follows
//! from the suites that environments can be made of.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use jiff::Timestamp;
use kiln_model::digest::Digest;
use kiln_model::report::Missing;
use kiln_model::wheel::WheelName;
use kiln_model::wheel::file_name::{Fit, Machine};
use pep440_rs::Version;
use sha2::{Digest as _, Sha256};

use super::WheelError;
use super::archive::ArchiveError;
use super::index::{self, Index, Offered, OfferedKind};
use super::reference::Reference;
use crate::fetch::listing::normalised;
use crate::rebuild::rebuilding::Rebuilding;

/// Suites whose CPython and C library are known, in the order in which a wheel's machine is looked for.
const SUITES: [(&str, u32, u32); 3] = [("bookworm", 11, 36), ("trixie", 13, 41), ("bullseye", 9, 31)];

/// The machine that a wheel is rebuilt on.
pub(super) struct Place {
    pub(super) suites: Vec<String>,
    pub(super) machine: Machine,
}

/// The wheel that a rebuild is held against.
pub(super) struct Published {
    pub(super) name: WheelName,
    pub(super) file_name: String,
    pub(super) path: PathBuf,
    pub(super) sha256: Digest,
    pub(super) size: u64,
    pub(super) uploaded: Option<Timestamp>,
    /// Whether an index has it; one that was given is kept beside the plan.
    pub(super) listed: bool,
    pub(super) place: Place,
}

pub(super) fn version_of(text: &str) -> Result<Version, WheelError> {
    Version::from_str(text).map_err(|_| WheelError::Version { text: text.into() })
}

/// Machines to look for a wheel for: those of the suites that the user named, else of all that are known.
pub(super) fn places(rebuilding: &Rebuilding<'_, '_>) -> Result<Vec<Place>, WheelError> {
    let place = |suites: Vec<String>, (_, minor, glibc): (&str, u32, u32)| Place {
        suites,
        machine: Machine { minor, architecture: "x86_64".into(), glibc },
    };
    let Some(first) = rebuilding.suites.first() else {
        return Ok(SUITES.iter().map(|known| place(vec![known.0.to_string()], *known)).collect());
    };
    let base = first.split('-').next().unwrap_or(first);
    match SUITES.iter().find(|(suite, ..)| *suite == base) {
        Some(known) => Ok(vec![place(rebuilding.suites.clone(), *known)]),
        None => Err(WheelError::Suite { suite: first.clone() }),
    }
}

/// The suites that are known, for messages.
pub(super) fn suites_known() -> String {
    SUITES.map(|(suite, ..)| suite).join(", ")
}

/// The wheel of a release that suits best the first machine that any suits. Without a version, of the highest release with
/// one, as an installer would choose: no pre-releases, and nothing that was yanked or is for other Pythons.
pub(super) fn on_index(
    rebuilding: &Rebuilding<'_, '_>,
    index: &Index<'_>,
    project: &str,
    version: Option<&str>,
) -> Result<Published, WheelError> {
    let exact = version.map(version_of).transpose()?;
    let page = index.project(project)?;
    for place in places(rebuilding)? {
        let fit = |offered: &Offered| -> Option<Fit> {
            match &offered.kind {
                OfferedKind::Wheel(name) => name.fit(&place.machine),
                OfferedKind::Sdist => None,
            }
        };
        let wanted = |offered: &&Offered| {
            let right = match &exact {
                Some(exact) => offered.version == *exact,
                None => offered.is_taken_unasked(&place.machine),
            };
            right && fit(offered).is_some()
        };
        // Of several builds the last counts, as for an installer; of equals any, but always the same one.
        let rank = |o: &&Offered| (o.version.clone(), fit(o), o.uploaded, o.listed.name.clone());
        let best = page.iter().filter(wanted).max_by_key(rank);
        if let Some(offered) = best
            && let OfferedKind::Wheel(name) = &offered.kind
        {
            let path = index.fetched("reference", offered)?;
            let wanted = index::wanted(offered)?;
            let size = size_of(&path)?;
            return Ok(Published {
                name: name.clone(),
                file_name: offered.listed.name.clone(),
                path,
                sha256: wanted.sha256,
                size,
                uploaded: offered.uploaded,
                listed: true,
                place,
            });
        }
    }
    let release = version.map(|version| format!(" {version}")).unwrap_or_default();
    let what =
        format!("wheel of {project}{release} for a machine that kiln has: x86-64, CPython of {}", suites(rebuilding));
    let tries = exact.map(|exact| files_of(&page, &exact)).into_iter().collect();
    Err(WheelError::Missing(vec![Missing { what, tries }]))
}

pub(super) fn suites(rebuilding: &Rebuilding<'_, '_>) -> String {
    match rebuilding.suites.is_empty() {
        true => suites_known(),
        false => rebuilding.suites.join(", "),
    }
}

/// A wheel that was given; its release on the index, if there is one, says when it was uploaded.
pub(super) fn on_disk(
    rebuilding: &Rebuilding<'_, '_>,
    index: &Index<'_>,
    path: &Path,
) -> Result<Published, WheelError> {
    let file_name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_string();
    let name: WheelName = file_name.parse()?;
    let all = places(rebuilding)?;
    let place = all.into_iter().find(|place| name.fit(&place.machine).is_some());
    let Some(place) = place else {
        let what = format!("a machine that {file_name} runs on: kiln has x86-64, CPython of {}", suites(rebuilding));
        return Err(WheelError::Missing(vec![Missing { what, tries: Vec::new() }]));
    };
    // Its own soundness comes before anything that is fetched for it.
    Reference::open(path, &name)?;
    let (sha256, size) = digest_of(path)?;
    let page = index.project(&normalised(&name.distribution))?;
    let listed = page.iter().find(|offered| offered.listed.name == file_name);
    let same = listed.is_some_and(|offered| offered.listed.sha256 == Some(sha256));
    Ok(Published {
        uploaded: listed.and_then(|offered| offered.uploaded),
        name,
        file_name,
        path: path.into(),
        sha256,
        size,
        listed: same,
        place,
    })
}

pub(super) fn size_of(path: &Path) -> Result<u64, ArchiveError> {
    let meta = std::fs::metadata(path).map_err(|source| ArchiveError::Read { path: path.into(), source })?;
    Ok(meta.len())
}

pub(super) fn digest_of(path: &Path) -> Result<(Digest, u64), ArchiveError> {
    let read = |source| ArchiveError::Read { path: path.into(), source };
    let (mut hasher, mut size, mut buffer) = (Sha256::new(), 0, [0; 64 << 10]);
    let mut file = std::fs::File::open(path).map_err(read)?;
    loop {
        match file.read(&mut buffer).map_err(read)? {
            0 => break,
            count => {
                hasher.update(&buffer[..count]);
                size += count as u64;
            }
        }
    }
    Ok((Digest::from_bytes(hasher.finalize().into()), size))
}

/// What a version has on the index, for messages.
pub(super) fn files_of(page: &[Offered], version: &Version) -> String {
    let files: Vec<&str> =
        page.iter().filter(|o| o.version == *version).map(|o| o.listed.name.as_str()).take(8).collect();
    match files.is_empty() {
        false => format!("the index has {}", files.join(", ")),
        true => {
            let versions: BTreeSet<&Version> = page.iter().map(|o| &o.version).collect();
            let newest: Vec<String> = versions.iter().rev().take(8).map(ToString::to_string).collect();
            format!("the index has no such version; the newest are {}", newest.join(", "))
        }
    }
}
