//! What a sandbox costs to start: `cost ROOT [N [KILN]]`, with ROOT a directory that holds a static program `bin/true`, and
//! KILN the program whose command `sandbox` is measured too.
//!
//! Contenders take turns in one process, so that load hits all alike: a plain spawn, the same without a C library
//! (glibc 2.36 asks an Intel processor 68 times what it can do, and a virtual machine may take ten microseconds for
//! each answer: that stands once in the times of the floor and of kiln's library, twice in those of the two commands),
//! the bare namespaces (the floor: what the kernel asks for them and nothing more), kiln's library with everything on,
//! the same begun ahead of what is timed (without clocks of its own, which do not wait), kiln's command, and bubblewrap with everything that it has, where it is
//! installed. The caller then grows by 1 GiB and takes turns with a small one; further inputs are added, and the bare
//! calls of as many; batches run side by side, and what they leave is counted. Beside each figure stands its goal.
//! Judge ratios.

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio as Pipe};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use kiln_sandbox::{Begun, Host, How, Input, Launcher, Plan, ProcMode, Slot, Spec, Stdio, plan, probe};

/// Name, what it does, how many microseconds that took each time.
type Contender<'a> = (&'static str, Box<dyn Fn() + 'a>);

/// Minimum, tenth percentile, median, third quartile.
#[derive(Clone, Copy)]
struct Times {
    min: f64,
    p10: f64,
    median: f64,
    p75: f64,
}

/// What a contender's time is to be at most: so much of bubblewrap's, so much of the floor.
#[derive(Clone, Copy)]
struct Goal {
    of_peer: f64,
    of_floor: Option<f64>,
}

/// A plan, and the first half of its sandbox.
struct Ahead {
    plan: Plan,
    begun: Mutex<Option<Begun>>,
}

struct Bench {
    root: PathBuf,
    count: usize,
    kiln: Option<PathBuf>,
    host: Host,
    slot: Slot,
}

fn main() {
    let mut arguments = std::env::args_os().skip(1);
    let root = PathBuf::from(arguments.next().expect("usage: cost ROOT [N]"));
    let count = arguments
        .next()
        .map_or(100, |count| count.to_str().and_then(|count| count.parse().ok()).expect("N is a number"));
    let kiln = arguments.next().map(PathBuf::from);
    let slot = Slot::lease(&std::env::temp_dir().join("kiln-cost-slots")).expect("a slot is free");
    let bench = Bench { root, count, kiln, host: probe(), slot };
    bench.describe();
    bench.starts();
    bench.size_of_the_caller();
    bench.inputs();
    bench.batches();
}

impl Bench {
    fn describe(&self) {
        let version = Command::new("/usr/bin/bwrap").arg("--version").output();
        let version =
            version.map_or_else(|_| "no bubblewrap".into(), |o| String::from_utf8_lossy(&o.stdout).into_owned());
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        println!(
            "Linux {}, {cpus} processors, load {}, {}, as {:?}, n={}",
            self.host.kernel,
            load.split(' ').next().unwrap_or_default(),
            version.trim(),
            self.host.caller,
            self.count,
        );
    }

    fn plan(&self, proc_mode: ProcMode, further_inputs: usize) -> Plan {
        plan(&self.spec(proc_mode, further_inputs), &self.host).expect("this host can isolate")
    }

    fn spec(&self, proc_mode: ProcMode, further_inputs: usize) -> Spec {
        let mut spec = Spec::new("/bin/true");
        spec.process.argv.push(std::process::id().to_string().into());
        spec.inputs.push(Input { source: self.root.join("bin"), target: "/bin".into() });
        for number in 0..further_inputs {
            spec.inputs.push(Input { source: self.root.join("bin"), target: format!("/inputs/{number}").into() });
        }
        spec.proc_mode = proc_mode;
        spec
    }

    fn run(&self, launcher: &Launcher, plan: &Plan) {
        let running = launcher.spawn(plan, &self.slot, Stdio::Log).expect("it starts");
        let ended = running.wait(&mut |_| {}).expect("it is set up");
        assert_eq!(ended.how, How::Exited(0));
    }

