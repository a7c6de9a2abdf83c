//! Hashes a tree's NAR while somebody else reads and writes it.
//!
//! One thread reads files into blocks (and writes them out again), a second hashes the NAR, a third the single files if a
//! manifest is wanted; blocks go round in a ring. SHA-256 is what bounds the whole, so nothing else may run on its thread.
//! Trees below one block start no thread: a build's typical output is a few kilobytes.

use std::io;
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, bounded};
use kiln_model::digest::{Digest, NarHash};
use kiln_model::format::nar::ReferenceScanner;
use sha2::{Digest as _, Sha256};

/// Large enough that waking a thread, which is dear in a virtual machine, costs nothing beside hashing a block.
const BLOCK: usize = 1024 * 1024;

/// What the first block has at least, in bytes. It grows with what it takes: most trees are far below a whole one, and to clear
/// a mebibyte takes longer than to hash them.
const LEAST: usize = 16 * 1024;

/// Blocks in the ring.
const RING: usize = 8;

/// What is hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Digests {
    /// The NAR only.
    Nar,
    /// The NAR, and each file for a manifest: twice the work, on a thread of its own.
    NarAndFiles,
}

/// What came out.
pub(crate) struct Digested {
    pub(crate) nar_hash: NarHash,
    pub(crate) nar_size: u64,
    /// One per file, in the order of the NAR; empty unless wanted.
    pub(crate) files: Vec<Digest>,
    /// Indices of the scanner's candidates that were found.
    pub(crate) references: Vec<usize>,
}

/// A piece of the NAR, and where in it files begin and end.
struct Block {
    bytes: Vec<u8>,
    used: usize,
    cuts: Vec<Cut>,
}

#[derive(Clone, Copy)]
enum Cut {
    Begin(usize),
    End(usize),
}

/// Takes a NAR piece by piece.
pub(crate) struct Digester {
    digests: Digests,
    scanner: Option<ReferenceScanner>,
    block: Block,
    size: u64,
    ring: Option<Ring>,
}

struct Ring {
    full: Sender<Block>,
    free: Receiver<Block>,
    nar: JoinHandle<Sha256>,
    files: Option<JoinHandle<FileHasher>>,
}

#[derive(Default)]
struct FileHasher {
    open: Option<Sha256>,
    done: Vec<Digest>,
}

impl Block {
    fn small() -> Self {
        Self { bytes: Vec::new(), used: 0, cuts: Vec::new() }
    }

    fn whole() -> Self {
        Self { bytes: vec![0; BLOCK], ..Self::small() }
    }

    /// Where up to `wanted` further bytes go: fewer only at the end of a whole block.
    fn room(&mut self, wanted: usize) -> &mut [u8] {
        let end = self.used.saturating_add(wanted).min(BLOCK);
        if end > self.bytes.len() {
            let length = end.max(2 * self.bytes.len()).clamp(LEAST, BLOCK);
            self.bytes.resize(length, 0);
        }
        &mut self.bytes[self.used..end]
    }

    fn filled(&self) -> &[u8] {
        &self.bytes[..self.used]
    }
}

impl FileHasher {
    fn take(&mut self, block: &Block) {
        let mut at = 0;
        for cut in &block.cuts {
            match *cut {
                Cut::Begin(begin) => {
                    self.open = Some(Sha256::new());
                    at = begin;
                }
                Cut::End(end) => {
                    let mut hasher = self.open.take().expect("a file begins before it ends");
                    hasher.update(&block.bytes[at..end]);
                    self.done.push(Digest::from_bytes(hasher.finalize().into()));
                }
            }
        }
        if let Some(hasher) = &mut self.open {
            hasher.update(&block.bytes[at..block.used]);
        }
    }
}

