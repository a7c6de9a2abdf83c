//! What kiln signs, and the keys it signs with, judged by the programs that others use: OpenSSL, OpenSSH, minisign, signify,
//! securesystemslib. Each accepts what is whole and refuses what was altered.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use kiln_model::digest::Digest;
use kiln_model::envelope::{Envelope, pae};
use kiln_model::key::PublicKey;
use kiln_model::statement::{ComparisonResult, Predicate, Statement};
use kiln_tests::derivation::{Made, with_builder};
use kiln_tests::ground::{self, Ground};
use kiln_tests::run::Kiln;
use serde_json::{Value, json};
use tempfile::TempDir;

const BUILDER: &str = "https://rb1.example.org/kiln/sandboxed";

/// Runs `words` in `directory`.
fn run(directory: &Path, words: &[&str]) -> Output {
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).current_dir(directory).stdin(Stdio::null());
    command.output().unwrap_or_else(|error| panic!("{words:?}: {error}"))
}

#[track_caller]
fn holds(directory: &Path, words: &[&str]) -> String {
    let ran = run(directory, words);
    assert!(ran.status.success(), "{words:?}: {ran:?}");
    String::from_utf8(ran.stdout).unwrap()
}

#[track_caller]
fn fails(directory: &Path, words: &[&str]) {
    let ran = run(directory, words);
    assert!(!ran.status.success(), "{words:?} is taken: {ran:?}");
}

/// Whether all of `programs` are here; else `test` is skipped.
fn has(test: &str, programs: &[&str]) -> bool {
    let missing = programs.iter().find(|program| {
        let found = Command::new("sh").args(["-c", &format!("command -v {program}")]).output().unwrap();
        !found.status.success()
    });
    missing.is_none_or(|program| ground::skipped(test, &format!("no {program}; scripts/setup --test installs it")))
}

/// The Python that has securesystemslib.
fn python(test: &str) -> Option<PathBuf> {
    let own = std::env::var_os("KILN_TEST_PYTHON").map(PathBuf::from);
    let python = own.unwrap_or_else(|| ground::repository().join("target/kiln-tests-python/bin/python3"));
    (python.is_file() || ground::skipped(test, "no securesystemslib; scripts/setup --test installs it"))
        .then_some(python)
}

/// A new key at `name` in `directory`; its public half is written beside it.
fn key(kiln: &Kiln, directory: &Path, name: &str, algorithm: &str) -> (String, PublicKey) {
    let path = directory.join(name).display().to_string();
    let made = kiln.run(["key", "generate", "--algorithm", algorithm, "--output", &path]).succeeded();
    fs::write(directory.join(format!("{name}.pub")), &made.stdout).unwrap();
    (path, PublicKey::from_pem(&made.stdout).unwrap())
}

