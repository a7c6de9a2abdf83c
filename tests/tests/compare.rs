//! `kiln compare`: for each format a pair made by real tools with one known difference, and the sentence that names it;
//! what is broken or hostile; and the distribution's diffoscope over the same pairs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use kiln_tests::ground::{self, Ground};
use kiln_tests::run::{Kiln, Ran};
use kiln_tests::schema::fits;
use serde_json::Value;
use tempfile::TempDir;

/// A pair of artifacts and what is known of them.
struct Known {
    /// What makes it: a script that leaves `a` and `b`, followed by their ending, in its directory.
    script: &'static str,
    /// How the two files are called.
    ending: &'static str,
    /// Where kiln says that they differ.
    place: &'static str,
    /// What it says of it.
    kind: &'static str,
    /// Words of its sentence.
    says: &'static str,
    /// What diffoscope says of the same: words of its report.
    theirs: &'static str,
}

const fn known(
    ending: &'static str,
    script: &'static str,
    place: &'static str,
    kind: &'static str,
    says: &'static str,
    theirs: &'static str,
) -> Known {
    Known { script, ending, place, kind, says, theirs }
}

/// A package in `p`, and how it is packed.
const PACKAGE: &str = r#"
mkdir -p p/DEBIAN p/usr/share/doc/x
printf 'Package: x\nVersion: 1\nArchitecture: all\nMaintainer: A <a@b.c>\nDepends: perl (>= 5.36.0-7+deb12u4), libc6\nDescription: x\n' >p/DEBIAN/control
pack() { (cd p && find usr -type f -exec md5sum {} +) >p/DEBIAN/md5sums; find p -exec touch -h -d @1600000000 {} +
  SOURCE_DATE_EPOCH=1600000000 dpkg-deb --root-owner-group -Zxz -b p "$1" >/dev/null; }
"#;

