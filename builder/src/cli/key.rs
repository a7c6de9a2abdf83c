//! `kiln key`: keys that sign, and other programs' spellings of them.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use clap::{Args, Subcommand, ValueEnum};
use kiln_model::format::signature;
use kiln_model::key::{Algorithm, KeyError, PublicKey, minisign, nix, signify, ssh};
use kiln_model::log::note::{NoteKind, Vkey};
use kiln_model::outcome::Moment;

use super::publish::secret_key;
use super::{Failure, Session};
use crate::exit::{self, Kind};
use crate::nix::CacheError;
use crate::sign::{SignError, also, key_file};

/// Make keys, show them as other programs spell them, and sign files with them.
///
/// One key for each role: statements, verdicts, a log, a witness, a cache of Nix, released files.
#[derive(Debug, Args)]
pub(super) struct KeyCommand {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a secret key, and print the public one
    Generate {
        /// Name of a key for a cache of Nix, by convention a host's and a number: cache.example-1; makes it in Nix's format
        #[arg(conflicts_with_all = ["algorithm", "passphrase_file"])]
        name: Option<String>,
        /// File for the secret key, which must not exist
        #[arg(long, value_name = "FILE")]
        output: PathBuf,
        /// Which kind of key; Sigstore's clients ask for p256
        #[arg(long, value_enum, default_value_t = Kinds::Ed25519)]
        algorithm: Kinds,
        /// File whose first line is a passphrase to encrypt the key with
        #[arg(long, value_name = "FILE")]
        passphrase_file: Option<PathBuf>,
    },
    /// Print a public key as another program spells it
    Show {
        /// File with a key, public or secret, in any spelling.
        file: PathBuf,
        /// Which spelling
        #[arg(long, value_enum, default_value_t = Spelling::Pem)]
        format: Spelling,
        /// Name of the key, where the spelling has one: vkey, witness, nix
        #[arg(long, required_if_eq_any = [("format", "vkey"), ("format", "witness"), ("format", "nix")])]
        name: Option<String>,
        /// File whose first line is the key's passphrase
        #[arg(long, value_name = "FILE")]
        passphrase_file: Option<PathBuf>,
    },
    /// Take over a key of another program's: Nix's or OpenSSL's secret, anybody's public
    Import {
        /// File with the key, in any spelling.
        file: PathBuf,
        /// File for the key in PEM, which must not exist
        #[arg(long, value_name = "FILE")]
        output: PathBuf,
        /// File whose first line is the key's passphrase, and that of the new file
        #[arg(long, value_name = "FILE")]
        passphrase_file: Option<PathBuf>,
    },
    /// Sign a file, beside it: only with a key that signs nothing else
    Sign {
        /// The file.
        file: PathBuf,
        /// File with the secret key
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
        /// Whose form the signature has
        #[arg(long, value_enum)]
        format: Detached,
        /// File for the signature [default: on stdout]
        #[arg(long, value_name = "FILE")]
        output: Option<PathBuf>,
        /// File whose first line is the key's passphrase
        #[arg(long, value_name = "FILE")]
        passphrase_file: Option<PathBuf>,
    },
    /// Print a signed layout of in-toto: k of these rebuilders have to make the same
    Layout {
        /// Files with the rebuilders' public keys.
        #[arg(required = true)]
        rebuilder: Vec<PathBuf>,
        /// How many of them
        #[arg(long, value_name = "K")]
        threshold: usize,
        /// Name of a file that they make; several are allowed
        #[arg(long, required = true, value_name = "NAME")]
        product: Vec<String>,
        /// Until when: 2030-01-01T00:00:00Z
        #[arg(long, value_name = "TIME")]
        expires: Moment,
        /// File with the secret key of whoever relies on it
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
        /// File whose first line is the key's passphrase
        #[arg(long, value_name = "FILE")]
        passphrase_file: Option<PathBuf>,
    },
    /// Print the public key that belongs to a secret one of Nix's
    Public {
        /// File with the secret key.
        file: PathBuf,
    },
}

/// Kinds of keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kinds {
    /// Small and fast.
    Ed25519,
    /// ECDSA, for clients that know no other.
    P256,
}

/// Spellings of public keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Spelling {
    /// As OpenSSL writes it
    Pem,
    /// A line for authorized_keys or allowed_signers
    Ssh,
    /// minisign's file
    Minisign,
    /// signify's file
    Signify,
    /// A log's key in signed notes
    Vkey,
    /// A witness's key in signed notes
    Witness,
    /// NAME:BASE64
    Nix,
    /// What statements, policies, Sigstore's bundles and in-toto's layouts call it
    Ids,
}

/// Forms of detached signatures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Detached {
    /// SSHSIG in the namespace rebuild-attestation
    Ssh,
    /// minisign's
    Minisign,
    /// signify's, over the bare file
    Signify,
}

