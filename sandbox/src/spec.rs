//! What a sandbox is asked to be: every file, identity, limit and fact that the payload may see.
//!
//! A `Spec` is a plain value. It says nothing of how the host provides it; [`crate::plan()`] turns it into steps or
//! refuses. Nothing that is absent here reaches the payload: no environment, no descriptor, no path of the caller's.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::surface;

/// One run of one program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    /// What `/` is.
    pub root: Root,
    /// Names and files that every payload sees alike.
    pub surface: Surface,
    /// The program and the state of its process.
    pub process: Process,
    /// Read-only trees, files and symlinks.
    pub inputs: Vec<Input>,
    /// Directories of the host that the payload may change.
    pub writable: Vec<Writable>,
    /// Fresh file systems in memory. Below `/dev` only `/dev/shm` makes sense.
    pub tmpfs: Vec<Tmpfs>,
    /// Which system calls are refused or only pretended.
    pub filter: Filter,
    /// Who the payload is inside.
    pub ids: Ids,
    /// What it can reach.
    pub network: Network,
    /// How much of `/proc` there is.
    pub proc_mode: ProcMode,
    /// Where it must stop.
    pub limits: Limits,
    /// System calls, by number, that a supervisor answers ([`crate::Door`]); empty for no supervisor and no cost. What
    /// `filter` refuses stays refused.
    pub watched: BTreeSet<u32>,
    /// What the monotonic and boot clocks read at the start; `None` shows the host's.
    pub time_offsets: Option<TimeBase>,
}

impl Spec {
    /// Nix's surface around `program`: an empty root, `/tmp` and `/dev/shm`, uid 1000, masked `/proc`, default limits.
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self {
            root: Root::Empty,
            surface: Surface::default(),
            process: Process::new(program),
            inputs: Vec::new(),
            writable: Vec::new(),
            tmpfs: vec![Tmpfs::scratch("/tmp"), Tmpfs::scratch("/dev/shm")],
            filter: Filter::Build,
            ids: Ids::One { uid: 1000, gid: 100 },
            network: Network::None,
            proc_mode: ProcMode::Compat,
            limits: Limits::default(),
            watched: BTreeSet::new(),
            time_offsets: Some(TimeBase { seconds: 86_400 }),
        }
    }
}

/// What `/` is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Root {
    /// A fresh read-only tmpfs with only the directories that targets need.
    Empty,
    /// This directory, read-only. It ships the mount points: empty `nix/store` `build` `proc` `dev` `tmp` and files
    /// `etc/passwd` `etc/group` `etc/hosts`.
    Tree(PathBuf),
    /// The same, writable, with the slot as owner. For assembling a root under [`Filter::FakeRoot`].
    WritableTree(PathBuf),
}

/// Names and files that every payload sees alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Surface {
    /// `uname -n`.
    pub hostname: String,
    /// The NIS domain name.
    pub domain: String,
    /// Names below `/etc` and their bytes, mode 0444. Laid over a tree's own files, which must exist there.
    pub etc: Vec<(String, Vec<u8>)>,
}

impl Default for Surface {
    fn default() -> Self {
        Self { hostname: "localhost".into(), domain: "(none)".into(), etc: surface::nix_etc() }
    }
}

/// The program and the state of its process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Absolute path inside; not searched in `PATH`.
    pub program: PathBuf,
    /// All arguments, argv\[0\] included.
    pub argv: Vec<OsString>,
    /// `KEY=VALUE`, passed in this order.
    pub env: Vec<OsString>,
    /// Working directory inside.
    pub cwd: PathBuf,
    /// File mode creation mask.
    pub umask: u32,
    /// CPU numbers of the host to run on. Their count is also what `/proc` shows.
    pub affinity: Option<Vec<usize>>,
    /// Whether addresses are random.
    pub aslr: Aslr,
    /// Which kernel release `uname` tells.
    pub personality: Kernel,
    /// The payload's pid; 2 if `None`, since pid 1 is kiln's.
    pub first_pid: Option<u32>,
}

impl Process {
    /// `program` with itself as argv\[0\], no environment, in `/`, umask 022, fixed addresses.
    pub fn new(program: impl Into<PathBuf>) -> Self {
        let program = program.into();
        Self {
            argv: vec![program.clone().into_os_string()],
            program,
            env: Vec::new(),
            cwd: PathBuf::from("/"),
            umask: 0o022,
            affinity: None,
            aslr: Aslr::Fixed,
            personality: Kernel::Native,
            first_pid: None,
        }
    }
}

/// Whether the kernel randomises addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Aslr {
    /// `ADDR_NO_RANDOMIZE`, as Nix does.
    Fixed,
    /// The kernel's default.
    Random,
}

/// Which kernel release `uname` tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kernel {
    /// The host's.
    Native,
    /// 2.6.x (`UNAME26`).
    Uname26,
}

