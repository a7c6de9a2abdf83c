//! A source distribution, read for what builds it and for the times of its files.
//!
//! One directory with everything in it (PEP 517, PEP 625). Names that leave it, devices, and what unpacks to far more than it is,
//! are refused here, before a build sees the file; inside the sandbox it is `tar` that unpacks it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use flate2::read::MultiGzDecoder;
use kiln_model::digest::Digest;
use kiln_model::format::pyproject::{self, BuildSystem};
use sha2::{Digest as _, Sha256};

use super::WheelError;
use super::archive::Archive;

/// Bytes that all files together may have.
const LARGEST: u64 = 4 << 30;
/// Archives below this may be packed as tightly as they like.
const HARMLESS: u64 = 256 << 20;
/// How many times its size an archive may unpack to.
const TIGHTEST: u64 = 100;
/// Entries; the largest sdists known have some tens of thousands.
const MOST_ENTRIES: usize = 500_000;

/// How an sdist is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// `.tar.gz`, the one format since PEP 625.
    TarGz,
    /// `.zip`.
    Zip,
}

/// What an sdist says of its own building.
#[derive(Debug, Clone)]
pub(super) struct Sdist {
    /// Its one directory.
    pub(super) directory: String,
    /// Who builds it.
    pub(super) system: BuildSystem,
    /// Times of its files in seconds since 1970, by digest of their bytes and last part of their path. Two copies of
    /// different times cancel each other out. Empty for a zip, which has local times.
    pub(super) times: BTreeMap<(Digest, String), Option<i64>>,
}

impl Format {
    /// By the ending of a file's name.
    pub(super) fn of(name: &str) -> Option<Self> {
        match () {
            () if name.ends_with(".tar.gz") || name.ends_with(".tgz") => Some(Self::TarGz),
            () if name.ends_with(".zip") => Some(Self::Zip),
            () => None,
        }
    }
}

/// What was seen of the files while reading.
#[derive(Default)]
struct Seen {
    directories: BTreeSet<String>,
    pyproject: Option<Vec<u8>>,
    setup: bool,
    times: BTreeMap<(Digest, String), Option<i64>>,
}

impl Sdist {
    /// Reads the sdist at `path`, published as `name`.
    pub(super) fn open(path: &Path, name: &str) -> Result<Self, WheelError> {
        let refuse = |what: String| WheelError::Sdist { file: name.into(), what };
        let format = Format::of(name).ok_or_else(|| refuse("is neither a .tar.gz nor a .zip".into()))?;
        let seen = match format {
            Format::TarGz => tar(path, name)?,
            Format::Zip => zip(path)?,
        };
        let mut directories = seen.directories.into_iter();
        let directory = match (directories.next(), directories.next()) {
            (Some(only), None) => only,
            (None, _) => return Err(refuse("is empty".into())),
            (Some(a), Some(b)) => return Err(refuse(format!("has not one directory in it, but {a:?}, {b:?}"))),
        };
        let system = match seen.pyproject {
            Some(bytes) => {
                let text =
                    String::from_utf8(bytes).map_err(|_| refuse("has a pyproject.toml that is no text".into()))?;
                let system =
                    BuildSystem::parse(&text).map_err(|source| WheelError::Pyproject { file: name.into(), source })?;
                // Without a table setuptools builds it, and needs something to build from.
                let legacy = system == BuildSystem::legacy();
                if legacy && !seen.setup && !text.contains("[project]") && !text.contains("[tool.setuptools") {
                    return Err(WheelError::NoBackend { file: name.into() });
                }
                system
            }
            None if seen.setup => BuildSystem::legacy(),
            None => return Err(WheelError::NoBackend { file: name.into() }),
        };
        Ok(Self { directory, system, times: seen.times })
    }
}

