//! A batch that is being appended: enough of it to do the very same again.
//!
//! The envelopes themselves are in it, because after a crash nobody else may still have them; so are the keys, of which the entries
//! are made. Its digest is in its first line. It is our own file: what is wrong with it is told as a text.

use std::collections::BTreeMap;

use data_encoding::BASE64;
use kiln_model::digest::Digest;
use kiln_model::envelope::{Envelope, EnvelopeId};
use kiln_model::key::{KeyId, PublicKey, Svid};
use kiln_model::log::tree;

/// A batch, and the log that it extends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Journal {
    /// Size and root before.
    pub(super) base: (u64, Digest),
    /// What is appended, in order, each with the key that signed it.
    pub(super) batch: Vec<(Envelope, PublicKey)>,
    /// The certificates of those whose keys are known by them.
    pub(super) certificates: BTreeMap<EnvelopeId, Svid>,
}

const HEADER: &str = "kiln-journal-v1";

impl Journal {
    pub(super) fn is_from_nothing(&self) -> bool {
        self.base == (0, tree::empty_root())
    }

    /// How many entries the log has afterwards.
    pub(super) fn size(&self) -> u64 {
        self.base.0 + self.batch.len() as u64
    }

    pub(super) fn print(&self) -> Vec<u8> {
        let mut body = Vec::new();
        let keys: BTreeMap<KeyId, &PublicKey> = self.batch.iter().map(|(_, key)| (key.id(), key)).collect();
        for (id, key) in keys {
            body.extend(format!("key {id} {}\n", BASE64.encode(&key.spki())).bytes());
        }
        for (envelope, key) in &self.batch {
            body.extend(format!("entry {} ", key.id()).bytes());
            // Canonical JSON is one line.
            body.extend(envelope.canonical());
            body.push(b'\n');
        }
        for (id, svid) in &self.certificates {
            let chain: Vec<String> = svid.chain().iter().map(|der| BASE64.encode(der)).collect();
            body.extend(format!("svid {id} {}\n", chain.join(",")).bytes());
        }
        let mut text = format!("{HEADER} {} {} {} {}\n", Digest::of(&body), self.base.0, self.base.1, self.batch.len());
        text.push_str(&String::from_utf8_lossy(&body));
        text.into_bytes()
    }

    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(bytes).map_err(|_| "expected UTF-8")?;
        let (head, body) = text.split_once('\n').ok_or("expected a first line")?;
        let [HEADER, digest, size, root, count] = head.split(' ').collect::<Vec<_>>()[..] else {
            return Err(format!("expected a first line that begins with {HEADER}"));
        };
        if digest.parse() != Ok(Digest::of(body)) {
            return Err("its digest is another".into());
        }
        let base = (size.parse().map_err(|_| "expected a size")?, root.parse().map_err(|_| "expected a root")?);
        let (mut keys, mut batch, mut certificates) = (BTreeMap::new(), Vec::new(), BTreeMap::new());
        for line in body.lines() {
            let refused = || format!("line {:?}", line.get(..40).unwrap_or(line));
            let (kind, rest) = line.split_once(' ').ok_or_else(refused)?;
            let (id, rest) = rest.split_once(' ').ok_or_else(refused)?;
            match kind {
                "key" => {
                    let spki = BASE64.decode(rest.as_bytes()).map_err(|_| refused())?;
                    keys.insert(id, PublicKey::from_spki(&spki).map_err(|_| refused())?);
                }
                "entry" => {
                    let key: &PublicKey = keys.get(id).ok_or_else(refused)?;
                    batch.push((Envelope::parse(rest.as_bytes()).map_err(|_| refused())?, key.clone()));
                }
                "svid" => {
                    let der = |text: &str| BASE64.decode(text.as_bytes()).ok();
                    let chain: Option<Vec<_>> = rest.split(',').map(der).collect();
                    let svid = chain.and_then(|chain| Svid::parse(chain).ok()).ok_or_else(refused)?;
                    certificates.insert(id.parse().map_err(|_| refused())?, svid);
                }
                _ => return Err(refused()),
            }
        }
        match count.parse() == Ok(batch.len()) {
            true => Ok(Self { base, batch, certificates }),
            false => Err(format!("expected {count} entries")),
        }
    }
}

#[cfg(test)]
mod tests {
    use kiln_model::key::SecretKey;

    use super::*;

    #[test]
    fn a_journal_parses_back_and_a_damaged_one_is_refused() {
        let keys = [SecretKey::ed25519(&[1; 32]), SecretKey::p256(&[7; 32]).unwrap()];
        let batch = keys.iter().map(|key| (Envelope::sign(b"{\"\n\":1}".to_vec(), key), key.public())).collect();
        let journal = Journal { base: (5, Digest::of(b"x")), batch, certificates: BTreeMap::new() };
        let bytes = journal.print();
        assert_eq!(Journal::parse(&bytes), Ok(journal));
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            // Numbers of the first line are not below the digest: they are held against what was signed.
            let parsed = Journal::parse(&damaged);
            assert!(parsed.is_err() || at < 160, "{at}");
            assert!(Journal::parse(&bytes[..at]).is_err());
        }
    }
}
