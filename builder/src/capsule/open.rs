//! Capsule → build: a stranger's file, read once from front to back.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use kiln_model::digest::{Digest, NarHash};
use kiln_model::format::capsule::{self as format, Member, Place, Source, Table};
use kiln_model::lock::LockedInput;
use kiln_model::lower;
use kiln_model::outcome::Outcome;
use kiln_model::report::{About, Report};
use kiln_model::store_path::StorePath;
use kiln_model::variation::Conditions;
use kiln_model::verdict::Reference;
use sha2::{Digest as _, Sha256};

use super::claimed::{self, Claim};
use super::create::LARGEST_WINDOW;
use super::error::{CapsuleError, io};
use super::sources::{self, Arriving, Rests};
use super::texts;
use crate::build::Builder;
use crate::build::graph::{Graph, Origin};
use crate::event::{self, Level};
use crate::exit::Kind;
use crate::rebuild::{CheckError, differences};
use crate::store::{Arrival, Digests, PrivateDir, Store, StoreError, TreeLimits, Trust};

/// How often larger than the file its members may be, beyond [`FREE`]: packages are compressed already, and sources are texts.
const MOST_RATIO: u64 = 200;
/// Bytes that any capsule may unpack to.
const FREE: u64 = 64 << 20;

/// What a build needs and nobody here has.
pub type Missing = Vec<String>;

/// A capsule whose small members were read, and its others brought into the store.
#[derive(Debug)]
pub struct Opened {
    /// The file.
    path: PathBuf,
    table: Table,
    recorded: Recorded,
    graph: Graph,
    /// Holds the recipes.
    _recipes: PrivateDir,
}

/// What is said to have come out.
#[derive(Debug)]
enum Recorded {
    /// What the machine that made the capsule saw.
    Outcome(Box<Outcome>),
    /// What somebody signed.
    Claim(Claim),
}

impl Recorded {
    fn derivation(&self) -> &str {
        match self {
            Self::Outcome(outcome) => &outcome.derivation,
            Self::Claim(claim) => &claim.derivation,
        }
    }
}

type Archive<'a> = tar::Archive<zstd::Decoder<'static, BufReader<&'a File>>>;

