//! Attributes that say how a build is set up and what its outputs may be: a real Nix and kiln agree on every one.

use std::fs;
use std::path::PathBuf;

use kiln_tests::derivation::{BUILDER, with_builder};
use kiln_tests::lab::Lab;

/// `middle` names `first`; `other` names nothing.
const EXPRESSION: &str = r#"
let
  bb = builtins.storePath @BUILDER@;
  make = name: more: script: derivation ({
    inherit name; system = "x86_64-linux"; builder = "${bb}/bin/busybox"; args = [ "sh" "-euc" script ]; PATH = "${bb}/bin";
  } // more);
  first = make "first" { } "echo first > $out";
  middle = make "middle" { } "echo ${first} > $out";
  other = make "other" { } "echo other > $out";
  names = name: more: make name more "echo ${middle} > $out";
  itself = name: more: make name more "echo $out > $out";
  json = name: more: derivation ({
    inherit name; system = "x86_64-linux"; builder = "${bb}/bin/busybox"; __structuredAttrs = true;
    args = [ "sh" "-euc" "${bb}/bin/busybox cp /build/.attrs.json ${builtins.placeholder "out"}" ];
  } // more);
  checked = name: checks: derivation {
    inherit name; system = "x86_64-linux"; builder = "${bb}/bin/busybox"; __structuredAttrs = true; outputChecks.out = checks;
    args = [ "sh" "-euc" "echo ${middle} ${builtins.placeholder "out"} > ${builtins.placeholder "out"}" ];
  };
in {
  allowed-none = names "allowed-none" { allowedReferences = [ ]; };
  allowed-one = names "allowed-one" { allowedReferences = [ middle ]; };
  allowed-other = names "allowed-other" { allowedReferences = [ other ]; };
  allowed-itself = itself "allowed-itself" { allowedReferences = [ "out" ]; };
  allowed-not-itself = itself "allowed-not-itself" { allowedReferences = [ ]; };
  allowed-odd = itself "allowed-odd" { allowedReferences = [ "neither" ]; };
  disallowed-one = names "disallowed-one" { disallowedReferences = [ middle ]; };
  disallowed-other = names "disallowed-other" { disallowedReferences = [ other first ]; };
  disallowed-itself = itself "disallowed-itself" { disallowedReferences = [ "out" ]; };
  requisites-none = names "requisites-none" { allowedRequisites = [ ]; };
  requisites-one = names "requisites-one" { allowedRequisites = [ middle ]; };
  requisites-all = names "requisites-all" { allowedRequisites = [ middle first ]; };
  requisites-itself = itself "requisites-itself" { allowedRequisites = [ ]; };
  requisites-empty = make "requisites-empty" { allowedRequisites = [ ]; } "echo > $out";
  no-requisites-deep = names "no-requisites-deep" { disallowedRequisites = [ first ]; };
  no-requisites-other = names "no-requisites-other" { disallowedRequisites = [ other ]; };
  no-requisites-itself = itself "no-requisites-itself" { disallowedRequisites = [ "out" ]; };

  check-allowed = checked "check-allowed" { allowedReferences = [ middle "out" ]; };
  check-allowed-less = checked "check-allowed-less" { allowedReferences = [ middle ]; };
  check-requisites = checked "check-requisites" { allowedRequisites = [ middle first "out" ]; };
  check-requisites-less = checked "check-requisites-less" { allowedRequisites = [ middle first ]; };
  check-disallowed = checked "check-disallowed" { disallowedRequisites = [ first ]; };
  check-size = checked "check-size" { maxSize = 10000; };
  check-size-less = checked "check-size-less" { maxSize = 10; };
  check-closure = checked "check-closure" { maxClosureSize = 100000; };
  check-closure-less = checked "check-closure-less" { maxClosureSize = 400; };

  pass-as-file = make "pass-as-file" { passAsFile = [ "text" "more" "none" ]; text = "long\ntext"; more = [ 1 "two" ]; }
    "busybox cat $textPath $morePath > $out; echo \${text-unset} $textPath $morePath >> $out";
  pass-out = make "pass-out" { passAsFile = [ "text" ]; text = "at ${builtins.placeholder "out"}"; }
    "busybox cat $textPath > $out";
  graph = make "graph" { exportReferencesGraph = [ "one" middle "_two.x-y" other ]; }
    "busybox cat one _two.x-y > $out";
  graph-outside = make "graph-outside" { exportReferencesGraph = [ "one" "@OUTSIDE@" ]; } "echo > $out";
  graph-odd = make "graph-odd" { exportReferencesGraph = [ "one" middle "two" ]; } "echo > $out";
  graph-named = make "graph-named" { exportReferencesGraph = [ "../up" middle ]; } "echo > $out";

  json-plain = json "json-plain" {
    list = [ 1 "two" [ 3 ] true null ]; set = { b = 1; a.c = "d"; }; text = "q\"\\\n\t é $ ' "; no = false; nothing = null;
    number = -7; float = 1.5; outputs = [ "out" ]; "odd name" = "x"; empty = [ ]; path = middle;
  };
  json-graph = json "json-graph" { exportReferencesGraph = { one = [ middle ]; two = [ other first bb ]; }; };
  json-graph-none = json "json-graph-none" { exportReferencesGraph = { }; };
  json-graph-text = json "json-graph-text" { exportReferencesGraph = "no object"; };
  json-graph-outside = json "json-graph-outside" { exportReferencesGraph.one = [ "@OUTSIDE@" ]; };
  shell-flat = derivation {
    name = "shell-flat"; system = "x86_64-linux"; builder = "${bb}/bin/busybox"; __structuredAttrs = true;
    args = [ "sh" "-euc" "${bb}/bin/busybox cp /build/.attrs.sh ${builtins.placeholder "out"}" ];
    exportReferencesGraph = { graph = middle; exp = other; }; exportReferencesGrap = "before"; exportReferencesGraphs = "after";
  };
  shell = derivation {
    name = "shell"; system = "x86_64-linux"; builder = "${bb}/bin/busybox"; __structuredAttrs = true;
    args = [ "sh" "-euc" "${bb}/bin/busybox cp /build/.attrs.sh ${builtins.placeholder "out"}" ];
    list = [ 1 "two" ]; deep = [ [ 1 ] ]; set = { b = 1; a = "it's"; }; text = "q\"\\\n ' "; yes = true; no = false; nothing = null;
    number = -7; "odd name" = "x"; empty = [ ]; exportReferencesGraph.graph = [ middle ];
  };
}
"#;

/// Built by neither.
const REFUSED: [&str; 18] = [
    "allowed-none",
    "allowed-other",
    "allowed-not-itself",
    "allowed-odd",
    "disallowed-one",
    "disallowed-itself",
    "requisites-none",
    "requisites-one",
    "no-requisites-deep",
    "check-allowed-less",
    "check-requisites-less",
    "check-disallowed",
    "check-size-less",
    "check-closure-less",
    "graph-outside",
    "graph-odd",
    "graph-named",
    "json-graph-outside",
];

fn attributes(lab: &Lab) -> Vec<(String, PathBuf)> {
    let eval = ["--eval", "--strict", "--json", "-E", "builtins.attrNames (import ./all.nix)"];
    let names = lab.first("nix-instantiate", eval).succeeded().json();
    let names: Vec<String> = serde_json::from_value(names).unwrap();
    let paths = lab.first("nix-instantiate", ["all.nix"]).succeeded().stdout;
    // In the order of the names.
    assert_eq!(paths.lines().count(), names.len());
    names.into_iter().zip(paths.lines().map(|path| lab.physical(path))).collect()
}

#[test]
fn what_nix_refuses_kiln_refuses_and_the_rest_comes_out_the_same() {
    let test = "what_nix_refuses_kiln_refuses_and_the_rest_comes_out_the_same";
    let Some(lab) = Lab::open(test) else { return };
    let Some(kiln) = with_builder(test) else { return };
    let bb = lab.path().join("bb");
    fs::create_dir_all(bb.join("bin")).unwrap();
    fs::copy("/bin/busybox", bb.join("bin/busybox")).unwrap();
    std::os::unix::fs::symlink("busybox", bb.join("bin/sh")).unwrap();
    assert_eq!(lab.first("nix-store", ["--add".as_ref(), bb.as_os_str()]).succeeded().stdout.trim_end(), BUILDER);
    let outside = lab.path().join("outside");
    fs::write(&outside, "not an input\n").unwrap();
    let outside = lab.first("nix-store", ["--add".as_ref(), outside.as_os_str()]).succeeded().stdout;
    let text = EXPRESSION.replace("@BUILDER@", BUILDER).replace("@OUTSIDE@", outside.trim_end());
    fs::write(lab.path().join("all.nix"), text).unwrap();
    let mut wrong = Vec::new();
    let all = attributes(&lab);
    assert!(all.len() > 35);
    for (name, file) in &all {
        let path = format!("/nix/store/{}", file.file_name().unwrap().to_str().unwrap());
        let theirs = lab.first("nix-store", ["--realise", &path]);
        let ours = kiln.run(["build".as_ref(), "--json".as_ref(), file.as_os_str()]);
        let refused = REFUSED.contains(&name.as_str());
        assert_eq!(theirs.code() != Some(0), refused, "{name} in Nix:\n{}", theirs.stderr);
        if (ours.code() != Some(0)) != refused || (refused && !matches!(ours.code(), Some(2 | 5))) {
            wrong.push(format!("{name}: exit {:?}\n{}", ours.code(), ours.stderr));
        }
        if refused || ours.code() != Some(0) {
            continue;
        }
        let output = &ours.json()["builds"][0]["outputs"]["out"];
        assert_eq!(output["path"], theirs.stdout.trim_end(), "{name}");
        let hash = lab.first("nix-store", ["-q", "--hash", theirs.stdout.trim_end()]).succeeded().stdout;
        let hash_of_ours: kiln_model::digest::NarHash = output["nar_hash"].as_str().unwrap().parse().unwrap();
        if kiln_model::store_path::spelled(&hash_of_ours.digest()) != hash.trim_end() {
            wrong.push(format!(
                "{name} in Nix:\n{}\nin kiln:\n{}",
                text_of(&lab.physical(theirs.stdout.trim_end())),
                { text_of(&kiln.store().join(output["path"].as_str().unwrap().trim_start_matches('/'))) }
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    kiln.verified();
}

fn text_of(path: &std::path::Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned()
}

#[test]
fn a_refused_output_is_told_with_the_attribute_and_the_paths() {
    let test = "a_refused_output_is_told_with_the_attribute_and_the_paths";
    let Some(kiln) = with_builder(test) else { return };
    let made = kiln_tests::derivation::Made::default();
    let first = made.closed("first", &[], "echo first > $out");
    let path = first.derivation.outputs.values().next().unwrap().path().unwrap().to_string();
    let with = |name: &str, attribute: &str, value: &str| {
        let script = format!("echo {path} > $out");
        made.with(name, &[(&first, &["out"])], &script, &[(attribute, value)])
    };
    for (attribute, value) in [("allowedReferences", ""), ("disallowedRequisites", path.as_str())] {
        let file = made.file(&with(attribute, attribute, value).path);
        kiln.run(["build".as_ref(), file.as_os_str()]).exits(5).says(&["output out names", &path, attribute]);
    }
    let odd = made.file(&with("odd", "exportReferencesGraph", "one").path);
    kiln.run(["build".as_ref(), odd.as_os_str()]).exits(2).says(&["attribute exportReferencesGraph"]);
    let listed = kiln.run(["store", "ls"]).succeeded().stdout;
    assert!(!listed.contains("-allowedReferences\n") && !listed.contains("-disallowedRequisites\n"), "{listed}");
}
