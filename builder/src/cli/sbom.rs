//! `kiln sbom`: what a build was made of, in formats that other tools read.

use std::path::PathBuf;

use anyhow::anyhow;
use clap::Args;
use kiln_model::format::{cyclonedx, spdx, spdx3};
use kiln_model::sbom::Sbom;
use kiln_model::store_path::StorePath;

use super::{Failure, Session};
use crate::build::Inputs;
use crate::exit::{self, Kind};
use crate::sbom::{self, Run};
use crate::store::{Store, Trust};

/// Write what a build was made of: outputs, inputs, every package of its environment with licences
///
/// The same build gives the same bytes on every machine: times are the recipe's, names follow from what is said.
#[derive(Debug, Args)]
pub(super) struct SbomCommand {
    /// Recipe directory or its recipe.toml, derivation (FILE.drv, /nix/store/HASH-NAME.drv) or output of one; must be built
    build: PathBuf,
    /// In which format
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    format: Format,
    /// Write to a file instead of stdout
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Also say when this machine built it; other machines then write other bytes
    #[arg(long)]
    run_details: bool,
}

/// A format of bills of materials.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// CycloneDX 1.6, JSON
    #[default]
    Cyclonedx,
    /// SPDX 2.3, JSON
    Spdx,
    /// SPDX 3.0.1 with the Build profile, JSON-LD
    Spdx3,
}

impl SbomCommand {
    pub(super) fn run(self, session: &Session) -> Result<u8, Failure> {
        let run = if self.run_details { Run::Told } else { Run::LeftOut };
        let sbom = gathered(session, &self.build, run)?;
        let bytes = match self.format {
            Format::Cyclonedx => cyclonedx::print(&sbom),
            Format::Spdx => spdx::print(&sbom),
            Format::Spdx3 => spdx3::print(&sbom),
        };
        match &self.output {
            Some(file) => session.write_file(file, &bytes)?,
            None => session.print_text(&String::from_utf8_lossy(&bytes))?,
        }
        Ok(exit::YES)
    }
}

/// The bill of what `build` names, which must be built in this session's store.
pub(super) fn gathered(session: &Session, build: &std::path::Path, run: Run) -> Result<Sbom, Failure> {
    let store = session.store()?;
    let build = derivation_of(store, build)?;
    let graph = session.graph(std::slice::from_ref(&build))?;
    let realised = session.cached(&graph)?.and_then(|realised| realised.into_iter().next());
    let shown = build.display();
    let realised = realised
        .ok_or_else(|| Failure::new(Kind::BadInput, anyhow!("{shown} is not built: run `kiln build {shown}` first")))?;
    let trust = match session.inputs() {
        Inputs::Fingerprint => Trust::Fingerprint,
        Inputs::Bytes => Trust::Bytes,
    };
    Ok(sbom::gather(store, &graph, graph.wanted[0], &realised.outcome, run, trust)?)
}

/// An output stands for the derivation that made it.
pub(super) fn derivation_of(store: &Store, build: &std::path::Path) -> Result<PathBuf, Failure> {
    let Some(path) = build.to_str().and_then(|text| text.parse::<StorePath>().ok()) else { return Ok(build.into()) };
    if path.name().ends_with(".drv") {
        return Ok(build.into());
    }
    let unknown = |why: &str| Failure::new(Kind::BadInput, anyhow!("{path} {why}"));
    let info = store.path_info(&path)?.ok_or_else(|| unknown("is not in the store"))?;
    let deriver = info.deriver.ok_or_else(|| unknown("was not built: name the recipe or derivation that made it"))?;
    Ok(PathBuf::from(deriver.to_string()))
}
