//! The stream of `nix-store --export`: store paths one after another, each its NAR and what is known of it.
//!
//! A NAR says nowhere how long it is; [`Extent`] follows its parentheses and ends where it ends. There is no digest and
//! no signature in the stream: it is for stores that trust each other.

use std::collections::BTreeSet;
use std::io::{self, Read};

use crate::store_path::{StorePath, StorePathError};

/// Follows each archive.
const MARK: u64 = 0x4558_494e;

/// More bytes than any store path has.
const LONGEST_PATH: u64 = 512;

/// More references than any path has.
const MOST_REFERENCES: u64 = 100_000;

/// The longest word of a NAR's own that is followed; names, link targets and contents are not words.
const LONGEST_WORD: usize = 32;

/// What is known of a path in the stream; it follows the archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trailer {
    /// The path.
    pub path: StorePath,
    /// What it names.
    pub references: BTreeSet<StorePath>,
    /// The derivation that made it.
    pub deriver: Option<StorePath>,
}

/// Why this is not such a stream.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// Other numbers than there should be.
    #[error("not a stream of `nix-store --export`: {what}")]
    Malformed {
        /// What is wrong.
        what: &'static str,
    },
    /// A text that is not a store path.
    #[error("not a stream of `nix-store --export`: bad path")]
    Path(#[from] StorePathError),
    /// The stream ended early, or could not be read.
    #[error("reading the stream")]
    Io(#[from] io::Error),
}

/// Reads whether another path follows; `false` is the end of the stream.
pub fn another(reader: &mut dyn Read) -> Result<bool, ExportError> {
    match number(reader)? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(ExportError::Malformed { what: "expected 1 before an archive, or 0 at the end" }),
    }
}

/// What [`another`] reads before each path.
pub fn print_another() -> [u8; 8] {
    1_u64.to_le_bytes()
}

/// What [`another`] reads at the end of the stream.
pub fn print_end() -> [u8; 8] {
    0_u64.to_le_bytes()
}

impl Trailer {
    /// Reads what follows an archive.
    pub fn read(reader: &mut dyn Read) -> Result<Self, ExportError> {
        if number(reader)? != MARK {
            return Err(ExportError::Malformed { what: "the mark after an archive is missing" });
        }
        let path = store_path(reader)?;
        let count = number(reader)?;
        if count > MOST_REFERENCES {
            return Err(ExportError::Malformed { what: "more references than any path has" });
        }
        let mut references = BTreeSet::new();
        for _ in 0..count {
            references.insert(store_path(reader)?);
        }
        let deriver = match string(reader)?.as_str() {
            "" => None,
            deriver => Some(deriver.parse()?),
        };
        // Nix once had a signature here.
        match number(reader)? {
            0 => Ok(Self { path, references, deriver }),
            _ => Err(ExportError::Malformed { what: "expected 0 after the deriver" }),
        }
    }

    /// What [`Trailer::read`] reads.
    pub fn print(&self) -> Vec<u8> {
        let mut out = MARK.to_le_bytes().to_vec();
        append(&mut out, &self.path.to_string());
        out.extend((self.references.len() as u64).to_le_bytes());
        for reference in &self.references {
            append(&mut out, &reference.to_string());
        }
        append(&mut out, &self.deriver.as_ref().map(ToString::to_string).unwrap_or_default());
        out.extend(0_u64.to_le_bytes());
        out
    }
}

fn append(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
    out.resize(out.len().next_multiple_of(8), 0);
}

/// One archive in a longer stream: ends where the archive does, whatever follows.
///
/// What is not an archive may end anywhere; whoever decodes it says what is wrong.
pub struct Extent<'r> {
    reader: &'r mut dyn Read,
    phase: Phase,
    depth: usize,
}

impl std::fmt::Debug for Extent<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Extent").field("phase", &self.phase).field("depth", &self.depth).finish()
    }
}

#[derive(Debug)]
enum Phase {
    /// The eight bytes that say how long the next string is, and what that will be.
    Length { seen: [u8; 8], count: usize, next: Next },
    /// A word of the grammar.
    Word { seen: Vec<u8>, length: usize, left: u64 },
    /// A name, a link target or contents.
    Data { left: u64 },
    /// The last parenthesis was closed.
    End,
}

#[derive(Debug, Clone, Copy)]
enum Next {
    Word,
    Data,
}

impl<'r> Extent<'r> {
    /// The archive that `reader` is at the start of.
    pub fn of(reader: &'r mut dyn Read) -> Self {
        Self { reader, phase: Phase::length(Next::Word), depth: 0 }
    }

    fn after_word(&mut self, word: &[u8]) -> Phase {
        match word {
            b"(" => self.depth += 1,
            b")" => {
                self.depth = self.depth.saturating_sub(1);
                if self.depth == 0 {
                    return Phase::End;
                }
            }
            b"name" | b"target" | b"contents" => return Phase::length(Next::Data),
            _ => {}
        }
        Phase::length(Next::Word)
    }
}

impl Phase {
    fn length(next: Next) -> Self {
        Self::Length { seen: [0; 8], count: 0, next }
    }
}

