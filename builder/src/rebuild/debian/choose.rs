//! Which version of a source is meant, and which of what is published a build of it is held against.

use std::collections::BTreeSet;

use kiln_model::debian::build;
use kiln_model::report::Missing;

use crate::pin::debian::{Binary, Published};
use crate::rebuild::setting::Changelog;

/// Which version is to be rebuilt.
pub(super) enum Chosen {
    /// This version of the source.
    Source(String),
    /// The binary-only rebuild with this number, of this version of the source.
    BinaryOnly(String, u32),
    /// None that there is.
    Nothing(Vec<Missing>),
}

/// The version of `published` that `version` means: the source's, or a package's own; the newest, as apt would take it, if none
/// is named, and of that what the archive serves.
pub(super) fn choose(name: &str, published: &Published, version: Option<&str>) -> Chosen {
    let Some(version) = version else {
        let known = versions(published).next().or_else(|| published.sources.first().map(|source| &*source.version));
        let known = known.or_else(|| published.binaries.first().map(|binary| &*binary.source_version));
        let Some(known) = known else { return Chosen::Nothing(vec![unknown(name, "", published)]) };
        let served = published.binaries.iter().filter(|binary| binary.source_version == known);
        // `None` of one package, a plain build, makes it `None` for all.
        return match served.map(number).collect::<Option<BTreeSet<u32>>>().and_then(|all| all.last().copied()) {
            Some(number) => Chosen::BinaryOnly(known.to_owned(), number),
            None => Chosen::Source(known.to_owned()),
        };
    };
    if published.sources.iter().any(|source| source.version == version) || is_built(published, version) {
        return Chosen::Source(version.into());
    }
    let binary = published.binaries.iter().find(|binary| binary.version == version);
    match binary.map(|binary| (binary, number(binary))) {
        Some((binary, Some(number))) => Chosen::BinaryOnly(binary.source_version.clone(), number),
        Some((binary, None)) => Chosen::Source(binary.source_version.clone()),
        None => Chosen::Nothing(vec![unknown(name, version, published)]),
    }
}

/// Versions that there is a source and a package of, the newest first. Sources without a package of theirs are kept for others
/// that were built with them.
pub(super) fn versions(published: &Published) -> impl Iterator<Item = &str> {
    let there = published.sources.iter().map(|source| source.version.as_str());
    let mut there: Vec<&str> = there.filter(|version| is_built(published, version)).collect();
    there.dedup();
    there.into_iter()
}

/// The version of a package that binary-only rebuild `number` of this source version made.
pub(super) fn rebuilt(published: &Published, source: &str, asked: u32) -> Option<String> {
    let made = published.binaries.iter().filter(|binary| binary.source_version == source);
    made.filter(|binary| number(binary) == Some(asked)).map(|binary| binary.version.clone()).next()
}

fn is_built(published: &Published, version: &str) -> bool {
    published.binaries.iter().any(|binary| binary.source_version == version)
}

fn unknown(name: &str, version: &str, published: &Published) -> Missing {
    let sources = published.sources.iter().map(|source| source.version.as_str());
    let there: BTreeSet<&str> =
        sources.chain(published.binaries.iter().map(|binary| binary.version.as_str())).collect();
    let there: Vec<&str> = there.into_iter().collect();
    let what = format!("{} is in no index; there is {}", format!("{name} {version}").trim_end(), there.join(", "));
    Missing { what, tries: Vec::new() }
}

/// The number of a binary-only rebuild.
fn number(binary: &Binary) -> Option<u32> {
    let is_it = build::is_binary_only(&binary.version, &binary.source_version);
    is_it.then(|| build::binary_only(&binary.version).map(|(_, number)| number)).flatten()
}

/// Of the packages of one source version: those that a build with this changelog would make, and the others.
pub(super) fn references<'a>(
    binaries: &[&'a Binary],
    changelog: Changelog,
    asked: Option<u32>,
) -> (Vec<&'a Binary>, Vec<&'a Binary>) {
    let wanted = match changelog {
        Changelog::AsIs => None,
        Changelog::Binnmu => asked.or_else(|| binaries.iter().filter_map(|binary| number(binary)).max()),
    };
    let fits = |binary: &&Binary| match changelog {
        Changelog::AsIs => number(binary).is_none(),
        Changelog::Binnmu => number(binary).is_some() && number(binary) == wanted,
    };
    binaries.iter().copied().partition(fits)
}

