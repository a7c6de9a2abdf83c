//! Any text is an index of packages and of sources, or an error.
#![no_main]

use kiln_model::format::{packages, sources};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let _ = packages::read::<packages::IndexError>(text, |_| Ok(()));
    let _ = sources::read::<packages::IndexError>(text, |_| true, |_| Ok(()));
});
