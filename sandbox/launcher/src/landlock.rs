//! Landlock: a second layer under mounts and filter. No promise rests on it alone.
//!
//! Best effort: the kernel's ABI decides which rights are handled, and the ABI in force is reported. Below ABI 2 every
//! rename between directories would fail, so there only nothing is restricted.

use std::ffi::CString;
use std::os::fd::AsFd;

use landlock::{
    ABI, Access, AccessFs, CompatLevel, Compatible, PathBeneath, Ruleset, RulesetAttr, RulesetCreatedAttr, Scope,
};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::sys;

/// Everything may be read and executed, only what is below `writable` may be changed. Signals and abstract sockets
/// stay within the sandbox. Returns the ABI in force, 0 if none.
pub(crate) fn restrict(writable: &[CString]) -> Result<u32, Errno> {
    let abi = sys::landlock_abi();
    if abi < 2 {
        return Ok(0);
    }
    let known = ABI::from(abi as i32);
    let all = AccessFs::from_all(known);
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(all)
        .and_then(|rules| rules.scope(Scope::from_all(known)))
        .and_then(Ruleset::create)
        .map_err(|_| Errno::INVAL)?;
    let readable = AccessFs::from_read(known);
    let paths = [(c"/", readable)].into_iter().chain(writable.iter().map(|path| (path.as_c_str(), all)));
    for (path, access) in paths {
        let parent = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        rules = rules.add_rule(PathBeneath::new(parent.as_fd(), access)).map_err(|_| Errno::INVAL)?;
    }
    rules.restrict_self().map_err(|_| Errno::INVAL)?;
    Ok(abi.min(known as u32))
}
