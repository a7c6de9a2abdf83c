//! kiln: builds recipes in sealed sandboxes from pinned inputs, builds them again, and says why bytes differ.
//!
//! This crate has the effects; what they mean is decided in `kiln-model`. Modules follow the pipeline:
//! recipe → `pin` → lock → `fetch` → `store`, `environment` → `build` → outcome → `rebuild`, `diff` → report → `render`.

pub mod config;
pub mod event;
pub mod exit;
pub mod interrupt;
pub mod parallel;
mod whole_file;

pub mod pin;
pub mod recipe_dir;

pub mod fetch;
pub mod store;

pub mod environment;

pub mod build;
pub mod capsule;
pub mod diff;
pub mod engine;
pub mod rebuild;
pub mod sbom;

pub mod campaign;

pub mod command;
pub mod doctor;
pub mod nix;
pub mod publish;

pub mod sign;

pub mod evidence;
pub mod installed;
pub mod requirements;

pub mod render;

pub mod cli;
