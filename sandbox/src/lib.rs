//! kiln-sandbox: runs one program with exactly the files, identity, limits and system calls that a [`Spec`] names, and
//! says how it ended and what isolation was in force.
//!
//! ```text
//! kiln (threads, any size)        Spec + probe() ─ plan() ─▶ Plan         reads logs, keeps deadlines
//!  │  one socket, SCM_RIGHTS      its end ends everything
//!  ▼
//! launcher                        one thread, static, from a sealed memfd; as root it prepares sources, writes id maps
//!  │  clone3: user mnt pid net ipc uts cgroup (+ time)
//!  ▼
//! pid 1                           builds the root, drops every right, forks; then reaps, forwards SIGTERM, reports
//!  │  fork
//!  ▼
//! payload                         limits, Landlock, seccomp, execve
//! ```
//! It refuses rather than weakens: what this host cannot do is a [`Refusal`] that says what is missing, why, and what
//! to do. It knows Linux; of recipes, stores and digests it knows nothing.
//!
//! # Limits
//! Kernel bugs, hardware side channels, CPUID and the wall clock are not covered. Without control groups memory is bounded
//! per process and per tmpfs, not in total ([`control_group`]). x86-64 only.

pub mod control_group;
mod disk;
pub mod doctor;
pub mod door;
pub mod error;
mod filter;
mod group;
pub mod launcher;
pub mod limits;
pub mod plan;
pub mod probe;
pub mod running;
pub mod slot;
pub mod spec;
pub mod status;
mod surface;
mod sys;

pub use control_group::ControlGroups;
pub use door::{Answer, Call, Door, Doorway};
pub use error::{Refusal, SetupError};
pub use launcher::{Launcher, Stdio};
pub use plan::{Plan, plan};
pub use probe::{Host, probe};
pub use running::{Canceller, Running};
pub use slot::{Slot, SlotError};
pub use spec::{
    Aslr, Filter, Ids, Input, Kernel, Limits, Network, ProcMode, Process, Root, Spec, Surface, TimeBase, Tmpfs,
    Writable,
};
pub use status::{Achieved, Ended, How, Observed, Usage, Which};
