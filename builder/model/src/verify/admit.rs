//! From a candidate to a fact: envelope, signature, statement, pair, log, time. Steps 2 to 7 and 9 of the algorithm.
//!
//! A signature is verified over the decoded bytes before they are parsed, and only against keys of the policy. What names such a
//! key and is not signed by it is tampering; what names none decides nothing.

use super::candidate::{self, Candidate, Read, Source};
use super::check::{Check, Code, Status};
use super::fact::{self, Claim, Compared, Fact, Judged, Speaker, Subject};
use super::inclusion::Shown;
use super::time::{self, Times};
use super::{Verifier, foreign, oss_rebuild, provenance};
use crate::envelope::{Envelope, EnvelopeError, EnvelopeId, Signature, Verified};
use crate::key::{KeyId, PublicKey, Svid};
use crate::log::Proof;
use crate::outcome::Moment;
use crate::policy::{Form, Inclusion};
use crate::statement::{Comparison, ComparisonResult, Descriptor, Payload, Predicate, StatementError, Summary};

/// What became of a candidate.
#[derive(Debug, Clone, PartialEq)]
pub enum Admission {
    /// No evidence, for this reason.
    Ignored {
        /// Where it was found.
        source: Source,
        /// Why.
        why: String,
    },
    /// Signed by a key of the policy, and no evidence all the same; or contradicted by cryptography.
    Refused(Check),
    /// Evidence.
    Fact(Box<Fact>),
}

/// What a verified statement comes with.
struct Context<'a> {
    source: &'a Source,
    id: EnvelopeId,
    key: KeyId,
    speaker: Speaker,
    times: Times,
    shown: Shown,
}

