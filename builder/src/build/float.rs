//! Outputs whose paths are not known before the build: what is built in their derivation's place, and where they end.
//!
//! A derivation that floats, or needs one that does, is resolved once all that it needs was built. Floating outputs are made
//! at scratch paths; afterwards each gets the path that follows from its contents with its own hash part masked, and every
//! occurrence of a scratch hash part becomes the final one (design: Nix's `registerOutputs`). Derivations whose paths are all
//! known pass through [`settle`] and pay for nothing.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use kiln_model::derivation::{Closed, Derivation, Output};
use kiln_model::format::realisation::{Realisation, RealisationId};
use kiln_model::name::{Name, Variable};
use kiln_model::rewrite::Rewrites;
use kiln_model::store_path::{Algorithm, Method, SelfReference, StorePath, content_address};

use super::graph::{Graph, Node};
use super::{BuildError, fixed, run};
use crate::nix::content_digest;
use crate::store::{Draft, Store, Taken};

/// What a derivation became once its inputs were built.
#[derive(Debug, Clone)]
pub struct Resolved {
    /// The derivation, with sources only.
    pub derivation: Derivation,
    /// Its path.
    pub path: StorePath,
    /// Where its outputs are made: for those that float, scratch paths.
    pub outputs: BTreeMap<Variable, StorePath>,
}

/// What is built: a node's own derivation, or what that resolved to.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// The derivation.
    pub derivation: &'a Derivation,
    /// Its path.
    pub path: &'a StorePath,
    /// Where its outputs are made.
    pub outputs: &'a BTreeMap<Variable, StorePath>,
}

/// Where an output belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// Its path.
    pub path: StorePath,
    /// Its content address as a narinfo spells it, if the path follows from the contents.
    pub address: Option<String>,
}

/// The outputs of one build, what is known of them, and where they belong.
#[derive(Debug, Default)]
pub(super) struct Settled {
    pub(super) drafts: BTreeMap<Variable, Draft>,
    pub(super) taken: BTreeMap<Variable, Taken>,
    pub(super) placed: BTreeMap<Variable, Placed>,
}

impl Resolved {
    /// As what is built.
    pub fn target(&self) -> Target<'_> {
        Target { derivation: &self.derivation, path: &self.path, outputs: &self.outputs }
    }
}

/// The variable that an output is named by; all names were parsed when the graph was made.
fn variable(output: &Name) -> Variable {
    output.as_str().parse().expect("the graph refuses outputs that no variable can be named like")
}

/// What `node` resolves to, if it cannot be built as it is. All that it needs must have been built.
pub(super) fn resolve(store: &Store, graph: &Graph, node: &Node) -> Result<Option<Resolved>, BuildError> {
    if node.resolved_by.is_none() {
        return Ok(None);
    }
    let mut known = BTreeMap::new();
    for &need in &node.needs {
        let need = &graph.nodes[need];
        for output in node.derivation.input_derivations.get(&need.path).into_iter().flatten() {
            let stated = need.derivation.outputs.get(output).and_then(Output::path).cloned();
            let path = match stated {
                Some(path) => Some(path),
                None => store.realisation(&need.path, output)?.map(|realisation| realisation.path),
            };
            known.extend(path.map(|path| ((need.path.clone(), output.clone()), path)));
        }
    }
    let refuse = |source| BuildError::Resolve { target: node.shown.display().to_string(), source };
    let realised = |path: &StorePath, output: &Name| known.get(&(path.clone(), output.clone())).cloned();
    let Closed { derivation, path, .. } = node.derivation.resolve(&realised).map_err(refuse)?;
    let mut outputs = BTreeMap::new();
    for (name, output) in &derivation.outputs {
        let made_at = match output.path() {
            Some(path) => path.clone(),
            None => StorePath::scratch(&path, name).map_err(|source| {
                let name = derivation.name.clone();
                refuse(kiln_model::derivation::DerivationError::StorePath { name, source })
            })?,
        };
        outputs.insert(variable(name), made_at);
    }
    Ok(Some(Resolved { derivation, path, outputs }))
}

/// The paths of all outputs of `node`, as far as the store knows those that were not known before.
pub(super) fn realised<'a>(
    store: &Store,
    node: &'a Node,
) -> Result<Option<Cow<'a, BTreeMap<Variable, StorePath>>>, BuildError> {
    if node.resolved_by.is_none() {
        return Ok(Some(Cow::Borrowed(&node.outputs)));
    }
    let mut outputs = node.outputs.clone();
    for (name, output) in &node.derivation.outputs {
        if output.path().is_none() {
            let Some(realisation) = store.realisation(&node.path, name)? else { return Ok(None) };
            outputs.insert(variable(name), realisation.path);
        }
    }
    Ok(Some(Cow::Owned(outputs)))
}