const KNOWN: &[Known] = &[
    known(
        ".deb",
        "echo one >p/usr/share/x; pack a.deb; echo two >p/usr/share/x; pack b.deb",
        "data.tar.xz!usr/share/x",
        "text",
        "1 line only in the first, 1 line only in the second",
        "-one",
    ),
    known(
        ".deb",
        "pack a.deb; sed -i s/deb12u4/deb12u3/ p/DEBIAN/control; pack b.deb",
        "control.tar.xz!control!Depends",
        "value",
        "deb12u4)\" and \"perl (>= 5.36.0-7+deb12u3)",
        "deb12u3",
    ),
    known(
        ".deb",
        "touch p/usr/share/x; pack a.deb; chmod 600 p/usr/share/x; pack b.deb",
        "data.tar.xz!usr/share/x",
        "mode",
        "0644 and 0600",
        "-rw-------",
    ),
    known(
        ".a",
        "echo 'int f(void){return 1;}' >x.c; gcc -c x.c; touch -d @1600000000 x.o; ar rcSU a.a x.o; touch -d @1700000000 x.o; ar rcSU b.a x.o",
        "x.o",
        "time",
        "2020-09-13T12:26:40Z and 2023-11-14T22:13:20Z",
        "2023-11-14",
    ),
    known(
        "",
        "echo 'int main(void){return 0;}' >x.c; mkdir one other; for d in one other; do cp x.c $d; (cd $d; gcc -g -o x x.c); done; cp one/x a; cp other/x b",
        "!.debug_line_str",
        "debug-info",
        "/one\" and ",
        ".debug_line_str",
    ),
    known(
        "",
        "printf 'int main(void){return %s;}' 3 >x.c; gcc -Wl,--build-id=none -O1 -o a x.c; sed -i s/3/4/ x.c; gcc -Wl,--build-id=none -O1 -o b x.c",
        ".text",
        "section",
        "(in main",
        "$0x4",
    ),
    known(
        ".pyc",
        "echo 'x = 1' >x.py; for n in a b; do python3 -c \"import py_compile; py_compile.compile('x.py', '$n.pyc')\"; touch -d @1600000000 x.py; done",
        "",
        "time",
        "modification time of the source",
        "moddate",
    ),
    known(
        ".mo",
        "for n in a b; do printf 'msgid \"\"\\nmsgstr \"\"\\n\"POT-Creation-Date: 2024-01-0%s\\\\n\"\\n\"Content-Type: text/plain; charset=UTF-8\\\\n\"\\nmsgid \"x\"\\nmsgstr \"%s\"\\n' ${#n} $n >x.po; msgfmt -o $n.mo x.po; done",
        "x",
        "value",
        "translated \"a\" and \"b\"",
        "",
    ),
    known(
        ".gz",
        "echo text >x; touch -d @1600000000 x; gzip -kc x >a.gz; touch -d @1700000000 x; gzip -kc x >b.gz",
        "",
        "time",
        "time in the gzip header: 2020-09-13T12:26:40Z and 2023-11-14T22:13:20Z",
        "last modified",
    ),
    known(
        ".gz",
        "seq 9999 >x; gzip -n1c x >a.gz; gzip -n9c x >b.gz",
        "",
        "compression",
        "level in the gzip header: fastest and best",
        "max compression",
    ),
    known(".xz", "seq 9 >x; xz -c x >a.xz; echo 10 >>x; xz -c x >b.xz", "", "text", "1 line only in the second", "+10"),
    known(
        ".bz2",
        "seq 9 >x; bzip2 -c x >a.bz2; echo 10 >>x; bzip2 -c x >b.bz2",
        "",
        "text",
        "1 line only in the second",
        "+10",
    ),
    known(
        ".zst",
        "seq 9 >x; zstd -qc x >a.zst; echo 10 >>x; zstd -qc x >b.zst",
        "",
        "text",
        "1 line only in the second",
        "",
    ),
    known(
        ".tar",
        "touch -d @1 y z; tar -cf a.tar y z; tar -cf b.tar z y",
        "",
        "order",
        "2 of 2 stand elsewhere, the first where one has \"y\" and the other \"z\"",
        "-rw",
    ),
    known(
        ".tar",
        "touch -d @1 y; tar --owner=root:0 --group=root:0 -cf a.tar y; tar --owner=me:1000 --group=root:0 -cf b.tar y",
        "y",
        "owner",
        "0:0 (root:",
        "me",
    ),
    known(
        ".tar",
        "ln -s one y; touch -h -d @1 y; tar -cf a.tar y; ln -sfn two y; touch -h -d @1 y; tar -cf b.tar y",
        "y",
        "target",
        "\"one\" and \"two\"",
        "two",
    ),
    known(
        ".zip",
        "echo 1 >y; touch -d '2020-02-02 02:02:02' y; zip -qX a.zip y; touch -d '2021-02-02 02:02:02' y; zip -qX b.zip y",
        "y",
        "time",
        "2020-02-02T02:02:02Z and 2021-02-02T02:02:02Z",
        "21-Feb-02",
    ),
    known(
        ".json",
        "echo '{\"a\":{\"b\":[1,2]},\"c\":1}' >a.json; echo '{\"a\":{\"b\":[1,3]},\"c\":1}' >b.json",
        "a.b[1]",
        "value",
        "2 and 3",
        "3",
    ),
    known(
        ".txt",
        "seq 20 >a.txt; sed 's/^12$/twelve/' a.txt >b.txt",
        "",
        "text",
        "1 line only in the first, 1 line only in the second",
        "+twelve",
    ),
    known(
        ".bin",
        "printf '\\000\\001built 2022\\000' >a.bin; printf '\\000\\001built 2026\\000' >b.bin",
        "",
        "string",
        "text \"built 2022\" and \"built 2026\"",
        "2026",
    ),
    known(
        ".png",
        "python3 - <<'E'\nimport zlib,struct\nfor n,t in (('a','one'),('b','two')):\n  c=lambda k,d: struct.pack('>I',len(d))+k+d+struct.pack('>I',zlib.crc32(k+d))\n  open(n+'.png','wb').write(b'\\x89PNG\\r\\n\\x1a\\n'+c(b'IHDR',struct.pack('>IIBBBBB',1,1,8,0,0,0,0))+c(b'tEXt',b'Comment\\0'+t.encode())+c(b'IDAT',zlib.compress(b'\\0\\0'))+c(b'IEND',b''))\nE",
        "tEXt",
        "value",
        "\"Comment: one\" and \"Comment: two\"",
        "",
    ),
];

/// Runs a script in a fresh directory.
fn made(script: &str) -> TempDir {
    let directory = ground::directory(Ground::Disk);
    let script = format!("set -eu; umask 022; export TZ=UTC LC_ALL=C.UTF-8; {PACKAGE}\n{script}");
    let ran = Command::new("bash").args(["-c", &script]).current_dir(directory.path()).output().unwrap();
    assert!(ran.status.success(), "{script}\n{}", String::from_utf8_lossy(&ran.stderr));
    directory
}

