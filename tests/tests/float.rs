//! Derivations whose output paths follow from what they built: `kiln build FILE.drv` puts them where a real Nix does.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use kiln_model::derivation::Output;
use kiln_model::store_path::{Algorithm, Method, StorePath};
use kiln_tests::derivation::{BUILDER, Made, floating, vector, vectors, with_builder};
use kiln_tests::run::Kiln;
use serde_json::{Value, json};

fn info(kiln: &Kiln, path: &str) -> Value {
    kiln.run(["--json", "store", "info", path]).succeeded().json()["path"].clone()
}

fn path_of(outcome: &Value, output: &str) -> String {
    assert_eq!(outcome["status"], "built", "{outcome:#}");
    outcome["outputs"][output]["path"].as_str().unwrap().to_owned()
}

fn physical(kiln: &Kiln, path: &str) -> PathBuf {
    kiln.store().join(path.strip_prefix('/').unwrap())
}

/// Files below `realisations/`, as `DERIVATION/OUTPUT.json`.
fn realisations(kiln: &Kiln) -> BTreeSet<String> {
    let below = |path: PathBuf| fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
    let root = kiln.store().join("realisations");
    let files = below(root.clone()).into_iter().flat_map(below);
    files.map(|file| file.strip_prefix(&root).unwrap().to_str().unwrap().to_owned()).collect()
}

#[test]
fn what_floats_gets_the_path_references_and_address_that_nix_gave_it() {
    let Some(kiln) = with_builder("what_floats_gets_the_path_references_and_address_that_nix_gave_it") else { return };
    let table = fs::read_to_string(vectors().join("outputs.tsv")).unwrap();
    // As the corpus of a real Nix has them: NAR hash, references, content address, deriver.
    let ca_self = "/nix/store/k6797war0px6sr1pkwzh6279i332x4cf-ca-self";
    let ca_multi = "/nix/store/14sjdz823ynk1lmvh3kd2kz0a6mmlb60-ca-multi";
    let expected = [
        (
            "ca-simple",
            "out",
            "sha256-RNMIpYzRgrhyf3vD6cmewDcqHg5wlGt09FuO+4mFKjM=",
            json!([]),
            json!("fixed:r:sha256:0crahn4zp3jvyis6p53h1qg2ldy0kv4ykhvvgxrbi0niijjhils4"),
            "gxxjv75zrgvvqwmsnw3q9w8fi2fr0nyb-ca-simple.drv",
        ),
        (
            "ca-self",
            "out",
            "sha256-elTZlRHeZ8vmxZihY4mTR0FbdL6ey6wvrGQUbl67O1M=",
            json!([ca_self]),
            json!("fixed:r:sha256:1cb0q2bijlk1z805zlcvx90x8in44vy79jax9xx852wfj8h34nr8"),
            "7g4dh51ib2vmzg9d7m2hgxgms8j3g9sy-ca-self.drv",
        ),
        (
            "ca-multi",
            "out",
            "sha256-I79ABM/MuMklSzsTwQ5m1xiPdq97No4hi6vpgVmYnw8=",
            json!([]),
            json!("fixed:r:sha256:03wzk1cq3sdbichqwdkvmxv8y66pcq7c24rv9cjwkf6crw241gr3"),
            "dfgbdzv9g93lwjxnhjk4c3ly95nqx877-ca-multi.drv",
        ),
        (
            "ca-multi",
            "dev",
            "sha256-cJztpXHdJfLoKRjmGXiAgh51NJV6lr/F9XL0T+5gFr0=",
            json!([ca_multi]),
            json!("fixed:r:sha256:1g8nc3p4zx3jyp2vz5ksjls7a7l2h1w1krhq57lg49fxf6jyv73h"),
            "dfgbdzv9g93lwjxnhjk4c3ly95nqx877-ca-multi.drv",
        ),
        (
            "ia-uses-ca",
            "out",
            "sha256-RNMIpYzRgrhyf3vD6cmewDcqHg5wlGt09FuO+4mFKjM=",
            json!([]),
            Value::Null,
            "y4vpwwis0bnvi8ymv60fqfm0qf0dk060-ia-uses-ca.drv",
        ),
    ];
    for (name, output, nar_hash, references, address, deriver) in expected {
        let file = vector(name);
        let row = format!("/nix/store/{}\t{output}\t", file.file_name().unwrap().to_str().unwrap());
        let row = table.lines().find(|line| line.starts_with(&row)).unwrap();
        let path = path_of(&kiln.build_one(&file), output);
        assert_eq!(path, row.rsplit('\t').next().unwrap(), "{name}!{output}");
        let info = info(&kiln, &path);
        assert_eq!(info["nar_hash"], nar_hash, "{name}!{output}");
        assert_eq!(info["references"], references, "{name}!{output}");
        assert_eq!(info["ca"], address, "{name}!{output}");
        assert_eq!(info["deriver"], format!("/nix/store/{deriver}"), "{name}!{output}");
        assert_eq!(kiln.build_one(&file)["cached"], true);
    }
    assert_eq!(realisations(&kiln).len(), 5);
    kiln.verified();
}

