//! A `.buildinfo` as a target: the recorded environment, path, options and entry, as far as they are still to be had.
//!
//! It carries no digests of what was installed: versions are looked up in the signed indices. All that are gone are listed at once;
//! nearest ones stand in for them only if that was asked for, and the report says how far that is from the record.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use kiln_model::debian::build::Scope;
use kiln_model::debian::changelog::Entry;
use kiln_model::format::buildinfo::{Buildinfo, Installed};
use kiln_model::format::sources;
use kiln_model::report::{EnvironmentKind, Missing, VersionDiffers};

use super::given::{self, GivenError};
use super::{ARCHITECTURE, DebianError, Planning, SourceFrom, Wish, planned_file};
use crate::pin::debian::{Indices, by_version};
use crate::rebuild::plan::PlannedFile;
use crate::rebuild::rebuilding::{Planned, RebuildError};
use crate::rebuild::setting::Substitute;

/// Where kiln's builds have their build directory.
const TOP: &str = "/build/";

impl Planning<'_, '_, '_> {
    /// The build that a builder recorded.
    pub(super) fn by_buildinfo(&self, path: &Path) -> Result<Planned, RebuildError> {
        let (text, note) = self.signed_text(path).map_err(DebianError::from)?;
        let info = Buildinfo::parse(&text)
            .map_err(|source| DebianError::from(GivenError::Malformed { path: path.into(), source }))?;
        let title = format!("{} {}", info.source, info.source_version);
        let nothing = |what: String| vec![Missing { what, tries: Vec::new() }];
        if info.build_architecture != ARCHITECTURE {
            let what = format!("a builder for {}: this kiln builds for {ARCHITECTURE}", info.build_architecture);
            return Ok(self.inconclusive(title, nothing(what)));
        }
        let indices = match self.indices()? {
            Ok(indices) => indices,
            Err(missing) => return Ok(self.inconclusive(title, missing)),
        };
        let published = match self.recorded_files(path, &info, &indices)? {
            published if published.is_empty() => {
                return Ok(self.inconclusive(title, nothing("reference: the record names no binary package".into())));
            }
            published => published,
        };
        let beside = path.with_file_name(format!(
            "{}_{}.dsc",
            info.source,
            kiln_model::debian::build::without_epoch(&info.source_version)
        ));
        let dsc = match beside.is_file() {
            true => Some(self.signed_text(&beside).map_err(DebianError::from)?),
            false => None,
        };
        let sources = match dsc {
            Some(_) => Vec::new(),
            None => match indices.published(&info.source) {
                Ok(published) => published.sources,
                Err(crate::pin::debian::PinError::UnknownSource { .. }) => Vec::new(),
                Err(error) => return Err(self.pin_error(error.into())),
            },
        };
        let from = match &dsc {
            Some((text, _)) => {
                let source = sources::dsc(text)
                    .map_err(|source| DebianError::from(GivenError::Malformed { path: beside.clone(), source }))?;
                match given::source_beside(&beside, &source).map_err(DebianError::from)? {
                    Ok(from) => from,
                    Err(missing) => return Ok(self.inconclusive(title, missing)),
                }
            }
            None => match sources.iter().find(|s| s.name == info.source && s.version == info.source_version) {
                Some(source) => SourceFrom::Archive(source),
                None => {
                    let what = format!("source {title} is in no index of {}", indices.suites().join(", "));
                    return Ok(self.inconclusive(title, nothing(what)));
                }
            },
        };
        let environment = self.recorded_environment(&info, &indices)?;
        let environment = match environment {
            Ok(environment) => environment,
            Err(missing) => return Ok(self.inconclusive(title, missing)),
        };
        let mut wish = Wish::new(path.display().to_string(), &info.source, &info.source_version, from);
        wish.notes.push(note);
        wish.published = published;
        wish.packages = environment.packages;
        wish.environment = environment.kind;
        wish.differs = environment.differs;
        wish.scope = scope(&info);
        if let Some(changes) = &info.binary_only_changes {
            let text = entry(changes);
            let date = Entry::newest(&text).map(|entry| entry.date).map_err(|error| {
                let source = kiln_model::format::packages::IndexError::Value {
                    line: 1,
                    package: info.source.clone(),
                    field: "Binary-Only-Changes",
                    expected: "an entry of a changelog",
                    found: error.to_string(),
                };
                DebianError::from(GivenError::Malformed { path: path.into(), source })
            })?;
            wish.entry = Some((text, date));
        }
        if let Some(recorded) = &info.path {
            match below_top(recorded) {
                Some(place) => wish.place = Some(place.into()),
                None => {
                    let note = format!("it was built in {recorded}, which is not below {TOP}: built elsewhere");
                    wish.notes.push(note);
                }
            }
        }
        wish.epoch = info.environment.get("SOURCE_DATE_EPOCH").and_then(|epoch| epoch.parse().ok());
        let options = info.environment.get("DEB_BUILD_OPTIONS").map(String::as_str).unwrap_or_default();
        let words = options.split_ascii_whitespace().filter(|word| !word.starts_with("parallel"));
        wish.options = words.map(str::to_string).collect();
        let set_elsewhere = ["SOURCE_DATE_EPOCH", "DEB_BUILD_OPTIONS"];
        let variables = info.environment.iter().filter(|(key, _)| !set_elsewhere.contains(&key.as_str()));
        wish.variables = variables.map(|(key, value)| (key.clone(), value.clone())).collect();
        self.plan_of(&indices, wish)
    }

    /// The packages that the record says were made: those beside it are held against it, the others may be in the archive.
    fn recorded_files(
        &self,
        path: &Path,
        info: &Buildinfo,
        indices: &Indices,
    ) -> Result<BTreeMap<String, (PlannedFile, Option<std::path::PathBuf>)>, RebuildError> {
        let in_archive: BTreeMap<String, PlannedFile> =
            self.binaries(indices, &info.source)?.iter().map(planned_file).collect();
        let mut published = BTreeMap::new();
        for file in info.files.iter().filter(|file| file.name.ends_with(".deb")) {
            let beside = path.with_file_name(&file.name);
            let here = match std::fs::metadata(&beside) {
                Ok(meta) => {
                    given::held(&beside, path, meta.len(), file.size, file.sha256).map_err(DebianError::from)?;
                    Some(beside)
                }
                Err(_) => None,
            };
            let at = in_archive.get(&file.name).filter(|found| found.sha256 == file.sha256).and_then(|f| f.at.clone());
            let planned = PlannedFile { sha256: file.sha256, size: Some(file.size), at };
            published.insert(file.name.clone(), (planned, here));
        }
        Ok(published)
    }

    fn recorded_environment(
        &self,
        info: &Buildinfo,
        indices: &Indices,
    ) -> Result<Result<Environment, Vec<Missing>>, RebuildError> {
        let names: BTreeSet<&str> = info.installed.iter().map(|one| one.name.as_str()).collect();
        let there = indices.versions(&names).map_err(|e| self.pin_error(e.into()))?;
        Ok(environment(&info.installed, &there, self.rebuilding.settings.substitute))
    }
}

