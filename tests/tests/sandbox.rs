//! `kiln sandbox`: a command of the host in a sandbox, as people who use bubblewrap would run it.

use std::path::{Path, PathBuf};

use kiln_tests::ground::{self, Ground};
use kiln_tests::recipe;
use kiln_tests::run::{Kiln, Ran};
use kiln_tests::schema::fits;
use serde_json::Value;

/// Runs `kiln sandbox` with these words; None, noted, if this host cannot isolate.
fn sandbox(test: &str, words: &[&str]) -> Option<Ran> {
    // Not behind an option: where the command comes first, its launcher is forked off first, and only it is described.
    let kiln = Kiln::fresh(Ground::Disk).online();
    if kiln.run(["sandbox", "--host-root", "--", "true"]).code() == Some(3) {
        ground::skipped(test, "this host cannot isolate");
        return None;
    }
    Some(kiln.run(["sandbox"].iter().chain(words)))
}

/// A shell command with the host's files as root.
fn shell(test: &str, options: &[&str], script: &str) -> Option<Ran> {
    let words: Vec<&str> = ["--host-root"].iter().chain(options).chain(&["--", "sh", "-c", script]).copied().collect();
    sandbox(test, &words)
}

/// A directory that the caller may give away.
fn own() -> (tempfile::TempDir, PathBuf) {
    let directory = ground::directory(Ground::Disk);
    let path = directory.path().join("own");
    std::fs::create_dir(&path).unwrap();
    (directory, path)
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn stdout_stderr_and_exit_code_are_the_command_s() {
    let Some(ran) = shell("stdout_stderr_and_exit_code_are_the_command_s", &[], "echo out; echo err >&2; exit 42")
    else {
        return;
    };
    let ran = ran.exits(42);
    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("out\n", "err\n"), "kiln adds nothing");
}

#[test]
fn a_signal_that_ends_the_command_is_128_and_its_number() {
    for (signal, code) in [("TERM", 143), ("KILL", 137), ("SEGV", 139), ("ABRT", 134), ("PIPE", 141), ("USR1", 138)] {
        let name = "a_signal_that_ends_the_command_is_128_and_its_number";
        let Some(ran) = shell(name, &[], &format!("kill -{signal} $$")) else { return };
        ran.exits(code);
    }
}

#[test]
fn without_options_there_is_nothing_and_the_error_says_what_to_add() {
    let kiln = Kiln::fresh(Ground::Disk);
    kiln.run(["sandbox", "--", "true"]).exits(2).says(&[
        "true is not in the sandbox's root",
        "--host-root",
        "--ro-bind",
    ]);
    kiln.run(["sandbox"]).exits(2).says(&["<CMD>"]);
}

#[test]
fn nothing_of_the_caller_shows_but_what_was_named() {
    let name = "nothing_of_the_caller_shows_but_what_was_named";
    let script =
        "env | sort; id -u; id -g; uname -n; pwd; umask; cat /proc/sys/kernel/random/boot_id; ls /run /sys /dev/shm";
    let Some(ran) = shell(name, &["--setenv", "A", "-b=c"], script) else { return };
    assert_eq!(
        ran.succeeded().stdout,
        "A=-b=c\nPATH=/usr/local/bin:/usr/bin:/bin\nPWD=/\n1000\n100\nlocalhost\n/\n0022\n\
         00000000-0000-4000-8000-000000000000\n/dev/shm:\n\n/run:\n\n/sys:\n"
            .replace("00000000-0000-4000-8000-000000000000\n", &boot_id())
    );
}

#[test]
fn pid_1_and_the_command_show_nothing_of_the_caller_s_arguments_and_descriptors() {
    let name = "pid_1_and_the_command_show_nothing_of_the_caller_s_arguments_and_descriptors";
    let script = "tr '\\0' ' ' </proc/1/cmdline; cat /proc/1/comm; cat /proc/1/environ || ls /proc/1/fd || cat /proc/1/mem \
        || readlink /proc/1/exe; ls /proc/self/fd; grep -E 'Sig(Blk|Ign)' /proc/self/status";
    let Some(ran) = shell(name, &["--setenv", "OUTSIDE", "shown", "--unshare-all"], script) else { return };
    let nothing = "0".repeat(16);
    assert_eq!(
        ran.succeeded().stdout,
        format!("kiln-launcher kiln-launcher\n0\n1\n2\n3\nSigBlk:\t{nothing}\nSigIgn:\t{nothing}\n")
    );
}

