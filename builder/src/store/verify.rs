//! Whether what is on disk is what was recorded.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use kiln_model::digest::NarHash;
use kiln_model::store_path::StorePath;
use kiln_model::tree::EntryPath;

use super::add::{fingerprint_of, split};
use super::copy::{Origin, Source, TreeLimits};
use super::digester::Digests;
use super::error::{StoreError, failed};
use super::fingerprint::Fingerprint;
use super::record::{self, PathInfo, TreeRecord};
use super::{Store, durable, names_in, nar_hash_of};

/// How far the disk is believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// A tree whose stat fingerprint is that of its record is as it was; another one is read.
    Fingerprint,
    /// Every byte is read.
    Bytes,
}

/// What [`Store::verify`] saw.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Verified {
    /// Trees looked at.
    pub trees: u64,
    /// Bytes of NAR that were hashed.
    pub bytes: u64,
    /// What is not as recorded.
    pub problems: Vec<Problem>,
}

/// Something that is not as recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// Its bytes changed.
    Altered {
        /// The tree, relative to the store's root.
        tree: String,
        /// Digest as recorded.
        expected: NarHash,
        /// Digest as it is.
        found: NarHash,
        /// Entries that were written since the digest was taken; empty if the medium failed silently.
        entries: Vec<EntryPath>,
    },
    /// It has a record and is not there.
    Missing {
        /// The tree, relative to the store's root.
        tree: String,
    },
    /// It cannot be read, or holds what no tree may hold.
    Unreadable {
        /// The tree, relative to the store's root.
        tree: String,
        /// Why.
        reason: String,
    },
    /// The record of an output that floated is not one.
    Realisation {
        /// The file, relative to the store's root.
        file: String,
        /// Why not.
        reason: String,
    },
    /// The index and the records differ: rebuild the index.
    Index {
        /// The path that only one of them has, or of which they say different things.
        path: StorePath,
    },
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Altered { tree, expected, found, entries } => {
                write!(f, "{tree} was altered: NAR hash {found}, expected {expected}")?;
                entries.iter().try_for_each(|entry| write!(f, "\n  written since: {tree}/{entry}"))
            }
            Self::Missing { tree } => write!(f, "{tree} is recorded and is not there"),
            Self::Unreadable { tree, reason } => write!(f, "{tree} cannot be read: {reason}"),
            Self::Realisation { file, reason } => write!(f, "{file} is no record of a realisation: {reason}"),
            Self::Index { path } => write!(f, "the index and the record of {path} differ"),
        }
    }
}

impl Store {
    /// Fails unless `path` is valid and its tree is as recorded. Inputs of a build are checked with this on use.
    pub fn check(&self, path: &StorePath, trust: Trust) -> Result<PathInfo, StoreError> {
        self.check_known(self.record_of(path)?, trust)
    }

    /// The same for a path of which it is known that it is valid, and held.
    pub fn check_known(&self, mut info: PathInfo, trust: Trust) -> Result<PathInfo, StoreError> {
        let path = &info.path.clone();
        let place = self.physical(path);
        let seen = fingerprint_of(&place)?;
        if trust == Trust::Bytes || seen != info.fingerprint {
            let (found, _) = digest(&place)?;
            if found != info.nar_hash {
                return Err(StoreError::Tampered { path: place, expected: info.nar_hash, found });
            }
            if seen != info.fingerprint {
                // The store was moved or restored: the bytes are right, remember how they look now.
                info.fingerprint = seen;
                let _lock = self.lock_path(path)?;
                // This replaces a record that may be on the disk, so it must not wait for the end of a turn.
                durable::sync_all(self.root())?;
                durable::write(&self.session, &self.layout.record(path), &record::print(&info))?;
                self.index.add_paths([&info])?;
            }
        }
        Ok(info)
    }

    /// Holds all trees against their records, and the index against both. Changes nothing.
    pub fn verify(&self, trust: Trust) -> Result<Verified, StoreError> {
        let mut seen = Verified::default();
        // Both at a moment at which nobody is between writing a record and its row.
        let (on_disk, indexed) = {
            let _excluded = self.exclude_for_gc()?;
            (super::contents(&self.layout)?.paths, self.index.paths()?)
        };
        let by_path = |infos: Vec<PathInfo>| -> BTreeMap<StorePath, PathInfo> {
            infos.into_iter().map(|info| (info.path.clone(), info)).collect()
        };
        let (on_disk, indexed) = (by_path(on_disk), by_path(indexed));
        let recorded = self.recorded_trees()?;
        // In the order of the records, whichever thread looked.
        for found in crate::parallel::map(&recorded, |recorded| self.verify_tree(recorded, trust)) {
            seen.add(found);
        }
        let paths: BTreeSet<&StorePath> = on_disk.keys().chain(indexed.keys()).collect();
        for path in paths {
            if on_disk.get(path) != indexed.get(path) {
                seen.problems.push(Problem::Index { path: path.clone() });
            }
        }
        seen.problems.extend(self.damaged_realisations()?);
        Ok(seen)
    }

