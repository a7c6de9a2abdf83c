//! A tree of evidence, read again: nothing of it is believed but what leads to a checkpoint that a policy believes.
//!
//! [`inspect`] looks at all of it: each tile against the one below, each entry's envelope against its name, the leaf and its signature,
//! each partial tile of former sizes against what it became. [`walk`] looks at the entries that are newer than what somebody has seen.
//! What is wrong is an error; what is missing is told, because storage can withhold and not prove that it has not.

use std::collections::BTreeSet;

use kiln_model::digest::Digest;
use kiln_model::envelope::EnvelopeId;
use kiln_model::log::note::MOST_BYTES as MOST_NOTE_BYTES;
use kiln_model::log::tile::{self, Level, Tile};
use kiln_model::log::tree::{self, Growth, Tree};
use kiln_model::log::{Believed, Checkpoint, LogError, LogPolicy, Proof, SignedNote, consistent};
use kiln_model::statement::{Predicate, Statement};

use super::derived::Item;
use super::error::{PublishError, of};
use super::layout;
use super::place::{Directory, Place};
use super::writer::{ids, tile_bytes};
use crate::parallel;

/// A whole tree.
#[derive(Debug, Clone)]
pub struct Inspected {
    /// What the log signed, and who cosigned it.
    pub believed: Believed,
    /// The signed note.
    pub note: SignedNote,
    /// How many files of the tree were compared: tiles, bundles, former ones.
    pub tiles: u64,
    /// Envelopes that are there, and are what was logged.
    pub envelopes: u64,
    /// Entries whose envelopes are not there.
    pub withheld: Vec<u64>,
    /// Envelopes that are there and were not logged.
    pub unlogged: Vec<EnvelopeId>,
}

/// An entry of a log that somebody walks.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Which.
    pub index: u64,
    /// Its envelope's id, if the tree says one.
    pub id: Option<EnvelopeId>,
    /// What was signed; none if the envelope is not there.
    pub statement: Option<Statement>,
}

impl Seen {
    /// The result of a comparison, if it is one.
    pub fn result(&self) -> Option<&'static str> {
        match &self.statement.as_ref()?.predicate {
            Predicate::Comparison(comparison) => Some(comparison.result.as_str()),
            Predicate::Provenance(_) | Predicate::Summary(_) | Predicate::Other { .. } => None,
        }
    }
}

/// The checkpoint of a tree.
fn checkpoint<P: Place>(place: &P) -> Result<SignedNote, PublishError> {
    let file = format!("{}/{}", place.shown(), layout::CHECKPOINT);
    let bytes = place.read(layout::CHECKPOINT, MOST_NOTE_BYTES)?;
    let bytes = bytes.ok_or_else(|| PublishError::Missing { file: file.clone() })?;
    SignedNote::parse(&bytes).map_err(of(file))
}

/// Reads all of a tree whose log `policy` believes.
pub fn inspect(place: &Directory, policy: &LogPolicy) -> Result<Inspected, PublishError> {
    let note = checkpoint(place)?;
    let believed = policy.believe(&note).map_err(of(format!("{}/{}", place.shown(), layout::CHECKPOINT)))?;
    let size = believed.checkpoint.size;
    let mut tiles = 0;
    let mut compared = |tile: Tile, bytes: Vec<u8>| -> Result<(), PublishError> {
        tiles += 1;
        match tile_bytes(place, tile)? == bytes {
            true => Ok(()),
            false => Err(PublishError::Disagree { file: tile.to_string(), other: "the entries".into() }),
        }
    };
    // The log, grown again from its entries.
    let mut growth = Growth::of(0, |_| Err::<Vec<u8>, _>(PublishError::from(LogError::Beyond { size: 0 })))?;
    let (mut withheld, mut envelopes, mut logged) = (Vec::new(), 0, BTreeSet::new());
    for bundle in Level::Entries.tiles(size) {
        let bytes = tile_bytes(place, bundle)?;
        let entries = tile::entries(bundle, &bytes).map_err(of(bundle.to_string()))?;
        for entry in &entries {
            growth.push(entry, &mut compared)?;
        }
        for seen in seen(place, bundle, &entries)? {
            logged.extend(seen.id);
            match seen.statement.is_some() {
                true => envelopes += 1,
                false => withheld.push(seen.index),
            }
        }
    }
    growth.partial().try_for_each(|(tile, bytes)| compared(tile, bytes))?;
    let root = match size {
        0 => tree::empty_root(),
        size => Tree::new(size, |tile| tile_bytes(place, tile)).root()?,
    };
    if root != believed.checkpoint.root {
        return Err(PublishError::Disagree { file: "the tiles".into(), other: layout::CHECKPOINT.into() });
    }
    tiles += former(place, size)?;
    Ok(Inspected { believed, note, tiles, envelopes, withheld, unlogged: unlogged(place, &logged)? })
}

/// Partial tiles of former sizes are what their successors begin with. How many there are.
fn former(place: &Directory, size: u64) -> Result<u64, PublishError> {
    let mut count = 0;
    for name in place.files("tile")? {
        let tile: Tile = name.parse().map_err(of(name.clone()))?;
        let Some(whole) = tile.level.tile(tile.index, size).filter(|whole| whole.width >= tile.width) else {
            // Of a batch whose checkpoint is not there yet: no reader has a reason to ask for it.
            continue;
        };
        if whole.width == tile.width {
            continue;
        }
        let bytes = tile_bytes(place, whole)?;
        let expected = match tile.level {
            Level::Entries => tile::bundle_prefix(tile, &bytes).map_err(of(name.clone()))?,
            Level::Hashes(_) => &bytes[..tile.most_bytes().min(bytes.len())],
        };
        if place.read(&name, tile.most_bytes())?.as_deref() != Some(expected) {
            return Err(PublishError::Disagree { file: name, other: whole.to_string() });
        }
        count += 1;
    }
    Ok(count)
}

