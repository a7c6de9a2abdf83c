//! Two artifacts that lie somewhere: two files, or two directories entry by entry.
//!
//! Entries are held against each other as a store keeps them: contents, links, the executable bit. Sizes first, then
//! bytes, several files at once; a digest is only taken of what differs. Only what differs is looked into.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use kiln_model::name::Variable;
use kiln_model::report::{Comparison, Difference, Differences, Kind, Side, SideKind};
use kiln_model::tree::{Entry, EntryPath};
use rayon::prelude::*;

use super::blob::Blob;
use super::explain::explain;
use super::limits::Options;
use super::{DiffError, join, open};

/// An entry of a directory, before any byte was read.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Found {
    File {
        size: u64,
        executable: bool,
    },
    Directory,
    Symlink(Vec<u8>),
    /// A device, socket or pipe: named, never opened.
    Other,
}

/// Compares two files or two directories. Neither is changed, and nothing outside of them is read.
pub fn compare(first: &Path, second: &Path, options: &Options) -> Result<Comparison, DiffError> {
    let kinds = [kind(first)?, kind(second)?];
    if kinds[0] != kinds[1] {
        let [first_kind, second_kind] = kinds.map(word);
        return Err(DiffError::Unlike { first: first.into(), first_kind, second: second.into(), second_kind });
    }
    match kinds[0] {
        SideKind::File => files(first, second, options),
        SideKind::Directory | SideKind::Symlink => directories(first, second, options),
    }
}

fn word(kind: SideKind) -> &'static str {
    match kind {
        SideKind::File => "file",
        SideKind::Directory => "directory",
        SideKind::Symlink => "link",
    }
}

/// What the user named, through links: only what lies below it is never followed.
fn kind(path: &Path) -> Result<SideKind, DiffError> {
    let metadata = fs::metadata(path).map_err(|source| DiffError::Read { path: path.into(), source })?;
    match (metadata.is_file(), metadata.is_dir()) {
        (true, _) => Ok(SideKind::File),
        (_, true) => Ok(SideKind::Directory),
        (false, false) => Err(DiffError::NotComparable { path: path.into(), found: "a device, socket or pipe" }),
    }
}

fn side(path: &Path, kind: SideKind, size: u64) -> Side {
    Side { name: path.display().to_string(), kind, size, sha256: None }
}

fn files(first: &Path, second: &Path, options: &Options) -> Result<Comparison, DiffError> {
    let read = |path: &Path| -> Result<(Blob, Entry, Side), DiffError> {
        let failed = |source| DiffError::Read { path: path.into(), source };
        let file = File::open(path).map_err(failed)?;
        let executable = file.metadata().map_err(failed)?.permissions().mode() & 0o100 != 0;
        let blob = Blob::of_file(file).map_err(failed)?;
        let (size, sha256) = (blob.len(), blob.digest().map_err(failed)?);
        let side = Side { sha256: Some(sha256), ..side(path, SideKind::File, size) };
        Ok((blob, Entry::File { size, sha256, executable }, side))
    };
    let (ours, theirs) = rayon::join(|| read(first), || read(second));
    let ((a, entry, ours), (b, other, theirs)) = (ours?, theirs?);
    let mut found = Differences::default();
    // Of a file that is given by itself, only the bytes are its identity: a mode is not published with it.
    if ours.sha256 != theirs.sha256 {
        let mut difference = Difference::new([0, 1], output(), EntryPath::default(), Kind::Content);
        (difference.first, difference.second) = (Some(entry), Some(other));
        explain(&mut difference, first, [&a, &b], options)?;
        found.differences.push(difference);
    }
    Ok(Comparison::of([ours, theirs], found))
}

/// The one output that a comparison of artifacts has.
fn output() -> Variable {
    "out".parse().expect("a literal name")
}

