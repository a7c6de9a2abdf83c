//! Downloaded files, by their SHA-256. `fetch` and capsules write them; the store keeps those that somebody needs.

use std::fs::File;
use std::io::{Read, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use kiln_model::digest::Digest;
use sha2::{Digest as _, Sha256};

use super::error::{StoreError, failed};
use super::{Store, durable};

impl Store {
    /// Where the file with this digest lies, if the store has it; it is held then.
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

    /// Adds what `reader` gives if its digest is `digest`; `what` names it in errors. On return it is on the disk.
    pub fn add_file(&self, what: &str, reader: &mut dyn Read, digest: &Digest) -> Result<PathBuf, StoreError> {
        if let Some(path) = self.file(digest)? {
            return Ok(path);
        }
        let temporary = self.session.private_name();
        let added = self.receive(what, reader, digest, &temporary);
        if added.is_err() {
            std::fs::remove_file(&temporary).ok();
        }
        added
    }

    fn receive(
        &self,
        what: &str,
        reader: &mut dyn Read,
        digest: &Digest,
        temporary: &PathBuf,
    ) -> Result<PathBuf, StoreError> {
        let mut file = File::create_new(temporary).map_err(failed("creating", temporary))?;
        let mut hasher = Sha256::new();
        let mut buffer = vec![0; 128 * 1024];
        loop {
            let count = match reader.read(&mut buffer) {
                Ok(0) => break,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                count => count.map_err(|source| StoreError::Io { act: "receiving", path: what.into(), source })?,
            };
            hasher.update(&buffer[..count]);
            file.write_all(&buffer[..count]).map_err(failed("writing", temporary))?;
        }
        let found = Digest::from_bytes(hasher.finalize().into());
        if found != *digest {
            return Err(StoreError::WrongFile { what: what.into(), expected: *digest, found });
        }
        file.set_permissions(std::fs::Permissions::from_mode(0o444)).map_err(failed("writing", temporary))?;
        file.sync_all().map_err(failed("syncing", temporary))?;
        let _shared = self.share_with_gc()?;
        self.hold_line(&file_line(digest))?;
        let path = self.layout.file(digest);
        // Another process may have been faster: the same bytes replace each other.
        durable::rename(temporary, &path)?;
        Ok(path)
    }
}

pub(super) fn file_line(digest: &Digest) -> String {
    format!("file {digest}")
}
