//! What a build was made from, besides its environment: locked sources, outputs of other recipes, store paths.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use kiln_model::digest::NarHash;
use kiln_model::format::dist_info::{self, About};
use kiln_model::format::purl::Purl;
use kiln_model::lock::{LockedFile, LockedInput};
use kiln_model::name::Variable;
use kiln_model::outcome::Outcome;
use kiln_model::sbom::{Component, Kind, Licence, Party};
use kiln_model::store_path::StorePath;

use super::packages::Depends;
use super::{SbomError, author};
use crate::build::graph::{Graph, Locked, Node, Origin};
use crate::store::Store;

/// Entries of a source distribution that are looked at before its metadata is given up on.
const MOST_ENTRIES: usize = 100_000;
/// Bytes that are decompressed for that.
const MOST_BYTES: u64 = 1 << 30;

/// The inputs as components, and which of them hold which.
pub(super) fn gather(
    store: &Store,
    graph: &Graph,
    node: &Node,
    outcome: &Outcome,
    author: &Party,
) -> Result<(Vec<Component>, Depends), SbomError> {
    let (mut inputs, mut holds) = (Vec::new(), Depends::new());
    let digest = |path: &StorePath| -> Result<Option<NarHash>, SbomError> {
        match outcome.inputs.get(&path.to_string()) {
            Some(known) => Ok(Some(*known)),
            None => Ok(store.path_info(path)?.map(|info| info.nar_hash)),
        }
    };
    match &node.origin {
        Origin::Recipe(locked) => {
            for (variable, path) in &locked.inputs {
                match locked.lock.inputs.get(variable) {
                    Some(input) => add(store, locked, variable, path, input, author, (&mut inputs, &mut holds))?,
                    None => inputs.push(made(graph, node, variable, path, digest(path)?)?),
                }
            }
        }
        Origin::Derivation => {
            let environment = node.environment();
            let made = node.needs.iter().flat_map(|&need| graph.nodes[need].outputs.values());
            let paths: BTreeSet<&StorePath> = node.derivation.input_sources.iter().chain(made).collect();
            for path in paths.into_iter().filter(|path| environment.as_ref() != Some(path)) {
                let tree = digest(path)?;
                let supplier = Party::organization(&format!("suppliers of {}", path.name()));
                let version = tree.map_or_else(|| path.hash_part().to_string(), |tree| tree.to_string());
                let id = format!("input-{}", path.base_name());
                let mut one = Component::new(&id, Kind::Source, path.name(), &version, supplier);
                one.purl = Some(Purl::generic(path.name(), path.hash_part())?);
                one.tree = tree;
                inputs.push(one);
            }
        }
    }
    Ok((inputs, holds))
}

/// An output of another recipe.
fn made(
    graph: &Graph,
    node: &Node,
    variable: &Variable,
    path: &StorePath,
    tree: Option<NarHash>,
) -> Result<Component, SbomError> {
    let other =
        node.needs.iter().map(|&need| &graph.nodes[need]).find(|other| other.outputs.values().any(|out| out == path));
    let (name, version) = match other.and_then(Node::recipe) {
        Some(recipe) => (recipe.name.to_string(), recipe.version.to_string()),
        None => (path.name().to_string(), path.hash_part().to_string()),
    };
    let supplier = other.map_or_else(|| Party::organization("authors of another recipe"), author);
    let mut one = Component::new(&format!("input-{variable}"), Kind::Source, &name, &version, supplier);
    one.purl = Some(Purl::generic(&name, &version)?);
    one.tree = tree;
    one.licence = other.and_then(Node::recipe).and_then(|recipe| Licence::of_expression(&recipe.license));
    Ok(one)
}

