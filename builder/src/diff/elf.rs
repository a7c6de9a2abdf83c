//! Two ELF files, section by section: code by symbol and offset, texts, notes, links, symbols, debug information.
//!
//! Debug information is read by its tables of texts (`.debug_str`, `.debug_line_str`): compilers, options and directories
//! stand there in any version of DWARF, also in objects whose relocations have not been applied.

use std::collections::{BTreeMap, BTreeSet};

use data_encoding::HEXLOWER;
use kiln_model::format::elf::{Elf, Section, Symbol};
use kiln_model::normalise::{Normaliser, elf_build_id};
use kiln_model::report::{Aspect, Detail};

use super::binary;
use super::limits::Limits;
use super::unpack::{self, Budget};

/// Examples of texts or symbols that only one side has.
const EXAMPLES: usize = 4;

/// What differs between two ELF files; `None` if one of them cannot be read as one, with the reason.
pub(super) fn compare(
    place: &str,
    first: &[u8],
    second: &[u8],
    limits: &Limits,
    budget: &Budget,
) -> Result<Vec<Detail>, String> {
    let (a, b) = (Elf::parse(first).map_err(|e| e.to_string())?, Elf::parse(second).map_err(|e| e.to_string())?);
    let mut details = header(place, &a, &b);
    let pairs = sections(place, &a, &b, &mut details);
    let mut following = Vec::new();
    for (ours, theirs) in pairs.iter().filter(|(x, y)| x.data != y.data || x.size != y.size) {
        if follows(ours.name) {
            following.push((ours, theirs));
        } else {
            details.extend(contents(&inner(place, ours), (&a, ours), (&b, theirs), limits, budget));
        }
    }
    let telling = details.iter().any(|d| d.normaliser.is_none());
    match following.as_slice() {
        [] => {}
        // What was said says why these differ; by themselves they are all there is to say.
        some if telling => {
            let names: Vec<_> = some.iter().map(|(section, _)| String::from_utf8_lossy(section.name)).collect();
            let says =
                format!("{} more sections differ, as tables do when others change: {}", some.len(), names.join(", "));
            details.push(Detail::new(place, Aspect::Section, says));
        }
        some => {
            for (ours, theirs) in some {
                details.extend(contents(&inner(place, ours), (&a, ours), (&b, theirs), limits, budget));
            }
        }
    }
    let masked = |bytes| elf_build_id::masked(bytes).ok().flatten();
    let covered = |detail: &Detail| detail.normaliser == Some(Normaliser::ElfBuildId);
    if details.iter().all(covered) {
        let (ours, theirs) = (masked(first), masked(second));
        let (ours, theirs) = (ours.as_deref().unwrap_or(first), theirs.as_deref().unwrap_or(second));
        if ours != theirs {
            let moved = pairs.iter().filter(|(x, y)| x.address != y.address).count();
            if moved > 0 {
                let says = format!("{moved} sections lie at other addresses");
                details.push(Detail::new(place, Aspect::Header, says));
            }
            let mut rest = binary::slices(place, ours, theirs);
            rest.says = format!("outside of what sections hold, or in their headers: {}", rest.says);
            details.push(rest);
        }
    }
    Ok(details)
}

/// Whether a section is a table that is made of what other sections hold.
fn follows(name: &[u8]) -> bool {
    const BEGINNINGS: [&[u8]; 13] = [
        b".rel",
        b".gnu.hash",
        b".hash",
        b".gnu.version",
        b".eh_frame",
        b".dynamic",
        b".got",
        b".plt",
        b".strtab",
        b".shstrtab",
        b".gcc_except_table",
        b".debug_aranges",
        b".debug_frame",
    ];
    BEGINNINGS.iter().any(|begin| name.starts_with(begin))
}

fn inner(place: &str, section: &Section<'_>) -> String {
    super::member::inner(place, section.name)
}

fn header(place: &str, a: &Elf<'_>, b: &Elf<'_>) -> Vec<Detail> {
    let fields = [
        ("type", u64::from(a.kind), u64::from(b.kind)),
        ("machine", u64::from(a.machine), u64::from(b.machine)),
        ("flags", u64::from(a.flags), u64::from(b.flags)),
    ];
    let differs = fields.into_iter().filter(|(_, x, y)| x != y);
    differs
        .map(|(name, x, y)| {
            Detail::new(place, Aspect::Header, format!("{name} in the ELF header: {x} and {y}"))
                .between(x.to_string(), y.to_string())
        })
        .collect()
}

