//! The engine's database: in which order jobs are offered, to whom, how often, and who has one.
//!
//! All of it may be lost to a power cut: what is missing is found by its file when the engine is opened, at the price of
//! offers counted anew. So a commit need not reach the disk (`synchronous=NORMAL`, sqlite.org/pragma.html#pragma_synchronous).

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kiln_model::engine::{
    Cursor, DELIVERIES, Depth, EngineError, Enqueued, Job, JobId, Platform, Priority, Queue, Rebuilder,
};
use rusqlite::{Connection, OptionalExtension as _, Transaction, TransactionBehavior, params};

use super::files::{Filed, Files, Kept, Named};
use super::presence::Presence;
use super::{Interrupted, clock};

/// Version of the tables; another one is thrown away and made again.
const TABLES: i32 = 1;

/// `state` of an offer: 0 waiting, 1 leased, 2 parked, 3 done, 4 dead.
const SCHEMA: &str = "
    CREATE TABLE jobs (place INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, priority INTEGER NOT NULL, platform TEXT NOT NULL);
    CREATE TABLE offers (job TEXT NOT NULL, rebuilder TEXT NOT NULL, state INTEGER NOT NULL DEFAULT 0,
        deliveries INTEGER NOT NULL DEFAULT 0, until INTEGER NOT NULL DEFAULT 0, boot TEXT NOT NULL DEFAULT '',
        holder TEXT NOT NULL DEFAULT '', PRIMARY KEY (job, rebuilder)) WITHOUT ROWID;
    CREATE INDEX offers_by_state ON offers (rebuilder, state);
    CREATE TABLE records (cursor INTEGER PRIMARY KEY AUTOINCREMENT, kind INTEGER NOT NULL, rebuilder TEXT NOT NULL,
        file TEXT NOT NULL, UNIQUE (kind, rebuilder, file));
";

/// The database.
pub(super) struct Ledger {
    connection: Mutex<Connection>,
    boot: String,
}

/// A record: which file it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) kind: Kept,
    pub(super) rebuilder: Rebuilder,
    pub(super) file: String,
}

/// A job that was claimed.
pub(super) struct Claimed {
    pub(super) job: JobId,
    pub(super) delivery: u32,
}

type Done<T> = Result<T, Interrupted>;

impl Ledger {
    pub(super) fn open(path: &Path, files: &Files) -> Result<Self, EngineError> {
        match Self::try_open(path, files) {
            Err(Interrupted(EngineError::Corrupt { what, .. })) if what == "database" => {
                // Nothing in it that is not elsewhere, or may not be lost.
                for suffix in ["", "-wal", "-shm"] {
                    let mut file = path.as_os_str().to_owned();
                    file.push(suffix);
                    std::fs::remove_file(file).ok();
                }
                Ok(Self::try_open(path, files)?)
            }
            opened => Ok(opened?),
        }
    }

    fn try_open(path: &Path, files: &Files) -> Done<Self> {
        let connection = Connection::open(path)?;
        connection.busy_timeout(Duration::from_secs(30))?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "NORMAL")?;
        let ledger = Self { connection: Mutex::new(connection), boot: clock::boot() };
        ledger.change(|transaction| reconcile(transaction, files))?;
        Ok(ledger)
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        // A transaction that a panic left open was rolled back when it was dropped.
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, work: impl FnOnce(&Transaction<'_>) -> Done<T>) -> Done<T> {
        let mut connection = self.lock();
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let value = work(&transaction)?;
        transaction.commit()?;
        Ok(value)
    }

    /// Files a job and notes it, if there is room and it is not there. The transaction keeps other processes out of between.
    pub(super) fn enqueue(
        &self,
        files: &Files,
        job: &Job,
        priority: Priority,
        room: u64,
    ) -> Result<Enqueued, EngineError> {
        let enqueued = self.change(|transaction| {
            if files.job(&job.id())?.is_some() {
                return Ok(Enqueued::Known);
            }
            let (count, last): (i64, i64) =
                transaction.query_row("SELECT COUNT(*), COALESCE(MAX(place), 0) FROM jobs", [], |row| {
                    Ok((row.get(0)?, row.get(1)?))
                })?;
            if count.unsigned_abs() >= room {
                return Err(EngineError::Full { what: format!("it retains {count} jobs of at most {room}") }.into());
            }
            let filed = Filed { job: job.clone(), priority, place: last.unsigned_abs() + 1 };
            match files.keep_job(&filed)? {
                Named::Before => return Ok(Enqueued::Known),
                Named::Now => insert_job(transaction, &filed)?,
            }
            Ok(Enqueued::New)
        });
        Ok(enqueued?)
    }

