//! The digest of one artifact after a set of normalisers, and the smallest set after which two artifacts are equal.
//!
//! From the outside in: what no normaliser of the set is named for keeps the digest of its bytes; a container that holds
//! something normalised is a [`Node`] of all that its headers say. Each side is read alone, so that its digest depends on
//! nothing but its bytes, the set, and how many entries of a changelog are kept. What is not sound is refused.

use std::collections::{BTreeMap, BTreeSet};

use kiln_model::digest::Digest;
use kiln_model::format::gzip;
use kiln_model::format::stream::Stream;
use kiln_model::normalise::node::Node;
use kiln_model::normalise::{Normaliser, changelog, elf_build_id, record};
use kiln_model::report::Equivalence;
use md5::{Digest as _, Md5};

use super::blob::Blob;
use super::format::Format;
use super::limits::Limits;
use super::list::{self, Contents, ListError, Listing, Member, MemberKind};
use super::unpack::{self, Budget, Stop};
use super::walk::Failed;

/// Why an artifact has no normalised digest.
#[derive(Debug)]
pub(super) enum Refused {
    /// It is not sound, or beyond a bound.
    Unsound(String),
    /// The host failed.
    Failed(Failed),
}

impl From<std::io::Error> for Refused {
    fn from(error: std::io::Error) -> Self {
        Self::Failed(Failed::Read(error))
    }
}

impl From<Stop> for Refused {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Unread(why) => Self::Unsound(why),
            Stop::Spill(error) => Self::Failed(Failed::Spill(error)),
        }
    }
}

impl From<ListError> for Refused {
    fn from(error: ListError) -> Self {
        match error {
            ListError::Broken(why) => Self::Unsound(why),
            ListError::Read(error) => Self::Failed(Failed::Read(error)),
        }
    }
}

/// The smallest part of `candidates` after which both are equal, if there is one.
pub(super) fn equivalence(
    name: &str,
    sides: [&Blob; 2],
    candidates: &BTreeSet<Normaliser>,
    entries: Option<usize>,
    limits: &Limits,
) -> Result<Option<Equivalence>, Refused> {
    let equal = |set: &BTreeSet<Normaliser>| -> Result<Option<Digest>, Refused> {
        let (a, b) = rayon::join(
            || Reading::of(name, sides[0], set, entries, limits),
            || Reading::of(name, sides[1], set, entries, limits),
        );
        let (a, b) = (a?, b?);
        Ok((a == b).then_some(a))
    };
    let Some(mut normalised) = equal(candidates)? else { return Ok(None) };
    let mut needed = candidates.clone();
    for normaliser in candidates {
        let mut fewer = needed.clone();
        fewer.remove(normaliser);
        if fewer.is_empty() {
            break;
        }
        if let Ok(Some(digest)) = equal(&fewer) {
            (needed, normalised) = (fewer, digest);
        }
    }
    Ok(Some(Equivalence { normalisers: needed.into_iter().collect(), normalised }))
}

/// One artifact as it is read.
struct Reading<'a> {
    set: &'a BTreeSet<Normaliser>,
    entries: Option<usize>,
    limits: &'a Limits,
    budget: Budget,
}

/// What something is after the normalisers.
struct Normal {
    digest: Digest,
    /// Whether a normaliser of the set is named for it or for something in it.
    touched: bool,
}

/// Files of one package that were touched, with their real checksums, and what they take.
#[derive(Default)]
struct Touched {
    md5: BTreeMap<Vec<u8>, [u8; 16]>,
    sha256: BTreeMap<Vec<u8>, (Digest, u64)>,
    /// KiB that the package installs, as dpkg-gencontrol counts them.
    installed: u64,
}

impl<'a> Reading<'a> {
    fn of(
        name: &str,
        blob: &Blob,
        set: &'a BTreeSet<Normaliser>,
        entries: Option<usize>,
        limits: &'a Limits,
    ) -> Result<Digest, Refused> {
        let reading = Self { set, entries, limits, budget: Budget::new(limits.unpacked) };
        Ok(reading.normal(name, blob, 0, &mut Touched::default())?.digest)
    }

    fn has(&self, normaliser: Normaliser) -> bool {
        self.set.contains(&normaliser)
    }

