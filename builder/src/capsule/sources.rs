//! What derivations rest on that no build here makes: sources, and outputs whose digest is fixed.
//!
//! Each lies at a path that follows from its own contents, so nobody's word is taken for it: a capsule keeps those, and what is
//! between them and the build that is wanted is built from them. They become valid only once all of them were read, each after
//! what it names.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Seek as _, Write as _};
use std::path::{Path, PathBuf};

use kiln_model::derivation::Output;
use kiln_model::digest::NarHash;
use kiln_model::format::capsule::Source;
use kiln_model::outcome::Status;
use kiln_model::store_path::{ContentAddress, StorePath};

use super::error::{CapsuleError, io};
use crate::build::graph::Graph;
use crate::build::{BuildError, Builder};
use crate::nix;
use crate::store::{Arrival, Restored, Store, StoreError, TreeLimits, Trust};

/// The paths that a node rests on.
#[derive(Debug, Default)]
pub(super) struct Rests {
    /// Sources of it and of all that is built for it.
    pub(super) sources: BTreeSet<StorePath>,
    /// Outputs whose digest is fixed, and who makes them.
    pub(super) fixed: BTreeMap<StorePath, usize>,
    /// Those that are built.
    pub(super) built: BTreeSet<usize>,
}

impl Rests {
    /// Those of node `index`, which is built itself even if its own digest is fixed.
    pub(super) fn of(graph: &Graph, index: usize) -> Self {
        let (mut rests, mut open) = (Self::default(), vec![index]);
        while let Some(one) = open.pop() {
            if !rests.built.insert(one) {
                continue;
            }
            let node = &graph.nodes[one];
            rests.sources.extend(node.derivation.input_sources.iter().cloned());
            for &need in &node.needs {
                // A fixed output is the only one of its derivation.
                match graph.nodes[need].derivation.outputs.values().next() {
                    Some(Output::Fixed { path, .. }) => drop(rests.fixed.insert(path.clone(), need)),
                    _ => open.push(need),
                }
            }
        }
        rests
    }

    /// Sources and fixed outputs.
    pub(super) fn paths(&self) -> impl Iterator<Item = &StorePath> {
        self.sources.iter().chain(self.fixed.keys())
    }
}

/// Whether a build finds `path` in `store`.
pub(super) fn has(store: &Store, path: &StorePath) -> Result<bool, StoreError> {
    Ok(store.path_info(path)?.is_some() || store.environment_at(path, Trust::Fingerprint)?.is_some())
}

/// What node `index` rests on with all that this names, and where each lies: out of the store, caches, or fetched.
pub(super) fn gather(
    builder: &Builder<'_>,
    graph: &Graph,
    index: usize,
) -> Result<Vec<(Source, PathBuf)>, CapsuleError> {
    let store = builder.store;
    let rests = Rests::of(graph, index);
    builder.substitute_sources(&rests.built, graph)?;
    let mut wanted = Vec::new();
    for (path, &node) in &rests.fixed {
        if store.path_info(path)?.is_none() {
            wanted.push(node);
        }
    }
    let target = || graph.nodes[index].shown.display().to_string();
    for (realised, node) in builder.realise_nodes(graph, &wanted)?.into_iter().zip(wanted) {
        if realised.outcome.status != Status::Built {
            let message = realised.outcome.failure.map(|failure| failure.message).unwrap_or_default();
            let needed = graph.nodes[node].shown.display().to_string();
            return Err(BuildError::Needs { target: target(), needed, message }.into());
        }
    }
    let mut gathered = BTreeMap::new();
    for path in rests.paths() {
        if store.path_info(path)?.is_none() {
            let (nar_hash, place) = store
                .environment_at(path, Trust::Fingerprint)?
                .ok_or_else(|| BuildError::NoInput { target: target(), path: path.clone() })?;
            let address = StorePath::source_address(&nar_hash).parse().expect("it was just printed");
            let source = Source { path: path.clone(), nar_hash, address, references: BTreeSet::new() };
            gathered.insert(path.clone(), (source, place));
            continue;
        }
        for (path, info) in store.hold_closure(path)? {
            let info = store.check_known(info, Trust::Fingerprint)?;
            let node = rests.fixed.get(&path).map(|&node| &graph.nodes[node].derivation);
            let fixed = || node.and_then(|made| made.outputs.values().next()?.content_address());
            let address = info.ca.or_else(fixed).and_then(|address| address.parse::<ContentAddress>().ok());
            let address = address.filter(|address| address.yields(&path, &info.references));
            let address = address.ok_or_else(|| CapsuleError::Unaddressed { target: target(), path: path.clone() })?;
            let place = store.physical(&path);
            let source = Source { path: path.clone(), nar_hash: info.nar_hash, address, references: info.references };
            gathered.insert(path, (source, place));
        }
    }
    Ok(gathered.into_values().collect())
}

