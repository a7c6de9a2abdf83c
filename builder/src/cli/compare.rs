//! `kiln compare`: what differs between two artifacts, and whether they are equal after named normalisers.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Context as _;
use clap::Args;
use kiln_model::normalise::Normaliser;
use kiln_model::report::Report;

use super::judged::{self, Accepted};
use super::{Failure, Session};
use crate::diff::{self, Options};
use crate::exit::Kind;

/// Say what differs between two files or directories, walking into containers
///
/// Packages, wheels, archives, executables, images, catalogues, documents and texts are looked into, and what differs is
/// said of the innermost member, the most telling first. Nothing is written but what is asked for.
#[derive(Debug, Args)]
pub(super) struct Compare {
    /// File, directory or store path
    first: PathBuf,
    /// File, directory or store path to hold it against
    second: PathBuf,
    /// Take equality after normalisers for a yes
    #[arg(long, value_enum, value_name = "WHAT")]
    accept: Option<Accepted>,
    /// Also apply this normaliser; may be repeated. All that forget no content are applied anyway
    #[arg(long, value_name = "NAME/VERSION")]
    normalise: Vec<Normaliser>,
    /// Apply no normaliser: what differs is diverged
    #[arg(long, conflicts_with = "normalise")]
    raw: bool,
    /// Details that are told of one file; others are counted
    #[arg(long, value_name = "N", default_value_t = diff::Limits::default().details)]
    details: usize,
    /// Also write the report as one self-contained HTML page
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Let an installed diffoscope say it as well, after kiln's own report
    #[arg(long, conflicts_with = "json")]
    diffoscope: bool,
}

impl Compare {
    pub(super) fn run(self, session: &Session) -> Result<u8, Failure> {
        let mut options = Options::default();
        options.limits.details = self.details;
        options.normalisers.extend(&self.normalise);
        if self.raw {
            options.normalisers = BTreeSet::new();
        }
        let (first, second) = (located(session, &self.first)?, located(session, &self.second)?);
        let mut comparison = diff::compare(&first, &second, &options)?;
        // As the user named them, wherever a store lies.
        for (side, path) in comparison.sides.iter_mut().zip([&self.first, &self.second]) {
            side.name = path.display().to_string();
        }
        let report = Report::comparing(comparison);
        let code = judged::tell(session, vec![report], self.html.as_deref(), Accepted::of(self.accept))?;
        if self.diffoscope {
            diffoscope(&first, &second)?;
        }
        Ok(code)
    }
}

/// Where a path is: below the store's root for a logical store path that is not there itself.
fn located(session: &Session, path: &Path) -> Result<PathBuf, Failure> {
    if path.starts_with("/nix/store") && !path.exists() {
        let root = session.store_root()?;
        let physical = root.join(path.strip_prefix("/").unwrap_or(path));
        if physical.exists() {
            return Ok(physical);
        }
    }
    Ok(path.to_owned())
}

/// Runs diffoscope on both; what it prints goes where kiln's report went.
fn diffoscope(first: &Path, second: &Path) -> Result<(), Failure> {
    let status =
        Command::new("diffoscope").arg("--text=-").arg("--").args([first, second]).stdin(Stdio::null()).status();
    match status {
        // It exits with 1 when it found differences.
        Ok(status) if matches!(status.code(), Some(0 | 1)) => Ok(()),
        Ok(status) => Err(Failure::new(Kind::Host, anyhow::anyhow!("diffoscope ended with {status}"))),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Err(Failure::new(
            Kind::BadInput,
            anyhow::anyhow!("diffoscope is not installed: leave out --diffoscope, or install it"),
        )),
        Err(e) => Err(e).context("running diffoscope").map_err(|error| Failure { kind: Kind::Host, error }),
    }
}
