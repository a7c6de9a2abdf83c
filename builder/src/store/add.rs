//! Ways into the store: copy to a private name, hash on the way, move into place, record. All of it is on the disk when the
//! turn ends (`turn`).

use std::collections::BTreeSet;
use std::ffi::CString;
use std::fs::File;
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use kiln_model::derivation::Derivation;
use kiln_model::digest::NarHash;
use kiln_model::name::Name;
use kiln_model::outcome::Substituted;
use kiln_model::store_path::StorePath;
use kiln_model::tree::Manifest;

use super::copy::{Files, Origin, Root, Source, TreeLimits, Walked, Wanted, seal_root, walk};
use super::digester::Digests;
use super::error::{StoreError, TreeError, failed};
use super::fingerprint::Fingerprint;
use super::outcome::{Draft, Location, Taken, tree_record};
use super::record::{self, PathInfo};
use super::session::remove_tree;
use super::turn::Making;
use super::writer::Destination;
use super::{Store, durable};

/// A tree that is in the store now.
#[derive(Debug, Clone)]
pub struct Added {
    /// What is known of it.
    pub info: PathInfo,
    /// What is in it, if that was asked for.
    pub manifest: Option<Manifest>,
}

/// What is said of a tree that is about to become valid.
#[derive(Debug, Clone)]
pub struct Arrival {
    /// Where it will be.
    pub path: StorePath,
    /// What it names, itself included if it does. All others must be valid.
    pub references: BTreeSet<StorePath>,
    /// The derivation whose build made it.
    pub deriver: Option<StorePath>,
    /// Its content address as a narinfo spells it, if the path follows from the contents.
    pub ca: Option<String>,
    /// Who vouched for it: lines as narinfos have them.
    pub signatures: BTreeSet<String>,
    /// Where it came from, if it was substituted.
    pub substituted: Option<Substituted>,
}

/// A canonical copy under a private name.
pub(super) struct Staged {
    pub(super) path: PathBuf,
    pub(super) walked: Walked,
}

impl Drop for Staged {
    fn drop(&mut self) {
        // Gone if it was moved into place; else the next session tries again.
        remove_tree(&self.path).ok();
    }
}

impl Store {
    /// Adds a copy of the tree at `source`, addressed by its contents. The last component is not followed if it is a link.
    pub fn add_tree(&self, name: &Name, source: &Path, digests: Digests) -> Result<Added, StoreError> {
        let (directory, base) = split(source)?;
        let source = Source { directory: directory.as_fd(), name: &base, shown: source, origin: Origin::Given };
        self.add_source(name, &Root::Tree(source), digests, None)
    }

    /// As [`Store::add_tree`], for a tree in a directory that is held open; which of `candidates` it names becomes part of
    /// its path.
    pub fn add_tree_at(
        &self,
        name: &Name,
        source: Source<'_>,
        digests: Digests,
        candidates: &BTreeSet<StorePath>,
    ) -> Result<Added, StoreError> {
        self.add_source(name, &Root::Tree(source), digests, Some(candidates))
    }

    /// Adds a directory of files under their original names: `(name, where it lies now)`. Blocks are shared where the file
    /// system can, inodes never.
    pub fn add_files(&self, name: &Name, files: &[(String, PathBuf)]) -> Result<Added, StoreError> {
        let mut opened = Files::new();
        for (file_name, path) in files {
            let good = !matches!(file_name.as_str(), "" | "." | "..") && !file_name.contains(['/', '\0']);
            let key = CString::new(file_name.as_str()).ok().filter(|_| good);
            let file = File::open(path).map_err(failed("opening", path))?;
            let regular = file.metadata().map_err(failed("looking at", path))?.is_file();
            if let (Some(key), true) = (key, regular)
                && !opened.contains_key(&key)
            {
                opened.insert(key, file);
            } else {
                let source = std::io::Error::other("expected a regular file, and a file name used once");
                return Err(TreeError::Read { entry: file_name.as_str().into(), source }.into());
            }
        }
        self.add_source(name, &Root::Files(&opened), Digests::Nar, None)
    }

    fn add_source(
        &self,
        name: &Name,
        root: &Root<'_>,
        digests: Digests,
        candidates: Option<&BTreeSet<StorePath>>,
    ) -> Result<Added, StoreError> {
        let wanted = Wanted { digests, candidates, limits: TreeLimits::default(), rewrites: None };
        let mut staged = self.stage_root(root, &wanted)?;
        let nar_hash = staged.walked.nar_hash;
        let manifest = staged.walked.manifest.take();
        let references = std::mem::take(&mut staged.walked.references);
        let path = StorePath::source(name, &nar_hash, &references);
        let ca = Some(StorePath::source_address(&nar_hash));
        let arrival = Arrival { path, references, deriver: None, ca, signatures: BTreeSet::new(), substituted: None };
        let info = self.publish(staged, arrival)?;
        Ok(Added { info, manifest })
    }

