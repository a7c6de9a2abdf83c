//! Archives that are none, or none that is taken: refused wherever kiln reads one, soon, in little memory, and nothing is kept.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use kiln_model::digest::{Digest, NarHash};
use kiln_model::format::export::{Trailer, print_another, print_end};
use kiln_model::format::nar::frame;
use kiln_model::format::narinfo::{Compression, NarInfo, file_name};
use kiln_model::format::signature::SecretKey;
use kiln_model::store_path::StorePath;
use kiln_tests::derivation::vectors;
use kiln_tests::ground::{self, Ground};
use kiln_tests::run::{Kiln, Ran};
use tempfile::TempDir;

/// Every way by which an archive gets into kiln, with a store of its own that must stay empty.
struct Ways {
    dir: TempDir,
    kiln: Kiln,
    key: SecretKey,
}

impl Ways {
    fn new() -> Self {
        let dir = ground::directory(Ground::Tmpfs);
        // Half of what a token of the bad archives asks for would be more than this.
        let bounded = ["sh", "-c", "ulimit -v 4000000; exec \"$@\"", "sh"];
        let kiln = Kiln::fresh(Ground::Tmpfs).through(bounded);
        let file = dir.path().join("key");
        kiln.run(["key".as_ref(), "generate".as_ref(), "ours-1".as_ref(), "--output".as_ref(), file.as_os_str()])
            .succeeded();
        let key = fs::read_to_string(file).unwrap().trim_end().parse().unwrap();
        Self { dir, kiln, key }
    }

    fn path() -> StorePath {
        "/nix/store/00000000000000000000000000000000-archive".parse().unwrap()
    }

    fn place(&self) -> PathBuf {
        self.dir.path().join("restored")
    }

    /// A file of the scene.
    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let file = self.dir.path().join(name);
        fs::write(&file, bytes).unwrap();
        file
    }

    /// What became of `nar` on each way, by its name.
    fn all(&self, nar: &[u8]) -> Vec<(&'static str, Ran)> {
        let file = self.file("archive", nar);
        let place = self.place();
        let mut ways = vec![
            ("restore", self.kiln.run_reading(["nar".as_ref(), "restore".as_ref(), place.as_os_str()], &file)),
            ("ls", self.kiln.run(["nar".as_ref(), "ls".as_ref(), file.as_os_str()])),
            ("cat", self.kiln.run(["nar".as_ref(), "cat".as_ref(), file.as_os_str(), "no such file".as_ref()])),
        ];
        let trailer = Trailer { path: Self::path(), references: Default::default(), deriver: None };
        let stream = [&print_another()[..], nar, &trailer.print(), &print_end()].concat();
        ways.push(("import", self.kiln.run_reading(["store", "import"], &self.file("stream", &stream))));
        if !nar.is_empty() {
            ways.push(("substitute", self.substitute(nar)));
        }
        ways
    }

    /// From a cache that says of `nar` what is so, signed by a key that is trusted.
    fn substitute(&self, nar: &[u8]) -> Ran {
        let cache = self.dir.path().join("cache");
        fs::create_dir_all(cache.join("nar")).unwrap();
        fs::write(cache.join("nix-cache-info"), "StoreDir: /nix/store\n").unwrap();
        fs::write(cache.join("nar/archive.nar"), nar).unwrap();
        let mut info = NarInfo {
            path: Self::path(),
            url: "nar/archive.nar".into(),
            compression: Compression::None,
            file_hash: Some(Digest::of(nar)),
            file_size: Some(nar.len() as u64),
            nar_hash: NarHash::new(Digest::of(nar)),
            nar_size: nar.len() as u64,
            references: Default::default(),
            deriver: None,
            signatures: Vec::new(),
            address: None,
        };
        info.sign(&self.key);
        fs::write(cache.join(file_name(&Self::path())), info.print()).unwrap();
        let (cache, key, path) = (cache.display().to_string(), self.key.public().to_string(), Self::path().to_string());
        self.kiln.run(["store", "substitute", "--substituters", &cache, "--trusted-public-keys", &key, &path])
    }

    /// All ways refuse it as what it is, say one of `words`, and keep nothing.
    #[track_caller]
    fn refuse(&self, name: &str, nar: &[u8], words: &[&str]) {
        for (way, ran) in self.all(nar) {
            let expected = if way == "substitute" { 6 } else { 2 };
            assert_eq!(ran.code(), Some(expected), "{name}, {way}: {ran:?}");
            assert!(words.iter().any(|word| ran.stderr.contains(word)), "{name}, {way}: {}", ran.stderr);
            assert!(ran.took < Duration::from_secs(30), "{name}, {way}");
        }
        self.nothing_is_kept(name);
    }

    #[track_caller]
    fn nothing_is_kept(&self, name: &str) {
        assert!(!self.place().exists(), "{name}");
        let left = fs::read_dir(self.dir.path()).unwrap().map(|entry| entry.unwrap().file_name());
        assert!(!left.into_iter().any(|file| file.to_string_lossy().starts_with(".kiln")), "{name}");
        assert_eq!(self.kiln.run(["store", "ls"]).succeeded().stdout, "", "{name}");
        for directory in ["nix/store", "tmp"] {
            assert_eq!(fs::read_dir(self.kiln.store().join(directory)).unwrap().count(), 0, "{name}, {directory}");
        }
    }

    /// All ways take it.
    #[track_caller]
    fn take(&self, name: &str, nar: &[u8]) {
        for (way, ran) in self.all(nar) {
            let expected = if way == "cat" { 2 } else { 0 };
            assert_eq!(ran.code(), Some(expected), "{name}, {way}: {ran:?}");
            if matches!(way, "import" | "substitute") {
                self.kiln.verified();
                self.kiln.run(["store", "gc"]).succeeded();
            }
        }
    }
}

