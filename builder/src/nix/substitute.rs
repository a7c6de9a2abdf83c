//! Cache → store: paths that others built, if somebody trusted vouches for them.
//!
//! What is wanted comes in groups that are of use only whole, each with all that it names. A group that no cache has, or that
//! the one that has it cannot deliver, is missing; the first fault in what a cache does have ends everything: nothing of that
//! path enters the store, and the error names the field. A path is registered after all that it names.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};

use kiln_model::format::narinfo::{self, NarInfo};
use kiln_model::format::realisation::{Realisation, RealisationId};
use kiln_model::format::signature::{PublicKey, Untrusted, signer};
use kiln_model::outcome::Substituted;
use kiln_model::store_path::StorePath;

use super::archive;
use super::cache::{Small, Source};
use super::caches::Caches;
use super::error::{CacheError, chain};
use super::order::{made_in_order, references_first};
use crate::event::{Events, Level, say};
use crate::store::{Arrival, PathInfo, Restored, Store, StoreError};

/// The most signatures of one path that are kept.
const MOST_SIGNATURES: usize = 64;

/// More than any realisation has.
const LARGEST_REALISATION: u64 = 1 << 20;

/// Brings paths from caches.
pub struct Substituter<'a> {
    store: &'a Store,
    caches: Caches<'a>,
    keys: Vec<PublicKey>,
    parallel: NonZeroUsize,
    events: Events<'a>,
}

/// Why a path is believed to be what it is said to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trusted {
    /// The key of this name signed it.
    Signed(String),
    /// Its path follows from its contents, which are checked.
    Addressed,
}

/// What a cache has.
#[derive(Debug, Clone)]
pub struct Offer {
    /// What it says of the path.
    pub info: NarInfo,
    /// Why that is believed.
    pub trusted: Trusted,
    cache: usize,
    source: Source,
}

/// What became of groups of paths.
#[derive(Debug, Default)]
pub struct Brought {
    /// What is in the store now and was not before, in the order in which it became valid.
    pub paths: Vec<PathInfo>,
    /// For each group, why it is not there as a whole.
    pub missing: BTreeMap<usize, CacheError>,
}

/// One of the paths of an attempt.
enum Got {
    /// With what was said of it in the end.
    Restored(Restored, Box<Offer>),
    /// It could not be had from the cache that offered it.
    Lost(CacheError),
    /// Something that it names was lost.
    Left,
}

impl<'a> Substituter<'a> {
    /// From `caches`; `keys` are believed. No cache is asked anything yet.
    pub fn new(
        store: &'a Store,
        caches: Caches<'a>,
        keys: Vec<PublicKey>,
        parallel: NonZeroUsize,
        events: Events<'a>,
    ) -> Self {
        Self { store, caches, keys, parallel, events }
    }

    /// What the first cache that has `path` says of it, if that is trusted; `None` if none has it.
    pub fn ask(&self, path: &StorePath) -> Result<Option<Offer>, CacheError> {
        let file = narinfo::file_name(path);
        self.caches.ask(&file, narinfo::MOST_BYTES, |index, small| match self.offer(index, path, &small) {
            // It may say otherwise by now.
            Err(_) if small.source == Source::Memory => {
                self.caches.at(index).forget(&file);
                let again = self.caches.at(index).small(&file, narinfo::MOST_BYTES)?;
                again.map(|small| self.offer(index, path, &small)).transpose()
            }
            offer => offer.map(Some),
        })
    }

    fn offer(&self, index: usize, path: &StorePath, small: &Small) -> Result<Offer, CacheError> {
        let cache = self.caches.at(index);
        let info = NarInfo::parse(&small.bytes).map_err(|source| CacheError::NarInfo {
            cache: cache.shown().into(),
            path: path.clone(),
            source,
        })?;
        let field = |field, expected: String, found: String| CacheError::Field {
            cache: cache.shown().into(),
            path: path.clone(),
            field,
            expected,
            found,
        };
        if info.path != *path {
            return Err(field("StorePath", path.to_string(), info.path.to_string()));
        }
        if let Some(address) = &info.address
            && !address.yields(path, &info.references)
        {
            return Err(field("CA", "an address that yields the path".into(), address.to_string()));
        }
        let trusted = match info.signer(&self.keys) {
            Ok(key) => Trusted::Signed(key.name().into()),
            Err(_) if info.address.is_some() => Trusted::Addressed,
            Err(source) => {
                return Err(CacheError::Untrusted { cache: cache.shown().into(), path: path.clone(), source });
            }
        };
        Ok(Offer { info, trusted, cache: index, source: small.source })
    }

