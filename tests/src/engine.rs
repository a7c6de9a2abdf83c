//! What every engine promises, as tests: [`kiln_model::engine`] and the table of guarantees in the farm's design.
//!
//! A [`Farm`] opens both sides of one engine and does to it what a bad day does. Times come from the farm; waits have bounds,
//! never exact values. `tests/tests/engine.rs` runs all of it for the embedded engine.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Barrier;
use std::time::{Duration, Instant};

use kiln_model::digest::Digest;
use kiln_model::engine::{
    Answer, Cursor, DELIVERIES, Desk, Engine, EngineError, Enqueued, How, Job, JobId, Lease, Platform, Priority, Record,
};
use kiln_model::outcome::Status;

/// Later than the contract allows: a loaded machine is not a broken promise.
const SLACK: Duration = Duration::from_secs(10);
/// Enough that an offer which may be made is made.
const SOON: Duration = Duration::from_secs(5);
/// No wait at all.
const NOW: Duration = Duration::ZERO;

/// One engine, from outside.
pub trait Farm {
    /// The coordinator's side, opened anew.
    fn engine(&self) -> Box<dyn Engine + Send + Sync>;
    /// A rebuilder's side, opened anew, as another of its workers would.
    fn desk(&self, rebuilder: &str) -> Box<dyn Desk + Send + Sync>;
    /// A worker in a process of its own, whose date is `off` seconds wrong; `None` if this host cannot do that.
    fn worker(&self, rebuilder: &str, off: i64) -> Option<Worker>;
    /// Ends the engine without a warning and starts it again.
    fn restart(&mut self);
    /// How long a claim holds.
    fn lease(&self) -> Duration;
    /// How many jobs there is room for.
    fn room(&self) -> u64;
}

/// A worker in a process of its own (`src/bin/worker.rs`), which does as it is told.
pub struct Worker {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Worker {
    /// Starts it.
    pub fn start(mut command: Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("the worker starts");
        let stdin = child.stdin.take().expect("it was asked for");
        let stdout = BufReader::new(child.stdout.take().expect("it was asked for"));
        Self { child, stdin, stdout }
    }

    /// Tells it something; what it says to that.
    pub fn told(&mut self, words: &str) -> String {
        writeln!(self.stdin, "{words}").expect("the worker reads");
        let mut line = String::new();
        self.stdout.read_line(&mut line).expect("the worker answers");
        assert!(!line.is_empty(), "the worker has ended instead of answering {words:?}");
        line.trim_end().to_string()
    }

