//! Why there is no such environment, in as few steps as it can be said.
//!
//! Called only after the search found nothing. Either something that is needed cannot be had at all: then the shortest
//! chain that leads there. Or two packages exclude each other: then the rule, and for each the shortest chain by which it
//! came in, after all wishes that do not matter were left out.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::dependency::Clause;
use super::resolve::{By, Clash, Origin, ResolveError, Root, Walk, Wishes};
use super::search;
use super::universe::{Id, Need, Universe, UniverseError};

/// Wishes that are left out one by one to see which matter; beyond that the first conflict is told as it is.
const MINIMISED: usize = 300;

/// The error for wishes that nothing fulfils.
pub(super) fn refute<'a>(
    universe: &Universe<'a>,
    fixed: &[Id],
    wishes: &Wishes<'a>,
    clash: Option<Clash<'a>>,
) -> Result<ResolveError, ResolveError> {
    if let Some(chain) = missing(universe, wishes)? {
        return Ok(ResolveError::Unsatisfiable { chain });
    }
    let mut needed = wishes.clone();
    if wishes.roots.len() <= MINIMISED {
        let mut at = 0;
        while at < needed.roots.len() {
            let mut fewer = needed.clone();
            fewer.roots.remove(at);
            match search::search(universe, fixed, &fewer)? {
                None => needed = fewer,
                Some(_) => at += 1,
            }
        }
    }
    let mut walk = Walk::new(universe, &needed);
    walk.run(fixed)?;
    let Some(clash) = walk.clash.or(clash) else {
        // The walk failed without a clash only where an option's own needs cannot be met, which `missing` finds.
        return Ok(ResolveError::Unsatisfiable {
            chain: vec!["no set of packages fulfils all that is asked for".into()],
        });
    };
    Ok(tell(universe, &needed, &clash)?)
}

fn tell<'a>(universe: &Universe<'a>, wishes: &Wishes<'a>, clash: &Clash<'a>) -> Result<ResolveError, UniverseError> {
    let wanted = way(universe, wishes, clash.wanted)?;
    let other = match clash.against {
        By::Package(id) => way(universe, wishes, id)?,
        By::Wish(origin) => vec![origin.to_string()],
    };
    let title = |id| universe.title(id);
    let rule = match (&clash.rule, clash.against) {
        (None, By::Package(there)) => {
            format!("two versions of one package are needed: {} and {}", title(there), title(clash.wanted))
        }
        (Some((field, relation)), By::Package(there)) if clash.selected.is_empty() => {
            format!("{} has {field}: {relation}, which means {}", title(there), title(clash.wanted))
        }
        (Some((field, relation)), By::Package(there)) => {
            format!("{} has {field}: {relation}, which means {}", title(clash.wanted), title(there))
        }
        (Some((field, relation)), By::Wish(_)) => {
            format!("{field}: {relation} means {}", title(clash.wanted))
        }
        (None, By::Wish(_)) => format!("{} is not wanted", title(clash.wanted)),
    };
    Ok(ResolveError::Conflict { rule, left: other, right: wanted })
}

/// The shortest way from a wish to a package, by any alternative.
fn way<'a>(universe: &Universe<'a>, wishes: &Wishes<'a>, to: Id) -> Result<Vec<String>, UniverseError> {
    let mut from: BTreeMap<Id, (Option<Id>, String)> = BTreeMap::new();
    let mut queue = VecDeque::new();
    for root in &wishes.roots {
        for id in universe.options(&root.clause) {
            from.entry(id).or_insert_with(|| {
                queue.push_back(id);
                (None, root.to_string())
            });
        }
    }
    while let Some(id) = queue.pop_front() {
        if id == to {
            break;
        }
        for Need { field, clause } in universe.needs(id)? {
            for option in universe.options(&clause) {
                from.entry(option).or_insert_with(|| {
                    queue.push_back(option);
                    (Some(id), format!("{} has {field}: {clause}", universe.title(id)))
                });
            }
        }
    }
    let mut steps = vec![universe.title(to)];
    let mut at = Some(to);
    while let Some((before, step)) = at.and_then(|id| from.get(&id)) {
        steps.push(step.clone());
        at = *before;
    }
    steps.reverse();
    Ok(steps)
}

