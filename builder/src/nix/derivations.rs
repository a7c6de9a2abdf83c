//! Derivations with all that they need, from the store, from beside a file, or from binary caches.
//!
//! Each is held against its own path when it is read, and its output paths against what they follow from once the inputs' are
//! known: a derivation that comes out of here is what its path says, all the way down.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use kiln_model::derivation::{Derivation, DerivationError, Modulo};
use kiln_model::name::Name;
use kiln_model::store_path::StorePath;

use super::error::CacheError;
use super::substitute::Substituter;
use crate::exit::Kind;
use crate::store::{Store, StoreError};

/// More than any derivation has.
const LARGEST: u64 = 256 << 20;

/// Why a derivation cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DerivationsError {
    /// A file cannot be read.
    #[error("reading {}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// More than any derivation has.
    #[error("{} is larger than {LARGEST} bytes", path.display())]
    TooLarge {
        /// Which.
        path: PathBuf,
    },
    /// A file whose name says nothing.
    #[error("{} is not called HASH-NAME.drv or NAME.drv", path.display())]
    FileName {
        /// Which.
        path: PathBuf,
    },
    /// Not in the store, and not beside the file.
    #[error("{path} is neither in the store nor beside the file that needs it{}", asked.also())]
    Unknown {
        /// Which.
        path: StorePath,
        /// Where else was looked.
        asked: Asked,
    },
    /// A cache is wrong about it.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// A derivation that is none, or not what it says.
    #[error("{shown}")]
    Derivation {
        /// Its path, or that of the file.
        shown: String,
        /// What is wrong.
        source: DerivationError,
    },
    /// An output of an input that the input does not have.
    #[error("{path} needs output {output} of {input}, which has no such output")]
    NoSuchOutput {
        /// Which derivation.
        path: StorePath,
        /// Which input.
        input: StorePath,
        /// Which output.
        output: Name,
    },
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Whether caches were asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// They were.
    Caches,
    /// There are none, or they are not for this.
    Nobody,
}

impl Asked {
    fn also(self) -> &'static str {
        match self {
            Self::Caches => ", and no cache has it",
            Self::Nobody => "",
        }
    }
}

impl DerivationsError {
    /// Who has to act on it.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Io { source, .. } if source.kind() != io::ErrorKind::NotFound => Kind::Host,
            Self::Derivation { source, .. } if source.is_tampering() => Kind::Tampered,
            Self::Store(error) => error.kind(),
            Self::Cache(error) => error.kind(),
            Self::Io { .. }
            | Self::TooLarge { .. }
            | Self::FileName { .. }
            | Self::Unknown { .. }
            | Self::Derivation { .. }
            | Self::NoSuchOutput { .. } => Kind::BadInput,
        }
    }
}

/// Derivations that were read and checked.
#[expect(missing_debug_implementations, reason = "caches may hold functions")]
pub struct Derivations<'s> {
    store: &'s Store,
    beside: Option<PathBuf>,
    caches: Option<&'s Substituter<'s>>,
    /// Those that came out of a cache.
    brought: BTreeSet<StorePath>,
    known: BTreeMap<StorePath, Derivation>,
    modulos: BTreeMap<StorePath, Modulo>,
    /// Each after those it needs.
    order: Vec<StorePath>,
}

impl<'s> Derivations<'s> {
    /// Those of `store`.
    pub fn of(store: &'s Store) -> Self {
        Self {
            store,
            beside: None,
            caches: None,
            brought: BTreeSet::new(),
            known: BTreeMap::new(),
            modulos: BTreeMap::new(),
            order: Vec::new(),
        }
    }

    /// The same, and those that `caches` have.
    pub fn asking(self, caches: Option<&'s Substituter<'s>>) -> Self {
        Self { caches, ..self }
    }

    /// Reads the derivation in `file`, and what it needs from beside it or from the store; its path.
    pub fn read_file(&mut self, file: &Path) -> Result<StorePath, DerivationsError> {
        let base = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let bytes = bounded(file)?;
        let shown = file.display().to_string();
        let refused = |source| DerivationsError::Derivation { shown: shown.clone(), source };
        let derivation = match (StorePath::from_base_name(base), base.strip_suffix(".drv")) {
            (Ok(path), Some(_)) => Derivation::parse_at(&path, &bytes).map_err(refused)?,
            (Err(_), Some(name)) => {
                let name = name.parse().map_err(|_| DerivationsError::FileName { path: file.into() })?;
                Derivation::parse(name, &bytes).map_err(refused)?
            }
            (_, None) => return Err(DerivationsError::FileName { path: file.into() }),
        };
        let path = derivation.path().map_err(refused)?;
        self.beside = file.parent().map(Path::to_owned);
        self.known.insert(path.clone(), derivation);
        self.read(&path)?;
        Ok(path)
    }

