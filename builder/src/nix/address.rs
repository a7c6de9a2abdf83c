//! Content addresses held against the contents.
//!
//! A path that follows from its contents needs nobody's signature, but then the contents must be what its address says. A
//! tree that names itself is hashed with each occurrence of its own hash part as NULs, and their offsets after it.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::path::Path;

use kiln_model::digest::Digest;
use kiln_model::rewrite::{Masking, Rewrites};
use kiln_model::store_path::{Algorithm, ContentAddress, Hasher, Method, StorePath};

use super::dump::{DumpError, dump};

/// The digest that the content address of what lies at `tree` has once `rewrites` are made: the tree's own hash part, if it
/// names itself, is masked by one of them.
pub fn content_digest(
    tree: &Path,
    method: Method,
    algorithm: Algorithm,
    rewrites: &Rewrites,
) -> Result<Vec<u8>, DumpError> {
    let read = |source| DumpError::Read { path: tree.into(), source };
    let mut hasher = Hasher::new(algorithm);
    let mut masking = Masking::new(rewrites, &mut hasher);
    match method {
        Method::Recursive => dump(tree, &mut masking)?,
        Method::Flat => {
            if !tree.symlink_metadata().map_err(read)?.is_file() {
                return Err(DumpError::Odd { path: tree.into(), what: "addressed as a file and none" });
            }
            io::copy(&mut File::open(tree).map_err(read)?, &mut masking).map_err(read)?;
        }
    }
    masking.finish().map_err(read)?;
    Ok(hasher.finish())
}

/// The address, of the kind that `like` is, of what lies at `tree` and is to lie at `path`, where it names `references`.
pub fn contents_address(
    tree: &Path,
    (path, references): (&StorePath, &BTreeSet<StorePath>),
    like: &ContentAddress,
) -> Result<ContentAddress, DumpError> {
    let rewrites = match references.contains(path) {
        true => Rewrites::default().masking(path),
        false => Rewrites::default(),
    };
    Ok(match like {
        ContentAddress::Text(_) => {
            let digest = content_digest(tree, Method::Flat, Algorithm::Sha256, &Rewrites::default())?;
            let digest: [u8; 32] = digest.try_into().expect("a SHA-256 has 32 bytes");
            ContentAddress::Text(Digest::from_bytes(digest))
        }
        ContentAddress::Fixed { method, algorithm, .. } => ContentAddress::Fixed {
            method: *method,
            algorithm: *algorithm,
            digest: content_digest(tree, *method, *algorithm, &rewrites)?,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_algorithm_gives_its_published_digest_of_nothing_and_a_directory_is_no_flat_file() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("nothing");
        File::create(&file).unwrap();
        let digest = |path: &Path, algorithm| content_digest(path, Method::Flat, algorithm, &Rewrites::default());
        let nothing = |algorithm| data_encoding::HEXLOWER.encode(&digest(&file, algorithm).unwrap())[..8].to_owned();
        assert_eq!(nothing(Algorithm::Md5), "d41d8cd9");
        assert_eq!(nothing(Algorithm::Sha1), "da39a3ee");
        assert_eq!(nothing(Algorithm::Sha256), "e3b0c442");
        assert_eq!(nothing(Algorithm::Sha512), "cf83e135");
        assert!(digest(directory.path(), Algorithm::Sha256).is_err());
    }
}
