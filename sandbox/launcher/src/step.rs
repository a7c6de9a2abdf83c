//! One setup action of a sandbox, as data: planned by kiln, performed by the launcher and pid 1, compared as text by tests.

use std::ffi::CString;
use std::fmt;

use serde::{Deserialize, Serialize};

/// What can be mounted on what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// A directory.
    Directory,
    /// Anything else.
    File,
}

/// What the payload may do below a mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Access {
    /// Look.
    ReadOnly,
    /// Change.
    ReadWrite,
}

/// How much of `/proc` is mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Proc {
    /// Everything.
    Full,
    /// `subset=pid`.
    Processes,
}

/// What a sandbox's processes may do beyond what every user may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Rights {
    /// Nothing.
    None,
    /// Root inside, where it has users of its own: change their files' owners and modes, become them, send them signals.
    OverOwn,
}

/// Which process performs a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The launcher, with the caller's rights.
    Launcher,
    /// Pid 1, in the new namespaces, with all capabilities in them until [`Step::Drop`].
    Init,
    /// The payload's process, before it becomes the payload.
    Payload,
}

/// One resource limit; `None` leaves the hard limit as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rlimit {
    /// Which.
    pub resource: Resource,
    /// Soft limit.
    pub soft: u64,
    /// Hard limit.
    pub hard: Option<u64>,
}

/// What a limit is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Resource {
    /// Size of core files.
    Core,
    /// Processes and threads.
    Processes,
    /// Open files.
    OpenFiles,
    /// Stack of the main thread.
    Stack,
    /// Size of files written.
    FileSize,
    /// POSIX message queues.
    MessageQueues,
    /// Locked memory.
    LockedMemory,
    /// Address space.
    AddressSpace,
    /// CPU seconds.
    Cpu,
}

