//! `kiln rebuild` of Python wheels: an index in a directory, with sdists and wheels that real back ends made.
//!
//! A publisher, which is a recipe built by kiln like any other, calls flit and setuptools in its own way, in its own zone and at
//! its own time, and tampers with some of what they made. What is rebuilt is held against that.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use kiln_model::lock::Lock;
use kiln_model::recipe::Recipe;
use kiln_tests::ground::{self, Ground};
use kiln_tests::recipe;
use kiln_tests::run::{Kiln, Ran};
use serde_json::Value;

/// Environment of the shipped recipe, of the publisher, and of what kiln builds wheels in.
const ENVIRONMENT: &str =
    "debian = { suite = [\"bookworm\"], packages = [\"python3\", \"python3-distutils\", \"tzdata\"] }";

/// Makes sdists and wheels below `$out`.
const PUBLISH: &str = r#"
import base64, hashlib, io, os, shutil, subprocess, sys, tarfile, zipfile

out, top = os.environ["out"], os.getcwd()
os.makedirs(out)
FLIT = {"pyproject.toml": "[build-system]\nrequires = [\"flit_core >=3,<4\"]\nbuild-backend = \"flit_core.buildapi\"\n"
        "[project]\nname = \"NAME\"\nversion = \"1.0\"\ndescription = \"one\"\nrequires-python = \">=3\"\n", "NAME.py": "\"\"\"one\"\"\"\n"}
SETUPTOOLS = {"setup.py": "from setuptools import setup\nsetup(name=\"NAME\", version=\"1.0\", py_modules=[\"NAME\"])\n",
              "NAME.py": "one = 1\n"}

def sdist(name, files, keep=True):
    path = os.path.join(out if keep else top, f"{name}-1.0.tar.gz")
    with tarfile.open(path, "w:gz") as archive:
        for number, (file, text) in enumerate(sorted(files.items())):
            data = text.replace("NAME", name).encode()
            info = tarfile.TarInfo(f"{name}-1.0/" + file.replace("NAME", name))
            # August 2026, a day and an odd second apart
            info.size, info.mtime, info.mode = len(data), 1785585601 + 86401 * number, 0o644
            archive.addfile(info, io.BytesIO(data))
    return path

def wheel(name, files, back_end, keep=True, **variables):
    subprocess.run(["tar", "-xf", sdist(name, files, keep)], check=True)
    path = os.environ["PYTHONPATH"]
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1", "TZ": "UTC", **variables}
    call = f"import sys, {back_end} as b; b.build_wheel(sys.argv[1])"
    subprocess.run([sys.executable, "-c", call, out], cwd=f"{name}-1.0", env=env, check=True)
    return os.path.join(out, f"{name}-1.0-py3-none-any.whl")

def flit(name, files=FLIT, keep=True, **variables):
    return wheel(name, files, "flit_core.buildapi", keep, **variables)

def setuptools(name, files=SETUPTOOLS, **variables):
    return wheel(name, files, "setuptools.build_meta", **variables)

def changed(path, change, truthful=True):
    with zipfile.ZipFile(path) as archive:
        members = [(member, archive.read(member)) for member in archive.infolist()]
    members = change(members)
    record = next(member.filename for member, _ in members if member.filename.endswith("/RECORD"))
    if truthful:
        lines = []
        for member, data in members:
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
            lines.append(f"{member.filename},," if member.filename == record else f"{member.filename},sha256={digest},{len(data)}")
        members = [(m, "".join(line + "\n" for line in lines).encode() if m.filename == record else d) for m, d in members]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, data in members:
            archive.writestr(member, data)

def added(name):
    return lambda members: [(zipfile.ZipInfo(name, members[0][0].date_time), b"evil = 1\n"), *members]

def generated(text):
    def change(members):
        return [(m, d.replace(b"flit 3.12.0", text) if m.filename.endswith("/WHEEL") else d) for m, d in members]
    return change

