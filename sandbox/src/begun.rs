//! A sandbox that was begun before its inputs were there: all that does not depend on them is done while another one runs,
//! and nobody waits for it.
//!
//! It is begun by the plan of a sandbox that is there already, in the hope that the next is like it. Where it is not, it ends
//! and the next starts from nothing: what a sandbox is, and what it may do, never depends on whether it was begun ahead.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use kiln_launcher::mounts;
use kiln_launcher::protocol::{self, Failure, Request, TREES, Then};
use kiln_launcher::step::Step;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::fs::MemfdFlags;
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use rustix::process::{Signal, pidfd_send_signal};

use crate::disk::Disk;
use crate::error::SetupError;
use crate::group::{Group, Wanted};
use crate::launcher::{Channels, Launcher, Stdio, encoded, identified, launcher, placement, seqpacket, write_all};
use crate::plan::{Ahead, Plan};
use crate::running::{Prepared, Reports, Running, step_failed};
use crate::slot::Slot;

/// The first half of a sandbox. Dropping it ends it, and waits for that.
#[derive(Debug)]
pub struct Begun {
    alive: Alive,
    reports: Reports,
    log: Option<OwnedFd>,
    group: Option<Group>,
    wanted: Option<Wanted>,
    steps: Arc<[Step]>,
    sources: Arc<[PathBuf]>,
    ahead: Ahead,
    ids: (u32, u32),
    stdio: Stdio,
    rest: OwnedFd,
    socket: OwnedFd,
}

/// Pid 1, killed and waited for when dropped.
#[derive(Debug)]
struct Alive(Option<OwnedFd>);

impl Alive {
    fn is_gone(&self) -> bool {
        let Some(pidfd) = &self.0 else { return true };
        let mut gone = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
        poll(&mut gone, PollTimeout::ZERO) != Ok(0)
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        let Some(pidfd) = &self.0 else { return };
        // An error means that it has ended.
        let _ = pidfd_send_signal(pidfd, Signal::KILL);
        let mut gone = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
        while poll(&mut gone, PollTimeout::NONE) == Err(nix::errno::Errno::EINTR) {}
    }
}

impl Launcher {
    /// Begins a sandbox like `plan`'s, up to where it needs its inputs; `None` if such a one cannot wait for them. It is to be
    /// given to [`Launcher::resume`] with the same slot within ten seconds, or it ends by itself.
    pub fn begin(&self, plan: &Plan, slot: &Slot, stdio: Stdio) -> Result<Option<Begun>, SetupError> {
        let Some(ahead) = plan.ahead else { return Ok(None) };
        let group = plan.group.as_ref().map(Group::make).transpose()?;
        let request = Request {
            outer_uid: slot.uid(),
            outer_gid: slot.gid(),
            group: placement(group.as_ref())?,
            sources: identified(&plan.sources[..ahead.sources])?,
            first: 0,
            steps: &plan.steps[..ahead.steps],
            then: Then::Rest,
        };
        let channels = Channels::new(stdio, slot)?;
        let rest =
            rustix::fs::memfd_create(c"rest", MemfdFlags::CLOEXEC).map_err(launcher("making a sandbox's memory"))?;
        let (socket, theirs) = seqpacket().map_err(launcher("making a sandbox's socket"))?;
        let mut carried = channels.carried();
        carried.extend([rest.as_fd(), theirs.as_fd()]);
        let pidfd = self.request(plan, &request, &carried)?;
        // The copies of its ends go: their end is to be seen.
        let Channels { reports, log, .. } = channels;
        Ok(Some(Begun {
            alive: Alive(Some(pidfd)),
            reports,
            log,
            group,
            wanted: plan.group.clone(),
            steps: Arc::clone(&plan.steps),
            sources: Arc::clone(&plan.sources),
            ahead,
            ids: (slot.uid(), slot.gid()),
            stdio,
            rest,
            socket,
        }))
    }

    /// As [`Launcher::spawn`], with what was begun if that is the first half of this plan. If it is not, it ends.
    pub fn resume(&self, begun: Begun, plan: &Plan, slot: &Slot, stdio: Stdio) -> Result<Running, SetupError> {
        if begun.fits(plan, slot, stdio) {
            if let Some(running) = begun.go_on(plan)? {
                return Ok(running);
            }
        } else {
            drop(begun);
        }
        self.spawn(plan, slot, stdio)
    }
}

impl Begun {
    fn fits(&self, plan: &Plan, slot: &Slot, stdio: Stdio) -> bool {
        let Ahead { steps, sources } = self.ahead;
        plan.ahead == Some(self.ahead)
            && plan.steps[..steps] == self.steps[..steps]
            && plan.sources[..sources] == self.sources[..sources]
            && plan.group == self.wanted
            && (slot.uid(), slot.gid()) == self.ids
            && stdio == self.stdio
            && !self.alive.is_gone()
    }

    /// Says what is left to do; `None` if it did not wait that long.
    fn go_on(self, plan: &Plan) -> Result<Option<Running>, SetupError> {
        let started = Instant::now();
        let request = Request {
            outer_uid: self.ids.0,
            outer_gid: self.ids.1,
            group: protocol::Group::None,
            sources: identified(&plan.sources)?,
            first: self.ahead.steps as u32,
            steps: &plan.steps[self.ahead.steps..],
            then: Then::Nothing,
        };
        let disk = Disk::new(plan);
        write_all(&self.rest, &encoded(&request)?).map_err(launcher("writing the rest of a request"))?;
        match self.send_trees(plan, &request)? {
            Sent::All => {}
            Sent::NotTaken => return Ok(None),
        }
        let Self { mut alive, reports, log, group, .. } = self;
        let Some(pidfd) = alive.0.take() else { return Ok(None) };
        Ok(Some(Running::new(plan, Prepared { started, reports, log, group, door: None, disk }, pidfd)))
    }

    /// Root's trees, which pid 1 could not reach: [`Step::Detach`]. Without any, a packet that says so.
    fn send_trees(&self, plan: &Plan, request: &Request<&[Step]>) -> Result<Sent, SetupError> {
        let detaches = plan.steps.first() == Some(&Step::Detach);
        let count = if detaches { mounts::to_detach(&request.sources, request.steps).count() } else { 0 };
        let mut trees = mounts::detach(&request.sources, request.steps).take(count);
        let mut left = count;
        loop {
            let mut packet = Vec::with_capacity(left.min(TREES));
            for (source, tree) in trees.by_ref().take(TREES) {
                packet.push(tree.map_err(|errno| {
                    let failure = Failure { step: 0, source: Some(source as u32), errno: errno.raw_os_error() };
                    step_failed(&plan.steps, &plan.sources, failure)
                })?);
            }
            left -= packet.len();
            match self.send(count, &packet) {
                Ok(()) if left == 0 => return Ok(Sent::All),
                Ok(()) => {}
                Err(Errno::PIPE | Errno::CONNRESET) => return Ok(Sent::NotTaken),
                Err(errno) => return Err(launcher("sending a sandbox its inputs")(errno)),
            }
        }
    }

    fn send(&self, count: usize, trees: &[OwnedFd]) -> Result<(), Errno> {
        let rights: Vec<BorrowedFd<'_>> = trees.iter().map(AsFd::as_fd).collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(TREES))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !rights.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(&rights)) {
            return Err(Errno::NOBUFS);
        }
        let count = (count as u32).to_le_bytes();
        rustix::net::sendmsg(&self.socket, &[IoSlice::new(&count)], &mut ancillary, SendFlags::NOSIGNAL).map(drop)
    }
}

/// Whether pid 1 will have read it.
enum Sent {
    All,
    NotTaken,
}
