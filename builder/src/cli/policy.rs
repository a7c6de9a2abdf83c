//! `kiln policy`: check a policy, or write a first one from evidence.

use std::path::PathBuf;

use anyhow::anyhow;
use clap::{Args, Subcommand};
use kiln_model::key::PublicKey;
use kiln_model::policy::{self, Inclusion, Logged, Observed};
use kiln_model::verify;
use serde::Serialize;

use super::rules::Rules;
use super::verify::{clock, load};
use super::{Failure, Session};
use crate::evidence::{self, Limits, Shelf};
use crate::exit::{self, Kind};

/// Check policies of `kiln verify`, and write a first one.
#[derive(Debug, Args)]
pub(super) struct PolicyCommand {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Say whether a policy could ever pass, and whom it believes
    Check {
        /// The policy.
        file: PathBuf,
    },
    /// Write a commented policy from the evidence of an artifact
    Init {
        /// What the evidence is about.
        artifact: PathBuf,
        /// Evidence that was fetched; may be repeated
        #[arg(long, value_name = "DIR|FILE", required = true)]
        evidence: Vec<PathBuf>,
        /// Public keys of rebuilders in PEM: only what they signed is looked at
        #[arg(long, value_name = "DIR")]
        keys: PathBuf,
        /// What the artifact is, as a package URL
        #[arg(long, value_name = "PURL")]
        purl: Option<String>,
        /// Where to write it, instead of to stdout; nothing may be there
        #[arg(long, short, value_name = "FILE")]
        output: Option<PathBuf>,
    },
}

#[derive(Serialize)]
struct Checked<'a> {
    schema: &'static str,
    file: String,
    sha256: kiln_model::digest::Digest,
    operators: Vec<&'a str>,
    identical: u32,
    keys: Vec<String>,
    require_inclusion: bool,
}

impl PolicyCommand {
    pub(super) fn run(self, session: &Session) -> Result<u8, Failure> {
        match self.command {
            Command::Check { file } => check(session, &file),
            Command::Init { artifact, evidence, keys, purl, output } => {
                let keys = evidence::keys(&keys)?;
                let artifact = evidence::artifact(&artifact, purl)?;
                let text = policy::starter(&observed(&artifact, &evidence, &keys)?, clock()?);
                match output {
                    None => session.print_text(&text)?,
                    Some(path) if path.exists() => {
                        let error = anyhow!("{} is there already: remove it, or name another file", path.display());
                        return Err(Failure::new(Kind::BadInput, error));
                    }
                    Some(path) => session.write_file(&path, text.as_bytes())?,
                }
                Ok(exit::YES)
            }
        }
    }
}

fn check(session: &Session, file: &std::path::Path) -> Result<u8, Failure> {
    let (policy, log) = load(file)?;
    let beside = |name: &str| file.parent().unwrap_or(std::path::Path::new("")).join(name);
    Rules::load(&policy, &beside, clock()?)?;
    let bad = |text: String| Failure::new(Kind::BadInput, anyhow!(text));
    if policy.log.inclusion == Inclusion::Required && log.is_none() {
        let name = policy.log.policy_file.as_deref().unwrap_or_default();
        return Err(bad(format!(
            "policy {}: log.tlog_policy names {name}, which is not there; write it, or set log.require_inclusion to false",
            file.display()
        )));
    }
    if let (Some(log), Some(hours)) = (&log, policy.log.checkpoint_max_age_hours)
        && !log.has_quorum()
    {
        return Err(bad(format!("policy {}: {}", file.display(), verify::VerifierError::NoQuorum { hours })));
    }
    let keys: Vec<String> = policy.keys().iter().map(|key| format!("sha256:{key}")).collect();
    if session.json() {
        session.print_json(&Checked {
            schema: "kiln/policy/v1",
            file: file.display().to_string(),
            sha256: policy.digest,
            operators: policy.operators().into_iter().collect(),
            identical: policy.threshold.identical,
            keys,
            require_inclusion: policy.log.inclusion == Inclusion::Required,
        })?;
        return Ok(exit::YES);
    }
    let operators: Vec<&str> = policy.operators().into_iter().collect();
    session.print_text(&format!(
        "{}: {} of {} operators must agree ({}); {} keys\n",
        file.display(),
        policy.threshold.identical,
        operators.len(),
        operators.join(", "),
        keys.len()
    ))?;
    Ok(exit::YES)
}

/// What keys signed of the artifact.
fn observed(artifact: &verify::Artifact, paths: &[PathBuf], keys: &[PublicKey]) -> Result<Observed, Failure> {
    let shelf = Shelf::open(paths, Limits::default())?;
    let mut observed = Observed {
        purl: artifact.purl.clone(),
        name: artifact.name.clone(),
        logged: if shelf.has_proofs() { Logged::Yes } else { Logged::No },
        ..Observed::default()
    };
    shelf.each(|bytes| verify::observe(bytes, keys, &artifact.digest, &mut observed))?;
    Ok(observed)
}
