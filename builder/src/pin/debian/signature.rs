//! Clear-signed indices and the keyrings that they are held against.
//!
//! One good signature by a trusted key suffices; what the others are is told in notes. A key is trusted if it is in a
//! keyring, bound by a self-signature, and not revoked. One that has expired since is accepted if it was valid when it
//! signed: expired keys are what breaks rebuilding the past. Only the text under the signature is returned, so nothing
//! else can be parsed; text outside it is refused, since other programs may read it.

use std::fmt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use pgp::composed::{CleartextSignedMessage, Deserializable, SignedPublicKey, SignedPublicSubKey};
use pgp::crypto::hash::HashAlgorithm;
use pgp::packet::{Signature, SignatureType};
use pgp::types::{KeyDetails, Tag};

const BEGIN: &[u8] = b"-----BEGIN PGP SIGNED MESSAGE-----";
const END: &[u8] = b"\n-----END PGP SIGNATURE-----";
/// How far a signer's clock may be ahead of ours.
const AHEAD: i64 = 24 * 60 * 60;
/// Signatures that are looked at; Debian's indices carry two or three.
const SIGNATURES: usize = 32;

/// Keys that are trusted.
#[derive(Debug)]
pub(crate) struct Keyring {
    keys: Vec<SignedPublicKey>,
    paths: Vec<PathBuf>,
}

/// What a good signature vouches for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Signed {
    /// The text, with plain line ends.
    pub(super) text: String,
    /// Fingerprints of the primary keys whose signatures were good, sorted.
    pub(super) signed_by: Vec<String>,
    /// What a person should know: an expired key, further signatures that are not good.
    pub(super) notes: Vec<String>,
}

/// Why a keyring cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyringError {
    /// It cannot be read.
    #[error("reading keyring {}; install your distribution's archive keyring package or name another keyring (--keyring FILE)", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// It is no keyring.
    #[error("keyring {} is not an OpenPGP keyring", path.display())]
    NotOpenPgp {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: Box<pgp::errors::Error>,
    },
    /// No keys at all.
    #[error("no key in any keyring ({}); name one that holds the archive's key", paths.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(", "))]
    Empty {
        /// The files.
        paths: Vec<PathBuf>,
    },
}

/// Why a signed text is not believed.
#[derive(Debug, thiserror::Error)]
pub enum SignatureError {
    /// No signature.
    #[error("it is not clear-signed")]
    Unsigned,
    /// Not even text.
    #[error("it is not UTF-8 text")]
    NotText,
    /// Text that no signature covers.
    #[error("there is text {place} the signed part")]
    Outside {
        /// `before` or `after`.
        place: &'static str,
    },
    /// Cannot be read.
    #[error("its signature cannot be read")]
    Malformed {
        /// Why not.
        source: Box<pgp::errors::Error>,
    },
    /// Signatures, but none that counts.
    #[error("{} (keyrings: {keyrings})", flaws.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    NoneGood {
        /// What is wrong with each.
        flaws: Vec<Flaw>,
        /// What they were held against.
        keyrings: String,
    },
}

/// What is wrong with one signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Flaw {
    /// Made by a key that is in no keyring.
    Unknown {
        /// As the signature names it.
        key: String,
    },
    /// Does not fit text and key.
    Bad {
        /// The key.
        key: String,
    },
    /// Made after the key had expired.
    KeyExpired {
        /// The key.
        key: String,
        /// When.
        at: Timestamp,
    },
    /// The key was revoked.
    Revoked {
        /// The key.
        key: String,
    },
    /// The key may not sign, or nothing binds it to its owner.
    NotForSigning {
        /// The key.
        key: String,
    },
    /// The signature's own time is over.
    Expired {
        /// The key.
        key: String,
        /// When.
        at: Timestamp,
    },
    /// Made in the future, or without a time.
    NoTime {
        /// The key.
        key: String,
    },
    /// By a hash that can be forged.
    WeakHash {
        /// The key.
        key: String,
    },
}