    pub(super) fn retire(&self, job: &JobId) -> Result<(), EngineError> {
        Ok(self.change(|transaction| remove_job(transaction, &job.to_string()))?)
    }

    /// Frees what is leased no longer; the last offers that ended so, which are the caller's to end.
    pub(super) fn sweep(&self, presence: &Presence) -> Result<Vec<(Rebuilder, JobId)>, EngineError> {
        let now = milliseconds(clock::now());
        let swept = self.change(|transaction| {
            let mut statement = transaction.prepare_cached("SELECT DISTINCT holder FROM offers WHERE state = 1")?;
            let holders: Vec<String> = statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
            for holder in holders {
                if !presence.lives(&holder)? {
                    transaction.execute("UPDATE offers SET until = 0 WHERE state = 1 AND holder = ?1", [&holder])?;
                }
            }
            transaction.execute(
                "UPDATE offers SET state = 0 WHERE state = 1 AND deliveries < ?1 AND (until <= ?2 OR boot <> ?3)",
                params![DELIVERIES, now, self.boot],
            )?;
            let mut statement = transaction.prepare_cached(
                "SELECT rebuilder, job FROM offers
                 WHERE state IN (1, 2) AND deliveries >= ?1 AND (until <= ?2 OR boot <> ?3)",
            )?;
            let rows = statement.query_map(params![DELIVERIES, now, self.boot], |row| {
                Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?))
            })?;
            let rows: Vec<(String, String)> = rows.collect::<Result<_, _>>()?;
            Ok(rows
                .into_iter()
                .filter_map(|(rebuilder, job)| Some((rebuilder.parse().ok()?, job.parse().ok()?)))
                .collect())
        });
        Ok(swept?)
    }

    /// Leases the first job of the first of these priorities that has one.
    pub(super) fn claim(
        &self,
        rebuilder: &Rebuilder,
        platforms: &BTreeSet<Platform>,
        order: [Priority; 3],
        holder: &str,
        lease: Duration,
    ) -> Result<Option<Claimed>, EngineError> {
        let now = clock::now();
        let platforms: Vec<&str> = platforms.iter().map(Platform::as_str).collect();
        let platforms = serde_json::to_string(&platforms).expect("texts are JSON");
        let claimed = self.change(|transaction| {
            let mut statement = transaction.prepare_cached(
                "SELECT id, deliveries FROM offers JOIN jobs ON jobs.id = offers.job
                 WHERE rebuilder = ?1 AND priority = ?2 AND platform IN (SELECT value FROM json_each(?3)) AND deliveries < ?4
                   AND (state = 0 OR (state = 2 AND (until <= ?5 OR boot <> ?6)))
                 ORDER BY place LIMIT 1",
            )?;
            for priority in order {
                let parameters = params![
                    rebuilder.as_str(),
                    number(priority),
                    platforms,
                    DELIVERIES,
                    milliseconds(now),
                    self.boot
                ];
                let found: Option<(String, u32)> =
                    statement.query_row(parameters, |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
                let Some((id, before)) = found else { continue };
                let job: JobId = id
                    .parse()
                    .map_err(|e| EngineError::Corrupt { what: "database".into(), why: format!("job {id:?}: {e}") })?;
                let delivery = before + 1;
                transaction.execute(
                    "UPDATE offers SET state = 1, deliveries = ?3, until = ?4, boot = ?5, holder = ?6
                     WHERE job = ?1 AND rebuilder = ?2",
                    params![id, rebuilder.as_str(), delivery, deadline(now + lease), self.boot, holder],
                )?;
                return Ok(Some(Claimed { job, delivery }));
            }
            Ok(None)
        });
        Ok(claimed?)
    }

    /// Begins a lease anew, if it is the last one and holds.
    pub(super) fn extend(
        &self,
        rebuilder: &Rebuilder,
        job: &JobId,
        token: u64,
        lease: Duration,
    ) -> Result<(), EngineError> {
        self.set(
            "UPDATE offers SET until = ?4 WHERE job = ?1 AND rebuilder = ?2 AND state = 1 AND deliveries = ?3",
            (rebuilder, job, token),
            clock::now() + lease,
        )
    }

    pub(super) fn park(
        &self,
        rebuilder: &Rebuilder,
        job: &JobId,
        token: u64,
        after: Duration,
    ) -> Result<(), EngineError> {
        self.set(
            "UPDATE offers SET state = 2, until = ?4 WHERE job = ?1 AND rebuilder = ?2 AND state = 1 AND deliveries = ?3",
            (rebuilder, job, token),
            clock::now() + after,
        )
    }

    fn set(
        &self,
        statement: &str,
        (rebuilder, job, token): (&Rebuilder, &JobId, u64),
        until: Duration,
    ) -> Result<(), EngineError> {
        let token = i64::try_from(token).unwrap_or(i64::MAX);
        let set = self.change(|transaction| {
            let parameters = params![job.to_string(), rebuilder.as_str(), token, deadline(until)];
            Ok(transaction.execute(statement, parameters).map(drop)?)
        });
        Ok(set?)
    }

    pub(super) fn done(&self, rebuilder: &Rebuilder, job: &JobId) -> Result<(), EngineError> {
        self.ended(rebuilder, job, 3)
    }

    pub(super) fn dead(&self, rebuilder: &Rebuilder, job: &JobId) -> Result<(), EngineError> {
        self.ended(rebuilder, job, 4)
    }

    fn ended(&self, rebuilder: &Rebuilder, job: &JobId, state: i64) -> Result<(), EngineError> {
        let ended = self.change(|transaction| {
            let parameters = params![job.to_string(), rebuilder.as_str(), state];
            let statement = "UPDATE offers SET state = ?3 WHERE job = ?1 AND rebuilder = ?2 AND state <> 4";
            Ok(transaction.execute(statement, parameters).map(drop)?)
        });
        Ok(ended?)
    }

    pub(super) fn add_record(&self, row: &Row) -> Result<(), EngineError> {
        Ok(self.change(|transaction| insert_record(transaction, row))?)
    }

    pub(super) fn records(&self, after: Cursor) -> Result<Vec<(Cursor, Row)>, EngineError> {
        let read = || -> Done<Vec<(Cursor, Row)>> {
            let connection = self.lock();
            let mut statement = connection.prepare_cached(
                "SELECT cursor, kind, rebuilder, file FROM records WHERE cursor > ?1 ORDER BY cursor",
            )?;
            let after = i64::try_from(after.0).unwrap_or(i64::MAX);
            let rows = statement.query_map([after], |row| {
                Ok((
                    row.get::<_, i64>(0)?,
                    usize::from(row.get::<_, u8>(1)?),
                    row.get::<_, String>(2)?,
                    row.get::<_, String>(3)?,
                ))
            })?;
            let mut records = Vec::new();
            for row in rows {
                let (cursor, kind, rebuilder, file) = row?;
                if let (Some(kind), Ok(rebuilder)) = (Kept::ALL.get(kind), rebuilder.parse()) {
                    records.push((Cursor(cursor.unsigned_abs()), Row { kind: *kind, rebuilder, file }));
                }
            }
            Ok(records)
        };
        Ok(read()?)
    }

    pub(super) fn depth(&self) -> Result<Depth, EngineError> {
        let now = milliseconds(clock::now());
        let read = || -> Done<Depth> {
            let connection = self.lock();
            let mut statement = connection.prepare_cached(
                "SELECT rebuilder, priority, CASE WHEN state = 2 AND (until <= ?1 OR boot <> ?2) THEN 0 ELSE state END, COUNT(*)
                 FROM offers JOIN jobs ON jobs.id = offers.job GROUP BY 1, 2, 3",
            )?;
            let rows = statement.query_map(params![now, self.boot], |row| {
                Ok((
                    row.get::<_, String>(0)?,
                    usize::from(row.get::<_, u8>(1)?),
                    row.get::<_, i64>(2)?,
                    row.get::<_, i64>(3)?,
                ))
            })?;
            let mut depth = BTreeMap::new();
            for row in rows {
                let (rebuilder, priority, state, count) = row?;
                let (Ok(rebuilder), Some(priority)) = (rebuilder.parse(), Priority::ALL.get(priority)) else {
                    continue;
                };
                let queue: &mut Queue = depth.entry((rebuilder, *priority)).or_default();
                let count = count.unsigned_abs();
                match state {
                    0 => queue.waiting += count,
                    1 => queue.leased += count,
                    2 => queue.parked += count,
                    4 => queue.dead += count,
                    _ => {}
                }
            }
            Ok(depth)
        };
        Ok(read()?)
    }
}

