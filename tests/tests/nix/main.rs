//! kiln and a real Nix: derivations, caches, archives and streams that each takes from the other.

mod archives;
mod capsules;
mod publishing;
mod realisations;
mod recipes;
mod servers;
mod serving;
mod substitution;
mod uploading;

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use kiln_model::digest::NarHash;
use kiln_model::format::narinfo::NarInfo;
use kiln_model::store_path::spelled;
use kiln_tests::ground::Ground;
use kiln_tests::lab::Lab;
use kiln_tests::run::Kiln;

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

/// kiln with paths of Nix's first store in a store of its own; that they follow from their contents is forgotten, so that
/// only signatures count.
fn stocked(lab: &Lab, paths: &[&str]) -> Kiln {
    let kiln = Kiln::fresh(Ground::Disk);
    let cache = cache_of_nix(lab, "zstd", paths);
    paths.iter().for_each(|path| edit(&cache, path, |info| info.address = None));
    let cache = cache.display().to_string();
    for path in paths {
        substitute(&kiln, &cache, &lab.public("ours"), path).succeeded();
    }
    kiln
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
