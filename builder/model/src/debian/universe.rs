//! All binary packages of some suites, and what in them satisfies a dependency.
//!
//! Sorted once: by name, then version (highest first), then the recipe's order of suites. Looking up never hashes, so no
//! answer depends on a hash's seed. One native architecture: packages of any other are refused when the set is made.

use std::cmp::Reverse;

use super::dependency::{self, Clause, DependencyError, Qualifier, Relation};
use super::version::Version;
use crate::format::packages::{Binary, MultiArch};

/// A package of one universe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id(u32);

/// One package and the suite that offers it.
#[derive(Debug, Clone)]
pub struct Offer<'a> {
    /// The package.
    pub binary: Binary<'a>,
    /// Its suite's place in the recipe.
    pub suite: usize,
}

/// Everything on offer.
#[derive(Debug, Clone)]
pub struct Universe<'a> {
    architecture: String,
    offers: Vec<Offer<'a>>,
    /// Sorted by name, for looking up.
    provided: Vec<(&'a str, Id, Option<Version<'a>>)>,
}

/// One of a package's clauses and the field that it stands in.
#[derive(Debug, Clone)]
pub struct Need<'a> {
    /// `Pre-Depends` or `Depends`.
    pub field: &'static str,
    /// The clause.
    pub clause: Clause<'a>,
}

/// Why indices do not make a universe, or a package's fields cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UniverseError {
    /// A package for another machine.
    #[error("line {line}: {package} is for {found}, in an index for {expected}")]
    Foreign {
        /// The suite, by its place in the recipe.
        suite: usize,
        /// Line of the stanza, from 1.
        line: usize,
        /// The package.
        package: String,
        /// Its architecture.
        found: String,
        /// The index's.
        expected: String,
    },
    /// One version of a package twice in a suite, with other bytes.
    #[error("line {line}: {package} {version} stands in line {before} too, with another SHA256")]
    Ambiguous {
        /// The suite, by its place in the recipe.
        suite: usize,
        /// Line of the second stanza, from 1.
        line: usize,
        /// Line of the first.
        before: usize,
        /// The package.
        package: String,
        /// Its version.
        version: String,
    },
    /// A dependency field that cannot be read.
    #[error("line {line}: {package}: {field}")]
    Dependency {
        /// The suite, by its place in the recipe.
        suite: usize,
        /// Line of the stanza, from 1.
        line: usize,
        /// The package.
        package: String,
        /// The field.
        field: &'static str,
        /// Why not.
        source: DependencyError,
    },
}

impl UniverseError {
    /// The suite, by its place in the recipe.
    pub fn suite(&self) -> usize {
        match self {
            Self::Foreign { suite, .. } | Self::Ambiguous { suite, .. } | Self::Dependency { suite, .. } => *suite,
        }
    }
}

impl<'a> Universe<'a> {
    /// A universe for `architecture` of what the suites offer.
    pub fn new(architecture: &str, mut offers: Vec<Offer<'a>>) -> Result<Self, UniverseError> {
        if let Some(Offer { binary, suite }) =
            offers.iter().find(|o| o.binary.architecture != architecture && o.binary.architecture != "all")
        {
            return Err(UniverseError::Foreign {
                suite: *suite,
                line: binary.line,
                package: binary.name.into(),
                found: binary.architecture.into(),
                expected: architecture.into(),
            });
        }
        offers.sort_by_key(|o| {
            let b = &o.binary;
            (b.name, Reverse(b.version), o.suite, b.architecture, b.line)
        });
        let mut ambiguous = None;
        offers.dedup_by(|later, first| {
            let (b, a) = (&later.binary, &first.binary);
            let same = (a.name, a.version.as_str(), a.architecture) == (b.name, b.version.as_str(), b.architecture);
            if same && first.suite == later.suite && a.sha256 != b.sha256 {
                ambiguous.get_or_insert_with(|| UniverseError::Ambiguous {
                    suite: later.suite,
                    line: b.line,
                    before: a.line,
                    package: b.name.into(),
                    version: b.version.to_string(),
                });
            }
            same
        });
        if let Some(error) = ambiguous {
            return Err(error);
        }
        let mut universe = Self { architecture: architecture.into(), offers, provided: Vec::new() };
        for id in universe.ids() {
            let provides = universe.provides(id)?;
            universe.provided.extend(provides.into_iter().map(|(name, version)| (name, id, version)));
        }
        universe.provided.sort_by_key(|(name, id, _)| (*name, *id));
        Ok(universe)
    }

    /// The native architecture.
    pub fn architecture(&self) -> &str {
        &self.architecture
    }

