//! Hosts that are made up, since nobody has them all.

use rustix::io::Errno;

use super::*;
use crate::error::Refusal;
use crate::probe::Caller;

fn worked() -> Attempt {
    Attempt::Worked { landlock_abi: 7, rung: 2 }
}

fn failed(step: &str, errno: Errno) -> Attempt {
    let told = format!("sandbox step `{step}` failed: {errno}");
    Attempt::Failed { step: step.into(), errno: Some(errno.raw_os_error()), told }
}

/// Where everything works.
fn whole() -> Facts {
    let set = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect();
    Facts {
        caller: Caller::User,
        kernel: "6.18.44-cloud".into(),
        lacks: Vec::new(),
        settings: [("user.max_user_namespaces".to_owned(), "63000".to_owned())].into(),
        namespaces: set(&["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"]),
        covered_proc: None,
        filter_actions: Some("kill_process errno user_notif allow".into()),
        security_modules: Some("landlock,capability".into()),
        file_systems: set(&["ext4", "overlay"]),
        container: None,
        systemd: facts::Systemd::Runs,
        control_groups: ControlGroups::Unified,
        id_helpers: IdHelpers { newuidmap: true, newgidmap: true, range: true },
        executable: "/usr/bin/kiln".into(),
        slot: Ok(()),
        attempts: same(worked()),
    }
}

fn same(attempt: Attempt) -> Attempts {
    let copy = || attempt.clone();
    Attempts {
        build: copy(),
        strict: copy(),
        bare: copy(),
        clocks: copy(),
        fake_root: copy(),
        memory: copy(),
        range: copy(),
    }
}

#[track_caller]
fn finding(facts: &Facts, feature: &str) -> Finding {
    judge(facts).into_iter().find(|finding| finding.feature == feature).expect("a feature of the table")
}

/// The feature is missing, builds are refused, and this command helps.
#[track_caller]
fn forbids(facts: &Facts, feature: &str, command: &str) -> Finding {
    let finding = finding(facts, feature);
    assert!(finding.forbids(), "{finding:#?}");
    let commands: Vec<_> = finding.remedies.iter().filter_map(|remedy| remedy.command.as_deref()).collect();
    assert!(commands.iter().any(|found| found.contains(command)), "{command} is not in {commands:#?}");
    finding
}

#[test]
fn where_everything_works_nothing_is_missing_and_nothing_costs() {
    for finding in judge(&whole()) {
        assert_eq!((finding.state, finding.cost.as_str()), (State::Ok, ""), "{finding:#?}");
        assert!(finding.remedies.is_empty() && !finding.found.is_empty() && !finding.purpose.is_empty());
    }
}

#[test]
fn whatever_is_not_ok_says_what_that_costs_and_what_to_do() {
    let mut none = whole();
    none.kernel = "4.19.0".into();
    none.attempts = same(failed("clone user mnt", Errno::NOSYS));
    (none.filter_actions, none.namespaces, none.slot) = (None, Default::default(), Err("no ids".into()));
    (none.file_systems, none.control_groups) = (Default::default(), ControlGroups::None);
    none.id_helpers = IdHelpers { newuidmap: false, newgidmap: false, range: false };
    for finding in judge(&none).into_iter().filter(|finding| finding.state != State::Ok) {
        assert!(!finding.cost.is_empty() && !finding.found.is_empty(), "{finding:#?}");
        assert!(!finding.remedies.is_empty(), "{finding:#?}");
    }
    assert!(finding(&none, "sandbox").forbids() && finding(&none, "kernel").forbids());
}

