//! A sandbox while it runs: its log, its deadline, its end.
//!
//! One poll over the log and pid 1's pidfd; reports wait in their pipe. Pid 1 is readable only when the kernel has killed
//! and reaped every process of the sandbox, so after [`Running::wait`] nothing of it is left. Before, the kernel takes
//! apart pid 1's namespaces, a tenth of what a short sandbox costs; [`Running::wait_for_writers`] does not wait for that if
//! pid 1 says that it is alone. Memory does not grow with the log.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use kiln_launcher::protocol::{End, Facts, Failure, Others, PACKET, Report, Status};
use kiln_launcher::step::Step;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::buffer::spare_capacity;
use rustix::io::Errno;
use rustix::process::{Signal, pidfd_send_signal};

use crate::disk::Disk;
use crate::door::Door;
use crate::error::SetupError;
use crate::forbidden;
use crate::group::Group;
use crate::plan::Plan;
use crate::spec::{Aslr, Limits};
use crate::status::{Achieved, Ended, How, Observed, Usage, Which};

/// A sandbox that was started. Dropping it kills everything in it.
#[derive(Debug)]
pub struct Running {
    pidfd: Arc<OwnedFd>,
    cancelled: Arc<AtomicBool>,
    reports: Reports,
    log: Log,
    started: Instant,
    limits: Limits,
    achieved: Achieved,
    steps: Arc<[Step]>,
    sources: Arc<[PathBuf]>,
    group: Option<Group>,
    door: Option<Door>,
    disk: Disk,
}

/// Stops a sandbox from another thread.
#[derive(Debug, Clone)]
pub struct Canceller {
    pidfd: Arc<OwnedFd>,
    cancelled: Arc<AtomicBool>,
}

impl Canceller {
    /// Kills every process of the sandbox. `wait` then returns [`How::Cancelled`], unless it had ended before.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::SeqCst);
        kill(&self.pidfd);
    }
}

/// Killing pid 1 kills its namespace. An error means that it has already ended.
fn kill(pidfd: &OwnedFd) {
    let _ = pidfd_send_signal(pidfd, Signal::KILL);
}

/// What kiln keeps of a sandbox, made before it starts.
pub(crate) struct Prepared {
    pub(crate) started: Instant,
    pub(crate) reports: Reports,
    pub(crate) log: Option<OwnedFd>,
    pub(crate) group: Option<Group>,
    pub(crate) door: Option<Door>,
    pub(crate) disk: Disk,
}

/// The pipe that a sandbox reports on.
#[derive(Debug)]
pub(crate) struct Reports {
    pipe: Option<OwnedFd>,
    room: Room,
}

/// Whether a pipe holds all that a sandbox reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Room {
    Enough,
    /// A user with very many pipes gets short ones: pipe(7), pipe-user-pages-soft.
    Short,
}

impl Reports {
    /// What a sandbox reports at most: Landlock, facts, and its end or a failure.
    const MOST: usize = 4;

    pub(crate) fn new(pipe: OwnedFd) -> Result<Self, Errno> {
        let room = match rustix::pipe::fcntl_getpipe_size(&pipe)? {
            size if size >= Self::MOST * PACKET => Room::Enough,
            _ => Room::Short,
        };
        Ok(Self { pipe: Some(pipe), room })
    }

    /// Waking up for each report would cost as much as ten mounts; they can all wait for the end.
    fn watched(&self, log: &Log) -> Option<&OwnedFd> {
        self.pipe.as_ref().filter(|_| self.room == Room::Short || matches!(log, Log::Ended))
    }
}

/// What the sandbox writes for its log.
#[derive(Debug)]
enum Log {
    /// It does not come here.
    Elsewhere,
    /// More may come.
    Open(OwnedFd),
    /// Everyone who could write to it has closed it.
    Ended,
}

/// A sandbox in which nobody runs any more but pid 1, which is about to end. Dropping it waits for that.
#[derive(Debug)]
pub struct Leaving {
    pidfd: Arc<OwnedFd>,
    /// Can be removed only then.
    group: Option<Group>,
}

impl Drop for Leaving {
    fn drop(&mut self) {
        kill(&self.pidfd);
        let mut gone = [PollFd::new(self.pidfd.as_fd(), PollFlags::POLLIN)];
        while poll(&mut gone, PollTimeout::NONE) == Err(nix::errno::Errno::EINTR) {}
        drop(self.group.take());
    }
}

