//! The engine's clock: it only goes forward, and no change of the date moves it.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Time since this machine was started, the same in all its processes; it goes on while the machine sleeps.
pub(super) fn now() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or_default())
}

/// What tells one start of this machine from another (proc(5)); times of different ones cannot be compared.
pub(super) fn boot() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|id| id.trim().to_string()).unwrap_or_default()
}
