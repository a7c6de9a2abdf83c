//! Limits hold, and a limit that was hit never looks like an ordinary failure. One test per promise.
//!
//! Runs as whoever runs it, root and ordinary users alike. What only control groups can hold is not run where the
//! user has none, and says so.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "limits/begun.rs"]
mod begun;
#[path = "limits/bench.rs"]
mod bench;
#[path = "harness/here.rs"]
mod here;
#[path = "limits/leftovers.rs"]
mod leftovers;
#[path = "harness/program.rs"]
mod program;
#[path = "harness/skip.rs"]
mod skip;

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use bench::{Run, alive, bench, groups, groups_of, with_proc};
use kiln_sandbox::{
    Answer, ControlGroups, Ended, Host, How, Input, Network, SetupError, Spec, Stdio, Tmpfs, Which, plan, probe,
};
use nix::sys::signal::{SigSet, Signal};

#[track_caller]
fn exceeds(run: &Run, which: Which) {
    assert_eq!(run.ended.how, How::LimitExceeded(which), "{}", run.log);
}

fn rung(ended: &Ended) -> u8 {
    ended.achieved.rung
}

#[test]
fn without_a_bound_on_totals_no_group_is_made_and_rung_0_holds() {
    let Some(bench) = bench() else { return };
    let run = bench.run(&bench.spec("work", &[]));
    assert_eq!((run.ended.how, rung(&run.ended)), (How::Exited(0), 0), "{}", run.log);
    assert_eq!(run.ended.usage.peak_memory_total, None);
}

#[test]
fn a_run_within_its_bounds_ends_as_it_would_without_and_the_rung_is_told() {
    if !groups("a_run_within_its_bounds") {
        return;
    }
    let Some(bench) = bench() else { return };
    let mut spec = bench.spec("work", &[]);
    spec.limits.memory_total = Some(256 << 20);
    spec.limits.cpu_total = Some(60);
    spec.limits.disk_bytes = Some(64 << 20);
    spec.limits.disk_inodes = Some(100);
    let run = bench.run(&spec);
    assert_eq!(run.ended.how, How::Exited(0), "{}", run.log);
    assert_eq!(rung(&run.ended), probe().control_groups.rung());
    assert!(run.ended.usage.peak_memory_total.is_some_and(|bytes| bytes > 1 << 20), "{:?}", run.ended.usage);
}

#[test]
fn one_process_that_takes_too_much_memory_is_a_memory_limit() {
    if !groups("one_process_that_takes_too_much_memory") {
        return;
    }
    let Some(bench) = bench() else { return };
    let mut spec = bench.spec("memory", &["256"]);
    spec.limits.memory_total = Some(64 << 20);
    exceeds(&bench.run(&spec), Which::Memory);
}

#[test]
fn children_that_together_take_too_much_memory_are_a_memory_limit_also_if_the_parent_shrugs() {
    if !groups("children_that_together_take_too_much_memory") {
        return;
    }
    let Some(bench) = bench() else { return };
    let mut spec = bench.spec("memory-of-children", &["12"]);
    spec.limits.memory_total = Some(100 << 20);
    exceeds(&bench.run(&spec), Which::Memory);
}

#[test]
fn files_in_memory_count_as_memory_and_have_their_own_size() {
    let Some(bench) = bench() else { return };
    let mut small = bench.spec("memory-in-files", &["64"]);
    small.tmpfs = vec![Tmpfs { size: 16 << 20, ..Tmpfs::scratch("/tmp") }];
    let run = bench.run(&small);
    assert_eq!(run.ended.how, How::Exited(9));
    assert!(run.log.contains("No space left"), "{}", run.log);
    if groups("files_in_memory_count_as_memory") {
        let mut spec = bench.spec("memory-in-files", &["256"]);
        spec.limits.memory_total = Some(64 << 20);
        exceeds(&bench.run(&spec), Which::Memory);
    }
}

