//! Pinning: recipe → lock, the one step that may look outside.
//!
//! Each kind of input has its module. What is found is checked as far as it can be, and written down by digest.

pub mod debian;
