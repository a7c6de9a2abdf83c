//! A bench per test: the compiled probe, a host directory of mode 0700 with inputs and writable directories, a launcher.
//!
//! With `KILN_TEST_AHEAD=1` every sandbox that can be is begun before it is asked for: the same must hold of it.

mod program;
mod skip;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use kiln_sandbox::{Ended, Input, Launcher, Plan, Root, Running, SetupError, Slot, Spec, Stdio, Writable, plan, probe};
use tempfile::TempDir;

/// What every probe includes.
static ATTEMPT: &str = include_str!("attempt.h");
static PROBE: Program = Program { name: "probe", source: include_str!("probe.c") };

/// A small static program in C.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Program {
    pub(crate) name: &'static str,
    pub(crate) source: &'static str,
}

/// Where a test's sandboxes come from.
pub(crate) struct Bench {
    directory: TempDir,
    pub(crate) launcher: Launcher,
    pub(crate) slot: Slot,
}

/// A finished run and what it wrote.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) ended: Ended,
    pub(crate) log: String,
}

/// The bench, or `None` with the reason printed if this host cannot isolate; a failure under `MUST_ISOLATE=1`.
pub(crate) fn bench() -> Option<Bench> {
    bench_of(PROBE)
}

/// The same with another program in the probe's place.
pub(crate) fn bench_of(program: Program) -> Option<Bench> {
    if let Err(refusal) = plan(&Spec::new("/probe"), &probe()) {
        skip::cannot_isolate(&refusal);
        return None;
    }
    Some(Bench::new(program))
}

/// Where the program is, compiled once per test binary.
fn compiled(program: Program) -> PathBuf {
    static COMPILED: Mutex<BTreeMap<&str, TempDir>> = Mutex::new(BTreeMap::new());
    let mut compiled = COMPILED.lock().unwrap_or_else(PoisonError::into_inner);
    let directory = compiled.entry(program.name).or_insert_with(|| {
        let directory = TempDir::new().unwrap();
        let (source, binary) = (directory.path().join("probe.c"), directory.path().join("probe"));
        fs::write(directory.path().join("attempt.h"), ATTEMPT).unwrap();
        fs::write(&source, program.source).unwrap();
        let status = Command::new("cc").args(["-static", "-O1", "-Wall", "-o"]).args([&binary, &source]).status();
        assert!(status.unwrap().success(), "cc -static must work: it needs the C library's static archive");
        directory
    });
    directory.path().join("probe")
}

impl Bench {
    fn new(program: Program) -> Self {
        // tempfile makes it with mode 0700, as kiln's own directories are: root's pid 1 must get past that.
        let directory = TempDir::new().unwrap();
        let slot =
            Slot::lease(&std::env::temp_dir().join(format!("kiln-slots-{}", rustix::process::geteuid().as_raw())))
                .unwrap();
        let bench = Self { directory, launcher: Launcher::start().unwrap(), slot };
        for (name, mode) in [("store", 0o1775), ("build", 0o700), ("input", 0o755)] {
            fs::create_dir(bench.path(name)).unwrap();
            fs::set_permissions(bench.path(name), fs::Permissions::from_mode(mode)).unwrap();
        }
        fs::write(bench.path("input/file"), "pinned\n").unwrap();
        fs::write(bench.path("single"), "pinned\n").unwrap();
        std::os::unix::fs::symlink("input/file", bench.path("link")).unwrap();
        program::copy(&compiled(program), &bench.path("probe"));
        // Whatever the caller's umask: another user's payload is to read them.
        for (name, mode) in [("probe", 0o755), ("single", 0o644), ("input/file", 0o644)] {
            fs::set_permissions(bench.path(name), fs::Permissions::from_mode(mode)).unwrap();
        }
        bench.slot.adopt_tree(&bench.path("store")).unwrap();
        bench.slot.adopt_tree(&bench.path("build")).unwrap();
        bench
    }

    /// A path in the bench's directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A run of the probe with inputs, a writable store and build directory.
    pub(crate) fn spec(&self, command: &str, arguments: &[&str]) -> Spec {
        let mut spec = Spec::new("/probe");
        spec.process.argv = ["probe", command].iter().chain(arguments).map(Into::into).collect();
        spec.process.cwd = "/build".into();
        for (source, target) in [
            ("probe", "/probe"),
            ("input", "/nix/store/input"),
            ("single", "/nix/store/single"),
            ("link", "/nix/store/link"),
        ] {
            spec.inputs.push(Input { source: self.path(source), target: target.into() });
        }
        for (source, target) in [("store", "/nix/store"), ("build", "/build")] {
            spec.writable.push(Writable { source: self.path(source), target: target.into() });
        }
        spec.limits.wall = Some(Duration::from_secs(60));
        if all_ahead() {
            // The one default that does not wait: time_namespaces(7).
            spec.time_offsets = None;
        }
        spec
    }

    /// Starts it.
    pub(crate) fn start(&self, plan: &Plan, stdio: Stdio) -> Result<Running, SetupError> {
        self.start_by(&self.launcher, plan, stdio)
    }

    /// The same by another launcher.
    pub(crate) fn start_by(&self, launcher: &Launcher, plan: &Plan, stdio: Stdio) -> Result<Running, SetupError> {
        let begun = if all_ahead() { launcher.begin(plan, &self.slot, stdio)? } else { None };
        match begun {
            Some(begun) => launcher.resume(begun, plan, &self.slot, stdio),
            None => launcher.spawn(plan, &self.slot, stdio),
        }
    }

    /// The same on a root of its own with the mount points that a root must ship.
    pub(crate) fn tree_spec(&self, command: &str, arguments: &[&str], root: impl FnOnce(PathBuf) -> Root) -> Spec {
        let tree = self.path("tree");
        for name in ["nix/store", "build", "proc", "dev", "tmp", "etc"] {
            fs::create_dir_all(tree.join(name)).unwrap();
        }
        for name in ["etc/passwd", "etc/group", "etc/hosts", "etc/own", "probe"] {
            fs::write(tree.join(name), "the tree's\n").unwrap();
        }
        self.slot.adopt_tree(&tree).unwrap();
        let mut spec = self.spec(command, arguments);
        spec.root = root(tree);
        spec
    }

    /// Runs it, or says why not.
    pub(crate) fn try_run(&self, spec: &Spec) -> Result<Run, SetupError> {
        let plan = plan(spec, &probe()).unwrap();
        let mut log = Vec::new();
        let ended = self.start(&plan, Stdio::Log)?.wait(&mut |bytes| log.extend_from_slice(bytes))?;
        Ok(Run { ended, log: String::from_utf8_lossy(&log).into_owned() })
    }

    /// Runs it.
    pub(crate) fn run(&self, spec: &Spec) -> Run {
        self.try_run(spec).unwrap_or_else(|error| panic!("{error}: {:?}", error.errno()))
    }
}

/// Whether sandboxes are begun ahead where they can be.
pub(crate) fn all_ahead() -> bool {
    std::env::var_os("KILN_TEST_AHEAD").is_some_and(|value| value == "1")
}

/// Processes of this host that run the probe with this argument.
pub(crate) fn alive(argument: &str) -> Vec<i32> {
    fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let mut words = line.split(|&byte| byte == 0);
            words.next() == Some(b"probe") && words.any(|word| word == argument.as_bytes())
        })
        .collect()
}

/// The owner of a file of the host.
pub(crate) fn owner(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().uid()
}
