//! `WHEEL` and `METADATA` of a wheel: header fields as in mail (PEP 427, PEP 566).
//!
//! Fields may come in any order, unknown ones are left out; a body after an empty line is not read. What a rebuild rests on
//! (generator, tags, name, version, requirements) must be there once and be text.

/// More than any such file has, descriptions included.
pub const MOST_BYTES: u64 = 4 << 20;

/// What `WHEEL` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wheel {
    /// Programs that wrote it, in order: the first wrote it, others changed it. At least one.
    pub generators: Vec<String>,
    /// Whether it goes to `purelib`.
    pub root_is_purelib: Option<String>,
    /// Tags, each a single one.
    pub tags: Vec<String>,
}

/// What `METADATA` says, as far as kiln asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metadata {
    /// Project, as its author spells it.
    pub name: String,
    /// Version.
    pub version: String,
    /// Pythons that it runs on.
    pub requires_python: Option<String>,
    /// What it needs to run (PEP 508).
    pub requires: Vec<String>,
}

/// What `METADATA`, or `PKG-INFO` of a source distribution, says of licence and author. All of it may be absent.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct About {
    /// `License-Expression`: an SPDX expression (PEP 639).
    pub licence_expression: Option<String>,
    /// `License`: any text.
    pub licence: Option<String>,
    /// Last words of classifiers that begin with `License`.
    pub licence_classifiers: Vec<String>,
    /// `Author` and `Author-email`, as `Name <address>` where both are known.
    pub author: Option<String>,
}

/// Why a file of `.dist-info` cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DistInfoError {
    /// Not UTF-8.
    #[error("not UTF-8 text")]
    NotText,
    /// A line that is no field.
    #[error("line {line}: expected `Field: value`")]
    Malformed {
        /// Counted from 1.
        line: usize,
    },
    /// A field that must be there is not.
    #[error("has no field {field}")]
    Missing {
        /// Its name.
        field: &'static str,
    },
    /// A field that may be there once.
    #[error("has the field {field} twice")]
    Twice {
        /// Its name.
        field: &'static str,
    },
}

/// The fields of a header, in order.
struct Fields(Vec<(String, String)>);

impl Fields {
    fn parse(bytes: &[u8]) -> Result<Self, DistInfoError> {
        let text = std::str::from_utf8(bytes).map_err(|_| DistInfoError::NotText)?;
        let mut fields: Vec<(String, String)> = Vec::new();
        for (number, line) in text.lines().enumerate() {
            if line.is_empty() {
                break;
            }
            if line.starts_with([' ', '\t']) {
                let (_, value) = fields.last_mut().ok_or(DistInfoError::Malformed { line: number + 1 })?;
                value.push('\n');
                value.push_str(line.trim_start());
                continue;
            }
            let (name, value) = line.split_once(':').ok_or(DistInfoError::Malformed { line: number + 1 })?;
            fields.push((name.trim().to_string(), value.trim().to_string()));
        }
        Ok(Self(fields))
    }

    fn all(&self, field: &str) -> Vec<String> {
        self.0.iter().filter(|(name, _)| name.eq_ignore_ascii_case(field)).map(|(_, value)| value.clone()).collect()
    }

    fn at_most_one(&self, field: &'static str) -> Result<Option<String>, DistInfoError> {
        let mut all = self.all(field);
        if all.len() > 1 { Err(DistInfoError::Twice { field }) } else { Ok(all.pop()) }
    }

    fn one(&self, field: &'static str) -> Result<String, DistInfoError> {
        self.at_most_one(field)?.filter(|value| !value.is_empty()).ok_or(DistInfoError::Missing { field })
    }
}

impl Wheel {
    /// Parses the file.
    pub fn parse(bytes: &[u8]) -> Result<Self, DistInfoError> {
        let fields = Fields::parse(bytes)?;
        fields.one("Wheel-Version")?;
        let generators = fields.all("Generator");
        if generators.is_empty() {
            return Err(DistInfoError::Missing { field: "Generator" });
        }
        let tags = fields.all("Tag");
        if tags.is_empty() {
            return Err(DistInfoError::Missing { field: "Tag" });
        }
        Ok(Self { generators, root_is_purelib: fields.at_most_one("Root-Is-Purelib")?, tags })
    }
}

impl Metadata {
    /// Parses the file.
    pub fn parse(bytes: &[u8]) -> Result<Self, DistInfoError> {
        let fields = Fields::parse(bytes)?;
        Ok(Self {
            name: fields.one("Name")?,
            version: fields.one("Version")?,
            requires_python: fields.at_most_one("Requires-Python")?.filter(|value| !value.is_empty()),
            requires: fields.all("Requires-Dist"),
        })
    }
}

