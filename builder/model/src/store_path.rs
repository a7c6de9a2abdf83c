//! Store paths: `/nix/store/HASH-NAME`, computed exactly as Nix computes them.
//!
//! A [`StorePath`] is logical: the same text on every machine, wherever the store lies on disk. It orders as its text
//! does. Formulas, base 32 and digests of other kinds are those of the crate nix-derivation.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::str::FromStr;

use nix_derivation::hash::{CAHash, HashAlgorithm as CrateAlgorithm, NixHash, NixHasher};
use nix_derivation::nixbase32;
use nix_derivation::store_path as upstream;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::digest::{Digest, NarHash, serde_as_text};
use crate::name::Name;

/// The logical store directory; part of every digest, never configurable.
pub const STORE_DIRECTORY: &str = "/nix/store";

/// Characters in the hash part of a store path.
pub const HASH_LENGTH: usize = 32;

/// A path directly below `/nix/store`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StorePath(Box<str>);

/// Algorithms that a fixed output may name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm {
    /// 16 bytes.
    Md5,
    /// 20 bytes.
    Sha1,
    /// 32 bytes.
    Sha256,
    /// 64 bytes.
    Sha512,
}

/// What of an output is hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Method {
    /// The bytes of one file that is not executable.
    Flat,
    /// The NAR.
    Recursive,
}

/// Whether a tree names its own path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SelfReference {
    /// It does.
    Yes,
    /// It does not.
    No,
}

/// How a path follows from what lies there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ContentAddress {
    /// A text that names its references: a `.drv`, or what `toFile` writes.
    Text(Digest),
    /// A source, or a fixed or floating output.
    Fixed {
        /// What is hashed.
        method: Method,
        /// With which algorithm.
        algorithm: Algorithm,
        /// To which digest.
        digest: Vec<u8>,
    },
}

/// A digest of any algorithm that Nix names, taken piece by piece.
#[derive(Debug)]
pub struct Hasher(NixHasher);

/// Why there is no such store path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StorePathError {
    /// Not a path directly below the store.
    #[error("{found:?} is not a store path: expected /nix/store/HASH-NAME")]
    NotAStorePath {
        /// The text as given.
        found: String,
    },
    /// What is appended to a name makes it longer than Nix takes.
    #[error("the name {name:?} cannot be in a store path: expected at most 211 bytes of Nix's alphabet")]
    Name {
        /// The whole name.
        name: String,
    },
    /// A content address that says nothing of references, of a tree that has some.
    #[error("a {method}{algorithm} address holds no references, expected r:sha256")]
    References {
        /// As narinfo spells it.
        method: Method,
        /// The algorithm.
        algorithm: Algorithm,
    },
    /// Not a content address as Nix writes it.
    #[error(
        "{found:?} is not a content address: expected text:sha256:DIGEST or fixed:[r:]ALGORITHM:DIGEST in Nix's base 32"
    )]
    ContentAddress {
        /// The text as given.
        found: String,
    },
    /// A digest of another length than its algorithm's.
    #[error("a digest of {found} bytes is not {algorithm}: expected {expected} bytes")]
    DigestLength {
        /// The algorithm.
        algorithm: Algorithm,
        /// Its length.
        expected: usize,
        /// The length as given.
        found: usize,
    },
}

impl Algorithm {
    /// Bytes in a digest.
    pub fn length(self) -> usize {
        match self {
            Self::Md5 => 16,
            Self::Sha1 => 20,
            Self::Sha256 => 32,
            Self::Sha512 => 64,
        }
    }

    /// The algorithm that Nix calls `text`.
    pub fn named(text: &str) -> Option<Self> {
        [Self::Md5, Self::Sha1, Self::Sha256, Self::Sha512].into_iter().find(|algorithm| algorithm.name() == text)
    }

    /// Nix's name for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Md5 => "md5",
            Self::Sha1 => "sha1",
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Flat => "",
            Self::Recursive => "r:",
        })
    }
}

/// How a narinfo spells the content address of a fixed or floating output.
pub fn content_address(method: Method, algorithm: Algorithm, digest: &[u8]) -> String {
    format!("fixed:{method}{algorithm}:{}", nix32(digest))
}

impl StorePath {
    /// The path of a tree addressed by its contents (Nix's `source`), which refers to `references` and not to itself.
    pub fn source(name: &Name, nar_hash: &NarHash, references: &BTreeSet<Self>) -> Self {
        let address = CAHash::Nar(NixHash::Sha256(*nar_hash.digest().as_bytes()));
        upstream::build_ca_path(name.as_str(), &address, &to_upstream(references), false)
            .map(Self::from_upstream)
            .expect("a Name is valid in a store path, and sha256 takes references")
    }

