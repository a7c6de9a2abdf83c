//! Why a command was not run. How a command that ran ended is no error.

use std::io;
use std::path::{Path, PathBuf};

use kiln_sandbox::{BadSpec, PlanError, Refusal, Root, SetupError, SlotError, Spec};
use rustix::io::Errno;

use super::program::View;
use crate::exit::Kind;

/// Why a command was not run.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// There is none.
    #[error("no command: add one after --")]
    NoCommand,
    /// A word of it has a NUL.
    #[error("a word of the command contains a NUL byte")]
    Nul,
    /// It is nowhere inside.
    #[error("{command} is not in the sandbox's root, {hint}")]
    NotFound {
        /// Its name.
        command: String,
        /// What to add.
        hint: &'static str,
    },
    /// It is there, and no program.
    #[error("{} in the sandbox is not an executable file", path.display())]
    NotExecutable {
        /// Where, inside.
        path: PathBuf,
    },
    /// It is there, and what runs it is not.
    #[error("{} needs {}, which is not in the sandbox's root: add it with --ro-bind SRC DEST", program.display(), interpreter.display())]
    Interpreter {
        /// The program, inside.
        program: PathBuf,
        /// Its loader, or the interpreter of its first line.
        interpreter: PathBuf,
    },
    /// The kernel would not run it.
    #[error("running {} in the sandbox", program.display())]
    Program {
        /// The program, inside.
        program: PathBuf,
        /// Why.
        #[source]
        error: SetupError,
    },
    /// A path inside is no such path.
    #[error("{what} is {}: expected an absolute path without `.` and `..`", path.display())]
    Path {
        /// Which.
        what: &'static str,
        /// The path.
        path: PathBuf,
    },
    /// More than one sandbox is given.
    #[error("{count} mounts are more than the {most} that one sandbox may have: give a directory that holds them")]
    TooMany {
        /// How many were asked for.
        count: usize,
        /// How many there may be.
        most: usize,
    },
    /// One place, two things.
    #[error("two mounts at {}: leave one out", target.display())]
    TwoMounts {
        /// The place, inside.
        target: PathBuf,
    },
    /// What is the sandbox's cannot be replaced.
    #[error("nothing can be mounted at {}: /dev and /proc are the sandbox's own (see --proc)", target.display())]
    Own {
        /// The place, inside.
        target: PathBuf,
    },
    /// A root can only be a directory of the host.
    #[error("the root can be a directory of the host (--ro-bind SRC /) or left empty, not a tmpfs or symlink")]
    NoRoot,
    /// A root has no place for the sandbox's own.
    #[error("{} cannot be the root: it has no directory {name}", root.display())]
    RootLacks {
        /// The root, on the host.
        root: PathBuf,
        /// What it must ship.
        name: &'static str,
    },
    /// Without a `/proc` of its own a root's would be seen.
    #[error("{} shows the host's processes: leave out --proc none, or take another root", root.join("proc").display())]
    RootShowsProcesses {
        /// The root, on the host.
        root: PathBuf,
    },
    /// A source cannot be looked at.
    #[error("looking at {} of the host", path.display())]
    Source {
        /// The source.
        path: PathBuf,
        /// Why.
        #[source]
        error: io::Error,
    },
    /// Only directories can be written to.
    #[error("{} is not a directory: only directories can be given with --bind", path.display())]
    NotDirectory {
        /// The source.
        path: PathBuf,
    },
    /// Root's directory cannot be lent.
    #[error("as root, {} cannot be given with --bind: {why}; run kiln as the directory's owner instead", path.display())]
    NotLendable {
        /// The file that forbids it.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// With a range of ids, what was the caller's before could not be told from what is to be taken back.
    #[error("with --uid-range, {} cannot be given with --bind: {why}; make it wholly yours, or give another directory", path.display())]
    NotWhollyOwn {
        /// The file that forbids it.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// A variable cannot be set.
    #[error("no variable can be named {name:?}, or its value contains a NUL byte")]
    Variable {
        /// Its name.
        name: String,
    },
    /// No host has this name.
    #[error("--hostname {name:?}: expected 1 to 64 bytes")]
    Hostname {
        /// The name.
        name: String,
    },
    /// A fake root writes its own id map.
    #[error("--fake-root needs /proc: leave out --proc none")]
    FakeRootNeedsProc,
    /// A mount has no place to be put.
    #[error("{} has no place in the sandbox's root, which is read-only: mount onto what is there, or below a --tmpfs", target.display())]
    NoPlace {
        /// Where it was to be, inside, or what was to be there.
        target: PathBuf,
        /// What failed.
        #[source]
        error: SetupError,
    },
    /// The working directory is not there.
    #[error("--chdir {}: no such directory in the sandbox", path.display())]
    NoDirectory {
        /// The directory, inside.
        path: PathBuf,
        /// What failed.
        #[source]
        error: SetupError,
    },
    /// What was looked at is not what is there now.
    #[error("{} changed while the sandbox was set up: leave it alone until the command runs, and run it again", path.display())]
    Changed {
        /// The source, on the host.
        path: PathBuf,
        /// What failed.
        #[source]
        error: SetupError,
    },
    /// What is asked for cannot be.
    #[error("the sandbox that was asked for cannot be")]
    Spec(#[from] BadSpec),
    /// The host cannot do what is asked.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The sandbox could not be set up.
    #[error("setting up the sandbox; `kiln doctor` says what this host lacks")]
    Setup(#[from] SetupError),
    /// No outer identity.
    #[error("preparing the sandbox's identity")]
    Slot(#[from] SlotError),
    /// A file of ours.
    #[error("{act} {}", path.display())]
    Io {
        /// What was tried.
        act: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        error: io::Error,
    },
}

impl CommandError {
    /// What sort of error it is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::NoCommand
            | Self::Nul
            | Self::NotFound { .. }
            | Self::NotExecutable { .. }
            | Self::Interpreter { .. }
            | Self::Program { .. }
            | Self::Path { .. }
            | Self::TooMany { .. }
            | Self::TwoMounts { .. }
            | Self::Own { .. }
            | Self::NoRoot
            | Self::RootLacks { .. }
            | Self::RootShowsProcesses { .. }
            | Self::Source { .. }
            | Self::NotDirectory { .. }
            | Self::NotLendable { .. }
            | Self::NotWhollyOwn { .. }
            | Self::Variable { .. }
            | Self::Hostname { .. }
            | Self::FakeRootNeedsProc
            | Self::NoPlace { .. }
            | Self::Changed { .. }
            | Self::Spec(_)
            | Self::NoDirectory { .. } => Kind::BadInput,
            Self::Refused(_) | Self::Setup(_) | Self::Slot(_) => Kind::CannotIsolate,
            Self::Io { .. } => Kind::Host,
        }
    }
}

impl From<PlanError> for CommandError {
    fn from(error: PlanError) -> Self {
        match error {
            PlanError::Spec(bad) => Self::Spec(bad),
            PlanError::Host(refusal) => Self::Refused(refusal),
        }
    }
}

/// Steps that fail for what was asked rather than for what the host lacks.
pub(super) fn explained(error: SetupError, spec: &Spec, view: &View<'_>) -> CommandError {
    let SetupError::Step { step, path, .. } = &error else {
        return match error {
            SetupError::Source { path, error } => CommandError::Source { path, error },
            other => CommandError::Setup(other),
        };
    };
    // The first word is the process that performs it.
    let what = step.split(' ').nth(1).unwrap_or_default();
    let errno = error.errno().map(Errno::from_raw_os_error);
    match (what, errno) {
        ("execute", Some(errno)) => {
            let program = spec.process.program.clone();
            match (errno, view.interpreter(&program)) {
                (Errno::NOENT, Some(interpreter)) => CommandError::Interpreter { program, interpreter },
                _ => CommandError::Program { program, error },
            }
        }
        ("bind" | "detach" | "root", Some(errno)) if changed(path.as_deref(), spec, errno) => {
            CommandError::Changed { path: path.clone().unwrap_or_default(), error }
        }
        ("enter", Some(_)) => CommandError::NoDirectory { path: spec.process.cwd.clone(), error },
        ("bind" | "tmpfs" | "dev" | "proc", Some(Errno::ROFS | Errno::NOTDIR | Errno::LOOP | Errno::EXIST)) => {
            let target = step.split(' ').nth(2).filter(|_| what == "bind" || what == "tmpfs");
            let target = target.map(|target| PathBuf::from("/").join(target)).or_else(|| path.clone());
            CommandError::NoPlace { target: target.unwrap_or_else(|| PathBuf::from("/").join(what)), error }
        }
        _ => CommandError::Setup(error),
    }
}

/// Whether a source of the host is not what it was when it was looked at: another file, or a symlink, or nothing.
fn changed(source: Option<&Path>, spec: &Spec, errno: Errno) -> bool {
    let Some(source) = source.filter(|path| {
        spec.inputs.iter().any(|input| input.source == *path)
            || spec.writable.iter().any(|writable| writable.source == *path)
            || matches!(&spec.root, Root::Tree(root) | Root::WritableTree(root) if root == path)
    }) else {
        return false;
    };
    let gone = || source.symlink_metadata().map_or(true, |file| file.is_symlink());
    errno == Errno::STALE || (matches!(errno, Errno::LOOP | Errno::NOENT | Errno::NOTDIR) && gone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiln_sandbox::Input;

    fn failed(step: &str, path: &Path, errno: Errno) -> SetupError {
        SetupError::Step { step: step.into(), path: Some(path.into()), error: errno.into() }
    }

    #[test]
    fn a_source_that_was_swapped_under_us_is_bad_input_that_names_it() {
        let directory = tempfile::tempdir().unwrap();
        let link = directory.path().join("link");
        std::os::unix::fs::symlink("/", &link).unwrap();
        let mut spec = Spec::new("/program");
        spec.inputs = vec![Input { source: link.clone(), target: "/input".into() }];
        for (step, errno) in [
            ("init bind input source 0 ro", Errno::STALE),
            ("init bind input source 0 ro", Errno::LOOP),
            ("launcher detach sources", Errno::STALE),
        ] {
            let error = explained(failed(step, &link, errno), &spec, &View::of(&[]));
            assert_eq!(error.kind(), Kind::BadInput, "{step}");
            assert!(error.to_string().contains("link changed while"), "{error}");
        }
    }

    #[test]
    fn a_place_that_is_a_symlink_is_not_taken_for_a_changed_source() {
        let directory = tempfile::tempdir().unwrap();
        let mut spec = Spec::new("/program");
        spec.inputs = vec![Input { source: directory.path().into(), target: "/input".into() }];
        let error =
            explained(failed("init bind input source 0 ro", directory.path(), Errno::LOOP), &spec, &View::of(&[]));
        assert!(matches!(error, CommandError::NoPlace { .. }), "{error}");
    }

    #[test]
    fn a_spec_that_cannot_be_is_bad_input_and_a_host_that_lacks_something_is_not() {
        let mut spec = Spec::new("/program");
        spec.process.env = vec!["A=\0".into()];
        let bad = kiln_sandbox::plan(&spec, &kiln_sandbox::probe()).unwrap_err();
        assert_eq!(CommandError::from(bad).kind().code(), 2);
        let refusal = Refusal { missing: "all".into(), why: "so".into(), remedy: "none".into() };
        assert_eq!(CommandError::from(PlanError::Host(refusal)).kind().code(), 3);
    }
}
