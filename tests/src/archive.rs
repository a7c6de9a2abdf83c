//! A Debian archive of one's own, in a directory: sources and packages made by dpkg's real tools, indices signed by a real gpg.
//!
//! What a package needs to be built comes from the prepared files, listed in the same index. Nothing opens a socket: kiln reads
//! the archive as an offline directory.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use crate::ground::{self, Ground};
use crate::run::Kiln;

/// The suite that it has.
pub const SUITE: &str = "proving";

/// Programs that it takes.
const TOOLS: [&str; 5] = ["gpg", "dpkg-source", "dpkg-deb", "dpkg-scanpackages", "dpkg-scansources"];

/// An archive in a directory.
#[derive(Debug)]
pub struct Archive {
    dir: TempDir,
    /// How often it was signed: each time a minute later.
    signed: u64,
}

impl Archive {
    /// An empty one; `None`, noted, where `test` lacks prepared files or a tool.
    pub fn open(test: &str) -> Option<Self> {
        if !ground::has_files(test) {
            return None;
        }
        let is_there = |tool: &&str| Command::new(tool).arg("--version").output().is_ok();
        if let Some(tool) = TOOLS.iter().find(|tool| !is_there(tool)) {
            ground::skipped(test, &format!("no {tool}: run scripts/setup --test"));
            return None;
        }
        let archive = Self { dir: ground::directory(Ground::Disk), signed: 0 };
        for directory in ["gnupg", "pool", "work"] {
            fs::create_dir(archive.path().join(directory)).expect("a directory of ours");
        }
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        fs::set_permissions(archive.path().join("gnupg"), mode).expect("a directory of ours");
        archive.gpg(&["--passphrase", "", "--quick-gen-key", "archive@proving.test", "rsa2048", "sign", "never"], None);
        let keyring = archive.gpg(&["--export"], None);
        fs::write(archive.keyring(), keyring).expect("a file of ours");
        Some(archive)
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The keyring that its indices are signed by.
    pub fn keyring(&self) -> PathBuf {
        self.path().join("keyring.gpg")
    }

    /// Where its files are.
    pub fn pool(&self) -> PathBuf {
        self.path().join("pool")
    }

    /// kiln with a fresh store, which believes this archive and knows no other place.
    pub fn kiln(&self, ground: Ground) -> Kiln {
        let kiln = Kiln::fresh(ground);
        kiln.configure(&format!(
            "[mirrors]\ndebian = [{:?}, {:?}]\n[fetch]\nclients = []\nattempts = 1\n[pin]\nkeyrings = [{:?}]\n",
            self.path(),
            ground::files(),
            self.keyring()
        ));
        kiln
    }

    /// Packs a source package from its files, each with its text; rules are executable.
    pub fn source(&self, name: &str, version: &str, files: &[(&str, &str)]) {
        let tree = self.path().join("work").join(format!("{name}-{version}"));
        for (file, text) in files {
            let path = tree.join(file);
            fs::create_dir_all(path.parent().expect("below the tree")).expect("a directory of ours");
            fs::write(&path, text).expect("a file of ours");
        }
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(tree.join("debian/rules"), mode).expect("a file of ours");
        // It is written beside the working directory.
        let mut command = Command::new("dpkg-source");
        command.arg("-b").arg(&tree).current_dir(self.pool());
        ran(command, None);
    }

    /// Packs a binary package that holds nothing but what its control file says.
    pub fn empty_package(&self, name: &str, version: &str, control: &str) {
        let tree = self.path().join("work").join(format!("{name}-binary"));
        fs::create_dir_all(tree.join("DEBIAN")).expect("a directory of ours");
        let text = format!("Package: {name}\nVersion: {version}\n{control}");
        fs::write(tree.join("DEBIAN/control"), text).expect("a file of ours");
        let mut command = Command::new("dpkg-deb");
        command.args(["--root-owner-group", "-b"]).arg(&tree).arg(self.pool());
        ran(command, None);
    }

    /// Writes and signs the indices of what is there now.
    pub fn sign(&mut self) {
        self.signed += 1;
        let suite = self.path().join("dists").join(SUITE);
        let (binary, source) = (suite.join("main/binary-amd64"), suite.join("main/source"));
        for directory in [&binary, &source] {
            fs::create_dir_all(directory).expect("a directory of ours");
        }
        let scan = |root: &Path, directory: &str| {
            let mut command = Command::new("dpkg-scanpackages");
            command.args(["--multiversion", "--hash", "sha256", directory]).current_dir(root);
            String::from_utf8(ran(command, None)).expect("control files are UTF-8")
        };
        let files = ground::files();
        let (above, name) = (files.parent().expect("not the root"), files.file_name().expect("a name"));
        let prepared = scan(above, name.to_str().expect("UTF-8"));
        // Found by name in the prepared files, whatever the path.
        let packages = format!("{}\n{prepared}", scan(self.path(), "pool"));
        let mut command = Command::new("dpkg-scansources");
        command.arg("pool").current_dir(self.path());
        let sources = ran(command, None);
        fs::write(binary.join("Packages"), &packages).expect("a file of ours");
        fs::write(source.join("Sources"), &sources).expect("a file of ours");
        let line = |path: &str, bytes: &[u8]| {
            let digest: String = Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect();
            format!(" {digest} {} {path}\n", bytes.len())
        };
        // 2026-01-01, and a minute later each time.
        let date = format!("Thu, 01 Jan 2026 00:{:02}:00 UTC", self.signed);
        let release = format!(
            "Origin: proving\nSuite: {SUITE}\nCodename: {SUITE}\nDate: {date}\nArchitectures: amd64\nComponents: main\nSHA256:\n{}{}",
            line("main/binary-amd64/Packages", packages.as_bytes()),
            line("main/source/Sources", &sources)
        );
        let signed = self.gpg(&["--clearsign", "--output", "-"], Some(release.as_bytes()));
        fs::write(suite.join("InRelease"), signed).expect("a file of ours");
    }

    /// What gpg says, with a home of its own.
    pub fn gpg(&self, arguments: &[&str], input: Option<&[u8]>) -> Vec<u8> {
        let mut command = Command::new("gpg");
        command.args(["--batch", "--quiet", "--pinentry-mode", "loopback", "--homedir"]);
        command.arg(self.path().join("gnupg")).args(arguments);
        ran(command, input)
    }
}

impl Drop for Archive {
    fn drop(&mut self) {
        // Its agent would outlive it.
        let mut command = Command::new("gpgconf");
        command.arg("--homedir").arg(self.path().join("gnupg")).args(["--kill", "all"]);
        let _ = command.output();
    }
}

fn ran(mut command: Command, input: Option<&[u8]>) -> Vec<u8> {
    let line = format!("{command:?}");
    command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|e| panic!("{line}: {e}"));
    if let (Some(mut stdin), Some(input)) = (child.stdin.take(), input) {
        std::io::Write::write_all(&mut stdin, input).expect("the program reads");
    }
    let output = child.wait_with_output().expect("our own child");
    assert!(output.status.success(), "{line}\n{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}
