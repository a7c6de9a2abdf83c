//! A graph's builds in parallel: what is in the store already is taken, a failure stops only what depends on it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use kiln_model::lower;
use kiln_model::name::Variable;
use kiln_model::outcome::{Artifact, Failure, Moment, Outcome, Output, Status};
use kiln_model::store_path::StorePath;
use kiln_model::variation::Conditions;

use super::ahead::Ahead;
use super::float::{self, Placed};
use super::graph::{Graph, Node, Origin};
use super::plan::Plan;
use super::provide::Provided;
use super::run::{Attempt, Queue};
use super::{BuildError, Builder, artifact, host, run};
use crate::event::{self, Level};
use crate::store::{Digests, Draft, Lock, Store};

/// A node's outcome, built now or before.
#[derive(Debug, Clone)]
pub struct Realised {
    /// What was seen.
    pub outcome: Outcome,
    /// The build directory of a failed build, if it was kept.
    pub kept: Option<PathBuf>,
}

/// A build whose outputs are valid, and what is still to be done about it.
struct Unfiled {
    attempt: Attempt,
    /// Until then another process that waits for the build does not find its outcome.
    _lock: Lock,
}

/// How far the nodes that are needed have come.
struct Progress {
    /// Nodes whose needs are all done and that no thread has taken.
    ready: BTreeSet<usize>,
    /// For each node that is neither ready nor further, how many of its needs are not done.
    waits_for: BTreeMap<usize, usize>,
    done: BTreeMap<usize, Realised>,
    /// Handed over to threads that wait, never more than there are: an outcome must not wait for another build.
    unfiled: Vec<Unfiled>,
    /// Threads that wait.
    idle: usize,
    /// Nodes that are not done.
    left: usize,
    /// Nothing further is begun.
    stopped: bool,
    failed: Option<BuildError>,
}

impl Progress {
    fn fail(&mut self, error: BuildError) {
        self.stopped = true;
        self.failed.get_or_insert(error);
    }
}

/// What a thread does next.
enum Task {
    /// Builds a node, or says that it cannot be built without this need of it.
    Build(usize, Option<usize>),
    File(Box<Unfiled>),
}

/// What the threads of one graph share.
struct Work<'a> {
    graph: &'a Graph,
    plan: &'a Plan,
    /// Who needs a node, among those that are needed.
    needed_by: BTreeMap<usize, Vec<usize>>,
    progress: Mutex<Progress>,
    changed: Condvar,
    ahead: Ahead,
}

impl<'a> Work<'a> {
    fn new(graph: &'a Graph, plan: &'a Plan) -> Self {
        let mut needed_by: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        let (mut ready, mut waits_for) = (BTreeSet::new(), BTreeMap::new());
        for (&node, needs) in &plan.waits_for {
            needs.iter().for_each(|&need| needed_by.entry(need).or_default().push(node));
            match needs.len() {
                0 => drop(ready.insert(node)),
                count => drop(waits_for.insert(node, count)),
            }
        }
        let progress = Progress {
            ready,
            waits_for,
            done: BTreeMap::new(),
            unfiled: Vec::new(),
            idle: 0,
            left: plan.waits_for.len(),
            stopped: false,
            failed: None,
        };
        Self {
            graph,
            plan,
            needed_by,
            progress: Mutex::new(progress),
            changed: Condvar::new(),
            ahead: Ahead::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for something to do; `None` when there will be nothing. Who comes from a node goes on with the next, so that who
    /// waited files its outcome meanwhile.
    fn take(&self) -> Option<Task> {
        let mut progress = self.lock();
        let mut waited = false;
        loop {
            if (waited || progress.ready.is_empty() || progress.stopped)
                && let Some(unfiled) = progress.unfiled.pop()
            {
                return Some(Task::File(Box::new(unfiled)));
            }
            if progress.stopped || progress.left == 0 {
                return None;
            }
            if let Some(node) = progress.ready.pop_first() {
                let was_not_built = |need: &usize| progress.done[need].outcome.status != Status::Built;
                return Some(Task::Build(node, self.plan.waits_for[&node].iter().copied().find(was_not_built)));
            }
            progress.idle += 1;
            progress = self.changed.wait(progress).unwrap_or_else(PoisonError::into_inner);
            progress.idle -= 1;
            waited = true;
        }
    }

    /// Who waits for `node` may go on. What is still to be filed comes back if nobody else is free to do it.
    fn finish(
        &self,
        node: usize,
        result: Result<(Realised, Option<Box<Unfiled>>), BuildError>,
    ) -> Option<Box<Unfiled>> {
        let mut progress = self.lock();
        let mut own = None;
        match result {
            Ok((realised, unfiled)) => {
                progress.done.insert(node, realised);
                progress.left -= 1;
                for &waiting in self.needed_by.get(&node).into_iter().flatten() {
                    let count = progress.waits_for.get_mut(&waiting).expect("it waits for this node");
                    *count -= 1;
                    if *count == 0 {
                        progress.waits_for.remove(&waiting);
                        progress.ready.insert(waiting);
                    }
                }
                // With nothing ready, this thread is free itself.
                match unfiled {
                    Some(unfiled) if !progress.ready.is_empty() && progress.unfiled.len() < progress.idle => {
                        progress.unfiled.push(*unfiled);
                    }
                    other => own = other,
                }
            }
            Err(error) => progress.fail(error),
        }
        self.changed.notify_all();
        own
    }

    /// How many nodes will still be begun.
    fn to_come(&self) -> usize {
        let progress = self.lock();
        if progress.stopped { 0 } else { progress.ready.len() + progress.waits_for.len() }
    }

    fn fail(&self, error: BuildError) {
        self.lock().fail(error);
        self.changed.notify_all();
    }
}

/// Stops the other threads if its own panics: they would wait for its node for ever.
struct Alarm<'a>(&'a Work<'a>);

impl Drop for Alarm<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.lock().stopped = true;
            self.0.changed.notify_all();
        }
    }
}

