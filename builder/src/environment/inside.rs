//! Running packages' scripts in the sandbox: as a pretended root of the tree, with no network and nothing of the host.

use std::path::{Path, PathBuf};
use std::time::Duration;

use kiln_sandbox::{Ended, Filter, How, Ids, Launcher, Limits, Process, Root, Slot, Spec, Stdio, Surface, plan, probe};

use super::EnvironmentError;
use super::configure::{Call, Inside};

/// How much of a failed script's output its error shows.
const LAST_WORDS: usize = 4 << 10;
/// After this a script hangs: configuring 150 packages takes seconds.
const DEADLINE: Duration = Duration::from_secs(30 * 60);

/// [`Inside`] by kiln's own sandbox.
#[derive(Debug)]
pub struct Sandboxed<'a> {
    launcher: &'a Launcher,
    slots: PathBuf,
}

impl<'a> Sandboxed<'a> {
    /// Sandboxes that `launcher` starts, under identities leased in the directory `slots`.
    pub fn new(launcher: &'a Launcher, slots: impl Into<PathBuf>) -> Self {
        Self { launcher, slots: slots.into() }
    }

    fn call(&self, tree: &Path, slot: &Slot, call: &Call) -> Result<(), EnvironmentError> {
        let mut spec = Spec::new(&call.program);
        spec.root = Root::WritableTree(tree.into());
        // No file over /etc: base-passwd replaces passwd and group there.
        spec.surface = Surface { etc: Vec::new(), ..Surface::default() };
        spec.ids = Ids::FakeRoot;
        spec.filter = Filter::FakeRoot;
        spec.limits = Limits { wall: Some(DEADLINE), ..Limits::default() };
        spec.process = Process {
            argv: std::iter::once(&call.program).chain(&call.arguments).map(Into::into).collect(),
            env: call.variables.clone(),
            ..Process::new(&call.program)
        };
        let plan = plan(&spec, &probe()).map_err(sandbox)?;
        let running = self.launcher.spawn(&plan, slot, Stdio::Log).map_err(sandbox)?;
        let mut log = Vec::new();
        let ended = running.wait(&mut |bytes| {
            log.extend_from_slice(bytes);
            // Twice as much is held, so that moving happens rarely.
            if log.len() > 2 * LAST_WORDS {
                log.drain(..log.len() - LAST_WORDS);
            }
        });
        match ended.map_err(sandbox)? {
            Ended { how: How::Exited(0), .. } => Ok(()),
            Ended { how, .. } => Err(EnvironmentError::Script {
                act: call.act.clone(),
                end: describe(how),
                log: String::from_utf8_lossy(&log[log.len().saturating_sub(LAST_WORDS)..]).trim_end().into(),
            }),
        }
    }
}

impl Inside for Sandboxed<'_> {
    fn run(&self, tree: &Path, calls: &[Call]) -> Result<(), EnvironmentError> {
        let slot = Slot::lease(&self.slots).map_err(sandbox)?;
        slot.adopt_tree(tree).map_err(sandbox)?;
        let ran = calls.iter().try_for_each(|call| self.call(tree, &slot, call));
        slot.reclaim_tree(tree).map_err(sandbox)?;
        ran
    }
}

fn describe(how: How) -> String {
    match how {
        How::Exited(code) => format!("exit code {code}"),
        How::Signaled(signal) => format!("ended by signal {signal}"),
        How::TimedOut => format!("not done after {} minutes", DEADLINE.as_secs() / 60),
        How::LimitExceeded(which) => format!("ran into its limit of {which:?}"),
        How::Cancelled => "cancelled".into(),
    }
}

fn sandbox(error: impl std::error::Error + Send + Sync + 'static) -> EnvironmentError {
    EnvironmentError::Sandbox(Box::new(error))
}
