//! Which releases a build needs: requirements (PEP 508) to wheels, as an installer would have chosen at a given moment.
//!
//! For each project the newest release that all requirements on it allow, that was there at that moment, and that has a wheel
//! for this machine. Releases that were withdrawn (yanked) or are not final are taken only if a requirement names them. What
//! cannot be had is missing, with the chain that asks for it; a conflict names both sides. No source is ever built for this.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::str::FromStr;

use jiff::Timestamp;
use kiln_model::report::Missing;
use kiln_model::wheel::file_name::Machine;
use pep440_rs::{Operator, Version, VersionSpecifiers};
use pep508_rs::{ExtraName, MarkerEnvironment, MarkerEnvironmentBuilder, Requirement, VersionOrUrl};

use super::WheelError;
use super::index::{self, Index, Offered, OfferedKind};
use super::reference;

/// Rounds after which requirements that keep changing are given up.
const ROUNDS: usize = 50;

/// A wheel that is installed for the build.
#[derive(Debug, Clone)]
pub(super) struct Chosen {
    /// Normalised project.
    pub(super) project: String,
    /// The file.
    pub(super) offered: Offered,
    /// Where it is, digest checked.
    pub(super) file: PathBuf,
}

/// Resolves requirements.
pub(super) struct Resolver<'a> {
    /// What there is.
    pub(super) index: &'a Index<'a>,
    /// What it must run on.
    pub(super) machine: &'a Machine,
    /// What was uploaded later is hidden.
    pub(super) until: Option<Timestamp>,
}

/// A requirement and who has it, for messages.
type Wish = (String, Requirement);

