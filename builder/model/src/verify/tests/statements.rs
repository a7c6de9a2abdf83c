//! Traps in envelopes and statements.

use serde_json::{Value, json};

use super::lab::*;
use crate::canonical;
use crate::digest::Digest;
use crate::envelope::{Envelope, PAYLOAD_TYPE, Signature, pae};
use crate::key::SecretKey;
use crate::verdict::Verdict;
use crate::verify::{Answer, Code, Decision, Given, Status, Verifier, VerifierError};

/// The decision on two good rebuilders, the second one's provenance changed.
fn second(change: impl FnOnce(&mut Value)) -> Decision {
    let mut statement = provenance(2, "hello");
    change(&mut statement);
    World::new().decide(&[identical(1), signed(2, &statement)])
}

#[test]
fn two_operators_that_built_the_same_bytes_pass() {
    let decision = World::new().decide(&[identical(1), identical(2)]);
    passes(&decision);
    assert_eq!(decision.verdict, Verdict::Reproduced);
    let levels: Vec<&str> = decision.levels.iter().map(|level| level.as_str()).collect();
    assert_eq!(levels, ["KILN_REPRODUCED_2_OF_3", "SLSA_BUILD_LEVEL_3", "SLSA_BUILD_REPRODUCED"]);
    assert_eq!(decision.inputs.len(), 2);
    passes(&second(|_| {}));
}

#[test]
fn one_signer_twice_is_one_and_no_evidence_is_none() {
    let mut again = provenance(1, "hello");
    again["predicate"]["runDetails"]["metadata"]["finishedOn"] = "2026-11-21T11:00:00Z".into();
    refuses(&World::new().decide(&[identical(1), signed(1, &again), identical(1)]), 4, Code::Threshold);
    let decision = World::new().decide(&[]);
    refuses(&decision, 4, Code::Evidence);
    assert_eq!(decision.verdict, Verdict::Inconclusive);
}

#[test]
fn two_keys_or_ids_of_one_operator_are_one_and_are_never_called_reproduced() {
    let world = || World::new().with("operator = \"org-2\"", "operator = \"org-1\"");
    refuses(&world().decide(&[identical(1), identical(2)]), 4, Code::Threshold);
    passes(&world().decide(&[identical(1), identical(3)]));
    let alone = world()
        .with("identical = 2", "identical = 1\nmin_independence = { operators = 1 }")
        .decide(&[identical(1), identical(2)]);
    passes(&alone);
    assert!(!alone.levels.iter().any(|level| level.as_str() == "SLSA_BUILD_REPRODUCED"), "{:?}", alone.levels);
}

#[test]
fn a_subject_must_match_in_every_algorithm_that_both_have() {
    let with = |sha256: &str, sha512: &str| {
        let digest = json!({ "sha256": Digest::of(sha256).to_string(), "sha512": sha512.repeat(128) });
        second(|s| s["subject"][0]["digest"] = digest)
    };
    refuses(&with("other", "5"), 4, Code::Threshold);
    refuses(&with("hello", "6"), 4, Code::Subject);
    passes(&with("hello", "5"));
}

#[test]
fn an_id_signed_by_another_key_is_no_evidence() {
    let decision =
        World::new().decide(&[identical(1), signed(1, &provenance(2, "hello")), signed(9, &provenance(2, "hello"))]);
    refuses(&decision, 4, Code::Threshold);
    passes(&World::new().decide(&[identical(1), signed(2, &provenance(2, "hello"))]));
}

#[test]
fn old_statements_fall_by_the_older_of_their_times() {
    let world = || World::new().with("[provenance]", "[provenance]\nmax_age_days = 7");
    let mut old = provenance(2, "hello");
    old["predicate"]["runDetails"]["metadata"]["finishedOn"] = "2026-11-14T10:00:00Z".into();
    refuses(&world().decide(&[identical(1), signed(2, &old)]), 4, Code::Age);
    passes(&world().decide(&[identical(1), identical(2)]));
    old["predicate"]["runDetails"]["metadata"].as_object_mut().unwrap().remove("finishedOn");
    refuses(&world().decide(&[identical(1), signed(2, &old)]), 4, Code::Age);
}

