//! What of a graph has to be built, before anything is.
//!
//! From what is wanted downwards: a derivation whose outputs are valid, or that a cache has, is not built, and what only it
//! needs is not even looked at. Outputs count as far as somebody uses them. What is found to be there is held.

use std::collections::{BTreeMap, BTreeSet};

use kiln_model::derivation::{Modulo, Output};
use kiln_model::digest::Digest;
use kiln_model::format::realisation::{Realisation, RealisationId};
use kiln_model::name::Name;
use kiln_model::store_path::StorePath;

use super::float::Resolved;
use super::graph::{Graph, Node, Origin};
use super::{BuildError, Builder, schedule};
use crate::event::{self, Level};
use crate::store::StoreError;

/// The nodes that need a look, and for which of the others each has to wait.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) waits_for: BTreeMap<usize, BTreeSet<usize>>,
}

/// Outputs of nodes.
type Uses = BTreeMap<usize, BTreeSet<Name>>;

impl Builder<'_> {
    /// The plan for all outputs of `wanted`. Each of these is in it, built or not: its outcome is asked for.
    pub(super) fn plan(&self, graph: &Graph, wanted: &[usize]) -> Result<Plan, BuildError> {
        let all = |node: usize| graph.nodes[node].derivation.outputs.keys().cloned().collect();
        let uses = wanted.iter().map(|&node| (node, all(node))).collect();
        self.planned(graph, uses, &wanted.iter().copied().collect())
    }

    /// The plan for what node `index` needs in order to be built, and the substitution of its sources.
    pub(super) fn plan_needs(&self, graph: &Graph, index: usize) -> Result<Plan, BuildError> {
        let node = &graph.nodes[index];
        self.substitute_sources(&BTreeSet::from([index]), graph)?;
        self.planned(graph, node.needs.iter().map(|&need| (need, used(graph, node, need))).collect(), &BTreeSet::new())
    }

    fn planned(&self, graph: &Graph, mut open: Uses, wanted: &BTreeSet<usize>) -> Result<Plan, BuildError> {
        let mut built: BTreeSet<usize> = BTreeSet::new();
        while !open.is_empty() {
            let mut missing = Uses::new();
            for (index, outputs) in std::mem::take(&mut open) {
                let node = &graph.nodes[index];
                if !built.contains(&index) && !self.is_there(node, &outputs, wanted.contains(&index))? {
                    missing.insert(index, outputs);
                }
            }
            for index in self.substitute(graph, missing)? {
                built.insert(index);
                let node = &graph.nodes[index];
                for &need in &node.needs {
                    open.entry(need).or_default().extend(used(graph, node, need));
                }
            }
        }
        self.substitute_sources(&built, graph)?;
        let mut plan = Plan::default();
        for &index in built.iter().chain(wanted) {
            let waits = || graph.nodes[index].needs.intersection(&built).copied().collect();
            plan.waits_for.insert(index, if built.contains(&index) { waits() } else { BTreeSet::new() });
        }
        Ok(plan)
    }

    /// Whether `outputs` of `node` are valid; they are held then.
    fn is_there(&self, node: &Node, outputs: &BTreeSet<Name>, wanted: bool) -> Result<bool, BuildError> {
        let mut paths = BTreeSet::new();
        for output in outputs {
            let path = match node.derivation.outputs.get(output).and_then(Output::path) {
                Some(path) => self.store.path_info(path)?.map(|info| info.path),
                None => self.store.realisation(&node.path, output)?.map(|realisation| realisation.path),
            };
            match path {
                Some(path) => paths.insert(path),
                None => return Ok(false),
            };
        }
        if wanted && matches!(node.origin, Origin::Recipe(_)) && schedule::cached(self.store, node)?.is_none() {
            return Ok(false);
        }
        match self.store.hold(&paths) {
            // Collected in between.
            Err(StoreError::NotValid { .. }) => Ok(false),
            held => Ok(held.map(|()| true)?),
        }
    }

    /// Substitutes what it can of `missing`; the nodes that are left to be built.
    fn substitute(&self, graph: &Graph, missing: Uses) -> Result<BTreeSet<usize>, BuildError> {
        let mut left: BTreeSet<usize> = missing.keys().copied().collect();
        let Some(caches) = self.caches else { return Ok(left) };
        let mut asked = Vec::new();
        for (index, outputs) in missing {
            let node = &graph.nodes[index];
            if may_be_substituted(node)? {
                asked.push((index, node, outputs));
            }
        }
        let ids = asked.iter().flat_map(|(_, node, outputs)| unknown(node, outputs)).collect::<Vec<_>>();
        let realisations = caches.realisations(&ids)?;
        let floating = |(index, node): (usize, &Node)| Some((node.resolved_by?, index));
        let floating: BTreeMap<Digest, usize> = match realisations.is_empty() {
            true => BTreeMap::new(),
            false => graph.nodes.iter().enumerate().filter_map(floating).collect(),
        };
        let mut groups = Vec::new();
        let mut nodes = Vec::new();
        for (index, node, outputs) in asked {
            if let Some((paths, found)) = self.whereabouts((graph, &floating), node, &outputs, &realisations)? {
                groups.push(paths);
                nodes.push((index, node, found));
            }
        }
        let brought = caches.bring_groups(&groups)?;
        for (group, (index, node, found)) in nodes.into_iter().enumerate() {
            match brought.missing.get(&group) {
                Some(error) => {
                    let text = format!("{} is not substituted: {}", node.title(), crate::nix::chain(error));
                    event::say(self.events, Level::Detail, text);
                }
                None => {
                    for realisation in found {
                        self.store.add_realisation(&node.path, realisation)?;
                    }
                    left.remove(&index);
                }
            }
        }
        Ok(left)
    }

    /// Where `outputs` of `node` are, as far as they say so themselves or `realisations` do; `None` unless all are known.
    #[expect(clippy::type_complexity, reason = "two halves of one answer, used in one place")]
    fn whereabouts(
        &self,
        graph: (&Graph, &BTreeMap<Digest, usize>),
        node: &Node,
        outputs: &BTreeSet<Name>,
        realisations: &BTreeMap<RealisationId, Realisation>,
    ) -> Result<Option<(BTreeSet<StorePath>, Vec<Realisation>)>, BuildError> {
        let (mut paths, mut found) = (BTreeSet::new(), Vec::new());
        for output in outputs {
            if let Some(path) = node.derivation.outputs.get(output).and_then(Output::path) {
                paths.insert(path.clone());
                continue;
            }
            let id = node.resolved_by.map(|derivation| RealisationId { derivation, output: output.clone() });
            let Some(realisation) = id.and_then(|id| realisations.get(&id)) else { return Ok(None) };
            if let Some(other) = self.other_realisation(graph, realisation)? {
                let text = format!(
                    "{} is not substituted: it was built upon {other}, which is not what this store has for it",
                    node.title()
                );
                event::say(self.events, Level::Warning, text);
                return Ok(None);
            }
            paths.insert(realisation.path.clone());
            found.push(realisation.clone());
        }
        Ok(Some((paths, found)))
    }

    /// What `realisation` was built upon where this store has something else: a closure with two builds of one thing is none.
    fn other_realisation(
        &self,
        (graph, floating): (&Graph, &BTreeMap<Digest, usize>),
        realisation: &Realisation,
    ) -> Result<Option<StorePath>, BuildError> {
        for (id, path) in &realisation.dependent {
            let Some(&node) = floating.get(&id.derivation) else { continue };
            let known = self.store.realisation(&graph.nodes[node].path, &id.output)?;
            if known.is_some_and(|known| known.path != *path) {
                return Ok(Some(path.clone()));
            }
        }
        Ok(None)
    }

    /// Substitutes the outputs of what `node` resolved to: their paths may be known now, or somebody built the same.
    pub(super) fn substitute_resolved(&self, node: &Node, resolved: &Resolved) -> Result<(), BuildError> {
        let Some(caches) = self.caches.filter(|_| may_be_substituted(node).unwrap_or(false)) else { return Ok(()) };
        let derivation = &resolved.derivation;
        let refuse = |source| BuildError::Resolve { target: resolved.path.to_string(), source };
        let none = BTreeMap::<StorePath, Modulo>::new();
        let digest = derivation.realisation_digest(&none).map_err(refuse)?;
        let (mut paths, mut ids) = (BTreeSet::new(), Vec::new());
        for (output, kind) in &derivation.outputs {
            match kind.path() {
                Some(path) => drop(paths.insert(path.clone())),
                None => ids.push(RealisationId { derivation: digest, output: output.clone() }),
            }
        }
        let found = caches.realisations(&ids)?;
        if found.len() < ids.len() {
            return Ok(());
        }
        paths.extend(found.values().map(|realisation| realisation.path.clone()));
        if caches.bring_groups(&[paths])?.missing.is_empty() {
            for realisation in found.into_values() {
                self.store.add_realisation(&resolved.path, realisation)?;
            }
        }
        Ok(())
    }

    /// Substitutes sources of nodes that were given as derivations; what is not to be had is missed when it is needed.
    pub(crate) fn substitute_sources(&self, nodes: &BTreeSet<usize>, graph: &Graph) -> Result<(), BuildError> {
        let Some(caches) = self.caches else { return Ok(()) };
        let mut groups = BTreeSet::new();
        for node in nodes.iter().map(|&index| &graph.nodes[index]) {
            if matches!(node.origin, Origin::Recipe(_)) {
                continue;
            }
            for source in &node.derivation.input_sources {
                if self.store.path_info(source)?.is_none() {
                    groups.insert(BTreeSet::from([source.clone()]));
                }
            }
        }
        caches.bring_groups(&groups.into_iter().collect::<Vec<_>>())?;
        Ok(())
    }
}

/// Which outputs of `need` the derivation of `node` uses.
fn used(graph: &Graph, node: &Node, need: usize) -> BTreeSet<Name> {
    let need = &graph.nodes[need];
    let used = node.derivation.input_derivations.get(&need.path).cloned();
    used.unwrap_or_else(|| need.derivation.outputs.keys().cloned().collect())
}

/// Realisations to ask for: of `outputs` without a path of their own.
fn unknown(node: &Node, outputs: &BTreeSet<Name>) -> impl Iterator<Item = RealisationId> {
    let derivation = node.resolved_by;
    let unknown = outputs
        .iter()
        .filter(|output| node.derivation.outputs.get(*output).is_none_or(|output| output.path().is_none()));
    unknown.filter_map(move |output| Some(RealisationId { derivation: derivation?, output: output.clone() }))
}

/// Unless its author asks for it to be built: `allowSubstitutes`.
fn may_be_substituted(node: &Node) -> Result<bool, BuildError> {
    let refuse = |source| BuildError::Contract { target: node.shown.display().to_string(), source };
    let allowed = node.derivation.attribute("allowSubstitutes").map_err(refuse)?;
    Ok(allowed.is_none_or(|allowed| allowed == "1"))
}