impl Verifier<'_> {
    /// Judges one candidate. Proofs of its envelope that were found elsewhere come from the verifier's shelf.
    pub fn admit(&self, candidate: &Candidate<'_>) -> Admission {
        let source = &candidate.source;
        let ignored = |why: String| Admission::Ignored { source: source.clone(), why };
        let Read { envelope, id: found, mut proofs, svid } = match candidate::read(candidate.bytes) {
            Ok(read) => read,
            Err(why) => return ignored(why),
        };
        if let Some(named) = candidate.named.filter(|named| *named != found) {
            return Admission::Refused(
                Check::new(
                    Code::FileName,
                    Status::Tampered,
                    "file name",
                    named.to_string(),
                    found.to_string(),
                    "the file is not the envelope that it is named after; fetch it again, from elsewhere",
                )
                .found_in(source.to_string()),
            );
        }
        let (verified, public, speaker) = match &svid {
            None => match self.verified(&envelope, found) {
                Ok(Some((verified, key))) => (verified, self.keys[&key].0.key(), self.keys[&key].1),
                Ok(None) => return ignored("signed by no key of the policy".into()),
                Err(key) => return Admission::Refused(tampered(key).about(found, source.to_string())),
            },
            Some(svid) => {
                let Some(number) = self.named_by(svid) else {
                    return ignored(format!("signed by {}, whom the policy does not name", svid.id()));
                };
                let public = svid.key();
                match envelope.verified_as(|message, sig| public.verify(message, sig), public.id(), || found) {
                    Ok(verified) => (verified, public, Speaker::Rebuilder(number)),
                    // Whoever copied the certificate could have written this: it is tampering only if it is not junk.
                    Err(_) if self.svid(svid, number, None).is_some() => {
                        return ignored("junk under a certificate".into());
                    }
                    Err(_) => return Admission::Refused(tampered(public.id()).about(found, source.to_string())),
                }
            }
        };
        let key = verified.key();
        // One statement by one key is one fact, in whatever spelling storage hands it out.
        let id = own_id(&envelope, found, key, public);
        if self.policy.threshold.disregard.contains(&id.digest())
            || self.policy.threshold.disregard.contains(&found.digest())
        {
            return Admission::Refused(disregarded().about(id, source.to_string()));
        }
        let refused = |check: Check| Admission::Refused(check.about(id, source.to_string()));
        let mut unread = Vec::new();
        let beside = candidate.proof.map(<[u8]>::to_vec).into_iter().chain((self.proofs)(id));
        for bytes in beside {
            match Proof::parse(&bytes) {
                Ok(proof) => proofs.push((proof, None)),
                Err(error) => unread.push(error),
            }
        }
        let mut shown = match &self.logs {
            Some(logs) => logs.judge(&envelope, public, &proofs),
            None => Shown::default(),
        };
        if let Some(check) = shown.failures.iter().find(|check| check.status == Status::Tampered) {
            return refused(check.clone());
        }
        if let (Some(svid), Speaker::Rebuilder(number)) = (&svid, speaker)
            && let Some(check) = self.svid(svid, number, shown.existed)
        {
            return refused(check);
        }
        shown.failures.extend(unread.iter().map(|error| {
            Check::new(
                Code::Inclusion,
                Status::NotCounted,
                "proof",
                "a tlog-proof",
                candidate::chain(error),
                "fetch it again",
            )
        }));
        let times = Times { existed: shown.existed, fresh: shown.fresh, finished: None };
        let context = Context { source, id, key, speaker, times, shown };
        let fact = verified.read().map_err(|error| unreadable(&error)).and_then(|payload| self.fact(context, &payload));
        match fact {
            Ok(fact) => Admission::Fact(Box::new(fact)),
            Err(check) => refused(check),
        }
    }

    /// The payload and the key of the policy that signed it; the key, if an envelope names it that it did not sign.
    fn verified(&self, envelope: &Envelope, id: EnvelopeId) -> Result<Option<(Verified, KeyId)>, KeyId> {
        let signatures = envelope.signatures();
        let named = |signature: &Signature| self.named(signature.keyid.as_deref()?);
        let mut found = None;
        for by in signatures.iter().filter_map(named) {
            let key = &self.keys[&by].0;
            match envelope.verified_as(|message, sig| key.verify(message, sig), by, || id) {
                Ok(verified) => found = found.or(Some((verified, by))),
                Err(_) => return Err(by),
            }
        }
        // Who names another key of the usual spelling is taken at that word, for it would only hide their own statement.
        let foreign = |signature: &Signature| signature.keyid.as_deref().is_some_and(|id| id.parse::<KeyId>().is_ok());
        if found.is_some() || signatures.iter().all(foreign) {
            return Ok(found);
        }
        for (by, (key, _)) in &self.keys {
            match envelope.verified_as(|message, sig| key.verify(message, sig), *by, || id) {
                Ok(verified) => return Ok(Some((verified, *by))),
                Err(EnvelopeError::Tampered { key }) => return Err(key),
                Err(_) => {}
            }
        }
        Ok(None)
    }

    /// The rebuilder that a certificate is made out to, if the policy takes an authority's word for its keys.
    fn named_by(&self, svid: &Svid) -> Option<usize> {
        let rebuilders = self.policy.rebuilders.iter();
        rebuilders.into_iter().position(|one| one.svid.is_some() && one.id == svid.id().as_str())
    }

    /// Why an authority's word is not taken: it is to hold when witnesses saw the statement, or else now.
    fn svid(&self, svid: &Svid, rebuilder: usize, existed: Option<Moment>) -> Option<Check> {
        let rebuilder = &self.policy.rebuilders[rebuilder];
        let trust = rebuilder.svid.as_ref()?;
        let at = existed.unwrap_or(self.now);
        let got = match &trust.bundle {
            Some(bundle) => candidate::chain(&svid.verify(bundle, at).err()?),
            None => format!("{} was not read", trust.file),
        };
        Some(Check::new(
            Code::Signature,
            Status::NotCounted,
            "certificate",
            format!("a certificate of {} by an authority in {}, valid at {at}", rebuilder.id, trust.file),
            got,
            "have it logged while the certificate is valid, or renew the trust bundle",
        ))
    }

    /// Which key of the policy a keyid names: by SPKI, or as securesystemslib or rebuilderd has it.
    pub(super) fn named(&self, keyid: &str) -> Option<KeyId> {
        let id = keyid.parse::<KeyId>().ok()?;
        if self.keys.contains_key(&id) { Some(id) } else { self.other_ids.get(&id).copied() }
    }

    /// What remains of a statement.
    fn fact(&self, mut context: Context<'_>, payload: &Payload<'_>) -> Result<Fact, Check> {
        let unreadable = |error: StatementError| unreadable(&error);
        if payload.predicate_type().map_err(unreadable)? == crate::statement::provenance::TYPE {
            let (subject, provenance) = payload.provenance().map_err(unreadable)?;
            let rebuilder = self.rebuilder(&context, "builder.id", &provenance.builder.id)?;
            context.times.finished = provenance.metadata.finished_on;
            let accepted = self.accepts(context.speaker, Form::OssRebuild);
            let (claim, mut failures) = match provenance.build_type.as_str() {
                oss_rebuild::EQUIVALENCE if !accepted => return Err(foreign::unaccepted(Form::OssRebuild)),
                oss_rebuild::EQUIVALENCE => {
                    let compared = oss_rebuild::compared(&provenance, &subject, rebuilder)?;
                    (Claim::Compared(Box::new(compared)), Vec::new())
                }
                oss_rebuild::REBUILD if accepted => {
                    (Claim::Built(Box::new(oss_rebuild::built(&provenance, rebuilder))), self.unsaid())
                }
                _ => {
                    let (built, failures) = provenance::judge(&provenance, rebuilder, self.policy, &self.licences);
                    (Claim::Built(Box::new(built)), failures)
                }
            };
            failures.extend(time::age(context.times, self.policy, self.now));
            let purls = fact::purls(subject.iter()).into_vec();
            return Ok(self.kept(context, payload, &subject, purls, claim, failures));
        }
        let statement = payload.statement().map_err(unreadable)?;
        let mut purls = fact::purls(statement.subject.iter()).into_vec();
        let (claim, failures) = match statement.predicate {
            Predicate::Comparison(comparison) => {
                let rebuilder = self.rebuilder(&context, "rebuilder.id", &comparison.rebuilder.id)?;
                context.times.finished = Some(comparison.finished_on);
                purls.extend(fact::purls(comparison.expected.iter()));
                let disagrees = comparison.result == ComparisonResult::Different;
                // A disagreement does not become less by age.
                let failures = if disagrees { Vec::new() } else { time::age(context.times, self.policy, self.now) };
                (Claim::Compared(Box::new(compared(*comparison, rebuilder))), failures)
            }
            Predicate::Summary(summary) => {
                (Claim::Judged(self.summary(&context, &summary, &statement.subject)?), Vec::new())
            }
            Predicate::Other { kind, value } => {
                let speaker = context.speaker;
                (Claim::Other { speaker, kind: kind.into(), value: Box::new(value) }, Vec::new())
            }
            Predicate::Provenance(_) => unreachable!("provenance is read in brief, above"),
        };
        Ok(self.kept(context, payload, &statement.subject, purls, claim, failures))
    }

    /// The fact, with what its key and its place in a log make of it.
    fn kept(
        &self,
        mut context: Context<'_>,
        payload: &Payload<'_>,
        subjects: &[Descriptor],
        purls: Vec<Box<str>>,
        claim: Claim,
        mut failures: Vec<Check>,
    ) -> Fact {
        let disagrees = matches!(&claim, Claim::Compared(c) if c.result == ComparisonResult::Different);
        if let Speaker::Rebuilder(number) = context.speaker {
            failures.extend(time::key(context.times, self.policy.rebuilders[number].validity, self.now));
        }
        if !disagrees && self.policy.log.inclusion == Inclusion::Required && context.shown.holding == 0 {
            failures.append(&mut context.shown.failures);
            failures.push(Check::new(
                Code::Inclusion,
                Status::NotCounted,
                "log.require_inclusion",
                "a proof that it stands in a log",
                "none that holds",
                "fetch its .tlog-proof; kiln evidence pull does",
            ));
        }
        let whole = self.keeps_statements.then(|| payload.value()).flatten().map(Box::new);
        let subjects = fact::subjects(subjects);
        let (id, key, source) = (context.id, context.key, context.source.clone());
        let failures = failures.into_iter().map(|check| check.about(id, source.to_string())).collect();
        let existed = context.times.existed;
        Fact { id, source, key, subjects, purls: purls.into(), existed, failures, claim, whole }
    }

    /// The rebuilder with this key, if the statement says its id.
    fn rebuilder(&self, context: &Context<'_>, field: &'static str, id: &str) -> Result<usize, Check> {
        let expected = match context.speaker {
            Speaker::Rebuilder(number) if self.policy.rebuilders[number].id == id => return Ok(number),
            Speaker::Rebuilder(number) => self.policy.rebuilders[number].id.clone(),
            Speaker::Verifier(_) | Speaker::VexAuthor => "a statement for which the policy names this key".to_owned(),
        };
        Err(pair(field, expected, id, context.key))
    }

    fn summary(
        &self,
        context: &Context<'_>,
        summary: &Summary,
        subjects: &[crate::statement::Descriptor],
    ) -> Result<Judged, Check> {
        let verifier = match context.speaker {
            Speaker::Verifier(number) if self.policy.verifiers[number].id == summary.verifier() => number,
            Speaker::Verifier(number) => {
                let expected = self.policy.verifiers[number].id.clone();
                return Err(pair("verifier.id", expected, summary.verifier(), context.key));
            }
            Speaker::Rebuilder(_) | Speaker::VexAuthor => {
                let expected = "a key of a [[verifier]]".to_owned();
                return Err(pair("verifier.id", expected, summary.verifier(), context.key));
            }
        };
        let rules = &self.policy.verifiers[verifier];
        if !rules.resource_uri.matches(&summary.resource_uri) {
            return Err(Check::new(
                Code::Summary,
                Status::NotCounted,
                "resourceUri",
                rules.resource_uri.to_string(),
                summary.resource_uri.clone(),
                "it is about another thing than this verifier is believed about",
            ));
        }
        let passed = summary.verification_result == crate::statement::summary::VerificationResult::Passed;
        let levels = summary.verified_levels.iter().filter_map(|level| level.strip_prefix("SLSA_SOURCE_LEVEL_"));
        let level = levels.filter_map(|level| level.parse::<u8>().ok()).max();
        let revisions = subjects.iter().filter_map(|subject| subject.digest.0.get("gitCommit"));
        Ok(Judged {
            verifier,
            passed,
            source_level: level.filter(|_| passed).map(|level| level.min(rules.max_source_level)),
            resource: summary.resource_uri.as_str().into(),
            revisions: revisions.map(|commit| commit.as_str().into()).collect(),
        })
    }
}

