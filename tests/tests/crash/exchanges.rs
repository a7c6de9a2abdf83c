//! Collections, imports and publications that are killed.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use kiln_model::digest::Digest;
use kiln_model::format::narinfo::NarInfo;
use kiln_tests::ground::{self, Ground, StoreDirectory};
use kiln_tests::run::{Kiln, Ran};
use tempfile::TempDir;

use crate::{Dice, Shim, died, rounds};

/// Trees of several shapes in a store; all paths, sorted, and what `nix-store --export` would write of them.
struct Stock {
    dir: TempDir,
    kiln: Kiln,
    paths: Vec<String>,
}

impl Stock {
    fn new() -> Self {
        let (dir, kiln) = (ground::directory(Ground::Tmpfs), Kiln::fresh(Ground::Tmpfs));
        let tree = dir.path().join("tree");
        let mut paths = Vec::new();
        for number in 0..4_usize {
            fs::create_dir_all(tree.join("sub")).unwrap();
            std::os::unix::fs::symlink("sub", tree.join("link")).unwrap();
            fs::write(tree.join("file"), format!("{number}\n").repeat(number * 40_000)).unwrap();
            fs::write(tree.join("sub/small"), format!("{number}")).unwrap();
            let name = format!("tree-{number}");
            let arguments = ["store".as_ref(), "add".as_ref(), "--name".as_ref(), name.as_ref(), tree.as_os_str()];
            paths.push(kiln.run(arguments).succeeded().stdout.trim_end().to_owned());
            fs::remove_dir_all(&tree).unwrap();
        }
        paths.sort();
        let stock = Self { dir, kiln, paths };
        let stream = File::create(stock.stream()).unwrap();
        let exported =
            stock.kiln.command(["store", "export"].iter().copied().chain(stock.paths())).stdout(stream).status();
        assert!(exported.unwrap().success());
        stock
    }

    fn paths(&self) -> impl Iterator<Item = &str> {
        self.paths.iter().map(String::as_str)
    }

    fn stream(&self) -> PathBuf {
        self.dir.path().join("stream")
    }

    /// Another kiln with a copy of the store.
    fn copy(&self) -> (StoreDirectory, Kiln) {
        let dir = StoreDirectory::new(Ground::Tmpfs);
        let copied = Command::new("cp").arg("-a").arg(self.kiln.store()).arg(dir.path().join("store")).status();
        assert!(copied.unwrap().success());
        let kiln = Kiln::with_store(&dir.path().join("store"));
        (dir, kiln)
    }

    /// What kiln lists.
    fn listed(kiln: &Kiln) -> Vec<String> {
        let mut paths: Vec<String> = kiln.run(["store", "ls"]).succeeded().stdout.lines().map(str::to_owned).collect();
        paths.sort();
        paths
    }
}

/// Nothing of a dead process is left once another has run.
fn clean(kiln: &Kiln) {
    for directory in ["tmp", "sessions"] {
        let left: Vec<_> =
            fs::read_dir(kiln.store().join(directory)).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(left, [] as [PathBuf; 0]);
    }
}

/// Calls `round` once for each death: at calls of each kind that it makes, and at random times. It runs the kiln that it makes of its own by what it is
/// given, checks what must hold after that was killed, and returns how it ended.
fn at_each_kind(mut round: impl FnMut(&dyn Fn(Kiln) -> Kiln) -> Ran) {
    let shim = Shim::new();
    let whole = round(&|kiln| shim.preloaded(kiln, 0)).succeeded().took;
    let (kinds, mut dice, mut killed) = (shim.kinds(), Dice::new(), BTreeMap::<&str, u64>::new());
    println!("{kinds:?}");
    let each = rounds(2);
    for (kind, &count) in &kinds {
        for turn in 0..each.min(count) {
            // Spread over all calls of the kind, before and after them.
            let at = 1 + (turn * count / each + dice.below(count.div_ceil(each))).min(count - 1);
            println!("killed at {kind} {at} of {count}");
            let ran = round(&|kiln| shim.preloaded_only(kiln, kind, at));
            assert!(died(&ran) || ran.code() == Some(0), "{kind} {at} of {count}: {ran:?}");
            *killed.entry(kind).or_default() += u64::from(died(&ran));
        }
    }
    for _ in 0..rounds(8) {
        let seconds = format!("{:.6}", dice.below(whole.as_micros() as u64) as f64 / 1e6);
        println!("killed after {seconds} s");
        let ran = round(&|kiln| kiln.through(["timeout", "--foreground", "-s", "KILL", &seconds]));
        // What timeout(1) says when it had to, and when it came too late.
        assert!(matches!(ran.code(), Some(0 | 124 | 137)), "after {seconds} s: {ran:?}");
    }
    // Threads may take turns otherwise, so that a call near the end is not always made.
    let missed: Vec<&String> = kinds.keys().filter(|kind| !killed.contains_key(kind.as_str())).collect();
    assert!(missed.is_empty(), "{missed:?} of {kinds:?} were never met");
}