    /// A plan that can be begun ahead: bubblewrap has no time namespace either.
    fn ahead(&self, proc_mode: ProcMode) -> Ahead {
        let mut spec = self.spec(proc_mode, 0);
        spec.time_offsets = None;
        Ahead { plan: plan(&spec, &self.host).expect("this host can isolate"), begun: Mutex::default() }
    }

    fn begin(&self, launcher: &Launcher, ahead: &Ahead) {
        let begun = launcher.begin(&ahead.plan, &self.slot, Stdio::Log).expect("it begins");
        *ahead.begun.lock().expect("no turn panicked") = begun;
    }

    fn go_on(&self, launcher: &Launcher, ahead: &Ahead) {
        let begun = ahead.begun.lock().expect("no turn panicked").take().expect("it can be begun");
        let running = launcher.resume(begun, &ahead.plan, &self.slot, Stdio::Log).expect("it goes on");
        let ended = running.wait(&mut |_| {}).expect("it is set up");
        assert_eq!(ended.how, How::Exited(0));
    }

    fn starts(&self) {
        let launcher = start();
        let directory = tempfile::TempDir::new().expect("a directory");
        let no_library = compiled(include_str!("exit.c"), &["-nostdlib"], directory.path());
        let floor = Bare::start(include_str!("floor.c"), &self.root.join("bin/true"));
        let (compat, strict) = (self.plan(ProcMode::Compat, 0), self.plan(ProcMode::Strict, 0));
        let [ahead_strict, ahead_compat] = [ProcMode::Strict, ProcMode::Compat].map(|mode| self.ahead(mode));
        let library = Goal { of_peer: 0.60, of_floor: Some(1.6) };
        let ahead = Goal { of_peer: 0.45, of_floor: None };
        let command = Goal { of_peer: 0.85, of_floor: None };
        let mut contenders: Vec<Contender<'_>> = vec![
            ("plain spawn", Box::new(|| spawn(Command::new(self.root.join("bin/true"))))),
            ("the same, no C library", Box::new(|| spawn(Command::new(&no_library)))),
            ("namespace floor", Box::new(|| floor.run(0))),
            ("kiln strict /proc", Box::new(|| self.run(&launcher, &strict))),
            ("kiln compat /proc", Box::new(|| self.run(&launcher, &compat))),
            ("kiln strict, begun ahead", Box::new(|| self.go_on(&launcher, &ahead_strict))),
            ("kiln compat, begun ahead", Box::new(|| self.go_on(&launcher, &ahead_compat))),
        ];
        let mut goals = vec![None, None, None, Some(library), Some(library), Some(ahead), Some(ahead)];
        if let Some(kiln) = &self.kiln {
            contenders.push(("command, strict /proc", Box::new(|| spawn(commanded(kiln, &self.root, "strict")))));
            contenders.push(("command, compat /proc", Box::new(|| spawn(commanded(kiln, &self.root, "compat")))));
            goals.extend([Some(command), Some(command)]);
        }
        let bubblewrap = Path::new("/usr/bin/bwrap").exists();
        if bubblewrap {
            contenders.push(("bwrap full", Box::new(|| spawn(wrapped(&self.root)))));
            goals.push(None);
        }
        let times = self.interleave(&contenders, &|| {
            [&ahead_strict, &ahead_compat].into_iter().for_each(|ahead| self.begin(&launcher, ahead));
            // What was begun is to wait, not to run, when the turns begin.
            std::thread::sleep(Duration::from_millis(5));
        });
        let (bare, peer) = (times[2], times[times.len() - 1]);
        if times[0].median > 1.5 * times[0].min {
            println!("noisy: the plain spawn's median is over 1.5 times its minimum");
        }
        println!(
            "{:<26} {:>7} {:>7} {:>7} {:>7} µs  /bwrap median  p10  goal  /floor median  p10  goal",
            "", "min", "p10", "median", "p75"
        );
        for (((name, _), t), goal) in contenders.iter().zip(&times).zip(&goals) {
            let of_peer = match bubblewrap {
                true => format!("{:>10.2} {:>8.2}", t.median / peer.median, t.p10 / peer.p10),
                false => format!("{:>10} {:>8}", "-", "-"),
            };
            let shown = |goal: Option<f64>| goal.map_or(String::from("-"), |goal| format!("{goal:.2}"));
            println!(
                "{name:<26} {:>7.0} {:>7.0} {:>7.0} {:>7.0}   {of_peer} {:>6} {:>11.2} {:>7.2} {:>5}",
                t.min,
                t.p10,
                t.median,
                t.p75,
                shown(goal.map(|goal| goal.of_peer)),
                t.median / bare.median,
                t.p10 / bare.p10,
                shown(goal.and_then(|goal| goal.of_floor)),
            );
        }
    }

    fn size_of_the_caller(&self) {
        let (launcher, strict) = (start(), self.plan(ProcMode::Strict, 0));
        let turn = || {
            let begin = Instant::now();
            self.run(&launcher, &strict);
            begin.elapsed().as_nanos() as f64 / 1000.0
        };
        // Grows and shrinks again every ten turns, so that load hits both alike.
        let (mut small, mut large) = (Vec::new(), Vec::new());
        while small.len() < self.count {
            small.extend((0..10).map(|_| turn()));
            let mut grown = vec![0u8; 1 << 30];
            grown.iter_mut().step_by(4096).for_each(|byte| *byte = 1);
            large.extend((0..10).map(|_| turn()));
            assert_eq!(std::hint::black_box(&grown)[4096], 1);
        }
        let (small, large) = (Times::of(&mut small), Times::of(&mut large));
        println!(
            "caller of 1 GiB            {:+.1} % median, {:+.1} % p10; goal +10 %",
            100.0 * (large.median / small.median - 1.0),
            100.0 * (large.p10 / small.p10 - 1.0)
        );
    }

    fn inputs(&self) {
        let launcher = start();
        let bare = Bare::start(include_str!("inputs.c"), &self.root);
        let (few, many) = (self.plan(ProcMode::Strict, 0), self.plan(ProcMode::Strict, 1000));
        let contenders: Vec<Contender<'_>> = vec![
            ("1", Box::new(|| self.run(&launcher, &few))),
            ("1001", Box::new(|| self.run(&launcher, &many))),
            ("1, bare", Box::new(|| bare.run(0))),
            ("1001, bare", Box::new(|| bare.run(1))),
        ];
        let times = self.interleave(&contenders, &|| {});
        let each = |few: Times, many: Times| ((many.median - few.median) / 1000.0, (many.p10 - few.p10) / 1000.0);
        let (ours, floor) = (each(times[0], times[1]), each(times[2], times[3]));
        println!(
            "each further input         {:.1} µs median, {:.1} µs p10; the bare calls {:.1} and {:.1}; goal 8",
            ours.0, ours.1, floor.0, floor.1
        );
    }

    fn batches(&self) {
        const SANDBOXES: usize = 1000;
        const AT_ONCE: usize = 8;
        for all_ahead in [false, true] {
            let before = Left::now();
            let (launcher, strict) = (start(), self.plan(ProcMode::Strict, 0));
            let in_halves = self.ahead(ProcMode::Strict).plan;
            let run = || match all_ahead {
                false => self.run(&launcher, &strict),
                true => {
                    let ahead = Ahead { plan: in_halves.clone(), begun: Mutex::default() };
                    self.begin(&launcher, &ahead);
                    self.go_on(&launcher, &ahead);
                }
            };
            let begin = Instant::now();
            std::thread::scope(|scope| {
                for _ in 0..AT_ONCE {
                    scope.spawn(|| (0..SANDBOXES / AT_ONCE).for_each(|_| run()));
                }
            });
            let each = begin.elapsed().as_micros() as usize / SANDBOXES;
            drop(launcher);
            let after = Left::now();
            println!(
                "{SANDBOXES} sandboxes, {AT_ONCE} at once{}: {each} µs each; left behind: {} processes, {} mounts, {} groups; goal 0",
                if all_ahead { ", in two halves" } else { "" },
                after.processes.saturating_sub(before.processes),
                after.mounts.saturating_sub(before.mounts),
                after.groups.saturating_sub(before.groups),
            );
        }
    }

    /// One turn each, N times. What is made ready before is not timed.
    fn interleave(&self, contenders: &[Contender<'_>], ready: &dyn Fn()) -> Vec<Times> {
        let mut all = vec![Vec::with_capacity(self.count); contenders.len()];
        for turn in 0..self.count + 3 {
            ready();
            for ((_, act), times) in contenders.iter().zip(&mut all) {
                let begin = Instant::now();
                act();
                // The first turns warm caches up.
                if turn >= 3 {
                    times.push(begin.elapsed().as_nanos() as f64 / 1000.0);
                }
            }
        }
        all.iter_mut().map(|times| Times::of(times)).collect()
    }
}

