//! Entries of a tar archive.

use std::io::{BufReader, Read as _};

use ::tar::{Archive, EntryType};

use kiln_model::digest::Digest;
use kiln_model::normalise::Normaliser;

use super::{Blob, Contents, ListError, Listing, Member, MemberKind, broken, duplicates};

/// Bytes of the two blocks that end an archive, and of the record that writers fill up.
const BLOCK: u64 = 512;

/// Bytes that an archive is filled up to a multiple of (GNU tar, "The Blocking Factor of an Archive").
const RECORD: u64 = 20 * BLOCK;

/// Bytes of all headers of one entry: names and attributes are short.
const MAX_HEADERS: usize = 1 << 20;

/// Lists at most `most` entries.
pub(in crate::diff) fn list(blob: &Blob, most: usize) -> Result<Listing, ListError> {
    let mut archive = Archive::new(BufReader::new(blob.reader()));
    let mut members = Vec::new();
    let mut unsound = Vec::new();
    let mut end = 0;
    for entry in archive.entries_with_seek().map_err(broken)? {
        let mut entry = entry.map_err(|e| broken(format!("after byte {end}: {e}")))?;
        if members.len() >= most {
            return Err(broken(format!("it has more than {most} entries")));
        }
        let mut header = Vec::new();
        if let Some(extensions) = entry.pax_extensions().map_err(broken)? {
            for extension in extensions {
                let extension = extension.map_err(broken)?;
                let (key, value) =
                    (String::from_utf8_lossy(extension.key_bytes()), String::from_utf8_lossy(extension.value_bytes()));
                // Names are the entry's own; times with fractions, attributes and anything else stand for themselves.
                if !matches!(key.as_ref(), "path" | "linkpath") {
                    header.push(("PAX record", format!("{key}={value}")));
                }
            }
        }
        let (start, size) = (entry.raw_file_position(), entry.size());
        let fields = entry.header();
        let link = || entry.link_name_bytes().map(|name| name.into_owned()).unwrap_or_default();
        let kind = match fields.entry_type() {
            EntryType::Regular | EntryType::Continuous => MemberKind::File,
            EntryType::Directory => MemberKind::Directory,
            EntryType::Symlink => MemberKind::Symlink(link()),
            EntryType::Link => MemberKind::HardLink(link()),
            EntryType::GNUSparse => MemberKind::Other("sparse file".into()),
            EntryType::Char | EntryType::Block => {
                let number = |part: std::io::Result<Option<u32>>| part.ok().flatten().unwrap_or(0);
                let (major, minor) = (number(fields.device_major()), number(fields.device_minor()));
                MemberKind::Other(format!("device {major},{minor}"))
            }
            EntryType::Fifo => MemberKind::Other("pipe".into()),
            other => MemberKind::Other(format!("entry of type {:#04x}", other.as_byte())),
        };
        let holds = match kind {
            MemberKind::File => size,
            _ => 0,
        };
        let text = |name: Option<&[u8]>| String::from_utf8_lossy(name.unwrap_or_default()).into_owned();
        let number = |n: std::io::Result<u64>| n.map_or_else(|_| "?".into(), |n| n.to_string());
        let owner = format!(
            "{}:{} ({}:{})",
            number(fields.uid()),
            number(fields.gid()),
            text(fields.username_bytes()),
            text(fields.groupname_bytes())
        );
        let format = (
            "format",
            if fields.as_gnu().is_some() {
                "gnu"
            } else if fields.as_ustar().is_some() {
                "ustar"
            } else {
                "v7"
            }
            .to_string(),
        );
        // The usual one is not worth its memory; any other stands for itself.
        if format.1 != "gnu" {
            header.push(format);
        }
        let raw = raw_headers(blob, end, start)?;
        let contents =
            blob.slice(start, holds).ok_or_else(|| broken(format!("the entry at byte {start} is cut short")))?;
        let member = Member {
            name: entry.path_bytes().into_owned(),
            kind,
            time: fields.mtime().ok().and_then(|t| i64::try_from(t).ok()),
            mode: fields.mode().ok(),
            owner: Some(owner),
            header,
            method: None,
            raw: Some(raw),
            contents: Contents::Plain(contents),
        };
        end = start.saturating_add(size.div_ceil(BLOCK).saturating_mul(BLOCK));
        let mut padding = [0; BLOCK as usize];
        let padded = usize::try_from(end.saturating_sub(start.saturating_add(size))).unwrap_or(0);
        blob.read_at(start.saturating_add(size), &mut padding[..padded])?;
        if padding != [0; BLOCK as usize] {
            unsound.push(format!("bytes that are not zero pad the entry before byte {end}"));
        }
        members.push(member);
    }
    if members.is_empty() && blob.len() >= BLOCK && blob.head(1)? != [0] {
        return Err(broken("no entry can be read"));
    }
    let mut around = Vec::new();
    match rest(blob, end)? {
        Rest::Nothing => unsound.push("it is cut short: nothing ends it".into()),
        // How many there are follows from the entries, if the last record is filled up as tar does it.
        Rest::Zeros(_) if blob.len().is_multiple_of(RECORD) => {}
        Rest::Zeros(bytes) => around.push(("zeros at its end", format!("{bytes} bytes"))),
        Rest::Other => unsound.push(format!("bytes that are no entry follow its last one, at {end}")),
    }
    duplicates(&members, &mut unsound);
    Ok(Listing {
        what: "tar archive",
        bytes: blob.clone(),
        members,
        unsound,
        around,
        order: Some(Normaliser::TarOrder),
        metadata: None,
    })
}

