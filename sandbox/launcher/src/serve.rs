//! The launcher's loop: a request comes, a sandbox starts, its pidfd goes back. End of the socket ends everything.
//!
//! Runs in the caller's namespaces with the caller's rights, in an own session, so that a terminal's Ctrl-C reaches
//! kiln alone. As root it has no supplementary groups (they could not be dropped later). It never waits for a sandbox:
//! SIGCHLD is ignored, so the kernel reaps, and pidfds tell kiln. When it goes, every pid 1 gets SIGKILL.

use std::ffi::CStr;
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;

use nix::sys::signal::SigSet;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
};
use rustix::process::{PidfdFlags, Resource, Signal};

use crate::ids;
use crate::init::{self, Task};
use crate::later::Later;
use crate::mounts;
use crate::protocol::{Body, Carried, Failure, Group, INLINE, Reply, Request, Then};
use crate::step::Step;
use crate::sys::{self, Birth, Fork};

/// Serves the socket on descriptor 0 until the other side closes it.
pub fn run() -> ExitCode {
    match rustix::io::fcntl_dupfd_cloexec(std::io::stdin(), 3).and_then(on) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(70),
    }
}

/// The same with `socket`.
pub(crate) fn on(socket: OwnedFd) -> Result<(), Errno> {
    Launcher::take_over(socket)?.serve()
}

struct Launcher {
    socket: OwnedFd,
    packet: Vec<u8>,
    itself: OwnedFd,
}

/// What came in one packet.
struct Received {
    /// An unreadable one is refused; the launcher goes on.
    request: Result<Request, Errno>,
    carried: Vec<OwnedFd>,
}

