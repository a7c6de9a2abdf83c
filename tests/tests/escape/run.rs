//! Builds while they run and after: killed, flooding, writing at what is not theirs, on hosts that cannot isolate.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use kiln_tests::recipe::{self, Made};
use kiln_tests::run::{Kiln, Ran};

use crate::{here::not_here, only, paused, wait_for};

/// Processes whose command line holds `marker`.
fn holding(marker: &str) -> usize {
    let lines = fs::read_dir("/proc").unwrap().filter_map(|entry| fs::read(entry.ok()?.path().join("cmdline")).ok());
    lines.filter(|line| line.windows(marker.len()).any(|part| part == marker.as_bytes())).count()
}

fn children(pid: i32) -> Vec<i32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let lists = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("children")).ok());
    lists.flat_map(|list| list.split(' ').filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>()).collect()
}

#[test]
fn e27_a_kiln_or_launcher_killed_in_the_middle_leaves_nothing_after_the_next_start() {
    needs_files!("e27");
    let kiln = Kiln::warm();
    let mounts = || fs::read_to_string("/proc/self/mountinfo").unwrap();
    let before = mounts();
    for victim in ["kiln", "launcher"] {
        let marker = format!("3600.{}", recipe::nonce().replace('-', ""));
        let script = format!("trap '' TERM; for i in 1 2 3; do sleep {marker} & done; setsid sleep {marker} &");
        let paused = paused(&kiln, &script, &[]);
        wait_for("the sleepers did not start", || (holding(&marker) >= 4).then_some(()));
        let pid = paused.running.pid();
        let target = match victim {
            "kiln" => pid.as_raw(),
            _ => *children(pid.as_raw())
                .iter()
                .find(|child| {
                    fs::read(format!("/proc/{child}/cmdline")).is_ok_and(|line| line.starts_with(b"kiln-launcher\0"))
                })
                .expect("kiln has a launcher"),
        };
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(target), nix::sys::signal::Signal::SIGKILL).unwrap();
        let killed = Instant::now();
        while holding(&marker) > 0 {
            // It would sleep for an hour.
            assert!(killed.elapsed() < Duration::from_secs(30), "{victim}: the build lives on");
            std::thread::sleep(Duration::from_millis(2));
        }
        let private = paused.private.clone();
        let ran = paused.running.end();
        match victim {
            "kiln" => assert_eq!(ran.code(), None),
            // Not the build's failure: nobody knows how it would have ended.
            _ => drop(ran.exits(7)),
        }
        kiln.run(["store", "verify"]).succeeded();
        assert!(!private.exists(), "{victim}: {} is left", private.display());
        assert_eq!(mounts(), before);
    }
}

#[test]
fn e31_a_log_of_one_endless_line_and_codes_for_terminals_is_kept_and_harms_no_one() {
    needs_files!("e31");
    let kiln = Kiln::warm();
    let codes = r"a\000b\033[2J\033]0;title\007\377\376c\r\033[6n";
    let made = Made::new(&format!(
        r#"printf '{codes}'; perl -e '$|=1; my $y = "y" x 1048576; print $y for 1..200'; printf '{codes}\n'; exit 1"#
    ));
    let mut running = kiln.start(["build".as_ref(), "--quiet".as_ref(), made.path().as_os_str()]);
    let (status, mut largest) = (format!("/proc/{}/status", running.pid()), 0);
    while running.runs() {
        let text = fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        largest = largest.max(line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0));
        std::thread::sleep(Duration::from_millis(2));
    }
    let ran = running.end().exits(5);
    assert!((1..200 << 10).contains(&largest), "kiln took {largest} KiB");
    assert!(ran.stderr.len() < 100 << 10, "{} bytes of talk", ran.stderr.len());
    for code in ['\u{1b}', '\u{7}', '\0'] {
        assert!(!ran.stderr.contains(code), "{code:?} reached the terminal: {:?}", ran.stderr);
    }
    let log = kiln.command(["log".as_ref(), made.path().as_os_str()]).output().unwrap().stdout;
    let codes = b"a\0b\x1b[2J\x1b]0;title\x07\xff\xfec\r\x1b[6n";
    assert!(log.starts_with(codes) && log.len() == 2 * codes.len() + (200 << 20) + 1);
    assert!(log[..log.len() - 1].ends_with(codes));
}

#[test]
fn e31_a_flood_is_cut_at_the_recipe_s_limit_and_told() {
    needs_files!("e31 flood");
    let made = Made::new(r#"yes flood; echo x >"$out""#);
    made.edit("recipe.toml", "[build]", "[limits]\nlog-bytes = 100000\ndeadline = 120\n\n[build]");
    let outcome = only(&Kiln::warm().run(["build".as_ref(), "--json".as_ref(), made.path().as_os_str()]).exits(5));
    assert_eq!(outcome["limit"], "log-bytes", "{outcome:#}");
    assert_eq!(outcome["log"]["bytes"], 100_000, "{outcome:#}");
}

#[test]
fn e34_the_environment_and_the_inputs_have_the_same_digests_after_a_build_that_wrote_at_them() {
    needs_files!("e34");
    let made = Made::new(
        r#"f=/usr/bin/perl; ! chmod 777 $f; ! chmod 777 /usr; ! truncate -s 0 $f; ! touch $f; ! rm -f $f; ! mv $f /usr/bin/other
! ln $f /tmp/x; ! mount -o remount,rw / 2>/dev/null; ! sh -c ': >/etc/passwd'; ! mkdir /etc/new
perl -e 'open(F, "+<", "/usr/bin/perl") and exit 1; open(F, "<", "/usr/bin/perl") or exit 1; syscall(72, fileno(F), 1024, 1) == 0 and exit 1; exit 0'
cp /usr/bin/perl /tmp/copy; echo tried >"$out""#,
    );
    let kiln = Kiln::warm();
    let outcome = kiln.build_one(made.path());
    assert_eq!(outcome["status"], "built");
    kiln.verified();
    let again = Kiln::warm().build_one(Made::new(r#"echo again >"$out""#).path());
    assert_eq!(outcome["inputs"], again["inputs"]);
}

/// `kiln build` in a namespace in which `script` was run first.
fn in_a_container(script: &str, arguments: &[&str]) -> Ran {
    let script = format!("{script}; exec \"$@\"");
    let kiln = Kiln::warm().through(["unshare", "-Urmpf", "--mount-proc", "sh", "-e", "-c", &script, "sh"]);
    kiln.run(arguments)
}

#[test]
fn e39_where_namespaces_are_switched_off_or_proc_is_covered_kiln_exits_3_and_says_what_to_do() {
    needs_files!("e39");
    if !Command::new("unshare").args(["-Urmpf", "--mount-proc", "true"]).status().unwrap().success() {
        not_here("E39 container", "no user namespace to play container in");
        return;
    }
    let made = Made::new(r#"echo built >"$out""#);
    let build = ["build", made.path().to_str().unwrap()];
    let off = in_a_container("echo 0 >/proc/sys/user/max_user_namespaces", &build);
    off.exits(3).says(&["max_user_namespaces"]);
    // An ordinary user of that container.
    let user = "mount --bind /dev/null /proc/interrupts; set -- unshare -U --map-user=1000 --map-group=1000 \"$@\"";
    let covered = in_a_container(user, &build);
    covered.exits(3).says(&["/proc/interrupts"]);
    Kiln::warm().build_one(made.path());
}
