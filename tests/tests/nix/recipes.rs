//! Recipes: Nix takes what kiln built, builds it itself, and shows their derivations as kiln does.

use std::fs::{self, File};
use std::path::Path;

use kiln_tests::ground::{self, Ground};
use kiln_tests::lab::Lab;
use kiln_tests::recipe::{self, Made};
use kiln_tests::run::Kiln;
use serde_json::Value;

use crate::{nix_hash, publish};

const SCRIPT: &str = r#"mkdir -p "$out/bin"; env | sort >"$out/env"; id >"$out/id"; pwd >"$out/pwd"; umask >"$out/umask"
cat /etc/passwd /etc/hosts >"$out/etc"; ls / >"$out/root"; printf '#!/bin/sh\n' >"$out/bin/run"; chmod 755 "$out/bin/run"
ln -s "$out/bin/run" "$out/link"; printf 'x' >"$out/$(printf 'n\377')""#;

/// A recipe that was built into the warm store: its derivation, output and NAR hash.
struct Built {
    derivation: String,
    output: String,
    nar_hash: String,
}

fn built(kiln: &Kiln, recipe: &Path) -> Built {
    let outcome = kiln.build_one(recipe);
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    Built {
        derivation: text(&outcome["derivation"]),
        output: text(&outcome["outputs"]["out"]["path"]),
        nar_hash: text(&outcome["outputs"]["out"]["nar_hash"]),
    }
}

#[test]
fn nix_substitutes_what_kiln_published_verifies_it_and_builds_the_derivation_to_the_same_bytes() {
    let test = "nix_substitutes_what_kiln_published_verifies_it_and_builds_the_derivation_to_the_same_bytes";
    let Some(lab) = Lab::open(test) else { return };
    if !ground::has_files(test) {
        return;
    }
    let kiln = Kiln::warm();
    let made = Made::new(SCRIPT);
    let recipe = built(&kiln, made.path());
    let cache = format!("file://{}", publish(&kiln, &lab, made.path()).display());

    let refused = lab.second(&cache, "other", "nix-store", ["--realise", &recipe.output]);
    assert_ne!(refused.code(), Some(0), "another key is not enough:\n{}", refused.stderr);
    lab.fresh();
    lab.second(&cache, "ours", "nix-store", ["--realise", &recipe.output]).succeeded();
    let key = lab.public("ours");
    let verify = ["store", "verify", "-r", "--sigs-needed", "1", "--trusted-public-keys", &key, &recipe.output];
    lab.second(&cache, "ours", "nix", verify).succeeded();
    let hash = lab.second(&cache, "ours", "nix-store", ["-q", "--hash", &recipe.output]).succeeded().stdout;
    assert_eq!(hash.trim_end(), nix_hash(&recipe.nar_hash));

    lab.fresh();
    lab.second(&cache, "ours", "nix", ["copy", "--from", &cache, "--derivation", &recipe.derivation]).succeeded();
    let build = ["--realise", &recipe.derivation, "--option", "substitute", "false"];
    lab.second(&cache, "ours", "nix-store", build).succeeded();
    let hash = lab.second(&cache, "ours", "nix-store", ["-q", "--hash", &recipe.output]).succeeded().stdout;
    assert_eq!(hash.trim_end(), nix_hash(&recipe.nar_hash), "Nix builds what kiln built");
    lab.second(&cache, "ours", "nix-store", build.into_iter().chain(["--check"])).succeeded();
}

#[test]
fn users_and_groups_of_an_environment_are_the_same_under_nix_and_leave_nothing_in_the_build() {
    let test = "users_and_groups_of_an_environment_are_the_same_under_nix_and_leave_nothing_in_the_build";
    let Some(lab) = Lab::open(test) else { return };
    if !ground::has_files(test) {
        return;
    }
    let kiln = Kiln::warm();
    let script = r#"mkdir "$out"; cat /etc/passwd >"$out/passwd"; cat /etc/group >"$out/group"; id >"$out/id"
echo x >/var/tmp/x; ls -A /tmp /var/tmp >"$out/scratch"; ls -ld /var/tmp | cut -c1-10 >>"$out/scratch"
ls -A "$NIX_BUILD_TOP" >"$out/top"; ls -ln /etc/passwd /etc/group | cut -c1-10 >"$out/modes""#;
    let made = Made::with("accounts = \"environment\"", script);
    let recipe = built(&kiln, made.path());
    let place = kiln.run(["store", "where", &recipe.output]).succeeded().stdout;
    let read = |name: &str| fs::read_to_string(Path::new(place.trim_end()).join(name)).unwrap();
    for (file, line) in [("group", "staff:*:50:"), ("passwd", "nixbld:x:1000:100:Nix build user:/build:/noshell")] {
        assert!(read(file).lines().any(|found| found == line), "{file}: {}", read(file));
    }
    assert_eq!(read("scratch"), "/tmp:\n\n/var/tmp:\nx\ndrwxrwxrwt\n", "each of its own");
    assert_eq!(read("passwd").lines().filter(|line| line.starts_with("root:")).count(), 1);
    assert_eq!(
        (read("top").as_str(), read("id").as_str()),
        ("", "uid=1000(nixbld) gid=100(users) groups=100(users)\n")
    );

    let cache = format!("file://{}", publish(&kiln, &lab, made.path()).display());
    lab.second(&cache, "ours", "nix", ["copy", "--from", &cache, "--derivation", &recipe.derivation]).succeeded();
    let build = ["--realise", &recipe.derivation, "--option", "substitute", "false"];
    lab.second(&cache, "ours", "nix-store", build).succeeded();
    let hash = lab.second(&cache, "ours", "nix-store", ["-q", "--hash", &recipe.output]).succeeded().stdout;
    assert_eq!(hash.trim_end(), nix_hash(&recipe.nar_hash));
}

