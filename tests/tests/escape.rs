//! The escape suite through kiln: what a hostile build leaves, and who could use it. Names start with the line of
//! `sandbox/tests/escape/table`; what needs no store is tried there.
//!
//! Where the filter already keeps a build from making something, an accomplice on the host makes it in the build's own
//! directory, so that the scan of outputs is tried on its own.

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use kiln_model::digest::Digest;
use kiln_model::lock::Lock;
use kiln_tests::ground::{self, Ground};
use kiln_tests::recipe::{self, Made};
use kiln_tests::run::{Kiln, Ran, Running};
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use serde_json::Value;

#[path = "../../sandbox/tests/harness/here.rs"]
mod here;

use here::not_here;

/// A build that has made its output and waits.
struct Paused {
    running: Running,
    /// kiln's private directory of it.
    private: PathBuf,
    /// The output, in there.
    out: PathBuf,
}

/// Starts a build whose output is a directory with `file` in it and what `script` does, and stops it at its end.
fn paused(kiln: &Kiln, script: &str, options: &[&str]) -> Paused {
    let mark = format!("mark-{}", recipe::nonce());
    let made = Made::new(&format!(
        r#"mkdir "$out"; echo data >"$out/file"; {script}
touch "$out/{mark}"; n=0; while [ ! -e "$out/go" ]; do sleep 0.02; n=$((n+1)); [ $n -lt 3000 ]; done
rm -f "$out/go" "$out/{mark}""#
    ));
    let words = ["build", "--json"].iter().chain(options).map(|word| (*word).into());
    let words: Vec<std::ffi::OsString> = words.chain([made.path().as_os_str().to_owned()]).collect();
    let running = kiln.start(words);
    let found = wait_for("the build did not come to its end", || {
        let private = fs::read_dir(kiln.store().join("tmp")).ok()?.filter_map(|entry| Some(entry.ok()?.path()));
        private.into_iter().find_map(|private| {
            let outputs = fs::read_dir(private.join("store")).ok()?;
            let out = outputs.filter_map(|entry| Some(entry.ok()?.path())).find(|out| out.join(&mark).exists())?;
            Some((private, out))
        })
    });
    // The recipe has been read; the directory may go.
    Paused { running, private: found.0, out: found.1 }
}

impl Paused {
    /// Lets it end.
    fn go(self) -> Ran {
        fs::write(self.out.join("go"), "").unwrap();
        self.running.end()
    }
}

#[track_caller]
fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn only(ran: &Ran) -> Value {
    ran.json()["builds"][0].clone()
}

fn message(outcome: &Value) -> &str {
    outcome["failure"]["message"].as_str().unwrap_or_else(|| panic!("no failure in {outcome:#}"))
}

/// Where an output lies in the store.
fn stored(kiln: &Kiln, outcome: &Value, output: &str) -> PathBuf {
    let path = outcome["outputs"][output]["path"].as_str().unwrap_or_else(|| panic!("no {output} in {outcome:#}"));
    kiln.store().join(path.trim_start_matches('/'))
}

/// A directory of the host's that nothing may change.
struct Canary {
    dir: tempfile::TempDir,
    before: Vec<String>,
}

