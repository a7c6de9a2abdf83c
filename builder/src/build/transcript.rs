//! The log of one build while it is written: hashed, its end kept in memory.
//!
//! Memory is bounded whatever the build writes; the bytes are kept as they came, whatever they are.

use std::collections::VecDeque;
use std::io::{self, Write};

use kiln_model::digest::Digest;
use kiln_model::outcome::Log;
use sha2::Digest as _;

/// Bytes of a log's end that an outcome of a failed build shows.
const TAIL: usize = 16 << 10;
/// Lines of it.
const TAIL_LINES: usize = 40;

/// A log being written to `W`.
pub(super) struct Transcript<W> {
    sink: W,
    hasher: sha2::Sha256,
    bytes: u64,
    tail: VecDeque<u8>,
    failed: Option<io::Error>,
}

impl<W: Write> Transcript<W> {
    /// Starts one.
    pub(super) fn new(sink: W) -> Self {
        Self { sink, hasher: sha2::Sha256::new(), bytes: 0, tail: VecDeque::new(), failed: None }
    }

    /// Takes the next bytes. A failed write is kept for [`Transcript::finish`]: the build goes on to its end, which is
    /// what frees its resources.
    pub(super) fn add(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
        self.bytes += bytes.len() as u64;
        self.tail.extend(&bytes[bytes.len().saturating_sub(TAIL)..]);
        let surplus = self.tail.len().saturating_sub(TAIL);
        self.tail.drain(..surplus);
        if self.failed.is_none() {
            self.failed = self.sink.write_all(bytes).err();
        }
    }

    /// The last lines, invalid UTF-8 replaced.
    pub(super) fn tail(&self) -> String {
        let bytes: Vec<u8> = self.tail.iter().copied().collect();
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
    }

    /// Says what was written, and gives the sink back to be finished.
    pub(super) fn finish(self) -> io::Result<(Log, W)> {
        match self.failed {
            Some(error) => Err(error),
            None => {
                let sha256 = Digest::from_bytes(self.hasher.finalize().into());
                Ok((Log { sha256, bytes: self.bytes }, self.sink))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_log_is_kept_and_its_tail_is_bounded() {
        let mut transcript = Transcript::new(Vec::new());
        let mut whole = Vec::new();
        for n in 0..20_000 {
            let line = format!("line {n} \u{fffd}\n");
            whole.extend(line.bytes());
            transcript.add(line.as_bytes());
        }
        let tail = transcript.tail();
        assert_eq!(tail.lines().count(), TAIL_LINES);
        assert!(tail.ends_with("line 19999 \u{fffd}"), "{tail}");
        let (log, kept) = transcript.finish().unwrap();
        assert_eq!(log, Log { sha256: Digest::of(&whole), bytes: whole.len() as u64 });
        assert_eq!(kept, whole);
    }
}
