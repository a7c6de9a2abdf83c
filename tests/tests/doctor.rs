//! `kiln doctor`: what it says is so, what it advises is a command, and scripts can rely on both.

use kiln_tests::ground::{self, Ground};
use kiln_tests::run::Kiln;
use kiln_tests::schema::fits;
use serde_json::Value;

fn finding<'d>(document: &'d Value, feature: &str) -> &'d Value {
    let findings = document["findings"].as_array().unwrap();
    findings
        .iter()
        .find(|finding| finding["feature"] == feature)
        .unwrap_or_else(|| panic!("no {feature} in {document:#}"))
}

/// What kiln is run through where this host lacks something on purpose. None if that cannot be arranged here.
fn where_namespaces_are_forbidden() -> Option<Kiln> {
    let wrapper = ["unshare", "--user", "--map-root-user", "sh", "-c"];
    let arranged = std::process::Command::new(wrapper[0])
        .args(&wrapper[1..])
        .arg("echo 0 >/proc/sys/user/max_user_namespaces")
        .output()
        .is_ok_and(|output| output.status.success());
    let script = "echo 0 >/proc/sys/user/max_user_namespaces; exec \"$@\"";
    arranged.then(|| Kiln::fresh(Ground::Disk).through(wrapper.into_iter().chain([script, "sh"])))
}

#[test]
fn the_document_fits_its_schema_and_its_exit_code_says_whether_builds_run_here() {
    let ran = Kiln::fresh(Ground::Disk).run(["doctor", "--json"]);
    let document = ran.json();
    fits("doctor", &document);
    let expected = match (document["isolates"].as_bool().unwrap(), document["builds"].as_bool().unwrap()) {
        (true, true) => 0,
        (true, false) => 7,
        (false, _) => 3,
    };
    assert_eq!(ran.code(), Some(expected));
}

#[test]
fn what_it_says_of_the_sandbox_is_what_a_sandbox_does_here() {
    let kiln = Kiln::fresh(Ground::Disk);
    let isolates = kiln.run(["doctor", "--json"]).json()["isolates"].as_bool().unwrap();
    let ran = kiln.run(["sandbox", "--host-root", "--", "true"]);
    assert_eq!(isolates, ran.code() == Some(0), "{}", ran.stderr);
}

#[test]
fn a_line_for_each_feature_and_details_only_for_what_is_not_there() {
    let kiln = Kiln::fresh(Ground::Disk);
    let document = kiln.run(["doctor", "--json"]).json();
    let text = kiln.run(["doctor"]).stdout;
    for finding in document["findings"].as_array().unwrap() {
        let (feature, state) = (finding["feature"].as_str().unwrap(), finding["state"].as_str().unwrap());
        let head = format!("  {state:<8}  {feature} ");
        assert_eq!(text.lines().filter(|line| line.starts_with(&head)).count(), 1, "{head:?} in\n{text}");
        for remedy in finding["remedies"].as_array().unwrap() {
            if let Some(command) = remedy["command"].as_str() {
                assert!(text.lines().any(|line| line.trim() == command), "{command} can be copied from\n{text}");
            }
        }
    }
    let details = text.lines().filter(|line| line.starts_with("            costs")).count();
    let lacking = document["findings"].as_array().unwrap().iter().filter(|f| f["state"] != "ok").count();
    assert_eq!(details, lacking, "{text}");
}

#[test]
fn it_leaves_no_store_and_no_file_behind() {
    let temporary = ground::directory(Ground::Disk);
    let kiln = Kiln::fresh(Ground::Disk).env("TMPDIR", temporary.path().display().to_string());
    kiln.run(["doctor"]);
    assert!(!kiln.store().exists(), "looking makes no store");
    assert_eq!(temporary.path().read_dir().unwrap().count(), 0, "nothing is left where it tried");
}

#[test]
fn where_user_namespaces_are_switched_off_it_exits_3_and_names_the_sysctl() {
    let name = "where_user_namespaces_are_switched_off_it_exits_3_and_names_the_sysctl";
    let Some(kiln) = where_namespaces_are_forbidden() else {
        ground::skipped(name, "no user namespace can be made to forbid them in");
        return;
    };
    let ran = kiln.run(["doctor", "--json"]).exits(3);
    let document = ran.json();
    fits("doctor", &document);
    assert_eq!(document["isolates"], false);
    let namespaces = finding(&document, "user-namespaces");
    assert_eq!(namespaces["state"], "missing");
    assert_eq!(namespaces["remedies"][0]["command"], "sudo sysctl -w user.max_user_namespaces=10000");
    // A refusal, with the way out in it; nothing weaker is run instead.
    kiln.run(["sandbox", "--host-root", "--", "true"]).exits(3).says(&["user.max_user_namespaces"]);
}

#[test]
fn in_a_container_with_a_masked_proc_it_exits_3_and_says_how_to_unmask_it() {
    let name = "in_a_container_with_a_masked_proc_it_exits_3_and_says_how_to_unmask_it";
    let wrapper = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"];
    let masked = "mount -t tmpfs none /proc/fs && exec \"$@\"";
    let arranged = std::process::Command::new(wrapper[0]).args(&wrapper[1..]).args([masked, "sh", "true"]).output();
    if !arranged.is_ok_and(|output| output.status.success()) {
        ground::skipped(name, "nothing can be mounted in a user namespace");
        return;
    }
    let kiln = Kiln::fresh(Ground::Disk).through(wrapper.into_iter().chain([masked, "sh"]));
    let document = kiln.run(["doctor", "--json"]).exits(3).json();
    fits("doctor", &document);
    if ground::is_root() {
        // Root of a namespace that has no further ids: that comes first, and is told.
        assert_eq!(finding(&document, "identity")["state"], "missing");
    }
    let found = finding(&document, "proc");
    assert!(found["state"] == "missing" && found["found"].as_str().unwrap().contains("/proc/fs"), "{found:#}");
    assert!(found["remedies"][0]["command"].as_str().unwrap().contains("unmask=ALL"));
}

#[test]
fn a_store_where_nothing_can_be_written_is_exit_7_and_a_bad_configuration_is_told() {
    let kiln = Kiln::fresh(Ground::Disk);
    let isolates = kiln.run(["doctor", "--json"]).json()["isolates"] == true;
    let document = kiln.run(["doctor", "--json", "--store", "/proc/kiln"]);
    let store = finding(&document.json(), "store").clone();
    assert_eq!(store["state"], "missing", "{store:#}");
    assert!(!isolates || document.code() == Some(7));
    kiln.configure("[mirrors]\ndebain = []\n");
    let document = kiln.run(["doctor", "--json"]).json();
    fits("doctor", &document);
    assert!(finding(&document, "configuration")["found"].as_str().unwrap().contains("did you mean \"debian\""));
}
