//! The tree of one commit, without history.
//!
//! Uses the user's `git` program and not a library: it knows every transport (ssh with the user's agent, proxies, netrc), its
//! object checks are the reference ones, and a second implementation of them would be much to carry for one step of
//! pinning. It gets a private bare repository, no configuration, no hooks, no template, and asks nobody anything.
//!
//! Blobs are written by kiln from `cat-file`, never by a checkout: no filters, line endings, attributes or `export-subst`. Submodules
//! and LFS pointers are refused by name: their content is not in the tree. The object id is SHA-1's promise (git detects
//! known collisions); what a lock relies on is the NAR digest.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use kiln_model::digest::NarHash;
use kiln_model::lock::LockedInput;

mod blobs;

use blobs::Blobs;

use super::PinnedTree;
use crate::exit::Kind;
use crate::fetch::Network;

/// A pinned commit.
#[derive(Debug)]
pub struct GitPin {
    /// The repository as the recipe wrote it.
    pub git: String,
    /// The commit.
    pub rev: String,
    /// Its tree.
    pub tree: PinnedTree,
}

/// Why a commit cannot be pinned.
#[derive(Debug, thiserror::Error)]
pub enum GitError {
    /// Not an address that git may be given.
    #[error(
        "git {git:?}: expected https://, http://, ssh://, git://, file://, user@host:path, or a path that begins with / or ."
    )]
    Address {
        /// As the recipe wrote it.
        git: String,
    },
    /// Not a commit's id.
    #[error("rev {rev:?}: expected 40 lower-case hexadecimal digits")]
    Rev {
        /// As the recipe wrote it.
        rev: String,
    },
    /// A network address, and kiln is offline.
    #[error("git {git}: not asked: offline")]
    Offline {
        /// As the recipe wrote it.
        git: String,
    },
    /// The program cannot be run.
    #[error("running git; install it")]
    Program(#[source] io::Error),
    /// The program failed.
    #[error("git {act}: {says}")]
    Failed {
        /// What it was asked for.
        act: &'static str,
        /// The end of what it said.
        says: String,
    },
    /// The id is of something else.
    #[error("git {git}: {rev} is a {kind}; expected a commit")]
    NotACommit {
        /// As the recipe wrote it.
        git: String,
        /// As the recipe wrote it.
        rev: String,
        /// What it is.
        kind: String,
    },
    /// The tree refers to another repository.
    #[error("{path} is a submodule, whose content is not in the commit; add it as an input of its own")]
    Submodule {
        /// Its path in the tree.
        path: String,
    },
    /// The tree has a pointer instead of a file.
    #[error("{path} is a pointer of Git LFS, whose content is not in the commit; add the file as an input of its own")]
    Lfs {
        /// Its path in the tree.
        path: String,
    },
    /// The tree has a path that must not be written.
    #[error("the commit has the path {path:?}, which no checkout would write")]
    Hostile {
        /// Its path in the tree.
        path: String,
    },
    /// A file cannot be written.
    #[error("writing {}", path.display())]
    Io {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl GitError {
    /// What sort of failure it is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Address { .. }
            | Self::Rev { .. }
            | Self::NotACommit { .. }
            | Self::Submodule { .. }
            | Self::Lfs { .. }
            | Self::Hostile { .. } => Kind::BadInput,
            Self::Offline { .. } | Self::Program(_) | Self::Failed { .. } | Self::Io { .. } => Kind::Host,
        }
    }
}

