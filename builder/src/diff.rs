//! What differs between two outcomes' trees ([`trees`]), or between two artifacts that lie somewhere ([`compare`]).
//!
//! Of outcomes, manifests say which entries differ, so only differing files are read; artifacts are read once, and only
//! what differs is looked into. Every file is compared as a stream in fixed memory; what is inside is bounded by
//! [`Limits`], and what a bound cut off is counted. Nothing is followed: a link in an output is data. A file that changed
//! under the reader is an error, never a wrong excerpt.

mod binary;
mod blob;
mod bytes;
mod directory;
mod document;
mod elf;
mod explain;
mod format;
mod found;
mod limits;
mod list;
mod member;
mod normalised;
mod text;
mod unpack;
mod walk;

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use crate::exit::Kind as ExitKind;
use kiln_model::name::Variable;
use kiln_model::outcome::{Entry, EntryPath, Manifest};
use kiln_model::report::{Content, Difference, Differences, Kind};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};

use blob::Blob;
use explain::explain;

pub use directory::compare;
pub use limits::{Limits, Options};

/// One side of a comparison.
#[derive(Debug, Clone, Copy)]
pub struct Tree<'a> {
    /// What is in it.
    pub manifest: &'a Manifest,
    /// Where its bytes lie; without it, only digests are compared.
    pub path: Option<&'a Path>,
    /// Index of its outcome in the report.
    pub outcome: usize,
}

/// Bounds on what is listed and read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Differences that are listed; the others are counted.
    pub listed: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { listed: 200 }
    }
}

