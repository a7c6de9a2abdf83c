//! Version order against `dpkg --compare-versions`, over pairs that are made to differ in every rule.
//!
//! Skipped where dpkg is missing; `MUST_ISOLATE=1` makes that a failure.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::disallowed_types, clippy::disallowed_methods, reason = "a test may ask dpkg; the crate may not")]

use std::cmp::Ordering;
use std::process::Command;

use kiln_model::debian::version::Version;

/// Compares pairs in one shell, since a process per pair would take minutes: `<`, `=` or `>` a line.
fn dpkg(pairs: &[(String, String)]) -> Option<Vec<Ordering>> {
    let compare = "for p; do a=${p%% *}; b=${p#* }; if dpkg --compare-versions \"$a\" lt \"$b\"; then echo -1; \
                   elif dpkg --compare-versions \"$a\" eq \"$b\"; then echo 0; else echo 1; fi; done";
    let arguments = pairs.iter().map(|(a, b)| format!("{a} {b}"));
    Command::new("dpkg").arg("--version").output().ok()?;
    let output = Command::new("sh").args(["-c", compare, "sh"]).args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).unwrap();
    Some(text.lines().map(|line| line.parse::<i32>().unwrap().cmp(&0)).collect())
}

#[test]
fn kiln_and_dpkg_order_versions_alike() {
    let parts = [
        "0",
        "00",
        "1",
        "01",
        "1.0",
        "1.",
        "1a",
        "1A",
        "1~",
        "1~~",
        "1~rc1",
        "1+b1",
        "1+",
        "1.2.3",
        "1.10",
        "9",
        "10",
        "a1",
        "1-1",
        "1-1-1",
        "1-0",
        "1-~",
        "1-a",
        "2:0",
        "0:1",
        "1:1-1~",
        "1.0a-",
        "1z",
        "1.z",
        "1+z",
        "18446744073709551616",
        "1.18446744073709551617",
    ];
    let versions: Vec<&str> = parts.into_iter().filter(|text| Version::parse(text).is_ok()).collect();
    assert!(versions.len() >= 28, "{versions:?}");
    let pairs: Vec<(String, String)> = versions
        .iter()
        .enumerate()
        .flat_map(|(n, a)| versions[n..].iter().map(|b| (a.to_string(), b.to_string())))
        .collect();
    let Some(theirs) = dpkg(&pairs) else {
        assert!(std::env::var_os("MUST_ISOLATE").is_none(), "skipped although MUST_ISOLATE is set: host lacks dpkg");
        eprintln!("skipped: host lacks dpkg");
        return;
    };
    assert_eq!(pairs.len(), theirs.len());
    for ((a, b), theirs) in pairs.iter().zip(theirs) {
        let (left, right) = (Version::parse(a).unwrap(), Version::parse(b).unwrap());
        assert_eq!(left.cmp(&right), theirs, "{a} against {b}");
        assert_eq!(right.cmp(&left), theirs.reverse(), "{b} against {a}");
    }
}
