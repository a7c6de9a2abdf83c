//! `kiln gate apt`: the program in apt's `DPkg::Pre-Install-Pkgs`. It exits non-zero and apt installs nothing.

use std::io::Read as _;
use std::path::Path;

use anyhow::Context as _;
use clap::Args;
use kiln_model::format::apt_hook::{self, Action, Step};
use kiln_model::format::purl::Purl;
use kiln_model::verify::Artifact;
use rayon::prelude::*;

use super::{Asked, Telling, Trust};
use crate::cli::judging;
use crate::cli::{Failure, Session};
use crate::evidence;
use crate::exit::Kind;
use crate::installed;

/// Bytes that apt says at most: its configuration, and a line for each step.
const MOST_BYTES: u64 = 64 << 20;

/// Verify every package that apt is about to unpack
///
/// For DPkg::Pre-Install-Pkgs in apt's configuration, with version 3 of its protocol on stdin; docs/integrations.md has the lines.
#[derive(Debug, Args)]
pub(super) struct Apt {
    #[command(flatten)]
    trust: Trust,
}

impl Apt {
    pub(super) fn run(self, session: &Session) -> Result<u8, Failure> {
        let mut said = String::new();
        let read = std::io::stdin().take(MOST_BYTES + 1).read_to_string(&mut said);
        let bad = |error| Failure { kind: Kind::BadInput, error };
        read.context("reading what apt says on stdin").map_err(bad)?;
        if said.len() as u64 > MOST_BYTES {
            return Err(bad(anyhow::anyhow!("apt says more than {MOST_BYTES} bytes on stdin")));
        }
        let steps = apt_hook::parse(&said).context("what apt says on stdin").map_err(bad)?;
        let unpacked: Vec<(Step<'_>, &str)> = steps
            .into_iter()
            .filter_map(|step| match step.action {
                Action::Unpack(path) => Some((step, path)),
                Action::Configure | Action::Remove => None,
            })
            .collect();
        // Nothing new comes in: removing must be possible without a policy.
        if unpacked.is_empty() {
            return Ok(crate::exit::YES);
        }
        let (policy, trust) = self.trust.settled(session)?;
        let vendor = installed::vendor_of(Path::new("/"))?;
        let artifacts: Vec<Artifact> =
            unpacked.par_iter().map(|(step, path)| artifact(&vendor, step, path)).collect::<Result<_, _>>()?;
        trust.judging(&policy).judge(|bench| {
            let decisions = bench.decide(&artifacts).into_iter();
            let asked: Vec<Asked> = decisions
                .zip(&unpacked)
                .map(|(decision, (step, _))| Asked {
                    what: told(step),
                    answer: decision.answer,
                    decisions: vec![decision],
                    note: None,
                })
                .collect();
            let answer = judging::gravest(asked.iter().map(|one| one.answer));
            let detail = trust.detail();
            Telling { client: "apt", bench, answer, asked: &asked, output: None, detail }.tell(session)?;
            Ok(answer)
        })
    }
}

fn artifact(vendor: &str, step: &Step<'_>, path: &str) -> Result<Artifact, Failure> {
    let (version, architecture) = (step.version.unwrap_or_default(), step.architecture.unwrap_or_default());
    let purl = Purl::deb(vendor, step.package, version, architecture)
        .with_context(|| format!("package {}", step.package))
        .map_err(|error| Failure { kind: Kind::BadInput, error })?;
    Ok(evidence::artifact(Path::new(path), Some(purl.to_string()))?)
}

fn told(step: &Step<'_>) -> String {
    let words = [Some(step.package), step.version, step.architecture];
    words.into_iter().flatten().collect::<Vec<_>>().join(" ")
}
