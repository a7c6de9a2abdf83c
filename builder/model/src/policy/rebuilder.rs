//! Whom a policy names: pairs of keys and an id, when they are believed, and how far.

use std::collections::BTreeSet;

use super::Pattern;
use crate::key::{KeyId, TrustBundle};
use crate::outcome::Moment;

/// A rebuilder: it counts as (key, id), for one operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rebuilder {
    /// Exactly what its statements name as builder.
    pub id: String,
    /// Who runs it. Operators are what is counted.
    pub operator: String,
    /// Fingerprints of its keys.
    pub keys: BTreeSet<KeyId>,
    /// Fingerprints of its OpenPGP keys, in capitals: `.buildinfo` files that these signed are its word.
    pub openpgp: BTreeSet<String>,
    /// Whose word for its keys is taken, too: authorities that issue X.509-SVIDs to its id.
    pub svid: Option<SvidTrust>,
    /// The highest level of SLSA's build track that its provenance is given.
    pub max_slsa_level: u8,
    /// When its keys are believed.
    pub validity: Validity,
    /// Others' forms of evidence that are taken from its keys, beside provenance.
    pub accepts: BTreeSet<Form>,
}

/// A form in which others say that they rebuilt something. Each says less than provenance of ours does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Form {
    /// in-toto's links, as rebuilderd signs them.
    Link,
    /// Signatures in the narinfo of a store path.
    NarInfo,
    /// OSS-Rebuild's provenance and its statement of equivalence.
    OssRebuild,
    /// Debian's records of a build. Accepted where a rebuilder has an OpenPGP key: it signs nothing else.
    Buildinfo,
}

impl Form {
    /// Those that are accepted by name.
    const NAMED: [Self; 3] = [Self::Link, Self::NarInfo, Self::OssRebuild];

    /// The word in policies.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Link => "in-toto-link",
            Self::NarInfo => "narinfo",
            Self::OssRebuild => "oss-rebuild",
            Self::Buildinfo => "buildinfo",
        }
    }

    /// The form that this word stands for.
    pub fn named(word: &str) -> Option<Self> {
        Self::NAMED.into_iter().find(|form| form.as_str() == word)
    }
}

/// Authorities that vouch for the keys of a SPIFFE id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SvidTrust {
    /// The file with the trust bundle, relative to the policy.
    pub file: String,
    /// What is in it, once it was read: until then nobody is believed.
    pub bundle: Option<TrustBundle>,
}

/// An issuer of summaries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verifier {
    /// What stands before the version in `verifier.id`.
    pub id: String,
    /// Fingerprints of its keys.
    pub keys: BTreeSet<KeyId>,
    /// The highest level of SLSA's source track that its summaries are given.
    pub max_source_level: u8,
    /// What its summaries may be about.
    pub resource_uri: Pattern,
}

/// When the keys of a rebuilder are believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// From this moment.
    pub from: Moment,
    /// Until before this one.
    pub until: Moment,
    /// And, if revoked, until this one.
    pub revoked_after: Option<Moment>,
}

impl Validity {
    /// Whether there is a moment at which a statement counts.
    pub fn is_ever(&self) -> bool {
        self.revoked_after.is_none_or(|revoked| self.from <= revoked)
    }
}