#[test]
fn keys_are_openssls_in_both_directions_under_a_passphrase_too() {
    if !has("keys_are_openssls_in_both_directions_under_a_passphrase_too", &["openssl"]) {
        return;
    }
    let kiln = Kiln::fresh(Ground::Tmpfs);
    let made = ground::directory(Ground::Tmpfs);
    let place = made.path();
    fs::write(place.join("words"), "correct horse\n").unwrap();
    let at = |name: &str| place.join(name).display().to_string();
    for (algorithm, theirs) in [
        ("ed25519", &["-algorithm", "ed25519"][..]),
        ("p256", &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-pkeyopt", "ec_param_enc:named_curve"]),
    ] {
        let (_, public) = key(&kiln, place, algorithm, algorithm);
        assert_eq!(holds(place, &["openssl", "pkey", "-in", algorithm, "-pubout"]), public.to_pem());
        fs::write(place.join("der"), public.spki()).unwrap();
        let digest = holds(place, &["openssl", "dgst", "-sha256", "-r", "der"]);
        assert!(digest.starts_with(&public.id().to_string()));

        let sealed = at(&format!("{algorithm}-sealed"));
        let words = at("words");
        let generate = ["key", "generate", "--algorithm", algorithm, "--passphrase-file", &words, "--output", &sealed];
        let public = kiln.run(generate).succeeded().stdout;
        let open = ["openssl", "pkey", "-in", &sealed, "-passin", "file:words", "-pubout"];
        assert_eq!(holds(place, &open), public);
        fails(place, &["openssl", "pkey", "-in", &sealed, "-passin", "pass:other", "-pubout"]);

        for (name, more) in [("plain", &[][..]), ("encrypted", &["-aes-256-cbc", "-pass", "file:words"])] {
            let (file, taken) = (format!("{algorithm}-{name}"), format!("{algorithm}-{name}-taken"));
            holds(place, &[&["openssl", "genpkey", "-out", &file], theirs, more].concat());
            let import = ["key", "import", &at(&file), "--output", &at(&taken), "--passphrase-file", &words];
            let public = kiln.run(import).succeeded().stdout;
            let show = ["openssl", "pkey", "-in", &file, "-passin", "file:words", "-pubout"];
            assert_eq!(holds(place, &show), public);
        }
    }
    let other = place.join("other");
    fs::write(&other, "wrong\n").unwrap();
    let shown = kiln.run(["key", "show", &at("p256-encrypted"), "--passphrase-file", &at("other")]);
    shown.exits(2).says(&["the passphrase does not fit"]);
    kiln.run(["key", "show", &at("p256-encrypted")]).exits(2).says(&["give its passphrase"]);
    kiln.run(["key", "generate", "--output", &at("p256")]).exits(7);
}

#[test]
fn minisign_signify_and_openssh_take_our_signatures_and_refuse_altered_files() {
    let name = "minisign_signify_and_openssh_take_our_signatures_and_refuse_altered_files";
    if !has(name, &["minisign", "signify-openbsd", "ssh-keygen"]) {
        return;
    }
    let kiln = Kiln::fresh(Ground::Tmpfs);
    let made = ground::directory(Ground::Tmpfs);
    let place = made.path();
    let at = |name: &str| place.join(name).display().to_string();
    fs::write(place.join("file"), "built\n").unwrap();
    fs::write(place.join("altered"), "burnt\n").unwrap();
    for one in ["release", "stranger"] {
        key(&kiln, place, one, "ed25519");
        for form in ["minisign", "signify"] {
            let shown = kiln.run(["key", "show", &at(&format!("{one}.pub")), "--format", form]).succeeded();
            fs::write(place.join(format!("{one}.{form}")), shown.stdout).unwrap();
        }
    }
    let sign = |form: &str, key: &str| {
        let output = at(&format!("file.{form}"));
        kiln.run(["key", "sign", &at("file"), "--key", &at(key), "--format", form, "--output", &output]).succeeded();
    };
    sign("minisign", "release");
    let minisign = |key, file| ["minisign", "-V", "-p", key, "-m", file, "-x", "file.minisign"];
    assert!(holds(place, &minisign("release.minisign", "file")).contains("Trusted comment: file"));
    fails(place, &minisign("release.minisign", "altered"));
    fails(place, &minisign("stranger.minisign", "file"));

    sign("signify", "release");
    let signify = |key, file| ["signify-openbsd", "-V", "-p", key, "-m", file, "-x", "file.signify"];
    holds(place, &signify("release.signify", "file"));
    fails(place, &signify("release.signify", "altered"));
    fails(place, &signify("stranger.signify", "file"));

    key(&kiln, place, "curve", "p256");
    for signer in ["release", "curve"] {
        sign("ssh", signer);
        let line = kiln.run(["key", "show", &at(&format!("{signer}.pub")), "--format", "ssh"]).succeeded().stdout;
        let allowed = format!("rb1@example.org namespaces=\"rebuild-attestation\" {line}");
        fs::write(place.join("allowed"), allowed).unwrap();
        let verify = |file: &str, namespace: &str| {
            let text =
                format!("ssh-keygen -Y verify -f allowed -I rb1@example.org -n {namespace} -s file.ssh < {file}");
            run(place, &["sh", "-c", &text]).status.success()
        };
        assert!(verify("file", "rebuild-attestation"), "{signer}");
        assert!(!verify("altered", "rebuild-attestation"), "{signer}");
        assert!(!verify("file", "git"), "{signer}");
    }
    sign("ssh", "stranger");
    let stranger = "ssh-keygen -Y verify -f allowed -I rb1@example.org -n rebuild-attestation -s file.ssh < file";
    fails(place, &["sh", "-c", stranger]);
    kiln.run(["key", "sign", &at("file"), "--key", &at("curve"), "--format", "minisign"])
        .exits(2)
        .says(&["no p256 keys"]);
}

/// A store in which something was built, and a key.
struct Signing {
    kiln: Kiln,
    made: Made,
    place: TempDir,
    key: String,
    public: PublicKey,
}

impl Signing {
    fn new(test: &str, algorithm: &str) -> Option<Self> {
        let kiln = with_builder(test)?;
        let place = ground::directory(Ground::Tmpfs);
        let (key, public) = key(&kiln, place.path(), "key", algorithm);
        Some(Self { kiln, made: Made::default(), place, key, public })
    }

    /// Where the derivation that runs `script` lies.
    fn derivation(&self, name: &str, script: &str) -> String {
        self.made.file(&self.made.closed(name, &[], script).path).display().to_string()
    }

    /// Signs `what`; the document that says what was signed.
    fn attest(&self, what: &str, more: &[&str]) -> Value {
        let output = self.place.path().join("out").display().to_string();
        let words = ["attest", what, "--key", &self.key, "--builder-id", BUILDER, "--output", &output, "--json"];
        self.kiln.run([&words[..], more].concat()).succeeded().json()
    }

    /// The report that `kiln check` prints of `what`, in a file.
    fn report(&self, what: &str) -> String {
        let ran = self.kiln.run(["check", "--json", what]);
        let path = self.place.path().join("report.json");
        fs::write(&path, ran.stdout).unwrap();
        path.display().to_string()
    }

    /// The statements of `document`, each verified with the key.
    fn statements(&self, document: &Value) -> Vec<Statement> {
        let one = |signed: &Value| {
            let bytes = fs::read(signed["file"].as_str().unwrap()).unwrap();
            assert_eq!(signed["envelope"], Digest::of(&bytes).to_string(), "an envelope's id is its file's digest");
            Envelope::parse(&bytes).unwrap().verified_by(&self.public).unwrap().statement().unwrap()
        };
        document["statements"].as_array().unwrap().iter().map(one).collect()
    }

    fn results(&self, document: &Value) -> Vec<ComparisonResult> {
        let comparison = |statement: Statement| match statement.predicate {
            Predicate::Comparison(comparison) => Some(comparison.result),
            Predicate::Provenance(_) | Predicate::Summary(_) | Predicate::Other { .. } => None,
        };
        self.statements(document).into_iter().filter_map(comparison).collect()
    }
}

#[test]
fn openssl_verifies_what_was_signed_and_refuses_what_was_altered() {
    let name = "openssl_verifies_what_was_signed_and_refuses_what_was_altered";
    if !has(name, &["openssl"]) {
        return;
    }
    for algorithm in ["ed25519", "p256"] {
        let Some(signing) = Signing::new(name, algorithm) else { return };
        let place = signing.place.path();
        let derivation = signing.derivation("hello", "busybox mkdir $out; echo hello > $out/hello");
        signing.kiln.run(["build", &derivation]).succeeded();
        let document = signing.attest(&derivation, &[]);
        let envelope: Value =
            serde_json::from_slice(&fs::read(document["statements"][0]["file"].as_str().unwrap()).unwrap()).unwrap();
        let payload = data(&envelope["payload"]);
        let kind = envelope["payloadType"].as_str().unwrap();
        fs::write(place.join("sig"), data(&envelope["signatures"][0]["sig"])).unwrap();
        let verify = match algorithm {
            "ed25519" => &[
                "openssl", "pkeyutl", "-verify", "-pubin", "-inkey", "key.pub", "-rawin", "-in", "pae", "-sigfile",
                "sig",
            ][..],
            _ => &["openssl", "dgst", "-sha256", "-verify", "key.pub", "-signature", "sig", "pae"],
        };
        fs::write(place.join("pae"), pae(kind, &payload)).unwrap();
        holds(place, verify);
        let altered = String::from_utf8(payload.clone()).unwrap().replace("rb1", "rb2");
        for (kind, payload) in [(kind, altered.as_bytes()), ("application/json", &payload)] {
            fs::write(place.join("pae"), pae(kind, payload)).unwrap();
            fails(place, verify);
        }
    }
}

fn data(text: &Value) -> Vec<u8> {
    use std::io::Write as _;
    let mut decode = Command::new("base64").arg("-d").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    decode.stdin.take().unwrap().write_all(text.as_str().unwrap().as_bytes()).unwrap();
    decode.wait_with_output().unwrap().stdout
}

/// Verifies the envelope on stdin with the keys in PEM files and a threshold.
const SECURESYSTEMSLIB: &str = "
import json, sys
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from securesystemslib.dsse import Envelope
from securesystemslib.signer import SSlibKey
threshold, form, *files = sys.argv[1:]
import hashlib
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
keys = []
for file in files:
    key = load_pem_public_key(open(file, 'rb').read())
    spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    keys.append(SSlibKey.from_crypto(key, keyid=hashlib.sha256(spki).hexdigest()) if form == 'spki' else SSlibKey.from_crypto(key))
if form == 'ids':
    print(' '.join(key.keyid for key in keys))
else:
    Envelope.from_dict(json.load(sys.stdin)).verify(keys, int(threshold))
";

fn securesystemslib(python: &Path, directory: &Path, envelope: &Value, words: &[&str]) -> Output {
    let file = directory.join("envelope");
    fs::write(&file, envelope.to_string()).unwrap();
    let mut command = Command::new(python);
    command.arg("-c").arg(SECURESYSTEMSLIB).args(words).current_dir(directory).stdin(fs::File::open(file).unwrap());
    command.output().unwrap()
}

#[test]
fn securesystemslib_verifies_envelopes_and_agrees_on_ids() {
    let name = "securesystemslib_verifies_envelopes_and_agrees_on_ids";
    let Some(python) = python(name) else { return };
    let Some(signing) = Signing::new(name, "ed25519") else { return };
    let place = signing.place.path();
    let derivation = signing.derivation("hello", "busybox mkdir $out; echo hello > $out/hello");
    signing.kiln.run(["build", &derivation]).succeeded();
    let signed = |document: &Value| -> Value {
        serde_json::from_slice(&fs::read(document["statements"][0]["file"].as_str().unwrap()).unwrap()).unwrap()
    };
    let envelope = signed(&signing.attest(&derivation, &[]));
    let (second, other) = key(&signing.kiln, place, "second", "p256");
    let output = place.join("second-out").display().to_string();
    let words = ["attest", &derivation, "--key", &second, "--builder-id", BUILDER, "--output", &output, "--json"];
    let theirs = signed(&signing.kiln.run(words).succeeded().json());
    assert_eq!(envelope["payload"], theirs["payload"], "the same facts are the same bytes, whoever signs");

    let verify = |envelope: &Value, words: &[&str]| securesystemslib(&python, place, envelope, words).status.success();
    assert!(verify(&envelope, &["1", "spki", "key.pub"]));
    assert!(verify(&theirs, &["1", "spki", "second.pub"]));
    assert!(!verify(&envelope, &["1", "spki", "second.pub"]), "another key");
    let both = changed(&envelope, |e| e["signatures"].as_array_mut().unwrap().push(theirs["signatures"][0].clone()));
    assert!(verify(&both, &["2", "spki", "key.pub", "second.pub"]));
    assert!(!verify(&envelope, &["2", "spki", "key.pub", "second.pub"]), "one of two");
    let twice = changed(&envelope, |e| e["signatures"].as_array_mut().unwrap().push(envelope["signatures"][0].clone()));
    assert!(!verify(&twice, &["2", "spki", "key.pub", "second.pub"]), "one signer twice");
    assert!(!verify(&changed(&envelope, |e| e["payload"] = "e30=".into()), &["1", "spki", "key.pub"]));
    assert!(!verify(&changed(&envelope, |e| e["payloadType"] = "text/plain".into()), &["1", "spki", "key.pub"]));

    let ids = securesystemslib(&python, place, &json!({}), &["0", "ids", "key.pub", "second.pub"]);
    let expected = format!("{} {}", signing.public.securesystemslib_id(), other.securesystemslib_id());
    assert_eq!(String::from_utf8(ids.stdout).unwrap().trim(), expected);

    let layout = [
        "key",
        "layout",
        "key.pub",
        "second.pub",
        "--threshold",
        "2",
        "--product",
        "hello",
        "--expires",
        "2030-01-01T00:00:00Z",
        "--key",
        &signing.key,
    ];
    let layout =
        layout.map(|word| if word.ends_with(".pub") { place.join(word).display().to_string() } else { word.into() });
    let layout: Value = serde_json::from_str(&signing.kiln.run(layout).succeeded().stdout).unwrap();
    assert!(verify(&layout, &["1", "own", "key.pub"]));
    let body: Value = serde_json::from_slice(&data(&layout["payload"])).unwrap();
    assert_eq!(body["steps"][0]["threshold"], 2);
    assert!(body["keys"].get(signing.public.securesystemslib_id()).is_some());
}

fn changed(value: &Value, change: impl FnOnce(&mut Value)) -> Value {
    let mut value = value.clone();
    change(&mut value);
    value
}

#[test]
fn a_build_is_signed_with_its_facts_and_again_with_the_same_bytes() {
    let Some(signing) = Signing::new("a_build_is_signed_with_its_facts_and_again_with_the_same_bytes", "ed25519")
    else {
        return;
    };
    let derivation = signing.derivation("hello", "busybox mkdir $out; echo hello > $out/hello");
    let built = &signing.kiln.run(["build", "--json", &derivation]).succeeded().json()["builds"][0];
    let commit = "a".repeat(40);
    let uri = "git+https://example.org/r@refs/tags/v1#recipes/hello/recipe.toml";
    let more = ["--recipe-uri", uri, "--recipe-commit", &commit];
    let document = signing.attest(&derivation, &more);
    let [statement] = &signing.statements(&document)[..] else { panic!("{document:#}") };
    let Predicate::Provenance(provenance) = &statement.predicate else { panic!("{statement:?}") };
    assert_eq!(statement.subject[0].name.as_deref(), Some("out.nar"));
    let sha256 = statement.subject[0].digest.sha256().unwrap();
    let recorded: kiln_model::digest::NarHash = built["outputs"]["out"]["nar_hash"].as_str().unwrap().parse().unwrap();
    assert_eq!(sha256, recorded.digest());
    let definition = &provenance.build_definition;
    assert_eq!(
        (definition.external().unwrap().recipe.as_str(), definition.external().unwrap().target.as_str()),
        (uri, "out")
    );
    assert_eq!(definition.internal_parameters["derivation"], built["derivation"]);
    let inputs = &definition.resolved_dependencies;
    assert_eq!(inputs[0].digest.0["gitCommit"], commit);
    assert_eq!(inputs[0].uri.as_deref(), Some("git+https://example.org/r@refs/tags/v1"));
    let busybox: kiln_model::digest::NarHash =
        built["inputs"][kiln_tests::derivation::BUILDER].as_str().unwrap().parse().unwrap();
    assert!(inputs.iter().any(|input| input.digest.sha256() == Some(busybox.digest())), "{inputs:?}");
    assert!(inputs.iter().all(|input| input.uri.is_some() && !input.digest.is_empty()));
    let log = built["log"]["sha256"].as_str().unwrap();
    let byproducts = &provenance.run_details.byproducts;
    assert!(byproducts.iter().any(|one| one.name.as_deref() == Some("build.log") && one.digest.0["sha256"] == log));
    let kiln = Digest::of(fs::read(ground::kiln()).unwrap());
    assert_eq!(provenance.run_details.builder.builder_dependencies[0].digest.sha256(), Some(kiln));

    let lines = fs::read_to_string(signing.place.path().join("out/out.nar.intoto.jsonl")).unwrap();
    assert_eq!(lines.lines().count(), 1);
    assert_eq!(signing.attest(&derivation, &more), document);
    assert_eq!(fs::read_to_string(signing.place.path().join("out/out.nar.intoto.jsonl")).unwrap(), lines);
}

#[test]
fn a_check_is_signed_whether_builds_agree_or_not_and_a_failure_too() {
    let Some(signing) = Signing::new("a_check_is_signed_whether_builds_agree_or_not_and_a_failure_too", "ed25519")
    else {
        return;
    };
    use ComparisonResult::{BuildFailed, Different, Identical};
    let good = signing.derivation("good", "echo good > $out");
    let document =
        signing.attest(&signing.report(&good), &["--recipe", &good, "--also", "test-result", "--also", "link"]);
    assert_eq!(signing.results(&document), [Identical]);
    assert_eq!(signing.statements(&document).len(), 4, "two builds, how they compare, and that once more as a test");
    assert!(document["files"].as_array().unwrap().iter().any(|file| file.as_str().unwrap().ends_with(".link")));

    let clock = signing.derivation("clock", "busybox date +%s > $out");
    let report = signing.report(&clock);
    let document = signing.attest(&report, &["--recipe", &clock]);
    assert_eq!(signing.results(&document), [Different]);
    let comparison = signing.statements(&document).into_iter().find_map(|one| match one.predicate {
        Predicate::Comparison(comparison) => Some(comparison),
        Predicate::Provenance(_) | Predicate::Summary(_) | Predicate::Other { .. } => None,
    });
    let comparison = comparison.unwrap();
    assert!(comparison.flaky && comparison.attempts == 2);
    assert_ne!(comparison.produced[0].digest, comparison.expected.unwrap().digest);
    assert_eq!(comparison.differences.unwrap().digest.sha256(), Some(Digest::of(fs::read(report).unwrap())));

    let failing = signing.derivation("failing", "echo no; exit 3");
    signing.kiln.run(["build", &failing]).exits(5);
    let document = signing.attest(&failing, &[]);
    assert_eq!(signing.results(&document), [BuildFailed]);
    assert_eq!(
        document["statements"][0]["subjects"][0]["name"],
        Path::new(&failing).file_name().unwrap().to_str().unwrap()
    );
}

#[test]
fn what_this_store_did_not_see_or_does_not_have_any_more_is_not_signed() {
    let name = "what_this_store_did_not_see_or_does_not_have_any_more_is_not_signed";
    let Some(signing) = Signing::new(name, "ed25519") else { return };
    let derivation = signing.derivation("hello", "busybox mkdir $out; echo hello > $out/hello");
    let words = |what: &str, key: &str| {
        let output = signing.place.path().join("out").display().to_string();
        ["attest", what, "--key", key, "--builder-id", BUILDER, "--output", &output].map(str::to_owned)
    };
    let key = &signing.key;
    signing.kiln.run(words(&derivation, key)).exits(2).says(&["has no outcome in this store"]);
    let built = signing.kiln.run(["build", "--json", &derivation]).succeeded().json();
    let forged = signing.place.path().join("forged.json");
    let lie = changed(&built, |b| {
        b["builds"][0]["outputs"]["out"]["nar_hash"] = format!("sha256-{}=", "A".repeat(43)).into()
    });
    fs::write(&forged, lie.to_string()).unwrap();
    let forged = forged.display().to_string();
    let mut forgery = words(&forged, key).to_vec();
    forgery.extend(["--recipe".into(), derivation.clone()]);
    signing.kiln.run(&forgery).exits(2).says(&["has no record in this store"]);

    let no_uri = words(&derivation, key).map(|word| if word == BUILDER { "rb1".into() } else { word });
    signing.kiln.run(no_uri).exits(2).says(&["builder.id", "no URI"]);

    let path = built["builds"][0]["outputs"]["out"]["path"].as_str().unwrap();
    let file = signing.kiln.store().join(path.trim_start_matches('/')).join("hello");
    holds(signing.place.path(), &["chmod", "u+w", file.to_str().unwrap()]);
    fs::write(&file, "jello\n").unwrap();
    signing.kiln.run(words(&derivation, key)).exits(6).says(&["another digest than its outcome recorded"]);

    holds(signing.place.path(), &["chmod", "644", key]);
    signing.kiln.run(words(&derivation, key)).exits(2).says(&["others than its owner can read"]);
}
