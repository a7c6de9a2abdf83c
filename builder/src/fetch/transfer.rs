//! One file from one mirror, once.
//!
//! Never reads past the locked size, gives up what trickles, and leaves in the part only bytes that may be the beginning of
//! the file: after a wrong digest it is empty.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::time::{Duration, Instant};

use kiln_model::digest::Digest;
use url::Url;

use super::cache::{CHUNK, Part};
use super::http::{Client, Reply, while_reading};
use super::mirror::Origin;
use super::{Archive, FetchError, Refusal, Wanted, listing};
use crate::event::Task;

/// Why an attempt failed.
pub(super) enum Setback {
    /// The mirror's fault; how long it asks to be left alone.
    Refused(Refusal, Option<Duration>),
    /// Ours: no other mirror will help.
    Fatal(FetchError),
}

impl From<FetchError> for Setback {
    fn from(error: FetchError) -> Self {
        Self::Fatal(error)
    }
}

impl From<Refusal> for Setback {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal, None)
    }
}

/// Fewer bytes than this in a stall time is a stall: a server that sends a byte now and then holds up everything.
pub(super) const LEAST: u64 = 1024;

/// Gets what the part lacks; on success the part holds the wanted bytes.
pub(super) fn from_web(
    client: &Client,
    origin: Origin,
    url: &Url,
    wanted: &Wanted,
    part: &mut Part,
    largest: u64,
    task: &Task<'_>,
) -> Result<(), Setback> {
    if wanted.size.is_some_and(|size| part.length() >= size) {
        part.restart()?; // whole by length, wrong by digest
    }
    let resumed = part.length() > 0;
    let reply = client.get(origin, url, part.length(), "*/*")?;
    match reply.status {
        200 => part.restart()?,
        206 if resumed && reply.from == Some(part.length()) => {}
        // A range that the server does not have, or another than was asked for: from the beginning, then.
        206 | 416 if resumed => {
            part.restart()?;
            return Err(Refusal::CutShort(0).into());
        }
        _ => return Err(not_the_file(&reply)),
    }
    if let (Some(expected), Some(length)) = (wanted.size, reply.length)
        && part.length() + length != expected
    {
        let found = part.length() + length;
        part.restart()?;
        return Err(Refusal::WrongSize { found, expected }.into());
    }
    let limit = wanted.size.unwrap_or(largest);
    body(reply, part, limit, client.stall, task).map_err(|setback| match (setback, wanted.size) {
        (Setback::Refused(Refusal::TooLarge(_), wait), Some(expected)) => {
            Setback::Refused(Refusal::WrongSize { found: expected.saturating_add(1), expected }, wait)
        }
        (setback, _) => setback,
    })?;
    if wanted.size.is_some_and(|size| part.length() < size) {
        return Err(Refusal::CutShort(part.length()).into());
    }
    check(part, &wanted.sha256).map_err(|setback| match setback {
        // The beginning came from another transfer, perhaps from another mirror: this one gets a fair try.
        Setback::Refused(Refusal::WrongDigest(_), _) if resumed => Refusal::CutShort(0).into(),
        setback => setback,
    })
}

/// Gets a whole file of at most `largest` bytes, whatever is in it.
pub(super) fn any_from_web(
    client: &Client,
    origin: Origin,
    url: &Url,
    part: &mut Part,
    largest: u64,
    task: &Task<'_>,
) -> Result<(), Setback> {
    part.restart()?;
    let reply = client.get(origin, url, 0, "*/*")?;
    if reply.status != 200 {
        return Err(not_the_file(&reply));
    }
    let announced = reply.length;
    if announced.is_some_and(|length| length > largest) {
        return Err(Refusal::TooLarge(largest).into());
    }
    body(reply, part, largest, client.stall, task)?;
    match announced.is_some_and(|length| part.length() < length) {
        true => Err(Refusal::CutShort(part.length()).into()),
        false => Ok(()),
    }
}