/// Sections of both files, paired by name; what only one has, and another order, are details.
fn sections<'e, 'a>(
    place: &str,
    a: &'e Elf<'a>,
    b: &'e Elf<'a>,
    details: &mut Vec<Detail>,
) -> Vec<(&'e Section<'a>, &'e Section<'a>)> {
    let numbered = |elf: &'e Elf<'a>| -> BTreeMap<(&'a [u8], usize), usize> {
        let mut count: BTreeMap<&[u8], usize> = BTreeMap::new();
        let mut all = BTreeMap::new();
        for (index, section) in elf.sections.iter().enumerate() {
            let before = count.entry(section.name).or_default();
            all.insert((section.name, *before), index);
            *before += 1;
        }
        all
    };
    let (ours, theirs) = (numbered(a), numbered(b));
    for (side, other, elf, kind, which) in
        [(&ours, &theirs, a, Aspect::OnlyInFirst, "first"), (&theirs, &ours, b, Aspect::OnlyInSecond, "second")]
    {
        for (_, &index) in side.iter().filter(|(key, _)| !other.contains_key(*key)) {
            let section = &elf.sections[index];
            let says = format!("this section of {} bytes is only in the {which}", section.size);
            details.push(Detail::new(inner(place, section), kind, says));
        }
    }
    let mut pairs: Vec<(usize, usize)> = ours.iter().filter_map(|(key, &i)| theirs.get(key).map(|&j| (i, j))).collect();
    pairs.sort_unstable();
    if !pairs.is_sorted_by_key(|&(_, j)| j) {
        details.push(Detail::new(place, Aspect::Order, "sections stand in another order"));
    }
    pairs.into_iter().map(|(i, j)| (&a.sections[i], &b.sections[j])).collect()
}

type Side<'e, 'a> = (&'e Elf<'a>, &'e Section<'a>);

fn contents(place: &str, first: Side<'_, '_>, second: Side<'_, '_>, limits: &Limits, budget: &Budget) -> Vec<Detail> {
    let ((a, ours), (b, theirs)) = (first, second);
    match ours.name {
        b".note.gnu.build-id" => return vec![build_id(place, first, second)],
        b".gnu_debuglink" | b".gnu_debugaltlink" => return vec![debug_link(place, ours, theirs)],
        b".comment" => return texts(place, Aspect::DebugInfo, "", ours.data, theirs.data),
        b".dynstr" => return texts(place, Aspect::Symbol, "", ours.data, theirs.data),
        b".strtab" | b".shstrtab" => {
            return vec![Detail::new(place, Aspect::Section, sizes("a table of names", ours, theirs))];
        }
        _ => {}
    }
    if Elf::is_notes(ours) && Elf::is_notes(theirs) {
        return vec![notes(place, first, second)];
    }
    if Elf::is_symbols(ours) && Elf::is_symbols(theirs) {
        return vec![symbols(place, &a.symbols(ours), &b.symbols(theirs))];
    }
    if ours.data.is_empty() && theirs.data.is_empty() {
        return vec![Detail::new(place, Aspect::Section, sizes("a section without bytes in the file", ours, theirs))];
    }
    let unpacked = |elf: &Elf<'_>, section: &Section<'_>| -> Option<Vec<u8>> {
        match elf.packed(section)? {
            (1, size, packed) if size <= limits.parsed => {
                let blob = unpack::zlib(packed, limits, budget).ok().filter(|blob| blob.len() == size)?;
                Some(blob.bytes().ok()?.into_owned())
            }
            (2, size, packed) if size <= limits.parsed => zstd::bulk::decompress(packed, size as usize).ok(),
            _ => None,
        }
    };
    let (plain, other) = (unpacked(a, ours), unpacked(b, theirs));
    if let (Some(x), Some(y)) = (&plain, &other)
        && x == y
    {
        return vec![Detail::new(place, Aspect::Compression, "the same bytes, compressed otherwise")];
    }
    let (x, y) = (plain.as_deref().unwrap_or(ours.data), other.as_deref().unwrap_or(theirs.data));
    match ours.name {
        b".debug_str" | b".debug_line_str" if x.len().max(y.len()) as u64 <= limits.taken_apart => {
            texts(place, Aspect::DebugInfo, "", x, y)
        }
        name if name.starts_with(b".debug_") => vec![as_section(binary::slices(place, x, y), Aspect::DebugInfo, "")],
        _ => vec![as_section(binary::slices(place, x, y), Aspect::Section, &around(a, ours, x, y))],
    }
}

