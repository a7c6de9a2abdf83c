//! `Sources` indices: one stanza per source package.
//!
//! Same rules as for binary packages: fields that are needed, borrowed; a stanza without a SHA-256 of each file is refused.

use super::control::{Stanza, Stanzas};
use super::packages::{IndexError, is_archive_path};
use super::release::listed;
use crate::debian::version::Version;
use crate::digest::Digest;

/// One source package.
#[derive(Debug, Clone)]
pub struct Source<'a> {
    /// `Package`
    pub name: &'a str,
    /// `Version`
    pub version: Version<'a>,
    /// `Directory`: where its files are in the archive.
    pub directory: &'a str,
    /// `Checksums-Sha256`
    pub files: Vec<File<'a>>,
    /// `Build-Depends`, `Build-Depends-Arch`, `Build-Depends-Indep`, in this order, empty if absent.
    pub build_depends: [&'a str; 3],
    /// `Build-Conflicts`, `Build-Conflicts-Arch`, `Build-Conflicts-Indep`, in this order, empty if absent.
    pub build_conflicts: [&'a str; 3],
    /// Line of the stanza in its index, from 1.
    pub line: usize,
}

/// One file of a source package.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct File<'a> {
    /// Its name in the directory.
    pub name: &'a str,
    /// Bytes.
    pub size: u64,
    /// Digest.
    pub sha256: Digest,
}

/// The fields of `build_depends`, by name.
pub const BUILD_DEPENDS: [&str; 3] = ["Build-Depends", "Build-Depends-Arch", "Build-Depends-Indep"];
/// The fields of `build_conflicts`, by name.
pub const BUILD_CONFLICTS: [&str; 3] = ["Build-Conflicts", "Build-Conflicts-Arch", "Build-Conflicts-Indep"];

/// Walks an index, calling `each` for the source packages whose name is `wanted`. The others are not looked into.
pub fn read<'a, E: From<IndexError>>(
    text: &'a str,
    wanted: impl Fn(&str) -> bool,
    mut each: impl FnMut(Source<'a>) -> Result<(), E>,
) -> Result<(), E> {
    let mut stanzas = Stanzas::new(text);
    while let Some(stanza) = stanzas.next().map_err(IndexError::from)? {
        let name = stanza.value("Package").ok_or_else(|| missing(stanza, "Package"))?;
        if wanted(name) {
            each(Source::read(stanza, name)?)?;
        }
    }
    Ok(())
}

/// The source package of a `.dsc` (dsc(5)), from which a signature must have been taken off: its files lie beside it, and it does not
/// list itself.
pub fn dsc(text: &str) -> Result<Source<'_>, IndexError> {
    let mut stanzas = Stanzas::new(text);
    let nothing = || IndexError::Missing { line: 1, package: "?".into(), field: "Source" };
    let stanza = stanzas.next()?.ok_or_else(nothing)?;
    let source = stanza.field("Source").ok_or_else(nothing)?;
    let refuse = |line, field, expected, found: &str| IndexError::Value {
        line,
        package: source.value.into(),
        field,
        expected,
        found: found.chars().take(120).collect(),
    };
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"+-.".contains(&b);
    if source.value.len() < 2 || !source.value.bytes().all(fits) || source.value.starts_with(['-', '.', '+']) {
        return Err(refuse(source.line, "Source", "a package's name", source.value));
    }
    let read = Source::read_at(stanza, source.value, "")?;
    let mut names: Vec<&str> = read.files.iter().map(|file| file.name).collect();
    names.sort_unstable();
    if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(refuse(read.line, "Checksums-Sha256", "each file once", pair[0]));
    }
    match stanzas.next()? {
        None => Ok(read),
        Some(further) => Err(refuse(further.line(), "Format", "one stanza", "a second one")),
    }
}

fn missing(stanza: &Stanza<'_>, field: &'static str) -> IndexError {
    IndexError::Missing { line: stanza.line(), package: stanza.value("Package").unwrap_or("?").into(), field }
}

impl<'a> Source<'a> {
    fn read(stanza: &Stanza<'a>, name: &'a str) -> Result<Self, IndexError> {
        let directory = stanza.field("Directory").ok_or_else(|| missing(stanza, "Directory"))?;
        if !is_archive_path(directory.value) {
            return Err(IndexError::Value {
                line: directory.line,
                package: name.into(),
                field: "Directory",
                expected: "a path inside the archive",
                found: directory.value.chars().take(120).collect(),
            });
        }
        Self::read_at(stanza, name, directory.value)
    }

    fn read_at(stanza: &Stanza<'a>, name: &'a str, directory: &'a str) -> Result<Self, IndexError> {
        let line = stanza.line();
        let need = |field| stanza.field(field).ok_or_else(|| missing(stanza, field));
        let value = |line, field, expected, found: &str| IndexError::Value {
            line,
            package: name.into(),
            field,
            expected,
            found: found.chars().take(120).collect(),
        };
        let version = Version::parse(need("Version")?.value).map_err(|source| IndexError::Version {
            line,
            package: name.into(),
            source,
        })?;
        let mut files = Vec::new();
        for (line, text) in need("Checksums-Sha256")?.lines() {
            match listed(text) {
                Some((sha256, size, name)) if !name.contains('/') => files.push(File { name, size, sha256 }),
                _ => return Err(value(line, "Checksums-Sha256", "digest, size and a file name", text)),
            }
        }
        let three = |names: [&str; 3]| names.map(|name| stanza.value(name).unwrap_or(""));
        Ok(Self {
            name,
            version,
            directory,
            files,
            build_depends: three(BUILD_DEPENDS),
            build_conflicts: three(BUILD_CONFLICTS),
            line,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HELLO: &str = "Package: hello\nVersion: 2.10-3\nDirectory: pool/main/h/hello\nBuild-Depends: debhelper\n\
        Checksums-Sha256:\n e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 7 hello.dsc\n\nPackage: bad\n";

    fn all(text: &str) -> Result<Vec<Source<'_>>, IndexError> {
        let mut all = Vec::new();
        let wanted = |name: &str| name == "hello";
        read(text, wanted, |source| {
            all.push(source);
            Ok::<_, IndexError>(())
        })?;
        Ok(all)
    }

    #[test]
    fn only_the_wanted_stanza_is_looked_into() {
        let all = all(HELLO).unwrap();
        assert_eq!(all.len(), 1);
        assert_eq!((all[0].files[0].name, all[0].build_depends[0]), ("hello.dsc", "debhelper"));
    }

    #[test]
    fn a_dsc_is_a_source_whose_files_lie_beside_it() {
        let text =
            HELLO.split("\n\n").next().unwrap().replace("Package:", "Source:").replace("hello.dsc", "hello.tar.xz");
        let source = dsc(&text).unwrap();
        assert_eq!((source.name, source.directory, source.files[0].name), ("hello", "", "hello.tar.xz"));
        assert!(dsc(&text.replace("Source: hello", "Source: ../x")).is_err());
        assert!(
            dsc(&format!("{text}\n e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 7 hello.tar.xz\n"))
                .is_err()
        );
        assert!(dsc(&format!("{text}\n\nSource: a\n")).is_err());
        assert!(dsc("").is_err());
    }

    #[test]
    fn files_without_sha256_or_outside_their_directory_are_refused() {
        assert!(matches!(all(&HELLO.replace("Sha256", "Sha1")), Err(IndexError::Missing { .. })));
        assert!(matches!(all(&HELLO.replace("hello.dsc", "../hello.dsc")), Err(IndexError::Value { line: 6, .. })));
    }
}
