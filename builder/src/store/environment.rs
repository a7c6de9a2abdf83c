//! Materialised environments: root file systems as they are mounted, by NAR digest.
//!
//! What they look like (modes, times) is the business of whoever makes them; the store gives the place, sees to it that
//! each is there whole or not at all, and removes those that nothing needs.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use kiln_model::digest::NarHash;
use kiln_model::name::Name;
use kiln_model::store_path::StorePath;

use super::add::{fingerprint_of, split};
use super::copy::{Origin, Source, TreeLimits};
use super::digester::Digests;
use super::error::{StoreError, failed};
use super::record::{self, EnvironmentRecord};
use super::session::remove_tree;
use super::verify::Trust;
use super::{Store, durable, names_in, nar_hash_of};

impl Store {
    /// Where packages are kept decoded, each as `DIGEST.deb` under the digest of the original. A cache: anything in it may go
    /// at any time.
    pub fn kept_packages(&self) -> PathBuf {
        self.layout.kept_packages()
    }

    /// Where the environment with this digest lies, if it was materialised; it is held then. Its bytes are held against the
    /// digest as far as `trust` says.
    pub fn environment(&self, nar_hash: &NarHash, trust: Trust) -> Result<Option<PathBuf>, StoreError> {
        let _shared = self.share_with_gc()?;
        let place = self.layout.environment(nar_hash);
        let record_path = place.with_extension("json");
        let Some(mut record) = record::read::<EnvironmentRecord>(&record_path)? else {
            return Ok(None);
        };
        if !place.is_dir() || record.form != record::FORM {
            return Ok(None);
        }
        self.hold_line(&environment_line(nar_hash))?;
        let found = fingerprint_of(&place)?;
        if trust == Trust::Bytes || found != record.fingerprint {
            let (directory, name) = split(&place)?;
            let source = Source { directory: directory.as_fd(), name: &name, shown: &place, origin: Origin::Given };
            let (digest, _, _) = Self::digest_tree(source, Digests::Nar, TreeLimits::default())?;
            if digest != *nar_hash {
                return Err(StoreError::Tampered { path: place, expected: *nar_hash, found: digest });
            }
            record.fingerprint = found;
            durable::write(&self.session, &record_path, &record::print(&record))?;
        }
        used_now(&record_path);
        Ok(Some(place))
    }

    /// The materialised environment whose tree would be this path of the store, with its digest, as [`Store::environment`] has it:
    /// whoever built from a recipe never needed it as a path.
    pub fn environment_at(&self, path: &StorePath, trust: Trust) -> Result<Option<(NarHash, PathBuf)>, StoreError> {
        let Ok(name) = path.name().parse::<Name>() else { return Ok(None) };
        for file in names_in(&self.layout.environments())? {
            let Some(nar_hash) = nar_hash_of(&file) else { continue };
            if StorePath::source(&name, &nar_hash, &BTreeSet::new()) == *path {
                return Ok(self.environment(&nar_hash, trust)?.map(|place| (nar_hash, place)));
            }
        }
        Ok(None)
    }

    /// Moves the directory `made`, which lies in a [private directory](Store::private_dir), to the place of the environment
    /// with this digest and NAR of `size` bytes. If another process was faster, its copy stays. On return it is on the disk.
    pub fn add_environment(&self, nar_hash: &NarHash, size: u64, made: &Path) -> Result<PathBuf, StoreError> {
        let _shared = self.share_with_gc()?;
        self.hold_line(&environment_line(nar_hash))?;
        let _lock = self.lock_name(&format!("environment-{}", nar_hash.digest()))?;
        let place = self.layout.environment(nar_hash);
        let record_path = place.with_extension("json");
        let there = record::read::<EnvironmentRecord>(&record_path)?;
        if there.is_some_and(|record| record.form == record::FORM) && place.is_dir() {
            return Ok(place);
        }
        remove_tree(&place)?;
        std::fs::rename(made, &place).map_err(failed("renaming to", &place))?;
        durable::sync_all(self.root())?;
        let fingerprint = fingerprint_of(&place)?;
        let record =
            EnvironmentRecord { nar_hash: *nar_hash, made: record::now(), fingerprint, form: record::FORM, size };
        durable::write(&self.session, &record_path, &record::print(&record))?;
        Ok(place)
    }

    /// Removes a materialised environment, so that it can be made again.
    pub fn remove_environment(&self, nar_hash: &NarHash) -> Result<(), StoreError> {
        let _lock = self.lock_name(&format!("environment-{}", nar_hash.digest()))?;
        let place = self.layout.environment(nar_hash);
        durable::remove(&place.with_extension("json"))?;
        remove_tree(&place)
    }
}

/// Notes that an environment is used: its record's time says when that was last. A store that cannot be written to may be used
/// all the same, and then nothing is removed from it either.
fn used_now(record: &Path) {
    File::options().append(true).open(record).and_then(|record| record.set_modified(SystemTime::now())).ok();
}

pub(super) fn environment_line(nar_hash: &NarHash) -> String {
    format!("environment {nar_hash}")
}