/// Makes the tables if they are not these, and brings them in line with the files.
fn reconcile(transaction: &Transaction<'_>, files: &Files) -> Done<()> {
    let tables: i32 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if tables != TABLES {
        for table in ["jobs", "offers", "records"] {
            transaction.execute_batch(&format!("DROP TABLE IF EXISTS {table}"))?;
        }
        transaction.execute_batch(SCHEMA)?;
        transaction.pragma_update(None, "user_version", TABLES)?;
    }
    let there: BTreeSet<String> = files.jobs()?.iter().map(JobId::to_string).collect();
    let mut statement = transaction.prepare("SELECT id FROM jobs")?;
    let known: BTreeSet<String> = statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    for gone in known.difference(&there) {
        remove_job(transaction, gone)?;
    }
    let mut new = Vec::new();
    for id in there.difference(&known) {
        new.extend(id.parse().ok().map(|id| files.job(&id)).transpose()?.flatten());
    }
    new.sort_by_key(|filed| filed.place);
    for filed in new {
        insert_job(transaction, &filed)?;
        for rebuilder in &filed.job.rebuilders {
            if files.result(rebuilder, &filed.job.id())?.is_some() {
                let parameters = params![filed.job.id().to_string(), rebuilder.as_str()];
                transaction.execute("UPDATE offers SET state = 3 WHERE job = ?1 AND rebuilder = ?2", parameters)?;
            }
        }
    }
    files.kept()?.iter().try_for_each(|row| insert_record(transaction, row))
}

