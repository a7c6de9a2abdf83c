//! The store: trees by content, what builds left behind, and what is known of both.
//!
//! Logically everything lies at `/nix/store`, on disk below the user's own root (ARCHITECTURE.md, decision 2):
//!
//! ```text
//! schema          version of all this            nix/store/      canonical trees, mounted at /nix/store inside
//! meta/           a record per valid path        outcomes/       records of builds, and the trees they speak of
//! files/          downloads, by sha256           environments/   root file systems as they are mounted
//! realisations/   what floating outputs became   logs/ roots/ locks/ sessions/ tmp/
//! index.sqlite    made from the records
//! ```
//!
//! A path is valid when its record exists: the tree is moved into place first, then the record is, then the index is told;
//! removal goes the other way round, each step on the disk before the next. So a process that is killed at any instruction
//! leaves no half-valid path and loses no finished build. A machine that stops loses nothing that kiln has told of: all is on
//! the disk before a result is printed or leaves the store ([`Store::sync`], `turn`). Of what was not told of yet, the last
//! half minute at most, it may lose builds, but leaves no half-valid path: what may be torn is read, and what is torn is taken
//! out, before the store is used again (`repair`). This rests on three things: that rename(2) is atomic, that fsync(2) and
//! syncfs(2) mean what they say down to the medium, and that the kernel's boot id changes with every boot.
//! Several processes may use one store at once. The store knows nothing of recipes, sandboxes or verdicts.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kiln_model::digest::NarHash;
use kiln_model::store_path::StorePath;
use rustix::fs::FlockOperation;

mod add;
mod copy;
mod digester;
mod durable;
mod environment;
mod error;
mod failed_build;
mod file;
mod fingerprint;
mod gc;
mod index;
mod layout;
mod lock;
mod log;
mod manifest;
mod outcome;
mod realisation;
mod record;
mod repair;
mod restore;
mod rewriting;
mod session;
mod turn;
mod verify;
mod writer;

pub use add::{Added, Arrival};
pub use copy::{Origin, Source, TreeLimits};
pub(crate) use digester::Digester;
pub use digester::Digests;
pub use error::{Refusal, StoreError, TreeError};
pub use fingerprint::Fingerprint;
pub use gc::{Budget, Collected, Room};
pub use layout::SCHEMA;
pub use lock::Lock;
pub use log::LogWriter;
pub use outcome::{Draft, Taken};
pub use record::PathInfo;
pub use repair::Lost;
pub use restore::Restored;
pub use session::PrivateDir;
pub use verify::{Problem, Trust, Verified};

use error::failed;
use index::{Contents, Index};
use layout::Layout;
use session::Session;

/// A store, open.
pub struct Store {
    layout: Layout,
    index: Index,
    session: Arc<Session>,
    lost: Vec<Lost>,
    /// Where copies are made before they have a name.
    tmp: File,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Store").field(&self.root()).finish()
    }
}

/// The user's store: `$KILN_STORE`, else `$XDG_DATA_HOME/kiln`, else `~/.local/share/kiln`. `None` without any of the
/// three variables.
pub fn default_root(variable: impl Fn(&str) -> Option<std::ffi::OsString>) -> Option<PathBuf> {
    let set = |name| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("KILN_STORE")
        .or_else(|| set("XDG_DATA_HOME").map(|data| data.join("kiln")))
        .or_else(|| set("HOME").map(|home| home.join(".local/share/kiln")))
}

