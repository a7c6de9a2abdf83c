//! Outputs hashed again by the signer, from the bytes that lie in the store.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use data_encoding::HEXLOWER;
use kiln_model::digest::Digest;
use kiln_model::outcome::Outcome;
use kiln_model::statement::digest_set::{SHA256, SHA512};
use kiln_model::statement::{Descriptor, DigestSet};
use sha2::{Sha256, Sha512};

use super::{SignError, io as failed};
use crate::nix;
use crate::store::Store;

/// Media type of a tree's archive.
pub(crate) const NAR: &str = "application/x-nix-nar";

/// Both digests of what is written to it.
#[derive(Default)]
struct Both(Sha256, Sha512);

impl Write for Both {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        sha2::Digest::update(&mut self.0, bytes);
        sha2::Digest::update(&mut self.1, bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Both {
    fn set(self) -> DigestSet {
        let hex = |bytes: &[u8]| HEXLOWER.encode(bytes);
        let sha256 = hex(&sha2::Digest::finalize(self.0));
        DigestSet::default().with(SHA256, sha256).with(SHA512, hex(&sha2::Digest::finalize(self.1)))
    }
}

/// Both digests of a file.
pub(super) fn of_file(path: &Path) -> Result<DigestSet, SignError> {
    let mut both = Both::default();
    let copied = File::open(path).and_then(|mut file| io::copy(&mut file, &mut both));
    copied.map_err(failed("reading", path))?;
    Ok(both.set())
}

/// The digest of this program.
pub(super) fn of_this_program() -> Result<Digest, SignError> {
    let path = Path::new("/proc/self/exe");
    let mut hasher = Sha256::default();
    let mut buffer = vec![0; 1 << 20];
    let mut file = File::open(path).map_err(failed("reading", path))?;
    loop {
        match file.read(&mut buffer).map_err(failed("reading", path))? {
            0 => return Ok(Digest::from_bytes(sha2::Digest::finalize(hasher).into())),
            read => sha2::Digest::update(&mut hasher, &buffer[..read]),
        }
    }
}

/// What the build of `outcome` made, each part hashed again: its outputs as archives, its artifacts as files.
pub(super) fn subjects(store: &Store, outcome: &Outcome) -> Result<Vec<Descriptor>, SignError> {
    let derivation = || outcome.derivation.clone();
    let mut subjects = Vec::new();
    let mut trees = std::collections::BTreeMap::new();
    for (name, output) in &outcome.outputs {
        let gone = || SignError::Gone { output: name.to_string(), derivation: derivation() };
        let tree = store.tree(&output.nar_hash)?.ok_or_else(gone)?;
        let mut both = Both::default();
        nix::dump(&tree, &mut both).map_err(|source| SignError::Dump { output: name.to_string(), source })?;
        let digest = both.set();
        if digest.sha256() != Some(output.nar_hash.digest()) {
            return Err(SignError::Altered { what: format!("output {name}"), derivation: derivation() });
        }
        trees.insert(name, tree);
        subjects.push(Descriptor::of(digest).named_as(format!("{name}.nar")).being(NAR));
    }
    for (name, artifact) in &outcome.artifacts {
        let gone = || SignError::Gone { output: artifact.output.to_string(), derivation: derivation() };
        let tree = trees.get(&artifact.output).ok_or_else(gone)?;
        // The tree was hashed above: on the way to what its manifest calls a file there is no link.
        let path = match artifact.path.as_bytes() {
            [] => tree.clone(),
            path => tree.join(std::ffi::OsStr::from_bytes(path)),
        };
        let digest = of_file(&path)?;
        if digest.sha256() != Some(artifact.sha256) {
            return Err(SignError::Altered { what: format!("artifact {name}"), derivation: derivation() });
        }
        subjects.push(Descriptor::of(digest).named_as(name));
    }
    Ok(subjects)
}
