//! The protocol between kiln and its launcher.
