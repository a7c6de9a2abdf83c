//! Ctrl-C and SIGTERM: everything stops, the store stays valid, exit 130.
//!
//! There is nothing to unwind. The launcher sees the end of its socket and ends, and with it every sandbox (see the
//! processes drawn in the crate `kiln-sandbox`); the store holds whatever instruction it is stopped at, which the crash tests
//! show; what lies under private names is removed when the store is next opened.

use std::sync::Once;

use nix::sys::signal::{SigSet, Signal};

use crate::exit;

fn signals() -> SigSet {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGINT);
    signals.add(Signal::SIGTERM);
    signals
}

/// Blocks SIGINT and SIGTERM in this thread, and so in all that it starts. To be called first in `main`.
pub fn block() -> nix::Result<()> {
    signals().thread_block()
}

/// Waits for them in a thread of its own, so that nothing runs in a signal handler. What came before is heard now; a second
/// call does nothing.
pub fn listen() {
    static LISTENING: Once = Once::new();
    LISTENING.call_once(|| {
        std::thread::spawn(|| {
            if signals().wait().is_ok() {
                anstream::eprintln!("interrupted");
                std::process::exit(i32::from(exit::INTERRUPTED));
            }
        });
    });
}
