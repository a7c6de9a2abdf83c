//! A candidate: bytes that may be evidence, and where they were found. Step 2 of the algorithm.
//!
//! An envelope or a Sigstore bundle, alone in a file or on a line. What is neither decides nothing.

use std::fmt;
use std::sync::Arc;

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
    pub(super) id: EnvelopeId,
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
        return Ok(Read {
            id: bundle.envelope.id(),
            envelope: bundle.envelope,
            proofs: proofs.collect(),
            svid: bundle.svid,
        });
    }
    let (envelope, id) = Envelope::named(bytes).map_err(|error| chain(&error))?;
    Ok(Read { id: id.unwrap_or_else(|| envelope.id()), envelope, proofs: Vec::new(), svid: None })
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
