//! What is known of a rebuild before its source is read.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use kiln_model::debian::build::Scope;
use kiln_model::report::{EnvironmentKind, VersionDiffers};

use crate::pin::debian::Source;
use crate::rebuild::plan::PlannedFile;

/// Everything that is known of a rebuild before its source is read.
pub(super) struct Wish<'a> {
    /// As it would be asked for again.
    pub(super) target: String,
    pub(super) name: String,
    pub(super) version: String,
    pub(super) source: SourceFrom<'a>,
    /// What is held against the build, by file name, and where its bytes are if no archive need be asked.
    pub(super) published: BTreeMap<String, (PlannedFile, Option<PathBuf>)>,
    /// The entry of a binary-only rebuild, and its date.
    pub(super) entry: Option<(String, i64)>,
    pub(super) scope: Scope,
    /// Where it is unpacked, if not where official builders do it.
    pub(super) place: Option<String>,
    /// Packages that the environment must have, each as a dependency.
    pub(super) packages: BTreeSet<String>,
    /// Words of `DEB_BUILD_OPTIONS`.
    pub(super) options: BTreeSet<String>,
    pub(super) variables: BTreeMap<String, String>,
    /// The epoch, if it is not the changelog's.
    pub(super) epoch: Option<i64>,
    pub(super) environment: EnvironmentKind,
    pub(super) differs: Vec<VersionDiffers>,
    pub(super) notes: Vec<String>,
}

/// Where the files of a source are.
pub(super) enum SourceFrom<'a> {
    Archive(&'a Source),
    /// On disk: name and place of each, the `.dsc` first; what the source needs, and what it does not go with.
    Files {
        files: Vec<(String, PathBuf)>,
        depends: BTreeSet<String>,
        build_depends: [String; 3],
        conflicts: Vec<String>,
    },
}

impl<'a> Wish<'a> {
    pub(super) fn new(target: String, name: &str, version: &str, source: SourceFrom<'a>) -> Self {
        Self {
            target,
            name: name.into(),
            version: version.into(),
            source,
            published: BTreeMap::new(),
            entry: None,
            scope: Scope::All,
            place: None,
            packages: BTreeSet::new(),
            options: BTreeSet::new(),
            variables: BTreeMap::new(),
            epoch: None,
            environment: EnvironmentKind::Current,
            differs: Vec::new(),
            notes: Vec::new(),
        }
    }

    pub(super) fn title(&self) -> String {
        format!("{} {}", self.name, self.version)
    }
}
