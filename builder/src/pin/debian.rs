//! Debian environments and sources: from suites and wishes to files with digests.
//!
//! InRelease, whose signature is checked, names the indices; the indices name the files; the resolver
//! ([`kiln_model::debian`]) says which are needed. The same indices and the same recipe give the same answer, whichever
//! mirrors they came from. All bytes come through [`Archives`]; the clock and the keyrings come in as [`Trust`].
//!
//! Limits: component `main`, one native architecture, indices that include `Architecture: all`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use kiln_model::debian::resolve::{self, ResolveError, Wishes};
use kiln_model::debian::universe::{Id, Offer, Universe, UniverseError};
use kiln_model::debian::version::Version;
use kiln_model::format::packages::{self, IndexError};
use kiln_model::format::sources::{self, Source as IndexedSource};
use kiln_model::lock::{self, Layer, LockedFile, LockedPackage};
use kiln_model::recipe;
use rayon::prelude::*;

use crate::fetch::Archives;

mod error;
mod published;
mod seen;
mod signature;
mod suite;

pub use error::PinError;
pub(crate) use published::by_version;
pub use published::{Binary, Published, PublishedOf, Source};
pub use seen::SeenError;
pub use signature::{Flaw, KeyringError, SignatureError};
pub(crate) use signature::{Keyring, Vouched, opened};
use suite::SignedSuite;

/// The component that is read.
const COMPONENT: &str = "main";
/// Where a Debian host has its archive keyring.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// What is believed.
#[derive(Debug, Clone, Copy)]
pub struct Trust<'a> {
    /// Keyrings; the host's own ([`default_keyrings`]) unless configured otherwise.
    pub keyrings: &'a [PathBuf],
    /// What time it is.
    pub clock: Timestamp,
    /// Where the newest date seen of each suite is kept; `None` looks at none and keeps none.
    pub seen: Option<&'a Path>,
    /// Whether an old index will do.
    pub freshness: Freshness,
}

/// Whether an old index will do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// `Valid-Until` is kept, and nothing older than seen before is taken.
    Required,
    /// Any date will do: for pinning the past.
    Any,
}

/// A source package that is wanted as an input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceWish {
    /// Its name.
    pub name: String,
    /// Exact version; the highest if absent.
    pub version: Option<String>,
}

/// What a recipe's Debian parts come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pinned {
    /// The suites in the recipe's order.
    pub suites: Vec<lock::Suite>,
    /// All packages of the environment, sorted by name, then architecture.
    pub packages: Vec<LockedPackage>,
    /// The wanted sources, in the order of the wishes.
    pub sources: Vec<PinnedSource>,
    /// What a person should know.
    pub notes: Vec<String>,
}

/// A source package, pinned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PinnedSource {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Logical archive.
    pub archive: String,
    /// Its files, sorted by path.
    pub files: Vec<LockedFile>,
}

/// The keyring of the host's archive keyring package: what is trusted unless configured otherwise.
pub fn default_keyrings() -> Vec<PathBuf> {
    vec![PathBuf::from(KEYRING)]
}

/// Pins a recipe's environment and its Debian sources.
pub fn pin(
    archives: &dyn Archives,
    debian: &recipe::Debian,
    wanted: &[SourceWish],
    trust: &Trust<'_>,
) -> Result<Pinned, PinError> {
    let sources = match wanted.is_empty() && debian.build_dependencies_of.is_empty() {
        true => SourcesIndex::Left,
        false => SourcesIndex::Read,
    };
    Indices::fetch(archives, &debian.suites, &debian.architecture, sources, trust)?.pin(debian, wanted)
}

/// Whether indices of source packages are fetched, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourcesIndex {
    /// They are.
    Read,
    /// They are not needed.
    Left,
}

/// Signed indices of some suites: what pinning reads, fetched once.
#[derive(Debug)]
pub struct Indices {
    names: Vec<String>,
    architecture: String,
    suites: Vec<SignedSuite>,
    /// A text for each suite.
    packages: Vec<String>,
    /// The same; empty if they were left out.
    sources: Vec<String>,
}

