//! Many rebuilds on one machine: what is asked for becomes jobs of the embedded engine, which threads claim, carry out and
//! answer.
//!
//! An answer is on the disk before its job is closed, under the name of exactly what was asked: target, settings, version of
//! kiln. So a campaign that is killed goes on where it was, and what is done is not done again unless asked. Whatever becomes of
//! one target (a line that means nothing, a source that is gone, a build that fails) is its answer, and the others go on; only
//! what no target could be rebuilt with ends all of it. A failure of this host is no answer: the next run tries again.

pub mod budget;
mod job;
mod kept;
pub mod request;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kiln_model::campaign::{Campaign, Entry, Finished, TroubleKind, Withheld};
use kiln_model::digest::Digest;
use kiln_model::engine::{Answer, DELIVERIES, Desk as _, Engine as _, EngineError, Job, JobId, Lease, Priority};
use kiln_model::outcome::Status;
use kiln_model::report::Report;
use kiln_model::verdict::Accept;

use crate::build::Builder;
use crate::engine::{Embedded, EmbeddedDesk, Limits};
use crate::event::{self, Level, Task as Shown, Unit};
use crate::exit::Kind;
use crate::rebuild::rebuilding::{RebuildError, Rebuilding, chain};
use crate::store::{Room, Store, StoreError};
use budget::{Budget, Spent};
use job::{Task, Work};
use kept::Kept;
use request::{Request, RequestError};

/// Longer than any build may take: what ends a lease here is the end of its process.
const LEASE: Duration = Duration::from_secs(7 * 24 * 3600);
/// Bytes of an answer: what a table shows of a source with thousands of packages.
const DOCUMENT: u64 = 4 << 20;
/// How often the page over all targets is written while they are rebuilt.
const PAGE: Duration = Duration::from_secs(10);

/// How a campaign is done.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where answers are kept, and where reports and pages are left, if anywhere.
    pub place: Place,
    /// Threads that rebuild.
    pub jobs: std::num::NonZeroUsize,
    /// What it may use.
    pub budget: Budget,
    /// What may stay in the store, after each target, of what can be made again.
    pub room: Room,
    /// What is done about what is done already.
    pub done: Done,
    /// What is done about the others when one has not come out well.
    pub failure: OnFailure,
    /// What coming out well is.
    pub accept: Accept,
}

/// Where a campaign is kept.
#[derive(Debug, Clone)]
pub enum Place {
    /// In the store; nothing else is left.
    Store,
    /// In a directory of the user's, with reports and pages.
    Directory(PathBuf),
}

/// What is done about targets that are done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Done {
    /// They are told as they came out.
    Told,
    /// They are rebuilt again.
    Again,
}

/// What is done when a target has not come out well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFailure {
    /// The others go on.
    GoOn,
    /// Nothing is started any more.
    Stop,
}

