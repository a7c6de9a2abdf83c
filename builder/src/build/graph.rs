//! What is to be built, and what that needs first: recipes, lowered, and derivations as they are.
//!
//! Reads recipes, locks and derivation files, follows what they need, refuses cycles by naming them. Everything that
//! identifies a build is known after this: nothing was fetched, and of the store only derivations were read.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use kiln_model::contract::ContractError;
use kiln_model::derivation::{Derivation, Modulo};
use kiln_model::digest::Digest;
use kiln_model::lock::Lock;
use kiln_model::lower::{self, Built, LowerError, Lowered};
use kiln_model::name::Variable;
use kiln_model::recipe::{Input, Limits, Recipe};
use kiln_model::store_path::StorePath;

use crate::exit::Kind;
use crate::nix::{DerivationsError, Substituter};
use crate::recipe_dir::{RecipeDir, RecipeDirError};
use crate::store::Store;

mod derivation;

/// One derivation that may be built, and what it was made from.
#[derive(Debug)]
pub struct Node {
    /// What messages call it: the recipe's directory, or the derivation's file.
    pub shown: PathBuf,
    /// What it was made from.
    pub origin: Origin,
    /// The derivation.
    pub derivation: Derivation,
    /// Its path, its id.
    pub path: StorePath,
    /// Where its outputs will be, as far as that is known before the build.
    pub outputs: BTreeMap<Variable, StorePath>,
    /// What its realisations are named by, if it must be resolved before it is built: an output of its own, or one that
    /// it needs, has no path until then.
    pub resolved_by: Option<Digest>,
    /// Nodes that must be built before this one.
    pub needs: BTreeSet<usize>,
}

/// What a derivation was made from, and so who knows where its inputs are to be had.
#[derive(Debug)]
pub enum Origin {
    /// A recipe under its lock.
    Recipe(Box<Locked>),
    /// Nothing: it was given as it is, and its inputs are store paths.
    Derivation,
}

/// A recipe, its lock, and where they are once they are store paths.
#[derive(Debug)]
pub struct Locked {
    /// The recipe where it was found.
    pub recipe: RecipeDir,
    /// Its lock.
    pub lock: Lock,
    /// Where the script finds its inputs.
    pub inputs: BTreeMap<Variable, StorePath>,
    /// The root file system.
    pub environment: StorePath,
}

impl Node {
    /// The recipe it was made from.
    pub fn recipe(&self) -> Option<&Recipe> {
        match &self.origin {
            Origin::Recipe(locked) => Some(&locked.recipe.recipe),
            Origin::Derivation => None,
        }
    }

    /// Bounds on its builds.
    pub fn limits(&self) -> Limits {
        self.recipe().map(|recipe| recipe.limits.clone()).unwrap_or_default()
    }

    /// What people call it: name and version.
    pub fn title(&self) -> String {
        match self.recipe() {
            Some(recipe) => format!("{} {}", recipe.name, recipe.version),
            None => self.derivation.name.to_string(),
        }
    }

    /// The store path whose tree is `/` to its script.
    pub fn environment(&self) -> Option<StorePath> {
        lower::entered(&self.derivation).map(|entered| entered.environment)
    }
}

/// Derivations in an order in which each comes after what it needs.
#[derive(Debug, Default)]
pub struct Graph {
    /// The nodes; indices are what [`Node::needs`] and [`Graph::wanted`] hold.
    pub nodes: Vec<Node>,
    /// The targets asked for, in the order asked.
    pub wanted: Vec<usize>,
}

/// Why recipes do not make a graph.
#[derive(Debug, thiserror::Error)]
pub enum GraphError {
    /// A recipe or lock cannot be used.
    #[error(transparent)]
    Recipe(#[from] RecipeDirError),
    /// Recipes need each other in a circle.
    #[error("recipes need each other in a circle: {}", circle.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(" → "))]
    Cycle {
        /// From a recipe back to itself.
        circle: Vec<PathBuf>,
    },
    /// A derivation file cannot be used.
    #[error(transparent)]
    Derivations(#[from] DerivationsError),
    /// A derivation that this kiln does not build.
    #[error("in {}", path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// Which part.
        source: ContractError,
    },
    /// Recipe and lock do not make a derivation.
    #[error("in {}", recipe.display())]
    Lower {
        /// The recipe.
        recipe: PathBuf,
        /// Why.
        source: LowerError,
    },
}

impl GraphError {
    /// What sort of error it is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Recipe(e) => e.kind(),
            Self::Derivations(e) => e.kind(),
            Self::Cycle { .. } | Self::Lower { .. } | Self::Unsupported { .. } => Kind::BadInput,
        }
    }
}

