//! What is to be logged: envelopes that were verified by the key that signed them, as many as are written at once.

use kiln_model::envelope::{Envelope, EnvelopeError, Signature, Verified};
use kiln_model::key::{PublicKey, Svid, SvidError};

/// Entries of one batch: what is synced, signed and published together.
const MOST_BATCH: usize = 16 * 1024;
/// Bytes of envelopes after which a batch is full.
const FULL_BATCH_BYTES: usize = 64 << 20;

/// Envelopes that are to be logged together.
#[derive(Debug, Default)]
pub struct Batch {
    pub(super) envelopes: Vec<Signed>,
    bytes: usize,
}

/// An envelope that its key has signed.
#[derive(Debug, Clone)]
pub struct Signed {
    pub(super) envelope: Envelope,
    pub(super) key: PublicKey,
    /// The certificates that say whose key it is, if that is how it is known.
    pub(super) svid: Option<Svid>,
    /// Why nobody vouches for it now, and the file that it came from.
    pub(super) refused: Option<(String, SvidError)>,
}

impl Signed {
    /// An envelope that `key` has signed, and what was signed.
    pub fn new(envelope: Envelope, key: &PublicKey) -> Result<(Self, Verified), EnvelopeError> {
        let verified = envelope.verified_by(key)?;
        Ok((Self { envelope, key: key.clone(), svid: None, refused: None }, verified))
    }

    /// An envelope that the key of `svid` has signed, and what was signed. Bundles with certificates name no key in their envelopes;
    /// here it is named, so that the envelope's id is the one that verifiers look for.
    pub fn certified(envelope: Envelope, svid: Svid) -> Result<(Self, Verified), EnvelopeError> {
        let keyid = Some(svid.key().id().to_string());
        let signatures =
            envelope.signatures().iter().map(|one| Signature { keyid: keyid.clone(), sig: one.sig.clone() });
        let envelope =
            Envelope::new(envelope.payload().to_vec(), envelope.payload_type().to_owned(), signatures.collect())?;
        let (signed, verified) = Self::new(envelope, svid.key())?;
        Ok((Self { svid: Some(svid), ..signed }, verified))
    }

    /// The same, which may be in the log, and may not come into it for this reason.
    pub(super) fn refused(self, file: &str, why: SvidError) -> Self {
        Self { refused: Some((file.into(), why)), ..self }
    }

    /// The certificates that say whose key it is.
    pub fn svid(&self) -> Option<&Svid> {
        self.svid.as_ref()
    }

    /// The envelope.
    pub fn envelope(&self) -> &Envelope {
        &self.envelope
    }

    /// The key that signed it.
    pub fn key(&self) -> &PublicKey {
        &self.key
    }
}

impl Batch {
    /// Adds an envelope.
    pub fn push(&mut self, signed: Signed) {
        self.bytes += signed.envelope.payload().len();
        self.envelopes.push(signed);
    }

    /// Whether it should be appended before more is added.
    pub fn is_full(&self) -> bool {
        self.envelopes.len() >= MOST_BATCH || self.bytes >= FULL_BATCH_BYTES
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.envelopes.is_empty()
    }
}