/// Fetches the commit and writes its tree below the store's `tmp`. A path instead of an address is seen from `recipe`, the
/// recipe's directory.
pub fn pin(recipe: &Path, git: &str, rev: &str, network: Network, tmp: &Path) -> Result<GitPin, GitError> {
    if rev.len() != 40 || !rev.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
        return Err(GitError::Rev { rev: rev.into() });
    }
    let address = address(recipe, git, network)?;
    let io = |path: &Path| {
        let path = path.to_path_buf();
        move |source| GitError::Io { path, source }
    };
    let tree = PinnedTree::below(tmp).map_err(io(tmp))?;
    let repository = Repository { directory: tree.directory.path().join("bare") };
    repository.run("init", &["init", "--quiet", "--bare", "--template=", "--object-format=sha1", "."])?;
    repository.fetch(&address, rev)?;
    let kind = repository.run("cat-file", &["cat-file", "-t", rev])?;
    match kind.trim_ascii() {
        b"commit" => {}
        kind => {
            let kind = String::from_utf8_lossy(kind).into_owned();
            return Err(GitError::NotACommit { git: git.into(), rev: rev.into(), kind });
        }
    }
    repository.write_tree(rev, &tree.root())?;
    fs::remove_dir_all(&repository.directory).map_err(io(&repository.directory))?;
    Ok(GitPin { git: git.into(), rev: rev.into(), tree })
}

impl GitPin {
    /// The lock's entry.
    pub fn locked(&self, nar_hash: NarHash) -> LockedInput {
        LockedInput::Git { git: self.git.clone(), rev: self.rev.clone(), nar_hash }
    }
}

/// What git is given. Addresses of `ext::` and the like run programs; one that begins with `-` would be an option.
fn address(recipe: &Path, git: &str, network: Network) -> Result<String, GitError> {
    let refused = || GitError::Address { git: git.into() };
    if git.starts_with('-') || git.contains("::") || git.contains(|c: char| c.is_control()) {
        return Err(refused());
    }
    let remote = match git.split_once("://") {
        Some(("https" | "http" | "ssh" | "git", rest)) => !rest.starts_with('-'),
        Some(("file", _)) => false,
        Some(_) => return Err(refused()),
        None if git.starts_with(['/', '.']) => {
            return Ok(recipe.canonicalize().unwrap_or_else(|_| recipe.into()).join(git).display().to_string());
        }
        None => match git.split_once(':') {
            Some((host, path)) if !host.contains('/') && !host.is_empty() && !path.is_empty() => true,
            _ => return Err(refused()),
        },
    };
    match network {
        Network::Offline if remote => Err(GitError::Offline { git: git.into() }),
        Network::Offline | Network::Online => Ok(git.into()),
    }
}

struct Repository {
    directory: PathBuf,
}

impl Repository {
    /// git, deaf to everything but its arguments. What is kept of the environment is what reaches hosts.
    fn command(&self, arguments: &[&str]) -> Command {
        const KEPT: [&str; 16] = [
            "PATH",
            "HOME",
            "SSH_AUTH_SOCK",
            "http_proxy",
            "https_proxy",
            "all_proxy",
            "no_proxy",
            "HTTPS_PROXY",
            "ALL_PROXY",
            "NO_PROXY",
            "SSL_CERT_FILE",
            "SSL_CERT_DIR",
            "GIT_SSL_CAINFO",
            "GIT_SSL_CAPATH",
            "USER",
            "LOGNAME",
        ];
        let mut command = Command::new("git");
        command
            .env_clear()
            .envs(KEPT.iter().filter_map(|name| Some((name, std::env::var_os(name)?))))
            .env("LC_ALL", "C.UTF-8")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_ATTR_NOSYSTEM", "1")
            .env("GIT_NO_REPLACE_OBJECTS", "1")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_ASKPASS", "/bin/false")
            .env("SSH_ASKPASS", "/bin/false")
            .env("GIT_SSH_COMMAND", "ssh -o BatchMode=yes -o ConnectTimeout=30")
            .env("GIT_DIR", &self.directory)
            .current_dir("/")
            .stdin(Stdio::null());
        let settings = [
            "core.hooksPath=/dev/null",
            "core.fsmonitor=false",
            "gc.auto=0",
            "maintenance.auto=false",
            "protocol.allow=never",
            "protocol.https.allow=always",
            "protocol.http.allow=always",
            "protocol.ssh.allow=always",
            "protocol.git.allow=always",
            "protocol.file.allow=always",
            // A server that trickles is given up, as by the fetcher.
            "http.lowSpeedLimit=1000",
            "http.lowSpeedTime=30",
            "http.followRedirects=initial",
        ];
        for setting in settings {
            command.args(["-c", setting]);
        }
        command.args(arguments);
        command
    }

