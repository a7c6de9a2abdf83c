//! Making and ending processes.

use std::os::fd::{FromRawFd, OwnedFd, RawFd};

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

/// Which namespaces a child gets.
#[derive(Clone, Copy)]
pub(crate) enum Namespaces {
    /// The parent's.
    Shared,
    /// New user, mount, pid, network, ipc, uts and cgroup namespaces.
    New,
}

const NEW: i32 = libc::CLONE_NEWUSER
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWCGROUP;

/// `clone3` without shared memory: a fork that also gives a pidfd.
pub(crate) fn clone3(namespaces: Namespaces) -> Result<Fork, Errno> {
    let mut pidfd: RawFd = -1;
    let flags = match namespaces {
        Namespaces::Shared => 0,
        Namespaces::New => NEW as u64,
    };
    let args = libc::clone_args {
        flags: flags | libc::CLONE_PIDFD as u64,
        pidfd: (&raw mut pidfd) as u64,
        child_tid: 0,
        parent_tid: 0,
        exit_signal: libc::SIGCHLD as u64,
        stack: 0,
        stack_size: 0,
        tls: 0,
        set_tid: 0,
        set_tid_size: 0,
        cgroup: 0,
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
    clone3(Namespaces::Shared)
}

/// Ends the process at once: no destructor, no handler, no flush.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: `_exit` has no precondition.
    unsafe { libc::_exit(code) }
}

/// Sets a signal's disposition to the default.
pub(crate) fn default_signal(signal: i32) {
    // SAFETY: SIG_DFL installs no handler. An invalid number only returns an error.
    unsafe { libc::signal(signal, libc::SIG_DFL) };
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
