//! `kiln derivation`: show derivations, add them to the store.

use std::collections::BTreeSet;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use kiln_model::store_path::StorePath;

use super::{Failure, Session};
use crate::exit::{self, Kind};
use crate::nix::{Derivations, DerivationsError};

/// Show derivations, add them to the store.
#[derive(Debug, Args)]
pub(super) struct DerivationCommand {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print derivations as `nix show-derivation` does.
    Show {
        /// Paths in the store (/nix/store/HASH-NAME.drv), files, or recipe directories.
        #[arg(required = true)]
        derivations: Vec<PathBuf>,
        /// Also all that they need
        #[arg(long, short)]
        recursive: bool,
    },
    /// Add derivations, and those they need from beside them, to the store.
    Add {
        /// Files called HASH-NAME.drv or NAME.drv.
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
}

impl DerivationCommand {
    pub(super) fn run(self, session: &Session) -> Result<u8, Failure> {
        match self.command {
            Command::Show { derivations, recursive } => show(session, &derivations, recursive)?,
            Command::Add { files } => {
                let store = session.store()?;
                for file in &files {
                    let mut read = Derivations::of(store);
                    let path = read.read_file(file)?;
                    read.add()?;
                    session.print_line(&path.to_string())?;
                }
            }
        }
        Ok(exit::YES)
    }
}

fn show(session: &Session, wanted: &[PathBuf], recursive: bool) -> Result<(), Failure> {
    let mut known = Derivations::of(session.store()?);
    let mut shown = BTreeSet::new();
    for what in wanted {
        let logical = what.to_str().and_then(|text| text.parse::<StorePath>().ok());
        match logical {
            Some(path) => {
                known.read(&path)?;
                shown.insert(path);
            }
            None if what.is_dir() || what.ends_with("recipe.toml") => {
                let graph = session.graph(std::slice::from_ref(what))?;
                let wanted: Vec<StorePath> = graph.wanted.iter().map(|&node| graph.nodes[node].path.clone()).collect();
                for node in graph.nodes {
                    let taken = known.take(node.path.clone(), node.derivation);
                    taken.map_err(|error| Failure::new(error.kind(), error))?;
                }
                shown.extend(wanted);
            }
            None => drop(shown.insert(known.read_file(what)?)),
        }
    }
    let mut object = serde_json::Map::new();
    for (path, derivation) in known.known().iter().filter(|(path, _)| recursive || shown.contains(*path)) {
        let value = derivation.show().map_err(|source| {
            Failure::new(Kind::BadInput, DerivationsError::Derivation { shown: path.to_string(), source })
        })?;
        object.insert(path.to_string(), value);
    }
    let text = serde_json::to_string_pretty(&object).expect("an object has string keys only");
    session.print_line(&text)
}
