//! Transparency logs: `kiln publish`, `kiln tlog`, `kiln evidence pull`, and another implementation of the same formats.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use kiln_model::digest::Digest;
use kiln_model::envelope::Envelope;
use kiln_model::key::{Passphrase, SecretKey};
use kiln_model::log::{NoteKind, NoteSigner};
use kiln_model::statement::{Descriptor, DigestSet, Predicate, Statement};
use kiln_tests::ground::{self, Ground};
use kiln_tests::run::{Kiln, Ran};
use kiln_tests::schema::fits;
use kiln_tests::web::{Answer, Files, Server};
use serde_json::{Value, json};
use tempfile::TempDir;

mod server;

const ORIGIN: &str = "log.example.org/rebuild";
const WITNESS: &str = "w1.example.org";

/// A publisher: keys, evidence, a log.
struct Publisher {
    dir: TempDir,
    kiln: Kiln,
}

impl Publisher {
    fn new() -> Self {
        let (dir, kiln) = (ground::directory(Ground::Tmpfs), Kiln::fresh(Ground::Tmpfs));
        fs::create_dir_all(dir.path().join("keys")).unwrap();
        for (name, seed) in [("log", 1), ("witness", 2), ("rebuilder", 3)] {
            ground::write_secret(dir.path().join(name), SecretKey::ed25519(&[seed; 32]).to_pem(None).as_bytes());
        }
        let public = SecretKey::ed25519(&[3; 32]).public();
        fs::write(dir.path().join("keys/rebuilder.pub"), public.to_pem()).unwrap();
        Self { dir, kiln }
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    /// Writes envelopes about files of these numbers as lines; the file.
    fn evidence(&self, numbers: std::ops::Range<u64>) -> String {
        let mut text = Vec::new();
        for number in numbers.clone() {
            text.extend(envelope(number, json!({})).canonical());
            text.push(b'\n');
        }
        let path = self.path(&format!("{}-{}.intoto.jsonl", numbers.start, numbers.end));
        fs::write(&path, text).unwrap();
        path
    }

    fn publish(&self, more: &[&str]) -> Ran {
        let (to, key, keys) = (self.path("tree"), self.path("log"), self.path("keys"));
        let first = ["publish", "--to", &to, "--log-key", &key, "--origin", ORIGIN, "--keys", &keys];
        self.kiln.run(first.iter().chain(more))
    }

    fn tlog(&self, arguments: &[&str]) -> Ran {
        self.kiln.run(["tlog"].iter().chain(arguments))
    }

    fn vkey(&self) -> String {
        NoteSigner::new(ORIGIN, NoteKind::Log, SecretKey::ed25519(&[1; 32])).unwrap().vkey().to_string()
    }

    fn witness_vkey(&self) -> String {
        NoteSigner::new(WITNESS, NoteKind::Witness, SecretKey::ed25519(&[2; 32])).unwrap().vkey().to_string()
    }

    fn cosign(&self) -> Ran {
        let (key, state, vkey, tree) = (self.path("witness"), self.path("seen"), self.vkey(), self.path("tree"));
        self.tlog(&["witness", "--key", &key, "--name", WITNESS, "--state", &state, "--log", &vkey, &tree])
    }
}

fn statement(number: u64, predicate: Predicate) -> Vec<u8> {
    let digest = DigestSet::of(Digest::of(number.to_string()));
    let subject = vec![Descriptor::of(digest).named_as(format!("file-{number}.deb"))];
    Statement { subject, predicate }.print().unwrap()
}

fn envelope(number: u64, value: Value) -> Envelope {
    let predicate = Predicate::Other { kind: "https://example.org/x".into(), value };
    Envelope::sign(statement(number, predicate), &SecretKey::ed25519(&[3; 32]))
}

/// Programs of the Python that `scripts/setup --test` makes.
fn python(name: &str) -> Option<PathBuf> {
    Some(ground::repository().join("target/kiln-tests-python/bin").join(name)).filter(|program| program.is_file())
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}

#[test]
fn another_implementation_makes_our_proofs_and_finds_our_leaves_and_signatures() {
    let Some(tiles) = python("tlog-tiles") else {
        ground::skipped(
            "another_implementation_makes_our_proofs_and_finds_our_leaves_and_signatures",
            "no tlog-scales: scripts/setup --test",
        );
        return;
    };
    let publisher = Publisher::new();
    publisher.publish(&["--witness", &publisher.witness_vkey(), &publisher.evidence(0..700)]).succeeded();
    let cosigned = publisher.path("cosigned");
    fs::write(&cosigned, publisher.cosign().succeeded().stdout).unwrap();
    publisher.publish(&["--witness", &publisher.witness_vkey(), "--cosignature", &cosigned]).succeeded();

    let log = format!("file://{}", publisher.path("tree"));
    let theirs = |arguments: &[&str]| {
        let mut command = Command::new(&tiles);
        command.args(arguments);
        Ran::of(command)
    };
    for index in [0, 300, 511, 512, 699] {
        let (number, envelope) = (index.to_string(), envelope(index, json!({})));
        let proof = theirs(&["gen-proof", &log, &number]).succeeded().stdout;
        assert_eq!(publisher.tlog(&["proof", &publisher.path("tree"), &number]).succeeded().stdout, proof);
        assert_eq!(
            publisher.tlog(&["proof", &publisher.path("tree"), &envelope.id().to_string()]).succeeded().stdout,
            proof
        );
        let below = format!("tree/by-subject/sha256/{}", Digest::of(number.as_bytes()));
        let published = fs::read_to_string(publisher.path(&format!("{below}/{}.tlog-proof", envelope.id()))).unwrap();
        assert_eq!(published, proof);
        let leaf = theirs(&["get-leaf", "-c", &log, &number]).succeeded().stdout;
        let bundle: Value = serde_json::from_slice(
            &fs::read(publisher.path(&format!("{below}/file-{index}.deb.sigstore.json"))).unwrap(),
        )
        .unwrap();
        let body = bundle["verificationMaterial"]["tlogEntries"][0]["canonicalizedBody"].as_str().unwrap();
        assert_eq!(decoded(body), leaf.as_bytes());
    }
    // Whose signatures hold, by their rules.
    let script = "import sys\nfrom tlog_scales.tlog import Checkpoint\nfrom tlog_scales.signing import Vkey, VkeySet\n\
        cp = Checkpoint.from_text(open(sys.argv[1]).read())\n\
        print(*[k.name for k, _ in sorted(VkeySet(*map(Vkey.from_string, sys.argv[2:])).verify(cp.signatures, cp), key=lambda p: p[0].name)])\n";
    let mut command = Command::new(python("python3").unwrap());
    command.args(["-c", script, &publisher.path("tree/checkpoint"), &publisher.vkey(), &publisher.witness_vkey()]);
    assert_eq!(Ran::of(command).succeeded().stdout, format!("{ORIGIN} {WITNESS}\n"));

    // One flipped bit, and both refuse.
    flip(&publisher.dir.path().join("tree/tile/entries/001"), 5000);
    let named = (256..512).find(|index| !theirs(&["get-leaf", "-c", &log, &index.to_string()]).status.success());
    assert!(named.is_some());
    publisher.tlog(&["verify", &publisher.path("tree")]).exits(6).says(&["tile/0/001"]);
}

#[test]
fn a_log_by_another_implementation_is_checked_and_proved() {
    let (Some(tiles), Some(interpreter)) = (python("tlog-tiles"), python("python3")) else {
        ground::skipped(
            "a_log_by_another_implementation_is_checked_and_proved",
            "no tlog-scales: scripts/setup --test",
        );
        return;
    };
    let publisher = Publisher::new();
    let script = "import sys\nfrom pathlib import Path\nfrom tlog_scales.writer import TilesWriter\nfrom tlog_scales.signing import PlainEd25519Signer\n\
        signer = PlainEd25519Signer(sys.argv[2], bytes([1]) * 32)\n\
        w = TilesWriter.create(Path(sys.argv[1]), sys.argv[2])\n\
        for n in (3, 300, 70):\n  [w.add_leaf(b'leaf %d' % i) for i in range(n)]\n  w.commit([signer], gc=False)\n";
    let mut command = Command::new(interpreter);
    let tree = publisher.path("theirs");
    command.args(["-c", script, &tree, ORIGIN]);
    Ran::of(command).succeeded();
    for index in ["0", "255", "256", "372"] {
        let mut command = Command::new(&tiles);
        command.args(["gen-proof", &format!("file://{tree}"), index]);
        let ours = publisher.tlog(&["proof", &tree, index]).succeeded().stdout;
        assert_eq!(ours, Ran::of(command).succeeded().stdout);
    }
    // It has no envelopes: its entries are somebody else's, and the tree is whole.
    let ran = publisher.tlog(&["verify", &tree, "--log", &publisher.vkey(), "--json"]).exits(4).json();
    assert_eq!((&ran["logs"][0]["size"], ran["withheld"].as_array().unwrap().len()), (&json!(373), 373));
    flip(&Path::new(&tree).join("tile/0/000.p/3"), 40);
    publisher.tlog(&["verify", &tree, "--log", &publisher.vkey()]).exits(6).says(&["tile/0/000.p/3"]);
}

fn decoded(text: &str) -> Vec<u8> {
    // What is in a bundle is compared with bytes of another program: decoded by a third.
    let mut command = Command::new("base64");
    command.arg("-d").stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), text.as_bytes()).unwrap();
    child.wait_with_output().unwrap().stdout
}