impl Times {
    fn of(times: &mut [f64]) -> Self {
        times.sort_unstable_by(f64::total_cmp);
        let at = |percent: usize| times[times.len() * percent / 100];
        Self { min: times[0], p10: at(10), median: at(50), p75: at(75) }
    }
}

/// What of this run is on this machine: launchers and payloads, the caller's mounts, control groups.
struct Left {
    processes: usize,
    mounts: usize,
    groups: usize,
}

impl Left {
    fn now() -> Self {
        let own = std::process::id().to_string();
        let named = |entry: &fs::DirEntry| {
            let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let is_child = stat.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(1)) == Some(&*own);
            // The payload says whose it is: an orphan's parent is someone else.
            is_child || line.split(|&byte| byte == 0).nth(1) == Some(own.as_bytes())
        };
        let entries = |path: &str| fs::read_dir(path).into_iter().flatten().filter_map(Result::ok).collect::<Vec<_>>();
        let groups = ["memory", "pids", "cpuacct", "unified", ""].map(|top| entries(&format!("/sys/fs/cgroup/{top}")));
        Self {
            processes: entries("/proc").iter().filter(|entry| named(entry)).count(),
            mounts: fs::read_to_string("/proc/self/mountinfo").unwrap_or_default().lines().count(),
            groups: groups
                .iter()
                .flatten()
                .filter(|entry| entry.file_name().to_string_lossy().starts_with(&format!("kiln-sandbox-{own}-")))
                .count(),
        }
    }
}

