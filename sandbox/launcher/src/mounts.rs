//! The sandbox's files: root, `/dev`, `/proc`, inputs, writable directories.
//!
//! Pid 1 builds the new root on top of the host's, in its own mount namespace, and pivots at the end; for root,
//! [`detach`] runs in the launcher, or in kiln for a sandbox that was begun before. Sources are opened by path without symlinks and compared with the identity that
//! kiln saw; targets are walked below the new root without symlinks. Attributes are set before anything foreign runs.

use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, StatxFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags,
};

use crate::init::{Task, Text};
use crate::protocol::Source;
use crate::step::{Access, Kind, Proc, Step};
use crate::sys::{self, Reach};

const RDONLY: u64 = libc::MOUNT_ATTR_RDONLY;
const NOSUID: u64 = libc::MOUNT_ATTR_NOSUID;
const NODEV: u64 = libc::MOUNT_ATTR_NODEV;
const NOEXEC: u64 = libc::MOUNT_ATTR_NOEXEC;

/// Device nodes of every sandbox: name, major, minor.
const NODES: [(&CStr, &CStr, u32, u32); 6] = [
    (c"null", c"/dev/null", 1, 3),
    (c"zero", c"/dev/zero", 1, 5),
    (c"full", c"/dev/full", 1, 7),
    (c"random", c"/dev/random", 1, 8),
    (c"urandom", c"/dev/urandom", 1, 9),
    // Opens as ENXIO: the payload's session has no terminal. Nix binds it, and programs look for it.
    (c"tty", c"/dev/tty", 5, 0),
];

const LINKS: [(&CStr, &CStr); 5] = [
    (c"fd", c"/proc/self/fd"),
    (c"stdin", c"/proc/self/fd/0"),
    (c"stdout", c"/proc/self/fd/1"),
    (c"stderr", c"/proc/self/fd/2"),
    (c"ptmx", c"/dev/pts/ptmx"),
];

/// Each source that these steps mount and that is no symlink, by its number, with what the payload may do there.
pub fn to_detach<'a>(
    sources: &'a [Source],
    steps: &'a [Step],
) -> impl Iterator<Item = (usize, &'a Source, Access)> + Clone {
    steps.iter().filter_map(|step| {
        let (Step::Bind { source, access, .. } | Step::TreeRoot { source, access }) = step else { return None };
        let index = *source as usize;
        let tree = sources.get(index).filter(|source| matches!(source, Source::Tree { .. }))?;
        Some((index, tree, *access))
    })
}

/// [`Step::Detach`]: these sources as detached trees, by their numbers. With the rights of the caller, in its mounts.
pub fn detach<'a>(sources: &'a [Source], steps: &'a [Step]) -> impl Iterator<Item = (usize, Result<OwnedFd, Errno>)> {
    let mut detacher = Detacher::default();
    to_detach(sources, steps).map(move |(index, source, access)| (index, detacher.detach(source, access)))
}

/// Makes detached trees of sources.
#[derive(Default)]
struct Detacher<'a> {
    /// The directory of the last source and its path: most inputs lie side by side.
    above: Option<(&'a [u8], OwnedFd)>,
}

impl<'a> Detacher<'a> {
    /// A source as a detached tree with its final attributes.
    fn detach(&mut self, source: &'a Source, access: Access) -> Result<OwnedFd, Errno> {
        let Source::Tree { path, dev, ino, .. } = source else {
            return Err(Errno::INVAL);
        };
        let (above, name) = split(path)?;
        let parent = match self.above.take() {
            Some((known, parent)) if known == above => parent,
            _ => open_plain(if above.is_empty() { b"/" } else { above })?,
        };
        // `/` has no name.
        let tree = clone_tree(&parent, if name.is_empty() { c"." } else { name })?;
        let now = rustix::fs::fstat(&tree)?;
        if (now.st_dev, now.st_ino) != (*dev, *ino) {
            return Err(Errno::STALE);
        }
        let read_only = match access {
            Access::ReadOnly => RDONLY,
            Access::ReadWrite => 0,
        };
        sys::mount_attributes(&tree, read_only | NOSUID | NODEV, Reach::Tree)?;
        self.above = Some((above, parent));
        Ok(tree)
    }
}

