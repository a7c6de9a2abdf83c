//! `.buildinfo` files (deb-buildinfo(5)): what a builder recorded of one build of a Debian source package.
//!
//! Reads format 1.0 and writes it as dpkg-genbuildinfo(1) does, field by field. What is read is a claim: it carries no digests of
//! what was installed, and whether a signature vouches for it is another matter.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::control::{Field, Stanza, Stanzas};
use super::packages::IndexError;
use super::release::listed;
use crate::debian::dependency::{Operator, Qualifier, Relation};
use crate::debian::version::Version;
use crate::digest::Digest;

/// One record.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Buildinfo {
    /// The source package.
    pub source: String,
    /// Its version: another than `version` for a binary-only rebuild.
    pub source_version: String,
    /// Version of the build.
    pub version: String,
    /// `Binary`: the binary packages that were made.
    pub binaries: BTreeSet<String>,
    /// `Architecture`: what they are for, and `source` if that was packed, too.
    pub architectures: BTreeSet<String>,
    /// `Binary-Only-Changes`: the changelog's entry of a binary-only rebuild, as the field has it but for blanks around it.
    pub binary_only_changes: Option<String>,
    /// The files that were made, in the record's order.
    pub files: Vec<RecordedFile>,
    /// `Build-Origin`: the distribution of the builder.
    pub origin: Option<String>,
    /// `Build-Architecture`
    pub build_architecture: String,
    /// `Build-Kernel-Version`
    pub kernel: Option<String>,
    /// `Build-Date`, as in mail.
    pub date: Option<String>,
    /// `Build-Path`: where the source was unpacked.
    pub path: Option<String>,
    /// `Build-Tainted-By`
    pub tainted_by: Vec<String>,
    /// `Installed-Build-Depends`: package, architecture if it says one, version.
    pub installed: BTreeSet<Installed>,
    /// `Environment`
    pub environment: BTreeMap<String, String>,
}

/// A file that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordedFile {
    /// Its name.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// SHA-256, the one that counts.
    pub sha256: Digest,
    /// MD5, as written; never relied on.
    pub md5: Option<String>,
    /// SHA-1, as written; never relied on.
    pub sha1: Option<String>,
}

/// A package that was installed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Installed {
    /// Its name.
    pub name: String,
    /// Its architecture, if it is a foreign one.
    pub architecture: Option<String>,
    /// Its version.
    pub version: String,
}

impl Buildinfo {
    /// The record in `text`, from which a signature must have been taken off.
    pub fn parse(text: &str) -> Result<Self, IndexError> {
        let mut stanzas = Stanzas::new(text);
        let info = match stanzas.next()? {
            Some(stanza) => Self::of(stanza)?,
            None => return Err(IndexError::Missing { line: 1, package: "?".into(), field: "Format" }),
        };
        match stanzas.next()? {
            None => Ok(info),
            Some(further) => Err(IndexError::Value {
                line: further.line(),
                package: info.source,
                field: "Format",
                expected: "one stanza",
                found: "a second one".into(),
            }),
        }
    }

