//! `kiln build`: what comes out is what the script made, the same in any store, and made once.

use std::collections::BTreeSet;
use std::path::Path;

use kiln_tests::ground::{self, Ground};
use kiln_tests::recipe::{self, Made};
use kiln_tests::run::{Kiln, Running};
use serde_json::Value;

fn nar_hash<'a>(outcome: &'a Value, output: &str) -> &'a str {
    outcome["outputs"][output]["nar_hash"].as_str().unwrap_or_else(|| panic!("no output {output} in {outcome:#}"))
}

/// The manifest's entry at `path`.
fn entry<'a>(outcome: &'a Value, output: &str, path: &str) -> Option<&'a Value> {
    outcome["outputs"][output]["manifest"].as_array()?.iter().find(|entry| entry["path"] == path)
}

#[test]
fn an_output_holds_what_the_script_made_and_nothing_else() {
    if !ground::has_files("an_output_holds_what_the_script_made_and_nothing_else") {
        return;
    }
    let made = Made::new(
        r#"mkdir -p "$out/bin" "$out/empty"; echo data >"$out/data"; printf '#!/bin/sh\n' >"$out/bin/run"
chmod 755 "$out/bin/run"; ln -s data "$out/link""#,
    );
    let outcome = Kiln::warm().build_one(made.path());
    assert_eq!(outcome["status"], "built");
    assert_eq!(outcome["cached"], false);
    let manifest = outcome["outputs"]["out"]["manifest"].as_array().unwrap();
    let told: Vec<(&str, &str)> =
        manifest.iter().map(|e| (e["path"].as_str().unwrap(), e["kind"].as_str().unwrap())).collect();
    let expected = [
        ("", "directory"),
        ("bin", "directory"),
        ("bin/run", "file"),
        ("data", "file"),
        ("empty", "directory"),
        ("link", "symlink"),
    ];
    assert_eq!(told, expected);
    assert_eq!(entry(&outcome, "out", "bin/run").unwrap()["executable"], true);
    assert_eq!(entry(&outcome, "out", "data").unwrap()["executable"], false);
    assert_eq!(entry(&outcome, "out", "link").unwrap()["target"], "data");
}