impl Launcher {
    fn take_over(socket: OwnedFd) -> Result<Self, Errno> {
        let null = rustix::fs::open(c"/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
        rustix::stdio::dup2_stdin(&null)?;
        for signal in 1..=64 {
            sys::default_signal(signal);
        }
        sys::ignore_signal(libc::SIGCHLD);
        sys::ignore_signal(libc::SIGPIPE);
        // Fails only for a group leader, which already has what is wanted.
        let _ = rustix::process::setsid();
        // What kiln blocks would stay blocked in every payload.
        SigSet::empty().thread_set_mask().map_err(|_| Errno::INVAL)?;
        rustix::process::chdir(c"/")?;
        rustix::thread::set_no_new_privs(true)?;
        if rustix::process::geteuid().is_root() {
            rustix::thread::set_thread_groups(&[])?;
        }
        // As root each input is a descriptor here until its sandbox runs; the payload's own limit is set later.
        let mut files = rustix::process::getrlimit(Resource::Nofile);
        files.current = files.maximum;
        rustix::process::setrlimit(Resource::Nofile, files)?;
        let itself = rustix::process::pidfd_open(rustix::process::getpid(), PidfdFlags::empty())?;
        Ok(Self { socket, packet: vec![0; 1 + INLINE], itself })
    }

    fn serve(&mut self) -> Result<(), Errno> {
        while let Some(Received { request, carried }) = self.receive()? {
            let started = request.map_err(refused).and_then(|request| self.start(&request, &carried));
            // Our copies of the pipes must be gone before the reply, or kiln would wait for an end of file.
            drop(carried);
            self.reply(started)?;
        }
        Ok(())
    }

    fn receive(&mut self) -> Result<Option<Received>, Errno> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(Carried::COUNT))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let received = loop {
            let result = rustix::net::recvmsg(
                &self.socket,
                &mut [IoSliceMut::new(&mut self.packet)],
                &mut ancillary,
                RecvFlags::CMSG_CLOEXEC,
            );
            match result {
                Err(Errno::INTR) => {}
                other => break other?,
            }
        };
        if received.bytes == 0 {
            return Ok(None);
        }
        let mut carried = Vec::with_capacity(Carried::COUNT);
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                carried.extend(descriptors);
            }
        }
        let request = match self.packet[..received.bytes].split_first() {
            Some((&kind, bytes)) if kind == Body::Inline as u8 => decode(bytes),
            Some((&kind, [])) if kind == Body::Memory as u8 => match carried.pop() {
                Some(memory) => read(&memory).and_then(|bytes| decode(&bytes)),
                None => Err(Errno::PROTO),
            },
            _ => Err(Errno::PROTO),
        };
        Ok(Some(Received { request, carried }))
    }

    fn reply(&self, started: Result<OwnedFd, Failure>) -> Result<(), Errno> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let (reply, pidfd) = match started {
            Ok(pidfd) => (Reply::Started, Some(pidfd)),
            Err(failure) => (Reply::Failed(failure), None),
        };
        let rights = pidfd.as_ref().map(|pidfd| [pidfd.as_fd()]);
        if let Some(rights) = &rights
            && !ancillary.push(SendAncillaryMessage::ScmRights(rights))
        {
            return Err(Errno::NOBUFS);
        }
        let mut bytes = [0; 64];
        let used = postcard::to_slice(&reply, &mut bytes).map_err(|_| Errno::NOBUFS)?;
        rustix::net::sendmsg(&self.socket, &[IoSlice::new(used)], &mut ancillary, SendFlags::NOSIGNAL)?;
        Ok(())
    }

    fn start(&self, request: &Request, carried: &[OwnedFd]) -> Result<OwnedFd, Failure> {
        if !(Carried::STREAMS + 1..=Carried::COUNT).contains(&carried.len()) {
            return Err(refused(Errno::PROTO));
        }
        let (release, released) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
            .map(|(read, write)| (write, read))
            .map_err(refused)?;

        // Where kiln writes the maps, it also says when: its pipe is the last that came along.
        let by_kiln = request.steps.iter().any(|step| matches!(step, Step::Ranges { .. }));
        let (carried, released) = match carried.split_last() {
            Some((theirs, others)) if by_kiln => (others, theirs),
            Some(_) | None => (carried, &released),
        };
        let (carried, later) = match (request.then, carried) {
            (Then::Nothing, all) => (all, None),
            (Then::Rest, [others @ .., rest, socket]) if others.len() > Carried::STREAMS => {
                (others, Some(Later { rest, socket }))
            }
            (Then::Rest, _) => return Err(refused(Errno::PROTO)),
        };

        let mut trees: Vec<Option<OwnedFd>> = request.sources.iter().map(|_| None).collect();
        let (mut child, mut group) = (None, None);
        for (number, step) in request.steps.iter().enumerate() {
            let failed = |errno: Errno, source: Option<usize>| Failure {
                step: request.first + number as u32,
                source: source.map(|source| source as u32),
                errno: errno.raw_os_error(),
            };
            match step {
                Step::Detach => {
                    for (index, tree) in mounts::detach(&request.sources, &request.steps) {
                        trees[index] = Some(tree.map_err(|errno| failed(errno, Some(index)))?);
                    }
                }
                Step::Group { .. } => match (&request.group, &child) {
                    (Group::Born(path), None) => {
                        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                        let found = rustix::fs::open(path.as_c_str(), flags, Mode::empty());
                        group = Some(found.map_err(|errno| failed(errno, None))?);
                    }
                    (Group::Moved(paths), Some((pid, pidfd))) => {
                        if let Err(errno) = paths.iter().try_for_each(|path| move_into(path, *pid)) {
                            let _ = rustix::process::pidfd_send_signal(pidfd, Signal::KILL);
                            return Err(failed(errno, None));
                        }
                    }
                    (Group::None | Group::Born(_) | Group::Moved(_), _) => return Err(failed(Errno::PROTO, None)),
                },
                Step::Clone => {
                    // Everything that the child needs is made here, in memory that it inherits.
                    let task = Task::prepare(request, &trees, carried, later, released, &self.itself);
                    let birth = Birth::Sandbox { group: group.as_ref().map(AsFd::as_fd) };
                    match sys::clone3(birth).map_err(|errno| failed(errno, None))? {
                        Fork::Child => init::run(&task),
                        Fork::Parent { pid, pidfd } => child = Some((pid, pidfd)),
                    }
                }
                Step::Map { uid, gid } => {
                    let Some((pid, pidfd)) = &child else {
                        return Err(failed(Errno::PROTO, None));
                    };
                    let outer = (request.outer_uid, request.outer_gid);
                    let result = ids::write_maps(*pid, (*uid, *gid), outer)
                        .and_then(|()| rustix::io::write(&release, &[1]).map(drop));
                    if let Err(errno) = result {
                        let _ = rustix::process::pidfd_send_signal(pidfd, Signal::KILL);
                        return Err(failed(errno, None));
                    }
                }
                Step::Ranges { .. } => {}
                _ => break,
            }
        }
        child.map(|(_, pidfd)| pidfd).ok_or_else(|| refused(Errno::PROTO))
    }
}

/// Moves pid 1 into a control group of version 1.
fn move_into(group: &CStr, pid: i32) -> Result<(), Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let group = rustix::fs::open(group, flags, Mode::empty())?;
    let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let members = rustix::fs::openat(&group, c"cgroup.procs", flags, Mode::empty())?;
    rustix::io::write(&members, pid.to_string().as_bytes()).map(drop)
}

/// Nothing was started.
fn refused(errno: Errno) -> Failure {
    Failure { step: 0, source: None, errno: errno.raw_os_error() }
}

pub(crate) fn decode(bytes: &[u8]) -> Result<Request, Errno> {
    postcard::from_bytes(bytes).map_err(|_| Errno::PROTO)
}

/// All of a memfd.
pub(crate) fn read(body: &OwnedFd) -> Result<Vec<u8>, Errno> {
    let size = usize::try_from(rustix::fs::fstat(body)?.st_size).map_err(|_| Errno::FBIG)?;
    let mut bytes = vec![0; size];
    let mut filled = 0;
    while filled < size {
        match rustix::io::pread(body, &mut bytes[filled..], filled as u64)? {
            0 => return Err(Errno::IO),
            count => filled += count,
        }
    }
    Ok(bytes)
}