#[test]
fn address_space_bounds_each_process_on_every_rung() {
    let Some(bench) = bench() else { return };
    let mut spec = bench.spec("memory", &["256"]);
    spec.limits.address_space = Some(128 << 20);
    let run = bench.run(&spec);
    assert_eq!(run.ended.how, How::Exited(9), "{}", run.log);
    assert!(run.log.contains("Cannot allocate memory"), "{}", run.log);
}

#[test]
fn a_fork_bomb_that_fails_is_a_limit_on_processes_where_they_are_counted() {
    let Some(bench) = bench() else { return };
    let mut spec = bench.spec("fork-bomb", &[]);
    spec.limits.processes = Some(200);
    assert_eq!(bench.run(&spec).ended.how, How::Exited(11), "rung 0 bounds it, and cannot tell");
    if groups("a_fork_bomb_that_fails") {
        spec.limits.memory_total = Some(1 << 30);
        exceeds(&bench.run(&spec), Which::Processes);
    }
}

#[test]
fn a_build_that_waits_when_a_fork_is_refused_succeeds() {
    let Some(bench) = bench() else { return };
    let mut spec = bench.spec("make-like", &["40"]);
    spec.limits.processes = Some(10);
    if groups("a_build_that_waits") {
        spec.limits.memory_total = Some(1 << 30);
    }
    let run = bench.run(&spec);
    assert_eq!(run.ended.how, How::Exited(0), "{}", run.log);
    let made: u32 = run.log.trim().strip_prefix("made ").unwrap().parse().unwrap();
    assert!((8..40).contains(&made), "{made}");
}

#[test]
fn cpu_time_of_all_processes_together_is_bounded() {
    if !groups("cpu_time_of_all_processes") {
        return;
    }
    let Some(bench) = bench() else { return };
    let mut spec = bench.spec("spin-in-children", &[]);
    spec.limits.cpu = Some(2);
    spec.limits.cpu_total = Some(1);
    exceeds(&bench.run(&spec), Which::Cpu);
}

#[test]
fn a_disk_that_fills_with_bytes_or_files_ends_the_payload_and_a_hole_does_not() {
    let Some(bench) = bench() else { return };
    let mut bytes = bench.spec("fill", &["1000000"]);
    bytes.limits.disk_bytes = Some(20 << 20);
    exceeds(&bench.run(&bytes), Which::Disk);
    // What was there before does not count.
    let mut inodes = bench.spec("fill", &["1"]);
    inodes.limits.disk_inodes = Some(100);
    fs::remove_dir_all(bench.path("build")).unwrap();
    bench.make_build("build");
    exceeds(&bench.run(&inodes), Which::Disk);
    let mut hole = bench.spec("hole", &[]);
    hole.limits.disk_bytes = Some(20 << 20);
    let run = bench.run(&hole);
    assert_eq!(run.ended.how, How::Exited(0), "{}", run.log);
}

#[test]
fn descriptors_are_bounded() {
    let Some(bench) = bench() else { return };
    let mut spec = bench.spec("open", &[]);
    spec.limits.open_files = Some(100);
    assert_eq!(bench.run(&spec).log, "opened 97: Too many open files\n");
}

#[test]
fn a_line_without_end_is_cut_and_named() {
    let Some(bench) = bench() else { return };
    let mut spec = bench.spec("line", &[]);
    spec.limits.log_bytes = Some(300_000_000);
    let plan = plan(&spec, &probe()).unwrap();
    let running = bench.launcher.spawn(&plan, &bench.slot, Stdio::Log).unwrap();
    let (mut bytes, mut largest) = (0, 0);
    let ended = running
        .wait(&mut |part| {
            bytes += part.len();
            largest = largest.max(part.len());
        })
        .unwrap();
    assert_eq!(ended.how, How::LimitExceeded(Which::Log));
    assert_eq!(bytes, 300_000_000);
    assert!(largest <= 64 << 10, "kept {largest} bytes at once");
}

