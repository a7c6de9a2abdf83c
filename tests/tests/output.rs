//! What a script may leave behind, and how a build that goes wrong is told.

use kiln_tests::ground;
use kiln_tests::recipe::Made;
use kiln_tests::run::{Kiln, Ran};
use serde_json::Value;

/// Builds a script that must not come out as built; the outcome, if there is one.
fn failing(script: &str) -> (Ran, Value) {
    let ran = Kiln::warm().run(["build".as_ref(), "--json".as_ref(), Made::new(script).path().as_os_str()]).exits(5);
    let outcome = ran.json()["builds"][0].clone();
    (ran, outcome)
}

#[test]
fn a_script_that_fails_exits_5_and_shows_the_end_of_its_log() {
    if !ground::has_files("a_script_that_fails_exits_5_and_shows_the_end_of_its_log") {
        return;
    }
    let (ran, outcome) = failing("for i in $(seq 500); do echo line $i; done; echo the last word >&2; exit 3");
    assert_eq!(outcome["status"], "failed");
    assert_eq!(outcome["failure"]["exit"], 3);
    let tail = outcome["failure"]["log_tail"].as_str().unwrap();
    assert!(tail.contains("line 500\nthe last word"), "{tail}");
    assert!(!tail.contains("line 1\n"), "only the end: {tail}");
    ran.says(&["the last word"]);
}

#[test]
fn the_first_command_that_fails_ends_the_script() {
    if !ground::has_files("the_first_command_that_fails_ends_the_script") {
        return;
    }
    let (_, outcome) = failing(r#"echo x >"$out"; false; echo not reached"#);
    assert!(!outcome["failure"]["log_tail"].as_str().unwrap().contains("not reached"));
    assert_eq!(outcome["outputs"].as_object().unwrap().len(), 0);
}

#[test]
fn a_script_killed_by_a_signal_is_told_so() {
    if !ground::has_files("a_script_killed_by_a_signal_is_told_so") {
        return;
    }
    let (_, outcome) = failing("kill -SEGV $$");
    assert_eq!(outcome["failure"]["signal"], 11);
}

#[test]
fn a_missing_output_is_a_failure_that_names_it() {
    if !ground::has_files("a_missing_output_is_a_failure_that_names_it") {
        return;
    }
    let (_, outcome) = failing("echo nothing made");
    let message = outcome["failure"]["message"].as_str().unwrap();
    assert!(message.contains("out"), "{message}");
    let made = Made::with(r#"outputs = ["out", "doc"]"#, r#"echo x >"$out""#);
    let ran = Kiln::warm().run(["build".as_ref(), "--json".as_ref(), made.path().as_os_str()]).exits(5);
    let message = ran.json()["builds"][0]["failure"]["message"].as_str().unwrap().to_string();
    assert!(message.contains("doc"), "{message}");
}

#[test]
fn devices_and_setuid_bits_cannot_even_be_made() {
    if !ground::has_files("devices_and_setuid_bits_cannot_even_be_made") {
        return;
    }
    for script in [
        r#"mkdir "$out"; mknod "$out/null" c 1 3"#,
        r#"echo x >"$out"; chmod 4755 "$out""#,
        r#"echo x >"$out"; chmod 2755 "$out""#,
    ] {
        let (_, outcome) = failing(script);
        assert!(outcome["failure"]["log_tail"].as_str().unwrap().contains("not permitted"), "{outcome:#}");
    }
}

#[test]
fn names_that_are_not_text_are_kept_and_told_unambiguously() {
    if !ground::has_files("names_that_are_not_text_are_kept_and_told_unambiguously") {
        return;
    }
    let made = Made::new(
        r#"mkdir "$out"; cd "$out"; touch "$(printf 'a\377b')" "$(printf 'tab\there')" 'back\slash' ' space ' é Case case
long=$(printf '%0255d' 0); touch "$long"; ln -s "$(printf '\376')" link"#,
    );
    let outcome = Kiln::warm().build_one(made.path());
    let manifest = outcome["outputs"]["out"]["manifest"].as_array().unwrap();
    let paths: Vec<&str> = manifest.iter().map(|e| e["path"].as_str().unwrap()).collect();
    for name in [r"a\xffb", r"tab\x09here", r"back\x5cslash", " space ", "é", "Case", "case", &"0".repeat(255)] {
        assert!(paths.contains(&name), "{name:?} is not in {paths:?}");
    }
    Kiln::warm().verified();
}

#[test]
fn a_build_without_an_end_is_stopped_at_its_deadline() {
    if !ground::has_files("a_build_without_an_end_is_stopped_at_its_deadline") {
        return;
    }
    let made = Made::new("trap '' TERM; echo began; while :; do sleep 1; done");
    made.edit("recipe.toml", "[build]", "[limits]\ndeadline = 2\n\n[build]");
    let ran = Kiln::warm().run(["build".as_ref(), "--json".as_ref(), made.path().as_os_str()]).exits(5);
    assert_eq!(ran.json()["builds"][0]["status"], "timed-out");
}

#[test]
fn a_failed_build_is_not_remembered_as_built() {
    if !ground::has_files("a_failed_build_is_not_remembered_as_built") {
        return;
    }
    let made = Made::new(r#"echo half >"$out"; exit 1"#);
    for _ in 0..2 {
        let ran = Kiln::warm().run(["build".as_ref(), "--json".as_ref(), made.path().as_os_str()]).exits(5);
        assert_eq!(ran.json()["builds"][0]["cached"], false);
    }
}

#[test]
fn there_is_no_network_and_the_host_is_not_seen() {
    if !ground::has_files("there_is_no_network_and_the_host_is_not_seen") {
        return;
    }
    let secret = ground::directory(ground::Ground::Disk);
    std::fs::write(secret.path().join("secret"), "seen").unwrap();
    let script = format!(
        r#"if perl -MSocket -e 'socket(S, AF_INET, SOCK_STREAM, 0); connect(S, sockaddr_in(53, inet_aton("192.0.2.1"))) or exit 1'; then echo network; exit 1; fi
! cat {secret}/secret
! ls {repository}
! touch /usr/written /etc/written
echo sealed >"$out""#,
        secret = secret.path().display(),
        repository = ground::repository().display(),
    );
    let outcome = Kiln::warm().build_one(Made::new(&script).path());
    assert_eq!(outcome["status"], "built");
    assert!(!outcome["isolation"].as_object().unwrap().is_empty(), "what was achieved is told");
}
