//! Three rebuilders, of which one lies, is silent, replays, has two names, or is hidden.

use serde_json::json;

use super::lab::*;
use crate::verdict::Verdict;
use crate::verify::{Code, Status};

#[test]
fn two_of_three_pass_while_the_third_is_silent_or_failed() {
    passes(&World::new().decide(&[identical(1), identical(2)]));
    let failed = signed(3, &comparison(3, "BUILD_FAILED", "", ""));
    let decision = World::new().decide(&[identical(1), identical(2), failed.clone()]);
    passes(&decision);
    assert_eq!(decision.verdict, Verdict::Reproduced);
    let never = signed(3, &comparison(3, "NOT_ATTEMPTED", "", ""));
    passes(&World::new().decide(&[identical(1), identical(2), identical(3), never]));
    refuses(&World::new().decide(&[identical(1), failed]), 4, Code::Threshold);
}

#[test]
fn one_that_lies_cannot_make_others_bytes_pass() {
    // The storage serves other bytes than two rebuilders made, and the third blesses them.
    let mut world = World::new();
    world.artifact.digest = crate::statement::DigestSet::of(crate::digest::Digest::of("poisoned"));
    let lie = signed(3, &provenance(3, "poisoned"));
    refuses(&world.decide(&[identical(1), identical(2), lie]), 4, Code::Threshold);
}

#[test]
fn one_that_cries_different_is_a_veto_that_a_policy_may_outvote_only_clearly() {
    let evidence = [identical(1), identical(2), different(3)];
    let decision = World::new().decide(&evidence);
    refuses(&decision, 1, Code::Dissent);
    assert_eq!(decision.verdict, Verdict::Diverged);
    assert_eq!(complaint(&decision, Code::Dissent).status, Status::Denied);

    let outvote = |operators: &[u8]| {
        let mut world = World::new();
        world.policy = policy_text(operators).replace("identical = 2", "identical = 2\non_dissent = \"outvote\"");
        world
    };
    refuses(&outvote(&[1, 2, 3]).decide(&evidence), 1, Code::Dissent);
    let four = [identical(1), identical(2), different(3), identical(4)];
    let decision = outvote(&[1, 2, 3, 4]).decide(&four);
    passes(&decision);
    // The decision changed, the verdict did not, and nobody calls it reproduced.
    assert_eq!(decision.verdict, Verdict::Diverged);
    assert!(!decision.levels.iter().any(|level| level.as_str() == "SLSA_BUILD_REPRODUCED"));

    let warn = World::new().with("identical = 2", "identical = 2\non_dissent = \"warn\"").decide(&evidence);
    passes(&warn);
    assert_eq!(complaint(&warn, Code::Dissent).status, Status::Noted);
}

#[test]
fn a_disagreement_is_not_taken_back_by_agreeing_later() {
    let mut later = provenance(3, "hello");
    later["predicate"]["runDetails"]["metadata"]["finishedOn"] = "2026-11-22T10:00:00Z".into();
    let decision = World::new().decide(&[identical(1), identical(2), different(3), signed(3, &later)]);
    refuses(&decision, 1, Code::Dissent);
    assert!(decision.operators.iter().all(|said| said.operator != "org-3" || !said.counts));
}

#[test]
fn a_replayed_statement_is_about_other_bytes_or_too_old() {
    let old = signed(3, &provenance(3, "hello 0.9"));
    refuses(&World::new().decide(&[identical(1), old]), 4, Code::Threshold);
    let mut other = comparison(3, "IDENTICAL", "hello", &envelope_id(&identical(3)));
    other["predicate"]["expected"]["uri"] = json!("pkg:generic/goodbye@1");
    refuses(&World::new().decide(&[identical(1), signed(3, &other)]), 4, Code::Artifact);
}

#[test]
fn later_failure_takes_an_earlier_agreement_back() {
    let mut failed = comparison(2, "BUILD_FAILED", "", "");
    failed["predicate"]["finishedOn"] = "2026-11-22T10:00:00Z".into();
    refuses(&World::new().decide(&[identical(1), identical(2), signed(2, &failed)]), 4, Code::Threshold);
}

#[test]
fn all_that_differ_alike_say_that_upstream_differs() {
    let decision = World::new().decide(&[different(1), different(2)]);
    assert_eq!((decision.verdict, decision.exit), (Verdict::UpstreamDiffers, 1));
    let made = signed(2, &provenance(2, "third"));
    let third = signed(2, &comparison(2, "DIFFERENT", "third", &envelope_id(&made)));
    assert_eq!(World::new().decide(&[different(1), third]).verdict, Verdict::Diverged);
    let failed = |n| signed(n, &comparison(n, "BUILD_FAILED", "", ""));
    assert_eq!(World::new().decide(&[failed(1), failed(2)]).verdict, Verdict::Failed);
    assert_eq!(World::new().decide(&[failed(1)]).verdict, Verdict::Inconclusive);
}

#[test]
fn rebuilders_that_are_too_alike_do_not_suffice_where_the_policy_asks_for_more() {
    let alike = World::new().with("identical = 2", "identical = 2\nmin_independence = { tool_versions = 2 }");
    refuses(&alike.decide(&[identical(1), identical(2)]), 4, Code::Independence);
    let mut newer = provenance(2, "hello");
    newer["predicate"]["runDetails"]["builder"]["version"]["kiln"] = "0.2.0".into();
    passes(&alike.decide(&[identical(1), signed(2, &newer)]));
    let platforms = World::new().with("identical = 2", "identical = 2\nmin_independence = { architectures_or_os = 2 }");
    refuses(&platforms.decide(&[identical(1), signed(2, &newer)]), 4, Code::Independence);
    newer["predicate"]["buildDefinition"]["internalParameters"]["host"]["kernel"] = "6.12".into();
    passes(&platforms.decide(&[identical(1), signed(2, &newer)]));
}

#[test]
fn the_artifacts_own_name_must_be_one_that_the_policy_is_for() {
    let mut world = World::new();
    world.artifact.purl = Some("pkg:generic/hello@1.0".into());
    passes(&world.decide(&[identical(1), identical(2)]));
    world.artifact.purl = Some("pkg:generic/goodbye@1.0".into());
    refuses(&world.decide(&[identical(1), identical(2)]), 1, Code::Artifact);
}

#[test]
fn any_order_of_evidence_gives_the_same_decision() {
    let mut evidence =
        vec![identical(1), identical(2), different(3), signed(1, &provenance(2, "hello")), b"junk".to_vec()];
    let sorted = |evidence: &[Vec<u8>]| {
        let mut decision = World::new().decide(evidence);
        decision.checks.iter_mut().for_each(|check| check.source = None);
        decision.checks.sort_by_key(|check| format!("{check:?}"));
        (decision.exit, decision.verdict, decision.checks, decision.achieved, decision.levels)
    };
    let first = sorted(&evidence);
    for _ in 0..evidence.len() {
        evidence.rotate_left(1);
        assert_eq!(sorted(&evidence), first);
    }
}
