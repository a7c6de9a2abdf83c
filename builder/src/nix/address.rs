//! Content addresses held against the contents.
//!
//! A path that follows from its contents needs nobody's signature, but then the contents must be what its address says. A
//! tree that names itself is hashed with each occurrence of its own hash part as NULs, and their offsets after it.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use kiln_model::store_path::{Algorithm, HASH_LENGTH, Hasher, Method, StorePath};

use super::dump::{DumpError, dump};

/// The digest that the content address of what lies at `tree` has, where `itself` is the path if the tree names it.
pub fn content_digest(
    tree: &Path,
    method: Method,
    algorithm: Algorithm,
    itself: Option<&StorePath>,
) -> Result<Vec<u8>, DumpError> {
    let read = |source| DumpError::Read { path: tree.into(), source };
    let mut masking = Masking::new(Hasher::new(algorithm), itself);
    match method {
        Method::Recursive => dump(tree, &mut masking)?,
        Method::Flat => {
            if !tree.symlink_metadata().map_err(read)?.is_file() {
                return Err(DumpError::Odd { path: tree.into(), what: "addressed as a file and none" });
            }
            io::copy(&mut File::open(tree).map_err(read)?, &mut masking).map_err(read)?;
        }
    }
    Ok(masking.finish())
}

/// Hashes a stream modulo one hash part.
struct Masking {
    hasher: Hasher,
    mask: Option<Vec<u8>>,
    /// The last bytes that could be the start of an occurrence: fewer than one has.
    kept: Vec<u8>,
    /// Where `kept` begins in the stream.
    offset: u64,
    found: Vec<u64>,
}

impl Masking {
    fn new(hasher: Hasher, itself: Option<&StorePath>) -> Self {
        let mask = itself.map(|path| path.hash_part().as_bytes().to_vec());
        Self { hasher, mask, kept: Vec::new(), offset: 0, found: Vec::new() }
    }

    fn finish(mut self) -> Vec<u8> {
        self.hasher.update(&self.kept);
        for offset in &self.found {
            self.hasher.update(format!("|{offset}").as_bytes());
        }
        self.hasher.finish()
    }
}

impl Write for Masking {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(mask) = &self.mask else {
            self.hasher.update(bytes);
            return Ok(bytes.len());
        };
        self.kept.extend(bytes);
        let mut from = 0;
        while let Some(at) = memchr::memmem::find(&self.kept[from..], mask) {
            let at = from + at;
            self.kept[at..at + HASH_LENGTH].fill(0);
            self.found.push(self.offset + at as u64);
            from = at + HASH_LENGTH;
        }
        let done = self.kept.len().saturating_sub(HASH_LENGTH - 1).max(from);
        self.hasher.update(&self.kept[..done]);
        self.kept.drain(..done);
        self.offset += done as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masked(pieces: &[&[u8]], itself: &StorePath) -> Vec<u8> {
        let mut masking = Masking::new(Hasher::new(Algorithm::Sha256), Some(itself));
        pieces.iter().for_each(|piece| masking.write_all(piece).unwrap());
        masking.finish()
    }

    #[test]
    fn a_hash_part_is_masked_wherever_the_stream_is_cut() {
        let path: StorePath = "/nix/store/1ncm7wbm5d286vjcmdnyqwwkndbl28s6-a".parse().unwrap();
        let text = format!("x{path}yy{path}");
        let mut hasher = Hasher::new(Algorithm::Sha256);
        hasher.update(text.replace(path.hash_part(), &"\0".repeat(32)).as_bytes());
        hasher.update(b"|12|59");
        let expected = hasher.finish();
        for cut in 0..text.len() {
            let (head, tail) = text.as_bytes().split_at(cut);
            assert_eq!(masked(&[head, tail], &path), expected, "{cut}");
        }
        let bytes: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
        assert_eq!(masked(&bytes, &path), expected);
    }
}
