//! The embedded engine keeps the contract of engines, in processes that are killed and whose date is wrong.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use kiln::engine::{Embedded, Limits};
use kiln_model::engine::{Desk, Engine};
use kiln_tests::engine::{Farm, Worker};
use kiln_tests::engine_suite;
use kiln_tests::ground::{self, Ground};
use tempfile::TempDir;

const LEASE: Duration = Duration::from_secs(1);
/// As many as one test enqueues, and few enough to fill it.
const ROOM: u64 = 16;

/// An engine in a directory of its own.
struct OnDisk {
    dir: TempDir,
    /// What the test itself holds open: ends with [`Farm::restart`].
    held: std::cell::RefCell<Vec<Embedded>>,
}

impl OnDisk {
    fn new(_: &'static str) -> Option<Self> {
        Some(Self { dir: ground::directory(Ground::Disk), held: Default::default() })
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("engine")
    }

    fn open(&self) -> Embedded {
        let limits = Limits { lease: LEASE, jobs: ROOM, ..Limits::default() };
        let engine = Embedded::open(&self.path(), limits).expect("a directory of ours");
        self.held.borrow_mut().push(engine.clone());
        engine
    }

    /// What the loader puts before libc, so that a process has another date.
    fn shim(&self) -> Option<PathBuf> {
        let library = self.dir.path().join("date.so");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/engine/date.c");
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"]).arg(&library).arg(source);
        match compiler.status() {
            Ok(status) => assert!(status.success(), "cc cannot compile the shim"),
            Err(_) => {
                ground::skipped("skewed_clock_changes_no_lease", "no cc: run scripts/setup --test");
                return None;
            }
        }
        Some(library)
    }
}

impl Farm for OnDisk {
    fn engine(&self) -> Box<dyn Engine + Send + Sync> {
        Box::new(self.open())
    }

    fn desk(&self, rebuilder: &str) -> Box<dyn Desk + Send + Sync> {
        Box::new(self.open().desk(rebuilder.parse().expect("a name of ours")))
    }

    fn worker(&self, rebuilder: &str, off: i64) -> Option<Worker> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_worker"));
        command.arg(self.path()).args([rebuilder, &LEASE.as_millis().to_string()]);
        if off != 0 {
            command.env("LD_PRELOAD", self.shim()?).env("DATE_OFF_BY", off.to_string());
        }
        Some(Worker::start(command))
    }

    fn restart(&mut self) {
        self.held.borrow_mut().clear();
        // There is no server: what is left of an engine whose processes are gone is its directory.
    }

    fn lease(&self) -> Duration {
        LEASE
    }

    fn room(&self) -> u64 {
        ROOM
    }
}

engine_suite!(OnDisk::new);
