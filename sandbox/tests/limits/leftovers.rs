//! SIGKILL at any moment, to the orchestrator or to its launcher: after the next start nothing of it is left.
//!
//! The moments are random; `KILN_KILL_ROUNDS` asks for more of them than the few that a change is checked with. What a
//! build wrote belongs to whoever named the directory and is that one's to remove.
use std::fs;
use std::hash::BuildHasher;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio as ProcessStdio};
use std::time::{Duration, Instant};

use kiln_sandbox::{How, Launcher, Stdio, plan, probe};

use super::bench::{alive, bench, groups, groups_of, with_proc};

/// A kiln of its own that runs sandboxes side by side until it is killed.
#[test]
#[ignore = "started by the tests that kill it"]
fn another_kiln() {
    let mark = std::env::var("KILN_TEST_MARK").unwrap();
    let bench = bench().unwrap();
    let mut plans = Vec::new();
    for command in ["say-and-sleep", "work"] {
        let mut spec = with_proc(bench.spec(command, &[&mark]));
        spec.limits.wall = Some(Duration::from_millis(30));
        // The sleepers outlive any round, and what was begun behind them waits.
        if command == "say-and-sleep" {
            spec.limits.wall = None;
        }
        spec.time_offsets = None;
        if probe().control_groups.bound_totals() {
            spec.limits.memory_total = Some(256 << 20);
        }
        plans.push(plan(&spec, &probe()).unwrap());
    }
    println!("ready");
    std::thread::scope(|scope| {
        for plan in &plans {
            let bench = &bench;
            scope.spawn(move || {
                let mut begun = None;
                loop {
                    // Once the launcher was killed nothing starts any more.
                    let started = match begun.take() {
                        Some(begun) => bench.launcher.resume(begun, plan, &bench.slot, Stdio::Log),
                        None => bench.launcher.spawn(plan, &bench.slot, Stdio::Log),
                    };
                    let Ok(running) = started else { break };
                    begun = bench.launcher.begin(plan, &bench.slot, Stdio::Log).ok().flatten();
                    if running.wait(&mut |_| {}).is_err() {
                        break;
                    }
                }
            });
        }
    });
    assert_eq!(groups_of(std::process::id()), Vec::<std::path::PathBuf>::new());
    println!("the launcher is gone");
}

fn start(mark: &str) -> (Child, BufReader<std::process::ChildStdout>) {
    let mut kiln = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "leftovers::another_kiln", "--nocapture", "--ignored"])
        .env("KILN_TEST_MARK", mark)
        .stdin(ProcessStdio::null())
        .stdout(ProcessStdio::piped())
        .stderr(ProcessStdio::null())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(kiln.stdout.take().unwrap());
    wait_for("ready", &mut output);
    (kiln, output)
}

fn wait_for(word: &str, output: &mut impl BufRead) {
    let mut line = String::new();
    while !line.contains(word) {
        line.clear();
        assert!(output.read_line(&mut line).unwrap() > 0, "it ended before {word:?}");
    }
}

/// A process of this host by its pid and its start, which no other has: proc_pid_stat(5).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Process {
    pid: u32,
    parent: u32,
    began: u64,
}

/// Those that have not ended.
fn processes() -> Vec<Process> {
    let pids = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let process = |pid: u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // From the third field on: the second is a name that may hold anything.
        let fields: Vec<&str> = stat.rsplit(") ").next()?.split(' ').collect();
        let process = Process { pid, parent: fields.get(1)?.parse().ok()?, began: fields.get(19)?.parse().ok()? };
        (fields[0] != "Z").then_some(process)
    };
    pids.filter_map(process).collect()
}

/// A kiln's launcher, first, and all that descends from it: what runs in sandboxes, and what waits in those begun ahead.
fn descendants_of(kiln: u32) -> Vec<Process> {
    let all = processes();
    let mut found: Vec<Process> = all.iter().filter(|process| process.parent == kiln).cloned().collect();
    let mut next = 0;
    while let Some(process) = found.get(next) {
        let pid = process.pid;
        found.extend(all.iter().filter(|process| process.parent == pid).cloned());
        next += 1;
    }
    found
}

