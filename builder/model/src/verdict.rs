//! The judgement over many outcomes, and a reference if there is one.
//!
//! [`judge`] is a pure function of a multiset: neither the order of outcomes nor who made them matters. Nothing that was
//! not seen counts in favour: what did not end, or has no companion, is at best inconclusive.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::outcome::{Outcome, Status};

/// What is said of one artifact, or of all. Ordered from best to worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// All agree, and with the reference if there is one.
    Reproduced,
    /// All agree, but only after named normalisers.
    Equivalent,
    /// Too little was seen.
    Inconclusive,
    /// No build ended well.
    Failed,
    /// Builds disagree with each other: the build is nondeterministic.
    Diverged,
    /// Builds agree with each other and not with the reference.
    UpstreamDiffers,
}

/// Whether equality after normalisers is enough for the one who asks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Accept {
    /// Only the same bytes.
    #[default]
    Identical,
    /// Also [`Verdict::Equivalent`].
    Equivalent,
}

/// Who took part in a judgement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// One machine: nobody independent has confirmed it.
    Local,
}

impl Verdict {
    /// The word in JSON and in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reproduced => "reproduced",
            Self::Equivalent => "equivalent",
            Self::Inconclusive => "inconclusive",
            Self::Failed => "failed",
            Self::Diverged => "diverged",
            Self::UpstreamDiffers => "upstream-differs",
        }
    }

    /// The process's exit code (ARCHITECTURE.md, the command line).
    pub fn exit_code(self, accept: Accept) -> u8 {
        match (self, accept) {
            (Self::Reproduced, _) | (Self::Equivalent, Accept::Equivalent) => 0,
            (Self::Equivalent, Accept::Identical) | (Self::Diverged | Self::UpstreamDiffers, _) => 1,
            (Self::Inconclusive, _) => 4,
            (Self::Failed, _) => 5,
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What is compared: an output as a whole, or a file that is published as a file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(tag = "kind", content = "name", rename_all = "kebab-case")]
pub enum Subject {
    /// An output, by its NAR.
    Output(String),
    /// A file, by its bytes.
    File(String),
}

impl Subject {
    /// The name without its kind.
    pub fn name(&self) -> &str {
        match self {
            Self::Output(name) | Self::File(name) => name,
        }
    }
}

/// The digests of one subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity {
    /// Of the bytes as they are.
    pub exact: Digest,
    /// Of the bytes after the normalisers that all parties applied; absent if none was.
    pub normalised: Option<Digest>,
}

/// One outcome, as far as judging needs it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Seen {
    /// It was built.
    Built(BTreeMap<Subject, Identity>),
    /// The build itself failed.
    Failed,
    /// It ran into its deadline or a limit: whether it would have built is not known.
    Unfinished,
    /// It never ran.
    Unavailable,
}

impl From<&Outcome> for Seen {
    fn from(outcome: &Outcome) -> Self {
        match (outcome.status, outcome.limit) {
            (Status::Built, _) => {
                let identity = |exact| Identity { exact, normalised: None };
                let outputs = outcome
                    .outputs
                    .iter()
                    .map(|(n, o)| (Subject::Output(n.to_string()), identity(o.nar_hash.digest())));
                let files = outcome.artifacts.iter().map(|(name, artifact)| {
                    let normalised = artifact.normalised.as_ref().map(|n| n.sha256);
                    let name = artifact.held_against.as_ref().unwrap_or(name);
                    (Subject::File(name.clone()), Identity { exact: artifact.sha256, normalised })
                });
                Self::Built(outputs.chain(files).collect())
            }
            (Status::Failed, None) => Self::Failed,
            (Status::Failed, Some(_)) | (Status::TimedOut, _) => Self::Unfinished,
            (Status::Unavailable, _) => Self::Unavailable,
        }
    }
}

/// What the outcomes are held against.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reference {
    /// Nothing but each other.
    None,
    /// A published artifact that could not be had.
    Unavailable,
    /// What was published. Subjects that it does not name are judged among builds only.
    Published(BTreeMap<Subject, Identity>),
}

/// A verdict and what it is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement {
    /// The worst of all.
    pub verdict: Verdict,
    /// Of each subject.
    pub subjects: BTreeMap<Subject, Verdict>,
}

