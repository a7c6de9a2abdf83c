//! What a host cannot try: each part is in a list, by name, or the tests fail where `MUST_ISOLATE` is set.

use std::fs::OpenOptions;
use std::io::Write as _;

/// Notes that this host cannot try `part`, as the list `not-here` calls it. Fails under `MUST_ISOLATE=1` unless listed.
pub(crate) fn not_here(part: &str, why: &str) {
    let listed = include_str!("../not-here").lines().any(|line| line.split(':').next() == Some(part));
    let line = format!("not here: {part}: {why}\n");
    assert!(listed || std::env::var_os("MUST_ISOLATE").is_none_or(|value| value != "1"), "{line}and not-here lacks it");
    eprint!("{line}");
    if let Some(list) = std::env::var_os(if listed { "KILN_TEST_NOT_HERE" } else { "KILN_TEST_SKIPS" }) {
        let mut file = OpenOptions::new().append(true).create(true).open(list).unwrap();
        file.write_all(line.as_bytes()).unwrap();
    }
}
