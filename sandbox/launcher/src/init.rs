//! Pid 1 of a sandbox: forks the payload's process, sets everything up, drops everything, lets the payload go on, then
//! reaps, forwards SIGTERM, reports.
//!
//! Runs in the new namespaces, first with all capabilities in them and none outside. From [`Step::Drop`] on it has
//! none and cannot be traced, although the payload has its uid; before, there is no foreign code to trace it. It
//! allocates nothing: all strings, pointer arrays and the filter were made by the launcher before `clone3`, unless the
//! sandbox was begun before its inputs were there ([`crate::later`]). It exits as soon as the payload has ended; the kernel
//! then kills whatever the payload left behind.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::{SigSet, Signal as NixSignal, kill};
use nix::unistd::Pid;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{DumpableBehavior, Signal, WaitOptions};
use rustix::thread::{CapabilitiesSecureBits, CapabilitySet, CapabilitySets, Gid, Uid};

use crate::later::Later;
use crate::mounts::Mounts;
use crate::payload;
use crate::protocol::{Carried, End, Failure, Others, PACKET, Report, Request, Status};
use crate::step::{Place, Rights, Step};
use crate::sys::{self, Program, StringArray};
use crate::twin::{self, Side, Twin};

/// Everything that pid 1 and the payload's process need, ready for use.
pub(crate) struct Task<'a> {
    pub(crate) request: &'a Request,
    pub(crate) trees: &'a [Option<OwnedFd>],
    pub(crate) streams: &'a [OwnedFd],
    pub(crate) argv: StringArray<'a>,
    pub(crate) env: StringArray<'a>,
    pub(crate) filter: Program,
    pub(crate) watch: Program,
    own_filter: Program,
    pub(crate) door: Option<&'a OwnedFd>,
    pub(crate) later: Option<Later<'a>>,
    report: &'a OwnedFd,
    released: &'a OwnedFd,
    launcher: &'a OwnedFd,
}

impl<'a> Task<'a> {
    /// Launcher: makes what may not be made after `clone3`.
    pub(crate) fn prepare(
        request: &'a Request,
        trees: &'a [Option<OwnedFd>],
        carried: &'a [OwnedFd],
        later: Option<Later<'a>>,
        released: &'a OwnedFd,
        launcher: &'a OwnedFd,
    ) -> Self {
        let (report, streams) = (&carried[Carried::REPORT], &carried[Carried::STREAMS..]);
        let has_door = request.steps.iter().any(|step| matches!(step, Step::Door { .. }));
        let (streams, door) = match streams.split_last() {
            Some((door, streams)) if has_door => (streams, Some(door)),
            _ => (streams, None),
        };
        Self {
            request,
            trees,
            streams,
            door,
            later,
            watch: Program::new(&[]),
            own_filter: Program::new(&[]),
            argv: StringArray::new(&[]),
            env: StringArray::new(&[]),
            filter: Program::new(&[]),
            report,
            released,
            launcher,
        }
        .ready()
    }

    /// The same sandbox with what is left to do.
    pub(crate) fn with_rest(&self, request: &'a Request, trees: &'a [Option<OwnedFd>]) -> Self {
        Self {
            request,
            trees,
            later: None,
            watch: Program::new(&[]),
            own_filter: Program::new(&[]),
            argv: StringArray::new(&[]),
            env: StringArray::new(&[]),
            filter: Program::new(&[]),
            ..*self
        }
        .ready()
    }

    fn ready(mut self) -> Self {
        for step in &self.request.steps {
            match step {
                Step::Execute { argv, env, .. } => {
                    self.argv = StringArray::new(argv);
                    self.env = StringArray::new(env);
                }
                Step::Reap { program } => self.own_filter = Program::new(program),
                Step::Filter { program } => self.filter = Program::new(program),
                Step::Door { program } => self.watch = Program::new(program),
                _ => {}
            }
        }
        self
    }

    /// Sends one packet to kiln. If kiln is gone, so are we soon.
    pub(crate) fn report(&self, report: &Report<&[u8]>) {
        let mut packet = [0; PACKET];
        if let Ok(used) = postcard::to_slice(report, &mut packet) {
            let _ = rustix::io::write(self.report, used);
        }
    }