/// One setup action. Targets are relative to the new root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Step {
    /// As root: clone every source into a detached tree, since pid 1 could not pass root's 0700 directories.
    Detach,
    /// Before [`Step::Clone`]: pid 1 is born in [`Request::group`](crate::protocol::Request::group). After it: pid 1 is moved there. kiln wrote the
    /// limits before it asked.
    Group {
        /// Bytes of all processes together.
        memory: Option<u64>,
        /// Processes and threads, pid 1 included.
        processes: Option<u64>,
    },
    /// Start pid 1 in new user, mount, pid, ipc, uts and cgroup namespaces.
    Clone,
    /// Write the one-id maps of the new user namespace.
    Map {
        /// User id inside.
        uid: u32,
        /// Group id inside.
        gid: u32,
    },
    /// kiln writes the maps, of many ids, and releases pid 1 itself: the programs that may write them gain rights, which
    /// this process has given up for good.
    Ranges {
        /// How many ids there are inside, from 0 on.
        count: u32,
    },
    /// Take the mapped ids; die with the launcher.
    Become {
        /// User id inside.
        uid: u32,
        /// Group id inside.
        gid: u32,
    },
    /// What control groups tell begins at the sandbox's own.
    GroupRoot,
    /// A time namespace whose monotonic and boot clocks read this now.
    Clocks {
        /// Seconds since the pretended boot.
        seconds: u64,
    },
    /// Start the payload's process. It makes ready what needs no file while pid 1 goes on with the mounts. What only
    /// children get, or what pid 1 and the payload must share, comes before.
    Fork,
    /// A network namespace with `lo` up; the kernel adds 127.0.0.1/8 and ::1 by itself. It takes as long as all the mounts.
    /// Without it the sandbox stays in the launcher's network.
    Network,
    /// Pid 1 leaves the host's network for the payload's.
    Join,
    /// Host and domain name.
    Name {
        /// `uname -n`.
        hostname: Vec<u8>,
        /// NIS domain.
        domain: Vec<u8>,
    },
    /// The next pid in this namespace.
    FirstPid {
        /// The payload's pid.
        pid: u32,
    },
    /// How many further user namespaces may be made below this one.
    Nesting {
        /// 0, or 1 where [`Step::Lock`] follows.
        allowed: u32,
    },
    /// No mount event leaves or enters.
    Private,
    /// A hidden file system for the bytes that cover other files.
    Scratch,
    /// A fresh tmpfs as root.
    EmptyRoot {
        /// Files and directories that it may hold.
        inodes: u32,
    },
    /// A directory of the host as root.
    TreeRoot {
        /// Which.
        source: u32,
        /// Whether it may be changed.
        access: Access,
    },
    /// `/dev` with the standard nodes, links and own pseudo terminals.
    Dev,
    /// `/proc` of the new pid namespace.
    Proc {
        /// How much.
        proc: Proc,
    },
    /// The payload sees bytes in place of an existing file. Skipped where there is no such file below `/proc`.
    Cover {
        /// Which file.
        target: CString,
        /// What it holds.
        bytes: Vec<u8>,
    },
    /// An existing file or directory becomes read-only, if it exists.
    Freeze {
        /// Which.
        target: CString,
    },
    /// An existing file or directory becomes empty, if it exists.
    Mask {
        /// Which.
        target: CString,
    },
    /// `/sys` with nothing but the list of processors, where the root has a place for it.
    Sys {
        /// The list.
        online: Vec<u8>,
    },
    /// A source at a target.
    Bind {
        /// Which.
        source: u32,
        /// Where.
        target: CString,
        /// Whether it may be changed.
        access: Access,
    },
    /// A fresh tmpfs at a target.
    Tmpfs {
        /// Where.
        target: CString,
        /// Bytes.
        size: u64,
        /// Files and directories.
        inodes: u64,
        /// Mode of its root.
        mode: u32,
    },
    /// A directory in an empty root.
    Directory {
        /// Where.
        target: CString,
    },
    /// A file of mode 0444 in an empty root.
    File {
        /// Where.
        target: CString,
        /// What it holds.
        bytes: Vec<u8>,
    },
    /// The root, where it is ours, and `/dev` become read-only.
    Seal,
    /// The new root becomes `/`.
    Pivot,
    /// The payload's process may go on to what it does in the new root, up to [`Step::Await`].
    Admit,
    /// The host's root goes. The kernel waits for every processor to have seen that.
    Unmount,
    /// No capability, no new privilege, not traceable. Before the payload may go on.
    Drop {
        /// What pid 1 keeps.
        rights: Rights,
    },
    /// Let the payload go on; take a filter of its own, reap and report.
    Reap {
        /// As in [`Step::Filter`]: what reaping needs, and nothing else.
        program: Vec<(u16, u8, u8, u32)>,
    },
    /// No capability, no new privilege.
    Disarm {
        /// What the payload keeps.
        rights: Rights,
    },
    /// Wait for [`Step::Admit`].
    AwaitRoot,
    /// Wait until pid 1 has built everything and dropped everything.
    Await,
    /// A second user and mount namespace, with root's ids: every mount is locked, capabilities reach no further than
    /// own files.
    Lock {
        /// The first namespace's user id, here 0.
        uid: u32,
        /// The first namespace's group id, here 0.
        gid: u32,
    },
    /// Own session, no terminal.
    Session,
    /// Descriptors 0 to 2 only.
    Streams,
    /// Resource limits.
    Limits {
        /// All of them.
        limits: Vec<Rlimit>,
    },
    /// Execution domain.
    Personality {
        /// The word.
        word: u32,
    },
    /// Processors to run on.
    Affinity {
        /// Their numbers.
        cpus: Vec<u32>,
    },
    /// File mode creation mask.
    Umask {
        /// The mask.
        mask: u32,
    },
    /// Working directory.
    Enter {
        /// Absolute path inside.
        cwd: CString,
    },
    /// A second layer over file rights, signals and abstract sockets, as far as the kernel knows them.
    Landlock {
        /// Everything below these may be changed; everything else only read and executed.
        writable: Vec<CString>,
    },
    /// Tell what the process sees of itself.
    Observe,
    /// A second filter under the first, whose listener goes out through the door with a pidfd of this process. What
    /// the first refuses never reaches it: of two answers the kernel takes the stricter, seccomp(2).
    Door {
        /// As in [`Step::Filter`].
        program: Vec<(u16, u8, u8, u32)>,
    },
    /// The system call filter. The last thing before the program where a step needs what it forbids.
    Filter {
        /// `struct sock_filter` as (code, jt, jf, k).
        program: Vec<(u16, u8, u8, u32)>,
    },
    /// Become the program.
    Execute {
        /// Absolute path inside.
        program: CString,
        /// Arguments.
        argv: Vec<CString>,
        /// Environment.
        env: Vec<CString>,
    },
}

