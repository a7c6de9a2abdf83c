//! Policies that load, and each way in which one does not.

use super::*;

fn key(n: u8) -> String {
    format!("sha256:{}", Digest::of([n]))
}

/// The document of the design with all its members, two further rebuilders, and keys put in.
fn whole() -> String {
    format!(
        r#"
schema      = 1
sbom        = {{ required = false, profile = "ntia" }}
vulns       = {{ max_cvss = 10.0, vex_authors = [], feed_max_age_days = 7 }}
runtime     = {{ required = false, deny_events = [] }}
rego        = {{ modules = [] }}
break_glass = {{ allowed = false }}
[artifact]
match        = "pkg:generic/hello@*"
resource_uri = "https://dl.example.org/hello/{{version}}/{{name}}"
[threshold]
identical         = 2
equivalent_counts = false
on_dissent        = "deny"
allow_flaky       = false
disregard         = []
min_independence  = {{ operators = 2, tool_versions = 1, architectures_or_os = 0 }}
[[rebuilder]]
id = "https://rb1.example.org/kiln/sandboxed"
operator = "org-a"
keys = ["{}"]
max_slsa_level = 0
valid = ["2026-01-01", "2027-01-01"]
revoked_after = ""
[[rebuilder]]
id = "https://rb2.example.net/kiln/sandboxed"
operator = "org-b"
keys = ["{}"]
valid = ["2026-01-01", "2027-01-01"]
[[verifier]]
id = "https://vcs.example.org/slsa"
keys = ["{}"]
max_level = "SLSA_SOURCE_LEVEL_0"
resource_uri = "git+https://example.org/*"
[provenance]
build_types = ["https://kiln.build/build/v1"]
external_parameters = {{ recipe = "git+https://example.org/r@refs/tags/v*", target = "*" }}
deny_unknown_parameters = true
min_level    = 0
max_age_days = 0
[inputs]
require_digest = true
allow_uri    = ["*"]
deny_digests = []
licences     = {{ allow = [], deny = [], unknown = "deny" }}
source_vsa_min = ""
[log]
tlog_policy = "log.policy"
require_inclusion = true
checkpoint_max_age_hours = 0
pinned_checkpoint = ""
"#,
        key(1),
        key(2),
        key(3)
    )
}

/// The same without any member that has a default.
fn short() -> String {
    let optional = [
        "sbom ",
        "vulns ",
        "runtime ",
        "rego ",
        "break_glass",
        "equivalent_counts",
        "on_dissent",
        "allow_flaky",
        "disregard",
        "min_independence",
        "max_slsa_level",
        "revoked_after",
        "max_level",
        "build_types",
        "deny_unknown",
        "min_level",
        "max_age",
        "[inputs]",
        "require_digest",
        "allow_uri",
        "deny_digests",
        "licences",
        "source_vsa_min",
        "[log]",
        "tlog_policy",
        "require_inclusion",
        "checkpoint_max",
        "pinned_checkpoint",
    ];
    whole().lines().filter(|line| !optional.iter().any(|o| line.starts_with(o))).collect::<Vec<_>>().join("\n")
}

/// The message of the refusal of the whole document after `from` was replaced by `to`.
fn refused(from: &str, to: &str) -> String {
    let text = whole();
    assert!(text.contains(from), "{from}");
    Policy::parse(&text.replacen(from, to, 1)).unwrap_err().to_string()
}

#[test]
fn the_values_of_the_design_are_the_defaults() {
    let (mut whole, mut short) = (Policy::parse(&whole()).unwrap(), Policy::parse(&short()).unwrap());
    assert_ne!(whole.digest, short.digest);
    (whole.digest, short.digest) = (Digest::of(""), Digest::of(""));
    assert_eq!(whole, short);
    assert_eq!(whole.operators().into_iter().collect::<Vec<_>>(), ["org-a", "org-b"]);
    assert_eq!(whole.keys().len(), 3);
    assert_eq!(whole.log.inclusion, Inclusion::Required);
    assert_eq!(whole.threshold.on_dissent, OnDissent::Deny);
}

