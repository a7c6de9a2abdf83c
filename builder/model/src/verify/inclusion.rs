//! Whether a statement stands in a log that the policy believes. Step 6 of the algorithm.
//!
//! The leaf is computed from the envelope and the policy's key; one that was supplied is compared and never trusted. A proof
//! that fails is tampering; a log that nobody vouches for is as good as none.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, RwLock};

use super::check::{Check, Code, Status};
use crate::digest::Digest;
use crate::envelope::Envelope;
use crate::key::PublicKey;
use crate::log::{Believed, Entry, LogError, LogPolicy, Proof, SignedNote, Weight, consistent};
use crate::outcome::Moment;

/// The newest checkpoint of a log that was seen before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pinned {
    /// Entries.
    pub size: u64,
    /// The root over them.
    pub root: Digest,
}

/// Shows that a log grew: for an origin, the hashes that lead from the tree of the first size to that of the second, if
/// whoever is asked has the log's tiles.
pub type Growth<'a> = dyn Fn(&str, u64, u64) -> Option<Vec<Digest>> + Sync + 'a;

/// Logs, as they are seen in one run.
pub(super) struct Logs<'a> {
    policy: &'a LogPolicy,
    pinned: &'a BTreeMap<String, Pinned>,
    growth: &'a Growth<'a>,
    /// Many proofs end in one checkpoint: its signatures are checked once.
    believed: RwLock<HashMap<String, Arc<Result<Believed, Check>>>>,
    /// Roots by origin and size, to find forks.
    roots: RwLock<BTreeMap<(String, u64), Digest>>,
}

/// What proofs show of one envelope.
#[derive(Debug, Default)]
pub(super) struct Shown {
    /// How many hold.
    pub(super) holding: usize,
    /// It existed then, at the latest.
    pub(super) existed: Option<Moment>,
    /// The newest checkpoint is as fresh as this.
    pub(super) fresh: Option<Moment>,
    /// Why others do not hold; tampering among them.
    pub(super) failures: Vec<Check>,
}

impl<'a> Logs<'a> {
    pub(super) fn new(policy: &'a LogPolicy, pinned: &'a BTreeMap<String, Pinned>, growth: &'a Growth<'a>) -> Self {
        Self { policy, pinned, growth, believed: RwLock::default(), roots: RwLock::default() }
    }

    /// Judges all proofs of an envelope that `key` signed.
    pub(super) fn judge(&self, envelope: &Envelope, key: &PublicKey, proofs: &[(Proof, Option<Vec<u8>>)]) -> Shown {
        let mut shown = Shown::default();
        if proofs.is_empty() {
            return shown;
        }
        let entry = match Entry::of(envelope, key) {
            Ok(entry) => entry,
            Err(error) => {
                shown.failures.push(refusal(&error));
                return shown;
            }
        };
        for (proof, supplied) in proofs {
            if supplied.as_ref().is_some_and(|supplied| supplied != entry.as_bytes()) {
                shown.failures.push(Check::new(
                    Code::Inclusion,
                    Status::Tampered,
                    "canonicalizedBody",
                    "the leaf of this envelope and the policy's key",
                    "another leaf",
                    "find out who altered the bundle; fetch it from its rebuilder",
                ));
                continue;
            }
            let believed = self.believe(&proof.checkpoint);
            match &*believed {
                Err(check) => shown.failures.push(check.clone()),
                Ok(believed) => match believed.includes(proof, &entry) {
                    Err(error) => shown.failures.push(refusal(&error)),
                    Ok(included) => {
                        shown.holding += 1;
                        if let Some((first, last)) = included.cosigned {
                            let (first, last) = (Moment::from_unix(first), Moment::from_unix(last));
                            shown.existed = Some(shown.existed.map_or(last, |other| other.min(last)));
                            shown.fresh = shown.fresh.max(Some(first));
                        }
                    }
                },
            }
        }
        shown
    }

    /// The largest checkpoint of each log that was believed: what to remember for the next time.
    pub(super) fn newest(&self) -> BTreeMap<String, (Pinned, String)> {
        let mut newest: BTreeMap<String, (Pinned, String)> = BTreeMap::new();
        for (note, believed) in self.believed.read().expect("no thread panics with the lock").iter() {
            if let Ok(Believed { checkpoint, .. }) = &**believed {
                let pinned = Pinned { size: checkpoint.size, root: checkpoint.root };
                let entry = newest.entry(checkpoint.origin.clone()).or_insert((pinned, note.clone()));
                if entry.0.size < pinned.size {
                    *entry = (pinned, note.clone());
                }
            }
        }
        newest
    }

    fn believe(&self, note: &SignedNote) -> Arc<Result<Believed, Check>> {
        let text = note.print();
        if let Some(known) = self.believed.read().expect("no thread panics with the lock").get(&text) {
            return Arc::clone(known);
        }
        let judged = Arc::new(self.policy.believe(note).map_err(|error| refusal(&error)).and_then(|b| self.held(b)));
        self.believed.write().expect("no thread panics with the lock").insert(text, Arc::clone(&judged));
        judged
    }

    /// Holds a checkpoint against the one that is pinned, and against all others of this run.
    fn held(&self, believed: Believed) -> Result<Believed, Check> {
        let checkpoint = &believed.checkpoint;
        let place = (checkpoint.origin.clone(), checkpoint.size);
        let first =
            *self.roots.write().expect("no thread panics with the lock").entry(place).or_insert(checkpoint.root);
        if first != checkpoint.root {
            return Err(refusal(&LogError::Forked { size: checkpoint.size }));
        }
        let Some(pinned) = self.pinned.get(&checkpoint.origin) else { return Ok(believed) };
        let new = (checkpoint.size, checkpoint.root);
        let hashes = match checkpoint.size > pinned.size && pinned.size > 0 {
            true => (self.growth)(&checkpoint.origin, pinned.size, checkpoint.size).ok_or_else(|| {
                Check::new(
                    Code::Log,
                    Status::NotCounted,
                    "log.pinned_checkpoint",
                    format!("proof that the log of {} entries begins with the {} seen before", new.0, pinned.size),
                    "no tiles of the log among the evidence",
                    "give the whole tree of the log as evidence (kiln evidence pull fetches it)",
                )
            })?,
            false => Vec::new(),
        };
        match consistent((pinned.size, pinned.root), new, &hashes) {
            Ok(()) => Ok(believed),
            Err(error) => Err(refusal(&error)),
        }
    }
}

fn refusal(error: &LogError) -> Check {
    let (status, way_out) = match error.weight() {
        Weight::Contradicted => {
            (Status::Tampered, "find out who altered it; fetch proof and checkpoint from the log itself")
        }
        Weight::Insufficient => (
            Status::NotCounted,
            "fetch a proof with a newer checkpoint, or name the log and its witnesses in log.policy",
        ),
        Weight::Malformed => (Status::NotCounted, "fetch the proof again"),
    };
    let history = matches!(error, LogError::Shrunk { .. } | LogError::Forked { .. } | LogError::Inconsistent { .. });
    let (code, expected) = match history {
        true => (Code::Log, "one log for all, that only grows"),
        false => (Code::Inclusion, "a proof that holds, under a checkpoint that the log policy believes"),
    };
    Check::new(code, status, "log", expected, super::candidate::chain(error), way_out)
}
