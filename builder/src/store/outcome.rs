//! Outcomes and the trees they speak of.
//!
//! An outcome is filed as the bytes it is, below `outcomes/records/DERIVATION/`; the store reads of it only which
//! derivation and which trees it is about (ARCHITECTURE.md, the JSON of an outcome). Trees of builds are kept by NAR digest
//! below `outcomes/trees/` within a budget; one that became a valid path lies there and is not kept twice.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use kiln_model::digest::{Digest, NarHash};
use kiln_model::rewrite::Rewrites;
use kiln_model::store_path::StorePath;
use kiln_model::tree::Manifest;
use serde::Deserialize;

use super::add::{Staged, split};
use super::copy::{Origin, Root, Source, TreeLimits, Wanted};
use super::digester::Digests;
use super::error::{StoreError, failed};
use super::record::{self, TreeRecord};
use super::{Store, durable};

/// A tree that a build left behind, taken out of its sandbox.
#[derive(Debug, Clone)]
pub struct Taken {
    /// Digest of its NAR, which also finds it: [`Store::tree`].
    pub nar_hash: NarHash,
    /// Bytes of its NAR.
    pub nar_size: u64,
    /// Which of the candidates it names.
    pub references: BTreeSet<StorePath>,
    /// What is in it.
    pub manifest: Manifest,
}

/// A canonical copy of what a build left behind, under a private name; gone when dropped.
pub struct Draft(Staged);

impl Draft {
    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// Digest of its NAR.
    pub fn nar_hash(&self) -> NarHash {
        self.0.walked.nar_hash
    }

    /// Which of the candidates it names.
    pub fn references(&self) -> &BTreeSet<StorePath> {
        &self.0.walked.references
    }
}

impl std::fmt::Debug for Draft {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Draft").field(&self.0.path).finish()
    }
}

/// An outcome as the index knows it.
#[derive(Debug, Clone)]
pub(super) struct Filed {
    pub(super) id: String,
    pub(super) derivation: StorePath,
    pub(super) recorded: i64,
    pub(super) trees: BTreeSet<NarHash>,
}

/// What the store reads of an outcome.
#[derive(Deserialize)]
struct Shape {
    derivation: StorePath,
    #[serde(default)]
    outputs: BTreeMap<String, ShapeOfOutput>,
}

#[derive(Deserialize)]
struct ShapeOfOutput {
    nar_hash: NarHash,
}

impl Filed {
    /// `file` is the name of the record: when it was recorded, in nanoseconds since the epoch, and its digest.
    pub(super) fn parse(file: &str, json: &[u8]) -> Result<Self, StoreError> {
        let shape: Shape = serde_json::from_slice(json).map_err(|error| StoreError::Outcome(error.to_string()))?;
        let recorded = file.split_once('-').and_then(|(time, _)| time.parse().ok());
        Ok(Self {
            id: file.to_owned(),
            derivation: shape.derivation,
            recorded: recorded.ok_or_else(|| StoreError::Outcome(format!("bad file name {file:?}")))?,
            trees: shape.outputs.into_values().map(|output| output.nar_hash).collect(),
        })
    }
}

impl Store {
    /// Takes what a build left as `source` after the last of its processes is gone: checks it, copies it canonically,
    /// scans it for `candidates`, hashes it. The copy is kept by its NAR digest.
    pub fn take_output(
        &self,
        source: Source<'_>,
        candidates: &BTreeSet<StorePath>,
        limits: TreeLimits,
    ) -> Result<Taken, StoreError> {
        self.keep_draft(self.draft_output(source, candidates, limits)?)
    }

    /// The first half of [`Store::take_output`]: the copy has no place yet.
    pub fn draft_output(
        &self,
        source: Source<'_>,
        candidates: &BTreeSet<StorePath>,
        limits: TreeLimits,
    ) -> Result<Draft, StoreError> {
        self.stage(source, Digests::NarAndFiles, Some(candidates), limits).map(Draft)
    }

    /// A draft with hash parts replaced in every file and link, which then names `references`.
    pub fn rewrite_draft(
        &self,
        draft: &Draft,
        rewrites: &Rewrites,
        references: BTreeSet<StorePath>,
    ) -> Result<Draft, StoreError> {
        let (directory, name) = split(draft.path())?;
        let shown = draft.path();
        let source = Source { directory: directory.as_fd(), name: &name, shown, origin: Origin::Given };
        let limits = TreeLimits::default();
        let wanted = Wanted { digests: Digests::NarAndFiles, candidates: None, limits, rewrites: Some(rewrites) };
        let mut staged = self.stage_root(&Root::Tree(source), &wanted)?;
        staged.walked.references = references;
        Ok(Draft(staged))
    }

