//! One sandbox's control groups: made before it starts, asked while it runs, removed when it has ended.
//!
//! kiln locks each group's directory (`flock`) for as long as it lives. A group whose lock can be had belongs to a kiln
//! that was killed: [`sweep`] kills what is in it and removes it. No file elsewhere has to remember the groups.

use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use kiln_launcher::protocol;
use rustix::fs::FlockOperation;
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal};

use crate::control_group::{ControlGroups, OWN_LEAF};
use crate::error::SetupError;

/// What every group of a sandbox is called, before its number.
const PREFIX: &str = "kiln-sandbox-";

/// What a sandbox's groups are to hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) on: ControlGroups,
    pub(crate) memory: Option<u64>,
    pub(crate) processes: Option<u64>,
}

/// The groups of one sandbox.
#[derive(Debug)]
pub(crate) struct Group {
    memory: PathBuf,
    pids: PathBuf,
    cpu: PathBuf,
    version: Version,
    locks: Vec<(PathBuf, File)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

impl Group {
    /// Makes them, locks them, writes their limits.
    pub(crate) fn make(wanted: &Wanted) -> Result<Self, SetupError> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        loop {
            let name = format!("{PREFIX}{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
            let (memory, pids, cpu, version) = match &wanted.on {
                ControlGroups::Unified { parent } => {
                    delegate(parent, wanted)?;
                    let own = parent.join(&name);
                    (own.clone(), own.clone(), own, Version::Two)
                }
                ControlGroups::Legacy { memory, pids, cpuacct } => {
                    (memory.join(&name), pids.join(&name), cpuacct.join(&name), Version::One)
                }
                ControlGroups::Absent { why, .. } => {
                    return Err(failed(Path::new("/sys/fs/cgroup"))(io::Error::other(why.clone())));
                }
            };
            let mut group = Self { memory, pids, cpu, version, locks: Vec::new() };
            let mut directories = vec![group.memory.clone(), group.pids.clone(), group.cpu.clone()];
            directories.dedup();
            let mut taken = Taken::Ours;
            for path in directories {
                match claim(&path).map_err(failed(&path))? {
                    Some(lock) => group.locks.push((path, lock)),
                    // A kiln in another pid namespace has that name, or a start swept it away.
                    None => taken = Taken::Elsewhere,
                }
            }
            if taken == Taken::Ours {
                group.limit(wanted)?;
                return Ok(group);
            }
        }
    }

    fn limit(&self, wanted: &Wanted) -> Result<(), SetupError> {
        let mut settings: Vec<(PathBuf, String)> = Vec::new();
        if let Some(bytes) = wanted.memory {
            let bytes = bytes.to_string();
            let (limit, swap, of_swap) = match self.version {
                Version::One => ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes", &*bytes),
                Version::Two => ("memory.max", "memory.swap.max", "0"),
            };
            settings.push((self.memory.join(limit), bytes.clone()));
            // Absent where the kernel does not count swap; then there is none, or it is not bounded by anyone.
            if self.memory.join(swap).exists() {
                settings.push((self.memory.join(swap), of_swap.into()));
            }
            if self.version == Version::Two {
                // A build of which one process is missing is no build.
                settings.push((self.memory.join("memory.oom.group"), "1".into()));
            }
        }
        if let Some(count) = wanted.processes {
            settings.push((self.pids.join("pids.max"), count.to_string()));
        }
        settings.into_iter().try_for_each(|(path, text)| fs::write(&path, text).map_err(failed(&path)))
    }

    /// Where pid 1 is to be, in the launcher's words.
    pub(crate) fn placement(&self) -> Result<protocol::Group, SetupError> {
        let text =
            |path: &Path| CString::new(path.as_os_str().as_bytes()).map_err(|_| failed(path)(Errno::INVAL.into()));
        Ok(match self.version {
            Version::Two => protocol::Group::Born(text(&self.memory)?),
            Version::One => {
                protocol::Group::Moved(self.locks.iter().map(|(path, _)| text(path)).collect::<Result<_, _>>()?)
            }
        })
    }

    /// How many processes the kernel killed for want of memory.
    pub(crate) fn killed_for_memory(&self) -> u64 {
        let file = match self.version {
            Version::One => "memory.oom_control",
            Version::Two => "memory.events",
        };
        number_after(&self.memory.join(file), "oom_kill")
    }

    /// How often a new process was refused.
    pub(crate) fn processes_refused(&self) -> u64 {
        number_after(&self.pids.join("pids.events"), "max")
    }

    /// CPU time of all processes that were ever in it.
    pub(crate) fn cpu_time(&self) -> Duration {
        match self.version {
            Version::One => Duration::from_nanos(number(&self.cpu.join("cpuacct.usage")).unwrap_or(0)),
            Version::Two => Duration::from_micros(number_after(&self.cpu.join("cpu.stat"), "usage_usec")),
        }
    }

