//! Network namespaces made ahead, while nobody waits: making one is two fifths of what a sandbox costs.
//!
//! Each has its loopback up and is given to one sandbox only, then forgotten. The launcher itself is always in the one
//! that it made or gave away last, never in the host's again, so a launcher with such a store refuses a sandbox that
//! asks for the host's network.
//!
//! A user's launcher first enters a user namespace of its own, with its one id mapped to itself: only there may it make
//! networks. They belong to that namespace, so not even pid 1 has a say over them.

use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::thread::LinkNameSpaceType;

use crate::init::{Text, write_file};
use crate::sys;

/// The network of a new sandbox.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Network {
    /// The payload's process makes one.
    New,
    /// The one that pid 1 was born in.
    Present,
}

/// Networks that no sandbox has had.
pub(crate) struct Networks {
    ready: Vec<OwnedFd>,
    wanted: usize,
}

impl Networks {
    /// Will keep `wanted` ready; none at all is the normal case and costs nothing.
    pub(crate) fn new(wanted: usize) -> Result<Self, Errno> {
        if wanted > 0 && !rustix::process::geteuid().is_root() {
            let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
            sys::unshare_user()?;
            write_file(c"/proc/self/setgroups", b"deny")?;
            for (path, id) in [(c"/proc/self/uid_map", uid), (c"/proc/self/gid_map", gid)] {
                let mut map = Text::<32>::default();
                map.line(format_args!("{id} {id} 1"))?;
                write_file(path, map.bytes())?;
            }
        }
        Ok(Self { ready: Vec::with_capacity(wanted), wanted })
    }

    /// Whether the host's network was left for good.
    pub(crate) fn left_the_host_s(&self) -> bool {
        self.wanted > 0
    }

    /// Whether another one is to be made.
    pub(crate) fn is_short(&self) -> bool {
        self.ready.len() < self.wanted
    }

    /// Makes one more.
    pub(crate) fn make(&mut self) -> Result<(), Errno> {
        sys::unshare_network()?;
        loopback()?;
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        self.ready.push(rustix::fs::open(c"/proc/self/ns/net", flags, Mode::empty())?);
        Ok(())
    }

    /// Enters one for the sandbox that is cloned next, or leaves it to that sandbox to make one.
    pub(crate) fn enter(&mut self) -> Result<Network, Errno> {
        let Some(network) = self.ready.pop() else {
            return Ok(Network::New);
        };
        rustix::thread::move_into_link_name_space(
            std::os::fd::AsFd::as_fd(&network),
            Some(LinkNameSpaceType::Network),
        )?;
        Ok(Network::Present)
    }
}

/// Brings `lo` up in the present network namespace.
pub(crate) fn loopback() -> Result<(), Errno> {
    let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    sys::interface_up(&socket, b"lo")
}
