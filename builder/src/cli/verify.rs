//! `kiln verify`: whether a policy lets artifacts in, by evidence in files. Opens no socket.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use clap::Args;
use kiln_model::envelope::Envelope;
use kiln_model::format::osv::Advisory;
use kiln_model::key::TrustBundle;
use kiln_model::log::LogPolicy;
use kiln_model::outcome::Moment;
use kiln_model::policy::{BreakGlass, Policy};
use kiln_model::verify::{self, Answer, Artifact, Check, Decision, Evidence, Feed, Issuer};
use serde::Serialize;

use super::judging::{self, Bench, Judging};
use super::{Failure, Session, installed};
use crate::evidence;
use crate::exit::{self, Kind};
use crate::render::decision::{self, Detail};
use crate::sign::key_file;

/// From here on artifacts are told in a line each, unless one is refused.
const MANY: usize = 10;

/// Refused statements that are told without being asked for.
const TOLD: usize = 5;

/// Decide by a policy whether enough independent rebuilders vouch for an artifact
///
/// Needs files only: the policy, the public keys it names, and evidence that `kiln evidence pull` or anybody else fetched. Opens no
/// socket. Exits with 0 if the policy lets every artifact in, 1 if it denies one, 4 if evidence is missing, 6 if cryptography
/// contradicts what was presented, 2 if the policy could never pass.
#[derive(Debug, Args)]
pub(super) struct Verify {
    /// Files; a directory is verified by its NAR
    #[arg(required_unless_present_any = ["sums", "installed"])]
    artifacts: Vec<PathBuf>,
    /// What is required: see `kiln policy init`
    #[arg(long, value_name = "FILE")]
    policy: PathBuf,
    /// Envelopes, bundles, lines of them, proofs, trees of logs, and the forms of others that the policy accepts (.link, .narinfo,
    /// .buildinfo); may be repeated
    #[arg(long, value_name = "DIR|FILE", required = true)]
    evidence: Vec<PathBuf>,
    /// Public keys in PEM or Nix's form, OpenPGP certificates (.asc, .gpg, .pgp); those that the policy does not name count for nothing
    /// [default: keys/ beside the policy]
    #[arg(long, value_name = "DIR")]
    keys: Option<PathBuf>,
    /// Also verify what this list names, in the form of sha256sum; its digests are believed
    #[arg(long, value_name = "FILE")]
    sums: Option<PathBuf>,
    /// Verify what this host's dpkg has installed: each package by its name and version, a line each
    #[arg(long, conflicts_with_all = ["artifacts", "sums", "purl", "vsa_key", "break_glass"])]
    installed: bool,
    /// Root file system of the host that is meant by --installed
    // `requires` would not do: clap takes it back where what is required conflicts with something given.
    #[arg(long, value_name = "DIR", default_value = "/", conflicts_with_all = ["artifacts", "sums"])]
    root: PathBuf,
    /// What the artifact is, as a package URL with a version
    #[arg(long, value_name = "PURL")]
    purl: Option<String>,
    /// What time it is, in UTC, instead of this host's clock
    #[arg(long, value_name = "RFC3339")]
    now: Option<Moment>,
    /// Tell every check
    #[arg(long)]
    explain: bool,
    /// Advisories in the OSV format, for vulns.max_cvss
    #[arg(long, value_name = "DIR")]
    osv: Option<PathBuf>,
    /// Sign the decision as a verification summary with this key, which is no rebuilder's
    #[arg(long, value_name = "FILE", requires = "vsa_output", requires = "verifier")]
    vsa_key: Option<PathBuf>,
    /// File whose first line is that key's passphrase
    #[arg(long, value_name = "FILE", requires = "vsa_key")]
    passphrase_file: Option<PathBuf>,
    /// Where to write the summary; one a line for several artifacts
    #[arg(long, value_name = "FILE", requires = "vsa_key")]
    vsa_output: Option<PathBuf>,
    /// Who issues the summary
    #[arg(long, value_name = "URI", requires = "vsa_key")]
    verifier: Option<String>,
    /// Exit with 0 all the same, for this reason, if the policy allows that
    #[arg(long, value_name = "REASON")]
    break_glass: Option<String>,
}

/// The JSON document.
#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    exit: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    r#override: Option<&'a str>,
    policy: PolicySaid<'a>,
    now: Moment,
    decisions: &'a [Decision],
    evidence: EvidenceSaid<'a>,
}

/// What is said of a policy.
#[derive(Serialize)]
pub(super) struct PolicySaid<'a> {
    pub(super) file: String,
    pub(super) sha256: kiln_model::digest::Digest,
    pub(super) missing_keys: Vec<String>,
    pub(super) operators: Vec<&'a str>,
}

