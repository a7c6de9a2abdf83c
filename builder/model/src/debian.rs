//! Debian's package world as data: version order, dependencies, and which packages a build needs.
//!
//! Pure: indices come in as text that a signature already vouches for ([`crate::format`]), a closed set of packages goes
//! out. The same indices and the same wishes give the same set, whatever the order of mirrors or of hashing.

pub mod build;
pub mod changelog;
pub mod dependency;
pub mod installed;
pub mod resolve;
pub mod universe;
pub mod version;

mod proof;
mod search;
