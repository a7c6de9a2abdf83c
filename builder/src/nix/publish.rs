//! Store → binary cache.
//!
//! A narinfo comes after its archive and after the narinfos of all that its path names, a realisation after its path: a cache
//! never offers what it cannot give. Publishing again writes nothing, and what a killed run left is gone on with. Several
//! rebuilders may publish into one cache: each adds its signature where all agree, what others said stays, and who disagrees
//! is refused.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};

use kiln_model::format::narinfo::{self, Compression, NarInfo, file_name};
use kiln_model::format::realisation::{self, Realisation};
use kiln_model::format::signature::SecretKey;
use kiln_model::store_path::{StorePath, spelled};

use super::destination::{Destination, Writing};
use super::dump::DumpError;
use super::error::CacheError;
use super::order::references_first;
use super::pack::{Archive, LARGE};
use super::turns::in_turn;
use crate::store::{PathInfo, Store, StoreError};

/// Writes a binary cache.
pub struct Publisher<'a> {
    /// What is published.
    pub store: &'a Store,
    /// Where to.
    pub destination: &'a Destination<'a>,
    /// Who signs; nobody if empty.
    pub keys: &'a [SecretKey],
    /// How archives are compressed.
    pub compression: Compression,
    /// Processors that compress.
    pub processors: NonZeroUsize,
    /// Files that are sent to a server at once.
    pub uploads: NonZeroUsize,
}

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Published {
    /// Paths that the cache did not have.
    pub added: usize,
    /// Paths that got a signature.
    pub signed: usize,
    /// Paths that were there as they are.
    pub kept: usize,
    /// Realisations that the cache did not have, or not with these signatures.
    pub realisations: usize,
    /// Bytes of archives before compression.
    pub nar_bytes: u64,
    /// Bytes of archives after.
    pub file_bytes: u64,
}

/// What one path needs.
enum Work {
    /// Its archive was written; this is its narinfo.
    Added(NarInfo),
    /// There already, but for a signature.
    Signed(NarInfo),
    /// Nothing.
    Kept,
}

/// A publisher at work.
struct Run<'a> {
    publisher: &'a Publisher<'a>,
    cache: Writing<'a>,
    /// Held while a large archive is compressed: one takes all processors.
    large: Mutex<()>,
    done: Mutex<Published>,
}

