//! What a configured tree loses so that it is the same whoever made it, whenever.
//!
//! Each rule names what would differ. Then every entry gets the one mode that a NAR implies, and the time of its package
//! or the one fixed time. An unknown
//! difference is not papered over: it fails the digest in the lock, by name.

use std::ffi::CStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::EnvironmentError;
use super::deb::Executable;
use super::tree::{Tree, split};

/// What happens to the paths of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    /// The file is removed.
    Remove,
    /// The file stays, without bytes.
    Empty,
    /// The directory stays, without entries.
    Clear,
}

struct Rule {
    /// Directory; a `*` in the name below it stands for any characters, at either end.
    directory: &'static str,
    name: &'static str,
    action: Action,
}

const fn rule(directory: &'static str, name: &'static str, action: Action) -> Rule {
    Rule { directory, name, action }
}

const RULES: &[Rule] = &[
    // inodes and times of libraries
    rule("var/cache/ldconfig", "aux-cache", Action::Remove),
    // the clock
    rule("var/log", "*", Action::Empty),
    rule("var/log/apt", "*", Action::Empty),
    // copies from before the last change: they differ with the number of times dpkg and debconf were run
    rule("var/lib/dpkg", "*-old", Action::Remove),
    rule("var/cache/debconf", "*-old", Action::Remove),
    // random; an empty one is filled when a system boots, machine-id(5)
    rule("etc", "machine-id", Action::Empty),
    rule("var/lib/dbus", "machine-id", Action::Remove),
    rule("etc/ssh", "ssh_host_*", Action::Remove),
    rule("var/lib/systemd", "random-seed", Action::Remove),
    // what apt knows of mirrors
    rule("var/lib/apt", "lists", Action::Clear),
    rule("var/cache/apt", "*.bin", Action::Remove),
    // indices over times of files; what makes them does not run (`idle`)
    rule("var/cache", "fontconfig", Action::Clear),
    rule("var/cache", "man", Action::Clear),
    // fresh file systems of the sandbox lie over these
    rule("", "dev", Action::Clear),
    rule("", "proc", Action::Clear),
    rule("", "run", Action::Clear),
    rule("", "sys", Action::Clear),
    rule("", "tmp", Action::Clear),
    rule("var", "tmp", Action::Clear),
];

/// Mount points that the derivation's form and the sandbox's surface need (ARCHITECTURE.md, settled questions 2 and 7).
const DIRECTORIES: [&str; 8] = ["build", "dev", "nix/store", "proc", "run", "sys", "tmp", "var/tmp"];
const FILES: [&str; 4] = ["etc/group", "etc/hosts", "etc/passwd", "etc/resolv.conf"];

/// Debian ships it as an absolute link, which outside of a chroot would be the host's.
const LOADER: &str = "usr/lib64/ld-linux-x86-64.so.2";

/// Deepest directory; as in `deb`, below Nix's bound for a NAR.
const MAX_DEPTH: usize = 62;

/// Applies the rules, adds the mount points, and gives each entry its mode and time.
pub(super) fn normalise(tree: &Tree) -> Result<(), EnvironmentError> {
    for rule in RULES {
        apply(tree, rule).map_err(|(path, source)| EnvironmentError::write(tree, path.as_bytes(), source))?;
    }
    add_mount_points(tree)?;
    for path in FILES {
        let failed = |e| EnvironmentError::write(tree, path.as_bytes(), e);
        // A link would be followed by the mount that is laid over it.
        let kind = kind_of(tree, path).map_err(failed)?;
        if kind != Some(FileType::RegularFile) {
            tree.write(path, b"", Executable::No).map_err(failed)?;
        }
    }
    relative_loader(tree).map_err(|e| EnvironmentError::write(tree, LOADER.as_bytes(), e))?;
    let root = tree.open_directory(b"").map_err(|e| EnvironmentError::read(tree, b"", e))?;
    settle(tree, &root, &mut Vec::new(), 0).map_err(|(path, e)| EnvironmentError::write(tree, &path, e))
}

/// The directories that the sandbox mounts upon, while assembling as well as later.
pub(super) fn add_mount_points(tree: &Tree) -> Result<(), EnvironmentError> {
    let mut cursor = tree.cursor();
    DIRECTORIES
        .iter()
        .map(|path| path.as_bytes())
        .try_for_each(|path| cursor.make_directory(path).map_err(|e| EnvironmentError::write(tree, path, e)))
}