/// Trees out of a stranger's file, until all of them are there.
#[derive(Default)]
pub(super) struct Arriving {
    restored: BTreeMap<NarHash, Restored>,
}

impl Arriving {
    /// Restores the tree that `nar` is, of `size` bytes, if the store lacks a path of `sources` that it is.
    pub(super) fn restore(
        &mut self,
        store: &Store,
        (sources, nar_hash): (&[Source], &NarHash),
        nar: &mut dyn Read,
        size: u64,
    ) -> Result<(), StoreError> {
        for source in sources.iter().filter(|source| source.nar_hash == *nar_hash) {
            if !has(store, &source.path)? {
                let limits = TreeLimits { bytes: size, ..TreeLimits::default() };
                self.restored.insert(*nar_hash, store.restore(nar, limits)?);
                break;
            }
        }
        Ok(())
    }

    /// Makes what was restored valid; `from` is the file that errors name.
    pub(super) fn register(mut self, store: &Store, sources: &[Source], from: &Path) -> Result<(), CapsuleError> {
        let by_path: BTreeMap<&StorePath, &Source> = sources.iter().map(|source| (&source.path, source)).collect();
        let references = sources.iter().map(|source| (source.path.clone(), source.references.clone())).collect();
        let ordered = nix::references_first(&references).map_err(|path| CapsuleError::Malformed {
            path: from.into(),
            violation: format!("{path} and others of its sources name each other in a circle"),
        })?;
        let mut registered: BTreeMap<NarHash, PathBuf> = BTreeMap::new();
        for source in ordered.into_iter().map(|path| by_path[path]) {
            if has(store, &source.path)? {
                continue;
            }
            let restored = match (self.restored.remove(&source.nar_hash), registered.get(&source.nar_hash)) {
                (Some(restored), _) => restored,
                (None, Some(place)) => copied(store, place)?,
                (None, None) => {
                    return Err(CapsuleError::Incomplete { path: from.into(), missing: vec![source.path.to_string()] });
                }
            };
            hold(&restored, source, from)?;
            let arrival = Arrival {
                path: source.path.clone(),
                references: source.references.clone(),
                deriver: None,
                ca: Some(source.address.to_string()),
                signatures: BTreeSet::new(),
                substituted: None,
            };
            store.register_restored(restored, arrival)?;
            registered.insert(source.nar_hash, store.physical(&source.path));
        }
        Ok(())
    }
}

/// The tree must have the address that its path follows from.
fn hold(restored: &Restored, source: &Source, from: &Path) -> Result<(), CapsuleError> {
    let itself = source.references.contains(&source.path);
    if !itself && source.address.to_string() == StorePath::source_address(&restored.nar_hash()) {
        return Ok(());
    }
    let found = nix::contents_address(restored.place(), (&source.path, &source.references), &source.address)?;
    if found == source.address {
        return Ok(());
    }
    let (source_path, expected) = (source.path.clone(), source.address.clone());
    Err(CapsuleError::Address { path: from.into(), source_path, expected, found })
}

/// The same tree once more, for another path.
fn copied(store: &Store, place: &Path) -> Result<Restored, CapsuleError> {
    let private = store.private_dir()?;
    let archive = private.path().join("nar");
    let file = File::options().read(true).write(true).create_new(true).open(&archive);
    let mut file = BufWriter::new(file.map_err(io("creating", &archive))?);
    nix::dump(place, &mut file)?;
    file.flush().map_err(io("writing", &archive))?;
    let mut file = file.into_inner().map_err(|error| io("writing", &archive)(error.into_error()))?;
    file.rewind().map_err(io("reading", &archive))?;
    Ok(store.restore(&mut BufReader::new(file), TreeLimits::default())?)
}
