//! Which path an output turned out to be whose derivation does not say it: a record per derivation and output.
//!
//! A realisation says something only while its path is valid, and does not keep it so: garbage collection removes it with
//! the path. Of several for one output the first stays, so that what was built upon it is not built again. Files only: all
//! questions are about one derivation, whose name is the directory's.

use std::path::PathBuf;

use kiln_model::format::realisation::Realisation;
use kiln_model::name::Name;
use kiln_model::store_path::StorePath;
use serde::{Deserialize, Serialize};

use super::error::{StoreError, failed};
use super::layout::Layout;
use super::verify::Problem;
use super::{Store, durable, names_in, record};

/// A realisation as it lies on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RealisationRecord {
    derivation: StorePath,
    realisation: Realisation,
    recorded: i64,
}

impl Store {
    /// Which path `output` of `derivation` turned out to be, if that is recorded and the path is valid.
    pub fn realisation(&self, derivation: &StorePath, output: &Name) -> Result<Option<Realisation>, StoreError> {
        let Some(record) = record::read::<RealisationRecord>(&self.realisation_file(derivation, output))? else {
            return Ok(None);
        };
        let RealisationRecord { realisation, .. } = record;
        Ok(self.path_info(&realisation.path)?.is_some().then_some(realisation))
    }

    /// Records what an output of `derivation` turned out to be; its path must be valid. One that is recorded already and
    /// whose path is valid stays, and is what is returned.
    pub fn add_realisation(&self, derivation: &StorePath, realisation: Realisation) -> Result<Realisation, StoreError> {
        let _shared = self.share_with_gc()?;
        let _lock = self.lock_name(&format!("realisation-{}", derivation.base_name()))?;
        if let Some(known) = self.realisation(derivation, &realisation.id.output)? {
            self.hold_line(known.path.base_name())?;
            return Ok(known);
        }
        self.record_of(&realisation.path)?;
        self.hold_line(realisation.path.base_name())?;
        let file = self.realisation_file(derivation, &realisation.id.output);
        let directory = self.layout.realisations().join(derivation.base_name());
        std::fs::create_dir_all(&directory).map_err(failed("creating", &directory))?;
        let (derivation, recorded) = (derivation.clone(), record::now());
        let record = RealisationRecord { derivation, realisation, recorded };
        self.session.making()?.write(&file, &record::print(&record))?;
        Ok(record.realisation)
    }

    /// All realisations whose paths are valid, with the derivations that they are of.
    pub fn realisations(&self) -> Result<Vec<(StorePath, Realisation)>, StoreError> {
        let mut found = Vec::new();
        for file in self.realisation_files()? {
            let Some(record) = record::read::<RealisationRecord>(&file)? else { continue };
            if self.path_info(&record.realisation.path)?.is_some() {
                found.push((record.derivation, record.realisation));
            }
        }
        Ok(found)
    }

    /// Removes realisations of paths that are not valid. The caller excludes all others from the store.
    pub(super) fn collect_realisations(&self) -> Result<(), StoreError> {
        for file in self.realisation_files()? {
            let Some(record) = record::read::<RealisationRecord>(&file)? else { continue };
            if self.path_info(&record.realisation.path)?.is_none() {
                durable::remove(&file)?;
                // Fails while it holds others.
                file.parent().map(std::fs::remove_dir);
            }
        }
        Ok(())
    }

    /// Records that cannot be read, or say something of another output than their names do.
    pub(super) fn damaged_realisations(&self) -> Result<Vec<Problem>, StoreError> {
        let mut problems = Vec::new();
        for file in self.realisation_files()? {
            let reason = match record::read::<RealisationRecord>(&file) {
                Err(StoreError::Damaged { reason, .. }) => reason,
                Err(error) => return Err(error),
                Ok(Some(found)) if file != self.realisation_file(&found.derivation, &found.realisation.id.output) => {
                    format!("it is one of {}!{}", found.derivation, found.realisation.id.output)
                }
                Ok(_) => continue,
            };
            let shown = file.strip_prefix(self.root()).unwrap_or(&file).display().to_string();
            problems.push(Problem::Realisation { file: shown, reason });
        }
        Ok(problems)
    }

    fn realisation_file(&self, derivation: &StorePath, output: &Name) -> PathBuf {
        self.layout.realisations().join(derivation.base_name()).join(format!("{output}.json"))
    }

    fn realisation_files(&self) -> Result<Vec<PathBuf>, StoreError> {
        files(&self.layout)
    }
}

/// All records of realisations.
pub(super) fn files(layout: &Layout) -> Result<Vec<PathBuf>, StoreError> {
    let mut files = Vec::new();
    for derivation in names_in(&layout.realisations())? {
        let directory = layout.realisations().join(derivation);
        if !directory.is_dir() {
            continue;
        }
        files.extend(names_in(&directory)?.into_iter().map(|file| directory.join(file)));
    }
    Ok(files)
}
