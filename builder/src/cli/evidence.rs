//! `kiln evidence`: fetch evidence of others. Verifying opens no socket, so that this comes first.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use kiln_model::digest::Digest;

use super::{Failure, Session};
use crate::exit;
use crate::fetch::{self, Policy, Web};
use crate::publish::{Directory, Limits, Wish, pull};

/// Fetch evidence of others.
#[derive(Debug, Args)]
pub(super) struct EvidenceCommand {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Fetch what a server publishes: a whole log, or what it has about artifacts. Nothing of it is believed yet
    Pull(Pull),
}

#[derive(Debug, Args)]
struct Pull {
    /// Address of the tree that somebody's `kiln publish` wrote
    url: String,
    /// Directory for it, made if it is not there
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
    /// SHA-256 of an artifact; several are allowed. Without any, the whole log is fetched
    #[arg(long, value_name = "DIGEST")]
    about: Vec<Digest>,
    /// Stop after so many bytes in all
    #[arg(long, value_name = "BYTES", default_value_t = 4 << 30)]
    max_bytes: u64,
    /// Stop after so many files
    #[arg(long, value_name = "COUNT", default_value_t = 1_000_000)]
    max_files: u64,
}

impl EvidenceCommand {
    pub(super) fn run(self, session: &Session) -> Result<u8, Failure> {
        let Command::Pull(asked) = self.command;
        let web = Web::new(&fetch::Host::current(), session.network(), Policy::of(session.config()?));
        let wish = match asked.about.is_empty() {
            true => Wish::Everything,
            false => Wish::About(asked.about.iter().copied().collect()),
        };
        let limits = Limits { bytes: asked.max_bytes, files: asked.max_files };
        let pulled = pull(&web, &asked.url, &Directory::writing(&asked.output)?, &wish, limits)?;
        if session.json() {
            session.print_json(&serde_json::json!({
                "schema": "kiln/pulled/v1",
                "files": pulled.files,
                "bytes": pulled.bytes,
                "envelopes": pulled.envelopes,
            }))?;
        } else {
            session.say(format!(
                "{} envelopes in {} files, {} bytes, in {}: not verified",
                pulled.envelopes,
                pulled.files,
                pulled.bytes,
                asked.output.display()
            ));
        }
        Ok(exit::YES)
    }
}