impl KeyCommand {
    pub(super) fn run(self, session: &Session) -> Result<u8, Failure> {
        match self.command {
            Command::Public { file } => session.print_line(&secret_key(&file)?.public().to_string())?,
            Command::Generate { name: Some(name), output, .. } => {
                let key = signature::SecretKey::from_seed(&name, &key_file::random()?)
                    .map_err(|source| CacheError::Key { what: name.clone(), source })?;
                key_file::write_secret(&output, &key.reveal())?;
                session.print_line(&key.public().to_string())?;
            }
            Command::Generate { name: None, output, algorithm, passphrase_file } => {
                let words = words(passphrase_file.as_deref())?;
                let key = key_file::generate(match algorithm {
                    Kinds::Ed25519 => Algorithm::Ed25519,
                    Kinds::P256 => Algorithm::P256,
                })?;
                key_file::write_secret(&output, &key_file::text(&key, words.as_deref())?)?;
                session.print_text(&key.public().to_pem())?;
            }
            Command::Show { file, format, name, passphrase_file } => {
                let key = key_file::public(&file, words(passphrase_file.as_deref())?.as_deref())?;
                let text = spelled(&key, format, name.as_deref().unwrap_or_default());
                session.print_text(&text.map_err(|error| named(&file, error))?)?;
            }
            Command::Import { file, output, passphrase_file } => {
                let words = words(passphrase_file.as_deref())?;
                match key_file::secret(&file, words.as_deref()) {
                    Ok(key) => {
                        key_file::write_secret(&output, &key_file::text(&key, words.as_deref())?)?;
                        session.print_text(&key.public().to_pem())?;
                    }
                    Err(
                        SignError::Key { source: KeyError::Pem { .. } | KeyError::Form { .. }, .. }
                        | SignError::Open { .. },
                    ) => {
                        let key = key_file::public(&file, words.as_deref())?;
                        session.write_file(&output, key.to_pem().as_bytes())?;
                        session.print_text(&key.to_pem())?;
                    }
                    Err(error) => return Err(error.into()),
                }
            }
            Command::Sign { file, key, format, output, passphrase_file } => {
                let secret = key_file::secret(&key, words(passphrase_file.as_deref())?.as_deref())?;
                let message =
                    std::fs::read(&file).with_context(|| format!("reading {}", file.display())).map_err(bad)?;
                let name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
                let text = match format {
                    Detached::Ssh => Ok(ssh::sign(&secret, ssh::NAMESPACE, &message)),
                    Detached::Minisign => minisign::sign(&secret, &message, &name),
                    Detached::Signify => signify::sign(&secret, &message),
                };
                let text = text.map_err(|error| named(&key, error))?;
                match output {
                    Some(output) => session.write_file(&output, text.as_bytes())?,
                    None => session.print_text(&text)?,
                }
            }
            Command::Layout { rebuilder, threshold, product, expires, key, passphrase_file } => {
                let consumer = key_file::secret(&key, words(passphrase_file.as_deref())?.as_deref())?;
                let keys = rebuilder.iter().map(|file| key_file::public(file, None)).collect::<Result<Vec<_>, _>>()?;
                let distinct: std::collections::BTreeSet<_> = keys.iter().map(PublicKey::id).collect();
                if threshold == 0 || threshold > distinct.len() {
                    let most = distinct.len();
                    return Err(bad(anyhow!(
                        "--threshold {threshold}: expected 1 to {most}, which is how many keys there are"
                    )));
                }
                let layout = also::layout(&keys, threshold, &product, expires, &consumer).canonical();
                session.print_line(&String::from_utf8_lossy(&layout))?;
            }
        }
        Ok(exit::YES)
    }
}

fn words(file: Option<&Path>) -> Result<Option<String>, SignError> {
    file.map(key_file::passphrase).transpose()
}

fn spelled(key: &PublicKey, format: Spelling, name: &str) -> Result<String, anyhow::Error> {
    let note = |kind| -> anyhow::Result<String> { Ok(format!("{}\n", Vkey::new(name, kind, key.clone())?)) };
    Ok(match format {
        Spelling::Pem => key.to_pem(),
        Spelling::Ssh => format!("{}\n", ssh::public(key)),
        Spelling::Minisign => minisign::public(key)?,
        Spelling::Signify => signify::public(key)?,
        Spelling::Vkey => note(NoteKind::Log)?,
        Spelling::Witness => note(NoteKind::Witness)?,
        Spelling::Nix => format!("{}\n", nix::public(key, name)?),
        Spelling::Ids => format!(
            "statements       {}\npolicies         sha256:{}\nSigstore's hint  {}\nsecuresystemslib {}\n",
            key.id(),
            key.id(),
            key.id().hint(),
            key.securesystemslib_id()
        ),
    })
}

fn named(file: &Path, error: impl Into<anyhow::Error>) -> Failure {
    bad(error.into().context(format!("in {}", file.display())))
}

fn bad(error: anyhow::Error) -> Failure {
    Failure { kind: Kind::BadInput, error }
}