/// A directory of the host, no part of whose path is a symlink.
fn open_plain(path: &[u8]) -> Result<OwnedFd, Errno> {
    rustix::fs::openat2(
        CWD,
        path,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS,
    )
}

/// What pid 1 has built so far.
#[derive(Default)]
pub(crate) struct Mounts<'a> {
    /// The directory of the last bind's target and its path. Targets come in order, so that nothing is mounted on a
    /// directory once something in it is.
    above: Option<(&'a [u8], OwnedFd)>,
    detacher: Detacher<'a>,
    root: Option<OwnedFd>,
    root_is_ours: Option<OwnRoot>,
    dev: Option<OwnedFd>,
    scratch: Option<OwnedFd>,
    covers: u32,
}

/// The root is a tmpfs of this sandbox.
struct OwnRoot;

impl<'a> Mounts<'a> {
    pub(crate) fn perform(&mut self, task: &Task<'a>, step: &'a Step) -> Result<(), Errno> {
        if !matches!(step, Step::Bind { .. }) {
            self.above = None;
        }
        match step {
            Step::Private => {
                rustix::mount::mount_change(c"/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
            }
            Step::Scratch => self.make_scratch(),
            Step::EmptyRoot { inodes } => {
                let root = tmpfs(16 << 20, u64::from(*inodes), 0o755, NOSUID | NODEV)?;
                attach(&root, CWD, c"/")?;
                self.root = Some(root);
                self.root_is_ours = Some(OwnRoot);
                Ok(())
            }
            Step::TreeRoot { source, access } => {
                let root = match tree_of(task, *source)? {
                    Some(tree) => rustix::io::fcntl_dupfd_cloexec(tree, 3)?,
                    None => self.detacher.detach(source_of(task, *source)?, *access)?,
                };
                attach(&root, CWD, c"/")?;
                self.root = Some(root);
                Ok(())
            }
            Step::Dev => self.make_dev(),
            Step::Proc { proc } => self.make_proc(*proc),
            Step::Cover { target, bytes } => self.cover(target, bytes),
            Step::Freeze { target } => self.replace(target, |root, target| {
                let tree = clone_tree(root, target)?;
                sys::mount_attributes(&tree, RDONLY | NOSUID | NODEV | NOEXEC, Reach::Tree)?;
                Ok(tree)
            }),
            Step::Mask { target } => self.mask(target),
            Step::Sys { online } => self.make_sys(online),
            Step::Bind { source, target, access } => self.bind(task, *source, target, *access),
            Step::Tmpfs { target, size, inodes, mode } => {
                let (parent, name) = self.place(target, Kind::Directory)?;
                attach(&tmpfs(*size, *inodes, *mode, NOSUID | NODEV)?, &parent, name)
            }
            Step::Directory { target } => self.place(target, Kind::Directory).map(drop),
            Step::File { target, bytes } => {
                let (parent, name) = self.parent(target)?;
                write_new(&parent, name, bytes)
            }
            Step::Seal => {
                if let (Some(root), Some(OwnRoot)) = (&self.root, &self.root_is_ours) {
                    set_read_only(root)?;
                }
                [&self.dev, &self.scratch].into_iter().flatten().try_for_each(set_read_only)
            }
            Step::Pivot => self.pivot(),
            Step::Unmount => {
                rustix::mount::unmount(c".", UnmountFlags::DETACH)?;
                rustix::process::chdir(c"/")
            }
            _ => Err(Errno::PROTO),
        }
    }

    fn root(&self) -> Result<BorrowedFd<'_>, Errno> {
        self.root.as_ref().map(AsFd::as_fd).ok_or(Errno::PROTO)
    }

