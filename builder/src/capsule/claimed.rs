//! What somebody signed of a build, read without belief: which derivation, what came out, and the texts that it was made from.
//!
//! A [`Claim`] is what is to be tried, so no key is asked for: whoever signed it, the answer is this machine's own build. Names and
//! digests alone are taken from it; names have one meaning each (`kiln_model::format::capsule::Place`), and bytes are held
//! against their digests. [`hold`] builds, and holds what came out against claims as against anything that was published.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use kiln_model::digest::Digest;
use kiln_model::envelope::{Envelope, PAYLOAD_TYPE};
use kiln_model::format::base64;
use kiln_model::format::bundle::Bundle;
use kiln_model::format::capsule::Place;
use kiln_model::outcome::{Outcome, Status};
use kiln_model::report::{About, EnvironmentKind, Explained, Rebuilt, Report};
use kiln_model::statement::provenance::BUILD_TYPE;
use kiln_model::statement::{Descriptor, Predicate, Provenance, Statement};
use kiln_model::store_path::StorePath;
use kiln_model::variation::Conditions;
use kiln_model::verdict::{self, Identity, Reference, Seen, Subject, Verdict};

use super::error::CapsuleError;
use crate::build::graph::Graph;
use crate::build::{BuildError, Builder};
use crate::event::{self, Level};
use crate::rebuild::{CheckError, differences};
use crate::sign::NAR;

/// Name in a report of what a claim says, among the places that references come from.
const ORIGIN: &str = "attestation";
/// Bytes of a subject's name.
const LONGEST_NAME: usize = 255;

/// What is said to have come out of a derivation.
#[derive(Debug, Clone)]
pub(super) struct Claim {
    /// Store path of the derivation.
    pub(super) derivation: String,
    /// What came out.
    subjects: BTreeMap<Subject, Digest>,
    /// Who says so, by its own word.
    builder: String,
    /// Recipes and locks that it carries, by their places below `recipes`.
    pub(super) texts: BTreeMap<String, Vec<u8>>,
    /// Derivations that it carries.
    pub(super) derivations: BTreeMap<StorePath, Vec<u8>>,
    /// Digests of every input that it names.
    pub(super) inputs: BTreeSet<Digest>,
    /// As it was read.
    pub(super) bytes: Vec<u8>,
}

impl Claim {
    /// The claim in an envelope or a bundle; `from` is what errors name.
    pub(super) fn read(bytes: &[u8], from: &Path) -> Result<Self, CapsuleError> {
        let statement = statement(bytes, from)?;
        let Predicate::Provenance(provenance) = &statement.predicate else {
            return Err(lacks(from, instead(&statement.predicate)));
        };
        let definition = &provenance.build_definition;
        if definition.build_type != BUILD_TYPE {
            let found: String = definition.build_type.chars().take(120).collect();
            return Err(lacks(
                from,
                format!("its buildType is {found:?}: expected {BUILD_TYPE:?}, which kiln can run again"),
            ));
        }
        let derivation = definition.internal_parameters.get("derivation").and_then(|value| value.as_str());
        let derivation = derivation.ok_or_else(|| {
            lacks(from, "internalParameters.derivation is missing: nobody can say which build it was".into())
        })?;
        let subjects =
            statement.subject.iter().map(|one| subject(one, from)).collect::<Result<BTreeMap<_, _>, CapsuleError>>()?;
        let (texts, derivations) = texts(provenance, from)?;
        Ok(Self {
            derivation: derivation.into(),
            subjects,
            builder: provenance.run_details.builder.id.chars().filter(|c| !c.is_control()).take(200).collect(),
            texts,
            derivations,
            inputs: definition.resolved_dependencies.iter().filter_map(|one| one.digest.sha256()).collect(),
            bytes: bytes.to_vec(),
        })
    }

    fn reference(&self) -> Reference {
        let identity = |exact: &Digest| Identity { exact: *exact, normalised: None };
        Reference::Published(self.subjects.iter().map(|(subject, exact)| (subject.clone(), identity(exact))).collect())
    }

    /// What is told of a rebuild for `target`, before anything was built.
    pub(super) fn rebuilt(&self, target: &str) -> Rebuilt {
        let note = format!(
            "held against what {} says; no key was asked: `kiln verify` judges who may be believed",
            self.builder
        );
        Rebuilt { environment: EnvironmentKind::Recorded, notes: vec![note], ..Rebuilt::new(target.into()) }
    }

    /// What its report is about.
    pub(super) fn about(&self, title: String) -> About {
        About { title, recipe: None, derivation: Some(self.derivation.clone()), origin: Some(ORIGIN.into()) }
    }
}

/// Whether `bytes` are a statement of provenance, as far as can be seen without reading all of it.
pub(super) fn statement(bytes: &[u8], from: &Path) -> Result<Statement, CapsuleError> {
    let malformed = |error: &dyn std::error::Error| CapsuleError::NoStatement { path: from.into(), why: chain(error) };
    let envelope = match memchr::memmem::find(bytes, b"\"dsseEnvelope\"") {
        Some(_) => Bundle::parse(bytes).map_err(|error| malformed(&error))?.envelope,
        None => Envelope::parse(bytes).map_err(|error| malformed(&error))?,
    };
    if envelope.payload_type() != PAYLOAD_TYPE {
        let found: String = envelope.payload_type().chars().take(120).collect();
        return Err(CapsuleError::NoStatement { path: from.into(), why: format!("its payload is {found:?}") });
    }
    Statement::parse(envelope.payload()).map_err(|error| malformed(&error))
}