/// Envelopes that are no entry's; each is named by its digest.
fn unlogged(place: &Directory, logged: &BTreeSet<EnvelopeId>) -> Result<Vec<EnvelopeId>, PublishError> {
    let mut others = Vec::new();
    for name in place.files("att/sha256")? {
        let id = name.rsplit('/').next().and_then(|file| file.strip_suffix(".json")?.parse::<EnvelopeId>().ok());
        let Some(id) = id.filter(|id| layout::envelope(*id) == name) else {
            return Err(PublishError::Disagree { file: name, other: "how envelopes are named".into() });
        };
        if logged.contains(&id) {
            continue;
        }
        if place.read(&name, layout::MOST_ENVELOPE_BYTES)?.map(Digest::of) != Some(id.digest()) {
            return Err(PublishError::Disagree { file: name, other: "its name, which is its digest".into() });
        }
        others.push(id);
    }
    Ok(others)
}

/// The entries of a bundle with what was signed.
fn seen<P: Place + Sync>(place: &P, bundle: Tile, entries: &[&[u8]]) -> Result<Vec<Seen>, PublishError> {
    let ids = match ids(place, bundle) {
        Ok(ids) => ids.into_iter().map(Some).collect(),
        // A log of somebody else's, or storage that withholds them.
        Err(PublishError::Missing { .. }) => vec![None; entries.len()],
        Err(error) => return Err(error),
    };
    let work: Vec<(u64, Option<EnvelopeId>, &[u8])> =
        (bundle.index * tile::WIDTH..).zip(ids).zip(entries).map(|((index, id), entry)| (index, id, *entry)).collect();
    let seen = parallel::map(&work, |(index, id, entry)| {
        let bytes = match id {
            Some(id) => place.read(&layout::envelope(*id), layout::MOST_ENVELOPE_BYTES)?,
            None => None,
        };
        let statement = match (id, bytes) {
            (Some(id), Some(bytes)) => {
                let item = Item::checked(*index, *id, entry.to_vec(), &bytes)?;
                let file = layout::envelope(*id);
                // Item::checked has verified these bytes.
                Some(
                    Statement::parse(item.envelope.payload())
                        .map_err(|source| PublishError::Statement { file, source })?,
                )
            }
            _ => None,
        };
        Ok(Seen { index: *index, id: *id, statement })
    });
    seen.into_iter().collect()
}

/// Calls `tell` with each entry that is newer than `pinned`. The log extends what was pinned, and every entry is of its tree.
pub fn walk<P: Place + Sync>(
    place: &P,
    policy: &LogPolicy,
    pinned: Option<&Checkpoint>,
    mut tell: impl FnMut(Seen),
) -> Result<(Believed, SignedNote), PublishError> {
    let note = checkpoint(place)?;
    let believed = policy.believe(&note).map_err(of(format!("{}/{}", place.shown(), layout::CHECKPOINT)))?;
    let now = &believed.checkpoint;
    let old = match pinned {
        Some(pinned) if pinned.origin != now.origin => {
            let source = LogError::UnknownLog { origin: now.origin.clone(), known: vec![pinned.origin.clone()] };
            return Err(PublishError::Log { file: layout::CHECKPOINT.into(), source });
        }
        Some(pinned) => (pinned.size, pinned.root),
        None => (0, tree::empty_root()),
    };
    let mut tree = Tree::new(now.size, |tile| tile_bytes(place, tile));
    let proof = if old.0 <= now.size { tree.consistency(old.0)? } else { Vec::new() };
    consistent(old, (now.size, now.root), &proof).map_err(of(layout::CHECKPOINT))?;
    if tree.root()? != now.root {
        return Err(PublishError::Disagree { file: "the tiles".into(), other: layout::CHECKPOINT.into() });
    }
    for index in old.0 / tile::WIDTH..now.size.div_ceil(tile::WIDTH) {
        let bundle = Level::Entries.tile(index, now.size).expect("it is of the tree");
        let bytes = tile_bytes(place, bundle)?;
        let entries = tile::entries(bundle, &bytes).map_err(of(bundle.to_string()))?;
        for (entry, at) in entries.iter().zip(index * tile::WIDTH..) {
            let leaf = tree::leaf_hash(entry);
            // The tile of the leaf is not on the way to the root that was computed: its own proof is.
            kiln_model::log::included(at, now.size, leaf, now.root, &tree.inclusion(at)?)
                .map_err(of(bundle.to_string()))?;
        }
        seen(place, bundle, &entries)?.into_iter().filter(|seen| seen.index >= old.0).for_each(&mut tell);
    }
    Ok((believed, note))
}

/// The proof of one entry of a tree, by index or by its envelope, under the tree's checkpoint. Whoever reads it checks it.
pub fn proof_of<P: Place + Sync>(place: &P, wanted: Result<u64, EnvelopeId>) -> Result<Proof, PublishError> {
    let note = checkpoint(place)?;
    let size = Checkpoint::parse(note.text()).map_err(of(layout::CHECKPOINT))?.size;
    let index = match wanted {
        Ok(index) => index,
        Err(id) => {
            let mut found = None;
            for bundle in Level::Entries.tiles(size) {
                let place = ids(place, bundle)?.iter().position(|other| *other == id);
                found = found.or(place.map(|place| bundle.index * tile::WIDTH + place as u64));
            }
            found.ok_or_else(|| PublishError::Missing { file: format!("{} in the log", layout::envelope(id)) })?
        }
    };
    let hashes = Tree::new(size, |tile| tile_bytes(place, tile)).inclusion(index)?;
    Ok(Proof { index, hashes, checkpoint: note })
}