    /// Reads the derivation at `path` and all that it needs. Inputs come before what needs them, however deep: no recursion.
    pub fn read(&mut self, path: &StorePath) -> Result<&Derivation, DerivationsError> {
        let mut open = vec![path.clone()];
        let mut seen = BTreeSet::new();
        while let Some(here) = open.last().cloned() {
            if self.modulos.contains_key(&here) {
                open.pop();
                continue;
            }
            self.load(std::slice::from_ref(&here))?;
            let derivation = &self.known[&here];
            let needed: Vec<StorePath> = derivation
                .input_derivations
                .keys()
                .filter(|input| !self.modulos.contains_key(input))
                .cloned()
                .collect();
            // A second visit without its inputs would be a circle, which digests do not allow; then the check says so.
            if !needed.is_empty() && seen.insert(here.clone()) {
                // Together, because caches take a while to answer.
                self.load(&needed)?;
                open.extend(needed);
                continue;
            }
            self.check(&here)?;
            open.pop();
        }
        Ok(&self.known[path])
    }

    /// Takes a derivation that was just made; those it needs must have been taken before.
    pub fn take(&mut self, path: StorePath, derivation: Derivation) -> Result<(), DerivationsError> {
        self.known.insert(path.clone(), derivation);
        self.check(&path)
    }

    /// What is known so far.
    pub fn known(&self) -> &BTreeMap<StorePath, Derivation> {
        &self.known
    }

    /// What is known so far, each after those it needs.
    pub fn into_order(mut self) -> Vec<(StorePath, Derivation)> {
        let known = self.order.into_iter().filter_map(|path| self.known.remove_entry(&path));
        known.collect()
    }

    /// Adds all that is known to the store.
    pub fn add(&self) -> Result<(), DerivationsError> {
        self.add_those(|_| true)
    }

    /// Adds those that came out of caches to the store.
    pub fn keep_brought(&self) -> Result<(), DerivationsError> {
        self.add_those(|path| self.brought.contains(path))
    }

    fn add_those(&self, wanted: impl Fn(&StorePath) -> bool) -> Result<(), DerivationsError> {
        for (_, derivation) in self.known.iter().filter(|(path, _)| wanted(path)) {
            self.store.add_derivation(&derivation.name, &derivation.print())?;
        }
        Ok(())
    }

    fn check(&mut self, path: &StorePath) -> Result<(), DerivationsError> {
        let refused = |source| DerivationsError::Derivation { shown: path.to_string(), source };
        let derivation = &self.known[path];
        for (input, outputs) in &derivation.input_derivations {
            let has = self.known.get(input).map(|input| &input.outputs);
            if let Some(output) = outputs.iter().find(|output| has.is_some_and(|has| !has.contains_key(*output))) {
                let (path, input, output) = (path.clone(), input.clone(), output.clone());
                return Err(DerivationsError::NoSuchOutput { path, input, output });
            }
        }
        derivation.check(&self.modulos).map_err(refused)?;
        let modulo = derivation.modulo(&self.modulos).map_err(refused)?;
        if self.modulos.insert(path.clone(), modulo).is_none() {
            self.order.push(path.clone());
        }
        Ok(())
    }

    /// Reads those of `paths` that are not known yet.
    fn load(&mut self, paths: &[StorePath]) -> Result<(), DerivationsError> {
        let mut elsewhere = Vec::new();
        for path in paths {
            if self.known.contains_key(path) {
                continue;
            }
            match self.load_here(path)? {
                Some(derivation) => drop(self.known.insert(path.clone(), derivation)),
                None => elsewhere.push(path.clone()),
            }
        }
        let Some(unknown) = elsewhere.first() else { return Ok(()) };
        let Some(caches) = self.caches else {
            return Err(DerivationsError::Unknown { path: unknown.clone(), asked: Asked::Nobody });
        };
        let mut texts = caches.texts(&elsewhere, LARGEST)?;
        for path in elsewhere {
            let Some(text) = texts.remove(&path) else {
                return Err(DerivationsError::Unknown { path, asked: Asked::Caches });
            };
            let derivation = Derivation::parse_at(&path, &text)
                .map_err(|source| DerivationsError::Derivation { shown: path.to_string(), source })?;
            self.brought.insert(path.clone());
            self.known.insert(path, derivation);
        }
        Ok(())
    }

    fn load_here(&self, path: &StorePath) -> Result<Option<Derivation>, DerivationsError> {
        if self.store.path_info(path)?.is_some() {
            return Ok(Some(self.store.derivation(path)?));
        }
        let file = self.beside.as_ref().map(|directory| directory.join(path.base_name()));
        let Some(file) = file.filter(|file| file.is_file()) else { return Ok(None) };
        let derivation = Derivation::parse_at(path, &bounded(&file)?)
            .map_err(|source| DerivationsError::Derivation { shown: file.display().to_string(), source })?;
        Ok(Some(derivation))
    }
}

fn bounded(file: &Path) -> Result<Vec<u8>, DerivationsError> {
    let failed = |source| DerivationsError::Io { path: file.into(), source };
    let mut bytes = Vec::new();
    File::open(file).map_err(failed)?.take(LARGEST + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > LARGEST { Err(DerivationsError::TooLarge { path: file.into() }) } else { Ok(bytes) }
}
