//! Packages that a Debian host has installed, and which bytes each was, as far as that can be told.
//!
//! dpkg's database has name, version and architecture, and no digest of what was unpacked. That comes from apt's lists, else from
//! the package in apt's cache, else from what evidence calls by that name: always by name and version, and a package says
//! from where ([`Origin`]). Where several digests go by one name, all of them are candidates, and the worst decides. The lists are
//! believed as apt left them: apt checked their signatures, and who can change them could change dpkg's database, too.
//! Nothing here decides, and the installed files themselves are not looked at.

use std::collections::HashMap;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use kiln_model::digest::Digest;
use kiln_model::format::control::{self, ControlError, Stanzas};
use kiln_model::format::purl::{Purl, PurlError};
use kiln_model::format::status::{self, StatusError};
use kiln_model::statement::DigestSet;
use kiln_model::verify::{Claim, Evidence};
use serde::Serialize;

use crate::exit::Kind;
use crate::sbom::Root;

const STATUS: &str = "var/lib/dpkg/status";
const LISTS: &str = "var/lib/apt/lists";
const CACHE: &str = "var/cache/apt/archives";

/// dpkg's status: 256 MiB are some two hundred thousand packages.
const MOST_STATUS: u64 = 256 << 20;

/// One list of apt's, unpacked. Debian's largest has some 60 MB.
const MOST_LIST: u64 = 1 << 30;

/// A package that is installed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its architecture; `all` for any.
    pub architecture: String,
    /// Its package URL.
    pub purl: Purl,
    /// What it may have been, each once; none if nothing says.
    pub candidates: Vec<DigestSet>,
    /// What says so.
    pub origin: Option<Origin>,
}

/// Who links a package's name and version to a digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// apt's lists, which the archive signed.
    AptLists,
    /// The package that lies in apt's cache.
    AptCache,
    /// A rebuilder, who calls some bytes so.
    Evidence,
}

/// Why it cannot be said what is installed.
#[derive(Debug, thiserror::Error)]
pub enum InstalledError {
    /// No dpkg here.
    #[error("{} is not there: dpkg installed nothing below {}; name the root of a Debian host (--root)", root.join(STATUS).display(), root.display())]
    NoDatabase {
        /// The root file system.
        root: PathBuf,
    },
    /// A file that cannot be read.
    #[error("reading {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// dpkg's database.
    #[error("{}", path.display())]
    Status {
        /// Where it is.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: StatusError,
    },
    /// One of apt's lists.
    #[error("{}: not a list of packages; `apt-get update` fetches it anew", path.display())]
    List {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: ControlError,
    },
    /// A name that no package has.
    #[error("{}", path.display())]
    Name {
        /// dpkg's database.
        path: PathBuf,
        /// Why.
        #[source]
        source: PurlError,
    },
}

impl InstalledError {
    /// What sort of error it is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Read { .. } => Kind::Host,
            Self::NoDatabase { .. } | Self::Status { .. } | Self::List { .. } | Self::Name { .. } => Kind::BadInput,
        }
    }
}

/// The packages of the root file system at `place`, by name and architecture.
pub fn packages(place: &Path) -> Result<Vec<Package>, InstalledError> {
    let failed = |path: &str| {
        let path = place.join(path);
        move |source| InstalledError::Read { path, source }
    };
    let root = Root::open(place).map_err(failed(""))?;
    let bytes = root.read(STATUS, MOST_STATUS).map_err(failed(STATUS))?;
    let bytes = bytes.ok_or_else(|| InstalledError::NoDatabase { root: place.into() })?;
    let bad = |source| InstalledError::Status { path: place.join(STATUS), source };
    let mut present = control::text(&bytes).map_err(StatusError::from).and_then(status::read).map_err(bad)?;
    present.sort_unstable();
    let vendor = vendor(&root);
    let mut packages = Vec::with_capacity(present.len());
    for one in present {
        let purl = Purl::deb(&vendor, one.name, one.version, one.architecture)
            .map_err(|source| InstalledError::Name { path: place.join(STATUS), source })?;
        packages.push(Package {
            name: one.name.into(),
            version: one.version.into(),
            architecture: one.architecture.into(),
            purl,
            candidates: Vec::new(),
            origin: None,
        });
    }
    by_lists(&root, place, &mut packages)?;
    for package in packages.iter_mut().filter(|package| package.candidates.is_empty()) {
        // As apt names files: the colon of an epoch is escaped.
        let version = package.version.replace(':', "%3a");
        let path = format!("{CACHE}/{}_{version}_{}.deb", package.name, package.architecture);
        if let Some(file) = root.file(&path).map_err(failed(&path))? {
            let digest = digest(file).map_err(failed(&path))?;
            package.candidates.push(DigestSet::of(digest));
            package.origin = Some(Origin::AptCache);
        }
    }
    Ok(packages)
}

