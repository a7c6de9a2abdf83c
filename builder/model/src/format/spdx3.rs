//! SPDX 3.0.1 as JSON-LD with the Build profile: the bill of a build, for readers of that format.
//!
//! [`print()`] gives the same bytes for the same facts. The build is an element of its own: it has inputs, uses the
//! environment's packages as tools, is configured by the recipe, invoked by kiln, and has outputs. When it began and ended
//! is said only with [`crate::sbom::RunDetails`]. Nothing is read here.
//! Reference: <https://spdx.github.io/spdx-spec/v3.0.1/>.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::spdx::id;
use crate::digest::Digest;
use crate::sbom::{Component, Kind, Licence, Party, PartyKind, Sbom, document, without_nulls};
use crate::statement::KILN_URI;

const CREATION: &str = "_:creation";

/// The bill as a document of this format.
pub fn print(sbom: &Sbom) -> Vec<u8> {
    let space = format!("{KILN_URI}/sbom/{}", sbom.uuid());
    let mut graph = Graph { space, elements: Vec::new(), parties: BTreeMap::new(), relations: 0 };
    graph.fill(sbom);
    document(json!({ "@context": "https://spdx.org/rdf/3.0.1/spdx-context.jsonld", "@graph": graph.elements }))
}

struct Graph {
    space: String,
    elements: Vec<Value>,
    /// Agents that were told already.
    parties: BTreeMap<Party, String>,
    relations: usize,
}

impl Graph {
    fn fill(&mut self, sbom: &Sbom) {
        let author = self.party(&sbom.author);
        let kiln = self.element("SoftwareAgent", "kiln", json!({ "name": format!("kiln {}", sbom.kiln) }));
        let tool = self.element("Tool", "tool", json!({ "name": format!("kiln {}", sbom.kiln) }));
        let product = self.component(&sbom.product);
        let outputs: Vec<String> = sbom.outputs.iter().map(|one| self.component(one)).collect();
        let inputs: Vec<String> = sbom.inputs.iter().map(|one| self.component(one)).collect();
        let packages: Vec<String> = sbom.packages.iter().map(|one| self.component(one)).collect();
        let licences = sbom.components().filter_map(|one| Some((self.iri(&one.id), one.licence.as_ref()?)));
        let licences: Vec<(String, &Licence)> = licences.collect();
        self.licences(sbom, &licences);

        let build = self.build(sbom);
        let needed: Vec<String> = inputs.iter().chain(&packages).cloned().collect();
        self.relate(&product, "contains", outputs.clone());
        self.relate_scoped(&product, "dependsOn", needed);
        for (from, to) in &sbom.depends {
            let to = to.iter().map(|to| self.iri(to)).collect();
            self.relate_scoped(&self.iri(from), "dependsOn", to);
        }
        self.relate_scoped(&build, "hasInput", inputs);
        self.relate_scoped(&build, "usesTool", packages);
        self.relate_scoped(&build, "hasOutput", std::iter::once(product.clone()).chain(outputs).collect());
        self.relate_scoped(&build, "invokedBy", vec![kiln]);
        if let Some(recipe) = &sbom.build.recipe {
            let recipe = json!({
                "name": "recipe.toml",
                "software_primaryPurpose": "configuration",
                "verifiedUsing": [hash(recipe)],
            });
            let recipe = self.element("software_File", "recipe", recipe);
            self.relate_scoped(&recipe, "configures", vec![build]);
        }
        self.document(sbom, &author, &tool, &product);
    }

