//! What this host offers. Facts only: [`crate::plan()`] judges them.
//!
//! Reads a few files; starts nothing, changes nothing. For one sandbox even these cost too much: see [`suppose`].

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use crate::control_group::{self, ControlGroups};
use crate::error::Refusal;
use crate::spec::{Ids, Spec};

/// What this host offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Who would start the sandbox.
    pub caller: Caller,
    /// Kernel release.
    pub kernel: String,
    /// What is missing for any sandbox at all.
    pub lacks: Vec<Refusal>,
    /// Whether `/proc` can be mounted; not below an outer container's partly covered one.
    pub proc: ProcMount,
    /// Whether there are time namespaces.
    pub time_namespace: TimeNamespace,
    /// How far limits on all processes together can be held.
    pub control_groups: ControlGroups,
    /// The kernel's Landlock ABI, 0 if it has none.
    pub landlock_abi: u32,
    /// Processors that kiln may run on.
    pub cpus: usize,
    /// The host's `/proc/cpuinfo`, of which a payload with an affinity sees as many blocks as it has processors.
    pub cpuinfo: String,
}

/// Who would start the sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caller {
    /// Someone without privilege.
    User,
    /// The host's root: sources are prepared for pid 1, the outer id is a leased one.
    Root,
}

/// Whether `/proc` can be mounted in a new pid namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProcMount {
    /// Yes.
    Possible,
    /// No, since something covers this path below the present one.
    Covered(String),
}

/// Whether there are time namespaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeNamespace {
    /// Yes.
    Possible,
    /// The kernel has none.
    Absent,
}

/// First kernel with everything that has no substitute: `close_range` and `mount_setattr` (5.12), both in use by 5.14.
const OLDEST: (u32, u32) = (5, 14);

/// Namespaces that a sandbox has besides that of users, and what of the kernel's configuration brings each.
pub(crate) const BESIDE_USER: [(&str, &str); 6] = [
    ("mnt", "CONFIG_NAMESPACES"),
    ("pid", "CONFIG_PID_NS"),
    ("net", "CONFIG_NET_NS"),
    ("ipc", "CONFIG_IPC_NS"),
    ("uts", "CONFIG_UTS_NS"),
    ("cgroup", "CONFIG_CGROUPS"),
];

/// Looks at this host.
pub fn probe() -> Host {
    let kernel = kernel();
    let mut lacks = Vec::new();
    if version(&kernel) < OLDEST {
        lacks.push(Refusal {
            missing: format!("Linux {}.{} or later", OLDEST.0, OLDEST.1),
            why: format!("this is {kernel}, and mounts must be sealed before anything sees them"),
            remedy: "run kiln on a newer kernel".into(),
        });
    }
    for (namespace, option) in [("user", "CONFIG_USER_NS")].into_iter().chain(BESIDE_USER) {
        if !Path::new("/proc/self/ns").join(namespace).exists() {
            lacks.push(Refusal {
                missing: format!("{namespace} namespaces"),
                why: format!("/proc/self/ns/{namespace} does not exist"),
                remedy: format!("boot a kernel with {option}, and mount /proc"),
            });
        }
    }
    if !Path::new("/proc/sys/kernel/seccomp").exists() {
        lacks.push(Refusal {
            missing: "seccomp".into(),
            why: "/proc/sys/kernel/seccomp does not exist, and setuid files could not be prevented".into(),
            remedy: "boot a kernel with CONFIG_SECCOMP_FILTER".into(),
        });
    }
    let caller = caller();
    lacks.extend(switched_off(caller));
    Host {
        caller,
        kernel,
        lacks,
        proc: proc_mount(&kernel_file("/proc/self/mountinfo").unwrap_or_default()),
        time_namespace: if Path::new("/proc/self/ns/time").exists() {
            TimeNamespace::Possible
        } else {
            TimeNamespace::Absent
        },
        control_groups: control_group::find(),
        landlock_abi: kiln_launcher::landlock_abi(),
        cpus: cpus(),
        cpuinfo: kernel_file("/proc/cpuinfo").unwrap_or_default(),
    }
}

