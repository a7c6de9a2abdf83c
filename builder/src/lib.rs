//! kiln: builds recipes in sealed sandboxes from pinned inputs, builds them again, and says why bytes differ.
//!
//! This crate has the effects; what they mean is decided in `kiln-model`. Modules follow the pipeline:
//! recipe → `pin` → lock → `fetch` → `store`, `environment` → `build` → outcome → `rebuild`, `diff` → report → `render`.

pub mod diff;
pub mod fetch;
pub mod render;