fn insert_job(transaction: &Transaction<'_>, filed: &Filed) -> Done<()> {
    let Filed { job, priority, place } = filed;
    let id = job.id().to_string();
    let place = i64::try_from(*place).unwrap_or(i64::MAX);
    // Two may have the same place after the database was lost: the next free one is as good.
    transaction.execute(
        "INSERT INTO jobs VALUES (CASE WHEN EXISTS (SELECT 1 FROM jobs WHERE place = ?1) THEN NULL ELSE ?1 END, ?2, ?3, ?4)",
        params![place, id, number(*priority), job.platform.as_str()],
    )?;
    let mut statement = transaction.prepare_cached("INSERT INTO offers (job, rebuilder) VALUES (?1, ?2)")?;
    for rebuilder in &job.rebuilders {
        statement.execute(params![id, rebuilder.as_str()])?;
    }
    Ok(())
}

fn remove_job(transaction: &Transaction<'_>, id: &str) -> Done<()> {
    transaction.execute("DELETE FROM jobs WHERE id = ?1", [id])?;
    transaction.execute("DELETE FROM offers WHERE job = ?1", [id])?;
    Ok(())
}

fn insert_record(transaction: &Transaction<'_>, row: &Row) -> Done<()> {
    let kind = match row.kind {
        Kept::Result => 0,
        Kept::Conflict => 1,
        Kept::Letter => 2,
    };
    transaction.execute(
        "INSERT OR IGNORE INTO records (kind, rebuilder, file) VALUES (?1, ?2, ?3)",
        params![kind, row.rebuilder.as_str(), row.file],
    )?;
    Ok(())
}

/// A priority as the database has it.
fn number(priority: Priority) -> i64 {
    match priority {
        Priority::High => 0,
        Priority::Normal => 1,
        Priority::Low => 2,
    }
}

/// A time that has been reached.
fn milliseconds(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

/// A time to be waited for: rounded up, so that nothing ends before it.
fn deadline(time: Duration) -> i64 {
    i64::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_reached_was_waited_for_whole() {
        let asked = Duration::from_nanos(1_000_001);
        assert!(milliseconds(asked) < deadline(asked));
        assert_eq!(milliseconds(Duration::from_millis(2)), deadline(asked));
        assert_eq!(deadline(Duration::from_millis(2)), 2, "and no longer");
    }
}
