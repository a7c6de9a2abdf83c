//! `elf-build-id/1`: build id and debug links of an ELF file.
//!
//! The id of a build follows from everything that the linker saw, also from what is stripped later: the compiler's revision
//! alone changes it. Masked with zeros of the same length: the text of the one note in `.note.gnu.build-id`; the checksum in
//! `.gnu_debuglink`, and the file's name in it if that is an id; the id in `.gnu_debugaltlink`. A section that
//! shares bytes with anything else, or a link that is loaded into memory, is refused: it would hide code.

use std::ops::Range;

use crate::format::elf::{Elf, ElfError, Section};

/// The longest id: a SHA-512.
const MAX_ID: usize = 64;
/// The longest link: a path and an id.
const MAX_LINK: usize = 4096 + MAX_ID;

const BUILD_ID: &str = ".note.gnu.build-id";
const LINKS: [&str; 2] = [".gnu_debuglink", ".gnu_debugaltlink"];

/// Why nothing is masked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BuildIdError {
    /// It cannot be read.
    #[error(transparent)]
    Elf(#[from] ElfError),
    /// A section that is not what its name says.
    #[error("section {section} is not what its name says: {why}")]
    Section {
        /// Its name.
        section: &'static str,
        /// What it is instead.
        why: &'static str,
    },
}

/// The file with build id and debug links masked; `None` if it has neither.
pub fn masked(bytes: &[u8]) -> Result<Option<Vec<u8>>, BuildIdError> {
    let elf = Elf::parse(bytes)?;
    let mut ranges: Vec<Range<u64>> = Vec::new();
    if let Some(section) = only(&elf, BUILD_ID)? {
        let wrong = |why| BuildIdError::Section { section: BUILD_ID, why };
        let notes = elf.notes(section)?;
        let [note] = notes.as_slice() else { return Err(wrong("it does not hold exactly one note")) };
        if crate::format::elf::build_id(&notes).is_none() || note.text.len() > MAX_ID {
            return Err(wrong("its note is no build id"));
        }
        if note.offset + note.text.len().next_multiple_of(4) != section.data.len() {
            return Err(wrong("bytes follow its note"));
        }
        ranges.push(within(section, note.offset..note.offset + note.text.len()));
        alone(&elf, section, BUILD_ID)?;
    }
    for name in LINKS {
        let Some(section) = only(&elf, name)? else { continue };
        let wrong = |why| BuildIdError::Section { section: name, why };
        let Some((file, id)) = Elf::debug_link(section).filter(|_| section.data.len() <= MAX_LINK) else {
            return Err(wrong("it is no name and checksum"));
        };
        let expected = if name == LINKS[0] { id.len() == 4 } else { (1..=MAX_ID).contains(&id.len()) };
        if !expected {
            return Err(wrong("its checksum is too long or missing"));
        }
        if elf.loaded.iter().any(|l| overlap(l, &whole(section))) {
            return Err(wrong("it is loaded into memory"));
        }
        alone(&elf, section, name)?;
        if file.strip_suffix(b".debug").is_some_and(|id| id.iter().all(u8::is_ascii_hexdigit)) {
            ranges.push(within(section, 0..file.len()));
        }
        ranges.push(within(section, section.data.len() - id.len()..section.data.len()));
    }
    if ranges.is_empty() {
        return Ok(None);
    }
    let mut masked = bytes.to_vec();
    for range in ranges {
        let range = range.start as usize..range.end as usize;
        masked[range].fill(0);
    }
    Ok(Some(masked))
}

/// The section of this name, of which there may be one.
fn only<'e, 'a>(elf: &'e Elf<'a>, name: &'static str) -> Result<Option<&'e Section<'a>>, BuildIdError> {
    let mut all = elf.sections.iter().filter(|s| s.name == name.as_bytes() && !s.data.is_empty());
    match (all.next(), all.next()) {
        (section, None) => Ok(section),
        (_, Some(_)) => Err(BuildIdError::Section { section: name, why: "there are two of them" }),
    }
}

