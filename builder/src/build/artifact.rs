//! The files of an output that people compare as files: a recipe names them by pattern, a manifest has them.

use std::collections::BTreeMap;

use kiln_model::name::Variable;
use kiln_model::outcome::Artifact;
use kiln_model::tree::{Entry, Manifest};

/// Why a recipe's artifacts could not be picked.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    /// Not a pattern.
    #[error("artifacts.{output}: {pattern:?} is not a pattern")]
    Pattern {
        /// The output.
        output: Variable,
        /// The text.
        pattern: String,
        /// Why.
        source: glob::PatternError,
    },
    /// A pattern that fits nothing: the recipe promised a file that the build did not make.
    #[error("artifacts.{output}: no file of the output fits {pattern:?}")]
    Nothing {
        /// The output.
        output: Variable,
        /// The pattern.
        pattern: String,
    },
    /// Two files of one name cannot both be published.
    #[error("artifacts: two files are named {name:?}, in {first} and {second}")]
    Twice {
        /// The file name.
        name: String,
        /// Output and path of one.
        first: String,
        /// Of the other.
        second: String,
    },
}

/// The files that `patterns` name among the outputs' manifests, by file name.
pub fn artifacts(
    patterns: &BTreeMap<Variable, Vec<String>>,
    outputs: &BTreeMap<Variable, Manifest>,
) -> Result<BTreeMap<String, Artifact>, ArtifactError> {
    // As in a shell: a star does not cross a slash.
    let options = glob::MatchOptions { require_literal_separator: true, ..glob::MatchOptions::new() };
    let mut found: BTreeMap<String, Artifact> = BTreeMap::new();
    for (output, patterns) in patterns {
        let Some(manifest) = outputs.get(output) else { continue };
        for text in patterns {
            let pattern = glob::Pattern::new(text).map_err(|source| ArtifactError::Pattern {
                output: output.clone(),
                pattern: text.clone(),
                source,
            })?;
            let mut any = false;
            for (path, entry) in manifest.entries() {
                let Entry::File { size, sha256, .. } = entry else { continue };
                let shown = path.to_string();
                if !pattern.matches_with(&shown, options) {
                    continue;
                }
                any = true;
                let name = shown.rsplit('/').next().unwrap_or(&shown).to_string();
                let artifact = Artifact {
                    sha256: *sha256,
                    size: *size,
                    output: output.clone(),
                    path: path.clone(),
                    normalised: None,
                    held_against: None,
                };
                if let Some(other) = found.insert(name.clone(), artifact.clone())
                    && other != artifact
                {
                    let place = |a: &Artifact| format!("{}/{}", a.output, a.path);
                    return Err(ArtifactError::Twice { name, first: place(&other), second: place(&artifact) });
                }
            }
            if !any {
                return Err(ArtifactError::Nothing { output: output.clone(), pattern: text.clone() });
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiln_model::digest::Digest;
    use kiln_model::tree::EntryPath;

    fn outputs(files: &[&str]) -> BTreeMap<Variable, Manifest> {
        let mut entries = BTreeMap::from([(EntryPath::default(), Entry::Directory)]);
        for file in files {
            if let Some((directory, _)) = file.rsplit_once('/') {
                entries.insert(EntryPath::from(directory), Entry::Directory);
            }
            let entry = Entry::File { size: 1, sha256: Digest::of(file), executable: false };
            entries.insert(EntryPath::from(*file), entry);
        }
        BTreeMap::from([("out".parse().unwrap(), Manifest::new(entries).unwrap())])
    }

    fn patterns(texts: &[&str]) -> BTreeMap<Variable, Vec<String>> {
        BTreeMap::from([("out".parse().unwrap(), texts.iter().map(|t| t.to_string()).collect())])
    }

    #[test]
    fn a_pattern_picks_files_of_its_own_directory_only() {
        let found = artifacts(&patterns(&["*.deb"]), &outputs(&["a.deb", "b.txt", "sub/c.deb"])).unwrap();
        assert_eq!(found.keys().collect::<Vec<_>>(), ["a.deb"]);
        let found = artifacts(&patterns(&["**/*.deb"]), &outputs(&["a.deb", "sub/c.deb"])).unwrap();
        assert_eq!(found.len(), 2);
    }

    #[test]
    fn a_pattern_that_fits_nothing_and_two_files_of_one_name_are_refused() {
        assert!(matches!(artifacts(&patterns(&["*.whl"]), &outputs(&["a"])), Err(ArtifactError::Nothing { .. })));
        let twice = artifacts(&patterns(&["**/a"]), &outputs(&["a", "sub/a"]));
        assert!(matches!(twice, Err(ArtifactError::Twice { .. })));
        assert!(matches!(artifacts(&patterns(&["[a"]), &outputs(&["a"])), Err(ArtifactError::Pattern { .. })));
    }
}
