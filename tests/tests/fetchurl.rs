//! `builtin:fetchurl`: kiln fetches itself what a real Nix fetches, to the same path and bytes, and from mirrors first.

use std::fs;
use std::path::{Path, PathBuf};

use kiln_tests::derivation::with_builder;
use kiln_tests::ground::Ground;
use kiln_tests::lab::Lab;
use kiln_tests::run::{Kiln, Ran};
use kiln_tests::web::{Answer, Files, Server, announcing};

/// Files to fetch, and a Nix that says which derivations fetch them.
struct Site {
    lab: Lab,
    files: PathBuf,
}

impl Site {
    fn new(test: &str) -> Option<Self> {
        let lab = Lab::open(test)?;
        let files = lab.path().join("site");
        fs::create_dir_all(&files).unwrap();
        fs::write(files.join("text"), "some text\n".repeat(1000)).unwrap();
        let tree = lab.path().join("tree");
        fs::create_dir_all(tree.join("sub")).unwrap();
        fs::write(tree.join("sub/run"), "#!/bin/sh\n").unwrap();
        fs::set_permissions(tree.join("sub/run"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        std::os::unix::fs::symlink("sub/run", tree.join("link")).unwrap();
        let nar = lab.command("nix-store", ["--dump".as_ref(), tree.as_os_str()]).output().unwrap().stdout;
        fs::write(files.join("tree.nar"), nar).unwrap();
        let xz = std::process::Command::new("xz").arg("--keep").arg(files.join("tree.nar")).status();
        assert!(xz.unwrap().success());
        // A file in an archive of its own, which may be run.
        let nar =
            lab.command("nix-store", ["--dump".as_ref(), tree.join("sub/run").as_os_str()]).output().unwrap().stdout;
        fs::write(files.join("run.nar"), nar).unwrap();
        Some(Self { lab, files })
    }

    fn hash(&self, more: &[&str], file: &Path) -> String {
        let words = more.iter().map(std::ffi::OsStr::new).chain([file.as_os_str()]);
        self.lab.first("nix-hash", words).succeeded().stdout.trim_end().to_owned()
    }

    /// The derivation called `name` that fetches from `address`, in a file.
    fn derivation(&self, name: &str, address: &str, more: &str) -> PathBuf {
        let expression = format!(
            "derivation ({{ name = \"{name}\"; system = \"builtin\"; builder = \"builtin:fetchurl\"; preferLocalBuild = true; \
             url = \"{address}\"; }} // {{ {more} }})"
        );
        let path = self.lab.first("nix-instantiate", ["--expr", &expression]).succeeded().stdout;
        self.lab.physical(path.trim_end())
    }

    /// Those of all kinds, from the server at `address`.
    fn all(&self, address: &str) -> Vec<(&'static str, PathBuf)> {
        let text = self.files.join("text");
        let run = self.lab.path().join("run");
        fs::copy(&text, &run).unwrap();
        fs::set_permissions(&run, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let flat = |algorithm: &str| {
            let hash = self.hash(&["--flat", "--type", algorithm], &text);
            format!("outputHashMode = \"flat\"; outputHashAlgo = \"{algorithm}\"; outputHash = \"{hash}\";")
        };
        let recursive = |algorithm: &str, tree: &Path| {
            let hash = self.hash(&["--type", algorithm], tree);
            format!("outputHashMode = \"recursive\"; outputHashAlgo = \"{algorithm}\"; outputHash = \"{hash}\";")
        };
        let tree = self.lab.path().join("tree");
        let at = |file: &str| format!("{address}/{file}");
        let unpacked = format!("{} unpack = true;", recursive("sha256", &tree));
        vec![
            ("flat", self.derivation("flat", &at("text"), &flat("sha256"))),
            ("sha512", self.derivation("sha512", &at("text"), &flat("sha512"))),
            ("md5", self.derivation("md5", &at("text"), &flat("md5"))),
            ("recursive", self.derivation("recursive", &at("text"), &recursive("sha1", &text))),
            (
                "executable",
                self.derivation(
                    "executable",
                    &at("text"),
                    &format!("{} executable = true;", recursive("sha256", &run)),
                ),
            ),
            ("unpacked", self.derivation("unpacked", &at("tree.nar"), &unpacked)),
            ("unpacked-xz", self.derivation("unpacked-xz", &at("tree.nar.xz"), &unpacked)),
            (
                "unpacked-file",
                self.derivation(
                    "unpacked-file",
                    &at("run.nar"),
                    &format!("{} unpack = true;", recursive("sha256", &tree.join("sub/run"))),
                ),
            ),
        ]
    }
}

fn online(mirrors: &[&Path]) -> Kiln {
    let kiln = Kiln::fresh(Ground::Disk).online();
    configure(&kiln, mirrors);
    kiln
}

fn configure(kiln: &Kiln, mirrors: &[&Path]) {
    let list: Vec<String> = mirrors.iter().map(|path| format!("{:?}", path.display().to_string())).collect();
    let fetch = "[fetch]\nclients = []\nattempts = 1\nstall-seconds = 2\n";
    kiln.configure(&format!("[mirrors]\nurl = [{}]\n{fetch}", list.join(", ")));
}

fn build(kiln: &Kiln, file: &Path) -> Ran {
    kiln.run(["build".as_ref(), "--json".as_ref(), file.as_os_str()])
}

#[test]
fn what_nix_fetches_kiln_fetches_to_the_same_path_and_bytes() {
    let Some(site) = Site::new("what_nix_fetches_kiln_fetches_to_the_same_path_and_bytes") else { return };
    let server = Server::of(&site.files);
    let kiln = online(&[]);
    for (name, file) in site.all(server.address()) {
        let path = format!("/nix/store/{}", file.file_name().unwrap().to_str().unwrap());
        let theirs = site.lab.first("nix-store", ["--realise", &path]).succeeded().stdout.trim_end().to_owned();
        let hash = site.lab.first("nix-store", ["-q", "--hash", &theirs]).succeeded().stdout;
        let outcome = build(&kiln, &file).succeeded().json()["builds"][0].clone();
        let output = &outcome["outputs"]["out"];
        assert_eq!((&outcome["status"], &output["path"]), (&"built".into(), &theirs.as_str().into()), "{name}");
        let ours: kiln_model::digest::NarHash = output["nar_hash"].as_str().unwrap().parse().unwrap();
        assert_eq!(kiln_model::store_path::spelled(&ours.digest()), hash.trim_end(), "{name}");
        assert_eq!(build(&kiln, &file).succeeded().json()["builds"][0]["cached"], true, "{name}");
    }
    kiln.verified();
}

#[test]
fn a_mirror_is_asked_before_the_address_and_one_with_other_bytes_is_passed_over() {
    let test = "a_mirror_is_asked_before_the_address_and_one_with_other_bytes_is_passed_over";
    let Some(site) = Site::new(test) else { return };
    let server = Server::of(&site.files);
    let all = site.all(server.address());
    let offline = Kiln::fresh(Ground::Disk);
    configure(&offline, &[&site.files]);
    for (name, file) in &all {
        assert_eq!(build(&offline, file).succeeded().json()["builds"][0]["status"], "built", "{name}");
    }
    assert_eq!(server.asked(), Vec::<String>::new());

    let wrong = site.lab.path().join("wrong");
    fs::create_dir_all(&wrong).unwrap();
    for file in ["text", "tree.nar", "tree.nar.xz", "run.nar"] {
        fs::write(wrong.join(file), "something else\n").unwrap();
    }
    let kiln = online(&[&wrong]);
    for (name, file) in &all {
        assert_eq!(build(&kiln, file).succeeded().json()["builds"][0]["status"], "built", "{name}");
    }
    assert!(!server.asked().is_empty());
    kiln.verified();
    // Nobody has the right ones.
    let kiln = Kiln::fresh(Ground::Disk);
    configure(&kiln, &[&wrong]);
    for (name, file) in &all {
        let ran = build(&kiln, file);
        assert_eq!(ran.code(), Some(6), "{name}:\n{}", ran.stderr);
        assert!(ran.stderr.contains("fetching the output of"), "{name}:\n{}", ran.stderr);
    }
    build(&kiln, &all[1].1).exits(6).says(&["is sha512-", "expected sha512-"]);
    build(&kiln, &all[5].1).exits(6).says(&["is no archive"]);
    let listed = kiln.run(["store", "ls"]).succeeded().stdout;
    assert!(!listed.lines().any(|path| !path.ends_with(".drv")), "{listed}");
}

#[test]
fn what_cannot_be_fetched_is_an_error_soon_and_leaves_nothing() {
    let Some(site) = Site::new("what_cannot_be_fetched_is_an_error_soon_and_leaves_nothing") else { return };
    type Bend = fn(&str, Vec<u8>) -> Answer;
    let cases: [(&str, Bend, i32, &str); 6] = [
        ("absent", |_, _| Answer::Status(404), 7, "404"),
        ("stalls", |_, bytes| Answer::Stall(announcing(bytes.len(), &bytes[..bytes.len() / 2])), 7, "stalled"),
        ("cut short", |_, bytes| Answer::Raw(announcing(bytes.len(), &bytes[..bytes.len() / 2])), 7, "ended after"),
        ("redirects", |target, _| Answer::Redirect(target.into()), 7, "redirected more than"),
        ("html", |_, _| Answer::File(b"<html></html>".to_vec()), 6, ""),
        ("fails", |_, _| Answer::Status(503), 7, "503"),
    ];
    for (name, bend, code, said) in cases {
        let files = Files::of(&site.files);
        let server = Server::start(move |target| match files.answer(target) {
            Answer::File(bytes) => bend(target, bytes),
            other => other,
        });
        for (kind, file) in
            site.all(server.address()).into_iter().filter(|(kind, _)| ["flat", "sha512", "unpacked"].contains(kind))
        {
            let kiln = online(&[]);
            let ran = build(&kiln, &file);
            assert_eq!(ran.code(), Some(code), "{name} of {kind}:\n{}", ran.stderr);
            assert!(ran.stderr.contains(said), "{name} of {kind} does not say {said:?}:\n{}", ran.stderr);
            assert!(ran.took.as_secs() < 60, "{name} of {kind}");
            assert_eq!(kiln.run(["store", "ls"]).succeeded().stdout, "", "{name} of {kind}");
        }
    }
    let file = site.derivation(
        "alone",
        "http://127.0.0.1:9/text",
        "outputHashMode = \"flat\"; outputHashAlgo = \"sha256\"; \
        outputHash = \"0000000000000000000000000000000000000000000000000000\";",
    );
    build(&Kiln::fresh(Ground::Disk), &file).exits(7).says(&["offline"]);
}

#[test]
fn a_fetched_output_is_built_upon_and_checked() {
    let test = "a_fetched_output_is_built_upon_and_checked";
    let Some(site) = Site::new(test) else { return };
    let Some(kiln) = with_builder(test) else { return };
    let kiln = kiln.online();
    configure(&kiln, &[]);
    let server = Server::of(&site.files);
    let fetched = site.all(server.address()).swap_remove(1).1;
    let report = kiln.run(["check".as_ref(), "--json".as_ref(), fetched.as_os_str()]).succeeded().json();
    assert_eq!(report["verdict"], "reproduced");
    assert_eq!(server.asked().len(), 2, "once for each of two");
    let path: kiln_model::store_path::StorePath =
        format!("/nix/store/{}", fetched.file_name().unwrap().to_str().unwrap()).parse().unwrap();
    let derivation = kiln_model::derivation::Derivation::parse_at(&path, &fs::read(&fetched).unwrap()).unwrap();
    let modulo = derivation.modulo(&std::collections::BTreeMap::new()).unwrap();
    let out = derivation.outputs.values().next().unwrap().path().unwrap().to_string();
    let bytes = derivation.print();
    let closed = kiln_model::derivation::Closed { derivation, path, bytes, modulo };
    let made = kiln_tests::derivation::Made::default();
    fs::copy(&fetched, made.file(&closed.path)).unwrap();
    let user = made.closed("user", &[(&closed, &["out"])], &format!("busybox head -n1 {out} > $out"));
    let outcome = kiln.build_one(&made.file(&user.path));
    assert_eq!(outcome["status"], "built");
    assert!(outcome["inputs"][&out].is_string());
}

#[test]
fn what_nix_builds_itself_and_kiln_does_not_is_refused_by_name() {
    let Some(lab) = Lab::open("what_nix_builds_itself_and_kiln_does_not_is_refused_by_name") else { return };
    let kiln = Kiln::fresh(Ground::Disk);
    for (attributes, said) in [
        ("builder = \"builtin:buildenv\";", "builtin:buildenv"),
        ("builder = \"builtin:unpack-channel\";", "builtin:unpack-channel"),
        ("builder = \"builtin:fetchurl\"; url = \"http://127.0.0.1:9/\";", "expected a fixed output"),
        (
            "builder = \"builtin:fetchurl\"; outputHash = \"0000000000000000000000000000000000000000000000000000\"; \
             outputHashAlgo = \"sha256\";",
            "attribute url",
        ),
        (
            "builder = \"builtin:fetchurl\"; outputHash = \"0000000000000000000000000000000000000000000000000000\"; \
             outputHashAlgo = \"sha256\"; url = \"file:///etc/passwd\";",
            "expected an address that begins with https:// or http://",
        ),
    ] {
        let expression = format!("derivation {{ name = \"x\"; system = \"x86_64-linux\"; {attributes} }}");
        let path = lab.first("nix-instantiate", ["--expr", &expression]).succeeded().stdout;
        build(&kiln, &lab.physical(path.trim_end())).exits(2).says(&[said]);
    }
}
