//! File formats, one module each: parse and print, with limits, without a file system.

pub mod aterm;
pub mod nar;
