//! Where a tree of evidence is: files by name, some of which never change.
//!
//! A directory here, a server in [`super::server`]: both put if absent, put, and put if unchanged. A file of a directory is written
//! under a private name, synced, renamed, and its directory is synced. Many at once are synced by two syncfs(2), one before
//! the renames and one after ("all pending changes to file system metadata and cached file data", and since Linux 5.8 errors
//! of writing back are reported), instead of one journal commit each.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::num::NonZero;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{FlockOperation, flock};

use super::error::{PublishError, failed};
use crate::parallel;

/// Where drafts are, and the lock.
const PRIVATE: &str = ".kiln";
/// More files than this are synced together.
const FEW: usize = 16;

/// A file that is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewFile {
    /// Its path in the tree, with `/`.
    pub name: String,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// A tree of files that anybody reads and one writer changes.
pub trait Place {
    /// What errors call it.
    fn shown(&self) -> String;

    /// How many questions at once it answers sooner than one after another.
    fn at_once(&self) -> NonZero<usize>;

    /// Whether somebody else may write here meanwhile.
    fn is_shared(&self) -> bool;

    /// A file of at most `limit` bytes, as it is now; none if there is none. May be asked again.
    fn read(&self, name: &str, limit: usize) -> Result<Option<Vec<u8>>, PublishError>;

    /// Writes files whose names never have other bytes: those that are there are left if they are the same, and refused if
    /// not. On return all are durable. In no particular order; may be asked again after any failure.
    fn write_new(&self, files: &[NewFile]) -> Result<(), PublishError>;

    /// Writes files, in place of those that are there; each is the old or the new one, whole. On return all are durable. In
    /// no particular order; may be asked again after any failure.
    fn write_over(&self, files: &[NewFile]) -> Result<(), PublishError>;

    /// Replaces a file that still has the bytes `old`, or, without, is not there yet, or that is replaced already:
    /// [`PublishError::Conflict`] if it has others. At once and durable on return. May be asked again.
    fn replace(&self, file: &NewFile, old: Option<&[u8]>) -> Result<(), PublishError>;
}

/// A directory.
#[derive(Debug)]
pub struct Directory {
    root: PathBuf,
    drafts: AtomicU64,
    /// Held by the one who writes.
    _lock: Option<File>,
}

impl Directory {
    /// To read what is there.
    pub fn reading(root: &Path) -> Self {
        Self { root: root.into(), drafts: AtomicU64::new(0), _lock: None }
    }

    /// To write, once nobody else does; made if it is not there. Removes what killed writers left.
    pub fn writing(root: &Path) -> Result<Self, PublishError> {
        let private = root.join(PRIVATE);
        let drafts = private.join("drafts");
        fs::create_dir_all(&drafts).map_err(failed("creating", &drafts))?;
        let lock = locked(&private.join("lock"))?;
        for draft in fs::read_dir(&drafts).map_err(failed("listing", &drafts))? {
            let draft = draft.map_err(failed("listing", &drafts))?.path();
            fs::remove_file(&draft).map_err(failed("removing", &draft))?;
        }
        Ok(Self { root: root.into(), drafts: AtomicU64::new(0), _lock: Some(lock) })
    }

    /// All files below a directory of the tree, by name, in order. Links are not followed, and are files.
    pub fn files(&self, below: &str) -> Result<BTreeSet<String>, PublishError> {
        let (mut files, mut open) = (BTreeSet::new(), vec![below.to_owned()]);
        while let Some(name) = open.pop() {
            let path = self.root.join(&name);
            let entries = match fs::read_dir(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                entries => entries.map_err(failed("listing", &path))?,
            };
            for entry in entries {
                let entry = entry.map_err(failed("listing", &path))?;
                let kind = entry.file_type().map_err(failed("looking at", entry.path()))?;
                let name = format!("{name}/{}", entry.file_name().to_string_lossy());
                if kind.is_dir() {
                    open.push(name);
                } else {
                    files.insert(name);
                }
            }
        }
        Ok(files)
    }

    fn draft(&self, file: &NewFile) -> Result<PathBuf, PublishError> {
        let number = self.drafts.fetch_add(1, Ordering::Relaxed);
        let path = self.root.join(PRIVATE).join("drafts").join(number.to_string());
        let mut open = File::create_new(&path).map_err(failed("creating", &path))?;
        open.write_all(&file.bytes).map_err(failed("writing", &path))?;
        // Whoever serves it is another user.
        open.set_permissions(fs::Permissions::from_mode(0o644)).map_err(failed("writing", &path))?;
        Ok(path)
    }

