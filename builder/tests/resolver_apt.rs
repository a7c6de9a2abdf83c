//! The resolver against apt, over the indices that this host's apt has: same packages, same versions.
//!
//! apt is given the same index as a local archive, asked to simulate, and reaches nothing. Skipped, with the reason, where
//! apt or its lists are missing; `MUST_ISOLATE=1` makes that a failure. `KILN_APT_LISTS` names another directory of lists;
//! if it holds an index of sources too, a sample of its source packages is compared as well.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use kiln_model::debian::resolve::{Closure, ResolveError, Wishes, resolve};
use kiln_model::debian::universe::{Id, Offer, Universe};
use kiln_model::format::packages::{self, IndexError};
use kiln_model::format::sources::{self, Source};

/// Sources with their build dependencies as Debian 12 has them: alternatives, versions, profiles, architectures, virtual
/// packages, debhelper's provided compatibility levels, `:any`. Where several packages of one priority provide a virtual one,
/// apt takes the one whose name it happened to read last and kiln the first by name: no such clause is among them.
const SOURCES: [(&str, &str, &str); 8] = [
    ("hello", "debhelper-compat (= 13)", ""),
    ("cowsay", "debhelper-compat (= 13)", ""),
    ("xz-utils", "debhelper-compat (= 13)", "doxygen <!nodoc>, graphviz <!nodoc>"),
    ("less", "debhelper-compat (= 13), libncurses-dev", ""),
    ("kissfft", "cmake, debhelper-compat (= 13), libomp-dev, libpng-dev, python3:any, pkg-config", ""),
    (
        "adequate",
        "debhelper-compat (= 13), perl (>= 5.8) | perl-base",
        "libtest-minimumversion-perl, liblist-moreutils-perl",
    ),
    (
        "libhtml-parser-perl",
        "debhelper-compat (= 13), libhtml-tagset-perl, libhttp-message-perl <!nocheck>, libtest-simple-perl | perl (>= 5.13), liburi-perl, perl-xs-dev, perl:native",
        "",
    ),
    (
        "much",
        "debhelper (>= 11~), dh-python, python3-all-dev, default-jdk [amd64], texlive-latex-base, libgtk-3-dev, default-mta | mail-transport-agent, libcurl4-gnutls-dev | libcurl4-dev, rustc, golang-any, libblas-dev | libblas.so, java-sdk",
        "ghc",
    ),
];

/// apt over one index, in a directory of its own.
struct Apt {
    directory: tempfile::TempDir,
    architecture: String,
}

impl Apt {
    fn new(packages: &str, architecture: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let at = |path: &str| directory.path().join(path);
        let index = at(&format!("archive/dists/suite/main/binary-{architecture}"));
        for path in [&index, &at("lists/partial"), &at("cache/archives/partial"), &at("etc")] {
            fs::create_dir_all(path).unwrap();
        }
        fs::write(index.join("Packages"), packages).unwrap();
        let list = format!("deb [trusted=yes] file:{} suite main\n", at("archive").display());
        fs::write(at("sources.list"), list).unwrap();
        fs::write(at("status"), "").unwrap();
        let apt = Self { directory, architecture: architecture.into() };
        apt.run(&["update"]).unwrap();
        apt
    }

    fn run(&self, arguments: &[&str]) -> Result<String, String> {
        let at = |path: &str| self.directory.path().join(path).display().to_string();
        let options = [
            format!("Dir::Etc::sourcelist={}", at("sources.list")),
            format!("Dir::Etc::sourceparts={}", at("etc")),
            format!("Dir::Etc::preferencesparts={}", at("etc")),
            format!("Dir::State::lists={}", at("lists")),
            format!("Dir::State::extended_states={}", at("extended")),
            format!("Dir::State::status={}", at("status")),
            format!("Dir::Cache={}", at("cache")),
            format!("APT::Architecture={}", self.architecture),
            format!("APT::Architectures={}", self.architecture),
            "APT::Sandbox::User=root".into(),
            "APT::Install-Recommends=false".into(),
            "Acquire::AllowInsecureRepositories=true".into(),
            "Acquire::Languages=none".into(),
        ];
        let mut command = Command::new("apt-get");
        command.env("LC_ALL", "C").env("APT_CONFIG", "/dev/null").args(["-q", "--simulate"]);
        if arguments == ["update"] {
            command = Command::new("apt-get");
            command.env("LC_ALL", "C").env("APT_CONFIG", "/dev/null").arg("-q");
        }
        for option in options {
            command.args(["-o", &option]);
        }
        let output = command.args(arguments).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        match output.status.success() {
            true => Ok(text),
            false => Err(format!("{text}{}", String::from_utf8_lossy(&output.stderr))),
        }
    }

