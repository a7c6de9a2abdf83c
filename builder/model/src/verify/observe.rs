//! What is seen of an artifact before there is a policy, to write a first one from.

use super::candidate;
use super::fact::{flat, purls};
use crate::key::PublicKey;
use crate::policy::{Logged, Observed};
use crate::statement::{DigestSet, Match, Predicate};

/// Adds what `bytes` say of the artifact, if one of `keys` signed them.
pub fn observe(bytes: &[u8], keys: &[PublicKey], artifact: &DigestSet, observed: &mut Observed) {
    let Ok(read) = candidate::read(bytes) else { return };
    let Some(verified) = keys.iter().find_map(|key| read.envelope.verified_by(key).ok()) else { return };
    let Ok(statement) = verified.statement() else { return };
    let about = statement.subject.iter().find(|subject| subject.digest.matches(artifact) == Match::Same);
    let (Some(subject), Predicate::Provenance(provenance)) = (about, &statement.predicate) else { return };
    if observed.purl.is_none() {
        observed.purl = purls(std::iter::once(subject)).first().map(|purl| purl.to_string());
    }
    if !read.proofs.is_empty() {
        observed.logged = Logged::Yes;
    }
    observed.rebuilders.insert((provenance.run_details.builder.id.clone(), verified.key()));
    observed.build_types.insert(provenance.build_definition.build_type.clone());
    for (name, value) in flat(&provenance.build_definition.external_parameters) {
        observed.external_parameters.entry(name).or_default().insert(value);
    }
}
