//! Recipes for tests: shipped ones by name, and small ones made up on the spot.
//!
//! A lock pins inputs and environment, not the script. So a made-up recipe that has no inputs and asks for the essential
//! packages only takes over the lock of a shipped one, and needs neither index nor mirror.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use tempfile::TempDir;

use crate::ground::{self, Ground};

/// A recipe's directory that the test may write to.
#[derive(Debug)]
pub struct Made {
    dir: TempDir,
}

/// The directory of a shipped recipe.
pub fn shipped(name: &str) -> PathBuf {
    ground::repository().join("recipes").join(name)
}

/// Names of the shipped recipes that are meant to be reproducible.
pub fn reproducible() -> Vec<String> {
    named(&shipped(""))
}

/// Names of the zoo.
pub fn zoo() -> Vec<String> {
    named(&shipped("zoo"))
}

fn named(parent: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(parent)
        .expect("recipes/ is there")
        .map(|entry| entry.expect("recipes/ is readable").path())
        .filter(|path| path.join("recipe.toml").is_file())
        .map(|path| path.file_name().expect("has a name").to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// A word that no other run of the tests has used, so that a derivation which holds it was never built before.
pub fn nonce() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is later than 1970");
    format!("{}-{}", std::process::id(), now.as_nanos())
}

impl Made {
    /// A recipe that runs `script` among the essential packages. Never built before.
    pub fn new(script: &str) -> Self {
        Self::with("", script)
    }

    /// The same, with further lines of `[build]`.
    pub fn with(build: &str, script: &str) -> Self {
        let made = Self { dir: ground::directory(Ground::Disk) };
        assert!(!script.contains("'''"));
        made.write(
            "recipe.toml",
            &format!(
                "schema = 1\nname = \"made\"\nversion = \"1\"\nlicense = \"Apache-2.0\"\n\n[environment]\n\
                 debian = {{ suite = \"bookworm\" }}\n\n[build]\n{build}\nscript = '''\n# {}\n{script}\n'''\n",
                nonce()
            ),
        );
        fs::copy(shipped("zoo/env_embed/recipe.lock"), made.path().join("recipe.lock"))
            .expect("the zoo is locked: run kiln lock recipes/zoo/env_embed");
        made
    }

    /// A copy of a shipped recipe, lock and all.
    pub fn copy(name: &str) -> Self {
        let made = Self { dir: ground::directory(Ground::Disk) };
        copy_tree(&shipped(name), made.path());
        made
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The text of one of its files.
    pub fn read(&self, file: &str) -> String {
        fs::read_to_string(self.path().join(file)).expect("a file of the recipe")
    }

    /// Writes one of its files.
    pub fn write(&self, file: &str, text: &str) {
        fs::write(self.path().join(file), text).expect("the recipe's directory is ours");
    }

    /// Replaces `old`, which must be there, by `new`.
    #[track_caller]
    pub fn edit(&self, file: &str, old: &str, new: &str) {
        let text = self.read(file);
        assert!(text.contains(old), "{file} has no {old:?}:\n{text}");
        self.write(file, &text.replace(old, new));
    }
}

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a directory of ours");
    for entry in fs::read_dir(from).expect("a shipped directory") {
        let entry = entry.expect("a shipped directory");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("a shipped file").is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), &target).expect("a shipped file");
        }
    }
}