    /// The path of a text addressed by its bytes: a `.drv`, or what `toFile` writes.
    pub fn text(name: &str, contents: &[u8], references: &BTreeSet<Self>) -> Result<Self, StorePathError> {
        upstream::build_text_path(name, contents, &to_upstream(references))
            .map(Self::from_upstream)
            .map_err(|_| StorePathError::Name { name: name.into() })
    }

    /// The path of a fixed output.
    pub fn fixed(name: &Name, method: Method, algorithm: Algorithm, digest: &[u8]) -> Result<Self, StorePathError> {
        let hash = upstream_hash(algorithm, digest)?;
        let address = match method {
            Method::Flat => CAHash::Flat(hash),
            Method::Recursive => CAHash::Nar(hash),
        };
        Ok(Self::from_upstream(
            upstream::build_ca_path(name.as_str(), &address, [], false)
                .expect("a Name is valid in a store path, and there are no references"),
        ))
    }

    /// The path of output `output` of `derivation` (its name), which floated, from the digest of its contents modulo itself.
    /// `references` are the others; `itself` says whether it names itself.
    pub fn floating(
        (derivation, output): (&Name, &Name),
        (method, algorithm): (Method, Algorithm),
        digest: &[u8],
        references: &BTreeSet<Self>,
        itself: SelfReference,
    ) -> Result<Self, StorePathError> {
        let hash = upstream_hash(algorithm, digest)?;
        let address = match method {
            Method::Flat => CAHash::Flat(hash),
            Method::Recursive => CAHash::Nar(hash),
        };
        let itself = itself == SelfReference::Yes;
        let holds_references = method == Method::Recursive && algorithm == Algorithm::Sha256;
        if !holds_references && (itself || !references.is_empty()) {
            return Err(StorePathError::References { method, algorithm });
        }
        let name = output_name(derivation, output);
        upstream::build_ca_path(&name, &address, &to_upstream(references), itself)
            .map(Self::from_upstream)
            .map_err(|_| StorePathError::Name { name })
    }

    /// Where `output` of the resolved derivation at `derivation` is made while its path is not known: Nix's fallback path
    /// (`DerivationBuilderImpl::makeFallbackPath`). The build sees it, so it is part of what a build is.
    pub fn scratch(derivation: &Self, output: &Name) -> Result<Self, StorePathError> {
        let not_one = || StorePathError::NotAStorePath { found: derivation.to_string() };
        let name = output_name(&derivation.derivation_name().ok_or_else(not_one)?, output);
        let zero = "0".repeat(64);
        let text = format!("rewrite:{}:name:{output}:sha256:{zero}:{STORE_DIRECTORY}:{name}", derivation.base_name());
        let mut folded = [0; 20];
        for (index, byte) in Digest::of(text).as_bytes().iter().enumerate() {
            folded[index % folded.len()] ^= byte;
        }
        upstream::StorePath::from_parts(folded, &name)
            .map(Self::from_upstream)
            .map_err(|_| StorePathError::Name { name })
    }

    /// The path of an input-addressed output, from the digest of its derivation with the outputs masked.
    pub fn output(modulo: &Digest, output: &Name, derivation: &Name) -> Result<Self, StorePathError> {
        upstream::build_output_path((*modulo.as_bytes()).into(), output.as_str(), derivation.as_str())
            .map(Self::from_upstream)
            .map_err(|_| StorePathError::Name { name: format!("{derivation}-{output}") })
    }

    /// Parses `HASH-NAME`, without the directory.
    pub fn from_base_name(base: &str) -> Result<Self, StorePathError> {
        upstream::StorePath::from_basename(base.as_bytes())
            .map(Self::from_upstream)
            .map_err(|_| StorePathError::NotAStorePath { found: base.into() })
    }

    /// `HASH-NAME`.
    pub fn base_name(&self) -> &str {
        &self.0
    }

    /// The 32 characters that a reference is recognised by.
    pub fn hash_part(&self) -> &str {
        &self.0[..HASH_LENGTH]
    }

    /// What follows the hash part.
    pub fn name(&self) -> &str {
        &self.0[HASH_LENGTH + 1..]
    }

    /// The name of the derivation, if this is the path of one.
    pub fn derivation_name(&self) -> Option<Name> {
        self.name().strip_suffix(".drv").and_then(|name| name.parse().ok())
    }

