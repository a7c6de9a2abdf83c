//! What is sent to binary caches and logs: files, by PUT.
//!
//! With the host's proxies, certificates and credentials, to the address that was given and nowhere else. Sent again as often as
//! a file is asked for; a PUT is whole or was none, so that this does no harm. One that was to be taken under a condition may be
//! answered with [`Taken::No`] because an earlier try was taken and its answer lost: whoever asks looks at what is there.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};

use ureq::http::header;
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

/// A strong entity tag: two files of one name that have the same are byte for byte the same (RFC 9110, 8.8.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tag(String);

/// When a file is to be taken.
#[derive(Debug, Clone, Copy)]
pub enum Condition<'a> {
    /// If there is none of that name: `If-None-Match: *`.
    Absent,
    /// If it is still this one: `If-Match`.
    Unchanged(&'a Tag),
}

/// Whether a file was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// It is there.
    Yes,
    /// The condition did not hold.
    No,
}

/// A file as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// What names them, if the server says that.
    pub tag: Option<Tag>,
}

impl Tag {
    /// A tag as servers write them; none, if it is weak or none at all.
    pub fn strong(text: &str) -> Option<Self> {
        let inner = text.trim().strip_prefix('"')?.strip_suffix('"')?;
        // etagc (RFC 9110, 8.8.3), of which we send back what is ASCII.
        inner.bytes().all(|byte| byte == 0x21 || (0x23..=0x7e).contains(&byte)).then(|| Self(text.trim().into()))
    }
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

    /// The file of at most `limit` bytes at `url`, as this server has it now; none if it says that there is none. Unlike
    /// [`Web::get`], it does not take 403 for that, and follows no redirect: what is written is to be what was read.
    pub fn found(&self, url: &Url, limit: u64) -> Result<Option<Found>, Refusal> {
        self.patiently(|client| {
            let reply = client.get_now(Origin::Kiln, url)?;
            if reply.url != *url {
                return Err(Refusal::Redirect("redirected; what is written to is read from the same address".into()));
            }
            match reply.status {
                200 => {}
                404 | 410 => return Ok(None),
                other => return Err(Refusal::Status(other)),
            }
            let tag = reply.tag.as_deref().and_then(Tag::strong);
            let mut bytes = Vec::new();
            let read = self.stream(reply).take(limit.saturating_add(1)).read_to_end(&mut bytes);
            read.map_err(|error| match error.downcast::<Refusal>() {
                Ok(refusal) => refusal,
                Err(error) => Refusal::Unreadable(error.to_string()),
            })?;
            match bytes.len() as u64 > limit {
                true => Err(Refusal::TooLarge(limit)),
                false => Ok(Some(Found { bytes, tag })),
            }
        })
    }

    /// Sends a file of media type `kind`, which is there once this returns.
    pub fn put(&self, url: &Url, kind: &str, upload: Upload<'_>) -> Result<(), Refusal> {
        match self.sent(url, kind, None, upload)? {
            200..=299 => Ok(()),
            other => Err(Refusal::Status(other)),
        }
    }

    /// Sends a text of media type `kind`, to be taken if `condition` holds.
    pub fn put_if(&self, url: &Url, kind: &str, condition: Condition<'_>, bytes: &[u8]) -> Result<Taken, Refusal> {
        let field = match condition {
            Condition::Absent => (header::IF_NONE_MATCH, "*"),
            Condition::Unchanged(tag) => (header::IF_MATCH, tag.0.as_str()),
        };
        match (self.sent(url, kind, Some(field), Upload::Bytes(bytes))?, condition) {
            (200..=299, _) => Ok(Taken::Yes),
            // 412 says it (RFC 9110, 13.2); 409 is for one who was beaten to it, and 404 for one whose file was removed, where
            // objects are stored.
            (412 | 409, _) | (404 | 410, Condition::Unchanged(_)) => Ok(Taken::No),
            (other, _) => Err(Refusal::Status(other)),
        }
    }

    /// Makes a directory at `url`, which ends in a slash, unless there is one. A server without directories may answer what it likes
    /// to that: whether a file can be put there afterwards is for [`Web::put`] to find out.
    pub fn make_directory(&self, url: &Url) -> Result<(), Refusal> {
        self.patiently(|client| match Refusal::Status(client.make_directory(Origin::Kiln, url)?) {
            Refusal::Status(501) => Ok(()),
            refusal if refusal.may_pass() => Err(refusal),
            _ => Ok(()),
        })
    }

    /// Sends a file until it is answered in earnest; the status.
    fn sent(
        &self,
        url: &Url,
        kind: &str,
        condition: Option<(header::HeaderName, &str)>,
        upload: Upload<'_>,
    ) -> Result<u16, Refusal> {
        let unreadable = |error: std::io::Error| Refusal::Unreadable(format!("what is sent cannot be read: {error}"));
        self.patiently(|client| {
            let condition = condition.clone();
            let status = match upload {
                Upload::Bytes(bytes) => client.put(Origin::Kiln, url, kind, condition, bytes, bytes.len() as u64)?,
                Upload::File(mut file) => {
                    file.seek(SeekFrom::Start(0)).map_err(unreadable)?;
                    let size = file.metadata().map_err(unreadable)?.len();
                    client.put(Origin::Kiln, url, kind, condition, file, size)?
                }
            };
            let refusal = Refusal::Status(status);
            if refusal.may_pass() { Err(refusal) } else { Ok(status) }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_strong_or_none() {
        for strong in ["\"x\"", "\"\"", " \"6a5-1f\" "] {
            assert_eq!(Tag::strong(strong), Some(Tag(strong.trim().into())));
        }
        for other in ["W/\"x\"", "x", "\"", "\"x", "\"a\"b\"", "\"a b\"", "", "*"] {
            assert_eq!(Tag::strong(other), None, "{other}");
        }
    }
}
