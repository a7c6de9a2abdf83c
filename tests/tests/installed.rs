//! `kiln verify --installed`: packages of a root file system, by what its dpkg and apt say of them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use kiln_model::digest::Digest;
use kiln_tests::ground::{self, Ground};
use kiln_tests::run::{Kiln, Ran};
use kiln_tests::schema::fits;
use kiln_tests::trust::Trust;
use serde_json::Value;
use tempfile::TempDir;

/// A root file system with a database of dpkg's and lists of apt's.
struct Host {
    place: TempDir,
    trust: Trust,
    kiln: Kiln,
}

fn purl(name: &str) -> String {
    format!("pkg:deb/debian/{name}@1.0-1?arch=amd64")
}

impl Host {
    /// With these packages installed.
    fn with(names: &[&str]) -> Self {
        let host = Self {
            place: ground::directory(Ground::Disk),
            trust: Trust::of("pkg:deb/debian/*"),
            kiln: Kiln::fresh(Ground::Disk),
        };
        let stanza = |name: &&str| {
            format!("Package: {name}\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1.0-1\n\n")
        };
        host.write("var/lib/dpkg/status", &names.iter().map(stanza).collect::<String>());
        host.write("etc/os-release", "ID=debian\n");
        host
    }

    fn write(&self, path: &str, text: &str) -> PathBuf {
        let path = self.place.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    /// A list of apt's in which each package has the digest of the text.
    fn list(&self, file: &str, packages: &[(&str, &str)]) {
        let stanza = |(name, text): &(&str, &str)| {
            format!(
                "Package: {name}\nVersion: 1.0-1\nArchitecture: amd64\nFilename: pool/{name}.deb\nSize: 1\nSHA256: {}\n\n",
                Digest::of(text)
            )
        };
        let text: String = packages.iter().map(stanza).collect();
        self.write(&format!("var/lib/apt/lists/{file}_Packages"), &text);
    }

    fn agreed(&self, name: &str, uri: Option<&str>, text: &str) {
        for operator in [1, 2] {
            self.trust.built(operator, &format!("{name}_1.0-1_amd64.deb"), uri, Digest::of(text));
        }
    }

    fn verify(&self, more: &[&str]) -> Ran {
        verify(&self.kiln, &self.trust, self.place.path(), more)
    }

    /// Runs it with `--json`; the exit code is `code` and the document fits its schema.
    fn document(&self, code: i32) -> Value {
        let document = self.verify(&["--json"]).exits(code).json();
        fits("installed", &document);
        document
    }
}

fn verify(kiln: &Kiln, trust: &Trust, root: &Path, more: &[&str]) -> Ran {
    let mut words = ["verify", "--installed", "--root"].map(String::from).to_vec();
    words.push(root.display().to_string());
    words.extend(trust.arguments());
    words.extend(more.iter().map(ToString::to_string));
    kiln.run(words)
}

fn answers(document: &Value) -> Vec<(&str, &str)> {
    let packages = document["packages"].as_array().unwrap().iter();
    packages.map(|one| (one["name"].as_str().unwrap(), one["answer"].as_str().unwrap())).collect()
}

#[test]
fn packages_with_enough_evidence_are_allowed_and_the_others_are_told_a_line_each() {
    let host = Host::with(&["good", "lone", "nowhere"]);
    host.list("main", &[("good", "good"), ("lone", "lone")]);
    host.agreed("good", None, "good");
    host.trust.built(1, "lone_1.0-1_amd64.deb", None, Digest::of("lone"));
    let document = host.document(4);
    assert_eq!(answers(&document), [("good", "allowed"), ("lone", "insufficient"), ("nowhere", "insufficient")]);
    assert_eq!(document["packages"][0]["digest_from"], "apt-lists");
    assert_eq!(document["packages"][0]["purl"], purl("good"));
    assert_eq!(document["packages"][2]["digest_from"], Value::Null);
    assert_eq!(document["summary"]["packages"], 3);
    assert_eq!(document["summary"]["answers"], serde_json::json!({ "allowed": 1, "insufficient": 2 }));
    let told = host.verify(&[]).exits(4).stdout;
    let lines: Vec<&str> = told.lines().collect();
    assert_eq!(lines[0], "allowed      good 1.0-1 amd64: org-1, org-2");
    assert!(lines[1].starts_with("insufficient lone 1.0-1 amd64: threshold: 1 (org-1)"), "{told}");
    assert!(lines[2].starts_with("insufficient nowhere 1.0-1 amd64: no digest"), "{told}");
    assert_eq!(lines[3], "3 packages: 1 allowed, 2 insufficient");
    assert!(lines[4].contains("by name and version only"), "{told}");
    assert_eq!(lines.len(), 5, "{told}");
    let explained = host.verify(&["--explain"]).exits(4).stdout;
    assert!(explained.contains("org-1: IDENTICAL (counts)"), "{explained}");
}

#[test]
fn each_kind_of_answer_has_its_exit_code() {
    let host = Host::with(&["good", "other"]);
    host.list("main", &[("good", "good"), ("other", "other")]);
    host.agreed("good", None, "good");
    host.agreed("other", None, "other");
    assert_eq!(host.document(0)["exit"], 0);
    host.trust.differs(3, "other_1.0-1_amd64.deb", &purl("other"), Digest::of("other"));
    assert_eq!(answers(&host.document(1)), [("good", "allowed"), ("other", "denied")]);
    let file = host.trust.at("evidence/built-1-good_1.0-1_amd64.deb.json");
    let envelope = fs::read_to_string(&file).unwrap();
    let other = fs::read_to_string(host.trust.at("evidence/built-1-other_1.0-1_amd64.deb.json")).unwrap();
    let payload = |text: &str| serde_json::from_str::<Value>(text).unwrap()["payload"].as_str().unwrap().to_owned();
    fs::write(&file, envelope.replace(&payload(&envelope), &payload(&other))).unwrap();
    let document = host.document(6);
    assert!(answers(&document).iter().all(|(_, answer)| *answer == "tampered"), "{document:#}");
}

#[test]
fn what_two_archives_call_by_one_name_must_both_be_reproduced() {
    let host = Host::with(&["good"]);
    host.list("main", &[("good", "good")]);
    host.agreed("good", None, "good");
    host.document(0);
    host.list("other", &[("good", "not the same")]);
    let document = host.document(4);
    assert_eq!(document["packages"][0]["decisions"].as_array().unwrap().len(), 2);
    host.trust.built(1, "other", None, Digest::of("not the same"));
    host.trust.built(2, "other", None, Digest::of("not the same"));
    host.document(0);
}

#[test]
fn a_digest_that_only_evidence_names_is_said_to_be_by_its_word() {
    let host = Host::with(&["good", "unnamed"]);
    host.agreed("good", Some(&purl("good")), "good");
    host.agreed("unnamed", None, "unnamed");
    let document = host.document(4);
    assert_eq!(answers(&document), [("good", "allowed"), ("unnamed", "insufficient")]);
    assert_eq!(
        (&document["packages"][0]["digest_from"], &document["packages"][0]["link"]),
        (&"evidence".into(), &"name".into())
    );
    let told = host.verify(&[]).stdout;
    assert!(told.contains("good 1.0-1 amd64: org-1, org-2 [digest by what evidence calls so]"), "{told}");
    assert!(told.contains("1 by what evidence calls so, 1 unknown"), "{told}");
    // A third party who calls other bytes so costs a yes; it gives none.
    host.trust.built(3, "good-again", Some(&purl("good")), Digest::of("bad"));
    assert_eq!(answers(&host.document(4))[0], ("good", "insufficient"));
    // What apt's lists say comes first.
    host.list("main", &[("good", "good"), ("unnamed", "unnamed")]);
    host.document(0);
}

#[test]
fn a_policy_for_other_packages_denies_these() {
    let host = Host::with(&["good"]);
    host.list("main", &[("good", "good")]);
    host.agreed("good", None, "good");
    let policy = fs::read_to_string(host.trust.at("policy.toml")).unwrap();
    fs::write(host.trust.at("policy.toml"), policy.replace("pkg:deb/debian/*", "pkg:deb/ubuntu/*")).unwrap();
    host.document(1);
}

#[test]
fn roots_without_dpkg_broken_databases_and_mixed_arguments_are_refused() {
    let host = Host::with(&["good"]);
    let empty = ground::directory(Ground::Disk);
    verify(&host.kiln, &host.trust, empty.path(), &[]).exits(2).says(&["var/lib/dpkg/status", "--root"]);
    host.verify(&["--purl", "pkg:deb/debian/good@1"]).exits(2);
    host.verify(&["Cargo.toml"]).exits(2);
    let words = ["verify", "Cargo.toml", "--root", "/"].map(String::from).into_iter().chain(host.trust.arguments());
    host.kiln.run(words).exits(2).says(&["--root"]);
    let list = host.write("var/lib/apt/lists/a_Packages.lz4", "no lz4");
    host.verify(&[]).exits(7).says(&[list.to_str().unwrap()]);
    fs::remove_file(list).unwrap();
    let status = host.write("var/lib/dpkg/status", "Package: good\nStatus: install ok lost\n");
    host.verify(&[]).exits(2).says(&[status.to_str().unwrap(), "line 1", "lost"]);
}

#[test]
fn this_host_is_told_package_by_package_as_its_own_dpkg_lists_them() {
    let name = "this_host_is_told_package_by_package_as_its_own_dpkg_lists_them";
    let mut query = Command::new("dpkg-query");
    query.args(["-W", "-f", "${db:Status-Status} ${Package} ${Version} ${Architecture}\n"]);
    let Ok(listed) = query.output() else {
        ground::skipped(name, "host lacks dpkg");
        return;
    };
    let listed = String::from_utf8(listed.stdout).unwrap();
    let there = |line: &'_ str| !line.starts_with("not-installed ") && !line.starts_with("config-files ");
    let lines = listed.lines().filter(|line| there(line));
    let mut listed: Vec<&str> = lines.map(|line| line.split_once(' ').unwrap().1).collect();
    listed.sort_unstable();
    let trust = Trust::of("*");
    let document = verify(&Kiln::fresh(Ground::Disk), &trust, Path::new("/"), &["--json"]).exits(4).json();
    fits("installed", &document);
    let told = |one: &Value| ["name", "version", "architecture"].map(|field| one[field].as_str().unwrap()).join(" ");
    let mut found: Vec<String> = document["packages"].as_array().unwrap().iter().map(told).collect();
    found.sort_unstable();
    assert_eq!(found, listed);
}
