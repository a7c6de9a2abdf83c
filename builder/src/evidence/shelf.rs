//! The files of evidence: found first, then read and judged in parallel, each once.
//!
//! By their names: `.json` is an envelope or bundle, `.jsonl` many, `.link` an in-toto link, `.narinfo` what a cache of Nix's says,
//! `.buildinfo` Debian's record of a build, `.tlog-proof` a proof of the envelope whose id or file it is named after; `.json` and
//! `.link` may be compressed with zstd. A directory with tiles is a log. Whatever else lies there is nobody's evidence and is not
//! opened.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use kiln_model::digest::Digest;
use kiln_model::envelope::EnvelopeId;
use kiln_model::log::tree::Tree;
use kiln_model::log::{LogError, tile::Tile};
use kiln_model::verify::{Admission, Candidate, Clearsigned, Evidence, Source, Verifier};
use rayon::prelude::*;

use super::lines::{Blocks, Spare};
use super::{Certificates, EvidenceError, Limits};

/// Files that are judged before their facts are put together.
const BATCH: usize = 256;

/// How a frame of zstd begins: rebuilderd keeps its links so.
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// Bytes of the largest proof; a longer one is none.
const MOST_PROOF_BYTES: u64 = kiln_model::log::proof::MOST_BYTES as u64;

/// Where evidence lies.
#[derive(Debug, Default)]
pub struct Shelf {
    limits: Limits,
    files: Vec<PathBuf>,
    lines: Vec<PathBuf>,
    /// Proofs of envelopes by their ids.
    by_id: HashMap<EnvelopeId, Vec<PathBuf>>,
    /// Proofs beside files of another name: by the path without its extension.
    beside: HashMap<PathBuf, PathBuf>,
    /// Directories with the tiles of a log, by its origin.
    logs: HashMap<String, PathBuf>,
    seen: usize,
    /// What clear-signed files are held against.
    certificates: Option<Certificates>,
}

impl Shelf {
    /// Looks through files and directories.
    pub fn open(paths: &[PathBuf], limits: Limits) -> Result<Self, EvidenceError> {
        let mut shelf = Self { limits, ..Self::default() };
        for path in paths {
            let found = fs::metadata(path).map_err(unreadable(path))?;
            if found.is_dir() {
                let root = path.canonicalize().map_err(unreadable(path))?;
                shelf.directory(path, &root, 0)?;
            } else {
                shelf.file(path.clone())?;
            }
        }
        // The order of a directory is nobody's; that of names is everybody's.
        shelf.files.sort_unstable();
        shelf.lines.sort_unstable();
        Ok(shelf)
    }

    /// The same, with whose certificates clear-signed files are read.
    pub fn trusting(self, certificates: Certificates) -> Self {
        Self { certificates: Some(certificates), ..self }
    }

    fn directory(&mut self, directory: &Path, root: &Path, depth: usize) -> Result<(), EvidenceError> {
        if depth > self.limits.depth {
            return Err(EvidenceError::TooDeep { path: directory.into(), limit: self.limits.depth });
        }
        let is_log = directory.join("tile").is_dir();
        if is_log && let Ok(note) = fs::read_to_string(directory.join("checkpoint")) {
            let origin = note.lines().next().unwrap_or_default().to_owned();
            self.logs.entry(origin).or_insert_with(|| directory.to_owned());
        }
        for entry in fs::read_dir(directory).map_err(unreadable(directory))? {
            let entry = entry.map_err(unreadable(directory))?;
            let path = entry.path();
            let kind = entry.file_type().map_err(unreadable(&path))?;
            if kind.is_symlink() {
                let target = path.canonicalize().map_err(unreadable(&path))?;
                if !target.starts_with(root) {
                    return Err(EvidenceError::Outside { path, target });
                }
                // What is inside is found where it is.
                continue;
            }
            if kind.is_dir() {
                if !(is_log && entry.file_name() == "tile") {
                    self.directory(&path, root, depth + 1)?;
                }
                continue;
            }
            if kind.is_file() && is_evidence(&path) {
                self.file(path)?;
            }
        }
        Ok(())
    }

    fn file(&mut self, path: PathBuf) -> Result<(), EvidenceError> {
        self.seen += 1;
        if self.seen > self.limits.files {
            return Err(EvidenceError::TooMany { limit: self.limits.files });
        }
        match extension(&path) {
            "tlog-proof" => match id_of(&path) {
                Some(id) => self.by_id.entry(id).or_default().push(path),
                None => {
                    self.beside.insert(path.with_extension(""), path);
                }
            },
            "jsonl" => self.lines.push(path),
            _ => self.files.push(path),
        }
        Ok(())
    }

    /// How many files there are.
    pub fn len(&self) -> usize {
        self.seen
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.seen == 0
    }

    /// Proofs that are named after an envelope.
    pub fn proofs(&self, id: EnvelopeId) -> Vec<Vec<u8>> {
        let paths = self.by_id.get(&id).map(Vec::as_slice).unwrap_or_default();
        paths.iter().filter_map(|path| proof(path).ok()).collect()
    }

    /// The hashes that show how a log grew, if its tiles are among the evidence.
    pub fn growth(&self, origin: &str, old: u64, new: u64) -> Option<Vec<Digest>> {
        let directory = self.logs.get(origin)?;
        let read = |tile: Tile| -> Result<Vec<u8>, LogError> {
            fs::read(directory.join(tile.to_string())).or_else(|_| {
                // A full tile holds what a partial one had.
                let full =
                    fs::read(directory.join(tile.full().to_string())).map_err(|_| LogError::Beyond { size: new })?;
                Ok(full.into_iter().take(tile.most_bytes()).collect())
            })
        };
        Tree::new(new, read).consistency(old).ok()
    }