EPOCH = {"SOURCE_DATE_EPOCH": "1785600000"}
OWN = {"pyproject.toml": "[build-system]\nrequires = []\nbuild-backend = \"NAME_build\"\nbackend-path = [\".\"]\n", "NAME.py": "one = 1\n",
       "NAME_build.py": """
import base64, hashlib, os, zipfile
def build_wheel(directory, config_settings=None, metadata_directory=None):
    info = "NAME-1.0.dist-info/"
    texts = {"NAME.py": open("NAME.py").read(), info + "METADATA": "Metadata-Version: 2.1\\nName: NAME\\nVersion: 1.0\\n",
             info + "WHEEL": "Wheel-Version: 1.0\\nGenerator: NAME of this very source\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n"}
    digest = lambda text: base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode().rstrip("=")
    lines = [f"{name},sha256={digest(text)},{len(text)}\\n" for name, text in texts.items()]
    texts[info + "RECORD"] = "".join(lines) + info + "RECORD,,\\n"
    with zipfile.ZipFile(os.path.join(directory, "NAME-1.0-py3-none-any.whl"), "w") as archive:
        for name, text in texts.items():
            archive.writestr(zipfile.ZipInfo(name, (2026, 8, 1, 0, 0, 0)), text)
    return "NAME-1.0-py3-none-any.whl"
"""}
wheel("own", OWN, "own_build")
flit("calm", **EPOCH)
for version in ["0.9", "2.0rc1"]:
    shutil.copy(flit("ripe", **EPOCH), os.path.join(out, f"ripe-{version}-py3-none-any.whl"))
flit("unset")
flit("zoned", TZ="<-05>5")
setuptools("stamped", **EPOCH)
setuptools("timed")
changed(flit("backdoor", **EPOCH), added("backdoor_more.py"))
changed(flit("liar", **EPOCH), added("liar_more.py"), truthful=False)
changed(flit("dots", **EPOCH), added("../dots.py"))
changed(flit("twice", **EPOCH), added("twice.py"))
changed(flit("unknown", **EPOCH), generated(b"mine 1.0"))
changed(flit("later", **EPOCH), generated(b"flit 99.0"))
flit("sourceless", keep=False, **EPOCH)
flit("bare", **EPOCH)
sdist("bare", {"NAME.py": "one = 1\n"})
flit("leaving", **EPOCH)
sdist("leaving", {**FLIT, "../x": "x"})
chance = {**SETUPTOOLS, "setup.py": "import os\nopen(\"NAME.py\", \"w\").write(f\"one = {os.urandom(8)!r}\\n\")\n" + SETUPTOOLS["setup.py"]}
setuptools("chance", chance, **EPOCH)
setuptools("broken", **EPOCH)
sdist("broken", {**SETUPTOOLS, "setup.py": "raise SystemExit(\"no more\")\n"})
asking = {**SETUPTOOLS, "setup.py": SETUPTOOLS["setup.py"].replace("py_modules", "setup_requires=[\"calm\"], py_modules")}
setuptools("asking", {**SETUPTOOLS}, **EPOCH)
sdist("asking", asking)
"#;

/// The shipped recipe's lock, with only these inputs, for another recipe of the same environment.
fn lock(text: &str, inputs: &[&str]) -> String {
    let shipped = fs::read_to_string(recipe::shipped("wheels").join("recipe.lock")).unwrap();
    let mut lock = Lock::parse(&shipped).unwrap();
    lock.inputs.retain(|variable, _| inputs.contains(&variable.as_str()));
    lock.pins = Recipe::parse(text).unwrap().pins();
    lock.print()
}

/// What the publisher made: once for all tests.
fn published() -> &'static Path {
    static MADE: OnceLock<PathBuf> = OnceLock::new();
    MADE.get_or_init(|| {
        let dir = ground::directory(Ground::Disk);
        let input = |name: &str, release: &str| format!("[inputs.{name}]\npypi = \"{release}\"\nfile = \"wheel\"\n");
        let text = format!(
            "schema = 1\nname = \"publisher\"\nversion = \"1\"\nlicense = \"Apache-2.0\"\n{}{}[environment]\n{ENVIRONMENT}\n\
             [build]\nscript = '''\numask 022\nexport PYTHONPATH=\"$PWD/site\"\n\
             for wheel in \"$flit\"/*.whl \"$setuptools\"/*.whl; do python3 -m zipfile -e \"$wheel\" site; done\n\
             cat >publish.py <<'end'\n{PUBLISH}\nend\nexec python3 publish.py\n'''\n",
            input("flit", "flit-core==3.12.0"),
            input("setuptools", "setuptools==75.6.0"),
        );
        fs::write(dir.path().join("recipe.toml"), &text).unwrap();
        fs::write(dir.path().join("recipe.lock"), lock(&text, &["flit", "setuptools"])).unwrap();
        let kiln = Kiln::warm();
        let built = kiln.build_one(dir.path());
        let path = built["outputs"]["out"]["path"].as_str().unwrap().to_string();
        kiln.store().join(path.trim_start_matches('/'))
    })
}

