//! A sandbox that was begun ahead is what was asked for in the end, and none that nobody wants stays. The escape suite runs
//! with all of its sandboxes begun ahead, too (`KILN_TEST_AHEAD`).

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use kiln_sandbox::{Begun, How, Ids, Plan, Root, SetupError, Spec, Stdio, TimeBase, plan, probe};

use super::bench::{Bench, Run, bench, with_proc};
use super::network;

/// One that can be begun ahead.
fn spec(bench: &Bench, command: &str, arguments: &[&str]) -> Spec {
    let mut spec = with_proc(bench.spec(command, arguments));
    spec.time_offsets = None;
    spec
}

#[track_caller]
fn within(patience: Duration, what: &str, done: impl Fn() -> bool) {
    let deadline = Instant::now() + patience;
    while !done() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn begin(bench: &Bench, spec: &Spec) -> Begun {
    begun(bench, &plan(spec, &probe()).unwrap()).expect("it can be begun")
}

fn begun(bench: &Bench, plan: &Plan) -> Option<Begun> {
    bench.launcher.begin(plan, &bench.slot, Stdio::Log).unwrap()
}

fn resume(bench: &Bench, begun: Begun, spec: &Spec) -> Result<Run, SetupError> {
    let plan = plan(spec, &probe()).unwrap();
    let mut log = Vec::new();
    let running = bench.launcher.resume(begun, &plan, &bench.slot, Stdio::Log)?;
    let ended = running.wait(&mut |bytes| log.extend_from_slice(bytes))?;
    Ok(Run { ended, log: String::from_utf8(log).unwrap() })
}

/// Processes of root's slot; a user's own are those of every other program, too.
fn of_slot(bench: &Bench) -> Option<usize> {
    let caller = rustix::process::geteuid().as_raw();
    let is_its = |path: &PathBuf| fs::metadata(path).is_ok_and(|process| process.uid() == bench.slot.uid());
    let processes = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path().join("task"));
    (bench.slot.uid() != caller).then(|| processes.filter(is_its).count())
}

#[test]
fn sandboxes_begun_ahead_have_a_network_each_with_only_a_loopback() {
    let Some(bench) = bench() else { return };
    let host = fs::metadata("/proc/self/ns/net").unwrap().ino();
    let spec = spec(&bench, "network-and-wait", &[]);
    let plan = plan(&spec, &probe()).unwrap();
    // At once, so that no number is used again while another still lives.
    let waiting: Vec<Begun> = (0..12).map(|_| begin(&bench, &spec)).collect();
    let (seen, all) = (std::sync::Mutex::new(BTreeSet::from([host])), std::sync::Barrier::new(waiting.len()));
    std::thread::scope(|scope| {
        for begun in waiting {
            let running = bench.launcher.resume(begun, &plan, &bench.slot, Stdio::Log).unwrap();
            scope.spawn(|| {
                let (canceller, mut log) = (running.canceller(), Vec::new());
                let ended = running.wait(&mut |bytes| {
                    log.extend_from_slice(bytes);
                    if log.ends_with(b"\nready\n") {
                        all.wait();
                        canceller.cancel();
                    }
                });
                let run = Run { ended: ended.unwrap(), log: String::from_utf8(log).unwrap() };
                assert_eq!(run.ended.how, How::Cancelled);
                let (inode, interfaces) = network(&run);
                assert_eq!(interfaces, ["lo"]);
                seen.lock().unwrap().insert(inode);
            });
        }
    });
    assert_eq!(seen.into_inner().unwrap().len(), 13);
}

#[test]
fn one_begun_for_another_build_goes_on_with_the_program_the_inputs_and_the_directories_of_this_one() {
    let Some(bench) = bench() else { return };
    bench.make_build("another");
    let waits = begin(&bench, &spec(&bench, "exit", &["3"]));
    let mut other = with_proc(bench.spec_in("another", "work", &[]));
    other.time_offsets = None;
    other.process.cwd = "/here/below".into();
    other.process.env = vec!["A=1".into()];
    other.writable[0].target = "/here".into();
    fs::create_dir(bench.path("another/below")).unwrap();
    bench.slot.adopt_tree(&bench.path("another")).unwrap();
    let run = resume(&bench, waits, &other).unwrap();
    assert_eq!(run.ended.how, How::Exited(0), "{}", run.log);
    assert_eq!(run.ended.observed.unwrap().cwd, "/here/below");
    assert!(fs::read_dir(bench.path("another/below")).unwrap().count() > 0, "it wrote elsewhere");
    assert_eq!(fs::read_dir(bench.path("build")).unwrap().count(), 0);
}

