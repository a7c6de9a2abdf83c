//! What a command works with, opened when it is first needed: settings, store, mirrors, sandbox.

use std::cell::OnceCell;
use std::io::{IsTerminal as _, Write as _};
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use kiln_model::outcome::{Outcome, Status, Substituted};
use kiln_sandbox::Launcher;
use serde::Serialize;

use super::progress::{Progress, Talk};
use super::{Color, Failure, Global};
use crate::build::graph::Graph;
use crate::build::{Builder, Inputs, KeepFailed, Realised, Settings, host, provide, schedule};
use crate::config::Config;
use crate::event::{Event, Level};
use crate::exit::Kind;
use crate::fetch::{self, Fetcher, Network};
use crate::nix::Substituter;
use crate::render::Colour;
use crate::store::{self, Room, Store};
use crate::whole_file;

/// `NIX_BUILD_CORES` unless configured otherwise: small enough for any host, more than one so that races can show.
const CORES: NonZeroU32 = NonZeroU32::new(2).expect("two is not zero");

/// Bytes that trees of builds may take beside valid paths, unless configured otherwise.
const OUTCOME_BUDGET: u64 = 10 << 30;

/// Bytes that assembled environments may take, unless configured otherwise: some thirty for Debian packages.
const ENVIRONMENT_BUDGET: u64 = 20 << 30;

/// The state of one run of `kiln`.
pub struct Session {
    global: Global,
    progress: Arc<Progress>,
    config: OnceCell<Config>,
    store: OnceCell<Store>,
}

impl Session {
    pub(super) fn new(global: Global) -> Self {
        let talk = match (global.quiet, global.verbose) {
            (true, _) => Talk::Quiet,
            (false, true) => Talk::Verbose,
            (false, false) => Talk::Normal,
        };
        Self { global, progress: Arc::new(Progress::new(talk)), config: OnceCell::new(), store: OnceCell::new() }
    }

    pub(super) fn json(&self) -> bool {
        self.global.json
    }

    pub(super) fn config(&self) -> Result<&Config, Failure> {
        if let Some(config) = self.config.get() {
            return Ok(config);
        }
        let config = Config::load(&fetch::Host::current())?;
        Ok(self.config.get_or_init(|| config))
    }

    pub(super) fn store(&self) -> Result<&Store, Failure> {
        if let Some(store) = self.store.get() {
            return Ok(store);
        }
        let store = Store::open(&self.store_root()?)?;
        for lost in store.lost() {
            self.show(Event::Said { level: Level::Warning, text: lost.to_string().replace('\n', " ") });
        }
        Ok(self.store.get_or_init(|| store))
    }

    /// Where the store is, or would be.
    pub(super) fn store_root(&self) -> Result<PathBuf, Failure> {
        match &self.global.store {
            Some(root) => Ok(root.clone()),
            None => store::default_root(|name| std::env::var_os(name)).ok_or_else(|| {
                Failure::new(Kind::BadInput, anyhow::anyhow!("no place for a store: set KILN_STORE, or HOME"))
            }),
        }
    }

    pub(super) fn network(&self) -> Network {
        if self.global.offline { Network::Offline } else { Network::Online }
    }

    pub(super) fn inputs(&self) -> Inputs {
        if self.global.paranoid { Inputs::Bytes } else { Inputs::Fingerprint }
    }

    /// Shows an event.
    pub(super) fn show(&self, event: Event) {
        self.progress.show(event);
    }

