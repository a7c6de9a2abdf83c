//! Hands what the fuzzer makes up to [`kiln_fuzz::buildinfo`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| kiln_fuzz::buildinfo(bytes));
