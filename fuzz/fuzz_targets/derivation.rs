//! A derivation that is taken prints back to the same bytes: its digest is its id.
#![no_main]

use kiln_model::derivation::Derivation;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(derivation) = Derivation::parse("fuzzed".parse().expect("a name"), bytes) {
        assert_eq!(derivation.print(), bytes);
    }
});
