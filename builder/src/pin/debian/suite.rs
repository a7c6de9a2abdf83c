//! One suite as a mirror has it: its signed index, and the indices that the signed index names.
//!
//! Nothing is read before a signature vouches for it: `InRelease` by the keyring, every index by size and digest from
//! `InRelease`. What is decompressed never grows past the size that was signed.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use jiff::Timestamp;
use kiln_model::digest::Digest;
use kiln_model::format::release::{ByHash, Release};
use kiln_model::lock;

use super::signature::{self, Keyring};
use super::{Freshness, PinError, Trust, seen};
use crate::exit::Kind;
use crate::fetch::{Archive, Archives, Wanted};

/// A signed index is some 150 kB.
const INRELEASE_BYTES: u64 = 16 << 20;
/// The largest index that is decompressed; Debian's are some 50 MB.
const INDEX_BYTES: u64 = 1 << 30;
/// What a decoder of xz may use: `xz -9` needs 65 MiB.
const XZ_MEMORY: u64 = 96 << 20;
/// How far a suite's date may be ahead of our clock.
const AHEAD: i64 = 24 * 60 * 60;

/// A suite that a signature vouches for.
#[derive(Debug)]
pub(super) struct SignedSuite {
    pub(super) entry: lock::Suite,
    pub(super) text: String,
    pub(super) notes: Vec<String>,
}

/// The logical archive of a suite: see [`kiln_model::recipe::Debian::suites`].
fn archive(suite: &str) -> &'static str {
    if suite.ends_with("-security") { "debian-security" } else { "debian" }
}

impl SignedSuite {
    /// Fetches a suite's signed index and decides whether to believe it.
    pub(super) fn fetch(
        archives: &dyn Archives,
        name: &str,
        keyring: &Keyring,
        trust: &Trust<'_>,
    ) -> Result<Self, PinError> {
        let archive = archive(name);
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-+._".contains(&b);
        if name.is_empty() || name.starts_with('.') || !name.bytes().all(plain) {
            return Err(PinError::SuiteName { found: name.into() });
        }
        let path = format!("dists/{name}/InRelease");
        let bytes =
            archives.unpinned(&Archive::Debian(archive.into()), &path, INRELEASE_BYTES).map_err(
                |source| match source.is_absent() {
                    true => PinError::UnknownSuite { archive, suite: name.into(), source },
                    false => PinError::Fetch { what: format!("the signed index of suite {name}"), source },
                },
            )?;
        let signed = signature::verify(&bytes, keyring, trust.clock)
            .map_err(|source| PinError::Untrusted { file: path.clone(), source })?;
        let release =
            Release::parse(&signed.text).map_err(|source| PinError::Release { file: path.clone(), source })?;
        if ![release.codename, release.suite].contains(&Some(name)) {
            return Err(PinError::WrongName {
                file: path,
                expected: name.into(),
                codename: release.codename.unwrap_or("none").into(),
                suite: release.suite.unwrap_or("none").into(),
            });
        }
        let date = check_dates(&path, archive, name, &release, trust)?;
        let entry = lock::Suite {
            archive: archive.into(),
            name: name.into(),
            date: date.to_string(),
            inrelease: Digest::of(&bytes),
            signed_by: signed.signed_by,
        };
        let notes = signed.notes.into_iter().map(|note| format!("{path}: {note}")).collect();
        Ok(Self { entry, text: signed.text, notes })
    }

