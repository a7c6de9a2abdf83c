//! `kiln build` and `kiln check` take from binary caches what others built, and fall back to building it; a real Nix made the
//! caches.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use kiln_model::format::narinfo::{Compression, NarInfo};
use kiln_model::format::realisation::Realisation;
use kiln_model::format::signature::SecretKey;
use kiln_tests::derivation::{BUILDER, with_builder};
use kiln_tests::ground::{self, Ground};
use kiln_tests::lab::Lab;
use kiln_tests::run::{Kiln, Ran};
use kiln_tests::web::{Answer, Files, Server, announcing};
use serde_json::Value;

/// `last` keeps a reference to `middle`, `middle` none to `first`; `float` floats, and `upon` is built upon it.
const EXPRESSION: &str = r#"
let
  bb = builtins.storePath @BUILDER@;
  make = name: more: script: derivation ({
    inherit name; system = "x86_64-linux"; builder = "${bb}/bin/busybox"; args = [ "sh" "-euc" script ]; PATH = "${bb}/bin";
  } // more);
  floats = { __contentAddressed = true; outputHashMode = "recursive"; outputHashAlgo = "sha256"; };
in rec {
  first = make "first" { } "echo first > $out";
  middle = make "middle" { outputs = [ "out" "dev" ]; } "busybox cat ${first} > $out; echo dev > $dev";
  last = make "last" { text = "${./text}"; } "busybox mkdir $out; echo ${middle} > $out/names; busybox cat ${middle} > $out/text";
  noted = make "noted" { note = builtins.toFile "note" "see ${bb}\n"; } "busybox cat $note > $out";
  always = make "always" { allowSubstitutes = ""; } "busybox cat ${first} > $out";
  float = make "float" floats "echo $out > $out; echo floats >> $out";
  upon = make "upon" floats "echo ${float} > $out";
  deferred = make "deferred" { } "busybox cat ${upon} > $out";
}
"#;

/// A Nix that has built some of the expression, and a kiln with the builder of all of it.
struct On {
    lab: Lab,
    kiln: Kiln,
}

impl On {
    /// `None`, and the test is counted as skipped, where there is no Nix or another busybox.
    fn new(test: &str) -> Option<Self> {
        let lab = Lab::open(test)?;
        let kiln = with_builder(test)?;
        let ground = Self { lab, kiln: kiln.online() };
        let bb = ground.lab.path().join("bb");
        fs::create_dir_all(bb.join("bin")).unwrap();
        fs::copy("/bin/busybox", bb.join("bin/busybox")).unwrap();
        std::os::unix::fs::symlink("busybox", bb.join("bin/sh")).unwrap();
        let added = ground.lab.first("nix-store", ["--add".as_ref(), bb.as_os_str()]).succeeded();
        assert_eq!(added.stdout.trim_end(), BUILDER);
        fs::write(ground.lab.path().join("all.nix"), EXPRESSION.replace("@BUILDER@", BUILDER)).unwrap();
        fs::write(ground.lab.path().join("text"), "a source\n").unwrap();
        Some(ground)
    }

    /// The derivation's path.
    fn derivation(&self, name: &str) -> String {
        self.lab.first("nix-instantiate", ["all.nix", "-A", name]).succeeded().stdout.trim_end().to_owned()
    }

    /// The derivation's file; those it needs lie beside it.
    fn file(&self, name: &str) -> PathBuf {
        self.lab.physical(&self.derivation(name))
    }

    /// What Nix builds of it: the output's path.
    fn built(&self, name: &str) -> String {
        let key = self.lab.secret("ours").display().to_string();
        let arguments = ["all.nix", "-A", name, "--no-out-link", "--option", "secret-key-files", &key];
        self.lab.first("nix-build", arguments).succeeded().stdout.lines().next().unwrap().to_owned()
    }

    fn nar_hash(&self, path: &str) -> String {
        let info = self.lab.first("nix", ["path-info", "--json", path]).succeeded().json();
        kiln_model::digest::NarHash::new(sri(info[0]["narHash"].as_str().unwrap())).to_string()
    }

    /// A cache of `what`, signed by the key `ours`.
    fn cache(&self, name: &str, what: &[&str]) -> PathBuf {
        let cache = self.lab.path().join(name);
        let key = self.lab.secret("ours");
        let to = format!("file://{}?compression=zstd&secret-key={}", cache.display(), key.display());
        self.lab.first("nix", ["copy", "--to", &to].into_iter().chain(what.iter().copied())).succeeded();
        cache
    }

    /// Builds `file` with this one cache.
    fn build(&self, kiln: &Kiln, cache: &str, file: &Path) -> Ran {
        let key = self.lab.public("ours");
        let words = ["build", "--json", "--substituters", cache, "--trusted-public-keys", &key];
        kiln.run(words.iter().map(std::ffi::OsStr::new).chain([file.as_os_str()]))
    }
}

/// `sha256:` and Nix's base 32, or SRI.
fn sri(text: &str) -> kiln_model::digest::Digest {
    match text.strip_prefix("sha256-") {
        Some(_) => text.parse::<kiln_model::digest::NarHash>().unwrap().digest().to_owned(),
        None => {
            let line =
                format!("StorePath: {BUILDER}\nURL: x\nCompression: none\nNarHash: {text}\nNarSize: 1\nReferences: \n");
            NarInfo::parse(line.as_bytes()).unwrap().nar_hash.digest().to_owned()
        }
    }
}

fn outcome(ran: &Ran) -> Value {
    ran.json()["builds"][0].clone()
}

/// With no mirrors.
fn bare(kiln: Kiln) -> Kiln {
    kiln.configure("[fetch]\nclients = []\nattempts = 1\n");
    kiln
}

/// The same, and soon tired of waiting.
fn impatient(kiln: Kiln) -> Kiln {
    kiln.configure("[fetch]\nclients = []\nattempts = 1\nstall-seconds = 2\n");
    kiln
}

fn paths(kiln: &Kiln) -> Vec<String> {
    kiln.run(["store", "ls"]).succeeded().stdout.lines().map(str::to_owned).collect()
}

fn narinfo(path: &str) -> String {
    format!("/{}.narinfo", &path["/nix/store/".len()..][..32])
}

#[test]
fn what_a_cache_has_is_not_built_and_what_only_that_needs_is_not_even_asked_for() {
    let Some(on) = On::new("what_a_cache_has_is_not_built_and_what_only_that_needs_is_not_even_asked_for") else {
        return;
    };
    let last = on.built("last");
    let middle = on.built("middle");
    let server = Server::of(&on.cache("cache", &[&last]));
    // Without the builder and without the source: nothing could be built here.
    let kiln = bare(Kiln::fresh(Ground::Disk).online());
    let ran = on.build(&kiln, server.address(), &on.file("last")).succeeded();
    let outcome = outcome(&ran);
    assert_eq!((&outcome["status"], &outcome["cached"]), (&"built".into(), &true.into()));
    assert_eq!(outcome["outputs"]["out"]["path"], *last);
    assert_eq!(outcome["outputs"]["out"]["nar_hash"], on.nar_hash(&last));
    let from = &outcome["substituted"][&last];
    assert_eq!((&from["from"], &from["signed_by"]), (&server.address().into(), &"ours-1".into()));
    let asked = server.asked();
    let narinfos: Vec<&String> = asked.iter().filter(|target| target.ends_with(".narinfo")).collect();
    assert_eq!(narinfos, [&narinfo(&last), &narinfo(&middle)], "{asked:?}");
    assert_eq!(asked.len(), 5, "nix-cache-info, and a narinfo and an archive for each of two paths: {asked:?}");
    assert_eq!(paths(&kiln).len(), 2);
    kiln.verified();
    // And again: from the store, and nobody is asked.
    assert_eq!(on.build(&kiln, server.address(), &on.file("last")).succeeded().json()["builds"][0]["cached"], true);
    assert_eq!(server.asked(), Vec::<String>::new());
}

#[test]
fn a_text_comes_out_of_a_cache_because_its_bytes_are_those_of_its_path() {
    let test = "a_text_comes_out_of_a_cache_because_its_bytes_are_those_of_its_path";
    let Some(on) = On::new(test) else { return };
    let noted = on.built("noted");
    let note = on.lab.first("nix-store", ["-q", "--references", &on.derivation("noted")]).succeeded().stdout;
    let note = note.lines().find(|path| path.ends_with("-note")).unwrap().to_owned();
    let cache = on.cache("cache", &[&note]);
    edit(&cache, &note, |info| info.signatures.clear());
    let address = cache.display().to_string();
    let built = outcome(&on.build(&on.kiln, &address, &on.file("noted")).succeeded());
    assert_eq!(built["outputs"]["out"]["path"], *noted);
    assert_eq!(built["outputs"]["out"]["nar_hash"], on.nar_hash(&noted));
    assert_eq!(built["substituted"][&note], serde_json::json!({ "from": address }), "nobody signed it");
    on.kiln.verified();
    // Other bytes, told honestly but for the address.
    let other = on.lab.path().join("other");
    fs::write(&other, "see something else\n").unwrap();
    let nar = on.lab.command("nix-store", ["--dump".as_ref(), other.as_os_str()]).output().unwrap().stdout;
    edit(&cache, &note, |info| {
        replace(&cache, info, &nar);
        info.nar_hash = kiln_model::digest::NarHash::new(kiln_model::digest::Digest::of(&nar));
        info.nar_size = nar.len() as u64;
    });
    let kiln = with_builder(test).unwrap();
    on.build(&kiln, &address, &on.file("noted")).exits(6).says(&["CA of", "text:sha256:"]);
    assert_eq!(paths(&kiln), [BUILDER]);
}

#[test]
fn what_no_cache_has_is_built_upon_what_one_has() {
    let Some(on) = On::new("what_no_cache_has_is_built_upon_what_one_has") else { return };
    let (last, middle, first) = (on.built("last"), on.built("middle"), on.built("first"));
    let source = on.lab.first("nix-store", ["-q", "--references", &on.derivation("last")]).succeeded().stdout;
    let source = source.lines().find(|path| path.ends_with("-text")).unwrap().to_owned();
    let cache = on.cache("cache", &[&middle, &source]);
    let outcome = outcome(&on.build(&on.kiln, &cache.display().to_string(), &on.file("last")).succeeded());
    assert_eq!((&outcome["status"], &outcome["cached"]), (&"built".into(), &false.into()));
    assert_eq!(outcome["outputs"]["out"]["nar_hash"], on.nar_hash(&last));
    let substituted: Vec<&String> = outcome["substituted"].as_object().unwrap().keys().collect();
    let mut expected = [&middle, &source];
    expected.sort();
    assert_eq!(substituted, expected);
    assert!(!paths(&on.kiln).contains(&first), "it was of no use");
    on.kiln.verified();
}

#[test]
fn a_check_substitutes_what_its_target_needs_and_never_the_target() {
    let Some(on) = On::new("a_check_substitutes_what_its_target_needs_and_never_the_target") else { return };
    let (last, middle) = (on.built("last"), on.built("middle"));
    let source = on.lab.first("nix-store", ["-q", "--references", &on.derivation("last")]).succeeded().stdout;
    let source = source.lines().find(|path| path.ends_with("-text")).unwrap().to_owned();
    let server = Server::of(&on.cache("cache", &[&last, &source]));
    let (file, key) = (on.file("last"), on.lab.public("ours"));
    let words = ["check", "--json", "--substituters", server.address(), "--trusted-public-keys", &key];
    let report = on.kiln.run(words.iter().map(std::ffi::OsStr::new).chain([file.as_os_str()])).succeeded().json();
    assert_eq!(report["verdict"], "reproduced");
    for outcome in report["outcomes"].as_array().unwrap() {
        assert_eq!(outcome["cached"], false);
        assert_eq!(outcome["substituted"][&middle]["signed_by"], "ours-1");
        assert_eq!(outcome["outputs"]["out"]["nar_hash"], on.nar_hash(&last));
    }
    let asked = server.asked();
    assert!(asked.contains(&narinfo(&middle)) && !asked.contains(&narinfo(&last)), "{asked:?}");
}

#[test]
fn a_derivation_is_built_if_it_or_the_caller_says_so() {
    let Some(on) = On::new("a_derivation_is_built_if_it_or_the_caller_says_so") else { return };
    let cache = on.cache("cache", &[&on.built("always"), &on.built("first")]).display().to_string();
    let always = outcome(&on.build(&on.kiln, &cache, &on.file("always")).succeeded());
    assert_eq!(always["cached"], false, "its author says so");
    let substituted: Vec<&String> = always["substituted"].as_object().unwrap().keys().collect();
    assert_eq!(substituted, [&on.built("first")], "what it reads is another matter");
    let kiln = with_builder("a_derivation_is_built_if_it_or_the_caller_says_so").unwrap();
    kiln.configure(&format!(
        "[caches]\nsubstituters = [{cache:?}]\ntrusted-public-keys = [{:?}]\n",
        on.lab.public("ours")
    ));
    let file = on.file("first");
    let build = |words: &[&str]| {
        let words = ["build", "--json"].iter().chain(words).map(std::ffi::OsStr::new);
        outcome(&kiln.run(words.chain([file.as_os_str()])).succeeded())
    };
    assert_eq!(build(&["--no-substitute"])["cached"], false);
    // As configured.
    let kiln = Kiln::fresh(Ground::Disk);
    kiln.configure(&format!(
        "[caches]\nsubstituters = [{cache:?}]\ntrusted-public-keys = [{:?}]\n",
        on.lab.public("ours")
    ));
    let outcome = outcome(&kiln.run(["build".as_ref(), "--json".as_ref(), file.as_os_str()]).succeeded());
    assert_eq!(outcome["cached"], true);
    assert_eq!(outcome["substituted"].as_object().unwrap().values().next().unwrap()["from"], *cache);
}

#[test]
fn derivations_themselves_come_out_of_caches() {
    let Some(on) = On::new("derivations_themselves_come_out_of_caches") else { return };
    let (last, derivation) = (on.built("last"), on.derivation("last"));
    let cache = on.cache("cache", &[&last]);
    on.cache("cache", &["--derivation", &derivation]);
    let address = cache.display().to_string();
    let kiln = Kiln::fresh(Ground::Disk);
    let built = outcome(&on.build(&kiln, &address, Path::new(&derivation)).succeeded());
    assert_eq!((&built["outputs"]["out"]["path"], &built["cached"]), (&last.as_str().into(), &true.into()));
    let shown = kiln.run(["derivation", "show", &derivation]).succeeded().json();
    assert!(shown[&derivation].is_object());
    kiln.verified();

    // Its closure has the builder and the sources: so it can be built, too.
    fs::remove_file(cache.join(&narinfo(&last)[1..])).unwrap();
    let kiln = Kiln::fresh(Ground::Tmpfs);
    let built = outcome(&on.build(&kiln, &address, Path::new(&derivation)).succeeded());
    assert_eq!((&built["outputs"]["out"]["path"], &built["cached"]), (&last.as_str().into(), &false.into()));
    assert_eq!(built["outputs"]["out"]["nar_hash"], on.nar_hash(&last));
    let by = &built["substituted"][BUILDER];
    assert!(by["from"].is_string(), "{built:#}");

    let other = on.lab.path().join("other");
    let text = fs::read_to_string(on.lab.physical(&derivation)).unwrap();
    fs::write(&other, text.replacen("busybox", "busyboy", 1)).unwrap();
    let nar = on.lab.command("nix-store", ["--dump".as_ref(), other.as_os_str()]).output().unwrap().stdout;
    edit(&cache, &derivation, |info| replace(&cache, info, &nar));
    let kiln = Kiln::fresh(Ground::Disk);
    on.build(&kiln, &address, Path::new(&derivation)).exits(6).says(&["NarHash"]);
    assert_eq!(paths(&kiln), Vec::<String>::new());
    let gone = "/nix/store/00000000000000000000000000000000-gone.drv";
    on.build(&kiln, &address, Path::new(gone)).exits(2).says(&["gone.drv", "no cache has it"]);
}

fn edit(cache: &Path, path: &str, change: impl FnOnce(&mut NarInfo)) {
    let file = cache.join(&narinfo(path)[1..]);
    let mut info = NarInfo::parse(&fs::read(&file).unwrap()).unwrap();
    change(&mut info);
    fs::write(file, info.print()).unwrap();
}

/// Replaces the archive by `nar`, with digest and size of the file made to fit.
fn replace(cache: &Path, info: &mut NarInfo, nar: &[u8]) {
    fs::write(cache.join("nar/other.nar"), nar).unwrap();
    info.url = "nar/other.nar".into();
    info.compression = Compression::None;
    info.file_hash = Some(kiln_model::digest::Digest::of(nar));
    info.file_size = Some(nar.len() as u64);
}

/// What a server does wrong: with a target, and what an honest one would answer.
type Bend = fn(&str, Answer) -> Answer;

fn bytes(answer: Answer) -> Vec<u8> {
    match answer {
        Answer::File(bytes) => bytes,
        other => panic!("{other:?} is no file"),
    }
}

#[test]
fn a_cache_that_fails_is_told_of_and_what_it_may_have_had_is_built() {
    let Some(on) = On::new("a_cache_that_fails_is_told_of_and_what_it_may_have_had_is_built") else { return };
    let last = on.built("first");
    let files = Files::of(&on.cache("cache", &[&last]));
    let cases: [(&str, Bend, &str); 11] = [
        ("is none", |_, _| Answer::Status(404), "not a binary cache"),
        ("never answers", |_, _| Answer::Stall(Vec::new()), "stalled"),
        ("fails", |_, _| Answer::Status(500), "answered 500"),
        ("redirects for ever", |target, _| Answer::Redirect(target.into()), "redirected more than"),
        (
            "trickles",
            |target, honest| match target.ends_with(".narinfo") {
                true => Answer::Trickle(b"HTTP/1.1 200 OK\r\n\r\nStorePath: ".to_vec()),
                false => honest,
            },
            "stalled after",
        ),
        (
            "trickles in the archive",
            |target, honest| match target.starts_with("/nar/") {
                true => Answer::Trickle(b"HTTP/1.1 200 OK\r\n\r\n".to_vec()),
                false => honest,
            },
            "stalled after",
        ),
        (
            "stalls in the archive",
            |target, honest| match target.starts_with("/nar/") {
                true => {
                    let bytes = bytes(honest);
                    Answer::Stall(announcing(bytes.len(), &bytes[..bytes.len() / 2]))
                }
                false => honest,
            },
            "stalled after",
        ),
        (
            "hangs up in the archive",
            |target, honest| match target.starts_with("/nar/") {
                true => {
                    let bytes = bytes(honest);
                    Answer::Raw(announcing(bytes.len(), &bytes[..bytes.len() / 2]))
                }
                false => honest,
            },
            "was not fetched",
        ),
        (
            "redirects an archive for ever",
            |target, honest| if target.starts_with("/nar/") { Answer::Redirect(target.into()) } else { honest },
            "redirected more than",
        ),
        (
            "lost the archive",
            |target, honest| if target.starts_with("/nar/") { Answer::Status(404) } else { honest },
            "and not the archive",
        ),
        (
            "speaks no http",
            |target, honest| if target.ends_with(".narinfo") { Answer::Raw(b"hello\r\n\r\n".to_vec()) } else { honest },
            "not asked any more",
        ),
    ];
    let file = on.file("first");
    for (name, bend, said) in cases {
        let files = files.clone();
        let server = Server::start(move |target| bend(target, files.answer(target)));
        let kiln = impatient(with_builder(name).unwrap().online());
        let ran = on.build(&kiln, server.address(), &file);
        assert_eq!(ran.code(), Some(0), "{name}:\n{}", ran.stderr);
        assert!(ran.stderr.contains(said), "{name} does not say {said:?}:\n{}", ran.stderr);
        assert_eq!(outcome(&ran)["cached"], false, "{name}");
        assert_eq!(outcome(&ran)["outputs"]["out"]["path"], *last, "{name}");
        assert!(ran.took.as_secs() < 60, "{name}");
        kiln.verified();
    }
    let kiln = with_builder("gone").unwrap().online();
    on.build(&impatient(kiln), "http://127.0.0.1:9", &file).succeeded().says(&["not asked any more", "127.0.0.1:9"]);
    let kiln = with_builder("gone").unwrap();
    on.build(&kiln, "/nonexistent/cache", &file).succeeded().says(&["/nonexistent/cache has no nix-cache-info"]);
    let kiln = with_builder("offline").unwrap();
    on.build(&kiln, "http://127.0.0.1:9", &file).succeeded().says(&["offline"]);
    on.build(&on.kiln, "no such:thing", &file).exits(2).says(&["is not a cache"]);
}

#[test]
fn a_cache_that_lies_ends_the_build_and_nothing_of_it_enters_the_store() {
    let Some(on) = On::new("a_cache_that_lies_ends_the_build_and_nothing_of_it_enters_the_store") else { return };
    let first = on.built("first");
    let files = Files::of(&on.cache("cache", &[&first]));
    let cases: [(&str, Bend, i32, &str); 11] = [
        ("all is html", |_, _| Answer::File(b"<html>\n<p>Welcome\n</html>\n".to_vec()), 2, "not a nix-cache-info"),
        (
            "another store",
            |target, honest| match target {
                "/nix-cache-info" => Answer::File(b"StoreDir: /gnu/store\n".to_vec()),
                _ => honest,
            },
            2,
            "/gnu/store",
        ),
        (
            "narinfos are html",
            |target, honest| match target.ends_with(".narinfo") {
                true => Answer::File(b"<html>\n<p>Welcome: yes\n</html>\n".to_vec()),
                false => honest,
            },
            6,
            "the narinfo of",
        ),
        (
            "an endless narinfo",
            |target, honest| match target.ends_with(".narinfo") {
                true => Answer::Endless(b"HTTP/1.1 200 OK\r\n\r\n".to_vec()),
                false => honest,
            },
            6,
            "larger than",
        ),
        (
            "an endless word on itself",
            |target, honest| match target {
                "/nix-cache-info" => Answer::Endless(b"HTTP/1.1 200 OK\r\n\r\n".to_vec()),
                _ => honest,
            },
            6,
            "larger than",
        ),
        (
            "archives are html",
            |target, honest| match target.starts_with("/nar/") {
                true => Answer::File(b"<html>\n<p>Welcome\n</html>\n".to_vec()),
                false => honest,
            },
            6,
            "FileSize",
        ),
        (
            "an archive with a flipped byte",
            |target, honest| match target.starts_with("/nar/") {
                true => {
                    let mut bytes = bytes(honest);
                    let last = bytes.len() - 1;
                    bytes[last] ^= 1;
                    Answer::File(bytes)
                }
                false => honest,
            },
            6,
            "FileHash",
        ),
        (
            "an archive that announces too much",
            |target, honest| match target.starts_with("/nar/") {
                true => Answer::Raw(announcing(1 << 40, &bytes(honest))),
                false => honest,
            },
            6,
            "FileSize",
        ),
        (
            "an archive that does not end",
            |target, honest| match target.starts_with("/nar/") {
                true => Answer::Endless([&b"HTTP/1.1 200 OK\r\n\r\n"[..], &bytes(honest)].concat()),
                false => honest,
            },
            6,
            "FileSize",
        ),
        (
            "a narinfo with a flipped byte in its signature",
            |target, honest| match target.ends_with(".narinfo") {
                true => {
                    let mut bytes = bytes(honest);
                    let at = bytes.windows(4).position(|window| window == b"Sig:").unwrap() + 20;
                    bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
                    Answer::File(bytes)
                }
                false => honest,
            },
            6,
            "signature",
        ),
        (
            "a narinfo with another size",
            |target, honest| match target.ends_with(".narinfo") {
                true => {
                    let text = String::from_utf8(bytes(honest)).unwrap();
                    Answer::File(text.replace("NarSize: ", "NarSize: 1").into_bytes())
                }
                false => honest,
            },
            6,
            "signature",
        ),
    ];
    let file = on.file("first");
    for (name, bend, code, said) in cases {
        let files = files.clone();
        let server = Server::start(move |target| bend(target, files.answer(target)));
        let kiln = bare(Kiln::fresh(Ground::Disk).online());
        let ran = on.build(&kiln, server.address(), &file);
        assert_eq!(ran.code(), Some(code), "{name}:\n{}", ran.stderr);
        assert!(ran.stderr.contains(said), "{name} does not say {said:?}:\n{}", ran.stderr);
        assert!(ran.took.as_secs() < 60, "{name}");
        assert_eq!(paths(&kiln), Vec::<String>::new(), "{name}");
        assert_eq!(fs::read_dir(kiln.store().join("nix/store")).unwrap().count(), 0, "{name}");
        assert_eq!(fs::read_dir(kiln.store().join("tmp")).unwrap().count(), 0, "{name}");
        kiln.verified();
    }
    // Honest, and signed by somebody else.
    let server = Server::start(move |target| files.answer(target));
    let kiln = bare(Kiln::fresh(Ground::Disk).online());
    let key = on.lab.public("other");
    let words = ["build", "--substituters", server.address(), "--trusted-public-keys", &key];
    kiln.run(words.iter().map(std::ffi::OsStr::new).chain([file.as_os_str()]))
        .exits(6)
        .says(&["not trusted", "no trusted key signed it, only ours-1"]);
    assert_eq!(paths(&kiln), Vec::<String>::new());
}

#[test]
fn what_one_cache_lacks_or_cannot_deliver_the_next_one_may_have() {
    let Some(on) = On::new("what_one_cache_lacks_or_cannot_deliver_the_next_one_may_have") else { return };
    let last = on.built("last");
    let whole = on.cache("whole", &[&last]);
    let broken = on.lab.path().join("broken");
    fs::create_dir_all(&broken).unwrap();
    for entry in fs::read_dir(&whole).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file()) {
        fs::copy(&entry, broken.join(entry.file_name().unwrap())).unwrap();
    }
    let empty = on.lab.path().join("empty");
    fs::create_dir_all(&empty).unwrap();
    fs::write(empty.join("nix-cache-info"), "StoreDir: /nix/store\nPriority: 1\n").unwrap();
    let caches = format!("{} {} {}", empty.display(), broken.display(), whole.display());
    let kiln = Kiln::fresh(Ground::Disk);
    let ran = on.build(&kiln, &caches, &on.file("last")).succeeded().says(&["was not fetched", "and not the archive"]);
    let outcome = outcome(&ran);
    assert_eq!(outcome["substituted"][&last]["from"], whole.display().to_string());
    kiln.verified();
    // A closure that nobody has as a whole is of no use, and nothing of it is fetched.
    fs::remove_file(whole.join(&narinfo(&on.built("middle"))[1..])).unwrap();
    let kiln = with_builder("what_one_cache_lacks_or_cannot_deliver_the_next_one_may_have").unwrap();
    kiln.run(["store".as_ref(), "add".as_ref(), on.lab.path().join("text").as_os_str()]).succeeded();
    let ran = on.build(&kiln, &whole.display().to_string(), &on.file("last")).succeeded();
    assert!(!ran.stderr.contains("fetching"), "{}", ran.stderr);
    assert_eq!(ran.json()["builds"][0]["cached"], false);
}

