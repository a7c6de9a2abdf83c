//! `kiln rebuild`: build what was published again from its source, and hold it against the real thing.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::path::PathBuf;

use anyhow::anyhow;
use clap::{ArgGroup, Args};
use kiln_model::name;
use kiln_model::report::Report;
use kiln_model::wheel::times::Epoch;

use super::campaign::{Many, Shared};
use super::capsule::is_attestation;
use super::judged::{self, Accepted};
use super::keyring::Keyrings;
use super::{Failure, Session};
use crate::build::KeepFailed;
use crate::capsule::{Opened, Stated};
use crate::exit::Kind;
use crate::fetch::Network;
use crate::pin::debian::Freshness;
use crate::rebuild::rebuilding::{Causes, Rebuilding};
use crate::rebuild::setting::{Changelog, Settings, Substitute, Tests};
use crate::rebuild::target::{self, Target};
use crate::render;

/// Build what was published again from its source, and hold it against the real thing.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("what").required(true).multiple(true).args(["targets", "from", "installed"])))]
pub(super) struct Rebuild {
    /// debian:NAME[=VERSION], pypi:NAME[==VERSION] (else the newest), FILE.dsc, FILE.deb, FILE.buildinfo, FILE.whl,
    /// FILE.capsule (needs no network), an attestation (FILE.json, FILE.jsonl), or the directory of an earlier rebuild
    #[arg(value_name = "TARGET")]
    targets: Vec<Asked>,
    /// Take recipe and lock of attestations from this directory, not from the statement
    #[arg(long, value_name = "DIR")]
    recipe: Option<PathBuf>,
    /// Leave the package's own tests out; the report says so
    #[arg(long)]
    no_check: bool,
    /// Add a word to DEB_BUILD_OPTIONS; may be repeated
    #[arg(long, value_name = "WORD", value_parser = word)]
    build_option: Vec<String>,
    /// Have this version of a package in the environment; may be repeated
    #[arg(long, value_name = "NAME=VERSION", value_parser = pin)]
    pin: Vec<(String, String)>,
    /// Have this Debian package in the environment besides: libraries that a wheel is compiled with; may be repeated
    #[arg(long, value_name = "NAME", value_parser = package)]
    package: Vec<String>,
    /// What to do to the changelog: put the entry of the published binary-only rebuild before it, as is done anyway where a
    /// source is named without a version and the archive serves nothing else of it
    #[arg(long, value_enum, default_value_t, value_name = "HOW")]
    changelog: Changelog,
    /// What to take in place of recorded versions that are gone
    #[arg(long, value_enum, default_value_t, value_name = "WHICH")]
    substitute: Substitute,
    /// Build a wheel in this time zone: a name such as America/Chicago, or as in TZ of POSIX [default: UTC]
    #[arg(long, value_name = "ZONE", value_parser = zone)]
    time_zone: Option<String>,
    /// Build a wheel with this SOURCE_DATE_EPOCH, seconds or "unset" [default: what the published one shows]
    #[arg(long, value_name = "SECONDS", value_parser = epoch)]
    epoch: Option<Epoch>,
    /// Where bytes differ, whether to build with the settings that the recognised causes suggest, to prove them
    #[arg(
        long = "try",
        value_enum,
        value_name = "WHETHER",
        num_args = 0..=1,
        require_equals = true,
        default_value = "yes",
        default_missing_value = "yes"
    )]
    try_causes: Whether,
    /// Suite of the archive; may be repeated, in order of preference [default: the host's]
    #[arg(long, value_name = "SUITE")]
    suite: Vec<String>,
    /// Accept an index that is older than one seen before, or past its Valid-Until
    #[arg(long)]
    allow_expired: bool,
    #[command(flatten)]
    keyrings: Keyrings,
    /// Exit with 0 for this, too
    #[arg(long, value_name = "VERDICT")]
    accept: Option<Accepted>,
    /// Also write lock, derivation, artifacts and report to this directory, from which the rebuild can be repeated
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Builds that run at once
    #[arg(long, short, value_name = "N")]
    jobs: Option<NonZeroUsize>,
    /// Keep the build directory of a failed build, for `kiln shell`
    #[arg(long)]
    keep_failed: bool,
    /// Also write the report as one self-contained HTML page
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    #[command(flatten)]
    many: Many,
}

/// What a run came to.
enum Told {
    /// Reports that are still to be told.
    Reports(Vec<Report>),
    /// A campaign that has been told, and its exit code.
    Campaign(u8),
}

/// What is to be rebuilt.
#[derive(Debug, Clone)]
enum Asked {
    /// A build with everything that it needs.
    Capsule(PathBuf),
    /// What somebody signed of a build.
    Attestation(PathBuf),
    /// What a distributor published.
    Published(Target),
}

impl std::str::FromStr for Asked {
    type Err = <Target as std::str::FromStr>::Err;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.strip_suffix(".capsule") {
            Some(_) => Ok(Self::Capsule(text.into())),
            None if is_attestation(text.as_ref()) => Ok(Self::Attestation(text.into())),
            None => text.parse().map(Self::Published),
        }
    }
}

/// Whether something is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Whether {
    /// It is.
    Yes,
    /// It is not.
    No,
}

fn word(text: &str) -> Result<String, String> {
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"+-.=_".contains(&b);
    match !text.is_empty() && text.bytes().all(fits) {
        true => Ok(text.into()),
        false => Err("expected one word such as notrimdch".into()),
    }
}

fn package(text: &str) -> Result<String, String> {
    match target::is_package(text) {
        true => Ok(text.into()),
        false => Err("expected the name of a Debian package: lower case letters, digits and + - .".into()),
    }
}