#[test]
fn malformed_archives_are_refused_on_every_way_and_nothing_is_kept() {
    let ways = Ways::new();
    let mut refused = 0;
    let mut files: Vec<PathBuf> =
        fs::read_dir(vectors().join("bad-nar")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    for file in files {
        let name = file.file_name().unwrap().to_str().unwrap();
        let nar = fs::read(&file).unwrap();
        match name {
            "00-good" | "21-depth-63" => {
                ways.take(name, &nar);
                Command::new("rm").arg("-rf").arg(ways.place()).status().unwrap();
            }
            "20-depth-70" => ways.refuse(name, &nar, &["64 levels"]),
            _ => {
                ways.refuse(name, &nar, &["not a NAR", "archive", "NAR", "stream", "name", "target", "cut short"]);
                refused += 1;
            }
        }
    }
    assert!(refused >= 22, "{refused}");
}

/// Directories in each other, so many.
fn nested(levels: usize) -> Vec<u8> {
    let mut nar = Vec::new();
    frame::start(&mut nar);
    for level in 0..levels {
        frame::directory(&mut nar);
        if level + 1 < levels {
            frame::entry(&mut nar, b"d");
        }
    }
    for level in 0..levels {
        frame::directory_end(&mut nar);
        if level + 1 < levels {
            frame::entry_end(&mut nar);
        }
    }
    nar
}

#[test]
fn ten_thousand_levels_are_refused_without_descending_them() {
    let ways = Ways::new();
    ways.refuse("ten thousand levels", &nested(10_000), &["64 levels"]);
    // And more than any stack would hold.
    ways.refuse("a hundred thousand levels", &nested(100_000), &["64 levels"]);
}

#[test]
fn a_tree_of_ten_thousand_levels_is_neither_dumped_nor_added() {
    let ways = Ways::new();
    let tree = ways.dir.path().join("deep");
    fs::create_dir(&tree).unwrap();
    // One level at a time: no path may be that long.
    let mut directory = std::os::fd::OwnedFd::from(fs::File::open(&tree).unwrap());
    for _ in 0..10_000 {
        nix::sys::stat::mkdirat(&directory, "d", nix::sys::stat::Mode::S_IRWXU).unwrap();
        let flags = nix::fcntl::OFlag::O_DIRECTORY | nix::fcntl::OFlag::O_CLOEXEC;
        directory = nix::fcntl::openat(&directory, "d", flags, nix::sys::stat::Mode::empty()).unwrap();
    }
    ways.kiln.run(["nar".as_ref(), "dump".as_ref(), tree.as_os_str()]).says(&["64 levels"]);
    let added = ways.kiln.run(["store".as_ref(), "add".as_ref(), tree.as_os_str()]).exits(2);
    assert!(added.stderr.contains("deep"), "{}", added.stderr);
    assert_eq!(ways.kiln.run(["store", "ls"]).succeeded().stdout, "");
    // By a program that does not recurse on its stack.
    assert!(Command::new("rm").arg("-rf").arg(tree).status().unwrap().success());
}

/// A directory of small files.
fn directory(names: &[&str]) -> Vec<u8> {
    let mut nar = Vec::new();
    frame::start(&mut nar);
    frame::directory(&mut nar);
    for name in names {
        frame::entry(&mut nar, name.as_bytes());
        frame::file(&mut nar, name.len() as u64);
        nar.extend(name.as_bytes());
        frame::file_end(&mut nar, name.len() as u64);
        frame::entry_end(&mut nar);
    }
    frame::directory_end(&mut nar);
    nar
}

#[test]
fn names_that_differ_in_case_only_are_two_files_and_those_twice_or_unsorted_are_refused() {
    let ways = Ways::new();
    let hard = ["A", "AB", "Ab", "a", "aB", "\u{c4}", "\u{e4}"];
    ways.take("case", &directory(&hard));
    for name in hard {
        assert_eq!(fs::read_to_string(ways.place().join(name)).unwrap(), name);
    }
    fs::remove_dir_all(ways.place()).unwrap();
    ways.refuse("twice", &directory(&["a", "a"]), &["not a NAR", "archive"]);
    ways.refuse("unsorted", &directory(&["a", "A"]), &["not a NAR", "archive"]);
    ways.refuse("a prefix after", &directory(&["ab", "a"]), &["not a NAR", "archive"]);
}

#[test]
fn an_archive_that_ends_early_is_refused_wherever_it_ends() {
    let ways = Ways::new();
    let whole = directory(&["file", "other"]);
    for length in (1..whole.len()).step_by(61).chain([whole.len() - 1, whole.len() - 8]) {
        ways.refuse(&format!("cut at {length}"), &whole[..length], &["not a NAR", "archive", "stream", "cut short"]);
    }
    let longer = [&whole[..], &[0; 8]].concat();
    ways.refuse("longer", &longer, &["not a NAR", "archive", "stream"]);
}

#[test]
fn what_exists_is_not_replaced() {
    let ways = Ways::new();
    fs::write(ways.place(), "mine").unwrap();
    let file = ways.file("archive", &directory(&["file"]));
    let place = ways.place();
    let restore = |place: &Path| ways.kiln.run_reading(["nar".as_ref(), "restore".as_ref(), place.as_os_str()], &file);
    restore(&place).exits(2).says(&["exists"]);
    assert_eq!(fs::read_to_string(&place).unwrap(), "mine");
}
