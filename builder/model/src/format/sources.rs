//! `Sources` indices: one stanza per source package.
//!
//! Same rules as for binary packages: fields that are needed, borrowed; a stanza without a SHA-256 of each file is refused.

use super::control::{Field, Stanza, Stanzas};
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

fn missing(stanza: &Stanza<'_>, field: &'static str) -> IndexError {
    IndexError::Missing { line: stanza.line(), package: stanza.value("Package").unwrap_or("?").into(), field }
}

impl<'a> Source<'a> {
    fn read(stanza: &Stanza<'a>, name: &'a str) -> Result<Self, IndexError> {
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
        let directory: &Field<'a> = need("Directory")?;
        if !is_archive_path(directory.value) {
            return Err(value(directory.line, "Directory", "a path inside the archive", directory.value));
        }
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
            directory: directory.value,
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
    fn files_without_sha256_or_outside_their_directory_are_refused() {
        assert!(matches!(all(&HELLO.replace("Sha256", "Sha1")), Err(IndexError::Missing { .. })));
        assert!(matches!(all(&HELLO.replace("hello.dsc", "../hello.dsc")), Err(IndexError::Value { line: 6, .. })));
    }
}
