//! An X.509-SVID from files as the identity that signs: what a SPIFFE agent wrote for this workload.
//!
//! The certificate says who signs, and its authority answers for the key; so the builder's id is the SPIFFE id, and statements
//! leave as bundles with their certificates. A certificate whose time is over signs nothing.

use std::path::Path;

use kiln_model::key::{SecretKey, Svid};
use kiln_model::outcome::Moment;

use super::{SignError, io, key_file};

/// Bytes of a file of certificates.
const LARGEST: u64 = 1 << 20;

/// The SVID in the PEM file `certificates`, the leaf first, and its key, which `passphrase` opens if it needs one, as of `now`.
pub fn read(
    certificates: &Path,
    key: &Path,
    passphrase: Option<&str>,
    now: Moment,
) -> Result<(Svid, SecretKey), SignError> {
    use std::io::Read as _;
    let mut text = String::new();
    let file = std::fs::File::open(certificates).map_err(io("reading", certificates))?;
    file.take(LARGEST).read_to_string(&mut text).map_err(io("reading", certificates))?;
    let svid = Svid::from_pem(&text).map_err(|source| SignError::Svid { path: certificates.into(), source })?;
    let secret = key_file::secret(key, passphrase)?;
    if secret.public() != *svid.key() {
        return Err(SignError::OtherKey { path: key.into(), certificate: certificates.into() });
    }
    if !svid.is_valid_at(now) {
        return Err(SignError::NotValid { path: certificates.into(), now });
    }
    Ok((svid, secret))
}
