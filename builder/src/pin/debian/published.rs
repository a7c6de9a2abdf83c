//! What signed indices say of a source package: its versions, and the binary packages that are published of it.

use std::collections::{BTreeMap, BTreeSet};

use kiln_model::format::packages;
use kiln_model::format::sources;
use kiln_model::lock::LockedFile;

use super::{Indices, PinError, SourcesIndex, lock_source};

/// A source package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Logical archive.
    pub archive: String,
    /// Its files, sorted by path.
    pub files: Vec<LockedFile>,
    /// `Build-Depends`, `Build-Depends-Arch`, `Build-Depends-Indep`, in this order.
    pub build_depends: [String; 3],
}

/// A binary package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binary {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its architecture.
    pub architecture: String,
    /// Version of the source package that it was built from.
    pub source_version: String,
    /// Logical archive.
    pub archive: String,
    /// The file: path in that archive, bytes, digest.
    pub file: LockedFile,
}

/// A source package and what is published of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// Name of the source.
    pub name: String,
    /// Its versions, the highest first.
    pub sources: Vec<Source>,
    /// Its binary packages of all versions, by name, then architecture, the highest version first.
    pub binaries: Vec<Binary>,
}

/// What some names mean.
#[derive(Debug, Clone, Default)]
pub struct PublishedOf {
    /// The source package of each name.
    pub sources: BTreeMap<String, String>,
    /// What is published of each source.
    pub published: BTreeMap<String, Published>,
}

impl Indices {
    /// What is published of the source package `name`, or of the one that makes the binary package `name`.
    pub fn published(&self, name: &str) -> Result<Published, PinError> {
        let sources = self.sources_named(name)?;
        let source = match sources.is_empty() {
            false => Some(name.to_string()),
            true => self.source_of_binary(name)?,
        };
        let Some(source) = source else {
            return Err(PinError::UnknownSource { wanted: name.into(), there: Vec::new() });
        };
        let sources = if sources.is_empty() { self.sources_named(&source)? } else { sources };
        let binaries = self.binaries_of(&source)?;
        Ok(Published { name: source, sources, binaries })
    }

    /// What is published of the sources that these names mean, and which source each means: as [`Indices::published`], in one
    /// pass for all. A name that nothing has is left out.
    pub fn published_of(&self, names: &BTreeSet<&str>) -> Result<PublishedOf, PinError> {
        let mut sources_of: BTreeMap<String, String> = BTreeMap::new();
        for source in self.sources_where(|name| names.contains(name))? {
            sources_of.insert(source.name.clone(), source.name);
        }
        let mut best: BTreeMap<&str, (String, String)> = BTreeMap::new();
        self.binaries(|_, binary| {
            let Some(name) = names.get(binary.name).filter(|name| !sources_of.contains_key(**name)) else { return };
            let version = binary.version.as_str();
            if best.get(name).is_none_or(|(other, _)| by_version(version, other).is_gt()) {
                best.insert(name, (version.into(), binary.source_package().0.into()));
            }
        })?;
        sources_of.extend(best.into_iter().map(|(name, (_, source))| (name.to_string(), source)));
        let wanted: BTreeSet<&str> = sources_of.values().map(String::as_str).collect();
        let new = |name: &&str| {
            let published = Published { name: name.to_string(), sources: Vec::new(), binaries: Vec::new() };
            (name.to_string(), published)
        };
        let mut published: BTreeMap<String, Published> = wanted.iter().map(new).collect();
        for source in self.sources_where(|name| wanted.contains(name))? {
            published.entry(source.name.clone()).and_modify(|published| published.sources.push(source));
        }
        for (of, binary) in self.binaries_where(|source| wanted.contains(source))? {
            published.entry(of).and_modify(|published| published.binaries.push(binary));
        }
        Ok(PublishedOf { sources: sources_of, published })
    }

    fn sources_named(&self, name: &str) -> Result<Vec<Source>, PinError> {
        self.sources_where(|other| other == name)
    }