    fn of(stanza: &Stanza<'_>) -> Result<Self, IndexError> {
        let package = stanza.value("Source").unwrap_or("?").to_string();
        let need = |field: &'static str| {
            let missing = || IndexError::Missing { line: stanza.line(), package: package.clone(), field };
            stanza.field(field).ok_or_else(missing)
        };
        let refuse = |field: &Field<'_>, name: &'static str, expected| IndexError::Value {
            line: field.line,
            package: package.clone(),
            field: name,
            expected,
            found: field.value.chars().take(120).collect(),
        };
        let format = need("Format")?;
        if !format.value.starts_with("1.") {
            return Err(refuse(format, "Format", "1.0"));
        }
        let (source_field, version_field) = (need("Source")?, need("Version")?);
        let (source, source_version) =
            super::packages::source_package(source_field.value, source_field.value, version_field.value);
        for (field, version) in [(version_field, version_field.value), (source_field, source_version)] {
            Version::parse(version).map_err(|source| IndexError::Version {
                line: field.line,
                package: package.clone(),
                source,
            })?;
        }
        if !is_package_name(source) {
            return Err(refuse(source_field, "Source", "a package's name"));
        }
        let owned = |name: &str| stanza.value(name).map(|value| value.trim().to_string());
        let words = |name: &str| -> BTreeSet<String> {
            stanza.value(name).unwrap_or("").split_ascii_whitespace().map(str::to_string).collect()
        };
        let mut installed = BTreeSet::new();
        if let Some(field) = stanza.field("Installed-Build-Depends") {
            for (line, text) in field.lines() {
                let text = text.trim_end_matches(',');
                let one = installed_of(text).ok_or_else(|| IndexError::Value {
                    line,
                    package: package.clone(),
                    field: "Installed-Build-Depends",
                    expected: "NAME (= VERSION)",
                    found: text.chars().take(120).collect(),
                })?;
                installed.insert(one);
            }
        }
        let mut environment = BTreeMap::new();
        if let Some(field) = stanza.field("Environment") {
            for (line, text) in field.lines() {
                let (key, value) = variable(text).ok_or_else(|| IndexError::Value {
                    line,
                    package: package.clone(),
                    field: "Environment",
                    expected: "NAME=\"VALUE\"",
                    found: text.chars().take(120).collect(),
                })?;
                environment.insert(key, value);
            }
        }
        Ok(Self {
            source: source.into(),
            source_version: source_version.into(),
            version: version_field.value.into(),
            binaries: words("Binary"),
            architectures: words("Architecture"),
            binary_only_changes: owned("Binary-Only-Changes"),
            files: files(stanza, &package)?,
            origin: owned("Build-Origin"),
            build_architecture: need("Build-Architecture")?.value.trim().into(),
            kernel: owned("Build-Kernel-Version"),
            date: owned("Build-Date"),
            path: owned("Build-Path"),
            tainted_by: stanza
                .field("Build-Tainted-By")
                .map_or(Vec::new(), |field| field.lines().map(|(_, text)| text.to_string()).collect()),
            installed,
            environment,
        })
    }

    /// The text, as dpkg-genbuildinfo writes it.
    pub fn print(&self) -> String {
        let mut text = String::from("Format: 1.0\n");
        let mut field = |name: &str, value: &str| {
            let _ = match value.starts_with('\n') {
                true => writeln!(text, "{name}:{value}"),
                false => writeln!(text, "{name}: {value}"),
            };
        };
        let joined = |words: &BTreeSet<String>| words.iter().map(String::as_str).collect::<Vec<_>>().join(" ");
        match self.source_version == self.version {
            true => field("Source", &self.source),
            false => field("Source", &format!("{} ({})", self.source, self.source_version)),
        }
        field("Binary", &joined(&self.binaries));
        field("Architecture", &joined(&self.architectures));
        field("Version", &self.version);
        if let Some(changes) = &self.binary_only_changes {
            field("Binary-Only-Changes", &continued(changes));
        }
        let listing = |digest: &dyn Fn(&RecordedFile) -> Option<String>| -> Option<String> {
            let line = |file: &RecordedFile| Some(format!("\n {} {} {}", digest(file)?, file.size, file.name));
            self.files.iter().map(line).collect()
        };
        for (name, listing) in [
            ("Checksums-Md5", listing(&|file| file.md5.clone())),
            ("Checksums-Sha1", listing(&|file| file.sha1.clone())),
            ("Checksums-Sha256", listing(&|file| Some(file.sha256.to_string()))),
        ] {
            if let Some(listing) = listing.filter(|listing| !listing.is_empty()) {
                field(name, &listing);
            }
        }
        if let Some(origin) = &self.origin {
            field("Build-Origin", origin);
        }
        field("Build-Architecture", &self.build_architecture);
        for (name, value) in
            [("Build-Kernel-Version", &self.kernel), ("Build-Date", &self.date), ("Build-Path", &self.path)]
        {
            if let Some(value) = value {
                field(name, value);
            }
        }
        let lines = |lines: Vec<String>, between: &str| format!("\n {}", lines.join(&format!("{between}\n ")));
        if !self.tainted_by.is_empty() {
            field("Build-Tainted-By", &lines(self.tainted_by.clone(), ""));
        }
        let installed = |one: &Installed| match &one.architecture {
            Some(architecture) => format!("{}:{architecture} (= {})", one.name, one.version),
            None => format!("{} (= {})", one.name, one.version),
        };
        if !self.installed.is_empty() {
            field("Installed-Build-Depends", &lines(self.installed.iter().map(installed).collect(), ","));
        }
        let variable = |(key, value): (&String, &String)| format!("{key}=\"{}\"", value.replace('"', "\\\""));
        if !self.environment.is_empty() {
            field("Environment", &lines(self.environment.iter().map(variable).collect(), ""));
        }
        text
    }
}