fn check(part: &mut Part, sha256: &Digest) -> Result<(), Setback> {
    let found = part.digest();
    if found == *sha256 {
        return Ok(());
    }
    part.restart()?;
    Err(Refusal::WrongDigest(found).into())
}

fn body(mut reply: Reply, part: &mut Part, limit: u64, stall: Duration, task: &Task<'_>) -> Result<(), Setback> {
    let mut buffer = vec![0; CHUNK];
    let mut window = (Instant::now(), part.length());
    loop {
        let read = match reply.body.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(read) => read,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(while_reading(&e, part.length()).into()),
        };
        if part.length() + read as u64 > limit {
            part.restart()?;
            return Err(Refusal::TooLarge(limit).into());
        }
        part.write(&buffer[..read])?;
        task.advance(part.length());
        if window.0.elapsed() >= stall {
            if part.length() - window.1 < LEAST {
                return Err(Refusal::Stalled(part.length()).into());
            }
            window = (Instant::now(), part.length());
        }
    }
}

fn not_the_file(reply: &Reply) -> Setback {
    let refusal = match reply.status {
        404 => Refusal::Absent("404 Not Found".into()),
        410 => Refusal::Absent("410 Gone".into()),
        status => Refusal::Status(status),
    };
    Setback::Refused(refusal, reply.retry_after)
}

/// A file of a directory: at its path, or loose by its name.
pub(super) fn from_directory(
    directory: &Path,
    wanted: &Wanted,
    part: &mut Part,
    largest: u64,
    task: &Task<'_>,
) -> Result<Result<(), Refusal>, FetchError> {
    let (mut file, length) = match opened(directory, &wanted.archive, &wanted.path) {
        Ok(opened) => opened,
        Err(refusal) => return Ok(Err(refusal)),
    };
    if let Some(expected) = wanted.size.filter(|size| *size != length) {
        return Ok(Err(Refusal::WrongSize { found: length, expected }));
    }
    if let Err(refusal) = copied(&mut file, length, part, largest, task)? {
        return Ok(Err(refusal));
    }
    match check(part, &wanted.sha256) {
        Ok(()) => Ok(Ok(())),
        Err(Setback::Refused(refusal, _)) => Ok(Err(refusal)),
        Err(Setback::Fatal(error)) => Err(error),
    }
}

/// A file of a directory that has an address, whatever is in it.
pub(super) fn any_from_directory(
    directory: &Path,
    address: &str,
    part: &mut Part,
    largest: u64,
    task: &Task<'_>,
) -> Result<Result<(), Refusal>, FetchError> {
    match opened(directory, &Archive::Address, address) {
        Ok((mut file, length)) => copied(&mut file, length, part, largest, task),
        Err(refusal) => Ok(Err(refusal)),
    }
}

fn copied(
    file: &mut File,
    length: u64,
    part: &mut Part,
    largest: u64,
    task: &Task<'_>,
) -> Result<Result<(), Refusal>, FetchError> {
    if length > largest {
        return Ok(Err(Refusal::TooLarge(largest)));
    }
    part.restart()?;
    let mut buffer = vec![0; CHUNK];
    // At most the length that was checked, should the file grow meanwhile.
    let mut file = file.take(length);
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(Ok(())),
            Ok(read) => part.write(&buffer[..read])?,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => {
                part.restart()?;
                return Ok(Err(Refusal::Unreadable(format!("cannot be read: {}", e.kind()))));
            }
        }
        task.advance(part.length());
    }
}

