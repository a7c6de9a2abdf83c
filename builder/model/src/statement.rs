//! in-toto's statement: subjects by digest, and what is said of them.
//!
//! [`Statement::parse`] takes what anybody writes and holds it to the rules on which matching rests (section 3 of the design:
//! names unique, a SHA-256 in each subject, digests in lower-case hex); [`Statement::print`] also refuses what we never write. Unknown members are ignored, which
//! can only make less of a claim; those of `externalParameters` are kept, for there they would make more of it.

pub mod comparison;
pub mod descriptor;
pub mod digest_set;
pub mod provenance;
pub mod summary;
mod time;

use std::collections::BTreeSet;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::canonical::{self, CanonicalError, Document, Item, Limits};

pub use comparison::{Comparison, ComparisonResult};
pub use descriptor::Descriptor;
pub use digest_set::{DigestSet, DigestSetError, Match};
pub use provenance::Provenance;
pub use summary::Summary;

/// Root of every URI of ours. Signed into every statement.
pub const KILN_URI: &str = "https://kiln.build";

/// The `_type` of every statement.
pub const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";

/// A claim about artifacts.
#[derive(Debug, Clone, PartialEq)]
pub struct Statement {
    /// What it is about. At least one.
    pub subject: Vec<Descriptor>,
    /// What it says.
    pub predicate: Predicate,
}

/// What a statement says.
#[derive(Debug, Clone, PartialEq)]
pub enum Predicate {
    /// How the subjects were built: SLSA provenance.
    Provenance(Box<Provenance>),
    /// How what was rebuilt compares with the subject.
    Comparison(Box<Comparison>),
    /// What a verifier found: SLSA's verification summary.
    Summary(Box<Summary>),
    /// Somebody else's.
    Other {
        /// `predicateType`.
        kind: String,
        /// `predicate`.
        value: serde_json::Value,
    },
}

/// Why a statement is not taken, or not written.
#[derive(Debug, thiserror::Error)]
pub enum StatementError {
    /// The envelope says that its payload is something else.
    #[error("the payload is {found:?}: expected {:?}", crate::envelope::PAYLOAD_TYPE)]
    PayloadType {
        /// What it says.
        found: String,
    },
    /// Not strict JSON, or of another form.
    #[error("reading a statement")]
    Json {
        /// What is wrong.
        #[source]
        source: CanonicalError,
    },
    /// A value that cannot be written canonically.
    #[error("writing a statement")]
    Written {
        /// What is wrong.
        #[source]
        source: CanonicalError,
    },
    /// Another `_type`.
    #[error("_type is {found:?}: expected {STATEMENT_TYPE:?}")]
    Type {
        /// What stands there.
        found: String,
    },
    /// Nothing that it is about.
    #[error("subject is empty: a statement about nothing says nothing")]
    NoSubject,
    /// Two subjects of one name.
    #[error("two subjects are named {name:?}")]
    SameName {
        /// The name.
        name: String,
    },
    /// A subject without a digest that can be relied on.
    #[error("subject {name:?} has no sha256: other algorithms alone are not relied on")]
    NoSha256 {
        /// Its name.
        name: String,
    },
    /// A digest that is none.
    #[error("digest of {of}")]
    Digest {
        /// Of what.
        of: String,
        /// What is wrong.
        #[source]
        source: DigestSetError,
    },
    /// A descriptor that says nothing.
    #[error("{of} has neither uri, digest nor content")]
    Empty {
        /// Which.
        of: String,
    },
    /// A rule of the predicate that does not hold.
    #[error("{field}: {rule}")]
    Rule {
        /// The field.
        field: &'static str,
        /// What must hold.
        rule: String,
    },
}

#[derive(Serialize)]
struct Written<'a, P> {
    #[serde(rename = "_type")]
    kind: &'static str,
    subject: &'a [Descriptor],
    #[serde(rename = "predicateType")]
    predicate_type: &'a str,
    predicate: &'a P,
}

