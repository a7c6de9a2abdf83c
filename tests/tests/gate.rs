//! `kiln gate` in front of the real programs: apt installs into a root of its own, pip into a directory of its own, and each
//! only what the policy lets in.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use kiln_model::digest::Digest;
use kiln_tests::ground::{self, Ground};
use kiln_tests::run::{Kiln, Ran};
use kiln_tests::schema::fits;
use kiln_tests::trust::{NOW, Trust};
use tempfile::TempDir;

/// A block of docs/integrations.md.
fn documented(language: &str) -> String {
    let text = fs::read_to_string(ground::repository().join("docs/integrations.md")).unwrap();
    let (_, rest) = text.split_once(&format!("```{language}\n")).unwrap_or_else(|| panic!("no block of {language}"));
    rest.split_once("```").unwrap().0.to_owned()
}

/// apt with a root of its own, and an archive in a directory.
struct Apt {
    place: TempDir,
    trust: Trust,
    kiln: Kiln,
}

impl Apt {
    /// None where this host has no apt.
    fn new(test: &str) -> Option<Self> {
        for program in ["apt-get", "dpkg", "dpkg-deb"] {
            if Command::new(program).arg("--version").output().is_err() {
                ground::skipped(test, &format!("host lacks {program}"));
                return None;
            }
        }
        let place = ground::directory(Ground::Disk);
        let apt = Self { place, trust: Trust::of("pkg:deb/*"), kiln: Kiln::fresh(Ground::Disk) };
        for directory in [
            "archive",
            "root/etc/apt/apt.conf.d",
            "root/etc/apt/preferences.d",
            "root/etc/apt/sources.list.d",
            "root/etc/apt/trusted.gpg.d",
            "root/var/lib/apt/lists/partial",
            "root/var/cache/apt/archives/partial",
            "root/var/lib/dpkg/info",
            "root/var/lib/dpkg/updates",
            "root/var/lib/dpkg/triggers",
            "root/var/log/apt",
        ] {
            fs::create_dir_all(apt.at(directory)).unwrap();
        }
        fs::write(apt.at("root/var/lib/dpkg/status"), "").unwrap();
        let archive = apt.at("archive").display().to_string();
        // Of `file:` apt would keep links that lead out of its root.
        fs::write(apt.at("root/etc/apt/sources.list"), format!("deb [trusted=yes] copy:{archive} ./\n")).unwrap();
        let trust = |name: &str| apt.trust.at(name).display().to_string();
        apt.kiln.configure(&format!(
            "[gate]\npolicy = \"{}\"\nevidence = [\"{}\"]\n",
            trust("policy.toml"),
            trust("evidence")
        ));
        apt.hook(&documented("apt.conf"));
        Some(apt)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    /// Configures apt, with these lines for the gate.
    fn hook(&self, lines: &str) {
        let root = self.at("root").display().to_string();
        let kiln = ground::kiln().display().to_string();
        assert!(lines.contains("/usr/bin/kiln gate apt"), "{lines}");
        // The tests' keys have a time of their own.
        let lines = lines.replace("gate apt", &format!("gate apt --now {NOW}")).replace("/usr/bin/kiln", &kiln);
        let settings = format!(
            "Dir \"{root}\";\nDir::State::status \"{root}/var/lib/dpkg/status\";\nDir::Bin::methods \"/usr/lib/apt/methods\";\n\
             APT::Sandbox::User \"\";\nAPT::Architecture \"amd64\";\n\
             DPkg::Options {{ \"--root={root}\"; \"--log=/dev/null\"; \"--force-not-root\"; \"--force-script-chrootless\"; }};\n{lines}"
        );
        fs::write(self.at("apt.conf"), settings).unwrap();
    }

    /// Puts a package into the archive; its digest.
    fn publish(&self, name: &str) -> Digest {
        let tree = self.at(&format!("{name}.tree"));
        let share = tree.join("usr/share").join(name);
        fs::create_dir_all(&share).unwrap();
        fs::create_dir_all(tree.join("DEBIAN")).unwrap();
        fs::write(share.join("text"), name).unwrap();
        let control = format!(
            "Package: {name}\nVersion: 1.0-1\nArchitecture: all\nMaintainer: A <a@example.org>\nDescription: one\n"
        );
        fs::write(tree.join("DEBIAN/control"), &control).unwrap();
        let file = self.at(&format!("archive/{name}_1.0-1_all.deb"));
        let mut build = Command::new("dpkg-deb");
        Ran::of({
            build.arg("--build").arg(&tree).arg(&file);
            build
        })
        .succeeded();
        let bytes = fs::read(&file).unwrap();
        let digest = Digest::of(&bytes);
        let stanza = format!("{control}Filename: ./{name}_1.0-1_all.deb\nSize: {}\nSHA256: {digest}\n\n", bytes.len());
        let index = self.at("archive/Packages");
        let before = fs::read_to_string(&index).unwrap_or_default();
        fs::write(index, before + &stanza).unwrap();
        self.get(&["update"]).succeeded();
        digest
    }

    fn get(&self, words: &[&str]) -> Ran {
        let mut command = Command::new("apt-get");
        command.arg("--yes").args(words).env_clear().env("PATH", std::env::var_os("PATH").unwrap());
        command.env("APT_CONFIG", self.at("apt.conf")).env("HOME", self.kiln.home()).env("LC_ALL", "C.UTF-8");
        command.env("DEBIAN_FRONTEND", "noninteractive").current_dir(self.place.path());
        Ran::of(command)
    }

    fn has(&self, name: &str) -> bool {
        self.at("root/usr/share").join(name).join("text").is_file()
    }

    fn agreed(&self, name: &str, digest: Digest) {
        for operator in [1, 2] {
            self.trust.built(operator, &format!("{name}_1.0-1_all.deb"), None, digest);
        }
    }
}

#[test]
fn apt_installs_what_enough_rebuilders_vouch_for_and_removes_it_without_being_asked() {
    let Some(apt) = Apt::new("apt_installs_what_enough_rebuilders_vouch_for_and_removes_it_without_being_asked") else {
        return;
    };
    let digest = apt.publish("greet");
    apt.agreed("greet", digest);
    let ran = apt.get(&["install", "greet"]).succeeded();
    assert!(apt.has("greet"), "{}{}", ran.stdout, ran.stderr);
    assert!(ran.stdout.contains("kiln: allowed: greet 1.0-1 all"), "{}", ran.stdout);
    // What apt and dpkg wrote is what --installed reads.
    let mut words = vec!["verify".to_owned(), "--installed".into(), "--root".into()];
    words.push(apt.at("root").display().to_string());
    words.extend(apt.trust.arguments());
    let told = apt.kiln.run(words).succeeded().stdout;
    assert!(told.contains("allowed      greet 1.0-1 all: org-1, org-2"), "{told}");
    fs::remove_file(apt.trust.at("policy.toml")).unwrap();
    apt.get(&["remove", "greet"]).succeeded();
    assert!(!apt.has("greet"));
    let ran = apt.get(&["install", "greet"]);
    assert!(ran.code() != Some(0) && !apt.has("greet"), "no policy lets nothing in");
    assert!(ran.stderr.contains("policy.toml"), "{}", ran.stderr);
}

#[test]
fn apt_installs_nothing_if_one_package_lacks_evidence_and_it_is_named() {
    let Some(apt) = Apt::new("apt_installs_nothing_if_one_package_lacks_evidence_and_it_is_named") else { return };
    let greet = apt.publish("greet");
    let part = apt.publish("part");
    apt.agreed("greet", greet);
    apt.trust.built(1, "part_1.0-1_all.deb", None, part);
    let ran = apt.get(&["install", "greet", "part"]);
    assert_eq!(ran.code(), Some(100), "{}{}", ran.stdout, ran.stderr);
    assert!(ran.stdout.contains("kiln: insufficient: part 1.0-1 all"), "{}", ran.stdout);
    assert!(ran.stdout.contains("operators that built the same bytes"), "{}", ran.stdout);
    assert!(!apt.has("greet") && !apt.has("part"));
    apt.trust.built(2, "part_1.0-1_all.deb", None, part);
    apt.get(&["install", "greet", "part"]).succeeded();
    assert!(apt.has("greet") && apt.has("part"));
}

#[test]
fn apt_installs_nothing_that_a_rebuilder_says_is_different() {
    let Some(apt) = Apt::new("apt_installs_nothing_that_a_rebuilder_says_is_different") else { return };
    let digest = apt.publish("greet");
    apt.agreed("greet", digest);
    apt.trust.differs(3, "greet_1.0-1_all.deb", "pkg:deb/debian/greet@1.0-1?arch=all", digest);
    let ran = apt.get(&["install", "greet"]);
    assert_eq!(ran.code(), Some(100), "{}{}", ran.stdout, ran.stderr);
    assert!(ran.stdout.contains("kiln: denied: greet 1.0-1 all") && ran.stdout.contains("org-3"), "{}", ran.stdout);
    assert!(!apt.has("greet"));
}

#[test]
fn apt_that_speaks_an_older_protocol_is_stopped_with_a_way_out() {
    let Some(apt) = Apt::new("apt_that_speaks_an_older_protocol_is_stopped_with_a_way_out") else { return };
    let digest = apt.publish("greet");
    apt.agreed("greet", digest);
    let lines = documented("apt.conf");
    apt.hook(lines.lines().find(|line| line.contains("Pre-Install-Pkgs")).unwrap());
    let ran = apt.get(&["install", "greet"]);
    assert!(ran.code() != Some(0) && !apt.has("greet"));
    assert!(ran.stderr.contains("DPkg::Tools::Options"), "{}", ran.stderr);
}

#[test]
fn what_apt_says_is_answered_as_a_document_too() {
    let (kiln, trust) = (Kiln::fresh(Ground::Disk), Trust::of("*"));
    fs::write(trust.at("greet.deb"), "greet").unwrap();
    let said = trust.at("said");
    let ask = |text: String, code: i32| {
        fs::write(&said, text).unwrap();
        let words = ["--json", "gate", "apt"].map(String::from).into_iter().chain(trust.arguments());
        kiln.run_reading(words, &said).exits(code)
    };
    let steps = |path: PathBuf| {
        format!(
            "VERSION 3\nA=b\n\ngreet - - none < 1.0-1 all none {0}\ngreet - - none < 1.0-1 all none **CONFIGURE**\n",
            path.display()
        )
    };
    let document = ask(steps(trust.at("greet.deb")), 4).json();
    fits("gate", &document);
    assert_eq!(document["asked"][0]["what"], "greet 1.0-1 all");
    assert_eq!(document["asked"].as_array().unwrap().len(), 1);
    for operator in [1, 3] {
        trust.built(operator, "greet.deb", None, Digest::of("greet"));
    }
    fits("gate", &ask(steps(trust.at("greet.deb")), 0).json());
    ask(steps(trust.at("nothing.deb")), 2).says(&["nothing.deb"]);
    ask("greet.deb\n".into(), 2).says(&["VERSION 3"]);
    // Without a policy in arguments or configuration nothing is let in.
    fs::write(&said, steps(trust.at("greet.deb"))).unwrap();
    kiln.run_reading(["gate", "apt"], &said).exits(2).says(&["--evidence", "[gate]"]);
}

/// pip, and a directory with wheels.
struct Pip {
    place: TempDir,
    trust: Trust,
    kiln: Kiln,
    python: PathBuf,
}

/// Writes a wheel: its path, and what it says.
const WHEEL: &str = r#"
import sys, zipfile
path, text = sys.argv[1:]
name, version = path.rsplit("/", 1)[-1].split("-")[:2]
info = f"{name}-{version}.dist-info"
with zipfile.ZipFile(path, "w") as wheel:
    wheel.writestr(zipfile.ZipInfo(f"{name}/__init__.py"), f"text = {text!r}\n")
    wheel.writestr(zipfile.ZipInfo(f"{info}/METADATA"), f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    wheel.writestr(zipfile.ZipInfo(f"{info}/WHEEL"), "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    wheel.writestr(zipfile.ZipInfo(f"{info}/RECORD"), f"{name}/__init__.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")
"#;

impl Pip {
    fn new(test: &str) -> Option<Self> {
        let own = std::env::var_os("KILN_TEST_PYTHON").map(PathBuf::from);
        let python = own.unwrap_or_else(|| ground::repository().join("target/kiln-tests-python/bin/python3"));
        if !python.is_file() {
            ground::skipped(test, "no pip; scripts/setup --test installs it");
            return None;
        }
        let place = ground::directory(Ground::Disk);
        fs::create_dir(place.path().join("wheels")).unwrap();
        Some(Self { place, trust: Trust::of("pkg:pypi/*"), kiln: Kiln::fresh(Ground::Disk), python })
    }

    fn at(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    fn python(&self, words: &[&str]) -> Ran {
        let mut command = Command::new(&self.python);
        command.args(words).env_clear().env("PATH", std::env::var_os("PATH").unwrap());
        command.env("HOME", self.kiln.home()).current_dir(self.place.path());
        Ran::of(command)
    }

    fn wheel(&self, file: &str, text: &str) -> Digest {
        let path = self.at("wheels").join(file);
        self.python(&["-I", "-c", WHEEL, path.to_str().unwrap(), text]).succeeded();
        Digest::of(fs::read(path).unwrap())
    }

    fn agreed(&self, file: &str, digest: Digest) {
        for operator in [2, 3] {
            self.trust.built(operator, file, None, digest);
        }
    }

    fn gate(&self, requirements: &str, more: &[&str]) -> Ran {
        fs::write(self.at("requirements.txt"), requirements).unwrap();
        let path = |name: &str| self.at(name).display().to_string();
        let mut words = vec!["gate".into(), "pip".into(), path("requirements.txt"), "--wheels".into(), path("wheels")];
        words.extend(["--output".into(), path("pinned.txt")]);
        words.extend(self.trust.arguments());
        words.extend(more.iter().map(ToString::to_string));
        self.kiln.run(words)
    }

    /// The documented line, with a directory of its own for what is installed.
    fn install(&self) -> Ran {
        let line = documented("pip");
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        assert_eq!(words[..2], ["pip", "install"], "{line}");
        let words = words[1..].iter().map(|word| if *word == "DIR" { "wheels" } else { word });
        let mut all = vec!["-m", "pip", "--isolated", "--disable-pip-version-check"];
        all.extend(words);
        all.extend(["--target", "installed"]);
        self.python(&all)
    }

    fn says(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.at("installed").join(name).join("__init__.py")).ok()
    }
}

#[test]
fn pip_installs_the_wheels_that_enough_rebuilders_vouch_for_and_no_other_bytes() {
    let Some(pip) = Pip::new("pip_installs_the_wheels_that_enough_rebuilders_vouch_for_and_no_other_bytes") else {
        return;
    };
    let wheel = "greet-1.0-py3-none-any.whl";
    let digest = pip.wheel(wheel, "good");
    pip.agreed(wheel, digest);
    pip.gate("Greet==1.0  # the one\n", &[]).succeeded();
    let pinned = fs::read_to_string(pip.at("pinned.txt")).unwrap();
    assert_eq!(pinned, format!("Greet==1.0 \\\n    --hash=sha256:{digest}\n"));
    pip.install().succeeded();
    assert_eq!(pip.says("greet").as_deref(), Some("text = 'good'\n"));
    // pip itself refuses what was exchanged since.
    fs::remove_dir_all(pip.at("installed")).unwrap();
    pip.wheel(wheel, "bad!");
    let ran = pip.install();
    assert!(ran.code() != Some(0) && ran.stderr.contains("DO NOT MATCH THE HASHES"), "{}", ran.stderr);
    assert_eq!(pip.says("greet"), None);
}

#[test]
fn a_release_without_evidence_is_named_and_nothing_is_pinned() {
    let Some(pip) = Pip::new("a_release_without_evidence_is_named_and_nothing_is_pinned") else { return };
    let good = pip.wheel("greet-1.0-py3-none-any.whl", "good");
    pip.wheel("part-2.0-py3-none-any.whl", "part");
    pip.agreed("greet-1.0-py3-none-any.whl", good);
    let ran = pip.gate("greet==1.0\npart==2.0\n", &[]).exits(4);
    assert!(ran.stdout.contains("kiln: insufficient: part==2.0"), "{}", ran.stdout);
    assert!(ran.stdout.contains("kiln: allowed: greet==1.0"), "{}", ran.stdout);
    assert!(!pip.at("pinned.txt").exists());
    let ran = pip.gate("greet==1.0\nabsent==2.0\n", &["--json"]).exits(4);
    fits("gate", &ran.json());
    assert_eq!(ran.json()["asked"][1]["decisions"], serde_json::json!([]));
    pip.trust.differs(1, "greet-1.0-py3-none-any.whl", "pkg:pypi/greet@1.0", good);
    pip.gate("greet==1.0\n", &[]).exits(1);
    assert!(!pip.at("pinned.txt").exists());
}

#[test]
fn of_several_wheels_only_those_let_in_are_pinned_and_given_hashes_narrow_them() {
    let Some(pip) = Pip::new("of_several_wheels_only_those_let_in_are_pinned_and_given_hashes_narrow_them") else {
        return;
    };
    let good = pip.wheel("greet-1.0-py3-none-any.whl", "good");
    let other = pip.wheel("greet-1.0-1-py3-none-any.whl", "other");
    pip.agreed("greet-1.0-py3-none-any.whl", good);
    let ran = pip.gate("greet==1.0\n", &["--json"]).succeeded();
    fits("gate", &ran.json());
    let pinned = fs::read_to_string(pip.at("pinned.txt")).unwrap();
    assert!(pinned.contains(&good.to_string()) && !pinned.contains(&other.to_string()), "{pinned}");
    let told = pip.gate("greet==1.0\n", &[]).succeeded().stdout;
    assert!(told.contains("left out: greet-1.0-1-py3-none-any.whl (insufficient)"), "{told}");
    pip.gate(&format!("greet==1.0 --hash=sha256:{good}\n"), &[]).succeeded();
    pip.gate(&format!("greet==1.0 --hash=sha256:{other}\n"), &[]).exits(4);
    let ran = pip.gate(&format!("greet==1.0 --hash=sha256:{}\n", Digest::of("x")), &[]).exits(1);
    assert!(ran.stdout.contains("none of its hashes"), "{}", ran.stdout);
}

#[test]
fn requirements_that_pin_nothing_and_directories_that_are_none_are_refused() {
    let (kiln, trust) = (Kiln::fresh(Ground::Disk), Trust::of("*"));
    let gate = |requirements: &str, wheels: &Path| {
        fs::write(trust.at("requirements.txt"), requirements).unwrap();
        let [file, output] = ["requirements.txt", "pinned.txt"].map(|name| trust.at(name).display().to_string());
        let words = ["gate", "pip", &file, "--wheels", wheels.to_str().unwrap(), "--output", &output].map(String::from);
        kiln.run(words.into_iter().chain(trust.arguments()))
    };
    let wheels = trust.at("evidence");
    gate("greet>=1.0\n", &wheels).exits(2).says(&["requirements.txt", "line 1", "NAME==VERSION"]);
    gate("a==1\n-r other.txt\n", &wheels).exits(2).says(&["line 2", "-r other.txt"]);
    gate("# nothing\n", &wheels).exits(2).says(&["nothing is asked for"]);
    gate("greet==1.0\n", &trust.at("absent")).exits(2).says(&["absent"]);
    assert!(!trust.at("pinned.txt").exists());
}
