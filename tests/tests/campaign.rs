//! Campaigns: many targets in one run, from an archive of our own. What is done stays done when kiln is killed, what is over a
//! budget is not begun, and what cannot be rebuilt costs no other target.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use kiln_tests::archive::{Archive, SUITE};
use kiln_tests::ground::Ground;
use kiln_tests::run::{Kiln, Ran};
use kiln_tests::schema::fits;
use nix::sys::signal::{Signal, kill};
use serde_json::Value;

const VERSION: &str = "1.0";

/// A source whose build runs `lines`, with one package for each of `packages`.
fn source(archive: &Archive, name: &str, packages: &[&str], lines: &str) {
    let stanza = |package: &&str| {
        format!("\nPackage: {package}\nArchitecture: all\nDescription: proves something\n Once and for all.\n")
    };
    let packed = |package: &&str| {
        format!(
            "\tmkdir -p debian/{package}/DEBIAN\n\tdpkg-gencontrol -p{package} -Pdebian/{package}\n\
             \tdpkg-deb --root-owner-group -b debian/{package} ..\n"
        )
    };
    let control = format!(
        "Source: {name}\nSection: misc\nPriority: optional\nMaintainer: A Prover <a@proving.test>\n\
         Standards-Version: 4.6.2\nRules-Requires-Root: no\n{}",
        packages.iter().map(stanza).collect::<String>()
    );
    let rules = format!(
        "#!/usr/bin/make -f\nbuild:\nclean:\nbinary:\n{lines}{}",
        packages.iter().map(packed).collect::<String>()
    );
    let changelog = format!(
        "{name} ({VERSION}) unstable; urgency=medium\n\n  * Entry.\n\n -- A Prover <a@proving.test>  Fri, 05 Feb 2021 10:00:00 +0000\n"
    );
    let files = [
        ("debian/control", control.as_str()),
        ("debian/changelog", &changelog),
        ("debian/rules", &rules),
        ("debian/source/format", "3.0 (native)\n"),
    ];
    archive.source(name, VERSION, &files);
    for package in packages {
        let control = format!(
            "Source: {name}\nArchitecture: all\nMaintainer: A Prover <a@proving.test>\nDescription: nobody built this\n"
        );
        archive.empty_package(package, VERSION, &control);
    }
}

/// An archive with a source whose build fails, one whose files are gone, one that takes its time, and one with two packages.
fn archive(test: &str) -> Option<Archive> {
    let mut archive = Archive::open(test)?;
    source(&archive, "proving-fails", &["proving-fails"], "\tfalse\n");
    source(&archive, "proving-gone", &["proving-gone"], "");
    source(&archive, "proving-slow", &["proving-slow"], "\tsleep 12\n");
    source(&archive, "proving-two", &["proving-two", "proving-two-more"], "");
    archive.sign();
    fs::remove_file(archive.pool().join("proving-gone_1.0.tar.xz")).unwrap();
    Some(archive)
}

/// A table of targets.
fn table(kiln: &Kiln, lines: &str) -> String {
    let path = kiln.home().join(format!("targets-{}.tsv", lines.len()));
    fs::write(&path, lines).unwrap();
    path.display().to_string()
}

fn arguments<'a>(from: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let mut all = vec!["rebuild", "--json", "--try=no", "--suite", SUITE, "--jobs", "1", "--from", from];
    all.extend(more);
    all
}

/// What became of each target, by its name without its version.
fn entries(ran: &Ran) -> BTreeMap<String, Value> {
    let document = ran.json();
    let targets = document["targets"].as_array().expect("targets is a list").clone();
    let name = |entry: &Value| entry["target"].as_str().unwrap().split('=').next().unwrap().to_string();
    targets.into_iter().map(|entry| (name(&entry), entry)).collect()
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < Duration::from_secs(600), "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn answers(output: &Path) -> usize {
    fs::read_dir(output.join("state/engine/results/local")).map_or(0, Iterator::count)
}

