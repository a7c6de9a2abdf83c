//! Capsules: a build with everything that it needs, in one file, so that whoever has it can build again without a network.
//!
//! [`create`] packs recipes, locks, derivations, packages, sources and the outcome that this machine saw; the same build gives
//! the same file. Of derivations that were given it packs what they rest on (`sources`). [`Opened`] reads one, which is a stranger's: what a member is follows from its name alone, each is held
//! against its digest while it is read, nothing is written but below a private directory and into the store by digest. What
//! is in the file is `kiln_model::format::capsule`.
//!
//! [`Stated`] is the same from less: a signed statement that names every input by digest and carries recipe and lock. What it
//! names is brought from the store and the user's mirrors before anything is built; then it is tried, or packed.

mod claimed;
mod create;
mod error;
mod open;
mod sources;
mod stated;
pub(crate) mod texts;

pub use create::{Created, Said, create};
pub use error::CapsuleError;
pub use open::{Missing, Opened};
pub use stated::{Availability, Stated};
