//! Evidence of others as files: found by its name, unpacked, its OpenPGP signatures checked, decided on by a policy.
//!
//! Keys, signatures and files are made here; nothing is reached but a temporary directory.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use data_encoding::HEXLOWER;
use kiln::evidence::{self, Certificates, Limits, Shelf};
use kiln_model::canonical;
use kiln_model::digest::{Digest, NarHash};
use kiln_model::format::narinfo::{Compression, NarInfo};
use kiln_model::format::signature;
use kiln_model::key::SecretKey;
use kiln_model::outcome::Moment;
use kiln_model::policy::Policy;
use kiln_model::statement::DigestSet;
use kiln_model::verify::{Artifact, Given, Verifier};
use pgp::composed::{CleartextSignedMessage, KeyType, SecretKeyParamsBuilder, SignedPublicKey, SignedSecretKey};
use pgp::packet::{SignatureConfig, SignatureType, Subpacket, SubpacketData};
use pgp::types::{KeyDetails as _, Password, Timestamp as PgpTime};
use serde_json::json;

const NOW: &str = "2026-11-22T12:00:00Z";
const SIGNED: u32 = 1_795_000_000; // 2026-11-18

fn openpgp() -> SignedSecretKey {
    let mut builder = SecretKeyParamsBuilder::default();
    builder.key_type(KeyType::Ed25519Legacy).can_certify(true).can_sign(true).primary_user_id("rebuilder".into());
    builder.created_at(PgpTime::from_secs(SIGNED - 1000));
    builder.build().unwrap().generate(rand_for_pgp::thread_rng()).unwrap()
}

fn clearsigned(text: &str, key: &SignedSecretKey) -> String {
    let mut config =
        SignatureConfig::from_key(rand_for_pgp::thread_rng(), &key.primary_key, SignatureType::Text).unwrap();
    config.hashed_subpackets = vec![
        Subpacket::regular(SubpacketData::SignatureCreationTime(PgpTime::from_secs(SIGNED))).unwrap(),
        Subpacket::regular(SubpacketData::IssuerFingerprint(key.fingerprint())).unwrap(),
    ];
    let message = CleartextSignedMessage::new(text, config, &key.primary_key, &Password::empty()).unwrap();
    message.to_armored_string(None.into()).unwrap()
}

fn buildinfo(made: &str) -> String {
    format!(
        "Format: 1.0\nSource: hello\nBinary: hello\nArchitecture: amd64\nVersion: 1-1\nChecksums-Sha256:\n {} 5 hello_1-1_amd64.deb\n\
         Build-Architecture: amd64\nInstalled-Build-Depends:\n gcc-12 (= 12.2.0-14)\nEnvironment:\n LANG=\"C\"\n",
        Digest::of(made)
    )
}

fn narinfo(made: &str, key: &[u8; 32]) -> String {
    let mut info = NarInfo {
        path: "/nix/store/00bgd045z0d4icpbc2yyz4gx48ak44la-hello".parse().unwrap(),
        url: "nar/hello.nar".into(),
        compression: Compression::None,
        file_hash: None,
        file_size: None,
        nar_hash: NarHash::new(Digest::of(made)),
        nar_size: 120,
        references: Default::default(),
        deriver: None,
        signatures: Vec::new(),
        address: None,
    };
    info.sign(&signature::SecretKey::from_seed("cache.example.org-1", key).unwrap());
    info.print()
}

fn link(made: &str, key: &SecretKey) -> Vec<u8> {
    let signed = json!({
        "_type": "link", "name": "rebuild hello", "materials": {}, "environment": null, "byproducts": {}, "command": [],
        "products": { "hello": { "sha256": Digest::of(made).to_string() } },
    });
    let sig = HEXLOWER.encode(&key.sign(&canonical::print(&signed).unwrap()));
    let link = json!({ "signatures": [{ "keyid": key.public().securesystemslib_id(), "sig": sig }], "signed": signed });
    zstd::encode_all(link.to_string().as_bytes(), 3).unwrap()
}

/// A directory with keys and evidence, and a policy over three rebuilders that speak in other forms than ours.
struct World {
    directory: tempfile::TempDir,
    openpgp: SignedSecretKey,
    link: SecretKey,
    nix: [u8; 32],
}

