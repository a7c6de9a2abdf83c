//! `kiln lock`: pin a recipe's inputs and environment to digests.

use std::collections::BTreeSet;
use std::path::PathBuf;

use clap::Args;
use kiln_model::name::Variable;

use super::keyring::Keyrings;
use super::{Failure, Session};
use crate::event::{self, Level};
use crate::exit;
use crate::pin::debian::Freshness;
use crate::pin::{Pinning, Scope};
use crate::recipe_dir::RecipeDir;

/// Pin a recipe's inputs and environment to digests.
#[derive(Debug, Args)]
pub(super) struct Lock {
    /// Recipe directories, or their recipe.toml
    #[arg(required = true)]
    recipes: Vec<PathBuf>,
    /// Re-lock this input only and leave the others and the environment as they are; may be repeated
    #[arg(long, value_name = "INPUT")]
    only: Vec<Variable>,
    /// Fail instead of writing if the lock would change
    #[arg(long)]
    check: bool,
    /// Accept an index that is older than one seen before, or past its Valid-Until
    #[arg(long)]
    allow_expired: bool,
    #[command(flatten)]
    keyrings: Keyrings,
}

impl Lock {
    pub(super) fn run(self, session: &Session) -> Result<u8, Failure> {
        let scope = match self.only.is_empty() {
            true => Scope::Everything,
            false => Scope::Inputs(BTreeSet::from_iter(self.only)),
        };
        let keyrings = self.keyrings.believed(session)?;
        session.with_builder(|builder| {
            let mut changed = Vec::new();
            for path in &self.recipes {
                let recipe = RecipeDir::open(path)?;
                let old = recipe.lock_if_any()?;
                let pinning = Pinning {
                    builder,
                    clock: jiff::Timestamp::now(),
                    keyrings: keyrings.clone(),
                    freshness: if self.allow_expired { Freshness::Any } else { Freshness::Required },
                    network: session.network(),
                    indices: None,
                };
                let lock = pinning.lock(&recipe, old.as_ref(), &scope)?;
                let same = old.as_ref() == Some(&lock);
                let did = match (same, self.check) {
                    (true, _) => "unchanged",
                    (false, true) => "would change",
                    (false, false) => "written",
                };
                if !same && !self.check {
                    session.sync()?;
                    recipe.write_lock(&lock)?;
                }
                event::say(
                    builder.events,
                    Level::Note,
                    format!("{}: {did} ({} packages)", recipe.lock_path().display(), lock.environment.packages.len()),
                );
                if !same {
                    changed.push(recipe.lock_path().display().to_string());
                }
            }
            if session.json() {
                session.print_json(&serde_json::json!({ "schema": "kiln/locks/v1", "changed": changed }))?;
            }
            Ok(if self.check && !changed.is_empty() { exit::NO } else { exit::YES })
        })
    }
}
