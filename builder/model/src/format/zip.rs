//! The directory of a zip archive (APPNOTE.TXT): which members it has, and where.
//!
//! Strict, as what is compared must be what any reader sees: one directory, at the end and nowhere else; local headers that say
//! what the directory says; no member twice, none over another, nothing before, between or after them. Archives of more than 4 GiB or
//! 65,534 members (ZIP64), split ones and encrypted members are refused by name. Reads no member's bytes.

use std::collections::BTreeSet;

use crate::wheel::times::Stamp;

/// Bytes at the end of a file that have the end record: with the longest comment.
pub const TAIL: u64 = 22 + 65_535;

/// Bytes of a local header before its name.
pub const LOCAL: usize = 30;

/// Where the directory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// Its first byte.
    pub offset: u64,
    /// Its bytes.
    pub size: u64,
    /// Members in it.
    pub members: u64,
}

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
    /// Its time; `None` if the header has none that there is.
    pub stamp: Option<Stamp>,
    /// CRC-32 of its bytes.
    pub crc: u32,
    /// Bytes as kept.
    pub packed: u64,
    /// Bytes.
    pub size: u64,
    /// First byte of its local header.
    pub offset: u64,
    /// What the file system of its writer said of it; the upper half are Unix modes.
    pub attributes: u32,
    /// Bit 3: sizes follow the data, and the local header has none.
    described_after: bool,
}

