//! `kiln tlog`: check, watch and cosign transparency logs, from files alone.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, anyhow};
use clap::{Args, Subcommand};
use kiln_model::envelope::{Envelope, EnvelopeId};
use kiln_model::format::bundle::{self, Bundle};
use kiln_model::log::{
    Believed, Checkpoint, Entry, Included, LogError, LogPolicy, NoteKind, NoteSignature, NoteSigner, Proof, SignedNote,
    Vkey, Weight,
};
use serde_json::{Value, json};

use super::{Failure, Session};
use crate::exit::{self, Kind};
use crate::publish::{Directory, Witness, inspect, proof_of, public_keys, walk};
use crate::sign::key_file;

/// Bytes of the largest file with keys, a policy or signatures.
const MOST_BYTES: u64 = 1 << 20;

/// Check, watch and cosign transparency logs, from files alone: no socket is opened.
#[derive(Debug, Args)]
pub(super) struct TlogCommand {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check a whole log (a directory: every tile, entry, envelope and signature), or a checkpoint, proof or bundle
    Verify(Verify),
    /// Show what is new in a log since it was last looked at: statements that say `DIFFERENT` among it
    Monitor(Monitor),
    /// Cosign a log's checkpoint, once it is known to extend the last one that was cosigned
    Witness(WitnessArguments),
    /// Print the proof that an entry is in a log
    Proof(ProofArguments),
}

/// Whom to believe.
#[derive(Debug, Args)]
struct Believing {
    /// Logs, witnesses and their quorum, as C2SP's tlog-policy has them
    #[arg(long, value_name = "FILE", conflicts_with = "log")]
    policy: Option<PathBuf>,
    /// The log's key, as a vkey or a file with one; witnesses are not asked for then
    #[arg(long, value_name = "VKEY|FILE")]
    log: Option<String>,
}

#[derive(Debug, Args)]
struct Verify {
    /// A log's directory, a checkpoint, a .tlog-proof or a Sigstore bundle
    what: PathBuf,
    #[command(flatten)]
    believing: Believing,
    /// The envelope that a .tlog-proof is of
    #[arg(long, value_name = "FILE")]
    envelope: Option<PathBuf>,
    /// Public keys (PEM) one of which has signed the envelope, as files or directories
    #[arg(long, value_name = "FILE|DIR")]
    keys: Vec<PathBuf>,
}

