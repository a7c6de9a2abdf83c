//! One function per parser that reads what somebody else wrote: any bytes are taken or refused, and what is taken keeps its
//! promise.
//!
//! The fuzzer calls them ([`TARGETS`]), and so does an ordinary test with the small corpus that is committed. Knows only what
//! kiln's crates show to everyone.

use std::fs::File;
use std::io::{Read, Write as _};
use std::os::fd::AsRawFd as _;
use std::path::PathBuf;

use kiln::environment::{Deb, DebError, Entry, EntryKind};
use kiln::fetch::listing;
use kiln_launcher::protocol::{Reply, Report, Request};
use kiln_model::debian::{dependency, version::Version};
use kiln_model::derivation::Derivation;
use kiln_model::format::cache_info::CacheInfo;
use kiln_model::format::export::{Extent, Trailer, another};
use kiln_model::format::nar::{Limits, decode};
use kiln_model::format::narinfo::NarInfo;
use kiln_model::format::pyproject::BuildSystem;
use kiln_model::format::realisation::Realisation;
use kiln_model::format::release::Release;
use kiln_model::format::{dist_info, packages, record as wheel_record, sources};
use kiln_model::lock::Lock;
use kiln_model::outcome::Outcome;
use kiln_model::policy::{Pattern, Policy};
use kiln_model::recipe::Recipe;
use kiln_model::tree::Manifest;
use kiln_model::wheel::{Backend, WheelName};

/// What a fuzzer calls.
pub type Target = fn(&[u8]);

/// Every parser by the name of its target.
pub const TARGETS: [(&str, Target); 16] = [
    ("deb", deb),
    ("dependency", dependency),
    ("derivation", derivation),
    ("export", export),
    ("index", index),
    ("launcher", launcher),
    ("listing", listing),
    ("lock", lock),
    ("manifest", manifest),
    ("nar", nar),
    ("narinfo", narinfo),
    ("policy", policy),
    ("recipe", recipe),
    ("record", record),
    ("release", release),
    ("wheel", wheel),
];

/// A package of Debian: `ar`, four compressions, `tar`. An entry stays below where it is unpacked, and has the bytes it claims.
///
/// The first byte says what the others are, since no fuzzer guesses checksums: a whole `.deb`, or its `data.tar` or
/// `control.tar`, plain with the checksums of headers put right, or compressed.
pub fn deb(bytes: &[u8]) {
    let Some((form, bytes)) = bytes.split_first() else { return };
    let empty = [0; 1024];
    let package = match form % 7 {
        0 => bytes.to_vec(),
        1 => package(("control.tar", &empty), ("data.tar", &checked_tar(bytes))),
        2 => package(("control.tar", &empty), ("data.tar.xz", bytes)),
        3 => package(("control.tar", &empty), ("data.tar.zst", bytes)),
        4 => package(("control.tar", &empty), ("data.tar.gz", bytes)),
        5 => package(("control.tar", &empty), ("data.tar.bz2", bytes)),
        _ => package(("control.tar", &checked_tar(bytes)), ("data.tar", &empty)),
    };
    let (_file, path) = in_memory(&package);
    let Ok(deb) = Deb::open(&path) else { return };
    let _ = deb.control();
    let _ = deb.entries::<DebError>(None, &mut |entry: Entry, body: &mut dyn Read| {
        stays_below(&entry.path);
        match entry.kind {
            EntryKind::File { size, .. } => {
                let read = std::io::copy(body, &mut std::io::sink());
                assert!(read.is_err() || read.is_ok_and(|read| read <= size));
            }
            EntryKind::HardLink { target } => stays_below(&target),
            EntryKind::Symlink { target } => assert!(!target.is_empty() && !target.contains(&0)),
            EntryKind::Directory => {}
        }
        Ok(())
    });
}

fn stays_below(path: &[u8]) {
    assert!(path.len() <= 4095 && !path.starts_with(b"/") && !path.contains(&0), "{path:?}");
    let plain = |part: &[u8]| !part.is_empty() && part != b"." && part != b"..";
    assert!(path.is_empty() || path.split(|byte| *byte == b'/').all(plain), "{path:?}");
}

