//! `kiln capsule`: a build with everything that it needs, in one file.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, Subcommand};
use serde_json::json;

use super::sbom::derivation_of;
use super::{Failure, Session};
use crate::capsule::{self, CapsuleError, Said, Stated};
use crate::exit::{self, Kind};

/// Pack a build with everything that it needs, to be rebuilt anywhere
#[derive(Debug, Args)]
pub(super) struct CapsuleCommand {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write a capsule: recipe, lock, sources, packages, derivation, and what came out
    ///
    /// `kiln rebuild FILE.capsule` builds it again without a network and holds the result against that. The same build
    /// gives the same file. From an attestation, it holds what that needs, fetched by digest, and the statement itself.
    /// From a derivation, it holds the sources of all that is built for it, and what has a fixed digest; a source that only
    /// a signature vouches for cannot be packed.
    Create {
        /// Recipe directory or its recipe.toml, FILE.drv or an output's path, which must be built; or an attestation,
        /// FILE.json or FILE.jsonl
        build: PathBuf,
        /// Take recipe and lock of an attestation from this directory
        #[arg(long, value_name = "DIR")]
        recipe: Option<PathBuf>,
        /// The file, FILE.capsule
        #[arg(long, short, value_name = "FILE")]
        output: PathBuf,
    },
}

impl CapsuleCommand {
    pub(super) fn run(self, session: &Session) -> Result<u8, Failure> {
        match self.command {
            Command::Create { build, recipe, output } => create(session, &build, recipe.as_deref(), &output),
        }
    }
}

fn create(session: &Session, build: &Path, recipe: Option<&Path>, output: &Path) -> Result<u8, Failure> {
    let host = |error: anyhow::Error| Failure::new(Kind::Host, error);
    let shown = || format!("writing {}", output.display());
    let fresh = || {
        let directory = output.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        tempfile::NamedTempFile::new_in(directory).with_context(shown).map_err(host)
    };
    let (file, created, derivation) = if is_attestation(build) {
        let stated = Stated::read(session.store()?, build, recipe)?;
        let mut file = fresh()?;
        let created = session.with_builder(|builder| Ok(stated.pack(builder, file.as_file_mut())?))?;
        (file, created, stated.derivation().to_owned())
    } else {
        if recipe.is_some() {
            let error = anyhow::anyhow!("--recipe is for attestations, which {} is not", build.display());
            return Err(Failure::new(Kind::BadInput, error));
        }
        let target = derivation_of(session.store()?, build)?;
        let graph = session.graph(std::slice::from_ref(&target))?;
        let realised = session.cached(&graph)?.and_then(|realised| realised.into_iter().next());
        let realised = realised.ok_or_else(|| CapsuleError::NotBuilt { target: build.display().to_string() })?;
        let mut file = fresh()?;
        let said = Said::Outcome(&realised.outcome);
        let created = session
            .with_builder(|builder| Ok(capsule::create(builder, &graph, graph.wanted[0], said, file.as_file_mut())?))?;
        (file, created, realised.outcome.derivation)
    };
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
            "derivation": derivation,
        }))?;
    } else {
        session.print_line(&format!("{}  {}", created.sha256, output.display()))?;
        session.say(format!("{} members, {} bytes", created.members, created.size));
    }
    Ok(exit::YES)
}

/// Whether `path` is called as signed statements are.
pub(super) fn is_attestation(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending == "json" || ending == "jsonl")
}
