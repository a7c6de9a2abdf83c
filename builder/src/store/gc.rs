//! Garbage collection: removes what no root, no running process and no budget keeps.
//!
//! While it decides, nobody can start to need something (the lock `gc`, shared by all who add or hold). Validity ends before
//! bytes go: index, record, then the tree is moved aside, and deleted once others may go on.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use kiln_model::digest::{Digest, NarHash};
use kiln_model::name::Name;
use kiln_model::store_path::StorePath;

use super::add::split;
use super::environment::environment_line;
use super::error::{StoreError, failed};
use super::file::file_line;
use super::outcome::tree_line;
use super::record::{self, EnvironmentRecord, PathInfo};
use super::session::{Session, remove_tree};
use super::{Store, durable, names_in, nar_hash_of};

/// How many bytes may stay although nothing holds them; the newest stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Budget {
    /// Of valid paths that no root reaches.
    pub paths: u64,
    /// Of trees kept for outcomes.
    pub trees: u64,
    /// Of downloaded files, and as many of packages that are kept decoded.
    pub files: u64,
}

/// How many bytes may stay of what can be made again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Room {
    /// Of trees kept for outcomes.
    pub trees: u64,
    /// Of environments.
    pub environments: u64,
}

/// What was removed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Collected {
    /// Paths that are no longer valid.
    pub paths: BTreeSet<StorePath>,
    /// Trees no longer kept for outcomes.
    pub trees: BTreeSet<NarHash>,
    /// Materialised environments.
    pub environments: BTreeSet<NarHash>,
    /// Downloaded files.
    pub files: BTreeSet<Digest>,
    /// Decoded packages, by the digest of the package.
    pub packages: BTreeSet<Digest>,
    /// Bytes of NAR or file that all of these had.
    pub bytes: u64,
}

impl Store {
    /// Keeps `path` and all it names until the root is removed; a root of this name is replaced.
    pub fn add_root(&self, name: &Name, path: &StorePath) -> Result<(), StoreError> {
        let _shared = self.share_with_gc()?;
        self.record_of(path)?;
        durable::write(&self.session, &self.layout.roots().join(name.as_str()), format!("{path}\n").as_bytes())
    }

    /// Removes a root, if it is there.
    pub fn remove_root(&self, name: &Name) -> Result<(), StoreError> {
        durable::remove(&self.layout.roots().join(name.as_str()))
    }

    /// All roots.
    pub fn roots(&self) -> Result<BTreeMap<String, StorePath>, StoreError> {
        let mut roots = BTreeMap::new();
        for name in names_in(&self.layout.roots())? {
            let file = self.layout.roots().join(&name);
            let text = std::fs::read_to_string(&file).map_err(failed("reading", &file))?;
            let path = text
                .trim_end()
                .parse()
                // A root that cannot be read might hold anything: collecting on would be a guess.
                .map_err(|error| StoreError::Damaged { path: file, reason: format!("{error}") })?;
            roots.insert(name, path);
        }
        Ok(roots)
    }

    /// Removes what is not kept.
    pub fn gc(&self, budget: &Budget) -> Result<Collected, StoreError> {
        let mut collected = Collected::default();
        let mut trash = Vec::new();
        let excluded = self.exclude_for_gc()?;
        let held: BTreeSet<String> = Session::held(&self.layout)?.into_iter().collect();
        self.collect_paths(budget.paths, &held, &mut collected, &mut trash)?;
        self.collect_realisations()?;
        self.collect_trees(budget.trees, &held, &mut collected, &mut trash)?;
        self.collect_environments(&held, &mut collected, &mut trash)?;
        self.collect_files(budget.files, &held, &mut collected)?;
        self.collect_kept_packages(budget.files, &mut collected)?;
        drop(excluded);
        remove_tree(&self.failed_builds())?;
        trash.iter().try_for_each(|path| remove_tree(path))?;
        Ok(collected)
    }

    /// Drops the oldest trees that builds left, and the environments that were used the longest ago, until the others fit. What
    /// this or another running kiln holds stays.
    pub fn trim(&self, room: &Room) -> Result<Collected, StoreError> {
        let mut collected = Collected::default();
        let mut trash = Vec::new();
        let excluded = self.exclude_for_gc()?;
        let held: BTreeSet<String> = Session::held(&self.layout)?.into_iter().collect();
        self.collect_trees(room.trees, &held, &mut collected, &mut trash)?;
        self.trim_environments(room.environments, &held, &mut collected, &mut trash)?;
        drop(excluded);
        trash.iter().try_for_each(|path| remove_tree(path))?;
        Ok(collected)
    }