impl Read for Extent<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bad = |what| io::Error::new(io::ErrorKind::InvalidData, what);
        let wanted = match &self.phase {
            Phase::Length { count, .. } => 8 - *count as u64,
            Phase::Word { left, .. } | Phase::Data { left } => *left,
            Phase::End => 0,
        };
        let wanted = usize::try_from(wanted).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.reader.read(&mut buffer[..wanted])?;
        let bytes = &buffer[..read];
        match &mut self.phase {
            Phase::Length { seen, count, next } => {
                seen[*count..*count + read].copy_from_slice(bytes);
                *count += read;
                if *count == 8 {
                    let length = u64::from_le_bytes(*seen);
                    let left = length.checked_next_multiple_of(8).ok_or_else(|| bad("a string longer than any"))?;
                    self.phase = match next {
                        Next::Data if left == 0 => Phase::length(Next::Word),
                        Next::Data => Phase::Data { left },
                        Next::Word if left == 0 => Phase::length(Next::Word),
                        Next::Word => {
                            let length = usize::try_from(length).unwrap_or(usize::MAX);
                            if length > LONGEST_WORD {
                                return Err(bad("not a NAR: a word that none has"));
                            }
                            Phase::Word { seen: Vec::with_capacity(LONGEST_WORD), length, left }
                        }
                    };
                }
            }
            Phase::Word { seen, length, left } => {
                seen.extend(bytes);
                *left -= read as u64;
                if *left == 0 {
                    let word = std::mem::take(seen);
                    let length = *length;
                    self.phase = self.after_word(&word[..length]);
                }
            }
            Phase::Data { left } => {
                *left -= read as u64;
                if *left == 0 {
                    self.phase = Phase::length(Next::Word);
                }
            }
            Phase::End => {}
        }
        Ok(read)
    }
}

fn number(reader: &mut dyn Read) -> Result<u64, ExportError> {
    let mut bytes = [0; 8];
    reader.read_exact(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}

fn string(reader: &mut dyn Read) -> Result<String, ExportError> {
    let length = number(reader)?;
    if length > LONGEST_PATH {
        return Err(ExportError::Malformed { what: "a string longer than any store path" });
    }
    let mut bytes = vec![0; length.next_multiple_of(8) as usize];
    reader.read_exact(&mut bytes)?;
    let padding = bytes.split_off(length as usize);
    if padding.iter().any(|byte| *byte != 0) {
        return Err(ExportError::Malformed { what: "padding that is not zero" });
    }
    String::from_utf8(bytes).map_err(|_| ExportError::Malformed { what: "a string that is not text" })
}

fn store_path(reader: &mut dyn Read) -> Result<StorePath, ExportError> {
    Ok(string(reader)?.parse()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::nar::frame;

    fn tricky() -> Vec<u8> {
        let mut nar = Vec::new();
        frame::start(&mut nar);
        frame::directory(&mut nar);
        for name in [&b"("[..], b")", b"contents"] {
            frame::entry(&mut nar, name);
            frame::symlink(&mut nar, b")");
            frame::entry_end(&mut nar);
        }
        frame::entry(&mut nar, b"name");
        frame::executable(&mut nar, 9);
        nar.extend(b") ) ) ) )");
        frame::file_end(&mut nar, 9);
        frame::entry_end(&mut nar);
        frame::entry(&mut nar, b"x");
        frame::file(&mut nar, 0);
        frame::file_end(&mut nar, 0);
        frame::entry_end(&mut nar);
        frame::directory_end(&mut nar);
        nar
    }

    #[test]
    fn an_archive_ends_where_its_parentheses_do_whatever_is_in_it() {
        let nar = tricky();
        let stream = [&nar[..], b"what follows"].concat();
        for piece in [1, 3, 4096] {
            let mut source = &stream[..];
            let mut extent = Extent::of(&mut source);
            let (mut read, mut buffer) = (Vec::<u8>::new(), vec![0; piece]);
            loop {
                match extent.read(&mut buffer).unwrap() {
                    0 => break,
                    count => read.extend(&buffer[..count]),
                }
            }
            assert_eq!(read, nar);
            assert_eq!(source, b"what follows");
        }
    }

    #[test]
    fn an_archive_that_is_cut_short_ends_there() {
        let nar = tricky();
        let mut read = Vec::new();
        Extent::of(&mut &nar[..nar.len() - 1]).read_to_end(&mut read).unwrap();
        assert_eq!(read, nar[..nar.len() - 1]);
        let huge = [&nar[..24], &u64::MAX.to_le_bytes()].concat();
        assert!(Extent::of(&mut &huge[..]).read_to_end(&mut Vec::new()).is_err());
    }

    #[test]
    fn trailers_parse_back_and_damaged_ones_are_refused() {
        let path = |name| format!("/nix/store/1ncm7wbm5d286vjcmdnyqwwkndbl28s6-{name}").parse().unwrap();
        for deriver in [None, Some(path("a.drv"))] {
            let trailer = Trailer { path: path("a"), references: BTreeSet::from([path("a"), path("b")]), deriver };
            let bytes = trailer.print();
            assert_eq!(Trailer::read(&mut &bytes[..]).unwrap(), trailer);
            assert!(Trailer::read(&mut &bytes[..bytes.len() - 1]).is_err());
            for (at, value) in [(0, 0), (8, 0xff), (15, 0xff), (bytes.len() - 8, 1)] {
                let mut bad = bytes.clone();
                bad[at] = value;
                assert!(Trailer::read(&mut &bad[..]).is_err(), "{at}");
            }
        }
    }
}
