//! Files of a range of ids, given back to the user who is its 0.
//!
//! Outside, that user may not even look into a directory of another id. The launcher's binary does it, as root of a user
//! namespace with the same maps (see [`kiln_launcher::reclaim`]).

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use kiln_launcher::reclaim::{WAITING, WORD};
use rustix::fs::MemfdFlags;

use crate::error::SetupError;
use crate::id_range::IdRange;
use crate::launcher::{BINARY, sealed, stream};

/// Gives everything at and below `directory` to the caller. No process may use it meanwhile.
pub(crate) fn tree(range: &IdRange, directory: &Path) -> Result<(), SetupError> {
    let failed = |act| move |error: io::Error| SetupError::Launcher { act, error };
    // The process does not have the caller's working directory.
    let directory = std::path::absolute(directory).map_err(failed("finding the directory to take back"))?;
    let binary = sealed(c"kiln-launcher", BINARY, MemfdFlags::EXEC).map_err(io::Error::from);
    let binary = binary.map_err(failed("copying it to memory"))?;
    let (ours, theirs) = stream().map_err(io::Error::from).map_err(failed("making its socket"))?;
    let mut process = Command::new(format!("/proc/self/fd/{}", binary.as_raw_fd()))
        .arg0("kiln-launcher")
        .arg(WORD)
        .arg(&directory)
        .env_clear()
        .stdin(theirs)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(failed("starting it to take back files"))?;
    let told = talk(range, process.id(), File::from(ours));
    // It ends with the socket at the latest, and its pid stays its own until here.
    let ended = process.wait().map_err(failed("waiting for files to be taken back"))?;
    let told = told?;
    match ended.success() {
        true => Ok(()),
        false => {
            let (number, path) = told.split_at(told.iter().position(|byte| *byte == b' ').unwrap_or(told.len()));
            let number = std::str::from_utf8(number).ok().and_then(|number| number.parse().ok());
            let error =
                number.map_or_else(|| io::Error::other("it ended without a word"), io::Error::from_raw_os_error);
            let path = Path::new(OsStr::from_bytes(path.get(1..).unwrap_or_default()));
            Err(match path.as_os_str().is_empty() {
                true => SetupError::Launcher { act: "taking back files of a range of ids", error },
                false => SetupError::Source { path: path.to_owned(), error },
            })
        }
    }
}

/// Maps its ids, lets it go on, and returns what it says in the end.
fn talk(range: &IdRange, pid: u32, mut socket: File) -> Result<Vec<u8>, SetupError> {
    let failed = |error| SetupError::Launcher { act: "taking back files of a range of ids", error };
    let mut word = [0];
    socket.read_exact(&mut word).map_err(failed)?;
    let mut told = word.to_vec();
    if word == [WAITING] {
        told.clear();
        range.write(i32::try_from(pid).unwrap_or(i32::MAX))?;
        socket.write_all(&[1]).map_err(failed)?;
    }
    socket.read_to_end(&mut told).map_err(failed)?;
    Ok(told)
}