#[test]
fn an_unchanged_recipe_is_taken_from_the_store_and_no_socket_is_opened() {
    if !ground::has_files("an_unchanged_recipe_is_taken_from_the_store_and_no_socket_is_opened") {
        return;
    }
    let made = Made::new(r#"echo once >"$out""#);
    let kiln = Kiln::warm();
    let first = kiln.build_one(made.path());
    let log = ground::directory(Ground::Disk);
    let trace = log.path().join("trace");
    let watched = Kiln::warm().online().through(
        ["strace", "-f", "-qq", "-e", "trace=socket,connect,execve", "-o"]
            .map(String::from)
            .into_iter()
            .chain([trace.display().to_string()]),
    );
    let second = watched.build_one(made.path());
    assert_eq!(second["cached"], true);
    assert_eq!(nar_hash(&first, "out"), nar_hash(&second, "out"));
    let calls = std::fs::read_to_string(&trace).unwrap();
    assert!(calls.contains("execve("), "strace saw nothing:\n{calls}");
    for family in ["AF_INET", "AF_INET6"] {
        assert!(!calls.contains(family), "a cached build opened a socket:\n{calls}");
    }
}

#[test]
fn a_changed_script_is_built_and_a_changed_comment_too() {
    if !ground::has_files("a_changed_script_is_built_and_a_changed_comment_too") {
        return;
    }
    let made = Made::new(r#"echo a >"$out""#);
    let kiln = Kiln::warm();
    let first = kiln.build_one(made.path());
    made.edit("recipe.toml", "echo a", "echo b");
    let second = kiln.build_one(made.path());
    assert_eq!(second["cached"], false);
    assert_ne!(first["derivation"], second["derivation"]);
    assert_ne!(nar_hash(&first, "out"), nar_hash(&second, "out"));
    made.edit("recipe.toml", "echo b", ": again; echo b");
    let third = kiln.build_one(made.path());
    assert_eq!(third["cached"], false);
    assert_eq!(nar_hash(&second, "out"), nar_hash(&third, "out"));
}

/// Everything that a build could see of who runs it; not what it could see of file systems, whose directories have sizes.
const SURFACE: &str = r#"{ env | sort; pwd; umask; id; hostname; date +%Z; ulimit -a; cat /etc/passwd /etc/group /etc/hosts
ls -A / /dev /proc/self/fd; tty || true; locale 2>/dev/null || true; } >"$out""#;

#[test]
fn stores_on_other_file_systems_under_other_zones_locales_umasks_and_host_names_agree() {
    if !ground::has_files("stores_on_other_file_systems_under_other_zones_locales_umasks_and_host_names_agree") {
        return;
    }
    let surface = Made::new(SURFACE);
    let recipes = [recipe::shipped("greeting"), recipe::shipped("handbook"), surface.path().to_path_buf()];
    let recipes: Vec<&Path> = recipes.iter().map(|p| p.as_path()).collect();
    let here = Kiln::warm();
    let mut wrapper = vec!["sh", "-c", "umask 077; exec \"$@\"", "sh"];
    if ground::is_root() {
        wrapper.splice(2..3, ["umask 077; hostname elsewhere; exec \"$@\""]);
        wrapper.splice(0..0, ["unshare", "--uts"]);
    }
    let there = Kiln::fresh(Ground::Tmpfs)
        .env("TZ", "Pacific/Kiritimati")
        .env("LC_ALL", "et_EE.UTF-8")
        .env("LANG", "et_EE.UTF-8")
        .env("CFLAGS", "-O3 -march=native")
        .env("SOURCE_DATE_EPOCH", "1")
        .env("TMPDIR", "/dev/shm")
        .through(wrapper);
    let (first, second) = (here.build(&recipes), there.build(&recipes));
    assert_eq!(ground::file_system(there.store()), nix::sys::statfs::TMPFS_MAGIC);
    assert_ne!(ground::file_system(here.store()), nix::sys::statfs::TMPFS_MAGIC);
    for (a, b) in first.iter().zip(&second) {
        assert_eq!(b["cached"], false, "a fresh store has nothing to take");
        assert_eq!(a["derivation"], b["derivation"]);
        assert_eq!(a["outputs"]["out"]["nar_hash"], b["outputs"]["out"]["nar_hash"]);
        assert_eq!(a["inputs"], b["inputs"], "environments have the same digest in both stores");
    }
    there.verified();
}

#[test]
fn several_outputs_are_told_apart_and_may_refer_to_each_other() {
    if !ground::has_files("several_outputs_are_told_apart_and_may_refer_to_each_other") {
        return;
    }
    let made = Made::with(
        r#"outputs = ["out", "dev"]"#,
        r#"mkdir "$out" "$dev"; echo library >"$out/lib"; ln -s "$out/lib" "$dev/lib""#,
    );
    let outcome = Kiln::warm().build_one(made.path());
    let out = outcome["outputs"]["out"]["path"].as_str().unwrap();
    let link = entry(&outcome, "dev", "lib").unwrap();
    assert_eq!(link["target"], format!("{out}/lib"));
    assert_ne!(nar_hash(&outcome, "out"), nar_hash(&outcome, "dev"));
    assert!(outcome["outputs"]["dev"]["path"].as_str().unwrap().ends_with("-dev"));
}

#[test]
fn an_output_of_another_recipe_is_built_first_and_found_at_its_path() {
    if !ground::has_files("an_output_of_another_recipe_is_built_first_and_found_at_its_path") {
        return;
    }
    let library = Made::with(r#"outputs = ["out", "dev"]"#, r#"echo library >"$out"; echo header >"$dev""#);
    let program = Made::new(r#"cat "$header" >"$out""#);
    let name = library.path().file_name().unwrap().to_str().unwrap();
    program.edit(
        "recipe.toml",
        "[environment]",
        &format!("[inputs.header]\nrecipe = \"../{name}\"\noutput = \"dev\"\n\n[environment]"),
    );
    // The lock was made without that input.
    let refused = Kiln::warm().run(["build".as_ref(), program.path().as_os_str()]).exits(2);
    refused.says(&["kiln lock"]);
    relock(&program);
    let outcome = Kiln::warm().build_one(program.path());
    assert_eq!(outcome["status"], "built");
    let library = Kiln::warm().build_one(library.path());
    assert_eq!(library["cached"], true, "it was built for the program");
    let inputs: BTreeSet<&str> = outcome["inputs"].as_object().unwrap().keys().map(String::as_str).collect();
    let dev = library["outputs"]["dev"]["path"].as_str().unwrap();
    assert!(inputs.iter().any(|path| dev.ends_with(path) || path == &dev), "{dev} is not among {inputs:?}");
}

/// Rewrites the lock's digest of what it was made for: an input that is another recipe adds nothing else to a lock.
fn relock(made: &Made) {
    let recipe = kiln_model::recipe::Recipe::parse(&made.read("recipe.toml")).unwrap();
    let mut lock = kiln_model::lock::Lock::parse(&made.read("recipe.lock")).unwrap();
    lock.pins = recipe.pins();
    made.write("recipe.lock", &lock.print());
}

#[test]
fn two_kilns_may_build_the_same_recipe_at_once() {
    if !ground::has_files("two_kilns_may_build_the_same_recipe_at_once") {
        return;
    }
    let made = Made::new(r#"sleep 0.3; echo both >"$out""#);
    let kiln = Kiln::warm();
    let start = || Running::of(kiln.command(["build".as_ref(), "--json".as_ref(), made.path().as_os_str()]));
    let (first, second) = (start(), start());
    let [first, second] = [first, second].map(|running| running.end().succeeded().json());
    assert_eq!(first["builds"][0]["outputs"], second["builds"][0]["outputs"]);
    kiln.verified();
}

#[test]
fn stdout_is_one_document_and_quiet_means_quiet() {
    if !ground::has_files("stdout_is_one_document_and_quiet_means_quiet") {
        return;
    }
    let made = Made::new(r#"echo noise; echo noise >&2; echo x >"$out""#);
    let path = made.path().as_os_str();
    let ran = Kiln::warm().run(["build".as_ref(), "--json".as_ref(), "--quiet".as_ref(), path]).succeeded();
    assert_eq!(ran.json()["schema"], "kiln/builds/v1");
    assert_eq!(ran.stderr, "");
}

#[test]
fn a_build_ends_at_the_memory_that_the_configuration_gives_it_or_is_refused_where_nothing_can_hold_it() {
    let test = "a_build_ends_at_the_memory_that_the_configuration_gives_it_or_is_refused_where_nothing_can_hold_it";
    if !ground::has_files(test) {
        return;
    }
    let kiln = Kiln::warm();
    kiln.configure("[fetch]\nclients = []\n[build]\nmemory = 134217728\n");
    let modest = Made::new(r#"perl -e '$x = "x" x (16 << 20)'; echo done >"$out""#);
    let greedy = Made::new(r#"perl -e '$x = "x" x (512 << 20)'; echo done >"$out""#);
    let build = |made: &Made| kiln.run(["build".as_ref(), "--json".as_ref(), made.path().as_os_str()]);
    if kiln_sandbox::probe().control_groups.rung() == 0 {
        build(&modest).exits(3).says(&["control group"]);
        return;
    }
    build(&modest).succeeded();
    let outcome = &build(&greedy).exits(5).json()["builds"][0];
    assert_eq!(outcome["limit"], "memory");
}
