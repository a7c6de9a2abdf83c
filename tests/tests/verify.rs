//! `kiln verify` and `kiln policy` as they are called: files in, exit codes, JSON and summaries out, and no socket.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use kiln_model::canonical;
use kiln_model::digest::Digest;
use kiln_model::envelope::Envelope;
use kiln_model::key::{Passphrase, SecretKey};
use kiln_model::statement::Predicate;
use kiln_model::statement::summary::VerificationResult;
use kiln_tests::ground::{self, Ground};
use kiln_tests::run::{Kiln, Ran};
use kiln_tests::schema::fits;
use serde_json::{Value, json};
use tempfile::TempDir;

const NOW: &str = "2026-11-22T12:00:00Z";

/// A published file, a policy of two of three operators, their keys, and a directory for evidence.
struct World {
    place: TempDir,
    kiln: Kiln,
}

fn key(n: u8) -> SecretKey {
    SecretKey::ed25519(&[n; 32])
}

fn id(n: u8) -> String {
    format!("https://rb{n}.example.org/kiln/sandboxed")
}

fn digests(text: &str) -> Value {
    json!({ "sha256": Digest::of(text).to_string() })
}

fn provenance(n: u8, made: &str) -> Value {
    json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{ "name": "hello.bin", "digest": digests(made) }],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": "https://kiln.build/build/v1",
                "externalParameters": { "recipe": "git+https://example.org/r@refs/tags/v1#recipes/hello/recipe.toml", "target": "hello" },
                "internalParameters": { "signer": "separate", "system": "x86_64-linux" },
                "resolvedDependencies": [{ "uri": "pkg:deb/debian/gcc-12@12.2.0-14?arch=amd64", "digest": digests("gcc") }],
            },
            "runDetails": {
                "builder": { "id": id(n), "version": { "kiln": "0.1.0" } },
                "metadata": { "invocationId": "1", "startedOn": "2026-11-21T10:00:00Z", "finishedOn": "2026-11-21T10:01:00Z" },
                "byproducts": [{ "name": "build.log", "digest": digests("log") }, { "name": "manifest.json", "digest": digests("m") }],
            },
        },
    })
}

fn different(n: u8) -> Value {
    json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{ "name": "hello.bin", "digest": digests("hello") }],
        "predicateType": "https://kiln.build/rebuild-comparison/v1",
        "predicate": {
            "rebuilder": { "id": id(n) }, "recipe": { "uri": "git+https://example.org/r", "digest": digests("r") },
            "outcome": "built", "result": "DIFFERENT", "expected": { "uri": "pkg:generic/hello@1.0", "digest": digests("hello") },
            "produced": [{ "name": "hello.bin", "digest": digests("other") }], "provenance": { "digest": digests("p") },
            "normalisers": [], "attempts": 1, "flaky": false, "finishedOn": "2026-11-21T10:02:00Z",
        },
    })
}

fn signed(n: u8, statement: &Value) -> Vec<u8> {
    Envelope::sign(canonical::print(statement).unwrap(), &key(n)).canonical()
}

impl World {
    fn new() -> Self {
        let world = Self { place: ground::directory(Ground::Disk), kiln: Kiln::fresh(Ground::Disk) };
        for directory in ["keys", "evidence"] {
            fs::create_dir(world.at(directory)).unwrap();
        }
        let mut policy = String::from(
            "schema = 1\n[artifact]\nmatch = \"pkg:generic/hello@*\"\nresource_uri = \"https://dl.example.org/{name}\"\n\
             [threshold]\nidentical = 2\n[provenance]\n\
             external_parameters = { recipe = \"git+https://example.org/r@refs/tags/v*\", target = \"*\" }\n\
             [log]\nrequire_inclusion = false\n",
        );
        for n in 1..=3 {
            let public = key(n).public();
            fs::write(world.at(&format!("keys/{n}.pub")), public.to_pem()).unwrap();
            policy += &format!(
                "[[rebuilder]]\nid = \"{}\"\noperator = \"org-{n}\"\nkeys = [\"sha256:{}\"]\nvalid = [\"2026-01-01\", \"2027-01-01\"]\n",
                id(n),
                public.id()
            );
        }
        fs::write(world.at("policy.toml"), policy).unwrap();
        fs::write(world.at("hello.bin"), "hello").unwrap();
        world.evidence("1.json", &signed(1, &provenance(1, "hello")));
        let line = signed(2, &provenance(2, "hello"));
        world.evidence("hello.intoto.jsonl", &[b"# not evidence\n\n", &line[..], b"\n{}\n"].concat());
        world
    }