    /// How a narinfo spells the content address of a tree whose path is [`StorePath::source`].
    pub fn source_address(nar_hash: &NarHash) -> String {
        CAHash::Nar(NixHash::Sha256(*nar_hash.digest().as_bytes())).to_nix_string()
    }

    /// How a narinfo spells the content address of a text whose path is [`StorePath::text`].
    pub fn text_address(contents: &[u8]) -> String {
        CAHash::Text(*Digest::of(contents).as_bytes()).to_nix_string()
    }

    pub(crate) fn to_upstream(&self) -> upstream::StorePath {
        upstream::StorePath::from_basename(self.base_name().as_bytes())
            .expect("a StorePath was parsed by the same rules")
    }

    fn from_upstream(path: upstream::StorePath) -> Self {
        Self(path.to_basename().into())
    }
}

/// Nix's base 32 of some bytes.
pub fn nix32(bytes: &[u8]) -> String {
    nix_derivation::nixbase32::encode(bytes)
}

impl ContentAddress {
    /// Whether what has this address and refers to `references`, among them possibly itself, lies at `path`.
    pub fn yields(&self, path: &StorePath, references: &BTreeSet<StorePath>) -> bool {
        let address = match self {
            Self::Text(digest) => CAHash::Text(*digest.as_bytes()),
            Self::Fixed { method, algorithm, digest } => match (method, upstream_hash(*algorithm, digest)) {
                (Method::Flat, Ok(hash)) => CAHash::Flat(hash),
                (Method::Recursive, Ok(hash)) => CAHash::Nar(hash),
                (_, Err(_)) => return false,
            },
        };
        let mut others = references.clone();
        let itself = others.remove(path);
        upstream::build_ca_path(path.name(), &address, &to_upstream(&others), itself)
            .is_ok_and(|expected| StorePath::from_upstream(expected) == *path)
    }
}

impl fmt::Display for ContentAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(digest) => write!(f, "text:{}", spelled(digest)),
            Self::Fixed { method, algorithm, digest } => f.write_str(&content_address(*method, *algorithm, digest)),
        }
    }
}

impl FromStr for ContentAddress {
    type Err = StorePathError;

    /// Accepts what [`fmt::Display`] prints.
    fn from_str(text: &str) -> Result<Self, StorePathError> {
        let refused = || StorePathError::ContentAddress { found: text.into() };
        let address = if let Some(digest) = text.strip_prefix("text:") {
            Self::Text(from_spelled(digest).ok_or_else(refused)?)
        } else {
            let fixed = text.strip_prefix("fixed:").ok_or_else(refused)?;
            let (method, fixed) = match fixed.strip_prefix("r:") {
                Some(rest) => (Method::Recursive, rest),
                None => (Method::Flat, fixed),
            };
            let (algorithm, digest) = fixed.split_once(':').ok_or_else(refused)?;
            let algorithm = Algorithm::named(algorithm).ok_or_else(refused)?;
            let digest = nixbase32::decode(digest.as_bytes()).map_err(|_| refused())?;
            Self::Fixed { method, algorithm, digest }
        };
        let right_length = match &address {
            Self::Text(_) => true,
            Self::Fixed { algorithm, digest, .. } => digest.len() == algorithm.length(),
        };
        if right_length && address.to_string() == text { Ok(address) } else { Err(refused()) }
    }
}

impl Hasher {
    /// Begins a digest.
    pub fn new(algorithm: Algorithm) -> Self {
        Self(NixHasher::new(to_upstream_algorithm(algorithm)))
    }

    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest.
    pub fn finish(self) -> Vec<u8> {
        self.0.finalize().digest_as_bytes().to_vec()
    }
}

