//! Pinning against small signed archives: what is believed, what is refused and as what kind of error.
//!
//! The archives are made here, with keys made here; nothing is reached but a temporary directory. One test pins from the
//! lists that this host's apt has, with the real keyring, and is skipped where there are none.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use kiln::exit::Kind;
use kiln::fetch::{Archive, Archives, FetchError, Refusal, Try, Unfetched, Wanted};
use kiln::pin::debian::{Freshness, PinError, Pinned, SourceWish, Trust, pin};
use kiln_model::digest::Digest;
use kiln_model::lock::Layer;
use kiln_model::recipe;
use pgp::composed::{CleartextSignedMessage, KeyType, SecretKeyParamsBuilder, SignedPublicKey, SignedSecretKey};
use pgp::packet::{KeyFlags, SignatureConfig, SignatureType, Subpacket, SubpacketData};
use pgp::ser::Serialize as _;
use pgp::types::{Duration, KeyDetails as _, Password, Tag, Timestamp as PgpTime};

const NOW: u32 = 1_783_765_000; // 2026-07-11
const DAY: u32 = 24 * 60 * 60;

/// An archive in a directory, as an offline mirror is.
struct Directory(PathBuf);

impl Archives for Directory {
    fn pinned(&self, wanted: &[Wanted]) -> Result<Vec<PathBuf>, FetchError> {
        wanted
            .iter()
            .map(|w| {
                let path = self.0.join(&w.path);
                let bytes = fs::read(&path).map_err(|_| absent(&w.archive, &w.path))?;
                let refusal = if Some(bytes.len() as u64) != w.size {
                    Refusal::WrongSize { found: bytes.len() as u64, expected: w.size.unwrap() }
                } else if Digest::of(&bytes) != w.sha256 {
                    Refusal::WrongDigest(Digest::of(&bytes))
                } else {
                    return Ok(path);
                };
                Err(FetchError::Tampered { files: unfetched(&w.archive, &w.path, refusal), of: 1 })
            })
            .collect()
    }

    fn judged(&self, _: &str, _: &mut kiln::fetch::Judge<'_>) -> Result<(), FetchError> {
        unreachable!("an archive's files have their own digests")
    }

    fn unpinned(&self, archive: &Archive, path: &str, _limit: u64) -> Result<Vec<u8>, FetchError> {
        fs::read(self.0.join(path)).map_err(|_| absent(archive, path))
    }
}

fn unfetched(archive: &Archive, path: &str, refusal: Refusal) -> Vec<Unfetched> {
    let tries = vec![Try { mirror: "directory".into(), refusal }];
    vec![Unfetched { archive: archive.clone(), path: path.into(), sha256: None, tries }]
}

fn absent(archive: &Archive, path: &str) -> FetchError {
    FetchError::Missing { files: unfetched(archive, path, Refusal::Absent("no such file".into())), of: 1 }
}

/// A key that was made at some time and lasts for some.
fn key(made: u32, lasts: Option<u32>) -> SignedSecretKey {
    let mut builder = SecretKeyParamsBuilder::default();
    builder.key_type(KeyType::Ed25519Legacy).can_certify(true).can_sign(true).primary_user_id("archive".into());
    builder.created_at(PgpTime::from_secs(made));
    let mut key = builder.build().unwrap().generate(rand_for_pgp::thread_rng()).unwrap();
    if let Some(lasts) = lasts {
        let mut flags = KeyFlags::default();
        flags.set_sign(true);
        let config =
            SignatureConfig::from_key(rand_for_pgp::thread_rng(), &key.primary_key, SignatureType::CertPositive);
        let mut config = config.unwrap();
        config.hashed_subpackets = vec![
            Subpacket::regular(SubpacketData::SignatureCreationTime(PgpTime::from_secs(made))).unwrap(),
            Subpacket::regular(SubpacketData::IssuerFingerprint(key.fingerprint())).unwrap(),
            Subpacket::regular(SubpacketData::KeyFlags(flags)).unwrap(),
            Subpacket::regular(SubpacketData::KeyExpirationTime(Duration::from_secs(lasts))).unwrap(),
        ];
        let user = &mut key.details.users[0];
        let (secret, public) = (&key.primary_key, key.primary_key.public_key());
        user.signatures =
            vec![config.sign_certification(secret, public, &Password::empty(), Tag::UserId, &user.id).unwrap()];
    }
    key
}

