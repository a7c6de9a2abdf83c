//! Traps, each with a twin that passes: what `kiln verify` must never be talked into.

mod foreign;
mod lab;
mod logged;
mod scenario;
mod statements;
