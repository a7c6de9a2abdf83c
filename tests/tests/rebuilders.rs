//! Three rebuilders with stores, keys, logs and network namespaces of their own, and somebody who believes two of three: what
//! each kind of misbehaviour comes to.

use std::fs;
use std::path::Path;

use kiln_model::canonical;
use kiln_model::digest::Digest;
use kiln_model::envelope::Envelope;
use kiln_model::key::SecretKey;
use kiln_model::log::{NoteKind, NoteSigner};
use kiln_tests::derivation::{Made, with_builder};
use kiln_tests::ground::{self, Ground};
use kiln_tests::run::{Kiln, Ran};
use serde_json::{Value, json};
use tempfile::TempDir;

const RECIPE: &str = "git+https://example.org/r@refs/tags/v1#hello";

/// One of them: `n` names its keys and its log.
struct Rebuilder {
    n: u8,
    kiln: Kiln,
    /// Where its output lies.
    output: String,
}

/// All of them, in one directory for files.
struct World {
    place: TempDir,
    rebuilders: Vec<Rebuilder>,
}

fn id(n: u8) -> String {
    format!("https://rb{n}.example.org/kiln/sandboxed")
}

fn origin(n: u8) -> String {
    format!("rb{n}.example.org/log")
}

fn statement_key(n: u8) -> SecretKey {
    SecretKey::ed25519(&[n; 32])
}

fn log_key(n: u8) -> SecretKey {
    SecretKey::ed25519(&[100 + n; 32])
}

impl World {
    /// Each has built the same derivation, alone, and attested what came of it; nothing is published yet.
    fn new(test: &str) -> Option<Self> {
        let place = ground::directory(Ground::Tmpfs);
        let at = |name: String| place.path().join(name).display().to_string();
        fs::create_dir(place.path().join("keys")).unwrap();
        let made = Made::default();
        let derivation = made.closed("hello", &[], "busybox mkdir $out; echo hello > $out/hello").path;
        let derivation = made.file(&derivation).display().to_string();
        let mut rebuilders = Vec::new();
        for n in 1..=3 {
            let kiln = with_builder(test)?.cut_off();
            ground::write_secret(at(format!("statement-{n}")), statement_key(n).to_pem(None).as_bytes());
            ground::write_secret(at(format!("log-{n}")), log_key(n).to_pem(None).as_bytes());
            fs::write(at(format!("keys/{n}.pub")), statement_key(n).public().to_pem()).unwrap();
            let built = kiln.run(["build", "--json", &derivation]).succeeded().json();
            let path = built["builds"][0]["outputs"]["out"]["path"].as_str().unwrap().to_owned();
            let output = kiln.run(["store", "where", &path]).succeeded().stdout.trim().to_owned();
            let (key, to) = (at(format!("statement-{n}")), at(format!("attested-{n}")));
            let words = ["attest", &derivation, "--key", &key, "--builder-id", &id(n), "--output", &to];
            kiln.run([&words[..], &["--recipe-uri", RECIPE]].concat()).succeeded();
            rebuilders.push(Rebuilder { n, kiln, output });
        }
        let world = Self { place, rebuilders };
        world.policy(|n| format!("org-{n}"));
        Some(world)
    }

    fn at(&self, name: &str) -> String {
        self.place.path().join(name).display().to_string()
    }

    /// Two operators have to agree; `operator` says whose each rebuilder is.
    fn policy(&self, operator: impl Fn(u8) -> String) {
        let mut policy = format!(
            "schema = 1\n[artifact]\nmatch = \"*\"\nresource_uri = \"https://dl.example.org/{{name}}\"\n\
             [threshold]\nidentical = 2\n[provenance]\n\
             external_parameters = {{ recipe = \"{RECIPE}\", target = \"*\" }}\n\
             [log]\ntlog_policy = \"log.policy\"\npinned_checkpoint = \"pins\"\n"
        );
        let mut logs = String::new();
        for n in 1..=3 {
            let key = statement_key(n).public().id();
            policy += &format!(
                "[[rebuilder]]\nid = \"{}\"\noperator = \"{}\"\nkeys = [\"sha256:{key}\"]\nvalid = [\"2020-01-01\", \"2100-01-01\"]\n",
                id(n),
                operator(n)
            );
            let signer = NoteSigner::new(&origin(n), NoteKind::Log, log_key(n)).unwrap();
            logs += &format!("log {}\n", signer.vkey());
        }
        fs::write(self.at("policy.toml"), policy).unwrap();
        fs::write(self.at("log.policy"), format!("{logs}quorum none\n")).unwrap();
    }

