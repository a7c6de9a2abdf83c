//! `kiln gate pip`: a requirements file that pins what a policy lets in, and nothing else; pip's hash-checking enforces it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use kiln_model::digest::Digest;
use kiln_model::format::purl::Purl;
use kiln_model::verify::{Answer, Artifact, Decision};
use rayon::prelude::*;

use super::{Asked, Telling, Trust};
use crate::cli::judging::{self, Bench};
use crate::cli::{Failure, Session};
use crate::evidence;
use crate::exit::Kind;
use crate::fetch::listing;
use crate::requirements::{self, Pinned};

/// Pin a requirements file to the wheels that a policy lets in
///
/// Each release of the file must have a wheel in the directory that the policy lets in; the output lists the digests of those.
/// Install with `pip install --no-index --find-links DIR --require-hashes -r OUTPUT`.
#[derive(Debug, Args)]
pub(super) struct Pip {
    /// What to install: exact versions, as `pip freeze` and pip-compile write them
    requirements: PathBuf,
    /// Where the wheels are, as `pip download --only-binary :all:` leaves them
    #[arg(long, value_name = "DIR")]
    wheels: PathBuf,
    /// The requirements with hashes; written only if everything is let in
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    #[command(flatten)]
    trust: Trust,
}

/// A wheel in the directory.
struct Wheel {
    file: String,
    project: String,
    version: String,
    artifact: Artifact,
}

impl Pip {
    pub(super) fn run(self, session: &Session) -> Result<u8, Failure> {
        let (policy, trust) = self.trust.settled(session)?;
        let bad = |error| Failure { kind: Kind::BadInput, error };
        let name = || format!("requirements {}", self.requirements.display());
        let text = std::fs::read_to_string(&self.requirements).with_context(name).map_err(bad)?;
        let wanted = requirements::parse(&text).with_context(name).map_err(bad)?;
        if wanted.is_empty() {
            return Err(bad(anyhow::anyhow!("{}: nothing is asked for", self.requirements.display())));
        }
        let wheels = wheels(&self.wheels, &wanted)?;
        trust.judging(&policy).judge(|bench| {
            let asked = ask(bench, &wanted, &wheels, &self.wheels);
            let answer = judging::gravest(asked.iter().map(|(asked, _)| asked.answer));
            let output = (answer == Answer::Allowed).then_some(self.output.as_path());
            if let Some(output) = output {
                let digests = asked.iter().map(|(_, digests)| digests);
                let pins = requirements::print(wanted.iter().zip(digests));
                session.write_file(output, pins.as_bytes())?;
            }
            let asked: Vec<Asked> = asked.into_iter().map(|(asked, _)| asked).collect();
            Telling { client: "pip", bench, answer, asked: &asked, output, detail: trust.detail() }.tell(session)?;
            Ok(answer)
        })
    }
}

/// The wheels in a directory that are of a release that is wanted.
fn wheels(directory: &Path, wanted: &[Pinned]) -> Result<Vec<Wheel>, Failure> {
    let reading = || format!("reading wheels in {}", directory.display());
    let bad = |error| Failure { kind: Kind::BadInput, error };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).with_context(reading).map_err(bad)? {
        let name = entry.with_context(reading).map_err(bad)?.file_name();
        // A name that is no UTF-8 is none that pip looks for.
        let Some(file) = name.to_str().filter(|name| name.ends_with(".whl")) else { continue };
        let Some((project, version)) = listing::project_and_version(file) else { continue };
        if wanted.iter().any(|pinned| pinned.is(&project, version)) {
            files.push((file.to_owned(), project, version.to_owned()));
        }
    }
    files.sort_unstable();
    let wheels = files.into_par_iter().map(|(file, project, version)| {
        let purl = Purl::pypi(&project, &version).and_then(|purl| purl.with("file_name", &file));
        let purl = purl.with_context(|| format!("wheel {file}")).map_err(bad)?;
        let artifact = evidence::artifact(&directory.join(&file), Some(purl.to_string()))?;
        Ok(Wheel { file, project, version, artifact })
    });
    wheels.collect()
}

/// What becomes of each release, and the digests of it that pip may install.
fn ask(bench: &Bench<'_>, wanted: &[Pinned], wheels: &[Wheel], directory: &Path) -> Vec<(Asked, BTreeSet<Digest>)> {
    let artifacts: Vec<Artifact> = wheels.iter().map(|wheel| wheel.artifact.clone()).collect();
    let decisions = bench.decide(&artifacts);
    wanted.iter().map(|pinned| release(pinned, wheels, &decisions, directory)).collect()
}

fn release(pinned: &Pinned, wheels: &[Wheel], decisions: &[Decision], directory: &Path) -> (Asked, BTreeSet<Digest>) {
    let of_it = wheels.iter().zip(decisions).filter(|(wheel, _)| pinned.is(&wheel.project, &wheel.version));
    let (fitting, other): (Vec<_>, Vec<_>) = of_it.partition(|(wheel, _)| is_listed(pinned, &wheel.artifact));
    let allowed = |decision: &Decision| decision.answer == Answer::Allowed;
    let digests: BTreeSet<Digest> = fitting
        .iter()
        .filter(|(_, decision)| allowed(decision))
        .filter_map(|(wheel, _)| wheel.artifact.digest.sha256())
        .collect();
    let answer = match (digests.is_empty(), fitting.is_empty()) {
        (false, _) => Answer::Allowed,
        (true, false) => judging::gravest(fitting.iter().map(|(_, decision)| decision.answer)),
        // Bytes that the file itself does not allow are a no, bytes that are not there are missing.
        (true, true) if !other.is_empty() => Answer::Denied,
        (true, true) => Answer::Insufficient,
    };
    let left_out = fitting.iter().filter(|(_, decision)| answer == Answer::Allowed && !allowed(decision));
    let left_out: Vec<String> =
        left_out.map(|(wheel, decision)| format!("{} ({})", wheel.file, decision.answer.as_str())).collect();
    let note = match (fitting.is_empty(), other.is_empty()) {
        (true, true) => Some(format!("no wheel of it in {}: pip download it there", directory.display())),
        (true, false) => Some(format!("none of its hashes is that of a wheel in {}", directory.display())),
        (false, _) => (!left_out.is_empty()).then(|| format!("left out: {}", left_out.join(", "))),
    };
    let decisions = fitting.into_iter().map(|(_, decision)| decision.clone()).collect();
    (Asked { what: pinned.text.clone(), answer, decisions, note }, digests)
}

/// Whether the requirements file allows these bytes.
fn is_listed(pinned: &Pinned, artifact: &Artifact) -> bool {
    let digests = &artifact.digest.0;
    pinned.hashes.is_empty()
        || digests.iter().any(|(algorithm, hex)| pinned.hashes.contains(&format!("{algorithm}:{hex}")))
}