/// Why a campaign could not be done.
#[derive(Debug, thiserror::Error)]
pub enum CampaignError {
    /// What it is asked for.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// What keeps its answers.
    #[error("keeping what the campaign comes to")]
    Engine(#[from] EngineError),
    /// What keeps its builds.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Another process is at it.
    #[error("another kiln is at work in {}: wait for it, or say --output with a directory of this one's own", path.display())]
    Busy {
        /// Where.
        path: PathBuf,
    },
    /// A target that could not be rebuilt for a reason that all others share.
    #[error("rebuilding {target}")]
    Rebuild {
        /// The target.
        target: String,
        /// Why.
        source: Box<RebuildError>,
    },
    /// The targets could not be told apart.
    #[error(transparent)]
    Plan(Box<RebuildError>),
    /// A file could not be read or written.
    #[error("{act} {}", path.display())]
    Io {
        /// What was tried.
        act: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl CampaignError {
    /// What sort of error it is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Request(error) => error.kind(),
            Self::Store(error) => error.kind(),
            Self::Engine(EngineError::Version { .. } | EngineError::Corrupt { .. }) | Self::Busy { .. } => {
                Kind::BadInput
            }
            Self::Engine(_) | Self::Io { .. } => Kind::Host,
            Self::Rebuild { source, .. } | Self::Plan(source) => source.kind(),
        }
    }
}

fn failed(act: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> CampaignError {
    let path = path.to_path_buf();
    move |source| CampaignError::Io { act, path, source }
}

/// One target of a running campaign.
struct Line {
    work: Option<(Work, JobId)>,
    entry: Entry,
}

/// A campaign that runs.
struct Running<'a, 'b, 'c> {
    rebuilding: &'a Rebuilding<'b, 'c>,
    options: &'a Options,
    kept: &'a Kept,
    desk: EmbeddedDesk,
    spent: Spent<'a>,
    board: Mutex<Board>,
    stopped: AtomicBool,
    bar: Shown<'a>,
}

/// What is known of all targets so far.
struct Board {
    lines: Vec<Line>,
    at: BTreeMap<JobId, usize>,
    withheld: Option<Withheld>,
    /// Targets that this run finished, how long they took together, and how many are left.
    finished: u32,
    took: Duration,
    left: usize,
    page: Instant,
}

/// Rebuilds all that `requests` ask for, and tells what became of each.
pub fn run(
    rebuilding: &Rebuilding<'_, '_>,
    requests: Vec<Request>,
    options: &Options,
) -> Result<Campaign, CampaignError> {
    let store = rebuilding.builder.store.root();
    let kept = Kept::open(&options.place, store)?;
    let limits = Limits { lease: LEASE, document: DOCUMENT, ..Limits::default() };
    let engine = Embedded::open(&kept.engine(), limits)?;
    let desk = engine.desk(job::rebuilder());
    let tasks = job::tasks(requests, rebuilding).map_err(|error| CampaignError::Plan(Box::new(error)))?;
    let (lines, at) = begun(tasks, rebuilding, &engine, &desk, options)?;
    let left = lines.iter().filter(|line| line.entry.finished.is_none()).count();
    let total = lines.len();
    let events = rebuilding.builder.events;
    let earlier = lines.iter().filter(|line| line.entry.earlier).count();
    if earlier > 0 && left > 0 {
        event::say(events, Level::Note, format!("{earlier} of {total} targets are done already"));
    }
    let bar = Shown::start(events, "targets", Unit::Items, Some(total as u64));
    bar.advance((total - left) as u64);
    let running = Running {
        rebuilding,
        options,
        kept: &kept,
        desk,
        spent: Spent::begin(options.budget, store),
        board: Mutex::new(Board {
            lines,
            at,
            withheld: None,
            finished: 0,
            took: Duration::ZERO,
            left,
            page: Instant::now(),
        }),
        stopped: AtomicBool::new(false),
        bar,
    };
    let threads = options.jobs.get().min(left);
    std::thread::scope(|scope| -> Result<(), CampaignError> {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(|| running.work())).collect();
        let ended: Vec<_> = threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect();
        ended.into_iter().collect()
    })?;
    let campaign = running.campaign();
    kept.leave(&campaign)?;
    Ok(campaign)
}

/// Each task with what is known of it, and those that are left as jobs in the engine.
fn begun(
    tasks: Vec<Task>,
    rebuilding: &Rebuilding<'_, '_>,
    engine: &Embedded,
    desk: &EmbeddedDesk,
    options: &Options,
) -> Result<(Vec<Line>, BTreeMap<JobId, usize>), EngineError> {
    let (mut lines, mut at, mut waiting) = (Vec::new(), BTreeMap::new(), Vec::new());
    for task in tasks {
        let (work, asked) = match task {
            Task::Work(work) => (work.clone(), work.asked),
            Task::Nothing(asked, why) => {
                let finished = Finished::trouble(&asked.target, TroubleKind::BadInput, why, Duration::ZERO);
                let entry = entry(asked.target.clone(), "default".into(), vec![asked], Some(finished));
                lines.push(Line { work: None, entry });
                continue;
            }
        };
        let (job, stored) = current(&work, rebuilding, engine, desk, options.done)?;
        let finished = stored.as_ref().map(read).transpose()?;
        let mut entry = entry(work.target.to_string(), work.settings.to_string(), asked, finished);
        entry.earlier = stored.is_some();
        if let Place::Directory(_) = options.place {
            entry.directory = Some(format!("{}/{}", kept::TARGETS, work.directory(&job.id())));
        }
        at.insert(job.id(), lines.len());
        lines.push(Line { work: Some((work, job.id())), entry });
        if stored.is_none() {
            waiting.push(job);
        }
    }
    // What an earlier run was asked for and this one is not would be claimed, too. Its answers stay.
    let wanted: BTreeSet<JobId> = waiting.iter().map(Job::id).collect();
    for job in engine.retained()?.iter().filter(|job| !wanted.contains(job)) {
        engine.retire(job)?;
    }
    for job in &waiting {
        engine.enqueue(job, Priority::Normal)?;
    }
    Ok((lines, at))
}

fn entry(
    target: String,
    settings: String,
    asked: Vec<kiln_model::campaign::Asked>,
    finished: Option<Finished>,
) -> Entry {
    let mut entry =
        Entry { target, settings, asked, finished: None, not_attempted: None, earlier: false, directory: None };
    entry.finish(finished);
    entry
}

