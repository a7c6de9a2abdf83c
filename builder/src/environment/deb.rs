//! Reading a `.deb`: an `ar` of `debian-binary`, `control.tar*` and `data.tar*` (deb(5)).
//!
//! What is returned is bounded and well formed: entry paths are relative, without `..`, and no deeper than a NAR may
//! be; no devices, sparse files or PAX headers (dpkg reads none either). The layout of the `ar` is checked when opened,
//! so a file that was cut short is refused before anything is unpacked. The `ar` container is read here and not by the
//! `ar` crate, which forgives overflowing sizes and odd names. Knows nothing of trees, locks or databases.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use tar::EntryType;

// Named in full, since the fuzzers compile this file by its path (fuzz/kiln).
#[path = "deb/decoder.rs"]
mod decoder;

use decoder::{Bounded, Compression, Decoder, Overrun, Source, Uncopied};

/// Depth of paths: below the 64 levels at which Nix refuses a NAR.
const MAX_DEPTH: usize = 60;
/// Bytes of a path: `PATH_MAX`, limits.h(0p).
const MAX_PATH: usize = 4095;
/// Bytes of a component: `NAME_MAX`.
const MAX_NAME: usize = 255;
/// Entries of one archive; the largest packages of Debian have some 60,000.
const MAX_ENTRIES: u64 = 1 << 20;
/// Bytes of all control files together; Debian's largest are some 4 MiB of md5sums.
const MAX_CONTROL: u64 = 32 << 20;
/// Bytes that `data.tar` may expand to, however large the package.
const MAX_DATA: u64 = 32 << 30;
/// How often larger than its compressed form an archive may be, beyond [`FREE_EXPANSION`].
const MAX_RATIO: u64 = 1000;
/// Bytes that any archive may expand to.
const FREE_EXPANSION: u64 = 64 << 20;

/// Why a file is not a `.deb` that kiln unpacks.
#[derive(Debug, thiserror::Error)]
pub enum DebError {
    /// The host could not read it.
    #[error("reading {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the host said.
        #[source]
        source: io::Error,
    },
    /// The outer container is broken or incomplete.
    #[error("{} is not a complete .deb: {violation} at byte {offset}; fetch it again", path.display())]
    Container {
        /// The file.
        path: PathBuf,
        /// Where in it.
        offset: u64,
        /// What was found and what was expected.
        violation: String,
    },
    /// What was decoded could not be kept, which is no fault of the package's.
    #[error("{}: keeping a decoded copy", path.display())]
    Copy {
        /// The package.
        path: PathBuf,
        /// What the host said.
        #[source]
        source: io::Error,
    },
    /// A member cannot be decoded.
    #[error("{}: decoding {member}; fetch it again", path.display())]
    Decode {
        /// The file.
        path: PathBuf,
        /// Member of the container.
        member: String,
        /// What the decoder said.
        #[source]
        source: io::Error,
    },
    /// A member expands beyond all measure.
    #[error("{}: {member} expands to more than {limit} bytes; no package of Debian does", path.display())]
    Expands {
        /// The file.
        path: PathBuf,
        /// Member of the container.
        member: String,
        /// The bound.
        limit: u64,
    },
    /// An entry that must not be unpacked.
    #[error("{}: {member}: entry {entry:?}: {violation}", path.display())]
    Entry {
        /// The file.
        path: PathBuf,
        /// Member of the container.
        member: String,
        /// Name of the entry as it stands in the archive.
        entry: String,
        /// Which rule it breaks.
        violation: String,
    },
}

/// An opened `.deb` whose layout is sound.
#[derive(Debug)]
pub struct Deb {
    path: PathBuf,
    file: File,
    control: Member,
    data: Member,
}

/// A control file (`info/NAME.SUFFIX` in dpkg's database).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlFile {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Whether the owner may execute it.
    pub executable: Executable,
}

/// The one bit of a file's mode that survives in a NAR.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Executable {
    /// 0755.
    Yes,
    /// 0644.
    No,
}

/// An entry of `data.tar`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Relative, without `.` and `..`; empty for the root itself.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: EntryKind,
    /// When it was last modified, in seconds since 1970.
    pub modified: i64,
}

/// What an entry of `data.tar` is. Owners, set-id and permission bits are not kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntryKind {
    /// A directory.
    Directory,
    /// A regular file of `size` bytes.
    File {
        /// Its executable bit.
        executable: Executable,
        /// Its size.
        size: u64,
    },
    /// A symbolic link, which is never followed here.
    Symlink {
        /// Its text.
        target: Vec<u8>,
    },
    /// Another name of a file of this archive.
    HardLink {
        /// Normalised like [`Entry::path`].
        target: Vec<u8>,
    },
}

