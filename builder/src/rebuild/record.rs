//! The `.buildinfo` of a Debian build, from what kiln knows: plan, environment and outcome.
//!
//! Field by field what dpkg-genbuildinfo(1) writes inside, and besides it the date, which no output may tell. Whoever has one of
//! these can ask any rebuilder for the same build.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use kiln_model::debian::installed::{self, InstalledError};
use kiln_model::debian::{build, changelog};
use kiln_model::format::buildinfo::{Buildinfo, RecordedFile};
use kiln_model::lower;
use kiln_model::outcome::Outcome;
use md5::Digest as _;
use serde::{Deserialize, Serialize};

/// Variables that are recorded: those that may reach a build's bytes and tell nothing private (`Dpkg::BuildInfo`).
const ALLOWED: &[&str] = &[
    "AR",
    "ARFLAGS",
    "AS",
    "ASFLAGS",
    "AWK",
    "CC",
    "CFLAGS",
    "CPP",
    "CPPFLAGS",
    "CXX",
    "CXXFLAGS",
    "DEB_BUILD_OPTIONS",
    "DEB_BUILD_PROFILES",
    "DEB_VENDOR",
    "DFLAGS",
    "DPKG_ADMINDIR",
    "DPKG_DATADIR",
    "DPKG_GENSYMBOLS_CHECK_LEVEL",
    "DPKG_ORIGINS_DIR",
    "DPKG_ROOT",
    "FC",
    "FFLAGS",
    "GCJFLAGS",
    "LANG",
    "LC_ADDRESS",
    "LC_ALL",
    "LC_COLLATE",
    "LC_CTYPE",
    "LC_IDENTIFICATION",
    "LC_MEASUREMENT",
    "LC_MESSAGES",
    "LC_MONETARY",
    "LC_NAME",
    "LC_NUMERIC",
    "LC_PAPER",
    "LC_TELEPHONE",
    "LC_TIME",
    "LD",
    "LDFLAGS",
    "LD_LIBRARY_PATH",
    "LEX",
    "M2C",
    "MAKE",
    "MAKEFLAGS",
    "OBJC",
    "OBJCFLAGS",
    "OBJCXX",
    "OBJCXXFLAGS",
    "PC",
    "RANLIB",
    "SOURCE_DATE_EPOCH",
    "YACC",
];
/// The largest file of dpkg's database that is read.
const LARGEST: u64 = 256 << 20;

/// What a plan keeps of a Debian build, for its record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DebianBuild {
    /// The source package.
    pub source: String,
    /// Its version.
    pub version: String,
    /// Where it is unpacked, below the build directory.
    pub place: String,
    /// Its build dependencies that this build uses, as the source has them.
    pub build_depends: Vec<String>,
    /// Words of `DEB_BUILD_OPTIONS` besides the first.
    pub options: BTreeSet<String>,
    /// Seconds since 1970 that it takes for its date.
    pub epoch: Option<i64>,
    /// Variables that were set besides.
    pub variables: BTreeMap<String, String>,
    /// The entry of a binary-only rebuild.
    pub entry: Option<String>,
}