    /// The second half of [`Store::take_output`]: keeps the copy by its NAR digest.
    pub fn keep_draft(&self, Draft(staged): Draft) -> Result<Taken, StoreError> {
        let nar_hash = staged.walked.nar_hash;
        let manifest = staged.walked.manifest.clone().expect("a manifest was asked for");
        let taken = Taken {
            nar_hash,
            nar_size: staged.walked.nar_size,
            references: staged.walked.references.clone(),
            manifest,
        };
        // A collection that has read what is held must not find the tree before it has ended.
        let _shared = self.share_with_gc()?;
        self.hold_line(&tree_line(&nar_hash))?;
        let _lock = self.lock_name(&format!("tree-{}", nar_hash.digest()))?;
        if self.tree_location(&nar_hash)?.is_some() {
            return Ok(taken);
        }
        let place = self.layout.outcome_tree(&nar_hash);
        let fingerprint = self.settle(staged, &place)?;
        let record = TreeRecord {
            nar_hash,
            nar_size: taken.nar_size,
            references: taken.references.clone(),
            made: record::now(),
            fingerprint,
        };
        durable::write(&self.session, &tree_record(&place), &record::print(&record))?;
        self.index.add_tree(&record)?;
        Ok(taken)
    }

    /// Where a tree with this digest lies, if the store still has one: as a valid path, or kept for an outcome.
    pub fn tree(&self, nar_hash: &NarHash) -> Result<Option<PathBuf>, StoreError> {
        let _shared = self.share_with_gc()?;
        let found = self.tree_location(nar_hash)?;
        if let Some(Location::Valid(path)) = &found {
            self.hold_line(path.base_name())?;
        } else if found.is_some() {
            self.hold_line(&tree_line(nar_hash))?;
        }
        Ok(found.map(|location| match location {
            Location::Kept => self.layout.outcome_tree(nar_hash),
            Location::Valid(path) => self.layout.tree(&path),
        }))
    }

    pub(super) fn tree_location(&self, nar_hash: &NarHash) -> Result<Option<Location>, StoreError> {
        let kept = self.layout.outcome_tree(nar_hash);
        if record::read::<TreeRecord>(&tree_record(&kept))?.is_some() && kept.symlink_metadata().is_ok() {
            return Ok(Some(Location::Kept));
        }
        Ok(self.index.paths_with(nar_hash)?.into_iter().next().map(Location::Valid))
    }

    /// Forgets that a tree is kept; the caller has moved it, or removes it.
    pub(super) fn forget_tree(&self, nar_hash: &NarHash) -> Result<(), StoreError> {
        self.index.remove_tree(nar_hash)?;
        durable::remove(&tree_record(&self.layout.outcome_tree(nar_hash)))
    }

    /// Files an outcome (its JSON) under its derivation, and returns its id. On return it is on the disk. Filing the same
    /// bytes again makes another record: two builds may have seen the same.
    pub fn record_outcome(&self, json: &[u8]) -> Result<String, StoreError> {
        // Zero-padded so that names sort by time.
        let nanos = jiff::Timestamp::now().as_nanosecond();
        let id = format!("{nanos:020}-{}", &Digest::of(json).to_string()[..16]);
        let filed = Filed::parse(&id, json)?;
        let directory = self.layout.outcome_records().join(filed.derivation.base_name());
        std::fs::create_dir_all(&directory).map_err(failed("creating", &directory))?;
        durable::write(&self.session, &directory.join(format!("{id}.json")), json)?;
        self.index.add_outcome(&filed)?;
        Ok(id)
    }

    /// Derivations that have outcomes, sorted.
    pub fn derivations_with_outcomes(&self) -> Result<Vec<StorePath>, StoreError> {
        let names = super::names_in(&self.layout.outcome_records())?;
        Ok(names.iter().filter_map(|name| StorePath::from_base_name(name).ok()).collect())
    }

    /// Ids of a derivation's outcomes, oldest first.
    pub fn outcomes(&self, derivation: &StorePath) -> Result<Vec<String>, StoreError> {
        self.index.outcomes(derivation)
    }

    /// The JSON of one outcome.
    pub fn outcome(&self, derivation: &StorePath, id: &str) -> Result<Vec<u8>, StoreError> {
        let path = self.layout.outcome_records().join(derivation.base_name()).join(format!("{id}.json"));
        std::fs::read(&path).map_err(failed("reading", &path))
    }

    /// The JSON of a derivation's last outcome.
    pub fn latest_outcome(&self, derivation: &StorePath) -> Result<Option<Vec<u8>>, StoreError> {
        self.outcomes(derivation)?.last().map(|id| self.outcome(derivation, id)).transpose()
    }
}

/// Where a tree lies.
pub(super) enum Location {
    /// Below `outcomes/trees`.
    Kept,
    /// As this valid path.
    Valid(StorePath),
}

pub(super) fn tree_line(nar_hash: &NarHash) -> String {
    format!("tree {nar_hash}")
}

pub(super) fn tree_record(tree: &std::path::Path) -> PathBuf {
    tree.with_extension("json")
}
