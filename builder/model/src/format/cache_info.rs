//! `nix-cache-info`: what a binary cache says about itself.
//!
//! Fields may come in any order, unknown ones are ignored. Only the store directory matters: a cache of another one holds other paths.

use crate::store_path::STORE_DIRECTORY;

/// More than any such file has.
pub const MOST_BYTES: u64 = 64 << 10;

/// What a cache says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheInfo {
    /// Caches of smaller numbers are asked first.
    pub priority: u32,
}

/// Why this is not a cache that can be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CacheInfoError {
    /// Not lines of `Field: value`.
    #[error("not a nix-cache-info: expected lines of `Field: value`")]
    Malformed,
    /// Another store.
    #[error("the cache is for the store {found:?}, expected {STORE_DIRECTORY:?}")]
    OtherStore {
        /// The cache's.
        found: String,
    },
}

impl Default for CacheInfo {
    /// Nix's own for caches that do not say.
    fn default() -> Self {
        Self { priority: 50 }
    }
}

impl CacheInfo {
    /// Parses the file.
    pub fn parse(bytes: &[u8]) -> Result<Self, CacheInfoError> {
        let text = std::str::from_utf8(bytes).map_err(|_| CacheInfoError::Malformed)?;
        let mut info = Self::default();
        let mut named = false;
        for line in text.lines() {
            let (field, value) = line.split_once(':').ok_or(CacheInfoError::Malformed)?;
            match (field, value.trim()) {
                ("StoreDir", STORE_DIRECTORY) => named = true,
                ("StoreDir", found) => return Err(CacheInfoError::OtherStore { found: found.into() }),
                ("Priority", value) => info.priority = value.parse().map_err(|_| CacheInfoError::Malformed)?,
                _ => {}
            }
        }
        if named { Ok(info) } else { Err(CacheInfoError::Malformed) }
    }

    /// The file's text; the cache answers questions about many paths.
    pub fn print(&self) -> String {
        format!("StoreDir: {STORE_DIRECTORY}\nWantMassQuery: 1\nPriority: {}\n", self.priority)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_parses_back_and_fields_come_in_any_order() {
        let info = CacheInfo { priority: 30 };
        assert_eq!(CacheInfo::parse(info.print().as_bytes()), Ok(info));
        assert_eq!(CacheInfo::parse(b"New: 1\nPriority: 30\nStoreDir: /nix/store"), Ok(info));
    }

    #[test]
    fn another_store_and_html_are_refused() {
        let other = CacheInfo::parse(b"StoreDir: /gnu/store\n");
        assert_eq!(other, Err(CacheInfoError::OtherStore { found: "/gnu/store".into() }));
        for bad in [&b"<html>\n"[..], b"", b"Priority: 1\n", b"StoreDir: /nix/store\nPriority: -1\n", b"\xff: 1\n"] {
            assert_eq!(CacheInfo::parse(bad), Err(CacheInfoError::Malformed));
        }
    }
}
