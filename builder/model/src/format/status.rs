//! dpkg's database of packages (`/var/lib/dpkg/status`): what is there, and which version of it.
//!
//! Whatever may have files on the disk is there, whether it is configured or not: a package that stopped halfway is no less
//! installed for it. What was removed and left its configuration is not. Says nothing of a package's bytes: dpkg keeps no
//! digest of what it unpacked.
//! Reference: dpkg-query(1), "Package status".

use super::control::{ControlError, Stanzas};

/// A package that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Present<'a> {
    /// `Package`
    pub name: &'a str,
    /// `Architecture`; `all` for any.
    pub architecture: &'a str,
    /// `Version`
    pub version: &'a str,
}

/// Why a text is not dpkg's database.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StatusError {
    /// Not a control file.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// A field that says what is there, and is not.
    #[error("line {line}: the stanza of {package} has no field {field}")]
    Missing {
        /// Line of the stanza, from 1.
        line: usize,
        /// The package, or `?`.
        package: String,
        /// Which field.
        field: &'static str,
    },
    /// A state that dpkg does not know.
    #[error("line {line}: {package}: Status: expected three words that end in a state of dpkg's, found {found:?}")]
    State {
        /// Line of the stanza, from 1.
        line: usize,
        /// The package.
        package: String,
        /// What stands there.
        found: String,
    },
}

/// The packages that are there, in the order of the text.
pub fn read(text: &str) -> Result<Vec<Present<'_>>, StatusError> {
    let mut present = Vec::new();
    let mut stanzas = Stanzas::new(text);
    while let Some(stanza) = stanzas.next()? {
        let line = stanza.line();
        let name = stanza.value("Package");
        let missing = |field| StatusError::Missing { line, package: name.unwrap_or("?").into(), field };
        let name = name.ok_or_else(|| missing("Package"))?;
        let status = stanza.value("Status").ok_or_else(|| missing("Status"))?;
        // Want, error, state.
        let state = status.split_ascii_whitespace().nth(2).unwrap_or_default();
        match state {
            "not-installed" | "config-files" => continue,
            "installed" | "unpacked" | "half-installed" | "half-configured" | "triggers-awaited"
            | "triggers-pending" => {}
            _ => {
                let found = status.chars().take(120).collect();
                return Err(StatusError::State { line, package: name.into(), found });
            }
        }
        let version = stanza.value("Version").ok_or_else(|| missing("Version"))?;
        let architecture = stanza.value("Architecture").ok_or_else(|| missing("Architecture"))?;
        present.push(Present { name, architecture, version });
    }
    Ok(present)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stanza(name: &str, status: &str) -> String {
        format!("Package: {name}\nStatus: {status}\nArchitecture: amd64\nVersion: 1:2-3\n\n")
    }

    #[test]
    fn whatever_may_have_files_on_the_disk_is_there_and_what_was_removed_is_not() {
        let states = [
            ("a", "install ok installed"),
            ("b", "install ok unpacked"),
            ("c", "install reinstreq half-installed"),
            ("d", "install ok half-configured"),
            ("e", "install ok triggers-awaited"),
            ("f", "hold ok triggers-pending"),
            ("g", "deinstall ok config-files"),
            ("h", "unknown ok not-installed"),
        ];
        let text: String = states.iter().map(|(name, status)| stanza(name, status)).collect();
        let names: String = read(&text).unwrap().iter().map(|present| present.name).collect();
        assert_eq!(names, "abcdef");
        assert_eq!(read(&text).unwrap()[0], Present { name: "a", architecture: "amd64", version: "1:2-3" });
        assert_eq!(read(""), Ok(Vec::new()));
    }

    #[test]
    fn what_cannot_be_told_apart_from_something_installed_is_refused_by_name() {
        let good = stanza("a", "install ok installed");
        for status in ["install ok", "installed", "install ok lost"] {
            let text = format!("{good}{}", stanza("b", status));
            assert!(
                matches!(read(&text), Err(StatusError::State { line: 6, package, .. }) if package == "b"),
                "{status}"
            );
        }
        for field in ["Package", "Status", "Version", "Architecture"] {
            let text = good.replace(&format!("{field}:"), "Other:");
            assert!(matches!(read(&text), Err(StatusError::Missing { field: f, .. }) if f == field), "{field}");
        }
        assert!(matches!(read("no colon\n"), Err(StatusError::Control(_))));
    }
}
