//! `kiln serve`: answer others from the store.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;

use super::publish::secret_key;
use super::{Failure, Session};
use crate::exit::{self, Kind};
use crate::nix::Server;

/// Answer others from the store, until interrupted. The address is printed on stdout.
#[derive(Debug, Args)]
pub(super) struct Serve {
    /// As a read-only binary cache of Nix, over HTTP
    #[arg(long, required = true)]
    nix_cache: bool,
    /// Where to listen; port 0 is any that is free
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8700")]
    listen: SocketAddr,
    /// File with the secret key to sign with; without, only signatures that paths came with are shown
    #[arg(long, value_name = "FILE")]
    key: Vec<PathBuf>,
}

impl Serve {
    pub(super) fn run(self, session: &Session) -> Result<u8, Failure> {
        let keys = self.key.iter().map(secret_key).collect::<Result<Vec<_>, _>>()?;
        let failed = |error| Failure { kind: Kind::Host, error };
        let listening = || format!("listening at {}", self.listen);
        let server = Server::bind(session.store()?, self.listen, keys).with_context(listening).map_err(failed)?;
        let address = server.address().with_context(listening).map_err(failed)?;
        session.print_line(&format!("http://{address}"))?;
        server.run().with_context(|| format!("serving {address}")).map_err(failed)?;
        Ok(exit::YES)
    }
}
