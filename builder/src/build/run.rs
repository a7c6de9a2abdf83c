//! One build: a derivation under conditions, in a sandbox, to an outcome.
//!
//! The build writes into a private directory below a 0700 one; when none of its processes is left, its outputs are copied
//! out by descriptor into fresh inodes, digested in the same pass. Whatever the build does is an outcome; an error is only what
//! this host or kiln itself could not do.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CString;
use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File};
use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use kiln_model::contract::{Checks, Contract, ContractError, Given, Made, Named};
use kiln_model::name::{Name, Variable};
use kiln_model::outcome::{Failure, Limit, Log, Moment, Outcome, Output, Ran, Status};
use kiln_model::store_path::StorePath;
use kiln_model::variation::observed::Observed;
use kiln_model::variation::{BuildFs, Conditions, Umask};
use kiln_sandbox::{Ended, How, Leaving, Slot, Which, plan};
use nix::sys::statfs::FsType;

use super::ahead::{Ahead, First};
use super::float::{self, Placed, Settled};
use super::graph::Node;
use super::host;
use super::provide::Provided;
use super::sandbox::{Places, spec};
use super::transcript::Transcript;
use super::{BuildError, Builder, io};
use super::{artifact, fixed};
use crate::store::{Draft, LogWriter, Origin, PathInfo, PrivateDir, Source, StoreError, Taken, TreeError, TreeLimits};

/// What one build left.
pub struct Run {
    /// What this machine saw.
    pub outcome: Outcome,
    /// What is known of the outputs' trees. Empty unless built.
    pub taken: BTreeMap<Variable, Taken>,
    /// Where they belong.
    pub placed: BTreeMap<Variable, Placed>,
    /// The build directory of a failed build, if it was to be kept and is on disk.
    pub kept: Option<PathBuf>,
}

/// The builds that follow one.
pub(super) struct Queue<'a> {
    /// Their sandboxes, as far as they are begun.
    pub(super) ahead: &'a Ahead,
    /// How many there are.
    pub(super) to_come: &'a dyn Fn() -> usize,
}

/// A build that has ended and of which the store knows nothing yet.
pub(super) struct Attempt {
    pub(super) run: Run,
    /// The outputs' trees; gone when dropped.
    pub(super) drafts: BTreeMap<Variable, Draft>,
    /// What was made for it alone, if something ran.
    pub(super) rest: Option<Rest>,
}

/// What a build leaves beside its outputs.
pub(super) struct Rest {
    log: LogWriter,
    /// Its namespaces' end is waited for here, where nobody waits for the outputs.
    _leaving: Leaving,
    /// Removed before its owner's slot is given to another.
    _private: PrivateDir,
    _slot: Slot,
}

/// How the payload's end is told.
struct End {
    status: Status,
    limit: Option<Limit>,
    failure: Option<Failure>,
}

