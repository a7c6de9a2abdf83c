//! Parsing what a cache says never panics; what was parsed prints to something that parses to the same.
#![no_main]

use kiln_model::format::cache_info::CacheInfo;
use kiln_model::format::narinfo::NarInfo;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = CacheInfo::parse(bytes);
    if let Ok(info) = NarInfo::parse(bytes) {
        assert_eq!(NarInfo::parse(info.print().as_bytes()).as_ref(), Ok(&info));
        let _ = info.signer(&[]);
    }
});
