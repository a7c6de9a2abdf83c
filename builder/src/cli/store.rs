//! `kiln store`: look at the store, check it, clean it.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use kiln_model::name::{Name, sanitised};
use kiln_model::store_path::StorePath;

use super::exchange::Exchange;
use super::{Failure, Session};
use crate::exit::{self, Kind};
use crate::store::{Budget, Collected, Digests, Store, StoreError, Trust, Verified};

/// Look at the store, check it, clean it.
#[derive(Debug, Args)]
pub(super) struct StoreCommand {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    #[command(flatten)]
    Tend(Tend),
    #[command(flatten)]
    Exchange(Exchange),
}

#[derive(Debug, Subcommand)]
enum Tend {
    /// List valid paths.
    Ls,
    /// Say what is known of a path.
    Info {
        /// As it is named inside: /nix/store/HASH-NAME.
        path: StorePath,
    },
    /// Say where a path lies on disk.
    Where {
        /// As it is named inside: /nix/store/HASH-NAME.
        path: StorePath,
    },
    /// Add a file or directory, addressed by its contents.
    Add {
        /// What to add.
        source: PathBuf,
        /// Name in the store; that of the source, if absent.
        #[arg(long)]
        name: Option<Name>,
    },
    /// Hold all trees against their records.
    Verify {
        /// Read only what looks touched, not every byte.
        #[arg(long)]
        quick: bool,
        /// Make the index again from the records first.
        #[arg(long)]
        rebuild_index: bool,
    },
    /// Remove what no root and no running process needs.
    Gc {
        /// Bytes of unneeded paths to keep, newest first.
        #[arg(long, value_name = "BYTES", default_value_t = 0)]
        keep_paths: u64,
        /// Bytes of trees that builds left behind to keep, newest first.
        #[arg(long, value_name = "BYTES", default_value_t = 0)]
        keep_trees: u64,
        /// Bytes of downloaded files to keep, newest first.
        #[arg(long, value_name = "BYTES", default_value_t = 0)]
        keep_files: u64,
    },
    /// Ask how paths hang together.
    Query {
        #[command(subcommand)]
        question: Question,
    },
    /// Keep a path, and all it names, from being removed.
    Root {
        /// Name of the root.
        name: Name,
        /// What it keeps; without, the root is removed.
        path: Option<StorePath>,
    },
}

/// A question about paths; answers are paths, sorted.
#[derive(Debug, Subcommand)]
enum Question {
    /// What a path names.
    References {
        /// As it is named inside: /nix/store/HASH-NAME.
        path: StorePath,
    },
    /// Which paths name it.
    Referrers {
        /// As it is named inside: /nix/store/HASH-NAME.
        path: StorePath,
    },
    /// A path and all it names, directly or not.
    Closure {
        /// As it is named inside: /nix/store/HASH-NAME.
        path: StorePath,
    },
    /// Which derivation made it.
    Deriver {
        /// As it is named inside: /nix/store/HASH-NAME.
        path: StorePath,
    },
    /// What keeps paths from being removed; all roots, or those that keep one path.
    Roots {
        /// As it is named inside: /nix/store/HASH-NAME.
        path: Option<StorePath>,
    },
}

/// How the result is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// Lines for people.
    Text,
    /// One JSON document.
    Json,
}

/// What the exit code follows from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    /// All is well.
    Good,
    /// Something on disk is not as recorded.
    Altered,
}

impl StoreCommand {
    pub(super) fn run(self, session: &Session) -> Result<u8, Failure> {
        let command = match self.command {
            Command::Tend(command) => command,
            Command::Exchange(command) => return command.run(session),
        };
        let form = if session.json() { Form::Json } else { Form::Text };
        let mut out = Vec::new();
        let found = run(&command, session.store()?, form, &mut out).map_err(|error| {
            let kind = error.downcast_ref::<StoreError>().map_or(Kind::BadInput, |e| e.kind());
            Failure { kind, error }
        })?;
        session.print_text(&String::from_utf8_lossy(&out))?;
        Ok(match found {
            Found::Good => exit::YES,
            Found::Altered => exit::TAMPERED,
        })
    }
}