fn apply(tree: &Tree, rule: &Rule) -> Result<(), (String, io::Error)> {
    let directory = match tree.open_directory(rule.directory.as_bytes()) {
        Ok(directory) => directory,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err((rule.directory.to_owned(), e)),
    };
    let failed = |e: io::Error| (format!("{}/{}", rule.directory, rule.name), e);
    for (name, kind) in entries(&directory).map_err(|e| failed(e.into()))? {
        if !matches(rule.name.as_bytes(), name.to_bytes()) {
            continue;
        }
        let done = match (rule.action, kind) {
            (Action::Clear, FileType::Directory) => clear(&directory, &name, 0),
            (Action::Clear, _) | (Action::Remove | Action::Empty, FileType::Directory) => Ok(()),
            (Action::Remove, _) => rustix::fs::unlinkat(&directory, &name, AtFlags::empty()),
            (Action::Empty, FileType::RegularFile) => {
                let flags = OFlags::WRONLY | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                rustix::fs::openat(&directory, &name, flags, Mode::empty()).map(drop)
            }
            (Action::Empty, _) => Ok(()),
        };
        done.map_err(|e| failed(e.into()))?;
    }
    Ok(())
}

fn matches(pattern: &[u8], name: &[u8]) -> bool {
    match (pattern.strip_prefix(b"*"), pattern.strip_suffix(b"*")) {
        (Some(end), _) => name.ends_with(end),
        (None, Some(start)) => name.starts_with(start),
        (None, None) => pattern == name,
    }
}

fn clear(parent: &OwnedFd, name: &CStr, depth: usize) -> Result<(), Errno> {
    if depth > MAX_DEPTH {
        return Err(Errno::NAMETOOLONG);
    }
    let directory = open(parent, name)?;
    for (name, kind) in entries(&directory)? {
        if kind == FileType::Directory {
            clear(&directory, &name, depth + 1)?;
            rustix::fs::unlinkat(&directory, &name, AtFlags::REMOVEDIR)?;
        } else {
            rustix::fs::unlinkat(&directory, &name, AtFlags::empty())?;
        }
    }
    Ok(())
}

fn kind_of(tree: &Tree, path: &str) -> io::Result<Option<FileType>> {
    let (directory, name) = split(path.as_bytes());
    let directory = match tree.open_directory(directory) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    match rustix::fs::statat(directory, std::ffi::OsStr::from_bytes(name), AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(FileType::from_raw_mode(stat.st_mode))),
        Err(Errno::NOENT) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

fn relative_loader(tree: &Tree) -> io::Result<()> {
    let (directory, name) = split(LOADER.as_bytes());
    if kind_of(tree, LOADER)? != Some(FileType::Symlink) {
        return Ok(());
    }
    let at = tree.open_directory(directory)?;
    let target = rustix::fs::readlinkat(at, std::ffi::OsStr::from_bytes(name), Vec::new())?;
    // From usr/lib64, one directory up is /usr: /lib and /usr/lib are the same directory.
    let relative = match target.to_bytes() {
        target if target.starts_with(b"/lib/") => [b"..", target].concat(),
        target if target.starts_with(b"/usr/lib/") => [b"..", &target[4..]].concat(),
        _ => return Ok(()),
    };
    let mut cursor = tree.cursor();
    cursor.remove(LOADER.as_bytes())?;
    cursor.make_symlink(LOADER.as_bytes(), &relative)
}

/// Mode and time of everything in `directory`, then its own.
fn settle(tree: &Tree, directory: &OwnedFd, path: &mut Vec<u8>, depth: usize) -> Result<(), (Vec<u8>, io::Error)> {
    let failed = |path: &[u8], e: Errno| (path.to_vec(), io::Error::from(e));
    if depth > MAX_DEPTH {
        return Err((path.clone(), io::Error::other(format!("is deeper than {MAX_DEPTH} directories"))));
    }
    let readable = open(directory, c".").map_err(|e| failed(path, e))?;
    for (name, kind) in entries(&readable).map_err(|e| failed(path, e))? {
        let length = path.len();
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name.to_bytes());
        let mut time = tree.time().clone();
        match kind {
            FileType::Directory => {
                // A script may have made it unreadable for the caller.
                rustix::fs::chmodat(&readable, &name, Mode::from(0o755), AtFlags::empty())
                    .map_err(|e| failed(path, e))?;
                let below = open(&readable, &name).map_err(|e| failed(path, e))?;
                settle(tree, &below, path, depth + 1)?;
            }
            FileType::RegularFile => {
                let stat =
                    rustix::fs::statat(&readable, &name, AtFlags::SYMLINK_NOFOLLOW).map_err(|e| failed(path, e))?;
                time = tree.kept_time(stat.st_mtime as i64);
                let mode = if stat.st_mode & 0o100 == 0 { 0o644 } else { 0o755 };
                if stat.st_mode & 0o7777 != mode {
                    rustix::fs::chmodat(&readable, &name, Mode::from(mode), AtFlags::empty())
                        .map_err(|e| failed(path, e))?;
                }
            }
            FileType::Symlink => {
                let stat =
                    rustix::fs::statat(&readable, &name, AtFlags::SYMLINK_NOFOLLOW).map_err(|e| failed(path, e))?;
                time = tree.kept_time(stat.st_mtime as i64);
            }
            FileType::Fifo
            | FileType::Socket
            | FileType::CharacterDevice
            | FileType::BlockDevice
            | FileType::Unknown => {
                let error = io::Error::other("is a pipe, socket or device, which no environment may hold");
                return Err((path.clone(), error));
            }
        }
        rustix::fs::utimensat(&readable, &name, &time, AtFlags::SYMLINK_NOFOLLOW).map_err(|e| failed(path, e))?;
        path.truncate(length);
    }
    if depth == 0 {
        rustix::fs::fchmod(&readable, Mode::from(0o755)).map_err(|e| failed(path, e))?;
        rustix::fs::futimens(&readable, tree.time()).map_err(|e| failed(path, e))?;
    }
    Ok(())
}

