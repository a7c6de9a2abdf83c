//! Which builds have something in their closure: a digest, a package, or what an advisory is about.
//!
//! Builds are those that the store has outcomes of, and those that published provenance tells of. What goes into a build
//! that is affected goes into whatever was built from it, too. A build whose environment is gone, or a package whose version
//! cannot be compared, is *undetermined*: named, and never counted as not affected. Signatures of provenance are not judged
//! here: whoever forges one can only add to what is found.

use std::collections::BTreeMap;
use std::path::Path;
use std::str::FromStr as _;

use kiln_model::digest::{Digest, NarHash};
use kiln_model::format::control::Stanzas;
use kiln_model::format::osv::{Advisory, Ecosystem, Judged, Subject};
use kiln_model::format::purl::Purl;
use kiln_model::name::sanitised;
use kiln_model::outcome::{Outcome, Status};
use kiln_model::store_path::StorePath;
use kiln_model::tree::Entry;
use serde::Serialize;

use super::packages::{Installed, installed};
use super::published::{Claim, Evidence};
use super::{Root, SbomError};
use crate::environment::Deb;
use crate::store::{Digests, Store, Trust};

/// What is looked for.
#[derive(Debug, Clone)]
pub enum Query {
    /// A file or a tree with this SHA-256.
    Digest(Digest),
    /// A package, of any version if it gives none.
    Purl(Purl),
    /// Whatever an advisory is about.
    Advisory(Box<Advisory>),
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Affected {
    /// Builds of this store.
    pub builds: Vec<Build>,
    /// Published provenance.
    pub published: Vec<Published>,
    /// What could not be looked into.
    pub undetermined: Vec<Undetermined>,
}

/// A build that is affected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Build {
    /// Its derivation.
    pub derivation: String,
    /// Store paths that it made.
    pub outputs: Vec<String>,
    /// What of it is what was looked for.
    pub because: Vec<String>,
}

/// Published provenance of something that is affected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Published {
    /// File that holds it, relative to the directory of evidence.
    pub file: String,
    /// Names of what was built.
    pub subjects: Vec<String>,
    /// Who says that he built it; not checked here.
    pub builder: Option<String>,
    /// What of it is what was looked for.
    pub because: Vec<String>,
}

/// Something that could not be looked into.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Undetermined {
    /// A derivation, or a file.
    pub what: String,
    /// Why not.
    pub why: String,
}

/// What a look at one thing says.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Look {
    Yes(String),
    No,
    Unknown(String),
}

/// A build of this store: the last that made something.
struct Known {
    derivation: StorePath,
    outcome: Outcome,
}

/// Everything that has what `query` asks for in its closure.
pub fn affected(store: &Store, evidence: Option<&Path>, query: &Query) -> Result<Affected, SbomError> {
    let mut search = Search { store, query, package: None, environments: BTreeMap::new(), files: BTreeMap::new() };
    let mut found = Affected::default();
    if let Query::Digest(digest) = query {
        search.package = package_of(store, digest)?;
    }
    let mut because: BTreeMap<StorePath, Vec<String>> = BTreeMap::new();
    let known = known(store)?;
    for Known { derivation, outcome } in &known {
        for look in search.build(derivation, outcome)? {
            match look {
                Look::Yes(reason) => because.entry(derivation.clone()).or_default().push(reason),
                Look::No => {}
                Look::Unknown(why) => found.undetermined.push(Undetermined { what: derivation.to_string(), why }),
            }
        }
    }
    let claims = match evidence {
        Some(directory) => {
            let Evidence { claims, unread } = super::published::read(directory)?;
            found.undetermined.extend(unread.into_iter().map(|(what, why)| Undetermined { what, why }));
            claims
        }
        None => Vec::new(),
    };
    let mut published: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    for (index, claim) in claims.iter().enumerate() {
        for look in search.claim(claim) {
            match look {
                Look::Yes(reason) => published.entry(index).or_default().push(reason),
                Look::No => {}
                Look::Unknown(why) => found.undetermined.push(Undetermined { what: claim.file.clone(), why }),
            }
        }
    }
    follow(&known, &claims, &mut because, &mut published);
    if let (true, Query::Digest(digest), None) = (because.is_empty() && published.is_empty(), query, &search.package) {
        let why = "no build names it; it may be a package's, and no package with this digest is in the store".into();
        found.undetermined.push(Undetermined { what: digest.to_string(), why });
    }
    found.builds = known
        .iter()
        .filter_map(|Known { derivation, outcome }| {
            let outputs = outcome.outputs.values().map(|output| output.path.clone()).collect();
            Some(Build { derivation: derivation.to_string(), outputs, because: because.remove(derivation)? })
        })
        .collect();
    found.published = published
        .into_iter()
        .map(|(index, because)| {
            let Claim { file, subjects, builder, .. } = &claims[index];
            let subjects = subjects.iter().map(|(name, _)| name.clone()).collect();
            Published { file: file.clone(), subjects, builder: builder.clone(), because }
        })
        .collect();
    Ok(found)
}