impl Seen {
    /// Notes a file at `path`; its bytes go through the returned flag: whether they are wanted.
    fn note(&mut self, path: &str, sha256: Digest, time: Option<i64>, bytes: Option<Vec<u8>>) {
        let Some((_, inner)) = path.split_once('/') else { return };
        match inner {
            "pyproject.toml" => self.pyproject = bytes,
            "setup.py" | "setup.cfg" => self.setup = true,
            _ => {}
        }
        let base = path.rsplit('/').next().unwrap_or(path);
        self.times
            .entry((sha256, base.to_string()))
            .and_modify(|known| *known = known.filter(|known| Some(*known) == time))
            .or_insert(time);
    }
}

fn tar(path: &Path, name: &str) -> Result<Seen, WheelError> {
    let refuse = |what: String| WheelError::Sdist { file: name.into(), what };
    let read =
        |source: io::Error| WheelError::Sdist { file: name.into(), what: format!("cannot be unpacked: {source}") };
    let file = File::open(path).map_err(read)?;
    let packed = file.metadata().map_err(read)?.len();
    let most = LARGEST.min(HARMLESS.max(packed.saturating_mul(TIGHTEST)));
    let unpacked = MultiGzDecoder::new(io::BufReader::new(file));
    let mut archive = tar::Archive::new(Bounded { inner: unpacked, left: most, packed });
    let mut seen = Seen::default();
    for (number, entry) in archive.entries().map_err(read)?.enumerate() {
        let mut entry = entry.map_err(read)?;
        if number >= MOST_ENTRIES {
            return Err(refuse(format!("has more than {MOST_ENTRIES} entries")));
        }
        let header = entry.header();
        let kind = header.entry_type();
        if kind.is_pax_global_extensions() {
            continue;
        }
        let rounded = header.mtime().ok().and_then(|time| i64::try_from(time).ok());
        let bytes = entry.path_bytes().into_owned();
        let time = exact_time(&mut entry).map_err(read)?.or(rounded);
        let Some(entry_path) = inside(&bytes) else {
            return Err(refuse(format!("has an entry that leaves it: {:?}", String::from_utf8_lossy(&bytes))));
        };
        let (first, _) = entry_path.split_once('/').unwrap_or((&entry_path, ""));
        seen.directories.insert(first.into());
        if kind.is_symlink() || kind.is_hard_link() {
            let target = entry.link_name_bytes().map(|target| target.into_owned()).unwrap_or_default();
            let from =
                if kind.is_symlink() { entry_path.rsplit_once('/').map_or("", |(parent, _)| parent) } else { "" };
            if !stays(from, &target) {
                return Err(refuse(format!("has a link that leaves it: {entry_path:?}")));
            }
            continue;
        }
        if kind.is_dir() {
            continue;
        }
        if !kind.is_file() && !kind.is_contiguous() && !kind.is_gnu_sparse() {
            return Err(refuse(format!("has an entry that is no file, directory or link: {entry_path:?}")));
        }
        let wanted = entry_path.split_once('/').is_some_and(|(_, inner)| inner == "pyproject.toml");
        let (mut hasher, mut kept, mut size) = (Sha256::new(), Vec::new(), 0_u64);
        let mut buffer = [0; 64 << 10];
        loop {
            let count = entry.read(&mut buffer).map_err(read)?;
            if count == 0 {
                break;
            }
            size += count as u64;
            hasher.update(&buffer[..count]);
            if wanted {
                if size > pyproject::MOST_BYTES {
                    return Err(refuse(format!("has a pyproject.toml of more than {} bytes", pyproject::MOST_BYTES)));
                }
                kept.extend_from_slice(&buffer[..count]);
            }
        }
        seen.note(&entry_path, Digest::from_bytes(hasher.finalize().into()), time, wanted.then_some(kept));
    }
    // What follows the last entry is read too: a bomb may hide there, and `tar` reads to the end.
    io::copy(&mut archive.into_inner(), &mut io::sink()).map_err(read)?;
    Ok(seen)
}

