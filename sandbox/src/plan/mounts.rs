//! The mounts of a plan: those that a sandbox has by itself, and those that its sources bring.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use kiln_launcher::step::{Access, Proc, Step};

use super::constant;
use crate::error::BadSpec;
use crate::probe::Host;
use crate::sound::{Field, target};
use crate::spec::{ProcMode, Root, Spec};
use crate::surface;

/// What `/proc` shows to everyone and nobody needs: the host's hardware, keys, addresses, command line.
const MASKED: [&str; 21] = [
    "proc/acpi",
    "proc/asound",
    "proc/buddyinfo",
    "proc/cmdline",
    "proc/config.gz",
    "proc/diskstats",
    "proc/driver",
    "proc/interrupts",
    "proc/kallsyms",
    "proc/kcore",
    "proc/key-users",
    "proc/keys",
    "proc/latency_stats",
    "proc/modules",
    "proc/partitions",
    "proc/pressure",
    "proc/sched_debug",
    "proc/scsi",
    "proc/swaps",
    "proc/timer_list",
    "proc/zoneinfo",
];

/// What may be read and not written, whoever asks.
const FROZEN: [&str; 5] = ["proc/bus", "proc/fs", "proc/irq", "proc/sys", "proc/sysrq-trigger"];

/// What the root has and no other source brings.
pub(super) fn own(spec: &Spec, host: &Host, sources: &mut Sources, steps: &mut Vec<Step>) {
    let cpus = spec.process.affinity.as_ref().map(Vec::len);
    let covers_etc = !matches!(spec.root, Root::Empty);
    match &spec.root {
        Root::Empty => {
            let targets = spec.inputs.len() + spec.writable.len() + spec.tmpfs.len() + spec.surface.etc.len();
            // A target may need its parents too; inodes cost memory only when used. A few inputs more or less make no difference.
            let inodes = u32::try_from((4096 + 8 * targets).next_power_of_two()).unwrap_or(u32::MAX);
            steps.push(Step::EmptyRoot { inodes });
        }
        Root::Tree(path) => steps.push(Step::TreeRoot { source: sources.number(path), access: Access::ReadOnly }),
        Root::WritableTree(path) => {
            steps.push(Step::TreeRoot { source: sources.number(path), access: Access::ReadWrite })
        }
    }
    if covers_etc || spec.proc_mode == ProcMode::Compat {
        steps.push(Step::Scratch);
    }
    steps.push(Step::Dev);
    match spec.proc_mode {
        ProcMode::None => {}
        ProcMode::Strict => steps.push(Step::Proc { proc: Proc::Processes }),
        ProcMode::Compat => {
            steps.push(Step::Proc { proc: Proc::Full });
            compat_proc(host, cpus, steps);
        }
    }
    if let Some(cpus) = cpus {
        steps.push(Step::Sys { online: surface::online(cpus) });
    }
}

/// Inputs and writable directories, and the file systems in memory: those that need none of the former come ahead.
pub(super) fn brought(
    spec: &Spec,
    sources: &mut Sources,
    ahead: &mut Vec<Step>,
    later: &mut Vec<Step>,
) -> Result<(), BadSpec> {
    let covers_etc = !matches!(spec.root, Root::Empty);
    let targets = || {
        let inputs = spec.inputs.iter().map(|input| input.target.as_path());
        inputs.chain(spec.writable.iter().map(|writable| writable.target.as_path()))
    };
    let is_below = |target: &Path| targets().any(|brought| target.starts_with(brought));

    // By path, so that a mount's parent always comes before it.
    let mut in_memory: BTreeMap<&Path, Step> = BTreeMap::new();
    let mut by_target: BTreeMap<&Path, Step> = BTreeMap::new();
    for (index, input) in spec.inputs.iter().enumerate() {
        let step = Step::Bind {
            source: sources.number(&input.source),
            target: target(Field::In("inputs", index, "target"), &input.target, &[])?,
            access: Access::ReadOnly,
        };
        by_target.insert(&input.target, step);
    }
    for (index, writable) in spec.writable.iter().enumerate() {
        let step = Step::Bind {
            source: sources.number(&writable.source),
            target: target(Field::In("writable", index, "target"), &writable.target, &[])?,
            access: Access::ReadWrite,
        };
        by_target.insert(&writable.target, step);
    }
    for (index, tmpfs) in spec.tmpfs.iter().enumerate() {
        let step = Step::Tmpfs {
            target: target(Field::In("tmpfs", index, "target"), &tmpfs.target, &["dev/shm"])?,
            size: tmpfs.size,
            inodes: tmpfs.inodes,
            mode: tmpfs.mode,
        };
        let list = if is_below(&tmpfs.target) { &mut by_target } else { &mut in_memory };
        list.insert(&tmpfs.target, step);
    }
    ahead.extend(in_memory.into_values());
    later.extend(by_target.into_values());
    for (index, (name, bytes)) in spec.surface.etc.iter().enumerate() {
        let path = Path::new("/etc").join(name);
        let target = target(Field::In("surface.etc", index, ""), &path, &[])?;
        let bytes = bytes.clone();
        let list = if is_below(&path) { &mut *later } else { &mut *ahead };
        list.push(if covers_etc { Step::Cover { target, bytes } } else { Step::File { target, bytes } });
    }
    Ok(())
}

fn compat_proc(host: &Host, cpus: Option<usize>, steps: &mut Vec<Step>) {
    for path in FROZEN {
        steps.push(Step::Freeze { target: constant(path) });
    }
    for path in MASKED {
        steps.push(Step::Mask { target: constant(path) });
    }
    let mut covers = vec![
        ("proc/loadavg", surface::LOADAVG.to_vec()),
        ("proc/meminfo", surface::MEMINFO.to_vec()),
        ("proc/stat", surface::stat(cpus.unwrap_or(host.cpus))),
        ("proc/sys/kernel/random/boot_id", surface::BOOT_ID.to_vec()),
    ];
    if let Some(cpus) = cpus {
        covers.push(("proc/cpuinfo", surface::cpuinfo(&host.cpuinfo, cpus)));
    }
    for (path, bytes) in covers {
        steps.push(Step::Cover { target: constant(path), bytes });
    }
}

/// The host's paths that steps name by numbers.
#[derive(Default)]
pub(super) struct Sources {
    pub(super) paths: Vec<PathBuf>,
}

impl Sources {
    fn number(&mut self, path: &Path) -> u32 {
        self.paths.push(path.to_owned());
        (self.paths.len() - 1) as u32
    }
}
