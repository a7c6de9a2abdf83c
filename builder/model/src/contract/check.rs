//! What a derivation says of its outputs: what they may and may not name, how large they may be.
//!
//! As Nix's `checkOutputs`: `allowedReferences` and its kin for all outputs, or `outputChecks` for each one where
//! attributes are structured. Pure: the closure of a path is asked of the caller.

use std::collections::{BTreeMap, BTreeSet};

use crate::derivation::Derivation;
use crate::name::Name;
use crate::store_path::StorePath;

use super::ContractError;

/// What is checked of one derivation's outputs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checks(BTreeMap<Name, Vec<Check>>);

/// An output that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    /// Where it goes.
    pub path: StorePath,
    /// Store paths that it names.
    pub references: BTreeSet<StorePath>,
    /// Bytes of its NAR.
    pub nar_size: u64,
}

/// An output that is not as its derivation says it must be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckError {
    /// It names what it may not.
    #[error("output {output} names {}, which {attribute} does not allow", list(paths))]
    Reference {
        /// Which output.
        output: Name,
        /// Which attribute.
        attribute: &'static str,
        /// What it names.
        paths: BTreeSet<StorePath>,
    },
    /// It, or all that it needs, is too large.
    #[error("output {output} has {found} bytes; {attribute} allows {limit}")]
    Size {
        /// Which output.
        output: Name,
        /// Which attribute.
        attribute: &'static str,
        /// As made.
        found: u64,
        /// As allowed.
        limit: u64,
    },
}