/// The whole seconds of an entry's time in its extended header. Python rounds what it writes in the header proper, and a file
/// that is unpacked has the exact time (pax(1), *mtime*).
fn exact_time(entry: &mut tar::Entry<'_, impl Read>) -> io::Result<Option<i64>> {
    let Some(extensions) = entry.pax_extensions()? else { return Ok(None) };
    for extension in extensions {
        let extension = extension?;
        if extension.key() == Ok("mtime")
            && let Some(seconds) = extension.value().ok().and_then(|value| value.split('.').next()?.parse().ok())
        {
            return Ok(Some(seconds));
        }
    }
    Ok(None)
}

/// A reader that fails where there is more than there may be.
struct Bounded<R> {
    inner: R,
    left: u64,
    packed: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        match self.left.checked_sub(count as u64) {
            Some(left) => self.left = left,
            None => {
                let text = format!("there is more than {TIGHTEST} times its {} bytes: refused as a bomb", self.packed);
                return Err(io::Error::other(text));
            }
        }
        Ok(count)
    }
}

fn zip(path: &Path) -> Result<Seen, WheelError> {
    let archive = Archive::open(path)?;
    let mut seen = Seen::default();
    for member in archive.members() {
        let (first, _) = member.name.split_once('/').unwrap_or((&member.name, ""));
        seen.directories.insert(first.into());
    }
    let directory = seen.directories.first().cloned().unwrap_or_default();
    let wanted = format!("{directory}/pyproject.toml");
    for (name, (sha256, _)) in archive.digests()? {
        let bytes = if name == wanted { archive.read(&name, pyproject::MOST_BYTES)? } else { None };
        seen.note(&name, sha256, None, bytes);
    }
    seen.times.clear();
    Ok(seen)
}

/// The path of an entry, without a leading `./` and a trailing slash, if it stays inside.
fn inside(bytes: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(bytes).ok()?;
    let text = text.strip_prefix("./").unwrap_or(text);
    let text = text.strip_suffix('/').unwrap_or(text);
    let good = !text.is_empty() && !text.contains('\0') && text.split('/').all(|part| !matches!(part, "" | "." | ".."));
    good.then(|| text.to_string())
}

