//! A lock: the recipe with every input pinned to a digest, committed beside it.
//!
//! Same archive state, same recipe: same bytes. It is sorted, has one line per file so that a diff can be reviewed, and
//! names archives, never a host. [`Lock::parse`] refuses what [`Lock::print`] would not have written.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::digest::{Digest, NarHash};
use crate::name::Variable;
use crate::recipe::RecipeError;

/// The only schema there is.
pub const SCHEMA: u32 = 1;

/// A parsed lock.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Lock {
    /// Version of this format; [`SCHEMA`].
    pub schema: u32,
    /// [`crate::recipe::Recipe::pins`] of the recipe this was resolved for.
    pub pins: Digest,
    /// Archive suites that were read, in the recipe's order.
    #[serde(default, rename = "suite")]
    pub suites: Vec<Suite>,
    /// Inputs by variable. Inputs that are other recipes have no entry: those recipes have locks of their own.
    #[serde(default)]
    pub inputs: BTreeMap<Variable, LockedInput>,
    /// The root file system.
    pub environment: LockedEnvironment,
}

/// One suite as it was when the lock was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Suite {
    /// Logical archive: `debian`, `debian-security`.
    pub archive: String,
    /// Suite name.
    pub name: String,
    /// `Date` of the signed index, RFC 3339, UTC.
    pub date: String,
    /// Digest of the signed index file.
    pub inrelease: Digest,
    /// Fingerprints of the keys whose signatures were good, sorted.
    pub signed_by: Vec<String>,
}

/// A pinned input: one directory in the store that holds these files, or a tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", rename_all_fields = "kebab-case", tag = "kind")]
pub enum LockedInput {
    /// Files of a Debian source package.
    DebianSource {
        /// Source package.
        name: String,
        /// Its version.
        version: String,
        /// Logical archive.
        archive: String,
        /// Digest of the directory.
        nar_hash: NarHash,
        /// Its files, sorted by name.
        files: Vec<LockedFile>,
    },
    /// One file at an address.
    Url {
        /// The author's address.
        url: String,
        /// Digest of the directory that holds the file.
        nar_hash: NarHash,
        /// The file; `path` is its name.
        files: Vec<LockedFile>,
    },
    /// One file of a Python release.
    Pypi {
        /// Normalised project name.
        project: String,
        /// Version.
        version: String,
        /// Digest of the directory that holds the file.
        nar_hash: NarHash,
        /// The file; `path` is its name.
        files: Vec<LockedFile>,
    },
    /// The tree of a commit.
    Git {
        /// The repository.
        git: String,
        /// The commit.
        rev: String,
        /// Digest of the tree.
        nar_hash: NarHash,
    },
    /// A tree beside the recipe.
    Path {
        /// Relative to the recipe.
        path: String,
        /// Digest of the tree.
        nar_hash: NarHash,
    },
}

/// One file of an input.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct LockedFile {
    /// Path in the archive, or the file's name.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// Digest of the bytes.
    pub sha256: Digest,
}

/// The pinned root file system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct LockedEnvironment {
    /// Debian architecture.
    pub architecture: String,
    /// Digest of the whole tree.
    pub nar_hash: NarHash,
    /// Digest of the tree after the packages of the base layer, shared by recipes of the same suite.
    pub base: NarHash,
    /// All packages, sorted by name, then architecture.
    #[serde(rename = "package")]
    pub packages: Vec<LockedPackage>,
}

/// One binary package.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct LockedPackage {
    /// Package name.
    pub name: String,
    /// Architecture it was built for; `all` for any.
    pub arch: String,
    /// Version.
    pub version: String,
    /// Which layer it is unpacked in.
    pub layer: Layer,
    /// Logical archive.
    pub archive: String,
    /// Path in that archive.
    pub path: String,
    /// Bytes of the `.deb`.
    pub size: u64,
    /// Digest of the `.deb`.
    pub sha256: Digest,
}

/// The two steps in which an environment is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Layer {
    /// Essential packages, and build-essential if the recipe wants it: one tree for all recipes of a suite.
    Base,
    /// Everything else.
    Delta,
}

impl LockedInput {
    /// Digest of the store path that the script finds under the input's variable.
    pub fn nar_hash(&self) -> NarHash {
        match self {
            Self::DebianSource { nar_hash, .. }
            | Self::Url { nar_hash, .. }
            | Self::Pypi { nar_hash, .. }
            | Self::Git { nar_hash, .. }
            | Self::Path { nar_hash, .. } => *nar_hash,
        }
    }
}

impl Lock {
    /// A lock from the text of a `recipe.lock`.
    pub fn parse(text: &str) -> Result<Self, RecipeError> {
        let lock: Self = toml::from_str(text).map_err(|e| RecipeError::from_toml(text, &e))?;
        let refuse = |message: String| Err(RecipeError { line: None, message, nearest: None });
        if lock.schema != SCHEMA {
            return refuse(format!("schema {} is not known; this kiln reads schema {SCHEMA}", lock.schema));
        }
        let key = |p: &LockedPackage| (p.name.clone(), p.arch.clone());
        if let Some(pair) = lock.environment.packages.windows(2).find(|pair| key(&pair[0]) >= key(&pair[1])) {
            return refuse(format!(
                "environment.package {} {}: packages must be sorted and single; run kiln lock",
                pair[1].name, pair[1].arch
            ));
        }
        Ok(lock)
    }

