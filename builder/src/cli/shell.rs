//! `kiln shell`: enter a recipe's environment, or what a failed build left.

use std::path::PathBuf;

use clap::Args;

use super::{Failure, Session};
use crate::exit;

/// Enter a recipe's environment, or what a failed build left.
///
/// The sandbox is the build's: same root, same inputs, no network. With `--failed` the build directory and the outputs of
/// the last failed build that was kept (`--keep-failed`) are there, and stay as they are left.
#[derive(Debug, Args)]
pub(super) struct Shell {
    /// Recipe directory, or its recipe.toml
    recipe: PathBuf,
    /// Enter what the last failed build left
    #[arg(long)]
    failed: bool,
    /// Run this instead of an interactive /bin/sh
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

impl Shell {
    pub(super) fn run(self, session: &Session) -> Result<u8, Failure> {
        let graph = session.graph(std::slice::from_ref(&self.recipe))?;
        let node = graph.wanted[0];
        session.with_builder(|builder| {
            builder.needs(&graph, node)?;
            let ended = match self.failed {
                true => builder.enter_failed(&graph, node, &self.command)?,
                false => builder.enter(&graph, node, &self.command)?,
            };
            Ok(match ended {
                kiln_sandbox::How::Exited(code) => code,
                kiln_sandbox::How::Cancelled => exit::INTERRUPTED,
                kiln_sandbox::How::Signaled(_) | kiln_sandbox::How::TimedOut | kiln_sandbox::How::LimitExceeded(_) => {
                    exit::BUILD_FAILED
                }
            })
        })
    }
}