    /// Opens the directory above `target`, making what is missing; gives the last name too.
    fn parent<'b>(&self, target: &'b CStr) -> Result<(OwnedFd, &'b CStr), Errno> {
        let (above, name) = split(target)?;
        Ok((self.directory(above)?, name))
    }

    fn directory(&self, above: &[u8]) -> Result<OwnedFd, Errno> {
        let root = self.root()?;
        match open_below(root, above) {
            Err(Errno::NOENT) => {}
            other => return other,
        }
        let mut at = open_below(root, b".")?;
        for part in above.split(|&byte| byte == b'/').filter(|part| !part.is_empty()) {
            make_directory(&at, part)?;
            at = open_below(at.as_fd(), part)?;
        }
        Ok(at)
    }

    /// A mount point at `target`: what is there already, or a new directory or file.
    fn place<'b>(&self, target: &'b CStr, kind: Kind) -> Result<(OwnedFd, &'b CStr), Errno> {
        let (parent, name) = self.parent(target)?;
        make_point(&parent, name, kind)?;
        Ok((parent, name))
    }

    fn bind(&mut self, task: &Task<'a>, number: u32, target: &'a CStr, access: Access) -> Result<(), Errno> {
        let source = source_of(task, number)?;
        let (above, name) = split(target)?;
        let parent = match self.above.take() {
            Some((path, parent)) if path == above => parent,
            _ => self.directory(above)?,
        };
        match source {
            Source::Link { text } => make_link(text, &parent, name)?,
            Source::Tree { kind, .. } => {
                make_point(&parent, name, *kind)?;
                match tree_of(task, number)? {
                    Some(tree) => attach(tree, &parent, name)?,
                    None => attach(&self.detacher.detach(source, access)?, &parent, name)?,
                }
            }
        }
        self.above = Some((above, parent));
        Ok(())
    }

    /// A tmpfs that `/dev` will hide: what is bound from it outlives its path. Not below the new root, where the one
    /// unmount after the pivot would take it away instead of the host's root.
    fn make_scratch(&mut self) -> Result<(), Errno> {
        let (parent, name) = self.place(c"dev", Kind::Directory)?;
        let scratch = tmpfs(4 << 20, 1024, 0o755, NOSUID | NODEV | NOEXEC)?;
        attach(&scratch, &parent, name)?;
        make_directory(&scratch, b"directory")?;
        write_new(&scratch, c"file", b"")?;
        self.scratch = Some(scratch);
        Ok(())
    }

    fn cover(&mut self, target: &CStr, bytes: &[u8]) -> Result<(), Errno> {
        let mut name = Text::<16>::default();
        self.covers += 1;
        name.line(format_args!("{}\0", self.covers))?;
        let name = CStr::from_bytes_with_nul(name.bytes()).map_err(|_| Errno::INVAL)?;
        let scratch = self.scratch.as_ref().ok_or(Errno::PROTO)?;
        write_new(scratch, name, bytes)?;
        let tree = clone_tree(scratch, name)?;
        sys::mount_attributes(&tree, RDONLY | NOSUID | NODEV | NOEXEC, Reach::Tree)?;
        self.replace(target, |_, _| Ok(tree))
    }

    fn mask(&self, target: &CStr) -> Result<(), Errno> {
        let scratch = self.scratch.as_ref().ok_or(Errno::PROTO)?;
        self.replace(target, |root, target| {
            let found = rustix::fs::statx(root, target, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::TYPE)?;
            let empty = match rustix::fs::FileType::from_raw_mode(u32::from(found.stx_mode)) {
                rustix::fs::FileType::Directory => c"directory",
                _ => c"file",
            };
            let tree = clone_tree(scratch, empty)?;
            sys::mount_attributes(&tree, RDONLY | NOSUID | NODEV | NOEXEC, Reach::Tree)?;
            Ok(tree)
        })
    }

    /// Puts a tree over an existing file or directory. What `/proc` does not have on this kernel needs no cover.
    fn replace(
        &self,
        target: &CStr,
        tree: impl FnOnce(BorrowedFd<'_>, &CStr) -> Result<OwnedFd, Errno>,
    ) -> Result<(), Errno> {
        let root = self.root()?;
        let result = tree(root, target).and_then(|tree| attach(&tree, root, target));
        match result {
            Err(Errno::NOENT) if target.to_bytes().starts_with(b"proc/") => Ok(()),
            other => other,
        }
    }

    fn make_dev(&mut self) -> Result<(), Errno> {
        let (parent, name) = self.place(c"dev", Kind::Directory)?;
        // Mode 0755 and not sticky: in a sticky directory O_CREAT on another owner's node is EACCES (protected_regular).
        let dev = tmpfs(64 << 10, 64, 0o755, NOSUID | NOEXEC)?;
        attach(&dev, &parent, name)?;
        for (name, path, major, minor) in NODES {
            let node = clone_tree(CWD, path)?;
            if rustix::fs::fstat(&node)?.st_rdev != rustix::fs::makedev(major, minor) {
                return Err(Errno::NODEV);
            }
            make_file(&dev, name)?;
            attach(&node, &dev, name)?;
        }
        sys::mount_attributes(&dev, NOSUID | NOEXEC, Reach::Tree)?;
        for (name, text) in LINKS {
            rustix::fs::symlinkat(text, &dev, name)?;
        }
        make_directory(&dev, b"pts")?;
        make_directory(&dev, b"shm")?;
        let options = [(c"mode", c"0620"), (c"ptmxmode", c"0666")];
        attach(&file_system(c"devpts", &options, NOSUID | NOEXEC)?, &dev, c"pts")?;
        self.dev = Some(dev);
        Ok(())
    }

    fn make_proc(&mut self, proc: Proc) -> Result<(), Errno> {
        let (parent, name) = self.place(c"proc", Kind::Directory)?;
        let options: &[(&CStr, &CStr)] = match proc {
            Proc::Full => &[],
            Proc::Processes => &[(c"subset", c"pid")],
        };
        attach(&file_system(c"proc", options, NOSUID | NODEV | NOEXEC)?, &parent, name)
    }

    fn make_sys(&mut self, online: &[u8]) -> Result<(), Errno> {
        let (parent, name) = match self.place(c"sys", Kind::Directory) {
            // A read-only root without /sys: programs then count processors in /proc/stat.
            Err(Errno::ROFS) => return Ok(()),
            other => other?,
        };
        let sysfs = tmpfs(64 << 10, 16, 0o755, NOSUID | NODEV | NOEXEC)?;
        attach(&sysfs, &parent, name)?;
        let mut at = open_below(sysfs.as_fd(), b".")?;
        for part in [&b"devices"[..], b"system", b"cpu"] {
            make_directory(&at, part)?;
            at = open_below(at.as_fd(), part)?;
        }
        for name in [c"online", c"possible", c"present"] {
            write_new(&at, name, online)?;
        }
        set_read_only(&sysfs)
    }

    fn pivot(&self) -> Result<(), Errno> {
        rustix::process::fchdir(self.root()?)?;
        // The old root now lies over the new one, so no directory is needed for it: pivot_root(2), NOTES. `.` is the
        // topmost of what is stacked there, so nothing else may have been mounted over the old root.
        rustix::process::pivot_root(c".", c".")
    }
}

