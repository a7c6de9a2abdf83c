//! Debian targets: from a name or a file to the plan of a rebuild.
//!
//! Sources, references and the environment come from the signed indices of some suites, whoever mirrors them. What the indices or
//! the mirrors do not have makes the rebuild inconclusive and is named; a file on the command line that is broken or does not
//! hold what it says is an error.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use kiln_model::debian::build::{self, SourceBuild, SourceInput};
use kiln_model::debian::changelog::Entry;
use kiln_model::lock::LockedFile;
use kiln_model::report::{Missing, Rebuilt};

use super::plan::{Draft, Plan, PlannedFile, PlannedPlace};
use super::rebuilding::{Planned, RebuildError, Rebuilding, missing_pin};
use super::reference;
use super::setting::{Changelog, Tests};
use super::source::{self, Root};
use super::target::Target;
use crate::environment::{Deb, DebError};
use crate::event::{self, Level};
use crate::exit::Kind;
use crate::fetch::{Archive, Wanted, apt};
use crate::pin::debian::{Binary, Indices, PinError as IndexError, Published, SourcesIndex, Trust};
use crate::pin::{Pinning, Scope};
use crate::recipe_dir::RecipeDir;

/// The architecture that is built for.
const ARCHITECTURE: &str = "amd64";
/// The logical archive, as reports name where references are from.
const ORIGIN: &str = "debian";
/// Bytes of a compressed changelog's text that are read.
const CHANGELOG_BYTES: u64 = 64 << 20;

/// Why a Debian target cannot be planned.
#[derive(Debug, thiserror::Error)]
pub enum DebianError {
    /// No suites were named, and this host does not say which it is of.
    #[error("this host names no Debian suite: say --suite NAME, once for each")]
    NoSuite,
    /// Several versions are published.
    #[error("{name} is published in several versions: say debian:{name}=VERSION with one of {}", versions.join(", "))]
    Ambiguous {
        /// As given.
        name: String,
        /// The versions.
        versions: Vec<String>,
    },
    /// The files of a source cannot be read.
    #[error("reading the source of {title}")]
    Source {
        /// Name and version.
        title: String,
        /// Why not.
        source: std::io::Error,
    },
    /// A published package cannot be read.
    #[error(transparent)]
    Deb(#[from] DebError),
    /// A published package whose changelog is none.
    #[error("{file}: no changelog with the entry of a binary-only rebuild")]
    NoEntry {
        /// The package's file.
        file: String,
    },
}

impl DebianError {
    /// What sort of error it is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::NoSuite | Self::Ambiguous { .. } => Kind::BadInput,
            Self::Source { .. } => Kind::Host,
            Self::Deb(DebError::Read { .. }) => Kind::Host,
            // What is read was published, and has the digest that was signed or given.
            Self::Deb(_) | Self::NoEntry { .. } => Kind::BadInput,
        }
    }
}

/// What is to be rebuilt of a source, and what is published of it.
struct Wish {
    /// As it would be asked for again.
    target: String,
    name: String,
    version: String,
    /// What is held against the build.
    references: Vec<Binary>,
    /// The entry of a binary-only rebuild, and its date.
    entry: Option<(String, i64)>,
    notes: Vec<String>,
}

/// The plan of a Debian target.
pub(super) fn plan(rebuilding: &Rebuilding<'_, '_>, target: &Target) -> Result<Planned, RebuildError> {
    match target {
        Target::Debian { name, version } => Planning { rebuilding, target }.by_name(name, version.as_deref()),
        Target::Dsc(_)
        | Target::Deb(_)
        | Target::Buildinfo(_)
        | Target::Pypi { .. }
        | Target::Wheel(_)
        | Target::Earlier(_) => Err(RebuildError::Unsupported { target: target.to_string() }),
    }
}

struct Planning<'a, 'b, 'c> {
    rebuilding: &'a Rebuilding<'b, 'c>,
    target: &'a Target,
}

