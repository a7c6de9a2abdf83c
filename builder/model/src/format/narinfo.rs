//! narinfo: what a binary cache says about one store path.
//!
//! Stricter than Nix: lines of `Field: value`, each ended, each known field at most once but `Sig`; unknown ones are ignored.
//! A signature covers [`NarInfo::fingerprint`] only, which is path, NAR hash, NAR size and references. Everything
//! else is a hint, to be held against the bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};

use crate::digest::{Digest, NarHash};
use crate::format::signature::{PublicKey, SecretKey, Untrusted, signer};
use crate::store_path::{ContentAddress, StorePath, StorePathError, from_spelled, spelled};

/// No narinfo is larger: ten thousand references are half of it.
pub const MOST_BYTES: u64 = 1 << 20;

/// How the archive is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Compression {
    /// Not at all.
    None,
    /// zstd.
    Zstd,
    /// xz: what Nix writes unless told otherwise.
    Xz,
    /// bzip2: what a narinfo means that does not say.
    Bzip2,
    /// gzip.
    Gzip,
}

/// What a cache says about one store path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NarInfo {
    /// The path.
    pub path: StorePath,
    /// Where the archive lies, relative to the cache; inside of it.
    pub url: String,
    /// How it is compressed.
    pub compression: Compression,
    /// Digest of the compressed file.
    pub file_hash: Option<Digest>,
    /// Its size.
    pub file_size: Option<u64>,
    /// Digest of the NAR.
    pub nar_hash: NarHash,
    /// Its size, never 0.
    pub nar_size: u64,
    /// What the path names, itself included if it does.
    pub references: BTreeSet<StorePath>,
    /// The derivation that made it.
    pub deriver: Option<StorePath>,
    /// Lines of `NAME:BASE64`, as they were found.
    pub signatures: Vec<String>,
    /// How the path follows from the contents, if it does.
    pub address: Option<ContentAddress>,
}

/// Why this is not a narinfo that is taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NarInfoError {
    /// Not UTF-8, or a NUL in it.
    #[error("not text")]
    NotText,
    /// A line of another form.
    #[error("line {line} is not `Field: value`")]
    Line {
        /// Counted from 1.
        line: usize,
    },
    /// The last line goes on.
    #[error("the last line is not ended: the file is cut short")]
    Unfinished,
    /// A field given twice.
    #[error("{field} is given twice")]
    Twice {
        /// Which.
        field: String,
    },
    /// A field left out.
    #[error("{field} is missing")]
    Missing {
        /// Which.
        field: &'static str,
    },
    /// A value that is none for its field.
    #[error("{field}: found {found:?}, expected {expected}")]
    Value {
        /// Which field.
        field: &'static str,
        /// As given.
        found: String,
        /// What it should be.
        expected: &'static str,
    },
    /// A value that is not a store path.
    #[error("{field}")]
    Path {
        /// Which field.
        field: &'static str,
        /// Why not.
        source: StorePathError,
    },
}

impl Compression {
    const ALL: [(Self, &'static str, &'static str); 5] = [
        (Self::None, "none", ""),
        (Self::Zstd, "zstd", ".zst"),
        (Self::Xz, "xz", ".xz"),
        (Self::Bzip2, "bzip2", ".bz2"),
        (Self::Gzip, "gzip", ".gz"),
    ];

    /// The one that Nix calls `name`.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|(_, known, _)| *known == name).map(|(compression, ..)| compression)
    }

    fn row(self) -> (Self, &'static str, &'static str) {
        Self::ALL.into_iter().find(|(known, ..)| *known == self).expect("all are in the table")
    }

    /// What follows `.nar` in names of files.
    pub fn suffix(self) -> &'static str {
        self.row().2
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.row().1)
    }
}

/// What a signature covers.
pub fn fingerprint(path: &StorePath, nar_hash: &NarHash, nar_size: u64, references: &BTreeSet<StorePath>) -> String {
    let references: Vec<String> = references.iter().map(ToString::to_string).collect();
    format!("1;{path};{};{nar_size};{}", spelled(&nar_hash.digest()), references.join(","))
}

