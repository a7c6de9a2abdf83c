//! Outputs whose paths follow from their contents: caches say which they are, and Nix builds nothing.

use std::fs;
use std::path::Path;

use kiln_model::format::realisation::Realisation;
use kiln_model::store_path::StorePath;
use kiln_tests::derivation::{vector, with_builder};
use kiln_tests::lab::Lab;
use kiln_tests::run::{Kiln, Ran};
use kiln_tests::shelf::Shelf;
use serde_json::Value;

use crate::listing;
use crate::serving::Served;

fn publish(kiln: &Kiln, lab: &Lab, to: &str, key: &str, what: &[&Path]) -> Ran {
    let key = lab.secret(key);
    let arguments = ["publish", "--json", "--nix-cache", "--to", to, "--key"].map(std::ffi::OsStr::new);
    kiln.run(arguments.into_iter().chain([key.as_os_str()]).chain(what.iter().map(|path| path.as_os_str())))
}

/// The realisations in a cache.
fn realisations(cache: &Path) -> Vec<Realisation> {
    let files = listing(&cache.join("realisations")).into_iter();
    let read = |(file, bytes): (std::path::PathBuf, Vec<u8>)| {
        let realisation = Realisation::parse(&bytes).unwrap();
        assert_eq!(file, cache.join(realisation.file()));
        assert_eq!(realisation.print().as_bytes(), bytes);
        realisation
    };
    files.map(read).collect()
}

/// Nix's second store gets the derivation and its outputs from `cache`, and may build nothing.
#[track_caller]
fn nix_takes(lab: &Lab, cache: &str, derivation: &str, outputs: &[String]) {
    lab.fresh();
    lab.second(cache, "ours", "nix", ["copy", "--from", cache, "--derivation", derivation]).succeeded();
    let realise = ["--realise", derivation, "--max-jobs", "0"];
    let realised = lab.second(cache, "ours", "nix-store", realise).succeeded().stdout;
    let mut realised: Vec<&str> = realised.lines().map(|path| path.split('!').next().unwrap()).collect();
    realised.sort();
    assert_eq!(realised, outputs);
    for output in outputs {
        let key = lab.public("ours");
        let verify = ["store", "verify", "--sigs-needed", "1", "--trusted-public-keys", &key, output];
        lab.second(cache, "ours", "nix", verify).succeeded();
    }
}

fn outputs(outcome: &Value) -> Vec<String> {
    let outputs = outcome["outputs"].as_object().unwrap().values();
    let mut paths: Vec<String> = outputs.map(|output| output["path"].as_str().unwrap().to_owned()).collect();
    paths.sort();
    paths
}

#[test]
fn nix_takes_outputs_that_float_from_a_directory_a_server_and_a_served_store() {
    let test = "nix_takes_outputs_that_float_from_a_directory_a_server_and_a_served_store";
    let Some(lab) = Lab::open(test) else { return };
    let Some(kiln) = with_builder(test) else { return };
    let kiln = kiln.online();
    let (shelf, directory) = (Shelf::start(), lab.path().join("cache"));
    let served = Served::start(&kiln, &lab.secret("ours"));
    for (name, count) in [("ca-simple", 1), ("ca-self", 2), ("ca-multi", 4), ("ia-uses-ca", 5)] {
        let file = vector(name);
        let outputs = outputs(&kiln.build_one(&file));
        let derivation = format!("/nix/store/{}", file.file_name().unwrap().to_str().unwrap());
        let local = format!("file://{}", directory.display());
        for to in [&local, shelf.address()] {
            publish(&kiln, &lab, to, "ours", &[&file]).succeeded();
        }
        assert!(realisations(&directory).len() >= count, "{name}");
        assert_eq!(realisations(&directory), realisations(shelf.path()));
        // A served store is asked for what was built after it had been asked for something else.
        std::thread::sleep(std::time::Duration::from_millis(1100));
        for cache in [&local, shelf.address(), &served.address] {
            nix_takes(&lab, cache, &derivation, &outputs);
        }
    }
}

#[test]
fn realisations_are_signed_by_all_who_agree_are_those_that_nix_writes_and_another_path_is_refused() {
    let test = "realisations_are_signed_by_all_who_agree_are_those_that_nix_writes_and_another_path_is_refused";
    let Some(lab) = Lab::open(test) else { return };
    let Some(kiln) = with_builder(test) else { return };
    let file = vector("ia-uses-ca");
    kiln.build_one(&file);
    let cache = lab.path().join("cache");
    let to = cache.display().to_string();
    let first = publish(&kiln, &lab, &to, "ours", &[&file]).succeeded().json();
    let before = listing(&cache);
    assert_eq!(first["realisations"], realisations(&cache).len());
    assert_eq!(publish(&kiln, &lab, &to, "ours", &[&file]).succeeded().json()["realisations"], 0);
    assert_eq!(listing(&cache), before);
    assert_eq!(publish(&kiln, &lab, &to, "other", &[&file]).succeeded().json()["realisations"], first["realisations"]);
    assert!(realisations(&cache).iter().all(|realisation| realisation.signatures.len() == 2));

    // Nix writes the same files, signatures and all.
    let derivation = format!("/nix/store/{}", file.file_name().unwrap().to_str().unwrap());
    let local = format!("file://{to}");
    lab.second(&local, "ours", "nix", ["copy", "--from", &local, "--derivation", &derivation]).succeeded();
    lab.second(&local, "ours", "nix-store", ["--realise", &derivation, "--max-jobs", "0"]).succeeded();
    let theirs = lab.path().join("theirs");
    let copy = format!("file://{}?secret-key={}", theirs.display(), lab.secret("ours").display());
    lab.second(&local, "ours", "nix", ["copy", "--to", &copy, &derivation]).succeeded();
    let mut compared = 0;
    for theirs in realisations(&theirs) {
        let ours = Realisation::parse(&fs::read(cache.join(theirs.file())).unwrap()).unwrap();
        assert_eq!((&ours.path, &ours.dependent), (&theirs.path, &theirs.dependent));
        assert!(theirs.signatures.is_subset(&ours.signatures), "{theirs:?} {ours:?}");
        compared += 1;
    }
    assert!(compared > 0, "Nix copied no realisation");

    let mut altered = realisations(&cache).pop().unwrap();
    let other = "/nix/store/00000000000000000000000000000000-other".parse::<StorePath>().unwrap();
    let path = std::mem::replace(&mut altered.path, other.clone());
    fs::write(cache.join(altered.file()), altered.print()).unwrap();
    let before = listing(&cache);
    let refused = publish(&kiln, &lab, &to, "ours", &[&file]).exits(1);
    refused.says(&[path.base_name(), other.base_name(), "two builds differ"]);
    assert_eq!(listing(&cache), before);
    fs::write(cache.join(altered.file()), "<html>").unwrap();
    publish(&kiln, &lab, &to, "ours", &[&file]).exits(6).says(&["realisation"]);
}
