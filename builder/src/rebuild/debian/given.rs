//! Files on the command line: a source package (`.dsc`), a binary package (`.deb`), and what signs them.
//!
//! Bytes that are not what the file itself says (a digest, a signature) are tampering; a file that is not there makes the
//! rebuild inconclusive, and all that are not there are named at once.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use kiln_model::debian::build;
use kiln_model::debian::dependency::{self, DependencyError};
use kiln_model::debian::version::Version;
use kiln_model::digest::Digest;
use kiln_model::format::control::Stanzas;
use kiln_model::format::packages::{self, IndexError};
use kiln_model::format::sources;
use kiln_model::lock::Lock;
use kiln_model::report::Missing;
use sha2::{Digest as _, Sha256};

use super::{DebianError, Planning, SourceFrom, Wish};
use crate::environment::Deb;
use crate::exit::Kind;
use crate::pin::debian::{
    Binary, Indices, Keyring, KeyringError, PinError as IndicesError, SignatureError, Vouched, opened,
};
use crate::rebuild::plan::PlannedFile;
use crate::rebuild::rebuilding::{Planned, RebuildError};
use crate::rebuild::setting::Changelog;

/// The largest control file that is read.
const LARGEST: u64 = 32 << 20;
/// Keyrings of a Debian host that hold the keys of those who sign sources.
const DEVELOPERS: [&str; 3] = [
    "/usr/share/keyrings/debian-keyring.gpg",
    "/usr/share/keyrings/debian-nonupload.gpg",
    "/usr/share/keyrings/debian-maintainers.gpg",
];

/// Why a file on the command line cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum GivenError {
    /// It cannot be read.
    #[error("reading {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// Larger than any such file is.
    #[error("{} is larger than {limit} bytes: expected a .dsc or .buildinfo", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The bound.
        limit: u64,
    },
    /// Its signature does not hold.
    #[error("{}: its signature does not hold", path.display())]
    Signature {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: SignatureError,
    },
    /// Its signature cannot be read.
    #[error("{}: there is a signature that cannot be read; get the file again", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
    },
    /// It is no text.
    #[error("{} is not UTF-8 text: expected a .dsc or .buildinfo", path.display())]
    NotText {
        /// The file.
        path: PathBuf,
    },
    /// A keyring cannot be used.
    #[error(transparent)]
    Keyring(#[from] KeyringError),
    /// Its fields are not what they must be.
    #[error("in {}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Which field.
        source: IndexError,
    },
    /// A dependency in it cannot be read.
    #[error("in {}: {field}", path.display())]
    Dependency {
        /// The file.
        path: PathBuf,
        /// Which field.
        field: &'static str,
        /// Why not.
        source: DependencyError,
    },
    /// A file beside it has another size than it says.
    #[error("{} has {found} bytes, {} says {expected}", path.display(), by.display())]
    Size {
        /// The file.
        path: PathBuf,
        /// Who says so.
        by: PathBuf,
        /// As it says.
        expected: u64,
        /// As it is.
        found: u64,
    },
    /// A file beside it has another digest than it says.
    #[error("{}: sha256 is {found}, {} says {expected}", path.display(), by.display())]
    Digest {
        /// The file.
        path: PathBuf,
        /// Who says so.
        by: PathBuf,
        /// As it says.
        expected: Digest,
        /// As it is.
        found: Digest,
    },
    /// A package that does not say what it is.
    #[error("{}: its control file has no usable {field}", path.display())]
    Control {
        /// The file.
        path: PathBuf,
        /// Which field.
        field: &'static str,
    },
}

impl GivenError {
    /// What sort of error it is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Read { source, .. } if source.kind() == std::io::ErrorKind::NotFound => Kind::BadInput,
            Self::Read { .. } | Self::Keyring(KeyringError::Read { .. }) => Kind::Host,
            Self::TooLarge { .. }
            | Self::NotText { .. }
            | Self::Keyring(_)
            | Self::Malformed { .. }
            | Self::Dependency { .. }
            | Self::Control { .. } => Kind::BadInput,
            Self::Signature { .. } | Self::Unreadable { .. } | Self::Size { .. } | Self::Digest { .. } => {
                Kind::Tampered
            }
        }
    }
}

