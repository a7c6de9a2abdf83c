//! What is sent to binary caches: files, by PUT.
//!
//! With the host's proxies, certificates and credentials, to the address that was given and nowhere else. Sent again as often as
//! a file is asked for; a PUT is whole or was none, so that this does no harm.

use std::fs::File;
use std::io::{Seek as _, SeekFrom};

use url::Url;

use super::mirror::Origin;
use super::{Refusal, Web};

/// What is sent.
#[derive(Debug, Clone, Copy)]
pub enum Upload<'a> {
    /// A text.
    Bytes(&'a [u8]),
    /// A file, all of it.
    File(&'a File),
}

/// What a server says of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// It has it; of this size, where it says so.
    Present(Option<u64>),
    /// It has none.
    Absent,
    /// It does not answer that question.
    Unknown,
}

impl Web {
    /// Whether there is a file at `url`.
    pub fn presence(&self, url: &Url) -> Result<Presence, Refusal> {
        self.patiently(|client| {
            let reply = client.head(Origin::Kiln, url)?;
            match reply.status {
                200 => Ok(Presence::Present(reply.length)),
                403 | 404 | 410 => Ok(Presence::Absent),
                405 | 501 => Ok(Presence::Unknown),
                other => Err(Refusal::Status(other)),
            }
        })
    }

    /// Sends a file of media type `kind`, which is there once this returns.
    pub fn put(&self, url: &Url, kind: &str, upload: Upload<'_>) -> Result<(), Refusal> {
        let unreadable = |error: std::io::Error| Refusal::Unreadable(format!("what is sent cannot be read: {error}"));
        self.patiently(|client| {
            let status = match upload {
                Upload::Bytes(bytes) => client.put(Origin::Kiln, url, kind, bytes, bytes.len() as u64)?,
                Upload::File(mut file) => {
                    file.seek(SeekFrom::Start(0)).map_err(unreadable)?;
                    let size = file.metadata().map_err(unreadable)?.len();
                    client.put(Origin::Kiln, url, kind, file, size)?
                }
            };
            match status {
                200..=299 => Ok(()),
                other => Err(Refusal::Status(other)),
            }
        })
    }
}
