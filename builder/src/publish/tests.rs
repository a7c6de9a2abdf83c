//! The order of writes, broken off after each of them; trees that were altered; two writers.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use kiln_model::digest::Digest;
use kiln_model::envelope::Envelope;
use kiln_model::key::SecretKey;
use kiln_model::log::{Checkpoint, LogPolicy, NoteKind, NoteSigner, Proof, SignedNote};
use kiln_model::statement::{Descriptor, DigestSet, Predicate, Statement};
use tempfile::TempDir;

use super::*;
use crate::exit::Kind;

const ORIGIN: &str = "log.example.org/rebuild";

fn directory() -> TempDir {
    // Many small files, synced one by one.
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { TempDir::new_in(memory) } else { TempDir::new() }.unwrap()
}

fn signer() -> NoteSigner {
    NoteSigner::new(ORIGIN, NoteKind::Log, SecretKey::ed25519(&[1; 32])).unwrap()
}

fn witness() -> NoteSigner {
    NoteSigner::new("w.example.org", NoteKind::Witness, SecretKey::ed25519(&[2; 32])).unwrap()
}

fn policy() -> LogPolicy {
    LogPolicy::parse(&format!("log {}\nquorum none\n", signer().vkey())).unwrap()
}

fn envelope(number: u64) -> Envelope {
    let subject = Descriptor::of(DigestSet::of(Digest::of(number.to_string()))).named_as(format!("file-{number}"));
    let predicate = Predicate::Other { kind: "https://example.org/x".into(), value: serde_json::json!({}) };
    let statement = Statement { subject: vec![subject], predicate };
    Envelope::sign(statement.print().unwrap(), &SecretKey::ed25519(&[3; 32]))
}

fn batch(numbers: std::ops::Range<u64>) -> Batch {
    let mut batch = Batch::default();
    for number in numbers {
        batch.push(Signed::new(envelope(number), &SecretKey::ed25519(&[3; 32]).public()).unwrap().0);
    }
    batch
}

struct Ground {
    _own: TempDir,
    tree: PathBuf,
    state: PathBuf,
}

impl Ground {
    fn new() -> Self {
        let own = directory();
        let (tree, state) = (own.path().join("tree"), own.path().join("state"));
        Self { _own: own, tree, state }
    }

    fn append(&self, numbers: std::ops::Range<u64>) -> Result<Appended, PublishError> {
        let place = Directory::writing(&self.tree)?;
        LogWriter::open(&place, &self.state, signer(), vec![])?.append(batch(numbers))
    }

    fn inspect(&self) -> Result<Inspected, PublishError> {
        inspect(&Directory::reading(&self.tree), &policy())
    }

    fn size(&self) -> u64 {
        self.inspect().unwrap().believed.checkpoint.size
    }

    /// Files that never change.
    fn immutable(&self) -> BTreeMap<String, Vec<u8>> {
        let place = Directory::reading(&self.tree);
        let below = ["tile", "att", "keys"];
        let names = below.iter().flat_map(|below| place.files(below).unwrap());
        names.map(|name| (name.clone(), fs::read(self.tree.join(&name)).unwrap())).collect()
    }
}

fn copy(from: &Path, to: &Path) {
    let copied = std::process::Command::new("cp").arg("-a").arg(from).arg(to).status();
    assert!(copied.unwrap().success());
}

/// A directory whose writer is killed after so many files.
struct Mortal<'d> {
    directory: &'d Directory,
    left: Cell<u64>,
    written: RefCell<Vec<String>>,
}

// Writers ask from one thread at a time; only their readers share.
struct Shared<'d>(std::sync::Mutex<Mortal<'d>>);

impl Shared<'_> {
    fn each(
        &self,
        files: &[NewFile],
        write: impl Fn(&Directory, &NewFile) -> Result<(), PublishError>,
    ) -> Result<(), PublishError> {
        let mortal = self.0.lock().unwrap();
        for file in files {
            if mortal.left.get() == 0 {
                return Err(PublishError::Missing { file: "a life".into() });
            }
            mortal.left.set(mortal.left.get() - 1);
            mortal.written.borrow_mut().push(file.name.clone());
            write(mortal.directory, file)?;
        }
        Ok(())
    }
}

impl Place for Shared<'_> {
    fn shown(&self) -> String {
        "the tree".into()
    }

    fn at_once(&self) -> std::num::NonZero<usize> {
        std::num::NonZero::<usize>::MIN
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn read(&self, name: &str, limit: usize) -> Result<Option<Vec<u8>>, PublishError> {
        self.0.lock().unwrap().directory.read(name, limit)
    }

    fn write_new(&self, files: &[NewFile]) -> Result<(), PublishError> {
        self.each(files, |place, file| place.write_new(std::slice::from_ref(file)))
    }

    fn write_over(&self, files: &[NewFile]) -> Result<(), PublishError> {
        self.each(files, |place, file| place.write_over(std::slice::from_ref(file)))
    }

    fn replace(&self, file: &NewFile, old: Option<&[u8]>) -> Result<(), PublishError> {
        self.each(std::slice::from_ref(file), |place, file| place.replace(file, old))
    }
}

