//! A file's bytes with hash parts replaced, read piece by piece: nothing is ever longer than before.

use std::io;

use kiln_model::rewrite::{Rewriter, Rewrites};

use super::digester::read_full;

/// Bytes read at once.
const PIECE: usize = 256 * 1024;

/// One file while it is read.
pub(super) struct Rewriting<'a> {
    /// Gone once the file has ended.
    rewriter: Option<Rewriter<'a>>,
    piece: Vec<u8>,
    ready: Vec<u8>,
    /// How many of those that are ready were given away.
    given: usize,
}

impl<'a> Rewriting<'a> {
    pub(super) fn new(rewrites: &'a Rewrites) -> Self {
        Self { rewriter: Some(rewrites.rewriter()), piece: Vec::new(), ready: Vec::new(), given: 0 }
    }

    /// Fills some of `buffer`; none of it only at the end of the file.
    pub(super) fn read(
        &mut self,
        mut read: impl FnMut(&mut [u8]) -> rustix::io::Result<usize>,
        buffer: &mut [u8],
    ) -> io::Result<usize> {
        while self.given == self.ready.len() {
            self.ready.clear();
            self.given = 0;
            let Some(rewriter) = &mut self.rewriter else { return Ok(0) };
            self.piece.resize(PIECE, 0);
            let count = read_full(&mut read, &mut self.piece)?;
            rewriter.take(&self.piece[..count], &mut self.ready);
            if count < PIECE
                && let Some(rewriter) = self.rewriter.take()
            {
                rewriter.finish(&mut self.ready);
            }
        }
        let count = buffer.len().min(self.ready.len() - self.given);
        buffer[..count].copy_from_slice(&self.ready[self.given..][..count]);
        self.given += count;
        Ok(count)
    }
}