/// The outcome of `node` if all its outputs are valid in `store`; nothing is run, fetched or locked.
pub fn cached(store: &Store, node: &Node) -> Result<Option<Outcome>, BuildError> {
    let Some(outputs) = float::realised(store, node)? else { return Ok(None) };
    let mut substituted = BTreeMap::new();
    for path in outputs.values() {
        let Some(info) = store.path_info(path)? else { return Ok(None) };
        substituted.extend(info.substituted.map(|from| (path.to_string(), from)));
    }
    let ids = store.outcomes(&node.path)?;
    for id in ids.iter().rev() {
        let bytes = store.outcome(&node.path, id)?;
        // A record of an older kiln that does not parse is passed over: the build is then done again.
        let Ok(mut outcome) = serde_json::from_slice::<Outcome>(&bytes) else { continue };
        if outcome.status == Status::Built && is_registered(store, &outcome, &outputs)? {
            // It may have been built for a recipe and be asked for as a derivation, or the other way round.
            if outcome.artifacts.is_empty() || node.recipe().is_none() {
                let Some(artifacts) = artifacts_of(node, &outcome.outputs) else { continue };
                outcome.artifacts = artifacts;
            }
            outcome.cached = true;
            return Ok(Some(outcome));
        }
    }
    // Substituted or imported: this machine never built it.
    let outcome = outcome_of_valid(store, node, &outputs)?;
    Ok(outcome.map(|outcome| Outcome { substituted, ..outcome }))
}

/// What can be said of outputs that are valid and were not built here; `None` if they lack what the recipe promises.
fn outcome_of_valid(
    store: &Store,
    node: &Node,
    made: &BTreeMap<Variable, StorePath>,
) -> Result<Option<Outcome>, BuildError> {
    let mut outputs = BTreeMap::new();
    for (name, path) in made {
        let (nar_hash, nar_size, manifest) = store.digest_directory(&store.physical(path), Digests::NarAndFiles)?;
        let manifest = manifest.expect("a manifest was asked for");
        outputs.insert(name.clone(), Output { path: path.to_string(), nar_hash, nar_size, manifest });
    }
    let Some(artifacts) = artifacts_of(node, &outputs) else { return Ok(None) };
    let outcome = Outcome { outputs, artifacts, status: Status::Built, cached: true, ..nothing_ran(store, node) };
    Ok(Some(outcome))
}

/// What of `outputs` the recipe of `node` names: nothing for a derivation, `None` if they lack something.
fn artifacts_of(node: &Node, outputs: &BTreeMap<Variable, Output>) -> Option<BTreeMap<String, Artifact>> {
    let Some(recipe) = node.recipe() else { return Some(BTreeMap::new()) };
    let manifests = outputs.iter().map(|(name, output)| (name.clone(), output.manifest.clone())).collect();
    artifact::artifacts(&recipe.artifacts, &manifests).ok()
}

