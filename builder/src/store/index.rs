//! The SQLite index: answers that would need all records.
//!
//! Files are the truth: every row can be had back from a record or an outcome on disk, and [`Index::rebuild`] does so, in
//! one transaction. So a commit need not reach the disk (`synchronous=NORMAL` in WAL mode loses the last ones to a power
//! cut, and keeps the file sound: sqlite.org/pragma.html#pragma_synchronous); a row that is missing is found by its file.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use kiln_model::digest::NarHash;
use kiln_model::store_path::StorePath;
use rusqlite::{Connection, ErrorCode, OptionalExtension as _, Transaction, TransactionBehavior, params};

use super::error::{StoreError, failed};
use super::outcome::Filed;
use super::record::{PathInfo, TreeRecord};

/// Version of the tables; another one is thrown away and built again.
const TABLES: i32 = 1;

const SCHEMA: &str = "
    CREATE TABLE paths (path TEXT PRIMARY KEY, nar_hash TEXT NOT NULL, nar_size INTEGER NOT NULL, record TEXT NOT NULL)
        WITHOUT ROWID;
    CREATE INDEX paths_by_nar ON paths (nar_hash);
    CREATE TABLE refs (referrer TEXT NOT NULL, reference TEXT NOT NULL, PRIMARY KEY (referrer, reference)) WITHOUT ROWID;
    CREATE INDEX refs_by_reference ON refs (reference);
    CREATE TABLE outcomes (id TEXT PRIMARY KEY, derivation TEXT NOT NULL, recorded INTEGER NOT NULL) WITHOUT ROWID;
    CREATE INDEX outcomes_by_derivation ON outcomes (derivation, recorded);
    CREATE TABLE holds (outcome TEXT NOT NULL, nar_hash TEXT NOT NULL, PRIMARY KEY (outcome, nar_hash)) WITHOUT ROWID;
    CREATE TABLE trees (nar_hash TEXT PRIMARY KEY, nar_size INTEGER NOT NULL, made INTEGER NOT NULL) WITHOUT ROWID;
";

/// All that the index is made from.
#[derive(Default)]
pub(super) struct Contents {
    pub(super) paths: Vec<PathInfo>,
    pub(super) outcomes: Vec<Filed>,
    pub(super) trees: Vec<TreeRecord>,
}

pub(super) struct Index {
    connection: Mutex<Connection>,
}

