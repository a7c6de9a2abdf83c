//! Which rung of the limits ladder this host offers: control groups of version 2, of version 1, or none.
//!
//! Reads a few files, changes nothing. A bound on what *all* processes of a sandbox use together needs a control
//! group; everything else is held by rlimits and sized file systems, on every rung alike.
//!
//! # Limits
//! Version 1's groups are made at the top of each hierarchy, where the next start finds what a killed kiln left: a
//! bound that the host puts on kiln's own group does not cover them.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::Access;

use crate::probe::kernel_file;

/// The name of the group into which kiln moves itself, since a group of version 2 holds processes or other groups.
pub(crate) const OWN_LEAF: &str = "kiln-itself";

/// Rung of the ladder, and where kiln's groups are made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ControlGroups {
    /// Rung 2: below a group of version 2 that was delegated to the caller.
    Unified {
        /// Its directory.
        parent: PathBuf,
    },
    /// Rung 1: root, and hierarchies of version 1.
    Legacy {
        /// Top of the memory controller's.
        memory: PathBuf,
        /// Of the one that counts processes.
        pids: PathBuf,
        /// Of the one that counts CPU time.
        cpuacct: PathBuf,
    },
    /// Rung 0: rlimits and sized file systems only.
    Absent {
        /// Why there is nothing more.
        why: String,
        /// What the user can do.
        remedy: String,
    },
}

impl ControlGroups {
    /// Its number.
    pub fn rung(&self) -> u8 {
        match self {
            Self::Unified { .. } => 2,
            Self::Legacy { .. } => 1,
            Self::Absent { .. } => 0,
        }
    }

    /// Whether memory and CPU time of all processes together can be bounded.
    pub fn bound_totals(&self) -> bool {
        self.rung() > 0
    }
}

const DELEGATE: &str =
    "start kiln in a delegated group (`systemd-run --user --scope -p Delegate=yes kiln …`), or as root";

/// Looks at this host.
pub(crate) fn find() -> ControlGroups {
    let read = |path: &str| kernel_file(path).unwrap_or_default();
    let (own, mounts) = (read("/proc/self/cgroup"), read("/proc/self/mountinfo"));
    let not_unified = match unified(&own, &mounts) {
        Ok(parent) => return ControlGroups::Unified { parent },
        Err(why) => why,
    };
    if !rustix::process::geteuid().is_root() {
        return ControlGroups::Absent { why: not_unified, remedy: DELEGATE.into() };
    }
    let hierarchy = |controller| legacy(&mounts, controller).filter(|top| may_change(top));
    match (hierarchy("memory"), hierarchy("pids"), hierarchy("cpuacct")) {
        (Some(memory), Some(pids), Some(cpuacct)) => ControlGroups::Legacy { memory, pids, cpuacct },
        _ => ControlGroups::Absent {
            why: format!("{not_unified}, and there are no hierarchies of version 1 for memory, pids and cpuacct"),
            remedy: DELEGATE.into(),
        },
    }
}

/// The group of version 2 below which kiln may make its own, or why there is none.
fn unified(own: &str, mounts: &str) -> Result<PathBuf, String> {
    let directory = own_unified(own, mounts).ok_or("no control groups of version 2 are mounted")?;
    let shown = directory.display().to_string();
    let words = |file: &str| kernel_file(directory.join(file)).unwrap_or_default();
    let has = |file: &str, word: &str| words(file).split_whitespace().any(|found| found == word);
    for controller in ["memory", "pids"] {
        if !has("cgroup.controllers", controller) {
            return Err(format!("{shown} does not have the {controller} controller of version 2"));
        }
    }
    if !may_change(&directory) || !may_change(&directory.join("cgroup.subtree_control")) {
        return Err(format!("{shown} is not delegated to this user"));
    }
    let enabled = ["memory", "pids"].iter().all(|controller| has("cgroup.subtree_control", controller));
    let others = words("cgroup.procs").lines().filter(|pid| pid.parse() != Ok(std::process::id())).count();
    // The top of the hierarchy has no such file as cgroup.type, and may hold both processes and groups.
    if !enabled && others > 0 && directory.join("cgroup.type").exists() {
        return Err(format!("{shown} holds {others} other processes, so its controllers cannot be enabled"));
    }
    Ok(directory)
}

