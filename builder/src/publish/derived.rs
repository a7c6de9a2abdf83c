//! What can be made again from the log and the envelopes: proofs, bundles, and what is known of each artifact.
//!
//! Below `by-subject/sha256/<artifact>`: a proof and a bundle for each envelope, all envelopes in one `.intoto.jsonl`, and an index. All
//! of it is convenience; a reader believes the proofs, and of the rest nothing. Files are replaced as evidence and cosignatures
//! come.

use std::collections::{BTreeMap, BTreeSet};

use kiln_model::digest::Digest;
use kiln_model::envelope::{Envelope, EnvelopeId};
use kiln_model::format::bundle::{self, Bundle, Logged};
use kiln_model::key::{PublicKey, Svid};
use kiln_model::log::proof::MOST_BYTES as MOST_PROOF_BYTES;
use kiln_model::log::tile::Tile;
use kiln_model::log::tree::Tree;
use kiln_model::log::{Entry, LogPolicy, Proof, SignedNote, Vkey};
use serde::{Deserialize, Serialize};

use super::error::PublishError;
use super::layout;
use super::place::{NewFile, Place};
use crate::parallel;

/// Bytes of the largest index or collection of one artifact.
pub(super) const MOST_COLLECTED_BYTES: usize = 256 << 20;

/// An entry of the log with its envelope, which belong together.
#[derive(Debug, Clone)]
pub(super) struct Item {
    pub(super) index: u64,
    pub(super) id: EnvelopeId,
    pub(super) entry: Entry,
    pub(super) envelope: Envelope,
    pub(super) key: PublicKey,
    /// What says whose key it is, if that is not known by itself.
    pub(super) certificate: Option<Certificate>,
}

/// What says whose key it is.
#[derive(Debug, Clone)]
pub(super) struct Certificate {
    pub(super) svid: Svid,
    /// The proof under a checkpoint that enough witnesses have seen. It is never made again: under a later one it would say
    /// nothing of the time at which the certificate was valid.
    pub(super) seen: Option<Proof>,
}

/// A line of an artifact's index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Line {
    /// The envelope's id.
    pub(super) envelope: EnvelopeId,
    /// Which entry of the log it is.
    pub(super) index: u64,
    /// The key that signed it.
    pub(super) keyid: String,
    /// What the statement calls the artifact.
    pub(super) name: String,
    /// The kind of statement.
    #[serde(rename = "predicateType")]
    pub(super) predicate_type: String,
}

/// What of a statement the index says.
#[derive(Deserialize)]
struct Head {
    #[serde(rename = "predicateType", default)]
    predicate_type: String,
    #[serde(default)]
    subject: Vec<Subject>,
}

#[derive(Deserialize)]
struct Subject {
    #[serde(default)]
    name: String,
    #[serde(default)]
    digest: BTreeMap<String, String>,
}

impl Item {
    /// An entry and the file of its envelope: the name, the leaf and the signature are what they should be.
    pub(super) fn checked(index: u64, id: EnvelopeId, entry: Vec<u8>, bytes: &[u8]) -> Result<Self, PublishError> {
        let file = layout::envelope(id);
        if Digest::of(bytes) != id.digest() {
            return Err(PublishError::Disagree { file, other: "its name, which is its digest".into() });
        }
        let envelope =
            Envelope::parse(bytes).map_err(|source| PublishError::NoEvidence { file: file.clone(), source })?;
        let disagree = || PublishError::Disagree { file: file.clone(), other: format!("entry {index} of the log") };
        let entry = Entry::from_bytes(entry).map_err(super::error::of(file.clone()))?;
        let key = entry.key().ok_or_else(disagree)?;
        if Entry::of(&envelope, &key).ok().as_ref() != Some(&entry) {
            return Err(disagree());
        }
        envelope.verified_by(&key).map_err(|source| PublishError::Envelope { file: file.clone(), source })?;
        Ok(Self { index, id, entry, envelope, key, certificate: None })
    }

    /// The artifacts that it is about, and what it calls them.
    fn subjects(&self) -> (String, BTreeMap<Digest, String>) {
        let head = serde_json::from_slice(self.envelope.payload());
        let Head { predicate_type, subject } =
            head.unwrap_or(Head { predicate_type: String::new(), subject: Vec::new() });
        let named =
            subject.into_iter().filter_map(|subject| Some((subject.digest.get("sha256")?.parse().ok()?, subject.name)));
        (predicate_type, named.collect())
    }
}

/// A bundle of an envelope with the certificates of the key that signed it, before any log.
pub(super) fn certified(id: EnvelopeId, envelope: &Envelope, svid: &Svid) -> Result<Vec<u8>, PublishError> {
    let disagree = |_| PublishError::Disagree { file: layout::envelope(id), other: "its certificate".into() };
    Ok(Bundle::with_svid(envelope.clone(), svid.clone(), Vec::new()).map_err(disagree)?.print())
}

