//! Other users of the host, and what else is on it: nothing of a build is within their reach, nothing of theirs in its.

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use kiln_model::digest::Digest;
use kiln_tests::ground;
use kiln_tests::recipe::Made;
use kiln_tests::run::Kiln;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

use crate::{Canary, paused, stored};

/// Runs a command as a user that is neither root nor anyone's slot.
fn as_another(program: &str, arguments: &[&Path]) -> bool {
    let mut command = Command::new("setpriv");
    command.args(["--reuid=54321", "--regid=54321", "--clear-groups", program]).args(arguments);
    command.output().unwrap().status.success()
}

/// Nobody but the owner gets to `path` by its name.
#[track_caller]
fn closed_to_others(path: &Path) {
    let closed = path.ancestors().skip(1).find(|above| {
        let stat = fs::metadata(above).unwrap();
        stat.mode() & 0o077 == 0 && stat.uid() == nix::unistd::geteuid().as_raw()
    });
    assert!(closed.is_some(), "every directory above {} is open", path.display());
    if ground::is_root() {
        assert!(path.exists());
        assert!(as_another("true", &[]), "the control");
        assert!(!as_another("ls", &[path]));
        assert!(!as_another("touch", &[&path.join("by-another")]));
    }
}

/// CVE-2024-27297: a process that outlived the build wrote the output after it was hashed.
#[test]
fn e02_a_daemon_that_holds_the_output_open_is_dead_before_it_is_scanned() {
    needs_files!("e02");
    let made = Made::with(
        r#"outputs = ["out", "inode"]"#,
        r#"echo begun >"$out"; stat -c %i "$out" >"$inode"
perl -e 'open F, ">>", $ENV{out}; $SIG{TERM} = $SIG{HUP} = "IGNORE"; fork and exit; fork and exit; while (1) { syswrite F, "late\n" }' &
while [ "$(stat -c %s "$out")" -lt 1000 ]; do sleep 0.01; done"#,
    );
    let kiln = Kiln::warm();
    let outcome = kiln.build_one(made.path());
    let path = stored(&kiln, &outcome, "out");
    let first = fs::read(&path).unwrap();
    assert!(first.starts_with(b"begun\nlate\n"), "the daemon did write");
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(fs::read(&path).unwrap(), first);
    assert_eq!(outcome["outputs"]["out"]["manifest"][0]["sha256"], Digest::of(&first).to_string());
    let inode = fs::read_to_string(stored(&kiln, &outcome, "inode")).unwrap();
    assert_ne!(fs::metadata(&path).unwrap().ino().to_string(), inode.trim());
    kiln.verified();
}