/// kiln with the publisher's index, and the environment of wheels already locked; `None` where nothing is prepared.
fn kiln(test: &str) -> Option<Kiln> {
    if !ground::has_files(test) {
        return None;
    }
    if !ground::files().join("flit_core-3.12.0-py3-none-any.whl").is_file() {
        ground::skipped(test, "the recipe wheels is not prepared");
        return None;
    }
    let kiln = Kiln::warm();
    let index = published().display().to_string();
    kiln.mirrors(&[&index, &ground::files().display().to_string()]);
    let directory = kiln.store().join("rebuilds/python-bookworm");
    fs::create_dir_all(&directory).unwrap();
    let text = format!(
        "schema = 1\nname = \"python\"\nversion = \"1\"\nlicense = \"CC0-1.0\"\n[environment]\n{ENVIRONMENT}\n\
         [build]\nscript = \"true\"\n"
    );
    // By rename: tests share the store.
    let fresh = tempfile::NamedTempFile::new_in(&directory).unwrap();
    fs::write(fresh.path(), lock(&text, &[])).unwrap();
    fresh.persist(directory.join("recipe.lock")).unwrap();
    Some(kiln)
}

fn rebuilt(kiln: &Kiln, arguments: &[&str]) -> Ran {
    kiln.run(["rebuild", "--json"].iter().chain(arguments))
}

fn labels(report: &Value) -> Vec<&str> {
    report["causes"].as_array().unwrap().iter().map(|cause| cause["label"].as_str().unwrap()).collect()
}

#[test]
fn what_flit_and_setuptools_wrote_comes_out_again() {
    let Some(kiln) = kiln("what_flit_and_setuptools_wrote_comes_out_again") else { return };
    for (target, wheel) in [
        ("pypi:calm==1.0", "calm-1.0-py3-none-any.whl"),
        ("pypi:unset==1.0", "unset-1.0-py3-none-any.whl"),
        ("pypi:Stamped==1", "stamped-1.0-py3-none-any.whl"),
        // By a program that nobody knows, which its sdist brings along.
        ("pypi:own==1.0", "own-1.0-py3-none-any.whl"),
    ] {
        let report = rebuilt(&kiln, &[target]).exits(0).json();
        assert_eq!(report["verdict"], "reproduced", "{target}: {report:#}");
        assert_eq!(report["outcomes"].as_array().unwrap().len(), 1, "one build is enough to agree");
        assert_eq!(report["subjects"][0]["name"], wheel);
        assert_eq!(report["reference"]["origin"], "pypi");
    }
    let report = rebuilt(&kiln, &["pypi:calm==1.0"]).json();
    assert_eq!(report["rebuild"]["environment"], "recorded");
    assert!(report["rebuild"]["notes"].to_string().contains("SOURCE_DATE_EPOCH=1785600000: all members"));
}

#[test]
fn without_a_version_the_newest_is_rebuilt_that_is_no_pre_release() {
    let Some(kiln) = kiln("without_a_version_the_newest_is_rebuilt_that_is_no_pre_release") else { return };
    let report = rebuilt(&kiln, &["pypi:ripe"]).exits(0).json();
    assert_eq!(report["verdict"], "reproduced", "{report:#}");
    assert_eq!(report["subjects"][0]["name"], "ripe-1.0-py3-none-any.whl");
    let report = rebuilt(&kiln, &["pypi:nobody"]).exits(4).json();
    assert_eq!(report["verdict"], "inconclusive");
}