#[test]
fn what_is_published_verifies_as_a_tree_a_proof_a_bundle_and_a_checkpoint() {
    let publisher = Publisher::new();
    let document = publisher.publish(&["--json", &publisher.evidence(0..3)]).succeeded().json();
    assert_eq!(
        (&document["schema"], &document["added"], &document["size"]),
        (&json!("kiln/logged/v1"), &json!(3), &json!(3))
    );
    let again = publisher.publish(&["--json", &publisher.evidence(0..3)]).succeeded().json();
    assert_eq!(
        (&again["added"], &again["kept"], &again["checkpoint"]),
        (&json!(0), &json!(3), &document["checkpoint"])
    );

    let (tree, vkey, keys) = (publisher.path("tree"), publisher.vkey(), publisher.path("keys"));
    publisher.tlog(&["verify", &tree]).succeeded().says(&["log's own"]);
    let whole = publisher.tlog(&["verify", &tree, "--log", &vkey, "--json"]).succeeded().json();
    assert_eq!(
        (&whole["schema"], &whole["kind"], &whole["envelopes"]),
        (&json!("kiln/tlog/v1"), &json!("tree"), &json!(3))
    );
    let below = format!("{tree}/by-subject/sha256/{}", Digest::of("1"));
    let envelope = envelope(1, json!({}));
    let file = publisher.path("envelope.json");
    fs::write(&file, envelope.canonical()).unwrap();
    let proof = format!("{below}/{}.tlog-proof", envelope.id());
    let checked = ["--log", &vkey, "--keys", &keys];
    let verify = |more: &[&str]| publisher.tlog(&[&["verify"], more, &checked].concat());
    verify(&[&proof, "--envelope", &file]).succeeded();
    verify(&[&proof]).exits(2).says(&["--envelope"]);
    verify(&[&format!("{below}/file-1.deb.sigstore.json")]).succeeded();
    publisher.tlog(&["verify", &format!("{tree}/checkpoint"), "--log", &vkey]).succeeded();
    publisher.tlog(&["verify", &format!("{tree}/checkpoint")]).exits(2).says(&["--policy"]);

    // Another envelope, another log, a witness that did not sign.
    let other = publisher.path("other.json");
    fs::write(&other, self::envelope(2, json!({})).canonical()).unwrap();
    verify(&[&proof, "--envelope", &other]).exits(6);
    let stranger = NoteSigner::new(ORIGIN, NoteKind::Log, SecretKey::ed25519(&[7; 32])).unwrap().vkey().to_string();
    publisher.tlog(&["verify", &tree, "--log", &stranger]).exits(4);
    let policy = publisher.path("policy");
    fs::write(&policy, format!("log {vkey}\nwitness w {}\nquorum w\n", publisher.witness_vkey())).unwrap();
    publisher.tlog(&["verify", &tree, "--policy", &policy]).exits(4).says(&["quorum w"]);
    fs::write(&policy, format!("log {vkey}\nquorum w\n")).unwrap();
    publisher.tlog(&["verify", &tree, "--policy", &policy]).exits(2).says(&["line 2"]);
}

