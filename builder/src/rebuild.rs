//! Builds again, and holds what came out against each other.
//!
//! [`check`] runs a control and varied builds of one derivation, each distinct and uncached, and says per file what
//! differs. What that means is judged by `kiln_model::verdict`; a divergence is a result, not an error.

pub mod debian;
mod left;
pub(crate) mod locales;
pub mod plan;
pub mod rebuilding;
pub mod record;
pub mod reference;
pub mod setting;
pub mod source;
pub mod target;
pub mod wheel;

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use kiln_model::outcome::{Outcome, Status};
use kiln_model::report::{About, Differences, Report};
use kiln_model::variation::observed::Effects;
use kiln_model::variation::{Conditions, Factor, Fixed, Means, Plan};
use kiln_model::verdict::Reference;

use crate::build::graph::Graph;
use crate::build::provide::Provided;
use crate::build::{BuildError, Builder, Run, host, schedule};
use crate::diff::{self, Bounds, DiffError, Tree};
use crate::event::{self, Level};
use crate::exit::Kind;
use crate::store::StoreError;

/// How a check is done.
#[derive(Debug, Clone)]
pub struct Options {
    /// Varied builds to hold against the control.
    pub varied: NonZeroUsize,
    /// Factors that stay as they are.
    pub held: BTreeSet<Factor>,
    /// Whether an earlier build may be the control.
    pub reuse: Reuse,
}

/// What of the store a check may use as a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reuse {
    /// Nothing: every outcome is of a build that ran now.
    Nothing,
    /// A registered unvaried build is the control; its outcome says that it is cached.
    Control,
}

/// Why a check could not be done.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// A build could not be run.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Trees could not be compared.
    #[error("comparing the outputs")]
    Diff(#[from] DiffError),
}

impl CheckError {
    /// What sort of error it is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Build(e) => e.kind(),
            Self::Store(e) => e.kind(),
            Self::Diff(e) => e.kind(),
        }
    }
}

/// Builds node `index` of `graph` under the control's conditions and under varied ones, and compares every byte.
pub fn check(builder: &Builder<'_>, graph: &Graph, index: usize, options: &Options) -> Result<Report, CheckError> {
    builder.needs(graph, index)?;
    let node = &graph.nodes[index];
    let provided = builder.provide(graph, index)?;
    let means = means(builder, &provided);
    let fixed = match node.recipe() {
        Some(recipe) => Fixed::new(recipe.build.env.keys()),
        None => Fixed::new(node.derivation.environment.keys().filter_map(|key| std::str::from_utf8(key).ok())),
    };
    let plan = Plan::new(Conditions::control(builder.settings.cores), &fixed, &options.held, &means);

    let reused = match options.reuse {
        Reuse::Control => schedule::cached(builder.store, node)?,
        Reuse::Nothing => None,
    };
    let (control, varied) = runs(builder, graph, index, &provided, &plan, options.varied, reused)?;
    let mut outcomes = vec![control];
    for run in varied {
        let mut outcome = run.outcome;
        let seen = |o: &Outcome| o.conditions.as_ref().and_then(|c| c.observed.clone()).unwrap_or_default();
        let effects = Effects::of(&plan, &seen(&outcomes[0]), &seen(&outcome));
        if let Some(conditions) = &mut outcome.conditions {
            conditions.effects = Some(effects);
        }
        outcomes.push(outcome);
    }
    let differences = differences(builder, &outcomes)?;
    let about = About {
        title: node.title(),
        recipe: node.recipe().map(|_| node.shown.join("recipe.toml").display().to_string()),
        derivation: Some(node.path.to_string()),
        origin: None,
    };
    Ok(Report::of(about, outcomes, &Reference::None, differences))
}

fn means(builder: &Builder<'_>, provided: &Provided) -> Means {
    Means {
        cpus: host::processor_count(),
        store_fs: host::file_system(builder.store.root()),
        locales: provided.environment.as_deref().map(locales::of).unwrap_or_default(),
        unix_time: std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_secs()),
    }
}

