//! `kiln build`: build recipes in the sandbox, or take what is already built from the store.

use std::path::PathBuf;

use clap::Args;
use kiln_model::outcome::{Builds, Status};

use super::substitution::Substitution;
use super::{Failure, Session};
use crate::build::{KeepFailed, Realised};

/// Build recipes in the sandbox, or take what is already built from the store.
#[derive(Debug, Args)]
pub(super) struct Build {
    /// Recipe directories or their recipe.toml, or derivations: FILE.drv, /nix/store/HASH-NAME.drv
    #[arg(required = true)]
    recipes: Vec<PathBuf>,
    /// Builds that run at once
    #[arg(long, short, value_name = "N")]
    jobs: Option<std::num::NonZeroUsize>,
    /// Keep the build directory of a failed build, for `kiln shell`
    #[arg(long)]
    keep_failed: bool,
    #[command(flatten)]
    substitution: Substitution,
}

impl Build {
    pub(super) fn run(self, session: &Session) -> Result<u8, Failure> {
        let keep = if self.keep_failed { KeepFailed::Yes } else { KeepFailed::No };
        let realised = self.substitution.with(session, |caches| {
            let graph = session.graph_asking(&self.recipes, caches)?;
            match session.cached(&graph)? {
                Some(realised) => Ok(realised),
                None => session.with_settings(self.jobs, keep, caches, |builder| Ok(builder.realise(&graph)?)),
            }
        })?;
        if realised.iter().any(|r| !r.outcome.cached) {
            session.keep_within_budget()?;
        }
        for Realised { outcome, kept } in &realised {
            session.tell_outcome(outcome, kept.as_deref());
        }
        let builds = Builds::new(realised.into_iter().map(|r| r.outcome).collect());
        if session.json() {
            session.print_json(&builds)?;
        } else {
            for outcome in builds.builds.iter().filter(|o| o.status == Status::Built) {
                for output in outcome.outputs.values() {
                    session.print_line(&output.path)?;
                }
            }
        }
        Ok(builds.exit_code())
    }
}
