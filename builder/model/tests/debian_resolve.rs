//! Resolving over small universes: choices, layers, conflicts, and what an error says.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use kiln_model::debian::resolve::{Closure, ResolveError, Wishes, resolve};
use kiln_model::debian::universe::{Offer, Universe, UniverseError};
use kiln_model::format::packages::{self, IndexError};
use kiln_model::format::sources;

/// An index of `name version | Field: value | …` lines, for suites parted by a line of dashes.
fn index(lines: &str) -> Vec<String> {
    let stanza = |line: &str| {
        let mut parts = line.split(" ! ");
        let (name, version) = parts.next().unwrap().trim().split_once(' ').unwrap();
        let fields: Vec<&str> = parts.map(str::trim).collect();
        format!(
            "Package: {name}\nVersion: {version}\nArchitecture: amd64\nFilename: pool/{name}_{version}.deb\nSize: 1\n\
             SHA256: e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\n{}\n\n",
            fields.join("\n")
        )
    };
    let suite = |text: &str| text.lines().filter(|line| !line.trim().is_empty()).map(stanza).collect();
    lines.split("---").map(suite).collect()
}

fn universe(texts: &[String]) -> Result<Universe<'_>, UniverseError> {
    let mut offers = Vec::new();
    for (suite, text) in texts.iter().enumerate() {
        packages::read(text, |binary| {
            offers.push(Offer { binary, suite });
            Ok::<_, IndexError>(())
        })
        .unwrap();
    }
    Universe::new("amd64", offers)
}

/// What comes out as `name version` words: base, then delta.
fn solve(lines: &str, packages: &[&str]) -> Result<(String, String), ResolveError> {
    let texts = index(lines);
    let universe = universe(&texts)?;
    let mut wishes = Wishes::new();
    for package in packages {
        wishes.package(package, "amd64")?;
    }
    let Closure { base, delta } = resolve(&universe, &wishes)?;
    let words = |ids: Vec<_>| ids.into_iter().map(|id| universe.title(id)).collect::<Vec<_>>().join(", ");
    Ok((words(base), words(delta)))
}

#[track_caller]
fn delta(lines: &str, packages: &[&str]) -> String {
    solve(lines, packages).unwrap_or_else(|e| panic!("{e}")).1
}

#[track_caller]
fn refusal(lines: &str, packages: &[&str]) -> String {
    solve(lines, packages).expect_err("must be refused").to_string()
}

#[test]
fn essential_packages_and_what_they_need_are_always_there_and_are_the_base() {
    let lines = "a 1 ! Essential: yes ! Pre-Depends: b\nb 1\nc 1 ! Depends: b, d\nd 1\nbuild-essential 1 ! Depends: d";
    assert_eq!(solve(lines, &[]).unwrap(), ("a 1, b 1".into(), String::new()));
    assert_eq!(solve(lines, &["c"]).unwrap(), ("a 1, b 1".into(), "c 1, d 1".into()));
    assert_eq!(
        solve(lines, &["c", "build-essential"]).unwrap(),
        ("a 1, b 1, build-essential 1, d 1".into(), "c 1".into())
    );
}

#[test]
fn the_first_alternative_is_taken_unless_another_is_in() {
    let lines = "a 1 ! Depends: x | y\nb 1 ! Depends: y\nx 1\ny 1";
    assert_eq!(delta(lines, &["a"]), "a 1, x 1");
    assert_eq!(delta(lines, &["y", "a"]), "a 1, y 1");
    assert_eq!(delta(lines, &["a", "y"]), "a 1, y 1");
    assert_eq!(delta(lines, &["b", "a"]), "a 1, b 1, y 1");
}

#[test]
fn an_alternative_that_cannot_be_had_is_passed_over_with_all_it_brought() {
    let lines = "a 1 ! Depends: x | y\nx 1 ! Depends: z, nowhere\ny 1\nz 1";
    assert_eq!(delta(lines, &["a"]), "a 1, y 1");
}

#[test]
fn recommended_packages_stay_out() {
    assert_eq!(delta("a 1 ! Recommends: b ! Suggests: b\nb 1", &["a"]), "a 1");
}

#[test]
fn provided_names_count_with_their_versions() {
    let lines = "a 1 ! Depends: v\nb 1 ! Depends: v (>= 2)\nc 1 ! Depends: v (>= 3)\np 1 ! Provides: v\nq 1 ! Provides: v (= 2)";
    assert_eq!(delta(lines, &["a"]), "a 1, p 1");
    assert_eq!(delta(lines, &["b"]), "b 1, q 1");
    assert!(refusal(lines, &["c"]).contains("v"));
    let lines = "a 1 ! Depends: v\np 1 ! Provides: v ! Priority: optional\nq 1 ! Provides: v ! Priority: required\nv 1 ! Priority: extra";
    assert_eq!(delta(lines, &["a"]), "a 1, v 1");
    assert_eq!(delta(&lines.replace("\nv 1 ! Priority: extra", ""), &["a"]), "a 1, q 1");
}

#[test]
fn any_needs_the_package_s_consent() {
    let lines = "a 1 ! Depends: p:any\nb 1 ! Depends: q:any\np 1 ! Multi-Arch: allowed\nq 1";
    assert_eq!(delta(lines, &["a"]), "a 1, p 1");
    assert!(matches!(solve(lines, &["b"]), Err(ResolveError::Unsatisfiable { .. })));
}

#[test]
fn the_highest_version_of_all_suites_is_taken_and_at_equal_ones_the_first_suite() {
    let lines = "a 1\nb 1\n---\na 2\nb 1";
    assert_eq!(delta(lines, &["a", "b"]), "a 2, b 1");
    let texts = index(lines);
    let universe = universe(&texts).unwrap();
    let suites: Vec<_> = universe.versions("b").map(|id| universe.offer(id).suite).collect();
    assert_eq!(suites, [0]);
}

