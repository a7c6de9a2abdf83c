//! What others sign who rebuild: rebuilderd's links, the lines that Nix's caches have of a store path, Debian's `.buildinfo`.
//!
//! None names a builder, inputs or a time: each says that a key vouches for digests, and counts as no more. So it is taken
//! only from a rebuilder of whom the policy `accepts` that form, at level 0, and not at all where the policy asks what went in.
//! The key alone says whose word it is. (OSS-Rebuild's statements come in envelopes: see `admit`.)

use super::Verifier;
use super::admit::{Admission, disregarded, tampered};
use super::candidate::{Candidate, Source, chain};
use super::check::{Check, Code, Status};
use super::fact::{Built, Claim, Fact, Speaker, Subject};
use super::time::{self, Times};
use crate::digest::Digest;
use crate::envelope::EnvelopeId;
use crate::format::base64;
use crate::format::buildinfo::Buildinfo;
use crate::format::link::Link;
use crate::format::narinfo::{self, NarInfo};
use crate::key::{KeyId, Prepared};
use crate::policy::{Form, Inclusion};
use crate::statement::DigestSet;

/// Signatures of one narinfo that are looked at.
pub(super) const MOST_SIGNATURES: usize = 64;

/// How a narinfo begins, and nothing else that is read as evidence.
const NARINFO: &[u8] = b"StorePath: ";

/// What a candidate is read as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// Lines of a Nix cache.
    NarInfo,
    /// in-toto's form before DSSE.
    Link,
    /// An envelope or a bundle, or nothing.
    Other,
}

impl Shape {
    /// As its beginning says.
    pub(super) fn of(bytes: &[u8]) -> Self {
        if bytes.starts_with(NARINFO) {
            Self::NarInfo
        } else if !bytes.starts_with(b"{\"payload\":") && Link::is_meant(bytes) {
            Self::Link
        } else {
            Self::Other
        }
    }
}

/// `bytes`, unless they are more than a narinfo has.
pub(super) fn bounded(bytes: &[u8]) -> Option<&[u8]> {
    (bytes.len() as u64 <= narinfo::MOST_BYTES).then_some(bytes)
}

/// A clear-signed file, as whoever reads OpenPGP found it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Clearsigned {
    /// Good signatures, by the keys with these fingerprints.
    By {
        /// What was signed, and nothing else of the file.
        text: String,
        /// In capitals.
        keys: Vec<String>,
    },
    /// A signature that names a key and is not its over this text.
    Bad {
        /// Its fingerprint, in capitals.
        key: String,
    },
    /// No signature that can be relied on, for this reason.
    Unsigned {
        /// Why.
        why: String,
    },
}