fn compared(comparison: Comparison, rebuilder: usize) -> Compared {
    let normaliser = |n: &crate::statement::comparison::NormaliserUsed| format!("{}/{}", n.name, n.version).into();
    Compared {
        rebuilder,
        result: comparison.result,
        provenance: comparison.provenance.and_then(|link| link.digest.sha256()).map(EnvelopeId::new),
        made: None,
        produced: fact::subjects(&comparison.produced),
        normalised: comparison.normalised_digest.as_ref().and_then(|set| Subject::of(set).sha256),
        normalisers: comparison.normalisers.iter().map(normaliser).collect(),
        flaky: comparison.flaky,
        finished: comparison.finished_on,
    }
}

/// The envelope's id with this signature alone and the key's own name.
fn own_id(envelope: &Envelope, found: EnvelopeId, id: KeyId, key: &PublicKey) -> EnvelopeId {
    let hex = id.to_string();
    let signatures = envelope.signatures();
    if let [signature] = signatures
        && signature.keyid.as_ref() == Some(&hex)
    {
        return found;
    }
    let message = crate::envelope::pae(envelope.payload_type(), envelope.payload());
    let sig = signatures.iter().map(|signature| &signature.sig).find(|sig| key.verify(&message, sig).is_ok());
    let own = sig.map(|sig| vec![Signature { keyid: Some(hex), sig: sig.clone() }]).and_then(|signatures| {
        Envelope::new(envelope.payload().to_vec(), envelope.payload_type().to_owned(), signatures).ok()
    });
    own.map_or(found, |own| own.id())
}

fn unreadable(error: &StatementError) -> Check {
    Check::new(
        Code::Statement,
        Status::NotCounted,
        "payload",
        "an in-toto statement",
        candidate::chain(error),
        "ask its rebuilder for one that others can read",
    )
}

/// What `threshold.disregard` names.
pub(super) fn disregarded() -> Check {
    Check::new(
        Code::Disregarded,
        Status::Noted,
        "threshold.disregard",
        "not to be counted",
        "present, and counted for nothing",
        "",
    )
}

pub(super) fn tampered(key: KeyId) -> Check {
    Check::new(
        Code::Signature,
        Status::Tampered,
        "signatures",
        format!("a signature by key sha256:{key}, which the envelope names"),
        "a signature that is not this key's over these bytes",
        "find out who altered the envelope; fetch it from its rebuilder",
    )
}

fn pair(field: &'static str, expected: String, got: &str, key: KeyId) -> Check {
    let got = format!("{got}, signed by sha256:{key}");
    let way_out = "a key speaks for one id; name the pair in the policy if you believe it";
    Check::new(Code::Pair, Status::NotCounted, field, expected, got, way_out)
}
