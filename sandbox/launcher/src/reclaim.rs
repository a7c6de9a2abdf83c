//! Taking back what a sandbox with many ids leaves: its files belong to ids that the caller cannot touch from outside.
//!
//! A process of its own: it enters a user namespace in which kiln maps the same ids, becomes root there, and gives every
//! file below the paths of its arguments to that root, who is the caller outside. It says on descriptor 0 that it waits, reads
//! one byte once the maps are written, and says at the end what went wrong, if anything. Has no other namespace and no rights
//! but over files of the mapped ids.

use std::ffi::OsString;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::process::ExitCode;

use rustix::io::Errno;
use rustix::thread::{Gid, Uid};

use crate::{owner, sys};

/// The launcher's first argument if it is to be this program.
pub const WORD: &str = "reclaim";

/// What it says when it waits for the maps.
pub const WAITING: u8 = b'w';

/// Gives all trees to the namespace's root. What it says in the end is an errno in decimal, a space, and a path.
pub fn run(trees: impl Iterator<Item = OsString>) -> ExitCode {
    let Ok(socket) = rustix::io::fcntl_dupfd_cloexec(std::io::stdin(), 3) else { return ExitCode::FAILURE };
    let mut socket = File::from(socket);
    let reclaimed = enter(&mut socket).map_err(|errno| (Path::new("").to_owned(), errno)).and_then(|()| {
        let mut trees = trees;
        trees.try_for_each(|tree| owner::change(Path::new(&tree), Uid::ROOT, Gid::ROOT))
    });
    let Err((path, errno)) = reclaimed else { return ExitCode::SUCCESS };
    let said = [format!("{} ", errno.raw_os_error()).as_bytes(), path.as_os_str().as_bytes()].concat();
    // kiln is gone if this fails, and nobody is left to tell.
    let _ = socket.write_all(&said);
    ExitCode::FAILURE
}

fn enter(socket: &mut File) -> Result<(), Errno> {
    sys::unshare_user()?;
    let errno = |error: std::io::Error| Errno::from_io_error(&error).unwrap_or(Errno::IO);
    socket.write_all(&[WAITING]).map_err(errno)?;
    // Without that byte there are no maps.
    socket.read_exact(&mut [0]).map_err(errno)?;
    rustix::thread::set_thread_res_gid(Gid::ROOT, Gid::ROOT, Gid::ROOT)?;
    rustix::thread::set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT)
}
