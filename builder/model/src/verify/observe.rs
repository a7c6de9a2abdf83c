//! What is seen of an artifact before there is a policy, to write a first one from.

use super::fact::{flat, purls};
use super::{candidate, foreign, oss_rebuild};
use crate::format::base64;
use crate::format::link::Link;
use crate::format::narinfo::NarInfo;
use crate::key::PublicKey;
use crate::policy::{Form, Logged, Observed};
use crate::statement::{DigestSet, Match, Predicate};

/// Adds what `bytes` say of the artifact, in any form but OpenPGP's, if one of `keys` signed them.
pub fn observe(bytes: &[u8], keys: &[PublicKey], artifact: &DigestSet, observed: &mut Observed) {
    match foreign::Shape::of(bytes) {
        foreign::Shape::NarInfo => narinfo(bytes, keys, artifact, observed),
        foreign::Shape::Link => link(bytes, keys, artifact, observed),
        foreign::Shape::Other => statement(bytes, keys, artifact, observed),
    }
}

fn statement(bytes: &[u8], keys: &[PublicKey], artifact: &DigestSet, observed: &mut Observed) {
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
    let (builder, build_type) = (&provenance.run_details.builder.id, &provenance.build_definition.build_type);
    if [oss_rebuild::REBUILD, oss_rebuild::EQUIVALENCE].contains(&build_type.as_str()) {
        observed.others.insert((verified.key(), Form::OssRebuild, Some(builder.clone())));
        return;
    }
    observed.rebuilders.insert((builder.clone(), verified.key()));
    observed.build_types.insert(build_type.clone());
    for (name, value) in flat(&provenance.build_definition.external_parameters) {
        observed.external_parameters.entry(name).or_default().insert(value);
    }
}

fn link(bytes: &[u8], keys: &[PublicKey], artifact: &DigestSet, observed: &mut Observed) {
    let Ok(link) = Link::parse(bytes) else { return };
    if !link.products.values().any(|made| made.matches(artifact) == Match::Same) {
        return;
    }
    for key in keys {
        if link.signatures.iter().any(|(_, sig)| key.verify(&link.signed, sig).is_ok()) {
            observed.others.insert((key.id(), Form::Link, None));
        }
    }
}

fn narinfo(bytes: &[u8], keys: &[PublicKey], artifact: &DigestSet, observed: &mut Observed) {
    let Some(info) = foreign::bounded(bytes).and_then(|bytes| NarInfo::parse(bytes).ok()) else { return };
    if DigestSet::of(info.nar_hash.digest()).matches(artifact) != Match::Same {
        return;
    }
    let signed = info.fingerprint();
    for line in info.signatures.iter().take(foreign::MOST_SIGNATURES) {
        let Some((name, sig)) = line.split_once(':') else { continue };
        let Some(sig) = base64::decode(sig.as_bytes()) else { continue };
        if let Some(key) = keys.iter().find(|key| key.verify(signed.as_bytes(), &sig).is_ok()) {
            observed.others.insert((key.id(), Form::NarInfo, Some(name.to_owned())));
        }
    }
}
