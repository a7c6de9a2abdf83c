//! A whole recipe pinned: suites resolved, inputs fetched and digested, the environment assembled for its digest.
//!
//! The result depends on the recipe and on the state of the archives alone. With [`Scope::Inputs`] only those inputs are
//! looked up again; everything else is the old lock's, to the byte.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use jiff::Timestamp;
use kiln_model::digest::{Digest, NarHash};
use kiln_model::lock::{self, Lock, LockedEnvironment, LockedInput};
use kiln_model::lower;
use kiln_model::name::Variable;
use kiln_model::recipe::Input;

use super::debian::{self, Freshness, SourceWish, Trust};
use super::{PinError, git, path, pypi, url};
use crate::build::{BuildError, Builder};
use crate::event::{self, Level};
use crate::fetch::Network;
use crate::recipe_dir::RecipeDir;
use crate::store::Digests;

/// What is looked up again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// Everything.
    Everything,
    /// These inputs.
    Inputs(BTreeSet<Variable>),
}

/// Makes locks.
pub struct Pinning<'a, 'b> {
    /// Store, archives and sandbox.
    pub builder: &'a Builder<'b>,
    /// What time it is.
    pub clock: Timestamp,
    /// Keyrings that sign indices.
    pub keyrings: Vec<PathBuf>,
    /// Whether an old index will do.
    pub freshness: Freshness,
    /// Whether `git` may use the network.
    pub network: Network,
    /// Indices that were read already; they serve the recipes of their suites.
    pub indices: Option<&'a debian::Indices>,
}

impl Pinning<'_, '_> {
    /// The lock of `recipe`; `old` is what there is.
    pub fn lock(&self, recipe: &RecipeDir, old: Option<&Lock>, scope: &Scope) -> Result<Lock, PinError> {
        let text = &recipe.recipe;
        let (kept, wanted) = match scope {
            Scope::Everything => (None, text.inputs.keys().cloned().collect::<BTreeSet<_>>()),
            Scope::Inputs(inputs) => {
                let old = old.ok_or_else(|| PinError::NothingToKeep { recipe: recipe.shown.clone() })?;
                self.refuse_unknown(recipe, old, inputs)?;
                (Some(old), inputs.clone())
            }
        };
        let sources: Vec<(Variable, SourceWish)> = text
            .inputs
            .iter()
            .filter(|(variable, _)| wanted.contains(variable))
            .filter_map(|(variable, input)| match input {
                Input::DebianSource { name, version } => {
                    Some((variable.clone(), SourceWish { name: name.clone(), version: version.clone() }))
                }
                Input::Url { .. }
                | Input::Pypi { .. }
                | Input::Git { .. }
                | Input::Path { .. }
                | Input::Recipe { .. } => None,
            })
            .collect();
        // With a scope of inputs the archive is read for its source packages only.
        let resolved = match (kept, sources.is_empty()) {
            (Some(_), true) => None,
            (None, _) | (Some(_), false) => Some(self.resolve(recipe, &sources)?),
        };
        let mut inputs: BTreeMap<Variable, LockedInput> = BTreeMap::new();
        for (variable, input) in &text.inputs {
            if let Some(locked) = kept.filter(|_| !wanted.contains(variable)).and_then(|old| old.inputs.get(variable)) {
                inputs.insert(variable.clone(), locked.clone());
                continue;
            }
            let found = sources.iter().position(|(v, _)| v == variable);
            let source = found.and_then(|at| resolved.as_ref()?.sources.get(at));
            if let Some(locked) = self.input(recipe, variable, input, source)? {
                inputs.insert(variable.clone(), locked);
            }
        }
        let mut lock =
            Lock { schema: lock::SCHEMA, pins: text.pins(), inputs, ..self.unpinned(kept, resolved, recipe) };
        if kept.is_none() {
            lock.environment.base = self.base(recipe, &lock)?;
            lock.environment.nar_hash = self.builder.assemble(&recipe.shown.display().to_string(), &lock)?.nar_hash;
        }
        Ok(lock)
    }

    /// The parts of a lock that are not its inputs: the old one's, or with digests yet to be found.
    fn unpinned(&self, kept: Option<&Lock>, resolved: Option<debian::Pinned>, recipe: &RecipeDir) -> Lock {
        if let Some(old) = kept {
            return old.clone();
        }
        let nothing = NarHash::new(Digest::of(b""));
        let resolved = resolved.expect("without an old lock everything is resolved");
        Lock {
            schema: lock::SCHEMA,
            pins: recipe.recipe.pins(),
            suites: resolved.suites,
            inputs: BTreeMap::new(),
            environment: LockedEnvironment {
                architecture: recipe.recipe.environment.debian.architecture.clone(),
                nar_hash: nothing,
                base: nothing,
                packages: resolved.packages,
            },
        }
    }

    fn base(&self, recipe: &RecipeDir, lock: &Lock) -> Result<NarHash, PinError> {
        let mut base = lock.clone();
        base.environment.packages.retain(|package| package.layer == lock::Layer::Base);
        Ok(self.builder.assemble(&recipe.shown.display().to_string(), &base)?.nar_hash)
    }