impl Store {
    /// Opens the store at `root`, makes it if there is none, and cleans up after processes that died.
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        let layout = Layout::open(root)?;
        // Nobody uses what another is about to doubt.
        let _starting = Lock::take(&layout.locks().join("start"), FlockOperation::LockExclusive)?;
        let session = Arc::new(Session::start(&layout)?);
        let dead = session.dead()?;
        let lost = repair::end_turns(&layout, &dead)?;
        let index = Index::open(&layout.index(), || contents(&layout))?;
        let tmp = File::open(layout.tmp()).map_err(failed("opening", &layout.tmp()))?;
        let store = Self { layout, index, session, lost, tmp };
        if !dead.is_empty() {
            // A record is written before its row: what died in between left a path that only the records know. Nobody is
            // between the two while collection is excluded.
            let _excluded = store.exclude_for_gc()?;
            store.forget_moved_trees()?;
            store.rebuild_index()?;
        }
        dead.into_iter().try_for_each(|dead| dead.bury(&store.layout))?;
        Ok(store)
    }

    /// Waits until all that was added is on the disk. To be called before anything that rests on it leaves the store.
    pub fn sync(&self) -> Result<(), StoreError> {
        self.session.sync()
    }

    /// What was found to be lost when the store was opened, because the machine had stopped while somebody used it.
    pub fn lost(&self) -> &[Lost] {
        &self.lost
    }

    /// Where the store lies.
    pub fn root(&self) -> &Path {
        self.layout.root()
    }

    /// What is known of `path`, if it is valid.
    pub fn path_info(&self, path: &StorePath) -> Result<Option<PathInfo>, StoreError> {
        if self.physical(path).symlink_metadata().is_err() {
            return Ok(None);
        }
        if let Some(info) = self.index.path(path)? {
            return Ok(Some(info));
        }
        // A process that was killed between record and index.
        let info: Option<PathInfo> = record::read(&self.layout.record(path))?;
        if let Some(info) = &info {
            self.index.add_paths([info])?;
        }
        Ok(info)
    }

    /// The valid path with this hash part.
    pub fn path_with_hash(&self, hash: &str) -> Result<Option<StorePath>, StoreError> {
        self.index.path_with_hash(hash)
    }

    /// Where `path` lies on disk, valid or not.
    pub fn physical(&self, path: &StorePath) -> PathBuf {
        self.layout.tree(path)
    }

    /// All valid paths, sorted.
    pub fn paths(&self) -> Result<Vec<PathInfo>, StoreError> {
        self.index.paths()
    }

    /// Valid paths that name `path`.
    pub fn referrers(&self, path: &StorePath) -> Result<BTreeSet<StorePath>, StoreError> {
        self.index.referrers(path)
    }

    /// `paths` and all they name, directly or not. All must be valid.
    pub fn closure(&self, paths: &BTreeSet<StorePath>) -> Result<BTreeMap<StorePath, PathInfo>, StoreError> {
        let mut closure = BTreeMap::new();
        let mut open: Vec<StorePath> = paths.iter().cloned().collect();
        while let Some(path) = open.pop() {
            if closure.contains_key(&path) {
                continue;
            }
            let info = self.path_info(&path)?.ok_or_else(|| StoreError::NotValid { path: path.clone() })?;
            open.extend(info.references.iter().cloned());
            closure.insert(path, info);
        }
        Ok(closure)
    }

    /// Keeps valid paths from being collected for as long as this store is open.
    pub fn hold(&self, paths: &BTreeSet<StorePath>) -> Result<(), StoreError> {
        let _shared = self.share_with_gc()?;
        for path in paths {
            if self.path_info(path)?.is_none() {
                return Err(StoreError::NotValid { path: path.clone() });
            }
            self.hold_line(path.base_name())?;
        }
        Ok(())
    }

    /// The [closure](Store::closure) of a valid path, which is held.
    pub fn hold_closure(&self, path: &StorePath) -> Result<BTreeMap<StorePath, PathInfo>, StoreError> {
        let _shared = self.share_with_gc()?;
        let closure = self.closure(&BTreeSet::from([path.clone()]))?;
        self.hold_line(path.base_name())?;
        Ok(closure)
    }

    /// A private directory (0700) on the store's file system, gone when dropped.
    pub fn private_dir(&self) -> Result<PrivateDir, StoreError> {
        self.session.private_dir()
    }

    /// Makes the index again from the records.
    pub fn rebuild_index(&self) -> Result<(), StoreError> {
        self.index.rebuild(&|| contents(&self.layout))
    }

    fn hold_line(&self, line: &str) -> Result<(), StoreError> {
        self.session.hold(line)
    }

    /// Fails if the tree or its record is gone.
    fn record_of(&self, path: &StorePath) -> Result<PathInfo, StoreError> {
        self.path_info(path)?.ok_or_else(|| StoreError::NotValid { path: path.clone() })
    }
}

/// Everything on disk that the index is made from.
fn contents(layout: &Layout) -> Result<Contents, StoreError> {
    let mut contents = Contents::default();
    for file in names_in(&layout.meta())? {
        let Some(info) = record::read::<PathInfo>(&layout.meta().join(&file))? else { continue };
        if layout.tree(&info.path).symlink_metadata().is_ok() {
            contents.paths.push(info);
        }
    }
    for file in names_in(&layout.outcome_trees())?.into_iter().filter(|file| file.ends_with(".json")) {
        let tree = layout.outcome_trees().join(&file);
        let Some(record) = record::read::<record::TreeRecord>(&tree)? else { continue };
        if layout.outcome_tree(&record.nar_hash).symlink_metadata().is_ok() {
            contents.trees.push(record);
        }
    }
    for derivation in names_in(&layout.outcome_records())? {
        let directory = layout.outcome_records().join(derivation);
        for file in names_in(&directory)? {
            let path = directory.join(&file);
            let json = std::fs::read(&path).map_err(failed("reading", &path))?;
            let filed = outcome::Filed::parse(file.trim_end_matches(".json"), &json)
                .map_err(|error| StoreError::Damaged { path, reason: error.to_string() })?;
            contents.outcomes.push(filed);
        }
    }
    Ok(contents)
}

/// Names in one of the store's own directories, sorted. All of them are ASCII; what is not is none of the store's.
fn names_in(directory: &Path) -> Result<Vec<String>, StoreError> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(failed("listing", directory))? {
        let entry = entry.map_err(failed("listing", directory))?;
        names.extend(entry.file_name().into_string().ok());
    }
    names.sort_unstable();
    Ok(names)
}

/// A NAR hash from the name of a kept tree or environment.
fn nar_hash_of(file: &str) -> Option<NarHash> {
    file.parse().ok().map(NarHash::new)
}