impl Planning<'_, '_, '_> {
    fn by_name(&self, name: &str, version: Option<&str>) -> Result<Planned, RebuildError> {
        let indices = match self.indices()? {
            Ok(indices) => indices,
            Err(missing) => return Ok(self.inconclusive(name.into(), missing)),
        };
        let published = indices.published(name).map_err(|e| self.pin_error(e.into()))?;
        let mut settings = self.rebuilding.settings.changelog;
        let source_version = match choose(name, &published, version)? {
            Chosen::Source(version) => version,
            Chosen::BinaryOnly(version) => {
                settings = Changelog::Binnmu;
                version
            }
            Chosen::Nothing(missing) => {
                return Ok(self.inconclusive(format!("{name} {}", version.unwrap_or("")), missing));
            }
        };
        let title = format!("{} {source_version}", published.name);
        let of_version: Vec<&Binary> =
            published.binaries.iter().filter(|binary| binary.source_version == source_version).collect();
        let asked = version.and_then(build::binary_only).map(|(_, number)| number);
        let (references, others) = references(&of_version, settings, asked);
        if references.is_empty() {
            let missing = no_reference(&title, settings, &others);
            return Ok(self.inconclusive(title, vec![missing]));
        }
        let mut notes = Vec::new();
        if !others.is_empty() {
            let names: Vec<String> = others.iter().map(|b| format!("{} {}", b.name, b.version)).collect();
            let how = match settings {
                Changelog::AsIs => "binary-only rebuilds, which --changelog binnmu rebuilds",
                Changelog::Binnmu => "no binary-only rebuilds",
            };
            notes.push(format!("not rebuilt: {}: {how}", names.join(", ")));
        }
        let entry = match settings {
            Changelog::AsIs => None,
            Changelog::Binnmu => match self.published_entry(&references)? {
                Ok(entry) => Some(entry),
                Err(missing) => return Ok(self.inconclusive(title, missing)),
            },
        };
        let target = match (&entry, references.first()) {
            (Some(_), Some(first)) => format!("debian:{}={}", published.name, first.version),
            _ => format!("debian:{}={source_version}", published.name),
        };
        let references = references.into_iter().cloned().collect();
        let wish = Wish { target, name: published.name.clone(), version: source_version, references, entry, notes };
        self.of_archive(&indices, &published, wish)
    }

    /// The plan of a source that is in the archive.
    fn of_archive(&self, indices: &Indices, published: &Published, wish: Wish) -> Result<Planned, RebuildError> {
        let Rebuilding { builder, settings, .. } = self.rebuilding;
        let title = format!("{} {}", wish.name, wish.version);
        let Some(source) = published.sources.iter().find(|source| source.version == wish.version) else {
            let what = format!("source {title}: in no index of {}", indices.suites().join(", "));
            return Ok(self.inconclusive(title, vec![Missing { what, tries: Vec::new() }]));
        };
        // Everything at once, so that all that is missing is told.
        let wanted: Vec<Wanted> = source
            .files
            .iter()
            .map(|file| wanted(&source.archive, file))
            .chain(wish.references.iter().map(|binary| wanted(&binary.archive, &binary.file)))
            .collect();
        let files = match builder.archives.pinned(&wanted) {
            Ok(files) => files,
            Err(error) => {
                let Some(files) = reference::nowhere(&error) else { return Err(error.into()) };
                let of = |path: &str| match source.files.iter().any(|file| file.path == path) {
                    true => format!("source {title}"),
                    false => "reference".into(),
                };
                let missing = files.iter().map(|file| reference::missing(&of(&file.path), file)).collect();
                return Ok(self.inconclusive(title, missing));
            }
        };
        let names = source.files.iter().map(|file| base_name(&file.path).to_string());
        let files: Vec<(String, PathBuf)> = names.zip(files).collect();
        let says = source::read(&files).map_err(|source| DebianError::Source { title: title.clone(), source })?;
        let dsc = files.iter().map(|(name, _)| name).find(|name| name.ends_with(".dsc")).cloned().unwrap_or_default();
        let mut packages: BTreeSet<String> =
            settings.pins.iter().map(|(name, version)| format!("{name} (= {version})")).collect();
        if says.root == Root::Pretended {
            packages.insert("fakeroot".into());
        }
        let mut options = settings.build_options.clone();
        if settings.tests == Tests::Skip {
            options.insert("nocheck".into());
        }
        let build = SourceBuild {
            place: build::place(&wish.name, &wish.version),
            dsc,
            input: SourceInput::Archive,
            suites: indices.suites().to_vec(),
            architecture: ARCHITECTURE.into(),
            packages,
            epoch: wish.entry.as_ref().map(|(_, date)| *date).or(says.date),
            options,
            variables: BTreeMap::new(),
            entry: wish.entry.as_ref().map(|(text, _)| text.clone()),
            name: wish.name,
            version: wish.version,
        };
        let mut plan = Plan::new(wish.target, title, ORIGIN);
        plan.notes = wish.notes;
        plan.settings = settings.told();
        if build.entry.is_some() {
            plan.settings.insert("changelog".into(), "binnmu".into());
        }
        for binary in &wish.references {
            let name = build::deb_name(&binary.name, &binary.version, &binary.architecture);
            let at = PlannedPlace { archive: binary.archive.clone(), path: binary.file.path.clone() };
            let file = PlannedFile { sha256: binary.file.sha256, size: Some(binary.file.size), at: Some(at) };
            plan.published.insert(name, file);
        }
        self.locked(&build, indices, plan)
    }

    /// Locks the recipe of a build, and keeps it with its plan.
    fn locked(&self, build: &SourceBuild, indices: &Indices, plan: Plan) -> Result<Planned, RebuildError> {
        let rebuilding = self.rebuilding;
        let draft = Draft::new(rebuilding.builder.store.root())?;
        draft.write("recipe.toml", build.recipe().as_bytes())?;
        let recipe = RecipeDir::open(draft.path())?;
        let pinning = Pinning {
            builder: rebuilding.builder,
            clock: rebuilding.clock,
            keyrings: rebuilding.keyrings.clone(),
            freshness: rebuilding.freshness,
            network: rebuilding.network,
            indices: Some(indices),
        };
        event::say(rebuilding.builder.events, Level::Note, format!("pinning the environment of {}", plan.title));
        match pinning.lock(&recipe, None, &Scope::Everything) {
            Ok(lock) => recipe.write_lock(&lock)?,
            Err(error) => match missing_pin(&error) {
                Some(missing) => return Ok(self.inconclusive(plan.title, missing)),
                None => return Err(self.pin_error(error)),
            },
        }
        Ok(Planned::At(draft.keep(&plan)?))
    }

    /// The entry that the published binary-only rebuild put before the changelog, and its date.
    fn published_entry(&self, references: &[&Binary]) -> Result<Result<(String, i64), Vec<Missing>>, RebuildError> {
        let mut last = None;
        for binary in references {
            let file = match self.rebuilding.builder.archives.pinned(&[wanted(&binary.archive, &binary.file)]) {
                Ok(files) => files.into_iter().next().expect("one file for each wanted"),
                Err(error) => match reference::nowhere(&error) {
                    Some(files) => {
                        return Ok(Err(files.iter().map(|file| reference::missing("reference", file)).collect()));
                    }
                    None => return Err(error.into()),
                },
            };
            if let Some(found) = entry_of(&Deb::open(&file).map_err(DebianError::from)?)? {
                return Ok(Ok(found));
            }
            last = Some(binary.file.path.clone());
        }
        Err(DebianError::NoEntry { file: last.unwrap_or_default() }.into())
    }

    /// The indices of the suites that are looked into; the inner error is what no mirror has.
    fn indices(&self) -> Result<Result<Indices, Vec<Missing>>, RebuildError> {
        let Rebuilding { builder, clock, keyrings, freshness, suites, .. } = self.rebuilding;
        let seen = builder.store.root().join("seen");
        let trust = Trust { keyrings, clock: *clock, seen: Some(&seen), freshness: *freshness };
        let named = match suites.is_empty() {
            true => apt::debian_suites(&crate::fetch::Host::current()),
            false => suites.clone(),
        };
        if named.is_empty() {
            return Err(DebianError::NoSuite.into());
        }
        match Indices::fetch(builder.archives, &named, ARCHITECTURE, SourcesIndex::Read, &trust) {
            Ok(indices) => Ok(Ok(indices)),
            Err(IndexError::Fetch { what, source }) => match reference::nowhere(&source) {
                Some(files) => Ok(Err(files.iter().map(|file| reference::missing(&what, file)).collect())),
                None => Err(self.pin_error(IndexError::Fetch { what, source }.into())),
            },
            Err(error) => Err(self.pin_error(error.into())),
        }
    }

    fn pin_error(&self, error: crate::pin::PinError) -> RebuildError {
        RebuildError::Pin { target: self.target.to_string(), source: Box::new(error) }
    }

    fn inconclusive(&self, title: String, missing: Vec<Missing>) -> Planned {
        let mut rebuilt = Rebuilt::new(self.target.to_string());
        rebuilt.settings = self.rebuilding.settings.told();
        rebuilt.missing = missing;
        Planned::Inconclusive(Box::new(reference::inconclusive(title, ORIGIN.into(), rebuilt)))
    }
}