    /// Reports that the request's step of this number failed, and ends this process, and with it the sandbox.
    pub(crate) fn fail(&self, step: usize, errno: Errno) -> ! {
        let source = self.request.steps.get(step).and_then(Step::source);
        let step = self.request.first + step as u32;
        self.report(&Report::Failed(Failure { step, source, errno: errno.raw_os_error() }));
        sys::exit_now(125)
    }
}

/// The whole life of pid 1.
pub(crate) fn run(task: &Task<'_>) -> ! {
    let mut mounts = Mounts::default();
    let mut twin = None;
    rustix::process::umask(Mode::empty());
    perform_all(task, &mut mounts, &mut twin);
    let (Some(later), Some(twin_of_first)) = (&task.later, &twin) else { task.fail(0, Errno::PROTO) };
    let rest = later.wait().and_then(|came| {
        twin_of_first.tell()?;
        let request = later.read()?;
        Ok(task.with_rest(request, came.sorted(request)?))
    });
    match rest {
        Ok(rest) => {
            perform_all(&rest, &mut mounts, &mut twin);
            rest.fail(0, Errno::PROTO)
        }
        Err(errno) => task.fail(0, errno),
    }
}

/// Performs pid 1's steps of one request.
fn perform_all<'a>(task: &Task<'a>, mounts: &mut Mounts<'a>, twin: &mut Option<Twin>) {
    for (number, step) in task.request.steps.iter().enumerate() {
        if step.place() != Place::Init {
            continue;
        }
        let done = match (step, &*twin) {
            (Step::Fork, None) => fork(task).map(|forked| *twin = Some(forked)),
            (Step::Admit, Some(twin)) => twin.tell(),
            (Step::Join, Some(twin)) => join(twin),
            (Step::Reap { .. }, Some(twin)) => reap(task, number, twin),
            (Step::Fork | Step::Admit | Step::Join | Step::Reap { .. }, _) => Err(Errno::PROTO),
            (other, _) => perform(task, mounts, other),
        };
        if let Err(errno) = done {
            task.fail(number, errno)
        }
    }
}

fn perform<'a>(task: &Task<'a>, mounts: &mut Mounts<'a>, step: &'a Step) -> Result<(), Errno> {
    match step {
        Step::Become { uid, gid } => take_ids(task, *uid, *gid),
        Step::Clocks { seconds } => offset_clocks(*seconds),
        Step::GroupRoot => sys::unshare_groups(),
        Step::Name { hostname, domain } => {
            rustix::system::sethostname(hostname)?;
            rustix::system::setdomainname(domain)
        }
        // Through the host's /proc, since the sandbox's may lack sys: these files answer for the writer's namespaces.
        Step::FirstPid { pid } => write_number(c"/proc/sys/kernel/ns_last_pid", u64::from(pid.saturating_sub(1))),
        Step::Nesting { allowed } => write_number(c"/proc/sys/user/max_user_namespaces", u64::from(*allowed)),
        Step::Drop { rights } => drop_privileges(*rights),
        other => mounts.perform(task, other),
    }
}

fn take_ids(task: &Task<'_>, uid: u32, gid: u32) -> Result<(), Errno> {
    let die_with_launcher = || rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    die_with_launcher()?;
    // It may have died before that line, and then nothing would ever come: this process has the pipe's other end too.
    stay_with_launcher(task);
    // The byte says that the maps are written.
    if rustix::io::read(task.released, &mut [0u8; 1])? != 1 {
        sys::exit_now(125);
    }
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    rustix::thread::set_thread_res_gid(gid, gid, gid)?;
    rustix::thread::set_thread_res_uid(uid, uid, uid)?;
    // New ids made this process undumpable and its /proc files root's; the clocks' file is among them. Until
    // `Step::Drop` there is nobody inside to look.
    rustix::process::set_dumpable_behavior(DumpableBehavior::Dumpable)?;
    // Changing ids cleared it: PR_SET_PDEATHSIG(2const).
    die_with_launcher()?;
    stay_with_launcher(task);
    Ok(())
}

