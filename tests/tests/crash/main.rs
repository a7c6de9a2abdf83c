//! kiln killed at any instruction: the store verifies, the next run finishes, no process and no mount is left.
//!
//! A shim that the dynamic loader puts before libc counts the calls that change a file system and kills kiln at the N-th,
//! before or after it is done; what kiln calls without libc is met by killing at random times. `KILN_CRASH_ROUNDS` asks
//! for a longer campaign (`scripts/crash`), `KILN_CRASH_SEED` for the same one again.

mod builds;
mod exchanges;
mod logs;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use kiln_tests::ground::{self, Ground};
use kiln_tests::run::{Kiln, Ran};

/// The shim, compiled with this machine's C compiler.
struct Shim {
    dir: tempfile::TempDir,
}

impl Shim {
    fn new() -> Self {
        let shim = Self { dir: ground::directory(Ground::Disk) };
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/crash/shim.c");
        let compiled = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"])
            .arg(shim.library())
            .arg(source)
            .status();
        assert!(compiled.unwrap().success(), "cc cannot compile the shim");
        shim
    }

    fn library(&self) -> PathBuf {
        self.dir.path().join("shim.so")
    }

    fn count(&self) -> PathBuf {
        self.dir.path().join("count")
    }

    /// kiln that is killed at its call number `kill_at` (never, if 0), of those called `only` if that is said.
    fn preloaded_only(&self, kiln: Kiln, only: &str, kill_at: u64) -> Kiln {
        self.preloaded(kiln, kill_at).env("KILN_SHIM_ONLY", only)
    }

    fn preloaded(&self, kiln: Kiln, kill_at: u64) -> Kiln {
        kiln.env("LD_PRELOAD", self.library().display().to_string())
            .env("KILN_SHIM_KILL_AT", kill_at.to_string())
            .env("KILN_SHIM_COUNT", self.count().display().to_string())
    }

    fn report(&self) -> String {
        fs::read_to_string(self.count()).expect("the shim wrote its count: is kiln dynamically linked?")
    }

    /// How many such calls one run made.
    fn counted(&self) -> u64 {
        self.report().lines().next().expect("a count of all").parse().unwrap()
    }

    /// How many of each kind.
    fn kinds(&self) -> BTreeMap<String, u64> {
        let kind = |line: &str| line.split_once(' ').map(|(name, count)| (name.to_owned(), count.parse().unwrap()));
        self.report().lines().filter_map(kind).collect()
    }
}

/// Numbers that look random, the same for the same seed (Knuth, MMIX).
struct Dice(u64);

impl Dice {
    fn new() -> Self {
        let seed = match std::env::var("KILN_CRASH_SEED") {
            Ok(seed) => seed.parse().expect("KILN_CRASH_SEED is a number"),
            Err(_) => SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as u64,
        };
        println!("KILN_CRASH_SEED={seed}");
        Self(seed)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) % end.max(1)
    }
}

fn rounds(usual: u64) -> u64 {
    std::env::var("KILN_CRASH_ROUNDS").map_or(usual, |n| n.parse().expect("KILN_CRASH_ROUNDS is a number"))
}
fn died(ran: &Ran) -> bool {
    use std::os::unix::process::ExitStatusExt as _;
    ran.status.signal() == Some(9)
}
