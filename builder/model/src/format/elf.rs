//! ELF files as far as comparing needs them: sections, notes, symbols, links to debug information (gABI chapter 4).
//!
//! Borrows from the file, allocates by the number of sections and symbols only, and checks every offset. Read by hand: the
//! crates that do it read far more than is needed here, and what a normaliser masks must be found by rules that stand in
//! one place.

/// How an ELF file begins.
pub const MAGIC: &[u8; 4] = b"\x7fELF";

const SHT_SYMTAB: u32 = 2;
const SHT_NOTE: u32 = 7;
const SHT_NOBITS: u32 = 8;
const SHT_DYNSYM: u32 = 11;
const SHF_COMPRESSED: u64 = 1 << 11;
const NT_GNU_BUILD_ID: u32 = 3;

/// An ELF file.
#[derive(Debug, Clone)]
pub struct Elf<'a> {
    bytes: &'a [u8],
    wide: bool,
    big: bool,
    /// Type: 1 relocatable, 2 executable, 3 shared, 4 core.
    pub kind: u16,
    /// Machine: 62 for x86-64, 183 for AArch64.
    pub machine: u16,
    /// Processor-specific flags.
    pub flags: u32,
    /// Where it is entered.
    pub entry: u64,
    /// Its sections, the empty first one left out.
    pub sections: Vec<Section<'a>>,
    /// Ranges of the file that are not a section's: header, section table, program headers.
    pub tables: Vec<std::ops::Range<u64>>,
    /// Ranges of the file that are loaded when it is run.
    pub loaded: Vec<std::ops::Range<u64>>,
}

/// A section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section<'a> {
    /// Its name.
    pub name: &'a [u8],
    /// Its type.
    pub kind: u32,
    /// Its flags.
    pub flags: u64,
    /// Where it lies in memory.
    pub address: u64,
    /// Where it lies in the file.
    pub offset: u64,
    /// Bytes in memory; those in the file are `data`.
    pub size: u64,
    /// Section that it refers to.
    pub link: u32,
    /// Size of an entry, if it is a table.
    pub entry_size: u64,
    /// Its bytes; empty for one that takes no room in the file.
    pub data: &'a [u8],
}

/// A note.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Note<'a> {
    /// Who defined it, without the zero at its end.
    pub owner: &'a [u8],
    /// Its type, in its owner's numbers.
    pub kind: u32,
    /// What it says.
    pub text: &'a [u8],
    /// Where in the section `text` begins.
    pub offset: usize,
}

/// A symbol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Symbol<'a> {
    /// Its name.
    pub name: &'a [u8],
    /// Type and binding.
    pub info: u8,
    /// Index of its section.
    pub section: u16,
    /// Its value: an address, mostly.
    pub value: u64,
    /// Bytes that it names.
    pub size: u64,
}

/// Why bytes are not an ELF file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ElfError {
    /// It does not begin as one.
    #[error("no ELF file begins here")]
    Magic,
    /// Class or byte order that do not exist.
    #[error("neither 32 nor 64 bits wide, or of no known byte order")]
    Class,
    /// Something lies outside of the file.
    #[error("{what} lies outside of the file")]
    Outside {
        /// What.
        what: String,
    },
    /// A note that does not fit its section.
    #[error("a note does not fit its section")]
    Note,
}

