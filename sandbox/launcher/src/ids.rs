//! Who a sandbox is: one id inside, one other outside.
//!
//! A user's outer id is the user's own; root's launcher gets a leased non-zero one. Kuid 0 is refused here once more:
//! sysctl files ask for the kuid and not for capabilities, so a map to 0 would let the payload write the host's.

use std::io::{Error, ErrorKind};

use rustix::io::Errno;

/// Launcher: writes the maps of the user namespace that `pid` was born into.
pub(crate) fn write_maps(pid: i32, inner: (u32, u32), outer: (u32, u32)) -> Result<(), Errno> {
    if outer.0 == 0 || outer.1 == 0 {
        return Err(Errno::PERM);
    }
    // setgroups must be denied before gid_map may be written without privilege: user_namespaces(7).
    let files = [
        ("setgroups", "deny".to_owned()),
        ("uid_map", format!("{} {} 1", inner.0, outer.0)),
        ("gid_map", format!("{} {} 1", inner.1, outer.1)),
    ];
    for (name, text) in files {
        std::fs::write(format!("/proc/{pid}/{name}"), text).map_err(errno)?;
    }
    Ok(())
}

/// The number of an I/O error.
pub(crate) fn errno(error: Error) -> Errno {
    match (error.raw_os_error(), error.kind()) {
        (Some(number), _) => Errno::from_raw_os_error(number),
        (None, ErrorKind::WriteZero | ErrorKind::UnexpectedEof) => Errno::IO,
        (None, _) => Errno::INVAL,
    }
}