#[test]
fn a_rebuild_is_repeated_from_its_directory_without_an_index() {
    let Some(kiln) = kiln("a_rebuild_is_repeated_from_its_directory_without_an_index") else { return };
    let report = rebuilt(&kiln, &["pypi:calm==1.0"]).exits(0).json();
    let recipe = PathBuf::from(report["recipe"].as_str().unwrap());
    let directory = recipe.parent().unwrap();
    kiln.mirrors(&[]);
    let again = rebuilt(&kiln, &[directory.to_str().unwrap()]).exits(0).json();
    assert_eq!(again["verdict"], "reproduced");
    assert_eq!(again["derivation"], report["derivation"]);
    // It is a recipe like any other.
    let built = kiln.build_one(directory);
    assert_eq!(built["derivation"], report["derivation"]);
}

#[test]
fn a_file_is_a_reference_too_and_another_one_of_that_name_is_not_mistaken_for_it() {
    let Some(kiln) = kiln("a_file_is_a_reference_too_and_another_one_of_that_name_is_not_mistaken_for_it") else {
        return;
    };
    let mine = ground::directory(Ground::Disk);
    let copy = |name: &str| {
        let path = mine.path().join(name);
        fs::copy(published().join(name), &path).unwrap();
        path
    };
    let good = copy("calm-1.0-py3-none-any.whl");
    assert_eq!(rebuilt(&kiln, &[good.to_str().unwrap()]).exits(0).json()["verdict"], "reproduced");
    // What the index has under the name of `calm` is sound; this file is of the same release and has more in it.
    let whole = fs::read(published().join("backdoor-1.0-py3-none-any.whl")).unwrap();
    let other = mine.path().join("backdoor-1.0-py3-none-any.whl");
    fs::write(&other, &whole[..whole.len() - 7]).unwrap();
    rebuilt(&kiln, &[other.to_str().unwrap()]).exits(2).says(&["backdoor-1.0", "no end record"]);
    fs::write(&other, [&whole[..], b"more"].concat()).unwrap();
    rebuilt(&kiln, &[other.to_str().unwrap()]).exits(2);
    fs::write(&other, b"").unwrap();
    rebuilt(&kiln, &[other.to_str().unwrap()]).exits(2);
    let unnamed = mine.path().join("calm.whl");
    fs::copy(&good, &unnamed).unwrap();
    rebuilt(&kiln, &[unnamed.to_str().unwrap()]).exits(2).says(&["not a wheel's file name"]);
    rebuilt(&kiln, &[mine.path().join("no-1.0-py3-none-any.whl").to_str().unwrap()]).exits(2);
}

#[test]
fn a_zone_is_inferred_from_the_sdist_and_proved_by_building() {
    let Some(kiln) = kiln("a_zone_is_inferred_from_the_sdist_and_proved_by_building") else { return };
    let report = rebuilt(&kiln, &["pypi:zoned==1.0"]).exits(1).json();
    assert_eq!(report["verdict"], "equivalent");
    assert_eq!(report["subjects"][0]["normalisers"], serde_json::json!(["wheel-zip/1"]));
    assert_eq!(labels(&report)[0], "TZ");
    assert_eq!(report["causes"][0]["setting"], "time-zone=<-05>5");
    assert_eq!(report["causes"][0]["confidence"], "proven");
    assert_eq!(report["rebuild"]["explained"], "proved");
    assert_eq!(report["rebuild"]["tried"][0]["verdict"], "reproduced");
    for zone in ["<-05>5", "America/Chicago"] {
        let report = rebuilt(&kiln, &["--time-zone", zone, "pypi:zoned==1.0"]).exits(0).json();
        assert_eq!(report["rebuild"]["settings"]["time-zone"], zone);
    }
    rebuilt(&kiln, &["--accept", "equivalent", "--try=no", "pypi:zoned==1.0"]).exits(0);
    rebuilt(&kiln, &["--time-zone", "../../etc/passwd", "pypi:zoned==1.0"]).exits(2);
}

#[test]
fn times_of_files_are_told_where_setuptools_had_no_epoch() {
    let Some(kiln) = kiln("times_of_files_are_told_where_setuptools_had_no_epoch") else { return };
    let report = rebuilt(&kiln, &["pypi:timed==1.0"]).exits(1).json();
    assert_eq!(report["verdict"], "equivalent");
    assert_eq!(labels(&report)[0], "file-times");
    assert!(report["causes"][0]["evidence"].as_str().unwrap().starts_with("1 members of the reference have the times"));
}

