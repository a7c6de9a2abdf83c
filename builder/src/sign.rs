//! Statements about what this store saw, signed.
//!
//! The signer is a process that runs no recipe's code and opens no sandbox. It takes nothing on a build's word: outcomes come
//! from the records that the building process filed, outputs are hashed again, inputs come from recipe and lock. An outcome that
//! has no record is not signed. The same records give the same bytes; only what was never attempted has no time of its own and
//! takes the signer's. What a statement may say is decided in `kiln_model::statement`.

pub mod also;
mod comparing;
mod dependencies;
mod digests;
pub mod key_file;
mod provenance;
mod recorded;
pub mod svid;
mod written;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use kiln_model::digest::Digest;
use kiln_model::format::bundle::BundleError;
use kiln_model::format::purl::PurlError;
use kiln_model::key::{KeyError, SecretKey, SvidError};
use kiln_model::outcome::{Moment, Outcome, Status};
use kiln_model::report::Report;
use kiln_model::statement::provenance::Signer as Where;
use kiln_model::statement::{Descriptor, Predicate, StatementError};

use crate::build::graph::{Graph, Node};
use crate::exit::Kind;
use crate::nix::DumpError;
use crate::store::{Store, StoreError};

pub(crate) use digests::NAR;
pub use written::{Written, separation, write};

/// Who signs, and what is said in every statement.
pub struct Signer<'a> {
    /// Where the records are.
    pub store: &'a Store,
    /// The key.
    pub key: &'a SecretKey,
    /// The rebuilder's URI.
    pub builder: String,
    /// This program.
    pub kiln: Digest,
    /// Whether builds could not reach the key.
    pub separation: Where,
    /// What time it is.
    pub now: Moment,
    /// Where the recipe is published.
    pub published: Published,
    /// Whether provenance carries recipe and lock.
    pub texts: Texts,
}

/// Whether provenance carries recipe and lock, so that it alone says how to build again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Texts {
    /// It does.
    Carried,
    /// It names them by digest.
    LeftOut,
}

/// Where a recipe is published, as far as whoever signs says.
#[derive(Debug, Clone, Default)]
pub struct Published {
    /// `git+https://…@REF#PATH`, or a purl.
    pub uri: Option<String>,
    /// The commit that has it.
    pub commit: Option<String>,
    /// What the caller gave to the build, by name.
    pub parameters: BTreeMap<String, String>,
}

/// Why nothing is signed.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// A key file that holds none.
    #[error("reading the key {}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: KeyError,
    },
    /// Certificates that are no SVID.
    #[error("reading the certificates {}", path.display())]
    Svid {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: SvidError,
    },
    /// A key that the certificate is not about.
    #[error("{} is not the key of the certificate {}: give the two that were issued together", path.display(), certificate.display())]
    OtherKey {
        /// The key.
        path: PathBuf,
        /// The certificate.
        certificate: PathBuf,
    },
    /// A certificate whose time has not come, or is over.
    #[error("the certificate {} is not valid at {now}: have a new one issued", path.display())]
    NotValid {
        /// The file.
        path: PathBuf,
        /// When.
        now: Moment,
    },
    /// A statement that makes no bundle.
    #[error("the bundle of {name}")]
    Bundle {
        /// Which.
        name: String,
        /// What is wrong.
        source: Box<BundleError>,
    },
    /// A key that others can read.
    #[error("others than its owner can read {}: it is no secret; run `chmod 600 {}`, or make a new key", path.display(), path.display())]
    Open {
        /// The file.
        path: PathBuf,
    },
    /// A file cannot be read or written.
    #[error("{act} {}", path.display())]
    Io {
        /// What was tried.
        act: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// What was built is not there to be hashed.
    #[error("output {output} of {derivation} is not in the store any more: build it again to sign for it")]
    Gone {
        /// The output.
        output: String,
        /// Of what.
        derivation: String,
    },
    /// What lies in the store is not what was built.
    #[error("{what} of {derivation} has another digest than its outcome recorded: the store was altered")]
    Altered {
        /// The output or artifact.
        what: String,
        /// Of what.
        derivation: String,
    },
    /// Nothing of it was built or tried here.
    #[error("{target} has no outcome in this store: build it here; a signer signs for its own builds alone")]
    NoOutcome {
        /// What was asked for.
        target: String,
    },
    /// An outcome that this store did not see.
    #[error("outcome {index} of {title} has no record in this store: a signer signs for its own builds alone")]
    NotRecorded {
        /// Which.
        index: usize,
        /// Of which report.
        title: String,
    },
    /// A recipe that makes another derivation by now.
    #[error("{recipe} makes {found} now, and {expected} was built: give the recipe of that build with --recipe")]
    OtherRecipe {
        /// The recipe.
        recipe: String,
        /// Its derivation.
        found: String,
        /// The one that was built.
        expected: String,
    },
    /// A record that cannot be read.
    #[error("the record {id} of {derivation} is of another kiln")]
    Record {
        /// Its name.
        id: String,
        /// Of what.
        derivation: String,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// A statement that breaks a rule.
    #[error("the statement about {subject}")]
    Statement {
        /// About what.
        subject: String,
        /// Which rule.
        source: Box<StatementError>,
    },
    /// A name that has no package URL.
    #[error(transparent)]
    Purl(#[from] PurlError),
    /// A tree cannot be hashed.
    #[error("hashing output {output}")]
    Dump {
        /// The output.
        output: String,
        /// Why not.
        source: DumpError,
    },
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl SignError {
    /// Who has to act on it.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Key { .. }
            | Self::Svid { .. }
            | Self::OtherKey { .. }
            | Self::NotValid { .. }
            | Self::Bundle { .. }
            | Self::Open { .. }
            | Self::Gone { .. }
            | Self::NoOutcome { .. }
            | Self::NotRecorded { .. }
            | Self::OtherRecipe { .. }
            | Self::Record { .. }
            | Self::Statement { .. }
            | Self::Purl(_) => Kind::BadInput,
            Self::Altered { .. } => Kind::Tampered,
            Self::Dump { .. } => Kind::Host,
            Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => Kind::BadInput,
            Self::Io { .. } => Kind::Host,
            Self::Store(error) => error.kind(),
        }
    }
}

pub(crate) fn io(act: &'static str, path: &Path) -> impl FnOnce(io::Error) -> SignError {
    let path = path.to_path_buf();
    move |source| SignError::Io { act, path, source }
}

/// What was built: a node of a graph that holds all it needs.
#[derive(Debug, Clone, Copy)]
pub struct Built<'a> {
    /// The graph.
    pub graph: &'a Graph,
    /// The node.
    pub index: usize,
}

