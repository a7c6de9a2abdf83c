//! Any text is the signed part of an InRelease or an error.
#![no_main]

use kiln_model::format::release::Release;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let _ = Release::parse(text);
});