fn sign(text: &str, key: &SignedSecretKey, made: u32) -> String {
    let mut config =
        SignatureConfig::from_key(rand_for_pgp::thread_rng(), &key.primary_key, SignatureType::Text).unwrap();
    config.hashed_subpackets = vec![
        Subpacket::regular(SubpacketData::SignatureCreationTime(PgpTime::from_secs(made))).unwrap(),
        Subpacket::regular(SubpacketData::IssuerFingerprint(key.fingerprint())).unwrap(),
    ];
    let message = CleartextSignedMessage::new(text, config, &key.primary_key, &Password::empty()).unwrap();
    message.to_armored_string(None.into()).unwrap()
}

/// An archive with one suite, a keyring beside it, and a place for dates.
struct Lab {
    directory: tempfile::TempDir,
    key: SignedSecretKey,
    packages: String,
    /// Fields before the list of indices.
    head: String,
    /// Made when the indices are written.
    signed_at: u32,
}

const PACKAGES: &str = "Package: base\nVersion: 1\nArchitecture: amd64\nEssential: yes\nPre-Depends: lib\nFilename: pool/base.deb\nSize: 1\nSHA256: D\n\n\
    Package: lib\nVersion: 1\nArchitecture: all\nFilename: pool/lib.deb\nSize: 2\nSHA256: D\n\n\
    Package: build-essential\nVersion: 1\nArchitecture: amd64\nDepends: lib\nFilename: pool/be.deb\nSize: 3\nSHA256: D\n\n\
    Package: tool\nVersion: 1:2\nArchitecture: amd64\nFilename: pool/tool.deb\nSize: 4\nSHA256: D\n\n\
    Package: old\nVersion: 1\nArchitecture: amd64\nBreaks: tool (<< 1:3)\nFilename: pool/old.deb\nSize: 4\nSHA256: D\n";

impl Lab {
    fn new() -> Self {
        let digest = Digest::of("deb").to_string();
        Self {
            directory: tempfile::tempdir().unwrap(),
            key: key(NOW - 100 * DAY, None),
            packages: PACKAGES.replace("SHA256: D", &format!("SHA256: {digest}")),
            head: "Suite: stable\nCodename: woody\nDate: Sat, 11 Jul 2026 10:16:37 UTC\nAcquire-By-Hash: yes\n\
                Architectures: all amd64\nComponents: main\n"
                .into(),
            signed_at: NOW - DAY,
        }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.directory.path().join(path)
    }

    fn write(&self, path: &str, bytes: impl AsRef<[u8]>) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    /// Writes indices and signed index, as an archive does.
    fn publish(&self) -> String {
        let sources = format!(
            "Package: src\nVersion: 1-1\nDirectory: pool/s\nBuild-Depends: tool, lib <cross>\nBuild-Depends-Indep: absent [i386]\n\
             Checksums-Sha256:\n {0} 5 src_1.dsc\n {0} 6 src_1.orig.tar.xz\n",
            Digest::of("src")
        );
        let mut text = format!("{}SHA256:\n", self.head);
        for (directory, name, whole) in [
            ("main/binary-amd64", "Packages", self.packages.as_bytes()),
            ("main/source", "Sources", sources.as_bytes()),
        ] {
            let mut packed = Vec::new();
            std::io::copy(&mut liblzma::read::XzEncoder::new(whole, 1), &mut packed).unwrap();
            for (file, bytes) in [(name.to_string(), whole), (format!("{name}.xz"), &packed)] {
                writeln!(text, " {} {} {directory}/{file}", Digest::of(bytes), bytes.len()).unwrap();
            }
            self.write(&format!("dists/woody/{directory}/by-hash/SHA256/{}", Digest::of(&packed)), &packed);
        }
        self.sign(&text);
        text
    }

    fn sign(&self, text: &str) {
        self.write("dists/woody/InRelease", sign(text, &self.key, self.signed_at));
        let public = SignedPublicKey::from(self.key.clone());
        self.write("keyring.gpg", public.to_bytes().unwrap());
    }

    fn pin_with(&self, packages: &[&str], freshness: Freshness) -> Result<Pinned, PinError> {
        let debian = recipe::Debian {
            suites: vec!["woody".into()],
            architecture: "amd64".into(),
            packages: packages.iter().map(ToString::to_string).collect(),
            build_dependencies_of: vec!["src".into()],
        };
        self.pin_recipe(&debian, freshness)
    }