#[test]
fn evidence_that_no_key_signed_or_that_is_none_is_refused_and_nothing_is_logged() {
    let publisher = Publisher::new();
    let file = publisher.path("bad.json");
    let refuse = |bytes: &[u8], code: i32, words: &[&str]| {
        fs::write(&file, bytes).unwrap();
        publisher.publish(&[&file]).exits(code).says(words);
        assert!(!Path::new(&publisher.path("tree/checkpoint")).exists());
    };
    let predicate = Predicate::Other { kind: "https://example.org/x".into(), value: json!({}) };
    let stranger = Envelope::sign(statement(1, predicate), &SecretKey::ed25519(&[9; 32]));
    refuse(&stranger.canonical(), 2, &["--keys"]);
    let text = String::from_utf8(envelope(1, json!({})).canonical()).unwrap();
    let payload = serde_json::from_str::<Value>(&text).unwrap()["payload"].as_str().unwrap().to_owned();
    refuse(text.replace(&payload, &payload.replacen("eyJ", "eyK", 1)).as_bytes(), 6, &["tampered"]);
    refuse(b"{}", 2, &["no evidence"]);
    refuse(b"", 2, &["no evidence"]);
    let no_statement = Envelope::sign(b"{}".to_vec(), &SecretKey::ed25519(&[3; 32]));
    refuse(&no_statement.canonical(), 2, &["no statement"]);
    publisher.publish(&["/nonexistent/x.json"]).exits(7);

    // How it may be called at all.
    let (tree, key) = (publisher.path("tree"), publisher.path("log"));
    publisher.kiln.run(["publish", "--to", &tree, &file]).exits(2).says(&["--nix-cache", "--log-key"]);
    publisher.kiln.run(["publish", "--to", &tree, "--log-key", &key, &file]).exits(2).says(&["--origin"]);
    publisher.kiln.run(["publish", "--to", &tree, "--nix-cache", "--log-key", &key, "--origin", "x", &file]).exits(2);
    publisher.kiln.run(["publish", "--to", &tree, "--nix-cache"]).exits(2);
    let url = publisher.kiln.run(["publish", "--to", "ftp://x.test/", "--log-key", &key, "--origin", "x", &file]);
    url.exits(2).says(&["ftp://x.test", "directory"]);
    publisher.kiln.run(["publish", "--to", &tree, "--log-key", &key, "--origin", "a b", &file]).exits(2);
}

