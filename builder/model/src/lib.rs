//! kiln-model.
