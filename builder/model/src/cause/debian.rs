//! Causes that show in Debian packages: trimmed changelogs, dependencies, binary-only rebuilds, revisions of the compiler.

use super::{Clue, SettingName, at, line_pairs};
use crate::normalise::Normaliser;
use crate::report::{Aspect, Confidence, Detail, Difference};
use crate::variation::Label;

/// Fields of a control file that name versions of what was built against.
const DEPENDENCIES: [&str; 6] =
    ["Depends", "Pre-Depends", "Recommends", "Suggests", "Built-Using", "Installed-Build-Depends"];

pub(super) fn clues(difference: &Difference) -> Vec<Clue> {
    let mut clues = Vec::new();
    for detail in &difference.details {
        clues.extend(changelog(detail));
        clues.extend(dependency(detail));
        clues.extend(debhelper(detail));
        clues.extend(binnmu(detail));
        clues.extend(compiler(detail));
    }
    clues.extend(build_id_alone(difference));
    clues
}

/// Whether these are packages of two versions, none a binary-only rebuild of the other.
pub(super) fn is_other_version(difference: &Difference) -> bool {
    difference.details.iter().any(|d| field(d) == Some("Version") && binnmu(d).is_none())
}

fn changelog(detail: &Detail) -> Option<Clue> {
    if detail.normaliser != Some(Normaliser::ChangelogTrimming) {
        return None;
    }
    let entries = |text: &Option<String>| text.as_deref()?.split(' ').next()?.parse::<usize>().ok();
    let (ours, theirs) = (entries(&detail.first)?, entries(&detail.second)?);
    let evidence =
        format!("{}the first has {ours} entries and the second {theirs}; the newest are the same", at(detail));
    let clue = Clue::new(Label::ChangelogTrimming, Confidence::Likely, evidence);
    Some(if theirs > ours { clue.proved_by(SettingName::BuildOptions, "notrimdch") } else { clue })
}

/// A field's name at the end of a place: `control.tar.xz!control!Depends`.
fn field(detail: &Detail) -> Option<&str> {
    match detail.place.rsplit_once('!') {
        Some((before, field)) => before.ends_with("control").then_some(field),
        // What a .buildinfo says is not inside of anything.
        None => (detail.place == "Installed-Build-Depends").then_some(&detail.place),
    }
}

fn dependency(detail: &Detail) -> Vec<Clue> {
    let Some(name) = field(detail).filter(|f| DEPENDENCIES.contains(f)) else { return Vec::new() };
    let items = |text: &Option<String>| -> Vec<(String, String)> {
        let item = |item: &str| {
            let (package, rest) = item.trim().split_once(" (")?;
            let version = rest.trim_end_matches(')').rsplit(' ').next()?;
            Some((package.to_owned(), version.to_owned()))
        };
        text.as_deref().unwrap_or_default().split(',').filter_map(item).collect()
    };
    let (ours, theirs) = (items(&detail.first), items(&detail.second));
    let mut clues = Vec::new();
    for (package, version) in &theirs {
        let Some((_, own)) = ours.iter().find(|(p, v)| p == package && v != version) else { continue };
        let evidence = format!("{name} names {package} {own} in the first, {version} in the second");
        let clue = Clue::new(Label::DependencyVersion, Confidence::Likely, evidence);
        clues.push(clue.proved_by(SettingName::Pin, format!("{package}:{version}")));
    }
    clues
}

/// Helpers of debhelper write their version into what they make: `# Triggers added by dh_makeshlibs/13.10.1`.
fn debhelper(detail: &Detail) -> Option<Clue> {
    fn version(text: &str) -> Option<&str> {
        let (before, after) = text.split_once('/')?;
        let helper = before.rsplit(' ').next()?;
        let end = after.find(|c: char| !(c.is_ascii_alphanumeric() || ".~+-".contains(c))).unwrap_or(after.len());
        (helper.starts_with("dh_") && after.starts_with(|c: char| c.is_ascii_digit())).then_some(&after[..end])
    }
    let (ours, theirs) = line_pairs(detail).into_iter().find_map(|(a, b)| version(a).zip(version(b)))?;
    if ours == theirs {
        return None;
    }
    let evidence = format!("{}written by debhelper {ours} in the first, {theirs} in the second", at(detail));
    let clue = Clue::new(Label::DependencyVersion, Confidence::Likely, evidence);
    Some(clue.proved_by(SettingName::Pin, format!("debhelper:{theirs}")))
}