/// Which version is to be rebuilt.
enum Chosen {
    /// This version of the source.
    Source(String),
    /// The binary-only rebuild of this version of the source.
    BinaryOnly(String),
    /// None that there is.
    Nothing(Vec<Missing>),
}

fn choose(name: &str, published: &Published, version: Option<&str>) -> Result<Chosen, DebianError> {
    let built: BTreeSet<&str> = published.binaries.iter().map(|binary| binary.source_version.as_str()).collect();
    let Some(version) = version else {
        // Sources without a package of theirs are kept for others that were built with them.
        let mut there: Vec<&str> =
            published.sources.iter().map(|s| s.version.as_str()).filter(|v| built.contains(v)).collect();
        return match there[..] {
            [one] => Ok(Chosen::Source(one.into())),
            [] => {
                let highest = published.sources.first().map(|source| source.version.clone());
                let highest = highest.or_else(|| built.first().map(|v| v.to_string()));
                Ok(highest.map_or_else(|| Chosen::Nothing(vec![unknown(name, "", published)]), Chosen::Source))
            }
            [..] => {
                there.sort_unstable();
                let versions = there.into_iter().map(str::to_string).collect();
                Err(DebianError::Ambiguous { name: name.into(), versions })
            }
        };
    };
    if published.sources.iter().any(|source| source.version == version) || built.contains(version) {
        return Ok(Chosen::Source(version.into()));
    }
    let binary = published.binaries.iter().find(|binary| binary.version == version);
    Ok(match binary {
        Some(binary) if build::is_binary_only(&binary.version, &binary.source_version) => {
            Chosen::BinaryOnly(binary.source_version.clone())
        }
        Some(binary) => Chosen::Source(binary.source_version.clone()),
        None => Chosen::Nothing(vec![unknown(name, version, published)]),
    })
}

