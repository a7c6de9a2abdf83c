//! What of kiln's own readers is fuzzed, under the names that it has there.
#![expect(dead_code, reason = "what the fuzzer does not call is here too")]

pub mod environment;
pub mod fetch;