#[test]
fn killed_at_any_kind_of_call_of_a_collection_the_store_verifies_and_the_next_one_finishes() {
    let stock = Stock::new();
    let kept = &stock.paths[1];
    stock.kiln.run(["store", "root", "kept", kept]).succeeded();
    at_each_kind(|killing| {
        let (dir, kiln) = stock.copy();
        let ran = killing(Kiln::with_store(kiln.store())).run(["store", "gc"]);
        kiln.verified();
        let listed = Stock::listed(&kiln);
        assert!(listed.contains(kept) && listed.iter().all(|path| stock.paths.contains(path)), "{listed:?}");
        kiln.run(["store", "gc"]).succeeded();
        assert_eq!(Stock::listed(&kiln), [kept.as_str()]);
        assert_eq!(fs::read_dir(kiln.store().join("nix/store")).unwrap().count(), 1);
        kiln.verified();
        clean(&kiln);
        drop(dir);
        ran
    });
}

#[test]
fn killed_at_any_kind_of_call_of_an_import_the_store_verifies_and_the_next_one_finishes() {
    let stock = Stock::new();
    at_each_kind(|killing| {
        let kiln = Kiln::fresh(Ground::Tmpfs);
        let import = |kiln: &Kiln| kiln.run_reading(["store", "import"], &stock.stream());
        let ran = import(&killing(Kiln::with_store(kiln.store())));
        kiln.verified();
        assert!(Stock::listed(&kiln).iter().all(|path| stock.paths.contains(path)));
        import(&kiln).succeeded();
        assert_eq!(Stock::listed(&kiln), stock.paths);
        kiln.verified();
        clean(&kiln);
        ran
    });
}

/// The files of a cache; those that a publisher has not finished are left out.
fn files(cache: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for directory in [cache.to_owned(), cache.join("nar")] {
        for entry in fs::read_dir(directory).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_file() && !path.to_string_lossy().contains("/.tmp-") {
                files.insert(path.strip_prefix(cache).unwrap().into(), fs::read(path).unwrap());
            }
        }
    }
    files
}

#[test]
fn killed_at_any_kind_of_call_of_a_publication_the_cache_is_whole_and_the_next_one_finishes() {
    let stock = Stock::new();
    let key = stock.dir.path().join("key");
    stock
        .kiln
        .run(["key".as_ref(), "generate".as_ref(), "ours-1".as_ref(), "--output".as_ref(), key.as_os_str()])
        .succeeded();
    let mut whole = None;
    at_each_kind(|killing| {
        let dir = ground::directory(Ground::Tmpfs);
        let cache = dir.path().join("cache");
        let (to, key) = (cache.display().to_string(), key.display().to_string());
        let publish = |kiln: &Kiln| {
            kiln.run(["publish", "--nix-cache", "--to", &to, "--key", &key].into_iter().chain(stock.paths()))
        };
        let ran = publish(&killing(Kiln::with_store(stock.kiln.store())));
        for (file, bytes) in files(&cache).iter().filter(|(file, _)| file.extension().is_some_and(|e| e == "narinfo")) {
            let info = NarInfo::parse(bytes).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
            assert_eq!(Digest::of(fs::read(cache.join(&info.url)).unwrap()), info.file_hash.unwrap());
        }
        publish(&stock.kiln).succeeded();
        // Whatever was killed before, the files are those of a run that was not.
        let found = files(&cache);
        assert!(found == *whole.get_or_insert(found.clone()));
        let left: usize = [cache.join("nar"), cache.clone()]
            .map(|dir| {
                let names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name());
                names.filter(|name| name.to_string_lossy().starts_with(".tmp-")).count()
            })
            .iter()
            .sum();
        assert_eq!(left, 0);
        stock.kiln.verified();
        clean(&stock.kiln);
        ran
    });
}
