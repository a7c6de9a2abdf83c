//! The artifact that a decision is about: hashed here, once, by all algorithms that statements are held against.
//!
//! A directory is what a rebuilder's tree output is: its NAR. Lists of digests are believed as they are.

use std::fs::{self, File};
use std::io::{Read as _, Write};
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use kiln_model::digest::Digest;
use kiln_model::statement::DigestSet;
use kiln_model::verify::Artifact;
use sha2::Digest as _;

use crate::exit::Kind;
use crate::nix::DumpError;

/// Why an artifact cannot be hashed.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    /// No such file, or no permission.
    #[error("reading artifact {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A tree that cannot be read.
    #[error("reading artifact {}", path.display())]
    Tree {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: DumpError,
    },
    /// A line that is no digest and name.
    #[error("line {line} of {}: expected what sha256sum prints, 64 hexadecimal digits, two blanks and a name", path.display())]
    Sum {
        /// The file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
    },
}

impl ArtifactError {
    /// What sort of error it is.
    pub fn kind(&self) -> Kind {
        Kind::BadInput
    }
}

/// Both digests of what is written.
#[derive(Default)]
struct Hashing {
    sha256: sha2::Sha256,
    sha512: sha2::Sha512,
}

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.sha256.update(bytes);
        self.sha512.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Hashes a file or directory.
pub fn artifact(path: &Path, purl: Option<String>) -> Result<Artifact, ArtifactError> {
    let unreadable = |source| ArtifactError::Unreadable { path: path.into(), source };
    let mut hashing = Hashing::default();
    if fs::metadata(path).map_err(unreadable)?.is_dir() {
        crate::nix::dump(path, &mut hashing).map_err(|source| ArtifactError::Tree { path: path.into(), source })?;
    } else {
        let mut file = File::open(path).map_err(unreadable)?;
        let mut buffer = vec![0; 256 << 10];
        loop {
            match file.read(&mut buffer).map_err(unreadable)? {
                0 => break,
                read => hashing.write_all(&buffer[..read]).expect("hashing takes all"),
            }
        }
    }
    let digest = DigestSet::of(Digest::from_bytes(hashing.sha256.finalize().into()))
        .with("sha512", HEXLOWER.encode(&hashing.sha512.finalize()));
    Ok(Artifact { name: path.display().to_string(), digest, purl })
}

/// Artifacts from what `sha256sum` printed.
pub fn sums(path: &Path) -> Result<Vec<Artifact>, ArtifactError> {
    let text = fs::read_to_string(path).map_err(|source| ArtifactError::Unreadable { path: path.into(), source })?;
    let parsed = text.lines().enumerate().map(|(number, line)| {
        let refused = || ArtifactError::Sum { path: path.into(), line: number + 1 };
        let (hex, name) = line.split_once("  ").or_else(|| line.split_once(" *")).ok_or_else(refused)?;
        let digest: Digest =
            Some(hex).filter(|hex| hex.len() == 64).and_then(|hex| hex.parse().ok()).ok_or_else(refused)?;
        Ok(Artifact { name: name.to_owned(), digest: DigestSet::of(digest), purl: None })
    });
    parsed.collect()
}