impl<'a> Elf<'a> {
    /// Reads header and section table.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ElfError> {
        if !bytes.starts_with(MAGIC) {
            return Err(ElfError::Magic);
        }
        let (wide, big) = match (bytes.get(4), bytes.get(5)) {
            (Some(class @ (1 | 2)), Some(order @ (1 | 2))) => (*class == 2, *order == 2),
            _ => return Err(ElfError::Class),
        };
        let mut elf = Self {
            bytes,
            wide,
            big,
            kind: 0,
            machine: 0,
            flags: 0,
            entry: 0,
            sections: Vec::new(),
            tables: Vec::new(),
            loaded: Vec::new(),
        };
        let cut = || ElfError::Outside { what: "the header".into() };
        let header = |at32: usize, at64: usize| if wide { at64 } else { at32 };
        elf.kind = elf.u16(bytes, 16).ok_or_else(cut)?;
        elf.machine = elf.u16(bytes, 18).ok_or_else(cut)?;
        elf.entry = elf.word(bytes, 24).ok_or_else(cut)?;
        elf.flags = elf.u32(bytes, header(36, 48)).ok_or_else(cut)?;
        let table = elf.word(bytes, header(32, 40)).ok_or_else(cut)?;
        let size = usize::from(elf.u16(bytes, header(46, 58)).ok_or_else(cut)?);
        let count = usize::from(elf.u16(bytes, header(48, 60)).ok_or_else(cut)?);
        let names = usize::from(elf.u16(bytes, header(50, 62)).ok_or_else(cut)?);
        elf.segments()?;
        if table == 0 {
            return Ok(elf);
        }
        let outside = |what: &str| ElfError::Outside { what: what.into() };
        if size < header(40, 64) {
            return Err(outside("the section table"));
        }
        let begin = table;
        let table =
            usize::try_from(table).ok().and_then(|at| bytes.get(at..)).ok_or_else(|| outside("the section table"))?;
        let raw = |index: usize| table.get(index.checked_mul(size)?..)?.get(..size);
        // More than 65,279 sections: the first entry has the numbers (gABI, chapter 4, e_shnum and e_shstrndx).
        let first = raw(0).ok_or_else(|| outside("the section table"))?;
        let count = if count == 0 { elf.word(first, header(20, 32)).unwrap_or(0) as usize } else { count };
        let names = if names == 0xffff { elf.u32(first, header(24, 40)).unwrap_or(0) as usize } else { names };
        let section = |index: usize| {
            raw(index).and_then(|raw| elf.section(raw)).ok_or_else(|| outside(&format!("section {index}")))
        };
        let texts = if names == 0 { &[][..] } else { section(names)?.1.data };
        let mut sections = Vec::new();
        for index in 1..count.min(table.len() / size + 1) {
            let (name, section) = section(index)?;
            sections.push(Section {
                name: text_at(texts, name).ok_or_else(|| outside(&format!("the name of section {index}")))?,
                ..section
            });
        }
        elf.tables.push(begin..begin.saturating_add((size as u64).saturating_mul(count as u64)));
        elf.sections = sections;
        Ok(elf)
    }

    /// Reads the program headers, as far as they say what is loaded.
    fn segments(&mut self) -> Result<(), ElfError> {
        const PT_LOAD: u32 = 1;
        let outside = || ElfError::Outside { what: "the table of program headers".into() };
        let at = |at32: usize, at64: usize| if self.wide { at64 } else { at32 };
        let table = self.word(self.bytes, at(28, 32)).ok_or_else(outside)?;
        let size = usize::from(self.u16(self.bytes, at(42, 54)).ok_or_else(outside)?);
        let count = usize::from(self.u16(self.bytes, at(44, 56)).ok_or_else(outside)?);
        let header = at(52, 64) as u64;
        let mut loaded = Vec::new();
        let begin = usize::try_from(table).map_err(|_| outside())?;
        let raw = self.bytes.get(begin..).and_then(|rest| rest.get(..size * count)).ok_or_else(outside)?;
        for raw in raw.chunks_exact(size.max(1)) {
            if self.u32(raw, 0).ok_or_else(outside)? == PT_LOAD {
                let (offset, length) = (self.word(raw, at(4, 8)), self.word(raw, at(16, 32)));
                let (offset, length) = offset.zip(length).ok_or_else(outside)?;
                loaded.push(offset..offset.checked_add(length).ok_or_else(outside)?);
            }
        }
        self.tables = vec![0..header, table..table + (size * count) as u64];
        self.loaded = loaded;
        Ok(())
    }

    fn section(&self, raw: &[u8]) -> Option<(usize, Section<'a>)> {
        let at = |at32: usize, at64: usize| if self.wide { at64 } else { at32 };
        let kind = self.u32(raw, 4)?;
        let (offset, size) = (self.word(raw, at(16, 24))?, self.word(raw, at(20, 32))?);
        let data = if kind == SHT_NOBITS {
            &[][..]
        } else {
            self.bytes.get(usize::try_from(offset).ok()?..)?.get(..usize::try_from(size).ok()?)?
        };
        let section = Section {
            name: &[],
            kind,
            flags: self.word(raw, 8)?,
            address: self.word(raw, at(12, 16))?,
            offset,
            size,
            link: self.u32(raw, at(24, 40))?,
            entry_size: self.word(raw, at(36, 56))?,
            data,
        };
        Some((self.u32(raw, 0)? as usize, section))
    }

    /// The section of this name; the first, if there are several.
    pub fn named(&self, name: &str) -> Option<&Section<'a>> {
        self.sections.iter().find(|s| s.name == name.as_bytes())
    }

    /// The build id, if there is one.
    pub fn build_id(&self) -> Option<&'a [u8]> {
        self.named(".note.gnu.build-id").and_then(|s| build_id(&self.notes(s).ok()?))
    }

    /// The notes of a section.
    pub fn notes(&self, section: &Section<'a>) -> Result<Vec<Note<'a>>, ElfError> {
        let mut notes = Vec::new();
        let mut at = 0;
        if section.kind != SHT_NOTE {
            return Ok(notes);
        }
        while at < section.data.len() {
            let rest = &section.data[at..];
            let number = |at: usize| self.u32(rest, at).map(|n| n as usize).ok_or(ElfError::Note);
            let (owner, text) = (number(0)?, number(4)?);
            let padded = |n: usize| n.checked_next_multiple_of(4).ok_or(ElfError::Note);
            let begin = 12_usize.checked_add(padded(owner)?).ok_or(ElfError::Note)?;
            let name = rest.get(12..).and_then(|r| r.get(..owner)).ok_or(ElfError::Note)?;
            let said = rest.get(begin..).and_then(|r| r.get(..text)).ok_or(ElfError::Note)?;
            let owner = name.strip_suffix(b"\0").unwrap_or(name);
            notes.push(Note { owner, kind: self.u32(rest, 8).ok_or(ElfError::Note)?, text: said, offset: at + begin });
            at = at.checked_add(begin).and_then(|a| a.checked_add(padded(text).ok()?)).ok_or(ElfError::Note)?;
        }
        Ok(notes)
    }

    /// The symbols of a table of symbols; empty for any other section, or one that is cut short.
    pub fn symbols(&self, section: &Section<'a>) -> Vec<Symbol<'a>> {
        let size = if self.wide { 24 } else { 16 };
        if !matches!(section.kind, SHT_SYMTAB | SHT_DYNSYM) {
            return Vec::new();
        }
        let texts =
            (section.link as usize).checked_sub(1).and_then(|i| self.sections.get(i)).map_or(&[][..], |s| s.data);
        let symbol = |raw: &'a [u8]| -> Option<Symbol<'a>> {
            let at = |at32: usize, at64: usize| if self.wide { at64 } else { at32 };
            Some(Symbol {
                name: text_at(texts, self.u32(raw, 0)? as usize)?,
                info: *raw.get(at(12, 4))?,
                section: self.u16(raw, at(14, 6))?,
                value: self.word(raw, at(4, 8))?,
                size: self.word(raw, at(8, 16))?,
            })
        };
        section.data.chunks_exact(size).map_while(symbol).collect()
    }

    /// Whether a section is a table of symbols.
    pub fn is_symbols(section: &Section<'_>) -> bool {
        matches!(section.kind, SHT_SYMTAB | SHT_DYNSYM)
    }

    /// Whether a section is of notes.
    pub fn is_notes(section: &Section<'_>) -> bool {
        section.kind == SHT_NOTE
    }

    /// How a section is compressed (1 zlib, 2 zstd), how large it is unpacked, and its packed bytes.
    pub fn packed(&self, section: &Section<'a>) -> Option<(u32, u64, &'a [u8])> {
        if section.flags & SHF_COMPRESSED == 0 {
            return None;
        }
        let (size, data) = if self.wide { (8, 24) } else { (4, 12) };
        Some((self.u32(section.data, 0)?, self.word(section.data, size)?, section.data.get(data..)?))
    }

    /// A debug link: the name of a file and its CRC-32 (`.gnu_debuglink`), or the name and a build id (`.gnu_debugaltlink`).
    pub fn debug_link(section: &Section<'a>) -> Option<(&'a [u8], &'a [u8])> {
        let end = memchr::memchr(0, section.data)?;
        let rest = &section.data[end + 1..];
        let padding = if section.name == b".gnu_debuglink" { (end + 1).next_multiple_of(4) - end - 1 } else { 0 };
        Some((&section.data[..end], rest.get(padding..)?))
    }

    fn u16(&self, bytes: &[u8], at: usize) -> Option<u16> {
        let raw = *bytes.get(at..)?.first_chunk()?;
        Some(if self.big { u16::from_be_bytes(raw) } else { u16::from_le_bytes(raw) })
    }

    fn u32(&self, bytes: &[u8], at: usize) -> Option<u32> {
        let raw = *bytes.get(at..)?.first_chunk()?;
        Some(if self.big { u32::from_be_bytes(raw) } else { u32::from_le_bytes(raw) })
    }

    /// A number of the file's width.
    fn word(&self, bytes: &[u8], at: usize) -> Option<u64> {
        if !self.wide {
            return self.u32(bytes, at).map(u64::from);
        }
        let raw = *bytes.get(at..)?.first_chunk()?;
        Some(if self.big { u64::from_be_bytes(raw) } else { u64::from_le_bytes(raw) })
    }
}

/// The build id among these notes.
pub fn build_id<'a>(notes: &[Note<'a>]) -> Option<&'a [u8]> {
    notes.iter().find(|n| n.owner == b"GNU" && n.kind == NT_GNU_BUILD_ID).map(|n| n.text)
}