/// A read-only directory, file or symlink. A symlink is re-created, not followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Input {
    /// Where it is on the host.
    pub source: PathBuf,
    /// Where it is inside.
    pub target: PathBuf,
}

/// A directory of the host that the payload may change.
///
/// It belongs to the [`crate::Slot`] and lies below a directory of mode 0700, so that no one else can enter. Inputs
/// whose targets are below it sit on empty stubs that the sandbox makes in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Writable {
    /// Where it is on the host.
    pub source: PathBuf,
    /// Where it is inside.
    pub target: PathBuf,
}

/// A fresh file system in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tmpfs {
    /// Where it is inside.
    pub target: PathBuf,
    /// Bytes it may hold.
    pub size: u64,
    /// Files and directories it may hold.
    pub inodes: u64,
    /// Mode of its root.
    pub mode: u32,
}

impl Tmpfs {
    /// 2 GiB, a million inodes, mode 01777.
    pub fn scratch(target: impl Into<PathBuf>) -> Self {
        Self { target: target.into(), size: 2 << 30, inodes: 1 << 20, mode: 0o1777 }
    }
}

/// Which system calls are refused or only pretended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Filter {
    /// Refused: what leads out, what no build needs, what would outlive it.
    Build,
    /// The same, but changes of owner, identity, setuid bits and device nodes, and syncs, are answered "done" without being done.
    FakeRoot,
}

/// Who the payload is inside. Outside it is the [`crate::Slot`]'s one id, never the host's root.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ids {
    /// One user and one group.
    One {
        /// User id inside.
        uid: u32,
        /// Group id inside.
        gid: u32,
    },
    /// 65536 users and groups, really distinct outside: 0, as which the payload starts, may own files of all of them and
    /// become each. Behind 0 is the [`crate::Slot`]'s own id, which [`crate::Slot::lease_range`] must have leased; behind the
    /// others are ids of /etc/subuid and /etc/subgid. `limits.processes` then holds for each of them alone, and for all
    /// together only where there are control groups; the bound on disks does not see what the others close. Goes with
    /// [`Filter::Build`].
    Range,
    /// uid and gid 0, with the few capabilities over its own files that installing a system needs, behind a second
    /// user namespace that locks every mount. Goes with [`Filter::FakeRoot`].
    FakeRoot,
}

/// What the payload can reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Network {
    /// Nothing but an own loopback.
    None,
    /// The caller's network, for a step that only fetches what is then compared with a pinned digest. Never for a build:
    /// two payloads that share a network can also reach each other.
    Host,
}

/// How much of `/proc` there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProcMode {
    /// Processes only (`subset=pid`).
    Strict,
    /// Full, with what tells of the host masked, fixed or read-only.
    Compat,
    /// No `/proc`.
    None,
}

/// What the monotonic and boot clocks read when the payload starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimeBase {
    /// Seconds since the pretended boot.
    pub seconds: u64,
}

/// Where the payload must stop. `None` is no bound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Wall clock, from the start of the payload.
    pub wall: Option<Duration>,
    /// Between SIGTERM to every process and SIGKILL when `wall` is over or the log is full.
    pub grace: Duration,
    /// CPU time of each process, in seconds.
    pub cpu: Option<u64>,
    /// Address space of each process, in bytes.
    pub address_space: Option<u64>,
    /// Processes and threads of this sandbox, its pid 1 among them. Where no control group counts them, those that are being
    /// made count as well.
    pub processes: Option<u64>,
    /// Descriptors of each process.
    pub open_files: Option<u64>,
    /// Size of each file, in bytes.
    pub file_size: Option<u64>,
    /// Bytes on stdout and stderr together.
    pub log_bytes: Option<u64>,
    /// Memory of all processes together, in bytes. Needs a control group; refused where there is none. Joining groups
    /// of version 1 costs about 10 ms.
    pub memory_total: Option<u64>,
    /// CPU time of all processes together, in seconds. Needs a control group; refused where there is none.
    pub cpu_total: Option<u64>,
    /// Bytes that the writable directories together may hold in addition to what they held at the start. Looked at a few
    /// times a second, so what is written between two looks comes on top.
    pub disk_bytes: Option<u64>,
    /// The same for files and directories.
    pub disk_inodes: Option<u64>,
}

impl Default for Limits {
    /// What every host can hold: rlimits and tmpfs sizes.
    fn default() -> Self {
        Self {
            wall: None,
            grace: Duration::from_secs(2),
            cpu: None,
            address_space: None,
            processes: Some(4096),
            open_files: Some(4096),
            file_size: Some(64 << 30),
            log_bytes: Some(256 << 20),
            memory_total: None,
            cpu_total: None,
            disk_bytes: None,
            disk_inodes: None,
        }
    }
}