fn pin(text: &str) -> Result<(String, String), String> {
    match text.parse::<Target>() {
        _ if text.contains(':') && !text.contains('=') => Err("expected NAME=VERSION".into()),
        _ => match format!("debian:{text}").parse::<Target>() {
            Ok(Target::Debian { name, version: Some(version) }) => Ok((name, version)),
            Ok(_) => Err("expected NAME=VERSION".into()),
            Err(error) => Err(error.to_string()),
        },
    }
}

fn zone(text: &str) -> Result<String, String> {
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"+-/_<>:,.".contains(&b);
    match !text.is_empty() && !text.contains("..") && !text.starts_with(['/', ':']) && text.bytes().all(fits) {
        true => Ok(text.into()),
        false => Err("expected a zone such as America/Chicago or <-05>5".into()),
    }
}

fn epoch(text: &str) -> Result<Epoch, String> {
    match text {
        "unset" => Ok(Epoch::Unset),
        seconds => seconds.parse().map(Epoch::At).map_err(|_| "expected seconds since 1970, or unset".into()),
    }
}

impl Rebuild {
    pub(super) fn run(self, session: &Session) -> Result<u8, Failure> {
        let keep = if self.keep_failed { KeepFailed::Yes } else { KeepFailed::No };
        let mut targets = Vec::new();
        let mut given = Vec::new();
        for asked in &self.targets {
            match asked {
                Asked::Published(target) => targets.push(target.clone()),
                Asked::Capsule(_) | Asked::Attestation(_) => given.push(asked),
            }
        }
        if let (Some(directory), false) =
            (&self.recipe, given.iter().any(|asked| matches!(asked, Asked::Attestation(_))))
        {
            let error = anyhow!("--recipe {}: expected an attestation to be rebuilt with it", directory.display());
            return Err(Failure::new(Kind::BadInput, error));
        }
        if self.many.asked() {
            if let Some(Asked::Capsule(path) | Asked::Attestation(path)) = given.first() {
                let path = path.display();
                let error = anyhow!("{path} is a build, and a campaign rebuilds what was published: rebuild it alone");
                return Err(Failure::new(Kind::BadInput, error));
            }
            // What cannot be read is said before anything is started.
            self.many.requests(&targets, &self.settings())?;
        }
        let mut reports: Vec<Report> = Vec::new();
        for asked in given {
            match asked {
                Asked::Capsule(path) => reports.push(self.capsule(session, path, keep)?),
                Asked::Attestation(path) => {
                    let stated = Stated::read(session.store()?, path, self.recipe.as_deref())?;
                    let told = session.with_settings(self.jobs, keep, None, |builder| Ok(stated.rebuild(builder)?))?;
                    reports.extend(told);
                }
                Asked::Published(_) => {}
            }
        }
        if targets.is_empty() && !self.many.asked() {
            session.keep_within_budget()?;
            return judged::tell(session, reports, self.html.as_deref(), Accepted::of(self.accept));
        }
        let told = session.with_settings(self.jobs, keep, None, |builder| {
            let rebuilding = Rebuilding {
                builder,
                clock: jiff::Timestamp::now(),
                keyrings: self.keyrings.believed(session)?,
                freshness: if self.allow_expired { Freshness::Any } else { Freshness::Required },
                network: session.network(),
                suites: self.suite.clone(),
                settings: self.settings(),
                causes: match self.try_causes {
                    Whether::Yes => Causes::Tried,
                    Whether::No => Causes::Told,
                },
                output: None,
                indices: Default::default(),
            };
            if self.many.asked() {
                let shared = Shared {
                    targets: &targets,
                    settings: &rebuilding.settings,
                    output: self.output.as_deref(),
                    html: self.html.as_deref(),
                    jobs: builder.settings.jobs,
                    accept: Accepted::of(self.accept),
                };
                return self.many.run(session, &rebuilding, &shared).map(Told::Campaign);
            }
            let mut reports: Vec<Report> = Vec::new();
            for target in &targets {
                let output = self.output.as_ref().map(|output| match targets.len() {
                    1 => output.clone(),
                    _ => output.join(name::sanitised(&target.to_string()).as_str()),
                });
                let rebuilding = Rebuilding { output: output.clone(), ..rebuilding.clone() };
                let report = rebuilding.rebuild(target)?;
                if let Some(output) = output {
                    session.write_file(&output.join("report.json"), render::json(&report).as_bytes())?;
                }
                reports.push(report);
            }
            Ok(Told::Reports(reports))
        })?;
        session.keep_within_budget()?;
        match told {
            Told::Campaign(code) => Ok(code),
            Told::Reports(published) => {
                reports.extend(published);
                judged::tell(session, reports, self.html.as_deref(), Accepted::of(self.accept))
            }
        }
    }

    /// Builds what a capsule holds: nothing is fetched, whatever the command line says.
    fn capsule(&self, session: &Session, path: &std::path::Path, keep: KeepFailed) -> Result<Report, Failure> {
        let opened = Opened::read(session.store()?, path)?;
        session.with_network(Network::Offline, self.jobs, keep, None, |builder| Ok(opened.rebuild(builder)?))
    }

    fn settings(&self) -> Settings {
        Settings {
            tests: if self.no_check { Tests::Skip } else { Tests::Run },
            build_options: BTreeSet::from_iter(self.build_option.iter().cloned()),
            pins: BTreeMap::from_iter(self.pin.iter().cloned()),
            packages: BTreeSet::from_iter(self.package.iter().cloned()),
            changelog: self.changelog,
            substitute: self.substitute,
            time_zone: self.time_zone.clone(),
            epoch: self.epoch,
        }
    }
}
