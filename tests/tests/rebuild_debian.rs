//! `kiln rebuild` of Debian packages: from an archive of our own to verdict, cause and proof; and what it refuses.

use std::fs;

use kiln_model::format::buildinfo::Buildinfo;
use kiln_tests::archive::{Archive, SUITE};
use kiln_tests::ground::{self, Ground};
use kiln_tests::run::{Kiln, Ran};
use serde_json::Value;

const NAME: &str = "proving-says";
const VERSION: &str = "1.0~x1";
const DEB: &str = "proving-says_1.0~x1_all.deb";

const CONTROL: &str = "Source: proving-says\nSection: misc\nPriority: optional\nMaintainer: A Prover <a@proving.test>\n\
    Build-Depends: debhelper-compat (= 13)\nStandards-Version: 4.6.2\nRules-Requires-Root: no\n\n\
    Package: proving-says\nArchitecture: all\nDepends: ${misc:Depends}\nDescription: says something\n It says it once.\n";

/// Users and groups have the names that they have on every Debian: builds give files to them.
const RULES: &str =
    "#!/usr/bin/make -f\n%:\n\tdh $@\noverride_dh_auto_build:\n\tgetent group staff\n\tgetent passwd man\n";

/// Entries of many years, of which debhelper keeps the recent ones.
fn changelog() -> String {
    (0..12)
        .map(|n| {
            let (version, year) = (if n == 0 { VERSION.into() } else { format!("0.{}", 12 - n) }, 2021 - n);
            format!(
                "proving-says ({version}) unstable; urgency=medium\n\n  * Entry {n}.\n\n \
                 -- A Prover <a@proving.test>  Fri, 05 Feb {year} 10:00:00 +0000\n\n"
            )
        })
        .collect()
}

/// An archive with the source, and a package of that name that nobody built from it.
fn archive(test: &str) -> Option<Archive> {
    let mut archive = Archive::open(test)?;
    let changelog = changelog();
    archive.source(
        NAME,
        VERSION,
        &[
            ("debian/control", CONTROL),
            ("debian/changelog", &changelog),
            ("debian/rules", RULES),
            ("debian/source/format", "3.0 (native)\n"),
            ("debian/install", "words usr/share/proving-says\n"),
            ("words", "something\n"),
        ],
    );
    archive.empty_package(
        NAME,
        VERSION,
        "Architecture: all\nMaintainer: A Prover <a@proving.test>\nDescription: says nothing\n",
    );
    archive.sign();
    Some(archive)
}

fn rebuild(kiln: &Kiln, more: &[&str]) -> Ran {
    kiln.run(["rebuild", "--json", "--suite", SUITE].iter().chain(more))
}

fn judged<'r>(report: &'r Value, name: &str) -> &'r Value {
    let subjects = report["subjects"].as_array().expect("subjects are a list");
    subjects.iter().find(|s| s["name"] == name).unwrap_or_else(|| panic!("no {name}: {subjects:#?}"))
}

#[test]
fn a_package_whose_publisher_did_not_trim_its_changelog_is_explained_and_proved_by_building() {
    let Some(mut archive) =
        archive("a_package_whose_publisher_did_not_trim_its_changelog_is_explained_and_proved_by_building")
    else {
        return;
    };
    let kiln = archive.kiln(Ground::Disk);
    let out = kiln.home().join("out");
    let (target, output) = (format!("debian:{NAME}"), out.display().to_string());

    // What nobody built from this source differs from two builds that agree, and no setting helps.
    let options = ["--build-option", "notrimdch", "--output", &output];
    let report = rebuild(&kiln, &[&[target.as_str()], &options[..]].concat()).exits(1).json();
    assert_eq!(report["verdict"], "upstream-differs");
    assert_eq!(report["outcomes"].as_array().unwrap().len(), 2, "nobody is accused on the word of one build");
    assert_ne!(report["rebuild"]["explained"], "proved");
    assert_eq!(report["rebuild"]["settings"]["build-options"], "notrimdch");

    // kiln's record says what dpkg's own says, and the date besides.
    let read = |path: &std::path::Path| Buildinfo::parse(&fs::read_to_string(path).unwrap()).unwrap();
    let record = "proving-says_1.0~x1_amd64.buildinfo";
    let (ours, theirs) = (read(&out.join(record)), read(&out.join("artifacts").join(record)));
    assert!(ours.date.is_some() && theirs.date.is_none());
    assert_eq!(Buildinfo { date: None, ..ours }, theirs);

    // Publish what was built untrimmed: by default that differs, the reason is recognised, and one build proves it.
    fs::copy(out.join("artifacts").join(DEB), archive.pool().join(DEB)).unwrap();
    archive.sign();
    let report = rebuild(&kiln, &[&target]).exits(1).json();
    assert_eq!(report["verdict"], "upstream-differs");
    assert_eq!(report["rebuild"]["explained"], "proved");
    let causes = report["causes"].as_array().unwrap();
    let cause = causes.iter().find(|c| c["label"] == "changelog-trimming").unwrap_or_else(|| panic!("{causes:#?}"));
    assert_eq!((&cause["confidence"], &cause["setting"]), (&"proven".into(), &"build-options=notrimdch".into()));
    let tried = &report["rebuild"]["tried"][0];
    assert_eq!((&tried["setting"], &tried["verdict"]), (&"build-options=notrimdch".into(), &"reproduced".into()));
    let text = kiln.run(["rebuild", "--suite", SUITE, &target]).exits(1).stdout;
    assert!(text.contains("matches with build-options=notrimdch"), "{text}");

    // Asked for, it is reproduced; and so from what that left, without any index.
    let again = kiln.home().join("again");
    let output = again.display().to_string();
    let options = ["--build-option", "notrimdch", "--output", &output];
    let report = rebuild(&kiln, &[&[target.as_str()], &options[..]].concat()).succeeded().json();
    assert_eq!(judged(&report, DEB)["verdict"], "reproduced");
    assert_eq!(report["outcomes"].as_array().unwrap().len(), 1, "agreement needs one build");
    fs::remove_dir_all(archive.path().join("dists")).unwrap();
    let report = kiln.run(["rebuild", "--json", &output]).succeeded().json();
    assert_eq!(report["verdict"], "reproduced");
    kiln.verified();
}