    /// What apt would install: `Inst NAME (VERSION …`.
    fn simulate(&self, arguments: &[&str]) -> Result<BTreeSet<(String, String)>, String> {
        let text = self.run(arguments)?;
        let installs = text.lines().filter_map(|line| line.strip_prefix("Inst "));
        Ok(installs
            .map(|line| {
                let (name, rest) = line.split_once(" (").unwrap();
                (name.to_string(), rest.split([' ', ')']).next().unwrap().to_string())
            })
            .collect())
    }

    fn install(&self, universe: &Universe<'_>, ids: &[Id], packages: &str) {
        let stanzas: BTreeMap<_, _> = packages
            .split("\n\n")
            .map(|stanza| {
                let field = |name: &str| stanza.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("").trim();
                ((field("Package:"), field("Version:")), stanza.trim())
            })
            .collect();
        let status: String = ids
            .iter()
            .map(|id| {
                let binary = universe.binary(*id);
                format!("{}\nStatus: install ok installed\n\n", stanzas[&(binary.name, binary.version.as_str())])
            })
            .collect();
        fs::write(self.directory.path().join("status"), status).unwrap();
    }
}

fn skip(reason: &str) -> Option<String> {
    assert!(std::env::var_os("MUST_ISOLATE").is_none(), "skipped although MUST_ISOLATE is set: {reason}");
    eprintln!("skipped: {reason}");
    None
}

fn lists() -> PathBuf {
    std::env::var_os("KILN_APT_LISTS").map_or_else(|| "/var/lib/apt/lists".into(), PathBuf::from)
}

/// The largest list of a kind, whichever mirror it came from and however apt keeps it.
fn list(middle: &str) -> Option<String> {
    let files = fs::read_dir(lists()).ok()?.filter_map(Result::ok);
    let fits = |entry: &fs::DirEntry| entry.file_name().to_string_lossy().contains(middle);
    let file = files.filter(fits).max_by_key(|entry| entry.metadata().map_or(0, |m| m.len()))?.path();
    let output = Command::new("/usr/lib/apt/apt-helper").arg("cat-file").arg(file).output().ok()?;
    output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
}

fn architecture() -> Option<String> {
    let output = Command::new("dpkg").arg("--print-architecture").output().ok()?;
    Some(String::from_utf8(output.stdout).unwrap().trim().into())
}

fn universe<'a>(text: &'a str, architecture: &str) -> Universe<'a> {
    let mut offers = Vec::new();
    packages::read(text, |binary| {
        offers.push(Offer { binary, suite: 0 });
        Ok::<_, IndexError>(())
    })
    .unwrap();
    Universe::new(architecture, offers).unwrap()
}

fn names(universe: &Universe<'_>, ids: &[Id]) -> BTreeSet<(String, String)> {
    ids.iter().map(|id| (universe.binary(*id).name.into(), universe.binary(*id).version.to_string())).collect()
}

fn build_environment(universe: &Universe<'_>, source: &Source<'_>) -> Result<Closure, ResolveError> {
    let mut wishes = Wishes::new();
    wishes.build_dependencies(source, universe.architecture())?;
    resolve(universe, &wishes)
}

