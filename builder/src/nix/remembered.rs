//! What caches on the network answered, kept between runs: small files, and that there was none.
//!
//! As Nix's own: an answer holds for a while, a shorter one if it was that there is none; afterwards the cache is asked again.
//! What is remembered is as little believed as what was just fetched. Losing it costs a few questions, so it is not synced,
//! and a file that cannot be used is a memory of nothing. Bounded in number and size; the oldest answers go first.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OptionalExtension as _, params};

/// More than any answer that is worth remembering has.
const LARGEST: usize = 64 << 10;

/// The most answers that are kept.
const MOST: i64 = 100_000;

/// The most bytes of answers that are kept.
const MOST_BYTES: i64 = 64 << 20;

/// After so many new answers the oldest are looked at again.
const SWEEP: u32 = 4096;

/// Version of the table; another one is thrown away.
const TABLE: i32 = 1;

const SCHEMA: &str = "
    DROP TABLE IF EXISTS answers;
    CREATE TABLE answers (cache TEXT NOT NULL, file TEXT NOT NULL, asked INTEGER NOT NULL, answer BLOB,
        PRIMARY KEY (cache, file)) WITHOUT ROWID;
    CREATE INDEX answers_by_age ON answers (asked);
";

/// How long answers hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifetimes {
    /// Of a file.
    pub positive: Duration,
    /// Of the answer that there is none.
    pub negative: Duration,
}

/// Whether what is remembered is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recall {
    /// As long as it holds.
    Yes,
    /// Caches are asked anew; their answers are remembered.
    No,
}

/// What is remembered of one question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// There was no such file.
    Lacks,
    /// Its bytes.
    Bytes(Vec<u8>),
}

/// Answers of caches.
#[derive(Debug)]
pub struct Remembered {
    file: PathBuf,
    memory: OnceLock<Option<Mutex<Memory>>>,
    lifetimes: Lifetimes,
    recall: Recall,
}

#[derive(Debug)]
struct Memory {
    connection: Connection,
    new: u32,
}

impl Remembered {
    /// Those in `file`, which is opened, and made if there is none, when the first question comes.
    pub fn at(file: PathBuf, lifetimes: Lifetimes, recall: Recall) -> Self {
        Self { file, memory: OnceLock::new(), lifetimes, recall }
    }

    /// What `cache` answered when it was asked for `file`, if that still holds.
    pub(super) fn recall(&self, cache: &str, file: &str) -> Option<Answer> {
        if self.recall == Recall::No {
            return None;
        }
        let now = now();
        let found: Option<(i64, Option<Vec<u8>>)> = self.with(|memory| {
            let query = "SELECT asked, answer FROM answers WHERE cache = ?1 AND file = ?2";
            let mut statement = memory.connection.prepare_cached(query)?;
            statement.query_row([cache, file], |row| Ok((row.get(0)?, row.get(1)?))).optional()
        })?;
        let (asked, answer) = found?;
        let lifetime = if answer.is_some() { self.lifetimes.positive } else { self.lifetimes.negative };
        // An answer out of the future is of another clock.
        let age = u64::try_from(now.checked_sub(asked)?).ok()?;
        (age < lifetime.as_secs()).then(|| answer.map_or(Answer::Lacks, Answer::Bytes))
    }

    /// Remembers what `cache` just answered; without `answer`, that it has no such file.
    pub(super) fn keep(&self, cache: &str, file: &str, answer: Option<&[u8]>) {
        if answer.is_some_and(|answer| answer.len() > LARGEST) {
            return;
        }
        self.with(|memory| {
            let insert = "INSERT OR REPLACE INTO answers VALUES (?1, ?2, ?3, ?4)";
            memory.connection.prepare_cached(insert)?.execute(params![cache, file, now(), answer])?;
            if memory.new.is_multiple_of(SWEEP) {
                sweep(&memory.connection, self.lifetimes)?;
            }
            memory.new = memory.new.wrapping_add(1);
            Ok(())
        });
    }

    /// Forgets an answer that turned out to be no longer true.
    pub(super) fn forget(&self, cache: &str, file: &str) {
        self.with(|memory| {
            memory.connection.execute("DELETE FROM answers WHERE cache = ?1 AND file = ?2", [cache, file])
        });
    }

    fn with<T>(&self, work: impl FnOnce(&mut Memory) -> rusqlite::Result<T>) -> Option<T> {
        let opened = || opened(&self.file).ok().map(|connection| Mutex::new(Memory { connection, new: 0 }));
        let mut memory = self.memory.get_or_init(opened).as_ref()?.lock().unwrap_or_else(PoisonError::into_inner);
        // A memory that cannot be read or written is none: the cache itself is asked.
        work(&mut memory).ok()
    }
}