    fn run(&self, act: &'static str, arguments: &[&str]) -> Result<Vec<u8>, GitError> {
        let output = match arguments {
            // `init` makes the directory that GIT_DIR names.
            ["init", options @ .., "."] => self.command(&[&["init"], options].concat()).output(),
            _ => self.command(arguments).output(),
        }
        .map_err(GitError::Program)?;
        if output.status.success() {
            return Ok(output.stdout);
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let lines: Vec<&str> = said.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
        let says = lines[lines.len().saturating_sub(3)..].join("; ");
        Err(GitError::Failed { act, says: if says.is_empty() { output.status.to_string() } else { says } })
    }

    fn fetch(&self, address: &str, rev: &str) -> Result<(), GitError> {
        let fetch = ["fetch", "--quiet", "--no-tags", "--no-recurse-submodules", "--no-write-fetch-head"];
        let one = self.run("fetch", &[&fetch[..], &["--depth=1", "--", address, rev]].concat());
        if one.is_ok() {
            return Ok(());
        }
        // Some servers give out only what a branch or tag names (uploadpack.allowReachableSHA1InWant): then all of it.
        let all = ["--", address, "+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"];
        self.run("fetch", &[&fetch[..], &all].concat())?;
        match self.run("cat-file", &["cat-file", "-e", rev]) {
            Ok(_) => Ok(()),
            Err(_) => one.map(|_| ()), // the first answer says why
        }
    }

    fn write_tree(&self, rev: &str, root: &Path) -> Result<(), GitError> {
        let failed = |path: &Path| {
            let path = path.to_path_buf();
            move |source| GitError::Io { path, source }
        };
        let listing = self.run("ls-tree", &["ls-tree", "-r", "-z", "--full-tree", rev])?;
        let mut blobs = Blobs::start(self.command(&["cat-file", "--batch"]))?;
        fs::create_dir(root).map_err(failed(root))?;
        let mut made = BTreeSet::from([root.to_path_buf()]);
        for entry in listing.split(|b| *b == 0).filter(|entry| !entry.is_empty()) {
            let (mode, id, path) = parse_entry(entry)
                .ok_or_else(|| GitError::Failed { act: "ls-tree", says: "printed what cannot be read".into() })?;
            let shown = || String::from_utf8_lossy(path).into_owned();
            let hostile = |part: &[u8]| matches!(part, b"" | b"." | b"..") || part.eq_ignore_ascii_case(b".git");
            if path.split(|b| *b == b'/').any(hostile) {
                return Err(GitError::Hostile { path: shown() });
            }
            let target = root.join(std::ffi::OsStr::from_bytes(path));
            // Only into directories made here: a tree that has a link and a directory of one name must not lead outside.
            let parent = target.parent().expect("the path is below root");
            let missing: Vec<&Path> = parent.ancestors().take_while(|p| !made.contains(*p)).collect();
            for directory in missing.into_iter().rev() {
                fs::create_dir(directory).map_err(failed(directory))?;
                made.insert(directory.into());
            }
            match mode {
                "160000" => return Err(GitError::Submodule { path: shown() }),
                "120000" => {
                    let mut link = Vec::new();
                    blobs.read(id)?.read_to_end(&mut link).map_err(failed(&target))?;
                    blobs.end()?;
                    std::os::unix::fs::symlink(std::ffi::OsStr::from_bytes(&link), &target).map_err(failed(&target))?;
                }
                "100644" | "100664" | "100755" => {
                    let mut file = File::create_new(&target).map_err(failed(&target))?;
                    if copy_unless_lfs(blobs.read(id)?, &mut file).map_err(failed(&target))? == Content::LfsPointer {
                        return Err(GitError::Lfs { path: shown() });
                    }
                    blobs.end()?;
                    let mode = if mode == "100755" { 0o755 } else { 0o644 };
                    file.set_permissions(fs::Permissions::from_mode(mode)).map_err(failed(&target))?;
                }
                _ => return Err(GitError::Hostile { path: shown() }),
            }
        }
        Ok(())
    }
}

#[derive(PartialEq, Eq)]
enum Content {
    Written,
    LfsPointer,
}

/// Pointers are text below 1024 bytes that begins so (the specification of Git LFS).
fn copy_unless_lfs(mut blob: impl Read, file: &mut File) -> io::Result<Content> {
    let mut head = Vec::new();
    blob.by_ref().take(1024).read_to_end(&mut head)?;
    let is = |text: &[u8]| head.windows(text.len()).any(|window| window == text);
    if head.len() < 1024 && head.starts_with(b"version https://git-lfs.") && is(b"\noid sha256:") {
        return Ok(Content::LfsPointer);
    }
    file.write_all(&head)?;
    io::copy(&mut blob, file)?;
    Ok(Content::Written)
}

/// `MODE TYPE ID\tPATH`
fn parse_entry(entry: &[u8]) -> Option<(&str, &str, &[u8])> {
    let tab = entry.iter().position(|b| *b == b'\t')?;
    let mut words = str::from_utf8(&entry[..tab]).ok()?.split(' ');
    let (mode, _, id) = (words.next()?, words.next()?, words.next()?);
    Some((mode, id, &entry[tab + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Ground {
        directory: tempfile::TempDir,
    }

    impl Ground {
        fn new() -> Self {
            let ground = Self { directory: tempfile::tempdir().unwrap() };
            ground.git(&["init", "--quiet", "work"]);
            ground
        }

        fn path(&self, path: &str) -> PathBuf {
            self.directory.path().join(path)
        }

        fn git(&self, arguments: &[&str]) -> String {
            let work = self.path("work");
            let output = Command::new("git")
                .args(arguments)
                .current_dir(if work.is_dir() { work } else { self.directory.path().into() })
                .env("GIT_CONFIG_GLOBAL", "/dev/null")
                .envs([("GIT_AUTHOR_NAME", "a"), ("GIT_AUTHOR_EMAIL", "a@a.test")])
                .envs([("GIT_COMMITTER_NAME", "a"), ("GIT_COMMITTER_EMAIL", "a@a.test")])
                .output()
                .unwrap();
            assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8(output.stdout).unwrap().trim().into()
        }

        fn commit(&self) -> String {
            self.git(&["add", "-A"]);
            self.git(&["commit", "--quiet", "-m", "x"]);
            self.git(&["rev-parse", "HEAD"])
        }

        fn pin(&self, rev: &str) -> Result<GitPin, GitError> {
            pin(self.directory.path(), "./work", rev, Network::Offline, &self.path("tmp"))
        }
    }

    #[test]
    fn the_tree_is_written_byte_for_byte_and_nothing_of_it_is_run_or_substituted() {
        let ground = Ground::new();
        fs::create_dir(ground.path("work/sub")).unwrap();
        fs::write(ground.path("work/sub/a b"), "$Format:%H$\r\n").unwrap();
        fs::write(ground.path("work/.gitattributes"), "* text eol=lf export-subst ident\nx export-ignore\n").unwrap();
        fs::write(ground.path("work/x"), "").unwrap();
        fs::set_permissions(ground.path("work/x"), fs::Permissions::from_mode(0o755)).unwrap();
        std::os::unix::fs::symlink("/nowhere", ground.path("work/link")).unwrap();
        ground.git(&["config", "core.autocrlf", "false"]);
        fs::write(ground.path("work/.git/info/attributes"), "* -text -eol\n").unwrap();
        let first = ground.commit();
        fs::write(ground.path("work/later"), "").unwrap();
        ground.commit();
        let pin = ground.pin(&first).unwrap();
        let root = pin.tree.root();
        assert_eq!(fs::read(root.join("sub/a b")).unwrap(), b"$Format:%H$\r\n");
        assert_eq!(fs::metadata(root.join("x")).unwrap().permissions().mode() & 0o777, 0o755);
        assert_eq!(fs::read_link(root.join("link")).unwrap(), Path::new("/nowhere"));
        assert!(!root.join("later").exists() && !root.join(".git").exists());
        let made = root.parent().unwrap().to_path_buf();
        drop(pin);
        assert!(!made.exists());
    }

    #[test]
    fn submodules_and_lfs_pointers_are_refused_by_name() {
        let ground = Ground::new();
        fs::write(
            ground.path("work/big"),
            format!("version https://git-lfs.a.test/spec/v1\noid sha256:{}\nsize 5\n", "0".repeat(64)),
        )
        .unwrap();
        let lfs = ground.commit();
        assert!(matches!(ground.pin(&lfs), Err(GitError::Lfs { path }) if path == "big"));
        ground.git(&["rm", "--quiet", "-f", "big"]);
        ground.git(&["update-index", "--add", "--cacheinfo", &format!("160000,{lfs},deps/sub")]);
        ground.git(&["commit", "--quiet", "-m", "x"]);
        let submodule = ground.git(&["rev-parse", "HEAD"]);
        assert!(matches!(ground.pin(&submodule), Err(GitError::Submodule { path }) if path == "deps/sub"));
    }

    #[test]
    fn only_a_commit_that_is_there_is_pinned() {
        let ground = Ground::new();
        fs::write(ground.path("work/x"), "").unwrap();
        let commit = ground.commit();
        let tree = ground.git(&["rev-parse", "HEAD^{tree}"]);
        ground.git(&["tag", "-a", "-m", "x", "v1"]);
        let tag = ground.git(&["rev-parse", "v1"]);
        assert!(ground.pin(&commit).is_ok());
        assert!(matches!(ground.pin(&tree), Err(GitError::NotACommit { .. } | GitError::Failed { .. })));
        assert!(matches!(ground.pin(&tag), Err(GitError::NotACommit { kind, .. }) if kind == "tag"));
        assert!(matches!(ground.pin(&"0".repeat(40)), Err(GitError::Failed { .. })));
        assert!(matches!(ground.pin("main"), Err(GitError::Rev { .. })));
    }

    #[test]
    fn a_tree_that_leads_outside_is_refused() {
        let ground = Ground::new();
        fs::write(ground.path("work/x"), "owned").unwrap();
        ground.commit();
        let blob = ground.git(&["rev-parse", "HEAD:x"]);
        // A tree object made by hand: git's own tools refuse to write such a path.
        let mut tree = b"100644 .git\0".to_vec();
        tree.extend(data_encoding::HEXLOWER.decode(blob.as_bytes()).unwrap());
        fs::write(ground.path("object"), tree).unwrap();
        let object = ground.path("object").display().to_string();
        let tree = ground.git(&["hash-object", "-t", "tree", "--literally", "-w", &object]);
        let commit = ground.git(&["commit-tree", "-m", "x", &tree]);
        ground.git(&["update-ref", "refs/heads/evil", &commit]);
        assert!(matches!(ground.pin(&commit), Err(GitError::Hostile { path }) if path == ".git"));
    }

    #[test]
    fn addresses_that_run_programs_or_are_options_are_refused_and_offline_asks_no_host() {
        let ask = |git: &str, network| address(Path::new("/"), git, network);
        for bad in ["ext::sh -c x", "--upload-pack=x", "ftp://a.test/x", "plain", "fd::3", "a\nb:c"] {
            assert!(matches!(ask(bad, Network::Online), Err(GitError::Address { .. })), "{bad}");
        }
        for remote in ["https://a.test/x", "ssh://a.test/x", "git@a.test:x"] {
            assert!(ask(remote, Network::Online).is_ok(), "{remote}");
            assert!(matches!(ask(remote, Network::Offline), Err(GitError::Offline { .. })), "{remote}");
        }
        assert!(ask("./x", Network::Offline).is_ok());
    }
}
