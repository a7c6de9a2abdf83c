//! `kiln publish`: evidence in a transparency log, or a binary cache that Nix substitutes from.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use clap::{ArgGroup, Args};
use kiln_model::digest::Digest;
use kiln_model::format::narinfo::Compression;
use kiln_model::format::signature::SecretKey;
use kiln_model::log::{NoteKind, SignedNote};
use kiln_model::outcome::Moment;
use kiln_model::store_path::StorePath;

use super::{Failure, Session, tlog};
use crate::exit::{self, Kind};
use crate::fetch::{self, Address, Policy, Web, address};
use crate::nix::{CacheError, Destination, Publisher, paths_of};
use crate::parallel;
use crate::publish::{
    Appended, Directory, Evidence, Keys, LogWriter, Place, PublishError, Server, public_keys, trust_bundles,
};

/// Publish evidence in a transparency log (--log-key), or paths as a binary cache that Nix substitutes from (--nix-cache).
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("how").required(true).args(["nix_cache", "log_key"])))]
pub(super) struct Publish {
    /// For a cache: paths in the store (/nix/store/HASH-NAME), directories of built recipes or files of built derivations; with
    /// all that they name. For a log: envelopes, bundles, lines of envelopes, or directories of them; without any, what a crash
    /// interrupted is finished and cosignatures are taken
    #[arg(required_unless_present = "log_key")]
    what: Vec<PathBuf>,
    /// Directory of the cache or log, made if it is not there, or an address (http, https) that takes PUT, for a log also under
    /// conditions (If-None-Match, If-Match); credentials are read from ~/.netrc
    #[arg(long, value_name = "DIR|URL")]
    to: PathBuf,
    /// As a binary cache of Nix
    #[arg(long, conflicts_with_all = ["log_key", "origin", "keys", "svid_bundle", "witness", "cosignature", "state", "rebuild", "passphrase_file"])]
    nix_cache: bool,
    #[command(flatten)]
    log: Logging,
    /// File with the secret key to sign with, as `nix key generate-secret` writes it; several are allowed
    #[arg(long, value_name = "FILE", conflicts_with = "log_key")]
    key: Vec<PathBuf>,
    /// How archives are compressed
    #[arg(long, value_enum, default_value_t = Method::Zstd)]
    compression: Method,
}

/// How a log is written.
#[derive(Debug, Args)]
struct Logging {
    /// In a log that this key signs: PEM, Ed25519, used for nothing else
    #[arg(long, value_name = "FILE", requires = "origin")]
    log_key: Option<PathBuf>,
    /// File whose first line is the log key's passphrase
    #[arg(long, value_name = "FILE", requires = "log_key")]
    passphrase_file: Option<PathBuf>,
    /// Name of the log: the address that it is served at, without the scheme
    #[arg(long, value_name = "NAME", requires = "log_key")]
    origin: Option<String>,
    /// Public keys (PEM) that evidence is signed with, as files or directories of .pub and .pem files; those in the directory of a
    /// log are known
    #[arg(long, value_name = "FILE|DIR", requires = "log_key")]
    keys: Vec<PathBuf>,
    /// Trust bundle of a SPIFFE trust domain (PEM, or SPIFFE's JWK set): what its workloads signed is published with their
    /// certificates, which must be valid now
    #[arg(long, value_name = "FILE", requires = "log_key")]
    svid_bundle: Vec<PathBuf>,
    /// A witness's key, as a vkey or a file with one; its cosignatures are taken and readers are proposed to ask for them
    #[arg(long, value_name = "VKEY|FILE", requires = "log_key")]
    witness: Vec<String>,
    /// Lines that `kiln tlog witness` printed for this log's checkpoint
    #[arg(long, value_name = "FILE", requires = "log_key")]
    cosignature: Vec<PathBuf>,
    /// What the writer remembers, outside the log and on this host: whoever publishes with the same key needs it
    /// [default: logs/ in the store]
    #[arg(long, value_name = "DIR", requires = "log_key")]
    state: Option<PathBuf>,
    /// Make proofs, bundles and indexes of the whole log again
    #[arg(long, requires = "log_key")]
    rebuild: bool,
}

/// How archives are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Method {
    /// Fast, on all processors.
    Zstd,
    /// Small and slow.
    Xz,
    /// Not at all.
    None,
}

impl Publish {
    pub(super) fn run(self, session: &Session) -> Result<u8, Failure> {
        match &self.log.log_key {
            Some(key) => self.log.run(session, key, &self.to, &self.what),
            None => self.cache(session),
        }
    }

