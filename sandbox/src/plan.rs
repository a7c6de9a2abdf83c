//! Spec and host in, ordered steps out, or a refusal. Pure: no file is looked at, nothing is started.
//!
//! Each place in the order has a reason: what needs a capability comes before they are dropped, what needs the host's
//! `/proc` before the pivot, what a child inherits before the fork. Pid 1's steps and the payload's are two orders that
//! run side by side until [`Step::Await`], which no foreign code precedes. What needs no source but the root comes first:
//! most often it is the same for the next build, and can be done before that build's inputs are there.

use std::ffi::CString;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use kiln_launcher::step::{Resource, Rights, Rlimit, Step};

use crate::control_group::ControlGroups;
use crate::error::{BadSpec, PlanError, Refusal};
use crate::filter;
use crate::group::Wanted;
use crate::id_range;
use crate::limits;
use crate::probe::{Caller, Host, ProcMount, TimeNamespace};
use crate::sound::{self, Field, absolute, c_strings};
use crate::spec::{Aslr, Ids, Kernel, Limits, Network, ProcMode, Root, Spec};
use crate::status::Achieved;
mod mounts;

use mounts::Sources;

/// What will be done, in order. Its `Display` is one line per step.
#[derive(Debug, Clone)]
pub struct Plan {
    pub(crate) steps: Arc<[Step]>,
    pub(crate) ahead: Option<Ahead>,
    pub(crate) sources: Arc<[PathBuf]>,
    pub(crate) limits: Limits,
    pub(crate) group: Option<Wanted>,
    /// The host's directories that the payload may fill.
    pub(crate) writable: Vec<PathBuf>,
    pub(crate) achieved: Achieved,
}

/// How much of a plan needs nothing but its root, so that it can be begun before the rest is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ahead {
    /// How many of the steps.
    pub(crate) steps: usize,
    /// How many of the sources: the root, or none.
    pub(crate) sources: usize,
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, source) in self.sources.iter().enumerate() {
            writeln!(f, "source {number} {}", source.display())?;
        }
        for (number, step) in self.steps.iter().enumerate() {
            if self.ahead.is_some_and(|ahead| ahead.steps == number) {
                writeln!(f, "what precedes can be done ahead")?;
            }
            writeln!(f, "{step}")?;
        }
        Ok(())
    }
}

/// `ADDR_NO_RANDOMIZE`: personality(2).
const FIXED_ADDRESSES: u32 = 0x0004_0000;
/// `UNAME26`: personality(2).
const UNAME_26: u32 = 0x0002_0000;

/// First ABI with scopes for abstract sockets and signals.
const SCOPED: u32 = 6;

/// Ids of a fake root in the first of its two user namespaces.
const FAKE_ROOT_IDS: (u32, u32) = (1000, 100);

/// Turns a spec into steps, or says why this host cannot.
pub fn plan(spec: &Spec, host: &Host) -> Result<Plan, PlanError> {
    sound::check(spec)?;
    let mut sources = Sources::default();
    let mut steps = Vec::new();

    if host.caller == Caller::Root {
        steps.push(Step::Detach);
    }
    let (uid, gid) = match spec.ids {
        Ids::One { uid, gid } => (uid, gid),
        // Not 0: mapping a parent's 0 once more needs CAP_SETFCAP there, which pid 1 has dropped.
        Ids::FakeRoot => FAKE_ROOT_IDS,
        Ids::Range => (0, 0),
    };
    let group = group(spec, host);
    let join = group.iter().map(|group| Step::Group { memory: group.memory, processes: group.processes });
    match host.control_groups {
        ControlGroups::Unified { .. } => {
            steps.extend(join);
            steps.push(Step::Clone);
        }
        ControlGroups::Legacy { .. } | ControlGroups::Absent { .. } => {
            steps.push(Step::Clone);
            steps.extend(join);
        }
    }
    steps.push(match spec.ids {
        Ids::One { .. } | Ids::FakeRoot => Step::Map { uid, gid },
        Ids::Range => Step::Ranges { count: id_range::COUNT },
    });
    // What needs rights and no ids comes before `Become`, which waits for the launcher to write the maps.
    if let Some(base) = spec.time_offsets {
        steps.push(Step::Clocks { seconds: base.seconds });
    }
    steps.push(Step::Name {
        hostname: spec.surface.hostname.clone().into_bytes(),
        domain: spec.surface.domain.clone().into_bytes(),
    });
    if let Some(pid) = spec.process.first_pid {
        steps.push(Step::FirstPid { pid });
    }
    let allowed = match spec.ids {
        Ids::One { .. } | Ids::Range => 0,
        Ids::FakeRoot => 1,
    };
    steps.push(Step::Private);
    steps.push(Step::Become { uid, gid });
    if group.is_some() {
        // The clone's began where kiln is, and would show the way from there.
        steps.push(Step::GroupRoot);
    }
    steps.extend([Step::Fork, Step::Nesting { allowed }]);
    let mut later = Vec::new();
    mounts::own(spec, host, &mut sources, &mut steps);
    let of_root = sources.paths.len();
    let (early, late) = payload(spec, group.as_ref())?;
    mounts::brought(spec, &mut sources, &mut steps, &mut later)?;
    steps.extend(early);
    later.extend([Step::Seal, Step::Pivot]);
    if late.contains(&Step::AwaitRoot) {
        later.push(Step::Admit);
    }
    later.push(Step::Unmount);
    if spec.network == Network::None {
        later.push(Step::Join);
    }
    later.extend([Step::Drop { rights: rights(spec.ids) }, Step::Reap { program: filter::of_pid_1() }]);
    later.extend(late);
    let ahead = can_be_begun(spec).then_some(Ahead { steps: steps.len(), sources: of_root });
    steps.extend(later);
    // Last: what no host could do is told whatever this one lacks.
    able(spec, host)?;

    let mut namespaces: Vec<String> = ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup"].map(String::from).into();
    if spec.network == Network::Host {
        namespaces.retain(|name| name != "net");
    }
    if spec.time_offsets.is_some() {
        namespaces.push("time".into());
    }
    let rung = group.as_ref().map_or(0, |group| group.on.rung());
    Ok(Plan {
        steps: steps.into(),
        ahead,
        sources: sources.paths.into(),
        group,
        limits: spec.limits.clone(),
        writable: writable_sources(spec),
        achieved: Achieved {
            namespaces,
            rung,
            landlock_abi: 0,
            filter: filter::fingerprint(spec.filter, spec.ids, &spec.watched),
            proc_mode: spec.proc_mode,
            kuid_nonzero: true,
            kernel: host.kernel.clone(),
        },
    })
}

