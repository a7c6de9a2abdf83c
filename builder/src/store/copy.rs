//! Walks a tree once: reads, checks, scans, hashes, and writes the canonical copy, all in the same pass.
//!
//! Everything goes by descriptor, one component at a time, never following a link: what a build left behind is hostile,
//! and a path looked up twice can be two files (CVE-2024-27297 and its kin). Copies
//! are fresh inodes, never links: whoever still holds a descriptor of the original writes the original.
//! A canonical tree has files of mode 0444 or 0555, directories of 0555, and one second past the epoch as every time.

use std::collections::BTreeSet;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use kiln_model::digest::NarHash;
use kiln_model::format::nar::{MAX_DEPTH, frame, reference_scanner};
use kiln_model::rewrite::Rewrites;
use kiln_model::store_path::StorePath;
use kiln_model::tree::{Entry, EntryPath, Manifest};
use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::digester::{Digester, Digests, read_full};
use super::error::{Refusal, StoreError, TreeError, failed};
use super::fingerprint::StatHasher;
use super::rewriting::Rewriting;
use super::writer::{CANONICAL_TIMES, Destination, Writer, write_all};

/// Where a tree comes from, which decides how much it is distrusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The user gave it: mode bits and attributes that a NAR cannot hold are dropped.
    Given,
    /// A build made it: what hints at an escape is refused, and so is another file system below it.
    Built,
}

/// How much of a tree is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TreeLimits {
    /// EntryPath of all files together, by their stated size: a sparse file counts whole.
    pub bytes: u64,
    /// Entries.
    pub entries: u64,
}

impl Default for TreeLimits {
    /// 64 GiB in ten million entries.
    fn default() -> Self {
        Self { bytes: 64 << 30, entries: 10_000_000 }
    }
}

/// A tree that is read: a name in a directory that is held open.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// The directory.
    pub directory: BorrowedFd<'a>,
    /// The name in it; never followed if it is a link.
    pub name: &'a CStr,
    /// What errors call it.
    pub shown: &'a Path,
    /// Who made it.
    pub origin: Origin,
}

/// A directory that is not there yet: files by the names they will have.
pub(super) type Files = std::collections::BTreeMap<CString, std::fs::File>;

/// What is walked.
pub(super) enum Root<'a> {
    /// What is on disk.
    Tree(Source<'a>),
    /// These files, as one directory.
    Files(&'a Files),
}

/// What is asked of a walk.
pub(super) struct Wanted<'a> {
    pub(super) digests: Digests,
    pub(super) candidates: Option<&'a BTreeSet<StorePath>>,
    pub(super) limits: TreeLimits,
    /// What becomes of hash parts in contents and targets; a name that holds one is refused.
    pub(super) rewrites: Option<&'a Rewrites>,
}

/// What a walk found.
pub(super) struct Walked {
    pub(super) nar_hash: NarHash,
    pub(super) nar_size: u64,
    pub(super) manifest: Option<Manifest>,
    pub(super) references: BTreeSet<StorePath>,
    /// Over the stats of what was written, without the root; to be completed once the root is in its place.
    pub(super) stats: StatHasher,
}

/// Walks `root`, and writes the canonical copy if there is a destination. A directory at the copy's root stays 0755,
/// because moving it needs the right to write it (rename(2), EACCES); [`seal_root`] completes it.
pub(super) fn walk(
    root: &Root<'_>,
    destination: Option<Destination<'_>>,
    wanted: &Wanted<'_>,
) -> Result<Walked, StoreError> {
    let scanner = wanted.candidates.map(reference_scanner);
    let mut walk = Walk {
        origin: match root {
            Root::Tree(source) => source.origin,
            Root::Files(_) => Origin::Given,
        },
        reflinks: Reflinks::Untried,
        writer: destination.map(Writer::new),
        digester: Digester::new(wanted.digests, scanner),
        limits: wanted.limits,
        rewrites: wanted.rewrites,
        entries: Vec::new(),
        keep_entries: wanted.digests == Digests::NarAndFiles,
        counted: TreeLimits { bytes: 0, entries: 0 },
        levels: Vec::new(),
        device: None,
        scratch: Vec::new(),
    };
    match root {
        Root::Tree(source) => walk.tree(source)?,
        Root::Files(files) => walk.files(files)?,
    }
    let digested = walk.digester.finish();
    let references = wanted.candidates.map(|candidates| {
        let found: BTreeSet<usize> = digested.references.iter().copied().collect();
        candidates.iter().enumerate().filter(|(index, _)| found.contains(index)).map(|(_, path)| path.clone()).collect()
    });
    let manifest = (wanted.digests == Digests::NarAndFiles).then(|| {
        let mut digests = digested.files.into_iter();
        let entries = walk.entries.into_iter().map(|(path, draft)| {
            let entry = match draft {
                Draft::Done(entry) => entry,
                Draft::File { size, executable } => {
                    let sha256 = digests.next().expect("one digest per file");
                    Entry::File { size, sha256, executable }
                }
            };
            (path, entry)
        });
        Manifest::new(entries).expect("a walk visits each path once, below its directory")
    });
    Ok(Walked {
        nar_hash: digested.nar_hash,
        nar_size: digested.nar_size,
        manifest,
        references: references.unwrap_or_default(),
        stats: walk.writer.map(|writer| writer.stats).unwrap_or_default(),
    })
}