/// Judges outcomes of one derivation. Any order of `seen` gives the same judgement.
pub fn judge(seen: &[Seen], reference: &Reference) -> Judgement {
    let built: Vec<&BTreeMap<Subject, Identity>> = seen
        .iter()
        .filter_map(|s| match s {
            Seen::Built(subjects) => Some(subjects),
            Seen::Failed | Seen::Unfinished | Seen::Unavailable => None,
        })
        .collect();
    // What all subjects share, whatever their bytes.
    let common = if built.is_empty() {
        let ran = seen.iter().any(|s| matches!(s, Seen::Failed | Seen::Unfinished));
        if ran { Verdict::Failed } else { Verdict::Inconclusive }
    } else if seen.contains(&Seen::Failed) {
        Verdict::Diverged
    } else if seen.contains(&Seen::Unfinished) || *reference == Reference::Unavailable {
        Verdict::Inconclusive
    } else {
        Verdict::Reproduced
    };

    let nothing = BTreeMap::new();
    let published = match reference {
        Reference::Published(subjects) => subjects,
        Reference::None | Reference::Unavailable => &nothing,
    };
    let names: BTreeSet<&Subject> = built.iter().flat_map(|b| b.keys()).chain(published.keys()).collect();
    let subjects: BTreeMap<Subject, Verdict> = names
        .into_iter()
        .filter_map(|subject| {
            let copies: Vec<Option<&Identity>> = built.iter().map(|b| b.get(subject)).collect();
            let own = match published.get(subject) {
                Some(wanted) => Some(against(wanted, &copies)),
                // A lone build beside a reference is judged by what was published, and nothing else of it was.
                None if !published.is_empty() && copies.len() < 2 => None,
                None => Some(among(&copies)),
            };
            // Where builds disagree whether it builds at all, they do not agree against anybody.
            let whole = |own: Verdict| if common == Verdict::Diverged { common } else { own.max(common) };
            own.map(|own| (subject.clone(), whole(own)))
        })
        .collect();
    let nothing_judged = if subjects.is_empty() { common.max(Verdict::Inconclusive) } else { common };
    let verdict = subjects.values().copied().fold(nothing_judged, Verdict::max);
    Judgement { verdict, subjects }
}

/// How far copies agree with each other.
fn agreement(copies: &[Option<&Identity>]) -> Verdict {
    let exact: BTreeSet<_> = copies.iter().map(|c| c.map(|i| i.exact)).collect();
    if exact.len() <= 1 {
        return Verdict::Reproduced;
    }
    // A missing copy, or one without a normalised digest, is equal to nothing.
    let normalised: Option<BTreeSet<_>> = copies.iter().map(|c| c.and_then(|i| i.normalised)).collect();
    match normalised {
        Some(set) if set.len() == 1 => Verdict::Equivalent,
        Some(_) | None => Verdict::Diverged,
    }
}

fn among(copies: &[Option<&Identity>]) -> Verdict {
    if copies.len() < 2 { Verdict::Inconclusive } else { agreement(copies) }
}

