//! `kiln capsule`: a build with everything that it needs, in one file.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, Subcommand};
use serde_json::json;

use super::sbom::derivation_of;
use super::{Failure, Session};
use crate::capsule::{self, CapsuleError};
use crate::exit::{self, Kind};

/// Pack a build with everything that it needs, to be rebuilt anywhere
#[derive(Debug, Args)]
pub(super) struct CapsuleCommand {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write a capsule: recipe, lock, sources, packages, derivation, and what came out here
    ///
    /// `kiln rebuild FILE.capsule` builds it again without a network and holds the result against that. The same build
    /// gives the same file.
    Create {
        /// Recipe directory or its recipe.toml; must be built
        build: PathBuf,
        /// The file, FILE.capsule
        #[arg(long, short, value_name = "FILE")]
        output: PathBuf,
    },
}

impl CapsuleCommand {
    pub(super) fn run(self, session: &Session) -> Result<u8, Failure> {
        match self.command {
            Command::Create { build, output } => create(session, &build, &output),
        }
    }
}

fn create(session: &Session, build: &Path, output: &Path) -> Result<u8, Failure> {
    let target = derivation_of(session.store()?, build)?;
    let graph = session.graph(std::slice::from_ref(&target))?;
    let realised = session.cached(&graph)?.and_then(|realised| realised.into_iter().next());
    let realised = realised.ok_or_else(|| CapsuleError::NotBuilt { target: build.display().to_string() })?;
    let directory = output.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let shown = || format!("writing {}", output.display());
    let host = |error: anyhow::Error| Failure::new(Kind::Host, error);
    let mut file = tempfile::NamedTempFile::new_in(directory).with_context(shown).map_err(host)?;
    let created = session.with_builder(|builder| {
        Ok(capsule::create(builder, &graph, graph.wanted[0], &realised.outcome, file.as_file_mut())?)
    })?;
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    file.as_file().set_permissions(mode).with_context(shown).map_err(host)?;
    file.persist(output).with_context(shown).map_err(host)?;
    if session.json() {
        session.print_json(&json!({
            "schema": "kiln/capsule-created/v1",
            "file": output,
            "sha256": created.sha256,
            "size": created.size,
            "members": created.members,
            "derivation": realised.outcome.derivation,
        }))?;
    } else {
        session.print_line(&format!("{}  {}", created.sha256, output.display()))?;
        session.say(format!("{} members, {} bytes", created.members, created.size));
    }
    Ok(exit::YES)
}
