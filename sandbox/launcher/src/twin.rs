//! Pid 1 and the payload's process, side by side until the sandbox is built: two pipes with one byte each.
//!
//! Half of what a sandbox costs is its network, the other half its mounts, and both wait for the kernel; so each of the
//! two processes does one. Either's death is the other's end of file, and then its own end: without a report, since the
//! one that failed has reported.

use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::Pid;
use rustix::thread::ThreadNameSpaceType;

use crate::sys::{self, Fork};

/// The payload's process as pid 1 sees it.
pub(crate) struct Twin {
    pub(crate) pid: Pid,
    pidfd: OwnedFd,
    ends: Ends,
}

/// Pid 1 as the payload's process sees it.
pub(crate) struct OfPayload {
    ends: Ends,
}

/// Which process this is after [`fork`].
pub(crate) enum Side {
    Init(Twin),
    Payload(OfPayload),
}

struct Ends {
    hear: OwnedFd,
    say: OwnedFd,
}

/// Makes the second process.
pub(crate) fn fork() -> Result<Side, Errno> {
    let (init_hears, payload_says) = pipe_with(PipeFlags::CLOEXEC)?;
    let (payload_hears, init_says) = pipe_with(PipeFlags::CLOEXEC)?;
    Ok(match sys::fork()? {
        Fork::Child => Side::Payload(OfPayload { ends: Ends { hear: payload_hears, say: payload_says } }),
        Fork::Parent { pid, pidfd } => Side::Init(Twin {
            pid: Pid::from_raw(pid).ok_or(Errno::PROTO)?,
            pidfd,
            ends: Ends { hear: init_hears, say: init_says },
        }),
    })
}

impl Twin {
    /// Waits for the payload's process to have its network.
    pub(crate) fn wait(&self) {
        self.ends.wait();
    }

    /// Lets the payload's process go on.
    pub(crate) fn tell(&self) -> Result<(), Errno> {
        self.ends.tell()
    }

    /// Enters its network namespace. Needs capabilities here, and that it is still traceable.
    pub(crate) fn enter_network(&self) -> Result<(), Errno> {
        rustix::thread::move_into_thread_name_spaces(self.pidfd.as_fd(), ThreadNameSpaceType::NETWORK)
    }
}

impl OfPayload {
    /// Waits for pid 1 to have built and dropped everything.
    pub(crate) fn wait(&self) {
        self.ends.wait();
    }

    /// Tells pid 1 that the network is there.
    pub(crate) fn tell(&self) -> Result<(), Errno> {
        self.ends.tell()
    }
}

impl Ends {
    fn wait(&self) {
        if rustix::io::read(&self.hear, &mut [0u8; 1]) != Ok(1) {
            sys::exit_now(125)
        }
    }

    fn tell(&self) -> Result<(), Errno> {
        rustix::io::write(&self.say, &[1]).map(drop)
    }
}
