//! Signed notes, and the keys that sign them (C2SP's signed-note).
//!
//! A note is a text and lines of signatures. Those of unknown keys are ignored; one of a known key that fails spoils the note. A
//! vkey is `name+id+base64(type and key)`; types here are Ed25519 (0x01, logs) and timestamped Ed25519 (0x04, witnesses).

use std::fmt;
use std::str::FromStr;

use data_encoding::{BASE64, HEXLOWER};

use super::LogError;
use crate::digest::Digest;
use crate::format::base64;
use crate::key::{PublicKey, SecretKey};

/// Bytes of the largest note.
pub const MOST_BYTES: usize = 64 * 1024;
/// Signatures that a note may have.
pub const MOST_SIGNATURES: usize = 64;

/// A text with signatures. None of them is checked yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedNote {
    text: String,
    signatures: Vec<NoteSignature>,
}

/// One line: who, which of their keys, and the rest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoteSignature {
    name: String,
    id: [u8; 4],
    bytes: Vec<u8>,
}

/// What a key signs, by the type in its vkey.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum NoteKind {
    /// Checkpoints of its own log: 0x01.
    Log,
    /// Checkpoints of others' logs, with the time: 0x04.
    Witness,
}

/// A public key with its name in notes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vkey {
    name: String,
    kind: NoteKind,
    key: PublicKey,
    raw: [u8; 32],
}

/// A secret key with its name in notes.
pub struct NoteSigner {
    key: SecretKey,
    vkey: Vkey,
}

impl SignedNote {
    /// A note of `text`, which ends with a newline, that nobody signed yet.
    pub fn new(text: String) -> Result<Self, LogError> {
        let good = text.ends_with('\n') && !text.chars().any(|c| c < ' ' && c != '\n');
        let refused =
            LogError::Note { field: "text", expected: "lines without control characters, the last one ended" };
        if good { Ok(Self { text, signatures: Vec::new() }) } else { Err(refused) }
    }

    /// Reads a note; it has at least one signature.
    pub fn parse(bytes: &[u8]) -> Result<Self, LogError> {
        let refused = |field, expected| LogError::Note { field, expected };
        if bytes.len() > MOST_BYTES {
            return Err(LogError::TooLong { what: "a signed note", most: MOST_BYTES, bytes: bytes.len() });
        }
        let text = std::str::from_utf8(bytes).map_err(|_| refused("text", "UTF-8"))?;
        // The last empty line: the text may have some, too.
        let end = text.rfind("\n\n").ok_or(refused("text", "an empty line between it and the signatures"))?;
        let mut note = Self::new(text[..=end].into())?;
        let lines = text[end + 2..].strip_suffix('\n').ok_or(refused("signatures", "lines, the last one ended"))?;
        for line in lines.split('\n') {
            if note.signatures.len() == MOST_SIGNATURES {
                return Err(refused("signatures", "at most 64"));
            }
            note.signatures.push(line.parse()?);
        }
        Ok(note)
    }

    /// As it is written. What was read prints as it was.
    pub fn print(&self) -> String {
        let mut text = format!("{}\n", self.text);
        for signature in &self.signatures {
            text.push_str(&signature.to_string());
            text.push('\n');
        }
        text
    }

    /// What was signed.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Who says to have signed.
    pub fn signatures(&self) -> &[NoteSignature] {
        &self.signatures
    }

    /// Adds a signature in place of one by the same key; a new one comes last.
    pub fn add(&mut self, signature: NoteSignature) {
        let same = |other: &&mut NoteSignature| other.name == signature.name && other.id == signature.id;
        match self.signatures.iter_mut().find(same) {
            Some(old) => *old = signature,
            None => self.signatures.push(signature),
        }
    }

    /// The signatures by `key`. Each must hold, or the note is spoilt.
    pub fn verified_by(&self, key: &Vkey) -> Result<Vec<&NoteSignature>, LogError> {
        let own: Vec<_> = self.signatures.iter().filter(|signature| signature.is_by(key)).collect();
        match own.iter().all(|signature| key.verifies(&self.text, signature)) {
            true => Ok(own),
            false => Err(LogError::BadSignature { name: key.name.clone() }),
        }
    }
}

