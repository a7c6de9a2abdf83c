//! Every unsafe call of the launcher: what neither nix nor rustix offers, each as one safe function.
//!
//! All of them are single system calls without allocation, fit for use after `clone3`. Nothing here knows steps.

#![expect(unsafe_code, reason = "system calls that neither nix nor rustix offers; see each SAFETY comment")]

mod exec;
mod process;
mod syscalls;

pub(crate) use exec::{Program, StringArray, execve, install_filter};
pub(crate) use process::{Fork, Namespaces, clone3, default_signal, exit_now, fork, ignore_signal};
pub(crate) use syscalls::{
    Reach, close_range, close_range_on_exec, interface_up, landlock_abi, mount_attributes, personality, unshare_locked,
    unshare_time, working_directory,
};
