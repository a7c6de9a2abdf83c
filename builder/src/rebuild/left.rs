//! What a rebuild leaves in a directory of the user's: the plan, from which it can be repeated, the derivation, the artifacts
//! of the first build, and of a Debian build its record.
//!
//! `report.json` is written by whoever has the whole report. Files that are there are replaced one by one.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use kiln_model::outcome::Status;
use kiln_model::report::Report;

use super::plan::Plan;
use super::rebuilding::RebuildError;
use super::{record, reference};
use crate::build::Builder;
use crate::build::graph::{Graph, Origin};

/// A rebuild that is done.
pub(super) struct Left<'a, 'b> {
    pub(super) builder: &'a Builder<'b>,
    /// The plan's directory.
    pub(super) directory: &'a Path,
    pub(super) plan: &'a Plan,
    pub(super) graph: &'a Graph,
    pub(super) node: usize,
}

impl Left<'_, '_> {
    /// Leaves all of it in `output`, which is made if it is not there.
    pub(super) fn leave(&self, report: &Report, output: &Path) -> Result<(), RebuildError> {
        let node = &self.graph.nodes[self.node];
        let same =
            fs::canonicalize(output).is_ok_and(|there| fs::canonicalize(self.directory).is_ok_and(|d| d == there));
        if !same {
            copy(self.directory, output)?;
        }
        let derivation = output.join(node.path.base_name());
        fs::write(&derivation, node.derivation.print()).map_err(failed("writing", &derivation))?;
        let Some(outcome) = report.outcomes.first().filter(|outcome| outcome.status == Status::Built) else {
            return Ok(());
        };
        let artifacts = output.join("artifacts");
        fs::create_dir_all(&artifacts).map_err(failed("making", &artifacts))?;
        let mut packages: BTreeMap<String, PathBuf> = BTreeMap::new();
        for (name, artifact) in &outcome.artifacts {
            let Some(from) = reference::file_of(self.builder, outcome, artifact)? else { continue };
            let to = artifacts.join(name);
            replace(&from, &to)?;
            if name.ends_with("deb") {
                packages.insert(name.clone(), to);
            }
        }
        if let (Some(build), Origin::Recipe(locked)) = (&self.plan.debian, &node.origin) {
            let environment = self.builder.environment(&node.shown.display().to_string(), &locked.lock)?;
            let info = record::record(build, &environment, outcome, &packages)?;
            let path = output.join(record::file_name(&info));
            fs::write(&path, info.print()).map_err(failed("writing", &path))?;
        }
        Ok(())
    }
}

fn failed(act: &'static str, path: &Path) -> impl FnOnce(io::Error) -> RebuildError {
    let path = path.to_path_buf();
    move |source| RebuildError::Io { act, path, source }
}

/// Copies a plan's directory: files, and directories of files.
fn copy(from: &Path, to: &Path) -> Result<(), RebuildError> {
    fs::create_dir_all(to).map_err(failed("making", to))?;
    for entry in fs::read_dir(from).map_err(failed("reading", from))? {
        let entry = entry.map_err(failed("reading", from))?;
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type().map_err(failed("reading", &from))?;
        if kind.is_dir() {
            copy(&from, &to)?;
        } else if kind.is_file() {
            replace(&from, &to)?;
        }
    }
    Ok(())
}

/// What the store has is read-only: the copy is the user's own.
fn replace(from: &Path, to: &Path) -> Result<(), RebuildError> {
    let bytes = fs::File::open(from).and_then(|mut from| {
        match fs::remove_file(to) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        io::copy(&mut from, &mut fs::File::create(to)?)
    });
    bytes.map(drop).map_err(failed("copying to", to))
}
