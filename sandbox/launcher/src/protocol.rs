//! What kiln and its launcher say to each other: one request with all steps, one reply with a pidfd, then reports.
//!
//! A request is a postcard-encoded [`Request`], sent with the descriptors of [`Carried`] over a SOCK_SEQPACKET pair: in
//! the packet itself, or in a sealed memfd where it is longer than [`INLINE`]. The reply is a [`Reply`]; a pidfd of the
//! sandbox's pid 1 comes with [`Reply::Started`]. Later facts travel on the request's own pipe, one [`Report`] per packet
//! (`O_DIRECT` pipe, each at most `PIPE_BUF`), so that many sandboxes over one launcher need no numbering. Both ends are
//! the same build of kiln: there is no version.
//!
//! A sandbox may be begun before its inputs are there ([`Then::Rest`]). Pid 1 then waits for kiln on a socket of its own. The
//! rest of the request lies in a memfd, and each packet on the socket brings up to [`TREES`] of root's detached trees, in
//! the order of the steps that mount them; without any, one packet comes alone.

use std::ffi::CString;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::step::{Kind, Step};

/// Largest packet on the report pipe: `PIPE_BUF`, the bound below which a pipe write is atomic.
pub const PACKET: usize = 4096;

/// Longest request that travels in its packet, in bytes. A memfd costs four system calls on one side and two on the
/// other; a packet beyond the socket's buffer (208 KiB by default) would not be taken at all.
pub const INLINE: usize = 64 << 10;

/// First byte of a request's packet: where the encoded [`Request`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Body {
    /// The rest of the packet.
    Inline = 1,
    /// A sealed memfd, the last of the descriptors.
    Memory = 2,
}

/// Order of the descriptors that come with a request.
pub struct Carried;

impl Carried {
    /// Write end of the report pipe.
    pub const REPORT: usize = 0;
    /// The payload's streams: one descriptor for 1 and 2, with the sandbox's own `/dev/null` for 0, or one for each.
    /// Behind them, where the steps have a [`Step::Door`], the socket that its listener leaves by; then, where they have
    /// [`Step::Ranges`], the pipe through which kiln says that the maps are written. With [`Then::Rest`], which goes with
    /// neither, the memfd of the rest and pid 1's socket.
    pub const STREAMS: usize = 1;
    /// How many there are at most, with the memfd of [`Body::Memory`].
    pub const COUNT: usize = 7;
}

/// One sandbox to start. `S` is `&[Step]` where it is written.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Request<S = Vec<Step>> {
    /// The host's user id behind every process of the sandbox. Never 0.
    pub outer_uid: u32,
    /// The host's group id. Never 0.
    pub outer_gid: u32,
    /// The control groups of [`Step::Group`].
    pub group: Group,
    /// What the steps' source numbers mean.
    pub sources: Vec<Source>,
    /// The number of the first step in the plan: failures are told by the plan's numbers.
    pub first: u32,
    /// What to do, in order.
    pub steps: S,
    /// What comes after them.
    pub then: Then,
}

/// What follows a request's steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Then {
    /// Nothing: the last of them do not return.
    Nothing,
    /// Another request, within [`PATIENCE`]. Pid 1 ends without it.
    Rest,
}

/// How long a begun sandbox waits for its rest. Its mount namespace keeps the host's file systems in use meanwhile.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Trees in one packet: few, since kiln has each as a descriptor until it is sent, for every sandbox that goes on at that
/// moment, and keeps the usual bound on open files. The kernel's own bound is 253, unix(7).
pub const TREES: usize = 32;

/// Control groups that kiln made for one sandbox, by absolute path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Group {
    /// None.
    None,
    /// Version 2: pid 1 is born in it.
    Born(CString),
    /// Version 1: pid 1 is moved into each before it may go on.
    Moved(Vec<CString>),
}

/// A file or directory of the host, by identity.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Source {
    /// A file or directory.
    Tree {
        /// Absolute path without symlinks.
        path: CString,
        /// Device that it had when kiln looked.
        dev: u64,
        /// Inode that it had when kiln looked.
        ino: u64,
        /// What it is.
        kind: Kind,
    },
    /// A symlink, to be made again with this text.
    Link {
        /// Where it points.
        text: CString,
    },
}

/// The launcher's answer.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub enum Reply {
    /// Pid 1 runs; its pidfd comes along.
    Started,
    /// Nothing was started.
    Failed(Failure),
}

/// Which step failed, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Its number in the plan.
    pub step: u32,
    /// The source that it was busy with, if any.
    pub source: Option<u32>,
    /// Why.
    pub errno: i32,
}

/// What comes on the report pipe. `B` is `&[u8]` where it is written, `Vec<u8>` where it is read.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Report<B> {
    /// Setup failed; nothing of the payload ran.
    Failed(Failure),
    /// Landlock is in force up to this ABI.
    Landlock(u32),
    /// What the payload's process saw right before it became the payload.
    Observed(Facts<B>),
    /// The payload ended. Comes from pid 1, unless that was killed.
    Ended(End),
}

/// What a process knows of itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Facts<B> {
    /// `uname -n`.
    pub hostname: B,
    /// NIS domain.
    pub domain: B,
    /// `uname -r`.
    pub release: B,
    /// Working directory.
    pub cwd: B,
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
    /// Execution domain.
    pub personality: u32,
    /// Processors it may run on, one bit each, little end first.
    pub cpus: B,
    /// CLOCK_BOOTTIME, in seconds.
    pub boot_seconds: u64,
}

/// How the payload ended.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct End {
    /// How.
    pub status: Status,
    /// CPU time in user mode of every process that was waited for, in microseconds.
    pub user_micros: u64,
    /// The same in the kernel.
    pub system_micros: u64,
    /// Largest resident set of one process, in bytes.
    pub peak_bytes: u64,
    /// What else runs in the sandbox.
    pub others: Others,
}

/// Processes of a sandbox but for pid 1 and the payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Others {
    /// None: nobody is left who could write.
    None,
    /// Some may be; the kernel kills them when pid 1 exits.
    Perhaps,
}

/// Exit or signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Status {
    /// It exited with this code.
    Exited(u8),
    /// This signal ended it.
    Signaled(i32),
}
