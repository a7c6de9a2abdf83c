//! Bytes that nothing more is known of: where they differ, and the printable text that stands there.

use std::io;

use kiln_model::report::{Aspect, Content, Detail};

use super::blob::Blob;
use super::bytes::{self, Compared};

/// Printable characters in a row that are taken for a text.
const TELLING: usize = 4;

/// What differs between two blobs, which are not equal.
pub(super) fn compare(place: &str, first: &Blob, second: &Blob) -> io::Result<Detail> {
    let compared = bytes::compare(&mut first.reader(), &mut second.reader())?;
    Ok(described(place, &compared))
}

/// What differs between two slices, which are not equal.
pub(super) fn slices(place: &str, mut first: &[u8], mut second: &[u8]) -> Detail {
    let compared = bytes::compare(&mut first, &mut second).expect("reading memory does not fail");
    described(place, &compared)
}

/// What was found between two streams, in words.
pub(super) fn described(place: &str, compared: &Compared) -> Detail {
    let (first, second) = (compared.first_length, compared.second_length);
    let Some(content) = compared.content.clone() else {
        return Detail::new(place, Aspect::Content, "the bytes are the same");
    };
    let how = if first == second {
        format!("{} of {first} bytes differ, the first at {:#x}", content.differing_bytes, content.offset)
    } else {
        format!("{first} and {second} bytes, which differ from {:#x} on", content.offset)
    };
    let detail = match (run(&content, Which::First), run(&content, Which::Second)) {
        (Some(a), Some(b)) if a != b => {
            Detail::new(place, Aspect::String, format!("{how}: text {a:?} and {b:?}")).between(a, b)
        }
        (_, _) => Detail::new(place, Aspect::Content, how),
    };
    detail.showing(Some(content))
}

enum Which {
    First,
    Second,
}

/// The printable text around the first byte that differs.
fn run(content: &Content, which: Which) -> Option<String> {
    let bytes = match which {
        Which::First => content.first.as_bytes(),
        Which::Second => content.second.as_bytes(),
    };
    let at = usize::try_from(content.offset.checked_sub(content.excerpt_offset)?).ok()?;
    let (before, after) = bytes.split_at_checked(at)?;
    let printable = |b: &&u8| (0x20..0x7f).contains(*b);
    let start = before.len() - before.iter().rev().take_while(printable).count();
    let end = at + after.iter().take_while(printable).count();
    (end - start >= TELLING && end > at).then(|| String::from_utf8_lossy(&bytes[start..end]).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_in_binary_bytes_is_told_with_its_place() {
        let detail = slices("x!.rodata", b"\0\x01built 2022\0\xff", b"\0\x01built 2026\0\xff");
        assert_eq!(detail.kind, Aspect::String);
        assert_eq!(detail.says, r#"1 of 14 bytes differ, the first at 0xb: text "built 2022" and "built 2026""#);
        assert_eq!((detail.first.as_deref(), detail.second.as_deref()), (Some("built 2022"), Some("built 2026")));
    }

    #[test]
    fn bytes_that_are_no_text_are_only_placed() {
        let detail = slices("x", b"\0\x01\x02", b"\0\x01\x03");
        assert_eq!((detail.kind, detail.says.as_str()), (Aspect::Content, "1 of 3 bytes differ, the first at 0x2"));
        let detail = compare("x", &Blob::of_bytes(b"ab".to_vec()), &Blob::of_bytes(b"a".to_vec())).unwrap();
        assert_eq!(detail.says, "2 and 1 bytes, which differ from 0x1 on");
    }
}
