//! One command in a sandbox of its own, without recipe or store: what `kiln sandbox` runs.
//!
//! A [`Request`] is what was asked for; [`Request::spec`] checks it and turns it into the sandbox's `Spec`, or says which
//! part of it cannot be. Nothing of the host is inside but what the request names. Whatever goes wrong before the
//! command's first instruction is a [`CommandError`], never an end of the command.

mod error;
mod program;
mod tree;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use kiln_sandbox::{
    Ended, Filter, Ids, Input, Launcher, Limits, Network, ProcMode, Root, SetupError, Slot, Spec, Stdio, TimeBase,
    Tmpfs, Writable, plan, probe, suppose, sweep,
};

use crate::build::slots;
use crate::interrupt;

pub use error::CommandError;
use program::{Inside, View};

/// Where programs are looked for if the request sets no `PATH`.
pub const PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// Mounts of one request.
const MOST_MOUNTS: usize = 10_000;

/// What was asked for.
#[derive(Debug, Clone)]
pub struct Request {
    /// The program's name or path inside, and its arguments.
    pub command: Vec<OsString>,
    /// What is mounted where. One at `/` is the root; without, the root is empty.
    pub mounts: Vec<Mount>,
    /// Its variables. `PATH` has a default.
    pub env: BTreeMap<OsString, OsString>,
    /// Working directory inside.
    pub cwd: PathBuf,
    /// `uname -n`.
    pub hostname: String,
    /// File mode creation mask.
    pub umask: u32,
    /// Who it is inside.
    pub ids: Ids,
    /// What it can reach.
    pub network: Network,
    /// How much of `/proc` there is.
    pub proc_mode: ProcMode,
    /// What the monotonic clocks read; `None` shows the host's.
    pub clocks: Option<TimeBase>,
    /// Where it must stop.
    pub limits: Limits,
}

/// One thing at one place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Where it is inside.
    pub target: PathBuf,
    /// What it is.
    pub what: What,
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// A directory, file or symlink of the host, read-only.
    Host(PathBuf),
    /// A directory of the host that the command may change.
    Writable(PathBuf),
    /// A fresh file system in memory of at most so many bytes.
    Memory(u64),
    /// A symlink with this text.
    Link(OsString),
}

/// Where the command's output goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// The caller's own stdin, stdout and stderr.
    Caller,
    /// stdout and stderr to the caller's stderr, no stdin.
    Talk,
}

impl Request {
    /// `command` on an empty root, with the sandbox's own defaults for all else.
    pub fn new(command: Vec<OsString>) -> Self {
        let spec = Spec::new("/");
        Self {
            command,
            mounts: Vec::new(),
            env: BTreeMap::new(),
            cwd: spec.process.cwd,
            hostname: spec.surface.hostname,
            umask: spec.process.umask,
            ids: spec.ids,
            network: spec.network,
            proc_mode: spec.proc_mode,
            clocks: spec.time_offsets,
            limits: spec.limits,
        }
    }

    /// Checks it all and says what the sandbox is to be. Symlinks that are asked for are made below `private`.
    pub fn spec(&self, private: &Path) -> Result<Spec, CommandError> {
        self.check()?;
        let name = self.command.first().ok_or(CommandError::NoCommand)?;
        let view = View::of(&self.mounts);
        let program = self.program(name, &view)?;

        let mut spec = Spec::new(program);
        spec.process.argv = self.command.clone();
        let mut env = BTreeMap::from([(OsString::from("PATH"), OsString::from(PATH))]);
        env.extend(self.env.clone());
        spec.process.env = env.into_iter().map(|(name, value)| joined(&name, &value)).collect();
        spec.process.cwd = self.cwd.clone();
        spec.process.umask = self.umask;
        spec.surface.hostname = self.hostname.clone();
        spec.ids = self.ids;
        spec.filter = match self.ids {
            Ids::FakeRoot => Filter::FakeRoot,
            Ids::One { .. } | Ids::Range => Filter::Build,
        };
        spec.network = self.network;
        spec.proc_mode = self.proc_mode;
        spec.time_offsets = self.clocks;
        spec.limits = self.limits.clone();
        self.mount(&mut spec, private)?;

        let own_etc = |name: &str| {
            let path = Path::new("/etc").join(name);
            // What the request puts at or above it is not to be written to or covered.
            let named =
                self.mounts.iter().any(|mount| mount.target != Path::new("/") && path.starts_with(&mount.target));
            // A root's own can only be covered if it is there, and no symlink leads away from it.
            !named && view.root().is_none_or(|root| program::is_plain_file(&root.join("etc").join(name)))
        };
        spec.surface.etc.retain(|(name, _)| own_etc(name));
        Ok(spec)
    }

