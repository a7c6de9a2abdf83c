//! Which packages an environment holds: the closure of what a recipe asks for.
//!
//! Walks as apt does (depth first, Pre-Depends before Depends, a clause that is satisfied already is left alone, else
//! its first alternative that can be had; no Recommends), so that environments are what Debian's own builders would
//! have. Where that walk runs into a conflict, a complete and bounded search (`search`) looks for any other
//! choice, in a fixed order; only when there is none is there an error, and it names what excludes what
//! (`proof`).
//!
//! The base layer is resolved first and on its own, so that recipes of a suite share it; only if nothing fits on top of
//! it (a recipe that pins an older libc) is everything resolved in one.

use std::collections::{BTreeMap, BTreeSet};

use super::dependency::{self, Clause, DependencyError, Relation};
use super::universe::{Id, Need, Universe, UniverseError};
use super::version::Version;
use super::{proof, search};
use crate::format::sources::{BUILD_CONFLICTS, BUILD_DEPENDS, Source};

/// The package that stands for what every source package may assume.
const BUILD_ESSENTIAL: &str = "build-essential";

/// What is asked for, and by whom.
#[derive(Debug, Clone, Default)]
pub struct Wishes<'a> {
    pub(super) roots: Vec<Root<'a>>,
    pub(super) against: Vec<(Origin<'a>, Relation<'a>)>,
}

/// One clause that the environment must satisfy.
#[derive(Debug, Clone)]
pub(super) struct Root<'a> {
    pub(super) origin: Origin<'a>,
    pub(super) clause: Clause<'a>,
}

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin<'a> {
    /// Nobody: essential packages are always there.
    Essential,
    /// The recipe's list of packages.
    Recipe,
    /// A field of a source package.
    Source { name: &'a str, field: &'static str },
    /// Every source package.
    Building,
}

/// The packages of an environment, each sorted by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closure {
    /// Essential packages and, if wanted, build-essential, with all that they need.
    pub base: Vec<Id>,
    /// The rest.
    pub delta: Vec<Id>,
}

/// Why there is no such environment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// A package's fields cannot be read.
    #[error(transparent)]
    Universe(#[from] UniverseError),
    /// A wish that is no dependency.
    #[error("{asked}")]
    Wish {
        /// The field.
        asked: String,
        /// Why not.
        source: DependencyError,
    },
    /// Something that nothing on offer satisfies.
    #[error("{}", chain.join("\n  "))]
    Unsatisfiable {
        /// From what was asked for to what is not there; the shortest such chain.
        chain: Vec<String>,
    },
    /// Two packages that exclude each other, both needed.
    #[error("{rule}\n  on one side: {}\n  on the other: {}", left.join("; "), right.join("; "))]
    Conflict {
        /// What excludes them.
        rule: String,
        /// How the first came in.
        left: Vec<String>,
        /// How the second came in.
        right: Vec<String>,
    },
    /// Packages each of which must be configured before the next.
    #[error("Pre-Depends go round in a circle, so that none can be configured first: {}", cycle.join(" -> "))]
    Circle {
        /// The packages, the first again at the end.
        cycle: Vec<String>,
    },
    /// The search ran into its bound.
    #[error("no set of packages found in {tries} tries, and none excluded; ask for the alternatives you want by name")]
    Undecided {
        /// The bound.
        tries: usize,
    },
}

impl<'a> Wishes<'a> {
    /// Nothing but the essential packages.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks for a package as a recipe does: `gcc`, `perl (>= 5.36)`.
    pub fn package(&mut self, wish: &'a str, architecture: &str) -> Result<(), ResolveError> {
        let parsed = dependency::parse(wish);
        let clauses = parsed.map_err(|source| ResolveError::Wish { asked: "packages".into(), source })?;
        let clauses = dependency::applicable(clauses, architecture, &[]);
        self.roots.extend(clauses.into_iter().map(|clause| Root { origin: Origin::Recipe, clause }));
        Ok(())
    }