impl Verifier<'_> {
    /// Judges a `.buildinfo`: each file in it was made by whoever signed, if that is a key of the policy.
    pub fn buildinfo(&self, source: &Source, file: Clearsigned, out: &mut Vec<Admission>) {
        let ignored = |why: String| Admission::Ignored { source: source.clone(), why };
        let rebuilders = &self.policy.rebuilders;
        let owner = |key: &String| rebuilders.iter().position(|rebuilder| rebuilder.openpgp.contains(key));
        let (text, keys) = match file {
            Clearsigned::Unsigned { why } => return out.push(ignored(why)),
            Clearsigned::Bad { key } if owner(&key).is_some() => {
                let check = Check::new(
                    Code::Signature,
                    Status::Tampered,
                    "signatures",
                    format!("a signature by key openpgp:{key}, which the file names"),
                    "a signature that is not this key's over this text",
                    "find out who altered the file; fetch it from its rebuilder",
                );
                return out.push(Admission::Refused(check.found_in(source.to_string())));
            }
            Clearsigned::Bad { key } => return out.push(ignored(format!("not signed by openpgp:{key}, as it says"))),
            Clearsigned::By { text, keys } => (text, keys),
        };
        let owned: Vec<(usize, &String)> = keys.iter().filter_map(|key| Some((owner(key)?, key))).collect();
        if owned.is_empty() {
            return out.push(ignored("signed by no OpenPGP key of the policy".into()));
        }
        let made: Vec<DigestSet> = match Buildinfo::parse(&text) {
            Ok(info) => info.files.iter().map(|file| DigestSet::of(file.sha256)).collect(),
            Err(error) => return out.push(ignored(chain(&error))),
        };
        for (rebuilder, key) in owned {
            let key = KeyId::new(Digest::of(format!("openpgp:{key}")));
            out.push(self.voice(Form::Buildinfo, source, (rebuilder, key), text.as_bytes(), made.iter()));
        }
    }

    /// Judges one candidate of any form. What others' formats hold may become several facts: one for each key of the policy.
    pub fn judge(&self, candidate: &Candidate<'_>, out: &mut Vec<Admission>) {
        match Shape::of(candidate.bytes) {
            Shape::NarInfo => self.narinfo(candidate, out),
            Shape::Link => self.link(candidate, out),
            Shape::Other => out.push(self.admit(candidate)),
        }
    }

    fn link(&self, candidate: &Candidate<'_>, out: &mut Vec<Admission>) {
        let source = &candidate.source;
        let link = match Link::parse(candidate.bytes) {
            Ok(link) => link,
            Err(error) => return out.push(Admission::Ignored { source: source.clone(), why: chain(&error) }),
        };
        let before = out.len();
        for (keyid, sig) in &link.signatures {
            let signed_by = |id: &KeyId| self.keys[id].0.verify(&link.signed, sig).is_ok();
            let key = match self.named(keyid) {
                Some(key) if signed_by(&key) => key,
                Some(key) => {
                    let id = foreign_id(&link.signed, key);
                    out.push(Admission::Refused(tampered(key).about(id, source.to_string())));
                    continue;
                }
                None => match self.keys.keys().copied().find(signed_by) {
                    Some(key) => key,
                    None => continue,
                },
            };
            out.push(self.vouched(Form::Link, source, key, &link.signed, link.products.values()));
        }
        if out.len() == before {
            out.push(Admission::Ignored { source: source.clone(), why: "signed by no key of the policy".into() });
        }
    }

    fn narinfo(&self, candidate: &Candidate<'_>, out: &mut Vec<Admission>) {
        let source = &candidate.source;
        let ignored = |why: String| Admission::Ignored { source: source.clone(), why };
        let Some(bytes) = bounded(candidate.bytes) else {
            return out.push(ignored(format!("a narinfo of more than {} bytes", narinfo::MOST_BYTES)));
        };
        let info = match NarInfo::parse(bytes) {
            Ok(info) => info,
            Err(error) => return out.push(ignored(chain(&error))),
        };
        if info.signatures.len() > MOST_SIGNATURES {
            let why = format!("{} signatures: at most {MOST_SIGNATURES} are looked at", info.signatures.len());
            return out.push(ignored(why));
        }
        let signed = info.fingerprint().into_bytes();
        let nar = DigestSet::of(info.nar_hash.digest());
        // The name before the colon is anybody's to choose: keys are tried, and only those that may sign such lines.
        let keys = self.keys.iter().filter(|(_, (_, speaker))| self.accepts(*speaker, Form::NarInfo));
        let signs = |key: &Prepared, line: &String| {
            let sig = line.split_once(':').and_then(|(_, sig)| base64::decode(sig.as_bytes()));
            sig.is_some_and(|sig| key.verify(&signed, &sig).is_ok())
        };
        let before = out.len();
        for (id, _) in keys.filter(|(_, (key, _))| info.signatures.iter().any(|line| signs(key, line))) {
            out.push(self.vouched(Form::NarInfo, source, *id, &signed, std::iter::once(&nar)));
        }
        if out.len() == before {
            out.push(ignored("signed by no key from which the policy accepts a narinfo".into()));
        }
    }

    /// Whether the policy takes this form from whoever has the key.
    pub(super) fn accepts(&self, speaker: Speaker, form: Form) -> bool {
        matches!(speaker, Speaker::Rebuilder(number) if self.policy.rebuilders[number].accepts.contains(&form))
    }

    /// The fact that `key` vouches for these digests, as far as the policy takes it from whoever has the key.
    fn vouched<'d>(
        &self,
        form: Form,
        source: &Source,
        key: KeyId,
        signed: &[u8],
        digests: impl Iterator<Item = &'d DigestSet>,
    ) -> Admission {
        let refused = |check: Check| Admission::Refused(check.about(foreign_id(signed, key), source.to_string()));
        match self.keys[&key].1 {
            Speaker::Rebuilder(rebuilder) if self.accepts(Speaker::Rebuilder(rebuilder), form) => {
                self.voice(form, source, (rebuilder, key), signed, digests)
            }
            Speaker::Rebuilder(_) | Speaker::Verifier(_) | Speaker::VexAuthor => refused(unaccepted(form)),
        }
    }

    /// The same of a rebuilder from whom the form is taken.
    fn voice<'d>(
        &self,
        form: Form,
        source: &Source,
        (rebuilder, key): (usize, KeyId),
        signed: &[u8],
        digests: impl Iterator<Item = &'d DigestSet>,
    ) -> Admission {
        let id = foreign_id(signed, key);
        let refused = |check: Check| Admission::Refused(check.about(id, source.to_string()));
        if self.policy.threshold.disregard.contains(&id.digest()) {
            return refused(disregarded());
        }
        let times = Times::default();
        let mut failures = self.unsaid();
        failures.extend(time::age(times, self.policy, self.now));
        failures.extend(time::key(times, self.policy.rebuilders[rebuilder].validity, self.now));
        if self.policy.log.inclusion == Inclusion::Required {
            failures.push(Check::new(
                Code::Inclusion,
                Status::NotCounted,
                "log.require_inclusion",
                "a proof that it stands in a log",
                "a form of evidence that stands in none",
                "set require_inclusion to false if you believe it without a log",
            ));
        }
        let failures = failures.into_iter().map(|check| check.about(id, source.to_string())).collect();
        let claim = Claim::Built(Box::new(Built {
            rebuilder,
            form: Some(form),
            level: 0,
            finished: None,
            tool: "".into(),
            platform: "".into(),
            denials: Vec::new(),
            sources: Vec::new(),
            inputs: Vec::new(),
        }));
        let (subjects, source) = (digests.map(Subject::of).collect(), source.clone());
        let purls = Box::default();
        Admission::Fact(Box::new(Fact {
            id,
            source,
            key,
            subjects,
            purls,
            existed: None,
            failures,
            claim,
            whole: None,
        }))
    }

    /// What the policy asks that such evidence does not say.
    pub(super) fn unsaid(&self) -> Vec<Check> {
        let policy = self.policy;
        let mut failures = Vec::new();
        let least = policy.provenance.min_level;
        if least > 0 {
            failures.push(Check::new(
                Code::Level,
                Status::NotCounted,
                "provenance.min_level",
                format!("SLSA_BUILD_LEVEL_{least}"),
                "SLSA_BUILD_LEVEL_0: it says nothing of how it was built",
                "ask the rebuilder for provenance, or ask for no level",
            ));
        }
        let inputs = &policy.inputs;
        let asks = !inputs.allow_uri.iter().any(crate::policy::Pattern::is_any)
            || !inputs.deny_digests.is_empty()
            || inputs.licences.judges()
            || policy.vulns.judges();
        if asks {
            failures.push(Check::new(
                Code::InputUri,
                Status::NotCounted,
                "inputs",
                "inputs that can be held against the policy",
                "it does not say what went in",
                "ask the rebuilder for provenance, or ask nothing of inputs",
            ));
        }
        failures
    }
}

/// The name of what a key signed in a form of its own: the same however it is spelled, wrapped or repeated.
fn foreign_id(signed: &[u8], key: KeyId) -> EnvelopeId {
    EnvelopeId::new(Digest::of([signed, key.digest().as_bytes()].concat()))
}

pub(super) fn unaccepted(form: Form) -> Check {
    Check::new(
        Code::Form,
        Status::NotCounted,
        "rebuilder.accepts",
        "evidence in a form that the policy accepts from this key",
        form.as_str(),
        "it says less than provenance does; add the form to the rebuilder's accepts if that is enough",
    )
}
