//! apt's settings: sources, proxies, where its credentials and keys are.
//!
//! Read as apt reads them (sources.list(5), apt.conf(5)): `Dir` tree and proxies from `apt-config dump` where apt is
//! installed, its defaults where not; one-line and deb822 sources, `mirror+file:` lists. Which logical archive a source
//! serves is told from its suite or path; hosts are never looked at.
//!
//! Limits: `Acquire::*::Proxy-Auto-Detect`, `cdrom:`, `tor+` and mirror lists behind http are left out, flat repositories too.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use url::Url;

use super::host::{Host, text_of};

/// One source: addresses, and what is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The file it stands in.
    pub file: PathBuf,
    /// Base addresses as written: `http:`, `https:`, `file:`.
    pub uris: Vec<String>,
    /// Suites.
    pub suites: Vec<String>,
    /// Components.
    pub components: Vec<String>,
    /// Whose signatures count; apt's trusted keyrings if empty.
    pub signed_by: Vec<SignedBy>,
}

/// Whose signatures a source's indices must have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SignedBy {
    /// A keyring.
    Keyring(PathBuf),
    /// The fingerprint of a key in apt's trusted keyrings.
    Fingerprint(String),
    /// An armoured key, in the source itself.
    Armoured(String),
}

/// apt's settings as far as they concern kiln.
pub struct Apt {
    values: BTreeMap<String, String>,
    root: PathBuf,
}

impl Apt {
    /// The settings of `host`.
    pub fn of(host: &Host) -> Self {
        let dump = host.ask(&["apt-config", "dump"]).unwrap_or_default();
        let mut values = BTreeMap::new();
        for line in dump.lines() {
            // NAME "VALUE"; — the value's own quotes are not escaped, so the last one ends it.
            let Some((name, value)) = line.trim_end().split_once(' ') else { continue };
            let Some(value) = value.strip_prefix('"').and_then(|v| v.strip_suffix("\";")) else { continue };
            values.insert(name.to_ascii_lowercase(), value.to_string());
        }
        Self { values, root: host.rooted("") }
    }

    fn value(&self, name: &str) -> Option<&str> {
        self.values.get(&name.to_ascii_lowercase()).map(String::as_str)
    }

    /// A path of the `Dir` tree: relative values are below their parent's.
    fn path(&self, leaf: &str, default: &str) -> PathBuf {
        let etc = PathBuf::from(self.value("Dir::Etc").unwrap_or("etc/apt"));
        let dir = self.value("Dir").filter(|dir| *dir != "/").map_or_else(|| self.root.clone(), PathBuf::from);
        let named = self.value(&format!("Dir::Etc::{leaf}")).unwrap_or(default);
        dir.join(etc).join(named)
    }

    /// The files with credentials, those of `auth.conf.d` in order.
    pub fn credential_files(&self) -> Vec<PathBuf> {
        let mut files = vec![self.path("netrc", "auth.conf")];
        files.extend(parts(&self.path("netrcparts", "auth.conf.d"), &["conf"]));
        files
    }

    /// The proxy that apt is told to use for `url`: `Some("DIRECT")` if it is told to use none, nothing if apt is not told.
    pub fn proxy(&self, url: &Url) -> Option<&str> {
        let host = url.host_str()?;
        let schemes: &[&str] = if url.scheme() == "https" { &["https", "http"] } else { &["http"] };
        let named = |name: String| self.value(&name).filter(|v| !v.is_empty());
        schemes.iter().find_map(|scheme| {
            named(format!("Acquire::{scheme}::Proxy::{host}")).or_else(|| named(format!("Acquire::{scheme}::Proxy")))
        })
    }

    /// All sources that are on, in apt's order.
    pub fn sources(&self) -> Vec<Source> {
        let mut files = vec![self.path("sourcelist", "sources.list")];
        files.extend(parts(&self.path("sourceparts", "sources.list.d"), &["list", "sources"]));
        let mut sources = Vec::new();
        for file in files {
            let Some(text) = text_of(&file) else { continue };
            match file.extension().is_some_and(|e| e == "sources") {
                true => sources.extend(stanzas(&text, &file)),
                false => sources.extend(text.lines().filter_map(|line| one_line(line, &file))),
            }
        }
        for source in &mut sources {
            source.uris = std::mem::take(&mut source.uris).into_iter().flat_map(mirror_list).collect();
        }
        sources
    }
}

/// The suites of a Debian host's own release that its apt reads: the release, its updates, its security.
pub fn debian_suites(host: &Host) -> Vec<String> {
    let release = text_of(&host.rooted("etc/os-release")).unwrap_or_default();
    let value = |key: &str| {
        let line = release.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        line.map(|value| value.trim().trim_matches('"').to_string())
    };
    let Some(codename) = value("VERSION_CODENAME").filter(|_| value("ID").as_deref() == Some("debian")) else {
        return Vec::new();
    };
    let named: Vec<String> = Apt::of(host).sources().into_iter().flat_map(|source| source.suites).collect();
    let suites = ["", "-updates", "-security"].map(|end| format!("{codename}{end}"));
    let (first, further) = (suites[0].clone(), suites[1..].iter().filter(|suite| named.contains(suite)).cloned());
    std::iter::once(first).chain(further).collect()
}

