//! Programs that packages' scripts start and of whose work nothing stays: `true` has their names meanwhile.
//!
//! All that they write is removed again by [`normalise`](super::normalise), since it tells the times of files. Indexing a
//! hundred manuals takes a second, and is done twice.

use std::io;
use std::os::fd::AsFd as _;

use rustix::fs::{AtFlags, FileType, statat};
use rustix::io::Errno;

use super::EnvironmentError;
use super::tree::{Tree, split};

/// Writes `var/cache/man`; `var/cache/fontconfig`.
const PROGRAMS: [&str; 2] = ["usr/bin/mandb", "usr/bin/fc-cache"];
const TRUE: &str = "usr/bin/true";
/// Appended to the name of a program that is aside.
const ASIDE: &str = ".kiln-aside";

/// The programs whose names `true` has.
#[must_use = "they are to be put back"]
pub(super) struct Aside(Vec<&'static str>);

/// Gives `true` the names of the programs that are in the tree. Where it is no file of its own, but a link to a program that
/// goes by its name, they stay.
pub(super) fn set_aside(tree: &Tree) -> Result<Aside, EnvironmentError> {
    let mut aside = Aside(Vec::new());
    if inode(tree, TRUE)?.is_none() {
        return Ok(aside);
    }
    let mut cursor = tree.cursor();
    for program in PROGRAMS {
        if inode(tree, program)?.is_some() {
            let renamed = cursor.rename(program.as_bytes(), format!("{program}{ASIDE}").as_bytes());
            let named = renamed.and_then(|()| cursor.make_hard_link(program.as_bytes(), TRUE.as_bytes()));
            named.map_err(|e| EnvironmentError::write(tree, program.as_bytes(), e))?;
            aside.0.push(program);
        }
    }
    Ok(aside)
}

impl Aside {
    /// Puts the programs back. Refused if a script has done anything to what had their names: it meant the programs.
    pub(super) fn put_back(self, tree: &Tree) -> Result<(), EnvironmentError> {
        let mut cursor = tree.cursor();
        for program in self.0 {
            let failed = |e| EnvironmentError::write(tree, program.as_bytes(), e);
            if inode(tree, program)? != inode(tree, TRUE)? {
                return Err(failed(io::Error::other(
                    "a script of a package has replaced or moved it, which kiln cannot do again",
                )));
            }
            cursor.rename(format!("{program}{ASIDE}").as_bytes(), program.as_bytes()).map_err(failed)?;
        }
        Ok(())
    }
}

/// Which file this is, if it is a regular one.
fn inode(tree: &Tree, path: &str) -> Result<Option<u64>, EnvironmentError> {
    let (directory, name) = split(path.as_bytes());
    let found = tree.open_directory(directory).and_then(|directory| {
        let name = std::str::from_utf8(name).expect("names of ours");
        Ok(statat(directory.as_fd(), name, AtFlags::SYMLINK_NOFOLLOW)?)
    });
    match found {
        Ok(stat) => Ok((FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile).then_some(stat.st_ino)),
        Err(error)
            if [Errno::NOENT, Errno::NOTDIR, Errno::LOOP]
                .iter()
                .any(|e| error.raw_os_error() == Some(e.raw_os_error())) =>
        {
            Ok(None)
        }
        Err(error) => Err(EnvironmentError::read(tree, path.as_bytes(), error)),
    }
}