impl Indices {
    /// Fetches the indices of `suites`, in order of preference, and believes what is signed.
    pub fn fetch(
        archives: &dyn Archives,
        names: &[String],
        architecture: &str,
        sources: SourcesIndex,
        trust: &Trust<'_>,
    ) -> Result<Self, PinError> {
        let keyring = signature::Keyring::read(trust.keyrings)?;
        for (n, name) in names.iter().enumerate() {
            if names[..n].contains(name) {
                return Err(PinError::SuiteTwice { name: name.clone() });
            }
        }
        let fetch = |name: &String| SignedSuite::fetch(archives, name, &keyring, trust);
        let suites: Vec<SignedSuite> = names.par_iter().map(fetch).collect::<Result<_, _>>()?;
        for suite in &suites {
            check_offer(suite, architecture)?;
        }
        let binary = format!("{COMPONENT}/binary-{architecture}");
        let source = format!("{COMPONENT}/source");
        let mut jobs: Vec<(&SignedSuite, &str, &str)> =
            suites.iter().map(|s| (s, binary.as_str(), "Packages")).collect();
        if sources == SourcesIndex::Read {
            jobs.extend(suites.iter().map(|s| (s, source.as_str(), "Sources")));
        }
        let read = |(suite, directory, index): &(&SignedSuite, &str, &str)| suite.index(archives, directory, index);
        let mut packages: Vec<String> = jobs.par_iter().map(read).collect::<Result<_, _>>()?;
        let sources = packages.split_off(suites.len());
        Ok(Self { names: names.to_vec(), architecture: architecture.into(), suites, packages, sources })
    }

    /// Whether these are the indices that `debian` wants, in its order.
    pub fn are_of(&self, debian: &recipe::Debian) -> bool {
        self.names == debian.suites && self.architecture == debian.architecture
    }

    /// The suites' names, in order of preference.
    pub fn suites(&self) -> &[String] {
        &self.names
    }

    fn file(&self, n: usize, directory: &str, index: &str) -> String {
        format!("dists/{}/{COMPONENT}/{directory}/{index}", self.suites[n].entry.name)
    }

    fn packages_file(&self, n: usize) -> String {
        self.file(n, &format!("binary-{}", self.architecture), "Packages")
    }

    fn sources_file(&self, n: usize) -> String {
        self.file(n, "source", "Sources")
    }

    /// Pins an environment and sources from these indices, which must be those of its suites ([`Indices::are_of`]).
    pub fn pin(&self, debian: &recipe::Debian, wanted: &[SourceWish]) -> Result<Pinned, PinError> {
        let sources = Sources::read(&self.sources, wanted, &debian.build_dependencies_of)
            .map_err(|(n, source)| PinError::Index { file: self.sources_file(n), source })?;
        let unread = |source: UniverseError| PinError::Universe {
            file: self.packages_file(source.suite()),
            source: Box::new(source),
        };
        let universe = read_packages(&self.packages, &self.architecture).map_err(|e| match e {
            Unread::Index(n, source) => PinError::Index { file: self.packages_file(n), source },
            Unread::Universe(source) => unread(source),
        })?;

        let wishes = wishes(debian, wanted, &sources)?;
        let closure = resolve::resolve(&universe, &wishes).map_err(|e| match e {
            ResolveError::Universe(source) => unread(source),
            source => PinError::Resolve { source: Box::new(source) },
        })?;
        let suites = &self.suites;
        let lock_one = |id: &Id, layer| {
            let offer = universe.offer(*id);
            let b = &offer.binary;
            LockedPackage {
                name: b.name.into(),
                arch: b.architecture.into(),
                version: b.version.to_string(),
                layer,
                archive: suites[offer.suite].entry.archive.clone(),
                path: b.filename.into(),
                size: b.size,
                sha256: b.sha256,
            }
        };
        let base = closure.base.iter().map(|id| lock_one(id, Layer::Base));
        let mut locked: Vec<_> = base.chain(closure.delta.iter().map(|id| lock_one(id, Layer::Delta))).collect();
        locked.sort_by(|a, b| (&a.name, &a.arch).cmp(&(&b.name, &b.arch)));
        let pinned = wanted.iter().map(|wish| {
            let (suite, source) = sources.find(&wish.name, wish.version.as_deref())?;
            Ok(lock_source(source, &suites[suite].entry.archive))
        });
        let pinned = pinned.collect::<Result<_, PinError>>()?;
        let notes = suites.iter().flat_map(|suite| suite.notes.iter().cloned()).collect();
        let suites = suites.iter().map(|suite| suite.entry.clone()).collect();
        Ok(Pinned { suites, packages: locked, sources: pinned, notes })
    }
}

