//! A log's writer on a server: broken off at every request, beside another writer, on servers that do not hold to conditions.

use std::collections::BTreeMap;
use std::fs;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use kiln::exit::Kind;
use kiln::fetch::{Host, Network, Policy, Web};
use kiln::publish::{Appended, Batch, Directory, LogWriter, NewFile, Place, PublishError, Server, Signed, inspect};
use kiln_model::digest::Digest;
use kiln_model::key::SecretKey;
use kiln_model::log::{LogPolicy, NoteKind, NoteSigner};
use kiln_tests::ground::{self, Ground};
use kiln_tests::run::Kiln;
use kiln_tests::shelf::{Asked, Fault, Shelf};
use kiln_tests::trust;
use serde_json::json;
use tempfile::TempDir;

use crate::{ORIGIN, Publisher, envelope};

/// Asks so often, and hardly waits in between.
fn web(attempts: u32) -> Web {
    let host = Host::told(BTreeMap::new(), "/nonexistent".into(), |_| None);
    // Long enough that no busy machine takes a good server for a stalled one.
    let stall = Duration::from_secs(60);
    let policy = Policy { parallel: 1, attempts, stall, backoff: Duration::from_millis(1), largest: 1 << 20 };
    Web::new(&host, Network::Online, policy)
}

fn place<'w>(web: &'w Web, address: &str) -> Result<Server<'w>, PublishError> {
    // One after another, so that requests have numbers.
    Server::writing(web, format!("{address}/log/").parse().unwrap(), NonZero::<usize>::MIN)
}

fn batch(numbers: std::ops::Range<u64>) -> Batch {
    let mut batch = Batch::default();
    for number in numbers {
        let key = SecretKey::ed25519(&[3; 32]).public();
        batch.push(Signed::new(envelope(number, json!({})), &key).unwrap().0);
    }
    batch
}

fn signer() -> NoteSigner {
    NoteSigner::new(ORIGIN, NoteKind::Log, SecretKey::ed25519(&[1; 32])).unwrap()
}

fn append(web: &Web, address: &str, state: &Path, numbers: std::ops::Range<u64>) -> Result<Appended, PublishError> {
    LogWriter::open(&place(web, address)?, state, signer(), vec![])?.append(batch(numbers))
}

/// What readers are shown: how many entries, and that all of them hold.
fn size(shelf: &Shelf) -> Option<u64> {
    let tree = shelf.path().join("log");
    let policy = LogPolicy::parse(&format!("log {}\nquorum none\n", signer().vkey())).unwrap();
    let there = tree.join("checkpoint").exists();
    there.then(|| inspect(&Directory::reading(&tree), &policy).unwrap().believed.checkpoint.size)
}

fn files(below: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let (mut files, mut open) = (BTreeMap::new(), vec![below.to_owned()]);
    while let Some(path) = open.pop() {
        for entry in fs::read_dir(&path).into_iter().flatten() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => open.push(path),
                false => drop(files.insert(path.strip_prefix(below).unwrap().to_owned(), fs::read(&path).unwrap())),
            }
        }
    }
    files
}

fn copy(from: &Path, to: &Path) {
    let copied = std::process::Command::new("cp").arg("-a").arg(from).arg(to).status();
    assert!(copied.unwrap().success());
}

/// A log of so many entries: a tree and the state of its writer.
struct Begun {
    place: TempDir,
    entries: u64,
}

impl Begun {
    fn new(entries: u64) -> Self {
        let begun = Self { place: ground::directory(Ground::Tmpfs), entries };
        if entries > 0 {
            let tree = Directory::writing(&begun.at("log")).unwrap();
            LogWriter::open(&tree, &begun.at("state"), signer(), vec![]).unwrap().append(batch(0..entries)).unwrap();
            fs::remove_dir_all(begun.at("log/.kiln")).unwrap();
        }
        begun
    }