/// The outcome of a build that did not run.
pub(super) fn nothing_ran(store: &Store, node: &Node) -> Outcome {
    Outcome {
        schema: (),
        status: Status::Unavailable,
        limit: None,
        cached: false,
        derivation: node.path.to_string(),
        outputs: BTreeMap::new(),
        artifacts: BTreeMap::new(),
        isolation: BTreeMap::new(),
        conditions: None,
        host: host::traits(store.root()),
        inputs: BTreeMap::new(),
        substituted: BTreeMap::new(),
        started: Moment::from_unix(0),
        seconds: std::time::Duration::ZERO,
        log: None,
        failure: None,
    }
}

/// Whether every output of `outcome` is what the store has as the valid path, and that is where it is looked for.
fn is_registered(store: &Store, outcome: &Outcome, made: &BTreeMap<Variable, StorePath>) -> Result<bool, BuildError> {
    for (name, output) in &outcome.outputs {
        let Ok(path) = output.path.parse::<StorePath>() else { return Ok(false) };
        // What floats may have become something else in another build.
        if made.get(name).is_some_and(|made| *made != path) {
            return Ok(false);
        }
        if store.path_info(&path)?.is_none_or(|info| info.nar_hash != output.nar_hash) {
            return Ok(false);
        }
    }
    Ok(true)
}

