//! A rebuilder's side of the embedded engine.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use kiln_model::engine::{Answer, Desk, EngineError, How, JobId, Lease, Platform, Priority, Rebuilder, Reported};

use super::files::{Kept, Named};
use super::ledger::{Claimed, Row};
use super::{Embedded, clock};

/// How often an empty queue is looked into.
const LOOK: Duration = Duration::from_millis(20);
/// One claim of so many starts with what is least urgent.
const LOW_EVERY: u64 = 8;

/// A rebuilder's side.
pub struct EmbeddedDesk {
    engine: Embedded,
    rebuilder: Rebuilder,
    claims: AtomicU64,
}

impl EmbeddedDesk {
    pub(super) fn new(engine: Embedded, rebuilder: Rebuilder) -> Self {
        Self { engine, rebuilder, claims: AtomicU64::new(0) }
    }

    fn claim_now(&self, platforms: &BTreeSet<Platform>, order: [Priority; 3]) -> Result<Option<Lease>, EngineError> {
        self.engine.sweep()?;
        let open = &self.engine.0;
        loop {
            let claimed =
                open.ledger.claim(&self.rebuilder, platforms, order, open.presence.name(), open.limits.lease)?;
            let Some(Claimed { job, delivery }) = claimed else { return Ok(None) };
            match open.files.job(&job)? {
                Some(filed) => return Ok(Some(Lease { job: filed.job, delivery, token: delivery.into() })),
                // Retired by another process between its two steps.
                None => open.ledger.retire(&job)?,
            }
        }
    }
}

impl Desk for EmbeddedDesk {
    fn claim(&self, platforms: &BTreeSet<Platform>, wait: Duration) -> Result<Option<Lease>, EngineError> {
        use Priority::{High, Low, Normal};
        let turn = self.claims.fetch_add(1, Ordering::Relaxed);
        let order = if turn % LOW_EVERY == LOW_EVERY - 1 { [Low, High, Normal] } else { [High, Normal, Low] };
        let until = clock::now() + wait;
        loop {
            if let Some(lease) = self.claim_now(platforms, order)? {
                return Ok(Some(lease));
            }
            let left = until.saturating_sub(clock::now());
            if left.is_zero() {
                return Ok(None);
            }
            std::thread::sleep(left.min(LOOK));
        }
    }

    fn extend(&self, lease: &Lease) -> Result<(), EngineError> {
        let open = &self.engine.0;
        open.ledger.extend(&self.rebuilder, &lease.job.id(), lease.token, open.limits.lease)
    }

    fn stored(&self, job: &JobId) -> Result<Option<Answer>, EngineError> {
        self.engine.0.files.result(&self.rebuilder, job)
    }

    fn report(&self, answer: &Answer) -> Result<Reported, EngineError> {
        let open = &self.engine.0;
        let size = answer.document.len() as u64;
        if size > open.limits.document {
            return Err(EngineError::TooLarge { limit: open.limits.document, size });
        }
        let record = |kind, file| Row { kind, rebuilder: self.rebuilder.clone(), file };
        let how = match open.files.keep_result(&self.rebuilder, answer)? {
            Named::Now => {
                open.ledger.add_record(&record(Kept::Result, answer.job.to_string()))?;
                How::Stored
            }
            Named::Before => {
                let stored = self.stored(&answer.job)?.ok_or_else(|| EngineError::Corrupt {
                    what: format!("answer to {}", answer.job),
                    why: "it was there and is gone".into(),
                })?;
                match stored.agrees_with(answer) {
                    true => How::Same,
                    false => {
                        let file = open.files.keep_conflict(&self.rebuilder, answer)?;
                        open.ledger.add_record(&record(Kept::Conflict, file))?;
                        How::Conflict(Box::new(stored))
                    }
                }
            }
        };
        Ok(Reported::by_engine(answer.job, how))
    }

    fn close(&self, lease: &Lease, proof: &Reported) -> Result<(), EngineError> {
        let job = proved(lease, proof)?;
        self.engine.0.ledger.done(&self.rebuilder, &job)
    }

    fn put_back(&self, lease: &Lease, after: Duration) -> Result<(), EngineError> {
        self.engine.0.ledger.park(&self.rebuilder, &lease.job.id(), lease.token, after)
    }

    fn bury(&self, lease: &Lease, proof: &Reported, why: &str) -> Result<(), EngineError> {
        let job = proved(lease, proof)?;
        self.engine.bury(&self.rebuilder, &job, why)?;
        self.engine.0.ledger.dead(&self.rebuilder, &job)
    }
}

/// The job of a lease, if the proof is of it.
fn proved(lease: &Lease, proof: &Reported) -> Result<JobId, EngineError> {
    let job = lease.job.id();
    match proof.job() == job {
        true => Ok(job),
        false => Err(EngineError::Refused { why: format!("{job} has no answer: the proof is of {}", proof.job()) }),
    }
}
