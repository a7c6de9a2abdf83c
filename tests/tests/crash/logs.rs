//! Publications of evidence that are killed: readers see the old or the new log, no name ever has other bytes, no size a second root.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use kiln_model::digest::Digest;
use kiln_model::envelope::Envelope;
use kiln_model::key::SecretKey;
use kiln_model::log::{Checkpoint, SignedNote};
use kiln_model::statement::{Descriptor, DigestSet, Predicate, Statement};
use kiln_tests::ground::{self, Ground};
use kiln_tests::run::{Kiln, Ran};

use crate::{Shim, died, rounds};

const FIRST: u64 = 254;
const SECOND: u64 = 4;

struct Stand {
    dir: tempfile::TempDir,
    kiln: Kiln,
}

impl Stand {
    fn new() -> Self {
        let (dir, kiln) = (ground::directory(Ground::Tmpfs), Kiln::fresh(Ground::Tmpfs));
        let (log, rebuilder) = (SecretKey::ed25519(&[1; 32]), SecretKey::ed25519(&[3; 32]));
        ground::write_secret(dir.path().join("log"), log.to_pem(None).as_bytes());
        fs::write(dir.path().join("rebuilder.pub"), rebuilder.public().to_pem()).unwrap();
        for (name, numbers) in [("first", 0..FIRST), ("second", FIRST..FIRST + SECOND), ("third", 900..901)] {
            let mut text = Vec::new();
            for number in numbers {
                let digest = DigestSet::of(Digest::of(number.to_string()));
                let subject = vec![Descriptor::of(digest).named_as(format!("file-{number}"))];
                let predicate = Predicate::Other { kind: "https://example.org/x".into(), value: serde_json::json!({}) };
                let statement = Statement { subject, predicate }.print().unwrap();
                text.extend(Envelope::sign(statement, &rebuilder).canonical());
                text.push(b'\n');
            }
            fs::write(dir.path().join(format!("{name}.jsonl")), text).unwrap();
        }
        let stand = Self { dir, kiln };
        stand.publish(&stand.kiln, "first").succeeded();
        stand
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    fn publish(&self, kiln: &Kiln, what: &str) -> Ran {
        let [tree, key, keys, state] = ["tree", "log", "rebuilder.pub", "state"].map(|name| self.path(name));
        let evidence = self.path(&format!("{what}.jsonl"));
        kiln.run([
            "publish",
            "--to",
            &tree,
            "--log-key",
            &key,
            "--origin",
            "log.example.org",
            "--keys",
            &keys,
            "--state",
            &state,
            &evidence,
        ])
    }

    /// The tree is whole; how many entries it has, and under which root.
    fn seen(&self) -> (u64, Digest) {
        self.kiln.run(["tlog", "verify", &self.path("tree")]).succeeded();
        let note = SignedNote::parse(&fs::read(self.path("tree/checkpoint")).unwrap()).unwrap();
        let checkpoint = Checkpoint::parse(note.text()).unwrap();
        (checkpoint.size, checkpoint.root)
    }

    /// Files of the tree that never change.
    fn immutable(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let (mut files, mut open) =
            (BTreeMap::new(), vec![self.dir.path().join("tree/tile"), self.dir.path().join("tree/att")]);
        while let Some(path) = open.pop() {
            match path.is_dir() {
                true => open.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path())),
                false => {
                    drop(files.insert(path.strip_prefix(self.dir.path()).unwrap().into(), fs::read(&path).unwrap()))
                }
            }
        }
        files
    }

    fn reset(&self, kept: &Path) {
        for name in ["tree", "state"] {
            fs::remove_dir_all(self.dir.path().join(name)).ok();
            let copied = std::process::Command::new("cp").arg("-a").arg(kept.join(name)).arg(self.dir.path()).status();
            assert!(copied.unwrap().success());
        }
    }
}

#[test]
fn killed_at_any_call_of_a_publication_the_log_is_the_old_or_the_new_one_and_the_next_one_finishes() {
    let (shim, stand) = (Shim::new(), Stand::new());
    let kept = ground::directory(Ground::Tmpfs);
    for name in ["tree", "state"] {
        fs::rename(stand.dir.path().join(name), kept.path().join(name)).unwrap();
    }
    stand.reset(kept.path());
    let old = stand.seen();
    let preloaded = |at| shim.preloaded(Kiln::with_store(stand.kiln.store()), at);
    stand.publish(&preloaded(0), "second").succeeded();
    let (count, new, whole) = (shim.counted(), stand.seen(), stand.immutable());
    assert!(count > 100 && new.0 == FIRST + SECOND, "{count} calls");

    // Threads take turns otherwise each time; a number near the end is not always reached.
    let (step, mut killed, mut between) = (count.div_ceil(rounds(60)).max(1), 0, [0, 0]);
    for at in (1..=count).step_by(usize::try_from(step).unwrap()) {
        stand.reset(kept.path());
        let ran = stand.publish(&preloaded(at), "second");
        assert!(died(&ran) || ran.code() == Some(0), "{at} of {count}: {ran:?}");
        killed += u64::from(died(&ran));
        let seen = stand.seen();
        assert!(seen == old || seen == new, "{at} of {count}: {seen:?}");
        between[usize::from(seen == new)] += 1;
        let there = stand.immutable();
        // Another batch comes next: the interrupted one is finished before it.
        stand.publish(&stand.kiln, "third").succeeded();
        stand.publish(&stand.kiln, "second").succeeded();
        let (size, _) = stand.seen();
        assert_eq!(size, FIRST + SECOND + 1, "{at} of {count}");
        let after = stand.immutable();
        // If the batch was begun before the third, the files are those of a run that nobody killed.
        let bundle = Path::new("tree/tile/entries/001.p/2");
        let begun = after.get(bundle) == whole.get(bundle);
        for (name, bytes) in there.iter().chain(begun.then_some(&whole).into_iter().flatten()) {
            assert!(after[name] == *bytes, "{at} of {count}: {} changed", name.display());
        }
        let left = fs::read_dir(stand.dir.path().join("tree/.kiln/drafts")).unwrap().count();
        assert_eq!(left, 0);
    }
    println!("killed {killed} times of {count} calls; {between:?} saw the old and the new log");
    assert!(killed > 20 && between[0] > 0);
}
