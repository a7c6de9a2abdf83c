//! Members of a wheel or a zipped sdist, as far as an archive is believed.
//!
//! What is unpacked must be what any reader sees: no member twice, none over another, nothing before, between or after them, no
//! name that leaves the archive or that some system takes for another. [`crate::format::zip`] has the records; this is what
//! they must be together. Reads no member's bytes.

use std::collections::BTreeSet;

use super::times::Stamp;
use crate::format::zip::Record;

/// How a member's bytes are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Method {
    /// As they are.
    Stored,
    /// Deflated.
    Deflated,
}

/// One member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its name: a relative path, directories with a slash at their end.
    pub name: String,
    /// How its bytes are kept.
    pub method: Method,
    /// Its time; `None` if the record has none that there is.
    pub stamp: Option<Stamp>,
    /// Bytes as kept.
    pub packed: u64,
    /// Bytes.
    pub size: u64,
    /// CRC-32 of its bytes.
    pub crc: u32,
}

/// Why an archive is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MembersError {
    /// Two members of one name.
    #[error("member {name:?} is there twice")]
    Twice {
        /// The name.
        name: String,
    },
    /// A name that leaves the archive, or that file systems take for another.
    #[error("member {name:?}: its name {what}")]
    Name {
        /// The name, as far as it is text.
        name: String,
        /// What is wrong.
        what: &'static str,
    },
    /// A compression that Python's installers do not read.
    #[error("member {name:?} is compressed by method {method}; expected stored or deflated")]
    Method {
        /// The member.
        name: String,
        /// The method's number.
        method: u16,
    },
    /// Members that overlap, or bytes that belong to none.
    #[error("{name:?} does not begin where what is before it ends, at byte {expected}, but at {found}")]
    Gap {
        /// The member, or the directory.
        name: String,
        /// Where it would have to begin.
        expected: u64,
        /// Where it does.
        found: u64,
    },
}

impl Member {
    /// Whether it is a directory.
    pub fn is_directory(&self) -> bool {
        self.name.ends_with('/')
    }
}

/// The members that `records` describe, in their order.
pub fn members(records: &[Record]) -> Result<Vec<Member>, MembersError> {
    let mut names = BTreeSet::new();
    let one = |record: &Record| {
        let name = checked(&record.name)?;
        let method = match record.method {
            0 if record.packed == record.size => Method::Stored,
            8 => Method::Deflated,
            method => return Err(MembersError::Method { name, method }),
        };
        // A file and a directory of one name cannot both be unpacked.
        if !names.insert(name.trim_end_matches('/').to_string()) {
            return Err(MembersError::Twice { name });
        }
        let words = |word: u32| u16::try_from(word & 0xffff).expect("sixteen bits");
        let stamp = Stamp::from_dos(words(record.time >> 16), words(record.time));
        let (packed, size) = (record.packed.into(), record.size.into());
        Ok(Member { name, method, stamp, packed, size, crc: record.crc })
    };
    records.iter().map(one).collect()
}

/// A name that every reader takes for the same path inside.
fn checked(name: &[u8]) -> Result<String, MembersError> {
    let Ok(text) = std::str::from_utf8(name) else {
        return Err(MembersError::Name { name: String::from_utf8_lossy(name).into(), what: "is not UTF-8" });
    };
    let refuse = |what| Err(MembersError::Name { name: text.into(), what });
    if text.is_empty() {
        return refuse("is empty");
    }
    if text.starts_with('/') || text.contains(['\\', '\0']) || text.as_bytes().get(1) == Some(&b':') {
        return refuse("is not a relative path with slashes");
    }
    let path = text.strip_suffix('/').unwrap_or(text);
    if path.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return refuse("has a part that is empty, \".\" or \"..\"");
    }
    Ok(text.into())
}

/// Checks that `spans`, each a member's name, where its local header begins and how many bytes it takes from there on, fill
/// the archive from its first byte to its directory.
pub fn contiguous(mut spans: Vec<(&str, u64, u64)>, directory: u64) -> Result<(), MembersError> {
    spans.sort_by_key(|(_, start, _)| *start);
    let mut expected = 0;
    for (name, found, length) in spans.into_iter().chain([("the directory", directory, 0)]) {
        if found != expected {
            return Err(MembersError::Gap { name: name.into(), expected, found });
        }
        expected += length;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn record(name: &[u8]) -> Record {
        Record {
            made_by: 0x314,
            needed: 20,
            flags: 0,
            method: 8,
            // 2016-01-01 00:00:00
            time: 0x4821 << 16,
            crc: 7,
            packed: 2,
            size: 3,
            internal: 0,
            external: 0,
            offset: 0,
            name: name.to_vec(),
            extra: Vec::new(),
            comment: Vec::new(),
        }
    }

    fn read(names: &[&str]) -> Result<Vec<Member>, MembersError> {
        members(&names.iter().map(|name| record(name.as_bytes())).collect::<Vec<_>>())
    }

    #[test]
    fn members_are_read_with_their_times() {
        let members = read(&["a/b.py", "a-1.dist-info/RECORD", "a/"]).unwrap();
        assert_eq!(members[0].stamp.unwrap().to_string(), "2016-01-01 00:00:00");
        assert!(members[2].is_directory() && !members[0].is_directory());
    }

    #[test]
    fn a_member_twice_and_names_that_leave_are_refused() {
        assert_eq!(read(&["a", "a"]), Err(MembersError::Twice { name: "a".into() }));
        assert_eq!(read(&["a", "a/"]), Err(MembersError::Twice { name: "a/".into() }));
        for bad in ["../a", "a/../b", "/a", "a//b", "./a", "a\\b", "c:a", "", "a/..", "a\0"] {
            assert!(matches!(read(&[bad]), Err(MembersError::Name { .. })), "{bad:?}");
        }
        assert!(matches!(members(&[record(b"\xff")]), Err(MembersError::Name { .. })));
    }

    #[test]
    fn only_what_installers_unpack_is_believed() {
        let lzma = Record { method: 14, ..record(b"a") };
        assert_eq!(members(&[lzma]), Err(MembersError::Method { name: "a".into(), method: 14 }));
        // Stored, and of two sizes.
        assert!(members(&[Record { method: 0, ..record(b"a") }]).is_err());
        assert!(members(&[Record { method: 0, packed: 3, ..record(b"a") }]).is_ok());
    }

    #[test]
    fn bytes_that_belong_to_nobody_or_to_two_are_refused() {
        assert_eq!(contiguous(vec![("b", 5, 5), ("a", 0, 5)], 10), Ok(()));
        let gap = |name: &str, expected, found| Err(MembersError::Gap { name: name.into(), expected, found });
        assert_eq!(contiguous(vec![("a", 1, 5)], 6), gap("a", 0, 1));
        assert_eq!(contiguous(vec![("a", 0, 5), ("b", 4, 5)], 9), gap("b", 5, 4));
        assert_eq!(contiguous(vec![("a", 0, 5), ("b", 0, 5)], 5), gap("b", 5, 0));
        assert_eq!(contiguous(vec![("a", 0, 5)], 6), gap("the directory", 5, 6));
        assert_eq!(contiguous(Vec::new(), 0), Ok(()));
    }

    proptest! {
        #[test]
        fn no_name_panics_and_none_that_is_taken_leaves(name in proptest::collection::vec(any::<u8>(), 0..12)) {
            if let Ok(members) = members(&[record(&name)]) {
                prop_assert!(!members[0].name.split('/').any(|part| part == ".."));
                prop_assert!(!members[0].name.starts_with('/'));
            }
        }
    }
}
