//! Every unsafe call of the launcher: what neither nix nor rustix offers, each as one safe function.
//!
//! All of them are single system calls without allocation, fit for use after `clone3`. Nothing here knows steps.

#![expect(unsafe_code, reason = "system calls that neither nix nor rustix offers; see each SAFETY comment")]

mod exec;
mod process;
mod syscalls;
mod title;

pub(crate) use exec::{
    Mailbox, Program, StringArray, execve, install_filter, install_listening_filter, shared_descriptor,
};
pub use syscalls::landlock_abi;

pub(crate) use process::{Birth, Fork, clone3, default_signal, exit_now, fork, ignore_signal};
pub(crate) use syscalls::{
    Reach, close_range, close_range_on_exec, interface_up, mount_attributes, personality, unshare_groups,
    unshare_locked, unshare_network, unshare_time, unshare_user, working_directory,
};
pub(crate) use title::retitle;