/// The fixed one is the sandbox's business; that it is not the host's is ours.
fn boot_id() -> String {
    let ran = Kiln::fresh(Ground::Disk).run(["sandbox", "--host-root", "cat", "/proc/sys/kernel/random/boot_id"]);
    let inside = ran.succeeded().stdout;
    assert_ne!(inside, std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap());
    inside
}

#[test]
fn the_options_of_the_process_take_effect() {
    let name = "the_options_of_the_process_take_effect";
    let options = ["--uid", "7", "--gid", "8", "--hostname", "kilnhost", "--chdir", "/usr", "--umask", "077"];
    let Some(ran) = shell(name, &options, "id -u; id -g; uname -n; pwd; umask") else { return };
    assert_eq!(ran.succeeded().stdout, "7\n8\nkilnhost\n/usr\n0077\n");
    let Some(ran) = shell(name, &["--fake-root"], "id -u; touch /tmp/a && chown 5:5 /tmp/a") else { return };
    assert_eq!(ran.succeeded().stdout, "0\n");
    let Some(ran) = shell(name, &["--proc", "strict"], "test -e /proc/self && ! test -e /proc/meminfo") else { return };
    ran.succeeded();
}

#[test]
fn a_root_is_put_together_from_parts_as_with_bubblewrap() {
    let name = "a_root_is_put_together_from_parts_as_with_bubblewrap";
    if !Path::new("/lib").is_symlink() {
        ground::skipped(name, "this host's /usr is not merged");
        return;
    }
    let bubblewrap = [
        "--unshare-all",
        "--die-with-parent",
        "--new-session",
        "--clearenv",
        "--cap-drop",
        "ALL",
        "--proc",
        "/proc",
        "--dev",
        "/dev",
        "--ro-bind",
        "/usr",
        "/usr",
        "--symlink",
        "usr/lib",
        "/lib",
        "--symlink",
        "usr/lib64",
        "/lib64",
        "--symlink",
        "usr/bin",
        "/bin",
        "--",
        "sh",
        "-c",
        "echo /*",
    ];
    let Some(ran) = sandbox(name, &bubblewrap) else { return };
    assert_eq!(ran.succeeded().stdout, "/bin /dev /etc /lib /lib64 /proc /tmp /usr\n");
    let Some(ran) = sandbox(name, &["--input", "/usr", "/usr", "--", "true"]) else { return };
    ran.exits(2).says(&["/usr/bin/true needs /lib64/", "--ro-bind"]);
}

#[test]
fn inputs_are_read_only_and_only_what_was_given_can_be_written() {
    let name = "inputs_are_read_only_and_only_what_was_given_can_be_written";
    let (_guard, own) = own();
    std::fs::write(own.join("there"), "before\n").unwrap();
    let Some(ran) = shell(name, &["--ro-bind", text(&own), "/mnt"], "cat /mnt/there; echo x >/mnt/there") else {
        return;
    };
    assert_eq!(ran.exits(2).says(&["Read-only file system"]).stdout, "before\n");
    let options = ["--bind", text(&own), "/mnt", "--tmpfs", "/var/tmp:64K"];
    let script =
        "echo after >/mnt/there && mkdir /mnt/new && ! touch /usr/x && ! head -c 100000 /dev/zero >/var/tmp/big";
    shell(name, &options, script).unwrap().succeeded();
    assert_eq!(std::fs::read_to_string(own.join("there")).unwrap(), "after\n");
    use std::os::unix::fs::MetadataExt as _;
    let caller = nix::unistd::geteuid().as_raw();
    for made in [own.clone(), own.join("there"), own.join("new")] {
        assert_eq!(made.metadata().unwrap().uid(), caller, "{} is the caller's again", made.display());
    }
}

#[test]
fn root_lends_only_what_is_wholly_its_own() {
    let name = "root_lends_only_what_is_wholly_its_own";
    if !ground::is_root() {
        return;
    }
    let (_guard, own) = own();
    std::fs::write(own.join("theirs"), "").unwrap();
    std::os::unix::fs::chown(own.join("theirs"), Some(1234), None).unwrap();
    let Some(ran) = shell(name, &["--bind", text(&own), "/mnt"], "true") else { return };
    ran.exits(2).says(&["theirs", "belongs to user 1234"]);
    std::os::unix::fs::chown(own.join("theirs"), Some(0), None).unwrap();
    std::fs::hard_link(own.join("theirs"), own.parent().unwrap().join("other name")).unwrap();
    shell(name, &["--bind", text(&own), "/mnt"], "true").unwrap().exits(2).says(&["hard links"]);
    shell(name, &["--bind", "/", "/mnt"], "true").unwrap().exits(2).says(&["the host's root"]);
}

