//! kiln and a real Nix: derivations, caches, archives and streams that each takes from the other.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use kiln_model::digest::{Digest, NarHash};
use kiln_model::format::narinfo::{Compression, NarInfo};
use kiln_model::format::signature::SecretKey;
use kiln_model::store_path::spelled;
use kiln_tests::ground::{self, Ground};
use kiln_tests::lab::Lab;
use kiln_tests::recipe::{self, Made};
use kiln_tests::run::Kiln;
use serde_json::Value;

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

fn nix_hash(sri: &str) -> String {
    spelled(&sri.parse::<NarHash>().unwrap().digest())
}

/// Publishes into a fresh cache in the lab.
fn publish(kiln: &Kiln, lab: &Lab, what: &Path) -> PathBuf {
    let cache = lab.path().join("cache");
    let key = lab.secret("ours");
    let arguments = ["publish".as_ref(), "--nix-cache".as_ref(), "--to".as_ref(), cache.as_os_str(), "--key".as_ref()];
    kiln.run(arguments.into_iter().chain([key.as_os_str(), what.as_os_str()])).succeeded();
    cache
}

fn listing(directory: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    let mut open = vec![directory.to_owned()];
    while let Some(path) = open.pop() {
        // Not made yet, if what should have made it was killed.
        for entry in fs::read_dir(&path).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() { open.push(path) } else { files.push((path.clone(), fs::read(path).unwrap())) }
        }
    }
    files.sort();
    files
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