impl Keyring {
    /// The keys of some files.
    pub(crate) fn read(paths: &[PathBuf]) -> Result<Self, KeyringError> {
        let mut keys = Vec::new();
        for path in paths {
            let bytes = std::fs::read(path).map_err(|source| KeyringError::Read { path: path.clone(), source })?;
            keys.extend(Self::parse(path, &bytes)?);
        }
        if keys.is_empty() {
            return Err(KeyringError::Empty { paths: paths.to_vec() });
        }
        Ok(Self { keys, paths: paths.to_vec() })
    }

    fn parse(path: &Path, bytes: &[u8]) -> Result<Vec<SignedPublicKey>, KeyringError> {
        let refuse = |source| KeyringError::NotOpenPgp { path: path.into(), source: Box::new(source) };
        let (keys, _) = SignedPublicKey::from_reader_many(bytes).map_err(refuse)?;
        keys.collect::<Result<_, _>>().map_err(refuse)
    }

    fn title(&self) -> String {
        self.paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
    }
}

/// A file that may be clear-signed: its text, and what is to be thought of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Opened {
    /// The text, without the signature.
    pub(crate) text: String,
    /// Who vouches for it.
    pub(crate) vouched: Vouched,
}

/// Who vouches for a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Vouched {
    /// Nobody: there is no signature.
    Unsigned,
    /// A signature by a key that is in no keyring.
    Unknown {
        /// What is known of it.
        why: String,
    },
    /// Good signatures by these keys.
    By(Vec<String>),
}

/// What a file that people sign says. A signature that is bad is an error; one that cannot be checked, or none, is told.
pub(crate) fn opened(bytes: &[u8], keyring: &Keyring, clock: Timestamp) -> Result<Opened, SignatureError> {
    if memchr::memmem::find(bytes, BEGIN).is_none() {
        let text = String::from_utf8(bytes.to_vec()).map_err(|_| SignatureError::NotText)?;
        return Ok(Opened { text, vouched: Vouched::Unsigned });
    }
    match verify(bytes, keyring, clock) {
        Ok(signed) => Ok(Opened { text: signed.text, vouched: Vouched::By(signed.signed_by) }),
        Err(SignatureError::NoneGood { flaws, keyrings }) => {
            let unknown = |flaw: &Flaw| matches!(flaw, Flaw::Unknown { .. });
            let why = flaws.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
            if !flaws.iter().all(unknown) {
                return Err(SignatureError::NoneGood { flaws, keyrings });
            }
            let file = std::str::from_utf8(signed_part(bytes)?).map_err(|_| SignatureError::NotText)?;
            let (message, _) = CleartextSignedMessage::from_string(file)
                .map_err(|source| SignatureError::Malformed { source: Box::new(source) })?;
            let text = message.signed_text().replace("\r\n", "\n");
            Ok(Opened { text, vouched: Vouched::Unknown { why } })
        }
        Err(error) => Err(error),
    }
}

/// The text of a clear-signed file, if one signature counts at `clock`.
pub(super) fn verify(bytes: &[u8], keyring: &Keyring, clock: Timestamp) -> Result<Signed, SignatureError> {
    let file = std::str::from_utf8(signed_part(bytes)?).map_err(|_| SignatureError::Unsigned)?;
    let (message, _) = CleartextSignedMessage::from_string(file)
        .map_err(|source| SignatureError::Malformed { source: Box::new(source) })?;
    let text = message.signed_text();
    let (mut signed_by, mut notes, mut flaws) = (Vec::new(), Vec::new(), Vec::new());
    for signature in message.signatures().iter().take(SIGNATURES) {
        match judge(signature, text.as_bytes(), keyring, clock) {
            Ok(good) => {
                if let Some(at) = good.expired.filter(|at| *at < clock) {
                    notes.push(format!("the key {} has expired on {at}, after it signed this", good.fingerprint));
                }
                signed_by.push(good.fingerprint);
            }
            Err(flaw) => flaws.push(flaw),
        }
    }
    if signed_by.is_empty() {
        return Err(match flaws.is_empty() {
            true => SignatureError::Unsigned,
            false => SignatureError::NoneGood { flaws, keyrings: keyring.title() },
        });
    }
    signed_by.sort();
    signed_by.dedup();
    notes.extend(flaws.iter().map(|flaw| format!("of another signature: {flaw}")));
    Ok(Signed { text: text.replace("\r\n", "\n"), signed_by, notes })
}

