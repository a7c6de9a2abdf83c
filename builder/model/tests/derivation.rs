//! Derivations as Nix 2.8 wrote them (`vectors/README.md`): same bytes, same paths, and the malformed ones refused.

#![expect(clippy::unwrap_used, reason = "a vector that cannot be read fails its test")]
#![expect(clippy::disallowed_methods, reason = "the vectors are files")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use kiln_model::derivation::{Derivation, DerivationError, Modulo, Output, Parts};
use kiln_model::name::Name;
use kiln_model::store_path::{StorePath, placeholder, upstream_placeholder};

fn vectors(directory: &str) -> Vec<(String, Vec<u8>)> {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/vectors").join(directory);
    let mut files: Vec<_> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap())
        })
        .collect();
    files.sort();
    assert!(!files.is_empty());
    files
}

fn derivations() -> BTreeMap<StorePath, Derivation> {
    vectors("drv")
        .into_iter()
        .map(|(file, bytes)| {
            let path = StorePath::from_base_name(&file).unwrap();
            let derivation = Derivation::parse_at(&path, &bytes).unwrap_or_else(|error| panic!("{file}: {error}"));
            (path, derivation)
        })
        .collect()
}

/// Modulo hashes of all, inputs first.
fn modulos(derivations: &BTreeMap<StorePath, Derivation>) -> BTreeMap<StorePath, Modulo> {
    let mut known = BTreeMap::new();
    while known.len() < derivations.len() {
        let before = known.len();
        for (path, derivation) in derivations {
            if derivation.input_derivations.keys().all(|input| known.contains_key(input)) {
                known.insert(path.clone(), derivation.modulo(&known).unwrap());
            }
        }
        assert!(known.len() > before, "the vectors are closed");
    }
    known
}

fn parts(derivation: &Derivation) -> Parts {
    let mut environment = derivation.environment.clone();
    environment.retain(|key, _| !derivation.outputs.keys().any(|output| output.as_str().as_bytes() == key));
    Parts {
        name: derivation.name.clone(),
        outputs: derivation.outputs.keys().cloned().collect(),
        input_derivations: derivation.input_derivations.clone(),
        input_sources: derivation.input_sources.clone(),
        system: derivation.system.clone(),
        builder: derivation.builder.clone(),
        arguments: derivation.arguments.clone(),
        environment,
    }
}

#[test]
fn every_derivation_prints_the_bytes_it_was_parsed_from_and_lies_at_its_path() {
    for (file, bytes) in vectors("drv") {
        let path = StorePath::from_base_name(&file).unwrap();
        let derivation = Derivation::parse(path.derivation_name().unwrap(), &bytes).unwrap();
        assert_eq!(derivation.print(), bytes, "{file}");
        assert_eq!(derivation.path().unwrap(), path, "{file}");
    }
}

