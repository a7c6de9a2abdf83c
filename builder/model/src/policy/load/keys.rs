//! The keys that a policy names: each once, whoever's it is.

use std::collections::{BTreeMap, BTreeSet};

use super::value::{field, is_hex};
use super::{Loaded, PolicyError};
use crate::key::KeyId;
use crate::policy::Field;

/// Where each key was first seen.
#[derive(Default)]
pub(super) struct Keys {
    ours: BTreeMap<KeyId, Field>,
    /// By their fingerprints.
    openpgp: BTreeMap<String, Field>,
}

impl Keys {
    /// Keys of a rebuilder: ours, and those of OpenPGP.
    pub(super) fn of_rebuilder(
        &mut self,
        place: &str,
        texts: &[String],
    ) -> Loaded<(BTreeSet<KeyId>, BTreeSet<String>)> {
        let (foreign, ours): (Vec<_>, Vec<_>) =
            texts.iter().enumerate().partition(|(_, text)| text.starts_with("openpgp:"));
        let expected = "the fingerprint of an OpenPGP key: openpgp: and 40 or 64 hexadecimal digits";
        let mut openpgp = BTreeSet::new();
        for (number, text) in foreign {
            let here = field(&format!("{place}[{number}]"));
            let hex = text.strip_prefix("openpgp:").unwrap_or_default().to_ascii_uppercase();
            if !(matches!(hex.len(), 40 | 64) && hex.bytes().all(|b| b.is_ascii_hexdigit())) {
                return Err(PolicyError::Value { field: here, found: text.clone(), expected });
            }
            if let Some(first) = self.openpgp.get(&hex) {
                return Err(PolicyError::KeyTwice { field: here, key: text.clone(), first: first.clone() });
            }
            self.openpgp.insert(hex.clone(), here);
            openpgp.insert(hex);
        }
        if ours.is_empty() && !openpgp.is_empty() {
            return Ok((BTreeSet::new(), openpgp));
        }
        Ok((self.each(place, &ours)?, openpgp))
    }

    /// Keys of ours alone.
    pub(super) fn take(&mut self, place: &str, texts: &[String]) -> Loaded<BTreeSet<KeyId>> {
        self.each(place, &texts.iter().enumerate().collect::<Vec<_>>())
    }

    fn each(&mut self, place: &str, texts: &[(usize, &String)]) -> Loaded<BTreeSet<KeyId>> {
        if texts.is_empty() {
            return Err(PolicyError::Empty {
                field: field(place),
                way_out: "without a key nothing of it could ever be believed; name one as `kiln key show` prints it",
            });
        }
        let mut keys = BTreeSet::new();
        for &(number, text) in texts {
            let here = field(&format!("{place}[{number}]"));
            let expected =
                "the fingerprint of a key: sha256: and 64 lower-case hexadecimal digits; see `kiln key show`";
            let key = text
                .strip_prefix("sha256:")
                .filter(|hex| is_hex(hex, 64))
                .and_then(|hex| hex.parse::<KeyId>().ok())
                .ok_or_else(|| PolicyError::Value { field: here.clone(), found: text.clone(), expected })?;
            if let Some(first) = self.ours.get(&key) {
                return Err(PolicyError::KeyTwice { field: here, key: text.clone(), first: first.clone() });
            }
            self.ours.insert(key, here);
            keys.insert(key);
        }
        Ok(keys)
    }
}