#[test]
fn inside_every_group_is_the_root_of_all_and_nothing_of_the_host_s_is_named() {
    if !groups("inside_every_group_is_the_root") {
        return;
    }
    let Some(bench) = bench() else { return };
    let mut spec = with_proc(bench.spec("groups", &[]));
    spec.limits.memory_total = Some(1 << 30);
    let run = bench.run(&spec);
    assert!(run.log.lines().count() > 0, "{}", run.log);
    for line in run.log.lines() {
        // The hierarchies in which kiln makes no group show where kiln is, which the namespace makes `/` too.
        assert!(line.ends_with(":/"), "{}", run.log);
    }
}

#[test]
fn groups_are_gone_when_a_run_has_ended_or_was_dropped() {
    if !groups("groups_are_gone") {
        return;
    }
    let Some(bench) = bench() else { return };
    let mut spec = bench.spec("say-and-sleep", &["dropped"]);
    spec.limits.memory_total = Some(1 << 30);
    let plan = plan(&spec, &probe()).unwrap();
    let running = bench.launcher.spawn(&plan, &bench.slot, Stdio::Log).unwrap();
    let within = |mark: &str| loop {
        if let Some(pid) = alive(mark).first() {
            break groups_of(std::process::id())
                .into_iter()
                .filter(|path| fs::read_to_string(path.join("cgroup.procs")).unwrap().contains(&pid.to_string()))
                .collect::<Vec<_>>();
        }
        std::thread::yield_now();
    };
    let before = within("dropped");
    assert!(!before.is_empty());
    drop(running);
    assert!(before.iter().all(|path| !path.exists()), "{before:?}");
    assert_eq!(alive("dropped"), [0i32; 0]);

    let mut spec = bench.spec("say-and-sleep", &["timed-out"]);
    spec.limits.memory_total = Some(1 << 30);
    spec.limits.wall = Some(Duration::from_secs(2));
    let running = bench.launcher.spawn(&crate::plan(&spec, &probe()).unwrap(), &bench.slot, Stdio::Log).unwrap();
    let before = within("timed-out");
    assert!(!before.is_empty());
    assert_eq!(running.wait(&mut |_| {}).unwrap().how, How::TimedOut);
    assert!(before.iter().all(|path| !path.exists()), "{before:?}");
}

#[test]
fn a_group_of_a_kiln_that_is_gone_is_removed_by_the_next_start_with_what_runs_in_it() {
    if !groups("a_group_of_a_kiln_that_is_gone") {
        return;
    }
    let kiln_sandbox::ControlGroups::Legacy { memory, pids, .. } = probe().control_groups else {
        return;
    };
    // No process has this number; the lock is what counts.
    let left: Vec<PathBuf> = [memory, pids].iter().map(|top| top.join("kiln-sandbox-4999999-7")).collect();
    for path in &left {
        fs::create_dir(path).unwrap();
    }
    let mut sleeper = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
    fs::write(left[1].join("cgroup.procs"), sleeper.id().to_string()).unwrap();
    let started = Instant::now();
    let reaper = std::thread::spawn(move || sleeper.wait().unwrap());
    let Some(_bench) = bench() else { return };
    assert!(left.iter().all(|path| !path.exists()), "{left:?}");
    assert!(!reaper.join().unwrap().success());
    assert!(started.elapsed() < Duration::from_secs(30));
}

#[test]
fn a_payload_that_ends_by_each_signal_says_which() {
    let Some(bench) = bench() else { return };
    for signal in 1..=64 {
        let mut spec = bench.spec("kill", &[&signal.to_string()]);
        // SIGXFSZ would else mean that limit.
        spec.limits.file_size = None;
        spec.limits.wall = Some(Duration::from_secs(if signal == libc::SIGSTOP { 1 } else { 10 }));
        let run = bench.run(&spec);
        let harmless = matches!(signal, libc::SIGCHLD | libc::SIGCONT | libc::SIGURG | libc::SIGWINCH);
        // 32 and 33 are the C library's own, which it does not raise.
        let stops = matches!(signal, libc::SIGTSTP | libc::SIGTTIN | libc::SIGTTOU);
        match run.ended.how {
            How::Signaled(number) => assert_eq!(number, signal),
            // An orphaned process group is not stopped by a terminal's signals: setpgid(2).
            How::Exited(0) => assert!(harmless || stops || matches!(signal, 32 | 33), "{signal}: {}", run.log),
            How::TimedOut => assert_eq!(signal, libc::SIGSTOP, "{}", run.log),
            other => panic!("{signal}: {other:?}"),
        }
    }
}

