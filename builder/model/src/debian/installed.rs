//! Which installed packages a build may have used: what `Installed-Build-Depends` of a `.buildinfo` lists.
//!
//! As dpkg-genbuildinfo(1) does it: from the essential packages, build-essential and the source's build dependencies, every
//! alternative and every provider that is installed, and what these depend on. Versions are not looked at.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::dependency::{self, Clause, DependencyError, Qualifier};
use crate::format::buildinfo::Installed;
use crate::format::control::{ControlError, Stanzas};

/// Why it cannot be said.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InstalledError {
    /// dpkg's status is no control file.
    #[error("dpkg's status")]
    Status(#[from] ControlError),
    /// A dependency that cannot be read.
    #[error("{of}")]
    Dependency {
        /// Whose.
        of: String,
        /// Why not.
        source: DependencyError,
    },
}

#[derive(Debug, Default)]
struct Known<'a> {
    /// Version and dependencies, by name and architecture.
    packages: BTreeMap<&'a str, Vec<Package<'a>>>,
    providers: BTreeMap<&'a str, BTreeSet<&'a str>>,
    essential: Vec<&'a str>,
}

#[derive(Debug)]
struct Package<'a> {
    version: &'a str,
    architecture: &'a str,
    depends: Vec<Clause<'a>>,
}

/// The installed packages, by dpkg's `status`, that a source with these build dependencies may use.
pub fn installed(status: &str, build_depends: &[&str]) -> Result<BTreeSet<Installed>, InstalledError> {
    let known = known(status)?;
    let mut todo: VecDeque<(&str, Option<&str>)> = known.essential.iter().map(|name| (*name, None)).collect();
    todo.push_back(("build-essential", None));
    for field in build_depends {
        let clauses = dependency::parse(field)
            .map_err(|source| InstalledError::Dependency { of: "build dependencies".into(), source })?;
        // All architectures: dpkg does not reduce by these here. No build profile is active.
        for relation in clauses.into_iter().flat_map(|clause| clause.0) {
            if relation.applies_to_profiles(&[]) {
                todo.push_back((relation.package, foreign(relation.qualifier)));
            }
        }
    }
    let (mut seen, mut found) = (BTreeSet::new(), BTreeSet::new());
    while let Some((name, architecture)) = todo.pop_front() {
        if !seen.insert((name, architecture)) {
            continue;
        }
        let candidates = known.packages.get(name).map_or(&[][..], Vec::as_slice);
        match candidates.iter().find(|package| architecture.is_none_or(|wanted| wanted == package.architecture)) {
            Some(package) => {
                let architecture = architecture.map(str::to_string);
                found.insert(Installed { name: name.into(), architecture, version: package.version.into() });
                let relations = package.depends.iter().flat_map(|clause| &clause.0);
                todo.extend(relations.map(|relation| (relation.package, foreign(relation.qualifier))));
            }
            None => {
                let providers = known.providers.get(name).into_iter().flatten();
                todo.extend(providers.map(|provider| (*provider, None)));
            }
        }
    }
    Ok(found)
}

fn foreign(qualifier: Qualifier<'_>) -> Option<&str> {
    match qualifier {
        Qualifier::Architecture(architecture) => Some(architecture),
        Qualifier::None | Qualifier::Any | Qualifier::Native => None,
    }
}

fn known(status: &str) -> Result<Known<'_>, InstalledError> {
    let mut known = Known::default();
    let mut stanzas = Stanzas::new(status);
    while let Some(stanza) = stanzas.next()? {
        let installed = stanza.value("Status").is_some_and(|status| status.ends_with("ok installed"));
        let (Some(name), Some(version), Some(architecture)) =
            (stanza.value("Package"), stanza.value("Version"), stanza.value("Architecture"))
        else {
            continue;
        };
        if !installed {
            continue;
        }
        let read = |field: &str| {
            let parsed = dependency::parse(stanza.value(field).unwrap_or(""));
            parsed.map_err(|source| InstalledError::Dependency { of: format!("{name}: {field}"), source })
        };
        let mut depends = read("Pre-Depends")?;
        depends.extend(read("Depends")?);
        for relation in read("Provides")?.into_iter().flat_map(|clause| clause.0) {
            known.providers.entry(relation.package).or_default().insert(name);
        }
        if stanza.value("Essential") == Some("yes") {
            known.essential.push(name);
        }
        known.packages.entry(name).or_default().push(Package { version, architecture, depends });
    }
    Ok(known)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "Package: base\nStatus: install ok installed\nVersion: 1\nArchitecture: amd64\nEssential: yes\n\
        Pre-Depends: libc | libc-other\n\n\
        Package: libc\nStatus: install ok installed\nVersion: 2\nArchitecture: amd64\n\n\
        Package: gone\nStatus: deinstall ok config-files\nVersion: 9\nArchitecture: amd64\n\n\
        Package: awk-two\nStatus: install ok installed\nVersion: 3\nArchitecture: amd64\nProvides: awk (= 1)\n\n\
        Package: build-essential\nStatus: install ok installed\nVersion: 12\nArchitecture: amd64\nDepends: base, gone\n\n\
        Package: unrelated\nStatus: install ok installed\nVersion: 4\nArchitecture: all\n";

    fn names(depends: &[&str]) -> Vec<String> {
        installed(STATUS, depends).unwrap().into_iter().map(|one| format!("{} {}", one.name, one.version)).collect()
    }

    #[test]
    fn every_alternative_and_provider_that_is_installed_counts_and_nothing_else() {
        assert_eq!(names(&[]), ["base 1", "build-essential 12", "libc 2"]);
        assert_eq!(names(&["awk (>= 7) [armel] | unrelated"]).len(), 5);
        assert_eq!(names(&["unrelated <!nocheck>"]).len(), 4);
        assert_eq!(names(&["unrelated <cross>"]).len(), 3);
    }

    #[test]
    fn a_field_that_cannot_be_read_is_named() {
        let error = installed(&STATUS.replace("base, gone", "base ("), &[]).unwrap_err();
        assert_eq!(error.to_string(), "build-essential: Depends");
    }
}
