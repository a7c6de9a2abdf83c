//! Members of a zip: wheels, jars, and zips.

use kiln_model::format::zip::{
    DESCRIPTOR, END_LENGTH, End, FLAG_DESCRIPTOR, FLAG_UTF8, LOCAL_LENGTH, Local, Record, descriptor, directory, method,
};
use kiln_model::normalise::Normaliser;

use super::{Blob, Contents, ListError, Listing, Member, MemberKind, broken, duplicates};

/// The end record with the longest comment it may have.
const TAIL: u64 = END_LENGTH as u64 + u16::MAX as u64;

/// Lists at most `most` members.
pub(in crate::diff) fn list(blob: &Blob, most: usize) -> Result<Listing, ListError> {
    let from = blob.len().saturating_sub(TAIL);
    let mut tail = vec![0; usize::try_from(blob.len() - from).map_err(broken)?];
    blob.read_at(from, &mut tail)?;
    let end = End::find(&tail, blob.len()).map_err(broken)?;
    if usize::from(end.members) > most {
        return Err(broken(format!("it has more than {most} members")));
    }
    let mut central = vec![0; end.size as usize];
    blob.read_at(end.offset.into(), &mut central)?;
    let records = directory(&central, end.offset.into(), end.members).map_err(broken)?;
    let mut unsound = Vec::new();
    let mut members = Vec::new();
    let mut ranges = Vec::new();
    for record in records {
        let (contents, range) = contents(blob, &record, &mut unsound)?;
        ranges.push(range);
        members.push(member(&record, contents, &mut unsound));
    }
    // Records and the directory must touch: what lies between them, only some readers see.
    ranges.sort_unstable();
    let mut at = 0;
    for (start, stop) in ranges.into_iter().chain([(end.offset.into(), end.at)]) {
        if start != at {
            unsound.push(if start > at {
                format!("bytes {at} to {start} belong to no member")
            } else {
                format!("two members share the bytes {start} to {at}")
            });
        }
        at = at.max(stop);
    }
    duplicates(&members, &mut unsound);
    let comment = String::from_utf8_lossy(&end.comment).into_owned();
    Ok(Listing {
        what: "zip archive",
        bytes: blob.clone(),
        members,
        unsound,
        around: vec![("comment", comment)],
        order: Some(Normaliser::WheelZip),
        metadata: Some(Normaliser::WheelZip),
    })
}

/// What a member holds, and the bytes that it takes with its header and descriptor.
fn contents(blob: &Blob, record: &Record, unsound: &mut Vec<String>) -> Result<(Contents, (u64, u64)), ListError> {
    let at = u64::from(record.offset);
    let name = String::from_utf8_lossy(&record.name);
    let mut head = [0; LOCAL_LENGTH];
    let read = blob.read_at(at, &mut head)?;
    let local = Local::parse(&head[..read], at).map_err(broken)?;
    let mut own = vec![0; local.name_length.into()];
    blob.read_at(at + LOCAL_LENGTH as u64, &mut own)?;
    if let Err(what) = local.agrees(record, &own) {
        unsound.push(format!("local and central header of {name:?} disagree about its {what}"));
    }
    let start = at + LOCAL_LENGTH as u64 + u64::from(local.name_length) + u64::from(local.extra_length);
    let packed = u64::from(record.packed);
    let data = blob.slice(start, packed).ok_or_else(|| broken(format!("member {name:?} is cut short")))?;
    let mut stop = start + packed;
    if local.flags & FLAG_DESCRIPTOR != 0 {
        let mut after = [0; 12 + DESCRIPTOR.len()];
        let read = blob.read_at(stop, &mut after)?;
        match descriptor(&after[..read], record) {
            Some(length) => stop += length as u64,
            None => unsound.push(format!("the descriptor after {name:?} disagrees with its header")),
        }
    }
    let contents = match record.method {
        0 if record.packed == record.size => Contents::Stored { blob: data, crc: record.crc },
        8 => Contents::Deflated { blob: data, size: record.size.into(), crc: record.crc },
        _ => Contents::Opaque(data),
    };
    Ok((contents, (at, stop)))
}