#[test]
fn what_depends_on_a_floating_output_is_built_upon_what_that_became() {
    let Some(kiln) = with_builder("what_depends_on_a_floating_output_is_built_upon_what_that_became") else { return };
    let made = Made::default();
    // More than a block of the pipe that rewrites it, at offsets of every kind.
    let script = "i=0; while [ $i -lt 10000 ]; do echo \"$i and $out and $out\"; i=$((i+1)); done > $out";
    let first = made.derivation("first", &[("out", floating())], &[], script);
    let needed = |path: &StorePath, output: &str| {
        kiln_model::store_path::upstream_placeholder(path, &output.parse().unwrap()).unwrap()
    };
    let script = format!("busybox head -n1 {} > $out; echo $out > $dev; echo $dev >> $dev", needed(&first, "out"));
    let second = made.derivation("second", &[("out", floating()), ("dev", floating())], &[(&first, &["out"])], &script);
    let script = format!("busybox cat {} {} > $out", needed(&second, "out"), needed(&second, "dev"));
    let third = made.derivation("third", &[("out", Output::Deferred)], &[(&second, &["out", "dev"])], &script);

    let third = kiln.build_one(&made.file(&third));
    let text = fs::read_to_string(physical(&kiln, &path_of(&third, "out"))).unwrap();
    let [first, second] = [first, second].map(|path| kiln.build_one(&made.file(&path)));
    assert_eq!((&first["cached"], &second["cached"]), (&json!(true), &json!(true)));
    let (first, out, dev) = (path_of(&first, "out"), path_of(&second, "out"), path_of(&second, "dev"));
    assert_eq!(text, format!("0 and {first} and {first}\n{out}\n{dev}\n"));
    let large = fs::read_to_string(physical(&kiln, &first)).unwrap();
    assert!(large.len() > 1 << 20);
    assert_eq!(large.matches(&first).count(), 20000);
    assert_eq!(large.matches("/nix/store/").count(), 20000);
    let expected: BTreeSet<&str> = [first.as_str(), &out, &dev].into();
    let references = info(&kiln, &path_of(&third, "out"))["references"].clone();
    let references: BTreeSet<&str> = references.as_array().unwrap().iter().map(|path| path.as_str().unwrap()).collect();
    assert_eq!(references, expected);
    assert_eq!(info(&kiln, &dev)["references"].as_array().unwrap().len(), 2);
    kiln.verified();
}

#[test]
fn derivations_that_resolve_to_the_same_are_built_once() {
    let Some(kiln) = with_builder("derivations_that_resolve_to_the_same_are_built_once") else { return };
    let made = Made::default();
    let [one, other] = ["echo same > $out", "echo sa''me > $out"]
        .map(|script| made.derivation("needed", &[("out", floating())], &[], script));
    assert_ne!(one, other);
    for kind in [floating(), Output::Deferred] {
        let [built, resolved] = [&one, &other].map(|needed| {
            let upon = kiln_model::store_path::upstream_placeholder(needed, &"out".parse().unwrap()).unwrap();
            let user =
                made.derivation("user", &[("out", kind.clone())], &[(needed, &["out"])], &format!(": {upon} > $out"));
            kiln.build_one(&made.file(&user))
        });
        assert_eq!((&built["cached"], &resolved["cached"]), (&json!(false), &json!(true)));
        assert_ne!(built["derivation"], resolved["derivation"]);
        assert_eq!(path_of(&built, "out"), path_of(&resolved, "out"));
    }
}

