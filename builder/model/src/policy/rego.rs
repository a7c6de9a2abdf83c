//! Further rules of a policy, in Rego: modules that may say no, and nothing else.
//!
//! `data.kiln.deny` is a set of reasons; whatever is in it denies. What cannot be evaluated, what is no set of texts and what
//! takes too long denies as well: rules that did not answer have not agreed. They see what they are given and no more: no
//! network, no random numbers, no clock but the verifier's. Lifting a denial is not in their power: [`Rego::reasons`] gives
//! reasons against, and the caller has no use for anything else.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use regorus::utils::limits::ExecutionTimerConfig;
use regorus::{Engine, Value};

use crate::outcome::Moment;

/// The rule that is asked.
const RULE: &str = "data.kiln.deny";
/// The package that it stands in, and its head there.
const PACKAGE: &str = "data.kiln";
const HEAD: &str = "deny";
/// How long one artifact's rules may take.
const LONGEST: Duration = Duration::from_secs(2);
/// Steps of the evaluation between two looks at that.
const STEPS: NonZeroU32 = NonZeroU32::new(256).expect("not zero");
/// Numbers that a range may have, as it is made in one step.
const LONGEST_RANGE: u64 = 100_000;
/// Reasons that are told of one artifact.
const MOST_REASONS: usize = 100;
/// Characters of a reason.
const LONGEST_REASON: usize = 500;

/// Modules that can be asked.
pub struct Rego {
    /// Copied for each question; the lock is because an engine must not be looked at by two threads.
    engine: Mutex<Engine>,
    modules: Vec<String>,
}

/// Why modules cannot be asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegoError {
    /// Not Rego, or something that is not there: Rego names file, line and column.
    #[error("rego module {module}: {says}")]
    Module {
        /// The module's file.
        module: String,
        /// What Rego says.
        says: String,
    },
    /// No rule to ask.
    #[error(
        "rego.modules: none of {} has the rule {RULE}; write `package kiln` and `deny contains reason if {{ … }}`", modules.join(", ")
    )]
    NoRule {
        /// Their files.
        modules: Vec<String>,
    },
    /// Rules that did not answer.
    #[error("{says}")]
    Unanswered {
        /// What Rego says, with file and line.
        says: String,
    },
    /// Another answer than reasons.
    #[error("{RULE} of {}: expected a set of texts, found {found}", modules.join(", "))]
    NoReasons {
        /// The modules.
        modules: Vec<String>,
        /// What it is.
        found: String,
    },
}

impl std::fmt::Debug for Rego {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rego").finish_non_exhaustive()
    }
}

impl Rego {
    /// The modules, by name, ready to be asked as of `now`.
    pub fn new(modules: &BTreeMap<String, String>, now: Moment) -> Result<Self, RegoError> {
        let mut engine = Engine::new();
        engine.set_strict_builtin_errors(true);
        engine.set_gather_prints(true);
        engine.set_execution_timer_config(ExecutionTimerConfig { limit: LONGEST, check_interval: STEPS });
        let mut has_rule = false;
        for (name, text) in modules {
            let wrong = |error: &dyn std::fmt::Display| RegoError::Module { module: name.clone(), says: words(error) };
            let package = engine.add_policy(name.clone(), text.clone()).map_err(|error| wrong(&error))?;
            has_rule |= package == PACKAGE && engine.has_declared_rule_rooted_at(name, HEAD).unwrap_or(false);
        }
        let all = || modules.keys().cloned().collect::<Vec<_>>();
        if !has_rule {
            return Err(RegoError::NoRule { modules: all() });
        }
        let together =
            |error: &dyn std::fmt::Display| RegoError::Module { module: all().join(", "), says: words(error) };
        surroundings(&mut engine, now).map_err(|error| together(&error))?;
        Ok(Self { engine: Mutex::new(engine), modules: all() })
    }

    /// Why `input` is to be denied; empty if nothing is said against it.
    pub fn reasons(&self, input: &serde_json::Value) -> Result<BTreeSet<String>, RegoError> {
        let mut engine = self.engine.lock().unwrap_or_else(PoisonError::into_inner).clone();
        engine.set_input(Value::from(input.clone()));
        let unanswered = |error: &dyn std::fmt::Display| RegoError::Unanswered { says: words(error) };
        let answer = engine.eval_rule(RULE.to_owned()).map_err(|error| unanswered(&error))?;
        let other = |value: &Value| {
            let found = match value {
                Value::Undefined => "nothing".to_owned(),
                value => value.to_string().chars().take(80).collect(),
            };
            RegoError::NoReasons { modules: self.modules.clone(), found }
        };
        let set = answer.as_set().map_err(|_| other(&answer))?;
        let mut reasons = BTreeSet::new();
        for reason in set.iter().take(MOST_REASONS) {
            reasons.insert(plain(reason.as_string().map_err(|_| other(&answer))?));
        }
        if set.len() > MOST_REASONS {
            reasons.insert(format!("and {} more reasons", set.len() - MOST_REASONS));
        }
        Ok(reasons)
    }
}