    fn trim_environments(
        &self,
        budget: u64,
        held: &BTreeSet<String>,
        collected: &mut Collected,
        trash: &mut Vec<PathBuf>,
    ) -> Result<(), StoreError> {
        let is_held = |digest: &Digest| held.contains(&environment_line(&NarHash::new(*digest)));
        let (mut there, mut over) = (Vec::new(), Vec::new());
        for file in names_in(&self.layout.environments())? {
            let Some(nar_hash) = nar_hash_of(&file) else { continue };
            let record_path = self.layout.environment(&nar_hash).with_extension("json");
            let record = record::read::<EnvironmentRecord>(&record_path)?;
            match record.filter(|record| record.form == record::FORM) {
                Some(record) => {
                    let used = record_path.metadata().and_then(|found| found.modified());
                    there.push((used.map_err(failed("looking at", &record_path))?, nar_hash.digest(), record.size));
                }
                // Nobody will use it any more.
                None if !is_held(&nar_hash.digest()) => over.push((nar_hash.digest(), 0)),
                None => {}
            }
        }
        over.extend(oldest_over(budget, there, is_held));
        for (digest, size) in over {
            let nar_hash = NarHash::new(digest);
            trash.push(self.drop_environment(&nar_hash)?);
            collected.bytes += size;
            collected.environments.insert(nar_hash);
        }
        Ok(())
    }

    /// Ends the validity of an environment, and moves it aside.
    fn drop_environment(&self, nar_hash: &NarHash) -> Result<PathBuf, StoreError> {
        let place = self.layout.environment(nar_hash);
        durable::remove(&place.with_extension("json"))?;
        self.set_aside(&place)
    }

    fn collect_paths(
        &self,
        budget: u64,
        held: &BTreeSet<String>,
        collected: &mut Collected,
        trash: &mut Vec<PathBuf>,
    ) -> Result<(), StoreError> {
        // From the records: an index without a row must not cost a path.
        let infos: BTreeMap<StorePath, PathInfo> =
            super::contents(&self.layout)?.paths.into_iter().map(|info| (info.path.clone(), info)).collect();
        let mut live = BTreeSet::new();
        let mut open: Vec<StorePath> = self.roots()?.into_values().collect();
        // Who holds a tree by its digest may have found it as a valid path.
        let is_held =
            |info: &PathInfo| held.contains(info.path.base_name()) || held.contains(&tree_line(&info.nar_hash));
        open.extend(infos.values().filter(|info| is_held(info)).map(|info| info.path.clone()));
        while let Some(path) = open.pop() {
            let Some(info) = infos.get(&path) else { continue };
            if live.insert(path) {
                open.extend(info.references.iter().cloned());
            }
        }
        let mut dead: Vec<&PathInfo> = infos.values().filter(|info| !live.contains(&info.path)).collect();
        dead.sort_by_key(|info| (info.registered, &info.path));
        let mut size: u64 = dead.iter().map(|info| info.nar_size).sum();
        let mut gone = BTreeSet::new();
        for info in dead {
            if size <= budget {
                break;
            }
            // What names a removed path goes, too, and first.
            for path in with_referrers(&infos, &info.path) {
                if gone.insert(path.clone()) {
                    let info = &infos[&path];
                    size -= info.nar_size;
                    collected.bytes += info.nar_size;
                    self.index.remove_path(&path)?;
                    durable::remove(&self.layout.record(&path))?;
                    trash.push(self.set_aside(&self.physical(&path))?);
                }
            }
        }
        for base in names_in(&self.layout.trees())? {
            let Ok(path) = StorePath::from_base_name(&base) else { continue };
            // Without a record it is a leftover, unless somebody is just making it.
            if !infos.contains_key(&path) && self.try_lock_path(&path)?.is_some() {
                trash.push(self.set_aside(&self.physical(&path))?);
            }
        }
        collected.paths = gone;
        Ok(())
    }

    fn collect_trees(
        &self,
        budget: u64,
        held: &BTreeSet<String>,
        collected: &mut Collected,
        trash: &mut Vec<PathBuf>,
    ) -> Result<(), StoreError> {
        let trees = self.index.trees_by_worth()?;
        let mut size: u64 = trees.iter().map(|(_, size)| size).sum();
        for (nar_hash, tree_size) in &trees {
            if size <= budget {
                break;
            }
            if held.contains(&tree_line(nar_hash)) {
                continue;
            }
            self.forget_tree(nar_hash)?;
            trash.push(self.set_aside(&self.layout.outcome_tree(nar_hash))?);
            size -= tree_size;
            collected.bytes += tree_size;
            collected.trees.insert(*nar_hash);
        }
        let known: BTreeSet<NarHash> = trees.into_iter().map(|(nar_hash, _)| nar_hash).collect();
        for file in names_in(&self.layout.outcome_trees())? {
            let Some(nar_hash) = nar_hash_of(&file) else { continue };
            let leftover = !known.contains(&nar_hash) && !held.contains(&tree_line(&nar_hash));
            if leftover && !self.layout.outcome_trees().join(format!("{file}.json")).exists() {
                trash.push(self.set_aside(&self.layout.outcome_tree(&nar_hash))?);
            }
        }
        Ok(())
    }