impl Source {
    /// The logical archives it serves: each of its suites says one. Flat repositories (a suite that ends in `/`) have no pool.
    pub fn archives(&self, uri: &str) -> Vec<&'static str> {
        let path_says = uri.trim_end_matches('/').ends_with("-security");
        let mut archives: Vec<_> = self
            .suites
            .iter()
            .filter(|suite| !suite.ends_with('/'))
            // `NAME/updates` is what security suites were called up to Debian 10.
            .map(|suite| match path_says || suite.ends_with("-security") || suite.ends_with("/updates") {
                true => "debian-security",
                false => "debian",
            })
            .collect();
        archives.sort_unstable();
        archives.dedup();
        archives
    }
}

/// Files of a `.d` directory as apt takes them: by name, known endings, letters that run-parts would take.
fn parts(directory: &Path, endings: &[&str]) -> Vec<PathBuf> {
    let named = |path: &PathBuf| {
        let good = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        path.file_name().and_then(|n| n.to_str()).is_some_and(|n| !n.starts_with('.') && n.chars().all(good))
            && path.extension().and_then(|e| e.to_str()).is_some_and(|e| endings.contains(&e))
    };
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(named).collect();
    files.sort();
    files
}

/// `deb [option=value …] URI SUITE COMPONENT…`
fn one_line(line: &str, file: &Path) -> Option<Source> {
    let line = line.split('#').next().unwrap_or_default().trim();
    let (kind, rest) = line.split_once(char::is_whitespace)?;
    matches!(kind, "deb" | "deb-src").then_some(())?;
    let rest = rest.trim_start();
    let (options, rest) = match rest.strip_prefix('[') {
        Some(bracketed) => bracketed.split_once(']')?,
        None => ("", rest),
    };
    let mut words = rest.split_whitespace().map(str::to_string);
    let (uri, suite) = (words.next()?, words.next()?);
    let signed_by = options.split_whitespace().find_map(|o| o.strip_prefix("signed-by="));
    Some(Source {
        file: file.into(),
        uris: vec![uri],
        suites: vec![suite],
        components: words.collect(),
        signed_by: signed_by.map(keys).unwrap_or_default(),
    })
}

/// Stanzas of a deb822 file.
fn stanzas(text: &str, file: &Path) -> Vec<Source> {
    let mut sources = Vec::new();
    let mut fields: BTreeMap<String, String> = BTreeMap::new();
    let mut last = String::new();
    for line in text.lines().chain([""]) {
        if line.starts_with('#') {
            continue;
        }
        if line.trim().is_empty() {
            sources.extend(stanza(&std::mem::take(&mut fields), file));
        } else if line.starts_with([' ', '\t']) {
            if let Some(value) = fields.get_mut(&last) {
                value.push('\n');
                value.push_str(line.trim());
            }
        } else if let Some((name, value)) = line.split_once(':') {
            last = name.trim().to_ascii_lowercase();
            fields.insert(last.clone(), value.trim().to_string());
        }
    }
    sources
}

fn stanza(fields: &BTreeMap<String, String>, file: &Path) -> Option<Source> {
    let words = |name: &str| -> Vec<String> {
        fields.get(name).map(|v| v.split_whitespace().map(str::to_string).collect()).unwrap_or_default()
    };
    let off = fields.get("enabled").is_some_and(|v| matches!(v.to_ascii_lowercase().as_str(), "no" | "false" | "0"));
    let debian = words("types").iter().any(|t| t == "deb" || t == "deb-src");
    (debian && !off).then(|| Source {
        file: file.into(),
        uris: words("uris"),
        suites: words("suites"),
        components: words("components"),
        signed_by: fields.get("signed-by").map(|v| keys(v)).unwrap_or_default(),
    })
}

fn keys(value: &str) -> Vec<SignedBy> {
    if value.contains("-----BEGIN PGP") {
        // In a field an empty line is written as a lone dot.
        let lines: Vec<&str> = value.lines().map(|l| if l == "." { "" } else { l }).collect();
        return vec![SignedBy::Armoured(lines.join("\n").trim_start().to_string() + "\n")];
    }
    let one = |word: &str| match word.starts_with('/') {
        true => SignedBy::Keyring(word.into()),
        false => SignedBy::Fingerprint(word.trim_end_matches('!').into()),
    };
    value.split([',', ' ', '\n']).filter(|w| !w.is_empty()).map(one).collect()
}