    /// Judges everything. Of what was read only facts remain.
    pub fn read(&self, verifier: &Verifier<'_>) -> Result<Evidence, EvidenceError> {
        let evidence = Mutex::new(Evidence::default());
        let add = |admissions: Vec<Admission>| {
            let mut evidence = evidence.lock().expect("no thread panics with the lock");
            admissions.into_iter().for_each(|admission| evidence.add(admission));
        };
        self.files.par_chunks(BATCH).try_for_each(|files| {
            let mut bytes = Vec::new();
            let mut admissions = Vec::new();
            files.iter().try_for_each(|path| self.judge_file(path, &mut bytes, verifier, &mut admissions))?;
            add(admissions);
            Ok(())
        })?;
        let spare = Spare::default();
        // One queue of blocks for all files of lines, so that no processor waits where a file ends.
        let blocks = self.lines.iter().flat_map(|path| {
            let name: Arc<str> = path.display().to_string().into();
            let opened = File::open(path).map(|file| Blocks::of(file, self.limits.candidate, &spare));
            let (blocks, failed) = match opened {
                Ok(blocks) => (Some(blocks), None),
                Err(error) => (None, Some(Err(error))),
            };
            let blocks = blocks.into_iter().flatten().chain(failed);
            blocks.map(move |block| block.map(|block| (Arc::clone(&name), block)).map_err(unreadable(path)))
        });
        blocks.par_bridge().try_for_each(|block| {
            let (name, block) = block?;
            let mut admissions = Vec::new();
            for (line, number) in block.lines() {
                let source = Source { file: Arc::clone(&name), line: Some(number) };
                match line {
                    Some(bytes) => {
                        verifier.judge(&Candidate { source, bytes, named: None, proof: None }, &mut admissions);
                    }
                    None => {
                        let why = format!("a line of more than {} bytes", self.limits.candidate);
                        admissions.push(Admission::Ignored { source, why });
                    }
                }
            }
            add(admissions);
            Ok(())
        })?;
        Ok(evidence.into_inner().expect("no thread panics with the lock"))
    }

    /// Calls `see` with every envelope or bundle, one after the other.
    pub fn each(&self, mut see: impl FnMut(&[u8])) -> Result<(), EvidenceError> {
        for path in &self.files {
            let mut bytes = Vec::new();
            if self.bytes(path, &mut bytes)? {
                see(&bytes);
            }
        }
        let spare = Spare::default();
        for path in &self.lines {
            for block in Blocks::of(File::open(path).map_err(unreadable(path))?, self.limits.candidate, &spare) {
                block.map_err(unreadable(path))?.lines().filter_map(|(line, _)| line).for_each(&mut see);
            }
        }
        Ok(())
    }

    /// Whether there are proofs.
    pub fn has_proofs(&self) -> bool {
        !self.by_id.is_empty() || !self.beside.is_empty()
    }

    fn judge_file(
        &self,
        path: &Path,
        bytes: &mut Vec<u8>,
        verifier: &Verifier<'_>,
        out: &mut Vec<Admission>,
    ) -> Result<(), EvidenceError> {
        let source = Source { file: path.display().to_string().into(), line: None };
        if !self.bytes(path, bytes)? {
            out.push(Admission::Ignored { source, why: format!("more than {} bytes", self.limits.candidate) });
            return Ok(());
        }
        if extension(path) == "buildinfo" {
            let why = || "nobody said whose certificates to read it with".to_owned();
            let none = || Clearsigned::Unsigned { why: why() };
            verifier.buildinfo(&source, self.certificates.as_ref().map_or_else(none, |c| c.judge(bytes)), out);
            return Ok(());
        }
        let beside = match self.beside.is_empty() {
            true => None,
            false => self
                .beside
                .get(&path.with_extension(""))
                .map(|path| proof(path).map_err(unreadable(path)))
                .transpose()?,
        };
        verifier.judge(&Candidate { source, bytes, named: id_of(path), proof: beside.as_deref() }, out);
        Ok(())
    }

    /// Reads a file unless it is too long.
    fn bytes(&self, path: &Path, bytes: &mut Vec<u8>) -> Result<bool, EvidenceError> {
        bytes.clear();
        let limit = self.limits.candidate as u64;
        let file = File::open(path).map_err(unreadable(path))?;
        file.take(limit + 1).read_to_end(bytes).map_err(unreadable(path))?;
        if bytes.starts_with(&ZSTD) && bytes.len() as u64 <= limit {
            let packed = std::mem::take(bytes);
            let unpacked = zstd::Decoder::new(&packed[..]).and_then(|unpack| unpack.take(limit + 1).read_to_end(bytes));
            if unpacked.is_err() {
                // What cannot be unpacked is nobody's evidence, as it stands.
                *bytes = packed;
            }
        }
        Ok(bytes.len() as u64 <= limit)
    }
}

fn proof(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MOST_PROOF_BYTES + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn is_evidence(path: &Path) -> bool {
    match extension(path) {
        "json" | "jsonl" | "tlog-proof" | "link" | "narinfo" | "buildinfo" => true,
        // Caches are full of compressed archives: only what says that it is a document.
        "zst" => matches!(extension(&path.with_extension("")), "json" | "link"),
        _ => false,
    }
}

fn extension(path: &Path) -> &str {
    path.extension().and_then(|extension| extension.to_str()).unwrap_or_default()
}

/// The envelope id that a file is named after.
fn id_of(path: &Path) -> Option<EnvelopeId> {
    let stem = path.file_stem()?.to_str()?;
    (stem.len() == 64 && stem.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))).then(|| stem.parse().ok())?
}

fn unreadable(path: &Path) -> impl Fn(std::io::Error) -> EvidenceError + '_ {
    move |source| EvidenceError::Unreadable { path: path.to_owned(), source }
}