/// The directory of the group of version 2 that the caller is in, or of the one that kiln moved itself out of.
fn own_unified(own: &str, mounts: &str) -> Option<PathBuf> {
    let path = own.lines().find_map(|line| line.strip_prefix("0::"))?;
    let (root, point) = mounts.lines().find_map(|line| {
        let (mount, kind) = mount(line)?;
        (kind == "cgroup2").then_some(mount)
    })?;
    let below = Path::new(path).strip_prefix(root).ok()?;
    let directory = Path::new(point).join(below);
    match directory.file_name() {
        Some(name) if name.as_bytes() == OWN_LEAF.as_bytes() => directory.parent().map(Path::to_owned),
        _ => Some(directory),
    }
}

/// The top of a hierarchy of version 1.
fn legacy(mounts: &str, controller: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let ((_, point), kind) = mount(line)?;
        let options = line.rsplit(' ').next()?;
        (kind == "cgroup" && options.split(',').any(|option| option == controller)).then(|| PathBuf::from(point))
    })
}

/// Root, mount point and file system of one line: proc_pid_mountinfo(5).
fn mount(line: &str) -> Option<((&str, &str), &str)> {
    let (before, after) = line.split_once(" - ")?;
    let mut fields = before.split(' ').skip(3);
    Some(((fields.next()?, fields.next()?), after.split(' ').next()?))
}

fn may_change(path: &Path) -> bool {
    rustix::fs::access(path, Access::WRITE_OK).is_ok()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const HYBRID: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
34 31 0:30 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:3 - cgroup2 cgroup2 rw
";

    #[test]
    fn hierarchies_of_version_1_are_found_by_controller_also_where_two_share_one() {
        assert_eq!(legacy(HYBRID, "memory"), Some("/sys/fs/cgroup/memory".into()));
        assert_eq!(legacy(HYBRID, "cpuacct"), Some("/sys/fs/cgroup/cpu,cpuacct".into()));
        assert_eq!(legacy(HYBRID, "pids"), None);
    }

    #[test]
    fn the_own_group_of_version_2_is_found_below_its_mount_and_kiln_s_leaf_is_left_again() {
        let own = "3:cpu:/\n0::/user.slice/run-1.scope\n";
        let found = own_unified(own, HYBRID).expect("mounted");
        assert_eq!(found, Path::new("/sys/fs/cgroup/unified/user.slice/run-1.scope"));
        let leaf = own_unified("0::/user.slice/run-1.scope/kiln-itself\n", HYBRID);
        assert_eq!(leaf, Some(found));
        // A container sees a part of the hierarchy only.
        let part = "41 31 0:38 /docker/1 /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        assert_eq!(own_unified("0::/docker/1/x\n", part), Some("/sys/fs/cgroup/x".into()));
        assert_eq!(own_unified("0::/elsewhere\n", part), None);
        assert_eq!(own_unified("3:cpu:/\n", HYBRID), None);
    }

    #[test]
    fn a_group_without_controllers_is_no_rung() {
        let directory = tempfile::TempDir::new().expect("a directory");
        let mounts = format!("41 31 0:38 / {} rw - cgroup2 cgroup2 rw\n", directory.path().display());
        let why = unified("0::/\n", &mounts).expect_err("nothing is there");
        assert!(why.contains("does not have the memory controller"), "{why}");
        for (file, text) in
            [("cgroup.controllers", "cpu memory pids"), ("cgroup.subtree_control", ""), ("cgroup.procs", "1\n")]
        {
            fs::write(directory.path().join(file), text).expect("written");
        }
        assert_eq!(unified("0::/\n", &mounts), Ok(directory.path().to_owned()));
        fs::write(directory.path().join("cgroup.type"), "domain").expect("written");
        let why = unified("0::/\n", &mounts).expect_err("another process is in it");
        assert!(why.contains("1 other processes"), "{why}");
        fs::write(directory.path().join("cgroup.subtree_control"), "memory pids").expect("written");
        assert_eq!(unified("0::/\n", &mounts), Ok(directory.path().to_owned()));
    }
}
