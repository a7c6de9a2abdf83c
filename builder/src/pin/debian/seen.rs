//! The newest date seen of each suite: what shows a mirror that was frozen or turned back.
//!
//! One small file per suite in a directory of the caller's. It is only ever raised, by renaming a whole new file over the
//! old one, so a crash leaves one or the other; two runs at once may leave the older of their two dates, which still is
//! no older than what was there.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use jiff::Timestamp;

/// Why the state could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum SeenError {
    /// The host.
    #[error("{act} {}", path.display())]
    Io {
        /// What was being done.
        act: &'static str,
        /// To which file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// Not a date.
    #[error("{} holds {found:?}, expected a date; remove the file to forget what was seen", path.display())]
    NotADate {
        /// The file.
        path: PathBuf,
        /// What it holds.
        found: String,
    },
}

/// The newest date of a suite so far.
pub(super) fn read(directory: &Path, archive: &str, suite: &str) -> Result<Option<Timestamp>, SeenError> {
    let path = directory.join(format!("{archive}_{suite}"));
    match std::fs::read_to_string(&path) {
        Ok(text) => match text.trim().parse() {
            Ok(date) => Ok(Some(date)),
            Err(_) => Err(SeenError::NotADate { path, found: text.chars().take(40).collect() }),
        },
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(SeenError::Io { act: "reading", path, source }),
    }
}

/// Keeps a date that is newer than what was seen.
pub(super) fn raise(directory: &Path, archive: &str, suite: &str, date: Timestamp) -> Result<(), SeenError> {
    if read(directory, archive, suite)?.is_some_and(|seen| seen >= date) {
        return Ok(());
    }
    let path = directory.join(format!("{archive}_{suite}"));
    let write = || -> io::Result<()> {
        std::fs::create_dir_all(directory)?;
        let mut file = tempfile::NamedTempFile::new_in(directory)?;
        writeln!(file, "{date}")?;
        file.as_file().sync_all()?;
        file.persist(&path)?;
        Ok(())
    };
    write().map_err(|source| SeenError::Io { act: "writing", path: path.clone(), source })
}
