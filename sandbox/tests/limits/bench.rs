//! The compiled payload, a private host directory to build in, a launcher, and what is left on the host afterwards.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use crate::here::not_here;
use crate::program;
use crate::skip;
use kiln_sandbox::{
    ControlGroups, Ended, Input, Launcher, ProcMode, SetupError, Slot, Spec, Stdio, Writable, plan, probe,
};
use tempfile::TempDir;

static PAYLOAD: &str = include_str!("payload.c");

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
    if let Err(refusal) = plan(&Spec::new("/payload"), &probe()) {
        skip::cannot_isolate(&refusal);
        return None;
    }
    let directory = TempDir::new().unwrap();
    let bench = Bench { directory, launcher: Launcher::start().unwrap(), slot: another_slot() };
    program::copy(compiled_payload(), &bench.path("payload"));
    bench.make_build("build");
    Some(bench)
}

/// A slot that no test has.
pub(crate) fn another_slot() -> Slot {
    Slot::lease(&std::env::temp_dir().join(format!("kiln-slots-{}", rustix::process::geteuid().as_raw()))).unwrap()
}

/// Whether limits on all processes together can be held here. A host without is in the list of what it cannot exercise.
pub(crate) fn groups(test: &str) -> bool {
    match probe().control_groups {
        ControlGroups::Unified { .. } | ControlGroups::Legacy { .. } => true,
        ControlGroups::Absent { why, .. } => {
            not_here("limits of a group", &format!("{test}: {why}"));
            false
        }
    }
}

fn compiled_payload() -> &'static Path {
    static COMPILED: OnceLock<(TempDir, PathBuf)> = OnceLock::new();
    let (_, path) = COMPILED.get_or_init(|| {
        let directory = TempDir::new().unwrap();
        let (source, binary) = (directory.path().join("payload.c"), directory.path().join("payload"));
        fs::write(&source, PAYLOAD).unwrap();
        let status = Command::new("cc").args(["-static", "-O1", "-o"]).args([&binary, &source]).status();
        assert!(status.unwrap().success(), "cc -static must work: it needs the C library's static archive");
        (directory, binary)
    });
    path
}

impl Bench {
    /// A path in the bench's directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A directory that a payload may fill.
    pub(crate) fn make_build(&self, name: &str) {
        fs::create_dir(self.path(name)).unwrap();
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(0o700)).unwrap();
        self.slot.adopt_tree(&self.path(name)).unwrap();
    }

    /// A run of the payload in its own build directory.
    pub(crate) fn spec_in(&self, build: &str, command: &str, arguments: &[&str]) -> Spec {
        let mut spec = Spec::new("/payload");
        spec.process.argv = ["payload", command].iter().chain(arguments).map(Into::into).collect();
        spec.process.cwd = "/build".into();
        spec.inputs.push(Input { source: self.path("payload"), target: "/payload".into() });
        spec.writable.push(Writable { source: self.path(build), target: "/build".into() });
        spec.limits.wall = Some(Duration::from_secs(120));
        spec.limits.grace = Duration::from_millis(100);
        spec
    }

    /// A run of the payload.
    pub(crate) fn spec(&self, command: &str, arguments: &[&str]) -> Spec {
        self.spec_in("build", command, arguments)
    }

    /// Runs it, or says why not.
    pub(crate) fn try_run(&self, spec: &Spec) -> Result<Run, SetupError> {
        let plan = plan(spec, &probe()).unwrap();
        let mut log = Vec::new();
        let running = self.launcher.spawn(&plan, &self.slot, Stdio::Log)?;
        let ended = running.wait(&mut |bytes| log.extend_from_slice(bytes))?;
        Ok(Run { ended, log: String::from_utf8_lossy(&log).into_owned() })
    }

    /// Runs it.
    pub(crate) fn run(&self, spec: &Spec) -> Run {
        self.try_run(spec).unwrap_or_else(|error| panic!("{error}: {:?}", error.errno()))
    }
}

/// A spec that sees everything of its own groups.
pub(crate) fn with_proc(mut spec: Spec) -> Spec {
    spec.proc_mode = ProcMode::Compat;
    spec
}

/// Groups of sandboxes that exist on this host for this user, of the kilns that `pid` names.
pub(crate) fn groups_of(pid: u32) -> Vec<PathBuf> {
    let parents = match probe().control_groups {
        ControlGroups::Unified { parent } => vec![parent],
        ControlGroups::Legacy { memory, pids, cpuacct } => vec![memory, pids, cpuacct],
        ControlGroups::Absent { .. } => Vec::new(),
    };
    let prefix = format!("kiln-sandbox-{pid}-");
    let entries = parents.iter().flat_map(|parent| fs::read_dir(parent).unwrap()).map(|entry| entry.unwrap());
    entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix)).map(|entry| entry.path()).collect()
}

/// Processes of this host whose arguments contain this word.
pub(crate) fn alive(word: &str) -> Vec<i32> {
    fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let mut words = line.split(|&byte| byte == 0);
            words.next() == Some(b"payload") && words.any(|found| found == word.as_bytes())
        })
        .collect()
}