fn pair(known: &Known) -> (TempDir, PathBuf, PathBuf) {
    let directory = made(known.script);
    let side = |name: &str| directory.path().join(format!("{name}{}", known.ending));
    let (a, b) = (side("a"), side("b"));
    (directory, a, b)
}

fn compare(a: &Path, b: &Path, more: &[&str]) -> Ran {
    let arguments = [Path::new("compare"), a, b].into_iter().chain(more.iter().map(Path::new));
    Kiln::fresh(Ground::Disk).run(arguments)
}

fn details(report: &Value) -> Vec<(String, String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let all =
        report["differences"].as_array().unwrap().iter().flat_map(|d| d["details"].as_array().into_iter().flatten());
    all.map(|d| (text(&d["place"]), text(&d["kind"]), text(&d["says"]))).collect()
}

fn causes(report: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    report["causes"].as_array().unwrap().iter().map(|c| (text(&c["label"]), text(&c["setting"]))).collect()
}

#[test]
fn every_known_difference_is_named_at_its_place() {
    for known in KNOWN {
        let (_directory, a, b) = pair(known);
        let report = compare(&a, &b, &["--json"]).exits(if known.kind == "x" { 0 } else { 1 }).json();
        let found = details(&report);
        let named = found.iter().any(|(place, kind, says)| {
            let here = place == known.place
                || (!known.place.is_empty() && place.ends_with(known.place.trim_start_matches('!')));
            here && kind == known.kind && says.contains(known.says)
        });
        assert!(named, "{}\nexpected {} {} {:?}, found {found:#?}", known.script, known.place, known.kind, known.says);
    }
}

#[test]
fn the_distributions_diffoscope_names_the_same_members_and_kinds() {
    let test = "the_distributions_diffoscope_names_the_same_members_and_kinds";
    let there = Command::new("diffoscope").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !there.is_ok_and(|status| status.success()) {
        ground::skipped(test, "no diffoscope: scripts/setup --test installs it");
        return;
    }
    for known in KNOWN {
        let (_directory, a, b) = pair(known);
        let ran = Command::new("diffoscope").args(["--text=-", "--no-progress"]).args([&a, &b]).output().unwrap();
        assert_eq!(ran.status.code(), Some(1), "{}", String::from_utf8_lossy(&ran.stderr));
        let text = String::from_utf8_lossy(&ran.stdout);
        let member =
            known.place.split('!').rfind(|part| !part.is_empty() && !part.starts_with('.')).unwrap_or_default();
        // A field of a control file, a key of a document or a message is no member of theirs.
        let member = if matches!(known.kind, "value") { "" } else { member };
        assert!(text.contains(member), "{}\nno {member:?} in {text}", known.script);
        assert!(text.contains(known.theirs), "{}\nno {:?} in {text}", known.script, known.theirs);
    }
}

#[test]
fn equal_files_are_reproduced_and_a_missing_one_is_bad_input() {
    let directory = made("echo x >a; cp a b; mkdir d");
    let side = |name: &str| directory.path().join(name);
    let ran = compare(&side("a"), &side("b"), &["--json"]).exits(0);
    assert_eq!(ran.json()["verdict"], "reproduced");
    compare(&side("a"), &side("c"), &[]).exits(2).says(&["reading"]);
    compare(&side("a"), &side("d"), &[]).exits(2).says(&["is a file", "a directory"]);
}

