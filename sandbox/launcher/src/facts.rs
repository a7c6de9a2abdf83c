//! What the payload's process sees of itself, right before it becomes the payload.
//!
//! Asked of the kernel, not copied from the request: this is how a caller proves that a condition took effect.

use std::os::fd::AsFd;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::thread::CpuSet;
use rustix::time::{ClockId, clock_gettime};

use crate::protocol::Facts;
use crate::sys;

/// Longest text of one fact; all of them fit into one packet.
const LONGEST: usize = 1024;

/// Collects the facts and hands them over.
pub(crate) fn observe(tell: impl FnOnce(Facts<&[u8]>)) -> Result<(), Errno> {
    let names = rustix::system::uname();
    let mask = rustix::process::umask(Mode::empty());
    rustix::process::umask(mask);
    let here = rustix::fs::open(c".", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let mut cwd = [0; LONGEST];
    let cwd_len = sys::working_directory(&mut cwd)?;
    let allowed = rustix::thread::sched_getaffinity(None)?;
    let mut cpus = [0; CpuSet::MAX_CPU / 8];
    for cpu in (0..CpuSet::MAX_CPU).filter(|&cpu| allowed.is_set(cpu)) {
        cpus[cpu / 8] |= 1u8 << (cpu % 8);
    }
    tell(Facts {
        hostname: names.nodename().to_bytes(),
        domain: names.domainname().to_bytes(),
        release: names.release().to_bytes(),
        cwd: &cwd[..cwd_len],
        cwd_magic: rustix::fs::fstatfs(here.as_fd())?.f_type as u64,
        uid: rustix::process::getuid().as_raw(),
        gid: rustix::process::getgid().as_raw(),
        pid: rustix::process::getpid().as_raw_nonzero().get() as u32,
        umask: mask.bits(),
        personality: sys::personality(u32::MAX)?,
        cpus: &cpus,
        boot_seconds: clock_gettime(ClockId::Boottime).tv_sec as u64,
    });
    Ok(())
}