#[test]
fn killed_after_any_write_readers_see_the_old_or_the_new_tree_and_the_next_writer_finishes() {
    // Over the end of a bundle, so that tiles of two levels come to be.
    for (first, second) in [(0, 3), (254, 258)] {
        let mut whole: Option<BTreeMap<String, Vec<u8>>> = None;
        let base = Ground::new();
        if first > 0 {
            base.append(0..first).unwrap();
        }
        for life in 0.. {
            let ground = Ground::new();
            if first > 0 {
                copy(&base.tree, &ground.tree);
                copy(&base.state, &ground.state);
            }
            let place = Directory::writing(&ground.tree).unwrap();
            let mortal = Mortal { directory: &place, left: Cell::new(life), written: RefCell::default() };
            let mortal = Shared(std::sync::Mutex::new(mortal));
            let appended = LogWriter::open(&mortal, &ground.state, signer(), vec![])
                .and_then(|mut w| w.append(batch(first..second)));
            let lived = mortal.0.into_inner().unwrap().written.into_inner().len();
            drop(place);
            let seen = ground.immutable();
            match ground.inspect() {
                Ok(found) => assert!([first, second].contains(&found.believed.checkpoint.size)),
                // Nothing was published yet.
                Err(error) => assert!(first == 0 && !ground.tree.join("checkpoint").exists(), "{error}"),
            }
            if appended.is_ok() {
                assert_eq!(life as usize, lived);
                assert!(life > 10, "{life} writes");
                break;
            }
            // Whoever comes next finishes the batch before its own.
            assert_eq!(ground.append(second..second + 2).unwrap(), Appended { added: 2, kept: 0 });
            let found = ground.inspect().unwrap();
            assert_eq!((found.believed.checkpoint.size, found.envelopes), (second + 2, second + 2));
            assert!(found.withheld.is_empty() && found.unlogged.is_empty());
            let after = ground.immutable();
            for (name, bytes) in seen {
                assert_eq!(after[&name], bytes, "{name} changed");
            }
            // All files are those of a run that nobody killed.
            match &whole {
                None => whole = Some(after),
                Some(whole) => assert!(*whole == after, "after {life} writes"),
            }
        }
    }
}

#[test]
fn a_tree_or_a_state_that_is_not_the_last_one_is_not_signed_over() {
    for what in ["tree", "state"] {
        let ground = Ground::new();
        ground.append(0..3).unwrap();
        let (live, old) = (ground._own.path().join(what), ground._own.path().join("old"));
        copy(&live, &old);
        ground.append(3..5).unwrap();
        fs::remove_dir_all(&live).unwrap();
        fs::rename(&old, &live).unwrap();
        let checkpoint = fs::read(ground.tree.join("checkpoint")).unwrap();
        let refused = ground.append(5..6).unwrap_err();
        assert!(matches!(refused, PublishError::Unknown { .. }), "{what}: {refused}");
        assert_eq!(refused.kind(), Kind::Tampered);
        assert_eq!(fs::read(ground.tree.join("checkpoint")).unwrap(), checkpoint);
    }
    // A log whose state is lost is not begun again beside itself.
    let ground = Ground::new();
    ground.append(0..3).unwrap();
    fs::remove_dir_all(&ground.state).unwrap();
    assert!(matches!(ground.append(3..4), Err(PublishError::Unknown { .. })));
    // Nor is one whose tree is lost.
    let ground = Ground::new();
    ground.append(0..3).unwrap();
    fs::remove_dir_all(&ground.tree).unwrap();
    assert!(matches!(ground.append(3..4), Err(PublishError::Unknown { .. })));
}

#[test]
fn what_was_altered_at_the_edge_is_not_built_upon_and_not_signed() {
    for file in ["tile/0/000.p/3", "tile/entries/000.p/3"] {
        let ground = Ground::new();
        ground.append(0..3).unwrap();
        let mut bytes = fs::read(ground.tree.join(file)).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(ground.tree.join(file), bytes).unwrap();
        let signed = fs::read(ground.state.join("checkpoint")).unwrap();
        let refused = ground.append(3..4).unwrap_err();
        assert_eq!(refused.kind(), Kind::Tampered, "{file}: {refused}");
        assert_eq!(fs::read(ground.state.join("checkpoint")).unwrap(), signed);
    }
}