/// Gives the outputs of a build their last form and says where they belong; the inner error is the build's own fault.
pub(super) fn settle(
    store: &Store,
    target: Target<'_>,
    mut drafts: BTreeMap<Variable, Draft>,
) -> Result<Result<Settled, String>, BuildError> {
    let made = target.outputs.iter().filter_map(|(name, path)| Some((name, (path, drafts.get(name)?.references()))));
    let Some(order) = run::in_order(&made.collect()) else {
        return Ok(Err("outputs name each other in a circle: none can be kept without all others".into()));
    };
    let mut settled = Settled::default();
    // By the scratch path.
    let mut last: BTreeMap<&StorePath, StorePath> = BTreeMap::new();
    for name in order {
        let (Some(mut draft), scratch) = (drafts.remove(name), &target.outputs[name]) else { continue };
        let output = &target.derivation.outputs[&Name::from(name)];
        let mut placed = Placed { path: scratch.clone(), address: output.content_address() };
        if let Output::Floating { method, algorithm } = output {
            let addressed = match address(target, name, &draft, (*method, *algorithm), &last)? {
                Ok(addressed) => addressed,
                Err(message) => return Ok(Err(message)),
            };
            let Addressed { path, digest, references } = addressed;
            let pairs = last.iter().map(|(from, to)| (*from, to)).chain([(scratch, &path)]);
            let rewrites = Rewrites::new(pairs.filter(|(from, _)| draft.references().contains(*from)));
            if !rewrites.is_empty() {
                draft = match run::fault_of_build(name, store.rewrite_draft(&draft, &rewrites, references))? {
                    Ok(rewritten) => rewritten,
                    Err(message) => return Ok(Err(message)),
                };
            }
            last.insert(scratch, path.clone());
            placed = Placed { path, address: Some(content_address(*method, *algorithm, &digest)) };
        }
        settled.taken.insert(name.clone(), draft.taken());
        settled.drafts.insert(name.clone(), draft);
        settled.placed.insert(name.clone(), placed);
    }
    Ok(Ok(settled))
}

/// What follows from the contents of an output that floated.
struct Addressed {
    path: StorePath,
    digest: Vec<u8>,
    /// What it names, by final paths.
    references: BTreeSet<StorePath>,
}

/// The content address of `draft`, with its own scratch path masked and those in `last` already final.
fn address(
    target: Target<'_>,
    name: &Variable,
    draft: &Draft,
    (method, algorithm): (Method, Algorithm),
    last: &BTreeMap<&StorePath, StorePath>,
) -> Result<Result<Addressed, String>, BuildError> {
    let (output, scratch, tree) = (Name::from(name), &target.outputs[name], draft.path());
    if method == Method::Flat
        && let Err(message) = fixed::is_flat(&output, tree)?
    {
        return Ok(Err(message));
    }
    let names_itself = draft.references().contains(scratch);
    let others = draft.references().iter().filter(|path| *path != scratch);
    let others: BTreeSet<StorePath> = others.map(|path| last.get(path).unwrap_or(path).clone()).collect();
    let siblings = last.iter().filter(|(from, _)| draft.references().contains(**from));
    let rewrites = Rewrites::new(siblings.map(|(from, to)| (*from, to)));
    let digest =
        if (method, algorithm) == (Method::Recursive, Algorithm::Sha256) && !names_itself && rewrites.is_empty() {
            draft.nar_hash().digest().as_bytes().to_vec()
        } else {
            content_digest(tree, method, algorithm, &rewrites.masking(scratch))?
        };
    let itself = if names_itself { SelfReference::Yes } else { SelfReference::No };
    let of = (&target.derivation.name, &output);
    match StorePath::floating(of, (method, algorithm), &digest, &others, itself) {
        Ok(path) => {
            let own = names_itself.then(|| path.clone());
            Ok(Ok(Addressed { path, digest, references: others.into_iter().chain(own).collect() }))
        }
        Err(error) => Ok(Err(format!("output {name} names {}: {error}", named(draft.references())))),
    }
}

fn named(paths: &BTreeSet<StorePath>) -> String {
    paths.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Records where the floating outputs of a resolved derivation are. They must be valid.
pub(super) fn record_built(
    store: &Store,
    resolved: &Resolved,
    placed: &BTreeMap<Variable, Placed>,
) -> Result<(), BuildError> {
    if !resolved.derivation.floats() {
        return Ok(());
    }
    let none = BTreeMap::<StorePath, kiln_model::derivation::Modulo>::new();
    let refuse = |source| BuildError::Resolve { target: resolved.path.to_string(), source };
    let derivation = resolved.derivation.realisation_digest(&none).map_err(refuse)?;
    for (name, Placed { path, .. }) in placed {
        let id = RealisationId { derivation, output: Name::from(name) };
        let (dependent, signatures) = Default::default();
        store.add_realisation(&resolved.path, Realisation { id, path: path.clone(), dependent, signatures })?;
    }
    Ok(())
}

/// Records of `node` what is known of what it resolved to, if that was built.
pub(super) fn record(store: &Store, node: &Node, provided: &super::provide::Provided) -> Result<(), BuildError> {
    let target = provided.target(node);
    let Some(derivation) = node.resolved_by.filter(|_| *target.path != node.path) else { return Ok(()) };
    for (name, output) in &node.derivation.outputs {
        if output.path().is_some() {
            continue;
        }
        let path = match target.derivation.outputs.get(name).and_then(Output::path) {
            Some(path) => store.path_info(path)?.map(|info| info.path),
            None => store.realisation(target.path, name)?.map(|realisation| realisation.path),
        };
        let Some(path) = path else { continue };
        let id = RealisationId { derivation, output: name.clone() };
        let dependent = dependent(store, &node.derivation, &path)?;
        store.add_realisation(&node.path, Realisation { id, path, dependent, signatures: BTreeSet::new() })?;
    }
    Ok(())
}

/// Realisations of what `derivation` needs that `path` names (Nix's `drvOutputReferences`), as far as they are recorded.
fn dependent(
    store: &Store,
    derivation: &Derivation,
    path: &StorePath,
) -> Result<BTreeMap<RealisationId, StorePath>, BuildError> {
    let references = store.path_info(path)?.map(|info| info.references).unwrap_or_default();
    let mut found = BTreeMap::new();
    for (needed, outputs) in &derivation.input_derivations {
        for output in outputs {
            let Some(realisation) = store.realisation(needed, output)? else { continue };
            let own = [(realisation.id, realisation.path)];
            found.extend(own.into_iter().chain(realisation.dependent).filter(|(_, path)| references.contains(path)));
        }
    }
    Ok(found)
}
