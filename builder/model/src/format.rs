//! File formats, one module each: parse and print, nothing more.
//!
//! Every parser is bounded, names the line or the offset in its errors, and borrows where it can.

pub mod aterm;
pub mod control;
pub mod nar;
pub mod packages;
pub mod realisation;
pub mod release;
pub mod sources;
