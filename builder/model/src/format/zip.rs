//! The records of a zip archive (APPNOTE 6.3): end record, central directory, local headers.
//!
//! Strict where readers are known to disagree: what a record says is kept as it stands, and [`Local::agrees`] says where
//! a local header tells another story than the central directory. Archives of more than 4 GiB or 65,535 members (zip64)
//! are recognised and refused.

/// How a local header begins.
pub const LOCAL: &[u8; 4] = b"PK\x03\x04";
/// How a record of the central directory begins.
const CENTRAL: &[u8; 4] = b"PK\x01\x02";
/// How the end record begins.
pub const END: &[u8; 4] = b"PK\x05\x06";
/// How a data descriptor begins, if its writer gave it a signature.
pub const DESCRIPTOR: &[u8; 4] = b"PK\x07\x08";

/// Bytes of the end record without its comment.
pub const END_LENGTH: usize = 22;
/// Bytes of a local header without name and extra field.
pub const LOCAL_LENGTH: usize = 30;
/// Bytes of a central record without name, extra field and comment.
const CENTRAL_LENGTH: usize = 46;

/// Sizes and checksum follow the data.
pub const FLAG_DESCRIPTOR: u16 = 1 << 3;
/// The name is UTF-8.
pub const FLAG_UTF8: u16 = 1 << 11;
const FLAG_ENCRYPTED: u16 = 1;

/// The end of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// Number of members.
    pub members: u16,
    /// Bytes of the central directory.
    pub size: u32,
    /// Where it begins.
    pub offset: u32,
    /// Where this record begins.
    pub at: u64,
    /// The archive's comment.
    pub comment: Vec<u8>,
}

/// One member, as the central directory has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Version and system of the writer; the system is the high byte: 0 for DOS, 3 for Unix.
    pub made_by: u16,
    /// Version that a reader needs.
    pub needed: u16,
    /// Flags.
    pub flags: u16,
    /// 0 for stored, 8 for deflate.
    pub method: u16,
    /// DOS time in the low half, date in the high one.
    pub time: u32,
    /// CRC-32 of the contents.
    pub crc: u32,
    /// Bytes as packed.
    pub packed: u32,
    /// Bytes as unpacked.
    pub size: u32,
    /// Internal attributes: 1 for text.
    pub internal: u16,
    /// External attributes: Unix mode in the high half.
    pub external: u32,
    /// Where the local header is.
    pub offset: u32,
    /// Name.
    pub name: Vec<u8>,
    /// Extra fields.
    pub extra: Vec<u8>,
    /// Comment.
    pub comment: Vec<u8>,
}

/// One member, as its local header has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Local {
    /// Version that a reader needs.
    pub needed: u16,
    /// Flags.
    pub flags: u16,
    /// Method.
    pub method: u16,
    /// Time and date.
    pub time: u32,
    /// CRC-32, or 0 if a descriptor follows.
    pub crc: u32,
    /// Bytes as packed, or 0.
    pub packed: u32,
    /// Bytes as unpacked, or 0.
    pub size: u32,
    /// Bytes of the name.
    pub name_length: u16,
    /// Bytes of the extra fields.
    pub extra_length: u16,
}

/// Why bytes are not a sound zip archive.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ZipError {
    /// There is no end record, or bytes follow it.
    #[error("no end record whose comment ends where the file does")]
    NoEnd,
    /// Larger than this format can say.
    #[error("it is a zip64 archive, or one of several parts, which kiln does not look into")]
    Zip64,
    /// A record is cut short or no record.
    #[error("{what} at byte {at} is cut short, or is none")]
    Record {
        /// What was expected.
        what: &'static str,
        /// Where.
        at: u64,
    },
    /// The directory does not have the size that the end record says.
    #[error("the central directory does not end where the end record begins")]
    Directory,
    /// A member is encrypted.
    #[error("member {name:?} is encrypted")]
    Encrypted {
        /// Its name.
        name: String,
    },
}

impl End {
    /// Finds the end record in `tail`, the last bytes of an archive of `length` bytes.
    pub fn find(tail: &[u8], length: u64) -> Result<Self, ZipError> {
        let last = tail.len().checked_sub(END_LENGTH).ok_or(ZipError::NoEnd)?;
        let fits = |&at: &usize| {
            tail[at..].starts_with(END) && usize::from(u16_at(&tail[at..], 20)) == tail.len() - at - END_LENGTH
        };
        let at = (0..=last).rev().find(fits).ok_or(ZipError::NoEnd)?;
        let record = &tail[at..];
        let end = Self {
            members: u16_at(record, 10),
            size: u32_at(record, 12),
            offset: u32_at(record, 16),
            at: length - (tail.len() - at) as u64,
            comment: record[END_LENGTH..].to_vec(),
        };
        let parts = u16_at(record, 4) != 0 || u16_at(record, 6) != 0 || u16_at(record, 8) != end.members;
        if parts || end.members == u16::MAX || end.size == u32::MAX || end.offset == u32::MAX {
            return Err(ZipError::Zip64);
        }
        if u64::from(end.offset) + u64::from(end.size) != end.at {
            return Err(ZipError::Directory);
        }
        Ok(end)
    }
}

