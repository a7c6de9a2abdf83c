//! Garbage is collected while builds run: they end as if nobody had, and what nobody needs is gone afterwards.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};

use kiln_model::derivation::Output;
use kiln_model::store_path::{StorePath, upstream_placeholder};
use kiln_tests::derivation::{BUILDER, Made, floating, with_builder};
use kiln_tests::ground::{self, Ground};
use kiln_tests::recipe;
use kiln_tests::run::Kiln;
use serde_json::Value;

/// Collects again and again while `work` is done; what it gave, and how many collections there were.
fn while_collecting<T>(kiln: &Kiln, work: impl FnOnce() -> T) -> (T, usize) {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let collecting = scope.spawn(|| {
            let mut collections = 0;
            while !done.load(Ordering::SeqCst) {
                kiln.run(["store", "gc"]).succeeded();
                collections += 1;
            }
            collections
        });
        let made = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        done.store(true, Ordering::SeqCst);
        let collections = collecting.join().expect("every collection ends well");
        (made.unwrap_or_else(|panic| std::panic::resume_unwind(panic)), collections)
    })
}

/// A derivation that says what all before it in its chain said, and then its own name; every third one floats.
fn chain(made: &Made, name: &str, first: &StorePath, length: usize) -> StorePath {
    let mut last = first.clone();
    for number in 0..length {
        let needed = upstream_placeholder(&last, &"out".parse().unwrap()).unwrap();
        let (name, kind) = (format!("{name}-{number}"), if number % 3 == 0 { floating() } else { Output::Deferred });
        let script = format!("busybox sleep 0.05; busybox cat {needed} > $out; echo {name} >> $out");
        last = made.derivation(&name, &[("out", kind)], &[(&last, &["out"])], &script);
    }
    last
}

fn text_of(kiln: &Kiln, outcome: &Value) -> String {
    let path = outcome["outputs"]["out"]["path"].as_str().unwrap_or_else(|| panic!("{outcome:#}"));
    fs::read_to_string(kiln.store().join(path.trim_start_matches('/'))).unwrap()
}

fn listed(kiln: &Kiln) -> Vec<String> {
    kiln.run(["store", "ls"]).succeeded().stdout.lines().map(str::to_owned).collect()
}

#[test]
fn nothing_that_running_builds_need_is_collected_and_all_of_it_once_they_have_ended() {
    let test = "nothing_that_running_builds_need_is_collected_and_all_of_it_once_they_have_ended";
    let Some(kiln) = with_builder(test) else { return };
    kiln.run(["store", "root", "builder", BUILDER]).succeeded();
    let made = Made::default();
    let first = made.derivation("first", &[("out", floating())], &[], "echo first > $out");
    // They share their beginning, and are built at once by two processes.
    let lasts = ["left", "right"].map(|name| chain(&made, name, &first, 10));
    let (outcomes, collections) = while_collecting(&kiln, || {
        std::thread::scope(|scope| {
            let builds = lasts.each_ref().map(|last| {
                let (kiln, file) = (&kiln, made.file(last));
                scope.spawn(move || {
                    let running = kiln.run(["build".as_ref(), "--json".as_ref(), file.as_os_str()]).succeeded();
                    running.json()["builds"][0].clone()
                })
            });
            builds.map(|build| build.join().unwrap())
        })
    });
    assert!(collections > 3, "only {collections} collections");
    // What is built is not kept beyond the process that built it, unless a root says so.
    kiln.run(["store", "gc"]).succeeded();
    assert_eq!(listed(&kiln), [BUILDER]);
    assert!(outcomes.iter().all(|outcome| outcome["status"] == "built"), "{outcomes:#?}");
    for (last, name) in lasts.iter().zip(["left", "right"]) {
        let expected: String = (0..10).map(|number| format!("{name}-{number}\n")).collect();
        assert_eq!(text_of(&kiln, &kiln.build_one(&made.file(last))), format!("first\n{expected}"));
    }
    kiln.verified();
}

#[test]
fn the_environment_of_a_running_build_is_not_collected() {
    let test = "the_environment_of_a_running_build_is_not_collected";
    if !ground::has_files(test) {
        return;
    }
    let kiln = Kiln::fresh(Ground::Tmpfs);
    kiln.build_one(&recipe::shipped("handbook"));
    // Lists of what was in them stay, to tell what is other next time.
    let environments = || {
        let entries = fs::read_dir(kiln.store().join("environments")).unwrap();
        entries.filter(|entry| entry.as_ref().unwrap().file_type().unwrap().is_dir()).count()
    };
    assert!(environments() > 0);
    // Programs that were not needed yet are run after some collections.
    let made = recipe::Made::new(
        "for i in 1 2 3 4 5 6 7 8; do sleep 0.2; ls -R /usr/share | sort | tail -n 1; done >\"$out\"",
    );
    let (outcome, collections) = while_collecting(&kiln, || kiln.build_one(made.path()));
    assert_eq!(outcome["status"], "built");
    assert!(collections > 1, "only {collections} collections");
    kiln.run(["store", "gc"]).succeeded();
    assert_eq!(environments(), 0);
    kiln.verified();
}
