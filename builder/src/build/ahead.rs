//! Sandboxes begun while builds run, for the builds that follow: most often they differ in nothing but their inputs.

use std::sync::{Mutex, PoisonError};

use kiln_sandbox::{Begun, Launcher, Plan, Running, SetupError, Slot, Stdio};

/// How many wait at most: each has a slot, of which root has some hundreds for all kilns together.
const MOST: usize = 4;

/// Those that no build has taken.
#[derive(Default)]
pub(super) struct Ahead(Mutex<Vec<First>>);

/// What there is of a sandbox, and who it is outside. It ends before its slot can be another's.
pub(super) struct First {
    begun: Option<Begun>,
    pub(super) slot: Slot,
}

impl Ahead {
    /// One that waits, if there is one.
    pub(super) fn take(&self) -> Option<First> {
        self.lock().pop()
    }

    /// Begins one like `plan`'s, if that can be, and not more than `wanted`.
    pub(super) fn begin(&self, launcher: &Launcher, plan: &Plan, wanted: usize) {
        if self.lock().len() >= wanted.min(MOST) {
            return;
        }
        // Nothing is lost if it fails: the next sandbox then starts from nothing, and says why it cannot.
        let Ok(slot) = Slot::lease(&super::slots()) else { return };
        if let Ok(Some(begun)) = launcher.begin(plan, &slot, Stdio::Log) {
            self.lock().push(First { begun: Some(begun), slot });
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<First>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl First {
    /// Nothing was begun.
    pub(super) fn nothing(slot: Slot) -> Self {
        Self { begun: None, slot }
    }

    /// Starts the sandbox, with what there is of it.
    pub(super) fn start(self, launcher: &Launcher, plan: &Plan) -> Result<(Running, Slot), SetupError> {
        let Self { begun, slot } = self;
        let running = match begun {
            Some(begun) => launcher.resume(begun, plan, &slot, Stdio::Log)?,
            None => launcher.spawn(plan, &slot, Stdio::Log)?,
        };
        Ok((running, slot))
    }
}
