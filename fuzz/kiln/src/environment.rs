//! Packages of Debian.

#[path = "../../../builder/src/environment/deb.rs"]
mod deb;

pub use deb::{ControlFile, Deb, DebError, Entry, EntryKind, Executable};