#[test]
fn each_normaliser_is_needed_where_it_is_named_for_what_differs() {
    let record = "mkdir -p x-1.dist-info; touch -d @1600000000 n; for n in a b; do [ $n = a ] && s='x.py,,\ny.py,,\n' || s='y.py,,\nx.py,,\n'
printf \"$s\" >x-1.dist-info/RECORD; touch -d @1600000000 x-1.dist-info/RECORD; zip -qXD $n.whl x-1.dist-info/RECORD; done";
    let by = |ending: &str, kind: &str| {
        let known = KNOWN.iter().find(|k| k.ending == ending && k.kind == kind).unwrap();
        (known.script, known.ending)
    };
    for ((script, ending), normaliser) in [
        (by(".a", "time"), "ar-members/1"),
        (by(".gz", "time"), "gzip-header/1"),
        (by(".gz", "compression"), "compression/1"),
        (by(".tar", "order"), "tar-order/1"),
        (by(".zip", "time"), "wheel-zip/1"),
        ((record, ".whl"), "wheel-record-order/1"),
    ] {
        let directory = made(script);
        let (a, b) = (directory.path().join(format!("a{ending}")), directory.path().join(format!("b{ending}")));
        let report = compare(&a, &b, &["--json"]).exits(1).json();
        assert_eq!(report["verdict"], "equivalent", "{normaliser} {report:#}");
        assert_eq!(report["differences"][0]["equivalence"]["normalisers"], serde_json::json!([normaliser]));
        // The digest is a function of one artifact and the set: the other order of sides has the same.
        let turned = compare(&b, &a, &["--json"]).json();
        assert_eq!(turned["differences"][0]["equivalence"], report["differences"][0]["equivalence"]);
    }
    for (script, ending) in [by(".tar", "owner"), by(".tar", "target"), by(".txt", "text"), by(".bin", "string")] {
        let directory = made(script);
        let (a, b) = (directory.path().join(format!("a{ending}")), directory.path().join(format!("b{ending}")));
        assert_eq!(compare(&a, &b, &["--json"]).exits(1).json()["verdict"], "diverged", "{script}");
    }
}

/// Two packages with two programs each that differ in nothing but their build ids.
const BUILD_IDS: &str = r#"
echo 'int main(void){return 0;}' >x.c; mkdir -p p/usr/bin
for n in 1 2; do for f in x y; do gcc -O2 -Wl,--build-id=0x${n}11111111111111111111111111111111111111$n -o p/usr/bin/$f x.c; done; pack $n.deb; done
mv 1.deb a.deb; mv 2.deb b.deb"#;

#[test]
fn packages_that_differ_in_build_ids_alone_are_equivalent_and_it_is_said() {
    let directory = made(BUILD_IDS);
    let (a, b) = (directory.path().join("a.deb"), directory.path().join("b.deb"));
    let report = compare(&a, &b, &["--json"]).exits(1).json();
    assert_eq!(report["verdict"], "equivalent");
    let equivalence = &report["differences"][0]["equivalence"];
    assert_eq!(equivalence["normalisers"], serde_json::json!(["elf-build-id/1"]));
    assert_eq!(equivalence["normalised"].as_str().unwrap().len(), 64);
    assert_eq!(causes(&report)[0].0, "compiler-revision");
    let accepted = compare(&a, &b, &["--accept", "equivalent"]).exits(0);
    assert!(accepted.stdout.contains("agree only after elf-build-id/1"), "{}", accepted.stdout);
    let raw = compare(&a, &b, &["--json", "--raw", "--accept", "equivalent"]).exits(1).json();
    assert_eq!(raw["verdict"], "diverged");
}

#[test]
fn a_checksum_that_lies_and_one_changed_instruction_are_never_equivalent() {
    let lying = format!(
        "{BUILD_IDS}\nrm -rf p; dpkg-deb -R b.deb p; sed -i 's/^../00/' p/DEBIAN/md5sums; find p -exec touch -d @1600000000 {{}} +; SOURCE_DATE_EPOCH=1600000000 dpkg-deb --root-owner-group -Zxz -b p b.deb >/dev/null"
    );
    let code = BUILD_IDS
        .replace("mv 1.deb", "sed -i s/0/7/ x.c; gcc -O2 -Wl,--build-id=0x22 -o p/usr/bin/y x.c; pack 2.deb; mv 1.deb");
    let level = format!(
        "{BUILD_IDS}\nrm -rf p; dpkg-deb -R b.deb p; find p -exec touch -d @1600000000 {{}} +; SOURCE_DATE_EPOCH=1600000000 dpkg-deb --root-owner-group -Zxz -z1 -b p b.deb >/dev/null"
    );
    for (script, verdict) in [(lying, "diverged"), (code, "diverged"), (level, "equivalent")] {
        let directory = made(&script);
        let (a, b) = (directory.path().join("a.deb"), directory.path().join("b.deb"));
        let report = compare(&a, &b, &["--json"]).exits(1).json();
        assert_eq!(report["verdict"], verdict, "{script}\n{report:#}");
        if verdict == "equivalent" {
            let needed = &report["differences"][0]["equivalence"]["normalisers"];
            assert_eq!(*needed, serde_json::json!(["compression/1", "elf-build-id/1"]));
        }
    }
}

