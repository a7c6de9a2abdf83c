//! What the fuzzer keeps, replayed: the short form of `scripts/fuzz`, for any compiler and in no time.
//!
//! A crash that it found once belongs into fuzz/corpus, below the name of its target, with the repair.

#[expect(unreachable_pub, reason = "the fuzzer's library exports what is here")]
#[path = "../../fuzz/src/targets.rs"]
mod targets;

use std::collections::BTreeSet;
use std::panic::catch_unwind;

use kiln_tests::ground;

#[test]
fn every_kept_input_is_taken_or_refused_by_its_parser() {
    for (name, parser) in targets::TARGETS {
        let directory = ground::repository().join("fuzz/corpus").join(name);
        let files: Vec<_> = std::fs::read_dir(&directory)
            .unwrap_or_else(|error| panic!("{}: {error}", directory.display()))
            .map(|entry| entry.unwrap().path())
            .collect();
        assert!(!files.is_empty(), "{name} has no corpus");
        for file in files {
            let bytes = std::fs::read(&file).unwrap();
            assert!(catch_unwind(|| parser(&bytes)).is_ok(), "{}", file.display());
        }
    }
}

#[test]
fn every_target_of_the_fuzzer_is_replayed() {
    let directory = ground::repository().join("fuzz/fuzz_targets");
    let files = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let programs: BTreeSet<String> = files.map(|file| file.file_stem().unwrap().to_str().unwrap().to_owned()).collect();
    let known: BTreeSet<String> = targets::TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(programs, known);
}
