//! `kiln publish`: a binary cache that Nix substitutes from.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use anyhow::{Context as _, anyhow};
use clap::Args;
use kiln_model::format::narinfo::Compression;
use kiln_model::format::signature::SecretKey;
use kiln_model::store_path::StorePath;

use super::{Failure, Session};
use crate::exit::{self, Kind};
use crate::fetch::{self, Policy, Web};
use crate::nix::{CacheError, Destination, Publisher, paths_of};

/// Write a binary cache that Nix substitutes from.
#[derive(Debug, Args)]
pub(super) struct Publish {
    /// Paths in the store (/nix/store/HASH-NAME), directories of built recipes or files of built derivations; with all that
    /// they name
    #[arg(required = true)]
    what: Vec<PathBuf>,
    /// Directory of the cache, made if it is not there, or its address (http, https), which must take PUT; credentials are read
    /// from ~/.netrc
    #[arg(long, value_name = "DIR|URL")]
    to: PathBuf,
    /// As a binary cache of Nix
    #[arg(long, required = true)]
    nix_cache: bool,
    /// File with the secret key to sign with, as `nix key generate-secret` writes it; several are allowed
    #[arg(long, value_name = "FILE")]
    key: Vec<PathBuf>,
    /// How archives are compressed
    #[arg(long, value_enum, default_value_t = Method::Zstd)]
    compression: Method,
}

/// How archives are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Method {
    /// Fast, on all processors.
    Zstd,
    /// Small and slow.
    Xz,
    /// Not at all.
    None,
}

impl Publish {
    pub(super) fn run(self, session: &Session) -> Result<u8, Failure> {
        let policy = Policy::of(session.config()?);
        let uploads = NonZeroUsize::new(policy.parallel).unwrap_or(NonZeroUsize::MIN);
        let web = Web::new(&fetch::Host::current(), session.network(), policy);
        let destination = &Destination::at(&self.to, &web)?;
        let store = session.store()?;
        let mut paths = BTreeSet::new();
        for what in &self.what {
            match what.to_str().and_then(|text| text.parse::<StorePath>().ok()) {
                Some(path) => drop(paths.insert(path)),
                None => paths.extend(paths_of(store, &session.graph(std::slice::from_ref(what))?)?),
            }
        }
        let keys = self.key.iter().map(secret_key).collect::<Result<Vec<_>, _>>()?;
        let compression = match self.compression {
            Method::Zstd => Compression::Zstd,
            Method::Xz => Compression::Xz,
            Method::None => Compression::None,
        };
        let processors = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        let publisher = Publisher { store, destination, keys: &keys, compression, processors, uploads };
        let done = publisher.publish(&paths)?;
        if session.json() {
            session.print_json(&serde_json::json!({
                "schema": "kiln/published/v1",
                "added": done.added,
                "signed": done.signed,
                "kept": done.kept,
                "realisations": done.realisations,
                "nar_bytes": done.nar_bytes,
                "file_bytes": done.file_bytes,
            }))?;
        } else {
            session.say(format!(
                "{} paths added, {} signed again, {} there already: {} bytes of archives in {}",
                done.added, done.signed, done.kept, done.nar_bytes, done.file_bytes
            ));
        }
        Ok(exit::YES)
    }
}

/// A key comes from a file, never from the command line, which other users see.
pub(super) fn secret_key(file: &PathBuf) -> Result<SecretKey, Failure> {
    let text = std::fs::read_to_string(file)
        .with_context(|| format!("reading key {}", file.display()))
        .map_err(|error| Failure { kind: Kind::BadInput, error })?;
    if text.len() > 4096 {
        return Err(Failure::new(Kind::BadInput, anyhow!("{} is too long for a key", file.display())));
    }
    Ok(text.trim_end().parse().map_err(|source| CacheError::Key { what: file.display().to_string(), source })?)
}