impl Resolver<'_> {
    /// The wheels that `requirements` come to, by project. Each is given with who asks for it.
    pub(super) fn resolve(&self, requirements: &[(String, String)]) -> Result<BTreeMap<String, Chosen>, WheelError> {
        let environment = markers(self.machine);
        let roots = requirements.iter().map(|(by, text)| Ok((by.clone(), parsed(by, text)?)));
        let roots: Vec<Wish> = roots.collect::<Result<_, WheelError>>()?;
        let mut unsuitable: BTreeSet<(String, Version)> = BTreeSet::new();
        let mut known: BTreeMap<String, Vec<Wish>> = BTreeMap::new();
        for _ in 0..ROUNDS {
            let mut chosen: BTreeMap<String, Chosen> = BTreeMap::new();
            let mut wishes: BTreeMap<String, Vec<Wish>> = BTreeMap::new();
            let mut seen: BTreeSet<String> = BTreeSet::new();
            let mut queue: Vec<(Wish, Vec<ExtraName>)> =
                roots.iter().rev().map(|wish| (wish.clone(), Vec::new())).collect();
            while let Some((wish, extras)) = queue.pop() {
                let (by, requirement) = &wish;
                if !requirement.evaluate_markers(&environment, &extras) || !seen.insert(format!("{by}\n{requirement}"))
                {
                    continue;
                }
                let project = requirement.name.to_string();
                let all = wishes.entry(project.clone()).or_default();
                all.push(wish.clone());
                if !chosen.contains_key(&project) {
                    let asked: Vec<&Wish> = all.iter().chain(known.get(&project).into_iter().flatten()).collect();
                    match self.newest(&project, &asked, &mut unsuitable)? {
                        Some(found) => drop(chosen.insert(project.clone(), found)),
                        None => return Err(self.nothing(&project, &asked)?),
                    }
                }
                let found = &chosen[&project];
                let by = format!("{project} {}", found.offered.version);
                for text in reference::metadata(&found.file)?.requires {
                    queue.push(((by.clone(), parsed(&by, &text)?), requirement.extras.clone()));
                }
            }
            // A choice that was made before all was asked may not do; the next round knows it from the start.
            let good = |(project, found): (&String, &Chosen)| {
                wishes.get(project).into_iter().flatten().all(|(_, wish)| allows(wish, &found.offered.version))
            };
            if chosen.iter().all(good) {
                return Ok(chosen);
            }
            for (project, all) in wishes {
                let known = known.entry(project).or_default();
                known.extend(all.into_iter().filter(|wish| !known.contains(wish)).collect::<Vec<_>>());
            }
        }
        Err(WheelError::Unsettled { rounds: ROUNDS })
    }

    /// The newest release that all of `wishes` allow.
    fn newest(
        &self,
        project: &str,
        wishes: &[&Wish],
        unsuitable: &mut BTreeSet<(String, Version)>,
    ) -> Result<Option<Chosen>, WheelError> {
        let page = self.index.project(project).map_err(|error| asked_for(error, wishes))?;
        loop {
            let candidate = |offered: &&Offered| {
                self.fits(offered).is_some()
                    && self.is_there(offered)
                    && offered.suits(self.machine)
                    && is_wanted(offered, wishes)
                    && !unsuitable.contains(&(project.to_string(), offered.version.clone()))
            };
            let best = page
                .iter()
                .filter(candidate)
                .max_by_key(|offered| (offered.version.clone(), self.fits(offered), build_number(offered)));
            let Some(best) = best else { return Ok(None) };
            let file = self.index.fetched("build requirement", best)?;
            // Where the listing does not say which Pythons a release is for, the wheel does.
            let metadata = reference::metadata(&file)?;
            if metadata.requires_python.is_none_or(|text| index::is_for(&text, self.machine)) {
                return Ok(Some(Chosen { project: project.into(), offered: best.clone(), file }));
            }
            unsuitable.insert((project.into(), best.version.clone()));
        }
    }

    fn fits(&self, offered: &Offered) -> Option<kiln_model::wheel::file_name::Fit> {
        match &offered.kind {
            OfferedKind::Wheel(name) => name.fit(self.machine),
            OfferedKind::Sdist => None,
        }
    }

    /// Whether it was there at the moment in question. Where the index does not say when, it was.
    fn is_there(&self, offered: &Offered) -> bool {
        match (self.until, offered.uploaded) {
            (Some(until), Some(uploaded)) => uploaded <= until,
            (None, _) | (_, None) => true,
        }
    }

    /// Why nothing fits, told with what there is.
    fn nothing(&self, project: &str, wishes: &[&Wish]) -> Result<WheelError, WheelError> {
        let page = self.index.project(project)?;
        let allowed = |offered: &&Offered| wishes.iter().all(|(_, wish)| allows(wish, &offered.version));
        let mut tries = Vec::new();
        if !page.iter().any(|offered| allowed(&offered)) {
            let there: BTreeSet<&Version> = page.iter().map(|offered| &offered.version).collect();
            let newest: Vec<String> = there.iter().rev().take(5).map(ToString::to_string).collect();
            tries.push(match newest.is_empty() {
                true => "the index has no release of it".into(),
                false => format!("releases on the index: {}, the newest {}", there.len(), newest.join(", ")),
            });
        } else {
            tries.push(match self.until {
                Some(until) => format!(
                    "no release that is allowed was there at {until} as a wheel for CPython 3.{}",
                    self.machine.minor
                ),
                None => format!("no release that is allowed is there as a wheel for CPython 3.{}", self.machine.minor),
            });
        }
        Ok(WheelError::Missing(vec![Missing { what: told(wishes), tries }]))
    }
}

/// Requirements on a project and who has them, in words.
fn told(wishes: &[&Wish]) -> String {
    let asked: BTreeSet<String> = wishes.iter().map(|(by, wish)| format!("{wish} (of {by})")).collect();
    format!("build requirement {}", asked.into_iter().collect::<Vec<_>>().join(" and "))
}

/// A project that is nowhere is missing because somebody asks for it.
fn asked_for(error: WheelError, wishes: &[&Wish]) -> WheelError {
    match error {
        WheelError::Missing(missing) => {
            let tries = missing.into_iter().flat_map(|missing| missing.tries).collect();
            WheelError::Missing(vec![Missing { what: told(wishes), tries }])
        }
        other => other,
    }
}