#[test]
fn an_older_version_can_be_asked_for_and_takes_the_base_with_it() {
    let lines =
        "lib 1 ! Essential: yes\ntool 1 ! Depends: lib (= 1)\n---\nlib 2 ! Essential: yes\ntool 2 ! Depends: lib (= 2)";
    assert_eq!(solve(lines, &["tool"]).unwrap(), ("lib 2".into(), "tool 2".into()));
    assert_eq!(solve(lines, &["tool (= 1)"]).unwrap(), ("lib 1".into(), "tool 1".into()));
}

#[test]
fn where_the_first_choices_exclude_each_other_others_are_searched_for() {
    // The walk takes x for a; only b shows that it must be y.
    let lines = "a 1 ! Depends: x | y\nb 1 ! Depends: w\nw 1 ! Conflicts: x\nx 1\ny 1";
    assert_eq!(delta(lines, &["a", "b"]), "a 1, b 1, w 1, y 1");
    let deep = "a 1 ! Depends: p | q\nb 1 ! Depends: r | s\nc 1 ! Depends: t | u\np 1\nq 1\nr 1 ! Breaks: p\ns 1 ! Breaks: q\nt 1 ! Breaks: q, s\nu 1 ! Breaks: p";
    assert_eq!(delta(deep, &["a", "b", "c"]), "a 1, b 1, c 1, q 1, r 1, u 1");
}

#[test]
fn two_sides_that_exclude_each_other_are_both_named_with_how_they_came_in() {
    let lines = "a 1 ! Depends: x\nb 1 ! Depends: w\nw 1 ! Breaks: x (<< 2)\nx 1\nother 1";
    let Err(ResolveError::Conflict { rule, left, right }) = solve(lines, &["other", "a", "b"]) else { panic!() };
    assert_eq!(rule, "w 1 has Breaks: x (<< 2), which means x 1");
    let sides = format!("{left:?} {right:?}");
    assert!(sides.contains("the recipe asks for a") && sides.contains("b 1 has Depends: w"), "{sides}");
    assert!(
        refusal("a 1 ! Conflicts: v\nb 1 ! Provides: v", &["a", "b"]).contains("a 1 has Conflicts: v, which means b 1")
    );
    let two = "x 1\nx 2\na 1 ! Depends: x (= 1)\nb 1 ! Depends: x (= 2)";
    assert!(refusal(two, &["a", "b"]).starts_with("two versions of one package are needed"));
}

#[test]
fn a_package_does_not_exclude_itself() {
    assert_eq!(delta("a 1 ! Provides: v ! Conflicts: v, a (<< 2)", &["a"]), "a 1");
}

#[test]
fn build_conflicts_are_kept() {
    let text = "Package: s\nVersion: 1\nDirectory: d\nBuild-Depends: a | b\nBuild-Conflicts: a\nChecksums-Sha256:\n";
    let texts = index("a 1\nb 1\nbuild-essential 1");
    let universe = universe(&texts).unwrap();
    let mut wishes = Wishes::new();
    let add = |source| wishes.build_dependencies(&source, "amd64");
    let mut read = Vec::new();
    sources::read(
        text,
        |_| true,
        |s| {
            read.push(s);
            Ok::<_, IndexError>(())
        },
    )
    .unwrap();
    read.into_iter().map(add).collect::<Result<Vec<_>, _>>().unwrap();
    let closure = resolve(&universe, &wishes).unwrap();
    let names: Vec<_> = closure.delta.iter().map(|id| universe.title(*id)).collect();
    assert_eq!(names, ["b 1"]);
}

#[test]
fn what_is_not_there_is_told_by_the_shortest_chain() {
    let lines = "a 1 ! Depends: b, c\nb 1 ! Depends: d\nd 1 ! Depends: gone\nc 1 ! Depends: lib (>= 3)\nlib 2";
    let Err(ResolveError::Unsatisfiable { chain }) = solve(lines, &["a"]) else { panic!() };
    assert_eq!(
        chain,
        [
            "the recipe asks for a",
            "a 1 has Depends: c",
            "c 1 has Depends: lib (>= 3)",
            "lib (>= 3) is not satisfied by what there is: lib 2"
        ]
    );
    assert!(refusal("a 1", &["nothing"]).contains("no package in these suites is or provides nothing"));
}

#[test]
fn dependencies_may_go_round_but_pre_depends_may_not() {
    assert_eq!(delta("a 1 ! Depends: b\nb 1 ! Depends: a", &["a"]), "a 1, b 1");
    let lines = "a 1 ! Pre-Depends: b\nb 1 ! Pre-Depends: c\nc 1 ! Pre-Depends: b";
    let Err(ResolveError::Circle { cycle }) = solve(lines, &["a"]) else { panic!() };
    assert_eq!(cycle, ["b", "c", "b"]);
    assert_eq!(delta("a 1 ! Pre-Depends: a | b\nb 1", &["a", "b"]), "a 1, b 1");
}

#[test]
fn a_chain_as_long_as_the_index_needs_no_stack() {
    let lines: String = (0..20_000).map(|n| format!("p{n} 1 ! Depends: p{}\n", n + 1)).collect::<String>() + "p20000 1";
    assert_eq!(delta(&lines, &["p0"]).split(", ").count(), 20_001);
}

#[test]
fn foreign_packages_and_fields_that_are_no_dependencies_are_refused_with_their_line() {
    let texts = [index("a 1").concat().replace("amd64", "arm64")];
    assert!(matches!(universe(&texts), Err(UniverseError::Foreign { line: 1, .. })));
    assert!(refusal("a 1 ! Depends: (", &["a"]).contains("line 1: a: Depends"));
}