/// From the first line to the last line of the one signed message; nothing but blanks may be around it. A line of the
/// signed text never starts with a dash (RFC 9580, 7.2), so the first end is the only one.
fn signed_part(bytes: &[u8]) -> Result<&[u8], SignatureError> {
    let find = |what: &[u8]| memchr::memmem::find(bytes, what);
    let blank = |part: &[u8]| part.trim_ascii().is_empty();
    let begin = find(BEGIN).ok_or(SignatureError::Unsigned)?;
    if !blank(&bytes[..begin]) {
        return Err(SignatureError::Outside { place: "before" });
    }
    let end = find(END).ok_or(SignatureError::Unsigned)? + END.len();
    if !blank(&bytes[end..]) {
        return Err(SignatureError::Outside { place: "after" });
    }
    Ok(&bytes[begin..end])
}

struct Good {
    fingerprint: String,
    expired: Option<Timestamp>,
}

fn judge(signature: &Signature, text: &[u8], keyring: &Keyring, clock: Timestamp) -> Result<Good, Flaw> {
    let mut flaw = None;
    for primary in &keyring.keys {
        if is_by(signature, &primary.primary_key) {
            match judge_by(signature, text, &primary.primary_key, primary, None, clock) {
                Ok(good) => return Ok(good),
                Err(found) => flaw = Some(found),
            }
        }
        for subkey in &primary.public_subkeys {
            if is_by(signature, &subkey.key) {
                match judge_by(signature, text, &subkey.key, primary, Some(subkey), clock) {
                    Ok(good) => return Ok(good),
                    Err(found) => flaw = Some(found),
                }
            }
        }
    }
    Err(flaw.unwrap_or_else(|| {
        let fingerprint = signature.issuer_fingerprint().first().map(|f| format!("{f:X}"));
        let id = || signature.issuer_key_id().first().map(|id| id.to_string().to_uppercase());
        Flaw::Unknown { key: fingerprint.or_else(id).unwrap_or_else(|| "that is not named".into()) }
    }))
}

/// Whether a signature names a key. One that names none is by nobody.
fn is_by(signature: &Signature, key: &impl KeyDetails) -> bool {
    signature.issuer_fingerprint().iter().any(|f| **f == key.fingerprint())
        || signature.issuer_key_id().iter().any(|id| **id == key.legacy_key_id())
}

fn judge_by(
    signature: &Signature,
    text: &[u8],
    key: &(impl pgp::types::VerifyingKey + pgp::ser::Serialize),
    primary: &SignedPublicKey,
    subkey: Option<&SignedPublicSubKey>,
    clock: Timestamp,
) -> Result<Good, Flaw> {
    let fingerprint = format!("{:X}", primary.fingerprint());
    let name = || fingerprint.clone();
    match signature.hash_alg() {
        Some(
            HashAlgorithm::Sha256
            | HashAlgorithm::Sha384
            | HashAlgorithm::Sha512
            | HashAlgorithm::Sha3_256
            | HashAlgorithm::Sha3_512,
        ) => {}
        _ => return Err(Flaw::WeakHash { key: name() }),
    }
    let document = matches!(signature.typ(), Some(SignatureType::Text | SignatureType::Binary));
    if !document || signature.verify(key, text).is_err() {
        return Err(Flaw::Bad { key: name() });
    }
    let made = signature.created().map(|t| i64::from(t.as_secs())).ok_or_else(|| Flaw::NoTime { key: name() })?;
    if made > clock.as_second() + AHEAD {
        return Err(Flaw::NoTime { key: name() });
    }
    if is_revoked(primary, subkey) {
        return Err(Flaw::Revoked { key: name() });
    }
    let own = self_signature(primary).ok_or_else(|| Flaw::NotForSigning { key: name() })?;
    let (mut starts, mut ends) = (seconds(primary), end(primary, own));
    match subkey {
        None if !own.key_flags().sign() => return Err(Flaw::NotForSigning { key: name() }),
        None => {}
        Some(subkey) => {
            let binding = binding(primary, subkey).ok_or_else(|| Flaw::NotForSigning { key: name() })?;
            starts = starts.max(seconds(&subkey.key));
            ends = [ends, end(&subkey.key, binding)].into_iter().flatten().min();
        }
    }
    let time = |second| Timestamp::from_second(second).expect("two 32-bit numbers of seconds are a time");
    match ends {
        _ if made < starts => return Err(Flaw::Bad { key: name() }),
        Some(at) if made >= at => return Err(Flaw::KeyExpired { key: name(), at: time(at) }),
        _ => {}
    }
    if let Some(lasts) = signature.signature_expiration_time().filter(|lasts| lasts.as_secs() > 0) {
        let at = made + i64::from(lasts.as_secs());
        if at <= clock.as_second() {
            return Err(Flaw::Expired { key: name(), at: time(at) });
        }
    }
    Ok(Good { fingerprint, expired: ends.map(time) })
}

