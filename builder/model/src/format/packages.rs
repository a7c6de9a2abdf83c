//! `Packages` indices: one stanza per binary package.
//!
//! Reads the fields that resolving and fetching need, borrows them, and refuses a stanza without the ones that identify
//! a file (Filename, Size, SHA256). Dependency fields stay text until someone asks for that package.

use super::control::{ControlError, Stanza, Stanzas};
use crate::debian::version::{Version, VersionError};
use crate::digest::Digest;

/// One binary package.
#[derive(Debug, Clone)]
pub struct Binary<'a> {
    /// `Package`
    pub name: &'a str,
    /// `Source`, empty if absent: then it is of the source package of its own name and version.
    pub source: &'a str,
    /// `Version`
    pub version: Version<'a>,
    /// `Architecture`
    pub architecture: &'a str,
    /// `Essential: yes`
    pub essential: bool,
    /// `Multi-Arch`
    pub multi_arch: MultiArch,
    /// `Priority`
    pub priority: Priority,
    /// `Pre-Depends`, empty if absent.
    pub pre_depends: &'a str,
    /// `Depends`, empty if absent.
    pub depends: &'a str,
    /// `Provides`, empty if absent.
    pub provides: &'a str,
    /// `Conflicts`, empty if absent.
    pub conflicts: &'a str,
    /// `Breaks`, empty if absent.
    pub breaks: &'a str,
    /// `Filename`: path in the archive.
    pub filename: &'a str,
    /// `Size`
    pub size: u64,
    /// `SHA256`
    pub sha256: Digest,
    /// Line of the stanza in its index, from 1.
    pub line: usize,
}

/// Whether a package answers for other architectures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MultiArch {
    /// `no`, or absent.
    No,
    /// `same`
    Same,
    /// `foreign`
    Foreign,
    /// `allowed`
    Allowed,
}

/// How basic a package is; the most basic first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// `required`
    Required,
    /// `important`
    Important,
    /// `standard`
    Standard,
    /// `optional`
    Optional,
    /// `extra`, or absent.
    Extra,
}

/// Why an index cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IndexError {
    /// Not a control file.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// A field that every stanza must have.
    #[error("line {line}: the stanza of {package} has no field {field}")]
    Missing {
        /// Line of the stanza, from 1.
        line: usize,
        /// The package, or `?`.
        package: String,
        /// Which field.
        field: &'static str,
    },
    /// A version that is none.
    #[error("line {line}: {package}")]
    Version {
        /// Line of the stanza, from 1.
        line: usize,
        /// The package.
        package: String,
        /// Why not.
        source: VersionError,
    },
    /// Any other field whose value cannot be.
    #[error("line {line}: {package}: {field}: expected {expected}, found {found:?}")]
    Value {
        /// Line of the field, from 1.
        line: usize,
        /// The package.
        package: String,
        /// Which field.
        field: &'static str,
        /// What would do.
        expected: &'static str,
        /// What stands there.
        found: String,
    },
}

/// Walks an index, calling `each` for every package.
pub fn read<'a, E: From<IndexError>>(
    text: &'a str,
    mut each: impl FnMut(Binary<'a>) -> Result<(), E>,
) -> Result<(), E> {
    let mut stanzas = Stanzas::new(text);
    while let Some(stanza) = stanzas.next().map_err(IndexError::from)? {
        each(Binary::read(stanza)?)?;
    }
    Ok(())
}

impl<'a> Binary<'a> {
    fn read(stanza: &Stanza<'a>) -> Result<Self, IndexError> {
        let mut source = "";
        let (mut name, mut version, mut architecture, mut filename, mut size, mut sha256) =
            (None, None, None, None, None, None);
        let (mut essential, mut multi_arch, mut priority) = (false, MultiArch::No, Priority::Extra);
        let (mut pre_depends, mut depends, mut provides, mut conflicts, mut breaks) = ("", "", "", "", "");
        for field in stanza.fields() {
            match field.name.to_ascii_lowercase_in(&mut [0; 16]) {
                b"package" => name = Some(field.value),
                b"source" => source = field.value,
                b"version" => version = Some(field.value),
                b"architecture" => architecture = Some(field.value),
                b"filename" => filename = Some(field),
                b"size" => size = Some(field),
                b"sha256" => sha256 = Some(field),
                b"essential" => essential = field.value.eq_ignore_ascii_case("yes"),
                b"multi-arch" => {
                    multi_arch = match field.value {
                        "same" => MultiArch::Same,
                        "foreign" => MultiArch::Foreign,
                        "allowed" => MultiArch::Allowed,
                        _ => MultiArch::No,
                    }
                }
                b"priority" => {
                    priority = match field.value {
                        "required" => Priority::Required,
                        "important" => Priority::Important,
                        "standard" => Priority::Standard,
                        "optional" => Priority::Optional,
                        _ => Priority::Extra,
                    }
                }
                b"pre-depends" => pre_depends = field.value,
                b"depends" => depends = field.value,
                b"provides" => provides = field.value,
                b"conflicts" => conflicts = field.value,
                b"breaks" => breaks = field.value,
                _ => {}
            }
        }
        let line = stanza.line();
        let missing = |field| IndexError::Missing { line, package: name.unwrap_or("?").into(), field };
        let name = name.ok_or_else(|| missing("Package"))?;
        let version = Version::parse(version.ok_or_else(|| missing("Version"))?);
        let (filename, size) = (filename.ok_or_else(|| missing("Filename"))?, size.ok_or_else(|| missing("Size"))?);
        let sha256 = sha256.ok_or_else(|| missing("SHA256"))?;
        let value = |field: &super::control::Field<'_>, name_of, expected| IndexError::Value {
            line: field.line,
            package: name.into(),
            field: name_of,
            expected,
            found: field.value.chars().take(120).collect(),
        };
        if !is_archive_path(filename.value) {
            return Err(value(filename, "Filename", "a path inside the archive"));
        }
        Ok(Self {
            name,
            source,
            version: version.map_err(|source| IndexError::Version { line, package: name.into(), source })?,
            architecture: architecture.ok_or_else(|| missing("Architecture"))?,
            essential,
            multi_arch,
            priority,
            pre_depends,
            depends,
            provides,
            conflicts,
            breaks,
            filename: filename.value,
            size: size.value.parse().map_err(|_| value(size, "Size", "a number of bytes"))?,
            sha256: sha256.value.parse().map_err(|_| value(sha256, "SHA256", "64 hexadecimal digits"))?,
            line,
        })
    }
}