fn add(
    store: &Store,
    locked: &Locked,
    variable: &Variable,
    path: &StorePath,
    input: &LockedInput,
    author: &Party,
    (inputs, holds): (&mut Vec<Component>, &mut Depends),
) -> Result<(), SbomError> {
    let id = format!("input-{variable}");
    let tree = Some(input.nar_hash());
    let new = |name: &str, version: &str, supplier| Component::new(&id, Kind::Source, name, version, supplier);
    let mut one = match input {
        LockedInput::DebianSource { name, version, .. } => {
            let mut one = new(name, version, Party::organization("Debian"));
            one.purl = Some(Purl::deb("debian", name, version, "source")?);
            one
        }
        LockedInput::Url { url, files, .. } => {
            let (name, digest) = match files.first() {
                Some(file) => (base_name(&file.path), file.sha256.to_string()),
                None => ("file", input.nar_hash().digest().to_string()),
            };
            let mut one = new(name, &format!("sha256:{digest}"), Party::organization(&host(url)));
            let purl = Purl::new("generic", "", name)?.with("checksum", &format!("sha256:{digest}"))?;
            one.purl = Some(purl.with("download_url", url)?);
            one.location = Some(url.clone());
            one
        }
        LockedInput::Pypi { project, version, files, .. } => {
            let mut one = new(project, version, Party::organization("Python Package Index"));
            one.purl = Some(Purl::pypi(project, version)?);
            if let Some(about) = files.first().and_then(|file| about(&store.physical(path).join(base_name(&file.path))))
            {
                one.licence = licence(&about);
                one.originator = about.author.as_deref().and_then(Party::maintainer);
            }
            one
        }
        LockedInput::Git { git, rev, .. } => {
            let name = base_name(git.trim_end_matches('/'));
            let mut one = new(name.strip_suffix(".git").unwrap_or(name), rev, Party::organization(&host(git)));
            one.purl = Some(git_purl(git, rev, &one.name)?);
            one.location = git.contains("://").then(|| format!("git+{git}@{rev}"));
            one
        }
        LockedInput::Path { path, nar_hash } => {
            let recipe = &locked.recipe.recipe;
            let version = nar_hash.to_string();
            let mut one = new(&format!("{} {path}", recipe.name), &version, author.clone());
            let purl = Purl::generic(recipe.name.as_str(), recipe.version.as_str())?;
            one.purl = Some(purl.with("checksum", &format!("sha256:{}", nar_hash.digest()))?);
            one.licence = Licence::of_expression(&recipe.license);
            one
        }
    };
    one.tree = tree;
    let files = match input {
        LockedInput::DebianSource { files, .. } | LockedInput::Url { files, .. } | LockedInput::Pypi { files, .. } => {
            &files[..]
        }
        LockedInput::Git { .. } | LockedInput::Path { .. } => &[],
    };
    if let [file] = files {
        one.sha256 = Some(file.sha256);
        inputs.push(one);
    } else {
        let parts = files.iter().map(|file| part(&one, file)).collect::<Result<Vec<_>, _>>()?;
        if !parts.is_empty() {
            holds.insert(one.id.clone(), parts.iter().map(|part| part.id.clone()).collect());
        }
        inputs.push(one);
        inputs.extend(parts);
    }
    Ok(())
}

/// One of several files of an input.
fn part(whole: &Component, file: &LockedFile) -> Result<Component, SbomError> {
    let name = base_name(&file.path);
    let mut one =
        Component::new(&format!("{}-{name}", whole.id), Kind::Source, name, &whole.version, whole.supplier.clone());
    one.purl = whole.purl.as_ref().map(|purl| format!("{purl}#{}", name.replace('%', "%25")).parse()).transpose()?;
    one.sha256 = Some(file.sha256);
    Ok(one)
}

fn base_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// Whose an address is, without its credentials.
fn host(address: &str) -> String {
    let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
    let host = rest.split(['/', '?', '#']).next().unwrap_or(rest);
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    let host = host.split(':').next().unwrap_or(host);
    if host.is_empty() { "this host".into() } else { host.into() }
}

