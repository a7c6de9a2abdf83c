//! The header of a gzip member (RFC 1952, section 2.3).

/// How a member begins: magic, and deflate as its method.
pub const MAGIC: &[u8; 3] = b"\x1f\x8b\x08";

/// What a header says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Flags: 1 text, 2 checksum, 4 extra field, 8 name, 16 comment.
    pub flags: u8,
    /// Modification time of the file that was compressed, 0 if there is none.
    pub mtime: u32,
    /// 2 for the best compression, 4 for the fastest.
    pub level: u8,
    /// The file system it was compressed on: 3 for Unix, 255 for unknown.
    pub system: u8,
    /// The extra field.
    pub extra: Option<Vec<u8>>,
    /// Name of the file that was compressed.
    pub name: Option<Vec<u8>>,
    /// A comment.
    pub comment: Option<Vec<u8>>,
    /// Bytes of the whole header.
    pub length: usize,
}

/// Why bytes are not a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum GzipError {
    /// It does not begin as a gzip member that uses deflate.
    #[error("no gzip member begins here")]
    Magic,
    /// A flag that nobody has given a meaning.
    #[error("the header has flags {0:#04x} that mean nothing")]
    Flags(u8),
    /// The bytes end before the header does.
    #[error("the header has no end")]
    Truncated,
}

impl Header {
    /// Reads the header that `bytes` begin with.
    pub fn parse(bytes: &[u8]) -> Result<Self, GzipError> {
        if !bytes.starts_with(MAGIC) {
            return Err(GzipError::Magic);
        }
        let fixed = bytes.get(3..10).ok_or(GzipError::Truncated)?;
        let flags = fixed[0];
        if flags & 0xe0 != 0 {
            return Err(GzipError::Flags(flags));
        }
        let mut rest = &bytes[10..];
        let extra = if flags & 4 != 0 {
            let (length, after) = rest.split_first_chunk::<2>().ok_or(GzipError::Truncated)?;
            let (extra, after) =
                after.split_at_checked(u16::from_le_bytes(*length).into()).ok_or(GzipError::Truncated)?;
            rest = after;
            Some(extra.to_vec())
        } else {
            None
        };
        let mut text = |flag: u8| -> Result<Option<Vec<u8>>, GzipError> {
            if flags & flag == 0 {
                return Ok(None);
            }
            let end = memchr::memchr(0, rest).ok_or(GzipError::Truncated)?;
            let text = rest[..end].to_vec();
            rest = &rest[end + 1..];
            Ok(Some(text))
        };
        let name = text(8)?;
        let comment = text(16)?;
        if flags & 2 != 0 {
            rest = rest.get(2..).ok_or(GzipError::Truncated)?;
        }
        Ok(Self {
            flags,
            mtime: u32::from_le_bytes([fixed[1], fixed[2], fixed[3], fixed[4]]),
            level: fixed[5],
            system: fixed[6],
            extra,
            name,
            comment,
            length: bytes.len() - rest.len(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_read_to_its_end() {
        let plain = Header::parse(b"\x1f\x8b\x08\x00\x01\x02\x03\x04\x02\x03payload").unwrap();
        assert_eq!((plain.mtime, plain.level, plain.system, plain.length), (0x0403_0201, 2, 3, 10));
        let full = Header::parse(b"\x1f\x8b\x08\x1e\0\0\0\0\0\xff\x02\0exname\0why\0\xaa\xbbpayload").unwrap();
        assert_eq!((full.extra.as_deref(), full.name.as_deref()), (Some(&b"ex"[..]), Some(&b"name"[..])));
        assert_eq!((full.comment.as_deref(), full.length), (Some(&b"why"[..]), 25));
    }

    #[test]
    fn what_is_cut_short_or_means_nothing_is_refused() {
        let whole = b"\x1f\x8b\x08\x1e\0\0\0\0\0\xff\x02\0exname\0why\0\xaa\xbb";
        for end in 3..whole.len() {
            assert_eq!(Header::parse(&whole[..end]), Err(GzipError::Truncated), "{end}");
        }
        assert_eq!(Header::parse(b"\x1f\x8b\x07"), Err(GzipError::Magic));
        assert_eq!(Header::parse(b"\x1f\x8b\x08\x80\0\0\0\0\0\0"), Err(GzipError::Flags(0x80)));
    }
}
