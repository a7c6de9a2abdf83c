//! Many users in one sandbox: really distinct outside, never the host's root, and nothing of them stays behind.
//!
//! Runs as root, and as an ordinary user who has newuidmap and a range in /etc/subuid and /etc/subgid; a user without is told
//! so and the tests are counted, or fail where `MUST_ISOLATE` is set.
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use crate::harness::{Bench, Program, Run, bench_of, owner};
use crate::here;
use kiln_sandbox::{ControlGroups, Filter, How, Ids, SetupError, Slot, SlotError, Spec, plan, probe};

const RANGE: Program = Program { name: "range", source: include_str!("range.c") };

/// A bench whose slot has a range, or `None` with the reason printed.
fn bench() -> Option<Bench> {
    let mut bench = bench_of(RANGE)?;
    let slots = std::env::temp_dir().join(format!("kiln-slots-{}", rustix::process::geteuid().as_raw()));
    match Slot::lease_range(&slots) {
        Ok(slot) => {
            bench.slot = slot;
            bench.slot.adopt_tree(&bench.path("store")).unwrap();
            bench.slot.adopt_tree(&bench.path("build")).unwrap();
            Some(bench)
        }
        Err(SlotError::Range(refusal)) => {
            here::not_here("range of ids", &refusal.to_string());
            None
        }
        Err(error) => panic!("{error}"),
    }
}

fn spec(bench: &Bench, command: &str, arguments: &[&str]) -> Spec {
    let mut spec = bench.spec(command, arguments);
    spec.ids = Ids::Range;
    spec
}

/// Every attempt was made and ended as it must.
#[track_caller]
fn held(run: &Run, attempts: u32) {
    assert_eq!(run.ended.how, How::Exited(0), "\n{}", run.log);
    let made = run.log.lines().rev().find_map(|line| line.strip_prefix("attempts ")?.parse::<u32>().ok());
    assert!(made.is_some_and(|made| made >= attempts), "{made:?} attempts\n{}", run.log);
}

/// What was closed by its mode is opened again, so that the bench can be removed.
fn open_again(bench: &Bench) {
    for user in ["33", "1000"] {
        let closed = bench.path(&format!("build/shared/closed-{user}"));
        fs::set_permissions(closed, fs::Permissions::from_mode(0o700)).unwrap();
    }
}

/// Every user of the host that owns something there.
fn owners(directory: &Path) -> BTreeSet<(u32, u32)> {
    let mut found = BTreeSet::new();
    let mut left = vec![directory.to_owned()];
    while let Some(path) = left.pop() {
        let file = fs::symlink_metadata(&path).unwrap();
        found.insert((file.uid(), file.gid()));
        if file.is_dir()
            && let Ok(entries) = fs::read_dir(&path)
        {
            left.extend(entries.map(|entry| entry.unwrap().path()));
        }
    }
    found
}

#[test]
fn users_inside_own_their_files_really_and_can_do_nothing_to_each_other_s() {
    let Some(bench) = bench() else { return };
    held(&bench.run(&spec(&bench, "users", &[])), 5);
    let outer = |name: &str| owner(&bench.path("build").join(name));
    assert_eq!(outer("secret"), bench.slot.uid(), "0 is the slot's own id");
    let (first, second) = (outer("shared/of-33"), outer("shared/of-1000"));
    assert_eq!(second - first, 967);
    assert_eq!(outer("given") - first, 65_534 - 33);
    assert!(bench.slot.has_in_range(first) && bench.slot.has_in_range(second));
    assert!(
        owners(&bench.path("build")).iter().all(|(uid, gid)| *uid != 0 && *gid != 0),
        "nothing is the host's root's"
    );
    bench.slot.reclaim_tree(&bench.path("build")).unwrap();
    open_again(&bench);
}

#[test]
fn what_users_of_a_range_left_is_the_caller_s_afterwards_and_can_be_removed() {
    let Some(bench) = bench() else { return };
    let canary = (owner(&bench.path("input/file")), fs::metadata(bench.path("input/file")).unwrap().gid());
    held(&bench.run(&spec(&bench, "users", &[])), 5);
    assert!(owners(&bench.path("build")).len() > 2);
    bench.slot.reclaim_tree(&bench.path("build")).unwrap();
    let caller = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    assert_eq!(owners(&bench.path("build")), [caller].into());
    open_again(&bench);
    assert_eq!(owners(&bench.path("build/shared/closed-33")), [caller].into(), "also in what its owner had closed");
    fs::remove_dir_all(bench.path("build")).unwrap();
    let file = fs::metadata(bench.path("input/file")).unwrap();
    assert_eq!((file.uid(), file.gid()), canary, "the link to it was not followed");
}