#[test]
fn inline_tables_and_tables_are_the_same() {
    let inline =
        whole().replace("min_independence  = { operators = 2, tool_versions = 1, architectures_or_os = 0 }", "");
    let table = inline.replace(
        "[[verifier]]",
        "[threshold.min_independence]\noperators = 2\ntool_versions = 1\narchitectures_or_os = 0\n[[verifier]]",
    );
    assert_eq!(Policy::parse(&table).unwrap().threshold, Policy::parse(&whole()).unwrap().threshold);
}

#[test]
fn an_unknown_member_is_refused_wherever_it_stands_and_the_nearest_is_offered() {
    let error = refused("allow_flaky       =", "allow_flakey =");
    assert!(error.contains("line ") && error.contains("\"allow_flaky\""), "{error}");
    for place in ["[artifact]", "[threshold]", "[[rebuilder]]", "[[verifier]]", "[provenance]", "[inputs]", "[log]"] {
        let error = refused(place, &format!("{place}\nsurprise = 1"));
        assert!(error.contains("surprise"), "{place}: {error}");
    }
    for table in ["sbom        = {", "vulns       = {", "runtime     = {", "rego        = {", "break_glass = {"] {
        let error = refused(table, &format!("{table} surprise = 1,"));
        assert!(error.contains("surprise"), "{table}: {error}");
    }
}

#[test]
fn a_policy_that_can_never_pass_is_refused_and_says_why() {
    for (from, to, words) in [
        ("identical         = 2", "identical = 3", ["threshold.identical: 3", "2 operators"]),
        ("identical         = 2", "identical = 0", ["threshold.identical", "at least 1"]),
        ("{ operators = 2,", "{ operators = 3,", ["min_independence.operators: 3", "2 operators"]),
        ("tool_versions = 1,", "tool_versions = 3,", ["min_independence.tool_versions", "2 operators"]),
        ("architectures_or_os = 0", "architectures_or_os = 3", ["architectures_or_os", "2 operators"]),
        ("min_level    = 0", "min_level = 1", ["threshold.identical: 2", "0 operators (of 2, 2 with a max_slsa_level"]),
        ("operator = \"org-b\"", "operator = \"org-a\"", ["threshold.identical: 2", "1 operator;"]),
        ("revoked_after = \"\"", "revoked_after = \"2025-12-31\"", ["threshold.identical: 2", "1 operator "]),
        (
            "valid = [\"2026-01-01\", \"2027-01-01\"]",
            "valid = [\"2027-01-01\", \"2027-01-01\"]",
            ["rebuilder[0].valid", "before"],
        ),
        ("source_vsa_min = \"\"", "source_vsa_min = \"SLSA_SOURCE_LEVEL_2\"", ["inputs.source_vsa_min", "max_level"]),
        ("tlog_policy = \"log.policy\"", "tlog_policy = \"\"", ["log.tlog_policy", "require_inclusion"]),
        (
            "build_types = [\"https://kiln.build/build/v1\"]",
            "build_types = []",
            ["provenance.build_types", "leave it out"],
        ),
        ("allow_uri    = [\"*\"]", "allow_uri = []", ["inputs.allow_uri", "leave it out"]),
        (
            "external_parameters = { recipe = \"git+https://example.org/r@refs/tags/v*\", target = \"*\" }",
            "external_parameters = {}",
            ["external_parameters", "recipe"],
        ),
    ] {
        let error = refused(from, to);
        for word in words {
            assert!(error.contains(word), "{to}: {error}");
        }
    }
    let nobody = whole().split("[[rebuilder]]").next().unwrap().to_owned()
        + "[provenance]"
        + whole().split("[provenance]").nth(1).unwrap();
    assert_eq!(Policy::parse(&nobody).unwrap_err(), PolicyError::NoRebuilder);
    assert!(refused(&format!("keys = [\"{}\"]", key(1)), "keys = []").contains("rebuilder[0].keys is empty"));
}