impl Opened {
    /// Reads the capsule at `path`. Before anything large is read it is known whether all is there that the build needs.
    pub fn read(store: &Store, path: &Path) -> Result<Self, CapsuleError> {
        let malformed = |violation: String| CapsuleError::Malformed { path: path.into(), violation };
        let broken = |error: io::Error| malformed(format!("{error}; it may have been cut short"));
        let file = File::open(path).map_err(io("opening", path))?;
        let meta = file.metadata().map_err(io("opening", path))?;
        if !meta.is_file() {
            return Err(malformed("it is no file".into()));
        }
        let mut decoder = zstd::Decoder::new(&file).map_err(broken)?;
        decoder.window_log_max(LARGEST_WINDOW).map_err(broken)?;
        let mut archive: Archive<'_> = tar::Archive::new(decoder.single_frame());
        let mut entries = archive.entries().map_err(broken)?;
        let mut next = |name: &str, size: Option<u64>| -> Result<_, CapsuleError> {
            let entry = entries.next().ok_or_else(|| malformed(format!("it ends before {name}")))?.map_err(broken)?;
            let found = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let regular = entry.header().entry_type() == tar::EntryType::Regular;
            if found != name || !regular || size.is_some_and(|size| size != entry.size()) {
                let found: String = found.chars().take(80).collect();
                return Err(malformed(format!(
                    "expected {name} of {} bytes, found {found:?} of {}",
                    size.unwrap_or(0),
                    entry.size()
                )));
            }
            Ok(entry)
        };

        let mut text = Vec::new();
        let limit = format::LIMITS.bytes as u64;
        next(format::TABLE, None)?.take(limit + 1).read_to_end(&mut text).map_err(broken)?;
        let table = Table::parse(&text).map_err(|source| CapsuleError::Table { path: path.into(), source })?;
        let unpacked = table.members.iter().fold(0_u64, |sum, member| sum.saturating_add(member.size));
        if unpacked > FREE.saturating_add(meta.len().saturating_mul(MOST_RATIO)) {
            return Err(CapsuleError::Bomb { path: path.into(), unpacked, ratio: MOST_RATIO });
        }

        let recipes = store.private_dir()?;
        let (mut recorded, mut derivations, mut large) = (None, BTreeMap::new(), Vec::new());
        let mut texts = BTreeMap::new();
        for member in &table.members {
            if matches!(member.place, Place::File(_) | Place::Tree(_)) {
                large.push(member);
                continue;
            }
            let mut bytes = Vec::new();
            let entry = next(&member.place.to_string(), Some(member.size))?;
            entry.take(member.size).read_to_end(&mut bytes).map_err(broken)?;
            held(path, member, Digest::of(&bytes))?;
            match &member.place {
                Place::Outcome => {
                    let parsed = serde_json::from_slice::<Outcome>(&bytes);
                    let outcome = parsed.map_err(|error| malformed(format!("outcome.json: {error}")))?;
                    recorded = Some(Recorded::Outcome(Box::new(outcome)));
                }
                Place::Statement => recorded = Some(Recorded::Claim(Claim::read(&bytes, path)?)),
                Place::Derivation(derivation) => drop(derivations.insert(derivation.clone(), bytes)),
                Place::Recipe(place) => drop(texts.insert(place.clone(), bytes)),
                Place::File(_) | Place::Tree(_) => {}
            }
        }
        let recorded = recorded.ok_or_else(|| malformed("it has no outcome".into()))?;
        let target = match &table.recipe {
            Some(recipe) => {
                texts::write_all(recipes.path(), &texts, path)?;
                recipes.path().join(recipe)
            }
            None => texts::write_derivations(recipes.path(), &derivations, &table.derivation.to_string())?
                .ok_or_else(|| malformed(format!("it has no {}", table.derivation)))?,
        };
        let graph = Graph::load(&[target], store)?;
        let opened = Self { path: path.into(), table: table.clone(), recorded, graph, _recipes: recipes };
        opened.check_derivations(&derivations)?;
        let missing = opened.missing(store)?;
        if !missing.is_empty() {
            return Err(CapsuleError::Incomplete { path: path.into(), missing });
        }
        let mut arriving = Arriving::default();
        for member in large {
            let mut entry = next(&member.place.to_string(), Some(member.size))?;
            opened.bring(store, member, &mut arriving, &mut entry)?;
        }
        if entries.next().is_some() {
            return Err(malformed("something follows its last member".into()));
        }
        // To the end of the frame, where its checksum is.
        let mut decoder = archive.into_inner();
        let rest = io::copy(&mut decoder.by_ref().take(1 << 20), &mut io::sink()).map_err(broken)?;
        let mut file = decoder.finish();
        let after = file.read(&mut [0; 1]).map_err(io("reading", path))?;
        if rest == 1 << 20 || after > 0 {
            return Err(malformed("something follows its end".into()));
        }
        arriving.register(store, &opened.table.sources, path)?;
        Ok(opened)
    }

    /// Digest and path of the build that it is of.
    pub fn derivation(&self) -> &StorePath {
        &self.table.derivation
    }

    /// Builds what it is of, whatever the store has already, and holds that against what it says came out.
    pub fn rebuild(&self, builder: &Builder<'_>) -> Result<Report, CheckError> {
        let index = self.graph.wanted[0];
        let recorded = match &self.recorded {
            Recorded::Outcome(recorded) => recorded,
            Recorded::Claim(claim) => {
                let target = self.path.display().to_string();
                return claimed::hold(builder, (&self.graph, index), std::slice::from_ref(claim), &target)
                    .map(|mut reports| reports.remove(0));
            }
        };
        let node = &self.graph.nodes[index];
        builder.needs(&self.graph, index)?;
        let provided = builder.provide(&self.graph, index)?;
        event::say(builder.events, Level::Note, format!("building {}", node.title()));
        let run = builder.run(node, &provided, &Conditions::control(builder.settings.cores), &|| ())?;
        let outcomes = vec![(**recorded).clone(), run.outcome];
        let differences = differences(builder, &outcomes)?;
        let about = About { title: node.title(), recipe: None, derivation: Some(node.path.to_string()), origin: None };
        Ok(Report::of(about, outcomes, &Reference::None, differences))
    }