/// The digest of the headers of one entry, those of long names and attributes included, without what follows from the
/// length of its contents: size and checksum (POSIX ustar: bytes 124 to 136, 148 to 156).
fn raw_headers(blob: &Blob, from: u64, to: u64) -> Result<Digest, ListError> {
    let length = usize::try_from(to.saturating_sub(from)).map_err(broken)?;
    if length > MAX_HEADERS || length < BLOCK as usize {
        return Err(broken(format!("the headers at byte {from} take {length} bytes")));
    }
    let mut raw = vec![0; length];
    blob.read_at(from, &mut raw)?;
    let last = &mut raw[length - BLOCK as usize..];
    last[124..136].fill(0);
    last[148..156].fill(0);
    Ok(Digest::of(&raw))
}

enum Rest {
    Nothing,
    Zeros(u64),
    Other,
}

/// What follows the last entry, which has to be zeros.
fn rest(blob: &Blob, end: u64) -> std::io::Result<Rest> {
    let Some(rest) = blob.slice(end, blob.len().saturating_sub(end)).filter(|r| r.len() > 0) else {
        return Ok(Rest::Nothing);
    };
    let mut reader = BufReader::new(rest.reader());
    let mut buffer = vec![0; 64 << 10];
    loop {
        match reader.read(&mut buffer)? {
            0 => return Ok(Rest::Zeros(rest.len())),
            read if buffer[..read].iter().any(|&b| b != 0) => return Ok(Rest::Other),
            _ => {}
        }
    }
}

#[cfg(test)]
pub(in crate::diff) mod tests {
    use super::*;
    use ::tar::{Builder, Header};

    /// An archive of these files, each with its time.
    pub(in crate::diff) fn made(files: &[(&str, &[u8], u64)]) -> Vec<u8> {
        let mut builder = Builder::new(Vec::new());
        for (name, contents, mtime) in files {
            let mut header = Header::new_gnu();
            header.set_size(contents.len() as u64);
            header.set_mode(0o644);
            header.set_mtime(*mtime);
            header.set_cksum();
            builder.append_data(&mut header, name, *contents).unwrap();
        }
        builder.into_inner().unwrap()
    }

    #[test]
    fn entries_are_ranges_of_the_archive_also_with_long_names() {
        let long = "x".repeat(150);
        let blob = Blob::of_bytes(made(&[("a", b"first", 1), (&long, b"second", 2)]));
        let listing = list(&blob, 9).unwrap();
        assert!(listing.unsound.is_empty(), "{:?}", listing.unsound);
        let second = &listing.members[1];
        let Contents::Plain(contents) = &second.contents else { panic!("plain") };
        assert_eq!((second.name.as_slice(), contents.bytes().unwrap().as_ref()), (long.as_bytes(), &b"second"[..]));
        assert_eq!((second.time, second.mode), (Some(2), Some(0o644)));
    }

    #[test]
    fn what_two_readers_would_see_differently_is_unsound() {
        let mut after = made(&[("a", b"1", 0)]);
        after.extend_from_slice(b"more");
        assert!(list(&Blob::of_bytes(after), 9).unwrap().unsound[0].contains("no entry follow"));
        let twice = made(&[("a", b"1", 0), ("a", b"2", 0)]);
        assert!(list(&Blob::of_bytes(twice), 9).unwrap().unsound[0].contains("more than once"));
        let whole = made(&[("a", b"1", 0)]);
        assert!(list(&Blob::of_bytes(whole[..1024].to_vec()), 9).unwrap().unsound[0].contains("cut short"));
        assert!(list(&Blob::of_bytes(whole[..512].to_vec()), 9).is_err());
        assert!(list(&Blob::of_bytes(made(&[("a", b"", 0), ("b", b"", 0)])), 1).is_err());
    }
}
