//! A file or tree beside the recipe, copied as it is.
//!
//! Honours no ignore file and no attribute: what is there is the input, but for directories named `.git`. The copy is what
//! is hashed, so that a file which changes meanwhile cannot come between. Sockets, devices and pipes are refused by name, and
//! so is a tree that holds the recipe: its lock would be a part of what it locks.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

use kiln_model::digest::NarHash;
use kiln_model::lock::LockedInput;
use rustix::fs::OFlags;

use super::PinnedTree;
use crate::exit::Kind;

/// A pinned path.
#[derive(Debug)]
pub struct PathPin {
    /// Relative to the recipe, as it was written.
    pub path: String,
    /// The copy.
    pub tree: PinnedTree,
}

/// Why a path cannot be pinned.
#[derive(Debug, thiserror::Error)]
pub enum PathError {
    /// Not relative.
    #[error("path {path:?} is not relative to the recipe; write where it is seen from the recipe's directory")]
    NotRelative {
        /// As the recipe wrote it.
        path: String,
    },
    /// The recipe is inside.
    #[error(
        "path {path:?} holds the recipe itself, so that its lock would be a part of what it locks; move the recipe beside it"
    )]
    HoldsRecipe {
        /// As the recipe wrote it.
        path: String,
    },
    /// Neither file, directory nor symlink.
    #[error("{} is a {kind}; an input has files, directories and symbolic links only", path.display())]
    Special {
        /// Which one.
        path: PathBuf,
        /// What it is.
        kind: &'static str,
    },
    /// The path itself is a symlink.
    #[error("{} is a symbolic link; name what it leads to", path.display())]
    Symlink {
        /// Which one.
        path: PathBuf,
    },
    /// Cannot be read or copied.
    #[error("copying {}", path.display())]
    Io {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl PathError {
    /// What sort of failure it is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::NotRelative { .. } | Self::HoldsRecipe { .. } | Self::Special { .. } | Self::Symlink { .. } => {
                Kind::BadInput
            }
            // A path that is not there is the recipe's mistake; one that cannot be read is the host's.
            Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => Kind::BadInput,
            Self::Io { .. } => Kind::Host,
        }
    }
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> PathError + '_ {
    move |source| PathError::Io { path: path.into(), source }
}

/// Copies `path`, seen from `recipe`'s directory, below the store's `tmp`.
pub fn pin(recipe: &Path, path: &str, tmp: &Path) -> Result<PathPin, PathError> {
    let relative = Path::new(path);
    let parts = |c: Component<'_>| matches!(c, Component::Normal(_) | Component::ParentDir | Component::CurDir);
    if path.is_empty() || !relative.components().all(parts) {
        return Err(PathError::NotRelative { path: path.into() });
    }
    let from = recipe.join(relative);
    let kind = fs::symlink_metadata(&from).map_err(failed(&from))?.file_type();
    if kind.is_symlink() {
        return Err(PathError::Symlink { path: from });
    }
    let canonical = |path: &Path| path.canonicalize().map_err(failed(path));
    if canonical(recipe)?.starts_with(canonical(&from)?) {
        return Err(PathError::HoldsRecipe { path: path.into() });
    }
    let tree = PinnedTree::below(tmp).map_err(failed(tmp))?;
    copy(&from, &tree.root())?;
    Ok(PathPin { path: path.into(), tree })
}

impl PathPin {
    /// The lock's entry.
    pub fn locked(&self, nar_hash: NarHash) -> LockedInput {
        LockedInput::Path { path: self.path.clone(), nar_hash }
    }
}

/// A stack and not the call stack: how deep a tree is, is not ours to say.
fn copy(from: &Path, to: &Path) -> Result<(), PathError> {
    let mut todo = vec![(from.to_path_buf(), to.to_path_buf())];
    while let Some((from, to)) = todo.pop() {
        let kind = fs::symlink_metadata(&from).map_err(failed(&from))?.file_type();
        if kind.is_dir() {
            fs::create_dir(&to).map_err(failed(&to))?;
            for entry in fs::read_dir(&from).map_err(failed(&from))? {
                let name = entry.map_err(failed(&from))?.file_name();
                if name != OsStr::new(".git") {
                    todo.push((from.join(&name), to.join(&name)));
                }
            }
        } else if kind.is_symlink() {
            let target = fs::read_link(&from).map_err(failed(&from))?;
            std::os::unix::fs::symlink(target, &to).map_err(failed(&to))?;
        } else {
            copy_file(&from, &to)?;
        }
    }
    Ok(())
}

