//! A graph's builds in parallel: what is in the store already is taken, a failure stops only what depends on it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Condvar, Mutex, PoisonError};

use kiln_model::lower;
use kiln_model::outcome::{Failure, Moment, Outcome, Status};
use kiln_model::store_path::StorePath;
use kiln_model::variation::Conditions;

use super::graph::{Graph, Node};
use super::provide::Provided;
use super::{BuildError, Builder, host};
use crate::event::{self, Level};
use crate::store::{Digests, Store};

/// A node's outcome, built now or before.
#[derive(Debug, Clone)]
pub struct Realised {
    /// What was seen.
    pub outcome: Outcome,
    /// The build directory of a failed build, if it was kept.
    pub kept: Option<PathBuf>,
}

/// Where each node stands.
enum State {
    /// Nobody asked for it.
    Idle,
    Waiting,
    Running,
    Done(Box<Realised>),
}

/// The outcome of `node` if all its outputs are valid in `store`; nothing is run, fetched or locked.
pub fn cached(store: &Store, node: &Node) -> Result<Option<Outcome>, BuildError> {
    for path in node.lowered.outputs.values() {
        if store.path_info(path)?.is_none() {
            return Ok(None);
        }
    }
    let ids = store.outcomes(&node.lowered.closed.path)?;
    for id in ids.iter().rev() {
        let bytes = store.outcome(&node.lowered.closed.path, id)?;
        // A record of an older kiln that does not parse is passed over: the build is then done again.
        let Ok(mut outcome) = serde_json::from_slice::<Outcome>(&bytes) else { continue };
        if outcome.status == Status::Built && is_registered(store, &outcome)? {
            outcome.cached = true;
            return Ok(Some(outcome));
        }
    }
    Ok(None)
}

