//! Bounds of a comparison: on memory, on what is unpacked, on what is told.

use std::collections::BTreeSet;

use kiln_model::normalise::Normaliser;

/// How two artifacts are compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Bounds.
    pub limits: Limits,
    /// Normalisers that may make what differs equivalent.
    pub normalisers: BTreeSet<Normaliser>,
}

impl Default for Options {
    fn default() -> Self {
        Self { limits: Limits::default(), normalisers: Normaliser::of_verdicts() }
    }
}

/// Bounds of a comparison. What a bound cut off is counted, or is a detail that says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Files that are listed and looked into; others are counted.
    pub listed: usize,
    /// Details of one file that are told, the most telling first; others are counted.
    pub details: usize,
    /// Lines of an excerpt of two texts.
    pub lines: usize,
    /// Containers within containers.
    pub depth: usize,
    /// Members of one container.
    pub members: usize,
    /// Bytes that one side of one file may unpack to, over all levels.
    pub unpacked: u64,
    /// How often larger than its packed form a stream may be, beyond [`Limits::free`].
    pub ratio: u64,
    /// Bytes that any stream may unpack to.
    pub free: u64,
    /// Bytes of a file that is parsed as a whole (an executable, a text, a document); larger ones are compared as bytes.
    pub parsed: u64,
    /// Bytes of a document or table of texts that is taken apart into its values, each of which takes memory of its own.
    pub taken_apart: u64,
    /// Bytes of unpacked contents that stay in memory; larger ones lie in a temporary file.
    pub kept: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            listed: 200,
            details: 200,
            lines: 40,
            depth: 12,
            members: 150_000,
            unpacked: 32 << 30,
            ratio: 1000,
            free: 64 << 20,
            parsed: 32 << 20,
            taken_apart: 4 << 20,
            kept: 8 << 20,
        }
    }
}
