//! Nothing survives the end: daemons, programs that will not stop, a kiln or launcher that was killed.

use std::fs;
use std::io::Read;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use kiln_sandbox::{How, SetupError, Stdio, plan, probe};
use rustix::process::{Pid, Signal, kill_process};

use crate::ground::{PATIENCE, PROCESS, held, mark, start_another, told, within};
use crate::harness::{alive, bench_of};

/// This process's children.
pub(crate) fn children() -> Vec<i32> {
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    let lists = tasks.filter_map(|task| fs::read_to_string(task.unwrap().path().join("children")).ok());
    lists.flat_map(|list| list.split(' ').filter_map(|pid| pid.trim().parse().ok()).collect::<Vec<i32>>()).collect()
}

/// Without a pid namespace the reader of the log hung for as long as the daemon lived.
#[test]
fn e25_a_daemon_left_behind_is_dead_when_wait_returns_and_does_not_hold_it_up() {
    let Some(bench) = bench_of(PROCESS) else { return };
    let mark = mark("daemon");
    let mut delays = Vec::new();
    for _ in 0..10 {
        let run = bench.run(&bench.spec("daemon", &[&mark]));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64;
        assert_eq!(alive(&mark), [0i32; 0]);
        held(&run, 0);
        // On a busy machine the program may have left before the daemon's first word.
        if !run.log.starts_with("daemon\n") {
            continue;
        }
        delays.push(now - told(&run, "leaving").parse::<i64>().unwrap());
    }
    assert!(!delays.is_empty(), "the daemon never ran");
    // It would stay for ever. The best of ten, since this machine may be busy.
    assert!(delays.iter().min().unwrap() < &PATIENCE.as_millis().try_into().unwrap(), "{delays:?} ms after the exit");
}

#[test]
fn e26_a_program_that_will_not_end_is_dead_at_its_deadline_and_grace() {
    let Some(bench) = bench_of(PROCESS) else { return };
    for way in ["ignore", "block", "stop", "vfork", "fifo", "crowd"] {
        let mark = mark(way);
        // A busy machine may not get it to its first word in the first of these times.
        let mut walls = [300, 3_000, 30_000].map(Duration::from_millis).into_iter();
        let took = loop {
            let mut spec = bench.spec("stubborn", &[way, &mark]);
            spec.limits.wall = Some(walls.next().expect("it says that it is asleep in one of these times"));
            spec.limits.grace = Duration::from_millis(200);
            let started = Instant::now();
            let run = bench.run(&spec);
            assert_eq!(run.ended.how, How::TimedOut, "{way}");
            if run.log.starts_with("asleep\n") {
                break started.elapsed();
            }
        };
        assert_eq!(alive(&mark), [0i32; 0], "{way}");
        assert!(took >= Duration::from_millis(500), "{way}: {took:?}, so it was not as stubborn as it should be");
        assert!(took < PATIENCE, "{way}: {took:?}");
    }
}

#[test]
fn e27_a_killed_kiln_leaves_no_process() {
    if bench_of(PROCESS).is_none() {
        return;
    }
    let mark = mark("victim");
    let mut victim = start_another(&[], &format!("process log stubborn crowd {mark}"));
    let mut output = victim.stdout.take().unwrap();
    let (mut seen, mut byte) = (String::new(), [0]);
    while seen.matches("asleep").count() < 51 {
        assert_eq!(output.read(&mut byte).unwrap(), 1, "the victim ended: {seen}");
        seen.push(byte[0] as char);
    }
    assert_eq!(alive(&mark).len(), 51);
    victim.kill().unwrap();
    victim.wait().unwrap();
    within(PATIENCE, "still running", || alive(&mark).is_empty());
}

#[test]
fn e27_a_killed_launcher_leaves_no_process_and_says_that_it_is_lost() {
    let Some(bench) = bench_of(PROCESS) else { return };
    let mark = mark("orphan");
    let before = children();
    let launcher = kiln_sandbox::Launcher::start().unwrap();
    let started: Vec<i32> = children().into_iter().filter(|pid| !before.contains(pid)).collect();
    let plan = plan(&bench.spec("stubborn", &["crowd", &mark]), &probe()).unwrap();
    let running = bench.start_by(&launcher, &plan, Stdio::Log).unwrap();
    within(PATIENCE, "the crowd did not gather", || alive(&mark).len() == 51);
    // The one of the new children that is the ancestor of the crowd; tests beside this one start launchers too.
    let parent = |pid: i32| -> i32 {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        stat.rsplit(") ").next().unwrap().split(' ').nth(1).unwrap().parse().unwrap()
    };
    let mut ancestor = alive(&mark)[0];
    while !started.contains(&ancestor) {
        ancestor = parent(ancestor);
        assert!(ancestor > 1, "the launcher is not among {started:?}");
    }
    kill_process(Pid::from_raw(ancestor).unwrap(), Signal::KILL).unwrap();
    within(PATIENCE, "still running", || alive(&mark).is_empty());
    assert!(matches!(running.wait(&mut |_| {}), Err(SetupError::Lost)));
    // The next start is an ordinary one.
    let next = kiln_sandbox::Launcher::start().unwrap();
    let next = bench.start_by(&next, &plan, Stdio::Log).unwrap();
    let canceller = next.canceller();
    assert_eq!(next.wait(&mut |_| canceller.cancel()).unwrap().how, How::Cancelled);
    assert!(launcher.spawn(&plan, &bench.slot, Stdio::Log).is_err(), "the dead one starts nothing more");
}

#[test]
fn e27_dropping_a_sandbox_or_its_launcher_kills_it() {
    let Some(bench) = bench_of(PROCESS) else { return };
    let mark = mark("drop");
    let plan = plan(&bench.spec("sleep", &[&mark]), &probe()).unwrap();
    let gone = || within(PATIENCE, "still running", || alive(&mark).is_empty());
    let running = bench.start(&plan, Stdio::Log).unwrap();
    within(PATIENCE, "it did not start", || alive(&mark).len() == 1);
    drop(running);
    gone();
    let launcher = kiln_sandbox::Launcher::start().unwrap();
    let running = bench.start_by(&launcher, &plan, Stdio::Log).unwrap();
    within(PATIENCE, "it did not start", || alive(&mark).len() == 1);
    drop(launcher);
    assert!(matches!(running.wait(&mut |_| {}), Err(SetupError::Lost)));
    gone();
}