fn opened(file: &Path) -> rusqlite::Result<Connection> {
    open(file).or_else(|error| {
        if !matches!(error.sqlite_error_code(), Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt)) {
            return Err(error);
        }
        for suffix in ["", "-wal", "-shm"] {
            let mut name = file.as_os_str().to_owned();
            name.push(suffix);
            // What cannot be removed cannot be opened either, and then nothing is remembered.
            std::fs::remove_file(Path::new(&name)).ok();
        }
        open(file)
    })
}

fn open(file: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(file)?;
    connection.busy_timeout(Duration::from_secs(5))?;
    connection.pragma_update(None, "synchronous", "OFF")?;
    let _: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
    let table: i32 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if table != TABLE {
        connection.execute_batch(&format!("BEGIN IMMEDIATE; {SCHEMA} PRAGMA user_version = {TABLE}; COMMIT;"))?;
    }
    Ok(connection)
}

/// Drops what no longer holds, and the oldest beyond the bounds.
fn sweep(connection: &Connection, lifetimes: Lifetimes) -> rusqlite::Result<()> {
    let before = |lifetime: Duration| now().saturating_sub(i64::try_from(lifetime.as_secs()).unwrap_or(i64::MAX));
    connection.execute(
        "DELETE FROM answers WHERE asked > ?1 OR asked <= CASE WHEN answer IS NULL THEN ?2 ELSE ?3 END",
        params![now(), before(lifetimes.negative), before(lifetimes.positive)],
    )?;
    connection.execute(
        "DELETE FROM answers WHERE (cache, file) IN (SELECT cache, file FROM
            (SELECT cache, file, row_number() OVER newest AS place,
                sum(ifnull(length(answer), 0)) OVER newest AS bytes
             FROM answers WINDOW newest AS (ORDER BY asked DESC, cache, file))
            WHERE place > ?1 OR bytes > ?2)",
        params![MOST, MOST_BYTES],
    )?;
    Ok(())
}

fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Lifetimes = Lifetimes { positive: Duration::from_secs(1000), negative: Duration::from_secs(1000) };

    #[test]
    fn answers_hold_for_their_time_over_restarts_and_not_when_asked_anew() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("answers.sqlite");
        let open = |lifetimes, recall| Remembered::at(file.clone(), lifetimes, recall);
        let first = open(LONG, Recall::Yes);
        assert_eq!(first.recall("a", "x"), None);
        first.keep("a", "x", Some(b"bytes"));
        first.keep("a", "y", None);
        drop(first);
        let again = open(LONG, Recall::Yes);
        assert_eq!(again.recall("a", "x"), Some(Answer::Bytes(b"bytes".to_vec())));
        assert_eq!(again.recall("a", "y"), Some(Answer::Lacks));
        assert_eq!(again.recall("b", "x"), None, "another cache was not asked");
        let short = Lifetimes { negative: Duration::ZERO, ..LONG };
        assert_eq!(open(short, Recall::Yes).recall("a", "y"), None);
        assert!(open(short, Recall::Yes).recall("a", "x").is_some());
        assert_eq!(open(LONG, Recall::No).recall("a", "x"), None);
        again.forget("a", "x");
        assert_eq!(again.recall("a", "x"), None);
    }

    #[test]
    fn answers_out_of_the_future_and_beyond_the_bounds_are_dropped() {
        let directory = tempfile::tempdir().unwrap();
        let remembered = Remembered::at(directory.path().join("answers.sqlite"), LONG, Recall::Yes);
        remembered.keep("a", "late", None);
        remembered.keep("a", "large", Some(&vec![0; LARGEST + 1]));
        assert_eq!(remembered.recall("a", "large"), None);
        remembered.with(|memory| memory.connection.execute("UPDATE answers SET asked = ?1", [now() + 100])).unwrap();
        assert_eq!(remembered.recall("a", "late"), None);
        let size = LARGEST as i64;
        let fitting = MOST_BYTES / size;
        remembered
            .with(|memory| {
                for number in 0..fitting + 10 {
                    let insert = "INSERT INTO answers VALUES ('b', ?1, ?2, zeroblob(?3))";
                    memory.connection.execute(insert, params![number.to_string(), now() - number, size])?;
                }
                sweep(&memory.connection, Lifetimes { positive: Duration::from_secs(10_000), ..LONG })?;
                let left: i64 = memory.connection.query_row("SELECT count(*) FROM answers", [], |row| row.get(0))?;
                assert_eq!(left, fitting);
                Ok(())
            })
            .unwrap();
        assert!(remembered.recall("b", "0").is_some());
    }

    #[test]
    fn a_file_that_is_no_memory_is_made_anew() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("answers.sqlite");
        std::fs::write(&file, "this is no database, and longer than the head of one would be".repeat(40)).unwrap();
        let remembered = Remembered::at(file.clone(), LONG, Recall::Yes);
        remembered.keep("a", "x", None);
        assert_eq!(remembered.recall("a", "x"), Some(Answer::Lacks));
        let nowhere = Remembered::at("/nonexistent/answers.sqlite".into(), LONG, Recall::Yes);
        nowhere.keep("a", "x", None);
        assert_eq!(nowhere.recall("a", "x"), None);
    }
}