    fn normal(&self, name: &str, blob: &Blob, depth: usize, touched: &mut Touched) -> Result<Normal, Refused> {
        if depth > self.limits.depth {
            return Err(Refused::Unsound(format!("{depth} containers within each other")));
        }
        match Format::of(name, blob)? {
            Format::Stream(stream) => self.stream(name, blob, stream, depth, touched),
            Format::Ar => self.ar(list::ar(blob, self.limits.members)?, depth),
            Format::Tar => self.tar(list::tar(blob, self.limits.members)?, depth, touched),
            Format::Zip => self.zip(list::zip(blob, self.limits.members)?, depth),
            Format::Elf if self.has(Normaliser::ElfBuildId) && blob.len() <= self.limits.parsed => {
                match elf_build_id::masked(&blob.bytes()?).map_err(|e| Refused::Unsound(e.to_string()))? {
                    Some(masked) => Ok(whole(Normaliser::ElfBuildId.as_str(), &masked)),
                    None => plain(blob),
                }
            }
            Format::Elf | Format::Png | Format::Catalogue | Format::Module => plain(blob),
            Format::Other => self.text(name, blob, touched),
        }
    }

    fn stream(
        &self,
        name: &str,
        blob: &Blob,
        stream: Stream,
        depth: usize,
        touched: &mut Touched,
    ) -> Result<Normal, Refused> {
        let unpacked = unpack::single(blob, stream, self.limits, &self.budget);
        let unpacked = match unpacked {
            Ok(unpacked) => unpacked,
            // What nothing is named for may be as broken as it likes: its bytes stand for it.
            Err(Stop::Unread(_)) if !self.has(Normaliser::Compression) && !self.has(Normaliser::GzipHeader) => {
                return plain(blob);
            }
            Err(stop) => return Err(stop.into()),
        };
        let trimmed = match self.entries {
            Some(keep) if self.has(Normaliser::ChangelogTrimming) && changelog::is_changelog(name.as_bytes()) => {
                let bytes = unpacked.bytes()?;
                std::str::from_utf8(&bytes).ok().map(|text| changelog::newest(text, keep))
            }
            Some(_) | None => None,
        };
        let inner = match trimmed {
            Some(text) => whole(Normaliser::ChangelogTrimming.as_str(), text.as_bytes()),
            None => self.normal(name, &unpacked, depth + 1, touched)?,
        };
        let compression = self.has(Normaliser::Compression);
        let header = self.has(Normaliser::GzipHeader) && stream == Stream::Gzip;
        if !inner.touched && !compression && !header {
            return plain(blob);
        }
        let mut node = Node::new(stream.as_str());
        let head = blob.head(64 << 10)?;
        if !compression {
            for (name, value) in stream.parameters(&head) {
                node.field(name, value);
            }
        }
        if let (Stream::Gzip, Ok(gzip)) = (stream, gzip::Header::parse(&head)) {
            if !compression && !header {
                node.field("header", &head[3..gzip.length]);
            }
            node.field("extra", gzip.extra.unwrap_or_default());
            if header && !compression && !inner.touched {
                let rest = blob.slice(gzip.length as u64, blob.len() - gzip.length as u64);
                node.holds(rest.ok_or_else(|| Refused::Unsound("a gzip header without a stream".into()))?.digest()?);
                return Ok(Normal { digest: node.digest(), touched: true });
            }
        }
        node.holds(inner.digest);
        Ok(Normal { digest: node.digest(), touched: true })
    }

    fn sound(listing: Listing) -> Result<Listing, Refused> {
        match listing.unsound.first() {
            None => Ok(listing),
            Some(why) => Err(Refused::Unsound(format!("the {} is not sound: {why}", listing.what))),
        }
    }