/// What the host must offer for this spec.
fn able(spec: &Spec, host: &Host) -> Result<(), Refusal> {
    if let Some(lack) = host.lacks.first() {
        return Err(lack.clone());
    }
    limits::check(spec, host)?;
    if spec.network == Network::Host && host.landlock_abi < SCOPED {
        return Err(Refusal {
            missing: format!("Landlock ABI {SCOPED}"),
            why: format!(
                "this kernel has {}, and on a shared network only it keeps abstract sockets apart (CVE-2024-27297)",
                host.landlock_abi
            ),
            remedy: "boot Linux 6.12 or later with `lsm=landlock`, or fetch outside of the sandbox".into(),
        });
    }
    if let (ProcMode::Strict | ProcMode::Compat, ProcMount::Covered(path)) = (spec.proc_mode, &host.proc) {
        return Err(Refusal {
            missing: "a fully visible /proc".into(),
            why: format!("{path} is covered, as in a container, and the kernel then forbids mounting another /proc"),
            remedy: "run the outer container with its /proc unmasked (podman: --security-opt unmask=ALL)".into(),
        });
    }
    if spec.time_offsets.is_some() && host.time_namespace == TimeNamespace::Absent {
        return Err(Refusal {
            missing: "time namespaces".into(),
            why: "/proc/self/ns/time does not exist".into(),
            remedy: "boot a kernel with CONFIG_TIME_NS, or leave time_offsets out".into(),
        });
    }
    Ok(())
}

/// Whether a part of the sandbox can wait for the rest: its clocks would go on meanwhile, and a range's maps and a door are
/// matters between kiln and one process that is there at once.
fn can_be_begun(spec: &Spec) -> bool {
    spec.time_offsets.is_none() && spec.ids != Ids::Range && spec.watched.is_empty()
}

/// What pid 1 and the payload keep.
fn rights(ids: Ids) -> Rights {
    match ids {
        Ids::One { .. } | Ids::FakeRoot => Rights::None,
        Ids::Range => Rights::OverOwn,
    }
}

