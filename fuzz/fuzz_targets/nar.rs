//! Any bytes are an archive within bounds or an error, with bounded memory and depth.
#![no_main]

use kiln_model::format::nar::{Limits, decode};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let limits = Limits { entries: 1000, bytes: 1 << 20 };
    let mut entries = 0_u64;
    let walked = decode(&mut &*bytes, &limits, |_| {
        entries += 1;
        Ok(())
    });
    // A directory is told twice: where it begins and where it ends.
    assert!(walked.is_err() || entries <= 2 * limits.entries);
});
