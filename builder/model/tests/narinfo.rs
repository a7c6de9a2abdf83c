//! narinfos as Nix 2.8 wrote and signed them (`vectors/README.md`): same bytes, same signatures, and the malformed ones refused.

#![expect(clippy::unwrap_used, reason = "a vector that cannot be read fails its test")]
#![expect(clippy::disallowed_methods, reason = "the vectors are files")]

use std::path::PathBuf;

use kiln_model::derivation::Derivation;
use kiln_model::digest::{Digest, NarHash};
use kiln_model::format::narinfo::{Compression, NarInfo, NarInfoError, file_name};
use kiln_model::format::signature::{PublicKey, SecretKey, Untrusted};
use kiln_model::store_path::{Algorithm, ContentAddress, Hasher, Method, StorePath};

fn vector(path: &str) -> Vec<u8> {
    std::fs::read(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/vectors").join(path)).unwrap()
}

fn files(directory: &str) -> Vec<(String, Vec<u8>)> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/vectors").join(directory);
    let mut names: Vec<String> =
        std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names.into_iter().map(|name| (name.clone(), vector(&format!("{directory}/{name}")))).collect()
}

fn public() -> PublicKey {
    String::from_utf8(vector("keys/kiln-corpus-1.pub")).unwrap().trim_end().parse().unwrap()
}

fn secret() -> SecretKey {
    let text = String::from_utf8(vector("keys/kiln-corpus-1.sec.PUBLIC-TEST-KEY")).unwrap();
    text.trim_end().parse().unwrap()
}

fn narinfos() -> Vec<NarInfo> {
    let infos: Vec<NarInfo> = files("narinfo")
        .into_iter()
        .map(|(file, bytes)| NarInfo::parse(&bytes).unwrap_or_else(|error| panic!("{file}: {error}")))
        .collect();
    assert_eq!(infos.len(), 74);
    infos
}

#[test]
fn every_narinfo_prints_the_bytes_it_was_parsed_from() {
    for (file, bytes) in files("narinfo") {
        let info = NarInfo::parse(&bytes).unwrap();
        assert_eq!(info.print().as_bytes(), bytes, "{file}");
        assert_eq!(file_name(&info.path), file);
    }
}

#[test]
fn signing_again_gives_the_very_lines_that_nix_wrote() {
    let (public, secret) = (public(), secret());
    assert_eq!(secret.public(), public);
    assert_eq!(secret.reveal().into_bytes(), vector("keys/kiln-corpus-1.sec.PUBLIC-TEST-KEY").trim_ascii_end());
    for info in narinfos() {
        assert_eq!(info.signer(std::slice::from_ref(&public)), Ok(&public));
        let mut again = NarInfo { signatures: Vec::new(), ..info.clone() };
        again.sign(&secret);
        assert_eq!(again, info);
        again.sign(&secret);
        assert_eq!(again, info, "signing twice adds nothing");
    }
}

#[test]
fn whatever_a_signature_covers_cannot_be_changed_and_what_it_does_not_is_not_believed_to_be() {
    let keys = [public()];
    let info = narinfos().into_iter().find(|info| !info.references.is_empty() && info.address.is_none()).unwrap();
    let other: StorePath = "/nix/store/1ncm7wbm5d286vjcmdnyqwwkndbl28s6-other".parse().unwrap();
    let wrong = Err(Untrusted::Wrong { name: "kiln-corpus-1".into() });
    let mut references = info.references.clone();
    references.pop_first();
    for altered in [
        NarInfo { path: other, ..info.clone() },
        NarInfo { nar_hash: NarHash::new(Digest::of("other")), ..info.clone() },
        NarInfo { nar_size: info.nar_size + 1, ..info.clone() },
        NarInfo { references, ..info.clone() },
    ] {
        assert_eq!(altered.signer(&keys), wrong);
    }
    let hint = NarInfo { url: "nar/other".into(), file_size: None, deriver: None, ..info };
    assert_eq!(hint.signer(&keys), Ok(&keys[0]));
}

#[test]
fn every_content_address_yields_its_path_and_no_other() {
    let mut seen = 0;
    for info in narinfos() {
        let Some(address) = &info.address else { continue };
        assert!(address.yields(&info.path, &info.references), "{}", info.path);
        assert_eq!(address.to_string().parse(), Ok(address.clone()));
        let renamed = StorePath::from_base_name(&format!("{}x", info.path.base_name())).unwrap();
        assert!(!address.yields(&renamed, &info.references));
        seen += 1;
    }
    assert!(seen > 40, "{seen}");
}

