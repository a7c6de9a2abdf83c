//! Where a campaign is kept: its answers, and for people its reports, logs and pages.
//!
//! ```text
//! DIR/index.html, campaign.json    all targets
//! DIR/targets/NAME/                what a rebuild leaves, and report.json, index.html, log.txt
//! DIR/state/                       the engine: what is done
//! ```
//! Every file is the old one or the new one, whole.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use kiln_model::campaign::Campaign;
use kiln_model::report::Report;
use rustix::fs::{FlockOperation, flock};

use super::{CampaignError, Place, failed};
use crate::render;
use crate::store::Store;
use crate::whole_file;

/// The directory of what is left of each target.
pub(super) const TARGETS: &str = "targets";
/// Bytes of a log that are left beside its page; the store has all of it.
const LOG: u64 = 64 << 20;

/// Where a campaign is kept, for as long as nobody else may.
pub(super) struct Kept {
    state: PathBuf,
    output: Option<PathBuf>,
    _lock: File,
}

impl Kept {
    /// Opens it for this process alone.
    pub(super) fn open(place: &Place, store: &Path) -> Result<Self, CampaignError> {
        let (state, output) = match place {
            Place::Store => (store.join("campaign"), None),
            Place::Directory(directory) => (directory.join("state"), Some(directory.clone())),
        };
        fs::create_dir_all(&state).map_err(failed("making", &state))?;
        if let Some(output) = &output {
            let targets = output.join(TARGETS);
            fs::create_dir_all(&targets).map_err(failed("making", &targets))?;
        }
        let path = state.join("lock");
        let mut options = File::options();
        let lock = options.create(true).truncate(false).write(true).open(&path).map_err(failed("opening", &path))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { state, output, _lock: lock }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(CampaignError::Busy { path: state }),
            Err(error) => Err(failed("locking", &path)(error.into())),
        }
    }

    /// The directory of the engine.
    pub(super) fn engine(&self) -> PathBuf {
        self.state.join("engine")
    }

    /// Where a target leaves what it made, if anywhere.
    pub(super) fn directory(&self, name: &str) -> Result<Option<PathBuf>, CampaignError> {
        let Some(output) = &self.output else { return Ok(None) };
        let directory = output.join(TARGETS).join(name);
        fs::create_dir_all(&directory).map_err(failed("making", &directory))?;
        Ok(Some(directory))
    }

    /// Leaves a target's report, its page and the logs of its builds in its directory.
    pub(super) fn report(&self, directory: &Path, report: &Report, store: &Store) -> Result<(), CampaignError> {
        replace(&directory.join("report.json"), render::json(report).as_bytes())?;
        replace(&directory.join("index.html"), render::html::page(std::slice::from_ref(report)).as_bytes())?;
        let mut text = Vec::new();
        for (n, outcome) in report.outcomes.iter().enumerate() {
            let path = directory.join("log.txt");
            let log = outcome.log.as_ref().map(|log| store.log(&log.sha256)).transpose();
            let Ok(Some(Some(log))) = log else { continue };
            let heading = format!("build {}: {}\n", n + 1, outcome.status.as_str());
            text.extend_from_slice(heading.as_bytes());
            log.take(LOG).read_to_end(&mut text).map_err(failed("copying a log to", &path))?;
            if outcome.log.as_ref().is_some_and(|log| log.bytes > LOG) {
                text.extend_from_slice(b"\n(the rest is left out: kiln log has it)\n");
            }
            text.push(b'\n');
        }
        if !text.is_empty() {
            replace(&directory.join("log.txt"), &text)?;
        }
        Ok(())
    }

    /// Leaves the page and the document over all targets.
    pub(super) fn leave(&self, campaign: &Campaign) -> Result<(), CampaignError> {
        let Some(output) = &self.output else { return Ok(()) };
        replace(&output.join("campaign.json"), render::json(campaign).as_bytes())?;
        replace(&output.join("index.html"), render::campaign::page(campaign).as_bytes())
    }
}

/// Replaces the file at `path`.
fn replace(path: &Path, bytes: &[u8]) -> Result<(), CampaignError> {
    whole_file::replace(path, bytes).map_err(failed("writing", path))
}