impl Builder<'_> {
    /// Builds `node` once under `conditions`, whatever the store has already; `began` is called when its sandbox starts. The
    /// outputs are kept by their digests, and the outcome is filed.
    pub fn run(
        &self,
        node: &Node,
        provided: &Provided,
        conditions: &Conditions,
        began: &dyn Fn(),
    ) -> Result<Run, BuildError> {
        let began = || {
            began();
            Ok(())
        };
        let mut attempt = self.attempt(node, provided, conditions, &began, None)?;
        for draft in std::mem::take(&mut attempt.drafts).into_values() {
            self.store.keep_draft(draft)?;
        }
        self.file(attempt)
    }

    /// Files the outcome of a build and its log, and removes what was made for it alone. Its outputs are in the store.
    pub(super) fn file(&self, Attempt { run, rest, .. }: Attempt) -> Result<Run, BuildError> {
        if let (Some(Rest { log: writer, .. }), Some(log)) = (rest, &run.outcome.log) {
            writer.finish(&log.sha256)?;
        }
        let json = serde_json::to_vec(&run.outcome).expect("an outcome has string keys only");
        self.store.record_outcome(&json)?;
        Ok(run)
    }

    /// Builds `node` once; of what it makes nothing but private names is in the store afterwards. `meanwhile` is done while
    /// its sandbox runs, which is begun already if `queue` has one.
    pub(super) fn attempt(
        &self,
        node: &Node,
        provided: &Provided,
        conditions: &Conditions,
        meanwhile: &dyn Fn() -> Result<(), BuildError>,
        queue: Option<&Queue<'_>>,
    ) -> Result<Attempt, BuildError> {
        if let Some(fetch) = provided.target(node).derivation.fetch_url().map_err(|source| refused(node, source))? {
            // No sandbox runs, and what cannot be fetched leaves nothing.
            let fetched = self.fetch_url(node, provided, &fetch)?;
            meanwhile()?;
            return Ok(fetched);
        }
        // What no sandbox can do without is a better answer than that no identity can be leased.
        if let Some(refusal) = self.host.lacks.first() {
            return Err(refusal.clone().into());
        }
        let private = self.store.private_dir()?;
        let begun = match queue.and_then(|queue| queue.ahead.take()) {
            Some(begun) => begun,
            None => First::nothing(Slot::lease(&super::slots())?),
        };
        let contract = self.contract(node, provided, conditions)?;
        let mut conditions = conditions.clone();
        if !contract.files.is_empty() {
            // They are put there before the build starts, when a file system in memory does not exist yet.
            conditions.build_fs = BuildFs::Store;
        }
        let conditions = &conditions;
        let places = self.places(&private, &begun.slot, provided, &contract)?;
        let spec = spec(provided.target(node).derivation, &contract, conditions, &node.limits(), &places);
        let plan = plan(&spec, self.host)?;
        let mut transcript = Transcript::new(self.store.log_writer());

        let (started, clock) = (SystemTime::now(), Instant::now());
        let (running, slot) = begun.start(self.launcher, &plan)?;
        if let Some(queue) = queue {
            queue.ahead.begin(self.launcher, &plan, (queue.to_come)());
        }
        meanwhile()?;
        let (ended, leaving) = running.wait_for_writers(&mut |bytes| {
            transcript.add(bytes);
            if let Some(echo) = self.settings.echo {
                // Talk: a closed terminal does not fail a build.
                let _ = echo.lock().write_all(bytes);
            }
        })?;
        let seconds = clock.elapsed();
        let tail = transcript.tail();
        let (log, writer) = transcript.finish().map_err(io("writing the log to", self.store.root()))?;
        let mut end = how_it_ended(ended.how, tail);
        let mut settled = Settled::default();
        if end.status == Status::Built {
            match self.take(node, provided, &places.store)? {
                Ok(made) => settled = made,
                Err(message) => end = End::failed(message, None, &end),
            }
        }
        let Settled { mut drafts, mut taken, placed } = settled;
        let mut outcome = self.outcome(node, provided, (conditions, &contract), &ended, &end, (&taken, &placed), log);
        outcome.started = moment(started);
        // No namespace hides the wall clock: what the caller reads at the start is what the build would have read.
        if let Some(seen) = outcome.conditions.as_mut().and_then(|ran| ran.observed.as_mut()) {
            seen.unix_time = Some(outcome.started.unix());
        }
        outcome.seconds = seconds;
        if outcome.status == Status::Built {
            let manifests = taken.iter().map(|(name, taken)| (name.clone(), taken.manifest.clone())).collect();
            match artifact::artifacts(node.recipe().map_or(&BTreeMap::new(), |recipe| &recipe.artifacts), &manifests) {
                Ok(artifacts) => outcome.artifacts = artifacts,
                Err(error) => {
                    outcome.status = Status::Failed;
                    outcome.failure = Some(failure(error.to_string()));
                    outcome.outputs.clear();
                    taken.clear();
                    drafts.clear();
                }
            }
        }
        let kept = match (outcome.status, self.settings.keep_failed) {
            (Status::Built, _) | (_, KeepFailed::No) => None,
            (_, KeepFailed::Yes) => {
                // After the scan: a change of owner would take away the set-id bits and capabilities that it refuses.
                slot.reclaim_tree(&places.store)?;
                slot.reclaim_tree(&places.build)?;
                Some(self.store.keep_failed(&private, &node.path)?)
            }
        };
        let rest = Some(Rest { log: writer, _leaving: leaving, _private: private, _slot: slot });
        Ok(Attempt { run: Run { outcome, taken, placed, kept }, drafts, rest })
    }

    /// What the build of `node` is promised under `conditions`.
    pub(super) fn contract(
        &self,
        node: &Node,
        provided: &Provided,
        conditions: &Conditions,
    ) -> Result<Contract, BuildError> {
        let target = provided.target(node);
        let outputs = target.outputs.iter().map(|(name, path)| (Name::from(name), path.clone())).collect();
        let closure = |path: &StorePath| {
            provided.closure.get(path)?;
            let closure = self.store.closure(&BTreeSet::from([path.clone()])).ok()?;
            let known = closure.into_iter().map(|(path, info)| {
                let PathInfo { references, nar_hash, nar_size, ca, .. } = info;
                (path, Named { references, nar_hash, nar_size, address: ca })
            });
            Some(known.collect())
        };
        let given = Given {
            outputs: &outputs,
            cores: conditions.cores.get(),
            home: &conditions.home,
            directory: &conditions.build_dir,
            closure: &closure,
            caller: &|name| std::env::var_os(OsStr::from_bytes(name)).map(OsStringExt::into_vec),
        };
        target.derivation.contract(&given).map_err(|source| refused(node, source))
    }

    /// Makes the private directories of one build, with the contract's files, and gives them to its slot.
    pub(super) fn places(
        &self,
        private: &PrivateDir,
        slot: &Slot,
        provided: &Provided,
        contract: &Contract,
    ) -> Result<Places, BuildError> {
        let make = |name: &str, mode: u32, files: &BTreeMap<Vec<u8>, Vec<u8>>| -> Result<PathBuf, BuildError> {
            let path = private.path().join(name);
            DirBuilder::new().mode(mode).create(&path).map_err(io("creating", &path))?;
            // mkdir(2) applies kiln's own umask; the build must not see it.
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).map_err(io("creating", &path))?;
            for (name, contents) in files {
                let file = path.join(OsStr::from_bytes(name));
                fs::write(&file, contents).map_err(io("writing", &file))?;
            }
            slot.adopt_tree(&path)?;
            Ok(path)
        };
        let (store, build) = (make("store", 0o1775, &BTreeMap::new())?, make("build", 0o700, &contract.files)?);
        Ok(Places { store, build, ..self.surroundings(provided) })
    }

    /// What of a build's places does not depend on its private directory; the others are empty paths.
    pub(super) fn surroundings(&self, provided: &Provided) -> Places {
        Places {
            environment: provided.environment.clone(),
            named: provided.named.clone(),
            inputs: provided.closure.clone(),
            store: PathBuf::new(),
            build: PathBuf::new(),
            memory: host::memory() / 2,
            // A build that takes everything takes kiln and its neighbours with it. Joining a group of version 1 costs as much
            // as three sandboxes, so there it is done for those who ask.
            memory_total: self
                .settings
                .memory
                .or_else(|| (self.host.control_groups.rung() == 2).then(|| host::memory() / 4 * 3)),
            cpus: host::processors(),
        }
    }

    /// Copies the outputs out of the build's private store; the inner error is the build's own fault.
    pub(super) fn take(
        &self,
        node: &Node,
        provided: &Provided,
        store: &Path,
    ) -> Result<Result<Settled, String>, BuildError> {
        let target = provided.target(node);
        let directory = File::open(store).map_err(io("opening", store))?;
        let limits = TreeLimits::default();
        // The environment is among the digests and not in the closure.
        let inputs = provided.digests.keys().cloned();
        let candidates: BTreeSet<StorePath> = inputs.chain(target.outputs.values().cloned()).collect();
        let mut drafts = BTreeMap::new();
        for (name, path) in target.outputs {
            let base = CString::new(path.base_name()).expect("store paths have no NUL");
            let shown = PathBuf::from(path.to_string());
            let source = Source { directory: directory.as_fd(), name: &base, shown: &shown, origin: Origin::Built };
            match fault_of_build(name, self.store.draft_output(source, &candidates, limits))? {
                Ok(draft) => drop(drafts.insert(name.clone(), draft)),
                Err(message) => return Ok(Err(message)),
            }
        }
        let settled = match float::settle(self.store, target, drafts)? {
            Ok(settled) => settled,
            Err(message) => return Ok(Err(message)),
        };
        let of_taken = |name: &Variable| Name::from(name);
        let outputs = settled.placed.iter().map(|(name, placed)| (of_taken(name), placed.path.clone())).collect();
        let checks = Checks::of(target.derivation, &outputs).map_err(|source| refused(node, source))?;
        let made = settled.taken.iter().filter_map(|(name, taken)| {
            let Taken { references, nar_size, .. } = taken.clone();
            Some((of_taken(name), Made { path: settled.placed.get(name)?.path.clone(), references, nar_size }))
        });
        let known = |path: &StorePath| {
            let info = self.store.path_info(path).ok()??;
            Some((info.references, info.nar_size))
        };
        if let Err(error) = checks.hold(&made.collect(), &known) {
            return Ok(Err(error.to_string()));
        }
        Ok(fixed::hold(target.derivation, &settled.drafts)?.map(|()| settled))
    }

    #[expect(clippy::too_many_arguments, reason = "an outcome is made of all that is known about a build")]
    fn outcome(
        &self,
        node: &Node,
        provided: &Provided,
        (conditions, contract): (&Conditions, &Contract),
        ended: &Ended,
        end: &End,
        (taken, placed): (&BTreeMap<Variable, Taken>, &BTreeMap<Variable, Placed>),
        log: Log,
    ) -> Outcome {
        let outputs = taken.iter().filter_map(|(name, taken)| {
            let path = &placed.get(name)?.path;
            let output = Output {
                path: path.to_string(),
                nar_hash: taken.nar_hash,
                nar_size: taken.nar_size,
                manifest: taken.manifest.clone(),
            };
            Some((name.clone(), output))
        });
        let isolation = match serde_json::to_value(&ended.achieved) {
            Ok(serde_json::Value::Object(fields)) => fields.into_iter().collect(),
            Ok(_) | Err(_) => BTreeMap::new(),
        };
        Outcome {
            schema: (),
            status: end.status,
            limit: end.limit,
            cached: false,
            derivation: node.path.to_string(),
            outputs: outputs.collect(),
            artifacts: BTreeMap::new(),
            isolation,
            conditions: Some(Ran {
                settings: conditions.clone(),
                observed: ended.observed.as_ref().map(|seen| observed(seen, contract, conditions)),
                effects: None,
            }),
            host: host::traits(self.store.root()),
            inputs: provided.digests.iter().map(|(path, digest)| (path.to_string(), *digest)).collect(),
            substituted: provided.substituted.iter().map(|(path, from)| (path.to_string(), from.clone())).collect(),
            started: moment(UNIX_EPOCH),
            seconds: Duration::ZERO,
            log: Some(log),
            failure: end.failure.clone(),
        }
    }
}

