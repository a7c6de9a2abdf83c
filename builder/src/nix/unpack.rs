//! Archive → tree, anywhere: what `nix-store --restore` does.
//!
//! Under a private name beside its place until it is whole, then moved there; nothing that exists is replaced.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use kiln_model::format::nar::{Event, Limits, NarError, decode};

use crate::exit::Kind;

/// Why an archive was not unpacked.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// Not an archive.
    #[error(transparent)]
    Nar(#[from] NarError),
    /// Something is there.
    #[error("{} exists: an archive is unpacked to a name that does not", path.display())]
    Exists {
        /// What.
        path: PathBuf,
    },
    /// The tree cannot be written.
    #[error("writing {}", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl UnpackError {
    /// Who has to act on it.
    pub fn kind(&self) -> Kind {
        match self {
            // One that ends early is no archive.
            Self::Nar(NarError::Io(error)) if error.kind() == io::ErrorKind::UnexpectedEof => Kind::BadInput,
            Self::Nar(NarError::Io(_)) | Self::Io { .. } => Kind::Host,
            Self::Nar(_) | Self::Exists { .. } => Kind::BadInput,
        }
    }
}

/// Unpacks the archive that `nar` is, to its end, as `place`.
pub fn unpack(nar: &mut dyn Read, place: &Path) -> Result<(), UnpackError> {
    let failed = |source| UnpackError::Io { path: place.into(), source };
    if place.symlink_metadata().is_ok() {
        return Err(UnpackError::Exists { path: place.into() });
    }
    let parent = place.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let private = tempfile::Builder::new().prefix(".kiln-nar-").tempdir_in(parent).map_err(failed)?;
    let root = private.path().join("root");
    let mut open: Vec<PathBuf> = Vec::new();
    let limits = Limits { entries: u64::MAX, bytes: u64::MAX };
    let mut reader = BufReader::with_capacity(128 << 10, nar);
    decode(&mut reader, &limits, |event| {
        // A name has neither slashes nor dots alone, and every directory on the way was made here.
        let at = |name: Option<&[u8]>| match (open.last(), name) {
            (Some(directory), Some(name)) => directory.join(OsStr::from_bytes(name)),
            _ => root.clone(),
        };
        match event {
            Event::DirectoryStart { name } => {
                let path = at(name);
                fs::create_dir(&path)?;
                open.push(path);
                Ok(())
            }
            Event::DirectoryEnd => {
                open.pop();
                Ok(())
            }
            Event::Symlink { name, target } => std::os::unix::fs::symlink(OsStr::from_bytes(target), at(name)),
            Event::File { name, executable, mut contents, .. } => {
                let mode = if executable { 0o777 } else { 0o666 };
                let mut file = File::options().write(true).create_new(true).mode(mode).open(at(name))?;
                io::copy(&mut contents, &mut file).map(drop)
            }
        }
    })?;
    fs::rename(&root, place).map_err(failed)
}
