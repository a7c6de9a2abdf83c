//! Evidence from somebody's server, as files for later: nothing that is fetched is believed, and all of it is bounded.
//!
//! Names are made here, from digests, indices and sizes; none is taken from the server. What is named by its digest has that digest
//! or is refused. Everything else is for `kiln verify` and `kiln tlog verify` to judge, which open no socket.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::path::Path;

use kiln_model::digest::Digest;
use kiln_model::envelope::{Envelope, EnvelopeId};
use kiln_model::format::bundle::{self, Bundle};
use kiln_model::key::{KeyId, PublicKey};
use kiln_model::log::tile::{Level, Tile};
use kiln_model::log::{Checkpoint, SignedNote, note, policy, proof};
use url::Url;

use super::derived::{Line, certified};
use super::error::{PublishError, of};
use super::layout;
use super::place::{NewFile, Place};
use crate::fetch::{Address, Refusal, Web, address};

/// Files that are written together.
const AT_ONCE: usize = 256;
/// Bytes of the largest file about a key.
const MOST_KEY_BYTES: usize = 64 << 10;
/// Bytes of the largest index of one artifact that is fetched.
const MOST_INDEX_BYTES: usize = 64 << 20;

/// What is to be fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wish {
    /// The whole log and all envelopes.
    Everything,
    /// What is known of these artifacts.
    About(BTreeSet<Digest>),
}

/// Where it must stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of all files.
    pub bytes: u64,
    /// Files.
    pub files: u64,
}

/// What was fetched.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pulled {
    /// Files.
    pub files: u64,
    /// Bytes.
    pub bytes: u64,
    /// Envelopes among them.
    pub envelopes: u64,
}

struct Pulling<'a, P> {
    web: &'a Web,
    base: Url,
    place: &'a P,
    limits: Limits,
    pulled: Cell<Pulled>,
    /// Whether statements by a key have certificates.
    certified: BTreeMap<KeyId, bool>,
    ready: Vec<NewFile>,
}

/// Fetches from the tree at `address` into `place`.
pub fn pull<P: Place>(
    web: &Web,
    address: &str,
    place: &P,
    wish: &Wish,
    limits: Limits,
) -> Result<Pulled, PublishError> {
    let Ok(Address::Web(base)) = Address::of(Path::new(address)) else {
        return Err(PublishError::Address { address: address::public(address) });
    };
    let mut pulling =
        Pulling { web, base, place, limits, pulled: Cell::default(), certified: BTreeMap::new(), ready: Vec::new() };
    match wish {
        Wish::Everything => pulling.everything()?,
        Wish::About(artifacts) => artifacts.iter().try_for_each(|artifact| pulling.about(*artifact))?,
    }
    pulling.optional(layout::VKEY, note::MOST_BYTES)?;
    pulling.optional(layout::POLICY, policy::MOST_BYTES)?;
    pulling.flush()?;
    Ok(pulling.pulled.get())
}