#[test]
fn what_caches_answered_is_remembered_for_a_while_absence_too() {
    let Some(on) = On::new("what_caches_answered_is_remembered_for_a_while_absence_too") else { return };
    let (middle, dev) = (on.built("middle"), on.built("middle.dev"));
    let empty = on.lab.path().join("empty");
    fs::create_dir_all(&empty).unwrap();
    fs::write(empty.join("nix-cache-info"), "StoreDir: /nix/store\nPriority: 1\n").unwrap();
    let server = Server::of(&empty);
    let file = on.file("middle");
    let settings = |negative: u32| {
        format!("[fetch]\nclients = []\nattempts = 1\n[caches]\nnarinfo-cache-negative-ttl = {negative}\n")
    };
    on.kiln.configure(&settings(3600));
    let words = |more: &[&str]| {
        let key = on.lab.public("ours");
        let words = ["store", "substitute", "--substituters", server.address(), "--trusted-public-keys", &key];
        on.kiln.run(words.iter().chain(more).copied().chain([middle.as_str()])).exits(7).says(&["in none of 1 caches"]);
        server.asked()
    };
    assert_eq!(words(&[]), ["/nix-cache-info".to_owned(), narinfo(&middle)]);
    assert_eq!(words(&[]), Vec::<String>::new());
    assert_eq!(words(&["--refresh"]), ["/nix-cache-info".to_owned(), narinfo(&middle)]);
    assert_eq!(words(&[]), Vec::<String>::new());
    on.kiln.configure(&settings(0));
    assert_eq!(words(&[]), [narinfo(&middle)], "what it said of itself still holds");
    on.kiln.configure(&settings(3600));
    assert_eq!(words(&[]), [narinfo(&middle)], "what does not hold is not kept");
    // A build asks for what was not asked for yet, and only for that.
    on.build(&on.kiln, server.address(), &file).succeeded();
    let first = on.built("first");
    let mut asked = server.asked();
    asked.sort();
    let mut expected = [narinfo(&dev), narinfo(&first)];
    expected.sort();
    assert_eq!(asked, expected);

    // What is remembered and no longer so does not stand in the way: here all was published again under other names.
    let cache = on.cache("cache", &[&middle]);
    let files = Arc::new(Mutex::new(Files::of(&cache)));
    let shared = Arc::clone(&files);
    let server = Server::start(move |target| shared.lock().unwrap().answer(target));
    let kiln = bare(Kiln::fresh(Ground::Disk).online());
    let substitute = || {
        let key = on.lab.public("ours");
        let words = ["store", "substitute", "--substituters", server.address(), "--trusted-public-keys", &key];
        kiln.run(words.into_iter().chain([middle.as_str()]))
    };
    fs::rename(cache.join("nar"), cache.join("moved")).unwrap();
    *files.lock().unwrap() = Files::of(&cache);
    substitute().exits(7).says(&["and not the archive"]);
    fs::create_dir(cache.join("nar")).unwrap();
    let nar = on.lab.command("nix-store", ["--dump".into(), on.lab.physical(&middle)]).output().unwrap().stdout;
    edit(&cache, &middle, |info| replace(&cache, info, &nar));
    *files.lock().unwrap() = Files::of(&cache);
    server.asked();
    substitute().succeeded();
    assert_eq!(server.asked().len(), 3, "an archive that is gone, its narinfo again, and the archive that this names");
    kiln.verified();
}

