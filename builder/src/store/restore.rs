//! Archive → store: restored under a private name, made valid once the caller knows that it is what it should be.
//!
//! Checked and written in one pass, and hashed meanwhile; canonical from the start. What is refused leaves nothing behind.

use std::ffi::CString;
use std::io::{self, BufReader, Read};
use std::os::fd::AsFd as _;
use std::path::Path;

use kiln_model::digest::{Digest, NarHash};
use kiln_model::format::nar::{Event, Limits, NarError, decode, frame};

use super::Store;
use super::add::{Arrival, Staged, c_name};
use super::copy::{TreeLimits, Walked};
use super::digester::{Digested, Digester, Digests};
use super::error::{StoreError, failed};
use super::record::PathInfo;
use super::session::remove_tree;
use super::writer::{Destination, Writer, write_all};

/// A tree out of an archive, under a private name until it is registered; gone if it is not.
pub struct Restored {
    pub(super) staged: Staged,
}

impl Restored {
    /// Digest of the archive.
    pub fn nar_hash(&self) -> NarHash {
        self.staged.walked.nar_hash
    }

    /// Its bytes.
    pub fn nar_size(&self) -> u64 {
        self.staged.walked.nar_size
    }

    /// Where the tree lies now.
    pub fn place(&self) -> &Path {
        &self.staged.path
    }
}

impl Store {
    /// Restores the archive that `nar` is, to its end.
    pub fn restore(&self, nar: &mut dyn Read, limits: TreeLimits) -> Result<Restored, StoreError> {
        Ok(Restored { staged: self.stage_written(|writer| restore(nar, writer, limits))? })
    }

    /// Writes a text as the whole of a tree.
    pub(super) fn stage_text(&self, text: &[u8]) -> Result<Staged, StoreError> {
        self.stage_written(|writer| write_text(text, writer))
    }

    fn stage_written(
        &self,
        write: impl FnOnce(Writer<'_>) -> Result<Walked, StoreError>,
    ) -> Result<Staged, StoreError> {
        let path = self.session.private_name();
        let name = c_name(&path);
        let writer = Writer::new(Destination { directory: self.tmp.as_fd(), name: &name, shown: path.clone() });
        match write(writer) {
            Ok(walked) => Ok(Staged { path, walked }),
            Err(error) => {
                remove_tree(&path).ok();
                Err(error)
            }
        }
    }

    /// Makes a restored tree the valid path that it should be. If another process was faster, its copy stays.
    pub fn register_restored(&self, restored: Restored, arrival: Arrival) -> Result<PathInfo, StoreError> {
        for reference in arrival.references.iter().filter(|reference| **reference != arrival.path) {
            self.record_of(reference)?;
            self.hold_line(reference.base_name())?;
        }
        self.publish(restored.staged, arrival)
    }
}

fn restore(nar: &mut dyn Read, mut writer: Writer<'_>, limits: TreeLimits) -> Result<Walked, StoreError> {
    let mut hashing = Hashing { reader: nar, digester: Digester::new(Digests::Nar, None) };
    let limits = Limits { entries: limits.entries, bytes: limits.bytes };
    let mut buffer = vec![0; 128 << 10];
    let mut refused = None;
    let decoded = decode(&mut BufReader::with_capacity(128 << 10, &mut hashing), &limits, |event| {
        write(&mut writer, event, &mut buffer).map_err(|error| match error {
            Failed::Read(error) => error,
            Failed::Store(error) => {
                refused = Some(error);
                io::Error::other("the store failed")
            }
        })
    });
    match (decoded, refused) {
        (_, Some(error)) => Err(error),
        (Err(error), None) => Err(error.into()),
        (Ok(()), None) => {
            let Digested { nar_hash, nar_size, .. } = hashing.digester.finish();
            Ok(Walked { nar_hash, nar_size, manifest: None, references: Default::default(), stats: writer.stats })
        }
    }
}

fn write_text(text: &[u8], mut writer: Writer<'_>) -> Result<Walked, StoreError> {
    let file = writer.start_file(c"")?;
    write_all(&file, text).map_err(failed("writing", &writer.shown()))?;
    writer.end_file(&file, 0o444)?;
    let (length, mut nar) = (text.len() as u64, Vec::new());
    frame::start(&mut nar);
    frame::file(&mut nar, length);
    nar.extend(text);
    frame::file_end(&mut nar, length);
    let (nar_hash, nar_size) = (NarHash::new(Digest::of(&nar)), nar.len() as u64);
    Ok(Walked { nar_hash, nar_size, manifest: None, references: Default::default(), stats: writer.stats })
}

enum Failed {
    Read(io::Error),
    Store(StoreError),
}

impl From<StoreError> for Failed {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

fn write(writer: &mut Writer<'_>, event: Event<'_>, buffer: &mut [u8]) -> Result<(), Failed> {
    let text = |bytes: &[u8]| {
        CString::new(bytes).map_err(|_| Failed::Store(NarError::Malformed("a name contains NUL".into()).into()))
    };
    match event {
        Event::DirectoryStart { name } => writer.start_directory(&text(name.unwrap_or_default())?)?,
        Event::DirectoryEnd => writer.end_directory()?,
        Event::Symlink { name, target } => writer.symlink(&text(name.unwrap_or_default())?, &text(target)?)?,
        Event::File { name, executable, mut contents, .. } => {
            let file = writer.start_file(&text(name.unwrap_or_default())?)?;
            loop {
                let count = match contents.read(buffer) {
                    Ok(0) => break,
                    Ok(count) => count,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(error) => return Err(Failed::Read(error)),
                };
                write_all(&file, &buffer[..count]).map_err(failed("writing", &writer.shown()))?;
            }
            writer.end_file(&file, if executable { 0o555 } else { 0o444 })?;
        }
    }
    Ok(())
}

/// Hashes what is read.
struct Hashing<'r> {
    reader: &'r mut dyn Read,
    digester: Digester,
}

impl Read for Hashing<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        self.digester.frame(&buffer[..count]);
        Ok(count)
    }
}
