//! What the scan of outputs refuses, whoever made it.

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use kiln_tests::ground;
use kiln_tests::recipe::Made;
use kiln_tests::run::Kiln;

use crate::{here::not_here, message, only, stored, with_accomplice};

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