#[test]
fn a_floating_output_is_taken_from_a_cache_if_a_trusted_key_says_what_it_became() {
    let test = "a_floating_output_is_taken_from_a_cache_if_a_trusted_key_says_what_it_became";
    let Some(on) = On::new(test) else { return };
    let (float, upon) = (on.built("float"), on.built("upon"));
    let deferred = on.built("deferred");
    let cache = on.cache("cache", &[&on.derivation("upon")]);
    on.cache("cache", &[&deferred]);
    let realisations: Vec<PathBuf> =
        fs::read_dir(cache.join("realisations")).unwrap().map(|entry| entry.unwrap().path()).collect();
    let server = Server::of(&cache);
    let kiln = bare(Kiln::fresh(Ground::Disk).online());
    let built = outcome(&on.build(&kiln, server.address(), &on.file("upon")).succeeded());
    assert_eq!((&built["outputs"]["out"]["path"], &built["cached"]), (&upon.as_str().into(), &true.into()));
    assert_eq!(built["outputs"]["out"]["nar_hash"], on.nar_hash(&upon));
    assert!(paths(&kiln).contains(&float), "what it names came along");
    let asked = server.asked();
    assert_eq!(asked.iter().filter(|target| target.starts_with("/realisations/")).count(), 1, "{asked:?}");
    let before = paths(&kiln);
    assert_eq!(outcome(&on.build(&kiln, server.address(), &on.file("upon")).succeeded())["cached"], true);
    assert_eq!(paths(&kiln), before);
    kiln.verified();

    // What is built upon it, too: once resolved, its path is known and can be asked for.
    let kiln = with_builder(test).unwrap();
    let built = outcome(&on.build(&kiln, &cache.display().to_string(), &on.file("deferred")).succeeded());
    assert_eq!((&built["outputs"]["out"]["path"], &built["cached"]), (&deferred.as_str().into(), &true.into()));
    kiln.verified();

    let change = |change: &dyn Fn(&mut Realisation)| {
        for file in &realisations {
            let mut realisation = Realisation::parse(&fs::read(file).unwrap()).unwrap();
            change(&mut realisation);
            fs::write(file, realisation.print()).unwrap();
        }
    };
    let originals: Vec<Vec<u8>> = realisations.iter().map(|file| fs::read(file).unwrap()).collect();
    // Another path, which is in the cache and whole: only the signature tells.
    change(&|realisation| realisation.path = deferred.parse().unwrap());
    let fresh = Kiln::fresh(Ground::Disk);
    let address = cache.display().to_string();
    on.build(&fresh, &address, &on.file("upon")).exits(6).says(&["realisation", "signature by ours-1"]);
    assert_eq!(paths(&fresh), Vec::<String>::new());
    // Signed by another key of the same name, and by one that nobody trusts.
    let other: SecretKey = fs::read_to_string(on.lab.secret("other")).unwrap().trim_end().parse().unwrap();
    change(&|realisation| {
        realisation.signatures = [other.sign(realisation.fingerprint().as_bytes()).to_string()].into();
    });
    on.build(&fresh, &address, &on.file("upon")).exits(6).says(&["realisation", "no trusted key signed it"]);
    // Nobody signed it: as good as none.
    change(&|realisation| realisation.signatures.clear());
    let kiln = with_builder(test).unwrap();
    let ran = on.build(&kiln, &address, &on.file("upon")).succeeded().says(&["has no signature and is not taken"]);
    assert_eq!((&outcome(&ran)["cached"], &outcome(&ran)["outputs"]["out"]["path"]), (&false.into(), &upon.into()));
    // Of another output, and none at all.
    for (file, original) in realisations.iter().zip(originals.iter().rev()) {
        fs::write(file, original).unwrap();
    }
    if realisations.len() > 1 {
        on.build(&fresh, &address, &on.file("upon")).exits(6).says(&["is one of sha256:"]);
    }
    for file in &realisations {
        fs::write(file, "<html>").unwrap();
    }
    on.build(&fresh, &address, &on.file("upon")).exits(6).says(&["not a realisation"]);
    assert_eq!(paths(&fresh), Vec::<String>::new());
}

