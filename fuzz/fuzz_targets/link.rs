//! Hands what the fuzzer makes up to [`kiln_fuzz::link`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| kiln_fuzz::link(bytes));