/// Says what a valid path names, and how many bytes its NAR has.
pub type Known<'a> = dyn Fn(&StorePath) -> Option<(BTreeSet<StorePath>, u64)> + 'a;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Check {
    Names { attribute: &'static str, listed: BTreeSet<StorePath>, rule: Rule, reach: Reach, itself: Itself },
    Size { attribute: &'static str, limit: u64, reach: Reach },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    Only,
    None,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    Itself,
    Closure,
}

/// Whether an output is among what it needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Itself {
    Counts,
    /// As Nix has it where attributes are not structured.
    DoesNot,
}

const NAMES: [(&str, Rule, Reach); 4] = [
    ("allowedReferences", Rule::Only, Reach::Itself),
    ("disallowedReferences", Rule::None, Reach::Itself),
    ("allowedRequisites", Rule::Only, Reach::Closure),
    ("disallowedRequisites", Rule::None, Reach::Closure),
];

const SIZES: [(&str, Reach); 2] = [("maxSize", Reach::Itself), ("maxClosureSize", Reach::Closure)];

fn list(paths: &BTreeSet<StorePath>) -> String {
    paths.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

impl Checks {
    /// What `derivation` says; `outputs` is where each output goes, because a list may name one.
    pub fn of(derivation: &Derivation, outputs: &BTreeMap<Name, StorePath>) -> Result<Self, ContractError> {
        let mut checks: BTreeMap<Name, Vec<Check>> = BTreeMap::new();
        let listed = |attribute: &str, words: &mut dyn Iterator<Item = &str>| {
            let path = |word: &str| {
                let output = word.parse::<Name>().ok().and_then(|name| outputs.get(&name).cloned());
                output.or_else(|| word.parse().ok()).ok_or_else(|| ContractError::Unsupported {
                    attribute: format!("{attribute}: {word}"),
                    what: "expected a store path or the name of an output",
                })
            };
            words.map(path).collect::<Result<BTreeSet<StorePath>, _>>()
        };
        let Some(attributes) = derivation.structured()? else {
            for (attribute, rule, reach) in NAMES {
                let Some(value) = derivation.attribute(attribute)? else { continue };
                let listed = listed(attribute, &mut value.split_ascii_whitespace())?;
                for output in outputs.keys() {
                    let (listed, itself) = (listed.clone(), Itself::DoesNot);
                    let check = Check::Names { attribute, listed, rule, reach, itself };
                    checks.entry(output.clone()).or_default().push(check);
                }
            }
            return Ok(Self(checks));
        };
        let of_outputs = attributes.get("outputChecks").and_then(serde_json::Value::as_object);
        for (output, said) in of_outputs.into_iter().flatten() {
            let Ok(output) = output.parse::<Name>() else { continue };
            let refuse = |attribute: &str, what| ContractError::Unsupported {
                attribute: format!("outputChecks.{output}.{attribute}"),
                what,
            };
            for (attribute, rule, reach) in NAMES {
                let Some(value) = said.get(attribute) else { continue };
                let words = value.as_array().and_then(|items| items.iter().map(|item| item.as_str()).collect());
                let words: Vec<&str> = words.ok_or_else(|| refuse(attribute, "expected a list of strings"))?;
                let listed = listed(attribute, &mut words.into_iter())?;
                let check = Check::Names { attribute, listed, rule, reach, itself: Itself::Counts };
                checks.entry(output.clone()).or_default().push(check);
            }
            for (attribute, reach) in SIZES {
                let Some(value) = said.get(attribute) else { continue };
                let limit = value.as_u64().ok_or_else(|| refuse(attribute, "expected a number of bytes"))?;
                checks.entry(output.clone()).or_default().push(Check::Size { attribute, limit, reach });
            }
        }
        Ok(Self(checks))
    }

    /// Holds `made` against what was said. `known` is asked for paths outside of `made`.
    pub fn hold(&self, made: &BTreeMap<Name, Made>, known: &Known<'_>) -> Result<(), CheckError> {
        for (output, checks) in &self.0 {
            let Some(own) = made.get(output) else { continue };
            for check in checks {
                match check {
                    Check::Names { attribute, listed, rule, reach, itself } => {
                        let mut named = match reach {
                            Reach::Itself => own.references.clone(),
                            Reach::Closure => closure(own, made, known).into_keys().collect(),
                        };
                        if (*reach, *itself) == (Reach::Closure, Itself::DoesNot) {
                            named.remove(&own.path);
                        }
                        let bad = |path: &&StorePath| listed.contains(*path) != (*rule == Rule::Only);
                        let paths: BTreeSet<StorePath> = named.iter().filter(bad).cloned().collect();
                        if !paths.is_empty() {
                            return Err(CheckError::Reference { output: output.clone(), attribute, paths });
                        }
                    }
                    Check::Size { attribute, limit, reach } => {
                        let found = match reach {
                            Reach::Itself => own.nar_size,
                            Reach::Closure => closure(own, made, known).into_values().sum(),
                        };
                        if found > *limit {
                            return Err(CheckError::Size { output: output.clone(), attribute, found, limit: *limit });
                        }
                    }
                }
            }
        }
        Ok(())
    }
}

/// All that `own` needs, itself included, with sizes.
fn closure(own: &Made, made: &BTreeMap<Name, Made>, known: &Known<'_>) -> BTreeMap<StorePath, u64> {
    let mut sizes = BTreeMap::new();
    let mut open = vec![own.path.clone()];
    while let Some(path) = open.pop() {
        if sizes.contains_key(&path) {
            continue;
        }
        let sibling = made.values().find(|made| made.path == path);
        let found = sibling.map(|made| (made.references.clone(), made.nar_size)).or_else(|| known(&path));
        let (references, size) = found.unwrap_or_default();
        sizes.insert(path, size);
        open.extend(references);
    }
    sizes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::derivation::Parts;

    fn path(name: &str) -> StorePath {
        StorePath::text(name, b"", &BTreeSet::new()).unwrap()
    }

    /// `out` names `a`, which names `b`; `dev` names `out`.
    fn hold(environment: &[(&str, String)]) -> Result<Result<(), CheckError>, ContractError> {
        let parts = Parts {
            name: "x".parse().unwrap(),
            outputs: ["out".parse().unwrap(), "dev".parse().unwrap()].into(),
            input_derivations: BTreeMap::new(),
            input_sources: BTreeSet::new(),
            system: "x86_64-linux".into(),
            builder: b"/b".to_vec(),
            arguments: Vec::new(),
            environment: environment.iter().map(|(k, v)| (k.as_bytes().to_vec(), v.as_bytes().to_vec())).collect(),
        };
        let derivation = Derivation::close(parts, &BTreeMap::new()).unwrap().derivation;
        let outputs: BTreeMap<Name, StorePath> =
            derivation.outputs.iter().map(|(name, output)| (name.clone(), output.path().unwrap().clone())).collect();
        let made = |name: &str, references| {
            (name.parse().unwrap(), Made { path: outputs[&name.parse().unwrap()].clone(), references, nar_size: 100 })
        };
        let out = outputs[&"out".parse().unwrap()].clone();
        let made = BTreeMap::from([made("out", [path("a")].into()), made("dev", [out].into())]);
        let known = |asked: &StorePath| match asked.name() {
            "a" => Some((BTreeSet::from([path("b")]), 10)),
            "b" => Some((BTreeSet::new(), 1)),
            _ => None,
        };
        Ok(Checks::of(&derivation, &outputs)?.hold(&made, &known))
    }

    #[test]
    fn references_are_held_against_the_lists_of_paths_and_outputs() {
        let a = path("a").to_string();
        assert_eq!(hold(&[("allowedReferences", format!("{a} out"))]), Ok(Ok(())));
        assert!(matches!(hold(&[("allowedReferences", a.clone())]), Ok(Err(CheckError::Reference { .. }))));
        assert!(matches!(hold(&[("allowedReferences", String::new())]), Ok(Err(CheckError::Reference { .. }))));
        assert!(matches!(hold(&[("disallowedReferences", a)]), Ok(Err(CheckError::Reference { .. }))));
        assert_eq!(hold(&[("disallowedReferences", path("b").to_string())]), Ok(Ok(())));
        assert!(matches!(
            hold(&[("disallowedRequisites", path("b").to_string())]),
            Ok(Err(CheckError::Reference { .. }))
        ));
        assert!(hold(&[("allowedReferences", "neither".into())]).is_err());
    }

    #[test]
    fn an_output_is_among_what_it_needs_only_where_attributes_are_structured() {
        let all = format!("{} {} out", path("a"), path("b"));
        assert_eq!(hold(&[("allowedRequisites", all)]), Ok(Ok(())));
        assert_eq!(hold(&[("disallowedRequisites", "dev".into())]), Ok(Ok(())));
        let checks = |text: &str| hold(&[("__json", format!("{{\"outputChecks\":{text}}}"))]);
        let refused = checks(r#"{"dev":{"disallowedRequisites":["dev"]}}"#);
        assert!(matches!(refused, Ok(Err(CheckError::Reference { .. }))));
    }

    #[test]
    fn structured_checks_are_of_one_output_and_know_sizes() {
        let checks = |text: &str| hold(&[("__json", format!("{{\"outputChecks\":{text}}}"))]);
        assert_eq!(checks(r#"{"out":{"maxSize":100,"maxClosureSize":111}}"#), Ok(Ok(())));
        assert!(matches!(checks(r#"{"out":{"maxSize":99}}"#), Ok(Err(CheckError::Size { found: 100, .. }))));
        assert!(matches!(checks(r#"{"dev":{"maxClosureSize":210}}"#), Ok(Err(CheckError::Size { found: 211, .. }))));
        assert!(matches!(checks(r#"{"dev":{"allowedReferences":[]}}"#), Ok(Err(CheckError::Reference { .. }))));
        assert!(checks(r#"{"out":{"maxSize":"large"}}"#).is_err());
    }
}