/// The distribution's name in package URLs, of the root file system at `place`.
pub fn vendor_of(place: &Path) -> Result<String, InstalledError> {
    let root = Root::open(place).map_err(|source| InstalledError::Read { path: place.into(), source })?;
    Ok(vendor(&root))
}

/// The distribution's name in package URLs: `ID` of os-release(5).
fn vendor(root: &Root) -> String {
    let text = ["etc/os-release", "usr/lib/os-release"].iter().find_map(|path| root.read(path, 64 << 10).ok()?);
    let text = String::from_utf8(text.unwrap_or_default()).unwrap_or_default();
    let id = text.lines().find_map(|line| line.strip_prefix("ID="));
    id.map(|id| id.trim().trim_matches(['"', '\''])).filter(|id| !id.is_empty()).unwrap_or("debian").into()
}

/// Takes digests from apt's lists.
fn by_lists(root: &Root, place: &Path, packages: &mut [Package]) -> Result<(), InstalledError> {
    let keys: Vec<[String; 3]> =
        packages.iter().map(|p| [p.name.clone(), p.version.clone(), p.architecture.clone()]).collect();
    let wanted: HashMap<[&str; 3], usize> =
        keys.iter().map(|key| key.each_ref().map(String::as_str)).zip(0..).collect();
    for name in root.names(LISTS).map_err(|source| InstalledError::Read { path: place.join(LISTS), source })? {
        let Some(coding) = Coding::of(&name) else { continue };
        let inside = format!("{LISTS}/{name}");
        let path = place.join(&inside);
        let read = || -> io::Result<Option<Vec<u8>>> {
            root.file(&inside)?.map(|file| coding.unpacked(file, MOST_LIST)).transpose()
        };
        let Some(bytes) = read().map_err(|source| InstalledError::Read { path: path.clone(), source })? else {
            continue;
        };
        let bad = |source| InstalledError::List { path: path.clone(), source };
        let mut stanzas = Stanzas::new(control::text(&bytes).map_err(bad)?);
        while let Some(stanza) = stanzas.next().map_err(bad)? {
            let (Some(name), Some(version), Some(architecture)) =
                (stanza.value("Package"), stanza.value("Version"), stanza.value("Architecture"))
            else {
                continue;
            };
            let Some(number) = wanted.get(&[name, version, architecture]) else { continue };
            let digest = stanza.value("SHA256").filter(|hex| hex.len() == 64).and_then(|hex| hex.parse().ok());
            if let Some(digest) = digest {
                packages[*number].may_be(DigestSet::of(digest), Origin::AptLists);
            }
        }
    }
    Ok(())
}

impl Package {
    fn may_be(&mut self, digests: DigestSet, origin: Origin) {
        if !self.candidates.contains(&digests) {
            self.candidates.push(digests);
        }
        self.origin = Some(origin);
    }

    /// As it is told: name, version, architecture.
    pub fn told(&self) -> String {
        format!("{} {} {}", self.name, self.version, self.architecture)
    }
}

/// Which digests evidence calls by the name of a package.
#[derive(Debug, Default)]
pub struct Called(HashMap<String, Vec<DigestSet>>);

