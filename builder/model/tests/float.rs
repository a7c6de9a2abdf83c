//! Outputs whose paths are not known before the build, as Nix 2.8 realised them (`vectors/README.md`).

#![expect(clippy::unwrap_used, reason = "a vector that cannot be read fails its test")]
#![expect(clippy::disallowed_methods, reason = "the vectors are files")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::PathBuf;

use kiln_model::derivation::{Derivation, DerivationError, Modulo, Output};
use kiln_model::digest::Digest;
use kiln_model::format::realisation::{Realisation, RealisationError, RealisationId};
use kiln_model::name::Name;
use kiln_model::rewrite::{Masking, Rewrites};
use kiln_model::store_path::{
    Algorithm, Method, SelfReference, StorePath, StorePathError, content_address, placeholder,
};

fn vector(name: &str) -> Vec<u8> {
    std::fs::read(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/vectors").join(name)).unwrap()
}

fn derivation(base_name: &str) -> (StorePath, Derivation) {
    let path = StorePath::from_base_name(base_name).unwrap();
    let derivation = Derivation::parse_at(&path, &vector(&format!("drv/{base_name}"))).unwrap();
    (path, derivation)
}

fn all() -> BTreeMap<StorePath, Derivation> {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/drv");
    let names = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.map(|name| derivation(&name)).collect()
}

/// Modulo hashes of all, inputs first.
fn modulos(derivations: &BTreeMap<StorePath, Derivation>) -> BTreeMap<StorePath, Modulo> {
    let mut known = BTreeMap::new();
    while known.len() < derivations.len() {
        let ready = |derivation: &Derivation| derivation.input_derivations.keys().all(|it| known.contains_key(it));
        let (path, derivation) =
            derivations.iter().find(|(path, derivation)| !known.contains_key(*path) && ready(derivation)).unwrap();
        known.insert(path.clone(), derivation.modulo(&known).unwrap());
    }
    known
}

fn out() -> Name {
    "out".parse().unwrap()
}

const CA_SIMPLE: &str = "gxxjv75zrgvvqwmsnw3q9w8fi2fr0nyb-ca-simple.drv";
const CA_SIMPLE_OUT: &str = "/nix/store/bh830nhk7ha8s25xmcshwxlgcasamv4a-ca-simple";
const IA_USES_CA: &str = "1hsnb9lmrjw5q02d68g1p12a3h1ciznl-ia-uses-ca.drv";
const CA_SELF: &str = "7g4dh51ib2vmzg9d7m2hgxgms8j3g9sy-ca-self.drv";
const CA_SELF_OUT: &str = "/nix/store/k6797war0px6sr1pkwzh6279i332x4cf-ca-self";

#[test]
fn a_deferred_derivation_resolves_to_the_one_that_nix_built() {
    let (input, _) = derivation(CA_SIMPLE);
    let (_, deferred) = derivation(IA_USES_CA);
    assert!(deferred.floats());
    let closed = deferred
        .resolve(&|derivation, output| {
            (*derivation == input && *output == out()).then(|| CA_SIMPLE_OUT.parse().unwrap())
        })
        .unwrap();
    // Both as the corpus' cache has them: the output's narinfo names the resolved derivation.
    assert_eq!(closed.path.base_name(), "y4vpwwis0bnvi8ymv60fqfm0qf0dk060-ia-uses-ca.drv");
    let path: StorePath = "/nix/store/0swdmq70m5cdmgaijsl5vlmhgvx0da9j-ia-uses-ca".parse().unwrap();
    assert_eq!(closed.derivation.outputs[&out()], Output::InputAddressed(path.clone()));
    assert_eq!(closed.derivation.environment[b"out".as_slice()], path.to_string().into_bytes());
    assert!(closed.derivation.input_sources.contains(&CA_SIMPLE_OUT.parse().unwrap()));
    assert!(closed.derivation.input_derivations.is_empty() && !closed.derivation.floats());
    closed.derivation.check(&BTreeMap::new()).unwrap();
}

#[test]
fn an_input_that_was_not_built_is_named_and_a_derivation_without_inputs_resolves_to_itself() {
    let (input, _) = derivation(CA_SIMPLE);
    let (_, deferred) = derivation(IA_USES_CA);
    let refused = deferred.resolve(&|_, _| None).unwrap_err();
    assert_eq!(refused, DerivationError::NotRealised { derivation: input, output: out() });
    let (path, alone) = derivation(CA_SELF);
    let closed = alone.resolve(&|_, _| None).unwrap();
    assert_eq!((closed.path, closed.derivation), (path, alone));
}

#[test]
fn every_realisation_has_the_id_that_nix_gave_it_and_prints_as_nix_printed_it() {
    let derivations = all();
    let modulos = modulos(&derivations);
    let mut ids: BTreeMap<RealisationId, StorePath> = BTreeMap::new();
    for (path, known) in &derivations {
        let digest = known.realisation_digest(&modulos).unwrap();
        for output in known.outputs.keys() {
            ids.insert(RealisationId { derivation: digest, output: output.clone() }, path.clone());
        }
    }
    let mut seen = BTreeSet::new();
    for line in String::from_utf8(vector("realisations.jsonl")).unwrap().lines() {
        let realisation = Realisation::parse(line.as_bytes()).unwrap();
        assert_eq!(realisation.print(), line);
        assert_eq!(realisation.fingerprint(), line.replace(r#","signatures":[]"#, ""));
        let Some(path) = ids.get(&realisation.id) else { panic!("no derivation has {}", realisation.id) };
        let known = &derivations[path];
        if let Some(before) = known.outputs[&realisation.id.output].path() {
            assert_eq!(*before, realisation.path);
        } else {
            assert_eq!(realisation.file(), format!("realisations/{}.doi", realisation.id));
            seen.insert(path.name().to_owned());
        }
    }
    assert_eq!(seen, ["ca-multi.drv", "ca-self.drv", "ca-simple.drv", "ia-uses-ca.drv"].map(String::from).into());
}

#[test]
fn a_realisation_with_signatures_and_dependents_is_read_back_and_bad_ones_are_refused() {
    let hex = "0".repeat(64);
    let good = format!(
        r#"{{"dependentRealisations":{{"sha256:{hex}!out":"bh830nhk7ha8s25xmcshwxlgcasamv4a-x"}},"id":"sha256:{hex}!dev","outPath":"k6797war0px6sr1pkwzh6279i332x4cf-y","signatures":["k-1:AAAA"]}}"#
    );
    let realisation = Realisation::parse(good.as_bytes()).unwrap();
    assert_eq!(realisation.print(), good);
    assert_eq!(realisation.dependent.len(), 1);
    assert!(!realisation.fingerprint().contains("AAAA"));
    for bad in [
        good.replace("!dev", "dev"),
        good.replace("\"id\":\"sha256", "\"id\":\"md5"),
        good.replace("-y\"", "/y\""),
        good.replace("outPath", "path"),
    ] {
        assert!(matches!(Realisation::parse(bad.as_bytes()), Err(RealisationError::Json(_))), "{bad}");
    }
    assert!("sha256:00!out".parse::<RealisationId>().is_err());
}

#[test]
fn a_tree_that_names_itself_has_the_content_address_and_path_that_nix_computed() {
    let nar = vector("nar/k6797war0px6sr1pkwzh6279i332x4cf-ca-self.nar");
    let (path, floating) = derivation(CA_SELF);
    let last: StorePath = CA_SELF_OUT.parse().unwrap();
    let scratch = StorePath::scratch(&path, &out()).unwrap();
    let mut at_scratch = nar.clone();
    Rewrites::new([(&last, &scratch)]).apply(&mut at_scratch);
    assert_ne!(at_scratch, nar);

    let rewrites = Rewrites::default().masking(&scratch);
    for length in [1, 7, 31, 32, 33, 4096] {
        let mut bytes = Vec::new();
        let mut masking = Masking::new(&rewrites, &mut bytes);
        at_scratch.chunks(length).for_each(|piece| masking.write_all(piece).unwrap());
        masking.finish().unwrap();
        let digest = Digest::of(&bytes);
        let (method, algorithm) = (Method::Recursive, Algorithm::Sha256);
        let address = content_address(method, algorithm, digest.as_bytes());
        assert_eq!(address, "fixed:r:sha256:1cb0q2bijlk1z805zlcvx90x8in44vy79jax9xx852wfj8h34nr8");
        let name = (&floating.name, &out());
        let path = |references: &BTreeSet<StorePath>, itself| {
            StorePath::floating(name, (method, algorithm), digest.as_bytes(), references, itself)
        };
        assert_eq!(path(&BTreeSet::new(), SelfReference::Yes), Ok(last.clone()));
        assert_ne!(path(&BTreeSet::new(), SelfReference::No), Ok(last.clone()));
        assert_ne!(path(&[scratch.clone()].into(), SelfReference::Yes), Ok(last.clone()));
    }
}

#[test]
fn outputs_float_together_or_not_at_all() {
    let text = |outputs: &str| format!("Derive([{outputs}],[],[],\"x86_64-linux\",\"/b\",[],[])").into_bytes();
    let parse = |outputs| Derivation::parse("x".parse().unwrap(), &text(outputs));
    assert!(parse(r#"("a","","r:sha256",""),("b","","sha1","")"#).is_ok());
    let mixed = parse(r#"("a","","r:sha256",""),("b","","","")"#);
    assert_eq!(mixed, Err(DerivationError::FloatingAmongOthers { output: "a".parse().unwrap() }));
}

#[test]
fn only_a_recursive_sha256_address_holds_references() {
    let (name, output) = ("x".parse().unwrap(), out());
    for (method, algorithm) in [(Method::Flat, Algorithm::Sha256), (Method::Recursive, Algorithm::Sha1)] {
        let digest = vec![0; algorithm.length()];
        let path =
            |itself| StorePath::floating((&name, &output), (method, algorithm), &digest, &BTreeSet::new(), itself);
        assert_eq!(path(SelfReference::No), StorePath::fixed(&name, method, algorithm, &digest));
        assert_eq!(path(SelfReference::Yes), Err(StorePathError::References { method, algorithm }));
    }
}

#[test]
fn what_floats_is_made_at_a_path_of_its_own_derivation() {
    let (path, floating) = derivation("dfgbdzv9g93lwjxnhjk4c3ly95nqx877-ca-multi.drv");
    let scratch: BTreeSet<StorePath> =
        floating.outputs.keys().map(|output| StorePath::scratch(&path, output).unwrap()).collect();
    let names: Vec<&str> = scratch.iter().map(StorePath::name).collect();
    assert_eq!(BTreeSet::from_iter(names), ["ca-multi", "ca-multi-dev"].into());
    assert!(StorePath::scratch(&CA_SELF_OUT.parse().unwrap(), &out()).is_err());
    assert!(!placeholder(&out()).contains(scratch.first().unwrap().hash_part()));
}