impl Canary {
    fn new() -> Self {
        let dir = ground::directory(Ground::Disk);
        fs::create_dir(dir.path().join("inner")).unwrap();
        fs::set_permissions(dir.path().join("inner"), fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(dir.path().join("inner/file"), "the host's\n").unwrap();
        fs::write(dir.path().join("file"), "the host's\n").unwrap();
        let before = Self::look(dir.path());
        Self { dir, before }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn look(dir: &Path) -> Vec<String> {
        let tell = |name: &str| {
            let stat = fs::symlink_metadata(dir.join(name)).map_err(|error| error.kind());
            let stat = stat.map(|s| (s.ino(), s.mode(), s.uid(), s.gid(), s.size(), s.mtime(), s.mtime_nsec()));
            format!("{name} {stat:?} {:?}", fs::read(dir.join(name)).ok())
        };
        ["", "inner", "inner/file", "file"].map(tell).to_vec()
    }

    #[track_caller]
    fn untouched(&self) {
        assert_eq!(Self::look(self.path()), self.before);
    }
}

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

macro_rules! needs_files {
    ($name:literal) => {
        if !ground::has_files($name) {
            return;
        }
    };
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

/// Lets an accomplice change the output between the script's end and the scan, as if the filter had a hole.
fn with_accomplice(change: impl FnOnce(&Path)) -> (Kiln, Ran, Value) {
    let kiln = Kiln::warm();
    let paused = paused(&kiln, r#"mkdir "$out/dir""#, &[]);
    change(&paused.out);
    let ran = paused.go();
    let outcome = only(&ran);
    (kiln, ran, outcome)
}

/// A .deb of `name` as the lock has it, with these bytes for its data.tar.
fn forged(control: &str, data: &[u8]) -> Vec<u8> {
    let archive = |name: &str, body: &[u8]| archive(&[entry(name.as_bytes(), b'0', b"", body)]);
    let mut bytes = Vec::new();
    let mut ar = ar::Builder::new(&mut bytes);
    for (name, body) in [
        ("debian-binary", b"2.0\n".to_vec()),
        ("control.tar", archive("./control", control.as_bytes())),
        ("data.tar", data.to_vec()),
    ] {
        ar.append(&ar::Header::new(name.into(), body.len() as u64), body.as_slice()).unwrap();
    }
    bytes
}

/// A tar header with no check of anything, and its body.
fn entry(name: &[u8], kind: u8, link: &[u8], body: &[u8]) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    let raw = header.as_mut_bytes();
    raw[..name.len()].copy_from_slice(name);
    raw[157..157 + link.len()].copy_from_slice(link);
    header.set_mode(0o755);
    header.set_size(body.len() as u64);
    header.set_entry_type(tar::EntryType::new(kind));
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend_from_slice(body);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

fn archive(entries: &[Vec<u8>]) -> Vec<u8> {
    [entries.concat(), vec![0; 1024]].concat()
}

/// What else is in an environment with a forged package.
#[derive(PartialEq, Eq)]
enum Beside {
    Nothing,
    AllOthers,
}

/// Builds in an environment one of whose packages has these entries.
fn unpacking(entries: &[Vec<u8>], beside: &Beside) -> Ran {
    let mirror = ground::directory(Ground::Disk);
    let made = Made::new(r#"echo built >"$out""#);
    let mut lock = Lock::parse(&made.read("recipe.lock")).unwrap();
    // Another environment than any that is there already.
    lock.environment.nar_hash = kiln_model::digest::NarHash::new(Digest::of(recipe::nonce()));
    lock.environment.base = lock.environment.nar_hash;
    if *beside == Beside::Nothing {
        lock.environment.packages.retain(|package| package.name == "hostname");
    }
    let package = lock.environment.packages.iter_mut().find(|package| package.name == "hostname").unwrap();
    let control = format!(
        "Package: {}\nVersion: {}\nArchitecture: {}\nMaintainer: x\nDescription: x\n",
        package.name, package.version, package.arch
    );
    let deb = forged(&control, &archive(entries));
    fs::write(mirror.path().join(package.path.rsplit('/').next().unwrap()), &deb).unwrap();
    package.sha256 = Digest::of(&deb);
    package.size = deb.len() as u64;
    made.write("recipe.lock", &lock.print());
    let kiln = Kiln::warm();
    kiln.mirrors(&[&mirror.path().display().to_string()]);
    kiln.run(["build".as_ref(), made.path().as_os_str()])
}

/// CVE-2024-45593, CVE-2026-26960, RUSTSEC-2026-0113, CVE-2025-62518 and their kin.
#[test]
fn e08_archives_that_leave_their_tree_or_hold_what_is_no_file_are_refused_by_name() {
    needs_files!("e08");
    let canary = Canary::new();
    let to = canary.path().join("file").display().to_string();
    let name = |name: &str| format!("{}/{name}", canary.path().display());
    let file = |name: &str| entry(name.as_bytes(), b'0', b"", b"escaped");
    let link = |name: &str, target: &str| entry(name.as_bytes(), b'2', target.as_bytes(), b"");
    let hard = |name: &str, target: &str| entry(name.as_bytes(), b'1', target.as_bytes(), b"");
    let climb = format!("./../../../../../../../../../..{to}");
    let mut sized = entry(b"./pax", b'x', b"", b"13 size=1000\n");
    sized.extend(file("./hidden"));
    let corpus = [
        (vec![file(&to)], "file"),
        (vec![file(&climb)], "file"),
        (vec![link("./out", &name("inner")), file("./out/file")], "out/file"),
        (vec![link("./out", &name("")), entry(b"./out/inner/", b'5', b"", b"")], "out"),
        (vec![hard("./h", &to)], "./h"),
        (vec![link("./a", &name("")), link("./b", "a"), hard("./h", "./b/file")], "h"),
        (vec![file("./twice"), file("./twice")], "twice"),
        (vec![sized], "pax"),
        (vec![entry(b"./null", b'3', b"", b"")], "./null"),
        (vec![entry(b"./pipe", b'6', b"", b"")], "./pipe"),
        (vec![entry(b"./bomb", b'S', b"", b"")], "./bomb"),
    ];
    for (entries, named) in corpus {
        let ran = unpacking(&entries, &Beside::Nothing);
        assert!(matches!(ran.code(), Some(2 | 5 | 6 | 7)), "{named}: {ran:?}");
        ran.says(&[named]);
        canary.untouched();
    }
    // The control: one without tricks is unpacked, and only then seen not to be what the lock says.
    unpacking(&[file("./usr/share/plain")], &Beside::AllOthers).exits(6).says(&["environment"]);
    Kiln::warm().verified();
}

/// CVE-2026-44028: a parser that called itself for each level.
#[test]
fn e09_trees_ten_thousand_levels_deep_are_an_error_and_not_a_crash() {
    needs_files!("e09");
    for (levels, why) in [(2_000, "deeper than"), (10_000, "longer than")] {
        let long = entry(b"././@LongLink", b'L', b"", format!("{}\0", "d/".repeat(levels)).as_bytes());
        let ran = unpacking(&[long, entry(b"short", b'5', b"", b"")], &Beside::Nothing);
        assert!(matches!(ran.code(), Some(2 | 6 | 7)), "{ran:?}");
        ran.says(&[why]);
    }
    let made = Made::new(
        r#"perl -e 'mkdir $ENV{out}; chdir $ENV{out}; for (1..10000) { mkdir "d" or die; chdir "d" or die } open F, ">", "f" or die'"#,
    );
    let kiln = Kiln::warm();
    let ran = kiln.run(["build".as_ref(), "--json".as_ref(), made.path().as_os_str()]).exits(5);
    assert!(message(&only(&ran)).contains("deep"), "{}", message(&only(&ran)));
    // And it can be removed again.
    kiln.run(["store", "verify"]).succeeded();
}

#[test]
fn e10_the_scan_refuses_set_id_files_that_the_filter_did_not_see_made() {
    needs_files!("e10");
    for mode in [0o4755, 0o2755, 0o6755, 0o4644] {
        let (_, ran, outcome) = with_accomplice(|out| {
            fs::set_permissions(out.join("file"), fs::Permissions::from_mode(mode)).unwrap();
        });
        ran.exits(5);
        let message = message(&outcome);
        assert!(message.contains("\"file\"") && message.contains("set-"), "{mode:o}: {message}");
    }
    // What only directories mean by these bits is not kept.
    let (kiln, ran, outcome) = with_accomplice(|out| {
        fs::set_permissions(out.join("dir"), fs::Permissions::from_mode(0o3755)).unwrap();
    });
    ran.exits(0);
    assert_eq!(fs::metadata(stored(&kiln, &outcome, "out").join("dir")).unwrap().mode() & 0o7777, 0o555);
}

/// A system call on a path, by perl: std has none for attributes and nodes.
fn by_perl(program: &str, path: &Path) -> bool {
    Command::new("perl").args(["-e", program]).arg(path).status().unwrap().success()
}

#[test]
fn e11_the_scan_refuses_file_capabilities_and_keeps_no_other_attribute() {
    needs_files!("e11");
    let set = |name: &str, value: &str| {
        // Variables, since perl lets no call write to a literal.
        format!(r#"my ($n, $v) = ("{name}", {value}); exit(syscall(188, $ARGV[0], $n, $v, length $v, 0) == 0 ? 0 : 1)"#)
    };
    let capability = set("security.capability", r#"pack("L<5", 0x02000001, 1 << 12, 0, 0, 0)"#);
    if ground::is_root() {
        let (_, ran, outcome) = with_accomplice(|out| assert!(by_perl(&capability, &out.join("file"))));
        ran.exits(5);
        assert!(message(&outcome).contains("\"file\""), "{outcome:#}");
    } else {
        not_here("E11 capability", "only root can give a file capabilities");
    }
    let list = r#"pack("L<(SSL<)5", 2, 1, 6, 0xffffffff, 2, 6, 54321, 4, 4, 0xffffffff, 16, 6, 0xffffffff, 32, 4, 0xffffffff)"#;
    for (name, value) in [("user.smuggled", r#""x""#), ("system.posix_acl_access", list)] {
        let (kiln, ran, outcome) = with_accomplice(|out| {
            assert!(by_perl(&set(name, value), &out.join("file")), "{name}");
        });
        if ran.code() == Some(5) {
            assert!(message(&outcome).contains("\"file\""), "{outcome:#}");
            continue;
        }
        ran.exits(0);
        let file = stored(&kiln, &outcome, "out").join("file");
        assert!(by_perl(r#"my $b = ""; exit(syscall(194, $ARGV[0], $b, 0) == 0 ? 0 : 1)"#, &file), "{name} was kept");
    }
}

#[test]
fn e12_the_scan_refuses_devices_and_whiteouts() {
    needs_files!("e12");
    let make =
        |device: u32, mode: u32| format!(r#"exit(syscall(133, "$ARGV[0]/node", {mode}, {device}) == 0 ? 0 : 1)"#);
    let mut nodes = vec![("whiteout", make(0, 0o020_644))];
    if ground::is_root() {
        nodes.extend([("null", make(1 << 8 | 3, 0o020_666)), ("loop", make(7 << 8, 0o060_660))]);
    } else {
        not_here("E12 device", "only root can make a device");
    }
    for (name, program) in nodes {
        let (_, ran, outcome) = with_accomplice(|out| assert!(by_perl(&program, out), "{name}"));
        ran.exits(5);
        let message = message(&outcome);
        assert!(message.contains("\"node\""), "{name}: {message}");
    }
}

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
fn e30_a_sparse_giant_is_refused_by_its_stated_size_and_many_small_files_are_taken() {
    needs_files!("e30");
    let ran = Kiln::warm().run([
        "build".as_ref(),
        "--json".as_ref(),
        Made::new(r#"mkdir "$out"; echo x >"$out/a"; truncate -s 64G "$out/b""#).path().as_os_str(),
    ]);
    let outcome = only(&ran.exits(5));
    assert!(message(&outcome).contains("more than"), "{outcome:#}");
    let beyond = Made::new(r#"! truncate -s 1E big; ! truncate -s 65G big; echo limited >"$out""#);
    Kiln::warm().build_one(beyond.path());
    let many = Made::new(
        r#"mkdir "$out"; cd "$out"; perl -e 'for (1..20000) { open F, ">", sprintf("%05d", $_) or die } open F, ">", "n" x 255 or die'"#,
    );
    let outcome = Kiln::warm().build_one(many.path());
    assert_eq!(outcome["outputs"]["out"]["manifest"].as_array().unwrap().len(), 20_002);
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
fn e33_odd_outputs_are_taken_as_they_are_or_refused_by_name_and_never_waited_for() {
    needs_files!("e33");
    let kiln = Kiln::warm();
    let began = Instant::now();
    for (script, name) in [
        (r#"mkdir "$out"; mkfifo "$out/pipe""#, "\"pipe\""),
        (r#"mkfifo "$out""#, "pipe"),
        (
            r#"mkdir "$out"; perl -MSocket -e 'socket(S, AF_UNIX, SOCK_STREAM, 0); bind(S, pack_sockaddr_un("$ENV{out}/plug")) or die'"#,
            "\"plug\"",
        ),
        (r#"mkdir "$out"; mkfifo "$out/$(printf 'a\nb\377')""#, r"a\\x0ab\\xff"),
        ("true", "out"),
        (r#"ln -s nowhere "$out/" || echo x >"${out}x""#, "out"),
    ] {
        let made = Made::new(script);
        let outcome = only(&kiln.run(["build".as_ref(), "--json".as_ref(), made.path().as_os_str()]).exits(5));
        assert!(message(&outcome).contains(name), "{script}: {}", message(&outcome));
    }
    assert!(began.elapsed() < Duration::from_secs(300));
    // Links verbatim, wherever they lead; names of any bytes; a hard link within is a file of its own.
    let made = Made::new(
        r#"mkdir "$out" "$out/dir"; cd "$out"; echo x >one; ln one two; ln -s nowhere dangling; ln -s /etc/shadow absolute
ln -s ../../.. climbing; ln -s "$out" itself; touch "$(printf 'a\nb')" "$(printf '\377')" Case case 'trailing '
! ln /bin/true linked-input; ! ln /usr/bin/perl linked-input"#,
    );
    let outcome = kiln.build_one(made.path());
    let path = stored(&kiln, &outcome, "out");
    let (one, two) = (fs::metadata(path.join("one")).unwrap(), fs::metadata(path.join("two")).unwrap());
    assert!(one.ino() != two.ino() && one.nlink() == 1 && two.nlink() == 1);
    for (link, target) in [("dangling", "nowhere"), ("absolute", "/etc/shadow"), ("climbing", "../../..")] {
        assert_eq!(fs::read_link(path.join(link)).unwrap(), Path::new(target));
    }
    let names = fs::read_dir(&path).unwrap().count();
    assert_eq!(names, 12);
    assert!(path.join(std::ffi::OsStr::from_bytes(b"\xff")).exists() && path.join("a\nb").exists());
    // A file for an output, and a directory for one: both are outputs.
    kiln.build_one(Made::new(r#"echo file >"$out""#).path());
    kiln.verified();
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