/// Runs the control and the varied builds, up to `jobs` at once; each varied one starts no earlier after the control began
/// than its conditions say.
fn runs(
    builder: &Builder<'_>,
    graph: &Graph,
    index: usize,
    provided: &Provided,
    plan: &Plan,
    varied: NonZeroUsize,
    reused: Option<Outcome>,
) -> Result<(Outcome, Vec<Run>), CheckError> {
    let node = &graph.nodes[index];
    let conditions = varied.get() + 1;
    event::say(builder.events, Level::Note, format!("building {} under {conditions} sets of conditions", node.title()));
    let start = Start::default();
    let control = || -> Result<Outcome, BuildError> {
        let outcome = match reused {
            Some(outcome) => Ok(outcome),
            None => builder.run(node, provided, &plan.control, &|| start.announce()).and_then(|run| {
                if run.outcome.status == Status::Built {
                    builder.register(node, provided, &run)?;
                }
                Ok(run.outcome)
            }),
        };
        // A control that failed before it began, or did not run, must not be waited for.
        start.announce();
        outcome
    };
    let delay = Duration::from_secs(plan.varied.start_delay_seconds.into());
    let one_varied = || -> Result<Run, BuildError> {
        start.wait(delay);
        builder.run(node, provided, &plan.varied, &|| ())
    };
    if builder.settings.jobs.get() == 1 {
        let control = control()?;
        let varied = (0..varied.get()).map(|_| one_varied()).collect::<Result<Vec<_>, _>>()?;
        return Ok((control, varied));
    }
    let left = AtomicUsize::new(varied.get());
    let one_less = |n: usize| n.checked_sub(1);
    std::thread::scope(|scope| {
        let worker = || -> Result<Vec<Run>, BuildError> {
            let mut runs = Vec::new();
            while left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less).is_ok() {
                runs.push(one_varied()?);
            }
            Ok(runs)
        };
        let control = scope.spawn(control);
        let beside = builder.settings.jobs.get().min(conditions) - 1;
        let workers: Vec<_> = (0..beside).map(|_| scope.spawn(worker)).collect();
        let control = control.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        let mut runs = Vec::new();
        for worker in workers {
            runs.extend(worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
        }
        Ok((control, runs))
    })
}

/// When the control began, told across threads.
#[derive(Default)]
struct Start {
    at: Mutex<Option<Instant>>,
    told: Condvar,
}

impl Start {
    /// Says that it began now; only the first word counts.
    fn announce(&self) {
        self.at.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(Instant::now);
        self.told.notify_all();
    }

    /// Returns `delay` after it began.
    fn wait(&self, delay: Duration) {
        let mut at = self.at.lock().unwrap_or_else(PoisonError::into_inner);
        let began = loop {
            match *at {
                Some(began) => break began,
                None => at = self.told.wait(at).unwrap_or_else(PoisonError::into_inner),
            }
        };
        drop(at);
        std::thread::sleep((began + delay).saturating_duration_since(Instant::now()));
    }
}

/// What differs between the control and the varied builds, output by output.
pub(crate) fn differences(builder: &Builder<'_>, outcomes: &[Outcome]) -> Result<Differences, CheckError> {
    let mut found = Differences::default();
    let Some((control, varied)) = outcomes.split_first() else { return Ok(found) };
    for (number, outcome) in varied.iter().enumerate() {
        for (name, ours) in &control.outputs {
            let Some(theirs) = outcome.outputs.get(name) else { continue };
            if ours.nar_hash == theirs.nar_hash {
                continue;
            }
            let (our_tree, their_tree) = (builder.store.tree(&ours.nar_hash)?, builder.store.tree(&theirs.nar_hash)?);
            diff::trees(
                name,
                Tree { manifest: &ours.manifest, path: our_tree.as_deref(), outcome: 0 },
                Tree { manifest: &theirs.manifest, path: their_tree.as_deref(), outcome: number + 1 },
                Bounds::default(),
                &mut found,
            )?;
        }
    }
    Ok(found)
}