/// Whether a suite has what is read of it.
fn check_offer(suite: &SignedSuite, architecture: &str) -> Result<(), PinError> {
    let (release, name) = (suite.release(), &suite.entry.name);
    let owned = |words: &[&str]| words.iter().map(ToString::to_string).collect::<Vec<_>>();
    if !release.architectures.contains(&architecture) || architecture == "all" {
        return Err(PinError::UnknownArchitecture {
            suite: name.clone(),
            found: architecture.into(),
            there: owned(&release.architectures),
        });
    }
    // A security suite says `updates/main`, and names its indices by `main` all the same.
    let is_it = |component: &&str| component.rsplit('/').next() == Some(COMPONENT);
    if !release.components.iter().any(is_it) {
        return Err(PinError::UnknownComponent {
            suite: name.clone(),
            found: COMPONENT.into(),
            there: owned(&release.components),
        });
    }
    Ok(())
}

enum Unread {
    Index(usize, IndexError),
    Universe(UniverseError),
}

fn read_packages<'a>(texts: &'a [String], architecture: &str) -> Result<Universe<'a>, Unread> {
    let mut offers = Vec::new();
    for (suite, text) in texts.iter().enumerate() {
        packages::read(text, |binary| {
            offers.push(Offer { binary, suite });
            Ok(())
        })
        .map_err(|e| Unread::Index(suite, e))?;
    }
    Universe::new(architecture, offers).map_err(Unread::Universe)
}

/// The source packages that anyone asked for, by name, best first.
struct Sources<'a>(BTreeMap<&'a str, Vec<(usize, IndexedSource<'a>)>>);

impl<'a> Sources<'a> {
    fn read(texts: &'a [String], wanted: &[SourceWish], building: &[String]) -> Result<Self, (usize, IndexError)> {
        let names: std::collections::BTreeSet<&str> =
            wanted.iter().map(|wish| wish.name.as_str()).chain(building.iter().map(String::as_str)).collect();
        let mut found: BTreeMap<&str, Vec<(usize, IndexedSource<'a>)>> = BTreeMap::new();
        for (suite, text) in texts.iter().enumerate() {
            let each = |source: IndexedSource<'a>| {
                found.entry(source.name).or_default().push((suite, source));
                Ok(())
            };
            sources::read(text, |name| names.contains(name), each).map_err(|e| (suite, e))?;
        }
        for offers in found.values_mut() {
            offers.sort_by(|(n, a), (m, b)| b.version.cmp(&a.version).then(n.cmp(m)));
        }
        Ok(Self(found))
    }

    /// The best one of that name, or the one of that version.
    fn find(&self, name: &str, version: Option<&str>) -> Result<(usize, &IndexedSource<'a>), PinError> {
        let offers = self.0.get(name).map_or(&[][..], Vec::as_slice);
        let exact = version.map(Version::parse).transpose();
        let exact = exact.map_err(|source| PinError::Version { name: name.into(), source })?;
        let found = offers.iter().find(|(_, source)| exact.is_none_or(|exact| source.version == exact));
        found.map(|(suite, source)| (*suite, source)).ok_or_else(|| PinError::UnknownSource {
            wanted: version.map_or_else(|| name.into(), |version| format!("{name} {version}")),
            there: offers.iter().map(|(_, source)| source.version.to_string()).collect(),
        })
    }
}

/// What the recipe asks for. Build dependencies are those of the version that is an input, if one is.
fn wishes<'a>(
    debian: &'a recipe::Debian,
    wanted: &[SourceWish],
    sources: &Sources<'a>,
) -> Result<Wishes<'a>, PinError> {
    let resolve = |source| PinError::Resolve { source: Box::new(source) };
    let mut wishes = Wishes::new();
    for package in &debian.packages {
        wishes.package(package, &debian.architecture).map_err(resolve)?;
    }
    for name in &debian.build_dependencies_of {
        let version = wanted.iter().find(|wish| wish.name == *name).and_then(|wish| wish.version.as_deref());
        let (_, source) = sources.find(name, version)?;
        wishes.build_dependencies(source, &debian.architecture).map_err(resolve)?;
    }
    Ok(wishes)
}

fn lock_source(source: &IndexedSource<'_>, archive: &str) -> PinnedSource {
    let lock = |file: &sources::File<'_>| LockedFile {
        path: format!("{}/{}", source.directory, file.name),
        size: file.size,
        sha256: file.sha256,
    };
    let mut files: Vec<_> = source.files.iter().map(lock).collect();
    files.sort();
    let (name, version) = (source.name.into(), source.version.to_string());
    PinnedSource { name, version, archive: archive.into(), files }
}
