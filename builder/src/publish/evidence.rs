//! What is to be published: envelopes from files and directories, each with the key that signed it.
//!
//! A file is an envelope, a Sigstore bundle (whose envelope is taken) or lines of envelopes (`.jsonl`). Whatever is none of these, or is
//! signed by no key that was given, is refused with its name: nothing is left out in silence. Links are not followed.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};

use kiln_model::envelope::{Envelope, EnvelopeError, Verified};
use kiln_model::format::bundle::{self, Bundle};
use kiln_model::key::{KeyId, PublicKey};

use super::error::{PublishError, failed};
use super::layout::MOST_ENVELOPE_BYTES;
use super::place::read;
use super::writer::{Batch, Signed};
use crate::parallel;

/// Envelopes that are verified together.
const AT_ONCE: usize = 1024;
/// Bytes of the largest file with a public key.
const MOST_KEY_BYTES: usize = 64 * 1024;

/// Public keys by their ids.
#[derive(Debug, Clone, Default)]
pub struct Keys(BTreeMap<KeyId, PublicKey>);

/// Reads public keys, PEM, from files and from all `.pub` and `.pem` files of directories.
pub fn public_keys(paths: &[PathBuf]) -> Result<Keys, PublishError> {
    let mut keys = Keys::default();
    for path in paths {
        let files = match path.is_dir() {
            true => sorted(path)?
                .into_iter()
                .filter(|file| file.extension().is_some_and(|e| e == "pub" || e == "pem"))
                .collect(),
            false => vec![path.clone()],
        };
        for file in files {
            let shown = file.display().to_string();
            let bytes = read(&file, MOST_KEY_BYTES)?.ok_or_else(|| PublishError::Missing { file: shown.clone() })?;
            let refused =
                || PublishError::Key { file: shown.clone(), expected: "-----BEGIN PUBLIC KEY-----, Ed25519 or P-256" };
            let text = std::str::from_utf8(&bytes).map_err(|_| refused())?;
            keys.add(PublicKey::from_pem(text).map_err(|_| refused())?);
        }
    }
    Ok(keys)
}

impl Keys {
    fn add(&mut self, key: PublicKey) {
        self.0.insert(key.id(), key);
    }

    /// Adds all of `other`.
    pub fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// The envelope with the key that signed it; it holds a statement.
    pub fn signed(&self, file: &str, envelope: Envelope) -> Result<Signed, PublishError> {
        let wrong = |source| PublishError::Envelope { file: file.into(), source };
        let stated = |(signed, verified): (Signed, Verified)| match verified.statement() {
            Ok(_) => Ok(signed),
            Err(source) => Err(PublishError::Statement { file: file.into(), source }),
        };
        // A keyid says which to try first; one that lies about a key of ours is tampering.
        let named =
            envelope.signatures().iter().find_map(|signature| self.0.get(&signature.keyid.as_ref()?.parse().ok()?));
        if let Some(key) = named {
            return Signed::new(envelope, key).map_err(wrong).and_then(stated);
        }
        for key in self.0.values() {
            match Signed::new(envelope.clone(), key) {
                Err(EnvelopeError::NotSignedBy { .. }) => {}
                done => return done.map_err(wrong).and_then(stated),
            }
        }
        Err(PublishError::NoKey { file: file.into(), keys: self.0.len() })
    }
}

/// Envelopes of files, one after another.
#[derive(Debug)]
pub struct Evidence {
    /// Files and directories that were not looked at yet.
    open: VecDeque<PathBuf>,
    lines: Option<(PathBuf, usize, BufReader<File>)>,
}

impl Evidence {
    /// What is at these paths.
    pub fn at(paths: &[PathBuf]) -> Self {
        Self { open: paths.iter().cloned().collect(), lines: None }
    }

    /// The next envelopes, verified, as many as go into one batch; an empty batch at the end.
    pub fn batch(&mut self, keys: &Keys) -> Result<Batch, PublishError> {
        let mut batch = Batch::default();
        while !batch.is_full() {
            let mut found = Vec::new();
            while found.len() < AT_ONCE
                && let Some(next) = self.next()?
            {
                found.push(next);
            }
            if found.is_empty() {
                break;
            }
            for signed in parallel::map(&found, |(file, bytes)| keys.signed(file, envelope(file, bytes)?)) {
                batch.push(signed?);
            }
        }
        Ok(batch)
    }

    /// The next envelope's bytes, and where they are.
    fn next(&mut self) -> Result<Option<(String, Vec<u8>)>, PublishError> {
        loop {
            if let Some((path, number, lines)) = &mut self.lines {
                *number += 1;
                let file = format!("{}:{number}", path.display());
                let mut line = Vec::new();
                let most = MOST_ENVELOPE_BYTES as u64 + 1;
                lines.take(most).read_until(b'\n', &mut line).map_err(failed("reading", &*path))?;
                if line.len() as u64 == most && line.last() != Some(&b'\n') {
                    return Err(PublishError::TooLarge { file, limit: MOST_ENVELOPE_BYTES as u64 });
                }
                if line.is_empty() {
                    self.lines = None;
                } else if !line.trim_ascii().is_empty() {
                    return Ok(Some((file, line)));
                }
                continue;
            }
            let Some(path) = self.open.pop_front() else { return Ok(None) };
            let kind = fs::symlink_metadata(&path).map_err(failed("looking at", &path))?;
            if kind.is_dir() {
                for file in sorted(&path)?.into_iter().rev() {
                    let entry = fs::symlink_metadata(&file).map_err(failed("looking at", &file))?;
                    let wanted = file.extension().is_some_and(|e| e == "json" || e == "jsonl");
                    if entry.is_dir() || (entry.is_file() && wanted) {
                        self.open.push_front(file);
                    }
                }
            } else if path.extension().is_some_and(|extension| extension == "jsonl") {
                let file = File::open(&path).map_err(failed("opening", &path))?;
                self.lines = Some((path, 0, BufReader::new(file)));
            } else {
                let shown = path.display().to_string();
                let bytes =
                    read(&path, bundle::LIMITS.bytes)?.ok_or_else(|| PublishError::Missing { file: shown.clone() })?;
                return Ok(Some((shown, bytes)));
            }
        }
    }
}

fn envelope(file: &str, bytes: &[u8]) -> Result<Envelope, PublishError> {
    let refused = match Envelope::parse(bytes) {
        Ok(envelope) => return Ok(envelope),
        Err(source) => source,
    };
    match Bundle::parse(bytes) {
        Ok(bundle) => Ok(bundle.envelope),
        Err(_) => Err(PublishError::NoEvidence { file: file.into(), source: refused }),
    }
}

fn sorted(directory: &Path) -> Result<Vec<PathBuf>, PublishError> {
    let entries = fs::read_dir(directory).map_err(failed("listing", directory))?;
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_, std::io::Error>>()
        .map_err(failed("listing", directory))?;
    paths.sort();
    Ok(paths)
}
