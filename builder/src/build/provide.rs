//! What a build reads, brought into the store: inputs by their locked digests, the environment assembled from locked
//! packages, outputs of other recipes.
//!
//! Everything is looked for in the store first; only what is missing is fetched. Nothing here edits a lock: what is not
//! what the lock says is an error.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use kiln_model::digest::{Digest, NarHash};
use kiln_model::lock::{Layer, Lock, LockedInput, LockedPackage};
use kiln_model::lower;
use kiln_model::name::Variable;
use kiln_model::outcome::Substituted;
use kiln_model::recipe::Accounts;
use kiln_model::store_path::StorePath;
use kiln_model::tree::{self, Manifest};

use super::float::{self, Resolved, Target};
use super::graph::{Graph, Locked, Node, Origin};
use super::sandbox::Named;
use super::{BuildError, Builder, Inputs, io};
use crate::environment::{Assembler, Kept, Package, Sandboxed};
use crate::event::{self, Level};
use crate::fetch::{Archive, Wanted};
use crate::pin;
use crate::recipe_dir::RecipeDir;
use crate::sbom::Root;
use crate::store::{Digests, Store, StoreError, Trust};

/// Bytes of the largest file of users or groups: those of a Debian have two thousand.
const MOST_ACCOUNTS: u64 = 1 << 20;

/// Differing files that an error names; the others are counted.
const NAMED: usize = 20;

/// Where a build's inputs are.
#[derive(Debug, Clone)]
pub struct Provided {
    /// The materialised environment, if the build enters one.
    pub environment: Option<PathBuf>,
    /// Its users and groups, if the build sees them.
    pub named: Option<Named>,
    /// Every store path of the input closure, and where it really is. The environment is `/` and not among them.
    pub closure: BTreeMap<StorePath, PathBuf>,
    /// Digest of each, and of the environment.
    pub digests: BTreeMap<StorePath, NarHash>,
    /// Those of them that others built.
    pub substituted: BTreeMap<StorePath, Substituted>,
    /// What is built in place of the node's own derivation, if that could not be built as it is.
    pub resolved: Option<Box<Resolved>>,
}

impl Provided {
    /// What is built for `node`, which all this is for.
    pub fn target<'a>(&'a self, node: &'a Node) -> Target<'a> {
        match &self.resolved {
            Some(resolved) => resolved.target(),
            None => Target { derivation: &node.derivation, path: &node.path, outputs: &node.outputs },
        }
    }
}

