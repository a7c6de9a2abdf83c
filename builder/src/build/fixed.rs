//! Whether a fixed output is the one that was promised.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use data_encoding::BASE64;
use kiln_model::derivation::{Derivation, Output};
use kiln_model::name::{Name, Variable};
use kiln_model::store_path::{Algorithm, Method};
use nix_archive::nar::{CaseHack, encode_path};
use sha2::Digest as _;

use super::{BuildError, io};
use crate::store::{Store, Taken};

/// Holds what a fixed output's build made against its digest; the inner error is the build's own fault.
pub(super) fn hold(
    derivation: &Derivation,
    taken: &BTreeMap<Variable, Taken>,
    store: &Store,
) -> Result<Result<(), String>, BuildError> {
    for (name, output) in &derivation.outputs {
        let Output::Fixed { method, algorithm, digest, .. } = output else { continue };
        let Some((_, taken)) = taken.iter().find(|(taken, _)| taken.as_str() == name.as_str()) else { continue };
        if let Some(reference) = taken.references.first() {
            return Ok(Err(format!(
                "output {name} has a fixed digest and names {reference}: it may name no store path"
            )));
        }
        let Some(tree) = store.tree(&taken.nar_hash)? else { continue };
        let found = match method {
            Method::Recursive => {
                digest_of(*algorithm, |out| encode_path(out, &tree, CaseHack::Disabled).map_err(io::Error::other))
            }
            Method::Flat => {
                if let Err(message) = is_flat(name, &tree)? {
                    return Ok(Err(message));
                }
                digest_of(*algorithm, |out| copy(&tree, out))
            }
        };
        let found = found.map_err(io("reading", &tree))?;
        if found != *digest {
            let spelled = |digest: &[u8]| format!("{algorithm}-{}", BASE64.encode(digest));
            return Ok(Err(format!(
                "output {name} is {}, and its derivation says {}: either the source has changed or the digest is wrong",
                spelled(&found),
                spelled(digest)
            )));
        }
    }
    Ok(Ok(()))
}

/// Whether a flat digest can be taken of `tree`; the inner error is the build's own fault.
pub(super) fn is_flat(name: &Name, tree: &Path) -> Result<Result<(), String>, BuildError> {
    let metadata = tree.symlink_metadata().map_err(io("looking at", tree))?;
    let executable = std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o100 != 0;
    if !metadata.is_file() || executable {
        return Ok(Err(format!("output {name} has a flat digest: expected a file that is not executable")));
    }
    Ok(Ok(()))
}

pub(super) fn copy(file: &Path, out: &mut dyn Write) -> io::Result<()> {
    io::copy(&mut File::open(file)?, out).map(drop)
}

pub(super) fn digest_of(
    algorithm: Algorithm,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<Vec<u8>> {
    let mut hasher = match algorithm {
        Algorithm::Md5 => Hasher::Md5(md5::Digest::new()),
        Algorithm::Sha1 => Hasher::Sha1(md5::Digest::new()),
        Algorithm::Sha256 => Hasher::Sha256(sha2::Sha256::new()),
        Algorithm::Sha512 => Hasher::Sha512(sha2::Sha512::new()),
    };
    write(&mut hasher)?;
    Ok(hasher.finish())
}

/// Every algorithm of Nix's. The older two come with another version of the trait `Digest`.
enum Hasher {
    Md5(md5::Md5),
    Sha1(sha1::Sha1),
    Sha256(sha2::Sha256),
    Sha512(sha2::Sha512),
}

impl Hasher {
    fn finish(self) -> Vec<u8> {
        match self {
            Self::Md5(hasher) => md5::Digest::finalize(hasher).to_vec(),
            Self::Sha1(hasher) => md5::Digest::finalize(hasher).to_vec(),
            Self::Sha256(hasher) => hasher.finalize().to_vec(),
            Self::Sha512(hasher) => hasher.finalize().to_vec(),
        }
    }
}

impl Write for Hasher {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Md5(hasher) => md5::Digest::update(hasher, bytes),
            Self::Sha1(hasher) => md5::Digest::update(hasher, bytes),
            Self::Sha256(hasher) => hasher.update(bytes),
            Self::Sha512(hasher) => hasher.update(bytes),
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_algorithm_gives_its_published_digest_of_nothing() {
        let nothing =
            |algorithm| data_encoding::HEXLOWER.encode(&digest_of(algorithm, |_| Ok(())).unwrap())[..8].to_owned();
        assert_eq!(nothing(Algorithm::Md5), "d41d8cd9");
        assert_eq!(nothing(Algorithm::Sha1), "da39a3ee");
        assert_eq!(nothing(Algorithm::Sha256), "e3b0c442");
        assert_eq!(nothing(Algorithm::Sha512), "cf83e135");
    }
}