#[test]
fn a_name_with_other_bytes_is_an_error_and_a_checkpoint_of_somebody_else_a_conflict() {
    let own = directory();
    let place = Directory::writing(own.path()).unwrap();
    let file = |bytes: &[u8]| NewFile { name: "a/b".into(), bytes: bytes.into() };
    place.write_new(&[file(b"x")]).unwrap();
    place.write_new(&[file(b"x")]).unwrap();
    for other in [&b"y"[..], b"xy", b""] {
        assert!(matches!(place.write_new(&[file(other)]), Err(PublishError::Changed { .. })));
    }
    assert!(matches!(place.replace(&file(b"z"), None), Err(PublishError::Conflict { .. })));
    assert!(matches!(place.replace(&file(b"z"), Some(b"y")), Err(PublishError::Conflict { .. })));
    assert_eq!(place.read("a/b", 1).unwrap().unwrap(), b"x");
    place.replace(&file(b"z"), Some(b"x")).unwrap();
    assert_eq!(place.read("a/b", 1).unwrap().unwrap(), b"z");
    assert!(matches!(place.read("a/b", 0), Err(PublishError::TooLarge { .. })));
    assert_eq!(place.read("none", 1).unwrap(), None);
}

#[test]
fn of_two_writers_one_waits_and_no_entry_is_lost_or_logged_twice() {
    let ground = Ground::new();
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let ground = &ground;
            scope.spawn(move || {
                for round in 0..5 {
                    let first = writer * 10 + round;
                    // One that all of them publish.
                    ground.append(first..first + 1).unwrap();
                    ground.append(100..101).unwrap();
                }
            });
        }
    });
    let found = ground.inspect().unwrap();
    assert_eq!((found.believed.checkpoint.size, found.envelopes), (21, 21));
}

#[test]
fn any_altered_file_of_a_tree_is_found() {
    let ground = Ground::new();
    ground.append(0..3).unwrap();
    ground.append(3..258).unwrap();
    let found = ground.inspect().unwrap();
    assert_eq!((found.envelopes, found.unlogged.len(), found.withheld.len()), (258, 0, 0));
    let place = Directory::reading(&ground.tree);
    let mut names = place.files("tile").unwrap();
    assert!(names.contains("tile/entries/000.p/3"), "{names:?}");
    names.extend(place.files("att/sha256").unwrap().into_iter().step_by(50));
    names.insert("checkpoint".into());
    for name in names {
        let path = ground.tree.join(&name);
        let bytes = fs::read(&path).unwrap();
        for at in [0, bytes.len() / 2, bytes.len() - 1] {
            let mut altered = bytes.clone();
            altered[at] ^= 1;
            fs::write(&path, altered).unwrap();
            let refused = ground.inspect().map(drop).unwrap_err();
            let form = name == "checkpoint";
            assert!(
                refused.kind() == Kind::Tampered || (form && refused.kind() != Kind::Bug),
                "{name} {at}: {refused}"
            );
        }
        fs::write(&path, bytes).unwrap();
    }
    assert_eq!(ground.size(), 258);
}

#[test]
fn withheld_and_unlogged_envelopes_are_told() {
    let ground = Ground::new();
    ground.append(0..3).unwrap();
    let name = |number| ground.tree.join(super::layout::envelope(envelope(number).id()));
    fs::remove_file(name(1)).unwrap();
    fs::create_dir_all(name(7).parent().unwrap()).unwrap();
    fs::write(name(7), envelope(7).canonical()).unwrap();
    let found = ground.inspect().unwrap();
    assert_eq!((found.envelopes, found.withheld, found.unlogged), (2, vec![1], vec![envelope(7).id()]));
    // What somebody put there is logged when it is published all the same.
    assert_eq!(ground.append(7..8).unwrap(), Appended { added: 1, kept: 0 });
    assert!(ground.inspect().unwrap().unlogged.is_empty());
    assert_eq!(ground.append(7..8).unwrap(), Appended { added: 0, kept: 1 });
}