fn start() -> Launcher {
    Launcher::start().expect("the launcher starts")
}

fn spawn(mut command: Command) {
    assert!(command.status().expect("it starts").success());
}

/// The static program that this C text is.
fn compiled(text: &str, options: &[&str], directory: &Path) -> PathBuf {
    let (source, binary) = (directory.join("program.c"), directory.join("program"));
    fs::write(&source, text).expect("written");
    let mut compiler = Command::new("cc");
    compiler.args(["-static", "-O2"]).args(options).arg("-o").args([&binary, &source]);
    spawn(compiler);
    binary
}

/// A small process that makes bare system calls, on request: what the kernel itself takes for them.
struct Bare {
    process: Mutex<Child>,
}

impl Bare {
    fn start(text: &str, argument: &Path) -> Self {
        let directory = tempfile::TempDir::new().expect("a directory");
        let mut command = Command::new(compiled(text, &[], directory.path()));
        command.arg(argument).stdin(Pipe::piped()).stdout(Pipe::piped());
        Self { process: Mutex::new(command.spawn().expect("it starts")) }
    }

    fn run(&self, byte: u8) {
        let mut process = self.process.lock().expect("no turn panicked");
        process.stdin.as_mut().expect("piped").write_all(&[byte]).expect("it listens");
        process.stdout.as_mut().expect("piped").read_exact(&mut [0]).expect("it made the calls");
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        let process = self.process.get_mut().expect("no turn panicked");
        process.stdin = None;
        let _ = process.wait();
    }
}

fn commanded(kiln: &Path, root: &Path, proc_mode: &str) -> Command {
    let mut command = Command::new(kiln);
    command.args(["sandbox", "--proc", proc_mode, "--ro-bind"]).arg(root.join("bin")).args(["/bin", "--", "/bin/true"]);
    command
}

fn wrapped(root: &Path) -> Command {
    let mut command = Command::new("/usr/bin/bwrap");
    command
        .args(["--unshare-all", "--die-with-parent", "--new-session", "--hostname", "localhost"])
        .args(["--uid", "1000", "--gid", "100", "--clearenv", "--cap-drop", "ALL", "--ro-bind"])
        .arg(root.join("bin"))
        .args(["/bin", "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "/bin/true"]);
    command
}