/// Ends this process if the launcher has ended. A pidfd becomes readable when its process has.
fn stay_with_launcher(task: &Task<'_>) {
    let mut launcher = [PollFd::new(task.launcher.as_fd(), PollFlags::POLLIN)];
    if poll(&mut launcher, PollTimeout::ZERO) != Ok(0) {
        sys::exit_now(125)
    }
}

/// Only children enter the new time namespace, and its offsets freeze when the first does: time_namespaces(7).
fn offset_clocks(seconds: u64) -> Result<(), Errno> {
    use rustix::time::{ClockId, clock_gettime};
    sys::unshare_time()?;
    let mut text = Text::<128>::default();
    for (name, clock) in [("monotonic", ClockId::Monotonic), ("boottime", ClockId::Boottime)] {
        let now = clock_gettime(clock);
        let now = i128::from(now.tv_sec) * 1_000_000_000 + i128::from(now.tv_nsec);
        let offset = i128::from(seconds) * 1_000_000_000 - now;
        let (whole, rest) = (offset.div_euclid(1_000_000_000), offset.rem_euclid(1_000_000_000));
        text.line(format_args!("{name} {whole} {rest}\n"))?;
    }
    write_file(c"/proc/self/timens_offsets", text.bytes())
}

/// What root inside may do where it has users of its own: nothing that could change a mount, a name or the network.
const KEPT: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SYS_CHROOT);

/// What pid 1 keeps of that: a deadline's SIGTERM is for every user's processes.
const KEPT_BY_PID_1: CapabilitySet = CapabilitySet::KILL;

fn drop_privileges(rights: Rights) -> Result<(), Errno> {
    let kept = match rights {
        Rights::None => CapabilitySet::empty(),
        Rights::OverOwn => KEPT_BY_PID_1,
    };
    drop_capabilities(rights, kept)?;
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
}

/// The payload's process: no capability but these, and no way to another.
pub(crate) fn disarm(rights: Rights) -> Result<(), Errno> {
    let kept = match rights {
        Rights::None => CapabilitySet::empty(),
        Rights::OverOwn => KEPT,
    };
    drop_capabilities(rights, kept)
}

fn drop_capabilities(rights: Rights, kept: CapabilitySet) -> Result<(), Errno> {
    rustix::thread::set_no_new_privs(true)?;
    rustix::thread::clear_ambient_capability_set()?;
    for number in 0..64 {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        if kept.contains(capability) {
            continue;
        }
        match rustix::thread::remove_capability_from_bounding_set(capability) {
            Ok(()) => {}
            // Beyond the kernel's last capability.
            Err(Errno::INVAL) => break,
            Err(errno) => return Err(errno),
        }
    }
    let mut bits = CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE_LOCKED;
    // What root inside keeps it may also pass on when it becomes someone else: setpriv(1) asks for that first of all. Who
    // has nothing may ask to keep it, as every user may: programs try (libcap's own tests), and none comes of it.
    if rights == Rights::None {
        bits |= CapabilitiesSecureBits::NO_ROOT
            | CapabilitiesSecureBits::NO_ROOT_LOCKED
            | CapabilitiesSecureBits::NO_SETUID_FIXUP
            | CapabilitiesSecureBits::NO_SETUID_FIXUP_LOCKED;
    }
    rustix::thread::set_capabilities_secure_bits(bits)?;
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    rustix::thread::set_capabilities(None, sets)
}

/// The signals that pid 1 waits for while it reaps.
fn awaited() -> SigSet {
    let mut awaited = SigSet::empty();
    awaited.add(NixSignal::SIGTERM);
    awaited.add(NixSignal::SIGCHLD);
    awaited
}

/// Starts the payload's process.
fn fork(task: &Task<'_>) -> Result<Twin, Errno> {
    // Blocked, not handled: a namespace's init only gets signals that it handles or blocks: pid_namespaces(7).
    let awaited = awaited();
    sys::default_signal(libc::SIGCHLD);
    awaited.thread_block().map_err(|_| Errno::INVAL)?;
    match twin::fork()? {
        Side::Payload(twin) => match awaited.thread_unblock() {
            Ok(()) => payload::run(task, &twin),
            Err(_) => sys::exit_now(125),
        },
        Side::Init(twin) => Ok(twin),
    }
}