    /// Every tree that a record speaks of.
    fn recorded_trees(&self) -> Result<Vec<Recorded>, StoreError> {
        let mut trees = Vec::new();
        for file in names_in(&self.layout.meta())? {
            let file = self.layout.meta().join(file);
            let Some(info) = record::read::<PathInfo>(&file)? else { continue };
            let tree = format!("nix/store/{}", info.path.base_name());
            trees.push(Recorded { record: file, tree, nar_hash: info.nar_hash, fingerprint: info.fingerprint });
        }
        for file in names_in(&self.layout.outcome_trees())?.iter().filter(|file| file.ends_with(".json")) {
            let file = self.layout.outcome_trees().join(file);
            let Some(TreeRecord { nar_hash, fingerprint, .. }) = record::read(&file)? else { continue };
            let tree = format!("outcomes/trees/{}", nar_hash.digest());
            trees.push(Recorded { record: file, tree, nar_hash, fingerprint });
        }
        for file in names_in(&self.layout.environments())?.iter().filter(|file| file.ends_with(".json")) {
            let path = self.layout.environments().join(file);
            let record = record::read::<record::EnvironmentRecord>(&path)?;
            let named = nar_hash_of(file.trim_end_matches(".json"));
            if let Some(record) = record.filter(|record| named == Some(record.nar_hash)) {
                let tree = format!("environments/{}", record.nar_hash.digest());
                let (nar_hash, fingerprint) = (record.nar_hash, record.fingerprint);
                trees.push(Recorded { record: path, tree, nar_hash, fingerprint });
            }
        }
        Ok(trees)
    }

    /// What another process takes away meanwhile is no problem: it takes the record first.
    fn verify_tree(&self, recorded: &Recorded, trust: Trust) -> Verified {
        let seen = self.verify_recorded(recorded, trust);
        match seen.problems.is_empty() || recorded.record.exists() {
            true => seen,
            false => Verified::default(),
        }
    }

    fn verify_recorded(&self, recorded: &Recorded, trust: Trust) -> Verified {
        let Recorded { tree, nar_hash, fingerprint, .. } = recorded;
        let (tree, place) = (tree.clone(), self.root().join(tree));
        if place.symlink_metadata().is_err() {
            return Verified { problems: vec![Problem::Missing { tree }], ..Verified::default() };
        }
        let mut seen = Verified { trees: 1, ..Verified::default() };
        if trust == Trust::Fingerprint && fingerprint_of(&place).is_ok_and(|found| found == *fingerprint) {
            return seen;
        }
        match digest(&place) {
            Err(error) => seen.problems.push(Problem::Unreadable { tree, reason: chain(&error) }),
            Ok((found, size)) => {
                seen.bytes = size;
                if found != *nar_hash {
                    let entries = written_since(&place, fingerprint.ctime).unwrap_or_default();
                    seen.problems.push(Problem::Altered { tree, expected: *nar_hash, found, entries });
                }
            }
        }
        seen
    }
}

/// A tree, relative to the store's root, as it was recorded.
struct Recorded {
    /// The file that says so.
    record: PathBuf,
    tree: String,
    nar_hash: NarHash,
    fingerprint: Fingerprint,
}

impl Verified {
    fn add(&mut self, other: Self) {
        self.trees += other.trees;
        self.bytes += other.bytes;
        self.problems.extend(other.problems);
    }
}

pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

pub(super) fn digest(place: &Path) -> Result<(NarHash, u64), StoreError> {
    let (directory, name) = split(place)?;
    let source = Source { directory: directory.as_fd(), name: &name, shown: place, origin: Origin::Given };
    let limits = TreeLimits { bytes: u64::MAX, entries: u64::MAX };
    let (nar_hash, size, _) = Store::digest_tree(source, Digests::Nar, limits)?;
    Ok((nar_hash, size))
}

/// Entries whose change time is later than the root's was when the digest was taken: nothing was written after that.
fn written_since(place: &Path, ctime: (i64, i64)) -> Result<Vec<EntryPath>, StoreError> {
    let mut found = Vec::new();
    let mut open = vec![place.to_owned()];
    while let Some(path) = open.pop() {
        let metadata = path.symlink_metadata().map_err(failed("looking at", &path))?;
        if (metadata.ctime(), metadata.ctime_nsec()) > ctime {
            let relative = path.strip_prefix(place).expect("it was found below");
            found.push(EntryPath::from(relative.as_os_str().as_bytes()));
        }
        if metadata.is_dir() {
            for entry in std::fs::read_dir(&path).map_err(failed("listing", &path))? {
                open.push(entry.map_err(failed("listing", &path))?.path());
            }
        }
    }
    found.sort_unstable();
    Ok(found)
}