/// A tree with everything that a NAR tells apart, added to Nix's first store; another that refers to it.
fn trees(lab: &Lab) -> (String, String) {
    let tree = lab.path().join("tree");
    fs::create_dir_all(tree.join("empty")).unwrap();
    fs::create_dir_all(tree.join("sub/deeper")).unwrap();
    for (name, size) in [("zero", 0), ("one", 1), ("eight", 8), ("large", 300_000)] {
        fs::write(tree.join(name), vec![b'x'; size]).unwrap();
    }
    fs::write(tree.join(std::ffi::OsStr::from_bytes(b"sub/n\xff\n")), "odd").unwrap();
    fs::write(tree.join("sub/run"), "#!/bin/sh\n").unwrap();
    fs::set_permissions(tree.join("sub/run"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    std::os::unix::fs::symlink("../nowhere", tree.join("sub/link")).unwrap();
    let path = lab.first("nix-store", ["--add".as_ref(), tree.as_os_str()]).succeeded().stdout.trim_end().to_owned();
    let expression = format!("builtins.toFile \"names-it\" \"see ${{builtins.storePath {path}}}\"");
    let naming = lab.first("nix-instantiate", ["--eval", "--json", "--read-write-mode", "--expr", &expression]);
    let naming: String = serde_json::from_str(naming.succeeded().stdout.trim_end()).unwrap();
    (path, naming)
}

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

/// A cache that Nix wrote and signed.
fn cache_of_nix(lab: &Lab, compression: &str, paths: &[&str]) -> PathBuf {
    let cache = lab.path().join(format!("cache-{compression}"));
    let to =
        format!("file://{}?compression={compression}&secret-key={}", cache.display(), lab.secret("ours").display());
    lab.first("nix", ["copy", "--to", &to].into_iter().chain(paths.iter().copied())).succeeded();
    cache
}

fn substitute(kiln: &Kiln, cache: &str, key: &str, path: &str) -> kiln_tests::run::Ran {
    kiln.run(["store", "substitute", "--substituters", cache, "--trusted-public-keys", key, path])
}

#[test]
fn kiln_substitutes_from_caches_that_nix_published() {
    let Some(lab) = Lab::open("kiln_substitutes_from_caches_that_nix_published") else { return };
    let (path, naming) = trees(&lab);
    let expected = lab.first("nix-store", ["-q", "--hash", &path]).succeeded().stdout;
    for compression in ["xz", "zstd", "none", "bzip2", "gzip"] {
        let cache = cache_of_nix(&lab, compression, &[&path, &naming]);
        let kiln = Kiln::fresh(Ground::Disk);
        let address = format!("file://{}", cache.display());
        let brought = substitute(&kiln, &address, &lab.public("ours"), &naming).succeeded();
        assert_eq!(brought.stdout, format!("{path}\n{naming}\n"), "{compression}");
        let info = kiln.run(["store", "info", "--json", &path]).succeeded().json();
        assert_eq!(nix_hash(info["path"]["nar_hash"].as_str().unwrap()), expected.trim_end());
        kiln.verified();
        assert_eq!(substitute(&kiln, &address, &lab.public("ours"), &naming).succeeded().stdout, "");
    }
}

#[test]
fn a_path_that_no_cache_has_is_missing_and_one_without_a_trusted_signature_is_refused() {
    let test = "a_path_that_no_cache_has_is_missing_and_one_without_a_trusted_signature_is_refused";
    let Some(lab) = Lab::open(test) else { return };
    let (path, _) = trees(&lab);
    let cache = cache_of_nix(&lab, "zstd", &[&path]);
    let address = cache.display().to_string();
    let kiln = Kiln::fresh(Ground::Disk);
    let nowhere = "/nix/store/00000000000000000000000000000000-nowhere";
    substitute(&kiln, &address, &lab.public("ours"), nowhere).exits(7).says(&["in none of 1 caches"]);
    substitute(&kiln, "/nonexistent", &lab.public("ours"), &path).exits(2).says(&["nix-cache-info"]);
    substitute(&kiln, &address, "nonsense", &path).exits(2).says(&["NAME:BASE64"]);
    edit(&cache, &path, |info| info.address = None);
    substitute(&kiln, &address, &lab.public("ours"), &path).succeeded();
    let other = Kiln::fresh(Ground::Disk);
    substitute(&other, &address, &lab.public("other"), &path).exits(6).says(&["not trusted", "ours-1"]);
    assert_eq!(other.run(["store", "ls"]).succeeded().stdout, "");
}

fn narinfo(cache: &Path, path: &str) -> PathBuf {
    cache.join(format!("{}.narinfo", &path["/nix/store/".len()..][..32]))
}

fn edit(cache: &Path, path: &str, change: impl FnOnce(&mut NarInfo)) {
    let file = narinfo(cache, path);
    let mut info = NarInfo::parse(&fs::read(&file).unwrap()).unwrap();
    change(&mut info);
    fs::write(file, info.print()).unwrap();
}

type Change<'a> = Box<dyn Fn(&Path) + 'a>;
type Edit<'a> = Box<dyn Fn(&Path, &mut NarInfo) + 'a>;

fn editing<'a>(path: &'a str, change: Edit<'a>) -> Change<'a> {
    Box::new(move |cache| edit(cache, path, |info| change(cache, info)))
}

/// Replaces the archive by `nar`, compressed, with digest and size of the file made to fit.
fn replace(cache: &Path, info: &mut NarInfo, nar: &[u8]) {
    fs::write(cache.join("nar/other.nar"), nar).unwrap();
    info.url = "nar/other.nar".into();
    info.compression = Compression::None;
    info.file_hash = Some(Digest::of(nar));
    info.file_size = Some(nar.len() as u64);
}

#[test]
fn whatever_is_altered_in_a_cache_is_refused_by_name_and_nothing_enters_the_store() {
    let test = "whatever_is_altered_in_a_cache_is_refused_by_name_and_nothing_enters_the_store";
    let Some(lab) = Lab::open(test) else { return };
    let (path, naming) = trees(&lab);
    let pristine = cache_of_nix(&lab, "zstd", &[&path, &naming]);
    // Signed paths are what matters here: without its address, a path is trusted for its signature alone.
    edit(&pristine, &path, |info| info.address = None);
    edit(&pristine, &naming, |info| info.address = None);
    let nar = lab.command("nix-store", ["--dump".into(), lab.physical(&path)]).output().unwrap().stdout;
    let altered = {
        let mut nar = nar.clone();
        let at = nar.windows(3).position(|window| window == b"odd").unwrap();
        nar[at] ^= 1;
        nar
    };
    let other: SecretKey = fs::read_to_string(lab.secret("other")).unwrap().trim_end().parse().unwrap();
    let namesake = other.reveal().replacen("other-1", "ours-1", 1).parse::<SecretKey>().unwrap();
    let cases: Vec<(&str, Change<'_>, &str)> = vec![
        (
            "NAR altered and compressed again",
            editing(&path, Box::new(|cache, info| replace(cache, info, &altered))),
            "NarHash",
        ),
        (
            "compressed bytes damaged",
            editing(
                &path,
                Box::new(|cache, info| {
                    let file = cache.join(&info.url);
                    let mut bytes = fs::read(&file).unwrap();
                    let middle = bytes.len() / 2;
                    bytes[middle] ^= 1;
                    fs::write(file, bytes).unwrap();
                }),
            ),
            "FileHash",
        ),
        (
            "NAR and NarHash altered together",
            editing(
                &path,
                Box::new(|cache, info| {
                    replace(cache, info, &altered);
                    info.nar_hash = NarHash::new(Digest::of(&altered));
                }),
            ),
            "signature",
        ),
        ("NarSize", editing(&path, Box::new(|_, info| info.nar_size += 8)), "signature"),
        ("no signature", editing(&path, Box::new(|_, info| info.signatures.clear())), "no signature"),
        (
            "signature flipped",
            editing(
                &path,
                Box::new(|_, info| {
                    let line = &mut info.signatures[0];
                    let other = if line.as_bytes()[10] == b'A' { "B" } else { "A" };
                    line.replace_range(10..11, other);
                }),
            ),
            "signature",
        ),
        (
            "same key name, other key",
            editing(
                &path,
                Box::new(|_, info| {
                    info.signatures.clear();
                    info.sign(&namesake);
                }),
            ),
            "signature by ours-1",
        ),
        (
            "a false CA",
            editing(
                &path,
                Box::new(|_, info| info.address = Some(format!("text:{}", spelled(&Digest::of("x"))).parse().unwrap())),
            ),
            "CA",
        ),
        ("wrong FileHash", editing(&path, Box::new(|_, info| info.file_hash = Some(Digest::of("x")))), "FileHash"),
        (
            "wrong FileSize",
            editing(&path, Box::new(|_, info| info.file_size = info.file_size.map(|size| size + 1))),
            "FileSize",
        ),
        (
            "bytes after the NAR",
            editing(&path, Box::new(|cache, info| replace(cache, info, &[&nar[..], b"more"].concat()))),
            "NarSize",
        ),
        (
            "a NAR cut short",
            editing(&path, Box::new(|cache, info| replace(cache, info, &nar[..nar.len() - 8]))),
            "the archive of",
        ),
        (
            "a decompression bomb",
            editing(
                &path,
                Box::new(|cache, info| {
                    let bomb = lab.path().join("bomb");
                    let size = info.nar_size as usize;
                    fs::write(&bomb, [&nar[..size - 8], &vec![0; 200 << 20][..]].concat()).unwrap();
                    let ran = std::process::Command::new("gzip").arg("-9").arg(&bomb).status().unwrap();
                    assert!(ran.success());
                    let bytes = fs::read(bomb.with_extension("gz")).unwrap();
                    fs::remove_file(bomb.with_extension("gz")).unwrap();
                    replace(cache, info, &bytes);
                    info.compression = Compression::Gzip;
                }),
            ),
            "NarSize",
        ),
        (
            "another path's narinfo",
            Box::new(|cache: &Path| {
                fs::copy(narinfo(cache, &naming), narinfo(cache, &path)).unwrap();
            }),
            "StorePath",
        ),
        (
            "html",
            Box::new(|cache: &Path| fs::write(narinfo(cache, &path), "<html>\n<p>Welcome: yes\n").unwrap()),
            "line 1",
        ),
    ];
    let mut tried = 0;
    for (name, change, named) in &cases {
        let cache = lab.path().join("altered");
        fs::create_dir_all(cache.join("nar")).unwrap();
        for (file, bytes) in listing(&pristine) {
            fs::write(cache.join(file.strip_prefix(&pristine).unwrap()), bytes).unwrap();
        }
        change(&cache);
        let kiln = Kiln::fresh(Ground::Disk);
        let address = cache.display().to_string();
        // What names it is not brought either.
        let refused = substitute(&kiln, &address, &lab.public("ours"), &naming);
        assert_eq!(refused.code(), Some(6), "{name}:\n{}", refused.stderr);
        assert!(refused.stderr.contains(named), "{name} does not name {named}:\n{}", refused.stderr);
        assert_eq!(kiln.run(["store", "ls"]).succeeded().stdout, "", "{name}");
        assert_eq!(fs::read_dir(kiln.store().join("nix/store")).unwrap().count(), 0, "{name}");
        kiln.verified();
        fs::remove_dir_all(&cache).unwrap();
        tried += 1;
    }
    assert!(tried >= 14);
    // A reference dropped: `naming` itself.
    edit(&pristine, &naming, |info| info.references.clear());
    let kiln = Kiln::fresh(Ground::Disk);
    substitute(&kiln, &pristine.display().to_string(), &lab.public("ours"), &naming).exits(6).says(&["signature"]);
}

#[test]
fn a_path_that_follows_from_its_contents_needs_no_signature_and_its_contents_are_read() {
    let test = "a_path_that_follows_from_its_contents_needs_no_signature_and_its_contents_are_read";
    let Some(lab) = Lab::open(test) else { return };
    let (path, naming) = trees(&lab);
    let cache = cache_of_nix(&lab, "none", &[&path, &naming]);
    let address = cache.display().to_string();
    for path in [&path, &naming] {
        edit(&cache, path, |info| info.signatures.clear());
    }
    let kiln = Kiln::fresh(Ground::Disk);
    kiln.run(["store", "substitute", "--substituters", &address, &naming]).succeeded();
    kiln.verified();
    // Another tree under an honest address: only the contents tell.
    let etc = lab.path().join("etc");
    let other = lab.command("nix-store", ["--dump".as_ref(), etc.as_os_str()]).output().unwrap().stdout;
    edit(&cache, &path, |info| {
        replace(&cache, info, &other);
        info.nar_hash = NarHash::new(Digest::of(&other));
        info.nar_size = other.len() as u64;
    });
    let fresh = Kiln::fresh(Ground::Disk);
    fresh.run(["store", "substitute", "--substituters", &address, &naming]).exits(6).says(&["CA of"]);
    assert_eq!(fresh.run(["store", "ls"]).succeeded().stdout, "");
}

#[test]
fn publishing_again_changes_nothing_a_second_rebuilder_adds_its_signature_and_one_who_differs_is_refused() {
    let test = "publishing_again_changes_nothing_a_second_rebuilder_adds_its_signature_and_one_who_differs_is_refused";
    let Some(lab) = Lab::open(test) else { return };
    let (path, naming) = trees(&lab);
    let kiln = Kiln::fresh(Ground::Disk);
    substitute(
        &kiln,
        &cache_of_nix(&lab, "zstd", &[&path, &naming]).display().to_string(),
        &lab.public("ours"),
        &naming,
    )
    .succeeded();
    let cache = lab.path().join("published");
    let publish = |key: &str| {
        let (cache, key) = (cache.display().to_string(), lab.secret(key).display().to_string());
        kiln.run(["publish", "--nix-cache", "--json", "--to", &cache, "--key", &key, &naming])
    };
    assert_eq!(publish("ours").succeeded().json()["added"], 2);
    let before = listing(&cache);
    assert_eq!(publish("ours").succeeded().json()["kept"], 2);
    assert_eq!(listing(&cache), before);
    assert_eq!(publish("other").succeeded().json()["signed"], 2);
    let info = NarInfo::parse(&fs::read(narinfo(&cache, &path)).unwrap()).unwrap();
    assert_eq!(info.signatures.len(), 2);

    // An archive that went missing is written again; a narinfo that says otherwise is not replaced.
    fs::remove_file(cache.join(&info.url)).unwrap();
    assert_eq!(publish("ours").succeeded().json()["added"], 1);
    assert!(cache.join(&info.url).is_file());
    edit(&cache, &path, |info| info.nar_hash = NarHash::new(Digest::of("other")));
    let before = listing(&cache);
    publish("ours").exits(6).says(&["two builds differ"]);
    assert_eq!(listing(&cache), before);
}

#[test]
fn a_publisher_that_is_killed_leaves_a_cache_that_is_whole_as_far_as_it_goes() {
    let Some(lab) = Lab::open("a_publisher_that_is_killed_leaves_a_cache_that_is_whole_as_far_as_it_goes") else {
        return;
    };
    let kiln = Kiln::fresh(Ground::Disk);
    let tree = lab.path().join("many");
    let mut paths = Vec::new();
    for number in 0..40 {
        fs::write(&tree, format!("{number}").repeat(20_000)).unwrap();
        let name = format!("tree-{number}");
        let added = kiln.run(["store".as_ref(), "add".as_ref(), "--name".as_ref(), name.as_ref(), tree.as_os_str()]);
        paths.push(added.succeeded().stdout.trim_end().to_owned());
    }
    let (cache, key) = (lab.path().join("killed"), lab.secret("ours").display().to_string());
    let to = cache.display().to_string();
    let arguments =
        || ["publish", "--nix-cache", "--to", &to, "--key", &key].into_iter().chain(paths.iter().map(String::as_str));
    // Killed once so many archives are there: what it is in the midst of then is up to the machine.
    for archives in [0, 2, 9, 25] {
        let mut running = kiln.start(arguments());
        let there = || fs::read_dir(cache.join("nar")).map_or(0, |entries| entries.count());
        while there() < archives && running.runs() {
            std::thread::yield_now();
        }
        nix::sys::signal::kill(running.pid(), nix::sys::signal::Signal::SIGKILL).ok();
        running.end();
        for (file, bytes) in
            listing(&cache).into_iter().filter(|(file, _)| file.extension().is_some_and(|e| e == "narinfo"))
        {
            let info = NarInfo::parse(&bytes).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
            assert_eq!(Digest::of(fs::read(cache.join(&info.url)).unwrap()), info.file_hash.unwrap());
        }
    }
    kiln.run(arguments()).succeeded();
    let fresh = Kiln::fresh(Ground::Disk);
    let public = lab.public("ours");
    let all = ["store", "substitute", "--substituters", &to, "--trusted-public-keys", &public];
    fresh.run(all.into_iter().chain(paths.iter().map(String::as_str))).succeeded();
    let left = listing(&cache).into_iter().filter(|(file, _)| file.to_string_lossy().contains(".tmp-")).count();
    assert_eq!(left, 0);
    fresh.verified();
    kiln.verified();
}

#[test]
fn keys_that_kiln_makes_are_nix_s_and_nobody_else_may_read_them() {
    let Some(lab) = Lab::open("keys_that_kiln_makes_are_nix_s_and_nobody_else_may_read_them") else { return };
    let kiln = Kiln::fresh(Ground::Disk);
    let file = lab.path().join("made");
    let generate = |name: &str| {
        kiln.run(["key".as_ref(), "generate".as_ref(), name.as_ref(), "--output".as_ref(), file.as_os_str()])
    };
    generate("a b").exits(2);
    let public = generate("made-1").succeeded().stdout;
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&file).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    generate("made-1").exits(7);
    let convert = lab.command("nix", ["key", "convert-secret-to-public"]).stdin(File::open(&file).unwrap()).output();
    assert_eq!(String::from_utf8(convert.unwrap().stdout).unwrap(), public.trim_end());
    let again = kiln.run(["key".as_ref(), "public".as_ref(), file.as_os_str()]).succeeded().stdout;
    assert_eq!(again, public);
}

/// `kiln serve`, ended when dropped.
struct Served {
    child: Child,
    address: String,
}

impl Served {
    fn start(kiln: &Kiln, key: &Path) -> Self {
        let arguments = ["serve".as_ref(), "--nix-cache".as_ref(), "--listen".as_ref(), "127.0.0.1:0".as_ref()];
        let mut command = kiln.command(arguments.into_iter().chain(["--key".as_ref(), key.as_os_str()]));
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut address = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut address).unwrap();
        Self { child, address: address.trim_end().into() }
    }

    fn ask(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(self.address.trim_start_matches("http://")).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

#[test]
fn nix_and_kiln_substitute_straight_from_a_store_that_kiln_serves() {
    let Some(lab) = Lab::open("nix_and_kiln_substitute_straight_from_a_store_that_kiln_serves") else { return };
    let (path, naming) = trees(&lab);
    let kiln = Kiln::fresh(Ground::Disk);
    substitute(
        &kiln,
        &cache_of_nix(&lab, "zstd", &[&path, &naming]).display().to_string(),
        &lab.public("ours"),
        &naming,
    )
    .succeeded();
    let served = Served::start(&kiln, &lab.secret("other"));
    lab.second(&served.address, "other", "nix-store", ["--realise", &naming]).succeeded();
    let key = lab.public("other");
    let verify = ["store", "verify", "-r", "--sigs-needed", "1", "--trusted-public-keys", &key, &naming];
    lab.second(&served.address, "other", "nix", verify).succeeded();
    let fresh = Kiln::fresh(Ground::Disk).online();
    substitute(&fresh, &served.address, &lab.public("other"), &naming).succeeded();
    fresh.verified();
    substitute(&Kiln::fresh(Ground::Disk), &served.address, &lab.public("other"), &naming).says(&["offline"]);

    let status = |request: &str| served.ask(request).lines().next().unwrap_or_default().to_owned();
    let close = "Connection: close\r\n\r\n";
    assert_eq!(status(&format!("GET /nix-cache-info HTTP/1.1\r\n{close}")), "HTTP/1.1 200 OK");
    for missing in ["/", "/../etc/passwd", "/nar/../../etc/passwd.nar", "/00000000000000000000000000000000.narinfo"] {
        assert_eq!(status(&format!("GET {missing} HTTP/1.1\r\n{close}")), "HTTP/1.1 404 Not Found", "{missing}");
    }
    assert_eq!(
        status(&format!("PUT /nix-cache-info HTTP/1.1\r\nContent-Length: 1\r\n\r\nx{close}")),
        "HTTP/1.1 400 Bad Request"
    );
    // While it is served, what was asked for stays.
    kiln.run(["store", "gc"]).succeeded();
    assert!(kiln.run(["store", "ls"]).succeeded().stdout.contains(&path));
}

/// A server that answers every request with `answer` of its target; `None` is silence.
fn misbehaving(answer: impl Fn(&str) -> Option<Vec<u8>> + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        let mut silent = Vec::new();
        for stream in listener.incoming().flatten() {
            let mut line = String::new();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            reader.read_line(&mut line).unwrap();
            match answer(line.split(' ').nth(1).unwrap_or_default()) {
                Some(bytes) => {
                    // Unread requests would turn the end of the connection into a reset.
                    let mut field = String::new();
                    while reader.read_line(&mut field).is_ok_and(|read| read > 2) {
                        field.clear();
                    }
                    let _ = (&stream).write_all(&bytes);
                }
                None => silent.push(stream),
            }
        }
    });
    address
}