#[derive(Debug, Clone)]
struct Member {
    name: String,
    offset: u64,
    size: u64,
    compression: Compression,
}

const MAGIC: &[u8; 8] = b"!<arch>\n";
const HEADER: u64 = 60;

impl Deb {
    /// Opens a file and checks its layout to the last byte, without decoding anything.
    pub fn open(path: &Path) -> Result<Self, DebError> {
        let read = |source| DebError::Read { path: path.into(), source };
        let file = File::open(path).map_err(read)?;
        let length = file.metadata().map_err(read)?.len();
        let broken = |offset, violation: String| DebError::Container { path: path.into(), offset, violation };

        let mut magic = [0; 8];
        if length < 8 || file.read_exact_at(&mut magic, 0).is_err() || &magic != MAGIC {
            return Err(broken(0, "no ar magic".into()));
        }
        let (mut offset, mut control, mut data) = (8, None, None);
        let mut index = 0;
        while offset < length {
            if length - offset < HEADER {
                return Err(broken(offset, format!("{} bytes where a header has {HEADER}", length - offset)));
            }
            let mut header = [0; HEADER as usize];
            file.read_exact_at(&mut header, offset).map_err(read)?;
            let (name, size) = ar_header(&header).map_err(|violation| broken(offset, violation))?;
            let start = offset + HEADER;
            if size > length - start {
                return Err(broken(start, format!("{name} has {} of {size} bytes", length - start)));
            }
            let member = |suffix: &str| -> Result<Member, DebError> {
                let compression =
                    Compression::of(suffix).ok_or_else(|| broken(offset, format!("unknown compression of {name}")))?;
                Ok(Member { name: name.clone(), offset: start, size, compression })
            };
            match (index, &control, &data) {
                (0, ..) => {
                    let mut version = vec![0; size.min(64) as usize];
                    file.read_exact_at(&mut version, start).map_err(read)?;
                    if name != "debian-binary" || !version.starts_with(b"2.") || !version.ends_with(b"\n") {
                        return Err(broken(offset, "first member is not debian-binary of format 2".into()));
                    }
                }
                // deb(5): names that begin with an underscore may stand anywhere after the first and are ignored.
                (..) if name.starts_with('_') => {}
                (_, None, _) => match name.strip_prefix("control.tar") {
                    Some(suffix) => control = Some(member(suffix)?),
                    None => return Err(broken(offset, format!("member {name} where control.tar is expected"))),
                },
                (_, Some(_), None) => match name.strip_prefix("data.tar") {
                    Some(suffix) => data = Some(member(suffix)?),
                    None => return Err(broken(offset, format!("member {name} where data.tar is expected"))),
                },
                (_, Some(_), Some(_)) => return Err(broken(offset, format!("member {name} after data.tar"))),
            }
            offset = start + size + size % 2;
            index += 1;
        }
        match (control, data) {
            (Some(control), Some(data)) => Ok(Self { path: path.into(), file, control, data }),
            (None, _) => Err(broken(length, "end of file where control.tar is expected".into())),
            (Some(_), None) => Err(broken(length, "end of file where data.tar is expected".into())),
        }
    }

