//! No privilege inside, none that comes out: set-id files, attributes, devices, pid 1, sysctls, namespaces, terminals.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::{Command, Stdio as ProcessStdio};

use kiln_sandbox::{Filter, Ids, Input, ProcMode, Root, Spec};
use rustix::fs::SealFlags;

use crate::ground::{FILES, PROCESS, another, held, is_root, mark, not_here, outside, start_another, told};
use crate::harness::{Bench, bench_of, owner};

/// The same as a fake root, which keeps some capabilities and another filter.
fn as_fake_root(bench: &Bench, command: &str, arguments: &[&str]) -> Spec {
    let mut spec = bench.tree_spec(command, arguments, Root::WritableTree);
    spec.filter = Filter::FakeRoot;
    spec.ids = Ids::FakeRoot;
    spec
}

/// Nix's filter knew chmod alone; `open`, `mknod`, `openat2` and `O_TMPFILE` all made such files.
#[test]
fn e10_no_route_makes_a_setuid_file() {
    let Some(bench) = bench_of(FILES) else { return };
    held(&bench.run(&bench.spec("setuid", &[])), 20);
    let mut seen = 0;
    for entry in fs::read_dir(bench.path("build")).unwrap() {
        let mode = entry.unwrap().metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o6000, 0);
        seen += 1;
    }
    assert!(seen >= 3, "its plain files are there");
    let control = outside(&bench, &["setuid"]);
    let log = String::from_utf8_lossy(&control.stdout);
    for call in ["chmod(\"plain\", 04755)", "open(\"by-open\"", "mknod(\"by-mknod\"", "by-openat2", "O_TMPFILE"] {
        assert!(log.lines().any(|line| line.contains(call) && line.ends_with("possible")), "{call} in\n{log}");
    }
}

/// Setting a capability in a namespace of one's own and copying the file brought cap_net_admin to the host.
#[test]
fn e11_no_attribute_capability_or_access_list_can_be_set_or_removed() {
    let Some(bench) = bench_of(FILES) else { return };
    held(&bench.run(&bench.spec("attributes", &[])), 40);
    let mut room = [0u8; 0];
    assert_eq!(rustix::fs::listxattr(bench.path("build/plain"), &mut room).unwrap(), 0);
    let control = outside(&bench, &["attributes"]);
    let log = String::from_utf8_lossy(&control.stdout);
    if !log.contains("possible") {
        not_here("E11 control", "the file system of temporary files has no attributes");
    }
}

#[test]
fn e12_no_device_and_no_whiteout_can_be_made() {
    let Some(bench) = bench_of(FILES) else { return };
    held(&bench.run(&bench.spec("nodes", &[])), 15);
    let control = outside(&bench, &["nodes"]);
    let log = String::from_utf8_lossy(&control.stdout);
    assert!(log.contains("possible"), "a whiteout is anyone's to make:\n{log}");
}

/// CVE-2019-5736 wrote to the program that had started the container.
#[test]
fn e13_pid_1_can_be_neither_traced_nor_opened_nor_run_nor_killed() {
    let Some(bench) = bench_of(PROCESS) else { return };
    held(&bench.run(&bench.spec("pid1", &[])), 20);
    let run = bench.run(&as_fake_root(&bench, "pid1", &[]));
    held(&run, 20);
}

#[test]
fn e13_the_launcher_runs_from_memory_that_nobody_can_change() {
    let Some(bench) = bench_of(PROCESS) else { return };
    let launchers: Vec<i32> = crate::ends::children()
        .into_iter()
        .filter(|pid| {
            fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.starts_with("kiln-launcher\0"))
        })
        .collect();
    assert!(!launchers.is_empty());
    for pid in launchers {
        let exe = format!("/proc/{pid}/exe");
        // Another test's may end at any moment.
        let (Ok(name), Ok(file)) = (fs::read_link(&exe), fs::File::open(&exe)) else { continue };
        assert!(name.to_string_lossy().starts_with("/memfd:"), "{name:?}");
        let seals = rustix::fs::fcntl_get_seals(file.as_fd()).unwrap();
        assert!(seals.contains(SealFlags::SEAL | SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK));
        assert!(fs::OpenOptions::new().write(true).open(&exe).is_err());
    }
    drop(bench);
}