#[test]
fn a_signal_that_the_caller_blocks_ends_a_payload_all_the_same() {
    let mut blocked = SigSet::empty();
    blocked.add(Signal::SIGINT);
    blocked.thread_block().unwrap();
    let bench = bench();
    blocked.thread_unblock().unwrap();
    let Some(bench) = bench else { return };
    let run = bench.run(&bench.spec("kill", &[&libc::SIGINT.to_string()]));
    assert_eq!(run.ended.how, How::Signaled(libc::SIGINT), "{}", run.log);
}

#[test]
fn exit_codes_come_back_whole() {
    let Some(bench) = bench() else { return };
    for code in [0, 1, 2, 77, 125, 126, 127, 128, 137, 255] {
        assert_eq!(bench.run(&bench.spec("exit", &[&code.to_string()])).ended.how, How::Exited(code));
    }
}

#[test]
fn an_input_that_is_swapped_between_the_look_and_the_mount_is_refused() {
    let Some(bench) = bench() else { return };
    let (input, other) = (bench.path("input"), bench.path("other"));
    for path in [&input, &other] {
        fs::create_dir(path).unwrap();
        fs::write(path.join("file"), "").unwrap();
    }
    let mut spec = bench.spec("exit", &["0"]);
    spec.inputs.push(Input { source: input.clone(), target: "/input".into() });
    let plan = plan(&spec, &probe()).unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::SeqCst) {
                rustix::fs::renameat_with(
                    rustix::fs::CWD,
                    &input,
                    rustix::fs::CWD,
                    &other,
                    rustix::fs::RenameFlags::EXCHANGE,
                )
                .unwrap();
            }
        });
        let (mut whole, mut refused) = (0, 0);
        let deadline = Instant::now() + Duration::from_secs(60);
        while (whole == 0 || refused == 0) && Instant::now() < deadline {
            match bench.launcher.spawn(&plan, &bench.slot, Stdio::Log).and_then(|running| running.wait(&mut |_| {})) {
                Ok(ended) => {
                    assert_eq!(ended.how, How::Exited(0));
                    whole += 1;
                }
                Err(SetupError::Step { error, path, .. }) => {
                    assert_eq!(error.raw_os_error(), Some(libc::ESTALE), "{error}");
                    assert_eq!(path.as_ref(), Some(&input));
                    refused += 1;
                }
                Err(other) => panic!("{other}"),
            }
        }
        stop.store(true, std::sync::atomic::Ordering::SeqCst);
        assert!(whole > 0 && refused > 0, "{whole} whole, {refused} refused");
    });
}