/// What the sandbox told so far.
#[derive(Default)]
struct Told {
    failure: Option<Failure>,
    landlock_abi: u32,
    facts: Option<Facts<Vec<u8>>>,
    end: Option<End>,
}

/// How often what nobody tells of is looked at, at most.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// A limit that was hit: asked to end first, killed later.
struct Ending {
    how: How,
    kill_at: Option<Instant>,
}

impl Running {
    pub(crate) fn new(plan: &Plan, prepared: Prepared, pidfd: OwnedFd) -> Self {
        let Prepared { started, reports, log, group, door, disk } = prepared;
        Self {
            group,
            door,
            disk,
            pidfd: Arc::new(pidfd),
            cancelled: Arc::default(),
            reports,
            log: log.map_or(Log::Elsewhere, Log::Open),
            started,
            limits: plan.limits.clone(),
            achieved: plan.achieved.clone(),
            steps: Arc::clone(&plan.steps),
            sources: Arc::clone(&plan.sources),
        }
    }

    pub(crate) fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// A handle that kills it.
    pub fn canceller(&self) -> Canceller {
        Canceller { pidfd: Arc::clone(&self.pidfd), cancelled: Arc::clone(&self.cancelled) }
    }

    /// The way to the calls that the spec watches, once. A supervisor must take it before [`Running::wait`],
    /// which otherwise refuses; when it drops what it took, these calls fail with ENOSYS.
    pub fn door(&mut self) -> Option<Door> {
        self.door.take()
    }

    /// Passes the log on until the last process is gone. `log` gets at most `log_bytes` bytes in all.
    pub fn wait(self, log: &mut dyn FnMut(&[u8])) -> Result<Ended, SetupError> {
        self.wait_for_writers(log).map(|(ended, _leaving)| ended)
    }

    /// The same, but only until nobody is left who could write to the sandbox's directories: pid 1, which reads and writes
    /// none of them, may still be ending. Keep the slot until [`Leaving`] is dropped.
    pub fn wait_for_writers(mut self, log: &mut dyn FnMut(&[u8])) -> Result<(Ended, Leaving), SetupError> {
        let mut told = Told::default();
        let mut ending: Option<Ending> = None;
        let mut written: u64 = 0;
        let mut buffer = Vec::with_capacity(64 << 10);
        if self.door.is_some() {
            return Err(SetupError::Unsupervised);
        }
        let mut look = self.looks().then(|| Instant::now() + LOOK_EVERY);
        loop {
            let next = self.next_deadline(ending.as_ref());
            let mut gone = self.poll_until(next.into_iter().chain(look).min())?;
            self.read_reports(&mut told)?;
            if told.end.is_some_and(|end| end.others == Others::None) {
                gone = Gone::All;
            }
            self.read_log(&mut buffer, gone, &mut written, log)?;
            if gone == Gone::All {
                break;
            }
            let now = Instant::now();
            match &mut ending {
                None => {
                    if self.limits.log_bytes.is_some_and(|limit| written > limit) {
                        ending = Some(self.ask_to_end(How::LimitExceeded(Which::Log), now));
                    } else if self.limits.wall.is_some_and(|limit| now >= self.started + limit) {
                        ending = Some(self.ask_to_end(How::TimedOut, now));
                    } else if look.is_some_and(|at| now >= at) {
                        if let Some(which) = self.look() {
                            ending = Some(self.ask_to_end(How::LimitExceeded(which), now));
                        }
                        // A look at many files takes its time; it may take a twentieth of the machine's.
                        look = Some(Instant::now() + LOOK_EVERY.max(now.elapsed() * 20));
                    }
                }
                Some(ending) => {
                    look = None;
                    if ending.kill_at.is_some_and(|at| now >= at) {
                        ending.kill_at = None;
                        kill(&self.pidfd);
                    }
                }
            }
        }
        let wall = self.started.elapsed();
        let ended = self.conclude(told, ending.map(|ending| ending.how), wall, written)?;
        Ok((ended, Leaving { pidfd: Arc::clone(&self.pidfd), group: self.group.take() }))
    }

