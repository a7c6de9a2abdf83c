//! Whether a bill of materials has what a profile asks for.
//!
//! The NTIA's minimum elements: author and time of the document; supplier, name, version and another unique id of each
//! component; relationships. The stricter profiles ask for hashes and licences of each as well.

use serde_json::Value;

use crate::policy::SbomProfile;

/// In which format a bill is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    CycloneDx,
    Spdx2,
    Spdx3,
}

impl Form {
    /// By the predicate's type.
    pub(super) fn of(kind: &str) -> Option<Self> {
        match kind {
            "https://spdx.dev/Document/v2.3" | "https://spdx.dev/Document/v2.2" | "https://spdx.dev/Document" => {
                Some(Self::Spdx2)
            }
            "https://spdx.dev/Document/v3" => Some(Self::Spdx3),
            kind if kind == "https://cyclonedx.org/bom" || kind.starts_with("https://cyclonedx.org/bom/") => {
                Some(Self::CycloneDx)
            }
            _ => None,
        }
    }
}

/// The first thing that lacks, in words.
pub(super) fn lacks(form: Form, bill: &Value, profile: SbomProfile) -> Option<String> {
    match form {
        Form::CycloneDx => cyclonedx(bill, profile),
        Form::Spdx2 => spdx2(bill, profile),
        // Its graph of elements has no one place for them.
        Form::Spdx3 => {
            Some("an SPDX 3 document, of which kiln does not check a profile: give SPDX 2.3 or CycloneDX".into())
        }
    }
}

fn cyclonedx(bill: &Value, profile: SbomProfile) -> Option<String> {
    let metadata = &bill["metadata"];
    if !has(&metadata["timestamp"]) {
        return Some("metadata.timestamp".into());
    }
    if !has(&metadata["authors"]) && !has(&metadata["manufacturer"]) && !has(&metadata["supplier"]) {
        return Some("metadata.authors".into());
    }
    if !has(&bill["dependencies"]) {
        return Some("dependencies".into());
    }
    let strict = profile != SbomProfile::Ntia;
    let components = bill["components"].as_array().map(Vec::as_slice).unwrap_or_default();
    let named = [("metadata.component".to_owned(), &metadata["component"])].into_iter();
    let numbered = components.iter().enumerate().map(|(number, c)| (format!("components[{number}]"), c));
    for (place, component) in named.chain(numbered) {
        let alternatives: [(&str, &[&str]); 6] = [
            ("name", &["name"]),
            ("version", &["version"]),
            ("supplier", &["supplier", "manufacturer", "publisher", "authors", "author"]),
            ("purl", &["purl", "cpe", "swid", "bom-ref"]),
            ("hashes", &["hashes"]),
            ("licenses", &["licenses"]),
        ];
        for (what, members) in alternatives.into_iter().take(if strict { 6 } else { 4 }) {
            if !members.iter().any(|member| has(&component[*member])) {
                return Some(format!("{place}.{what}"));
            }
        }
    }
    None
}

fn spdx2(bill: &Value, profile: SbomProfile) -> Option<String> {
    let creation = &bill["creationInfo"];
    for (place, value) in [
        ("creationInfo.created", &creation["created"]),
        ("creationInfo.creators", &creation["creators"]),
        ("relationships", &bill["relationships"]),
        ("packages", &bill["packages"]),
    ] {
        if !has(value) {
            return Some(place.into());
        }
    }
    for (number, package) in bill["packages"].as_array().into_iter().flatten().enumerate() {
        let mut wanted = vec!["name", "versionInfo", "supplier", "SPDXID"];
        if profile != SbomProfile::Ntia {
            wanted.extend(["checksums", "licenseConcluded"]);
        }
        for member in wanted {
            if !has(&package[member]) {
                return Some(format!("packages[{number}].{member}"));
            }
        }
    }
    None
}

/// Whether something is said: neither nothing nor that nothing is known.
fn has(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::String(text) => !text.is_empty() && text != "NOASSERTION",
        Value::Array(items) => !items.is_empty(),
        Value::Object(members) => !members.is_empty(),
        Value::Bool(true) | Value::Number(_) => true,
    }
}