/// How copies stand to what was published, which all of them must equal. A copy that is not there equals nothing.
fn against(wanted: &Identity, copies: &[Option<&Identity>]) -> Verdict {
    let all = |equal: &dyn Fn(&Identity) -> bool| !copies.is_empty() && copies.iter().all(|c| c.is_some_and(equal));
    if all(&|copy| copy.exact == wanted.exact) {
        return Verdict::Reproduced;
    }
    if wanted.normalised.is_some() && all(&|copy| copy.normalised == wanted.normalised) {
        return Verdict::Equivalent;
    }
    match agreement(copies) {
        Verdict::Diverged => Verdict::Diverged,
        // The alarm needs two builds that have the same bytes, and a reference that was compared the way they agree.
        Verdict::Reproduced if copies.len() >= 2 => Verdict::UpstreamDiffers,
        Verdict::Equivalent if wanted.normalised.is_some() => Verdict::UpstreamDiffers,
        Verdict::Reproduced
        | Verdict::Equivalent
        | Verdict::Inconclusive
        | Verdict::Failed
        | Verdict::UpstreamDiffers => Verdict::Inconclusive,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn identity(exact: u8) -> Identity {
        Identity { exact: Digest::of([exact]), normalised: None }
    }

    fn out(identity: Identity) -> BTreeMap<Subject, Identity> {
        [(Subject::Output("out".into()), identity)].into()
    }

    fn built(exact: u8) -> Seen {
        Seen::Built(out(identity(exact)))
    }

    fn normalised(exact: u8, normalised: u8) -> Identity {
        Identity { exact: Digest::of([exact]), normalised: Some(Digest::of([normalised, 0])) }
    }

    fn verdict(seen: &[Seen]) -> Verdict {
        judge(seen, &Reference::None).verdict
    }

    fn against_published(seen: &[Seen], exact: u8) -> Verdict {
        judge(seen, &Reference::Published(out(identity(exact)))).verdict
    }

    #[test]
    fn builds_among_themselves() {
        use Seen::{Failed, Unavailable, Unfinished};
        for (seen, expected) in [
            (vec![], Verdict::Inconclusive),
            (vec![built(1)], Verdict::Inconclusive),
            (vec![built(1), built(1)], Verdict::Reproduced),
            (vec![built(1), built(2)], Verdict::Diverged),
            (vec![built(1), built(1), built(2)], Verdict::Diverged),
            (vec![built(1), Failed], Verdict::Diverged),
            (vec![Failed, Failed], Verdict::Failed),
            (vec![Failed, Unavailable], Verdict::Failed),
            (vec![Unfinished], Verdict::Failed),
            (vec![Unavailable, Unavailable], Verdict::Inconclusive),
            (vec![built(1), Unavailable], Verdict::Inconclusive),
            (vec![built(1), built(1), Unavailable], Verdict::Reproduced),
            (vec![built(1), built(1), Unfinished], Verdict::Inconclusive),
            (vec![built(1), built(2), Unfinished], Verdict::Diverged),
        ] {
            assert_eq!(verdict(&seen), expected, "{seen:?}");
        }
    }

    #[test]
    fn builds_against_what_was_published() {
        for (seen, expected) in [
            (vec![], Verdict::Inconclusive),
            (vec![built(1)], Verdict::Reproduced),
            (vec![built(1), built(1)], Verdict::Reproduced),
            (vec![built(2)], Verdict::Inconclusive),
            (vec![built(2), built(2)], Verdict::UpstreamDiffers),
            (vec![built(1), built(2)], Verdict::Diverged),
            (vec![built(2), built(2), Seen::Failed], Verdict::Diverged),
            (vec![built(2), built(2), Seen::Unfinished], Verdict::UpstreamDiffers),
            (vec![Seen::Failed], Verdict::Failed),
            (vec![Seen::Unavailable], Verdict::Inconclusive),
        ] {
            assert_eq!(against_published(&seen, 1), expected, "{seen:?}");
        }
    }

    #[test]
    fn a_reference_that_could_not_be_had_is_never_agreed_with() {
        assert_eq!(judge(&[built(1), built(1)], &Reference::Unavailable).verdict, Verdict::Inconclusive);
        assert_eq!(judge(&[built(1), built(2)], &Reference::Unavailable).verdict, Verdict::Diverged);
    }

    #[test]
    fn normalisers_give_equivalence_and_never_more() {
        let seen = |exact, norm| Seen::Built(out(normalised(exact, norm)));
        assert_eq!(verdict(&[seen(1, 9), seen(2, 9)]), Verdict::Equivalent);
        assert_eq!(verdict(&[seen(1, 8), seen(2, 9)]), Verdict::Diverged);
        assert_eq!(verdict(&[seen(1, 9), built(2)]), Verdict::Diverged);
        let published = Reference::Published(out(normalised(3, 9)));
        assert_eq!(judge(&[seen(1, 9)], &published).verdict, Verdict::Equivalent);
        assert_eq!(judge(&[seen(1, 8), seen(2, 8)], &published).verdict, Verdict::UpstreamDiffers);
        let plain = Reference::Published(out(identity(3)));
        assert_eq!(judge(&[seen(1, 9), seen(2, 9)], &plain).verdict, Verdict::Inconclusive);
    }

    #[test]
    fn the_worst_subject_counts_and_a_missing_one_is_a_divergence() {
        let two = |second: Option<u8>| {
            let mut subjects = out(identity(1));
            subjects.extend(second.map(|d| (Subject::File("a.deb".into()), identity(d))));
            Seen::Built(subjects)
        };
        let judgement = judge(&[two(Some(1)), two(Some(2))], &Reference::None);
        assert_eq!(judgement.verdict, Verdict::Diverged);
        assert_eq!(judgement.subjects.into_values().collect::<Vec<_>>(), [Verdict::Reproduced, Verdict::Diverged]);
        assert_eq!(verdict(&[two(Some(1)), two(None)]), Verdict::Diverged);
    }

    #[test]
    fn a_lone_rebuild_is_judged_by_the_published_file_alone() {
        let file = Subject::File("a.deb".into());
        let mut subjects = out(identity(1));
        subjects.insert(file.clone(), identity(7));
        let published = Reference::Published([(file.clone(), identity(7))].into());
        let judgement = judge(&[Seen::Built(subjects)], &published);
        assert_eq!(judgement.verdict, Verdict::Reproduced);
        assert_eq!(judgement.subjects.into_keys().collect::<Vec<_>>(), [file]);
    }

    #[test]
    fn a_published_file_that_nobody_builds_is_an_alarm() {
        let published = Reference::Published([(Subject::File("a.deb".into()), identity(7))].into());
        assert_eq!(judge(&[built(1), built(1)], &published).verdict, Verdict::UpstreamDiffers);
        assert_eq!(judge(&[built(1)], &published).verdict, Verdict::Inconclusive);
    }

    #[test]
    fn exit_codes_are_the_contracts() {
        let codes = |accept| {
            use Verdict::{Diverged, Equivalent, Failed, Inconclusive, Reproduced, UpstreamDiffers};
            [Reproduced, Equivalent, Diverged, UpstreamDiffers, Inconclusive, Failed].map(|v| v.exit_code(accept))
        };
        assert_eq!(codes(Accept::Identical), [0, 1, 1, 1, 4, 5]);
        assert_eq!(codes(Accept::Equivalent), [0, 0, 1, 1, 4, 5]);
    }

    fn any_seen() -> impl Strategy<Value = Seen> {
        let digests = (0..3_u8, proptest::option::of(0..2_u8)).prop_map(|(exact, norm)| match norm {
            Some(norm) => normalised(exact, norm),
            None => identity(exact),
        });
        let subject = prop_oneof![Just(Subject::Output("out".into())), Just(Subject::File("a".into()))];
        prop_oneof![
            4 => proptest::collection::btree_map(subject, digests, 0..3).prop_map(Seen::Built),
            1 => Just(Seen::Failed),
            1 => Just(Seen::Unfinished),
            1 => Just(Seen::Unavailable),
        ]
    }

    fn any_reference() -> impl Strategy<Value = Reference> {
        prop_oneof![
            Just(Reference::None),
            Just(Reference::Unavailable),
            any_seen().prop_map(|seen| match seen {
                Seen::Built(subjects) => Reference::Published(subjects),
                Seen::Failed | Seen::Unfinished | Seen::Unavailable => Reference::None,
            }),
        ]
    }

    proptest! {
        #[test]
        fn the_order_of_outcomes_never_matters(
            (seen, shuffled) in proptest::collection::vec(any_seen(), 0..5)
                .prop_flat_map(|seen| (Just(seen.clone()), Just(seen).prop_shuffle())),
            reference in any_reference(),
        ) {
            prop_assert_eq!(judge(&seen, &reference), judge(&shuffled, &reference));
        }

        #[test]
        fn an_outcome_that_never_ran_changes_nothing_that_was_seen(
            mut seen in proptest::collection::vec(any_seen(), 1..5), reference in any_reference(),
        ) {
            let before = judge(&seen, &reference);
            seen.push(Seen::Unavailable);
            prop_assert_eq!(judge(&seen, &reference), before);
        }

        #[test]
        fn reproduced_means_that_all_that_ran_have_the_same_bytes(
            seen in proptest::collection::vec(any_seen(), 0..5), reference in any_reference(),
        ) {
            let judgement = judge(&seen, &reference);
            if judgement.verdict == Verdict::Reproduced {
                prop_assert!(!seen.iter().any(|s| matches!(s, Seen::Failed | Seen::Unfinished)));
                prop_assert!(!judgement.subjects.is_empty());
                for subject in judgement.subjects.keys() {
                    let exact: BTreeSet<_> = seen
                        .iter()
                        .filter_map(|s| match s {
                            Seen::Built(subjects) => Some(subjects.get(subject).map(|i| i.exact)),
                            Seen::Failed | Seen::Unfinished | Seen::Unavailable => None,
                        })
                        .collect();
                    prop_assert_eq!(exact.len(), 1);
                    if let Reference::Published(published) = &reference
                        && let Some(wanted) = published.get(subject)
                    {
                        prop_assert_eq!(exact.first(), Some(&Some(wanted.exact)));
                    }
                }
            }
        }

        #[test]
        fn no_subject_is_worse_than_the_whole(
            seen in proptest::collection::vec(any_seen(), 0..5), reference in any_reference(),
        ) {
            let judgement = judge(&seen, &reference);
            prop_assert!(judgement.subjects.values().all(|&v| v <= judgement.verdict));
        }
    }
}
