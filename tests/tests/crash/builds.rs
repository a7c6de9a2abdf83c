//! Builds that are killed.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use kiln_tests::ground::{self, Ground};
use kiln_tests::recipe::{self, Made};
use kiln_tests::run::Kiln;

use crate::{Dice, Shim, died, rounds};

fn mounts() -> BTreeSet<String> {
    fs::read_to_string("/proc/self/mountinfo").unwrap().lines().map(String::from).collect()
}

/// Processes whose command line holds `marker`.
fn holding(marker: &str) -> Vec<String> {
    fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| fs::read(entry.ok()?.path().join("cmdline")).ok())
        .map(|bytes| String::from_utf8_lossy(&bytes).replace('\0', " "))
        .filter(|line| line.contains(marker) && !line.contains("kiln "))
        .collect()
}

/// After a crash: nothing runs, nothing is mounted, the store is whole, and the next run finishes with the right bytes.
#[track_caller]
fn recovers(kiln: &Kiln, recipe: &Path, marker: &str, before: &BTreeSet<String>, expected: &mut Option<String>) {
    let deadline = Instant::now() + Duration::from_secs(5);
    while !holding(marker).is_empty() {
        assert!(Instant::now() < deadline, "still running: {:?}", holding(marker));
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(&mounts(), before, "mounts were left");
    kiln.verified();
    let outcome = kiln.build_one(recipe);
    let digest = outcome["outputs"]["out"]["nar_hash"].as_str().unwrap().to_string();
    assert_eq!(&digest, expected.get_or_insert(digest.clone()));
    kiln.verified();
}

/// A build that changes the store in many steps: several files, two outputs, a process that outlives its parent.
fn busy() -> (Made, String) {
    let nonce = recipe::nonce();
    let marker = format!("3600.{}", nonce.replace('-', ""));
    let made = Made::with(
        r#"outputs = ["out", "dev"]"#,
        &format!(
            r#"sleep {marker} &
mkdir "$out" "$dev"; for i in 1 2 3 4 5 6 7 8; do echo same >"$out/$i"; ln -s "$i" "$out/link$i"; done; echo same >"$dev/h""#
        ),
    );
    (made, marker)
}
/// A store of its own whose environment is assembled.
fn store() -> Kiln {
    let kiln = Kiln::fresh(Ground::Tmpfs);
    kiln.build_one(&recipe::shipped("handbook"));
    kiln
}

#[test]
fn killed_at_any_call_of_a_build_the_store_verifies_and_the_next_run_finishes() {
    if !ground::has_files("killed_at_any_call_of_a_build_the_store_verifies_and_the_next_run_finishes") {
        return;
    }
    let shim = Shim::new();
    let own = store();
    let before = mounts();
    let at = |kill_at| shim.preloaded(Kiln::with_store(own.store()), kill_at);
    let build = |kiln: &Kiln, made: &Made| kiln.run(["build".as_ref(), made.path().as_os_str()]);
    build(&at(0), &busy().0).succeeded();
    let calls = shim.counted();
    assert!(calls > 20, "a build changes the store in more than {calls} calls");
    let (mut dice, mut expected, mut killed) = (Dice::new(), None, 0);
    let rounds = rounds(30);
    for round in 0..rounds {
        // Spread over all calls, and not the same ones in every run of the tests.
        let kill_at = 1 + (round * calls / rounds + dice.below(calls / rounds + 1)).min(calls - 1);
        let (made, marker) = busy();
        let ran = build(&at(kill_at), &made);
        assert!(died(&ran) || ran.code() == Some(0), "call {kill_at} of {calls}: {ran:?}");
        killed += u64::from(died(&ran));
        println!("killed at call {kill_at} of {calls}");
        recovers(&own, made.path(), &marker, &before, &mut expected);
    }
    assert!(killed * 2 > rounds, "the shim killed only {killed} of {rounds}");
}

#[test]
fn killed_at_any_call_of_fetching_and_assembling_the_next_run_finishes() {
    if !ground::has_files("killed_at_any_call_of_fetching_and_assembling_the_next_run_finishes") {
        return;
    }
    let shim = Shim::new();
    let handbook = recipe::shipped("handbook");
    let build = |kiln: &Kiln| kiln.run(["build".as_ref(), handbook.as_os_str()]);
    let counting = shim.preloaded(Kiln::fresh(Ground::Tmpfs), 0);
    build(&counting).succeeded();
    drop(counting);
    let calls = shim.counted();
    let (mut dice, mut expected) = (Dice::new(), None);
    let before = mounts();
    for _ in 0..rounds(5) {
        let kill_at = 1 + dice.below(calls);
        let own = shim.preloaded(Kiln::fresh(Ground::Tmpfs), kill_at);
        let ran = build(&own);
        assert!(died(&ran) || ran.code() == Some(0), "call {kill_at} of {calls}: {ran:?}");
        println!("killed at call {kill_at} of {calls}");
        recovers(&Kiln::with_store(own.store()), &handbook, "no such marker", &before, &mut expected);
    }
}

#[test]
fn killed_at_any_time_nothing_is_left_running_and_the_store_verifies() {
    if !ground::has_files("killed_at_any_time_nothing_is_left_running_and_the_store_verifies") {
        return;
    }
    let own = store();
    let before = mounts();
    let whole = own.run(["build".as_ref(), busy().0.path().as_os_str()]).succeeded().took;
    let (mut dice, mut expected) = (Dice::new(), None);
    for _ in 0..rounds(15) {
        let (made, marker) = busy();
        let mut running = own.start(["build".as_ref(), made.path().as_os_str()]);
        std::thread::sleep(Duration::from_micros(dice.below(whole.as_micros() as u64)));
        if running.runs() {
            nix::sys::signal::kill(running.pid(), nix::sys::signal::Signal::SIGKILL).unwrap();
        }
        running.end();
        recovers(&own, made.path(), &marker, &before, &mut expected);
    }
}

#[test]
fn interrupted_it_stops_the_build_and_exits_130() {
    if !ground::has_files("interrupted_it_stops_the_build_and_exits_130") {
        return;
    }
    let own = Kiln::warm();
    let before = mounts();
    for signal in [nix::sys::signal::Signal::SIGINT, nix::sys::signal::Signal::SIGTERM] {
        let marker = format!("3600.{}", recipe::nonce().replace('-', ""));
        let made = Made::new(&format!(r#"echo x >"$out"; sleep {marker}"#));
        let running = own.start(["build".as_ref(), made.path().as_os_str()]);
        let deadline = Instant::now() + Duration::from_secs(60);
        while holding(&format!("sleep {marker}")).is_empty() {
            assert!(Instant::now() < deadline, "the build does not begin");
            std::thread::sleep(Duration::from_millis(5));
        }
        nix::sys::signal::kill(running.pid(), signal).unwrap();
        running.end().exits(130);
        // The launcher sees the end of its socket, and the kernel kills what is in the pid namespace: at once, but not before.
        let deadline = Instant::now() + Duration::from_secs(1);
        while !holding(&format!("sleep {marker}")).is_empty() {
            assert!(Instant::now() < deadline, "the build outlived kiln");
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(mounts(), before);
        own.verified();
    }
}
