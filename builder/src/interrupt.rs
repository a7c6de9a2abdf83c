//! Ctrl-C and SIGTERM: everything stops, the store stays valid, exit 130.
//!
//! There is nothing to unwind. The launcher sees the end of its socket and ends, and with it every sandbox (see the
//! processes drawn in the crate `kiln-sandbox`); the store holds whatever instruction it is stopped at, which the crash tests
//! show; what lies under private names is removed when the store is next opened.

use nix::sys::signal::{SigSet, Signal};

use crate::exit;

/// Blocks SIGINT and SIGTERM in this thread, and so in all that it starts, and waits for them in one of its own, so that
/// nothing runs in a signal handler. To be called first in `main`.
pub fn listen() -> nix::Result<()> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGINT);
    signals.add(Signal::SIGTERM);
    signals.thread_block()?;
    std::thread::spawn(move || {
        if signals.wait().is_ok() {
            anstream::eprintln!("interrupted");
            std::process::exit(i32::from(exit::INTERRUPTED));
        }
    });
    Ok(())
}