/// The environment that stands for a recorded one.
#[derive(Debug, PartialEq, Eq)]
struct Environment {
    packages: BTreeSet<String>,
    kind: EnvironmentKind,
    differs: Vec<VersionDiffers>,
}

fn environment(
    recorded: &BTreeSet<Installed>,
    there: &BTreeMap<String, Vec<String>>,
    substitute: Substitute,
) -> Result<Environment, Vec<Missing>> {
    let (mut packages, mut differs, mut missing) = (BTreeSet::new(), Vec::new(), Vec::new());
    for one in recorded {
        let native = one.architecture.as_deref().is_none_or(|architecture| architecture == ARCHITECTURE);
        let versions = there.get(&one.name).filter(|_| native).map_or(&[][..], Vec::as_slice);
        if versions.contains(&one.version) {
            packages.insert(format!("{} (= {})", one.name, one.version));
            continue;
        }
        match substitute {
            Substitute::None => {
                let have = match versions {
                    [] => "no index has any".to_string(),
                    versions => format!("the indices have {}", versions.join(", ")),
                };
                missing
                    .push(Missing { what: format!("package {} {}: {have}", one.name, one.version), tries: Vec::new() });
            }
            Substitute::Nearest => {
                let used = nearest(&one.version, versions).map(str::to_string);
                packages.extend(used.iter().map(|version| format!("{} (= {version})", one.name)));
                differs.push(VersionDiffers { name: one.name.clone(), recorded: Some(one.version.clone()), used });
            }
        }
    }
    let kind = if differs.is_empty() { EnvironmentKind::Recorded } else { EnvironmentKind::Substituted };
    if missing.is_empty() { Ok(Environment { packages, kind, differs }) } else { Err(missing) }
}