fn copy_file(from: &Path, to: &Path) -> Result<(), PathError> {
    // Not blocking on a pipe, not following a link that came here meanwhile.
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32;
    let opened = OpenOptions::new().read(true).custom_flags(flags).open(from);
    let kind_of = |kind: fs::FileType| {
        use std::os::unix::fs::FileTypeExt;
        match kind {
            kind if kind.is_socket() => "socket",
            kind if kind.is_fifo() => "named pipe",
            _ => "device",
        }
    };
    let mut source = match opened {
        Ok(source) => source,
        Err(e) => {
            // A socket cannot be opened at all (ENXIO, open(2)).
            let kind = fs::symlink_metadata(from).map_err(failed(from))?.file_type();
            return Err(match kind.is_file() {
                true => failed(from)(e),
                false => PathError::Special { path: from.into(), kind: kind_of(kind) },
            });
        }
    };
    let metadata = source.metadata().map_err(failed(from))?;
    if !metadata.is_file() {
        return Err(PathError::Special { path: from.into(), kind: kind_of(metadata.file_type()) });
    }
    let executable = metadata.permissions().mode() & 0o100 != 0;
    let mut target = File::create_new(to).map_err(failed(to))?;
    io::copy(&mut source, &mut target).map_err(failed(from))?;
    let mode = if executable { 0o755 } else { 0o644 };
    target.set_permissions(fs::Permissions::from_mode(mode)).map_err(failed(to))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ground() -> (tempfile::TempDir, PathBuf) {
        let ground = tempfile::tempdir().unwrap();
        let recipe = ground.path().join("recipe");
        fs::create_dir_all(recipe.join("src/.git")).unwrap();
        fs::create_dir_all(recipe.join("src/sub/.git")).unwrap();
        fs::write(recipe.join("src/run"), "x").unwrap();
        fs::set_permissions(recipe.join("src/run"), fs::Permissions::from_mode(0o710)).unwrap();
        fs::write(recipe.join("src/.gitignore"), "*").unwrap();
        std::os::unix::fs::symlink("/nowhere", recipe.join("src/link")).unwrap();
        (ground, recipe)
    }

    #[test]
    fn a_tree_is_copied_as_it_is_without_git_directories() {
        let (ground, recipe) = ground();
        let pin = pin(&recipe, "src", &ground.path().join("tmp")).unwrap();
        let root = pin.tree.root();
        let mut names: Vec<_> = fs::read_dir(&root).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, [".gitignore", "link", "run", "sub"]);
        assert!(fs::read_dir(root.join("sub")).unwrap().next().is_none());
        assert_eq!(fs::read_link(root.join("link")).unwrap(), Path::new("/nowhere"));
        assert_eq!(fs::metadata(root.join("run")).unwrap().permissions().mode() & 0o777, 0o755);
        drop(pin);
        assert!(!root.exists());
    }

    #[test]
    fn a_file_is_an_input_too() {
        let (ground, recipe) = ground();
        let pin = pin(&recipe, "src/run", &ground.path().join("tmp")).unwrap();
        assert_eq!(fs::read(pin.tree.root()).unwrap(), b"x");
    }

    #[test]
    fn sockets_and_pipes_are_refused_by_name() {
        let (ground, recipe) = ground();
        let tmp = ground.path().join("tmp");
        let _socket = std::os::unix::net::UnixListener::bind(recipe.join("src/sub/socket")).unwrap();
        let error = pin(&recipe, "src", &tmp).unwrap_err();
        assert!(
            matches!(&error, PathError::Special { kind: "socket", path } if path.ends_with("sub/socket")),
            "{error}"
        );
        let pipe = recipe.join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o644.into(), 0).unwrap();
        assert!(matches!(pin(&recipe, "pipe", &tmp), Err(PathError::Special { kind: "named pipe", .. })));
    }

    #[test]
    fn what_is_not_beside_the_recipe_is_refused() {
        let (ground, recipe) = ground();
        let tmp = ground.path().join("tmp");
        assert!(matches!(pin(&recipe, "/etc", &tmp), Err(PathError::NotRelative { .. })));
        assert!(matches!(pin(&recipe, ".", &tmp), Err(PathError::HoldsRecipe { .. })));
        assert!(matches!(pin(&recipe, "..", &tmp), Err(PathError::HoldsRecipe { .. })));
        assert!(matches!(pin(&recipe, "src/link", &tmp), Err(PathError::Symlink { .. })));
        assert!(matches!(pin(&recipe, "none", &tmp), Err(PathError::Io { .. })));
        assert!(pin(&recipe.join("src/sub"), "../run", &tmp).is_ok());
    }
}