    /// Recipes and locks must make the derivations that are said to be made; where there are none, those are all that is needed.
    fn check_derivations(&self, said: &BTreeMap<StorePath, Vec<u8>>) -> Result<(), CapsuleError> {
        let refuse = |expected: &str, found: &str| {
            Err(CapsuleError::Derivation { path: self.path.clone(), expected: expected.into(), found: found.into() })
        };
        let wanted = &self.graph.nodes[self.graph.wanted[0]].path;
        let named = self.table.derivation.to_string();
        if *wanted != self.table.derivation {
            return refuse(&named, &wanted.to_string());
        }
        if self.recorded.derivation() != named {
            return refuse(self.recorded.derivation(), &named);
        }
        for (path, text) in said {
            let node = self.graph.nodes.iter().find(|node| node.path == *path);
            if node.is_none_or(|node| node.derivation.print() != *text) {
                return refuse(&path.to_string(), "no such derivation, or another text");
            }
        }
        Ok(())
    }

    /// What the build needs that neither the capsule nor the store has.
    fn missing(&self, store: &Store) -> Result<Missing, CapsuleError> {
        let there: BTreeSet<&Place> = self.table.members.iter().map(|member| &member.place).collect();
        let mut missing = Missing::new();
        if self.table.recipe.is_none() {
            let rests = Rests::of(&self.graph, self.graph.wanted[0]);
            let packed = |source: &&Source| there.contains(&Place::Tree(source.nar_hash));
            let packed: BTreeSet<_> = self.table.sources.iter().filter(packed).map(|source| &source.path).collect();
            let needed: BTreeSet<_> =
                rests.paths().chain(self.table.sources.iter().map(|source| &source.path)).collect();
            for path in needed.difference(&packed) {
                if !sources::has(store, path)? {
                    missing.push(path.to_string());
                }
            }
        }
        for node in &self.graph.nodes {
            let Origin::Recipe(locked) = &node.origin else { continue };
            let environment = &locked.lock.environment;
            if store.environment(&environment.nar_hash, Trust::Fingerprint)?.is_none() {
                for package in &environment.packages {
                    if !there.contains(&Place::File(package.sha256)) && store.file(&package.sha256)?.is_none() {
                        missing.push(format!("{}_{}_{}.deb", package.name, package.version, package.arch));
                    }
                }
            }
            for (variable, input) in &locked.lock.inputs {
                if store.path_info(&locked.inputs[variable])?.is_some() {
                    continue;
                }
                match input {
                    LockedInput::Git { nar_hash, .. } | LockedInput::Path { nar_hash, .. } => {
                        if !there.contains(&Place::Tree(*nar_hash)) {
                            missing.push(format!("inputs.{variable}"));
                        }
                    }
                    LockedInput::DebianSource { files, .. }
                    | LockedInput::Url { files, .. }
                    | LockedInput::Pypi { files, .. } => {
                        for file in files {
                            if !there.contains(&Place::File(file.sha256)) && store.file(&file.sha256)?.is_none() {
                                missing.push(file.path.clone());
                            }
                        }
                    }
                }
            }
        }
        Ok(missing)
    }