    fn at(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    /// The tree on a shelf, and a directory with copies of the state under these names.
    fn on(&self, shelf: &Shelf, states: &[&str]) -> TempDir {
        let own = ground::directory(Ground::Tmpfs);
        if self.entries > 0 {
            copy(&self.at("log"), &shelf.path().join("log"));
            states.iter().for_each(|state| copy(&self.at("state"), &own.path().join(state)));
        }
        own
    }
}

#[test]
fn a_server_and_a_directory_keep_the_same_promises() {
    let (shelf, own, web) = (Shelf::start(), ground::directory(Ground::Tmpfs), web(1));
    let (server, directory) = (place(&web, shelf.address()).unwrap(), Directory::writing(own.path()).unwrap());
    for place in [&server as &dyn Place, &directory] {
        let file = |bytes: &[u8]| NewFile { name: "a/b".into(), bytes: bytes.into() };
        assert_eq!(place.read("a/b", 1).unwrap(), None);
        assert!(matches!(place.replace(&file(b"z"), Some(b"x")), Err(PublishError::Conflict { .. })));
        place.write_new(&[file(b"x"), NewFile { name: "c".into(), bytes: vec![] }]).unwrap();
        place.write_new(&[file(b"x")]).unwrap();
        for other in [&b"y"[..], b"xy", b""] {
            let refused = place.write_new(&[file(other)]).unwrap_err();
            assert!(matches!(refused, PublishError::Changed { .. }), "{refused}");
            assert_eq!(refused.kind(), Kind::Tampered);
        }
        assert!(matches!(place.replace(&file(b"z"), None), Err(PublishError::Conflict { .. })));
        assert!(matches!(place.replace(&file(b"z"), Some(b"y")), Err(PublishError::Conflict { .. })));
        assert!(matches!(place.replace(&file(b"z"), Some(b"longer")), Err(PublishError::Conflict { .. })));
        assert_eq!(place.read("a/b", 1).unwrap().unwrap(), b"x");
        place.replace(&file(b"zz"), Some(b"x")).unwrap();
        place.replace(&file(b"zz"), Some(b"x")).unwrap();
        place.replace(&NewFile { name: "d".into(), bytes: b"d".into() }, None).unwrap();
        assert!(matches!(place.read("a/b", 1), Err(PublishError::TooLarge { .. })));
        place.write_over(&[file(b"w"), NewFile { name: "c".into(), bytes: b"c".into() }]).unwrap();
        for (name, bytes) in [("a/b", b"w"), ("c", b"c"), ("d", b"d")] {
            assert_eq!(place.read(name, 1).unwrap().unwrap(), bytes);
        }
    }
}

#[test]
fn a_server_that_does_not_hold_to_conditions_gets_nothing_but_the_file_it_was_tried_on() {
    type Failing = fn(&Asked) -> Option<Fault>;
    let cases: [(&str, Failing, Kind); 10] = [
        ("(If-None-Match: *)", |asked| (asked.method == "PUT").then_some(Fault::Unconditional), Kind::BadInput),
        (
            "another tag (If-Match)",
            |asked| asked.condition.as_ref()?.starts_with("if-match").then_some(Fault::Unconditional),
            Kind::BadInput,
        ),
        (
            "that has the tag it gave (If-Match)",
            |asked| asked.condition.as_ref()?.starts_with("if-match").then_some(Fault::Status(412)),
            Kind::BadInput,
        ),
        ("no strong ETag", |asked| (asked.method == "GET").then_some(Fault::NoTag), Kind::BadInput),
        ("no strong ETag", |asked| (asked.method == "GET").then_some(Fault::WeakTag), Kind::BadInput),
        ("does not give what was put", |asked| (asked.method == "GET").then_some(Fault::Status(404)), Kind::BadInput),
        ("it takes no uploads", |asked| (asked.method == "PUT").then_some(Fault::Status(405)), Kind::Host),
        (".netrc", |asked| (asked.method == "PUT").then_some(Fault::Status(403)), Kind::Host),
        ("allow to list", |asked| (asked.method == "GET").then_some(Fault::Status(403)), Kind::Host),
        ("log.probe", |asked| (asked.method == "PUT").then_some(Fault::Status(501)), Kind::Host),
    ];
    for (says, fault, kind) in cases {
        let shelf = Shelf::faulty(fault);
        let own = ground::directory(Ground::Tmpfs);
        let refused = append(&web(2), shelf.address(), &own.path().join("state"), 0..3).unwrap_err();
        let text = refused.to_string();
        assert!(text.contains(says) && text.contains(shelf.address()), "{says}: {text}");
        assert_eq!(refused.kind(), kind, "{text}");
        let there = files(shelf.path());
        assert!(there.keys().all(|file| file == Path::new("log/log.probe")), "{:?}", there.keys());
        assert!(!own.path().join("state").exists());
    }
}

#[test]
fn a_server_with_directories_has_them_made_once_and_one_that_has_neither_file_nor_reason_is_told() {
    let own = ground::directory(Ground::Tmpfs);
    let (plain, with) = (Shelf::start(), Shelf::faulty(|_| Some(Fault::Directories)));
    for (shelf, state) in [(&plain, "plain"), (&with, "with")] {
        let state = own.path().join(state);
        append(&web(1), shelf.address(), &state, 0..3).unwrap();
        append(&web(1), shelf.address(), &state, 3..5).unwrap();
    }
    assert!(files(plain.path()) == files(with.path()));
    let made: Vec<_> = with.asked().into_iter().filter(|asked| asked.method == "MKCOL").collect();
    assert!(made.iter().filter(|asked| asked.file == "log/att/").count() <= 2, "once in a run: {made:?}");
    let neither = Shelf::failing(|asked| (asked.method == "PUT").then_some(409));
    let refused = append(&web(1), neither.address(), &own.path().join("neither"), 0..1).unwrap_err();
    let source = std::error::Error::source(&refused).unwrap().to_string();
    assert!(source.contains("or cannot be") && refused.kind() == Kind::Host, "{refused}: {source}");
}

#[test]
fn broken_off_at_any_request_readers_see_the_old_or_the_new_tree_and_the_next_run_finishes() {
    for (first, second) in [(0, 2), (3, 5)] {
        let begun = Begun::new(first);
        let whole = {
            let shelf = Shelf::start();
            let own = begun.on(&shelf, &["state"]);
            append(&web(1), shelf.address(), &own.path().join("state"), first..second).unwrap();
            append(&web(1), shelf.address(), &own.path().join("state"), second..second + 1).unwrap();
            files(shelf.path())
        };
        for fault in [Fault::HangUp, Fault::AnswerLost] {
            for fatal in 0.. {
                let seen = AtomicUsize::new(0);
                let shelf = Shelf::faulty(move |_| (seen.fetch_add(1, Ordering::SeqCst) == fatal).then_some(fault));
                let own = begun.on(&shelf, &["state"]);
                let state = own.path().join("state");
                let appended = append(&web(1), shelf.address(), &state, first..second);
                let asked = shelf.asked().len();
                assert!(size(&shelf).is_none_or(|size| [first, second].contains(&size)));
                if appended.is_ok() {
                    assert!(asked <= fatal && asked > 20, "{asked} requests");
                    break;
                }
                // Whoever comes next finishes the batch before its own.
                let next = append(&web(1), shelf.address(), &state, second..second + 1);
                assert_eq!(next.unwrap(), Appended { added: 1, kept: 0 }, "request {fatal}");
                // Unless the batch was not begun.
                if size(&shelf) == Some(second + 1) {
                    assert!(files(shelf.path()) == whole, "request {fatal}");
                } else {
                    let probe = Path::new("log/log.probe");
                    assert!(
                        fatal < 8
                            && !shelf.asked()[..asked]
                                .iter()
                                .any(|asked| { asked.method == "PUT" && Path::new(&asked.file) != probe })
                    );
                }
            }
        }
        // Asked twice, nothing is broken off at all.
        let lost = Arc::new(AtomicUsize::new(0));
        let count = lost.clone();
        let shelf = Shelf::faulty(move |asked| {
            let first = asked.method == "PUT" && asked.nth == 0;
            first.then(|| count.fetch_add(1, Ordering::SeqCst)).map(|_| Fault::AnswerLost)
        });
        let own = begun.on(&shelf, &["state"]);
        append(&web(2), shelf.address(), &own.path().join("state"), first..second).unwrap();
        append(&web(2), shelf.address(), &own.path().join("state"), second..second + 1).unwrap();
        assert!(files(shelf.path()) == whole);
        assert!(lost.load(Ordering::SeqCst) > 20);
    }
}

#[test]
fn of_two_writers_with_the_same_state_one_goes_on_and_the_other_has_signed_nothing() {
    for first in [0, 3] {
        let begun = Begun::new(first);
        let mut lost = [0, 0];
        // Wherever the one is, the other comes and does all that it has to do. Batches of the same and of other sizes: the
        // names that they write are the same, and are not.
        for (pause, size_of_other) in (0..).flat_map(|pause| [(pause, 1), (pause, 2)]) {
            let (seen, busy) = (AtomicUsize::new(0), AtomicBool::new(false));
            let (address, states) = (Arc::new(OnceLock::<String>::new()), Arc::new(OnceLock::<PathBuf>::new()));
            let theirs = Arc::new(Mutex::new(None));
            let (to, at, put) = (address.clone(), states.clone(), theirs.clone());
            let shelf = Shelf::faulty(move |_| {
                if !busy.load(Ordering::SeqCst) && seen.fetch_add(1, Ordering::SeqCst) == pause {
                    busy.store(true, Ordering::SeqCst);
                    let state = at.get().unwrap().join("other");
                    let appended = append(&web(1), to.get().unwrap(), &state, 50..50 + size_of_other);
                    *put.lock().unwrap() = Some(appended);
                }
                None
            });
            let own = begun.on(&shelf, &["one", "other"]);
            address.set(shelf.address().to_owned()).unwrap();
            states.set(own.path().to_owned()).unwrap();
            let ours = append(&web(1), shelf.address(), &own.path().join("one"), first..first + 2);
            let Some(theirs) = theirs.lock().unwrap().take() else {
                assert!(pause > 20 && ours.is_ok(), "{pause} requests");
                break;
            };
            let (loser, refused, winner, entries) = match (ours, theirs) {
                (Ok(_), Err(refused)) => ("other", refused, "one", 2),
                (Err(refused), Ok(_)) => ("one", refused, "other", size_of_other),
                both => panic!("request {pause}: {both:?}"),
            };
            lost[usize::from(loser == "one")] += 1;
            let signed = |state: &str| fs::read(own.path().join(state).join("checkpoint")).ok();
            assert_eq!(signed(loser), fs::read(begun.at("state/checkpoint")).ok(), "request {pause}: {refused}");
            assert!([Kind::Host, Kind::Tampered].contains(&refused.kind()), "{refused}");
            assert_eq!(size(&shelf), Some(first + entries));
            // It stays so.
            append(&web(1), shelf.address(), &own.path().join(loser), 70..71).unwrap_err();
            append(&web(1), shelf.address(), &own.path().join(winner), 70..71).unwrap();
            assert_eq!(size(&shelf), Some(first + entries + 1));
        }
        assert!(lost.iter().all(|lost| *lost > 5), "{lost:?}");
    }
}

#[test]
fn a_checkpoint_or_a_name_that_somebody_else_wrote_meanwhile_is_not_written_over() {
    let begun = Begun::new(3);
    // Another checkpoint of the same log, which its key signed.
    let further = Begun::new(4);
    for (file, kind) in [("checkpoint", Kind::Host), ("tile/0/000.p/5", Kind::Tampered)] {
        let root = Arc::new(OnceLock::<PathBuf>::new());
        let (at, bytes) = (root.clone(), fs::read(further.at("log/checkpoint")).unwrap());
        let theirs = bytes.clone();
        let shelf = Shelf::faulty(move |asked| {
            if asked.method == "PUT" && asked.file == format!("log/{file}") {
                let place = at.get().unwrap().join(&asked.file);
                fs::create_dir_all(place.parent().unwrap()).unwrap();
                fs::write(place, &bytes).unwrap();
            }
            None
        });
        root.set(shelf.path().to_owned()).unwrap();
        let own = begun.on(&shelf, &["state"]);
        let refused = append(&web(2), shelf.address(), &own.path().join("state"), 3..5).unwrap_err();
        assert_eq!(refused.kind(), kind, "{refused}");
        assert!(refused.to_string().contains(file), "{refused}");
        assert!(fs::read(shelf.path().join("log").join(file)).unwrap() == theirs);
        assert!(shelf.asked().iter().any(|asked| asked.status == 412 && asked.file.ends_with(file)));
    }
}

/// A publisher who puts a log on a shelf.
fn publishing(shelf: &Shelf, settings: &str) -> (Publisher, String) {
    let mut publisher = Publisher::new();
    publisher.kiln = publisher.kiln.online();
    publisher.kiln.configure(&format!("[fetch]\nclients = []\n{settings}"));
    let address = format!("{}/logs/rebuild", shelf.address());
    (publisher, address)
}

impl Publisher {
    fn put(&self, to: &str, more: &[&str]) -> kiln_tests::run::Ran {
        let (key, keys) = (self.path("log"), self.path("keys"));
        let first = ["publish", "--to", to, "--log-key", &key, "--origin", ORIGIN, "--keys", &keys];
        self.kiln.run(first.iter().chain(more))
    }
}

#[test]
fn a_log_on_a_server_has_the_files_of_one_in_a_directory_and_verifies_as_pulled_by_a_policy() {
    let shelf = Shelf::start();
    let (publisher, to) = publishing(&shelf, "attempts = 2\n");
    let built = publisher.path("built.json");
    fs::write(&built, provenance().canonical()).unwrap();
    let other = publisher.path("tree");
    for evidence in [publisher.evidence(0..260), built, publisher.evidence(258..262)] {
        let said = publisher.put(&to, &["--json", &evidence]).succeeded().json();
        let states = publisher.path("state-of-directory");
        assert_eq!(said["size"], publisher.put(&other, &["--state", &states, "--json", &evidence]).json()["size"]);
    }
    let (mut put, mut written) = (files(&shelf.path().join("logs/rebuild")), files(Path::new(&other)));
    written.retain(|file, _| !file.starts_with(".kiln"));
    put.retain(|file, _| !file.starts_with("claim") && file != Path::new("log.probe"));
    assert!(put == written, "{:?}", put.keys().filter(|file| !written.contains_key(*file)).collect::<Vec<_>>());

    let pulled = publisher.path("pulled");
    publisher.kiln.run(["evidence", "pull", &to, "--output", &pulled]).succeeded();
    let whole = publisher.tlog(&["verify", &pulled, "--log", &publisher.vkey(), "--json"]).succeeded().json();
    assert_eq!(whole["envelopes"], json!(263));
    let [policy, artifact, about] = ["policy.toml", "hello.bin", "about"].map(|name| publisher.path(name));
    fs::write(&artifact, "hello").unwrap();
    let digest = Digest::of("hello").to_string();
    publisher.kiln.run(["evidence", "pull", &to, "--output", &about, "--about", &digest]).succeeded();
    fs::copy(Path::new(&about).join("policy/log.policy"), publisher.path("log.policy")).unwrap();
    let rules = format!(
        "schema = 1\n[artifact]\nmatch = \"*\"\nresource_uri = \"https://dl.example.org/{{name}}\"\n\
         [threshold]\nidentical = 1\nmin_independence = {{ operators = 1 }}\n\
         [provenance]\nexternal_parameters = {{ recipe = \"*\", target = \"*\" }}\n\
         [[rebuilder]]\nid = \"https://rb1.example.org\"\noperator = \"one\"\nkeys = [\"sha256:{}\"]\nvalid = [\"2020-01-01\", \"2100-01-01\"]\n\
         [log]\ntlog_policy = \"log.policy\"\n",
        SecretKey::ed25519(&[3; 32]).public().id()
    );
    fs::write(&policy, rules).unwrap();
    let keys = publisher.path("keys");
    // The default: no network.
    let verifier = Kiln::fresh(Ground::Tmpfs);
    let verify =
        || verifier.run(["verify", &artifact, "--policy", &policy, "--evidence", &about, "--keys", &keys, "--explain"]);
    let ran = verify();
    assert_eq!(ran.code(), Some(0), "{}{}", ran.stdout, ran.stderr);
    fs::write(&artifact, "hullo").unwrap();
    assert_eq!(verify().code(), Some(4));
}

fn provenance() -> kiln_model::envelope::Envelope {
    let statement = trust::provenance("https://rb1.example.org");
    let bytes = kiln_model::canonical::print(&statement).unwrap();
    kiln_model::envelope::Envelope::sign(bytes, &SecretKey::ed25519(&[3; 32]))
}

#[test]
fn a_server_or_a_state_that_was_rolled_back_and_a_second_state_are_told_from_a_failure() {
    let shelf = Shelf::start();
    let (publisher, to) = publishing(&shelf, "attempts = 1\n");
    publisher.put(&to, &[&publisher.evidence(0..3)]).succeeded();
    let (tree, old) = (shelf.path().join("logs"), shelf.path().join("old"));
    copy(&tree, &old);
    publisher.put(&to, &[&publisher.evidence(3..5)]).succeeded();
    let second = publisher.path("second");
    publisher.put(&to, &["--state", &second, &publisher.evidence(5..6)]).exits(6).says(&["what was signed last"]);
    fs::remove_dir_all(&tree).unwrap();
    fs::rename(&old, &tree).unwrap();
    let there = files(&tree);
    publisher.put(&to, &[&publisher.evidence(5..7)]).exits(6).says(&["what was signed last", shelf.address()]);
    assert!(files(&tree) == there, "nothing is signed over it");
    fs::remove_dir_all(&tree).unwrap();
    publisher.put(&to, &[&publisher.evidence(5..7)]).exits(6).says(&["is at nothing"]);

    for (address, says) in [
        ("s3://bucket/log", "nothing is put to s3://"),
        ("https://example.test/log?x=s3cret", "parameters"),
        ("https://me:s3cret@example.test/log", ".netrc"),
    ] {
        let refused = publisher.put(address, &[]).exits(2).says(&[says]);
        assert!(!refused.stderr.contains("s3cret"), "{}", refused.stderr);
    }
    let offline = Kiln::with_store(publisher.kiln.store());
    let (key, keys) = (publisher.path("log"), publisher.path("keys"));
    let words = ["publish", "--to", &to, "--log-key", &key, "--origin", ORIGIN, "--keys", &keys];
    offline.run(words).exits(7).says(&["offline"]);
}

#[test]
fn a_server_that_fails_or_says_nothing_is_given_up_and_what_is_left_is_published_by_the_next_run() {
    for (fault, says) in [(Fault::Status(503), "answered 503"), (Fault::Stall, "stalled"), (Fault::HangUp, "putting")] {
        let well = Arc::new(AtomicBool::new(false));
        let healed = well.clone();
        let shelf = Shelf::faulty(move |asked| {
            let fails = asked.method == "PUT" && asked.file.contains("/att/") && !healed.load(Ordering::SeqCst);
            fails.then_some(fault)
        });
        let (publisher, to) = publishing(&shelf, "attempts = 2\nparallel = 4\nstall-seconds = 1\n");
        let evidence = publisher.evidence(0..60);
        publisher.put(&to, &[&evidence]).exits(7).says(&["att/", says, shelf.address(), "publish again"]);
        if fault == Fault::Status(503) {
            let failed = shelf.asked().iter().filter(|asked| asked.status == 503).count();
            let most = 2 * std::thread::available_parallelism().map_or(4, |number| number.get().max(4));
            assert!((2..=most).contains(&failed), "twice for each of those that were under way: {failed}");
        }
        assert!(!shelf.path().join("logs/rebuild/checkpoint").exists());
        well.store(true, Ordering::SeqCst);
        let said = publisher.put(&to, &["--json", &evidence]).succeeded().json();
        assert_eq!((&said["size"], &said["kept"]), (&json!(60), &json!(60)), "the batch that was begun is finished");
    }
}

#[test]
fn credentials_are_read_from_netrc_and_sent_with_all_that_is_asked() {
    let shelf = Shelf::failing(|asked| (asked.authorization.as_deref() != Some("Basic bWU6czNjcmV0")).then_some(401));
    let (publisher, to) = publishing(&shelf, "attempts = 2\n");
    let evidence = publisher.evidence(0..3);
    publisher.put(&to, &[&evidence]).exits(7).says(&["401", ".netrc"]);
    assert_eq!(shelf.asked().len(), 1, "asking again does not help");
    fs::write(publisher.kiln.home().join(".netrc"), "machine 127.0.0.1 login me password s3cret\n").unwrap();
    publisher.put(&to, &[&evidence]).succeeded();
}