/// Makes a directory at the root of a copy canonical, once it is in its place. Files and links already are.
pub(super) fn seal_root(directory: BorrowedFd<'_>, name: &CStr, shown: &Path) -> Result<(), StoreError> {
    let stat = fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed("looking at", shown))?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
        let root = open_directory(directory, name).map_err(failed("opening", shown))?;
        fs::fchmod(&root, Mode::from_raw_mode(0o555)).map_err(failed("changing the mode of", shown))?;
        fs::futimens(&root, &CANONICAL_TIMES).map_err(failed("changing the time of", shown))?;
    }
    Ok(())
}

/// Opens a directory by name, not through a link.
pub(super) fn open_directory(parent: impl AsFd, name: &CStr) -> Result<OwnedFd, Errno> {
    fs::openat(parent, name, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

/// Names in a directory, sorted by their bytes.
pub(super) fn sorted_names(directory: impl AsFd) -> Result<Vec<CString>, Errno> {
    let mut names = Vec::new();
    for entry in fs::Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            names.push(name.to_owned());
        }
    }
    names.sort_unstable();
    Ok(names)
}

enum Draft {
    Done(Entry),
    File { size: u64, executable: bool },
}

struct Level {
    directory: std::rc::Rc<OwnedFd>,
    names: std::vec::IntoIter<CString>,
    path: EntryPath,
}

/// Whether the store's file system shares blocks with the source's.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reflinks {
    Untried,
    Refused,
}

struct Walk<'a> {
    origin: Origin,
    reflinks: Reflinks,
    writer: Option<Writer<'a>>,
    digester: Digester,
    limits: TreeLimits,
    rewrites: Option<&'a Rewrites>,
    counted: TreeLimits,
    entries: Vec<(EntryPath, Draft)>,
    keep_entries: bool,
    levels: Vec<Level>,
    device: Option<u64>,
    scratch: Vec<u8>,
}

