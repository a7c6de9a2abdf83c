//! A published wheel, read for what it says of its own making: who wrote it, its times, and whether it is sound.
//!
//! A wheel whose `RECORD` does not describe it, or whose `.dist-info` is not one, is refused by name: it was not made by any
//! of the programs that are known, and a verdict on it would mean nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use kiln_model::digest::Digest;
use kiln_model::format::dist_info::{self, Metadata, Wheel};
use kiln_model::format::record;
use kiln_model::wheel::times::{self, Because, Epoch, Stamp};
use kiln_model::wheel::{Backend, WheelName};

use super::WheelError;
use super::archive::Archive;

/// Violations of a `RECORD` that a message names.
const NAMED: usize = 5;

/// What a wheel says of itself.
#[derive(Debug, Clone)]
pub(super) struct Reference {
    /// Its file name's parts.
    pub(super) name: WheelName,
    /// Programs that wrote it, as `WHEEL` names them.
    pub(super) generators: Vec<String>,
    /// The one that is known, if one is.
    pub(super) backend: Option<Backend>,
    /// Each file: digest, size, and time.
    pub(super) files: BTreeMap<String, File>,
    /// What its times say of the epoch.
    pub(super) epoch: (Epoch, Because),
}

/// A file of a wheel.
#[derive(Debug, Clone)]
pub(super) struct File {
    /// Digest of its bytes.
    pub(super) sha256: Digest,
    /// Its time, if it has one.
    pub(super) stamp: Option<Stamp>,
}

/// Requirements of a wheel that is to be installed.
pub(super) fn metadata(path: &Path) -> Result<Metadata, WheelError> {
    let archive = Archive::open(path)?;
    let directory = directory(path, &archive)?;
    let member = format!("{directory}/METADATA");
    let bytes = archive.read(&member, dist_info::MOST_BYTES)?;
    let bytes = bytes.ok_or_else(|| WheelError::Lacks { file: path.into(), member: "METADATA" })?;
    Metadata::parse(&bytes).map_err(|source| WheelError::DistInfo { file: path.into(), member, source })
}

/// The one `.dist-info` directory.
fn directory(path: &Path, archive: &Archive) -> Result<String, WheelError> {
    let named: BTreeSet<&str> = archive
        .members()
        .filter_map(|member| member.name.split_once('/'))
        .filter_map(|(first, _)| first.ends_with(".dist-info").then_some(first))
        .collect();
    let mut all = named.into_iter();
    match (all.next(), all.next()) {
        (Some(only), None) => Ok(only.into()),
        (None, _) => Err(WheelError::Lacks { file: path.into(), member: ".dist-info" }),
        (Some(first), Some(second)) => {
            Err(WheelError::Twice { file: path.into(), first: first.into(), second: second.into() })
        }
    }
}

impl Reference {
    /// Reads the wheel at `path`, which is published as `name`.
    pub(super) fn open(path: &Path, name: &WheelName) -> Result<Self, WheelError> {
        let archive = Archive::open(path)?;
        let directory = directory(path, &archive)?;
        let read = |member: &'static str, most| -> Result<Vec<u8>, WheelError> {
            let bytes = archive.read(&format!("{directory}/{member}"), most)?;
            bytes.ok_or_else(|| WheelError::Lacks { file: path.into(), member })
        };
        let of_member = |member: &str| {
            let member = format!("{directory}/{member}");
            move |source| WheelError::DistInfo { file: path.into(), member, source }
        };
        let wheel = Wheel::parse(&read("WHEEL", dist_info::MOST_BYTES)?).map_err(of_member("WHEEL"))?;
        let metadata = Metadata::parse(&read("METADATA", dist_info::MOST_BYTES)?).map_err(of_member("METADATA"))?;
        let normalised = crate::fetch::listing::normalised;
        if normalised(&metadata.name) != normalised(&name.distribution) {
            return Err(WheelError::OtherName { file: path.into(), found: metadata.name });
        }
        let own = format!("{directory}/RECORD");
        let lines = record::parse(&read("RECORD", record::MOST_BYTES)?)
            .map_err(|source| WheelError::Record { file: path.into(), source })?;
        let digests = archive.digests()?;
        let violations = record::check(&lines, &own, &digests, NAMED);
        if !violations.is_empty() {
            let violations = violations.iter().map(ToString::to_string).collect();
            return Err(WheelError::RecordLies { file: path.into(), violations });
        }
        let stamps: BTreeSet<Stamp> = archive.members().filter_map(|member| member.stamp).collect();
        let record = archive.members().find(|member| member.name == own).and_then(|member| member.stamp);
        let epoch = record.and_then(|record| times::epoch(&stamps, record));
        let stamp_of: BTreeMap<&str, Option<Stamp>> =
            archive.members().map(|member| (member.name.as_str(), member.stamp)).collect();
        let files = digests
            .into_iter()
            .map(|(path, (sha256, _))| {
                let stamp = stamp_of.get(path.as_str()).copied().flatten();
                (path, File { sha256, stamp })
            })
            .collect();
        Ok(Self {
            name: name.clone(),
            backend: wheel.generators.iter().find_map(|generator| Backend::of_generator(generator)),
            generators: wheel.generators,
            files,
            epoch: epoch.ok_or_else(|| WheelError::NoTimes { file: path.into() })?,
        })
    }

    /// Files that are compiled for one machine.
    pub(super) fn extension_modules(&self) -> BTreeSet<&str> {
        extension_modules(self.files.keys().map(String::as_str))
    }
}

