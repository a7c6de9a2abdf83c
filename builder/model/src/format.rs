//! File formats, one module each: parse and print, nothing more.
//!
//! Every parser is bounded, names the line or the offset in its errors, and borrows where it can.

pub mod apt_hook;
pub mod ar;
pub mod aterm;
pub mod base64;
pub mod buildinfo;
pub mod bundle;
pub mod cache_info;
pub mod capsule;
pub mod control;
pub mod copyright;
pub mod cyclonedx;
pub mod dist_info;
pub mod elf;
pub mod export;
pub mod gettext;
pub mod gzip;
pub mod link;
pub mod nar;
pub mod narinfo;
pub mod openvex;
pub mod osv;
pub mod packages;
pub mod png;
pub mod purl;
pub mod pyc;
pub mod pyproject;
pub mod realisation;
pub mod record;
pub mod release;
pub mod signature;
pub mod sources;
pub mod spdx;
pub mod spdx3;
pub mod status;
pub mod stream;
pub mod zip;
