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
use kiln_model::canonical;
use kiln_model::debian::{dependency, version::Version};
use kiln_model::derivation::Derivation;
use kiln_model::envelope::Envelope;
use kiln_model::format::buildinfo::Buildinfo;
use kiln_model::format::bundle::Bundle;
use kiln_model::format::cache_info::CacheInfo;
use kiln_model::format::capsule::Table;
use kiln_model::format::export::{Extent, Trailer, another};
use kiln_model::format::link::Link;
use kiln_model::format::nar::{Limits, decode};
use kiln_model::format::narinfo::NarInfo;
use kiln_model::format::openvex::{Document, Known};
use kiln_model::format::osv::{Advisory, Ecosystem, Subject};
use kiln_model::format::purl::Purl;
use kiln_model::format::pyproject::BuildSystem;
use kiln_model::format::realisation::Realisation;
use kiln_model::format::release::Release;
use kiln_model::format::{apt_hook, dist_info, packages, record as wheel_record, sources, status};
use kiln_model::key::SecretKey;
use kiln_model::lock::Lock;
use kiln_model::log::tile::{self, Level, Tile};
use kiln_model::log::{Checkpoint, LogPolicy, Proof, SignedNote, Vkey, tree};
use kiln_model::outcome::Outcome;
use kiln_model::policy::{Pattern, Policy};
use kiln_model::recipe::Recipe;
use kiln_model::sbom::{Licence, Party, licence};
use kiln_model::statement::Statement;
use kiln_model::tree::Manifest;
use kiln_model::wheel::{Backend, WheelName};

/// What a fuzzer calls.
pub type Target = fn(&[u8]);

/// Every parser by the name of its target.
pub const TARGETS: [(&str, Target); 29] = [
    ("buildinfo", buildinfo),
    ("bundle", bundle),
    ("capsule", capsule),
    ("checkpoint", checkpoint),
    ("deb", deb),
    ("dependency", dependency),
    ("derivation", derivation),
    ("envelope", envelope),
    ("export", export),
    ("index", index),
    ("launcher", launcher),
    ("link", link),
    ("listing", listing),
    ("lock", lock),
    ("manifest", manifest),
    ("nar", nar),
    ("narinfo", narinfo),
    ("openvex", openvex),
    ("osv", osv),
    ("purl", purl),
    ("policy", policy),
    ("recipe", recipe),
    ("record", record),
    ("release", release),
    ("sbom", sbom),
    ("statement", statement),
    ("tile", tile),
    ("tlog_policy", tlog_policy),
    ("wheel", wheel),
];

/// A record of a build: what is written of it says the same of what was built and with what, and is written so again. Blanks around
/// other values are not kept.
pub fn buildinfo(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(info) = Buildinfo::parse(text) else { return };
    let printed = info.print();
    let again = Buildinfo::parse(&printed).expect("it was printed");
    let said = |info: &Buildinfo| {
        let files = info.files.iter().map(|file| (file.name.clone(), file.size, file.sha256)).collect::<Vec<_>>();
        let versions = (info.source.clone(), info.source_version.clone(), info.version.clone());
        (versions, files, info.installed.clone(), info.environment.clone())
    };
    assert_eq!(said(&again), said(&info));
    assert_eq!(again.print(), printed);
}

/// A Sigstore bundle prints to bytes that parse to the same.
pub fn bundle(bytes: &[u8]) {
    if let Ok(bundle) = Bundle::parse(bytes) {
        assert_eq!(Bundle::parse(&bundle.print()).expect("it was printed"), bundle);
    }
}

/// What is signed of an in-toto link is canonical: read again from that form, it is the same link.
pub fn link(bytes: &[u8]) {
    if let Ok(link) = Link::parse(bytes) {
        assert!(Link::is_meant(bytes));
        let canonical =
            [&b"{\"signatures\":[{\"keyid\":\"\",\"sig\":\"\"}],\"signed\":"[..], &link.signed, b"}"].concat();
        let again = Link::parse(&canonical).expect("it was printed");
        assert_eq!((again.name, again.products, again.signed), (link.name, link.products, link.signed));
    }
}

/// A signed note, a checkpoint and a proof print as they were; but for a proof's extra line, which nobody believes.
pub fn checkpoint(bytes: &[u8]) {
    if let Ok(note) = SignedNote::parse(bytes) {
        assert_eq!(note.print().as_bytes(), bytes);
        if let Ok(checkpoint) = Checkpoint::parse(note.text()) {
            assert_eq!(checkpoint.print(), note.text());
        }
    }
    if let Ok(proof) = Proof::parse(bytes) {
        let printed = proof.print();
        assert_eq!(Proof::parse(printed.as_bytes()).as_ref(), Ok(&proof));
        assert!(printed.as_bytes() == bytes || bytes.windows(7).any(|window| window == b"\nextra "));
    }
}

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

