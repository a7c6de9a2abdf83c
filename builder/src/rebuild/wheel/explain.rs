//! Why a wheel differs from the published one, as far as the two and the sdist tell.
//!
//! Each cause rests on what was seen in their members and has the setting of another build that would prove it, if there is one. Nothing
//! is said of wheels whose bytes agree. What is told is evidence, never a verdict.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use kiln_model::cause::{Setting, SettingName};
use kiln_model::digest::Digest;
use kiln_model::lock::LockedInput;
use kiln_model::outcome::{EntryPath, Status};
use kiln_model::report::{Cause, Confidence, Explained, Report};
use kiln_model::variation::{Factor, Label};
use kiln_model::verdict::Verdict;
use kiln_model::wheel::backend::Program;
use kiln_model::wheel::times::{self, Stamp};

use super::WheelError;
use super::archive::Archive;
use super::recipe::SOURCE;
use super::reference::{Reference, extension_modules};
use super::sdist::Sdist;
use crate::pin::pypi;
use crate::rebuild::rebuilding::{RebuildError, Rebuilding};
use crate::rebuild::reference::{Published, file_of};
use crate::recipe_dir::RecipeDir;

/// Names of members that a sentence lists; the others are counted.
const NAMED: usize = 3;
/// Bytes of `METADATA` that are compared line by line.
const METADATA: u64 = 4 << 20;

/// Adds to the report of the rebuild by the plan in `directory` what made its wheel another than the published one.
pub(in crate::rebuild) fn explain(
    rebuilding: &Rebuilding<'_, '_>,
    directory: &Path,
    published: &[Published],
    report: &mut Report,
) -> Result<(), RebuildError> {
    let builder = rebuilding.builder;
    let built = report.outcomes.first().is_some_and(|outcome| outcome.status == Status::Built);
    let [Published { name, file: Some(path), .. }] = published else { return Ok(()) };
    if report.verdict == Verdict::Reproduced || !built {
        return Ok(());
    }
    let lock = RecipeDir::open(directory)?.lock()?;
    let source = lock.inputs.iter().find(|(variable, _)| variable.as_str() == SOURCE);
    let Some((_, LockedInput::Pypi { files, .. })) = source else { return Ok(()) };
    let Some(file) = files.first() else { return Ok(()) };
    let sdist = builder.archives.pinned(&[pypi::wanted(file)])?;
    let sdist = Sdist::open(&sdist[0], &file.path)?;
    let reference = Reference::open(path, &name.parse().map_err(WheelError::from)?)?;
    let outcome = &report.outcomes[0];
    let Some((made, artifact)) = outcome.held_against(name) else { return Ok(()) };
    let Some(built) = file_of(builder, outcome, artifact)? else { return Ok(()) };
    let evidence = Evidence { reference: &reference, published: path, built: &built, sdist: &sdist, name, made };
    let found = causes(&evidence)?;
    // What the sdist told is better founded than what the two wheels alone let guess.
    report.causes.retain(|cause| !found.iter().any(|other| other.label == cause.label));
    report.causes.splice(0..0, found);
    if let Some(rebuilt) = &mut report.rebuild
        && !report.causes.is_empty()
        && rebuilt.explained == Explained::No
    {
        rebuilt.explained = Explained::Suspected;
    }
    Ok(())
}

/// What is held against each other.
struct Evidence<'a> {
    /// The published wheel, read.
    reference: &'a Reference,
    /// Where it is.
    published: &'a Path,
    /// Where the one that was built is.
    built: &'a Path,
    /// What both were built from.
    sdist: &'a Sdist,
    /// The published file's name.
    name: &'a str,
    /// The name of what was built.
    made: &'a str,
}

/// The causes that can be told, those of contents first.
fn causes(evidence: &Evidence<'_>) -> Result<Vec<Cause>, WheelError> {
    let ours = Archive::open(evidence.built)?.digests()?;
    let mut causes = Vec::new();
    causes.extend(native_extension(evidence, &ours));
    causes.extend(time_zone(evidence));
    causes.extend(dependency_version(evidence, &ours)?);
    causes.extend(file_times(evidence));
    Ok(causes)
}