#[test]
fn an_unknown_external_parameter_does_not_pass_and_takes_the_level_where_it_may_stand() {
    let strange = |s: &mut Value| s["predicate"]["buildDefinition"]["externalParameters"]["extra"] = "1".into();
    refuses(&second(strange), 4, Code::ExternalParameters);
    let mut statement = provenance(2, "hello");
    strange(&mut statement);
    let lenient = World::new().with("[provenance]", "[provenance]\ndeny_unknown_parameters = false");
    let decision = lenient.decide(&[identical(1), signed(2, &statement)]);
    passes(&decision);
    assert_eq!(decision.operators[1].level, Some(0));
    for (name, value) in [
        ("recipe", json!("git+https://evil.test/r@refs/tags/v1")),
        ("recipe", Value::Null),
        ("parameters", json!({ "opt": "1" })),
    ] {
        refuses(
            &second(|s| s["predicate"]["buildDefinition"]["externalParameters"][name] = value),
            4,
            Code::ExternalParameters,
        );
    }
    let named = World::new().with("target = \"*\" }", "target = \"*\", \"parameters.opt\" = \"1\" }");
    let mut statements = [provenance(1, "hello"), provenance(2, "hello")];
    for statement in &mut statements {
        statement["predicate"]["buildDefinition"]["externalParameters"]["parameters"] = json!({ "opt": "1" });
    }
    passes(&named.decide(&[signed(1, &statements[0]), signed(2, &statements[1])]));
}

#[test]
fn equivalence_is_never_identity_and_counts_only_where_the_policy_says_so() {
    let made = signed(2, &provenance(2, "other"));
    let equivalent = signed(2, &comparison(2, "EQUIVALENT", "other", &envelope_id(&made)));
    let evidence = [identical(1), made.clone(), equivalent.clone()];
    let decision = World::new().decide(&evidence);
    refuses(&decision, 4, Code::Threshold);
    assert_eq!(decision.verdict, Verdict::Equivalent);
    let counted = World::new().with("identical = 2", "identical = 2\nequivalent_counts = true").decide(&evidence);
    passes(&counted);
    let levels: Vec<&str> = counted.levels.iter().map(|level| level.as_str()).collect();
    assert_eq!(levels, ["KILN_EQUIVALENT_2_OF_3", "SLSA_BUILD_LEVEL_3"]);
    // The same bytes of evidence, offered as identity, or without a normaliser.
    let offered = signed(2, &comparison(2, "IDENTICAL", "other", &envelope_id(&made)));
    refuses(&World::new().decide(&[identical(1), made.clone(), offered]), 4, Code::Threshold);
    let mut empty = comparison(2, "EQUIVALENT", "other", &envelope_id(&made));
    empty["predicate"]["normalisers"] = json!([]);
    let world = World::new().with("identical = 2", "identical = 2\nequivalent_counts = true");
    refuses(&world.decide(&[identical(1), made, signed(2, &empty)]), 4, Code::Threshold);
}

#[test]
fn a_comparison_without_its_provenance_or_against_it_is_no_vote() {
    let made = identical(2);
    let claim = |n, id: &str| signed(n, &comparison(n, "IDENTICAL", "hello", id));
    let world = World::new();
    let missing = world.decide(&[identical(1), claim(2, &envelope_id(&made))]);
    refuses(&missing, 4, Code::Comparison);
    passes(&world.decide(&[identical(1), made.clone(), claim(2, &envelope_id(&made))]));
    // Another's provenance is not one's own.
    refuses(&world.decide(&[identical(1), claim(2, &envelope_id(&identical(1)))]), 4, Code::Comparison);
}