    fn cache(self, session: &Session) -> Result<u8, Failure> {
        let policy = Policy::of(session.config()?);
        let uploads = NonZeroUsize::new(policy.parallel).unwrap_or(NonZeroUsize::MIN);
        let web = Web::new(&fetch::Host::current(), session.network(), policy);
        let destination = &Destination::at(&self.to, &web)?;
        let store = session.store()?;
        let mut paths = BTreeSet::new();
        for what in &self.what {
            match what.to_str().and_then(|text| text.parse::<StorePath>().ok()) {
                Some(path) => drop(paths.insert(path)),
                None => paths.extend(paths_of(store, &session.graph(std::slice::from_ref(what))?)?),
            }
        }
        let keys = self.key.iter().map(secret_key).collect::<Result<Vec<_>, _>>()?;
        let compression = match self.compression {
            Method::Zstd => Compression::Zstd,
            Method::Xz => Compression::Xz,
            Method::None => Compression::None,
        };
        let processors = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        let publisher = Publisher { store, destination, keys: &keys, compression, processors, uploads };
        let done = publisher.publish(&paths)?;
        if session.json() {
            session.print_json(&serde_json::json!({
                "schema": "kiln/published/v1",
                "added": done.added,
                "signed": done.signed,
                "kept": done.kept,
                "realisations": done.realisations,
                "nar_bytes": done.nar_bytes,
                "file_bytes": done.file_bytes,
            }))?;
        } else {
            session.say(format!(
                "{} paths added, {} signed again, {} there already: {} bytes of archives in {}",
                done.added, done.signed, done.kept, done.nar_bytes, done.file_bytes
            ));
        }
        Ok(exit::YES)
    }
}

impl Logging {
    fn run(&self, session: &Session, key: &Path, to: &Path, what: &[PathBuf]) -> Result<u8, Failure> {
        let refused = |source| PublishError::Place { address: address::public(&to.display().to_string()), source };
        let to = Address::of(to).map_err(refused)?;
        let origin = self.origin.as_deref().expect("clap requires it with --log-key");
        let signer = tlog::note_key(key, self.passphrase_file.as_deref(), origin, NoteKind::Log)?;
        let witnesses = self.witness.iter().map(|witness| tlog::vkey(witness)).collect::<Result<Vec<_>, _>>()?;
        let now = Moment::from_unix(u64::try_from(jiff::Timestamp::now().as_second()).unwrap_or_default());
        let mut keys = public_keys(&self.keys)?.trusting(trust_bundles(&self.svid_bundle)?, now);
        let state = match &self.state {
            Some(state) => state.clone(),
            // One key under one name is one log, wherever it is.
            None => session.store_root()?.join("logs").join(Digest::of(signer.vkey().to_string()).to_string()),
        };
        match to {
            Address::Directory(directory) => {
                let place = Directory::writing(&directory)?;
                // Keys that are there belong to what is there.
                let known = directory.join("keys");
                keys.extend(public_keys(&[known].into_iter().filter(|keys| keys.is_dir()).collect::<Vec<_>>())?);
                self.append(session, LogWriter::open(&place, &state, signer, witnesses)?, &place, &keys, what)
            }
            Address::Web(base) => {
                let policy = Policy::of(session.config()?);
                let at_once =
                    NonZeroUsize::new(policy.parallel).unwrap_or(NonZeroUsize::MIN).max(parallel::processors());
                let web = Web::new(&fetch::Host::current(), session.network(), policy);
                let place = Server::writing(&web, base, at_once)?;
                self.append(session, LogWriter::open(&place, &state, signer, witnesses)?, &place, &keys, what)
            }
        }
    }

    fn append<P: Place + Sync>(
        &self,
        session: &Session,
        mut writer: LogWriter<'_, P>,
        place: &P,
        keys: &Keys,
        what: &[PathBuf],
    ) -> Result<u8, Failure> {
        let (mut evidence, mut done) = (Evidence::at(what), Appended::default());
        loop {
            let batch = evidence.batch(keys)?;
            if batch.is_empty() {
                break;
            }
            let appended = writer.append(batch)?;
            done.added += appended.added;
            done.kept += appended.kept;
        }
        let mut cosignatures = 0;
        for file in &self.cosignature {
            cosignatures += writer.cosigned(&tlog::cosignatures(file)?)?;
        }
        if self.rebuild {
            writer.derive()?;
        }
        let size = writer.size();
        if session.json() {
            session.print_json(&serde_json::json!({
                "schema": "kiln/logged/v1",
                "origin": writer.vkey().name(),
                "vkey": writer.vkey().to_string(),
                "size": size,
                "added": done.added,
                "kept": done.kept,
                "cosignatures": cosignatures,
                "checkpoint": writer.checkpoint().map(SignedNote::print),
            }))?;
        } else {
            session.say(format!(
                "{} entries added, {} there already, {cosignatures} new cosignatures: {size} entries in {}",
                done.added,
                done.kept,
                place.shown()
            ));
        }
        Ok(exit::YES)
    }
}

/// A key comes from a file, never from the command line, which other users see.
pub(super) fn secret_key(file: &PathBuf) -> Result<SecretKey, Failure> {
    let text = std::fs::read_to_string(file)
        .with_context(|| format!("reading key {}", file.display()))
        .map_err(|error| Failure { kind: Kind::BadInput, error })?;
    if text.len() > 4096 {
        return Err(Failure::new(Kind::BadInput, anyhow!("{} is too long for a key", file.display())));
    }
    Ok(text.trim_end().parse().map_err(|source| CacheError::Key { what: file.display().to_string(), source })?)
}
