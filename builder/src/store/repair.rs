//! What a machine that stopped may have torn: found and taken out of the store before anybody uses it.
//!
//! Of what a turn made that nobody ended (`turn`), any write may be lost, or be there without its bytes. What bears the stamp
//! of such a turn is read and held against its digest; what does not hold loses its record, then its tree, and what names
//! it goes with it. Outcomes are named after their digests and all are read, as the index must be made again anyhow; records
//! that do not parse are gone; logs, which decide nothing, are found by their times. What an ended turn made is not read.
//!
//! On return all that is on the disk. If the machine stops meanwhile, the session that is repaired is still there.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use kiln_model::digest::{Digest, NarHash};
use kiln_model::store_path::StorePath;
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};

use super::error::{StoreError, failed};
use super::layout::Layout;
use super::record::{self, PathInfo, TreeRecord};
use super::session::{Dead, remove_tree};
use super::turn::Stamp;
use super::{durable, names_in, outcome, realisation, verify};

/// Something that was lost when the machine stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lost {
    /// The file or tree, relative to the store's root.
    pub what: String,
    /// What was found in its place.
    pub found: String,
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} was lost when this machine stopped: {}", self.what, self.found)
    }
}

/// Ends the turns of dead sessions: those of this boot by a sync, others by reading what they made. The caller keeps others
/// from starting to use the store.
pub(super) fn end_turns(layout: &Layout, dead: &[Dead]) -> Result<Vec<Lost>, StoreError> {
    let unsynced: Vec<_> = dead.iter().filter_map(|dead| dead.unsynced.as_ref()).collect();
    if unsynced.is_empty() {
        return Ok(Vec::new());
    }
    let (alive, mut doubted): (Vec<_>, Vec<_>) = unsynced.into_iter().partition(|turn| turn.is_of_this_boot());
    if !alive.is_empty() && durable::sync_all(layout.root()).is_err() {
        doubted.extend(alive);
    }
    let Some(since) = doubted.iter().map(|turn| turn.since).min() else { return Ok(Vec::new()) };
    let doubted = doubted.into_iter().map(|turn| turn.stamp.clone()).collect();
    let mut repair = Repair { layout, doubted, lost: Vec::new() };
    repair.paths()?;
    repair.trees()?;
    repair.outcomes()?;
    repair.realisations()?;
    repair.logs(since)?;
    durable::sync_all(layout.root())?;
    Ok(repair.lost)
}

struct Repair<'a> {
    layout: &'a Layout,
    doubted: BTreeSet<Stamp>,
    lost: Vec<Lost>,
}