impl Walk<'_> {
    fn files(&mut self, files: &Files) -> Result<(), StoreError> {
        self.frame(frame::start);
        self.frame(frame::directory);
        if let Some(writer) = &mut self.writer {
            writer.start_directory(c"")?;
        }
        self.note(&EntryPath::default(), Draft::Done(Entry::Directory));
        for (name, file) in files {
            let path = EntryPath::from(name.to_bytes());
            let stat =
                fs::fstat(file).map_err(|source| TreeError::Read { entry: path.clone(), source: source.into() })?;
            self.frame(|out| frame::entry(out, name.to_bytes()));
            self.contents(name, path, file, &stat)?;
            self.frame(frame::entry_end);
        }
        self.frame(frame::directory_end);
        self.writer.as_mut().map_or(Ok(()), Writer::end_directory)
    }

    fn tree(&mut self, source: &Source<'_>) -> Result<(), StoreError> {
        self.frame(frame::start);
        match fs::statat(source.directory, source.name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Err(TreeError::Missing { path: source.shown.into() }.into()),
            Err(error) => return Err(failed("looking at", source.shown)(error)),
            Ok(_) => {}
        }
        self.node(source.directory, source.name, EntryPath::default())?;
        while let Some(level) = self.levels.last_mut() {
            if let Some(name) = level.names.next() {
                let path = level.path.join(name.to_bytes());
                if self.rewrites.is_some_and(|rewrites| rewrites.occur_in(name.to_bytes())) {
                    return Err(TreeError::OwnName { entry: path }.into());
                }
                let parent = std::rc::Rc::clone(&level.directory);
                self.frame(|out| frame::entry(out, name.to_bytes()));
                self.node(parent.as_fd(), &name, path)?;
            } else {
                self.levels.pop();
                self.frame(frame::directory_end);
                if let Some(writer) = &mut self.writer {
                    writer.end_directory()?;
                }
                self.entry_end();
            }
        }
        Ok(())
    }

    fn frame(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        self.scratch.clear();
        write(&mut self.scratch);
        self.digester.frame(&self.scratch);
    }

    fn entry_end(&mut self) {
        if !self.levels.is_empty() {
            self.frame(frame::entry_end);
        }
    }

    fn note(&mut self, path: &EntryPath, draft: Draft) {
        if self.keep_entries {
            self.entries.push((path.clone(), draft));
        }
    }

    fn node(&mut self, parent: BorrowedFd<'_>, name: &CStr, path: EntryPath) -> Result<(), StoreError> {
        let refuse = |what| Err(TreeError::Refused { entry: path.clone(), what }.into());
        let read = |source: Errno| TreeError::Read { entry: path.clone(), source: source.into() };
        let stat = fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).map_err(read)?;
        self.counted.entries += 1;
        if self.counted.entries > self.limits.entries {
            return Err(TreeError::TooLarge { what: "entries", limit: self.limits.entries }.into());
        }
        if self.levels.len() >= MAX_DEPTH {
            return refuse(Refusal::TooDeep);
        }
        let kind = FileType::from_raw_mode(stat.st_mode);
        if self.origin == Origin::Built {
            if *self.device.get_or_insert(stat.st_dev) != stat.st_dev {
                return refuse(Refusal::OtherFileSystem);
            }
            if kind == FileType::RegularFile && stat.st_mode & 0o6000 != 0 {
                return refuse(Refusal::SetId);
            }
            if self.levels.is_empty() && kind != FileType::Symlink && stat.st_mode & 0o022 != 0 {
                return refuse(Refusal::WritableRoot);
            }
        }
        match kind {
            FileType::RegularFile => self.file(parent, name, path, &stat)?,
            FileType::Directory => return self.directory(parent, name, path),
            FileType::Symlink => self.symlink(parent, name, path)?,
            FileType::Fifo => return refuse(Refusal::Fifo),
            FileType::Socket => return refuse(Refusal::Socket),
            FileType::CharacterDevice if stat.st_rdev == 0 => return refuse(Refusal::Whiteout),
            FileType::CharacterDevice | FileType::BlockDevice | FileType::Unknown => return refuse(Refusal::Device),
        }
        self.entry_end();
        Ok(())
    }

    fn directory(&mut self, parent: BorrowedFd<'_>, name: &CStr, path: EntryPath) -> Result<(), StoreError> {
        let read = |source: Errno| TreeError::Read { entry: path.clone(), source: source.into() };
        let directory = open_directory(parent, name).map_err(read)?;
        self.refuse_attributes(&directory, &path)?;
        let names = sorted_names(&directory).map_err(read)?;
        self.frame(frame::directory);
        if let Some(writer) = &mut self.writer {
            writer.start_directory(name)?;
        }
        self.note(&path, Draft::Done(Entry::Directory));
        self.levels.push(Level { directory: directory.into(), names: names.into_iter(), path });
        Ok(())
    }

    fn symlink(&mut self, parent: BorrowedFd<'_>, name: &CStr, path: EntryPath) -> Result<(), StoreError> {
        let mut target = fs::readlinkat(parent, name, Vec::new())
            .map_err(|source| TreeError::Read { entry: path.clone(), source: source.into() })?;
        if let Some(rewrites) = self.rewrites {
            let mut bytes = target.into_bytes();
            rewrites.apply(&mut bytes);
            target = CString::new(bytes).expect("a hash part has no NUL, and a target had none");
        }
        self.frame(|out| frame::symlink(out, target.to_bytes()));
        if let Some(writer) = &mut self.writer {
            writer.symlink(name, &target)?;
        }
        self.note(&path, Draft::Done(Entry::Symlink { target: target.to_bytes().into() }));
        Ok(())
    }

    fn file(&mut self, parent: BorrowedFd<'_>, name: &CStr, path: EntryPath, seen: &Stat) -> Result<(), StoreError> {
        let read = |source: Errno| TreeError::Read { entry: path.clone(), source: source.into() };
        // NONBLOCK: should a pipe have taken the file's place, opening it must not wait for a writer.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = fs::openat(parent, name, flags, Mode::empty()).map_err(read)?;
        let stat = fs::fstat(&file).map_err(read)?;
        if (stat.st_dev, stat.st_ino, stat.st_mode) != (seen.st_dev, seen.st_ino, seen.st_mode) {
            return Err(TreeError::Changed { entry: path }.into());
        }
        self.refuse_attributes(&file, &path)?;
        self.contents(name, path, file.as_fd(), &stat)
    }

    /// Reads an open file, which lies at `path` and will be called `name`.
    fn contents(&mut self, name: &CStr, path: EntryPath, file: impl AsFd, stat: &Stat) -> Result<(), StoreError> {
        let read = |source: Errno| TreeError::Read { entry: path.clone(), source: source.into() };
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        self.counted.bytes = self.counted.bytes.saturating_add(size);
        if self.counted.bytes > self.limits.bytes {
            return Err(TreeError::TooLarge { what: "bytes", limit: self.limits.bytes }.into());
        }
        let executable = stat.st_mode & 0o100 != 0;
        self.frame(|out| if executable { frame::executable(out, size) } else { frame::file(out, size) });
        let copy = self.writer.as_mut().map(|writer| writer.start_file(name)).transpose()?;
        let mut rewriting = self.rewrites.map(Rewriting::new);
        let shared = rewriting.is_none() && copy.as_ref().is_some_and(|copy| size > 0 && self.reflink(copy, &file));
        let shown = || self.writer.as_ref().map(Writer::shown).unwrap_or_default();
        self.digester.begin_file();
        let mut left = size;
        while left > 0 {
            let count = self.digester.contents(
                left,
                |buffer| {
                    // What is hashed is what is kept, should the original change while it is read.
                    let from = copy.as_ref().filter(|_| shared).map_or(file.as_fd(), AsFd::as_fd);
                    let read = |rest: &mut [u8]| rustix::io::read(from, rest);
                    match &mut rewriting {
                        None => read_full(read, buffer),
                        Some(rewriting) => rewriting.read(read, buffer),
                    }
                    .map_err(|source| TreeError::Read { entry: path.clone(), source }.into())
                },
                |bytes| match &copy {
                    Some(copy) if !shared => write_all(copy, bytes).map_err(failed("writing", &shown())),
                    Some(_) | None => Ok::<_, StoreError>(()),
                },
            )?;
            if count == 0 {
                return Err(TreeError::Changed { entry: path }.into());
            }
            left -= count as u64;
        }
        self.digester.end_file();
        self.frame(|out| frame::file_end(out, size));
        let after = fs::fstat(&file).map_err(read)?;
        let times = |stat: &Stat| (stat.st_size, stat.st_mtime, stat.st_mtime_nsec);
        if times(&after) != times(stat) {
            return Err(TreeError::Changed { entry: path }.into());
        }
        if let (Some(writer), Some(copy)) = (&mut self.writer, copy) {
            writer.end_file(&copy, if executable { 0o555 } else { 0o444 })?;
        }
        self.note(&path, Draft::File { size, executable });
        Ok(())
    }

    /// Shares the file's blocks with its copy where the file system can (ioctl_ficlone(2)): a fresh inode all the same.
    fn reflink(&mut self, copy: &OwnedFd, file: impl AsFd) -> bool {
        if self.reflinks == Reflinks::Untried {
            if fs::ioctl_ficlone(copy, file).is_ok() {
                return true;
            }
            self.reflinks = Reflinks::Refused;
        }
        false
    }

    /// Refuses `security.*` attributes, except labels that the host's own policy puts on every file.
    fn refuse_attributes(&self, file: &OwnedFd, path: &EntryPath) -> Result<(), StoreError> {
        if self.origin == Origin::Given {
            return Ok(());
        }
        let mut list = [0_u8; 4096];
        let length = match fs::flistxattr(file, &mut list) {
            Ok(length) => length,
            Err(Errno::NOTSUP) => 0,
            // More than a page of attributes: none of what a build may do needs that.
            Err(Errno::RANGE) => {
                return Err(TreeError::Refused { entry: path.clone(), what: Refusal::SecurityAttribute }.into());
            }
            Err(source) => return Err(TreeError::Read { entry: path.clone(), source: source.into() }.into()),
        };
        let bad = list[..length].split(|&byte| byte == 0).any(|name| {
            let label = [b"security.selinux".as_slice(), b"security.ima", b"security.evm", b"security.SMACK64"];
            name.starts_with(b"security.") && !label.contains(&name)
        });
        if bad {
            return Err(TreeError::Refused { entry: path.clone(), what: Refusal::SecurityAttribute }.into());
        }
        Ok(())
    }
}
