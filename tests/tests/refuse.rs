//! Bad input: each is refused with the documented exit code, and the error names file, field and way out.

use std::path::Path;

use kiln_model::digest::Digest;
use kiln_model::lock::Lock;
use kiln_tests::ground::{self, Ground};
use kiln_tests::recipe::{self, Made};
use kiln_tests::run::{Kiln, Ran};

fn run(command: &str, path: &Path) -> Ran {
    Kiln::fresh(Ground::Disk).run([command.as_ref(), path.as_os_str()])
}

/// A recipe and its lock, as text: no store is needed to refuse them.
fn made() -> Made {
    Made::new(r#"echo x >"$out""#)
}

#[test]
fn malformed_recipes_are_refused_by_file_and_field() {
    for (old, new, says) in [
        ("script = ", "scirpt = ", vec!["recipe.toml", "line", "scirpt", "did you mean \"script\""]),
        ("schema = 1", "schema = 2", vec!["recipe.toml", "schema 2"]),
        ("schema = 1", "schema = \"1\"", vec!["recipe.toml", "line 1"]),
        ("license = \"Apache-2.0\"", "license = \"GPLish\"", vec!["recipe.toml", "license", "SPDX"]),
        ("name = \"made\"", "name = \"ma de\"", vec!["recipe.toml", "line 2", "ma de"]),
        ("name = \"made\"", "name = \"../made\"", vec!["recipe.toml", "line 2"]),
        ("[environment]", "[inputs.src]\n\n[environment]", vec!["recipe.toml", "exactly one of", "found none"]),
        (
            "[environment]",
            "[inputs.src]\npath = \"a\"\nrev = \"b\"\n\n[environment]",
            vec!["rev does not go with path"],
        ),
        ("[build]", "[build]\noutputs = []", vec!["build.outputs is empty"]),
        ("[build]", "[build]\noutputs = [\"o-t\"]", vec!["recipe.toml", "o-t"]),
        ("[build]", "[build]\nenv = { out = \"x\" }", vec!["build.env.out"]),
        ("[build]", "[artifacts]\ndev = [\"*\"]\n[build]", vec!["artifacts.dev names no output"]),
        ("suite = \"bookworm\"", "suite = []", vec!["environment.debian.suite is empty"]),
        ("[build]", "[build", vec!["recipe.toml", "line"]),
    ] {
        let made = made();
        made.edit("recipe.toml", old, new);
        for command in ["build", "lock", "check"] {
            run(command, made.path()).exits(2).says(&says);
        }
    }
}

#[test]
fn recipes_that_are_not_there_are_refused() {
    let empty = ground::directory(Ground::Disk);
    for path in [empty.path(), &empty.path().join("recipe.toml"), Path::new("no/such/recipe")] {
        run("build", path).exits(2).says(&["no recipe at", "recipe.toml"]);
    }
}

#[test]
fn a_recipe_that_is_not_text_is_refused() {
    let made = made();
    std::fs::write(made.path().join("recipe.toml"), [0xff, 0xfe, 0]).unwrap();
    run("build", made.path()).exits(2).says(&["recipe.toml"]);
}

#[test]
fn a_recipe_without_a_lock_is_not_built() {
    let made = made();
    std::fs::remove_file(made.path().join("recipe.lock")).unwrap();
    run("build", made.path()).exits(2).says(&["recipe.lock", "kiln lock"]);
}

#[test]
fn a_lock_older_than_the_recipe_is_refused_and_left_alone() {
    let made = made();
    made.edit("recipe.toml", "suite = \"bookworm\"", "suite = \"bookworm\", packages = [\"make\"]");
    let before = made.read("recipe.lock");
    for command in ["build", "check"] {
        run(command, made.path()).exits(2).says(&["recipe.lock", "kiln lock"]);
    }
    assert_eq!(made.read("recipe.lock"), before, "build never edits a lock");
}

#[test]
fn a_malformed_lock_is_refused() {
    for (old, new, says) in [
        ("[environment]", "[environment]\ncolour = \"red\"", "colour"),
        ("schema = 1", "schema = 7", "schema 7"),
        ("nar-hash = \"", "nar-hash = \"x", "recipe.lock"),
    ] {
        let made = made();
        made.edit("recipe.lock", old, new);
        run("build", made.path()).exits(2).says(&["recipe.lock", says]);
    }
}

#[test]
fn recipes_that_need_each_other_are_refused_with_the_circle() {
    let (a, b) = (made(), made());
    for (from, to) in [(&a, &b), (&b, &a)] {
        let name = to.path().file_name().unwrap().to_str().unwrap();
        from.edit("recipe.toml", "[environment]", &format!("[inputs.other]\nrecipe = \"../{name}\"\n\n[environment]"));
    }
    let name = |made: &Made| made.path().file_name().unwrap().to_str().unwrap().to_string();
    run("build", a.path()).exits(2).says(&["circle", &name(&a), &name(&b)]);
}

#[test]
fn an_input_from_a_recipe_without_that_output_is_refused() {
    let (library, program) = (made(), made());
    let name = library.path().file_name().unwrap().to_str().unwrap();
    program.edit(
        "recipe.toml",
        "[environment]",
        &format!("[inputs.other]\nrecipe = \"../{name}\"\noutput = \"dev\"\n\n[environment]"),
    );
    let recipe = kiln_model::recipe::Recipe::parse(&program.read("recipe.toml")).unwrap();
    let mut lock = Lock::parse(&program.read("recipe.lock")).unwrap();
    lock.pins = recipe.pins();
    program.write("recipe.lock", &lock.print());
    run("build", program.path()).exits(2).says(&["inputs.other", "dev", "no such output"]);
}

#[test]
fn unknown_commands_and_options_are_refused() {
    let kiln = Kiln::fresh(Ground::Disk);
    kiln.run(["bulid"]).exits(2);
    kiln.run(["build"]).exits(2);
    kiln.run(["build", "--fast", "recipes/hello"]).exits(2);
}

#[test]
fn a_malformed_configuration_is_refused_by_file_and_line() {
    let kiln = Kiln::fresh(Ground::Disk);
    kiln.configure("[mirrors]\ndebain = []\n");
    kiln.run(["build", "recipes/handbook"]).exits(2).says(&["config.toml", "line 2", "did you mean \"debian\""]);
}

/// An offline directory with all files but those that `change` takes away or alters.
fn mirror(change: impl Fn(&Path)) -> tempfile::TempDir {
    let mirror = ground::directory(Ground::Disk);
    for entry in std::fs::read_dir(ground::files()).unwrap() {
        let path = entry.unwrap().path();
        std::os::unix::fs::symlink(&path, mirror.path().join(path.file_name().unwrap())).unwrap();
    }
    change(mirror.path());
    mirror
}

/// A package of the environment that every recipe has.
fn some_package() -> (String, Digest) {
    let lock = std::fs::read_to_string(recipe::shipped("handbook/recipe.lock")).unwrap();
    let lock = Lock::parse(&lock).unwrap();
    let package = lock.environment.packages.iter().find(|p| p.name == "hostname").unwrap();
    (package.path.rsplit('/').next().unwrap().to_string(), package.sha256)
}

fn build_from(mirror: &Path) -> Ran {
    let kiln = Kiln::fresh(Ground::Tmpfs);
    kiln.mirrors(&[&mirror.display().to_string()]);
    let ran = kiln.run(["build".as_ref(), recipe::shipped("handbook").as_os_str()]);
    kiln.verified();
    ran
}

#[test]
fn a_file_that_no_mirror_has_is_named_with_every_mirror_asked() {
    if !ground::has_files("a_file_that_no_mirror_has_is_named_with_every_mirror_asked") {
        return;
    }
    let (name, sha256) = some_package();
    let mirror = mirror(|dir| std::fs::remove_file(dir.join(&name)).unwrap());
    build_from(mirror.path()).exits(7).says(&[&name, &sha256.to_string(), "offline directory"]);
}

#[test]
fn a_file_with_other_bytes_is_tampered_with() {
    if !ground::has_files("a_file_with_other_bytes_is_tampered_with") {
        return;
    }
    let (name, sha256) = some_package();
    let altered = |change: &dyn Fn(&mut Vec<u8>)| {
        mirror(|dir| {
            let mut bytes = std::fs::read(dir.join(&name)).unwrap();
            change(&mut bytes);
            std::fs::remove_file(dir.join(&name)).unwrap();
            std::fs::write(dir.join(&name), bytes).unwrap();
        })
    };
    // Same size, one bit: only the digest tells.
    let flipped = altered(&|bytes| *bytes.last_mut().unwrap() ^= 1);
    build_from(flipped.path()).exits(6).says(&[&name, &sha256.to_string()]);
    let truncated = altered(&|bytes| bytes.truncate(bytes.len() / 2));
    build_from(truncated.path()).exits(6).says(&[&name]);
}

#[test]
fn a_mirror_with_other_bytes_is_passed_over_for_one_with_the_right_ones() {
    if !ground::has_files("a_mirror_with_other_bytes_is_passed_over_for_one_with_the_right_ones") {
        return;
    }
    let (name, _) = some_package();
    let bad = mirror(|dir| {
        std::fs::remove_file(dir.join(&name)).unwrap();
        std::fs::write(dir.join(&name), "not a package").unwrap();
    });
    let kiln = Kiln::fresh(Ground::Tmpfs);
    kiln.mirrors(&[&bad.path().display().to_string(), &ground::files().display().to_string()]);
    kiln.run(["build".as_ref(), recipe::shipped("handbook").as_os_str()]).succeeded();
}

#[test]
fn an_environment_with_another_digest_than_the_lock_says_is_tampered_with() {
    if !ground::has_files("an_environment_with_another_digest_than_the_lock_says_is_tampered_with") {
        return;
    }
    let made = made();
    let mut lock = Lock::parse(&made.read("recipe.lock")).unwrap();
    lock.environment.nar_hash = kiln_model::digest::NarHash::new(Digest::of("another tree"));
    lock.environment.base = lock.environment.nar_hash;
    made.write("recipe.lock", &lock.print());
    Kiln::fresh(Ground::Tmpfs).run(["build".as_ref(), made.path().as_os_str()]).exits(6).says(&["environment"]);
}

#[test]
fn a_source_beside_the_recipe_that_has_changed_is_refused_until_locked_again() {
    if !ground::has_files("a_source_beside_the_recipe_that_has_changed_is_refused_until_locked_again") {
        return;
    }
    let made = Made::copy("handbook");
    made.write("pages/04-more.txt", "More.\n");
    Kiln::warm().run(["build".as_ref(), made.path().as_os_str()]).exits(2).says(&["pages", "kiln lock"]);
}
