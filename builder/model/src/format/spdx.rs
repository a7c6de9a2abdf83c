//! SPDX 2.3 as JSON: the bill of a build, for readers of that format.
//!
//! [`print()`] gives the same bytes for the same facts. The product depends on every input and package: a package that is
//! only a tool of the build counts as floating to checkers, so it is both (`BUILD_TOOL_OF` besides). A licence is concluded
//! where SPDX's list knows all of it. Nothing is read here.
//! Reference: <https://spdx.github.io/spdx-spec/v2.3/>.

use serde_json::{Value, json};

use crate::digest::Digest;
use crate::sbom::{Component, Kind, Party, PartyKind, Sbom, document, without_nulls};
use crate::statement::KILN_URI;

const NO_ASSERTION: &str = "NOASSERTION";

/// The bill as a document of this format.
pub fn print(sbom: &Sbom) -> Vec<u8> {
    document(value(sbom))
}

fn value(sbom: &Sbom) -> Value {
    let product = &sbom.product;
    let mut relationships = vec![relation("SPDXRef-DOCUMENT", "DESCRIBES", &id(&product.id))];
    for output in &sbom.outputs {
        relationships.push(relation(&id(&product.id), "CONTAINS", &id(&output.id)));
    }
    for one in sbom.needed() {
        relationships.push(relation(&id(&product.id), "DEPENDS_ON", &id(&one.id)));
    }
    for package in &sbom.packages {
        relationships.push(relation(&id(&package.id), "BUILD_TOOL_OF", &id(&product.id)));
    }
    for (from, to) in &sbom.depends {
        relationships.extend(to.iter().map(|to| relation(&id(from), "DEPENDS_ON", &id(to))));
    }
    let references = sbom
        .references()
        .into_iter()
        .map(|(id, reference)| json!({ "licenseId": id, "name": reference.name, "extractedText": reference.text }));
    let list = spdx::license_version().split('.').take(2).collect::<Vec<_>>().join(".");
    let comment = sbom.run.as_ref().map(|run| format!("built from {} to {}", run.started, run.finished));
    without_nulls(json!({
        "SPDXID": "SPDXRef-DOCUMENT",
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "name": format!("{}-{}", product.name, product.version),
        "documentNamespace": format!("{KILN_URI}/sbom/{}", sbom.uuid()),
        "comment": comment,
        "creationInfo": {
            "created": sbom.moment,
            "creators": [party(&sbom.author), format!("Tool: kiln-{}", sbom.kiln)],
            "licenseListVersion": list,
            "comment": format!("SBOM type: build. Derivation {}", sbom.build.derivation),
        },
        "packages": sbom.components().map(package).collect::<Vec<_>>(),
        "relationships": relationships,
        "hasExtractedLicensingInfos": references.collect::<Vec<_>>(),
    }))
}

fn relation(from: &str, kind: &str, to: &str) -> Value {
    json!({ "spdxElementId": from, "relationshipType": kind, "relatedSpdxElement": to })
}

fn package(one: &Component) -> Value {
    let purpose = match one.kind {
        Kind::Product => "APPLICATION",
        Kind::File => "FILE",
        Kind::Tree => "ARCHIVE",
        Kind::Source => "SOURCE",
        Kind::Package => "INSTALL",
    };
    let declared = one.licence.as_ref().map_or(NO_ASSERTION, |licence| &licence.expression);
    let concluded = one.licence.as_ref().filter(|licence| licence.is_known());
    let checksums = one.bytes().map(|digest| json!([{ "algorithm": "SHA256", "checksumValue": digest }]));
    let purl = one.purl.as_ref().map(
        |purl| json!([{ "referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": purl }]),
    );
    let source = one.source.as_ref().map(|(name, version)| format!("built from the source package {name} {version}"));
    without_nulls(json!({
        "SPDXID": id(&one.id),
        "name": one.name,
        "versionInfo": one.version,
        "supplier": party(&one.supplier),
        "originator": one.originator.as_ref().map(party),
        "description": one.description,
        "downloadLocation": one.web_location().unwrap_or(NO_ASSERTION),
        "filesAnalyzed": false,
        "checksums": checksums,
        "primaryPackagePurpose": purpose,
        "licenseDeclared": declared,
        "licenseConcluded": concluded.map_or(NO_ASSERTION, |licence| &licence.expression),
        "copyrightText": one.copyright.as_deref().unwrap_or(NO_ASSERTION),
        "sourceInfo": source,
        "externalRefs": purl,
    }))
}

/// `Person: name (address)`, without what would end the address.
fn party(party: &Party) -> String {
    let kind = match party.kind {
        PartyKind::Person => "Person",
        PartyKind::Organization => "Organization",
    };
    let name = party.name.replace(['(', ')'], "");
    match &party.email {
        Some(email) => format!("{kind}: {} ({email})", name.trim()),
        None => format!("{kind}: {}", name.trim()),
    }
}

/// Letters, digits, dots and hyphens only; another text gets digits of its digest, so that no two become one.
pub(super) fn id(text: &str) -> String {
    let good = |c: char| c.is_ascii_alphanumeric() || c == '.' || c == '-';
    let word: String = text.chars().map(|c| if good(c) { c } else { '-' }).collect();
    match word == text {
        true => format!("SPDXRef-{word}"),
        false => format!("SPDXRef-{word}-{}", &Digest::of(text).to_string()[..8]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sbom::samples::sample;

    #[test]
    fn the_printed_bytes_do_not_move() {
        let text = String::from_utf8(print(&sample())).unwrap();
        assert_eq!(text, include_str!("../../tests/golden/sbom.spdx.json"));
    }

    #[test]
    fn names_with_other_characters_stay_apart() {
        assert_eq!(id("package-gcc-12-amd64"), "SPDXRef-package-gcc-12-amd64");
        assert_ne!(id("package-g++"), id("package-g--"));
        assert_ne!(id("package-g++"), id("package-g+-"));
    }

    #[test]
    fn an_unknown_licence_is_declared_with_its_text_and_not_concluded() {
        let value = value(&sample());
        let compiler = &value["packages"][4];
        assert_eq!(compiler["name"], "g++");
        assert_eq!(compiler["licenseConcluded"], "NOASSERTION");
        let reference = value["hasExtractedLicensingInfos"][0]["licenseId"].as_str().unwrap();
        assert_eq!(compiler["licenseDeclared"], format!("GPL-3.0-or-later AND {reference}"));
        assert_eq!(value["packages"][0]["licenseConcluded"], "GPL-3.0-or-later");
        assert_eq!(value["packages"][5]["licenseDeclared"], "NOASSERTION");
    }
}