/// Whatever was built from something affected is affected: until nothing is added.
fn follow(
    known: &[Known],
    claims: &[Claim],
    because: &mut BTreeMap<StorePath, Vec<String>>,
    published: &mut BTreeMap<usize, Vec<String>>,
) {
    loop {
        let mut digests: BTreeMap<Digest, String> = BTreeMap::new();
        for Known { derivation, outcome } in known.iter().filter(|known| because.contains_key(&known.derivation)) {
            for output in outcome.outputs.values() {
                digests.insert(output.nar_hash.digest(), format!("{} of {derivation}", output.path));
            }
            for (name, artifact) in &outcome.artifacts {
                digests.insert(artifact.sha256, format!("{name} of {derivation}"));
            }
        }
        for index in published.keys() {
            for (name, digest) in &claims[*index].subjects {
                digests.extend(digest.map(|digest| (digest, format!("{name} of {}", claims[*index].file))));
            }
        }
        let before = because.len() + published.len();
        for Known { derivation, outcome } in known {
            let through = outcome.inputs.values().find_map(|nar_hash| digests.get(&nar_hash.digest()));
            if let (Some(through), false) = (through, because.contains_key(derivation)) {
                because.insert(derivation.clone(), vec![format!("built from {through}")]);
            }
        }
        for (index, claim) in
            claims.iter().enumerate().filter(|(index, _)| !published.contains_key(index)).collect::<Vec<_>>()
        {
            let mut dependencies = claim.dependencies.iter().filter_map(|(_, digest)| digests.get(digest.as_ref()?));
            if let Some(through) = dependencies.next() {
                published.insert(index, vec![format!("built from {through}")]);
            } else if let Some(through) = claim.subjects.iter().find_map(|(_, digest)| digests.get(digest.as_ref()?)) {
                published.insert(index, vec![format!("the same bytes as {through}")]);
            }
        }
        if because.len() + published.len() == before {
            return;
        }
    }
}

/// Every derivation of which the store has an outcome that made something.
fn known(store: &Store) -> Result<Vec<Known>, SbomError> {
    let mut known = Vec::new();
    for derivation in store.derivations_with_outcomes()? {
        for id in store.outcomes(&derivation)?.iter().rev() {
            let Ok(outcome) = serde_json::from_slice::<Outcome>(&store.outcome(&derivation, id)?) else { continue };
            if outcome.status == Status::Built {
                known.push(Known { derivation, outcome });
                break;
            }
        }
    }
    Ok(known)
}

/// The package that has this digest, if the store has its file.
fn package_of(store: &Store, digest: &Digest) -> Result<Option<(String, String, String)>, SbomError> {
    let Some(path) = store.file(digest)? else { return Ok(None) };
    let Ok(control) = Deb::open(&path).and_then(|deb| deb.control()) else { return Ok(None) };
    let Some(file) = control.get("control") else { return Ok(None) };
    let text = String::from_utf8_lossy(&file.bytes);
    let mut stanzas = Stanzas::new(&text);
    let stanza = stanzas.next()?;
    Ok(stanza.and_then(|stanza| {
        let value = |field| stanza.value(field).map(String::from);
        Some((value("Package")?, value("Version")?, value("Architecture")?))
    }))
}

