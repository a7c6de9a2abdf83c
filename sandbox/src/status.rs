//! How a run ended, what isolation it had, and what its process saw of itself.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::spec::{Aslr, ProcMode};

/// One finished run.
#[derive(Debug, Clone)]
pub struct Ended {
    /// How the payload ended.
    pub how: How,
    /// What it used.
    pub usage: Usage,
    /// The isolation that was in force.
    pub achieved: Achieved,
    /// What its process saw of itself before it began; `None` only if it was stopped before that.
    pub observed: Option<Observed>,
}

/// How the payload ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum How {
    /// It exited with this code.
    Exited(u8),
    /// This signal ended it.
    Signaled(i32),
    /// Its wall-clock limit was over.
    TimedOut,
    /// It ran into another limit.
    LimitExceeded(Which),
    /// The caller stopped it.
    Cancelled,
}

/// Which limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Which {
    /// `log_bytes`.
    Log,
    /// `cpu` or `cpu_total`.
    Cpu,
    /// `file_size`.
    FileSize,
    /// `memory_total`: the kernel killed at least one process.
    Memory,
    /// `processes`: a new one was refused, and the payload failed. Seen where a control group counts; elsewhere the
    /// payload only sees EAGAIN.
    Processes,
    /// `disk_bytes` or `disk_inodes`.
    Disk,
}

/// What a run used. What only pid 1 knows is absent when pid 1 had to be killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// From the request to the end of the last process.
    pub wall: Duration,
    /// CPU time of all processes in user mode.
    pub user: Option<Duration>,
    /// CPU time of all processes in the kernel.
    pub system: Option<Duration>,
    /// Largest resident set of any one process, in bytes.
    pub peak_memory: Option<u64>,
    /// The most memory that all processes had at once, with their part of the page cache. Where a control group counts.
    pub peak_memory_total: Option<u64>,
    /// Bytes that the payload wrote to its log, also those beyond the limit.
    pub log_bytes: u64,
}

/// The isolation that was in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Achieved {
    /// New namespaces, in a fixed order.
    pub namespaces: Vec<String>,
    /// Rung of the limits ladder that held this run: 0 is rlimits and tmpfs sizes, 1 control groups of version 1, 2 of
    /// version 2. Above 0 only where the spec asks for what only they can hold.
    pub rung: u8,
    /// Landlock's ABI, 0 if the kernel has none.
    pub landlock_abi: u32,
    /// Name, length and checksum (FNV-1a, not a digest) of the system call filter.
    pub filter: String,
    /// How much of `/proc` there was.
    pub proc_mode: ProcMode,
    /// The host's user behind the payload was not root. Always true; here so that a reader need not take it on trust.
    pub kuid_nonzero: bool,
    /// The host's kernel release.
    pub kernel: String,
}

/// What the payload's process saw of itself right before `execve`, asked of the kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observed {
    /// `uname -n`.
    pub hostname: String,
    /// NIS domain.
    pub domain: String,
    /// `uname -r`.
    pub release: String,
    /// Working directory.
    pub cwd: String,
    /// `statfs` type of the working directory.
    pub cwd_magic: u64,
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Process id.
    pub pid: u32,
    /// File mode creation mask.
    pub umask: u32,
    /// Execution domain word.
    pub personality: u32,
    /// Whether its addresses are random.
    pub aslr: Aslr,
    /// The host's processors that it may run on.
    pub cpus: Vec<usize>,
    /// Seconds on its boot clock.
    pub boot_seconds: u64,
}