/// Bytes of a section: a text stays one.
fn as_section(mut detail: Detail, aspect: Aspect, suffix: &str) -> Detail {
    if detail.kind == Aspect::Content {
        detail.kind = aspect;
    }
    detail.says.push_str(suffix);
    detail
}

/// Which symbol the first byte that differs belongs to.
fn around(elf: &Elf<'_>, section: &Section<'_>, x: &[u8], y: &[u8]) -> String {
    let offset = x.iter().zip(y).take_while(|(a, b)| a == b).count() as u64;
    let relocatable = elf.kind == 1;
    let index = elf.sections.iter().position(|s| std::ptr::eq(s, section)).map_or(0, |i| i + 1);
    let at = if relocatable { offset } else { section.address.saturating_add(offset) };
    let holds = |symbol: &&Symbol<'_>| {
        usize::from(symbol.section) == index
            && !symbol.name.is_empty()
            && symbol.size > 0
            && (symbol.value..symbol.value.saturating_add(symbol.size)).contains(&at)
    };
    let tables = elf.sections.iter().filter(|s| Elf::is_symbols(s));
    let found = tables.flat_map(|table| elf.symbols(table)).filter(|s| holds(&s)).min_by_key(|s| s.size);
    found.map_or_else(String::new, |symbol| {
        format!(" (in {} + {:#x})", String::from_utf8_lossy(symbol.name), at - symbol.value)
    })
}

fn sizes(what: &str, ours: &Section<'_>, theirs: &Section<'_>) -> String {
    format!("{what}, of {} and {} bytes", ours.size, theirs.size)
}

fn build_id(place: &str, (a, _): Side<'_, '_>, (b, _): Side<'_, '_>) -> Detail {
    let id = |elf: &Elf<'_>| elf.build_id().map_or("none".into(), |id| HEXLOWER.encode(id));
    let detail = Detail::new(place, Aspect::BuildId, format!("build id {} and {}", id(a), id(b)));
    detail.between(id(a), id(b)).under(Normaliser::ElfBuildId)
}

fn debug_link(place: &str, ours: &Section<'_>, theirs: &Section<'_>) -> Detail {
    let text = |section: &Section<'_>| {
        Elf::debug_link(section).map_or("malformed".into(), |(name, id)| {
            format!("{} {}", String::from_utf8_lossy(name), HEXLOWER.encode(id))
        })
    };
    let (x, y) = (text(ours), text(theirs));
    let says = format!("link to debug information: {x} and {y}");
    Detail::new(place, Aspect::DebugLink, says).between(x, y).under(Normaliser::ElfBuildId)
}

fn notes(place: &str, (a, ours): Side<'_, '_>, (b, theirs): Side<'_, '_>) -> Detail {
    let all = |elf: &Elf<'_>, section: &Section<'_>| -> Vec<String> {
        let notes = elf.notes(section).unwrap_or_default();
        let text = |n: &kiln_model::format::elf::Note<'_>| {
            format!("{} type {:#x} {}", String::from_utf8_lossy(n.owner), n.kind, HEXLOWER.encode(n.text))
        };
        notes.iter().map(text).collect()
    };
    let (x, y) = (all(a, ours).join("; "), all(b, theirs).join("; "));
    Detail::new(place, Aspect::Note, format!("notes: {x} and {y}")).between(x, y)
}

/// Texts, each ended by a zero, that only one table has.
fn texts(place: &str, aspect: Aspect, what: &str, first: &[u8], second: &[u8]) -> Vec<Detail> {
    let all = |table: &'_ [u8]| -> BTreeSet<String> {
        table.split(|&b| b == 0).filter(|t| !t.is_empty()).map(|t| String::from_utf8_lossy(t).into_owned()).collect()
    };
    let (ours, theirs) = (all(first), all(second));
    let only = |x: &BTreeSet<String>, y: &BTreeSet<String>| -> Vec<String> { x.difference(y).cloned().collect() };
    let (mine, other) = (only(&ours, &theirs), only(&theirs, &ours));
    if mine.is_empty() && other.is_empty() {
        return vec![Detail::new(place, Aspect::Order, "the same texts in another order")];
    }
    // One on each side stand for each other; else the telling ones are compared among their kind.
    if let ([x], [y]) = (mine.as_slice(), other.as_slice()) {
        return vec![Detail::new(place, aspect, format!("{}{x:?} and {y:?}", kind_of(x, what))).between(x, y)];
    }
    let mut details = Vec::new();
    for word in ["compiler ", "directory "] {
        let telling = |texts: &[String]| texts.iter().filter(|t| kind_of(t, what) == word).cloned().collect::<Vec<_>>();
        let (x, y) = (telling(&mine), telling(&other));
        if let (Some(x), Some(y)) = (x.first(), y.first()) {
            details.push(Detail::new(place, aspect, format!("{word}{x:?} and {y:?}")).between(x, y));
        }
    }
    let examples = |texts: &[String]| {
        let shown: Vec<String> = texts.iter().take(EXAMPLES).map(|t| format!("{t:?}")).collect();
        format!("{}{}", shown.join(", "), if texts.len() > EXAMPLES { ", …" } else { "" })
    };
    let says = match (mine.len(), other.len()) {
        (n, 0) => format!("{n} texts only in the first: {}", examples(&mine)),
        (0, n) => format!("{n} texts only in the second: {}", examples(&other)),
        (n, m) => {
            format!("{n} texts only in the first ({}), {m} only in the second ({})", examples(&mine), examples(&other))
        }
    };
    details.push(Detail::new(place, aspect, says).between(mine.join("\n"), other.join("\n")));
    details
}