/// Whether every output of `outcome` is what the store has as the valid path.
fn is_registered(store: &Store, outcome: &Outcome) -> Result<bool, BuildError> {
    for output in outcome.outputs.values() {
        let Ok(path) = output.path.parse::<StorePath>() else { return Ok(false) };
        if store.path_info(&path)?.is_none_or(|info| info.nar_hash != output.nar_hash) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// `wanted` and all that they need.
fn needed(graph: &Graph, wanted: &[usize]) -> BTreeSet<usize> {
    let mut needed = BTreeSet::new();
    let mut left = wanted.to_vec();
    while let Some(node) = left.pop() {
        if needed.insert(node) {
            left.extend(&graph.nodes[node].needs);
        }
    }
    needed
}

impl Builder<'_> {
    /// Builds what `graph` wants and what that needs; one result for each wanted node, in the order asked for.
    pub fn realise(&self, graph: &Graph) -> Result<Vec<Realised>, BuildError> {
        self.realise_nodes(graph, &graph.wanted)
    }

    /// As [`Builder::realise`], for these nodes of the graph.
    pub fn realise_nodes(&self, graph: &Graph, wanted: &[usize]) -> Result<Vec<Realised>, BuildError> {
        let needed = needed(graph, wanted);
        let state = |node: usize| if needed.contains(&node) { State::Waiting } else { State::Idle };
        let states = Mutex::new((0..graph.nodes.len()).map(state).collect::<Vec<_>>());
        let changed = Condvar::new();
        let failed: Mutex<Option<BuildError>> = Mutex::new(None);
        std::thread::scope(|scope| {
            for _ in 0..self.settings.jobs.get().min(needed.len()) {
                scope.spawn(|| self.work(graph, &states, &changed, &failed));
            }
        });
        if let Some(error) = failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
            return Err(error);
        }
        let states = states.into_inner().unwrap_or_else(PoisonError::into_inner);
        let done: BTreeMap<usize, Realised> = states
            .into_iter()
            .enumerate()
            .filter_map(|(node, state)| match state {
                State::Done(realised) => Some((node, *realised)),
                State::Waiting | State::Running | State::Idle => None,
            })
            .collect();
        Ok(wanted.iter().map(|node| done[node].clone()).collect())
    }

    /// Builds what node `index` needs, from the store where it can; it is an error if one of these fails.
    pub fn needs(&self, graph: &Graph, index: usize) -> Result<(), BuildError> {
        let wanted: Vec<usize> = graph.nodes[index].needs.iter().copied().collect();
        let shown = |node: usize| graph.nodes[node].recipe.shown.display().to_string();
        for (need, realised) in wanted.iter().zip(self.realise_nodes(graph, &wanted)?) {
            if realised.outcome.status != Status::Built {
                let message = realised.outcome.failure.map(|f| f.message).unwrap_or_default();
                return Err(BuildError::Needs { target: shown(index), needed: shown(*need), message });
            }
        }
        Ok(())
    }

    /// One thread: takes a node whose needs are done until none is left, or until another thread met an error.
    fn work(&self, graph: &Graph, states: &Mutex<Vec<State>>, changed: &Condvar, failed: &Mutex<Option<BuildError>>) {
        let mut held = states.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if failed.lock().unwrap_or_else(PoisonError::into_inner).is_some() {
                return;
            }
            let is_done = |node: &usize| matches!(held[*node], State::Done(_));
            let ready = (0..graph.nodes.len())
                .find(|&n| matches!(held[n], State::Waiting) && graph.nodes[n].needs.iter().all(is_done));
            let Some(index) = ready else {
                if held.iter().all(|state| matches!(state, State::Done(_) | State::Idle)) {
                    return;
                }
                held = changed.wait(held).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let broken = graph.nodes[index]
                .needs
                .iter()
                .copied()
                .find(|&need| matches!(&held[need], State::Done(done) if done.outcome.status != Status::Built));
            held[index] = State::Running;
            drop(held);
            let result = match broken {
                Some(need) => Ok(self.unavailable(&graph.nodes[index], &graph.nodes[need])),
                None => self.realise_node(graph, index),
            };
            held = states.lock().unwrap_or_else(PoisonError::into_inner);
            match result {
                Ok(realised) => held[index] = State::Done(Box::new(realised)),
                Err(error) => {
                    failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                }
            }
            changed.notify_all();
        }
    }

    fn realise_node(&self, graph: &Graph, index: usize) -> Result<Realised, BuildError> {
        let node = &graph.nodes[index];
        if let Some(outcome) = cached(self.store, node)? {
            return Ok(Realised { outcome, kept: None });
        }
        let provided = self.provide(graph, index)?;
        // Another process may be building the same: then its result is taken.
        let _lock = self.store.lock_build(&node.lowered.closed.path)?;
        if let Some(outcome) = cached(self.store, node)? {
            return Ok(Realised { outcome, kept: None });
        }
        let recipe = &node.recipe.recipe;
        event::say(self.events, Level::Note, format!("building {} {}", recipe.name, recipe.version));
        let run = self.run(node, &provided, &Conditions::control(self.settings.cores), &|| ())?;
        if run.outcome.status == Status::Built {
            self.register(node, &provided, &run)?;
        }
        Ok(Realised { outcome: run.outcome, kept: run.kept })
    }

    /// Makes the trees of an unvaried build the valid store paths, unless they are valid already.
    pub fn register(&self, node: &Node, provided: &Provided, run: &super::Run) -> Result<(), BuildError> {
        let environment = &node.lowered.environment;
        let names_it = run.taken.values().any(|taken| taken.references.contains(environment));
        if names_it && self.store.path_info(environment)?.is_none() {
            // A path is valid only if all that it names is: the environment's canonical copy is made when it is needed.
            self.store.add_tree(&lower::environment_name(&node.recipe.recipe), &provided.environment, Digests::Nar)?;
        }
        let closed = &node.lowered.closed;
        self.store.add_derivation(&closed.derivation.name, &closed.bytes)?;
        for (name, taken) in &run.taken {
            if let Some(path) = node.lowered.outputs.get(name) {
                self.store.register_output(path, taken, &closed.path)?;
            }
        }
        Ok(())
    }

    /// The outcome of a node that cannot be built because one that it needs was not.
    fn unavailable(&self, node: &Node, need: &Node) -> Realised {
        let failure = Failure {
            message: format!("needs {}, which was not built", need.recipe.shown.display()),
            exit: None,
            signal: None,
            log_tail: String::new(),
        };
        let outcome = Outcome {
            schema: (),
            status: Status::Unavailable,
            limit: None,
            cached: false,
            derivation: node.lowered.closed.path.to_string(),
            outputs: BTreeMap::new(),
            artifacts: BTreeMap::new(),
            isolation: BTreeMap::new(),
            conditions: None,
            host: host::traits(self.store.root()),
            inputs: BTreeMap::new(),
            started: Moment::from_unix(0),
            seconds: std::time::Duration::ZERO,
            log: None,
            failure: Some(failure),
        };
        Realised { outcome, kept: None }
    }
}
