//! Two streams compared in fixed memory: where they first differ, how much, and a little of both around that place.

use std::io::{self, Read};

use kiln_model::report::{Content, Excerpt};

/// Bytes read at a time from each side.
const CHUNK: usize = 256 << 10;

/// Bytes of an excerpt. Several lines before the difference, since what names it (a tar header, a path) stands there.
const EXCERPT: usize = 320;
const BEFORE: usize = 96;

/// An excerpt begins at a multiple of this, so that rows of a hex dump line up with offsets.
const ROW: u64 = 16;

/// Two streams, compared to their ends.
#[derive(Debug)]
pub(super) struct Compared {
    /// Bytes of the first stream.
    pub(super) first_length: u64,
    /// Bytes of the second stream.
    pub(super) second_length: u64,
    /// Where they differ, if they do.
    pub(super) content: Option<Content>,
}

/// The excerpt of one side, while it is being filled.
#[derive(Default)]
struct Window {
    bytes: Vec<u8>,
}

/// Compares both streams to their ends.
pub(super) fn compare(first: &mut impl Read, second: &mut impl Read) -> io::Result<Compared> {
    let mut buffers = [vec![0; CHUNK], vec![0; CHUNK]];
    let mut lengths = [0_u64; 2];
    // The last bytes of the chunk before, equal on both sides: an excerpt may begin there.
    let mut tail: Vec<u8> = Vec::new();
    let mut windows = [Window::default(), Window::default()];
    let mut start = None;
    let mut offset = 0;
    let mut differing_bytes = 0;
    let mut at = 0_u64;
    loop {
        let [a, b] = &mut buffers;
        let read = [fill(first, a)?, fill(second, b)?];
        let (a, b) = (&a[..read[0]], &b[..read[1]]);
        lengths[0] += read[0] as u64;
        lengths[1] += read[1] as u64;
        if a != b {
            let shared = a.len().min(b.len());
            if start.is_none() {
                let here = a.iter().zip(b).position(|(x, y)| x != y).unwrap_or(shared);
                offset = at + here as u64;
                let begin = offset.saturating_sub(BEFORE as u64) / ROW * ROW;
                start = Some(begin);
                let before = usize::try_from(at.saturating_sub(begin)).unwrap_or(0).min(tail.len());
                let from = usize::try_from(begin.saturating_sub(at)).unwrap_or(0);
                for (window, chunk) in windows.iter_mut().zip([a, b]) {
                    window.bytes.extend_from_slice(&tail[tail.len() - before..]);
                    window.extend(chunk.get(from..).unwrap_or(&[]));
                }
            } else {
                windows[0].extend(a);
                windows[1].extend(b);
            }
            differing_bytes += a.iter().zip(b).filter(|(x, y)| x != y).count() as u64;
        } else if start.is_some() {
            windows.iter_mut().for_each(|window| window.extend(a));
        }
        if read == [0, 0] {
            break;
        }
        tail.clear();
        tail.extend_from_slice(&a[a.len().saturating_sub(BEFORE + ROW as usize)..]);
        at += a.len().max(b.len()) as u64;
    }
    let [first, second] = windows.map(|window| Excerpt::new(window.bytes));
    Ok(Compared {
        first_length: lengths[0],
        second_length: lengths[1],
        content: start.map(|excerpt_offset| Content { offset, differing_bytes, excerpt_offset, first, second }),
    })
}

impl Window {
    fn extend(&mut self, bytes: &[u8]) {
        let room = EXCERPT - self.bytes.len().min(EXCERPT);
        self.bytes.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }
}

/// Fills `buffer`, less only at the end of the stream.
fn fill(stream: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match stream.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn content(first: &[u8], second: &[u8]) -> Option<Content> {
        compare(&mut &*first, &mut &*second).unwrap().content
    }

    #[test]
    fn equal_streams_have_no_difference() {
        assert_eq!(content(b"", b""), None);
        let long = vec![7; CHUNK * 2 + 1];
        let compared = compare(&mut &*long, &mut &*long).unwrap();
        assert_eq!((compared.first_length, compared.content), (long.len() as u64, None));
    }

    #[test]
    fn an_excerpt_reaches_back_over_the_edge_of_a_chunk() {
        let mut first: Vec<u8> = (0..CHUNK * 2 + 50).map(|i| (i % 251) as u8).collect();
        let mut second = first.clone();
        second[CHUNK + 3] ^= 1;
        let found = content(&first, &second).unwrap();
        assert_eq!(found.offset, CHUNK as u64 + 3);
        assert_eq!(found.excerpt_offset, CHUNK as u64 - 96);
        let begin = CHUNK - 96;
        assert_eq!(found.first.as_bytes(), &first[begin..begin + EXCERPT]);
        assert_eq!(found.second.as_bytes(), &second[begin..begin + EXCERPT]);
        assert_eq!(found.differing_bytes, 1);
        first.truncate(CHUNK);
        let found = content(&first, &second).unwrap();
        assert_eq!((found.offset, found.differing_bytes), (CHUNK as u64, 0));
        assert_eq!(found.first.as_bytes(), &first[begin..]);
    }

    proptest! {
        #[test]
        fn it_agrees_with_looking_at_all_bytes_at_once(
            common in proptest::collection::vec(any::<u8>(), 0..400),
            a in proptest::collection::vec(0..3_u8, 0..400),
            b in proptest::collection::vec(0..3_u8, 0..400),
        ) {
            let (first, second) = ([common.clone(), a].concat(), [common, b].concat());
            let found = content(&first, &second);
            prop_assert_eq!(found.is_none(), first == second);
            if let Some(found) = found {
                let shared = first.iter().zip(&second).take_while(|(x, y)| x == y).count();
                prop_assert_eq!(found.offset, shared as u64);
                prop_assert_eq!(found.differing_bytes, first.iter().zip(&second).filter(|(x, y)| x != y).count() as u64);
                let begin = found.excerpt_offset as usize;
                prop_assert!(begin <= shared && shared - begin < BEFORE + 16 && begin.is_multiple_of(16));
                let part = |whole: &[u8]| whole[begin..].iter().copied().take(EXCERPT).collect::<Vec<_>>();
                prop_assert_eq!(found.first.as_bytes(), part(&first));
                prop_assert_eq!(found.second.as_bytes(), part(&second));
            }
        }
    }
}