    /// Asks for what a source package needs to be built, all of its binaries, natively, without build profiles.
    pub fn build_dependencies(&mut self, source: &Source<'a>, architecture: &str) -> Result<(), ResolveError> {
        let read = |field: &'static str, text: &'a str| {
            let clauses = dependency::parse(text).map_err(|e| ResolveError::Wish {
                asked: format!("source {} {}: {field}", source.name, source.version),
                source: e,
            })?;
            Ok::<_, ResolveError>(dependency::applicable(clauses, architecture, &[]))
        };
        let essential = dependency::parse(BUILD_ESSENTIAL).expect("a package name");
        if !self.roots.iter().any(|root| root.origin == Origin::Building) {
            self.roots.extend(essential.into_iter().map(|clause| Root { origin: Origin::Building, clause }));
        }
        for (field, text) in BUILD_DEPENDS.into_iter().zip(source.build_depends) {
            let origin = Origin::Source { name: source.name, field };
            self.roots.extend(read(field, text)?.into_iter().map(|clause| Root { origin, clause }));
        }
        for (field, text) in BUILD_CONFLICTS.into_iter().zip(source.build_conflicts) {
            let origin = Origin::Source { name: source.name, field };
            let relations = read(field, text)?.into_iter().flat_map(|clause| clause.0);
            self.against.extend(relations.map(|relation| (origin, relation)));
        }
        Ok(())
    }

    /// The essential packages, and build-essential if anything asks for it.
    fn base(&self, universe: &Universe<'a>) -> Self {
        let named = |id: Id| {
            let clause = Clause(vec![Relation::parse(universe.binary(id).name).expect("an index has package names")]);
            Root { origin: Origin::Essential, clause }
        };
        let mut roots: Vec<_> = universe.essential().into_iter().map(named).collect();
        let asks = |root: &&Root<'a>| root.clause.0.iter().any(|relation| relation.package == BUILD_ESSENTIAL);
        roots.extend(self.roots.iter().find(asks).map(|_| Root {
            origin: Origin::Building,
            clause: Clause(vec![Relation::parse(BUILD_ESSENTIAL).expect("a package name")]),
        }));
        Self { roots, against: Vec::new() }
    }
}

/// The environment that fulfils the wishes.
pub fn resolve<'a>(universe: &Universe<'a>, wishes: &Wishes<'a>) -> Result<Closure, ResolveError> {
    let base_wishes = wishes.base(universe);
    let base = solve(universe, &[], &base_wishes)?;
    let closure = match solve(universe, &base, wishes) {
        Ok(all) => layers(base.into_iter().collect(), all),
        Err(_) => {
            let mut whole = base_wishes.clone();
            whole.roots.extend(wishes.roots.iter().cloned());
            whole.against.extend(wishes.against.iter().cloned());
            let all = solve(universe, &[], &whole)?;
            layers(needed(universe, &base_wishes, &all)?, all)
        }
    };
    let all: Vec<Id> = closure.base.iter().chain(&closure.delta).copied().collect();
    proof::no_circle(universe, &all)?;
    Ok(closure)
}

fn layers(base: BTreeSet<Id>, all: Vec<Id>) -> Closure {
    let delta: BTreeSet<Id> = all.into_iter().filter(|id| !base.contains(id)).collect();
    Closure { base: base.into_iter().collect(), delta: delta.into_iter().collect() }
}

/// All packages that fulfil the wishes, `fixed` among them.
fn solve<'a>(universe: &Universe<'a>, fixed: &[Id], wishes: &Wishes<'a>) -> Result<Vec<Id>, ResolveError> {
    let mut walk = Walk::new(universe, wishes);
    if walk.run(fixed)? {
        return Ok(walk.selection.order);
    }
    match search::search(universe, fixed, wishes)? {
        Some(found) => {
            let mut needed = needed(universe, wishes, &found)?;
            needed.extend(fixed);
            Ok(needed.into_iter().collect())
        }
        None => Err(proof::refute(universe, fixed, wishes, walk.clash)?),
    }
}

