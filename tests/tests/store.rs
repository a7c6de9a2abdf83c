//! The store in trouble: full, read-only, damaged, of another version. It says so, and what was whole stays whole.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use kiln_tests::ground::{self, Ground};
use kiln_tests::recipe::{self, Made};
use kiln_tests::run::Kiln;

/// Runs kiln in a mount namespace of its own after `mount` (a shell command) has been run there; root is not needed.
fn mounted(mount: &str) -> Vec<String> {
    let words = |words: &[&str]| words.iter().map(|w| w.to_string()).collect::<Vec<_>>();
    if ground::is_root() {
        return words(&["unshare", "--mount", "sh", "-ec", &format!("{mount}; exec \"$@\""), "sh"]);
    }
    // mount(8) wants uid 0; kiln must be itself again.
    let (uid, gid) = (nix::unistd::getuid(), nix::unistd::getgid());
    let back = format!("{mount}; exec unshare --user --map-user={uid} --map-group={gid} \"$@\"");
    words(&["unshare", "--user", "--map-root-user", "--mount", "sh", "-ec", &back, "sh"])
}

#[test]
fn a_full_disk_is_told_and_what_was_whole_stays_whole() {
    if !ground::has_files("a_full_disk_is_told_and_what_was_whole_stays_whole") {
        return;
    }
    // Room for the store and some packages, not for an environment; then for an environment, not for the output.
    let small = mounted("mkdir -p \"$KILN_STORE\"; mount -t tmpfs -o size=40m store \"$KILN_STORE\"");
    let code_then_verify = r#"code=0; "$@" || code=$?; "$1" --offline store verify >&2; exit $code"#;
    let wrapper = small.into_iter().chain(["sh", "-ec", code_then_verify, "sh"].map(String::from));
    let kiln = Kiln::fresh(Ground::Disk).through(wrapper);
    kiln.run(["build".as_ref(), recipe::shipped("handbook").as_os_str()]).exits(7).says(&["space"]);
}

#[test]
fn a_read_only_store_is_told() {
    let read_only = mounted(
        "mkdir -p \"$KILN_STORE\"; mount --bind \"$KILN_STORE\" \"$KILN_STORE\"; mount -o remount,bind,ro \"$KILN_STORE\"",
    );
    let kiln = Kiln::fresh(Ground::Disk).through(read_only);
    let ran = kiln.run(["build".as_ref(), recipe::shipped("handbook").as_os_str()]).exits(7);
    ran.says(&["Read-only file system", "store"]);
}

#[test]
fn a_store_of_a_newer_kiln_is_refused_and_left_alone() {
    let kiln = Kiln::fresh(Ground::Disk);
    fs::create_dir_all(kiln.store()).unwrap();
    fs::write(kiln.store().join("schema"), "99\n").unwrap();
    let ran = kiln.run(["build".as_ref(), recipe::shipped("handbook").as_os_str()]);
    assert_ne!(ran.code(), Some(0));
    let ran = ran.says(&["99", "newer"]);
    assert!(matches!(ran.code(), Some(2 | 7)), "{ran:?}");
    let left: Vec<_> = fs::read_dir(kiln.store()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["schema"]);
}

/// A store of its own with one build in it.
fn with_a_build(ground: Ground) -> (Kiln, Made) {
    let kiln = Kiln::fresh(ground);
    let made = Made::new(r#"mkdir "$out"; echo whole >"$out/file""#);
    kiln.build_one(made.path());
    (kiln, made)
}

fn make_writable(path: &Path) {
    let mode = fs::metadata(path).expect("the file is there").permissions().mode();
    fs::set_permissions(path, fs::Permissions::from_mode(mode | 0o200)).expect("its owner may change it");
}

#[test]
fn an_altered_byte_is_found_and_named_and_not_used() {
    if !ground::has_files("an_altered_byte_is_found_and_named_and_not_used") {
        return;
    }
    let (kiln, made) = with_a_build(Ground::Tmpfs);
    let outcome = kiln.build_one(made.path());
    let path = outcome["outputs"]["out"]["path"].as_str().unwrap();
    let name = path.rsplit('/').next().unwrap();
    let file = kiln.store().join("nix/store").join(name).join("file");
    make_writable(&file);
    fs::write(&file, "altered").unwrap();
    let ran = kiln.run(["store", "verify"]).exits(6);
    assert!(ran.stdout.contains(name), "{ran:?}");
}

#[test]
fn a_lost_index_is_made_again_from_the_files() {
    if !ground::has_files("a_lost_index_is_made_again_from_the_files") {
        return;
    }
    let (kiln, made) = with_a_build(Ground::Tmpfs);
    for entry in fs::read_dir(kiln.store()).unwrap() {
        let entry = entry.unwrap();
        if entry.file_name().to_string_lossy().starts_with("index") {
            fs::remove_file(entry.path()).unwrap();
        }
    }
    assert_eq!(kiln.build_one(made.path())["cached"], true);
    kiln.verified();
}
