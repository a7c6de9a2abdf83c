//! `kiln check`: build twice under varied conditions and compare every byte.

use std::collections::BTreeSet;
use std::path::PathBuf;

use clap::Args;
use kiln_model::variation::Factor;
use kiln_model::verdict::Accept;

use super::substitution::Substitution;
use super::{Failure, Session, judged};
use crate::build::KeepFailed;
use crate::rebuild::{self, Options, Reuse};

/// Build twice under varied conditions and compare every byte.
#[derive(Debug, Args)]
pub(super) struct Check {
    /// Recipe directories or their recipe.toml, or derivations: FILE.drv, /nix/store/HASH-NAME.drv
    #[arg(required = true)]
    recipes: Vec<PathBuf>,
    /// Builds that run at once
    #[arg(long, short, value_name = "N")]
    jobs: Option<std::num::NonZeroUsize>,
    /// Varied builds to hold against the control
    #[arg(long, default_value = "1", value_name = "N")]
    varied: std::num::NonZeroUsize,
    /// Leave this factor as it is; may be repeated
    #[arg(long, value_name = "FACTOR", value_parser = factor)]
    hold: Vec<Factor>,
    /// Take an unvaried build from the store as the control instead of building it again
    #[arg(long)]
    reuse: bool,
    /// Keep the build directory of a failed build, for `kiln shell`
    #[arg(long)]
    keep_failed: bool,
    /// Also write the report as one self-contained HTML page
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    #[command(flatten)]
    substitution: Substitution,
}

fn factor(text: &str) -> Result<Factor, String> {
    let known = || Factor::ALL.iter().map(|f| f.as_str()).collect::<Vec<_>>().join(", ");
    Factor::ALL.iter().copied().find(|f| f.as_str() == text).ok_or_else(|| format!("expected one of {}", known()))
}

impl Check {
    pub(super) fn run(self, session: &Session) -> Result<u8, Failure> {
        let options = Options {
            varied: self.varied,
            held: BTreeSet::from_iter(self.hold),
            reuse: if self.reuse { Reuse::Control } else { Reuse::Nothing },
        };
        let keep = if self.keep_failed { KeepFailed::Yes } else { KeepFailed::No };
        let reports = self.substitution.with(session, |caches| {
            let graph = session.graph_asking(&self.recipes, caches)?;
            session.with_settings(self.jobs, keep, caches, |builder| {
                let check = |&node: &usize| Ok(rebuild::check(builder, &graph, node, &options)?);
                graph.wanted.iter().map(check).collect::<Result<Vec<_>, Failure>>()
            })
        })?;
        session.keep_within_budget()?;
        judged::tell(session, reports, self.html.as_deref(), Accept::Identical)
    }
}
