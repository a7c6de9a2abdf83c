//! The launcher as a fork of its caller, for one that is small and starts one sandbox: copying the launcher's own program
//! to memory and executing it costs a quarter of what the sandbox does.
//!
//! What the child has of its caller's is let go before it serves: descriptors, arguments, environment. The sandbox could
//! read the arguments otherwise, in pid 1's /proc files, which ask for no permission there. The rest of pid 1's memory is
//! as unreachable as any launcher's: it is undumpable before anything foreign runs.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::serve;
use crate::sys::{self, Fork};

/// What /proc shows of it and of pid 1.
const TITLE: &std::ffi::CStr = c"kiln-launcher";

/// Links to `/proc/self/task` of a process with one thread: `.`, its name, one for each thread.
const LINKS_OF_ONE_THREAD: u64 = 3;

/// Starts it with its end of the request socket and returns its pidfd; or nothing, if the caller has further threads, whose
/// locks would stay locked in the child.
pub fn start(socket: impl AsFd) -> Result<Option<OwnedFd>, Errno> {
    if rustix::fs::stat(c"/proc/self/task")?.st_nlink != LINKS_OF_ONE_THREAD {
        return Ok(None);
    }
    match sys::fork()? {
        Fork::Parent { pidfd, .. } => Ok(Some(pidfd)),
        Fork::Child => {
            let life = || become_launcher(socket.as_fd()).and_then(serve::on);
            let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(life));
            sys::exit_now(if let Ok(Ok(())) = ended { 0 } else { 70 })
        }
    }
}

/// Lets everything of the caller's go but the socket.
fn become_launcher(socket: impl AsFd) -> Result<OwnedFd, Errno> {
    let null = rustix::fs::open(c"/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)?;
    drop(null);
    let socket = rustix::io::fcntl_dupfd_cloexec(socket, 3)?;
    let number = socket.as_raw_fd() as u32;
    sys::close_range(number + 1, u32::MAX)?;
    if number > 3 {
        sys::close_range(3, number - 1)?;
    }
    rustix::thread::set_name(TITLE)?;
    sys::retitle(TITLE)?;
    Ok(socket)
}