    /// An environment can always be materialised again from the valid path of the same digest: it goes with that.
    fn collect_environments(
        &self,
        held: &BTreeSet<String>,
        collected: &mut Collected,
        trash: &mut Vec<PathBuf>,
    ) -> Result<(), StoreError> {
        for file in names_in(&self.layout.environments())? {
            let Some(nar_hash) = nar_hash_of(&file) else { continue };
            if held.contains(&environment_line(&nar_hash)) || !self.index.paths_with(&nar_hash)?.is_empty() {
                continue;
            }
            trash.push(self.drop_environment(&nar_hash)?);
            collected.environments.insert(nar_hash);
        }
        Ok(())
    }

    fn collect_files(&self, budget: u64, held: &BTreeSet<String>, collected: &mut Collected) -> Result<(), StoreError> {
        let files = dated_files(&self.layout.files(), |name| name)?;
        let over = oldest_over(budget, files, |digest| held.contains(&file_line(digest)));
        for (digest, size) in over {
            durable::remove(&self.layout.file(&digest))?;
            collected.bytes += size;
            collected.files.insert(digest);
        }
        Ok(())
    }

    /// Nobody holds one: who reads it has it open.
    fn collect_kept_packages(&self, budget: u64, collected: &mut Collected) -> Result<(), StoreError> {
        let directory = self.kept_packages();
        if !directory.exists() {
            return Ok(());
        }
        let files = dated_files(&directory, |name| name.trim_end_matches(".deb"))?;
        for (digest, size) in oldest_over(budget, files, |_| false) {
            durable::remove(&directory.join(format!("{digest}.deb")))?;
            collected.bytes += size;
            collected.packages.insert(digest);
        }
        Ok(())
    }

    /// Moves what is no longer valid to a private name.
    fn set_aside(&self, place: &Path) -> Result<PathBuf, StoreError> {
        let aside = self.session.private_name();
        let (directory, name) = split(place)?;
        let stat = rustix::fs::statat(&directory, &name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW)
            .map_err(failed("looking at", place))?;
        if rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::Directory {
            let writable = rustix::fs::Mode::from_raw_mode(0o755);
            rustix::fs::chmodat(&directory, &name, writable, rustix::fs::AtFlags::empty())
                .map_err(failed("changing the mode of", place))?;
        }
        std::fs::rename(place, &aside).map_err(failed("moving away", place))?;
        Ok(aside)
    }
}

/// A file that may go: when it was written, whose bytes it holds, how many there are.
type Dated = (SystemTime, Digest, u64);

/// The files in `directory` that are named by a digest.
fn dated_files(directory: &Path, digest_of: impl Fn(&str) -> &str) -> Result<Vec<Dated>, StoreError> {
    let mut files = Vec::new();
    for name in names_in(directory)? {
        let Ok(digest) = digest_of(&name).parse::<Digest>() else { continue };
        let path = directory.join(&name);
        let metadata = path.metadata().map_err(failed("looking at", &path))?;
        files.push((metadata.modified().map_err(failed("looking at", &path))?, digest, metadata.len()));
    }
    Ok(files)
}

/// The oldest files that nothing holds, so many that the others fit into `budget`.
fn oldest_over(budget: u64, mut files: Vec<Dated>, held: impl Fn(&Digest) -> bool) -> Vec<(Digest, u64)> {
    files.sort_unstable();
    let mut size: u64 = files.iter().map(|(_, _, size)| size).sum();
    let mut over = Vec::new();
    for (_, digest, file_size) in files {
        if size <= budget {
            break;
        }
        if !held(&digest) {
            size -= file_size;
            over.push((digest, file_size));
        }
    }
    over
}

/// `path` after all that name it, directly or not: none comes before one that names it.
fn with_referrers(infos: &BTreeMap<StorePath, PathInfo>, path: &StorePath) -> Vec<StorePath> {
    let naming = |target: &StorePath| -> Vec<StorePath> {
        infos.values().filter(|info| info.references.contains(target)).map(|info| info.path.clone()).collect()
    };
    let (mut ordered, mut seen) = (Vec::new(), BTreeSet::from([path.clone()]));
    let mut open = vec![(path.clone(), naming(path))];
    while let Some((_, referrers)) = open.last_mut() {
        match referrers.pop() {
            Some(referrer) if seen.insert(referrer.clone()) => {
                let its = naming(&referrer);
                open.push((referrer, its));
            }
            Some(_) => {}
            None => ordered.extend(open.pop().map(|(path, _)| path)),
        }
    }
    ordered
}