impl About {
    /// Parses the file. A field that stands twice is read once: nothing rests on these.
    pub fn parse(bytes: &[u8]) -> Result<Self, DistInfoError> {
        let fields = Fields::parse(bytes)?;
        let first = |field: &str| {
            let said = fields.all(field).into_iter().next().map(|value| value.trim().to_string());
            said.filter(|value| !value.is_empty() && value != "UNKNOWN")
        };
        let classifiers = fields.all("Classifier");
        let of_licence = classifiers.iter().filter(|classifier| classifier.starts_with("License ::"));
        let email = first("Author-email").or_else(|| first("Maintainer-email"));
        let author = match (first("Author").or_else(|| first("Maintainer")), email) {
            (Some(name), Some(email)) if !email.contains('<') => Some(format!("{name} <{email}>")),
            (name, email) => email.filter(|email| email.contains('<')).or(name),
        };
        Ok(Self {
            licence_expression: first("License-Expression"),
            licence: first("License"),
            licence_classifiers: of_licence.filter_map(|c| Some(c.rsplit_once("::")?.1.trim().to_string())).collect(),
            author,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHEEL: &str =
        "Wheel-Version: 1.0\nGenerator: flit 3.12.0\nRoot-Is-Purelib: true\nTag: py2-none-any\nTag: py3-none-any\n";

    #[test]
    fn a_wheel_says_who_wrote_it_and_for_what() {
        let wheel = Wheel::parse(WHEEL.as_bytes()).unwrap();
        assert_eq!(wheel.generators, ["flit 3.12.0"]);
        assert_eq!(wheel.tags, ["py2-none-any", "py3-none-any"]);
        let two = Wheel::parse(format!("{WHEEL}Generator: delocate 0.12\r\n").as_bytes()).unwrap();
        assert_eq!(two.generators.len(), 2);
    }

    #[test]
    fn metadata_ends_where_the_description_begins() {
        let text = "Metadata-Version: 2.1\nName: a\nVersion: 1\nRequires-Dist: b>=1\nSummary: one\n  two\nrequires-dist: c\n\nRequires-Dist: no\n";
        let metadata = Metadata::parse(text.as_bytes()).unwrap();
        assert_eq!((metadata.name.as_str(), metadata.version.as_str()), ("a", "1"));
        assert_eq!(metadata.requires, ["b>=1", "c"]);
    }

    #[test]
    fn licence_and_author_are_told_where_they_are_said() {
        let text = "Name: a\nLicense: UNKNOWN\nLicense-Expression: MIT\nClassifier: License :: OSI Approved :: BSD License\n\
            Classifier: Other\nAuthor: A\nAuthor-email: a@example.org\n\nLicense: body\n";
        let about = About::parse(text.as_bytes()).unwrap();
        assert_eq!(about.licence_expression.as_deref(), Some("MIT"));
        assert_eq!((about.licence, about.licence_classifiers), (None, vec!["BSD License".to_string()]));
        assert_eq!(about.author.as_deref(), Some("A <a@example.org>"));
        let other = About::parse(b"Author-email: B <b@example.org>, C <c@example.org>\n").unwrap();
        assert_eq!(other.author.as_deref(), Some("B <b@example.org>, C <c@example.org>"));
        assert_eq!(About::parse(b"Name: a\n"), Ok(About::default()));
    }

    #[test]
    fn what_is_missing_double_or_no_text_is_named() {
        let missing = |field| Err(DistInfoError::Missing { field });
        assert_eq!(Wheel::parse(b"Wheel-Version: 1.0\nTag: a\n"), missing("Generator"));
        assert_eq!(Wheel::parse(b"Wheel-Version: 1.0\nGenerator: a\n"), missing("Tag"));
        assert_eq!(Wheel::parse(b""), missing("Wheel-Version"));
        assert_eq!(Wheel::parse(b"\xff"), Err(DistInfoError::NotText));
        assert_eq!(Metadata::parse(b"Name: a\nVersion\n"), Err(DistInfoError::Malformed { line: 2 }));
        assert_eq!(Metadata::parse(b" a\n"), Err(DistInfoError::Malformed { line: 1 }));
        assert_eq!(Metadata::parse(b"Name: a\nName: b\nVersion: 1\n"), Err(DistInfoError::Twice { field: "Name" }));
    }
}
