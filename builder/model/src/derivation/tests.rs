//! Held against what Nix wrote: see tests/vectors/README.md.
