//! What holds for the embedded engine beyond the contract of all: its files are the truth.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use kiln_model::digest::Digest;
use kiln_model::engine::{Answer, Desk as _, Enqueued, Platform};
use kiln_model::outcome::Status;

use super::*;

fn platforms() -> BTreeSet<Platform> {
    BTreeSet::from(["x86_64-linux".parse().unwrap()])
}

fn job(text: &str) -> Job {
    let platform = "x86_64-linux".parse().unwrap();
    Job::new(text.into(), platform, BTreeSet::from(["rb1".parse().unwrap()]))
}

fn open(directory: &Path) -> Embedded {
    Embedded::open(directory, Limits::default()).unwrap()
}

/// Three jobs, the first of which has an answer and is closed.
fn used(directory: &Path) -> Answer {
    let engine = open(directory);
    for text in ["a", "b", "c"] {
        assert_eq!(engine.enqueue(&job(text), Priority::Normal).unwrap(), Enqueued::New);
    }
    let desk = engine.desk("rb1".parse().unwrap());
    let lease = desk.claim(&platforms(), Duration::ZERO).unwrap().unwrap();
    let outputs = BTreeMap::from([("out".to_string(), Digest::of("x"))]);
    let answer = Answer { job: lease.job.id(), status: Status::Built, outputs, document: b"\x00\xff".to_vec() };
    let proof = desk.report(&answer).unwrap();
    desk.close(&lease, &proof).unwrap();
    answer
}

#[test]
fn a_database_that_is_lost_or_broken_is_made_again_from_the_files() {
    for broken in [None, Some(&b"this is no database"[..])] {
        let dir = tempfile::tempdir().unwrap();
        let answer = used(dir.path());
        for suffix in ["", "-wal", "-shm"] {
            std::fs::remove_file(dir.path().join(format!("engine.sqlite{suffix}"))).ok();
        }
        if let Some(bytes) = broken {
            std::fs::write(dir.path().join("engine.sqlite"), bytes).unwrap();
        }
        let engine = open(dir.path());
        let desk = engine.desk("rb1".parse().unwrap());
        let offered: Vec<Job> =
            std::iter::from_fn(|| desk.claim(&platforms(), Duration::ZERO).unwrap()).map(|lease| lease.job).collect();
        assert_eq!(offered, [job("b"), job("c")], "in their order, and not what is done");
        assert_eq!(desk.stored(&answer.job).unwrap(), Some(answer.clone()));
        let records = engine.records(Cursor::default()).unwrap();
        assert_eq!(records.len(), 1);
        assert_eq!(engine.records(records[0].0).unwrap(), [], "and nothing after the last");
    }
}

#[test]
fn what_is_too_large_or_invites_nobody_is_refused_before_anything_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path());
    let large = job(&"x".repeat(65 << 10));
    assert!(matches!(
        engine.enqueue(&large, Priority::High),
        Err(EngineError::TooLarge { limit: 65_536, size: 66_560 })
    ));
    let nobody = Job::new(b"a".to_vec(), "x86_64-linux".parse().unwrap(), BTreeSet::new());
    assert!(matches!(engine.enqueue(&nobody, Priority::High), Err(EngineError::Refused { .. })));
    let answer =
        Answer { job: job("a").id(), status: Status::Failed, outputs: BTreeMap::new(), document: vec![0; 65 << 10] };
    let desk = engine.desk("rb1".parse().unwrap());
    assert!(matches!(desk.report(&answer), Err(EngineError::TooLarge { .. })));
    assert_eq!((engine.retained().unwrap(), desk.stored(&answer.job).unwrap()), (Vec::new(), None));
}

#[test]
fn files_of_another_version_or_with_other_bytes_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let answer = used(dir.path());
    let path = dir.path().join("results/rb1").join(answer.job.to_string());
    std::fs::write(&path, b"{}").unwrap();
    let engine = open(dir.path());
    let error = engine.desk("rb1".parse().unwrap()).stored(&answer.job).unwrap_err();
    assert!(matches!(&error, EngineError::Corrupt { what, .. } if what.contains(&answer.job.to_string())), "{error}");
    drop(engine);
    std::fs::write(dir.path().join("version"), "2\n").unwrap();
    let error = Embedded::open(dir.path(), Limits::default()).err().unwrap();
    assert!(matches!(error, EngineError::Version { .. }), "{error}");
}