    fn mount(&self, spec: &mut Spec, private: &Path) -> Result<(), CommandError> {
        for (number, mount) in self.mounts.iter().enumerate() {
            let target = mount.target.clone();
            let at_root = target == Path::new("/");
            match &mount.what {
                What::Host(source) if at_root => spec.root = Root::Tree(source.clone()),
                What::Writable(source) if at_root => spec.root = Root::WritableTree(source.clone()),
                What::Memory(_) | What::Link(_) if at_root => return Err(CommandError::NoRoot),
                What::Host(source) => spec.inputs.push(Input { source: source.clone(), target }),
                What::Writable(source) => spec.writable.push(Writable { source: source.clone(), target }),
                What::Memory(size) => {
                    spec.tmpfs.retain(|own| own.target != target);
                    spec.tmpfs.push(Tmpfs { size: *size, ..Tmpfs::scratch(target) });
                }
                What::Link(text) => {
                    let source = private.join(number.to_string());
                    std::os::unix::fs::symlink(text, &source).map_err(|error| CommandError::Io {
                        act: "making a symlink at",
                        path: source.clone(),
                        error,
                    })?;
                    spec.inputs.push(Input { source, target });
                }
            }
        }
        let taken: BTreeSet<&Path> = self.mounts.iter().map(|mount| mount.target.as_path()).collect();
        let root = match &spec.root {
            Root::Tree(root) | Root::WritableTree(root) => Some(root.clone()),
            Root::Empty => None,
        };
        let asked =
            |own: &Tmpfs| self.mounts.iter().any(|m| m.target == own.target && matches!(m.what, What::Memory(_)));
        spec.tmpfs.retain(|own| {
            let possible =
                own.target != Path::new("/tmp") || root.as_ref().is_none_or(|root| root.join("tmp").is_dir());
            asked(own) || (possible && !taken.contains(own.target.as_path()))
        });
        if let Some(root) = root {
            if self.proc_mode == ProcMode::None && root.join("proc/self").symlink_metadata().is_ok() {
                return Err(CommandError::RootShowsProcesses { root });
            }
            let needed = ["dev", "proc"].iter().filter(|name| **name != "proc" || self.proc_mode != ProcMode::None);
            for name in needed {
                if !root.join(name).is_dir() {
                    return Err(CommandError::RootLacks { root, name });
                }
            }
        }
        Ok(())
    }

    /// What can be said without looking at more than the sources.
    fn check(&self) -> Result<(), CommandError> {
        plain("--chdir", &self.cwd)?;
        if self.mounts.len() > MOST_MOUNTS {
            return Err(CommandError::TooMany { count: self.mounts.len(), most: MOST_MOUNTS });
        }
        let mut targets = BTreeSet::new();
        for mount in &self.mounts {
            plain("a mount's target", &mount.target)?;
            if !targets.insert(mount.target.components().collect::<PathBuf>()) {
                return Err(CommandError::TwoMounts { target: mount.target.clone() });
            }
            let own = ["/dev", "/proc"].iter().any(|own| mount.target.starts_with(own));
            if own && !(mount.target == Path::new("/dev/shm") && matches!(mount.what, What::Memory(_))) {
                return Err(CommandError::Own { target: mount.target.clone() });
            }
            let unreadable = |path: &Path| {
                let path = path.to_owned();
                move |error| CommandError::Source { path, error }
            };
            match &mount.what {
                What::Host(source) => {
                    source.symlink_metadata().map_err(unreadable(source))?;
                }
                What::Writable(source) => {
                    if !source.metadata().map_err(unreadable(source))?.is_dir() {
                        return Err(CommandError::NotDirectory { path: source.clone() });
                    }
                }
                What::Memory(_) | What::Link(_) => {}
            }
        }
        for (name, value) in &self.env {
            let odd = |text: &OsStr| text.as_bytes().contains(&0);
            if name.is_empty() || name.as_bytes().contains(&b'=') || odd(name) || odd(value) {
                return Err(CommandError::Variable { name: name.to_string_lossy().into_owned() });
            }
        }
        if self.command.iter().any(|word| word.as_bytes().contains(&0)) {
            return Err(CommandError::Nul);
        }
        if self.ids == Ids::FakeRoot && self.proc_mode == ProcMode::None {
            return Err(CommandError::FakeRootNeedsProc);
        }
        if self.hostname.is_empty() || self.hostname.len() > 64 || self.hostname.contains('\0') {
            return Err(CommandError::Hostname { name: self.hostname.clone() });
        }
        Ok(())
    }