    /// Whether anything must be looked at from time to time.
    fn looks(&self) -> bool {
        self.group.is_some() || self.disk.is_bounded()
    }

    /// The limit that is exceeded now, of those that nobody tells of.
    fn look(&self) -> Option<Which> {
        if let Some(group) = &self.group {
            if group.killed_for_memory() > 0 {
                return Some(Which::Memory);
            }
            if self.limits.cpu_total.is_some_and(|seconds| group.cpu_time() >= Duration::from_secs(seconds)) {
                return Some(Which::Cpu);
            }
        }
        self.disk.is_exceeded().then_some(Which::Disk)
    }

    fn next_deadline(&self, ending: Option<&Ending>) -> Option<Instant> {
        match ending {
            None => self.limits.wall.map(|limit| self.started + limit),
            Some(ending) => ending.kill_at,
        }
    }

    fn ask_to_end(&self, how: How, now: Instant) -> Ending {
        let _ = pidfd_send_signal(&*self.pidfd, Signal::TERM);
        Ending { how, kill_at: Some(now + self.limits.grace) }
    }

    /// Waits for something to happen, and tells whether everything is gone.
    fn poll_until(&self, deadline: Option<Instant>) -> Result<Gone, SetupError> {
        let mut watched = vec![PollFd::new(self.pidfd.as_fd(), PollFlags::POLLIN)];
        // Each only until its end of file, which would be reported over and over.
        let log = match &self.log {
            Log::Open(log) => Some(log),
            Log::Elsewhere | Log::Ended => None,
        };
        for stream in [self.reports.watched(&self.log), log].into_iter().flatten() {
            watched.push(PollFd::new(stream.as_fd(), PollFlags::POLLIN));
        }
        let timeout = match deadline {
            None => PollTimeout::NONE,
            Some(deadline) => {
                // Rounded up, or the last millisecond would spin. After a day it is looked at again.
                let left = deadline.saturating_duration_since(Instant::now()).min(Duration::from_secs(86_400));
                PollTimeout::try_from(left.as_millis() + 1).unwrap_or(PollTimeout::MAX)
            }
        };
        match poll(&mut watched, timeout) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(lost_touch("waiting for a sandbox", Errno::from_raw_os_error(errno as i32))),
        }
        Ok(match watched[0].any() {
            Some(false) => Gone::NotYet,
            Some(true) | None => Gone::All,
        })
    }

    fn read_reports(&mut self, told: &mut Told) -> Result<(), SetupError> {
        let mut packet = [0; PACKET];
        while let Some(pipe) = &self.reports.pipe {
            let used = match rustix::io::read(pipe, &mut packet) {
                Ok(0) => {
                    self.reports.pipe = None;
                    break;
                }
                Ok(used) => used,
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => break,
                Err(errno) => return Err(lost_touch("reading reports", errno)),
            };
            match postcard::from_bytes(&packet[..used]) {
                // Who waited for the process that failed may fail too.
                Ok(Report::Failed(failure)) => drop(told.failure.get_or_insert(failure)),
                Ok(Report::Landlock(abi)) => told.landlock_abi = abi,
                Ok(Report::Observed(facts)) => told.facts = Some(facts),
                Ok(Report::Ended(end)) => told.end = Some(end),
                Err(_) => return Err(lost_touch("reading reports", Errno::BADMSG)),
            }
        }
        Ok(())
    }

    /// Reads what there is: one buffer, so that deadlines are looked at in a flood too; when all is gone, the rest.
    fn read_log(
        &mut self,
        buffer: &mut Vec<u8>,
        gone: Gone,
        written: &mut u64,
        log: &mut dyn FnMut(&[u8]),
    ) -> Result<(), SetupError> {
        while let Log::Open(stream) = &self.log {
            buffer.clear();
            let used = match rustix::io::read(stream, spare_capacity(buffer)) {
                Ok(0) => {
                    self.log = Log::Ended;
                    break;
                }
                Ok(used) => used,
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => break,
                Err(errno) => return Err(lost_touch("reading the log", errno)),
            };
            let room = self.limits.log_bytes.map_or(u64::MAX, |limit| limit.saturating_sub(*written));
            let shown = usize::try_from(room).map_or(used, |room| used.min(room));
            if shown > 0 {
                log(&buffer[..shown]);
            }
            *written += used as u64;
            if gone == Gone::NotYet {
                break;
            }
        }
        Ok(())
    }

    fn conclude(&self, told: Told, ending: Option<How>, wall: Duration, written: u64) -> Result<Ended, SetupError> {
        if let Some(failure) = told.failure {
            return Err(step_failed(&self.steps, &self.sources, failure));
        }
        let ended = told.end.map(|end| match end.status {
            Status::Exited(code) => How::Exited(code),
            Status::Signaled(libc::SIGXCPU) if self.limits.cpu.is_some() => How::LimitExceeded(Which::Cpu),
            Status::Signaled(libc::SIGXFSZ) if self.limits.file_size.is_some() => How::LimitExceeded(Which::FileSize),
            Status::Signaled(signal) => How::Signaled(signal),
        });
        let cancelled = || self.cancelled.load(Ordering::SeqCst).then_some(How::Cancelled);
        // The kernel's own kill for want of memory comes first: whatever happened then, happened because of it.
        let starved = || self.group.as_ref().is_some_and(|group| group.killed_for_memory() > 0);
        let ending = if starved() { Some(How::LimitExceeded(Which::Memory)) } else { ending };
        // A payload that coped with a refused fork has met no limit.
        let ended = ended.map(|ended| match &self.group {
            Some(group) if ended != How::Exited(0) && group.processes_refused() > 0 => {
                How::LimitExceeded(Which::Processes)
            }
            Some(_) | None => ended,
        });
        let how = ending.or(ended).or_else(cancelled).ok_or(SetupError::Lost)?;
        Ok(Ended {
            how,
            usage: Usage {
                wall,
                user: told.end.map(|end| Duration::from_micros(end.user_micros)),
                system: told.end.map(|end| Duration::from_micros(end.system_micros)),
                peak_memory: told.end.map(|end| end.peak_bytes),
                peak_memory_total: self.group.as_ref().and_then(Group::peak_memory),
                log_bytes: written,
            },
            achieved: Achieved { landlock_abi: told.landlock_abi, ..self.achieved.clone() },
            // Only a kill before the payload began leaves no facts.
            observed: told.facts.map(observed),
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        kill(&self.pidfd);
    }
}

/// Whether the whole sandbox is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gone {
    NotYet,
    All,
}

