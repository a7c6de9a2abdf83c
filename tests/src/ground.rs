//! Where tests stand.
//!
//! `scripts/test` prepares one directory per user, named by `KILN_TEST_DIR` ([`crate::prepare`]): `warm/`, a store in
//! which environments of shipped recipes are assembled, and `files/`, an offline directory with what they are made of. Tests that
//! need no store of their own share the warm one: each uses derivations of its own, so they do not meet.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// The repository.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ is in the repository").to_path_buf()
}

/// The binary under test.
pub fn kiln() -> PathBuf {
    let built = std::env::var_os("KILN_BIN").map_or_else(|| repository().join("target/release/kiln"), PathBuf::from);
    assert!(built.is_file(), "no kiln at {}: run scripts/setup, or set KILN_BIN", built.display());
    built
}

/// The prepared directory.
pub fn prepared() -> PathBuf {
    std::env::var_os("KILN_TEST_DIR").map_or_else(|| repository().join("target/kiln-tests"), PathBuf::from)
}

/// The offline directory: every file that the prepared environments and inputs are made of, by name.
pub fn files() -> PathBuf {
    prepared().join("files")
}

/// The prepared store.
pub fn warm() -> PathBuf {
    prepared().join("warm")
}

/// True if the tests have files to build environments from; else the test is skipped, by name.
pub fn has_files(test: &str) -> bool {
    let there = files().is_dir() && warm().is_dir();
    there || skipped(test, "no prepared files; run scripts/test --prepare")
}

/// Notes that `test` cannot run here and why; fails it where `MUST_ISOLATE` is set. Always false.
pub fn skipped(test: &str, why: &str) -> bool {
    let line = format!("skipped: {test}: {why}\n");
    assert!(
        std::env::var_os("MUST_ISOLATE").is_none_or(|v| v.is_empty()),
        "MUST_ISOLATE is set and {test} cannot run: {why}"
    );
    eprint!("{line}");
    if let Some(list) = std::env::var_os("KILN_TEST_SKIPS") {
        let mut file = OpenOptions::new().append(true).create(true).open(&list).expect("the list of skips is writable");
        file.write_all(line.as_bytes()).expect("the list of skips is writable");
    }
    false
}

/// A kind of file system that a store may lie on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ground {
    /// The one that temporary files are on: a disk, usually.
    Disk,
    /// Memory.
    Tmpfs,
}

/// A fresh directory.
pub fn directory(ground: Ground) -> TempDir {
    let parent = match ground {
        Ground::Disk => std::env::temp_dir(),
        Ground::Tmpfs => PathBuf::from("/dev/shm"),
    };
    tempfile::Builder::new().prefix("kiln-test-").tempdir_in(parent).expect("a temporary directory can be made")
}

/// A fresh directory for a store. What a store holds is read-only, and its owner must change that before it can be removed.
#[derive(Debug)]
pub struct StoreDirectory(TempDir);

impl StoreDirectory {
    /// Makes one.
    pub fn new(ground: Ground) -> Self {
        Self(directory(ground))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for StoreDirectory {
    fn drop(&mut self) {
        writable(self.path());
    }
}

/// Lets the owner change every directory below `top`, as far as that can be.
fn writable(top: &Path) {
    let _ = fs::set_permissions(top, fs::Permissions::from_mode(0o755));
    for entry in fs::read_dir(top).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            writable(&entry.path());
        }
    }
}

/// Type of the file system that `path` is on.
pub fn file_system(path: &Path) -> nix::sys::statfs::FsType {
    nix::sys::statfs::statfs(path).expect("statfs of a directory of ours").filesystem_type()
}

/// True if the tests run as root.
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Holds the right to be the only one at `what`, among all tests of this user, until dropped.
pub fn alone(what: &str) -> nix::fcntl::Flock<File> {
    let path = prepared().join(format!("{what}.alone"));
    fs::create_dir_all(prepared()).expect("the prepared directory can be made");
    let file =
        OpenOptions::new().create(true).truncate(false).write(true).open(&path).expect("a lock file can be made");
    nix::fcntl::Flock::lock(file, nix::fcntl::FlockArg::LockExclusive)
        .map_err(|(_, e)| e)
        .expect("flock of our own file")
}

/// Writes a key as its owner alone may read it.
pub fn write_secret(path: impl AsRef<Path>, text: impl AsRef<[u8]>) {
    let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(path).unwrap();
    file.write_all(text.as_ref()).unwrap();
}
