//! What a command works with, opened when it is first needed: settings, store, mirrors, sandbox.

use std::cell::OnceCell;
use std::num::NonZeroU32;
use std::path::PathBuf;

use kiln_sandbox::{Host, Launcher};

use super::progress::{Progress, Talk};
use super::{Failure, Global};
use crate::build::Builder;
use crate::config::Config;
use crate::event::Event;
use crate::exit::Kind;
use crate::fetch::{Connection, Fetcher};
use crate::interrupt::Interrupt;
use crate::store::Store;

/// The state of one run of `kiln`.
pub struct Session {
    global: Global,
    interrupt: Interrupt,
    progress: Progress,
    config: OnceCell<Config>,
    store: OnceCell<Store>,
    fetcher: OnceCell<Fetcher>,
    launcher: OnceCell<Launcher>,
    host: OnceCell<Host>,
}

impl Session {
    pub(super) fn new(global: Global, interrupt: Interrupt) -> Self {
        let talk = match (global.quiet, global.verbose) {
            (true, _) => Talk::Quiet,
            (false, true) => Talk::Verbose,
            (false, false) => Talk::Normal,
        };
        Self {
            global,
            interrupt,
            progress: Progress::new(talk),
            config: OnceCell::new(),
            store: OnceCell::new(),
            fetcher: OnceCell::new(),
            launcher: OnceCell::new(),
            host: OnceCell::new(),
        }
    }
}
