//! Files of lines, in blocks of whole lines, so that many processors can share one file of any size.

use std::io::Read;
use std::sync::Mutex;

/// Bytes of a block, unless a line is longer.
const BLOCK: usize = 1 << 20;

/// Buffers of blocks that were read: an allocator that is given back a megabyte at a time returns it to the kernel, and asks for
/// it anew.
#[derive(Debug, Default)]
pub(super) struct Spare(Mutex<Vec<Vec<u8>>>);

/// Whole lines of a file, in turn.
pub(super) struct Blocks<'a, R> {
    input: R,
    spare: &'a Spare,
    longest: usize,
    /// The begin of a line whose end was not read yet.
    rest: Vec<u8>,
    line: u32,
    ended: bool,
    /// The line being read is too long: it is left out up to its end.
    skipping: bool,
}

/// Some lines.
pub(super) struct Block<'a> {
    bytes: Vec<u8>,
    spare: &'a Spare,
    first: u32,
    /// The last line was longer than lines may be.
    cut: bool,
}

impl Spare {
    fn take(&self) -> Vec<u8> {
        let spare = self.0.lock().expect("no thread panics with the lock").pop();
        spare.unwrap_or_else(|| Vec::with_capacity(2 * BLOCK))
    }

    fn give(&self, mut bytes: Vec<u8>) {
        // What had to grow for one line would be held for nothing.
        if bytes.capacity() <= 2 * BLOCK {
            bytes.clear();
            self.0.lock().expect("no thread panics with the lock").push(bytes);
        }
    }
}

impl<'a, R: Read> Blocks<'a, R> {
    pub(super) fn of(input: R, longest: usize, spare: &'a Spare) -> Self {
        Self { input, spare, longest, rest: spare.take(), line: 1, ended: false, skipping: false }
    }

    fn fill(&mut self) -> std::io::Result<Option<Block<'a>>> {
        loop {
            let mut bytes = std::mem::take(&mut self.rest);
            let begin = bytes.len();
            bytes.reserve(BLOCK);
            let read = self.input.by_ref().take(BLOCK as u64).read_to_end(&mut bytes)?;
            self.ended |= read == 0;
            if self.skipping {
                match memchr::memchr(b'\n', &bytes[begin..]) {
                    Some(end) => {
                        bytes.drain(..=begin + end);
                        self.skipping = false;
                        self.line += 1;
                    }
                    None if self.ended => return Ok(None),
                    None => continue,
                }
            }
            let end = match memchr::memrchr(b'\n', &bytes) {
                Some(end) => end + 1,
                None if self.ended => bytes.len(),
                None if bytes.len() > self.longest => {
                    self.skipping = true;
                    return Ok(Some(Block { bytes: Vec::new(), spare: self.spare, first: self.line, cut: true }));
                }
                None => {
                    self.rest = bytes;
                    continue;
                }
            };
            self.rest = self.spare.take();
            self.rest.extend_from_slice(&bytes[end..]);
            bytes.truncate(end);
            if bytes.is_empty() && self.ended && self.rest.is_empty() {
                return Ok(None);
            }
            let first = self.line;
            self.line += u32::try_from(memchr::memchr_iter(b'\n', &bytes).count()).unwrap_or(u32::MAX - first);
            return Ok(Some(Block { bytes, spare: self.spare, first, cut: false }));
        }
    }
}

impl<'a, R: Read> Iterator for Blocks<'a, R> {
    type Item = std::io::Result<Block<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        self.fill().transpose()
    }
}

impl Drop for Block<'_> {
    fn drop(&mut self) {
        self.spare.give(std::mem::take(&mut self.bytes));
    }
}

impl Block<'_> {
    /// Lines that are not empty, with their numbers; none in place of one that was too long.
    pub(super) fn lines(&self) -> impl Iterator<Item = (Option<&[u8]>, u32)> {
        let mut begin = 0;
        let ends = memchr::memchr_iter(b'\n', &self.bytes).chain([self.bytes.len()]);
        let whole = ends.map(move |end| &self.bytes[std::mem::replace(&mut begin, end + 1)..end]).zip(self.first..);
        let whole = whole.filter(|(line, _)| !line.trim_ascii().is_empty()).map(|(line, number)| (Some(line), number));
        whole.chain(self.cut.then_some((None, self.first)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &[u8], longest: usize) -> Vec<(Option<usize>, u32)> {
        let (mut lines, spare) = (Vec::new(), Spare::default());
        for block in Blocks::of(text, longest, &spare) {
            lines.extend(block.unwrap().lines().map(|(line, number)| (line.map(<[u8]>::len), number)));
        }
        lines
    }

    #[test]
    fn lines_come_whole_with_their_numbers_wherever_blocks_end() {
        assert_eq!(read(b"ab\n\nc", 10), [(Some(2), 1), (Some(1), 3)]);
        assert_eq!(read(b"", 10), []);
        let long = [vec![b'x'; BLOCK - 1], b"\n".to_vec(), vec![b'y'; BLOCK + 7], b"\nz\n".to_vec()].concat();
        assert_eq!(read(&long, 3 * BLOCK), [(Some(BLOCK - 1), 1), (Some(BLOCK + 7), 2), (Some(1), 3)]);
    }

    #[test]
    fn a_line_that_is_too_long_is_told_and_the_next_is_read() {
        let long = [b"a\n".to_vec(), vec![b'x'; 5 * BLOCK], b"\nb\n".to_vec()].concat();
        assert_eq!(read(&long, 2 * BLOCK), [(Some(1), 1), (None, 2), (Some(1), 3)]);
        assert_eq!(read(&vec![b'x'; 5 * BLOCK], 2 * BLOCK), [(None, 1)]);
    }
}
