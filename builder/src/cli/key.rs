//! `kiln key`: keys that sign what is published.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use kiln_model::format::signature::SecretKey;

use super::publish::secret_key;
use super::{Failure, Session};
use crate::exit::{self, Kind};
use crate::nix::CacheError;

/// Keys that sign what is published, in Nix's format.
#[derive(Debug, Args)]
pub(super) struct KeyCommand {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a secret key, and print the public one
    Generate {
        /// Name of the key, by convention a host's and a number: cache.example-1.
        name: String,
        /// File for the secret key, which must not exist
        #[arg(long, value_name = "FILE")]
        output: PathBuf,
    },
    /// Print the public key that belongs to a secret one
    Public {
        /// File with the secret key.
        file: PathBuf,
    },
}

impl KeyCommand {
    pub(super) fn run(self, session: &Session) -> Result<u8, Failure> {
        let key = match self.command {
            Command::Public { file } => secret_key(&file)?,
            Command::Generate { name, output } => generate(&name, &output)?,
        };
        session.print_line(&key.public().to_string())?;
        Ok(exit::YES)
    }
}

fn generate(name: &str, output: &PathBuf) -> Result<SecretKey, Failure> {
    let failed = |error| Failure { kind: Kind::Host, error };
    let mut seed = [0; 32];
    // The kernel's generator, which never blocks once it was seeded (random(4)).
    let random = File::open("/dev/urandom").and_then(|mut source| source.read_exact(&mut seed));
    random.context("reading random bytes").map_err(failed)?;
    let key = SecretKey::from_seed(name, &seed).map_err(|source| CacheError::Key { what: name.into(), source })?;
    let written = File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(output)
        .and_then(|mut file| file.write_all(key.reveal().as_bytes()).and_then(|()| file.sync_all()));
    written.with_context(|| format!("writing {}", output.display())).map_err(failed)?;
    Ok(key)
}
