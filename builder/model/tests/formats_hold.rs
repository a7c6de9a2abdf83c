//! Parsers of formats that a comparison walks into hold whatever they are given: no panic, nothing outside of the file.

use kiln_model::format::{ar, elf, gettext, gzip, png, pyc, stream, zip};
use kiln_model::normalise::{changelog, elf_build_id, record};
use proptest::prelude::*;

fn all(bytes: &[u8]) {
    if let Some(head) = bytes.first_chunk() {
        let _ = ar::Header::parse(head).map(|header| (header.next(0), header.full_name(bytes)));
    }
    let _ = gzip::Header::parse(bytes);
    let _ = gettext::messages(bytes);
    let _ = png::chunks(bytes);
    let _ = pyc::Header::parse(bytes);
    if let Some(stream) = stream::Stream::of(bytes) {
        let _ = stream.parameters(bytes);
    }
    if let Ok(end) = zip::End::find(bytes, bytes.len() as u64) {
        let directory = &bytes[end.offset as usize..end.at as usize];
        for record in zip::directory(directory, end.offset.into(), end.members).unwrap_or_default() {
            let _ = (record.date(), record.mode(), record.telling_extra());
        }
    }
    let _ = zip::Local::parse(bytes, 0);
    if let Ok(elf) = elf::Elf::parse(bytes) {
        for section in &elf.sections {
            let _ = (elf.notes(section), elf.symbols(section), elf.packed(section), elf::Elf::debug_link(section));
        }
    }
    if let Ok(Some(masked)) = elf_build_id::masked(bytes) {
        assert_eq!(masked.len(), bytes.len());
    }
}

/// The beginnings of each format, so that more than the first check is reached.
const BEGINNINGS: [&[u8]; 9] = [
    b"\x1f\x8b\x08\x1f",
    b"\xde\x12\x04\x95\0\0\0\0",
    b"\x89PNG\r\n\x1a\n\0\0\0",
    b"\xfd7zXZ\0\0\x04",
    b"\x28\xb5\x2f\xfd",
    b"PK\x05\x06\0\0\0\0",
    b"PK\x03\x04",
    b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x03\0\x3e\0",
    b"\xa7\x0d\r\n",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_bytes_are_read_or_refused(
        begin in 0..BEGINNINGS.len() + 1,
        rest in proptest::collection::vec(prop_oneof![Just(0_u8), Just(1), Just(64), Just(0xff), any::<u8>()], 0..300),
    ) {
        let bytes = [BEGINNINGS.get(begin).copied().unwrap_or(&[]), &rest].concat();
        all(&bytes);
    }

    #[test]
    fn a_real_program_with_bytes_changed_is_read_or_refused(at in 0_usize..8192, value in any::<u8>(), end in 0_usize..8192) {
        let mut bytes = program();
        let at = at % bytes.len();
        bytes[at] = value;
        all(&bytes);
        bytes.truncate(end);
        all(&bytes);
    }

    #[test]
    fn any_text_is_trimmed_and_sorted_without_loss(text in "[a-z0-9 ();.\\-#\n]{0,200}", keep in 0_usize..5) {
        prop_assert!(changelog::entries(&changelog::newest(&text, keep)) <= keep);
        prop_assert_eq!(record::sorted(&text).lines().count(), text.lines().count().max(1));
    }
}

/// A small executable, made here: header, three sections with a note, a link and their names.
fn program() -> Vec<u8> {
    let note = [&4_u32.to_le_bytes()[..], &20_u32.to_le_bytes(), &3_u32.to_le_bytes(), b"GNU\0", &[7; 20]].concat();
    let names = b"\0.note.gnu.build-id\0.gnu_debuglink\0.shstrtab\0";
    let link = b"ab.debug\0\0\0\0crc.";
    let mut bytes = vec![0; 64];
    bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
    bytes[16] = 3;
    bytes[18] = 62;
    let mut headers = vec![[0_u8; 64]];
    for (name, kind, data) in [(1_u32, 7_u32, note.as_slice()), (20, 1, link), (35, 3, names)] {
        let mut header = [0; 64];
        header[..4].copy_from_slice(&name.to_le_bytes());
        header[4..8].copy_from_slice(&kind.to_le_bytes());
        header[24..32].copy_from_slice(&(bytes.len() as u64).to_le_bytes());
        header[32..40].copy_from_slice(&(data.len() as u64).to_le_bytes());
        headers.push(header);
        bytes.extend_from_slice(data);
    }
    let table = bytes.len() as u64;
    bytes[40..48].copy_from_slice(&table.to_le_bytes());
    bytes[58] = 64;
    bytes[60] = 4;
    bytes[62] = 3;
    headers.iter().for_each(|header| bytes.extend_from_slice(header));
    bytes
}

#[test]
fn the_program_that_is_changed_is_one_that_is_masked() {
    assert!(elf_build_id::masked(&program()).unwrap().is_some());
}
