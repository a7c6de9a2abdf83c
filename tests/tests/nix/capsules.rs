//! Capsules of what a real Nix instantiated: everything that its expressions bring into a store, through one file.

use std::fs;
use std::process::Stdio;

use kiln_tests::derivation::{BUILDER, with_builder};
use kiln_tests::ground::Ground;
use kiln_tests::lab::Lab;
use kiln_tests::run::Kiln;

use crate::nix_hash;

/// Sources of each kind: a tree, a text, one that names both, the same tree under two names, what has a fixed digest.
const EXPRESSION: &str = r#"
let
  bb = builtins.storePath "BUILDER";
  made = args: derivation ({ system = "x86_64-linux"; builder = "${bb}/bin/busybox"; PATH = "${bb}/bin"; } // args);
  sh = script: [ "sh" "-euc" script ];
  tree = builtins.path { path = TREE; name = "tree"; };
  twin = builtins.path { path = TREE; name = "twin"; };
  text = builtins.toFile "text" "a text\n";
  naming = builtins.toFile "naming" "see ${text} and ${tree}\n";
  fixed = made {
    name = "fixed"; args = sh "echo fetched >$out";
    outputHashMode = "flat"; outputHashAlgo = "sha256"; outputHash = builtins.hashString "sha256" "fetched\n";
  };
in made { name = "wanted"; args = sh "cat ${naming} ${fixed} ${twin}/large >$out; echo ${tree} >>$out"; }
"#;

#[test]
fn a_capsule_of_what_nix_instantiated_is_rebuilt_elsewhere_to_what_nix_makes_of_it() {
    let test = "a_capsule_of_what_nix_instantiated_is_rebuilt_elsewhere_to_what_nix_makes_of_it";
    let Some(lab) = Lab::open(test) else { return };
    let Some(kiln) = with_builder(test) else { return };
    let tree = lab.path().join("tree");
    fs::create_dir_all(tree.join("empty")).unwrap();
    fs::write(tree.join("large"), vec![b'x'; 300_000]).unwrap();
    std::os::unix::fs::symlink("../nowhere", tree.join("link")).unwrap();

    let stream = kiln.command(["store", "export", BUILDER]).output().unwrap().stdout;
    pass(&mut lab.command("nix-store", ["--import"]), &stream);
    let expression = EXPRESSION.replace("BUILDER", BUILDER).replace("TREE", tree.to_str().unwrap());
    let wanted = lab.first("nix-instantiate", ["--expr", &expression]).succeeded().stdout.trim_end().to_owned();
    let closure = lab.first("nix-store", ["--query", "--requisites", &wanted]).succeeded().stdout;
    let all = ["--export"].into_iter().chain(closure.lines());
    let stream = lab.command("nix-store", all).output().unwrap().stdout;
    pass(&mut kiln.command(["store", "import"]), &stream);

    kiln.run(["build", &wanted]).succeeded();
    let file = lab.path().join("made.capsule");
    let file = file.to_str().unwrap();
    kiln.run(["capsule", "create", &wanted, "-o", file]).succeeded();
    let stranger = Kiln::fresh(Ground::Disk);
    let report = stranger.run(["rebuild", "--json", file]).succeeded().json();
    assert_eq!(report["verdict"], "reproduced");
    assert_eq!(report["outcomes"][1]["cached"], false);

    let out = lab.first("nix-store", ["--realise", &wanted]).succeeded().stdout.trim_end().to_owned();
    let hash = lab.first("nix-store", ["--query", "--hash", &out]).succeeded().stdout;
    let ours = &report["outcomes"][1]["outputs"]["out"];
    assert_eq!(ours["path"], out);
    assert_eq!(nix_hash(ours["nar_hash"].as_str().unwrap()), hash.trim_end());
}

fn pass(command: &mut std::process::Command, stream: &[u8]) {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), stream).unwrap();
    assert!(child.wait().unwrap().success());
}
