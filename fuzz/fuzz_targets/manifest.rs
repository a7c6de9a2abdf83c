//! A manifest that is taken is canonical: it prints back to the same bytes.
#![no_main]

use kiln_model::tree::Manifest;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(manifest) = Manifest::parse(bytes) {
        assert_eq!(manifest.print(), bytes);
    }
});