/// A text of several lines as a field's value has it: each after a blank, and none without anything, which would end the stanza.
fn continued(text: &str) -> String {
    let line = |line: &str| match line.trim_end() {
        "" => "\n .".to_owned(),
        line if line.starts_with([' ', '\t']) => format!("\n{line}"),
        line => format!("\n {line}"),
    };
    text.trim().split('\n').map(line).collect()
}

fn files(stanza: &Stanza<'_>, package: &str) -> Result<Vec<RecordedFile>, IndexError> {
    let field = stanza.field("Checksums-Sha256").ok_or_else(|| IndexError::Missing {
        line: stanza.line(),
        package: package.into(),
        field: "Checksums-Sha256",
    })?;
    let other = |name: &str| -> BTreeMap<&str, &str> {
        let lines = stanza.field(name).map_or(Vec::new(), |field| field.lines().collect());
        lines.into_iter().filter_map(|(_, text)| Some((text.rsplit_once(' ')?.1, text.split_once(' ')?.0))).collect()
    };
    let (md5, sha1) = (other("Checksums-Md5"), other("Checksums-Sha1"));
    let mut files: Vec<RecordedFile> = Vec::new();
    let refused = |line: usize, text: &str| IndexError::Value {
        line,
        package: package.into(),
        field: "Checksums-Sha256",
        expected: "digest, size and a file name, each file once",
        found: text.chars().take(120).collect(),
    };
    for (line, text) in field.lines() {
        let file = listed(text).filter(|(_, _, name)| !name.contains('/'));
        let twice = |name: &str| files.iter().any(|file| file.name == name);
        let Some((sha256, size, name)) = file.filter(|(_, _, name)| !twice(name)) else {
            return Err(refused(line, text));
        };
        let word = |of: &BTreeMap<&str, &str>| of.get(name).map(|digest| digest.to_string());
        files.push(RecordedFile { name: name.into(), size, sha256, md5: word(&md5), sha1: word(&sha1) });
    }
    // A build made something: without files the record is of none, and could not be written again.
    if files.is_empty() { Err(refused(field.line, "")) } else { Ok(files) }
}

fn installed_of(text: &str) -> Option<Installed> {
    let relation = Relation::parse(text).ok()?;
    let Some((Operator::Equal, version)) = relation.version else { return None };
    let architecture = match relation.qualifier {
        Qualifier::Architecture(architecture) => Some(architecture.to_string()),
        Qualifier::None => None,
        Qualifier::Any | Qualifier::Native => return None,
    };
    is_package_name(relation.package).then(|| Installed {
        name: relation.package.into(),
        architecture,
        version: version.to_string(),
    })
}

/// `NAME="VALUE"`, quotes in the value after a backslash.
fn variable(text: &str) -> Option<(String, String)> {
    let (key, rest) = text.split_once('=')?;
    let value = rest.strip_prefix('"')?.strip_suffix('"')?;
    let name = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    name.then(|| (key.to_string(), value.replace("\\\"", "\"")))
}