#[derive(Debug, Args)]
struct Monitor {
    /// The log's directory
    directory: PathBuf,
    #[command(flatten)]
    believing: Believing,
    /// The checkpoint that was seen last, replaced by the present one if that extends it; made if it is not there
    #[arg(long, value_name = "FILE")]
    pinned: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct WitnessArguments {
    /// The log's directory; its checkpoint alone will do if it did not grow, or was not seen before
    log_or_checkpoint: PathBuf,
    /// The witness's secret key: PEM, Ed25519, used for nothing else
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// File whose first line is the key's passphrase
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    /// The witness's name: an address without the scheme, by convention
    #[arg(long)]
    name: String,
    /// What the witness has seen
    #[arg(long, value_name = "DIR")]
    state: PathBuf,
    /// The log's key, as a vkey or a file with one
    #[arg(long, value_name = "VKEY|FILE")]
    log: String,
}

#[derive(Debug, Args)]
struct ProofArguments {
    /// The log's directory
    directory: PathBuf,
    /// The entry's number, from 0, or its envelope's id or file
    entry: String,
}

impl TlogCommand {
    pub(super) fn run(self, session: &Session) -> Result<u8, Failure> {
        match self.command {
            Command::Verify(command) => command.run(session),
            Command::Monitor(command) => command.run(session),
            Command::Witness(command) => command.run(session),
            Command::Proof(command) => command.run(session),
        }
    }
}

impl Believing {
    /// The policy; for a directory, failing all else, that its own key signed it.
    fn policy(&self, session: &Session, directory: Option<&Path>) -> Result<LogPolicy, Failure> {
        if let Some(file) = &self.policy {
            return LogPolicy::parse(&text(file)?).map_err(|error| refused(&file.display().to_string(), error));
        }
        let log = match (&self.log, directory) {
            (Some(log), _) => vkey(log)?,
            (None, Some(directory)) => {
                session
                    .say("the key is the log's own: that it is whole is shown, and not whose it is (--log, --policy)");
                vkey(&directory.join("log.vkey").display().to_string())?
            }
            (None, None) => {
                let error = anyhow!("whom to believe is not said: add --policy FILE or --log VKEY");
                return Err(Failure { kind: Kind::BadInput, error });
            }
        };
        LogPolicy::parse(&format!("log {log}\nquorum none\n")).map_err(|error| refused("--log", error))
    }
}

impl Verify {
    fn run(&self, session: &Session) -> Result<u8, Failure> {
        if self.what.is_dir() {
            return self.directory(session);
        }
        let policy = self.believing.policy(session, None)?;
        let shown = self.what.display().to_string();
        let bytes = bytes(&self.what, bundle::LIMITS.bytes as u64)?;
        let document = if bytes.first() == Some(&b'{') {
            let bundle = Bundle::parse(&bytes).map_err(|error| contradiction(error.is_contradiction(), error))?;
            let signed = public_keys(&self.keys)?.signed(&shown, bundle.envelope.clone())?;
            let entry = bundle.entry(signed.key()).map_err(|error| contradiction(error.is_contradiction(), error))?;
            let included = bundle.entries.iter().map(|logged| policy.judge(&logged.proof, &entry));
            let included = included.collect::<Result<Vec<_>, _>>().map_err(|error| refused(&shown, error))?;
            json!({"kind": "bundle", "logs": included.iter().map(told).collect::<Vec<_>>()})
        } else if bytes.starts_with(b"c2sp.org/tlog-proof@") {
            let proof = Proof::parse(&bytes).map_err(|error| refused(&shown, error))?;
            let Some(file) = &self.envelope else {
                let error = anyhow!("{shown} is a proof: add the envelope that it is of with --envelope FILE");
                return Err(Failure { kind: Kind::BadInput, error });
            };
            let signed = public_keys(&self.keys)?.signed(&file.display().to_string(), envelope(file)?)?;
            let entry = Entry::of(signed.envelope(), signed.key()).map_err(|error| refused(&shown, error))?;
            let included = policy.judge(&proof, &entry).map_err(|error| refused(&shown, error))?;
            json!({"kind": "proof", "logs": [told(&included)]})
        } else {
            let note = SignedNote::parse(&bytes).map_err(|error| refused(&shown, error))?;
            let believed = policy.believe(&note).map_err(|error| refused(&shown, error))?;
            json!({"kind": "checkpoint", "logs": [told_checkpoint(&believed)]})
        };
        tell(session, "verified", document)
    }

