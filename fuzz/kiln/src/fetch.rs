//! Listings of Python packages.

#[path = "../../../builder/src/fetch/listing.rs"]
pub mod listing;
