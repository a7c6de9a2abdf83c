//! `kiln store export`, `import`, `substitute`: paths from one store to another.

use std::collections::BTreeSet;
use std::io::{self, BufWriter};

use clap::Subcommand;
use kiln_model::store_path::StorePath;

use super::substitution::Asking;
use super::{Failure, Session};
use crate::exit;
use crate::nix::{ExchangeError, Missing, export, import};

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
        #[command(flatten)]
        asking: Asking,
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
            Self::Substitute { paths, asking } => {
                asking.with(session, Missing::Refused, |caches| Ok(caches.bring(&paths.iter().cloned().collect())?))?
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
