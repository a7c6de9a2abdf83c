//! What /proc shows of a process's arguments.

use std::ffi::CStr;

use rustix::io::Errno;

/// Makes `title`, or as much of it as there is room for, all that /proc/PID/cmdline shows of this process, and wipes its
/// arguments and environment from its stack.
pub(crate) fn retitle(title: &CStr) -> Result<(), Errno> {
    let stat = std::fs::read("/proc/self/stat").map_err(crate::ids::errno)?;
    let (arguments, environment) = areas(&stat).ok_or(Errno::PROTO)?;
    // The last byte of the arguments is not part of the title: one that is not NUL says that there is one, up to the first
    // NUL (setproctitle(3), and get_mm_cmdline in the kernel's fs/proc/base.c).
    let room = arguments.len().checked_sub(2).ok_or(Errno::NOBUFS)?;
    let title = title.to_bytes();
    let title = &title[..title.len().min(room)];
    // SAFETY: both areas are this process's own writable stack, where the kernel put strings before its first instruction;
    // nothing in Rust refers to them but the standard library's pointers for copying them, which end in NUL as before.
    // There is one thread. The title is no longer than the arguments.
    unsafe {
        std::ptr::write_bytes(environment.start as *mut u8, 0, environment.len());
        std::ptr::write_bytes(arguments.start as *mut u8, 0, arguments.len());
        std::ptr::copy_nonoverlapping(title.as_ptr(), arguments.start as *mut u8, title.len());
        *((arguments.end - 1) as *mut u8) = 1;
    }
    Ok(())
}

/// Where the strings of the arguments and of the environment lie: fields 48 to 51 of proc_pid_stat(5).
fn areas(stat: &[u8]) -> Option<(std::ops::Range<usize>, std::ops::Range<usize>)> {
    // The name, in parentheses, may contain anything.
    let after = stat.iter().rposition(|&byte| byte == b')')?;
    let mut fields = std::str::from_utf8(&stat[after + 1..]).ok()?.split_ascii_whitespace().skip(45);
    let mut next = || fields.next()?.parse::<usize>().ok().filter(|&address| address != 0);
    let (arguments, environment) = (next()?..next()?, next()?..next()?);
    (arguments.start <= arguments.end && environment.start <= environment.end).then_some((arguments, environment))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_areas_are_found_behind_any_name_and_hold_the_arguments_of_this_process() {
        let (arguments, environment) = areas(&std::fs::read("/proc/self/stat").unwrap()).unwrap();
        assert_eq!(arguments.len(), std::fs::read("/proc/self/cmdline").unwrap().len());
        assert!(environment.start >= arguments.end);
        assert_eq!(areas(b"7 (a) 1 2) S 1"), None);
        assert_eq!(areas(b""), None);
    }
}