/// CVE-2026-39860.
#[test]
fn e03_symlinks_at_every_name_that_kiln_might_use_lead_nothing_astray() {
    needs_files!("e03");
    let canary = Canary::new();
    let kiln = Kiln::warm();
    let made = Made::new(&format!(
        r#"cd /nix/store; for n in "$out.tmp" "$out.lock" "$out.chroot" "$out.check" "$out-tmp" "$out~" .tmp tmp .links "$out.drv"; do
ln -s {canary}/file "$n"; ln -s {canary} "$n.d"; done
mkdir "$out"; ln -s {canary}/file "$out/absolute"; ln -s ../../../../../../../..{canary}/file "$out/climbing"; ln -s {canary} "$out/tmp""#,
        canary = canary.path().display()
    ));
    let outcome = kiln.build_one(made.path());
    canary.untouched();
    let path = stored(&kiln, &outcome, "out");
    assert_eq!(fs::read_link(path.join("absolute")).unwrap(), canary.path().join("file"));
    assert!(fs::symlink_metadata(path.join("tmp")).unwrap().is_symlink());
    for output in [format!("{}/file", canary.path().display()), canary.path().display().to_string()] {
        let made = Made::new(&format!(r#"ln -s {output} "$out""#));
        let outcome = kiln.build_one(made.path());
        assert_eq!(fs::read_link(stored(&kiln, &outcome, "out")).unwrap(), Path::new(&output));
        canary.untouched();
    }
    kiln.verified();
}

/// CVE-2024-38531.
#[test]
fn e04_nobody_enters_a_build_s_directory_however_wide_the_build_opens_it() {
    needs_files!("e04");
    let kiln = Kiln::warm();
    let script = r#"chmod 0777 . /nix/store || true; cp /bin/true helper; ! chmod 4755 helper; chmod 0777 helper
mkfifo fifo; chmod 0666 fifo; chmod 0777 "$out""#;
    let paused = paused(&kiln, script, &[]);
    let inside = ["build/fifo", "build/helper"].map(|name| paused.private.join(name));
    for path in inside.iter().chain([&paused.out, &paused.private.join("build")]) {
        assert!(path.exists(), "the control: {}", path.display());
        closed_to_others(path);
    }
    assert_eq!(fs::metadata(&paused.private).unwrap().mode() & 0o7777, 0o700);
    assert_eq!(fs::metadata(&inside[1]).unwrap().mode() & 0o7777, 0o777, "no set-id bit");
    paused.go();
}

/// CVE-2025-46415, CVE-2025-52991, CVE-2025-52993.
#[test]
fn e05_names_that_are_swapped_for_links_while_kiln_cleans_up_lead_it_nowhere() {
    needs_files!("e05");
    let canary = Canary::new();
    let kiln = Kiln::warm();
    for round in 0..4 {
        // A daemon inside swaps until it is killed, an accomplice outside until kiln has ended.
        let script = format!(
            r#"mkdir swap closed; ln -s {canary} link; ln -s {canary}/inner closed-link; chmod 0 closed; for i in $(seq 300); do mkdir -p "swap/$i/closed"; : >"swap/$i/closed/f"; chmod 0 "swap/$i/closed"; done
perl -e 'fork and exit; while (1) {{ syscall(316, -100, "swap", -100, "link", 2); syscall(316, -100, "link", -100, "swap", 2) }}' &
[ {round} != 0 ] || touch "$out/fails""#,
            canary = canary.path().display()
        );
        let mut paused = paused(&kiln, &script, &[]);
        let build = paused.private.join("build");
        let (done, swapped) = (AtomicBool::new(false), std::sync::atomic::AtomicU64::new(0));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                // One that kiln may enter as it is, and one whose mode it has to change first.
                let pairs = [("swap", "link"), ("closed", "closed-link")].map(|(a, b)| (build.join(a), build.join(b)));
                while !done.load(Ordering::Relaxed) {
                    for (one, other) in &pairs {
                        if renameat2(AT_FDCWD, one, AT_FDCWD, other, RenameFlags::RENAME_EXCHANGE).is_ok() {
                            swapped.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                }
            });
            fs::write(paused.out.join("go"), "").unwrap();
            while paused.running.runs() {
                std::thread::sleep(Duration::from_millis(2));
            }
            done.store(true, Ordering::Relaxed);
        });
        canary.untouched();
        assert!(swapped.load(Ordering::Relaxed) > 0, "the accomplice came too late");
        paused.running.end();
    }
    // What a swap in the middle of a walk may have left goes at the next start, and still leads nowhere.
    kiln.run(["store", "verify"]).succeeded();
    canary.untouched();
}

/// CVE-2025-52992.
#[test]
fn e07_what_a_failed_build_leaves_is_removed_or_closed_to_everyone_else() {
    needs_files!("e07");
    let kiln = Kiln::warm();
    let script = r#"chmod 0777 "$out" "$out/file" .; trap 'exit 1' EXIT"#;
    let removed = paused(&kiln, script, &[]);
    let (private, mode) = (removed.private.clone(), fs::metadata(&removed.out).unwrap().mode() & 0o777);
    assert_eq!(mode, 0o777, "the control");
    closed_to_others(&removed.out);
    removed.go().exits(5);
    assert!(!private.exists());
    let kept = paused(&kiln, script, &["--keep-failed"]);
    let name = kept.out.file_name().unwrap().to_owned();
    let ran = kept.go().exits(5);
    let found = find(kiln.store(), &name);
    assert!(!found.is_empty(), "it was to be kept: {}", ran.stderr);
    for path in found {
        closed_to_others(&path);
    }
}

/// Everything of that name below a directory.
fn find(directory: &Path, name: &std::ffi::OsStr) -> Vec<PathBuf> {
    let output = Command::new("find").arg(directory).arg("-name").arg(name).output().unwrap();
    let bytes = output.stdout.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
    bytes.map(|line| PathBuf::from(std::ffi::OsStr::from_bytes(line))).collect()
}