impl Ring {
    fn start(digests: Digests) -> Self {
        let (full, to_nar) = bounded::<Block>(RING);
        let (give_back, free) = bounded::<Block>(RING);
        for _ in 1..RING {
            give_back.send(Block::whole()).expect("the other end is held above");
        }
        let (after_nar, files) = match digests {
            Digests::Nar => (give_back, None),
            Digests::NarAndFiles => {
                let (to_files, from_nar) = bounded::<Block>(RING);
                let files = std::thread::spawn(move || {
                    let mut hasher = FileHasher::default();
                    for block in from_nar {
                        hasher.take(&block);
                        // Nobody waits for the last blocks.
                        give_back.send(block).ok();
                    }
                    hasher
                });
                (to_files, Some(files))
            }
        };
        let nar = std::thread::spawn(move || {
            let mut hasher = Sha256::new();
            for block in to_nar {
                hasher.update(block.filled());
                after_nar.send(block).ok();
            }
            hasher
        });
        Self { full, free, nar, files }
    }
}

impl Digester {
    pub(crate) fn new(digests: Digests, scanner: Option<ReferenceScanner>) -> Self {
        Self { digests, scanner, block: Block::small(), size: 0, ring: None }
    }

    /// Takes a frame.
    pub(crate) fn frame(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = self.block.room(bytes.len());
            let (now, later) = bytes.split_at(room.len());
            room.copy_from_slice(now);
            self.took(now.len());
            bytes = later;
        }
    }

    /// A file's contents follow.
    pub(super) fn begin_file(&mut self) {
        self.block.cuts.push(Cut::Begin(self.block.used));
    }

    /// The file's contents are complete.
    pub(super) fn end_file(&mut self) {
        self.block.cuts.push(Cut::End(self.block.used));
    }

    /// Lets `read` fill at most `limit` bytes of a block, shows them to `write`, and says how many there were.
    pub(super) fn contents<E>(
        &mut self,
        limit: u64,
        read: impl FnOnce(&mut [u8]) -> Result<usize, E>,
        write: impl FnOnce(&[u8]) -> Result<(), E>,
    ) -> Result<usize, E> {
        let room = self.block.room(usize::try_from(limit).unwrap_or(usize::MAX));
        let count = read(&mut *room)?;
        write(&room[..count])?;
        self.took(count);
        Ok(count)
    }

    fn took(&mut self, count: usize) {
        self.block.used += count;
        self.size += count as u64;
        if self.block.used == BLOCK {
            self.pass_on();
        }
    }

    fn pass_on(&mut self) {
        if let Some(scanner) = &mut self.scanner {
            scanner.scan(self.block.filled());
        }
        let ring = self.ring.get_or_insert_with(|| Ring::start(self.digests));
        let mut next = ring.free.recv().expect("the hashing threads end only after this one");
        next.used = 0;
        next.cuts.clear();
        let block = std::mem::replace(&mut self.block, next);
        ring.full.send(block).expect("the hashing threads end only after this one");
    }

    pub(crate) fn finish(mut self) -> Digested {
        if let Some(scanner) = &mut self.scanner {
            scanner.scan(self.block.filled());
        }
        let (nar, files) = match self.ring.take() {
            None => {
                let mut files = FileHasher::default();
                if self.digests == Digests::NarAndFiles {
                    files.take(&self.block);
                }
                (Sha256::new_with_prefix(self.block.filled()), files)
            }
            Some(ring) => {
                ring.full.send(self.block).expect("the hashing threads end only after this one");
                drop(ring.full);
                let nar = ring.nar.join().expect("hashing does not panic");
                let files = ring.files.map(|files| files.join().expect("hashing does not panic"));
                (nar, files.unwrap_or_default())
            }
        };
        Digested {
            nar_hash: NarHash::new(Digest::from_bytes(nar.finalize().into())),
            nar_size: self.size,
            files: files.done,
            references: self.scanner.map(ReferenceScanner::into_matches).unwrap_or_default(),
        }
    }
}

/// Reads until the buffer is full or the end, past interruptions.
pub(super) fn read_full(
    mut read: impl FnMut(&mut [u8]) -> rustix::io::Result<usize>,
    buffer: &mut [u8],
) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(filled)
}
