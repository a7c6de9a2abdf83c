//! Hash parts replaced in bytes: how an output that floated gets its final path wherever it was named.
//!
//! A hash part has 32 characters and so has what replaces it, or it is masked by as many NULs; so lengths and offsets stay
//! and a tree keeps its shape. Occurrences are taken as Nix's `RewritingSink` takes them: from the left, none overlapping.

use std::io::{self, Write};

use memchr::memmem;

use crate::store_path::{HASH_LENGTH, StorePath};

/// Which hash parts are replaced, and by what.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rewrites(Vec<([u8; HASH_LENGTH], To)>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum To {
    Part([u8; HASH_LENGTH]),
    Mask,
}

/// Rewrites a stream piece by piece.
#[derive(Debug)]
pub struct Rewriter<'a> {
    rewrites: &'a Rewrites,
    /// What may still become part of an occurrence.
    held: Vec<u8>,
    /// Offset of the first byte held.
    at: u64,
    /// Offsets of what was masked.
    masked: Vec<u64>,
}

/// Writes to `W` what a content address is computed over: a stream with the own hash part masked, then where that was.
#[derive(Debug)]
pub struct Masking<'a, W> {
    rewriter: Rewriter<'a>,
    inner: W,
    ready: Vec<u8>,
}

fn part(path: &StorePath) -> [u8; HASH_LENGTH] {
    path.hash_part().as_bytes().try_into().expect("a hash part has 32 characters")
}

impl Rewrites {
    /// The hash part of each first path becomes that of the second.
    pub fn new<'p>(pairs: impl IntoIterator<Item = (&'p StorePath, &'p StorePath)>) -> Self {
        let differ = pairs.into_iter().filter(|(from, to)| from.hash_part() != to.hash_part());
        Self(differ.map(|(from, to)| (part(from), To::Part(part(to)))).collect())
    }

    /// The same, with `itself` masked.
    pub fn masking(mut self, itself: &StorePath) -> Self {
        self.0.push((part(itself), To::Mask));
        self
    }

    /// Whether nothing is replaced.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether something in `bytes` would be replaced.
    pub fn occur_in(&self, bytes: &[u8]) -> bool {
        self.0.iter().any(|(from, _)| memmem::find(bytes, from).is_some())
    }

    /// Rewrites all of `bytes`.
    pub fn apply(&self, bytes: &mut [u8]) {
        self.apply_telling(bytes, |_| ());
    }

    fn apply_telling(&self, bytes: &mut [u8], mut masked: impl FnMut(usize)) {
        for (from, to) in &self.0 {
            let mut start = 0;
            while let Some(found) = memmem::find(&bytes[start..], from) {
                let at = start + found;
                let place = &mut bytes[at..at + HASH_LENGTH];
                match to {
                    To::Part(part) => place.copy_from_slice(part),
                    To::Mask => {
                        place.fill(0);
                        masked(at);
                    }
                }
                start = at + HASH_LENGTH;
            }
        }
    }

    /// Starts on a stream.
    pub fn rewriter(&self) -> Rewriter<'_> {
        Rewriter { rewrites: self, held: Vec::new(), at: 0, masked: Vec::new() }
    }
}

impl Rewriter<'_> {
    /// Takes a piece, and appends to `out` what cannot change any more.
    pub fn take(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        self.held.extend_from_slice(bytes);
        let (at, masked) = (self.at, &mut self.masked);
        self.rewrites.apply_telling(&mut self.held, |index| masked.push(at + index as u64));
        let done = self.held.len().saturating_sub(HASH_LENGTH - 1);
        out.extend(self.held.drain(..done));
        self.at += done as u64;
    }

    /// Ends the stream: appends the rest, and says at which offsets something was masked.
    pub fn finish(mut self, out: &mut Vec<u8>) -> Vec<u64> {
        out.append(&mut self.held);
        self.masked
    }
}

impl<'a, W: Write> Masking<'a, W> {
    /// Writes to `inner`.
    pub fn new(rewrites: &'a Rewrites, inner: W) -> Self {
        Self { rewriter: rewrites.rewriter(), inner, ready: Vec::new() }
    }

    /// Ends the stream. The offsets tell a tree that names itself from one that has NULs in those places (Nix's
    /// `HashModuloSink::finish`).
    pub fn finish(mut self) -> io::Result<()> {
        self.ready.clear();
        let masked = self.rewriter.finish(&mut self.ready);
        self.inner.write_all(&self.ready)?;
        masked.iter().try_for_each(|offset| write!(self.inner, "|{offset}"))
    }
}

impl<W: Write> Write for Masking<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.ready.clear();
        self.rewriter.take(bytes, &mut self.ready);
        self.inner.write_all(&self.ready)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FROM: &str = "/nix/store/b8zzzm23p9pd6h8zbaiz806gqid7q81v-a";
    const TO: &str = "/nix/store/1ncm7wbm5d286vjcmdnyqwwkndbl28s6-a";

    fn rewrites() -> Rewrites {
        Rewrites::new([(&FROM.parse().unwrap(), &TO.parse().unwrap())])
    }

    #[test]
    fn every_whole_hash_part_is_replaced_and_half_of_one_is_not() {
        let mut bytes = format!("{FROM}{FROM}/x {}", &FROM[..30]).into_bytes();
        assert!(rewrites().occur_in(&bytes));
        rewrites().apply(&mut bytes);
        assert_eq!(bytes, format!("{TO}{TO}/x {}", &FROM[..30]).into_bytes());
        assert!(!rewrites().occur_in(&bytes));
    }

    #[test]
    fn a_path_that_keeps_its_hash_part_needs_no_rewriting() {
        let path: StorePath = FROM.parse().unwrap();
        assert!(Rewrites::new([(&path, &path)]).is_empty());
    }

    #[test]
    fn what_is_masked_is_followed_by_where_it_was() {
        let path: StorePath = FROM.parse().unwrap();
        let rewrites = Rewrites::default().masking(&path);
        let mut out = Vec::new();
        let mut masking = Masking::new(&rewrites, &mut out);
        masking.write_all(format!("ab{}cd{}", path.hash_part(), path.hash_part()).as_bytes()).unwrap();
        masking.finish().unwrap();
        let nul = "\0".repeat(HASH_LENGTH);
        assert_eq!(out, format!("ab{nul}cd{nul}|2|36").into_bytes());
    }

    proptest! {
        #[test]
        fn pieces_of_any_length_give_what_the_whole_gives(words in prop::collection::vec(0..4_usize, 0..20), cut in 1..50_usize) {
            let text: String = words.into_iter().map(|word| [FROM, "x", &FROM[11..30], "b8b8"][word]).collect();
            let rewrites = Rewrites::default().masking(&FROM.parse().unwrap());
            let mut whole = text.clone().into_bytes();
            let mut expected = Vec::new();
            rewrites.apply_telling(&mut whole, |at| expected.push(at as u64));
            let (mut rewriter, mut out) = (rewrites.rewriter(), Vec::new());
            text.as_bytes().chunks(cut).for_each(|piece| rewriter.take(piece, &mut out));
            prop_assert_eq!(rewriter.finish(&mut out), expected);
            prop_assert_eq!(out, whole);
        }
    }
}