/// As root `unshare` and bubblewrap let a build write core_pattern, which is running code on the host.
#[test]
fn e18_sysctls_and_release_agents_cannot_be_written_even_for_root_s_kiln() {
    let Some(bench) = bench_of(FILES) else { return };
    let read = |name: &str| fs::read_to_string(format!("/proc/sys/kernel/{name}")).unwrap();
    let before = (read("panic"), read("core_pattern"));
    for mode in [ProcMode::Compat, ProcMode::Strict] {
        for mut spec in [bench.spec("sysctls", &[]), as_fake_root(&bench, "sysctls", &[])] {
            spec.proc_mode = mode;
            let run = bench.run(&spec);
            held(&run, 18);
            assert_ne!(bench.slot.uid(), 0);
            // Seen from inside, the outer id is the host's: the slot's. A fake root sees the first namespace's.
            if spec.ids != Ids::FakeRoot {
                assert_eq!(told(&run, "uid_map"), bench.slot.uid().to_string());
            }
            assert_eq!(told(&run, "panic"), if mode == ProcMode::Compat { "readable" } else { "absent" });
        }
    }
    assert_eq!((read("panic"), read("core_pattern")), before);
}

/// CVE-2017-5226.
#[test]
fn e19_nothing_can_be_typed_into_the_terminal_that_kiln_was_started_on() {
    let Some(bench) = bench_of(PROCESS) else { return };
    let probe = bench.path("probe");
    let on_terminal = |command: &[String], variable: (&str, String)| {
        let output =
            Command::new(&probe).arg("on-terminal").args(command).envs([variable]).stdin(ProcessStdio::null()).output();
        String::from_utf8_lossy(&output.unwrap().stdout).into_owned()
    };
    let control = on_terminal(&["type".into()], ("NOTHING", String::new()));
    if !control.contains("typed 1") {
        not_here("E19 control", "this kernel types into no terminal for anyone");
    }
    for stdio in ["inherit", "log"] {
        let (words, variable) = another(&format!("process {stdio} terminal"));
        let seen = on_terminal(&words, variable);
        assert!(seen.contains("attempts 1") && seen.contains("ended: Exited(0)"), "{seen}");
        // Once the payload has the terminal itself, once it has /dev/null and a pipe.
        assert!(seen.contains(if stdio == "inherit" { "isatty 111" } else { "isatty 000" }), "{seen}");
        assert!(seen.contains("typed 0"), "{seen}");
    }
}

#[test]
fn e20_no_mount_can_be_undone_changed_or_walked_around() {
    let Some(bench) = bench_of(FILES) else { return };
    let marker = bench.path("marker");
    fs::write(&marker, "the host's\n").unwrap();
    let marker = marker.to_str().unwrap();
    held(&bench.run(&bench.spec("unlock", &[marker])), 20);
    assert!(fs::symlink_metadata(bench.path("store/input")).unwrap().is_dir());
    fs::remove_file(bench.path("store/exchange")).unwrap();
    // A fake root may chroot, so it walks further.
    let run = bench.run(&as_fake_root(&bench, "unlock", &[marker]));
    held(&run, 20);
    assert_eq!(told(&run, "chroot"), "made");
}

#[test]
fn e21_no_namespace_and_no_mount_can_be_made_inside() {
    let Some(bench) = bench_of(PROCESS) else { return };
    held(&bench.run(&bench.spec("namespaces", &[])), 25);
    held(&bench.run(&bench.spec("surface", &[])), 50);
    if !crate::surface::user_namespaces_work() {
        not_here("E21 control", "no user namespace can be made outside either");
    }
}

