//! Downloaded files, by their SHA-256. `fetch` writes and reads them; the store keeps those that somebody needs.

use std::path::PathBuf;

use kiln_model::digest::Digest;

use super::Store;
use super::error::StoreError;

impl Store {
    /// Where the file with this digest lies, if the store has it; it is held then. Its bytes are not read.
    pub fn file(&self, digest: &Digest) -> Result<Option<PathBuf>, StoreError> {
        let _shared = self.share_with_gc()?;
        let path = self.layout.file(digest);
        if !path.is_file() {
            return Ok(None);
        }
        self.hold_line(&file_line(digest))?;
        Ok(Some(path))
    }

    /// Keeps files from being collected, those too that are only about to be fetched.
    pub fn hold_files<'d>(&self, digests: impl IntoIterator<Item = &'d Digest>) -> Result<(), StoreError> {
        let _shared = self.share_with_gc()?;
        digests.into_iter().try_for_each(|digest| self.hold_line(&file_line(digest)))
    }
}

pub(super) fn file_line(digest: &Digest) -> String {
    format!("file {digest}")
}