/// Those of `files` that a Python loads as machine code.
pub(super) fn extension_modules<'a>(files: impl Iterator<Item = &'a str>) -> BTreeSet<&'a str> {
    files.filter(|file| [".so", ".pyd", ".dylib"].iter().any(|end| file.ends_with(end))).collect()
}

#[cfg(test)]
mod tests {
    use super::super::samples::{self, Files};
    use super::*;

    fn opened(files: &Files) -> Result<Reference, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        samples::packed(file.path(), files);
        let name = "a-1-py3-none-any.whl".parse().unwrap();
        Reference::open(file.path(), &name).map_err(|error| {
            let source = std::error::Error::source(&error).map(|source| format!(": {source}"));
            format!("{error}{}", source.unwrap_or_default())
        })
    }

    fn sound() -> Files {
        samples::files("a", "1", "flit 3.12.0", &["b"])
    }

    #[test]
    fn a_wheel_says_who_wrote_it_and_when() {
        let reference = opened(&sound()).unwrap();
        assert_eq!(reference.backend, Backend::of_generator("flit 3.12.0"));
        assert_eq!(reference.epoch, (Epoch::At(1_785_585_600), Because::OneTime));
        assert_eq!(reference.files.len(), 4);
        assert!(reference.extension_modules().is_empty());
    }

    #[test]
    fn an_unknown_program_is_no_error_of_the_wheel() {
        assert_eq!(opened(&samples::files("a", "1", "mine 1.0", &[])).unwrap().backend, None);
    }

    #[test]
    fn a_record_that_lies_is_refused_with_what_it_lies_about() {
        let mut changed = sound();
        changed[0].1 = b"evil\n".to_vec();
        let error = opened(&changed).unwrap_err();
        assert!(error.contains("RECORD") && error.contains("a/__init__.py has the sha256"), "{error}");
        let mut more = sound();
        more.insert(0, ("a/more.py".into(), Vec::new(), (12, 0)));
        assert!(opened(&more).unwrap_err().contains("a/more.py is in the wheel and not in RECORD"));
        let mut fewer = sound();
        fewer.remove(0);
        assert!(opened(&fewer).unwrap_err().contains("a/__init__.py is in RECORD and not in the wheel"));
    }

    #[test]
    fn what_lacks_a_part_of_a_wheel_or_has_it_twice_is_refused() {
        for part in ["METADATA", "WHEEL", "RECORD"] {
            let mut files = sound();
            files.retain(|(path, ..)| !path.ends_with(part));
            assert!(opened(&files).unwrap_err().contains(part), "{part}");
        }
        let mut two = sound();
        two.push(("b-1.dist-info/WHEEL".into(), Vec::new(), (12, 0)));
        assert!(opened(&two).unwrap_err().contains("b-1.dist-info"));
        assert!(opened(&samples::files("b", "1", "flit 3.12.0", &[])).unwrap_err().contains("\"b\""));
        let mut none = sound();
        none[2].1 = b"Wheel-Version: 1.0\nTag: py3-none-any\n".to_vec();
        samples::record(&mut none, "a-1.dist-info");
        assert!(opened(&none).unwrap_err().contains("has no field Generator"));
    }
}