/// What is missing if none of the packages of a source is one that a build with this changelog would make.
pub(super) fn no_reference(title: &str, changelog: Changelog, others: &[&Binary]) -> Missing {
    let names = titles(others);
    let what = match (others.is_empty(), changelog) {
        (true, _) => format!("reference for {title}: no index has a package that was built from it"),
        (false, Changelog::AsIs) => format!(
            "reference for a plain build of {title}: the archive holds only binary-only rebuilds ({names}); \
             --changelog binnmu rebuilds these"
        ),
        (false, Changelog::Binnmu) => {
            format!("reference for a binary-only rebuild of {title}: the archive has {names}")
        }
    };
    Missing { what, tries: Vec::new() }
}

/// Names and versions, for people.
pub(super) fn titles(binaries: &[&Binary]) -> String {
    binaries.iter().map(|binary| format!("{} {}", binary.name, binary.version)).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pin::debian::Source;
    use kiln_model::digest::Digest;
    use kiln_model::lock::LockedFile;

    fn published(sources: &[&str], binaries: &[(&str, &str)]) -> Published {
        let file = || LockedFile { path: "pool/a".into(), size: 1, sha256: Digest::of("") };
        let source = |version: &&str| Source {
            name: "a".into(),
            version: version.to_string(),
            archive: "debian".into(),
            files: Vec::new(),
            build_depends: Default::default(),
        };
        let binary = |(version, source_version): &(&str, &str)| Binary {
            name: "a".into(),
            version: version.to_string(),
            architecture: "amd64".into(),
            source_version: source_version.to_string(),
            archive: "debian".into(),
            file: file(),
        };
        Published {
            name: "a".into(),
            sources: sources.iter().map(source).collect(),
            binaries: binaries.iter().map(binary).collect(),
        }
    }

    #[test]
    fn the_version_is_the_sources_or_a_packages_and_of_several_the_newest() {
        let one = published(&["2", "1"], &[("2", "2")]);
        assert!(matches!(choose("a", &one, None), Chosen::Source(v) if v == "2"));
        assert!(matches!(choose("a", &one, Some("1")), Chosen::Source(v) if v == "1"));
        assert!(matches!(choose("a", &one, Some("3")), Chosen::Nothing(_)));
        let two = published(&["2", "1-10", "1-9"], &[("1-9", "1-9"), ("1-10", "1-10")]);
        assert!(matches!(choose("a", &two, None), Chosen::Source(v) if v == "1-10"), "2 has no package");
        assert_eq!(versions(&two).collect::<Vec<_>>(), ["1-10", "1-9"]);
        let sourceless = published(&[], &[("1-10", "1-10"), ("1-9", "1-9")]);
        assert!(matches!(choose("a", &sourceless, None), Chosen::Source(v) if v == "1-10"));
        let rebuilt = published(&["2"], &[("2+b3", "2")]);
        assert!(matches!(choose("a", &rebuilt, Some("2+b3")), Chosen::BinaryOnly(v, 3) if v == "2"));
        assert!(matches!(choose("a", &rebuilt, None), Chosen::BinaryOnly(v, 3) if v == "2"), "nothing else is served");
        assert!(matches!(choose("a", &rebuilt, Some("2")), Chosen::Source(v) if v == "2"), "it was asked for");
        assert_eq!(super::rebuilt(&rebuilt, "2", 3).as_deref(), Some("2+b3"), "and is asked for by that");
        assert_eq!(super::rebuilt(&rebuilt, "2", 2), None);
        let mixed = published(&["2"], &[("2+b3", "2"), ("2", "2")]);
        assert!(matches!(choose("a", &mixed, None), Chosen::Source(v) if v == "2"));
    }

    #[test]
    fn a_plain_build_is_never_held_against_a_binary_only_rebuild() {
        let some = published(&["2"], &[("2+b1", "2"), ("2+b2", "2"), ("2", "2")]);
        let all: Vec<&Binary> = some.binaries.iter().collect();
        let versions = |found: Vec<&Binary>| found.into_iter().map(|b| b.version.clone()).collect::<Vec<_>>();
        assert_eq!(versions(references(&all, Changelog::AsIs, None).0), ["2"]);
        assert_eq!(versions(references(&all, Changelog::Binnmu, None).0), ["2+b2"]);
        assert_eq!(versions(references(&all, Changelog::Binnmu, Some(1)).0), ["2+b1"]);
    }
}
