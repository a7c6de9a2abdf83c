//! Tree → NAR, as a stream.
//!
//! For trees that nobody is changing: the store's, and those a user names. Links are not followed. What a NAR cannot hold is
//! refused; a file that changes its length while it is read is, too.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read as _, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use kiln_model::format::nar::{MAX_DEPTH, frame};

/// Why there is no archive of a tree.
#[derive(Debug, thiserror::Error)]
pub enum DumpError {
    /// The tree cannot be read.
    #[error("reading {}", path.display())]
    Read {
        /// What of it.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Not a file, directory or link.
    #[error("{} is {what}: a NAR holds regular files, directories and symbolic links", path.display())]
    Odd {
        /// Which entry.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// A file grew or shrank.
    #[error("{} changed while it was read", path.display())]
    Changed {
        /// Which.
        path: PathBuf,
    },
    /// Too many directories in each other.
    #[error("{} is nested deeper than {MAX_DEPTH} levels", path.display())]
    TooDeep {
        /// Where.
        path: PathBuf,
    },
    /// The archive cannot be written.
    #[error("writing the archive")]
    Write(#[source] io::Error),
}

impl DumpError {
    /// Whoever was to read the archive has gone.
    pub fn is_broken_pipe(&self) -> bool {
        matches!(self, Self::Write(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}

/// Writes the archive of the tree at `root` to `out`.
pub fn dump(root: &Path, out: &mut dyn Write) -> Result<(), DumpError> {
    let mut dump = Dump { out, scratch: Vec::new(), buffer: vec![0; 256 << 10] };
    dump.frame(frame::start)?;
    dump.node(root, 0)
}

struct Dump<'w> {
    out: &'w mut dyn Write,
    scratch: Vec<u8>,
    buffer: Vec<u8>,
}

impl Dump<'_> {
    fn frame(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> Result<(), DumpError> {
        self.scratch.clear();
        write(&mut self.scratch);
        self.out.write_all(&self.scratch).map_err(DumpError::Write)
    }

    fn node(&mut self, path: &Path, depth: usize) -> Result<(), DumpError> {
        let read = |source| DumpError::Read { path: path.into(), source };
        if depth >= MAX_DEPTH {
            return Err(DumpError::TooDeep { path: path.into() });
        }
        let metadata = path.symlink_metadata().map_err(read)?;
        let kind = metadata.file_type();
        if kind.is_dir() {
            let names: Result<Vec<OsString>, _> =
                fs::read_dir(path).map_err(read)?.map(|entry| Ok(entry?.file_name())).collect();
            let mut names = names.map_err(read)?;
            names.sort_unstable_by(|a, b| a.as_bytes().cmp(b.as_bytes()));
            self.frame(frame::directory)?;
            for name in names {
                self.frame(|out| frame::entry(out, name.as_bytes()))?;
                self.node(&path.join(&name), depth + 1)?;
                self.frame(frame::entry_end)?;
            }
            self.frame(frame::directory_end)
        } else if kind.is_symlink() {
            let target = fs::read_link(path).map_err(read)?;
            self.frame(|out| frame::symlink(out, target.as_os_str().as_bytes()))
        } else if kind.is_file() {
            let executable = metadata.permissions().mode() & 0o100 != 0;
            self.file(path, metadata.len(), if executable { frame::executable } else { frame::file })
        } else {
            let what = match () {
                () if kind.is_fifo() => "a named pipe",
                () if kind.is_socket() => "a socket",
                () => "a device",
            };
            Err(DumpError::Odd { path: path.into(), what })
        }
    }

    fn file(&mut self, path: &Path, size: u64, head: fn(&mut Vec<u8>, u64)) -> Result<(), DumpError> {
        let read = |source| DumpError::Read { path: path.into(), source };
        let mut file = File::open(path).map_err(read)?;
        self.frame(|out| head(out, size))?;
        let mut left = size;
        loop {
            let count = match file.read(&mut self.buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(read(error)),
            };
            left = left.checked_sub(count as u64).ok_or_else(|| DumpError::Changed { path: path.into() })?;
            self.out.write_all(&self.buffer[..count]).map_err(DumpError::Write)?;
        }
        if left > 0 {
            return Err(DumpError::Changed { path: path.into() });
        }
        self.frame(|out| frame::file_end(out, size))
    }
}