fn open(parent: &OwnedFd, name: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::empty())
}

/// Entries without `.` and `..`, all read before anything is changed.
fn entries(directory: &OwnedFd) -> Result<Vec<(std::ffi::CString, FileType)>, Errno> {
    // Not `read_from` an O_PATH descriptor, which cannot be read.
    let readable = open(directory, c".")?;
    let mut found = Vec::new();
    for entry in Dir::new(readable)? {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let kind = match entry.file_type() {
            FileType::Unknown => {
                let stat = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
                FileType::from_raw_mode(stat.st_mode)
            }
            known => known,
        };
        found.push((name.to_owned(), kind));
    }
    Ok(found)
}

/// Makes a copy of a finished tree to build upon.
pub(super) fn copy(from: &Path, to: &Tree) -> Result<(), EnvironmentError> {
    let source = Tree::open(from, 0).map_err(|e| EnvironmentError::Read { path: from.into(), source: e })?;
    let root = source.open_directory(b"").map_err(|e| EnvironmentError::read(&source, b"", e))?;
    let mut directories = Vec::new();
    let mut files = Vec::new();
    list(&root, Vec::new(), 0, &mut directories, &mut files)
        .map_err(|e| EnvironmentError::Read { path: from.into(), source: e })?;
    let mut cursor = to.cursor();
    for path in &directories {
        cursor.make_directory(path).map_err(|e| EnvironmentError::write(to, path, e))?;
    }
    // In runs of neighbours, so that a thread stays in a directory.
    let next = std::sync::atomic::AtomicUsize::new(0);
    let failure = std::sync::Mutex::new(None);
    let runs: Vec<&[(Vec<u8>, FileType)]> = files.chunks(64).collect();
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                let mut cursor = to.cursor();
                while let Some(run) = runs.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
                    for (path, kind) in *run {
                        if let Err(e) = cursor.copy_from(&source, path, *kind) {
                            *failure.lock().unwrap_or_else(|p| p.into_inner()) = Some((path.clone(), e));
                            return;
                        }
                    }
                }
            });
        }
    });
    match failure.into_inner().unwrap_or_else(|p| p.into_inner()) {
        Some((path, e)) => Err(EnvironmentError::write(to, &path, e)),
        None => Ok(()),
    }
}

fn list(
    directory: &OwnedFd,
    path: Vec<u8>,
    depth: usize,
    directories: &mut Vec<Vec<u8>>,
    files: &mut Vec<(Vec<u8>, FileType)>,
) -> io::Result<()> {
    if depth > MAX_DEPTH {
        return Err(io::Error::other(format!("is deeper than {MAX_DEPTH} directories")));
    }
    for (name, kind) in entries(directory)? {
        let below = match path.is_empty() {
            true => name.to_bytes().to_vec(),
            false => [&path, b"/".as_slice(), name.to_bytes()].concat(),
        };
        if kind == FileType::Directory {
            directories.push(below.clone());
            list(&open(directory, &name)?, below, depth + 1, directories, files)?;
        } else {
            files.push((below, kind));
        }
    }
    Ok(())
}