#[test]
fn votes_of_flaky_builds_count_only_where_allowed() {
    let made = identical(2);
    let mut flaky = comparison(2, "IDENTICAL", "hello", &envelope_id(&made));
    flaky["predicate"]["flaky"] = true.into();
    let evidence = [identical(1), made, signed(2, &flaky)];
    refuses(&World::new().decide(&evidence), 4, Code::Flaky);
    passes(&World::new().with("identical = 2", "identical = 2\nallow_flaky = true").decide(&evidence));
}

#[test]
fn keys_that_expired_or_were_revoked_take_undated_statements_with_them() {
    let valid = "valid = [\"2026-01-01\", \"2027-01-01\"]";
    let evidence = [identical(1), identical(2)];
    let expired = World::new().with(valid, "valid = [\"2026-01-01\", \"2026-11-22\"]");
    refuses(&expired.decide(&evidence), 4, Code::Validity);
    let early = World::new().with(valid, "valid = [\"2026-11-23\", \"2027-01-01\"]");
    refuses(&early.decide(&evidence), 4, Code::Validity);
    let revoked = |moment: &str| World::new().with(valid, &format!("{valid}\nrevoked_after = \"{moment}\""));
    refuses(&revoked("2026-11-21T23:00:00Z").decide(&evidence), 4, Code::Revocation);
    passes(&revoked("2026-11-23").decide(&evidence));
    // It says that it is older than the revocation. Anybody can say that.
    let mut backdated = provenance(1, "hello");
    backdated["predicate"]["runDetails"]["metadata"]["finishedOn"] = "2026-02-01T00:00:00Z".into();
    refuses(&revoked("2026-11-21").decide(&[signed(1, &backdated), identical(2)]), 4, Code::Revocation);
}

#[test]
fn a_clock_that_is_wrong_by_years_is_named() {
    let mut world = World::new();
    world.now = "2026-03-01T00:00:00Z".parse().unwrap();
    refuses(&world.decide(&[identical(1), identical(2)]), 4, Code::Clock);
    world.now = "2036-03-01T00:00:00Z".parse().unwrap();
    refuses(&world.decide(&[identical(1), identical(2)]), 4, Code::Validity);
}

#[test]
fn duplicate_keys_and_depth_bombs_in_a_signed_payload_do_not_count() {
    let good = String::from_utf8(canonical::print(&provenance(2, "hello")).unwrap()).unwrap();
    let twice = good.replacen("\"_type\":", "\"_type\":\"https://in-toto.io/Statement/v1\",\"_type\":", 1);
    let deep = good.replacen("\"_type\":", &format!("\"x\":{}{},\"_type\":", "[".repeat(100), "]".repeat(100)), 1);
    for payload in [twice, deep, good.replace("Statement/v1", "Statement/v0.1"), "{".into(), String::new()] {
        let bytes = Envelope::sign(payload.into_bytes(), &key(2)).canonical();
        refuses(&World::new().decide(&[identical(1), bytes]), 4, Code::Threshold);
    }
    passes(&World::new().decide(&[identical(1), Envelope::sign(good.into_bytes(), &key(2)).canonical()]));
}

