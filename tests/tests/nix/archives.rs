//! Archives and export streams: the same bytes from both, and each takes the other's.

use std::fs::{self, File};

use kiln_tests::ground::Ground;
use kiln_tests::lab::Lab;
use kiln_tests::run::Kiln;

use crate::trees;

#[test]
fn archives_are_those_that_nix_writes_and_come_back_as_the_same_tree() {
    let Some(lab) = Lab::open("archives_are_those_that_nix_writes_and_come_back_as_the_same_tree") else { return };
    let (path, _) = trees(&lab);
    let theirs = lab.command("nix-store", ["--dump".into(), lab.physical(&path)]).output().unwrap().stdout;
    let kiln = Kiln::fresh(Ground::Disk);
    let tree = lab.path().join("tree");
    let ours = kiln.command(["nar".as_ref(), "dump".as_ref(), tree.as_os_str()]).output().unwrap().stdout;
    assert!(ours == theirs, "{} and {} bytes", ours.len(), theirs.len());

    let archive = lab.path().join("archive");
    fs::write(&archive, &theirs).unwrap();
    let restored = lab.path().join("restored");
    let restore = || {
        let mut command = kiln.command(["nar".as_ref(), "restore".as_ref(), restored.as_os_str()]);
        command.stdin(File::open(&archive).unwrap()).output().unwrap()
    };
    assert!(restore().status.success());
    let again = lab.command("nix-store", ["--dump".as_ref(), restored.as_os_str()]).output().unwrap().stdout;
    assert!(again == theirs);
    assert_eq!(restore().status.code(), Some(2), "nothing is replaced");

    let listed = kiln.run(["nar".as_ref(), "ls".as_ref(), archive.as_os_str()]).succeeded().stdout;
    assert!(listed.contains("x           10 ./sub/run\n") && listed.contains("./sub/link -> ../nowhere\n"), "{listed}");
    let cat = |file: &str| kiln.run(["nar".as_ref(), "cat".as_ref(), archive.as_os_str(), file.as_ref()]);
    assert_eq!(cat("sub/run").succeeded().stdout, "#!/bin/sh\n");
    cat("sub/none").exits(2);

    fs::write(&archive, &theirs[..theirs.len() - 8]).unwrap();
    fs::remove_dir_all(&restored).unwrap();
    assert!(!restore().status.success());
    assert!(!restored.exists(), "what is cut short leaves nothing");
    let left: Vec<_> = fs::read_dir(lab.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().starts_with(".kiln")), "{left:?}");
}

#[test]
fn streams_of_exported_paths_go_both_ways_and_are_the_same_bytes() {
    let Some(lab) = Lab::open("streams_of_exported_paths_go_both_ways_and_are_the_same_bytes") else { return };
    let (path, naming) = trees(&lab);
    let theirs = lab.command("nix-store", ["--export", &path, &naming]).output().unwrap().stdout;
    let stream = lab.path().join("stream");
    fs::write(&stream, &theirs).unwrap();
    let kiln = Kiln::fresh(Ground::Disk);
    let import = |kiln: &Kiln| kiln.command(["store", "import"]).stdin(File::open(&stream).unwrap()).output().unwrap();
    let imported = import(&kiln);
    assert!(imported.status.success(), "{}", String::from_utf8_lossy(&imported.stderr));
    assert_eq!(String::from_utf8(imported.stdout).unwrap(), format!("{path}\n{naming}\n"));
    kiln.verified();
    let asked = |words: &[&str]| kiln.run(["store", "query"].iter().chain(words)).succeeded().stdout;
    assert_eq!(asked(&["references", &naming]), format!("{path}\n"));
    assert_eq!(asked(&["referrers", &path]), format!("{naming}\n"));
    let mut closure = [format!("{path}\n"), format!("{naming}\n")];
    closure.sort();
    assert_eq!(asked(&["closure", &naming]), closure.concat());
    assert_eq!(asked(&["deriver", &path]), "");
    kiln.run(["store", "root", "mine", &naming]).succeeded();
    assert_eq!(asked(&["roots", &path]), format!("{naming}\n"));

    let ours = kiln.command(["store", "export", "-r", &naming]).output().unwrap().stdout;
    assert!(ours == theirs, "{} and {} bytes", ours.len(), theirs.len());
    fs::write(&stream, &ours).unwrap();
    let second = lab.path().join("root3");
    let mut command = lab.command("nix-store", ["--import"]);
    command.env("NIX_REMOTE", format!("local?root={}", second.display())).stdin(File::open(&stream).unwrap());
    let taken = command.output().unwrap();
    assert!(taken.status.success(), "{}", String::from_utf8_lossy(&taken.stderr));

    for length in [7, 100, theirs.len() / 2, theirs.len() - 8] {
        fs::write(&stream, &theirs[..length]).unwrap();
        let fresh = Kiln::fresh(Ground::Disk);
        let refused = import(&fresh);
        assert!(!refused.status.success(), "cut at {length}");
        fresh.verified();
    }
    std::process::Command::new("chmod").args(["-R", "u+w"]).arg(second).status().unwrap();
}
