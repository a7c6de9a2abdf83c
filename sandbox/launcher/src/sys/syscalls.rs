//! Single system calls that the crates lack.

use std::ffi::c_int;
use std::os::fd::{AsFd, AsRawFd};

use rustix::io::Errno;

use super::process::last_errno;

fn check(result: libc::c_long) -> Result<(), Errno> {
    if result < 0 { Err(last_errno()) } else { Ok(()) }
}

/// Closes the descriptors `first..=last`.
///
/// Owners of these descriptors must not be used or dropped afterwards: callers are about to `execve` or `_exit`.
pub(crate) fn close_range(first: u32, last: u32) -> Result<(), Errno> {
    // SAFETY: touches no memory. That no owner outlives this is the callers' duty, see above.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) })
}

/// Marks every descriptor from `first` on to be closed by `execve`.
pub(crate) fn close_range_on_exec(first: u32) -> Result<(), Errno> {
    // SAFETY: only sets flags.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) })
}

/// How far a change of mount attributes goes.
#[derive(Clone, Copy)]
pub(crate) enum Reach {
    /// One mount.
    This,
    /// The mount and everything mounted below it.
    Tree,
}

/// Sets mount attributes (`MOUNT_ATTR_*`) on `tree`, and takes it out of propagation.
pub(crate) fn mount_attributes(tree: impl AsFd, set: u64, reach: Reach) -> Result<(), Errno> {
    let attributes = libc::mount_attr { attr_set: set, attr_clr: 0, propagation: libc::MS_PRIVATE, userns_fd: 0 };
    let recursive = match reach {
        Reach::This => 0,
        Reach::Tree => libc::AT_RECURSIVE,
    };
    // SAFETY: the path is an empty C string, `attributes` outlives the call and its size is passed.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_fd().as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | recursive,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    })
}

/// `ifconfig NAME up`, through any socket in the network namespace.
pub(crate) fn interface_up(socket: impl AsFd, name: &[u8; 2]) -> Result<(), Errno> {
    // SAFETY: all-zero bytes are a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name) {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: SIOCSIFFLAGS reads one ifreq, which outlives the call.
    let result = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) };
    check(libc::c_long::from(result))
}

/// Sets the execution domain, and returns the old one. `0xffffffff` only asks.
pub(crate) fn personality(word: u32) -> Result<u32, Errno> {
    // SAFETY: changes flags of this process only.
    let old: c_int = unsafe { libc::personality(libc::c_ulong::from(word)) };
    if old < 0 { Err(last_errno()) } else { Ok(old as u32) }
}

/// Children from now on live in a new time namespace.
pub(crate) fn unshare_time() -> Result<(), Errno> {
    // SAFETY: concerns only children; no memory or descriptor table is unshared.
    check(libc::c_long::from(unsafe { libc::unshare(libc::CLONE_NEWTIME) }))
}

/// A user namespace below the present one.
pub(crate) fn unshare_user() -> Result<(), Errno> {
    // SAFETY: the process has one thread; no memory or descriptor table is unshared.
    check(libc::c_long::from(unsafe { libc::unshare(libc::CLONE_NEWUSER) }))
}

/// A network namespace.
pub(crate) fn unshare_network() -> Result<(), Errno> {
    // SAFETY: as above.
    check(libc::c_long::from(unsafe { libc::unshare(libc::CLONE_NEWNET) }))
}

/// The control groups that this process is in become the roots of all that it sees.
pub(crate) fn unshare_groups() -> Result<(), Errno> {
    // SAFETY: as above.
    check(libc::c_long::from(unsafe { libc::unshare(libc::CLONE_NEWCGROUP) }))
}

/// A user and a mount namespace below the present ones.
pub(crate) fn unshare_locked() -> Result<(), Errno> {
    // SAFETY: the process has one thread; no memory or descriptor table is unshared.
    check(libc::c_long::from(unsafe { libc::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNS) }))
}

/// `getcwd` into a buffer, cut at its end.
pub(crate) fn working_directory(buffer: &mut [u8]) -> Result<usize, Errno> {
    let mut whole = [0u8; libc::PATH_MAX as usize];
    // SAFETY: the kernel writes at most `whole.len()` bytes into `whole`.
    let length = unsafe { libc::syscall(libc::SYS_getcwd, whole.as_mut_ptr(), whole.len()) };
    check(length)?;
    // The length counts the final NUL.
    let used = (length as usize).saturating_sub(1).min(buffer.len());
    buffer[..used].copy_from_slice(&whole[..used]);
    Ok(used)
}

/// The kernel's Landlock ABI, 0 if it has none or does not use it.
pub fn landlock_abi() -> u32 {
    // SAFETY: with LANDLOCK_CREATE_RULESET_VERSION no pointer is read.
    let version =
        unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<libc::c_void>(), 0usize, 1u32) };
    u32::try_from(version).unwrap_or(0)
}