    /// The text of the lock: canonical, one file a line.
    pub fn print(&self) -> String {
        let mut out = String::from("# Written by `kiln lock`. Review it, commit it, never edit it.\n");
        let _ = writeln!(out, "schema = {}\npins = {}", self.schema, quoted(&self.pins));
        for suite in &self.suites {
            let keys: Vec<String> = suite.signed_by.iter().map(quoted).collect();
            let _ = write!(
                out,
                "\n[[suite]]\narchive = {}\nname = {}\ndate = {}\ninrelease = {}\nsigned-by = [{}]\n",
                quoted(&suite.archive),
                quoted(&suite.name),
                quoted(&suite.date),
                quoted(&suite.inrelease),
                keys.join(", ")
            );
        }
        for (name, input) in &self.inputs {
            let _ = write!(out, "\n[inputs.{name}]\n");
            input.print(&mut out);
        }
        let e = &self.environment;
        let _ = write!(
            out,
            "\n[environment]\narchitecture = {}\nnar-hash = {}\nbase = {}\npackage = [\n",
            quoted(&e.architecture),
            quoted(&e.nar_hash),
            quoted(&e.base)
        );
        for p in &e.packages {
            let layer = match p.layer {
                Layer::Base => "base",
                Layer::Delta => "delta",
            };
            let _ = writeln!(
                out,
                "  {{ name = {}, arch = {}, version = {}, layer = \"{layer}\", archive = {}, path = {}, size = {}, sha256 = {} }},",
                quoted(&p.name),
                quoted(&p.arch),
                quoted(&p.version),
                quoted(&p.archive),
                quoted(&p.path),
                p.size,
                quoted(&p.sha256)
            );
        }
        out.push_str("]\n");
        out
    }
}

impl LockedInput {
    fn print(&self, out: &mut String) {
        let (kind, fields, nar_hash, files) = match self {
            Self::DebianSource { name, version, archive, nar_hash, files } => {
                let fields = [("name", name), ("version", version), ("archive", archive)];
                ("debian-source", fields.to_vec(), nar_hash, Some(files))
            }
            Self::Url { url, nar_hash, files } => ("url", [("url", url)].to_vec(), nar_hash, Some(files)),
            Self::Pypi { project, version, nar_hash, files } => {
                ("pypi", [("project", project), ("version", version)].to_vec(), nar_hash, Some(files))
            }
            Self::Git { git, rev, nar_hash } => ("git", [("git", git), ("rev", rev)].to_vec(), nar_hash, None),
            Self::Path { path, nar_hash } => ("path", [("path", path)].to_vec(), nar_hash, None),
        };
        let _ = writeln!(out, "kind = \"{kind}\"");
        for (key, value) in fields {
            let _ = writeln!(out, "{key} = {}", quoted(value));
        }
        let _ = writeln!(out, "nar-hash = {}", quoted(nar_hash));
        if let Some(files) = files {
            out.push_str("files = [\n");
            for f in files {
                let (path, sha256) = (quoted(&f.path), quoted(&f.sha256));
                let _ = writeln!(out, "  {{ path = {path}, size = {}, sha256 = {sha256} }},", f.size);
            }
            out.push_str("]\n");
        }
    }
}

/// A TOML basic string.
fn quoted(text: &(impl ToString + ?Sized)) -> String {
    toml::Value::String(text.to_string()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Lock {
        let file = LockedFile { path: "pool/h/hello.dsc".into(), size: 7, sha256: Digest::of("dsc") };
        let nar_hash = NarHash::new(Digest::of("tree"));
        let package = |name: &str, layer| LockedPackage {
            name: name.into(),
            arch: "amd64".into(),
            version: "1:2~3-4".into(),
            layer,
            archive: "debian".into(),
            path: format!("pool/{name}.deb"),
            size: 1,
            sha256: Digest::of(name),
        };
        let inputs = [
            (
                "src",
                LockedInput::DebianSource {
                    name: "hello".into(),
                    version: "1".into(),
                    archive: "debian".into(),
                    nar_hash,
                    files: vec![file.clone()],
                },
            ),
            ("a", LockedInput::Git { git: "\"odd\\ repo".into(), rev: "0".repeat(40), nar_hash }),
            ("b", LockedInput::Path { path: ".".into(), nar_hash }),
            ("c", LockedInput::Url { url: "u".into(), nar_hash, files: vec![file.clone()] }),
            ("d", LockedInput::Pypi { project: "p".into(), version: "1".into(), nar_hash, files: vec![file] }),
        ];
        Lock {
            schema: SCHEMA,
            pins: Digest::of("pins"),
            suites: vec![Suite {
                archive: "debian".into(),
                name: "bookworm".into(),
                date: "2026-07-11T10:16:37Z".into(),
                inrelease: Digest::of("inrelease"),
                signed_by: vec!["ABCD".into()],
            }],
            inputs: inputs.into_iter().map(|(k, v)| (k.parse().unwrap(), v)).collect(),
            environment: LockedEnvironment {
                architecture: "amd64".into(),
                nar_hash,
                base: nar_hash,
                packages: vec![package("bash", Layer::Base), package("zlib", Layer::Delta)],
            },
        }
    }

    #[test]
    fn a_printed_lock_parses_back_to_itself() {
        let lock = sample();
        assert_eq!(Lock::parse(&lock.print()), Ok(lock));
    }

    #[test]
    fn the_printed_bytes_do_not_move() {
        assert_eq!(
            Digest::of(sample().print()).to_string(),
            "7fb84326513c816047559baf54b101faa97b52a3c00944ba1a579c1ac8c85a05"
        );
    }

    #[test]
    fn unsorted_packages_and_unknown_fields_are_refused() {
        let mut lock = sample();
        lock.environment.packages.reverse();
        assert!(Lock::parse(&lock.print()).is_err());
        let text = sample().print().replace("architecture =", "architektur =");
        assert_eq!(Lock::parse(&text).unwrap_err().nearest.as_deref(), Some("architecture"));
    }
}