impl Planning<'_, '_, '_> {
    /// A source package on disk, held against what the archive publishes of it.
    pub(super) fn by_dsc(&self, path: &Path) -> Result<Planned, RebuildError> {
        let (text, note) = self.signed_text(path).map_err(DebianError::from)?;
        let title = |source: &sources::Source<'_>| format!("{} {}", source.name, source.version);
        let source = sources::dsc(&text)
            .map_err(|source| DebianError::from(GivenError::Malformed { path: path.into(), source }))?;
        let title = title(&source);
        let from = match source_beside(path, &source).map_err(DebianError::from)? {
            Ok(from) => from,
            Err(missing) => return Ok(self.inconclusive(title, missing)),
        };
        let indices = match self.indices()? {
            Ok(indices) => indices,
            Err(missing) => return Ok(self.inconclusive(title, missing)),
        };
        let binaries = self.binaries(&indices, source.name)?;
        let version = source.version.as_str();
        let of_version: Vec<&Binary> = binaries.iter().filter(|binary| binary.source_version == version).collect();
        let mut wish = Wish::new(path.display().to_string(), source.name, version, from);
        wish.notes.push(note);
        match self.with_references(wish, &of_version, self.rebuilding.settings.changelog, None)? {
            // The file stays what is asked for: only its own bytes are built.
            Ok(wish) => self.plan_of(&indices, Wish { target: path.display().to_string(), ..wish }),
            Err(missing) => Ok(self.inconclusive(title, missing)),
        }
    }

    /// A binary package on disk, and whatever else is published of its source.
    pub(super) fn by_deb(&self, path: &Path) -> Result<Planned, RebuildError> {
        let Control { name, version, architecture, source, source_version } =
            Control::of(path).map_err(RebuildError::from)?;
        let indices = match self.indices()? {
            Ok(indices) => indices,
            Err(missing) => return Ok(self.inconclusive(format!("{source} {source_version}"), missing)),
        };
        let title = format!("{source} {source_version}");
        let nothing = |what: String| vec![Missing { what, tries: Vec::new() }];
        let published = match indices.published(&source) {
            Ok(published) => published,
            Err(error @ IndicesError::UnknownSource { .. }) => {
                return Ok(self.inconclusive(title, nothing(error.to_string())));
            }
            Err(error) => return Err(self.pin_error(error.into())),
        };
        let Some(found) = published.sources.iter().find(|s| s.name == source && s.version == source_version) else {
            let what = format!("source {title} is in no index of {}", indices.suites().join(", "));
            return Ok(self.inconclusive(title, nothing(what)));
        };
        let digest = digest_of(path).map_err(DebianError::from)?;
        let file_name = build::deb_name(&name, &version, &architecture);
        let (changelog, number) = match build::is_binary_only(&version, &source_version) {
            true => (Changelog::Binnmu, build::binary_only(&version).map(|(_, number)| number)),
            false => (self.rebuilding.settings.changelog, None),
        };
        // The file itself is a reference, whether or not the archive has it too.
        let mut of_version: Vec<Binary> =
            published.binaries.iter().filter(|b| b.source_version == source_version).cloned().collect();
        let size = std::fs::metadata(path).map_err(|source| DebianError::from(read(path, source)))?.len();
        let is_it = |b: &Binary| (&b.name, &b.version, &b.architecture) == (&name, &version, &architecture);
        let other = of_version.iter().find(|b| is_it(b) && b.file.sha256 != digest).map(|b| b.file.sha256);
        if changelog == Changelog::AsIs && !of_version.iter().any(is_it) {
            of_version.push(Binary {
                name,
                version,
                architecture,
                source_version: source_version.clone(),
                archive: "debian".into(),
                file: kiln_model::lock::LockedFile { path: file_name.clone(), size, sha256: digest },
            });
        }
        let target = path.display().to_string();
        let wish = Wish::new(target.clone(), &source, &source_version, SourceFrom::Archive(found));
        let of_version: Vec<&Binary> = of_version.iter().collect();
        match self.with_references(wish, &of_version, changelog, number)? {
            Ok(mut wish) => {
                wish.target = target;
                let file = PlannedFile { sha256: digest, size: Some(size), at: None };
                wish.published.insert(file_name, (file, Some(path.into())));
                if let Some(sha256) = other {
                    wish.notes.push(format!("the archive publishes another file under this name (sha256 {sha256})"));
                }
                self.plan_of(&indices, wish)
            }
            Err(missing) => Ok(self.inconclusive(title, missing)),
        }
    }

    /// The binary packages of a source; none if no index knows it.
    pub(super) fn binaries(&self, indices: &Indices, source: &str) -> Result<Vec<Binary>, RebuildError> {
        match indices.published(source) {
            Ok(published) if published.name == source => Ok(published.binaries),
            Ok(_) | Err(IndicesError::UnknownSource { .. }) => Ok(Vec::new()),
            Err(error) => Err(self.pin_error(error.into())),
        }
    }

    /// The text of a file that people sign, and what is to be thought of its signature.
    pub(super) fn signed_text(&self, path: &Path) -> Result<(String, String), GivenError> {
        let file = std::fs::File::open(path).map_err(|source| read(path, source))?;
        let mut bytes = Vec::new();
        file.take(LARGEST + 1).read_to_end(&mut bytes).map_err(|source| read(path, source))?;
        if bytes.len() as u64 > LARGEST {
            return Err(GivenError::TooLarge { path: path.into(), limit: LARGEST });
        }
        let mut keyrings = self.rebuilding.keyrings.clone();
        keyrings.extend(DEVELOPERS.iter().map(PathBuf::from).filter(|path| path.is_file()));
        let keyring = Keyring::read(&keyrings)?;
        let opened = opened(&bytes, &keyring, self.rebuilding.clock).map_err(|source| match source {
            SignatureError::NotText => GivenError::NotText { path: path.into() },
            // What the reader of signatures says of one that it cannot read has all its bytes.
            SignatureError::Malformed { .. } => GivenError::Unreadable { path: path.into() },
            source => GivenError::Signature { path: path.into(), source },
        })?;
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let note = match opened.vouched {
            Vouched::By(keys) => format!("{name} is signed by {}", keys.join(", ")),
            Vouched::Unknown { why } => format!("nobody vouches for {name}: {why}"),
            Vouched::Unsigned => format!("nobody vouches for {name}: it is not signed"),
        };
        Ok((opened.text, note))
    }
}