/// CVE-2014-8989: a group that may *not* read was dropped to read.
#[test]
fn e22_no_group_can_be_dropped_or_taken() {
    let Some(bench) = bench_of(FILES) else { return };
    let run = bench.run(&bench.spec("groups", &[]));
    held(&run, 7);
    // As root none is kept; as a user those that cannot be dropped are there, unmapped.
    if is_root() {
        assert!(run.log.contains("groups 0 gid 100"), "{}", run.log);
    }
    if !is_root() {
        not_here("E22 denied group", "only root can make a file that others may read and a group may not");
        return;
    }
    let denied = bench.path("input/denied");
    fs::write(&denied, "secret\n").unwrap();
    std::os::unix::fs::chown(&denied, Some(0), Some(bench.slot.gid())).unwrap();
    fs::set_permissions(&denied, fs::Permissions::from_mode(0o604)).unwrap();
    let run = bench.run(&bench.spec("read", &["/nix/store/input/file", "/nix/store/input/denied"]));
    assert_eq!(run.log, "pinned\n");
    std::os::unix::fs::chown(&denied, Some(0), Some(0)).unwrap();
    let run = bench.run(&bench.spec("read", &["/nix/store/input/denied"]));
    assert_eq!(run.log, "secret\n", "others may read it");
}

#[test]
fn e35_every_call_by_another_architecture_s_door_kills() {
    let Some(bench) = bench_of(PROCESS) else { return };
    let run = bench.run(&bench.spec("foreign", &[]));
    held(&run, 1200);
    assert_eq!(told(&run, "killed"), "601 601");
}

#[test]
fn e36_no_program_of_the_host_s_runs_and_no_variable_of_the_caller_s_arrives() {
    let Some(bench) = bench_of(PROCESS) else { return };
    held(&bench.run(&bench.spec("exec", &[])), 12);
    // A caller with a library to preload and a path to search.
    let preload = format!("LD_PRELOAD=/{}.so", mark("preload"));
    let kiln = start_another(&["env", &preload, "BASH_ENV=/x", "LD_LIBRARY_PATH=/y"], "process log exec");
    let output = kiln.wait_with_output().unwrap();
    let log = String::from_utf8_lossy(&output.stdout);
    assert!(log.contains("ended: Exited(0)"), "{log}");
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(complaint.contains("preload"), "the control: the caller did get it: {complaint}");
}

/// Every call that writes, and some that only look like reading.
#[test]
fn e34_an_input_cannot_be_written_replaced_linked_locked_away_or_mapped_for_writing() {
    let Some(bench) = bench_of(FILES) else { return };
    // As an unprivileged kiln has it: the payload's own file, and writable by its mode.
    fs::set_permissions(bench.path("input/file"), fs::Permissions::from_mode(0o666)).unwrap();
    bench.slot.adopt_tree(&bench.path("input")).unwrap();
    let stat = |name| {
        let stat = fs::metadata(bench.path(name)).unwrap();
        (stat.ino(), stat.mode(), stat.size(), stat.mtime_nsec(), stat.ctime(), stat.ctime_nsec(), stat.nlink())
    };
    let before = ["input", "input/file", "single"].map(stat);
    held(&bench.run(&bench.spec("input-write", &[])), 40);
    assert_eq!(["input", "input/file", "single"].map(stat), before);
    assert_eq!(fs::read_to_string(bench.path("input/file")).unwrap(), "pinned\n");
    assert_eq!(fs::read_to_string(bench.path("store/out")).unwrap(), "made\n");
    assert_eq!(owner(&bench.path("store/out")), bench.slot.uid());
    bench.slot.reclaim_tree(&bench.path("store")).unwrap();
    assert_eq!(owner(&bench.path("store/out")), rustix::process::geteuid().as_raw());
}

/// More inputs than one, below each other and of each kind, are as closed as one.
#[test]
fn e34_inputs_in_inputs_are_read_only_too() {
    let Some(bench) = bench_of(FILES) else { return };
    fs::create_dir(bench.path("input/inner")).unwrap();
    let mut spec = bench.spec("input-write", &[]);
    spec.inputs.push(Input { source: bench.path("single"), target: "/nix/store/inner".into() });
    held(&bench.run(&spec), 40);
}
