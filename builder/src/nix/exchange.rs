//! The stream of `nix-store --export`, out of the store and into it.
//!
//! There is no signature in it: whoever imports one trusts where it comes from. What can be checked is: derivations and sources lie
//! at paths that follow from their contents, and those that claim such a path without having it are refused.

use std::collections::BTreeSet;
use std::io::{self, BufReader, Read, Write};

use kiln_model::derivation::{Derivation, DerivationError};
use kiln_model::format::export::{self, ExportError, Extent, Trailer};
use kiln_model::store_path::StorePath;

use super::dump::{DumpError, dump};
use super::order::references_first;
use crate::exit::Kind;
use crate::store::{Arrival, PathInfo, Store, StoreError, TreeLimits};

/// More than any derivation has.
const LARGEST_DERIVATION: u64 = 256 << 20;

/// More than any text that an expression writes has; what is larger stays without an address.
const LARGEST_TEXT: u64 = 64 << 20;

/// Why paths could not be exported or imported.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    /// Not such a stream.
    #[error(transparent)]
    Stream(#[from] ExportError),
    /// An archive in the stream that is none.
    #[error("the archive after {after} paths")]
    Archive {
        /// How many came before.
        after: usize,
        /// What is wrong.
        source: StoreError,
    },
    /// A derivation that is none, or lies at another path.
    #[error("{path}")]
    Derivation {
        /// Where the stream says that it lies.
        path: StorePath,
        /// What is wrong.
        source: DerivationError,
    },
    /// A tree of the store cannot be read.
    #[error("exporting {path}")]
    Dump {
        /// Which.
        path: StorePath,
        /// Why.
        source: DumpError,
    },
    /// Paths that name each other.
    #[error("{path} and others name each other in a circle")]
    Circle {
        /// One of them.
        path: StorePath,
    },
    /// The stream cannot be written.
    #[error("writing the stream")]
    Write(#[source] io::Error),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl ExchangeError {
    /// Who has to act on it.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Stream(_) | Self::Circle { .. } => Kind::BadInput,
            Self::Archive { source: StoreError::Nar(_), .. } => Kind::BadInput,
            Self::Archive { source, .. } | Self::Store(source) => source.kind(),
            Self::Derivation { source, .. } if source.is_tampering() => Kind::Tampered,
            Self::Derivation { .. } => Kind::BadInput,
            Self::Dump { .. } | Self::Write(_) => Kind::Host,
        }
    }
}

/// Writes `paths`, each after what it names, to `out`. Only these: for their closure ask for it.
pub fn export(store: &Store, paths: &BTreeSet<StorePath>, out: &mut dyn Write) -> Result<(), ExchangeError> {
    store.hold(paths)?;
    let mut infos = std::collections::BTreeMap::new();
    for path in paths {
        let info = store.path_info(path)?.ok_or_else(|| StoreError::NotValid { path: path.clone() })?;
        infos.insert(path.clone(), info);
    }
    let references = infos.iter().map(|(path, info)| (path.clone(), info.references.clone())).collect();
    let ordered = references_first(&references).map_err(|path| ExchangeError::Circle { path: path.clone() })?;
    for path in ordered {
        let info = &infos[path];
        out.write_all(&export::print_another()).map_err(ExchangeError::Write)?;
        dump(&store.physical(path), out).map_err(|source| ExchangeError::Dump { path: path.clone(), source })?;
        let trailer =
            Trailer { path: path.clone(), references: info.references.clone(), deriver: info.deriver.clone() };
        out.write_all(&trailer.print()).map_err(ExchangeError::Write)?;
    }
    out.write_all(&export::print_end()).and_then(|()| out.flush()).map_err(ExchangeError::Write)
}

/// Reads a stream to its end and makes its paths valid, in its order. Those before a fault stay.
pub fn import(store: &Store, stream: &mut dyn Read) -> Result<Vec<PathInfo>, ExchangeError> {
    let mut stream = BufReader::with_capacity(256 << 10, stream);
    let mut imported = Vec::new();
    while export::another(&mut stream)? {
        let restored = store
            .restore(&mut Extent::of(&mut stream), TreeLimits::default())
            .map_err(|source| ExchangeError::Archive { after: imported.len(), source })?;
        let Trailer { path, references, deriver } = Trailer::read(&mut stream)?;
        let ca = match path.derivation_name() {
            Some(_) => Some(derivation_address(&path, restored.place())?),
            None => match source_address(&path, &references, &restored.nar_hash()) {
                Some(address) => Some(address),
                None => text_address(&path, &references, restored.place())?,
            },
        };
        let arrival = Arrival { path, references, deriver, ca, signatures: BTreeSet::new(), substituted: None };
        imported.push(store.register_restored(restored, arrival)?);
    }
    Ok(imported)
}

/// The address of a derivation, if it lies where its text says.
fn derivation_address(path: &StorePath, place: &std::path::Path) -> Result<String, ExchangeError> {
    let unread = |source| ExchangeError::Stream(ExportError::Io(source));
    let metadata = place.symlink_metadata().map_err(unread)?;
    if !metadata.is_file() || metadata.len() > LARGEST_DERIVATION {
        return Err(ExchangeError::Stream(ExportError::Malformed { what: "a derivation that is not a text" }));
    }
    let bytes = std::fs::read(place).map_err(unread)?;
    Derivation::parse_at(path, &bytes).map_err(|source| ExchangeError::Derivation { path: path.clone(), source })?;
    Ok(StorePath::text_address(&bytes))
}

/// The address of a text as `builtins.toFile` writes it, if the path is that of one with these contents.
fn text_address(
    path: &StorePath,
    references: &BTreeSet<StorePath>,
    place: &std::path::Path,
) -> Result<Option<String>, ExchangeError> {
    let unread = |source| ExchangeError::Stream(ExportError::Io(source));
    let metadata = place.symlink_metadata().map_err(unread)?;
    if !metadata.is_file() || metadata.len() > LARGEST_TEXT {
        return Ok(None);
    }
    let contents = std::fs::read(place).map_err(unread)?;
    let is_one = StorePath::text(path.name(), &contents, references).is_ok_and(|expected| expected == *path);
    Ok(is_one.then(|| StorePath::text_address(&contents)))
}

/// The address of a source, if the path is that of one with these contents.
fn source_address(
    path: &StorePath,
    references: &BTreeSet<StorePath>,
    nar_hash: &kiln_model::digest::NarHash,
) -> Option<String> {
    let name = path.name().parse().ok()?;
    (StorePath::source(&name, nar_hash, references) == *path).then(|| StorePath::source_address(nar_hash))
}
