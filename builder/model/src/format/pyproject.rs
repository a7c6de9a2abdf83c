//! The `[build-system]` of a `pyproject.toml` (PEP 517, PEP 518): who builds a source, and what that needs.
//!
//! A source without one is built by setuptools (PEP 517, *Source trees*); that is the caller's to say, who knows whether
//! there is a `setup.py`. Other tables are not read.

use serde::Deserialize;

/// More than any such file has.
pub const MOST_BYTES: u64 = 4 << 20;

/// Who builds a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildSystem {
    /// Requirements (PEP 508).
    pub requires: Vec<String>,
    /// Object that has the hooks: `hatchling.build`, `setuptools.build_meta:__legacy__`.
    pub backend: String,
    /// Directories of the source that the backend is found in.
    pub backend_path: Vec<String>,
}

/// Why a file is not a `pyproject.toml` that can be built from.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PyprojectError {
    /// Not TOML, or a field of another type.
    #[error("{what}")]
    Malformed {
        /// What and where.
        what: String,
    },
    /// Not the name of an object.
    #[error("build-system.build-backend {found:?} names no object: expected module.path or module.path:object")]
    Backend {
        /// The text.
        found: String,
    },
    /// A directory that is not in the source.
    #[error("build-system.backend-path {found:?} leaves the source")]
    Path {
        /// The text.
        found: String,
    },
}

/// What builds a source that does not say.
const LEGACY: &str = "setuptools.build_meta:__legacy__";

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct File {
    build_system: Option<Table>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Table {
    requires: Vec<String>,
    build_backend: Option<String>,
    #[serde(default)]
    backend_path: Vec<String>,
}

impl BuildSystem {
    /// What PEP 517 has a front end do where nothing is said.
    pub fn legacy() -> Self {
        Self { requires: vec!["setuptools>=40.8.0".into()], backend: LEGACY.into(), backend_path: Vec::new() }
    }

    /// The table of a `pyproject.toml`; what a missing one means.
    pub fn parse(text: &str) -> Result<Self, PyprojectError> {
        let file: File =
            toml::from_str(text).map_err(|e| PyprojectError::Malformed { what: e.to_string().trim_end().into() })?;
        let Some(table) = file.build_system else { return Ok(Self::legacy()) };
        let backend = table.build_backend.unwrap_or_else(|| LEGACY.into());
        let dotted = |text: &str| {
            let part = |part: &str| {
                !part.is_empty()
                    && part.chars().all(|c| c.is_alphanumeric() || c == '_')
                    && !part.starts_with(|c: char| c.is_ascii_digit())
            };
            text.split('.').all(part)
        };
        let good = match backend.split_once(':') {
            None => dotted(&backend),
            Some((module, object)) => dotted(module) && dotted(object),
        };
        if !good {
            return Err(PyprojectError::Backend { found: backend });
        }
        for path in &table.backend_path {
            if path.starts_with('/') || path.contains('\0') || path.split('/').any(|part| part == "..") {
                return Err(PyprojectError::Path { found: path.clone() });
            }
        }
        Ok(Self { requires: table.requires, backend, backend_path: table.backend_path })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_says_who_builds_and_what_is_missing_is_legacy() {
        let text = "[project]\nname = 'a'\n[build-system]\nrequires = [\"flit_core >=3.2,<4\"]\nbuild-backend = \"flit_core.buildapi\"\nbackend-path = ['.']\n";
        let system = BuildSystem::parse(text).unwrap();
        assert_eq!((system.backend.as_str(), system.requires.len()), ("flit_core.buildapi", 1));
        assert_eq!(system.backend_path, ["."]);
        assert_eq!(BuildSystem::parse("[tool.x]\na = 1\n"), Ok(BuildSystem::legacy()));
        let silent = BuildSystem::parse("[build-system]\nrequires = ['setuptools', 'wheel']\n").unwrap();
        assert_eq!(silent.backend, LEGACY);
    }

    #[test]
    fn other_types_no_objects_and_paths_outside_are_refused() {
        assert!(matches!(BuildSystem::parse("a = "), Err(PyprojectError::Malformed { .. })));
        assert!(matches!(
            BuildSystem::parse("[build-system]\nbuild-backend = 'a'\n"),
            Err(PyprojectError::Malformed { .. })
        ));
        for bad in ["a b", "a;b", "", "a:", "1a", "a..b", "__import__('os')"] {
            let text = format!("[build-system]\nrequires = []\nbuild-backend = {}\n", toml::Value::from(bad));
            assert!(matches!(BuildSystem::parse(&text), Err(PyprojectError::Backend { .. })), "{bad}");
        }
        for bad in ["../x", "/x", "a/../../b"] {
            let text = format!("[build-system]\nrequires = []\nbackend-path = ['{bad}']\n");
            assert!(matches!(BuildSystem::parse(&text), Err(PyprojectError::Path { .. })), "{bad}");
        }
    }
}
