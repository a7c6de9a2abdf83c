//! Prepares the directory that tests stand on: the only part of the harness that may fetch.
//!
//! Builds recipes into the warm store, which fetches what their locks pin, and links every such file by its name into the
//! offline directory. Run again it does what is missing. What an earlier kiln left, if this one cannot read it, is made
//! anew from the files.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use kiln_model::digest::Digest;
use kiln_model::lock::{Lock, LockedFile, LockedInput};

use crate::run::Kiln;
use crate::{ground, recipe};

/// Where files come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// The host's own mirrors, unless the offline directory has them.
    Mirrors,
    /// The offline directory only.
    Files,
}

/// Makes the environments of `recipes` ready, and all their files.
pub fn prepare(recipes: &[String], from: From) -> Result<()> {
    let (warm, files) = (ground::warm(), ground::files());
    fs::create_dir_all(&files).with_context(|| format!("creating {}", files.display()))?;
    if warm.exists() && Kiln::warm().run(["store", "verify"]).code() != Some(0) {
        eprintln!("prepare: {} cannot be read by this kiln; making it anew", warm.display());
        remove(&warm)?;
    }
    let kiln = match from {
        From::Files => Kiln::warm(),
        From::Mirrors => {
            let kiln = Kiln::warm().online();
            let list = format!("[{:?}]", files.display().to_string());
            kiln.configure(&format!("[mirrors]\ndebian = {list}\ndebian-security = {list}\npypi = {list}\n"));
            kiln
        }
    };
    for name in recipes {
        let path = recipe::shipped(name);
        let ran = kiln.run(["build".as_ref(), "--quiet".as_ref(), path.as_os_str()]);
        ensure!(ran.code() == Some(0), "building {name}: exit {:?}\n{}", ran.code(), ran.stderr);
        let text =
            fs::read_to_string(path.join("recipe.lock")).with_context(|| format!("reading the lock of {name}"))?;
        link_files(&Lock::parse(&text)?, &warm.join("files"), &files)?;
        eprintln!("prepare: {name} is ready");
    }
    Ok(())
}

fn link_files(lock: &Lock, cache: &Path, files: &Path) -> Result<()> {
    let packages = lock.environment.packages.iter().map(|p| (&p.path, &p.sha256));
    let inputs = lock.inputs.values().flat_map(|input| match input {
        LockedInput::DebianSource { files, .. } | LockedInput::Url { files, .. } | LockedInput::Pypi { files, .. } => {
            files.as_slice()
        }
        LockedInput::Git { .. } | LockedInput::Path { .. } => &[],
    });
    for (path, sha256) in packages.chain(inputs.map(|f: &LockedFile| (&f.path, &f.sha256))) {
        link(&cached(cache, sha256), &files.join(path.rsplit('/').next().unwrap_or(path)))?;
    }
    Ok(())
}

fn cached(cache: &Path, sha256: &Digest) -> std::path::PathBuf {
    cache.join(sha256.to_string())
}

fn link(from: &Path, to: &Path) -> Result<()> {
    if to.exists() {
        return Ok(());
    }
    fs::hard_link(from, to).with_context(|| format!("linking {} to {}", from.display(), to.display()))
}

/// Removes a store: what it holds is read-only, directories too.
pub fn remove(store: &Path) -> Result<()> {
    let status = std::process::Command::new("chmod").args(["-R", "u+w"]).arg(store).status()?;
    ensure!(status.success(), "chmod of {}", store.display());
    fs::remove_dir_all(store).with_context(|| format!("removing {}", store.display()))
}
