//! kiln's own configuration file.
//!
//! `$KILN_CONFIG`, else `$XDG_CONFIG_HOME/kiln/config.toml`, else `/etc/kiln/config.toml`: the first that is there, and only that
//! one. Unknown fields are refused with line and nearest name. It says where bytes come from and never what is built:
//! nothing in it may reach a lock or a derivation.
//!
//! ```toml
//! [mirrors]                       # asked in this order, before the host's clients' settings
//! debian = ["https://mirror.example/debian", "https://dated.example/debian/{date}/", "/srv/debs"]
//! debian-security = ["https://mirror.example/debian-security"]
//! pypi = ["https://mirror.example/simple"]
//! url = ["/srv/tarballs"]         # for inputs with an address of their own
//!
//! [fetch]
//! clients = ["apt", "pip"]        # whose settings are honoured
//! parallel = 6
//! stall-seconds = 30
//! attempts = 4
//!
//! [pin]
//! keyrings = ["archive.gpg"]      # whose signatures on archive indices count, instead of the host's archive keyring's
//!
//! [build]
//! jobs = 2
//! cores = 2
//! outcome-budget = 10737418240
//! environment-budget = 21474836480
//! memory = 8589934592
//!
//! [caches]                        # Nix's binary caches
//! substituters = ["/srv/cache", "https://cache.example"]
//! trusted-public-keys = ["cache.example-1:…"]
//! narinfo-cache-positive-ttl = 2592000
//! narinfo-cache-negative-ttl = 3600
//!
//! [gate]                          # what `kiln gate` goes by
//! policy = "/etc/kiln/policy.toml"
//! evidence = ["/var/lib/kiln/evidence"]
//! keys = "/etc/kiln/keys"         # keys/ beside the policy if absent
//! ```

use std::collections::BTreeSet;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::exit::Kind;
use crate::fetch::{Archive, Host};

/// The parsed file; default values where there is none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Config {
    /// Where files come from.
    pub mirrors: Mirrors,
    /// How they are fetched.
    pub fetch: Fetch,
    /// How recipes are pinned.
    pub pin: Pin,
    /// How builds are run.
    pub build: Build,
    /// Nix's binary caches.
    pub caches: Caches,
    /// What is let in.
    pub gate: Gate,
    /// The file itself; relative directories are relative to where it is.
    #[serde(skip)]
    pub file: Option<PathBuf>,
}

/// Per archive: base addresses, addresses with `{date}`, offline directories.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Mirrors {
    /// Of the archive `debian`.
    pub debian: Vec<String>,
    /// Of the archive `debian-security`.
    pub debian_security: Vec<String>,
    /// Of the archive `debian-debug`: packages with debugging symbols.
    pub debian_debug: Vec<String>,
    /// Indices of Python packages.
    pub pypi: Vec<String>,
    /// For files that a recipe names by address: asked by file name, before that address.
    pub url: Vec<String>,
}

/// How recipes are pinned.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Pin {
    /// Keyrings that sign archive indices, instead of the host's own.
    pub keyrings: Vec<PathBuf>,
}

/// How builds are run. None of this is part of a build's identity.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Build {
    /// Builds at once.
    pub jobs: Option<NonZeroUsize>,
    /// `NIX_BUILD_CORES`.
    pub cores: Option<NonZeroU32>,
    /// Bytes that trees of builds may take beside valid store paths, before the oldest are dropped.
    pub outcome_budget: Option<u64>,
    /// Bytes that assembled environments may take, before those that were used the longest ago are dropped.
    pub environment_budget: Option<u64>,
    /// Bytes that all processes of one build may use together; refused where no control group can hold them to it.
    pub memory: Option<u64>,
}

/// What `kiln gate` goes by where its arguments do not say. Relative paths are relative to where the file is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Gate {
    /// The policy's file.
    pub policy: Option<PathBuf>,
    /// Directories and files of evidence.
    pub evidence: Vec<PathBuf>,
    /// The directory of public keys.
    pub keys: Option<PathBuf>,
}

