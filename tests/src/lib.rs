//! Harness for tests that run the `kiln` binary as a user would.
//!
//! [`ground`] says where tests stand: the binary, the prepared store, directories on two file systems, and what to do
//! when this host lacks something. [`lab`] is a real Nix. [`run`] runs commands and keeps what they said. [`recipe`] and
//! [`derivation`] make what they are run on. [`trust`] is a policy, its keys and evidence. [`schema`] holds what is printed
//! against docs/. [`web`] and [`shelf`] are servers on the loopback, one that misbehaves as told and one that takes uploads;
//! no other socket is opened: files that builds need come from the prepared store or its offline directory
//! (`scripts/test --prepare`).

pub mod archive;
pub mod derivation;
pub mod engine;
pub mod ground;
pub mod lab;
pub mod prepare;
pub mod recipe;
pub mod run;
pub mod schema;
pub mod shelf;
pub mod trust;
pub mod web;