/// A statement that was read once, and is understood as far as need be.
#[derive(Debug)]
pub(crate) struct Payload<'t>(Document<'t>);

impl<'t> Payload<'t> {
    /// The payload that `bytes` are. Verify them first.
    pub(crate) fn read(bytes: &'t [u8]) -> Result<Self, StatementError> {
        Document::read(bytes, Limits::ENVELOPE).map(Self).map_err(|source| StatementError::Json { source })
    }

    /// What is said of the subjects, by its `predicateType`.
    pub(crate) fn predicate_type(&self) -> Result<String, StatementError> {
        let kind: String = self.member("_type")?;
        if kind != STATEMENT_TYPE {
            return Err(StatementError::Type { found: kind });
        }
        self.member("predicateType")
    }

    /// Provenance as far as a verifier needs it.
    pub(crate) fn provenance(&self) -> Result<(Vec<Descriptor>, provenance::Brief<'t>), StatementError> {
        let subject: Vec<Descriptor> = self.member("subject")?;
        sound(&subject, Revisions::Refused)?;
        let predicate = self.0.root().member("predicate").ok_or_else(|| missing("predicate"))?;
        Ok((subject, provenance::Brief::read(predicate)?))
    }

    /// All of it.
    pub(crate) fn statement(&self) -> Result<Statement, StatementError> {
        let kind = self.predicate_type()?;
        let predicate = match kind.as_str() {
            provenance::TYPE => Predicate::Provenance(Box::new(self.member("predicate")?)),
            comparison::TYPE => Predicate::Comparison(Box::new(self.member("predicate")?)),
            summary::TYPE => Predicate::Summary(Box::new(self.member("predicate")?)),
            _ => Predicate::Other { kind, value: self.member("predicate")? },
        };
        let statement = Statement { subject: self.member("subject")?, predicate };
        statement.sound()?;
        Ok(statement)
    }

    /// As any JSON.
    pub(crate) fn value(&self) -> Option<serde_json::Value> {
        self.0.root().read().ok()
    }

    fn member<T: DeserializeOwned>(&self, name: &'static str) -> Result<T, StatementError> {
        let item: Item<'_, 't> = self.0.root().member(name).ok_or_else(|| missing(name))?;
        item.read().map_err(|source| StatementError::Json { source })
    }
}

fn missing(name: &'static str) -> StatementError {
    let source = serde::de::Error::missing_field(name);
    StatementError::Json { source: CanonicalError::Form { source } }
}

/// Whether a revision of sources may be a subject: it has no file to digest (SLSA, Source track).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Revisions {
    Refused,
    Taken,
}

/// What must hold of subjects whoever wrote them.
fn sound(subjects: &[Descriptor], revisions: Revisions) -> Result<(), StatementError> {
    if subjects.is_empty() {
        return Err(StatementError::NoSubject);
    }
    let mut names = BTreeSet::new();
    for (index, subject) in subjects.iter().enumerate() {
        subject.sound(&format!("subject {index}"))?;
        if let Some(name) = &subject.name
            && !names.insert(name)
        {
            return Err(StatementError::SameName { name: name.clone() });
        }
        let revision = revisions == Revisions::Taken && subject.digest.contains(digest_set::GIT_COMMIT);
        if !subject.digest.contains(digest_set::SHA256) && !revision {
            return Err(StatementError::NoSha256 { name: subject.named() });
        }
    }
    Ok(())
}

impl Statement {
    /// The statement that `bytes` are. Verify them first.
    pub fn parse(bytes: &[u8]) -> Result<Self, StatementError> {
        Payload::read(bytes)?.statement()
    }