impl Builder<'_> {
    /// Builds what `graph` wants and what that needs; one result for each wanted node, in the order asked for.
    pub fn realise(&self, graph: &Graph) -> Result<Vec<Realised>, BuildError> {
        self.realise_nodes(graph, &graph.wanted)
    }

    /// The same for these nodes of `graph`, whatever it wants.
    pub fn realise_nodes(&self, graph: &Graph, wanted: &[usize]) -> Result<Vec<Realised>, BuildError> {
        let done = self.carry_out(graph, &self.plan(graph, wanted)?)?;
        Ok(wanted.iter().map(|node| done[node].clone()).collect())
    }

    fn carry_out(&self, graph: &Graph, plan: &Plan) -> Result<BTreeMap<usize, Realised>, BuildError> {
        let work = Work::new(graph, plan);
        std::thread::scope(|scope| {
            for _ in 0..self.settings.jobs.get().min(plan.waits_for.len()) {
                scope.spawn(|| self.work(&work));
            }
        });
        let progress = work.progress.into_inner().unwrap_or_else(PoisonError::into_inner);
        match progress.failed {
            Some(error) => Err(error),
            None => Ok(progress.done),
        }
    }

    /// Has what node `index` needs in the store: from there, from caches, or built; it is an error if that fails.
    pub fn needs(&self, graph: &Graph, index: usize) -> Result<(), BuildError> {
        let shown = |node: usize| graph.nodes[node].shown.display().to_string();
        let done = self.carry_out(graph, &self.plan_needs(graph, index)?)?;
        for &need in &graph.nodes[index].needs {
            if let Some(realised) = done.get(&need).filter(|realised| realised.outcome.status != Status::Built) {
                let message = realised.outcome.failure.as_ref().map(|f| f.message.clone()).unwrap_or_default();
                return Err(BuildError::Needs { target: shown(index), needed: shown(need), message });
            }
        }
        Ok(())
    }

    /// One thread: takes a node whose needs are done until none is left, or until another thread met an error. Who waits for
    /// a node goes on when its outputs are valid; its outcome is filed meanwhile.
    fn work(&self, work: &Work<'_>) {
        let _alarm = Alarm(work);
        while let Some(task) = work.take() {
            let nodes = &work.graph.nodes;
            let unfiled = match task {
                Task::Build(node, Some(need)) => {
                    work.finish(node, Ok((self.unavailable(&nodes[node], &nodes[need]), None)))
                }
                Task::Build(node, None) => work.finish(node, self.realise_node(work, node)),
                Task::File(unfiled) => Some(unfiled),
            };
            if let Some(unfiled) = unfiled {
                let Unfiled { attempt, _lock } = *unfiled;
                if let Err(error) = self.file(attempt) {
                    work.fail(error);
                }
            }
        }
    }

    fn realise_node(&self, work: &Work<'_>, index: usize) -> Result<(Realised, Option<Box<Unfiled>>), BuildError> {
        let graph = work.graph;
        let node = &graph.nodes[index];
        let done = |outcome| Ok((Realised { outcome, kept: None }, None));
        if let Some(outcome) = cached(self.store, node)? {
            return done(outcome);
        }
        let provided = self.provide(graph, index)?;
        // Another process may be building the same: then its result is taken.
        let lock = self.store.lock_build(provided.target(node).path)?;
        if let Some(resolved) = &provided.resolved {
            self.substitute_resolved(node, resolved)?;
            // Another derivation may have resolved to the same.
            float::record(self.store, node, &provided)?;
        }
        if let Some(outcome) = cached(self.store, node)? {
            return done(outcome);
        }
        event::say(self.events, Level::Note, format!("building {}", node.title()));
        // Registered by now, they cost those who wait for the outputs nothing.
        let meanwhile = || self.add_derivations(node, &provided);
        let queue = Queue { ahead: &work.ahead, to_come: &|| work.to_come() };
        let control = Conditions::control(self.settings.cores);
        let mut attempt = self.attempt(node, &provided, &control, &meanwhile, Some(&queue))?;
        if attempt.run.outcome.status == Status::Built {
            let drafts = std::mem::take(&mut attempt.drafts);
            self.register_drafts(node, &provided, &attempt.run, drafts)?;
        }
        let realised = Realised { outcome: attempt.run.outcome.clone(), kept: attempt.run.kept.clone() };
        Ok((realised, Some(Box::new(Unfiled { attempt, _lock: lock }))))
    }

    /// Makes the trees of an unvaried build, which are kept by their digests, the valid store paths, unless they are valid
    /// already.
    pub fn register(&self, node: &Node, provided: &Provided, run: &super::Run) -> Result<(), BuildError> {
        self.add_derivations(node, provided)?;
        self.register_drafts(node, provided, run, BTreeMap::new())
    }

    /// The same for trees of which those in `drafts` are not kept. The derivations are valid.
    fn register_drafts(
        &self,
        node: &Node,
        provided: &Provided,
        run: &super::Run,
        mut drafts: BTreeMap<Variable, Draft>,
    ) -> Result<(), BuildError> {
        if let Origin::Recipe(locked) = &node.origin {
            let environment = &locked.environment;
            let names_it = run.taken.values().any(|taken| taken.references.contains(environment));
            if names_it
                && let Some(made) = &provided.environment
                && self.store.path_info(environment)?.is_none()
            {
                // A path is valid only if all that it names is: the canonical copy is made when it is needed.
                let name = lower::environment_name(&locked.recipe.recipe);
                self.store.add_tree(&name, made, Digests::Nar)?;
            }
        }
        let target = provided.target(node);
        let made = run.placed.iter().filter_map(|(name, Placed { path, .. })| {
            let taken = run.taken.get(name)?;
            Some((name, (path, &taken.references)))
        });
        for name in run::in_order(&made.collect()).unwrap_or_default() {
            let (Some(placed), Some(taken)) = (run.placed.get(name), run.taken.get(name)) else { continue };
            let address = placed.address.clone();
            match drafts.remove(name) {
                Some(draft) => self.store.register_draft(&placed.path, draft, target.path, address)?,
                None => self.store.register_output(&placed.path, taken, target.path, address)?,
            };
        }
        if let Some(resolved) = &provided.resolved {
            float::record_built(self.store, resolved, &run.placed)?;
            float::record(self.store, node, provided)?;
        }
        Ok(())
    }

    /// Makes the node's derivation valid, and the one that it resolved to.
    fn add_derivations(&self, node: &Node, provided: &Provided) -> Result<(), BuildError> {
        self.store.add_parsed(&node.path, &node.derivation)?;
        let target = provided.target(node);
        if target.path != &node.path {
            self.store.add_parsed(target.path, target.derivation)?;
        }
        Ok(())
    }

    /// The outcome of a node that cannot be built because one that it needs was not.
    fn unavailable(&self, node: &Node, need: &Node) -> Realised {
        let failure = Failure {
            message: format!("needs {}, which was not built", need.shown.display()),
            exit: None,
            signal: None,
            log_tail: String::new(),
        };
        let outcome = Outcome { failure: Some(failure), ..nothing_ran(self.store, node) };
        Realised { outcome, kept: None }
    }
}
