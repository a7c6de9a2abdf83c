//! Attestation → build: from what a stranger signed to what it takes to try it, all of it found before anything is built.
//!
//! Recipe and lock come out of the statement, or from the directory that the user names; whatever they are, they must make the
//! very derivation that was attested, and every file of the lock must be named in the statement. Inputs come from the store or
//! from the user's mirrors by digest. A tree beside the recipe is taken from a directory that the *user* named, never from one
//! that the statement names, and so is a repository that is no web address.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use kiln_model::digest::Digest;
use kiln_model::format::bundle;
use kiln_model::lock::LockedInput;
use kiln_model::report::{Differences, Missing, Rebuilt, Report};
use kiln_model::store_path::StorePath;
use kiln_model::verdict::Reference;

use super::claimed::{self, Claim};
use super::create::{Created, Said, create};
use super::error::{CapsuleError, io};
use super::sources::Rests;
use super::texts;
use crate::build::graph::{Graph, Locked, Origin};
use crate::build::{BuildError, Builder, provide};
use crate::event::{self, Level};
use crate::fetch::Wanted;
use crate::rebuild::{CheckError, reference};
use crate::store::{PrivateDir, Store, Trust};

/// Bytes of a file of statements.
const LARGEST: u64 = 64 << 20;
/// Statements about one build in a file: each is another report.
const MOST: usize = 64;

/// Statements about one build, and the graph that they say it was.
#[derive(Debug)]
pub struct Stated {
    path: PathBuf,
    claims: Vec<Claim>,
    graph: Graph,
    index: usize,
    from: From,
    /// Holds the recipes that a statement carries.
    _recipes: PrivateDir,
}

/// Who chose where the recipe lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum From {
    /// The statement carries it.
    Statement,
    /// The user named its directory.
    User,
}

/// Whether all is there that a build needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Availability {
    /// Inputs that the store had.
    pub here: usize,
    /// Inputs that came from mirrors.
    pub fetched: usize,
    /// What is nowhere.
    pub missing: Vec<Missing>,
}

impl Stated {
    /// Reads the statements in `path`: an envelope or a bundle, or one a line. All must be about one build. `recipe` is a
    /// directory to take recipe and lock from in place of what the statement carries.
    pub fn read(store: &Store, path: &Path, recipe: Option<&Path>) -> Result<Self, CapsuleError> {
        let claims = claims(path)?;
        let claim = &claims[0];
        if let Some(other) = claims.iter().find(|other| other.derivation != claim.derivation) {
            let what = format!(
                "it is about several builds, {} and {}: give the statements about one",
                claim.derivation, other.derivation
            );
            return Err(CapsuleError::Lacks { path: path.into(), what });
        }
        let recipes = store.private_dir()?;
        let (targets, from) = match recipe {
            Some(directory) => (vec![directory.to_path_buf()], From::User),
            None => (carried(&claims, recipes.path(), path, store)?, From::Statement),
        };
        let graph = Graph::load(&targets, store)?;
        let found = graph.nodes.iter().position(|node| node.path.to_string() == claim.derivation);
        let index = found.ok_or_else(|| {
            let made: Vec<String> = graph.wanted.iter().map(|&one| graph.nodes[one].path.to_string()).collect();
            CapsuleError::Derivation { path: path.into(), expected: claim.derivation.clone(), found: made.join(", ") }
        })?;
        let stated = Self { path: path.into(), graph, index, from, _recipes: recipes, claims };
        stated.check_inputs()?;
        Ok(stated)
    }

    /// Store path of the derivation that it is about.
    pub fn derivation(&self) -> &str {
        &self.claims[0].derivation
    }

    /// Every file of the lock is an input that each statement names.
    fn check_inputs(&self) -> Result<(), CapsuleError> {
        // What a derivation needs it names by path: the digests are held against each other when they are known.
        let Origin::Recipe(locked) = &self.graph.nodes[self.index].origin else { return Ok(()) };
        let packages = locked.lock.environment.packages.iter().map(|one| (one.path.clone(), one.sha256));
        let sources = locked.lock.inputs.values().flat_map(provide::files).map(|(one, name)| (name, one.sha256));
        for (what, digest) in packages.chain(sources) {
            if self.claims.iter().any(|claim| !claim.inputs.contains(&digest)) {
                let what = format!("resolvedDependencies does not name {what} (sha256 {digest}), which its lock does");
                return Err(CapsuleError::Contradiction { path: self.path.clone(), what });
            }
        }
        Ok(())
    }