    /// The provenance that rebuilder `n` signed, as its payload.
    fn provenance(&self, n: u8) -> Value {
        let directory = fs::read_dir(self.at(&format!("attested-{n}"))).unwrap();
        let mut files = directory.map(|entry| entry.unwrap().path());
        let file = files.find(|path| path.extension().is_some_and(|extension| extension == "json")).unwrap();
        let envelope = Envelope::parse(&fs::read(file).unwrap()).unwrap();
        serde_json::from_slice(envelope.payload()).unwrap()
    }

    /// Puts `statement`, signed by rebuilder `n`, where it publishes from, in place of what was there.
    fn says_instead(&self, n: u8, statement: &Value) {
        let directory = self.at(&format!("attested-{n}"));
        fs::remove_dir_all(&directory).unwrap();
        fs::create_dir(&directory).unwrap();
        self.says_too(n, "statement", statement);
    }

    /// Puts it beside what was there.
    fn says_too(&self, n: u8, name: &str, statement: &Value) {
        let envelope = Envelope::sign(canonical::print(statement).unwrap(), &statement_key(n));
        fs::write(self.at(&format!("attested-{n}/{name}.json")), envelope.canonical()).unwrap();
    }

    fn publish(&self, n: u8) {
        let rebuilder = self.rebuilders.iter().find(|rebuilder| rebuilder.n == n).unwrap();
        let (tree, key, keys) = (self.at(&format!("tree-{n}")), self.at(&format!("log-{n}")), self.at("keys"));
        let evidence = self.at(&format!("attested-{n}"));
        let origin = origin(n);
        let words = ["publish", "--to", &tree, "--log-key", &key, "--origin", &origin, "--keys", &keys, &evidence];
        rebuilder.kiln.run(words).succeeded();
    }

    /// Decides on what the first one built, by the trees of `from`.
    fn verify(&self, from: &[u8]) -> Ran {
        let (policy, first) = (self.at("policy.toml"), &self.rebuilders[0]);
        let mut words = vec!["verify".to_owned(), first.output.clone(), "--policy".into(), policy];
        for n in from {
            words.extend(["--evidence".to_owned(), self.at(&format!("tree-{n}"))]);
        }
        first.kiln.run(words)
    }

    /// A statement of rebuilder `n` that it got something else from the same recipe.
    fn different(&self, n: u8) -> Value {
        let own = self.provenance(n);
        json!({
            "_type": "https://in-toto.io/Statement/v1",
            "subject": own["subject"],
            "predicateType": "https://kiln.build/rebuild-comparison/v1",
            "predicate": {
                "rebuilder": { "id": id(n) },
                "recipe": { "uri": RECIPE, "digest": { "sha256": Digest::of("r").to_string() } },
                "outcome": "built", "result": "DIFFERENT", "expected": own["subject"][0],
                "produced": [{ "name": "out.nar", "digest": { "sha256": Digest::of("other").to_string() } }],
                "provenance": { "digest": { "sha256": Digest::of("p").to_string() } },
                "normalisers": [], "attempts": 1, "flaky": false, "finishedOn": "2026-11-21T10:02:00Z",
            },
        })
    }
}

#[test]
fn two_of_three_strangers_are_enough_and_one_is_not() {
    let Some(world) = World::new("two_of_three_strangers_are_enough_and_one_is_not") else { return };
    (1..=3).for_each(|n| world.publish(n));
    world.verify(&[1, 2, 3]).exits(0);
    // One is silent, or its storage lost everything.
    world.verify(&[1, 3]).exits(0);
    world.verify(&[2]).exits(4);
    // Files that nobody vouches for.
    fs::write(world.at("other"), "other").unwrap();
    let words = ["verify", &world.at("other"), "--policy", &world.at("policy.toml"), "--evidence", &world.at("tree-1")];
    world.rebuilders[0].kiln.run(words).exits(4);
}