/// The payload's steps: those that it performs while pid 1 builds the root, and those from there on.
fn payload(spec: &Spec, group: Option<&Wanted>) -> Result<(Vec<Step>, Vec<Step>), BadSpec> {
    let process = &spec.process;
    let mut steps = Vec::new();
    if spec.network == Network::None {
        steps.push(Step::Network);
    }
    steps.push(Step::Disarm { rights: rights(spec.ids) });
    let filter = Step::Filter { program: filter::program(spec.filter, spec.ids) };
    let addresses = match process.aslr {
        Aslr::Fixed => FIXED_ADDRESSES,
        Aslr::Random => 0,
    };
    let release = match process.personality {
        Kernel::Native => 0,
        Kernel::Uname26 => UNAME_26,
    };
    let mut state = vec![
        Step::Session,
        Step::Limits { limits: rlimits(&spec.limits, group) },
        Step::Personality { word: addresses | release },
    ];
    if let Some(cpus) = &process.affinity {
        let cpus = cpus.iter().map(|&cpu| u32::try_from(cpu).unwrap_or(u32::MAX)).collect();
        state.push(Step::Affinity { cpus });
    }
    state.push(Step::Umask { mask: process.umask });

    let (mut finished, mut last) = (Vec::new(), None);
    // A fake root's limits count in its second user namespace, which it makes once the mounts are there to be locked;
    // and a filter that watches calls may stop any call after it.
    let needs_all = spec.ids == Ids::FakeRoot || !spec.watched.is_empty();
    if needs_all {
        finished.push(Step::Await);
        if spec.ids == Ids::FakeRoot {
            let (uid, gid) = FAKE_ROOT_IDS;
            finished.push(Step::Lock { uid, gid });
        }
        finished.extend(state);
        last = Some(filter);
    } else {
        steps.extend(state);
        steps.push(filter);
        finished.push(Step::AwaitRoot);
    }
    finished.extend([Step::Streams, Step::Enter { cwd: absolute(Field::Of("process.cwd"), &process.cwd)? }]);

    let mut writable = vec![constant("/dev")];
    if spec.proc_mode != ProcMode::None {
        writable.push(constant("/proc"));
    }
    match &spec.root {
        Root::WritableTree(_) => writable = vec![constant("/")],
        Root::Empty | Root::Tree(_) => {
            let targets = spec.writable.iter().map(|writable| &writable.target);
            for target in targets.chain(spec.tmpfs.iter().map(|tmpfs| &tmpfs.target)) {
                writable.push(absolute(Field::Of("a writable target"), target)?);
            }
        }
    }
    finished.extend([Step::Landlock { writable }, Step::Observe]);
    if !needs_all {
        finished.push(Step::Await);
    }
    if !spec.watched.is_empty() {
        finished.push(Step::Door { program: filter::watch(&spec.watched) });
    }
    finished.extend(last);
    finished.push(Step::Execute {
        program: absolute(Field::Of("process.program"), &process.program)?,
        argv: c_strings("process.argv", &process.argv)?,
        env: c_strings("process.env", &process.env)?,
    });
    Ok((steps, finished))
}

/// Fixed where a program could see or feel the host's, bounded where the spec says so.
fn rlimits(limits: &Limits, group: Option<&Wanted>) -> Vec<Rlimit> {
    let both = |resource, value| Rlimit { resource, soft: value, hard: Some(value) };
    let mut list = vec![
        Rlimit { resource: Resource::Core, soft: 0, hard: None },
        Rlimit { resource: Resource::Stack, soft: 8 << 20, hard: None },
        both(Resource::MessageQueues, 819_200),
        both(Resource::LockedMemory, 64 << 10),
    ];
    // The kernel counts a fork that is under way here before the group does. Every process may have one, and what the group
    // allows must not be refused here, where nobody learns of it.
    let processes = match group {
        Some(_) => limits.processes.map(|count| count.saturating_mul(2)),
        None => limits.processes,
    };
    for (resource, value) in [
        (Resource::Processes, processes),
        (Resource::OpenFiles, limits.open_files),
        (Resource::FileSize, limits.file_size),
        (Resource::AddressSpace, limits.address_space),
    ] {
        list.extend(value.map(|value| both(resource, value)));
    }
    // At the soft limit SIGXCPU names the reason, a second later SIGKILL would not.
    list.extend(limits.cpu.map(|seconds| Rlimit { resource: Resource::Cpu, soft: seconds, hard: Some(seconds + 1) }));
    list
}

/// Only what a control group alone can hold asks for one: joining costs more than the rest of a sandbox.
fn group(spec: &Spec, host: &Host) -> Option<Wanted> {
    let limits = &spec.limits;
    // The kernel counts processes by user, and a range has many: only a group counts them all.
    let counted = spec.ids == Ids::Range && limits.processes.is_some() && host.control_groups.bound_totals();
    if limits.memory_total.is_none() && limits.cpu_total.is_none() && !counted {
        return None;
    }
    // Pid 1 counts, and the payload must start.
    let processes = limits.processes.map(|count| count.max(2));
    Some(Wanted { on: host.control_groups.clone(), memory: limits.memory_total, processes })
}

fn writable_sources(spec: &Spec) -> Vec<PathBuf> {
    let root = match &spec.root {
        Root::WritableTree(path) => Some(path),
        Root::Empty | Root::Tree(_) => None,
    };
    root.into_iter().chain(spec.writable.iter().map(|writable| &writable.source)).cloned().collect()
}

/// A path that stands here.
fn constant(path: &str) -> CString {
    CString::new(path).expect("a path without NUL")
}

#[cfg(test)]
mod tests;
