//! The door, not the room: a supervisor's end of the system calls that [`crate::Spec::watched`] names.
//!
//! The payload's process waits in the kernel until its call is answered. What the sandbox's own filter refuses never
//! comes here, and an [`Answer::Continue`] is made by the payload itself with the payload's rights: a supervisor can
//! neither weaken the sandbox nor rely on arguments in memory, which the payload may change after it was asked
//! (seccomp_unotify(2)). One thread per sandbox receives and answers; what it knows about the calls is its own affair.

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};

use crate::sys;

/// Where the listener of a starting sandbox arrives. [`crate::Running::door`] gives it.
#[derive(Debug)]
pub struct Door {
    socket: OwnedFd,
}

impl Door {
    pub(crate) fn new(socket: OwnedFd) -> Self {
        Self { socket }
    }

    /// Waits until the payload is about to begin. `None` if it never will; `wait` says why.
    pub fn open(self) -> io::Result<Option<Doorway>> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0];
        let received = loop {
            let mut parts = [IoSliceMut::new(&mut byte)];
            match rustix::net::recvmsg(&self.socket, &mut parts, &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
                Err(Errno::INTR) => {}
                other => break other?,
            }
        };
        if received.bytes == 0 {
            return Ok(None);
        }
        let mut descriptors = ancillary.drain().flat_map(|message| match message {
            RecvAncillaryMessage::ScmRights(descriptors) => descriptors.collect(),
            _ => Vec::new(),
        });
        match (descriptors.next(), descriptors.next()) {
            (Some(listener), Some(payload)) => Ok(Some(Doorway { listener, payload })),
            _ => Err(Errno::BADMSG.into()),
        }
    }
}

/// The watched calls of one payload and of everything that it starts.
#[derive(Debug)]
pub struct Doorway {
    listener: OwnedFd,
    payload: OwnedFd,
}

/// One watched call, waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    id: u64,
    /// The process that makes it, as the supervisor's pid namespace numbers it.
    pub pid: u32,
    /// Which call.
    pub number: u32,
    /// Its arguments. Pointers are the payload's.
    pub arguments: [u64; 6],
}

/// What becomes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// The kernel makes it, as if nobody had been asked.
    Continue,
    /// It is not made and returns this.
    Value(i64),
    /// It is not made and fails with this error number.
    Error(u16),
}

impl Doorway {
    /// The payload, safe against reuse of its pid.
    pub fn payload(&self) -> &OwnedFd {
        &self.payload
    }

    /// The kernel's listener itself, for what these functions do not offer.
    pub fn listener(&self) -> &OwnedFd {
        &self.listener
    }

    /// The next call; `None` when every process of the payload has ended.
    pub fn next_call(&self) -> io::Result<Option<Call>> {
        loop {
            let mut listener = [PollFd::new(std::os::fd::AsFd::as_fd(&self.listener), PollFlags::POLLIN)];
            match poll(&mut listener, PollTimeout::NONE) {
                Err(nix::errno::Errno::EINTR) => continue,
                other => other?,
            };
            if !listener[0].revents().is_some_and(|events| events.contains(PollFlags::POLLIN)) {
                return Ok(None);
            }
            match sys::receive_call(&self.listener) {
                Ok((id, pid, number, arguments)) => return Ok(Some(Call { id, pid, number, arguments })),
                // It was killed while its call waited.
                Err(Errno::NOENT | Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// Answers a call. One whose process has ended meanwhile needs no answer.
    pub fn answer(&self, call: Call, answer: Answer) -> io::Result<()> {
        let (value, error, goes_on) = match answer {
            Answer::Continue => (0, 0, sys::GoesOn::Yes),
            Answer::Value(value) => (value, 0, sys::GoesOn::No),
            Answer::Error(number) => (0, -i32::from(number), sys::GoesOn::No),
        };
        match sys::answer_call(&self.listener, call.id, value, error, goes_on) {
            Err(Errno::NOENT) => Ok(()),
            other => Ok(other?),
        }
    }
}