    /// Kills it, as `kill -9` does.
    pub fn killed(mut self) {
        self.child.kill().expect("our own child");
        self.child.wait().expect("our own child");
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // After `killed` there is nothing to kill.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// The platform of all jobs.
pub fn platform() -> Platform {
    "x86_64-linux".parse().expect("a name of ours")
}

/// A job that says `text`, for rb1 and rb2.
pub fn job(text: &str) -> Job {
    let rebuilders = ["rb1", "rb2"].map(|name| name.parse().expect("a name of ours"));
    Job::new(format!("{{\"says\":{text:?}}}").into_bytes(), platform(), rebuilders.into())
}

/// An answer with one output of these contents.
pub fn answer(job: &JobId, contents: &str) -> Answer {
    let outputs = BTreeMap::from([("out".to_string(), Digest::of(contents))]);
    Answer { job: *job, status: Status::Built, outputs, document: contents.as_bytes().to_vec() }
}

fn claim(desk: &dyn Desk, wait: Duration) -> Option<Lease> {
    desk.claim(&BTreeSet::from([platform()]), wait).expect("the engine is there")
}

fn claimed(desk: &dyn Desk) -> Lease {
    claim(desk, SOON).expect("there is a job")
}

fn enqueued(farm: &dyn Farm, text: &str, priority: Priority) -> Job {
    let job = job(text);
    assert_eq!(farm.engine().enqueue(&job, priority).expect("there is room"), Enqueued::New);
    job
}

fn ended(desk: &dyn Desk, lease: &Lease, contents: &str) {
    let proof = desk.report(&answer(&lease.job.id(), contents)).expect("the engine is there");
    desk.close(lease, &proof).expect("the engine is there");
}

fn records(farm: &dyn Farm) -> Vec<Record> {
    farm.engine().records(Cursor::default()).expect("the engine is there").into_iter().map(|(_, r)| r).collect()
}

fn letters(farm: &dyn Farm) -> Vec<(JobId, String)> {
    let letter = |record| match record {
        Record::DeadLetter { job, why, .. } => Some((job, why)),
        Record::Result { .. } | Record::Conflict { .. } => None,
    };
    records(farm).into_iter().filter_map(letter).collect()
}

/// G1: once `enqueue` has returned, no kill takes the job away.
pub fn enqueued_job_survives_a_kill(farm: &mut dyn Farm) {
    let Some(mut coordinator) = farm.worker("rb1", 0) else { return };
    for n in 0..5 {
        assert_eq!(coordinator.told(&format!("enqueue job-{n}")), "new");
    }
    coordinator.killed();
    farm.restart();
    let desk = farm.desk("rb1");
    for n in 0..5 {
        let lease = claimed(&*desk);
        assert_eq!((lease.job, lease.delivery), (job(&format!("job-{n}")), 1), "all, in the order of enqueueing");
    }
    assert_eq!(claim(&*desk, NOW), None);
}

/// G2.
pub fn same_job_twice_is_known(farm: &mut dyn Farm) {
    enqueued(farm, "a", Priority::Normal);
    assert_eq!(farm.engine().enqueue(&job("a"), Priority::High).unwrap(), Enqueued::Known);
    farm.restart();
    assert_eq!(farm.engine().enqueue(&job("a"), Priority::Normal).unwrap(), Enqueued::Known);
    let desk = farm.desk("rb1");
    let lease = claimed(&*desk);
    assert_eq!(claim(&*desk, NOW), None, "it is offered once");
    ended(&*desk, &lease, "x");
    assert_eq!(farm.engine().enqueue(&job("a"), Priority::Normal).unwrap(), Enqueued::Known, "also when it has ended");
    assert_eq!(claim(&*desk, NOW), None);
}

/// G3.
pub fn late_rebuilder_gets_retained_jobs(farm: &mut dyn Farm) {
    let jobs = ["a", "b"].map(|text| enqueued(farm, text, Priority::Normal));
    let first = farm.desk("rb1");
    for _ in &jobs {
        let lease = claimed(&*first);
        ended(&*first, &lease, "x");
    }
    assert_eq!(claim(&*first, NOW), None);
    farm.restart();
    let late = farm.desk("rb2");
    for job in jobs {
        let lease = claimed(&*late);
        assert_eq!((&lease.job, lease.delivery), (&job, 1));
        ended(&*late, &lease, "x");
    }
    assert_eq!(claim(&*farm.desk("rb3"), NOW), None, "who was not invited gets nothing");
    let other: Platform = "riscv64-linux".parse().unwrap();
    enqueued(farm, "c", Priority::Normal);
    assert_eq!(late.claim(&BTreeSet::from([other]), NOW).unwrap(), None, "nor does another platform");
}

/// G5.
pub fn silent_worker_loses_its_lease(farm: &mut dyn Farm) {
    let job = enqueued(farm, "a", Priority::Normal);
    let (silent, other) = (farm.desk("rb1"), farm.desk("rb1"));
    let lost = claimed(&*silent);
    assert_eq!(claim(&*other, NOW), None, "it holds for a while");
    let lease = claim(&*other, farm.lease() + SLACK).expect("it is offered again");
    assert_eq!((lease.job.id(), lease.delivery), (job.id(), 2));
    // G4: the first worker knows nothing of that, and is right to go on.
    silent.extend(&lost).unwrap();
    ended(&*silent, &lost, "x");
    let proof = other.report(&answer(&job.id(), "x")).unwrap();
    assert_eq!(proof.how(), &How::Same);
    other.close(&lease, &proof).unwrap();
    assert_eq!(claim(&*other, NOW), None);
    // One whose process is dead is not waited for so long where the engine can tell; where it cannot, as long.
    let Some(mut worker) = farm.worker("rb2", 0) else { return };
    assert_eq!(worker.told("claim"), format!("{} 1", job.id()));
    worker.killed();
    let desk = farm.desk("rb2");
    let lease = claim(&*desk, farm.lease() + SLACK).expect("it is offered again");
    assert_eq!((lease.job.id(), lease.delivery), (job.id(), 2));
}

/// G5, the other way.
pub fn extended_lease_is_not_offered_elsewhere(farm: &mut dyn Farm) {
    enqueued(farm, "a", Priority::Normal);
    let (holder, other) = (farm.desk("rb1"), farm.desk("rb1"));
    let lease = claimed(&*holder);
    let until = Instant::now() + farm.lease() * 3;
    while Instant::now() < until {
        holder.extend(&lease).unwrap();
        assert_eq!(claim(&*other, farm.lease() / 8), None, "it is held");
    }
    ended(&*holder, &lease, "x");
    assert_eq!(claim(&*other, NOW), None);
}

/// G7, where answers agree.
pub fn two_reports_of_one_digest_are_same(farm: &mut dyn Farm) {
    let id = enqueued(farm, "a", Priority::Normal).id();
    let desk = farm.desk("rb1");
    let first = answer(&id, "x");
    assert_eq!(desk.report(&first).unwrap().how(), &How::Stored);
    let again = Answer { document: b"signed another day".to_vec(), ..first.clone() };
    assert_eq!(farm.desk("rb1").report(&again).unwrap().how(), &How::Same);
    assert_eq!(desk.stored(&id).unwrap(), Some(first), "the first stays, with its bytes");
    assert_eq!(farm.desk("rb2").stored(&id).unwrap(), None, "and is its rebuilder's own");
    assert_eq!(records(farm).len(), 1);
}

/// G7.
pub fn second_digest_becomes_a_conflict(farm: &mut dyn Farm) {
    let id = enqueued(farm, "a", Priority::Normal).id();
    let desk = farm.desk("rb1");
    let (first, other) = (answer(&id, "x"), answer(&id, "y"));
    desk.report(&first).unwrap();
    let conflict = How::Conflict(Box::new(first.clone()));
    for _ in 0..2 {
        assert_eq!(farm.desk("rb1").report(&other).unwrap().how(), &conflict, "what is stored is told");
    }
    let failed = Answer { status: Status::Failed, outputs: BTreeMap::new(), ..other.clone() };
    assert_eq!(desk.report(&failed).unwrap().how(), &conflict, "another status is another answer");
    farm.restart();
    assert_eq!(farm.desk("rb1").stored(&id).unwrap(), Some(first.clone()));
    let rebuilder = "rb1".parse::<kiln_model::engine::Rebuilder>().unwrap();
    let expected = vec![
        Record::Result { rebuilder: rebuilder.clone(), answer: first },
        Record::Conflict { rebuilder: rebuilder.clone(), answer: other },
        Record::Conflict { rebuilder, answer: failed },
    ];
    assert_eq!(records(farm), expected, "each is kept, once");
}

/// A result is worth more than the claim it was made under.
pub fn reporting_without_a_lease_is_stored(farm: &mut dyn Farm) {
    let id = enqueued(farm, "a", Priority::Normal).id();
    let desk = farm.desk("rb1");
    assert_eq!(desk.stored(&id).unwrap(), None);
    assert_eq!(desk.report(&answer(&id, "x")).unwrap().how(), &How::Stored);
    // The offer stands until somebody closes it, who finds the answer.
    let lease = claimed(&*desk);
    assert_eq!(desk.stored(&id).unwrap(), Some(answer(&id, "x")));
    ended(&*desk, &lease, "x");
    assert_eq!(claim(&*desk, NOW), None);
    // An answer to another job proves nothing of this one.
    enqueued(farm, "b", Priority::Normal);
    let lease = claimed(&*desk);
    let foreign = desk.report(&answer(&id, "x")).unwrap();
    assert!(matches!(desk.close(&lease, &foreign), Err(EngineError::Refused { .. })));
    assert!(matches!(desk.bury(&lease, &foreign, "no"), Err(EngineError::Refused { .. })));
}

/// G12.
pub fn fifth_delivery_is_the_last(farm: &mut dyn Farm) {
    let id = enqueued(farm, "a", Priority::Normal).id();
    let desk = farm.desk("rb1");
    for n in 1..DELIVERIES {
        let lease = claimed(&*desk);
        assert_eq!(lease.delivery, n);
        desk.put_back(&lease, NOW).unwrap();
    }
    farm.restart();
    let desk = farm.desk("rb1");
    assert_eq!(claimed(&*desk).delivery, DELIVERIES, "counted across restarts");
    assert_eq!(letters(farm), [], "it may still be ended by its worker");
    assert_eq!(claim(&*desk, farm.lease() + SOON), None, "and is not offered again");
    let letters = letters(farm);
    assert_eq!(letters.len(), 1, "nor is it silence: {letters:?}");
    assert_eq!(letters[0].0, id);
    let depth = farm.engine().depth().unwrap();
    assert_eq!(depth[&("rb1".parse().unwrap(), Priority::Normal)].dead, 1);
    assert_eq!(claimed(&*farm.desk("rb2")).delivery, 1, "each rebuilder has its own");
}

/// G9.
pub fn put_back_job_waits(farm: &mut dyn Farm) {
    enqueued(farm, "a", Priority::Normal);
    let desk = farm.desk("rb1");
    let lease = claimed(&*desk);
    let (began, after) = (Instant::now(), farm.lease());
    desk.put_back(&lease, after).unwrap();
    assert_eq!(claim(&*farm.desk("rb1"), NOW), None);
    let queue = farm.engine().depth().unwrap()[&("rb1".parse().unwrap(), Priority::Normal)];
    assert_eq!((queue.parked, queue.waiting, queue.leased), (1, 0, 0));
    let again = claim(&*desk, after + SLACK).expect("it comes back");
    assert!(began.elapsed() >= after, "not earlier than was asked");
    assert_eq!(again.delivery, 2);
    // Who has lost a lease cannot put back what another holds.
    desk.put_back(&lease, NOW).unwrap();
    assert_eq!(claim(&*farm.desk("rb1"), NOW), None);
}

/// G9: urgent jobs first, and others all the same.
pub fn low_priority_is_not_starved(farm: &mut dyn Farm) {
    let low = enqueued(farm, "low", Priority::Low);
    let normal: Vec<Job> = (0..12).map(|n| enqueued(farm, &format!("normal-{n}"), Priority::Normal)).collect();
    let high = enqueued(farm, "high", Priority::High);
    let desk = farm.desk("rb1");
    let order: Vec<Job> = (0..9).map(|_| claimed(&*desk).job).collect();
    assert_eq!(order[0], high);
    assert_eq!(order[1..4], normal[..3], "in the order of enqueueing");
    assert!(order.contains(&low), "one claim in eight starts with it");
}

/// G10.
pub fn full_engine_refuses_and_recovers(farm: &mut dyn Farm) {
    let jobs: Vec<Job> = (0..farm.room()).map(|n| enqueued(farm, &format!("job-{n}"), Priority::Normal)).collect();
    let engine = farm.engine();
    assert!(matches!(engine.enqueue(&job("more"), Priority::High), Err(EngineError::Full { .. })));
    let waiting = engine.depth().unwrap()[&("rb1".parse().unwrap(), Priority::Normal)].waiting;
    assert_eq!(waiting, farm.room(), "nothing that was accepted is dropped");
    engine.retire(&jobs[1].id()).unwrap();
    assert_eq!(engine.enqueue(&job("more"), Priority::Normal).unwrap(), Enqueued::New);
    assert!(matches!(engine.enqueue(&job("yet more"), Priority::Normal), Err(EngineError::Full { .. })));
    let desk = farm.desk("rb1");
    let offered: Vec<Job> = std::iter::from_fn(|| claim(&*desk, NOW)).map(|lease| lease.job).collect();
    let mut expected = jobs.clone();
    expected.remove(1);
    expected.push(job("more"));
    assert_eq!(offered, expected);
}

/// G8.
pub fn retired_job_keeps_its_results(farm: &mut dyn Farm) {
    let id = enqueued(farm, "a", Priority::Normal).id();
    let desk = farm.desk("rb1");
    let lease = claimed(&*desk);
    ended(&*desk, &lease, "x");
    farm.engine().retire(&id).unwrap();
    farm.engine().retire(&id).unwrap();
    farm.restart();
    let desk = farm.desk("rb1");
    assert_eq!(claim(&*farm.desk("rb2"), NOW), None, "nobody is offered it any more");
    assert_eq!(desk.stored(&id).unwrap(), Some(answer(&id, "x")));
    assert_eq!(records(farm).len(), 1);
    enqueued(farm, "a", Priority::Normal);
    let lease = claimed(&*desk);
    let proof = desk.report(&answer(&id, "y")).unwrap();
    assert_eq!(proof.how(), &How::Conflict(Box::new(answer(&id, "x"))), "what was said cannot be unsaid");
    desk.close(&lease, &proof).unwrap();
}

/// G11.
pub fn skewed_clock_changes_no_lease(farm: &mut dyn Farm) {
    const HOUR: i64 = 3600;
    let date = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    for off in [HOUR, -HOUR] {
        let job = enqueued(farm, &format!("held {off}"), Priority::Normal);
        let Some(mut skewed) = farm.worker("rb1", off) else { return };
        let shown: u64 = skewed.told("date").parse().unwrap();
        assert!(shown.abs_diff(date()) > 3000, "its date is wrong indeed");
        // What it claims holds, and ends in time.
        assert_eq!(skewed.told("claim"), format!("{} 1", job.id()));
        let desk = farm.desk("rb1");
        assert_eq!(claim(&*desk, NOW), None);
        assert_eq!(skewed.told("extend"), "ok");
        assert_eq!(claim(&*desk, NOW), None);
        let lease = claim(&*desk, farm.lease() + SLACK).expect("it is offered again");
        assert_eq!(lease.delivery, 2);
        // What others hold or have put back, it does not get early.
        assert_eq!(skewed.told("claim-now"), "none");
        desk.put_back(&lease, SLACK * 10).unwrap();
        assert_eq!(skewed.told("claim-now"), "none");
    }
}

/// G12: a job that kills its workers costs four builds, is spoken of, and holds up no other.
pub fn poisoned_job_leaves_others_alone(farm: &mut dyn Farm) {
    let (poisoned, sound) = (enqueued(farm, "poison", Priority::Normal), enqueued(farm, "sound", Priority::Normal));
    for n in 1..DELIVERIES {
        let Some(mut victim) = farm.worker("rb1", 0) else { return };
        assert_eq!(victim.told("claim"), format!("{} {n}", poisoned.id()));
        victim.killed();
        if n == 2 {
            // Meanwhile another worker has the other job.
            let Some(mut other) = farm.worker("rb2", 0) else { return };
            assert_eq!(other.told("claim"), format!("{} 1", poisoned.id()));
            assert_eq!(other.told("claim"), format!("{} 1", sound.id()));
        }
    }
    let desk = farm.desk("rb1");
    let lease = claim(&*desk, farm.lease() + SLACK).expect("it is offered a last time");
    assert_eq!((lease.job.id(), lease.delivery), (poisoned.id(), DELIVERIES));
    let why = "4 deliveries ended without a report";
    let says = Answer { status: Status::Unavailable, outputs: BTreeMap::new(), ..answer(&poisoned.id(), why) };
    let proof = desk.report(&says).unwrap();
    desk.bury(&lease, &proof, why).unwrap();
    let lease = claimed(&*desk);
    assert_eq!(lease.job, sound);
    ended(&*desk, &lease, "x");
    assert_eq!(claim(&*desk, NOW), None);
    assert_eq!(letters(farm), [(poisoned.id(), why.to_string())]);
    assert_eq!(desk.stored(&poisoned.id()).unwrap(), Some(says));
}

/// G6.
pub fn racing_reports_store_one(farm: &mut dyn Farm) {
    const RACERS: usize = 16;
    for round in 0..4 {
        let id = enqueued(farm, &format!("round {round}"), Priority::Normal).id();
        let desks: Vec<_> = (0..RACERS).map(|_| farm.desk("rb1")).collect();
        let start = Barrier::new(RACERS);
        let race = &|n: usize| {
            let mine = answer(&id, &format!("racer {n}"));
            start.wait();
            desks[n].report(&mine).unwrap().how().clone()
        };
        let how: Vec<How> = std::thread::scope(|scope| {
            let racers: Vec<_> = (0..RACERS).map(|n| scope.spawn(move || race(n))).collect();
            racers.into_iter().map(|racer| racer.join().unwrap()).collect()
        });
        let winners: Vec<usize> = (0..RACERS).filter(|n| how[*n] == How::Stored).collect();
        assert_eq!(winners.len(), 1, "{how:?}");
        let won = answer(&id, &format!("racer {}", winners[0]));
        assert_eq!(farm.desk("rb1").stored(&id).unwrap(), Some(won.clone()));
        let told = How::Conflict(Box::new(won));
        assert_eq!(how.iter().filter(|how| **how == told).count(), RACERS - 1, "all others hear who won");
        let of_round = |record: &Record| match record {
            Record::Result { answer, .. } | Record::Conflict { answer, .. } => answer.job == id,
            Record::DeadLetter { .. } => false,
        };
        let kept = records(farm).into_iter().filter(of_round).count();
        assert_eq!(kept, RACERS, "and none is lost");
    }
}

/// The suite: one test per promise, for the farm that `$make` makes.
#[macro_export]
macro_rules! engine_suite {
    ($make:expr; $($name:ident),+ $(,)?) => {
        $(#[test]
        fn $name() {
            if let Some(mut farm) = $make(stringify!($name)) {
                $crate::engine::$name(&mut farm);
            }
        })+
    };
    ($make:expr) => {
        $crate::engine_suite!($make;
            enqueued_job_survives_a_kill, same_job_twice_is_known, late_rebuilder_gets_retained_jobs,
            silent_worker_loses_its_lease, extended_lease_is_not_offered_elsewhere, two_reports_of_one_digest_are_same,
            second_digest_becomes_a_conflict, reporting_without_a_lease_is_stored, fifth_delivery_is_the_last,
            put_back_job_waits, low_priority_is_not_starved, full_engine_refuses_and_recovers,
            retired_job_keeps_its_results, skewed_clock_changes_no_lease, poisoned_job_leaves_others_alone,
            racing_reports_store_one,
        );
    };
}