    fn directory(&self, session: &Session) -> Result<u8, Failure> {
        let policy = self.believing.policy(session, Some(&self.what))?;
        let found = inspect(&Directory::reading(&self.what), &policy)?;
        let code = if found.withheld.is_empty() { exit::YES } else { exit::INCONCLUSIVE };
        if !session.json() {
            session.say(format!(
                "{} entries of {}, {} tiles: all as they were signed; {} envelopes",
                found.believed.checkpoint.size, found.believed.checkpoint.origin, found.tiles, found.envelopes
            ));
            if !found.withheld.is_empty() {
                session.say(format!(
                    "{} entries have no envelope here: {}",
                    found.withheld.len(),
                    few(&found.withheld)
                ));
            }
            if !found.unlogged.is_empty() {
                session.say(format!("{} envelopes here were not logged", found.unlogged.len()));
            }
        }
        let document = json!({
            "kind": "tree",
            "logs": [told_checkpoint(&found.believed)],
            "tiles": found.tiles,
            "envelopes": found.envelopes,
            "withheld": found.withheld,
            "unlogged": found.unlogged,
        });
        tell(session, "verified", document)?;
        Ok(code)
    }
}

impl Monitor {
    fn run(&self, session: &Session) -> Result<u8, Failure> {
        let policy = self.believing.policy(session, Some(&self.directory))?;
        let pinned = match &self.pinned {
            Some(file) if file.exists() => {
                let shown = file.display().to_string();
                let note = SignedNote::parse(&bytes(file, MOST_BYTES)?).and_then(|note| Checkpoint::parse(note.text()));
                Some(note.map_err(|error| refused(&shown, error))?)
            }
            Some(_) | None => None,
        };
        let (mut new, mut withheld, mut alarms) = (0_u64, Vec::new(), Vec::new());
        let place = Directory::reading(&self.directory);
        let (believed, note) = walk(&place, &policy, pinned.as_ref(), |seen| {
            new += 1;
            match (&seen.statement, seen.result()) {
                (None, _) => withheld.push(seen.index),
                (Some(statement), Some(result @ ("DIFFERENT" | "BUILD_FAILED" | "NOT_ATTEMPTED"))) => {
                    let subjects: Vec<&str> =
                        statement.subject.iter().filter_map(|subject| subject.name.as_deref()).collect();
                    alarms.push(json!({
                        "index": seen.index,
                        "envelope": seen.id.map(|id| id.to_string()),
                        "result": result,
                        "subjects": subjects,
                    }));
                }
                (Some(_), _) => {}
            }
        })?;
        for alarm in alarms.iter().filter(|_| !session.json()) {
            let subjects: Vec<&str> =
                alarm["subjects"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
            let (result, envelope) = (alarm["result"].as_str(), alarm["envelope"].as_str());
            let line =
                format!("{} {} {}", result.unwrap_or_default(), envelope.unwrap_or_default(), subjects.join(" "));
            session.print_line(&line)?;
        }
        if !session.json() {
            session.say(format!("{new} new entries, {} without an envelope here: {}", withheld.len(), few(&withheld)));
        }
        let different = alarms.iter().any(|alarm| alarm["result"] == "DIFFERENT");
        let document = json!({
            "kind": "new entries",
            "logs": [told_checkpoint(&believed)],
            "since": pinned.map_or(0, |pinned| pinned.size),
            "new": new,
            "withheld": withheld,
            "alarms": alarms,
        });
        let missing = document["withheld"].as_array().is_some_and(|withheld| !withheld.is_empty());
        tell(session, "monitored", document)?;
        // What was not seen is looked for again next time.
        if missing {
            return Ok(if different { exit::NO } else { exit::INCONCLUSIVE });
        }
        if let Some(file) = &self.pinned {
            session.write_file(file, note.print().as_bytes())?;
        }
        Ok(if different { exit::NO } else { exit::YES })
    }
}

impl WitnessArguments {
    fn run(&self, session: &Session) -> Result<u8, Failure> {
        let signer = note_key(&self.key, self.passphrase_file.as_deref(), &self.name, NoteKind::Witness)?;
        let log = vkey(&self.log)?;
        let witness = Witness::open(&self.state, signer)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).context("this host's clock is before 1970");
        let now = now.map_err(|error| Failure { kind: Kind::Host, error })?.as_secs();
        let signature = witness.cosign(&log, &self.log_or_checkpoint, now)?;
        if session.json() {
            let (witness, line) = (witness.vkey().to_string(), signature.to_string());
            session.print_json(&json!({"schema": "kiln/tlog/v1", "kind": "cosignature", "witness": witness, "line": line, "time": now}))?;
        } else {
            session.print_line(&signature.to_string())?;
        }
        Ok(exit::YES)
    }
}

impl ProofArguments {
    fn run(&self, session: &Session) -> Result<u8, Failure> {
        let wanted = match (self.entry.parse::<u64>(), self.entry.parse::<EnvelopeId>()) {
            (Ok(index), Err(_)) => Ok(index),
            (_, Ok(id)) => Err(id),
            (Err(_), Err(_)) => Err(envelope(Path::new(&self.entry))?.id()),
        };
        let proof = proof_of(&Directory::reading(&self.directory), wanted)?;
        if session.json() {
            session.print_json(
                &json!({"schema": "kiln/tlog/v1", "kind": "proof", "index": proof.index, "proof": proof.print()}),
            )?;
        } else {
            session.print_text(&proof.print())?;
        }
        Ok(exit::YES)
    }
}

fn told(included: &Included) -> Value {
    json!({
        "origin": included.origin,
        "size": included.size,
        "root": included.root,
        "index": included.index,
        "cosigned": included.cosigned,
    })
}

fn told_checkpoint(believed: &Believed) -> Value {
    let Checkpoint { origin, size, root } = &believed.checkpoint;
    json!({ "origin": origin, "size": size, "root": root, "cosigned": believed.cosigned })
}

fn tell(session: &Session, word: &str, mut document: Value) -> Result<u8, Failure> {
    if session.json() {
        document["schema"] = "kiln/tlog/v1".into();
        session.print_json(&document)?;
    } else {
        for log in document["logs"].as_array().into_iter().flatten() {
            let cosigned = match log["cosigned"].as_array().map(Vec::as_slice) {
                Some([_, by]) => format!(", cosigned no later than {by} (seconds since 1970)"),
                Some(_) | None => String::new(),
            };
            let origin = log["origin"].as_str().unwrap_or_default();
            session.say(format!("{word}: {origin} at {} entries{cosigned}", log["size"]));
        }
    }
    Ok(exit::YES)
}

/// The first of many.
fn few(indices: &[u64]) -> String {
    let shown: Vec<String> = indices.iter().take(10).map(u64::to_string).collect();
    if shown.len() < indices.len() { format!("{}, …", shown.join(", ")) } else { shown.join(", ") }
}

fn refused(what: &str, error: LogError) -> Failure {
    let kind = match error.weight() {
        Weight::Malformed => Kind::BadInput,
        Weight::Contradicted => Kind::Tampered,
        Weight::Insufficient => Kind::Inconclusive,
    };
    Failure { kind, error: anyhow::Error::new(error).context(what.to_owned()) }
}

fn contradiction(contradicts: bool, error: impl Into<anyhow::Error>) -> Failure {
    Failure::new(if contradicts { Kind::Tampered } else { Kind::BadInput }, error)
}

/// A secret key that signs notes under this name.
pub(super) fn note_key(
    file: &Path,
    passphrase_file: Option<&Path>,
    name: &str,
    kind: NoteKind,
) -> Result<NoteSigner, Failure> {
    let shown = file.display().to_string();
    let words = passphrase_file.map(key_file::passphrase).transpose()?;
    NoteSigner::new(name, kind, key_file::secret(file, words.as_deref())?).map_err(|error| refused(&shown, error))
}

/// A public key that signs notes, or what is in the file of that name.
pub(super) fn vkey(given: &str) -> Result<Vkey, Failure> {
    match given.parse::<Vkey>() {
        Ok(vkey) => Ok(vkey),
        // No file has a name like a key with a typing error in it.
        Err(error) if given.matches('+').count() >= 2 && !Path::new(given).exists() => Err(refused("a key", error)),
        Err(_) => text(Path::new(given))?.trim_end().parse().map_err(|error| refused(given, error)),
    }
}

/// Lines of signatures, with or without the checkpoint before them.
pub(super) fn cosignatures(file: &Path) -> Result<Vec<NoteSignature>, Failure> {
    let text = text(file)?;
    let lines = text.lines().filter(|line| line.starts_with('\u{2014}'));
    let lines: Vec<NoteSignature> =
        lines.map(str::parse).collect::<Result<_, _>>().map_err(|error| refused(&file.display().to_string(), error))?;
    match lines.is_empty() {
        false => Ok(lines),
        true => Err(Failure::new(Kind::BadInput, anyhow!("{} has no line with a signature", file.display()))),
    }
}

fn envelope(file: &Path) -> Result<Envelope, Failure> {
    let envelope = Envelope::parse(&bytes(file, bundle::LIMITS.bytes as u64)?);
    envelope
        .with_context(|| format!("reading envelope {}", file.display()))
        .map_err(|error| Failure { kind: Kind::BadInput, error })
}

fn text(file: &Path) -> Result<String, Failure> {
    let text = String::from_utf8(bytes(file, MOST_BYTES)?);
    text.with_context(|| format!("reading {}", file.display())).map_err(|error| Failure { kind: Kind::BadInput, error })
}

fn bytes(file: &Path, limit: u64) -> Result<Vec<u8>, Failure> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    let read = std::fs::File::open(file).and_then(|open| open.take(limit + 1).read_to_end(&mut bytes));
    read.with_context(|| format!("reading {}", file.display()))
        .map_err(|error| Failure { kind: Kind::BadInput, error })?;
    match bytes.len() as u64 > limit {
        true => Err(Failure::new(Kind::BadInput, anyhow!("{} has more than {limit} bytes", file.display()))),
        false => Ok(bytes),
    }
}