    /// Gives a draft its name.
    fn place(&self, draft: &Path, name: &str) -> Result<(), PublishError> {
        let path = self.root.join(name);
        let placed = match fs::rename(draft, &path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let parent = path.parent().expect("names are below the root");
                fs::create_dir_all(parent).map_err(failed("creating", parent))?;
                fs::rename(draft, &path)
            }
            placed => placed,
        };
        placed.map_err(failed("writing", &path))
    }

    fn write(&self, files: &[&NewFile]) -> Result<(), PublishError> {
        if files.is_empty() {
            return Ok(());
        }
        let drafts = parallel::map(files, |file| self.draft(file)).into_iter().collect::<Result<Vec<_>, _>>()?;
        if files.len() <= FEW {
            drafts.iter().try_for_each(|draft| sync(draft))?;
        } else {
            self.sync_all()?;
        }
        for (draft, file) in drafts.iter().zip(files) {
            self.place(draft, &file.name)?;
        }
        if files.len() > FEW {
            return self.sync_all();
        }
        let mut directories = BTreeSet::new();
        for file in files {
            // Those above may be new, too.
            directories.extend(Path::new(&file.name).ancestors().skip(1).map(|above| self.root.join(above)));
        }
        directories.iter().try_for_each(|directory| sync(directory))
    }

    fn sync_all(&self) -> Result<(), PublishError> {
        let root = File::open(&self.root).map_err(failed("opening", &self.root))?;
        rustix::fs::syncfs(&root).map_err(|error| failed("syncing", &self.root)(error.into()))
    }
}

impl Place for Directory {
    fn shown(&self) -> String {
        self.root.display().to_string()
    }

    fn at_once(&self) -> NonZero<usize> {
        parallel::processors()
    }

    /// Writers wait for its lock.
    fn is_shared(&self) -> bool {
        false
    }

    fn read(&self, name: &str, limit: usize) -> Result<Option<Vec<u8>>, PublishError> {
        read(&self.root.join(name), limit)
    }

    fn write_new(&self, files: &[NewFile]) -> Result<(), PublishError> {
        let there = parallel::map(files, |file| match self.read(&file.name, file.bytes.len())? {
            None => Ok(false),
            Some(bytes) if bytes == file.bytes => Ok(true),
            Some(_) => Err(PublishError::Changed { file: file.name.clone() }),
        });
        let mut new = Vec::new();
        for (file, there) in files.iter().zip(there) {
            match there {
                Ok(true) => {}
                Ok(false) => new.push(file),
                Err(PublishError::TooLarge { .. }) => return Err(PublishError::Changed { file: file.name.clone() }),
                Err(error) => return Err(error),
            }
        }
        self.write(&new)
    }

    fn write_over(&self, files: &[NewFile]) -> Result<(), PublishError> {
        self.write(&files.iter().collect::<Vec<_>>())
    }

    fn replace(&self, file: &NewFile, old: Option<&[u8]>) -> Result<(), PublishError> {
        let limit = old.map_or(0, <[u8]>::len).max(file.bytes.len());
        match self.read(&file.name, limit) {
            Ok(Some(found)) if found == file.bytes => Ok(()),
            Ok(found) if found.as_deref() == old => self.write(&[file]),
            Ok(_) | Err(PublishError::TooLarge { .. }) => Err(PublishError::Conflict { file: file.name.clone() }),
            Err(error) => Err(error),
        }
    }
}

/// A file of at most `limit` bytes, if it is there.
pub(super) fn read(path: &Path, limit: usize) -> Result<Option<Vec<u8>>, PublishError> {
    let file = match File::open(path) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        file => file.map_err(failed("opening", path))?,
    };
    let mut bytes = Vec::new();
    file.take(limit as u64 + 1).read_to_end(&mut bytes).map_err(failed("reading", path))?;
    match bytes.len() > limit {
        true => Err(PublishError::TooLarge { file: path.display().to_string(), limit: limit as u64 }),
        false => Ok(Some(bytes)),
    }
}

/// Waits for a lock and takes it; the kernel releases it however its holder ends (flock(2)).
pub(super) fn locked(path: &Path) -> Result<File, PublishError> {
    let file = File::options().create(true).truncate(false).write(true).open(path).map_err(failed("opening", path))?;
    loop {
        match flock(&file, FlockOperation::LockExclusive) {
            Err(rustix::io::Errno::INTR) => {}
            done => return done.map(|()| file).map_err(|error| failed("locking", path)(error.into())),
        }
    }
}

pub(super) fn sync(path: &Path) -> Result<(), PublishError> {
    File::open(path).and_then(|open| open.sync_all()).map_err(failed("syncing", path))
}

/// Replaces a file of a directory of state, whose writer has locked it: the old or the new one, whole, on the disk on return.
pub(super) fn kept(directory: &Path, name: &str, bytes: &[u8]) -> Result<(), PublishError> {
    let (draft, path) = (directory.join(format!("{name}.new")), directory.join(name));
    let mut file = File::create(&draft).map_err(failed("creating", &draft))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(failed("writing", &draft))?;
    fs::rename(&draft, &path).map_err(failed("writing", &path))?;
    sync(directory)
}
