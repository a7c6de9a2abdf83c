//! What kiln and Nix exchange: binary caches both ways, export streams, archives.
//!
//! Formats and signatures are `kiln-model`'s, trees and records the store's; here bytes go between them. Whatever comes from
//! outside is held against its signature or content address and against its digests before it is registered: a first fault ends
//! it, leaves nothing, and says which field it was. The evaluation of the Nix language and the daemon's protocol are not meant.

mod address;
mod archive;
mod cache;
mod caches;
mod derivations;
mod destination;
mod dump;
mod error;
mod exchange;
mod order;
mod pack;
mod publish;
mod recipes;
mod remembered;
mod serve;
mod substitute;
mod turns;
mod unpack;

pub use address::{content_digest, contents_address};
pub use archive::decoder_of_xz;
pub use cache::Cache;
pub use caches::{Caches, Missing};
pub use derivations::{Derivations, DerivationsError};
pub use destination::Destination;
pub use dump::{DumpError, dump};
pub use error::{CacheError, chain};
pub use exchange::{ExchangeError, export, import};
pub use order::references_first;
pub use publish::{Published, Publisher};
pub use recipes::{RecipesError, paths_of};
pub use remembered::{Lifetimes, Recall, Remembered};
pub use serve::Server;
pub use substitute::{Brought, Offer, Substituter, Trusted};
pub use unpack::{UnpackError, unpack};