/// Two packages, the one with its whole changelog, the other with what debhelper leaves of it.
const CHANGELOGS: &str = r#"
entry() { printf 'x (%s) unstable; urgency=low\n\n  * Change %s.\n\n -- A <a@b.c>  Mon, 11 May 20%02d 10:00:00 +0200\n\n' $1 $1 $1; }
doc=p/usr/share/doc/x/changelog.gz
size() { sed -i '/^Installed-Size/d' p/DEBIAN/control; sed -i "s/^Depends/Installed-Size: $1\\nDepends/" p/DEBIAN/control; }
size 7; (entry 9; entry 8; printf '# Older entries have been removed from this changelog.\n# To read the complete changelog use `apt changelog x`.\n') | gzip -9nc >$doc; pack a.deb
size 15; (entry 9; entry 8; for i in $(seq 1000); do entry $i; done) | gzip -9nc >$doc; pack b.deb"#;

#[test]
fn a_trimmed_changelog_is_named_with_the_option_that_proves_it() {
    let directory = made(CHANGELOGS);
    let (a, b) = (directory.path().join("a.deb"), directory.path().join("b.deb"));
    let report = compare(&a, &b, &["--json"]).exits(1).json();
    assert_eq!(report["verdict"], "diverged");
    assert_eq!(causes(&report), [("changelog-trimming".to_string(), "build-options=notrimdch".to_string())]);
    let (place, kind, says) = &details(&report)[0];
    assert_eq!((place.as_str(), kind.as_str()), ("data.tar.xz!usr/share/doc/x/changelog.gz", "text"));
    assert!(says.contains("second has 1002 entries, the other only the newest 2"), "{says}");
    let asked = compare(&a, &b, &["--json", "--normalise", "changelog-trimming/1"]).exits(1).json();
    assert_eq!(asked["verdict"], "equivalent", "{asked:#}");
    compare(&a, &b, &["--normalise", "changelog-trimming"]).exits(2).says(&["expected one of"]);
}

/// Two wheels with the same files: one packed later, in another order, with another mode.
const WHEELS: &str = r#"python3 - <<'E'
import zipfile, sys
files = {'x/__init__.py': 'a = 1\n', 'x/y.py': 'b = 2\n', 'x-1.dist-info/WHEEL': 'Wheel-Version: 1.0\n'}
def pack(name, files, time, mode=0o644, change={}):
    with zipfile.ZipFile(name, 'w', zipfile.ZIP_DEFLATED) as z:
        for f, text in files:
            i = zipfile.ZipInfo(f, time); i.external_attr = (0o100000 | mode) << 16; i.compress_type = zipfile.ZIP_DEFLATED
            z.writestr(i, change.get(f, text))
pack('a.whl', files.items(), (2020, 2, 2, 0, 0, 0))
pack('b.whl', reversed(files.items()), (2024, 2, 2, 0, 0, 0), 0o664)
pack('content.whl', files.items(), (2020, 2, 2, 0, 0, 0), change={'x/y.py': 'b = 3\n'})
pack('twice.whl', [*files.items(), ('x/y.py', 'b = 2\n')], (2024, 2, 2, 0, 0, 0))
pack('zone.whl', files.items(), (2020, 2, 1, 18, 0, 0))
whole = open('a.whl', 'rb').read()
open('before.whl', 'wb').write(b'#!/bin/sh\n' + whole)
open('after.whl', 'wb').write(whole + b'more')
crc = bytearray(whole); crc[14] ^= 1; open('crc.whl', 'wb').write(crc)
E"#;

#[test]
fn wheels_that_differ_in_metadata_are_equivalent_and_nothing_is_laundered() {
    let directory = made(WHEELS);
    let verdict = |other: &str| {
        let (a, b) = (directory.path().join("a.whl"), directory.path().join(other));
        let report = compare(&a, &b, &["--json"]).exits(1).json();
        (report["verdict"].as_str().unwrap().to_owned(), report)
    };
    let (equivalent, report) = verdict("b.whl");
    assert_eq!(equivalent, "equivalent", "{report:#}");
    assert_eq!(report["differences"][0]["equivalence"]["normalisers"], serde_json::json!(["wheel-zip/1"]));
    let kinds: Vec<String> = details(&report).into_iter().map(|d| d.1).collect();
    assert_eq!(kinds, ["order", "time", "mode"]);
    for other in ["content.whl", "twice.whl", "before.whl", "after.whl", "crc.whl"] {
        let (diverged, report) = verdict(other);
        assert_eq!(diverged, "diverged", "{other} {report:#}");
    }
    let (_, report) = verdict("zone.whl");
    assert_eq!(causes(&report), [("TZ".to_string(), "time-zone=<-06>6".to_string())]);
}