/// Whether what a failed build left stays on disk for `kiln shell`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeepFailed {
    /// It is removed.
    No,
    /// It stays until the store is cleaned.
    Yes,
}

impl End {
    fn failed(message: String, exit: Option<i32>, of: &Self) -> Self {
        let log_tail = of.failure.as_ref().map(|f| f.log_tail.clone()).unwrap_or_default();
        Self { status: Status::Failed, limit: None, failure: Some(Failure { message, exit, signal: None, log_tail }) }
    }
}

/// A failure that nothing but `message` is known of.
pub(super) fn failure(message: String) -> Failure {
    Failure { message, exit: None, signal: None, log_tail: String::new() }
}

fn refused(node: &Node, source: ContractError) -> BuildError {
    BuildError::Contract { target: node.shown.display().to_string(), source }
}

fn how_it_ended(how: How, log_tail: String) -> End {
    let failed = |status, limit, message: String, exit, signal| End {
        status,
        limit,
        failure: Some(Failure { message, exit, signal, log_tail: log_tail.clone() }),
    };
    match how {
        How::Exited(0) => End { status: Status::Built, limit: None, failure: None },
        How::Exited(code) => {
            failed(Status::Failed, None, format!("the script exited with {code}"), Some(code.into()), None)
        }
        How::Signaled(signal) => {
            failed(Status::Failed, None, format!("the script was ended by signal {signal}"), None, Some(signal))
        }
        How::TimedOut => failed(Status::TimedOut, None, "the build ran into its deadline".into(), None, None),
        How::LimitExceeded(Which::Log) => {
            failed(Status::Failed, Some(Limit::LogBytes), "the build wrote more log than its limit".into(), None, None)
        }
        How::LimitExceeded(Which::Cpu) => {
            failed(Status::TimedOut, None, "the build used more CPU time than its limit".into(), None, None)
        }
        How::LimitExceeded(Which::FileSize) => {
            failed(Status::Failed, Some(Limit::Disk), "the build wrote a larger file than its limit".into(), None, None)
        }
        How::LimitExceeded(Which::Memory) => {
            failed(Status::Failed, Some(Limit::Memory), "the build took more memory than its limit".into(), None, None)
        }
        How::LimitExceeded(Which::Processes) => {
            let message = "the build failed when it had as many processes as its limit";
            failed(Status::Failed, Some(Limit::Processes), message.into(), None, None)
        }
        How::LimitExceeded(Which::Disk) => {
            failed(Status::Failed, Some(Limit::Disk), "the build wrote more to disk than its limit".into(), None, None)
        }
        How::Cancelled => failed(Status::Failed, None, "the build was stopped".into(), None, None),
    }
}

