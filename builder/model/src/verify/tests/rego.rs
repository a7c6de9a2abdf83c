//! Further rules: they see who says what, and can only say no.

use std::collections::BTreeMap;

use super::lab::{World, complaint, identical, passes, refuses};
use crate::outcome::Moment;
use crate::policy::rego::Rego;
use crate::verify::{Answer, Code, Decision};

fn decided(world: &World, rules: &str, candidates: &[Vec<u8>]) -> Decision {
    let text = world.policy.replacen("[artifact]", "rego = { modules = [\"rules.rego\"] }\n[artifact]", 1);
    let module = format!("package kiln\nimport rego.v1\n{rules}\n");
    let rego = Rego::new(&BTreeMap::from([("rules.rego".to_owned(), module)]), world.now).unwrap();
    let ruled = World { policy: text, ..world.clone() };
    ruled.judged(candidates, |verifier, evidence| {
        let mut decision = verifier.decide(&world.artifact, &evidence);
        verifier.further(&rego, &mut decision, &evidence);
        decision
    })
}

#[test]
fn rules_see_statements_with_their_signers_and_deny_with_their_own_words() {
    let world = World::new();
    let both = [identical(1), identical(2)];
    let rules = r#"
deny contains reason if {
  some one in input.statements
  one.operator == "org-2"
  some input_of in one.statement.predicate.buildDefinition.resolvedDependencies
  contains(input_of.uri, "gcc-12")
  reason := sprintf("%s built with %s", [one.operator, input_of.uri])
}"#;
    let decision = decided(&world, rules, &both);
    refuses(&decision, 1, Code::Rego);
    assert!(complaint(&decision, Code::Rego).got.contains("org-2 built with pkg:deb/debian/gcc-12"));
    passes(&decided(&world, rules, &[identical(1), identical(3)]));
    passes(&decided(&world, "deny contains \"x\" if { input.decision.answer != \"allowed\" }", &both));
}

#[test]
fn whatever_rules_say_no_denial_is_lifted() {
    let world = World::new();
    let allow = "default allow := true\nallow if { true }\nanswer := \"allowed\"\ndeny := set()";
    let decision = decided(&world, allow, &[identical(1)]);
    assert_eq!((decision.answer, decision.exit), (Answer::Insufficient, 4));
    let decision = decided(&world, allow, &[identical(1), identical(2), super::lab::different(3)]);
    assert_eq!((decision.answer, decision.exit), (Answer::Denied, 1));
}

#[test]
fn rules_that_do_not_answer_deny() {
    let world = World::new();
    for rules in ["deny := true", "deny contains \"x\" if { 1 / 0 == 1 }", "deny := {\"a\"} if { false }"] {
        refuses(&decided(&world, rules, &[identical(1), identical(2)]), 1, Code::Rego);
    }
}

#[test]
fn the_time_of_rules_is_the_verifiers() {
    let mut world = World::new();
    let rules = "deny contains \"late\" if { time.now_ns() > time.parse_rfc3339_ns(\"2026-11-22T12:00:00Z\") }";
    passes(&decided(&world, rules, &[identical(1), identical(2)]));
    world.now = Moment::from_unix(world.now.unix() + 1);
    refuses(&decided(&world, rules, &[identical(1), identical(2)]), 1, Code::Rego);
}