/// The job of the last round that was begun, and the answer to it; of a new round if the last has one and again is asked.
fn current(
    work: &Work,
    rebuilding: &Rebuilding<'_, '_>,
    engine: &Embedded,
    desk: &EmbeddedDesk,
    done: Done,
) -> Result<(Job, Option<Answer>), EngineError> {
    let (mut round, mut job) = (0, work.job(rebuilding, 0));
    let mut stored = desk.stored(&job.id())?;
    loop {
        let next = work.job(rebuilding, round + 1);
        let answer = desk.stored(&next.id())?;
        if answer.is_none() && !engine.retains(&next.id())? {
            break;
        }
        (round, job, stored) = (round + 1, next, answer);
    }
    match (done, &stored) {
        (Done::Again, Some(_)) => Ok((work.job(rebuilding, round + 1), None)),
        (Done::Again, None) | (Done::Told, _) => Ok((job, stored)),
    }
}

fn read(answer: &Answer) -> Result<Finished, EngineError> {
    serde_json::from_slice(&answer.document).map_err(|error| EngineError::Corrupt {
        what: format!("answer to {}", answer.job),
        why: format!("{error}; remove it to have the target rebuilt"),
    })
}

impl Running<'_, '_, '_> {
    /// What one thread does: claims, rebuilds, answers, until nothing is left or nothing may be started.
    fn work(&self) -> Result<(), CampaignError> {
        while !self.stopped.load(Ordering::SeqCst) {
            if let Some(why) = self.spent.over(|| self.make_room(&Room::default())) {
                self.stop(why);
                break;
            }
            let Some(lease) = self.desk.claim(&job::platforms(), Duration::ZERO)? else { break };
            let worked = self.one(&lease);
            if worked.is_err() {
                self.stopped.store(true, Ordering::SeqCst);
                self.desk.put_back(&lease, Duration::ZERO).ok();
            }
            worked?;
        }
        Ok(())
    }

    fn board(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stop(&self, why: Withheld) {
        self.stopped.store(true, Ordering::SeqCst);
        let mut board = self.board();
        if board.withheld.is_none() {
            board.withheld = Some(why);
            self.say(format!("nothing more is started: {}", why.as_str()));
        }
    }

    fn say(&self, text: String) {
        event::say(self.rebuilding.builder.events, Level::Note, text);
    }

    /// Drops what earlier builds left. What cannot be dropped stays, and the disk is as full as it was.
    fn make_room(&self, room: &Room) {
        self.rebuilding.builder.store.trim(room).ok();
    }

    fn one(&self, lease: &Lease) -> Result<(), CampaignError> {
        let id = lease.job.id();
        let work = {
            let board = self.board();
            let line = board.at.get(&id).and_then(|at| board.lines.get(*at));
            line.and_then(|line| line.work.as_ref()).map(|(work, _)| work.clone())
        };
        let Some(work) = work else {
            // All others were retired before any was claimed.
            self.desk.put_back(lease, Duration::ZERO)?;
            return Ok(());
        };
        if let Some(answer) = self.desk.stored(&id)? {
            // A process died between its answer and the end of its job.
            let proof = self.desk.report(&answer)?;
            self.desk.close(lease, &proof)?;
            return self.finished(&id, read(&answer)?);
        }
        if lease.delivery >= DELIVERIES {
            let why = format!("{} builds of it ended without a result; --again begins anew", DELIVERIES - 1);
            let title = work.target.to_string();
            let finished = Finished::trouble(&title, TroubleKind::Poisoned, why.clone(), Duration::ZERO);
            let proof = self.desk.report(&self.answer(&id, &finished, None))?;
            self.desk.bury(lease, &proof, &why)?;
            return self.finished(&id, finished);
        }
        let began = Instant::now();
        let directory = self.kept.directory(&work.directory(&id))?;
        // What a target needs is held for as long as it is worked on, not until the campaign ends.
        let store = Store::open(self.rebuilding.builder.store.root())?;
        let builder = Builder { store: &store, ..*self.rebuilding.builder };
        let settings = work.settings.clone();
        let rebuilding =
            Rebuilding { builder: &builder, settings, output: directory.clone(), ..self.rebuilding.clone() };
        let (finished, report) = match rebuilding.rebuild(&work.target) {
            Ok(report) => (Finished::of(&report, began.elapsed()), Some(report)),
            Err(error) => {
                let Some(kind) = trouble(error.kind()) else {
                    return Err(CampaignError::Rebuild { target: work.target.to_string(), source: Box::new(error) });
                };
                (Finished::trouble(&work.target.to_string(), kind, chain(&error), began.elapsed()), None)
            }
        };
        if let (None, Some(directory)) = (&report, &directory) {
            // Nothing was left in it, unless an earlier round did.
            std::fs::remove_dir(directory).ok();
        }
        if let Some(TroubleKind::Host) = finished.error.as_ref().map(|trouble| trouble.kind) {
            // No answer to the job: told now. The lease ends with this process, so that the next run tries again.
            return self.finished(&id, finished);
        }
        // An answer stays: what it rests on is on the disk before it.
        store.sync()?;
        if let (Some(report), Some(directory)) = (&report, &directory) {
            self.kept.report(directory, report, &store)?;
        }
        let proof = self.desk.report(&self.answer(&id, &finished, report.as_ref()))?;
        self.desk.close(lease, &proof)?;
        self.finished(&id, finished)?;
        drop(store);
        self.make_room(&self.options.room);
        Ok(())
    }

    fn answer(&self, job: &JobId, finished: &Finished, report: Option<&Report>) -> Answer {
        let outcome = report.and_then(|report| report.outcomes.first());
        let artifacts = outcome.into_iter().flat_map(|outcome| &outcome.artifacts);
        let outputs: BTreeMap<String, Digest> = artifacts.map(|(name, a)| (name.clone(), a.sha256)).collect();
        let document = serde_json::to_vec(finished).expect("texts and numbers are always JSON");
        Answer { job: *job, status: outcome.map_or(Status::Unavailable, |outcome| outcome.status), outputs, document }
    }

    /// Notes and tells what became of one.
    fn finished(&self, job: &JobId, finished: Finished) -> Result<(), CampaignError> {
        let verdict = finished.verdict;
        let (told, page) = {
            let mut board = self.board();
            let Board { lines, at, finished: count, took, left, page, .. } = &mut *board;
            let Some(line) = at.get(job).and_then(|at| lines.get_mut(*at)) else { return Ok(()) };
            *count += 1;
            *took += finished.seconds;
            *left = left.saturating_sub(1);
            let (title, seconds) = (finished.title.clone(), finished.seconds.as_secs());
            let error = finished.error.as_ref().map(|trouble| format!(": {}", trouble.text)).unwrap_or_default();
            line.entry.finish(Some(finished));
            let (done, total) = (lines.len() - *left, lines.len());
            self.bar.advance(done as u64);
            let rest = estimate(*took, *count, *left, self.options.jobs.get());
            let told = format!("[{done}/{total}] {title}: {verdict} ({seconds} s){error}{rest}");
            let due = page.elapsed() >= PAGE;
            if due {
                *page = Instant::now();
            }
            (told, due)
        };
        self.say(told);
        if self.options.failure == OnFailure::Stop && verdict.exit_code(self.options.accept) != 0 {
            self.stop(Withheld::FailFast);
        }
        if page {
            self.kept.leave(&self.campaign())?;
        }
        Ok(())
    }

    /// What is known now.
    fn campaign(&self) -> Campaign {
        let board = self.board();
        let entries = board.lines.iter().map(|line| {
            let mut entry = line.entry.clone();
            if entry.finished.is_none() {
                entry.directory = None;
                entry.not_attempted = Some(board.withheld.unwrap_or(Withheld::NotYet));
            }
            entry
        });
        Campaign::new(env!("CARGO_PKG_VERSION"), entries.collect())
    }
}