    fn ar(&self, listing: Listing, depth: usize) -> Result<Normal, Refused> {
        let listing = Self::sound(listing)?;
        let forget = self.has(Normaliser::ArMembers);
        let mut touched = Touched::default();
        // Contents before what is said of them: of a package, data stands after control.
        let mut inside = Vec::new();
        for member in listing.members.iter().rev() {
            inside.push(self.member(member, depth, &mut touched)?);
        }
        inside.reverse();
        let mut node = Node::new("ar");
        for (member, inner) in listing.members.iter().zip(&inside) {
            node.field("name", &member.name);
            if !forget {
                headers(&mut node, member);
            }
            node.holds(inner.digest);
        }
        Ok(Normal { digest: node.digest(), touched: forget || inside.iter().any(|i| i.touched) })
            .and_then(|normal| if normal.touched { Ok(normal) } else { self.untouched(&listing, normal) })
    }

    fn tar(&self, listing: Listing, depth: usize, touched: &mut Touched) -> Result<Normal, Refused> {
        let mut listing = Self::sound(listing)?;
        let forget = self.has(Normaliser::TarOrder);
        let mut any = forget;
        // Only the data of a package takes room when it is installed; control files are counted apart.
        let is_control = listing.members.iter().any(|m| m.name == b"./control" || m.name == b"control");
        if is_control {
            touched.installed += 1 + listing.members.iter().map(control_kib).sum::<u64>();
        } else {
            touched.installed += listing.members.iter().map(kib).sum::<u64>();
        }
        if forget {
            listing.members.sort_by(|a, b| a.name.cmp(&b.name));
        }
        let mut node = Node::new("tar");
        for member in &listing.members {
            let inner = self.member(member, depth, touched)?;
            any |= inner.touched;
            node.field("name", &member.name);
            node.field("headers", member.raw.map(|d| d.as_bytes().to_vec()).unwrap_or_default());
            node.holds(inner.digest);
        }
        let normal = Normal { digest: node.digest(), touched: any };
        if any { Ok(normal) } else { self.untouched(&listing, normal) }
    }

    fn zip(&self, listing: Listing, depth: usize) -> Result<Normal, Refused> {
        let mut listing = Self::sound(listing)?;
        let forget = self.has(Normaliser::WheelZip);
        let mut touched = Touched::default();
        let mut digests: BTreeMap<&[u8], Normal> = BTreeMap::new();
        let mut any = forget;
        if forget {
            listing.members.sort_by(|a, b| a.name.cmp(&b.name));
        }
        let (records, files): (Vec<&Member>, Vec<&Member>) =
            listing.members.iter().partition(|m| record::is_record(&m.name));
        for member in files.into_iter().chain(records) {
            let inner = self.member(member, depth, &mut touched)?;
            any |= inner.touched;
            digests.insert(&member.name, inner);
        }
        let mut node = Node::new("zip");
        for (name, value) in &listing.around {
            node.field(name, value);
        }
        for member in &listing.members {
            node.field("name", &member.name);
            node.field("kind", member.kind.word());
            for (name, value) in &member.header {
                let kept = match *name {
                    "comment" | "telling extra field" => true,
                    "name encoding" => !member.name.is_ascii(),
                    _ => false,
                };
                if kept || !forget {
                    node.field(name, value);
                }
            }
            if !forget {
                headers(&mut node, member);
                node.field("method", member.method.as_deref().unwrap_or_default());
            }
            // Every member was given a digest above, under its name, which stands there once.
            node.holds(digests[member.name.as_slice()].digest);
        }
        let normal = Normal { digest: node.digest(), touched: any };
        drop(digests);
        if any { Ok(normal) } else { self.untouched(&listing, normal) }
    }

    /// A container with nothing in it that is normalised: it stands for its bytes.
    fn untouched(&self, listing: &Listing, mut normal: Normal) -> Result<Normal, Refused> {
        normal.digest = listing.bytes.digest()?;
        Ok(normal)
    }

    fn member(&self, member: &Member, depth: usize, touched: &mut Touched) -> Result<Normal, Refused> {
        let name = String::from_utf8_lossy(&member.name);
        let blob = match &member.contents {
            Contents::Plain(blob) => blob.clone(),
            Contents::Stored { blob, crc } => checked(blob.clone(), *crc, &name)?,
            Contents::Deflated { blob, size, crc } => {
                checked(unpack::deflate(blob, *size, self.limits, &self.budget)?, *crc, &name)?
            }
            Contents::Opaque(_) => return Err(Refused::Unsound(format!("{name:?} cannot be unpacked"))),
        };
        let inner = self.normal(&name, &blob, depth + 1, touched)?;
        if inner.touched && member.kind == MemberKind::File {
            let path = member.name.strip_prefix(b"./").unwrap_or(&member.name).to_vec();
            touched.sha256.insert(path.clone(), (blob.digest()?, blob.len()));
            touched.md5.insert(path, md5(&blob)?);
        }
        Ok(inner)
    }

