//! Whether a spec's limits mean something and this host can hold them.
//!
//! Pure. A limit that cannot be held is refused with what is missing; none is left out, and 0 is no limit at all but an
//! error: some kernel interfaces read it as "unbounded".

use crate::control_group::ControlGroups;
use crate::error::Refusal;
use crate::probe::Host;
use crate::spec::Spec;

/// More inputs than this are refused: each is a mount, and the kernel allows 100 000 in a namespace, the caller's own
/// included (`fs.mount-max`).
pub const MOST_INPUTS: usize = 10_000;

/// Below this not even pid 1 and an `execve` fit.
const LEAST_MEMORY: u64 = 1 << 20;

/// Refuses limits that are none, that exceed the host, or that nothing here can hold.
pub(crate) fn check(spec: &Spec, host: &Host) -> Result<(), Refusal> {
    let limits = &spec.limits;
    let counts = [
        ("cpu", limits.cpu),
        ("cpu_total", limits.cpu_total),
        ("address_space", limits.address_space),
        ("processes", limits.processes),
        ("open_files", limits.open_files),
        ("file_size", limits.file_size),
        ("log_bytes", limits.log_bytes),
        ("memory_total", limits.memory_total),
        ("disk_bytes", limits.disk_bytes),
        ("disk_inodes", limits.disk_inodes),
        ("wall", limits.wall.map(|wall| u64::try_from(wall.as_nanos()).unwrap_or(u64::MAX))),
    ];
    for (name, value) in counts {
        if value == Some(0) {
            return Err(Refusal {
                missing: "a limit that something can run within".into(),
                why: format!("limits.{name} is 0"),
                remedy: "give it at least 1, or leave it out for no bound".into(),
            });
        }
    }
    for tmpfs in &spec.tmpfs {
        if tmpfs.size == 0 || tmpfs.inodes == 0 {
            return Err(Refusal {
                missing: "a size that a file system in memory can have".into(),
                why: format!("0 bytes or inodes at {} would mean no bound at all", tmpfs.target.display()),
                remedy: "give it at least 1 of each, or leave the file system out".into(),
            });
        }
    }
    if spec.inputs.len() > MOST_INPUTS {
        return Err(Refusal {
            missing: "room for every input".into(),
            why: format!(
                "{} inputs are more than the {MOST_INPUTS} mounts that one sandbox may have",
                spec.inputs.len()
            ),
            remedy: "mount the directory that holds them as one input".into(),
        });
    }
    if let Some(bytes) = limits.memory_total
        && bytes < LEAST_MEMORY
    {
        return Err(Refusal {
            missing: "a limit that something can run within".into(),
            why: format!("limits.memory_total is {bytes} bytes, and no program starts in less than {LEAST_MEMORY}"),
            remedy: "give it more, or leave it out for no bound".into(),
        });
    }
    for (name, what, value, instead) in [
        ("memory_total", "total memory", limits.memory_total, "address_space"),
        ("cpu_total", "total CPU time", limits.cpu_total, "cpu"),
    ] {
        if let (Some(_), ControlGroups::Absent { why, remedy }) = (value, &host.control_groups) {
            return Err(Refusal {
                missing: format!("a bound on {what}"),
                why: format!("limits.{name} needs a control group, and {why}"),
                remedy: format!("{remedy}; or leave {name} out and bound each process with {instead}"),
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{Input, Tmpfs};
    use crate::{plan, probe};
    use std::time::Duration;

    #[track_caller]
    fn refused(change: impl FnOnce(&mut Spec), words: &str) {
        let mut spec = Spec::new("/program");
        change(&mut spec);
        let mut host = probe();
        host.lacks.clear();
        host.control_groups = ControlGroups::Absent { why: "no groups".into(), remedy: "be root".into() };
        let refusal = plan(&spec, &host).expect_err("it must be refused");
        assert!(refusal.to_string().contains(words), "{refusal}");
        assert!(!refusal.remedy.is_empty());
    }

    #[test]
    fn a_limit_of_0_is_refused_by_name() {
        refused(|spec| spec.limits.wall = Some(Duration::ZERO), "limits.wall is 0");
        refused(|spec| spec.limits.cpu = Some(0), "limits.cpu is 0");
        refused(|spec| spec.limits.cpu_total = Some(0), "limits.cpu_total is 0");
        refused(|spec| spec.limits.address_space = Some(0), "limits.address_space is 0");
        refused(|spec| spec.limits.processes = Some(0), "limits.processes is 0");
        refused(|spec| spec.limits.open_files = Some(0), "limits.open_files is 0");
        refused(|spec| spec.limits.file_size = Some(0), "limits.file_size is 0");
        refused(|spec| spec.limits.log_bytes = Some(0), "limits.log_bytes is 0");
        refused(|spec| spec.limits.memory_total = Some(0), "limits.memory_total is 0");
        refused(|spec| spec.limits.disk_bytes = Some(0), "limits.disk_bytes is 0");
        refused(|spec| spec.limits.disk_inodes = Some(0), "limits.disk_inodes is 0");
        refused(|spec| spec.tmpfs = vec![Tmpfs { size: 0, ..Tmpfs::scratch("/tmp") }], "no bound at all");
        refused(|spec| spec.tmpfs = vec![Tmpfs { inodes: 0, ..Tmpfs::scratch("/tmp") }], "no bound at all");
    }

    #[test]
    fn what_only_a_control_group_can_hold_is_refused_without_one_and_the_remedy_is_named() {
        refused(|spec| spec.limits.memory_total = Some(1 << 30), "a bound on total memory is missing");
        refused(|spec| spec.limits.memory_total = Some(1 << 30), "no groups");
        refused(|spec| spec.limits.cpu_total = Some(60), "be root; or leave cpu_total out");
        refused(|spec| spec.limits.memory_total = Some(4096), "no program starts in less");
    }

    #[test]
    fn more_inputs_than_mounts_are_refused() {
        let input = |number: usize| Input { source: "/".into(), target: format!("/n{number}").into() };
        refused(|spec| spec.inputs = (0..=MOST_INPUTS).map(input).collect(), "10001 inputs");
    }
}
