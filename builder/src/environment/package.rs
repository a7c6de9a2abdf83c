//! What the control file of a package says, as far as assembling needs it.
//!
//! The paragraph is kept as text, because dpkg's database holds it whole. A package must be the one that the lock
//! names: a right digest under a wrong name is still a wrong lock.

use std::collections::BTreeMap;

use kiln_model::debian::dependency;
use kiln_model::debian::version::Version;

/// One control paragraph.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Paragraph {
    text: String,
    fields: BTreeMap<String, String>,
}

impl Paragraph {
    /// A paragraph from its text, or what is wrong with it.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut fields: BTreeMap<String, String> = BTreeMap::new();
        let mut last: Option<String> = None;
        let text = text.trim_end_matches('\n');
        for (number, line) in text.lines().enumerate() {
            let number = number + 1;
            if line.starts_with([' ', '\t']) {
                let field = last.as_ref().ok_or_else(|| format!("line {number}: continues no field"))?;
                let value = fields.get_mut(field).expect("the last field was inserted");
                value.push('\n');
                value.push_str(line);
                continue;
            }
            let (name, value) = line.split_once(':').ok_or_else(|| format!("line {number}: no field"))?;
            let name = name.to_ascii_lowercase();
            if name.is_empty() || fields.insert(name.clone(), value.trim().into()).is_some() {
                return Err(format!("line {number}: field {name:?} stands there twice or has no name"));
            }
            last = Some(name);
        }
        Ok(Self { text: format!("{text}\n"), fields })
    }

    /// A field by its lower-case name.
    pub(super) fn field(&self, name: &str) -> Option<&str> {
        self.fields.get(name).map(String::as_str)
    }

    /// The package's name.
    pub(super) fn name(&self) -> &str {
        self.field("package").unwrap_or_default()
    }

    /// How dpkg names the files of this package in `info/`.
    pub(super) fn info_name(&self) -> String {
        match (self.field("multi-arch"), self.field("architecture")) {
            (Some("same"), Some(architecture)) => format!("{}:{architecture}", self.name()),
            _ => self.name().to_owned(),
        }
    }

    /// The paragraph of `var/lib/dpkg/status` for this package, unpacked.
    pub(super) fn unpacked(&self, conffiles: &str) -> String {
        let (package, rest) = self.text.split_once('\n').unwrap_or((&self.text, ""));
        format!("{package}\nStatus: install ok unpacked\n{rest}{conffiles}\n")
    }

    /// Whether this package may take files from `other`, as dpkg's `does_replace` decides.
    pub(super) fn replaces(&self, other: &Paragraph) -> bool {
        let Some(clauses) = self.field("replaces").and_then(|field| dependency::parse(field).ok()) else {
            return false;
        };
        let version = other.field("version").and_then(|version| Version::parse(version).ok());
        let provided = other.field("provides").and_then(|field| dependency::parse(field).ok()).unwrap_or_default();
        let provides =
            |name: &str| provided.iter().flat_map(|clause| &clause.0).any(|relation| relation.package == name);
        clauses.iter().flat_map(|clause| &clause.0).any(|relation| match relation.package == other.name() {
            true => relation.accepts(version),
            false => relation.accepts(None) && provides(relation.package),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paragraph(text: &str) -> Paragraph {
        Paragraph::parse(text).unwrap()
    }

    #[test]
    fn a_paragraph_keeps_its_text_and_gains_a_status() {
        let text = "Package: a\nVersion: 1\nDescription: x\n more\n";
        assert_eq!(
            paragraph(text).unpacked("Conffiles:\n /etc/a 00\n"),
            "Package: a\nStatus: install ok unpacked\nVersion: 1\nDescription: x\n more\nConffiles:\n /etc/a 00\n\n"
        );
        assert_eq!(paragraph(text).field("description"), Some("x\n more"));
    }

    #[test]
    fn only_packages_of_several_architectures_carry_one_in_their_file_names() {
        assert_eq!(paragraph("Package: a\nArchitecture: amd64\nMulti-Arch: same").info_name(), "a:amd64");
        assert_eq!(paragraph("Package: a\nArchitecture: amd64\nMulti-Arch: foreign").info_name(), "a");
        assert_eq!(paragraph("Package: a\nArchitecture: all").info_name(), "a");
    }

    #[test]
    fn twice_the_same_field_and_text_without_a_field_are_refused() {
        assert!(Paragraph::parse("Package: a\npackage: b").is_err());
        assert!(Paragraph::parse(" a").is_err());
        assert!(Paragraph::parse("a").is_err());
    }

    #[test]
    fn a_file_is_taken_only_within_the_versions_that_replaces_names() {
        let old = paragraph("Package: b\nVersion: 1.0-1\nProvides: virtual");
        assert!(paragraph("Package: a\nReplaces: b (<< 1.0-2)").replaces(&old));
        assert!(!paragraph("Package: a\nReplaces: b (<< 1.0-1)").replaces(&old));
        assert!(paragraph("Package: a\nReplaces: c, virtual").replaces(&old));
        assert!(!paragraph("Package: a\nReplaces: c").replaces(&old));
        assert!(!paragraph("Package: a").replaces(&old));
    }
}
