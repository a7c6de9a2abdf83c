//! The `ar` container of `.deb` and `.a` files: one member's header (ar(5), deb(5)).
//!
//! Only headers: what a member holds is the caller's to read. Numbers are strict, so that no two readers disagree about
//! where a member ends.

/// How an archive begins.
pub const MAGIC: &[u8; 8] = b"!<arch>\n";

/// Bytes of a header.
pub const HEADER: usize = 60;

/// What a header says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// The field as it stands, without the padding: `debian-binary`, `name.o/`, `/12`, `//`.
    pub name: Vec<u8>,
    /// Modification time.
    pub mtime: u64,
    /// User.
    pub uid: u64,
    /// Group.
    pub gid: u64,
    /// Permissions and type.
    pub mode: u32,
    /// Bytes that follow, without the byte that pads them to an even offset.
    pub size: u64,
}

/// Why bytes are not a header.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ArError {
    /// It does not end as headers do.
    #[error("a member's header does not end in a grave accent and a line feed")]
    Magic,
    /// A field is not the number that it has to be.
    #[error("field {field} of a member's header is {found:?}, expected a number")]
    Number {
        /// Its name.
        field: &'static str,
        /// What stands there.
        found: String,
    },
    /// A name in the table of long names that is not there.
    #[error("a member's name is at {found:?} of a table that has no such place")]
    LongName {
        /// What stands there.
        found: String,
    },
}

impl Header {
    /// Reads one.
    pub fn parse(bytes: &[u8; HEADER]) -> Result<Self, ArError> {
        if &bytes[58..] != b"`\n" {
            return Err(ArError::Magic);
        }
        let number = |field: &'static str, range: std::ops::Range<usize>, radix: u32| -> Result<u64, ArError> {
            let text = trimmed(&bytes[range]);
            // The tables of GNU ar have blank fields.
            if text.is_empty() && field != "size" {
                return Ok(0);
            }
            let digits = text.iter().all(u8::is_ascii_digit).then(|| std::str::from_utf8(text).ok()).flatten();
            digits
                .and_then(|t| u64::from_str_radix(t, radix).ok())
                .ok_or_else(|| ArError::Number { field, found: String::from_utf8_lossy(text).into_owned() })
        };
        Ok(Self {
            name: trimmed(&bytes[..16]).to_vec(),
            mtime: number("mtime", 16..28, 10)?,
            uid: number("uid", 28..34, 10)?,
            gid: number("gid", 34..40, 10)?,
            mode: u32::try_from(number("mode", 40..48, 8)?).expect("eight octal digits are 24 bits"),
            size: number("size", 48..58, 10)?,
        })
    }

    /// Where the next header is, after a member of this size that begins at `start`.
    pub fn next(&self, start: u64) -> Option<u64> {
        start.checked_add(self.size)?.checked_add(self.size & 1)
    }

    /// The member's name: what stands in the header, or in `long_names`, the contents of the member `//`.
    pub fn full_name(&self, long_names: &[u8]) -> Result<Vec<u8>, ArError> {
        let wrong = || ArError::LongName { found: String::from_utf8_lossy(&self.name).into_owned() };
        match self.name.as_slice() {
            b"/" | b"//" | b"/SYM64/" => Ok(self.name.clone()),
            [b'/', digits @ ..] => {
                let at: usize = std::str::from_utf8(digits).ok().and_then(|t| t.parse().ok()).ok_or_else(wrong)?;
                let rest = long_names.get(at..).ok_or_else(wrong)?;
                let end = rest.windows(2).position(|w| w == b"/\n").ok_or_else(wrong)?;
                Ok(rest[..end].to_vec())
            }
            [name @ .., b'/'] => Ok(name.to_vec()),
            name => Ok(name.to_vec()),
        }
    }
}

fn trimmed(field: &[u8]) -> &[u8] {
    let end = field.iter().rposition(|&b| b != b' ').map_or(0, |last| last + 1);
    &field[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(text: &str) -> [u8; HEADER] {
        text.as_bytes().try_into().unwrap()
    }

    const DEB: &str = "data.tar.xz     1342943816  0     0     100644  5388      `\n";

    #[test]
    fn a_header_is_read_field_by_field() {
        let read = Header::parse(&header(DEB)).unwrap();
        assert_eq!((read.name.as_slice(), read.mtime, read.uid, read.gid), (&b"data.tar.xz"[..], 1_342_943_816, 0, 0));
        assert_eq!((read.mode, read.size, read.next(100)), (0o100_644, 5388, Some(5488)));
        assert_eq!(Header { size: 3, ..read }.next(u64::MAX - 3), None);
    }

    #[test]
    fn numbers_that_two_readers_would_read_differently_are_refused() {
        for (from, to) in
            [("5388 ", "-388 "), ("5388 ", "+388 "), ("5388 ", "5 88 "), ("5388 ", "     "), ("`\n", "``")]
        {
            assert!(Header::parse(&header(&DEB.replacen(from, to, 1))).is_err(), "{to}");
        }
    }

    #[test]
    fn long_names_come_from_their_table_and_only_from_there() {
        let named = |name: &str| Header { name: name.into(), mtime: 0, uid: 0, gid: 0, mode: 0, size: 0 };
        let table = b"a-rather-long-name.o/\nanother-long-one.o/\n";
        assert_eq!(named("/0").full_name(table).unwrap(), b"a-rather-long-name.o");
        assert_eq!(named("/22").full_name(table).unwrap(), b"another-long-one.o");
        assert_eq!(named("x.o/").full_name(table).unwrap(), b"x.o");
        assert_eq!(named("/").full_name(table).unwrap(), b"/");
        assert!(named("/99").full_name(table).is_err() && named("/x").full_name(table).is_err());
    }
}