/// Whether releases like this are taken without being named: final ones that were not withdrawn.
fn is_wanted(offered: &Offered, wishes: &[&Wish]) -> bool {
    let specifiers = || wishes.iter().filter_map(|(_, wish)| specifiers(wish)).flat_map(|all| all.iter());
    let named = || {
        specifiers()
            .any(|s| matches!(s.operator(), Operator::Equal | Operator::ExactEqual) && s.version() == &offered.version)
    };
    let unfinished = offered.version.any_prerelease();
    wishes.iter().all(|(_, wish)| allows(wish, &offered.version))
        && (!unfinished || specifiers().any(|s| s.any_prerelease()))
        && (offered.listed.yanked.is_none() || named())
}

fn specifiers(requirement: &Requirement) -> Option<&VersionSpecifiers> {
    match &requirement.version_or_url {
        Some(VersionOrUrl::VersionSpecifier(specifiers)) => Some(specifiers),
        Some(VersionOrUrl::Url(_)) | None => None,
    }
}

fn allows(requirement: &Requirement, version: &Version) -> bool {
    specifiers(requirement).is_none_or(|specifiers| specifiers.contains(version))
}

fn build_number(offered: &Offered) -> (u64, String) {
    let OfferedKind::Wheel(name) = &offered.kind else { return (0, String::new()) };
    let build = name.build.as_deref().unwrap_or_default();
    let digits = build.bytes().take_while(u8::is_ascii_digit).count();
    (build[..digits].parse().unwrap_or(0), build[digits..].to_string())
}

fn parsed(by: &str, text: &str) -> Result<Requirement, WheelError> {
    let refuse = |what: String| WheelError::Requirement { by: by.into(), requirement: text.into(), what };
    let requirement = Requirement::from_str(text).map_err(|error| refuse(error.message.to_string()))?;
    match requirement.version_or_url {
        Some(VersionOrUrl::Url(_)) => Err(refuse("names an address; only an index pins what it has".into())),
        Some(VersionOrUrl::VersionSpecifier(_)) | None => Ok(requirement),
    }
}

/// CPython on Linux, for markers; what a marker can say of kernels is not told.
fn markers(machine: &Machine) -> MarkerEnvironment {
    let short = format!("3.{}", machine.minor);
    let full = format!("{short}.0");
    MarkerEnvironmentBuilder {
        implementation_name: "cpython",
        implementation_version: &full,
        os_name: "posix",
        platform_machine: &machine.architecture,
        platform_python_implementation: "CPython",
        platform_release: "",
        platform_system: "Linux",
        platform_version: "",
        python_full_version: &full,
        python_version: &short,
        sys_platform: "linux",
    }
    .try_into()
    .expect("3.MINOR is a version")
}

#[cfg(test)]
mod tests {
    use super::super::samples::Shelf;
    use super::*;
    use serde_json::json;

    fn resolved(shelf: &Shelf, until: Option<&str>, wishes: &[&str]) -> Result<Vec<String>, WheelError> {
        let index = Index::new(shelf);
        let machine = Machine { minor: 11, architecture: "x86_64".into(), glibc: 36 };
        let until = until.map(|day| format!("2026-{day}T12:00:00Z").parse().unwrap());
        let wishes: Vec<_> = wishes.iter().map(|wish| ("the test".to_string(), wish.to_string())).collect();
        let chosen = Resolver { index: &index, machine: &machine, until }.resolve(&wishes)?;
        Ok(chosen.values().map(|c| format!("{} {}", c.project, c.offered.version)).collect())
    }

