//! Build → capsule.
//!
//! Members are digested before anything is written, since the table comes first; headers have no time and no owner, and the
//! archive is compressed by one thread, so that the same build gives the same file.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Cursor, Read, Write};
use std::path::{Path, PathBuf};

use kiln_model::digest::{Digest, NarHash};
use kiln_model::format::capsule::{self as format, Member, Place, Source, Table};
use kiln_model::lock::LockedInput;
use kiln_model::outcome::Outcome;
use sha2::{Digest as _, Sha256};

use super::error::{CapsuleError, io};
use super::sources;
use super::texts::{self, Texts};
use crate::build::graph::{Graph, Locked, Origin};
use crate::build::{Builder, provide};
use crate::nix;

/// What most is already compressed: packages.
const LEVEL: i32 = 3;
/// 128 MiB, what zstd's command takes without being told.
pub(super) const LARGEST_WINDOW: u32 = 27;

/// A capsule that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Created {
    /// Digest of the file.
    pub sha256: Digest,
    /// Its bytes.
    pub size: u64,
    /// What is in it.
    pub members: usize,
}

/// Where a member's bytes are.
enum Bytes {
    Text(Vec<u8>),
    File(PathBuf),
}

/// What a capsule says came out: what whoever rebuilds from it holds the own result against.
#[derive(Debug, Clone, Copy)]
pub enum Said<'a> {
    /// What this machine saw.
    Outcome(&'a Outcome),
    /// What somebody signed, as it was read.
    Statement(&'a [u8]),
}

impl Said<'_> {
    fn member(self) -> (Place, Bytes) {
        match self {
            Self::Outcome(outcome) => {
                // What is cached is said by the run that looks, not by the build.
                let outcome = Outcome { cached: false, ..outcome.clone() };
                let json = serde_json::to_vec(&outcome).expect("an outcome has string keys only");
                (Place::Outcome, Bytes::Text(json))
            }
            Self::Statement(bytes) => (Place::Statement, Bytes::Text(bytes.to_vec())),
        }
    }
}

/// Writes the capsule of node `index` of `graph`, of which `said` tells what came out, to `out`. Files that the store no longer
/// has are fetched.
pub fn create(
    builder: &Builder<'_>,
    graph: &Graph,
    index: usize,
    said: Said<'_>,
    out: &mut File,
) -> Result<Created, CapsuleError> {
    let wanted = &graph.nodes[index];
    let private = builder.store.private_dir()?;
    let mut packing = Packing { builder, private: private.path(), members: BTreeMap::from([said.member()]) };
    let (recipe, sources) = match &wanted.origin {
        Origin::Recipe(locked) => (Some(packing.recipes(graph, index, locked)?), Vec::new()),
        Origin::Derivation => (None, packing.derivations(graph, index)?),
    };
    let members = packing.members;
    let table = Table {
        schema: format::SCHEMA.into(),
        recipe,
        derivation: wanted.path.clone(),
        sources,
        members: members.iter().map(|(place, bytes)| bytes.member(place)).collect::<Result<_, _>>()?,
    };
    let shown = PathBuf::from(format::TABLE);
    let text = table.print().map_err(|source| CapsuleError::Table { path: shown.clone(), source })?;
    write(&text, &table, &members, out)
}

/// The members, as they are found.
struct Packing<'a> {
    builder: &'a Builder<'a>,
    /// Where archives of trees lie until they are packed.
    private: &'a Path,
    members: BTreeMap<Place, Bytes>,
}