#[test]
fn a_feature_has_one_name_and_the_whole_sandbox_comes_last() {
    let names: Vec<_> = judge(&whole()).iter().map(|finding| finding.feature).collect();
    let unique: std::collections::BTreeSet<_> = names.iter().collect();
    assert_eq!(unique.len(), names.len());
    assert_eq!(names.last(), Some(&"sandbox"));
    assert!(names.iter().all(|name| name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-')));
}

#[test]
fn apparmor_of_ubuntu_is_named_and_can_be_lifted_for_kiln_alone() {
    let mut ubuntu = whole();
    ubuntu.settings.insert("kernel.apparmor_restrict_unprivileged_userns".into(), "1".into());
    // The namespace is made, but nothing may be done in it.
    ubuntu.attempts = same(failed("loopback up", Errno::PERM));
    let command = "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0";
    let finding = forbids(&ubuntu, "user-namespaces", command);
    assert!(
        finding
            .remedies
            .iter()
            .any(|r| r.command.as_ref().is_some_and(|c| c.contains("profile kiln \"/usr/bin/kiln\"")))
    );
    // Root is not restricted: something else it is.
    ubuntu.caller = Caller::Root;
    assert!(!namespaces::user(&ubuntu).found.contains("AppArmor"));
    // And with a profile all works in spite of the setting.
    ubuntu.attempts = same(worked());
    assert_eq!(namespaces::user(&ubuntu).state, State::Ok);
}

#[test]
fn switched_off_user_namespaces_are_told_with_the_sysctl_that_brings_them_back() {
    let mut host = whole();
    host.attempts = same(failed("clone user mnt", Errno::NOSPC));
    host.settings.insert("user.max_user_namespaces".into(), "0".into());
    forbids(&host, "user-namespaces", "sysctl -w user.max_user_namespaces=10000");
    host.settings.insert("user.max_user_namespaces".into(), "63000".into());
    host.settings.insert("kernel.unprivileged_userns_clone".into(), "0".into());
    forbids(&host, "user-namespaces", "sysctl -w kernel.unprivileged_userns_clone=1");
    host.caller = Caller::Root;
    assert!(!finding(&host, "user-namespaces").found.contains("unprivileged"), "that one does not concern root");
}

#[test]
fn a_masked_proc_costs_builds_and_the_outer_container_can_unmask_it() {
    let mut nested = whole();
    nested.covered_proc = Some("/proc/kcore".into());
    nested.attempts = Attempts { bare: worked(), ..same(failed("proc full", Errno::PERM)) };
    let proc = forbids(&nested, "proc", "unmask=ALL");
    assert!(proc.found.contains("/proc/kcore") && proc.cost.contains("--proc none"));
    for feature in ["user-namespaces", "mount-api", "seccomp", "process-calls", "landlock"] {
        assert_eq!(finding(&nested, feature).state, State::Ok, "{feature} was shown by the one without /proc");
    }
}

#[test]
fn an_outer_container_that_hides_calls_is_told_apart_from_an_old_kernel() {
    let mut docker = whole();
    docker.container = Some("a docker container".into());
    docker.attempts = same(failed("clone user mnt", Errno::NOSYS));
    forbids(&docker, "process-calls", "docker run --security-opt seccomp=unconfined");
    docker.attempts = same(failed("clone user mnt", Errno::PERM));
    assert!(forbids(&docker, "user-namespaces", "docker run").found.contains("docker"));
    let mut old = whole();
    (old.kernel, old.attempts) = ("4.18.0".into(), same(failed("clone user mnt", Errno::NOSYS)));
    assert!(finding(&old, "kernel").forbids());
    assert!(!finding(&old, "process-calls").remedies.iter().any(|remedy| remedy.what.contains("container")));
}

#[test]
fn landlock_is_a_second_layer_whose_lack_costs_no_build() {
    for (abi, state) in [(0, State::Missing), (3, State::Degraded), (6, State::Ok), (9, State::Ok)] {
        let host = Facts { attempts: same(Attempt::Worked { landlock_abi: abi, rung: 0 }), ..whole() };
        let finding = finding(&host, "landlock");
        assert_eq!(finding.state, state, "ABI {abi}");
        assert!(!finding.forbids());
    }
}

#[test]
fn without_a_delegated_control_group_the_command_that_gets_one_is_told() {
    let refused = Refusal { missing: "a group".into(), why: "none".into(), remedy: "get one".into() };
    let mut host = whole();
    host.attempts.memory = Attempt::Refused(refused);
    let command = |host: &Facts| {
        let finding = finding(host, "control-groups");
        assert_eq!((finding.state, finding.need), (State::Degraded, Need::Optional));
        finding.remedies[0].command.clone().unwrap_or_default()
    };
    assert_eq!(command(&host), "systemd-run --user --scope -p Delegate=yes kiln build RECIPE");
    host.control_groups = ControlGroups::Hybrid;
    assert!(command(&host).contains("systemd.unified_cgroup_hierarchy=1"));
    host.control_groups = ControlGroups::None;
    assert!(command(&host).contains("mount -t cgroup2"));
}

#[test]
fn no_range_of_ids_and_no_time_namespace_cost_builds_nothing() {
    let mut host = whole();
    host.id_helpers = IdHelpers { newuidmap: false, newgidmap: true, range: false };
    host.attempts.range =
        Attempt::Refused(Refusal { missing: "newuidmap".into(), why: "not there".into(), remedy: "get it".into() });
    host.attempts.clocks = failed("clocks 86400", Errno::INVAL);
    host.namespaces.remove("time");
    for feature in ["uid-range", "time-namespaces"] {
        let finding = finding(&host, feature);
        assert!(finding.state == State::Missing && !finding.forbids(), "{finding:#?}");
    }
    assert_eq!(finding(&host, "uid-range").remedies.len(), 2, "a program and a range");
    host.attempts.range = failed("become 0:0", Errno::PERM);
    assert!(finding(&host, "uid-range").remedies[0].what.contains("setuid"));
    (host.caller, host.attempts.range) = (Caller::Root, worked());
    assert_eq!(finding(&host, "uid-range").state, State::Ok);
}

#[test]
fn root_without_ids_to_give_away_is_refused() {
    let host = Facts { caller: Caller::Root, slot: Err("no user ids are mapped here".into()), ..whole() };
    assert!(finding(&host, "identity").forbids());
}

#[test]
fn what_the_probe_refuses_is_the_sandbox_s_finding_even_if_an_attempt_worked() {
    let lack = Refusal { missing: "seccomp".into(), why: "not there".into(), remedy: "boot another kernel".into() };
    let host = Facts { lacks: vec![lack], ..whole() };
    let finding = finding(&host, "sandbox");
    assert!(finding.forbids() && finding.remedies[0].what == "boot another kernel");
}

#[test]
fn this_host_is_examined_without_leaving_anything() {
    let directory = tempfile::TempDir::new().expect("a directory");
    let facts = examine(directory.path(), &directory.path().join("slots"));
    let left: Vec<_> = std::fs::read_dir(directory.path()).expect("there").flatten().map(|e| e.file_name()).collect();
    assert!(left.is_empty() || left == ["slots"], "{left:?}");
    // Files and attempts may not contradict each other.
    let runs = matches!(facts.attempts.build, Attempt::Worked { .. });
    assert_eq!(
        runs && facts.lacks.is_empty(),
        !judge(&facts).iter().any(|finding| finding.feature == "sandbox" && finding.forbids())
    );
    assert!(facts.namespaces.contains("mnt") && !facts.kernel.is_empty());
}
