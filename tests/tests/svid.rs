//! X.509-SVIDs that OpenSSL issued, as the identities that sign: `kiln attest --svid` and policies that name a trust bundle in place
//! of keys. What breaks a rule of SPIFFE's is nobody's word, whoever signed it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use kiln::publish::{Appended, Directory, Evidence, LogWriter, PublishError, Witness, public_keys, trust_bundles};
use kiln_model::canonical;
use kiln_model::digest::Digest;
use kiln_model::envelope::Envelope;
use kiln_model::format::bundle::Bundle;
use kiln_model::key::{SecretKey, Svid, TrustBundle};
use kiln_model::log::{NoteKind, NoteSigner};
use kiln_model::outcome::Moment;
use kiln_tests::ground::{self, Ground};
use kiln_tests::recipe::Made;
use kiln_tests::run::{Kiln, Ran};
use kiln_tests::shelf::{Fault, Shelf};
use kiln_tests::trust::provenance;
use kiln_tests::web::Server;
use serde_json::{Value, json};
use tempfile::TempDir;

const LEAF: &str =
    "basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\nextendedKeyUsage=serverAuth,clientAuth\n";
const AUTHORITY: &str = "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\n";

/// A directory in which OpenSSL works.
struct Office {
    place: TempDir,
}

impl Office {
    /// With a root of example.org, `root`, and an authority below it, `between`.
    fn new() -> Self {
        let office = Self { place: ground::directory(Ground::Tmpfs) };
        office.root("root", "spiffe://example.org");
        office.issue("between", "root", &format!("{AUTHORITY}subjectAltName=URI:spiffe://example.org\n"));
        office
    }

    fn at(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    fn openssl(&self, words: &[&str]) -> bool {
        let ran = Command::new("openssl").args(words).current_dir(self.place.path()).output().expect("openssl");
        ran.status.success()
    }

    fn request(&self, name: &str, extensions: &str) {
        let (key, request) = (format!("{name}.key"), format!("{name}.csr"));
        fs::write(self.at(&format!("{name}.ext")), extensions).unwrap();
        fs::write(self.at("req.cnf"), "[req]\ndistinguished_name=dn\n[dn]\n").unwrap();
        let curve = ["-pkeyopt", "ec_paramgen_curve:P-256", "-pkeyopt", "ec_param_enc:named_curve"];
        assert!(self.openssl(&[&["genpkey", "-algorithm", "EC", "-out", &key], &curve[..]].concat()));
        fs::set_permissions(self.at(&key), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let subject = format!("/O=SPIFFE/CN={name}");
        assert!(
            self.openssl(&["req", "-new", "-config", "req.cnf", "-key", &key, "-subj", &subject, "-out", &request])
        );
    }

    fn root(&self, name: &str, id: &str) {
        self.request(name, &format!("{AUTHORITY}subjectAltName=URI:{id}\n"));
        let [request, key, extensions, out] = ["csr", "key", "ext", "pem"].map(|ending| format!("{name}.{ending}"));
        let signed = ["x509", "-req", "-in", &request, "-signkey", &key, "-extfile", &extensions, "-days", "3650"];
        assert!(self.openssl(&[&signed[..], &["-out", &out]].concat()));
    }

    /// A certificate `name` by `authority`.
    fn issue(&self, name: &str, authority: &str, extensions: &str) {
        self.request(name, extensions);
        let [request, extensions, out] = ["csr", "ext", "pem"].map(|ending| format!("{name}.{ending}"));
        let (by, key) = (format!("{authority}.pem"), format!("{authority}.key"));
        let words =
            ["x509", "-req", "-in", &request, "-CA", &by, "-CAkey", &key, "-CAcreateserial", "-extfile", &extensions];
        assert!(self.openssl(&[&words[..], &["-days", "3000", "-out", &out]].concat()));
    }

    /// A workload's certificate, with the authorities in `through` behind it.
    fn workload(&self, name: &str, authority: &str, id: &str, through: &[&str]) {
        self.issue(name, authority, &format!("{LEAF}subjectAltName=URI:{id}\n"));
        let mut chain = self.text(&format!("{name}.pem"));
        for other in through {
            chain += &self.text(&format!("{other}.pem"));
        }
        fs::write(self.at(&format!("{name}.chain")), chain).unwrap();
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.at(name)).unwrap()
    }

    fn key(&self, name: &str) -> SecretKey {
        SecretKey::from_pem(&self.text(&format!("{name}.key")), None).unwrap()
    }

    /// A bundle of provenance by the workload `name`, whose chain is `chain`.
    fn bundle(&self, name: &str, id: &str) -> Bundle {
        let svid = Svid::from_pem(&self.text(&format!("{name}.chain"))).unwrap();
        let envelope = Envelope::sign(canonical::print(&provenance(id)).unwrap(), &self.key(name));
        Bundle::with_svid(envelope, svid, Vec::new()).unwrap()
    }

    /// The bundle of a good workload with the certificate `name` put in its place, signed by the key of that.
    fn forced(&self, name: &str, id: &str) -> Vec<u8> {
        let envelope = Envelope::sign(canonical::print(&provenance(id)).unwrap(), &self.key(name));
        let mut value: Value = serde_json::from_slice(&self.bundle("rb2", id).print()).unwrap();
        let theirs: Value = serde_json::from_slice(&envelope.canonical()).unwrap();
        assert!(self.openssl(&["x509", "-in", &format!("{name}.pem"), "-outform", "DER", "-out", "der"]));
        let der = data_encoding::BASE64.encode(&fs::read(self.at("der")).unwrap());
        value["verificationMaterial"]["certificate"]["rawBytes"] = der.into();
        value["dsseEnvelope"]["payload"] = theirs["payload"].clone();
        value["dsseEnvelope"]["signatures"] = json!([{ "sig": theirs["signatures"][0]["sig"] }]);
        canonical::print(&value).unwrap()
    }
}

const ONE: &str = "spiffe://example.org/kiln/rb1";
const TWO: &str = "spiffe://example.org/kiln/rb2";

/// Two rebuilders of a trust domain, one behind an authority between; both vouched for and both agreeing.
struct World {
    office: Office,
    kiln: Kiln,
}

impl World {
    fn new() -> Self {
        let office = Office::new();
        office.workload("rb1", "between", ONE, &["between"]);
        office.workload("rb2", "root", TWO, &[]);
        fs::create_dir(office.at("evidence")).unwrap();
        fs::write(office.at("hello.bin"), "hello").unwrap();
        let world = Self { office, kiln: Kiln::fresh(Ground::Tmpfs) };
        world.policy(&[ONE, TWO]);
        world.evidence("1", &world.office.bundle("rb1", ONE).print());
        world.evidence("2", &world.office.bundle("rb2", TWO).print());
        world
    }

