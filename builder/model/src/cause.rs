//! Causes that two artifacts give away, and the setting of another build that would prove them.
//!
//! What differs between what was built and what was published is evidence of how they were made: a changelog that the one
//! has whole and the other trimmed, a dependency of another version, a build id alone. A cause here is never proven: that
//! takes a build with its [`Setting`]. Knows nothing of who builds, or whether a setting can be had.

mod setting;

pub use setting::{Setting, SettingError, SettingName};