impl Packing<'_> {
    /// Recipes and locks of a build, and what those name. Where the wanted one lies among them.
    fn recipes(&mut self, graph: &Graph, index: usize, wanted: &Locked) -> Result<String, CapsuleError> {
        let builder = self.builder;
        let texts = Texts::of(graph, index, wanted)?;
        for node in texts::closure(graph, index).into_iter().map(|one| &graph.nodes[one]) {
            self.members.insert(Place::Derivation(node.path.clone()), Bytes::Text(node.derivation.print()));
            let Some(locked) = texts::locked(node) else { continue };
            let packages = locked.lock.environment.packages.iter().map(provide::package);
            let sources = locked.lock.inputs.values().flat_map(provide::files).map(|(wanted, _)| wanted);
            let files: Vec<_> = packages.chain(sources).collect();
            for (wanted, path) in files.iter().zip(builder.fetched(&files)?) {
                self.members.insert(Place::File(wanted.sha256), Bytes::File(path));
            }
            for (variable, input) in &locked.lock.inputs {
                let (LockedInput::Git { nar_hash, .. } | LockedInput::Path { nar_hash, .. }) = input else { continue };
                let path = &locked.inputs[variable];
                builder.store.check(path, crate::store::Trust::Fingerprint)?;
                self.tree(nar_hash, &builder.store.physical(path))?;
            }
        }
        self.members.extend(texts.members.into_iter().map(|(place, text)| (place, Bytes::Text(text))));
        Ok(texts.recipe)
    }

    /// Derivations as they are, and what they rest on.
    fn derivations(&mut self, graph: &Graph, index: usize) -> Result<Vec<Source>, CapsuleError> {
        let gathered = sources::gather(self.builder, graph, index)?;
        for (source, place) in &gathered {
            self.tree(&source.nar_hash, place)?;
        }
        let texts = Texts::of_derivations(graph, index);
        self.members.extend(texts.into_iter().map(|(place, text)| (place, Bytes::Text(text))));
        Ok(gathered.into_iter().map(|(source, _)| source).collect())
    }

    fn tree(&mut self, nar_hash: &NarHash, tree: &Path) -> Result<(), CapsuleError> {
        let archive = self.private.join(nar_hash.digest().to_string());
        let mut file = BufWriter::new(File::create(&archive).map_err(io("creating", &archive))?);
        nix::dump(tree, &mut file)?;
        file.flush().map_err(io("writing", &archive))?;
        self.members.insert(Place::Tree(*nar_hash), Bytes::File(archive));
        Ok(())
    }
}

impl Bytes {
    fn open(&self) -> Result<Box<dyn Read + '_>, CapsuleError> {
        Ok(match self {
            Self::Text(text) => Box::new(Cursor::new(text)),
            Self::File(path) => Box::new(File::open(path).map_err(io("opening", path))?),
        })
    }

    fn shown(&self) -> PathBuf {
        match self {
            Self::Text(_) => PathBuf::from("a text"),
            Self::File(path) => path.clone(),
        }
    }

    fn member(&self, place: &Place) -> Result<Member, CapsuleError> {
        let mut hasher = Sha256::new();
        let size = io::copy(&mut self.open()?, &mut Hashing(&mut hasher)).map_err(io("reading", &self.shown()))?;
        Ok(Member { place: place.clone(), size, sha256: Digest::from_bytes(hasher.finalize().into()) })
    }
}

fn write(
    text: &[u8],
    table: &Table,
    members: &BTreeMap<Place, Bytes>,
    out: &mut File,
) -> Result<Created, CapsuleError> {
    let shown = PathBuf::from("the capsule");
    let failed = || io("writing", &shown);
    let mut hasher = Sha256::new();
    let counted = Both { out, hasher: &mut hasher, size: 0 };
    let mut encoder = zstd::Encoder::new(BufWriter::with_capacity(1 << 20, counted), LEVEL).map_err(failed())?;
    encoder.include_checksum(true).map_err(failed())?;
    encoder.window_log(LARGEST_WINDOW).map_err(failed())?;
    let mut tar = tar::Builder::new(encoder);
    append(&mut tar, format::TABLE, text.len() as u64, &mut &text[..]).map_err(failed())?;
    for (member, bytes) in table.members.iter().zip(members.values()) {
        let mut reader = Exactly { reader: bytes.open()?, hasher: Sha256::new() };
        append(&mut tar, &member.place.to_string(), member.size, &mut reader).map_err(failed())?;
        let found = Digest::from_bytes(reader.hasher.finalize().into());
        if found != member.sha256 {
            // Somebody writes to it while it is packed.
            let (path, member, expected) = (bytes.shown(), member.place.to_string(), member.sha256);
            return Err(CapsuleError::Digest { path, member, expected, found });
        }
    }
    let encoder = tar.into_inner().map_err(failed())?;
    let counted =
        encoder.finish().and_then(|buffer| buffer.into_inner().map_err(|e| e.into_error())).map_err(failed())?;
    let size = counted.size;
    counted.out.sync_all().map_err(failed())?;
    Ok(Created { sha256: Digest::from_bytes(hasher.finalize().into()), size, members: members.len() })
}

fn append(tar: &mut tar::Builder<impl Write>, name: &str, size: u64, bytes: &mut dyn Read) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(size);
    header.set_mode(0o644);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header.set_entry_type(tar::EntryType::Regular);
    tar.append_data(&mut header, name, bytes)
}

/// Digests what is written.
struct Hashing<'h>(&'h mut Sha256);

impl Write for Hashing<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Digests what is read.
struct Exactly<R> {
    reader: R,
    hasher: Sha256,
}

impl<R: Read> Read for Exactly<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        Ok(count)
    }
}

/// Writes and digests.
struct Both<'a> {
    out: &'a mut File,
    hasher: &'a mut Sha256,
    size: u64,
}

impl Write for Both<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.out.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        self.size += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
