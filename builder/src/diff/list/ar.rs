//! Members of an `ar`: the outer container of a `.deb`, and a library of objects.

use kiln_model::format::ar::{HEADER, Header, MAGIC};
use kiln_model::normalise::Normaliser;

use super::{Blob, Contents, ListError, Listing, Member, MemberKind, broken, duplicates};

/// Lists at most `most` members.
pub(in crate::diff) fn list(blob: &Blob, most: usize) -> Result<Listing, ListError> {
    if blob.head(MAGIC.len())? != MAGIC {
        return Err(broken("it does not begin as an ar archive"));
    }
    let mut at = MAGIC.len() as u64;
    let mut long_names = Vec::new();
    let mut members = Vec::new();
    let mut unsound = Vec::new();
    while at < blob.len() {
        let mut raw = [0; HEADER];
        if blob.read_at(at, &mut raw)? < HEADER {
            return Err(broken(format!("the header at byte {at} is cut short")));
        }
        let header = Header::parse(&raw).map_err(|e| broken(format!("at byte {at}: {e}")))?;
        let start = at + HEADER as u64;
        let cut = || broken(format!("the member at byte {at} is cut short"));
        let contents = blob.slice(start, header.size).ok_or_else(cut)?;
        at = header.next(start).ok_or_else(cut)?;
        if header.size & 1 == 1 {
            let mut pad = [0];
            // Only the last member may lack it: some writers leave it out.
            if blob.read_at(at - 1, &mut pad)? == 1 && pad != *b"\n" {
                unsound.push(format!("the byte that pads the member before {at} is no line feed"));
            }
        }
        if header.name == b"//" {
            long_names = contents.bytes()?.into_owned();
        }
        if members.len() >= most {
            return Err(broken(format!("it has more than {most} members")));
        }
        let name = header.full_name(&long_names).map_err(broken)?;
        members.push(Member {
            name,
            kind: MemberKind::File,
            time: i64::try_from(header.mtime).ok(),
            mode: Some(header.mode),
            owner: Some(format!("{}:{}", header.uid, header.gid)),
            header: Vec::new(),
            method: None,
            raw: None,
            contents: Contents::Plain(contents),
        });
    }
    // A library may hold two objects of one name; a package may not.
    if members.first().is_some_and(|m| m.name == b"debian-binary") {
        duplicates(&members, &mut unsound);
    }
    Ok(Listing {
        what: "ar archive",
        bytes: blob.clone(),
        members,
        unsound,
        around: Vec::new(),
        order: None,
        metadata: Some(Normaliser::ArMembers),
    })
}

#[cfg(test)]
pub(in crate::diff) mod tests {
    use super::*;

    /// An archive of these members with this time.
    pub(in crate::diff) fn made(members: &[(&str, &[u8])], mtime: u64) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        for (name, contents) in members {
            let header = format!("{name:<16}{mtime:<12}{:<6}{:<6}{:<8}{:<10}`\n", 0, 0, "100644", contents.len());
            bytes.extend_from_slice(header.as_bytes());
            bytes.extend_from_slice(contents);
            if contents.len() % 2 == 1 {
                bytes.push(b'\n');
            }
        }
        bytes
    }

    #[test]
    fn members_are_ranges_of_the_archive() {
        let blob = Blob::of_bytes(made(&[("a.o/", b"odd"), ("b.o/", b"even")], 7));
        let listing = list(&blob, 9).unwrap();
        let names: Vec<&[u8]> = listing.members.iter().map(|m| m.name.as_slice()).collect();
        assert_eq!(names, [b"a.o", b"b.o"]);
        let Contents::Plain(second) = &listing.members[1].contents else { panic!("plain") };
        assert_eq!((second.bytes().unwrap().as_ref(), listing.members[0].time), (&b"even"[..], Some(7)));
    }

    #[test]
    fn what_is_cut_short_or_too_much_is_refused() {
        let whole = made(&[("a.o/", b"even")], 0);
        for end in 0..whole.len() {
            if end != MAGIC.len() {
                assert!(list(&Blob::of_bytes(whole[..end].to_vec()), 9).is_err(), "{end}");
            }
        }
        assert!(list(&Blob::of_bytes(made(&[("a", b""), ("b", b"")], 0)), 1).is_err());
    }

    #[test]
    fn a_package_with_two_members_of_one_name_is_unsound() {
        let twice = made(&[("debian-binary", b"2.0\n"), ("data.tar", b""), ("data.tar", b"")], 0);
        assert!(
            list(&Blob::of_bytes(twice), 9).unwrap().unsound[0].contains("\"data.tar\" stands there more than once")
        );
        let library = made(&[("a.o/", b""), ("a.o/", b"")], 0);
        assert!(list(&Blob::of_bytes(library), 9).unwrap().unsound.is_empty());
    }
}
