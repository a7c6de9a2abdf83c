//! The texts that a build follows from: recipes and locks, each where the others look for it.
//!
//! With their inputs at hand they make the derivation again, whoever has them: a capsule packs them, and a statement carries
//! them. Where they come from a stranger they are written below a private directory alone, and what they name of each other
//! must be among them: nothing that they say leads out of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Component, Path, PathBuf};

use kiln_model::format::capsule::{self as format, Place};
use kiln_model::recipe::{Input, Recipe};
use kiln_model::store_path::StorePath;

use super::error::{CapsuleError, io};
use crate::build::graph::{Graph, Locked, Node, Origin};

/// Recipes and locks of a build and of all that it needs.
#[derive(Debug)]
pub(crate) struct Texts {
    /// Directory of the recipe that is built, below `recipes`.
    pub(super) recipe: String,
    /// All of them.
    pub(super) members: BTreeMap<Place, Vec<u8>>,
}

impl Texts {
    /// Those of node `index` of `graph`, which `wanted` is.
    pub(super) fn of(graph: &Graph, index: usize, wanted: &Locked) -> Result<Self, CapsuleError> {
        let nodes: Vec<&Locked> =
            closure(graph, index).into_iter().filter_map(|one| locked(&graph.nodes[one])).collect();
        let top = common(nodes.iter().map(|locked| locked.recipe.dir.as_path()));
        let mut members = BTreeMap::new();
        for locked in nodes {
            let directory = place_of(&locked.recipe.dir, &top)?;
            check_neighbours(locked)?;
            for file in ["recipe.toml", "recipe.lock"] {
                let path = locked.recipe.dir.join(file);
                let text = fs::read(&path).map_err(io("reading", &path))?;
                members.insert(recipe_place(&directory, file, &locked.recipe.dir)?, text);
            }
        }
        let recipe = place_of(&wanted.recipe.dir, &top)?;
        Ok(Self { recipe, members })
    }

    /// The derivation itself and those that it needs, where it was given as it is.
    pub(super) fn of_derivations(graph: &Graph, index: usize) -> BTreeMap<Place, Vec<u8>> {
        let text = |one: usize| {
            let node = &graph.nodes[one];
            (Place::Derivation(node.path.clone()), node.derivation.print())
        };
        closure(graph, index).into_iter().map(text).collect()
    }

    /// What a statement about node `index` carries, if it can be carried.
    pub(crate) fn carried(graph: &Graph, index: usize) -> Option<BTreeMap<Place, Vec<u8>>> {
        match &graph.nodes[index].origin {
            Origin::Recipe(locked) => Self::of(graph, index, locked).ok().map(|texts| texts.members),
            Origin::Derivation => Some(Self::of_derivations(graph, index)),
        }
    }
}

/// Node `index` and all that it needs, each once.
pub(super) fn closure(graph: &Graph, index: usize) -> BTreeSet<usize> {
    let (mut found, mut open) = (BTreeSet::new(), vec![index]);
    while let Some(one) = open.pop() {
        if found.insert(one) {
            open.extend(&graph.nodes[one].needs);
        }
    }
    found
}

pub(super) fn locked(node: &Node) -> Option<&Locked> {
    match &node.origin {
        Origin::Recipe(locked) => Some(locked),
        Origin::Derivation => None,
    }
}

/// The deepest directory that all lie in; of one, that itself.
fn common<'p>(mut paths: impl Iterator<Item = &'p Path>) -> PathBuf {
    let mut top = paths.next().unwrap_or(Path::new("/"));
    for path in paths {
        while !path.starts_with(top) {
            top = top.parent().unwrap_or(Path::new("/"));
        }
    }
    top.to_path_buf()
}

/// Where a recipe lies below the directory that all lie in.
fn place_of(directory: &Path, top: &Path) -> Result<String, CapsuleError> {
    let below = directory.strip_prefix(top).ok().and_then(Path::to_str);
    let unreadable = || CapsuleError::Place { recipe: directory.into(), why: "its path is not UTF-8" };
    below.map(String::from).ok_or_else(unreadable)
}

fn recipe_place(directory: &str, file: &str, shown: &Path) -> Result<Place, CapsuleError> {
    let place = format!("recipes/{}", format::recipe_file(directory, file));
    let refused =
        |_| CapsuleError::Place { recipe: shown.into(), why: "its path is too deep or has unusual characters" };
    place.parse().map_err(refused)
}

/// Recipes that this one names must lie where the name leads without links: a capsule has none.
fn check_neighbours(locked: &Locked) -> Result<(), CapsuleError> {
    let here = &locked.recipe.dir;
    for input in locked.recipe.recipe.inputs.values() {
        let Input::Recipe { recipe, .. } = input else { continue };
        let path = here.join(recipe);
        let real = fs::canonicalize(&path).map_err(io("locating", &path))?;
        let mut plain = PathBuf::new();
        for part in path.components() {
            match part {
                Component::ParentDir => drop(plain.pop()),
                Component::CurDir => {}
                other => plain.push(other),
            }
        }
        let file = plain.file_name().is_some_and(|name| name == "recipe.toml");
        let plain = if file { plain.parent().unwrap_or(&plain).to_path_buf() } else { plain };
        let real = if file { real.parent().unwrap_or(&real).to_path_buf() } else { real };
        if plain != real {
            return Err(CapsuleError::Place { recipe: plain, why: "a link leads there" });
        }
    }
    Ok(())
}