#[test]
fn a_monitor_shows_what_differs_and_sees_a_rollback_and_what_is_withheld() {
    let publisher = Publisher::new();
    publisher.publish(&[&publisher.evidence(0..3)]).succeeded();
    let (tree, vkey, pinned) = (publisher.path("tree"), publisher.vkey(), publisher.path("pinned"));
    let monitor = || publisher.tlog(&["monitor", &tree, "--log", &vkey, "--pinned", &pinned, "--json"]);
    let first = monitor().succeeded().json();
    assert_eq!((&first["new"], &first["alarms"]), (&json!(3), &json!([])));
    assert_eq!(monitor().succeeded().json()["new"], json!(0));

    let comparison = json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "hello.deb", "digest": {"sha256": Digest::of("hello")}}],
        "predicateType": "https://kiln.build/rebuild-comparison/v1",
        "predicate": {"rebuilder": {"id": "https://rb1.example.org/kiln/sandboxed"}, "outcome": "built", "result": "DIFFERENT",
            "expected": {"digest": {"sha256": Digest::of("hello")}}, "produced": [{"name": "hello.deb", "digest": {"sha256": Digest::of("other")}}],
            "provenance": {"digest": {"sha256": Digest::of("p")}}, "recipe": {"uri": "git+https://example.org/r", "digest": {"sha256": Digest::of("r")}},
            "normalisers": [], "attempts": 1, "flaky": false, "finishedOn": "2026-11-21T10:01:00Z"}});
    let different = Envelope::sign(comparison.to_string().into_bytes(), &SecretKey::ed25519(&[3; 32]));
    let file = publisher.path("different.json");
    fs::write(&file, different.canonical()).unwrap();
    let before = publisher.path("before");
    Command::new("cp").args(["-a", &tree, &before]).status().unwrap();
    publisher.publish(&[&file]).succeeded();

    // Storage withholds it: the entry is there, and what it says is not.
    let id = different.id().to_string();
    let envelope = Path::new(&tree).join(format!("att/sha256/{}/{id}.json", &id[..2]));
    let hidden = publisher.dir.path().join("hidden");
    fs::rename(&envelope, &hidden).unwrap();
    assert_eq!(monitor().exits(4).json()["withheld"], json!([3]));
    fs::rename(&hidden, &envelope).unwrap();
    let found = monitor().exits(1).json();
    assert_eq!((&found["alarms"][0]["result"], &found["alarms"][0]["envelope"]), (&json!("DIFFERENT"), &json!(id)));
    assert_eq!(found["alarms"][0]["subjects"], json!(["hello.deb"]));
    monitor().succeeded();
    let rolled_back = publisher.tlog(&["monitor", &before, "--log", &vkey, "--pinned", &pinned]);
    rolled_back.exits(6).says(&["rolled back"]);
}