/// The shortest chain from a wish to something that cannot be had, if that is what is wrong.
fn missing<'a>(universe: &Universe<'a>, wishes: &Wishes<'a>) -> Result<Option<Vec<String>>, UniverseError> {
    // All that could come in, by any alternative, with each clause's options.
    let mut needs: BTreeMap<Id, Vec<(Need<'a>, Vec<Id>)>> = BTreeMap::new();
    let options = |clause: &Clause<'_>| universe.options(clause);
    let roots: Vec<(&Root<'a>, Vec<Id>)> = wishes.roots.iter().map(|root| (root, options(&root.clause))).collect();
    let mut todo: Vec<Id> = roots.iter().flat_map(|(_, options)| options.iter().copied()).collect();
    while let Some(id) = todo.pop() {
        if needs.contains_key(&id) {
            continue;
        }
        let own: Vec<_> = universe
            .needs(id)?
            .into_iter()
            .map(|need| {
                let o = options(&need.clause);
                (need, o)
            })
            .collect();
        todo.extend(own.iter().flat_map(|(_, options)| options.iter().copied()));
        needs.insert(id, own);
    }
    // In each round, the packages that lack something given the rounds before: the round is the length of the proof.
    let mut lacking: BTreeMap<Id, usize> = BTreeMap::new();
    loop {
        let lacks = |own: &Vec<(Need<'_>, Vec<Id>)>| {
            own.iter().position(|(_, options)| options.iter().all(|id| lacking.contains_key(id)))
        };
        let found: Vec<_> = needs
            .iter()
            .filter(|(id, _)| !lacking.contains_key(id))
            .filter_map(|(id, own)| Some((*id, lacks(own)?)))
            .collect();
        if found.is_empty() {
            break;
        }
        lacking.extend(found);
    }
    let length = |options: &Vec<Id>| chain_length(options, &needs, &lacking);
    let dead = roots.iter().filter(|(_, options)| options.iter().all(|id| lacking.contains_key(id)));
    let Some((root, options)) = dead.min_by_key(|(_, options)| length(options)) else { return Ok(None) };
    let mut chain = vec![root.to_string()];
    let (mut clause, mut options) = (root.clause.clone(), options.clone());
    while let Some(id) = options.first().copied() {
        let (need, next) = &needs[&id][lacking[&id]];
        let others = match options.len() {
            1 => String::new(),
            n => format!(" (so do {} more that would satisfy it)", n - 1),
        };
        chain.push(format!("{} has {}: {}{others}", universe.title(id), need.field, need.clause));
        (clause, options) = (need.clause.clone(), next.clone());
    }
    chain.push(there_is(universe, &clause));
    Ok(Some(chain))
}

fn chain_length(
    options: &[Id],
    needs: &BTreeMap<Id, Vec<(Need<'_>, Vec<Id>)>>,
    lacking: &BTreeMap<Id, usize>,
) -> usize {
    let (mut length, mut at) = (0, options.first());
    while let Some(id) = at {
        length += 1;
        at = needs[id][lacking[id]].1.first();
    }
    length
}

/// What there is instead of what a clause wants.
fn there_is(universe: &Universe<'_>, clause: &Clause<'_>) -> String {
    let each = clause.0.iter().map(|relation| {
        let versions: Vec<String> =
            universe.versions(relation.package).map(|id| universe.binary(id).version.to_string()).collect();
        if versions.is_empty() {
            format!("no package in these suites is or provides {}", relation.package)
        } else {
            format!("{relation} is not satisfied by what there is: {} {}", relation.package, versions.join(", "))
        }
    });
    each.collect::<Vec<_>>().join("; ")
}

/// Refuses a circle of Pre-Depends: packages none of which can be configured first.
pub(super) fn no_circle(universe: &Universe<'_>, all: &[Id]) -> Result<(), ResolveError> {
    let selected: BTreeSet<Id> = all.iter().copied().collect();
    let mut before: BTreeMap<Id, Vec<Vec<Id>>> = BTreeMap::new();
    for id in &selected {
        let needs = universe.needs(*id)?.into_iter().filter(|need| need.field == "Pre-Depends");
        let met = |need: Need<'_>| -> Vec<Id> {
            universe.options(&need.clause).into_iter().filter(|id| selected.contains(id)).collect()
        };
        before.insert(*id, needs.map(met).collect());
    }
    let mut ready: BTreeSet<Id> = BTreeSet::new();
    loop {
        let can = |(id, needs): (&Id, &Vec<Vec<Id>>)| {
            let free = needs.iter().all(|options| options.iter().any(|option| option == id || ready.contains(option)));
            (free && !ready.contains(id)).then_some(*id)
        };
        let now: Vec<Id> = before.iter().filter_map(can).collect();
        if now.is_empty() {
            break;
        }
        ready.extend(now);
    }
    let Some(start) = selected.iter().find(|id| !ready.contains(id)) else { return Ok(()) };
    // Every package that is not ready waits for one that is not ready: going on must come round.
    let waits = |id: &Id| -> Id {
        let stuck = before[id].iter().find(|options| !options.iter().any(|option| ready.contains(option)));
        *stuck.and_then(|options| options.first()).expect("a package that is not ready waits for another")
    };
    let mut path = vec![*start];
    loop {
        let next = waits(path.last().expect("it has the start"));
        if let Some(at) = path.iter().position(|id| *id == next) {
            let names = path[at..].iter().chain([&next]).map(|id| universe.binary(*id).name.to_string());
            return Err(ResolveError::Circle { cycle: names.collect() });
        }
        path.push(next);
    }
}

impl std::fmt::Display for Root<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.origin {
            Origin::Source { .. } => write!(f, "{}: {}", self.origin, self.clause),
            Origin::Essential | Origin::Recipe | Origin::Building => write!(f, "{} {}", self.origin, self.clause),
        }
    }
}

impl std::fmt::Display for Origin<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Essential => f.write_str("every environment needs the essential package"),
            Self::Recipe => f.write_str("the recipe asks for"),
            Self::Building => f.write_str("every build needs"),
            Self::Source { name, field } => write!(f, "source {name} has {field}"),
        }
    }
}
