//! What `scripts/bench verify` runs beside `kiln verify`: evidence of many packages by five rebuilders, and the signature
//! verifications alone, on as many processors.
//!
//! Usage: `verify_bench generate DIR PACKAGES` · `verify_bench bare DIR`. The evidence depends on the number only.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, BufWriter, Write as _};
use std::path::Path;
use std::time::Instant;

use kiln_model::canonical;
use kiln_model::digest::Digest;
use kiln_model::envelope::{Envelope, pae};
use kiln_model::key::SecretKey;
use rayon::prelude::*;
use serde_json::{Value, json};

const REBUILDERS: u8 = 5;
const LINES_PER_FILE: usize = 25_000;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [_, "generate", directory, packages] => {
            generate(Path::new(directory), packages.parse().expect("a number of packages"));
        }
        [_, "bare", directory] => bare(Path::new(directory)),
        _ => panic!("usage: verify_bench generate DIR PACKAGES | bare DIR"),
    }
}

fn key(rebuilder: u8) -> SecretKey {
    SecretKey::ed25519(&[rebuilder; 32])
}

fn id(rebuilder: u8) -> String {
    format!("https://rb{rebuilder}.example.org/kiln/sandboxed")
}

fn sha256(text: String) -> Value {
    json!({ "sha256": Digest::of(text).to_string() })
}

fn provenance(package: usize, rebuilder: u8) -> Value {
    let inputs: Vec<Value> = (0..8)
        .map(|n| {
            json!({ "uri": format!("pkg:deb/debian/build-dependency-{n}@1.{package}-1?arch=amd64"),
                    "digest": sha256(format!("input {n} of {package}")), "annotations": { "license": "GPL-3.0-or-later" } })
        })
        .collect();
    json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{ "name": format!("package-{package}_1.0-1_amd64.deb"), "digest": sha256(format!("package {package}")) }],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": "https://kiln.build/build/v1",
                "externalParameters": { "recipe": format!("git+https://example.org/r@refs/tags/v1#recipes/{package}/recipe.toml"), "target": "out" },
                "internalParameters": { "signer": "separate", "system": "x86_64-linux", "host": { "arch": "x86_64", "kernel": "6.1" } },
                "resolvedDependencies": inputs,
            },
            "runDetails": {
                "builder": { "id": id(rebuilder), "version": { "kiln": "0.1.0" } },
                "metadata": { "invocationId": format!("{package}-{rebuilder}"), "startedOn": "2026-11-21T10:00:00Z", "finishedOn": "2026-11-21T10:01:00Z" },
                "byproducts": [
                    { "name": "build.log", "digest": sha256(format!("log {rebuilder} {package}")) },
                    { "name": "manifest.json", "digest": sha256(format!("manifest {package}")) },
                ],
            },
        },
    })
}

fn generate(directory: &Path, packages: usize) {
    fs::create_dir_all(directory.join("evidence")).expect("a directory for evidence");
    fs::create_dir_all(directory.join("keys")).expect("a directory for keys");
    let mut policy = String::from(
        "schema = 1\n[artifact]\nmatch = \"*\"\nresource_uri = \"https://dl.example.org/{name}\"\n[threshold]\nidentical = 3\n\
         [provenance]\nexternal_parameters = { recipe = \"git+https://example.org/r@refs/tags/v*\", target = \"*\" }\n\
         [inputs]\nallow_uri = [\"pkg:deb/debian/*\"]\nlicences = { deny = [\"AGPL-3.0-only\"] }\n[log]\nrequire_inclusion = false\n",
    );
    for rebuilder in 1..=REBUILDERS {
        let public = key(rebuilder).public();
        write!(
            policy,
            "[[rebuilder]]\nid = \"{}\"\noperator = \"org-{rebuilder}\"\nkeys = [\"sha256:{}\"]\nmax_slsa_level = 3\nvalid = [\"2026-01-01\", \"2027-01-01\"]\n",
            id(rebuilder),
            public.id()
        )
        .expect("strings grow");
        fs::write(directory.join(format!("keys/{rebuilder}.pub")), public.to_pem()).expect("writing a key");
    }
    fs::write(directory.join("policy.toml"), policy).expect("writing the policy");
    let sums: String = (0..packages)
        .map(|package| format!("{}  package-{package}_1.0-1_amd64.deb\n", Digest::of(format!("package {package}"))))
        .collect();
    fs::write(directory.join("sums"), sums).expect("writing the list");
    let lines: Vec<(usize, u8)> = (1..=REBUILDERS).flat_map(|r| (0..packages).map(move |p| (p, r))).collect();
    for (number, chunk) in lines.chunks(LINES_PER_FILE).enumerate() {
        let envelopes: Vec<Vec<u8>> = chunk
            .par_iter()
            .map(|(package, rebuilder)| {
                let payload = canonical::print(&provenance(*package, *rebuilder)).expect("canonical");
                Envelope::sign(payload, &key(*rebuilder)).canonical()
            })
            .collect();
        let file =
            File::create(directory.join(format!("evidence/{number:03}.intoto.jsonl"))).expect("creating evidence");
        let mut out = BufWriter::new(file);
        for envelope in envelopes {
            out.write_all(&envelope).and_then(|()| out.write_all(b"\n")).expect("writing evidence");
        }
        out.flush().expect("writing evidence");
    }
}

/// Prints the seconds that all signature verifications take, with everything else done before.
fn bare(directory: &Path) {
    let keys: Vec<_> = (1..=REBUILDERS).map(|rebuilder| key(rebuilder).public()).collect();
    let mut seconds = 0.0;
    let mut paths: Vec<_> =
        fs::read_dir(directory.join("evidence")).expect("evidence").flatten().map(|e| e.path()).collect();
    paths.sort();
    for path in paths {
        let lines: Vec<Vec<u8>> = BufReader::new(File::open(path).expect("evidence"))
            .split(b'\n')
            .map(|line| line.expect("a line"))
            .collect();
        let messages: Vec<(usize, Vec<u8>, Vec<u8>)> = lines
            .par_iter()
            .map(|line| {
                let envelope = Envelope::parse(line).expect("an envelope");
                let signature = &envelope.signatures()[0];
                let key = keys.iter().position(|k| Some(k.id().to_string()) == signature.keyid).expect("a known key");
                (key, pae(envelope.payload_type(), envelope.payload()), signature.sig.clone())
            })
            .collect();
        let begin = Instant::now();
        let good = messages.par_iter().filter(|(key, message, sig)| keys[*key].verify(message, sig).is_ok()).count();
        seconds += begin.elapsed().as_secs_f64();
        assert_eq!(good, messages.len(), "every signature holds");
    }
    println!("{seconds:.4}");
}
