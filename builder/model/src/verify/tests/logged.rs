//! Traps around the transparency log: proofs, witnesses, times, rollbacks and forks.

use super::lab::*;
use crate::digest::Digest;
use crate::envelope::Envelope;
use crate::log::note::{NoteKind, NoteSigner};
use crate::log::tree::{leaf_hash, node_hash};
use crate::log::witness::cosign;
use crate::log::{Checkpoint, Entry, LogPolicy, Proof};
use crate::outcome::Moment;
use crate::verify::{Code, Pinned};

const ORIGIN: &str = "log.example.org/rebuild";

fn log_key() -> NoteSigner {
    NoteSigner::new(ORIGIN, NoteKind::Log, key(20)).unwrap()
}

fn witness(n: u8) -> NoteSigner {
    NoteSigner::new(&format!("w{n}.example.org"), NoteKind::Witness, key(20 + n)).unwrap()
}

/// Two of three witnesses.
fn log_policy() -> LogPolicy {
    let mut text = format!("log {}\n", log_key().vkey());
    for n in 1..=3 {
        text += &format!("witness w{n} {}\n", witness(n).vkey());
    }
    LogPolicy::parse(&format!("{text}group g 2 w1 w2 w3\nquorum g\n")).unwrap()
}

fn time(text: &str) -> u64 {
    text.parse::<Moment>().unwrap().unix()
}

/// RFC 6962, section 2.1, as it is written there.
fn root(leaves: &[Digest]) -> Digest {
    match leaves {
        [one] => *one,
        _ => {
            let (left, right) = leaves.split_at(leaves.len().next_power_of_two() / 2);
            node_hash(&root(left), &root(right))
        }
    }
}

fn path(leaves: &[Digest], index: usize) -> Vec<Digest> {
    if leaves.len() == 1 {
        return Vec::new();
    }
    let (left, right) = leaves.split_at(leaves.len().next_power_of_two() / 2);
    let (mut hashes, other) = match index < left.len() {
        true => (path(left, index), root(right)),
        false => (path(right, index - left.len()), root(left)),
    };
    hashes.push(other);
    hashes
}

/// A log with the given envelopes and two others, cosigned by these witnesses at these times.
struct Log {
    leaves: Vec<Digest>,
    cosigned: Vec<(u8, u64)>,
}

impl Log {
    fn of(envelopes: &[&[u8]]) -> Self {
        let leaf = |bytes: &&[u8]| {
            let envelope = Envelope::parse(bytes).unwrap();
            let id = envelope.signatures()[0].keyid.clone();
            let key = (1..=9).map(|n| key(n).public()).find(|key| Some(key.id().to_string()) == id).unwrap();
            Entry::of(&envelope, &key).unwrap().leaf_hash()
        };
        let leaves = envelopes.iter().map(leaf).chain([leaf_hash(b"x"), leaf_hash(b"y")]).collect();
        Self { leaves, cosigned: vec![(1, time("2026-11-22T10:00:00Z")), (2, time("2026-11-22T11:00:00Z"))] }
    }

    fn checkpoint(&self) -> Checkpoint {
        Checkpoint { origin: ORIGIN.into(), size: self.leaves.len() as u64, root: root(&self.leaves) }
    }

    fn proof(&self, index: usize) -> Proof {
        let mut note = self.checkpoint().sign(&log_key()).unwrap();
        for (n, time) in &self.cosigned {
            let last = Some((self.leaves.len() as u64, root(&self.leaves)));
            note.add(cosign(&witness(*n), log_key().vkey(), &note, last, &[], *time).unwrap());
        }
        Proof { index: index as u64, hashes: path(&self.leaves, index), checkpoint: note }
    }

    /// A world that requires inclusion, with a proof for each envelope.
    fn world(&self, envelopes: &[&[u8]]) -> World {
        let mut world = World::new().with("require_inclusion = false", "require_inclusion = true");
        world.log = Some(log_policy());
        for (index, bytes) in envelopes.iter().enumerate() {
            world.proofs.insert(envelope_id(bytes), self.proof(index).print().into_bytes());
        }
        world
    }
}

fn both() -> [Vec<u8>; 2] {
    [identical(1), identical(2)]
}

#[test]
fn logged_statements_pass_and_unlogged_ones_do_not_count() {
    let evidence = both();
    let parts = [&*evidence[0], &*evidence[1]];
    let mut world = Log::of(&parts).world(&parts);
    let decision = world.decide(&evidence);
    passes(&decision);
    assert_eq!(decision.operators[0].witnessed.unwrap().to_string(), "2026-11-22T11:00:00Z");
    world.proofs.remove(&envelope_id(&evidence[1]));
    refuses(&world.decide(&evidence), 4, Code::Inclusion);
}

#[test]
fn a_dissent_counts_without_a_proof() {
    let evidence = both();
    let parts = [&*evidence[0], &*evidence[1]];
    let world = Log::of(&parts).world(&parts);
    refuses(&world.decide(&[evidence[0].clone(), evidence[1].clone(), different(3)]), 1, Code::Dissent);
}

