//! A binary cache that is read: a directory, or an address.
//!
//! Gives bytes and believes nothing. What it says of itself is read once, before anything else.

use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::OnceLock;

use kiln_model::format::cache_info::{self, CacheInfo};
use url::Url;

use super::error::CacheError;
use crate::fetch::{Stream, Web};

/// A binary cache.
pub struct Cache<'w> {
    shown: String,
    place: Place<'w>,
    info: OnceLock<CacheInfo>,
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
        Ok(Self { shown: address.into(), place, info: OnceLock::new() })
    }

    /// What errors call it.
    pub fn shown(&self) -> &str {
        &self.shown
    }

    /// What it says about itself.
    pub fn info(&self) -> Result<CacheInfo, CacheError> {
        if let Some(info) = self.info.get() {
            return Ok(*info);
        }
        let bytes = self
            .small("nix-cache-info", cache_info::MOST_BYTES)?
            .ok_or_else(|| CacheError::NotACache { cache: self.shown.clone() })?;
        let info = CacheInfo::parse(&bytes).map_err(|source| CacheError::Info { cache: self.shown.clone(), source })?;
        Ok(*self.info.get_or_init(|| info))
    }

    /// A file of at most `limit` bytes; `None` if the cache has none of that name.
    pub(super) fn small(&self, file: &str, limit: u64) -> Result<Option<Vec<u8>>, CacheError> {
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