/// What each has that the other has not.
fn differences(ours: &BTreeSet<(String, String)>, apts: &BTreeSet<(String, String)>) -> Vec<String> {
    let only = |who: &str, a: &BTreeSet<(String, String)>, b: &BTreeSet<(String, String)>| {
        a.difference(b).map(|(name, version)| format!("{who} {name} {version}")).collect::<Vec<_>>()
    };
    [only("only kiln:", ours, apts), only("only apt:", apts, ours)].concat()
}

fn dsc(path: &Path, source: &Source<'_>) {
    let mut text =
        format!("Format: 3.0 (quilt)\nSource: {}\nVersion: {}\nArchitecture: any all\n", source.name, source.version);
    let fields = sources::BUILD_DEPENDS.iter().zip(source.build_depends);
    for (field, value) in fields.chain(sources::BUILD_CONFLICTS.iter().zip(source.build_conflicts)) {
        if !value.is_empty() {
            text += &format!("{field}: {}\n", value.replace('\n', " "));
        }
    }
    fs::write(path, text).unwrap();
}

#[test]
fn kiln_and_apt_agree_on_what_a_build_needs() {
    let Some(architecture) = architecture() else {
        skip("host lacks dpkg");
        return;
    };
    let Some(packages) = list(&format!("_main_binary-{architecture}_Packages")) else {
        skip("host lacks apt's lists of packages; run apt-get update");
        return;
    };
    let index = list("_main_source_Sources").unwrap_or_default();
    let (universe, apt) = (universe(&packages, &architecture), Apt::new(&packages, &architecture));

    let base = {
        let mut wishes = Wishes::new();
        wishes.package("build-essential", &architecture).unwrap();
        resolve(&universe, &wishes).unwrap()
    };
    assert!(base.delta.is_empty());
    let essential = universe.essential();
    let mut arguments = vec!["install"];
    arguments.extend(essential.iter().map(|id| universe.binary(*id).name));
    arguments.push("build-essential");
    let ours = names(&universe, &base.base);
    assert_eq!(differences(&ours, &apt.simulate(&arguments).unwrap()), Vec::<String>::new(), "build-essential");

    let synthetic: String = SOURCES
        .iter()
        .map(|(name, depends, indep)| {
            let indep = if indep.is_empty() { String::new() } else { format!("Build-Depends-Indep: {indep}\n") };
            format!("Package: {name}\nVersion: 1\nDirectory: d\nBuild-Depends: {depends}\n{indep}Checksums-Sha256:\n\n")
        })
        .collect();
    let every: usize = std::env::var("KILN_APT_EVERY").map_or(200, |n| n.parse().unwrap());
    let mut sample = Vec::new();
    let mut collect = |source| {
        sample.push(source);
        Ok::<_, IndexError>(())
    };
    sources::read(&synthetic, |_| true, &mut collect).unwrap();
    let number = std::cell::Cell::new(0_usize);
    // The sources above as the index has them, and every so many-th of the rest.
    let nth = |name: &str| {
        number.set(number.get() + 1);
        SOURCES.iter().any(|(named, ..)| *named == name) || number.get().is_multiple_of(every)
    };
    sources::read(&index, nth, &mut collect).unwrap();

    apt.install(&universe, &base.base, &packages);
    let path = apt.directory.path().join("source.dsc");
    let mut wrong = Vec::new();
    for source in &sample {
        dsc(&path, source);
        let theirs = apt.simulate(&["build-dep", path.to_str().unwrap()]);
        let difference = match (build_environment(&universe, source), theirs) {
            (Ok(closure), Ok(theirs)) => {
                assert_eq!(closure.base, base.base, "the base is shared");
                differences(&names(&universe, &closure.delta), &theirs).join("\n  ")
            }
            (Err(_), Err(_)) => String::new(),
            (Ok(_), Err(apt)) => format!("apt finds nothing:\n{apt}"),
            (Err(kiln), Ok(_)) => format!("kiln finds nothing: {kiln}"),
        };
        if !difference.is_empty() {
            wrong.push(format!("{} {}:\n  {difference}", source.name, source.version));
        }
    }
    eprintln!("{} of {} source packages agree", sample.len() - wrong.len(), sample.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
