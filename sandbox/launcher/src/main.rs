//! kiln-launcher.
fn main() {}