    fn build(&mut self, sbom: &Sbom) -> String {
        let build = &sbom.build;
        let entry = |(key, value): (&str, &str)| json!({ "type": "DictionaryEntry", "key": key, "value": value });
        let parameters = build.parameters.iter().map(|(name, value)| entry((name, value)));
        let script = build.script.as_ref().map(|script| entry(("script", script)));
        let environment = build.environment.map(|environment| environment.to_string());
        let epoch = sbom.moment.unix().to_string();
        let mut around = vec![("SOURCE_DATE_EPOCH", epoch.as_str()), ("system", &build.system)];
        around.extend(environment.as_deref().map(|environment| ("environment", environment)));
        let uri = sbom.product.purl.as_ref().map(|purl| [format!("{purl}#recipe.toml")]);
        self.element(
            "build_Build",
            "build",
            json!({
                "build_buildType": format!("{KILN_URI}/build/v1"),
                "build_buildId": build.derivation,
                "build_configSourceUri": build.recipe.as_ref().and(uri),
                "build_configSourceEntrypoint": build.recipe.as_ref().map(|_| ["recipe.toml"]),
                "build_configSourceDigest": build.recipe.as_ref().map(|digest| [hash(digest)]),
                "build_parameter": parameters.chain(script).collect::<Vec<_>>(),
                "build_environment": around.into_iter().map(entry).collect::<Vec<_>>(),
                "build_buildStartTime": sbom.run.as_ref().map(|run| run.started),
                "build_buildEndTime": sbom.run.as_ref().map(|run| run.finished),
            }),
        )
    }

    /// One element for each expression, and which components it is declared of, and concluded of.
    fn licences(&mut self, sbom: &Sbom, licences: &[(String, &Licence)]) {
        let texts = sbom.references().into_iter().map(|(id, reference)| {
            let text = json!({ "name": reference.name, "simplelicensing_licenseText": reference.text });
            (id.to_string(), self.element("simplelicensing_SimpleLicensingText", id, text))
        });
        let texts: BTreeMap<String, String> = texts.collect();
        let list = spdx::license_version().split('.').chain(["0"; 3]).take(3).collect::<Vec<_>>().join(".");
        let mut made = BTreeMap::new();
        for (component, licence) in licences {
            let expression = made.entry(licence.expression.clone()).or_insert_with(|| {
                let custom = licence.references.keys().filter_map(|id| Some((id, texts.get(id)?)));
                let custom = custom.map(|(id, iri)| json!({ "type": "DictionaryEntry", "key": id, "value": iri }));
                let custom: Vec<Value> = custom.collect();
                let name = format!("licence-{}", &Digest::of(&licence.expression).to_string()[..16]);
                let body = json!({
                    "simplelicensing_licenseExpression": licence.expression,
                    "simplelicensing_licenseListVersion": list,
                    "simplelicensing_customIdToUri": (!custom.is_empty()).then_some(custom),
                });
                self.element("simplelicensing_LicenseExpression", &name, body)
            });
            let expression = expression.clone();
            self.relate(component, "hasDeclaredLicense", vec![expression.clone()]);
            if licence.is_known() {
                self.relate(component, "hasConcludedLicense", vec![expression]);
            }
        }
    }

    fn component(&mut self, one: &Component) -> String {
        let purpose = match one.kind {
            Kind::Product => "application",
            Kind::File => "file",
            Kind::Tree => "archive",
            Kind::Source => "source",
            Kind::Package => "install",
        };
        let supplier = self.party(&one.supplier);
        let originator = one.originator.as_ref().map(|party| [self.party(party)]);
        let purl = one.purl.as_ref().map(|purl| {
            json!([{ "type": "ExternalIdentifier", "externalIdentifierType": "packageUrl", "identifier": purl }])
        });
        let source =
            one.source.as_ref().map(|(name, version)| format!("built from the source package {name} {version}"));
        let body = json!({
            "name": one.name,
            "description": one.description,
            "suppliedBy": supplier,
            "originatedBy": originator,
            "verifiedUsing": one.bytes().map(|digest| [hash(&digest)]),
            "externalIdentifier": purl,
            "software_packageVersion": one.version,
            "software_packageUrl": one.purl,
            "software_primaryPurpose": purpose,
            "software_copyrightText": one.copyright.as_deref().unwrap_or("NOASSERTION"),
            "software_downloadLocation": one.web_location(),
            "software_sourceInfo": source,
        });
        self.element("software_Package", &one.id, body)
    }

