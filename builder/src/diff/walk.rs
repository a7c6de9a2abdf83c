//! Walks into two files that differ, through containers, to what differs in them.
//!
//! Only what differs is opened: members are held against each other byte by byte before anything is parsed. Every pair that
//! differs leaves at least one detail, if only where its bytes do. What is broken or beyond a bound is a detail as well,
//! and then its bytes are compared; only the host's own failures are errors.

use std::collections::BTreeSet;
use std::io;

use kiln_model::format::gzip;
use kiln_model::format::stream::Stream;
use kiln_model::normalise::{Normaliser, changelog, record};
use kiln_model::report::{Aspect, Detail};

use super::binary;
use super::blob::Blob;
use super::bytes::Compared;
use super::document;
use super::elf;
use super::format::Format;
use super::found::Found;
use super::limits::Limits;
use super::list::{self, Contents, ListError, Listing, Member};
use super::member;
use super::text;
use super::unpack::{self, Budget, Stop};

/// Bytes of the head of a stream that are looked at: a gzip header with its texts.
const STREAM_HEAD: usize = 64 << 10;

/// Why the host could not go on.
#[derive(Debug)]
pub(super) enum Failed {
    /// A file could not be read.
    Read(io::Error),
    /// What was unpacked could not be kept.
    Spill(io::Error),
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Self::Read(error)
    }
}

/// A walk through one pair of files.
#[derive(Debug)]
pub(super) struct Walk<'a> {
    limits: &'a Limits,
    budgets: [Budget; 2],
    found: Found,
    changelogs: BTreeSet<usize>,
    /// The two files as a whole, byte by byte: large ones are read once.
    whole: Compared,
}

/// What a walk found.
#[derive(Debug)]
pub(super) struct Walked {
    /// What differs.
    pub(super) found: Found,
    /// Entries to keep so that changelogs become equal, if there is one number for all that differ.
    pub(super) entries: Option<usize>,
}

impl<'a> Walk<'a> {
    /// Walks into two files called `name` that are not equal.
    pub(super) fn into(
        name: &str,
        first: &Blob,
        second: &Blob,
        whole: Compared,
        limits: &'a Limits,
    ) -> Result<Walked, Failed> {
        let budgets = [Budget::new(limits.unpacked), Budget::new(limits.unpacked)];
        let mut walk = Self { limits, budgets, found: Found::default(), changelogs: BTreeSet::new(), whole };
        walk.pair(&Place { shown: "", name, depth: 0 }, first, second)?;
        let entries = walk.changelogs.first().copied().filter(|_| walk.changelogs.len() == 1);
        Ok(Walked { found: walk.found, entries })
    }

    fn say(&mut self, detail: Detail) {
        self.found.push(detail);
    }

    /// Two blobs at one place that are not equal.
    fn pair(&mut self, place: &Place<'_>, first: &Blob, second: &Blob) -> Result<(), Failed> {
        let before = self.found.count();
        let (a, b) = (Format::of(place.name, first)?, Format::of(place.name, second)?);
        if place.depth >= self.limits.depth {
            let says = format!("{} containers within each other: not looked into further", place.depth);
            self.say(Detail::new(place.shown, Aspect::Unread, says));
        } else {
            match (a, b) {
                (Format::Stream(x), Format::Stream(y)) => self.streams(place, (first, x), (second, y))?,
                (Format::Ar, Format::Ar) => self.containers(place, first, second, list::ar)?,
                (Format::Tar, Format::Tar) => self.containers(place, first, second, list::tar)?,
                (Format::Zip, Format::Zip) => self.containers(place, first, second, list::zip)?,
                (Format::Stream(x), _) if b != Format::Other => {
                    self.half_packed(place, (first, x), second, Which::First)?
                }
                (_, Format::Stream(y)) if a != Format::Other => {
                    self.half_packed(place, (second, y), first, Which::Second)?
                }
                (x, y) if x == y => self.leaf(place, x, first, second)?,
                (x, y) => {
                    let says = format!("a {} in the first, a {} in the second", x.word(), y.word());
                    self.say(Detail::new(place.shown, Aspect::Type, says).between(x.word(), y.word()));
                }
            }
        }
        if self.found.count() == before || self.only_unread(before) {
            let detail = self.plain(place, first, second)?;
            self.say(detail);
        }
        Ok(())
    }

    /// Whether all that was said since is that something could not be read.
    fn only_unread(&self, since: u64) -> bool {
        self.found.since(since).all(|detail| detail.kind == Aspect::Unread)
    }

