//! OpenPGP certificates beside the other public keys, and what they say of clear-signed files. Which of them count, the policy
//! says; whether a signature is good at a time, [`crate::pin::debian`] does.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use kiln_model::outcome::Moment;
use kiln_model::verify::Clearsigned;

use crate::pin::debian::{Flaw, Keyring, KeyringError, SignatureError, Vouched, opened};

/// Certificates, and what time it is.
pub struct Certificates {
    keyring: Option<Keyring>,
    clock: Timestamp,
}

impl std::fmt::Debug for Certificates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Certificates").field("clock", &self.clock).finish_non_exhaustive()
    }
}

impl Certificates {
    /// Those in a directory's `.asc`, `.pgp` and `.gpg` files; there may be none.
    pub fn read(directory: &Path, now: Moment) -> Result<Self, KeyringError> {
        let unreadable = |source| KeyringError::Read { path: directory.into(), source };
        let mut paths: Vec<PathBuf> = Vec::new();
        for entry in std::fs::read_dir(directory).map_err(unreadable)? {
            let path = entry.map_err(unreadable)?.path();
            if path.extension().is_some_and(|extension| extension == "asc" || extension == "pgp" || extension == "gpg")
            {
                paths.push(path);
            }
        }
        paths.sort_unstable();
        let keyring = if paths.is_empty() { None } else { Some(Keyring::read(&paths)?) };
        Ok(Self { keyring, ..Self::none(now) })
    }

    /// No certificates.
    pub fn none(now: Moment) -> Self {
        let seconds = i64::try_from(now.unix()).unwrap_or(i64::MAX);
        Self { keyring: None, clock: Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX) }
    }

    /// What is to be thought of a file that may be clear-signed.
    pub(super) fn judge(&self, bytes: &[u8]) -> Clearsigned {
        let unsigned = |why: String| Clearsigned::Unsigned { why };
        let Some(keyring) = &self.keyring else {
            return unsigned("no OpenPGP certificate among the keys: it could be anybody's".into());
        };
        match opened(bytes, keyring, self.clock) {
            Ok(opened) => match opened.vouched {
                Vouched::By(keys) => Clearsigned::By { text: opened.text, keys },
                Vouched::Unknown { why } => unsigned(why),
                Vouched::Unsigned => unsigned("not signed: a wish list, by nobody".into()),
            },
            Err(SignatureError::NoneGood { flaws, .. }) => {
                let bad = flaws.iter().find_map(|flaw| if let Flaw::Bad { key } = flaw { Some(key) } else { None });
                match bad {
                    Some(key) => Clearsigned::Bad { key: key.clone() },
                    None => unsigned(flaws.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")),
                }
            }
            Err(error) => unsigned(error.to_string()),
        }
    }
}
