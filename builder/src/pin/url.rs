//! A file at an address that the recipe's author wrote, with the digest that they gave.
//!
//! The digest is the pin: the address only says where to look, after the mirrors configured under `url`. Its size is recorded.

use kiln_model::digest::Digest;
use kiln_model::digest::NarHash;
use kiln_model::lock::{LockedFile, LockedInput};

use super::PinnedFiles;
use crate::exit::Kind;
use crate::fetch::{Archive, Archives, FetchError, Wanted};

/// A pinned file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UrlPin {
    /// The author's address.
    pub url: String,
    /// The file.
    pub files: PinnedFiles,
}

/// Why a file at an address cannot be pinned.
#[derive(Debug, thiserror::Error)]
pub enum UrlError {
    /// The file has no name that it could be found by.
    #[error("{url} says no usable file name (found {found:?}); set file = \"NAME\" beside it")]
    Name {
        /// The author's address.
        url: String,
        /// What would be the name.
        found: String,
    },
    /// The file cannot be had.
    #[error("fetching {url}")]
    Fetch {
        /// The author's address.
        url: String,
        /// Why.
        source: FetchError,
    },
    /// The fetched file cannot be read back.
    #[error("reading {} from the cache of files", file)]
    Cache {
        /// Its name.
        file: String,
        /// Why.
        source: std::io::Error,
    },
}

impl UrlError {
    /// What sort of failure it is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Name { .. } => Kind::BadInput,
            Self::Fetch { source, .. } => source.kind(),
            Self::Cache { .. } => Kind::Host,
        }
    }
}

/// Pins the file at `url`, to be found under `file`, or under the last part of the address.
pub fn pin(archives: &dyn Archives, url: &str, sha256: Digest, file: Option<&str>) -> Result<UrlPin, UrlError> {
    let name = match file {
        Some(file) => file.to_string(),
        None => last_part(url),
    };
    if !is_file_name(&name) {
        return Err(UrlError::Name { url: url.into(), found: name });
    }
    let wanted = Wanted { archive: Archive::Address, path: url.into(), size: None, sha256 };
    let paths = archives.pinned(&[wanted]).map_err(|source| UrlError::Fetch { url: url.into(), source })?;
    let path = paths.into_iter().next().expect("one path for each file wanted");
    let size = std::fs::metadata(&path).map_err(|source| UrlError::Cache { file: name.clone(), source })?.len();
    let locked = vec![LockedFile { path: name.clone(), size, sha256 }];
    Ok(UrlPin { url: url.into(), files: PinnedFiles { locked, at: vec![(name, path)] } })
}

/// What to fetch for a locked file.
pub fn wanted(url: &str, file: &LockedFile) -> Wanted {
    Wanted { archive: Archive::Address, path: url.into(), size: Some(file.size), sha256: file.sha256 }
}

impl UrlPin {
    /// The lock's entry.
    pub fn locked(&self, nar_hash: NarHash) -> LockedInput {
        LockedInput::Url { url: self.url.clone(), nar_hash, files: self.files.locked.clone() }
    }
}

/// The last part of an address's path, as written: an author who wants it decoded says `file`.
fn last_part(url: &str) -> String {
    let parsed: Option<::url::Url> = url.parse().ok();
    let last = parsed.as_ref().and_then(|url| url.path_segments()?.next_back().map(str::to_string));
    last.unwrap_or_default()
}

fn is_file_name(name: &str) -> bool {
    // NAME_MAX is 255 (limits.h).
    !matches!(name, "" | "." | "..") && name.len() <= 255 && !name.contains(|c: char| c == '/' || c.is_control())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::PathBuf;

    use super::*;

    struct Shelf(BTreeMap<String, PathBuf>);

    impl Archives for Shelf {
        fn pinned(&self, wanted: &[Wanted]) -> Result<Vec<PathBuf>, FetchError> {
            let found = wanted.iter().map(|w| self.0.get(&w.path).cloned()).collect::<Option<Vec<_>>>();
            found.ok_or(FetchError::Missing { files: Vec::new(), of: wanted.len() })
        }

        fn judged(&self, _: &str, _: &mut crate::fetch::Judge<'_>) -> Result<(), FetchError> {
            unreachable!("what is pinned has its own digest")
        }

        fn unpinned(&self, _: &Archive, _: &str, _: u64) -> Result<Vec<u8>, FetchError> {
            unreachable!("an address has no listing")
        }
    }

    #[test]
    fn the_size_is_recorded_and_the_name_is_the_authors_or_the_addresss() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), b"12345").unwrap();
        let url = "https://a.test/x/y-1.tar.gz?raw=1";
        let shelf = Shelf(BTreeMap::from([(url.to_string(), file.path().to_path_buf())]));
        let pinned = pin(&shelf, url, Digest::of("12345"), None).unwrap();
        assert_eq!(pinned.files.locked[0].size, 5);
        assert_eq!(pinned.files.at[0].0, "y-1.tar.gz");
        assert_eq!(pin(&shelf, url, Digest::of("12345"), Some("z")).unwrap().files.locked[0].path, "z");
        assert!(matches!(pin(&shelf, "https://b.test/x", Digest::of(""), None), Err(UrlError::Fetch { .. })));
    }

    #[test]
    fn a_name_that_is_no_file_name_is_refused() {
        let shelf = Shelf(BTreeMap::new());
        for (url, file) in
            [("https://a.test/", None), ("https://a.test/x", Some("../x")), ("https://a.test/x", Some(".."))]
        {
            assert!(matches!(pin(&shelf, url, Digest::of(""), file), Err(UrlError::Name { .. })), "{url} {file:?}");
        }
    }
}