impl Graph {
    /// Reads `targets`, recipes or derivation files, and all they need; derivations are looked for in `store` too.
    pub fn load(targets: &[PathBuf], store: &Store) -> Result<Self, GraphError> {
        Self::load_asking(targets, store, None)
    }

    /// The same; what derivations are neither in `store` nor beside those given, `caches` may have.
    pub fn load_asking(
        targets: &[PathBuf],
        store: &Store,
        caches: Option<&Substituter<'_>>,
    ) -> Result<Self, GraphError> {
        let mut loading = Loading {
            graph: Self::default(),
            done: BTreeMap::new(),
            path: Vec::new(),
            modulos: BTreeMap::new(),
            derivations: BTreeMap::new(),
        };
        for path in targets {
            let node = match path.extension().is_some_and(|extension| extension == "drv") {
                true => derivation::visit(&mut loading, path, store, caches)?,
                false => loading.visit(path)?,
            };
            loading.graph.wanted.push(node);
        }
        Ok(loading.graph)
    }
}

struct Loading {
    graph: Graph,
    done: BTreeMap<PathBuf, usize>,
    path: Vec<PathBuf>,
    modulos: BTreeMap<StorePath, Modulo>,
    /// Nodes by the path of their derivation.
    derivations: BTreeMap<StorePath, usize>,
}

impl Loading {
    /// Depth is bounded by the number of recipes on disk: a repeated one is a cycle and refused.
    fn visit(&mut self, path: &Path) -> Result<usize, GraphError> {
        let recipe = RecipeDir::open(path)?;
        if let Some(&node) = self.done.get(&recipe.dir) {
            return Ok(node);
        }
        if let Some(start) = self.path.iter().position(|dir| *dir == recipe.dir) {
            let mut circle = self.path[start..].to_vec();
            circle.push(recipe.dir);
            return Err(GraphError::Cycle { circle });
        }
        self.path.push(recipe.dir.clone());
        let mut needs = BTreeSet::new();
        let mut built = BTreeMap::new();
        for (variable, input) in &recipe.recipe.inputs {
            if let Input::Recipe { recipe: other, output } = input {
                let node = self.visit(&recipe.shown.join(other))?;
                needs.insert(node);
                if let Some(made) = self.made(node, output) {
                    built.insert(variable.clone(), made);
                }
            }
        }
        self.path.pop();
        let lock = recipe.lock()?;
        let lowered = lower::lower(&recipe.recipe, &lock, &built, &self.modulos)
            .map_err(|source| GraphError::Lower { recipe: recipe.shown.clone(), source })?;
        let Lowered { closed, outputs, inputs, environment } = lowered;
        self.modulos.insert(closed.path.clone(), closed.modulo);
        self.done.insert(recipe.dir.clone(), self.graph.nodes.len());
        Ok(self.push(Node {
            shown: recipe.shown.clone(),
            origin: Origin::Recipe(Box::new(Locked { recipe, lock, inputs, environment })),
            derivation: closed.derivation,
            path: closed.path,
            outputs,
            resolved_by: None,
            needs,
        }))
    }

    fn push(&mut self, node: Node) -> usize {
        let index = self.graph.nodes.len();
        self.derivations.insert(node.path.clone(), index);
        self.graph.nodes.push(node);
        index
    }

    fn made(&self, node: usize, output: &Variable) -> Option<Built> {
        let node = &self.graph.nodes[node];
        let path = node.outputs.get(output)?.clone();
        Some(Built { derivation: node.path.clone(), output: output.clone(), path })
    }
}
