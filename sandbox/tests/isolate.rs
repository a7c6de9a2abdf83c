//! The isolation is the claim: a small static program runs inside, tries, and is judged outside. One test per promise.
//!
//! Runs as whoever runs it, root and ordinary users alike. What a host cannot carry is skipped with the reason
//! printed; with `MUST_ISOLATE=1` that fails.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;
#[path = "harness/here.rs"]
mod here;
#[path = "isolate/range.rs"]
mod range;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio as ProcessStdio};
use std::time::Duration;

use harness::{Run, alive, all_ahead, bench, owner};
use kiln_sandbox::{
    Aslr, Filter, How, Ids, Input, Kernel, ProcMode, Root, SetupError, Spec, Stdio, TimeBase, Which, plan, probe,
};

/// The probe found nothing that it should not.
#[track_caller]
fn passes(run: &Run) {
    assert_eq!(run.ended.how, How::Exited(0), "\n{}", run.log);
}

#[test]
fn a_program_runs_and_its_output_and_exit_code_come_back() {
    let Some(bench) = bench() else { return };
    let run = bench.run(&bench.spec("hello", &["7"]));
    assert_eq!(run.ended.how, How::Exited(7), "{}", run.log);
    assert_eq!(run.log, "to stdout\nto stderr\n");
    assert!(run.ended.achieved.kuid_nonzero);
    assert!(run.ended.usage.peak_memory.is_some_and(|bytes| bytes > 0));
}

/// Else a run with everything begun ahead would show nothing.
#[test]
fn what_is_to_be_begun_ahead_is() {
    let Some(bench) = bench() else { return };
    let plan = plan(&bench.spec("hello", &[]), &probe()).unwrap();
    let begun = bench.launcher.begin(&plan, &bench.slot, Stdio::Log).unwrap();
    assert_eq!(begun.is_some(), all_ahead());
}

#[test]
fn a_signal_that_ends_the_payload_is_told() {
    let Some(bench) = bench() else { return };
    assert_eq!(bench.run(&bench.spec("hello", &["signal"])).ended.how, How::Signaled(6));
}

#[test]
fn the_root_holds_what_was_named_and_nothing_of_the_host() {
    let Some(bench) = bench() else { return };
    let run = bench.run(&bench.spec("list", &["/"]));
    passes(&run);
    let names: Vec<&str> = run.log.lines().collect();
    assert_eq!(names, ["build", "dev", "etc", "nix", "probe", "proc", "tmp"]);
    let store = bench.run(&bench.spec("list", &["/nix/store"]));
    assert_eq!(store.log.lines().collect::<Vec<_>>(), ["input", "link", "single"]);
    let host = bench.path("input");
    passes(
        &bench.run(&bench.spec("absent", &[host.to_str().unwrap(), "/home", "/root", "/usr", "/etc/shadow", "/sys"])),
    );
}

/// Once a file system stacked on the host's root took the unmount that was meant for it.
#[test]
fn the_host_s_root_is_unmounted_and_not_only_hidden() {
    let Some(bench) = bench() else { return };
    for spec in [bench.spec("mounts", &[]), bench.tree_spec("mounts", &[], Root::Tree)] {
        passes(&bench.run(&spec));
    }
}

#[test]
fn etc_is_nix_s_to_the_byte_on_an_empty_root_and_over_a_tree_s_own() {
    let Some(bench) = bench() else { return };
    for spec in [bench.spec("cat", &["/etc/passwd"]), bench.tree_spec("cat", &["/etc/passwd"], Root::Tree)] {
        let run = bench.run(&spec);
        assert_eq!(
            run.log,
            "root:x:0:0:Nix build user:/build:/noshell\nnixbld:x:1000:100:Nix build user:/build:/noshell\n\
             nobody:x:65534:65534:Nobody:/:/noshell\n"
        );
    }
    assert_eq!(bench.run(&bench.tree_spec("cat", &["/etc/own"], Root::Tree)).log, "the tree's\n");
}

#[test]
fn a_tree_as_root_is_read_only_and_a_writable_one_keeps_what_is_written() {
    let Some(bench) = bench() else { return };
    let run = bench.run(&bench.tree_spec("touch", &["/made"], Root::Tree));
    assert_eq!(run.ended.how, How::Exited(1), "{}", run.log);
    assert!(run.log.contains("Read-only file system"), "{}", run.log);
    passes(&bench.run(&bench.tree_spec("touch", &["/made"], Root::WritableTree)));
    assert_eq!(owner(&bench.path("tree/made")), bench.slot.uid());
}

#[test]
fn proc_tells_nothing_of_the_host_s_hardware_keys_and_load() {
    let Some(bench) = bench() else { return };
    passes(&bench.run(&bench.spec("masked", &[])));
    let mut spec = bench.spec("absent", &["/proc/meminfo", "/proc/sys", "/proc/cpuinfo"]);
    spec.proc_mode = ProcMode::Strict;
    passes(&bench.run(&spec));
    let mut spec = bench.spec("absent", &["/proc/self"]);
    spec.proc_mode = ProcMode::None;
    passes(&bench.run(&spec));
}

