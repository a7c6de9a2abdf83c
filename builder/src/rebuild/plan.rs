//! What one rebuild is, on disk: a directory with `recipe.toml`, `recipe.lock` and `rebuild.json`.
//!
//! The first two are a recipe like any other, which `kiln build` and `kiln check` take too. The third says what was published,
//! by digest. From the three the rebuild can be repeated without an index: all is pinned. A directory is written
//! elsewhere and renamed, and named by its contents: there is a whole one or none, and the same plan is the same directory.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use kiln_model::digest::Digest;
use kiln_model::lock::Lock;
use kiln_model::name;
use kiln_model::report::{EnvironmentKind, Rebuilt, VersionDiffers};
use serde::{Deserialize, Serialize};

use super::rebuilding::RebuildError;
use super::record::DebianBuild;
use crate::fetch::{Archive, Wanted};
use crate::pin::{PinError, Pinning, Scope};
use crate::recipe_dir::RecipeDir;

/// The only schema there is.
const SCHEMA: &str = "kiln/rebuild/v1";
/// The file beside recipe and lock.
const FILE: &str = "rebuild.json";
/// The files of a plan that say what is done.
pub(crate) const FILES: [&str; 3] = [FILE, "recipe.toml", "recipe.lock"];
/// Files that no archive has: those that were given on the command line.
const BESIDE: &str = "references";
/// The largest plan that is read: a mistaken path must not fill the memory.
const LARGEST: u64 = 16 << 20;

/// What was published, and what is told of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// `kiln/rebuild/v1`.
    pub schema: String,
    /// As it would be asked for again: `debian:hello=2.10-3`.
    pub target: String,
    /// In words: `hello 2.10-3`.
    pub title: String,
    /// Logical name of where the reference was published.
    pub origin: String,
    /// The published files, by name.
    pub published: BTreeMap<String, PlannedFile>,
    /// Settings other than the default, by name.
    #[serde(default)]
    pub settings: BTreeMap<String, String>,
    /// Of a Debian build: what its record needs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub debian: Option<DebianBuild>,
    /// Which environment the lock has.
    pub environment: EnvironmentKind,
    /// Where that is another than the publisher's.
    #[serde(default)]
    pub environment_differs: Vec<VersionDiffers>,
    /// What people should know besides.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// A published file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedFile {
    /// Digest of its bytes.
    pub sha256: Digest,
    /// Bytes, if known.
    #[serde(default)]
    pub size: Option<u64>,
    /// Logical archive, and path in it; absent if no archive is known to have it.
    #[serde(default)]
    pub at: Option<PlannedPlace>,
}

/// Where a file is published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedPlace {
    /// Logical archive, by its key in kiln's configuration: `debian`, `pypi`.
    pub archive: String,
    /// Path in it.
    pub path: String,
}