/// A toy supervisor: it tells the payload another parent, and lets through what it does not know.
#[test]
fn a_supervisor_answers_watched_calls_and_cannot_weaken_the_filter() {
    let Some(bench) = bench() else { return };
    let mut spec = bench.spec("ask", &[]);
    spec.watched = [libc::SYS_getppid, libc::SYS_mount, libc::SYS_getpriority, libc::SYS_execve]
        .map(|call| u32::try_from(call).unwrap())
        .into();
    let plan = plan(&spec, &probe()).unwrap();
    let mut running = bench.launcher.spawn(&plan, &bench.slot, Stdio::Log).unwrap();
    let door = running.door().unwrap();
    assert!(running.door().is_none());
    let supervisor = std::thread::spawn(move || {
        let doorway = door.open().unwrap().unwrap();
        let mut asked = Vec::new();
        while let Some(call) = doorway.next_call().unwrap() {
            asked.push(i64::from(call.number));
            let answer = match i64::from(call.number) {
                libc::SYS_getppid => Answer::Value(4711),
                libc::SYS_getpriority => Answer::Error(libc::EXDEV as u16),
                _ => Answer::Continue,
            };
            doorway.answer(call, answer).unwrap();
        }
        // A pidfd is readable when its process has ended.
        let mut ended = [nix::poll::PollFd::new(doorway.payload().as_fd(), nix::poll::PollFlags::POLLIN)];
        assert_eq!(nix::poll::poll(&mut ended, nix::poll::PollTimeout::from(10_000u16)), Ok(1));
        asked
    });
    let mut log = Vec::new();
    let ended = running.wait(&mut |bytes| log.extend_from_slice(bytes)).unwrap();
    let log = String::from_utf8(log).unwrap();
    assert_eq!(ended.how, How::Exited(0), "{log}");
    assert_eq!(log, "parent 4711\nmount -1 Operation not permitted\npriority -1 Invalid cross-device link\n");
    assert!(ended.achieved.filter.contains("+watch-"), "{}", ended.achieved.filter);
    // What the sandbox's own filter refuses never reached the supervisor.
    assert_eq!(supervisor.join().unwrap(), [libc::SYS_execve, libc::SYS_getppid, libc::SYS_getpriority]);
}

#[test]
fn without_watched_calls_there_is_no_door_and_without_a_supervisor_they_are_refused_or_fail() {
    let Some(bench) = bench() else { return };
    let mut spec = bench.spec("ask", &[]);
    let without = plan(&spec, &probe()).unwrap();
    assert!(!without.to_string().contains("door"));
    let mut running = bench.launcher.spawn(&without, &bench.slot, Stdio::Log).unwrap();
    assert!(running.door().is_none());
    running.wait(&mut |_| {}).unwrap();
    spec.watched = [u32::try_from(libc::SYS_getppid).unwrap()].into();
    assert!(matches!(bench.try_run(&spec), Err(SetupError::Unsupervised)));
    let mut running = bench.launcher.spawn(&crate::plan(&spec, &probe()).unwrap(), &bench.slot, Stdio::Log).unwrap();
    let door = running.door().unwrap();
    // A supervisor that goes away.
    let supervisor = std::thread::spawn(move || drop(door.open().unwrap().unwrap()));
    let mut log = Vec::new();
    let ended = running.wait(&mut |bytes| log.extend_from_slice(bytes)).unwrap();
    supervisor.join().unwrap();
    assert_eq!(ended.how, How::Exited(0));
    assert!(log.starts_with(b"parent -1\n"), "{}", String::from_utf8_lossy(&log));
    spec.limits.processes = Some(2);
    assert!(plan(&spec, &probe()).unwrap_err().to_string().contains("opens the door"));
}

/// The inode of the network namespace that a payload was in, and its interfaces.
fn network(run: &Run) -> (u64, Vec<String>) {
    let inode = run.log.lines().find_map(|line| line.strip_prefix("net ")).unwrap().parse().unwrap();
    let interfaces = run.log.lines().filter_map(|line| line.split_once(':')).map(|(name, _)| name.trim().to_owned());
    (inode, interfaces.collect())
}

#[test]
fn who_waited_for_the_writers_sees_none_of_them_write_any_more() {
    let Some(bench) = bench() else { return };
    let mut spec = bench.spec("leave-writers", &["200"]);
    if groups("who_waited_for_the_writers: their group") {
        spec.limits.memory_total = Some(256 << 20);
    }
    let plan = plan(&spec, &probe()).unwrap();
    // Each round has its chance to see a writer that the kernel has not killed yet.
    for _ in 0..40 {
        let running = bench.launcher.spawn(&plan, &bench.slot, Stdio::Log).unwrap();
        let (ended, leaving) = running.wait_for_writers(&mut |_| {}).unwrap();
        let size = || fs::metadata(bench.path("build/grows")).unwrap().len();
        let then = size();
        assert_eq!(ended.how, How::Exited(0));
        drop(leaving);
        assert!(then > 0 && size() == then, "grew from {then} to {}", size());
        fs::remove_file(bench.path("build/grows")).unwrap();
    }
}

