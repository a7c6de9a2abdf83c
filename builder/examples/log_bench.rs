//! Measures a transparency log: `log_bench DIR COUNT`, envelopes of five rebuilders about each of COUNT / 5 packages.
//!
//! Publishing is all that `kiln publish` does after it has read the evidence: journal, envelopes, tiles, reading back, signing,
//! proofs, bundles, indexes, syncing. Signing the statements is not part of it.

use std::path::Path;
use std::time::{Duration, Instant};

use kiln::publish::{Batch, Directory, LogWriter, Place as _, Signed, inspect};
use kiln_model::digest::Digest;
use kiln_model::envelope::Envelope;
use kiln_model::key::SecretKey;
use kiln_model::log::{Entry, LogPolicy, NoteKind, NoteSigner, Proof};
use kiln_model::statement::{Descriptor, DigestSet, Predicate, Statement};

const OPERATORS: u64 = 5;
/// What a provenance of a package with sixty inputs has, about.
const PADDING: usize = 2000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let usage = "expected DIR COUNT";
    let directory = arguments.next().ok_or(usage)?;
    let count: u64 = arguments.next().ok_or(usage)?.parse()?;
    let directory = Path::new(&directory);
    let keys: Vec<SecretKey> = (0..OPERATORS).map(|operator| SecretKey::ed25519(&[operator as u8 + 1; 32])).collect();
    let envelope = |number: u64| -> Result<Signed, Box<dyn std::error::Error>> {
        let (package, key) = (number / OPERATORS, &keys[(number % OPERATORS) as usize]);
        let digest = DigestSet::of(Digest::of(package.to_be_bytes()));
        let subject = Descriptor::of(digest).named_as(format!("package-{package}_1.0-1_amd64.deb"));
        let value = serde_json::json!({ "operator": number % OPERATORS, "padding": "x".repeat(PADDING) });
        let predicate = Predicate::Other { kind: "https://example.org/provenance".into(), value };
        let statement = Statement { subject: vec![subject], predicate }.print()?;
        Ok(Signed::new(Envelope::sign(statement, key), &key.public())?.0)
    };

    let (tree, state) = (directory.join("tree"), directory.join("state"));
    let place = Directory::writing(&tree)?;
    let signer = NoteSigner::new("log.example.org", NoteKind::Log, SecretKey::ed25519(&[9; 32]))?;
    let vkey = signer.vkey().clone();
    let mut writer = LogWriter::open(&place, &state, signer, vec![])?;
    let (mut spent, mut batches, mut batch) = (Duration::ZERO, 0, Batch::default());
    for number in 0..count {
        batch.push(envelope(number)?);
        if batch.is_full() || number + 1 == count {
            let began = Instant::now();
            writer.append(std::mem::take(&mut batch))?;
            spent += began.elapsed();
            batches += 1;
        }
    }
    println!(
        "publishing {count} entries in {batches} batches: {:.1} s, {:.0} entries/s",
        spent.as_secs_f64(),
        count as f64 / spent.as_secs_f64()
    );
    drop(writer);

    let policy = LogPolicy::parse(&format!("log {vkey}\nquorum none\n"))?;
    let mut times = Vec::new();
    for number in (0..count).step_by(usize::try_from(count / 200 + 1)?) {
        let signed = envelope(number)?;
        let subject = Digest::of((number / OPERATORS).to_be_bytes());
        let name = format!("by-subject/sha256/{subject}/{}.tlog-proof", signed.envelope().id());
        let bytes = place.read(&name, 1 << 20)?.ok_or("no proof")?;
        let began = Instant::now();
        let proof = Proof::parse(&bytes)?;
        policy.judge(&proof, &Entry::of(signed.envelope(), signed.key())?)?;
        times.push(began.elapsed());
    }
    times.sort();
    println!("verifying one proof: median {:?}, longest {:?}", times[times.len() / 2], times[times.len() - 1]);

    let began = Instant::now();
    let found = inspect(&place, &policy)?;
    println!(
        "checking the whole tree: {:.1} s, {} tiles, {} envelopes",
        began.elapsed().as_secs_f64(),
        found.tiles,
        found.envelopes
    );
    Ok(())
}
