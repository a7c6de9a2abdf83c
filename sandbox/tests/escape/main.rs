//! The escape suite: known ways out of a sandbox, tried. Each test's name starts with its line in `table`.
//!
//! A small static program tries inside and counts its attempts; outside it is judged that they failed, that they were
//! made, and where it is harmless that the same program succeeds without a sandbox. Run as root and as an ordinary user
//! (`scripts/escape`). What a host cannot try is in `not-here`, by name; with `MUST_ISOLATE=1` anything else that is not
//! tried fails. What goes through the store and its scan is in `tests/tests/escape`.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod ends;
mod ground;
#[path = "../harness/mod.rs"]
mod harness;
#[path = "../harness/here.rs"]
mod here;
mod limits;
mod paths;
mod privileges;
mod reach;
mod surface;