#[test]
fn who_waited_for_the_writers_of_a_lone_payload_knows_all_of_its_end() {
    let Some(bench) = bench() else { return };
    let plan = plan(&bench.spec("exit", &["3"]), &probe()).unwrap();
    for _ in 0..20 {
        let running = bench.launcher.spawn(&plan, &bench.slot, Stdio::Log).unwrap();
        let (ended, leaving) = running.wait_for_writers(&mut |_| {}).unwrap();
        assert_eq!(ended.how, How::Exited(3));
        assert!(ended.usage.user.is_some() && ended.observed.is_some());
        drop(leaving);
    }
}

#[test]
fn the_host_s_network_is_there_when_asked_for() {
    let Some(bench) = bench() else { return };
    let mut spec = with_proc(bench.spec("network", &[]));
    let host = fs::metadata("/proc/self/ns/net").unwrap().ino();
    assert_ne!(network(&bench.run(&spec)).0, host);
    spec.network = Network::Host;
    if let Err(refusal) = plan(&spec, &probe()) {
        assert!(refusal.to_string().contains("Landlock ABI"), "{refusal}");
        here::not_here("scopes of Landlock", "the caller's network is never shared without");
        return;
    }
    let run = bench.run(&spec);
    assert_eq!(network(&run).0, host);
    assert!(!run.ended.achieved.namespaces.contains(&"net".to_owned()));
}

/// Rung 2's way of starting and clearing up, on a hierarchy of version 2 that need not have any controller: CPU time is
/// counted everywhere.
#[test]
fn a_sandbox_is_born_in_its_group_of_version_2_which_is_gone_when_it_ends() {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let top = mounts.lines().find(|line| line.contains(" - cgroup2 ")).and_then(|line| line.split(' ').nth(4));
    let writable = |top: &&str| rustix::fs::access(*top, rustix::fs::Access::WRITE_OK).is_ok();
    let Some(parent) = top.filter(writable).map(PathBuf::from) else {
        here::not_here("group of version 2", "none that this user may write");
        return;
    };
    let Some(bench) = bench() else { return };
    let host = Host { control_groups: ControlGroups::Unified { parent: parent.clone() }, ..probe() };
    let mut spec = with_proc(bench.spec("groups", &[]));
    spec.limits.processes = None;
    spec.limits.cpu_total = Some(60);
    let run = |spec: &Spec| {
        let plan = plan(spec, &host).unwrap();
        let mut log = Vec::new();
        let running = bench.launcher.spawn(&plan, &bench.slot, Stdio::Log).unwrap();
        let ended = running.wait(&mut |bytes| log.extend_from_slice(bytes)).unwrap();
        Run { ended, log: String::from_utf8(log).unwrap() }
    };
    let born = run(&spec);
    assert_eq!((born.ended.how, rung(&born.ended)), (How::Exited(0), 2), "{}", born.log);
    assert!(born.log.contains("0::/\n"), "{}", born.log);
    spec.process.argv[1] = "spin-in-children".into();
    spec.limits.cpu_total = Some(1);
    exceeds(&run(&spec), Which::Cpu);
    let own = format!("kiln-sandbox-{}-", std::process::id());
    let left = fs::read_dir(&parent).unwrap().filter(|entry| {
        let name = entry.as_ref().unwrap().file_name();
        name.to_string_lossy().starts_with(&own)
    });
    assert_eq!(left.count(), 0);
    // What this hierarchy cannot hold is an error of setting up, never left out.
    if !fs::read_to_string(parent.join("cgroup.controllers")).unwrap().contains("memory") {
        spec.limits.memory_total = Some(1 << 30);
        let plan = plan(&spec, &host).unwrap();
        assert!(matches!(bench.launcher.spawn(&plan, &bench.slot, Stdio::Log), Err(SetupError::Group { .. })));
    }
}
