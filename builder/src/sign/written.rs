//! Where signed statements are put: a file for each, and all about one artifact in lines.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use kiln_model::envelope::Envelope;
use kiln_model::format::bundle::Bundle;
use kiln_model::key::Svid;
use kiln_model::statement::Statement;
use kiln_model::statement::provenance::Signer as Where;

use super::{SignError, Signer, digests, io as failed};
use crate::store::Store;
use crate::whole_file;

/// A signed statement, and the file's name without its ending.
#[derive(Debug, Clone)]
pub struct Written {
    /// `hello-2.10.provenance`.
    pub name: String,
    /// What was signed.
    pub statement: Statement,
    /// Signed.
    pub envelope: Envelope,
}

/// The largest collection that is added to.
const LARGEST: u64 = 256 << 20;

/// Writes each envelope as `NAME.json` below `directory`, or with `svid` as the bundle `NAME.sigstore.json`, and adds it to
/// `ARTIFACT.intoto.jsonl` of each of its subjects. Lines that are there stay; each is there once. Returns the files.
pub fn write(directory: &Path, written: &[Written], svid: Option<&Svid>) -> Result<Vec<PathBuf>, SignError> {
    fs::create_dir_all(directory).map_err(failed("creating", directory))?;
    let mut files = Vec::new();
    let mut lines: BTreeMap<PathBuf, BTreeSet<Vec<u8>>> = BTreeMap::new();
    for one in written {
        let (ending, bytes) = match svid {
            None => ("json", one.envelope.canonical()),
            Some(svid) => {
                let wrong = |source| SignError::Bundle { name: one.name.clone(), source: Box::new(source) };
                let bundle = Bundle::with_svid(one.envelope.clone(), svid.clone(), Vec::new()).map_err(wrong)?;
                ("sigstore.json", bundle.print())
            }
        };
        let path = directory.join(format!("{}.{ending}", file_name(&one.name)));
        put(&path, &bytes)?;
        files.push(path);
        for subject in &one.statement.subject {
            let name = file_name(subject.name.as_deref().unwrap_or("artifact"));
            lines.entry(directory.join(format!("{name}.intoto.jsonl"))).or_default().insert(bytes.clone());
        }
    }
    for (path, mut set) in lines {
        match fs::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Ok(metadata) if metadata.len() > LARGEST => {
                return Err(failed("adding to", &path)(io::Error::from(io::ErrorKind::FileTooLarge)));
            }
            Err(error) => return Err(failed("reading", &path)(error)),
            Ok(_) => {
                let there = fs::read(&path).map_err(failed("reading", &path))?;
                set.extend(there.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(<[u8]>::to_vec));
            }
        }
        let text: Vec<u8> = set.into_iter().flat_map(|line| [line, b"\n".to_vec()].concat()).collect();
        put(&path, &text)?;
        files.push(path);
    }
    Ok(files)
}

/// A name that stays in the directory.
fn file_name(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "._+-~=@".contains(c) { c } else { '_' };
    let name: String = name.chars().map(plain).take(200).collect();
    if name.starts_with('.') { format!("_{name}") } else { name }
}

fn put(path: &Path, bytes: &[u8]) -> Result<(), SignError> {
    whole_file::replace(path, bytes).map_err(failed("writing", path))
}

/// Whether builds in `store` ran under another user than one who can read the key at `path`: either the store is another's than
/// the key, or it is root's, whose builds never run as root. A process of its own the signer always is.
pub fn separation(store: &Store, path: &Path) -> Result<Where, SignError> {
    let owner = |path: &Path| fs::metadata(path).map_err(failed("reading", path));
    let (builds, key) = (owner(store.root())?, owner(path)?);
    let hidden = key.mode() & 0o077 == 0;
    Ok(match hidden && (builds.uid() == 0 || builds.uid() != key.uid()) {
        true => Where::Separate,
        false => Where::Same,
    })
}

impl Signer<'_> {
    /// The digest of this program.
    pub fn this_program() -> Result<kiln_model::digest::Digest, SignError> {
        digests::of_this_program()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_files_stay_in_their_directory() {
        for (name, file) in
            [("../a", "_.._a"), (".a", "_.a"), ("a/b", "a_b"), ("hello_2~1-1+b1.deb", "hello_2~1-1+b1.deb")]
        {
            assert_eq!(file_name(name), file);
        }
    }
}