/// An index of packages, and one of sources; dpkg's own database, and what apt tells before it installs.
pub fn index(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let _ = packages::read::<packages::IndexError>(text, |_| Ok(()));
    let _ = sources::read::<packages::IndexError>(text, |_| true, |_| Ok(()));
    let _ = status::read(text);
    if let Ok(steps) = apt_hook::parse(text) {
        assert!(steps.iter().all(|step| !step.package.is_empty()));
    }
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

/// An envelope has one canonical form, which is read back to it; what is no strict JSON other readers do not take either.
pub fn envelope(bytes: &[u8]) {
    if canonical::check(bytes, canonical::Limits::ENVELOPE).is_ok() {
        // Numbers beyond a double's range are the one thing that the grammar allows and this reader does not.
        let read = serde_json::from_slice::<serde_json::Value>(bytes);
        if let Err(error) = read {
            assert!(error.to_string().contains("number out of range"), "{error}");
        }
    }
    let Ok(envelope) = Envelope::parse(bytes) else { return };
    let printed = envelope.canonical();
    let again = Envelope::parse(&printed).expect("it was printed");
    assert_eq!(again.canonical(), printed);
    assert_eq!((&again, again.id()), (&envelope, envelope.id()));
    assert!(envelope.verified_by(&SecretKey::ed25519(&[7; 32]).public()).is_err(), "nobody signed it");
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

/// What is printed of a statement is read back to it.
pub fn statement(bytes: &[u8]) {
    let Ok(statement) = Statement::parse(bytes) else { return };
    if let Ok(printed) = statement.print() {
        let again = Statement::parse(&printed).expect("it was printed");
        assert_eq!(again, statement);
        assert_eq!(again.print().expect("it was printed"), printed);
    }
}

/// A tile's path, or a bundle of entries: the first byte says how many. What is read is written as it was.
pub fn tile(bytes: &[u8]) {
    if let Some((width, bundle)) = bytes.split_first() {
        let tile = Tile { level: Level::Entries, index: 0, width: u16::from(*width) + 1 };
        if let Ok(entries) = tile::entries(tile, bundle) {
            let mut again = Vec::new();
            for entry in entries {
                tile::append_entry(&mut again, entry).expect("it was read");
            }
            assert_eq!(again, bundle);
        }
        if let Ok(part) = tile::bundle_prefix(tile, bundle) {
            assert!(tile::entries(tile, part).is_ok());
        }
        let hashes = Tile { level: Level::Hashes(0), ..tile };
        assert_eq!(tree::hashes(hashes, bundle).is_ok(), bundle.len() == usize::from(hashes.width) * 32);
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(tile) = text.parse::<Tile>() {
        assert_eq!(tile.to_string(), text);
        assert!(!text.contains("..") && !text.starts_with('/'));
    }
    if let Ok(key) = text.parse::<Vkey>() {
        assert_eq!(key.to_string(), text);
    }
}

/// A log policy, and a note that it judges, with a NUL between them.
pub fn tlog_policy(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (policy, note) = text.split_once('\0').unwrap_or((text, ""));
    let Ok(policy) = LogPolicy::parse(policy) else { return };
    if let Ok(believed) = SignedNote::parse(note.as_bytes()).and_then(|note| policy.believe(&note)) {
        assert!(policy.logs().contains(&believed.log));
        assert_eq!(believed.cosigned.is_some(), policy.has_quorum());
    }
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

/// The table of a capsule: none of its members leads anywhere else.
pub fn capsule(bytes: &[u8]) {
    let Ok(table) = Table::parse(bytes) else { return };
    for member in &table.members {
        stays_below(member.place.to_string().as_bytes());
    }
    assert_eq!(Table::parse(&table.print().expect("it was read")).expect("it was printed"), table);
}

/// Somebody's word on a vulnerability: what can be printed says the same when it is read again.
pub fn openvex(bytes: &[u8]) {
    let Ok(document) = Document::parse(bytes) else { return };
    let nothing = Known { purl: None, sha256: None };
    let _ = document.excuse(&["CVE-1"], &nothing, &nothing);
    if let Ok(printed) = document.print() {
        assert_eq!(Document::parse(&printed).expect("it was printed"), document);
    }
}

/// An advisory, held against versions that are some and that are none.
pub fn osv(bytes: &[u8]) {
    let Ok(advisory) = Advisory::parse(bytes) else { return };
    assert!(advisory.score().is_none_or(|score| (0.0..=10.0).contains(&score)));
    let package = advisory.affected.first().and_then(|affected| affected.package.as_ref());
    let name = package.map_or("curl", |package| package.name.as_str());
    for version in ["1", "0~1", "1.2-3+b1", "2!1.0rc1", "none at all"] {
        for ecosystem in [Ecosystem::Debian { release: None }, Ecosystem::Pypi] {
            let _ = advisory.judge(&Subject { ecosystem, name, version });
        }
    }
}

/// A package URL has one spelling, and names itself.
pub fn purl(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(purl) = text.parse::<Purl>() else { return };
    assert!(purl.names(&purl));
    assert_eq!(purl.to_string().parse(), Ok(purl));
}

/// What packages say of licences and people: whatever it is, an expression comes of it that holds each of its references.
pub fn sbom(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let _ = Party::maintainer(&text);
    let _ = dist_info::About::parse(bytes);
    let licences = [licence::told("fuzzed", &text).licence, Some(Licence::of_words(&text, &Default::default()))];
    for licence in licences.into_iter().flatten() {
        assert!(!licence.expression.is_empty());
        assert!(licence.references.keys().all(|name| licence.expression.contains(name.as_str())));
        if licence.is_known() {
            assert!(Licence::of_expression(&licence.expression).is_some(), "{}", licence.expression);
        }
    }
}
