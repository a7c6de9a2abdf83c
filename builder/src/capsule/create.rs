//! Build → capsule.
//!
//! Members are digested before anything is written, since the table comes first; headers have no time and no owner, and the
//! archive is compressed by one thread, so that the same build gives the same file.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Cursor, Read, Write};
use std::path::{Path, PathBuf};

use kiln_model::digest::Digest;
use kiln_model::format::capsule::{self as format, Member, Place, Table};
use kiln_model::lock::LockedInput;
use kiln_model::outcome::Outcome;
use kiln_model::recipe::Input;
use sha2::{Digest as _, Sha256};

use super::error::{CapsuleError, io};
use crate::build::graph::{Graph, Locked, Node, Origin};
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

/// Writes the capsule of node `index` of `graph`, which had `outcome`, to `out`. Files that the store no longer has are fetched.
pub fn create(
    builder: &Builder<'_>,
    graph: &Graph,
    index: usize,
    outcome: &Outcome,
    out: &mut File,
) -> Result<Created, CapsuleError> {
    let wanted = &graph.nodes[index];
    let locked: Vec<(&Node, &Locked)> =
        graph.nodes.iter().map(|node| Ok((node, locked(node)?))).collect::<Result<_, CapsuleError>>()?;
    let top = common(locked.iter().map(|(_, locked)| locked.recipe.dir.as_path()));
    let mut members: BTreeMap<Place, Bytes> = BTreeMap::new();
    // What is cached is said by the run that looks, not by the build.
    let outcome = Outcome { cached: false, ..outcome.clone() };
    let json = serde_json::to_vec(&outcome).expect("an outcome has string keys only");
    members.insert(Place::Outcome, Bytes::Text(json));
    let private = builder.store.private_dir()?;
    for (node, locked) in &locked {
        members.insert(Place::Derivation(node.path.clone()), Bytes::Text(node.derivation.print()));
        let directory = place_of(&locked.recipe.dir, &top)?;
        check_neighbours(locked)?;
        for file in ["recipe.toml", "recipe.lock"] {
            let path = locked.recipe.dir.join(file);
            let text = std::fs::read(&path).map_err(io("reading", &path))?;
            members.insert(recipe_place(&directory, file, &locked.recipe.dir)?, Bytes::Text(text));
        }
        let packages = locked.lock.environment.packages.iter().map(provide::package);
        let sources = locked.lock.inputs.values().flat_map(provide::files).map(|(wanted, _)| wanted);
        let files: Vec<_> = packages.chain(sources).collect();
        for (wanted, path) in files.iter().zip(builder.fetched(&files)?) {
            members.insert(Place::File(wanted.sha256), Bytes::File(path));
        }
        for (variable, input) in &locked.lock.inputs {
            let (LockedInput::Git { nar_hash, .. } | LockedInput::Path { nar_hash, .. }) = input else { continue };
            let path = &locked.inputs[variable];
            builder.store.check(path, crate::store::Trust::Fingerprint)?;
            let archive = private.path().join(nar_hash.digest().to_string());
            let mut file = BufWriter::new(File::create(&archive).map_err(io("creating", &archive))?);
            nix::dump(&builder.store.physical(path), &mut file)?;
            file.flush().map_err(io("writing", &archive))?;
            members.insert(Place::Tree(*nar_hash), Bytes::File(archive));
        }
    }
    let table = Table {
        schema: format::SCHEMA.into(),
        recipe: place_of(&wanted_dir(wanted)?, &top)?,
        derivation: wanted.path.clone(),
        members: members.iter().map(|(place, bytes)| bytes.member(place)).collect::<Result<_, _>>()?,
    };
    let shown = PathBuf::from(format::TABLE);
    let text = table.print().map_err(|source| CapsuleError::Table { path: shown.clone(), source })?;
    write(&text, &table, &members, out)
}

fn locked(node: &Node) -> Result<&Locked, CapsuleError> {
    match &node.origin {
        Origin::Recipe(locked) => Ok(locked),
        Origin::Derivation => Err(CapsuleError::NoRecipe { target: node.shown.display().to_string() }),
    }
}

fn wanted_dir(node: &Node) -> Result<PathBuf, CapsuleError> {
    Ok(locked(node)?.recipe.dir.clone())
}

/// The deepest directory that all lie in; of one, that itself.
fn common<'p>(mut paths: impl Iterator<Item = &'p Path>) -> PathBuf {
    let mut top = paths.next().unwrap_or(Path::new("/"));
    for path in paths {
        while !path.starts_with(top) {
            top = top.parent().unwrap_or(Path::new("/"));
        }
    }
    top.to_path_buf()
}

/// Where a recipe lies below the directory that all lie in.
fn place_of(directory: &Path, top: &Path) -> Result<String, CapsuleError> {
    let below = directory.strip_prefix(top).ok().and_then(Path::to_str);
    let unreadable = || CapsuleError::Place { recipe: directory.into(), why: "its path is not UTF-8" };
    below.map(String::from).ok_or_else(unreadable)
}

fn recipe_place(directory: &str, file: &str, shown: &Path) -> Result<Place, CapsuleError> {
    let place = format!("recipes/{}", format::recipe_file(directory, file));
    let refused =
        |_| CapsuleError::Place { recipe: shown.into(), why: "its path is too deep or has unusual characters" };
    place.parse().map_err(refused)
}

/// Recipes that this one names must lie where the name leads without links: a capsule has none.
fn check_neighbours(locked: &Locked) -> Result<(), CapsuleError> {
    let here = &locked.recipe.dir;
    for input in locked.recipe.recipe.inputs.values() {
        let Input::Recipe { recipe, .. } = input else { continue };
        let path = here.join(recipe);
        let real = std::fs::canonicalize(&path).map_err(io("locating", &path))?;
        let mut plain = PathBuf::new();
        for part in path.components() {
            match part {
                std::path::Component::ParentDir => drop(plain.pop()),
                std::path::Component::CurDir => {}
                other => plain.push(other),
            }
        }
        let file = plain.file_name().is_some_and(|name| name == "recipe.toml");
        let plain = if file { plain.parent().unwrap_or(&plain).to_path_buf() } else { plain };
        let real = if file { real.parent().unwrap_or(&real).to_path_buf() } else { real };
        if plain != real {
            return Err(CapsuleError::Place { recipe: plain, why: "a link leads there" });
        }
    }
    Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recipes_lie_to_each_other_as_on_disk() {
        let top = common([Path::new("/a/b/c"), Path::new("/a/b/d/e")].into_iter());
        assert_eq!(top, Path::new("/a/b"));
        assert_eq!(place_of(Path::new("/a/b/d/e"), &top).unwrap(), "d/e");
        assert_eq!(place_of(&top, &common([Path::new("/a/b")].into_iter())).unwrap(), "");
    }
}
