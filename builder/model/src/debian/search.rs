//! A complete search for packages that go together, for when the plain walk does not find any.
//!
//! Clause learning over "is in" and "is not in", with clauses made from a package's fields only once it comes in. After
//! each conflict the reason is kept as a clause and the search starts over, so nothing depends on what happened to be
//! tried before, and the same reason is never met twice. Choices are made in the order of [`Universe::options`], clauses
//! in the order in which they were made: the same input gives the same answer. Bounded by [`TRIES`] conflicts.
//!
//! Own code instead of a solver crate: the problem is a few thousand clauses, the order of choices is part of what is
//! promised, and this crate's dependencies are what a verifier would have to trust.

use std::collections::{BTreeMap, BTreeSet};

use super::resolve::{ResolveError, Wishes};
use super::universe::{Id, Universe, UniverseError};

/// Conflicts before giving up: honest archives need a handful, and each costs milliseconds.
const TRIES: usize = 2_000;

/// A package, in or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Literal {
    id: Id,
    stands: Stands,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stands {
    In,
    Out,
}

/// What is known of a package.
#[derive(Debug, Clone, Copy)]
struct Known {
    stands: Stands,
    /// How many choices had been made.
    level: usize,
    /// The clause that left nothing else; `None` for a choice.
    reason: Option<usize>,
}

struct Search<'u, 'a> {
    universe: &'u Universe<'a>,
    clauses: Vec<Vec<Literal>>,
    /// Clauses by each of their literals.
    with: BTreeMap<Literal, Vec<usize>>,
    /// Packages whose fields have been made clauses.
    opened: BTreeSet<Id>,
    known: BTreeMap<Id, Known>,
    trail: Vec<Literal>,
    level: usize,
}

/// Packages that hold `fixed` and fulfil the wishes, or `None` if there are none.
pub(super) fn search<'a>(
    universe: &Universe<'a>,
    fixed: &[Id],
    wishes: &Wishes<'a>,
) -> Result<Option<Vec<Id>>, ResolveError> {
    let mut search = Search {
        universe,
        clauses: Vec::new(),
        with: BTreeMap::new(),
        opened: BTreeSet::new(),
        known: BTreeMap::new(),
        trail: Vec::new(),
        level: 0,
    };
    for id in fixed {
        search.learn(vec![search.is_in(*id)]);
    }
    for root in &wishes.roots {
        let options = universe.options(&root.clause).into_iter();
        search.learn(options.map(|id| Literal { id, stands: Stands::In }).collect());
    }
    for (_, relation) in &wishes.against {
        for id in universe.meant(relation) {
            search.learn(vec![Literal { id, stands: Stands::Out }]);
        }
    }
    for _ in 0..TRIES {
        match search.attempt()? {
            None => {
                let stands_in = |(id, known): (&Id, &Known)| (known.stands == Stands::In).then_some(*id);
                return Ok(Some(search.known.iter().filter_map(stands_in).collect()));
            }
            Some(conflict) => match search.analyse(conflict) {
                Some(reason) => {
                    search.learn(reason);
                }
                None => return Ok(None),
            },
        }
    }
    Err(ResolveError::Undecided { tries: TRIES })
}

impl Search<'_, '_> {
    fn is_in(&self, id: Id) -> Literal {
        Literal { id, stands: Stands::In }
    }

    /// Keeps a clause and returns its number.
    fn learn(&mut self, clause: Vec<Literal>) -> usize {
        let number = self.clauses.len();
        for literal in &clause {
            self.with.entry(*literal).or_default().push(number);
        }
        self.clauses.push(clause);
        number
    }

