//! Our own predicate: how what one rebuilder made compares with a reference.
//!
//! Written for every outcome, the bad ones too. The rules tie the result to the facts beside it, so that a claim of agreement
//! without them is no comparison at all; a *disagreement* is read however badly it is told, for losing one would turn a denial
//! into consent.

use serde::{Deserialize, Serialize};

use super::digest_set::Match;
use super::provenance::is_uri;
use super::{Descriptor, DigestSet, StatementError, time};
use crate::outcome::{Moment, Status};

/// Its `predicateType`.
pub const TYPE: &str = "https://kiln.build/rebuild-comparison/v1";

/// Lines of a summary of differences.
pub const SUMMARY: usize = 20;

/// How a rebuild compares with the reference.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Comparison {
    /// Who rebuilt.
    pub rebuilder: Rebuilder,
    /// What was built.
    pub recipe: Descriptor,
    /// How the build ended.
    pub outcome: Status,
    /// How it compares.
    pub result: ComparisonResult,
    /// The reference.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected: Option<Descriptor>,
    /// What was built instead, also when it differs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub produced: Vec<Descriptor>,
    /// Envelope id of the rebuilder's provenance, as a digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provenance: Option<Descriptor>,
    /// What was applied before comparing, in order.
    #[serde(default)]
    pub normalisers: Vec<NormaliserUsed>,
    /// What both are after that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub normalised_digest: Option<DigestSet>,
    /// What differs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub differences: Option<DifferencesFound>,
    /// Why nothing was built.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The log of the build.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<Descriptor>,
    /// How often this rebuilder has built it.
    #[serde(default)]
    pub attempts: u64,
    /// Whether its own attempts disagreed.
    #[serde(default)]
    pub flaky: bool,
    /// When it was known.
    #[serde(with = "time")]
    pub finished_on: Moment,
}

/// Who rebuilt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rebuilder {
    /// The same as `builder.id` of the provenance.
    pub id: String,
}

/// How a rebuild compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ComparisonResult {
    /// The same bytes.
    Identical,
    /// The same after named normalisers.
    Equivalent,
    /// Other bytes.
    Different,
    /// The build failed, or ran into its deadline.
    BuildFailed,
    /// It never ran.
    NotAttempted,
}

/// A normaliser that was applied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NormaliserUsed {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The program that it is part of.
    #[serde(default, skip_serializing_if = "DigestSet::is_empty")]
    pub digest: DigestSet,
}

/// What differs: the whole report by digest, its first lines as they are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DifferencesFound {
    /// Where the report is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uri: Option<String>,
    /// Its digest.
    #[serde(default, skip_serializing_if = "DigestSet::is_empty")]
    pub digest: DigestSet,
    /// At most [`SUMMARY`] lines.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub summary: Vec<String>,
}

impl ComparisonResult {
    /// The word in a statement.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Identical => "IDENTICAL",
            Self::Equivalent => "EQUIVALENT",
            Self::Different => "DIFFERENT",
            Self::BuildFailed => "BUILD_FAILED",
            Self::NotAttempted => "NOT_ATTEMPTED",
        }
    }
}

impl Comparison {
    /// What must hold whoever wrote it: all rules if it claims agreement, none if it does not.
    pub(super) fn sound(&self, subjects: &[Descriptor]) -> Result<(), StatementError> {
        match self.result {
            ComparisonResult::Identical | ComparisonResult::Equivalent => self.writable(subjects),
            ComparisonResult::Different | ComparisonResult::BuildFailed | ComparisonResult::NotAttempted => Ok(()),
        }
    }

