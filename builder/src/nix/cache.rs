//! A binary cache that is read: a directory, or an address.
//!
//! Gives bytes and believes nothing. What it says of itself is read once, before anything else. What a cache on the network
//! answered to questions for small files may come from memory; whoever finds that it is no longer so says [`Cache::forget`].

use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::OnceLock;

use kiln_model::format::cache_info::{self, CacheInfo};
use url::Url;

use super::error::CacheError;
use super::remembered::{Answer, Remembered};
use crate::fetch::{Stream, Web};

/// A binary cache.
pub struct Cache<'w> {
    shown: String,
    place: Place<'w>,
    info: OnceLock<CacheInfo>,
    memory: Option<&'w Remembered>,
}

/// The bytes of a small file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Small {
    pub(super) bytes: Vec<u8>,
    pub(super) source: Source,
}

/// Whether a cache said something now, or some time ago.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    Cache,
    Memory,
}

enum Place<'w> {
    Directory(PathBuf),
    Web { web: &'w Web, base: Url },
}

/// One file of a cache.
pub(super) struct Body {
    reader: Box<dyn Read>,
    /// Bytes it has, where that is known.
    pub(super) size: Option<u64>,
}

impl Read for Body {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reader.read(buffer)
    }
}

impl<'w> Cache<'w> {
    /// The cache at `address`: a directory, `file://…`, `http://…` or `https://…`.
    pub fn at(address: &str, web: &'w Web) -> Result<Self, CacheError> {
        let refused = || CacheError::Address { address: address.into() };
        let place = match Url::parse(address) {
            Ok(url) if url.scheme() == "file" => Place::Directory(url.to_file_path().map_err(|()| refused())?),
            Ok(mut url) if matches!(url.scheme(), "http" | "https") && url.has_host() => {
                // Without a slash at its end, joining would replace the last part.
                if !url.path().ends_with('/') {
                    url.set_path(&format!("{}/", url.path()));
                }
                url.set_query(None);
                Place::Web { web, base: url }
            }
            Ok(_) => return Err(refused()),
            Err(_) if address.starts_with(['/', '.']) => Place::Directory(address.into()),
            Err(_) => return Err(refused()),
        };
        Ok(Self { shown: address.into(), place, info: OnceLock::new(), memory: None })
    }

    /// The same, answering from `memory` what it was asked before, if it is on the network.
    pub fn remembering(self, memory: &'w Remembered) -> Self {
        Self { memory: Some(memory), ..self }
    }

    /// What errors call it.
    pub fn shown(&self) -> &str {
        &self.shown
    }

    /// What may be written down: its address without credentials and query.
    pub fn public_address(&self) -> String {
        match &self.place {
            Place::Directory(_) => self.shown.clone(),
            Place::Web { base, .. } => {
                let mut bare = base.clone();
                // Both fail only for addresses without a host.
                let _ = (bare.set_username(""), bare.set_password(None));
                bare.to_string().trim_end_matches('/').into()
            }
        }
    }

    /// What it says about itself.
    pub fn info(&self) -> Result<CacheInfo, CacheError> {
        const FILE: &str = "nix-cache-info";
        if let Some(info) = self.info.get() {
            return Ok(*info);
        }
        let info = match self.small(FILE, cache_info::MOST_BYTES)? {
            None => Err(CacheError::NotACache { cache: self.shown.clone() }),
            Some(small) => {
                CacheInfo::parse(&small.bytes).map_err(|source| CacheError::Info { cache: self.shown.clone(), source })
            }
        };
        if info.is_err() {
            // Whoever mends it need not wait.
            self.forget(FILE);
        }
        let info = info?;
        Ok(*self.info.get_or_init(|| info))
    }

    /// A file of at most `limit` bytes; `None` if the cache has none of that name.
    pub(super) fn small(&self, file: &str, limit: u64) -> Result<Option<Small>, CacheError> {
        let memory = self.memory();
        match memory.as_ref().and_then(|(memory, cache)| memory.recall(cache, file)) {
            Some(Answer::Lacks) => return Ok(None),
            Some(Answer::Bytes(bytes)) => return Ok(Some(Small { bytes, source: Source::Memory })),
            None => {}
        }
        let bytes = self.read(file, limit)?;
        if let Some((memory, cache)) = memory {
            memory.keep(&cache, file, bytes.as_deref());
        }
        Ok(bytes.map(|bytes| Small { bytes, source: Source::Cache }))
    }

    /// Drops what is remembered of `file`, and says whether anything could have been.
    pub(super) fn forget(&self, file: &str) -> bool {
        let Some((memory, cache)) = self.memory() else { return false };
        memory.forget(&cache, file);
        true
    }

    /// Directories are asked themselves.
    fn memory(&self) -> Option<(&'w Remembered, String)> {
        match (&self.place, self.memory) {
            (Place::Web { .. }, Some(memory)) => Some((memory, self.public_address())),
            (Place::Directory(_), _) | (_, None) => None,
        }
    }

    /// The same, and nothing that is remembered.
    pub(super) fn read(&self, file: &str, limit: u64) -> Result<Option<Vec<u8>>, CacheError> {
        let Some(body) = self.open(file)? else { return Ok(None) };
        let too_large = || CacheError::TooLarge { cache: self.shown.clone(), file: file.into(), limit };
        if body.size.is_some_and(|size| size > limit) {
            return Err(too_large());
        }
        let mut bytes = Vec::new();
        body.take(limit + 1).read_to_end(&mut bytes).map_err(|error| self.unread(file, error))?;
        if bytes.len() as u64 > limit { Err(too_large()) } else { Ok(Some(bytes)) }
    }

    /// A file; `None` if the cache has none of that name. `file` is a path inside, as parsed from a narinfo.
    pub(super) fn open(&self, file: &str) -> Result<Option<Body>, CacheError> {
        match &self.place {
            Place::Directory(directory) => {
                let path = directory.join(file);
                let opened = File::open(&path).and_then(|file| Ok((file.metadata()?, file)));
                match opened {
                    Ok((metadata, file)) if metadata.is_file() => {
                        Ok(Some(Body { reader: Box::new(file), size: Some(metadata.len()) }))
                    }
                    Ok(_) => Ok(None),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                    Err(source) => Err(CacheError::Io { act: "reading", path, source }),
                }
            }
            Place::Web { web, base } => {
                let url = base.join(file).map_err(|_| CacheError::Address { address: self.shown.clone() })?;
                let answer = web.get(&url).map_err(|source| CacheError::Unreachable {
                    cache: self.shown.clone(),
                    file: file.into(),
                    source,
                })?;
                Ok(answer.map(|stream: Stream| Body { size: stream.announced(), reader: Box::new(stream) }))
            }
        }
    }

    /// What went wrong while `file` was read.
    pub(super) fn unread(&self, file: &str, error: io::Error) -> CacheError {
        match error.downcast::<crate::fetch::Refusal>() {
            Ok(source) => CacheError::Unreachable { cache: self.shown.clone(), file: file.into(), source },
            Err(source) => CacheError::Io { act: "reading", path: PathBuf::from(&self.shown).join(file), source },
        }
    }
}