impl Index {
    /// Opens the index, and makes it from `contents` if there is none, or none that can be used.
    pub(super) fn open(path: &Path, contents: impl Fn() -> Result<Contents, StoreError>) -> Result<Self, StoreError> {
        match Self::try_open(path, &contents) {
            Err(StoreError::Index(error))
                if matches!(error.sqlite_error_code(), Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt)) =>
            {
                // Nothing in it that is not elsewhere.
                for suffix in ["", "-wal", "-shm"] {
                    let mut file = path.as_os_str().to_owned();
                    file.push(suffix);
                    super::durable::remove(Path::new(&file))?;
                }
                Self::try_open(path, &contents)
            }
            opened => opened,
        }
    }

    fn try_open(path: &Path, contents: &impl Fn() -> Result<Contents, StoreError>) -> Result<Self, StoreError> {
        let connection = Connection::open(path).map_err(|error| cannot_open(path, error))?;
        connection.busy_timeout(Duration::from_secs(30))?;
        connection.pragma_update(None, "synchronous", "NORMAL")?;
        let index = Self { connection: Mutex::new(connection) };
        if index.tables()? != TABLES {
            let mode: String = index.lock().query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
            if mode != "wal" {
                return Err(StoreError::Damaged {
                    path: path.to_owned(),
                    reason: format!("journal mode {mode}, expected wal: the file system cannot share memory"),
                });
            }
            index.rebuild_if(|tables| tables != TABLES, contents)?;
        }
        Ok(index)
    }

    /// Makes the index again from what is on disk.
    pub(super) fn rebuild(&self, contents: &impl Fn() -> Result<Contents, StoreError>) -> Result<(), StoreError> {
        self.rebuild_if(|_| true, contents)
    }

    fn rebuild_if(
        &self,
        needed: impl Fn(i32) -> bool,
        contents: &impl Fn() -> Result<Contents, StoreError>,
    ) -> Result<(), StoreError> {
        let mut connection = self.lock();
        // Immediate: of several processes one builds, the others wait and find it built.
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let tables: i32 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
        if !needed(tables) {
            return Ok(());
        }
        // Read inside the transaction: whatever becomes valid meanwhile waits to be inserted.
        let contents = contents()?;
        for table in ["paths", "refs", "outcomes", "holds", "trees"] {
            transaction.execute_batch(&format!("DROP TABLE IF EXISTS {table}"))?;
        }
        transaction.execute_batch(SCHEMA)?;
        for info in &contents.paths {
            insert_path(&transaction, info)?;
        }
        for outcome in &contents.outcomes {
            insert_outcome(&transaction, outcome)?;
        }
        for tree in &contents.trees {
            insert_tree(&transaction, tree)?;
        }
        transaction.pragma_update(None, "user_version", TABLES)?;
        transaction.commit()?;
        Ok(())
    }

    fn tables(&self) -> Result<i32, StoreError> {
        Ok(self.lock().pragma_query_value(None, "user_version", |row| row.get(0))?)
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().expect("no thread panics while it holds the index")
    }

    pub(super) fn path(&self, path: &StorePath) -> Result<Option<PathInfo>, StoreError> {
        let connection = self.lock();
        let mut statement = connection.prepare_cached("SELECT record FROM paths WHERE path = ?1")?;
        let record: Option<String> = statement.query_row([path.base_name()], |row| row.get(0)).optional()?;
        Ok(record.and_then(|record| serde_json::from_str(&record).ok()))
    }

    /// Store paths are `HASH-NAME`, and `.` follows `-`.
    pub(super) fn path_with_hash(&self, hash: &str) -> Result<Option<StorePath>, StoreError> {
        let connection = self.lock();
        let mut statement =
            connection.prepare_cached("SELECT path FROM paths WHERE path >= ?1 AND path < ?2 LIMIT 1")?;
        let range = [format!("{hash}-"), format!("{hash}.")];
        let base: Option<String> = statement.query_row(range, |row| row.get(0)).optional()?;
        Ok(base.and_then(|base| StorePath::from_base_name(&base).ok()))
    }

    pub(super) fn paths(&self) -> Result<Vec<PathInfo>, StoreError> {
        let connection = self.lock();
        let mut statement = connection.prepare_cached("SELECT record FROM paths ORDER BY path")?;
        let records = statement.query_map([], |row| row.get::<_, String>(0))?;
        let mut paths = Vec::new();
        for record in records {
            paths.extend(serde_json::from_str::<PathInfo>(&record?).ok());
        }
        Ok(paths)
    }

    pub(super) fn paths_with(&self, nar_hash: &NarHash) -> Result<Vec<StorePath>, StoreError> {
        self.bases("SELECT path FROM paths WHERE nar_hash = ?1 ORDER BY path", &nar_hash.to_string())
    }

    pub(super) fn referrers(&self, path: &StorePath) -> Result<BTreeSet<StorePath>, StoreError> {
        let bases = self.bases("SELECT referrer FROM refs WHERE reference = ?1", path.base_name())?;
        Ok(bases.into_iter().collect())
    }

    fn bases(&self, query: &str, parameter: &str) -> Result<Vec<StorePath>, StoreError> {
        let connection = self.lock();
        let mut statement = connection.prepare_cached(query)?;
        let bases = statement.query_map([parameter], |row| row.get::<_, String>(0))?;
        let mut paths = Vec::new();
        for base in bases {
            paths.extend(StorePath::from_base_name(&base?).ok());
        }
        Ok(paths)
    }

    pub(super) fn add_paths<'a>(&self, infos: impl IntoIterator<Item = &'a PathInfo>) -> Result<(), StoreError> {
        self.change(|transaction| infos.into_iter().try_for_each(|info| insert_path(transaction, info)))
    }

    pub(super) fn remove_path(&self, path: &StorePath) -> Result<(), StoreError> {
        self.change(|transaction| {
            transaction.execute("DELETE FROM paths WHERE path = ?1", [path.base_name()])?;
            transaction.execute("DELETE FROM refs WHERE referrer = ?1", [path.base_name()]).map(drop)
        })
    }

    pub(super) fn add_outcome(&self, outcome: &Filed) -> Result<(), StoreError> {
        self.change(|transaction| insert_outcome(transaction, outcome))
    }

    /// Ids of a derivation's outcomes, oldest first.
    pub(super) fn outcomes(&self, derivation: &StorePath) -> Result<Vec<String>, StoreError> {
        let connection = self.lock();
        let mut statement =
            connection.prepare_cached("SELECT id FROM outcomes WHERE derivation = ?1 ORDER BY recorded, id")?;
        let ids = statement.query_map([derivation.base_name()], |row| row.get(0))?;
        Ok(ids.collect::<Result<_, _>>()?)
    }

    pub(super) fn add_tree(&self, tree: &TreeRecord) -> Result<(), StoreError> {
        self.change(|transaction| insert_tree(transaction, tree))
    }

    pub(super) fn remove_tree(&self, nar_hash: &NarHash) -> Result<(), StoreError> {
        self.change(|transaction| {
            transaction.execute("DELETE FROM trees WHERE nar_hash = ?1", [nar_hash.to_string()]).map(drop)
        })
    }

    /// Trees kept for outcomes with their sizes: those that no outcome holds first, then the oldest.
    pub(super) fn trees_by_worth(&self) -> Result<Vec<(NarHash, u64)>, StoreError> {
        let connection = self.lock();
        let mut statement = connection.prepare_cached(
            "SELECT nar_hash, nar_size FROM trees
             ORDER BY EXISTS (SELECT 1 FROM holds WHERE holds.nar_hash = trees.nar_hash), made, nar_hash",
        )?;
        let rows = statement.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?)))?;
        let mut trees = Vec::new();
        for row in rows {
            let (nar_hash, size) = row?;
            trees.extend(nar_hash.parse().ok().map(|nar_hash| (nar_hash, size.unsigned_abs())));
        }
        Ok(trees)
    }

    fn change(&self, work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<()>) -> Result<(), StoreError> {
        let mut connection = self.lock();
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        work(&transaction)?;
        transaction.commit()?;
        Ok(())
    }
}