impl Repair<'_> {
    fn paths(&mut self) -> Result<(), StoreError> {
        let mut known: BTreeMap<StorePath, PathInfo> = BTreeMap::new();
        let mut doubtful = Vec::new();
        for file in names_in(&self.layout.meta())? {
            let record = self.layout.meta().join(&file);
            let Some((info, stamp)) = self.record::<PathInfo>(&record)? else {
                if let Ok(path) = StorePath::from_base_name(file.trim_end_matches(".json")) {
                    remove_tree(&self.layout.tree(&path))?;
                }
                continue;
            };
            if self.is_doubted(stamp) {
                doubtful.push((info.path.clone(), info.nar_hash));
            }
            known.insert(info.path.clone(), info);
        }
        let seen = crate::parallel::map(&doubtful, |(path, nar_hash)| what_is_wrong(&self.layout.tree(path), nar_hash));
        let mut gone = Vec::new();
        for ((path, _), wrong) in doubtful.into_iter().zip(seen) {
            gone.extend(wrong.map(|wrong| (path, wrong)));
        }
        while let Some((path, wrong)) = gone.pop() {
            if known.remove(&path).is_none() {
                continue;
            }
            self.remove_record(&self.layout.record(&path))?;
            remove_tree(&self.layout.tree(&path))?;
            // A path is valid only while all that it names is.
            let names_it = known.values().filter(|info| info.references.contains(&path));
            gone.extend(names_it.map(|info| (info.path.clone(), format!("it names {path}, which was lost"))));
            self.say(&self.layout.tree(&path), wrong);
        }
        Ok(())
    }

    fn trees(&mut self) -> Result<(), StoreError> {
        for file in names_in(&self.layout.outcome_trees())?.into_iter().filter(|file| file.ends_with(".json")) {
            let record = self.layout.outcome_trees().join(&file);
            let tree = record.with_extension("");
            let Some((TreeRecord { nar_hash, .. }, stamp)) = self.record(&record)? else {
                remove_tree(&tree)?;
                continue;
            };
            let wrong = if self.is_doubted(stamp) { what_is_wrong(&tree, &nar_hash) } else { None };
            if let Some(wrong) = wrong {
                self.remove_record(&record)?;
                remove_tree(&tree)?;
                self.say(&tree, wrong);
            }
        }
        Ok(())
    }

    fn outcomes(&mut self) -> Result<(), StoreError> {
        for derivation in names_in(&self.layout.outcome_records())? {
            let directory = self.layout.outcome_records().join(derivation);
            for file in names_in(&directory)? {
                let path = directory.join(&file);
                let json = std::fs::read(&path).map_err(failed("reading", &path))?;
                if !outcome::is_named_after(file.trim_end_matches(".json"), &json) {
                    self.remove_record(&path)?;
                    self.say(&path, "it is not what it is named after".into());
                }
            }
        }
        Ok(())
    }

    fn realisations(&mut self) -> Result<(), StoreError> {
        for file in realisation::files(self.layout)? {
            self.record::<realisation::RealisationRecord>(&file)?;
        }
        Ok(())
    }

    fn logs(&mut self, since: i64) -> Result<(), StoreError> {
        for file in names_in(&self.layout.logs())? {
            let path = self.layout.logs().join(&file);
            let metadata = path.symlink_metadata().map_err(failed("looking at", &path))?;
            if metadata.mtime() < since {
                continue;
            }
            let found = digest_of_log(&path).map(|digest| digest.to_string());
            if found.as_deref().ok() != Some(file.trim_end_matches(".zst")) {
                self.remove_record(&path)?;
                self.say(&path, "it is not what it is named after".into());
            }
        }
        Ok(())
    }

    fn is_doubted(&self, stamp: Option<Stamp>) -> bool {
        stamp.is_some_and(|stamp| self.doubted.contains(&stamp))
    }

    /// A record; one that is not whole is removed.
    fn record<T: DeserializeOwned>(&mut self, path: &Path) -> Result<Option<(T, Option<Stamp>)>, StoreError> {
        let bytes = std::fs::read(path).map_err(failed("reading", path))?;
        match record::parse(&bytes) {
            Ok(parsed) => Ok(Some(parsed)),
            Err(error) => {
                self.remove_record(path)?;
                self.say(path, format!("its record is not whole ({error})"));
                Ok(None)
            }
        }
    }

    fn remove_record(&self, path: &Path) -> Result<(), StoreError> {
        std::fs::remove_file(path).map_err(failed("removing", path))
    }

    fn say(&mut self, path: &Path, found: String) {
        let what = path.strip_prefix(self.layout.root()).unwrap_or(path).display().to_string();
        self.lost.push(Lost { what, found });
    }
}

/// What is wrong with a tree that should have this digest.
fn what_is_wrong(tree: &Path, nar_hash: &NarHash) -> Option<String> {
    match tree.symlink_metadata() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Some("nothing is there".into()),
        _ => {}
    }
    match verify::digest(tree) {
        Ok((found, _)) if found == *nar_hash => None,
        Ok((found, _)) => Some(format!("its NAR hash is {found}, expected {nar_hash}")),
        Err(error) => Some(verify::chain(&error)),
    }
}

fn digest_of_log(path: &Path) -> std::io::Result<Digest> {
    let mut decoder = zstd::Decoder::new(std::fs::File::open(path)?)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 128 << 10];
    loop {
        match decoder.read(&mut buffer)? {
            0 => return Ok(Digest::from_bytes(hasher.finalize().into())),
            count => hasher.update(&buffer[..count]),
        }
    }
}