#[test]
fn devices_are_the_fixed_few_and_standard_streams_can_be_opened_by_name() {
    let Some(bench) = bench() else { return };
    passes(&bench.run(&bench.spec("devices", &[])));
}

#[test]
fn what_the_process_saw_is_what_was_asked_for() {
    let Some(bench) = bench() else { return };
    let mut spec = bench.spec("facts", &[]);
    spec.surface.hostname = "elsewhere".into();
    spec.surface.domain = "example".into();
    spec.ids = Ids::One { uid: 1234, gid: 567 };
    spec.process.umask = 0o077;
    spec.process.first_pid = Some(5001);
    spec.process.personality = Kernel::Uname26;
    let all: Vec<usize> = all_cpus();
    spec.process.affinity = Some(vec![*all.last().unwrap()]);
    spec.time_offsets = Some(TimeBase { seconds: 5_000_000 });
    let run = bench.run(&spec);
    passes(&run);
    let seen = run.ended.observed.unwrap();
    assert_eq!((seen.hostname.as_str(), seen.domain.as_str()), ("elsewhere", "example"));
    assert_eq!((seen.uid, seen.gid, seen.umask, seen.pid), (1234, 567, 0o077, 5001));
    assert_eq!((seen.cwd.as_str(), seen.aslr), ("/build", Aslr::Fixed));
    assert_eq!(seen.cpus, [*all.last().unwrap()]);
    assert!(seen.release.starts_with("2.6."), "{}", seen.release);
    assert!((5_000_000..5_000_060).contains(&seen.boot_seconds));
    // And the program itself sees the same.
    for line in
        ["hostname elsewhere", "domain example", "uid 1234", "gid 567", "pid 5001", "umask 077", "cpus 1", "groups 0"]
    {
        assert!(run.log.lines().any(|seen| seen == line), "{line} in\n{}", run.log);
    }
    assert!(run.log.contains("personality 0x60000"), "{}", run.log);
    assert!(run.log.contains("release 2.6."), "{}", run.log);
    assert!(run.log.contains("boot 50000"), "{}", run.log);
    assert!(run.log.contains("core 0"), "{}", run.log);
}

fn all_cpus() -> Vec<usize> {
    let set = rustix::thread::sched_getaffinity(None).unwrap();
    (0..rustix::thread::CpuSet::MAX_CPU).filter(|&cpu| set.is_set(cpu)).collect()
}

#[test]
fn addresses_are_fixed_unless_released() {
    let Some(bench) = bench() else { return };
    let stack = |aslr| {
        let mut spec = bench.spec("facts", &[]);
        spec.process.aslr = aslr;
        let run = bench.run(&spec);
        assert_eq!(run.ended.observed.unwrap().aslr, aslr);
        run.log.lines().find(|line| line.starts_with("stack")).unwrap().to_owned()
    };
    assert_eq!(stack(Aslr::Fixed), stack(Aslr::Fixed));
    assert_ne!(stack(Aslr::Random), stack(Aslr::Random));
}

#[test]
fn a_payload_with_one_processor_sees_one_everywhere() {
    let Some(bench) = bench() else { return };
    let mut spec = bench.spec("one-cpu", &[]);
    spec.process.affinity = Some(vec![all_cpus()[0]]);
    passes(&bench.run(&spec));
}

#[test]
fn the_environment_is_exactly_the_one_given() {
    let Some(bench) = bench() else { return };
    let mut spec = bench.spec("cat", &["/proc/self/environ"]);
    spec.process.env = vec!["B=2".into(), "A=1".into()];
    assert_eq!(bench.run(&spec).log, "B=2\0A=1\0".split('\0').next().unwrap());
}

/// A word that no other process on this machine has in its command line.
fn mark(name: &str) -> String {
    format!("mark-{name}-{}", std::process::id())
}

#[test]
fn the_deadline_lets_a_program_that_listens_end_in_order() {
    let Some(bench) = bench() else { return };
    let mut spec = bench.spec("on-term", &[]);
    spec.limits.wall = Some(Duration::from_millis(300));
    let run = bench.run(&spec);
    assert_eq!((run.ended.how, run.log.as_str()), (How::TimedOut, "asleep\ntold to end\n"));
}

#[test]
fn cpu_time_and_file_size_have_limits_that_are_named() {
    let Some(bench) = bench() else { return };
    let mut spec = bench.spec("spin", &[]);
    spec.limits.cpu = Some(1);
    assert_eq!(bench.run(&spec).ended.how, How::LimitExceeded(Which::Cpu));
    let mut spec = bench.spec("big-file", &[]);
    spec.limits.file_size = Some(1 << 20);
    assert_eq!(bench.run(&spec).ended.how, How::LimitExceeded(Which::FileSize));
    assert_eq!(fs::metadata(bench.path("build/big")).unwrap().len(), 1 << 20);
}