/// That nothing else lies where this section does.
fn alone(elf: &Elf<'_>, section: &Section<'_>, name: &'static str) -> Result<(), BuildIdError> {
    let own = whole(section);
    let others = elf.sections.iter().filter(|s| !std::ptr::eq(*s, section) && !s.data.is_empty()).map(whole);
    if others.chain(elf.tables.iter().cloned()).any(|other| overlap(&own, &other)) {
        return Err(BuildIdError::Section { section: name, why: "it shares bytes with another section or table" });
    }
    Ok(())
}

fn whole(section: &Section<'_>) -> Range<u64> {
    section.offset..section.offset + section.data.len() as u64
}

fn within(section: &Section<'_>, part: Range<usize>) -> Range<u64> {
    section.offset + part.start as u64..section.offset + part.end as u64
}

fn overlap(a: &Range<u64>, b: &Range<u64>) -> bool {
    a.start < b.end && b.start < a.end
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::elf::tests::{build_id_note, made};

    fn linked(id: u8, crc: &[u8; 4], code: &[u8]) -> Vec<u8> {
        let name = format!("{}.debug\0", data_encoding::HEXLOWER.encode(&[id; 19]));
        let link = [name.as_bytes(), &[0; 3][..(4 - name.len() % 4) % 4], crc].concat();
        made(&[(BUILD_ID, 7, &build_id_note(&[id; 20])), (".text", 1, code), (LINKS[0], 1, &link)])
    }

    #[test]
    fn files_that_differ_in_id_and_link_become_equal() {
        let (a, b) = (linked(1, b"abcd", b"code"), linked(2, b"efgh", b"code"));
        assert_ne!(a, b);
        let masked_a = masked(&a).unwrap().unwrap();
        assert_eq!(masked_a, masked(&b).unwrap().unwrap());
        assert_eq!(masked_a.len(), a.len());
        assert!(a.iter().zip(&masked_a).all(|(x, y)| x == y || *y == 0));
    }

    #[test]
    fn files_that_differ_in_anything_else_stay_different() {
        let masked = |bytes: &[u8]| masked(bytes).unwrap().unwrap();
        assert_ne!(masked(&linked(1, b"abcd", b"code")), masked(&linked(2, b"abcd", b"kode")));
        let longer = made(&[(BUILD_ID, 7, &build_id_note(&[1; 16])), (".text", 1, b"code")]);
        let shorter = made(&[(BUILD_ID, 7, &build_id_note(&[1; 20])), (".text", 1, b"code")]);
        assert_ne!(masked(&longer), masked(&shorter));
        let named = |name: &[u8]| made(&[(LINKS[0], 1, &[name, b"abcd"].concat())]);
        assert_ne!(masked(&named(b"first-name\0\0")), masked(&named(b"other-name\0\0")));
    }

    #[test]
    fn a_file_without_id_is_none_of_its_business() {
        assert_eq!(masked(&made(&[(".text", 1, b"code")])), Ok(None));
        assert!(masked(b"no elf").is_err());
    }

    #[test]
    fn what_hides_behind_the_name_is_refused() {
        let wrong = |sections: &[(&str, u32, &[u8])]| {
            assert!(matches!(masked(&made(sections)), Err(BuildIdError::Section { .. })), "{sections:?}");
        };
        let note = build_id_note(&[1; 20]);
        wrong(&[(BUILD_ID, 7, &[note.as_slice(), &note].concat())]);
        wrong(&[(BUILD_ID, 7, &build_id_note(&[1; 68]))]);
        wrong(&[(BUILD_ID, 7, &note), (BUILD_ID, 7, &note)]);
        wrong(&[(LINKS[0], 1, b"x\0\0\0code that is not a checksum")]);
        wrong(&[(LINKS[1], 1, b"x\0")]);
        // A link whose bytes are those of the code.
        let mut shared = made(&[(".text", 1, b"ab\0\0code"), (LINKS[0], 1, b"ab\0\0code")]);
        let table = shared.len() - 64 * 4;
        let (text, link) = (table + 64, table + 128);
        shared.copy_within(text + 24..text + 32, link + 24);
        assert!(matches!(masked(&shared), Err(BuildIdError::Section { why, .. }) if why.contains("shares")));
    }
}