#[test]
fn what_cannot_be_is_told_before_anything_runs() {
    let cases: [(&[&str], i32, &[&str]); 19] = [
        (&["--ro-bind", "/no/such/input", "/mnt"], 2, &["/no/such/input", "No such file"]),
        (&["--ro-bind", "/usr", "relative"], 2, &["relative", "absolute path"]),
        (&["--ro-bind", "/usr", "/a/../b"], 2, &["/a/../b", "absolute path"]),
        (&["--ro-bind", "/usr", "/mnt", "--tmpfs", "/mnt"], 2, &["two mounts at /mnt"]),
        (&["--ro-bind", "/", "/"], 2, &["two mounts at /"]),
        (&["--ro-bind", "/usr"], 2, &["--ro-bind"]),
        (&["--bind", "/etc/passwd", "/mnt"], 2, &["not a directory"]),
        (&["--tmpfs", "/proc/x"], 2, &["the sandbox's own"]),
        (&["--tmpfs", "/mnt:0"], 2, &["at least 1 byte"]),
        (&["--setenv", "", "x"], 2, &["variable"]),
        (&["--setenv", "A=B", "x"], 2, &["A=B"]),
        (&["--processes", "0"], 2, &["--processes"]),
        (&["--memory", "0"], 2, &["--memory"]),
        (&["--deadline", "0s"], 2, &["at least 1 second"]),
        (&["--uid", "0"], 2, &["--uid"]),
        (&["--proc", "none"], 2, &["the host's processes"]),
        (&["--hostname", ""], 2, &["--hostname"]),
        (&["--uid-range", "--uid", "5"], 2, &["--uid-range", "cannot be used with"]),
        (&["--uid-range", "--fake-root"], 2, &["--fake-root", "cannot be used with"]),
    ];
    let (_guard, own) = own();
    for (options, code, words) in cases {
        let result = own.join("result");
        let words_before = ["sandbox", "--host-root", "--result", text(&result)];
        let command = ["--", "sh", "-c", "echo ran"];
        let ran =
            Kiln::fresh(Ground::Disk).run(words_before.iter().chain(options).chain(&command)).exits(code).says(words);
        assert_eq!(ran.stdout, "", "{options:?}");
        if let Ok(document) = std::fs::read_to_string(&result) {
            let document: Value = serde_json::from_str(&document).unwrap();
            fits("sandbox", &document);
            assert_eq!((&document["started"], &document["exit"]), (&Value::Bool(false), &Value::from(code)));
            std::fs::remove_file(&result).unwrap();
        }
    }
}

#[test]
fn a_place_that_the_root_does_not_have_is_told_and_is_no_fault_of_the_host() {
    let name = "a_place_that_the_root_does_not_have_is_told_and_is_no_fault_of_the_host";
    let Some(ran) = shell(name, &["--ro-bind", "/usr", "/no/such/place"], "true") else { return };
    ran.exits(2).says(&["/no/such/place has no place in the sandbox's root"]);
    shell(name, &["--chdir", "/no/such/place"], "true").unwrap().exits(2).says(&["--chdir /no/such/place"]);
    let Some(ran) = sandbox(name, &["--host-root", "--", "no-such-command"]) else { return };
    ran.exits(2).says(&["no-such-command is not in the sandbox's root"]);
}

#[test]
fn a_bound_on_all_memory_is_refused_with_the_command_that_brings_it_where_no_group_can_hold_it() {
    let name = "a_bound_on_all_memory_is_refused_with_the_command_that_brings_it_where_no_group_can_hold_it";
    let Some(ran) = shell(name, &["--memory", "256M"], "echo ran") else { return };
    match kiln_sandbox::probe().control_groups {
        kiln_sandbox::ControlGroups::Absent { .. } => {
            let ran = ran.exits(3).says(&["total memory", "systemd-run --user --scope -p Delegate=yes kiln"]);
            assert_eq!(ran.stdout, "");
        }
        kiln_sandbox::ControlGroups::Unified { .. } | kiln_sandbox::ControlGroups::Legacy { .. } => {
            assert_eq!(ran.succeeded().stdout, "ran\n");
        }
    }
}

