//! Others' evidence: what it counts as where the policy accepts it, and that it counts as nothing where not.

use data_encoding::HEXLOWER;
use serde_json::{Value, json};

use super::lab::*;
use crate::canonical;
use crate::digest::{Digest, NarHash};
use crate::format::narinfo::{Compression, NarInfo};
use crate::format::signature;
use crate::policy::{Form, Observed, Policy, PolicyError};
use crate::verify::oss_rebuild::{EQUIVALENCE, REBUILD};
use crate::verify::{Clearsigned, Code, Decision, Evidence, Source, Verifier, observe};

/// A world in which the form is accepted from these rebuilders.
fn accepting(form: &str, rebuilders: &[u8]) -> World {
    rebuilders.iter().fold(World::new(), |world, n| {
        let operator = format!("operator = \"org-{n}\"");
        world.with(&operator, &format!("{operator}\naccepts = [\"{form}\"]"))
    })
}

/// A link of what rebuilder `n` made, changed before and after it is signed; keyids as in-toto has them.
fn link(n: u8, made: &str, after: impl FnOnce(&mut Value)) -> Vec<u8> {
    let signed = json!({
        "_type": "link", "name": "rebuild hello.nar", "materials": {}, "environment": null, "byproducts": {}, "command": [],
        "products": { "hello.nar": digests(made) },
    });
    let sig = HEXLOWER.encode(&key(n).sign(&canonical::print(&signed).unwrap()));
    let mut link =
        json!({ "signatures": [{ "keyid": key(n).public().securesystemslib_id(), "sig": sig }], "signed": signed });
    after(&mut link);
    link.to_string().into_bytes()
}

fn source() -> Source {
    Source { file: "evidence/0".into(), line: None }
}

/// The evidence is too little, because a statement counts for nothing by this check.
fn not_taken(world: &World, files: &[Vec<u8>], code: Code) {
    let see = |verifier: &Verifier<'_>, evidence: Evidence| {
        assert!(evidence.refused.iter().any(|check| check.code == code), "{:#?}", evidence.refused);
        verifier.decide(&world.artifact, &evidence)
    };
    refuses(&world.judged(files, see), 4, Code::Threshold);
}

fn levels(decision: &Decision) -> Vec<&str> {
    decision.levels.iter().map(|level| level.as_str()).collect()
}

#[test]
fn a_link_is_one_voice_for_its_digests_at_level_0() {
    let world = || accepting("in-toto-link", &[2]);
    let decision = world().decide(&[identical(1), link(2, "hello", |_| {})]);
    passes(&decision);
    assert_eq!(levels(&decision), ["KILN_REPRODUCED_2_OF_3", "SLSA_BUILD_LEVEL_0"]);
    // By whatever name the key goes, and in whatever spelling, it is one voice.
    let unnamed = link(2, "hello", |l| l["signatures"][0]["keyid"] = "worker".into());
    passes(&world().decide(&[identical(1), unnamed.clone()]));
    let value: Value = serde_json::from_slice(&unnamed).unwrap();
    let pretty = serde_json::to_vec_pretty(&value).unwrap();
    let again = [link(2, "hello", |_| {}), unnamed, pretty];
    refuses(&world().decide(&again), 4, Code::Threshold);
    refuses(&world().decide(&[identical(1), link(2, "other", |_| {})]), 4, Code::Threshold);
}

#[test]
fn two_keys_under_one_link_are_two_voices_if_two_operators_have_them() {
    let both = |world: World| {
        let second = link(3, "hello", |_| {});
        let second: Value = serde_json::from_slice(&second).unwrap();
        let link = link(2, "hello", |l| l["signatures"].as_array_mut().unwrap().push(second["signatures"][0].clone()));
        (world.with("identical = 2", "identical = 2\nmin_independence = { tool_versions = 0 }"), [link])
    };
    let decide = |(world, link): (World, [Vec<u8>; 1])| world.decide(&link);
    let decision = decide(both(accepting("in-toto-link", &[2, 3])));
    passes(&decision);
    assert!(!levels(&decision).contains(&"SLSA_BUILD_REPRODUCED"), "a link is no provenance: {:?}", levels(&decision));
    let one = accepting("in-toto-link", &[2, 3]).with("operator = \"org-3\"", "operator = \"org-2\"");
    refuses(&decide(both(one)), 4, Code::Threshold);
    let (world, link) = both(accepting("in-toto-link", &[2]));
    not_taken(&world, &link, Code::Form);
}