/// Reads the central directory, which begins at `offset` of the archive and has `members` records.
pub fn directory(mut bytes: &[u8], offset: u64, members: u16) -> Result<Vec<Record>, ZipError> {
    let length = bytes.len();
    let mut records = Vec::new();
    while !bytes.is_empty() {
        let cut = || ZipError::Record {
            what: "a record of the central directory",
            at: offset + (length - bytes.len()) as u64,
        };
        if bytes.len() < CENTRAL_LENGTH || !bytes.starts_with(CENTRAL) {
            return Err(cut());
        }
        let lengths = [28, 30, 32].map(|at| usize::from(u16_at(bytes, at)));
        let (record, rest) = bytes.split_at_checked(CENTRAL_LENGTH + lengths.iter().sum::<usize>()).ok_or_else(cut)?;
        let (name, after) = record[CENTRAL_LENGTH..].split_at(lengths[0]);
        let (extra, comment) = after.split_at(lengths[1]);
        let record = Record {
            made_by: u16_at(record, 4),
            needed: u16_at(record, 6),
            flags: u16_at(record, 8),
            method: u16_at(record, 10),
            time: u32_at(record, 12),
            crc: u32_at(record, 16),
            packed: u32_at(record, 20),
            size: u32_at(record, 24),
            internal: u16_at(record, 36),
            external: u32_at(record, 38),
            offset: u32_at(record, 42),
            name: name.to_vec(),
            extra: extra.to_vec(),
            comment: comment.to_vec(),
        };
        if record.flags & FLAG_ENCRYPTED != 0 {
            return Err(ZipError::Encrypted { name: String::from_utf8_lossy(&record.name).into_owned() });
        }
        if [record.packed, record.size, record.offset].contains(&u32::MAX) {
            return Err(ZipError::Zip64);
        }
        records.push(record);
        bytes = rest;
    }
    if records.len() == usize::from(members) { Ok(records) } else { Err(ZipError::Directory) }
}

impl Record {
    /// The time as a date, in the zone of whoever packed it.
    pub fn date(&self) -> String {
        let (date, time) = (self.time >> 16, self.time & 0xffff);
        format!(
            "{:04}-{:02}-{:02} {:02}:{:02}:{:02}",
            1980 + (date >> 9),
            date >> 5 & 15,
            date & 31,
            time >> 11,
            time >> 5 & 63,
            (time & 31) * 2
        )
    }

    /// The Unix mode, if the writer gave one.
    pub fn mode(&self) -> Option<u32> {
        let mode = self.external >> 16;
        (mode != 0).then_some(mode)
    }

    /// The extra fields that say something else than times and owners, as they stand, by their ids; `None` if they are
    /// not well formed.
    pub fn telling_extra(&self) -> Option<Vec<(u16, Vec<u8>)>> {
        /// Extended timestamp, NTFS times, and the two Unix fields of times and owners (APPNOTE 4.5.2, Info-ZIP).
        const TIMES_AND_OWNERS: [u16; 4] = [0x5455, 0x000a, 0x5855, 0x7875];
        let mut rest = self.extra.as_slice();
        let mut fields = Vec::new();
        while !rest.is_empty() {
            let (head, after) = rest.split_at_checked(4)?;
            let (field, after) = after.split_at_checked(usize::from(u16_at(head, 2)))?;
            let id = u16_at(head, 0);
            if !TIMES_AND_OWNERS.contains(&id) {
                fields.push((id, field.to_vec()));
            }
            rest = after;
        }
        Some(fields)
    }
}

impl Local {
    /// Reads the local header that `bytes` begin with, found at `at`.
    pub fn parse(bytes: &[u8], at: u64) -> Result<Self, ZipError> {
        if bytes.len() < LOCAL_LENGTH || !bytes.starts_with(LOCAL) {
            return Err(ZipError::Record { what: "a local header", at });
        }
        Ok(Self {
            needed: u16_at(bytes, 4),
            flags: u16_at(bytes, 6),
            method: u16_at(bytes, 8),
            time: u32_at(bytes, 10),
            crc: u32_at(bytes, 14),
            packed: u32_at(bytes, 18),
            size: u32_at(bytes, 22),
            name_length: u16_at(bytes, 26),
            extra_length: u16_at(bytes, 28),
        })
    }

    /// Where it tells another story than the central directory; `name` is what stands in the local header.
    pub fn agrees(&self, record: &Record, name: &[u8]) -> Result<(), &'static str> {
        let later = self.flags & FLAG_DESCRIPTOR != 0;
        let number = |own: u32, central: u32| own == central || (later && own == 0);
        match () {
            () if name != record.name => Err("name"),
            () if self.flags != record.flags => Err("flags"),
            () if self.method != record.method => Err("method"),
            () if self.time != record.time => Err("time"),
            () if !number(self.crc, record.crc) => Err("checksum"),
            () if !number(self.packed, record.packed) => Err("packed size"),
            () if !number(self.size, record.size) => Err("size"),
            () => Ok(()),
        }
    }
}

