//! Downloaded files, by their SHA-256. `fetch` writes and reads them; the store keeps those that somebody needs.

use kiln_model::digest::Digest;

use super::Store;
use super::error::StoreError;

impl Store {
    /// Keeps files from being collected, those too that are only about to be fetched.
    pub fn hold_files<'d>(&self, digests: impl IntoIterator<Item = &'d Digest>) -> Result<(), StoreError> {
        let _shared = self.share_with_gc()?;
        digests.into_iter().try_for_each(|digest| self.hold_line(&file_line(digest)))
    }
}

pub(super) fn file_line(digest: &Digest) -> String {
    format!("file {digest}")
}