impl NoteSignature {
    /// The name of the key that is said to have signed.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn is_by(&self, key: &Vkey) -> bool {
        self.name == key.name && self.id == key.id()
    }

    /// The time that it states, and the signature itself (C2SP's tlog-cosignature, `timestamped_signature`).
    pub(super) fn timestamped(&self) -> Option<(u64, &[u8])> {
        let (time, signature) = self.bytes.split_first_chunk::<8>()?;
        let time = u64::from_be_bytes(*time);
        (time <= i64::MAX as u64).then_some((time, signature))
    }
}

impl fmt::Display for NoteSignature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes: Vec<u8> = self.id.iter().chain(&self.bytes).copied().collect();
        write!(f, "\u{2014} {} {}", self.name, BASE64.encode(&bytes))
    }
}

impl FromStr for NoteSignature {
    type Err = LogError;

    fn from_str(line: &str) -> Result<Self, LogError> {
        let refused =
            LogError::Note { field: "signature", expected: "an em dash, the key's name and base64, one blank each" };
        let parsed = (|| {
            let (name, encoded) = line.strip_prefix("\u{2014} ")?.split_once(' ')?;
            let bytes = base64::decode(encoded.as_bytes())?;
            let (id, bytes) = bytes.split_first_chunk::<4>()?;
            (is_name(name) && !bytes.is_empty()).then(|| Self { name: name.into(), id: *id, bytes: bytes.into() })
        })();
        parsed.ok_or(refused)
    }
}

/// Whether a key may have this name.
pub(super) fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.chars().any(|c| c.is_whitespace() || c.is_control() || c == '+')
}

impl NoteKind {
    fn byte(self) -> u8 {
        match self {
            Self::Log => 0x01,
            Self::Witness => 0x04,
        }
    }
}

impl Vkey {
    /// The key called `name`; none if it is no Ed25519 key, or no key can have that name.
    pub fn new(name: &str, kind: NoteKind, key: PublicKey) -> Result<Self, LogError> {
        let refused = |expected| LogError::Vkey { vkey: shortened(name), expected };
        if !is_name(name) {
            return Err(refused("a name without blanks and plus signs"));
        }
        let raw = key.ed25519().ok_or(refused("an Ed25519 key: notes are signed with no other"))?;
        Ok(Self { name: name.into(), kind, key, raw })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it signs.
    pub fn kind(&self) -> NoteKind {
        self.kind
    }

    /// The key without its name.
    pub fn key(&self) -> &PublicKey {
        &self.key
    }

    /// The key's 32 bytes.
    pub(super) fn raw(&self) -> &[u8; 32] {
        &self.raw
    }

    /// SHA-256 of name, type and key: its first four bytes are the id in notes, all of it is Sigstore's `logId.keyId`.
    pub fn long_id(&self) -> Digest {
        let mut bytes = self.name.clone().into_bytes();
        bytes.extend([b'\n', self.kind.byte()]);
        bytes.extend(self.raw);
        Digest::of(bytes)
    }

    /// The id in notes.
    pub fn id(&self) -> [u8; 4] {
        *self.long_id().as_bytes().first_chunk().expect("32 bytes have four")
    }

    fn verifies(&self, text: &str, signature: &NoteSignature) -> bool {
        match self.kind {
            NoteKind::Log => self.key.verify(text.as_bytes(), &signature.bytes).is_ok(),
            NoteKind::Witness => signature.timestamped().is_some_and(|(time, bytes)| {
                self.key.verify(super::witness::message(text, time).as_bytes(), bytes).is_ok()
            }),
        }
    }
}

impl fmt::Display for Vkey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = vec![self.kind.byte()];
        bytes.extend(self.raw);
        write!(f, "{}+{}+{}", self.name, HEXLOWER.encode(&self.id()), BASE64.encode(&bytes))
    }
}

impl FromStr for Vkey {
    type Err = LogError;

