//! `kiln store export`, `import`, `substitute`: paths from one store to another.

use std::collections::BTreeSet;
use std::io::{self, BufWriter};
use std::num::NonZeroUsize;

use clap::Subcommand;
use kiln_model::format::signature::PublicKey;
use kiln_model::store_path::StorePath;

use super::{Failure, Session};
use crate::exit;
use crate::fetch::{self, Policy, Web};
use crate::nix::{Cache, CacheError, ExchangeError, Substituter, export, import};

#[derive(Debug, Subcommand)]
pub(super) enum Exchange {
    /// Write paths to stdout as `nix-store --export` does: only for those who trust this store.
    Export {
        /// As they are named inside: /nix/store/HASH-NAME.
        #[arg(required = true)]
        paths: Vec<StorePath>,
        /// Also all that they name
        #[arg(long, short)]
        recursive: bool,
    },
    /// Add what `kiln store export` or `nix-store --export` wrote, from stdin: nobody signed it.
    Import,
    /// Bring paths, and all they name, from binary caches.
    Substitute {
        /// As they are named inside: /nix/store/HASH-NAME.
        #[arg(required = true)]
        paths: Vec<StorePath>,
        /// Caches to ask instead of the configured ones: directories or addresses
        #[arg(long, value_name = "CACHE", value_delimiter = ' ')]
        substituters: Vec<String>,
        /// Keys to trust besides the configured ones: NAME:BASE64
        #[arg(long, value_name = "KEY", value_delimiter = ' ')]
        trusted_public_keys: Vec<String>,
    },
}

impl Exchange {
    pub(super) fn run(self, session: &Session) -> Result<u8, Failure> {
        let store = session.store()?;
        let brought = match self {
            Self::Export { paths, recursive } => {
                let mut paths: BTreeSet<StorePath> = paths.into_iter().collect();
                if recursive {
                    paths = store.closure(&paths)?.into_keys().collect();
                }
                let mut out = BufWriter::with_capacity(256 << 10, io::stdout().lock());
                return match export(store, &paths, &mut out) {
                    // Who closed the pipe has read enough.
                    Err(ExchangeError::Dump { source, .. }) if source.is_broken_pipe() => Ok(exit::YES),
                    Err(ExchangeError::Write(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(exit::YES),
                    exported => Ok(exported.map(|()| exit::YES)?),
                };
            }
            Self::Import => import(store, &mut io::stdin().lock())?,
            Self::Substitute { paths, substituters, trusted_public_keys } => {
                bring(session, &paths.into_iter().collect(), &substituters, &trusted_public_keys)?
            }
        };
        if session.json() {
            session.print_json(&serde_json::json!({ "schema": "kiln/store/v1", "paths": brought }))?;
        } else {
            brought.iter().try_for_each(|info| session.print_line(&info.path.to_string()))?;
        }
        Ok(exit::YES)
    }
}

fn bring(
    session: &Session,
    paths: &BTreeSet<StorePath>,
    substituters: &[String],
    keys: &[String],
) -> Result<Vec<crate::store::PathInfo>, Failure> {
    let config = session.config()?;
    let policy = Policy::of(config);
    let parallel = NonZeroUsize::new(policy.parallel).unwrap_or(NonZeroUsize::MIN);
    let web = Web::new(&fetch::Host::current(), session.network(), policy);
    let addresses = if substituters.is_empty() { &config.caches.substituters } else { substituters };
    let caches = addresses.iter().map(|address| Cache::at(address, &web)).collect::<Result<Vec<_>, _>>()?;
    let keys = config.caches.trusted_public_keys.iter().chain(keys);
    let keys = keys
        .map(|text| text.parse::<PublicKey>().map_err(|source| CacheError::Key { what: text.clone(), source }))
        .collect::<Result<Vec<_>, _>>()?;
    let events = session.events();
    Ok(Substituter::new(session.store()?, caches, keys, parallel, &events)?.bring(paths)?)
}