#[test]
fn a_link_that_was_altered_or_is_not_signed_is_none() {
    let decide = |link: Vec<u8>| accepting("in-toto-link", &[2]).decide(&[identical(1), link]);
    let altered = |l: &mut Value| l["signed"]["products"]["hello.nar"] = digests("hello");
    refuses(&decide(link(2, "other", altered)), 6, Code::Signature);
    let theirs = key(3).public().securesystemslib_id();
    refuses(&decide(link(2, "hello", |l| l["signatures"][0]["keyid"] = theirs.into())), 6, Code::Signature);
    // Named as rebuilderd does, it is known, too.
    let as_they_do = |l: &mut Value| {
        altered(l);
        l["signatures"][0]["keyid"] = key(2).public().rebuilderd_id().into();
    };
    refuses(&decide(link(2, "other", as_they_do)), 6, Code::Signature);
    let nobody = |l: &mut Value| {
        altered(l);
        l["signatures"][0]["keyid"] = "worker".into();
    };
    refuses(&decide(link(2, "other", nobody)), 4, Code::Threshold);
    refuses(&decide(link(2, "hello", |l| l["signatures"] = json!([]))), 4, Code::Threshold);
    refuses(&decide(link(9, "hello", |_| {})), 4, Code::Threshold);
    let twice = String::from_utf8(link(2, "hello", |_| {})).unwrap();
    let twice = twice.replacen("\"products\":", "\"products\":{},\"products\":", 1);
    refuses(&decide(twice.into_bytes()), 4, Code::Threshold);
}

#[test]
fn a_link_counts_for_nothing_where_the_policy_asks_what_it_does_not_say() {
    let decide = |world: World| world.decide(&[identical(1), link(2, "hello", |_| {})]);
    let world = || accepting("in-toto-link", &[2]);
    not_taken(&World::new(), &[identical(1), link(2, "hello", |_| {})], Code::Form);
    refuses(&decide(world().with("[provenance]", "[provenance]\nmin_level = 1")), 4, Code::Level);
    refuses(&decide(world().with("[provenance]", "[provenance]\nmax_age_days = 400")), 4, Code::Age);
    let denied = format!("[inputs]\ndeny_digests = [\"sha256:{}\"]", "0".repeat(64));
    for rule in ["[inputs]\nallow_uri = [\"pkg:deb/*\", \"git+https://example.org/*\"]", &denied] {
        refuses(&decide(world().with("[inputs]", rule)), 4, Code::InputUri);
    }
    let licences = "[inputs]\nlicences = { deny = [\"AGPL-3.0-only\"] }";
    refuses(&decide(world().with("[inputs]", licences)), 4, Code::InputUri);
    let expired = world().with("valid = [\"2026-01-01\", \"2027-01-01\"]", "valid = [\"2026-01-01\", \"2026-11-22\"]");
    refuses(&decide(expired), 4, Code::Validity);
}

/// A narinfo of what was made, signed by these rebuilders under any name.
fn narinfo(made: &str, rebuilders: &[u8]) -> NarInfo {
    let mut info = NarInfo {
        path: "/nix/store/00bgd045z0d4icpbc2yyz4gx48ak44la-hello".parse().unwrap(),
        url: "nar/hello.nar".into(),
        compression: Compression::None,
        file_hash: None,
        file_size: None,
        nar_hash: NarHash::new(Digest::of(made)),
        nar_size: 120,
        references: Default::default(),
        deriver: None,
        signatures: Vec::new(),
        address: None,
    };
    for n in rebuilders {
        info.sign(&signature::SecretKey::from_seed("cache.example.org-1", &[*n; 32]).unwrap());
    }
    info
}

