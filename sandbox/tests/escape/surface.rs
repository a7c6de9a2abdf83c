//! What a payload can observe, what each system call answers, and hosts that can give less.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::{Command, Stdio};

use kiln_sandbox::probe::{Caller, Host, ProcMount, TimeNamespace};
use kiln_sandbox::{Filter, Ids, PlanError, ProcMode, Root, Spec, plan, probe};

use crate::ground::{SURFACE, is_root, not_here, outside, start_another};
use crate::harness::{Bench, bench_of};

/// What two runs may see differently, by the start of the line, and why no one can help it.
const DIFFERS: &[&str] = &[
    // 16 random bytes that the kernel hands to each program.
    "random",
    // The paths on the host of what is mounted, mount ids, the slot in the options of tmpfs.
    "/proc/self/mountinfo",
    "/proc/mounts",
    // Of file systems that are new, or of the host's.
    "inode ",
    "device ",
    // Whose map it is.
    "/proc/self/uid_map",
    "/proc/self/gid_map",
    // Two clocks that count on.
    "/proc/uptime",
    "/proc/self/timens_offsets",
    // Counters of the machine, which Compat does not mask.
    "/proc/vmstat",
    "/proc/zoneinfo",
    "/proc/buddyinfo",
    "/proc/diskstats",
    "/proc/locks",
    "/proc/swaps",
    "/proc/meminfo",
    "/proc/stat",
    // The caller's, if it has one.
    "/proc/self/loginuid",
    "/proc/self/sessionid",
    "/proc/self/cgroup",
];

fn lines(log: &str) -> BTreeSet<&str> {
    log.lines().filter(|line| line.contains(':')).collect()
}

fn unexplained<'a>(one: &'a str, other: &'a str) -> Vec<&'a str> {
    let (one, other) = (lines(one), lines(other));
    let differ = one.symmetric_difference(&other).copied();
    differ.filter(|line| !DIFFERS.iter().any(|start| line.starts_with(start))).collect()
}

#[test]
fn e37_two_runs_from_elsewhere_under_another_name_zone_and_environment_see_the_same() {
    let Some(bench) = bench_of(SURFACE) else { return };
    let here = bench.run(&bench.spec("tell", &[])).log;
    let wrapper = ["env", "TZ=Pacific/Kiritimati", "LC_ALL=C.UTF-8", "LANG=et_EE", "HOME=/elsewhere", "USER=nobody"];
    let mut wrapper: Vec<&str> = wrapper.into_iter().chain(["setarch", "--addr-no-randomize"]).collect();
    if is_root() {
        wrapper.extend(["unshare", "--uts", "sh", "-c"]);
        wrapper.extend(["hostname elsewhere; umask 077; ulimit -n 5000; cd /; exec \"$@\"", "sh"]);
    } else {
        wrapper.extend(["sh", "-c", "umask 077; cd /; exec \"$@\"", "sh"]);
        not_here("E37 host name", "an ordinary user cannot give this machine another name for a while");
    }
    let output = start_another(&wrapper, "surface log tell").wait_with_output().unwrap();
    let there = String::from_utf8_lossy(&output.stdout).into_owned();
    let there: String = there
        .lines()
        .filter(|line| !line.starts_with("ended") && !line.starts_with("test ") && !line.starts_with("running"))
        .map(|line| format!("{line}\n"))
        .collect();
    assert!(lines(&here).len() > 100, "{here}");
    assert_eq!(unexplained(&here, &there), [""; 0]);
    // The control: outside, the same program sees the difference.
    let plain = outside(&bench, &["tell"]);
    assert!(unexplained(&here, &String::from_utf8_lossy(&plain.stdout)).len() > 20);
}

/// The golden table: number, answer under the build's filter, answer under the fake root's.
const GOLDEN: &str = include_str!("calls");

fn calls(bench: &Bench, filter: Filter) -> BTreeMap<u32, String> {
    let spec = match filter {
        Filter::Build => bench.spec("calls", &[]),
        Filter::FakeRoot => {
            let mut spec = bench.tree_spec("calls", &[], Root::WritableTree);
            spec.filter = filter;
            spec.ids = Ids::FakeRoot;
            spec
        }
    };
    let run = bench.run(&spec);
    run.log.lines().map(|line| line.split_once(' ').unwrap()).map(|(n, a)| (n.parse().unwrap(), a.into())).collect()
}