/// Why trees could not be compared.
#[derive(Debug, thiserror::Error)]
pub enum DiffError {
    /// A file could not be read.
    #[error("reading {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file is not what the manifest says.
    #[error("{path} is not the file of the outcome's manifest; verify the store")]
    NotAsRecorded {
        /// The file.
        path: PathBuf,
    },
    /// What was given cannot be compared.
    #[error("{path} is {found}; expected a file or a directory")]
    NotComparable {
        /// What was given.
        path: PathBuf,
        /// What it is.
        found: &'static str,
    },
    /// A file and a directory.
    #[error("{first} is a {first_kind} and {second} a {second_kind}; give two of a kind")]
    Unlike {
        /// What was given first.
        first: PathBuf,
        /// What it is.
        first_kind: &'static str,
        /// What was given second.
        second: PathBuf,
        /// What it is.
        second_kind: &'static str,
    },
    /// What was unpacked could not be kept.
    #[error("keeping unpacked contents in a temporary file; set TMPDIR to a directory with room")]
    Spill {
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl DiffError {
    /// What sort of error it is.
    pub fn kind(&self) -> ExitKind {
        match self {
            Self::Read { source, .. } if source.kind() == io::ErrorKind::NotFound => ExitKind::BadInput,
            Self::Read { .. } | Self::Spill { .. } => ExitKind::Host,
            Self::NotAsRecorded { .. } => ExitKind::Tampered,
            Self::NotComparable { .. } | Self::Unlike { .. } => ExitKind::BadInput,
        }
    }
}

/// Compares the trees of one output. May be called for several outputs with the same `found`.
pub fn trees(
    output: &Variable,
    first: Tree<'_>,
    second: Tree<'_>,
    bounds: Bounds,
    found: &mut Differences,
) -> Result<(), DiffError> {
    let paths: BTreeSet<&EntryPath> =
        first.manifest.entries().chain(second.manifest.entries()).map(|(path, _)| path).collect();
    for path in paths {
        let (a, b) = (first.manifest.entry(path), second.manifest.entry(path));
        let Some(kind) = Kind::of(a, b) else { continue };
        if found.differences.len() >= bounds.listed {
            found.differences_left_out += 1;
            continue;
        }
        let mut difference = Difference {
            first: a.cloned(),
            second: b.cloned(),
            content: match (kind, first.path, second.path) {
                (Kind::Content, Some(ours), Some(theirs)) => contents((ours, a), (theirs, b), path)?,
                (Kind::Content, None, _) | (Kind::Content, _, None) => None,
                (Kind::OnlyInFirst | Kind::OnlyInSecond | Kind::Type | Kind::Target | Kind::Executable, _, _) => None,
            },
            ..Difference::new([first.outcome, second.outcome], output.clone(), path.clone(), kind)
        };
        if let (Kind::Content, Some(ours), Some(theirs)) = (kind, first.path, second.path) {
            let blob = |root: &Path| -> Result<Blob, DiffError> {
                Blob::of_file(open(root, path)?).map_err(|source| DiffError::Read { path: join(root, path), source })
            };
            // Two builds of one derivation have to agree in every byte: nothing makes them equivalent.
            let options = Options { normalisers: BTreeSet::new(), ..Options::default() };
            explain(&mut difference, &join(ours, path), [&blob(ours)?, &blob(theirs)?], &options)?;
        }
        found.differences.push(difference);
    }
    Ok(())
}

/// Where two files' contents first differ.
fn contents(
    (ours, a): (&Path, Option<&Entry>),
    (theirs, b): (&Path, Option<&Entry>),
    path: &EntryPath,
) -> Result<Option<Content>, DiffError> {
    let (mut first, mut second) = (open(ours, path)?, open(theirs, path)?);
    let content =
        bytes::compare(&mut first, &mut second).map_err(|source| DiffError::Read { path: join(ours, path), source })?;
    for (root, entry, length) in [(ours, a, content.first_length), (theirs, b, content.second_length)] {
        let recorded = matches!(entry, Some(Entry::File { size, .. }) if *size == length);
        if !recorded || content.content.is_none() {
            return Err(DiffError::NotAsRecorded { path: join(root, path) });
        }
    }
    Ok(content.content)
}

fn join(root: &Path, path: &EntryPath) -> PathBuf {
    match path.as_bytes() {
        [] => root.to_owned(),
        relative => root.join(std::ffi::OsStr::from_bytes(relative)),
    }
}

/// Opens a regular file below `root` without following any link, so that a hostile output cannot point elsewhere.
fn open(root: &Path, path: &EntryPath) -> Result<File, DiffError> {
    let failed = |errno: rustix::io::Errno| DiffError::Read { path: join(root, path), source: errno.into() };
    // NONBLOCK: opening a FIFO that took a file's place must not hang.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let opened = match path.as_bytes() {
        [] => rustix::fs::openat(CWD, root, flags, Mode::empty()).map_err(failed)?,
        relative => {
            let directory = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let root = rustix::fs::openat(CWD, root, directory, Mode::empty()).map_err(failed)?;
            let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
            rustix::fs::openat2(root, relative, flags, Mode::empty(), resolve).map_err(failed)?
        }
    };
    let file = File::from(opened);
    let metadata = file.metadata().map_err(|source| DiffError::Read { path: join(root, path), source })?;
    if metadata.is_file() { Ok(file) } else { Err(DiffError::NotAsRecorded { path: join(root, path) }) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use kiln_model::digest::Digest;
    use std::fs;

    fn file(content: &[u8]) -> Entry {
        Entry::File { executable: false, size: content.len() as u64, sha256: Digest::of(content) }
    }

    fn manifest(entries: &[(&str, Entry)]) -> Manifest {
        let mut all = BTreeMap::new();
        for (path, entry) in entries {
            let above = path.match_indices('/').map(|(at, _)| &path[..at]).chain((!path.is_empty()).then_some(""));
            for directory in above {
                all.entry(EntryPath::from(directory)).or_insert(Entry::Directory);
            }
            all.insert(EntryPath::from(*path), entry.clone());
        }
        Manifest::new(all).unwrap()
    }

    fn found(first: Tree<'_>, second: Tree<'_>, listed: usize) -> Result<Differences, DiffError> {
        let mut found = Differences::default();
        trees(&"out".parse().unwrap(), first, second, Bounds { listed }, &mut found)?;
        Ok(found)
    }

    fn link(target: &str) -> Entry {
        Entry::Symlink { target: EntryPath::from_bytes(target.as_bytes()) }
    }

    #[test]
    fn every_kind_of_difference_is_found_in_order_without_any_bytes_at_hand() {
        let executable = Entry::File { executable: true, size: 1, sha256: Digest::of("x") };
        let a = manifest(&[
            ("", Entry::Directory),
            ("a", file(b"1")),
            ("b", link("x")),
            ("c", file(b"x")),
            ("d", Entry::Directory),
            ("e", file(b"same")),
            ("f", file(b"only here")),
        ]);
        let b = manifest(&[
            ("", Entry::Directory),
            ("a", file(b"2")),
            ("b", link("y")),
            ("c", executable),
            ("d", link("x")),
            ("e", file(b"same")),
            ("g", file(b"only there")),
        ]);
        let tree = |manifest, outcome| Tree { manifest, path: None, outcome };
        let all = found(tree(&a, 0), tree(&b, 1), 99).unwrap();
        let seen: Vec<(String, Kind)> = all.differences.iter().map(|d| (d.path.to_string(), d.kind)).collect();
        let expected = [
            ("a", Kind::Content),
            ("b", Kind::Target),
            ("c", Kind::Executable),
            ("d", Kind::Type),
            ("f", Kind::OnlyInFirst),
            ("g", Kind::OnlyInSecond),
        ];
        assert_eq!(seen, expected.map(|(path, kind)| (path.to_string(), kind)));
        let some = found(tree(&a, 0), tree(&b, 1), 2).unwrap();
        assert_eq!((some.differences.len(), some.differences_left_out), (2, 4));
    }

    #[test]
    fn a_file_in_a_tree_and_a_tree_that_is_a_file_show_their_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (dir.path().join("one"), dir.path().join("two"));
        for (root, content) in [(&one, "built on localhost"), (&two, "built on another-hostname")] {
            fs::create_dir_all(root.join("share/doc")).unwrap();
            fs::write(root.join("share/doc/info"), content).unwrap();
        }
        let a = manifest(&[("share/doc/info", file(b"built on localhost"))]);
        let b = manifest(&[("share/doc/info", file(b"built on another-hostname"))]);
        let all = found(
            Tree { manifest: &a, path: Some(&one), outcome: 0 },
            Tree { manifest: &b, path: Some(&two), outcome: 2 },
            9,
        )
        .unwrap();
        assert_eq!(all.differences[0].between, [0, 2]);
        let content = all.differences[0].content.as_ref().unwrap();
        assert_eq!((content.offset, content.excerpt_offset), (9, 0));
        assert_eq!(content.second.text(), "built on another-hostname");

        let a = manifest(&[("", file(b"built on localhost"))]);
        let b = manifest(&[("", file(b"built on another-hostname"))]);
        let (one, two) = (one.join("share/doc/info"), two.join("share/doc/info"));
        let all = found(
            Tree { manifest: &a, path: Some(&one), outcome: 0 },
            Tree { manifest: &b, path: Some(&two), outcome: 1 },
            9,
        )
        .unwrap();
        assert_eq!(all.differences[0].content.as_ref().unwrap().offset, 9);
    }

    #[test]
    fn a_link_in_the_place_of_a_directory_is_never_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two, elsewhere) = (dir.path().join("one"), dir.path().join("two"), dir.path().join("elsewhere"));
        for root in [&one, &two, &elsewhere] {
            fs::create_dir(root).unwrap();
        }
        fs::write(elsewhere.join("file"), "secret").unwrap();
        fs::create_dir(one.join("d")).unwrap();
        fs::write(one.join("d/file"), "public").unwrap();
        std::os::unix::fs::symlink(&elsewhere, two.join("d")).unwrap();
        let (a, b) = (manifest(&[("d/file", file(b"public"))]), manifest(&[("d/file", file(b"secret"))]));
        let refused = found(
            Tree { manifest: &a, path: Some(&one), outcome: 0 },
            Tree { manifest: &b, path: Some(&two), outcome: 1 },
            9,
        );
        assert!(matches!(refused, Err(DiffError::Read { path, .. }) if path.ends_with("two/d/file")));
    }

    #[test]
    fn files_that_are_not_those_of_the_manifest_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (dir.path().join("one"), dir.path().join("two"));
        fs::write(&one, "same").unwrap();
        fs::write(&two, "same").unwrap();
        let (a, b) = (manifest(&[("", file(b"same"))]), manifest(&[("", file(b"else"))]));
        let refused = found(
            Tree { manifest: &a, path: Some(&one), outcome: 0 },
            Tree { manifest: &b, path: Some(&two), outcome: 1 },
            9,
        );
        assert!(matches!(refused, Err(DiffError::NotAsRecorded { .. })));
    }
}