    /// Adds the text of a derivation, and says its path. Its inputs need not be valid.
    pub fn add_derivation(&self, name: &Name, bytes: &[u8]) -> Result<StorePath, StoreError> {
        let derivation = Derivation::parse(name.clone(), bytes)?;
        let path = derivation.path()?;
        self.add_parsed(&path, &derivation)?;
        Ok(path)
    }

    /// The same for one that was parsed, at the path that its text gives it.
    pub fn add_parsed(&self, path: &StorePath, derivation: &Derivation) -> Result<(), StoreError> {
        if self.path_info(path)?.is_some() {
            return self.hold(&BTreeSet::from([path.clone()]));
        }
        let text = derivation.print();
        let staged = self.stage_text(&text)?;
        let inputs = derivation.input_sources.iter().chain(derivation.input_derivations.keys());
        let (path, references) = (path.clone(), inputs.cloned().collect());
        let (ca, signatures) = (Some(StorePath::text_address(&text)), BTreeSet::new());
        let arrival = Arrival { path, references, deriver: None, ca, signatures, substituted: None };
        self.publish(staged, arrival).map(drop)
    }

    /// The text of a derivation in the store.
    pub fn derivation(&self, path: &StorePath) -> Result<Derivation, StoreError> {
        self.record_of(path)?;
        let file = self.physical(path);
        let bytes = std::fs::read(&file).map_err(failed("reading", &file))?;
        Ok(Derivation::parse_at(path, &bytes)?)
    }

    /// Makes what an unvaried build left behind the valid `path`. If the path is valid already, that stays as it is and is what
    /// is returned; another tree than that is kept for the build's outcome.
    pub fn register_draft(
        &self,
        path: &StorePath,
        draft: Draft,
        deriver: &StorePath,
        ca: Option<String>,
    ) -> Result<PathInfo, StoreError> {
        if let Some(info) = self.path_info(path)?
            && info.nar_hash != draft.nar_hash()
        {
            self.hold(&BTreeSet::from([path.clone()]))?;
            self.keep_draft(draft)?;
            return Ok(info);
        }
        let (path, references, deriver) = (path.clone(), draft.references().clone(), Some(deriver.clone()));
        let arrival = Arrival { path, references, deriver, ca, signatures: BTreeSet::new(), substituted: None };
        self.publish(draft.0, arrival)
    }

    /// The same for what is [kept](Store::keep_draft). A path that is valid already stays as it is, and is what
    /// is returned: compare its NAR hash.
    pub fn register_output(
        &self,
        path: &StorePath,
        taken: &Taken,
        deriver: &StorePath,
        ca: Option<String>,
    ) -> Result<PathInfo, StoreError> {
        let _shared = self.share_with_gc()?;
        self.hold_line(path.base_name())?;
        let _lock = self.lock_path(path)?;
        if let Some(info) = self.path_info(path)? {
            return Ok(info);
        }
        let _tree_lock = self.lock_name(&format!("tree-{}", taken.nar_hash.digest()))?;
        let place = self.physical(path);
        let not_kept = || StoreError::Outcome(format!("the tree {} is not kept any more", taken.nar_hash));
        let location = self.tree_location(&taken.nar_hash)?.ok_or_else(not_kept)?;
        let making = self.session.making()?;
        let fingerprint = match location {
            Location::Kept => {
                let kept = self.layout.outcome_tree(&taken.nar_hash);
                let record = tree_record(&kept);
                let is_of_this_turn = record::stamp(&record)?.as_ref() == Some(&making.stamp());
                move_tree(&kept, &place)?;
                if !is_of_this_turn {
                    // It was safe: it must not be found in neither place.
                    durable::sync_all(self.root())?;
                }
                self.index.remove_tree(&taken.nar_hash)?;
                making.remove(&record)?;
                fingerprint_of(&place)?
            }
            Location::Valid(other) => {
                let from = self.physical(&other);
                let (directory, base) = split(&from)?;
                let source = Source { directory: directory.as_fd(), name: &base, shown: &from, origin: Origin::Given };
                let staged = self.stage(source, Digests::Nar, None, TreeLimits::default())?;
                if staged.walked.nar_hash != taken.nar_hash {
                    let (expected, found) = (taken.nar_hash, staged.walked.nar_hash);
                    return Err(StoreError::Tampered { path: from, expected, found });
                }
                settle(staged, &place)?
            }
        };
        let info = PathInfo {
            path: path.clone(),
            nar_hash: taken.nar_hash,
            nar_size: taken.nar_size,
            references: taken.references.clone(),
            deriver: Some(deriver.clone()),
            ca,
            signatures: BTreeSet::new(),
            substituted: None,
            registered: record::now(),
            fingerprint,
        };
        self.record(&info, &making)?;
        Ok(info)
    }