impl Step {
    /// Who performs it.
    pub fn place(&self) -> Place {
        match self {
            Self::Detach | Self::Group { .. } | Self::Clone | Self::Map { .. } | Self::Ranges { .. } => Place::Launcher,
            Self::Become { .. }
            | Self::GroupRoot
            | Self::Clocks { .. }
            | Self::Fork
            | Self::Join
            | Self::Name { .. }
            | Self::FirstPid { .. }
            | Self::Nesting { .. }
            | Self::Private
            | Self::EmptyRoot { .. }
            | Self::TreeRoot { .. }
            | Self::Scratch
            | Self::Dev
            | Self::Proc { .. }
            | Self::Cover { .. }
            | Self::Freeze { .. }
            | Self::Mask { .. }
            | Self::Sys { .. }
            | Self::Bind { .. }
            | Self::Tmpfs { .. }
            | Self::Directory { .. }
            | Self::File { .. }
            | Self::Seal
            | Self::Pivot
            | Self::Admit
            | Self::Unmount
            | Self::Drop { .. }
            | Self::Reap { .. } => Place::Init,
            Self::Network
            | Self::Disarm { .. }
            | Self::AwaitRoot
            | Self::Await
            | Self::Lock { .. }
            | Self::Session
            | Self::Streams
            | Self::Limits { .. }
            | Self::Personality { .. }
            | Self::Affinity { .. }
            | Self::Umask { .. }
            | Self::Enter { .. }
            | Self::Landlock { .. }
            | Self::Observe
            | Self::Door { .. }
            | Self::Filter { .. }
            | Self::Execute { .. } => Place::Payload,
        }
    }

    /// The path inside that it is about, if any.
    pub fn target(&self) -> Option<&CString> {
        match self {
            Self::Cover { target, .. }
            | Self::Freeze { target }
            | Self::Mask { target }
            | Self::Bind { target, .. }
            | Self::Tmpfs { target, .. }
            | Self::Directory { target }
            | Self::File { target, .. } => Some(target),
            Self::Enter { cwd } => Some(cwd),
            Self::Execute { program, .. } => Some(program),
            _ => None,
        }
    }

    /// The source that it is about, if any.
    pub fn source(&self) -> Option<u32> {
        match self {
            Self::Bind { source, .. } | Self::TreeRoot { source, .. } => Some(*source),
            _ => None,
        }
    }
}