#[test]
fn an_archive_that_this_host_does_not_trust_is_believed_by_a_keyring_that_is_named() {
    let Some(archive) = archive("an_archive_that_this_host_does_not_trust_is_believed_by_a_keyring_that_is_named")
    else {
        return;
    };
    let kiln = Kiln::fresh(Ground::Disk);
    let configure = |more: &str| {
        let mirrors = format!("debian = [{:?}, {:?}]", archive.path(), ground::files());
        kiln.configure(&format!("[mirrors]\n{mirrors}\n[fetch]\nclients = []\nattempts = 1\n{more}"));
    };
    // A version that the archive lacks: whoever believes its index can say so, and nothing is built.
    let target = format!("debian:{NAME}=9");
    let of = |more: &[&str]| rebuild(&kiln, &[more, &[target.as_str()]].concat());
    let (ours, other) = (archive.keyring().display().to_string(), archive.path().join("other.gpg"));
    let armoured = archive.path().join("armoured.asc");
    fs::write(&armoured, archive.gpg(&["--armor", "--export"], None)).unwrap();
    archive.gpg(&["--passphrase", "", "--quick-gen-key", "other@proving.test", "rsa2048", "sign", "never"], None);
    fs::write(&other, archive.gpg(&["--export", "other@proving.test"], None)).unwrap();
    let other = other.display().to_string();

    configure("");
    let told = of(&["--keyring", &ours]).exits(4).json()["rebuild"]["missing"].to_string();
    assert!(told.contains(VERSION), "{told}");
    of(&["--keyring", &armoured.display().to_string()]).exits(4);
    of(&["--keyring", &other, "--keyring", &ours]).exits(4);
    of(&["--keyring", &other]).exits(6).says(&["dists/proving/InRelease", "in no keyring", &other, "--keyring"]);

    // The configuration's is found from where that lies; one on the command line counts instead of it, not with it.
    let beside = kiln.home().join(".config/kiln/ours.gpg");
    fs::copy(&ours, &beside).unwrap();
    configure("[pin]\nkeyrings = [\"ours.gpg\"]\n");
    of(&[]).exits(4);
    of(&["--keyring", &other]).exits(6).says(&["in no keyring"]);
    kiln.run(["lock", "--keyring", "nowhere.gpg", "nothing"]).exits(2).says(&["--keyring nowhere.gpg"]);
    fs::write(&beside, "no keys").unwrap();
    of(&[]).exits(2).says(&["ours.gpg", "not an OpenPGP keyring"]);
}

