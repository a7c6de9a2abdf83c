//! `kiln gate`: a policy in front of other programs, which install only what it lets in. Opens no socket.

mod apt;
mod pip;

use std::path::{Path, PathBuf};

use anyhow::anyhow;
use clap::{Args, Subcommand};
use kiln_model::outcome::Moment;
use kiln_model::verify::{Answer, Decision};
use serde::Serialize;

use super::judging::{Bench, Judging};
use super::verify::{EvidenceSaid, PolicySaid};
use super::{Failure, Session};
use crate::exit::Kind;
use crate::render::decision::{self, Detail};

/// Let other programs install only what a policy lets in
///
/// The policy, evidence and keys are those of the arguments, else of section [gate] in kiln's configuration. Exits as
/// `kiln verify` does: 0 if everything is let in, 1 if something is denied, 4 if evidence is missing, 6 if it is contradicted.
#[derive(Debug, Args)]
pub(super) struct GateCommand {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Apt(apt::Apt),
    Pip(pip::Pip),
}

/// By what is decided.
#[derive(Debug, Args)]
struct Trust {
    /// What is required: see `kiln policy init`
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Evidence, as for `kiln verify`; may be repeated
    #[arg(long, value_name = "DIR|FILE")]
    evidence: Vec<PathBuf>,
    /// Public keys and OpenPGP certificates [default: keys/ beside the policy]
    #[arg(long, value_name = "DIR")]
    keys: Option<PathBuf>,
    /// What time it is, in UTC, instead of this host's clock
    #[arg(long, value_name = "RFC3339")]
    now: Option<Moment>,
    /// Tell every check
    #[arg(long)]
    explain: bool,
}

/// The JSON document.
#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    client: &'static str,
    exit: u8,
    policy: PolicySaid<'a>,
    now: Moment,
    asked: Vec<AskedSaid<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    output: Option<String>,
    evidence: EvidenceSaid<'a>,
}

#[derive(Serialize)]
struct AskedSaid<'a> {
    what: &'a str,
    answer: Answer,
    decisions: &'a [Decision],
}

/// One thing that a program wants to install, and the files that could be it.
struct Asked {
    what: String,
    answer: Answer,
    decisions: Vec<Decision>,
    /// What to do about it, if that is not in the decisions.
    note: Option<String>,
}

impl GateCommand {
    pub(super) fn run(self, session: &Session) -> Result<u8, Failure> {
        match self.command {
            Command::Apt(command) => command.run(session),
            Command::Pip(command) => command.run(session),
        }
    }
}

impl Trust {
    /// The arguments, completed from the configuration.
    fn settled(mut self, session: &Session) -> Result<(PathBuf, Self), Failure> {
        let missing = |what: &str| {
            let error =
                anyhow!("no {what}: name it (--{what}), or set {what} in section [gate] of kiln's configuration");
            Failure { kind: Kind::BadInput, error }
        };
        if self.policy.is_none() || self.evidence.is_empty() || self.keys.is_none() {
            let config = session.config()?;
            let beside = |path: &PathBuf| match config.file.as_deref().and_then(Path::parent) {
                Some(directory) => directory.join(path),
                None => path.clone(),
            };
            let gate = &config.gate;
            // Keys belong to a policy: those of the configuration are for the policy of the configuration.
            if self.policy.is_none() {
                self.policy = gate.policy.as_ref().map(beside);
                self.keys = self.keys.or_else(|| gate.keys.as_ref().map(beside));
            }
            if self.evidence.is_empty() {
                self.evidence = gate.evidence.iter().map(beside).collect();
            }
        }
        if self.evidence.is_empty() {
            return Err(missing("evidence"));
        }
        let policy = self.policy.take().ok_or_else(|| missing("policy"))?;
        Ok((policy, self))
    }

    fn judging<'a>(&'a self, policy: &'a Path) -> Judging<'a> {
        Judging { policy, evidence: &self.evidence, keys: self.keys.as_deref(), now: self.now, osv: None }
    }

    fn detail(&self) -> Detail {
        if self.explain { Detail::Explain } else { Detail::Short }
    }
}

/// What one tells of the answers.
struct Telling<'a> {
    client: &'static str,
    bench: &'a Bench<'a>,
    answer: Answer,
    asked: &'a [Asked],
    output: Option<&'a Path>,
    detail: Detail,
}

impl Telling<'_> {
    fn tell(&self, session: &Session) -> Result<(), Failure> {
        if session.json() {
            let asked = self.asked.iter();
            return session.print_json(&Document {
                schema: "kiln/gate/v1",
                client: self.client,
                exit: self.answer.exit_code(),
                policy: self.bench.policy_said(),
                now: self.bench.now,
                asked: asked
                    .map(|one| AskedSaid { what: &one.what, answer: one.answer, decisions: &one.decisions })
                    .collect(),
                output: self.output.map(|path| path.display().to_string()),
                evidence: self.bench.evidence_said(),
            });
        }
        let mut text = String::new();
        for one in self.asked {
            let refused = one.answer != Answer::Allowed;
            text.push_str(&format!("kiln: {}: {}\n", one.answer.as_str(), decision::plain(&one.what)));
            if let Some(note) = &one.note {
                text.push_str(&format!("  {}\n", decision::plain(note)));
            }
            for decision in &one.decisions {
                if self.detail == Detail::Explain || refused {
                    text.push_str(&decision::decision(decision, self.detail, session.colour()));
                }
            }
        }
        let refused = self.asked.iter().filter(|one| one.answer != Answer::Allowed).count();
        text.push_str(&match refused {
            0 => format!("kiln: all {} are let in\n", self.asked.len()),
            _ => format!("kiln: {refused} of {} are not let in\n", self.asked.len()),
        });
        session.print_text(&text)
    }
}