/// What of a solution the wishes need: a search may have left packages in that a later choice made needless.
fn needed<'a>(universe: &Universe<'a>, wishes: &Wishes<'a>, solution: &[Id]) -> Result<BTreeSet<Id>, ResolveError> {
    let solution: BTreeSet<Id> = solution.iter().copied().collect();
    let first = |clause: &Clause<'_>| universe.options(clause).into_iter().find(|id| solution.contains(id));
    let mut todo: Vec<Id> = wishes.roots.iter().filter_map(|root| first(&root.clause)).collect();
    let mut needed = BTreeSet::new();
    while let Some(id) = todo.pop() {
        if needed.insert(id) {
            todo.extend(universe.needs(id)?.iter().filter_map(|need| first(&need.clause)));
        }
    }
    Ok(needed)
}

/// Who put a relation into the selection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum By<'a> {
    Wish(Origin<'a>),
    Package(Id),
}

/// Why a package cannot be added.
#[derive(Debug, Clone)]
pub(super) struct Clash<'a> {
    /// What was to be added.
    pub(super) wanted: Id,
    /// Who is against it.
    pub(super) against: By<'a>,
    /// The field and the relation; `None` if another version of the same package is in.
    pub(super) rule: Option<(&'static str, Relation<'a>)>,
    /// What the rule means, if it stands in the package that was to be added.
    pub(super) selected: Vec<Id>,
}

/// Packages that go together.
struct Selection<'u, 'a> {
    universe: &'u Universe<'a>,
    chosen: BTreeMap<&'a str, Id>,
    provided: BTreeMap<&'a str, Vec<(Option<Version<'a>>, Id)>>,
    refused: BTreeMap<&'a str, Vec<(By<'a>, &'static str, Relation<'a>)>>,
    order: Vec<Id>,
}

impl<'u, 'a> Selection<'u, 'a> {
    /// Which selected package satisfies a relation.
    fn satisfier(&self, relation: &Relation<'_>) -> Option<Id> {
        let meant = |id: &Id| self.universe.meant(relation).any(|other| other == *id);
        let real = self.chosen.get(relation.package).copied().filter(meant);
        real.or_else(|| {
            let providers = self.provided.get(relation.package)?;
            providers.iter().find(|(version, id)| relation.accepts(*version) && meant(id)).map(|(_, id)| *id)
        })
    }

    fn satisfies(&self, clause: &Clause<'_>) -> Option<Id> {
        clause.0.iter().find_map(|relation| self.satisfier(relation))
    }

    /// Adds a package if nothing is against it. Neither adds nor keeps anything if something is.
    fn add(&mut self, id: Id) -> Result<Result<(), Clash<'a>>, UniverseError> {
        let binary = self.universe.binary(id);
        let clash = |against, rule, selected| Ok(Err(Clash { wanted: id, against, rule, selected }));
        match self.chosen.get(binary.name) {
            Some(there) if *there == id => return Ok(Ok(())),
            Some(there) => return clash(By::Package(*there), None, Vec::new()),
            None => {}
        }
        let provides = self.universe.provides(id)?;
        let names = std::iter::once((binary.name, Some(binary.version))).chain(provides.iter().copied());
        for (name, version) in names {
            for (by, field, relation) in self.refused.get(name).into_iter().flatten() {
                if relation.accepts(version) && self.universe.meant(relation).any(|other| other == id) {
                    return clash(*by, Some((*field, relation.clone())), Vec::new());
                }
            }
        }
        let refusals = self.universe.refusals(id)?;
        for (field, relation) in &refusals {
            // A package that conflicts with a name that it has or provides itself means the others (Policy 7.4).
            let real = self.chosen.get(relation.package).copied();
            let providers = self.provided.get(relation.package).into_iter().flatten().map(|(_, other)| *other);
            let other = real.into_iter().chain(providers).find(|other| {
                self.universe.binary(*other).name != binary.name
                    && self.universe.meant(relation).any(|meant| meant == *other)
            });
            if let Some(other) = other {
                return clash(By::Package(other), Some((*field, relation.clone())), vec![other]);
            }
        }
        self.chosen.insert(binary.name, id);
        for (name, version) in provides {
            self.provided.entry(name).or_default().push((version, id));
        }
        for (field, relation) in refusals {
            self.refused.entry(relation.package).or_default().push((By::Package(id), field, relation));
        }
        self.order.push(id);
        Ok(Ok(()))
    }

    /// Takes out what was added after the first `length`.
    fn undo(&mut self, length: usize) {
        for id in self.order.split_off(length) {
            self.chosen.remove(self.universe.binary(id).name);
            for list in self.provided.values_mut() {
                list.retain(|(_, other)| *other != id);
            }
            for list in self.refused.values_mut() {
                list.retain(|(by, ..)| *by != By::Package(id));
            }
        }
    }
}