    /// Where events go, from any thread.
    pub(super) fn events(&self) -> impl Fn(Event) + Send + Sync + 'static {
        let progress = Arc::clone(&self.progress);
        move |event| progress.show(event)
    }

    pub(super) fn say(&self, text: impl Into<String>) {
        self.show(Event::Said { level: Level::Note, text: text.into() });
    }

    /// Calls `work` with everything that builds need.
    pub(super) fn with_builder<T>(&self, work: impl FnOnce(&Builder<'_>) -> Result<T, Failure>) -> Result<T, Failure> {
        self.with_settings(None, KeepFailed::No, None, work)
    }

    /// The same, with this command's own settings, and `caches` that may have what is to be built.
    pub(super) fn with_settings<T>(
        &self,
        jobs: Option<NonZeroUsize>,
        keep_failed: KeepFailed,
        caches: Option<&Substituter<'_>>,
        work: impl FnOnce(&Builder<'_>) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        self.with_network(self.network(), jobs, keep_failed, caches, work)
    }

    /// The same, with the network or without.
    pub(super) fn with_network<T>(
        &self,
        network: Network,
        jobs: Option<NonZeroUsize>,
        keep_failed: KeepFailed,
        caches: Option<&Substituter<'_>>,
        work: impl FnOnce(&Builder<'_>) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let store = self.store()?;
        let progress = Arc::clone(&self.progress);
        let events = move |event| progress.show(event);
        let config = self.config()?.clone();
        let fetcher =
            Fetcher::new(store.root(), config.clone(), fetch::Host::current(), network)?.telling(events.clone());
        let launcher = Launcher::start().map_err(|e| Failure::new(Kind::Host, e))?;
        let sandbox = kiln_sandbox::probe();
        let settings = Settings {
            jobs: jobs.or(config.build.jobs).unwrap_or_else(jobs_by_default),
            cores: config.build.cores.unwrap_or(CORES),
            memory: config.build.memory,
            keep_failed,
            inputs: self.inputs(),
            network,
            echo: self.global.verbose.then(echo),
        };
        work(&Builder {
            store,
            archives: &fetcher,
            caches,
            launcher: &launcher,
            host: &sandbox,
            events: &events,
            settings,
        })
    }

    /// Reads the recipes and all they need, and refuses those whose sources beside them have changed.
    pub(super) fn graph(&self, recipes: &[PathBuf]) -> Result<Graph, Failure> {
        self.graph_asking(recipes, None)
    }

    /// The same; `caches` may have derivations that are not here.
    pub(super) fn graph_asking(&self, recipes: &[PathBuf], caches: Option<&Substituter<'_>>) -> Result<Graph, Failure> {
        let store = self.store()?;
        let graph = Graph::load_asking(recipes, store, caches)?;
        graph.nodes.iter().try_for_each(|node| provide::refuse_changed_paths(store, node))?;
        Ok(graph)
    }

    /// Bytes that may stay of what can be made again.
    pub(super) fn room(&self) -> Result<Room, Failure> {
        let build = &self.config()?.build;
        Ok(Room {
            trees: build.outcome_budget.unwrap_or(OUTCOME_BUDGET),
            environments: build.environment_budget.unwrap_or(ENVIRONMENT_BUDGET),
        })
    }

    /// Drops what is beyond the budgets on disk.
    pub(super) fn keep_within_budget(&self) -> Result<(), Failure> {
        self.store()?.trim(&self.room()?)?;
        Ok(())
    }

    /// The outcomes of what `graph` wants, if the store has them all: no sandbox and no mirror is looked at.
    pub(super) fn cached(&self, graph: &Graph) -> Result<Option<Vec<Realised>>, Failure> {
        let store = self.store()?;
        let mut realised = Vec::new();
        for &node in &graph.wanted {
            match schedule::cached(store, &graph.nodes[node])? {
                Some(outcome) => realised.push(Realised { outcome, kept: None }),
                None => return Ok(None),
            }
        }
        Ok(Some(realised))
    }

    /// Tells people how a build ended.
    pub(super) fn tell_outcome(&self, outcome: &Outcome, kept: Option<&Path>) {
        match outcome.status {
            Status::Built => {
                let from = outcome.outputs.values().find_map(|output| outcome.substituted.get(&output.path));
                let derivation = &outcome.derivation;
                self.say(match (outcome.cached, from) {
                    (true, Some(Substituted { from, signed_by: Some(key) })) => {
                        format!("not built, but taken from {from}, signed by {key}: {derivation}")
                    }
                    (true, Some(Substituted { from, signed_by: None })) => {
                        format!("not built, but taken from {from}: {derivation}")
                    }
                    (true, None) => format!("already built {derivation}"),
                    (false, _) => format!("built {derivation}"),
                });
            }
            Status::Failed | Status::TimedOut | Status::Unavailable => {
                let failure = outcome.failure.as_ref();
                for line in failure.map(|f| f.log_tail.as_str()).unwrap_or_default().lines() {
                    self.progress.line(&format!("  | {}", plain(line)));
                }
                let message = failure.map(|f| f.message.as_str()).unwrap_or_default();
                self.progress.line(&format!("{} {}: {message}", outcome.status.as_str(), outcome.derivation));
                if let Some(kept) = kept {
                    self.progress.line(&format!("kept in {}; enter it with `kiln shell`", kept.display()));
                }
            }
        }
    }

    /// Prints one JSON document on stdout.
    pub(super) fn print_json(&self, document: &impl Serialize) -> Result<(), Failure> {
        self.print_text(&crate::render::json(document))
    }

    /// Prints a line on stdout.
    pub(super) fn print_line(&self, text: &str) -> Result<(), Failure> {
        self.print_text(&format!("{text}\n"))
    }

    /// Whether what goes to stdout is coloured.
    pub(super) fn colour(&self) -> Colour {
        match (self.global.color, std::io::stdout().is_terminal()) {
            (Color::Always, _) | (Color::Auto, true) => Colour::Always,
            (Color::Never, _) | (Color::Auto, false) => Colour::Never,
        }
    }

    /// Waits until what this run added to the store is on the disk: nothing is told before.
    pub(super) fn sync(&self) -> Result<(), Failure> {
        Ok(self.store.get().map_or(Ok(()), Store::sync)?)
    }

    /// Prints text on stdout, as it is.
    pub(super) fn print_text(&self, text: &str) -> Result<(), Failure> {
        self.sync()?;
        let mut out = std::io::stdout().lock();
        match write!(out, "{text}").and_then(|()| out.flush()) {
            // Who closed the pipe has read enough.
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
            done => Ok(done.context("writing to stdout").map_err(|e| Failure { kind: Kind::Host, error: e })?),
        }
    }

    /// Replaces the file at `path`; there is the old one or the new one, whole.
    pub(super) fn write_file(&self, path: &Path, bytes: &[u8]) -> Result<(), Failure> {
        self.sync()?;
        whole_file::replace(path, bytes)
            .with_context(|| format!("writing {}", path.display()))
            .map_err(|error| Failure { kind: Kind::Host, error })
    }
}

/// As many builds at once as there are processors for two each, at least two, so that a check's builds run side by side.
fn jobs_by_default() -> NonZeroUsize {
    let processors = host::processor_count().get() as usize;
    NonZeroUsize::new((processors / 2).max(2)).unwrap_or(NonZeroUsize::MIN)
}

fn echo() -> &'static std::io::Stderr {
    static STDERR: std::sync::OnceLock<std::io::Stderr> = std::sync::OnceLock::new();
    STDERR.get_or_init(std::io::stderr)
}

/// A line of a build's log without what would steer the terminal.
fn plain(line: &str) -> String {
    line.chars().map(|c| if c.is_control() && c != '\t' { '\u{fffd}' } else { c }).collect()
}