    fn missing(result: Result<Vec<String>, WheelError>) -> (String, String) {
        match result {
            Err(WheelError::Missing(missing)) => (missing[0].what.clone(), missing[0].tries.join(" ")),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_newest_of_then_is_taken_with_all_that_it_needs() {
        let mut shelf = Shelf::new();
        shelf.wheel("hatchling", "1.0", "01-01", &["packaging>=2", "tomli; python_version < '3.11'"]);
        shelf.wheel("packaging", "2.0", "01-01", &[]).wheel("packaging", "2.1", "03-01", &[]);
        shelf.wheel("packaging", "3.0", "06-01", &[]);
        let wishes = ["hatchling"];
        assert_eq!(resolved(&shelf, Some("03-02"), &wishes).unwrap(), ["hatchling 1.0", "packaging 2.1"]);
        assert_eq!(resolved(&shelf, Some("02-02"), &wishes).unwrap(), ["hatchling 1.0", "packaging 2.0"]);
        assert_eq!(resolved(&shelf, None, &wishes).unwrap(), ["hatchling 1.0", "packaging 3.0"]);
    }

    #[test]
    fn a_later_requirement_takes_back_an_earlier_choice() {
        let mut shelf = Shelf::new();
        shelf.wheel("a", "1", "01-01", &[]).wheel("a", "2", "01-01", &[]);
        shelf.wheel("b", "1", "01-01", &["a<2"]);
        assert_eq!(resolved(&shelf, None, &["a", "b"]).unwrap(), ["a 1", "b 1"]);
        assert_eq!(resolved(&shelf, None, &["b", "a"]).unwrap(), ["a 1", "b 1"]);
    }

    #[test]
    fn withdrawn_and_unfinished_releases_must_be_named() {
        let mut shelf = Shelf::new();
        shelf.wheel("a", "1", "01-01", &[]).wheel("a", "3rc1", "01-01", &[]);
        shelf.listed_wheel("a", "2", &[], &json!({"yanked": "broken"}));
        assert_eq!(resolved(&shelf, None, &["a"]).unwrap(), ["a 1"]);
        assert_eq!(resolved(&shelf, None, &["a==2"]).unwrap(), ["a 2"]);
        assert_eq!(resolved(&shelf, None, &["a>=3rc1"]).unwrap(), ["a 3rc1"]);
    }

    #[test]
    fn a_release_for_other_pythons_is_passed_over() {
        let mut shelf = Shelf::new();
        shelf.wheel("a", "1", "01-01", &[]);
        shelf.listed_wheel("a", "2", &[], &json!({"requires-python": ">=3.12"}));
        shelf.listed_wheel("a", "1.5", &[], &json!({"requires-python": "!=3.0.*,<4"}));
        assert_eq!(resolved(&shelf, None, &["a"]).unwrap(), ["a 1.5"]);
    }

    #[test]
    fn extras_bring_what_they_name() {
        let mut shelf = Shelf::new();
        shelf.wheel("a", "1", "01-01", &["b; extra == 'more'", "c; extra == 'other'"]);
        shelf.wheel("b", "1", "01-01", &[]).wheel("c", "1", "01-01", &[]);
        assert_eq!(resolved(&shelf, None, &["a[more]"]).unwrap(), ["a 1", "b 1"]);
        assert_eq!(resolved(&shelf, None, &["a"]).unwrap(), ["a 1"]);
    }

    #[test]
    fn what_cannot_be_had_is_missing_and_says_who_wants_it() {
        let mut shelf = Shelf::new();
        shelf.wheel("a", "1", "06-01", &["nowhere"]).wheel("b", "1", "01-01", &["a==7"]);
        shelf.wheel("c", "1", "01-01", &[]);
        let (what, tries) = missing(resolved(&shelf, None, &["b"]));
        assert_eq!(what, "build requirement a==7 (of b 1)");
        assert_eq!(tries, "releases on the index: 1, the newest 1");
        let (what, tries) = missing(resolved(&shelf, Some("02-01"), &["a"]));
        assert_eq!(what, "build requirement a (of the test)");
        assert!(tries.contains("was there at 2026-02-01"), "{tries}");
        let (what, _) = missing(resolved(&shelf, None, &["a"]));
        assert_eq!(what, "build requirement nowhere (of a 1)");
        let (what, _) = missing(resolved(&shelf, None, &["c==1", "c!=1"]));
        assert_eq!(what, "build requirement c!=1 (of the test) and c==1 (of the test)");
    }

    #[test]
    fn an_address_and_what_is_no_requirement_are_refused() {
        let shelf = Shelf::new();
        for bad in ["a @ https://example.invalid/a.whl", "a >< 1", "", "../a"] {
            let refused = resolved(&shelf, None, &[bad]);
            assert!(matches!(refused, Err(WheelError::Requirement { .. })), "{bad}: {refused:?}");
        }
    }
}