    fn pin_recipe(&self, debian: &recipe::Debian, freshness: Freshness) -> Result<Pinned, PinError> {
        let wish = [SourceWish { name: "src".into(), version: None }];
        let (keyrings, seen) = ([self.path("keyring.gpg")], self.path("seen"));
        let clock = Timestamp::from_second(i64::from(NOW)).unwrap();
        let trust = Trust { keyrings: &keyrings, clock, seen: Some(&seen), freshness };
        pin(&Directory(self.directory.path().into()), debian, &wish, &trust)
    }

    fn refused(&self) -> (Kind, String) {
        let error = self.pin_with(&[], Freshness::Required).expect_err("must be refused");
        (error.kind(), chain(&error))
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut at = error.source();
    while let Some(source) = at {
        write!(text, ": {source}").unwrap();
        at = source.source();
    }
    text
}

#[track_caller]
fn assert_refused((kind, text): (Kind, String), expected: Kind, part: &str) {
    assert!(kind == expected && text.contains(part), "{kind:?}: {text}");
}

#[test]
fn a_signed_archive_is_pinned_by_path_size_and_digest() {
    let lab = Lab::new();
    lab.publish();
    let pinned = lab.pin_with(&[], Freshness::Required).unwrap();
    let found: Vec<_> = pinned.packages.iter().map(|p| (p.name.as_str(), p.layer, p.path.as_str(), p.size)).collect();
    assert_eq!(
        found,
        [
            ("base", Layer::Base, "pool/base.deb", 1),
            ("build-essential", Layer::Base, "pool/be.deb", 3),
            ("lib", Layer::Base, "pool/lib.deb", 2),
            ("tool", Layer::Delta, "pool/tool.deb", 4),
        ]
    );
    assert_eq!(pinned.suites[0].date, "2026-07-11T10:16:37Z");
    assert_eq!(pinned.suites[0].signed_by, [format!("{:X}", lab.key.fingerprint())]);
    let files: Vec<_> = pinned.sources[0].files.iter().map(|f| f.path.as_str()).collect();
    assert_eq!(files, ["pool/s/src_1.dsc", "pool/s/src_1.orig.tar.xz"]);
    assert_eq!(pinned, lab.pin_with(&[], Freshness::Required).unwrap());
}

#[test]
fn a_plain_directory_without_by_hash_serves_too() {
    let lab = Lab::new();
    let text = lab.publish();
    for line in text.lines().filter(|line| line.ends_with(".xz")) {
        let words: Vec<_> = line.split_whitespace().collect();
        let (directory, _) = words[2].rsplit_once('/').unwrap();
        let by_hash = lab.path(&format!("dists/woody/{directory}/by-hash/SHA256/{}", words[0]));
        fs::rename(by_hash, lab.path(&format!("dists/woody/{}", words[2]))).unwrap();
    }
    assert!(lab.pin_with(&[], Freshness::Required).is_ok());
}

#[test]
fn an_index_that_no_trusted_key_vouches_for_is_tampered_with() {
    let mut lab = Lab::new();
    let text = lab.publish();
    lab.write("dists/woody/InRelease", &text);
    assert_refused(lab.refused(), Kind::Tampered, "not clear-signed");

    lab.write("dists/woody/InRelease", sign(&text, &key(NOW - DAY, None), NOW));
    assert_refused(lab.refused(), Kind::Tampered, "in no keyring");
    assert_refused(lab.refused(), Kind::Tampered, "keyring.gpg");

    let signed = sign(&text, &lab.key, NOW);
    lab.write("dists/woody/InRelease", signed.replace("Components: main", "Components: evil"));
    assert_refused(lab.refused(), Kind::Tampered, "does not fit the text");

    lab.write("dists/woody/InRelease", format!("{signed}\nSuite: other\n"));
    assert_refused(lab.refused(), Kind::Tampered, "text after the signed part");
    lab.write("dists/woody/InRelease", format!("Suite: other\n{signed}"));
    assert_refused(lab.refused(), Kind::Tampered, "text before the signed part");
    lab.write("dists/woody/InRelease", &signed[..signed.len() - 60]);
    assert_eq!(lab.refused().0, Kind::Tampered);

    lab.signed_at = NOW + 10 * DAY;
    lab.sign(&text);
    assert_refused(lab.refused(), Kind::Tampered, "in the future");
}

#[test]
fn a_keyring_may_be_armoured_and_only_those_that_are_named_count() {
    let lab = Lab::new();
    let ours = lab.key.clone();
    lab.publish();
    lab.write("ours.asc", SignedPublicKey::from(ours).to_armored_string(None.into()).unwrap());
    let (binary, armoured) = (fs::read(lab.path("keyring.gpg")).unwrap(), fs::read(lab.path("ours.asc")).unwrap());
    lab.write("keyring.gpg", &armoured);
    lab.pin_with(&[], Freshness::Required).unwrap();
    let other = SignedPublicKey::from(key(NOW - 100 * DAY, None));
    lab.write("keyring.gpg", other.to_armored_string(None.into()).unwrap());
    assert_refused(lab.refused(), Kind::Tampered, "in no keyring");
    // As apt's keyrings are, several in one file.
    lab.write("keyring.gpg", [other.to_bytes().unwrap(), binary].concat());
    lab.pin_with(&[], Freshness::Required).unwrap();
}

#[test]
fn a_key_that_expired_since_is_accepted_and_told_and_one_that_had_expired_is_not() {
    let mut lab = Lab::new();
    lab.key = key(NOW - 100 * DAY, Some(50 * DAY));
    lab.signed_at = NOW - 60 * DAY;
    lab.publish();
    let pinned = lab.pin_with(&[], Freshness::Required).unwrap();
    assert!(pinned.notes[0].contains("has expired"), "{:?}", pinned.notes);
    lab.signed_at = NOW - 40 * DAY;
    lab.publish();
    assert_refused(lab.refused(), Kind::Tampered, "had expired");
}

#[test]
fn an_index_out_of_date_or_older_than_seen_is_refused_unless_told() {
    let mut lab = Lab::new();
    lab.head += "Valid-Until: Fri, 03 Jul 2026 00:00:00 UTC\n";
    lab.publish();
    assert_refused(lab.refused(), Kind::BadInput, "Valid-Until");
    assert!(lab.pin_with(&[], Freshness::Any).is_ok());

    lab.head = Lab::new().head.replace("11 Jul", "10 Jul").replace("Sat", "Fri");
    lab.publish();
    assert_refused(lab.refused(), Kind::Tampered, "older than 2026-07-11T10:16:37Z");
    assert!(lab.pin_with(&[], Freshness::Any).is_ok());
    assert_refused(lab.refused(), Kind::Tampered, "older than");

    lab.head = Lab::new().head.replace("11 Jul", "18 Jul");
    lab.publish();
    assert_refused(lab.refused(), Kind::Host, "in the future");
}

#[test]
fn the_index_of_another_suite_is_refused() {
    let mut lab = Lab::new();
    lab.head = lab.head.replace("woody", "sarge");
    lab.publish();
    assert_refused(lab.refused(), Kind::Tampered, "expected suite woody, found Codename: sarge");
}

#[test]
fn an_index_with_other_bytes_or_cut_short_is_refused() {
    let lab = Lab::new();
    let text = lab.publish();
    let packed = text.lines().find(|line| line.ends_with("Packages.xz")).unwrap();
    let by_hash = format!("dists/woody/main/binary-amd64/by-hash/SHA256/{}", packed.split_whitespace().next().unwrap());
    let good = fs::read(lab.path(&by_hash)).unwrap();

    let mut other = good.clone();
    other[40] ^= 1;
    lab.write(&by_hash, &other);
    assert_refused(lab.refused(), Kind::Tampered, "by-hash");
    lab.write(&by_hash, &good[..100]);
    assert_refused(lab.refused(), Kind::Tampered, "100 bytes");

    // Signed as it is, but not what it should be: malformed.
    let cut = &good[..good.len() - 40];
    lab.write("dists/woody/main/binary-amd64/Packages.xz", cut);
    let line = format!(" {} {} main/binary-amd64/Packages.xz", Digest::of(cut), cut.len());
    lab.sign(&text.replace(packed, &line));
    assert_refused(lab.refused(), Kind::BadInput, "decompressing dists/woody/main/binary-amd64/Packages.xz");
}

#[test]
fn an_index_never_grows_past_what_was_signed() {
    let lab = Lab::new();
    let text = lab.publish();
    let whole = text.lines().find(|line| line.ends_with("Packages")).unwrap();
    let digest = whole.split_whitespace().next().unwrap();
    lab.sign(&text.replace(whole, &format!(" {digest} 100 main/binary-amd64/Packages")));
    assert_refused(lab.refused(), Kind::BadInput, "grows past 100 bytes");
    lab.sign(&text.replace(whole, &format!(" {digest} 100000 main/binary-amd64/Packages")));
    assert_refused(lab.refused(), Kind::BadInput, "expected 100000 bytes decompressed");
}

#[test]
fn a_stanza_without_digest_or_twice_with_another_is_refused_with_its_line() {
    let mut lab = Lab::new();
    let good = lab.packages.clone();
    lab.packages = good.replacen("SHA256: ", "SHA512: ", 1);
    lab.publish();
    assert_refused(lab.refused(), Kind::BadInput, "Packages: line 1: the stanza of base has no field SHA256");

    let again =
        good.split("\n\n").next().unwrap().replace(&Digest::of("deb").to_string(), &Digest::of("x").to_string());
    lab.packages = format!("{good}\n{again}\n");
    lab.publish();
    assert_refused(lab.refused(), Kind::BadInput, "base 1 stands in line 1 too");
}

#[test]
fn what_a_suite_does_not_have_is_refused_with_what_it_has() {
    let mut lab = Lab::new();
    lab.publish();
    let debian = |suite: &str, architecture: &str, source: &str| recipe::Debian {
        suites: vec![suite.into()],
        architecture: architecture.into(),
        packages: Vec::new(),
        build_dependencies_of: vec![source.into()],
    };
    let refused = |lab: &Lab, debian| {
        let error = lab.pin_recipe(&debian, Freshness::Required).expect_err("must be refused");
        (error.kind(), chain(&error))
    };
    assert_refused(refused(&lab, debian("potato", "amd64", "src")), Kind::BadInput, "suite potato is in no mirror");
    assert_refused(refused(&lab, debian("../x", "amd64", "src")), Kind::BadInput, "expected a name");
    assert_refused(refused(&lab, debian("woody", "arm64", "src")), Kind::BadInput, "it has all, amd64");
    assert_refused(refused(&lab, debian("woody", "amd64", "none")), Kind::BadInput, "no suite has source none");
    lab.head = lab.head.replace("Components: main", "Components: universe");
    lab.publish();
    assert_refused(lab.refused(), Kind::BadInput, "no component \"main\"; it has universe");
}

#[test]
fn wishes_that_cannot_be_fulfilled_are_refused_with_the_reason() {
    let lab = Lab::new();
    lab.publish();
    let refused = |packages: &[&str]| {
        let error = lab.pin_with(packages, Freshness::Required).expect_err("must be refused");
        (error.kind(), chain(&error))
    };
    assert_refused(refused(&["tool (>= 1:3)"]), Kind::BadInput, "what there is: tool 1:2");
    assert_refused(refused(&["old"]), Kind::BadInput, "old 1 has Breaks: tool (<< 1:3)");
    assert_refused(refused(&["tool (> )"]), Kind::BadInput, "packages: dependency");
}

#[test]
fn a_missing_keyring_is_the_host_s_failure() {
    let lab = Lab::new();
    lab.publish();
    fs::remove_file(lab.path("keyring.gpg")).unwrap();
    assert_refused(lab.refused(), Kind::Host, "keyring");
    lab.write("keyring.gpg", "no keys");
    assert_refused(lab.refused(), Kind::BadInput, "keyring");
}

#[test]
fn the_host_s_own_signed_indices_are_believed() {
    let lists = Path::new("/var/lib/apt/lists");
    let keyrings = kiln::pin::debian::default_keyrings();
    let found = fs::read_dir(lists).ok().and_then(|files| {
        let suffix = "_dists_bookworm_InRelease";
        files.filter_map(Result::ok).map(|f| f.path()).find(|p| p.to_string_lossy().ends_with(suffix))
    });
    let Some(inrelease) = found.filter(|_| keyrings[0].exists()) else {
        assert!(std::env::var_os("MUST_ISOLATE").is_none(), "skipped although MUST_ISOLATE is set");
        eprintln!("skipped: host lacks apt's signed index of bookworm, or the archive keyring");
        return;
    };
    // Only the signed index is there: being told that the first index is missing means that it was believed.
    let lab = Lab::new();
    lab.write("dists/bookworm/InRelease", fs::read(inrelease).unwrap());
    let debian = recipe::Debian {
        suites: vec!["bookworm".into()],
        architecture: "amd64".into(),
        packages: Vec::new(),
        build_dependencies_of: Vec::new(),
    };
    let trust = Trust { keyrings: &keyrings, clock: Timestamp::now(), seen: None, freshness: Freshness::Required };
    let error = pin(&Directory(lab.directory.path().into()), &debian, &[], &trust).unwrap_err();
    assert!(matches!(error, PinError::Fetch { .. }), "{}", chain(&error));
}