/// A forge that has a type of its own, or any repository.
fn git_purl(git: &str, rev: &str, name: &str) -> Result<Purl, SbomError> {
    if host(git) == "github.com"
        && let Some((_, path)) = git.trim_end_matches('/').trim_end_matches(".git").split_once("github.com")
        && let Some((owner, name)) = path.trim_start_matches(['/', ':']).split_once('/')
    {
        return Ok(Purl::new("github", owner, name)?.at(rev));
    }
    Ok(Purl::generic(name, rev)?.with("vcs_url", &format!("git+{git}@{rev}"))?)
}

fn licence(about: &About) -> Option<Licence> {
    let expression = about.licence_expression.as_deref();
    let words = |words: &str| Licence::of_words(words, &Default::default());
    if let Some(expression) = expression {
        return Some(Licence::of_expression(expression).unwrap_or_else(|| words(expression)));
    }
    // A whole licence text in this field is one, not a name.
    let said = about.licence.as_deref();
    let text =
        said.filter(|text| text.lines().count() > 1 || text.len() > 100).map(|text| Licence::of_text("License", text));
    let said = text.or_else(|| said.map(words));
    said.or_else(|| (!about.licence_classifiers.is_empty()).then(|| words(&about.licence_classifiers.join(" and "))))
}

/// Metadata of a wheel or of a source distribution; nothing rests on it, so what cannot be read says nothing.
fn about(path: &Path) -> Option<About> {
    let mut text = Vec::new();
    if path.extension()? == "whl" {
        let mut archive = zip::ZipArchive::new(File::open(path).ok()?).ok()?;
        let is_metadata = |name: &str| name.ends_with(".dist-info/METADATA") && name.matches('/').count() == 1;
        let name = archive.file_names().flatten().find(|name| is_metadata(name))?.into_owned();
        archive.by_name(&name).ok()?.take(dist_info::MOST_BYTES).read_to_end(&mut text).ok()?;
        return About::parse(&text).ok();
    }
    let plain = flate2::read::GzDecoder::new(File::open(path).ok()?).take(MOST_BYTES);
    for entry in tar::Archive::new(plain).entries().ok()?.take(MOST_ENTRIES) {
        let entry = entry.ok()?;
        let name = entry.path().ok()?.into_owned();
        if name.file_name().is_some_and(|name| name == "PKG-INFO") && name.components().count() == 2 {
            entry.take(dist_info::MOST_BYTES).read_to_end(&mut text).ok()?;
            return About::parse(&text).ok();
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_its_host_s_without_credentials() {
        for (address, whose) in [
            ("https://user:secret@example.org:8443/a?b", "example.org"),
            ("git@example.org:a/b.git", "example.org"),
            ("file:///srv/a.git", "this host"),
        ] {
            assert_eq!(host(address), whose);
        }
    }

    #[test]
    fn a_repository_is_told_by_its_forge_s_type_or_its_address() {
        let purl = |git: &str| git_purl(git, "abc", "b").unwrap().to_string();
        assert_eq!(purl("https://github.com/A/b.git"), "pkg:github/a/b@abc");
        assert_eq!(purl("https://example.org/a/b"), "pkg:generic/b@abc?vcs_url=git%2Bhttps://example.org/a/b%40abc");
    }

    #[test]
    fn a_licence_is_taken_from_the_best_field_there_is() {
        let about = |text: &str| licence(&About::parse(text.as_bytes()).unwrap()).map(|l| l.expression);
        assert_eq!(about("License-Expression: MIT OR ISC\nLicense: x\n").as_deref(), Some("MIT OR ISC"));
        assert_eq!(about("License: Apache-2.0\n").as_deref(), Some("Apache-2.0"));
        assert!(
            about("Classifier: License :: OSI Approved :: BSD License\n")
                .unwrap()
                .starts_with("LicenseRef-BSD-License-")
        );
        assert_eq!(about("Name: a\n"), None);
    }
}
