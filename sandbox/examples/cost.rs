//! What a sandbox costs to start: `cost ROOT [N]`, with ROOT a directory that holds a static program `bin/true`.
//!
//! Contenders take turns in one process, so that load hits all alike: a plain spawn (the floor), kiln's library with
//! everything on, and bubblewrap with everything that it has, where it is installed. Judge ratios, not microseconds.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use kiln_sandbox::{How, Input, Launcher, ProcMode, Slot, Spec, Stdio, plan, probe};

/// Name, what it does, how long that took each time.
type Contender<'a> = (&'a str, Box<dyn Fn() + 'a>, Vec<u128>);

fn main() {
    let mut arguments = std::env::args_os().skip(1);
    let root = PathBuf::from(arguments.next().expect("usage: cost ROOT [N]"));
    let count = arguments
        .next()
        .map_or(100, |count| count.to_str().and_then(|count| count.parse().ok()).expect("N is a number"));
    let launcher = Launcher::start().expect("the launcher starts");
    let slot = Slot::lease(&std::env::temp_dir().join("kiln-cost-slots")).expect("a slot is free");
    let host = probe();
    let planned = |mode| {
        let mut spec = Spec::new("/bin/true");
        spec.inputs.push(Input { source: root.join("bin"), target: "/bin".into() });
        spec.proc_mode = mode;
        plan(&spec, &host).expect("this host can isolate")
    };
    let (compat, strict) = (planned(ProcMode::Compat), planned(ProcMode::Strict));
    let run = |plan| {
        let running = launcher.spawn(plan, &slot, Stdio::Log).expect("it starts");
        let ended = running.wait(&mut |_| {}).expect("it is set up");
        assert_eq!(ended.how, How::Exited(0));
    };
    let bubblewrap = Path::new("/usr/bin/bwrap").exists();
    let mut contenders: Vec<Contender<'_>> = vec![
        ("spawn", Box::new(|| spawn(Command::new(root.join("bin/true")))), Vec::new()),
        ("kiln, compat /proc", Box::new(|| run(&compat)), Vec::new()),
        ("kiln, strict /proc", Box::new(|| run(&strict)), Vec::new()),
    ];
    if bubblewrap {
        contenders.push(("bwrap full", Box::new(|| spawn(wrapped(&root))), Vec::new()));
    }
    for _ in 0..count {
        for (_, act, times) in &mut contenders {
            let start = Instant::now();
            act();
            times.push(start.elapsed().as_micros());
        }
    }
    println!("{:<20} {:>8} {:>8} {:>8} µs, n={count}", "", "min", "p10", "median");
    for (name, _, times) in &mut contenders {
        times.sort_unstable();
        println!("{name:<20} {:>8} {:>8} {:>8}", times[0], times[count / 10], times[count / 2]);
    }
}

fn spawn(mut command: Command) {
    assert!(command.status().expect("it starts").success());
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