    fn party(&mut self, party: &Party) -> String {
        if let Some(known) = self.parties.get(party) {
            return known.clone();
        }
        let kind = match party.kind {
            PartyKind::Person => "Person",
            PartyKind::Organization => "Organization",
        };
        let email = party.email.as_ref().map(
            |email| json!([{ "type": "ExternalIdentifier", "externalIdentifierType": "email", "identifier": email }]),
        );
        let name = format!("party-{}", self.parties.len() + 1);
        let iri = self.element(kind, &name, json!({ "name": party.name, "externalIdentifier": email }));
        self.parties.insert(party.clone(), iri.clone());
        iri
    }

    fn relate(&mut self, from: &str, kind: &str, to: Vec<String>) {
        self.relation("Relationship", from, kind, to);
    }

    /// What holds of the build only.
    fn relate_scoped(&mut self, from: &str, kind: &str, to: Vec<String>) {
        self.relation("LifecycleScopedRelationship", from, kind, to);
    }

    fn relation(&mut self, class: &str, from: &str, kind: &str, to: Vec<String>) {
        if to.is_empty() {
            return;
        }
        self.relations += 1;
        let scope = (class == "LifecycleScopedRelationship").then_some("build");
        let name = format!("relation-{}", self.relations);
        self.element(class, &name, json!({ "from": from, "relationshipType": kind, "to": to, "scope": scope }));
    }

    fn document(&mut self, sbom: &Sbom, author: &str, tool: &str, product: &str) {
        let all: Vec<Value> = self.elements.iter().map(|element| element["spdxId"].clone()).collect();
        let name = format!("{}-{}", sbom.product.name, sbom.product.version);
        let bill = json!({
            "name": name,
            "profileConformance": ["core", "software", "simpleLicensing", "build"],
            "software_sbomType": ["build"],
            "rootElement": [product],
            "element": all,
        });
        let bill = self.element("software_Sbom", "sbom", bill);
        let document = json!({
            "name": name,
            "profileConformance": ["core", "software", "simpleLicensing", "build"],
            "rootElement": [bill],
            "element": all.into_iter().chain([bill.clone().into()]).collect::<Vec<_>>(),
        });
        self.element("SpdxDocument", "document", document);
        let creation = json!({
            "type": "CreationInfo",
            "@id": CREATION,
            "specVersion": "3.0.1",
            "created": sbom.moment,
            "createdBy": [author],
            "createdUsing": [tool],
        });
        self.elements.insert(0, creation);
    }

    fn element(&mut self, class: &str, name: &str, mut body: Value) -> String {
        let iri = self.iri(name);
        body["type"] = class.into();
        body["spdxId"] = iri.clone().into();
        body["creationInfo"] = CREATION.into();
        self.elements.push(without_nulls(body));
        iri
    }

    fn iri(&self, name: &str) -> String {
        format!("{}#{}", self.space, id(name))
    }
}

fn hash(digest: &Digest) -> Value {
    json!({ "type": "Hash", "algorithm": "sha256", "hashValue": digest })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::sbom::samples::sample;

    #[test]
    fn the_printed_bytes_do_not_move() {
        let text = String::from_utf8(print(&sample())).unwrap();
        assert_eq!(text, include_str!("../../tests/golden/sbom.spdx3.json"));
    }

    #[test]
    fn whatever_is_referred_to_is_there_once() {
        let value: Value = serde_json::from_slice(&print(&sample())).unwrap();
        let elements = value["@graph"].as_array().unwrap();
        let ids: Vec<&str> = elements.iter().filter_map(|element| element["spdxId"].as_str()).collect();
        let known: BTreeSet<&str> = ids.iter().copied().collect();
        assert_eq!(ids.len(), known.len());
        for element in elements {
            let to = element["to"].as_array().into_iter().flatten().chain(element.get("from"));
            for end in to.chain(element["element"].as_array().into_iter().flatten()) {
                assert!(known.contains(end.as_str().unwrap()), "{end}");
            }
        }
    }
}