    /// The most memory that all processes together had at once, page cache included.
    pub(crate) fn peak_memory(&self) -> Option<u64> {
        number(&self.memory.join(match self.version {
            Version::One => "memory.max_usage_in_bytes",
            Version::Two => "memory.peak",
        }))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for (path, _lock) in &self.locks {
            // What cannot be removed now is found by the next start.
            let _ = remove(path);
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Taken {
    Ours,
    Elsewhere,
}

/// Kills and removes the groups of kilns that no longer live.
pub(crate) fn sweep(groups: &ControlGroups) {
    let parents = match groups {
        ControlGroups::Unified { parent } => vec![parent],
        ControlGroups::Legacy { memory, pids, cpuacct } => vec![memory, pids, cpuacct],
        ControlGroups::Absent { .. } => Vec::new(),
    };
    let entries = parents.iter().filter_map(|parent| fs::read_dir(parent).ok()).flatten().filter_map(Result::ok);
    for entry in entries.filter(|entry| entry.file_name().as_bytes().starts_with(PREFIX.as_bytes())) {
        // It may vanish meanwhile: another kiln sweeps, or its own has ended.
        if let Ok(Some(_lock)) = lock(&entry.path()) {
            let _ = remove(&entry.path());
        }
    }
}

/// Makes a group and locks it, unless someone else has it.
fn claim(path: &Path) -> io::Result<Option<File>> {
    match fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(None),
        Err(error) => Err(error),
        Ok(()) => lock(path),
    }
}

/// Locks a group that is there, unless someone else has it or has removed it.
fn lock(path: &Path) -> io::Result<Option<File>> {
    let missing = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
    let directory = match File::open(path) {
        Err(error) if missing(&error) => return Ok(None),
        other => other?,
    };
    match rustix::fs::flock(&directory, FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::WOULDBLOCK) => return Ok(None),
        other => other?,
    }
    match fs::symlink_metadata(path) {
        Err(error) if missing(&error) => Ok(None),
        other => Ok((other?.ino() == directory.metadata()?.ino()).then_some(directory)),
    }
}

/// Kills what is in a group, and removes it. The kernel lets go of a process a little after its end is known.
fn remove(path: &Path) -> io::Result<()> {
    let deadline = Instant::now() + Duration::from_secs(2);
    let mut pause = Duration::from_micros(50);
    loop {
        match fs::remove_dir(path) {
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) && Instant::now() < deadline => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => return other,
        }
        kill_all(path);
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

fn kill_all(path: &Path) {
    // Version 2, since Linux 5.14.
    if fs::write(path.join("cgroup.kill"), "1").is_ok() {
        return;
    }
    let members = || fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
    for line in members().lines() {
        // 0 stands for a process that is not visible from here.
        let Some(pid) = line.parse().ok().and_then(Pid::from_raw) else { continue };
        let Ok(pidfd) = rustix::process::pidfd_open(pid, PidfdFlags::empty()) else { continue };
        // Once more: the first may have ended, and its number may be someone else's by now.
        if members().lines().any(|member| member == line) {
            let _ = rustix::process::pidfd_send_signal(&pidfd, Signal::KILL);
        }
    }
}

/// Lets the groups below `parent` have limits. Processes must then be elsewhere: cgroups(7), "no internal processes".
fn delegate(parent: &Path, wanted: &Wanted) -> Result<(), SetupError> {
    let needed: Vec<&str> = [("memory", wanted.memory.is_some()), ("pids", wanted.processes.is_some())]
        .into_iter()
        .filter_map(|(controller, needed)| needed.then_some(controller))
        .collect();
    let control = parent.join("cgroup.subtree_control");
    let enabled = fs::read_to_string(&control).map_err(failed(&control))?;
    let missing: Vec<String> = needed
        .iter()
        .filter(|controller| !enabled.split_whitespace().any(|enabled| enabled == **controller))
        .map(|controller| format!("+{controller}"))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    if parent.join("cgroup.type").exists() {
        let leaf = parent.join(OWN_LEAF);
        match fs::create_dir(&leaf) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(&leaf)(error)),
            _ => {}
        }
        let (members, leaf) = (parent.join("cgroup.procs"), leaf.join("cgroup.procs"));
        for pid in fs::read_to_string(&members).map_err(failed(&members))?.lines() {
            fs::write(&leaf, pid).map_err(failed(&leaf))?;
        }
    }
    fs::write(&control, missing.join(" ")).map_err(failed(&control))
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> SetupError {
    let path = path.to_owned();
    move |error| SetupError::Group { path, error }
}

fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// The number behind a word that begins a line.
fn number_after(path: &Path, word: &str) -> u64 {
    let text = fs::read_to_string(path).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(word)?.strip_prefix(' '));
    line.and_then(|rest| rest.trim().parse().ok()).unwrap_or(0)
}