/// What the store says of an output; the inner error is what the build itself did wrong.
pub(super) fn fault_of_build<T>(name: &Variable, done: Result<T, StoreError>) -> Result<Result<T, String>, BuildError> {
    match done {
        Ok(done) => Ok(Ok(done)),
        Err(StoreError::Tree(error)) if !matches!(error, TreeError::Read { .. }) => {
            let mut message = format!("output {name}: {error}");
            let mut cause: &dyn std::error::Error = &error;
            while let Some(source) = cause.source() {
                message.push_str(&format!(": {source}"));
                cause = source;
            }
            Ok(Err(message))
        }
        Err(error) => Err(error.into()),
    }
}

/// The outputs, by their paths and what each names: each after those that it names, `None` if they name each other in a
/// circle.
pub(super) fn in_order<'a>(
    made: &BTreeMap<&'a Variable, (&StorePath, &BTreeSet<StorePath>)>,
) -> Option<Vec<&'a Variable>> {
    let mut left: BTreeSet<&Variable> = made.keys().copied().collect();
    let mut ordered = Vec::new();
    while !left.is_empty() {
        let names = |name: &Variable, other: &Variable| name != other && made[name].1.contains(made[other].0);
        let next = *left.iter().find(|name| !left.iter().any(|other| names(name, other)))?;
        left.remove(next);
        ordered.push(next);
    }
    Some(ordered)
}