#[test]
fn a_campaign_that_is_killed_goes_on_where_it_was() {
    let Some(archive) = archive("a_campaign_that_is_killed_goes_on_where_it_was") else { return };
    let kiln = archive.kiln(Ground::Disk);
    let from = table(
        &kiln,
        "# four lines, one of which means nothing\ndebian:proving-fails\tdefault\tfailed\ndebian:proving-gone\nnonsense\n\
         debian:proving-slow\tdefault\tupstream-differs\n",
    );
    let output = kiln.home().join("out");
    let place = output.display().to_string();
    let at = ["--output", place.as_str()];

    let mut killed = kiln.start(arguments(&from, &at));
    wait_until("two targets are done", || {
        assert!(killed.runs(), "it ended by itself");
        answers(&output) >= 2
    });
    // Nobody else works there meanwhile.
    kiln.run(arguments(&from, &at)).exits(2).says(&["another kiln is at work in", "--output"]);
    kill(killed.pid(), Signal::SIGKILL).unwrap();
    let ran = killed.end();
    assert_eq!(ran.code(), None, "{}", ran.stderr);

    // What was done is told; what was running is not, and is not begun without time.
    let told = entries(&kiln.run(arguments(&from, &["--output", &place, "--time-limit", "0s"])).exits(5));
    assert_eq!(told["debian:proving-slow"]["not_attempted"], "time-limit");
    for (name, verdict) in [("debian:proving-fails", "failed"), ("debian:proving-gone", "inconclusive")] {
        assert_eq!((&told[name]["finished"]["verdict"], &told[name]["earlier"]), (&verdict.into(), &true.into()));
    }
    let missing = told["debian:proving-gone"]["finished"]["missing"].to_string();
    assert!(missing.contains("proving-gone_1.0.tar.xz"), "{missing}");
    let error = &told["nonsense"]["finished"]["error"];
    assert_eq!((&error["kind"], &told["nonsense"]["asked"][0]["line"]), (&"bad-input".into(), &4.into()));

    // With time it ends, and the worst decides.
    let ran = kiln.run(arguments(&from, &at)).exits(1);
    let told = entries(&ran);
    let slow = &told["debian:proving-slow"];
    assert_eq!((&slow["finished"]["verdict"], &slow["earlier"]), (&"upstream-differs".into(), &false.into()));
    assert_eq!(slow["finished"]["builds"], 2, "nobody is accused on the word of one build");
    assert_eq!(told["debian:proving-fails"]["earlier"], true);
    assert_eq!(ran.json()["verdict"], "upstream-differs");
    for file in ["report.json", "index.html", "log.txt"] {
        let directory = output.join(slow["directory"].as_str().unwrap());
        assert!(directory.join(file).is_file(), "{file}");
    }
    let log = output.join(told["debian:proving-fails"]["directory"].as_str().unwrap()).join("log.txt");
    assert!(fs::read_to_string(log).unwrap().contains("build 1: failed"));

    // Done is done, for these settings and this kiln; and again when asked.
    let told = entries(&kiln.run(arguments(&from, &at)).exits(1));
    assert!(
        told.iter().filter(|(name, _)| *name != "nonsense").all(|(_, entry)| entry["earlier"] == true),
        "{told:#?}"
    );
    let gone = table(&kiln, "debian:proving-gone\n");
    for more in [&["--again"][..], &["--no-check"]] {
        let told = entries(&kiln.run(arguments(&gone, &[&at[..], more].concat())).exits(4));
        assert_eq!(told["debian:proving-gone"]["earlier"], false, "{more:?}");
    }
    kiln.verified();
}