/// Why a record cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// A file cannot be read.
    #[error("reading {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The environment's database is not dpkg's.
    #[error("reading the environment's packages")]
    Installed(#[from] InstalledError),
    /// The entry of a binary-only rebuild is none.
    #[error("reading the entry of a binary-only rebuild")]
    Entry(#[from] changelog::ChangelogError),
}

/// The record of `outcome`: `environment` is the tree that it was built in, `files` the packages that it made.
pub fn record(
    build: &DebianBuild,
    environment: &Path,
    outcome: &Outcome,
    files: &BTreeMap<String, PathBuf>,
) -> Result<Buildinfo, RecordError> {
    let status = text(&environment.join("var/lib/dpkg/status"))?;
    let depends: Vec<&str> = build.build_depends.iter().map(String::as_str).collect();
    let entry = build.entry.as_deref().map(changelog::Entry::newest).transpose()?;
    let packages = files.keys().filter_map(|name| name.strip_suffix(".deb").or_else(|| name.strip_suffix(".udeb")));
    let parts: Vec<(&str, &str)> =
        packages.filter_map(|stem| Some((stem.split_once('_')?.0, stem.rsplit_once('_')?.1))).collect();
    let cores = outcome.conditions.as_ref().map_or(1, |ran| ran.settings.cores.get());
    Ok(Buildinfo {
        source: build.source.clone(),
        source_version: build.version.clone(),
        version: entry.as_ref().map_or_else(|| build.version.clone(), |entry| entry.version.into()),
        binaries: parts.iter().map(|(name, _)| name.to_string()).collect(),
        architectures: parts.iter().map(|(_, architecture)| architecture.to_string()).collect(),
        binary_only_changes: entry.as_ref().map(|entry| changes(entry.text)),
        files: files.iter().map(|(name, path)| recorded(name, path)).collect::<Result<_, _>>()?,
        origin: vendor(environment),
        build_architecture: "amd64".into(),
        kernel: None,
        date: Some(date(outcome.started.unix())),
        path: Some(format!("/build/{}", build.place)),
        tainted_by: tainted_by(environment),
        installed: installed::installed(&status, &depends)?,
        environment: variables(build, cores),
    })
}

fn variables(build: &DebianBuild, cores: u32) -> BTreeMap<String, String> {
    let options = build.options.iter().fold(format!("parallel={cores}"), |all, word| format!("{all} {word}"));
    let mut variables: BTreeMap<String, String> = [
        ("DEB_BUILD_OPTIONS".to_string(), options),
        ("LANG".into(), lower::LOCALE.into()),
        ("LC_ALL".into(), lower::LOCALE.into()),
    ]
    .into();
    variables.extend(build.epoch.map(|epoch| ("SOURCE_DATE_EPOCH".into(), epoch.to_string())));
    let allowed = build.variables.iter().filter(|(key, _)| ALLOWED.contains(&key.as_str()));
    variables.extend(allowed.map(|(key, value)| (key.clone(), value.clone())));
    variables
}

fn recorded(name: &str, path: &Path) -> Result<RecordedFile, RecordError> {
    let failed = |source| RecordError::Read { path: path.into(), source };
    let mut file = std::fs::File::open(path).map_err(failed)?;
    let (mut md5, mut sha1, mut sha256) = (md5::Md5::new(), sha1::Sha1::new(), sha2::Sha256::default());
    let (mut block, mut size) = (vec![0; 256 << 10], 0);
    loop {
        let n = io::Read::read(&mut file, &mut block).map_err(failed)?;
        if n == 0 {
            break;
        }
        size += n as u64;
        md5.update(&block[..n]);
        sha1.update(&block[..n]);
        sha2::Digest::update(&mut sha256, &block[..n]);
    }
    let hex = |bytes: &[u8]| data_encoding::HEXLOWER.encode(bytes);
    Ok(RecordedFile {
        name: name.into(),
        size,
        sha256: kiln_model::digest::Digest::from_bytes(sha2::Digest::finalize(sha256).into()),
        md5: Some(hex(&md5.finalize())),
        sha1: Some(hex(&sha1.finalize())),
    })
}

/// An entry as the field has it: each line after a blank, empty ones as a full stop.
fn changes(entry: &str) -> String {
    let line = |line: &str| if line.is_empty() { " .".to_string() } else { format!(" {line}") };
    format!("\n{}", entry.trim_end().lines().map(line).collect::<Vec<_>>().join("\n"))
}

fn date(unix: u64) -> String {
    let moment = i64::try_from(unix).ok().and_then(|unix| jiff::Timestamp::from_second(unix).ok());
    let moment = moment.unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    moment.strftime("%a, %d %b %Y %H:%M:%S +0000").to_string()
}

/// The distribution, as deb-vendor(1) finds it.
fn vendor(environment: &Path) -> Option<String> {
    let origins = environment.join("etc/dpkg/origins");
    let named = std::fs::read_link(origins.join("default")).ok();
    let file = named.as_deref().and_then(Path::file_name).map_or(origins.join("debian"), |name| origins.join(name));
    let text = text(&file).ok()?;
    text.lines().find_map(|line| line.strip_prefix("Vendor:")).map(|vendor| vendor.trim().to_string())
}

/// What dpkg of Debian thinks taints a build (`Dpkg::Vendor::Debian`), sorted.
fn tainted_by(environment: &Path) -> Vec<String> {
    let mut tainted = BTreeSet::new();
    let aliased = |name: &&str| {
        let target = std::fs::read_link(environment.join(name));
        target.is_ok_and(|to| to == Path::new(&format!("usr/{name}")) || to == Path::new(&format!("/usr/{name}")))
    };
    if ["bin", "sbin", "lib", "lib32", "libo32", "libx32", "lib64"].iter().any(aliased) {
        tainted.insert("merged-usr-via-aliased-dirs");
    }
    for (what, directories) in [
        ("usr-local-has-configs", &["etc"][..]),
        ("usr-local-has-includes", &["include"]),
        ("usr-local-has-libraries", &["lib"]),
        ("usr-local-has-programs", &["bin", "sbin"]),
    ] {
        if directories.iter().any(|name| has_files(&environment.join("usr/local").join(name))) {
            tainted.insert(what);
        }
    }
    tainted.into_iter().map(str::to_string).collect()
}

fn has_files(directory: &Path) -> bool {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries.into_iter().any(|entry| match entry.file_type() {
        Ok(kind) if kind.is_dir() => has_files(&entry.path()),
        Ok(kind) => kind.is_file(),
        Err(_) => false,
    })
}

fn text(path: &Path) -> Result<String, RecordError> {
    let failed = |source| RecordError::Read { path: path.into(), source };
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    io::Read::read_to_string(&mut io::Read::take(file, LARGEST), &mut text).map_err(failed)?;
    Ok(text)
}

/// The name of a record's file.
pub fn file_name(info: &Buildinfo) -> String {
    format!("{}_{}_amd64.buildinfo", info.source, build::without_epoch(&info.version))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_becomes_a_field_that_is_read_back_as_it_was() {
        let entry = "hello (1+b1) sid; urgency=low\n\n  * Rebuild.\n\n -- A <a@b>  Thu, 01 Jan 1970 00:00:09 +0000\n";
        let field = changes(entry);
        assert_eq!(field.lines().nth(2), Some(" ."));
        assert_eq!(field.lines().last(), Some("  -- A <a@b>  Thu, 01 Jan 1970 00:00:09 +0000"));
    }

    #[test]
    fn only_what_may_be_recorded_is() {
        let build = DebianBuild {
            source: "a".into(),
            version: "1".into(),
            place: "reproducible-path/a-1".into(),
            build_depends: Vec::new(),
            options: BTreeSet::from(["nocheck".to_string()]),
            epoch: Some(9),
            variables: BTreeMap::from([("SECRET".into(), "x".into()), ("CFLAGS".into(), "-O1".into())]),
            entry: None,
        };
        let variables = variables(&build, 4);
        assert_eq!(variables["DEB_BUILD_OPTIONS"], "parallel=4 nocheck");
        assert_eq!(
            variables.keys().map(String::as_str).collect::<Vec<_>>(),
            ["CFLAGS", "DEB_BUILD_OPTIONS", "LANG", "LC_ALL", "SOURCE_DATE_EPOCH"]
        );
    }

    #[test]
    fn an_environment_is_tainted_by_what_it_holds() {
        let root = tempfile::tempdir().unwrap();
        assert!(tainted_by(root.path()).is_empty());
        std::os::unix::fs::symlink("usr/bin", root.path().join("bin")).unwrap();
        std::fs::create_dir_all(root.path().join("usr/local/lib/x")).unwrap();
        assert_eq!(tainted_by(root.path()), ["merged-usr-via-aliased-dirs"]);
        std::fs::write(root.path().join("usr/local/lib/x/y"), "").unwrap();
        assert_eq!(tainted_by(root.path()), ["merged-usr-via-aliased-dirs", "usr-local-has-libraries"]);
    }

    #[test]
    fn the_date_is_as_in_mail() {
        assert_eq!(date(1_672_068_600), "Mon, 26 Dec 2022 15:30:00 +0000");
    }
}