#[test]
fn each_signature_of_a_narinfo_is_the_voice_of_its_rebuilder() {
    let world = |rebuilders: &[u8]| {
        let world = accepting("narinfo", rebuilders);
        world.with("identical = 2", "identical = 2\nmin_independence = { tool_versions = 0 }")
    };
    let decide = |world: World, info: &NarInfo| world.decide(&[info.print().into_bytes()]);
    let both = narinfo("hello", &[2, 3]);
    let decision = decide(world(&[2, 3]), &both);
    passes(&decision);
    assert_eq!(levels(&decision), ["KILN_REPRODUCED_2_OF_3", "SLSA_BUILD_LEVEL_0"]);
    // What the signatures do not cover may be another cache's.
    passes(&decide(world(&[2, 3]), &NarInfo { url: "elsewhere.nar".into(), ..both.clone() }));
    refuses(&decide(world(&[2]), &both), 4, Code::Threshold);
    refuses(&decide(World::new(), &both), 4, Code::Threshold);
    refuses(&decide(world(&[2, 3]), &narinfo("hello", &[2, 2, 9])), 4, Code::Threshold);
    refuses(&decide(world(&[2, 3]), &narinfo("hello", &[])), 4, Code::Threshold);
    refuses(&decide(world(&[2, 3]), &narinfo("other", &[2, 3])), 4, Code::Threshold);
    for altered in [
        NarInfo { nar_size: 121, ..both.clone() },
        NarInfo { nar_hash: NarHash::new(Digest::of("hello")), ..narinfo("other", &[2, 3]) },
        NarInfo { references: [both.path.clone()].into(), ..both.clone() },
    ] {
        refuses(&decide(world(&[2, 3]), &altered), 4, Code::Threshold);
    }
    let twice = [both.print().into_bytes(), narinfo("hello", &[2]).print().into_bytes()];
    passes(&world(&[2, 3]).decide(&twice));
}

/// OSS-Rebuild's statement of this build type, about this subject.
fn of_oss_rebuild(build_type: &str, subject: &str, change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let mut statement = provenance(2, subject);
    let definition = &mut statement["predicate"]["buildDefinition"];
    definition["buildType"] = build_type.into();
    definition["internalParameters"] = json!({});
    definition["externalParameters"] = json!({ "ecosystem": "pypi", "package": "hello", "version": "1" });
    if build_type == EQUIVALENCE {
        definition["externalParameters"] =
            json!({ "candidate": "rebuild/hello.nar", "target": "https://dl.example.org/hello.nar" });
        definition["resolvedDependencies"] = json!([
            { "name": "rebuild/hello.nar", "digest": digests("rebuilt") },
            { "name": "https://dl.example.org/hello.nar", "digest": digests("hello") },
        ]);
        statement["predicate"]["runDetails"]["byproducts"] =
            json!([{ "name": "stabilized/hello.nar", "digest": digests("stabilized") }]);
    }
    change(&mut statement);
    signed(2, &statement)
}

#[test]
fn oss_rebuilds_equivalence_counts_as_such_and_only_beside_its_own_rebuild() {
    let world = || accepting("oss-rebuild", &[2]).with("identical = 2", "identical = 2\nequivalent_counts = true");
    let (rebuilt, equal) = (of_oss_rebuild(REBUILD, "rebuilt", |_| {}), of_oss_rebuild(EQUIVALENCE, "hello", |_| {}));
    let all = [identical(1), rebuilt.clone(), equal.clone()];
    let decision = world().decide(&all);
    passes(&decision);
    assert_eq!(levels(&decision), ["KILN_EQUIVALENT_2_OF_3", "SLSA_BUILD_LEVEL_3"]);
    refuses(&accepting("oss-rebuild", &[2]).decide(&all), 4, Code::Threshold);
    refuses(&world().decide(&[identical(1), equal.clone()]), 4, Code::Comparison);
    refuses(&world().decide(&[identical(1), rebuilt.clone()]), 4, Code::Threshold);
    let other = of_oss_rebuild(REBUILD, "something else", |_| {});
    refuses(&world().decide(&[identical(1), other, equal]), 4, Code::Comparison);
    let level = world().with("[provenance]", "[provenance]\nmin_level = 1");
    refuses(&level.decide(&all), 4, Code::Comparison);
}

#[test]
fn an_equivalence_is_never_taken_for_a_build_of_its_subject() {
    let equal = of_oss_rebuild(EQUIVALENCE, "hello", |_| {});
    not_taken(&World::new(), &[identical(1), equal.clone()], Code::Form);
    let listed = World::new().with(
        "[provenance]",
        &format!("[provenance]\nbuild_types = [\"https://kiln.build/build/v1\", \"{EQUIVALENCE}\"]"),
    );
    not_taken(&listed, &[identical(1), equal], Code::Form);
}