#[test]
fn what_names_a_policy_key_and_is_not_signed_by_it_is_tampering() {
    let good = Envelope::parse(&identical(2)).unwrap();
    let rebuilt = |payload: &[u8], kind: &str, keyid: Option<String>, sig: &[u8]| {
        let signature = Signature { keyid, sig: sig.to_vec() };
        Envelope::new(payload.to_vec(), kind.into(), vec![signature]).unwrap().canonical()
    };
    let sig = &good.signatures()[0].sig;
    let id2 = || Some(key(2).public().id().to_string());
    let swapped = canonical::print(&provenance(2, "other")).unwrap();
    let stranger = Envelope::parse(&signed(9, &provenance(2, "hello"))).unwrap();
    for tampered in [
        rebuilt(&swapped, PAYLOAD_TYPE, id2(), sig),
        rebuilt(good.payload(), "application/json", id2(), sig),
        rebuilt(stranger.payload(), PAYLOAD_TYPE, id2(), &stranger.signatures()[0].sig),
        rebuilt(&swapped, PAYLOAD_TYPE, Some(key(2).public().securesystemslib_id()), sig),
        rebuilt(&swapped, PAYLOAD_TYPE, Some(key(2).public().id().hint()), sig),
    ] {
        // Enough others agree, and it is refused all the same.
        let decision = World::new().decide(&[identical(1), identical(2), identical(3), tampered]);
        refuses(&decision, 6, Code::Signature);
        assert_eq!(decision.answer, Answer::Tampered);
    }
    // The same bytes in other spellings are the same statement: by nobody's name, or by securesystemslib's.
    for keyid in [None, Some(key(2).public().securesystemslib_id()), Some("whoever".to_owned())] {
        passes(&World::new().decide(&[identical(1), rebuilt(good.payload(), PAYLOAD_TYPE, keyid, sig)]));
    }
}

#[test]
fn junk_without_a_policy_key_decides_nothing() {
    let junk: [Vec<u8>; 7] = [
        b"not json".to_vec(),
        vec![0xff; 100],
        b"{}".to_vec(),
        signed(9, &provenance(9, "other")),
        b"[".repeat(100_000),
        signed(9, &comparison(1, "DIFFERENT", "other", &"0".repeat(64))),
        br#"{"payload":"e30","payloadType":"x","signatures":[{"sig":"AAAA"}]}"#.to_vec(),
    ];
    let evidence: Vec<Vec<u8>> = junk.into_iter().chain([identical(1), identical(2)]).collect();
    passes(&World::new().decide(&evidence));
}

#[test]
fn a_file_named_after_another_envelope_is_tampering() {
    let (one, two) = (identical(1), identical(2));
    let name = envelope_id(&two);
    passes(&World::new().decide_named(&[(one.clone(), None), (two.clone(), Some(name.clone()))]));
    refuses(&World::new().decide_named(&[(one.clone(), Some(name)), (two, None)]), 6, Code::FileName);
}

#[test]
fn a_disregarded_envelope_counts_in_no_spelling_and_is_shown() {
    let bad = different(3);
    let evidence = [identical(1), identical(2), bad.clone()];
    refuses(&World::new().decide(&evidence), 1, Code::Dissent);
    let world = World::new().with("identical = 2", &format!("identical = 2\ndisregard = [\"{}\"]", envelope_id(&bad)));
    passes(&world.decide(&evidence));
    let parsed = Envelope::parse(&bad).unwrap();
    let nameless = Signature { keyid: None, sig: parsed.signatures()[0].sig.clone() };
    let other = Envelope::new(parsed.payload().to_vec(), PAYLOAD_TYPE.into(), vec![nameless]).unwrap().canonical();
    passes(&world.decide(&[identical(1), identical(2), other]));
}

#[test]
fn a_p256_key_counts_as_well_as_any() {
    let p256 = SecretKey::p256(&[7; 32]).unwrap();
    let old = format!("sha256:{}", key(2).public().id());
    let mut world = World::new().with(&old, &format!("sha256:{}", p256.public().id()));
    world.keys.push(p256.public());
    let statement = canonical::print(&provenance(2, "hello")).unwrap();
    passes(&world.decide(&[identical(1), Envelope::sign(statement, &p256).canonical()]));
    refuses(&world.decide(&[identical(1), identical(2)]), 4, Code::Threshold);
}

