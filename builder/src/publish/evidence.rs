//! What is to be published: envelopes from files and directories, each with the key that signed it.
//!
//! A file is an envelope, a Sigstore bundle (whose envelope is taken) or lines of envelopes (`.jsonl`). Whatever is none of these, or is
//! signed by no key that was given, is refused with its name: nothing is left out in silence. A bundle with certificates is published
//! with them, if an authority that was given vouches for its key now. Links are not followed.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};

use kiln_model::envelope::{Envelope, EnvelopeError, Verified};
use kiln_model::format::bundle::{self, Bundle};
use kiln_model::key::{KeyId, PublicKey, Svid, TrustBundle};
use kiln_model::outcome::Moment;

use super::batch::{Batch, Signed};
use super::error::{PublishError, failed};
use super::layout::MOST_ENVELOPE_BYTES;
use super::place::read;
use crate::parallel;

/// Envelopes that are verified together.
const AT_ONCE: usize = 1024;
/// Bytes of the largest trust bundle.
const MOST_BUNDLE_BYTES: usize = 4 << 20;
/// Bytes of the largest file with a public key.
const MOST_KEY_BYTES: usize = 64 * 1024;

/// Whose statements are published: public keys by their ids, and authorities that vouch for others.
#[derive(Debug, Clone, Default)]
pub struct Keys {
    named: BTreeMap<KeyId, PublicKey>,
    authorities: Vec<TrustBundle>,
    /// When they are to vouch for a key.
    now: Option<Moment>,
}

/// Evidence that has a form.
struct Found {
    envelope: Envelope,
    /// The certificates that came with it.
    svid: Option<Svid>,
}

/// Reads trust bundles of SPIFFE trust domains.
pub fn trust_bundles(paths: &[PathBuf]) -> Result<Vec<TrustBundle>, PublishError> {
    let bundle = |path: &PathBuf| {
        let file = path.display().to_string();
        let bytes = read(path, MOST_BUNDLE_BYTES)?.ok_or_else(|| PublishError::Missing { file: file.clone() })?;
        TrustBundle::parse(&bytes).map_err(|source| PublishError::TrustBundle { file, source })
    };
    paths.iter().map(bundle).collect()
}

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
        self.named.insert(key.id(), key);
    }

    /// Adds the keys of `other`.
    pub fn extend(&mut self, other: Self) {
        self.named.extend(other.named);
    }

    /// The same, and whomever `authorities` vouch for at `now`.
    pub fn trusting(self, authorities: Vec<TrustBundle>, now: Moment) -> Self {
        Self { authorities, now: Some(now), ..self }
    }

    fn admitted(&self, file: &str, found: Found) -> Result<Signed, PublishError> {
        let Found { envelope, svid } = found;
        let Some(svid) = svid else { return self.signed(file, envelope) };
        let Some(now) = self.now.filter(|_| !self.authorities.is_empty()) else {
            return match self.named.contains_key(&svid.key().id()) {
                true => self.signed(file, envelope),
                false => Err(PublishError::NoAuthority { file: file.into(), id: svid.id().to_string() }),
            };
        };
        let wrong = |source| PublishError::Envelope { file: file.into(), source };
        let (signed, verified) = Signed::certified(envelope, svid).map_err(wrong)?;
        verified.statement().map_err(|source| PublishError::Statement { file: file.into(), source })?;
        let svid = signed.svid().expect("it was given one");
        let mut refused = None;
        for authority in &self.authorities {
            match svid.verify(authority, now) {
                Ok(()) => return Ok(signed),
                Err(error) => refused = Some(error),
            }
        }
        // What was logged in time may be published again.
        Ok(signed.refused(file, refused.expect("there is an authority")))
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
            envelope.signatures().iter().find_map(|signature| self.named.get(&signature.keyid.as_ref()?.parse().ok()?));
        if let Some(key) = named {
            return Signed::new(envelope, key).map_err(wrong).and_then(stated);
        }
        for key in self.named.values() {
            match Signed::new(envelope.clone(), key) {
                Err(EnvelopeError::NotSignedBy { .. }) => {}
                done => return done.map_err(wrong).and_then(stated),
            }
        }
        Err(PublishError::NoKey { file: file.into(), keys: self.named.len() })
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
            for signed in parallel::map(&found, |(file, bytes)| keys.admitted(file, form_of(file, bytes)?)) {
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

fn form_of(file: &str, bytes: &[u8]) -> Result<Found, PublishError> {
    let refused = match Envelope::parse(bytes) {
        Ok(envelope) => return Ok(Found { envelope, svid: None }),
        Err(source) => source,
    };
    match Bundle::parse(bytes) {
        Ok(Bundle { envelope, svid, .. }) => Ok(Found { envelope, svid }),
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
