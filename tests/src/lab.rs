//! A real Nix, with stores and settings of its own: the judge of what kiln says about Nix's formats.
//!
//! The distribution's `nix-bin` is enough, as root or as an ordinary user; no daemon, and neither `/nix` nor anybody's settings
//! are touched. [`Lab::first`] builds and signs; [`Lab::second`] is another, distrustful store that believes one key and
//! substitutes from one cache.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::ground::{self, Ground};
use crate::run::{Ran, Running};

/// Nix in a directory of its own.
#[derive(Debug)]
pub struct Lab {
    dir: TempDir,
}

const SETTINGS: &str = "experimental-features = nix-command ca-derivations\nbuild-users-group =\nsandbox = true\n\
                        sandbox-fallback = false\nsandbox-paths =\nmax-jobs = 1\ncores = 2\n";

impl Lab {
    /// A lab for `test`; `None` where there is no Nix.
    pub fn open(test: &str) -> Option<Self> {
        if Command::new("nix").arg("--version").output().is_err() {
            ground::skipped(test, "no nix: run scripts/setup --test");
            return None;
        }
        let lab = Self { dir: ground::directory(Ground::Disk) };
        for directory in ["etc", "etc2", "home"] {
            fs::create_dir(lab.path().join(directory)).expect("a directory of ours");
        }
        fs::write(lab.path().join("etc/nix.conf"), format!("{SETTINGS}substituters =\n")).expect("a file of ours");
        for key in ["ours", "other"] {
            let name = format!("{key}-1");
            let secret = lab.first("nix", ["key", "generate-secret", "--key-name", &name]).succeeded().stdout;
            fs::write(lab.secret(key), &secret).expect("a file of ours");
        }
        Some(lab)
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// File with the secret key `ours` or `other`.
    pub fn secret(&self, key: &str) -> PathBuf {
        self.path().join(key)
    }

    /// The public key of it.
    pub fn public(&self, key: &str) -> String {
        let secret = fs::read_to_string(self.secret(key)).expect("the lab made it");
        let secret: kiln_model::format::signature::SecretKey = secret.trim_end().parse().expect("Nix made it");
        secret.public().to_string()
    }

    /// Where a logical path of the first store lies.
    pub fn physical(&self, path: &str) -> PathBuf {
        self.path().join("root").join(path.trim_start_matches('/'))
    }

    /// A program of Nix on the first store, not yet started.
    pub fn command<S: AsRef<OsStr>>(&self, program: &str, arguments: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(program);
        let home = self.path().join("home");
        command.args(arguments).env_clear();
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        // An ordinary user of the tests may have no entry in passwd; Nix then asks for this.
        command
            .env("USER", "tester")
            .env("HOME", &home)
            .env("XDG_CACHE_HOME", home.join(".cache"))
            .env("NIX_USER_CONF_FILES", "");
        command.env("NIX_CONF_DIR", self.path().join("etc"));
        command.env("NIX_REMOTE", format!("local?root={}", self.path().join("root").display()));
        command.current_dir(self.path());
        command
    }

    /// A program of Nix on the first store.
    pub fn first<S: AsRef<OsStr>>(&self, program: &str, arguments: impl IntoIterator<Item = S>) -> Ran {
        Running::of(self.command(program, arguments)).end()
    }

    /// A program of Nix on the second store, which substitutes from `cache` what `key` signed, and knows nothing else.
    pub fn second<S: AsRef<OsStr>>(
        &self,
        cache: &str,
        key: &str,
        program: &str,
        arguments: impl IntoIterator<Item = S>,
    ) -> Ran {
        let trusted =
            format!("require-sigs = true\ntrusted-public-keys = {}\nsubstituters = {cache}\n", self.public(key));
        fs::write(self.path().join("etc2/nix.conf"), format!("{SETTINGS}{trusted}")).expect("a file of ours");
        let mut command = self.command(program, arguments);
        command.env("NIX_CONF_DIR", self.path().join("etc2"));
        command.env("NIX_REMOTE", format!("local?root={}", self.path().join("root2").display()));
        Running::of(command).end()
    }

    /// Empties the second store, and what Nix remembers of caches.
    pub fn fresh(&self) {
        for directory in ["root2", "home/.cache"] {
            remove(&self.path().join(directory));
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // What Nix builds is read-only, directories too.
        remove(&self.path().join("root"));
        remove(&self.path().join("root2"));
    }
}

fn remove(tree: &Path) {
    if tree.exists() {
        Command::new("chmod").args(["-R", "u+w"]).arg(tree).status().expect("chmod is there");
        fs::remove_dir_all(tree).expect("a directory of ours");
    }
}
