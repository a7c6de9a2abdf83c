//! `kiln store`: look at and tend the store.

use clap::{Args, Subcommand};
use kiln_model::name::Name;
use kiln_model::store_path::StorePath;
use serde_json::json;

use super::{Failure, Session};
use crate::exit::{self, Kind};
use crate::store::{Budget, Trust};

/// Look at and tend the store.
#[derive(Debug, Args)]
pub struct Store {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List valid store paths
    Ls,
    /// Hold every tree against its record
    Verify(Verify),
    /// Remove what no root and no running kiln needs
    Gc(Gc),
    /// Keep a store path and all it names from `gc`
    AddRoot {
        /// Name of the root
        name: Name,
        /// The store path
        path: StorePath,
    },
    /// Stop keeping a store path
    RemoveRoot {
        /// Name of the root
        name: Name,
    },
}

/// Hold every tree against its record.
#[derive(Debug, Args)]
struct Verify {
    /// Make the index anew from the records first
    #[arg(long)]
    rebuild_index: bool,
    /// Look at fingerprints only; without it every byte is read
    #[arg(long)]
    quick: bool,
}

/// Remove what no root and no running kiln needs.
#[derive(Debug, Args)]
struct Gc {
    /// Bytes of valid paths that may stay although no root reaches them
    #[arg(long, default_value = "0", value_name = "BYTES")]
    keep_paths: u64,
    /// Bytes of trees that builds left that may stay
    #[arg(long, default_value = "0", value_name = "BYTES")]
    keep_trees: u64,
    /// Bytes of downloaded files that may stay
    #[arg(long, default_value = "0", value_name = "BYTES")]
    keep_files: u64,
}

impl Store {
    pub(super) fn run(self, session: &Session) -> Result<u8, Failure> {
        let store = session.store()?;
        match self.command {
            Command::Ls => {
                let paths = store.paths()?;
                if session.json() {
                    let paths: Vec<_> = paths
                        .iter()
                        .map(|p| json!({ "path": p.path, "nar_hash": p.nar_hash, "nar_size": p.nar_size }))
                        .collect();
                    session.print_json(&json!({ "schema": "kiln/store-ls/v1", "paths": paths }))?;
                } else {
                    for info in paths {
                        session.print_line(&format!("{} {:>12} {}", info.nar_hash, info.nar_size, info.path))?;
                    }
                }
                Ok(exit::YES)
            }
            Command::Verify(options) => {
                if options.rebuild_index {
                    store.rebuild_index()?;
                }
                let seen = store.verify(if options.quick { Trust::Fingerprint } else { Trust::Bytes })?;
                let problems: Vec<String> = seen.problems.iter().map(ToString::to_string).collect();
                if session.json() {
                    session.print_json(&json!({
                        "schema": "kiln/store-verify/v1", "trees": seen.trees, "bytes": seen.bytes, "problems": problems,
                    }))?;
                } else {
                    session.say(format!("{} trees verified, {} bytes read", seen.trees, seen.bytes));
                    for problem in &problems {
                        session.print_line(problem)?;
                    }
                }
                Ok(if problems.is_empty() { exit::YES } else { exit::TAMPERED })
            }
            Command::Gc(options) => {
                let budget =
                    Budget { paths: options.keep_paths, trees: options.keep_trees, files: options.keep_files };
                let collected = store.gc(&budget)?;
                if session.json() {
                    session.print_json(&json!({
                        "schema": "kiln/store-gc/v1", "paths": collected.paths, "trees": collected.trees,
                        "environments": collected.environments, "files": collected.files, "bytes": collected.bytes,
                    }))?;
                } else {
                    let count = collected.paths.len()
                        + collected.trees.len()
                        + collected.environments.len()
                        + collected.files.len();
                    session.say(format!("{count} things removed, {} bytes", collected.bytes));
                }
                Ok(exit::YES)
            }
            Command::AddRoot { name, path } => {
                if store.path_info(&path)?.is_none() {
                    return Err(Failure::new(Kind::BadInput, anyhow::anyhow!("{path} is not a valid path of this store")));
                }
                store.add_root(&name, &path)?;
                Ok(exit::YES)
            }
            Command::RemoveRoot { name } => {
                store.remove_root(&name)?;
                Ok(exit::YES)
            }
        }
    }
}