    /// Brings what the build needs and the store does not have from the user's mirrors, all of it before anything is built, and
    /// says what is nowhere.
    pub fn available(&self, builder: &Builder<'_>) -> Result<Availability, CapsuleError> {
        let (mut here, mut wanted, mut missing) = (0, Vec::new(), Vec::new());
        let mut trees = Vec::new();
        for one in texts::closure(&self.graph, self.index) {
            let node = &self.graph.nodes[one];
            let Origin::Recipe(locked) = &node.origin else { continue };
            let environment = &locked.lock.environment;
            match builder.store.environment(&environment.nar_hash, Trust::Fingerprint)? {
                Some(_) => here += 1 + environment.packages.len(),
                None => wanted.extend(environment.packages.iter().map(provide::package)),
            }
            for (variable, input) in &locked.lock.inputs {
                let path = &locked.inputs[variable];
                if builder.store.path_info(path)?.is_some() {
                    here += 1;
                    continue;
                }
                match input {
                    LockedInput::Git { .. } | LockedInput::Path { .. } if self.may_bring(input) => {
                        trees.push((locked, variable));
                    }
                    LockedInput::Git { git, rev, .. } => missing.push(Missing {
                        what: format!("inputs.{variable}: commit {rev} of {git}"),
                        tries: vec![
                            "not asked: a statement may name web addresses only; give the recipe with --recipe".into(),
                        ],
                    }),
                    LockedInput::Path { path, nar_hash } => missing.push(Missing {
                        what: format!("inputs.{variable}: the tree {nar_hash} at {path:?} beside the recipe"),
                        tries: vec!["not in the store; give the recipe that it lies beside with --recipe".into()],
                    }),
                    LockedInput::DebianSource { .. } | LockedInput::Url { .. } | LockedInput::Pypi { .. } => {
                        wanted.extend(provide::files(input).into_iter().map(|(wanted, _)| wanted));
                    }
                }
            }
        }
        if matches!(self.graph.nodes[self.index].origin, Origin::Derivation) {
            here += self.sources(builder, &mut missing)?;
        }
        let mut seen = BTreeSet::new();
        wanted.retain(|one: &Wanted| seen.insert(one.sha256));
        let mut there = 0;
        for one in &wanted {
            there += usize::from(builder.store.file(&one.sha256)?.is_some());
        }
        let mut fetched = wanted.len() - there;
        match builder.fetched(&wanted) {
            Ok(_) => {}
            Err(BuildError::Fetch(error)) => match reference::nowhere(&error) {
                Some(files) => {
                    missing.extend(files.iter().map(|file| reference::missing("input", file)));
                    fetched = fetched.saturating_sub(files.len());
                }
                None => return Err(BuildError::Fetch(error).into()),
            },
            Err(error) => return Err(error.into()),
        }
        for (locked, variable) in trees {
            match builder.bring(&locked.recipe, variable, &locked.lock.inputs[variable], &locked.inputs[variable]) {
                Ok(()) => fetched += 1,
                Err(error @ (BuildError::Input { .. } | BuildError::PathChanged { .. })) => {
                    missing.push(Missing { what: format!("inputs.{variable}"), tries: vec![words(&error)] });
                }
                Err(error) => return Err(error.into()),
            }
        }
        let found = Availability { here: here + there, fetched, missing };
        event::say(
            builder.events,
            Level::Note,
            format!("inputs: {} in the store, {} fetched, {} missing", found.here, found.fetched, found.missing.len()),
        );
        Ok(found)
    }

    /// Sources of derivations that were given: how many the store has, each as the statements say, and what it has not.
    fn sources(&self, builder: &Builder<'_>, missing: &mut Vec<Missing>) -> Result<usize, CapsuleError> {
        let mut here = 0;
        let own = &self.graph.nodes[self.index].derivation.input_sources;
        for path in &Rests::of(&self.graph, self.index).sources {
            let known = match builder.store.path_info(path)? {
                Some(info) => Some(info.nar_hash),
                None => builder.store.environment_at(path, Trust::Fingerprint)?.map(|(nar_hash, _)| nar_hash),
            };
            let Some(nar_hash) = known else {
                let tries = vec!["not in the store; `kiln store import` or `kiln store substitute` brings it".into()];
                missing.push(Missing { what: format!("source {path}"), tries });
                continue;
            };
            let named = |claim: &Claim| claim.inputs.contains(&nar_hash.digest());
            if own.contains(path) && !self.claims.iter().all(named) {
                let what = format!("resolvedDependencies does not name {path} as it is here ({nar_hash})");
                return Err(CapsuleError::Contradiction { path: self.path.clone(), what });
            }
            here += 1;
        }
        Ok(here)
    }

    /// Whether an input that is a tree may be taken from where the lock says.
    fn may_bring(&self, input: &LockedInput) -> bool {
        match (self.from, input) {
            (From::User, _) => true,
            (From::Statement, LockedInput::Git { git, .. }) => {
                git.starts_with("https://") || git.starts_with("http://")
            }
            (From::Statement, _) => false,
        }
    }

