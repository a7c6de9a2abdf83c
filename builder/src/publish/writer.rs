//! The one who appends to a log, in the order of writes that no crash breaks.
//!
//! 1. Lock; the tree is at what was signed last, or one batch before.
//! 2. The batch into the journal. Where no lock keeps others away, who goes on from here is said under a name that never changes:
//!    of two writers who have the same key and the same state, one stops before it has written or signed anything.
//! 3. Envelopes, entries, hashes, under names that never change.
//! 4. The root, from what is read back; it extends what was signed last.
//! 5. Signed, and the signature kept.
//! 6. The checkpoint in place: now readers see the batch.
//! 7. What can be made again; the journal is forgotten.
//!
//! Whoever begins after a crash does the batch of the journal again, with the same bytes, before anything else.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use kiln_model::digest::Digest;
use kiln_model::envelope::EnvelopeId;
use kiln_model::log::note::MOST_BYTES as MOST_NOTE_BYTES;
use kiln_model::log::tile::{self, Level, Tile};
use kiln_model::log::tree::{self, Growth, Tree};
use kiln_model::log::{
    Checkpoint, Entry, LogError, LogPolicy, NoteKind, NoteSignature, NoteSigner, SignedNote, Vkey, check_origin,
    witness,
};

use super::batch::Batch;
use super::derived::{self, Certificate, Item};
use super::error::{PublishError, of};
use super::journal::Journal;
use super::layout;
use super::place::{NewFile, Place};
use super::state::State;
use crate::parallel;

/// Entries whose proofs are made at once when they are made again.
const DERIVED_AT_ONCE: u64 = 4096;

/// Appends to the log of one origin.
pub struct LogWriter<'p, P> {
    place: &'p P,
    state: State,
    signer: NoteSigner,
    witnesses: Vec<Vkey>,
    signed: Option<(Checkpoint, SignedNote)>,
    /// The checkpoint of the tree as this writer last saw or wrote it. Only that is replaced: what another put there since was not
    /// held against the state.
    published: Option<Vec<u8>>,
    /// The ids of all entries, once they were asked for.
    known: Option<BTreeSet<EnvelopeId>>,
}

/// What came of a batch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Appended {
    /// Entries that are new.
    pub added: u64,
    /// Envelopes that were logged before.
    pub kept: u64,
}

impl<'p, P: Place + Sync> LogWriter<'p, P> {
    /// Opens the log whose key is `signer` in `place`, and does again what a crash has interrupted. Waits for another writer that
    /// has the same state. `witnesses` are those whose cosignatures are taken and proposed to readers.
    pub fn open(place: &'p P, state: &Path, signer: NoteSigner, witnesses: Vec<Vkey>) -> Result<Self, PublishError> {
        check_origin(signer.vkey().name()).map_err(of("the name of the log"))?;
        if signer.vkey().kind() != NoteKind::Log || witnesses.iter().any(|witness| witness.kind() != NoteKind::Witness)
        {
            let vkey = signer.vkey().to_string();
            let source = LogError::Vkey {
                vkey,
                expected: "a log's key (0x01) for the log, witnesses' keys (0x04) for witnesses",
            };
            return Err(PublishError::Log { file: "the keys".into(), source });
        }
        let state = State::open(state)?;
        let signed = state.signed(signer.vkey())?;
        let mut writer = Self { place, state, signer, witnesses, signed, published: None, known: None };
        let journal = writer.state.journal()?;
        writer.check(journal.as_ref())?;
        match journal {
            Some(journal) => writer.carry_out(&journal)?,
            None => writer.settle()?,
        }
        Ok(writer)
    }

    /// How many entries the log has.
    pub fn size(&self) -> u64 {
        self.signed.as_ref().map_or(0, |(checkpoint, _)| checkpoint.size)
    }

    /// What was signed last, with the cosignatures that are known.
    pub fn checkpoint(&self) -> Option<&SignedNote> {
        self.signed.as_ref().map(|(_, note)| note)
    }

    /// The log's public key.
    pub fn vkey(&self) -> &Vkey {
        self.signer.vkey()
    }

    fn base(&self) -> (u64, Digest) {
        self.signed.as_ref().map_or((0, tree::empty_root()), |(checkpoint, _)| (checkpoint.size, checkpoint.root))
    }