    /// A stream beside what it may hold: the one was not compressed.
    fn half_packed(
        &mut self,
        place: &Place<'_>,
        packed: (&Blob, Stream),
        plain: &Blob,
        which: Which,
    ) -> Result<(), Failed> {
        let (name, side) = match which {
            Which::First => ("first", 0),
            Which::Second => ("second", 1),
        };
        let says = format!("only the {name} is compressed ({})", packed.1.as_str());
        self.say(Detail::new(place.shown, Aspect::Compression, says));
        match unpack::stream(packed.0, packed.1, self.limits, &self.budgets[side]) {
            Ok(unpacked) if unpacked.equals(plain)? => Ok(()),
            Ok(unpacked) => match which {
                Which::First => self.pair(&place.deeper(), &unpacked, plain),
                Which::Second => self.pair(&place.deeper(), plain, &unpacked),
            },
            Err(stop) => self.stopped(place, stop, name),
        }
    }

    fn stopped(&mut self, place: &Place<'_>, stop: Stop, which: &str) -> Result<(), Failed> {
        match stop {
            Stop::Unread(why) => {
                self.say(Detail::new(place.shown, Aspect::Unread, format!("in the {which}: {why}")));
                Ok(())
            }
            Stop::Spill(source) => Err(Failed::Spill(source)),
        }
    }

    fn streams(
        &mut self,
        place: &Place<'_>,
        (first, x): (&Blob, Stream),
        (second, y): (&Blob, Stream),
    ) -> Result<(), Failed> {
        // Heads first: they can be told also of what is broken further on.
        let before = self.found.count();
        let heads = (first.head(STREAM_HEAD)?, second.head(STREAM_HEAD)?);
        if x != y {
            let says = format!("compressed with {} and {}", x.as_str(), y.as_str());
            self.say(Detail::new(place.shown, Aspect::Compression, says).between(x.as_str(), y.as_str()));
        } else {
            self.stream_heads(place, x, &heads.0, &heads.1);
        }
        let (limits, [ours, theirs]) = (self.limits, &self.budgets);
        let (a, b) =
            rayon::join(|| unpack::stream(first, x, limits, ours), || unpack::stream(second, y, limits, theirs));
        let (a, b) = match (a, b) {
            (Ok(a), Ok(b)) => (a, b),
            (a, b) => {
                for (result, which) in [(a, "first"), (b, "second")] {
                    if let Err(stop) = result {
                        self.stopped(place, stop, which)?;
                    }
                }
                return Ok(());
            }
        };
        if !a.equals(&b)? {
            return self.pair(&place.deeper(), &a, &b);
        }
        // The same contents: if only the header of a gzip differs, that was said; else they were packed in another way.
        let rest = |blob: &Blob, head: &[u8]| -> io::Result<Option<Blob>> {
            let Ok(header) = gzip::Header::parse(head) else { return Ok(None) };
            Ok(blob.slice(header.length as u64, blob.len() - header.length as u64))
        };
        let only_headers = match (x == y, rest(first, &heads.0)?, rest(second, &heads.1)?) {
            (true, Some(p), Some(q)) => p.equals(&q)?,
            _ => false,
        };
        if x == y && !only_headers && self.found.since(before).all(|d| d.normaliser != Some(Normaliser::Compression)) {
            let says = format!(
                "the same contents, compressed otherwise ({}, {} and {} bytes): another level, program or number of threads",
                x.as_str(),
                first.len(),
                second.len()
            );
            self.say(Detail::new(place.shown, Aspect::Compression, says).under(Normaliser::Compression));
        }
        Ok(())
    }