#[test]
fn many_derivations_come_out_of_a_cache_at_once() {
    let test = "many_derivations_come_out_of_a_cache_at_once";
    let Some(kiln) = with_builder(test) else { return };
    let lab = ground::directory(Ground::Disk);
    let made = kiln_tests::derivation::Made::default();
    let kiln = kiln.online();
    let secret = lab.path().join("key");
    let public = kiln
        .run(["key".as_ref(), "generate".as_ref(), "many-1".as_ref(), "--output".as_ref(), secret.as_os_str()])
        .succeeded()
        .stdout;
    let fans: Vec<_> =
        (0..60).map(|number| made.closed(&format!("fan-{number}"), &[], &format!("echo {number} > $out"))).collect();
    let needs: Vec<(&kiln_model::derivation::Closed, &[&str])> = fans.iter().map(|fan| (fan, &["out"][..])).collect();
    let names: Vec<String> =
        fans.iter().map(|fan| fan.derivation.outputs.values().next().unwrap().path().unwrap().to_string()).collect();
    let all = made.closed("all", &needs, &format!("echo {} > $out", names.join(" ")));
    let built = kiln.build_one(&made.file(&all.path));
    let out = built["outputs"]["out"]["path"].as_str().unwrap();
    let cache = lab.path().join("cache");
    let words = ["publish", "--nix-cache", "--to", cache.to_str().unwrap(), "--key", secret.to_str().unwrap(), out];
    kiln.run(words).succeeded();
    let server = Server::of(&cache);
    let fresh = bare(Kiln::fresh(Ground::Disk).online());
    let file = made.file(&all.path);
    let words = ["build", "--json", "--substituters", server.address(), "--trusted-public-keys", public.trim_end()];
    let ran = fresh.run(words.iter().map(std::ffi::OsStr::new).chain([file.as_os_str()])).succeeded();
    assert_eq!(outcome(&ran)["substituted"].as_object().unwrap().len(), 1);
    assert_eq!(paths(&fresh).len(), 61);
    assert_eq!(server.asked().len(), 1 + 2 * 61);
    fresh.verified();
}

