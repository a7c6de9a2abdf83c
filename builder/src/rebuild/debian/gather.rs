//! What archives and mirrors have of a rebuild: indices, sources, references. What they do not have is named, all of it.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError};

use kiln_model::debian::changelog::Entry;
use kiln_model::lock::LockedFile;
use kiln_model::report::Missing;

use super::{ARCHITECTURE, DebianError, Planning, SourceFrom, Wish};
use crate::environment::{Deb, DebError};
use crate::fetch::{Archive, FetchError, Wanted, apt};
use crate::pin::debian::{Binary, Indices, PinError as IndexError, SourcesIndex, Trust};
use crate::rebuild::rebuilding::{RebuildError, Rebuilding};
use crate::rebuild::reference;

/// Bytes of a compressed changelog's text that are read.
const CHANGELOG_BYTES: u64 = 64 << 20;

/// A value, or what is missing to have it.
pub(super) type Had<T> = Result<T, Vec<Missing>>;

impl Planning<'_, '_, '_> {
    /// The source's files by name, all of what an archive has fetched at once, so that all that is missing is told.
    pub(super) fn files(&self, wish: &Wish<'_>) -> Result<Had<Vec<(String, PathBuf)>>, RebuildError> {
        let (source, given) = match &wish.source {
            SourceFrom::Archive(source) => (&source.files[..], None),
            SourceFrom::Files { files, .. } => (&[][..], Some(files.clone())),
        };
        let mut wants: Vec<Wanted> = match &wish.source {
            SourceFrom::Archive(from) => source.iter().map(|file| wanted(&from.archive, file)).collect(),
            SourceFrom::Files { .. } => Vec::new(),
        };
        let references = wish.published.values().filter(|(_, here)| here.is_none());
        wants.extend(references.filter_map(|(file, _)| file.wanted()));
        let title = wish.title();
        let what = |path: &str| match source.iter().any(|file| file.path == path) {
            true => format!("source {title}"),
            false => "reference".into(),
        };
        let files = match self.fetched(&wants, &what)? {
            Ok(files) => files,
            Err(missing) => return Ok(Err(missing)),
        };
        let names = source.iter().map(|file| base_name(&file.path).to_string());
        Ok(Ok(given.unwrap_or_else(|| names.zip(files).collect())))
    }

    /// The entry that the published binary-only rebuild put before the changelog, and its date.
    pub(super) fn published_entry(&self, references: &[&Binary]) -> Result<Had<(String, i64)>, RebuildError> {
        let mut last = None;
        for binary in references {
            let files = match self.fetched(&[wanted(&binary.archive, &binary.file)], &|_| "reference".into())? {
                Ok(files) => files,
                Err(missing) => return Ok(Err(missing)),
            };
            for file in files {
                if let Some(found) = entry_of(&Deb::open(&file).map_err(DebianError::from)?)? {
                    return Ok(Ok(found));
                }
            }
            last = Some(binary.file.path.clone());
        }
        Err(DebianError::NoEntry { file: last.unwrap_or_default() }.into())
    }

    pub(super) fn fetched(
        &self,
        wanted: &[Wanted],
        what: &dyn Fn(&str) -> String,
    ) -> Result<Had<Vec<PathBuf>>, RebuildError> {
        match self.rebuilding.builder.archives.pinned(wanted) {
            Ok(files) => Ok(Ok(files)),
            Err(error) => nowhere(error, what),
        }
    }

    /// The indices of the suites that are looked into: read by the first that asks, whom others wait for.
    pub(super) fn indices(&self) -> Result<Had<Arc<Indices>>, RebuildError> {
        let mut shared = self.rebuilding.indices.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(indices) = &*shared {
            return Ok(Ok(Arc::clone(indices)));
        }
        let read = self.indices_now()?.map(Arc::new);
        *shared = read.as_ref().ok().cloned();
        Ok(read)
    }

    fn indices_now(&self) -> Result<Had<Indices>, RebuildError> {
        let Rebuilding { builder, clock, keyrings, freshness, suites, .. } = self.rebuilding;
        let seen = builder.store.root().join("seen");
        let trust = Trust { keyrings, clock: *clock, seen: Some(&seen), freshness: *freshness };
        let named = match suites.is_empty() {
            true => apt::debian_suites(&crate::fetch::Host::current()),
            false => suites.clone(),
        };
        if named.is_empty() {
            return Err(DebianError::NoSuite.into());
        }
        match Indices::fetch(builder.archives, &named, ARCHITECTURE, SourcesIndex::Read, &trust) {
            Ok(indices) => Ok(Ok(indices)),
            Err(IndexError::Fetch { what, source }) => match reference::nowhere(&source) {
                Some(files) => Ok(Err(files.iter().map(|file| reference::missing(&what, file)).collect())),
                None => Err(self.pin_error(IndexError::Fetch { what, source }.into())),
            },
            Err(error) => Err(self.pin_error(error.into())),
        }
    }
}

/// Files that are nowhere as what is missing; any other failure as an error.
fn nowhere<T>(error: FetchError, what: &dyn Fn(&str) -> String) -> Result<Had<T>, RebuildError> {
    match reference::nowhere(&error) {
        Some(files) => Ok(Err(files.iter().map(|file| reference::missing(&what(&file.path), file)).collect())),
        None => Err(error.into()),
    }
}

/// The newest entry of the changelog that a package ships, if it is that of a binary-only rebuild.
fn entry_of(deb: &Deb) -> Result<Option<(String, i64)>, DebianError> {
    let mut found = None;
    deb.entries(None, &mut |entry, body| -> Result<(), DebError> {
        let path = String::from_utf8_lossy(&entry.path);
        let name = path.strip_prefix("usr/share/doc/").and_then(|rest| rest.split_once('/')).map(|(_, name)| name);
        // `changelog.Debian.amd64.gz`, or `changelog.amd64.gz` of a native package: dh_installchangelogs splits the entry off.
        let is_it = name.is_some_and(|name| name.starts_with("changelog.") && name.ends_with(".gz"));
        if is_it && found.is_none() {
            let mut text = Vec::new();
            let mut decoder = std::io::Read::take(flate2::read::MultiGzDecoder::new(body), CHANGELOG_BYTES);
            // One that cannot be read is not the one.
            if std::io::Read::read_to_end(&mut decoder, &mut text).is_ok() {
                let text = String::from_utf8_lossy(&text);
                let entry = Entry::newest(&text).ok().filter(Entry::is_binary_only);
                found = entry.map(|entry| (entry.text.to_string(), entry.date));
            }
        }
        Ok(())
    })?;
    Ok(found)
}

fn wanted(archive: &str, file: &LockedFile) -> Wanted {
    let archive = Archive::Debian(archive.into());
    Wanted { archive, path: file.path.clone(), size: Some(file.size), sha256: file.sha256 }
}

fn base_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}