    /// What the heads of two streams say of how they were made.
    fn stream_heads(&mut self, place: &Place<'_>, stream: Stream, first: &[u8], second: &[u8]) {
        for ((name, x), (_, y)) in stream.parameters(first).into_iter().zip(stream.parameters(second)) {
            if x != y {
                let says = format!("{} {name}: {x} and {y}", stream.as_str());
                self.say(
                    Detail::new(place.shown, Aspect::Compression, says).between(x, y).under(Normaliser::Compression),
                );
            }
        }
        let (Ok(a), Ok(b)) = (gzip::Header::parse(first), gzip::Header::parse(second)) else { return };
        let text = |bytes: &Option<Vec<u8>>| {
            bytes.as_ref().map_or("none".into(), |bytes| String::from_utf8_lossy(bytes).into_owned())
        };
        let date = |t: u32| if t == 0 { "none".into() } else { member::date(Some(t.into())) };
        let level = |l: u8| match l {
            2 => "best".to_string(),
            4 => "fastest".into(),
            0 => "unspecified".into(),
            other => other.to_string(),
        };
        let shift = (a.mtime != 0 && b.mtime != 0).then(|| i64::from(b.mtime) - i64::from(a.mtime));
        let fields = [
            (Aspect::Time, "time", date(a.mtime), date(b.mtime), shift),
            (Aspect::Header, "name", text(&a.name), text(&b.name), None),
            (Aspect::Header, "comment", text(&a.comment), text(&b.comment), None),
            (Aspect::Header, "system", a.system.to_string(), b.system.to_string(), None),
            (Aspect::Compression, "level", level(a.level), level(b.level), None),
        ];
        for (kind, name, x, y, shift) in fields {
            if x != y {
                let says = format!("{name} in the gzip header: {x} and {y}");
                let detail = Detail { shift, ..Detail::new(place.shown, kind, says) };
                self.say(detail.between(x, y).under(Normaliser::GzipHeader));
            }
        }
        if a.extra != b.extra {
            self.say(Detail::new(place.shown, Aspect::Header, "extra field in the gzip header"));
        }
    }

    fn containers(
        &mut self,
        place: &Place<'_>,
        first: &Blob,
        second: &Blob,
        list: fn(&Blob, usize) -> Result<Listing, ListError>,
    ) -> Result<(), Failed> {
        let most = self.limits.members;
        let (a, b) = rayon::join(|| list(first, most), || list(second, most));
        let mut listings = Vec::new();
        for (result, which) in [(a, "first"), (b, "second")] {
            match result {
                Ok(listing) => listings.push(listing),
                Err(ListError::Read(source)) => return Err(Failed::Read(source)),
                Err(ListError::Broken(why)) => {
                    self.say(Detail::new(place.shown, Aspect::Unread, format!("the {which} cannot be listed: {why}")));
                }
            }
        }
        let [a, b] = listings.as_slice() else { return Ok(()) };
        let before = self.found.count();
        let (details, pairs) = member::compare(place.shown, a, b);
        for detail in details {
            self.say(detail);
        }
        for pair in pairs {
            let name = String::from_utf8_lossy(&pair.first.name);
            let inner = Place { shown: &pair.place, name: &name, depth: place.depth + 1 };
            self.members(&inner, pair.first, pair.second)?;
        }
        // Everything that is read of it is the same.
        if self.found.count() == before {
            let mut detail = binary::compare(place.shown, first, second)?;
            detail.says = format!("in the layout of the {}, not in its members: {}", a.what, detail.says);
            detail.kind = Aspect::Header;
            self.say(detail);
        }
        Ok(())
    }

    fn members(&mut self, place: &Place<'_>, first: &Member, second: &Member) -> Result<(), Failed> {
        if let (Contents::Deflated { blob: a, size: p, .. }, Contents::Deflated { blob: b, size: q, .. }) =
            (&first.contents, &second.contents)
            && p == q
            && a.equals(b)?
        {
            return Ok(());
        }
        let (a, b) = (self.contents(place, &first.contents, 0)?, self.contents(place, &second.contents, 1)?);
        let (Some(a), Some(b)) = (a, b) else { return Ok(()) };
        if !a.equals(&b)? {
            return self.pair(place, &a, &b);
        }
        if let (Contents::Deflated { blob: p, .. }, Contents::Deflated { blob: q, .. }) =
            (&first.contents, &second.contents)
        {
            let says = format!("the same contents, deflated otherwise ({} and {} bytes)", p.len(), q.len());
            self.say(Detail::new(place.shown, Aspect::Compression, says).under(Normaliser::WheelZip));
        }
        Ok(())
    }

    fn contents(&mut self, place: &Place<'_>, contents: &Contents, side: usize) -> Result<Option<Blob>, Failed> {
        match contents {
            Contents::Plain(blob) | Contents::Stored { blob, .. } => Ok(Some(blob.clone())),
            Contents::Opaque(blob) => {
                let says = "compressed in a way that kiln does not unpack; its packed bytes are compared";
                self.say(Detail::new(place.shown, Aspect::Unread, says));
                Ok(Some(blob.clone()))
            }
            Contents::Deflated { blob, size, .. } => {
                match unpack::deflate(blob, *size, self.limits, &self.budgets[side]) {
                    Ok(unpacked) => Ok(Some(unpacked)),
                    Err(stop) => self.stopped(place, stop, ["first", "second"][side]).map(|()| None),
                }
            }
        }
    }