    /// Which paths these outputs turned out to be, as far as a cache has that and a trusted key signed it. One that nobody
    /// signed is passed over, and that is said: Nix publishes them so unless told otherwise.
    pub fn realisations(&self, ids: &[RealisationId]) -> Result<BTreeMap<RealisationId, Realisation>, CacheError> {
        let mut found = BTreeMap::new();
        made_in_order(
            ids.len(),
            self.parallel,
            |index| self.realisation(&ids[index]),
            |index, realisation: Option<Realisation>| {
                found.extend(realisation.map(|realisation| (ids[index].clone(), realisation)));
                Ok(())
            },
        )?;
        Ok(found)
    }

    fn realisation(&self, id: &RealisationId) -> Result<Option<Realisation>, CacheError> {
        let file = id.file();
        self.caches.ask(&file, LARGEST_REALISATION, |index, small| match self.judged(index, id, &file, &small) {
            Err(_) if small.source == Source::Memory => {
                self.caches.at(index).forget(&file);
                let again = self.caches.at(index).small(&file, LARGEST_REALISATION)?;
                again.map_or(Ok(None), |small| self.judged(index, id, &file, &small))
            }
            judged => judged,
        })
    }

    fn judged(
        &self,
        index: usize,
        id: &RealisationId,
        file: &str,
        small: &Small,
    ) -> Result<Option<Realisation>, CacheError> {
        let (cache, file) = (self.caches.at(index).shown().to_owned(), file.to_owned());
        let realisation = match Realisation::parse(&small.bytes) {
            Ok(realisation) => realisation,
            Err(source) => return Err(CacheError::Realisation { cache, file, source }),
        };
        if realisation.id != *id {
            return Err(CacheError::OtherRealisation { cache, file, found: realisation.id });
        }
        let lines: Vec<String> = realisation.signatures.iter().cloned().collect();
        match signer(&self.keys, realisation.fingerprint().as_bytes(), &lines) {
            Ok(_) => Ok(Some(realisation)),
            Err(Untrusted::Unsigned) => {
                let text = format!("{cache}: the realisation {file} has no signature and is not taken");
                say(self.events, Level::Warning, text);
                Ok(None)
            }
            Err(source) => Err(CacheError::UntrustedRealisation { cache, file, source }),
        }
    }

    /// Brings `wanted`, and all that they name, into the store, as far as they are not there; it is an error if that cannot
    /// be done. They are held then. What was brought is returned.
    pub fn bring(&self, wanted: &BTreeSet<StorePath>) -> Result<Vec<PathInfo>, CacheError> {
        let Brought { paths, missing } = self.bring_groups(std::slice::from_ref(wanted))?;
        match missing.into_values().next() {
            Some(error) => Err(error),
            None => Ok(paths),
        }
    }

    /// Brings those of `groups` that can be had whole, with all that they name. Their paths are held then.
    pub fn bring_groups(&self, groups: &[BTreeSet<StorePath>]) -> Result<Brought, CacheError> {
        let mut brought = Brought::default();
        let mut open: BTreeSet<usize> = (0..groups.len()).collect();
        // What was lost at one cache and then offered by no other.
        let mut reasons: BTreeMap<StorePath, CacheError> = BTreeMap::new();
        // Each attempt that loses something has one cache less to lose it to, or a fresh answer for a remembered one.
        while !open.is_empty() {
            let mut lost = BTreeMap::new();
            let unavailable = self.attempt(groups, &open, &mut brought.paths, &mut lost)?;
            open.retain(|group| !unavailable.contains_key(group) && !lost.is_empty());
            for (group, path) in unavailable {
                let error = reasons.remove(&path).unwrap_or_else(|| self.nowhere(&path));
                brought.missing.insert(group, error);
            }
            reasons.extend(lost);
        }
        for (index, group) in groups.iter().enumerate() {
            if !brought.missing.contains_key(&index) {
                self.store.hold(group)?;
            }
        }
        Ok(brought)
    }