    fn from_str(text: &str) -> Result<Self, LogError> {
        let (name, id, kind, key) = parts(text)?;
        let refused = |expected| LogError::Vkey { vkey: shortened(text), expected };
        let kind = match kind {
            0x01 => NoteKind::Log,
            0x04 => NoteKind::Witness,
            _ => return Err(refused("type 0x01 (Ed25519) or 0x04 (timestamped Ed25519)")),
        };
        let raw: [u8; 32] = key.try_into().map_err(|_| refused("32 bytes after the type"))?;
        let key = PublicKey::from_ed25519(&raw).map_err(|_| refused("an Ed25519 key"))?;
        let vkey = Self { name: name.into(), kind, key, raw };
        match vkey.id() == id {
            true => Ok(vkey),
            false => Err(refused("the id that name, type and key have: one of them was altered")),
        }
    }
}

/// Name, id, type and key of a vkey of any type.
pub(super) type Parts<'a> = (&'a str, [u8; 4], u8, Vec<u8>);

/// The parts of a vkey's text.
pub(super) fn parts(text: &str) -> Result<Parts<'_>, LogError> {
    let parsed = (|| {
        let mut words = text.splitn(3, '+');
        let (name, id, encoded) = (words.next()?, words.next()?, words.next()?);
        let id = HEXLOWER.decode(id.as_bytes()).ok()?.try_into().ok()?;
        let bytes = base64::decode(encoded.as_bytes())?;
        let (kind, key) = bytes.split_first()?;
        is_name(name).then(|| (name, id, *kind, key.to_vec()))
    })();
    parsed.ok_or_else(|| LogError::Vkey {
        vkey: shortened(text),
        expected: "NAME+ID+BASE64, the id as eight hexadecimal digits",
    })
}

fn shortened(text: &str) -> String {
    text.chars().take(200).collect()
}

impl NoteSigner {
    /// The secret key called `name`.
    pub fn new(name: &str, kind: NoteKind, key: SecretKey) -> Result<Self, LogError> {
        let vkey = Vkey::new(name, kind, key.public())?;
        Ok(Self { key, vkey })
    }

    /// The half that others may know.
    pub fn vkey(&self) -> &Vkey {
        &self.vkey
    }

    /// Its line under `text`, which says nothing of time.
    pub(super) fn sign(&self, text: &str) -> NoteSignature {
        self.line(self.key.sign(text.as_bytes()))
    }

    /// Its line under `text`, as of `time`.
    pub(super) fn sign_at(&self, text: &str, time: u64) -> NoteSignature {
        let signature = self.key.sign(super::witness::message(text, time).as_bytes());
        self.line(time.to_be_bytes().into_iter().chain(signature).collect())
    }

    fn line(&self, bytes: Vec<u8>) -> NoteSignature {
        NoteSignature { name: self.vkey.name.clone(), id: self.vkey.id(), bytes }
    }
}

