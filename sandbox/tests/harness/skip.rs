//! A host that cannot isolate: each test says so, and is counted; or fails where `MUST_ISOLATE` is set.

use std::io::Write as _;

use kiln_sandbox::PlanError;

/// Notes on stderr, and in the file that `KILN_TEST_SKIPS` names, that this test cannot run here.
pub(crate) fn cannot_isolate(refusal: &PlanError) {
    assert!(std::env::var_os("MUST_ISOLATE").is_none_or(|value| value != "1"), "{refusal}");
    let thread = std::thread::current();
    let line = format!("skipped: {}: {refusal}\n", thread.name().unwrap_or("a test"));
    eprint!("{line}");
    if let Some(list) = std::env::var_os("KILN_TEST_SKIPS") {
        let mut file = std::fs::OpenOptions::new().append(true).create(true).open(list).unwrap();
        file.write_all(line.as_bytes()).unwrap();
    }
}
