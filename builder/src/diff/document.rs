//! Files whose parts have names: control files, lists of checksums, JSON, catalogues, images, byte-compiled modules.
//!
//! Each function says what differs in its parts, or nothing if a side is not of its format or no part differs: then the
//! files are compared as text or bytes.

use std::collections::{BTreeMap, BTreeSet};

use data_encoding::HEXLOWER;
use kiln_model::format::pyc::{Header, LENGTH, Source};
use kiln_model::format::{gettext, png};
use kiln_model::report::{Aspect, Detail};
use serde_json::Value;

use super::binary;
use super::limits::Limits;
use super::unpack::{self, Budget};

/// Parts of one document that are told one by one.
const PARTS: usize = 40;

/// Fields of a control file (deb-control(5)): the first stanza.
pub(super) fn control(place: &str, first: &str, second: &str) -> Option<Vec<Detail>> {
    let fields = |text: &str| -> Option<BTreeMap<String, String>> {
        let mut all: BTreeMap<String, String> = BTreeMap::new();
        let mut last: Option<String> = None;
        for line in text.lines().filter(|line| !line.is_empty()) {
            if line.starts_with([' ', '\t']) {
                let value = all.get_mut(last.as_ref()?)?;
                value.push('\n');
                value.push_str(line.trim());
                continue;
            }
            let (name, value) = line.split_once(':')?;
            // A field that stands twice is no control file's: the text is compared instead.
            if all.insert(name.to_owned(), value.trim().to_owned()).is_some() {
                return None;
            }
            last = Some(name.to_owned());
        }
        Some(all)
    };
    let (a, b) = (fields(first)?, fields(second)?);
    let mut details = Vec::new();
    let names: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
    for name in names {
        let (x, y) = (a.get(name), b.get(name));
        if x == y {
            continue;
        }
        let place = super::member::inner(place, name.as_bytes());
        details.push(match (x, y) {
            // What a package installs follows from its members.
            (Some(x), Some(y)) if name == "Installed-Size" => {
                Detail::new(place, Aspect::Checksum, format!("installed size: {x} and {y} KiB")).between(x, y)
            }
            (Some(x), Some(y)) => changed(place, name, x, y),
            (x, _) => {
                let which = if x.is_some() { "first" } else { "second" };
                let value = x.or(y).map(String::as_str).unwrap_or_default();
                let kind = if x.is_some() { Aspect::OnlyInFirst } else { Aspect::OnlyInSecond };
                Detail::new(place, kind, format!("field {name} is only in the {which}: {value}"))
            }
        });
    }
    Some(details).filter(|d| !d.is_empty())
}

/// What differs in a field; of a list, only the items that do.
fn changed(place: String, name: &str, x: &str, y: &str) -> Detail {
    let items = |text: &str| -> Vec<String> { text.split(',').map(|i| i.trim().to_owned()).collect() };
    let (a, b) = (items(x), items(y));
    if a.len() < 2 && b.len() < 2 {
        return Detail::new(place, Aspect::Value, format!("{name}: {x:?} and {y:?}")).between(x, y);
    }
    let only = |a: &[String], b: &[String]| a.iter().filter(|i| !b.contains(i)).cloned().collect::<Vec<_>>().join(", ");
    let (mine, other) = (only(&a, &b), only(&b, &a));
    if mine.is_empty() && other.is_empty() {
        return Detail::new(place, Aspect::Order, format!("{name}: the same items in another order")).between(x, y);
    }
    Detail::new(place, Aspect::Value, format!("{name}: {mine:?} and {other:?}")).between(mine, other)
}