/// Binary caches that paths are substituted from, and whose word is taken.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Caches {
    /// Directories and addresses.
    pub substituters: Vec<String>,
    /// `NAME:BASE64`, as Nix's setting of this name has them.
    pub trusted_public_keys: Vec<String>,
    /// Seconds for which what a cache on the network said of a path is remembered.
    pub narinfo_cache_positive_ttl: u64,
    /// Seconds for which it is remembered that it lacks one.
    pub narinfo_cache_negative_ttl: u64,
}

impl Default for Caches {
    /// Lifetimes are Nix's.
    fn default() -> Self {
        Self {
            substituters: Vec::new(),
            trusted_public_keys: Vec::new(),
            narinfo_cache_positive_ttl: 30 * 24 * 60 * 60,
            narinfo_cache_negative_ttl: 60 * 60,
        }
    }
}

/// How files are fetched.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Fetch {
    /// Clients whose settings are honoured.
    pub clients: BTreeSet<Client>,
    /// Files fetched at once.
    pub parallel: NonZeroU32,
    /// How long a silent connection is waited for.
    pub stall_seconds: NonZeroU32,
    /// How often one mirror is asked for one file.
    pub attempts: NonZeroU32,
}

/// A client of the host whose settings name mirrors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Client {
    /// apt's sources, proxies and credentials.
    Apt,
    /// pip's indices and certificates.
    Pip,
}

impl Default for Fetch {
    fn default() -> Self {
        let number = |n| NonZeroU32::new(n).expect("not zero");
        Self {
            clients: BTreeSet::from([Client::Apt, Client::Pip]),
            parallel: number(6),
            stall_seconds: number(30),
            attempts: number(4),
        }
    }
}

/// Why the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("reading configuration {}", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not a configuration.
    #[error("{}{}: {message}{}", path.display(), line.map(|l| format!(", line {l}")).unwrap_or_default(), nearest.as_ref().map(|n| format!("; did you mean {n:?}?")).unwrap_or_default())]
    Malformed {
        /// Which file.
        path: PathBuf,
        /// Where, counted from 1.
        line: Option<usize>,
        /// What is wrong and what was expected.
        message: String,
        /// The known field nearest to an unknown one.
        nearest: Option<String>,
    },
}

impl ConfigError {
    /// What sort of failure it is: the file is the user's in either case.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Unreadable { .. } | Self::Malformed { .. } => Kind::BadInput,
        }
    }
}

impl Config {
    /// The configuration of `host`. A file that `$KILN_CONFIG` names must be there.
    pub fn load(host: &Host) -> Result<Self, ConfigError> {
        let named = host.variable("KILN_CONFIG").map(PathBuf::from);
        let candidates = match &named {
            Some(path) => vec![path.clone()],
            None => host
                .user_settings()
                .map(|settings| settings.join("kiln/config.toml"))
                .into_iter()
                .chain([host.rooted("etc/kiln/config.toml")])
                .collect(),
        };
        for path in candidates {
            match std::fs::read_to_string(&path) {
                Ok(text) => return Self::parse(&text, &path),
                Err(e) if e.kind() == std::io::ErrorKind::NotFound && named.is_none() => continue,
                Err(source) => return Err(ConfigError::Unreadable { path, source }),
            }
        }
        Ok(Self::default())
    }

    /// The keyrings of [`Pin::keyrings`], wherever kiln is run.
    pub fn keyrings(&self) -> Vec<PathBuf> {
        let beside = self.file.as_deref().and_then(Path::parent).unwrap_or(Path::new(""));
        self.pin.keyrings.iter().map(|path| beside.join(path)).collect()
    }