impl Evidence<'_> {
    fn cause(&self, label: Label, confidence: Confidence, evidence: String) -> Cause {
        Cause {
            label,
            factor: None,
            confidence,
            output: "out".into(),
            path: EntryPath::from(self.name),
            evidence,
            setting: None,
        }
    }

    /// Each file that the sdist has with the same bytes under the same last name: its time there and in the reference.
    /// What the backend wrote itself is left out: it may have been in the sdist before.
    fn pairs(&self) -> Vec<(i64, Stamp)> {
        let files = self.reference.files.iter().filter(|(path, _)| !path.contains(".dist-info/"));
        let pair = |(path, file): (&String, &super::reference::File)| {
            let base = path.rsplit('/').next().unwrap_or(path);
            let time = self.sdist.times.get(&(file.sha256, base.to_string()))?.as_ref()?;
            Some((*time, file.stamp?))
        };
        files.filter_map(pair).collect()
    }
}

/// What is compiled depends on more than sources: whether it is at all, the compiler, and tools that change the wheel afterwards.
fn native_extension(evidence: &Evidence<'_>, ours: &BTreeMap<String, (Digest, u64)>) -> Option<Cause> {
    let theirs = evidence.reference.extension_modules();
    let made = extension_modules(ours.keys().map(String::as_str));
    let missing: BTreeSet<&str> = theirs.difference(&made).copied().collect();
    let same = |file: &&&str| {
        let published = evidence.reference.files.get(**file).map(|file| file.sha256);
        published == ours.get(**file).map(|(sha256, _)| *sha256)
    };
    let other: BTreeSet<&str> = theirs.intersection(&made).filter(|file| !same(file)).copied().collect();
    let modules = |count: usize| format!("{count} extension module{}", if count == 1 { "" } else { "s" });
    let mut told = Vec::new();
    if !missing.is_empty() {
        told.push(format!("reference has {} this build does not make: {}", modules(missing.len()), listed(&missing)));
    }
    if !other.is_empty() {
        told.push(format!(
            "{} of the reference with other machine code here: {}",
            modules(other.len()),
            listed(&other)
        ));
    }
    if !theirs.is_empty() && evidence.name != evidence.made {
        told.push(format!(
            "this build makes {}: the reference was given its tags afterwards, or compiled elsewhere",
            evidence.made
        ));
    }
    let text = told.join("; ");
    (!text.is_empty()).then(|| evidence.cause(Label::NativeExtension, Confidence::Likely, text))
}

fn time_zone(evidence: &Evidence<'_>) -> Option<Cause> {
    let pairs = evidence.pairs();
    let zone = times::zone(&pairs)?;
    let text = format!(
        "{} files of the sdist have times of {zone} in the reference: it was built where that was local time",
        pairs.len()
    );
    Some(Cause {
        factor: Some(Factor::TimeZone),
        setting: Some(Setting::new(SettingName::TimeZone, zone.posix())),
        ..evidence.cause(Label::Tz, Confidence::Likely, text)
    })
}

/// setuptools gives each member the time of its file, if no epoch is set: sources that of the sdist, what it writes itself that
/// of the build.
fn file_times(evidence: &Evidence<'_>) -> Option<Cause> {
    let backend = evidence.reference.backend.as_ref()?;
    let stamps: BTreeSet<Stamp> = evidence.reference.files.values().filter_map(|file| file.stamp).collect();
    if !matches!(backend.program, Program::Setuptools | Program::BdistWheel) || stamps.len() < 2 {
        return None;
    }
    let pairs = evidence.pairs();
    let kept = pairs.iter().filter(|&&(utc, stamp)| Stamp::from_seconds(utc) == Some(stamp)).count();
    let (first, last) = (stamps.first()?, stamps.last()?);
    let text = match kept {
        0 => format!(
            "members of the reference have {} times from {first} to {last}: those of files when it was built",
            stamps.len()
        ),
        kept => format!(
            "{kept} members of the reference have the times of the sdist's files, {} others were written at the build, until {last}",
            evidence.reference.files.len() - kept
        ),
    };
    Some(evidence.cause(Label::FileTimes, Confidence::Likely, text))
}

