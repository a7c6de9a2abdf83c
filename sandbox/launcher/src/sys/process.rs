//! Making and ending processes.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::io::Errno;

/// Which side of a fork this is.
pub(crate) enum Fork {
    /// The new process.
    Child,
    /// The old one.
    Parent {
        /// The child's pid, as seen here.
        pid: i32,
        /// The child, safe against reuse of its pid.
        pidfd: OwnedFd,
    },
}

/// linux/sched.h; the libc crate's constant has lost this bit.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// What a child shares with its parent.
#[derive(Clone, Copy)]
pub(crate) enum Birth<'a> {
    /// Every namespace.
    Fork,
    /// No namespace but the network's, and that only until the payload's process has one; born in a control group, if one is given.
    Sandbox { group: Option<BorrowedFd<'a>> },
    /// Every namespace and the open descriptors; a sibling, not a child.
    Courier,
}

const NEW: i32 = libc::CLONE_NEWUSER
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWCGROUP;

/// `clone3` without shared memory: a fork that also gives a pidfd.
pub(crate) fn clone3(birth: Birth<'_>) -> Result<Fork, Errno> {
    let mut pidfd: RawFd = -1;
    let (flags, group) = match birth {
        Birth::Fork => (0, None),
        Birth::Sandbox { group } => (NEW as u64, group),
        Birth::Courier => ((libc::CLONE_FILES | libc::CLONE_PARENT) as u64, None),
    };
    let (into, cgroup) = match group {
        Some(group) => (CLONE_INTO_CGROUP, group.as_raw_fd() as u64),
        None => (0, 0),
    };
    // With CLONE_PARENT the signal is the parent's own and none may be given: clone(2).
    let exit_signal = if let Birth::Courier = birth { 0 } else { libc::SIGCHLD as u64 };
    let args = libc::clone_args {
        flags: flags | into | libc::CLONE_PIDFD as u64,
        pidfd: (&raw mut pidfd) as u64,
        child_tid: 0,
        parent_tid: 0,
        exit_signal,
        stack: 0,
        stack_size: 0,
        tls: 0,
        set_tid: 0,
        set_tid_size: 0,
        cgroup,
    };
    // SAFETY: no CLONE_VM, so the child has its own copy of memory and goes on with this very stack, as after fork;
    // the process has one thread, so no lock can be held by another. `args` and `pidfd` outlive the call.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<libc::clone_args>()) };
    match pid {
        0 => Ok(Fork::Child),
        pid if pid > 0 => Ok(Fork::Parent {
            pid: pid as i32,
            // SAFETY: with CLONE_PIDFD a successful call stored a new descriptor that nothing else owns.
            pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) },
        }),
        _ => Err(last_errno()),
    }
}

/// A fork in the same namespaces.
pub(crate) fn fork() -> Result<Fork, Errno> {
    clone3(Birth::Fork)
}

/// Ends the process at once: no destructor, no handler, no flush.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: `_exit` has no precondition.
    unsafe { libc::_exit(code) }
}

/// Sets a signal's disposition to the default: 32 and 33 too, which glibc keeps to itself.
pub(crate) fn default_signal(signal: i32) {
    // The kernel's sigaction: handler, flags, restorer, mask.
    let default = [0u64; 4];
    let none = std::ptr::null_mut::<u64>();
    // SAFETY: the kernel reads one sigaction, which outlives the call; its handler 0 is SIG_DFL. An invalid number only
    // returns an error.
    unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), none, size_of::<u64>()) };
}

/// Ignores a signal. For SIGCHLD that also means that the kernel reaps.
pub(crate) fn ignore_signal(signal: i32) {
    // SAFETY: SIG_IGN installs no handler.
    unsafe { libc::signal(signal, libc::SIG_IGN) };
}

pub(super) fn last_errno() -> Errno {
    // SAFETY: the location of errno is valid for the calling thread at any time.
    Errno::from_raw_os_error(unsafe { *libc::__errno_location() })
}