/// Why a file is not a zip archive that is believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ZipError {
    /// No end record where it must be: cut off, no zip at all, or bytes after it.
    #[error("no end of a zip directory in the last bytes: the file is cut off, has bytes after its end, or is no zip")]
    NoEnd,
    /// A feature that is not read.
    #[error("{what}, which kiln does not read")]
    Unsupported {
        /// Which.
        what: String,
    },
    /// The directory is not one.
    #[error("at byte {offset}: {what}")]
    Malformed {
        /// Where.
        offset: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// Two members of one name.
    #[error("member {name:?} is there twice")]
    Twice {
        /// The name.
        name: String,
    },
    /// A name that leaves the archive, or that file systems take for another.
    #[error("member {name:?}: {what}")]
    Name {
        /// The name, as far as it is text.
        name: String,
        /// What is wrong.
        what: &'static str,
    },
    /// The directory and the header beside the data disagree.
    #[error("member {name:?}: its two headers disagree about its {what}")]
    Disagree {
        /// The member.
        name: String,
        /// What about.
        what: &'static str,
    },
    /// Members that overlap, or bytes that belong to none.
    #[error("member {name:?} does not begin where the one before it ends, at byte {expected}, but at {found}")]
    Gap {
        /// The member.
        name: String,
        /// Where it would have to begin.
        expected: u64,
        /// Where it does.
        found: u64,
    },
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

impl End {
    /// Reads the end record from `tail`, the last bytes of a file of `length` bytes: [`TAIL`] of them, or all.
    pub fn parse(tail: &[u8], length: u64) -> Result<Self, ZipError> {
        // The comment must reach exactly to the end: of several candidates the last such one is what every reader finds.
        let candidate = |at: &usize| {
            tail[*at..].starts_with(b"PK\x05\x06")
                && u16_at(tail, at + 20).is_some_and(|comment| at + 22 + usize::from(comment) == tail.len())
        };
        let at = (0..tail.len().saturating_sub(21)).rev().find(candidate).ok_or(ZipError::NoEnd)?;
        let field = |offset| u16_at(tail, at + offset).unwrap_or(u16::MAX);
        let wide = |offset| u32_at(tail, at + offset).unwrap_or(u32::MAX);
        let (disk, first_disk, here, members) = (field(4), field(6), field(8), field(10));
        let (size, offset) = (wide(12), wide(16));
        if members == u16::MAX || size == u32::MAX || offset == u32::MAX {
            return Err(ZipError::Unsupported { what: "the archive is a ZIP64".into() });
        }
        if disk != 0 || first_disk != 0 || here != members {
            return Err(ZipError::Unsupported { what: "the archive is one part of several".into() });
        }
        let end = Self { offset: offset.into(), size: size.into(), members: members.into() };
        let own = length - tail.len() as u64 + at as u64;
        if end.offset + end.size != own {
            let what = "the directory does not lie right before its end record";
            return Err(ZipError::Malformed { offset: own, what });
        }
        Ok(end)
    }

    /// The members, in the directory's order; `directory` are its bytes.
    pub fn members(&self, directory: &[u8]) -> Result<Vec<Member>, ZipError> {
        let mut members = Vec::new();
        let mut names = BTreeSet::new();
        let mut at = 0;
        while at < directory.len() {
            let offset = self.offset + at as u64;
            let malformed = |what| ZipError::Malformed { offset, what };
            let cut = || malformed("the directory's record is cut off");
            let record = &directory[at..];
            if !record.starts_with(b"PK\x01\x02") {
                return Err(malformed("expected a record of the directory"));
            }
            let half = |at| u16_at(record, at).map(usize::from).ok_or_else(cut);
            let word = |at| u32_at(record, at).ok_or_else(cut);
            let (name_length, extra, comment) = (half(28)?, half(30)?, half(32)?);
            let name = record.get(46..46 + name_length).ok_or_else(cut)?;
            let name = checked(name)?;
            let flags = half(8)?;
            if flags & 0x2041 != 0 {
                return Err(ZipError::Unsupported { what: format!("member {name:?} is encrypted") });
            }
            let method = match half(10)? {
                0 => Method::Stored,
                8 => Method::Deflated,
                other => {
                    return Err(ZipError::Unsupported {
                        what: format!("member {name:?} is compressed by method {other}"),
                    });
                }
            };
            let (packed, size, local) = (word(20)?, word(24)?, word(42)?);
            if [packed, size, local].contains(&u32::MAX) {
                return Err(ZipError::Unsupported { what: format!("member {name:?} is of a ZIP64") });
            }
            if method == Method::Stored && packed != size {
                return Err(ZipError::Disagree { name, what: "size" });
            }
            if !names.insert(name.trim_end_matches('/').to_string()) {
                return Err(ZipError::Twice { name });
            }
            members.push(Member {
                method,
                stamp: u16_at(record, 14).zip(u16_at(record, 12)).and_then(|(date, time)| Stamp::from_dos(date, time)),
                crc: word(16)?,
                packed: packed.into(),
                size: size.into(),
                offset: local.into(),
                attributes: word(38)?,
                described_after: flags & 8 != 0,
                name,
            });
            at += 46 + name_length + extra + comment;
            if at > directory.len() {
                return Err(cut());
            }
        }
        if members.len() as u64 != self.members {
            let what = "the directory has not as many records as its end says";
            return Err(ZipError::Malformed { offset: self.offset, what });
        }
        Ok(members)
    }
}

/// A name that every reader takes for the same path inside.
fn checked(name: &[u8]) -> Result<String, ZipError> {
    let Ok(text) = std::str::from_utf8(name) else {
        return Err(ZipError::Name { name: String::from_utf8_lossy(name).into(), what: "is not UTF-8" });
    };
    let refuse = |what| Err(ZipError::Name { name: text.into(), what });
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

impl Member {
    /// Whether it is a directory.
    pub fn is_directory(&self) -> bool {
        self.name.ends_with('/')
    }

    /// How many bytes of local header there are before the data, from its first [`LOCAL`] bytes; what it says must be what the
    /// directory says. The name that follows is held against this one's by [`Member::is_named`].
    pub fn header_length(&self, header: &[u8]) -> Result<u64, ZipError> {
        let disagree = |what| Err(ZipError::Disagree { name: self.name.clone(), what });
        if !header.starts_with(b"PK\x03\x04") || header.len() < LOCAL {
            return Err(ZipError::Malformed { offset: self.offset, what: "expected the header of a member" });
        }
        let half = |at| u16_at(header, at).unwrap_or_default();
        let word = |at| u64::from(u32_at(header, at).unwrap_or_default());
        let method = match self.method {
            Method::Stored => 0,
            Method::Deflated => 8,
        };
        if half(8) != method {
            return disagree("compression");
        }
        let time = u16_at(header, 12).zip(u16_at(header, 10)).and_then(|(date, time)| Stamp::from_dos(date, time));
        if time != self.stamp {
            return disagree("time");
        }
        // Python writes ZIP64's placeholders into local headers of members whose size it does not know yet, with the sizes in an extra field.
        let told = |value: u64, own: u64| value == own || value == u64::from(u32::MAX) || self.described_after;
        if !(told(word(18), self.packed)
            && told(word(22), self.size)
            && (word(14) == u64::from(self.crc) || self.described_after))
        {
            return disagree("size or checksum");
        }
        if usize::from(half(26)) != self.name.len() {
            return disagree("name");
        }
        Ok(LOCAL as u64 + u64::from(half(26)) + u64::from(half(28)))
    }

    /// Whether the local header's name is this one.
    pub fn is_named(&self, name: &[u8]) -> Result<(), ZipError> {
        if name == self.name.as_bytes() {
            Ok(())
        } else {
            Err(ZipError::Disagree { name: self.name.clone(), what: "name" })
        }
    }

    /// Whether its local header may be followed by a description of its data: 12 or 16 bytes that belong to it.
    pub fn slack(&self) -> &'static [u64] {
        if self.described_after { &[16, 12, 24, 20] } else { &[0] }
    }
}

/// Checks that members, each with the bytes that it takes from its header on, fill the archive up to its directory.
pub fn contiguous(members: &[(Member, u64)], end: &End) -> Result<(), ZipError> {
    let mut sorted: Vec<&(Member, u64)> = members.iter().collect();
    sorted.sort_by_key(|(member, _)| member.offset);
    let starts = sorted.iter().skip(1).map(|(member, _)| (member.name.as_str(), member.offset));
    let starts = starts.chain([("the directory", end.offset)]);
    if let Some((first, _)) = sorted.first()
        && first.offset != 0
    {
        return Err(ZipError::Gap { name: first.name.clone(), expected: 0, found: first.offset });
    }
    for ((member, length), (next, found)) in sorted.iter().zip(starts) {
        let expected = member.offset + length;
        if !member.slack().iter().any(|slack| expected + slack == found) {
            return Err(ZipError::Gap { name: next.into(), expected, found });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A zip of stored, empty members, and where its directory starts.
    fn zip(names: &[&str]) -> (Vec<u8>, usize) {
        let (mut out, mut directory) = (Vec::new(), Vec::new());
        for name in names {
            let offset = u32::try_from(out.len()).unwrap();
            let length = u16::try_from(name.len()).unwrap().to_le_bytes();
            // version 20, no flags, stored, 2016-01-01
            let shared = [20, 0, 0, 0, 0, 0, 0, 0, 0x21, 0x48, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            out.extend([b"PK\x03\x04", &shared[..], &length, &[0, 0], name.as_bytes()].concat());
            directory.extend([b"PK\x01\x02\x14\x00", &shared[..], &length, &[0; 12]].concat());
            directory.extend([&offset.to_le_bytes()[..], name.as_bytes()].concat());
        }
        let start = out.len();
        let count = u16::try_from(names.len()).unwrap().to_le_bytes();
        let (size, at) = (u32::try_from(directory.len()).unwrap(), u32::try_from(start).unwrap());
        out.extend(directory);
        out.extend(
            [b"PK\x05\x06", &[0; 4][..], &count, &count, &size.to_le_bytes(), &at.to_le_bytes(), &[0, 0]].concat(),
        );
        (out, start)
    }

    fn read(bytes: &[u8]) -> Result<Vec<Member>, ZipError> {
        let end = End::parse(bytes, bytes.len() as u64)?;
        let start = usize::try_from(end.offset).unwrap();
        let members = end.members(&bytes[start..start + usize::try_from(end.size).unwrap()])?;
        let sized = members.iter().map(|member| {
            let at = usize::try_from(member.offset).unwrap();
            let length = member.header_length(&bytes[at..(at + LOCAL).min(bytes.len())])?;
            member.is_named(&bytes[at + LOCAL..at + LOCAL + member.name.len()])?;
            Ok((member.clone(), length + member.packed))
        });
        contiguous(&sized.collect::<Result<Vec<_>, ZipError>>()?, &end)?;
        Ok(members)
    }

    #[test]
    fn members_are_read_with_their_times() {
        let members = read(&zip(&["a/b.py", "a-1.dist-info/RECORD"]).0).unwrap();
        assert_eq!(members.iter().map(|m| m.name.as_str()).collect::<Vec<_>>(), ["a/b.py", "a-1.dist-info/RECORD"]);
        assert_eq!(members[0].stamp.unwrap().to_string(), "2016-01-01 00:00:00");
        assert_eq!(read(&zip(&[]).0), Ok(vec![]));
    }

    #[test]
    fn a_member_twice_and_names_that_leave_are_refused() {
        assert_eq!(read(&zip(&["a", "a"]).0), Err(ZipError::Twice { name: "a".into() }));
        assert_eq!(read(&zip(&["a", "a/"]).0), Err(ZipError::Twice { name: "a/".into() }));
        for bad in ["../a", "a/../b", "/a", "a//b", "./a", "a\\b", "c:a", "", "a/.."] {
            assert!(matches!(read(&zip(&[bad]).0), Err(ZipError::Name { .. })), "{bad}");
        }
    }

    #[test]
    fn bytes_that_belong_to_nobody_are_refused() {
        let (good, start) = zip(&["a", "b"]);
        assert_eq!(read(&[&good[..], b"x"].concat()), Err(ZipError::NoEnd));
        assert!(matches!(read(&[b"x", &good[..]].concat()), Err(ZipError::Malformed { .. })));
        let mut moved = good.clone();
        moved[start + 42] = 31; // the first member now lies where the second does
        assert!(read(&moved).is_err());
    }

    #[test]
    fn headers_that_disagree_are_refused() {
        let (good, start) = zip(&["a", "b"]);
        for (at, what) in [(8, "compression"), (10, "time"), (22, "size or checksum"), (30, "name")] {
            let mut bytes = good.clone();
            bytes[at] ^= 2;
            assert_eq!(read(&bytes), Err(ZipError::Disagree { name: "a".into(), what }), "{at}");
        }
        let mut encrypted = good.clone();
        encrypted[start + 8] = 1;
        assert!(matches!(read(&encrypted), Err(ZipError::Unsupported { .. })));
        let mut fewer = good;
        let end = fewer.len() - 22;
        fewer[end + 8] = 1;
        fewer[end + 10] = 1;
        assert!(matches!(read(&fewer), Err(ZipError::Malformed { .. })));
    }

    proptest! {
        #[test]
        fn a_cut_or_changed_archive_never_panics(cut in 0..200_usize, at in 0..200_usize, with: u8) {
            let (mut bytes, _) = zip(&["a/b", "c"]);
            bytes.truncate(cut.max(1));
            if let Some(byte) = bytes.get_mut(at) {
                *byte = with;
            }
            if let Ok(end) = End::parse(&bytes, bytes.len() as u64) {
                let range = usize::try_from(end.offset).unwrap()..usize::try_from(end.offset + end.size).unwrap();
                let _ = end.members(bytes.get(range).unwrap_or_default());
            }
        }
    }
}
