//! kiln-sandbox: runs one program with exactly the files, identity, limits and system calls that a [`Spec`] names, and
//! says how it ended and what isolation was in force.
//!
//! ```text
//! kiln (threads, any size)        Spec + probe() ─ plan() ─▶ Plan         reads logs, keeps deadlines
//!  │  one socket, SCM_RIGHTS      its end ends everything
//!  ▼
//! launcher                        one thread, static, from a sealed memfd; as root it prepares sources, writes id maps
//!  │  clone3: user mnt pid ipc uts cgroup (+ time)
//!  ▼
//! pid 1 ── fork ──▶ payload       pid 1 builds the root, while the payload's process makes the network, drops every
//!  │                   │          right and takes limits and filter
//!  ├── joins its net ──┤          then pid 1 drops every right too, and only then lets the other go on:
//!  ▼                   ▼
//! reaps, reports    Landlock, execve
//! ```
//! It refuses rather than weakens: what this host cannot do is a [`Refusal`] that says what is missing, why, and what
//! to do. It knows Linux; of recipes, stores and digests it knows nothing.
//!
//! # Example
//! A shell command that sees `/usr` and nothing else, writes where it may, and is held to a deadline:
//! ```no_run
//! use std::time::Duration;
//! use kiln_sandbox::{How, Input, Launcher, Slot, Spec, Stdio, Writable, plan, probe};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut spec = Spec::new("/usr/bin/sh");
//! spec.process.argv = ["sh", "-c", "id; echo made >/out/file"].map(Into::into).to_vec();
//! spec.process.env = vec!["PATH=/usr/bin".into()];
//! for (source, target) in [("/usr", "/usr"), ("/lib64", "/lib64"), ("/lib", "/lib")] {
//!     spec.inputs.push(Input { source: source.into(), target: target.into() });
//! }
//! spec.writable.push(Writable { source: "/home/me/private/out".into(), target: "/out".into() });
//! spec.limits.wall = Some(Duration::from_secs(60));
//!
//! // Pure: what this host cannot do is refused here, with what is missing and how to get it.
//! let plan = plan(&spec, &probe())?;
//! let launcher = Launcher::start()?;
//! let slot = Slot::lease("/run/kiln/slots".as_ref())?;
//! let running = launcher.spawn(&plan, &slot, Stdio::Log)?;
//! let ended = running.wait(&mut |log| print!("{}", String::from_utf8_lossy(log)))?;
//! assert_eq!(ended.how, How::Exited(0));
//! println!("isolated by {:?}", ended.achieved.namespaces);
//! # Ok(())
//! # }
//! ```
//! Who starts many of them can begin the next while one runs ([`Launcher::begin`]), which takes a third off its start.
//! `examples/run.rs` is a whole program. [`doctor`] says what a host lacks, and the command that brings it.
//!
//! # Limits
//! Kernel bugs, hardware side channels, CPUID and the wall clock are not covered. Without control groups memory is bounded
//! per process and per tmpfs, not in total ([`control_group`]). x86-64 only.

mod begun;
pub mod control_group;
mod disk;
pub mod doctor;
pub mod door;
pub mod error;
mod filter;
mod forbidden;
mod group;
mod id_range;
pub mod launcher;
mod limits;
pub mod plan;
pub mod probe;
mod reclaim;
pub mod running;
pub mod slot;
mod sound;
pub mod spec;
pub mod status;
mod surface;
mod sys;

pub use begun::Begun;
pub use control_group::ControlGroups;
pub use door::{Answer, Call, Door, Doorway};
pub use error::{BadSpec, PlanError, Refusal, SetupError};
pub use launcher::{Launcher, Stdio, sweep};
pub use plan::{Plan, plan};
pub use probe::{Host, probe, suppose};
pub use running::{Canceller, Leaving, Running};
pub use slot::{Slot, SlotError};
pub use sound::MOST_INPUTS;
pub use spec::{
    Aslr, Filter, Ids, Input, Kernel, Limits, Network, ProcMode, Process, Root, Spec, Surface, TimeBase, Tmpfs,
    Writable,
};
pub use status::{Achieved, Ended, How, Observed, Usage, Which};