impl Called {
    /// By statements that count and are about one thing: of several, it is not said which bears the name.
    pub fn by(evidence: &Evidence) -> Self {
        let mut called: HashMap<String, Vec<DigestSet>> = HashMap::new();
        for fact in evidence.facts() {
            let about = matches!(fact.claim, Claim::Built(_) | Claim::Compared(_)) && fact.failures.is_empty();
            let [subject] = &fact.subjects[..] else { continue };
            let Some(digest) = subject.sha256.filter(|_| about) else { continue };
            for purl in fact.purls.iter().filter_map(|purl| bare(&purl.parse().ok()?)) {
                let known = called.entry(purl).or_default();
                let digests = DigestSet::of(digest);
                if !known.contains(&digests) {
                    known.push(digests);
                }
            }
        }
        Self(called)
    }

    /// Gives the digests to those that have none from elsewhere.
    pub fn complete(&self, packages: &mut [Package]) {
        for package in packages.iter_mut().filter(|package| package.candidates.is_empty()) {
            let known = bare(&package.purl).and_then(|purl| self.0.get(&purl));
            for digests in known.into_iter().flatten() {
                package.may_be(digests.clone(), Origin::Evidence);
            }
        }
    }
}

/// A Debian package's URL with no more than what tells packages apart.
fn bare(purl: &Purl) -> Option<String> {
    let (version, architecture) = (purl.version()?, purl.qualifier("arch")?);
    let plain = Purl::deb(&purl.namespace(), purl.name(), version, architecture).ok()?;
    (purl.kind() == "deb").then(|| plain.to_string())
}

fn digest(mut file: impl Read) -> io::Result<Digest> {
    use sha2::Digest as _;
    let mut hash = sha2::Sha256::new();
    let mut buffer = vec![0; 256 << 10];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(Digest::from_bytes(hash.finalize().into())),
            read => hash.update(&buffer[..read]),
        }
    }
}

/// How apt keeps a list: as the archive had it, or as `Acquire::GzipIndexes` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Coding {
    Plain,
    Lz4,
    Gzip,
    Xz,
    Zstd,
    Bzip2,
}

impl Coding {
    /// Of a list of packages, by its file's name.
    fn of(name: &str) -> Option<Self> {
        let endings = [
            ("_Packages", Self::Plain),
            ("_Packages.lz4", Self::Lz4),
            ("_Packages.gz", Self::Gzip),
            ("_Packages.xz", Self::Xz),
            ("_Packages.zst", Self::Zstd),
            ("_Packages.bz2", Self::Bzip2),
        ];
        endings.into_iter().find(|(ending, _)| name.ends_with(ending)).map(|(_, coding)| coding)
    }

