//! `kiln man`: man pages, made from the same definitions as the help.

use std::path::PathBuf;

use clap::{Args, CommandFactory as _};

use super::{Cli, Failure};

/// Write man pages.
#[derive(Debug, Args)]
pub(super) struct Man {
    /// Directory to write kiln.1, kiln-build.1 and so on to
    directory: PathBuf,
}

impl Man {
    pub(super) fn run(self) -> Result<u8, Failure> {
        std::fs::create_dir_all(&self.directory)?;
        clap_mangen::generate_to(Cli::command(), &self.directory)?;
        Ok(crate::exit::YES)
    }
}