#[test]
fn an_output_that_cannot_be_addressed_by_its_contents_fails_its_build_and_says_why() {
    let Some(kiln) = with_builder("an_output_that_cannot_be_addressed_by_its_contents_fails_its_build_and_says_why")
    else {
        return;
    };
    let made = Made::default();
    let address = |method, algorithm| Output::Floating { method, algorithm };
    let out = |kind: Output| vec![("out", kind)];
    for (name, outputs, script, said) in [
        (
            "named",
            out(floating()),
            "busybox mkdir $out; echo > $out/a-${out##*/}",
            "is named after an output of its own",
        ),
        (
            "flat",
            out(address(Method::Flat, Algorithm::Sha256)),
            "busybox mkdir $out",
            "expected a file that is not exec",
        ),
        ("itself", out(address(Method::Flat, Algorithm::Sha256)), "echo $out > $out", "holds no references"),
        ("sha1", out(address(Method::Recursive, Algorithm::Sha1)), "echo $PATH > $out", "holds no references"),
        ("circle", vec![("out", floating()), ("dev", floating())], "echo $dev > $out; echo $out > $dev", "in a circle"),
        ("nothing", out(floating()), ":", "was not made"),
    ] {
        let path = made.derivation(name, &outputs, &[], script);
        kiln.run(["build".as_ref(), made.file(&path).as_os_str()]).exits(5).says(&[said]);
    }
    let fine = made.derivation("fine", &out(address(Method::Flat, Algorithm::Sha512)), &[], "echo flat > $out");
    let address = info(&kiln, &path_of(&kiln.build_one(&made.file(&fine)), "out"))["ca"].clone();
    assert!(address.as_str().unwrap().starts_with("fixed:sha512:"), "{address}");
    let mixed = made.derivation("mixed", &[("out", floating()), ("dev", Output::Deferred)], &[], ":");
    kiln.run(["build".as_ref(), made.file(&mixed).as_os_str()]).exits(2).says(&["output out floats and others"]);
    let unknown = made.derivation("unknown", &[("out", floating())], &[(&fine, &["doc"])], "echo > $out");
    kiln.run(["build".as_ref(), made.file(&unknown).as_os_str()])
        .exits(2)
        .says(&["output doc of", "has no such output"]);
    let rest: Vec<String> = realisations(&kiln).into_iter().collect();
    assert_eq!(rest, [format!("{}/out.json", fine.base_name())]);
    kiln.verified();
}

#[test]
fn a_floating_derivation_is_checked_by_its_final_trees() {
    let Some(kiln) = with_builder("a_floating_derivation_is_checked_by_its_final_trees") else { return };
    let report = kiln.run(["--json".as_ref(), "check".as_ref(), vector("ca-self").as_os_str()]).succeeded().json();
    assert_eq!(report["verdict"], "reproduced");
    let made = Made::default();
    let script = "busybox hostname > $out; echo $out >> $out";
    let path = made.derivation("host", &[("out", floating())], &[], script);
    let report = kiln.run(["--json".as_ref(), "check".as_ref(), made.file(&path).as_os_str()]).exits(1).json();
    assert_eq!(report["verdict"], "diverged");
    // The unvaried one is what it is now.
    assert_eq!(kiln.build_one(&made.file(&path))["cached"], true);
}

#[test]
fn a_realisation_goes_with_its_path_and_a_damaged_one_is_found() {
    let Some(kiln) = with_builder("a_realisation_goes_with_its_path_and_a_damaged_one_is_found") else { return };
    kiln.run(["store", "root", "builder", BUILDER]).succeeded();
    let (simple, user) = (vector("ca-simple"), vector("ia-uses-ca"));
    let path = path_of(&kiln.build_one(&user), "out");
    kiln.run(["store", "root", "keep", &path]).succeeded();
    kiln.run(["store", "gc"]).succeeded();
    let name = |file: &PathBuf| file.file_name().unwrap().to_str().unwrap().to_owned();
    assert_eq!(realisations(&kiln), [format!("{}/out.json", name(&user))].into());
    assert_eq!(kiln.build_one(&user)["cached"], true);
    assert_eq!(kiln.build_one(&simple)["cached"], false);
    kiln.verified();

    let file = kiln.store().join("realisations").join(name(&simple)).join("out.json");
    let text = fs::read_to_string(&file).unwrap();
    fs::remove_file(&file).unwrap();
    fs::write(&file, &text[..40]).unwrap();
    let ran = kiln.run(["store", "verify"]);
    assert_eq!(ran.code(), Some(6), "{ran:?}");
    assert!(ran.stdout.contains("out.json is no record of a realisation"), "{}", ran.stdout);
    fs::remove_file(&file).unwrap();
    kiln.verified();
}