#[test]
fn one_source_is_built_once_and_what_is_over_a_budget_is_not_begun() {
    let Some(archive) = archive("one_source_is_built_once_and_what_is_over_a_budget_is_not_begun") else { return };
    let kiln = archive.kiln(Ground::Disk);
    let from = table(
        &kiln,
        "debian:proving-fails\ndebian:proving-two\tdefault\tupstream-differs\ndebian:proving-two-more\tdefault\treproduced\n\
         debian:proving-two=1.0\n",
    );
    let output = kiln.home().join("out");
    let place = output.display().to_string();

    for (limit, why) in [(["--disk-limit", "0"], "disk-limit"), (["--time-limit", "0"], "time-limit")] {
        let ran = kiln.run(arguments(&from, &limit)).exits(4);
        assert!(entries(&ran).values().all(|entry| entry["not_attempted"] == why), "{}", ran.stdout);
        assert_eq!(ran.json()["counts"]["not_attempted"], 2);
    }
    let told = entries(&kiln.run(arguments(&from, &["--fail-fast", "--output", &place])).exits(5));
    assert_eq!(told["debian:proving-fails"]["finished"]["verdict"], "failed");
    assert_eq!(told["debian:proving-two"]["not_attempted"], "fail-fast");

    let text: Vec<&str> =
        arguments(&from, &["--output", &place]).into_iter().filter(|word| *word != "--json").collect();
    let ran = kiln.run(&text).exits(1).says(&["proving-two 1.0: upstream-differs", "[2/2]"]);
    assert!(ran.stdout.contains("1 of 2 as expected"), "{}", ran.stdout);
    assert!(ran.stdout.contains("expected reproduced, got upstream-differs"), "{}", ran.stdout);

    let ran = kiln.run(arguments(&from, &["--output", &place])).exits(1);
    let (document, told) = (ran.json(), entries(&ran));
    let two = &told["debian:proving-two"];
    assert_eq!(told.len(), 2, "a source is one target, whichever of its packages was named");
    assert_eq!(two["asked"].as_array().unwrap().len(), 3);
    assert_eq!(two["asked"][1]["package"], "proving-two-more");
    assert_eq!(document["artifacts"]["verdicts"]["upstream-differs"], 2);
    assert_eq!(answers(&output), 2);

    // The document is as its schema says, is left beside the page, and the page's links lead somewhere.
    fits("campaign", &document);
    let kept: Value = serde_json::from_slice(&fs::read(output.join("campaign.json")).unwrap()).unwrap();
    assert_eq!(kept, document);
    let page = fs::read_to_string(output.join("index.html")).unwrap();
    let links: Vec<PathBuf> =
        page.split("href=\"").skip(1).map(|rest| output.join(rest.split('"').next().unwrap())).collect();
    assert_eq!(links.len(), 4, "a report and a log for each");
    assert!(links.iter().all(|link| link.is_file()), "{links:?}");
}

#[test]
fn an_archives_indices_and_this_machine_name_targets() {
    let Some(archive) = archive("an_archives_indices_and_this_machine_name_targets") else { return };
    let kiln = archive.kiln(Ground::Disk);
    let suite = archive.path().join("dists").join(SUITE).join("main");
    let none = ["--time-limit", "0"];
    let sources = suite.join("source/Sources").display().to_string();
    let told = entries(&kiln.run(arguments(&sources, &none)).exits(4));
    let names: Vec<&str> = told.keys().map(String::as_str).collect();
    let expected = ["debian:proving-fails", "debian:proving-gone", "debian:proving-slow", "debian:proving-two"];
    assert_eq!(names, expected, "also what is gone: that is found out when it is its turn");

    let packages = suite.join("binary-amd64/Packages").display().to_string();
    let told = entries(&kiln.run(arguments(&packages, &none)).exits(4));
    assert_eq!(told["debian:proving-two"]["asked"].as_array().unwrap().len(), 2);

    let bad = kiln.home().join("bad");
    for (bytes, words) in
        [(&b"\xff\xfe"[..], "not UTF-8"), (b"# nothing\n\n", "names no target"), (b"Package: a\nVersion 1\n", "line 2")]
    {
        fs::write(&bad, bytes).unwrap();
        kiln.run(arguments(&bad.display().to_string(), &[])).exits(2).says(&[words]);
    }
    kiln.run(arguments("/nowhere/targets.tsv", &[])).exits(2).says(&["/nowhere/targets.tsv"]);
    kiln.run(["rebuild", "--json"]).exits(2).says(&["--from"]);
    kiln.run(arguments(&sources, &["--disk-limit", "much"])).exits(2).says(&["20G"]);

    if Path::new("/var/lib/dpkg/status").is_file() {
        let ran = kiln.run(["rebuild", "--json", "--suite", SUITE, "--installed", "--time-limit", "0"]).exits(4);
        let document = ran.json();
        assert!(document["counts"]["not_attempted"].as_u64().unwrap() > 0, "this machine has packages");
    }
}