/// What rules could learn or take from the host is replaced: the time, random numbers, memory without end.
fn surroundings(engine: &mut Engine, now: Moment) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let nanoseconds = now.unix().saturating_mul(1_000_000_000);
    engine.add_extension("time.now_ns".into(), 0, Box::new(move |_: Vec<Value>| Ok(Value::from(nanoseconds))))?;
    engine.add_extension(
        "rand.intn".into(),
        2,
        Box::new(|_: Vec<Value>| refused("rand.intn: there is no chance here")),
    )?;
    let range = |ends: Vec<Value>| {
        let (Ok(from), Ok(to)) = (ends[0].as_i64(), ends[1].as_i64()) else {
            return refused("numbers.range: expected integers");
        };
        if from.abs_diff(to) >= LONGEST_RANGE {
            return refused("numbers.range: at most 100000 numbers");
        }
        let numbers: Vec<Value> = match from <= to {
            true => (from..=to).map(Value::from).collect(),
            false => (to..=from).rev().map(Value::from).collect(),
        };
        Ok(Value::from(numbers))
    };
    engine.add_extension("numbers.range".into(), 2, Box::new(range))?;
    let no_steps = |_: Vec<Value>| refused("numbers.range_step: not here; take numbers.range");
    engine.add_extension("numbers.range_step".into(), 3, Box::new(no_steps))?;
    Ok(())
}

/// An error of a function, in the type that the engine asks for: what it makes of a failure to read a number.
fn refused<E: From<std::io::Error>>(why: &'static str) -> Result<Value, E> {
    Err(std::io::Error::other(why).into())
}

/// An error in one line.
fn words(error: &dyn std::fmt::Display) -> String {
    plain(&error.to_string().split_whitespace().collect::<Vec<_>>().join(" "))
}

fn plain(text: &str) -> String {
    let shown: String = text.chars().take(LONGEST_REASON).collect();
    shown.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn rego(text: &str) -> Result<Rego, RegoError> {
        Rego::new(&BTreeMap::from([("rules.rego".to_owned(), text.to_owned())]), Moment::from_unix(1_000))
    }

    fn asked(body: &str) -> Result<BTreeSet<String>, RegoError> {
        rego(&format!("package kiln\nimport rego.v1\n{body}\n"))?.reasons(&json!({"n": 3, "names": ["a", "b"]}))
    }

    #[test]
    fn reasons_are_what_the_rule_says() {
        assert_eq!(asked("deny contains \"never\" if { input.n > 3 }").unwrap(), BTreeSet::new());
        let two = asked("deny contains sprintf(\"not %s\", [name]) if { some name in input.names }").unwrap();
        assert_eq!(two, BTreeSet::from(["not a".to_owned(), "not b".to_owned()]));
    }

    #[test]
    fn a_module_that_cannot_be_read_is_named_with_its_line() {
        let error = rego("package kiln\nimport rego.v1\ndeny contains if {\n").unwrap_err().to_string();
        assert!(error.contains("rules.rego") && error.contains("rules.rego:3"), "{error}");
        for (text, says) in
            [("package other\nx := 1\n", "data.kiln.deny"), ("package kiln\nallow := true\n", "data.kiln.deny")]
        {
            let error = rego(text).unwrap_err();
            assert!(matches!(error, RegoError::NoRule { .. }) && error.to_string().contains(says), "{error}");
        }
    }

    #[test]
    fn another_answer_than_a_set_of_texts_is_no_consent() {
        for body in [
            "deny := true",
            "deny := {1}",
            "deny := [\"a\"]",
            "deny := \"a\"",
            "deny := {\"a\"} if { false }",
            "deny contains 1",
        ] {
            let answer = asked(body);
            assert!(matches!(answer, Err(RegoError::NoReasons { .. })), "{body}: {answer:?}");
        }
    }

    #[test]
    fn what_fails_while_it_is_evaluated_is_no_consent_and_says_where() {
        for (body, says) in [
            ("deny contains \"x\" if { to_number(\"x\") > 1 }", "rules.rego:3"),
            ("deny contains \"x\" if { 1 / 0 > 1 }", "rules.rego:3"),
            (
                "deny contains \"x\" if { http.send({\"method\": \"GET\", \"url\": \"http://127.0.0.1/\"}) }",
                "http.send",
            ),
            ("deny contains \"x\" if { rand.intn(\"a\", 5) > 9 }", "rand.intn"),
            ("deny contains \"x\" if { count(numbers.range(1, 100000000000)) == 0 }", "numbers.range"),
        ] {
            let answer = asked(body).map_err(|error| error.to_string());
            assert!(matches!(&answer, Err(error) if error.contains(says)), "{body}: {answer:?}");
        }
    }

    #[test]
    fn the_time_is_the_verifiers() {
        assert_eq!(asked("deny contains \"x\" if { time.now_ns() != 1000000000000 }").unwrap(), BTreeSet::new());
        assert_eq!(asked("deny contains \"x\" if { time.now_ns() == 1000000000000 }").unwrap().len(), 1);
    }

    #[test]
    fn rules_without_end_are_stopped() {
        let body = "n := numbers.range(1, 100000)\ndeny contains \"x\" if { some a in n; some b in n; a * b == -1 }";
        let error = asked(body).unwrap_err();
        assert!(matches!(error, RegoError::Unanswered { .. }), "{error:?}");
    }

    #[test]
    fn a_flood_of_reasons_is_cut_and_what_steers_a_terminal_is_not_passed_on() {
        let many = asked("deny contains sprintf(\"%d\", [n]) if { some n in numbers.range(1, 500) }").unwrap();
        assert!(many.len() == MOST_REASONS + 1 && many.contains("and 400 more reasons"));
        let one = asked("deny contains \"a\\u001b[2Jb\\nc\"").unwrap();
        assert_eq!(one, BTreeSet::from(["a\u{fffd}[2Jb\u{fffd}c".to_owned()]));
    }
}