/// Waits for the kernel to finish killing.
fn gone(mark: &str, descendants: &[Process]) {
    let deadline = Instant::now() + Duration::from_secs(20);
    let left = || {
        let now: Vec<(u32, u64)> = processes().into_iter().map(|process| (process.pid, process.began)).collect();
        descendants.iter().any(|process| now.contains(&(process.pid, process.began)))
    };
    while !alive(mark).is_empty() || left() {
        assert!(Instant::now() < deadline, "{:?} still run, of {descendants:?}", alive(mark));
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn mounts() -> usize {
    fs::read_to_string("/proc/self/mountinfo").unwrap().lines().count()
}

/// A number that nobody predicts, and that is printed with a failure.
fn random_below(bound: u64) -> u64 {
    std::hash::RandomState::new().hash_one(bound) % bound
}

#[test]
fn a_kiln_or_launcher_that_is_killed_at_any_moment_leaves_nothing_after_the_next_start() {
    if bench().is_none() {
        return;
    }
    let rounds = std::env::var("KILN_KILL_ROUNDS").map_or(8, |rounds| rounds.parse().unwrap());
    let before = mounts();
    for round in 0..rounds {
        let mark = format!("killed-{}-{round}", std::process::id());
        let (mut kiln, mut output) = start(&mark);
        let moment = Duration::from_micros(random_below(60_000));
        std::thread::sleep(moment);
        let victim = round % 2;
        let descendants = descendants_of(kiln.id());
        if victim == 0 {
            kiln.kill().unwrap();
        } else {
            let pid = rustix::process::Pid::from_raw(descendants[0].pid as i32).unwrap();
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
            // The orchestrator notices, clears up and ends by itself.
            wait_for("the launcher is gone", &mut output);
        }
        kiln.wait().unwrap();
        gone(&mark, &descendants);
        // The next start.
        drop(Launcher::start().unwrap());
        assert_eq!(groups_of(kiln.id()), Vec::<std::path::PathBuf>::new(), "victim {victim} after {moment:?}");
        assert_eq!(alive(&mark), [0i32; 0], "victim {victim} after {moment:?}");
        assert_eq!(mounts(), before, "victim {victim} after {moment:?}");
    }
    if !groups("that groups of a killed kiln are removed") {
        eprintln!("processes and mounts were looked at");
    }
}

/// How many sandboxes run side by side below; the whole number is `KILN_SANDBOXES=200`.
fn side_by_side() -> usize {
    std::env::var("KILN_SANDBOXES").map_or(24, |count| count.parse().unwrap())
}

/// Resident memory of this process, in bytes.
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

#[test]
fn among_bombs_the_others_finish_and_kiln_stays_small() {
    let Some(bench) = bench() else { return };
    let groups = groups("that a memory bomb is a memory limit; as this user it meets address_space");
    let count = side_by_side();
    for number in 0..count {
        bench.make_build(&format!("build-{number}"));
    }
    std::thread::scope(|scope| {
        for number in 0..count {
            let (bench, build) = (&bench, format!("build-{number}"));
            scope.spawn(move || {
                let (command, argument) = match number {
                    0 | 1 => ("fork-bomb", "0"),
                    2 | 3 => ("memory", "2048"),
                    4 | 5 => ("fill", "1000000"),
                    6 | 7 => ("line", "0"),
                    _ => ("work", "0"),
                };
                let mut spec = bench.spec_in(&build, command, &[argument]);
                spec.limits.processes = Some(256);
                spec.limits.disk_bytes = Some(64 << 20);
                spec.limits.log_bytes = Some(32 << 20);
                if matches!(number, 0..4) && groups {
                    spec.limits.memory_total = Some(96 << 20);
                } else {
                    spec.limits.address_space = Some(512 << 20);
                }
                let plan = plan(&spec, &probe()).unwrap();
                let (mut bytes, running) = (0, bench.launcher.spawn(&plan, &bench.slot, Stdio::Log).unwrap());
                let ended = running.wait(&mut |part| bytes += part.len()).unwrap();
                let meant = match (command, groups) {
                    ("fork-bomb", true) => How::LimitExceeded(kiln_sandbox::Which::Processes),
                    ("fork-bomb", false) => How::Exited(11),
                    ("memory", true) => How::LimitExceeded(kiln_sandbox::Which::Memory),
                    ("memory", false) => How::Exited(9),
                    ("fill", _) => How::LimitExceeded(kiln_sandbox::Which::Disk),
                    ("line", _) => How::LimitExceeded(kiln_sandbox::Which::Log),
                    _ => How::Exited(0),
                };
                assert_eq!(ended.how, meant, "{command}");
                assert!(bytes <= 32 << 20);
            });
        }
    });
    assert!(resident() < 200 << 20, "{} bytes", resident());
}
