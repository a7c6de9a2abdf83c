//! The embedded engine: jobs and answers of one machine, in a directory. No server, no thread of its own.
//!
//! ```text
//! jobs/ID             a job as it was enqueued              alive/…         a locked file per open engine
//! results/RB/ID       a rebuilder's answer, for good        engine.sqlite   order, leases and offers
//! conflicts/RB/…      answers that contradict it
//! dead/RB/ID          why a job ended without one
//! ```
//! Files are the truth, and what has been said to be kept is in one, synced, before the call returns. The database has what may
//! be lost, and is made again from the files. Answers come to their name by link(2), which refuses a name that is taken: that
//! there is one answer to a job does not rest on any caller, lock or row. Several processes may open one directory. Keeps the
//! contract of [`kiln_model::engine`], held by its suite; knows nothing of what jobs say.

mod clock;
mod desk;
mod files;
mod ledger;
mod presence;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use kiln_model::engine::{Cursor, Depth, Engine, EngineError, Enqueued, Job, JobId, Priority, Rebuilder, Record};

pub use desk::EmbeddedDesk;

use files::{Files, Kept};
use ledger::{Ledger, Row};
use presence::Presence;

/// Bounds of an engine.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// How long a claim holds if its process lives and does not extend it. That of a dead process ends at once.
    pub lease: Duration,
    /// Jobs that are retained.
    pub jobs: u64,
    /// Bytes of a job's payload.
    pub payload: u64,
    /// Bytes of an answer's document.
    pub document: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { lease: Duration::from_secs(90), jobs: 1 << 20, payload: 64 << 10, document: 64 << 10 }
    }
}

/// An open engine: its coordinator's side, and where desks are opened.
#[derive(Clone)]
pub struct Embedded(Arc<Open>);

struct Open {
    files: Files,
    ledger: Ledger,
    presence: Presence,
    limits: Limits,
}

impl Embedded {
    /// Opens the engine in `directory`, and makes it if there is none. What a crash left half done is finished.
    pub fn open(directory: &Path, limits: Limits) -> Result<Self, EngineError> {
        let files = Files::open(directory)?;
        let presence = Presence::announce(&directory.join("alive"))?;
        let ledger = Ledger::open(&directory.join("engine.sqlite"), &files)?;
        Ok(Self(Arc::new(Open { files, ledger, presence, limits })))
    }

    /// The side of `rebuilder`. Anybody who can open the directory can: one machine is one trust.
    pub fn desk(&self, rebuilder: Rebuilder) -> EmbeddedDesk {
        EmbeddedDesk::new(self.clone(), rebuilder)
    }

    /// Whether a job with this id is retained.
    pub fn retains(&self, job: &JobId) -> Result<bool, EngineError> {
        Ok(self.0.files.job(job)?.is_some())
    }

    /// Ids of all jobs that are retained.
    pub fn retained(&self) -> Result<Vec<JobId>, EngineError> {
        self.0.files.jobs()
    }

    /// Ends leases that are over, and jobs whose last offer was.
    fn sweep(&self) -> Result<(), EngineError> {
        let open = &self.0;
        for (rebuilder, job) in open.ledger.sweep(&open.presence)? {
            // The letter first: what is dead without one would be silence.
            self.bury(&rebuilder, &job, "its last offer ended without a report")?;
            open.ledger.dead(&rebuilder, &job)?;
        }
        Ok(())
    }

    fn bury(&self, rebuilder: &Rebuilder, job: &JobId, why: &str) -> Result<(), EngineError> {
        self.0.files.keep_letter(rebuilder, job, why)?;
        self.0.ledger.add_record(&Row { kind: Kept::Letter, rebuilder: rebuilder.clone(), file: job.to_string() })
    }
}

impl Engine for Embedded {
    fn enqueue(&self, job: &Job, priority: Priority) -> Result<Enqueued, EngineError> {
        let open = &self.0;
        let size = job.payload().len() as u64;
        if size > open.limits.payload {
            return Err(EngineError::TooLarge { limit: open.limits.payload, size });
        }
        if job.rebuilders.is_empty() {
            return Err(EngineError::Refused { why: "the job invites no rebuilder".into() });
        }
        open.ledger.enqueue(&open.files, job, priority, open.limits.jobs)
    }

    fn records(&self, after: Cursor) -> Result<Vec<(Cursor, Record)>, EngineError> {
        self.sweep()?;
        let rows = self.0.ledger.records(after)?;
        rows.into_iter().map(|(cursor, row)| Ok((cursor, self.0.files.record(&row)?))).collect()
    }

    fn depth(&self) -> Result<Depth, EngineError> {
        self.sweep()?;
        self.0.ledger.depth()
    }

    fn retire(&self, job: &JobId) -> Result<(), EngineError> {
        // The file first: a row without one is dropped when the engine is opened, a file without a row would come back.
        self.0.files.remove_job(job)?;
        self.0.ledger.retire(job)
    }
}

/// An error with the file that it is about.
fn failed(act: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> EngineError {
    let path: PathBuf = path.into();
    move |source| {
        if matches!(source.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded) {
            return EngineError::Full { what: format!("{act} {}: {source}", path.display()) };
        }
        let text = format!("{act} {}", path.display());
        EngineError::Unreachable(Box::new(Failed { text, source }))
    }
}

/// What was done to which file, and why it failed.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
struct Failed {
    text: String,
    source: std::io::Error,
}

impl From<rusqlite::Error> for Interrupted {
    fn from(error: rusqlite::Error) -> Self {
        Self(match error.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DiskFull) => EngineError::Full { what: "the disk of its database".into() },
            Some(rusqlite::ErrorCode::NotADatabase | rusqlite::ErrorCode::DatabaseCorrupt) => {
                EngineError::Corrupt { what: "database".into(), why: error.to_string() }
            }
            _ => EngineError::Unreachable(Box::new(error)),
        })
    }
}

/// An [`EngineError`] that the database's errors turn into: the orphan rule forbids to do it in one step.
struct Interrupted(EngineError);

impl From<EngineError> for Interrupted {
    fn from(error: EngineError) -> Self {
        Self(error)
    }
}

impl From<Interrupted> for EngineError {
    fn from(error: Interrupted) -> Self {
        error.0
    }
}
