//! Archives that leave their tree, hold what is no file, or go too deep.

use std::fs;

use kiln_model::digest::Digest;
use kiln_model::lock::Lock;
use kiln_tests::ground::{self, Ground};
use kiln_tests::recipe::{self, Made};
use kiln_tests::run::{Kiln, Ran};

use crate::{Canary, message, only};

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
