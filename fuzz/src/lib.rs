//! The targets, for the fuzzer; an ordinary test of kiln's runs the same file over the committed corpus.

mod targets;

pub use targets::*;