/// The addresses of a `mirror+file:` list (apt-transport-mirror(1)); any other address as it is.
fn mirror_list(uri: String) -> Vec<String> {
    let Some(path) = uri.strip_prefix("mirror+file:") else { return vec![uri] };
    let path = path.strip_prefix("//").unwrap_or(path);
    let text = text_of(Path::new(path)).unwrap_or_default();
    let lines = text.lines().map(|line| line.split(['\t', '#']).next().unwrap_or_default().trim().to_string());
    lines.filter(|uri| !uri.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(dump: &'static str, root: &Path) -> Host {
        Host::told(BTreeMap::new(), root.into(), move |command| (command[0] == "apt-config").then(|| dump.to_string()))
    }

    #[test]
    fn both_formats_are_read_and_what_is_off_is_left_out() {
        let root = tempfile::tempdir().unwrap();
        let etc = root.path().join("etc/apt/sources.list.d");
        std::fs::create_dir_all(&etc).unwrap();
        std::fs::write(
            root.path().join("etc/apt/sources.list"),
            "# deb http://no.test/ x main\n\
             deb [arch=amd64 signed-by=/k/a.gpg,/k/b.gpg] http://a.test/debian bookworm main contrib # why\n\
             deb http://flat.test/ ./\n",
        )
        .unwrap();
        std::fs::write(
            etc.join("two.sources"),
            "Types: deb deb-src\nURIs: http://b.test/debian\n https://c.test/debian\nSuites: bookworm bookworm-updates\n\
             Components: main\nSigned-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n AAAA\n -----END PGP PUBLIC KEY BLOCK-----\n\n\
             # off\nTypes: deb\nEnabled: no\nURIs: http://off.test/\nSuites: x\n",
        )
        .unwrap();
        std::fs::write(etc.join("old.list.disabled"), "deb http://off.test/ x main\n").unwrap();
        let sources = Apt::of(&host("", root.path())).sources();
        assert_eq!(sources.len(), 3, "{sources:?}");
        assert_eq!(sources[0].signed_by, [SignedBy::Keyring("/k/a.gpg".into()), SignedBy::Keyring("/k/b.gpg".into())]);
        assert_eq!(sources[0].components, ["main", "contrib"]);
        assert!(sources[1].archives(&sources[1].uris[0]).is_empty());
        assert_eq!(sources[2].uris, ["http://b.test/debian", "https://c.test/debian"]);
        let [SignedBy::Armoured(key)] = &sources[2].signed_by[..] else { panic!("{sources:?}") };
        assert_eq!(key, "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nAAAA\n-----END PGP PUBLIC KEY BLOCK-----\n");
    }

    #[test]
    fn suites_and_paths_say_which_archive_a_source_serves() {
        let source = |suites: &[&str]| Source {
            file: PathBuf::new(),
            uris: vec![],
            suites: suites.iter().map(|s| s.to_string()).collect(),
            components: vec![],
            signed_by: vec![],
        };
        assert_eq!(source(&["bookworm"]).archives("http://a.test/debian"), ["debian"]);
        assert_eq!(source(&["bookworm-security"]).archives("http://a.test/x"), ["debian-security"]);
        assert_eq!(source(&["bookworm"]).archives("http://a.test/debian-security/"), ["debian-security"]);
        assert_eq!(
            source(&["bookworm", "bookworm-security"]).archives("http://a.test/x"),
            ["debian", "debian-security"]
        );
    }

    #[test]
    fn the_dir_tree_and_the_proxies_of_apt_config_are_honoured() {
        let root = tempfile::tempdir().unwrap();
        let apt = Apt::of(&host(
            "Dir \"/\";\nDir::Etc \"/other/apt\";\nDir::Etc::netrc \"my.conf\";\nAcquire \"\";\n\
             Acquire::http::Proxy \"http://p.test:3128/\";\nAcquire::http::Proxy::direct.test \"DIRECT\";\n",
            root.path(),
        ));
        assert_eq!(apt.credential_files()[0], Path::new("/other/apt/my.conf"));
        let proxy = |url: &str| apt.proxy(&url.parse().unwrap()).map(str::to_string);
        assert_eq!(proxy("http://a.test/debian").as_deref(), Some("http://p.test:3128/"));
        assert_eq!(proxy("https://a.test/debian").as_deref(), Some("http://p.test:3128/"));
        assert_eq!(proxy("http://direct.test/debian").as_deref(), Some("DIRECT"));
    }

    #[test]
    fn a_mirror_list_in_a_file_stands_for_its_lines() {
        let root = tempfile::tempdir().unwrap();
        let list = root.path().join("debian.list");
        std::fs::write(&list, "http://a.test/debian\tpriority:1\n# no\nhttp://b.test/debian\n").unwrap();
        assert_eq!(
            mirror_list(format!("mirror+file:{}", list.display())),
            ["http://a.test/debian", "http://b.test/debian"]
        );
    }
}