#[test]
fn e38_every_system_call_answers_bad_arguments_as_the_golden_table_says() {
    let Some(bench) = bench_of(SURFACE) else { return };
    let (build, fake) = (calls(&bench, Filter::Build), calls(&bench, Filter::FakeRoot));
    assert_eq!((build.len(), fake.len()), (601, 601));
    let seen: String = build.iter().map(|(call, answer)| format!("{call}\t{answer}\t{}\n", fake[call])).collect();
    let table: Vec<&str> = GOLDEN.lines().filter(|line| !line.starts_with('#')).collect();
    let differ: Vec<String> = seen
        .lines()
        .zip(&table)
        .filter(|(seen, golden)| {
            // A kernel may lack a call that the table allows; one that the filter answers, it answers everywhere.
            let lacks = |(seen, golden): (&str, &str)| {
                golden.split('|').any(|golden| seen == golden || (seen == "ENOSYS" && golden != "EPERM"))
            };
            !seen.split('\t').zip(golden.split('\t')).all(lacks)
        })
        .map(|(seen, golden)| format!("seen {seen:?}, golden {golden:?}"))
        .collect();
    if let Some(path) = std::env::var_os("KILN_TEST_CALLS") {
        fs::write(path, &seen).unwrap();
    }
    assert_eq!(table.len(), 601);
    assert!(differ.is_empty(), "{}", differ.join("\n"));
}

/// A host on which everything is possible.
fn able() -> Host {
    Host { caller: Caller::User, lacks: Vec::new(), proc: ProcMount::Possible, ..probe() }
}

#[test]
fn e39_a_host_that_can_give_less_is_refused_with_what_is_missing_and_never_given_less() {
    let Some(bench) = bench_of(SURFACE) else { return };
    assert!(plan(&Spec::new("/probe"), &able()).is_ok());
    // A container that covers parts of /proc, as Docker does.
    let covered = Host { proc: ProcMount::Covered("/proc/kcore".into()), ..able() };
    let PlanError::Host(refusal) = plan(&Spec::new("/probe"), &covered).unwrap_err() else { panic!("not the spec") };
    assert!(format!("{refusal}").contains("/proc/kcore"), "{refusal}");
    assert!(!refusal.remedy.is_empty());
    // Without /proc it can be had, if that is what is asked for.
    let mut spec = Spec::new("/probe");
    spec.proc_mode = ProcMode::None;
    assert!(plan(&spec, &covered).is_ok());
    let timeless = Host { time_namespace: TimeNamespace::Absent, ..able() };
    assert!(plan(&Spec::new("/probe"), &timeless).is_err());
    let mut spec = Spec::new("/probe");
    spec.time_offsets = None;
    assert!(plan(&spec, &timeless).is_ok());
    if fs::metadata("/proc/sys/kernel/apparmor_restrict_unprivileged_userns").is_err() {
        not_here("E39 apparmor", "no such switch in this kernel");
    }
    not_here("E39 docker", "no daemon");
    drop(bench);
}

/// Whether a namespace can be made in which the rest of these tests play host.
pub(crate) fn user_namespaces_work() -> bool {
    let status = Command::new("unshare").args(["-Urmpf", "--mount-proc", "true"]).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

fn told_in(script: &str, spec: &str) -> String {
    let script = format!("{script}; exec \"$@\"");
    let wrapper = ["unshare", "-Urmpf", "--mount-proc", "sh", "-e", "-c", &script, "sh"];
    let output = start_another(&wrapper, spec).wait_with_output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn e39_in_a_container_or_with_namespaces_switched_off_the_diagnosis_names_the_switch() {
    if bench_of(SURFACE).is_none() {
        return;
    }
    if !user_namespaces_work() {
        not_here("E39 container", "no user namespace to play container in");
        return;
    }
    let plain = told_in("true", "none plan x");
    assert!(plain.contains("planned"), "the control: {plain}");
    let off = told_in("echo 0 >/proc/sys/user/max_user_namespaces", "none plan x");
    assert!(off.contains("refused") && off.contains("user.max_user_namespaces"), "{off}");
    let masked = told_in("mount --bind /dev/null /proc/interrupts", "none plan x");
    assert!(masked.contains("refused") && masked.contains("/proc/interrupts"), "{masked}");
    // And if the switch is thrown after it was looked at, nothing runs.
    let late = told_in("unshare -U true; echo 1 >/proc/sys/user/max_user_namespaces", "none plan x");
    assert!(late.contains("planned"), "{late}");
}