impl<'a> Built<'a> {
    fn node(self) -> &'a Node {
        &self.graph.nodes[self.index]
    }
}

/// A build that this store has seen: its outcome, and the name of its record.
#[derive(Debug, Clone)]
pub struct Recorded {
    /// Names this run and no other.
    pub id: String,
    /// What was seen.
    pub outcome: Outcome,
}

impl Signer<'_> {
    /// The last outcome of `node` in the store's records, signed: provenance if it was built, and what became of it if not.
    pub fn latest(&self, of: Built<'_>) -> Result<Vec<Written>, SignError> {
        let node = of.node();
        let found = recorded::latest(self.store, &node.path)?;
        let recorded = found.ok_or_else(|| SignError::NoOutcome { target: node.shown.display().to_string() })?;
        self.outcome(of, &recorded)
    }

    /// One outcome as a file has it, if the store has a record of it.
    pub fn told(&self, of: Built<'_>, outcome: &Outcome) -> Result<Vec<Written>, SignError> {
        let node = of.node();
        let missing = || SignError::NotRecorded { index: 0, title: node.title() };
        let recorded = recorded::find(self.store, &node.path, outcome)?.ok_or_else(missing)?;
        self.outcome(of, &recorded)
    }

    fn outcome(&self, of: Built<'_>, recorded: &Recorded) -> Result<Vec<Written>, SignError> {
        let node = of.node();
        let stem = node.derivation.name.to_string();
        match recorded.outcome.status {
            Status::Built => Ok(vec![self.provenance(of, recorded, &stem)?]),
            Status::Failed | Status::TimedOut | Status::Unavailable => {
                let facts = comparing::Facts::alone(node, recorded);
                Ok(vec![self.comparison(&facts, format!("{stem}.comparison"))?])
            }
        }
    }

    /// All outcomes of `report`, signed: provenance for each that was built, and how each compares with what was published,
    /// or else with the control. `whole` is the report's own document.
    pub fn report(&self, of: Built<'_>, report: &Report, whole: Digest) -> Result<Vec<Written>, SignError> {
        let node = of.node();
        let stem = node.derivation.name.to_string();
        let mut seen = Vec::new();
        let mut written = Vec::new();
        for (index, outcome) in report.outcomes.iter().enumerate() {
            if outcome.status == Status::Unavailable {
                seen.push((Recorded { id: String::new(), outcome: outcome.clone() }, None));
                continue;
            }
            let missing = || SignError::NotRecorded { index, title: report.title.clone() };
            let mut recorded = recorded::find(self.store, &node.path, outcome)?.ok_or_else(missing)?;
            // What was varied is known only once a control and its companion are held against each other.
            recorded.outcome.conditions.clone_from(&outcome.conditions);
            let mut link = None;
            if outcome.status == Status::Built {
                let name = if index == 0 { stem.clone() } else { format!("{stem}.{}", index + 1) };
                let one = self.provenance(of, &recorded, &name)?;
                link = Some(one.envelope.id());
                written.push(one);
            }
            seen.push((recorded, link));
        }
        for (facts, name) in comparing::facts(node, report, &seen, whole) {
            written.push(self.comparison(&facts, format!("{stem}.{name}.comparison"))?);
        }
        Ok(written)
    }

    /// Signs `predicate` about `subject`.
    fn sign(&self, subject: Vec<Descriptor>, predicate: Predicate, name: String) -> Result<Written, SignError> {
        let statement = kiln_model::statement::Statement { subject, predicate };
        let wrong = |source| SignError::Statement { subject: name.clone(), source: Box::new(source) };
        let payload = statement.print().map_err(wrong)?;
        let envelope = kiln_model::envelope::Envelope::sign(payload, self.key);
        Ok(Written { name, statement, envelope })
    }
}