/// How long the rest may take, in words, if that can be said.
fn estimate(took: Duration, finished: u32, left: usize, threads: usize) -> String {
    let Some(each) = took.checked_div(finished) else { return String::new() };
    if left == 0 {
        return String::new();
    }
    let rounds = left.div_ceil(threads).try_into().unwrap_or(u32::MAX);
    let minutes = each.saturating_mul(rounds).as_secs().div_ceil(60);
    match minutes {
        0 | 1 => "; about a minute left".into(),
        2..=120 => format!("; about {minutes} minutes left"),
        _ => format!("; about {} hours left", minutes.div_ceil(60)),
    }
}

/// What sort of trouble an error is, unless all targets share it.
fn trouble(kind: Kind) -> Option<TroubleKind> {
    match kind {
        Kind::BadInput | Kind::Inconclusive => Some(TroubleKind::BadInput),
        Kind::Tampered => Some(TroubleKind::Tampered),
        Kind::BuildFailed | Kind::Disagreement => Some(TroubleKind::BuildFailed),
        Kind::Host => Some(TroubleKind::Host),
        Kind::CannotIsolate | Kind::Bug => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_is_estimated_from_what_is_done() {
        assert_eq!(estimate(Duration::ZERO, 0, 9, 2), "", "nothing is known yet");
        assert_eq!(estimate(Duration::from_secs(600), 2, 4, 2), "; about 10 minutes left");
        assert_eq!(estimate(Duration::from_secs(1), 1, 1, 8), "; about a minute left");
        assert_eq!(estimate(Duration::from_secs(600), 1, 1000, 2), "; about 84 hours left");
        assert_eq!(estimate(Duration::from_secs(600), 1, 0, 2), "");
    }
}