fn is_package_name(name: &str) -> bool {
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"+-.".contains(&b);
    name.len() > 1 && name.as_bytes()[0].is_ascii_alphanumeric() && name.bytes().all(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "Format: 1.0\nSource: hello\nBinary: hello hello-dbgsym\nArchitecture: amd64\nVersion: 2.10-3\n\
        Checksums-Md5:\n d41d8cd98f00b204e9800998ecf8427e 7 hello_2.10-3_amd64.deb\n\
        Checksums-Sha1:\n da39a3ee5e6b4b0d3255bfef95601890afd80709 7 hello_2.10-3_amd64.deb\n\
        Checksums-Sha256:\n e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 7 hello_2.10-3_amd64.deb\n\
        Build-Origin: Debian\nBuild-Architecture: amd64\nBuild-Date: Sun, 22 Nov 2026 09:00:00 +0000\n\
        Build-Path: /build/reproducible-path/hello-2.10\nBuild-Tainted-By:\n merged-usr-via-aliased-dirs\n\
        Installed-Build-Depends:\n autoconf (= 2.71-3),\n libc6:i386 (= 2.36-9)\n\
        Environment:\n DEB_BUILD_OPTIONS=\"parallel=2\"\n LC_ALL=\"C.UTF-8\"\n";

    #[test]
    fn a_record_is_read_and_printed_to_the_byte() {
        let info = Buildinfo::parse(TEXT).unwrap();
        assert_eq!((info.source.as_str(), info.source_version.as_str()), ("hello", "2.10-3"));
        assert_eq!(info.installed.len(), 2);
        assert_eq!(info.environment["DEB_BUILD_OPTIONS"], "parallel=2");
        assert_eq!(info.print(), TEXT);
    }

    #[test]
    fn a_binary_only_rebuild_names_its_source_and_its_entry() {
        let text = TEXT.replace("Source: hello\n", "Source: hello (2.10-3)\n").replace(
            "Version: 2.10-3\n",
            "Version: 2.10-3+b1\nBinary-Only-Changes:\n hello (2.10-3+b1) sid; urgency=low, binary-only=yes\n .\n   * Rebuild.\n",
        );
        let info = Buildinfo::parse(&text).unwrap();
        assert_eq!((info.source_version.as_str(), info.version.as_str()), ("2.10-3", "2.10-3+b1"));
        assert_eq!(info.print(), text);
        // Found by fuzzing: a line of blanks ended the stanza when it was written again.
        let blank = text.replace("Changes:\n", "Changes:\r\t\r\n");
        assert_ne!(blank, text);
        assert_eq!(Buildinfo::parse(&blank).unwrap().print(), text);
    }

    #[test]
    fn what_is_no_record_is_refused_with_its_line() {
        for (good, bad) in [
            ("Format: 1.0", "Format: 7"),
            ("autoconf (= 2.71-3)", "autoconf (>= 2.71-3)"),
            ("LC_ALL=\"C.UTF-8\"", "LC_ALL=C.UTF-8"),
            ("hello_2.10-3_amd64.deb\nBuild-Origin", "../x.deb\nBuild-Origin"),
            ("Version: 2.10-3", "Version: 2 10"),
            ("Source: hello", "Source: he llo"),
        ] {
            assert!(TEXT.contains(good), "{good}");
            assert!(Buildinfo::parse(&TEXT.replace(good, bad)).is_err(), "{bad}");
        }
        assert!(Buildinfo::parse(&format!("{TEXT}\nFormat: 1.0\n")).is_err());
        assert!(Buildinfo::parse(&TEXT.replace("Version: 2.10-3", "Version: 1\nVersion: 2")).is_err());
        assert!(Buildinfo::parse("").is_err());
        let twice = " e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 7 hello_2.10-3_amd64.deb\n";
        assert!(Buildinfo::parse(&TEXT.replace(twice, &twice.repeat(2))).is_err());
        let none = Buildinfo::parse(&TEXT.replace(twice, "")).unwrap_err().to_string();
        assert!(none.contains("Checksums-Sha256"), "{none}");
    }
}
