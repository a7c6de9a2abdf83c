//! The door: hands a listener for chosen system calls, and a pidfd of the payload, to a supervisor outside.
//!
//! Runs in the payload's process before its program. Once the listening filter is in force every call may be a watched
//! one that waits for an answer, so the process cannot itself send what the supervisor needs to answer. A courier does:
//! a sibling with the same descriptors and without the filter, which ends when it has sent. It cannot be traced, like
//! pid 1, and pid 1 reaps it. No heap, no lock: this is after `clone3`.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering;

use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use rustix::process::{Pid, PidfdFlags};

use crate::sys::{self, Birth, Fork, Mailbox, Program};

// What is in the mailbox, if not the listener's number, which is above 2 as the standard streams are open.
const NOTHING: i32 = 0;
const SENT: i32 = 1;
const FAILED: i32 = 2;

/// Installs the listening filter and returns when its listener is on its way.
pub(crate) fn install(door: &OwnedFd, program: &Program) -> Result<(), Errno> {
    let payload = rustix::process::getpid();
    let mailbox = Mailbox::new()?;
    match sys::clone3(Birth::Courier)? {
        Fork::Child => courier(door, payload, &mailbox),
        Fork::Parent { .. } => {}
    }
    let listener = sys::install_listening_filter(program)?;
    mailbox.number().store(listener.as_raw_fd(), Ordering::SeqCst);
    loop {
        match mailbox.number().load(Ordering::SeqCst) {
            SENT => break,
            FAILED => return Err(Errno::PIPE),
            // May be a watched call itself; the supervisor has then been reached, or will be.
            _ => std::thread::yield_now(),
        }
    }
    // `execve` closes it. Closing it here may be a watched call.
    std::mem::forget(listener);
    Ok(())
}

fn courier(door: &OwnedFd, payload: Pid, mailbox: &Mailbox) -> ! {
    let listener = loop {
        match mailbox.number().load(Ordering::SeqCst) {
            NOTHING => std::thread::yield_now(),
            number => break number,
        }
    };
    let sent = rustix::process::pidfd_open(payload, PidfdFlags::empty())
        .and_then(|pidfd| send(door, sys::shared_descriptor(listener), &pidfd));
    mailbox.number().store(if sent.is_ok() { SENT } else { FAILED }, Ordering::SeqCst);
    sys::exit_now(0)
}

fn send(door: &OwnedFd, listener: BorrowedFd<'_>, payload: &OwnedFd) -> Result<(), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let both = [listener, payload.as_fd()];
    if !ancillary.push(SendAncillaryMessage::ScmRights(&both)) {
        return Err(Errno::NOBUFS);
    }
    rustix::net::sendmsg(door, &[IoSlice::new(&[0])], &mut ancillary, SendFlags::NOSIGNAL).map(drop)
}
