//! `--keyring`: whose signatures on an archive's indices are believed.
//!
//! What the command line names counts alone, else what the configuration names, else the host's archive keyring: naming one
//! never widens what is believed. apt's `Signed-By` is not taken by itself: it says who signs at one address, kiln takes an
//! archive from any mirror, and another repository's source often names the same suite.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;

use super::{Failure, Session};
use crate::exit::Kind;
use crate::pin::debian::default_keyrings;

/// Keyrings that were named.
#[derive(Debug, Args)]
pub(super) struct Keyrings {
    /// Believe archive indices that a key in this OpenPGP keyring signed, and no others; may be repeated [default: those of
    /// the configuration, else the host's archive keyring]
    #[arg(long, value_name = "FILE")]
    keyring: Vec<PathBuf>,
}

impl Keyrings {
    /// What is believed.
    pub(super) fn believed(&self, session: &Session) -> Result<Vec<PathBuf>, Failure> {
        for path in &self.keyring {
            // The user named it, so that it cannot be read is not the host's failure.
            let opened = std::fs::File::open(path).with_context(|| format!("--keyring {}", path.display()));
            opened.map_err(|error| Failure { kind: Kind::BadInput, error })?;
        }
        let configured = session.config()?.keyrings();
        let named = [self.keyring.clone(), configured].into_iter().find(|paths| !paths.is_empty());
        Ok(named.unwrap_or_else(default_keyrings))
    }
}