    /// The files of `control.tar` by name.
    pub fn control(&self) -> Result<BTreeMap<String, ControlFile>, DebError> {
        let mut files = BTreeMap::new();
        let limit = self.control.limit().min(MAX_CONTROL);
        self.walk(&self.control, limit, None, &mut |entry, body| {
            let refuse = |violation: &str| self.refused(&self.control, &entry.path, violation);
            match entry.kind {
                EntryKind::Directory if entry.path.is_empty() => Ok(()),
                EntryKind::File { executable, .. } => {
                    let name = String::from_utf8(entry.path.clone())
                        .ok()
                        .filter(|name| name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.+".contains(&b)))
                        .ok_or_else(|| refuse("is not the name of a control file"))?;
                    let mut bytes = Vec::new();
                    body.read_to_end(&mut bytes).map_err(|source| self.undecodable(&self.control, limit, source))?;
                    if files.insert(name, ControlFile { bytes, executable }).is_some() {
                        return Err(refuse("stands there twice"));
                    }
                    Ok(())
                }
                _ => Err(refuse("is no regular file")),
            }
        })?;
        Ok(files)
    }

    /// Calls `visit` for each entry of `data.tar`, in its order, with the bytes of files. `copy` receives the decoded
    /// archive, so that it need not be decoded again.
    pub fn entries<E: From<DebError>>(
        &self,
        copy: Option<&mut dyn Write>,
        visit: &mut dyn FnMut(Entry, &mut dyn Read) -> Result<(), E>,
    ) -> Result<(), E> {
        self.walk(&self.data, self.data.limit(), copy, visit)
    }

    /// The bytes of the container up to the header of `data.tar`.
    pub(super) fn head(&self) -> Result<Vec<u8>, DebError> {
        let mut head = vec![0; (self.data.offset - HEADER) as usize];
        self.file.read_exact_at(&mut head, 0).map_err(|source| DebError::Read { path: self.path.clone(), source })?;
        Ok(head)
    }

    /// Size of the container, which is what decoding it costs.
    pub(super) fn size(&self) -> u64 {
        self.data.offset + self.data.size
    }

    fn walk<E: From<DebError>>(
        &self,
        member: &Member,
        limit: u64,
        copy: Option<&mut dyn Write>,
        visit: &mut dyn FnMut(Entry, &mut dyn Read) -> Result<(), E>,
    ) -> Result<(), E> {
        let undecodable = |source| self.undecodable(member, limit, source);
        let decoder = Decoder::new(self.bytes_of(member)?, member.compression).map_err(undecodable)?;
        let mut archive = tar::Archive::new(Bounded { inner: decoder, copy, count: 0, limit });
        // Where the last entry ends: what follows must be the end mark and nothing else.
        let (mut end, mut entries) = (0, 0_u64);
        let (mut long_name, mut long_link) = (None, None);
        for raw in archive.entries().map_err(undecodable)?.raw(true) {
            let mut raw = raw.map_err(undecodable)?;
            let size = raw.size();
            end = raw.raw_file_position().saturating_add(size).next_multiple_of(512);
            let declared = raw.header().entry_type();
            if matches!(declared, EntryType::GNULongName | EntryType::GNULongLink) {
                let mut text = Vec::new();
                (&mut raw).take(MAX_PATH as u64 + 2).read_to_end(&mut text).map_err(undecodable)?;
                text.truncate(text.iter().position(|b| *b == 0).unwrap_or(text.len()));
                let long = if declared == EntryType::GNULongName { &mut long_name } else { &mut long_link };
                *long = Some(text);
                continue;
            }
            let name = long_name.take().unwrap_or_else(|| raw.header().path_bytes().into_owned());
            let link = long_link.take().or_else(|| raw.header().link_name_bytes().map(Cow::into_owned));
            let link = link.unwrap_or_default();
            let refuse = |violation: &str| self.refused(member, &name, violation);
            entries += 1;
            if entries > MAX_ENTRIES {
                return Err(refuse("is one too many").into());
            }
            let kind = match declared {
                EntryType::Directory => EntryKind::Directory,
                EntryType::Regular | EntryType::Continuous => {
                    let mode = raw.header().mode().map_err(|_| refuse("its mode is no number"))?;
                    let executable = if mode & 0o100 == 0 { Executable::No } else { Executable::Yes };
                    EntryKind::File { executable, size }
                }
                EntryType::Symlink => {
                    let target = link;
                    if target.is_empty() || target.len() > MAX_PATH || target.contains(&0) {
                        return Err(refuse("is a symbolic link without a possible target").into());
                    }
                    EntryKind::Symlink { target }
                }
                EntryType::Link => {
                    let target = normalise(&link)
                        .map_err(|violation| refuse(&format!("is a hard link whose target {violation}")))?;
                    EntryKind::HardLink { target }
                }
                EntryType::Char | EntryType::Block | EntryType::Fifo => {
                    return Err(refuse("is a device or pipe, which a package never needs to build").into());
                }
                EntryType::GNUSparse => return Err(refuse("is a sparse file, which no .deb may hold").into()),
                EntryType::XHeader | EntryType::XGlobalHeader => {
                    return Err(refuse("is a PAX header, which no .deb may hold (deb(5))").into());
                }
                other => return Err(refuse(&format!("is of unknown kind {:?}", other.as_byte() as char)).into()),
            };
            if size != 0 && !matches!(kind, EntryKind::File { .. }) {
                return Err(refuse("has bytes but is no file").into());
            }
            let path = normalise(&name).map_err(|violation| refuse(&violation))?;
            let modified = raw.header().mtime().ok().and_then(|seconds| i64::try_from(seconds).ok());
            let modified = modified.ok_or_else(|| self.refused(member, &name, "its time is no number"))?;
            visit(Entry { path, kind, modified }, &mut raw)?;
        }
        let mut rest = archive.into_inner();
        // To the end, so that checksums of the compressed form are checked and the copy is whole.
        let mut block = [0; 4096];
        loop {
            match rest.read(&mut block).map_err(undecodable)? {
                0 => break,
                n if block[..n].iter().all(|b| *b == 0) => {}
                _ => return Err(undecodable(io::Error::other("bytes after the end mark of the archive")).into()),
            }
        }
        // Two blocks of zeros, of which `tar` looks for one at most.
        if rest.count < end + 1024 {
            let source = io::Error::new(io::ErrorKind::UnexpectedEof, "the archive has no end mark");
            return Err(undecodable(source).into());
        }
        match rest.inner.is_exhausted().map_err(undecodable)? {
            true => Ok(()),
            false => Err(undecodable(io::Error::other("bytes after the compressed archive")).into()),
        }
    }

    fn bytes_of(&self, member: &Member) -> Result<Source, DebError> {
        let read = |source| DebError::Read { path: self.path.clone(), source };
        // A description of its own: `try_clone` would share the offset with other readers of this `Deb`.
        let mut file = File::open(&self.path).map_err(read)?;
        file.seek(SeekFrom::Start(member.offset)).map_err(read)?;
        Ok(BufReader::with_capacity(64 << 10, file.take(member.size)))
    }

    fn undecodable(&self, member: &Member, limit: u64, source: io::Error) -> DebError {
        let (path, member) = (self.path.clone(), member.name.clone());
        let source = match source.downcast::<Uncopied>() {
            Ok(Uncopied(source)) => return DebError::Copy { path, source },
            Err(source) => source,
        };
        match source.get_ref().is_some_and(|e| e.is::<Overrun>()) {
            true => DebError::Expands { path, member, limit },
            false => DebError::Decode { path, member, source },
        }
    }

    fn refused(&self, member: &Member, entry: &[u8], violation: &str) -> DebError {
        DebError::Entry {
            path: self.path.clone(),
            member: member.name.clone(),
            entry: String::from_utf8_lossy(entry).into_owned(),
            violation: violation.into(),
        }
    }
}

impl Member {
    fn limit(&self) -> u64 {
        MAX_DATA.min(self.size.saturating_mul(MAX_RATIO).saturating_add(FREE_EXPANSION))
    }
}

/// Name and size from a member's header, ar(5).
fn ar_header(header: &[u8; HEADER as usize]) -> Result<(String, u64), String> {
    if &header[58..60] != b"`\n" {
        return Err("no end mark of a member's header".into());
    }
    let name = header[..16].trim_ascii_end();
    let name = name.strip_suffix(b"/").unwrap_or(name);
    let plain = |b: &u8| b.is_ascii_graphic() && *b != b'/';
    if name.is_empty() || !name.iter().all(plain) {
        return Err(format!("impossible member name {:?}", String::from_utf8_lossy(name)));
    }
    let size = header[48..58].trim_ascii_end();
    let digits = !size.is_empty() && size.iter().all(u8::is_ascii_digit);
    let name = String::from_utf8_lossy(name).into_owned();
    match std::str::from_utf8(size).ok().filter(|_| digits).and_then(|size| size.parse().ok()) {
        Some(size) => Ok((name, size)),
        None => Err(format!("impossible size {:?} of {name}", String::from_utf8_lossy(size))),
    }
}

/// A relative path without `.`, `..` and empty components, or what is wrong with it.
fn normalise(name: &[u8]) -> Result<Vec<u8>, String> {
    if name.starts_with(b"/") {
        return Err("is absolute".into());
    }
    if name.len() > MAX_PATH {
        return Err(format!("is longer than {MAX_PATH} bytes"));
    }
    let mut path: Vec<u8> = Vec::with_capacity(name.len());
    let mut depth = 0;
    for component in name.split(|b| *b == b'/') {
        match component {
            b"" | b"." => continue,
            b".." => return Err("climbs out with '..'".into()),
            // dpkg's lists have one path a line.
            _ if component.iter().any(|b| *b == 0 || *b == b'\n') => return Err("holds a NUL or a line break".into()),
            _ if component.len() > MAX_NAME => return Err(format!("has a name of more than {MAX_NAME} bytes")),
            _ => {}
        }
        depth += 1;
        if depth > MAX_DEPTH {
            return Err(format!("is deeper than {MAX_DEPTH} directories"));
        }
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(component);
    }
    Ok(path)
}