#[test]
fn the_address_of_a_derivation_is_the_digest_of_its_text_and_that_of_an_output_of_its_bytes() {
    let infos = narinfos();
    for (file, bytes) in files("drv") {
        let path = StorePath::from_base_name(&file).unwrap();
        let Some(info) = infos.iter().find(|info| info.path == path) else { continue };
        assert_eq!(info.address, Some(ContentAddress::Text(Digest::of(&bytes))));
        let derivation = Derivation::parse_at(&path, &bytes).unwrap();
        let references = derivation.input_sources.into_iter().chain(derivation.input_derivations.into_keys()).collect();
        assert_eq!(info.references, references);
    }
    let flat = |name: &str, algorithm| {
        let info = infos.iter().find(|info| info.path.name() == name).unwrap();
        let nar = vector(&format!("nar/{}.nar", info.path.base_name()));
        // A root that is a file: its contents follow its size, at byte 96.
        let size = u64::from_le_bytes(nar[88..96].try_into().unwrap()) as usize;
        let mut hasher = Hasher::new(algorithm);
        hasher.update(&nar[96..96 + size]);
        let expected = ContentAddress::Fixed { method: Method::Flat, algorithm, digest: hasher.finish() };
        assert_eq!(info.address, Some(expected), "{name}");
    };
    flat("fod-flat", Algorithm::Sha256);
    flat("fod-flat-md5", Algorithm::Md5);
    flat("fod-flat-sha512", Algorithm::Sha512);
}

#[test]
fn malformed_narinfos_are_refused_and_odd_ones_come_to_what_the_list_says() {
    let keys = [public()];
    let good = NarInfo::parse(&vector("bad-narinfo/00-good")).unwrap();
    for (file, bytes) in files("bad-narinfo") {
        let parsed = NarInfo::parse(&bytes);
        match &file[..2] {
            "00" | "05" | "07" | "25" => {
                let info = parsed.unwrap_or_else(|error| panic!("{file}: {error}"));
                assert_eq!(info.signer(&keys), Ok(&keys[0]), "{file}");
                assert_eq!(info.fingerprint(), good.fingerprint(), "{file}");
            }
            // The bytes are not bzip2, which is found out later.
            "06" => assert_eq!(parsed.unwrap().compression, Compression::Bzip2),
            "08" => assert_eq!(parsed.unwrap().signer(&keys), Err(Untrusted::Unsigned)),
            "28" | "29" => {
                assert!(matches!(parsed.unwrap().signer(&keys), Err(Untrusted::Wrong { .. })), "{file}")
            }
            "32" | "33" => {
                assert!(matches!(parsed.unwrap().signer(&keys), Err(Untrusted::Malformed { .. })), "{file}")
            }
            _ => assert!(parsed.is_err(), "{file}: {parsed:?}"),
        }
    }
}

#[test]
fn a_refusal_names_the_field() {
    let refused = |file: &str| NarInfo::parse(&vector(&format!("bad-narinfo/{file}"))).unwrap_err();
    assert_eq!(refused("03-no-narsize"), NarInfoError::Missing { field: "NarSize" });
    assert_eq!(refused("15-dup-narhash"), NarInfoError::Twice { field: "NarHash".into() });
    assert_eq!(refused("20-no-final-newline"), NarInfoError::Unfinished);
    assert_eq!(refused("19-crlf"), NarInfoError::Line { line: 1 });
    for (file, named) in [
        ("12-narsize-plus", "NarSize"),
        ("16-url-absolute", "URL"),
        ("17-url-dotdot", "URL"),
        ("18-url-abs-path", "URL"),
        ("27-narhash-md5", "NarHash"),
        ("34-compression-unknown", "Compression"),
    ] {
        assert!(matches!(refused(file), NarInfoError::Value { field, .. } if field == named), "{file}");
    }
    for (file, named) in [("30-ref-bad", "References"), ("35-otherstore", "StorePath"), ("37-ca-bad", "CA")] {
        assert!(matches!(refused(file), NarInfoError::Path { field, .. } if field == named), "{file}");
    }
}
