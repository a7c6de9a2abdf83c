//! Packages of an environment: what its own database lists, what each needs, and what its copyright file says.

use std::collections::{BTreeMap, BTreeSet};

use kiln_model::debian::dependency;
use kiln_model::format::control::{self, Stanzas};
use kiln_model::format::copyright;
use kiln_model::format::purl::Purl;
use kiln_model::lock::{Lock, LockedPackage};
use kiln_model::sbom::{Component, Kind, Party, licence};

use super::{Root, SbomError};

/// dpkg's status: 64 MiB are some fifty thousand packages.
const MOST_STATUS: u64 = 64 << 20;

/// An installed package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installed {
    /// Its name.
    pub name: String,
    /// Its architecture; `all` for any.
    pub architecture: String,
    /// Its version.
    pub version: String,
    /// The source package that it was built from, and its version.
    pub source: (String, String),
    /// `Name <address>`.
    pub maintainer: Option<String>,
    /// One line for people.
    pub synopsis: Option<String>,
    /// Names of packages that it needs, any alternative.
    depends: BTreeSet<String>,
    /// Names that it stands in for.
    provides: BTreeSet<String>,
}

/// The packages that a root file system says it has, sorted by name and architecture. None if it has no such database.
pub fn installed(root: &Root) -> Result<Vec<Installed>, SbomError> {
    let path = "var/lib/dpkg/status";
    let failed = |source| SbomError::Read { path: path.into(), source };
    let Some(bytes) = root.read(path, MOST_STATUS).map_err(failed)? else { return Ok(Vec::new()) };
    let mut stanzas = Stanzas::new(control::text(&bytes)?);
    let mut packages = Vec::new();
    while let Some(stanza) = stanzas.next()? {
        let installed = stanza.value("Status").is_some_and(|status| status.ends_with("ok installed"));
        let fields = (stanza.value("Package"), stanza.value("Version"), stanza.value("Architecture"));
        let (Some(name), Some(version), Some(architecture), true) = (fields.0, fields.1, fields.2, installed) else {
            continue;
        };
        // `Source: name (version)`, where either differs from the package's.
        let source = match stanza.value("Source").map(|source| (source, source.split_once('('))) {
            None => (name, version),
            Some((source, None)) => (source, version),
            Some((_, Some((source, rest)))) => (source, rest.trim_end_matches(')')),
        };
        let names = |field: &str| {
            let clauses = dependency::parse(stanza.value(field).unwrap_or("")).unwrap_or_default();
            clauses.into_iter().flat_map(|clause| clause.0).map(|relation| relation.package.to_string())
        };
        packages.push(Installed {
            name: name.into(),
            architecture: architecture.into(),
            version: version.into(),
            source: (source.0.trim().into(), source.1.trim().into()),
            maintainer: stanza.value("Maintainer").map(String::from),
            synopsis: stanza.value("Description").and_then(|text| text.lines().next()).map(String::from),
            depends: names("Depends").chain(names("Pre-Depends")).collect(),
            provides: names("Provides").collect(),
        });
    }
    packages.sort_by(|a, b| (&a.name, &a.architecture).cmp(&(&b.name, &b.architecture)));
    Ok(packages)
}

/// What each component needs, by id.
pub(super) type Depends = BTreeMap<String, BTreeSet<String>>;

/// The packages of the environment `root` as components. Every one of `lock` must be there, and no other.
pub(super) fn gather(
    root: &Root,
    lock: Option<&Lock>,
    target: &dyn Fn() -> String,
) -> Result<(Vec<Component>, Depends), SbomError> {
    let packages = installed(root)?;
    let mut locked: BTreeMap<(&str, &str), &LockedPackage> = BTreeMap::new();
    for package in lock.iter().flat_map(|lock| &lock.environment.packages) {
        locked.insert((&package.name, &package.arch), package);
    }
    let mut by_name: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for package in &packages {
        for name in package.provides.iter().chain([&package.name]) {
            by_name.entry(name).or_default().insert(id(package));
        }
    }
    let (mut components, mut depends) = (Vec::new(), Depends::new());
    for package in &packages {
        let pin = locked.remove(&(&package.name, &package.architecture)).filter(|pin| pin.version == package.version);
        if pin.is_none() && lock.is_some() {
            let package = format!("package {} {}", package.name, package.version);
            return Err(SbomError::Packages { target: target(), package, present: "environment", absent: "lock" });
        }
        components.push(component(root, package, pin)?);
        let mut needs: BTreeSet<String> =
            package.depends.iter().filter_map(|name| by_name.get(name.as_str())).flatten().cloned().collect();
        needs.remove(&id(package));
        if !needs.is_empty() {
            depends.insert(id(package), needs);
        }
    }
    if let Some(missing) = locked.values().next() {
        let package = format!("package {} {}", missing.name, missing.version);
        return Err(SbomError::Packages { target: target(), package, present: "lock", absent: "environment" });
    }
    Ok((components, depends))
}