fn run(command: &Tend, store: &Store, form: Form, out: &mut dyn Write) -> anyhow::Result<Found> {
    match command {
        Tend::Ls => {
            let paths = store.paths()?;
            match form {
                Form::Json => write_json(out, "paths", &paths)?,
                Form::Text => paths.iter().try_for_each(|info| writeln!(out, "{}", info.path))?,
            }
        }
        Tend::Info { path } => {
            let info = store.path_info(path)?.with_context(|| format!("{path} is not in the store"))?;
            match form {
                Form::Json => write_json(out, "path", &info)?,
                Form::Text => {
                    writeln!(
                        out,
                        "path        {}\nnar hash    {}\nnar size    {}",
                        info.path, info.nar_hash, info.nar_size
                    )?;
                    info.references.iter().try_for_each(|path| writeln!(out, "references  {path}"))?;
                    info.deriver.iter().try_for_each(|path| writeln!(out, "deriver     {path}"))?;
                    info.ca.iter().try_for_each(|address| writeln!(out, "ca          {address}"))?;
                }
            }
        }
        Tend::Where { path } => {
            store.hold(&BTreeSet::from([path.clone()]))?;
            let place = store.physical(path);
            match form {
                Form::Json => write_json(out, "where", &place)?,
                Form::Text => writeln!(out, "{}", place.display())?,
            }
        }
        Tend::Add { source, name } => {
            let name = match (name, source.file_name()) {
                (Some(name), _) => name.clone(),
                (None, Some(name)) => sanitised(&name.to_string_lossy()),
                (None, None) => anyhow::bail!("{} has no name of its own: give one with --name", source.display()),
            };
            let added = store.add_tree(&name, source, Digests::Nar)?;
            match form {
                Form::Json => write_json(out, "path", &added.info)?,
                Form::Text => writeln!(out, "{}", added.info.path)?,
            }
        }
        Tend::Verify { quick, rebuild_index } => {
            if *rebuild_index {
                store.rebuild_index()?;
            }
            let verified = store.verify(if *quick { Trust::Fingerprint } else { Trust::Bytes })?;
            write_verified(out, form, &verified)?;
            return Ok(if verified.problems.is_empty() { Found::Good } else { Found::Altered });
        }
        Tend::Gc { keep_paths, keep_trees, keep_files } => {
            let budget = Budget { paths: *keep_paths, trees: *keep_trees, files: *keep_files };
            write_collected(out, form, &store.gc(&budget)?)?;
        }
        Tend::Query { question } => {
            let paths = asked(question, store)?;
            match form {
                Form::Json => write_json(out, "paths", &paths)?,
                Form::Text => paths.iter().try_for_each(|path| writeln!(out, "{path}"))?,
            }
        }
        Tend::Root { name, path: Some(path) } => store.add_root(name, path)?,
        Tend::Root { name, path: None } => store.remove_root(name)?,
    }
    Ok(Found::Good)
}

fn asked(question: &Question, store: &Store) -> anyhow::Result<BTreeSet<StorePath>> {
    let known = |path: &StorePath| store.path_info(path)?.ok_or_else(|| StoreError::NotValid { path: path.clone() });
    Ok(match question {
        Question::References { path } => known(path)?.references,
        Question::Referrers { path } => store.referrers(&known(path)?.path)?,
        Question::Closure { path } => store.closure(&BTreeSet::from([path.clone()]))?.into_keys().collect(),
        Question::Deriver { path } => known(path)?.deriver.into_iter().collect(),
        Question::Roots { path: None } => store.roots()?.into_values().collect(),
        Question::Roots { path: Some(path) } => {
            let path = known(path)?.path;
            let mut keeping = BTreeSet::new();
            for root in store.roots()?.into_values() {
                if store.closure(&BTreeSet::from([root.clone()]))?.contains_key(&path) {
                    keeping.insert(root);
                }
            }
            keeping
        }
    })
}

fn write_json<T: serde::Serialize>(out: &mut dyn Write, what: &str, value: &T) -> anyhow::Result<()> {
    let document = serde_json::json!({ "schema": "kiln/store/v1", what: value });
    Ok(writeln!(out, "{document}")?)
}

fn write_verified(out: &mut dyn Write, form: Form, verified: &Verified) -> anyhow::Result<()> {
    let problems: Vec<String> = verified.problems.iter().map(ToString::to_string).collect();
    match form {
        Form::Json => {
            let value = serde_json::json!({ "trees": verified.trees, "bytes": verified.bytes, "problems": problems });
            write_json(out, "verified", &value)
        }
        Form::Text => {
            problems.iter().try_for_each(|problem| writeln!(out, "{problem}"))?;
            Ok(writeln!(out, "{} trees, {} bytes read, {} problems", verified.trees, verified.bytes, problems.len())?)
        }
    }
}

fn write_collected(out: &mut dyn Write, form: Form, collected: &Collected) -> anyhow::Result<()> {
    match form {
        Form::Json => {
            let value = serde_json::json!({
                "paths": collected.paths,
                "trees": collected.trees,
                "environments": collected.environments,
                "files": collected.files,
                "packages": collected.packages,
                "bytes": collected.bytes,
            });
            write_json(out, "collected", &value)
        }
        Form::Text => {
            collected.paths.iter().try_for_each(|path| writeln!(out, "{path}"))?;
            Ok(writeln!(
                out,
                "removed {} paths, {} kept trees, {} environments, {} files, {} decoded packages: {} bytes",
                collected.paths.len(),
                collected.trees.len(),
                collected.environments.len(),
                collected.files.len(),
                collected.packages.len(),
                collected.bytes
            )?)
        }
    }
}