#[test]
fn levels_come_from_the_policy_and_fall_where_the_signer_was_within_reach() {
    let world = || World::new().with("[provenance]", "[provenance]\nmin_level = 3");
    passes(&world().decide(&[identical(1), identical(2)]));
    let mut same = provenance(2, "hello");
    same["predicate"]["buildDefinition"]["internalParameters"]["signer"] = "same".into();
    refuses(&world().decide(&[identical(1), signed(2, &same)]), 4, Code::Level);
    let decision = World::new().decide(&[identical(1), signed(2, &same)]);
    passes(&decision);
    assert!(decision.levels.iter().any(|level| level.as_str() == "SLSA_BUILD_LEVEL_2"));
    // What a statement says of its own level is nothing.
    let mut claims = provenance(2, "hello");
    claims["predicate"]["runDetails"]["builder"]["slsaLevel"] = 3.into();
    let low = World::new().with("max_slsa_level = 3", "max_slsa_level = 0");
    assert_eq!(low.decide(&[identical(1), signed(2, &claims)]).operators[0].level, Some(0));
}

#[test]
fn a_build_without_its_log_or_of_another_type_does_not_count() {
    let shows = |names: [&str; 2]| {
        let shown = names.map(|name| json!({ "name": name, "digest": digests(name) }));
        second(|s| s["predicate"]["runDetails"]["byproducts"] = json!(shown))
    };
    passes(&shows(["build.log", "out.manifest.json"]));
    refuses(&shows(["build.log", "notamanifest.json"]), 4, Code::Byproducts);
    refuses(&shows(["manifest.json", "dev.manifest.json"]), 4, Code::Byproducts);
    refuses(&second(|s| s["predicate"]["runDetails"]["byproducts"] = json!([])), 4, Code::Byproducts);
    refuses(
        &second(|s| s["predicate"]["buildDefinition"]["buildType"] = "https://example.org/t".into()),
        4,
        Code::BuildType,
    );
}

#[test]
fn inputs_need_digests_and_origins_that_are_allowed() {
    refuses(
        &second(|s| {
            s["predicate"]["buildDefinition"]["resolvedDependencies"][1].as_object_mut().unwrap().remove("digest");
        }),
        4,
        Code::InputDigest,
    );
    let allow = |list: &str| World::new().with("require_digest = true", &format!("allow_uri = {list}"));
    let evidence = [identical(1), identical(2)];
    refuses(&allow("[\"pkg:deb/debian/*\"]").decide(&evidence), 4, Code::InputUri);
    passes(&allow("[\"pkg:deb/debian/*\", \"git+https://example.org/*\"]").decide(&evidence));
}

#[test]
fn denied_digests_and_licences_are_a_no_whoever_agrees() {
    let evidence = [identical(1), identical(2)];
    let rule = |rule: String| World::new().with("require_digest = true", &rule).decide(&evidence);
    refuses(&rule(format!("deny_digests = [\"sha256:{}\"]", Digest::of("gcc"))), 1, Code::DeniedDigest);
    refuses(&rule(format!("deny_digests = [\"sha256:{}\"]", Digest::of("hello"))), 1, Code::DeniedDigest);
    passes(&rule(format!("deny_digests = [\"sha256:{}\"]", Digest::of("clang"))));
    refuses(&rule("licences = { deny = [\"GPL-3.0-or-later\"] }".into()), 1, Code::Licence);
    refuses(&rule("licences = { allow = [\"MIT\"] }".into()), 1, Code::Licence);
    passes(&rule("licences = { deny = [\"AGPL-3.0-only\"] }".into()));
    let mut affero = provenance(2, "hello");
    affero["predicate"]["buildDefinition"]["resolvedDependencies"][1]["annotations"]["license"] =
        "AGPL-3.0-only".into();
    let world = World::new().with("require_digest = true", "licences = { deny = [\"AGPL-3.0-only\"] }");
    refuses(&world.decide(&[identical(1), signed(2, &affero)]), 1, Code::Licence);
}

