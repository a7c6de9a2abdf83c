//! kiln's end of the launcher: start it once, ask it for sandboxes.
//!
//! The launcher is a static program of its own, embedded in this crate and run from a sealed memfd, because forking
//! kiln itself costs 12 to 20 ms at 512 MiB. One request at a time crosses the socket, the sandboxes then run side by
//! side. When the `Launcher` is dropped, or kiln dies, every sandbox is killed.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Mutex;
use std::time::Instant;

use kiln_launcher::protocol::{self, Body, Carried, INLINE, Reply, Request, Source, Then};
use kiln_launcher::step::{Kind, Step};
use rustix::fs::{Gid, MemfdFlags, SealFlags, Uid};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType,
};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{WaitId, WaitIdOptions};

use crate::control_group;
use crate::disk::Disk;
use crate::door::Door;
use crate::error::SetupError;
use crate::group::{self, Group};
use crate::plan::Plan;
use crate::running::{Prepared, Reports, Running, step_failed};
use crate::slot::Slot;

pub(crate) static BINARY: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/kiln-launcher"));

/// Where the payload's stdout and stderr go. Its stdin is `/dev/null` unless inherited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stdio {
    /// Both into one pipe, read by [`Running::wait`].
    Log,
    /// The caller's own 0, 1 and 2, for `kiln shell`. The payload still has an own session without a terminal.
    Inherit,
}

/// A running launcher.
#[derive(Debug)]
pub struct Launcher {
    socket: Option<Mutex<OwnedFd>>,
    process: Process,
}

#[derive(Debug)]
enum Process {
    Spawned(Child),
    /// By its pidfd.
    Forked(OwnedFd),
}

impl Launcher {
    /// Starts it. First removes what control groups a killed kiln left behind.
    pub fn start() -> Result<Self, SetupError> {
        sweep();
        let binary = sealed(c"kiln-launcher", BINARY, MemfdFlags::EXEC).map_err(launcher("copying it to memory"))?;
        let (ours, theirs) = seqpacket().map_err(launcher("making its socket"))?;
        // posix_spawn, not fork, as there is nothing to run in between; /proc/self is then the child, which still has
        // the memfd. No PDEATHSIG: it would fire when the calling *thread* ends. The end of the socket is what counts.
        let process = Command::new(format!("/proc/self/fd/{}", binary.as_raw_fd()))
            .arg0("kiln-launcher")
            .env_clear()
            .stdin(theirs)
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .map_err(|error| SetupError::Launcher { act: "starting it", error })?;
        Ok(Self { socket: Some(Mutex::new(ours)), process: Process::Spawned(process) })
    }

    /// The same for a caller that is small and starts one sandbox: the launcher is a fork of it, if it has one thread. That
    /// saves a quarter of what the sandbox costs. What a killed kiln left behind is then the caller's to [`sweep`].
    pub fn fork() -> Result<Self, SetupError> {
        let (ours, theirs) = seqpacket().map_err(launcher("making its socket"))?;
        match kiln_launcher::forked::start(&theirs).map_err(launcher("forking it"))? {
            Some(pidfd) => Ok(Self { socket: Some(Mutex::new(ours)), process: Process::Forked(pidfd) }),
            None => Self::start(),
        }
    }

    /// Starts a sandbox. Sources are looked at now: what the sandbox gets is what they are at this moment.
    pub fn spawn(&self, plan: &Plan, slot: &Slot, stdio: Stdio) -> Result<Running, SetupError> {
        let started = Instant::now();
        let group = plan.group.as_ref().map(Group::make).transpose()?;
        let request = Request {
            outer_uid: slot.uid(),
            outer_gid: slot.gid(),
            group: placement(group.as_ref())?,
            sources: identified(&plan.sources)?,
            first: 0,
            steps: &plan.steps[..],
            then: Then::Nothing,
        };
        let channels = Channels::new(stdio, slot)?;
        let mut carried = channels.carried();
        let has_door = plan.steps.iter().any(|step| matches!(step, Step::Door { .. }));
        let door = has_door.then(seqpacket).transpose().map_err(launcher("making a door"))?;
        carried.extend(door.iter().map(|(_, theirs)| theirs.as_fd()));
        let range = match plan.steps.iter().any(|step| matches!(step, Step::Ranges { .. })) {
            true => Some(slot.range().ok_or(SetupError::SlotWithoutRange)?),
            false => None,
        };
        let release = range.map(|_| pipe_with(PipeFlags::CLOEXEC)).transpose().map_err(launcher("making a pipe"))?;
        carried.extend(release.iter().map(|(released, _)| released.as_fd()));
        let disk = Disk::new(plan);
        let pidfd = self.request(plan, &request, &carried)?;
        let Channels { reports, log, .. } = channels;
        let door = door.map(|(ours, _)| Door::new(ours));
        let running = Running::new(plan, Prepared { started, reports, log, group, door, disk }, pidfd);
        if let (Some(range), Some((_, release))) = (range, &release) {
            range.write_of(running.pidfd())?;
            rustix::io::write(release, &[1]).map_err(launcher("releasing a sandbox"))?;
        }
        Ok(running)
    }

