//! The two requests of a seccomp listener, which neither nix nor rustix offers.

#![expect(unsafe_code, reason = "ioctls of a seccomp listener; see each SAFETY comment")]

use std::os::fd::{AsRawFd, OwnedFd};

use rustix::io::Errno;

/// Whether the kernel makes a call after all.
#[derive(Clone, Copy)]
pub(crate) enum GoesOn {
    Yes,
    No,
}

/// A waiting call: its id, process, number and arguments.
pub(crate) fn receive_call(listener: &OwnedFd) -> Result<(u64, u32, u32, [u64; 6]), Errno> {
    // SAFETY: all-zero bytes are a valid seccomp_notif, and the kernel requires them to be zero.
    let mut call: libc::seccomp_notif = unsafe { std::mem::zeroed() };
    // SAFETY: the request fills one seccomp_notif, which outlives the call.
    let result = unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV as _, &raw mut call) };
    if result < 0 {
        return Err(last_errno());
    }
    Ok((call.id, call.pid, call.data.nr as u32, call.data.args))
}

/// Answers it.
pub(crate) fn answer_call(listener: &OwnedFd, id: u64, val: i64, error: i32, goes_on: GoesOn) -> Result<(), Errno> {
    let flags = match goes_on {
        GoesOn::Yes => libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32,
        GoesOn::No => 0,
    };
    let answer = libc::seccomp_notif_resp { id, val, error, flags };
    // SAFETY: the request reads one seccomp_notif_resp, which outlives the call.
    let result = unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND as _, &raw const answer) };
    if result < 0 { Err(last_errno()) } else { Ok(()) }
}

fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}