    /// From the beginning to a solution (`None`) or to a clause that cannot hold.
    fn attempt(&mut self) -> Result<Option<usize>, UniverseError> {
        self.known.clear();
        self.trail.clear();
        self.level = 0;
        let mut propagated = 0;
        for number in 0..self.clauses.len() {
            if self.examine(number) {
                return Ok(Some(number));
            }
        }
        loop {
            while let Some(literal) = self.trail.get(propagated).copied() {
                propagated += 1;
                if literal.stands == Stands::In && self.opened.insert(literal.id) {
                    let first = self.clauses.len();
                    self.open(literal.id)?;
                    for number in first..self.clauses.len() {
                        if self.examine(number) {
                            return Ok(Some(number));
                        }
                    }
                }
                for number in self.with.get(&literal.negated()).cloned().unwrap_or_default() {
                    if self.examine(number) {
                        return Ok(Some(number));
                    }
                }
            }
            let Some(choice) = self.choice() else { return Ok(None) };
            self.level += 1;
            self.assume(choice, None);
        }
    }

    /// Makes clauses of a package's fields.
    fn open(&mut self, id: Id) -> Result<(), UniverseError> {
        let universe = self.universe;
        let not = |id| Literal { id, stands: Stands::Out };
        for need in universe.needs(id)? {
            let options = universe.options(&need.clause);
            self.learn(std::iter::once(not(id)).chain(options.iter().map(|id| self.is_in(*id))).collect());
        }
        let name = universe.binary(id).name;
        let mut excluded: BTreeSet<Id> = universe.versions(name).collect();
        for (_, relation) in universe.refusals(id)? {
            excluded.extend(universe.meant(&relation).filter(|other| universe.binary(*other).name != name));
        }
        excluded.remove(&id);
        for other in excluded {
            self.learn(vec![not(id), not(other)]);
        }
        Ok(())
    }

    /// Looks at a clause: whether it cannot hold. If only one literal is left, that one is assumed.
    fn examine(&mut self, number: usize) -> bool {
        let mut open = None;
        for literal in &self.clauses[number] {
            match self.known.get(&literal.id) {
                Some(known) if known.stands == literal.stands => return false,
                Some(_) => {}
                None if open.is_some() => return false,
                None => open = Some(*literal),
            }
        }
        match open {
            Some(literal) => {
                self.assume(literal, Some(number));
                false
            }
            None => true,
        }
    }

    fn assume(&mut self, literal: Literal, reason: Option<usize>) {
        self.known.insert(literal.id, Known { stands: literal.stands, level: self.level, reason });
        self.trail.push(literal);
    }

    /// The first option of the first clause that is not satisfied by what is in, or by what is not known to be in.
    fn choice(&self) -> Option<Literal> {
        self.clauses.iter().find_map(|clause| {
            let mut first = None;
            for literal in clause {
                match (self.known.get(&literal.id), literal.stands) {
                    (Some(known), stands) if known.stands == stands => return None,
                    (Some(_), _) => {}
                    (None, Stands::Out) => return None,
                    (None, Stands::In) => first = first.or(Some(*literal)),
                }
            }
            first
        })
    }

    /// Why a clause cannot hold, as a clause with one literal of the last choice that mattered (first unique
    /// implication point); `None` if no choice mattered.
    fn analyse(&self, conflict: usize) -> Option<Vec<Literal>> {
        let level_of = |id: Id| self.known[&id].level;
        let level = self.clauses[conflict].iter().map(|literal| level_of(literal.id)).max().unwrap_or(0);
        if level == 0 {
            return None;
        }
        let mut reason: BTreeSet<Literal> = self.clauses[conflict].iter().copied().collect();
        for literal in self.trail.iter().rev() {
            let last = reason.iter().filter(|literal| level_of(literal.id) == level).count();
            if last <= 1 {
                break;
            }
            if !reason.contains(&literal.negated()) || level_of(literal.id) != level {
                continue;
            }
            if let Some(because) = self.known[&literal.id].reason {
                reason.remove(&literal.negated());
                reason.extend(self.clauses[because].iter().filter(|other| *other != literal));
            }
        }
        Some(reason.into_iter().filter(|literal| level_of(literal.id) > 0).collect())
    }
}

impl Literal {
    fn negated(self) -> Self {
        let stands = match self.stands {
            Stands::In => Stands::Out,
            Stands::Out => Stands::In,
        };
        Self { stands, ..self }
    }
}
