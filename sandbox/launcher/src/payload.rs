//! The payload's process between fork and `execve`.
//!
//! It begins beside pid 1 and does what needs no file: the network, then the loss of every capability, limits, most
//! often the filter. From [`Step::AwaitRoot`] on it is in the new root; while pid 1 waits for the kernel to let the host's
//! go, it takes its streams, its directory and Landlock. From [`Step::Await`] on it runs in the finished sandbox, beside a
//! pid 1 that has dropped everything too. The filter comes that early because a kernel takes as long to install it as for
//! ten mounts; it forbids nothing that the later steps call, or the plan puts it last.

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::UnmountFlags;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::process::{DumpableBehavior, Resource as RlimitOf, Rlimit as RustixRlimit};
use rustix::thread::{CapabilitySet, CapabilitySets, CpuSet};

use crate::init::{Task, Text, disarm, write_file};
use crate::protocol::Report;
use crate::step::{Place, Resource, Rlimit, Step};
use crate::twin::OfPayload;
use crate::{door, facts, landlock, sys};

/// Performs the payload's steps. The last one does not return.
pub(crate) fn run(task: &Task<'_>, twin: &OfPayload) -> ! {
    perform_all(task, twin);
    let Some(later) = &task.later else { task.fail(0, Errno::PROTO) };
    twin.wait();
    match later.read() {
        Ok(request) => {
            let rest = task.with_rest(request, &[]);
            perform_all(&rest, twin);
            rest.fail(0, Errno::PROTO)
        }
        Err(errno) => task.fail(0, errno),
    }
}

fn perform_all(task: &Task<'_>, twin: &OfPayload) {
    for (number, step) in task.request.steps.iter().enumerate() {
        if step.place() != Place::Payload {
            continue;
        }
        if let Err(errno) = perform(task, twin, step) {
            task.fail(number, errno)
        }
    }
}

fn perform(task: &Task<'_>, twin: &OfPayload, step: &Step) -> Result<(), Errno> {
    match step {
        Step::Network => {
            sys::unshare_network()?;
            let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
            sys::interface_up(&socket, b"lo")?;
            twin.tell()
        }
        Step::Disarm { rights } => disarm(*rights),
        Step::AwaitRoot | Step::Await => {
            twin.wait();
            Ok(())
        }
        Step::Lock { uid, gid } => lock_mounts(*uid, *gid),
        Step::Session => rustix::process::setsid().map(drop),
        Step::Streams => {
            match task.streams {
                [log] => {
                    // Not the host's: a descriptor is also a way back to the mount that it was opened on.
                    let null = rustix::fs::open(c"/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
                    rustix::stdio::dup2_stdin(&null)?;
                    rustix::stdio::dup2_stdout(log)?;
                    rustix::stdio::dup2_stderr(log)?;
                }
                [input, output, errors] => {
                    rustix::stdio::dup2_stdin(input)?;
                    rustix::stdio::dup2_stdout(output)?;
                    rustix::stdio::dup2_stderr(errors)?;
                }
                _ => return Err(Errno::PROTO),
            }
            // The launcher ignores it; a pipeline must not inherit that.
            sys::default_signal(libc::SIGPIPE);
            // Not closed yet: failures are still to be reported.
            sys::close_range_on_exec(3)
        }
        Step::Limits { limits } => limits.iter().try_for_each(set_limit),
        Step::Personality { word } => sys::personality(*word).map(drop),
        Step::Affinity { cpus } => {
            let mut set = CpuSet::new();
            for &cpu in cpus {
                if cpu as usize >= CpuSet::MAX_CPU {
                    return Err(Errno::INVAL);
                }
                set.set(cpu as usize);
            }
            rustix::thread::sched_setaffinity(None, &set)
        }
        Step::Umask { mask } => {
            rustix::process::umask(Mode::from_raw_mode(*mask));
            Ok(())
        }
        Step::Enter { cwd } => rustix::process::chdir(cwd.as_c_str()),
        Step::Landlock { writable } => {
            let abi = landlock::restrict(writable)?;
            task.report(&Report::Landlock(abi));
            Ok(())
        }
        Step::Observe => facts::observe(|facts| task.report(&Report::Observed(facts))),
        Step::Door { .. } => door::install(task.door.ok_or(Errno::PROTO)?, &task.watch),
        Step::Filter { .. } => sys::install_filter(&task.filter),
        Step::Execute { program, .. } => Err(sys::execve(program, &task.argv, &task.env)),
        _ => Err(Errno::PROTO),
    }
}

/// Both bounds, never above what the host already imposes: its own, stricter limit holds then.
fn set_limit(limit: &Rlimit) -> Result<(), Errno> {
    let resource = match limit.resource {
        Resource::Core => RlimitOf::Core,
        Resource::Processes => RlimitOf::Nproc,
        Resource::OpenFiles => RlimitOf::Nofile,
        Resource::Stack => RlimitOf::Stack,
        Resource::FileSize => RlimitOf::Fsize,
        Resource::MessageQueues => RlimitOf::Msgqueue,
        Resource::LockedMemory => RlimitOf::Memlock,
        Resource::AddressSpace => RlimitOf::As,
        Resource::Cpu => RlimitOf::Cpu,
    };
    let allowed = rustix::process::getrlimit(resource).maximum;
    let maximum = match (limit.hard, allowed) {
        (Some(wanted), Some(allowed)) => Some(wanted.min(allowed)),
        (wanted, allowed) => wanted.or(allowed),
    };
    let current = Some(maximum.map_or(limit.soft, |maximum| maximum.min(limit.soft)));
    rustix::process::setrlimit(resource, RustixRlimit { current, maximum })
}

/// What a fake root may do to its own files; everything else it only believes to do.
const KEPT: CapabilitySet = CapabilitySet::DAC_OVERRIDE
    .union(CapabilitySet::DAC_READ_SEARCH)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::SYS_CHROOT);

/// Mounts that were made in a more privileged user namespace can be neither undone nor changed from a lesser one:
/// mount_namespaces(7). Checked here, since everything rests on it.
fn lock_mounts(uid: u32, gid: u32) -> Result<(), Errno> {
    sys::unshare_locked()?;
    // New credentials made this process undumpable, and its /proc files root's. Nobody is here yet to look.
    rustix::process::set_dumpable_behavior(DumpableBehavior::Dumpable)?;
    write_file(c"/proc/self/setgroups", b"deny")?;
    for (path, id) in [(c"/proc/self/uid_map", uid), (c"/proc/self/gid_map", gid)] {
        let mut map = Text::<32>::default();
        map.line(format_args!("0 {id} 1"))?;
        write_file(path, map.bytes())?;
    }
    if rustix::mount::unmount(c"/dev", UnmountFlags::empty()) != Err(Errno::INVAL)
        || sys::unshare_locked() != Err(Errno::NOSPC)
    {
        return Err(Errno::NOTRECOVERABLE);
    }
    for number in 0..64 {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        if KEPT.contains(capability) {
            continue;
        }
        match rustix::thread::remove_capability_from_bounding_set(capability) {
            Ok(()) => {}
            Err(Errno::INVAL) => break,
            Err(errno) => return Err(errno),
        }
    }
    let sets = CapabilitySets { effective: KEPT, permitted: KEPT, inheritable: CapabilitySet::empty() };
    rustix::thread::set_capabilities(None, sets)
}
