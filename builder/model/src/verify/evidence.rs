//! Evidence: facts by what they are about, each once, and what was refused on the way.
//!
//! Filled in any order, it says the same: of two copies of one envelope the one that counts is kept. What was ignored or
//! refused is counted, and the first of it listed.

use std::collections::HashMap;

use super::admit::Admission;
use super::candidate::Source;
use super::check::{Check, Status};
use super::fact::{Claim, Fact};
use crate::digest::Digest;
use crate::envelope::EnvelopeId;
use crate::statement::DigestSet;

/// How many of what does not count are listed; all are counted.
const LISTED: usize = 1000;

/// Facts about many artifacts.
#[derive(Debug, Default)]
pub struct Evidence {
    facts: Vec<Fact>,
    by_id: HashMap<EnvelopeId, u32>,
    by_subject: HashMap<Digest, Vec<u32>>,
    by_revision: HashMap<Box<str>, Vec<u32>>,
    /// Candidates that decide nothing, the first of them.
    pub ignored: Vec<(Source, String)>,
    /// How many there were.
    pub ignored_count: usize,
    /// Statements by keys of the policy that count for nothing, the first of them.
    pub refused: Vec<Check>,
    /// How many there were.
    pub refused_count: usize,
    /// What cryptography contradicts, the first of it.
    pub tampered: Vec<Check>,
    /// How many there were.
    pub tampered_count: usize,
}

impl Evidence {
    /// Takes what became of a candidate.
    pub fn add(&mut self, admission: Admission) {
        match admission {
            Admission::Ignored { source, why } => {
                self.ignored_count += 1;
                if self.ignored.len() < LISTED {
                    self.ignored.push((source, why));
                }
            }
            Admission::Refused(check) => {
                let (list, count) = match check.status {
                    Status::Tampered => (&mut self.tampered, &mut self.tampered_count),
                    Status::Passed | Status::Noted | Status::NotCounted | Status::Insufficient | Status::Denied => {
                        (&mut self.refused, &mut self.refused_count)
                    }
                };
                *count += 1;
                if list.len() < LISTED {
                    list.push(check);
                }
            }
            Admission::Fact(fact) => self.take(*fact),
        }
    }

    fn take(&mut self, fact: Fact) {
        if let Some(&known) = self.by_id.get(&fact.id) {
            let known = &mut self.facts[known as usize];
            // One copy came with its proof, the other without; which was found first does not matter.
            if (fact.failures.len(), &fact.existed, &fact.source)
                < (known.failures.len(), &known.existed, &known.source)
            {
                *known = fact;
            }
            return;
        }
        let number = u32::try_from(self.facts.len()).expect("fewer facts than addresses of 32 bits");
        self.by_id.insert(fact.id, number);
        let mut last = None;
        for digest in fact.subjects.iter().filter_map(|subject| subject.sha256) {
            if last.replace(digest) != Some(digest) {
                self.by_subject.entry(digest).or_default().push(number);
            }
        }
        if let Claim::Judged(judged) = &fact.claim {
            for revision in &judged.revisions {
                self.by_revision.entry(revision.clone()).or_default().push(number);
            }
        }
        self.facts.push(fact);
    }

    /// How many facts there are.
    pub fn len(&self) -> usize {
        self.facts.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.facts.is_empty()
    }

    /// All facts, in no order that means anything.
    pub fn facts(&self) -> &[Fact] {
        &self.facts
    }

    /// The fact of an envelope.
    pub fn fact(&self, id: EnvelopeId) -> Option<&Fact> {
        self.by_id.get(&id).map(|number| &self.facts[*number as usize])
    }

    /// Facts with a subject that has this SHA-256, whatever else is said of it; by envelope.
    pub(super) fn near(&self, artifact: &DigestSet) -> Vec<&Fact> {
        let numbers = artifact.sha256().and_then(|sha256| self.by_subject.get(&sha256));
        let mut facts: Vec<&Fact> = numbers.into_iter().flatten().map(|number| &self.facts[*number as usize]).collect();
        facts.sort_unstable_by_key(|fact| fact.id);
        facts.dedup_by_key(|fact| fact.id);
        facts
    }

    /// Summaries about a revision of sources, by envelope.
    pub(super) fn about_revision(&self, commit: &str) -> Vec<&Fact> {
        let numbers = self.by_revision.get(commit);
        let mut facts: Vec<&Fact> = numbers.into_iter().flatten().map(|number| &self.facts[*number as usize]).collect();
        facts.sort_unstable_by_key(|fact| fact.id);
        facts
    }
}