/// Lists of checksums: `md5sums` of a package, `RECORD` of a wheel. `split` takes a line apart into name and rest.
pub(super) fn checksums(
    place: &str,
    first: &str,
    second: &str,
    split: impl Fn(&str) -> Option<(&str, &str)>,
) -> Option<Detail> {
    let read = |text: &str| -> Option<BTreeMap<String, String>> {
        let mut all = BTreeMap::new();
        for line in text.lines() {
            let (name, rest) = split(line)?;
            if all.insert(name.to_owned(), rest.to_owned()).is_some() {
                return None;
            }
        }
        Some(all)
    };
    let (a, b) = (read(first)?, read(second)?);
    let names: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
    let differing: Vec<&str> = names.into_iter().filter(|n| a.get(*n) != b.get(*n)).map(String::as_str).collect();
    if differing.is_empty() {
        return None;
    }
    let shown = differing.iter().take(4).copied().collect::<Vec<_>>().join(", ");
    let more = if differing.len() > 4 { ", …" } else { "" };
    let says = format!("checksums of {} of {} files: {shown}{more}", differing.len(), a.len().max(b.len()));
    Some(Detail::new(place, Aspect::Checksum, says))
}

/// A line of `md5sums`.
pub(super) fn md5sums_line(line: &str) -> Option<(&str, &str)> {
    line.split_once("  ").map(|(sum, name)| (name, sum))
}

/// A line of `RECORD`.
pub(super) fn record_line(line: &str) -> Option<(&str, &str)> {
    let (rest, _) = line.rsplit_once(',')?;
    let (name, _) = rest.rsplit_once(',')?;
    Some((name, &line[name.len() + 1..]))
}

/// JSON by its structure.
pub(super) fn json(place: &str, first: &str, second: &str) -> Option<Vec<Detail>> {
    let (a, b): (Value, Value) = (serde_json::from_str(first).ok()?, serde_json::from_str(second).ok()?);
    if !(a.is_object() || a.is_array()) {
        return None;
    }
    let mut details = Vec::new();
    if a == b {
        details.push(Detail::new(
            place,
            Aspect::Order,
            "the same JSON, written otherwise: order of keys, or white space",
        ));
        return Some(details);
    }
    let mut more = 0;
    values(place, &mut String::new(), &a, &b, &mut details, &mut more);
    if more > 0 {
        details.push(Detail::new(place, Aspect::Value, format!("and {more} more values of this document")));
    }
    Some(details)
}

fn values(place: &str, path: &mut String, a: &Value, b: &Value, details: &mut Vec<Detail>, more: &mut usize) {
    if a == b {
        return;
    }
    let mut add = |path: &str, kind: Aspect, says: String| {
        if details.len() < PARTS {
            details.push(Detail::new(super::member::inner(place, path.as_bytes()), kind, says));
        } else {
            *more += 1;
        }
    };
    match (a, b) {
        (Value::Object(x), Value::Object(y)) => {
            let keys: BTreeSet<&String> = x.keys().chain(y.keys()).collect();
            for key in keys {
                let length = path.len();
                if !path.is_empty() {
                    path.push('.');
                }
                path.push_str(key);
                match (x.get(key), y.get(key)) {
                    (Some(p), Some(q)) => values(place, path, p, q, details, more),
                    (p, q) => one_sided(place, path, p, q, details, more),
                }
                path.truncate(length);
            }
        }
        (Value::Array(x), Value::Array(y)) => {
            let sorted = |all: &[Value]| {
                let mut texts: Vec<String> = all.iter().map(Value::to_string).collect();
                texts.sort_unstable();
                texts
            };
            if x.len() == y.len() && sorted(x) == sorted(y) {
                return add(path, Aspect::Order, format!("the same {} items in another order", x.len()));
            }
            for index in 0..x.len().max(y.len()) {
                let length = path.len();
                path.push_str(&format!("[{index}]"));
                match (x.get(index), y.get(index)) {
                    (Some(p), Some(q)) => values(place, path, p, q, details, more),
                    (p, q) => one_sided(place, path, p, q, details, more),
                }
                path.truncate(length);
            }
        }
        (x, y) => {
            let (x, y) = (x.to_string(), y.to_string());
            add(path, Aspect::Value, format!("{x} and {y}"));
            if let Some(last) = details.last_mut().filter(|_| *more == 0) {
                *last = last.clone().between(x, y);
            }
        }
    }
}

