//! `kiln completions`: for bash, zsh, fish and others, made from the same definitions as the help.

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use super::{Cli, Failure};

/// Print shell completions.
#[derive(Debug, Args)]
pub(super) struct Completions {
    /// The shell
    shell: Shell,
}

impl Completions {
    pub(super) fn run(self) -> Result<u8, Failure> {
        clap_complete::generate(self.shell, &mut Cli::command(), "kiln", &mut std::io::stdout());
        Ok(crate::exit::YES)
    }
}