impl fmt::Debug for NoteSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("NoteSigner").field(&self.vkey.name).finish()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::log::samples::{log, note, witness};

    /// The example of C2SP's signed-note.
    const EXAMPLE: &str = "This is an example message.\n\n\u{2014} example.com/foo \
        Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n";
    const EXAMPLE_KEY: &str = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k";

    #[test]
    fn the_example_of_the_specification_holds_and_prints_back() {
        let (note, key) = (SignedNote::parse(EXAMPLE.as_bytes()).unwrap(), EXAMPLE_KEY.parse::<Vkey>().unwrap());
        assert_eq!(note.text(), "This is an example message.\n");
        assert_eq!(note.verified_by(&key).unwrap().len(), 1);
        assert_eq!((note.print(), key.to_string()), (EXAMPLE.into(), EXAMPLE_KEY.into()));
    }

    #[test]
    fn our_keys_and_notes_have_stable_bytes() {
        insta::assert_snapshot!(format!(
            "{}\n{}\n{}",
            log().vkey(),
            witness(1).vkey(),
            note(3, &[(1, 1_700_000_000)]).print()
        ));
    }

    #[test]
    fn unknown_signatures_are_ignored_and_a_known_key_that_fails_spoils_the_note() {
        let key: Vkey = EXAMPLE_KEY.parse().unwrap();
        let stranger = format!("{EXAMPLE}\u{2014} elsewhere.example AAAAAAAA\n\u{2014} example.com/foo AAAAAAAA\n");
        assert_eq!(SignedNote::parse(stranger.as_bytes()).unwrap().verified_by(&key).unwrap().len(), 1);
        let spoilt = format!("{EXAMPLE}\u{2014} example.com/foo Uw2QOgAA\n");
        let refused = SignedNote::parse(spoilt.as_bytes()).unwrap().verified_by(&key).unwrap_err();
        assert_eq!(refused, LogError::BadSignature { name: "example.com/foo".into() });
        let altered = SignedNote::parse(EXAMPLE.replace("example message", "other message").as_bytes()).unwrap();
        assert!(altered.verified_by(&key).is_err());
    }

    #[test]
    fn what_is_no_note_is_refused() {
        let signature = EXAMPLE.lines().last().unwrap();
        for text in [
            "".into(),
            "text\n".into(),
            "text\n\n".into(),
            format!("text\n{signature}\n"),
            format!("text\n\n{signature}"),
            format!("te\txt\n\n{signature}\n"),
            format!("te\r\n\n{signature}\n"),
            format!("text\n\n{signature} \n"),
            format!("text\n\n{signature}\n{signature}x\n"),
            format!("text\n\n{}\n", signature.replace('\u{2014}', "-")),
            format!("text\n\n{}\n", signature.replace("foo ", "foo  ")),
            format!("text\n\n{}\n", signature.replace("foo", "f+o")),
            format!("text\n\n{}\n", signature.replace("foo", "f\u{a0}o")),
            "text\n\n\u{2014} name AAAA\n".into(),
            "text\n\n\u{2014} name AAAAAB==\n".into(),
            format!("text\n\n{}", format!("{signature}\n").repeat(65)),
            format!("{}\n\n{signature}\n", "x".repeat(MOST_BYTES)),
        ] {
            assert!(SignedNote::parse(text.as_bytes()).is_err(), "{text:?}");
        }
        assert!(SignedNote::parse(b"\xff\n\n").is_err());
        assert!(SignedNote::parse(format!("text\n\n{}", format!("{signature}\n").repeat(64)).as_bytes()).is_ok());
        assert!(SignedNote::new("no end".into()).is_err());
    }

    #[test]
    fn what_is_no_key_is_refused() {
        for text in [
            "",
            "example.com/foo+530d903a",
            "+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k",
            "example.com/bar+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k",
            "example.com/foo+530d903b+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k",
            "example.com/foo+530D903A+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k",
            "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2",
            "example.com/foo+530d903a+BukyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k",
            "example.com/foo+530d903a+AQ==",
        ] {
            assert!(text.parse::<Vkey>().is_err(), "{text:?}");
        }
        let p256 = SecretKey::p256(&[7; 32]).unwrap();
        assert!(NoteSigner::new("name", NoteKind::Log, p256).is_err());
        assert!(NoteSigner::new("na me", NoteKind::Log, SecretKey::ed25519(&[1; 32])).is_err());
    }

    #[test]
    fn a_newer_cosignature_takes_the_place_of_the_older() {
        let mut note = note(3, &[(1, 5), (2, 6)]);
        note.add(note_signature(1, 7));
        assert_eq!(note.signatures().len(), 3);
        assert_eq!(crate::log::witness::times(witness(1).vkey(), &note), Ok(vec![7]));
    }

    fn note_signature(number: u8, time: u64) -> NoteSignature {
        crate::log::witness::cosign(&witness(number), log().vkey(), &note(3, &[]), None, &[], time).unwrap()
    }

    proptest! {
        #[test]
        fn what_is_read_prints_as_it_was(text in "[a-z\n\u{2014} +/=]{0,200}") {
            if let Ok(note) = SignedNote::parse(text.as_bytes()) {
                prop_assert_eq!(note.print(), text);
            }
        }
    }
}