fn unknown(name: &str, version: &str, published: &Published) -> Missing {
    let there: BTreeSet<&str> = published
        .sources
        .iter()
        .map(|source| source.version.as_str())
        .chain(published.binaries.iter().map(|binary| binary.version.as_str()))
        .collect();
    let there: Vec<&str> = there.into_iter().collect();
    Missing { what: format!("{name} {version}: in no index; there is {}", there.join(", ")), tries: Vec::new() }
}

/// Of the packages of one source version: what a build with this changelog would make, and the others.
fn references<'a>(
    binaries: &[&'a Binary],
    changelog: Changelog,
    asked: Option<u32>,
) -> (Vec<&'a Binary>, Vec<&'a Binary>) {
    let number = |binary: &Binary| {
        build::is_binary_only(&binary.version, &binary.source_version)
            .then(|| build::binary_only(&binary.version).map(|(_, number)| number))
            .flatten()
    };
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

fn no_reference(title: &str, changelog: Changelog, others: &[&Binary]) -> Missing {
    let names: Vec<String> = others.iter().map(|b| format!("{} {}", b.name, b.version)).collect();
    let what = match (others.is_empty(), changelog) {
        (true, _) => format!("reference for {title}: no index has a package that was built from it"),
        (false, Changelog::AsIs) => format!(
            "reference for a plain build of {title}: the archive holds only binary-only rebuilds ({}); \
             --changelog binnmu rebuilds these",
            names.join(", ")
        ),
        (false, Changelog::Binnmu) => {
            format!("reference for a binary-only rebuild of {title}: the archive has {}", names.join(", "))
        }
    };
    Missing { what, tries: Vec::new() }
}

/// The newest entry of the changelog that a package ships, if it is that of a binary-only rebuild.
fn entry_of(deb: &Deb) -> Result<Option<(String, i64)>, DebianError> {
    let mut found: Option<String> = None;
    deb.entries(None, &mut |entry, body| -> Result<(), DebError> {
        let path = String::from_utf8_lossy(&entry.path);
        let name = path.strip_prefix("usr/share/doc/").and_then(|rest| rest.split_once('/')).map(|(_, name)| name);
        // `changelog.Debian.amd64.gz`, or `changelog.amd64.gz` of a native package: dh_installchangelogs splits the entry off.
        let is_it = name.is_some_and(|name| name.starts_with("changelog.") && name.ends_with(".gz"));
        if is_it && found.is_none() {
            let mut text = Vec::new();
            let mut decoder = std::io::Read::take(flate2::read::MultiGzDecoder::new(body), CHANGELOG_BYTES);
            // One that cannot be read is not the one.
            if std::io::Read::read_to_end(&mut decoder, &mut text).is_ok() {
                let text = String::from_utf8_lossy(&text).into_owned();
                found = Entry::newest(&text).is_ok_and(|entry| entry.is_binary_only()).then_some(text);
            }
        }
        Ok(())
    })?;
    Ok(found.and_then(|text| {
        let entry = Entry::newest(&text).ok()?;
        Some((format!("{}", entry.text), entry.date))
    }))
}

fn wanted(archive: &str, file: &LockedFile) -> Wanted {
    let archive = Archive::Debian(archive.into());
    Wanted { archive, path: file.path.clone(), size: Some(file.size), sha256: file.sha256 }
}

fn base_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}
