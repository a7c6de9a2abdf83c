//! The arguments of `kiln rebuild` that make it a campaign: many targets, resumable.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use kiln_model::verdict::Accept;

use super::{Failure, Session};
use crate::campaign::budget::{self, Budget, DiskLimit};
use crate::campaign::request::{self, Request};
use crate::campaign::{self, Done, OnFailure, Options, Place};
use crate::rebuild::rebuilding::Rebuilding;
use crate::rebuild::setting::Settings;
use crate::rebuild::target::Target;
use crate::render;

/// Many targets at once.
#[derive(Debug, Args)]
#[command(next_help_heading = "Campaigns")]
pub(super) struct Many {
    /// Rebuild all that a file names: a table (a target on each line, then after tabs its settings and the verdict that is
    /// expected), or a Packages or Sources file. What is done is kept, in the directory of --output or in the store, and not
    /// done again
    #[arg(long, value_name = "FILE")]
    from: Vec<PathBuf>,
    /// Rebuild what this machine's dpkg has installed
    #[arg(long)]
    installed: bool,
    /// Rebuild again what is done already
    #[arg(long)]
    again: bool,
    /// Start nothing more once a target has not come out well
    #[arg(long)]
    fail_fast: bool,
    /// Start nothing after this time (90s, 15m, 8h); what runs is let run to its end
    #[arg(long, value_name = "TIME", value_parser = budget::time)]
    time_limit: Option<Duration>,
    /// Start nothing while the store's file system has this much more in use than at first (20G), or is this full (90%)
    #[arg(long, value_name = "SIZE")]
    disk_limit: Option<DiskLimit>,
}

/// What a campaign shares with the rebuild of one target.
pub(super) struct Shared<'a> {
    pub(super) targets: &'a [Target],
    pub(super) settings: &'a Settings,
    pub(super) output: Option<&'a Path>,
    pub(super) html: Option<&'a Path>,
    pub(super) jobs: NonZeroUsize,
    pub(super) accept: Accept,
}

impl Many {
    /// Whether a campaign is asked for.
    pub(super) fn asked(&self) -> bool {
        !self.from.is_empty() || self.installed
    }

    /// What it is asked for.
    pub(super) fn requests(&self, targets: &[Target], settings: &Settings) -> Result<Vec<Request>, Failure> {
        let mut requests: Vec<Request> =
            targets.iter().map(|target| request::named(target.clone(), settings)).collect();
        for file in &self.from {
            requests.extend(request::read(file, settings)?);
        }
        if self.installed {
            requests.extend(request::read(Path::new(request::INSTALLED), settings)?);
        }
        Ok(requests)
    }

    pub(super) fn run(
        &self,
        session: &Session,
        rebuilding: &Rebuilding<'_, '_>,
        shared: &Shared<'_>,
    ) -> Result<u8, Failure> {
        let options = Options {
            place: shared.output.map_or(Place::Store, |output| Place::Directory(output.into())),
            jobs: shared.jobs,
            budget: Budget { time: self.time_limit, disk: self.disk_limit },
            room: session.room()?,
            done: if self.again { Done::Again } else { Done::Told },
            failure: if self.fail_fast { OnFailure::Stop } else { OnFailure::GoOn },
            accept: shared.accept,
        };
        let requests = self.requests(shared.targets, shared.settings)?;
        let campaign = campaign::run(rebuilding, requests, &options)?;
        if let Some(file) = shared.html {
            session.write_file(file, render::campaign::page(&campaign).as_bytes())?;
        }
        match session.json() {
            true => session.print_json(&campaign)?,
            false => session.print_text(&render::campaign::text(&campaign, session.colour()))?,
        }
        Ok(campaign.exit_code(shared.accept))
    }
}
