//! Which mirrors serve an archive, in order.
//!
//! kiln's own configuration first, then the host's clients' settings (apt's sources, pip's indices and links). A mirror is a
//! base address, an address with `{date}` for dated archives, or a directory. No host is compiled in: with no mirror
//! configured anywhere there is none.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use url::Url;

use super::apt::Apt;
use super::host::Host;
use super::pip::{Index, Pip};
use super::{Archive, FetchError};
use crate::config::{Client, Config};

/// One mirror of one archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    /// Where it is configured, for people: never its address.
    pub label: String,
    /// Whose settings it is from; decides on proxies, credentials and certificates.
    pub origin: Origin,
    /// What it is.
    pub place: Place,
}

/// Whose settings a mirror is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// kiln's own configuration.
    Kiln,
    /// apt's.
    Apt,
    /// pip's.
    Pip,
    /// None: an address in a recipe.
    Author,
}

/// What a mirror is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A base address that paths are appended to.
    Base(Url),
    /// A base address in which `{date}` stands for the time of the locked index, as `20250520T081136Z`.
    Dated(String),
    /// A directory: an archive with `pool/` and `dists/`, or loose files found by name.
    Directory(PathBuf),
    /// The default of the installed pip, asked when it is needed.
    PipDefault,
}

/// All mirrors, by archive.
#[derive(Debug, Default)]
pub struct Mirrors {
    lists: BTreeMap<String, Vec<Mirror>>,
    /// Settings of clients that cannot be used, for people.
    pub notes: Vec<String>,
}

impl Mirrors {
    /// Collects them.
    pub fn of(config: &Config, host: &Host, apt: Option<&Apt>, pip: Option<&Pip>) -> Result<Self, FetchError> {
        let mut mirrors = Self::default();
        let archives = ["debian", "debian-security", "debian-debug"].map(|name| Archive::Debian(name.into()));
        for archive in archives.iter().chain([&Archive::Pypi, &Archive::Address]) {
            for (number, entry) in config.list(archive).iter().enumerate() {
                let place = place_of(entry, config, host).map_err(|why| {
                    let file = config.file.as_ref().map(|f| f.display().to_string()).unwrap_or_default();
                    FetchError::Settings(format!("{file}: mirrors.{archive}, entry {}: {why}", number + 1))
                })?;
                let label = match &place {
                    Place::Directory(path) => directory_label(path),
                    _ => format!("mirrors.{archive}, entry {}", number + 1),
                };
                mirrors.add(archive.key(), label, Origin::Kiln, place);
            }
        }
        mirrors.add_apt(apt.filter(|_| config.fetch.clients.contains(&Client::Apt)));
        mirrors.add_pip(pip.filter(|_| config.fetch.clients.contains(&Client::Pip)));
        Ok(mirrors)
    }

    fn add_apt(&mut self, apt: Option<&Apt>) {
        let mut number = 0;
        for source in apt.map(Apt::sources).unwrap_or_default() {
            for uri in &source.uris {
                number += 1;
                for archive in source.archives(uri) {
                    // apt's own `copy:` and `file:` are directories; what else it knows is not ours.
                    match place_of_address(&uri.replacen("copy:", "file:", 1)) {
                        Ok(place) => self.add(archive, format!("apt sources, entry {number}"), Origin::Apt, place),
                        Err(why) => self.notes.push(format!("apt sources, entry {number} is left out: {why}")),
                    }
                }
            }
        }
    }

    fn add_pip(&mut self, pip: Option<&Pip>) {
        let Some(pip) = pip else { return };
        match &pip.index {
            Index::Named(url) => self.add_index("pip's index".into(), url),
            Index::Default => self.add("pypi", "pip's default index".into(), Origin::Pip, Place::PipDefault),
            Index::None => {}
        }
        for (number, url) in pip.extra.iter().enumerate() {
            self.add_index(format!("pip's extra index {}", number + 1), url);
        }
        for link in &pip.links {
            // A page of links is no index; only directories of files are taken.
            let path = PathBuf::from(link.strip_prefix("file://").unwrap_or(link));
            if path.is_absolute() {
                self.add("pypi", format!("pip's {}", directory_label(&path)), Origin::Pip, Place::Directory(path));
            }
        }
    }

    fn add_index(&mut self, label: String, url: &str) {
        match place_of_address(url) {
            Ok(place) => self.add("pypi", label, Origin::Pip, place),
            Err(why) => self.notes.push(format!("{label} is left out: {why}")),
        }
    }

    fn add(&mut self, archive: &str, label: String, origin: Origin, place: Place) {
        let list = self.lists.entry(archive.into()).or_default();
        if !list.iter().any(|mirror| mirror.place == place) {
            list.push(Mirror { label, origin, place });
        }
    }

    /// Those of one archive, in the order in which they are asked.
    pub fn list(&self, archive: &Archive) -> &[Mirror] {
        self.lists.get(archive.key()).map(Vec::as_slice).unwrap_or_default()
    }
}

fn directory_label(path: &Path) -> String {
    let name = path.file_name().unwrap_or(path.as_os_str());
    format!("offline directory {:?}", name.to_string_lossy())
}

