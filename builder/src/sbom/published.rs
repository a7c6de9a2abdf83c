//! Provenance in a directory of evidence, as far as it is asked what was built from what: envelopes, bundles, JSON lines.
//!
//! Links are not followed, files and depth are bounded, and what cannot be read is told. Signatures are `verify`'s.

use std::path::{Path, PathBuf};

use kiln_model::digest::Digest;
use kiln_model::format::base64;
use serde::Deserialize;

use super::SbomError;

/// Bytes of a file: a log of many envelopes.
const MOST_BYTES: u64 = 256 << 20;
/// Files in all.
const MOST_FILES: usize = 1_000_000;
/// Directories in each other.
const MOST_DEPTH: usize = 32;

/// What provenance claims.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Claim {
    pub(super) file: String,
    /// Name and digest of what was built.
    pub(super) subjects: Vec<(String, Option<Digest>)>,
    /// Address and digest of what it was built from.
    pub(super) dependencies: Vec<(String, Option<Digest>)>,
    pub(super) builder: Option<String>,
}

/// All claims of a directory, and what of it could not be read.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Evidence {
    pub(super) claims: Vec<Claim>,
    pub(super) unread: Vec<(String, String)>,
}

#[derive(Deserialize)]
struct Descriptor {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    uri: Option<String>,
    #[serde(default)]
    digest: std::collections::BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Statement {
    #[serde(default)]
    subject: Vec<Descriptor>,
    predicate_type: String,
    #[serde(default)]
    predicate: serde_json::Value,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Provenance {
    build_definition: Definition,
    #[serde(default)]
    run_details: serde_json::Value,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Definition {
    #[serde(default)]
    resolved_dependencies: Vec<Descriptor>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Carrier {
    #[serde(default)]
    payload: Option<String>,
    #[serde(default)]
    dsse_envelope: Option<Envelope>,
}

#[derive(Deserialize)]
struct Envelope {
    payload: String,
}

/// Every claim below `directory`, files in the order of their names.
pub(super) fn read(directory: &Path) -> Result<Evidence, SbomError> {
    let failed = |path: &Path| {
        let path = path.display().to_string();
        move |source| SbomError::Evidence { path, source }
    };
    let mut evidence = Evidence::default();
    let mut open: Vec<(PathBuf, usize)> = vec![(directory.to_path_buf(), 0)];
    let mut files = Vec::new();
    while let Some((path, depth)) = open.pop() {
        for entry in std::fs::read_dir(&path).map_err(failed(&path))? {
            let entry = entry.map_err(failed(&path))?;
            let kind = entry.file_type().map_err(failed(&path))?;
            let shown = entry.path().strip_prefix(directory).unwrap_or(&entry.path()).display().to_string();
            match entry.path().extension().and_then(|extension| extension.to_str()) {
                _ if kind.is_dir() && depth < MOST_DEPTH => open.push((entry.path(), depth + 1)),
                _ if kind.is_dir() => evidence.unread.push((shown, "is too deep".into())),
                Some("json" | "jsonl" | "sigstore") if kind.is_file() && files.len() < MOST_FILES => {
                    files.push((shown, entry.path()));
                }
                Some("json" | "jsonl" | "sigstore") => {
                    evidence.unread.push((shown, "is a link, or one file too many".into()))
                }
                _ => {}
            }
        }
    }
    files.sort();
    for (shown, path) in files {
        if path.metadata().map_err(failed(&path))?.len() > MOST_BYTES {
            evidence.unread.push((shown, format!("is larger than {MOST_BYTES} bytes")));
            continue;
        }
        let text = std::fs::read(&path).map_err(failed(&path))?;
        let lines = path.extension().is_some_and(|extension| extension == "jsonl");
        let parts: Vec<&[u8]> = if lines { text.split(|byte| *byte == b'\n').collect() } else { vec![&text] };
        for part in parts.into_iter().filter(|part| !part.trim_ascii().is_empty()) {
            match claim(&shown, part) {
                Ok(claim) => evidence.claims.extend(claim),
                Err(why) => evidence.unread.push((shown.clone(), why)),
            }
        }
    }
    Ok(evidence)
}

/// The claim of one envelope or bundle; `None` of JSON that is something else.
fn claim(file: &str, bytes: &[u8]) -> Result<Option<Claim>, String> {
    let Ok(carrier) = serde_json::from_slice::<Carrier>(bytes) else { return Ok(None) };
    let Some(payload) = carrier.payload.or(carrier.dsse_envelope.map(|envelope| envelope.payload)) else {
        return Ok(None);
    };
    let payload = payload.as_bytes();
    let payload = base64::decode_either(payload).ok_or("its payload is no base64")?;
    let statement: Statement = serde_json::from_slice(&payload).map_err(|e| format!("its statement: {e}"))?;
    if !statement.predicate_type.starts_with("https://slsa.dev/provenance/v1") {
        return Ok(None);
    }
    let provenance: Provenance =
        serde_json::from_value(statement.predicate).map_err(|e| format!("its provenance: {e}"))?;
    let told = |one: Descriptor| {
        let digest = one.digest.get("sha256").and_then(|digest| digest.parse().ok());
        (one.uri.or(one.name).unwrap_or_default(), digest)
    };
    let builder = provenance.run_details["builder"]["id"].as_str().map(String::from);
    Ok(Some(Claim {
        file: file.into(),
        subjects: statement.subject.into_iter().map(told).collect(),
        dependencies: provenance.build_definition.resolved_dependencies.into_iter().map(told).collect(),
        builder,
    }))
}

#[cfg(test)]
mod tests {
    use data_encoding::BASE64;

    use super::*;

    fn envelope(payload: &str) -> String {
        format!(
            r#"{{"payload":"{}","payloadType":"application/vnd.in-toto+json","signatures":[]}}"#,
            BASE64.encode(payload.as_bytes())
        )
    }

    #[test]
    fn envelopes_bundles_and_lines_are_read_and_links_are_not_followed() {
        let statement = r#"{"_type":"https://in-toto.io/Statement/v1","subject":[{"name":"a","digest":{"sha256":"0000000000000000000000000000000000000000000000000000000000000000"}}],
            "predicateType":"https://slsa.dev/provenance/v1","predicate":{"buildDefinition":{"resolvedDependencies":[{"uri":"pkg:deb/debian/curl@1"}]},
            "runDetails":{"builder":{"id":"https://rb.example.org"}}}}"#;
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        at("a.json", &envelope(statement));
        at(
            "b.jsonl",
            &format!("{}\n\n{}\n", envelope(statement), envelope(&statement.replace("provenance/v1", "other/v1"))),
        );
        at("c.sigstore.json", &format!(r#"{{"dsseEnvelope":{}}}"#, envelope(statement)));
        at("d.json", &envelope("{"));
        at("e.json", "[1]");
        at("f.txt", &envelope(statement));
        std::os::unix::fs::symlink("a.json", dir.path().join("g.json")).unwrap();
        let evidence = read(dir.path()).unwrap();
        let files: Vec<&str> = evidence.claims.iter().map(|claim| claim.file.as_str()).collect();
        assert_eq!(files, ["a.json", "b.jsonl", "c.sigstore.json"]);
        assert_eq!(evidence.claims[0].dependencies, [("pkg:deb/debian/curl@1".to_string(), None)]);
        assert_eq!(evidence.claims[0].builder.as_deref(), Some("https://rb.example.org"));
        let unread: Vec<&str> = evidence.unread.iter().map(|(file, _)| file.as_str()).collect();
        assert_eq!(unread, ["g.json", "d.json"]);
    }
}