/// The sandbox's facts in the words that factors are judged by. The variables are those passed to `execve`; the user's name
/// is the one that kiln's own passwd file, laid over the environment's, has for the uid seen.
fn observed(seen: &kiln_sandbox::Observed, contract: &Contract, conditions: &Conditions) -> Observed {
    let env = super::sandbox::variables(contract, conditions)
        .into_iter()
        .map(|(key, value)| (String::from_utf8_lossy(&key).into_owned(), String::from_utf8_lossy(&value).into_owned()));
    Observed {
        cwd: Some(seen.cwd.clone()),
        hostname: Some(seen.hostname.clone()),
        domain: Some(seen.domain.clone()),
        user_name: (seen.uid == conditions.uid).then(|| conditions.user_name.clone()),
        uid: Some(seen.uid),
        gid: Some(seen.gid),
        umask: Some(Umask::new(seen.umask)),
        cpus: u32::try_from(seen.cpus.len()).ok(),
        file_system: i64::try_from(seen.cwd_magic).ok().map(|magic| host::file_system_name(FsType(magic))),
        pid: Some(seen.pid),
        personality: Some(seen.personality),
        kernel: Some(seen.release.clone()),
        unix_time: None,
        env: Some(env.collect()),
    }
}

pub(super) fn moment(time: SystemTime) -> Moment {
    Moment::from_unix(time.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs()))
}