#[test]
fn a_proof_of_another_leaf_or_a_flipped_bit_is_tampering() {
    let evidence = both();
    let parts = [&*evidence[0], &*evidence[1]];
    let log = Log::of(&parts);
    let mut world = log.world(&parts);
    world.proofs.insert(envelope_id(&evidence[1]), log.proof(0).print().into_bytes());
    refuses(&world.decide(&evidence), 6, Code::Inclusion);
    let mut flipped = log.proof(1);
    let mut bytes = *flipped.hashes[0].as_bytes();
    bytes[7] ^= 1;
    flipped.hashes[0] = Digest::from_bytes(bytes);
    world.proofs.insert(envelope_id(&evidence[1]), flipped.print().into_bytes());
    refuses(&world.decide(&evidence), 6, Code::Inclusion);
}

#[test]
fn too_few_cosignatures_do_not_count_and_a_bad_one_of_a_known_witness_is_tampering() {
    let evidence = both();
    let parts = [&*evidence[0], &*evidence[1]];
    let mut log = Log::of(&parts);
    log.cosigned.truncate(1);
    refuses(&log.world(&parts).decide(&evidence), 4, Code::Inclusion);
    let log = Log::of(&parts);
    let mut world = log.world(&parts);
    let mut proof = log.proof(0);
    // A cosignature of another text.
    let other = Log::of(&parts[..1]);
    let last = Some((3, root(&other.leaves)));
    let note = other.checkpoint().sign(&log_key()).unwrap();
    proof.checkpoint.add(cosign(&witness(3), log_key().vkey(), &note, last, &[], 5).unwrap());
    world.proofs.insert(envelope_id(&evidence[0]), proof.print().into_bytes());
    refuses(&world.decide(&evidence), 6, Code::Inclusion);
}

#[test]
fn witnesses_date_statements_of_keys_that_expired_or_were_revoked() {
    let valid = "valid = [\"2026-01-01\", \"2027-01-01\"]";
    let evidence = both();
    let parts = [&*evidence[0], &*evidence[1]];
    let world = |rule: &str| {
        let mut world = Log::of(&parts).world(&parts).with(valid, rule);
        world.now = "2026-12-24T00:00:00Z".parse().unwrap();
        world.decide(&evidence)
    };
    passes(&world("valid = [\"2026-01-01\", \"2026-11-23\"]"));
    refuses(&world("valid = [\"2026-01-01\", \"2026-11-22T11:00:00Z\"]"), 4, Code::Validity);
    passes(&world(&format!("{valid}\nrevoked_after = \"2026-11-22T11:00:00Z\"")));
    // One witness saw it before, the quorum only after.
    refuses(&world(&format!("{valid}\nrevoked_after = \"2026-11-22T10:30:00Z\"")), 4, Code::Revocation);
}

#[test]
fn a_stale_checkpoint_does_not_count() {
    let evidence = both();
    let parts = [&*evidence[0], &*evidence[1]];
    let mut world = Log::of(&parts).world(&parts).with("[log]", "[log]\ncheckpoint_max_age_hours = 3");
    passes(&world.decide(&evidence));
    // As old as the oldest cosignature that the quorum needs.
    world.now = "2026-11-22T13:30:00Z".parse().unwrap();
    refuses(&world.decide(&evidence), 4, Code::CheckpointAge);
}

#[test]
fn a_log_that_was_rolled_back_or_forked_is_tampering_and_growth_must_be_shown() {
    let evidence = both();
    let parts = [&*evidence[0], &*evidence[1]];
    let log = Log::of(&parts);
    let mut world = log.world(&parts);
    let mut pin = |size: u64, root: Digest| {
        world.pinned = [(ORIGIN.to_owned(), Pinned { size, root })].into();
        world.decide(&evidence)
    };
    let now = log.checkpoint();
    passes(&pin(now.size, now.root));
    refuses(&pin(now.size + 1, now.root), 6, Code::Log);
    refuses(&pin(now.size, leaf_hash(b"other")), 6, Code::Log);
    // Two entries were seen before: with the hashes that lead from there it passes, with none it is unknown.
    let two = root(&log.leaves[..2]);
    refuses(&pin(2, two), 4, Code::Log);
    world.pinned = [(ORIGIN.to_owned(), Pinned { size: 2, root: two })].into();
    world.growth = Some(vec![root(&log.leaves[2..])]);
    passes(&world.decide(&evidence));
    world.pinned = [(ORIGIN.to_owned(), Pinned { size: 2, root: leaf_hash(b"z") })].into();
    refuses(&world.decide(&evidence), 6, Code::Log);
}

#[test]
fn two_roots_for_one_size_in_one_run_are_a_fork() {
    let evidence = both();
    let parts = [&*evidence[0], &*evidence[1]];
    let mut world = Log::of(&parts).world(&parts);
    let other = identical(3);
    let fork = Log::of(&[parts[1], &*other]);
    world.proofs.insert(envelope_id(&evidence[1]), fork.proof(0).print().into_bytes());
    refuses(&world.decide(&evidence), 6, Code::Log);
}

#[test]
fn an_unknown_log_is_as_good_as_none() {
    let evidence = both();
    let parts = [&*evidence[0], &*evidence[1]];
    let mut world = Log::of(&parts).world(&parts);
    let stranger = NoteSigner::new("other.example.org", NoteKind::Log, key(30)).unwrap();
    world.log = Some(LogPolicy::parse(&format!("log {}\nquorum none\n", stranger.vkey())).unwrap());
    refuses(&world.decide(&evidence), 4, Code::Inclusion);
}