struct Search<'a> {
    store: &'a Store,
    query: &'a Query,
    /// Name, version and architecture of the package whose digest is looked for.
    package: Option<(String, String, String)>,
    /// What was said of an environment, by its digest.
    environments: BTreeMap<NarHash, Vec<Look>>,
    /// Digests of the files of an input, by its digest.
    files: BTreeMap<NarHash, BTreeMap<Digest, String>>,
}

impl Search<'_> {
    fn build(&mut self, derivation: &StorePath, outcome: &Outcome) -> Result<Vec<Look>, SbomError> {
        let mut looks = Vec::new();
        if let Query::Digest(wanted) = self.query {
            let outputs = outcome.outputs.values().filter(|output| output.nar_hash.digest() == *wanted);
            looks.extend(outputs.map(|output| Look::Yes(format!("it made {}", output.path))));
            let files = outcome.artifacts.iter().filter(|(_, artifact)| artifact.sha256 == *wanted);
            looks.extend(files.map(|(name, _)| Look::Yes(format!("it made {name}"))));
            for (output, made) in &outcome.outputs {
                let is_wanted = |entry: &Entry| matches!(entry, Entry::File { sha256, .. } if sha256 == wanted);
                if let Some((path, _)) = made.manifest.entries().find(|(_, entry)| is_wanted(entry)) {
                    looks.push(Look::Yes(format!("{path} in its output {output}")));
                }
            }
            if let Ok(text) = std::fs::read(self.store.physical(derivation))
                && Digest::of(&text) == *wanted
            {
                looks.push(Look::Yes("it is this derivation".into()));
            }
        }
        for (path, nar_hash) in &outcome.inputs {
            let Ok(path) = path.parse::<StorePath>() else { continue };
            looks.extend(self.input(&path, nar_hash)?);
        }
        Ok(looks)
    }

    fn input(&mut self, path: &StorePath, nar_hash: &NarHash) -> Result<Vec<Look>, SbomError> {
        let mut looks = match self.query {
            Query::Digest(wanted) if nar_hash.digest() == *wanted => vec![Look::Yes(format!("input {path}"))],
            Query::Digest(_) => Vec::new(),
            Query::Purl(purl) => vec![by_name(purl, path)],
            Query::Advisory(advisory) => vec![advised_by_name(advisory, path)],
        };
        if !self.environments.contains_key(nar_hash) {
            let found = self.environment(path, nar_hash)?;
            self.environments.insert(*nar_hash, found);
        }
        looks.extend(self.environments[nar_hash].iter().cloned());
        if let Query::Digest(wanted) = self.query
            && !path.name().ends_with("-environment")
        {
            let known = self.files_of(path, nar_hash)?.get(wanted);
            looks.extend(known.map(|file| Look::Yes(format!("{file} in its input {path}"))));
        }
        Ok(looks)
    }

    /// What is said of an input that may be an environment.
    fn environment(&self, path: &StorePath, nar_hash: &NarHash) -> Result<Vec<Look>, SbomError> {
        let place = match self.store.environment(nar_hash, Trust::Fingerprint)? {
            Some(place) => place,
            None if self.store.path_info(path)?.is_some() => self.store.physical(path),
            None if path.name().ends_with("-environment") => {
                return Ok(vec![Look::Unknown(format!("its environment {path} is not in the store any more"))]);
            }
            None => return Ok(Vec::new()),
        };
        if !place.is_dir() {
            return Ok(Vec::new());
        }
        let failed = |source| SbomError::Read { path: String::new(), source };
        let root = Root::open(&place).map_err(failed)?;
        let release = release(&root).map_err(failed)?;
        let mut looks = Vec::new();
        for package in installed(&root)? {
            looks.push(self.package(&package, release.as_deref()));
        }
        looks.retain(|look| *look != Look::No);
        Ok(looks)
    }

    fn package(&self, package: &Installed, release: Option<&str>) -> Look {
        let Installed { name, version, architecture, source, .. } = package;
        let told = || Look::Yes(format!("package {name} {version} {architecture} of its environment"));
        match self.query {
            Query::Digest(_) => match &self.package {
                Some(wanted) if (&wanted.0, &wanted.1, &wanted.2) == (name, version, architecture) => told(),
                Some(_) | None => Look::No,
            },
            Query::Purl(purl) => {
                let binary = Purl::deb("debian", name, version, architecture);
                let source = Purl::deb("debian", &source.0, &source.1, "source");
                match [binary, source].iter().flatten().any(|known| purl.names(known)) {
                    true => told(),
                    false => Look::No,
                }
            }
            Query::Advisory(advisory) => {
                let ecosystem = Ecosystem::Debian { release };
                looked(advisory.judge(&Subject { ecosystem, name: &source.0, version: &source.1 }), told)
            }
        }
    }

    fn files_of(&mut self, path: &StorePath, nar_hash: &NarHash) -> Result<&BTreeMap<Digest, String>, SbomError> {
        if !self.files.contains_key(nar_hash) {
            let mut files = BTreeMap::new();
            if self.store.path_info(path)?.is_some() {
                let (_, _, manifest) = self.store.digest_directory(&self.store.physical(path), Digests::NarAndFiles)?;
                for (path, entry) in manifest.iter().flat_map(|manifest| manifest.entries()) {
                    if let Entry::File { sha256, .. } = entry {
                        files.insert(*sha256, path.to_string());
                    }
                }
            }
            self.files.insert(*nar_hash, files);
        }
        Ok(&self.files[nar_hash])
    }

    fn claim(&self, claim: &Claim) -> Vec<Look> {
        let mut looks = Vec::new();
        for (name, digest) in &claim.subjects {
            if let Query::Digest(wanted) = self.query
                && digest.as_ref() == Some(wanted)
            {
                looks.push(Look::Yes(format!("it is said to have made {name}")));
            }
        }
        for (uri, digest) in &claim.dependencies {
            let told = || Look::Yes(format!("dependency {uri}"));
            let purl = uri.parse::<Purl>().ok();
            looks.push(match (self.query, purl) {
                (Query::Digest(wanted), _) if digest.as_ref() == Some(wanted) => told(),
                (Query::Purl(wanted), Some(purl)) if wanted.names(&purl) => told(),
                (Query::Advisory(advisory), Some(purl)) => advised(advisory, &purl, told),
                (Query::Digest(_) | Query::Purl(_) | Query::Advisory(_), _) => Look::No,
            });
        }
        looks
    }
}

