//! kiln-launcher: the small process that starts kiln's sandboxes, and the protocol it speaks.
//!
//! ```text
//! kiln ── socket, pipes ──▶ launcher ── clone3 ──▶ pid 1 (init) ── fork ──▶ payload
//!                           serve                  init, mounts ◀─ twin ──▶ payload
//! ```
//! One thread each, never a lock. After `clone3` nothing is allocated: the request was decoded into C strings before, but
//! for what comes `later`.
//! Knows Linux and [`step::Step`]; decides nothing: what is done, and in which order, is the plan's.

mod door;
mod facts;
pub mod forked;
mod ids;
mod init;
mod landlock;
mod later;
pub mod mounts;
pub mod owner;
mod payload;
pub mod protocol;
pub mod reclaim;
pub mod serve;
pub mod step;
mod sys;
mod twin;

pub use sys::landlock_abi;
