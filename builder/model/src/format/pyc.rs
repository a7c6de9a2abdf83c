//! The header of a byte-compiled Python module (PEP 552).

/// What a header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Which version of Python compiled it.
    pub magic: u16,
    /// How it is held against its source.
    pub source: Source,
}

/// How a module is held against its source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// By modification time and size.
    Stamp {
        /// Seconds.
        mtime: u32,
        /// Bytes.
        size: u32,
    },
    /// By a hash of the source; `checked` if it is looked at on import.
    Hash {
        /// The hash.
        hash: [u8; 8],
        /// Whether it is looked at.
        checked: bool,
    },
}

/// Bytes of a header, from Python 3.7 on.
pub const LENGTH: usize = 16;

impl Header {
    /// Reads the header of a file with this ending, if it has one of this shape.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let head: &[u8; LENGTH] = bytes.first_chunk()?;
        if &head[2..4] != b"\r\n" {
            return None;
        }
        let number = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let source = match number(4) {
            0 => Source::Stamp { mtime: number(8), size: number(12) },
            flags @ (1 | 3) => Source::Hash { hash: *head[8..].first_chunk()?, checked: flags == 3 },
            _ => return None,
        };
        Some(Self { magic: u16::from_le_bytes([head[0], head[1]]), source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_header_are_read() {
        let stamp = b"\xa7\x0d\r\n\0\0\0\0\x01\0\0\0\x02\0\0\0\xe3";
        assert_eq!(Header::parse(stamp).unwrap().source, Source::Stamp { mtime: 1, size: 2 });
        let hash = b"\xa7\x0d\r\n\x03\0\0\0abcdefgh";
        assert_eq!(Header::parse(hash).unwrap().source, Source::Hash { hash: *b"abcdefgh", checked: true });
        assert_eq!(Header::parse(&hash[..15]), None);
        assert_eq!(Header::parse(b"\xa7\x0d\n\n\0\0\0\0abcdefgh"), None);
    }
}