#[test]
fn a_recipe_that_others_built_needs_neither_its_environment_nor_its_inputs() {
    let test = "a_recipe_that_others_built_needs_neither_its_environment_nor_its_inputs";
    if !ground::has_files(test) {
        return;
    }
    let made = kiln_tests::recipe::Made::new(r#"mkdir -p "$out"; echo built >"$out/file""#);
    let kiln = Kiln::warm();
    let built = kiln.build_one(made.path());
    let lab = ground::directory(Ground::Disk);
    let (secret, cache) = (lab.path().join("key"), lab.path().join("cache"));
    let public = kiln
        .run(["key".as_ref(), "generate".as_ref(), "recipes-1".as_ref(), "--output".as_ref(), secret.as_os_str()])
        .succeeded()
        .stdout;
    let out = built["outputs"]["out"]["path"].as_str().unwrap();
    let words = ["publish", "--nix-cache", "--to", cache.to_str().unwrap(), "--key", secret.to_str().unwrap(), out];
    kiln.run(words).succeeded();
    // Nothing to make an environment from.
    let fresh = Kiln::fresh(Ground::Disk);
    fresh.configure("[fetch]\nclients = []\n");
    let recipe = made.path().as_os_str();
    let build =
        ["build", "--json", "--substituters", cache.to_str().unwrap(), "--trusted-public-keys", public.trim_end()];
    let taken = outcome(&fresh.run(build.iter().map(std::ffi::OsStr::new).chain([recipe])).succeeded());
    assert_eq!(taken["outputs"], built["outputs"]);
    assert_eq!(taken["substituted"][out]["signed_by"], "recipes-1");
    let again = outcome(&fresh.run(["build".as_ref(), "--json".as_ref(), recipe]).succeeded());
    assert_eq!((&again["cached"], &again["substituted"]), (&true.into(), &taken["substituted"]));
    let check = ["check", "--substituters", cache.to_str().unwrap(), "--trusted-public-keys", public.trim_end()];
    // To check it, it must be built.
    fresh.run(check.iter().map(std::ffi::OsStr::new).chain([recipe])).exits(7).says(&["on no configured mirror"]);
    fresh.verified();
}