/// Bytes of the descriptor that `bytes` begin with, if it says what the record says.
pub fn descriptor(bytes: &[u8], record: &Record) -> Option<usize> {
    let says = |bytes: &[u8]| {
        bytes.len() >= 12
            && (u32_at(bytes, 0), u32_at(bytes, 4), u32_at(bytes, 8)) == (record.crc, record.packed, record.size)
    };
    match bytes.strip_prefix(DESCRIPTOR) {
        Some(rest) if says(rest) => Some(16),
        _ => says(bytes).then_some(12),
    }
}

/// What a method is called.
pub fn method(number: u16) -> String {
    match number {
        0 => "stored".into(),
        8 => "deflate".into(),
        12 => "bzip2".into(),
        14 => "lzma".into(),
        93 => "zstd".into(),
        95 => "xz".into(),
        other => format!("method {other}"),
    }
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One stored member `a` with contents `x`, as a writer of plain archives makes it.
    fn archive() -> Vec<u8> {
        let mut zip = Vec::new();
        zip.extend_from_slice(
            b"PK\x03\x04\x14\0\0\0\0\0\x00\x60\x21\x58\x83\x16\xdc\x8c\x01\0\0\0\x01\0\0\0\x01\0\0\0a",
        );
        zip.push(b'x');
        let offset = zip.len() as u32;
        zip.extend_from_slice(
            b"PK\x01\x02\x14\x03\x14\0\0\0\0\0\x00\x60\x21\x58\x83\x16\xdc\x8c\x01\0\0\0\x01\0\0\0\x01\0",
        );
        zip.extend_from_slice(b"\0\0\0\0\0\0\0\0\0\0\xa4\x81\0\0\0\0a");
        let size = zip.len() as u32 - offset;
        zip.extend_from_slice(b"PK\x05\x06\0\0\0\0\x01\0\x01\0");
        zip.extend_from_slice(&size.to_le_bytes());
        zip.extend_from_slice(&offset.to_le_bytes());
        zip.extend_from_slice(b"\0\0");
        zip
    }

    fn read(zip: &[u8]) -> Result<Vec<Record>, ZipError> {
        let end = End::find(zip, zip.len() as u64)?;
        directory(&zip[end.offset as usize..end.at as usize], end.offset.into(), end.members)
    }

    #[test]
    fn an_archive_is_read_record_by_record() {
        let zip = archive();
        let records = read(&zip).unwrap();
        let [record] = records.as_slice() else { panic!("one member") };
        assert_eq!((record.name.as_slice(), record.size, record.mode()), (&b"a"[..], 1, Some(0o100_644)));
        assert_eq!((record.date().as_str(), record.made_by >> 8), ("2024-01-01 12:00:00", 3));
        let local = Local::parse(&zip, 0).unwrap();
        assert_eq!(local.agrees(record, b"a"), Ok(()));
        assert_eq!(local.agrees(record, b"b"), Err("name"));
        assert_eq!(Local { crc: 1, ..local.clone() }.agrees(record, b"a"), Err("checksum"));
        assert_eq!(Local { size: 2, ..local }.agrees(record, b"a"), Err("size"));
    }

    #[test]
    fn bytes_after_the_end_and_a_directory_of_another_size_are_refused() {
        let mut zip = archive();
        zip.push(0);
        assert_eq!(read(&zip), Err(ZipError::NoEnd));
        let mut before = b"#!".to_vec();
        before.extend(archive());
        assert_eq!(read(&before), Err(ZipError::Directory));
        let mut two = archive();
        let at = two.len() - 12;
        two[at] = 2;
        two[at - 2] = 2;
        assert_eq!(read(&two), Err(ZipError::Directory));
        assert_eq!(read(b"PK"), Err(ZipError::NoEnd));
    }

    #[test]
    fn a_descriptor_is_known_with_and_without_its_signature() {
        let record = read(&archive()).unwrap().remove(0);
        let plain = [record.crc.to_le_bytes(), 1_u32.to_le_bytes(), 1_u32.to_le_bytes()].concat();
        assert_eq!(descriptor(&plain, &record), Some(12));
        assert_eq!(descriptor(&[DESCRIPTOR.as_slice(), &plain].concat(), &record), Some(16));
        assert_eq!(descriptor(b"PK\x03\x04........", &record), None);
    }

    #[test]
    fn extra_fields_of_times_and_owners_tell_nothing() {
        let mut record = read(&archive()).unwrap().remove(0);
        record.extra = b"UT\x05\0\x01abcd\xfe\xca\x02\0hi".to_vec();
        assert_eq!(record.telling_extra(), Some(vec![(0xcafe, b"hi".to_vec())]));
        record.extra = b"UT\x05\0\x01".to_vec();
        assert_eq!(record.telling_extra(), None);
    }
}