/// One line per step, without the bytes of files and programs: what tests compare and people read.
impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = match self.place() {
            Place::Launcher => "launcher",
            Place::Init => "init",
            Place::Payload => "payload",
        };
        write!(f, "{place:<9}")?;
        match self {
            Self::Detach => f.write_str("detach sources"),
            Self::Group { memory, processes } => {
                f.write_str("group")?;
                memory.map_or(Ok(()), |bytes| write!(f, " memory={bytes}"))?;
                processes.map_or(Ok(()), |count| write!(f, " processes={count}"))
            }
            Self::Clone => f.write_str("clone user mnt pid ipc uts cgroup"),
            Self::GroupRoot => f.write_str("groups begin here"),
            Self::Map { uid, gid } => write!(f, "map {uid}:{gid}"),
            Self::Ranges { count } => write!(f, "map 0 to {}, by kiln", count.saturating_sub(1)),
            Self::Become { uid, gid } => write!(f, "become {uid}:{gid}"),
            Self::Clocks { seconds } => write!(f, "clocks {seconds}"),
            Self::Fork => f.write_str("fork"),
            Self::Network => f.write_str("network, loopback up"),
            Self::Join => f.write_str("join the payload's network"),
            Self::Name { hostname, domain } => {
                write!(f, "name {} {}", String::from_utf8_lossy(hostname), String::from_utf8_lossy(domain))
            }
            Self::FirstPid { pid } => write!(f, "next pid {pid}"),
            Self::Nesting { allowed } => write!(f, "further user namespaces {allowed}"),
            Self::Private => f.write_str("mounts private"),
            Self::Scratch => f.write_str("scratch"),
            Self::EmptyRoot { inodes } => write!(f, "root empty inodes={inodes}"),
            Self::TreeRoot { source, access } => write!(f, "root source {source} {}", access.text()),
            Self::Dev => f.write_str("dev"),
            Self::Proc { proc: Proc::Full } => f.write_str("proc full"),
            Self::Proc { proc: Proc::Processes } => f.write_str("proc subset=pid"),
            Self::Cover { target, bytes } => write!(f, "cover {} {} bytes", shown(target), bytes.len()),
            Self::Freeze { target } => write!(f, "freeze {}", shown(target)),
            Self::Mask { target } => write!(f, "mask {}", shown(target)),
            Self::Sys { online } => write!(f, "sys cpu online {}", String::from_utf8_lossy(online).trim_end()),
            Self::Bind { source, target, access } => {
                write!(f, "bind {} source {source} {}", shown(target), access.text())
            }
            Self::Tmpfs { target, size, inodes, mode } => {
                write!(f, "tmpfs {} size={size} inodes={inodes} mode={mode:04o}", shown(target))
            }
            Self::Directory { target } => write!(f, "directory {}", shown(target)),
            Self::File { target, bytes } => write!(f, "file {} {} bytes", shown(target), bytes.len()),
            Self::Seal => f.write_str("seal root and dev"),
            Self::Pivot => f.write_str("pivot"),
            Self::Admit => f.write_str("admit the payload's process"),
            Self::Unmount => f.write_str("unmount the host's root"),
            Self::Drop { rights: Rights::None } => f.write_str("drop capabilities, no new privileges, undumpable"),
            Self::Drop { rights: Rights::OverOwn } => {
                f.write_str("drop all but signals to own users, no new privileges, undumpable")
            }
            Self::Reap { program } => write!(f, "let go and reap, filter {} instructions", program.len()),
            Self::Disarm { rights: Rights::None } => f.write_str("disarm, no capabilities, no new privileges"),
            Self::Disarm { rights: Rights::OverOwn } => {
                f.write_str("disarm, all but rights over own files and users, no new privileges")
            }
            Self::AwaitRoot => f.write_str("await the root"),
            Self::Await => f.write_str("await pid 1"),
            Self::Lock { uid, gid } => write!(f, "lock mounts, {uid}:{gid} is 0:0 in a second user namespace"),
            Self::Session => f.write_str("session"),
            Self::Streams => f.write_str("descriptors 0-2"),
            Self::Limits { limits } => {
                f.write_str("limits")?;
                for limit in limits {
                    write!(f, " {:?}={}", limit.resource, limit.soft)?;
                }
                Ok(())
            }
            Self::Personality { word } => write!(f, "personality {word:#09x}"),
            Self::Affinity { cpus } => write!(f, "affinity {cpus:?}"),
            Self::Umask { mask } => write!(f, "umask {mask:03o}"),
            Self::Enter { cwd } => write!(f, "enter {}", shown(cwd)),
            Self::Landlock { writable } => {
                f.write_str("landlock, writable")?;
                for path in writable {
                    write!(f, " {}", shown(path))?;
                }
                Ok(())
            }
            Self::Observe => f.write_str("observe"),
            Self::Door { program } => write!(f, "door {} instructions", program.len()),
            Self::Filter { program } => write!(f, "filter {} instructions", program.len()),
            Self::Execute { program, argv, env } => {
                write!(f, "execute {} {} arguments {} variables", shown(program), argv.len(), env.len())
            }
        }
    }
}

impl Access {
    fn text(self) -> &'static str {
        match self {
            Self::ReadOnly => "ro",
            Self::ReadWrite => "rw",
        }
    }
}

fn shown(path: &CString) -> String {
    path.to_string_lossy().into_owned()
}