fn looked(judged: Judged, told: impl FnOnce() -> Look) -> Look {
    match judged {
        Judged::Affected => told(),
        Judged::NotAffected => Look::No,
        Judged::Unknown { why } => Look::Unknown(why),
    }
}

/// An advisory and a dependency. A binary package of Debian may bear another name and version than its source, which a package
/// URL does not tell: where its own name is not the advisory's, nothing is said.
fn advised(advisory: &Advisory, purl: &Purl, told: impl FnOnce() -> Look) -> Look {
    let ecosystem = match (purl.kind(), purl.namespace().as_str()) {
        ("deb", "debian") => Ecosystem::Debian { release: None },
        ("pypi", _) => Ecosystem::Pypi,
        _ => return Look::No,
    };
    let Some(version) = purl.version() else { return Look::Unknown(format!("{purl} has no version")) };
    looked(advisory.judge(&Subject { ecosystem, name: purl.name(), version }), told)
}

/// Store paths of sources are named by what they are: `hello-2.10-3`.
fn by_name(purl: &Purl, path: &StorePath) -> Look {
    let is_it = match purl.version() {
        Some(version) => sanitised(&format!("{}-{version}", purl.name())).as_str() == path.name(),
        None => {
            let rest =
                path.name().strip_prefix(sanitised(purl.name()).as_str()).and_then(|rest| rest.strip_prefix('-'));
            rest.is_some_and(|version| version.starts_with(|c: char| c.is_ascii_digit()))
        }
    };
    let kind =
        matches!(purl.kind(), "deb" | "pypi" | "generic") && purl.qualifier("arch").is_none_or(|arch| arch == "source");
    if is_it && kind { Look::Yes(format!("input {path}")) } else { Look::No }
}