/// Reads the certificates of those items that have some, and what `policy` believes of the proofs that lie beside them.
pub(super) fn certify<P: Place + Sync>(place: &P, policy: &LogPolicy, items: &mut [Item]) -> Result<(), PublishError> {
    let mut keys = BTreeSet::new();
    for key in items.iter().map(|item| item.key.id()).collect::<BTreeSet<_>>() {
        if place.read(&layout::certified_key(key), layout::CERTIFIED_KEY.len())?.is_some() {
            keys.insert(key);
        }
    }
    for item in items.iter_mut().filter(|item| keys.contains(&item.key.id())) {
        let name = layout::certified(item.id);
        let Some(bytes) = place.read(&name, bundle::LIMITS.bytes)? else { continue };
        let svid = Bundle::parse(&bytes).ok().and_then(|bundle| bundle.svid);
        let disagree = || PublishError::Disagree { file: name.clone(), other: layout::envelope(item.id) };
        let svid = svid.ok_or_else(disagree)?;
        if certified(item.id, &item.envelope, &svid)? != bytes {
            return Err(disagree());
        }
        let proof = place.read(&layout::certified_proof(item.id), MOST_PROOF_BYTES)?;
        let proof = proof.and_then(|bytes| Proof::parse(&bytes).ok());
        // Also where this writer was not told of the witnesses.
        let seen = |proof: &Proof| proof.checkpoint.signatures().len() > 1 && policy.judge(proof, &item.entry).is_ok();
        item.certificate = Some(Certificate { svid, seen: proof.filter(seen) });
    }
    Ok(())
}

/// All files that `items` bring about, made and written.
pub(super) fn write<P: Place + Sync>(
    place: &P,
    tree: &mut Tree<impl FnMut(Tile) -> Result<Vec<u8>, PublishError>>,
    log: &Vkey,
    note: &SignedNote,
    items: Vec<Item>,
) -> Result<(), PublishError> {
    let mut artifacts: BTreeMap<Digest, Vec<(usize, Line)>> = BTreeMap::new();
    let mut proofs = Vec::new();
    let mut all = Vec::new();
    for (place, item) in items.iter().enumerate() {
        let seen = item.certificate.as_ref().and_then(|certificate| certificate.seen.clone());
        let proof = match seen {
            Some(proof) => proof,
            None => Proof { index: item.index, hashes: tree.inclusion(item.index)?, checkpoint: note.clone() },
        };
        if item.certificate.is_some() {
            all.push(NewFile { name: layout::certified_proof(item.id), bytes: proof.print().into_bytes() });
        }
        proofs.push(proof);
        let (predicate_type, subjects) = item.subjects();
        for (artifact, name) in subjects {
            let line = Line {
                envelope: item.id,
                index: item.index,
                keyid: item.key.id().to_string(),
                name,
                predicate_type: predicate_type.clone(),
            };
            artifacts.entry(artifact).or_default().push((place, line));
        }
    }
    let log = log.long_id();
    let artifacts: Vec<(Digest, Vec<(usize, Line)>)> = artifacts.into_iter().collect();
    let files = parallel::try_map(place.at_once(), &artifacts, |(artifact, new)| {
        of_artifact(place, log, *artifact, new, &items, &proofs)
    })?;
    all.extend(files.into_iter().flatten());
    place.write_over(&all)
}

fn of_artifact<P: Place>(
    place: &P,
    log: Digest,
    artifact: Digest,
    new: &[(usize, Line)],
    items: &[Item],
    proofs: &[Proof],
) -> Result<Vec<NewFile>, PublishError> {
    let below = layout::subject(artifact);
    let index = format!("{below}/index.jsonl");
    // What a reader could not use, nobody misses: it is made again.
    let old = place.read(&index, MOST_COLLECTED_BYTES)?.unwrap_or_default();
    let mut lines: BTreeMap<u64, Line> = old
        .split(|byte| *byte == b'\n')
        .filter_map(|line| serde_json::from_slice::<Line>(line).ok())
        .map(|line| (line.index, line))
        .collect();
    lines.extend(new.iter().map(|(_, line)| (line.index, line.clone())));

    let mut files = Vec::new();
    let mut collections: BTreeMap<String, Vec<&Item>> = BTreeMap::new();
    for (number, line) in new {
        let (item, proof) = (&items[*number], &proofs[*number]);
        let name = layout::file_name(&line.name);
        // The first of a name has it to itself; others have their id in theirs.
        let first = lines
            .values()
            .find(|other| layout::file_name(&other.name) == name)
            .is_none_or(|first| first.index == line.index);
        let own = if first { name.clone() } else { format!("{name}.{}", &item.id.to_string()[..8]) };
        files.push(NewFile { name: format!("{below}/{}.tlog-proof", item.id), bytes: proof.print().into_bytes() });
        let logged = Logged { log, proof: proof.clone(), canonicalized_body: item.entry.as_bytes().into() };
        // An envelope of several signatures has no bundle: clients take one.
        let bundle = match &item.certificate {
            Some(Certificate { svid, .. }) => Bundle::with_svid(item.envelope.clone(), svid.clone(), vec![logged]),
            None => Bundle::new(item.envelope.clone(), &item.key, vec![logged]),
        };
        if let Ok(bundle) = bundle {
            files.push(NewFile { name: format!("{below}/{own}.sigstore.json"), bytes: bundle.print() });
        }
        collections.entry(name).or_default().push(item);
    }
    for (name, items) in collections {
        let file = format!("{below}/{name}.intoto.jsonl");
        let mut bytes = place.read(&file, MOST_COLLECTED_BYTES)?.unwrap_or_default();
        let there: BTreeSet<Digest> = bytes.split(|byte| *byte == b'\n').map(Digest::of).collect();
        for item in items {
            if !there.contains(&item.id.digest()) {
                bytes.extend(item.envelope.canonical());
                bytes.push(b'\n');
            }
        }
        files.push(NewFile { name: file, bytes });
    }
    let mut text = String::new();
    for line in lines.values() {
        text.push_str(&serde_json::to_string(line).expect("texts and numbers are JSON"));
        text.push('\n');
    }
    files.push(NewFile { name: index, bytes: text.into_bytes() });
    Ok(files)
}