#[test]
fn a_lone_test_result_is_no_vote() {
    let result = other("https://in-toto.io/attestation/test-result/v0.1", json!({ "result": "PASSED" }));
    refuses(&World::new().decide(&[signed(1, &result), signed(2, &result)]), 4, Code::Threshold);
    passes(&World::new().decide(&[signed(1, &result), identical(1), identical(2)]));
}

/// A summary of verifier 5 about some subject.
fn vsa(result: &str, subject: Value, resource: &str, levels: Value) -> Value {
    json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [subject],
        "predicateType": "https://slsa.dev/verification_summary/v1",
        "predicate": {
            "verifier": { "id": "https://vcs.example.org/slsa@1" }, "timeVerified": NOW, "resourceUri": resource,
            "policy": { "uri": "https://vcs.example.org/policy", "digest": digests("policy") },
            "verificationResult": result, "verifiedLevels": levels, "slsaVersion": "1.2",
        },
    })
}

fn with_verifier(world: World) -> World {
    let table = format!(
        "[[verifier]]\nid = \"https://vcs.example.org/slsa\"\nkeys = [\"sha256:{}\"]\nmax_level = \"SLSA_SOURCE_LEVEL_3\"\nresource_uri = \"*\"\n[provenance]",
        key(5).public().id()
    );
    world.with("[provenance]", &table)
}

#[test]
fn a_failed_summary_is_a_no_and_a_passed_one_is_no_vote() {
    let subject = || json!({ "name": "hello.nar", "digest": digests("hello") });
    let summary = |result, levels| signed(5, &vsa(result, subject(), "https://dl.example.org/hello.nar", levels));
    let world = with_verifier(World::new());
    let failed = summary("FAILED", json!(["FAILED"]));
    refuses(&world.decide(&[identical(1), identical(2), failed]), 1, Code::Summary);
    let passed = summary("PASSED", json!(["SLSA_BUILD_LEVEL_3"]));
    passes(&world.decide(&[identical(1), identical(2), passed.clone()]));
    refuses(&world.decide(&[identical(1), passed]), 4, Code::Threshold);
}

#[test]
fn sources_need_the_summary_of_who_keeps_them_where_the_policy_asks() {
    let world = with_verifier(World::new()).with("require_digest = true", "source_vsa_min = \"SLSA_SOURCE_LEVEL_2\"");
    let evidence = |summary: Option<Value>| {
        let mut evidence = vec![identical(1), identical(2)];
        evidence.extend(summary.map(|summary| signed(5, &summary)));
        world.decide(&evidence)
    };
    let commit =
        |c: char| json!({ "uri": "git+https://example.org/r", "digest": { "gitCommit": c.to_string().repeat(40) } });
    let levels = |n: u8| json!([format!("SLSA_SOURCE_LEVEL_{n}")]);
    let r = "git+https://example.org/r";
    passes(&evidence(Some(vsa("PASSED", commit('a'), r, levels(3)))));
    refuses(&evidence(None), 4, Code::SourceSummary);
    refuses(&evidence(Some(vsa("PASSED", commit('b'), r, levels(3)))), 4, Code::SourceSummary);
    refuses(
        &evidence(Some(vsa("PASSED", commit('a'), "git+https://example.org/other", levels(3)))),
        4,
        Code::SourceSummary,
    );
    refuses(&evidence(Some(vsa("PASSED", commit('a'), r, levels(1)))), 4, Code::SourceSummary);
    refuses(&evidence(Some(vsa("FAILED", commit('a'), r, json!(["FAILED"])))), 1, Code::Summary);
}

