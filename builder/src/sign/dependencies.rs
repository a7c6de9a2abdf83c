//! Every input of a build by address and digest: recipe, sources, environment and each of its packages.
//!
//! Nothing else is mounted in the sandbox and there is no network, so this list is complete: what the outcome says the build
//! could read and the lock does not name is listed by its archive's digest. Addresses name archives and releases, never a mirror
//! nor a path of this host.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use kiln_model::digest::{Digest, NarHash};
use kiln_model::format::purl::{Purl, PurlError};
use kiln_model::lock::{LockedFile, LockedInput};
use kiln_model::outcome::Outcome;
use kiln_model::statement::digest_set::GIT_COMMIT;
use kiln_model::statement::{Descriptor, DigestSet};
use kiln_model::store_path::StorePath;

use super::digests::NAR;
use super::{Built, Published, SignError, io};
use crate::build::graph::{Locked, Node, Origin};
use crate::sbom;
use crate::store::{Store, Trust};

/// Whom Debian's packages are from, in package URLs.
const DEBIAN: &str = "debian";

/// Where the recipe is published.
pub(super) struct Recipe {
    /// Its URI.
    pub(super) uri: String,
    /// The file, or the derivation if there is none.
    pub(super) descriptor: Descriptor,
    /// The lock beside it.
    pub(super) lock: Option<Descriptor>,
}

/// Where the recipe of `node` is published, as `said` or else as its package is called.
pub(super) fn recipe(node: &Node, said: &Published) -> Result<Recipe, SignError> {
    let of_bytes = |path: &Path| -> Result<DigestSet, SignError> {
        Ok(DigestSet::of(Digest::of(fs::read(path).map_err(io("reading", path))?)))
    };
    match &node.origin {
        Origin::Recipe(locked) => {
            let dir = &locked.recipe;
            let package = Purl::generic(dir.recipe.name.as_str(), dir.recipe.version.as_str())?.to_string();
            let uri = said.uri.clone().unwrap_or_else(|| format!("{package}#recipe.toml"));
            let beside = match uri.strip_suffix("recipe.toml") {
                Some(directory) => format!("{directory}recipe.lock"),
                None => format!("{package}#recipe.lock"),
            };
            let file = Descriptor::of(of_bytes(&dir.dir.join("recipe.toml"))?).named_as("recipe.toml");
            let lock = Descriptor::of(of_bytes(&dir.dir.join("recipe.lock"))?).named_as("recipe.lock").at(beside);
            let descriptor = file.at(uri.clone()).noting("license", dir.recipe.license.clone());
            Ok(Recipe { uri, descriptor, lock: Some(lock) })
        }
        Origin::Derivation => {
            let uri = match &said.uri {
                Some(uri) => uri.clone(),
                None => unnamed(&node.path)?.to_string(),
            };
            let digest = DigestSet::of(Digest::of(node.derivation.print()));
            let descriptor = Descriptor::of(digest).named_as(node.path.base_name()).at(uri.clone());
            Ok(Recipe { uri, descriptor, lock: None })
        }
    }
}

/// All inputs of the build of `node` that had this outcome.
pub(super) fn all(
    node: &Node,
    outcome: &Outcome,
    recipe: &Recipe,
    said: &Published,
) -> Result<Vec<Descriptor>, SignError> {
    let mut found = Vec::new();
    if let Some(commit) = &said.commit {
        let repository = recipe.uri.split('#').next().unwrap_or(&recipe.uri);
        found.push(Descriptor::of(DigestSet::default().with(GIT_COMMIT, commit.clone())).at(repository));
    }
    found.push(recipe.descriptor.clone());
    found.extend(recipe.lock.clone());
    let mut named: BTreeSet<StorePath> = BTreeSet::new();
    if let Origin::Recipe(locked) = &node.origin {
        for (variable, path) in &locked.inputs {
            if let Some(input) = locked.lock.inputs.get(variable) {
                named.insert(path.clone());
                self::input(locked, variable.as_str(), input, &mut found)?;
            }
        }
        named.insert(locked.environment.clone());
        environment(locked, &mut found)?;
    }
    for (path, digest) in &outcome.inputs {
        match path.parse::<StorePath>() {
            Ok(path) if named.contains(&path) => {}
            Ok(path) => found.push(tree(*digest).named_as(path.base_name()).at(unnamed(&path)?.to_string())),
            Err(_) => found.push(tree(*digest).named_as(path.as_str())),
        }
    }
    Ok(found)
}

fn tree(nar_hash: NarHash) -> Descriptor {
    Descriptor::of(DigestSet::of(nar_hash.digest())).being(NAR)
}

