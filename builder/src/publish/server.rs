//! A tree of evidence on a server: a directory of the web that takes PUT under conditions.
//!
//! Names that never change are put if they are absent (`If-None-Match: *`), the checkpoint if it is unchanged (`If-Match`). A server
//! that takes both whatever they say would let two writers fork a log, so [`Server::writing`] tries that first, on a file that
//! is there for nothing else. A lost answer to a PUT that was taken looks like somebody else's PUT: what is there is read, and is
//! ours if the bytes are. Where a file's directory has to be made first (WebDAV), it is made when the file was not taken for that. That a
//! file is durable once it was taken is the server's promise.

use std::collections::BTreeSet;
use std::num::NonZero;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use url::Url;

use super::error::PublishError;
use super::place::{NewFile, Place};
use crate::fetch::{Condition, Found, Refusal, Tag, Taken, Upload, Web};
use crate::parallel;

/// The file on which a server is tried, and what is in it. Its name has no dot before it: many servers hide such files.
const PROBE: &str = "log.probe";
const PROBE_BYTES: &[u8] = b"kiln tries here whether this server holds to If-None-Match and If-Match\n";
/// A tag that no server gives to the probe.
const NO_TAG: &str = "\"kiln-tries-a-tag-that-is-not-this-file's\"";
/// How often a file is put that was there and is not, or that others replace by the same.
const TRIES: usize = 4;
/// How long a file may be too young for a strong tag.
const YOUNG: Duration = Duration::from_millis(2100);

/// A directory of a server.
pub struct Server<'w> {
    web: &'w Web,
    base: Url,
    at_once: NonZero<usize>,
    /// Directories that were made, or were there.
    made: Mutex<BTreeSet<String>>,
}

impl<'w> Server<'w> {
    /// To write below `base`, which ends in a slash, with at most `at_once` requests at a time; once the server has shown that it
    /// refuses what it should.
    pub fn writing(web: &'w Web, base: Url, at_once: NonZero<usize>) -> Result<Self, PublishError> {
        let server = Self { web, base, at_once, made: Mutex::default() };
        server.probe()?;
        Ok(server)
    }

    /// Nothing of the tree is touched, and the probe has the same bytes for everybody who tries at the same time.
    fn probe(&self) -> Result<(), PublishError> {
        let lacks = |what| PublishError::Unconditional { to: self.shown(), file: PROBE.into(), what };
        let put = |condition: Condition<'_>| self.put_if(PROBE, PROBE_BYTES, condition);
        self.add(&NewFile { name: PROBE.into(), bytes: PROBE_BYTES.into() })?;
        let mut tag = self.probe_tag()?;
        if put(Condition::Absent)? == Taken::Yes {
            return Err(lacks("takes a file that is to be absent, and is there (If-None-Match: *)"));
        }
        let other = Tag::strong(NO_TAG).expect("it is one");
        if put(Condition::Unchanged(&other))? == Taken::Yes {
            return Err(lacks("takes a file in place of one that has another tag (If-Match)"));
        }
        for _ in 0..TRIES {
            if put(Condition::Unchanged(&tag))? == Taken::Yes {
                return Ok(());
            }
            // Where a tag is made of the time, another who tried has given it a new one.
            tag = self.probe_tag()?;
        }
        Err(lacks("does not take a file in place of one that has the tag it gave (If-Match)"))
    }

    fn probe_tag(&self) -> Result<Tag, PublishError> {
        let lacks = |what| PublishError::Unconditional { to: self.shown(), file: PROBE.into(), what };
        match self.found_tagged(PROBE, PROBE_BYTES.len())? {
            Some(Found { bytes, tag: Some(tag) }) if bytes == PROBE_BYTES => Ok(tag),
            Some(Found { bytes, tag: None }) if bytes == PROBE_BYTES => Err(lacks("gives no strong ETag")),
            Some(_) => Err(lacks("gives other bytes than were put there")),
            None => Err(lacks("does not give what was put there")),
        }
    }

    fn url(&self, name: &str) -> Result<Url, PublishError> {
        self.base.join(name).map_err(|_| PublishError::Address { address: format!("{}{name}", self.base) })
    }

    fn found(&self, name: &str, limit: usize) -> Result<Option<Found>, PublishError> {
        let (from, file) = (self.shown(), name.to_owned());
        self.web.found(&self.url(name)?, limit as u64).map_err(|refusal| match refusal {
            Refusal::TooLarge(limit) => PublishError::TooLarge { file: format!("{from}{file}"), limit },
            Refusal::Status(status @ (401 | 403)) => PublishError::Unreadable { from, file, status },
            source => PublishError::Unreachable { from, file, source },
        })
    }

    /// The same with a strong tag, if need be once the file is older: what was written within a second may have a weak one until
    /// that is over (RFC 9110, 8.8.2.2), as with Apache's.
    fn found_tagged(&self, name: &str, limit: usize) -> Result<Option<Found>, PublishError> {
        match self.found(name, limit)? {
            Some(Found { tag: None, .. }) => {
                std::thread::sleep(YOUNG);
                self.found(name, limit)
            }
            found => Ok(found),
        }
    }