fn advised_by_name(advisory: &Advisory, path: &StorePath) -> Look {
    for package in advisory.affected.iter().filter_map(|affected| affected.package.as_ref()) {
        let ecosystem = match package.ecosystem.split(':').next() {
            Some("Debian") => Ecosystem::Debian { release: None },
            Some("PyPI") => Ecosystem::Pypi,
            _ => continue,
        };
        let rest = path.name().strip_prefix(sanitised(&package.name).as_str()).and_then(|rest| rest.strip_prefix('-'));
        let Some(version) = rest.filter(|version| version.starts_with(|c: char| c.is_ascii_digit())) else { continue };
        let judged = advisory.judge(&Subject { ecosystem, name: &package.name, version });
        let look = looked(judged, || Look::Yes(format!("input {path}")));
        if look != Look::No {
            return look;
        }
    }
    Look::No
}

/// The release of Debian that a root file system is: `12`. None if it does not say, as in testing.
fn release(root: &Root) -> std::io::Result<Option<String>> {
    let bytes = root.read("usr/lib/os-release", 64 << 10)?.unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let value = text.lines().find_map(|line| line.strip_prefix("VERSION_ID="));
    Ok(value.map(|value| value.trim_matches('"').to_string()))
}

impl Query {
    /// From what a user wrote: a digest in hex or as SRI, or a package URL. Files are the caller's.
    pub fn parse(text: &str) -> Option<Self> {
        if let Ok(nar_hash) = text.parse::<NarHash>() {
            return Some(Self::Digest(nar_hash.digest()));
        }
        match Digest::from_str(text) {
            Ok(digest) => Some(Self::Digest(digest)),
            Err(_) => text.parse().ok().map(Self::Purl),
        }
    }
}

impl Affected {
    /// Whether nothing was found, and everything could be looked into.
    pub fn is_empty(&self) -> bool {
        self.builds.is_empty() && self.published.is_empty() && self.undetermined.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(name: &str) -> StorePath {
        format!("/nix/store/{}-{name}", "0".repeat(32)).parse().unwrap()
    }

    #[test]
    fn sources_are_known_by_the_names_of_their_paths() {
        for (purl, name, is_it) in [
            ("pkg:deb/debian/cowsay@3.03%2Bdfsg2-8?arch=source", "cowsay-3.03+dfsg2-8", true),
            ("pkg:deb/debian/cowsay@1:3?arch=source", "cowsay-1-3", true),
            ("pkg:deb/debian/cowsay", "cowsay-3.03", true),
            ("pkg:deb/debian/cow", "cowsay-3.03", false),
            ("pkg:pypi/idna@3.7", "idna-3.7", true),
            ("pkg:pypi/idna@3.8", "idna-3.7", false),
            ("pkg:deb/debian/idna@3.7?arch=amd64", "idna-3.7", false),
            ("pkg:npm/idna@3.7", "idna-3.7", false),
        ] {
            assert_eq!(by_name(&purl.parse().unwrap(), &path(name)) != Look::No, is_it, "{purl} {name}");
        }
    }

    #[test]
    fn a_query_is_a_digest_or_a_package() {
        let digest = Digest::of("x");
        for text in [digest.to_string(), format!("sha256:{digest}"), NarHash::new(digest).to_string()] {
            assert!(matches!(Query::parse(&text), Some(Query::Digest(found)) if found == digest), "{text}");
        }
        assert!(matches!(Query::parse("pkg:deb/debian/curl"), Some(Query::Purl(_))));
        assert!(Query::parse("curl").is_none());
    }
}