    /// A configuration from the text of the file at `path`.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let config: Self = toml::from_str(text).map_err(|e| malformed(text, path, &e))?;
        Ok(Self { file: Some(path.into()), ..config })
    }

    /// The list of an archive; none for archives that have no key of their own.
    pub fn list(&self, archive: &Archive) -> &[String] {
        match archive {
            Archive::Debian(name) => match name.as_str() {
                "debian" => &self.mirrors.debian,
                "debian-security" => &self.mirrors.debian_security,
                "debian-debug" => &self.mirrors.debian_debug,
                _ => &[],
            },
            Archive::Pypi => &self.mirrors.pypi,
            Archive::Address => &self.mirrors.url,
        }
    }
}

/// `serde`'s message for an unknown field names it and the known ones between backticks; the nearest is offered.
fn malformed(text: &str, path: &Path, error: &toml::de::Error) -> ConfigError {
    let message = error.message().to_string();
    let quoted: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    let nearest = match (message.starts_with("unknown "), quoted.split_first()) {
        (true, Some((unknown, known))) => known
            .iter()
            .map(|k| (strsim::damerau_levenshtein(unknown, k), *k))
            .min()
            .filter(|(distance, _)| *distance <= 4)
            .map(|(_, k)| k.to_string()),
        _ => None,
    };
    let line = error.span().map(|span| text[..span.start].matches('\n').count() + 1);
    ConfigError::Malformed { path: path.into(), line, message, nearest }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn an_unknown_field_is_refused_with_line_and_nearest_name() {
        let error = Config::parse("[mirrors]\ndebain = []\n", Path::new("c.toml")).unwrap_err();
        assert!(error.to_string().starts_with("c.toml, line 2: unknown field `debain`"), "{error}");
        assert!(error.to_string().ends_with("did you mean \"debian\"?"), "{error}");
        assert!(Config::parse("[fetch]\nclients = [\"apd\"]\n", Path::new("c.toml")).is_err());
        assert!(Config::parse("[fetch]\nparallel = 0\n", Path::new("c.toml")).is_err());
    }

    #[test]
    fn a_part_left_out_has_its_default() {
        let config = Config::parse("[fetch]\nparallel = 2\n", Path::new("c.toml")).unwrap();
        assert_eq!(config.fetch.parallel.get(), 2);
        assert_eq!(config.fetch.attempts, Fetch::default().attempts);
        assert!(config.list(&Archive::Pypi).is_empty());
    }

    #[test]
    fn keyrings_are_named_from_where_the_file_is() {
        let config =
            Config::parse("[pin]\nkeyrings = [\"keys/a.gpg\", \"/b.gpg\"]\n", Path::new("/etc/kiln/config.toml"));
        assert_eq!(config.unwrap().keyrings(), [Path::new("/etc/kiln/keys/a.gpg"), Path::new("/b.gpg")]);
        assert!(Config::default().keyrings().is_empty());
    }

    #[test]
    fn the_named_file_must_be_there_and_the_users_comes_before_the_hosts() {
        let root = tempfile::tempdir().unwrap();
        let host = |name: &str, value: &Path| {
            let variables = BTreeMap::from([(name.to_string(), value.display().to_string())]);
            Host::told(variables, root.path().into(), |_| None)
        };
        let user = root.path().join("user");
        assert_eq!(Config::load(&host("XDG_CONFIG_HOME", &user)).unwrap(), Config::default());
        for (file, text) in
            [("etc/kiln/config.toml", "[fetch]\nparallel = 1\n"), ("user/kiln/config.toml", "[fetch]\nparallel = 2\n")]
        {
            let file = root.path().join(file);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, text).unwrap();
        }
        assert_eq!(Config::load(&host("XDG_CONFIG_HOME", &user)).unwrap().fetch.parallel.get(), 2);
        assert_eq!(Config::load(&host("HOME", &user)).unwrap().fetch.parallel.get(), 1);
        assert!(matches!(
            Config::load(&host("KILN_CONFIG", &root.path().join("none"))),
            Err(ConfigError::Unreadable { .. })
        ));
    }
}