    /// All of it, at most `limit` bytes: one more is an error.
    fn unpacked(self, file: impl Read, limit: u64) -> io::Result<Vec<u8>> {
        let file = io::BufReader::new(file);
        let reader: Box<dyn Read + '_> = match self {
            Self::Plain => Box::new(file),
            Self::Lz4 => Box::new(lz4_flex::frame::FrameDecoder::new(file)),
            Self::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(file)),
            Self::Xz => Box::new(liblzma::bufread::XzDecoder::new_multi_decoder(file)),
            Self::Zstd => Box::new(zstd::Decoder::with_buffer(file)?),
            Self::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(file)),
        };
        let mut bytes = Vec::new();
        reader.take(limit + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > limit {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it unpacks to more than {limit} bytes")));
        }
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS_TEXT: &str = "Package: hello\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1:2.10-3\n\n\
        Package: cached\nStatus: install ok installed\nArchitecture: all\nVersion: 2:1+b1\n\n\
        Package: gone\nStatus: deinstall ok config-files\nArchitecture: amd64\nVersion: 1\n\n\
        Package: nowhere\nStatus: install ok unpacked\nArchitecture: amd64\nVersion: 3\n";

    fn host() -> tempfile::TempDir {
        let place = tempfile::tempdir().unwrap();
        for directory in ["var/lib/dpkg", LISTS, CACHE, "etc"] {
            std::fs::create_dir_all(place.path().join(directory)).unwrap();
        }
        std::fs::write(place.path().join(STATUS), STATUS_TEXT).unwrap();
        place
    }

    fn listed(version: &str, text: &str) -> String {
        format!("Package: hello\nVersion: {version}\nArchitecture: amd64\nSHA256: {}\n\n", Digest::of(text))
    }

    fn candidates(package: &Package) -> Vec<Digest> {
        package.candidates.iter().map(|digests| digests.sha256().unwrap()).collect()
    }

    #[test]
    fn digests_come_from_lists_first_then_from_the_cache_and_else_there_is_none() {
        let host = host();
        let at = |path: &str| host.path().join(path);
        std::fs::write(at("etc/os-release"), "NAME=\"x\"\nID=\"devuan\"\n").unwrap();
        let list = listed("1:2.10-2", "old") + &listed("1:2.10-3", "hello");
        std::fs::write(at(&format!("{LISTS}/a_binary-amd64_Packages")), &list).unwrap();
        // The same again is no second candidate; other files are no lists.
        std::fs::write(at(&format!("{LISTS}/b_InRelease")), "no list").unwrap();
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        io::Write::write_all(&mut gzip, list.as_bytes()).unwrap();
        std::fs::write(at(&format!("{LISTS}/b_Packages.gz")), gzip.finish().unwrap()).unwrap();
        for name in ["hello_1%3a2.10-3_amd64.deb", "cached_2%3a1+b1_all.deb", "nowhere_4_amd64.deb"] {
            std::fs::write(at(&format!("{CACHE}/{name}")), "cached").unwrap();
        }
        let packages = packages(host.path()).unwrap();
        let [cached, hello, nowhere] = &packages[..] else { panic!("{packages:?}") };
        assert_eq!((candidates(hello), hello.origin), (vec![Digest::of("hello")], Some(Origin::AptLists)));
        assert_eq!((candidates(cached), cached.origin), (vec![Digest::of("cached")], Some(Origin::AptCache)));
        assert_eq!((candidates(nowhere), nowhere.origin), (Vec::new(), None));
        assert_eq!(hello.purl.to_string(), "pkg:deb/devuan/hello@1:2.10-3?arch=amd64");
        assert_eq!(hello.told(), "hello 1:2.10-3 amd64");
    }

    #[test]
    fn two_archives_that_call_other_bytes_by_one_name_are_both_candidates() {
        let host = host();
        for (file, text) in [("a_Packages", "hello"), ("b_Packages", "other")] {
            std::fs::write(host.path().join(LISTS).join(file), listed("1:2.10-3", text)).unwrap();
        }
        let packages = packages(host.path()).unwrap();
        assert_eq!(candidates(&packages[1]), [Digest::of("hello"), Digest::of("other")]);
    }

    #[test]
    fn broken_databases_and_lists_are_errors_that_name_them() {
        let host = host();
        let list = host.path().join(LISTS).join("a_Packages.xz");
        std::fs::write(&list, "no xz").unwrap();
        let error = packages(host.path()).unwrap_err();
        assert!(matches!(&error, InstalledError::Read { path, .. } if *path == list), "{error}");
        std::fs::rename(&list, host.path().join(LISTS).join("a_Packages")).unwrap();
        let error = packages(host.path()).unwrap_err();
        assert!(matches!(error, InstalledError::List { .. }) && error.to_string().contains("a_Packages"), "{error}");
        std::fs::write(host.path().join(STATUS), "Package: x\n").unwrap();
        assert!(matches!(packages(host.path()), Err(InstalledError::Status { .. })));
        std::fs::remove_file(host.path().join(STATUS)).unwrap();
        let error = packages(host.path()).unwrap_err();
        assert!(error.to_string().contains("--root"), "{error}");
    }

    #[test]
    fn a_list_that_unpacks_to_more_than_the_limit_is_refused() {
        let packed = zstd::encode_all(&[b'x'; 100][..], 0).unwrap();
        assert_eq!(Coding::Zstd.unpacked(&packed[..], 100).unwrap().len(), 100);
        assert!(Coding::Zstd.unpacked(&packed[..], 99).is_err());
    }
}