    /// The signed text, parsed.
    pub(super) fn release(&self) -> Release<'_> {
        Release::parse(&self.text).expect("it was parsed when it was fetched")
    }

    /// The text of an index: `Packages` or `Sources` in a directory of the suite (`main/binary-amd64`).
    pub(super) fn index(&self, archives: &dyn Archives, directory: &str, index: &str) -> Result<String, PinError> {
        let (release, suite) = (self.release(), &self.entry.name);
        let names = [(Coding::Xz, ".xz"), (Coding::Gzip, ".gz"), (Coding::None, "")];
        let listed = names.into_iter().find_map(|(coding, end)| {
            let path = format!("{directory}/{index}{end}");
            Some((coding, *release.files.get(path.as_str())?, path))
        });
        let Some((coding, listed, path)) = listed else {
            return Err(PinError::NoIndex { suite: suite.clone(), index: format!("{directory}/{index}") });
        };
        let path = format!("dists/{suite}/{path}");
        let file = self.fetch_index(archives, &release, directory, listed.sha256, listed.size, &path)?;
        let whole = release.files.get(format!("{directory}/{index}").as_str());
        let limit = whole.map_or(INDEX_BYTES, |whole| whole.size.min(INDEX_BYTES));
        let bytes = read(&file, coding, limit).map_err(|source| PinError::Unreadable { file: path.clone(), source })?;
        if let Some(whole) = whole.filter(|whole| whole.size != bytes.len() as u64) {
            return Err(PinError::WrongLength { file: path, expected: whole.size, found: bytes.len() as u64 });
        }
        String::from_utf8(bytes).map_err(|e| {
            let source = kiln_model::format::control::text(e.as_bytes()).err();
            let source = source.expect("what is not UTF-8 is refused").into();
            PinError::Index { file: path, source }
        })
    }

    /// By digest where the suite offers that, by name where the mirror does not have it so (a plain directory).
    fn fetch_index(
        &self,
        archives: &dyn Archives,
        release: &Release<'_>,
        directory: &str,
        sha256: Digest,
        size: u64,
        path: &str,
    ) -> Result<std::path::PathBuf, PinError> {
        let one = |path: String| {
            let archive = Archive::Debian(self.entry.archive.clone());
            let files = archives.pinned(&[Wanted { archive, path, size: Some(size), sha256 }])?;
            Ok(files.into_iter().next().expect("as many files as were wanted"))
        };
        let first = match release.by_hash {
            ByHash::Yes => match one(format!("dists/{}/{directory}/by-hash/SHA256/{sha256}", self.entry.name)) {
                Ok(file) => return Ok(file),
                Err(error) => Some(error),
            },
            ByHash::No => None,
        };
        one(path.into()).map_err(|second: crate::fetch::FetchError| {
            let tampered = |e: &crate::fetch::FetchError| e.kind() == Kind::Tampered;
            let source = first.filter(|first| tampered(first) && !tampered(&second)).unwrap_or(second);
            PinError::Fetch { what: format!("index {path}"), source }
        })
    }
}

fn check_dates(
    file: &str,
    archive: &str,
    suite: &str,
    release: &Release<'_>,
    trust: &Trust<'_>,
) -> Result<Timestamp, PinError> {
    let parse = |field: &'static str, text: &str| {
        date(text).ok_or_else(|| PinError::NotADate { file: file.into(), field, found: text.into() })
    };
    let date = parse("Date", release.date)?;
    if date.as_second() > trust.clock.as_second() + AHEAD {
        return Err(PinError::FromTheFuture { file: file.into(), date, clock: trust.clock });
    }
    if let Some(until) = release.valid_until {
        let until = parse("Valid-Until", until)?;
        if until < trust.clock && trust.freshness == Freshness::Required {
            return Err(PinError::Expired { file: file.into(), until, clock: trust.clock });
        }
    }
    if let Some(directory) = trust.seen {
        let before = seen::read(directory, archive, suite)?;
        if let Some(newest) = before.filter(|newest| *newest > date && trust.freshness == Freshness::Required) {
            return Err(PinError::Older { file: file.into(), date, newest });
        }
        seen::raise(directory, archive, suite, date)?;
    }
    Ok(date)
}

/// A date as in mail. Debian writes the zone as `UTC`, which mail does not know.
fn date(text: &str) -> Option<Timestamp> {
    let text = match text.strip_suffix("UTC") {
        Some(text) => format!("{text}+0000"),
        None => text.into(),
    };
    jiff::fmt::rfc2822::parse(&text).ok().map(|zoned| zoned.timestamp())
}

#[derive(Debug, Clone, Copy)]
enum Coding {
    Xz,
    Gzip,
    None,
}

/// The file's content, at most `limit` bytes of it: one more is an error.
fn read(path: &Path, coding: Coding, limit: u64) -> io::Result<Vec<u8>> {
    let file = io::BufReader::new(File::open(path)?);
    let mut reader: Box<dyn io::Read> = match coding {
        Coding::Xz => {
            let stream = liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY, liblzma::stream::CONCATENATED)?;
            Box::new(liblzma::bufread::XzDecoder::new_stream(file, stream))
        }
        Coding::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(file)),
        Coding::None => Box::new(file),
    };
    let mut bytes = Vec::with_capacity(usize::try_from(limit.min(64 << 20)).unwrap_or(0));
    reader.by_ref().take(limit).read_to_end(&mut bytes)?;
    if reader.read(&mut [0])? != 0 {
        return Err(io::Error::other(format!("it grows past {limit} bytes, more than was signed")));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_read_as_debian_writes_them() {
        let text = date("Sat, 11 Jul 2026 10:16:37 UTC").map(|date| date.to_string());
        assert_eq!(text.as_deref(), Some("2026-07-11T10:16:37Z"));
        assert!(date("yesterday").is_none());
    }
}