fn one_sided(
    place: &str,
    path: &str,
    p: Option<&Value>,
    q: Option<&Value>,
    details: &mut Vec<Detail>,
    more: &mut usize,
) {
    if details.len() >= PARTS {
        *more += 1;
        return;
    }
    let (kind, which) = if p.is_some() { (Aspect::OnlyInFirst, "first") } else { (Aspect::OnlyInSecond, "second") };
    let value = p.or(q).map(Value::to_string).unwrap_or_default();
    details.push(Detail::new(
        super::member::inner(place, path.as_bytes()),
        kind,
        format!("only in the {which}: {value}"),
    ));
}

/// Message catalogues by their messages.
pub(super) fn catalogue(place: &str, first: &[u8], second: &[u8]) -> Option<Vec<Detail>> {
    let (a, b) = (gettext::messages(first).ok()?, gettext::messages(second).ok()?);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if a == b {
        return Some(vec![Detail::new(place, Aspect::Header, "the same messages, laid out otherwise")]);
    }
    let mut details = Vec::new();
    let (x, y) = (a.get(&b""[..]).copied().map(text), b.get(&b""[..]).copied().map(text));
    if let (Some(x), Some(y)) = (&x, &y) {
        // The header of a catalogue is written as fields.
        details.extend(control(place, x, y).unwrap_or_default());
    }
    let keys: BTreeSet<&[u8]> = a.keys().chain(b.keys()).copied().filter(|k| !k.is_empty()).collect();
    let differing: Vec<&[u8]> = keys.into_iter().filter(|k| a.get(k) != b.get(k)).collect();
    for key in differing.iter().take(PARTS) {
        let place = super::member::inner(place, text(key).replace(['\n', '\0'], " ").as_bytes());
        details.push(match (a.get(key), b.get(key)) {
            (Some(x), Some(y)) => {
                Detail::new(place, Aspect::Value, format!("translated {:?} and {:?}", text(x), text(y)))
                    .between(text(x), text(y))
            }
            (Some(_), None) => Detail::new(place, Aspect::OnlyInFirst, "this message is only in the first"),
            (None, _) => Detail::new(place, Aspect::OnlyInSecond, "this message is only in the second"),
        });
    }
    if differing.len() > PARTS {
        details.push(Detail::new(place, Aspect::Value, format!("and {} more messages", differing.len() - PARTS)));
    }
    Some(details).filter(|d| !d.is_empty())
}

/// A chunk without pixels: its bytes, its name, and what it says.
type Other = (Vec<u8>, String, Option<String>);