fn lost_touch(act: &'static str, errno: Errno) -> SetupError {
    SetupError::Launcher { act, error: errno.into() }
}

/// A failure in the plan's words.
pub(crate) fn step_failed(steps: &[Step], sources: &[PathBuf], failure: Failure) -> SetupError {
    let step = steps.get(failure.step as usize);
    let source = failure.source.and_then(|source| sources.get(source as usize));
    let target = || {
        let target = step?.target()?.to_bytes();
        Some(Path::new("/").join(OsStr::from_bytes(target)))
    };
    let errno = Errno::from_raw_os_error(failure.errno);
    let shown = step.map(|step| shortened(&step.to_string())).unwrap_or_default();
    match step.and_then(|step| forbidden::by_host(step, errno)) {
        Some(refusal) => SetupError::Forbidden { refusal: Box::new(refusal), step: shown, error: errno.into() },
        None => SetupError::Step { step: shown, path: source.cloned().or_else(target), error: errno.into() },
    }
}

fn shortened(line: &str) -> String {
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn observed(facts: Facts<Vec<u8>>) -> Observed {
    const FIXED_ADDRESSES: u32 = 0x0004_0000;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    let cpus = facts.cpus.iter().enumerate();
    Observed {
        hostname: text(facts.hostname),
        domain: text(facts.domain),
        release: text(facts.release),
        cwd: text(facts.cwd),
        cwd_magic: facts.cwd_magic,
        uid: facts.uid,
        gid: facts.gid,
        pid: facts.pid,
        umask: facts.umask,
        personality: facts.personality,
        aslr: if facts.personality & FIXED_ADDRESSES == 0 { Aslr::Random } else { Aslr::Fixed },
        cpus: cpus
            .flat_map(|(byte, bits)| (0..8).filter(move |bit| bits & (1u8 << bit) != 0).map(move |bit| byte * 8 + bit))
            .collect(),
        boot_seconds: facts.boot_seconds,
    }
}