    /// The sources of these names, by name, the highest version first.
    fn sources_where(&self, wanted: impl Fn(&str) -> bool) -> Result<Vec<Source>, PinError> {
        debug_assert!(!self.sources.is_empty() || self.suites.is_empty(), "fetched with {:?}", SourcesIndex::Read);
        let mut found: Vec<Source> = Vec::new();
        let mut order = Vec::new();
        for (n, text) in self.sources.iter().enumerate() {
            let archive = &self.suites[n].entry.archive;
            let each = |source: sources::Source<'_>| {
                let super::PinnedSource { name, version, archive, files } = lock_source(&source, archive);
                let build_depends = source.build_depends.map(str::to_string);
                found.push(Source { name, version, archive, files, build_depends });
                Ok::<_, packages::IndexError>(())
            };
            sources::read(text, &wanted, each)
                .map_err(|source| PinError::Index { file: self.sources_file(n), source })?;
            order.resize(found.len(), n);
        }
        let mut found: Vec<(usize, Source)> = order.into_iter().zip(found).collect();
        found.sort_by(|(n, a), (m, b)| {
            a.name.cmp(&b.name).then_with(|| by_version(&b.version, &a.version)).then(n.cmp(m))
        });
        found.dedup_by(|(_, later), (_, first)| (&later.name, &later.version) == (&first.name, &first.version));
        Ok(found.into_iter().map(|(_, source)| source).collect())
    }

    /// Calls `each` for the packages of all suites.
    fn binaries(&self, mut each: impl FnMut(usize, packages::Binary<'_>)) -> Result<(), PinError> {
        for (n, text) in self.packages.iter().enumerate() {
            packages::read(text, |binary| {
                each(n, binary);
                Ok::<_, packages::IndexError>(())
            })
            .map_err(|source| PinError::Index { file: self.packages_file(n), source })?;
        }
        Ok(())
    }

    /// The versions of some packages, by name, the highest first.
    pub fn versions(&self, names: &BTreeSet<&str>) -> Result<BTreeMap<String, Vec<String>>, PinError> {
        let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
        self.binaries(|_, binary| {
            if names.contains(binary.name) {
                found.entry(binary.name.into()).or_default().push(binary.version.to_string());
            }
        })?;
        for versions in found.values_mut() {
            versions.sort_by(|a, b| by_version(b, a));
            versions.dedup();
        }
        Ok(found)
    }

    fn source_of_binary(&self, name: &str) -> Result<Option<String>, PinError> {
        let mut best: Option<(String, String)> = None;
        self.binaries(|_, binary| {
            let version = binary.version.as_str();
            if binary.name == name && best.as_ref().is_none_or(|(other, _)| by_version(version, other).is_gt()) {
                best = Some((version.into(), binary.source_package().0.into()));
            }
        })?;
        Ok(best.map(|(_, source)| source))
    }

    fn binaries_of(&self, source: &str) -> Result<Vec<Binary>, PinError> {
        Ok(self.binaries_where(|other| other == source)?.into_iter().map(|(_, binary)| binary).collect())
    }

    /// The packages of these sources, each with its source: by name, then architecture, the highest version first.
    fn binaries_where(&self, wanted: impl Fn(&str) -> bool) -> Result<Vec<(String, Binary)>, PinError> {
        let mut found: Vec<(String, Binary)> = Vec::new();
        self.binaries(|n, binary| {
            let (of, source_version) = binary.source_package();
            if wanted(of) {
                let one = Binary {
                    name: binary.name.into(),
                    version: binary.version.to_string(),
                    architecture: binary.architecture.into(),
                    source_version: source_version.into(),
                    archive: self.suites[n].entry.archive.clone(),
                    file: LockedFile { path: binary.filename.into(), size: binary.size, sha256: binary.sha256 },
                };
                found.push((of.into(), one));
            }
        })?;
        // Stable: of two that are the same, the preferred suite's stays first.
        found.sort_by(|(of, a), (from, b)| {
            let names = (of, &a.name, &a.architecture).cmp(&(from, &b.name, &b.architecture));
            names.then_with(|| by_version(&b.version, &a.version))
        });
        found.dedup_by(|(from, later), (of, first)| {
            (from, &later.name, &later.architecture, &later.version)
                == (of, &first.name, &first.architecture, &first.version)
        });
        Ok(found)
    }
}

/// The order of versions; text that is none comes first, in its own order.
pub(crate) fn by_version(a: &str, b: &str) -> std::cmp::Ordering {
    use kiln_model::debian::version::Version;
    match (Version::parse(a), Version::parse(b)) {
        (Ok(a), Ok(b)) => a.cmp(&b),
        (a, b) => a.is_ok().cmp(&b.is_ok()),
    }
}
