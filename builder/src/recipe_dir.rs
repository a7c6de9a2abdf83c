//! A recipe's directory on disk: `recipe.toml`, and `recipe.lock` beside it.
//!
//! Reads both and names file, line and field in what it refuses; writes the lock by rename, so that there is always a
//! whole one. What a recipe means is `kiln-model`'s.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use kiln_model::lock::Lock;
use kiln_model::recipe::{Recipe, RecipeError};

use crate::exit::Kind;

/// The largest recipe or lock that is read, in bytes: a mistaken path must not fill the memory.
const LARGEST: u64 = 64 << 20;

/// A recipe where it was found.
#[derive(Debug, Clone)]
pub struct RecipeDir {
    /// The directory, absolute and without symbolic links.
    pub dir: PathBuf,
    /// How the user named it, for messages.
    pub shown: PathBuf,
    /// What it says.
    pub recipe: Recipe,
}

/// Why a recipe or lock could not be used.
#[derive(Debug, thiserror::Error)]
pub enum RecipeDirError {
    /// There is no such file.
    #[error("no recipe at {}: expected a directory with a recipe.toml, or the file itself", path.display())]
    NoRecipe {
        /// What was asked for.
        path: PathBuf,
    },
    /// The recipe has never been locked.
    #[error("no lock at {}: run `kiln lock {}` first", path.display(), recipe.display())]
    NoLock {
        /// Where the lock would be.
        path: PathBuf,
        /// The recipe as the user named it.
        recipe: PathBuf,
    },
    /// The lock was made for other inputs or another environment.
    #[error("{}: made for other inputs or another environment than {} has now: run `kiln lock {}`", path.display(), recipe.join("recipe.toml").display(), recipe.display())]
    LockIsOlder {
        /// The lock.
        path: PathBuf,
        /// The recipe as the user named it.
        recipe: PathBuf,
    },
    /// The text is not a recipe or lock.
    #[error("in {}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Line and reason.
        source: RecipeError,
    },
    /// Larger than any recipe is.
    #[error("{} is larger than {} MiB: expected a recipe or a lock", path.display(), LARGEST >> 20)]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// Reading failed.
    #[error("reading {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Writing failed.
    #[error("writing {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl RecipeDirError {
    /// What sort of error it is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Write { .. } => Kind::Host,
            Self::NoRecipe { .. }
            | Self::NoLock { .. }
            | Self::LockIsOlder { .. }
            | Self::Malformed { .. }
            | Self::TooLarge { .. }
            | Self::Read { .. } => Kind::BadInput,
        }
    }
}

impl RecipeDir {
    /// Reads the recipe at `path`, a directory or a `recipe.toml`.
    pub fn open(path: &Path) -> Result<Self, RecipeDirError> {
        let missing = || RecipeDirError::NoRecipe { path: path.into() };
        let shown = if path.is_dir() { path.to_path_buf() } else { path.parent().ok_or_else(missing)?.to_path_buf() };
        let shown = if shown.as_os_str().is_empty() { PathBuf::from(".") } else { shown };
        let file = if path.is_dir() { path.join("recipe.toml") } else { path.to_path_buf() };
        let text = read(&file)?.ok_or_else(missing)?;
        let recipe = Recipe::parse(&text).map_err(|source| RecipeDirError::Malformed { path: file.clone(), source })?;
        let dir = fs::canonicalize(&shown).map_err(|source| RecipeDirError::Read { path: shown.clone(), source })?;
        Ok(Self { dir, shown, recipe })
    }

    /// Where the lock is.
    pub fn lock_path(&self) -> PathBuf {
        self.shown.join("recipe.lock")
    }

    /// The lock as it stands, whether or not it fits the recipe; `None` if there is none.
    pub fn lock_if_any(&self) -> Result<Option<Lock>, RecipeDirError> {
        let path = self.lock_path();
        let Some(text) = read(&path)? else { return Ok(None) };
        Lock::parse(&text).map(Some).map_err(|source| RecipeDirError::Malformed { path, source })
    }

    /// The lock, which must have been made for this recipe's inputs and environment.
    pub fn lock(&self) -> Result<Lock, RecipeDirError> {
        let path = self.lock_path();
        match self.lock_if_any()? {
            None => Err(RecipeDirError::NoLock { path, recipe: self.shown.clone() }),
            Some(lock) if lock.pins != self.recipe.pins() => {
                Err(RecipeDirError::LockIsOlder { path, recipe: self.shown.clone() })
            }
            Some(lock) => Ok(lock),
        }
    }

    /// Replaces the lock. After a crash there is the old one or the new one, whole.
    pub fn write_lock(&self, lock: &Lock) -> Result<(), RecipeDirError> {
        let path = self.lock_path();
        let write = || -> io::Result<()> {
            let mut file = tempfile::Builder::new().prefix(".recipe.lock.").tempfile_in(&self.dir)?;
            file.write_all(lock.print().as_bytes())?;
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
            file.as_file().set_permissions(mode)?;
            file.as_file().sync_all()?;
            file.persist(self.dir.join("recipe.lock"))?;
            // rename(2) is durable only once its directory is synced.
            fs::File::open(&self.dir)?.sync_all()
        };
        write().map_err(|source| RecipeDirError::Write { path, source })
    }
}

fn read(path: &Path) -> Result<Option<String>, RecipeDirError> {
    match fs::metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(RecipeDirError::Read { path: path.into(), source }),
        Ok(meta) if meta.len() > LARGEST => return Err(RecipeDirError::TooLarge { path: path.into() }),
        Ok(_) => {}
    }
    fs::read_to_string(path).map(Some).map_err(|source| RecipeDirError::Read { path: path.into(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "schema = 1\nname = \"a\"\nversion = \"1\"\nlicense = \"MIT\"\n[environment]\ndebian = { suite = \"bookworm\" }\n[build]\nscript = \"\"\n";

    #[test]
    fn a_misspelt_field_names_file_line_and_nearest() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("recipe.toml"), TEXT.replace("version", "versoin")).unwrap();
        let error = RecipeDir::open(dir.path()).unwrap_err();
        assert!(error.to_string().ends_with("recipe.toml"), "{error}");
        let RecipeDirError::Malformed { source, .. } = error else { panic!("{error}") };
        assert!(source.to_string().starts_with("line 3:"), "{source}");
        assert!(source.to_string().ends_with("did you mean \"version\"?"), "{source}");
    }

    #[test]
    fn a_recipe_without_a_lock_says_how_to_get_one() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("recipe.toml"), TEXT).unwrap();
        let error = RecipeDir::open(dir.path()).unwrap().lock().unwrap_err();
        assert!(error.to_string().contains("run `kiln lock"), "{error}");
        assert_eq!(error.kind(), Kind::BadInput);
    }

    #[test]
    fn a_missing_recipe_is_bad_input() {
        let error = RecipeDir::open(Path::new("/nonexistent/recipe")).unwrap_err();
        assert!(matches!(error, RecipeDirError::NoRecipe { .. }), "{error}");
    }
}