#[test]
fn an_age_without_required_inclusion_contradicts_itself() {
    let text = whole().replace("require_inclusion = true", "require_inclusion = false");
    assert!(Policy::parse(&text).is_ok());
    let error = Policy::parse(&text.replace("age_hours = 0", "age_hours = 24")).unwrap_err().to_string();
    assert!(error.contains("log.checkpoint_max_age_hours") && error.contains("require_inclusion"), "{error}");
}

#[test]
fn no_key_has_two_voices_and_no_id_stands_twice() {
    for other in [2, 3] {
        let error = refused(&key(other), &key(1));
        assert!(error.contains("already stands in rebuilder[0].keys[0]"), "{error}");
    }
    assert!(refused("vex_authors = []", &format!("vex_authors = [\"{}\"]", key(2))).contains("vulns.vex_authors[0]"));
    assert!(refused("https://rb2.example.net", "https://rb1.example.org").contains("already stands in rebuilder[0]"));
}

#[test]
fn a_value_that_is_none_names_its_field_and_what_is_one() {
    for (from, to, words) in [
        ("schema      = 1", "schema = 2", ["schema: 2", "schema 1"]),
        ("profile = \"ntia\"", "profile = \"full\"", ["sbom.profile", "fsct3-min"]),
        ("max_cvss = 10.0", "max_cvss = 11.0", ["vulns.max_cvss", "10.0"]),
        ("max_cvss = 10.0", "max_cvss = nan", ["vulns.max_cvss", "10.0"]),
        ("deny_events = []", "deny_events = [\"dns\"]", ["runtime.deny_events[0]", "network"]),
        ("\"deny\"\nallow", "\"ignore\"\nallow", ["threshold.on_dissent", "outvote"]),
        ("disregard         = []", "disregard = [\"abc\"]", ["threshold.disregard[0]", "envelope id"]),
        ("pkg:generic/hello@*", "hello", ["artifact.match", "purl"]),
        ("{version}", "{digest}", ["artifact.resource_uri", "{version}"]),
        ("max_slsa_level = 0", "max_slsa_level = 4", ["rebuilder[0].max_slsa_level", "0 to 3"]),
        ("https://rb1.example.org/kiln/sandboxed", "rb1", ["rebuilder[0].id", "URI"]),
        ("revoked_after = \"\"", "revoked_after = \"soon\"", ["rebuilder[0].revoked_after", "2026-01-31"]),
        ("\"2026-01-01\", \"2027-01-01\"", "\"2026-01-01\"", ["rebuilder[0].valid", "two dates"]),
        ("\"2026-01-01\"", "\"2026-02-30\"", ["rebuilder[0].valid[0]", "2026-01-31"]),
        ("vcs.example.org/slsa", "vcs.example.org/slsa@1", ["verifier[0].id", "version"]),
        ("git+https://example.org/*", "https://example.org*", ["verifier[0].resource_uri", ""]),
        ("max_level = \"SLSA_SOURCE_LEVEL_0\"", "max_level = \"SLSA_SOURCE_LEVEL_5\"", ["verifier[0].max_level", "_4"]),
        ("deny_digests = []", "deny_digests = [\"sha256:ABC\"]", ["inputs.deny_digests[0]", "lower-case"]),
        ("deny = [], unknown", "deny = [\"MIT AND ISC\"], unknown", ["inputs.licences.deny[0]", "SPDX"]),
        (
            "allow = [], deny = [], unknown",
            "allow = [\"MIT\"], deny = [\"MIT\"], unknown",
            ["inputs.licences.allow", "deny"],
        ),
        ("unknown = \"deny\"", "unknown = \"warn\"", ["inputs.licences.unknown", "allow"]),
        (
            "target = \"*\" }",
            "\"parameters.\" = \"*\" }",
            ["provenance.external_parameters.parameters.", "parameters.<name>"],
        ),
    ] {
        let error = refused(from, to);
        for word in words {
            assert!(error.contains(word), "{to}: {error}");
        }
    }
    let error = refused(&key(1), &key(1).to_uppercase());
    assert!(error.contains("rebuilder[0].keys[0]") && error.contains("kiln key show"), "{error}");
}