    fn policy(&self, ids: &[&str]) {
        let mut policy = String::from(
            "schema = 1\n[artifact]\nmatch = \"*\"\nresource_uri = \"https://dl.example.org/{name}\"\n[threshold]\nidentical = 2\n\
             [provenance]\nexternal_parameters = { recipe = \"git+https://example.org/r@refs/tags/v*\", target = \"*\" }\n\
             [log]\nrequire_inclusion = false\n",
        );
        for (number, id) in ids.iter().enumerate() {
            policy += &format!(
                "[[rebuilder]]\nid = \"{id}\"\noperator = \"org-{number}\"\nsvid_bundle = \"root.pem\"\nvalid = [\"2026-01-01\", \"2100-01-01\"]\n"
            );
        }
        fs::write(self.office.at("policy.toml"), policy).unwrap();
    }

    fn evidence(&self, name: &str, bytes: &[u8]) {
        fs::write(self.office.at("evidence").join(format!("{name}.sigstore.json")), bytes).unwrap();
    }

    fn verify(&self, more: &[&str]) -> Ran {
        let at = |name: &str| self.office.at(name).display().to_string();
        let (artifact, policy, evidence) = (at("hello.bin"), at("policy.toml"), at("evidence"));
        let words = ["verify", &artifact, "--explain", "--policy", &policy, "--evidence", &evidence];
        self.kiln.run(words.iter().chain(more))
    }