#[test]
fn cancelling_kills_the_tree() {
    let Some(bench) = bench() else { return };
    let mark = mark("cancel");
    let spec = bench.spec("sleep", &[&mark]);
    let running = bench.start(&plan(&spec, &probe()).unwrap(), Stdio::Log).unwrap();
    let canceller = running.canceller();
    let mut cancel_once = |_: &[u8]| canceller.cancel();
    let ended = running.wait(&mut cancel_once).unwrap();
    assert_eq!(ended.how, How::Cancelled);
    assert_eq!(alive(&mark), [0i32; 0]);
}

/// A kiln of its own, whose streams the test below reads.
#[test]
#[ignore = "started by the test that reads its output"]
fn another_kiln() {
    let bench = bench().unwrap();
    let spec = bench.spec("hello", &["0"]);
    let running = bench.start(&plan(&spec, &probe()).unwrap(), Stdio::Inherit).unwrap();
    assert_eq!(running.wait(&mut |_| panic!("there is no log")).unwrap().how, How::Exited(0));
}

#[test]
fn inherited_streams_are_the_caller_s_own() {
    if bench().is_none() {
        return;
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "another_kiln", "--nocapture", "--ignored"])
        .stdin(ProcessStdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("to stdout\n"));
    assert!(String::from_utf8_lossy(&output.stderr).contains("to stderr\n"));
}

#[test]
fn a_fake_root_believes_and_the_files_stay_the_slot_s() {
    let Some(bench) = bench() else { return };
    let mut spec = bench.tree_spec("fake-root", &[], Root::WritableTree);
    spec.filter = Filter::FakeRoot;
    spec.ids = Ids::FakeRoot;
    let run = bench.run(&spec);
    passes(&run);
    assert_eq!(owner(&bench.path("build/file")), bench.slot.uid());
    assert_eq!(fs::metadata(bench.path("build/file")).unwrap().permissions().mode() & 0o6000, 0);
    assert!(!bench.path("build/device").exists());
}

#[test]
fn a_program_that_does_not_exist_is_a_setup_error_that_names_it() {
    let Some(bench) = bench() else { return };
    let mut spec = bench.spec("hello", &["0"]);
    spec.process.program = "/nowhere".into();
    let Err(SetupError::Step { step, path, error }) = bench.try_run(&spec) else { panic!("it ran") };
    assert!(step.contains("execute /nowhere"), "{step}");
    assert_eq!(path, Some(PathBuf::from("/nowhere")));
    assert_eq!(error.raw_os_error(), Some(2));
}

#[test]
fn a_missing_source_and_a_missing_mount_point_are_named() {
    let Some(bench) = bench() else { return };
    let mut spec = bench.spec("hello", &["0"]);
    spec.inputs.push(Input { source: bench.path("missing"), target: "/x".into() });
    let Err(SetupError::Source { path, .. }) = bench.try_run(&spec) else { panic!("it ran") };
    assert_eq!(path, bench.path("missing"));

    let mut spec = bench.tree_spec("hello", &["0"], Root::Tree);
    spec.inputs.push(Input { source: bench.path("input"), target: "/not/there".into() });
    let Err(SetupError::Step { step, path, error }) = bench.try_run(&spec) else { panic!("it ran") };
    assert!(step.contains("bind not/there"), "{step}");
    assert_eq!(path, Some(bench.path("input")));
    assert_eq!(error.raw_os_error(), Some(30));
}

#[test]
fn a_symlink_in_a_root_cannot_redirect_a_mount() {
    let Some(bench) = bench() else { return };
    let mut spec = bench.tree_spec("hello", &["0"], Root::Tree);
    let tree = bench.path("tree");
    fs::remove_dir(tree.join("build")).unwrap();
    std::os::unix::fs::symlink("/tmp", tree.join("build")).unwrap();
    spec.process.cwd = "/".into();
    let Err(SetupError::Step { step, .. }) = bench.try_run(&spec) else { panic!("it ran") };
    assert!(step.contains("bind build"), "{step}");
}

#[test]
fn many_sandboxes_share_a_launcher_and_each_gets_its_own_end() {
    let Some(bench) = bench() else { return };
    std::thread::scope(|scope| {
        for code in 0..16u8 {
            let bench = &bench;
            scope.spawn(move || {
                let mut spec = Spec::new("/probe");
                spec.process.argv = ["probe", "hello", &code.to_string()].map(Into::into).into();
                spec.inputs.push(Input { source: bench.path("probe"), target: "/probe".into() });
                let run = bench.run(&spec);
                assert_eq!(run.ended.how, How::Exited(code), "{}", run.log);
            });
        }
    });
}

#[test]
fn a_thousand_inputs_are_mounted() {
    let Some(bench) = bench() else { return };
    let mut spec = bench.spec("list", &["/nix/store"]);
    for number in 0..1000 {
        spec.inputs.push(Input { source: bench.path("input"), target: format!("/nix/store/n{number:04}").into() });
    }
    let run = bench.run(&spec);
    passes(&run);
    assert_eq!(run.log.lines().count(), 1003);
}