impl World {
    fn new() -> Self {
        let world = Self {
            directory: tempfile::tempdir().unwrap(),
            openpgp: openpgp(),
            link: SecretKey::ed25519(&[2; 32]),
            nix: [3; 32],
        };
        fs::create_dir(world.path().join("keys")).unwrap();
        fs::create_dir(world.path().join("evidence")).unwrap();
        let armored = SignedPublicKey::from(world.openpgp.clone()).to_armored_string(None.into()).unwrap();
        fs::write(world.path().join("keys/debian.asc"), armored).unwrap();
        fs::write(world.path().join("keys/worker.pub"), world.link.public().to_pem()).unwrap();
        let nix = signature::SecretKey::from_seed("any.name-1", &world.nix).unwrap().public().to_string();
        fs::write(world.path().join("keys/cache.pub"), nix).unwrap();
        world
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        let path = self.path().join("evidence").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    /// The exit code, with so many operators asked for.
    fn verify(&self, wanted: u32) -> u8 {
        let keys = [
            format!("keys = [\"openpgp:{:x}\"]", self.openpgp.fingerprint()),
            format!("keys = [\"sha256:{}\"]\naccepts = [\"in-toto-link\"]", self.link.public().id()),
            format!("keys = [\"sha256:{}\"]\naccepts = [\"narinfo\"]", SecretKey::ed25519(&self.nix).public().id()),
        ];
        let mut text = format!(
            "schema = 1\n[artifact]\nmatch = \"*\"\nresource_uri = \"https://dl.example.org/x\"\n[threshold]\nidentical = {wanted}\n\
             min_independence = {{ operators = 1, tool_versions = 0 }}\n[provenance]\nexternal_parameters = {{ recipe = \"*\" }}\n\
             [log]\nrequire_inclusion = false\n"
        );
        for (number, keys) in keys.iter().enumerate() {
            text += &format!(
                "[[rebuilder]]\nid = \"https://rb{number}.example.org/\"\noperator = \"org-{number}\"\n{keys}\nvalid = [\"2026-01-01\", \"2027-01-01\"]\n"
            );
        }
        let policy = Policy::parse(&text).unwrap();
        let now: Moment = NOW.parse().unwrap();
        let directory = self.path().join("keys");
        let keys = evidence::keys(&directory).unwrap();
        let shelf = Shelf::open(&[self.path().join("evidence")], Limits::default()).unwrap();
        let shelf = shelf.trusting(Certificates::read(&directory, now).unwrap());
        let none = BTreeMap::new();
        let given = Given {
            policy: &policy,
            keys: &keys,
            log: None,
            pinned: &none,
            growth: &|_, _, _| None,
            proofs: &|_| Vec::new(),
            feed: None,
            now,
        };
        let verifier = Verifier::new(&given).unwrap();
        let evidence = shelf.read(&verifier).unwrap();
        let artifact = Artifact { name: "hello".into(), digest: DigestSet::of(Digest::of("hello")), purl: None };
        verifier.decide(&artifact, &evidence).exit
    }
}

#[test]
fn a_signed_buildinfo_a_packed_link_and_a_narinfo_are_three_voices() {
    let world = World::new();
    assert_eq!(world.verify(1), 4, "nothing yet");
    world.write("deep/hello.buildinfo", clearsigned(&buildinfo("hello"), &world.openpgp));
    assert_eq!((world.verify(1), world.verify(2)), (0, 4));
    world.write("hello.link.zst", link("hello", &world.link));
    assert_eq!((world.verify(2), world.verify(3)), (0, 4));
    world.write("00bgd045z0d4icpbc2yyz4gx48ak44la.narinfo", narinfo("hello", &world.nix));
    assert_eq!(world.verify(3), 0);
    // The same once more is not another's.
    fs::remove_file(world.path().join("evidence/hello.link.zst")).unwrap();
    world.write("again.narinfo", narinfo("hello", &world.nix));
    assert_eq!(world.verify(3), 4);
}

#[test]
fn a_buildinfo_that_was_altered_is_tampering_and_an_unsigned_one_is_nobodys() {
    let world = World::new();
    let good = clearsigned(&buildinfo("other"), &world.openpgp);
    let (was, is) = (Digest::of("other").to_string(), Digest::of("hello").to_string());
    world.write("hello.buildinfo", good.replace(&was, &is));
    assert_eq!(world.verify(1), 6);
    world.write("hello.buildinfo", &good);
    assert_eq!(world.verify(1), 4, "about another file");
    world.write("hello.buildinfo", buildinfo("hello"));
    assert_eq!(world.verify(1), 4, "unsigned");
    world.write("hello.buildinfo", clearsigned(&buildinfo("hello"), &openpgp()));
    assert_eq!(world.verify(1), 4, "by a key that nobody named");
    let signed = clearsigned(&buildinfo("hello"), &world.openpgp);
    world.write("hello.buildinfo", format!("{}\n{signed}", buildinfo("hello")));
    assert_eq!(world.verify(1), 4, "text around what is signed");
    world.write("hello.buildinfo", signed);
    assert_eq!(world.verify(1), 0);
}

#[test]
fn what_cannot_be_unpacked_and_archives_of_caches_are_no_evidence() {
    let world = World::new();
    let packed = link("hello", &world.link);
    world.write("hello.link", &packed[..packed.len() - 5]);
    assert_eq!(world.verify(1), 4);
    world.write("hello.link", packed);
    assert_eq!(world.verify(1), 0, "by what it holds, not by its name");
    let before = Shelf::open(&[world.path().join("evidence")], Limits::default()).unwrap().len();
    world.write("nar/hello.nar.zst", "an archive");
    assert_eq!(Shelf::open(&[world.path().join("evidence")], Limits::default()).unwrap().len(), before);
    // A frame that unpacks to more than anything may be is left out.
    world.write("large.link", zstd::encode_all(&vec![b' '; 8 << 20][..], 3).unwrap());
    assert_eq!(world.verify(1), 0);
}