    /// Digest and size of the NAR of any tree, and what is in it if that is asked for. Nothing is written.
    pub fn digest_tree(
        source: Source<'_>,
        digests: Digests,
        limits: TreeLimits,
    ) -> Result<(NarHash, u64, Option<Manifest>), StoreError> {
        let walked = walk(&Root::Tree(source), None, &Wanted { digests, candidates: None, limits, rewrites: None })?;
        Ok((walked.nar_hash, walked.nar_size, walked.manifest))
    }

    pub(super) fn stage(
        &self,
        source: Source<'_>,
        digests: Digests,
        candidates: Option<&BTreeSet<StorePath>>,
        limits: TreeLimits,
    ) -> Result<Staged, StoreError> {
        self.stage_root(&Root::Tree(source), &Wanted { digests, candidates, limits, rewrites: None })
    }

    pub(super) fn stage_root(&self, root: &Root<'_>, wanted: &Wanted<'_>) -> Result<Staged, StoreError> {
        let path = self.session.private_name();
        let name = c_name(&path);
        let destination = Destination { directory: self.tmp.as_fd(), name: &name, shown: path.clone() };
        match walk(root, Some(destination), wanted) {
            Ok(walked) => Ok(Staged { path, walked }),
            Err(error) => {
                remove_tree(&path).ok();
                Err(error)
            }
        }
    }

    /// Makes a staged tree the valid `path`. If another was faster, its copy stays.
    pub(super) fn publish(&self, staged: Staged, arrival: Arrival) -> Result<PathInfo, StoreError> {
        let Arrival { path, references, deriver, ca, signatures, substituted } = arrival;
        let _shared = self.share_with_gc()?;
        self.hold_line(path.base_name())?;
        let _lock = self.lock_path(&path)?;
        if let Some(info) = self.path_info(&path)? {
            return Ok(info);
        }
        let (nar_hash, nar_size) = (staged.walked.nar_hash, staged.walked.nar_size);
        let making = self.session.making()?;
        let fingerprint = settle(staged, &self.physical(&path))?;
        let info = PathInfo {
            path,
            nar_hash,
            nar_size,
            references,
            deriver,
            ca,
            signatures,
            substituted,
            registered: record::now(),
            fingerprint,
        };
        self.record(&info, &making)?;
        Ok(info)
    }

    /// The tree is in its place: now it becomes valid.
    fn record(&self, info: &PathInfo, making: &Making<'_>) -> Result<(), StoreError> {
        making.write(&self.layout.record(&info.path), &record::print_stamped(info, &making.stamp()))?;
        self.index.add_paths([info])
    }
}

/// Moves a staged tree to `place`, replacing a leftover without a record.
pub(super) fn settle(mut staged: Staged, place: &Path) -> Result<Fingerprint, StoreError> {
    move_tree(&staged.path, place)?;
    let parent = place.parent().expect("paths of the store have a parent");
    let directory = File::open(parent).map_err(failed("opening", parent))?;
    let stats = std::mem::take(&mut staged.walked.stats);
    stats.finish(directory.as_fd(), &c_name(place)).map_err(failed("looking at", place))
}

/// Moves a canonical tree. The caller holds the lock of `to`, and nothing valid is there.
pub(super) fn move_tree(from: &Path, to: &Path) -> Result<(), StoreError> {
    remove_tree(to)?;
    if from.symlink_metadata().map_err(failed("looking at", from))?.is_dir() {
        // Moving a directory to another one rewrites its "..", for which it must be writable (rename(2), EACCES).
        let writable = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(from, writable).map_err(failed("changing the mode of", from))?;
    }
    std::fs::rename(from, to).map_err(failed("renaming to", to))?;
    let (directory, name) = split(to)?;
    seal_root(directory.as_fd(), &name, to)
}

pub(super) fn fingerprint_of(path: &Path) -> Result<Fingerprint, StoreError> {
    let (directory, name) = split(path)?;
    super::fingerprint::fingerprint(directory.as_fd(), &name).map_err(failed("looking at", path))
}

/// The open parent of a path, and the last component.
pub(super) fn split(path: &Path) -> Result<(File, CString), StoreError> {
    let canonical;
    let path = if path.file_name().is_some() {
        path
    } else {
        // `.` and `..` have no name of their own.
        canonical = path.canonicalize().map_err(failed("locating", path))?;
        &canonical
    };
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let directory = File::open(parent).map_err(failed("opening", parent))?;
    let name = path.file_name().map(|name| name.as_bytes()).unwrap_or(b".");
    let name = CString::new(name).map_err(|error| failed("opening", path)(std::io::Error::from(error)))?;
    Ok((directory, name))
}

pub(super) fn c_name(path: &Path) -> CString {
    let name = path.file_name().expect("paths of the store have a name");
    CString::new(name.as_bytes()).expect("names of the store are ASCII")
}