/// A host that offers what `spec` needs, for a caller that starts one sandbox and would look at every file for that alone.
///
/// Nothing is weaker for it: what the host lacks after all fails the step that needs it, before the payload runs, and
/// [`probe`] then tells why. What no step would tell is looked at: the Landlock ABI, and control groups if there is a limit
/// that only they hold.
pub fn suppose(spec: &Spec) -> Host {
    let limits = &spec.limits;
    let needs_groups = limits.memory_total.is_some() || limits.cpu_total.is_some() || spec.ids == Ids::Range;
    if needs_groups || spec.process.affinity.is_some() {
        return probe();
    }
    Host {
        caller: caller(),
        kernel: kernel(),
        lacks: Vec::new(),
        proc: ProcMount::Possible,
        time_namespace: TimeNamespace::Possible,
        control_groups: ControlGroups::Absent {
            why: "nothing that was asked for needs one".into(),
            remedy: "look again with `probe`".into(),
        },
        landlock_abi: kiln_launcher::landlock_abi(),
        cpus: cpus(),
        cpuinfo: String::new(),
    }
}

fn kernel() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

fn caller() -> Caller {
    if rustix::process::geteuid().is_root() { Caller::Root } else { Caller::User }
}

/// Not the standard library's count, which reads a quota in a dozen files: none is needed here.
fn cpus() -> usize {
    rustix::thread::sched_getaffinity(None).map_or(1, |set| set.count() as usize)
}

/// A file of `/proc` or `/sys`, in as few reads as can be: each renders all of it anew, and it has no size to go by.
pub(crate) fn kernel_file(path: impl AsRef<Path>) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let mut text = vec![0; 16 << 10];
    let mut used = 0;
    loop {
        match file.read(&mut text[used..])? {
            0 => break,
            count => used += count,
        }
        if used == text.len() {
            text.resize(2 * used, 0);
        }
    }
    text.truncate(used);
    String::from_utf8(text).map_err(|error| std::io::Error::new(std::io::ErrorKind::InvalidData, error))
}

/// Sysctls that forbid user namespaces to everyone concerned. AppArmor's is not among them: a profile may allow them to kiln,
/// which only trying shows.
fn switched_off(caller: Caller) -> Vec<Refusal> {
    let switches = [
        ("/proc/sys/user/max_user_namespaces", "0", "user.max_user_namespaces=10000", Caller::Root),
        ("/proc/sys/user/max_mnt_namespaces", "0", "user.max_mnt_namespaces=10000", Caller::Root),
        ("/proc/sys/user/max_pid_namespaces", "0", "user.max_pid_namespaces=10000", Caller::Root),
        ("/proc/sys/user/max_net_namespaces", "0", "user.max_net_namespaces=10000", Caller::Root),
        ("/proc/sys/kernel/unprivileged_userns_clone", "0", "kernel.unprivileged_userns_clone=1", Caller::User),
    ];
    switches
        .iter()
        .filter(|(path, forbidding, _, concerns)| {
            (*concerns == Caller::Root || caller == Caller::User)
                && kernel_file(path).is_ok_and(|text| text.trim() == *forbidding)
        })
        .map(|(path, forbidding, setting, _)| Refusal {
            missing: "permission to make namespaces".into(),
            why: format!("{path} is {forbidding}"),
            remedy: format!("ask the administrator for `sysctl -w {setting}`"),
        })
        .collect()
}

/// The kernel refuses a new proc mount unless one that is already there is fully visible: user_namespaces(7). A mount
/// below it hides something, unless on a directory that is empty by construction (binfmt_misc).
fn proc_mount(mountinfo: &str) -> ProcMount {
    let covered = mountinfo
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .find(|point| point.starts_with("/proc/") && *point != "/proc/sys/fs/binfmt_misc");
    match covered {
        Some(point) => ProcMount::Covered(point.to_owned()),
        None => ProcMount::Possible,
    }
}

fn version(release: &str) -> (u32, u32) {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_covered_proc_is_noticed_and_binfmt_misc_is_not_a_cover() {
        let plain = "24 30 0:22 / /proc rw - proc proc rw\n41 24 0:38 / /proc/sys/fs/binfmt_misc rw - autofs x rw\n";
        assert_eq!(proc_mount(plain), ProcMount::Possible);
        let docker = format!("{plain}50 24 0:50 / /proc/kcore rw - tmpfs tmpfs rw\n");
        assert_eq!(proc_mount(&docker), ProcMount::Covered("/proc/kcore".into()));
    }

    #[test]
    fn versions_compare_by_number() {
        assert!(version("5.9.1-amd64") < OLDEST);
        assert!(version("6.18.44-fc") > OLDEST);
        assert!(version("nonsense") < OLDEST);
    }
}
