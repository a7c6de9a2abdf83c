//! The record beside each tree: what makes a path valid.
//!
//! A tree without a record is a leftover, whatever it holds. Records are written last and removed first; the index can be
//! made from them alone. One that was made in a turn (`turn`) bears its stamp: a second document in the same file.

use std::collections::BTreeSet;
use std::path::Path;

use kiln_model::digest::NarHash;
use kiln_model::outcome::Substituted;
use kiln_model::store_path::StorePath;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::error::{StoreError, failed};
use super::fingerprint::Fingerprint;
use super::turn::Stamp;

/// What is known of a valid path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PathInfo {
    /// The path.
    pub path: StorePath,
    /// Digest of its NAR.
    pub nar_hash: NarHash,
    /// Bytes of its NAR.
    pub nar_size: u64,
    /// Paths it names, itself included if it does.
    pub references: BTreeSet<StorePath>,
    /// The derivation whose build made it.
    pub deriver: Option<StorePath>,
    /// Its content address as a narinfo spells it, if the path follows from the contents.
    pub ca: Option<String>,
    /// Who vouched for it when it was substituted: lines as narinfos have them.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub signatures: BTreeSet<String>,
    /// Where it came from, if it was substituted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub substituted: Option<Substituted>,
    /// When it became valid, in seconds since the epoch.
    pub registered: i64,
    /// How it looked on disk when its digest was taken.
    pub fingerprint: Fingerprint,
}

/// What is known of a tree that is kept for an outcome.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TreeRecord {
    pub(super) nar_hash: NarHash,
    pub(super) nar_size: u64,
    pub(super) references: BTreeSet<StorePath>,
    pub(super) made: i64,
    pub(super) fingerprint: Fingerprint,
}

/// What is known of a materialised environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EnvironmentRecord {
    pub(super) nar_hash: NarHash,
    pub(super) made: i64,
    pub(super) fingerprint: Fingerprint,
    /// How it was made: [`FORM`]. One of an older kiln has another or none, and is made anew.
    #[serde(default)]
    pub(super) form: u32,
    /// Bytes of its NAR.
    #[serde(default)]
    pub(super) size: u64,
}

/// 1: files have the times that their packages give them, which a NAR does not hold. 2: configuration files wait for their
/// package's configuration, so that the same packages may make another tree.
pub(super) const FORM: u32 = 2;

/// Reads a record; `None` if there is none.
pub(super) fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, StoreError> {
    let bytes = match std::fs::read(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        bytes => bytes.map_err(failed("reading", path))?,
    };
    let (record, _) =
        parse(&bytes).map_err(|error| StoreError::Damaged { path: path.to_owned(), reason: error.to_string() })?;
    Ok(Some(record))
}

/// The stamp that a record bears.
pub(super) fn stamp(path: &Path) -> Result<Option<Stamp>, StoreError> {
    let bytes = std::fs::read(path).map_err(failed("reading", path))?;
    let (_, stamp) = parse::<serde::de::IgnoredAny>(&bytes)
        .map_err(|error| StoreError::Damaged { path: path.to_owned(), reason: error.to_string() })?;
    Ok(stamp)
}

/// A record, and the turn that made it if it bears a stamp.
pub(super) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> serde_json::Result<(T, Option<Stamp>)> {
    let mut documents = serde_json::Deserializer::from_slice(bytes);
    let record = T::deserialize(&mut documents)?;
    if documents.end().is_ok() {
        return Ok((record, None));
    }
    let stamp = Stamp::deserialize(&mut documents)?;
    documents.end()?;
    Ok((record, Some(stamp)))
}

/// The text of a record that a turn makes.
pub(super) fn print_stamped<T: Serialize>(record: &T, stamp: &Stamp) -> Vec<u8> {
    let mut text = print(record);
    text.push(b'\n');
    text.extend(print(stamp));
    text
}

/// A record's text.
pub(super) fn print<T: Serialize>(record: &T) -> Vec<u8> {
    serde_json::to_vec(record).expect("records have string keys only")
}

/// Seconds since the epoch.
pub(super) fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}
