//! Public keys from a directory: PEM, or a line of Nix's (`NAME:BASE64`). Which of them count, the policy says.

use std::fs;
use std::path::{Path, PathBuf};

use kiln_model::key::{KeyError, PublicKey, nix};

use crate::exit::Kind;

/// Bytes of the largest file that is taken for a key.
const MOST_BYTES: u64 = 16 * 1024;

/// Why keys cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// No such directory, or a file that cannot be read.
    #[error("reading keys in {}: name a directory with PEM files (--keys)", path.display())]
    Unreadable {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file that looks like a key and is none.
    #[error("key {}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: KeyError,
    },
}

impl KeysError {
    /// What sort of error it is.
    pub fn kind(&self) -> Kind {
        Kind::BadInput
    }
}

/// All keys of a directory's `.pub` and `.pem` files, by name.
pub fn keys(directory: &Path) -> Result<Vec<PublicKey>, KeysError> {
    let unreadable = |path: &Path, source| KeysError::Unreadable { path: path.into(), source };
    let mut paths = Vec::new();
    for entry in fs::read_dir(directory).map_err(|e| unreadable(directory, e))? {
        let path = entry.map_err(|e| unreadable(directory, e))?.path();
        if path.extension().is_some_and(|extension| extension == "pub" || extension == "pem") {
            paths.push(path);
        }
    }
    paths.sort_unstable();
    let mut keys = Vec::new();
    for path in paths {
        let size = fs::metadata(&path).map_err(|e| unreadable(&path, e))?.len();
        if size > MOST_BYTES {
            continue;
        }
        let text = fs::read_to_string(&path).map_err(|e| unreadable(&path, e))?;
        // A secret key, or a key of another format, in the same directory is nobody's evidence.
        if text.contains("-----BEGIN PUBLIC KEY-----") {
            keys.push(PublicKey::from_pem(&text).map_err(|source| KeysError::Key { path, source })?);
        } else if let Ok(key) = nix::parse_public(&text) {
            keys.push(key);
        }
    }
    Ok(keys)
}
