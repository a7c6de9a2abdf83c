//! Documents against the schemas in docs/, which may name one another.

use std::fs;

use serde_json::Value;

use crate::ground;

/// Holds `document` against docs/`name`.schema.json, and says all that is wrong with it.
#[track_caller]
pub fn fits(name: &str, document: &Value) {
    let mut schemas = Vec::new();
    for entry in fs::read_dir(ground::repository().join("docs")).expect("docs/ is there") {
        let path = entry.expect("docs/ can be listed").path();
        let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if let Some(stem) = file.strip_suffix(".schema.json") {
            let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            let schema: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{file}: {error}"));
            schemas.push((stem.to_owned(), schema));
        }
    }
    let mut registry = jsonschema::Registry::new();
    for (stem, schema) in &schemas {
        let id = schema["$id"].as_str().unwrap_or_else(|| panic!("{stem}: no $id"));
        registry = registry.add(id, schema).unwrap_or_else(|error| panic!("{stem}: {error}"));
    }
    let registry = registry.prepare().unwrap_or_else(|error| panic!("docs/: {error}"));
    let (_, root) =
        schemas.iter().find(|(stem, _)| stem == name).unwrap_or_else(|| panic!("no docs/{name}.schema.json"));
    let validator = jsonschema::options().with_registry(&registry).build(root);
    let validator = validator.unwrap_or_else(|error| panic!("{name}: {error}"));
    let wrong: Vec<String> = validator.iter_errors(document).map(|e| format!("{}: {e}", e.instance_path())).collect();
    assert!(wrong.is_empty(), "{name}:\n{}\n{document:#}", wrong.join("\n"));
}