    /// Adds a file or a tree to the store, by its digest.
    fn bring(
        &self,
        store: &Store,
        member: &Member,
        arriving: &mut Arriving,
        bytes: &mut dyn Read,
    ) -> Result<(), CapsuleError> {
        let shown = format!("{} in {}", member.place, self.path.display());
        let wrong = |found| CapsuleError::Digest {
            path: self.path.clone(),
            member: member.place.to_string(),
            expected: member.sha256,
            found,
        };
        let refused = |error: StoreError| match error {
            StoreError::WrongFile { found, .. } => wrong(found),
            // The only file that is read here is the capsule.
            StoreError::Io { act: "receiving", source, .. } => {
                CapsuleError::Malformed { path: self.path.clone(), violation: format!("{}: {source}", member.place) }
            }
            error => CapsuleError::Store(error),
        };
        match &member.place {
            Place::File(digest) => {
                let mut hashing = Hashing { reader: bytes, hasher: Sha256::new() };
                store.add_file(&shown, &mut hashing, digest).map_err(refused)?;
                // What the store has already it does not read.
                io::copy(&mut hashing, &mut io::sink()).map_err(|error| CapsuleError::Malformed {
                    path: self.path.clone(),
                    violation: format!("{}: {error}", member.place),
                })?;
                held(&self.path, member, Digest::from_bytes(hashing.hasher.finalize().into()))
            }
            Place::Tree(nar_hash) => self.restore(store, nar_hash, member, arriving, bytes),
            Place::Outcome | Place::Statement | Place::Derivation(_) | Place::Recipe(_) => Ok(()),
        }
    }

    fn restore(
        &self,
        store: &Store,
        nar_hash: &NarHash,
        member: &Member,
        arriving: &mut Arriving,
        bytes: &mut dyn Read,
    ) -> Result<(), CapsuleError> {
        let mut hashing = Hashing { reader: bytes, hasher: Sha256::new() };
        let restored = match &self.table.recipe {
            Some(_) => {
                let limits = TreeLimits { bytes: member.size, ..TreeLimits::default() };
                store.restore(&mut hashing, limits).map(Some)
            }
            None => {
                let of = (&self.table.sources[..], nar_hash);
                arriving.restore(store, of, &mut hashing, member.size).map(|()| None)
            }
        };
        // Whatever went wrong inside, other bytes than said are what matters.
        io::copy(&mut hashing, &mut io::sink()).map_err(|error| CapsuleError::Malformed {
            path: self.path.clone(),
            violation: format!("{}: {error}", member.place),
        })?;
        held(&self.path, member, Digest::from_bytes(hashing.hasher.finalize().into()))?;
        let restored = restored.map_err(|error| match error.kind() {
            Kind::Host => CapsuleError::Store(error),
            _ => CapsuleError::Malformed { path: self.path.clone(), violation: format!("{}: {error}", member.place) },
        })?;
        let (mut restored, mut first) = (restored, None);
        for node in &self.graph.nodes {
            let Origin::Recipe(locked) = &node.origin else { continue };
            for (variable, input) in &locked.lock.inputs {
                let tree = matches!(input, LockedInput::Git { .. } | LockedInput::Path { .. });
                if !tree || input.nar_hash() != *nar_hash || store.path_info(&locked.inputs[variable])?.is_some() {
                    continue;
                }
                let arrival = Arrival {
                    path: StorePath::source(&lower::input_name(input), nar_hash, &BTreeSet::new()),
                    references: BTreeSet::new(),
                    deriver: None,
                    ca: Some(StorePath::source_address(nar_hash)),
                    signatures: BTreeSet::new(),
                    substituted: None,
                };
                match restored.take() {
                    Some(restored) => first = Some(store.register_restored(restored, arrival)?.path),
                    // The same tree under another name.
                    None => {
                        let place = first.as_ref().map(|first| store.physical(first)).unwrap_or_default();
                        store.add_tree(&lower::input_name(input), &place, Digests::Nar)?;
                    }
                }
            }
        }
        Ok(())
    }
}

fn held(path: &Path, member: &Member, found: Digest) -> Result<(), CapsuleError> {
    match found == member.sha256 {
        true => Ok(()),
        false => {
            let (member, expected) = (member.place.to_string(), member.sha256);
            Err(CapsuleError::Digest { path: path.into(), member, expected, found })
        }
    }
}

/// Digests what is read.
struct Hashing<'a> {
    reader: &'a mut dyn Read,
    hasher: Sha256,
}

impl Read for Hashing<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        Ok(count)
    }
}