fn seconds(key: &impl KeyDetails) -> i64 {
    i64::from(key.created_at().as_secs())
}

/// When a key expires by a signature over it; zero means never (RFC 9580, 5.2.3.13).
fn end(key: &impl KeyDetails, by: &Signature) -> Option<i64> {
    let lasts = by.key_expiration_time().map(|lasts| i64::from(lasts.as_secs())).filter(|lasts| *lasts > 0)?;
    Some(seconds(key) + lasts)
}

/// The newest valid statement of the owner about the primary key.
fn self_signature(primary: &SignedPublicKey) -> Option<&Signature> {
    let key = &primary.primary_key;
    let direct = primary.details.direct_signatures.iter().filter(|s| s.verify_key(key).is_ok());
    let users = primary.details.users.iter().flat_map(|user| {
        let valid = |s: &&Signature| s.is_certification() && s.verify_certification(key, Tag::UserId, &user.id).is_ok();
        user.signatures.iter().filter(valid)
    });
    users.chain(direct).max_by_key(|s| s.created().map(|t| t.as_secs()))
}

/// The newest valid binding of a subkey that may sign; signing ones must bind back (RFC 9580, 5.2.1.8).
fn binding<'k>(primary: &SignedPublicKey, subkey: &'k SignedPublicSubKey) -> Option<&'k Signature> {
    let key = &primary.primary_key;
    let valid = |s: &&Signature| {
        s.typ() == Some(SignatureType::SubkeyBinding) && s.verify_subkey_binding(key, &subkey.key).is_ok()
    };
    let newest = subkey.signatures.iter().filter(valid).max_by_key(|s| s.created().map(|t| t.as_secs()))?;
    let back = newest.embedded_signature()?;
    (newest.key_flags().sign() && back.verify_primary_key_binding(&subkey.key, key).is_ok()).then_some(newest)
}

/// Whether the owner took the key or the subkey back, for whatever reason.
fn is_revoked(primary: &SignedPublicKey, subkey: Option<&SignedPublicSubKey>) -> bool {
    let key = &primary.primary_key;
    let whole = primary.details.revocation_signatures.iter().any(|s| s.verify_key(key).is_ok());
    whole
        || subkey.is_some_and(|subkey| {
            subkey.signatures.iter().any(|s| {
                s.typ() == Some(SignatureType::SubkeyRevocation) && s.verify_subkey_binding(key, &subkey.key).is_ok()
            })
        })
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown { key } => write!(f, "signed by key {key}, which is in no keyring"),
            Self::Bad { key } => write!(f, "the signature by key {key} does not fit the text"),
            Self::KeyExpired { key, at } => write!(f, "signed after key {key} had expired on {at}"),
            Self::Revoked { key } => write!(f, "key {key} was revoked"),
            Self::NotForSigning { key } => write!(f, "key {key} is not bound for signing"),
            Self::Expired { key, at } => write!(f, "the signature by key {key} expired on {at}"),
            Self::NoTime { key } => write!(f, "the signature by key {key} was made in the future, or says no time"),
            Self::WeakHash { key } => write!(f, "the signature by key {key} uses a hash that can be forged"),
        }
    }
}