fn cannot_open(path: &Path, error: rusqlite::Error) -> StoreError {
    match error.sqlite_error_code() {
        Some(ErrorCode::ReadOnly) => {
            failed("opening", path)(std::io::Error::from(std::io::ErrorKind::ReadOnlyFilesystem))
        }
        _ => StoreError::Index(error),
    }
}

fn insert_path(transaction: &Transaction<'_>, info: &PathInfo) -> rusqlite::Result<()> {
    let record = serde_json::to_string(info).expect("records have string keys only");
    let size = i64::try_from(info.nar_size).unwrap_or(i64::MAX);
    transaction.prepare_cached("INSERT OR REPLACE INTO paths VALUES (?1, ?2, ?3, ?4)")?.execute(params![
        info.path.base_name(),
        info.nar_hash.to_string(),
        size,
        record
    ])?;
    transaction.execute("DELETE FROM refs WHERE referrer = ?1", [info.path.base_name()])?;
    let mut statement = transaction.prepare_cached("INSERT OR REPLACE INTO refs VALUES (?1, ?2)")?;
    for reference in &info.references {
        statement.execute([info.path.base_name(), reference.base_name()])?;
    }
    Ok(())
}

fn insert_outcome(transaction: &Transaction<'_>, outcome: &Filed) -> rusqlite::Result<()> {
    transaction.prepare_cached("INSERT OR IGNORE INTO outcomes VALUES (?1, ?2, ?3)")?.execute(params![
        outcome.id,
        outcome.derivation.base_name(),
        outcome.recorded
    ])?;
    let mut statement = transaction.prepare_cached("INSERT OR IGNORE INTO holds VALUES (?1, ?2)")?;
    for tree in &outcome.trees {
        statement.execute([outcome.id.as_str(), &tree.to_string()])?;
    }
    Ok(())
}

fn insert_tree(transaction: &Transaction<'_>, tree: &TreeRecord) -> rusqlite::Result<()> {
    let size = i64::try_from(tree.nar_size).unwrap_or(i64::MAX);
    transaction
        .prepare_cached("INSERT OR REPLACE INTO trees VALUES (?1, ?2, ?3)")?
        .execute(params![tree.nar_hash.to_string(), size, tree.made])
        .map(drop)
}