    /// The tree is at what was signed last, or at what that was made from by the batch in the journal.
    fn check(&mut self, journal: Option<&Journal>) -> Result<(), PublishError> {
        let base = self.base();
        if let Some(journal) = journal
            && journal.base != base
            && journal.size() != base.0
        {
            let path = self.state.path().join("journal");
            return Err(PublishError::State {
                path,
                what: format!("it begins at {} entries, {} were signed", journal.base.0, base.0),
            });
        }
        self.published = self.place.read(layout::CHECKPOINT, MOST_NOTE_BYTES)?;
        let found = match &self.published {
            None => None,
            Some(bytes) => {
                let note = SignedNote::parse(bytes).and_then(|note| witness::signed_by(self.vkey(), &note));
                let checkpoint = note.map_err(of(format!("{}/{}", self.place.shown(), layout::CHECKPOINT)))?;
                Some((checkpoint.size, checkpoint.root))
            }
        };
        let before = journal.filter(|journal| journal.is_from_nothing() && found.is_none()).is_some();
        let agrees = match found {
            Some(found) => {
                found == base || journal.is_some_and(|journal| journal.base == found && !journal.is_from_nothing())
            }
            None => self.signed.is_none() || before,
        };
        if agrees {
            return Ok(());
        }
        let at = |at: Option<(u64, Digest)>| {
            at.map_or("nothing".into(), |(size, root)| format!("{size} entries, root {root}"))
        };
        Err(PublishError::Unknown {
            tree: self.place.shown(),
            found: at(found),
            signed: at(self.signed.as_ref().map(|_| base)),
            state: self.state.path().into(),
        })
    }

    /// Appends what of a batch is not logged yet. On return readers see it.
    pub fn append(&mut self, batch: Batch) -> Result<Appended, PublishError> {
        let ids = parallel::map(&batch.envelopes, |signed| signed.envelope.id());
        self.know(&ids)?;
        let mut appended = Appended::default();
        let mut new = BTreeSet::new();
        let mut journal = Journal { base: self.base(), batch: Vec::new(), certificates: BTreeMap::new() };
        for (signed, id) in batch.envelopes.into_iter().zip(ids) {
            if new.contains(&id) || self.known.as_ref().is_some_and(|known| known.contains(&id)) {
                appended.kept += 1;
            } else {
                // What does not fit into a log is refused before anything is written.
                Entry::of(&signed.envelope, &signed.key).map_err(of(layout::envelope(id)))?;
                if let Some((file, source)) = signed.refused {
                    return Err(PublishError::Certificate { file, source });
                }
                journal.certificates.extend(signed.svid.map(|svid| (id, svid)));
                new.insert(id);
                journal.batch.push((signed.envelope, signed.key));
            }
        }
        if !journal.batch.is_empty() {
            appended.added = journal.batch.len() as u64;
            self.state.begin(&journal)?;
            self.carry_out(&journal)?;
            if let Some(known) = &mut self.known {
                known.extend(new);
            }
        }
        Ok(appended)
    }

    /// Learns what is logged, if any of `ids` may be. A file alone shows nothing: anybody who can write may have put it there.
    fn know(&mut self, ids: &[EnvelopeId]) -> Result<(), PublishError> {
        if self.known.is_some() || self.size() == 0 {
            return Ok(());
        }
        let place = self.place;
        let absent = parallel::try_map(place.at_once(), ids, |id| {
            match place.read(&layout::envelope(*id), layout::MOST_ENVELOPE_BYTES) {
                Ok(None) => Ok(()),
                Ok(Some(_)) => Err(None),
                Err(error) => Err(Some(error)),
            }
        });
        match absent {
            Ok(_) => return Ok(()),
            Err(Some(error)) => return Err(error),
            Err(None) => {}
        }
        let bundles: Vec<Tile> = Level::Entries.tiles(self.size()).collect();
        let known = parallel::try_map(place.at_once(), &bundles, |bundle| self::ids(place, *bundle))?;
        self.known = Some(known.into_iter().flatten().collect());
        Ok(())
    }

    /// Steps 3 to 7, and the claim before them.
    fn carry_out(&mut self, journal: &Journal) -> Result<(), PublishError> {
        let entries = parallel::map(&journal.batch, |(envelope, key)| {
            let id = envelope.id();
            Entry::of(envelope, key).map(|entry| (id, entry)).map_err(of(layout::envelope(id)))
        });
        let entries = entries.into_iter().collect::<Result<Vec<_>, _>>()?;
        if self.place.is_shared() {
            self.claim(journal, &entries)?;
        }
        self.write(journal, &entries)?;
        self.publish(journal, &entries)?;
        self.derive_batch(journal, &entries)?;
        self.state.end()
    }