#[test]
fn root_inside_has_rights_over_its_users_and_none_over_the_host() {
    let Some(bench) = bench() else { return };
    let run = bench.run(&spec(&bench, "rights", &[]));
    held(&run, 20);
    assert!(run.ended.achieved.kuid_nonzero);
    let lines: Vec<&str> = run.log.lines().collect();
    let maps: Vec<Vec<u32>> = lines
        .iter()
        .filter_map(|line| {
            let line = line.strip_prefix("map ").or_else(|| line.strip_prefix("groups ")).unwrap_or(line);
            let numbers: Option<Vec<u32>> = line.split_whitespace().map(|number| number.parse().ok()).collect();
            numbers.filter(|numbers| numbers.len() == 3)
        })
        .collect();
    assert!(maps.len() >= 2, "{}", run.log);
    for map in &maps {
        assert_ne!(map[1], 0, "the host's root is mapped: {}", run.log);
    }
    assert_eq!(maps.iter().map(|map| u64::from(map[2])).sum::<u64>(), 2 * 65_536);
    bench.slot.reclaim_tree(&bench.path("build")).unwrap();
}

#[test]
fn a_deadline_is_told_to_the_processes_of_all_users_and_ends_them() {
    let Some(bench) = bench() else { return };
    let mut spec = spec(&bench, "several", &[]);
    spec.limits.wall = Some(Duration::from_millis(1500));
    spec.limits.grace = Duration::from_millis(500);
    let run = bench.run(&spec);
    assert_eq!(run.ended.how, How::TimedOut, "{}", run.log);
    assert!(run.log.contains("told 5") && run.log.contains("told 6"), "{}", run.log);
}

#[test]
fn processes_are_bounded_for_all_users_together_where_a_group_counts_them_and_for_each_elsewhere() {
    let Some(bench) = bench() else { return };
    let mut spec = spec(&bench, "bomb", &["300"]);
    spec.limits.processes = Some(80);
    let run = bench.run(&spec);
    let made: u32 = run.log.lines().find_map(|line| line.strip_prefix("processes ")?.parse().ok()).unwrap();
    match probe().control_groups {
        ControlGroups::Absent { .. } => assert!(made >= 300, "60 of each user: {}", run.log),
        ControlGroups::Unified { .. } | ControlGroups::Legacy { .. } => {
            assert!(run.ended.achieved.rung > 0);
            assert!(made <= 80, "{}", run.log);
        }
    }
}

#[test]
fn a_range_needs_a_slot_that_has_one_and_the_filter_of_a_build() {
    let Some(mut bench) = bench_of(RANGE) else { return };
    assert!(matches!(bench.try_run(&spec(&bench, "users", &[])), Err(SetupError::SlotWithoutRange)));
    let mut contradiction = spec(&bench, "users", &[]);
    contradiction.filter = Filter::FakeRoot;
    assert!(plan(&contradiction, &probe()).unwrap_err().to_string().contains("FakeRoot"));
    // One user still works with a slot that has many.
    if let Ok(slot) = Slot::lease_range(&bench.path("slots")) {
        bench.slot = slot;
        for name in ["store", "build"] {
            bench.slot.adopt_tree(&bench.path(name)).unwrap();
        }
        let run = bench.run(&bench.spec("rights", &[]));
        assert!(run.log.contains("         1\n"), "a map of one id\n{}", run.log);
    }
}

#[test]
fn ranges_of_root_are_distinct_while_held() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let directory = tempfile::TempDir::new().unwrap();
    let Ok(first) = Slot::lease_range(directory.path()) else { return };
    match Slot::lease_range(directory.path()) {
        Ok(second) => {
            assert!(!first.has_in_range(second.uid()) && !second.has_in_range(first.uid()));
            assert!(second.uid().abs_diff(first.uid()) >= 65_536);
        }
        Err(error) => assert!(error.to_string().contains("ranges of ids for sandboxes are in use"), "{error}"),
    }
    let plain = Slot::lease(directory.path()).unwrap();
    assert!(!first.has_in_range(plain.uid()) && first.uid() != plain.uid());
}