#[test]
fn nix_builds_a_recipe_with_packages_and_sources_to_the_same_bytes() {
    let test = "nix_builds_a_recipe_with_packages_and_sources_to_the_same_bytes";
    let Some(lab) = Lab::open(test) else { return };
    if !ground::has_files(test) {
        return;
    }
    let kiln = Kiln::warm();
    let greeting = recipe::shipped("greeting");
    let recipe = built(&kiln, &greeting);
    // Publishing makes the environment a valid path; the cache itself takes only the small output here.
    let cache = publish(&kiln, &lab, &greeting);
    let stream = lab.path().join("stream");
    let status = kiln
        .command(["store", "export", "--recursive", &recipe.derivation])
        .stdout(File::create(&stream).unwrap())
        .status();
    assert!(status.unwrap().success());
    let import = lab.command("nix-store", ["--import"]).stdin(File::open(&stream).unwrap()).output().unwrap();
    assert!(import.status.success(), "{}", String::from_utf8_lossy(&import.stderr));
    lab.first("nix-store", ["--realise", &recipe.derivation]).succeeded();
    let hash = lab.first("nix-store", ["-q", "--hash", &recipe.output]).succeeded().stdout;
    assert_eq!(hash.trim_end(), nix_hash(&recipe.nar_hash));
    assert!(cache.join("nix-cache-info").is_file());
}

#[test]
fn nix_shows_a_recipe_s_derivation_as_kiln_does_and_kiln_takes_it_back_from_a_file() {
    let test = "nix_shows_a_recipe_s_derivation_as_kiln_does_and_kiln_takes_it_back_from_a_file";
    let Some(lab) = Lab::open(test) else { return };
    if !ground::has_files(test) {
        return;
    }
    let kiln = Kiln::warm();
    let made = Made::new(SCRIPT);
    let recipe = built(&kiln, made.path());
    let shown = kiln.run(["derivation", "show", &recipe.derivation]).succeeded().json();
    let of_recipe = kiln.run(["derivation".as_ref(), "show".as_ref(), made.path().as_os_str()]).succeeded().json();
    assert_eq!(of_recipe, shown);

    let cache = format!("file://{}", publish(&kiln, &lab, made.path()).display());
    lab.second(&cache, "ours", "nix", ["copy", "--from", &cache, "--derivation", &recipe.derivation]).succeeded();
    let theirs = lab.second(&cache, "ours", "nix", ["show-derivation", &recipe.derivation]).succeeded().json();
    assert_eq!(shown, theirs);

    let base = recipe.derivation.rsplit('/').next().unwrap();
    let file = lab.path().join("root2/nix/store").join(base);
    let fresh = Kiln::fresh(Ground::Disk);
    let added = fresh.run(["derivation".as_ref(), "add".as_ref(), file.as_os_str()]).succeeded();
    assert_eq!(added.stdout.trim_end(), recipe.derivation);
    assert_eq!(fresh.run(["derivation", "show", &recipe.derivation]).succeeded().json(), theirs);

    let altered = lab.path().join(base);
    let text = String::from_utf8(fs::read(&file).unwrap()).unwrap();
    fs::write(&altered, text.replacen("umask", "UMASK", 1)).unwrap();
    fresh.run(["derivation".as_ref(), "add".as_ref(), altered.as_os_str()]).exits(6).says(&["altered"]);
    let renamed = lab.path().join("made-1.drv");
    fs::rename(&altered, &renamed).unwrap();
    fresh.run(["derivation".as_ref(), "add".as_ref(), renamed.as_os_str()]).exits(6).says(&["output out"]);
}