    /// Brings what of the `open` groups is offered whole. Returned are those that are not, each with a path that nobody
    /// offers; `lost` is what was offered and could not be had.
    fn attempt(
        &self,
        groups: &[BTreeSet<StorePath>],
        open: &BTreeSet<usize>,
        brought: &mut Vec<PathInfo>,
        lost: &mut BTreeMap<StorePath, CacheError>,
    ) -> Result<BTreeMap<usize, StorePath>, CacheError> {
        let wanted = open.iter().flat_map(|group| groups[*group].iter().cloned()).collect();
        let (offers, nowhere) = self.offers(wanted)?;
        let references = offers.iter().map(|(path, offer)| (path.clone(), offer.info.references.clone())).collect();
        let ordered = references_first(&references).map_err(|path| CacheError::Circle { path: path.clone() })?;
        // Why a path is out of reach: what it needs that nobody has.
        let mut lacking: BTreeMap<&StorePath, &StorePath> = nowhere.iter().map(|path| (path, path)).collect();
        for path in &ordered {
            let missing = references[*path].iter().find_map(|reference| lacking.get(reference).copied());
            lacking.extend(missing.map(|missing| (*path, missing)));
        }
        let mut unavailable = BTreeMap::new();
        let mut needed: Vec<&StorePath> = Vec::new();
        for group in open {
            match groups[*group].iter().find_map(|path| lacking.get(path)) {
                Some(missing) => drop(unavailable.insert(*group, (*missing).clone())),
                None => needed.extend(&groups[*group]),
            }
        }
        let mut of_use = BTreeSet::new();
        while let Some(path) = needed.pop() {
            if let Some(references) = references.get(path)
                && of_use.insert(path)
            {
                needed.extend(references);
            }
        }
        let ordered: Vec<&StorePath> = ordered.into_iter().filter(|path| of_use.contains(path)).collect();
        let gone: Mutex<BTreeSet<&StorePath>> = Mutex::default();
        made_in_order(
            ordered.len(),
            self.parallel,
            |index| {
                let offer = &offers[ordered[index]];
                let is_left = {
                    let gone = gone.lock().unwrap_or_else(PoisonError::into_inner);
                    offer.info.references.iter().any(|reference| gone.contains(reference))
                };
                let got = if is_left { Got::Left } else { self.get(offer)? };
                if !matches!(got, Got::Restored(..)) {
                    gone.lock().unwrap_or_else(PoisonError::into_inner).insert(ordered[index]);
                }
                Ok::<_, CacheError>(got)
            },
            |index, got| {
                let path = ordered[index];
                match got {
                    Got::Left => {}
                    Got::Lost(error) => drop(lost.insert(path.clone(), error)),
                    Got::Restored(restored, offer) => {
                        // One that it names may have been lost while it was fetched.
                        let mut gone = gone.lock().unwrap_or_else(PoisonError::into_inner);
                        if offer.info.references.iter().any(|reference| gone.contains(reference)) {
                            gone.insert(path);
                        } else {
                            drop(gone);
                            brought.push(self.register(&offer, restored)?);
                        }
                    }
                }
                Ok(())
            },
        )?;
        Ok(unavailable)
    }

    /// Offers for all of `open`, and all that they name, that the store lacks; and what nobody has.
    fn offers(
        &self,
        mut open: BTreeSet<StorePath>,
    ) -> Result<(BTreeMap<StorePath, Offer>, BTreeSet<StorePath>), CacheError> {
        let (mut offers, mut nowhere) = (BTreeMap::new(), BTreeSet::new());
        while !open.is_empty() {
            let mut missing = Vec::new();
            for path in std::mem::take(&mut open) {
                // Held at once: it must be there when what names it is registered.
                match self.store.hold(&BTreeSet::from([path.clone()])) {
                    Err(StoreError::NotValid { .. }) => missing.push(path),
                    held => held?,
                }
            }
            made_in_order(
                missing.len(),
                self.parallel,
                |index| self.ask(&missing[index]),
                |index, offer: Option<Offer>| {
                    let path = missing[index].clone();
                    let Some(offer) = offer else {
                        nowhere.insert(path);
                        return Ok(());
                    };
                    open.extend(offer.info.references.iter().cloned());
                    offers.insert(path, offer);
                    Ok(())
                },
            )?;
            open.retain(|path| !offers.contains_key(path) && !nowhere.contains(path));
        }
        Ok((offers, nowhere))
    }

    fn nowhere(&self, path: &StorePath) -> CacheError {
        let (caches, silent) = self.caches.count();
        CacheError::Nowhere { path: path.clone(), caches, silent }
    }

