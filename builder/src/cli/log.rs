//! `kiln log`: show the log of a build.

use std::io::Read as _;
use std::path::PathBuf;

use clap::Args;
use kiln_model::outcome::Outcome;

use super::{Failure, Session};
use crate::build::graph::Graph;
use crate::exit::{self, Kind};

/// Show the log of a build.
#[derive(Debug, Args)]
pub(super) struct Log {
    /// Recipe directory or its recipe.toml, or a derivation: FILE.drv, /nix/store/HASH-NAME.drv
    recipe: PathBuf,
    /// Which build: 1 is the latest, 2 the one before
    #[arg(long, default_value = "1", value_name = "N")]
    nth: std::num::NonZeroUsize,
}

impl Log {
    pub(super) fn run(self, session: &Session) -> Result<u8, Failure> {
        let store = session.store()?;
        let graph = Graph::load(std::slice::from_ref(&self.recipe), store)?;
        let derivation = &graph.nodes[graph.wanted[0]].path;
        let outcomes = store.outcomes(derivation)?;
        let missing = |what: String| Failure::new(Kind::BadInput, anyhow::anyhow!(what));
        let shown = self.recipe.display();
        let Some(id) = outcomes.iter().rev().nth(self.nth.get() - 1) else {
            let built = outcomes.len();
            return Err(missing(format!(
                "{shown} was built {built} times in this store; there is no build {}",
                self.nth
            )));
        };
        let outcome: Outcome =
            serde_json::from_slice(&store.outcome(derivation, id)?).map_err(|e| Failure::new(Kind::Host, e))?;
        let log = outcome.log.as_ref().and_then(|log| store.log(&log.sha256).transpose()).transpose()?;
        let Some(mut log) = log else {
            return Err(missing(format!("the log of that build of {shown} is not in the store any more")));
        };
        let mut out = std::io::stdout().lock();
        let copied = std::io::copy(&mut log.by_ref(), &mut out);
        match copied {
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(exit::YES),
            done => done.map(|_| exit::YES).map_err(Failure::from),
        }
    }
}