    /// A scope must name inputs that are pinned, and leave nothing that the old lock lacks.
    fn refuse_unknown(&self, recipe: &RecipeDir, old: &Lock, inputs: &BTreeSet<Variable>) -> Result<(), PinError> {
        for variable in inputs {
            match recipe.recipe.inputs.get(variable) {
                None => {
                    let there = recipe.recipe.inputs.keys().map(Variable::to_string).collect();
                    return Err(PinError::NoSuchInput { input: variable.clone(), there });
                }
                Some(Input::Recipe { .. }) => return Err(PinError::RecipeInput { input: variable.clone() }),
                Some(_) => {}
            }
        }
        for (variable, input) in &recipe.recipe.inputs {
            let pinned = matches!(input, Input::Recipe { .. }) || old.inputs.contains_key(variable);
            if !pinned && !inputs.contains(variable) {
                return Err(PinError::NothingToKeep { recipe: recipe.shown.clone() });
            }
        }
        Ok(())
    }

    fn resolve(&self, recipe: &RecipeDir, sources: &[(Variable, SourceWish)]) -> Result<debian::Pinned, PinError> {
        let wishes: Vec<SourceWish> = sources.iter().map(|(_, wish)| wish.clone()).collect();
        let seen = self.builder.store.root().join("seen");
        let trust = Trust { keyrings: &self.keyrings, clock: self.clock, seen: Some(&seen), freshness: self.freshness };
        let debian = &recipe.recipe.environment.debian;
        let pinned = match self.indices.filter(|indices| indices.are_of(debian)) {
            Some(indices) => indices.pin(debian, &wishes)?,
            None => debian::pin(self.builder.archives, debian, &wishes, &trust)?,
        };
        for note in &pinned.notes {
            event::say(self.builder.events, Level::Note, note.clone());
        }
        Ok(pinned)
    }

    /// Pins one input; `None` for an output of another recipe, which has a lock of its own.
    fn input(
        &self,
        recipe: &RecipeDir,
        variable: &Variable,
        input: &Input,
        source: Option<&debian::PinnedSource>,
    ) -> Result<Option<LockedInput>, PinError> {
        let builder = self.builder;
        let private = builder.store.private_dir().map_err(BuildError::from)?;
        // The digest of a directory depends on its files alone: it is added under the name that the finished entry gives.
        let digested = |locked: &dyn Fn(NarHash) -> LockedInput, files: &[(String, PathBuf)]| {
            let name = lower::input_name(&locked(NarHash::new(Digest::of(b""))));
            let added = builder.store.add_files(&name, files).map_err(BuildError::from)?;
            Ok::<_, PinError>(Some(locked(added.info.nar_hash)))
        };
        let tree = |locked: &dyn Fn(NarHash) -> LockedInput, root: PathBuf| {
            let name = lower::input_name(&locked(NarHash::new(Digest::of(b""))));
            let added = builder.store.add_tree(&name, &root, Digests::Nar).map_err(BuildError::from)?;
            Ok::<_, PinError>(Some(locked(added.info.nar_hash)))
        };
        match input {
            Input::Recipe { .. } => Ok(None),
            Input::DebianSource { .. } => {
                let source = source.expect("every wanted source package was resolved");
                let locked = |nar_hash| LockedInput::DebianSource {
                    name: source.name.clone(),
                    version: source.version.clone(),
                    archive: source.archive.clone(),
                    nar_hash,
                    files: source.files.clone(),
                };
                let wanted = crate::build::provide::files(&locked(NarHash::new(Digest::of(b""))));
                let (wanted, names): (Vec<_>, Vec<_>) = wanted.into_iter().unzip();
                let fetched = builder.archives.pinned(&wanted).map_err(BuildError::from)?;
                digested(&locked, &names.into_iter().zip(fetched).collect::<Vec<_>>())
            }
            Input::Url { url: address, sha256, file } => {
                let pin = url::pin(builder.archives, address, *sha256, file.as_deref())?;
                digested(&|nar_hash| pin.locked(nar_hash), &pin.files.at)
            }
            Input::Pypi { project, version, file } => {
                let pin = pypi::pin(builder.archives, project, version, *file)?;
                if let Some(why) = &pin.yanked {
                    let text = format!("inputs.{variable}: {project} {version} was yanked by its author: {why}");
                    event::say(builder.events, Level::Warning, text);
                }
                digested(&|nar_hash| pin.locked(nar_hash), &pin.files.at)
            }
            Input::Git { git: address, rev } => {
                let pin = git::pin(&recipe.dir, address, rev, self.network, private.path())?;
                tree(&|nar_hash| pin.locked(nar_hash), pin.tree.root())
            }
            Input::Path { path: relative } => {
                let pin = path::pin(&recipe.dir, relative, private.path())?;
                tree(&|nar_hash| pin.locked(nar_hash), pin.tree.root())
            }
        }
    }
}