impl io::Write for Hasher {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// `sha256:` and the digest in Nix's base 32: how caches spell it.
pub fn spelled(digest: &Digest) -> String {
    format!("sha256:{}", nixbase32::encode(digest.as_bytes()))
}

/// A SHA-256 in any spelling that Nix reads: base 16, 32 or 64 after `sha256:`, or SRI.
pub fn from_spelled(text: &str) -> Option<Digest> {
    match NixHash::parse(text) {
        Ok(NixHash::Sha256(digest)) => Some(Digest::from_bytes(digest)),
        Ok(_) | Err(_) => None,
    }
}

/// What stands for an output's path before it is known, inside its own derivation.
pub fn placeholder(output: &Name) -> String {
    upstream::hash_placeholder(output.as_str())
}

/// What stands for the path of an output of `derivation` that floats, in those that use it.
pub fn upstream_placeholder(derivation: &StorePath, output: &Name) -> Result<String, StorePathError> {
    upstream::downstream_placeholder(&derivation.to_upstream(), [output.as_str()])
        .map_err(|_| StorePathError::Name { name: format!("{}-{output}", derivation.name()) })
}

/// The name in an output's path: the derivation's, with the output's unless that is `out`.
fn output_name(derivation: &Name, output: &Name) -> String {
    match output.as_str() {
        "out" => derivation.to_string(),
        output => format!("{derivation}-{output}"),
    }
}

fn to_upstream(paths: &BTreeSet<StorePath>) -> Vec<upstream::StorePath> {
    paths.iter().map(StorePath::to_upstream).collect()
}

fn to_upstream_algorithm(algorithm: Algorithm) -> CrateAlgorithm {
    match algorithm {
        Algorithm::Md5 => CrateAlgorithm::Md5,
        Algorithm::Sha1 => CrateAlgorithm::Sha1,
        Algorithm::Sha256 => CrateAlgorithm::Sha256,
        Algorithm::Sha512 => CrateAlgorithm::Sha512,
    }
}

fn upstream_hash(algorithm: Algorithm, digest: &[u8]) -> Result<NixHash, StorePathError> {
    NixHash::from_algorithm_and_digest(to_upstream_algorithm(algorithm), digest)
        .map_err(|_| StorePathError::DigestLength { algorithm, expected: algorithm.length(), found: digest.len() })
}

impl fmt::Display for StorePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{STORE_DIRECTORY}/{}", self.0)
    }
}

impl fmt::Debug for StorePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StorePath({self})")
    }
}

impl FromStr for StorePath {
    type Err = StorePathError;

    fn from_str(text: &str) -> Result<Self, StorePathError> {
        upstream::StorePath::from_absolute_path(text.as_bytes())
            .map(Self::from_upstream)
            .map_err(|_| StorePathError::NotAStorePath { found: text.into() })
    }
}

serde_as_text!(StorePath);
serde_as_text!(ContentAddress);

#[cfg(test)]
mod tests {
    use super::*;

    const PATH: &str = "/nix/store/1ncm7wbm5d286vjcmdnyqwwkndbl28s6-ia-simple";

    #[test]
    fn a_store_path_prints_what_was_parsed() {
        let path: StorePath = PATH.parse().unwrap();
        assert_eq!(path.to_string(), PATH);
        assert_eq!(path.hash_part(), "1ncm7wbm5d286vjcmdnyqwwkndbl28s6");
        assert_eq!(path.name(), "ia-simple");
        assert_eq!(StorePath::from_base_name(path.base_name()), Ok(path));
    }

    #[test]
    fn other_texts_are_refused() {
        for bad in [
            "",
            "/nix/store",
            "/nix/store/",
            "/etc/passwd",
            "/nix/store/../etc/passwd",
            "/nix/store/1ncm7wbm5d286vjcmdnyqwwkndbl28s6",
            "/nix/store/1ncm7wbm5d286vjcmdnyqwwkndbl28s6-",
            "/nix/store/1ncm7wbm5d286vjcmdnyqwwkndbl28s6-a/b",
            "/nix/store/encm7wbm5d286vjcmdnyqwwkndbl28s6-e-is-not-in-the-alphabet",
            "/nix/store/1ncm7wbm5d286vjcmdnyqwwkndbl28s6-größe",
        ] {
            assert!(bad.parse::<StorePath>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn store_paths_order_as_their_text() {
        let texts = [
            "/nix/store/0ncm7wbm5d286vjcmdnyqwwkndbl28s6-b",
            "/nix/store/1ncm7wbm5d286vjcmdnyqwwkndbl28s6-a",
            "/nix/store/1ncm7wbm5d286vjcmdnyqwwkndbl28s6-a.drv",
            "/nix/store/zncm7wbm5d286vjcmdnyqwwkndbl28s6-a",
        ];
        assert!(texts.map(|text| text.parse::<StorePath>().unwrap()).is_sorted());
    }

    #[test]
    fn a_fixed_output_needs_a_digest_of_its_algorithms_length() {
        let name = "f".parse().unwrap();
        let refused = StorePath::fixed(&name, Method::Flat, Algorithm::Sha1, &[0; 32]);
        assert_eq!(refused, Err(StorePathError::DigestLength { algorithm: Algorithm::Sha1, expected: 20, found: 32 }));
    }
}