    /// The canonical bytes, if it is one that we write.
    pub fn print(&self) -> Result<Vec<u8>, StatementError> {
        self.sound()?;
        for subject in &self.subject {
            if !subject.digest.contains(digest_set::SHA256) {
                return Err(StatementError::NoSha256 { name: subject.named() });
            }
        }
        let bytes = match &self.predicate {
            Predicate::Provenance(provenance) => {
                provenance.writable()?;
                self.written(provenance)
            }
            Predicate::Comparison(comparison) => {
                comparison.writable(&self.subject)?;
                self.written(comparison)
            }
            Predicate::Summary(summary) => {
                summary.writable()?;
                self.written(summary)
            }
            Predicate::Other { value, .. } => self.written(value),
        };
        bytes.map_err(|source| StatementError::Written { source })
    }

    fn written<P: Serialize>(&self, predicate: &P) -> Result<Vec<u8>, CanonicalError> {
        let predicate_type = self.predicate.kind();
        canonical::print(&Written { kind: STATEMENT_TYPE, subject: &self.subject, predicate_type, predicate })
    }

    /// What must hold whoever wrote it.
    fn sound(&self) -> Result<(), StatementError> {
        let revisions = match &self.predicate {
            Predicate::Summary(_) => Revisions::Taken,
            Predicate::Provenance(_) | Predicate::Comparison(_) | Predicate::Other { .. } => Revisions::Refused,
        };
        sound(&self.subject, revisions)?;
        match &self.predicate {
            Predicate::Provenance(provenance) => provenance.sound(),
            Predicate::Comparison(comparison) => comparison.sound(&self.subject),
            Predicate::Summary(summary) => summary.sound(),
            Predicate::Other { .. } => Ok(()),
        }
    }
}

impl Predicate {
    /// Its `predicateType`.
    pub fn kind(&self) -> &str {
        match self {
            Self::Provenance(_) => provenance::TYPE,
            Self::Comparison(_) => comparison::TYPE,
            Self::Summary(_) => summary::TYPE,
            Self::Other { kind, .. } => kind,
        }
    }
}

#[cfg(test)]
pub(crate) mod samples;

#[cfg(test)]
mod tests {
    use super::samples::{built, compared, comparison};
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn changed(statement: &Statement, change: impl FnOnce(&mut Value)) -> Result<Statement, StatementError> {
        let mut value: Value = serde_json::from_slice(&statement.print().unwrap()).unwrap();
        change(&mut value);
        Statement::parse(value.to_string().as_bytes())
    }

    #[test]
    fn a_printed_statement_parses_back_to_itself() {
        for statement in [built(), compared(comparison())] {
            assert_eq!(Statement::parse(&statement.print().unwrap()).unwrap(), statement);
        }
        let other = Predicate::Other { kind: "https://example.org/x".into(), value: json!({"a": [1]}) };
        let other = Statement { predicate: other, ..built() };
        assert_eq!(Statement::parse(&other.print().unwrap()).unwrap(), other);
    }

    #[test]
    fn names_are_unique_and_every_subject_has_a_sha256() {
        assert!(matches!(changed(&built(), |s| s["subject"] = json!([])), Err(StatementError::NoSubject)));
        let twice = changed(&built(), |s| {
            let mut second = s["subject"][0].clone();
            second["digest"]["sha256"] = "0".repeat(64).into();
            s["subject"].as_array_mut().unwrap().push(second);
        });
        assert!(matches!(twice, Err(StatementError::SameName { .. })));
        let weak = changed(&built(), |s| s["subject"][0]["digest"] = json!({"sha1": "0".repeat(40)}));
        assert!(matches!(weak, Err(StatementError::NoSha256 { .. })));
        let capitals = changed(&built(), |s| s["subject"][0]["digest"]["sha256"] = "A".repeat(64).into());
        assert!(matches!(capitals, Err(StatementError::Digest { .. })));
        let commit = changed(&built(), |s| s["subject"][0]["digest"] = json!({"gitCommit": "0".repeat(40)}));
        assert!(matches!(commit, Err(StatementError::NoSha256 { .. })), "only a summary may be about a commit alone");
    }