#[test]
fn every_output_path_is_the_one_nix_computed() {
    let derivations = derivations();
    let modulos = modulos(&derivations);
    let table =
        String::from_utf8(std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/outputs.tsv")).unwrap())
            .unwrap();
    let mut seen = BTreeSet::new();
    for row in table.lines().skip(1) {
        let [path, output, kind, expected] = row.split('\t').collect::<Vec<_>>()[..] else { panic!("{row}") };
        let Some(derivation) = derivations.get(&path.parse().unwrap()) else { continue };
        derivation.check(&modulos).unwrap();
        let found = derivation.output_paths(&modulos).unwrap().remove(&output.parse::<Name>().unwrap()).unwrap();
        match kind {
            "input-addressed" | "fixed" => assert_eq!(found.unwrap().to_string(), expected, "{path}!{output}"),
            "floating" | "deferred" => assert_eq!(found, None, "{path}!{output}"),
            _ => panic!("{row}"),
        }
        seen.insert(kind.to_owned());
    }
    assert_eq!(seen.len(), 4, "{seen:?}");
}

#[test]
fn closing_the_parts_of_a_derivation_gives_the_derivation_back() {
    let derivations = derivations();
    let modulos = modulos(&derivations);
    let mut closed = 0;
    for (path, derivation) in &derivations {
        if !derivation.outputs.values().all(|output| matches!(output, Output::InputAddressed(_))) {
            continue;
        }
        let again = Derivation::close(parts(derivation), &modulos).unwrap();
        assert_eq!(again.path, *path);
        assert_eq!(again.bytes, derivation.print());
        assert_eq!(again.modulo, modulos[path]);
        closed += 1;
    }
    assert!(closed > 10);
}

#[test]
fn an_argument_that_is_not_text_is_kept_as_it_is() {
    let derivations = derivations();
    let latin1 = derivations.values().find(|derivation| derivation.name.as_str() == "latin1").unwrap();
    assert!(latin1.arguments.iter().any(|argument| std::str::from_utf8(argument).is_err()));
    latin1.check(&BTreeMap::new()).unwrap();
}

#[test]
fn malformed_or_altered_derivations_are_refused() {
    for (file, bytes) in vectors("bad-drv") {
        let parsed = Derivation::parse("ia-simple".parse().unwrap(), &bytes);
        let checked = parsed.and_then(|derivation| derivation.check(&BTreeMap::new()));
        assert_eq!(checked.is_ok(), file == "00-good", "{file}: {checked:?}");
    }
}

#[test]
fn a_wrong_output_path_is_tampering_and_a_truncated_file_is_not() {
    let refusal = |wanted: &str| {
        let (_, bytes) = vectors("bad-drv").into_iter().find(|(file, _)| file == wanted).unwrap();
        Derivation::parse("ia-simple".parse().unwrap(), &bytes)
            .and_then(|derivation| derivation.check(&BTreeMap::new()))
            .unwrap_err()
    };
    assert!(refusal("18-wrong-outpath").is_tampering());
    assert!(!refusal("01-truncated").is_tampering());
}

#[test]
fn bytes_under_another_path_are_tampering() {
    let (file, bytes) = vectors("drv").into_iter().find(|(file, _)| file.ends_with("-ia-simple.drv")).unwrap();
    let moved = StorePath::from_base_name(&file.replacen('b', "c", 1)).unwrap();
    let refused = Derivation::parse_at(&moved, &bytes).unwrap_err();
    assert!(refused.is_tampering(), "{refused}");
}

#[test]
fn an_input_that_nobody_knows_is_named() {
    let derivations = derivations();
    let derivation = derivations.values().find(|derivation| derivation.name.as_str() == "ia-b").unwrap();
    let input = derivation.input_derivations.keys().next().unwrap().clone();
    assert_eq!(derivation.check(&BTreeMap::new()), Err(DerivationError::UnknownInput { path: input }));
}

#[test]
fn new_derivations_cannot_set_an_output_or_have_none() {
    let derivations = derivations();
    let simple = derivations.values().find(|derivation| derivation.name.as_str() == "ia-simple").unwrap();
    let mut set = parts(simple);
    set.environment.insert(b"out".to_vec(), b"/tmp".to_vec());
    assert!(matches!(Derivation::close(set, &BTreeMap::new()), Err(DerivationError::VariableIsOutput { .. })));
    let mut none = parts(simple);
    none.outputs.clear();
    assert_eq!(Derivation::close(none, &BTreeMap::new()), Err(DerivationError::NoOutputs));
    let mut nul = parts(simple);
    nul.arguments.push(b"a\0b".to_vec());
    assert!(matches!(Derivation::close(nul, &BTreeMap::new()), Err(DerivationError::Nul { .. })));
}

#[test]
fn placeholders_are_those_nix_wrote() {
    let derivations = derivations();
    let user = derivations.values().find(|derivation| derivation.name.as_str() == "placeholder").unwrap();
    let text = user.print();
    let dev = placeholder(&"dev".parse().unwrap());
    assert!(text.windows(dev.len()).any(|window| window == dev.as_bytes()), "{dev}");

    let user = derivations.values().find(|derivation| derivation.name.as_str() == "ia-uses-ca").unwrap();
    let (input, outputs) = user.input_derivations.first_key_value().unwrap();
    let floating = upstream_placeholder(input, outputs.first().unwrap()).unwrap();
    let text = user.print();
    assert!(text.windows(floating.len()).any(|window| window == floating.as_bytes()), "{floating}");
}

/// The crate that computes store paths also reads derivations: two readers, one answer.
#[test]
fn the_crate_reads_the_same_derivations() {
    for (file, bytes) in vectors("drv") {
        if file.ends_with("-latin1.drv") {
            continue; // The reason why kiln has a reader of its own.
        }
        let path = StorePath::from_base_name(&file).unwrap();
        let name = path.derivation_name().unwrap();
        let theirs = nix_derivation::Derivation::from_aterm_bytes(&bytes, name.as_str()).unwrap();
        let ours = Derivation::parse(name, &bytes).unwrap();
        assert_eq!(theirs.to_aterm_bytes(), ours.print(), "{file}");
    }
}

#[test]
fn every_derivation_is_shown_as_nix_shows_it() {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/show-derivation.json");
    let shown: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    assert_eq!(shown.len(), 34);
    let derivations = derivations();
    for (path, expected) in &shown {
        assert_eq!(derivations[&path.parse().unwrap()].show().unwrap(), *expected, "{path}");
    }
}

#[test]
fn a_derivation_that_json_cannot_hold_is_refused() {
    let derivations = derivations();
    let latin = derivations.values().find(|derivation| derivation.name.as_str() == "latin1").unwrap();
    assert_eq!(latin.show(), Err(DerivationError::NotText { what: "an argument" }));
}

#[test]
fn structured_attributes_are_written_as_nix_wrote_them() {
    let derivations = derivations();
    let find = |name: &str| derivations.values().find(|derivation| derivation.name.as_str() == name).unwrap();
    let structured = find("structured");
    let outputs: BTreeMap<Name, StorePath> =
        structured.outputs.iter().map(|(name, output)| (name.clone(), output.path().unwrap().clone())).collect();
    let files = structured.attributes(&outputs, &BTreeMap::new()).unwrap().unwrap();
    // The build copied both files to its output, which is one file: its contents follow its size, at byte 96.
    let (_, nar) = vectors("nar").into_iter().find(|(file, _)| file.ends_with("-structured.nar")).unwrap();
    let expected = [&files.json[..], b"\n", &files.shell].concat();
    assert_eq!(
        String::from_utf8_lossy(&nar[96..96 + expected.len()]),
        String::from_utf8_lossy(&expected),
        "as in Nix's sandbox"
    );
    assert_eq!(find("ia-simple").attributes(&BTreeMap::new(), &BTreeMap::new()), Ok(None));
    assert!(structured.attributes(&BTreeMap::new(), &BTreeMap::new()).is_err(), "each output has a path");
    let mut bad = structured.clone();
    bad.environment.insert(b"__json".to_vec(), b"[]".to_vec());
    assert!(bad.attributes(&outputs, &BTreeMap::new()).is_err());
}