#[test]
fn a_witness_cosigns_what_grew_and_no_fork() {
    let (publisher, other) = (Publisher::new(), Publisher::new());
    publisher.publish(&[&publisher.evidence(0..3)]).succeeded();
    let line = publisher.cosign().succeeded().stdout;
    assert!(line.starts_with(&format!("\u{2014} {WITNESS} ")), "{line}");
    publisher.publish(&[&publisher.evidence(3..300)]).succeeded();
    publisher.cosign().succeeded();

    // The same key, the same name, other entries: only the witness knows both.
    other.publish(&[&other.evidence(500..800)]).succeeded();
    let (key, state, vkey, tree) =
        (publisher.path("witness"), publisher.path("seen"), publisher.vkey(), other.path("tree"));
    let witness = ["witness", "--key", &key, "--name", WITNESS, "--state", &state, "--log", &vkey, &tree];
    publisher.tlog(&witness).exits(6).says(&["forked"]);
    other.publish(&[&other.evidence(800..801)]).succeeded();
    publisher.tlog(&witness).exits(6).says(&["history was altered"]);
}

#[test]
fn keys_of_logs_and_witnesses_may_lie_under_a_passphrase() {
    let publisher = Publisher::new();
    for (name, seed) in [("log", 1), ("witness", 2)] {
        let passphrase = Passphrase { words: "open", salt: [seed; 16], iv: [9; 16] };
        let pem = SecretKey::ed25519(&[seed; 32]).to_pem(Some(&passphrase));
        fs::write(publisher.path(name), pem.as_bytes()).unwrap();
    }
    fs::write(publisher.path("words"), "open\nanother line\n").unwrap();
    fs::write(publisher.path("wrong"), "shut\n").unwrap();
    let (words, wrong, evidence) = (publisher.path("words"), publisher.path("wrong"), publisher.evidence(0..3));
    publisher.publish(&[&evidence]).exits(2).says(&["give its passphrase"]);
    publisher.publish(&["--passphrase-file", &wrong, &evidence]).exits(2).says(&["the passphrase does not fit"]);
    publisher.publish(&["--passphrase-file", &words, &evidence]).succeeded();
    let (key, state, vkey, tree) =
        (publisher.path("witness"), publisher.path("seen"), publisher.vkey(), publisher.path("tree"));
    let witness = ["witness", "--key", &key, "--name", WITNESS, "--state", &state, "--log", &vkey, &tree];
    publisher.tlog(&witness).exits(2).says(&["give its passphrase"]);
    publisher.tlog(&[&witness[..], &["--passphrase-file", &words]].concat()).succeeded();
}

#[test]
fn what_was_pulled_over_the_network_verifies_without_one() {
    let publisher = Publisher::new();
    publisher.publish(&["--witness", &publisher.witness_vkey(), &publisher.evidence(0..260)]).succeeded();
    let tree = publisher.dir.path().join("tree");
    let server = Server::of(&tree);
    let online = Kiln::fresh(Ground::Tmpfs).online();
    let (all, some) = (publisher.path("all"), publisher.path("some"));
    let document = online.run(["evidence", "pull", server.address(), "--output", &all, "--json"]).succeeded().json();
    assert_eq!((&document["schema"], &document["envelopes"]), (&json!("kiln/pulled/v1"), &json!(260)));
    let whole = publisher.tlog(&["verify", &all, "--log", &publisher.vkey(), "--json"]).succeeded().json();
    assert_eq!(whole["envelopes"], json!(260));

    let digest = Digest::of("7").to_string();
    server.asked();
    online.run(["evidence", "pull", server.address(), "--output", &some, "--about", &digest]).succeeded();
    assert!(server.asked().len() < 10, "only what was asked for");
    let id = envelope(7, json!({})).id().to_string();
    for file in [format!("att/sha256/{}/{id}.json", &id[..2]), format!("by-subject/sha256/{digest}/{id}.tlog-proof")] {
        assert_eq!(fs::read(Path::new(&some).join(&file)).unwrap(), fs::read(tree.join(&file)).unwrap());
    }
    let unknown = Digest::of("unknown").to_string();
    online.run(["evidence", "pull", server.address(), "--output", &some, "--about", &unknown]).exits(4);
    publisher.kiln.run(["evidence", "pull", server.address(), "--output", &some]).exits(7).says(&["offline"]);
    for address in ["ftp://x.test/", "x", "http://me:secret@127.0.0.1/"] {
        let ran = online.run(["evidence", "pull", address, "--output", &some]).exits(2);
        assert!(!ran.stderr.contains("secret"), "{}", ran.stderr);
    }
}

