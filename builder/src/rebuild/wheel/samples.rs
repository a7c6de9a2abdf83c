//! Wheels and an index for tests: small, sound unless asked otherwise, and made on the spot.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use data_encoding::BASE64URL_NOPAD;
use kiln_model::digest::Digest;
use serde_json::json;
use zip::write::SimpleFileOptions;
use zip::{DateTime, ZipWriter};

use crate::fetch::{Archive, Archives, FetchError, Unfetched, Wanted};

/// Files of a wheel, in order: path, bytes, hour and minute of their time on 2026-08-01.
pub(super) type Files = Vec<(String, Vec<u8>, (u8, u8))>;

/// The files of a sound wheel of `name` at `version`, written by `generator`.
pub(super) fn files(name: &str, version: &str, generator: &str, requires: &[&str]) -> Files {
    let directory = format!("{name}-{version}.dist-info");
    let mut metadata = format!("Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n");
    for requirement in requires {
        metadata.push_str(&format!("Requires-Dist: {requirement}\n"));
    }
    let wheel = format!("Wheel-Version: 1.0\nGenerator: {generator}\nRoot-Is-Purelib: true\nTag: py3-none-any\n");
    let mut files = vec![
        (format!("{name}/__init__.py"), b"pass\n".to_vec(), (12, 0)),
        (format!("{directory}/METADATA"), metadata.into_bytes(), (12, 0)),
        (format!("{directory}/WHEEL"), wheel.into_bytes(), (12, 0)),
    ];
    record(&mut files, &directory);
    files
}

/// Replaces `RECORD` by one that describes the other files.
pub(super) fn record(files: &mut Files, directory: &str) {
    let own = format!("{directory}/RECORD");
    files.retain(|(path, ..)| *path != own);
    let mut text = String::new();
    for (path, bytes, _) in files.iter() {
        let digest = BASE64URL_NOPAD.encode(Digest::of(bytes).as_bytes());
        text.push_str(&format!("{path},sha256={digest},{}\n", bytes.len()));
    }
    text.push_str(&format!("{own},,\n"));
    files.push((own, text.into_bytes(), (12, 0)));
}

/// Packs `files` at `path`.
pub(super) fn packed(path: &Path, files: &Files) {
    let mut writer = ZipWriter::new(fs::File::create(path).unwrap());
    for (name, bytes, (hour, minute)) in files {
        let time = DateTime::from_date_and_time(2026, 8, 1, *hour, *minute, 0).unwrap();
        writer.start_file(name.as_str(), SimpleFileOptions::default().last_modified_time(time)).unwrap();
        writer.write_all(bytes).unwrap();
    }
    writer.finish().unwrap();
}

/// An index in a directory, whose listings are made up.
pub(super) struct Shelf {
    pub(super) dir: tempfile::TempDir,
    listed: BTreeMap<String, Vec<serde_json::Value>>,
}

impl Shelf {
    pub(super) fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), listed: BTreeMap::new() }
    }

    /// Publishes a wheel on a day of 2026.
    pub(super) fn wheel(&mut self, name: &str, version: &str, day: &str, requires: &[&str]) -> &mut Self {
        self.listed_wheel(name, version, requires, &json!({"upload-time": format!("2026-{day}T00:00:00.5Z")}))
    }

    /// Publishes a wheel with these fields of its listing besides.
    pub(super) fn listed_wheel(
        &mut self,
        name: &str,
        version: &str,
        requires: &[&str],
        fields: &serde_json::Value,
    ) -> &mut Self {
        let file = format!("{name}-{version}-py3-none-any.whl");
        let path = self.dir.path().join(&file);
        packed(&path, &files(name, version, "hatchling 1.0", requires));
        let sha256 = Digest::of(fs::read(&path).unwrap()).to_string();
        let mut entry = json!({"filename": file, "url": file, "hashes": {"sha256": sha256}});
        entry.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        self.listed.entry(crate::fetch::listing::normalised(name)).or_default().push(entry);
        self
    }
}

fn nowhere(path: &str) -> FetchError {
    let file = Unfetched { archive: Archive::Pypi, path: path.into(), sha256: None, tries: Vec::new() };
    FetchError::Missing { files: vec![file], of: 1 }
}

impl Archives for Shelf {
    fn pinned(&self, wanted: &[Wanted]) -> Result<Vec<PathBuf>, FetchError> {
        let at = |wanted: &Wanted| Some(self.dir.path().join(&wanted.path)).filter(|path| path.is_file());
        wanted.iter().map(|wanted| at(wanted).ok_or_else(|| nowhere(&wanted.path))).collect()
    }

    fn judged(&self, address: &str, _: &mut crate::fetch::Judge<'_>) -> Result<(), FetchError> {
        Err(nowhere(address))
    }

    fn unpinned(&self, _: &Archive, path: &str, _: u64) -> Result<Vec<u8>, FetchError> {
        let files = self.listed.get(path).ok_or_else(|| nowhere(path))?;
        Ok(serde_json::to_vec(&json!({"files": files})).unwrap())
    }
}