/// The lowest version that is not lower, since fixes come later; else the highest.
fn nearest<'v>(wanted: &str, versions: &'v [String]) -> Option<&'v str> {
    let later = versions.iter().filter(|version| by_version(version, wanted).is_gt());
    later.min_by(|a, b| by_version(a, b)).or_else(|| versions.first()).map(String::as_str)
}

fn scope(info: &Buildinfo) -> Scope {
    let all = info.architectures.contains("all");
    let dependent = info.architectures.iter().any(|architecture| architecture != "all" && architecture != "source");
    match (dependent, all) {
        (true, false) => Scope::Dependent,
        (false, true) => Scope::Independent,
        (true, true) | (false, false) => Scope::All,
    }
}

/// The entry in a `Binary-Only-Changes` field: each line after a blank, empty ones as a full stop (deb-buildinfo(5)).
fn entry(field: &str) -> String {
    let mut text = String::new();
    for line in field.trim_start_matches('\n').split('\n') {
        let line = line.strip_prefix(' ').unwrap_or(line);
        text.push_str(if line == "." { "" } else { line });
        text.push('\n');
    }
    text
}

/// Where a recorded path lies below the build directory, if it does and stays there.
fn below_top(path: &str) -> Option<&str> {
    let place = path.strip_prefix(TOP)?;
    let plain = |part: &str| !matches!(part, "" | "." | "..");
    let fits = |b: u8| b.is_ascii_graphic() && !b"'\"\\".contains(&b);
    (place.contains('/') && place.split('/').all(plain) && place.bytes().all(fits)).then_some(place)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recorded(packages: &[(&str, &str)]) -> BTreeSet<Installed> {
        let one = |(name, version): &(&str, &str)| Installed {
            name: name.to_string(),
            architecture: None,
            version: version.to_string(),
        };
        packages.iter().map(one).collect()
    }

    fn there() -> BTreeMap<String, Vec<String>> {
        let versions = |all: &[&str]| all.iter().map(|v| v.to_string()).collect();
        BTreeMap::from([("gcc".to_string(), versions(&["12.3", "12.2", "11"])), ("make".into(), versions(&["4"]))])
    }

    #[test]
    fn versions_that_are_gone_are_all_listed_unless_nearest_ones_are_asked_for() {
        let wanted = recorded(&[("gcc", "12.1"), ("gone", "1"), ("make", "4")]);
        let missing = environment(&wanted, &there(), Substitute::None).unwrap_err();
        assert_eq!(missing.len(), 2);
        assert!(missing[0].what.contains("12.3, 12.2, 11"), "{missing:?}");
        let got = environment(&wanted, &there(), Substitute::Nearest).unwrap();
        assert_eq!(got.kind, EnvironmentKind::Substituted);
        assert_eq!(got.packages, BTreeSet::from(["gcc (= 12.2)".to_string(), "make (= 4)".into()]));
        assert_eq!(got.differs[0].used.as_deref(), Some("12.2"));
        assert_eq!(got.differs[1].used, None);
        let exact = environment(&recorded(&[("make", "4")]), &there(), Substitute::None).unwrap();
        assert_eq!(exact.kind, EnvironmentKind::Recorded);
    }

    #[test]
    fn after_the_highest_version_there_is_the_highest_is_nearest() {
        assert_eq!(nearest("13", &there()["gcc"]), Some("12.3"));
        assert_eq!(nearest("1", &there()["gcc"]), Some("11"));
        assert_eq!(nearest("1", &[]), None);
    }

    #[test]
    fn an_entry_is_read_as_it_was_before_it_was_a_field() {
        let field = "\n hello (1+b1) sid; urgency=low, binary-only=yes\n .\n   * Rebuild.\n .\n  -- A <a@b>  Thu, 01 Jan 1970 00:00:09 +0000";
        let text = entry(field);
        let entry = Entry::newest(&text).unwrap();
        assert_eq!((entry.version, entry.date), ("1+b1", 9));
        assert!(entry.is_binary_only());
    }

    #[test]
    fn only_a_path_below_the_build_directory_is_taken_over() {
        assert_eq!(below_top("/build/reproducible-path/hello-2.10"), Some("reproducible-path/hello-2.10"));
        assert_eq!(below_top("/build/bash-JdLUFi/bash-5.2"), Some("bash-JdLUFi/bash-5.2"));
        for path in ["/usr/src/x/y", "/build/x", "/build/../etc/x", "/build//x/y", "build/x/y", "/build/a/'b"] {
            assert_eq!(below_top(path), None, "{path}");
        }
    }
}
