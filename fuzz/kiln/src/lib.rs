//! What of kiln's own readers is fuzzed, under the names that it has there.
#![expect(dead_code, reason = "what the fuzzer does not call is here too")]

/// Packages of Debian.
pub mod environment {
    #[path = "../../../../builder/src/environment/deb.rs"]
    mod deb;
    pub use deb::{ControlFile, Deb, DebError, Entry, EntryKind, Executable};
}

/// Listings of Python packages.
pub mod fetch {
    #[path = "../../../../builder/src/fetch/listing.rs"]
    pub mod listing;
}