#[test]
fn what_is_in_the_published_wheel_and_not_in_its_source_is_the_alarm() {
    let Some(kiln) = kiln("what_is_in_the_published_wheel_and_not_in_its_source_is_the_alarm") else { return };
    let report = rebuilt(&kiln, &["pypi:backdoor==1.0"]).exits(1).json();
    assert_eq!(report["verdict"], "upstream-differs");
    assert_eq!(report["outcomes"].as_array().unwrap().len(), 2, "an accusation needs two builds");
    assert_eq!(report["rebuild"]["environment"], "recorded");
    assert!(report["differences"].to_string().contains("backdoor_more.py"), "{report:#}");
    rebuilt(&kiln, &["--accept", "equivalent", "pypi:backdoor==1.0"]).exits(1);
}

#[test]
fn a_build_by_chance_is_diverged_and_a_broken_one_failed() {
    let Some(kiln) = kiln("a_build_by_chance_is_diverged_and_a_broken_one_failed") else { return };
    assert_eq!(rebuilt(&kiln, &["pypi:chance==1.0"]).exits(1).json()["verdict"], "diverged");
    let report = rebuilt(&kiln, &["pypi:broken==1.0"]).exits(5).json();
    assert_eq!(report["verdict"], "failed");
    assert!(report["outcomes"][0]["failure"]["log_tail"].as_str().unwrap().contains("no more"));
}

#[test]
fn what_a_hook_asks_for_is_pinned_and_the_build_begun_anew() {
    let Some(kiln) = kiln("what_a_hook_asks_for_is_pinned_and_the_build_begun_anew") else { return };
    let report = rebuilt(&kiln, &["pypi:asking==1.0"]).exits(0).json();
    assert_eq!(report["verdict"], "reproduced");
    assert_eq!(report["rebuild"]["environment"], "current");
    assert!(report["rebuild"]["notes"].to_string().contains("calm 1.0"));
}

#[test]
fn what_is_on_no_index_is_inconclusive_and_named() {
    let Some(kiln) = kiln("what_is_on_no_index_is_inconclusive_and_named") else { return };
    for (target, says) in [
        ("pypi:unknown==1.0", "Generator [\"mine 1.0\"] is not known"),
        ("pypi:later==1.0", "flit-core==99.0 (of the reference's WHEEL)"),
        ("pypi:sourceless==1.0", "sdist of sourceless 1.0"),
        ("pypi:calm==2.0", "wheel of calm 2.0"),
        ("pypi:nobody==1.0", "project: nobody"),
    ] {
        let report = rebuilt(&kiln, &[target]).exits(4).json();
        assert_eq!(report["verdict"], "inconclusive", "{target}");
        assert!(report["outcomes"].as_array().unwrap().is_empty());
        let missing = report["rebuild"]["missing"].to_string();
        assert!(missing.replace("\\\"", "\"").contains(says), "{target}: {missing}");
    }
    let report = rebuilt(&kiln, &["pypi:calm==2.0"]).json();
    assert!(report["rebuild"]["missing"].to_string().contains("the newest are 1.0"));
}

#[test]
fn wheels_and_sdists_that_are_none_are_refused_by_name() {
    let Some(kiln) = kiln("wheels_and_sdists_that_are_none_are_refused_by_name") else { return };
    for (target, says) in [
        ("pypi:liar==1.0", vec!["RECORD", "liar_more.py is in the wheel and not in RECORD"]),
        ("pypi:dots==1.0", vec!["../dots.py", "\"..\""]),
        ("pypi:twice==1.0", vec!["twice.py", "there twice"]),
        ("pypi:bare==1.0", vec!["bare-1.0.tar.gz", "no build backend"]),
        ("pypi:leaving==1.0", vec!["leaving-1.0.tar.gz", "leaves it"]),
        ("pypi:calm>=1", vec!["pypi:NAME==VERSION"]),
        ("pypi:calm==one", vec!["\"one\" is not a version"]),
    ] {
        rebuilt(&kiln, &[target]).exits(2).says(&says);
    }
    rebuilt(&kiln, &["--suite", "plucky", "pypi:calm==1.0"]).exits(2).says(&["plucky", "bookworm"]);
    kiln.verified();
}