impl Publisher<'_> {
    /// Publishes `paths` and all that they name, and which outputs of derivations these are.
    pub fn publish(&self, paths: &BTreeSet<StorePath>) -> Result<Published, CacheError> {
        self.store.hold(paths)?;
        let closure = self.store.closure(paths)?;
        self.store.hold(&closure.keys().cloned().collect())?;
        let references = closure.iter().map(|(path, info)| (path.clone(), info.references.clone())).collect();
        let ordered = references_first(&references).map_err(|path| CacheError::Circle { path: path.clone() })?;
        let place: BTreeMap<&StorePath, usize> =
            ordered.iter().enumerate().map(|(index, path)| (*path, index)).collect();
        let waits_for = |path: &StorePath| {
            let others = closure[path].references.iter().filter(|other| *other != path);
            others.filter_map(|other| place.get(other).copied()).collect()
        };
        let waits_for: Vec<Vec<usize>> = ordered.iter().map(|path| waits_for(path)).collect();
        let realisations = self.realisations(&place)?;
        // What others get must not be lost here.
        self.store.sync()?;

        let cache = self.destination.open(self.store)?;
        let run = Run { publisher: self, cache, large: Mutex::default(), done: Mutex::default() };
        let workers = if self.destination.is_remote() { self.uploads.max(self.processors) } else { self.processors };
        in_turn(&waits_for, workers, |index| run.prepare(&closure[ordered[index]]), |_, work| run.conclude(work))?;
        for realisation in realisations {
            run.realise(realisation)?;
        }
        run.cache.finish()?;
        Ok(run.done.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    /// Realisations whose paths are published, each after those that it depends on: it names their paths.
    fn realisations(&self, place: &BTreeMap<&StorePath, usize>) -> Result<Vec<Realisation>, CacheError> {
        let mut found: BTreeMap<_, Realisation> = BTreeMap::new();
        for (_, realisation) in self.store.realisations()? {
            if let Some(index) = place.get(&realisation.path) {
                found.entry((*index, realisation.id.clone())).or_insert(realisation);
            }
        }
        Ok(found.into_values().collect())
    }
}

impl Run<'_> {
    fn disagree(&self, of: String, what: &'static str, ours: String, theirs: String) -> CacheError {
        CacheError::Disagree { cache: self.publisher.destination.shown().into(), of, what, ours, theirs }
    }

    /// What the cache says of a path, if that is what is said here.
    fn known(&self, info: &PathInfo) -> Result<Option<NarInfo>, CacheError> {
        let Some(bytes) = self.cache.read(&file_name(&info.path), narinfo::MOST_BYTES)? else { return Ok(None) };
        let there = NarInfo::parse(&bytes).map_err(|source| CacheError::NarInfo {
            cache: self.publisher.destination.shown().into(),
            path: info.path.clone(),
            source,
        })?;
        let disagree = |what, ours, theirs| Err(self.disagree(info.path.to_string(), what, ours, theirs));
        if there.path != info.path {
            return disagree("path", info.path.to_string(), there.path.to_string());
        }
        if there.nar_hash != info.nar_hash {
            return disagree("NAR hash", info.nar_hash.to_string(), there.nar_hash.to_string());
        }
        if there.nar_size != info.nar_size {
            return disagree("NAR size", info.nar_size.to_string(), there.nar_size.to_string());
        }
        if there.references != info.references {
            return disagree("references", listed(&info.references), listed(&there.references));
        }
        Ok(Some(there))
    }

    /// Finds out what a path needs, and writes its archive if the cache has none.
    fn prepare(&self, info: &PathInfo) -> Result<Work, CacheError> {
        let sign = |narinfo: &mut NarInfo| self.publisher.keys.iter().for_each(|key| narinfo.sign(key));
        let Some(there) = self.known(info)? else {
            let mut narinfo = self.archive(info)?;
            sign(&mut narinfo);
            return Ok(Work::Added(narinfo));
        };
        let mut narinfo = there.clone();
        let whole = self.cache.has(&there.url, there.file_size)?;
        if !whole {
            let NarInfo { url, compression, file_hash, file_size, .. } = self.archive(info)?;
            narinfo = NarInfo { url, compression, file_hash, file_size, ..narinfo };
        }
        sign(&mut narinfo);
        Ok(match (whole, narinfo == there) {
            (false, _) => Work::Added(narinfo),
            (true, false) => Work::Signed(narinfo),
            (true, true) => Work::Kept,
        })
    }

    /// Writes what was prepared.
    fn conclude(&self, work: Work) -> Result<(), CacheError> {
        if let Work::Added(info) | Work::Signed(info) = &work {
            self.cache.write(&file_name(&info.path), info.print().as_bytes())?;
        }
        let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        match work {
            Work::Kept => done.kept += 1,
            Work::Signed(_) => done.signed += 1,
            Work::Added(info) => {
                done.added += 1;
                done.nar_bytes += info.nar_size;
                done.file_bytes += info.file_size.unwrap_or(0);
            }
        }
        Ok(())
    }

    /// Writes the archive, and says what its narinfo is.
    fn archive(&self, info: &PathInfo) -> Result<NarInfo, CacheError> {
        let Publisher { store, compression, processors, .. } = *self.publisher;
        let draft = self.cache.draft()?;
        let tree = store.physical(&info.path);
        let one = (info.nar_size >= LARGE).then(|| self.large.lock().unwrap_or_else(PoisonError::into_inner));
        let written = Archive::write(&tree, info.nar_size, compression, processors, draft.as_file());
        drop(one);
        let Archive { nar_hash, nar_size, file_hash, file_size } = written.map_err(|source| match source {
            DumpError::Write(source) => CacheError::Io { act: "writing", path: draft.path().into(), source },
            source => CacheError::Dump { path: info.path.clone(), source },
        })?;
        if (nar_hash, nar_size) != (info.nar_hash, info.nar_size) {
            return Err(StoreError::Tampered { path: tree, expected: info.nar_hash, found: nar_hash }.into());
        }
        let name = spelled(&file_hash);
        let name = name.strip_prefix("sha256:").expect("how a digest is spelled");
        let url = format!("nar/{name}.nar{}", compression.suffix());
        self.cache.place(draft, &url, file_size)?;
        Ok(NarInfo {
            path: info.path.clone(),
            url,
            compression,
            file_hash: Some(file_hash),
            file_size: Some(file_size),
            nar_hash,
            nar_size,
            references: info.references.clone(),
            deriver: info.deriver.clone(),
            signatures: info.signatures.iter().cloned().collect(),
            address: info.ca.as_deref().and_then(|address| address.parse().ok()),
        })
    }

    /// Writes a realisation. Of one that depends on others than the cache's does, that stays: it has other signatures.
    fn realise(&self, mut realisation: Realisation) -> Result<(), CacheError> {
        let file = realisation.file();
        let mut there = None;
        if let Some(bytes) = self.cache.read(&file, realisation::MOST_BYTES)? {
            let found = Realisation::parse(&bytes).map_err(|source| CacheError::Realisation {
                cache: self.publisher.destination.shown().into(),
                file: file.clone(),
                source,
            })?;
            let disagree = |what, ours, theirs| Err(self.disagree(realisation.id.to_string(), what, ours, theirs));
            if found.id != realisation.id {
                return disagree("id", realisation.id.to_string(), found.id.to_string());
            }
            if found.path != realisation.path {
                return disagree("path", realisation.path.to_string(), found.path.to_string());
            }
            if found.dependent != realisation.dependent {
                return Ok(());
            }
            realisation.signatures.extend(found.signatures.iter().cloned());
            there = Some(found);
        }
        self.publisher.keys.iter().for_each(|key| realisation.sign(key));
        if there.as_ref() != Some(&realisation) {
            self.cache.write(&file, realisation.print().as_bytes())?;
            self.done.lock().unwrap_or_else(PoisonError::into_inner).realisations += 1;
        }
        Ok(())
    }
}

fn listed(paths: &BTreeSet<StorePath>) -> String {
    match paths.len() {
        0 => "none".into(),
        _ => paths.iter().map(StorePath::base_name).collect::<Vec<_>>().join(" "),
    }
}
