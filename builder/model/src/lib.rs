//! The pure core of kiln: vocabulary, formats and decisions.
//!
//! Whatever is hashed, compared or judged is decided here, by functions without clock, file system, environment,
//! network or randomness (`clippy.toml` beside this crate forbids them). A verifier could ship with this crate alone.
//! Modules follow the pipeline: words everything is made of, what is to be built, what was seen and judged, formats.

pub mod canonical;
pub mod digest;
pub mod name;

pub mod contract;
pub mod debian;
pub mod derivation;
pub mod lock;
pub mod lower;
pub mod recipe;
pub mod rewrite;
pub mod store_path;
pub mod wheel;

pub mod cause;
pub mod normalise;
pub mod outcome;
pub mod report;
pub mod sbom;
pub mod tree;
pub mod variation;
pub mod verdict;

pub mod envelope;
pub mod key;
pub mod log;
pub mod statement;

pub mod format;