/// A store path of which nothing is known but its name.
fn unnamed(path: &StorePath) -> Result<Purl, PurlError> {
    Purl::generic(path.name(), path.hash_part())
}

fn input(locked: &Locked, variable: &str, input: &LockedInput, found: &mut Vec<Descriptor>) -> Result<(), SignError> {
    let files = |files: &[LockedFile], uri: &dyn Fn(&str) -> Result<String, SignError>| {
        let one = |file: &LockedFile| {
            let name = base_name(&file.path);
            Ok(Descriptor::of(DigestSet::of(file.sha256)).named_as(name).at(uri(name)?))
        };
        files.iter().map(one).collect::<Result<Vec<_>, SignError>>()
    };
    let (address, parts) = match input {
        LockedInput::DebianSource { name, version, files: listed, .. } => {
            let purl = Purl::deb(DEBIAN, name, version, "source")?;
            let parts =
                files(listed, &|file| Ok(format!("{purl}#{}", file.replace('%', "%25")).parse::<Purl>()?.to_string()))?;
            (purl.to_string(), parts)
        }
        LockedInput::Url { url, files: listed, .. } => {
            let address = public(url);
            (address.clone(), files(listed, &|_| Ok(address.clone()))?)
        }
        LockedInput::Pypi { project, version, files: listed, .. } => {
            let purl = Purl::pypi(project, version)?;
            let parts = files(listed, &|file| Ok(purl.clone().with("file_name", file)?.to_string()))?;
            (purl.to_string(), parts)
        }
        LockedInput::Git { git, rev, .. } => {
            let address = match git.contains("://") {
                true => format!("git+{}@{rev}", public(git)),
                false => Purl::generic(base_name(git.trim_end_matches('/')), rev)?.to_string(),
            };
            let commit = DigestSet::default().with(GIT_COMMIT, rev.clone());
            (address.clone(), vec![Descriptor::of(commit).at(address)])
        }
        LockedInput::Path { nar_hash, .. } => {
            let recipe = &locked.recipe.recipe;
            let purl = Purl::generic(recipe.name.as_str(), recipe.version.as_str())?;
            let purl = purl.with("checksum", &format!("sha256:{}", nar_hash.digest()))?;
            found.push(
                tree(input.nar_hash())
                    .named_as(variable)
                    .at(purl.to_string())
                    .noting("license", recipe.license.clone()),
            );
            return Ok(());
        }
    };
    found.extend(parts);
    found.push(tree(input.nar_hash()).named_as(variable).at(address));
    Ok(())
}

/// The root file system as one archive, and each of its packages.
fn environment(locked: &Locked, found: &mut Vec<Descriptor>) -> Result<(), SignError> {
    let environment = &locked.lock.environment;
    let purl = Purl::generic("environment", "")?.with("arch", &environment.architecture)?;
    let purl = purl.with("checksum", &format!("sha256:{}", environment.nar_hash.digest()))?;
    found.push(tree(environment.nar_hash).named_as("environment").at(purl.to_string()));
    for package in &environment.packages {
        let purl = Purl::deb(DEBIAN, &package.name, &package.version, &package.arch)?;
        found.push(
            Descriptor::of(DigestSet::of(package.sha256)).named_as(base_name(&package.path)).at(purl.to_string()),
        );
    }
    Ok(())
}

/// Notes the licence of each input that has one in the bill of materials: by digest, so that no name is mistaken for another.
/// Without the environment, whose packages say it, there is none.
pub(super) fn license(inputs: &mut [Descriptor], store: &Store, of: Built<'_>, outcome: &Outcome) {
    let Ok(bill) = sbom::gather(store, of.graph, of.index, outcome, sbom::Run::LeftOut, Trust::Fingerprint) else {
        return;
    };
    let known: BTreeMap<Digest, String> = bill
        .components()
        .filter_map(|component| Some((component.bytes()?, component.licence.as_ref()?.expression.clone())))
        .collect();
    for input in inputs {
        if let Some(licence) = input.digest.sha256().and_then(|digest| known.get(&digest)) {
            input.annotations.entry("license".into()).or_insert_with(|| licence.clone().into());
        }
    }
}

fn base_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// An address without credentials: a statement is for everyone.
fn public(address: &str) -> String {
    let Some((scheme, rest)) = address.split_once("://") else { return address.into() };
    let (host, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    format!("{scheme}://{host}{path}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_told_without_credentials() {
        assert_eq!(public("https://user:secret@example.org/a@b"), "https://example.org/a@b");
        assert_eq!(public("https://example.org"), "https://example.org");
        assert_eq!(public("a@b:c"), "a@b:c");
    }
}
