//! CycloneDX 1.6 as JSON: the bill of a build, for readers of that format.
//!
//! [`print()`] gives the same bytes for the same facts: members sorted, two blanks to a level, one newline at the end. The
//! build is a workflow of the formulation, outputs are parts of the product. Nothing is read here.
//! Reference: ECMA-424, <https://cyclonedx.org/docs/1.6/json/>.

use serde_json::{Value, json};

use crate::sbom::{Component, Kind, Party, Sbom, document, without_nulls};

/// The bill as a document of this format.
pub fn print(sbom: &Sbom) -> Vec<u8> {
    document(value(sbom))
}

fn value(sbom: &Sbom) -> Value {
    let product = &sbom.product;
    let mut described = component(product);
    described["components"] = sbom.outputs.iter().map(component).collect();
    let needed: Vec<&str> = sbom.needed().map(|one| one.id.as_str()).collect();
    let mut dependencies = vec![json!({ "ref": product.id, "dependsOn": needed })];
    dependencies.extend(sbom.outputs.iter().chain(sbom.needed()).map(|one| match sbom.depends.get(&one.id) {
        Some(depends) => json!({ "ref": one.id, "dependsOn": depends }),
        None => json!({ "ref": one.id }),
    }));
    json!({
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": format!("urn:uuid:{}", sbom.uuid()),
        "version": 1,
        "metadata": {
            "timestamp": sbom.moment,
            "lifecycles": [{ "phase": "build" }],
            "tools": { "components": [{ "type": "application", "name": "kiln", "version": sbom.kiln }] },
            "authors": [contact(&sbom.author)],
            "component": described,
        },
        "components": sbom.needed().map(component).collect::<Vec<_>>(),
        "dependencies": dependencies,
        // Nothing but these was mounted, and there is no network in a build.
        "compositions": [{ "aggregate": "complete", "dependencies": [product.id] }],
        "formulation": [formula(sbom)],
    })
}

fn formula(sbom: &Sbom) -> Value {
    let build = &sbom.build;
    let inputs = sbom.needed().map(|one| json!({ "resource": { "ref": one.id } }));
    let variables = build.parameters.iter().map(|(name, value)| json!({ "name": name, "value": value }));
    let variables: Vec<Value> = variables.collect();
    let parameters = (!variables.is_empty()).then(|| json!({ "environmentVars": variables }));
    let outputs = sbom.outputs.iter().map(|one| json!({ "type": "artifact", "resource": { "ref": one.id } }));
    let step = build.script.as_ref().map(|script| json!({ "name": "script", "commands": [{ "executed": script }] }));
    let task = json!({
        "bom-ref": "task",
        "uid": build.derivation,
        "name": "build",
        "taskTypes": ["build"],
        "steps": step.map(|step| [step]),
    });
    let workflow = json!({
        "bom-ref": "workflow",
        "uid": build.derivation,
        "name": format!("{} {}", sbom.product.name, sbom.product.version),
        "taskTypes": ["build"],
        "inputs": inputs.chain(parameters).collect::<Vec<_>>(),
        "outputs": outputs.collect::<Vec<_>>(),
        "tasks": [task],
        "timeStart": sbom.run.as_ref().map(|run| run.started),
        "timeEnd": sbom.run.as_ref().map(|run| run.finished),
        "properties": [
            { "name": "kiln:derivation:sha256", "value": build.derivation_sha256 },
            { "name": "kiln:system", "value": build.system },
        ],
    });
    without_nulls(json!({ "bom-ref": "formula", "workflows": [workflow] }))
}

fn component(one: &Component) -> Value {
    let kind = match one.kind {
        Kind::Product => "application",
        Kind::File | Kind::Tree | Kind::Source => "file",
        Kind::Package => "library",
    };
    let hashes = one.bytes().map(|digest| json!([{ "alg": "SHA-256", "content": digest }]));
    let licences = one.licence.as_ref().map(|l| json!([{ "expression": l.expression, "acknowledgement": "declared" }]));
    let ancestors = one.source.as_ref().map(|(name, version)| {
        let purl = one.source_purl().map(|purl| purl.to_string());
        json!({ "ancestors": [{ "type": "library", "name": name, "version": version, "purl": purl }] })
    });
    let location = one.web_location().map(|url| json!([{ "type": "source-distribution", "url": url }]));
    without_nulls(json!({
        "type": kind,
        "bom-ref": one.id,
        "mime-type": one.is_nar().then_some("application/x-nix-nar"),
        "supplier": supplier(&one.supplier),
        "publisher": one.originator.as_ref().map(|party| &party.name),
        "name": one.name,
        "version": one.version,
        "description": one.description,
        "hashes": hashes,
        "licenses": licences,
        "copyright": one.copyright,
        "purl": one.purl,
        "pedigree": ancestors,
        "externalReferences": location,
    }))
}

fn supplier(party: &Party) -> Value {
    let contact = party.email.as_ref().map(|email| json!([{ "name": party.name, "email": email }]));
    without_nulls(json!({ "name": party.name, "contact": contact }))
}

fn contact(party: &Party) -> Value {
    without_nulls(json!({ "name": party.name, "email": party.email }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sbom::RunDetails;
    use crate::sbom::samples::sample;

    #[test]
    fn the_printed_bytes_do_not_move() {
        let text = String::from_utf8(print(&sample())).unwrap();
        assert_eq!(text, include_str!("../../tests/golden/sbom.cdx.json"));
    }

    #[test]
    fn every_component_is_in_the_graph_once_and_times_stand_only_where_asked_for() {
        let mut sbom = sample();
        let value = value(&sbom);
        let mut refs: Vec<&str> = Vec::new();
        for dependency in value["dependencies"].as_array().unwrap() {
            refs.push(dependency["ref"].as_str().unwrap());
        }
        let ids: Vec<&str> = sbom.components().map(|one| one.id.as_str()).collect();
        assert_eq!(refs, ids);
        let text = |sbom: &Sbom| String::from_utf8(print(sbom)).unwrap();
        assert!(!text(&sbom).contains("timeStart") && !text(&sbom).contains("null"));
        let moment = sbom.moment;
        sbom.run = Some(RunDetails { started: moment, finished: moment });
        assert!(text(&sbom).contains("timeStart"));
    }
}
