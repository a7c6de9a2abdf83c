//! A lock that is taken prints to a text that reads back to the same lock.
#![no_main]

use kiln_model::lock::Lock;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(lock) = Lock::parse(text) {
        assert_eq!(Lock::parse(&lock.print()), Ok(lock));
    }
});