fn text_at(texts: &[u8], at: usize) -> Option<&[u8]> {
    let rest = texts.get(at..)?;
    if texts.is_empty() && at == 0 {
        return Some(rest);
    }
    memchr::memchr(0, rest).map(|end| &rest[..end])
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A 64-bit little-endian file that has just these sections, of the given type.
    pub(crate) fn made(sections: &[(&str, u32, &[u8])]) -> Vec<u8> {
        let mut bytes = vec![0; 64];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        bytes[16..18].copy_from_slice(&3_u16.to_le_bytes());
        bytes[18..20].copy_from_slice(&62_u16.to_le_bytes());
        let mut names = vec![0];
        let mut headers = vec![[0_u8; 64]];
        let mut texts: Vec<(&str, u32, Vec<u8>)> = sections.iter().map(|&(n, k, d)| (n, k, d.to_vec())).collect();
        texts.push((".shstrtab", 3, Vec::new()));
        let all: Vec<u8> = texts.iter().flat_map(|(n, _, _)| [n.as_bytes(), b"\0"].concat()).collect();
        texts.last_mut().unwrap().2 = [&[0][..], &all].concat();
        for (name, kind, data) in &texts {
            let mut header = [0; 64];
            header[..4].copy_from_slice(&(names.len() as u32).to_le_bytes());
            header[4..8].copy_from_slice(&kind.to_le_bytes());
            header[24..32].copy_from_slice(&(bytes.len() as u64).to_le_bytes());
            header[32..40].copy_from_slice(&(data.len() as u64).to_le_bytes());
            headers.push(header);
            names.extend_from_slice(name.as_bytes());
            names.push(0);
            bytes.extend_from_slice(data);
        }
        let table = bytes.len() as u64;
        bytes[40..48].copy_from_slice(&table.to_le_bytes());
        bytes[58..60].copy_from_slice(&64_u16.to_le_bytes());
        bytes[60..62].copy_from_slice(&(headers.len() as u16).to_le_bytes());
        bytes[62..64].copy_from_slice(&(headers.len() as u16 - 1).to_le_bytes());
        headers.iter().for_each(|header| bytes.extend_from_slice(header));
        bytes
    }

    /// A note of GNU with this build id.
    pub(crate) fn build_id_note(id: &[u8]) -> Vec<u8> {
        [&4_u32.to_le_bytes(), &(id.len() as u32).to_le_bytes(), &3_u32.to_le_bytes(), &b"GNU\0"[..], id].concat()
    }

    #[test]
    fn sections_notes_and_links_are_found() {
        let note = build_id_note(&[7; 20]);
        let bytes = made(&[
            (".note.gnu.build-id", 7, &note),
            (".text", 1, b"code"),
            (".gnu_debuglink", 1, b"ab\0\0\x01\x02\x03\x04"),
        ]);
        let elf = Elf::parse(&bytes).unwrap();
        assert_eq!((elf.kind, elf.machine, elf.sections.len()), (3, 62, 4));
        assert_eq!(elf.build_id(), Some(&[7; 20][..]));
        assert_eq!(elf.named(".text").unwrap().data, b"code");
        let link = Elf::debug_link(elf.named(".gnu_debuglink").unwrap());
        assert_eq!(link, Some((&b"ab"[..], &b"\x01\x02\x03\x04"[..])));
    }

    #[test]
    fn what_lies_outside_of_the_file_is_refused() {
        let bytes = made(&[(".text", 1, b"code")]);
        for end in 4..bytes.len() {
            assert!(Elf::parse(&bytes[..end]).is_err(), "{end}");
        }
        let mut wild = bytes.clone();
        let table = bytes.len() - 64 * 2;
        wild[table + 24] = 0xff;
        wild[table + 31] = 0xff;
        assert!(matches!(Elf::parse(&wild), Err(ElfError::Outside { .. })));
        assert_eq!(Elf::parse(b"\x7fELF\x03\x01").map(|_| ()), Err(ElfError::Class));
        let note = build_id_note(&[7; 20]);
        let cut = made(&[(".note.gnu.build-id", 7, &note[..20])]);
        let elf = Elf::parse(&cut).unwrap();
        assert_eq!(elf.notes(elf.named(".note.gnu.build-id").unwrap()), Err(ElfError::Note));
    }
}
