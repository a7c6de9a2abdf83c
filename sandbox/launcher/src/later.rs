//! The second half of a sandbox that was begun before its inputs were there: pid 1 waits for kiln, and both processes read
//! what is left to do.
//!
//! Half of what a sandbox costs needs none of its sources: its namespaces, its network, `/dev`, `/proc`, the filter. kiln has
//! that done while another build still runs. Nothing foreign runs in what waits. Both processes decode the rest in memory of
//! their own: they are copies of a process with one thread, so no lock of the allocator can be held. Neither returns, and
//! the memory is never given back.

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, Shutdown};

use crate::mounts;
use crate::protocol::{PATIENCE, Request, TREES};
use crate::{serve, sys};

/// The ways by which the rest comes.
#[derive(Clone, Copy)]
pub(crate) struct Later<'a> {
    /// A memfd that is empty until then.
    pub(crate) rest: &'a OwnedFd,
    /// Pid 1's end.
    pub(crate) socket: &'a OwnedFd,
}

/// What kiln's packets brought.
pub(crate) struct Came {
    /// How many trees there are, in all packets.
    count: usize,
    trees: Vec<OwnedFd>,
}

impl Later<'_> {
    /// Pid 1: waits for kiln; ends this process if nothing comes.
    pub(crate) fn wait(&self) -> Result<Came, Errno> {
        let mut socket = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
        let patience = PollTimeout::try_from(PATIENCE).map_err(|_| Errno::INVAL)?;
        let waited = loop {
            match poll(&mut socket, patience) {
                Err(nix::errno::Errno::EINTR) => {}
                waited => break waited,
            }
        };
        if waited == Ok(0) {
            // From here on kiln's packet is refused. One that came before is taken.
            rustix::net::shutdown(self.socket, Shutdown::Read)?;
        }
        let mut came = Came { count: 0, trees: Vec::new() };
        self.packet(&mut came)?;
        while came.trees.len() < came.count {
            self.packet(&mut came)?;
        }
        Ok(came)
    }

    /// What is left to do.
    pub(crate) fn read(&self) -> Result<&'static Request, Errno> {
        let request = serve::read(self.rest).and_then(|bytes| serve::decode(&bytes))?;
        Ok(Box::leak(Box::new(request)))
    }

    fn packet(&self, came: &mut Came) -> Result<(), Errno> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(TREES))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut count = [0; size_of::<u32>()];
        let received = loop {
            let parts = &mut [IoSliceMut::new(&mut count)];
            match rustix::net::recvmsg(self.socket, parts, &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
                Err(Errno::INTR) => {}
                other => break other?,
            }
        };
        if received.bytes == 0 {
            // kiln has no use for this sandbox, or is gone.
            sys::exit_now(125)
        }
        // Some did not fit beside what is open here; waiting for them would never end.
        if received.flags.contains(ReturnFlags::CTRUNC) {
            return Err(Errno::MFILE);
        }
        came.count = u32::from_le_bytes(count) as usize;
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(trees) = message {
                came.trees.extend(trees);
            }
        }
        Ok(())
    }
}

impl Came {
    /// The trees by the numbers of their sources.
    pub(crate) fn sorted(self, request: &Request) -> Result<&'static [Option<OwnedFd>], Errno> {
        let mut trees: Vec<Option<OwnedFd>> = request.sources.iter().map(|_| None).collect();
        if self.count > 0 {
            let wanted = mounts::to_detach(&request.sources, &request.steps);
            if wanted.clone().count() != self.trees.len() {
                return Err(Errno::PROTO);
            }
            for ((index, ..), tree) in wanted.zip(self.trees) {
                trees[index] = Some(tree);
            }
        }
        Ok(Box::leak(trees.into_boxed_slice()))
    }
}