/// An entry of kiln's configuration: an address, or a directory.
fn place_of(entry: &str, config: &Config, host: &Host) -> Result<Place, String> {
    if entry.contains("{date}") {
        place_of_address(&entry.replace("{date}", "20250520T081136Z"))?;
        return Ok(Place::Dated(entry.into()));
    }
    if entry.contains("://") || entry.starts_with("file:") {
        return place_of_address(entry);
    }
    if entry.is_empty() {
        return Err("is empty; expected an address or a directory".into());
    }
    let beside = config.file.as_deref().and_then(Path::parent).unwrap_or(Path::new("."));
    Ok(Place::Directory(match (entry.strip_prefix("~/"), host.home()) {
        (Some(rest), Some(home)) => home.join(rest),
        _ => beside.join(entry),
    }))
}

fn place_of_address(address: &str) -> Result<Place, String> {
    // What is wrong is said without the address, which may hold a password.
    let url: Url = address.parse().map_err(|e| format!("is not an address ({e})"))?;
    match url.scheme() {
        "file" => url.to_file_path().map(Place::Directory).map_err(|()| "is not a path of this host".into()),
        "http" | "https" if url.query().is_none() && url.fragment().is_none() => Ok(Place::Base(url)),
        "http" | "https" => Err("is an address with '?' or '#'; expected a base that paths can be appended to".into()),
        other => Err(format!("is of kind {other:?}; expected http, https, file or a directory")),
    }
}

/// `path` below `base`, each part encoded.
pub(super) fn below(base: &Url, path: &str) -> Url {
    let mut url = base.clone();
    url.path_segments_mut().expect("http and https addresses have paths").pop_if_empty().extend(path.split('/'));
    url
}

/// The spelling that dated archives take: RFC 3339 without punctuation.
pub(super) fn compact_date(date: &str) -> String {
    date.chars().filter(|c| !matches!(c, '-' | ':')).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        Config::parse(text, Path::new("/c/config.toml")).unwrap()
    }

    fn no_host() -> Host {
        Host::told(BTreeMap::new(), "/nonexistent".into(), |_| None)
    }

    #[test]
    fn kilns_own_list_comes_first_and_nothing_twice() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("etc/apt")).unwrap();
        std::fs::write(
            root.path().join("etc/apt/sources.list"),
            "deb http://b.test/debian bookworm main\ndeb http://a.test/debian bookworm main\n\
             deb file:///srv/x bookworm-security main\ndeb tor+http://z.test/ bookworm main\n",
        )
        .unwrap();
        let host = Host::told(BTreeMap::new(), root.path().into(), |_| None);
        let config = config("[mirrors]\ndebian = [\"http://a.test/debian\", \"debs\", \"https://d.test/{date}/\"]\n");
        let mirrors = Mirrors::of(&config, &host, Some(&Apt::of(&host)), Some(&Pip::of(&host))).unwrap();
        let labels: Vec<&str> = mirrors.list(&Archive::Debian("debian".into())).iter().map(|m| &*m.label).collect();
        assert_eq!(
            labels,
            [
                "mirrors.debian, entry 1",
                "offline directory \"debs\"",
                "mirrors.debian, entry 3",
                "apt sources, entry 1"
            ]
        );
        let security = mirrors.list(&Archive::Debian("debian-security".into()));
        assert_eq!(security[0].place, Place::Directory("/srv/x".into()));
        assert_eq!(mirrors.list(&Archive::Pypi)[0].place, Place::PipDefault);
        assert_eq!(mirrors.notes.len(), 1, "{:?}", mirrors.notes);
    }

    #[test]
    fn with_nothing_configured_there_is_no_mirror_at_all() {
        let mirrors = Mirrors::of(&config(""), &no_host(), None, None).unwrap();
        assert!([Archive::Debian("debian".into()), Archive::Pypi].iter().all(|a| mirrors.list(a).is_empty()));
    }

    #[test]
    fn a_mirror_that_is_no_base_is_refused_without_showing_it() {
        for bad in ["ftp://u:pw@a.test/", "https://a.test/?x=pw", ""] {
            let error =
                Mirrors::of(&config(&format!("[mirrors]\npypi = [\"{bad}\"]\n")), &no_host(), None, None).unwrap_err();
            assert!(error.to_string().starts_with("/c/config.toml: mirrors.pypi, entry 1: "), "{error}");
            assert!(!error.to_string().contains("pw"), "{error}");
        }
    }

    #[test]
    fn paths_are_encoded_part_by_part() {
        let base = |b: &str| b.parse().unwrap();
        assert_eq!(
            below(&base("http://a.test/debian/"), "pool/g/g++_1%3a2~x.deb").as_str(),
            "http://a.test/debian/pool/g/g++_1%253a2~x.deb"
        );
        assert_eq!(below(&base("http://a.test"), "x?y#z").as_str(), "http://a.test/x%3Fy%23z");
    }

    #[test]
    fn dates_are_spelled_as_dated_archives_take_them() {
        assert_eq!(compact_date("2025-05-20T08:11:36Z"), "20250520T081136Z");
    }
}