fn binnmu(detail: &Detail) -> Option<Clue> {
    if field(detail) != Some("Version") {
        return None;
    }
    let (a, b) = (detail.first.as_deref()?, detail.second.as_deref()?);
    let number = b.strip_prefix(a)?.strip_prefix("+b")?;
    number.parse::<u32>().ok()?;
    let evidence =
        format!("the version of the second is {b}: a binary-only rebuild, with a changelog entry of its own");
    Some(Clue::new(Label::BinNmu, Confidence::Likely, evidence).proved_by(SettingName::Changelog, "binnmu"))
}

/// A compiler that says who it is: `GCC: (Debian 12.2.0-14) 12.2.0`.
fn compiler(detail: &Detail) -> Option<Clue> {
    if detail.kind != Aspect::DebugInfo {
        return None;
    }
    let parts = |text: &str| -> Option<(String, String)> {
        let inner = text.strip_prefix("GCC: (")?;
        let (packaged, version) = inner.split_once(") ")?;
        Some((
            packaged.split_once(' ').map_or(packaged, |(_, revision)| revision).to_owned(),
            version.trim().to_owned(),
        ))
    };
    let (ours, theirs) = (parts(detail.first.as_deref()?)?, parts(detail.second.as_deref()?)?);
    if ours == theirs {
        return None;
    }
    let major = theirs.1.split('.').next().unwrap_or_default();
    let label = if ours.1 == theirs.1 { Label::CompilerRevision } else { Label::OlderToolchain };
    let evidence = format!("{}compiled by gcc {} in the first, {} in the second", at(detail), ours.0, theirs.0);
    Some(
        Clue::new(label, Confidence::Likely, evidence).proved_by(SettingName::Pin, format!("gcc-{major}:{}", theirs.0)),
    )
}

/// Nothing but build ids, and what follows from them: whatever fed them was stripped.
fn build_id_alone(difference: &Difference) -> Option<Clue> {
    let equivalence = difference.equivalence.as_ref()?;
    if equivalence.normalisers != [Normaliser::ElfBuildId] {
        return None;
    }
    let files = difference.details.iter().filter(|d| d.kind == Aspect::BuildId).count();
    let evidence = format!(
        "all code is equal; only the build ids of {files} file{} differ: another revision of the compiler does that, or debug information that was stripped",
        if files == 1 { "" } else { "s" }
    );
    Some(Clue::new(Label::CompilerRevision, Confidence::Suspected, evidence))
}