#[test]
fn a_server_that_stalls_lies_redirects_for_ever_or_serves_html_is_an_error_soon() {
    let Some(lab) = Lab::open("a_server_that_stalls_lies_redirects_for_ever_or_serves_html_is_an_error_soon") else {
        return;
    };
    let (path, _) = trees(&lab);
    let cache = cache_of_nix(&lab, "none", &[&path]);
    edit(&cache, &path, |info| info.address = None);
    let ok = |body: &[u8]| {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
        [head.as_bytes(), body].concat()
    };
    let honest = move |target: &str| fs::read(cache.join(target.trim_start_matches('/'))).ok().map(|bytes| ok(&bytes));
    type Bend = fn(&str, Vec<u8>) -> Option<Vec<u8>>;
    let cases: [(&str, Bend, i32, &str); 7] = [
        ("stalls", |target, whole| (!target.contains(".nar")).then_some(whole), 7, "stalled"),
        (
            "hangs up",
            |target, whole| Some(if target.contains("nar/") { whole[..whole.len() / 2].to_vec() } else { whole }),
            7,
            "",
        ),
        (
            "redirects for ever",
            |target, whole| {
                let redirect =
                    format!("HTTP/1.1 302 X\r\nLocation: {target}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
                Some(if target.contains("nar/") { redirect.into_bytes() } else { whole })
            },
            7,
            "redirected",
        ),
        (
            "serves html",
            |target, whole| {
                let html =
                    b"HTTP/1.1 200 OK\r\nContent-Length: 14\r\nConnection: close\r\n\r\n<html>\n</html>".to_vec();
                Some(if target.ends_with("narinfo") { html } else { whole })
            },
            6,
            "narinfo",
        ),
        (
            "an endless narinfo",
            |target, whole| {
                let mut endless = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n".to_vec();
                endless.extend(vec![b'x'; 3 << 20]);
                Some(if target.ends_with("narinfo") { endless } else { whole })
            },
            6,
            "larger than",
        ),
        (
            "fails",
            |target, whole| {
                let failed = b"HTTP/1.1 500 X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_vec();
                Some(if target.contains("nar/") { failed } else { whole })
            },
            7,
            "500",
        ),
        (
            "another store",
            |target, whole| {
                let other = b"HTTP/1.1 200 OK\r\nContent-Length: 21\r\nConnection: close\r\n\r\nStoreDir: /gnu/store\n";
                Some(if target.contains("cache-info") { other.to_vec() } else { whole })
            },
            2,
            "/gnu/store",
        ),
    ];
    for (name, bend, code, named) in cases {
        let honest = honest.clone();
        let address = misbehaving(move |target| match honest(target) {
            Some(whole) => bend(target, whole),
            None => Some(b"HTTP/1.1 404 X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_vec()),
        });
        let kiln = Kiln::fresh(Ground::Disk).online();
        kiln.configure("[fetch]\nclients = []\nattempts = 1\nstall-seconds = 1\n");
        let refused = substitute(&kiln, &address, &lab.public("ours"), &path);
        assert_eq!(refused.code(), Some(code), "{name}:\n{}", refused.stderr);
        assert!(refused.stderr.contains(named), "{name}:\n{}", refused.stderr);
        assert!(refused.took.as_secs() < 60, "{name}");
        assert_eq!(kiln.run(["store", "ls"]).succeeded().stdout, "", "{name}");
    }
    let address = misbehaving(move |target| honest(target));
    let kiln = Kiln::fresh(Ground::Disk).online();
    substitute(&kiln, &address, &lab.public("ours"), &path).succeeded();
}
