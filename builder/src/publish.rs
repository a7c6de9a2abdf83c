//! Evidence for everyone: a transparency log as plain files, envelopes by digest, proofs beside what they are about.
//!
//! [`LogWriter`] appends to a log in an order of writes that no crash breaks: readers see the old or the new tree, no name ever
//! has other bytes, and no second root is signed for one size. Where the tree is, is a [`Place`]: a [`Directory`], or a [`Server`]
//! that takes PUT under conditions. [`inspect`] reads a whole tree again and believes none of it; [`Witness`] cosigns logs of others;
//! [`pull`] fetches a tree, with limits.
//! What all of it means is decided in `kiln_model::log`.

mod batch;
mod derived;
mod error;
mod evidence;
mod inspect;
mod journal;
mod layout;
mod place;
mod pull;
mod server;
mod state;
mod witness;
mod writer;

#[cfg(test)]
mod tests;

pub use batch::{Batch, Signed};
pub use error::PublishError;
pub use evidence::{Evidence, Keys, public_keys, trust_bundles};
pub use inspect::{Inspected, Seen, inspect, proof_of, walk};
pub use place::{Directory, NewFile, Place};
pub use pull::{Limits, Pulled, Wish, pull};
pub use server::Server;
pub use witness::Witness;
pub use writer::{Appended, LogWriter};