/// Whether a link in the directory `from` to `target` stays inside.
fn stays(from: &str, target: &[u8]) -> bool {
    let Ok(target) = std::str::from_utf8(target) else { return false };
    if target.is_empty() || target.starts_with('/') {
        return false;
    }
    let mut depth = from.split('/').filter(|part| !part.is_empty()).count();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." if depth <= 1 => return false,
            ".." => depth -= 1,
            _ => depth += 1,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::GzEncoder;

    fn packed(entries: &[(&str, tar::EntryType, &str)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
        for (path, kind, text) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(*kind);
            header.set_mtime(1_700_000_001);
            header.set_mode(0o644);
            // Paths that `Header::set_path` would refuse are what is tested.
            header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
            if kind.is_symlink() || kind.is_hard_link() {
                header.as_old_mut().linkname[..text.len()].copy_from_slice(text.as_bytes());
                header.set_size(0);
                header.set_cksum();
                builder.append(&header, io::empty()).unwrap();
            } else {
                header.set_size(text.len() as u64);
                header.set_cksum();
                builder.append(&header, text.as_bytes()).unwrap();
            }
        }
        builder.into_inner().unwrap().finish().unwrap()
    }

    fn opened(entries: &[(&str, tar::EntryType, &str)]) -> Result<Sdist, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), packed(entries)).unwrap();
        Sdist::open(file.path(), "a-1.tar.gz").map_err(|e| e.to_string())
    }

    use tar::EntryType::{Char, Directory, Link, Regular, Symlink};

    const PYPROJECT: &str = "[build-system]\nrequires = ['hatchling']\nbuild-backend = 'hatchling.build'\n";

    #[test]
    fn the_one_directory_and_what_builds_it_are_found() {
        let sdist = opened(&[
            ("a-1", Directory, ""),
            ("a-1/pyproject.toml", Regular, PYPROJECT),
            ("a-1/a.py", Regular, "pass\n"),
        ])
        .unwrap();
        assert_eq!((sdist.directory.as_str(), sdist.system.backend.as_str()), ("a-1", "hatchling.build"));
        assert_eq!(sdist.times.get(&(Digest::of("pass\n"), "a.py".into())), Some(&Some(1_700_000_001)));
    }

    #[test]
    fn a_time_with_a_fraction_is_the_second_that_had_begun() {
        let mut builder = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
        let mut header = tar::Header::new_ustar();
        header.set_path("a-1/setup.py").unwrap();
        header.set_size(0);
        header.set_mode(0o644);
        header.set_mtime(1_791_385_477);
        header.set_cksum();
        builder.append_pax_extensions([("mtime", &b"1791385476.6202567"[..])]).unwrap();
        builder.append(&header, io::empty()).unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), builder.into_inner().unwrap().finish().unwrap()).unwrap();
        let sdist = Sdist::open(file.path(), "a-1.tar.gz").unwrap();
        assert_eq!(sdist.times.values().next(), Some(&Some(1_791_385_476)));
    }

    #[test]
    fn a_source_that_nothing_builds_is_refused_by_name() {
        assert!(opened(&[("a-1/a.py", Regular, "")]).unwrap_err().contains("no build backend"));
        assert!(opened(&[("a-1/pyproject.toml", Regular, "[tool.x]\n")]).unwrap_err().contains("no build backend"));
        assert_eq!(opened(&[("a-1/setup.py", Regular, "")]).unwrap().system, BuildSystem::legacy());
    }

    #[test]
    fn entries_that_leave_the_source_or_are_no_files_are_refused() {
        for bad in ["../x", "/etc/passwd", "a-1/../../x", "a-1//x"] {
            let error = opened(&[("a-1/setup.py", Regular, ""), (bad, Regular, "")]).unwrap_err();
            assert!(error.contains("leaves it"), "{bad}: {error}");
        }
        let with = |path, kind, target| opened(&[("a-1/setup.py", Regular, ""), (path, kind, target)]);
        assert!(with("a-1/l", Symlink, "../../etc").is_err());
        assert!(with("a-1/l", Symlink, "/etc").is_err());
        assert!(with("a-1/b/l", Symlink, "../setup.py").is_ok());
        assert!(with("a-1/l", Link, "../etc/passwd").is_err());
        assert!(with("a-1/l", Link, "a-1/setup.py").is_ok());
        assert!(with("a-1/null", Char, "").unwrap_err().contains("no file, directory or link"));
        assert!(with("b/x", Regular, "").unwrap_err().contains("not one directory"));
    }

    #[test]
    fn what_is_cut_off_or_no_archive_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let whole = packed(&[("a-1/setup.py", Regular, &"x".repeat(4000))]);
        std::fs::write(file.path(), &whole[..whole.len() / 2]).unwrap();
        assert!(Sdist::open(file.path(), "a-1.tar.gz").is_err());
        assert!(Sdist::open(file.path(), "a-1.tar.lz").unwrap_err().to_string().contains("neither"));
        assert!(Sdist::open(file.path(), "a-1.zip").is_err());
    }

    #[test]
    fn a_bomb_is_refused_before_it_is_unpacked() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut builder = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::best()));
        let mut header = tar::Header::new_gnu();
        header.set_path("a-1/zeros").unwrap();
        header.set_size(HARMLESS + (1 << 20));
        header.set_mode(0o644);
        header.set_cksum();
        builder.append(&header, io::repeat(0).take(HARMLESS + (1 << 20))).unwrap();
        std::fs::write(file.path(), builder.into_inner().unwrap().finish().unwrap()).unwrap();
        let error = Sdist::open(file.path(), "a-1.tar.gz").unwrap_err();
        assert!(error.to_string().contains("bomb"), "{error}");
    }
}
