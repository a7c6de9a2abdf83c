//! What was read and tried on a host. Nothing here judges.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::attempt::Attempts;
use crate::error::Refusal;
use crate::probe::{Caller, ProcMount, probe};
use crate::slot::Slot;

/// What was read and tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Who asks.
    pub caller: Caller,
    /// Kernel release.
    pub kernel: String,
    /// What kiln refuses to start for.
    pub lacks: Vec<Refusal>,
    /// Sysctls that forbid namespaces, by name, where they exist.
    pub settings: BTreeMap<String, String>,
    /// Names in `/proc/self/ns`.
    pub namespaces: BTreeSet<String>,
    /// A path below `/proc` that something covers.
    pub covered_proc: Option<String>,
    /// `/proc/sys/kernel/seccomp/actions_avail`.
    pub filter_actions: Option<String>,
    /// `/sys/kernel/security/lsm`.
    pub security_modules: Option<String>,
    /// Names in `/proc/filesystems`.
    pub file_systems: BTreeSet<String>,
    /// The kind of container that kiln runs in.
    pub container: Option<String>,
    /// Whether systemd runs the host.
    pub systemd: Systemd,
    /// Which control groups are mounted.
    pub control_groups: ControlGroups,
    /// What an unprivileged range of ids needs.
    pub id_helpers: IdHelpers,
    /// kiln's own path.
    pub executable: String,
    /// Whether there is a user to run sandboxes as, or why not.
    pub slot: Result<(), String>,
    /// What came of trying.
    pub attempts: Attempts,
}

/// Whether systemd runs the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Systemd {
    /// It does: `sd_booted(3)`.
    Runs,
    /// Something else does.
    Absent,
}

/// Which control groups are mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ControlGroups {
    /// Version 2 alone.
    Unified,
    /// Both versions.
    Hybrid,
    /// Version 1 alone.
    Legacy,
    /// None.
    None,
}

/// What an unprivileged range of ids needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdHelpers {
    /// newuidmap(1) is in `PATH`.
    pub newuidmap: bool,
    /// newgidmap(1) is in `PATH`.
    pub newgidmap: bool,
    /// The caller has ranges in subuid(5) and subgid(5).
    pub range: bool,
}

const SETTINGS: [&str; 6] = [
    "user.max_user_namespaces",
    "user.max_mnt_namespaces",
    "user.max_pid_namespaces",
    "user.max_net_namespaces",
    "kernel.unprivileged_userns_clone",
    "kernel.apparmor_restrict_unprivileged_userns",
];

/// Looks at this host and tries sandboxes on it, in a private directory below `directory` that is gone afterwards. As
/// root, `slots` is where identities are leased.
pub fn examine(directory: &Path, slots: &Path) -> Facts {
    let host = probe();
    let slot = Slot::lease(slots);
    let attempts = Attempts::make(directory, &host, slot.as_ref().ok(), Slot::lease_range(slots));
    let settings = SETTINGS.iter().filter_map(|name| {
        let path = Path::new("/proc/sys").join(name.replace('.', "/"));
        Some(((*name).to_owned(), line(&path)?))
    });
    Facts {
        caller: host.caller,
        kernel: host.kernel,
        lacks: host.lacks,
        settings: settings.collect(),
        namespaces: names("/proc/self/ns"),
        covered_proc: match host.proc {
            ProcMount::Possible => None,
            ProcMount::Covered(point) => Some(point),
        },
        filter_actions: line(Path::new("/proc/sys/kernel/seccomp/actions_avail")),
        security_modules: line(Path::new("/sys/kernel/security/lsm")),
        file_systems: fs::read_to_string("/proc/filesystems")
            .unwrap_or_default()
            .lines()
            .filter_map(|line| line.split_whitespace().last().map(str::to_owned))
            .collect(),
        container: container(),
        systemd: if Path::new("/run/systemd/system").is_dir() { Systemd::Runs } else { Systemd::Absent },
        control_groups: control_groups(&fs::read_to_string("/proc/self/mountinfo").unwrap_or_default()),
        id_helpers: id_helpers(),
        executable: std::env::current_exe().map(|path| path.display().to_string()).unwrap_or_else(|_| "kiln".into()),
        slot: slot.map(drop).map_err(|error| error.to_string()),
        attempts,
    }
}

fn line(path: &Path) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.trim().to_owned())
}

fn names(directory: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// By the marks that docker and podman leave, and systemd's `container` variable.
fn container() -> Option<String> {
    if Path::new("/run/.containerenv").exists() {
        return Some("a podman container".into());
    }
    if Path::new("/.dockerenv").exists() {
        return Some("a docker container".into());
    }
    let kind = std::env::var("container").ok().filter(|kind| !kind.is_empty())?;
    Some(format!("a container ({kind})"))
}

/// proc_pid_mountinfo(5): the file system's type is the first field after the separator.
fn control_groups(mountinfo: &str) -> ControlGroups {
    let has = |wanted: &str| {
        mountinfo
            .lines()
            .filter_map(|line| line.split_once(" - ")?.1.split(' ').next())
            .any(|file_system| file_system == wanted)
    };
    match (has("cgroup"), has("cgroup2")) {
        (false, true) => ControlGroups::Unified,
        (true, true) => ControlGroups::Hybrid,
        (true, false) => ControlGroups::Legacy,
        (false, false) => ControlGroups::None,
    }
}

fn id_helpers() -> IdHelpers {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let installed = |name: &str| {
        std::env::split_paths(&path).any(|directory| {
            fs::metadata(directory.join(name))
                .is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
        })
    };
    let uid = rustix::process::geteuid().as_raw();
    let name = nix::unistd::User::from_uid(uid.into()).ok().flatten().map(|user| user.name);
    let granted = |file: &str| has_range(&fs::read_to_string(file).unwrap_or_default(), uid, name.as_deref());
    IdHelpers {
        newuidmap: installed("newuidmap"),
        newgidmap: installed("newgidmap"),
        range: granted("/etc/subuid") && granted("/etc/subgid"),
    }
}

/// subuid(5): lines of (name or number, first, count).
fn has_range(table: &str, uid: u32, name: Option<&str>) -> bool {
    table.lines().any(|line| {
        let mut fields = line.trim().split(':');
        let owner = fields.next().unwrap_or_default();
        let count = fields.nth(1).and_then(|count| count.parse::<u32>().ok()).unwrap_or(0);
        count > 0 && (Some(owner) == name || owner.parse() == Ok(uid))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_groups_are_told_apart_by_what_is_mounted() {
        let (old, new) =
            ("30 25 0:26 / /c rw - cgroup cgroup rw,memory\n", "31 25 0:27 / /u rw - cgroup2 cgroup2 rw\n");
        assert_eq!(control_groups(&format!("{old}{new}")), ControlGroups::Hybrid);
        assert_eq!(control_groups(new), ControlGroups::Unified);
        assert_eq!(control_groups(old), ControlGroups::Legacy);
        assert_eq!(control_groups("24 30 0:22 / /cgroup2 rw - proc proc rw\n"), ControlGroups::None);
    }

    #[test]
    fn a_range_belongs_to_the_caller_by_name_or_number_and_is_not_empty() {
        assert!(has_range("other:1:1\nme:100000:65536\n", 1000, Some("me")));
        assert!(has_range("1000:100000:65536\n", 1000, None));
        assert!(!has_range("me:100000:0\nother:100000:65536\n", 1000, Some("me")));
        assert!(!has_range("", 1000, Some("me")));
    }
}