    /// Texts that say something of the files beside them.
    fn text(&self, name: &str, blob: &Blob, touched: &Touched) -> Result<Normal, Refused> {
        let is = |file: &str| name.strip_prefix("./").unwrap_or(name) == file;
        let record = record::is_record(name.as_bytes());
        let order = record && self.has(Normaliser::WheelRecordOrder);
        let sums = is("md5sums") && !touched.md5.is_empty();
        let control = is("control") && self.has(Normaliser::ChangelogTrimming);
        let follows = record && !touched.sha256.is_empty();
        if !(order || sums || control || follows) || blob.len() > self.limits.parsed {
            return plain(blob);
        }
        let bytes = blob.bytes()?;
        let Ok(text) = std::str::from_utf8(&bytes) else { return plain(blob) };
        let mut text = text.to_owned();
        if sums {
            text = record::md5sums(&text, &touched.md5);
        }
        if follows {
            text = record::record(&text, &touched.sha256);
        }
        if order {
            text = record::sorted(&text);
        }
        if control {
            // Only what follows from the files: another number stays.
            text = text.replace(&format!("\nInstalled-Size: {}\n", touched.installed), "\nInstalled-Size: (follows)\n");
        }
        Ok(whole("text", text.as_bytes()))
    }
}

/// Bytes that stand for themselves.
fn plain(blob: &Blob) -> Result<Normal, Refused> {
    Ok(Normal { digest: blob.digest()?, touched: false })
}

/// What a normaliser left of a file.
fn whole(sort: &str, bytes: &[u8]) -> Normal {
    let mut node = Node::new(sort);
    node.holds(Digest::of(bytes));
    Normal { digest: node.digest(), touched: true }
}

fn headers(node: &mut Node, member: &Member) {
    node.field("time", member.time.map(|t| t.to_string()).unwrap_or_default());
    node.field("mode", member.mode.map(|m| format!("{m:o}")).unwrap_or_default());
    node.field("owner", member.owner.as_deref().unwrap_or_default());
}

/// KiB that an entry takes as dpkg-gencontrol counts: a file by its size, anything else as one.
fn kib(member: &Member) -> u64 {
    match (&member.kind, &member.contents) {
        (MemberKind::File, Contents::Plain(blob)) => blob.len().div_ceil(1024),
        (MemberKind::Symlink(target), _) => (target.len() as u64).div_ceil(1024),
        (MemberKind::HardLink(_), _) => 0,
        (MemberKind::File | MemberKind::Directory | MemberKind::Other(_), _) => 1,
    }
}

/// The same of a control file: dpkg-gencontrol runs before it is written itself, and before the checksums.
fn control_kib(member: &Member) -> u64 {
    match member.name.strip_prefix(b"./").unwrap_or(&member.name) {
        b"" | b"control" | b"md5sums" => 0,
        _ => kib(member),
    }
}

fn md5(blob: &Blob) -> Result<[u8; 16], Refused> {
    let mut hasher = Md5::new();
    let mut buffer = vec![0; 64 << 10];
    let mut at = 0;
    while at < blob.len() {
        let read = blob.read_at(at, &mut buffer)?;
        hasher.update(&buffer[..read]);
        at += read as u64;
    }
    Ok(hasher.finalize().into())
}

/// Contents whose CRC-32 is that of their header.
fn checked(blob: Blob, crc: u32, name: &str) -> Result<Blob, Refused> {
    let mut sum = flate2::Crc::new();
    let mut buffer = vec![0; 64 << 10];
    let mut at = 0;
    while at < blob.len() {
        let read = blob.read_at(at, &mut buffer)?;
        sum.update(&buffer[..read]);
        at += read as u64;
    }
    if sum.sum() == crc {
        Ok(blob)
    } else {
        Err(Refused::Unsound(format!("{name:?} has not the checksum of its header")))
    }
}