#[test]
fn oss_rebuilds_rebuild_of_the_same_bytes_is_identity() {
    let same =
        |s: &mut Value| s["predicate"]["buildDefinition"]["resolvedDependencies"][0]["digest"] = digests("hello");
    let (rebuilt, equal) = (of_oss_rebuild(REBUILD, "hello", |_| {}), of_oss_rebuild(EQUIVALENCE, "hello", same));
    let world = || accepting("oss-rebuild", &[2]);
    passes(&world().decide(&[identical(1), rebuilt.clone()]));
    passes(&world().decide(&[identical(1), rebuilt, equal.clone()]));
    refuses(&world().decide(&[identical(1), equal]), 4, Code::Threshold);
}

#[test]
fn an_equivalence_whose_parts_do_not_fit_is_none() {
    let world = || accepting("oss-rebuild", &[2]).with("identical = 2", "identical = 2\nequivalent_counts = true");
    let changes: [fn(&mut Value); 6] = [
        |s| s["predicate"]["buildDefinition"]["externalParameters"]["more"] = "x".into(),
        |s| s["predicate"]["buildDefinition"]["externalParameters"]["candidate"] = "rebuild/other".into(),
        |s| s["predicate"]["buildDefinition"]["resolvedDependencies"][1]["digest"] = digests("other"),
        |s| s["predicate"]["buildDefinition"]["resolvedDependencies"][1]["name"] = "rebuild/hello.nar".into(),
        |s| {
            s["predicate"]["buildDefinition"]["resolvedDependencies"][0]["digest"] =
                json!({ "gitCommit": "a".repeat(40) })
        },
        |s| s["predicate"]["runDetails"]["byproducts"] = json!([]),
    ];
    for change in changes {
        let evidence =
            [identical(1), of_oss_rebuild(REBUILD, "rebuilt", |_| {}), of_oss_rebuild(EQUIVALENCE, "hello", change)];
        not_taken(&world(), &evidence, Code::Comparison);
    }
}

const FINGERPRINT: &str = "0123456789ABCDEF0123456789ABCDEF01234567";

/// The decision where rebuilder 2 has only an OpenPGP key, and this is what was found of a `.buildinfo`.
fn with_buildinfo(policy: impl FnOnce(World) -> World, files: &[Clearsigned]) -> Decision {
    let own = format!("keys = [\"sha256:{}\"]", key(2).public().id());
    let world = policy(World::new().with(&own, &format!("keys = [\"openpgp:{}\"]", FINGERPRINT.to_lowercase())));
    let see = |verifier: &Verifier<'_>, mut evidence: Evidence| {
        let mut admissions = Vec::new();
        files.iter().for_each(|file| verifier.buildinfo(&source(), file.clone(), &mut admissions));
        admissions.into_iter().for_each(|admission| evidence.add(admission));
        verifier.decide(&world.artifact, &evidence)
    };
    world.judged(&[identical(1)], see)
}

fn buildinfo(made: &str) -> String {
    let sha256 = Digest::of(made);
    format!(
        "Format: 1.0\nSource: hello\nBinary: hello\nArchitecture: amd64\nVersion: 1-1\nChecksums-Sha256:\n {sha256} 5 hello_1-1_amd64.deb\n\
         Build-Architecture: amd64\nInstalled-Build-Depends:\n gcc-12 (= 12.2.0-14)\nEnvironment:\n LANG=\"C\"\n"
    )
}