/// What is said of evidence.
#[derive(Serialize)]
pub(super) struct EvidenceSaid<'a> {
    files: usize,
    statements: usize,
    ignored: usize,
    refused: usize,
    tampered: usize,
    ignored_because: Vec<Ignored>,
    refused_because: &'a [Check],
    tampered_because: &'a [Check],
}

#[derive(Serialize)]
struct Ignored {
    source: String,
    because: String,
}

impl Verify {
    pub(super) fn run(self, session: &Session) -> Result<u8, Failure> {
        let judging = Judging {
            policy: &self.policy,
            evidence: &self.evidence,
            keys: self.keys.as_deref(),
            now: self.now,
            osv: self.osv.as_deref(),
        };
        if self.installed {
            let detail = if self.explain { Detail::Explain } else { Detail::Short };
            return installed::run(session, &self.root, &judging, detail);
        }
        self.refuse_usage()?;
        let artifacts = self.hashed()?;
        let code = judging.judge(|bench| {
            let decisions = bench.decide(&artifacts);
            self.summaries(session, &decisions, bench)?;
            let answer = judging::gravest(decisions.iter().map(|decision| decision.answer));
            self.show(session, &decisions, answer, bench)?;
            // As the evidence: the process is about to end.
            std::mem::forget(decisions);
            Ok(answer)
        })?;
        Ok(if self.break_glass.is_some() { exit::YES } else { code })
    }

    fn show(
        &self,
        session: &Session,
        decisions: &[Decision],
        answer: Answer,
        bench: &Bench<'_>,
    ) -> Result<(), Failure> {
        let overridden = self.break_glass.as_deref().filter(|_| answer != Answer::Allowed);
        if !session.json() {
            return self.tell(session, decisions, bench.evidence, overridden);
        }
        session.print_json(&Document {
            schema: "kiln/decisions/v1",
            exit: if overridden.is_some() { exit::YES } else { answer.exit_code() },
            r#override: overridden,
            policy: bench.policy_said(),
            now: bench.now,
            decisions,
            evidence: bench.evidence_said(),
        })
    }

    fn refuse_usage(&self) -> Result<(), Failure> {
        let refused = |text: String| Err(Failure::new(Kind::BadInput, anyhow!(text)));
        if let Some(reason) = &self.break_glass {
            if reason.trim().is_empty() {
                return refused("--break-glass needs a reason, which is shown".into());
            }
            if load(&self.policy)?.0.break_glass == BreakGlass::Forbidden {
                let file = self.policy.display();
                return refused(format!("--break-glass: {file} does not allow it (break_glass.allowed is false)"));
            }
        }
        if self.purl.is_some() && (self.artifacts.len() != 1 || self.sums.is_some()) {
            return refused("--purl names one artifact: give one".into());
        }
        Ok(())
    }

    fn hashed(&self) -> Result<Vec<Artifact>, Failure> {
        let mut artifacts: Vec<Artifact> =
            self.artifacts.iter().map(|path| evidence::artifact(path, self.purl.clone())).collect::<Result<_, _>>()?;
        if let Some(list) = &self.sums {
            artifacts.extend(evidence::sums(list)?);
        }
        if artifacts.is_empty() {
            return Err(Failure::new(Kind::BadInput, anyhow!("nothing to verify: the list of artifacts is empty")));
        }
        Ok(artifacts)
    }

    /// Signs what was decided, refusals too.
    fn summaries(&self, session: &Session, decisions: &[Decision], bench: &Bench<'_>) -> Result<(), Failure> {
        let (policy, now) = (bench.policy, bench.now);
        let (Some(key), Some(output), Some(verifier)) = (&self.vsa_key, &self.vsa_output, &self.verifier) else {
            return Ok(());
        };
        let bad = |error| Failure { kind: Kind::BadInput, error };
        let words = self.passphrase_file.as_deref().map(key_file::passphrase).transpose()?;
        let key = key_file::secret(key, words.as_deref())?;
        if policy.rebuilders.iter().any(|rebuilder| rebuilder.keys.contains(&key.public().id())) {
            let error = anyhow!("--vsa-key is a rebuilder's key of this policy: a verifier signs with one of its own");
            return Err(bad(error));
        }
        let issuer = Issuer {
            verifier: verifier.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            policy_uri: format!("file:{}", self.policy.file_name().unwrap_or_default().to_string_lossy()),
        };
        let mut lines = Vec::new();
        for decision in decisions {
            let statement = verify::summary(decision, policy, &issuer, now)
                .with_context(|| format!("summary of {}", decision.artifact.name))
                .map_err(bad)?;
            let payload = statement.print().context("writing a summary").map_err(bad)?;
            if !lines.is_empty() {
                lines.push(b'\n');
            }
            lines.extend(Envelope::sign(payload, &key).canonical());
        }
        session.write_file(output, &lines)
    }