/// Code of one version of a package that differs, when nothing else says why.
pub(super) fn code(difference: &Difference) -> Option<Clue> {
    let name = difference.path.to_string();
    let package = name.ends_with(".deb") || difference.details.iter().any(|d| d.place.starts_with("data.tar"));
    let code = difference.details.iter().find(|d| d.kind == Aspect::Section && d.place.ends_with("!.text"))?;
    package.then(|| {
        let evidence = format!("{}code of the same version differs: another compiler, or other options", at(code));
        Clue::new(Label::OlderToolchain, Confidence::Suspected, evidence)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;
    use crate::outcome::EntryPath;
    use crate::report::{Equivalence, Kind, Line};

    fn differing(details: Vec<Detail>) -> Difference {
        let path = EntryPath::from("x_1_amd64.deb");
        Difference { details, ..Difference::new([0, 1], "out".parse().unwrap(), path, Kind::Content) }
    }

    fn named(difference: &Difference) -> Vec<(Label, Option<String>)> {
        super::super::clues(difference).into_iter().map(|c| (c.label, c.setting.map(|s| s.to_string()))).collect()
    }

    fn control(field: &str, a: &str, b: &str) -> Detail {
        Detail::new(format!("control.tar.xz!control!{field}"), Aspect::Value, "differs").between(a, b)
    }

    #[test]
    fn a_trimmed_changelog_names_the_option_that_keeps_it_whole() {
        let trimmed = Detail::new("data.tar.xz!usr/share/doc/x/changelog.gz", Aspect::Text, "")
            .between("1 entries", "9 entries")
            .under(Normaliser::ChangelogTrimming);
        assert_eq!(
            named(&differing(vec![trimmed])),
            [(Label::ChangelogTrimming, Some("build-options=notrimdch".into()))]
        );
        let other =
            Detail::new("x", Aspect::Text, "").between("9 entries", "1 entries").under(Normaliser::ChangelogTrimming);
        assert_eq!(named(&differing(vec![other])), [(Label::ChangelogTrimming, None)]);
    }

    #[test]
    fn a_dependency_of_another_version_is_pinned_to_the_references() {
        let depends = control("Depends", "perl (>= 5.36.0-7+deb12u4)", "perl (>= 5.36.0-7+deb12u3)");
        let found = named(&differing(vec![depends]));
        assert_eq!(found, [(Label::DependencyVersion, Some("pin=perl:5.36.0-7+deb12u3".into()))]);
        assert_eq!(named(&differing(vec![control("Depends", "perl", "python3")])), []);
        let recorded = Detail::new("Installed-Build-Depends", Aspect::Value, "differs");
        let recorded = recorded.between("gcc-12 (= 12.2.0-14+deb12u1)", "gcc-12 (= 12.2.0-14)");
        assert_eq!(
            named(&differing(vec![recorded])),
            [(Label::DependencyVersion, Some("pin=gcc-12:12.2.0-14".into()))]
        );
    }

    #[test]
    fn a_helper_that_signs_with_its_version_gives_it_away() {
        let line = |first, text: &str| Line {
            first: Some(1).filter(|_| first),
            second: Some(1).filter(|_| !first),
            text: text.into(),
        };
        let mut triggers = Detail::new("control.tar.xz!triggers", Aspect::Text, "");
        triggers.lines = vec![
            line(true, "# Triggers added by dh_makeshlibs/13.11.4"),
            line(false, "# Triggers added by dh_makeshlibs/13.10.1"),
        ];
        assert_eq!(
            named(&differing(vec![triggers])),
            [(Label::DependencyVersion, Some("pin=debhelper:13.10.1".into()))]
        );
    }

    #[test]
    fn a_binary_only_rebuild_is_known_by_its_version() {
        let found = named(&differing(vec![control("Version", "1:2.66-4", "1:2.66-4+b1")]));
        assert_eq!(found, [(Label::BinNmu, Some("changelog=binnmu".into()))]);
        assert_eq!(named(&differing(vec![control("Version", "1:2.66-4", "1:2.66-5")])), []);
    }

    #[test]
    fn build_ids_alone_are_the_compilers_revision_or_stripped() {
        let id =
            Detail::new("data.tar.xz!usr/bin/x!.note.gnu.build-id", Aspect::BuildId, "").under(Normaliser::ElfBuildId);
        let mut alone = differing(vec![id]);
        assert_eq!(named(&alone), []);
        let normalisers = vec![Normaliser::ElfBuildId];
        alone.equivalence = Some(Equivalence { normalisers, normalised: Digest::of("") });
        assert_eq!(named(&alone), [(Label::CompilerRevision, None)]);
    }

    #[test]
    fn a_compiler_that_names_its_revision_is_told_from_another_version() {
        let comment = |a, b| differing(vec![Detail::new("x!.comment", Aspect::DebugInfo, "").between(a, b)]);
        let revision = comment("GCC: (Debian 12.2.0-14+deb12u1) 12.2.0", "GCC: (Debian 12.2.0-14) 12.2.0");
        assert_eq!(named(&revision), [(Label::CompilerRevision, Some("pin=gcc-12:12.2.0-14".into()))]);
        let version = comment("GCC: (Debian 12.2.0-14) 12.2.0", "GCC: (Debian 10.2.1-6) 10.2.1");
        assert_eq!(named(&version), [(Label::OlderToolchain, Some("pin=gcc-10:10.2.1-6".into()))]);
    }

    #[test]
    fn code_that_differs_is_only_suspected_and_only_of_one_version() {
        let text = || Detail::new("data.tar.xz!usr/bin/x!.text", Aspect::Section, "");
        assert_eq!(named(&differing(vec![text()])), [(Label::OlderToolchain, None)]);
        assert_eq!(named(&differing(vec![text(), control("Version", "1", "2")])), []);
    }
}
