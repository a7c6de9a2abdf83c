//! Ctrl-C and SIGTERM: stop the sandboxes, leave the store valid, exit 130.
//!
//! The signals are blocked in every thread and taken by one that waits for them, so nothing runs in a signal handler and
//! no write is cut short. Whoever runs something that must end registers how to end it; everybody else asks
//! [`Interrupt::is_raised`] between steps. A second signal ends the process at once.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use nix::sys::signal::{SigSet, Signal};

use crate::exit;

type Stop = Box<dyn Fn() + Send>;

/// Whether somebody asked the process to stop. Clones are one and the same.
#[derive(Clone, Default)]
pub struct Interrupt(Arc<Inner>);

#[derive(Default)]
struct Inner {
    raised: AtomicBool,
    next: AtomicU64,
    stops: Mutex<BTreeMap<u64, Stop>>,
}

/// Takes its registration back when dropped.
pub struct Registered {
    interrupt: Interrupt,
    key: u64,
}

impl Interrupt {
    /// Blocks SIGINT and SIGTERM in this thread, and so in all that it starts, and waits for them in one of its own. To be
    /// called first in `main`.
    pub fn listen() -> nix::Result<Self> {
        let mut signals = SigSet::empty();
        signals.add(Signal::SIGINT);
        signals.add(Signal::SIGTERM);
        signals.thread_block()?;
        let interrupt = Self::default();
        let raised = interrupt.clone();
        std::thread::spawn(move || {
            while signals.wait().is_ok() {
                if raised.is_raised() {
                    std::process::exit(i32::from(exit::INTERRUPTED));
                }
                raised.raise();
            }
        });
        Ok(interrupt)
    }

    /// Whether the process was asked to stop.
    pub fn is_raised(&self) -> bool {
        self.0.raised.load(Ordering::SeqCst)
    }

    /// Stops everything that is registered, and all that registers later.
    pub fn raise(&self) {
        self.0.raised.store(true, Ordering::SeqCst);
        for stop in self.0.stops.lock().unwrap_or_else(PoisonError::into_inner).values() {
            stop();
        }
    }

    /// Calls `stop` when the process is asked to stop, at once if it already was, until the return value is dropped.
    pub fn register(&self, stop: impl Fn() + Send + 'static) -> Registered {
        let key = self.0.next.fetch_add(1, Ordering::Relaxed);
        let mut stops = self.0.stops.lock().unwrap_or_else(PoisonError::into_inner);
        // Under the same lock as `raise` iterates, so that no registration falls between its store and its walk.
        if self.is_raised() {
            stop();
        }
        stops.insert(key, Box::new(stop));
        Registered { interrupt: self.clone(), key }
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.interrupt.0.stops.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_registers_late_is_stopped_too_and_what_was_dropped_is_not() {
        let interrupt = Interrupt::default();
        let count = Arc::new(AtomicU64::new(0));
        let counter = || {
            let count = count.clone();
            move || {
                count.fetch_add(1, Ordering::SeqCst);
            }
        };
        let _early = interrupt.register(counter());
        drop(interrupt.register(counter()));
        interrupt.raise();
        let _late = interrupt.register(counter());
        assert_eq!(count.load(Ordering::SeqCst), 2);
    }
}