/// Runs a shell command as root of a range of ids; None, noted, where there is none.
fn ranged(test: &str, options: &[&str], script: &str) -> Option<Ran> {
    let options: Vec<&str> = ["--uid-range"].iter().chain(options).copied().collect();
    let ran = shell(test, &options, script)?;
    if ran.code() == Some(3) && !ground::is_root() {
        ground::skipped(test, ran.stderr.trim());
        return None;
    }
    Some(ran)
}

/// Everybody who owns something there.
fn owners(directory: &Path) -> std::collections::BTreeSet<(u32, u32)> {
    use std::os::unix::fs::MetadataExt as _;
    let mut found = std::collections::BTreeSet::new();
    let mut left = vec![directory.to_owned()];
    while let Some(path) = left.pop() {
        let file = path.symlink_metadata().unwrap();
        found.insert((file.uid(), file.gid()));
        if file.is_dir()
            && let Ok(entries) = path.read_dir()
        {
            left.extend(entries.map(|entry| entry.unwrap().path()));
        }
    }
    found
}

fn caller() -> std::collections::BTreeSet<(u32, u32)> {
    [(nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw())].into()
}

#[test]
fn with_a_range_of_ids_users_inside_are_real_and_what_they_leave_is_the_caller_s() {
    let name = "with_a_range_of_ids_users_inside_are_real_and_what_they_leave_is_the_caller_s";
    let (_guard, own) = own();
    let script = "set -e; id -u; chmod 755 /mnt; mkdir -m 777 /mnt/all; echo secret >/mnt/secret; chmod 600 /mnt/secret
        setpriv --reuid=33 --regid=34 --clear-groups sh -c 'id -u; id -g; echo made >/mnt/all/file; mkdir -m 700 /mnt/all/deep
            echo more >/mnt/all/deep/file; ! cat /mnt/secret 2>/dev/null'
        chown 65534:65534 /mnt/secret; stat -c %u:%g /mnt/all/file /mnt/secret";
    let Some(ran) = ranged(name, &["--bind", text(&own), "/mnt"], script) else { return };
    assert_eq!(ran.succeeded().stdout, "0\n33\n34\n33:34\n65534:65534\n");
    assert_eq!(owners(&own), caller());
    assert_eq!(std::fs::read_to_string(own.join("all/deep/file")).unwrap(), "more\n");
    std::fs::remove_dir_all(&own).unwrap();
}

