//! OpenSSH's spellings: a public key in one line, and SSHSIG, a detached signature bound to a namespace.
//!
//! PROTOCOL and PROTOCOL.sshsig of OpenSSH. Signatures are made with SHA-512 over the message, like `ssh-keygen -Y sign` does.

use data_encoding::BASE64;
use p256::ecdsa;
use sha2::Digest as _;

use super::{Algorithm, BadSignature, KeyError, PublicKey, SecretKey};
use crate::format::base64;

/// Namespace of detached signatures over what was built.
pub const NAMESPACE: &str = "rebuild-attestation";

const MAGIC: &[u8] = b"SSHSIG";
const BEGIN: &str = "-----BEGIN SSH SIGNATURE-----";
const END: &str = "-----END SSH SIGNATURE-----";
const HASH: &[u8] = b"sha512";
const CURVE: &[u8] = b"nistp256";

fn kind(algorithm: Algorithm) -> &'static str {
    match algorithm {
        Algorithm::Ed25519 => "ssh-ed25519",
        Algorithm::P256 => "ecdsa-sha2-nistp256",
    }
}

/// RFC 4251, 5: a length in four bytes, then the bytes.
fn put(out: &mut Vec<u8>, bytes: &[u8]) {
    let length = u32::try_from(bytes.len()).expect("keys and names are small");
    out.extend(length.to_be_bytes());
    out.extend_from_slice(bytes);
}

fn take<'b>(bytes: &mut &'b [u8]) -> Option<&'b [u8]> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (taken, rest) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
    *bytes = rest;
    Some(taken)
}

fn blob(key: &PublicKey) -> Vec<u8> {
    let mut out = Vec::new();
    put(&mut out, kind(key.algorithm()).as_bytes());
    if key.algorithm() == Algorithm::P256 {
        put(&mut out, CURVE);
    }
    put(&mut out, &key.bytes());
    out
}

fn from_blob(mut blob: &[u8]) -> Option<PublicKey> {
    let kind = take(&mut blob)?;
    let key = match kind {
        b"ssh-ed25519" => PublicKey::from_ed25519(take(&mut blob)?.try_into().ok()?),
        b"ecdsa-sha2-nistp256" if take(&mut blob)? == CURVE => PublicKey::from_p256(take(&mut blob)?),
        _ => return None,
    };
    key.ok().filter(|_| blob.is_empty())
}

/// The key as in `id_ed25519.pub` and `authorized_keys`, without a comment.
pub fn public(key: &PublicKey) -> String {
    format!("{} {}", kind(key.algorithm()), BASE64.encode(&blob(key)))
}

/// The key of such a line; a comment may follow.
pub fn parse_public(line: &str) -> Result<PublicKey, KeyError> {
    let wrong =
        KeyError::Form { expected: "a line that begins with ssh-ed25519 or ecdsa-sha2-nistp256, and a key in base64" };
    let mut words = line.split_ascii_whitespace();
    let (Some(name), Some(text)) = (words.next(), words.next()) else { return Err(wrong) };
    let key = base64::decode(text.as_bytes()).and_then(|blob| from_blob(&blob)).ok_or(wrong.clone())?;
    if kind(key.algorithm()) == name { Ok(key) } else { Err(wrong) }
}

/// What is signed: never the bare message.
fn preimage(namespace: &str, message: &[u8]) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    for part in [namespace.as_bytes(), b"", HASH, &sha2::Sha512::digest(message)] {
        put(&mut out, part);
    }
    out
}

/// RFC 4251, 5: an `mpint`, which is signed, so that a leading bit takes a zero byte before it.
fn mpint(bytes: &[u8]) -> Vec<u8> {
    let rest: Vec<u8> = bytes.iter().copied().skip_while(|byte| *byte == 0).collect();
    if rest.first().is_some_and(|byte| byte & 0x80 != 0) { [&[0], &rest[..]].concat() } else { rest }
}