/// The path of the directory above a target, and its last name.
fn split(target: &CStr) -> Result<(&[u8], &CStr), Errno> {
    let bytes = target.to_bytes_with_nul();
    let (above, name) = match bytes.iter().rposition(|&byte| byte == b'/') {
        Some(slash) => (&bytes[..slash], &bytes[slash + 1..]),
        None => (&b"."[..], bytes),
    };
    Ok((above, CStr::from_bytes_with_nul(name).map_err(|_| Errno::INVAL)?))
}

/// What a tree is mounted on: what is there, or a new directory or file.
fn make_point(parent: &OwnedFd, name: &CStr, kind: Kind) -> Result<(), Errno> {
    match kind {
        Kind::Directory => make_directory(parent, name.to_bytes()),
        Kind::File => match make_file(parent, name) {
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(errno) => Err(errno),
        },
    }
}

fn source_of<'a>(task: &Task<'a>, number: u32) -> Result<&'a Source, Errno> {
    task.request.sources.get(number as usize).ok_or(Errno::PROTO)
}

fn tree_of<'a>(task: &Task<'a>, number: u32) -> Result<Option<&'a OwnedFd>, Errno> {
    task.trees.get(number as usize).map(Option::as_ref).ok_or(Errno::PROTO)
}

fn open_below(at: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd, Errno> {
    rustix::fs::openat2(
        at,
        path,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS,
    )
}

fn make_directory(at: impl AsFd, name: &[u8]) -> Result<(), Errno> {
    match rustix::fs::mkdirat(at, name, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// An empty file, without opening it.
fn make_file(at: impl AsFd, name: &CStr) -> Result<(), Errno> {
    rustix::fs::mknodat(at, name, rustix::fs::FileType::RegularFile, Mode::from_raw_mode(0o444), 0)
}

/// In a writable directory that was used before it may be there already.
fn make_link(text: &CStr, at: impl AsFd, name: &CStr) -> Result<(), Errno> {
    match rustix::fs::symlinkat(text, &at, name) {
        Err(Errno::EXIST) => {
            let mut buffer = [MaybeUninit::uninit(); libc::PATH_MAX as usize];
            let (there, _) = rustix::fs::readlinkat_raw(&at, name, &mut buffer[..])?;
            if *there == *text.to_bytes() { Ok(()) } else { Err(Errno::EXIST) }
        }
        other => other,
    }
}

fn write_new(at: impl AsFd, name: &CStr, bytes: &[u8]) -> Result<(), Errno> {
    let file = rustix::fs::openat(
        at,
        name,
        OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::from_raw_mode(0o444),
    )?;
    let mut rest = bytes;
    while !rest.is_empty() {
        match rustix::io::write(&file, rest)? {
            0 => return Err(Errno::IO),
            count => rest = &rest[count..],
        }
    }
    Ok(())
}

fn clone_tree(at: impl AsFd, path: &CStr) -> Result<OwnedFd, Errno> {
    rustix::mount::open_tree(
        at,
        path,
        OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_RECURSIVE
            | OpenTreeFlags::AT_SYMLINK_NOFOLLOW
            | OpenTreeFlags::AT_EMPTY_PATH,
    )
}

/// Moves a detached tree to its place. A symlink there is not followed.
fn attach(tree: impl AsFd, at: impl AsFd, name: &CStr) -> Result<(), Errno> {
    rustix::mount::move_mount(tree, c"", at, name, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
}

/// Makes one mount read-only, and nothing that is mounted below it.
fn set_read_only(mount: &OwnedFd) -> Result<(), Errno> {
    sys::mount_attributes(mount, RDONLY, Reach::This)
}

fn tmpfs(size: u64, inodes: u64, mode: u32, attributes: u64) -> Result<OwnedFd, Errno> {
    let mut text = [Text::<32>::default(), Text::<32>::default(), Text::<32>::default()];
    text[0].line(format_args!("{size}\0"))?;
    text[1].line(format_args!("{inodes}\0"))?;
    text[2].line(format_args!("{mode:o}\0"))?;
    let size = CStr::from_bytes_with_nul(text[0].bytes()).map_err(|_| Errno::INVAL)?;
    let inodes = CStr::from_bytes_with_nul(text[1].bytes()).map_err(|_| Errno::INVAL)?;
    let mode = CStr::from_bytes_with_nul(text[2].bytes()).map_err(|_| Errno::INVAL)?;
    let options = [(c"size", size), (c"nr_inodes", inodes), (c"mode", mode)];
    file_system(c"tmpfs", &options, attributes)
}

fn file_system(name: &CStr, options: &[(&CStr, &CStr)], attributes: u64) -> Result<OwnedFd, Errno> {
    let context = rustix::mount::fsopen(name, FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_set_string(context.as_fd(), c"source", name)?;
    for (key, value) in options {
        rustix::mount::fsconfig_set_string(context.as_fd(), *key, *value)?;
    }
    rustix::mount::fsconfig_create(context.as_fd())?;
    let attributes = MountAttrFlags::from_bits_retain(attributes as u32);
    rustix::mount::fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}