#[test]
fn a_range_of_ids_cannot_be_left_behind_by_a_kiln_that_was_killed() {
    let name = "a_range_of_ids_cannot_be_left_behind_by_a_kiln_that_was_killed";
    if ground::is_root() {
        // Root may remove what any id owns, and a directory of another owner is refused by name.
        return;
    }
    let (_guard, own) = own();
    let Some(ran) = ranged(name, &["--bind", text(&own), "/mnt"], "true") else { return };
    ran.succeeded();
    let kiln = Kiln::fresh(Ground::Disk);
    let script =
        "mkdir -m 700 /mnt/closed && echo x >/mnt/closed/file && chown -R 33:33 /mnt/closed && touch /mnt/ready
        sleep 600";
    let words = ["sandbox", "--host-root", "--uid-range", "--bind", text(&own), "/mnt", "--", "sh", "-c", script];
    let running = kiln.start(words);
    while !own.join("ready").exists() {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    assert!(owners(&own).len() > 1);
    let beside = ranged(name, &["--bind", text(&own), "/mnt"], "true").unwrap();
    beside.exits(2).says(&["another sandbox with a range of ids uses it"]);
    nix::sys::signal::kill(running.pid(), nix::sys::signal::Signal::SIGKILL).unwrap();
    running.end();
    assert!(std::fs::remove_dir_all(own.join("closed")).is_err(), "the caller cannot even look into it");
    // The next start with that directory takes back what the last one left.
    ranged(name, &["--bind", text(&own), "/mnt"], "cat /mnt/closed/file").unwrap().succeeded();
    assert_eq!(owners(&own), caller());
    std::fs::remove_dir_all(&own).unwrap();
}

#[test]
fn a_program_that_maps_no_ids_is_told_and_nothing_runs() {
    let name = "a_program_that_maps_no_ids_is_told_and_nothing_runs";
    if ground::is_root() {
        // Root maps ids itself.
        return;
    }
    let Some(ran) = ranged(name, &[], "true") else { return };
    ran.succeeded();
    use std::os::unix::fs::PermissionsExt as _;
    let (_guard, own) = own();
    let program = own.join("newuidmap");
    std::fs::write(&program, "#!/bin/sh\necho newuidmap: this will not do >&2\nexit 1\n").unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let kiln = Kiln::fresh(Ground::Disk).env("PATH", format!("{}:/usr/bin:/bin", own.display()));
    let ran = kiln.run(["sandbox", "--host-root", "--uid-range", "--", "sh", "-c", "echo ran"]);
    assert_eq!(ran.exits(3).says(&["mapping a range of ids", "this will not do"]).stdout, "");
    // One that lies is found out.
    std::fs::write(&program, "#!/bin/sh\nexit 0\n").unwrap();
    let ran = kiln.run(["sandbox", "--host-root", "--uid-range", "--", "sh", "-c", "echo ran"]);
    assert_eq!(ran.exits(3).says(&["uid_map is not what was written"]).stdout, "");
}

#[test]
fn a_deadline_and_limits_end_the_command_with_5() {
    let name = "a_deadline_and_limits_end_the_command_with_5";
    let Some(ran) = shell(name, &["--deadline", "1s"], "trap '' TERM; sleep 600 & wait; sleep 600") else { return };
    ran.exits(5).says(&["deadline"]);
    shell(name, &["--cpu-time", "1s"], "while :; do :; done").unwrap().exits(5).says(&["limit: cpu"]);
    shell(name, &["--file-size", "1M"], "exec head -c 2M /dev/zero >/tmp/a")
        .unwrap()
        .exits(5)
        .says(&["limit: file-size"]);
    // What a program only feels is its own to tell.
    let script = "exec 5</dev/null 6</dev/null 7</dev/null 8</dev/null 9</dev/null && echo all";
    let ran = shell(name, &["--open-files", "6"], script).unwrap();
    assert!(ran.code() != Some(0) && !ran.stdout.contains("all"), "{}", ran.stdout);
}

#[test]
fn the_result_tells_kiln_s_exit_codes_from_the_command_s() {
    let name = "the_result_tells_kiln_s_exit_codes_from_the_command_s";
    let (_guard, own) = own();
    let result = own.join("result.json");
    let read = || -> Value { serde_json::from_str(&std::fs::read_to_string(&result).unwrap()).unwrap() };
    let Some(ran) = shell(name, &["--result", text(&result)], "echo out; exit 3") else { return };
    assert_eq!(ran.exits(3).stdout, "out\n");
    let document = read();
    fits("sandbox", &document);
    assert_eq!((document["started"].as_bool(), document["status"].as_u64()), (Some(true), Some(3)));
    shell(name, &["--result", text(&result), "--ro-bind", "/none", "/mnt"], "true").unwrap().exits(2);
    fits("sandbox", &read());
    assert_eq!(read()["started"], false);
    shell(name, &["--result", "/no/such/directory/x"], "echo ran").unwrap().exits(7);
    // The document on stdout, the command's words on stderr.
    let ran = shell(name, &["--json"], "echo out; kill -9 $$").unwrap().exits(137).says(&["out\n"]);
    fits("sandbox", &ran.json());
    assert_eq!(ran.json()["signal"], 9);
}

#[test]
fn stdin_is_the_caller_s() {
    let name = "stdin_is_the_caller_s";
    let Some(_) = shell(name, &[], "true") else { return };
    use std::io::Write as _;
    use std::process::Stdio;
    let mut command = Kiln::fresh(Ground::Disk).command(["sandbox", "--host-root", "--", "cat"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"through\0and through").unwrap();
    assert_eq!(child.wait_with_output().unwrap().stdout, b"through\0and through");
}

#[test]
fn the_environment_of_a_recipe_can_be_the_root() {
    let name = "the_environment_of_a_recipe_can_be_the_root";
    if !ground::has_files(name) {
        return;
    }
    let recipe = recipe::shipped("zoo/env_embed");
    let words = ["sandbox".as_ref(), "--environment".as_ref(), recipe.as_os_str()];
    let command = ["--", "cat", "/etc/debian_version"].map(std::ffi::OsStr::new);
    let ran = Kiln::warm().run(words.into_iter().chain(command)).succeeded();
    assert!(ran.stdout.starts_with("12"), "{}", ran.stdout);
}