fn package(control: (&str, &[u8]), data: (&str, &[u8])) -> Vec<u8> {
    let mut archive = b"!<arch>\n".to_vec();
    for (name, bytes) in [("debian-binary", &b"2.0\n"[..]), control, data] {
        archive.extend(format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n", 0, 0, 0, 100_644, bytes.len()).bytes());
        archive.extend_from_slice(bytes);
        if bytes.len() % 2 == 1 {
            archive.push(b'\n');
        }
    }
    archive
}

/// A `tar` whose headers have the right checksums and which has an end mark: tar(5).
fn checked_tar(bytes: &[u8]) -> Vec<u8> {
    let mut tar = bytes.to_vec();
    tar.resize(bytes.len().next_multiple_of(512) + 1024, 0);
    let mut at = 0;
    while at < bytes.len() {
        let header = &mut tar[at..at + 512];
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        let digits = header[124..136].iter().take_while(|byte| (b'0'..b'8').contains(*byte));
        let size = digits.fold(0_u64, |size, digit| size.saturating_mul(8).saturating_add(u64::from(digit - b'0')));
        let blocks = usize::try_from(size.div_ceil(512)).unwrap_or(usize::MAX);
        at = at.saturating_add(512).saturating_add(blocks.saturating_mul(512));
    }
    tar
}

/// A file that has a name only as long as it is open.
fn in_memory(bytes: &[u8]) -> (File, PathBuf) {
    let memory = rustix::fs::memfd_create(c"fuzzed", rustix::fs::MemfdFlags::CLOEXEC).expect("memory");
    let path = format!("/proc/self/fd/{}", memory.as_raw_fd());
    let mut file = File::from(memory);
    file.write_all(bytes).expect("memory");
    (file, path.into())
}

/// A dependency field and an order of versions, two texts with a NUL between them.
pub fn dependency(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (first, second) = text.split_once('\0').unwrap_or((text, ""));
    let _ = dependency::parse(first);
    if let (Ok(a), Ok(b)) = (Version::parse(first), Version::parse(second)) {
        assert_eq!(a.cmp(&b), b.cmp(&a).reverse());
    }
}

/// A derivation prints back to the same bytes: its digest is its id.
pub fn derivation(bytes: &[u8]) {
    if let Ok(derivation) = Derivation::parse("fuzzed".parse().expect("a name"), bytes) {
        assert_eq!(derivation.print(), bytes);
    }
}

/// A stream of exported paths: an archive that is one ends where it ends, and its trailer prints back.
pub fn export(bytes: &[u8]) {
    const LIMITS: Limits = Limits { entries: 10_000, bytes: 1 << 20 };
    let mut stream = bytes;
    while let Ok(true) = another(&mut stream) {
        let whole = stream;
        let decoded = decode(&mut Extent::of(&mut stream), &LIMITS, |_| Ok(()));
        if decoded.is_err() {
            return;
        }
        let nar = &whole[..whole.len() - stream.len()];
        assert!(decode(&mut &nar[..], &LIMITS, |_| Ok(())).is_ok());
        let mut read = Vec::new();
        Extent::of(&mut &whole[..]).read_to_end(&mut read).expect("an archive");
        assert_eq!(read, nar);
        let Ok(trailer) = Trailer::read(&mut stream) else { return };
        assert_eq!(Trailer::read(&mut &trailer.print()[..]).expect("it was printed"), trailer);
    }
}

/// An index of packages, and one of sources.
pub fn index(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let _ = packages::read::<packages::IndexError>(text, |_| Ok(()));
    let _ = sources::read::<packages::IndexError>(text, |_| true, |_| Ok(()));
}

/// What kiln and its launcher say to each other. What was understood can be said again, and be shown.
///
/// The first byte says which of the three messages it is.
pub fn launcher(bytes: &[u8]) {
    let Some((message, bytes)) = bytes.split_first() else { return };
    match message % 3 {
        0 => {
            let Ok(request) = postcard::from_bytes::<Request>(bytes) else { return };
            for step in &request.steps {
                assert!(!step.to_string().is_empty());
                let _ = (step.place(), step.target(), step.source());
            }
            let said = postcard::to_stdvec(&request).expect("it was understood");
            let again: Request = postcard::from_bytes(&said).expect("it was said");
            assert_eq!(again.steps, request.steps);
            assert_eq!(postcard::to_stdvec(&again).expect("it was understood"), said);
        }
        1 => {
            let Ok(reply) = postcard::from_bytes::<Reply>(bytes) else { return };
            // As the launcher writes it: into 64 bytes, and without allocating.
            assert!(postcard::to_slice(&reply, &mut [0; 64]).is_ok());
        }
        _ => {
            let Ok(report) = postcard::from_bytes::<Report<Vec<u8>>>(bytes) else { return };
            let said = postcard::to_stdvec(&report).expect("it was understood");
            // Pid 1 says it without owning it.
            let borrowed: Report<&[u8]> = postcard::from_bytes(&said).expect("it was said");
            assert_eq!(postcard::to_stdvec(&borrowed).expect("it was understood"), said);
        }
    }
}

/// A project's files as an index of Python packages lists them, JSON or HTML.
pub fn listing(bytes: &[u8]) {
    if let Ok(files) = listing::parse(bytes) {
        for file in files {
            assert!(!file.name.is_empty() && !file.url.is_empty());
            let _ = listing::project_and_version(&file.name);
            let _ = listing::normalised(&file.name);
        }
    }
}

/// A lock prints to a text that reads back to the same lock.
pub fn lock(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(lock) = Lock::parse(text) {
        assert_eq!(Lock::parse(&lock.print()), Ok(lock));
    }
}

/// A manifest is canonical: it prints back to the same bytes.
pub fn manifest(bytes: &[u8]) {
    if let Ok(manifest) = Manifest::parse(bytes) {
        assert_eq!(manifest.print(), bytes);
    }
}

/// An archive within bounds, with bounded memory and depth.
pub fn nar(bytes: &[u8]) {
    let limits = Limits { entries: 1000, bytes: 1 << 20 };
    let mut entries = 0_u64;
    let walked = decode(&mut &*bytes, &limits, |_| {
        entries += 1;
        Ok(())
    });
    // A directory is told twice: where it begins and where it ends.
    assert!(walked.is_err() || entries <= 2 * limits.entries);
}

/// What a binary cache says prints to something that parses to the same.
pub fn narinfo(bytes: &[u8]) {
    let _ = CacheInfo::parse(bytes);
    if let Ok(info) = NarInfo::parse(bytes) {
        assert_eq!(NarInfo::parse(info.print().as_bytes()).as_ref(), Ok(&info));
        let _ = info.signer(&[]);
    }
}

/// A policy that loads could let something in: enough operators, each with a key that is nobody else's. Its patterns match
/// themselves, and any text is held against one in the end.
pub fn policy(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Some((pattern, subject)) = text.split_once('\n')
        && let Ok(pattern) = Pattern::new(pattern)
    {
        assert!(pattern.matches(pattern.as_str()));
        let _ = pattern.matches(subject);
    }
    if let Ok(policy) = Policy::parse(text) {
        assert!(policy.threshold.identical >= 1 && policy.operators().len() >= policy.threshold.identical as usize);
        let keys: usize = policy.rebuilders.iter().map(|rebuilder| rebuilder.keys.len()).sum();
        assert!(policy.rebuilders.iter().all(|rebuilder| !rebuilder.keys.is_empty()) && policy.keys().len() >= keys);
        assert!(!policy.provenance.external_parameters.is_empty());
    }
}

/// A recipe has a digest.
pub fn recipe(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(recipe) = Recipe::parse(text) {
        recipe.pins();
    }
}

/// What a store or a cache keeps of a build: how it ended, and what of its outputs became of which derivation.
pub fn record(bytes: &[u8]) {
    if let Ok(outcome) = serde_json::from_slice::<Outcome>(bytes) {
        let text = serde_json::to_vec(&outcome).expect("it was read");
        assert_eq!(serde_json::from_slice::<Outcome>(&text).expect("it was written"), outcome);
    }
    if let Ok(realisation) = Realisation::parse(bytes) {
        assert_eq!(Realisation::parse(realisation.print().as_bytes()).expect("it was printed"), realisation);
    }
}

/// The signed part of an InRelease.
pub fn release(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let _ = Release::parse(text);
}

/// What a wheel and an sdist say of themselves. A file name that was read is printed as it was.
pub fn wheel(bytes: &[u8]) {
    let _ = (dist_info::Wheel::parse(bytes), dist_info::Metadata::parse(bytes), wheel_record::parse(bytes));
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let _ = (BuildSystem::parse(text), Backend::of_generator(text));
    if let Ok(name) = text.parse::<WheelName>() {
        assert_eq!(name.to_string().parse::<WheelName>().as_ref(), Ok(&name));
    }
}