fn directories(first: &Path, second: &Path, options: &Options) -> Result<Comparison, DiffError> {
    let (ours, theirs) = rayon::join(|| list(first), || list(second));
    let (ours, theirs) = (ours?, theirs?);
    let total = |all: &BTreeMap<EntryPath, Found>| {
        all.values().map(|f| if let Found::File { size, .. } = f { *size } else { 0 }).sum()
    };
    let sides = [side(first, SideKind::Directory, total(&ours)), side(second, SideKind::Directory, total(&theirs))];
    let mut paths: Vec<&EntryPath> = ours.keys().chain(theirs.keys().filter(|p| !ours.contains_key(*p))).collect();
    paths.sort_unstable();
    let differing: Vec<(&EntryPath, Kind)> = paths
        .par_iter()
        .map(|&path| differs(first, second, path, ours.get(path), theirs.get(path)).map(|kind| kind.map(|k| (path, k))))
        .filter_map(Result::transpose)
        .collect::<Result<_, _>>()?;
    let mut found = Differences::default();
    for (path, kind) in differing {
        if found.differences.len() >= options.limits.listed {
            found.differences_left_out += 1;
            continue;
        }
        let mut difference = Difference::new([0, 1], output(), path.clone(), kind);
        difference.first = ours.get(path).map(|f| entry(first, path, f)).transpose()?.flatten();
        difference.second = theirs.get(path).map(|f| entry(second, path, f)).transpose()?.flatten();
        if kind == Kind::Content {
            let blob = |root: &Path| blob(root, path);
            explain(&mut difference, &join(first, path), [&blob(first)?, &blob(second)?], options)?;
        }
        found.differences.push(difference);
    }
    Ok(Comparison::of(sides, found))
}

fn blob(root: &Path, path: &EntryPath) -> Result<Blob, DiffError> {
    Blob::of_file(open(root, path)?).map_err(|source| DiffError::Read { path: join(root, path), source })
}

/// How two entries at one path differ.
fn differs(
    first: &Path,
    second: &Path,
    path: &EntryPath,
    ours: Option<&Found>,
    theirs: Option<&Found>,
) -> Result<Option<Kind>, DiffError> {
    Ok(match (ours, theirs) {
        (None, None) => None,
        (Some(_), None) => Some(Kind::OnlyInFirst),
        (None, Some(_)) => Some(Kind::OnlyInSecond),
        (
            Some(Found::File { size, executable }),
            Some(Found::File { size: other_size, executable: other_executable }),
        ) => {
            let same = size == other_size
                && blob(first, path)?
                    .equals(&blob(second, path)?)
                    .map_err(|source| DiffError::Read { path: join(first, path), source })?;
            match (same, executable == other_executable) {
                (false, _) => Some(Kind::Content),
                (true, false) => Some(Kind::Executable),
                (true, true) => None,
            }
        }
        (Some(Found::Symlink(a)), Some(Found::Symlink(b))) => (a != b).then_some(Kind::Target),
        (Some(a), Some(b)) => (a != b).then_some(Kind::Type),
    })
}

/// An entry of a report; a file's digest is taken here. Devices, sockets and pipes have none.
fn entry(root: &Path, path: &EntryPath, found: &Found) -> Result<Option<Entry>, DiffError> {
    Ok(match found {
        Found::File { size, executable } => {
            let digest = blob(root, path)?.digest();
            let sha256 = digest.map_err(|source| DiffError::Read { path: join(root, path), source })?;
            Some(Entry::File { size: *size, sha256, executable: *executable })
        }
        Found::Directory => Some(Entry::Directory),
        Found::Symlink(target) => Some(Entry::Symlink { target: EntryPath::from_bytes(target.clone()) }),
        Found::Other => None,
    })
}

/// All entries below `root`, which has the empty path.
fn list(root: &Path) -> Result<BTreeMap<EntryPath, Found>, DiffError> {
    let mut entries = BTreeMap::from([(EntryPath::default(), Found::Directory)]);
    let mut open: Vec<(PathBuf, EntryPath)> = vec![(root.to_owned(), EntryPath::default())];
    while let Some((directory, path)) = open.pop() {
        let failed = |source: io::Error| DiffError::Read { path: directory.clone(), source };
        for item in fs::read_dir(&directory).map_err(failed)? {
            let item = item.map_err(failed)?;
            let metadata = item.metadata().map_err(failed)?;
            let below = path.join(item.file_name().as_bytes());
            let found = if metadata.is_dir() {
                open.push((item.path(), below.clone()));
                Found::Directory
            } else if metadata.is_symlink() {
                Found::Symlink(fs::read_link(item.path()).map_err(failed)?.as_os_str().as_bytes().to_vec())
            } else if metadata.is_file() {
                Found::File { size: metadata.len(), executable: metadata.permissions().mode() & 0o100 != 0 }
            } else {
                Found::Other
            };
            entries.insert(below, found);
        }
    }
    Ok(entries)
}