    #[test]
    fn another_type_or_an_ambiguous_document_is_refused() {
        let other = changed(&built(), |s| s["_type"] = "https://in-toto.io/Statement/v0.1".into());
        assert!(matches!(other, Err(StatementError::Type { .. })));
        let text = String::from_utf8(built().print().unwrap()).unwrap();
        let twice = text.replacen("\"predicate\":", "\"predicate\":{},\"predicate\":", 1);
        assert!(matches!(Statement::parse(twice.as_bytes()), Err(StatementError::Json { .. })));
        assert!(Statement::parse(b"[]").is_err());
    }

    #[test]
    fn unknown_members_are_ignored_but_those_of_external_parameters_are_kept() {
        let more = changed(&built(), |s| {
            s["unknown"] = json!(1);
            s["predicate"]["unknown"] = json!({"x": 1.5});
            s["predicate"]["buildDefinition"]["externalParameters"]["more"] = json!(true);
        });
        let more = more.unwrap();
        let Predicate::Provenance(provenance) = &more.predicate else { panic!("{more:?}") };
        assert_eq!(provenance.build_definition.unknown_parameters(), BTreeSet::from(["more"]));
        assert!(matches!(more.print(), Err(StatementError::Rule { field: "externalParameters", .. })));
    }

    #[test]
    fn the_printed_bytes_of_each_predicate_do_not_move() {
        let summary = Predicate::Summary(Box::new(summary::tests::passed()));
        let printed = [built(), compared(comparison()), Statement { predicate: summary, ..built() }];
        for (statement, expected) in printed.iter().zip(GOLDEN) {
            let bytes = statement.print().unwrap();
            let text = String::from_utf8(bytes.clone()).unwrap();
            assert_eq!(crate::digest::Digest::of(&bytes).to_string(), *expected, "{text}");
        }
    }

    /// Digests of what is printed above: a changed one is a break of a format.
    const GOLDEN: &[&str] = &[
        "53e7ebc82ae4b78aa262caded36ae380b3567e10825a73873a8665b0fa547a9a",
        "17be063840ff8eee74e5d93ec43520f6d89f5319dfa6542f8628eceefe687613",
        "6736d2252a135f016f84cfec230f59fbaad81c6cd6ea69617ac33f2d5a3778b4",
    ];

    proptest! {
        #[test]
        fn every_statement_is_read_back_from_what_is_printed(
            name in ".{0,20}", uri in proptest::option::of("[a-z]{1,5}:[ -~]{1,20}"), seed in any::<u64>(),
            licence in proptest::option::of(".{0,20}"), started in 0..1_u64 << 34, length in 0..1_u64 << 20,
        ) {
            let digest = |n: u64| DigestSet::of(crate::digest::Digest::of((seed ^ n).to_be_bytes()));
            let mut one = samples::provenance();
            let mut input = Descriptor { uri, ..Descriptor::of(digest(1)) };
            if let Some(licence) = licence {
                input = input.noting("license", licence);
            }
            one.build_definition.resolved_dependencies.push(input);
            one.run_details.metadata.started_on = Some(crate::outcome::Moment::from_unix(started));
            one.run_details.metadata.finished_on = Some(crate::outcome::Moment::from_unix(started + length));
            let statement = Statement {
                subject: vec![Descriptor::of(digest(2)).named_as(name)],
                predicate: Predicate::Provenance(Box::new(one)),
            };
            let bytes = statement.print().unwrap();
            let again = Statement::parse(&bytes).unwrap();
            prop_assert_eq!(again.print().unwrap(), bytes);
            prop_assert_eq!(again, statement);
        }
    }

    #[test]
    fn what_has_no_canonical_form_is_not_written() {
        for value in [json!(0.5), json!(1_u64 << 53)] {
            let other = Predicate::Other { kind: "https://example.org/x".into(), value };
            let other = Statement { predicate: other, ..built() };
            assert!(matches!(other.print(), Err(StatementError::Written { .. })));
        }
    }
}