    /// The end of step 2.
    fn claim(&self, journal: &Journal, entries: &[(EnvelopeId, Entry)]) -> Result<(), PublishError> {
        let bytes: Vec<u8> = entries
            .iter()
            .flat_map(|(id, entry)| [*id.digest().as_bytes(), *tree::leaf_hash(entry.as_bytes()).as_bytes()])
            .flatten()
            .collect();
        let (name, text) = (layout::claim(journal.base.0), format!("{} {}\n", journal.size(), Digest::of(bytes)));
        let claimed = self.place.write_new(&[NewFile { name: name.clone(), bytes: text.into_bytes() }]);
        claimed.map_err(|error| match error {
            PublishError::Changed { .. } => PublishError::Claimed {
                tree: self.place.shown(),
                file: name,
                size: journal.base.0,
                state: self.state.path().into(),
            },
            error => error,
        })
    }

    /// Step 3.
    fn write(&self, journal: &Journal, entries: &[(EnvelopeId, Entry)]) -> Result<(), PublishError> {
        let mut files: Vec<NewFile> = parallel::map(&journal.batch, |(envelope, _)| envelope.canonical())
            .into_iter()
            .zip(entries)
            .map(|(bytes, (id, _))| NewFile { name: layout::envelope(*id), bytes })
            .collect();
        let mut keys = BTreeSet::new();
        for ((envelope, key), (id, _)) in journal.batch.iter().zip(entries) {
            let svid = journal.certificates.get(id);
            if let Some(svid) = svid {
                files.push(NewFile { name: layout::certified(*id), bytes: derived::certified(*id, envelope, svid)? });
            }
            if keys.insert(key.id()) {
                // A key that a certificate names is not one that is known by itself.
                files.push(match svid {
                    Some(_) => NewFile { name: layout::certified_key(key.id()), bytes: layout::CERTIFIED_KEY.into() },
                    None => NewFile { name: layout::key(key.id()), bytes: key.to_pem().into_bytes() },
                });
            }
        }
        files.push(NewFile { name: layout::VKEY.into(), bytes: format!("{}\n", self.vkey()).into_bytes() });

        let mut growth = Growth::of(journal.base.0, |tile| tile_bytes(self.place, tile))?;
        for (_, entry) in entries {
            growth.push(entry.as_bytes(), |tile, bytes| {
                files.push(NewFile { name: tile.to_string(), bytes });
                Ok::<_, PublishError>(())
            })?;
        }
        files.extend(growth.partial().map(|(tile, bytes)| NewFile { name: tile.to_string(), bytes }));
        files.extend(self.id_files(journal, entries)?);
        self.place.write_new(&files)
    }

    /// The ids of the entries, in the form of tiles.
    fn id_files(&self, journal: &Journal, entries: &[(EnvelopeId, Entry)]) -> Result<Vec<NewFile>, PublishError> {
        let (base, size) = (journal.base.0, journal.size());
        let first = base / tile::WIDTH;
        let mut all: Vec<EnvelopeId> = match Level::Entries.tile(first, base) {
            Some(bundle) => ids(self.place, bundle)?,
            None => Vec::new(),
        };
        all.extend(entries.iter().map(|(id, _)| *id));
        let files = all.chunks(tile::WIDTH as usize).zip(first..).filter_map(|(ids, index)| {
            let bundle = Level::Entries.tile(index, size)?;
            let bytes = ids.iter().flat_map(|id| *id.digest().as_bytes()).collect();
            Some(NewFile { name: layout::ids(bundle), bytes })
        });
        Ok(files.collect())
    }

    /// Steps 4 to 6.
    fn publish(&mut self, journal: &Journal, entries: &[(EnvelopeId, Entry)]) -> Result<(), PublishError> {
        let checkpoint = self.read_back(journal, entries)?;
        if self.signed.as_ref().is_none_or(|(signed, _)| signed.size < checkpoint.size) {
            let note = checkpoint.sign(&self.signer).map_err(of(layout::CHECKPOINT))?;
            self.state.sign(&note)?;
            self.signed = Some((checkpoint, note));
        } else if self.base() != (checkpoint.size, checkpoint.root) {
            // The crash was after step 5, and the files lead to another root now.
            return Err(forked(layout::CHECKPOINT, checkpoint.size));
        }
        let policy = NewFile { name: layout::POLICY.into(), bytes: self.policy().into_bytes() };
        self.place.write_over(&[policy])?;
        self.replace_checkpoint()
    }