/// A detached signature over `message`, as `ssh-keygen -Y sign -n NAMESPACE` makes it.
pub fn sign(key: &SecretKey, namespace: &str, message: &[u8]) -> String {
    let public = key.public();
    let raw = key.sign(&preimage(namespace, message));
    let raw = match public.algorithm() {
        Algorithm::Ed25519 => raw,
        Algorithm::P256 => {
            let signature = ecdsa::Signature::from_der(&raw).expect("made above");
            let (r, s) = signature.split_bytes();
            let mut pair = Vec::new();
            put(&mut pair, &mpint(&r));
            put(&mut pair, &mpint(&s));
            pair
        }
    };
    let mut signature = Vec::new();
    put(&mut signature, kind(public.algorithm()).as_bytes());
    put(&mut signature, &raw);
    let mut out = MAGIC.to_vec();
    out.extend(1_u32.to_be_bytes());
    for part in [&blob(&public)[..], namespace.as_bytes(), b"", HASH, &signature] {
        put(&mut out, part);
    }
    let mut text = format!("{BEGIN}\n");
    for line in BASE64.encode(&out).as_bytes().chunks(70) {
        text.extend(line.iter().map(|&byte| char::from(byte)));
        text.push('\n');
    }
    text + END + "\n"
}

/// Checks a detached signature of `key` over `message` in `namespace`.
pub fn verify(key: &PublicKey, namespace: &str, message: &[u8], signature: &str) -> Result<(), BadSignature> {
    let read = || -> Option<Vec<u8>> {
        let text = signature.trim().strip_prefix(BEGIN)?.strip_suffix(END)?;
        let bytes = base64::decode(text.replace(['\n', '\r'], "").as_bytes())?;
        let mut rest = bytes.strip_prefix(MAGIC)?.strip_prefix(&1_u32.to_be_bytes())?;
        let (signer, name) = (take(&mut rest)?, take(&mut rest)?);
        let (reserved, hash, mut wrapped) = (take(&mut rest)?, take(&mut rest)?, take(&mut rest)?);
        let (format, raw) = (take(&mut wrapped)?, take(&mut wrapped)?);
        let whole = rest.is_empty() && wrapped.is_empty() && reserved.is_empty() && hash == HASH;
        let ours = name == namespace.as_bytes() && format == kind(key.algorithm()).as_bytes();
        (whole && ours && from_blob(signer).as_ref() == Some(key)).then(|| raw.to_vec())
    };
    let raw = read().ok_or(BadSignature)?;
    let raw = match key.algorithm() {
        Algorithm::Ed25519 => raw,
        Algorithm::P256 => der(&raw).ok_or(BadSignature)?,
    };
    key.verify(&preimage(namespace, message), &raw)
}

/// ECDSA's pair as two `mpint`s, in DER.
fn der(pair: &[u8]) -> Option<Vec<u8>> {
    let mut rest = pair;
    let number = |bytes: &[u8]| -> Option<p256::FieldBytes> {
        let short = bytes.strip_prefix(&[0]).unwrap_or(bytes);
        let mut padded = [0; 32];
        padded.get_mut(32_usize.checked_sub(short.len())?..)?.copy_from_slice(short);
        Some(padded.into())
    };
    let (r, s) = (number(take(&mut rest)?)?, number(take(&mut rest)?)?);
    let signature = ecdsa::Signature::from_scalars(r, s).ok()?;
    rest.is_empty().then(|| signature.to_der().as_bytes().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::secret::samples::{ed25519, p256};

    #[test]
    fn a_public_key_is_one_line_and_read_back_with_a_comment() {
        for key in [ed25519(1).public(), p256(1).public()] {
            assert_eq!(parse_public(&format!("{} someone@somewhere\n", public(&key))), Ok(key));
        }
        let line = public(&ed25519(1).public());
        for bad in [line.replace("ssh-ed25519", "ssh-rsa"), line[..40].to_owned(), String::new(), "ssh-ed25519".into()]
        {
            assert!(parse_public(&bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_detached_signature_holds_for_message_namespace_and_key_alone() {
        for (key, other) in [(ed25519(1), ed25519(2)), (p256(1), p256(2)), (ed25519(1), p256(1)), (p256(9), ed25519(1))]
        {
            let signature = sign(&key, NAMESPACE, b"message");
            let public = key.public();
            assert_eq!(verify(&public, NAMESPACE, b"message", &signature), Ok(()));
            assert_eq!(verify(&public, NAMESPACE, b"massage", &signature), Err(BadSignature));
            assert_eq!(verify(&public, "git", b"message", &signature), Err(BadSignature));
            assert_eq!(verify(&other.public(), NAMESPACE, b"message", &signature), Err(BadSignature));
            assert_eq!(verify(&public, NAMESPACE, b"message", &signature[..80]), Err(BadSignature));
            assert_eq!(verify(&public, NAMESPACE, b"message", ""), Err(BadSignature));
        }
    }
}