/// Writes a stranger's texts below `into`, an empty private directory, once each names no other than those that are written.
/// Returns the directories of the recipes, below `into`. `from` is what errors name.
pub(super) fn write_all(
    into: &Path,
    texts: &BTreeMap<String, Vec<u8>>,
    from: &Path,
) -> Result<Vec<PathBuf>, CapsuleError> {
    let malformed = |violation: String| CapsuleError::Malformed { path: from.into(), violation };
    let mut directories = Vec::new();
    for (place, bytes) in texts {
        let Some(directory) = place.strip_suffix("recipe.toml") else { continue };
        let text = std::str::from_utf8(bytes).map_err(|_| malformed(format!("recipes/{place} is not UTF-8")))?;
        let recipe = Recipe::parse(text).map_err(|error| malformed(format!("recipes/{place}: {error}")))?;
        for (variable, input) in &recipe.inputs {
            let Input::Recipe { recipe: other, .. } = input else { continue };
            let there = beside(directory, other).is_some_and(|file| texts.contains_key(&file));
            if !there {
                return Err(malformed(format!(
                    "inputs.{variable} of recipes/{place} is the recipe at {:?}, which is not in it",
                    other.chars().take(80).collect::<String>()
                )));
            }
        }
        directories.push(into.join(directory));
    }
    if directories.is_empty() {
        return Err(malformed("it has no recipe.toml".into()));
    }
    for (place, bytes) in texts {
        // Its components are plain (`Place`), and nothing here makes a link: it stays below `into`.
        let path = into.join(place);
        let parent = path.parent().unwrap_or(into);
        fs::create_dir_all(parent).map_err(io("creating", parent))?;
        let mut file = File::options().write(true).create_new(true).open(&path).map_err(io("creating", &path))?;
        file.write_all(bytes).map_err(io("writing", &path))?;
    }
    Ok(directories)
}

/// Writes a stranger's derivations into `into`, an empty private directory, under their own names: each is held against its path
/// when it is read. Returns the file of the one at `wanted`, if it is among them.
pub(super) fn write_derivations(
    into: &Path,
    derivations: &BTreeMap<StorePath, Vec<u8>>,
    wanted: &str,
) -> Result<Option<PathBuf>, CapsuleError> {
    let mut found = None;
    for (path, bytes) in derivations {
        let file = into.join(path.base_name());
        fs::write(&file, bytes).map_err(io("writing", &file))?;
        if path.to_string() == wanted {
            found = Some(file);
        }
    }
    Ok(found)
}

/// The recipe.toml that `named` is, seen from `directory`, if that stays below where both are counted from.
fn beside(directory: &str, named: &str) -> Option<String> {
    let mut parts: Vec<&str> = directory.split('/').filter(|part| !part.is_empty()).collect();
    if named.starts_with('/') {
        return None;
    }
    for part in named.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    if parts.last() != Some(&"recipe.toml") {
        parts.push("recipe.toml");
    }
    Some(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recipes_lie_to_each_other_as_on_disk() {
        let top = common([Path::new("/a/b/c"), Path::new("/a/b/d/e")].into_iter());
        assert_eq!(top, Path::new("/a/b"));
        assert_eq!(place_of(Path::new("/a/b/d/e"), &top).unwrap(), "d/e");
        assert_eq!(place_of(&top, &common([Path::new("/a/b")].into_iter())).unwrap(), "");
    }

    #[test]
    fn what_a_recipe_names_stays_among_the_texts() {
        assert_eq!(beside("a/b/", "../c").as_deref(), Some("a/c/recipe.toml"));
        assert_eq!(beside("a/", "./x/recipe.toml").as_deref(), Some("a/x/recipe.toml"));
        assert_eq!(beside("", "x//y").as_deref(), Some("x/y/recipe.toml"));
        for outside in ["../x", "x/../../y", "/x", "../../../../etc"] {
            assert_eq!(beside("", outside), None, "{outside}");
        }
        assert_eq!(beside("a/", "../../x"), None);
    }

    #[test]
    fn a_recipe_that_names_another_which_is_not_there_is_written_nowhere() {
        let recipe = |other: &str| {
            format!(
                "schema = 1\nname = \"made\"\nversion = \"1\"\nlicense = \"Apache-2.0\"\n[environment]\n\
                 debian = {{ suite = \"bookworm\" }}\n[inputs]\ndep = {{ recipe = {other:?} }}\n[build]\nscript = \"true\"\n"
            )
        };
        let place = tempfile::tempdir().unwrap();
        for (other, there) in [("../dep", true), ("../../dep", false), ("../missing", false), ("/etc", false)] {
            let into = place.path().join(other.replace('/', "_"));
            fs::create_dir(&into).unwrap();
            let texts: BTreeMap<String, Vec<u8>> =
                [("top/recipe.toml", recipe(other)), ("dep/recipe.toml", recipe("../top"))]
                    .map(|(place, text)| (place.to_owned(), text.into_bytes()))
                    .into();
            let written = write_all(&into, &texts, Path::new("x"));
            assert_eq!(written.is_ok(), there, "{other}: {written:?}");
            assert_eq!(fs::read_dir(&into).unwrap().count(), if there { 2 } else { 0 });
        }
    }
}