    fn tell(
        &self,
        session: &Session,
        decisions: &[Decision],
        evidence: &Evidence,
        overridden: Option<&str>,
    ) -> Result<(), Failure> {
        let detail = if self.explain { Detail::Explain } else { Detail::Short };
        let mut text = String::new();
        let mut allowed = 0;
        for decision in decisions {
            let yes = decision.answer == Answer::Allowed;
            allowed += usize::from(yes);
            if decisions.len() > MANY && yes && !self.explain {
                continue;
            }
            text.push_str(&decision::decision(decision, detail, session.colour()));
        }
        if decisions.len() > 1 {
            text.push_str(&format!("{allowed} of {} artifacts are allowed\n", decisions.len()));
        }
        let all = self.explain;
        let refused = if all { evidence.refused.len() } else { TOLD };
        if allowed < decisions.len() || all {
            for check in evidence.refused.iter().take(refused) {
                text.push_str(&decision::one(check));
            }
            if evidence.refused_count > refused.min(evidence.refused.len()) {
                text.push_str(&format!(
                    "  {} statements do not count in all; see --explain or --json\n",
                    evidence.refused_count
                ));
            }
        }
        if all {
            for (source, why) in &evidence.ignored {
                text.push_str(&format!("  ignored {source}: {why}\n"));
            }
        }
        if evidence.ignored_count > 0 {
            text.push_str(&format!(
                "  ignored {} files or lines that are no evidence for this policy\n",
                evidence.ignored_count
            ));
        }
        if let Some(reason) = overridden {
            text.push_str(&format!("OVERRIDE: let in against the policy's decision, because: {reason}\n"));
        }
        session.print_text(&text)
    }
}

/// A policy and the logs that it believes.
pub(super) fn load(path: &Path) -> Result<(Policy, Option<LogPolicy>), Failure> {
    let bad = |error| Failure { kind: Kind::BadInput, error };
    let named = |path: &Path| format!("policy {}", path.display());
    let text = std::fs::read_to_string(path).with_context(|| named(path)).map_err(bad)?;
    let mut policy = Policy::parse(&text).with_context(|| named(path)).map_err(bad)?;
    policy.trust(|name| {
        let file = path.parent().unwrap_or(Path::new("")).join(name);
        let reading = || format!("trust bundle {}", file.display());
        let bytes = std::fs::read(&file).with_context(reading).map_err(bad)?;
        TrustBundle::parse(&bytes).with_context(reading).map_err(bad)
    })?;
    let log = match &policy.log.policy_file {
        None => None,
        Some(name) => {
            let file = path.parent().unwrap_or(Path::new("")).join(name);
            match std::fs::read_to_string(&file) {
                Ok(text) => Some(
                    LogPolicy::parse(&text).with_context(|| format!("log policy {}", file.display())).map_err(bad)?,
                ),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
                Err(error) => {
                    return Err(bad(anyhow::Error::new(error).context(format!("log policy {}", file.display()))));
                }
            }
        }
    };
    Ok((policy, log))
}

/// What time this host believes it is.
pub(super) fn clock() -> Result<Moment, Failure> {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let since = since.context("this host's clock is before 1970: set it, or say --now");
    Ok(Moment::from_unix(since.map_err(|error| Failure { kind: Kind::Host, error })?.as_secs()))
}

/// Advisories below a directory.
pub(super) fn feed(directory: &Path) -> Result<Feed, Failure> {
    let bad = |error| Failure { kind: Kind::BadInput, error };
    let mut feed = Feed::default();
    let mut waiting = vec![directory.to_owned()];
    while let Some(directory) = waiting.pop() {
        let reading = || format!("reading advisories in {}", directory.display());
        for entry in std::fs::read_dir(&directory).with_context(reading).map_err(bad)? {
            let entry = entry.with_context(reading).map_err(bad)?;
            let (path, kind) = (entry.path(), entry.file_type().with_context(reading).map_err(bad)?);
            if kind.is_dir() {
                waiting.push(path);
            } else if kind.is_file() && path.extension().is_some_and(|extension| extension == "json") {
                let reading = || format!("advisory {}", path.display());
                let bytes = std::fs::read(&path).with_context(reading).map_err(bad)?;
                feed.add(Advisory::parse(&bytes).with_context(reading).map_err(bad)?);
            }
        }
    }
    Ok(feed)
}

pub(super) fn said(evidence: &Evidence, files: usize) -> EvidenceSaid<'_> {
    let ignored = evidence.ignored.iter();
    EvidenceSaid {
        files,
        statements: evidence.len(),
        ignored: evidence.ignored_count,
        refused: evidence.refused_count,
        tampered: evidence.tampered_count,
        ignored_because: ignored.map(|(s, why)| Ignored { source: s.to_string(), because: why.clone() }).collect(),
        refused_because: &evidence.refused,
        tampered_because: &evidence.tampered,
    }
}