fn opened(directory: &Path, archive: &Archive, path: &str) -> Result<(File, u64), Refusal> {
    // An address is looked for by its last part only, whatever follows it.
    let path = match archive {
        Archive::Address => path.split(['?', '#']).next().unwrap_or_default(),
        Archive::Debian(_) | Archive::Pypi => path,
    };
    let name = path.rsplit('/').next().unwrap_or(path);
    let archive_path = matches!(archive, Archive::Debian(_)).then(|| directory.join(path));
    for candidate in archive_path.into_iter().chain([directory.join(name)]) {
        let Ok(metadata) = std::fs::metadata(&candidate) else { continue };
        if metadata.is_file() {
            let opened = File::open(&candidate).and_then(|file| Ok((file.metadata()?.len(), file)));
            return match opened {
                Ok((length, file)) => Ok((file, length)),
                Err(e) => Err(Refusal::Unreadable(format!("cannot be read: {}", e.kind()))),
            };
        }
    }
    Err(Refusal::Absent(if directory.is_dir() { "no such file" } else { "no such directory" }.into()))
}

/// A small file that is not pinned yet, from a directory that is laid out as the archive is.
pub(super) fn small_file(directory: &Path, path: &str, limit: u64) -> Result<Vec<u8>, Refusal> {
    let (file, _) = opened(directory, &Archive::Debian(String::new()), path)?;
    bounded(file, limit)
}

fn bounded(file: File, limit: u64) -> Result<Vec<u8>, Refusal> {
    let mut bytes = Vec::new();
    file.take(limit.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(|e| Refusal::Unreadable(format!("cannot be read: {}", e.kind())))?;
    if bytes.len() as u64 > limit { Err(Refusal::TooLarge(limit)) } else { Ok(bytes) }
}

/// A small file that is not pinned yet, and the address that it came from in the end.
pub(super) fn small_web(
    client: &Client,
    origin: Origin,
    url: &Url,
    accept: &str,
    limit: u64,
) -> Result<(Url, Vec<u8>), Setback> {
    let mut reply = client.get(origin, url, 0, accept)?;
    if reply.status != 200 {
        return Err(not_the_file(&reply));
    }
    if reply.length.is_some_and(|length| length > limit) {
        return Err(Refusal::TooLarge(limit).into());
    }
    let mut bytes = Vec::new();
    let mut buffer = vec![0; CHUNK];
    let mut window = (Instant::now(), 0);
    loop {
        match reply.body.read(&mut buffer) {
            Ok(0) => return Ok((reply.url, bytes)),
            Ok(read) => bytes.extend_from_slice(&buffer[..read]),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(while_reading(&e, bytes.len() as u64).into()),
        }
        if bytes.len() as u64 > limit {
            return Err(Refusal::TooLarge(limit).into());
        }
        if window.0.elapsed() >= client.stall {
            if bytes.len() as u64 - window.1 < LEAST {
                return Err(Refusal::Stalled(bytes.len() as u64).into());
            }
            window = (Instant::now(), bytes.len() as u64);
        }
    }
}

/// What an index would list for a project, made from the loose files of a directory.
pub(super) fn listing_of_directory(directory: &Path, project: &str, limit: u64) -> Result<Vec<u8>, Refusal> {
    let entries = std::fs::read_dir(directory)
        .map_err(|e| Refusal::Absent(format!("the directory cannot be read: {}", e.kind())))?;
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| listing::project_and_version(name).is_some_and(|(of, _)| of == project))
        .collect();
    names.sort();
    let mut files = Vec::new();
    for name in &names {
        let (file, length) = opened(directory, &Archive::Pypi, name)?;
        let unreadable = |e: io::Error| Refusal::Unreadable(format!("cannot be read: {}", e.kind()));
        files.push((name.as_str(), digest_of(file).map_err(unreadable)?, length));
    }
    if files.is_empty() {
        return Err(Refusal::Absent("no file of this project".into()));
    }
    let listing = listing::print(files.into_iter());
    if listing.len() as u64 > limit { Err(Refusal::TooLarge(limit)) } else { Ok(listing) }
}

fn digest_of(mut file: File) -> io::Result<Digest> {
    use sha2::Digest as _;
    let mut hasher = sha2::Sha256::new();
    let mut buffer = vec![0; CHUNK];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(Digest::from_bytes(hasher.finalize().into())),
            Ok(read) => hasher.update(&buffer[..read]),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}