    /// Every rule: docs/attestation.md.
    pub(super) fn writable(&self, subjects: &[Descriptor]) -> Result<(), StatementError> {
        let rule = |field, holds: bool, rule: &str| match holds {
            true => Ok(()),
            false => Err(StatementError::Rule { field, rule: format!("{rule} ({})", self.result.as_str()) }),
        };
        use ComparisonResult::{BuildFailed, Different, Equivalent, Identical, NotAttempted};
        let wanted: &[Status] = match self.result {
            Identical | Equivalent | Different => &[Status::Built],
            BuildFailed => &[Status::Failed, Status::TimedOut],
            NotAttempted => &[Status::Unavailable],
        };
        rule("outcome", wanted.contains(&self.outcome), "it must be the one that the result is of")?;
        rule("rebuilder.id", is_uri(&self.rebuilder.id), "a URI is required")?;
        let descriptors = self.produced.iter().map(|d| ("produced", d));
        let others = [("recipe", Some(&self.recipe)), ("expected", self.expected.as_ref())];
        let more = [("provenance", self.provenance.as_ref()), ("log", self.log.as_ref())];
        let named = others.into_iter().chain(more).filter_map(|(name, d)| d.map(|d| (name, d)));
        for (name, descriptor) in named.chain(descriptors) {
            descriptor.sound(name)?;
        }
        let built = self.outcome == Status::Built;
        rule("produced", built != self.produced.is_empty(), "it is required if something was built, and only then")?;
        let sha256 = |d: &Descriptor| d.digest.sha256().is_some();
        rule("produced", self.produced.iter().all(sha256), "a sha256 is required of each")?;
        let linked = self.provenance.as_ref().is_some_and(sha256);
        rule(
            "provenance",
            linked == built,
            "the envelope id of the provenance is required if something was built, and only then",
        )?;
        rule(
            "reason",
            built != self.reason.as_ref().is_some_and(|r| !r.is_empty()),
            "it is required unless something was built",
        )?;
        rule("attempts", !built || self.attempts > 0, "at least one is required if something was built")?;
        let lines = self.differences.as_ref().map_or(0, |d| d.summary.len());
        rule("differences.summary", lines <= SUMMARY, "at most 20 lines")?;
        let set = self.normalised_digest.as_ref();
        let normalised = set.is_some_and(|digest| digest.sha256().is_some());
        rule(
            "normalisers",
            (self.result == Equivalent) != self.normalisers.is_empty(),
            "one at least if equivalent, none otherwise",
        )?;
        rule(
            "normalisedDigest",
            (self.result == Equivalent) == normalised,
            "a sha256 is required if equivalent, none otherwise",
        )?;
        if !built {
            return Ok(());
        }
        let Some(expected) = &self.expected else {
            return rule("expected", false, "a reference is required if something was built");
        };
        let same = |d: &Descriptor| d.digest.matches(&expected.digest) == Match::Same;
        rule("subject", subjects.iter().any(same), "it must be the reference")?;
        rule(
            "produced",
            self.produced.iter().any(same) == (self.result == Identical),
            "it is the reference's bytes if identical, and only then",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::{compared, comparison, digest};
    use super::super::{Predicate, Statement};
    use super::*;

    fn refused(change: impl FnOnce(&mut Comparison)) -> &'static str {
        let mut one = comparison();
        change(&mut one);
        match compared(one.clone()).print() {
            Err(StatementError::Rule { field, .. }) => field,
            other => panic!("{other:?}: {one:?}"),
        }
    }

    fn identical(one: &mut Comparison) {
        one.result = ComparisonResult::Identical;
        one.produced = vec![Descriptor::of(digest("published"))];
    }

    fn equivalent(one: &mut Comparison) {
        one.result = ComparisonResult::Equivalent;
        one.normalisers =
            vec![NormaliserUsed { name: "gzip-header".into(), version: "1".into(), digest: digest("kiln") }];
        one.normalised_digest = Some(digest("normalised"));
    }

    fn failed(one: &mut Comparison) {
        one.result = ComparisonResult::BuildFailed;
        one.outcome = Status::TimedOut;
        one.produced = vec![];
        one.provenance = None;
        one.reason = Some("it ran into its deadline".into());
    }

    fn unavailable(one: &mut Comparison) {
        failed(one);
        one.outcome = Status::Unavailable;
        one.result = ComparisonResult::NotAttempted;
    }

    #[test]
    fn every_result_is_written_with_its_facts_and_read_back() {
        for change in [|_: &mut Comparison| (), identical, equivalent, failed, unavailable] {
            let mut one = comparison();
            change(&mut one);
            let statement = compared(one);
            assert_eq!(Statement::parse(&statement.print().unwrap()).unwrap(), statement);
        }
    }

    #[test]
    fn a_result_without_its_facts_is_not_written() {
        assert_eq!(refused(|one| one.outcome = Status::Failed), "outcome");
        assert_eq!(refused(|one| one.rebuilder.id = "me".into()), "rebuilder.id");
        assert_eq!(refused(|one| one.produced.clear()), "produced");
        assert_eq!(
            refused(|one| one.produced[0].digest = DigestSet::default().with("sha512", "0".repeat(128))),
            "produced"
        );
        assert_eq!(refused(|one| one.provenance = None), "provenance");
        assert_eq!(refused(|one| one.expected = None), "expected");
        assert_eq!(refused(|one| one.expected = Some(Descriptor::of(digest("another")))), "subject");
        assert_eq!(refused(|one| one.produced.push(Descriptor::of(digest("published")))), "produced");
        assert_eq!(refused(|one| one.reason = Some("?".into())), "reason");
        assert_eq!(refused(|one| one.attempts = 0), "attempts");
        assert_eq!(
            refused(|one| one.differences.as_mut().unwrap().summary = vec![String::new(); 21]),
            "differences.summary"
        );
        let with = |made: fn(&mut Comparison), change: fn(&mut Comparison)| {
            refused(|one| {
                made(one);
                change(one);
            })
        };
        assert_eq!(with(identical, |one| one.produced = vec![Descriptor::of(digest("other"))]), "produced");
        let normaliser = |one: &mut Comparison| {
            let mut other = comparison();
            equivalent(&mut other);
            one.normalisers = other.normalisers;
        };
        assert_eq!(with(identical, normaliser), "normalisers");
        assert_eq!(with(equivalent, |one| one.normalisers.clear()), "normalisers");
        assert_eq!(with(equivalent, |one| one.normalised_digest = None), "normalisedDigest");
        assert_eq!(with(failed, |one| one.outcome = Status::Unavailable), "outcome");
        assert_eq!(with(failed, |one| one.reason = None), "reason");
        assert_eq!(with(unavailable, |one| one.produced = comparison().produced), "produced");
    }

    #[test]
    fn agreement_without_its_facts_is_not_read_and_disagreement_is() {
        let told = |change: fn(&mut Comparison)| {
            let Statement { subject, .. } = compared(comparison());
            let mut one = comparison();
            change(&mut one);
            Statement { subject, predicate: Predicate::Comparison(Box::new(one)) }
        };
        let read = |statement: &Statement| {
            let Predicate::Comparison(one) = &statement.predicate else { panic!("a comparison") };
            Statement::parse(&statement.written(one).unwrap())
        };
        for bad in [
            told(|one| {
                identical(one);
                one.provenance = None;
            }),
            told(|one| {
                equivalent(one);
                one.normalisers.clear();
            }),
            told(|one| one.result = ComparisonResult::Identical),
        ] {
            assert!(matches!(read(&bad), Err(StatementError::Rule { .. })));
        }
        assert!(read(&told(|one| one.provenance = None)).is_ok());
    }
}