fn id(package: &Installed) -> String {
    format!("package-{}-{}", package.name, package.architecture)
}

fn component(root: &Root, package: &Installed, pin: Option<&LockedPackage>) -> Result<Component, SbomError> {
    let Installed { name, architecture, version, .. } = package;
    let path = format!("usr/share/doc/{name}/copyright");
    let failed = |source| SbomError::Read { path: path.clone(), source };
    let copyright = root.read(&path, copyright::MOST_BYTES).map_err(failed)?.unwrap_or_default();
    let told = licence::told(name, &String::from_utf8_lossy(&copyright));
    let mut one = Component::new(&id(package), Kind::Package, name, version, Party::organization("Debian"));
    one.originator = package.maintainer.as_deref().and_then(Party::maintainer);
    one.purl = Some(Purl::deb("debian", name, version, architecture)?);
    one.sha256 = pin.map(|pin| pin.sha256);
    one.licence = told.licence;
    one.copyright = told.copyright;
    one.description = package.synopsis.clone();
    one.source = Some(package.source.clone());
    Ok(one)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "Package: g++\nStatus: install ok installed\nVersion: 1:2-1+b1\nArchitecture: amd64\nSource: gcc (1:2-1)\n\
        Maintainer: GCC Team <gcc@example.org>\nDepends: libc (>= 1) | other, missing\nDescription: a compiler\n for C++\n\n\
        Package: libc6\nStatus: install ok installed\nVersion: 3\nArchitecture: amd64\nProvides: libc (= 1)\nDepends: libc6\n\n\
        Package: gone\nStatus: deinstall ok config-files\nVersion: 9\nArchitecture: amd64\n";

    fn root() -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().unwrap();
        for directory in ["var/lib/dpkg", "usr/share/doc/libc6"] {
            std::fs::create_dir_all(dir.path().join(directory)).unwrap();
        }
        std::fs::write(dir.path().join("var/lib/dpkg/status"), STATUS).unwrap();
        std::os::unix::fs::symlink("libc6", dir.path().join("usr/share/doc/g++")).unwrap();
        let copyright = "Format: copyright-format/1.0\n\nFiles: *\nCopyright: 2001 A\nLicense: GPL-3+\n";
        std::fs::write(dir.path().join("usr/share/doc/libc6/copyright"), copyright).unwrap();
        let root = Root::open(dir.path()).unwrap();
        (dir, root)
    }

    #[test]
    fn installed_packages_are_told_with_source_licence_and_what_they_need() {
        let (_dir, root) = root();
        let (packages, depends) = gather(&root, None, &|| "x".into()).unwrap();
        let names: Vec<&str> = packages.iter().map(|one| one.name.as_str()).collect();
        assert_eq!(names, ["g++", "libc6"]);
        assert_eq!(packages[0].source, Some(("gcc".into(), "1:2-1".into())));
        assert_eq!(packages[1].source, Some(("libc6".into(), "3".into())));
        assert_eq!(packages[0].licence.as_ref().unwrap().expression, "GPL-3.0-or-later");
        assert_eq!(
            depends,
            Depends::from([("package-g++-amd64".into(), BTreeSet::from(["package-libc6-amd64".into()]))])
        );
    }

    #[test]
    fn a_root_without_a_database_has_no_packages() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(installed(&Root::open(dir.path()).unwrap()).unwrap(), []);
    }
}