#[test]
fn a_starter_loads_and_asks_to_confirm_every_key() {
    let key = |n: u8| Digest::of([n]).to_string().parse::<KeyId>().unwrap();
    let mut observed = Observed {
        purl: Some("pkg:generic/hello@1.0".into()),
        name: "hello.nar".into(),
        rebuilders: [
            ("https://rb1.example.org/kiln/sandboxed".to_owned(), key(1)),
            ("https://rb1.example.org/kiln/traced".to_owned(), key(2)),
            ("spiffe://rb2.example.net/kiln".to_owned(), key(3)),
        ]
        .into(),
        others: BTreeSet::new(),
        build_types: [BUILD_TYPE.to_owned()].into(),
        external_parameters: [
            ("recipe".to_owned(), ["git+https://example.org/r#a\"b.toml".to_owned()].into()),
            ("target".to_owned(), ["a".to_owned(), "b".to_owned()].into()),
            ("parameters.x".to_owned(), ["1".to_owned()].into()),
        ]
        .into(),
        logged: Logged::No,
    };
    let today = "2026-11-22T10:00:00Z".parse().unwrap();
    let text = starter(&observed, today);
    let policy = Policy::parse(&text).unwrap_or_else(|e| panic!("{e}\n{text}"));
    assert_eq!(policy.operators().into_iter().collect::<Vec<_>>(), ["rb1.example.org", "rb2.example.net"]);
    assert_eq!(policy.threshold.identical, 2);
    assert_eq!(policy.keys().len(), 3);
    assert!(policy.artifact.pattern.matches("pkg:generic/hello@2.0"));
    assert!(policy.provenance.external_parameters["recipe"].matches("git+https://example.org/r#a\"b.toml"));
    assert_eq!(text.matches("seen, not confirmed").count(), 3);
    observed.logged = Logged::Yes;
    assert_eq!(Policy::parse(&starter(&observed, today)).unwrap().log.inclusion, Inclusion::Required);
    // A key that speaks in two ways stands once; one that nothing names is called by its first digits.
    observed.others = [
        (key(1), Form::NarInfo, Some("cache.example.org-1".to_owned())),
        (key(4), Form::NarInfo, Some("nix.example.com-1".to_owned())),
        (key(5), Form::Link, None),
        (key(6), Form::OssRebuild, Some("https://oss.example.com/hosts/one".to_owned())),
    ]
    .into();
    observed.logged = Logged::No;
    let text = starter(&observed, today);
    let policy = Policy::parse(&text).unwrap_or_else(|e| panic!("{e}\n{text}"));
    let hint = format!("key-{}", &key(5).to_string()[..8]);
    let expected = [&hint, "nix.example.com-1", "oss.example.com", "rb1.example.org", "rb2.example.net"];
    assert_eq!(policy.operators().into_iter().collect::<Vec<_>>(), expected);
    assert_eq!(policy.keys().len(), 6);
    let accepts = |n: u8| policy.rebuilders.iter().find(|one| one.keys.contains(&key(n))).unwrap().accepts.clone();
    assert_eq!([1, 4, 5, 6, 3].map(accepts).map(|forms| forms.len()), [1, 1, 1, 1, 0]);
    assert_eq!(policy.threshold.independence.tool_versions, 0);
    // Nothing seen, nobody believed.
    assert_eq!(Policy::parse(&starter(&Observed::default(), today)), Err(PolicyError::NoRebuilder));
}