#[test]
fn a_buildinfo_is_the_word_of_the_openpgp_key_that_signed_it() {
    let by = |made: &str, key: &str| Clearsigned::By { text: buildinfo(made), keys: vec![key.into()] };
    let plain = |files: &[Clearsigned]| with_buildinfo(|world| world, files);
    let decision = plain(&[by("hello", FINGERPRINT)]);
    passes(&decision);
    assert_eq!(levels(&decision), ["KILN_REPRODUCED_2_OF_3", "SLSA_BUILD_LEVEL_0"]);
    refuses(&plain(&[by("other", FINGERPRINT)]), 4, Code::Threshold);
    refuses(&plain(&[by("hello", &"F".repeat(40))]), 4, Code::Threshold);
    refuses(&plain(&[Clearsigned::Unsigned { why: "not signed".into() }]), 4, Code::Threshold);
    refuses(&plain(&[Clearsigned::Bad { key: FINGERPRINT.into() }]), 6, Code::Signature);
    refuses(&plain(&[Clearsigned::Bad { key: "F".repeat(40) }]), 4, Code::Threshold);
    let garbage = Clearsigned::By { text: "Format: 2.0\n".into(), keys: vec![FINGERPRINT.into()] };
    refuses(&plain(&[garbage]), 4, Code::Threshold);
    let more = |world: World| world.with("identical = 2", "identical = 3");
    refuses(&with_buildinfo(more, &[by("hello", FINGERPRINT), by("hello", FINGERPRINT)]), 4, Code::Threshold);
    let denied = format!("[inputs]\ndeny_digests = [\"sha256:{}\"]", "0".repeat(64));
    let asking = |world: World| world.with("[inputs]", &denied);
    refuses(&with_buildinfo(asking, &[by("hello", FINGERPRINT)]), 4, Code::InputUri);
}

#[test]
fn an_openpgp_key_is_named_once_by_its_whole_fingerprint() {
    let with = |n: u8, text: &str, keys: &str| {
        let own = format!("[\"sha256:{}\"]", key(n).public().id());
        assert!(text.contains(&own));
        text.replacen(&own, keys, 1)
    };
    let keys = format!("[\"openpgp:{FINGERPRINT}\"]");
    let one = with(2, &policy_text(&[1, 2]), &keys);
    assert!(Policy::parse(&one).is_ok());
    let twice = Policy::parse(&with(1, &one, &keys)).unwrap_err();
    assert!(matches!(twice, PolicyError::KeyTwice { .. }), "{twice}");
    for bad in ["openpgp:01234567", "openpgp:", "openpgp:0x123456789ABCDEF0123456789ABCDEF01234567"] {
        let error = Policy::parse(&with(2, &policy_text(&[1, 2]), &format!("[\"{bad}\"]"))).unwrap_err();
        assert!(matches!(&error, PolicyError::Value { found, .. } if found == bad), "{error}");
    }
}

#[test]
fn a_form_that_nobody_knows_is_refused_by_name() {
    let text = policy_text(&[1, 2]).replacen(
        "operator = \"org-2\"",
        "operator = \"org-2\"\naccepts = [\"narinfo\", \"hearsay\"]",
        1,
    );
    let error = Policy::parse(&text).unwrap_err();
    assert!(matches!(&error, PolicyError::Value { found, .. } if found == "hearsay"), "{error}");
    assert!(error.to_string().contains("rebuilder[1].accepts[1]"), "{error}");
}

#[test]
fn what_others_signed_of_the_artifact_is_seen_for_a_first_policy_and_nothing_else() {
    let seen = |bytes: &[u8], known: &[u8]| {
        let mut observed = Observed::default();
        let keys: Vec<_> = known.iter().map(|n| key(*n).public()).collect();
        observe(bytes, &keys, &World::new().artifact.digest, &mut observed);
        assert!(observed.rebuilders.is_empty() && observed.build_types.is_empty(), "{observed:?}");
        observed.others.into_iter().map(|(id, form, name)| (id == key(2).public().id(), form, name)).collect::<Vec<_>>()
    };
    assert_eq!(seen(&link(2, "hello", |_| {}), &[1, 2]), [(true, Form::Link, None)]);
    assert_eq!(seen(&link(2, "other", |_| {}), &[2]), []);
    assert_eq!(seen(&link(2, "hello", |_| {}), &[3]), []);
    let altered = |l: &mut Value| l["signed"]["products"]["hello.nar"] = digests("hello");
    assert_eq!(seen(&link(2, "other", altered), &[2]), []);
    let both = narinfo("hello", &[2, 3]).print().into_bytes();
    let name = Some("cache.example.org-1".to_owned());
    assert_eq!(seen(&both, &[2]), [(true, Form::NarInfo, name)]);
    assert_eq!(seen(&both, &[2, 3]).len(), 2);
    assert_eq!(seen(&narinfo("other", &[2]).print().into_bytes(), &[2]), []);
    let theirs = of_oss_rebuild(REBUILD, "hello", |_| {});
    let [(_, Form::OssRebuild, Some(builder))] = &seen(&theirs, &[1, 2, 3])[..] else { panic!("not seen") };
    assert!(builder.starts_with("https://"), "{builder}");
}
