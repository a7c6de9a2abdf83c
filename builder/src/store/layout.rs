//! Where things lie below the store's root, and which version of that this is.

use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use kiln_model::digest::{Digest, NarHash};
use kiln_model::store_path::StorePath;

use super::error::{StoreError, failed};

/// The version of the layout that this kiln writes. Older ones are brought up to it, newer ones refused.
///
/// 1: every record is on the disk when it is made. 2: records bear the stamps of turns, and sessions say which have not ended;
/// a kiln that knows nothing of that must not clear such a session away.
pub const SCHEMA: u32 = 2;

/// The store's root, and the names below it.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    root: PathBuf,
}

impl Layout {
    /// Makes what is missing below `root`, and checks the version.
    pub(super) fn open(root: &Path) -> Result<Self, StoreError> {
        // A relative root would follow the process's directory.
        let root = std::path::absolute(root).map_err(failed("locating", root))?;
        let layout = Self { root };
        make_directory(&layout.root, 0o755)?;
        layout.check_schema()?;
        for directory in [
            layout.root.join("nix"),
            layout.trees(),
            layout.meta(),
            layout.files(),
            layout.outcomes(),
            layout.outcome_trees(),
            layout.outcome_records(),
            layout.environments(),
            layout.realisations(),
            layout.logs(),
            layout.roots(),
            layout.locks(),
        ] {
            make_directory(&directory, 0o755)?;
        }
        for private in [layout.tmp(), layout.sessions()] {
            make_directory(&private, 0o700)?;
        }
        Ok(layout)
    }

    fn check_schema(&self) -> Result<(), StoreError> {
        let path = self.root.join("schema");
        match std::fs::read_to_string(&path) {
            Ok(text) => match text.trim_end().parse::<u32>() {
                Ok(SCHEMA) => Ok(()),
                // What is there already is right as it is.
                Ok(1) => self.write_schema(&path),
                Ok(found) if found > SCHEMA => {
                    Err(StoreError::NewerSchema { path: self.root.clone(), found, known: SCHEMA })
                }
                _ => Err(StoreError::Damaged { path, reason: format!("expected a version up to {SCHEMA}") }),
            },
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => self.write_schema(&path),
            Err(error) => Err(failed("reading", &path)(error)),
        }
    }

    /// Two processes may do this at once: each renames the same text into place.
    fn write_schema(&self, path: &Path) -> Result<(), StoreError> {
        let temporary =
            tempfile::NamedTempFile::new_in(&self.root).map_err(failed("creating a file in", &self.root))?;
        std::fs::write(temporary.path(), format!("{SCHEMA}\n")).map_err(failed("writing", path))?;
        temporary.as_file().sync_all().map_err(failed("syncing", path))?;
        temporary.persist(path).map_err(|error| failed("writing", path)(error.error))?;
        Ok(())
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn index(&self) -> PathBuf {
        self.root.join("index.sqlite")
    }

    /// What is mounted at `/nix/store` inside.
    pub(super) fn trees(&self) -> PathBuf {
        self.root.join("nix/store")
    }

    pub(super) fn tree(&self, path: &StorePath) -> PathBuf {
        self.trees().join(path.base_name())
    }

    pub(super) fn meta(&self) -> PathBuf {
        self.root.join("meta")
    }

    pub(super) fn record(&self, path: &StorePath) -> PathBuf {
        self.meta().join(format!("{}.json", path.base_name()))
    }

    pub(super) fn files(&self) -> PathBuf {
        self.root.join("files")
    }

    pub(super) fn file(&self, digest: &Digest) -> PathBuf {
        self.files().join(digest.to_string())
    }

    pub(super) fn outcomes(&self) -> PathBuf {
        self.root.join("outcomes")
    }

    pub(super) fn outcome_trees(&self) -> PathBuf {
        self.outcomes().join("trees")
    }

    pub(super) fn outcome_tree(&self, nar_hash: &NarHash) -> PathBuf {
        self.outcome_trees().join(nar_hash.digest().to_string())
    }

    pub(super) fn outcome_records(&self) -> PathBuf {
        self.outcomes().join("records")
    }

    pub(super) fn environments(&self) -> PathBuf {
        self.root.join("environments")
    }

    pub(super) fn environment(&self, nar_hash: &NarHash) -> PathBuf {
        self.environments().join(nar_hash.digest().to_string())
    }

    pub(super) fn realisations(&self) -> PathBuf {
        self.root.join("realisations")
    }

    pub(super) fn logs(&self) -> PathBuf {
        self.root.join("logs")
    }

    pub(super) fn kept_packages(&self) -> PathBuf {
        self.root.join("unpacked")
    }

    pub(super) fn tmp(&self) -> PathBuf {
        self.root.join("tmp")
    }

    pub(super) fn sessions(&self) -> PathBuf {
        self.root.join("sessions")
    }

    pub(super) fn roots(&self) -> PathBuf {
        self.root.join("roots")
    }

    pub(super) fn locks(&self) -> PathBuf {
        self.root.join("locks")
    }
}

fn make_directory(path: &Path, mode: u32) -> Result<(), StoreError> {
    if path.is_dir() {
        return Ok(());
    }
    std::fs::DirBuilder::new().recursive(true).mode(mode).create(path).map_err(failed("creating", path))
}