/// The walk in apt's order. Its stack is its own: a hostile index may nest as deep as it is long.
pub(super) struct Walk<'u, 'a> {
    wishes: &'u Wishes<'a>,
    selection: Selection<'u, 'a>,
    /// The first thing that did not fit, for the error.
    pub(super) clash: Option<Clash<'a>>,
}

/// A package whose needs are being met.
struct Frame<'a> {
    owner: Option<Id>,
    needs: Vec<Need<'a>>,
    /// The need at hand.
    at: usize,
    /// What is left to try for it; `None` if it has not been looked at.
    options: Option<std::vec::IntoIter<Id>>,
    /// How much was selected before the owner.
    mark: usize,
}

impl<'u, 'a> Walk<'u, 'a> {
    pub(super) fn new(universe: &'u Universe<'a>, wishes: &'u Wishes<'a>) -> Self {
        let mut refused = BTreeMap::<_, Vec<_>>::new();
        for (origin, relation) in &wishes.against {
            let field = match origin {
                Origin::Source { field, .. } => field,
                Origin::Essential | Origin::Recipe | Origin::Building => "Conflicts",
            };
            refused.entry(relation.package).or_default().push((By::Wish(*origin), field, relation.clone()));
        }
        let (chosen, provided, order) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
        Self { wishes, selection: Selection { universe, chosen, provided, refused, order }, clash: None }
    }

    /// Whether the walk found a set that fits.
    pub(super) fn run(&mut self, fixed: &[Id]) -> Result<bool, ResolveError> {
        let universe = self.selection.universe;
        for id in fixed {
            if !self.add(*id)? {
                return Ok(false);
            }
        }
        // What is asked for by name is in before anything is looked into, as with `apt-get install`.
        let mut pending = BTreeSet::new();
        for root in &self.wishes.roots {
            let named = matches!(root.origin, Origin::Essential | Origin::Recipe | Origin::Building);
            if named && self.selection.satisfies(&root.clause).is_none() {
                for id in universe.options(&root.clause) {
                    if self.add(id)? {
                        pending.insert(id);
                        break;
                    }
                }
            }
        }
        let need = |root: &Root<'a>| Need { field: "", clause: root.clause.clone() };
        let needs = self.wishes.roots.iter().map(need).collect();
        let mut frames = vec![Frame { owner: None, needs, at: 0, options: None, mark: 0 }];
        while let Some(top) = frames.last_mut() {
            let Some(need) = top.needs.get(top.at) else {
                frames.pop();
                if let Some(parent) = frames.last_mut() {
                    parent.at += 1;
                    parent.options = None;
                }
                continue;
            };
            let owner = top.owner;
            if top.options.is_none() {
                if let Some(id) = self.selection.satisfies(&need.clause) {
                    if owner.is_none() && pending.remove(&id) {
                        let mark = self.selection.order.len();
                        frames.push(Frame { owner: Some(id), needs: universe.needs(id)?, at: 0, options: None, mark });
                    } else {
                        top.at += 1;
                    }
                    continue;
                }
                top.options = Some(universe.options(&need.clause).into_iter());
            }
            let mark = self.selection.order.len();
            match top.options.as_mut().and_then(Iterator::next) {
                Some(id) => {
                    if self.add(id)? {
                        frames.push(Frame { owner: Some(id), needs: universe.needs(id)?, at: 0, options: None, mark });
                    }
                }
                None => {
                    self.selection.undo(top.mark);
                    frames.pop();
                    if frames.last().is_none_or(|parent| parent.options.is_none()) {
                        return Ok(false);
                    }
                }
            }
        }
        Ok(true)
    }

    fn add(&mut self, id: Id) -> Result<bool, ResolveError> {
        match self.selection.add(id)? {
            Ok(()) => Ok(true),
            Err(clash) => {
                self.clash.get_or_insert(clash);
                Ok(false)
            }
        }
    }
}