impl NarInfo {
    /// Parses the file.
    pub fn parse(bytes: &[u8]) -> Result<Self, NarInfoError> {
        let text = std::str::from_utf8(bytes).ok().filter(|text| !text.contains('\0')).ok_or(NarInfoError::NotText)?;
        let mut fields: BTreeMap<&str, &str> = BTreeMap::new();
        let mut signatures = Vec::new();
        let body = text.strip_suffix('\n').ok_or(NarInfoError::Unfinished)?;
        for (index, line) in body.split('\n').enumerate() {
            let (field, value) = line
                .split_once(": ")
                .filter(|_| !line.ends_with('\r'))
                .ok_or(NarInfoError::Line { line: index + 1 })?;
            if field == "Sig" {
                signatures.push(value.to_owned());
            } else if fields.insert(field, value).is_some() {
                return Err(NarInfoError::Twice { field: field.into() });
            }
        }
        let needed = |field| fields.get(field).copied().ok_or(NarInfoError::Missing { field });
        let bare = |field, value: &str| {
            StorePath::from_base_name(value).map_err(|source| NarInfoError::Path { field, source })
        };
        let path = needed("StorePath")?;
        let path = path.parse().map_err(|source| NarInfoError::Path { field: "StorePath", source })?;
        let compression = match fields.get("Compression").copied() {
            None | Some("") => Compression::Bzip2,
            Some(found) => Compression::named(found).ok_or_else(|| NarInfoError::Value {
                field: "Compression",
                found: found.into(),
                expected: "none, zstd, xz, bzip2 or gzip",
            })?,
        };
        let file_size = fields.get("FileSize").map(|found| size("FileSize", found)).transpose()?;
        let references = fields.get("References").copied().unwrap_or_default();
        let references: BTreeSet<StorePath> =
            references.split(' ').filter(|r| !r.is_empty()).map(|r| bare("References", r)).collect::<Result<_, _>>()?;
        let deriver = fields.get("Deriver").copied().filter(|found| *found != "unknown-deriver");
        let address = fields.get("CA").copied().filter(|found| !found.is_empty());
        Ok(Self {
            path,
            url: address_in_cache(needed("URL")?)?,
            compression,
            file_hash: fields.get("FileHash").map(|found| digest("FileHash", found)).transpose()?,
            file_size,
            nar_hash: NarHash::new(digest("NarHash", needed("NarHash")?)?),
            nar_size: size("NarSize", needed("NarSize")?)?,
            references,
            deriver: deriver.map(|found| bare("Deriver", found)).transpose()?,
            signatures,
            address: address
                .map(|found| found.parse().map_err(|source| NarInfoError::Path { field: "CA", source }))
                .transpose()?,
        })
    }

    /// The file's text, byte for byte as Nix prints the same fields.
    pub fn print(&self) -> String {
        let bare: Vec<&str> = self.references.iter().map(StorePath::base_name).collect();
        let mut text = format!("StorePath: {}\nURL: {}\nCompression: {}\n", self.path, self.url, self.compression);
        let mut line = |field: &str, value: &dyn fmt::Display| {
            writeln!(text, "{field}: {value}").expect("a String can be written to");
        };
        if let Some(digest) = &self.file_hash {
            line("FileHash", &spelled(digest));
        }
        if let Some(size) = self.file_size {
            line("FileSize", &size);
        }
        line("NarHash", &spelled(&self.nar_hash.digest()));
        line("NarSize", &self.nar_size);
        line("References", &bare.join(" "));
        if let Some(deriver) = &self.deriver {
            line("Deriver", &deriver.base_name());
        }
        for signature in &self.signatures {
            line("Sig", signature);
        }
        if let Some(address) = &self.address {
            line("CA", address);
        }
        text
    }

    /// What its signatures cover.
    pub fn fingerprint(&self) -> String {
        fingerprint(&self.path, &self.nar_hash, self.nar_size, &self.references)
    }

    /// Adds the signature of `key`, unless it is there already.
    pub fn sign(&mut self, key: &SecretKey) {
        let line = key.sign(self.fingerprint().as_bytes()).to_string();
        if !self.signatures.contains(&line) {
            self.signatures.push(line);
        }
    }

    /// Which of `keys` signed it.
    pub fn signer<'k>(&self, keys: &'k [PublicKey]) -> Result<&'k PublicKey, Untrusted> {
        signer(keys, self.fingerprint().as_bytes(), &self.signatures)
    }
}

/// Digits only, without a sign or leading zeros, and not 0.
fn size(field: &'static str, found: &str) -> Result<u64, NarInfoError> {
    found.parse().ok().filter(|size: &u64| *size > 0 && size.to_string() == found).ok_or_else(|| NarInfoError::Value {
        field,
        found: found.into(),
        expected: "a number of bytes, not 0",
    })
}

fn digest(field: &'static str, found: &str) -> Result<Digest, NarInfoError> {
    from_spelled(found).ok_or_else(|| NarInfoError::Value { field, found: found.into(), expected: "a SHA-256" })
}

/// Only what lies inside the cache: an absolute address is another host's, `..` another directory's.
fn address_in_cache(url: &str) -> Result<String, NarInfoError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "+-._=?!:,@&~".contains(c);
    let inside = |part: &str| !part.is_empty() && part != "." && part != ".." && part.chars().all(plain);
    let scheme = url.split('/').next().is_some_and(|first| first.contains(':'));
    if !scheme && url.split('/').all(inside) {
        return Ok(url.into());
    }
    Err(NarInfoError::Value { field: "URL", found: url.into(), expected: "a path inside the cache" })
}

/// What a narinfo of `path` is called.
pub fn file_name(path: &StorePath) -> String {
    format!("{}.narinfo", path.hash_part())
}