    fn get(&self, offer: &Offer) -> Result<Got, CacheError> {
        let cache = self.caches.at(offer.cache);
        let path = &offer.info.path;
        let file = narinfo::file_name(path);
        if !self.caches.answers(offer.cache) {
            return Ok(Got::Lost(self.nowhere(path)));
        }
        say(self.events, Level::Note, format!("fetching {path} from {}", cache.shown()));
        let restore = || archive::restore(self.store, cache, &offer.info, &offer.trusted);
        // A connection that broke off says nothing of the next one.
        let error = match restore().or_else(|error| if error.is_break() { restore() } else { Err(error) }) {
            Ok(restored) => return Ok(Got::Restored(restored, Box::new(offer.clone()))),
            Err(CacheError::Store(error)) => return Err(error.into()),
            Err(error) => error,
        };
        if offer.source == Source::Memory {
            // What it said once may no longer be so: it is asked again.
            cache.forget(&file);
            let small = match cache.small(&file, narinfo::MOST_BYTES) {
                Ok(Some(small)) => small,
                Ok(None) => {
                    self.caches.lacks(offer.cache, &file);
                    return Ok(Got::Lost(error));
                }
                Err(error) if error.is_silence() => {
                    self.caches.is_silent(offer.cache, &error);
                    return Ok(Got::Lost(error));
                }
                Err(error) => return Err(error),
            };
            let fresh = self.offer(offer.cache, path, &small)?;
            if fresh.info.references != offer.info.references {
                return Ok(Got::Lost(error));
            }
            if fresh.info != offer.info {
                return self.get(&Offer { source: Source::Cache, ..fresh });
            }
        }
        if error.is_end() {
            self.caches.is_silent(offer.cache, &error);
            return Ok(Got::Lost(error));
        }
        if error.is_absence() {
            say(self.events, Level::Warning, format!("{path} was not fetched: {}", chain(&error)));
            self.caches.lacks(offer.cache, &file);
            return Ok(Got::Lost(error));
        }
        Err(error)
    }

    fn register(&self, offer: &Offer, restored: Restored) -> Result<PathInfo, CacheError> {
        let info = &offer.info;
        let signed_by = match &offer.trusted {
            Trusted::Signed(key) => Some(key.clone()),
            Trusted::Addressed => None,
        };
        let arrival = Arrival {
            path: info.path.clone(),
            references: info.references.clone(),
            deriver: info.deriver.clone(),
            ca: info.address.as_ref().map(ToString::to_string),
            signatures: info.signatures.iter().take(MOST_SIGNATURES).cloned().collect(),
            substituted: Some(Substituted { from: self.caches.at(offer.cache).public_address(), signed_by }),
        };
        Ok(self.store.register_restored(restored, arrival)?)
    }

    /// The bytes of those of `paths` that a cache has as single files of at most `limit` bytes: derivations, which are held
    /// against their paths by whoever reads them. Nothing enters the store.
    pub fn texts(&self, paths: &[StorePath], limit: u64) -> Result<BTreeMap<StorePath, Vec<u8>>, CacheError> {
        let mut texts = BTreeMap::new();
        made_in_order(
            paths.len(),
            self.parallel,
            |index| self.text(&paths[index], limit),
            |index, text: Option<Vec<u8>>| {
                texts.extend(text.map(|text| (paths[index].clone(), text)));
                Ok(())
            },
        )?;
        Ok(texts)
    }

    fn text(&self, path: &StorePath, limit: u64) -> Result<Option<Vec<u8>>, CacheError> {
        // As often as there may be another cache to ask.
        for _ in 0..self.caches.count().0 + 1 {
            let Some(offer) = self.ask(path)? else { return Ok(None) };
            let cache = self.caches.at(offer.cache);
            if offer.info.nar_size > limit {
                let file = narinfo::file_name(path);
                return Err(CacheError::TooLarge { cache: cache.shown().into(), file, limit });
            }
            if let Got::Restored(restored, _) = self.get(&offer)? {
                let place = restored.place();
                let read = match place.symlink_metadata() {
                    Ok(metadata) if metadata.is_file() => std::fs::read(place),
                    Ok(_) => Err(std::io::Error::other("expected a file")),
                    Err(error) => Err(error),
                };
                let failed = |source| CacheError::Io { act: "reading", path: place.to_owned(), source };
                return read.map(Some).map_err(failed);
            }
        }
        Ok(None)
    }
}