impl<'a> Binary<'a> {
    /// Name and version of the source package that it was built from (Policy 5.6.1).
    pub fn source_package(&self) -> (&'a str, &'a str) {
        source_package(self.source, self.name, self.version.as_str())
    }
}

/// Name and version in a `Source` field of the binary package `name` `version`.
pub fn source_package<'a>(field: &'a str, name: &'a str, version: &'a str) -> (&'a str, &'a str) {
    match field.split_once('(') {
        _ if field.is_empty() => (name, version),
        Some((source, rest)) => (source.trim_ascii(), rest.trim_ascii_end().trim_end_matches(')').trim_ascii()),
        None => (field, version),
    }
}

/// Relative, without empty, `.` or `..` parts, printable.
pub(super) fn is_archive_path(path: &str) -> bool {
    path.bytes().all(|b| b.is_ascii_graphic()) && path.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

/// Field names compare without case; folding into a buffer lets `match` do it at once.
trait Folded {
    fn to_ascii_lowercase_in<'b>(&self, buffer: &'b mut [u8; 16]) -> &'b [u8];
}

impl Folded for str {
    /// Empty for names longer than the buffer: none of those is read.
    fn to_ascii_lowercase_in<'b>(&self, buffer: &'b mut [u8; 16]) -> &'b [u8] {
        let Some(part) = buffer.get_mut(..self.len()) else { return &[] };
        part.copy_from_slice(self.as_bytes());
        part.make_ascii_lowercase();
        part
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HELLO: &str = "Package: hello\nVersion: 2.10-3\nArchitecture: amd64\nPriority: optional\nMulti-Arch: foreign\n\
        Depends: libc6 (>= 2.34)\nFilename: pool/main/h/hello/hello_2.10-3_amd64.deb\nSize: 53076\n\
        SHA256: e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\n";

    fn all(text: &str) -> Result<Vec<Binary<'_>>, IndexError> {
        let mut all = Vec::new();
        read(text, |binary| {
            all.push(binary);
            Ok::<_, IndexError>(())
        })?;
        Ok(all)
    }

    #[test]
    fn a_stanza_is_read() {
        let all = all(HELLO).unwrap();
        assert_eq!((all[0].name, all[0].depends, all[0].size), ("hello", "libc6 (>= 2.34)", 53076));
        assert_eq!((all[0].multi_arch, all[0].priority), (MultiArch::Foreign, Priority::Optional));
    }

    #[test]
    fn a_stanza_without_what_identifies_its_file_is_refused_with_its_line() {
        for field in ["Filename", "Size", "SHA256", "Version", "Architecture", "Package"] {
            let text = format!("\n\n{}", HELLO.replace(&format!("{field}: "), "X-Other: "));
            let error = all(&text).err();
            assert!(matches!(&error, Some(IndexError::Missing { line: 3, field: f, .. }) if *f == field), "{error:?}");
        }
    }

    #[test]
    fn values_that_cannot_be_are_refused_with_their_line() {
        assert!(matches!(all(&HELLO.replace("53076", "-1")), Err(IndexError::Value { line: 8, .. })));
        assert!(matches!(all(&HELLO.replace("e3b0", "zzzz")), Err(IndexError::Value { line: 9, .. })));
        assert!(matches!(all(&HELLO.replace("pool/main", "../..")), Err(IndexError::Value { line: 7, .. })));
        assert!(matches!(all(&HELLO.replace("2.10-3\n", "2 10\n")), Err(IndexError::Version { line: 1, .. })));
    }
}