/// What a package says of itself.
struct Control {
    name: String,
    version: String,
    architecture: String,
    source: String,
    source_version: String,
}

impl Control {
    fn of(path: &Path) -> Result<Self, DebianError> {
        let mut files = Deb::open(path)?.control()?;
        let bytes = files.remove("control").map(|file| file.bytes).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let mut stanzas = Stanzas::new(&text);
        let malformed = |source: IndexError| GivenError::Malformed { path: path.into(), source };
        let stanza = stanzas.next().map_err(|e| malformed(e.into()))?;
        let need = |field: &'static str| -> Result<&str, GivenError> {
            let value = stanza.and_then(|stanza| stanza.value(field)).filter(|value| !value.is_empty());
            value.ok_or_else(|| GivenError::Control { path: path.into(), field })
        };
        let (name, version, architecture) = (need("Package")?, need("Version")?, need("Architecture")?);
        let source = stanza.and_then(|stanza| stanza.value("Source")).unwrap_or("");
        let (source, source_version) = packages::source_package(source, name, version);
        let plain = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.~:".contains(&b));
        for (field, text) in
            [("Package", name), ("Version", version), ("Architecture", architecture), ("Source", source)]
        {
            if text.is_empty() || !plain(text) {
                return Err(GivenError::Control { path: path.into(), field }.into());
            }
        }
        Ok(Self {
            name: name.into(),
            version: version.into(),
            architecture: architecture.into(),
            source: source.into(),
            source_version: source_version.into(),
        })
    }
}