#[test]
fn a_server_that_lies_or_does_not_end_is_refused() {
    let publisher = Publisher::new();
    publisher.publish(&[&publisher.evidence(0..3)]).succeeded();
    let files = Files::of(&publisher.dir.path().join("tree"));
    let online = Kiln::fresh(Ground::Tmpfs).online();
    let digest = Digest::of("1").to_string();
    let endless = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n".to_vec();
    for (what, target, answer, code) in [
        ("a checkpoint that does not end", "/checkpoint", Answer::Endless(endless.clone()), 2),
        ("a tile that is too large", "/tile/0/000.p/3", Answer::File(vec![0; 97]), 2),
        ("an envelope that does not end", "/att/", Answer::Endless(endless), 2),
        ("another envelope", "/att/sha256", Answer::File(envelope(9, json!({})).canonical()), 6),
        (
            "a key of another name",
            "/keys/",
            Answer::File(SecretKey::ed25519(&[9; 32]).public().to_pem().into_bytes()),
            6,
        ),
        ("no tile", "/tile/0/", Answer::Status(404), 4),
        ("no server", "/checkpoint", Answer::Status(500), 7),
    ] {
        let files = files.clone();
        let server =
            Server::start(move |asked| if asked.starts_with(target) { answer.clone() } else { files.answer(asked) });
        let output = publisher.path(&what.replace(' ', "-"));
        let ran = online.run(["evidence", "pull", server.address(), "--output", &output]);
        assert_eq!(ran.code(), Some(code), "{what}: {}", ran.stderr);
    }
    let server = Server::start(move |asked| files.answer(asked));
    let output = publisher.path("limited");
    let pull =
        |more: &[&str]| online.run(["evidence", "pull", server.address(), "--output", &output].iter().chain(more));
    pull(&["--max-bytes", "2000"]).exits(2).says(&["bytes"]);
    pull(&["--max-files", "3"]).exits(2).says(&["--max-files"]);
    pull(&["--about", &digest]).succeeded();
}

#[test]
fn two_publishers_at_once_log_everything_once() {
    let publisher = Publisher::new();
    let (to, key, keys) = (publisher.path("tree"), publisher.path("log"), publisher.path("keys"));
    let files: Vec<String> = (0..4).map(|number| publisher.evidence(number * 50..number * 50 + 60)).collect();
    let start = |file: &String| {
        publisher.kiln.start(["publish", "--to", &to, "--log-key", &key, "--origin", ORIGIN, "--keys", &keys, file])
    };
    let running: Vec<_> = files.iter().map(start).collect();
    for running in running {
        running.end().succeeded();
    }
    let whole = publisher.tlog(&["verify", &to, "--log", &publisher.vkey(), "--json"]).succeeded().json();
    assert_eq!((&whole["envelopes"], &whole["logs"][0]["size"]), (&json!(210), &json!(210)));
}

#[test]
fn what_these_commands_print_as_json_fits_its_schema() {
    let publisher = Publisher::new();
    let (tree, vkey) = (publisher.path("tree"), publisher.vkey());
    fits("logged", &publisher.publish(&["--json", &publisher.evidence(0..3)]).succeeded().json());
    for arguments in [
        &["verify", &tree, "--log", &vkey][..],
        &["verify", &publisher.path("tree/checkpoint"), "--log", &vkey],
        &["monitor", &tree, "--log", &vkey],
        &["proof", &tree, "1"],
    ] {
        fits("tlog", &publisher.tlog(&[arguments, &["--json"]].concat()).succeeded().json());
    }
    let server = Server::of(Path::new(&tree));
    let online = Kiln::fresh(Ground::Tmpfs).online();
    let output = publisher.path("pulled");
    fits(
        "pulled",
        &online.run(["evidence", "pull", server.address(), "--output", &output, "--json"]).succeeded().json(),
    );
}