/// Where the sources agree and what a backend writes about them does not, another version of the backend wrote it.
fn dependency_version(
    evidence: &Evidence<'_>,
    ours: &BTreeMap<String, (Digest, u64)>,
) -> Result<Option<Cause>, WheelError> {
    let theirs = &evidence.reference.files;
    let names: BTreeSet<&String> = theirs.keys().chain(ours.keys()).collect();
    let same = |name: &str| theirs.get(name).map(|file| file.sha256) == ours.get(name).map(|(sha256, _)| *sha256);
    let differing: BTreeSet<&str> = names
        .into_iter()
        .map(String::as_str)
        .filter(|name| !same(name) && !name.ends_with(".dist-info/RECORD"))
        .collect();
    let about = |name: &&str| name.contains(".dist-info/");
    if differing.is_empty() || !differing.iter().all(about) {
        return Ok(None);
    }
    let mut text = format!("the sources agree, and what was written about them does not: {}", listed(&differing));
    if let Some(backend) = evidence.reference.backend.as_ref()
        && backend.program == Program::BdistWheel
    {
        text.push_str("; setuptools wrote it, and the reference does not record its version");
    }
    if evidence.name != evidence.made && evidence.reference.name.is_pure() {
        text.push_str(&format!("; this build makes {}: the publisher's was asked for other tags", evidence.made));
    }
    let metadata = differing.iter().find(|name| name.ends_with(".dist-info/METADATA"));
    if let Some(name) = metadata
        && let Some(theirs) = Archive::open(evidence.published)?.read(name, METADATA)?
        && let Some(ours) = Archive::open(evidence.built)?.read(name, METADATA)?
        && theirs != ours
        && without_returns(&theirs) == without_returns(&ours)
    {
        text.push_str("; METADATA differs in its line ends only, which are those of Windows in one of the two");
    }
    Ok(Some(evidence.cause(Label::DependencyVersion, Confidence::Suspected, text)))
}

fn without_returns(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().copied().filter(|byte| *byte != b'\r').collect()
}