    /// What an id stands for.
    pub fn offer(&self, id: Id) -> &Offer<'a> {
        &self.offers[id.0 as usize]
    }

    /// The package itself.
    pub fn binary(&self, id: Id) -> &Binary<'a> {
        &self.offer(id).binary
    }

    /// `name version`, for people.
    pub fn title(&self, id: Id) -> String {
        format!("{} {}", self.binary(id).name, self.binary(id).version)
    }

    /// All ids, sorted by name.
    pub fn ids(&self) -> impl Iterator<Item = Id> + use<> {
        (0..u32::try_from(self.offers.len()).expect("an index has fewer than 2^32 stanzas")).map(Id)
    }

    /// The versions of a name, best first.
    pub fn versions(&self, name: &str) -> impl Iterator<Item = Id> + use<> {
        let start = self.offers.partition_point(|o| o.binary.name < name);
        let count = self.offers[start..].partition_point(|o| o.binary.name <= name);
        (start..start + count).map(|n| Id(n as u32))
    }

    /// Whether it is the best version of its name: what is taken unless a version is asked for.
    pub fn is_candidate(&self, id: Id) -> bool {
        id.0 == 0 || self.offers[id.0 as usize - 1].binary.name != self.binary(id).name
    }

    /// The best version of each essential package, sorted by name.
    pub fn essential(&self) -> Vec<Id> {
        self.ids().filter(|id| self.binary(*id).essential && self.is_candidate(*id)).collect()
    }

    /// What satisfies a clause, in the order of preference: alternatives in order; for each, the package of that name,
    /// then those that provide it (essential ones, then by priority, then by name). Versions that are not their name's
    /// best come after everything else. This is apt's order, but for ties between providers, which apt breaks by where
    /// a name happened to be read first.
    pub fn options(&self, clause: &Clause<'_>) -> Vec<Id> {
        let mut options: Vec<Id> = Vec::new();
        for relation in &clause.0 {
            let mut found: Vec<Id> = self.meant(relation).collect();
            found.sort_by_key(|id| {
                let b = self.binary(*id);
                (b.name != relation.package, !b.essential, b.priority, *id)
            });
            found.dedup();
            options.extend(found);
        }
        options.sort_by_key(|id| !self.is_candidate(*id));
        let mut seen = std::collections::BTreeSet::new();
        options.retain(|id| seen.insert(*id));
        options
    }

    /// All packages that one relation means: of that name, or providing it.
    pub fn meant(&self, relation: &Relation<'_>) -> impl Iterator<Item = Id> {
        let real = self
            .versions(relation.package)
            .filter(|id| self.answers(*id, relation.qualifier) && relation.accepts(Some(self.binary(*id).version)));
        let start = self.provided.partition_point(|(name, ..)| *name < relation.package);
        let providers = self.provided[start..]
            .iter()
            .take_while(|(name, ..)| *name == relation.package)
            .filter(|(_, id, version)| self.answers(*id, relation.qualifier) && relation.accepts(*version))
            .map(|(_, id, _)| *id);
        real.chain(providers)
    }

    /// Whether a package answers for that architecture. `:any` needs the package's consent (Multi-Arch).
    fn answers(&self, id: Id, qualifier: Qualifier<'_>) -> bool {
        match qualifier {
            Qualifier::None | Qualifier::Native => true,
            Qualifier::Any => matches!(self.binary(id).multi_arch, MultiArch::Allowed | MultiArch::Foreign),
            Qualifier::Architecture(architecture) => architecture == self.architecture,
        }
    }

    /// What a package needs: Pre-Depends, then Depends.
    pub fn needs(&self, id: Id) -> Result<Vec<Need<'a>>, UniverseError> {
        let b = self.binary(id);
        let mut needs = Vec::new();
        for (field, text) in [("Pre-Depends", b.pre_depends), ("Depends", b.depends)] {
            needs.extend(self.clauses(id, field, text)?.into_iter().map(|clause| Need { field, clause }));
        }
        Ok(needs)
    }

    /// What a package will not be with: Conflicts and Breaks.
    pub fn refusals(&self, id: Id) -> Result<Vec<(&'static str, Relation<'a>)>, UniverseError> {
        let b = self.binary(id);
        let mut refusals = Vec::new();
        for (field, text) in [("Conflicts", b.conflicts), ("Breaks", b.breaks)] {
            for clause in self.clauses(id, field, text)? {
                refusals.extend(clause.0.into_iter().map(|relation| (field, relation)));
            }
        }
        Ok(refusals)
    }

    /// The virtual names of a package, with their versions if they have one.
    pub fn provides(&self, id: Id) -> Result<Vec<(&'a str, Option<Version<'a>>)>, UniverseError> {
        let clauses = self.clauses(id, "Provides", self.binary(id).provides)?;
        let relations = clauses.into_iter().flat_map(|clause| clause.0);
        Ok(relations.map(|relation| (relation.package, relation.version.map(|(_, version)| version))).collect())
    }

    fn clauses(&self, id: Id, field: &'static str, text: &'a str) -> Result<Vec<Clause<'a>>, UniverseError> {
        dependency::parse(text).map_err(|source| {
            let b = self.binary(id);
            UniverseError::Dependency {
                suite: self.offer(id).suite,
                line: b.line,
                package: b.name.into(),
                field,
                source,
            }
        })
    }
}