    /// The program's path inside.
    fn program(&self, name: &OsStr, view: &View<'_>) -> Result<PathBuf, CommandError> {
        let command = || name.to_string_lossy().into_owned();
        if name.as_bytes().contains(&b'/') {
            let path = self.cwd.join(name);
            let path: PathBuf = path.components().filter(|part| *part != Component::CurDir).collect();
            return match view.look(&path) {
                // What lies on a file system that only comes to be inside, or leads through `..`, the kernel decides.
                Inside::Program(_) | Inside::Unknown => plain("the command", &path).map(|()| path),
                Inside::Other => Err(CommandError::NotExecutable { path }),
                Inside::Absent => Err(CommandError::NotFound { command: command(), hint: self.hint() }),
            };
        }
        let list = self.env.get(OsStr::new("PATH")).map_or(OsStr::new(PATH), OsString::as_os_str);
        let candidates: Vec<PathBuf> =
            std::env::split_paths(list).filter(|directory| directory.is_absolute()).map(|d| d.join(name)).collect();
        let found = candidates.iter().find(|path| matches!(view.look(path), Inside::Program(_)));
        match (found, candidates.iter().find(|path| view.look(path) == Inside::Other)) {
            (Some(path), _) => Ok(path.clone()),
            (None, Some(path)) => Err(CommandError::NotExecutable { path: path.clone() }),
            (None, None) => Err(CommandError::NotFound { command: command(), hint: self.hint() }),
        }
    }

    fn hint(&self) -> &'static str {
        match self.mounts.is_empty() {
            true => {
                "which is empty: add --host-root (the host's files, read-only), --ro-bind SRC DEST, or \
                 --environment RECIPE"
            }
            false => "as it was put together: add what holds it with --ro-bind SRC DEST, or set PATH with --setenv",
        }
    }

    /// Runs it to its end by a launcher of its own. As root the writable directories change hands for that time; where there is
    /// a range of ids, all that it leaves in them is the caller's afterwards. Begins to listen for interruptions, which are to
    /// have been blocked.
    pub fn run(&self, launcher: Result<Launcher, SetupError>, output: Output) -> Result<Ended, CommandError> {
        let private = match self.mounts.iter().any(|mount| matches!(mount.what, What::Link(_))) {
            true => Some(tempfile::Builder::new().prefix("kiln-").tempdir().map_err(|error| CommandError::Io {
                act: "making a directory in",
                path: std::env::temp_dir(),
                error,
            })?),
            false => None,
        };
        let mut spec = self.spec(private.as_ref().map_or(Path::new("/"), tempfile::TempDir::path))?;
        let stdio = match output {
            // What is not read cannot be counted.
            Output::Caller => {
                spec.limits.log_bytes = None;
                Stdio::Inherit
            }
            Output::Talk => Stdio::Log,
        };
        let plan = plan(&spec, &suppose(&spec))?;
        // What was supposed of the host and is not so is the reason, wherever it showed.
        let explained = |error: CommandError| match kiln_sandbox::plan(&spec, &probe()) {
            Err(refused) => refused.into(),
            Ok(_) => error,
        };
        let launcher = launcher.map_err(|error| explained(error.into()))?;
        let slot = match self.ids {
            Ids::One { .. } | Ids::FakeRoot => Slot::lease(&slots()),
            Ids::Range => Slot::lease_range(&slots()),
        }
        .map_err(|error| explained(error.into()))?;
        let writable = self.mounts.iter().filter_map(|mount| match &mount.what {
            What::Writable(source) => Some(source.as_path()),
            What::Host(_) | What::Memory(_) | What::Link(_) => None,
        });
        let lent = tree::Lent::lend(&slot, self.ids, writable)?;
        let ended = launcher.spawn(&plan, &slot, stdio).and_then(|running| {
            // What the command need not wait for.
            interrupt::listen();
            sweep();
            running.wait(&mut |bytes| {
                use std::io::Write as _;
                // Talk: a closed terminal does not end a command.
                let _ = std::io::stderr().lock().write_all(bytes);
            })
        });
        launcher.leave();
        lent.take_back()?;
        ended.map_err(|error| explained(error::explained(error, &spec, &View::of(&self.mounts))))
    }
}

fn joined(name: &OsStr, value: &OsStr) -> OsString {
    let mut text = name.to_owned();
    text.push("=");
    text.push(value);
    text
}

/// A path inside: absolute, and no step of it leads back.
fn plain(what: &'static str, path: &Path) -> Result<(), CommandError> {
    let steps = path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    match path.is_absolute() && steps && !path.as_os_str().as_bytes().contains(&0) {
        true => Ok(()),
        false => Err(CommandError::Path { what, path: path.to_owned() }),
    }
}

#[cfg(test)]
mod tests;