/// The files of a `.dsc`, which lie beside it, held against what it says of them; with what it needs.
pub(super) fn source_beside<'w>(
    dsc: &Path,
    source: &sources::Source<'_>,
) -> Result<Result<SourceFrom<'w>, Vec<Missing>>, GivenError> {
    let directory = dsc.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = dsc.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let mut files = vec![(name, dsc.to_path_buf())];
    let mut missing = Vec::new();
    for file in &source.files {
        let path = directory.join(file.name);
        match std::fs::metadata(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => missing.push(Missing {
                what: format!("source {} {}: {} (sha256 {})", source.name, source.version, file.name, file.sha256),
                tries: vec!["beside the .dsc: no such file".into()],
            }),
            Err(source) => return Err(read(&path, source)),
            Ok(meta) => {
                held(&path, dsc, meta.len(), file.size, file.sha256)?;
                files.push((file.name.into(), path));
            }
        }
    }
    if !missing.is_empty() {
        return Ok(Err(missing));
    }
    let mut depends = BTreeSet::from(["build-essential".to_string()]);
    for (field, text) in sources::BUILD_DEPENDS.into_iter().zip(source.build_depends) {
        dependency::parse(text).map_err(|source| GivenError::Dependency { path: dsc.into(), field, source })?;
        let clauses = text.split(',').map(|clause| clause.split_ascii_whitespace().collect::<Vec<_>>().join(" "));
        depends.extend(clauses.filter(|clause| !clause.is_empty()));
    }
    let build_depends = source.build_depends.map(str::to_string);
    let conflicts = source.build_conflicts.iter().map(|text| text.to_string()).collect();
    Ok(Ok(SourceFrom::Files { files, depends, build_depends, conflicts }))
}

/// Holds a file against the size and digest that `by` says it has.
pub(super) fn held(path: &Path, by: &Path, found: u64, expected: u64, sha256: Digest) -> Result<(), GivenError> {
    if found != expected {
        return Err(GivenError::Size { path: path.into(), by: by.into(), expected, found });
    }
    match digest_of(path)? {
        digest if digest == sha256 => Ok(()),
        found => Err(GivenError::Digest { path: path.into(), by: by.into(), expected: sha256, found }),
    }
}

pub(super) fn digest_of(path: &Path) -> Result<Digest, GivenError> {
    let mut file = std::fs::File::open(path).map_err(|source| read(path, source))?;
    let mut hasher = Sha256::new();
    let mut block = vec![0; 256 << 10];
    loop {
        match file.read(&mut block).map_err(|source| read(path, source))? {
            0 => return Ok(Digest::from_bytes(hasher.finalize().into())),
            n => hasher.update(&block[..n]),
        }
    }
}

pub(super) fn read(path: &Path, source: std::io::Error) -> GivenError {
    GivenError::Read { path: path.into(), source }
}

/// Refuses an environment that has what a source's `Build-Conflicts` name: a recipe of a source on disk cannot say them.
pub(super) fn refuse_conflicts(title: &str, conflicts: &[String], lock: &Lock) -> Result<(), DebianError> {
    let installed: BTreeMap<&str, &str> =
        lock.environment.packages.iter().map(|package| (package.name.as_str(), package.version.as_str())).collect();
    for field in conflicts {
        let clauses = dependency::parse(field).unwrap_or_default();
        for relation in dependency::applicable(clauses, &lock.environment.architecture, &[]).iter().flat_map(|c| &c.0) {
            let version = installed.get(relation.package).and_then(|version| Version::parse(version).ok());
            if installed.contains_key(relation.package) && relation.accepts(version) {
                return Err(DebianError::Conflict { title: title.into(), package: relation.package.into() });
            }
        }
    }
    Ok(())
}