#[test]
fn cosignatures_are_published_with_all_proofs_that_had_none_and_strangers_are_not() {
    let ground = Ground::new();
    let place = Directory::writing(&ground.tree).unwrap();
    let mut writer = LogWriter::open(&place, &ground.state, signer(), vec![witness().vkey().clone()]).unwrap();
    writer.append(batch(0..3)).unwrap();
    let witnessing = Witness::open(&ground.state.join("witness"), witness()).unwrap();
    let signature = witnessing.cosign(signer().vkey(), &ground.tree, 1_700_000_000).unwrap();

    let stranger = NoteSigner::new("v.example.org", NoteKind::Witness, SecretKey::ed25519(&[9; 32])).unwrap();
    let stranger = Witness::open(&ground.state.join("stranger"), stranger).unwrap();
    let strange = stranger.cosign(signer().vkey(), &ground.tree, 5).unwrap();
    assert_eq!(writer.cosigned(&[strange]).unwrap(), 0);
    assert_eq!(writer.cosigned(std::slice::from_ref(&signature)).unwrap(), 1);
    assert_eq!(writer.cosigned(&[signature]).unwrap(), 0);

    let proposed = fs::read_to_string(ground.tree.join("policy/log.policy")).unwrap();
    let proposed = LogPolicy::parse(&proposed).unwrap();
    for number in 0..3 {
        let below = super::layout::subject(Digest::of(number.to_string()));
        let proof = ground.tree.join(format!("{below}/{}.tlog-proof", envelope(number).id()));
        let proof = Proof::parse(&fs::read(proof).unwrap()).unwrap();
        let entry = kiln_model::log::Entry::of(&envelope(number), &SecretKey::ed25519(&[3; 32]).public()).unwrap();
        assert_eq!(proposed.judge(&proof, &entry).unwrap().cosigned, Some((1_700_000_000, 1_700_000_000)));
    }
    // The next batch has its own checkpoint, and none of these.
    writer.append(batch(3..4)).unwrap();
    assert!(proposed.believe(writer.checkpoint().unwrap()).is_err());
}

#[test]
fn a_witness_remembers_across_runs_and_cosigns_no_second_tree_of_one_size() {
    let (ground, other) = (Ground::new(), Ground::new());
    ground.append(0..3).unwrap();
    other.append(10..13).unwrap();
    let cosign = |at: &Path| Witness::open(&ground.state.join("w"), witness()).unwrap().cosign(signer().vkey(), at, 7);
    cosign(&ground.tree).unwrap();
    cosign(&ground.tree.join("checkpoint")).unwrap();
    assert_eq!(cosign(&other.tree).unwrap_err().kind(), Kind::Tampered);
    other.append(13..20).unwrap();
    assert_eq!(cosign(&other.tree).unwrap_err().kind(), Kind::Tampered);
    let rolled_back = fs::read(ground.tree.join("checkpoint")).unwrap();
    ground.append(3..300).unwrap();
    // Without tiles nobody can show that it only grew.
    assert_eq!(cosign(&ground.tree.join("checkpoint")).unwrap_err().kind(), Kind::Inconclusive);
    cosign(&ground.tree).unwrap();
    let file = ground.state.join("old");
    fs::write(&file, rolled_back).unwrap();
    assert_eq!(cosign(&file).unwrap_err().kind(), Kind::Tampered);
}

#[test]
fn a_walk_shows_what_is_new_and_refuses_a_log_that_did_not_only_grow() {
    let ground = Ground::new();
    ground.append(0..3).unwrap();
    let place = Directory::reading(&ground.tree);
    let walked = |pinned: Option<&Checkpoint>| {
        let mut seen = Vec::new();
        walk(&place, &policy(), pinned, |new| seen.push(new.index)).map(|(believed, _)| (believed.checkpoint, seen))
    };
    let (pinned, seen) = walked(None).unwrap();
    assert_eq!(seen, [0, 1, 2]);
    ground.append(3..5).unwrap();
    assert_eq!(walked(Some(&pinned)).unwrap().1, [3, 4]);
    for wrong in [
        Checkpoint { root: Digest::of(b"x"), ..pinned.clone() },
        Checkpoint { size: 9, ..pinned.clone() },
        Checkpoint { size: 5, ..pinned.clone() },
    ] {
        assert_eq!(walked(Some(&wrong)).unwrap_err().kind(), Kind::Tampered);
    }
    assert!(walked(Some(&Checkpoint { origin: "other".into(), ..pinned })).is_err());
}

#[test]
fn one_size_has_one_root_whatever_is_published_after_a_crash_before_the_signature() {
    // The batch is in the journal and its files are there; the state never got the signature. Another batch comes next.
    let ground = Ground::new();
    ground.append(0..3).unwrap();
    let place = Directory::writing(&ground.tree).unwrap();
    let mortal = Mortal { directory: &place, left: Cell::new(4), written: RefCell::default() };
    let mortal = Shared(std::sync::Mutex::new(mortal));
    assert!(LogWriter::open(&mortal, &ground.state, signer(), vec![]).unwrap().append(batch(3..6)).is_err());
    drop(place);
    ground.append(20..21).unwrap();
    let note = SignedNote::parse(&fs::read(ground.tree.join("checkpoint")).unwrap()).unwrap();
    assert_eq!(Checkpoint::parse(note.text()).unwrap().size, 7);
    assert_eq!(ground.size(), 7);
}