    /// Asks for pid 1 of a sandbox.
    pub(crate) fn request(
        &self,
        plan: &Plan,
        request: &Request<&[Step]>,
        carried: &[BorrowedFd<'_>],
    ) -> Result<OwnedFd, SetupError> {
        let body = encoded(request)?;
        let memory = (body.len() > INLINE)
            .then(|| sealed(c"request", &body, MemfdFlags::empty()))
            .transpose()
            .map_err(launcher("writing the request"))?;
        let carried: Vec<_> = carried.iter().copied().chain(memory.iter().map(AsFd::as_fd)).collect();
        let packet = match memory {
            None => [IoSlice::new(&[Body::Inline as u8]), IoSlice::new(&body)],
            Some(_) => [IoSlice::new(&[Body::Memory as u8]), IoSlice::new(&[])],
        };
        match self.ask(&packet, &carried).map_err(launcher("asking it for a sandbox"))? {
            (Reply::Started, Some(pidfd)) => Ok(pidfd),
            (Reply::Started, None) => Err(launcher("taking over a sandbox")(Errno::BADMSG)),
            (Reply::Failed(failure), _) => Err(step_failed(&plan.steps, &plan.sources, failure)),
        }
    }

    fn ask(&self, packet: &[IoSlice<'_>], carried: &[BorrowedFd<'_>]) -> Result<(Reply, Option<OwnedFd>), Errno> {
        let socket = self.socket.as_ref().ok_or(Errno::NOTCONN)?;
        // A thread that panicked in here had sent or received whole messages only.
        let socket = socket.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(Carried::COUNT))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !ancillary.push(SendAncillaryMessage::ScmRights(carried)) {
            return Err(Errno::NOBUFS);
        }
        rustix::net::sendmsg(&*socket, packet, &mut ancillary, SendFlags::NOSIGNAL)?;

        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut bytes = [0; 64];
        let received = loop {
            let mut parts = [IoSliceMut::new(&mut bytes)];
            match rustix::net::recvmsg(&*socket, &mut parts, &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
                Err(Errno::INTR) => {}
                other => break other?,
            }
        };
        if received.bytes == 0 {
            return Err(Errno::CONNRESET);
        }
        let pidfd = ancillary.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
            _ => None,
        });
        let reply = postcard::from_bytes(&bytes[..received.bytes]).map_err(|_| Errno::BADMSG)?;
        Ok((reply, pidfd))
    }
}

impl Launcher {
    /// Ends it without waiting for its end, for a caller that ends too: nothing of a sandbox is left by then, since
    /// every [`Running`] has ended or was killed, and the launcher itself holds nothing that outlives its socket.
    pub fn leave(mut self) {
        self.socket = None;
        std::mem::forget(self);
    }
}

impl Drop for Launcher {
    fn drop(&mut self) {
        // The end of the socket ends the launcher, its end kills every pid 1, and with that every payload.
        self.socket = None;
        match &mut self.process {
            Process::Spawned(child) => {
                let _ = child.wait();
            }
            Process::Forked(pidfd) => {
                let _ = rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED);
            }
        }
    }
}

/// Removes what control groups a killed kiln left behind, and what is in them.
pub fn sweep() {
    group::sweep(&control_group::find());
}

pub(crate) fn seqpacket() -> Result<(OwnedFd, OwnedFd), Errno> {
    rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
}

/// Two ends of one stream.
pub(crate) fn stream() -> Result<(OwnedFd, OwnedFd), Errno> {
    rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
}

/// A memfd that can never change again.
pub(crate) fn sealed(name: &std::ffi::CStr, bytes: &[u8], kind: MemfdFlags) -> Result<OwnedFd, Errno> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let memory = match rustix::fs::memfd_create(name, flags | kind) {
        // MFD_EXEC is known since Linux 6.3; before, every memfd could be executed.
        Err(Errno::INVAL) => rustix::fs::memfd_create(name, flags)?,
        other => other?,
    };
    write_all(&memory, bytes)?;
    rustix::fs::fcntl_add_seals(&memory, SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE)?;
    Ok(memory)
}

/// The pipes of one sandbox: ours, and those that it gets.
pub(crate) struct Channels {
    pub(crate) reports: Reports,
    pub(crate) log: Option<OwnedFd>,
    reporter: OwnedFd,
    streams: Vec<OwnedFd>,
}