/// Pid 1 may not stay in the host's network: the payload could see that in pid 1's /proc files.
fn join(twin: &Twin) -> Result<(), Errno> {
    twin.wait();
    twin.enter_network()
}

fn reap(task: &Task<'_>, number: usize, twin: &Twin) -> ! {
    let (payload, awaited) = (twin.pid, awaited());
    if let Err(errno) = twin.tell() {
        task.fail(number, errno);
    }
    let report = task.report.as_raw_fd() as u32;
    // 0 to 2 are /dev/null since the launcher began; nothing else is needed any more.
    let closed = sys::close_range(report + 1, u32::MAX).and_then(|()| match report {
        0..=3 => Ok(()),
        _ => sys::close_range(3, report - 1),
    });
    if let Err(errno) = closed.and_then(|()| sys::install_filter(&task.own_filter)) {
        task.fail(number, errno);
    }
    loop {
        if awaited.wait() == Ok(NixSignal::SIGTERM) {
            // Everything in this pid namespace but ourselves.
            let _ = kill(Pid::from_raw(-1), NixSignal::SIGTERM);
        }
        // Not nix's: it takes a real-time signal for an error, and the payload's end would be lost.
        while let Ok(Some((pid, ended))) = rustix::process::wait(WaitOptions::NOHANG) {
            if pid != payload {
                continue;
            }
            let status = match (ended.exit_status(), ended.terminating_signal()) {
                (Some(code), _) => Status::Exited(code as u8),
                (None, Some(signal)) => Status::Signaled(signal),
                (None, None) => continue,
            };
            end(task, status);
        }
    }
}

fn end(task: &Task<'_>, status: Status) -> ! {
    let mut end = End { status, user_micros: 0, system_micros: 0, peak_bytes: 0, others: others() };
    if let Ok(usage) = getrusage(UsageWho::RUSAGE_CHILDREN) {
        let micros = |time: nix::sys::time::TimeVal| time.tv_sec() as u64 * 1_000_000 + time.tv_usec() as u64;
        end.user_micros = micros(usage.user_time());
        end.system_micros = micros(usage.system_time());
        end.peak_bytes = usage.max_rss() as u64 * 1024;
    }
    task.report(&Report::Ended(end));
    sys::exit_now(0)
}

/// Every process of the namespace descends from this one, and orphans become its children (pid_namespaces(7)): without a
/// child it is alone. Counts those too that end without SIGCHLD (__WALL).
fn others() -> Others {
    let all = WaitOptions::NOHANG | WaitOptions::from_bits_retain(libc::__WALL as u32);
    loop {
        match rustix::process::wait(all) {
            Ok(Some(_)) => {}
            Err(Errno::CHILD) => return Others::None,
            Ok(None) | Err(_) => return Others::Perhaps,
        }
    }
}

/// Text on the stack.
pub(crate) struct Text<const N: usize> {
    buffer: [u8; N],
    used: usize,
}

impl<const N: usize> Default for Text<N> {
    fn default() -> Self {
        Self { buffer: [0; N], used: 0 }
    }
}

impl<const N: usize> Text<N> {
    pub(crate) fn line(&mut self, text: std::fmt::Arguments<'_>) -> Result<(), Errno> {
        std::fmt::Write::write_fmt(self, text).map_err(|_| Errno::NAMETOOLONG)
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.buffer[..self.used]
    }
}

impl<const N: usize> std::fmt::Write for Text<N> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let free = &mut self.buffer[self.used..];
        let Some(space) = free.get_mut(..text.len()) else {
            return Err(std::fmt::Error);
        };
        space.copy_from_slice(text.as_bytes());
        self.used += text.len();
        Ok(())
    }
}

fn write_number(path: &std::ffi::CStr, number: u64) -> Result<(), Errno> {
    let mut text = Text::<32>::default();
    text.line(format_args!("{number}"))?;
    write_file(path, text.bytes())
}

/// Writes a kernel file in one call, as they require.
pub(crate) fn write_file(path: &std::ffi::CStr, bytes: &[u8]) -> Result<(), Errno> {
    let file = rustix::fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    match rustix::io::write(&file, bytes)? {
        count if count == bytes.len() => Ok(()),
        _ => Err(Errno::IO),
    }
}
