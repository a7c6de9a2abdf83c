//! Envelopes that are spelled as kiln spells them: one text around a payload, one signature by a key's own name.
//!
//! Nearly all are. Their form is recognised without a JSON reader, and their id is the digest of the very bytes. Whatever looks
//! in the least different is left to [`super::Envelope::parse`]; a test holds both against each other.

use super::{Envelope, EnvelopeId, Limits, Signature, base64};
use crate::digest::Digest;

/// The envelope that `bytes` are the canonical form of, and its id.
pub(super) fn parse(bytes: &[u8]) -> Option<(Envelope, EnvelopeId)> {
    let within = Some(bytes).filter(|bytes| bytes.len() <= Limits::ENVELOPE.bytes)?;
    let (payload, rest) = text(within.strip_prefix(b"{\"payload\":\"")?)?;
    let (kind, rest) = text(rest.strip_prefix(b",\"payloadType\":\"")?)?;
    let (keyid, rest) = text(rest.strip_prefix(b",\"signatures\":[{\"keyid\":\"")?)?;
    let (sig, rest) = text(rest.strip_prefix(b",\"sig\":\"")?)?;
    // A base64 keyid, an empty one or one with escapes has another canonical form.
    let is_id = keyid.len() == 64 && keyid.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let is_plain = kind.iter().all(|b| b.is_ascii_graphic() && *b != b'\\');
    if rest != b"}]}" || !is_id || !is_plain {
        return None;
    }
    let ascii = |text: &[u8]| String::from_utf8(text.to_vec()).ok();
    let envelope = Envelope {
        payload: base64::decode(payload)?.into(),
        payload_type: ascii(kind)?,
        signatures: vec![Signature { keyid: Some(ascii(keyid)?), sig: base64::decode(sig)? }],
    };
    Some((envelope, EnvelopeId(Digest::of(bytes))))
}

/// What comes before the next quotation mark, and what after it.
fn text(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = memchr::memchr(b'"', bytes)?;
    Some((&bytes[..end], &bytes[end + 1..]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::key::SecretKey;

    /// An envelope whose payload's base64 has both characters that the alphabets differ in.
    fn envelope() -> Envelope {
        Envelope::sign(vec![0xfb, 0xff, 0xfe, b'x'], &SecretKey::ed25519(&[1; 32]))
    }

    /// Holds the two readings against each other. Returns whether this one took it.
    fn agree(bytes: &[u8]) -> bool {
        let Some((envelope, id)) = parse(bytes) else { return false };
        assert_eq!(Envelope::spelled(bytes).unwrap(), envelope);
        assert_eq!(envelope.canonical(), bytes);
        assert_eq!(envelope.id(), id);
        true
    }

    #[test]
    fn only_the_canonical_form_is_taken_and_every_other_spelling_has_the_same_id() {
        let envelope = envelope();
        let text = String::from_utf8(envelope.canonical()).unwrap();
        let begin = text.find(":\"").unwrap() + 2;
        let end = begin + text[begin..].find('"').unwrap();
        let payload = &text[begin..end];
        assert!(payload.contains(['+', '/']), "{payload}");
        let swapped = |to: &str| format!("{}{to}{}", &text[..begin], &text[end..]);
        let hex = SecretKey::ed25519(&[1; 32]).public().id();
        assert!(agree(text.as_bytes()));
        for spelling in [
            text.replace("\",\"", "\", \""),
            format!("{text}\n"),
            swapped(&payload.replace('+', "-").replace('/', "_")),
            swapped(&payload.replace('/', "\\/")),
            text.replace("application/", "application\\/"),
            text.replace(&hex.to_string(), &hex.hint()),
            text.replace("}]}", "}],\"more\":1}"),
            text.replace("\"sig\"", "\"more\":1,\"sig\""),
        ] {
            assert!(!agree(spelling.as_bytes()), "{spelling}");
            assert_eq!(Envelope::parse(spelling.as_bytes()).unwrap().id(), envelope.id(), "{spelling}");
        }
    }

    #[test]
    fn what_is_no_envelope_is_taken_by_neither() {
        let text = String::from_utf8(envelope().canonical()).unwrap();
        let end = text.find("\",\"payloadType").unwrap();
        let with = |payload: &str| format!("{{\"payload\":\"{payload}{}", &text[end..]);
        for bad in [
            with("AAAA\u{0}"),
            with("AAA"),
            with("AB=="),
            with("AA==AA=="),
            with("AA==AAAA"),
            with("===="),
            text[..text.len() - 1].to_owned(),
            format!("{text}}}"),
            text.replace("\"payload\"", "\"payload\":\"\",\"payload\""),
        ] {
            assert!(!agree(bad.as_bytes()), "{bad}");
            assert!(Envelope::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn a_changed_byte_is_never_read_differently(at in 0_usize..1000, to in any::<u8>(), payload in proptest::collection::vec(any::<u8>(), 0..40)) {
            let mut bytes = Envelope::sign(payload, &SecretKey::ed25519(&[1; 32])).canonical();
            prop_assert!(agree(&bytes));
            let at = at % bytes.len();
            bytes[at] = to;
            agree(&bytes);
        }
    }
}
