//! Python wheels, as far as a published one tells how it was made.
//!
//! `file_name` what its name says, `backend` who wrote it, `members` whether its archive is believed, `times` what its members' times say about clock and time zone.
//! The files inside have their formats in [`crate::format`]. Everything here is a function of the reference alone: a rule
//! that looked at what a rebuild gave would find what it wants.

pub mod backend;
pub mod file_name;
pub mod members;
pub mod times;

pub use backend::Backend;
pub use file_name::WheelName;
