//! Options of commands that take from binary caches what others built.

use std::num::NonZeroUsize;
use std::time::Duration;

use clap::Args;
use kiln_model::format::signature::PublicKey;

use super::{Failure, Session};
use crate::fetch::{self, Policy, Web};
use crate::nix::{Cache, CacheError, Caches, Lifetimes, Missing, Recall, Remembered, Substituter};

/// Which caches are asked, and whom to believe.
#[derive(Debug, Args)]
pub(super) struct Asking {
    /// Caches to ask instead of the configured ones: directories or addresses
    #[arg(long, value_name = "CACHE", value_delimiter = ' ')]
    substituters: Option<Vec<String>>,
    /// Keys to trust besides the configured ones: NAME:BASE64
    #[arg(long, value_name = "KEY", value_delimiter = ' ')]
    trusted_public_keys: Vec<String>,
    /// Ask caches on the network again for what they answered before
    #[arg(long)]
    refresh: bool,
}

/// The same, where building is the other way.
#[derive(Debug, Args)]
pub(super) struct Substitution {
    #[command(flatten)]
    asking: Asking,
    /// Ask no cache: build whatever is not in the store
    #[arg(long, conflicts_with_all = ["substituters", "trusted_public_keys", "refresh"])]
    no_substitute: bool,
}

impl Asking {
    /// Calls `work` with what asks these caches; nothing is asked before it does.
    pub(super) fn with<T>(
        &self,
        session: &Session,
        missing: Missing,
        work: impl FnOnce(&Substituter<'_>) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let config = session.config()?;
        let store = session.store()?;
        let policy = Policy::of(config);
        let parallel = NonZeroUsize::new(policy.parallel).unwrap_or(NonZeroUsize::MIN);
        let web = Web::new(&fetch::Host::current(), session.network(), policy);
        let lifetimes = Lifetimes {
            positive: Duration::from_secs(config.caches.narinfo_cache_positive_ttl),
            negative: Duration::from_secs(config.caches.narinfo_cache_negative_ttl),
        };
        let recall = if self.refresh { Recall::No } else { Recall::Yes };
        let memory = Remembered::at(store.root().join("answers.sqlite"), lifetimes, recall);
        let addresses = self.substituters.as_ref().unwrap_or(&config.caches.substituters);
        let caches = addresses.iter().filter(|address| !address.is_empty());
        let caches = caches
            .map(|address| Ok(Cache::at(address, &web)?.remembering(&memory)))
            .collect::<Result<Vec<_>, CacheError>>()?;
        let keys = config.caches.trusted_public_keys.iter().chain(&self.trusted_public_keys);
        let keys = keys
            .map(|text| text.parse::<PublicKey>().map_err(|source| CacheError::Key { what: text.clone(), source }))
            .collect::<Result<Vec<_>, _>>()?;
        let events = session.events();
        work(&Substituter::new(store, Caches::new(caches, missing, &events), keys, parallel, &events))
    }
}

impl Substitution {
    /// Calls `work` with what asks the caches, if there are any and they are to be asked.
    pub(super) fn with<T>(
        &self,
        session: &Session,
        work: impl FnOnce(Option<&Substituter<'_>>) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let configured = !session.config()?.caches.substituters.is_empty();
        let any = self.asking.substituters.as_ref().map_or(configured, |named| !named.is_empty());
        match any && !self.no_substitute {
            true => self.asking.with(session, Missing::PassedOver, |caches| work(Some(caches))),
            false => work(None),
        }
    }
}