#[test]
fn directories_are_compared_entry_by_entry() {
    let directory = made(
        "mkdir -p a/d b/d; echo 1 >a/d/x; echo 2 >b/d/x; ln -s one a/l; ln -s two b/l; touch a/gone b/new a/same b/same a/run b/run; chmod 755 b/run; mkfifo a/pipe b/pipe",
    );
    let report = compare(&directory.path().join("a"), &directory.path().join("b"), &["--json"]).exits(1).json();
    let found: Vec<(&str, &str)> = report["differences"]
        .as_array()
        .unwrap()
        .iter()
        .map(|d| (d["path"].as_str().unwrap(), d["kind"].as_str().unwrap()))
        .collect();
    let expected = [
        ("d/x", "content"),
        ("gone", "only-in-first"),
        ("l", "target"),
        ("new", "only-in-second"),
        ("run", "executable"),
    ];
    assert_eq!(found, expected);
}

#[test]
fn what_is_broken_or_hostile_is_named_and_still_compared() {
    let directory = made(&format!(
        "{BUILD_IDS}\n{}",
        r#"head -c 1500 a.deb >short.deb
head -c 300000000 /dev/zero | gzip -9 >bomb.gz; (head -c 299999999 /dev/zero; echo) | gzip -9 >bomb2.gz
echo 1 >n1; echo 2 >n2; for i in $(seq 20); do for n in 1 2; do gzip -nc n$n >m; mv m n$n; done; done
tar -P --transform 's,^x,../../escape,' -cf up.tar x.c; echo 1 >>x.c; tar -P --transform 's,^x,../../escape,' -cf up2.tar x.c"#
    ));
    let side = |name: &str| directory.path().join(name);
    let said = |a: &str, b: &str| details(&compare(&side(a), &side(b), &["--json"]).exits(1).json());
    let short = said("a.deb", "short.deb");
    assert!(short.iter().any(|d| d.1 == "unread" && d.2.contains("cut short")), "{short:?}");
    assert!(short.iter().any(|d| d.1 == "content"), "{short:?}");
    let bomb = said("bomb.gz", "bomb2.gz");
    assert!(bomb.iter().any(|d| d.1 == "unread" && d.2.contains("expand more than")), "{bomb:?}");
    let nested = said("n1", "n2");
    assert!(nested.iter().any(|d| d.1 == "unread" && d.2.contains("within each other")), "{nested:?}");
    let up = said("up.tar", "up2.tar");
    assert!(up.iter().any(|d| d.0 == "../../escape.c" && d.1 == "text"), "{up:?}");
    assert!(!directory.path().parent().unwrap().join("escape.c").exists());
}

#[test]
fn what_there_is_no_room_for_is_counted() {
    let directory = made("mkdir a b; for i in $(seq 300); do echo $i >a/$i; echo x$i >b/$i; done");
    let report = compare(&directory.path().join("a"), &directory.path().join("b"), &["--json"]).exits(1).json();
    assert_eq!(report["differences"].as_array().unwrap().len(), 200);
    assert_eq!(report["differences_left_out"], 100);
    let text = compare(&directory.path().join("a"), &directory.path().join("b"), &[]).exits(1);
    assert!(text.stdout.contains("300 entries differ") && text.stdout.contains("and 280 more"), "{}", text.stdout);
}

#[test]
fn the_document_fits_its_schema_and_the_page_stands_alone() {
    let directory =
        made(&format!("{CHANGELOGS}\nprintf '<script>alert(1)</script>\\n' >x; printf '\\033[31m<b>\\n' >y"));
    let page = directory.path().join("page.html");
    for (a, b) in [("a.deb", "b.deb"), ("x", "y"), ("a.deb", "a.deb"), ("p", "p/usr")] {
        let (a, b) = (directory.path().join(a), directory.path().join(b));
        let report = compare(&a, &b, &["--json", "--html", page.to_str().unwrap()]).json();
        fits("report", &report);
        let html = fs::read_to_string(&page).unwrap();
        assert!(
            !html.contains("<script") && !html.contains('\x1b') && !html.contains("http:") && !html.contains("https:"),
            "{html}"
        );
    }
}
