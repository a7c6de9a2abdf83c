//! A candidate: bytes that may be evidence, and where they were found. Step 2 of the algorithm.
//!
//! An envelope or a Sigstore bundle, alone in a file or on a line. What is neither decides nothing.

use std::fmt;
use std::sync::Arc;

use data_encoding::BASE64;

use crate::digest::Digest;
use crate::envelope::{Envelope, EnvelopeId};
use crate::format::bundle::{self, Bundle};
use crate::key::Svid;
use crate::log::Proof;

/// Where a candidate was found.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Source {
    /// The file.
    pub file: Arc<str>,
    /// Its line, from 1, if it has one candidate a line.
    pub line: Option<u32>,
}

/// Bytes that may be evidence.
#[derive(Debug, Clone)]
pub struct Candidate<'a> {
    /// Where they were found.
    pub source: Source,
    /// The bytes.
    pub bytes: &'a [u8],
    /// The id that the file's name says.
    pub named: Option<EnvelopeId>,
    /// A proof that was found beside the file.
    pub proof: Option<&'a [u8]>,
}

/// A candidate that has the form of an envelope.
pub(super) struct Read {
    pub(super) envelope: Envelope,
    /// Proofs with the leaf that came with them, if one did: it is compared, never trusted.
    pub(super) proofs: Vec<(Proof, Option<Vec<u8>>)>,
    /// Certificates that are said to vouch for the key that signed it.
    pub(super) svid: Option<Svid>,
}

/// The envelope and proofs in some bytes, or why there is none.
pub(super) fn read(bytes: &[u8]) -> Result<Read, String> {
    let limit = bundle::LIMITS.bytes;
    if bytes.len() > limit {
        return Err(format!("{} bytes: at most {limit} are read", bytes.len()));
    }
    // A member that no envelope of ours has, and every bundle must have.
    if memchr::memmem::find(bytes, b"\"dsseEnvelope\"").is_some() {
        let bundle = Bundle::parse(bytes).map_err(|error| chain(&error))?;
        let proofs = bundle.entries.into_iter().map(|logged| (logged.proof, Some(logged.canonicalized_body)));
        return Ok(Read { envelope: bundle.envelope, proofs: proofs.collect(), svid: bundle.svid });
    }
    let envelope = Envelope::parse(bytes).map_err(|error| chain(&error))?;
    Ok(Read { envelope, proofs: Vec::new(), svid: None })
}

/// The id of an envelope that was read from `bytes`. Most are written canonically; then those bytes are what is hashed.
pub(super) fn id(bytes: &[u8], envelope: &Envelope) -> EnvelopeId {
    if is_canonical(bytes, envelope) { EnvelopeId::new(Digest::of(bytes)) } else { envelope.id() }
}

/// Whether `bytes` are the canonical form, which is not made for that: decoding is strict, so that base64 in the standard
/// alphabet is the one spelling of its bytes, and all around it is a fixed text. A test holds both against each other.
fn is_canonical(bytes: &[u8], envelope: &Envelope) -> bool {
    let [signature] = envelope.signatures() else { return false };
    let Some(keyid) = &signature.keyid else { return false };
    let is_plain = |text: &str| text.bytes().all(|b| b.is_ascii_graphic() && b != b'"' && b != b'\\');
    let kind = envelope.payload_type();
    let tail = || {
        let sig = BASE64.encode(&signature.sig);
        format!("\",\"payloadType\":\"{kind}\",\"signatures\":[{{\"keyid\":\"{keyid}\",\"sig\":\"{sig}\"}}]}}")
    };
    let payload = || bytes.strip_prefix(b"{\"payload\":\"")?.strip_suffix(tail().as_bytes());
    is_plain(keyid)
        && is_plain(kind)
        && payload().is_some_and(|base64| {
            base64.len() == BASE64.encode_len(envelope.payload().len())
                && memchr::memchr3(b'-', b'_', b'\\', base64).is_none()
        })
}

/// An error and its causes, one act per level.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}", self.file),
            None => f.write_str(&self.file),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::SecretKey;

    #[test]
    fn the_id_is_that_of_the_canonical_form_however_it_was_spelled() {
        // Bytes whose base64 has both characters that the alphabets differ in.
        let envelope = Envelope::sign(vec![0xfb, 0xff, 0xfe, b'x'], &SecretKey::ed25519(&[1; 32]));
        let text = String::from_utf8(envelope.canonical()).unwrap();
        let begin = text.find(":\"").unwrap() + 2;
        let end = begin + text[begin..].find('"').unwrap();
        let payload = &text[begin..end];
        assert!(payload.contains(['+', '/']), "{payload}");
        let swapped = |to: &str| format!("{}{to}{}", &text[..begin], &text[end..]);
        let spellings = [
            text.clone(),
            text.replace("\",\"", "\", \""),
            format!("{text}\n"),
            swapped(&payload.replace('+', "-").replace('/', "_")),
            swapped(&payload.replace('/', "\\/")),
            text.replace("application/", "application\\/"),
        ];
        assert!(is_canonical(text.as_bytes(), &envelope));
        for spelling in spellings {
            let read = Envelope::parse(spelling.as_bytes()).unwrap();
            assert_eq!(is_canonical(spelling.as_bytes(), &read), spelling == text, "{spelling}");
            assert_eq!(id(spelling.as_bytes(), &read), envelope.id(), "{spelling}");
        }
    }
}