    fn at(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    fn evidence(&self, name: &str, bytes: &[u8]) {
        fs::write(self.at("evidence").join(name), bytes).unwrap();
    }

    fn verify(&self, more: &[&str]) -> Ran {
        verify(&self.kiln, self.place.path(), more)
    }

    /// Runs it with `--json`; the exit code is `code` and the document fits its schema.
    fn document(&self, code: i32) -> Value {
        let ran = self.verify(&["--json"]);
        assert_eq!(ran.code(), Some(code), "{}{}", ran.stdout, ran.stderr);
        let document: Value = serde_json::from_str(&ran.stdout).unwrap();
        fits("decisions", &document);
        document
    }
}

fn verify(kiln: &Kiln, place: &Path, more: &[&str]) -> Ran {
    let at = |name: &str| place.join(name).display().to_string();
    let (artifact, policy, evidence) = (at("hello.bin"), at("policy.toml"), at("evidence"));
    let mut arguments = vec!["verify", &artifact, "--policy", &policy, "--evidence", &evidence, "--now", NOW];
    arguments.extend(more);
    kiln.run(arguments)
}

#[test]
fn two_of_three_let_an_artifact_in_and_it_is_said_why() {
    let world = World::new();
    let document = world.document(0);
    assert_eq!(document["decisions"][0]["verdict"], "reproduced");
    assert_eq!(document["evidence"]["statements"], 2);
    let ran = world.verify(&["--explain"]);
    for words in
        ["allowed: ", "operators that built the same bytes", "org-1: IDENTICAL (counts)", "SLSA_BUILD_REPRODUCED"]
    {
        assert!(ran.stdout.contains(words), "{words}\n{}", ran.stdout);
    }
}

#[test]
fn each_kind_of_refusal_has_its_exit_code() {
    let world = World::new();
    world.evidence("3.json", &signed(3, &different(3)));
    assert_eq!(world.document(1)["decisions"][0]["answer"], "denied");

    let tampered = String::from_utf8(signed(3, &provenance(3, "hello"))).unwrap();
    let swapped = Envelope::parse(&signed(1, &provenance(3, "other"))).unwrap().canonical();
    let payload = |text: &str| serde_json::from_str::<Value>(text).unwrap()["payload"].as_str().unwrap().to_owned();
    let other = payload(std::str::from_utf8(&swapped).unwrap());
    world.evidence("4.json", tampered.replace(&payload(&tampered), &other).as_bytes());
    let document = world.document(6);
    assert_eq!(document["evidence"]["tampered"], 1);
    let ran = world.verify(&[]);
    assert!(ran.stdout.contains("4.json") && ran.stdout.contains("signature (tampered)"), "{}", ran.stdout);

    let world = World::new();
    fs::remove_file(world.at("evidence/1.json")).unwrap();
    assert_eq!(world.document(4)["decisions"][0]["answer"], "insufficient");
    fs::remove_file(world.at("evidence/hello.intoto.jsonl")).unwrap();
    world.document(4);

    let policy = fs::read_to_string(world.at("policy.toml")).unwrap();
    for (change, words) in [
        (policy.replace("identical = 2", "identical = 4"), "threshold.identical: 4"),
        (policy.replace("identical = 2", "identical = 2\nallow_flakey = true"), "allow_flaky"),
        (policy.replace("require_inclusion = false", ""), "log.policy"),
    ] {
        fs::write(world.at("policy.toml"), change).unwrap();
        let ran = world.verify(&[]);
        assert_eq!(ran.code(), Some(2), "{}", ran.stderr);
        assert!(ran.stderr.contains(words) && ran.stderr.contains("policy.toml"), "{}", ran.stderr);
    }
    fs::write(world.at("policy.toml"), policy).unwrap();
    fs::remove_dir_all(world.at("keys")).unwrap();
    assert_eq!(world.verify(&[]).code(), Some(2));
    fs::create_dir(world.at("keys")).unwrap();
    let ran = world.verify(&[]);
    assert_eq!(ran.code(), Some(2));
    assert!(ran.stderr.contains("none of the 3 keys"), "{}", ran.stderr);
}

#[test]
fn it_opens_no_socket() {
    let strace = std::process::Command::new("strace").arg("-V").output().is_ok_and(|output| output.status.success());
    if !strace && !ground::skipped("it_opens_no_socket", "host lacks strace") {
        return;
    }
    let mut world = World::new();
    let trace = world.at("trace");
    let calls = "trace=%network";
    world.kiln = Kiln::fresh(Ground::Disk)
        .through(["strace", "-f", "-qq", "-e", calls, "-o", trace.to_str().unwrap()].map(ToOwned::to_owned));
    world.document(0);
    assert_eq!(
        fs::read_to_string(trace).unwrap().lines().filter(|line| !line.contains("+++")).collect::<Vec<_>>(),
        [""; 0]
    );
}

#[test]
fn links_that_lead_out_broken_ones_and_unreadable_files_are_errors_that_name_them() {
    let world = World::new();
    fs::write(world.at("outside.json"), signed(3, &provenance(3, "hello"))).unwrap();
    let link = world.at("evidence/link.json");
    symlink(world.at("outside.json"), &link).unwrap();
    let ran = world.verify(&[]);
    assert_eq!(ran.code(), Some(2));
    assert!(ran.stderr.contains("link.json") && ran.stderr.contains("outside.json"), "{}", ran.stderr);
    fs::remove_file(&link).unwrap();
    symlink("1.json", &link).unwrap();
    assert_eq!(world.verify(&[]).code(), Some(0));
    fs::remove_file(&link).unwrap();
    symlink("nothing", &link).unwrap();
    let ran = world.verify(&[]);
    assert_eq!(ran.code(), Some(2));
    assert!(ran.stderr.contains("link.json"), "{}", ran.stderr);
    fs::remove_file(&link).unwrap();

    world.evidence("secret.json", b"{}");
    fs::set_permissions(world.at("evidence/secret.json"), fs::Permissions::from_mode(0o000)).unwrap();
    let ran = match nix::unistd::geteuid().is_root() {
        true => {
            let ordinary = ["setpriv", "--reuid=1234", "--regid=1234", "--clear-groups"].map(ToOwned::to_owned);
            fs::set_permissions(world.place.path(), fs::Permissions::from_mode(0o755)).unwrap();
            verify(&Kiln::fresh(Ground::Disk).through(ordinary), world.place.path(), &[])
        }
        false => world.verify(&[]),
    };
    assert_eq!(ran.code(), Some(7), "{}{}", ran.stdout, ran.stderr);
    assert!(ran.stderr.contains("secret.json"), "{}", ran.stderr);
}

#[test]
fn huge_files_and_lines_decide_nothing_and_are_named() {
    let world = World::new();
    let huge = vec![b'['; 100 << 20];
    world.evidence("huge.json", &huge);
    world.evidence("huge.jsonl", &huge);
    let document = world.document(0);
    let ignored = document["evidence"]["ignored_because"].to_string();
    assert!(ignored.contains("huge.json\"") && ignored.contains("huge.jsonl:1"), "{ignored}");
}

#[test]
fn a_summary_says_what_was_decided_and_never_passes_what_was_not() {
    let world = World::new();
    let pem = key(8).to_pem(None::<&Passphrase<'_>>);
    ground::write_secret(world.at("verifier.key"), pem.as_bytes());
    let (secret, output) = (world.at("verifier.key"), world.at("vsa.json"));
    let ask = [
        "--vsa-key",
        secret.to_str().unwrap(),
        "--vsa-output",
        output.to_str().unwrap(),
        "--verifier",
        "https://v.example.org",
    ];
    let summary = || {
        let envelope = Envelope::parse(&fs::read(&output).unwrap()).unwrap();
        match envelope.verified_by(&key(8).public()).unwrap().statement().unwrap().predicate {
            Predicate::Summary(summary) => *summary,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(world.verify(&ask).code(), Some(0));
    let open = summary();
    let passphrase = Passphrase { words: "open", salt: [1; 16], iv: [2; 16] };
    fs::write(&secret, key(8).to_pem(Some(&passphrase)).as_bytes()).unwrap();
    fs::write(world.at("words"), "open\n").unwrap();
    assert_eq!(world.verify(&ask).code(), Some(2), "the key is under a passphrase");
    let words = world.at("words");
    let sealed = [&ask[..], &["--passphrase-file", words.to_str().unwrap()]].concat();
    assert_eq!(world.verify(&sealed).code(), Some(0));
    ground::write_secret(&secret, pem.as_bytes());
    let passed = summary();
    assert_eq!(passed, open);
    assert_eq!(passed.verification_result, VerificationResult::Passed);
    assert_eq!(passed.verified_levels, ["KILN_REPRODUCED_2_OF_3", "SLSA_BUILD_LEVEL_0", "SLSA_BUILD_REPRODUCED"]);
    assert_eq!(passed.input_attestations.len(), 2);
    assert_eq!(passed.resource_uri, "https://dl.example.org/hello.bin");

    world.evidence("3.json", &signed(3, &different(3)));
    let policy = fs::read_to_string(world.at("policy.toml")).unwrap();
    let refused = world.verify(&["--break-glass", "the site is down"]);
    assert_eq!(refused.code(), Some(2), "{}", refused.stderr);
    fs::write(world.at("policy.toml"), format!("break_glass = {{ allowed = true }}\n{policy}")).unwrap();
    let mut overridden = ask.to_vec();
    overridden.extend(["--break-glass", "the site is down"]);
    let ran = world.verify(&overridden);
    assert_eq!(ran.code(), Some(0), "{}", ran.stderr);
    assert!(ran.stdout.contains("OVERRIDE") && ran.stdout.contains("the site is down"), "{}", ran.stdout);
    assert_eq!(summary().verification_result, VerificationResult::Failed);
    // A rebuilder does not judge itself.
    ground::write_secret(&secret, key(1).to_pem(None::<&Passphrase<'_>>).as_bytes());
    assert_eq!(world.verify(&ask).code(), Some(2));
}

#[test]
fn lists_of_digests_are_verified_each_by_itself() {
    let world = World::new();
    let line = |text: &str, name: &str| format!("{}  {name}\n", Digest::of(text));
    fs::write(world.at("sums"), line("hello", "a.bin") + &line("other", "b.bin")).unwrap();
    let ran = world.verify(&["--json", "--sums", world.at("sums").to_str().unwrap()]);
    assert_eq!(ran.code(), Some(4));
    let document: Value = serde_json::from_str(&ran.stdout).unwrap();
    let exits: Vec<i64> =
        document["decisions"].as_array().unwrap().iter().map(|d| d["exit"].as_i64().unwrap()).collect();
    assert_eq!(exits, [0, 0, 4]);
}

#[test]
fn a_first_policy_is_written_from_evidence_checked_and_verifies() {
    let world = World::new();
    let at = |name: &str| world.at(name).display().to_string();
    let init = [
        "policy",
        "init",
        &at("hello.bin"),
        "--evidence",
        &at("evidence"),
        "--keys",
        &at("keys"),
        "--output",
        &at("first.toml"),
    ];
    let ran = world.kiln.run(init);
    assert_eq!(ran.code(), Some(0), "{}", ran.stderr);
    let text = fs::read_to_string(world.at("first.toml")).unwrap();
    assert_eq!(text.matches("seen, not confirmed").count(), 2, "{text}");
    assert_eq!(world.kiln.run(init).code(), Some(2), "nothing is overwritten");
    let checked = world.kiln.run(["policy", "check", &at("first.toml"), "--json"]);
    assert_eq!(checked.code(), Some(0), "{}", checked.stderr);
    fits("policy", &serde_json::from_str(&checked.stdout).unwrap());
    let ran =
        world.kiln.run(["verify", &at("hello.bin"), "--policy", &at("first.toml"), "--evidence", &at("evidence")]);
    assert_eq!(ran.code(), Some(0), "{}{}", ran.stdout, ran.stderr);
    fs::write(world.at("bad.toml"), text.replace("identical = 2", "identical = 9")).unwrap();
    assert_eq!(world.kiln.run(["policy", "check", &at("bad.toml")]).code(), Some(2));
}