/// Images by their chunks.
pub(super) fn image(place: &str, first: &[u8], second: &[u8], limits: &Limits, budget: &Budget) -> Option<Vec<Detail>> {
    let ((a, rest), (b, other_rest)) = (png::chunks(first).ok()?, png::chunks(second).ok()?);
    let mut details = Vec::new();
    let pixels = |chunks: &[png::Chunk<'_>]| -> Vec<u8> {
        chunks.iter().filter(|c| &c.kind == b"IDAT").flat_map(|c| c.data).copied().collect()
    };
    let (x, y) = (pixels(&a), pixels(&b));
    if x != y {
        let place = super::member::inner(place, b"IDAT");
        let unpacked = |bytes: &[u8]| -> Option<Vec<u8>> {
            let blob = unpack::zlib(bytes, limits, budget).ok().filter(|blob| blob.len() <= limits.parsed)?;
            Some(blob.bytes().ok()?.into_owned())
        };
        details.push(match (unpacked(&x), unpacked(&y)) {
            (Some(p), Some(q)) if p == q => {
                Detail::new(place, Aspect::Compression, "the same pixels, compressed otherwise")
            }
            (Some(p), Some(q)) => {
                let mut detail = binary::slices(&place, &p, &q);
                (detail.kind, detail.says) = (Aspect::Content, format!("pixels: {}", detail.says));
                detail
            }
            _ => binary::slices(&place, &x, &y),
        });
    }
    let others = |chunks: &'_ [png::Chunk<'_>]| -> BTreeMap<([u8; 4], usize), Other> {
        let mut count: BTreeMap<[u8; 4], usize> = BTreeMap::new();
        let mut all = BTreeMap::new();
        for chunk in chunks.iter().filter(|c| &c.kind != b"IDAT") {
            let before = count.entry(chunk.kind).or_default();
            all.insert((chunk.kind, *before), (chunk.data.to_vec(), chunk.name(), chunk.text()));
            *before += 1;
        }
        all
    };
    let (p, q) = (others(&a), others(&b));
    let keys: BTreeSet<_> = p.keys().chain(q.keys()).collect();
    for key in keys.into_iter().filter(|k| p.get(*k) != q.get(*k)).take(PARTS) {
        let name = p.get(key).or(q.get(key)).map(|c| c.1.clone()).unwrap_or_default();
        let place = super::member::inner(place, name.as_bytes());
        details.push(match (p.get(key), q.get(key)) {
            (Some((_, _, Some(x))), Some((_, _, Some(y)))) => {
                let kind = if &key.0 == b"tIME" { Aspect::Time } else { Aspect::Value };
                Detail::new(place, kind, format!("chunk {name}: {x:?} and {y:?}")).between(x, y)
            }
            (Some((x, _, _)), Some((y, _, _))) => binary::slices(&place, x, y),
            (Some(_), None) => Detail::new(place, Aspect::OnlyInFirst, format!("chunk {name} is only in the first")),
            (None, _) => Detail::new(place, Aspect::OnlyInSecond, format!("chunk {name} is only in the second")),
        });
    }
    if rest != other_rest {
        details.push(Detail::new(place, Aspect::Content, "what follows the image"));
    }
    Some(details).filter(|d| !d.is_empty())
}

/// Byte-compiled modules: how they are held against their source, then their code.
pub(super) fn module(place: &str, first: &[u8], second: &[u8]) -> Option<Vec<Detail>> {
    let (a, b) = (Header::parse(first)?, Header::parse(second)?);
    let mut details = Vec::new();
    if a.magic != b.magic {
        let says = format!("compiled by another version of Python: magic number {} and {}", a.magic, b.magic);
        details.push(Detail::new(place, Aspect::Value, says).between(a.magic.to_string(), b.magic.to_string()));
    }
    match (a.source, b.source) {
        (Source::Stamp { mtime: x, size: p }, Source::Stamp { mtime: y, size: q }) => {
            if x != y {
                let date = |t: u32| super::member::date(Some(t.into()));
                let says = format!("modification time of the source: {} and {}", date(x), date(y));
                let shift = Some(i64::from(y) - i64::from(x));
                details.push(Detail { shift, ..Detail::new(place, Aspect::Time, says).between(date(x), date(y)) });
            }
            if p != q {
                let says = format!("size of the source: {p} and {q} bytes");
                details.push(Detail::new(place, Aspect::Value, says).between(p.to_string(), q.to_string()));
            }
        }
        (x, y) if x != y => {
            let text = |source: Source| match source {
                Source::Stamp { .. } => "by time and size".to_string(),
                Source::Hash { hash, checked } => {
                    format!("by {} hash {}", if checked { "checked" } else { "unchecked" }, HEXLOWER.encode(&hash))
                }
            };
            let says = format!("held against its source {} and {}", text(x), text(y));
            details.push(Detail::new(place, Aspect::Value, says).between(text(x), text(y)));
        }
        _ => {}
    }
    let (code, other) = (&first[LENGTH..], &second[LENGTH..]);
    if code != other {
        details.push(binary::slices(&super::member::inner(place, b"code"), code, other));
    }
    Some(details).filter(|d| !d.is_empty())
}