    fn put_if(&self, name: &str, bytes: &[u8], condition: Condition<'_>) -> Result<Taken, PublishError> {
        let taken = self.web.put_if(&self.url(name)?, kind_of(name), condition, bytes);
        taken.map_err(|refusal| self.not_taken(name, refusal))
    }

    fn not_taken(&self, name: &str, refusal: Refusal) -> PublishError {
        let (to, file) = (self.shown(), name.to_owned());
        match refusal {
            Refusal::Status(status @ (401 | 403 | 405)) => PublishError::Unwelcome { to, file, status },
            source => PublishError::NotTaken { to, file, source },
        }
    }

    /// A file of a name that never has other bytes.
    fn add(&self, file: &NewFile) -> Result<(), PublishError> {
        for _ in 0..TRIES {
            if self.put_if(&file.name, &file.bytes, Condition::Absent)? == Taken::Yes {
                return Ok(());
            }
            match self.found(&file.name, file.bytes.len()) {
                Ok(Some(found)) if found.bytes == file.bytes => return Ok(()),
                Ok(Some(_)) | Err(PublishError::TooLarge { .. }) => {
                    return Err(PublishError::Changed { file: format!("{}{}", self.base, file.name) });
                }
                // Refused because another was putting it, who did not end, or for want of a directory.
                Ok(None) => self.make_directories(&file.name)?,
                Err(error) => return Err(error),
            }
        }
        let said = "says that the file is there, or cannot be, and does not give it";
        Err(self.not_taken(&file.name, Refusal::Absent(said.into())))
    }

    /// The tree's directory and those above the file.
    fn make_directories(&self, name: &str) -> Result<(), PublishError> {
        let below = name.match_indices('/').map(|(end, _)| &name[..=end]);
        for directory in std::iter::once("").chain(below) {
            // Held while it is made, so that nobody goes on without it.
            let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
            if !made.contains(directory) {
                let asked = self.web.make_directory(&self.url(directory)?);
                asked.map_err(|refusal| self.not_taken(name, refusal))?;
                made.insert(directory.into());
            }
        }
        Ok(())
    }

    /// A file, in place of one that may be there.
    fn put(&self, file: &NewFile) -> Result<(), PublishError> {
        let url = self.url(&file.name)?;
        let put = || self.web.put(&url, kind_of(&file.name), Upload::Bytes(&file.bytes));
        let done = match put() {
            Err(Refusal::Status(404 | 409)) => {
                self.make_directories(&file.name)?;
                put()
            }
            done => done,
        };
        done.map_err(|refusal| self.not_taken(&file.name, refusal))
    }

    fn conflict(&self, file: &NewFile) -> PublishError {
        PublishError::Conflict { file: format!("{}{}", self.base, file.name) }
    }
}

impl Place for Server<'_> {
    fn shown(&self) -> String {
        self.base.to_string()
    }

    fn at_once(&self) -> NonZero<usize> {
        self.at_once
    }

    /// A server has no lock.
    fn is_shared(&self) -> bool {
        true
    }

    fn read(&self, name: &str, limit: usize) -> Result<Option<Vec<u8>>, PublishError> {
        Ok(self.found(name, limit)?.map(|found| found.bytes))
    }

    fn write_new(&self, files: &[NewFile]) -> Result<(), PublishError> {
        parallel::try_map(self.at_once, files, |file| self.add(file)).map(drop)
    }

    fn write_over(&self, files: &[NewFile]) -> Result<(), PublishError> {
        parallel::try_map(self.at_once, files, |file| self.put(file)).map(drop)
    }

    fn replace(&self, file: &NewFile, old: Option<&[u8]>) -> Result<(), PublishError> {
        let limit = old.map_or(0, <[u8]>::len).max(file.bytes.len());
        let found = || match self.found_tagged(&file.name, limit) {
            Err(PublishError::TooLarge { .. }) => Err(self.conflict(file)),
            found => found,
        };
        let before = found()?;
        match before.as_ref().map(|found| &found.bytes[..]) {
            Some(bytes) if bytes == file.bytes => return Ok(()),
            bytes if bytes == old => {}
            _ => return Err(self.conflict(file)),
        }
        let taken = match before {
            None => self.put_if(&file.name, &file.bytes, Condition::Absent)?,
            Some(Found { tag: Some(tag), .. }) => self.put_if(&file.name, &file.bytes, Condition::Unchanged(&tag))?,
            Some(Found { tag: None, .. }) => {
                let what = "gives no strong ETag";
                return Err(PublishError::Unconditional { to: self.shown(), file: file.name.clone(), what });
            }
        };
        // Perhaps it was taken, and the answer lost.
        match taken == Taken::Yes || found()?.is_some_and(|found| found.bytes == file.bytes) {
            true => Ok(()),
            false => Err(self.conflict(file)),
        }
    }
}

/// What servers are to say that a file is; the log's are those that C2SP's tlog-tiles asks for.
fn kind_of(name: &str) -> &'static str {
    match name.rsplit_once('.').map(|(_, ending)| ending) {
        _ if name.starts_with("tile/") || name.starts_with("att/index/") => "application/octet-stream",
        Some("json") => "application/json",
        Some("jsonl") => "application/jsonl",
        _ => "text/plain; charset=utf-8",
    }
}