/// What a statement that is no provenance would need beside it.
pub(super) fn instead(predicate: &Predicate) -> String {
    match predicate {
        Predicate::Comparison(comparison) => match comparison.provenance.as_ref().and_then(|one| one.digest.sha256()) {
            Some(id) => format!("it is a comparison and names no inputs: give the provenance that it links, {id}.json"),
            None => "it is a comparison of a build that made nothing: it names no inputs, and has no provenance".into(),
        },
        Predicate::Provenance(_) | Predicate::Summary(_) | Predicate::Other { .. } => {
            let kind: String = predicate.kind().chars().take(120).collect();
            format!("it is a {kind:?}, which names no inputs: give the provenance of the build")
        }
    }
}

fn lacks(from: &Path, what: String) -> CapsuleError {
    CapsuleError::Lacks { path: from.into(), what }
}

fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// `NAME.nar` that is said to be an archive stands for an output, whatever else for a file.
fn subject(one: &Descriptor, from: &Path) -> Result<(Subject, Digest), CapsuleError> {
    let name = one.name.as_deref().unwrap_or_default();
    if name.is_empty() || name.len() > LONGEST_NAME || name.contains(|c: char| c.is_control() || c == '/') {
        return Err(lacks(from, "a subject has no name, or none that an output or a file can have".into()));
    }
    let digest = one.digest.sha256().ok_or_else(|| lacks(from, format!("subject {name} has no sha256")))?;
    let output = name.strip_suffix(".nar").filter(|_| one.media_type.as_deref() == Some(NAR));
    let subject = match output {
        Some(output) => Subject::Output(output.into()),
        None => Subject::File(name.into()),
    };
    Ok((subject, digest))
}

/// Recipes and locks by their places, and derivations.
type Carried = (BTreeMap<String, Vec<u8>>, BTreeMap<StorePath, Vec<u8>>);

/// What a statement carries among its byproducts.
fn texts(provenance: &Provenance, from: &Path) -> Result<Carried, CapsuleError> {
    let (mut texts, mut derivations) = (BTreeMap::new(), BTreeMap::new());
    for one in &provenance.run_details.byproducts {
        let (Some(name), Some(content)) = (&one.name, &one.content) else { continue };
        let Ok(place @ (Place::Recipe(_) | Place::Derivation(_))) = name.parse::<Place>() else { continue };
        let malformed = |why: String| CapsuleError::NoStatement { path: from.into(), why };
        let bytes =
            base64::decode(content.as_bytes()).ok_or_else(|| malformed(format!("content of {name} is no base64")))?;
        let found = Digest::of(&bytes);
        match one.digest.sha256() {
            Some(expected) if expected == found => {}
            Some(expected) => {
                let what = format!("content of {name} has the sha256 {found}, and its digest says {expected}");
                return Err(CapsuleError::Contradiction { path: from.into(), what });
            }
            None => return Err(malformed(format!("{name} has no sha256"))),
        }
        let before = match place {
            Place::Recipe(place) => texts.insert(place, bytes),
            Place::Derivation(path) => derivations.insert(path, bytes),
            Place::Outcome | Place::Statement | Place::File(_) | Place::Tree(_) => None,
        };
        if before.is_some() {
            return Err(malformed(format!("{name} is there twice")));
        }
    }
    Ok((texts, derivations))
}

/// Builds the node, a second time if the first build does not agree with a claim, and reports for each claim.
pub(super) fn hold(
    builder: &Builder<'_>,
    (graph, index): (&Graph, usize),
    claims: &[Claim],
    target: &str,
) -> Result<Vec<Report>, CheckError> {
    builder.needs(graph, index)?;
    let node = &graph.nodes[index];
    let provided = builder.provide(graph, index)?;
    let conditions = Conditions::control(builder.settings.cores);
    let once = || -> Result<Outcome, BuildError> {
        let run = builder.run(node, &provided, &conditions, &|| ())?;
        if run.outcome.status == Status::Built {
            builder.register(node, &provided, &run)?;
        }
        Ok(run.outcome)
    };
    event::say(builder.events, Level::Note, format!("building {}", node.title()));
    let mut outcomes = vec![once()?];
    let disagrees = |claim: &Claim| {
        let seen: Vec<Seen> = outcomes.iter().map(Seen::from).collect();
        verdict::judge(&seen, &claim.reference()).verdict == Verdict::Inconclusive
    };
    // Nothing is said against anybody on the word of one build.
    if outcomes[0].status == Status::Built && claims.iter().any(disagrees) {
        event::say(
            builder.events,
            Level::Note,
            format!("building {} again: it is not what was attested", node.title()),
        );
        outcomes.push(once()?);
    }
    let found = differences(builder, &outcomes)?;
    let report = |claim: &Claim| {
        let mut report = Report::of(claim.about(node.title()), outcomes.clone(), &claim.reference(), found.clone());
        let explained = match report.verdict {
            Verdict::UpstreamDiffers | Verdict::Diverged if !report.causes.is_empty() => Explained::Suspected,
            _ => Explained::No,
        };
        report.rebuild = Some(Rebuilt { explained, ..claim.rebuilt(target) });
        report
    };
    Ok(claims.iter().map(report).collect())
}