impl<P: Place> Pulling<'_, P> {
    fn everything(&mut self) -> Result<(), PublishError> {
        // First: what comes later can only be more than it asks for.
        let bytes = self.fetched(layout::CHECKPOINT, note::MOST_BYTES)?;
        let size = SignedNote::parse(&bytes)
            .and_then(|note| Checkpoint::parse(note.text()))
            .map_err(of(layout::CHECKPOINT))?
            .size;
        let levels = std::iter::once(Level::Entries).chain(Level::of_hashes(size));
        for tile in levels.flat_map(|level| level.tiles(size)) {
            self.tile(tile)?;
        }
        let mut keys = BTreeSet::new();
        for bundle in Level::Entries.tiles(size) {
            let name = layout::ids(bundle);
            let ids = self.fetched(&name, usize::from(bundle.width) * 32)?;
            for id in ids.as_chunks::<32>().0 {
                let envelope = self.envelope(EnvelopeId::new(Digest::from_bytes(*id)))?;
                keys.extend(envelope);
            }
            self.keep(name, ids)?;
        }
        keys.into_iter().try_for_each(|key| self.key(key))?;
        self.keep(layout::CHECKPOINT.into(), bytes)
    }

    fn about(&mut self, artifact: Digest) -> Result<(), PublishError> {
        let name = format!("{}/index.jsonl", layout::subject(artifact));
        let index = self.get(&name, MOST_INDEX_BYTES)?;
        let index = index.ok_or_else(|| PublishError::NothingFor { from: self.base.to_string(), artifact })?;
        let mut keys = BTreeSet::new();
        let lines = index.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice::<Line>(line).ok());
        for id in lines.map(|line| line.envelope).collect::<BTreeSet<_>>() {
            keys.extend(self.envelope(id)?);
            self.optional(&format!("{}/{id}.tlog-proof", layout::subject(artifact)), proof::MOST_BYTES)?;
        }
        keys.into_iter().try_for_each(|key| self.key(key))?;
        self.optional(layout::CHECKPOINT, note::MOST_BYTES)?;
        self.keep(name, index)
    }

    /// Keeps an envelope; the keys that it names.
    fn envelope(&mut self, id: EnvelopeId) -> Result<Vec<KeyId>, PublishError> {
        let name = layout::envelope(id);
        let bytes = self.fetched(&name, layout::MOST_ENVELOPE_BYTES)?;
        if Digest::of(&bytes) != id.digest() {
            return Err(PublishError::Disagree { file: name, other: "its name, which is its digest".into() });
        }
        let envelope = Envelope::parse(&bytes);
        let envelope = envelope.map_err(|source| PublishError::NoEvidence { file: name.clone(), source })?;
        let keys: Vec<KeyId> =
            envelope.signatures().iter().filter_map(|signature| signature.keyid.as_ref()?.parse().ok()).collect();
        let mut pulled = self.pulled.get();
        pulled.envelopes += 1;
        self.pulled.set(pulled);
        self.keep(name, bytes)?;
        self.certificates(id, &envelope, &keys)?;
        Ok(keys)
    }

    /// Keeps the certificates of the key that signed an envelope, if it has some, and the proof that says when they were to hold.
    fn certificates(&mut self, id: EnvelopeId, envelope: &Envelope, keys: &[KeyId]) -> Result<(), PublishError> {
        for key in keys {
            if !self.is_certified(*key)? {
                continue;
            }
            let name = layout::certified(id);
            let Some(bytes) = self.get(&name, bundle::LIMITS.bytes)? else { continue };
            let svid = Bundle::parse(&bytes).ok().and_then(|bundle| bundle.svid);
            if svid.and_then(|svid| certified(id, envelope, &svid).ok()).is_none_or(|expected| expected != bytes) {
                return Err(PublishError::Disagree { file: name, other: layout::envelope(id) });
            }
            self.keep(name, bytes)?;
            self.optional(&layout::certified_proof(id), proof::MOST_BYTES)?;
        }
        Ok(())
    }

    /// Whether statements by this key have certificates.
    fn is_certified(&mut self, key: KeyId) -> Result<bool, PublishError> {
        if let Some(known) = self.certified.get(&key) {
            return Ok(*known);
        }
        let name = layout::certified_key(key);
        // What some servers say of everything that they lack is none.
        let marker = self.get(&name, MOST_KEY_BYTES)?.filter(|bytes| bytes == layout::CERTIFIED_KEY.as_bytes());
        self.certified.insert(key, marker.is_some());
        match marker {
            Some(bytes) => self.keep(name, bytes).map(|()| true),
            None => Ok(false),
        }
    }

    /// A key is named by its digest, too. One that is not there has to come from elsewhere, as all that are trusted should.
    fn key(&mut self, id: KeyId) -> Result<(), PublishError> {
        let name = layout::key(id);
        let Some(bytes) = self.get(&name, MOST_KEY_BYTES)? else { return Ok(()) };
        let key = std::str::from_utf8(&bytes).ok().and_then(|text| PublicKey::from_pem(text).ok());
        match key.is_some_and(|key| key.id() == id) {
            true => self.keep(name, bytes),
            false => Err(PublishError::Disagree { file: name, other: "its name, which is its digest".into() }),
        }
    }

    fn tile(&mut self, tile: Tile) -> Result<(), PublishError> {
        let name = tile.to_string();
        if let Some(bytes) = self.get(&name, tile.most_bytes())? {
            return self.keep(name, bytes);
        }
        // A log may have dropped the partial tile for the full one.
        let full = tile.full();
        let bytes = self.fetched(&full.to_string(), full.most_bytes())?;
        self.keep(full.to_string(), bytes)
    }

    fn optional(&mut self, name: &str, limit: usize) -> Result<(), PublishError> {
        match self.get(name, limit)? {
            Some(bytes) => self.keep(name.into(), bytes),
            None => Ok(()),
        }
    }

    fn fetched(&self, name: &str, limit: usize) -> Result<Vec<u8>, PublishError> {
        self.get(name, limit)?.ok_or_else(|| PublishError::Missing { file: format!("{}{name}", self.base) })
    }

    fn get(&self, name: &str, limit: usize) -> Result<Option<Vec<u8>>, PublishError> {
        let wrong = |source| PublishError::Unreachable { from: self.base.to_string(), file: name.into(), source };
        let mut pulled = self.pulled.get();
        if pulled.files >= self.limits.files {
            return Err(PublishError::TooMany { from: self.base.to_string(), limit: self.limits.files });
        }
        let limit = (limit as u64).min(self.limits.bytes - pulled.bytes);
        let url = self.base.join(name).map_err(|_| PublishError::Address { address: name.into() })?;
        let Some(mut stream) = self.web.get(&url).map_err(wrong)? else { return Ok(None) };
        let mut bytes = Vec::new();
        (&mut stream)
            .take(limit + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| wrong(Refusal::Unreadable(error.to_string())))?;
        if bytes.len() as u64 > limit {
            return Err(PublishError::TooLarge { file: url.into(), limit });
        }
        pulled.files += 1;
        pulled.bytes += bytes.len() as u64;
        self.pulled.set(pulled);
        Ok(Some(bytes))
    }

    fn keep(&mut self, name: String, bytes: Vec<u8>) -> Result<(), PublishError> {
        self.ready.push(NewFile { name, bytes });
        if self.ready.len() >= AT_ONCE { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), PublishError> {
        self.place.write_over(&std::mem::take(&mut self.ready))
    }
}