    fn replace_checkpoint(&mut self) -> Result<(), PublishError> {
        let note = self.checkpoint().expect("something was signed").print();
        let file = NewFile { name: layout::CHECKPOINT.into(), bytes: note.into_bytes() };
        if self.published.as_ref() != Some(&file.bytes) {
            self.place.replace(&file, self.published.as_deref())?;
            self.published = Some(file.bytes);
        }
        Ok(())
    }

    /// Step 4: the files as they are now lead to a root that extends what the batch began from.
    fn read_back(&self, journal: &Journal, entries: &[(EnvelopeId, Entry)]) -> Result<Checkpoint, PublishError> {
        let (base, size) = (journal.base, journal.size());
        let mut tree = Tree::new(size, |tile| tile_bytes(self.place, tile));
        if tree.root_at(base.0)? != base.1 {
            return Err(forked(layout::CHECKPOINT, base.0));
        }
        for index in base.0 / tile::WIDTH..size.div_ceil(tile::WIDTH) {
            let bundle = Level::Entries.tile(index, size).expect("it is of the tree");
            let bytes = tile_bytes(self.place, bundle)?;
            for (entry, at) in tile::entries(bundle, &bytes)?.into_iter().zip(index * tile::WIDTH..) {
                let ours =
                    at.checked_sub(base.0).map(|at| entries[usize::try_from(at).expect("of the batch")].1.as_bytes());
                if tree.leaf(at)? != tree::leaf_hash(entry) || ours.is_some_and(|ours| ours != entry) {
                    return Err(PublishError::Disagree {
                        file: bundle.to_string(),
                        other: "the hashes of its entries".into(),
                    });
                }
            }
        }
        Ok(Checkpoint { origin: self.vkey().name().into(), size, root: tree.root()? })
    }

    /// What readers are proposed to believe: the log, and more than half of its witnesses.
    fn policy(&self) -> String {
        let mut text = format!("log {}\n", self.vkey());
        let names: Vec<String> = (1..=self.witnesses.len()).map(|number| format!("w{number}")).collect();
        for (name, witness) in names.iter().zip(&self.witnesses) {
            text.push_str(&format!("witness {name} {witness}\n"));
        }
        match names.len() {
            0 => text.push_str("quorum none\n"),
            count => {
                text.push_str(&format!("group witnesses {} {}\nquorum witnesses\n", count / 2 + 1, names.join(" ")))
            }
        }
        text
    }

    /// Takes cosignatures of what was signed last, and publishes them with all proofs that have none yet. How many were new.
    pub fn cosigned(&mut self, signatures: &[NoteSignature]) -> Result<usize, PublishError> {
        let Some((checkpoint, old)) = self.signed.clone() else { return Ok(0) };
        let mut note = old.clone();
        for signature in signatures {
            let mut alone = SignedNote::new(note.text().into()).map_err(of(layout::CHECKPOINT))?;
            alone.add(signature.clone());
            // What no witness of ours made, or made of another checkpoint, is not published.
            for witness in &self.witnesses {
                if !witness::times(witness, &alone).map_err(of("a cosignature"))?.is_empty() {
                    note.add(signature.clone());
                }
            }
        }
        let new = note.signatures().iter().filter(|signature| !old.signatures().contains(signature)).count();
        if new > 0 {
            self.state.sign(&note)?;
            self.signed = Some((checkpoint, note));
            self.settle()?;
        }
        Ok(new)
    }

    /// Publishes what was signed, if readers see fewer signatures, and proofs with all that they were waiting for.
    fn settle(&mut self) -> Result<(), PublishError> {
        if self.signed.is_none() {
            return Ok(());
        }
        self.replace_checkpoint()?;
        let Some((checkpoint, note)) = &self.signed else { return Ok(()) };
        let proved = self.state.proved()?;
        if proved < checkpoint.size && note.signatures().len() > 1 {
            self.derive_from(proved)?;
            let policy = LogPolicy::parse(&self.policy()).map_err(of(layout::POLICY))?;
            if policy.believe(note).is_ok() {
                self.state.prove(checkpoint.size)?;
            }
        }
        Ok(())
    }

    /// Makes again what can be made again: proofs, bundles, indexes.
    pub fn derive(&self) -> Result<(), PublishError> {
        self.derive_from(0)
    }

    fn derive_from(&self, first: u64) -> Result<(), PublishError> {
        let Some((checkpoint, note)) = &self.signed else { return Ok(()) };
        let mut tree = Tree::new(checkpoint.size, |tile| tile_bytes(self.place, tile));
        let policy = LogPolicy::parse(&self.policy()).map_err(of(layout::POLICY))?;
        let mut next = first;
        while next < checkpoint.size {
            let end = checkpoint.size.min(next + DERIVED_AT_ONCE);
            let mut items = items(self.place, checkpoint.size, next..end)?;
            derived::certify(self.place, &policy, &mut items)?;
            derived::write(self.place, &mut tree, self.vkey(), note, items)?;
            next = end;
        }
        Ok(())
    }