    /// Two files that hold no others.
    fn leaf(&mut self, place: &Place<'_>, format: Format, first: &Blob, second: &Blob) -> Result<(), Failed> {
        if first.len().max(second.len()) > self.limits.parsed {
            let says = format!("larger than {} bytes: compared as bytes only", self.limits.parsed);
            if format != Format::Other {
                self.say(Detail::new(place.shown, Aspect::Unread, says));
            }
            return Ok(());
        }
        let (a, b) = (first.bytes()?, second.bytes()?);
        let (shown, limits, budget) = (place.shown, self.limits, &self.budgets[0]);
        let details = match format {
            Format::Elf => match elf::compare(shown, &a, &b, limits, budget) {
                Ok(details) => Some(details),
                Err(why) => Some(vec![Detail::new(shown, Aspect::Unread, format!("cannot be read as ELF: {why}"))]),
            },
            Format::Png => document::image(shown, &a, &b, limits, budget),
            Format::Catalogue => document::catalogue(shown, &a, &b),
            Format::Module => document::module(shown, &a, &b),
            Format::Other => self.text(place, &a, &b),
            Format::Stream(_) | Format::Ar | Format::Tar | Format::Zip => None,
        };
        details.into_iter().flatten().for_each(|detail| self.say(detail));
        Ok(())
    }

    /// Two texts, by the parts that they are known to have, or by their lines.
    fn text(&mut self, place: &Place<'_>, first: &[u8], second: &[u8]) -> Option<Vec<Detail>> {
        let text = |bytes| std::str::from_utf8(bytes).ok().filter(|t| !t.contains('\0'));
        let (a, b) = (text(first)?, text(second)?);
        let base = place.name.rsplit('/').next().unwrap_or(place.name);
        let parts = match base {
            "control" => document::control(place.shown, a, b),
            _ if [".buildinfo", ".changes", ".dsc"].iter().any(|end| base.ends_with(end)) => {
                document::control(place.shown, a, b)
            }
            "md5sums" => document::checksums(place.shown, a, b, document::md5sums_line).map(|d| vec![d]),
            _ if record::is_record(place.name.as_bytes()) => {
                match document::checksums(place.shown, a, b, document::record_line) {
                    Some(detail) => Some(vec![detail]),
                    None if record::sorted(a) == record::sorted(b) => {
                        let detail = text::compare(place.shown, a, b, self.limits.lines);
                        Some(vec![detail.under(Normaliser::WheelRecordOrder)])
                    }
                    None => None,
                }
            }
            _ if a.trim_start().starts_with(['{', '[']) && a.len().max(b.len()) as u64 <= self.limits.taken_apart => {
                document::json(place.shown, a, b)
            }
            _ => None,
        };
        if parts.is_some() {
            return parts;
        }
        let mut detail = text::compare(place.shown, a, b, self.limits.lines);
        if changelog::is_changelog(place.name.as_bytes())
            && let Some(keep) = changelog::common(a, b)
        {
            let (longer, entries) = match changelog::entries(a) > changelog::entries(b) {
                true => ("first", changelog::entries(a)),
                false => ("second", changelog::entries(b)),
            };
            detail.says = format!(
                "the changelog of the {longer} has {entries} entries, the other only the newest {keep} of them"
            );
            let count = |text: &str| format!("{} entries", changelog::entries(text));
            detail = detail.between(count(a), count(b)).under(Normaliser::ChangelogTrimming);
            self.changelogs.insert(keep);
        }
        Some(vec![detail])
    }

    fn plain(&mut self, place: &Place<'_>, first: &Blob, second: &Blob) -> io::Result<Detail> {
        if place.depth == 0 {
            Ok(binary::described(place.shown, &self.whole))
        } else {
            binary::compare(place.shown, first, second)
        }
    }
}

/// Which of the two.
#[derive(Debug, Clone, Copy)]
enum Which {
    First,
    Second,
}

/// Where a walk is.
#[derive(Debug, Clone, Copy)]
struct Place<'a> {
    /// For people: `data.tar.xz!usr/bin/x`.
    shown: &'a str,
    /// The innermost name.
    name: &'a str,
    /// Containers that were opened on the way.
    depth: usize,
}

impl Place<'_> {
    /// Inside a stream, which has no members and so no place of its own.
    fn deeper(&self) -> Self {
        Self { depth: self.depth + 1, ..*self }
    }
}