#[test]
fn a_liar_adds_nothing_and_a_dissenter_is_heard() {
    let Some(world) = World::new("a_liar_adds_nothing_and_a_dissenter_is_heard") else { return };
    let mut lie = world.provenance(3);
    lie["subject"][0]["digest"] = json!({ "sha256": Digest::of("a back door").to_string() });
    world.says_instead(3, &lie);
    (1..=3).for_each(|n| world.publish(n));
    world.verify(&[1, 2, 3]).exits(0);
    world.verify(&[1, 3]).exits(4);

    world.says_too(2, "different", &world.different(2));
    world.publish(2);
    world.verify(&[1, 2, 3]).exits(1);
}

#[test]
fn two_names_of_one_operator_are_one() {
    let Some(world) = World::new("two_names_of_one_operator_are_one") else { return };
    (1..=3).for_each(|n| world.publish(n));
    world.policy(|n| if n == 3 { "org-3".into() } else { "org-1".into() });
    world.verify(&[1, 2]).exits(4);
    world.verify(&[1, 3]).exits(0);
}

#[test]
fn an_old_statement_says_nothing_of_a_new_artifact() {
    let Some(world) = World::new("an_old_statement_says_nothing_of_a_new_artifact") else { return };
    let mut old = world.provenance(2);
    old["subject"][0]["digest"] = json!({ "sha256": Digest::of("the version before").to_string() });
    world.says_instead(2, &old);
    (1..=2).for_each(|n| world.publish(n));
    world.verify(&[1, 2]).exits(4);
    // Under another's id it is no evidence either.
    let mut borrowed = world.provenance(1);
    borrowed["predicate"]["runDetails"]["builder"]["id"] = json!(id(2));
    world.says_too(1, "borrowed", &borrowed);
    world.publish(1);
    world.verify(&[1]).exits(4);
}

#[test]
fn storage_that_goes_back_forks_or_alters_is_caught() {
    let Some(world) = World::new("storage_that_goes_back_forks_or_alters_is_caught") else { return };
    (1..=3).for_each(|n| world.publish(n));
    let tree = world.at("tree-3");
    copy(Path::new(&tree), Path::new(&world.at("before")));
    world.says_too(3, "different", &world.different(3));
    world.publish(3);
    world.verify(&[1, 2, 3]).exits(1);
    world.policy(|n| format!("org-{n}"));
    // What was pinned only by a yes is pinned now by one.
    fs::remove_file(world.at("attested-3/different.json")).unwrap();
    world.verify(&[1, 2]).exits(0);

    // A monitor that has seen the longer log is shown the shorter one.
    let pinned = world.at("pinned");
    fs::copy(format!("{tree}/checkpoint"), &pinned).unwrap();
    let signer = NoteSigner::new(&origin(3), NoteKind::Log, log_key(3)).unwrap();
    let vkey = signer.vkey().to_string();
    let monitor =
        |tree: &str| world.rebuilders[0].kiln.run(["tlog", "monitor", tree, "--log", &vkey, "--pinned", &pinned]);
    monitor(&world.at("before")).exits(6);
    fs::remove_file(&pinned).unwrap();
    let told = monitor(&tree).exits(1);
    assert!(told.stdout.contains("DIFFERENT"), "{}", told.stdout);

    // One flipped bit of what was signed.
    let envelopes = walk(Path::new(&world.at("tree-1/att")));
    let envelope = envelopes.iter().find(|path| path.extension().is_some_and(|extension| extension == "json")).unwrap();
    let mut bytes = fs::read(envelope).unwrap();
    let at = bytes.windows(7).position(|window| window == b"\"sig\":\"").unwrap() + 12;
    bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
    fs::write(envelope, bytes).unwrap();
    world.verify(&[1, 2]).exits(6);
}

fn walk(directory: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(walk(&path)),
            false => found.push(path),
        }
    }
    found
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &to.join(entry.file_name())),
            false => drop(fs::copy(entry.path(), to.join(entry.file_name())).unwrap()),
        }
    }
}