impl Builder<'_> {
    /// Brings everything that node `index` reads into the store. Nodes that it needs must have been built.
    pub fn provide(&self, graph: &Graph, index: usize) -> Result<Provided, BuildError> {
        let node = &graph.nodes[index];
        let mut provided = Provided {
            environment: None,
            named: None,
            closure: BTreeMap::new(),
            digests: BTreeMap::new(),
            substituted: BTreeMap::new(),
            resolved: None,
        };
        match &node.origin {
            Origin::Recipe(locked) => self.provide_locked(node, locked, &mut provided)?,
            Origin::Derivation => self.provide_paths(graph, node, &mut provided)?,
        }
        let entered = lower::entered(provided.target(node).derivation);
        if let (Some(place), Some(Accounts::Environment)) =
            (&provided.environment, entered.map(|entered| entered.accounts))
        {
            let root = Root::open(place).map_err(io("reading", place))?;
            let read = |path: &str| {
                let bytes = root.read(path, MOST_ACCOUNTS).map_err(io("reading", &place.join(path)))?;
                Ok::<_, BuildError>(bytes.unwrap_or_default())
            };
            provided.named = Some(Named { passwd: read("etc/passwd")?, group: read("etc/group")? });
        }
        Ok(provided)
    }

    fn provide_locked(&self, node: &Node, locked: &Locked, provided: &mut Provided) -> Result<(), BuildError> {
        let Locked { recipe, lock, inputs, environment } = locked;
        provided.environment = Some(self.environment(&node.shown.display().to_string(), lock)?);
        provided.digests.insert(environment.clone(), lock.environment.nar_hash);
        for (variable, path) in inputs {
            if let Some(input) = lock.inputs.get(variable)
                && self.valid(path)?.is_none()
            {
                self.bring(recipe, variable, input, path)?;
            }
            self.add_closure(path, provided)?;
        }
        Ok(())
    }

    /// The input closure of a derivation that was given: its sources, and the outputs it names of others.
    fn provide_paths(&self, graph: &Graph, node: &Node, provided: &mut Provided) -> Result<(), BuildError> {
        // All inputs of a resolved one are sources.
        let resolved = float::resolve(self.store, graph, node)?;
        let derivation = resolved.as_ref().map_or(&node.derivation, |resolved| &resolved.derivation);
        let made = node.needs.iter().flat_map(|&need| {
            let other = &graph.nodes[need];
            let used = derivation.input_derivations.get(&other.path).into_iter().flatten();
            used.filter_map(|output| other.derivation.outputs.get(output)?.path())
        });
        let environment = node.environment();
        for path in derivation.input_sources.iter().chain(made) {
            let missing = || BuildError::NoInput { target: node.shown.display().to_string(), path: path.clone() };
            if environment.as_ref() == Some(path) {
                let (nar_hash, place) = match self.valid(path)? {
                    Some(nar_hash) => {
                        self.store.hold(&BTreeSet::from([path.clone()]))?;
                        (nar_hash, self.store.physical(path))
                    }
                    None => self.store.environment_at(path, self.trust())?.ok_or_else(missing)?,
                };
                provided.environment = Some(place);
                provided.digests.insert(path.clone(), nar_hash);
            } else {
                self.add_closure(path, provided).map_err(|error| match error {
                    BuildError::Store(StoreError::NotValid { path: gone }) if gone == *path => missing(),
                    other => other,
                })?;
            }
        }
        provided.resolved = resolved.map(Box::new);
        Ok(())
    }

    fn trust(&self) -> Trust {
        match self.settings.inputs {
            Inputs::Fingerprint => Trust::Fingerprint,
            Inputs::Bytes => Trust::Bytes,
        }
    }

    /// The digest of a path that is valid and still what it was when it became so.
    fn valid(&self, path: &StorePath) -> Result<Option<NarHash>, BuildError> {
        match self.store.path_info(path)? {
            None => Ok(None),
            Some(_) => Ok(Some(self.store.check(path, self.trust())?.nar_hash)),
        }
    }

    fn add_closure(
        &self,
        path: &StorePath,
        Provided { closure, digests, substituted, .. }: &mut Provided,
    ) -> Result<(), BuildError> {
        for (path, info) in self.store.hold_closure(path)? {
            if closure.contains_key(&path) {
                continue;
            }
            let info = self.store.check_known(info, self.trust())?;
            closure.insert(path.clone(), self.store.physical(&path));
            substituted.extend(info.substituted.map(|from| (path.clone(), from)));
            digests.insert(path, info.nar_hash);
        }
        Ok(())
    }

    /// Fetches one input and adds it to the store.
    pub(crate) fn bring(
        &self,
        recipe_dir: &RecipeDir,
        variable: &Variable,
        locked: &LockedInput,
        path: &StorePath,
    ) -> Result<(), BuildError> {
        let recipe = || recipe_dir.shown.display().to_string();
        let failed = |source| {
            let source = Box::new(source);
            BuildError::Input { recipe: recipe(), input: variable.to_string(), source }
        };
        let name = lower::input_name(locked);
        let added = match locked {
            LockedInput::DebianSource { .. } | LockedInput::Url { .. } | LockedInput::Pypi { .. } => {
                let (wanted, names): (Vec<Wanted>, Vec<String>) = files(locked).into_iter().unzip();
                let fetched = self.fetched(&wanted)?;
                self.store.add_files(&name, &names.into_iter().zip(fetched).collect::<Vec<_>>())?
            }
            LockedInput::Git { git, rev, .. } => {
                let private = self.store.private_dir()?;
                let dir = &recipe_dir.dir;
                let pin = pin::git::pin(dir, git, rev, self.settings.network, private.path())
                    .map_err(|e| failed(e.into()))?;
                self.store.add_tree(&name, &pin.tree.root(), Digests::Nar)?
            }
            LockedInput::Path { path, .. } => {
                let private = self.store.private_dir()?;
                let pin = pin::path::pin(&recipe_dir.dir, path, private.path()).map_err(|e| failed(e.into()))?;
                self.store.add_tree(&name, &pin.tree.root(), Digests::Nar)?
            }
        };
        if added.info.path == *path {
            return Ok(());
        }
        if matches!(locked, LockedInput::Path { .. }) {
            return Err(BuildError::PathChanged { recipe: recipe(), input: variable.to_string() });
        }
        Err(BuildError::Digest {
            recipe: recipe(),
            what: format!("inputs.{variable}"),
            expected: locked.nar_hash().to_string(),
            found: added.info.nar_hash.to_string(),
            detail: None,
        })
    }

    /// The files, which stay for as long as the store is open.
    pub(crate) fn fetched(&self, wanted: &[Wanted]) -> Result<Vec<PathBuf>, BuildError> {
        self.store.hold_files(wanted.iter().map(|wanted| &wanted.sha256))?;
        Ok(self.archives.pinned(wanted)?)
    }

    /// The materialised environment that `lock` names, assembled if the store does not have it.
    pub fn environment(&self, recipe: &str, lock: &Lock) -> Result<PathBuf, BuildError> {
        let wanted = &lock.environment;
        if let Some(path) = self.store.environment(&wanted.nar_hash, self.trust())? {
            return Ok(path);
        }
        let made = self.assemble(recipe, lock)?;
        if made.nar_hash == wanted.nar_hash {
            return Ok(made.path);
        }
        Err(BuildError::Digest {
            recipe: recipe.into(),
            what: "the environment".into(),
            expected: wanted.nar_hash.to_string(),
            found: made.nar_hash.to_string(),
            detail: Some(self.why_other(recipe, lock, &made)?),
        })
    }

    /// Assembles the environment of the packages in `lock`, whatever its digests say, and keeps it.
    pub fn assemble(&self, recipe: &str, lock: &Lock) -> Result<Assembled, BuildError> {
        let wanted: Vec<Wanted> = lock.environment.packages.iter().map(package).collect();
        let files = self.fetched(&wanted)?;
        let packages = |layer| {
            let of_layer = lock.environment.packages.iter().zip(&files).filter(move |(p, _)| p.layer == layer);
            of_layer.map(|(locked, file)| Package { locked, file: file.clone() }).collect::<Vec<_>>()
        };
        let (base_packages, delta_packages) = (packages(Layer::Base), packages(Layer::Delta));
        let base = match self.store.environment(&lock.environment.base, self.trust())? {
            Some(path) => Assembled { path, nar_hash: lock.environment.base },
            None => {
                let layer = (None, &base_packages[..]);
                self.assembled(recipe, lock, layer, |assembler, into| assembler.base(&base_packages, into))?
            }
        };
        if delta_packages.is_empty() {
            return Ok(base);
        }
        let layer = (Some(base.nar_hash), &delta_packages[..]);
        self.assembled(recipe, lock, layer, |assembler, into| assembler.delta(&base.path, &delta_packages, into))
    }

    fn say_assembling(&self, packages: usize, layer: &str) {
        event::say(self.events, Level::Note, format!("assembling {packages} {layer} packages"));
    }

    /// Assembles one layer on `base`, unless this store knows what the same packages made before.
    fn assembled(
        &self,
        recipe: &str,
        lock: &Lock,
        (base, packages): (Option<NarHash>, &[Package<'_>]),
        assemble: impl FnOnce(&Assembler<'_>, &Path) -> Result<(), crate::environment::EnvironmentError>,
    ) -> Result<Assembled, BuildError> {
        let provenance = provenance(epoch(lock), base, packages);
        // Recipes with the same layer, built at the same time, assemble it once.
        let _lock = self.store.lock_assembly(&provenance)?;
        if let Some(nar_hash) = self.store.assembly(&provenance)?
            && let Some(path) = self.store.environment(&nar_hash, self.trust())?
        {
            return Ok(Assembled { path, nar_hash });
        }
        self.say_assembling(packages.len(), if base.is_some() { "further" } else { "base" });
        let private = self.store.private_dir()?;
        let into = private.path().join("root");
        let inside = Sandboxed::new(self.launcher, super::slots());
        let kept = Kept::new(self.store.kept_packages(), private.path());
        let assembler = Assembler { inside: &inside, epoch: epoch(lock), kept: Some(&kept) };
        let environment_error = |source| BuildError::Environment { recipe: recipe.into(), source };
        assemble(&assembler, &into).map_err(environment_error)?;
        let (nar_hash, size, manifest) = self.store.digest_directory(&into, Digests::NarAndFiles)?;
        let path = self.store.add_environment(&nar_hash, size, &into)?;
        if let Some(manifest) = manifest {
            self.store.keep_manifest(&nar_hash, &manifest)?;
        }
        self.store.keep_assembly(&provenance, &nar_hash)?;
        Ok(Assembled { path, nar_hash })
    }

    /// What can be said of an environment that is not the locked one: the differing files, if the store knows what the
    /// locked one held; else the files that differ between two assemblies here; else where to look.
    fn why_other(&self, recipe: &str, lock: &Lock, made: &Assembled) -> Result<String, BuildError> {
        let Some(found) = self.store.manifest(&made.nar_hash)? else { return Ok(String::new()) };
        if let Some(expected) = self.store.manifest(&lock.environment.nar_hash)? {
            return Ok(format!("\n{}", named(&expected, &found)));
        }
        // Without it, what was made before is believed and nothing is assembled.
        self.store.remove_environment(&made.nar_hash)?;
        let again = self.assemble(recipe, lock)?;
        if again.nar_hash != made.nar_hash
            && let Some(second) = self.store.manifest(&again.nar_hash)?
        {
            return Ok(format!("\nassembled twice here, it differs in\n{}", named(&found, &second)));
        }
        Ok(format!(
            "\nthis host makes the same tree each time; its files are listed in {}: compare with the list on the machine \
             that made the lock, or run `kiln lock {recipe}`",
            self.store.manifest_path(&made.nar_hash).display()
        ))
    }
}

/// What a layer is made of, as a digest: the assembler's version, its clock, the layer below, the packages in order. A hint
/// for this store only: no identity, no lock.
fn provenance(epoch: i64, base: Option<NarHash>, packages: &[Package<'_>]) -> Digest {
    let mut text = format!("kiln {} {epoch} {base:?}\n", env!("CARGO_PKG_VERSION"));
    for package in packages {
        text.push_str(&format!("{}\n", package.locked.sha256));
    }
    Digest::of(text)
}

/// An environment in the store.
#[derive(Debug, Clone)]
pub struct Assembled {
    /// Its materialised tree.
    pub path: PathBuf,
    /// Its digest.
    pub nar_hash: NarHash,
}

/// Refuses a tree beside the recipe that is not what was locked: nobody who edits a source wants the old one built.
pub fn refuse_changed_paths(store: &Store, node: &Node) -> Result<(), BuildError> {
    let Origin::Recipe(locked) = &node.origin else { return Ok(()) };
    let Locked { recipe: recipe_dir, lock, .. } = &**locked;
    let recipe = || recipe_dir.shown.display().to_string();
    for (variable, locked) in &lock.inputs {
        let LockedInput::Path { path, nar_hash } = locked else { continue };
        let private = store.private_dir()?;
        let pin = pin::path::pin(&recipe_dir.dir, path, private.path()).map_err(|source| BuildError::Input {
            recipe: recipe(),
            input: variable.to_string(),
            source: Box::new(source.into()),
        })?;
        let (found, _, _) = store.digest_directory(&pin.tree.root(), Digests::Nar)?;
        if found != *nar_hash {
            return Err(BuildError::PathChanged { recipe: recipe(), input: variable.to_string() });
        }
    }
    Ok(())
}

/// The files of a locked input that is made of files: what to fetch, and under which name it is found.
pub fn files(locked: &LockedInput) -> Vec<(Wanted, String)> {
    let (archive, address, files) = match locked {
        LockedInput::DebianSource { archive, files, .. } => (Archive::Debian(archive.clone()), None, files),
        LockedInput::Url { url, files, .. } => (Archive::Address, Some(url), files),
        LockedInput::Pypi { files, .. } => (Archive::Pypi, None, files),
        LockedInput::Git { .. } | LockedInput::Path { .. } => return Vec::new(),
    };
    files
        .iter()
        .map(|file| {
            let path = address.unwrap_or(&file.path).clone();
            let wanted = Wanted { archive: archive.clone(), path, size: Some(file.size), sha256: file.sha256 };
            (wanted, file.path.rsplit('/').next().unwrap_or(&file.path).to_string())
        })
        .collect()
}

/// What to fetch for a locked package.
pub fn package(package: &LockedPackage) -> Wanted {
    Wanted {
        archive: Archive::Debian(package.archive.clone()),
        path: package.path.clone(),
        size: Some(package.size),
        sha256: package.sha256,
    }
}

/// The one time that everything in an environment has: the date of the newest suite it was resolved from.
fn epoch(lock: &Lock) -> i64 {
    let dates = lock.suites.iter().filter_map(|suite| suite.date.parse::<jiff::Timestamp>().ok());
    dates.map(|date| date.as_second()).max().unwrap_or(1)
}

fn named(expected: &Manifest, found: &Manifest) -> String {
    let differences = tree::differences(expected, found);
    let mut lines: Vec<String> = differences.iter().take(NAMED).map(|d| format!("  {}", d.path)).collect();
    if differences.len() > NAMED {
        lines.push(format!("  and {} more", differences.len() - NAMED));
    }
    lines.join("\n")
}
