//! `kiln doctor`: whether builds can be isolated here, and what to do if not.

use clap::Args;

use super::{Failure, Session};
use crate::doctor::Diagnosis;
use crate::render;

const AFTER_HELP: &str = "\
Exit codes:
  0    builds can be isolated and run here
  3    they cannot be isolated: see `missing`
  7    they can, but the store has no place to be";

/// Say whether builds can be isolated here, what is missing, what that costs, and the command that brings it.
///
/// Sandboxes are tried, not guessed: each feature is judged by what came of that. Nothing is changed and no socket is
/// opened; commands are printed, never run.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Doctor {}

impl Doctor {
    pub(super) fn run(self, session: &Session) -> Result<u8, Failure> {
        let diagnosis = Diagnosis::make(&session.store_root()?)?;
        match session.json() {
            true => session.print_json(&diagnosis)?,
            false => session.print_text(&render::doctor::diagnosis(&diagnosis, session.colour()))?,
        }
        Ok(diagnosis.exit_code())
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_help_reads_like_this() {
        let kiln = super::super::Cli::command();
        let mut command = kiln.find_subcommand("doctor").expect("a subcommand").clone().term_width(100);
        insta::assert_snapshot!("doctor.help", command.render_long_help());
    }
}