/// What a text of debug information is, as a word before it.
fn kind_of<'a>(text: &str, otherwise: &'a str) -> &'a str {
    const COMPILERS: [&str; 8] =
        ["GNU ", "GCC: ", "clang ", "rustc ", "Go cmd/compile", "Debian clang", "ghc ", "LLVM "];
    if COMPILERS.iter().any(|c| text.starts_with(c)) || text.contains("clang version") {
        "compiler "
    } else if text.starts_with('/') {
        "directory "
    } else {
        otherwise
    }
}

fn symbols(place: &str, first: &[Symbol<'_>], second: &[Symbol<'_>]) -> Detail {
    let names = |symbols: &[Symbol<'_>]| -> BTreeMap<Vec<u8>, usize> {
        let mut all = BTreeMap::new();
        symbols.iter().for_each(|s| *all.entry(s.name.to_vec()).or_default() += 1);
        all
    };
    let (ours, theirs) = (names(first), names(second));
    let only = |x: &BTreeMap<Vec<u8>, usize>, y: &BTreeMap<Vec<u8>, usize>| -> Vec<String> {
        let more = x.iter().filter(|(name, count)| y.get(*name).unwrap_or(&0) < count);
        more.map(|(name, _)| String::from_utf8_lossy(name).into_owned()).collect()
    };
    let (mine, other) = (only(&ours, &theirs), only(&theirs, &ours));
    let examples = |names: &[String]| {
        let shown: Vec<&str> = names.iter().take(EXAMPLES).map(String::as_str).collect();
        format!("{}{}", shown.join(", "), if names.len() > EXAMPLES { ", …" } else { "" })
    };
    let says = match (mine.len(), other.len()) {
        (0, 0) => {
            let differs = first.iter().zip(second).filter(|(x, y)| x != y).collect::<Vec<_>>();
            let order = first.iter().zip(second).any(|(x, y)| x.name != y.name);
            match differs.first() {
                _ if order => "the same symbols in another order".into(),
                Some((one, _)) => {
                    let name = String::from_utf8_lossy(one.name);
                    format!("values of {} of {} symbols, the first {name:?}", differs.len(), first.len())
                }
                None => "the same symbols; their names stand elsewhere in the table of texts".into(),
            }
        }
        (n, 0) => format!("{n} symbols only in the first: {}", examples(&mine)),
        (0, n) => format!("{n} symbols only in the second: {}", examples(&other)),
        (n, m) => format!(
            "{n} symbols only in the first ({}), {m} only in the second ({})",
            examples(&mine),
            examples(&other)
        ),
    };
    Detail::new(place, Aspect::Symbol, says)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_of_symbols_say_what_differs_in_them_and_never_of_none() {
        let symbol = |name: &'static [u8], value| Symbol { name, info: 0, section: 1, value, size: 8 };
        let table = [symbol(b"main", 1), symbol(b"usage", 2)];
        let says = |other: &[Symbol<'_>]| symbols(".dynsym", &table, other).says;
        assert_eq!(says(&[symbol(b"usage", 2), symbol(b"main", 1)]), "the same symbols in another order");
        assert_eq!(says(&[symbol(b"main", 1), symbol(b"usage", 3)]), "values of 1 of 2 symbols, the first \"usage\"");
        assert_eq!(says(&table), "the same symbols; their names stand elsewhere in the table of texts");
        assert_eq!(says(&table[..1]), "1 symbols only in the first: usage");
    }
}