fn member(record: &Record, contents: Contents, unsound: &mut Vec<String>) -> Member {
    const S_IFMT: u32 = 0o170_000;
    const S_IFLNK: u32 = 0o120_000;
    let mode = record.mode();
    let kind = match mode {
        Some(mode) if mode & S_IFMT == S_IFLNK => MemberKind::Other("symbolic link".into()),
        _ if record.name.ends_with(b"/") => MemberKind::Directory,
        _ => MemberKind::File,
    };
    let mut header = vec![
        ("system", (record.made_by >> 8).to_string()),
        ("version", format!("{} made, {} needed", record.made_by & 0xff, record.needed)),
        ("flags", format!("{:#06x}", record.flags & !(FLAG_UTF8 | FLAG_DESCRIPTOR))),
        ("descriptor", if record.flags & FLAG_DESCRIPTOR != 0 { "after the data" } else { "none" }.into()),
        ("attributes", format!("{:#06x} internal, {:#06x} external", record.internal, record.external & 0xffff)),
        ("telling extra field", telling(record)),
        ("extra field", data_encoding::HEXLOWER.encode(&record.extra)),
        ("comment", String::from_utf8_lossy(&record.comment).into_owned()),
    ];
    // For a name in ASCII it says nothing; any other name would be another one without it.
    header.push(("name encoding", if record.flags & FLAG_UTF8 != 0 { "UTF-8" } else { "unspecified" }.into()));
    if record.telling_extra().is_none() {
        unsound.push(format!("the extra field of {:?} is malformed", String::from_utf8_lossy(&record.name)));
    }
    Member {
        name: record.name.clone(),
        kind,
        time: seconds(record),
        mode,
        owner: None,
        header,
        method: Some(method(record.method)),
        raw: None,
        contents,
    }
}

/// The extra fields that are not times and owners, spelled out.
fn telling(record: &Record) -> String {
    let fields = record.telling_extra().unwrap_or_default();
    let spelled = |(id, field): &(u16, Vec<u8>)| format!("{id:#06x}:{}", data_encoding::HEXLOWER.encode(field));
    fields.iter().map(spelled).collect::<Vec<_>>().join(" ")
}

/// The local time of a record, counted as if it were UTC.
fn seconds(record: &Record) -> Option<i64> {
    let (date, time) = (record.time >> 16, record.time & 0xffff);
    let part = |n: u32| i8::try_from(n).ok();
    let date = jiff::civil::Date::new(i16::try_from(1980 + (date >> 9)).ok()?, part(date >> 5 & 15)?, part(date & 31)?)
        .ok()?;
    let moment = date.at(part(time >> 11)?, part(time >> 5 & 63)?, part(((time & 31) * 2).min(59))?, 0);
    Some(moment.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp().as_second())
}

#[cfg(test)]
pub(in crate::diff) mod tests {
    use super::*;
    use ::zip::write::SimpleFileOptions;
    use ::zip::{CompressionMethod, DateTime, ZipWriter};
    use std::io::Write as _;

    /// A zip of these files, each deflated, with this year as their time.
    pub(in crate::diff) fn made(files: &[(&str, &[u8])], year: u16) -> Vec<u8> {
        let time = DateTime::from_date_and_time(year, 5, 1, 12, 0, 0).unwrap();
        let options =
            SimpleFileOptions::default().compression_method(CompressionMethod::Deflated).last_modified_time(time);
        let mut writer = ZipWriter::new(std::io::Cursor::new(Vec::new()));
        for (name, contents) in files {
            writer.start_file(*name, options).unwrap();
            writer.write_all(contents).unwrap();
        }
        writer.finish().unwrap().into_inner()
    }

    fn listed(bytes: Vec<u8>) -> Result<Listing, ListError> {
        list(&Blob::of_bytes(bytes), 100)
    }

    #[test]
    fn members_are_listed_with_what_their_headers_say() {
        let listing = listed(made(&[("a", b"first"), ("b", b"second")], 2024)).unwrap();
        assert!(listing.unsound.is_empty(), "{:?}", listing.unsound);
        assert_eq!(listing.members[1].name, b"b");
        assert_eq!(listing.members[0].time, Some(1_714_564_800));
        assert!(matches!(listing.members[0].contents, Contents::Deflated { size: 5, .. }));
    }

    #[test]
    fn what_two_readers_would_see_differently_is_unsound_or_refused() {
        let whole = made(&[("a", b"first"), ("b", b"second")], 2024);
        let unsound = |bytes: Vec<u8>| listed(bytes).unwrap().unsound.join("; ");
        assert!(listed([b"#!/bin/sh\n", whole.as_slice()].concat()).is_err());
        assert!(listed([whole.as_slice(), b"\n"].concat()).is_err());
        let mut other_name = whole.clone();
        other_name[30] = b'c';
        assert!(unsound(other_name).contains("disagree about its name"));
        // Both members called `a`, in both headers of the second.
        let mut twice = whole.clone();
        for at in memchr::memmem::find_iter(&whole, b"b").collect::<Vec<_>>() {
            if whole[at - 1] == 0 {
                twice[at] = b'a';
            }
        }
        assert!(unsound(twice).contains("more than once"));
        for end in 0..whole.len() {
            assert!(listed(whole[..end].to_vec()).is_err(), "{end}");
        }
    }
}