fn listed(names: &BTreeSet<&str>) -> String {
    let named: Vec<&str> = names.iter().copied().take(NAMED).collect();
    match names.len().saturating_sub(NAMED) {
        0 => named.join(", "),
        more => format!("{} and {more} more", named.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::{self, Files};
    use super::*;
    use kiln_model::format::pyproject::BuildSystem;

    const NAME: &str = "a-1-py3-none-any.whl";

    /// The causes told of two wheels, where the sdist has `a/__init__.py` with this time of 2026-08-01.
    fn told(theirs: &Files, ours: &Files, sdist: (i64, i64)) -> Vec<Cause> {
        told_as(NAME, theirs, ours, sdist)
    }

    /// The same, where what was built has this name.
    fn told_as(made: &str, theirs: &Files, ours: &Files, sdist: (i64, i64)) -> Vec<Cause> {
        let [published, built] = [theirs, ours].map(|files| {
            let file = tempfile::NamedTempFile::new().unwrap();
            samples::packed(file.path(), files);
            file
        });
        let reference = Reference::open(published.path(), &NAME.parse().unwrap()).unwrap();
        // 2026-08-01 00:00 UTC
        let time = 1_785_542_400 + sdist.0 * 3600 + sdist.1 * 60;
        let sdist = Sdist {
            directory: "a-1".into(),
            system: BuildSystem::legacy(),
            times: BTreeMap::from([((Digest::of("pass\n"), "__init__.py".to_string()), Some(time))]),
        };
        let (published, built) = (published.path(), built.path());
        let evidence = Evidence { reference: &reference, published, built, sdist: &sdist, name: NAME, made };
        causes(&evidence).unwrap()
    }

    fn labels(causes: &[Cause]) -> Vec<Label> {
        causes.iter().map(|cause| cause.label).collect()
    }

    #[test]
    fn local_times_tell_the_zone_and_the_setting_that_would_prove_it() {
        let wheel = samples::files("a", "1", "flit 4.1.0", &[]);
        let causes = told(&wheel, &wheel, (17, 0));
        assert_eq!(labels(&causes), [Label::Tz]);
        assert_eq!(causes[0].setting.as_ref().unwrap().to_string(), "time-zone=<-05>5");
        assert_eq!(told(&wheel, &wheel, (12, 0)), []);
        assert_eq!(told(&wheel, &wheel, (12, 7)), []);
    }

    #[test]
    fn extension_modules_that_are_not_made_are_counted() {
        let ours = samples::files("a", "1", "setuptools (84.0.0)", &[]);
        let mut theirs = ours.clone();
        theirs.push(("a/fast.cpython-311-x86_64-linux-gnu.so".into(), b"\x7fELF".to_vec(), (12, 0)));
        samples::record(&mut theirs, "a-1.dist-info");
        let causes = told(&theirs, &ours, (12, 0));
        assert_eq!(labels(&causes), [Label::NativeExtension]);
        assert!(causes[0].evidence.starts_with("reference has 1 extension module this build does not make: a/fast"));
        let mut compiled = theirs.clone();
        compiled[3].1 = b"\x7fELF, but other".to_vec();
        samples::record(&mut compiled, "a-1.dist-info");
        let causes = told_as("a-1-cp311-cp311-linux_x86_64.whl", &theirs, &compiled, (12, 0));
        assert_eq!(labels(&causes), [Label::NativeExtension]);
        assert!(causes[0].evidence.contains("1 extension module of the reference with other machine code"));
        assert!(causes[0].evidence.contains("makes a-1-cp311-cp311-linux_x86_64.whl"), "{}", causes[0].evidence);
        // The other way round nothing is missing.
        assert_eq!(labels(&told(&ours, &theirs, (12, 0))), []);
    }

    #[test]
    fn times_of_files_in_a_wheel_of_setuptools_are_told_and_in_others_not() {
        let theirs = |generator: &str| {
            let mut files = samples::files("a", "1", generator, &[]);
            files[0].2 = (11, 30);
            files
        };
        let causes = told(&theirs("setuptools (84.0.0)"), &theirs("setuptools (84.0.0)"), (11, 30));
        assert_eq!(labels(&causes), [Label::FileTimes]);
        assert!(causes[0].evidence.contains("1 members of the reference have the times"), "{}", causes[0].evidence);
        assert_eq!(told(&theirs("hatchling 1.0"), &theirs("hatchling 1.0"), (11, 30)), []);
    }

    #[test]
    fn metadata_alone_point_at_the_version_that_wrote_them() {
        let theirs = samples::files("a", "1", "bdist_wheel (0.42.0)", &["b"]);
        let ours = samples::files("a", "1", "bdist_wheel (0.42.0)", &["b>=1"]);
        let causes = told(&theirs, &ours, (12, 0));
        assert_eq!(labels(&causes), [Label::DependencyVersion]);
        assert!(causes[0].evidence.contains("does not record its version"), "{}", causes[0].evidence);
        assert!(!causes[0].evidence.contains("Windows"));
        let mut windows = theirs.clone();
        windows[1].1 = String::from_utf8(theirs[1].1.clone()).unwrap().replace('\n', "\r\n").into_bytes();
        samples::record(&mut windows, "a-1.dist-info");
        assert!(told(&windows, &theirs, (12, 0))[0].evidence.contains("Windows"));
        let mut source = theirs.clone();
        source[0].1 = b"other\n".to_vec();
        samples::record(&mut source, "a-1.dist-info");
        assert_eq!(labels(&told(&theirs, &source, (12, 0))), []);
    }
}