    /// With another statement in place of the second: what is then said.
    #[track_caller]
    fn refuses(&self, bytes: &[u8], code: i32, says: &[&str]) {
        self.evidence("2", bytes);
        let ran = self.verify(&[]);
        assert_eq!(ran.code(), Some(code), "{}{}", ran.stdout, ran.stderr);
        for word in says {
            assert!(ran.stdout.contains(word), "nothing of {word:?}:\n{}", ran.stdout);
        }
    }
}

fn has_openssl(test: &str) -> bool {
    let there = Command::new("openssl").arg("version").output().is_ok_and(|ran| ran.status.success());
    there || ground::skipped(test, "no openssl; scripts/setup --test installs it")
}

#[test]
fn what_a_trust_domain_vouches_for_counts_and_openssl_agrees_about_the_chain() {
    if !has_openssl("what_a_trust_domain_vouches_for_counts_and_openssl_agrees_about_the_chain") {
        return;
    }
    let world = World::new();
    let office = &world.office;
    assert!(office.openssl(&["verify", "-CAfile", "root.pem", "-untrusted", "between.pem", "rb1.pem"]));
    assert_eq!(world.verify(&[]).code(), Some(0));
    let policy = office.at("policy.toml").display().to_string();
    world.kiln.run(["policy", "check", &policy]).succeeded();
    // Printed and read again it is the same, in both forms.
    for (name, id, form) in [("rb1", ONE, "x509CertificateChain"), ("rb2", TWO, "certificate")] {
        let bundle = office.bundle(name, id);
        let printed: Value = serde_json::from_slice(&bundle.print()).unwrap();
        let material = printed["verificationMaterial"].as_object().unwrap();
        assert_eq!(material.keys().collect::<Vec<_>>(), [form]);
        assert!(printed["dsseEnvelope"]["signatures"][0].get("keyid").is_none());
        assert_eq!(Bundle::parse(&bundle.print()).unwrap().print(), bundle.print());
    }
    // The same authorities as SPIFFE's JWK set.
    assert!(office.openssl(&["x509", "-in", "root.pem", "-outform", "DER", "-out", "der"]));
    let der = data_encoding::BASE64.encode(&fs::read(office.at("der")).unwrap());
    let set = json!({
        "spiffe_sequence": 1, "spiffe_refresh_hint": 300,
        "keys": [{ "kty": "EC", "use": "jwt-svid", "kid": "x" }, { "kty": "EC", "use": "x509-svid", "x5c": [der] }],
    });
    fs::write(office.at("root.pem"), set.to_string()).unwrap();
    assert_eq!(world.verify(&[]).code(), Some(0));
    fs::write(office.at("root.pem"), "{\"keys\":[]}").unwrap();
    world.verify(&[]).exits(2).says(&["trust bundle"]);
    fs::copy(office.at("rb1.pem"), office.at("root.pem")).unwrap();
    world.verify(&[]).exits(2).says(&["authorities (CA)"]);
    fs::remove_file(office.at("root.pem")).unwrap();
    world.verify(&[]).exits(2).says(&["root.pem"]);
}

#[test]
fn certificates_that_break_a_rule_or_lead_nowhere_are_nobodys_word() {
    if !has_openssl("certificates_that_break_a_rule_or_lead_nowhere_are_nobodys_word") {
        return;
    }
    let world = World::new();
    let office = &world.office;
    let ran = world.verify(&["--now", "2060-01-01T00:00:00Z"]);
    assert_eq!(ran.code(), Some(4), "{}", ran.stdout);
    assert!(ran.stdout.contains("no authority of the trust bundle is valid then"), "{}", ran.stdout);
    // The root lives longer than what it issued.
    let ran = world.verify(&["--now", "2035-08-01T00:00:00Z"]);
    assert_eq!(ran.code(), Some(4), "{}", ran.stdout);
    assert!(ran.stdout.contains("expired"), "{}", ran.stdout);
    assert_eq!(world.verify(&["--now", "2026-01-02T00:00:00Z"]).code(), Some(4), "not valid yet");

    office.root("other", "spiffe://example.org");
    office.workload("stranger", "other", TWO, &[]);
    world.refuses(&office.bundle("stranger", TWO).print(), 4, &["no chain leads to an authority"]);
    // An authority between that nobody sent.
    office.workload("alone", "between", TWO, &[]);
    world.refuses(&office.bundle("alone", TWO).print(), 4, &["no chain leads to an authority"]);
    // A workload is no authority: its id has a path.
    office.workload("child", "rb1", TWO, &["rb1", "between"]);
    world.refuses(&office.bundle("child", TWO).print(), 4, &["has an id of its own that is not this trust domain's"]);
    office.workload("third", "root", "spiffe://example.org/kiln/rb3", &[]);
    world.refuses(&office.bundle("third", TWO).print(), 4, &["whom the policy does not name"]);
    // Another trust domain's id by this one's authority.
    let evil = "spiffe://evil.example/kiln/rb2";
    office.workload("evil", "root", evil, &[]);
    world.policy(&[ONE, evil]);
    world.refuses(&office.bundle("evil", evil).print(), 4, &["is not this trust domain's"]);
    world.policy(&[ONE, TWO]);
    // The certificate is one's, and the statement says another's.
    world.refuses(&office.bundle("rb2", ONE).print(), 4, &["builder.id"]);

    let name = format!("subjectAltName=URI:{TWO}\n");
    for (case, extensions) in [
        ("authority", format!("basicConstraints=critical,CA:TRUE\nkeyUsage=critical,digitalSignature\n{name}")),
        ("two", format!("{LEAF}subjectAltName=URI:{TWO},URI:spiffe://example.org/x\n")),
        ("none", LEAF.into()),
        ("dns", format!("{LEAF}subjectAltName=DNS:example.org\n")),
        ("domain", format!("{LEAF}subjectAltName=URI:spiffe://example.org\n")),
        ("web", format!("{LEAF}subjectAltName=URI:https://example.org/kiln/rb2\n")),
        ("usage", format!("basicConstraints=critical,CA:FALSE\n{name}")),
        ("lax", format!("basicConstraints=critical,CA:FALSE\nkeyUsage=digitalSignature\n{name}")),
        ("encipher", format!("basicConstraints=critical,CA:FALSE\nkeyUsage=critical,keyEncipherment\n{name}")),
        (
            "signs",
            format!("basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature,keyCertSign\n{name}"),
        ),
        ("revokes", format!("basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature,cRLSign\n{name}")),
        ("client", format!("{}{name}", LEAF.replace("serverAuth,", ""))),
    ] {
        office.issue(case, "root", &extensions);
        assert!(Svid::from_pem(&office.text(&format!("{case}.pem"))).is_err(), "{case}");
        world.refuses(&office.forced(case, TWO), 4, &[]);
    }
    // The twin that passes.
    office.workload("again", "root", TWO, &[]);
    world.refuses(&office.forced("again", TWO), 0, &[]);
}

#[test]
fn an_altered_payload_under_a_good_certificate_is_tampering_and_under_a_strangers_is_junk() {
    if !has_openssl("an_altered_payload_under_a_good_certificate_is_tampering_and_under_a_strangers_is_junk") {
        return;
    }
    let world = World::new();
    let office = &world.office;
    let altered = |name: &str| {
        let mut value: Value = serde_json::from_slice(&office.bundle(name, TWO).print()).unwrap();
        let other = canonical::print(&provenance(ONE)).unwrap();
        value["dsseEnvelope"]["payload"] = data_encoding::BASE64.encode(&other).into();
        canonical::print(&value).unwrap()
    };
    world.refuses(&altered("rb2"), 6, &["tampered"]);
    office.root("other", "spiffe://example.org");
    office.workload("stranger", "other", TWO, &[]);
    world.refuses(&altered("stranger"), 4, &["junk under a certificate"]);
    // Both a hint and a certificate, or neither, is no bundle.
    let mut value: Value = serde_json::from_slice(&office.bundle("rb2", TWO).print()).unwrap();
    value["verificationMaterial"]["publicKey"] = json!({ "hint": "x" });
    assert!(Bundle::parse(&canonical::print(&value).unwrap()).is_err());
    value["verificationMaterial"] = json!({});
    assert!(Bundle::parse(&canonical::print(&value).unwrap()).is_err());
}

#[test]
fn attest_signs_as_the_svid_says_and_with_no_other_key_or_name() {
    let name = "attest_signs_as_the_svid_says_and_with_no_other_key_or_name";
    if !has_openssl(name) || !ground::has_files(name) {
        return;
    }
    let office = Office::new();
    office.workload("rb1", "between", ONE, &["between"]);
    office.workload("rb2", "root", TWO, &[]);
    let made = Made::new(r#"echo built >"$out""#);
    let kiln = Kiln::warm();
    kiln.build_one(made.path());
    let at = |name: &str| office.at(name).display().to_string();
    let recipe = made.path().display().to_string();
    let attest = |chain: &str, key: &str, more: &[&str]| {
        let (chain, key, output) = (at(chain), at(key), at("att"));
        let words = ["attest", "--json", &recipe, "--svid", &chain, "--svid-key", &key, "--output", &output];
        kiln.run(words.iter().chain(more))
    };
    let told = attest("rb1.chain", "rb1.key", &[]).succeeded().json();
    assert_eq!(told["builder"], ONE);
    let file = told["statements"][0]["file"].as_str().unwrap();
    assert!(file.ends_with(".sigstore.json"), "{file}");
    let bundle = Bundle::parse(&fs::read(file).unwrap()).unwrap();
    let svid = bundle.svid.as_ref().unwrap();
    bundle.envelope.verified_by(svid.key()).unwrap();
    let trust = TrustBundle::parse(office.text("root.pem").as_bytes()).unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    svid.verify(&trust, Moment::from_unix(now)).unwrap();
    // What was signed can be built again by who reads it.
    let report = kiln.run(["rebuild", "--json", file]).succeeded().json();
    assert_eq!(report["verdict"], "reproduced");

    attest("rb1.chain", "rb2.key", &[]).exits(2).says(&["is not the key of the certificate"]);
    attest("rb1.chain", "rb1.key", &["--builder-id", TWO]).exits(2).says(&["that is the builder's id"]);
    attest("rb1.key", "rb1.key", &[]).exits(2).says(&["certificates in PEM"]);
    attest("between.pem", "between.key", &[]).exits(2).says(&["is no SPIFFE id of a workload"]);
    assert!(!Path::new(&at("att/between")).exists());
    kiln.run(["attest", &recipe, "--output", &at("att")]).exits(2);
    fs::set_permissions(office.at("rb2.key"), std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    attest("rb2.chain", "rb2.key", &[]).exits(2).says(&["chmod 600"]);
}

/// After all of the office's certificates are over.
const AFTERWARDS: &str = "2040-01-01T00:00:00Z";
const YEAR_2040: u64 = 2_208_988_800;

impl World {
    fn log_key() -> NoteSigner {
        NoteSigner::new("log.example.org/svid", NoteKind::Log, SecretKey::ed25519(&[1; 32])).unwrap()
    }

    fn witness_key() -> NoteSigner {
        NoteSigner::new("w1.example.org", NoteKind::Witness, SecretKey::ed25519(&[2; 32])).unwrap()
    }

    /// Publishes to `to`, with what a writer of that log remembers in `state`.
    fn publish(&self, kiln: &Kiln, to: &str, state: &str, more: &[&str]) -> Ran {
        let witness = Self::witness_key().vkey().to_string();
        self.publish_unseen(kiln, to, state, &[&["--witness", &witness], more].concat())
    }

    /// The same, without a word of the witness.
    fn publish_unseen(&self, kiln: &Kiln, to: &str, state: &str, more: &[&str]) -> Ran {
        let (key, state) = (self.shown("log.key"), self.shown(state));
        ground::write_secret(&key, SecretKey::ed25519(&[1; 32]).to_pem(None).as_bytes());
        let words = ["publish", "--to", to, "--log-key", &key, "--origin", "log.example.org/svid", "--state", &state];
        kiln.run(words.iter().chain(more))
    }

    fn shown(&self, name: &str) -> String {
        self.office.at(name).display().to_string()
    }

    /// What the witness says of the log in `tree` at `time`, in a file.
    fn cosigned(&self, tree: &str, time: u64) -> String {
        let seen = self.office.at(&format!("{tree}-seen"));
        let witness = Witness::open(&seen, Self::witness_key()).unwrap();
        let signature = witness.cosign(Self::log_key().vkey(), &self.office.at(tree), time).unwrap();
        let file = self.shown(&format!("{tree}-cosignature"));
        fs::write(&file, format!("{signature}\n")).unwrap();
        file
    }

    /// A policy that asks for the log, and whether it lets the artifact in by the evidence in `place`, at `now`.
    fn judged(&self, place: &str, now: &str) -> Ran {
        let policy = fs::read_to_string(self.office.at("policy.toml")).unwrap();
        let logged = policy.replace("require_inclusion = false", "tlog_policy = \"log.policy\"");
        fs::write(self.office.at("logged.toml"), logged).unwrap();
        let (log, witness) = (Self::log_key(), Self::witness_key());
        let believed = format!("log {}\nwitness w {}\nquorum w\n", log.vkey(), witness.vkey());
        fs::write(self.office.at("log.policy"), believed).unwrap();
        let [artifact, policy, evidence] = ["hello.bin", "logged.toml", place].map(|name| self.shown(name));
        self.kiln.run(["verify", &artifact, "--explain", "--policy", &policy, "--evidence", &evidence, "--now", now])
    }
}

#[test]
fn statements_are_published_with_their_certificates_which_count_by_the_time_of_witnesses() {
    let test = "statements_are_published_with_their_certificates_which_count_by_the_time_of_witnesses";
    if !has_openssl(test) {
        return;
    }
    let world = World::new();
    let (tree, evidence, root) = (world.shown("tree"), world.shown("evidence"), world.shown("root.pem"));
    // Only whom an authority vouches for.
    world.publish(&world.kiln, &tree, "state", &[&evidence]).exits(2).says(&["--svid-bundle", ONE]);
    world.office.root("other", "spiffe://example.org");
    let other = world.shown("other.pem");
    let refused = world.publish(&world.kiln, &tree, "state", &["--svid-bundle", &other, &evidence]);
    refused.exits(2).says(&["no trust bundle vouches", "no chain leads to an authority"]);
    world.publish(&world.kiln, &tree, "state", &["--svid-bundle", &evidence, &evidence]).exits(7);
    assert!(!world.office.at("tree/checkpoint").exists());
    let published = world.publish(&world.kiln, &tree, "state", &["--json", "--svid-bundle", &root, &evidence]);
    assert_eq!(published.succeeded().json()["added"], 2);

    // Nobody has said when, yet: it counts neither now, where a witness is asked for, nor later, where none is.
    let today = now();
    assert_eq!(world.judged("tree", &today).code(), Some(4));
    let ran = world.verify(&["--now", AFTERWARDS]);
    assert_eq!(ran.code(), Some(4), "{}", ran.stdout);

    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let cosignature = world.cosigned("tree", now);
    world.publish(&world.kiln, &tree, "state", &["--cosignature", &cosignature]).succeeded();
    for when in [&today[..], AFTERWARDS] {
        let ran = world.judged("tree", when);
        assert_eq!(ran.code(), Some(0), "{when}: {}{}", ran.stdout, ran.stderr);
    }
    // Readers find the certificates in the bundle beside the artifact, too.
    let digest = Digest::of("hello").to_string();
    let bundle = world.office.at(&format!("tree/by-subject/sha256/{digest}/hello.bin.sigstore.json"));
    let bundle = Bundle::parse(&fs::read(bundle).unwrap()).unwrap();
    assert!(bundle.svid.is_some_and(|svid| [ONE, TWO].contains(&svid.id().as_str())));

    // Over the network, all of it or what is about the artifact.
    let server = Server::of(&world.office.at("tree"));
    let online = Kiln::fresh(Ground::Tmpfs).online();
    for (place, more) in [("all", &[][..]), ("about", &["--about", &digest])] {
        let output = world.shown(place);
        online.run(["evidence", "pull", server.address(), "--output", &output].iter().chain(more)).succeeded();
        let ran = world.judged(place, AFTERWARDS);
        assert_eq!(ran.code(), Some(0), "{place}: {}{}", ran.stdout, ran.stderr);
    }

    // What comes later, and is seen later, takes nothing from those that were seen in time.
    world.office.workload("late", "root", ONE, &[]);
    fs::create_dir(world.office.at("more")).unwrap();
    fs::write(world.office.at("more/late.sigstore.json"), world.office.bundle("late", ONE).print()).unwrap();
    let more = world.shown("more");
    world.publish(&world.kiln, &tree, "state", &["--svid-bundle", &root, &more]).succeeded();
    let cosignature = world.cosigned("tree", YEAR_2040 + 1);
    world.publish(&world.kiln, &tree, "state", &["--cosignature", &cosignature, "--rebuild"]).succeeded();
    world.publish_unseen(&world.kiln, &tree, "state", &["--rebuild"]).succeeded();
    let ran = world.judged("tree", "2041-01-01T00:00:00Z");
    assert_eq!(ran.code(), Some(0), "{}", ran.stdout);
    assert!(ran.stdout.contains("no authority of the trust bundle is valid then"), "{}", ran.stdout);
    let vkey = World::log_key().vkey().to_string();
    world.kiln.run(["tlog", "verify", &tree, "--log", &vkey]).succeeded();

    // A log that no witness saw in time.
    let slow = world.shown("slow");
    world.publish(&world.kiln, &slow, "slow-state", &["--svid-bundle", &root, &evidence]).succeeded();
    let cosignature = world.cosigned("slow", YEAR_2040);
    world.publish(&world.kiln, &slow, "slow-state", &["--cosignature", &cosignature]).succeeded();
    let ran = world.judged("slow", "2041-01-01T00:00:00Z");
    assert_eq!(ran.code(), Some(4), "{}", ran.stdout);
    assert!(ran.stdout.contains("valid at 2040-01-01"), "{}", ran.stdout);
}

fn now() -> String {
    Moment::from_unix(std::time::UNIX_EPOCH.elapsed().unwrap().as_secs()).to_string()
}

#[test]
fn a_certificate_that_is_over_brings_nothing_new_into_a_log_and_what_is_there_may_be_published_again() {
    let test = "a_certificate_that_is_over_brings_nothing_new_into_a_log_and_what_is_there_may_be_published_again";
    if !has_openssl(test) {
        return;
    }
    let world = World::new();
    let (place, state) = (Directory::writing(&world.office.at("tree")).unwrap(), world.office.at("state"));
    let authorities = trust_bundles(&[world.office.at("root.pem")]).unwrap();
    let append = |at: Moment| {
        let keys = public_keys(&[]).unwrap().trusting(authorities.clone(), at);
        let batch = Evidence::at(&[world.office.at("evidence")]).batch(&keys).unwrap();
        LogWriter::open(&place, &state, World::log_key(), vec![]).unwrap().append(batch)
    };
    let (now, then) = (std::time::UNIX_EPOCH.elapsed().unwrap().as_secs(), Moment::from_unix(YEAR_2040));
    let refused = append(then).unwrap_err();
    assert!(matches!(refused, PublishError::Certificate { .. }), "{refused}");
    assert!(refused.to_string().contains("1.sigstore.json"), "{refused}");
    assert!(!world.office.at("tree/checkpoint").exists());
    assert_eq!(append(Moment::from_unix(now)).unwrap(), Appended { added: 2, kept: 0 });
    assert_eq!(append(then).unwrap(), Appended { added: 0, kept: 2 });
}

#[test]
fn certificates_survive_a_writer_who_was_broken_off() {
    if !has_openssl("certificates_survive_a_writer_who_was_broken_off") {
        return;
    }
    let world = World::new();
    let (evidence, root) = (world.shown("evidence"), world.shown("root.pem"));
    let shelf = Shelf::faulty(|asked| {
        let first = asked.method == "PUT" && asked.nth == 0 && asked.file.starts_with("log/att/svid/");
        first.then_some(Fault::HangUp)
    });
    let kiln = Kiln::fresh(Ground::Tmpfs).online();
    kiln.configure("[fetch]\nclients = []\nattempts = 1\n");
    let to = format!("{}/log", shelf.address());
    world.publish(&kiln, &to, "state", &["--svid-bundle", &root, &evidence]).exits(7).says(&["att/svid"]);
    // Whoever goes on has neither the evidence nor the authorities; one more is broken off.
    assert!((0..3).any(|_| world.publish(&kiln, &to, "state", &[]).code() == Some(0)));
    world.publish(&kiln, &world.shown("tree"), "other", &["--svid-bundle", &root, &evidence]).succeeded();
    let mut compared = 0;
    for below in ["att/svid", "by-subject", "keys"] {
        let ours = world.office.at("tree").join(below);
        let mut open = vec![ours.clone()];
        while let Some(path) = open.pop() {
            match path.is_dir() {
                true => open.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path())),
                false => {
                    let put = shelf.path().join("log").join(below).join(path.strip_prefix(&ours).unwrap());
                    assert!(fs::read(&put).unwrap() == fs::read(&path).unwrap(), "{}", put.display());
                    compared += 1;
                }
            }
        }
    }
    assert!(compared > 8, "{compared}");
}