    /// Builds what was attested, if all that it needs is to be had, and holds it against each statement.
    pub fn rebuild(&self, builder: &Builder<'_>) -> Result<Vec<Report>, CapsuleError> {
        let found = self.available(builder)?;
        let target = self.path.display().to_string();
        if found.missing.is_empty() {
            let built = claimed::hold(builder, (&self.graph, self.index), &self.claims, &target);
            return built.map_err(|error| match error {
                CheckError::Build(error) => CapsuleError::Build(error),
                CheckError::Store(error) => CapsuleError::Store(error),
                error @ CheckError::Diff(_) => CapsuleError::Compared(Box::new(error)),
            });
        }
        let report = |claim: &Claim| {
            let about = claim.about(self.graph.nodes[self.index].title());
            let mut report = Report::of(about, Vec::new(), &Reference::Unavailable, Differences::default());
            report.rebuild = Some(Rebuilt { missing: found.missing.clone(), ..claim.rebuilt(&target) });
            report
        };
        Ok(self.claims.iter().map(report).collect())
    }

    /// Packs what it takes to try it, with the statement, of which there must be one.
    pub fn pack(&self, builder: &Builder<'_>, out: &mut File) -> Result<Created, CapsuleError> {
        let [claim] = &self.claims[..] else {
            let what = format!("it has {} statements, and a capsule keeps one: give that alone", self.claims.len());
            return Err(CapsuleError::Lacks { path: self.path.clone(), what });
        };
        let found = self.available(builder)?;
        if !found.missing.is_empty() {
            let missing = found.missing.into_iter().map(|one| one.what).collect();
            return Err(CapsuleError::Incomplete { path: self.path.clone(), missing });
        }
        for one in texts::closure(&self.graph, self.index) {
            if let Some(locked) = texts::locked(&self.graph.nodes[one]) {
                self.provided(builder, locked)?;
            }
        }
        create(builder, &self.graph, self.index, Said::Statement(&claim.bytes), out)
    }

    /// Trees are packed from the store.
    fn provided(&self, builder: &Builder<'_>, locked: &Locked) -> Result<(), CapsuleError> {
        for (variable, input) in &locked.lock.inputs {
            let tree = matches!(input, LockedInput::Git { .. } | LockedInput::Path { .. });
            if tree && builder.store.path_info(&locked.inputs[variable])?.is_none() {
                builder.bring(&locked.recipe, variable, input, &locked.inputs[variable])?;
            }
        }
        Ok(())
    }
}

/// What to load the graph from: recipes that a statement carries, the derivation that it carries, or the store's.
fn carried(claims: &[Claim], into: &Path, from: &Path, store: &Store) -> Result<Vec<PathBuf>, CapsuleError> {
    if let Some(claim) = claims.iter().find(|claim| !claim.texts.is_empty()) {
        return texts::write_all(into, &claim.texts, from).map_err(|error| match error {
            CapsuleError::Malformed { path, violation } => CapsuleError::Lacks { path, what: violation },
            error => error,
        });
    }
    let wanted = &claims[0].derivation;
    for claim in claims.iter().filter(|claim| !claim.derivations.is_empty()) {
        if let Some(file) = texts::write_derivations(into, &claim.derivations, wanted)? {
            return Ok(vec![file]);
        }
    }
    match wanted.parse::<StorePath>() {
        Ok(path) if store.path_info(&path)?.is_some() => Ok(vec![PathBuf::from(wanted)]),
        _ => {
            let what = "no recipe and lock, and no derivation, among its byproducts: name the recipe's directory with --recipe";
            Err(CapsuleError::Lacks { path: from.into(), what: what.into() })
        }
    }
}

/// The claims in a file: what is no provenance is passed over if there is some.
fn claims(path: &Path) -> Result<Vec<Claim>, CapsuleError> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(io("opening", path))?;
    file.take(LARGEST + 1).read_to_end(&mut bytes).map_err(io("reading", path))?;
    let whole = path.extension().is_none_or(|ending| ending != "jsonl");
    let limit = if whole { bundle::LIMITS.bytes as u64 } else { LARGEST };
    if bytes.len() as u64 > limit {
        let why = format!("it has more than {limit} bytes");
        return Err(CapsuleError::NoStatement { path: path.into(), why });
    }
    if whole {
        return Ok(vec![Claim::read(&bytes, path)?]);
    }
    let (mut claims, mut known, mut other): (Vec<Claim>, BTreeSet<Digest>, _) = (Vec::new(), BTreeSet::new(), None);
    for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty()) {
        if !known.insert(Digest::of(line)) {
            continue;
        }
        match Claim::read(line, path) {
            Ok(claim) => claims.push(claim),
            // Lines of other kinds are no mistake; a line of ours that does not hold is one.
            Err(error @ (CapsuleError::Lacks { .. } | CapsuleError::NoStatement { .. })) => other = Some(error),
            Err(error) => return Err(error),
        }
        if claims.len() > MOST {
            let why = format!("it has more than {MOST} statements");
            return Err(CapsuleError::NoStatement { path: path.into(), why });
        }
    }
    match (claims.is_empty(), other) {
        (false, _) => Ok(claims),
        (true, Some(error)) => Err(error),
        (true, None) => Err(CapsuleError::NoStatement { path: path.into(), why: "it has no line".into() }),
    }
}

fn words(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