    /// Step 7.
    fn derive_batch(&self, journal: &Journal, entries: &[(EnvelopeId, Entry)]) -> Result<(), PublishError> {
        let (checkpoint, note) = self.signed.as_ref().expect("it was just signed");
        let mut tree = Tree::new(checkpoint.size, |tile| tile_bytes(self.place, tile));
        let items =
            journal.batch.iter().zip(entries).zip(journal.base.0..).map(|(((envelope, key), (id, entry)), index)| {
                let certificate =
                    journal.certificates.get(id).map(|svid| Certificate { svid: svid.clone(), seen: None });
                Item { index, id: *id, entry: entry.clone(), envelope: envelope.clone(), key: key.clone(), certificate }
            });
        derived::write(self.place, &mut tree, self.vkey(), note, items.collect())?;
        match self.witnesses.is_empty() {
            true => self.state.prove(checkpoint.size),
            false => Ok(()),
        }
    }
}

fn forked(file: &str, size: u64) -> PublishError {
    PublishError::Log { file: file.into(), source: LogError::Forked { size } }
}

impl From<LogError> for PublishError {
    fn from(source: LogError) -> Self {
        Self::Log { file: "the log".into(), source }
    }
}

/// The bytes of a tile, or the first of those of the full one at its place.
pub(super) fn tile_bytes<P: Place>(place: &P, tile: Tile) -> Result<Vec<u8>, PublishError> {
    if let Some(bytes) = place.read(&tile.to_string(), tile.most_bytes())? {
        return Ok(bytes);
    }
    let full = tile.full();
    let bytes = match tile.is_full() {
        true => None,
        false => place.read(&full.to_string(), full.most_bytes())?,
    };
    let bytes = bytes.ok_or_else(|| PublishError::Missing { file: format!("{}/{tile}", place.shown()) })?;
    let part = match tile.level {
        Level::Entries => tile::bundle_prefix(tile, &bytes).map_err(of(full.to_string()))?,
        Level::Hashes(_) => bytes.get(..tile.most_bytes()).ok_or(LogError::TileLength { tile, bytes: bytes.len() })?,
    };
    Ok(part.into())
}

/// The ids of the envelopes of a bundle's entries.
pub(super) fn ids<P: Place>(place: &P, bundle: Tile) -> Result<Vec<EnvelopeId>, PublishError> {
    let name = layout::ids(bundle);
    let most = usize::from(bundle.width) * 32;
    let mut bytes = place.read(&name, most)?;
    if bytes.is_none() && !bundle.is_full() {
        bytes = place.read(&layout::ids(bundle.full()), tile::WIDTH as usize * 32)?;
    }
    let bytes = bytes.ok_or_else(|| PublishError::Missing { file: format!("{}/{name}", place.shown()) })?;
    let part = bytes.get(..most).ok_or(PublishError::Disagree { file: name, other: "the log's size".into() })?;
    let ids = part.as_chunks::<32>().0.iter();
    Ok(ids.map(|id| EnvelopeId::new(Digest::from_bytes(*id))).collect())
}

/// Entries with their envelopes, read from the tree.
pub(super) fn items<P: Place + Sync>(
    place: &P,
    size: u64,
    range: std::ops::Range<u64>,
) -> Result<Vec<Item>, PublishError> {
    let mut found = Vec::new();
    for index in range.start / tile::WIDTH..range.end.div_ceil(tile::WIDTH) {
        let bundle = Level::Entries.tile(index, size).ok_or(LogError::Beyond { size })?;
        let bytes = tile_bytes(place, bundle)?;
        let entries = tile::entries(bundle, &bytes)?;
        for ((entry, id), at) in entries.into_iter().zip(ids(place, bundle)?).zip(index * tile::WIDTH..) {
            if range.contains(&at) {
                found.push((at, id, entry.to_vec()));
            }
        }
    }
    parallel::try_map(place.at_once(), &found, |(index, id, entry)| {
        let file = layout::envelope(*id);
        let bytes = place.read(&file, layout::MOST_ENVELOPE_BYTES)?;
        let bytes = bytes.ok_or_else(|| PublishError::Missing { file: format!("{}/{file}", place.shown()) })?;
        Item::checked(*index, *id, entry.clone(), &bytes)
    })
}