#[test]
fn a_bill_of_materials_and_a_trace_are_asked_for_and_judged() {
    let bill = json!({
        "spdxVersion": "SPDX-2.3", "creationInfo": { "created": NOW, "creators": ["Person: a"] },
        "relationships": [{ "spdxElementId": "a" }],
        "packages": [{ "SPDXID": "a", "name": "hello", "versionInfo": "1", "supplier": "Organization: b" }],
    });
    let bill = |change: &dyn Fn(&mut Value)| {
        let mut bill = bill.clone();
        change(&mut bill);
        signed(1, &other("https://spdx.dev/Document/v2.3", bill))
    };
    let mut world = World::new();
    world.policy = format!("sbom = {{ required = true }}\n{}", world.policy);
    let decide = |extra: Vec<u8>| world.decide(&[identical(1), identical(2), extra]);
    passes(&decide(bill(&|_| {})));
    refuses(&decide(bill(&|b| b["packages"][0]["supplier"] = "NOASSERTION".into())), 4, Code::Sbom);
    refuses(&decide(identical(3)), 4, Code::Sbom);
    let mut world = World::new();
    world.policy = format!("runtime = {{ required = true, deny_events = [\"network\"] }}\n{}", world.policy);
    let trace = |network: Value| {
        let trace = json!({ "monitor": { "type": "t" }, "monitorLog": { "process": [1], "network": network } });
        signed(2, &other("https://in-toto.io/attestation/runtime-trace/v0.1", trace))
    };
    passes(&world.decide(&[identical(1), identical(2), trace(json!([]))]));
    refuses(&world.decide(&[identical(1), identical(2), trace(json!([{ "to": "x" }]))]), 1, Code::Runtime);
    refuses(&world.decide(&[identical(1), identical(2)]), 4, Code::Runtime);
}

#[test]
fn vulnerabilities_above_the_limit_are_a_no_and_old_feeds_are_none() {
    let mut world = World::new();
    world.policy = format!("vulns = {{ max_cvss = 7.0 }}\n{}", world.policy);
    refuses(&world.decide(&[identical(1), identical(2)]), 4, Code::Vulnerability);
}

#[test]
fn a_verifier_without_keys_or_logs_is_refused_before_it_judges() {
    let policy = crate::policy::Policy::parse(&World::new().policy).unwrap();
    let (pinned, none) = (Default::default(), |_: &str, _: u64, _: u64| None);
    let verifier = |policy: &crate::policy::Policy, keys: &[crate::key::PublicKey]| {
        let given = Given {
            policy,
            keys,
            log: None,
            pinned: &pinned,
            growth: &none,
            proofs: &|_| Vec::new(),
            feed: None,
            now: NOW.parse().unwrap(),
        };
        Verifier::new(&given).err()
    };
    let keys: Vec<_> = (1..=3).map(|n| key(n).public()).collect();
    assert_eq!(verifier(&policy, &keys), None);
    assert_eq!(verifier(&policy, &[key(9).public()]), Some(VerifierError::NoKeys { named: 3 }));
    assert!(matches!(verifier(&policy, &keys[..1]), Some(VerifierError::TooFewKeys { wanted: 2, there: 1, .. })));
    let text = World::new().policy.replace("require_inclusion = false", "");
    let policy = crate::policy::Policy::parse(&text).unwrap();
    assert!(matches!(verifier(&policy, &keys), Some(VerifierError::NoLogPolicy { .. })));
}

#[test]
fn every_refusal_says_field_expected_got_and_a_way_out() {
    let decision = World::new().decide(&[identical(1), signed(1, &provenance(2, "hello")), different(3)]);
    for check in decision.checks.iter().filter(|check| check.status > Status::Noted) {
        assert!(!check.field.is_empty() && !check.expected.is_empty() && !check.got.is_empty(), "{check:?}");
        assert!(!check.way_out.is_empty(), "{check:?}");
    }
    assert!(decision.achieved.iter().any(|row| !row.holds));
}

#[test]
fn pae_is_what_is_signed_whatever_the_json_says() {
    let envelope = Envelope::parse(&identical(1)).unwrap();
    let message = pae(PAYLOAD_TYPE, envelope.payload());
    assert!(key(1).public().verify(&message, &envelope.signatures()[0].sig).is_ok());
}
