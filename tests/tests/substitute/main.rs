//! `kiln build` and `kiln check` take from binary caches what others built, and fall back to building it; a real Nix made the
//! caches.

mod faults;
mod taken;

use std::fs;
use std::path::{Path, PathBuf};

use kiln_model::format::narinfo::{Compression, NarInfo};
use kiln_tests::derivation::{BUILDER, with_builder};
use kiln_tests::lab::Lab;
use kiln_tests::run::{Kiln, Ran};
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