impl Channels {
    pub(crate) fn new(stdio: Stdio, slot: &Slot) -> Result<Self, SetupError> {
        let (report, reporter) =
            pipe_with(PipeFlags::CLOEXEC | PipeFlags::DIRECT).map_err(launcher("making the report pipe"))?;
        rustix::io::ioctl_fionbio(&report, true).map_err(launcher("making the report pipe"))?;
        let reports = Reports::new(report).map_err(launcher("making the report pipe"))?;
        let (log, streams) = streams(stdio, slot).map_err(launcher("making the log pipe"))?;
        Ok(Self { reports, log, reporter, streams })
    }

    /// Those that the sandbox gets, in the order of [`Carried`].
    pub(crate) fn carried(&self) -> Vec<BorrowedFd<'_>> {
        [&self.reporter].into_iter().chain(&self.streams).map(AsFd::as_fd).collect()
    }
}

/// Writes at the descriptor's place.
pub(crate) fn write_all(memory: &OwnedFd, bytes: &[u8]) -> Result<(), Errno> {
    let mut rest = bytes;
    while !rest.is_empty() {
        match rustix::io::write(memory, rest)? {
            0 => return Err(Errno::IO),
            count => rest = &rest[count..],
        }
    }
    Ok(())
}

pub(crate) fn placement(group: Option<&Group>) -> Result<protocol::Group, SetupError> {
    group.map_or(Ok(protocol::Group::None), Group::placement)
}

fn streams(stdio: Stdio, slot: &Slot) -> Result<(Option<OwnedFd>, Vec<OwnedFd>), Errno> {
    match stdio {
        Stdio::Log => {
            let (log, writer) = pipe_with(PipeFlags::CLOEXEC)?;
            // Payloads open /dev/stdout and /dev/stderr, which asks for rights on the pipe itself.
            rustix::fs::fchown(&writer, Some(Uid::from_raw(slot.uid())), Some(Gid::from_raw(slot.gid())))?;
            rustix::io::ioctl_fionbio(&log, true)?;
            Ok((Some(log), vec![writer]))
        }
        Stdio::Inherit => Ok((
            None,
            vec![
                rustix::io::fcntl_dupfd_cloexec(io::stdin(), 3)?,
                rustix::io::fcntl_dupfd_cloexec(io::stdout(), 3)?,
                rustix::io::fcntl_dupfd_cloexec(io::stderr(), 3)?,
            ],
        )),
    }
}

pub(crate) fn encoded(request: &Request<&[Step]>) -> Result<Vec<u8>, SetupError> {
    postcard::to_stdvec(request)
        .map_err(|_| SetupError::Launcher { act: "encoding the request", error: Errno::MSGSIZE.into() })
}

/// What sources are now.
pub(crate) fn identified(paths: &[PathBuf]) -> Result<Vec<Source>, SetupError> {
    let mut parents = Parents::default();
    paths.iter().map(|path| identify(path, &mut parents)).collect()
}

/// What a source is now. The path above it may lead through symlinks, the source itself is not followed.
fn identify(path: &Path, parents: &mut Parents) -> Result<Source, SetupError> {
    let failed = |error: io::Error| SetupError::Source { path: path.to_owned(), error };
    let real = parents.canonical(path).map_err(failed)?;
    let stat = rustix::fs::lstat(&real).map_err(|errno| failed(errno.into()))?;
    let c_string = |bytes: &[u8]| CString::new(bytes).map_err(|_| failed(Errno::INVAL.into()));
    Ok(match rustix::fs::FileType::from_raw_mode(stat.st_mode) {
        rustix::fs::FileType::Symlink => {
            let text = rustix::fs::readlink(&real, Vec::new()).map_err(|errno| failed(errno.into()))?;
            Source::Link { text }
        }
        kind => Source::Tree {
            path: c_string(real.as_os_str().as_bytes())?,
            dev: stat.st_dev,
            ino: stat.st_ino,
            kind: match kind {
                rustix::fs::FileType::Directory => Kind::Directory,
                _ => Kind::File,
            },
        },
    })
}

/// Directories without symlinks, each looked up once in a request: most inputs lie side by side.
#[derive(Default)]
struct Parents(BTreeMap<PathBuf, PathBuf>);

impl Parents {
    fn canonical(&mut self, path: &Path) -> io::Result<PathBuf> {
        let absolute = std::path::absolute(path)?;
        let (Some(parent), Some(name)) = (absolute.parent(), absolute.file_name()) else {
            return absolute.canonicalize();
        };
        if let Some(real) = self.0.get(parent) {
            return Ok(real.join(name));
        }
        let real = parent.canonicalize()?;
        let path = real.join(name);
        self.0.insert(parent.to_owned(), real);
        Ok(path)
    }
}

pub(crate) fn launcher(act: &'static str) -> impl Fn(Errno) -> SetupError {
    move |errno| SetupError::Launcher { act, error: errno.into() }
}