#[test]
fn what_is_missing_is_named_and_nobody_is_judged() {
    let Some(archive) = archive("what_is_missing_is_named_and_nobody_is_judged") else { return };
    let kiln = archive.kiln(Ground::Disk);
    let missing = |ran: Ran| {
        let report = ran.exits(4).json();
        assert_eq!(report["verdict"], "inconclusive");
        assert_eq!(report["outcomes"].as_array().unwrap().len(), 0, "nothing is built in vain");
        report["rebuild"]["missing"].to_string()
    };
    let target = format!("debian:{NAME}");
    assert!(missing(rebuild(&kiln, &[&format!("{target}=9")])).contains(VERSION));
    let source = archive.pool().join("proving-says_1.0~x1.tar.xz");
    let kept = archive.path().join("kept.tar.xz");
    fs::rename(&source, &kept).unwrap();
    let told = missing(rebuild(&kiln, &[&target]));
    assert!(told.contains("proving-says_1.0~x1.tar.xz") && told.contains("offline directory"), "{told}");
    fs::rename(&kept, &source).unwrap();
    // Another store: this one has the reference by now, and what it has it need not ask for.
    fs::remove_file(archive.pool().join(DEB)).unwrap();
    let told = missing(rebuild(&archive.kiln(Ground::Disk), &[&target]));
    assert!(told.contains("reference") && told.contains(DEB), "{told}");
    rebuild(&kiln, &["debian:nobody-has-this"]).exits(2).says(&["no suite has source nobody-has-this"]);
}

#[test]
fn files_that_are_not_what_they_say_are_refused_each_with_its_code() {
    let Some(archive) = archive("files_that_are_not_what_they_say_are_refused_each_with_its_code") else { return };
    let kiln = archive.kiln(Ground::Disk);
    let given = archive.path().join("given");
    fs::create_dir(&given).unwrap();
    for entry in fs::read_dir(archive.pool()).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), given.join(entry.file_name())).unwrap();
    }
    let (dsc, tar, deb) =
        (given.join("proving-says_1.0~x1.dsc"), given.join("proving-says_1.0~x1.tar.xz"), given.join(DEB));
    let of = |path: &std::path::Path| rebuild(&kiln, &[&path.display().to_string()]);

    // A source whose file has other bytes, other length, or is gone.
    let good = fs::read(&tar).unwrap();
    let mut flipped = good.clone();
    flipped[20] ^= 1;
    fs::write(&tar, &flipped).unwrap();
    of(&dsc).exits(6).says(&["proving-says_1.0~x1.tar.xz", "sha256"]);
    fs::write(&tar, &good[..good.len() - 1]).unwrap();
    of(&dsc).exits(6).says(&["bytes"]);
    fs::remove_file(&tar).unwrap();
    assert!(of(&dsc).exits(4).json()["rebuild"]["missing"].to_string().contains("no such file"));

    // A signature that does not fit, and text around it.
    fs::write(&tar, &good).unwrap();
    let text = fs::read(&dsc).unwrap();
    let signed = String::from_utf8(archive.gpg(&["--clearsign", "--output", "-"], Some(&text))).unwrap();
    let signed_dsc = given.join("signed.dsc");
    fs::write(&signed_dsc, signed.replace("Standards-Version: 4.6.2", "Standards-Version: 4.6.1")).unwrap();
    of(&signed_dsc).exits(6).says(&["signature"]);
    fs::write(&signed_dsc, format!("Source: another\n\n{signed}")).unwrap();
    of(&signed_dsc).exits(6).says(&["before the signed part"]);

    // What is no .dsc, .deb or .buildinfo.
    fs::write(&dsc, "Source: ../x\nVersion: 1\n").unwrap();
    of(&dsc).exits(2).says(&["Source"]);
    let bytes = fs::read(&deb).unwrap();
    fs::write(&deb, &bytes[..bytes.len() / 2]).unwrap();
    of(&deb).exits(2).says(&["not a complete .deb"]);
    let record = given.join("x.buildinfo");
    for (bad, words) in [(&b"\xff\xfe"[..], "not UTF-8"), (b"Format: 1.0\nSource: a\n", "Version"), (b"", "Format")] {
        fs::write(&record, bad).unwrap();
        of(&record).exits(2).says(&[words]);
    }

    // A record of versions that are gone lists them all; nothing is built.
    let gone = format!(
        "Format: 1.0\nSource: {NAME}\nBinary: {NAME}\nArchitecture: all\nVersion: {VERSION}\nChecksums-Sha256:\n {} 7 {DEB}\n\
         Build-Architecture: amd64\nInstalled-Build-Depends:\n dash (= 0.0.1),\n nobody-has-this (= 1)\n",
        "0".repeat(64)
    );
    fs::remove_file(&deb).unwrap();
    fs::write(&tar, &good).unwrap();
    fs::write(&dsc, &text).unwrap();
    fs::write(&record, &gone).unwrap();
    let told = of(&record).exits(4).json()["rebuild"]["missing"].to_string();
    assert!(told.contains("dash 0.0.1") && told.contains("nobody-has-this 1"), "{told}");

    // Names that are none are told before anything is opened.
    kiln.run(["rebuild", "debian:No Such"]).exits(2);
    kiln.run(["rebuild", "cowsay"]).exits(2).says(&["debian:NAME"]);
    kiln.run(["rebuild", "./nothing-here"]).exits(2).says(&["rebuild.json"]);
}
