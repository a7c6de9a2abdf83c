//! The recipes that a build needs, lowered, dependencies first.
//!
//! Reads recipes and locks, follows inputs that are other recipes, refuses cycles by naming them. Everything that
//! identifies a build is known after this: nothing was fetched, no store was asked.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use kiln_model::derivation::Modulo;
use kiln_model::lock::Lock;
use kiln_model::lower::{self, Built, LowerError, Lowered};
use kiln_model::name::Variable;
use kiln_model::recipe::Input;
use kiln_model::store_path::StorePath;

use crate::exit::Kind;
use crate::recipe_dir::{RecipeDir, RecipeDirError};

/// One recipe, its lock, and the derivation they make.
#[derive(Debug)]
pub struct Node {
    /// The recipe where it was found.
    pub recipe: RecipeDir,
    /// Its lock.
    pub lock: Lock,
    /// Its derivation.
    pub lowered: Lowered,
    /// Nodes that must be built before this one.
    pub needs: BTreeSet<usize>,
}

/// Recipes in an order in which each comes after what it needs.
#[derive(Debug, Default)]
pub struct Graph {
    /// The nodes; indices are what [`Node::needs`] and [`Graph::wanted`] hold.
    pub nodes: Vec<Node>,
    /// The recipes asked for, in the order asked.
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
            Self::Cycle { .. } | Self::Lower { .. } => Kind::BadInput,
        }
    }
}

impl Graph {
    /// Reads `recipes` and all they need.
    pub fn load(recipes: &[PathBuf]) -> Result<Self, GraphError> {
        let mut loading = Loading::default();
        for path in recipes {
            let node = loading.visit(path)?;
            loading.graph.wanted.push(node);
        }
        Ok(loading.graph)
    }
}

#[derive(Default)]
struct Loading {
    graph: Graph,
    done: BTreeMap<PathBuf, usize>,
    path: Vec<PathBuf>,
    modulos: BTreeMap<StorePath, Modulo>,
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
        self.modulos.insert(lowered.closed.path.clone(), lowered.closed.modulo);
        let index = self.graph.nodes.len();
        self.done.insert(recipe.dir.clone(), index);
        self.graph.nodes.push(Node { recipe, lock, lowered, needs });
        Ok(index)
    }

    fn made(&self, node: usize, output: &Variable) -> Option<Built> {
        let lowered = &self.graph.nodes[node].lowered;
        let path = lowered.outputs.get(output)?.clone();
        Some(Built { derivation: lowered.closed.path.clone(), output: output.clone(), path })
    }
}