type Change = (&'static str, fn(&mut Spec));

#[test]
fn one_that_does_not_fit_ends_and_the_sandbox_is_what_was_asked_for() {
    let Some(bench) = bench() else { return };
    let first = spec(&bench, "exit", &["0"]);
    let changes: [Change; 5] = [
        ("umask", |spec| spec.process.umask = 0o077),
        ("hostname", |spec| spec.surface.hostname = "another".into()),
        ("first pid", |spec| spec.process.first_pid = Some(77)),
        ("ids", |spec| spec.ids = Ids::One { uid: 1001, gid: 101 }),
        ("clocks", |spec| spec.time_offsets = Some(TimeBase { seconds: 5_000_000 })),
    ];
    for (name, change) in changes {
        let mut other = first.clone();
        change(&mut other);
        let seen = resume(&bench, begin(&bench, &first), &other).unwrap().ended.observed.unwrap();
        let asked_for = match name {
            "umask" => seen.umask == 0o077,
            "hostname" => seen.hostname == "another",
            "first pid" => seen.pid == 77,
            "ids" => (seen.uid, seen.gid) == (1001, 101),
            _ => (5_000_000..5_000_060).contains(&seen.boot_seconds),
        };
        assert!(asked_for, "{name}: {seen:?}");
        assert!(of_slot(&bench).is_none_or(|count| count == 0), "{name}: {:?} processes", of_slot(&bench));
    }
    // Another slot's is another's.
    let other_slot = super::bench::another_slot();
    let mut without = first;
    without.writable.clear();
    without.process.cwd = "/".into();
    let (waits, plan) = (begin(&bench, &without), plan(&without, &probe()).unwrap());
    let running = bench.launcher.resume(waits, &plan, &other_slot, Stdio::Log).unwrap();
    assert_eq!(running.wait(&mut |_| {}).unwrap().how, How::Exited(0));
}

#[test]
fn what_cannot_wait_is_not_begun() {
    let Some(bench) = bench() else { return };
    let changes: [fn(&mut Spec); 2] = [
        |spec| spec.time_offsets = Some(TimeBase { seconds: 1 }),
        |spec| spec.watched = [libc::SYS_getpid as u32].into(),
    ];
    for change in changes {
        let mut other = spec(&bench, "exit", &["0"]);
        change(&mut other);
        assert!(begun(&bench, &plan(&other, &probe()).unwrap()).is_none(), "{other:?}");
    }
}

#[test]
fn what_fails_in_the_second_half_is_told_as_in_a_whole_one() {
    let Some(bench) = bench() else { return };
    let good = spec(&bench, "exit", &["0"]);
    let changes: [fn(&mut Spec); 4] = [
        |spec| spec.process.program = "/nowhere/program".into(),
        |spec| spec.process.cwd = "/nowhere".into(),
        |spec| spec.inputs[0].source = "/nowhere/source".into(),
        // A file where there must be a directory.
        |spec| spec.inputs.push(kiln_sandbox::Input { target: "/payload/below".into(), ..spec.inputs[0].clone() }),
    ];
    for change in changes {
        let mut bad = good.clone();
        change(&mut bad);
        let whole = bench.try_run(&bad).expect_err("it cannot run");
        let halves = resume(&bench, begin(&bench, &good), &bad).expect_err("it cannot run");
        assert_eq!(format!("{halves:?}"), format!("{whole:?}"));
    }
    // A root that is not what it was.
    let mut rooted = good.clone();
    rooted.root = Root::Tree(bench.path("nowhere"));
    let plan = plan(&rooted, &probe()).unwrap();
    assert!(matches!(bench.launcher.begin(&plan, &bench.slot, Stdio::Log), Err(SetupError::Source { .. })));
}

#[test]
fn what_nobody_wants_leaves_no_process_and_what_nobody_asks_for_ends_by_itself() {
    let Some(bench) = bench() else { return };
    let spec = spec(&bench, "exit", &["3"]);
    let waits = begin(&bench, &spec);
    // It takes its user a moment after it began.
    within(Duration::from_secs(20), "nobody waits", || of_slot(&bench).is_none_or(|count| count > 0));
    drop(waits);
    assert!(of_slot(&bench).is_none_or(|count| count == 0), "somebody is left");
    let waits = begin(&bench, &spec);
    std::thread::sleep(Duration::from_secs(10));
    within(Duration::from_secs(20), "somebody still waits", || of_slot(&bench).is_none_or(|count| count == 0));
    assert_eq!(resume(&bench, waits, &spec).unwrap().ended.how, How::Exited(3));
}

/// Two hundred inputs where a hundred files can be open: says how that ends.
#[test]
#[ignore = "started with few descriptors by the test below"]
fn many_inputs() {
    let bench = bench().unwrap();
    let good = spec(&bench, "exit", &["3"]);
    let mut many = good.clone();
    let input = |number| kiln_sandbox::Input { target: format!("/inputs/{number}").into(), ..good.inputs[0].clone() };
    many.inputs.extend((0..200).map(input));
    let told = |ended: Result<Run, SetupError>| match ended {
        Ok(run) => format!("{:?}", run.ended.how),
        Err(error) => format!("{error}: {:?}", error.errno()),
    };
    println!("whole {}", told(bench.try_run(&many)));
    println!("halves {}", told(resume(&bench, begin(&bench, &good), &many)));
}

#[test]
fn inputs_that_are_more_than_can_be_open_are_an_error_in_both_ways_and_never_waited_for() {
    if bench().is_none() {
        return;
    }
    let itself = std::env::current_exe().unwrap();
    let said = Command::new("sh")
        .args(["-c", "ulimit -n 100 && exec \"$0\" --exact begun::many_inputs --nocapture --ignored"])
        .arg(itself)
        .output()
        .unwrap();
    let said = String::from_utf8(said.stdout).unwrap();
    let told = |way: &str| said.lines().find_map(|line| line.strip_prefix(way)).unwrap_or_else(|| panic!("{said}"));
    let (whole, halves) = (told("whole "), told("halves "));
    if rustix::process::geteuid().is_root() {
        // Too many open files. A whole one names the input, too.
        for told in [whole, halves] {
            assert!(told.contains("detach sources") && told.contains("24"), "{said}");
        }
    } else {
        // A user's are mounted one by one.
        assert_eq!((whole, halves), ("Exited(3)", "Exited(3)"), "{said}");
    }
}