impl Plan {
    /// A plan for `target`, with no published file yet.
    pub fn new(target: String, title: String, origin: &str) -> Self {
        Self {
            schema: SCHEMA.into(),
            target,
            title,
            origin: origin.into(),
            published: BTreeMap::new(),
            settings: BTreeMap::new(),
            debian: None,
            environment: EnvironmentKind::Current,
            environment_differs: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// The plan in `directory`.
    pub fn open(directory: &Path) -> Result<Self, RebuildError> {
        let path = directory.join(FILE);
        let read = |source| RebuildError::Io { act: "reading", path: path.clone(), source };
        let malformed = |what: String| RebuildError::Plan { path: path.clone(), what };
        match fs::metadata(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Err(malformed("there is no such file: expected the directory of an earlier rebuild".into()));
            }
            Err(source) => return Err(read(source)),
            Ok(meta) if meta.len() > LARGEST => return Err(malformed(format!("is larger than {LARGEST} bytes"))),
            Ok(_) => {}
        }
        let plan: Self =
            serde_json::from_slice(&fs::read(&path).map_err(read)?).map_err(|e| malformed(e.to_string()))?;
        if plan.schema != SCHEMA {
            return Err(malformed(format!("schema {:?} is not known; this kiln reads {SCHEMA:?}", plan.schema)));
        }
        match plan.published.keys().find(|name| name.contains('/') || name.is_empty()) {
            Some(name) => Err(malformed(format!("published: {name:?} is not the name of a file"))),
            None => Ok(plan),
        }
    }

    /// What a report says of a rebuild by this plan before anything was built.
    pub fn rebuilt(&self) -> Rebuilt {
        Rebuilt {
            environment: self.environment,
            environment_differs: self.environment_differs.clone(),
            settings: self.settings.clone(),
            notes: self.notes.clone(),
            ..Rebuilt::new(self.target.clone())
        }
    }

    /// The file of that name which was given on the command line, if it was.
    pub fn beside(directory: &Path, name: &str) -> Option<PathBuf> {
        let path = directory.join(BESIDE).join(name);
        path.is_file().then_some(path)
    }
}

impl PlannedFile {
    /// What to fetch, if an archive has it.
    pub fn wanted(&self) -> Option<Wanted> {
        let at = self.at.as_ref()?;
        let archive = match at.archive.as_str() {
            "pypi" => Archive::Pypi,
            name => Archive::Debian(name.into()),
        };
        Some(Wanted { archive, path: at.path.clone(), size: self.size, sha256: self.sha256 })
    }
}

/// A directory for a plan that is being made; it is removed if it is not kept.
pub struct Draft {
    directory: tempfile::TempDir,
    parent: PathBuf,
}

impl Draft {
    /// An empty one in the store at `store`.
    pub fn new(store: &Path) -> Result<Self, RebuildError> {
        let parent = store.join("rebuilds");
        let made =
            fs::create_dir_all(&parent).and_then(|()| tempfile::Builder::new().prefix(".draft-").tempdir_in(&parent));
        let directory =
            made.map_err(|source| RebuildError::Io { act: "making a directory in", path: parent.clone(), source })?;
        Ok(Self { directory, parent })
    }

    /// Where it is: `recipe.toml` and `recipe.lock` are written here.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Writes a file.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<(), RebuildError> {
        let path = self.path().join(name);
        fs::write(&path, bytes).map_err(|source| RebuildError::Io { act: "writing", path, source })
    }

    /// Keeps a copy of a published file that was given on the command line.
    pub fn keep_beside(&self, name: &str, file: &Path) -> Result<(), RebuildError> {
        self.keep(BESIDE, name, file)
    }

    /// Keeps a copy of `file` as `name` in `directory`.
    pub fn keep(&self, directory: &str, name: &str, file: &Path) -> Result<(), RebuildError> {
        let directory = self.path().join(directory);
        let copy = || fs::create_dir_all(&directory).and_then(|()| fs::copy(file, directory.join(name)).map(drop));
        copy().map_err(|source| RebuildError::Io { act: "copying", path: file.into(), source })
    }

    /// Locks the recipe that was written, and writes the lock; what cannot be pinned is the inner error.
    pub fn locked(&self, pinning: &Pinning<'_, '_>) -> Result<Result<Lock, PinError>, RebuildError> {
        let recipe = RecipeDir::open(self.path())?;
        match pinning.lock(&recipe, None, &Scope::Everything) {
            Ok(lock) => {
                recipe.write_lock(&lock)?;
                Ok(Ok(lock))
            }
            Err(error) => Ok(Err(error)),
        }
    }

    /// Writes the plan beside recipe and lock, and gives the directory the name that follows from what is in it.
    pub fn finished(self, plan: &Plan) -> Result<PathBuf, RebuildError> {
        let json = serde_json::to_vec_pretty(plan).expect("strings and maps with string keys are always JSON");
        self.write(FILE, &json)?;
        let mut all = json;
        for name in &FILES[1..] {
            let path = self.path().join(name);
            all.extend(fs::read(&path).map_err(|source| RebuildError::Io { act: "reading", path, source })?);
        }
        let digest = Digest::of(&all).to_string();
        let title = name::sanitised(&plan.title.replace(' ', "_"));
        let into = self.parent.join(format!("{title}-{}", &digest[..12]));
        if into.is_dir() {
            return Ok(into);
        }
        let from = self.directory.keep();
        let placed = fs::set_permissions(&from, std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .and_then(|()| fs::rename(&from, &into));
        match placed {
            Ok(()) => Ok(into),
            // Another process was faster with the same: its directory is as good.
            Err(_) if into.is_dir() => {
                let _ = fs::remove_dir_all(&from);
                Ok(into)
            }
            Err(source) => Err(RebuildError::Io { act: "keeping", path: into, source }),
        }
    }
}
